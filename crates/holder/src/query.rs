//! One query: norm check, recrypt of the probe, scan check, decision, sealed reply (DESIGN 3.3, 3.5, 5).
//!
//! Order of the opening: whether the probe is a unit vector; then, only if all three holders accept the matcher's sums
//! and agree on everything that the answer depends on, the decision. A session gives one decision and its secrets die
//! with it.
//!
//! Who sees what: the matcher gets the probe's bodies under the session's secret s_0, and replies it cannot read.
//! Holders get the probe's bodies (they are ciphertexts) and shares of scores that are uniform; the outcome is theirs to
//! know, because budgets and the log need it. Nobody gets a score.

use borsh::{BorshDeserialize, BorshSerialize};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

use veilmatch_domain::{
    Decision, GroupId, Outcome, Party, Purpose, Query as Asked, Role, SessionId, SubjectId, Suspect, TemplateDigest,
    Threshold,
};
use veilmatch_glwe::{
    FromHolder, GroupSums, Layout, Masks, Parameters, PartPayload, ProbeCiphertext, ProbeShape, body_digest,
    decode_polynomials, encode_polynomials,
};
use veilmatch_kernels::Ring;
use veilmatch_mpc::{
    Answer, Lanes, NormBounds, PairwiseSeeds, Question, decision_circuit, norm_circuit, norm_inputs, read_answer,
    read_norm,
};
use veilmatch_sealed::{Associated, COORDINATE_SCALE, SealedTemplate, seal_reply};
use veilmatch_secret::{Counter, Digest, Hasher, Label, Secret, Seed};

use crate::HolderError;
use crate::admission::{NORM, REQUEST_SECONDS};
use crate::audit::{AuditEvent, ProbeUse};
use crate::error::Speaker;
use crate::handshake::{Agreed, Handshake, SharedParts};
use crate::keys::SecretParts;
use crate::ledger::Asking;
use crate::recrypt::probe_part;
use crate::registry::{RegisteredGroup, check_dimension, check_lifetime};
use crate::run::{Run, Running};
use crate::scores::{DecodedSums, check_sums, decode_sums, score_shares};
use crate::state::{Channel, State};
use crate::unseal::OpenedTemplate;
use crate::work::Done;

// The norm check of one probe takes far fewer steps than there are below this one.
const PROBE: u32 = 1 << 10;
const SUMS: u32 = PROBE + 1;
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

/// A group in the query's scope, with the slots that are compared and whose they are.
struct ScopeGroup {
    group: Arc<RegisteredGroup>,
    slots: Vec<usize>,
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
    session: SessionId,
    digest: TemplateDigest,
    view: Digest,
    threshold: Threshold,
    scope: Arc<Vec<ScopeGroup>>,
    probes: BTreeMap<ProbeShape, ProbeCiphertext>,
    probe_secret: SecretParts,
    /// Per group of the scope, per body.
    secrets: Vec<Vec<Arc<SecretParts>>>,
    groups: Vec<GroupSums>,
}

impl Sharing {
    fn run(self) -> Result<Shares, HolderError> {
        let mut decoded: BTreeMap<GroupId, DecodedSums> = BTreeMap::new();
        for scope in self.scope.iter() {
            let group = scope.group.group;
            let mut named = self.groups.iter().filter(|s| s.group == group);
            let sums = named.next().ok_or(HolderError::GroupLeftOut { group })?;
            if named.next().is_some() {
                return Err(HolderError::BadSums { what: "a group appears twice" });
            }
            decoded.insert(group, decode_sums(&self.parameters, scope.group.layout, sums)?);
        }
        for (shape, probe) in &self.probes {
            let of_width: Vec<(&RegisteredGroup, &DecodedSums)> = self
                .scope
                .iter()
                .filter(|s| s.group.layout.beta() == shape.layout.beta())
                .filter_map(|s| Some((s.group.as_ref(), decoded.get(&s.group.group)?)))
                .collect();
            check_sums(&self.parameters, &self.ring, shape.layout, probe, &of_width)?;
        }
        let shares = self
            .scope
            .par_iter()
            .zip(&self.secrets)
            .flat_map_iter(|(scope, secrets)| {
                let probe = self.probes.iter().find(|(s, _)| s.layout.beta() == scope.group.layout.beta());
                match (probe, decoded.get(&scope.group.group)) {
                    (Some((_, probe)), Some(sums)) => score_shares(
                        self.party,
                        &self.parameters,
                        &self.ring,
                        &scope.group,
                        sums,
                        probe,
                        &self.probe_secret,
                        secrets,
                        &scope.slots,
                        self.threshold,
                    ),
                    _ => Vec::new(),
                }
            })
            .collect();
        Ok(Shares { shares: Secret::new(shares), agreement: self.agreement() })
    }

