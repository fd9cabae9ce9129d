//! What a holder remembers: clients, collections, admitted templates, live groups, revoked revisions, tombstones,
//! used labels and used nonces (DESIGN 3.4, invariants 3 and 6).
//!
//! Only `Commit` and `Erase` change what decisions see; everything before them can be forgotten without a trace. Every change
//! is noted as a [`Record`] and leaves with the reaction that it belongs to.

use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, OnceLock};

use veilmatch_domain::{
    ClientId, CollectionId, Dimension, Epoch, GroupId, Policy, Revision, Role, Roles, SchemeName, SessionId, SubjectId,
    TemplateDigest, TemplateVersion, Timestamp,
};
use veilmatch_glwe::{BuildOrder, Layout, MaskSeed};
use veilmatch_kernels::Ring;
use veilmatch_sealed::ClientVerifyingKey;
use veilmatch_secret::{Digest, Hasher, Seed};

use crate::HolderError;
use crate::masks::GroupMasks;
use crate::nonces::Nonces;
use crate::record::{Key, Record, Signer, seed};
use crate::scan_check::{CHECKS, CheckSum, CheckSums, CheckVector};
use crate::work::ReadTemplate;

/// One registered member of a group.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct RegisteredMember {
    /// Its slot.
    pub slot: usize,
    /// Whose template it is.
    pub subject: SubjectId,
    /// Which template it is.
    pub digest: TemplateDigest,
}

/// A live revision of a packed group.
#[derive(BorshSerialize, BorshDeserialize)]
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
    #[borsh(serialize_with = "seed::write", deserialize_with = "seed::read")]
    pub check_seed: Seed,
    /// C_{g,j} for both checks; empty under the scheme `paillier`, which has neither masks nor a scan check.
    pub checks: [CheckVector; CHECKS],
}

impl RegisteredGroup {
    /// A group of the scheme `paillier`.
    pub(crate) fn without_masks(
        (group, revision, epoch): (GroupId, Revision, Epoch),
        layout: Layout,
        dimension: Dimension,
        members: Vec<RegisteredMember>,
    ) -> Self {
        let (masks, check_seed) = (GroupMasks::none(), Seed::from_bytes([0; 32]));
        let checks = [Vec::new(), Vec::new()];
        Self { group, revision, epoch, layout, members, dimension, masks, check_seed, checks }
    }
}

impl std::fmt::Debug for RegisteredGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RegisteredGroup({} revision {}, {} members)", self.group, self.revision, self.members.len())
    }
}

/// A live group as queries see it.
pub(crate) struct ServedGroup {
    /// The group.
    pub(crate) group: Arc<RegisteredGroup>,
    /// The slots of members that are still enrolled, ascending.
    pub(crate) slots: Vec<u32>,
    /// Digest of group, revision, epoch, and these slots with their templates.
    view: Digest,
}

impl ServedGroup {
    fn new(group: Arc<RegisteredGroup>, tombstones: &BTreeSet<TemplateDigest>) -> Self {
        let mut hasher = Hasher::new("veilmatch/registry/group");
        hasher.number(group.group.0).number(group.revision.0.into()).number(group.epoch.0.into());
        let mut slots = Vec::with_capacity(group.members.len());
        // A registered member was admitted, and only an erasure, which leaves a tombstone, ends that.
        for member in group.members.iter().filter(|m| !tombstones.contains(&m.digest)) {
            hasher.number(member.slot as u64).field(&member.digest.0);
            slots.push(member.slot as u32);
        }
        let view = hasher.finish();
        Self { group, slots, view }
    }

    /// The group with one of its slots alone.
    fn only(&self, slot: u32) -> Self {
        Self { group: Arc::clone(&self.group), slots: vec![slot], view: self.view }
    }

    fn member(&self, slot: u32) -> Option<&RegisteredMember> {
        let place = self.group.members.binary_search_by_key(&(slot as usize), |m| m.slot).ok()?;
        self.group.members.get(place)
    }
}

/// The groups and slots that a query compares, in the order of its lanes. Shared between queries until the registry
/// changes, so that a query copies nothing that grows with the gallery.
pub(crate) struct Scope {
    /// By ascending id; groups without a slot to compare are left out.
    pub(crate) groups: Vec<Arc<ServedGroup>>,
    /// Number of slots in all groups.
    pub(crate) lanes: usize,
}

