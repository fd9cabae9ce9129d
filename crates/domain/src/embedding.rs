//! Face embeddings: finite, of unit Euclidean norm, of an allowed dimension.

use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;
use std::io;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{Explain, Status};

/// Smallest dimension that the system accepts.
pub const MIN_DIMENSION: usize = 16;
/// Largest dimension: the norm check is free of aliasing up to here (DESIGN 3.3).
pub const MAX_DIMENSION: usize = 1024;
/// How far from 1 the norm of an input may be before it is refused; inside, it is renormalised.
pub const UNIT_TOLERANCE: f64 = 1e-3;

/// The number of coordinates of a template, between [`MIN_DIMENSION`] and [`MAX_DIMENSION`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize)]
pub struct Dimension(u16);

impl Dimension {
    /// Checks the range.
    ///
    /// # Errors
    /// [`EmbeddingError::Dimension`] outside the range.
    pub fn new(dimension: usize) -> Result<Self, EmbeddingError> {
        if (MIN_DIMENSION..=MAX_DIMENSION).contains(&dimension) {
            // The range was just checked, so the value fits.
            Ok(Self(dimension as u16))
        } else {
            Err(EmbeddingError::Dimension { found: dimension })
        }
    }

    /// The number of coordinates.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

impl BorshDeserialize for Dimension {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        Self::new(u16::deserialize_reader(reader)?.into()).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why a vector is not an embedding. No coordinate is ever part of the message.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddingError {
    /// Dimension outside the allowed range.
    #[error("an embedding of {found} dimensions; {MIN_DIMENSION} to {MAX_DIMENSION} are supported")]
    Dimension {
        /// What came.
        found: usize,
    },
    /// Dimension other than the collection's.
    #[error("an embedding of {found} dimensions in a collection of {expected}")]
    WrongDimension {
        /// What came.
        found: usize,
        /// What the collection has.
        expected: usize,
    },
    /// A coordinate is NaN or infinite.
    #[error("coordinate {index} is not a finite number")]
    NotFinite {
        /// The first such coordinate.
        index: usize,
    },
    /// The norm is further from 1 than [`UNIT_TOLERANCE`].
    #[error("the vector does not have unit norm")]
    NotUnit,
    /// The norm is too small to be normalised.
    #[error("the vector is zero")]
    Zero,
}

impl Explain for EmbeddingError {
    fn code(&self) -> &'static str {
        match self {
            Self::Dimension { .. } | Self::WrongDimension { .. } => "wrong-dimension",
            Self::NotFinite { .. } => "not-finite",
            Self::NotUnit => "not-unit-norm",
            Self::Zero => "zero-vector",
        }
    }
    fn status(&self) -> Status {
        Status::InvalidArgument
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::Dimension { .. } | Self::WrongDimension { .. } => "use the model that the collection was made for",
            Self::NotFinite { .. } => "check the model's output for NaN and infinity",
            Self::NotUnit => "divide the vector by its L2 norm first",
            Self::Zero => "a zero vector has no direction: extract the embedding again",
        }
    }
}

/// A unit vector. Wiped on drop, redacted in `Debug`: a template is a secret of the person it describes.
#[derive(Clone, PartialEq, Zeroize, ZeroizeOnDrop)]
pub struct Embedding {
    values: Vec<f32>,
}

impl Embedding {
    /// Takes a vector of unit norm (within [`UNIT_TOLERANCE`]) and renormalises it.
    ///
    /// # Errors
    /// [`EmbeddingError`] on a wrong dimension, a coordinate that is not finite, or another norm.
    pub fn new(values: Vec<f32>) -> Result<Self, EmbeddingError> {
        let mut values = Self { values };
        let norm = values.checked_norm()?;
        if (norm - 1.0).abs() > UNIT_TOLERANCE {
            return Err(EmbeddingError::NotUnit);
        }
        values.divide(norm);
        Ok(values)
    }

    /// Takes a vector of any norm but zero and normalises it.
    ///
    /// # Errors
    /// [`EmbeddingError`] on a wrong dimension, a coordinate that is not finite, or a zero vector.
    pub fn normalised(values: Vec<f32>) -> Result<Self, EmbeddingError> {
        let mut values = Self { values };
        let norm = values.checked_norm()?;
        if norm < 1e-12 {
            return Err(EmbeddingError::Zero);
        }
        values.divide(norm);
        Ok(values)
    }

    fn checked_norm(&self) -> Result<f64, EmbeddingError> {
        Dimension::new(self.values.len())?;
        if let Some(index) = self.values.iter().position(|v| !v.is_finite()) {
            return Err(EmbeddingError::NotFinite { index });
        }
        Ok(self.values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt())
    }

    fn divide(&mut self, norm: f64) {
        for v in &mut self.values {
            *v = (f64::from(*v) / norm) as f32;
        }
    }

    /// Number of coordinates.
    #[must_use]
    pub fn dimension(&self) -> Dimension {
        Dimension(self.values.len() as u16)
    }

    /// The coordinates.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The cosine of the angle between two embeddings, summed in f64.
    ///
    /// # Errors
    /// [`EmbeddingError::WrongDimension`] if the dimensions differ.
    pub fn cosine(&self, other: &Embedding) -> Result<f64, EmbeddingError> {
        if self.values.len() != other.values.len() {
            return Err(EmbeddingError::WrongDimension { found: other.values.len(), expected: self.values.len() });
        }
        Ok(self.values.iter().zip(&other.values).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum())
    }
}

impl fmt::Debug for Embedding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Embedding({} dimensions, redacted)", self.values.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_is_not_a_unit_vector() {
        assert!(matches!(Embedding::new(vec![1.0; 8]), Err(EmbeddingError::Dimension { found: 8 })));
        assert!(matches!(Embedding::new(vec![0.0; 2000]), Err(EmbeddingError::Dimension { found: 2000 })));
        let mut v = vec![0.0f32; 64];
        assert!(matches!(Embedding::new(v.clone()), Err(EmbeddingError::NotUnit)));
        assert!(matches!(Embedding::normalised(v.clone()), Err(EmbeddingError::Zero)));
        v[3] = f32::NAN;
        assert!(matches!(Embedding::normalised(v.clone()), Err(EmbeddingError::NotFinite { index: 3 })));
        v[3] = 1.002;
        assert!(matches!(Embedding::new(v.clone()), Err(EmbeddingError::NotUnit)));
        v[3] = 1.0009;
        assert_eq!(Embedding::new(v).unwrap().values()[3], 1.0);
    }

    #[test]
    fn debug_shows_no_coordinate() {
        let mut v = vec![0.0f32; 64];
        v[0] = 1.0;
        assert_eq!(format!("{:?}", Embedding::new(v).unwrap()), "Embedding(64 dimensions, redacted)");
    }

    proptest! {
        #[test]
        fn building_never_panics_and_always_gives_unit_norm(
            values in proptest::collection::vec(proptest::num::f32::ANY, 0..80),
        ) {
            if let Ok(e) = Embedding::normalised(values) {
                let norm: f64 = e.values().iter().map(|&v| f64::from(v).powi(2)).sum();
                prop_assert!((norm - 1.0).abs() < 1e-5);
            }
        }
    }
}
