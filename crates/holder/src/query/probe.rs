//! What a query does with its probe: the norm check, and the recrypt for every block width in the scope (DESIGN 3.3).

use borsh::{BorshDeserialize, BorshSerialize};

use veilmatch_glwe::{
    FromHolder, Layout, Masks, PartPayload, ProbeCiphertext, ProbeShape, body_digest, decode_polynomials,
    encode_polynomials,
};
use veilmatch_mpc::{NormBounds, PairwiseSeeds, norm_inputs, read_norm};
use veilmatch_sealed::{Associated, COORDINATE_SCALE};
use veilmatch_secret::{Digest, Label};

use std::sync::Arc;

use super::{FITS, PROBE, Query};
use crate::HolderError;
use crate::admission::NORM;
use crate::audit::{AuditEvent, ProbeUse};
use crate::error::Speaker;
use crate::recrypt::probe_part;
use crate::run::{Run, Running, Wanted};
use crate::state::State;

/// What holders tell each other about one block width of the probe.
#[derive(BorshSerialize, BorshDeserialize)]
pub(super) struct ProbeNews {
    shape: ProbeShape,
    /// Digest of the part that sender and receiver share.
    shared: Digest,
    /// The part that the receiver lacks: whole from its next holder, a digest from its previous.
    missing: PartPayload,
}

/// One block width of the probe at this holder.
pub(super) struct OwnProbe {
    shape: ProbeShape,
    masks: Masks,
    /// Sum of the two parts that this holder computed.
    sum: Vec<u32>,
    with_next: Digest,
    with_previous: Digest,
}

/// The norm check, beside the other phases.
pub(super) enum Norm {
    /// Its seeds are not agreed yet.
    Ahead,
    Running(Box<Run>),
    /// Opened: the probe is a unit vector. The peers have been told.
    Seen,
    /// Both peers have said so too.
    Fits,
}

impl Query {
    /// Goes on with the norm check; ends the session if the probe does not fit.
    pub(super) fn advance_norm(&mut self, state: &mut State) -> Result<(), HolderError> {
        loop {
            let run = match &mut self.norm {
                Norm::Running(run) => run,
                Norm::Seen => {
                    // An empty message: what it says is that it was sent.
                    let Some([(), ()]) = self.channel.take_both(state.party, FITS)? else { return Ok(()) };
                    self.norm = Norm::Fits;
                    return Ok(());
                }
                Norm::Ahead | Norm::Fits => return Ok(()),
            };
            match run.advance(state, &mut self.channel)? {
                Running::Waiting => return Ok(()),
                Running::ReadyToOpen(_) => {
                    let Associated { client, nonce, expires, .. } = &self.associated;
                    let probe = Some(ProbeUse { client: client.clone(), nonce: *nonce, expires: *expires });
                    state.log(self.channel.session, AuditEvent::NormCheck { templates: 1, probe });
                    run.open(state, &mut self.channel)?;
                }
                Running::Done(opened) => {
                    if read_norm(&opened)? != [true] {
                        return Err(HolderError::NotUnit);
                    }
                    for peer in state.party.peers() {
                        self.channel.send(state, FITS, peer, &())?;
                    }
                    self.norm = Norm::Seen;
                }
            }
        }
    }

    pub(super) fn start_norm_check(&mut self, state: &mut State, seeds: &PairwiseSeeds) -> Result<Run, HolderError> {
        let opened = self.opened.as_ref().ok_or(HolderError::OutOfTurn(self.channel.session))?;
        let parts = [(opened.own.expose().as_slice(), opened.next.expose().as_slice())];
        let dimension = self.associated.dimension.get();
        let bounds = NormBounds::unit(COORDINATE_SCALE);
        let inputs = norm_inputs(state.party, &parts, &bounds);
        Run::start(state, &mut self.channel, seeds, Wanted::Norm { templates: 1, dimension }, inputs, NORM)
    }

