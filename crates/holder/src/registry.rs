//! What a holder remembers: clients, collections, admitted templates, live groups, revoked revisions, tombstones,
//! used labels and used nonces (DESIGN 3.4, invariants 3 and 6).
//!
//! Only `Commit` and `Erase` change what decisions see; everything before them can be forgotten without a trace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use veilmatch_domain::{
    ClientId, CollectionId, Dimension, Epoch, GroupId, Policy, Purpose, Revision, SessionId, SubjectId, TemplateDigest,
    Timestamp,
};
use veilmatch_glwe::{BuildOrder, Layout, MaskSeed, Masks, Parameters};
use veilmatch_sealed::ClientVerifyingKey;
use veilmatch_secret::{Digest, Hasher, Seed};

use crate::HolderError;
use crate::scan_check::{CHECKS, CheckVector};
use crate::work::ReadTemplate;

/// One registered member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegisteredMember {
    /// Its slot.
    pub slot: usize,
    /// Whose template it is.
    pub subject: SubjectId,
    /// Which template it is.
    pub digest: TemplateDigest,
}

/// The masks of a group: their seed, and what it expands to once that is needed.
pub(crate) struct GroupMasks {
    seed: MaskSeed,
    values: OnceLock<Vec<u32>>,
}

impl GroupMasks {
    /// Masks that are expanded already.
    pub(crate) fn expanded(masks: Masks) -> Self {
        Self { seed: masks.seed, values: OnceLock::from(masks.values) }
    }
}

/// A live revision of a packed group.
pub(crate) struct RegisteredGroup {
    /// The group.
    pub group: GroupId,
    /// The revision.
    pub revision: Revision,
    /// The key epoch of its secrets.
    pub epoch: Epoch,
    /// Its layout.
    pub layout: Layout,
    /// Members by ascending slot, as built; decisions skip those that were erased since.
    pub members: Vec<RegisteredMember>,
    /// Dimension of its members.
    pub dimension: Dimension,
    /// Masks a_j: public.
    pub masks: GroupMasks,
    /// Seed of ρ, known to the holders alone.
    pub check_seed: Seed,
    /// C_{g,j} for both checks.
    pub checks: [CheckVector; CHECKS],
}

impl RegisteredGroup {
    /// J·N transformed residues, expanded once.
    pub(crate) fn masks(&self, parameters: &Parameters) -> &[u32] {
        self.masks.values.get_or_init(|| self.masks.seed.expand(parameters, self.layout, self.dimension).values)
    }
}

impl std::fmt::Debug for RegisteredGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RegisteredGroup({} revision {}, {} members)", self.group, self.revision, self.members.len())
    }
}

/// What a holder contributed to a label, so that a retry gives identical bytes.
pub(crate) struct LabelRecord {
    /// Digest of the content that the label was used for.
    pub content: Digest,
    /// The public contribution to the mask seed.
    pub contribution: [u8; 32],
    /// The contribution to the check seed, shown to holders alone.
    pub private: Seed,
    /// The masks that all three contributions led to, once known.
    pub masks: Option<MaskSeed>,
}

/// One collection.
#[derive(Default)]
pub(crate) struct CollectionRecord {
    policy: Option<Policy>,
    admitted: BTreeMap<SubjectId, TemplateDigest>,
    reserved: BTreeMap<SubjectId, SessionId>,
    tombstones: BTreeSet<TemplateDigest>,
    /// The last erasure of a subject: which signed request, which template.
    erased: BTreeMap<SubjectId, (Digest, TemplateDigest)>,
    live: BTreeMap<GroupId, Arc<RegisteredGroup>>,
    located: BTreeMap<TemplateDigest, GroupId>,
    revoked: BTreeSet<(GroupId, Revision)>,
    labels: BTreeMap<(GroupId, Revision), LabelRecord>,
    /// [`CollectionRecord::view_digest`], until something changes: every query compares it three times.
    view: OnceLock<Digest>,
}

impl CollectionRecord {
    /// The rules.
    #[must_use]
    pub(crate) fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    /// The admitted template of a subject.
    #[must_use]
    pub(crate) fn template_of(&self, subject: &SubjectId) -> Option<&TemplateDigest> {
        self.admitted.get(subject)
    }

    /// Live groups by ascending id.
    pub(crate) fn live_groups(&self) -> impl Iterator<Item = &Arc<RegisteredGroup>> {
        self.live.values()
    }

    /// A live group.
    #[must_use]
    pub(crate) fn live_group(&self, group: GroupId) -> Option<&Arc<RegisteredGroup>> {
        self.live.get(&group)
    }

