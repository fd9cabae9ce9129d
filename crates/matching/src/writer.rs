//! What changes the index: enrol, erase, rebuild. One at a time.
//!
//! Enrol: admit at the holders, decide, commit, store, build groups, decide and commit each. Erase: decide, tombstone at
//! the holders, remove the sealed template, rebuild the group that held it. A failure leaves the index and the holders'
//! registries as they were before the step that failed; templates that are admitted but not indexed are indexed with
//! the next change or by maintenance.
//!
//! The holders must not come apart: a holder that has sent its verdicts or its parts has promised to commit, so once
//! the matcher has said `Commit` nothing ends the session but the acknowledgement of all three. What is not
//! acknowledged in time is said again; the holders take a repetition for what it is. The same goes for an erasure. So
//! that a crash of the matcher does not forget what was said, the decision is stored first (an [`Intent`]), and told
//! again by the next life.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use veilmatch_domain::{CollectionId, GroupId, Party, SessionId, SubjectId, Suspect, TemplateDigest, Timestamp};
use veilmatch_gallery::{BuildPlan, Change, GroupMember, GroupRecord, Intent, IntentId};
use veilmatch_glwe::{
    BuildOrder, ClientAnswer, FromHolder, MAX_ADMISSION, Refusal, ToHolder, Verdict, admission_session,
};
use veilmatch_sealed::{SealedTemplate, SignedErasure};

use crate::MatcherError;
use crate::matcher::{Lane, RequestId, Shared};
use crate::search::{Copies, complete, file_copy, late_holders};
use crate::work::{Done, Ordered, Sum, Task, Ticket};

/// A request that changes the index.
pub(crate) enum Job {
    Enroll {
        collection: CollectionId,
        templates: Vec<Vec<u8>>,
        more_follows: bool,
    },
    Erase {
        signed: Vec<u8>,
    },
    Rebuild {
        collection: CollectionId,
        plans: Vec<BuildPlan>,
    },
    /// Index what is stored and not searchable yet.
    Index {
        collection: CollectionId,
    },
    /// A decision of an earlier life that not all holders have acknowledged.
    Resume {
        id: IntentId,
        intent: Intent,
    },
}

/// Groups that are still to be built for a request, and what its client is told in the end.
struct Agenda {
    request: RequestId,
    collection: CollectionId,
    plans: VecDeque<BuildPlan>,
    answer: ClientAnswer,
    /// Whether other erasures wait: then the rebuild is left to the last of them.
    more_erasures: bool,
    /// Whether the request's erasure is done and only the rebuild is due.
    erased: bool,
    /// How often a deadline has passed since the stage began; the client is told the second time.
    overdue: u32,
    /// When the stage began, in the driver's milliseconds, and how much longer than usual it may take.
    since: u64,
    allowance: u64,
}

/// How long maintenance waits for the rest of a bulk, after each of its batches, in milliseconds.
const MORE_FOLLOWS_MS: u64 = 2_000;

/// Deadlines that may pass before the client hears that a commit is not acknowledged.
const PATIENCE: u32 = 2;

struct Admitting {
    session: SessionId,
    /// Per template: whose, which, the bytes; `None` if it cannot be read.
    templates: Vec<Option<(SubjectId, TemplateDigest, Vec<u8>)>>,
    /// Where each stands in the client's request.
    places: Vec<usize>,
    verdicts: [Option<Vec<Verdict>>; 3],
    more_follows: bool,
}

struct Admission {
    session: SessionId,
    accepted: Vec<(SubjectId, TemplateDigest)>,
    more_follows: bool,
}

struct Erasure {
    id: IntentId,
    subject: SubjectId,
    signed: Vec<u8>,
    expires: Timestamp,
    acknowledged: [bool; 3],
    refused: [Option<Refusal>; 3],
}

struct Build {
    session: SessionId,
    record: Arc<GroupRecord>,
    replaces: Vec<GroupId>,
}

enum Stage {
    Admitting(Admitting),
    DecidingAdmission(Admission, Ticket),
    /// It takes templates away that searches may be reading.
    AdmissionAtGate(Admission),
    CommittingAdmission(Admission, [bool; 3]),
    DecidingErasure(Erasure, Ticket),
    ErasureAtGate(Erasure),
    Erasing(Erasure),
    Ordering(Ticket),
    Building {
        session: SessionId,
        order: BuildOrder,
        members: Vec<GroupMember>,
        copies: Copies,
    },
    Summing {
        session: SessionId,
        replaces: Vec<GroupId>,
        ticket: Ticket,
    },
    BuildAtGate(Build),
    CommittingBuild(Build, [bool; 3]),
}

