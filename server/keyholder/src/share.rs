//! A holder's share of a threshold key of the scheme `paillier` on its way from the dealer: one file per holder, sealed to the key on
//! its card.
//!
//! ```text
//! "veilmatch share 1\n" | holder (1 byte) | X-Wing ciphertext (1,120 bytes) | ChaCha20-Poly1305 of the share
//! ```
//!
//! The secret of the encapsulation seals this one file. Whoever carries it sees which holder it is for, and its length. Anybody who
//! has the card can seal a share, so the holder's people compare the fingerprint of the public key with what the dealer printed:
//! installing asks for it. A share is checked against the public key in it before it is stored.

use std::path::Path;

use veilmatch_domain::{Explain, Party, Status};
use veilmatch_holder::{HolderCard, HolderError, HolderSecretKey};
use veilmatch_sealed::{HolderPublicKey, KEM_BYTES, SealedError, seal_once};
use veilmatch_secret::{Entropy, Label};
use veilmatch_service::{fingerprint, is_fingerprint_of};
use veilmatch_threshold::{KeyShare, ThresholdError};

use crate::config::Config;
use crate::fs::{self, FileError};
use crate::keyfile::Unlock;
use crate::memory::MemoryError;
use crate::serve::{ServeError, wake};

const MAGIC: &[u8] = b"veilmatch share 1\n";
/// A share of the largest key has about 7,500 bytes.
const LIMIT: u64 = 32 << 10;

