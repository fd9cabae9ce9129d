//! Building one revision of a packed group: recrypt, compare, register (DESIGN 3.3, 3.4).
//!
//! Every part of the bodies is computed by both of its holders; they compare digests, and the matcher compares them
//! too. Each holder forms its two parts of the check vectors; the part that it lacks comes whole from one holder and
//! as a digest from the other. The revision becomes live at the matcher's `Commit`; until then it leaves no trace but
//! its label. A holder sends its parts to the matcher only once it has nothing left to object to: six copies at the
//! matcher are three promises to commit, and from there on only the matcher ends the session.
//!
//! Who sees what: the matcher gets the bodies, whose masks are fresh; holders get nothing about members beyond the
//! uniform parts they hold. ρ stays among the holders.

use borsh::{BorshDeserialize, BorshSerialize};
use rayon::prelude::*;
use std::io;
use std::sync::Arc;

use veilmatch_domain::{CollectionId, Dimension, GroupId, Part, Party, SchemeName, SessionId, Suspect};
use veilmatch_glwe::{
    BuildOrder, FromHolder, MaskSeed, Masks, Member, PartPayload, body_digest, decode_polynomials, encode_polynomials,
};
use veilmatch_mpc::Inbox;
use veilmatch_paillier::{PublicKey, Slots};
use veilmatch_sealed::SealedTemplate;
use veilmatch_secret::{Digest, Hasher, Label, Seed};
use veilmatch_threshold::KeyShare;

use crate::HolderError;
use crate::error::Speaker;
use crate::handshake::{Agreed, Handshake, SharedParts};
use crate::masks::GroupMasks;
use crate::paillier::{PartInSlot, encrypt_part};
use crate::record::{Key, Record};
use crate::recrypt::{PartOfMember, gallery_part};
use crate::registry::{RegisteredGroup, RegisteredMember, check_slots};
use crate::scan_check::{CHECKS, coefficients, combine_bodies};
use crate::state::{Channel, State};
use crate::unseal::OpenedTemplate;
use crate::work::{Done, ReadTemplate};

const PARTS: u32 = 2;

/// What holders tell each other about the parts that they computed.
#[derive(BorshSerialize, BorshDeserialize)]
struct PartNews {
    /// Digest of the body part that sender and receiver share.
    shared_bodies: Digest,
    /// The check vectors of the part that the receiver lacks: whole from its next holder, a digest from its previous.
    checks: PartPayload,
}

/// Members of an order, read.
pub(crate) struct Members {
    templates: Vec<ReadTemplate>,
    /// Digest of everything in the order but the attempt.
    content: Digest,
}

/// Digests of the parts that this holder computed: what both of a part's holders must agree on.
#[derive(Clone, Copy)]
struct Digests {
    /// Of part i+1.
    with_next: Digest,
    /// Of part i.
    with_previous: Digest,
}

impl Digests {
    /// Compares them with what the next and the previous holder computed.
    fn compare(&self, party: Party, of_next: Digest, of_previous: Digest) -> Result<(), HolderError> {
        let [own_part, next_part] = party.parts();
        if of_next != self.with_next {
            return Err(HolderError::BodiesDiffer { part: next_part });
        }
        if of_previous != self.with_previous {
            return Err(HolderError::BodiesDiffer { part: own_part });
        }
        Ok(())
    }
}

/// This holder's own part of a group under `paillier`, encrypted, and what its copies are compared by.
pub(crate) struct Encrypted {
    own: Vec<u8>,
    digests: Digests,
}

/// Both parts of the bodies and of their check vectors, as this holder computed them.
pub(crate) struct Recrypted {
    own_bodies: Vec<u8>,
    digests: Digests,
    checks: [Vec<u32>; 2],
    check_seed: Seed,
    masks: Masks,
}

enum Phase {
    /// The members are being read, or recrypted.
    Computing(u64),
    Handshake(Box<Handshake>),
    Parts(Box<Recrypted>),
    /// The same under `paillier`.
    Copies(Encrypted),
    AwaitingCommit(Box<RegisteredGroup>),
    Finished,
}

/// The session.
pub(crate) struct Build {
    pub(crate) channel: Channel,
    order: BuildOrder,
    dimension: Dimension,
    members: Vec<RegisteredMember>,
    opened: Vec<OpenedTemplate>,
    /// Digest of everything in the order but the attempt, once the members are read.
    content: Digest,
    /// This holder's share of the key, if the collection is under the scheme `paillier`.
    share: Option<Arc<KeyShare>>,
    phase: Phase,
}

