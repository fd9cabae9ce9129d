//! What can be wrong with sealed bytes.

use veilmatch_domain::{Explain, Status};
use veilmatch_secret::Exhausted;

/// Why something cannot be sealed, read or opened. No content, key or share is ever part of the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealedError {
    /// More bytes than any valid message has.
    #[error("{found} bytes; at most {limit} are allowed")]
    TooLong {
        /// Number of bytes.
        found: usize,
        /// Largest number of bytes.
        limit: usize,
    },
    /// Another number of bytes than the fields ask for.
    #[error("{found} bytes; this message has {expected}")]
    Length {
        /// Number of bytes.
        found: usize,
        /// Number of bytes of a well-formed message.
        expected: usize,
    },
    /// A field that does not decode.
    #[error("the {what} is malformed")]
    Malformed {
        /// Which field.
        what: &'static str,
    },
    /// Bytes that are not a key, or are a key of small order.
    #[error("the {what} is not a valid public key")]
    PublicKey {
        /// Whose key.
        what: &'static str,
    },
    /// Two holders with one key: a single one of them could read all parts.
    #[error("two key holders have the same public key")]
    RepeatedHolderKey,
    /// The embedding does not have the dimension that the associated data say.
    #[error("an embedding of {found} dimensions; the associated data say {expected}")]
    Dimension {
        /// The embedding's.
        found: usize,
        /// That of the associated data.
        expected: usize,
    },
    /// The signature is not the client's.
    #[error("the signature does not belong to the client's key and this content")]
    Signature,
    /// The authentication tag is wrong: altered, for somebody else, or under another key.
    #[error("the sealed bytes are not authentic")]
    NotAuthentic,
    /// The query asks for 0 or too many matches.
    #[error("the query's max_matches is outside its range")]
    Query,
    /// The outcome cannot answer the query: another mode, too many subjects, or not in order.
    #[error("the outcome does not answer the query")]
    Outcome,
    /// A holder did not reply.
    #[error("there is no reply")]
    MissingReply,
    /// No nonces are left under this key.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
}

impl Explain for SealedError {
    fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } | Self::Length { .. } => "sealed-length",
            Self::Malformed { .. } => "sealed-malformed",
            Self::PublicKey { .. } => "bad-public-key",
            Self::RepeatedHolderKey => "repeated-holder-key",
            Self::Dimension { .. } => "wrong-dimension",
            Self::Signature => "bad-signature",
            Self::NotAuthentic => "not-authentic",
            Self::Query => "bad-query",
            Self::Outcome => "wrong-outcome",
            Self::MissingReply => "missing-reply",
            Self::Exhausted(_) => "nonces-exhausted",
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::TooLong { .. }
            | Self::Length { .. }
            | Self::Malformed { .. }
            | Self::PublicKey { .. }
            | Self::Dimension { .. }
            | Self::Query => Status::InvalidArgument,
            Self::RepeatedHolderKey => Status::FailedPrecondition,
            Self::Signature => Status::PermissionDenied,
            Self::NotAuthentic | Self::Outcome => Status::Aborted,
            Self::MissingReply => Status::Unavailable,
            Self::Exhausted(_) => Status::ResourceExhausted,
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::TooLong { .. } | Self::Length { .. } | Self::Malformed { .. } => {
                "send the bytes exactly as the SDK made them; both sides must run the same format version"
            }
            Self::PublicKey { .. } => "fetch the key again from its owner and compare fingerprints",
            Self::RepeatedHolderKey => "give every key holder its own key pair",
            Self::Dimension { .. } => "use the model that the collection was made for",
            Self::Signature => "sign with the key that is registered for this client",
            Self::NotAuthentic => "check that client and key holders agree on all three public keys, then seal again",
            Self::Query => "ask for 1 to 64 matches",
            Self::Outcome => "ask again; if it happens twice, report the key holder that replied",
            Self::MissingReply => "try again when the key holder can be reached",
            Self::Exhausted(_) => "seal a new request",
        }
    }
}
