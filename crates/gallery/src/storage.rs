//! What a storage back end must do: load an image, apply changes atomically, hand out sealed templates.
//!
//! The matcher and the three holders change together by two-phase commit. The matcher's decision is an [`Intent`]: it
//! is durable before the holders hear `Commit`, and stays until all three have acknowledged; after a crash the matcher
//! says `Commit` again for every intent that it finds. So what a client was told is done, or will be.

use std::collections::BTreeMap;
use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use veilmatch_domain::{
    CollectionId, Dimension, Explain, GroupId, Revision, Status, SubjectId, TemplateDigest, Timestamp,
};
use veilmatch_glwe::Segments;

use crate::{CollectionIndex, GroupRecord};

/// What the matcher knows of a collection. The holders' policy is theirs.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Description {
    /// Dimension of every template.
    pub dimension: Dimension,
    /// The parameter set of the scheme, for example `glwe-2048-v1`.
    pub parameters: String,
    /// Most members of one packed group.
    pub group_capacity: u32,
    /// When it was created.
    pub created: Timestamp,
}

/// What an intent is known by: the session of an admission or a build, the digest of a signed erasure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct IntentId(pub [u8; 32]);

impl std::fmt::Debug for IntentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IntentId(")?;
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// A decision that the three holders are being told, until all have acknowledged it.
#[derive(Clone, Debug, PartialEq)]
pub enum Intent {
    /// Templates that all three holders accepted: their session is being committed.
    Admission {
        /// The collection.
        collection: CollectionId,
        /// Whose templates, in the order of the request.
        templates: Vec<(SubjectId, TemplateDigest)>,
    },
    /// A revision of a group whose bodies are complete: its session is being committed.
    Build {
        /// The collection.
        collection: CollectionId,
        /// The group as it will be.
        record: Arc<GroupRecord>,
        /// Groups whose members it takes.
        replaces: Vec<GroupId>,
    },
    /// A signed erasure that the holders are being told.
    Erasure {
        /// The collection.
        collection: CollectionId,
        /// Whose template.
        subject: SubjectId,
        /// Which template.
        digest: TemplateDigest,
        /// The signed request.
        request: Vec<u8>,
        /// The request's expiry: until then a repetition is answered as done.
        expires: Timestamp,
    },
}

/// One step of the store. [`Storage::apply`] takes several as one transaction.
#[derive(Clone, Debug)]
pub enum Change {
    /// Creates a collection, or describes it anew.
    Describe {
        /// The collection.
        collection: CollectionId,
        /// What it is.
        description: Description,
    },
    /// A revision is about to be ordered and must never be ordered again.
    UseRevision {
        /// The collection.
        collection: CollectionId,
        /// The group.
        group: GroupId,
        /// The revision.
        revision: Revision,
    },
    /// A decision becomes durable. It has no effect on the index yet.
    Decide {
        /// Its id.
        id: IntentId,
        /// What was decided.
        intent: Intent,
        /// For an admission: the sealed templates, in the intent's order. Empty otherwise.
        sealed: Vec<Vec<u8>>,
    },
    /// All three holders have acknowledged: templates are stored; the group is live and what it replaces is gone; the
    /// subject's template is removed and the request remembered as done.
    Settle {
        /// The intent.
        id: IntentId,
    },
    /// The intent is forgotten without effect (all three holders refused an erasure).
    Withdraw {
        /// The intent.
        id: IntentId,
    },
    /// Drops a group that has no members left.
    DropGroup {
        /// The collection.
        collection: CollectionId,
        /// The group.
        group: GroupId,
    },
    /// Forgets that an erasure was done: its request has expired.
    ForgetErasure {
        /// The digest of the signed request.
        id: IntentId,
    },
}

/// One collection as loaded.
#[derive(Clone, Debug)]
pub struct CollectionImage {
    /// What it is.
    pub description: Description,
    /// Who is stored and indexed. Damaged groups are there without bodies, and due to be rebuilt.
    pub index: CollectionIndex,
    /// Groups whose files are missing or fail their checksum.
    pub damaged: Vec<GroupId>,
}

/// Everything the matcher remembers.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// How often this store was loaded, this time included: numbers of attempts begin above those of earlier lives.
    pub lives: u64,
    /// The collections.
    pub collections: BTreeMap<CollectionId, CollectionImage>,
    /// Decisions that are not settled, oldest first.
    pub intents: Vec<(IntentId, Intent)>,
    /// Erasures that are done, with the expiry of their requests.
    pub erased: BTreeMap<IntentId, Timestamp>,
}

