//! Why the matcher refuses.

use veilmatch_domain::{CollectionId, Explain, GroupId, Part, Party, Status, SubjectId, Suspect};
use veilmatch_gallery::StorageError;
use veilmatch_glwe::{CiphertextError, Refusal};
use veilmatch_sealed::SealedError;

/// Everything that makes the matcher stop a request. The index is as before unless a variant says otherwise.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MatcherError {
    /// A client's message that is not one.
    #[error("the request cannot be read")]
    MalformedRequest,
    /// A holder's message that is not one.
    #[error("a message from key holder {0} cannot be read")]
    MalformedAnswer(Party),
    /// A sealed template or signed request is malformed.
    #[error(transparent)]
    Sealed(#[from] SealedError),
    /// More templates in one request than one admission takes, or none.
    #[error("{found} templates in one request; 1 to {allowed} are accepted")]
    BatchSize {
        /// What came.
        found: usize,
        /// The limit.
        allowed: usize,
    },
    /// The collection is unknown here.
    #[error("collection {0} does not exist")]
    UnknownCollection(CollectionId),
    /// The subject is not enrolled here.
    #[error("subject {0} is not enrolled")]
    UnknownSubject(SubjectId),
    /// Nothing is indexed.
    #[error("there is no searchable template in the query's scope")]
    EmptyScope,
    /// A sealed template is neither an enrolment nor a probe as the request needs it.
    #[error("the sealed template is signed for another purpose")]
    WrongUse,
    /// The two holders of a part sent different copies, or one that cannot be read.
    #[error(transparent)]
    Ciphertext(#[from] CiphertextError),
    /// A holder sent the same part twice, or a part that it does not hold.
    #[error("key holder {0} sent a part that is not expected from it")]
    UnexpectedPart(Party),
    /// Two holders named different seeds of one probe's masks.
    #[error("key holders {0} and {1} do not agree on the masks of the probe")]
    SeedsDiffer(Party, Party),
    /// One holder's verdict on a template is not that of the two others.
    #[error("key holder {0} does not agree with the others on what is admitted")]
    VerdictsDiffer(Party),
    /// The bodies of a group were lost; it is being rebuilt from the sealed templates.
    #[error("packed group {0} is damaged and is being rebuilt")]
    GroupDamaged(GroupId),
    /// The holders do not name the same candidate groups.
    #[error("the key holders do not name the same candidate groups")]
    CandidatesDiffer(Vec<Suspect>),
    /// The index is not cut where the preselection needs it.
    #[error("preselection on {asked} dimensions; {}", hot.map_or_else(
        || String::from("the index has no hot segment of its own here"),
        |hot| format!("the index has {hot} hot ones"),
    ))]
    NotSegmented {
        /// What was asked.
        asked: u16,
        /// The hot dimensions of the index, if it has any.
        hot: Option<usize>,
    },
    /// Another dimension than the collection's.
    #[error("the sealed template has {found} dimensions; the collection has {expected}")]
    WrongDimension {
        /// Of the template.
        found: usize,
        /// Of the collection.
        expected: usize,
    },
    /// The collection exists with another dimension or parameter set, or this matcher has no such parameter set.
    #[error("collection {0} exists with another dimension or parameter set, or the set is unknown here")]
    OtherCollection(CollectionId),
    /// More requests at once than are taken on.
    #[error("{limit} requests are under way or wait already")]
    Busy {
        /// The limit.
        limit: usize,
    },
    /// There is no connection to a holder.
    #[error("no connection to {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and "))]
    Unreachable(Vec<Suspect>),
    /// This matcher has no public key of the scheme `paillier`, or another than the collection's.
    #[error("collection {0} is under the scheme `paillier`, and its public key is not known here")]
    NoPublicKey(CollectionId),
    /// The twin's message does not fit what it was asked.
    #[error("the twin's answer does not fit the question")]
    UnexpectedEvaluation,
    /// The matcher is being stopped.
    #[error("the matcher is stopping")]
    Stopping,
    /// The store refused.
    #[error("{text}")]
    Storage {
        /// What happened.
        text: String,
        /// [`Explain::code`] of the store's error.
        code: &'static str,
        /// [`Explain::status`] of the store's error.
        status: Status,
        /// [`Explain::advice`] of the store's error.
        advice: &'static str,
    },
    /// Messages did not come in time.
    #[error("waited in vain for {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and "))]
    TimedOut(Vec<Suspect>),
    /// No key ceremony has been announced to this matcher.
    #[error("the key ceremony is not complete")]
    NoKeys,
}

impl From<StorageError> for MatcherError {
    fn from(error: StorageError) -> Self {
        Self::Storage { text: error.to_string(), code: error.code(), status: error.status(), advice: error.advice() }
    }
}

