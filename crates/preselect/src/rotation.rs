//! Orthogonal maps: fitted by principal components, or random.

use borsh::{BorshDeserialize, BorshSerialize};
use nalgebra::{DMatrix, SymmetricEigen};
use rayon::prelude::*;
use veilmatch_domain::{Dimension, Embedding, EmbeddingError, Explain, Status};
use veilmatch_secret::{Label, Stream};

/// Rows that are multiplied at once when second moments are added up.
const CHUNK: usize = 1024;

/// Where a rotation comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Origin {
    /// Principal components of so many public embeddings, the strongest first.
    Principal {
        /// How many embeddings.
        embeddings: u64,
    },
    /// Uniform among all rotations and reflections, from a public seed.
    Random {
        /// The seed.
        seed: u64,
    },
}

/// Why there is no rotation, or none of this embedding.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RotationError {
    /// Fewer embeddings than dimensions: the last components would be arbitrary.
    #[error("{found} embeddings; a rotation of {needed} dimensions needs as many at least")]
    TooFew {
        /// How many came.
        found: usize,
        /// The dimension.
        needed: usize,
    },
    /// An embedding of another dimension.
    #[error("an embedding of {found} dimensions, a rotation of {expected}")]
    Dimension {
        /// What came.
        found: usize,
        /// What the rotation has.
        expected: usize,
    },
    /// The eigenvectors were not found.
    #[error("the principal components cannot be computed")]
    Diverged,
    /// What came out is no embedding.
    #[error(transparent)]
    Embedding(#[from] EmbeddingError),
}

impl Explain for RotationError {
    fn code(&self) -> &'static str {
        match self {
            Self::TooFew { .. } => "too-few-embeddings",
            Self::Dimension { .. } => "wrong-dimension",
            Self::Diverged => "no-components",
            Self::Embedding(e) => e.code(),
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::Embedding(e) => e.status(),
            _ => Status::InvalidArgument,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::TooFew { .. } => "add embeddings, or use a random rotation",
            Self::Dimension { .. } => "use the rotation that was made for this model",
            Self::Diverged => "check the embeddings, or use a random rotation",
            Self::Embedding(e) => e.advice(),
        }
    }
}

/// An orthogonal matrix R: coordinate k of the rotated vector is row k times the vector. Public.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotation {
    pub(crate) dimension: Dimension,
    pub(crate) origin: Origin,
    /// The share of the fitted embeddings' squared norm in each coordinate after rotation; d numbers, with the sum 1. All
    /// equal for a random rotation.
    pub(crate) energy: Vec<f32>,
    /// R, row by row: d² numbers.
    pub(crate) matrix: Vec<f32>,
}

