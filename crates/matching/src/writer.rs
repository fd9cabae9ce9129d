//! What changes the index: enrol, erase, rebuild. One at a time.
//!
//! Enrol: admit at the holders, commit, store, build groups, commit each. Erase: tombstone at the holders, remove the
//! sealed template, rebuild the group that held it. A failure leaves the index and the holders' registries as they
//! were before the step that failed; templates that are admitted but not indexed are indexed with the next change.
//!
//! The holders must not come apart: a holder that has sent its verdicts or its parts has promised to commit, so once
//! the matcher has said `Commit` nothing ends the session but the acknowledgement of all three. What is not
//! acknowledged in time is said again; the holders take a repetition for what it is. The same goes for an erasure.

use std::collections::VecDeque;
use std::sync::Arc;

use veilmatch_domain::{CollectionId, GroupId, Party, Purpose, SessionId, SubjectId, Suspect, TemplateDigest};
use veilmatch_gallery::{BuildPlan, GroupMember, GroupRecord, plan_addition, plan_rebuild};
use veilmatch_glwe::{
    BuildOrder, ClientAnswer, FromHolder, MAX_ADMISSION, Member, PackedGroup, PartPayload, Refusal, ToHolder, Verdict,
    admission_session, build_session, sum_parts,
};
use veilmatch_sealed::{SealedTemplate, SignedErasure};

use crate::MatcherError;
use crate::matcher::{RequestId, Shared};
use crate::search::{borrowed, complete, file_copy, late_holders};

/// A request that changes the index.
pub(crate) enum Job {
    Enroll { collection: CollectionId, templates: Vec<Vec<u8>>, more_follows: bool },
    Erase { signed: Vec<u8> },
    Rebuild { collection: CollectionId, plans: Vec<BuildPlan> },
}

/// Groups that are still to be built for a request, and what its client is told in the end.
struct Agenda {
    request: RequestId,
    collection: CollectionId,
    plans: VecDeque<BuildPlan>,
    answer: ClientAnswer,
    /// How often a deadline has passed since the stage began; the client is told the second time.
    overdue: u32,
}

impl Agenda {
    fn new(request: RequestId, collection: CollectionId, plans: VecDeque<BuildPlan>, answer: ClientAnswer) -> Self {
        Self { request, collection, plans, answer, overdue: 0 }
    }

    fn tell_client(&self, shared: &mut Shared, answer: &ClientAnswer) {
        if self.overdue < PATIENCE {
            shared.answer(self.request, answer);
        }
    }
}

/// Deadlines that may pass before the client hears that a commit is not acknowledged.
const PATIENCE: u32 = 2;

struct Admitting {
    session: SessionId,
    templates: Vec<Option<(SubjectId, TemplateDigest, Vec<u8>)>>,
    verdicts: [Option<Vec<Verdict>>; 3],
    committing: bool,
    committed: [bool; 3],
    more_follows: bool,
}

struct Erasing {
    subject: SubjectId,
    signed: Vec<u8>,
    acknowledged: [bool; 3],
    refused: [Option<Refusal>; 3],
}

struct Building {
    session: SessionId,
    order: BuildOrder,
    members: Vec<(u32, SubjectId)>,
    copies: [(Option<PartPayload>, Option<PartPayload>); 3],
    bodies: Option<Vec<u32>>,
    committed: [bool; 3],
}

