//! What the client, the matcher and the holders say to each other, as canonical bytes (borsh).
//!
//! Messages among holders are not here: the matcher neither sends nor reads them. Every length on the wire depends
//! on public sizes alone (dimension, layout, number of members), never on a coordinate or a score.

use borsh::{BorshDeserialize, BorshSerialize};
use veilmatch_domain::{
    CollectionId, Epoch, Explain, GroupId, Part, Party, Revision, SessionId, Status, Suspect, TemplateDigest,
};
use veilmatch_secret::{Digest, Label, Secret, equal};

use crate::{Layout, MaskSeed};

/// Most sealed templates in one admission.
pub const MAX_ADMISSION: usize = 512;

/// From a client to the matcher.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ClientRequest {
    /// Sealed templates of one collection, to become members of the gallery.
    Enroll {
        /// The collection that all of them name.
        collection: CollectionId,
        /// Encoded sealed templates, 1 to [`MAX_ADMISSION`].
        templates: Vec<Vec<u8>>,
        /// Whether another batch follows at once: indexing then waits for the last one.
        more_follows: bool,
    },
    /// A sealed probe; the query is in its associated data.
    Ask {
        /// The encoded sealed template.
        sealed: Vec<u8>,
    },
    /// A signed erasure.
    Erase {
        /// The encoded signed request.
        request: Vec<u8>,
    },
}

/// From the matcher to a client.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ClientAnswer {
    /// One verdict per template, in the order of the request.
    Enrolled {
        /// Accepted and searchable, or why not.
        verdicts: Vec<Verdict>,
    },
    /// The holders' sealed replies, in the order K0, K1, K2.
    Replies {
        /// Opaque to the matcher.
        replies: [Vec<u8>; 3],
    },
    /// The subject is erased: template removed, digest tombstoned, no longer part of any decision.
    Erased {
        /// Whether the group that held it is rebuilt without it, and its old revision revoked. If not, it will be.
        complete: bool,
    },
    /// The change is stored.
    Done,
    /// Nothing was done.
    Refused(Refusal),
}

/// From the matcher to a holder.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ToHolder {
    /// Check that these sealed templates are admissible: signed, fresh, unit norm.
    Admit {
        /// Distinguishes attempts: part of the session id.
        attempt: u64,
        /// The collection that all of them name.
        collection: CollectionId,
        /// Encoded sealed templates.
        templates: Vec<Vec<u8>>,
    },
    /// Recrypt members into a packed group.
    Build(BuildOrder),
    /// The matcher has the sum of all three parts: the revision becomes live, what it replaces is revoked.
    Commit {
        /// The build's session.
        session: SessionId,
    },
    /// Forget a session that cannot finish.
    Abandon {
        /// The session.
        session: SessionId,
    },
    /// Recrypt a probe and wait for its sums.
    Ask {
        /// The encoded sealed probe.
        sealed: Vec<u8>,
    },
    /// The matcher's sums over every live group in the query's scope; in [`Stage::Rest`], over every candidate group.
    Sums {
        /// The query's session.
        session: SessionId,
        /// Over which blocks.
        stage: Stage,
        /// One entry per group, by ascending id.
        groups: Vec<GroupSums>,
    },
    /// A client's signed erasure.
    Erase {
        /// The encoded signed request.
        request: Vec<u8>,
    },
    /// Scheme `paillier`: what the two evaluators computed over every live group in the query's scope.
    Evaluations {
        /// The query's session.
        session: SessionId,
        /// One entry per group, by ascending id.
        groups: Vec<Evaluation>,
    },
}

/// What the two evaluators computed over one group of the scheme `paillier` (DESIGN 4): their product encrypts the scores.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Evaluation {
    /// The group.
    pub group: GroupId,
    /// Its revision.
    pub revision: Revision,
    /// The matcher's ciphertext.
    pub matcher: Vec<u8>,
    /// The twin's ciphertext.
    pub twin: Vec<u8>,
}

/// A holder's addend of an evaluator's share of a probe: residues modulo 2^26, one per dimension. Uniform by itself; redacted and
/// wiped, because with all the others it is the probe.
pub struct ProbeAddend(Secret<Vec<u32>>);

impl ProbeAddend {
    /// From residues.
    #[must_use]
    pub fn new(residues: Secret<Vec<u32>>) -> Self {
        Self(residues)
    }

    /// The residues.
    #[must_use]
    pub fn expose(&self) -> &[u32] {
        self.0.expose()
    }
}

impl Clone for ProbeAddend {
    fn clone(&self) -> Self {
        Self(self.0.duplicate())
    }
}

impl PartialEq for ProbeAddend {
    fn eq(&self, other: &Self) -> bool {
        let bytes =
            |addend: &Self| Secret::new(addend.expose().iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
        equal(bytes(self).expose(), bytes(other).expose())
    }
}

impl Eq for ProbeAddend {}

impl std::fmt::Debug for ProbeAddend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProbeAddend({} residues, redacted)", self.expose().len())
    }
}

