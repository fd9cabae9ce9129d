//! Why a holder refuses, and whom it points at. No secret, score or coordinate is ever part of an error.

use veilmatch_domain::{
    ClientId, CollectionId, Epoch, Explain, GroupId, ModelDigest, Part, Party, PolicyError, Revision, Role, SchemeName,
    SessionId, Status, SubjectId, Suspect,
};
use veilmatch_glwe::Refusal;
use veilmatch_mpc::ProtocolError;
use veilmatch_sealed::SealedError;

use crate::UnsealError;

/// Whose message could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The matcher.
    Matcher,
    /// Another holder.
    Peer(Party),
}

impl Speaker {
    fn suspect(self) -> Suspect {
        match self {
            Speaker::Matcher => Suspect::Matcher,
            Speaker::Peer(party) => Suspect::Holder(party),
        }
    }
}

/// What a budget is counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// The decisions of one client.
    Client,
    /// The verifications of one subject.
    Subject,
    /// The decisions in a collection.
    Collection,
}

impl std::fmt::Display for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Budget::Client => "client",
            Budget::Subject => "subject",
            Budget::Collection => "collection",
        })
    }
}

/// Everything that makes a key holder stop. Unless a variant says otherwise, the state is as before.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HolderError {
    /// A message that is not one.
    #[error("a message from {} cannot be read", speaker.suspect())]
    Malformed {
        /// Who sent it.
        speaker: Speaker,
    },
    /// The sealed template or signed request is malformed or its signature is wrong.
    #[error(transparent)]
    Sealed(#[from] SealedError),
    /// This holder's part of a sealed template cannot be read.
    #[error(transparent)]
    Unseal(#[from] UnsealError),
    /// The query is not allowed in this collection.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A message among holders was lost, repeated, altered or does not agree with its copy.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// No such client is registered.
    #[error("client {0} is not registered")]
    UnknownClient(ClientId),
    /// No such collection exists.
    #[error("collection {0} does not exist")]
    UnknownCollection(CollectionId),
    /// The subject has no template in the collection.
    #[error("subject {0} is not enrolled")]
    UnknownSubject(SubjectId),
    /// The subject has a template already, or one is being admitted.
    #[error("subject {0} is enrolled already")]
    AlreadyEnrolled(SubjectId),
    /// The request's time is over.
    #[error("the request has expired")]
    Expired,
    /// The request would have to be remembered for too long.
    #[error("the request expires more than {allowed_seconds} seconds from now")]
    ExpiresTooLate {
        /// The longest lifetime in seconds.
        allowed_seconds: u64,
    },
    /// The client was revoked.
    #[error("client {0} is revoked")]
    ClientRevoked(ClientId),
    /// The client may not do this.
    #[error("client {client} does not have the role `{role}`")]
    RoleMissing {
        /// Who.
        client: ClientId,
        /// What it would need.
        role: Role,
    },
    /// The client may not name this collection.
    #[error("client {client} may not use collection {collection}")]
    OtherTenant {
        /// Who.
        client: ClientId,
        /// Which.
        collection: CollectionId,
    },
    /// The request is signed by nobody whom this holder obeys.
    #[error("the administrator is not known here")]
    UnknownAdministrator,
    /// The administrator's request names other parties.
    #[error("the administrator's request is not for this key holder")]
    NotAddressed,
    /// The client is registered with another key, which its templates are checked with.
    #[error("client {0} is registered with another key")]
    OtherKey(ClientId),
    /// The collection is described with another parameter set than this holder runs.
    #[error("this key holder runs the parameter set {expected}")]
    OtherParameters {
        /// Its own.
        expected: &'static str,
    },
    /// The collection is under another scheme.
    #[error("the collection is under the scheme `{expected}`")]
    OtherScheme {
        /// Which.
        expected: SchemeName,
    },
    /// The template or probe is of another model than the collection's.
    #[error("it is of another model than the collection's, whose digest is {}", expected.to_hex())]
    OtherModel {
        /// The collection's.
        expected: ModelDigest,
    },
    /// The collection has templates of another model, or of any.
    #[error("the collection has templates already, so its model stays")]
    ModelStays,
    /// This holder has no share of a threshold key.
    #[error("this key holder has no share of a threshold Paillier key")]
    NoShare,
    /// A share of a threshold key that is another holder's, or of another key than the one that collections are under.
    #[error("the share of a threshold key is not this key holder's, or of another key than it has")]
    OtherShare,
    /// A holder's part of a joint decryption is wrong: its proof does not hold.
    #[error("key holder {party} decrypted wrongly: its proof does not hold")]
    WrongDecryption {
        /// Who.
        party: Party,
    },
    /// There is no connection between two holders. Neither can tell which of them is the cause.
    #[error("key holder {by} is not connected to key holder {party}")]
    PeerLost {
        /// Who says so.
        by: Party,
        /// To whom it is not connected.
        party: Party,
    },
    /// There is no connection from this holder to the matcher's twin. It cannot tell which of the two is the cause.
    #[error("key holder {by} is not connected to the twin")]
    TwinLost {
        /// Who says so.
        by: Party,
    },
    /// As many decisions were opened in this window as the policy allows.
    #[error("the {what}'s budget of decisions is used up for another {retry_after} seconds")]
    BudgetExhausted {
        /// Whose budget.
        what: Budget,
        /// When the next window begins, in seconds from now.
        retry_after: u64,
    },
    /// Too many verifications of the subject failed in a row.
    #[error("subject {subject} is locked for another {retry_after} seconds after failed verifications")]
    LockedOut {
        /// Who.
        subject: SubjectId,
        /// In seconds from now.
        retry_after: u64,
    },
    /// So many verifications of the subject failed in a row that it stays locked.
    #[error("subject {subject} is locked after too many failed verifications")]
    Disabled {
        /// Who.
        subject: SubjectId,
    },
    /// The nonce was used before.
    #[error("the request was used before")]
    Replayed,
    /// A sealed template for another purpose, collection or of another template version.
    #[error("the sealed template is signed for another {what}")]
    WrongUse {
        /// What differs.
        what: &'static str,
    },
    /// Another dimension than the collection's.
    #[error("the sealed template has {found} dimensions; the collection has {expected}")]
    WrongDimension {
        /// Of the template.
        found: usize,
        /// Of the collection.
        expected: usize,
    },
    /// More templates in one message than a holder accepts, or none.
    #[error("{found} templates in one request; 1 to {allowed} are accepted")]
    BatchSize {
        /// What came.
        found: usize,
        /// The limit.
        allowed: usize,
    },
    /// The two holders of a part read different values: the client sealed them so, or one of the holders lies.
    #[error("the two copies of {part} of the sealed template differ")]
    CopiesDiffer {
        /// Which part.
        part: Part,
    },
    /// Another holder could not accept this sealed template.
    #[error("key holder {by} refuses the sealed template")]
    RefusedByPeer {
        /// Which holder.
        by: Party,
    },
    /// The sealed vector is not a unit vector.
    #[error("the sealed vector does not have unit norm")]
    NotUnit,
    /// A holder showed other randomness than it had committed to.
    #[error("key holder {party} showed another contribution than it had committed to")]
    CommitmentBroken {
        /// Who.
        party: Party,
    },
    /// The two others do not agree on what one of them committed to: it told them different things, or one misreports.
    #[error("the two other key holders do not agree on a commitment: {suspect}")]
    CommitmentsDiffer {
        /// The two.
        suspect: Suspect,
    },
    /// The two others do not agree on the votes: one told them different things, or one misreports.
    #[error("the two other key holders do not agree on the votes: {suspect}")]
    VotesDiffer {
        /// The two.
        suspect: Suspect,
    },
    /// The holders were asked for different things, or their registries or policies differ.
    #[error("the holders do not see the same request and registry")]
    RequestsDiffer {
        /// Who sees something else.
        suspects: Vec<Suspect>,
    },
    /// The two holders of a part of a recrypt computed different bodies.
    #[error("the two copies of {part} of the recrypted bodies differ")]
    BodiesDiffer {
        /// Which part.
        part: Part,
    },
    /// The two holders of a part computed different check vectors.
    #[error("the two copies of {part} of the check vectors differ")]
    CheckVectorsDiffer {
        /// Which part.
        part: Part,
    },
    /// The matcher's sums are not those of the registered groups with this probe.
    #[error("the matcher's sums fail the scan check")]
    ScanCheck,
    /// The matcher's sums have the wrong form.
    #[error("the matcher's sums are malformed: {what}")]
    BadSums {
        /// What is wrong.
        what: &'static str,
    },
    /// A group of the query's scope is not among the sums.
    #[error("group {group} is missing from the matcher's sums")]
    GroupLeftOut {
        /// Which group.
        group: GroupId,
    },
    /// The sums name a group that is not live in the query's scope.
    #[error("group {group} is not registered for this query")]
    UnregisteredGroup {
        /// Which group.
        group: GroupId,
    },
    /// The sums name a revision that is not the live one.
    #[error("revision {revision} of group {group} is revoked")]
    RevokedRevision {
        /// Which group.
        group: GroupId,
        /// Which revision.
        revision: Revision,
    },
    /// The holders received different sums or hold different probes, although each set passes the check.
    #[error("the holders do not agree on the matcher's sums")]
    SumsDiffer {
        /// Who differs.
        suspects: Vec<Suspect>,
    },
    /// The collection's registry changed between the question and the scan.
    #[error("the collection changed while the query ran")]
    RegistryChanged,
    /// The session has given its one decision or has ended.
    #[error("session {0} is spent")]
    SessionSpent(SessionId),
    /// No such session is open.
    #[error("session {0} is not open")]
    UnknownSession(SessionId),
    /// A message that this session does not expect now.
    #[error("session {0} does not expect this message now")]
    OutOfTurn(SessionId),
    /// The matcher's sums are for another stage of the query than the one that is under way.
    #[error("session {0} expects the sums of another stage")]
    OtherStage(SessionId),
    /// A coarse stage on dimensions that are not a whole number of blocks of every group, or not fewer than all.
    #[error("preselection on {asked} dimensions does not fit groups with blocks of {beta}")]
    CoarseDimensions {
        /// What was asked.
        asked: u16,
        /// The block width that it does not fit.
        beta: usize,
    },
    /// More groups hold candidates than the query's cap. That was opened, which they are was not.
    #[error("more than {most} groups hold candidates")]
    TooManyCandidates {
        /// The cap.
        most: u32,
    },
    /// A group and revision was ordered again with other content.
    #[error("revision {revision} of group {group} was used for other content")]
    LabelReused {
        /// Which group.
        group: GroupId,
        /// Which revision.
        revision: Revision,
    },
    /// A member's sealed template was not admitted, belongs to another subject's record, or is erased.
    #[error("the member at slot {slot} is not an admitted template")]
    NotAdmitted {
        /// Which slot.
        slot: u32,
    },
    /// The member is in another live group that the order does not replace.
    #[error("the member at slot {slot} is a member of group {group} already")]
    MemberElsewhere {
        /// Which slot.
        slot: u32,
        /// Where it is.
        group: GroupId,
    },
    /// The order drops a member of a group that it replaces, although the member is still enrolled.
    #[error("the order leaves out an enrolled member of group {group}")]
    MemberLeftOut {
        /// The replaced group.
        group: GroupId,
    },
    /// Slots are not ascending, beyond the layout's capacity, or there are none.
    #[error("the members' slots do not fit the layout")]
    BadSlots,
    /// The epoch is not the current one, or unknown here.
    #[error("key epoch {0} is not the current one")]
    WrongEpoch(Epoch),
    /// This holder was restored in this epoch and does not know what it has used up under it.
    #[error("this key holder was restored in key epoch {0} and builds nothing under it")]
    RestoredEpoch(Epoch),
    /// No administrator has allowed this, or the permission was used or is over.
    #[error("no administrator has allowed key holder {party} to be restored with this key")]
    RestoreNotAllowed {
        /// Who asks.
        party: Party,
    },
    /// No ceremony has been held.
    #[error("the key ceremony is not complete")]
    NoKeys,
    /// Nothing is indexed that the query could be compared with.
    #[error("there is no searchable template in the query's scope")]
    EmptyScope,
    /// Another holder stopped.
    #[error("key holder {by} stopped: {}", refusal.message)]
    PeerStopped {
        /// Who stopped.
        by: Party,
        /// Its reason.
        refusal: Box<Refusal>,
    },
    /// A party's message did not come in time.
    #[error("waited in vain for {}", owed(suspects))]
    TimedOut {
        /// Who owes a message; nobody if this holder was still computing.
        suspects: Vec<Suspect>,
    },
}

fn owed(suspects: &[Suspect]) -> String {
    if suspects.is_empty() {
        return String::from("this key holder's own computation");
    }
    suspects.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

impl HolderError {
    /// Whom the error points at; empty if nobody can be named.
    #[must_use]
    pub fn suspects(&self) -> Vec<Suspect> {
        match self {
            Self::Malformed { speaker } => vec![speaker.suspect()],
            Self::Protocol(e) => e.suspect().into_iter().collect(),
            Self::CopiesDiffer { part } => vec![Suspect::Client, Suspect::holders_of(*part)],
            Self::BodiesDiffer { part } | Self::CheckVectorsDiffer { part } => vec![Suspect::holders_of(*part)],
            Self::RefusedByPeer { by } => vec![Suspect::Client, Suspect::Holder(*by)],
            Self::CommitmentBroken { party } | Self::WrongDecryption { party } => vec![Suspect::Holder(*party)],
            Self::PeerLost { by, party } => vec![Suspect::pair(*by, *party)],
            Self::TwinLost { by } => vec![Suspect::Twin, Suspect::Holder(*by)],
            Self::CommitmentsDiffer { suspect } | Self::VotesDiffer { suspect } => vec![*suspect],
            Self::RequestsDiffer { suspects } | Self::SumsDiffer { suspects } | Self::TimedOut { suspects } => {
                suspects.clone()
            }
            Self::PeerStopped { by, refusal } => {
                // It is the word of one holder: whom it names, or the holder itself.
                let mut suspects = refusal.suspects.clone();
                if !suspects.iter().any(|s| s.includes(*by)) {
                    suspects.push(Suspect::Holder(*by));
                }
                suspects
            }
            Self::ScanCheck
            | Self::BadSums { .. }
            | Self::GroupLeftOut { .. }
            | Self::UnregisteredGroup { .. }
            | Self::RevokedRevision { .. }
            | Self::UnknownSession(_)
            | Self::OutOfTurn(_)
            | Self::OtherStage(_)
            | Self::LabelReused { .. }
            | Self::NotAdmitted { .. }
            | Self::MemberElsewhere { .. }
            | Self::MemberLeftOut { .. }
            | Self::BadSlots
            | Self::BatchSize { .. }
            | Self::WrongEpoch(_) => vec![Suspect::Matcher],
            Self::Sealed(_)
            | Self::Unseal(_)
            | Self::Policy(_)
            | Self::UnknownClient(_)
            | Self::UnknownCollection(_)
            | Self::UnknownSubject(_)
            | Self::AlreadyEnrolled(_)
            | Self::Expired
            | Self::ExpiresTooLate { .. }
            | Self::ClientRevoked(_)
            | Self::RoleMissing { .. }
            | Self::OtherTenant { .. }
            | Self::Replayed
            | Self::WrongUse { .. }
            | Self::WrongDimension { .. }
            | Self::NotUnit
            | Self::CoarseDimensions { .. }
            | Self::BudgetExhausted { .. }
            | Self::LockedOut { .. }
            | Self::OtherModel { .. }
            | Self::Disabled { .. } => vec![Suspect::Client],
            // Who sent the probe again cannot be told from here.
            Self::SessionSpent(_) => vec![Suspect::Client, Suspect::Matcher],
            Self::NoKeys
            | Self::NoShare
            | Self::OtherShare
            | Self::OtherScheme { .. }
            | Self::ModelStays
            | Self::RestoredEpoch(_)
            | Self::RestoreNotAllowed { .. }
            | Self::EmptyScope
            | Self::TooManyCandidates { .. }
            | Self::RegistryChanged
            | Self::UnknownAdministrator
            | Self::NotAddressed
            | Self::OtherKey(_)
            | Self::OtherParameters { .. } => Vec::new(),
        }
    }

    /// The error as it crosses the border.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            // A peer's reason keeps its code and text, so that the client reads the first cause.
            Self::PeerStopped { refusal, .. } => Refusal { suspects: self.suspects(), ..refusal.as_ref().clone() },
            _ => Refusal::new(self, self.suspects()),
        }
    }
}