enum Stage {
    Admitting(Admitting),
    Erasing(Erasing),
    Building(Box<Building>),
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

impl Writer {
    /// Begins a job; `None` if it is done at once.
    pub(crate) fn start(shared: &mut Shared, request: RequestId, job: Job) -> Result<Option<Writer>, MatcherError> {
        match job {
            Job::Enroll { collection, templates, more_follows } => {
                shared.collection(&collection)?;
                if templates.is_empty() || templates.len() > MAX_ADMISSION {
                    return Err(MatcherError::BatchSize { found: templates.len(), allowed: MAX_ADMISSION });
                }
                let attempt = shared.next_attempt();
                let session = admission_session(attempt, &collection, &templates);
                let parsed = templates
                    .iter()
                    .map(|bytes| {
                        let sealed = SealedTemplate::from_bytes(bytes).ok()?;
                        let Purpose::Enrol { subject } = &sealed.associated().purpose else { return None };
                        Some((subject.clone(), sealed.digest(), bytes.clone()))
                    })
                    .collect();
                shared.tell_all(&ToHolder::Admit { attempt, collection: collection.clone(), templates });
                let admitting = Admitting {
                    session,
                    templates: parsed,
                    verdicts: [None, None, None],
                    committing: false,
                    committed: [false; 3],
                    more_follows,
                };
                let answer = ClientAnswer::Enrolled { verdicts: Vec::new() };
                let agenda = Agenda::new(request, collection, VecDeque::new(), answer);
                Ok(Some(Writer { agenda, stage: Stage::Admitting(admitting) }))
            }
            Job::Erase { signed } => {
                let erasure = SignedErasure::from_bytes(&signed)?;
                let collection = shared.collection(&erasure.collection)?;
                if collection.index.template(&erasure.subject).is_none() {
                    return Err(MatcherError::UnknownSubject(erasure.subject));
                }
                shared.tell_all(&ToHolder::Erase { request: signed.clone() });
                let agenda = Agenda::new(request, erasure.collection, VecDeque::new(), ClientAnswer::Erased);
                let erasing =
                    Erasing { subject: erasure.subject, signed, acknowledged: [false; 3], refused: [None, None, None] };
                Ok(Some(Writer { agenda, stage: Stage::Erasing(erasing) }))
            }
            Job::Rebuild { collection, plans } => {
                let answer = ClientAnswer::Enrolled { verdicts: Vec::new() };
                let agenda = Agenda::new(request, collection, plans.into(), answer);
                Ok(Self::next_build(shared, agenda))
            }
        }
    }

    /// Orders the next group, or answers the client if there is none.
    fn next_build(shared: &mut Shared, mut agenda: Agenda) -> Option<Writer> {
        let Some(plan) = agenda.plans.pop_front() else {
            agenda.tell_client(shared, &agenda.answer);
            return None;
        };
        match Self::order(shared, &agenda.collection, plan) {
            Ok(building) => Some(Writer { agenda, stage: Stage::Building(Box::new(building)) }),
            Err(error) => {
                agenda.tell_client(shared, &ClientAnswer::Refused(error.refusal()));
                None
            }
        }
    }

    fn order(shared: &mut Shared, id: &CollectionId, plan: BuildPlan) -> Result<Building, MatcherError> {
        let epoch = shared.epoch.ok_or(MatcherError::NoKeys)?;
        let attempt = shared.next_attempt();
        let collection = shared.collection(id)?;
        let group = plan.group.unwrap_or_else(|| collection.index.fresh_group());
        let members = plan
            .members
            .iter()
            .filter_map(|(slot, subject)| {
                let sealed = collection.sealed.get(subject)?.clone();
                Some(Member { slot: *slot, sealed })
            })
            .collect();
        let order = BuildOrder {
            attempt,
            collection: id.clone(),
            group,
            revision: collection.index.next_revision(group),
            epoch,
            layout: plan.layout,
            members,
            replaces: plan.replaces,
        };
        let session = build_session(&order);
        shared.tell_all(&ToHolder::Build(order.clone()));
        let order = BuildOrder { members: Vec::new(), ..order };
        Ok(Building {
            session,
            order,
            members: plan.members,
            copies: Default::default(),
            bodies: None,
            committed: [false; 3],
        })
    }

