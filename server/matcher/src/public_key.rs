//! The public key of the scheme `paillier`, as the dealer wrote it. The matcher and its twin read the same file.

use std::path::{Path, PathBuf};

use veilmatch_domain::{Explain, Status};
use veilmatch_paillier::{PaillierError, PublicKey};
use veilmatch_transport::{FileError, read_public};

/// Twelve numbers of at most 3,072 bits.
const LIMIT: usize = 16 << 10;

/// Why the public key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublicKeyError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its content.
    #[error("{}: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PaillierError,
    },
}

impl Explain for PublicKeyError {
    fn code(&self) -> &'static str {
        match self {
            Self::File(e) => e.code(),
            Self::Content { .. } => "bad-public-key",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::File(e) => e.status(),
            Self::Content { .. } => Status::FailedPrecondition,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::File(e) => e.advice(),
            Self::Content { .. } => "use the file `paillier.pub` that the dealer wrote",
        }
    }
}

/// Reads and checks a public key, and logs its fingerprint: the dealer printed the same one.
///
/// # Errors
/// [`PublicKeyError`].
pub(crate) fn read(path: &Path) -> Result<PublicKey, PublicKeyError> {
    let bytes = read_public(path, LIMIT)?;
    let key =
        PublicKey::from_bytes(&bytes).map_err(|source| PublicKeyError::Content { path: path.to_owned(), source })?;
    let fingerprint = veilmatch_service::fingerprint(&key.digest().0);
    tracing::info!(parameters = key.size().parameters(), fingerprint, "public key of the scheme paillier");
    Ok(key)
}