/// The label of a group's masks: what must never be used for other content.
fn label(state: &State, order: &BuildOrder) -> Label {
    Label::new("veilmatch/recrypt/masks/gallery")
        .bytes(state.parameters.name.as_bytes())
        .bytes(order.collection.as_str().as_bytes())
        .number(order.group.0)
        .number(order.revision.0.into())
        .number(order.epoch.0.into())
        .number(order.layout.beta() as u64)
        .number(order.layout.rank() as u64)
}

/// The content of an order: everything but the attempt.
fn content(order: &BuildOrder) -> Digest {
    let mut hasher = Hasher::new("veilmatch/build/content");
    hasher.number(order.epoch.0.into()).number(order.layout.beta() as u64).number(order.layout.rank() as u64);
    for group in &order.replaces {
        hasher.number(group.0);
    }
    for member in &order.members {
        hasher.number(member.slot.into()).field(&member.sealed);
    }
    hasher.finish()
}

impl Build {
    pub(crate) fn start(state: &mut State, channel: Channel, mut order: BuildOrder) -> Result<Self, HolderError> {
        if state.current_epoch()? != order.epoch {
            return Err(HolderError::WrongEpoch(order.epoch));
        }
        // What this holder contributed to labels of this epoch before it was lost is not known any more.
        if state.restored.is_some_and(|restored| order.epoch <= restored) {
            return Err(HolderError::RestoredEpoch(order.epoch));
        }
        let dimension = state.registry.dimension(&order.collection)?;
        let share = match state.registry.scheme(&order.collection)? {
            SchemeName::Glwe => None,
            SchemeName::Paillier => Some(state.paillier_share()?),
        };
        let capacity = match &share {
            None => order.layout.capacity(&state.parameters),
            Some(share) => Slots::new(share.key().size(), dimension).count(),
        };
        check_slots(capacity, &order)?;
        let (session, reader) = (channel.session, state.template_reader()?);
        // The sealed templates are large and only needed here.
        let whole = BuildOrder { members: std::mem::take(&mut order.members), ..order.clone() };
        order.members = whole.members.iter().map(|m| Member { slot: m.slot, sealed: Vec::new() }).collect();
        let ticket = state.hand_out(session, move || {
            let read = |member: &Member| reader.read_again(&SealedTemplate::from_bytes(&member.sealed)?, &session);
            let templates = whole.members.par_iter().map(read).collect::<Result<_, _>>();
            Done::Members(templates.map(|templates| Members { templates, content: content(&whole) }))
        });
        let phase = Phase::Computing(ticket);
        let content = Digest([0; 32]);
        Ok(Self { channel, order, dimension, members: Vec::new(), opened: Vec::new(), content, share, phase })
    }

    /// The ticket of the work that is out.
    pub(crate) fn computing(&self) -> Option<u64> {
        if let Phase::Computing(ticket) = self.phase { Some(ticket) } else { None }
    }

    /// Takes what the work that was out came to.
    pub(crate) fn worked(&mut self, state: &mut State, done: Done) -> Result<(), HolderError> {
        match done {
            Done::Members(read) => self.begin(state, read?),
            Done::Recrypted(recrypted) => self.tell_parts(state, recrypted?),
            Done::Encrypted(encrypted) => self.tell_copies(state, encrypted?),
            _ => Err(HolderError::OutOfTurn(self.channel.session)),
        }
    }

    /// Checks the order against the registry as it is now, takes the label and begins the handshake.
    fn begin(&mut self, state: &mut State, Members { templates, content }: Members) -> Result<(), HolderError> {
        let order = &self.order;
        self.members = state.registry.check_order(order, &templates)?;
        let (group, revision) = (order.group, order.revision);
        let entropy = &mut state.entropy;
        let record = state.registry.collection_mut(&order.collection)?;
        let (contribution, private) = record.label(&order.collection, group, revision, content, || {
            let mut contribution = [0u8; 32];
            entropy.fill_bytes(&mut contribution);
            (contribution, Seed::random(entropy.as_mut()))
        })?;

        let mut shared = [Hasher::new("veilmatch/build/parts"), Hasher::new("veilmatch/build/parts")];
        for template in &templates {
            for (hasher, digest) in shared.iter_mut().zip(&template.parts) {
                hasher.field(&digest.0);
            }
        }
        let [own, next] = shared.map(|hasher| vec![hasher.finish()]);
        let parts = SharedParts { with_next: next, with_previous: own };
        let view = state.registry.collection(&order.collection)?.view_digest();
        let request = Label::new("veilmatch/build/request").bytes(&content.0).bytes(&view.0).digest();
        let handshake = Handshake::start(state, &mut self.channel, request, contribution, private, parts)?;
        self.content = content;
        self.opened = templates.into_iter().map(|t| t.opened).collect();
        self.phase = Phase::Handshake(Box::new(handshake));
        Ok(())
    }