/// The change under way.
pub(crate) struct Writer {
    agenda: Agenda,
    stage: Stage,
}

fn mark(flags: &mut [bool; 3], party: Party) -> bool {
    if let Some(flag) = flags.get_mut(party.index()) {
        *flag = true;
    }
    flags.iter().all(|f| *f)
}

fn missing(flags: &[bool; 3]) -> Vec<Party> {
    Party::ALL.into_iter().filter(|p| flags.get(p.index()) == Some(&false)).collect()
}

impl Agenda {
    fn new(shared: &Shared, request: RequestId, collection: CollectionId, answer: ClientAnswer) -> Self {
        let (since, plans) = (shared.now, VecDeque::new());
        Self {
            request,
            collection,
            plans,
            answer,
            more_erasures: false,
            erased: false,
            overdue: 0,
            since,
            allowance: 0,
        }
    }

    fn tell_client(&self, shared: &mut Shared, answer: ClientAnswer) {
        if self.overdue < PATIENCE {
            shared.answer(self.request, answer);
        }
    }

    fn begin_stage(&mut self, shared: &Shared, templates: usize) {
        self.overdue = if self.overdue < PATIENCE { 0 } else { PATIENCE };
        self.since = shared.now;
        self.allowance = (templates as u64).saturating_mul(shared.limits.write_ms_per_template);
    }
}

impl Writer {
    /// Begins a job; `None` if it is done at once. `more_erasures`: the next job is an erasure too.
    pub(crate) fn start(
        shared: &mut Shared,
        request: RequestId,
        job: Job,
        more_erasures: bool,
    ) -> Result<Option<Writer>, MatcherError> {
        match job {
            Job::Enroll { collection, templates, more_follows } => {
                Self::start_enroll(shared, request, collection, templates, more_follows)
            }
            Job::Erase { signed } => Self::start_erase(shared, request, signed, more_erasures),
            Job::Rebuild { collection, plans } => {
                let mut agenda =
                    Agenda::new(shared, request, collection, ClientAnswer::Enrolled { verdicts: Vec::new() });
                agenda.plans = plans.into();
                Ok(Self::next_build(shared, agenda))
            }
            Job::Index { collection } => {
                let mut agenda = Agenda::new(shared, request, collection, ClientAnswer::Done);
                agenda.plan_addition(shared, false)?;
                Ok(Self::next_build(shared, agenda))
            }
            Job::Resume { id, intent } => Ok(Some(Self::resume(shared, request, id, intent))),
        }
    }

    fn start_enroll(
        shared: &mut Shared,
        request: RequestId,
        collection: CollectionId,
        templates: Vec<Vec<u8>>,
        more_follows: bool,
    ) -> Result<Option<Writer>, MatcherError> {
        let index = &shared.collection(&collection)?.index;
        if templates.is_empty() || templates.len() > MAX_ADMISSION {
            return Err(MatcherError::BatchSize { found: templates.len(), allowed: MAX_ADMISSION });
        }
        // A template that is stored already was acknowledged, or would have been: the client asks again.
        let mut verdicts = Vec::with_capacity(templates.len());
        let (mut places, mut parsed, mut sent) = (Vec::new(), Vec::new(), Vec::new());
        for (place, bytes) in templates.into_iter().enumerate() {
            let read = SealedTemplate::from_bytes(&bytes).ok().and_then(|sealed| {
                let subject = sealed.associated().purpose.enrols()?;
                (sealed.associated().collection == collection).then(|| (subject.clone(), sealed.digest()))
            });
            verdicts.push(Verdict::Accepted);
            if read.as_ref().is_none_or(|(s, digest)| index.template(s).is_none_or(|t| t.digest != *digest)) {
                places.push(place);
                parsed.push(read.map(|(subject, digest)| (subject, digest, bytes.clone())));
                sent.push(bytes);
            }
        }
        let answer = ClientAnswer::Enrolled { verdicts };
        let mut agenda = Agenda::new(shared, request, collection.clone(), answer);
        if sent.is_empty() {
            agenda.plan_addition(shared, more_follows)?;
            return Ok(Self::next_build(shared, agenda));
        }
        let attempt = shared.next_attempt();
        let session = admission_session(attempt, &collection, &sent);
        agenda.begin_stage(shared, sent.len());
        shared.tell_all(Lane::Recrypt, &ToHolder::Admit { attempt, collection, templates: sent });
        let verdicts = [None, None, None];
        let admitting = Admitting { session, templates: parsed, places, verdicts, more_follows };
        Ok(Some(Writer { agenda, stage: Stage::Admitting(admitting) }))
    }