    /// Takes a holder's message; `None` when the job is done.
    pub(crate) fn take(mut self, shared: &mut Shared, party: Party, message: FromHolder) -> Option<Writer> {
        let step = match (&mut self.stage, message) {
            (Stage::Admitting(a), FromHolder::Admitted { session, verdicts })
                if session == a.session && !a.committing =>
            {
                a.take_verdicts(shared, party, verdicts, &mut self.agenda.answer)
            }
            (Stage::Admitting(a), FromHolder::Committed { session }) if session == a.session => {
                Ok(mark(&mut a.committed, party))
            }
            (Stage::Erasing(e), FromHolder::Erased { .. }) => Ok(mark(&mut e.acknowledged, party)),
            (Stage::Building(b), FromHolder::GroupPart { session, part, payload })
                if session == b.session && b.bodies.is_none() =>
            {
                file_copy(&mut b.copies, party, part, payload)
                    .and_then(|()| b.add_up(shared, &self.agenda.collection))
                    .map(|()| false)
            }
            (Stage::Building(b), FromHolder::Committed { session }) if session == b.session => {
                Ok(mark(&mut b.committed, party))
            }
            (Stage::Erasing(e), FromHolder::Refused { session: None, refusal }) => {
                if let Some(place) = e.refused.get_mut(party.index()) {
                    place.get_or_insert(refusal);
                }
                if let [Some(first), Some(_), Some(_)] = &e.refused {
                    let first = first.clone();
                    self.give_up(shared, first);
                    return None;
                }
                Ok(false)
            }
            (stage, FromHolder::Refused { session, refusal }) if !stage.is_promised() => {
                let ours = session.is_none_or(|s| stage.session() == Some(s));
                if ours {
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

    /// All three holders have committed, or acknowledged: carry the change out here and go on.
    fn stage_done(mut self, shared: &mut Shared) -> Option<Writer> {
        let parameters = shared.parameters;
        self.agenda.overdue = if self.agenda.overdue < PATIENCE { 0 } else { PATIENCE };
        let Ok(collection) = shared.collection(&self.agenda.collection) else { return None };
        match self.stage {
            Stage::Admitting(admitting) => {
                let ClientAnswer::Enrolled { verdicts } = &self.agenda.answer else { return None };
                for (verdict, template) in verdicts.iter().zip(admitting.templates) {
                    if let (Verdict::Accepted, Some((subject, digest, sealed))) = (verdict, template) {
                        collection.sealed.insert(subject.clone(), sealed);
                        collection.index.insert(subject, digest);
                    }
                }
                if !admitting.more_follows {
                    let pending = collection.index.pending();
                    self.agenda.plans = plan_addition(&parameters, &collection.index, &pending, usize::MAX).into();
                    let overdue = std::mem::take(&mut collection.overdue);
                    let taken: Vec<GroupId> = self.agenda.plans.iter().flat_map(|p| p.replaces.clone()).collect();
                    for group in overdue.into_iter().filter(|g| !taken.contains(g)) {
                        self.agenda.plans.extend(plan_rebuild(&parameters, &collection.index, group));
                    }
                }
            }
            Stage::Erasing(erasing) => {
                collection.sealed.remove(&erasing.subject);
                let group = collection.index.remove(&erasing.subject).and_then(|t| t.group);
                if let Some(group) = group {
                    match plan_rebuild(&parameters, &collection.index, group) {
                        Some(plan) => {
                            self.agenda.plans.push_back(plan);
                            collection.overdue.insert(group);
                        }
                        None => collection.index.drop_group(group),
                    }
                }
            }
            Stage::Building(building) => {
                if let Some(bodies) = building.bodies {
                    collection.overdue.remove(&building.order.group);
                    let order = building.order;
                    let packed = PackedGroup {
                        group: order.group,
                        revision: order.revision,
                        epoch: order.epoch,
                        layout: order.layout,
                        bodies: bodies.into(),
                    };
                    let members = building.members.into_iter().filter_map(|(slot, subject)| {
                        let digest = collection.index.template(&subject)?.digest;
                        Some(GroupMember { slot, subject, digest })
                    });
                    let members = members.collect();
                    collection.index.commit(Arc::new(GroupRecord { packed, members }), &order.replaces);
                }
            }
        }
        Self::next_build(shared, self.agenda)
    }

    /// Ends the job without effect beyond what is committed, and tells the client why.
    pub(crate) fn give_up(self, shared: &mut Shared, refusal: Refusal) {
        if let Some(session) = self.stage.session() {
            shared.tell_all(&ToHolder::Abandon { session });
        }
        self.agenda.tell_client(shared, &ClientAnswer::Refused(refusal));
    }

    /// A deadline has passed: says again what must be acknowledged by all three, gives up anything else.
    pub(crate) fn expire(mut self, shared: &mut Shared) -> Option<Writer> {
        let late = self.late();
        let refusal = MatcherError::TimedOut(late.clone()).refusal();
        let silent: Vec<Party> = Party::ALL.into_iter().filter(|p| late.contains(&Suspect::Holder(*p))).collect();
        let again = match &self.stage {
            Stage::Erasing(e) if self.agenda.overdue == 0 => ToHolder::Erase { request: e.signed.clone() },
            Stage::Erasing(e) => {
                let refusal = e.refused.iter().flatten().next().cloned().unwrap_or(refusal);
                self.give_up(shared, refusal);
                return None;
            }
            stage => match stage.session().filter(|_| stage.is_promised()) {
                Some(session) => ToHolder::Commit { session },
                None => {
                    self.give_up(shared, refusal);
                    return None;
                }
            },
        };
        shared.tell(&silent, &again);
        if self.agenda.overdue + 1 == PATIENCE {
            self.agenda.tell_client(shared, &ClientAnswer::Refused(refusal));
        }
        self.agenda.overdue = (self.agenda.overdue + 1).min(PATIENCE);
        Some(self)
    }

    pub(crate) fn late(&self) -> Vec<Suspect> {
        let missing = |flags: &[bool; 3]| -> Vec<Party> {
            Party::ALL.into_iter().filter(|p| flags.get(p.index()) == Some(&false)).collect()
        };
        let late = match &self.stage {
            Stage::Admitting(a) => {
                let silent: Vec<Party> =
                    Party::ALL.into_iter().filter(|p| a.verdicts.get(p.index()).is_some_and(Option::is_none)).collect();
                if silent.is_empty() { missing(&a.committed) } else { silent }
            }
            Stage::Erasing(e) => missing(&e.acknowledged),
            Stage::Building(b) if b.bodies.is_none() => late_holders(&b.copies).into_iter().collect(),
            Stage::Building(b) => missing(&b.committed),
        };
        late.into_iter().map(Suspect::Holder).collect()
    }
}

impl Stage {
    fn session(&self) -> Option<SessionId> {
        match self {
            Stage::Admitting(a) => Some(a.session),
            Stage::Building(b) => Some(b.session),
            Stage::Erasing(_) => None,
        }
    }

    /// Whether the holders were told to commit: there is no way back.
    fn is_promised(&self) -> bool {
        match self {
            Stage::Admitting(a) => a.committing,
            Stage::Building(b) => b.bodies.is_some(),
            Stage::Erasing(_) => false,
        }
    }
}

impl Admitting {
    /// Once all three have spoken: commit what all accept, or forget the session if that is nothing.
    fn take_verdicts(
        &mut self,
        shared: &mut Shared,
        party: Party,
        verdicts: Vec<Verdict>,
        answer: &mut ClientAnswer,
    ) -> Result<bool, MatcherError> {
        if verdicts.len() != self.templates.len() {
            return Err(MatcherError::MalformedAnswer(party));
        }
        let place = self.verdicts.get_mut(party.index()).ok_or(MatcherError::MalformedAnswer(party))?;
        if place.replace(verdicts).is_some() {
            return Err(MatcherError::MalformedAnswer(party));
        }
        let [Some(first), Some(second), Some(third)] = &self.verdicts else { return Ok(false) };
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
        let any = merged.contains(&Verdict::Accepted);
        *answer = ClientAnswer::Enrolled { verdicts: merged };
        let session = self.session;
        self.committing = any;
        if any {
            shared.tell_all(&ToHolder::Commit { session });
            Ok(false)
        } else {
            shared.tell_all(&ToHolder::Abandon { session });
            Ok(true)
        }
    }
}

impl Building {
    /// Once all copies are here: compare, add up, and have the holders commit.
    fn add_up(&mut self, shared: &mut Shared, collection: &CollectionId) -> Result<(), MatcherError> {
        if !complete(&self.copies) {
            return Ok(());
        }
        let dimension = shared
            .collection(collection)?
            .dimension
            .ok_or_else(|| MatcherError::UnknownCollection(collection.clone()))?;
        let polynomials = self.order.layout.blocks(dimension) * self.order.layout.rank();
        self.bodies = Some(sum_parts(&shared.parameters, &shared.ring, polynomials, &borrowed(&self.copies))?);
        self.copies = Default::default();
        shared.tell_all(&ToHolder::Commit { session: self.session });
        Ok(())
    }
}
