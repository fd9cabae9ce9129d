//! One query: norm check, recrypt of the probe, scan check, decision, sealed reply (DESIGN 3.3, 3.5, 5).
//!
//! What is opened, and when: first whether the probe is a unit vector; then, only at a holder that has seen "fits" and whose
//! digest of everything that the answer depends on is that of both peers, the decision. A session gives one decision and its
//! secrets die with it. What does not depend on each other runs side by side:
//!
//! - The norm check runs beside recrypt, scan and comparison. Up to an opening, all that a holder receives of the comparison
//!   is masked by a seed that it does not have, so it may be computed for a probe that does not fit; the matcher gets a
//!   ciphertext under the session's secret as it would otherwise. A holder that has opened "fits" says so to its peers, and
//!   none logs or lets go an opening of the decision before it has heard that from both: of a probe that does not fit, or
//!   that one of them has not seen to fit, nothing of the decision is opened.
//! - The digests of the sums travel with the first messages of the comparison, for the same reason: with sums that differ
//!   the comparison computes something else on values that stay hidden, and its shares of the opening do not leave before
//!   the digests of both peers have come and agree. Two holders that were shown different sums find out before either
//!   lets go; a third one that keeps that from them cannot open anything without one of theirs.
//!
//! Who sees what: the matcher gets the probe's bodies under the session's secret s_0, and replies it cannot read.
//! Holders get the probe's bodies (they are ciphertexts) and shares of scores that are uniform; the outcome is theirs to
//! know, because budgets and the log need it. Nobody gets a score.

use borsh::{BorshDeserialize, BorshSerialize};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

use veilmatch_domain::{
    Decision, Epoch, GroupId, Outcome, Party, Purpose, Query as Asked, Role, SessionId, SubjectId, Suspect,
    TemplateDigest, Threshold,
};
use veilmatch_glwe::{
    FromHolder, GroupSums, Layout, Masks, Parameters, PartPayload, ProbeCiphertext, ProbeShape, body_digest,
    decode_polynomials, encode_polynomials,
};
use veilmatch_kernels::{Ring, ScanProbe, to_bytes};
use veilmatch_mpc::{Answer, Lanes, NormBounds, PairwiseSeeds, Question, norm_inputs, read_answer, read_norm};
use veilmatch_sealed::{Associated, COORDINATE_SCALE, SealedTemplate, seal_reply};
use veilmatch_secret::{Counter, Digest, Hasher, Label, Secret, Seed};

use crate::HolderError;
use crate::admission::{NORM, REQUEST_SECONDS};
use crate::audit::{AuditEvent, ProbeUse};
use crate::error::Speaker;
use crate::handshake::{Agreed, Handshake, SharedParts};
use crate::keys::SecretParts;
use crate::ledger::Asking;
use crate::masks::MaskRoom;
use crate::recrypt::probe_part;
use crate::registry::{Scope, ServedGroup, check_dimension, check_lifetime};
use crate::run::{Run, Running, Wanted};
use crate::scan_check::{CheckSum, LeftSide, check_sum};
use crate::scores::{Factors, ShareInputs, decode_sums, score_shares};
use crate::state::{Channel, State};
use crate::unseal::OpenedTemplate;
use crate::work::Done;

// The norm check of one probe takes far fewer steps than there are below this one.
const PROBE: u32 = 1 << 10;
const SUMS: u32 = PROBE + 1;
const FITS: u32 = PROBE + 2;
const DECISION: u32 = PROBE + 16;

/// What holders tell each other about one block width of the probe.
#[derive(BorshSerialize, BorshDeserialize)]
struct ProbeNews {
    shape: ProbeShape,
    /// Digest of the part that sender and receiver share.
    shared: Digest,
    /// The part that the receiver lacks: whole from its next holder, a digest from its previous.
    missing: PartPayload,
}

/// One block width of the probe at this holder.
struct OwnProbe {
    shape: ProbeShape,
    masks: Masks,
    /// Sum of the two parts that this holder computed.
    sum: Vec<u32>,
    with_next: Digest,
    with_previous: Digest,
}

/// Shares of the scores, and the digest of everything that they depend on.
pub(crate) struct Shares {
    shares: Secret<Vec<u64>>,
    agreement: Digest,
}