impl BorshSerialize for ProbeAddend {
    fn serialize<W: std::io::Write>(&self, writer: &mut W) -> std::io::Result<()> {
        self.expose().serialize(writer)
    }
}

impl BorshDeserialize for ProbeAddend {
    fn deserialize_reader<R: std::io::Read>(reader: &mut R) -> std::io::Result<Self> {
        Vec::deserialize_reader(reader).map(|residues| Self(Secret::new(residues)))
    }
}

/// From the matcher to its twin.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ToTwin {
    /// Evaluate these groups with the share of the probe that the holders send.
    Evaluate {
        /// The query's session.
        session: SessionId,
        /// The collection.
        collection: CollectionId,
        /// Groups and their revisions.
        groups: Vec<(GroupId, Revision)>,
    },
    /// A group that the twin asked for.
    Hold {
        /// The collection.
        collection: CollectionId,
        /// The group.
        group: GroupId,
        /// Its revision.
        revision: Revision,
        /// One ciphertext per dimension, one behind the other.
        ciphertexts: Vec<u8>,
    },
    /// These groups of a collection are live: forget all others.
    Retain {
        /// The collection.
        collection: CollectionId,
        /// Groups and their revisions.
        live: Vec<(GroupId, Revision)>,
    },
    /// Forget a session that cannot finish.
    Abandon {
        /// The session.
        session: SessionId,
    },
}

/// From the twin to the matcher.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum FromTwin {
    /// The evaluation, re-randomised.
    Evaluated {
        /// The query's session.
        session: SessionId,
        /// One ciphertext per group, in the order that was asked.
        ciphertexts: Vec<Vec<u8>>,
    },
    /// The twin does not have these groups yet.
    Missing {
        /// The query's session.
        session: SessionId,
        /// The collection.
        collection: CollectionId,
        /// Which.
        groups: Vec<(GroupId, Revision)>,
    },
    /// The session ended without effect.
    Refused {
        /// The query's session.
        session: SessionId,
        /// Why.
        refusal: Refusal,
    },
}

/// Which blocks of the groups a scan runs over (DESIGN 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Stage {
    /// All blocks: a query without preselection.
    Whole = 0,
    /// Those of the first m dimensions, of every group in the scope.
    Coarse = 1,
    /// The others, of the candidate groups.
    Rest = 2,
}

/// An order to build one revision of one group.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BuildOrder {
    /// Distinguishes attempts: part of the session id, not of the label.
    pub attempt: u64,
    /// The collection.
    pub collection: CollectionId,
    /// The group; a new id, or one that exists.
    pub group: GroupId,
    /// Above every revision of this group that was ever built.
    pub revision: Revision,
    /// The key epoch.
    pub epoch: Epoch,
    /// The layout.
    pub layout: Layout,
    /// Members by ascending slot.
    pub members: Vec<Member>,
    /// Groups that this one takes the members of; revoked when this one is committed.
    pub replaces: Vec<GroupId>,
}

/// One member of a group to be built.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Member {
    /// The slot.
    pub slot: u32,
    /// The encoded sealed template.
    pub sealed: Vec<u8>,
}

/// The matcher's sums over one group.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct GroupSums {
    /// The group.
    pub group: GroupId,
    /// Its revision.
    pub revision: Revision,
    /// A_k, r·N residues, transformed; four bytes each, little-endian.
    pub masks: Vec<u8>,
    /// B_k, transformed and folded by β: r·N/β residues, four bytes each, little-endian.
    pub scores: Vec<u8>,
}

impl GroupSums {
    /// For sums that were encoded or sent: their rooms serve the next scan.
    pub fn give_back(sums: Vec<Self>) {
        veilmatch_kernels::give_back(sums.into_iter().flat_map(|sums| [sums.masks, sums.scores]));
    }
}

/// A part of a ciphertext: from one of its holders the polynomials, from the other their digest.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum PartPayload {
    /// Packed residues.
    Polynomials(Vec<u8>),
    /// [`crate::body_digest`] of the packed residues.
    Digest(Digest),
}

/// A block width that a probe is wanted for, with the rank-one layout that describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct ProbeShape {
    /// β with rank 1.
    pub layout: Layout,
}

/// Whether one sealed template was admitted.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Verdict {
    /// It may become a member.
    Accepted,
    /// It may not, and nothing was changed.
    Refused(Refusal),
}

