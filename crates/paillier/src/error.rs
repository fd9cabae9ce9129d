//! What can be wrong with keys, ciphertexts and proofs. No plaintext, share or randomness is ever part of an error.

use veilmatch_domain::{Explain, Party, Status, Suspect};

use crate::Parts;

/// Why something is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PaillierError {
    /// Another number of bytes than the fields ask for.
    #[error("{found} bytes; this {what} has {expected}")]
    Length {
        /// What was read.
        what: &'static str,
        /// Number of bytes.
        found: usize,
        /// Number of bytes of a well-formed one.
        expected: usize,
    },
    /// A number that is not below its modulus, or above its bound.
    #[error("the {what} is out of range")]
    OutOfRange {
        /// Which number.
        what: &'static str,
    },
    /// A number that shares a factor with N.
    #[error("the {what} is not invertible")]
    NotInvertible {
        /// Which number.
        what: &'static str,
    },
    /// A public key whose elements do not fit each other.
    #[error("not a public key: {why}")]
    Key {
        /// What does not fit.
        why: &'static str,
    },
    /// A field that does not decode.
    #[error("the {what} is malformed")]
    Malformed {
        /// Which field.
        what: &'static str,
    },
    /// A ciphertext or plaintext of another key.
    #[error("this belongs to another key")]
    OtherKey,
    /// Two lists that go together have different lengths, or a list is too long or empty.
    #[error("{found} {what}; expected {expected}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many are allowed or expected.
        expected: usize,
    },
    /// A partial decryption that is not what the holder's share gives.
    #[error("the partial decryption of {parts} by {party} is wrong")]
    Decryption {
        /// Who sent it.
        party: Party,
        /// For which parts.
        parts: Parts,
    },
    /// A holder that claims a part which it does not have.
    #[error("{party} does not know {parts}")]
    NotItsPart {
        /// Who.
        party: Party,
        /// Which.
        parts: Parts,
    },
}

impl PaillierError {
    /// The holder that this error proves to have cheated, if it proves one.
    #[must_use]
    pub fn suspect(&self) -> Option<Suspect> {
        match self {
            Self::Decryption { party, .. } | Self::NotItsPart { party, .. } => Some(Suspect::Holder(*party)),
            _ => None,
        }
    }
}

impl Explain for PaillierError {
    fn code(&self) -> &'static str {
        match self {
            Self::Length { .. } => "paillier-length",
            Self::OutOfRange { .. } => "paillier-out-of-range",
            Self::NotInvertible { .. } => "paillier-not-invertible",
            Self::Key { .. } => "bad-paillier-key",
            Self::Malformed { .. } => "paillier-malformed",
            Self::OtherKey => "other-paillier-key",
            Self::Count { .. } => "paillier-count",
            Self::Decryption { .. } => "wrong-partial-decryption",
            Self::NotItsPart { .. } => "not-its-part",
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::OtherKey => Status::FailedPrecondition,
            Self::Decryption { .. } | Self::NotItsPart { .. } => Status::Aborted,
            _ => Status::InvalidArgument,
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Length { .. } | Self::Malformed { .. } | Self::Count { .. } => {
                "send what this version of the library makes"
            }
            Self::OutOfRange { .. } => {
                "encrypt and pack with this library; values beyond the bounds are never accepted"
            }
            Self::NotInvertible { .. } => "no honest party makes such a number: find out who sent it",
            Self::Key { .. } => "fetch the public key again from the key holders",
            Self::OtherKey => "encrypt under the key of this collection",
            Self::Decryption { .. } | Self::NotItsPart { .. } => {
                "stop working with the named holder until its operator explains"
            }
        }
    }
}