    /// The live group that a template is a member of.
    #[must_use]
    pub(crate) fn group_of(&self, digest: &TemplateDigest) -> Option<GroupId> {
        self.located.get(digest).copied()
    }

    /// Whether a revision was revoked.
    #[must_use]
    pub(crate) fn is_revoked(&self, group: GroupId, revision: Revision) -> bool {
        self.revoked.contains(&(group, revision))
    }

    /// Whether a template was erased.
    #[must_use]
    pub(crate) fn is_tombstoned(&self, digest: &TemplateDigest) -> bool {
        self.tombstones.contains(digest)
    }

    /// Reserves a subject for an admission that is under way.
    ///
    /// # Errors
    /// [`HolderError::AlreadyEnrolled`] if it is enrolled or reserved by another session.
    pub(crate) fn reserve(&mut self, subject: &SubjectId, session: SessionId) -> Result<(), HolderError> {
        if self.admitted.contains_key(subject) || self.reserved.contains_key(subject) {
            return Err(HolderError::AlreadyEnrolled(subject.clone()));
        }
        self.reserved.insert(subject.clone(), session);
        Ok(())
    }

    /// Drops every reservation of a session.
    pub(crate) fn release(&mut self, session: SessionId) {
        self.reserved.retain(|_, holder| *holder != session);
    }

    /// Admits a template under a reservation.
    pub(crate) fn admit(&mut self, subject: SubjectId, digest: TemplateDigest) {
        self.reserved.remove(&subject);
        self.admitted.insert(subject, digest);
        self.view = OnceLock::new();
    }

    /// Marks the template of a subject as erased. Returns its digest and the group that still carries it.
    ///
    /// # Errors
    /// [`HolderError::UnknownSubject`].
    pub(crate) fn erase(
        &mut self,
        subject: &SubjectId,
        request: Digest,
    ) -> Result<(TemplateDigest, Option<GroupId>), HolderError> {
        // Another holder may have missed the erasure: the client's second request must be able to bring it along.
        let before = self.erased.get(subject).map(|(_, digest)| *digest);
        let digest = self.admitted.remove(subject).or(before);
        let digest = digest.ok_or_else(|| HolderError::UnknownSubject(subject.clone()))?;
        self.tombstones.insert(digest);
        self.view = OnceLock::new();
        self.erased.insert(subject.clone(), (request, digest));
        Ok((digest, self.located.get(&digest).copied()))
    }

    /// What this signed request erased, if it was the subject's last erasure and the subject is not enrolled again.
    pub(crate) fn erased_by(&self, subject: &SubjectId, request: &Digest) -> Option<(TemplateDigest, Option<GroupId>)> {
        let (by, digest) = self.erased.get(subject)?;
        (by == request && !self.admitted.contains_key(subject)).then(|| (*digest, self.located.get(digest).copied()))
    }

    /// The record of a label, made if the label is new. A retry with the same content finds its old contributions.
    ///
    /// # Errors
    /// [`HolderError::LabelReused`] for other content or a revision below one that was used;
    /// [`HolderError::RevokedRevision`] for a revision that was revoked.
    pub(crate) fn label(
        &mut self,
        group: GroupId,
        revision: Revision,
        content: Digest,
        draw: impl FnOnce() -> ([u8; 32], Seed),
    ) -> Result<&mut LabelRecord, HolderError> {
        if self.is_revoked(group, revision) {
            return Err(HolderError::RevokedRevision { group, revision });
        }
        let newest = self.labels.range((group, Revision(0))..=(group, Revision(u32::MAX))).next_back();
        if let Some((&(_, newest), record)) = newest
            && (revision < newest || (revision == newest && record.content != content))
        {
            return Err(HolderError::LabelReused { group, revision });
        }
        Ok(self.labels.entry((group, revision)).or_insert_with(|| {
            let (contribution, private) = draw();
            LabelRecord { content, contribution, private, masks: None }
        }))
    }

    /// Records the masks that a label's contributions led to.
    ///
    /// # Errors
    /// [`HolderError::LabelReused`] if the label led to other masks before: a peer changed its contribution.
    pub(crate) fn fix_masks(&mut self, group: GroupId, revision: Revision, masks: MaskSeed) -> Result<(), HolderError> {
        match self.labels.get_mut(&(group, revision)) {
            Some(record) if record.masks.is_none_or(|known| known == masks) => {
                record.masks = Some(masks);
                Ok(())
            }
            _ => Err(HolderError::LabelReused { group, revision }),
        }
    }