    pub(crate) fn advance(&mut self, state: &mut State) -> Result<(), HolderError> {
        if let Phase::Handshake(handshake) = &mut self.phase {
            let Some(agreed) = handshake.advance(state, &mut self.channel)? else { return Ok(()) };
            for compared in handshake.compare_parts(state.party, &agreed) {
                compared?;
            }
            if let Some(share) = &self.share {
                let key = share.key().clone();
                return self.encrypt(state, key, &agreed);
            }
            let label = label(state, &self.order);
            let masks = agreed.masks(label.clone());
            let check_seed = agreed.check_seed(label);
            let (group, revision) = (self.order.group, self.order.revision);
            let record = state.registry.collection_mut(&self.order.collection)?;
            record.fix_masks(&self.order.collection, group, revision, masks)?;
            self.recrypt(state, masks, check_seed)?;
        }
        if matches!(self.phase, Phase::Parts(_)) {
            let Some([next, previous]) = self.channel.take_both::<PartNews>(state.party, PARTS)? else { return Ok(()) };
            let Phase::Parts(own) = std::mem::replace(&mut self.phase, Phase::Finished) else { return Ok(()) };
            own.digests.compare(state.party, next.shared_bodies, previous.shared_bodies)?;
            let missing = state.party.missing_part();
            let (PartPayload::Polynomials(bytes), PartPayload::Digest(digest)) = (next.checks, previous.checks) else {
                return Err(HolderError::Malformed { speaker: Speaker::Peer(state.party.next()) });
            };
            if body_digest(missing, &bytes) != digest {
                return Err(HolderError::CheckVectorsDiffer { part: missing });
            }
            let blocks = self.order.layout.blocks(self.dimension);
            let third = decode_polynomials(&state.parameters, &bytes, CHECKS * blocks)
                .map_err(|_| HolderError::Malformed { speaker: Speaker::Peer(state.party.next()) })?;
            self.prepare(state, *own, third)?;
        }
        if matches!(self.phase, Phase::Copies(_)) {
            let Some([next, previous]) = self.channel.take_both::<Digest>(state.party, PARTS)? else { return Ok(()) };
            let Phase::Copies(own) = std::mem::replace(&mut self.phase, Phase::Finished) else { return Ok(()) };
            own.digests.compare(state.party, next, previous)?;
            self.prepare_encrypted(state, own)?;
        }
        Ok(())
    }

    /// Hands out the computation of both parts of the bodies and their check vectors.
    fn recrypt(&mut self, state: &mut State, masks: MaskSeed, check_seed: Seed) -> Result<(), HolderError> {
        let order = &self.order;
        let (parameters, layout, dimension) = (state.parameters, order.layout, self.dimension);
        let secrets: Vec<_> = (0..layout.rank())
            .map(|body| state.gallery_secret(&order.collection, order.epoch, body))
            .collect::<Result<_, _>>()?;
        let places: Vec<_> = self
            .members
            .iter()
            .map(|m| layout.place(&parameters, m.slot).ok_or(HolderError::BadSlots))
            .collect::<Result<_, _>>()?;
        let keys = state.keys(order.epoch)?;
        let (own_seed, next_seed) = (keys.seeds.own.duplicate(), keys.seeds.next.duplicate());
        let (ring, [own, next], opened) =
            (Arc::clone(&state.ring), state.party.parts(), std::mem::take(&mut self.opened));
        let ticket = state.hand_out(self.channel.session, move || {
            let masks = masks.expand(&parameters, layout, dimension);
            let rho: Vec<Vec<u32>> =
                (0..CHECKS).map(|check| coefficients(&parameters, &check_seed, check, layout)).collect();
            let compute = |seed: &Seed, is_own: bool| {
                let secret_parts: Vec<&[u32]> = secrets
                    .iter()
                    .map(|s| if is_own { s.own.expose().as_slice() } else { s.next.expose().as_slice() })
                    .collect();
                let members: Vec<PartOfMember<'_>> = opened
                    .iter()
                    .zip(&places)
                    .map(|(o, &place)| PartOfMember {
                        place,
                        values: if is_own { o.own.expose() } else { o.next.expose() },
                    })
                    .collect();
                let bodies = gallery_part(&parameters, &ring, layout, &masks, seed, &secret_parts, &members);
                let checks: Vec<u32> =
                    rho.iter().flat_map(|rho| combine_bodies(&parameters, &ring, layout, rho, &bodies)).collect();
                (encode_polynomials(&bodies), checks)
            };
            let (own_bodies, own_checks) = compute(&own_seed, true);
            let (next_bodies, next_checks) = compute(&next_seed, false);
            Done::Recrypted(Ok(Box::new(Recrypted {
                digests: Digests {
                    with_next: body_digest(next, &next_bodies),
                    with_previous: body_digest(own, &own_bodies),
                },
                own_bodies,
                checks: [own_checks, next_checks],
                check_seed,
                masks,
            })))
        });
        self.phase = Phase::Computing(ticket);
        Ok(())
    }

