//! Certificates: `veilmatch pki init` and `veilmatch pki issue`.

use std::path::Path;

use veilmatch_domain::Timestamp;
use veilmatch_service::now;
use veilmatch_transport::{Authority, Name, PkiError, Validity};

/// How long an authority made here is valid, in seconds: ten years.
pub(super) const VALID_FOR: u64 = 3650 * 86_400;
/// How long a certificate issued here is valid, in seconds: a year, a month for the change.
pub(super) const ISSUED_FOR: u64 = 395 * 86_400;
/// Clocks that are behind by so much still accept a new certificate, in seconds.
const SLACK: u64 = 300;

pub(super) fn from_now(seconds: u64) -> Validity {
    let now = now();
    Validity { not_before: Timestamp(now.0.saturating_sub(SLACK)), not_after: Timestamp(now.0.saturating_add(seconds)) }
}

/// Makes an authority: `ca.crt` and `ca.key` in a folder.
///
/// # Errors
/// [`PkiError`], among others if there is one already.
pub fn pki_init(folder: &Path, name: &str) -> Result<Authority, PkiError> {
    let authority = Authority::new(name, from_now(VALID_FOR))?;
    authority.save(&folder.join("ca.crt"), &folder.join("ca.key"))?;
    Ok(authority)
}

/// Issues a certificate of the authority in a folder, for so many seconds.
///
/// # Errors
/// [`PkiError`].
pub fn issue(
    folder: &Path,
    name: &Name,
    hosts: &[String],
    seconds: u64,
    certificate: &Path,
    key: &Path,
) -> Result<(), PkiError> {
    let authority = Authority::load(&folder.join("ca.crt"), &folder.join("ca.key"))?;
    authority.issue(name, hosts, from_now(seconds))?.save(certificate, key)
}
