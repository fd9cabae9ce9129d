//! One query: norm check, recrypt of the probe, scan check, decision, sealed reply (DESIGN 3.3, 3.5, 5).
//!
//! What is opened, and when: first whether the probe is a unit vector; then, only at a holder that has seen "fits" and whose
//! digest of everything that the answer depends on is that of both peers, the decision. A session gives one decision and its
//! secrets die with it. A query with a preselection opens a coarse stage first, under the same conditions: see
//! `preselection`. What does not depend on each other runs side by side:
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
//! The phases, and where they are: `probe` has the recrypt and the norm check, `sharing` the scan check and the shares of
//! scores, which are computed away from the session, `preselection` the coarse stage.
//!
//! Who sees what: the matcher gets the probe's bodies under the session's secret s_0, replies it cannot read, and after a
//! coarse stage the groups that hold candidates.
//! Holders get the probe's bodies (they are ciphertexts) and shares of scores that are uniform; the outcome is theirs to
//! know, because budgets and the log need it. Nobody gets a score.

use std::collections::BTreeMap;
use std::sync::Arc;

use veilmatch_domain::{
    Decision, Epoch, GroupId, Outcome, Party, Purpose, Query as Asked, Revision, Role, SchemeName, SubjectId, Suspect,
    TemplateDigest,
};
use veilmatch_glwe::{Evaluation, FromHolder, GroupSums, ProbeCiphertext, ProbeShape, Stage};
use veilmatch_mpc::{Answer, PairwiseSeeds, Question, read_answer};
use veilmatch_sealed::{Associated, SealedTemplate, seal_reply};
use veilmatch_secret::{Counter, Digest, Label, Secret, Seed};
use veilmatch_threshold::KeyShare;

use crate::HolderError;
use crate::admission::REQUEST_SECONDS;
use crate::audit::AuditEvent;
use crate::handshake::{Agreed, Handshake, SharedParts};
use crate::keys::SecretParts;
use crate::ledger::Asking;
use crate::registry::{Scope, check_dimension, check_lifetime, check_model};
use crate::run::{Run, Running, Wanted};
use crate::state::{Channel, State};
use crate::unseal::OpenedTemplate;
use crate::work::Done;

mod evaluation;
mod preselection;
mod probe;
mod sharing;

use evaluation::Opening;
pub(crate) use evaluation::{Contributed, Products};
use probe::{Norm, OwnProbe, ProbeNews};
pub(crate) use sharing::Shares;
use sharing::{Probe, Sharing};

// The norm check of one probe takes far fewer steps than there are below this one.
const PROBE: u32 = 1 << 10;
const SUMS: u32 = PROBE + 1;
const FITS: u32 = PROBE + 2;
const COARSE_SUMS: u32 = PROBE + 3;
const DECISION: u32 = PROBE + 16;
// A decision takes far fewer steps than there are below this one.
const COARSE: u32 = 1 << 16;