    /// H(session ‖ signed request ‖ registry ‖ probe ‖ groups, revisions, A, B): everything the answer depends on.
    fn agreement(&self) -> Digest {
        let mut hasher = Hasher::new("veilmatch/query/agreement");
        hasher.field(&self.session.0).field(&self.digest.0);
        hasher.field(&self.view.0);
        for (shape, probe) in &self.probes {
            hasher.number(shape.layout.beta() as u64).field(&encode_polynomials(&self.parameters, &probe.bodies));
        }
        for sums in &self.groups {
            hasher.number(sums.group.0).number(sums.revision.0.into()).field(&sums.masks).field(&sums.scores);
        }
        hasher.finish()
    }
}

enum Phase {
    Handshake(Handshake),
    Norm(Run),
    Probe(Vec<OwnProbe>),
    AwaitingSums,
    /// The sums are being checked.
    Computing(u64),
    Sums(Shares),
    Decision {
        run: Run,
    },
    Finished,
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
    scope: Arc<Vec<ScopeGroup>>,
    /// The registry's view that the scope was taken from.
    view: Digest,
    /// Whose lane is whose, in the order of the scope.
    lanes: Vec<SubjectId>,
    agreed: Option<Agreed>,
    probe_secret: Option<SecretParts>,
    probes: BTreeMap<ProbeShape, ProbeCiphertext>,
    early_sums: Option<Vec<GroupSums>>,
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