impl Scope {
    fn new(groups: impl IntoIterator<Item = Arc<ServedGroup>>) -> Arc<Self> {
        let groups: Vec<_> = groups.into_iter().filter(|served| !served.slots.is_empty()).collect();
        let lanes = groups.iter().map(|served| served.slots.len()).sum();
        Arc::new(Self { groups, lanes })
    }

    /// The groups at these places alone, ascending.
    pub(crate) fn chosen(&self, places: &[usize]) -> Arc<Self> {
        Self::new(places.iter().filter_map(|&place| self.groups.get(place)).map(Arc::clone))
    }

    /// Whose lane it is.
    pub(crate) fn subject(&self, mut lane: usize) -> Option<&SubjectId> {
        for served in &self.groups {
            match served.slots.get(lane) {
                Some(&slot) => return served.member(slot).map(|m| &m.subject),
                None => lane -= served.slots.len(),
            }
        }
        None
    }
}

/// What a holder contributed to the newest label of a group, so that a retry gives identical bytes. Older ones are refused.
#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) struct LabelRecord {
    /// The revision.
    pub revision: Revision,
    /// Digest of the content that the label was used for.
    pub content: Digest,
    /// The public contribution to the mask seed.
    pub contribution: [u8; 32],
    /// The contribution to the check seed, shown to holders alone.
    #[borsh(serialize_with = "seed::write", deserialize_with = "seed::read")]
    pub private: Seed,
    /// The masks that all three contributions led to, once known.
    pub masks: Option<MaskSeed>,
}

/// The last erasure of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Erasure {
    /// Which signed request.
    pub request: Digest,
    /// Which template.
    pub digest: TemplateDigest,
    /// When the request expires: an older one must not erase a template that was enrolled after this one.
    pub expires: Timestamp,
}

/// A client as a holder knows it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ClientRecord {
    /// Checks its signatures. It stays for good: templates that it enrolled are checked again at every rebuild.
    pub key: ClientVerifyingKey,
    /// What it may do.
    pub roles: Roles,
    /// In which collections; `None` for all.
    pub collections: Option<BTreeSet<CollectionId>>,
    /// Whether nothing new is accepted from it. What it enrolled stays.
    pub revoked: bool,
}

impl ClientRecord {
    /// A client that may do everything everywhere.
    #[must_use]
    pub fn with_all_roles(key: ClientVerifyingKey) -> Self {
        Self { key, roles: Roles::ALL, collections: None, revoked: false }
    }
}

/// A template that another took the place of.
pub(crate) struct Superseded {
    pub(crate) subject: SubjectId,
    pub(crate) digest: TemplateDigest,
    /// The group that still carries it.
    pub(crate) group: Option<GroupId>,
}

/// One collection.
#[derive(Default)]
pub(crate) struct CollectionRecord {
    policy: Option<Policy>,
    admitted: HashMap<SubjectId, TemplateDigest>,
    reserved: BTreeMap<SubjectId, SessionId>,
    tombstones: BTreeSet<TemplateDigest>,
    erased: BTreeMap<SubjectId, Erasure>,
    live: BTreeMap<GroupId, Arc<ServedGroup>>,
    check_sums: CheckSums,
    located: HashMap<TemplateDigest, GroupId>,
    /// Per group the highest revision that was revoked. A live one is always above it.
    revoked: BTreeMap<GroupId, Revision>,
    labels: BTreeMap<GroupId, LabelRecord>,
    /// Labels that were used before this holder was restored: their contributions are lost.
    used_labels: BTreeMap<GroupId, Revision>,
    /// [`CollectionRecord::view_digest`], until something changes: every query compares it three times.
    view: OnceLock<Digest>,
    /// Everything that is live, for queries of everybody; until something changes.
    scope: OnceLock<Arc<Scope>>,
    /// What sessions admitted, while a start reads records.
    read_back: Vec<Vec<(SubjectId, TemplateDigest)>>,
    changes: Vec<Record>,
}

impl CollectionRecord {
    /// The rules.
    #[must_use]
    pub(crate) fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    /// Whether nobody is enrolled or about to be.
    pub(crate) fn is_empty(&self) -> bool {
        self.admitted.is_empty() && self.reserved.is_empty()
    }

    /// The admitted template of a subject.
    #[must_use]
    pub(crate) fn template_of(&self, subject: &SubjectId) -> Option<&TemplateDigest> {
        self.admitted.get(subject)
    }