    /// Makes a revision live and revokes what it replaces.
    pub(crate) fn commit(&mut self, built: RegisteredGroup, replaces: &[GroupId]) {
        self.view = OnceLock::new();
        let group = built.group;
        for old in replaces.iter().chain([&group]) {
            if let Some(gone) = self.live.remove(old) {
                self.revoked.insert((gone.group, gone.revision));
                self.located.retain(|_, place| place != old);
            }
        }
        for member in &built.members {
            self.located.insert(member.digest, group);
        }
        self.live.insert(group, Arc::new(built));
    }

    /// Revokes a group without a successor: its last member was erased.
    pub(crate) fn revoke(&mut self, group: GroupId) {
        self.view = OnceLock::new();
        if let Some(gone) = self.live.remove(&group) {
            self.revoked.insert((gone.group, gone.revision));
            self.located.retain(|_, place| *place != group);
        }
    }

    /// Members of a group that are still enrolled.
    pub(crate) fn enrolled_members<'a>(
        &'a self,
        group: &'a RegisteredGroup,
    ) -> impl Iterator<Item = &'a RegisteredMember> {
        // A registered member was admitted, and only an erasure, which leaves a tombstone, ends that.
        group.members.iter().filter(|m| !self.tombstones.contains(&m.digest))
    }

    /// A digest of everything that decides what a query sees: the holders compare it.
    #[must_use]
    pub(crate) fn view_digest(&self) -> Digest {
        *self.view.get_or_init(|| self.compute_view())
    }

    fn compute_view(&self) -> Digest {
        let mut hasher = Hasher::new("veilmatch/registry/view");
        if let Some(bytes) = self.policy.as_ref().and_then(|p| borsh::to_vec(p).ok()) {
            hasher.field(&bytes);
        }
        for group in self.live.values() {
            hasher.number(group.group.0).number(group.revision.0.into()).number(group.epoch.0.into());
            for member in self.enrolled_members(group) {
                hasher.number(member.slot as u64).field(&member.digest.0);
            }
        }
        hasher.finish()
    }
}

/// Everything a holder remembers but its keys.
#[derive(Default)]
pub(crate) struct Registry {
    /// Shared with work that is out.
    clients: Arc<BTreeMap<ClientId, ClientVerifyingKey>>,
    collections: BTreeMap<CollectionId, CollectionRecord>,
    nonces: BTreeMap<(ClientId, [u8; 16]), Timestamp>,
    spent: BTreeSet<SessionId>,
}

impl Registry {
    /// Registers a client's public key.
    pub(crate) fn register_client(&mut self, client: ClientId, key: ClientVerifyingKey) {
        Arc::make_mut(&mut self.clients).insert(client, key);
    }

    /// Creates a collection or changes its policy.
    pub(crate) fn set_policy(&mut self, collection: CollectionId, policy: Policy) {
        let record = self.collections.entry(collection).or_default();
        record.policy = Some(policy);
        record.view = OnceLock::new();
    }

    /// All clients' keys.
    pub(crate) fn clients(&self) -> Arc<BTreeMap<ClientId, ClientVerifyingKey>> {
        Arc::clone(&self.clients)
    }

    /// A client's key.
    ///
    /// # Errors
    /// [`HolderError::UnknownClient`].
    pub(crate) fn client(&self, client: &ClientId) -> Result<&ClientVerifyingKey, HolderError> {
        self.clients.get(client).ok_or_else(|| HolderError::UnknownClient(client.clone()))
    }

    /// A collection.
    ///
    /// # Errors
    /// [`HolderError::UnknownCollection`].
    pub(crate) fn collection(&self, collection: &CollectionId) -> Result<&CollectionRecord, HolderError> {
        self.collections.get(collection).ok_or_else(|| HolderError::UnknownCollection(collection.clone()))
    }

    /// A collection, to change it.
    ///
    /// # Errors
    /// [`HolderError::UnknownCollection`].
    pub(crate) fn collection_mut(&mut self, collection: &CollectionId) -> Result<&mut CollectionRecord, HolderError> {
        self.collections.get_mut(collection).ok_or_else(|| HolderError::UnknownCollection(collection.clone()))
    }

    /// All collections.
    pub(crate) fn collections(&self) -> impl Iterator<Item = (&CollectionId, &CollectionRecord)> {
        self.collections.iter()
    }

    /// The dimension of a collection's templates and probes.
    ///
    /// # Errors
    /// [`HolderError::UnknownCollection`].
    pub(crate) fn dimension(&self, collection: &CollectionId) -> Result<Dimension, HolderError> {
        let policy = self.collection(collection)?.policy();
        Ok(policy.ok_or_else(|| HolderError::UnknownCollection(collection.clone()))?.dimension)
    }