    /// Hands out the encryption of both of this holder's parts of every member, with randomness that the two holders of a part share.
    fn encrypt(&mut self, state: &mut State, key: PublicKey, agreed: &Agreed) -> Result<(), HolderError> {
        let (dimension, opened) = (self.dimension, std::mem::take(&mut self.opened));
        let slots: Vec<usize> = self.members.iter().map(|member| member.slot).collect();
        let [own, next] = state.party.parts();
        // The session's seeds are fresh, so a retry encrypts anew; the content is in the label so that randomness could not even then
        // serve for two things.
        let seed_of = |seed: &Seed, part: Part| {
            let label =
                label(state, &self.order).bytes(&self.content.0).bytes(&key.digest().0).number(part.index() as u64);
            seed.derive(&Label::new("veilmatch/paillier/part").bytes(&label.digest().0))
        };
        let seeds = [seed_of(&agreed.seeds.own, own), seed_of(&agreed.seeds.next, next)];
        let ticket = state.hand_out(self.channel.session, move || {
            let encrypt = |values: fn(&OpenedTemplate) -> &[u64], seed: &Seed| {
                let members: Vec<PartInSlot<'_>> = (slots.iter().zip(&opened))
                    .map(|(&slot, opened)| PartInSlot { slot, values: values(opened) })
                    .collect();
                encrypt_part(&key, dimension, &members, seed)
            };
            let [own_seed, next_seed] = &seeds;
            let encrypted = encrypt(|opened| opened.own.expose(), own_seed).and_then(|own_part| {
                let next_part = encrypt(|opened| opened.next.expose(), next_seed)?;
                let (with_previous, with_next) = (body_digest(own, &own_part), body_digest(next, &next_part));
                Ok(Encrypted { own: own_part, digests: Digests { with_next, with_previous } })
            });
            Done::Encrypted(encrypted)
        });
        self.phase = Phase::Computing(ticket);
        Ok(())
    }

    /// Tells the peers digests of the encrypted parts that they share.
    fn tell_copies(&mut self, state: &mut State, encrypted: Encrypted) -> Result<(), HolderError> {
        let Digests { with_next, with_previous } = encrypted.digests;
        self.channel.send(state, PARTS, state.party.previous(), &with_previous)?;
        self.channel.send(state, PARTS, state.party.next(), &with_next)?;
        self.phase = Phase::Copies(encrypted);
        Ok(())
    }

    /// Sends the encrypted part and the digest of the next one: the revision is then ready to be committed.
    fn prepare_encrypted(&mut self, state: &mut State, encrypted: Encrypted) -> Result<(), HolderError> {
        self.tell_matcher(state, encrypted.own, encrypted.digests.with_next)?;
        let BuildOrder { group, revision, epoch, layout, .. } = self.order;
        let members = std::mem::take(&mut self.members);
        let group = RegisteredGroup::without_masks((group, revision, epoch), layout, self.dimension, members);
        self.phase = Phase::AwaitingCommit(Box::new(group));
        state.saves.extend(self.prepared(self.channel.session));
        Ok(())
    }

    /// Sends part i whole and the digest of part i+1.
    fn tell_matcher(&self, state: &mut State, own: Vec<u8>, next: Digest) -> Result<(), HolderError> {
        let session = self.channel.session;
        let [own_part, next_part] = state.party.parts();
        for (part, payload) in [(own_part, PartPayload::Polynomials(own)), (next_part, PartPayload::Digest(next))] {
            state.tell_matcher(&FromHolder::GroupPart { session, part, payload })?;
        }
        Ok(())
    }