enum Phase {
    Handshake(Handshake),
    Probe(Vec<OwnProbe>),
    AwaitingSums,
    /// The sums are being checked.
    Computing(u64),
    /// Scheme `paillier`: what the evaluators computed is masked and decrypted.
    Opening(Box<Opening>),
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
    /// What is compared; once there are candidates, their groups alone.
    scope: Arc<Scope>,
    /// The registry's view that the scope was taken from.
    view: Digest,
    /// Which sums are waited for or decided on.
    stage: Stage,
    /// What the coarse stage left for the one that finishes, lane by lane of the scope.
    coarse: Option<Secret<Vec<u32>>>,
    agreed: Option<Agreed>,
    probe_secret: Option<Arc<SecretParts>>,
    probes: BTreeMap<ProbeShape, Arc<ProbeCiphertext>>,
    early_sums: Option<Vec<GroupSums>>,
    /// This holder's share of the key, if the collection is under the scheme `paillier`.
    share: Option<Arc<KeyShare>>,
    early_evaluations: Option<Vec<Evaluation>>,
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
        check_model(associated.template_version, Some(policy))?;
        let (nonce, expires) = (associated.nonce, associated.expires);
        // A preselection is an opening of its own.
        let openings = 1 + u32::from(asked.preselection.is_some());
        let asking =
            Asking { client: client.clone(), collection: collection.clone(), subject, nonce, expires, openings };
        state.ledger.check(policy, &asking, under_way, state.now)?;
        let window_seconds = policy.budgets.window_seconds;
        let share = match policy.scheme {
            SchemeName::Glwe => None,
            SchemeName::Paillier => Some(state.paillier_share()?),
        };

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
        let stage = preselection::first_stage(&asked, associated.dimension, &scope)?;
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
            stage,
            coarse: None,
            agreed: None,
            probe_secret: None,
            probes: BTreeMap::new(),
            early_sums: None,
            share,
            early_evaluations: None,
            norm: Norm::Ahead,
            phase: Phase::Handshake(handshake),
        })
    }

    fn seeds(&self) -> Result<&PairwiseSeeds, HolderError> {
        self.agreed.as_ref().map(|a| &a.seeds).ok_or(HolderError::OutOfTurn(self.channel.session))
    }

    /// Takes the matcher's sums; once for each stage.
    pub(crate) fn sums(&mut self, state: &mut State, stage: Stage, groups: Vec<GroupSums>) -> Result<(), HolderError> {
        if stage != self.stage {
            return Err(HolderError::OtherStage(self.channel.session));
        }
        if self.share.is_some() {
            return Err(HolderError::OutOfTurn(self.channel.session));
        }
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
                    if self.share.is_some() {
                        self.agreed = Some(agreed);
                        self.share_probe(state)?;
                        self.phase = Phase::AwaitingSums;
                        continue;
                    }
                    self.probe_secret = Some(Arc::new(SecretParts::of_probe(&state.ring, &agreed.seeds)));
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
                Phase::AwaitingSums if self.share.is_some() => {
                    let Some(groups) = self.early_evaluations.take() else { return Ok(()) };
                    let opening = self.multiply(state, groups)?;
                    self.phase = Phase::Opening(Box::new(opening));
                }
                Phase::Opening(_) => return self.advance_opening(state),
                Phase::AwaitingSums => {
                    let Some(groups) = self.early_sums.take() else { return Ok(()) };
                    let ticket = self.compute_shares(state, groups)?;
                    self.phase = Phase::Computing(ticket);
                }
                Phase::Decision(deciding) => {
                    let sums = sums_step(self.stage);
                    if !deciding.agreed
                        && let Some(seen) = self.channel.take_both::<Digest>(state.party, sums)?
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
                            let groups = self.scope.groups.len() as u32;
                            let of = (&self.associated, &self.asked, self.window_seconds);
                            let event = opening(of, self.stage, groups, stage as u8);
                            if stage == 0
                                && let Some(asking) = state.asking.get_mut(&self.channel.session)
                            {
                                asking.openings = asking.openings.saturating_sub(1);
                            }
                            state.log(self.channel.session, event);
                            deciding.run.open(state, &mut self.channel)?;
                        }
                        Running::Done(opened) if self.stage == Stage::Coarse => self.preselected(state, &opened)?,
                        Running::Done(opened) => {
                            let answer = read_answer(question(&self.asked.decision), &opened)?;
                            self.answer(state, answer)?;
                            return Ok(());
                        }
                    }
                }
                Phase::Computing(_) | Phase::Finished => return Ok(()),
            }
        }
    }

    /// A group that was rebuilt, or a member that was erased, since the session began must not be served any more.
    fn check_scope(&self, state: &State) -> Result<(), HolderError> {
        let record = state.registry.collection(&self.associated.collection)?;
        if record.still_serves(&self.scope) { Ok(()) } else { Err(HolderError::RegistryChanged) }
    }

    /// Whether what the matcher names are live groups in the scope.
    fn check_groups(
        &self,
        state: &State,
        named: impl IntoIterator<Item = (GroupId, Revision)>,
    ) -> Result<(), HolderError> {
        let record = state.registry.collection(&self.associated.collection)?;
        for (group, revision) in named {
            let place = self.scope.groups.binary_search_by_key(&group, |served| served.group.group);
            match place.ok().and_then(|place| self.scope.groups.get(place)) {
                Some(served) if served.group.revision == revision => {}
                _ if record.is_revoked(group, revision) => {
                    return Err(HolderError::RevokedRevision { group, revision });
                }
                _ => return Err(HolderError::UnregisteredGroup { group }),
            }
        }
        Ok(())
    }

    /// Checks that the sums are named for live groups in the scope and hands out the rest: their scan check and this holder's
    /// shares of the scores.
    fn compute_shares(&mut self, state: &mut State, groups: Vec<GroupSums>) -> Result<u64, HolderError> {
        self.check_scope(state)?;
        let collection = &self.associated.collection;
        self.check_groups(state, groups.iter().map(|sums| (sums.group, sums.revision)))?;
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
        for (shape, ciphertext) in &self.probes {
            let ciphertext = Arc::clone(ciphertext);
            let beta = shape.layout.beta();
            let in_scope = self.scope.groups.iter().filter(|served| served.group.layout.beta() == beta).count();
            // All groups of the scope are live, so if they are as many as the live ones they are the same.
            let (check, live) = record.check_sum(&state.ring, beta);
            probes.insert(beta, Probe { ciphertext, check: (in_scope == live).then_some(check) });
        }
        let session = self.channel.session;
        let probe_secret = self.probe_secret.as_ref().map(Arc::clone).ok_or(HolderError::OutOfTurn(session))?;
        if self.stage != Stage::Coarse {
            // Nothing else is computed from them.
            self.probe_secret = None;
            self.probes.clear();
        }
        let coarse_dimensions = self.asked.preselection.map_or(0, |asked| asked.dimensions.into());
        let threshold = match (self.stage, self.asked.preselection) {
            (Stage::Coarse, Some(asked)) => asked.threshold,
            _ => self.asked.threshold,
        };
        let sharing = Sharing {
            stage: self.stage,
            coarse_dimensions,
            coarse: self.coarse.take(),
            party: state.party,
            parameters: state.parameters,
            ring: Arc::clone(&state.ring),
            room: Arc::clone(&state.mask_room),
            session,
            digest: self.digest,
            view: self.view,
            threshold,
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
        let shares = match done {
            Done::Shares(shares) => shares?,
            Done::Multiplied(products) => return self.commit_masks(state, *products?),
            Done::Contributed(contributed) => return self.contribute(state, *contributed?),
            _ => return Err(HolderError::OutOfTurn(self.channel.session)),
        };
        let Shares { mut shares, coarse, agreement } = shares;
        self.check_scope(state)?;
        self.coarse = coarse;
        // Under `paillier` the digests were compared before anything was decrypted.
        let agreed = self.share.is_some();
        if !agreed {
            for peer in state.party.peers() {
                self.channel.send(state, sums_step(self.stage), peer, &agreement)?;
            }
        }
        let shares = std::mem::take(shares.expose_mut());
        let (wanted, session, first_step) = match (self.stage, self.asked.preselection) {
            (Stage::Coarse, Some(asked)) => self.coarse_run(state.parameters.decision_bits, &asked),
            _ => {
                let (width, question) = (state.parameters.decision_bits, question(&self.asked.decision));
                (Wanted::Decision { width, lanes: shares.len(), question }, self.channel.session, DECISION)
            }
        };
        let seeds = self.seeds()?;
        let seeds = PairwiseSeeds { own: seeds.own.duplicate(), next: seeds.next.duplicate() };
        let run = Run::start_as(session, state, &mut self.channel, &seeds, wanted, shares, first_step)?;
        self.phase = Phase::Decision(Deciding { run, agreement, agreed });
        Ok(())
    }

    /// The ticket of the work that is out.
    pub(crate) fn computing(&self) -> Option<u64> {
        match &self.phase {
            Phase::Computing(ticket) => Some(*ticket),
            Phase::Opening(opening) => opening.computing(),
            _ => None,
        }
    }

    /// Logs the outcome and seals it for the client. The session is over.
    fn answer(&mut self, state: &mut State, answer: Answer) -> Result<(), HolderError> {
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
        self.phase = Phase::Finished;
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
            Phase::Opening(opening) => opening.late(self, state.party),
            Phase::Handshake(_) => self.channel.late(state.party),
            Phase::Probe(_) => self.channel.late_at(state.party, PROBE),
            Phase::Decision(deciding) if !deciding.agreed => self.channel.late_at(state.party, sums_step(self.stage)),
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

/// What is logged before a part of a stage is opened.
fn opening(
    (associated, asked, window_seconds): (&Associated, &Asked, u32),
    of: Stage,
    groups: u32,
    stage: u8,
) -> AuditEvent {
    let (client, collection) = (associated.client.clone(), associated.collection.clone());
    let query = asked.clone();
    match of {
        Stage::Coarse => AuditEvent::Preselection { client, collection, query, groups, stage, window_seconds },
        Stage::Whole | Stage::Rest => AuditEvent::Opening { client, collection, query, stage, window_seconds },
    }
}

/// The step at which digests of a stage's sums are told.
fn sums_step(stage: Stage) -> u32 {
    if stage == Stage::Coarse { COARSE_SUMS } else { SUMS }
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