/// Why a share cannot be sealed or installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not such a file.
    #[error("this is not a file with a key holder's share")]
    Malformed,
    /// Another holder's file, or another holder's card.
    #[error("the share is for key holder {found}; this is key holder {expected}")]
    OtherHolder {
        /// Whose it should be.
        expected: Party,
        /// Whose it is.
        found: Party,
    },
    /// It does not open under this holder's keys.
    #[error("the share does not open under the keys of this key holder")]
    Sealed(#[source] SealedError),
    /// What is inside is no share, or does not fit the public key in it.
    #[error(transparent)]
    Share(#[from] ThresholdError),
    /// A share of another key than the one that was compared.
    #[error("the share is of the key {found}; the fingerprint given is another")]
    OtherKey {
        /// The fingerprint of its public key.
        found: String,
    },
    /// The holder refuses it.
    #[error(transparent)]
    Holder(#[from] HolderError),
    /// Keys, cards or records of the holder cannot be opened.
    #[error(transparent)]
    Open(#[from] Box<ServeError>),
    /// It cannot be stored.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl Explain for ShareError {
    fn code(&self) -> &'static str {
        match self {
            Self::File(e) => e.code(),
            Self::Malformed => "share-malformed",
            Self::OtherHolder { .. } => "other-holder",
            Self::Sealed(_) => "share-not-authentic",
            Self::Share(e) => e.code(),
            Self::OtherKey { .. } => "other-fingerprint",
            Self::Holder(e) => e.code(),
            Self::Open(e) => e.code(),
            Self::Memory(e) => e.code(),
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::File(e) => e.status(),
            Self::Malformed | Self::Sealed(_) => Status::DataLoss,
            Self::OtherHolder { .. } | Self::OtherKey { .. } => Status::FailedPrecondition,
            Self::Share(e) => e.status(),
            Self::Holder(e) => e.status(),
            Self::Open(e) => e.status(),
            Self::Memory(e) => e.status(),
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::File(e) => e.advice(),
            Self::Malformed | Self::Sealed(_) => {
                "use the file that the dealer made for this key holder, with the card that the key holder uses now"
            }
            Self::OtherHolder { .. } => "give each key holder the file that bears its name",
            Self::Share(e) => e.advice(),
            Self::OtherKey { .. } => {
                "ask the dealer for the fingerprint over a second channel; if it is another, somebody swapped the file"
            }
            Self::Holder(e) => e.advice(),
            Self::Open(e) => e.advice(),
            Self::Memory(e) => e.advice(),
        }
    }
}

fn context(party: Party, kem: &[u8; KEM_BYTES], key: &HolderPublicKey) -> Label {
    Label::new("veilmatch/keyholder/share").number(party.index() as u64).bytes(kem).bytes(&key.to_bytes())
}

/// The share as a file that the holder with this card alone can open.
///
/// # Errors
/// [`ShareError::OtherHolder`] if share and card are two holders'.
pub fn seal_share(share: &KeyShare, card: &HolderCard, entropy: &mut dyn Entropy) -> Result<Vec<u8>, ShareError> {
    if share.party() != card.party {
        return Err(ShareError::OtherHolder { expected: card.party, found: share.party() });
    }
    let (kem, secret) = card.encryption.encapsulate(entropy);
    let context = context(card.party, &kem, &card.encryption);
    let sealed = seal_once(secret, &context, share.to_bytes().expose()).map_err(ShareError::Sealed)?;
    Ok([MAGIC, &[card.party.index() as u8], &kem, &sealed].concat())
}

/// Opens and checks what [`seal_share`] made for a holder.
///
/// # Errors
/// [`ShareError`].
pub fn open_share(bytes: &[u8], party: Party, key: &HolderSecretKey) -> Result<KeyShare, ShareError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(ShareError::Malformed)?;
    let (&index, rest) = rest.split_first().ok_or(ShareError::Malformed)?;
    let found = Party::ALL.into_iter().find(|p| p.index() == usize::from(index)).ok_or(ShareError::Malformed)?;
    if found != party {
        return Err(ShareError::OtherHolder { expected: party, found });
    }
    let (kem, sealed) = rest.split_first_chunk::<KEM_BYTES>().ok_or(ShareError::Malformed)?;
    let plain = key.open_sealed(kem, &context(party, kem, key.public_key()), sealed).map_err(ShareError::Sealed)?;
    Ok(KeyShare::from_bytes(plain.expose())?)
}

/// Stores the share of a file in the memory of a holder that does not run. `expected` is the fingerprint of the public key as
/// the dealer printed it; the result is the share's parameter set.
///
/// # Errors
/// [`ShareError`]; nothing is stored then. The same share may be installed again.
pub fn install_share(
    config: &Config,
    unlock: &Unlock,
    file: &Path,
    expected: &str,
) -> Result<&'static str, ShareError> {
    let bytes = fs::read_public(file, LIMIT)?;
    let (origin, (mut holder, mut memory)) = wake(config, unlock).map_err(Box::new)?;
    let share = open_share(&bytes, config.party, &origin.keys.kem)?;
    let digest = share.key().digest();
    if !is_fingerprint_of(expected, &digest.0) {
        return Err(ShareError::OtherKey { found: fingerprint(&digest.0) });
    }
    let parameters = share.key().size().parameters();
    let reaction = holder.install_share(share)?;
    memory.store(&reaction.log, &reaction.save)?;
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyfile::HolderKeys;
    use proptest::prelude::*;
    use std::sync::LazyLock;
    use veilmatch_paillier::KeySize;
    use veilmatch_secret::os_entropy;
    use veilmatch_threshold::{Dealt, test_keys};

    static DEALT: LazyLock<Dealt> = LazyLock::new(|| test_keys::deal(KeySize::Bits2048, &mut *os_entropy()).unwrap());

    fn keys(party: Party) -> HolderKeys {
        HolderKeys::random(party, &mut *os_entropy())
    }

    #[test]
    fn a_share_opens_for_its_holder_alone() {
        for (party, share) in Party::ALL.into_iter().zip(&DEALT.shares) {
            let own = keys(party);
            let sealed = seal_share(share, &own.card(), &mut *os_entropy()).unwrap();
            assert!((sealed.len() as u64) < LIMIT / 4);
            let opened = open_share(&sealed, party, &own.kem).unwrap();
            assert_eq!(opened.to_bytes().expose(), share.to_bytes().expose());
            let other = open_share(&sealed, party.next(), &keys(party.next()).kem);
            assert!(matches!(other, Err(ShareError::OtherHolder { .. })));
            // Of the same name, with other keys.
            assert!(matches!(open_share(&sealed, party, &keys(party).kem), Err(ShareError::Sealed(_))));
            let card = keys(party.next()).card();
            assert!(matches!(seal_share(share, &card, &mut *os_entropy()), Err(ShareError::OtherHolder { .. })));
        }
    }

    static SEALED: LazyLock<(HolderKeys, Vec<u8>)> = LazyLock::new(|| {
        let own = keys(Party::K1);
        let sealed = seal_share(&DEALT.shares[1], &own.card(), &mut *os_entropy()).unwrap();
        (own, sealed)
    });

    proptest! {
        #[test]
        fn an_altered_or_cut_file_is_refused(at in 0usize..10_000, bit in 0u32..8, cut in any::<bool>()) {
            let (own, sealed) = &*SEALED;
            let at = at % sealed.len();
            let mut bytes = sealed.clone();
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 1 << bit;
            }
            prop_assert!(open_share(&bytes, Party::K1, &own.kem).is_err());
        }
    }
}