    /// Tells the peers digests of the parts that they share, and check vectors.
    fn tell_parts(&mut self, state: &mut State, recrypted: Box<Recrypted>) -> Result<(), HolderError> {
        let [own, _] = state.party.parts();
        let [own_checks, next_checks] = &recrypted.checks;
        // K_{i−1} lacks part i+1 and gets it whole; K_{i+1} lacks part i and gets its digest.
        let to_previous = PartNews {
            shared_bodies: recrypted.digests.with_previous,
            checks: PartPayload::Polynomials(encode_polynomials(next_checks)),
        };
        let to_next = PartNews {
            shared_bodies: recrypted.digests.with_next,
            checks: PartPayload::Digest(body_digest(own, &encode_polynomials(own_checks))),
        };
        self.channel.send(state, PARTS, state.party.previous(), &to_previous)?;
        self.channel.send(state, PARTS, state.party.next(), &to_next)?;
        self.phase = Phase::Parts(recrypted);
        Ok(())
    }

    /// Adds the third part of the check vectors and sends the bodies: the revision is then ready to be committed.
    fn prepare(&mut self, state: &mut State, own: Recrypted, third: Vec<u32>) -> Result<(), HolderError> {
        self.tell_matcher(state, own.own_bodies, own.digests.with_next)?;
        let mut sum = third;
        for part in &own.checks {
            state.ring.add_assign(&mut sum, part);
        }
        let (first, second) = sum.split_at(sum.len() / 2);
        let group = RegisteredGroup {
            group: self.order.group,
            revision: self.order.revision,
            epoch: self.order.epoch,
            layout: self.order.layout,
            dimension: self.dimension,
            members: std::mem::take(&mut self.members),
            masks: GroupMasks::expanded(&state.parameters, &own.masks, &state.mask_room),
            check_seed: own.check_seed,
            checks: [first.to_vec(), second.to_vec()],
        };
        self.phase = Phase::AwaitingCommit(Box::new(group));
        state.saves.extend(self.prepared(self.channel.session));
        Ok(())
    }

    /// What this holder promises, as a record: the same at all three.
    pub(crate) fn prepared(&self, session: SessionId) -> Option<Record> {
        let Phase::AwaitingCommit(group) = &self.phase else { return None };
        let prepared = (self.order.attempt, &self.order.collection, &self.order.replaces, group.as_ref());
        Some(Record::put(&Key::PreparedBuild(session), &prepared))
    }

    /// The build that a record holds, prepared as before; returns its attempt number too.
    ///
    /// # Errors
    /// The record cannot be read.
    pub(crate) fn restore(session: SessionId, value: &[u8]) -> io::Result<(u64, Self)> {
        let (attempt, collection, replaces, group): (u64, CollectionId, Vec<GroupId>, RegisteredGroup) =
            borsh::from_slice(value)?;
        let order = BuildOrder {
            attempt,
            collection,
            group: group.group,
            revision: group.revision,
            epoch: group.epoch,
            layout: group.layout,
            members: Vec::new(),
            replaces,
        };
        let channel = Channel::new(session, group.epoch, Inbox::new(session));
        let dimension = group.dimension;
        let phase = Phase::AwaitingCommit(Box::new(group));
        let (content, share) = (Digest([0; 32]), None);
        Ok((
            attempt,
            Self { channel, order, dimension, members: Vec::new(), opened: Vec::new(), content, share, phase },
        ))
    }

    /// The matcher has the sum: the revision becomes live, what it replaces is revoked.
    pub(crate) fn commit(&mut self, state: &mut State) -> Result<(), HolderError> {
        let session = self.channel.session;
        if !self.is_prepared() {
            return Err(HolderError::OutOfTurn(session));
        }
        let Phase::AwaitingCommit(group) = std::mem::replace(&mut self.phase, Phase::Finished) else { return Ok(()) };
        let collection = &self.order.collection;
        state.registry.collection_mut(collection)?.commit(collection, *group, &self.order.replaces);
        state.retire_epochs();
        state.tell_matcher(&FromHolder::Committed { session })
    }

    /// Whether this holder has promised to commit.
    pub(crate) fn is_prepared(&self) -> bool {
        matches!(self.phase, Phase::AwaitingCommit(_))
    }

    pub(crate) fn late(&self, state: &State) -> Vec<Suspect> {
        match &self.phase {
            Phase::Computing(_) => Vec::new(),
            Phase::Handshake(_) | Phase::Parts(_) | Phase::Copies(_) => self.channel.late(state.party),
            Phase::AwaitingCommit(_) | Phase::Finished => vec![Suspect::Matcher],
        }
    }
}
