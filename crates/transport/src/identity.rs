//! What a process proves its own name with.

use std::fmt;
use std::path::Path;

use veilmatch_domain::{Explain, Status, Timestamp};
use veilmatch_secret::Secret;
use x509_parser::pem::Pem;

use crate::{FileError, Name, NameError, Trust, read_private, read_public};

/// Most bytes in a PEM file.
const MAX_PEM: usize = 1 << 20;

/// A certificate with its key, and the authority whose certificates are accepted. The key is wiped on drop; the copies
/// that rustls makes of it are not.
pub struct Identity {
    name: Name,
    expires: Timestamp,
    certificate: Vec<u8>,
    key: Secret<Vec<u8>>,
    authority: Vec<u8>,
}

/// Why an [`Identity`] cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A file cannot be read, or the key is open to others.
    #[error(transparent)]
    File(#[from] FileError),
    /// No PEM block of the kind that is needed.
    #[error("there is no {what} in the PEM text")]
    Pem {
        /// What is missing.
        what: &'static str,
    },
    /// The certificate names nobody.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Explain for IdentityError {
    fn code(&self) -> &'static str {
        match self {
            Self::File(e) => e.code(),
            Self::Pem { .. } => "bad-pem",
            Self::Name(e) => e.code(),
        }
    }

    fn status(&self) -> Status {
        Status::FailedPrecondition
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::File(e) => e.advice(),
            Self::Pem { .. } => "give the certificate, the PKCS#8 key and the authority's certificate as PEM files",
            Self::Name(e) => e.advice(),
        }
    }
}

impl Identity {
    /// Loads PEM files: this process's certificate, its key, the authority's certificate.
    ///
    /// # Errors
    /// [`IdentityError`]; the key file must be closed to group and others.
    pub fn load(certificate: &Path, key: &Path, authority: &Path) -> Result<Self, IdentityError> {
        let key = read_private(key, MAX_PEM)?;
        Self::from_pem(read_public(certificate, MAX_PEM)?, key, read_public(authority, MAX_PEM)?)
    }

    /// The same from PEM texts.
    ///
    /// # Errors
    /// [`IdentityError`]. Whether key and certificate belong together is checked when they are used first.
    pub fn from_pem(certificate: Vec<u8>, key: Secret<Vec<u8>>, authority: Vec<u8>) -> Result<Self, IdentityError> {
        let leaf = first_certificate(&certificate).ok_or(IdentityError::Pem { what: "certificate" })?;
        first_certificate(&authority).ok_or(IdentityError::Pem { what: "authority's certificate" })?;
        if !key.expose().windows(BEGIN_KEY.len()).any(|window| window == BEGIN_KEY) {
            return Err(IdentityError::Pem { what: "private key" });
        }
        let name = Name::of_certificate(&leaf.contents)?;
        let not_after = leaf.parse_x509().map_err(|_| NameError::Certificate)?.validity().not_after.timestamp();
        Ok(Self { name, expires: Timestamp(not_after.max(0) as u64), certificate, key, authority })
    }

    /// The name in the certificate.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// When the certificate expires, for warnings beforehand.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    pub(crate) fn to_tonic(&self) -> tonic::transport::Identity {
        tonic::transport::Identity::from_pem(&self.certificate, self.key.expose())
    }

    pub(crate) fn authority(&self) -> tonic::transport::Certificate {
        tonic::transport::Certificate::from_pem(&self.authority)
    }
}

/// PKCS#8, the one form that everything here writes and reads.
const BEGIN_KEY: &[u8] = b"-----BEGIN PRIVATE KEY-----";

pub(crate) fn first_certificate(text: &[u8]) -> Option<Pem> {
    Pem::iter_from_buffer(text).filter_map(Result::ok).find(|pem| pem.label == "CERTIFICATE")
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, key redacted)", self.name)
    }
}

/// How a process proves its own name and knows others.
#[derive(Debug)]
pub enum Security {
    /// Mutual TLS.
    Tls(Identity),
    /// Development on loopback: the process says who it is, and believes others.
    Plaintext(Name),
}

impl Security {
    /// Who this process is.
    #[must_use]
    pub fn name(&self) -> &Name {
        match self {
            Self::Tls(identity) => identity.name(),
            Self::Plaintext(name) => name,
        }
    }

    /// How it knows others.
    #[must_use]
    pub fn trust(&self) -> Trust {
        match self {
            Self::Tls(_) => Trust::Certificates,
            Self::Plaintext(_) => Trust::Plaintext,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, Validity};
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use veilmatch_domain::Party;

    #[test]
    fn loads_what_an_authority_saves_and_refuses_an_open_key() {
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key, ca] = ["k0.pem", "k0.key", "ca.pem"].map(|name| folder.path().join(name));
        let validity = Validity { not_before: Timestamp(1_000), not_after: Timestamp(2_000_000_000) };
        let authority = Authority::new("test", validity).unwrap();
        authority.save(&ca, &folder.path().join("ca.key")).unwrap();
        authority.issue(&Name::Holder(Party::K0), &[], validity).unwrap().save(&certificate, &key).unwrap();
        let identity = Identity::load(&certificate, &key, &ca).unwrap();
        assert_eq!((identity.name(), identity.expires()), (&Name::Holder(Party::K0), validity.not_after));
        assert_eq!(format!("{identity:?}"), "Identity(key holder K0, key redacted)");
        assert!(matches!(Identity::load(&key, &key, &ca), Err(IdentityError::Pem { what: "certificate" })));
        fs::set_permissions(&certificate, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(
            Identity::load(&certificate, &certificate, &ca),
            Err(IdentityError::Pem { what: "private key" })
        ));
        // The authority's own certificate is nobody's name.
        assert!(matches!(Identity::load(&ca, &key, &ca), Err(IdentityError::Name(NameError::Nameless))));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = Identity::load(&certificate, &key, &ca).unwrap_err();
        assert!(matches!(refused, IdentityError::File(FileError::Permissions { mode: 0o644, .. })));
        assert!(refused.advice().contains("chmod 600"));
    }
}
