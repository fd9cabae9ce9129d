//! What is slow: the scan, adding up the parts of a group, reading and writing the store. The driver runs it where it
//! likes and gives the result back; the state machine goes on meanwhile.

use std::sync::Arc;

use bytes::Bytes;
use veilmatch_domain::{CollectionId, Dimension, GroupId, SessionId, SubjectId};
use veilmatch_gallery::{Change, Description, GroupMember, GroupRecord, Intent, IntentId, Storage, StorageError};
use veilmatch_glwe::{
    Bodies, BuildOrder, GroupSums, Layout, MaskSeed, Member, PackedGroup, Parameters, ProbeCiphertext, ProbeShape,
    SegmentedProbe, Stage, ToHolder, build_session, sum_parts,
};

use veilmatch_paillier::{ProbeShare, PublicKey};

use crate::MatcherError;
use crate::evaluation::{Evaluator, Packed, sum_encrypted};
use crate::matcher::RequestId;
use crate::search::{Copies, borrowed};

/// Something to be done away from the state machine.
pub struct Work(pub(crate) Task);

/// The result of some [`Work`].
pub struct Worked(pub(crate) Done);

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.needs_storage() { "Work(storage)" } else { "Work(scan)" })
    }
}

impl std::fmt::Debug for Worked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Worked")
    }
}

/// A scan of some groups with one probe.
pub(crate) struct Scan {
    pub(crate) session: SessionId,
    pub(crate) parameters: Parameters,
    pub(crate) stage: Stage,
    pub(crate) probes: Probes,
    pub(crate) groups: Vec<Arc<GroupRecord>>,
}

/// The probe of a scan.
pub(crate) enum Probes {
    /// As the holders sent it.
    Parts { dimension: Dimension, parts: Vec<(ProbeShape, MaskSeed, Copies)> },
    /// By block width, as an earlier stage prepared it.
    Prepared(Arc<Prepared>),
}

/// A probe that is ready to be scanned with, by block width.
pub(crate) type Prepared = Vec<(usize, SegmentedProbe)>;

/// What a scan came to.
pub(crate) struct Scanned {
    /// The message to the holders.
    pub(crate) sums: Bytes,
    /// For the stage that follows, if one may.
    pub(crate) prepared: Arc<Prepared>,
}

/// Which step of which job a result belongs to; results of steps that were given up are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(pub(crate) u64);

/// A group whose parts have all come.
pub(crate) struct Sum {
    pub(crate) parameters: Parameters,
    pub(crate) dimension: Dimension,
    /// The dimensions whose blocks lie apart, if some should.
    pub(crate) hot_dimensions: Option<u16>,
    pub(crate) order: BuildOrder,
    pub(crate) members: Vec<GroupMember>,
    pub(crate) copies: Copies,
    /// The public key, under the scheme `paillier`.
    pub(crate) key: Option<PublicKey>,
    pub(crate) id: IntentId,
}

/// An evaluation of some groups with this matcher's share of a probe.
pub(crate) struct Evaluate {
    pub(crate) session: SessionId,
    pub(crate) collection: CollectionId,
    pub(crate) evaluator: Evaluator,
    pub(crate) groups: Vec<Arc<GroupRecord>>,
    pub(crate) share: ProbeShare,
}

pub(crate) enum Task {
    Scan(Box<Scan>),
    Evaluate(Box<Evaluate>),
    Save { ticket: Ticket, lazy: Vec<Change>, changes: Vec<Change> },
    Order { ticket: Ticket, lazy: Vec<Change>, change: Change, order: Box<BuildOrder>, members: Vec<GroupMember> },
    Sum { ticket: Ticket, lazy: Vec<Change>, sum: Box<Sum> },
    Describe { request: RequestId, collection: CollectionId, description: Description },
    Tidy { lazy: Vec<Change> },
}

/// A build order as it goes to the holders, without its members' bytes, and encoded with them.
pub(crate) struct Ordered {
    pub(crate) session: SessionId,
    pub(crate) order: BuildOrder,
    pub(crate) members: Vec<GroupMember>,
    pub(crate) bytes: Bytes,
}

pub(crate) enum Done {
    Scanned {
        session: SessionId,
        result: Result<Scanned, MatcherError>,
    },
    Evaluated {
        session: SessionId,
        result: Result<Vec<Vec<u8>>, MatcherError>,
    },
    Saved {
        ticket: Ticket,
        lazy: Vec<Change>,
        result: Result<(), MatcherError>,
    },
    Ordered {
        ticket: Ticket,
        lazy: Vec<Change>,
        result: Result<Box<Ordered>, MatcherError>,
    },
    Summed {
        ticket: Ticket,
        lazy: Vec<Change>,
        result: Result<Arc<GroupRecord>, MatcherError>,
    },
    Described {
        request: RequestId,
        collection: CollectionId,
        description: Description,
        result: Result<(), MatcherError>,
    },
    Tidied {
        lazy: Vec<Change>,
    },
}