    /// Live groups by ascending id.
    pub(crate) fn live_groups(&self) -> impl Iterator<Item = &Arc<RegisteredGroup>> {
        self.live.values().map(|served| &served.group)
    }

    /// Everything that is live.
    pub(crate) fn scope(&self) -> Arc<Scope> {
        Arc::clone(self.scope.get_or_init(|| Scope::new(self.live.values().map(Arc::clone))))
    }

    /// The one slot that holds a template; an empty scope if no group holds it.
    pub(crate) fn scope_of(&self, digest: &TemplateDigest) -> Arc<Scope> {
        let served = self.located.get(digest).and_then(|group| self.live.get(group));
        let member = served.and_then(|served| served.group.members.iter().find(|m| m.digest == *digest));
        let one = served.zip(member).filter(|_| !self.is_tombstoned(digest));
        Scope::new(one.map(|(served, member)| Arc::new(served.only(member.slot as u32))))
    }

    /// Whether everything in a scope is still served as it was.
    pub(crate) fn still_serves(&self, scope: &Arc<Scope>) -> bool {
        self.scope.get().is_some_and(|current| Arc::ptr_eq(current, scope))
            || scope.groups.iter().all(|served| {
                let live = self.live.get(&served.group.group);
                live.is_some_and(|live| {
                    live.group.revision == served.group.revision
                        && served.slots.iter().all(|slot| live.slots.binary_search(slot).is_ok())
                })
            })
    }

    /// ΣC over all live groups of one block width, and their number.
    pub(crate) fn check_sum(&mut self, ring: &Ring, beta: usize) -> (CheckSum, usize) {
        self.check_sums.of_width(ring, beta)
    }

    /// A live group.
    #[must_use]
    pub(crate) fn live_group(&self, group: GroupId) -> Option<&Arc<RegisteredGroup>> {
        self.live.get(&group).map(|served| &served.group)
    }

    /// The live group that a template is a member of.
    #[must_use]
    pub(crate) fn group_of(&self, digest: &TemplateDigest) -> Option<GroupId> {
        self.located.get(digest).copied()
    }

    /// Whether a revision was revoked.
    #[must_use]
    pub(crate) fn is_revoked(&self, group: GroupId, revision: Revision) -> bool {
        self.revoked.get(&group).is_some_and(|highest| revision <= *highest)
    }

    /// Whether a template was erased.
    #[must_use]
    pub(crate) fn is_tombstoned(&self, digest: &TemplateDigest) -> bool {
        self.tombstones.contains(digest)
    }

    /// Reserves a subject for an admission that is under way, which may supersede the template that it has.
    ///
    /// # Errors
    /// [`HolderError::AlreadyEnrolled`] if it is reserved by another session, or enrolled and not to be superseded.
    pub(crate) fn reserve(
        &mut self,
        subject: &SubjectId,
        session: SessionId,
        supersedes: bool,
    ) -> Result<(), HolderError> {
        let enrolled = !supersedes && self.admitted.contains_key(subject);
        if enrolled || self.reserved.contains_key(subject) {
            return Err(HolderError::AlreadyEnrolled(subject.clone()));
        }
        self.reserved.insert(subject.clone(), session);
        Ok(())
    }

    /// Drops every reservation of a session.
    pub(crate) fn release(&mut self, session: SessionId) {
        self.reserved.retain(|_, holder| *holder != session);
    }

    /// Admits a session's templates under its reservations. What it supersedes is tombstoned as by an erasure, and returned: whose it was,
    /// which, and the group that still carries it.
    pub(crate) fn admit(
        &mut self,
        id: &CollectionId,
        by: SessionId,
        templates: Vec<(SubjectId, TemplateDigest)>,
    ) -> Vec<Superseded> {
        let mut superseded = Vec::new();
        if templates.is_empty() {
            return superseded;
        }
        self.changes.push(Record::put(&Key::AdmittedBy(id.clone(), by), &templates));
        for (subject, digest) in templates {
            self.reserved.remove(&subject);
            if let Some(before) = self.admitted.insert(subject.clone(), digest).filter(|before| *before != digest) {
                self.bury(before);
                self.changes.push(Record::gone(&Key::Admitted(id.clone(), subject.clone())));
                self.changes.push(Record::put(&Key::Tombstone(id.clone(), before), &()));
                superseded.push(Superseded { subject, digest: before, group: self.located.get(&before).copied() });
            }
        }
        superseded
    }