    /// Computes both parts of the probe for every block width in the scope and sends them where they are missing.
    pub(super) fn recrypt(&mut self, state: &mut State) -> Result<Vec<OwnProbe>, HolderError> {
        let out_of_turn = HolderError::OutOfTurn(self.channel.session);
        let (Some(opened), Some(secret), Some(agreed)) = (self.opened.take(), &self.probe_secret, &self.agreed) else {
            return Err(out_of_turn);
        };
        let (parameters, dimension, session) = (state.parameters, self.associated.dimension, self.channel.session);
        let mut shapes: Vec<ProbeShape> = Vec::new();
        for served in &self.scope.groups {
            let layout = Layout::new(served.group.layout.beta(), 1).map_err(|_| HolderError::BadSlots)?;
            shapes.push(ProbeShape { layout });
        }
        shapes.sort_unstable();
        shapes.dedup();

        let [own, next] = state.party.parts();
        let mut probes = Vec::new();
        let (mut to_next, mut to_previous) = (Vec::new(), Vec::new());
        for shape in shapes {
            let label = Label::new("veilmatch/recrypt/masks/probe")
                .bytes(parameters.name.as_bytes())
                .bytes(&session.0)
                .number(shape.layout.beta() as u64);
            let masks = agreed.masks(label).expand(&parameters, shape.layout, dimension);
            let part = |seed, secret: &[u32], values: &[u64]| {
                probe_part(&parameters, &state.ring, shape.layout, &masks, seed, secret, values)
            };
            let own_part = part(&agreed.seeds.own, secret.own.expose(), opened.own.expose());
            let next_part = part(&agreed.seeds.next, secret.next.expose(), opened.next.expose());
            let own_bytes = encode_polynomials(&own_part);
            let next_bytes = encode_polynomials(&next_part);
            let with_previous = body_digest(own, &own_bytes);
            let with_next = body_digest(next, &next_bytes);
            // K_{i−1} lacks part i+1 and gets it whole; K_{i+1} lacks part i and gets its digest.
            to_previous.push(ProbeNews { shape, shared: with_previous, missing: PartPayload::Polynomials(next_bytes) });
            to_next.push(ProbeNews { shape, shared: with_next, missing: PartPayload::Digest(with_previous) });
            let mut sum = own_part;
            state.ring.add_assign(&mut sum, &next_part);
            probes.push((OwnProbe { shape, masks, sum, with_next, with_previous }, own_bytes));
        }
        self.channel.send(state, PROBE, state.party.next(), &to_next)?;
        self.channel.send(state, PROBE, state.party.previous(), &to_previous)?;
        let mut own_probes = Vec::new();
        for (probe, own_bytes) in probes {
            for (part, payload) in
                [(own, PartPayload::Polynomials(own_bytes)), (next, PartPayload::Digest(probe.with_next))]
            {
                let message =
                    FromHolder::ProbePart { session, seed: probe.masks.seed, shape: probe.shape, part, payload };
                state.tell_matcher(&message)?;
            }
            own_probes.push(probe);
        }
        Ok(own_probes)
    }

    /// Adds the third part of every probe body.
    pub(super) fn complete_probes(
        &mut self,
        state: &State,
        own: Vec<OwnProbe>,
        next: Vec<ProbeNews>,
        previous: Vec<ProbeNews>,
    ) -> Result<(), HolderError> {
        let [next_peer, previous_peer] = state.party.peers();
        let malformed = |peer| HolderError::Malformed { speaker: Speaker::Peer(peer) };
        if next.len() != own.len() {
            return Err(malformed(next_peer));
        }
        if previous.len() != own.len() {
            return Err(malformed(previous_peer));
        }
        let [own_part, next_part] = state.party.parts();
        let missing = state.party.missing_part();
        for ((probe, from_next), from_previous) in own.into_iter().zip(next).zip(previous) {
            if from_next.shape != probe.shape {
                return Err(malformed(next_peer));
            }
            if from_previous.shape != probe.shape {
                return Err(malformed(previous_peer));
            }
            if from_next.shared != probe.with_next {
                return Err(HolderError::BodiesDiffer { part: next_part });
            }
            if from_previous.shared != probe.with_previous {
                return Err(HolderError::BodiesDiffer { part: own_part });
            }
            let PartPayload::Polynomials(bytes) = from_next.missing else { return Err(malformed(next_peer)) };
            let PartPayload::Digest(digest) = from_previous.missing else { return Err(malformed(previous_peer)) };
            if body_digest(missing, &bytes) != digest {
                return Err(HolderError::BodiesDiffer { part: missing });
            }
            let layout = probe.shape.layout;
            let blocks = layout.blocks(self.associated.dimension);
            let third = decode_polynomials(&state.parameters, &bytes, blocks).map_err(|_| malformed(next_peer))?;
            let mut bodies = probe.sum;
            state.ring.add_assign(&mut bodies, &third);
            let ciphertext = ProbeCiphertext::new(probe.masks, bodies);
            self.probes.insert(probe.shape, Arc::new(ciphertext));
        }
        Ok(())
    }
}