impl Work {
    /// Whether the work reads or writes the store. Such work must be run one after the other, in order; a scan may run
    /// beside anything.
    #[must_use]
    pub fn needs_storage(&self) -> bool {
        !matches!(self.0, Task::Scan(_) | Task::Evaluate(_))
    }

    /// Does it. Uses the rayon pool that it is called in.
    #[must_use]
    pub fn run(self, storage: &dyn Storage) -> Worked {
        Worked(match self.0 {
            Task::Scan(scan) => Done::Scanned { session: scan.session, result: scan.run() },
            Task::Evaluate(work) => Done::Evaluated { session: work.session, result: work.run() },
            Task::Save { ticket, lazy, changes } => {
                let result = apply(storage, &lazy, changes);
                Done::Saved { ticket, lazy: left(lazy, &result), result }
            }
            Task::Order { ticket, lazy, change, order, members } => {
                let result = apply(storage, &lazy, vec![change]);
                let lazy = left(lazy, &result);
                let result = result.and_then(|()| complete_order(storage, *order, members));
                Done::Ordered { ticket, lazy, result }
            }
            Task::Sum { ticket, lazy, sum } => match sum.add_up() {
                Ok((id, record, intent)) => {
                    let collection = collection_of(&intent).clone();
                    let result = apply(storage, &lazy, vec![Change::Decide { id, intent, sealed: Vec::new() }]);
                    let lazy = left(lazy, &result);
                    Done::Summed { ticket, lazy, result: result.map(|()| mapped(storage, &collection, record)) }
                }
                Err(error) => Done::Summed { ticket, lazy, result: Err(error) },
            },
            Task::Describe { request, collection, description } => {
                let change = Change::Describe { collection: collection.clone(), description: description.clone() };
                let result = apply(storage, &[], vec![change]);
                Done::Described { request, collection, description, result }
            }
            Task::Tidy { lazy } => {
                let result = apply(storage, &lazy, Vec::new());
                Done::Tidied { lazy: left(lazy, &result) }
            }
        })
    }
}

/// What is still to be written: nothing if the transaction succeeded.
fn left(lazy: Vec<Change>, result: &Result<(), MatcherError>) -> Vec<Change> {
    if result.is_ok() { Vec::new() } else { lazy }
}

fn apply(storage: &dyn Storage, lazy: &[Change], changes: Vec<Change>) -> Result<(), MatcherError> {
    let all: Vec<Change> = lazy.iter().cloned().chain(changes).collect();
    Ok(storage.apply(&all)?)
}

fn collection_of(intent: &Intent) -> &CollectionId {
    match intent {
        Intent::Admission { collection, .. }
        | Intent::Build { collection, .. }
        | Intent::Erasure { collection, .. } => collection,
    }
}

/// The record with its bodies read from the store's map, so that the memory they took is free again.
fn mapped(storage: &dyn Storage, collection: &CollectionId, record: Arc<GroupRecord>) -> Arc<GroupRecord> {
    match storage.mapped(collection, &record) {
        Some((bodies, cold)) => {
            let packed = PackedGroup { bodies, cold, ..record.packed.clone() };
            Arc::new(GroupRecord { packed, members: record.members.clone() })
        }
        None => record,
    }
}

fn complete_order(
    storage: &dyn Storage,
    mut order: BuildOrder,
    members: Vec<GroupMember>,
) -> Result<Box<Ordered>, MatcherError> {
    let subjects: Vec<SubjectId> = members.iter().map(|m| m.subject.clone()).collect();
    let sealed = storage.sealed(&order.collection, &subjects)?;
    for (member, sealed) in members.iter().zip(sealed) {
        let missing = || StorageError::Damaged(format!("the sealed template of {} is missing", member.subject));
        order.members.push(Member { slot: member.slot, sealed: sealed.ok_or_else(missing)? });
    }
    let session = build_session(&order);
    let skeleton = BuildOrder {
        collection: order.collection.clone(),
        replaces: order.replaces.clone(),
        members: Vec::new(),
        ..order
    };
    let message = ToHolder::Build(BuildOrder { members: order.members, ..skeleton.clone() });
    let bytes = borsh::to_vec(&message).map_err(|_| MatcherError::MalformedRequest)?;
    Ok(Box::new(Ordered { session, order: skeleton, members, bytes: bytes.into() }))
}