impl Rotation {
    /// Fits principal components: coordinate 0 gets the direction with most of the squared norm, and so on. The mean is not
    /// subtracted, because a shift would change cosines.
    ///
    /// # Errors
    /// [`RotationError`] for fewer embeddings than dimensions, or different dimensions.
    pub fn fit(embeddings: &[Embedding]) -> Result<Self, RotationError> {
        let needed = embeddings.first().map_or(1, |e| e.values().len());
        let Some(first) = embeddings.first().filter(|_| embeddings.len() >= needed) else {
            return Err(RotationError::TooFew { found: embeddings.len(), needed });
        };
        let d = needed;
        if let Some(other) = embeddings.iter().find(|e| e.values().len() != d) {
            return Err(RotationError::Dimension { found: other.values().len(), expected: d });
        }
        let moments = embeddings
            .par_chunks(CHUNK)
            .map(|chunk| {
                let values = chunk.iter().flat_map(|e| e.values().iter().map(|&v| f64::from(v)));
                let columns = DMatrix::from_iterator(d, chunk.len(), values);
                &columns * columns.transpose()
            })
            .reduce(|| DMatrix::zeros(d, d), |a, b| a + b)
            / embeddings.len() as f64;
        let eigen = SymmetricEigen::try_new(moments, 1e-12, 0).ok_or(RotationError::Diverged)?;
        let mut order: Vec<(f64, usize)> = eigen.eigenvalues.iter().copied().zip(0..d).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0));
        let total: f64 = order.iter().map(|(value, _)| value.max(0.0)).sum();
        let energy = order.iter().map(|(value, _)| (value.max(0.0) / total) as f32).collect();
        let matrix = order
            .iter()
            .flat_map(|&(_, column)| {
                let vector = eigen.eigenvectors.column(column);
                // An eigenvector's sign is arbitrary; the largest entry is made positive, so that equal data give equal files.
                let largest = vector.iter().fold(0.0f64, |a, &b| if b.abs() > a.abs() { b } else { a });
                vector.iter().map(|v| (v * largest.signum()) as f32).collect::<Vec<_>>()
            })
            .collect();
        let origin = Origin::Principal { embeddings: embeddings.len() as u64 };
        Ok(Self { dimension: first.dimension(), origin, energy, matrix })
    }

    /// A uniform rotation or reflection: Q of the QR decomposition of a Gaussian matrix, with the signs of R's diagonal
    /// moved into it (Mezzadri 2007).
    #[must_use]
    pub fn random(dimension: Dimension, seed: u64) -> Self {
        let d = dimension.get();
        let mut stream = Stream::public(Label::new("veilmatch/preselect/random").number(seed).digest().0);
        let gaussian = DMatrix::from_fn(d, d, |_, _| normal(&mut stream));
        let (q, r) = gaussian.qr().unpack();
        let signs: Vec<f64> = r.diagonal().iter().map(|v| if *v < 0.0 { -1.0 } else { 1.0 }).collect();
        let matrix = q
            .column_iter()
            .zip(&signs)
            .flat_map(|(column, sign)| column.iter().map(|v| (v * sign) as f32).collect::<Vec<_>>())
            .collect();
        let energy = vec![1.0 / d as f32; d];
        Self { dimension, origin: Origin::Random { seed }, energy, matrix }
    }

    /// The dimension of what it rotates.
    #[must_use]
    pub fn dimension(&self) -> Dimension {
        self.dimension
    }

    /// Where it comes from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The share of the squared norm that the first m coordinates had after rotation, over what it was fitted on; 0 to 1.
    #[must_use]
    pub fn energy(&self, m: usize) -> f64 {
        self.energy.iter().take(m).map(|&e| f64::from(e)).sum()
    }

    /// Rotates. The result is a unit vector again, and cosines are kept to about 10⁻⁶.
    ///
    /// # Errors
    /// [`RotationError::Dimension`] for an embedding of another dimension.
    pub fn rotate(&self, embedding: &Embedding) -> Result<Embedding, RotationError> {
        let (found, expected) = (embedding.values().len(), self.dimension.get());
        if found != expected {
            return Err(RotationError::Dimension { found, expected });
        }
        let row = |row: &[f32]| {
            row.iter().zip(embedding.values()).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() as f32
        };
        Ok(Embedding::new(self.matrix.chunks_exact(expected).map(row).collect())?)
    }

    /// Whether R·Rᵀ is the identity, entry by entry within this tolerance; false where an entry is not finite.
    pub(crate) fn is_orthogonal(&self, tolerance: f64) -> bool {
        let d = self.dimension.get();
        // Row by row is column by column of the transpose.
        let transposed = DMatrix::from_iterator(d, d, self.matrix.iter().map(|&v| f64::from(v)));
        let off = transposed.tr_mul(&transposed) - DMatrix::identity(d, d);
        off.iter().all(|v| v.abs() <= tolerance)
    }
}