    fn start_erase(
        shared: &mut Shared,
        request: RequestId,
        signed: Vec<u8>,
        more_erasures: bool,
    ) -> Result<Option<Writer>, MatcherError> {
        let erasure = SignedErasure::from_bytes(&signed)?;
        let id = IntentId(erasure.digest().0);
        if shared.erased.contains_key(&id) {
            let complete = shared.collection(&erasure.collection)?.index.overdue().is_empty();
            shared.answer(request, ClientAnswer::Erased { complete });
            return Ok(None);
        }
        let index = &shared.collection(&erasure.collection)?.index;
        let Some(stored) = index.template(&erasure.subject) else {
            return Err(MatcherError::UnknownSubject(erasure.subject));
        };
        let intent = Intent::Erasure {
            collection: erasure.collection.clone(),
            subject: erasure.subject.clone(),
            digest: stored.digest,
            request: signed.clone(),
            expires: erasure.expires,
        };
        let mut agenda =
            Agenda::new(shared, request, erasure.collection.clone(), ClientAnswer::Erased { complete: true });
        agenda.more_erasures = more_erasures;
        let ticket = shared.next_ticket();
        let lazy = shared.take_lazy();
        let changes = vec![Change::Decide { id, intent, sealed: Vec::new() }];
        shared.work(Task::Save { ticket, lazy, changes });
        let erasing = Erasure::new(id, erasure.subject, signed, erasure.expires);
        Ok(Some(Writer { agenda, stage: Stage::DecidingErasure(erasing, ticket) }))
    }

    /// Takes up a decision of an earlier life: the holders are told (again).
    fn resume(shared: &mut Shared, request: RequestId, id: IntentId, intent: Intent) -> Writer {
        let session = SessionId(id.0);
        let (collection, stage) = match intent {
            Intent::Admission { collection, templates } => {
                let admission = Admission { session, accepted: templates, more_follows: false };
                let stage = admission.commit(shared, &collection);
                (collection, stage)
            }
            Intent::Build { collection, record, replaces } => {
                shared.gates.insert(collection.clone());
                (collection, Stage::BuildAtGate(Build { session, record, replaces }))
            }
            Intent::Erasure { collection, subject, request: signed, expires, .. } => {
                shared.gates.insert(collection.clone());
                (collection, Stage::ErasureAtGate(Erasure::new(id, subject, signed, expires)))
            }
        };
        Writer { agenda: Agenda::new(shared, request, collection, ClientAnswer::Done), stage }
    }

    /// Orders the next group, or answers the client if there is none.
    fn next_build(shared: &mut Shared, mut agenda: Agenda) -> Option<Writer> {
        let Some(plan) = agenda.plans.pop_front() else {
            agenda.tell_client(shared, agenda.answer.clone());
            return None;
        };
        match Self::order(shared, &mut agenda, plan) {
            Ok(ticket) => Some(Writer { agenda, stage: Stage::Ordering(ticket) }),
            Err(error) => {
                agenda.fail(shared, error.refusal());
                None
            }
        }
    }

    fn order(shared: &mut Shared, agenda: &mut Agenda, plan: BuildPlan) -> Result<Ticket, MatcherError> {
        let epoch = shared.epoch.ok_or(MatcherError::NoKeys)?;
        shared.check_public_key(&agenda.collection)?;
        let attempt = shared.next_attempt();
        let ticket = shared.next_ticket();
        let lazy = shared.take_lazy();
        let id = agenda.collection.clone();
        let index = &mut shared.collection(&id)?.index;
        let group = plan.group.unwrap_or_else(|| index.fresh_group());
        let members: Vec<GroupMember> = plan
            .members
            .into_iter()
            .filter_map(|(slot, subject)| {
                let digest = index.template(&subject)?.digest;
                Some(GroupMember { slot, subject, digest })
            })
            .collect();
        let revision = index.next_revision(group);
        agenda.begin_stage(shared, members.len());
        let order = BuildOrder {
            attempt,
            collection: id.clone(),
            group,
            revision,
            epoch,
            layout: plan.layout,
            members: Vec::new(),
            replaces: plan.replaces,
        };
        let change = Change::UseRevision { collection: id, group, revision };
        shared.work(Task::Order { ticket, lazy, change, order: Box::new(order), members });
        Ok(ticket)
    }

