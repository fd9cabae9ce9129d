//! Which encryption scheme a collection's index is under (DESIGN 2).

use std::fmt;
use std::str::FromStr;

use crate::{Explain, Status};

/// The scheme of a collection. It is chosen when the collection is created and stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SchemeName {
    /// TFHE's ciphertext family with a three-party key (DESIGN 3).
    #[default]
    Glwe,
    /// Threshold Paillier with twin evaluators (DESIGN 4).
    Paillier,
}

impl SchemeName {
    /// Both, the default first.
    pub const ALL: [Self; 2] = [Self::Glwe, Self::Paillier];

    /// As people write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Glwe => "glwe",
            Self::Paillier => "paillier",
        }
    }
}

impl fmt::Display for SchemeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No scheme has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no scheme `{0}`")]
pub struct UnknownScheme(pub String);

impl Explain for UnknownScheme {
    fn code(&self) -> &'static str {
        "unknown-scheme"
    }
    fn status(&self) -> Status {
        Status::InvalidArgument
    }
    fn advice(&self) -> &'static str {
        "the schemes are `glwe` and `paillier`"
    }
}

impl FromStr for SchemeName {
    type Err = UnknownScheme;

    fn from_str(name: &str) -> Result<Self, UnknownScheme> {
        Self::ALL.into_iter().find(|scheme| scheme.as_str() == name).ok_or_else(|| UnknownScheme(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_others_are_refused() {
        for scheme in SchemeName::ALL {
            assert_eq!(scheme.to_string().parse(), Ok(scheme));
        }
        for name in ["", "GLWE", "paillier ", "rsa"] {
            assert_eq!(name.parse::<SchemeName>(), Err(UnknownScheme(name.to_owned())));
        }
    }
}