/// Why the store cannot do what it should. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// No space is left, or a size limit is reached.
    #[error("the store has no room: {0}")]
    Full(String),
    /// The operating system refused.
    #[error("the store cannot be read or written: {0}")]
    Io(String),
    /// What is stored is not what was written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// Another process has the store open.
    #[error("the store is in use: {0}")]
    InUse(String),
    /// A newer program wrote it.
    #[error("the store has format {found}; this program knows formats up to {known}")]
    Newer {
        /// The store's format.
        found: u32,
        /// The newest format that this program reads.
        known: u32,
    },
    /// The change does not fit what is stored; a mistake in the calling program.
    #[error("the change does not fit the store: {0}")]
    Misfit(String),
}

impl Explain for StorageError {
    fn code(&self) -> &'static str {
        match self {
            Self::Full(_) => "storage-full",
            Self::Io(_) => "storage-io",
            Self::Damaged(_) => "storage-damaged",
            Self::InUse(_) => "storage-in-use",
            Self::Newer { .. } => "storage-newer",
            Self::Misfit(_) => "storage-misfit",
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::Full(_) => Status::ResourceExhausted,
            Self::Damaged(_) => Status::DataLoss,
            Self::Newer { .. } => Status::FailedPrecondition,
            _ => Status::Unavailable,
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Full(_) => "free space on the matcher's disk, then try again; nothing was changed",
            Self::Io(_) => "look at the matcher's disk and logs; nothing was changed",
            Self::Damaged(_) => {
                "restore the matcher's database from its backup; packed groups are rebuilt by themselves"
            }
            Self::InUse(_) => "stop the other matcher that uses this folder",
            Self::Newer { .. } => "run the version of the matcher that wrote this folder, or a later one",
            Self::Misfit(_) => "report this with the matcher's logs; nothing was changed",
        }
    }
}

/// A durable store. Narrow on purpose: a database server can stand behind it.
///
/// Every change names a collection that was described. What else must fit, or the whole transaction is a
/// [`StorageError::Misfit`]:
/// - `UseRevision`: above every revision that was ordered or built for the group.
/// - `Decide`: an id that is not known. The same decision under an id that waits already changes nothing, so that a
///   caller may repeat one whose outcome it did not learn; other content, or an erasure that is done, is a misfit.
///   - Admission: one sealed template for each subject, each subject once, none of them in another admission and none of the templates
///     stored. Settling it removes what a subject had before.
///   - Build: a revision above the live one of its group, of which no other build waits.
///   - Erasure: the template is stored.
/// - `Settle` and `Withdraw`: the intent waits. Settling an erasure removes the template if it is still that one.
/// - `DropGroup` of a group that is not there and `ForgetErasure` of one that is not known change nothing.
pub trait Storage: Send + Sync {
    /// Reads everything but the sealed templates, and counts a new life.
    ///
    /// A build that waits and whose file is damaged comes back without bodies, its group among the damaged ones: the
    /// holders must still be told, and once it is settled the group must be indexed again like any damaged one.
    ///
    /// # Errors
    /// [`StorageError`].
    fn load(&self) -> Result<Image, StorageError>;

    /// Applies all changes or none; they are durable when this returns.
    ///
    /// # Errors
    /// [`StorageError`]; then nothing was changed.
    fn apply(&self, changes: &[Change]) -> Result<(), StorageError>;

    /// The sealed templates of subjects, in order; `None` where there is none.
    ///
    /// # Errors
    /// [`StorageError`].
    fn sealed(&self, collection: &CollectionId, subjects: &[SubjectId]) -> Result<Vec<Option<Vec<u8>>>, StorageError>;

    /// The bodies of a group that was decided, from where the store keeps them (a memory-mapped file, say), to replace
    /// those of `record` in memory; `None` if the store keeps nothing better or cannot read it.
    fn mapped(&self, collection: &CollectionId, record: &GroupRecord) -> Option<Segments> {
        let _ = (collection, record);
        None
    }
}