    /// Checks that a request is fresh.
    ///
    /// # Errors
    /// [`HolderError::Expired`], [`HolderError::Replayed`].
    pub(crate) fn check_fresh(
        &self,
        client: &ClientId,
        nonce: &[u8; 16],
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<(), HolderError> {
        if expires < now {
            return Err(HolderError::Expired);
        }
        if self.nonces.contains_key(&(client.clone(), *nonce)) {
            return Err(HolderError::Replayed);
        }
        Ok(())
    }

    /// Uses up a nonce; forgets those whose requests have expired anyway.
    pub(crate) fn use_nonce(&mut self, client: &ClientId, nonce: &[u8; 16], expires: Timestamp, now: Timestamp) {
        self.nonces.retain(|_, expiry| *expiry >= now);
        self.nonces.insert((client.clone(), *nonce), expires);
    }

    /// Drops every reservation of a session.
    pub(crate) fn release(&mut self, session: SessionId) {
        for record in self.collections.values_mut() {
            record.release(session);
        }
    }

    /// Revokes a group that no enrolled member is left in: there is nothing to rebuild.
    ///
    /// # Errors
    /// [`HolderError::UnknownCollection`].
    pub(crate) fn drop_empty_group(
        &mut self,
        collection: &CollectionId,
        group: Option<GroupId>,
    ) -> Result<(), HolderError> {
        let record = self.collection_mut(collection)?;
        let empty = group
            .and_then(|g| record.live_group(g))
            .filter(|g| record.enrolled_members(g).next().is_none())
            .map(|g| g.group);
        if let Some(group) = empty {
            record.revoke(group);
        }
        Ok(())
    }

    /// Marks a query session as ended, whether it gave its decision or failed.
    pub(crate) fn spend(&mut self, session: SessionId) {
        self.spent.insert(session);
    }

    /// Whether a query session has ended.
    #[must_use]
    pub(crate) fn is_spent(&self, session: &SessionId) -> bool {
        self.spent.contains(session)
    }

    /// Checks an order's members against what was admitted; returns what the group will register.
    ///
    /// # Errors
    /// The reason that the order cannot be built.
    pub(crate) fn check_order(
        &self,
        order: &BuildOrder,
        templates: &[ReadTemplate],
    ) -> Result<Vec<RegisteredMember>, HolderError> {
        let record = self.collection(&order.collection)?;
        let dimension = self.dimension(&order.collection)?;
        let mut members = Vec::with_capacity(templates.len());
        for (member, template) in order.members.iter().zip(templates) {
            let ReadTemplate { associated, digest, .. } = template;
            check_dimension(associated.dimension, dimension)?;
            let Purpose::Enrol { subject } = &associated.purpose else {
                return Err(HolderError::WrongUse { what: "purpose" });
            };
            if associated.collection != order.collection {
                return Err(HolderError::WrongUse { what: "collection" });
            }
            if record.template_of(subject) != Some(digest) || record.is_tombstoned(digest) {
                return Err(HolderError::NotAdmitted { slot: member.slot });
            }
            if let Some(group) = record.group_of(digest)
                && group != order.group
                && !order.replaces.contains(&group)
            {
                return Err(HolderError::MemberElsewhere { slot: member.slot, group });
            }
            members.push(RegisteredMember { slot: member.slot as usize, subject: subject.clone(), digest: *digest });
        }
        // A rebuild may not drop anybody who is still enrolled: that would be an erasure nobody signed.
        let kept: BTreeSet<&TemplateDigest> = members.iter().map(|m| &m.digest).collect();
        for group in order.replaces.iter().chain([&order.group]) {
            if let Some(old) = record.live_group(*group)
                && record.enrolled_members(old).any(|m| !kept.contains(&m.digest))
            {
                return Err(HolderError::MemberLeftOut { group: *group });
            }
        }
        if kept.len() != members.len() {
            return Err(HolderError::BadSlots);
        }
        Ok(members)
    }
}

/// Checks that an order's slots ascend and fit its layout.
pub(crate) fn check_slots(parameters: &Parameters, order: &BuildOrder) -> Result<(), HolderError> {
    let fit = order.members.is_sorted_by(|a, b| a.slot < b.slot)
        && order.members.last().is_some_and(|m| (m.slot as usize) < order.layout.capacity(parameters));
    if fit { Ok(()) } else { Err(HolderError::BadSlots) }
}

/// Checks the dimension of a template or probe against its collection's.
pub(crate) fn check_dimension(found: Dimension, expected: Dimension) -> Result<(), HolderError> {
    if found == expected {
        Ok(())
    } else {
        Err(HolderError::WrongDimension { found: found.get(), expected: expected.get() })
    }
}
