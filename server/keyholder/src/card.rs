//! The public keys of a holder as a text file that its people hand over and compare.
//!
//! ```text
//! -----BEGIN VEILMATCH HOLDER CARD-----
//! Party: K0
//! Fingerprint: 3f21 90ab …
//! <base64 of the borsh encoding, 64 characters a line>
//! -----END VEILMATCH HOLDER CARD-----
//! ```
//!
//! The fingerprint is 160 bits of the digest of the encoding. Reading checks it, so it also finds typing errors; against
//! somebody who swaps the whole file only two people help who compare it over a second channel.

use std::fmt::Write;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use veilmatch_domain::{Explain, Status};
use veilmatch_holder::HolderCard;
use veilmatch_secret::Hasher;

use crate::fs::{self, FileError};

const BEGIN: &str = "-----BEGIN VEILMATCH HOLDER CARD-----";
const END: &str = "-----END VEILMATCH HOLDER CARD-----";
const PARTY: &str = "Party: ";
const FINGERPRINT: &str = "Fingerprint: ";
/// A card has about 1,900 characters.
const LIMIT: u64 = 8 * 1024;

/// Why a card cannot be read or written.
#[derive(Debug, thiserror::Error)]
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
}

impl Explain for CardError {
    fn code(&self) -> &'static str {
        match self {
            Self::File(e) => e.code(),
            Self::Malformed { .. } => "card-malformed",
            Self::Mismatch { .. } => "card-mismatch",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::File(e) => e.status(),
            Self::Malformed { .. } | Self::Mismatch { .. } => Status::DataLoss,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::File(e) => e.advice(),
            Self::Malformed { .. } | Self::Mismatch { .. } => {
                "fetch the card again from its holder and compare fingerprints by telephone or in person"
            }
        }
    }
}

/// What people compare: ten groups of four hexadecimal digits.
#[must_use]
pub fn fingerprint(card: &HolderCard) -> String {
    let mut hasher = Hasher::new("veilmatch/keyholder/card");
    hasher.number(card.party.index() as u64).field(&card.identity.to_bytes()).field(&card.encryption.to_bytes());
    veilmatch_service::fingerprint(&hasher.finish().0)
}

/// The card as text.
#[must_use]
pub fn to_text(card: &HolderCard) -> String {
    // Writing to memory does not fail.
    let encoded = STANDARD.encode(borsh::to_vec(card).unwrap_or_default());
    let mut text = format!("{BEGIN}\n{PARTY}{}\n{FINGERPRINT}{}\n", card.party, fingerprint(card));
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        let _ = writeln!(text, "{line}");
        rest = tail;
    }
    text + END + "\n"
}

/// The card in a text; blank lines and spaces around lines do not matter.
///
/// # Errors
/// [`CardError::Malformed`] or [`CardError::Mismatch`].
pub fn from_text(text: &str) -> Result<HolderCard, CardError> {
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
    let card: HolderCard = borsh::from_slice(&bytes).map_err(|_| malformed("keys"))?;
    if printed != fingerprint(&card) {
        return Err(CardError::Mismatch { part: "fingerprint" });
    }
    if party != card.party.to_string() {
        return Err(CardError::Mismatch { part: "party" });
    }
    Ok(card)
}

/// Writes a card; a file with the same card may be there already, another is not overwritten.
///
/// # Errors
/// [`CardError::File`].
pub fn write_card(path: &Path, card: &HolderCard) -> Result<(), CardError> {
    match fs::create(path, to_text(card).as_bytes(), fs::PUBLIC) {
        Err(FileError::Exists { .. }) if read_card(path).is_ok_and(|found| found == *card) => Ok(()),
        other => Ok(other?),
    }
}

/// Reads a card.
///
/// # Errors
/// [`CardError`].
pub fn read_card(path: &Path) -> Result<HolderCard, CardError> {
    let bytes = fs::read_public(path, LIMIT)?;
    from_text(std::str::from_utf8(&bytes).map_err(|_| CardError::Malformed { part: "text" })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyfile::HolderKeys;
    use proptest::prelude::*;
    use veilmatch_domain::Party;
    use veilmatch_secret::os_entropy;

    fn card(party: Party) -> HolderCard {
        HolderKeys::random(party, &mut *os_entropy()).card()
    }

    #[test]
    fn a_card_survives_its_file_and_is_not_replaced_by_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k1.card");
        let (own, other) = (card(Party::K1), card(Party::K1));
        write_card(&path, &own).unwrap();
        write_card(&path, &own).unwrap();
        assert_eq!(read_card(&path).unwrap(), own);
        assert!(matches!(write_card(&path, &other), Err(CardError::File(FileError::Exists { .. }))));
        let mail = to_text(&own).replace('\n', "\r\n\r\n  ");
        assert_eq!(from_text(&mail).unwrap(), own);
        assert_ne!(fingerprint(&own), fingerprint(&other));
        assert_eq!(fingerprint(&own).len(), 49);
    }

    #[test]
    fn a_line_of_another_card_is_found() {
        let (a, b) = (to_text(&card(Party::K0)), to_text(&card(Party::K2)));
        let (a, b): (Vec<&str>, Vec<&str>) = (a.lines().collect(), b.lines().collect());
        for i in 1..a.len() - 1 {
            let mut mixed = a.clone();
            mixed[i] = b[i];
            // The last line of the base64 is short: two cards may share it.
            assert!(a[i] == b[i] || from_text(&mixed.join("\n")).is_err(), "line {i}");
            mixed.remove(i);
            assert!(from_text(&mixed.join("\n")).is_err(), "without line {i}");
        }
    }

    proptest! {
        #[test]
        fn altered_text_is_refused(position in 0usize..10_000, byte in b'!'..=b'~') {
            let card = card(Party::K0);
            let mut text = to_text(&card).trim_end().as_bytes().to_vec();
            let position = position % text.len();
            prop_assume!(text[position] != byte && !text[position].is_ascii_whitespace());
            text[position] = byte;
            prop_assert!(from_text(std::str::from_utf8(&text).unwrap()).is_err());
        }

        #[test]
        fn no_text_panics(text in ".{0,300}") {
            prop_assert!(from_text(&text).is_err());
            let framed = format!("{BEGIN}\n{PARTY}K0\n{FINGERPRINT}\n{text}\n{END}");
            prop_assert!(from_text(&framed).is_err());
        }
    }
}
