//! One query at the matcher: add up the probe's parts, scan, pass sums and replies on.
//!
//! With a preselection (DESIGN 6) it scans twice: the hot segments of all groups first; then, once all three holders have
//! named the same groups, the cold segments of those. If no group holds a candidate, replies come after the first scan.

use std::collections::{BTreeMap, BTreeSet};

use std::sync::Arc;

use veilmatch_domain::{CollectionId, Decision, Dimension, GroupId, Party, Preselection, Purpose, SessionId, Suspect};
use veilmatch_gallery::GroupRecord;
use veilmatch_glwe::{
    ClientAnswer, Evaluation, FromHolder, MaskSeed, PartPayload, ProbeShape, Stage, ToHolder, ToTwin, query_session,
};
use veilmatch_paillier::ProbeShare;
use veilmatch_sealed::SealedTemplate;

use crate::MatcherError;
use crate::evaluation::Addends;
use crate::matcher::{Lane, Mark, RequestId, Shared};
use crate::work::{Evaluate, Prepared, Probes, Scan, Scanned, Task, hot_blocks};

pub(crate) type Copies = [(Option<PartPayload>, Option<PartPayload>); 3];

/// Parts of the probe for one block width.
#[derive(Default)]
struct Gathering {
    /// The seed of the masks, and who named it first.
    seed: Option<(MaskSeed, Party)>,
    copies: Copies,
}

/// The state of one query.
pub(crate) struct Search {
    pub(crate) request: RequestId,
    pub(crate) collection: CollectionId,
    /// When it was asked, in the driver's milliseconds.
    pub(crate) started: u64,
    /// Whether the sums of the last scan have gone to the holders.
    pub(crate) scanned: bool,
    stage: Stage,
    /// The probe, between the stages.
    prepared: Option<Arc<Prepared>>,
    /// What the holders say that the coarse stage opened.
    candidates: [Option<Vec<GroupId>>; 3],
    session: SessionId,
    dimension: Dimension,
    scope: Vec<Arc<GroupRecord>>,
    gathering: BTreeMap<ProbeShape, Gathering>,
    scanning: bool,
    /// Under the scheme `paillier`.
    evaluating: Option<Evaluating>,
    replies: [Option<Vec<u8>>; 3],
}

/// What the two evaluators have.
#[derive(Default)]
struct Evaluating {
    addends: Addends,
    own: Option<Vec<Vec<u8>>>,
    twin: Option<Vec<Vec<u8>>>,
}

/// Puts a payload into the place that its sender must fill: polynomials from K_i, the digest from K_{i−1}.
pub(crate) fn file_copy(
    copies: &mut Copies,
    party: Party,
    part: veilmatch_domain::Part,
    payload: PartPayload,
) -> Result<(), MatcherError> {
    let unexpected = MatcherError::UnexpectedPart(party);
    let [sender, witness] = part.holders();
    let Some((polynomials, digest)) = copies.get_mut(part.index()) else { return Err(unexpected) };
    let place = match payload {
        PartPayload::Polynomials(_) if party == sender => polynomials,
        PartPayload::Digest(_) if party == witness => digest,
        _ => return Err(unexpected),
    };
    if place.is_some() {
        return Err(unexpected);
    }
    *place = Some(payload);
    Ok(())
}

/// Whether everything has come.
pub(crate) fn complete(copies: &Copies) -> bool {
    copies.iter().all(|(polynomials, digest)| polynomials.is_some() && digest.is_some())
}

pub(crate) fn borrowed(copies: &Copies) -> [(Option<&PartPayload>, Option<&PartPayload>); 3] {
    copies.each_ref().map(|(a, b)| (a.as_ref(), b.as_ref()))
}

/// Holders whose copy of some part has not come.
pub(crate) fn late_holders(copies: &Copies) -> BTreeSet<Party> {
    veilmatch_domain::Part::ALL
        .into_iter()
        .zip(copies)
        .flat_map(|(part, (polynomials, digest))| {
            let [sender, witness] = part.holders();
            [polynomials.is_none().then_some(sender), digest.is_none().then_some(witness)]
        })
        .flatten()
        .collect()
}

