//! Why there is nothing to evaluate.

use veilmatch_domain::{EmbeddingError, Explain, Status};

/// Why an evaluation has no result. No coordinate, score or label is part of a message.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluationError {
    /// A template of another dimension than the first, or a transform of another dimension.
    #[error("a template of {found} dimensions where {expected} are expected")]
    Dimension {
        /// What came.
        found: usize,
        /// What was expected.
        expected: usize,
    },
    /// Two lists that belong together differ in length, or one names what the other does not have.
    #[error("{what} do not belong to these templates")]
    Mismatch {
        /// Which list.
        what: &'static str,
    },
    /// Too little of something.
    #[error("{found} {what}; at least {needed} are needed")]
    TooFew {
        /// Of what, in the plural.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
    /// A number outside its range.
    #[error("{what} is out of range")]
    Range {
        /// Which number.
        what: &'static str,
    },
    /// Images of one person in two groups.
    #[error("a person is in two groups")]
    TwoGroups,
    /// Eigenvectors were not found.
    #[error("the eigenvectors of the covariance cannot be computed")]
    Diverged,
    /// What came out is no embedding.
    #[error(transparent)]
    Embedding(#[from] EmbeddingError),
}

impl Explain for EvaluationError {
    fn code(&self) -> &'static str {
        match self {
            Self::Dimension { .. } => "wrong-dimension",
            Self::Mismatch { .. } => "mismatch",
            Self::TooFew { .. } => "too-few",
            Self::Range { .. } => "out-of-range",
            Self::TwoGroups => "two-groups",
            Self::Diverged => "no-components",
            Self::Embedding(error) => error.code(),
        }
    }
    fn status(&self) -> Status {
        Status::InvalidArgument
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::Dimension { .. } => "use templates of one model, and the transform that was fitted for it",
            Self::Mismatch { .. } => "check that the tables belong to these embeddings",
            Self::TooFew { .. } => "add people or images, or ask for less",
            Self::Range { .. } => "see --help for the range",
            Self::TwoGroups => "give all rows of a person the same group",
            Self::Diverged => "check the embeddings",
            Self::Embedding(error) => error.advice(),
        }
    }
}