    /// The collection whose searches must have ended before this change goes on.
    pub(crate) fn at_gate(&self) -> Option<&CollectionId> {
        let at_gate = matches!(self.stage, Stage::AdmissionAtGate(_) | Stage::BuildAtGate(_) | Stage::ErasureAtGate(_));
        at_gate.then_some(&self.agenda.collection)
    }

    /// No search of the collection is under way: the holders are told.
    pub(crate) fn pass_gate(mut self, shared: &mut Shared) -> Option<Writer> {
        self.stage = match self.stage {
            Stage::AdmissionAtGate(admission) => {
                shared.tell_all(Lane::Recrypt, &ToHolder::Commit { session: admission.session });
                Stage::CommittingAdmission(admission, [false; 3])
            }
            Stage::BuildAtGate(build) => {
                shared.tell_all(Lane::Recrypt, &ToHolder::Commit { session: build.session });
                Stage::CommittingBuild(build, [false; 3])
            }
            Stage::ErasureAtGate(erasure) => {
                shared.tell_all(Lane::Recrypt, &ToHolder::Erase { request: erasure.signed.clone() });
                Stage::Erasing(erasure)
            }
            stage => stage,
        };
        self.agenda.since = shared.now;
        Some(self)
    }

    /// Takes the result of work on the store.
    pub(crate) fn finish(mut self, shared: &mut Shared, done: Done) -> Option<Writer> {
        match (self.stage, done) {
            (Stage::DecidingAdmission(admission, own), Done::Saved { ticket, lazy, result }) if own == ticket => {
                shared.lazy.splice(0..0, lazy).for_each(drop);
                let session = admission.session;
                match result {
                    Ok(()) => {
                        self.agenda.begin_stage(shared, 0);
                        self.stage = admission.commit(shared, &self.agenda.collection);
                        Some(self)
                    }
                    Err(error) => {
                        shared.tell_all(Lane::Recrypt, &ToHolder::Abandon { session });
                        self.agenda.fail(shared, error.refusal());
                        None
                    }
                }
            }
            (Stage::DecidingErasure(erasure, own), Done::Saved { ticket, lazy, result }) if own == ticket => {
                shared.lazy.splice(0..0, lazy).for_each(drop);
                match result {
                    Ok(()) => {
                        shared.gates.insert(self.agenda.collection.clone());
                        self.agenda.begin_stage(shared, 0);
                        self.stage = Stage::ErasureAtGate(erasure);
                        Some(self)
                    }
                    Err(error) => {
                        self.agenda.fail(shared, error.refusal());
                        None
                    }
                }
            }
            (Stage::Ordering(own), Done::Ordered { ticket, lazy, result }) if own == ticket => {
                shared.lazy.splice(0..0, lazy).for_each(drop);
                match result {
                    Ok(ordered) => {
                        let Ordered { session, order, members, bytes } = *ordered;
                        shared.tell_bytes(&Party::ALL, Lane::Recrypt, &bytes);
                        self.agenda.begin_stage(shared, members.len());
                        self.stage = Stage::Building { session, order, members, copies: Copies::default() };
                        Some(self)
                    }
                    Err(error) => {
                        self.agenda.fail(shared, error.refusal());
                        None
                    }
                }
            }
            (Stage::Summing { session, replaces, ticket: own }, Done::Summed { ticket, lazy, result })
                if own == ticket =>
            {
                shared.lazy.splice(0..0, lazy).for_each(drop);
                match result {
                    Ok(record) => {
                        shared.gates.insert(self.agenda.collection.clone());
                        self.agenda.begin_stage(shared, 0);
                        self.stage = Stage::BuildAtGate(Build { session, record, replaces });
                        Some(self)
                    }
                    Err(error) => {
                        shared.tell_all(Lane::Recrypt, &ToHolder::Abandon { session });
                        self.agenda.fail(shared, error.refusal());
                        None
                    }
                }
            }
            (stage, _) => Some(Writer { stage, ..self }),
        }
    }