/// Whether the first m dimensions of every group lie apart: only then a coarse stage reads less than a full search.
fn check_segments(asked: &Preselection, dimension: Dimension, scope: &[Arc<GroupRecord>]) -> Result<(), MatcherError> {
    for record in scope {
        let layout = record.packed.layout;
        let wanted = hot_blocks(layout, dimension, Some(asked.dimensions));
        let cold = record.packed.cold.as_ref().map(|cold| cold.from);
        if wanted.is_none() || wanted != cold {
            let hot = cold.map(|from| from * layout.beta());
            return Err(MatcherError::NotSegmented { asked: asked.dimensions, hot });
        }
    }
    Ok(())
}

impl Search {
    /// Finds the groups in the query's scope and the block widths that a probe is needed for.
    pub(crate) fn start(
        shared: &mut Shared,
        request: RequestId,
        sealed: &[u8],
        started: u64,
    ) -> Result<(SessionId, Search), MatcherError> {
        let sealed = SealedTemplate::from_bytes(sealed)?;
        let associated = sealed.associated();
        let Purpose::Probe(query) = &associated.purpose else { return Err(MatcherError::WrongUse) };
        let collection = shared.collection(&associated.collection)?;
        if associated.dimension != collection.description.dimension {
            return Err(MatcherError::WrongDimension {
                found: associated.dimension.get(),
                expected: collection.description.dimension.get(),
            });
        }
        let index = &collection.index;
        let scope: Vec<Arc<GroupRecord>> = match &query.decision {
            Decision::Verify { subject } => {
                let stored = index.template(subject);
                let stored = stored.ok_or_else(|| MatcherError::UnknownSubject(subject.clone()))?;
                stored.group.and_then(|group| index.group(group)).map(Arc::clone).into_iter().collect()
            }
            // Groups of erased members alone are not in the holders' scope.
            _ => index.groups().filter(|g| g.members.iter().any(|m| index.is_current(m))).map(Arc::clone).collect(),
        };
        if scope.is_empty() {
            return Err(MatcherError::EmptyScope);
        }
        if let Some(lost) = scope.iter().find(|record| record.is_damaged()) {
            return Err(MatcherError::GroupDamaged(lost.packed.group));
        }
        if let Some(asked) = query.preselection {
            check_segments(&asked, collection.description.dimension, &scope)?;
        }
        let evaluating = collection.slots().map(|_| Evaluating::default());
        let mut gathering = BTreeMap::new();
        for record in scope.iter().filter(|_| evaluating.is_none()) {
            if let Ok(layout) = veilmatch_glwe::Layout::new(record.packed.layout.beta(), 1) {
                gathering.insert(ProbeShape { layout }, Gathering::default());
            }
        }
        shared.check_public_key(&associated.collection)?;
        let session = query_session(&sealed.digest());
        let search = Search {
            request,
            session,
            collection: associated.collection.clone(),
            dimension: associated.dimension,
            started,
            scope,
            gathering,
            scanning: false,
            evaluating,
            scanned: false,
            stage: if query.preselection.is_some() { Stage::Coarse } else { Stage::Whole },
            prepared: None,
            candidates: [None, None, None],
            replies: [None, None, None],
        };
        Ok((session, search))
    }

