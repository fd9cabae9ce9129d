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

use veilmatch_domain::{Dimension, Part, Suspect};
use veilmatch_glwe::{BuildOrder, FromHolder, Masks, PartPayload, body_digest, decode_polynomials, encode_polynomials};
use veilmatch_sealed::SealedTemplate;
use veilmatch_secret::{Digest, Hasher, Label, Seed};

use crate::HolderError;
use crate::error::Speaker;
use crate::handshake::{Handshake, SharedParts};
use crate::recrypt::{PartOfMember, gallery_part};
use crate::registry::{RegisteredGroup, RegisteredMember};
use crate::scan_check::{CHECKS, coefficients, combine_bodies};
use crate::state::{Channel, State};
use crate::unseal::{OpenedTemplate, unseal};

const PARTS: u32 = 2;

/// What holders tell each other about the parts that they computed.
#[derive(BorshSerialize, BorshDeserialize)]
struct PartNews {
    /// Digest of the body part that sender and receiver share.
    shared_bodies: Digest,
    /// The check vectors of the part that the receiver lacks: whole from its next holder, a digest from its previous.
    checks: PartPayload,
}

enum Phase {
    Handshake(Box<Handshake>),
    Parts { own_checks: Vec<Vec<u32>>, shared: [Digest; 2], own_bodies: Vec<u8>, check_seed: Seed, masks: Vec<u32> },
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
    pub(crate) fn start(state: &mut State, mut channel: Channel, mut order: BuildOrder) -> Result<Self, HolderError> {
        if state.current_epoch()? != order.epoch {
            return Err(HolderError::WrongEpoch(order.epoch));
        }
        let sealed: Vec<SealedTemplate> =
            order.members.par_iter().map(|m| SealedTemplate::from_bytes(&m.sealed)).collect::<Result<_, _>>()?;
        let members = state.registry.check_order(&state.parameters, &order, &sealed)?;
        let dimension = sealed.first().ok_or(HolderError::BadSlots)?.associated().dimension;
        let readers = state.readers()?;
        let (party, kem) = (state.party, &state.kem);
        let opened: Vec<OpenedTemplate> =
            sealed.par_iter().map(|s| unseal(party, kem, readers, s)).collect::<Result<_, _>>()?;

        let content = content(&order);
        let (group, revision) = (order.group, order.revision);
        let entropy = &mut state.entropy;
        let record = state.registry.collection_mut(&order.collection)?.label(group, revision, content, || {
            let mut contribution = [0u8; 32];
            entropy.fill_bytes(&mut contribution);
            (contribution, Seed::random(entropy.as_mut()))
        })?;
        let (contribution, private) = (record.contribution, record.private.duplicate());

        let session = channel.session;
        let shared = |part: Part| {
            let mut hasher = Hasher::new("veilmatch/build/parts");
            for (template, member) in opened.iter().zip(&members) {
                if let Some(digest) = template.part_digest(part, &session, &member.digest) {
                    hasher.field(&digest.0);
                }
            }
            vec![hasher.finish()]
        };
        let [own, next] = party.parts();
        let parts = SharedParts { with_next: shared(next), with_previous: shared(own) };
        let view = state.registry.collection(&order.collection)?.view_digest();
        let request = Label::new("veilmatch/build/request").bytes(&content.0).bytes(&view.0).digest();
        let handshake = Handshake::start(state, &mut channel, request, contribution, private, parts)?;
        for member in &mut order.members {
            member.sealed = Vec::new(); // no longer needed, and large
        }
        Ok(Self { channel, order, dimension, members, opened, phase: Phase::Handshake(Box::new(handshake)) })
    }

    pub(crate) fn advance(&mut self, state: &mut State) -> Result<(), HolderError> {
        if let Phase::Handshake(handshake) = &mut self.phase {
            let Some(agreed) = handshake.advance(state, &mut self.channel)? else { return Ok(()) };
            for compared in handshake.compare_parts(state.party, &agreed) {
                compared?;
            }
            let label = label(state, &self.order);
            let masks = agreed.masks(label.clone());
            let check_seed = agreed.check_seed(label);
            let (group, revision) = (self.order.group, self.order.revision);
            state.registry.collection_mut(&self.order.collection)?.fix_masks(group, revision, masks)?;
            let masks = masks.expand(&state.parameters, self.order.layout, self.dimension);
            self.recrypt(state, masks, check_seed)?;
        }
        if let Phase::Parts { shared, .. } = &self.phase {
            let shared = *shared;
            let Some([next, previous]) = self.channel.take_both::<PartNews>(state.party, PARTS)? else { return Ok(()) };
            let [own_part, next_part] = state.party.parts();
            let [with_next, with_previous] = shared;
            if next.shared_bodies != with_next {
                return Err(HolderError::BodiesDiffer { part: next_part });
            }
            if previous.shared_bodies != with_previous {
                return Err(HolderError::BodiesDiffer { part: own_part });
            }
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
            self.finish(state, &third)?;
        }
        Ok(())
    }

