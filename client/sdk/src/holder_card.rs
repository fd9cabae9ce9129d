//! The public half of a key holder's card: the text file that holders hand to those who seal for them.
//!
//! The format is defined by the key holder's service (`veilmatch_keyholder::card`), which clients do not link; a test reads
//! its cards here.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use borsh::BorshDeserialize;
use veilmatch_domain::{Explain, Party, Status};
use veilmatch_sealed::{ClientVerifyingKey, HolderPublicKey};
use veilmatch_secret::Hasher;
use veilmatch_transport::{FileError, read_public};

const BEGIN: &str = "-----BEGIN VEILMATCH HOLDER CARD-----";
const END: &str = "-----END VEILMATCH HOLDER CARD-----";
const PARTY: &str = "Party: ";
const FINGERPRINT: &str = "Fingerprint: ";
/// A card has about 1,900 characters.
const LIMIT: usize = 8 * 1024;

/// What a client needs of a key holder's card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderCard {
    /// Which holder.
    pub party: Party,
    /// Templates and probes are sealed for it.
    pub encryption: HolderPublicKey,
    /// What people compare: ten groups of four hexadecimal digits.
    pub fingerprint: String,
}

/// Why a card cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CardError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line is missing or is not what it should be.
    #[error("the holder card is malformed at its {part}")]
    Malformed {
        /// Which part.
        part: &'static str,
    },
    /// Party or fingerprint do not belong to the keys.
    #[error("the {part} on the holder card does not belong to its keys")]
    Mismatch {
        /// Which line.
        part: &'static str,
    },
    /// The card of another holder than is asked for.
    #[error("{} is the card of key holder {found}, not {expected}", path.display())]
    Party {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: Party,
        /// Whose it should be.
        expected: Party,
    },
}

impl Explain for CardError {
    fn code(&self) -> &'static str {
        match self {
            Self::File(e) => e.code(),
            Self::Malformed { .. } => "card-malformed",
            Self::Mismatch { .. } => "card-mismatch",
            Self::Party { .. } => "wrong-card",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::File(e) => e.status(),
            Self::Malformed { .. } | Self::Mismatch { .. } => Status::DataLoss,
            Self::Party { .. } => Status::FailedPrecondition,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::File(e) => e.advice(),
            Self::Malformed { .. } | Self::Mismatch { .. } => {
                "fetch the card again from its holder and compare fingerprints by telephone or in person"
            }
            Self::Party { .. } => "name the three cards in the order of the holders",
        }
    }
}

/// What the text encodes.
#[derive(BorshDeserialize)]
struct Keys {
    party: Party,
    identity: ClientVerifyingKey,
    encryption: HolderPublicKey,
}

impl Keys {
    fn fingerprint(&self) -> String {
        let mut hasher = Hasher::new("veilmatch/keyholder/card");
        hasher.number(self.party.index() as u64).field(&self.identity.to_bytes()).field(&self.encryption.to_bytes());
        let digest = hasher.finish();
        let groups: Vec<String> =
            digest.0.as_chunks::<2>().0.iter().take(10).map(|[a, b]| format!("{a:02x}{b:02x}")).collect();
        groups.join(" ")
    }
}

