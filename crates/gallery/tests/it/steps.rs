//! Changes in a short form that travels between processes: what they carry follows from their names.

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use veilmatch_domain::{CollectionId, Dimension, Epoch, GroupId, Revision, SubjectId, TemplateDigest, Timestamp};
use veilmatch_gallery::{Change, Description, GroupMember, GroupRecord, Intent, IntentId};
use veilmatch_glwe::{Bodies, ColdBodies, Layout, PackedGroup};

/// A change of the collection `name(collection)`. Subjects, ids and digests are numbers.
#[derive(Clone, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
pub(crate) enum Step {
    Describe {
        collection: u8,
        capacity: u32,
    },
    UseRevision {
        collection: u8,
        group: u64,
        revision: u32,
    },
    /// (subject, version of its template, bytes that are sealed)
    Admit {
        id: u64,
        collection: u8,
        templates: Vec<(u32, u8, u16)>,
    },
    /// Members are (subject, version of its template).
    Build {
        id: u64,
        collection: u8,
        group: u64,
        revision: u32,
        words: u32,
        members: Vec<(u32, u8)>,
        replaces: Vec<u64>,
    },
    Erase {
        id: u64,
        collection: u8,
        subject: u32,
        version: u8,
    },
    Settle {
        id: u64,
    },
    Withdraw {
        id: u64,
    },
    DropGroup {
        collection: u8,
        group: u64,
    },
    Forget {
        id: u64,
    },
}

/// Bytes that follow from a name, as many as wanted.
pub(crate) struct Dice(blake3::OutputReader);

impl Dice {
    pub(crate) fn new(name: &str) -> Self {
        Self(blake3::Hasher::new().update(name.as_bytes()).finalize_xof())
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.fill(&mut bytes);
        bytes
    }

    /// A number below a bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound.max(1)
    }
}

pub(crate) fn collection(number: u8) -> CollectionId {
    CollectionId::new(["faces", "..", "faces.1"][usize::from(number)]).unwrap()
}

pub(crate) fn subject(number: u32) -> SubjectId {
    SubjectId::new(format!("s{number}")).unwrap()
}

pub(crate) fn number_of(subject: &SubjectId) -> u32 {
    subject.as_str()[1..].parse().unwrap()
}

pub(crate) fn digest(subject: u32, version: u8) -> TemplateDigest {
    let mut digest = [0; 32];
    digest[..4].copy_from_slice(&subject.to_le_bytes());
    digest[31] = version;
    TemplateDigest(digest)
}

pub(crate) fn version_of(digest: &TemplateDigest) -> u8 {
    digest.0[31]
}

pub(crate) fn id(number: u64) -> IntentId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.to_le_bytes());
    IntentId(id)
}

pub(crate) fn number_of_id(id: &IntentId) -> u64 {
    u64::from_le_bytes(id.0[..8].try_into().unwrap())
}

pub(crate) fn sealed(subject: u32, version: u8, bytes: u16) -> Vec<u8> {
    Dice::new(&format!("sealed {subject} {version}")).bytes(bytes.into())
}

pub(crate) fn bodies(collection: u8, group: u64, revision: u32, words: u32) -> Bodies {
    let bytes = Dice::new(&format!("bodies {collection} {group} {revision}")).bytes(words as usize * 4);
    bytes.chunks_exact(4).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect::<Vec<_>>().into()
}

/// Every fourth revision of a group lies in two segments.
pub(crate) fn cold_bodies(collection: u8, group: u64, revision: u32, words: u32) -> Option<ColdBodies> {
    let cold = || ColdBodies { from: 1 + words as usize, bodies: bodies(collection, group, revision + 1000, words) };
    (revision % 4 == 3).then(cold)
}

impl Step {
    pub(crate) fn change(&self) -> Change {
        match self {
            Step::Describe { collection: c, capacity } => Change::Describe {
                collection: collection(*c),
                description: Description {
                    dimension: Dimension::new(512).unwrap(),
                    parameters: "glwe-2048-v1".into(),
                    group_capacity: *capacity,
                    created: Timestamp(1),
                },
            },
            Step::UseRevision { collection: c, group, revision } => Change::UseRevision {
                collection: collection(*c),
                group: GroupId(*group),
                revision: Revision(*revision),
            },
            Step::Admit { id: number, collection: c, templates } => Change::Decide {
                id: id(*number),
                intent: Intent::Admission {
                    collection: collection(*c),
                    templates: templates.iter().map(|(s, v, _)| (subject(*s), digest(*s, *v))).collect(),
                },
                sealed: templates.iter().map(|(s, v, bytes)| sealed(*s, *v, *bytes)).collect(),
            },
            Step::Build { id: number, collection: c, group, revision, words, members, replaces } => {
                let member = |(slot, (s, v)): (u32, &(u32, u8))| GroupMember {
                    slot,
                    subject: subject(*s),
                    digest: digest(*s, *v),
                };
                let record = GroupRecord {
                    packed: PackedGroup {
                        group: GroupId(*group),
                        revision: Revision(*revision),
                        epoch: Epoch(*revision / 2),
                        layout: Layout::new(4, 1 + *group as usize % 16).unwrap(),
                        bodies: bodies(*c, *group, *revision, *words),
                        cold: cold_bodies(*c, *group, *revision, *words),
                    },
                    members: (0..).zip(members).map(member).collect(),
                };
                let replaces = replaces.iter().map(|g| GroupId(*g)).collect();
                let intent = Intent::Build { collection: collection(*c), record: Arc::new(record), replaces };
                Change::Decide { id: id(*number), intent, sealed: Vec::new() }
            }
            Step::Erase { id: number, collection: c, subject: s, version } => Change::Decide {
                id: id(*number),
                intent: Intent::Erasure {
                    collection: collection(*c),
                    subject: subject(*s),
                    digest: digest(*s, *version),
                    request: format!("erase {s}").into_bytes(),
                    expires: Timestamp(1000 + number),
                },
                sealed: Vec::new(),
            },
            Step::Settle { id: number } => Change::Settle { id: id(*number) },
            Step::Withdraw { id: number } => Change::Withdraw { id: id(*number) },
            Step::DropGroup { collection: c, group } => {
                Change::DropGroup { collection: collection(*c), group: GroupId(*group) }
            }
            Step::Forget { id: number } => Change::ForgetErasure { id: id(*number) },
        }
    }
}

pub(crate) fn changes(steps: &[Step]) -> Vec<Change> {
    steps.iter().map(Step::change).collect()
}
