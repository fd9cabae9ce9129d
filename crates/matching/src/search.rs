//! One query at the matcher: add up the probe's parts, scan, pass sums and replies on.

use std::collections::{BTreeMap, BTreeSet};

use std::sync::Arc;

use veilmatch_domain::{CollectionId, Decision, Dimension, Party, Purpose, SessionId, Suspect};
use veilmatch_gallery::GroupRecord;
use veilmatch_glwe::{ClientAnswer, FromHolder, MaskSeed, PartPayload, ProbeShape, query_session};
use veilmatch_sealed::SealedTemplate;

use crate::MatcherError;
use crate::matcher::{Mark, RequestId, Shared};
use crate::work::{Scan, Task};

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
    /// Whether the sums have gone to the holders.
    pub(crate) scanned: bool,
    session: SessionId,
    dimension: Dimension,
    scope: Vec<Arc<GroupRecord>>,
    gathering: BTreeMap<ProbeShape, Gathering>,
    scanning: bool,
    replies: [Option<Vec<u8>>; 3],
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
        let mut gathering = BTreeMap::new();
        for record in &scope {
            if let Ok(layout) = veilmatch_glwe::Layout::new(record.packed.layout.beta(), 1) {
                gathering.insert(ProbeShape { layout }, Gathering::default());
            }
        }
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
            scanned: false,
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
            _ => Err(MatcherError::UnexpectedPart(party)),
        }
    }

    fn scan(&mut self, shared: &mut Shared) {
        self.scanning = true;
        shared.mark(self.request, Mark::Recrypted);
        let probes = std::mem::take(&mut self.gathering)
            .into_iter()
            .filter_map(|(shape, gathering)| Some((shape, gathering.seed?.0, gathering.copies)))
            .collect();
        let scan = Scan {
            session: self.session,
            parameters: shared.parameters,
            dimension: self.dimension,
            probes,
            groups: std::mem::take(&mut self.scope),
        };
        shared.work(Task::Scan(Box::new(scan)));
    }

    pub(crate) fn late(&self) -> Vec<Suspect> {
        let late: BTreeSet<Party> = if self.scanned {
            Party::ALL.into_iter().filter(|p| self.replies.get(p.index()).is_some_and(Option::is_none)).collect()
        } else {
            self.gathering.values().flat_map(|g| late_holders(&g.copies)).collect()
        };
        late.into_iter().map(Suspect::Holder).collect()
    }
}