/// From a holder to the matcher.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum FromHolder {
    /// One verdict per template of an [`ToHolder::Admit`].
    Admitted {
        /// The admission's session.
        session: SessionId,
        /// In the order of the request.
        verdicts: Vec<Verdict>,
    },
    /// A part of a group's bodies: J·r polynomials in scan order.
    GroupPart {
        /// The build's session.
        session: SessionId,
        /// Which part.
        part: Part,
        /// Polynomials or digest.
        payload: PartPayload,
    },
    /// The revision is live at this holder.
    Committed {
        /// The build's session.
        session: SessionId,
    },
    /// A part of a probe's bodies for one block width: J polynomials.
    ProbePart {
        /// The query's session.
        session: SessionId,
        /// Seed of the probe's masks.
        seed: MaskSeed,
        /// The block width.
        shape: ProbeShape,
        /// Which part.
        part: Part,
        /// Polynomials or digest.
        payload: PartPayload,
    },
    /// A reply sealed to the client that asked.
    Answer {
        /// The query's session.
        session: SessionId,
        /// Opaque to the matcher.
        reply: Vec<u8>,
    },
    /// The subject's template is tombstoned and no longer counted in any decision.
    Erased {
        /// Digest of the erased template.
        digest: TemplateDigest,
        /// The group that still carries it and must be rebuilt.
        group: Option<GroupId>,
    },
    /// The session ended without effect.
    Refused {
        /// The session, if the message could be read that far.
        session: Option<SessionId>,
        /// Why.
        refusal: Refusal,
    },
    /// Where the holder stands: said when the matcher connects, and when a ceremony is complete at this holder.
    Status {
        /// Who says so.
        party: Party,
        /// Its current key epoch.
        epoch: Option<Epoch>,
    },
    /// The coarse stage of a query is open: these groups hold candidates, at least one.
    Candidates {
        /// The query's session.
        session: SessionId,
        /// By ascending id.
        groups: Vec<GroupId>,
    },
    /// Scheme `paillier`, to the matcher and, with other content, to its twin: a holder's addend of the evaluator's share of a
    /// probe.
    ProbeShare {
        /// The query's session.
        session: SessionId,
        /// One residue per dimension.
        addend: ProbeAddend,
    },
}

/// An error that crosses a party's border: code, status, suspects, and text without any secret.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Refusal {
    /// Stable code in kebab-case.
    pub code: String,
    /// The gRPC status, as its canonical number.
    pub status: u8,
    /// Who is pointed at; empty if nobody can be named.
    pub suspects: Vec<Suspect>,
    /// What happened and one line of advice.
    pub message: String,
}

impl Refusal {
    /// Describes an error.
    #[must_use]
    pub fn new(error: &dyn Explain, suspects: Vec<Suspect>) -> Self {
        Self {
            code: error.code().to_owned(),
            status: status_number(error.status()),
            suspects,
            message: format!("{error}; {}", error.advice()),
        }
    }
}

impl Refusal {
    /// The status behind the number; what is unknown counts as aborted.
    #[must_use]
    pub fn status(&self) -> Status {
        match self.status {
            3 => Status::InvalidArgument,
            5 => Status::NotFound,
            6 => Status::AlreadyExists,
            7 => Status::PermissionDenied,
            8 => Status::ResourceExhausted,
            9 => Status::FailedPrecondition,
            14 => Status::Unavailable,
            15 => Status::DataLoss,
            _ => Status::Aborted,
        }
    }
}

/// The canonical gRPC number of a status.
fn status_number(status: Status) -> u8 {
    match status {
        Status::InvalidArgument => 3,
        Status::NotFound => 5,
        Status::AlreadyExists => 6,
        Status::PermissionDenied => 7,
        Status::ResourceExhausted => 8,
        Status::FailedPrecondition => 9,
        Status::Aborted => 10,
        Status::Unavailable => 14,
        Status::DataLoss => 15,
        _ => 2,
    }
}

/// The session of an admission: one per list of templates and attempt.
#[must_use]
pub fn admission_session(attempt: u64, collection: &CollectionId, templates: &[Vec<u8>]) -> SessionId {
    let label = Label::new("veilmatch/session/admit").number(attempt).bytes(collection.as_str().as_bytes());
    SessionId(templates.iter().fold(label, |label, template| label.bytes(template)).digest().0)
}

/// The session of a build: one per order, attempt included.
#[must_use]
pub fn build_session(order: &BuildOrder) -> SessionId {
    let mut label = Label::new("veilmatch/session/build")
        .number(order.attempt)
        .bytes(order.collection.as_str().as_bytes())
        .number(order.group.0)
        .number(order.revision.0.into())
        .number(order.epoch.0.into())
        .number(order.layout.beta() as u64)
        .number(order.layout.rank() as u64);
    for group in &order.replaces {
        label = label.number(group.0);
    }
    for member in &order.members {
        label = label.number(member.slot.into()).bytes(&member.sealed);
    }
    SessionId(label.digest().0)
}

/// The session of a query: one per sealed probe, because a probe's signature works once.
#[must_use]
pub fn query_session(probe: &TemplateDigest) -> SessionId {
    SessionId(Label::new("veilmatch/session/query").bytes(&probe.0).digest().0)
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Verdict::Accepted => f.write_str("accepted"),
            Verdict::Refused(refusal) => f.write_str(&refusal.message),
        }
    }
}