    /// Takes a holder's message; `true` when the client has its answer.
    pub(crate) fn take(
        &mut self,
        shared: &mut Shared,
        party: Party,
        message: FromHolder,
    ) -> Result<bool, MatcherError> {
        match message {
            FromHolder::ProbePart { seed, shape, part, payload, .. } => {
                let gathering = self.gathering.get_mut(&shape).ok_or(MatcherError::UnexpectedPart(party))?;
                let (known, first) = *gathering.seed.get_or_insert((seed, party));
                if known != seed {
                    return Err(MatcherError::SeedsDiffer(first, party));
                }
                file_copy(&mut gathering.copies, party, part, payload)?;
                if !self.scanning && self.gathering.values().all(|g| complete(&g.copies)) {
                    self.scan(shared);
                }
                Ok(false)
            }
            FromHolder::ProbeShare { addend, .. } => {
                let dimension = Some(self.dimension);
                let evaluating = self.evaluating.as_mut().ok_or(MatcherError::UnexpectedPart(party))?;
                evaluating.addends.take(party, dimension, addend)?;
                if let Some(share) = evaluating.addends.share() {
                    self.evaluate(shared, share)?;
                }
                Ok(false)
            }
            FromHolder::Answer { reply, .. } => {
                let place = self.replies.get_mut(party.index()).ok_or(MatcherError::UnexpectedPart(party))?;
                if place.replace(reply).is_some() {
                    return Err(MatcherError::UnexpectedPart(party));
                }
                let [Some(a), Some(b), Some(c)] = &mut self.replies else { return Ok(false) };
                let replies = [std::mem::take(a), std::mem::take(b), std::mem::take(c)];
                shared.answer(self.request, ClientAnswer::Replies { replies });
                Ok(true)
            }
            FromHolder::Candidates { groups, .. } => {
                let place = self.candidates.get_mut(party.index()).filter(|_| self.stage == Stage::Coarse);
                let place = place.filter(|_| self.scanned).ok_or(MatcherError::UnexpectedPart(party))?;
                if place.replace(groups).is_some() {
                    return Err(MatcherError::UnexpectedPart(party));
                }
                let [Some(a), Some(b), Some(c)] = &self.candidates else { return Ok(false) };
                let odd = match (a == b, b == c, a == c) {
                    (true, true, _) => None,
                    (true, false, _) => Some(vec![Suspect::Holder(Party::K2)]),
                    (false, true, _) => Some(vec![Suspect::Holder(Party::K0)]),
                    (false, false, true) => Some(vec![Suspect::Holder(Party::K1)]),
                    // At least two of them lie.
                    (false, false, false) => Some(Vec::new()),
                };
                if let Some(suspects) = odd {
                    return Err(MatcherError::CandidatesDiffer(suspects));
                }
                let chosen = a.clone();
                self.finish(shared, party, &chosen)?;
                Ok(false)
            }
            _ => Err(MatcherError::UnexpectedPart(party)),
        }
    }

    /// Scans what the coarse stage left out of the candidate groups.
    fn finish(&mut self, shared: &mut Shared, party: Party, chosen: &[GroupId]) -> Result<(), MatcherError> {
        let unexpected = MatcherError::UnexpectedPart(party);
        let groups: Vec<Arc<GroupRecord>> =
            self.scope.iter().filter(|record| chosen.contains(&record.packed.group)).map(Arc::clone).collect();
        let prepared = self.prepared.take().filter(|_| !groups.is_empty() && groups.len() == chosen.len());
        let prepared = prepared.ok_or(unexpected)?;
        (self.stage, self.scanned) = (Stage::Rest, false);
        self.scope = Vec::new();
        shared.mark(self.request, Mark::Preselected);
        let (session, parameters) = (self.session, shared.parameters);
        let scan = Scan { session, parameters, stage: self.stage, probes: Probes::Prepared(prepared), groups };
        shared.work(Task::Scan(Box::new(scan)));
        Ok(())
    }

    /// The sums are there: the holders are told.
    pub(crate) fn scanned(&mut self, shared: &mut Shared, scanned: Scanned) {
        self.scanned = true;
        if self.stage == Stage::Coarse {
            self.prepared = Some(scanned.prepared);
        }
        shared.mark(self.request, if self.stage == Stage::Coarse { Mark::ScannedCoarse } else { Mark::Scanned });
        shared.tell_bytes(&Party::ALL, Lane::Decide, &scanned.sums);
    }

    fn scan(&mut self, shared: &mut Shared) {
        self.scanning = true;
        shared.mark(self.request, Mark::Recrypted);
        let parts = std::mem::take(&mut self.gathering)
            .into_iter()
            .filter_map(|(shape, gathering)| Some((shape, gathering.seed?.0, gathering.copies)))
            .collect();
        let groups = if self.stage == Stage::Coarse { self.scope.clone() } else { std::mem::take(&mut self.scope) };
        let scan = Scan {
            session: self.session,
            parameters: shared.parameters,
            stage: self.stage,
            probes: Probes::Parts { dimension: self.dimension, parts },
            groups,
        };
        shared.work(Task::Scan(Box::new(scan)));
    }