    /// Takes a holder's message; `None` when the job is done.
    pub(crate) fn take(mut self, shared: &mut Shared, party: Party, message: FromHolder) -> Option<Writer> {
        let step = match (&mut self.stage, message) {
            (Stage::Admitting(a), FromHolder::Admitted { session, verdicts }) if session == a.session => {
                match a.take_verdicts(party, verdicts) {
                    Ok(None) => Ok(false),
                    Ok(Some(merged)) => return self.decide(shared, merged),
                    Err(error) => Err(error),
                }
            }
            (Stage::CommittingAdmission(a, committed), FromHolder::Committed { session }) if session == a.session => {
                Ok(mark(committed, party))
            }
            (Stage::CommittingBuild(b, committed), FromHolder::Committed { session }) if session == b.session => {
                Ok(mark(committed, party))
            }
            (Stage::Building { session: own, copies, .. }, FromHolder::GroupPart { session, part, payload })
                if session == *own =>
            {
                match file_copy(copies, party, part, payload) {
                    Ok(()) if complete(copies) => return self.add_up(shared),
                    result => result.map(|()| false),
                }
            }
            (Stage::Erasing(e), FromHolder::Erased { .. }) => Ok(mark(&mut e.acknowledged, party)),
            (Stage::Erasing(e), FromHolder::Refused { session: None, refusal }) => {
                if let Some(place) = e.refused.get_mut(party.index()) {
                    place.get_or_insert(refusal);
                }
                if let [Some(first), Some(_), Some(_)] = &e.refused {
                    // Nobody has done anything: the erasure is as if it had not been asked for.
                    let first = first.clone();
                    shared.lazy.push(Change::Withdraw { id: e.id });
                    self.give_up(shared, first);
                    return None;
                }
                Ok(false)
            }
            (stage, FromHolder::Refused { session, refusal }) if !stage.is_promised() => {
                // Refusals without a session concern whoever has one with this holder now.
                if session.is_none_or(|s| stage.session() == Some(s)) && stage.waits_for_holders() {
                    self.give_up(shared, refusal);
                    return None;
                }
                Ok(false)
            }
            _ => Ok(false),
        };
        match step {
            Ok(false) => Some(self),
            Ok(true) => self.stage_done(shared),
            Err(error) => {
                self.give_up(shared, error.refusal());
                None
            }
        }
    }

    /// All three have spoken: what all accept is decided, stored and then committed.
    fn decide(mut self, shared: &mut Shared, merged: Vec<Verdict>) -> Option<Writer> {
        let Stage::Admitting(admitting) = self.stage else { return Some(self) };
        let Admitting { session, templates, places, more_follows, .. } = admitting;
        let (mut accepted, mut sealed) = (Vec::new(), Vec::new());
        if let ClientAnswer::Enrolled { verdicts } = &mut self.agenda.answer {
            for ((verdict, template), place) in merged.into_iter().zip(templates).zip(places) {
                if let (Verdict::Accepted, Some((subject, digest, bytes))) = (&verdict, template) {
                    accepted.push((subject, digest));
                    sealed.push(bytes);
                }
                if let Some(known) = verdicts.get_mut(place) {
                    *known = verdict;
                }
            }
        }
        if accepted.is_empty() {
            shared.tell_all(Lane::Recrypt, &ToHolder::Abandon { session });
            return self.agenda.admitted(shared, more_follows);
        }
        let intent = Intent::Admission { collection: self.agenda.collection.clone(), templates: accepted.clone() };
        let changes = vec![Change::Decide { id: IntentId(session.0), intent, sealed }];
        let (ticket, lazy) = (shared.next_ticket(), shared.take_lazy());
        shared.work(Task::Save { ticket, lazy, changes });
        self.agenda.begin_stage(shared, 0);
        self.stage = Stage::DecidingAdmission(Admission { session, accepted, more_follows }, ticket);
        Some(self)
    }

    /// All copies are here: they are compared, added up, and the sum stored as decided.
    fn add_up(mut self, shared: &mut Shared) -> Option<Writer> {
        let Stage::Building { session, order, members, copies } = self.stage else { return Some(self) };
        let (dimension, packed) = match shared.collection(&self.agenda.collection) {
            Ok(collection) => (collection.description.dimension, collection.slots().is_some()),
            Err(error) => {
                self.agenda.fail(shared, error.refusal());
                return None;
            }
        };
        let (ticket, lazy) = (shared.next_ticket(), shared.take_lazy());
        let replaces = order.replaces.clone();
        let (parameters, id) = (shared.parameters, IntentId(session.0));
        let hot_dimensions = shared.hot_dimensions.of(&self.agenda.collection);
        let key = shared.evaluator.as_ref().filter(|_| packed).map(|evaluator| evaluator.key().clone());
        let sum = Sum { parameters, dimension, hot_dimensions, order, members, copies, key, id };
        shared.work(Task::Sum { ticket, lazy, sum: Box::new(sum) });
        self.agenda.begin_stage(shared, 0);
        self.stage = Stage::Summing { session, replaces, ticket };
        Some(self)
    }