/// What the scan check and the shares of scores are computed from.
struct Sharing {
    party: Party,
    parameters: Parameters,
    ring: Arc<Ring>,
    room: Arc<MaskRoom>,
    session: SessionId,
    digest: TemplateDigest,
    view: Digest,
    threshold: Threshold,
    scope: Arc<Scope>,
    /// By block width.
    probes: BTreeMap<usize, Probe>,
    probe_secret: SecretParts,
    /// By epoch of the groups, then by body.
    secrets: BTreeMap<Epoch, Vec<Arc<SecretParts>>>,
    groups: Vec<GroupSums>,
}

/// The probe for one block width.
struct Probe {
    ciphertext: ProbeCiphertext,
    /// ΣC over the groups of this width in the scope, if it is known already.
    check: Option<CheckSum>,
}

/// What the sums of one group came to.
struct OfGroup {
    shares: Secret<Vec<u64>>,
    left: LeftSide,
    digest: Digest,
}

impl Sharing {
    fn run(self) -> Result<Shares, HolderError> {
        let mut named: BTreeMap<GroupId, &GroupSums> = BTreeMap::new();
        for sums in &self.groups {
            if named.insert(sums.group, sums).is_some() {
                return Err(HolderError::BadSums { what: "a group appears twice" });
            }
        }
        let mut work: Vec<(&ServedGroup, &GroupSums)> = Vec::with_capacity(self.scope.groups.len());
        for served in &self.scope.groups {
            let group = served.group.group;
            work.push((served, named.get(&group).copied().ok_or(HolderError::GroupLeftOut { group })?));
        }
        let factors: BTreeMap<Epoch, Factors> = self
            .secrets
            .iter()
            .map(|(epoch, secrets)| (*epoch, Factors::new(&self.ring, &self.probe_secret, secrets)))
            .collect();
        let mut prepared: BTreeMap<usize, ScanProbe> = BTreeMap::new();
        for (&beta, probe) in &self.probes {
            prepared.insert(beta, probe.ciphertext.prepare(&self.ring).map_err(|_| HolderError::BadSlots)?);
        }
        let of_group = |(served, sums): &(&ServedGroup, &GroupSums)| self.group(served, sums, &factors, &prepared);
        let parts: Vec<OfGroup> = work.par_iter().map(of_group).collect::<Result<_, _>>()?;

        for (&beta, probe) in &self.probes {
            let folding = self.ring.folding(beta).ok_or(HolderError::BadSlots)?;
            let of_width = || work.iter().zip(&parts).filter(|((served, _), _)| served.group.layout.beta() == beta);
            let mut left = LeftSide::empty(&self.ring, folding);
            of_width().for_each(|(_, part)| left.add(&self.ring, &part.left));
            let check = match &probe.check {
                Some(check) => Arc::clone(check),
                None => check_sum(&self.ring, of_width().map(|((served, _), _)| served.group.as_ref())),
            };
            if !left.agrees(&self.ring, folding, &probe.ciphertext, &check) {
                return Err(HolderError::ScanCheck);
            }
        }
        let mut shares = Secret::new(Vec::with_capacity(self.scope.lanes));
        parts.iter().for_each(|part| shares.expose_mut().extend_from_slice(part.shares.expose()));
        Ok(Shares { shares, agreement: self.agreement(&parts) })
    }

    /// One pass over a group's sums, which stay in a core's cache: decoding, digest, left side of the check, shares.
    fn group(
        &self,
        served: &ServedGroup,
        sums: &GroupSums,
        factors: &BTreeMap<Epoch, Factors>,
        probes: &BTreeMap<usize, ScanProbe>,
    ) -> Result<OfGroup, HolderError> {
        let (group, layout) = (&served.group, served.group.layout);
        let decoded = decode_sums(&self.parameters, layout, sums)?;
        let digest = Label::new("veilmatch/query/sums")
            .number(sums.group.0)
            .number(sums.revision.0.into())
            .bytes(&sums.masks)
            .bytes(&sums.scores)
            .digest();
        let folding = self.ring.folding(layout.beta()).ok_or(HolderError::BadSlots)?;
        let (Some(probe), Some(factors)) = (probes.get(&layout.beta()), factors.get(&group.epoch)) else {
            return Err(HolderError::BadSlots);
        };
        let mut left = LeftSide::empty(&self.ring, folding);
        left.add_group(&self.parameters, &self.ring, group, &decoded.masks, &decoded.scores);
        let masks = group.masks.values(&self.parameters, layout, group.dimension, &self.room);
        let inputs = ShareInputs {
            party: self.party,
            parameters: &self.parameters,
            ring: &self.ring,
            folding,
            layout,
            masks: &masks,
            probe,
            factors,
            slots: &served.slots,
            threshold: self.threshold,
        };
        let shares = score_shares(&inputs, &decoded).map_err(|_| HolderError::BadSlots)?;
        Ok(OfGroup { shares, left, digest })
    }