    /// Takes back, after a restart, what a session admitted. Records come in no order: what was erased since is taken out by
    /// [`settle`](Self::settle).
    fn readmit(&mut self, templates: Vec<(SubjectId, TemplateDigest)>) {
        self.read_back.push(templates);
    }

    /// Everything was read back.
    fn settle(&mut self) {
        let read_back = std::mem::take(&mut self.read_back);
        self.admitted.reserve(read_back.iter().map(Vec::len).sum());
        // An erased template is never admitted again, so its tombstone tells it from a later one of the same subject.
        let kept = read_back.into_iter().flatten().filter(|(_, digest)| !self.tombstones.contains(digest));
        self.admitted.extend(kept);
    }

    /// Marks the template of a subject as erased. Returns its digest and the group that still carries it.
    ///
    /// # Errors
    /// [`HolderError::UnknownSubject`]; [`HolderError::Replayed`] if the subject was enrolled again after an erasure that
    /// was signed later than this one.
    pub(crate) fn erase(
        &mut self,
        id: &CollectionId,
        subject: &SubjectId,
        request: Digest,
        expires: Timestamp,
    ) -> Result<(TemplateDigest, Option<GroupId>), HolderError> {
        let before = self.erased.get(subject);
        if self.admitted.contains_key(subject) && before.is_some_and(|b| b.expires > expires) {
            return Err(HolderError::Replayed);
        }
        // Another holder may have missed the erasure: the client's second request must be able to bring it along.
        let before = before.map(|b| b.digest);
        let digest = self.admitted.remove(subject).or(before);
        let digest = digest.ok_or_else(|| HolderError::UnknownSubject(subject.clone()))?;
        let erasure = Erasure { request, digest, expires };
        self.bury(digest);
        self.erased.insert(subject.clone(), erasure);
        self.changes.extend([
            Record::gone(&Key::Admitted(id.clone(), subject.clone())),
            Record::put(&Key::Tombstone(id.clone(), digest), &()),
            Record::put(&Key::Erased(id.clone(), subject.clone()), &erasure),
        ]);
        Ok((digest, self.located.get(&digest).copied()))
    }

    /// What this signed request erased, if it was the subject's last erasure and the subject is not enrolled again.
    pub(crate) fn erased_by(&self, subject: &SubjectId, request: &Digest) -> Option<(TemplateDigest, Option<GroupId>)> {
        let Erasure { request: by, digest, .. } = self.erased.get(subject)?;
        (by == request && !self.admitted.contains_key(subject)).then(|| (*digest, self.located.get(digest).copied()))
    }

    /// The record of a label, made if the label is new. A retry with the same content finds its old contributions.
    ///
    /// # Errors
    /// [`HolderError::LabelReused`] for other content or a revision below one that was used;
    /// [`HolderError::RevokedRevision`] for a revision that was revoked.
    pub(crate) fn label(
        &mut self,
        id: &CollectionId,
        group: GroupId,
        revision: Revision,
        content: Digest,
        draw: impl FnOnce() -> ([u8; 32], Seed),
    ) -> Result<([u8; 32], Seed), HolderError> {
        if self.is_revoked(group, revision) {
            return Err(HolderError::RevokedRevision { group, revision });
        }
        if self.used_labels.get(&group).is_some_and(|used| revision <= *used) {
            return Err(HolderError::LabelReused { group, revision });
        }
        if let Some(newest) = self.labels.get(&group).filter(|newest| revision <= newest.revision) {
            if revision == newest.revision && newest.content == content {
                return Ok((newest.contribution, newest.private.duplicate()));
            }
            return Err(HolderError::LabelReused { group, revision });
        }
        let (contribution, private) = draw();
        let drawn = (contribution, private.duplicate());
        let record = LabelRecord { revision, content, contribution, private, masks: None };
        self.changes.push(Record::put(&Key::Label(id.clone(), group), &record));
        self.labels.insert(group, record);
        Ok(drawn)
    }

    /// Records the masks that a label's contributions led to.
    ///
    /// # Errors
    /// [`HolderError::LabelReused`] if the label led to other masks before: a peer changed its contribution.
    pub(crate) fn fix_masks(
        &mut self,
        id: &CollectionId,
        group: GroupId,
        revision: Revision,
        masks: MaskSeed,
    ) -> Result<(), HolderError> {
        match self.labels.get_mut(&group) {
            Some(record) if record.revision == revision && record.masks.is_none_or(|known| known == masks) => {
                if record.masks.is_none() {
                    record.masks = Some(masks);
                    self.changes.push(Record::put(&Key::Label(id.clone(), group), record));
                }
                Ok(())
            }
            _ => Err(HolderError::LabelReused { group, revision }),
        }
    }

