//! Names and numbers that identify things. Each is checked when it is built or decoded.

use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;
use std::io;

use crate::{Explain, Status};

/// Longest name in bytes.
pub const MAX_IDENTIFIER: usize = 64;

/// Why a string is not an identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentifierError {
    /// Empty string.
    #[error("the {what} is empty")]
    Empty {
        /// Which kind of identifier.
        what: &'static str,
    },
    /// More than [`MAX_IDENTIFIER`] bytes.
    #[error("the {what} has {bytes} bytes; at most {MAX_IDENTIFIER} are allowed")]
    TooLong {
        /// Which kind of identifier.
        what: &'static str,
        /// Its length in bytes.
        bytes: usize,
    },
    /// A character outside `A-Z a-z 0-9 . _ - : @`.
    #[error("the {what} contains the character {character:?}")]
    Character {
        /// Which kind of identifier.
        what: &'static str,
        /// The first such character.
        character: char,
    },
    /// Not 64 hexadecimal digits.
    #[error("the {what} is not 64 hexadecimal digits")]
    Digest {
        /// Which kind of digest.
        what: &'static str,
    },
}

impl Explain for IdentifierError {
    fn code(&self) -> &'static str {
        "bad-identifier"
    }
    fn status(&self) -> Status {
        Status::InvalidArgument
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::Digest { .. } => "give all 64 digits, as `veilmatch models list --json` prints them",
            _ => "use 1 to 64 characters from A-Z a-z 0-9 . _ - : @",
        }
    }
}

fn check(what: &'static str, text: &str) -> Result<(), IdentifierError> {
    if text.is_empty() {
        return Err(IdentifierError::Empty { what });
    }
    if text.len() > MAX_IDENTIFIER {
        return Err(IdentifierError::TooLong { what, bytes: text.len() });
    }
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-:@".contains(*c))) {
        Some(character) => Err(IdentifierError::Character { what, character }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize)]
        pub struct $type(String);

        impl $type {
            /// Checks length and alphabet.
            ///
            /// # Errors
            /// [`IdentifierError`] if the text is empty, too long or has a character outside the alphabet.
            pub fn new(text: impl Into<String>) -> Result<Self, IdentifierError> {
                let text = text.into();
                check($what, &text)?;
                Ok(Self(text))
            }

            /// The checked text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl BorshDeserialize for $type {
            fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
                let bytes = u32::deserialize_reader(reader)? as usize;
                if bytes > MAX_IDENTIFIER {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, concat!($what, " too long")));
                }
                let mut text = vec![0u8; bytes];
                reader.read_exact(&mut text)?;
                let text = String::from_utf8(text)
                    .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, concat!($what, " is not UTF-8")))?;
                Self::new(text).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
            }
        }

        impl std::str::FromStr for $type {
            type Err = IdentifierError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(/** A person in a collection. */ SubjectId, "subject id");
name!(/** A gallery: one dimension, one model, one policy. */ CollectionId, "collection id");
name!(/** A named, versioned parameter set of the scheme. */ ParameterSetId, "parameter set");
name!(/** A capture device or relying party with a signing key. */ ClientId, "client id");

macro_rules! number {
    ($(#[$doc:meta])* $type:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
        pub struct $type(pub $inner);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number!(/** A generation of keys; a restored holder begins a new one. */ Epoch(u32));
number!(/** A packed group of the index. */ GroupId(u64));
number!(/** A rebuild of a group; never used twice for different content. */ Revision(u32));
number!(/** The embedding model's version, part of the associated data. */ TemplateVersion(u32));
number!(/** Seconds since the Unix epoch. */ Timestamp(u64));

macro_rules! bytes32 {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
        pub struct $type(pub [u8; 32]);

        impl fmt::Display for $type {
            /// The first eight bytes in hexadecimal: enough to find it in a log.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), self)
            }
        }
    };
}

bytes32!(/** The digest of a sealed template: what it is known by everywhere. */ TemplateDigest);
bytes32!(/** One run of a protocol among the holders. */ SessionId);
bytes32!(
    /// What makes an embedding comparable with others: a digest of the model's file, and of whatever is done to its output before it is
    /// sealed. Embeddings of two models are not comparable, and nothing in their numbers shows it.
    ModelDigest
);

impl ModelDigest {
    /// What templates and probes of this model carry: its first four bytes. Two models of one collection have the same by chance
    /// once in 2^32; who seals with a wrong one on purpose only harms himself.
    #[must_use]
    pub fn version(&self) -> TemplateVersion {
        let [a, b, c, d, ..] = self.0;
        TemplateVersion(u32::from_le_bytes([a, b, c, d]))
    }

    /// All 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        use fmt::Write;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl std::str::FromStr for ModelDigest {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut digest = [0u8; 32];
        let digits = text.as_bytes().as_chunks::<2>();
        if !digits.1.is_empty() || digits.0.len() != digest.len() {
            return Err(IdentifierError::Digest { what: "model digest" });
        }
        for (byte, pair) in digest.iter_mut().zip(digits.0) {
            let digit = |d: u8| char::from(d).to_digit(16).ok_or(IdentifierError::Digest { what: "model digest" });
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(Self(digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_empty_long_and_foreign_names() {
        assert!(matches!(SubjectId::new(""), Err(IdentifierError::Empty { .. })));
        assert!(matches!(SubjectId::new("x".repeat(65)), Err(IdentifierError::TooLong { bytes: 65, .. })));
        assert!(matches!(SubjectId::new("a/b"), Err(IdentifierError::Character { character: '/', .. })));
        assert!(SubjectId::new("x".repeat(64)).is_ok());
    }

    #[test]
    fn model_digests_are_read_back_and_give_a_version() {
        let digest = ModelDigest(std::array::from_fn(|i| (i * 37) as u8));
        assert_eq!(digest.to_hex().parse(), Ok(digest));
        assert_eq!(digest.version(), TemplateVersion(u32::from_le_bytes([0, 37, 74, 111])));
        for wrong in ["", "00", &digest.to_hex()[1..], &"g0".repeat(32), &"0".repeat(65)] {
            assert_eq!(wrong.parse::<ModelDigest>(), Err(IdentifierError::Digest { what: "model digest" }), "{wrong}");
        }
    }

    #[test]
    fn decoding_checks_like_building() {
        let evil = borsh::to_vec(&String::from("a\nb")).unwrap();
        assert!(borsh::from_slice::<SubjectId>(&evil).is_err());
        let huge = borsh::to_vec(&u32::MAX).unwrap();
        assert!(borsh::from_slice::<SubjectId>(&huge).is_err());
    }

    proptest! {
        #[test]
        fn names_survive_the_wire(text in "[A-Za-z0-9._:@-]{1,64}") {
            let id = SubjectId::new(text).unwrap();
            prop_assert_eq!(borsh::from_slice::<SubjectId>(&borsh::to_vec(&id).unwrap()).unwrap(), id);
        }
    }
}