    /// H(session ‖ signed request ‖ registry ‖ probe ‖ groups, revisions, A, B): everything the answer depends on.
    fn agreement(&self, parts: &[OfGroup]) -> Digest {
        let mut hasher = Hasher::new("veilmatch/query/agreement");
        hasher.field(&self.session.0).field(&self.digest.0);
        hasher.field(&self.view.0);
        for (beta, probe) in &self.probes {
            hasher.number(*beta as u64).field(&to_bytes(&probe.ciphertext.bodies));
        }
        // In the matcher's order, so that holders that agree have had the same message.
        let digests: BTreeMap<GroupId, &Digest> =
            self.scope.groups.iter().zip(parts).map(|(served, part)| (served.group.group, &part.digest)).collect();
        for digest in self.groups.iter().filter_map(|sums| digests.get(&sums.group)) {
            hasher.field(&digest.0);
        }
        hasher.finish()
    }
}

/// The norm check, beside the other phases.
enum Norm {
    /// Its seeds are not agreed yet.
    Ahead,
    Running(Box<Run>),
    /// Opened: the probe is a unit vector. The peers have been told.
    Seen,
    /// Both peers have said so too.
    Fits,
}

enum Phase {
    Handshake(Handshake),
    Probe(Vec<OwnProbe>),
    AwaitingSums,
    /// The sums are being checked.
    Computing(u64),
    Decision(Deciding),
    Finished,
}

/// The comparison, and what its opening waits for.
struct Deciding {
    run: Run,
    /// The digest that both peers must have too.
    agreement: Digest,
    /// Whether they have.
    agreed: bool,
}

/// The session.
pub(crate) struct Query {
    pub(crate) channel: Channel,
    associated: Associated,
    asked: Asked,
    /// The budget window of the policy that the query was accepted under.
    window_seconds: u32,
    digest: TemplateDigest,
    opened: Option<OpenedTemplate>,
    reply_key: veilmatch_sealed::ReplyKey,
    replies: Counter,
    scope: Arc<Scope>,
    /// The registry's view that the scope was taken from.
    view: Digest,
    agreed: Option<Agreed>,
    probe_secret: Option<SecretParts>,
    probes: BTreeMap<ProbeShape, ProbeCiphertext>,
    early_sums: Option<Vec<GroupSums>>,
    norm: Norm,
    phase: Phase,
}

impl Query {
    /// Checks the signed query against roles, policy, budgets and lock-out, and begins. The nonce is used up by the log entry
    /// of the norm check; until then nothing has been opened and the session id, which is the probe's, keeps others out.
    pub(crate) fn start(state: &mut State, mut channel: Channel, sealed: &SealedTemplate) -> Result<Self, HolderError> {
        let associated = sealed.associated().clone();
        let Purpose::Probe(asked) = associated.purpose.clone() else {
            return Err(HolderError::WrongUse { what: "purpose" });
        };
        let (client, collection) = (&associated.client, &associated.collection);
        let reader = state.template_reader()?;
        reader.verify(sealed)?;
        check_dimension(associated.dimension, state.registry.dimension(collection)?)?;
        let (role, subject) = match &asked.decision {
            Decision::Verify { subject } => (Role::Verify, Some(subject.clone())),
            _ => (Role::Identify, None),
        };
        state.registry.authorise(client, role, collection)?;
        check_lifetime(associated.expires, REQUEST_SECONDS, state.now)?;
        let under_way = state.asking.values();
        if state.ledger.is_used(client, &associated.nonce)
            || under_way.clone().any(|other| other.client == *client && other.nonce == associated.nonce)
        {
            return Err(HolderError::Replayed);
        }
        let record = state.registry.collection(collection)?;
        let policy = record.policy().ok_or_else(|| HolderError::UnknownCollection(collection.clone()))?;
        policy.permits(&asked)?;
        let (nonce, expires) = (associated.nonce, associated.expires);
        let asking =
            Asking { client: client.clone(), collection: collection.clone(), subject, nonce, expires, opened: false };
        state.ledger.check(policy, &asking, under_way, state.now)?;
        let window_seconds = policy.budgets.window_seconds;

        let scope = match &asked.decision {
            Decision::Verify { subject } => {
                let digest = record.template_of(subject).ok_or_else(|| HolderError::UnknownSubject(subject.clone()))?;
                record.scope_of(digest)
            }
            _ => record.scope(),
        };
        if scope.lanes == 0 {
            return Err(HolderError::EmptyScope);
        }
        let view = record.view_digest();
        let read = reader.open(sealed, &channel.session)?;
        let (digest, opened) = (read.digest, read.opened);

        let request = Label::new("veilmatch/query/request").bytes(&digest.0).bytes(&view.0).digest();
        let [own, next] = read.parts;
        let parts = SharedParts { with_next: vec![next], with_previous: vec![own] };
        let mut contribution = [0u8; 32];
        state.entropy.fill_bytes(&mut contribution);
        let private = Seed::random(state.entropy.as_mut());
        let handshake = Handshake::start(state, &mut channel, request, contribution, private, parts)?;
        let reply_key = opened.reply.duplicate();
        state.asking.insert(channel.session, asking);
        Ok(Self {
            channel,
            associated,
            asked,
            window_seconds,
            digest,
            opened: Some(opened),
            reply_key,
            replies: Counter::new(),
            scope,
            view,
            agreed: None,
            probe_secret: None,
            probes: BTreeMap::new(),
            early_sums: None,
            norm: Norm::Ahead,
            phase: Phase::Handshake(handshake),
        })
    }

