//! What can go wrong with shares and decryptions. No secret is ever part of an error.

use veilmatch_domain::{Explain, Part, Party, Status, Suspect};
use veilmatch_paillier::PaillierError;

/// Why a key is not dealt, a share not read, a batch not decrypted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ThresholdError {
    /// A ciphertext, key or contribution is refused; [`PaillierError::Decryption`] names a holder that cheated.
    #[error(transparent)]
    Paillier(#[from] PaillierError),
    /// The search for primes ended without one.
    #[error("no safe prime was found: {why}")]
    Primes {
        /// What the library said.
        why: &'static str,
    },
    /// The primes do not make a key.
    #[error("these primes do not make a key")]
    Unsuitable,
    /// The bytes are not a key share.
    #[error("the {what} of the key share is malformed")]
    Malformed {
        /// Which field.
        what: &'static str,
    },
    /// A part that is not the one of the public key.
    #[error("{part} of {party}'s share does not belong to the public key")]
    WrongPart {
        /// Whose share.
        party: Party,
        /// Which part.
        part: Part,
    },
    /// Nobody contributed a part.
    #[error("nobody contributed {0}")]
    MissingPart(Part),
    /// A part came twice.
    #[error("{0} was contributed twice")]
    RepeatedPart(Part),
    /// All proofs hold, and yet the product is no decryption: the public key is not what its dealer says.
    #[error("ciphertext {index} does not decrypt though all contributions are right")]
    NotDecrypted {
        /// Which ciphertext of the batch.
        index: usize,
    },
}

impl ThresholdError {
    /// The holder that this error proves to have cheated, if it proves one.
    #[must_use]
    pub fn suspect(&self) -> Option<Suspect> {
        match self {
            Self::Paillier(error) => error.suspect(),
            _ => None,
        }
    }
}

impl Explain for ThresholdError {
    fn code(&self) -> &'static str {
        match self {
            Self::Paillier(error) => error.code(),
            Self::Primes { .. } => "no-prime-found",
            Self::Unsuitable => "unsuitable-primes",
            Self::Malformed { .. } => "malformed-key-share",
            Self::WrongPart { .. } => "wrong-key-share",
            Self::MissingPart(_) => "missing-part",
            Self::RepeatedPart(_) => "repeated-part",
            Self::NotDecrypted { .. } => "not-decrypted",
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::Paillier(error) => error.status(),
            Self::Primes { .. } | Self::Unsuitable => Status::Aborted,
            Self::Malformed { .. } | Self::WrongPart { .. } | Self::NotDecrypted { .. } => Status::DataLoss,
            Self::MissingPart(_) | Self::RepeatedPart(_) => Status::InvalidArgument,
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Paillier(error) => error.advice(),
            Self::Primes { .. } | Self::Unsuitable => "run the ceremony again",
            Self::Malformed { .. } | Self::WrongPart { .. } => "restore the key share from its backup",
            Self::MissingPart(_) | Self::RepeatedPart(_) => {
                "ask one holder for both of its parts and another for the third"
            }
            Self::NotDecrypted { .. } => "compare the public key with the one of the ceremony",
        }
    }
}
