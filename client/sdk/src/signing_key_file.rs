//! A client's or administrator's signing key in a file of its owner's alone, and public keys as text.
//!
//! ```text
//! -----BEGIN VEILMATCH SIGNING KEY-----
//! <base64 of the 32 secret bytes>
//! -----END VEILMATCH SIGNING KEY-----
//! ```

use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use veilmatch_domain::{Explain, Status};
use veilmatch_sealed::{ClientSigningKey, ClientVerifyingKey, SealedError};
use veilmatch_secret::{Secret, os_entropy};
use veilmatch_transport::{FileError, read_private, write_new_private};

const BEGIN: &str = "-----BEGIN VEILMATCH SIGNING KEY-----";
const END: &str = "-----END VEILMATCH SIGNING KEY-----";
const LIMIT: usize = 1024;
/// Base64 of 32 bytes.
const ENCODED: usize = 44;

/// A signing key and what it is registered by.
pub struct SigningKeyFile {
    key: ClientSigningKey,
}

impl fmt::Debug for SigningKeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKeyFile(public key {}, secret redacted)", self.public_key())
    }
}

/// Why a key file or a public key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file, or who may read it.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not a signing key file.
    #[error("the signing key file is malformed")]
    Malformed,
    /// Not the base64 of 32 bytes.
    #[error("a public key is 44 characters of base64")]
    Text,
    /// 32 bytes that are not a public key.
    #[error(transparent)]
    PublicKey(#[from] SealedError),
}

impl Explain for KeyFileError {
    fn code(&self) -> &'static str {
        match self {
            Self::File(e) => e.code(),
            Self::Malformed => "bad-key-file",
            Self::Text => "bad-public-key",
            Self::PublicKey(e) => e.code(),
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::File(e) => e.status(),
            Self::Malformed => Status::FailedPrecondition,
            Self::Text => Status::InvalidArgument,
            Self::PublicKey(e) => e.status(),
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::File(e) => e.advice(),
            Self::Malformed => "name a signing key file, not a TLS key; restore it from its backup if it is damaged",
            Self::Text => "copy the public key again as it was printed when the key was made",
            Self::PublicKey(e) => e.advice(),
        }
    }
}

impl SigningKeyFile {
    /// Draws a key and writes it to a new file with mode 0600.
    ///
    /// # Errors
    /// [`KeyFileError::File`], also if the file exists.
    pub fn create(path: &Path) -> Result<Self, KeyFileError> {
        let key = ClientSigningKey::random(&mut *os_entropy());
        let mut encoded = Secret::new([0u8; ENCODED]);
        STANDARD
            .encode_slice(key.secret_bytes().expose(), encoded.expose_mut())
            .map_err(|_| KeyFileError::Malformed)?;
        let mut text = Secret::new(Vec::with_capacity(LIMIT));
        for part in [BEGIN.as_bytes(), b"\n", encoded.expose(), b"\n", END.as_bytes(), b"\n"] {
            text.expose_mut().extend_from_slice(part);
        }
        write_new_private(path, text.expose())?;
        Ok(Self { key })
    }

    /// Reads a key.
    ///
    /// # Errors
    /// [`KeyFileError`], also if group or others have any right to the file.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let text = read_private(path, LIMIT)?;
        let text = std::str::from_utf8(text.expose()).map_err(|_| KeyFileError::Malformed)?;
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let (Some(BEGIN), Some(encoded), Some(END), None) = (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(KeyFileError::Malformed);
        };
        let mut bytes = Secret::new([0u8; 32]);
        match STANDARD.decode_slice(encoded, bytes.expose_mut()) {
            Ok(32) => Ok(Self { key: ClientSigningKey::from_bytes(bytes.expose()) }),
            _ => Err(KeyFileError::Malformed),
        }
    }

    /// The public key as text: what an administrator registers.
    #[must_use]
    pub fn public_key(&self) -> String {
        public_key_text(&self.key.verifying_key())
    }

    /// The key itself.
    #[must_use]
    pub fn key(&self) -> &ClientSigningKey {
        &self.key
    }

    /// The key itself, taken out.
    #[must_use]
    pub fn into_key(self) -> ClientSigningKey {
        self.key
    }
}

/// A public key as text: base64, 44 characters.
#[must_use]
pub fn public_key_text(key: &ClientVerifyingKey) -> String {
    STANDARD.encode(key.to_bytes())
}

/// Reads what [`public_key_text`] wrote.
///
/// # Errors
/// [`KeyFileError::Text`], [`KeyFileError::PublicKey`].
pub fn public_key_from_text(text: &str) -> Result<ClientVerifyingKey, KeyFileError> {
    let mut bytes = [0u8; 32];
    match STANDARD.decode_slice(text.trim(), &mut bytes) {
        Ok(32) => Ok(ClientVerifyingKey::from_bytes(&bytes)?),
        _ => Err(KeyFileError::Text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_survives_its_file_which_only_the_owner_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate-7.key");
        let made = SigningKeyFile::create(&path).unwrap();
        let read = SigningKeyFile::load(&path).unwrap();
        assert_eq!(read.key().secret_bytes().expose(), made.key().secret_bytes().expose());
        assert_eq!(public_key_from_text(&made.public_key()).unwrap(), read.into_key().verifying_key());
        assert!(!format!("{made:?}").contains(fs::read_to_string(&path).unwrap().lines().nth(1).unwrap()));
        assert!(matches!(SigningKeyFile::create(&path), Err(KeyFileError::File(FileError::Write { .. }))));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(SigningKeyFile::load(&path), Err(KeyFileError::File(FileError::Permissions { .. }))));
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.key");
        let good = STANDARD.encode([7; 32]);
        for text in [
            String::new(),
            good.clone(),
            format!("{BEGIN}\n{good}\n"),
            format!("{BEGIN}\n{good}\n{good}\n{END}\n"),
            format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode([7; 31])),
            format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode([7; 33])),
            format!("{BEGIN}\n!{good}\n{END}\n"),
            String::from("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        ] {
            let _ = fs::remove_file(&path);
            write_new_private(&path, text.as_bytes()).unwrap();
            assert_eq!(SigningKeyFile::load(&path).unwrap_err(), KeyFileError::Malformed, "{text}");
        }
        for text in ["", "AAAA", &STANDARD.encode([1; 33])] {
            assert_eq!(public_key_from_text(text), Err(KeyFileError::Text));
        }
        // The point of order 1.
        let mut weak = [0; 32];
        weak[0] = 1;
        assert!(matches!(public_key_from_text(&STANDARD.encode(weak)), Err(KeyFileError::PublicKey(_))));
    }
}