    /// All three holders have committed, or acknowledged: carry the change out here and go on.
    fn stage_done(mut self, shared: &mut Shared) -> Option<Writer> {
        self.agenda.begin_stage(shared, 0);
        let Ok(collection) = shared.collection(&self.agenda.collection) else { return None };
        match self.stage {
            Stage::CommittingAdmission(admission, _) => {
                let superseded: BTreeSet<GroupId> = (admission.accepted.into_iter())
                    .filter_map(|(subject, digest)| collection.index.insert(subject, digest))
                    .collect();
                shared.lazy.push(Change::Settle { id: IntentId(admission.session.0) });
                shared.gates.remove(&self.agenda.collection);
                for group in superseded {
                    self.agenda.drop_if_empty(shared, group);
                }
                self.agenda.admitted(shared, admission.more_follows)
            }
            Stage::Erasing(erasure) => {
                let group = collection.index.remove(&erasure.subject).and_then(|t| t.group);
                shared.lazy.push(Change::Settle { id: erasure.id });
                shared.erased.insert(erasure.id, erasure.expires);
                shared.gates.remove(&self.agenda.collection);
                self.agenda.erased(shared, group)
            }
            Stage::CommittingBuild(build, _) => {
                let (group, damaged) = (build.record.packed.group, build.record.is_damaged());
                collection.index.commit(build.record, &build.replaces);
                let id = self.agenda.collection.clone();
                if damaged {
                    // Decided in an earlier life, and its file was lost since: the holders have it, so it is built again.
                    collection.index.must_rebuild(group);
                }
                shared.tell_twin_what_is_live(&id);
                shared.succeeded = true;
                shared.lazy.push(Change::Settle { id: IntentId(build.session.0) });
                shared.gates.remove(&self.agenda.collection);
                self.agenda.rebuilt(shared);
                Self::next_build(shared, self.agenda)
            }
            stage => Some(Writer { stage, ..self }),
        }
    }

    /// Ends the job without effect beyond what is committed, and tells the client why.
    fn give_up(self, shared: &mut Shared, refusal: Refusal) {
        if let Some(session) = self.stage.session() {
            shared.tell_all(Lane::Recrypt, &ToHolder::Abandon { session });
        }
        shared.gates.remove(&self.agenda.collection);
        self.agenda.fail(shared, refusal);
    }

    /// A holder cannot be reached any more.
    pub(crate) fn lose(self, shared: &mut Shared, error: &MatcherError) -> Option<Writer> {
        if self.stage.is_promised() || !self.stage.waits_for_holders() {
            return Some(self);
        }
        self.give_up(shared, error.refusal());
        None
    }

    /// A holder has come back: what it may have missed is told again.
    pub(crate) fn say_again(&mut self, shared: &mut Shared, party: Party) {
        if let Some(message) = self.promise()
            && self.late().contains(&Suspect::Holder(party))
        {
            shared.tell(&[party], Lane::Recrypt, &message);
        }
    }

    /// What all three holders must acknowledge.
    fn promise(&self) -> Option<ToHolder> {
        match &self.stage {
            Stage::CommittingAdmission(Admission { session, .. }, _)
            | Stage::CommittingBuild(Build { session, .. }, _) => Some(ToHolder::Commit { session: *session }),
            Stage::Erasing(erasure) => Some(ToHolder::Erase { request: erasure.signed.clone() }),
            _ => None,
        }
    }

    pub(crate) fn is_promised(&self) -> bool {
        self.stage.is_promised()
    }

    /// Whether the stage has lasted longer than it may. What the matcher does itself has no deadline.
    pub(crate) fn is_overdue(&self, now: u64, write_ms: u64) -> bool {
        let waits = self.stage.waits_for_holders();
        waits && now.saturating_sub(self.agenda.since) >= write_ms.saturating_add(self.agenda.allowance)
    }

    /// A deadline has passed: says again what must be acknowledged by all three, gives up anything else.
    pub(crate) fn expire(mut self, shared: &mut Shared) -> Option<Writer> {
        if !self.stage.waits_for_holders() {
            return Some(self);
        }
        let late = self.late();
        let refusal = MatcherError::TimedOut(late.clone()).refusal();
        let Some(again) = self.promise() else {
            self.give_up(shared, refusal);
            return None;
        };
        let silent: Vec<Party> = Party::ALL.into_iter().filter(|p| late.contains(&Suspect::Holder(*p))).collect();
        shared.tell(&silent, Lane::Recrypt, &again);
        self.agenda.since = shared.now;
        if self.agenda.overdue + 1 == PATIENCE {
            // A holder that refuses an erasure which another has carried out says more than its silence.
            let refused = match &self.stage {
                Stage::Erasing(e) => e.refused.iter().flatten().next().cloned(),
                _ => None,
            };
            self.agenda.tell_client(shared, ClientAnswer::Refused(refused.unwrap_or(refusal)));
        }
        self.agenda.overdue = (self.agenda.overdue + 1).min(PATIENCE);
        Some(self)
    }