/// How many blocks of a group lie apart; `None` if the wanted dimensions are not a whole number of them and fewer than all.
pub(crate) fn hot_blocks(layout: Layout, dimension: Dimension, hot_dimensions: Option<u16>) -> Option<usize> {
    let hot = usize::from(hot_dimensions?);
    let fits = hot > 0 && hot < dimension.get() && hot.is_multiple_of(layout.beta());
    fits.then(|| hot / layout.beta())
}

impl Scan {
    fn run(self) -> Result<Scanned, MatcherError> {
        let (parameters, ring) = (self.parameters, self.parameters.ring());
        let of_width = |beta: usize| {
            let groups = self.groups.iter().map(|record| &record.packed);
            groups.filter(move |group| group.layout.beta() == beta)
        };
        let prepared = match &self.probes {
            Probes::Prepared(prepared) => Arc::clone(prepared),
            Probes::Parts { dimension, parts } => {
                let mut prepared = Vec::with_capacity(parts.len());
                for (shape, seed, copies) in parts {
                    let (beta, polynomials) = (shape.layout.beta(), shape.layout.blocks(*dimension));
                    let bodies = sum_parts(&parameters, &ring, polynomials, &borrowed(copies))?;
                    let masks = seed.expand(&parameters, shape.layout, *dimension);
                    let probe = ProbeCiphertext::new(masks, bodies);
                    let probe = SegmentedProbe::new(&parameters, &ring, &probe, of_width(beta));
                    prepared.push((beta, probe.map_err(|_| MatcherError::MalformedRequest)?));
                }
                Arc::new(prepared)
            }
        };
        let mut groups = Vec::with_capacity(self.groups.len());
        for (beta, probe) in prepared.iter() {
            let of_width: Vec<&PackedGroup> = of_width(*beta).collect();
            // A group whose bodies have another length than its layout is damaged.
            let damaged = || MatcherError::GroupDamaged(of_width.first().map_or(GroupId(0), |g| g.group));
            groups.extend(probe.scan(&parameters, &ring, self.stage, &of_width).map_err(|_| damaged())?);
        }
        groups.sort_unstable_by_key(|sums| sums.group);
        let sums = ToHolder::Sums { session: self.session, stage: self.stage, groups };
        let encoded = borsh::to_vec(&sums).map_err(|_| MatcherError::MalformedRequest)?;
        if let ToHolder::Sums { groups, .. } = sums {
            GroupSums::give_back(groups);
        }
        Ok(Scanned { sums: encoded.into(), prepared })
    }
}

impl Evaluate {
    fn run(self) -> Result<Vec<Vec<u8>>, MatcherError> {
        let packed = self.groups.iter().map(|record| Packed {
            collection: &self.collection,
            group: record.packed.group,
            revision: record.packed.revision,
            words: &record.packed.bodies,
        });
        self.evaluator.evaluate(&packed.collect::<Vec<_>>(), &self.share)
    }
}

impl Sum {
    /// Compares the copies and adds the parts up.
    fn add_up(self) -> Result<(IntentId, Arc<GroupRecord>, Intent), MatcherError> {
        let BuildOrder { group, revision, epoch, layout, replaces, collection, .. } = self.order;
        if let Some(key) = &self.key {
            let bodies = sum_encrypted(key, self.dimension, &self.copies)?.into();
            let packed = PackedGroup { group, revision, epoch, layout, bodies, cold: None };
            let record = Arc::new(GroupRecord { packed, members: self.members });
            let intent = Intent::Build { collection, record: Arc::clone(&record), replaces };
            return Ok((self.id, record, intent));
        }
        let polynomials = layout.blocks(self.dimension) * layout.rank();
        let bodies = sum_parts(&self.parameters, &self.parameters.ring(), polynomials, &borrowed(&self.copies))?;
        let hot = hot_blocks(layout, self.dimension, self.hot_dimensions);
        let segments = Bodies::segmented(&self.parameters, layout, self.dimension, hot, &bodies);
        let (bodies, cold) = segments.map_err(|_| MatcherError::MalformedRequest)?;
        let packed = PackedGroup { group, revision, epoch, layout, bodies, cold };
        let record = Arc::new(GroupRecord { packed, members: self.members });
        let intent = Intent::Build { collection, record: Arc::clone(&record), replaces };
        Ok((self.id, record, intent))
    }
}

// Payloads travel between threads.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Work>();
    is_send::<Worked>();
};