    /// Tells the twin what to evaluate, under the scheme `paillier`.
    pub(crate) fn ask_twin(&self, shared: &mut Shared) {
        if self.evaluating.is_some() {
            let groups = self.scope.iter().map(|record| (record.packed.group, record.packed.revision)).collect();
            let (session, collection) = (self.session, self.collection.clone());
            shared.tell_twin(&ToTwin::Evaluate { session, collection, groups });
        }
    }

    /// Whether the twin's evaluation is needed and has not come.
    pub(crate) fn waits_for_twin(&self) -> bool {
        self.evaluating.as_ref().is_some_and(|evaluating| evaluating.twin.is_none())
    }

    /// This matcher's share of the probe is complete.
    fn evaluate(&mut self, shared: &mut Shared, share: ProbeShare) -> Result<(), MatcherError> {
        let evaluator = shared.evaluator.clone();
        let evaluator = evaluator.ok_or_else(|| MatcherError::NoPublicKey(self.collection.clone()))?;
        self.scanning = true;
        shared.mark(self.request, Mark::Recrypted);
        let (session, collection, groups) = (self.session, self.collection.clone(), self.scope.clone());
        shared.work(Task::Evaluate(Box::new(Evaluate { session, collection, evaluator, groups, share })));
        Ok(())
    }

    /// This matcher has evaluated.
    pub(crate) fn take_own(&mut self, shared: &mut Shared, own: Vec<Vec<u8>>) -> Result<(), MatcherError> {
        if let Some(evaluating) = &mut self.evaluating {
            evaluating.own = Some(own);
        }
        self.show_evaluations(shared)
    }

    /// The twin has: once, and one ciphertext for each group.
    pub(crate) fn take_twin(&mut self, shared: &mut Shared, ciphertexts: Vec<Vec<u8>>) -> Result<(), MatcherError> {
        let place = self.evaluating.as_mut().map(|evaluating| &mut evaluating.twin).filter(|place| place.is_none());
        let place =
            place.filter(|_| ciphertexts.len() == self.scope.len()).ok_or(MatcherError::UnexpectedEvaluation)?;
        *place = Some(ciphertexts);
        self.show_evaluations(shared)
    }

    /// Both are here: the holders are told.
    fn show_evaluations(&mut self, shared: &mut Shared) -> Result<(), MatcherError> {
        let Some(Evaluating { own: Some(own), twin: Some(twin), .. }) = &mut self.evaluating else { return Ok(()) };
        let both = std::mem::take(own).into_iter().zip(std::mem::take(twin));
        let groups = self.scope.iter().zip(both).map(|(record, (matcher, twin))| {
            let (group, revision) = (record.packed.group, record.packed.revision);
            Evaluation { group, revision, matcher, twin }
        });
        let message = ToHolder::Evaluations { session: self.session, groups: groups.collect() };
        self.scanned = true;
        shared.mark(self.request, Mark::Scanned);
        shared.tell_all(Lane::Decide, &message);
        Ok(())
    }

    pub(crate) fn late(&self) -> Vec<Suspect> {
        if let Some(Evaluating { addends, twin, .. }) = self.evaluating.as_ref().filter(|_| !self.scanned) {
            // The twin waits for the same holders.
            let holders: Vec<Suspect> = addends.missing().into_iter().map(Suspect::Holder).collect();
            return match (holders.is_empty(), twin) {
                (true, None) => vec![Suspect::Twin],
                _ => holders,
            };
        }
        let late: BTreeSet<Party> = if self.scanned {
            // After the coarse stage a holder says candidates, or replies because there are none.
            let silent = |p: &Party| {
                self.replies.get(p.index()).is_some_and(Option::is_none)
                    && (self.stage != Stage::Coarse || self.candidates.get(p.index()).is_some_and(Option::is_none))
            };
            Party::ALL.into_iter().filter(silent).collect()
        } else {
            self.gathering.values().flat_map(|g| late_holders(&g.copies)).collect()
        };
        late.into_iter().map(Suspect::Holder).collect()
    }
}