impl MatcherError {
    /// Whom the error points at.
    #[must_use]
    pub fn suspects(&self) -> Vec<Suspect> {
        let holders = |part: Part| vec![Suspect::holders_of(part)];
        match self {
            Self::MalformedAnswer(p) | Self::UnexpectedPart(p) | Self::VerdictsDiffer(p) => vec![Suspect::Holder(*p)],
            Self::SeedsDiffer(a, b) => vec![Suspect::pair(*a, *b)],
            Self::Ciphertext(e) => holders(e.part()),
            Self::TimedOut(suspects) | Self::Unreachable(suspects) | Self::CandidatesDiffer(suspects) => {
                suspects.clone()
            }
            Self::EmptyScope | Self::NoKeys | Self::Busy { .. } | Self::Stopping => Vec::new(),
            Self::UnexpectedEvaluation => vec![Suspect::Twin],
            Self::NoPublicKey(_) | Self::Storage { .. } | Self::GroupDamaged(_) => vec![Suspect::Matcher],
            _ => vec![Suspect::Client],
        }
    }

    /// The error as it crosses the border.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        Refusal::new(self, self.suspects())
    }
}

impl Explain for MatcherError {
    fn code(&self) -> &'static str {
        match self {
            Self::MalformedRequest | Self::MalformedAnswer(_) => "malformed-message",
            Self::Sealed(e) => e.code(),
            Self::BatchSize { .. } => "batch-size",
            Self::UnknownCollection(_) => "unknown-collection",
            Self::UnknownSubject(_) => "unknown-subject",
            Self::EmptyScope => "empty-scope",
            Self::WrongUse => "wrong-use",
            Self::Ciphertext(_) => "bodies-differ",
            Self::UnexpectedPart(_) => "unexpected-part",
            Self::SeedsDiffer(..) => "seeds-differ",
            Self::VerdictsDiffer(_) => "verdicts-differ",
            Self::CandidatesDiffer(_) => "candidates-differ",
            Self::NotSegmented { .. } => "not-segmented",
            Self::TimedOut(_) => "timed-out",
            Self::NoKeys => "no-keys",
            Self::NoPublicKey(_) => "no-public-key",
            Self::UnexpectedEvaluation => "unexpected-evaluation",
            Self::GroupDamaged(_) => "group-damaged",
            Self::WrongDimension { .. } => "wrong-dimension",
            Self::OtherCollection(_) => "other-collection",
            Self::Busy { .. } => "busy",
            Self::Stopping => "stopping",
            Self::Unreachable(_) => "unreachable",
            Self::Storage { code, .. } => code,
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::MalformedRequest | Self::BatchSize { .. } | Self::WrongUse | Self::WrongDimension { .. } => {
                Status::InvalidArgument
            }
            Self::OtherCollection(_) => Status::AlreadyExists,
            Self::Busy { .. } => Status::ResourceExhausted,
            Self::Storage { status, .. } => *status,
            Self::Sealed(e) => e.status(),
            Self::UnknownCollection(_) | Self::UnknownSubject(_) => Status::NotFound,
            Self::EmptyScope | Self::NoKeys | Self::NoPublicKey(_) | Self::NotSegmented { .. } => {
                Status::FailedPrecondition
            }
            Self::TimedOut(_) | Self::Unreachable(_) | Self::Stopping | Self::GroupDamaged(_) => Status::Unavailable,
            _ => Status::Aborted,
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::MalformedRequest => "use a client of the same version",
            Self::Sealed(e) => e.advice(),
            Self::BatchSize { .. } => "send the templates in smaller batches",
            Self::UnknownCollection(_) => "create the collection first, or check its name",
            Self::UnknownSubject(_) => "enroll the subject first, or check its id",
            Self::EmptyScope => "enroll somebody first",
            Self::NotSegmented { .. } => {
                "preselect on the index's hot dimensions; the matcher's `index.hot_dimensions` sets them, and groups are \
                 rebuilt for it in quiet moments"
            }
            Self::WrongUse => "seal the template for the purpose of the request",
            Self::TimedOut(_) => "check that the party runs and is reachable, then ask again with a new request",
            Self::GroupDamaged(_) => "ask again in a moment: it is rebuilt from the sealed templates",
            Self::WrongDimension { .. } => "use the model that the collection was made for",
            Self::OtherCollection(_) => {
                "choose another name, or create it with the dimension and parameters that it has"
            }
            Self::Busy { .. } => "try again in a moment, with fewer requests at once",
            Self::Unreachable(_) => {
                "check that the key holder runs and is reachable, then ask again; nothing was asked of anybody"
            }
            Self::Stopping => "ask again when it is back",
            Self::Storage { advice, .. } => advice,
            Self::NoPublicKey(_) => "give the matcher the public key that the dealer made",
            Self::NoKeys => "hold the key ceremony with all three key holders first",
            _ => "look at the named holder's logs; nothing was opened or changed",
        }
    }
}