    /// Whose message is missing.
    pub(crate) fn late(&self) -> Vec<Suspect> {
        let late: Vec<Party> = match &self.stage {
            Stage::Admitting(a) => {
                Party::ALL.into_iter().filter(|p| a.verdicts.get(p.index()).is_some_and(Option::is_none)).collect()
            }
            Stage::CommittingAdmission(_, committed) | Stage::CommittingBuild(_, committed) => missing(committed),
            Stage::Erasing(e) => missing(&e.acknowledged),
            Stage::Building { copies, .. } => late_holders(copies).into_iter().collect(),
            _ => Vec::new(),
        };
        late.into_iter().map(Suspect::Holder).collect()
    }
}

impl Agenda {
    /// The templates of the request are stored, as far as they were accepted.
    fn admitted(mut self, shared: &mut Shared, more_follows: bool) -> Option<Writer> {
        if let Err(error) = self.plan_addition(shared, more_follows) {
            self.fail(shared, error.refusal());
            return None;
        }
        if more_follows && !self.plans.is_empty() {
            // The rest of the bulk need not wait for groups that are built on the way. If one fails, its members are indexed
            // later.
            self.tell_client(shared, self.answer.clone());
            self.overdue = PATIENCE;
        }
        Writer::next_build(shared, self)
    }

    /// Plans groups for all that is stored and not indexed, and for groups that carry erased members; full groups alone if
    /// more templates follow.
    fn plan_addition(&mut self, shared: &mut Shared, more_follows: bool) -> Result<(), MatcherError> {
        let (parameters, now) = (shared.parameters, shared.now);
        let collection = shared.collection(&self.collection)?;
        collection.expecting = if more_follows { now.saturating_add(MORE_FOLLOWS_MS) } else { 0 };
        let planner = collection.planner(parameters);
        self.plans = planner.addition(more_follows).into();
        if !more_follows {
            // A plan that builds a group anew, alone or within another, leaves out whom it must.
            let built = |plan: &BuildPlan| plan.replaces.iter().copied().chain(plan.group).collect::<Vec<_>>();
            let taken: Vec<GroupId> = self.plans.iter().flat_map(built).collect();
            let late = collection.index.overdue().iter().filter(|g| !taken.contains(g));
            self.plans.extend(late.filter_map(|group| planner.rebuild(*group)));
        }
        Ok(())
    }

    /// Drops a group if nobody is left in it. The holders have done the same.
    fn drop_if_empty(&self, shared: &mut Shared, group: GroupId) -> bool {
        let parameters = shared.parameters;
        let Ok(collection) = shared.collection(&self.collection) else { return false };
        if collection.planner(parameters).rebuild(group).is_some() {
            return false;
        }
        collection.index.drop_group(group);
        shared.tell_twin_what_is_live(&self.collection);
        let collection = self.collection.clone();
        shared.lazy.push(Change::DropGroup { collection, group });
        true
    }

    /// A subject's template is gone from the store: its group is rebuilt, or dropped if nobody else is in it.
    fn erased(mut self, shared: &mut Shared, group: Option<GroupId>) -> Option<Writer> {
        self.erased = true;
        let parameters = shared.parameters;
        if group.is_some_and(|group| self.drop_if_empty(shared, group)) {
            // Nothing is left to rebuild.
        } else if group.is_some() && self.more_erasures && self.overdue < PATIENCE {
            shared.rebuild_waiters.push((self.request, self.collection));
            return None;
        } else if let Ok(collection) = shared.collection(&self.collection) {
            let planner = collection.planner(parameters);
            self.plans = collection.index.overdue().iter().filter_map(|group| planner.rebuild(*group)).collect();
        }
        Writer::next_build(shared, self)
    }

    /// Answers the erasures that waited for a rebuild, once no group carries an erased member.
    fn rebuilt(&self, shared: &mut Shared) {
        let late = shared.collection(&self.collection).is_ok_and(|c| !c.index.overdue().is_empty());
        if !late {
            for request in shared.take_rebuild_waiters(&self.collection) {
                shared.answer(request, ClientAnswer::Erased { complete: true });
            }
        }
    }