    fn seeds(&self) -> Result<&PairwiseSeeds, HolderError> {
        self.agreed.as_ref().map(|a| &a.seeds).ok_or(HolderError::OutOfTurn(self.channel.session))
    }

    /// Takes the matcher's sums; once.
    pub(crate) fn sums(&mut self, state: &mut State, groups: Vec<GroupSums>) -> Result<(), HolderError> {
        if self.early_sums.is_some() || matches!(self.phase, Phase::Computing(_) | Phase::Decision(_) | Phase::Finished)
        {
            return Err(HolderError::SessionSpent(self.channel.session));
        }
        self.early_sums = Some(groups);
        self.advance(state)
    }

    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Finished)
    }

    pub(crate) fn advance(&mut self, state: &mut State) -> Result<(), HolderError> {
        loop {
            self.advance_norm(state)?;
            match &mut self.phase {
                Phase::Handshake(handshake) => {
                    let Some(agreed) = handshake.advance(state, &mut self.channel)? else { return Ok(()) };
                    for compared in handshake.compare_parts(state.party, &agreed) {
                        compared?;
                    }
                    self.norm = Norm::Running(Box::new(self.start_norm_check(state, &agreed.seeds)?));
                    self.probe_secret = Some(SecretParts::of_probe(&state.ring, &agreed.seeds));
                    self.agreed = Some(agreed);
                    let probes = self.recrypt(state)?;
                    self.phase = Phase::Probe(probes);
                }
                Phase::Probe(own) => {
                    let Some([next, previous]) = self.channel.take_both::<Vec<ProbeNews>>(state.party, PROBE)? else {
                        return Ok(());
                    };
                    let own = std::mem::take(own);
                    self.complete_probes(state, own, next, previous)?;
                    self.phase = Phase::AwaitingSums;
                }
                Phase::AwaitingSums => {
                    let Some(groups) = self.early_sums.take() else { return Ok(()) };
                    let ticket = self.compute_shares(state, groups)?;
                    self.phase = Phase::Computing(ticket);
                }
                Phase::Decision(deciding) => {
                    if !deciding.agreed
                        && let Some(seen) = self.channel.take_both::<Digest>(state.party, SUMS)?
                    {
                        compare_agreement(state.party, &deciding.agreement, &seen)?;
                        deciding.agreed = true;
                    }
                    match deciding.run.advance(state, &mut self.channel)? {
                        Running::Waiting => return Ok(()),
                        // What is missing comes in a later message, or never.
                        Running::ReadyToOpen(_) if !deciding.agreed || !matches!(self.norm, Norm::Fits) => {
                            return Ok(());
                        }
                        Running::ReadyToOpen(stage) => {
                            let event = AuditEvent::Opening {
                                client: self.associated.client.clone(),
                                collection: self.associated.collection.clone(),
                                query: self.asked.clone(),
                                stage: stage as u8,
                                window_seconds: self.window_seconds,
                            };
                            if let Some(asking) = state.asking.get_mut(&self.channel.session) {
                                asking.opened = true;
                            }
                            state.log(self.channel.session, event);
                            deciding.run.open(state, &mut self.channel)?;
                        }
                        Running::Done(opened) => {
                            self.answer(state, &opened)?;
                            self.phase = Phase::Finished;
                            return Ok(());
                        }
                    }
                }
                Phase::Computing(_) | Phase::Finished => return Ok(()),
            }
        }
    }

    /// Goes on with the norm check; ends the session if the probe does not fit.
    fn advance_norm(&mut self, state: &mut State) -> Result<(), HolderError> {
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

    fn start_norm_check(&mut self, state: &mut State, seeds: &PairwiseSeeds) -> Result<Run, HolderError> {
        let opened = self.opened.as_ref().ok_or(HolderError::OutOfTurn(self.channel.session))?;
        let parts = [(opened.own.expose().as_slice(), opened.next.expose().as_slice())];
        let dimension = self.associated.dimension.get();
        let bounds = NormBounds::unit(COORDINATE_SCALE);
        let inputs = norm_inputs(state.party, &parts, &bounds);
        Run::start(state, &mut self.channel, seeds, Wanted::Norm { templates: 1, dimension }, inputs, NORM)
    }

    /// Computes both parts of the probe for every block width in the scope and sends them where they are missing.
    fn recrypt(&mut self, state: &mut State) -> Result<Vec<OwnProbe>, HolderError> {
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
    fn complete_probes(
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
            self.probes.insert(probe.shape, ciphertext);
        }
        Ok(())
    }

    /// A group that was rebuilt, or a member that was erased, since the session began must not be served any more.
    fn check_scope(&self, state: &State) -> Result<(), HolderError> {
        let record = state.registry.collection(&self.associated.collection)?;
        if record.still_serves(&self.scope) { Ok(()) } else { Err(HolderError::RegistryChanged) }
    }

    /// Checks that the sums are named for live groups in the scope and hands out the rest: their scan check and this holder's
    /// shares of the scores.
    fn compute_shares(&mut self, state: &mut State, groups: Vec<GroupSums>) -> Result<u64, HolderError> {
        self.check_scope(state)?;
        let collection = &self.associated.collection;
        let record = state.registry.collection(collection)?;
        for sums in &groups {
            let (group, revision) = (sums.group, sums.revision);
            let place = self.scope.groups.binary_search_by_key(&group, |served| served.group.group);
            match place.ok().and_then(|place| self.scope.groups.get(place)) {
                Some(served) if served.group.revision == revision => {}
                _ if record.is_revoked(group, revision) => {
                    return Err(HolderError::RevokedRevision { group, revision });
                }
                _ => return Err(HolderError::UnregisteredGroup { group }),
            }
        }
        let mut ranks: BTreeMap<Epoch, usize> = BTreeMap::new();
        for served in &self.scope.groups {
            let rank = ranks.entry(served.group.epoch).or_default();
            *rank = served.group.layout.rank().max(*rank);
        }
        let mut secrets = BTreeMap::new();
        for (epoch, rank) in ranks {
            let of_epoch: Result<Vec<_>, _> =
                (0..rank).map(|body| state.gallery_secret(collection, epoch, body)).collect();
            secrets.insert(epoch, of_epoch?);
        }
        let record = state.registry.collection_mut(collection)?;
        let mut probes = BTreeMap::new();
        for (shape, ciphertext) in std::mem::take(&mut self.probes) {
            let beta = shape.layout.beta();
            let in_scope = self.scope.groups.iter().filter(|served| served.group.layout.beta() == beta).count();
            // All groups of the scope are live, so if they are as many as the live ones they are the same.
            let (check, live) = record.check_sum(&state.ring, beta);
            probes.insert(beta, Probe { ciphertext, check: (in_scope == live).then_some(check) });
        }
        let session = self.channel.session;
        let probe_secret = self.probe_secret.take().ok_or(HolderError::OutOfTurn(session))?;
        let sharing = Sharing {
            party: state.party,
            parameters: state.parameters,
            ring: Arc::clone(&state.ring),
            room: Arc::clone(&state.mask_room),
            session,
            digest: self.digest,
            view: self.view,
            threshold: self.asked.threshold,
            scope: Arc::clone(&self.scope),
            probes,
            probe_secret,
            secrets,
            groups,
        };
        Ok(state.hand_out(session, move || Done::Shares(sharing.run())))
    }

    /// The sums have passed: tells the peers a digest of everything that the answer depends on and begins the comparison.
    /// From here on the session is spent.
    pub(crate) fn worked(&mut self, state: &mut State, done: Done) -> Result<(), HolderError> {
        let Done::Shares(shares) = done else { return Err(HolderError::OutOfTurn(self.channel.session)) };
        let Shares { mut shares, agreement } = shares?;
        self.check_scope(state)?;
        for peer in state.party.peers() {
            self.channel.send(state, SUMS, peer, &agreement)?;
        }
        let shares = std::mem::take(shares.expose_mut());
        let wanted = Wanted::Decision {
            width: state.parameters.decision_bits,
            lanes: shares.len(),
            question: question(&self.asked.decision),
        };
        let seeds = self.seeds()?;
        let seeds = PairwiseSeeds { own: seeds.own.duplicate(), next: seeds.next.duplicate() };
        let run = Run::start(state, &mut self.channel, &seeds, wanted, shares, DECISION)?;
        self.phase = Phase::Decision(Deciding { run, agreement, agreed: false });
        Ok(())
    }

    /// The ticket of the work that is out.
    pub(crate) fn computing(&self) -> Option<u64> {
        if let Phase::Computing(ticket) = self.phase { Some(ticket) } else { None }
    }

    fn answer(&mut self, state: &mut State, opened: &[Vec<Lanes>]) -> Result<(), HolderError> {
        let answer = read_answer(question(&self.asked.decision), opened)?;
        let subject = |lane: usize| self.scope.subject(lane).cloned();
        let outcome = match (&self.asked.decision, answer) {
            (Decision::Verify { .. }, Answer::Any(hit)) => Outcome::Verify(hit),
            (Decision::Exists, Answer::Any(hit)) => Outcome::Exists(hit),
            (_, Answer::List(lanes)) => {
                let mut subjects: Vec<SubjectId> = lanes.into_iter().filter_map(subject).collect();
                subjects.sort_unstable();
                Outcome::Matches(subjects)
            }
            (_, Answer::TooMany) => Outcome::TooMany,
            (_, Answer::Best(lane)) => Outcome::Best(lane.and_then(subject)),
            (_, Answer::Any(_)) => return Err(HolderError::OutOfTurn(self.channel.session)),
        };
        let session = self.channel.session;
        state.log(session, AuditEvent::Outcome(outcome.clone()));
        let reply = seal_reply(&self.reply_key, &mut self.replies, &self.digest, state.party, &self.asked, &outcome)?;
        state.tell_matcher(&FromHolder::Answer { session, reply })
    }

    pub(crate) fn late(&self, state: &State) -> Vec<Suspect> {
        let of_norm = match &self.norm {
            Norm::Running(run) => run.late(),
            Norm::Seen => self.channel.late_at(state.party, FITS),
            Norm::Ahead | Norm::Fits => Vec::new(),
        };
        let mut suspects = match &self.phase {
            Phase::Computing(_) => Vec::new(),
            Phase::Handshake(_) => self.channel.late(state.party),
            Phase::Probe(_) => self.channel.late_at(state.party, PROBE),
            Phase::Decision(deciding) if !deciding.agreed => self.channel.late_at(state.party, SUMS),
            Phase::Decision(deciding) => deciding.run.late(),
            // A matcher that was not told everything cannot answer.
            Phase::AwaitingSums if of_norm.is_empty() => vec![Suspect::Matcher],
            Phase::AwaitingSums => Vec::new(),
            Phase::Finished => vec![Suspect::Matcher],
        };
        for suspect in of_norm {
            if !suspects.contains(&suspect) {
                suspects.push(suspect);
            }
        }
        suspects
    }
}

/// Compares the digests of everything that the answer depends on.
fn compare_agreement(party: Party, own: &Digest, seen: &[Digest; 2]) -> Result<(), HolderError> {
    let suspects: Vec<Suspect> = seen
        .iter()
        .zip(party.peers())
        .filter(|(digest, _)| *digest != own)
        .map(|(_, peer)| Suspect::Holder(peer))
        .collect();
    match suspects.as_slice() {
        [] => Ok(()),
        // One peer stands alone: it, or the matcher that sent it other sums.
        [one] => Err(HolderError::SumsDiffer { suspects: vec![Suspect::Matcher, *one] }),
        _ => Err(HolderError::SumsDiffer { suspects: vec![Suspect::Matcher] }),
    }
}

fn question(decision: &Decision) -> Question {
    match decision {
        Decision::Verify { .. } | Decision::Exists => Question::Any,
        Decision::Matches { max_matches } => Question::List { max: *max_matches },
        Decision::Best => Question::Best,
    }
}