    /// Computes both parts of the bodies, sends them to the matcher and their digests and check vectors to the peers.
    fn recrypt(&mut self, state: &mut State, masks: Masks, check_seed: Seed) -> Result<(), HolderError> {
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
        let rho: Vec<Vec<u32>> =
            (0..CHECKS).map(|check| coefficients(&parameters, &check_seed, check, layout)).collect();

        let [own, next] = state.party.parts();
        let mut packed = Vec::new();
        let mut checks = Vec::new();
        for (part, choose) in [(own, 0usize), (next, 1)] {
            let keys = state.keys(order.epoch)?;
            let seed = keys.seed_of(state.party, part).ok_or(HolderError::NoKeys)?;
            let secret_parts: Vec<&[u32]> = secrets
                .iter()
                .map(|s| if choose == 0 { s.own.expose().as_slice() } else { s.next.expose().as_slice() })
                .collect();
            let members: Vec<PartOfMember<'_>> = self
                .opened
                .iter()
                .zip(&places)
                .map(|(o, &place)| PartOfMember {
                    place,
                    values: if choose == 0 { o.own.expose() } else { o.next.expose() },
                })
                .collect();
            let bodies = gallery_part(&parameters, &state.ring, layout, &masks, seed, &secret_parts, &members);
            let vectors: Vec<u32> = rho
                .iter()
                .flat_map(|rho| combine_bodies(&parameters, &state.ring, layout, dimension, rho, &bodies))
                .collect();
            packed.push(encode_polynomials(&parameters, &bodies));
            checks.push(vectors);
        }
        self.opened.clear();
        let (Some(own_bodies), Some(next_bodies), Some(own_checks), Some(next_checks)) =
            (packed.first(), packed.get(1), checks.first(), checks.get(1))
        else {
            return Err(HolderError::NoKeys);
        };
        let with_previous = body_digest(own, own_bodies);
        let with_next = body_digest(next, next_bodies);
        // K_{i−1} lacks part i+1 and gets it whole; K_{i+1} lacks part i and gets its digest.
        let to_previous = PartNews {
            shared_bodies: with_previous,
            checks: PartPayload::Polynomials(encode_polynomials(&parameters, next_checks)),
        };
        let to_next = PartNews {
            shared_bodies: with_next,
            checks: PartPayload::Digest(body_digest(own, &encode_polynomials(&parameters, own_checks))),
        };
        self.channel.send(state, PARTS, state.party.previous(), &to_previous)?;
        self.channel.send(state, PARTS, state.party.next(), &to_next)?;
        let own_bodies = packed.into_iter().next().unwrap_or_default();
        let shared = [with_next, with_previous];
        self.phase = Phase::Parts { own_checks: checks, shared, own_bodies, check_seed, masks: masks.values };
        Ok(())
    }

    /// Adds the third part of the check vectors and sends the bodies: the revision is then ready to be committed.
    fn finish(&mut self, state: &mut State, third: &[u32]) -> Result<(), HolderError> {
        let Phase::Parts { own_checks, shared: [with_next, _], own_bodies, check_seed, masks } =
            std::mem::replace(&mut self.phase, Phase::Finished)
        else {
            return Ok(());
        };
        let session = self.channel.session;
        let [own, next] = state.party.parts();
        for (part, payload) in [(own, PartPayload::Polynomials(own_bodies)), (next, PartPayload::Digest(with_next))] {
            state.tell_matcher(&FromHolder::GroupPart { session, part, payload })?;
        }
        let mut sum = third.to_vec();
        for part in &own_checks {
            state.ring.add_assign(&mut sum, part);
        }
        let (first, second) = sum.split_at(sum.len() / 2);
        let group = RegisteredGroup {
            group: self.order.group,
            revision: self.order.revision,
            epoch: self.order.epoch,
            layout: self.order.layout,
            members: std::mem::take(&mut self.members),
            masks,
            check_seed,
            checks: [first.to_vec(), second.to_vec()],
        };
        self.phase = Phase::AwaitingCommit(Box::new(group));
        Ok(())
    }

    /// The matcher has the sum: the revision becomes live, what it replaces is revoked.
    pub(crate) fn commit(&mut self, state: &mut State) -> Result<(), HolderError> {
        let session = self.channel.session;
        if !self.is_prepared() {
            return Err(HolderError::OutOfTurn(session));
        }
        let Phase::AwaitingCommit(group) = std::mem::replace(&mut self.phase, Phase::Finished) else { return Ok(()) };
        state.registry.collection_mut(&self.order.collection)?.commit(*group, &self.order.replaces);
        state.retire_epochs();
        state.tell_matcher(&FromHolder::Committed { session })
    }

    /// Whether this holder has promised to commit.
    pub(crate) fn is_prepared(&self) -> bool {
        matches!(self.phase, Phase::AwaitingCommit(_))
    }

    pub(crate) fn late(&self, state: &State) -> Vec<Suspect> {
        match &self.phase {
            Phase::Handshake(_) | Phase::Parts { .. } => self.channel.late(state.party),
            Phase::AwaitingCommit(_) | Phase::Finished => vec![Suspect::Matcher],
        }
    }
}