impl HolderCard {
    /// Reads the text of a card; blank lines and spaces around lines do not matter.
    ///
    /// # Errors
    /// [`CardError::Malformed`] or [`CardError::Mismatch`].
    pub fn from_text(text: &str) -> Result<Self, CardError> {
        let malformed = |part| CardError::Malformed { part };
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut next = |part| lines.next().ok_or(malformed(part));
        if next("first line")? != BEGIN {
            return Err(malformed("first line"));
        }
        let party = next("party")?.strip_prefix(PARTY).ok_or(malformed("party"))?;
        let printed = next("fingerprint")?.strip_prefix(FINGERPRINT).ok_or(malformed("fingerprint"))?;
        let mut encoded = String::new();
        loop {
            match next("last line")? {
                END => break,
                line => encoded.push_str(line),
            }
        }
        if lines.next().is_some() {
            return Err(malformed("last line"));
        }
        let bytes = STANDARD.decode(encoded).map_err(|_| malformed("keys"))?;
        let keys: Keys = borsh::from_slice(&bytes).map_err(|_| malformed("keys"))?;
        let fingerprint = keys.fingerprint();
        if printed != fingerprint {
            return Err(CardError::Mismatch { part: "fingerprint" });
        }
        if party != keys.party.to_string() {
            return Err(CardError::Mismatch { part: "party" });
        }
        Ok(Self { party: keys.party, encryption: keys.encryption, fingerprint })
    }

    /// Reads a card file.
    ///
    /// # Errors
    /// [`CardError`].
    pub fn load(path: &Path) -> Result<Self, CardError> {
        let bytes = read_public(path, LIMIT)?;
        Self::from_text(std::str::from_utf8(&bytes).map_err(|_| CardError::Malformed { part: "text" })?)
    }

    /// Reads the cards of K0, K1 and K2, in this order, and gives the keys that a client seals for.
    ///
    /// # Errors
    /// [`CardError`].
    pub fn load_three<P: AsRef<Path>>(paths: [P; 3]) -> Result<[HolderPublicKey; 3], CardError> {
        let load = |path: &P, expected| {
            let path = path.as_ref();
            match Self::load(path)? {
                card if card.party == expected => Ok(card.encryption),
                card => Err(CardError::Party { path: path.to_owned(), found: card.party, expected }),
            }
        };
        let [k0, k1, k2] = &paths;
        Ok([load(k0, Party::K0)?, load(k1, Party::K1)?, load(k2, Party::K2)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use veilmatch_keyholder::{card, keyfile::HolderKeys};
    use veilmatch_secret::os_entropy;

    #[test]
    fn cards_of_the_key_holders_service_are_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let cards = Party::ALL.map(|party| HolderKeys::random(party, &mut *os_entropy()).card());
        let paths = Party::ALL.map(|party| folder.path().join(format!("{party}.card")));
        for (card, path) in cards.iter().zip(&paths) {
            card::write_card(path, card).unwrap();
            let read = HolderCard::load(path).unwrap();
            assert_eq!((read.party, &read.encryption), (card.party, &card.encryption));
            assert_eq!(read.fingerprint, card::fingerprint(card));
        }
        assert_eq!(HolderCard::load_three(paths.clone()).unwrap(), cards.clone().map(|card| card.encryption));
        let [k0, k1, k2] = paths;
        let swapped = HolderCard::load_three([k0, k2.clone(), k1]);
        assert_eq!(swapped, Err(CardError::Party { path: k2, found: Party::K2, expected: Party::K1 }));
    }

    #[test]
    fn a_line_of_another_card_is_found() {
        let text = |party| card::to_text(&HolderKeys::random(party, &mut *os_entropy()).card());
        let (a, b) = (text(Party::K0), text(Party::K2));
        let (a, b): (Vec<&str>, Vec<&str>) = (a.lines().collect(), b.lines().collect());
        for i in 1..a.len() - 1 {
            let mut mixed = a.clone();
            mixed[i] = b[i];
            // The last line of keys is one byte: one pair of cards in 128 shares it.
            assert_eq!(HolderCard::from_text(&mixed.join("\n")).is_ok(), a[i] == b[i], "line {i}");
            mixed.remove(i);
            assert!(HolderCard::from_text(&mixed.join("\n")).is_err(), "without line {i}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,300}") {
            prop_assert!(HolderCard::from_text(&text).is_err());
            let framed = format!("{BEGIN}\n{PARTY}K0\n{FINGERPRINT}\n{text}\n{END}");
            prop_assert!(HolderCard::from_text(&framed).is_err());
        }
    }
}