        let mut scope = Vec::new();
        let mut lanes = Vec::new();
        let wanted = match &asked.decision {
            Decision::Verify { subject } => {
                let digest = record.template_of(subject).ok_or_else(|| HolderError::UnknownSubject(subject.clone()))?;
                Some(*digest)
            }
            _ => None,
        };
        for group in record.live_groups() {
            let chosen: Vec<_> =
                record.enrolled_members(group).filter(|m| wanted.is_none_or(|digest| m.digest == digest)).collect();
            if chosen.is_empty() {
                continue;
            }
            lanes.extend(chosen.iter().map(|m| m.subject.clone()));
            let slots = chosen.iter().map(|m| m.slot).collect();
            scope.push(ScopeGroup { group: Arc::clone(group), slots });
        }
        if scope.is_empty() {
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
            scope: Arc::new(scope),
            view,
            lanes,
            agreed: None,
            probe_secret: None,
            probes: BTreeMap::new(),
            early_sums: None,
            phase: Phase::Handshake(handshake),
        })
    }

    fn seeds(&self) -> Result<&PairwiseSeeds, HolderError> {
        self.agreed.as_ref().map(|a| &a.seeds).ok_or(HolderError::OutOfTurn(self.channel.session))
    }

    /// Takes the matcher's sums; once.
    pub(crate) fn sums(&mut self, state: &mut State, groups: Vec<GroupSums>) -> Result<(), HolderError> {
        if self.early_sums.is_some()
            || matches!(self.phase, Phase::Computing(_) | Phase::Sums(_) | Phase::Decision { .. } | Phase::Finished)
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
            match &mut self.phase {
                Phase::Handshake(handshake) => {
                    let Some(agreed) = handshake.advance(state, &mut self.channel)? else { return Ok(()) };
                    for compared in handshake.compare_parts(state.party, &agreed) {
                        compared?;
                    }
                    let run = self.start_norm_check(state, &agreed.seeds)?;
                    self.probe_secret = Some(SecretParts::of_probe(&state.ring, &agreed.seeds));
                    self.agreed = Some(agreed);
                    self.phase = Phase::Norm(run);
                }
                Phase::Norm(run) => match run.advance(state, &mut self.channel)? {
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
                        let probes = self.recrypt(state)?;
                        self.phase = Phase::Probe(probes);
                    }
                },
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
                Phase::Sums(Shares { shares, agreement }) => {
                    let Some(seen) = self.channel.take_both::<Digest>(state.party, SUMS)? else { return Ok(()) };
                    let shares = std::mem::take(shares.expose_mut());
                    let agreement = *agreement;
                    let suspects: Vec<Suspect> = seen
                        .iter()
                        .zip(state.party.peers())
                        .filter(|(digest, _)| **digest != agreement)
                        .map(|(_, peer)| Suspect::Holder(peer))
                        .collect();
                    match suspects.as_slice() {
                        [] => {}
                        // One peer stands alone: it, or the matcher that sent it other sums.
                        [one] => return Err(HolderError::SumsDiffer { suspects: vec![Suspect::Matcher, *one] }),
                        _ => return Err(HolderError::SumsDiffer { suspects: vec![Suspect::Matcher] }),
                    }
                    let width = state.parameters.decision_bits;
                    let circuit = decision_circuit(width, &Lanes::ones(shares.len()), question(&self.asked.decision));
                    let seeds = self.seeds()?;
                    let seeds = PairwiseSeeds { own: seeds.own.duplicate(), next: seeds.next.duplicate() };
                    let run = Run::start(state, &mut self.channel, &seeds, circuit, shares, DECISION)?;
                    self.phase = Phase::Decision { run };
                }
                Phase::Decision { run } => match run.advance(state, &mut self.channel)? {
                    Running::Waiting => return Ok(()),
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
                        run.open(state, &mut self.channel)?;
                    }
                    Running::Done(opened) => {
                        self.answer(state, &opened)?;
                        self.phase = Phase::Finished;
                        return Ok(());
                    }
                },
                Phase::Computing(_) | Phase::Finished => return Ok(()),
            }
        }
    }

    fn start_norm_check(&mut self, state: &mut State, seeds: &PairwiseSeeds) -> Result<Run, HolderError> {
        let opened = self.opened.as_ref().ok_or(HolderError::OutOfTurn(self.channel.session))?;
        let parts = [(opened.own.expose().as_slice(), opened.next.expose().as_slice())];
        let dimension = self.associated.dimension.get();
        let bounds = NormBounds::unit(COORDINATE_SCALE, dimension);
        let inputs = norm_inputs(state.party, &parts, &bounds);
        Run::start(state, &mut self.channel, seeds, norm_circuit(1, dimension), inputs, NORM)
    }

    /// Computes both parts of the probe for every block width in the scope and sends them where they are missing.
    fn recrypt(&mut self, state: &mut State) -> Result<Vec<OwnProbe>, HolderError> {
        let out_of_turn = HolderError::OutOfTurn(self.channel.session);
        let (Some(opened), Some(secret), Some(agreed)) = (self.opened.take(), &self.probe_secret, &self.agreed) else {
            return Err(out_of_turn);
        };
        let (parameters, dimension, session) = (state.parameters, self.associated.dimension, self.channel.session);
        let mut shapes: Vec<ProbeShape> = Vec::new();
        for scope in self.scope.iter() {
            let layout = Layout::new(scope.group.layout.beta(), 1).map_err(|_| HolderError::BadSlots)?;
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
            let own_bytes = encode_polynomials(&parameters, &own_part);
            let next_bytes = encode_polynomials(&parameters, &next_part);
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
        for scope in self.scope.iter() {
            let live = record.live_group(scope.group.group).is_some_and(|g| g.revision == scope.group.revision);
            let mut chosen = scope.group.members.iter().filter(|m| scope.slots.binary_search(&m.slot).is_ok());
            if !live || chosen.any(|m| record.is_tombstoned(&m.digest)) {
                return Err(HolderError::RegistryChanged);
            }
        }
        Ok(())
    }

    /// Checks that the sums are named for every live group in the scope and hands out the rest: their scan check and this
    /// holder's shares of the scores.
    fn compute_shares(&mut self, state: &mut State, groups: Vec<GroupSums>) -> Result<u64, HolderError> {
        self.check_scope(state)?;
        let record = state.registry.collection(&self.associated.collection)?;
        for sums in &groups {
            let (group, revision) = (sums.group, sums.revision);
            match self.scope.iter().find(|s| s.group.group == group) {
                Some(scope) if scope.group.revision == revision => {}
                _ if record.is_revoked(group, revision) => {
                    return Err(HolderError::RevokedRevision { group, revision });
                }
                _ => return Err(HolderError::UnregisteredGroup { group }),
            }
        }
        let mut secrets: Vec<Vec<Arc<SecretParts>>> = Vec::new();
        for scope in self.scope.iter() {
            let (epoch, rank) = (scope.group.epoch, scope.group.layout.rank());
            let of_group: Result<Vec<_>, _> =
                (0..rank).map(|body| state.gallery_secret(&self.associated.collection, epoch, body)).collect();
            secrets.push(of_group?);
        }
        let session = self.channel.session;
        let probe_secret = self.probe_secret.take().ok_or(HolderError::OutOfTurn(session))?;
        let sharing = Sharing {
            party: state.party,
            parameters: state.parameters,
            ring: Arc::clone(&state.ring),
            session,
            digest: self.digest,
            view: self.view,
            threshold: self.asked.threshold,
            scope: Arc::clone(&self.scope),
            probes: std::mem::take(&mut self.probes),
            probe_secret,
            secrets,
            groups,
        };
        Ok(state.hand_out(session, move || Done::Shares(sharing.run())))
    }

    /// The sums have passed: tells the peers a digest of everything that the answer depends on. From here on the session is
    /// spent.
    pub(crate) fn worked(&mut self, state: &mut State, done: Done) -> Result<(), HolderError> {
        let Done::Shares(shares) = done else { return Err(HolderError::OutOfTurn(self.channel.session)) };
        let shares = shares?;
        self.check_scope(state)?;
        for peer in state.party.peers() {
            self.channel.send(state, SUMS, peer, &shares.agreement)?;
        }
        self.phase = Phase::Sums(shares);
        Ok(())
    }

    /// The ticket of the work that is out.
    pub(crate) fn computing(&self) -> Option<u64> {
        if let Phase::Computing(ticket) = self.phase { Some(ticket) } else { None }
    }

    fn answer(&mut self, state: &mut State, opened: &[Vec<Lanes>]) -> Result<(), HolderError> {
        let answer = read_answer(question(&self.asked.decision), opened)?;
        let subject = |lane: usize| self.lanes.get(lane).cloned();
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
        match &self.phase {
            Phase::Computing(_) => Vec::new(),
            Phase::Handshake(_) | Phase::Probe(_) | Phase::Sums(_) => self.channel.late(state.party),
            Phase::Norm(run) | Phase::Decision { run } => run.late(),
            Phase::AwaitingSums | Phase::Finished => vec![Suspect::Matcher],
        }
    }
}

fn question(decision: &Decision) -> Question {
    match decision {
        Decision::Verify { .. } | Decision::Exists => Question::Any,
        Decision::Matches { max_matches } => Question::List { max: *max_matches },
        Decision::Best => Question::Best,
    }
}
