//! A small certificate authority: one root that signs the certificates of one deployment. ECDSA on P-256.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SanType,
};
use time::OffsetDateTime;
use veilmatch_domain::{Explain, Status, Timestamp};
use veilmatch_secret::Secret;

use crate::identity::first_certificate;
use crate::names::is_ours;
use crate::{FileError, Name, read_private, read_public, write_new_private, write_private, write_public};

const MAX_PEM: usize = 1 << 16;

/// From when until when a certificate is accepted, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: Timestamp,
    /// The last second.
    pub not_after: Timestamp,
}

/// Why an authority cannot be made, loaded or used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The files are not an authority's certificate with its key.
    #[error("the files are not the certificate and the key of an authority")]
    NotAuthority,
    /// The validity is empty, beyond the year 9999, or outlives the authority.
    #[error("the validity is empty or ends after the authority's")]
    Validity,
    /// A host that is neither an address nor a DNS name outside `.veilmatch`.
    #[error("`{host}` is not a host name or address")]
    Host {
        /// What was given.
        host: String,
    },
    /// A certificate cannot be made.
    #[error("the certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
}

impl Explain for PkiError {
    fn code(&self) -> &'static str {
        match self {
            Self::File(e) => e.code(),
            Self::NotAuthority => "not-an-authority",
            Self::Validity => "bad-validity",
            Self::Host { .. } => "bad-host",
            Self::Certificate(_) => "cannot-certify",
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::Validity | Self::Host { .. } => Status::InvalidArgument,
            _ => Status::FailedPrecondition,
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::File(e) => e.advice(),
            Self::NotAuthority => "give the two files that `veilmatch pki init` wrote for the authority",
            Self::Validity => "choose an end after the beginning and not after the authority's own end",
            Self::Host { .. } => "give DNS names outside .veilmatch, or IP addresses",
            Self::Certificate(_) => "check the authority's files and the names that the certificate is for",
        }
    }
}

/// A root certificate with its key.
pub struct Authority {
    certificate: String,
    not_after: Timestamp,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, as PEM texts.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The key, PKCS#8.
    pub key: Secret<String>,
}

impl Authority {
    /// Makes a new authority.
    ///
    /// # Errors
    /// [`PkiError::Validity`], or [`PkiError::Certificate`] for a name that no certificate can carry.
    pub fn new(name: &str, validity: Validity) -> Result<Self, PkiError> {
        let mut parameters = parameters(name, validity)?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate = parameters.self_signed(&key)?.pem();
        Ok(Self { certificate, not_after: validity.not_after, issuer: Issuer::new(parameters, key) })
    }

    /// Loads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`PkiError::File`], also for a key file that is open to others; [`PkiError::NotAuthority`].
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, PkiError> {
        let key = read_private(key, MAX_PEM)?;
        let key = std::str::from_utf8(key.expose()).map_err(|_| PkiError::NotAuthority)?;
        let key = KeyPair::from_pem(key).map_err(|_| PkiError::NotAuthority)?;
        let text = read_public(certificate, MAX_PEM)?;
        let pem = first_certificate(&text).ok_or(PkiError::NotAuthority)?;
        let parsed = pem.parse_x509().map_err(|_| PkiError::NotAuthority)?;
        let ours = parsed.public_key().subject_public_key.data.as_ref() == key.der_bytes();
        if !parsed.is_ca() || !ours {
            return Err(PkiError::NotAuthority);
        }
        let not_after = Timestamp(parsed.validity().not_after.timestamp().max(0) as u64);
        let certificate = String::from_utf8(text.clone()).map_err(|_| PkiError::NotAuthority)?;
        Ok(Self { issuer: Issuer::from_ca_cert_pem(&certificate, key)?, certificate, not_after })
    }

    /// Writes the certificate and, with mode 0600, the key. An authority's key that exists is never overwritten.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn save(&self, certificate: &Path, key: &Path) -> Result<(), PkiError> {
        let text = Secret::new(self.issuer.key().serialize_pem());
        write_new_private(key, text.expose().as_bytes())?;
        Ok(write_public(certificate, self.certificate.as_bytes())?)
    }

    /// The root certificate as PEM: what every party needs to know the others.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Issues a certificate. Peers look at the name alone; `hosts` (DNS names, addresses) are for other tools. Holders and
    /// the matcher may serve and call, clients and operators only call.
    ///
    /// # Errors
    /// [`PkiError::Validity`], [`PkiError::Host`].
    pub fn issue(&self, name: &Name, hosts: &[String], validity: Validity) -> Result<Issued, PkiError> {
        if validity.not_after > self.not_after {
            return Err(PkiError::Validity);
        }
        let mut parameters = parameters(&name.to_string(), validity)?;
        parameters.subject_alt_names = vec![SanType::DnsName(name.dns().try_into()?)];
        for host in hosts {
            parameters.subject_alt_names.push(alternative(host)?);
        }
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.use_authority_key_identifier_extension = true;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = match name {
            Name::Holder(_) | Name::Matcher | Name::Twin => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Name::Client(_) | Name::Operator(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate = parameters.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: Secret::new(key.serialize_pem()) })
    }
}

impl Issued {
    /// Writes or replaces the certificate and, with mode 0600, the key.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn save(&self, certificate: &Path, key: &Path) -> Result<(), PkiError> {
        write_private(key, self.key.expose().as_bytes())?;
        Ok(write_public(certificate, self.certificate.as_bytes())?)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority(key redacted)")
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issued(key redacted)")
    }
}

