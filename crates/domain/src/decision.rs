//! What may be asked of the encrypted gallery and what comes back.

use borsh::de::EnumExt;
use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;
use std::io;

use crate::{Explain, Preselection, Status, SubjectId};

/// Largest number of matches that a `matches` decision may open.
pub const MAX_MATCHES: u16 = 64;

const MICRO: f64 = 1e6;
/// |τ| ≤ 0.9: beyond, S·(cos − τ) could wrap around the modulus (DESIGN 3.6).
const LIMIT_MICRO: i32 = 900_000;

/// A decision threshold on the cosine, in steps of 10⁻⁶, |τ| ≤ 0.9.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize)]
pub struct Threshold(i32);

/// Why a number is not a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ThresholdError {
    /// NaN, infinite, or |τ| > 0.9.
    #[error("a threshold must be a cosine between -0.9 and 0.9")]
    OutOfRange,
}

impl Explain for ThresholdError {
    fn code(&self) -> &'static str {
        "threshold-out-of-range"
    }
    fn status(&self) -> Status {
        Status::InvalidArgument
    }
    fn advice(&self) -> &'static str {
        "choose a cosine between -0.9 and 0.9; face models usually need 0.2 to 0.6"
    }
}

impl Threshold {
    /// Rounds a cosine to the nearest 10⁻⁶.
    ///
    /// # Errors
    /// [`ThresholdError::OutOfRange`] outside [−0.9, 0.9].
    pub fn new(cosine: f64) -> Result<Self, ThresholdError> {
        if !cosine.is_finite() || cosine.abs() > 1.0 {
            return Err(ThresholdError::OutOfRange);
        }
        Self::from_micro((cosine * MICRO).round() as i32)
    }

    fn from_micro(micro: i32) -> Result<Self, ThresholdError> {
        if (-LIMIT_MICRO..=LIMIT_MICRO).contains(&micro) { Ok(Self(micro)) } else { Err(ThresholdError::OutOfRange) }
    }

    /// The cosine.
    #[must_use]
    pub fn cosine(self) -> f64 {
        f64::from(self.0) / MICRO
    }
}

impl BorshDeserialize for Threshold {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        Self::from_micro(i32::deserialize_reader(reader)?).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }
}

impl fmt::Debug for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Threshold({})", self.cosine())
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cosine())
    }
}

/// The question; the answer is the only thing that is ever opened.
#[derive(Clone, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Decision {
    /// Is the probe this subject? One bit.
    Verify {
        /// The claimed identity.
        subject: SubjectId,
    },
    /// Is anybody in the collection at or above the threshold? One bit.
    Exists,
    /// Who is at or above the threshold? If more than `max_matches` are, only that fact is opened.
    Matches {
        /// 1 to [`MAX_MATCHES`]; checked against the policy by every holder.
        max_matches: u16,
    },
    /// Who has the highest score at or above the threshold?
    Best,
}

impl Decision {
    /// The mode's name: `verify`, `exists`, `matches` or `best`.
    #[must_use]
    pub const fn mode(&self) -> &'static str {
        match self {
            Self::Verify { .. } => "verify",
            Self::Exists => "exists",
            Self::Matches { .. } => "matches",
            Self::Best => "best",
        }
    }
}

/// A decision with its threshold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Query {
    /// What is asked.
    pub decision: Decision,
    /// Applied inside the protocol; scores equal to it count as matches.
    pub threshold: Threshold,
    /// The coarse stage before it, if one is wanted.
    pub preselection: Option<Preselection>,
}

impl Query {
    /// A decision about everybody in its scope, without a coarse stage.
    #[must_use]
    pub fn new(decision: Decision, threshold: Threshold) -> Self {
        Self { decision, threshold, preselection: None }
    }
}

/// Stands where a decision has its number, in front of a preselection.
const PRESELECTED: u8 = u8::MAX;

// A query without preselection is encoded as it was before there was one: logs and signatures of that time stay valid.
impl BorshSerialize for Query {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        if let Some(preselection) = &self.preselection {
            (PRESELECTED, preselection).serialize(writer)?;
        }
        (&self.decision, self.threshold).serialize(writer)
    }
}

impl BorshDeserialize for Query {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let (preselection, number) = match u8::deserialize_reader(reader)? {
            PRESELECTED => (Some(Preselection::deserialize_reader(reader)?), u8::deserialize_reader(reader)?),
            number => (None, number),
        };
        let decision = Decision::deserialize_variant(reader, number)?;
        Ok(Self { decision, threshold: Threshold::deserialize_reader(reader)?, preselection })
    }
}

/// What a sealed template may be used for; bound by its signature.
#[derive(Clone, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Purpose {
    /// To become a member of the gallery under this subject.
    Enrol {
        /// The person.
        subject: SubjectId,
    },
    /// To be compared once, for this query alone.
    Probe(Query),
    /// To become a member of the gallery under this subject, in the place of the one it has, if it has one.
    Supersede {
        /// The person.
        subject: SubjectId,
    },
}

impl Purpose {
    /// Whose template this becomes; `None` for a probe.
    #[must_use]
    pub fn enrols(&self) -> Option<&SubjectId> {
        match self {
            Self::Enrol { subject } | Self::Supersede { subject } => Some(subject),
            Self::Probe(_) => None,
        }
    }
}

/// The answer to a [`Decision`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Outcome {
    /// Answer to `verify`.
    Verify(bool),
    /// Answer to `exists`.
    Exists(bool),
    /// Answer to `matches`: the subjects, sorted.
    Matches(Vec<SubjectId>),
    /// Answer to `matches` when more subjects match than may be opened.
    TooMany,
    /// Answer to `best`.
    Best(Option<SubjectId>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_stay_inside_the_range_that_cannot_wrap() {
        assert!(Threshold::new(0.9).is_ok());
        assert!(Threshold::new(-0.9).is_ok());
        for bad in [0.9001, -0.91, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(Threshold::new(bad), Err(ThresholdError::OutOfRange));
        }
        assert!(borsh::from_slice::<Threshold>(&borsh::to_vec(&900_001i32).unwrap()).is_err());
        assert!((Threshold::new(0.427).unwrap().cosine() - 0.427).abs() < 1e-9);
    }
}