    /// Tells the client why the job ends here. An erasure that is done stays done; only its rebuild is still due.
    fn fail(&self, shared: &mut Shared, refusal: Refusal) {
        for request in shared.take_rebuild_waiters(&self.collection) {
            shared.answer(request, ClientAnswer::Erased { complete: false });
        }
        let answer =
            if self.erased { ClientAnswer::Erased { complete: false } } else { ClientAnswer::Refused(refusal) };
        self.tell_client(shared, answer);
    }
}

impl Admission {
    /// It is decided: the holders are told, after the searches under way if it supersedes templates that they may be reading.
    fn commit(self, shared: &mut Shared, collection: &CollectionId) -> Stage {
        let stored = shared.collection(collection).ok().map(|collection| &collection.index);
        let supersedes = stored.is_some_and(|index| {
            self.accepted.iter().any(|(subject, digest)| index.template(subject).is_some_and(|t| t.digest != *digest))
        });
        if supersedes {
            shared.gates.insert(collection.clone());
            return Stage::AdmissionAtGate(self);
        }
        shared.tell_all(Lane::Recrypt, &ToHolder::Commit { session: self.session });
        Stage::CommittingAdmission(self, [false; 3])
    }
}

impl Erasure {
    fn new(id: IntentId, subject: SubjectId, signed: Vec<u8>, expires: Timestamp) -> Self {
        Self { id, subject, signed, expires, acknowledged: [false; 3], refused: [None, None, None] }
    }
}

impl Stage {
    fn session(&self) -> Option<SessionId> {
        match self {
            Stage::Admitting(Admitting { session, .. })
            | Stage::DecidingAdmission(Admission { session, .. }, _)
            | Stage::AdmissionAtGate(Admission { session, .. })
            | Stage::CommittingAdmission(Admission { session, .. }, _)
            | Stage::Building { session, .. }
            | Stage::Summing { session, .. }
            | Stage::BuildAtGate(Build { session, .. })
            | Stage::CommittingBuild(Build { session, .. }, _) => Some(*session),
            Stage::DecidingErasure(..) | Stage::ErasureAtGate(_) | Stage::Erasing(_) | Stage::Ordering(_) => None,
        }
    }

    /// Whether the decision is stored: there is no way back.
    fn is_promised(&self) -> bool {
        matches!(
            self,
            Stage::AdmissionAtGate(_)
                | Stage::CommittingAdmission(..)
                | Stage::ErasureAtGate(_)
                | Stage::Erasing(_)
                | Stage::BuildAtGate(_)
                | Stage::CommittingBuild(..)
        )
    }

    /// Whether the next step is a holder's, not the matcher's own.
    fn waits_for_holders(&self) -> bool {
        matches!(
            self,
            Stage::Admitting(_)
                | Stage::CommittingAdmission(..)
                | Stage::Erasing(_)
                | Stage::Building { .. }
                | Stage::CommittingBuild(..)
        )
    }
}

impl Admitting {
    /// Once all three have spoken: one verdict per template.
    fn take_verdicts(&mut self, party: Party, verdicts: Vec<Verdict>) -> Result<Option<Vec<Verdict>>, MatcherError> {
        if verdicts.len() != self.templates.len() {
            return Err(MatcherError::MalformedAnswer(party));
        }
        let place = self.verdicts.get_mut(party.index()).ok_or(MatcherError::MalformedAnswer(party))?;
        if place.replace(verdicts).is_some() {
            return Err(MatcherError::MalformedAnswer(party));
        }
        let [Some(first), Some(second), Some(third)] = &self.verdicts else { return Ok(None) };
        let mut merged = Vec::with_capacity(first.len());
        for ((a, b), c) in first.iter().zip(second).zip(third) {
            let accepts = [a, b, c].map(|v| matches!(v, Verdict::Accepted));
            let accepted = accepts.iter().filter(|a| **a).count();
            match accepted {
                3 => merged.push(Verdict::Accepted),
                // The holders vote before they check norms, so all refuse what one refuses. The reason that says most
                // is the one that does not merely repeat another holder's vote.
                0 => {
                    let own_reason = |v: &&&Verdict| matches!(v, Verdict::Refused(r) if r.code != "refused-by-peer");
                    let reason = [a, b, c].iter().find(own_reason).map_or(a, |v| *v);
                    merged.push(reason.clone());
                }
                _ => {
                    let alone = Party::ALL.into_iter().zip(accepts).find(|(_, accept)| *accept == (accepted == 1));
                    return Err(MatcherError::VerdictsDiffer(alone.map_or(party, |(odd, _)| odd)));
                }
            }
        }
        Ok(Some(merged))
    }
}