fn parameters(name: &str, validity: Validity) -> Result<CertificateParams, PkiError> {
    let date = |t: Timestamp| {
        let seconds = i64::try_from(t.0).map_err(|_| PkiError::Validity)?;
        OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| PkiError::Validity)
    };
    if validity.not_after <= validity.not_before {
        return Err(PkiError::Validity);
    }
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    let mut parameters = CertificateParams::default();
    parameters.not_before = date(validity.not_before)?;
    parameters.not_after = date(validity.not_after)?;
    parameters.distinguished_name = subject;
    Ok(parameters)
}

fn alternative(host: &str) -> Result<SanType, PkiError> {
    let refused = || PkiError::Host { host: host.chars().take(300).collect() };
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let label = |l: &str| (1..=63).contains(&l.len()) && l.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    if host.len() > 253 || !host.split('.').all(label) || is_ours(host) {
        return Err(refused());
    }
    Ok(SanType::DnsName(host.try_into().map_err(|_| refused())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use veilmatch_domain::Party;
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    const VALIDITY: Validity = Validity { not_before: Timestamp(1_000), not_after: Timestamp(3_000_000_000) };

    fn der(pem: &str) -> Vec<u8> {
        first_certificate(pem.as_bytes()).unwrap().contents
    }

    #[test]
    fn certificates_carry_name_hosts_usage_and_validity() {
        let authority = Authority::new("test", VALIDITY).unwrap();
        let hosts = ["k0.example.org".to_owned(), "10.0.0.7".to_owned()];
        let half = Validity { not_after: Timestamp(2_000_000_000), ..VALIDITY };
        let issued = authority.issue(&Name::Holder(Party::K0), &hosts, half).unwrap();
        let bytes = der(&issued.certificate);
        assert_eq!(Name::of_certificate(&bytes), Ok(Name::Holder(Party::K0)));
        let (_, certificate) = X509Certificate::from_der(&bytes).unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap().value.general_names.len();
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert_eq!((names, usage.server_auth, usage.client_auth, usage.any), (3, true, true, false));
        assert!(!certificate.is_ca());
        let validity = certificate.validity();
        assert_eq!((validity.not_before.timestamp(), validity.not_after.timestamp()), (1_000, 2_000_000_000));
        let root = der(authority.certificate());
        let (_, root) = X509Certificate::from_der(&root).unwrap();
        assert!(root.is_ca() && certificate.verify_signature(Some(root.public_key())).is_ok());

        let client = authority.issue(&Name::Client("desk".parse().unwrap()), &[], half).unwrap();
        let bytes = der(&client.certificate);
        let (_, certificate) = X509Certificate::from_der(&bytes).unwrap();
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert_eq!((usage.server_auth, usage.client_auth), (false, true));
    }

    #[test]
    fn a_saved_authority_loads_and_signs_under_the_same_root() {
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key, other] = ["ca.pem", "ca.key", "other.key"].map(|name| folder.path().join(name));
        let authority = Authority::new("test", VALIDITY).unwrap();
        authority.save(&certificate, &key).unwrap();
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(authority.save(&certificate, &key).is_err(), "an authority is not overwritten");
        let loaded = Authority::load(&certificate, &key).unwrap();
        assert_eq!(loaded.certificate(), authority.certificate());
        let bytes = der(&loaded.issue(&Name::Matcher, &[], VALIDITY).unwrap().certificate);
        let root = der(authority.certificate());
        let (_, root) = X509Certificate::from_der(&root).unwrap();
        let (_, issued) = X509Certificate::from_der(&bytes).unwrap();
        assert!(issued.verify_signature(Some(root.public_key())).is_ok());
        assert_eq!(issued.issuer(), root.subject());

        Authority::new("test", VALIDITY).unwrap().save(&folder.path().join("other.pem"), &other).unwrap();
        assert!(matches!(Authority::load(&certificate, &other), Err(PkiError::NotAuthority)));
        let leaf = folder.path().join("leaf.pem");
        authority.issue(&Name::Matcher, &[], VALIDITY).unwrap().save(&leaf, &other).unwrap();
        assert!(matches!(Authority::load(&leaf, &other), Err(PkiError::NotAuthority)), "a leaf signs nothing");
    }

    #[test]
    fn refuses_hosts_that_would_be_names_and_impossible_validities() {
        let authority = Authority::new("test", VALIDITY).unwrap();
        for host in ["k1.holder.veilmatch", "Matcher.VEILMATCH", "*.example.org", "", "a b", "a..b", "veilmatch"] {
            let refused = authority.issue(&Name::Matcher, &[host.to_owned()], VALIDITY);
            assert!(matches!(refused, Err(PkiError::Host { .. })), "{host}");
        }
        let backwards = Validity { not_before: VALIDITY.not_after, not_after: VALIDITY.not_before };
        let outlives = Validity { not_after: Timestamp(VALIDITY.not_after.0 + 1), ..VALIDITY };
        for validity in [backwards, outlives] {
            assert!(matches!(authority.issue(&Name::Matcher, &[], validity), Err(PkiError::Validity)));
        }
        let beyond = Validity { not_after: Timestamp(u64::MAX), ..VALIDITY };
        assert!(matches!(Authority::new("test", beyond), Err(PkiError::Validity)));
    }
}