    /// Makes a revision live and revokes what it replaces.
    pub(crate) fn commit(&mut self, id: &CollectionId, built: RegisteredGroup, replaces: &[GroupId]) {
        let group = built.group;
        for old in replaces.iter().chain([&group]) {
            self.take_down(id, *old, Some((group, built.revision)));
        }
        self.changes.push(Record::put(&Key::Group(id.clone(), group), &built));
        self.put_up(built);
    }

    /// Revokes a group without a successor: its last member was erased.
    pub(crate) fn revoke(&mut self, id: &CollectionId, group: GroupId) {
        self.take_down(id, group, None);
    }

    fn put_up(&mut self, built: RegisteredGroup) {
        self.located.extend(built.members.iter().map(|member| (member.digest, built.group)));
        let built = Arc::new(built);
        self.check_sums.put_up(&built);
        self.serve(built);
    }

    /// Notes how queries see a group from now on.
    fn serve(&mut self, group: Arc<RegisteredGroup>) {
        (self.view, self.scope) = Default::default();
        self.live.insert(group.group, Arc::new(ServedGroup::new(group, &self.tombstones)));
    }

    /// A template is erased: decisions skip its slot from now on.
    fn bury(&mut self, digest: TemplateDigest) {
        self.tombstones.insert(digest);
        if let Some(served) = self.located.get(&digest).and_then(|group| self.live.get(group)) {
            let group = Arc::clone(&served.group);
            self.serve(group);
        }
    }

    fn take_down(&mut self, id: &CollectionId, group: GroupId, successor: Option<(GroupId, Revision)>) {
        (self.view, self.scope) = Default::default();
        let Some(gone) = self.live.remove(&group).map(|served| Arc::clone(&served.group)) else { return };
        self.check_sums.take_down(&gone);
        for member in &gone.members {
            if self.located.get(&member.digest) == Some(&group) {
                self.located.remove(&member.digest);
            }
        }
        self.changes.push(Record::gone(&Key::Group(id.clone(), group)));
        // A retry that built the live revision once more gave the same bytes: it is not revoked.
        if successor != Some((group, gone.revision)) {
            self.changes.push(Record::put(&Key::Revoked(id.clone(), group), &gone.revision));
            self.revoked.insert(group, gone.revision);
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
        for served in self.live.values() {
            hasher.field(&served.view.0);
        }
        hasher.finish()
    }
}

/// Everything a holder remembers but its keys.
#[derive(Default)]
pub(crate) struct Registry {
    /// Shared with work that is out.
    clients: Arc<BTreeMap<ClientId, ClientRecord>>,
    collections: BTreeMap<CollectionId, CollectionRecord>,
    nonces: Nonces,
    /// Query sessions that have ended, until their probes expire.
    spent: BTreeMap<SessionId, Timestamp>,
    spent_by_expiry: BTreeSet<(Timestamp, SessionId)>,
    changes: Vec<Record>,
}

impl Registry {
    /// What has changed since the last call, in order.
    pub(crate) fn take_changes(&mut self) -> Vec<Record> {
        let mut changes = std::mem::take(&mut self.changes);
        for record in self.collections.values_mut() {
            changes.append(&mut record.changes);
        }
        changes
    }

    /// Takes a record back after a restart; `false` if it is of another kind.
    ///
    /// # Errors
    /// The value cannot be read.
    pub(crate) fn remember(&mut self, key: &Key, value: &[u8]) -> io::Result<bool> {
        match key {
            Key::Client(client) => {
                Arc::make_mut(&mut self.clients).insert(client.clone(), borsh::from_slice(value)?);
            }
            Key::Collection(id) => self.entry(id).policy = Some(borsh::from_slice(value)?),
            Key::Admitted(id, subject) => {
                self.entry(id).admitted.insert(subject.clone(), borsh::from_slice(value)?);
            }
            Key::Tombstone(id, digest) => self.entry(id).bury(*digest),
            Key::Erased(id, subject) => {
                self.entry(id).erased.insert(subject.clone(), borsh::from_slice(value)?);
            }
            Key::Group(id, _) => self.entry(id).put_up(borsh::from_slice(value)?),
            Key::Revoked(id, group) => {
                self.entry(id).revoked.insert(*group, borsh::from_slice(value)?);
            }
            Key::Label(id, group) => {
                self.entry(id).labels.insert(*group, borsh::from_slice(value)?);
            }
            Key::UsedLabel(id, group) => {
                self.entry(id).used_labels.insert(*group, borsh::from_slice(value)?);
            }
            Key::AdmittedBy(id, _) => self.entry(id).readmit(borsh::from_slice(value)?),
            key => return self.nonces.remember(key, value),
        }
        Ok(true)
    }