impl Explain for HolderError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed-message",
            Self::Sealed(e) => e.code(),
            Self::Unseal(e) => e.code(),
            Self::Policy(e) => e.code(),
            Self::Protocol(e) => e.code(),
            Self::UnknownClient(_) => "unknown-client",
            Self::UnknownCollection(_) => "unknown-collection",
            Self::UnknownSubject(_) => "unknown-subject",
            Self::AlreadyEnrolled(_) => "already-enrolled",
            Self::Expired => "expired",
            Self::RestoredEpoch(_) => "restored-epoch",
            Self::RestoreNotAllowed { .. } => "restore-not-allowed",
            Self::UnknownAdministrator => "unknown-administrator",
            Self::NotAddressed => "not-addressed",
            Self::OtherKey(_) => "other-client-key",
            Self::OtherParameters { .. } => "other-parameters",
            Self::OtherScheme { .. } => "other-scheme",
            Self::OtherModel { .. } => "other-model",
            Self::ModelStays => "model-stays",
            Self::NoShare => "no-threshold-share",
            Self::OtherShare => "other-threshold-share",
            Self::WrongDecryption { .. } => "wrong-decryption",
            Self::PeerLost { .. } => "peer-lost",
            Self::TwinLost { .. } => "twin-lost",
            Self::ExpiresTooLate { .. } => "expires-too-late",
            Self::ClientRevoked(_) => "client-revoked",
            Self::RoleMissing { .. } => "role-missing",
            Self::OtherTenant { .. } => "other-tenant",
            Self::BudgetExhausted { .. } => "budget-exhausted",
            Self::LockedOut { .. } => "locked-out",
            Self::Disabled { .. } => "subject-disabled",
            Self::Replayed => "replayed",
            Self::WrongUse { .. } => "wrong-use",
            Self::WrongDimension { .. } => "wrong-dimension",
            Self::BatchSize { .. } => "batch-size",
            Self::CopiesDiffer { .. } => "copies-differ",
            Self::RefusedByPeer { .. } => "refused-by-peer",
            Self::NotUnit => "not-unit-norm",
            Self::CommitmentBroken { .. } => "commitment-broken",
            Self::CommitmentsDiffer { .. } => "commitments-differ",
            Self::VotesDiffer { .. } => "votes-differ",
            Self::RequestsDiffer { .. } => "requests-differ",
            Self::BodiesDiffer { .. } => "bodies-differ",
            Self::CheckVectorsDiffer { .. } => "check-vectors-differ",
            Self::ScanCheck => "scan-check",
            Self::BadSums { .. } => "bad-sums",
            Self::GroupLeftOut { .. } => "group-left-out",
            Self::UnregisteredGroup { .. } => "unregistered-group",
            Self::RevokedRevision { .. } => "revoked-revision",
            Self::SumsDiffer { .. } => "sums-differ",
            Self::SessionSpent(_) => "session-spent",
            Self::UnknownSession(_) => "unknown-session",
            Self::OutOfTurn(_) => "out-of-turn",
            Self::OtherStage(_) => "other-stage",
            Self::CoarseDimensions { .. } => "preselection-dimensions",
            Self::TooManyCandidates { .. } => "too-many-candidates",
            Self::LabelReused { .. } => "label-reused",
            Self::NotAdmitted { .. } => "not-admitted",
            Self::MemberElsewhere { .. } => "member-elsewhere",
            Self::MemberLeftOut { .. } => "member-left-out",
            Self::BadSlots => "bad-slots",
            Self::WrongEpoch(_) => "wrong-epoch",
            Self::RegistryChanged => "registry-changed",
            Self::NoKeys => "no-keys",
            Self::EmptyScope => "empty-scope",
            Self::PeerStopped { .. } => "peer-stopped",
            Self::TimedOut { .. } => "timed-out",
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::Sealed(e) => e.status(),
            Self::Unseal(e) => e.status(),
            Self::Policy(e) => e.status(),
            Self::Protocol(e) => e.status(),
            Self::UnknownClient(_)
            | Self::UnknownAdministrator
            | Self::NotAddressed
            | Self::RestoreNotAllowed { .. }
            | Self::Expired
            | Self::Replayed
            | Self::ClientRevoked(_)
            | Self::RoleMissing { .. }
            | Self::OtherTenant { .. }
            | Self::Disabled { .. } => Status::PermissionDenied,
            Self::BudgetExhausted { .. } | Self::LockedOut { .. } => Status::ResourceExhausted,
            Self::TooManyCandidates { .. } => Status::FailedPrecondition,
            Self::UnknownCollection(_) | Self::UnknownSubject(_) | Self::UnknownSession(_) => Status::NotFound,
            Self::AlreadyEnrolled(_) | Self::OtherKey(_) => Status::AlreadyExists,
            Self::NoKeys
            | Self::NoShare
            | Self::OtherShare
            | Self::EmptyScope
            | Self::WrongEpoch(_)
            | Self::RestoredEpoch(_)
            | Self::SessionSpent(_)
            | Self::OutOfTurn(_) => Status::FailedPrecondition,
            Self::TimedOut { .. } | Self::PeerLost { .. } | Self::TwinLost { .. } => Status::Unavailable,
            Self::Malformed { .. }
            | Self::ExpiresTooLate { .. }
            | Self::OtherParameters { .. }
            | Self::OtherScheme { .. }
            | Self::OtherModel { .. }
            | Self::ModelStays
            | Self::WrongUse { .. }
            | Self::WrongDimension { .. }
            | Self::BatchSize { .. }
            | Self::NotUnit
            | Self::CoarseDimensions { .. }
            | Self::BadSlots => Status::InvalidArgument,
            _ => Status::Aborted,
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Sealed(e) => e.advice(),
            Self::Unseal(e) => e.advice(),
            Self::Policy(e) => e.advice(),
            Self::Protocol(e) => e.advice(),
            Self::UnknownClient(_) => "register the client's public key with all three key holders",
            Self::UnknownCollection(_) => "create the collection with all three key holders, or check its name",
            Self::UnknownSubject(_) => "enroll the subject first, or check its id",
            Self::AlreadyEnrolled(_) => "erase the subject first, or choose another id",
            Self::ExpiresTooLate { .. } => "sign the request with a shorter lifetime, and check the clocks",
            Self::ClientRevoked(_) => "ask an administrator to register a new client",
            Self::RoleMissing { .. } => "have an administrator give the client this role at all three key holders",
            Self::OtherTenant { .. } => {
                "have an administrator add the collection to the client's at all three key holders"
            }
            Self::BudgetExhausted { .. } => {
                "wait for the next window, or have the policy changed at all three key holders"
            }
            Self::LockedOut { .. } => "wait as long as it says before the next attempt",
            Self::Disabled { .. } => {
                "have an administrator unlock the subject at all three key holders, or enroll it again"
            }
            Self::Expired | Self::Replayed => "seal and sign a new request; each works once",
            Self::WrongUse { .. } => "seal the template for this purpose and collection",
            Self::WrongDimension { .. } => "use the model that the collection was made for",
            Self::BatchSize { .. } => "send the templates in smaller batches",
            Self::NotUnit => "divide the embedding by its L2 norm before sealing it",
            Self::CopiesDiffer { .. } | Self::RefusedByPeer { .. } => {
                "seal again with the holders' current public keys"
            }
            Self::RestoredEpoch(_) => "begin a new key epoch, then rebuild",
            Self::RestoreNotAllowed { .. } => "have an administrator sign an AllowRestore with this key's fingerprint",
            Self::UnknownAdministrator => "add the administrator's public key to this key holder's configuration",
            Self::NotAddressed => "sign a request for this key holder",
            Self::OtherKey(_) => "revoke the client and register the new key under a new id",
            Self::OtherModel { .. } => "extract it with the collection's model, and name that model when you send it",
            Self::ModelStays => "make another collection for another model, and enrol the people there",
            Self::OtherScheme { .. } => "keep the collection's scheme, or make another collection",
            Self::NoShare => "hold a dealer's ceremony and give every key holder its share first",
            Self::OtherShare => "install the share that the dealer made for this key holder",
            Self::OtherParameters { .. } => "describe the collection with the parameter set that all parties run",
            Self::TimedOut { .. } | Self::PeerLost { .. } | Self::TwinLost { .. } => {
                "check that the party runs and is reachable, then ask again with a new request"
            }
            Self::NoKeys => "hold the key ceremony with all three key holders first",
            Self::EmptyScope => "enroll somebody first",
            Self::RegistryChanged => "ask again with a new request",
            Self::WrongEpoch(_) => "rebuild under the current key epoch",
            Self::SessionSpent(_) => "seal a new probe: a session gives one decision",
            Self::PeerStopped { .. } => "see the reason of the holder that stopped first",
            Self::CoarseDimensions { .. } => {
                "preselect on the matcher's hot dimensions, a multiple of every block width"
            }
            Self::TooManyCandidates { .. } => {
                "ask with a higher coarse threshold or more dimensions, or without preselection"
            }
            Self::ScanCheck
            | Self::BadSums { .. }
            | Self::GroupLeftOut { .. }
            | Self::UnregisteredGroup { .. }
            | Self::RevokedRevision { .. } => {
                "the matcher's index is damaged or dishonest: rebuild it from the sealed templates"
            }
            _ => "look at the named party's logs; nothing was opened or changed",
        }
    }
}
