//! Why a message of the interface is refused.

use veilmatch_domain::{EmbeddingError, Explain, IdentifierError, Status};

/// A message that does not say what its type promises.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// A field that must be set is not.
    #[error("the field `{field}` is missing")]
    Missing {
        /// Its name in the proto file.
        field: &'static str,
    },
    /// A number that no value of the field has, or a combination that none has.
    #[error("the field `{field}` has a value that this version does not know")]
    Unknown {
        /// Its name in the proto file.
        field: &'static str,
    },
    /// More bytes or items than the field takes, or another number than it must have.
    #[error("the field `{field}` has {found} bytes or items; the limit is {limit}")]
    Size {
        /// Its name in the proto file.
        field: &'static str,
        /// Bytes or items that came.
        found: usize,
        /// Bytes or items that are allowed.
        limit: usize,
    },
    /// Not a name.
    #[error(transparent)]
    Identifier(#[from] IdentifierError),
    /// Not a dimension.
    #[error(transparent)]
    Dimension(#[from] EmbeddingError),
}

impl Explain for WireError {
    fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing-field",
            Self::Unknown { .. } => "unknown-value",
            Self::Size { .. } => "field-size",
            Self::Identifier(e) => e.code(),
            Self::Dimension(e) => e.code(),
        }
    }

    fn status(&self) -> Status {
        Status::InvalidArgument
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Missing { .. } | Self::Unknown { .. } => {
                "use the same version on both sides, or set the field as the proto file says"
            }
            Self::Size { .. } => "stay inside the limits that the proto file names",
            Self::Identifier(e) => e.advice(),
            Self::Dimension(e) => e.advice(),
        }
    }
}