    /// All records were taken back.
    pub(crate) fn settle(&mut self) {
        self.collections.values_mut().for_each(CollectionRecord::settle);
    }

    /// All of it as records, but for what this holder alone contributed: what a restored holder needs.
    pub(crate) fn export(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for (client, record) in self.clients.iter() {
            records.push(Record::put(&Key::Client(client.clone()), record));
        }
        for (id, record) in &self.collections {
            let id = || id.clone();
            records.extend(record.policy.as_ref().map(|policy| Record::put(&Key::Collection(id()), policy)));
            records.extend(record.admitted.iter().map(|(s, d)| Record::put(&Key::Admitted(id(), s.clone()), d)));
            records.extend(record.tombstones.iter().map(|d| Record::put(&Key::Tombstone(id(), *d), &())));
            records.extend(record.erased.iter().map(|(s, e)| Record::put(&Key::Erased(id(), s.clone()), e)));
            records
                .extend(record.live.iter().map(|(g, built)| Record::put(&Key::Group(id(), *g), built.group.as_ref())));
            records.extend(record.revoked.iter().map(|(g, r)| Record::put(&Key::Revoked(id(), *g), r)));
            let mut used = record.used_labels.clone();
            used.extend(record.labels.iter().map(|(group, label)| (*group, label.revision)));
            records.extend(used.iter().map(|(g, r)| Record::put(&Key::UsedLabel(id(), *g), r)));
        }
        records.extend(self.nonces.export());
        records
    }

    /// A collection, made if a record of it comes before its policy.
    pub(crate) fn entry(&mut self, id: &CollectionId) -> &mut CollectionRecord {
        self.collections.entry(id.clone()).or_default()
    }

    /// Registers a client or changes what it may do.
    pub(crate) fn register_client(&mut self, client: ClientId, record: ClientRecord) {
        self.changes.push(Record::put(&Key::Client(client.clone()), &record));
        Arc::make_mut(&mut self.clients).insert(client, record);
    }

    /// Creates a collection or changes its policy.
    pub(crate) fn set_policy(&mut self, collection: CollectionId, policy: Policy) {
        self.changes.push(Record::put(&Key::Collection(collection.clone()), &policy));
        let record = self.collections.entry(collection).or_default();
        record.policy = Some(policy);
        record.view = OnceLock::new();
    }

    /// All clients.
    pub(crate) fn clients(&self) -> Arc<BTreeMap<ClientId, ClientRecord>> {
        Arc::clone(&self.clients)
    }

    /// A client.
    ///
    /// # Errors
    /// [`HolderError::UnknownClient`].
    pub(crate) fn client(&self, client: &ClientId) -> Result<&ClientRecord, HolderError> {
        self.clients.get(client).ok_or_else(|| HolderError::UnknownClient(client.clone()))
    }