/// A standard normal number (Box-Muller); the logarithm's argument is never zero.
fn normal(stream: &mut Stream) -> f64 {
    let uniform = |stream: &mut Stream| ((stream.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let (u, v) = (uniform(stream), uniform(stream));
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Unit vectors whose coordinates shrink geometrically, in coordinates mixed by a random rotation.
    pub(crate) fn uneven(count: usize, d: usize, seed: u64) -> Vec<Embedding> {
        let mut stream = Stream::public(Label::new("test").number(seed).digest().0);
        let mix = Rotation::random(Dimension::new(d).unwrap(), 99);
        let draw = |stream: &mut Stream| (0..d).map(|k| (normal(stream) * 0.9f64.powi(k as i32)) as f32).collect();
        (0..count).map(|_| mix.rotate(&Embedding::normalised(draw(&mut stream)).unwrap()).unwrap()).collect()
    }

    fn norm(embedding: &Embedding) -> f64 {
        embedding.values().iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn norms_and_cosines_are_kept_by_both_kinds() {
        let vectors = uneven(200, 64, 1);
        for rotation in [Rotation::fit(&vectors).unwrap(), Rotation::random(Dimension::new(64).unwrap(), 7)] {
            assert!(rotation.is_orthogonal(1e-6));
            let rotated: Vec<_> = vectors.iter().map(|v| rotation.rotate(v).unwrap()).collect();
            for (i, v) in rotated.iter().enumerate() {
                assert!((norm(v) - 1.0).abs() < 1e-6);
                let (before, after) = (vectors[0].cosine(&vectors[i]).unwrap(), rotated[0].cosine(v).unwrap());
                assert!((before - after).abs() < 2e-6, "{before} {after}");
            }
            assert!(rotated[1] != vectors[1], "it must turn something");
        }
    }

    #[test]
    fn fitted_coordinates_are_sorted_by_energy_and_random_ones_are_even() {
        let d = 64;
        let vectors = uneven(2000, d, 2);
        let energy_of = |rotation: &Rotation, m: usize| -> f64 {
            let fresh = uneven(500, d, 3);
            let of = |v: &Embedding| -> f64 {
                rotation.rotate(v).unwrap().values()[..m].iter().map(|&x| f64::from(x).powi(2)).sum()
            };
            fresh.iter().map(of).sum::<f64>() / 500.0
        };
        let fitted = Rotation::fit(&vectors).unwrap();
        assert!(fitted.energy.windows(2).all(|w| w[0] >= w[1]));
        assert!((fitted.energy(d) - 1.0).abs() < 1e-5);
        // Σ 0.81^k over 16 of 64 coordinates is 96.6 % of the whole, whatever basis the vectors come in.
        assert!((energy_of(&fitted, 16) - 0.966).abs() < 0.03, "{}", energy_of(&fitted, 16));
        assert!((fitted.energy(16) - energy_of(&fitted, 16)).abs() < 0.03);
        let random = Rotation::random(Dimension::new(d).unwrap(), 4);
        assert!((energy_of(&random, 16) - 0.25).abs() < 0.1 && (random.energy(16) - 0.25).abs() < 1e-6);
    }

    #[test]
    fn a_seed_decides_everything_and_large_ones_are_orthogonal_too() {
        let dimension = Dimension::new(512).unwrap();
        assert!(Rotation::random(dimension, 1) == Rotation::random(dimension, 1));
        assert!(Rotation::random(dimension, 1).matrix != Rotation::random(dimension, 2).matrix);
        assert!(Rotation::random(dimension, 1).is_orthogonal(1e-5));
    }

    #[test]
    fn unfit_embeddings_are_refused() {
        let few = uneven(15, 16, 1);
        assert_eq!(Rotation::fit(&few), Err(RotationError::TooFew { found: 15, needed: 16 }));
        assert_eq!(Rotation::fit(&[]), Err(RotationError::TooFew { found: 0, needed: 1 }));
        let mut mixed = uneven(20, 16, 1);
        mixed.extend(uneven(1, 32, 1));
        assert_eq!(Rotation::fit(&mixed), Err(RotationError::Dimension { found: 32, expected: 16 }));
        let rotation = Rotation::random(Dimension::new(32).unwrap(), 1);
        assert_eq!(rotation.rotate(&few[0]), Err(RotationError::Dimension { found: 16, expected: 32 }));
    }
}