    /// Whether a client may do this in a collection.
    ///
    /// # Errors
    /// [`HolderError::UnknownClient`], [`HolderError::ClientRevoked`], [`HolderError::OtherTenant`],
    /// [`HolderError::RoleMissing`].
    pub(crate) fn authorise(
        &self,
        client: &ClientId,
        role: Role,
        collection: &CollectionId,
    ) -> Result<(), HolderError> {
        let record = self.client(client)?;
        if record.revoked {
            return Err(HolderError::ClientRevoked(client.clone()));
        }
        if record.collections.as_ref().is_some_and(|named| !named.contains(collection)) {
            return Err(HolderError::OtherTenant { client: client.clone(), collection: collection.clone() });
        }
        if !record.roles.has(role) {
            return Err(HolderError::RoleMissing { client: client.clone(), role });
        }
        Ok(())
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

    /// The scheme of a collection.
    ///
    /// # Errors
    /// [`HolderError::UnknownCollection`].
    pub(crate) fn scheme(&self, collection: &CollectionId) -> Result<SchemeName, HolderError> {
        let policy = self.collection(collection)?.policy();
        Ok(policy.ok_or_else(|| HolderError::UnknownCollection(collection.clone()))?.scheme)
    }

    /// The dimension of a collection's templates and probes.
    ///
    /// # Errors
    /// [`HolderError::UnknownCollection`].
    pub(crate) fn dimension(&self, collection: &CollectionId) -> Result<Dimension, HolderError> {
        let policy = self.collection(collection)?.policy();
        Ok(policy.ok_or_else(|| HolderError::UnknownCollection(collection.clone()))?.dimension)
    }

    /// Checks that a request is fresh and does not ask to be remembered for too long.
    ///
    /// # Errors
    /// [`HolderError::Expired`], [`HolderError::ExpiresTooLate`], [`HolderError::Replayed`].
    pub(crate) fn check_fresh(
        &self,
        signer: &Signer,
        nonce: &[u8; 16],
        expires: Timestamp,
        longest: u64,
        now: Timestamp,
    ) -> Result<(), HolderError> {
        check_lifetime(expires, longest, now)?;
        if self.nonces.is_used(signer, nonce) {
            return Err(HolderError::Replayed);
        }
        Ok(())
    }

    /// Uses up a nonce; forgets those whose requests have expired anyway.
    pub(crate) fn use_nonce(&mut self, signer: Signer, nonce: [u8; 16], expires: Timestamp, now: Timestamp) {
        self.changes.append(&mut self.nonces.forget(now));
        self.changes.push(self.nonces.use_one(signer, nonce, expires));
    }

    /// Uses up the nonces of templates that a session admits; forgets as [`use_nonce`](Self::use_nonce).
    pub(crate) fn use_nonces(
        &mut self,
        session: SessionId,
        nonces: Vec<(Signer, [u8; 16], Timestamp)>,
        now: Timestamp,
    ) {
        self.changes.append(&mut self.nonces.forget(now));
        self.changes.extend(self.nonces.use_together(session, nonces));
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
            record.revoke(collection, group);
        }
        Ok(())
    }

    /// Marks a query session as ended, whether it gave its decision or failed; `expires` is its probe's. Afterwards the probe
    /// is refused anyway.
    pub(crate) fn spend(&mut self, session: SessionId, expires: Timestamp, now: Timestamp) {
        while let Some((expiry, old)) = self.spent_by_expiry.pop_first() {
            if expiry >= now {
                self.spent_by_expiry.insert((expiry, old));
                break;
            }
            self.spent.remove(&old);
        }
        self.spent.insert(session, expires);
        self.spent_by_expiry.insert((expires, session));
    }

    /// Whether a query session has ended.
    #[must_use]
    pub(crate) fn is_spent(&self, session: &SessionId) -> bool {
        self.spent.contains_key(session)
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
        let mut members = Vec::with_capacity(templates.len());
        for (member, template) in order.members.iter().zip(templates) {
            let ReadTemplate { associated, digest, .. } = template;
            check_dimension(associated.dimension, self.dimension(&associated.collection)?)?;
            let subject = associated.purpose.enrols().ok_or(HolderError::WrongUse { what: "purpose" })?;
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

/// Checks that an order's slots ascend and that a group has them.
pub(crate) fn check_slots(capacity: usize, order: &BuildOrder) -> Result<(), HolderError> {
    let fit = order.members.is_sorted_by(|a, b| a.slot < b.slot)
        && order.members.last().is_some_and(|m| (m.slot as usize) < capacity);
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

/// Checks that a template or probe is of its collection's model.
pub(crate) fn check_model(found: TemplateVersion, policy: Option<&Policy>) -> Result<(), HolderError> {
    match policy.and_then(|policy| policy.model) {
        Some(expected) if expected.version() != found => Err(HolderError::OtherModel { expected }),
        _ => Ok(()),
    }
}

/// Checks that a request has not expired and expires soon enough.
pub(crate) fn check_lifetime(expires: Timestamp, longest: u64, now: Timestamp) -> Result<(), HolderError> {
    if expires < now {
        return Err(HolderError::Expired);
    }
    if expires.0 - now.0 > longest {
        return Err(HolderError::ExpiresTooLate { allowed_seconds: longest });
    }
    Ok(())
}
