//! Synthetic embeddings with the statistics of a real face model.
//!
//! The model is Open Model Zoo's face-reidentification-retail-0095 on the images of the LFW pairs (7,701 images,
//! 4,281 people; `README.md` of the data folder). Measured there: mated cosine 0.669 on average with standard
//! deviation 0.121, non-mated cosine 0.005 with 0.095.
//!
//! An image of person u is x = a·m_u + √(1−a²)·n, with m_u the person's direction, n a fresh direction orthogonal to
//! it and a the image's likeness to its person. Directions are Gaussian with eigenvalues λ_k ∝ exp(−k/T) in a random
//! basis. Two such directions have a cosine of variance Σλ²/(Σλ)², so T is chosen to give an effective dimension of
//! 1/0.095² = 111 at any d. Below d = 111 no spectrum reaches that: the directions are isotropic and non-mated cosines
//! have the standard deviation 1/√d of the dimension, wider than the model's. The likeness varies by person and by
//! image; its mean and variances reproduce the mated statistics at every d ≥ 111.

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use veilmatch_domain::{Dimension, Embedding, EmbeddingError};

/// Mean mated cosine of the model on LFW.
pub const MATED_MEAN: f64 = 0.669;
/// Standard deviation of the mated cosine.
pub const MATED_STD: f64 = 0.121;
/// Mean non-mated cosine.
pub const NON_MATED_MEAN: f64 = 0.005;
/// Standard deviation of the non-mated cosine.
pub const NON_MATED_STD: f64 = 0.095;

/// 1/0.095²: what the spectrum is tuned to.
pub(crate) const EFFECTIVE_DIMENSION: f64 = 111.0;
/// Likeness of an image to its person: mean, and standard deviation by person and by image.
/// For two images of a person E[a₁a₂] = mean² + person² and var(a₁a₂) ≈ mean²·(4·person² + 2·image²).
const LIKENESS: Likeness = Likeness { mean: 0.818, person: 0.058, image: 0.066 };
const LIKENESS_RANGE: (f64, f64) = (0.2, 0.98);

struct Likeness {
    mean: f64,
    person: f64,
    image: f64,
}

/// Draws `count` people with `images_each` embeddings each; the same seed gives the same people.
///
/// # Errors
/// None in practice: a Gaussian vector that is exactly zero would be [`EmbeddingError::Zero`].
pub fn people(
    count: usize,
    images_each: usize,
    dimension: Dimension,
    seed: u64,
) -> Result<Vec<Vec<Embedding>>, EmbeddingError> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let world = World::new(dimension.get(), &mut rng);
    (0..count).map(|_| world.person(images_each, &mut rng)).collect()
}

/// The distribution of directions.
struct World {
    /// Square roots of the eigenvalues.
    amplitudes: Vec<f64>,
    basis: Rotation,
    /// What all faces have in common.
    common: Vec<f64>,
}

impl World {
    fn new(dimension: usize, rng: &mut ChaCha20Rng) -> Self {
        let amplitudes = spectrum(dimension).iter().map(|l| l.sqrt()).collect();
        let basis = Rotation::random(dimension, rng);
        let mut world = Self { amplitudes, basis, common: vec![0.0; dimension] };
        world.common = world.direction(rng);
        world
    }

    /// A unit vector, before rotation into the random basis.
    fn direction(&self, rng: &mut ChaCha20Rng) -> Vec<f64> {
        let mut v: Vec<f64> = self.amplitudes.iter().map(|a| a * normal(rng)).collect();
        scale_to_unit(&mut v);
        v
    }

    fn person(&self, images: usize, rng: &mut ChaCha20Rng) -> Result<Vec<Embedding>, EmbeddingError> {
        // Non-mated images share a₁a₂·weight² of the common direction.
        let weight = (NON_MATED_MEAN / MATED_MEAN).sqrt();
        let mut mean = self.direction(rng);
        for (m, c) in mean.iter_mut().zip(&self.common) {
            *m += weight * (c - weight * *m / 2.0);
        }
        scale_to_unit(&mut mean);
        let likeness = LIKENESS.mean + LIKENESS.person * normal(rng);
        (0..images)
            .map(|_| {
                let (low, high) = LIKENESS_RANGE;
                let a = (likeness + LIKENESS.image * normal(rng)).clamp(low, high);
                let mut noise = self.direction(rng);
                let along = dot(&noise, &mean);
                noise.iter_mut().zip(&mean).for_each(|(n, m)| *n -= along * m);
                scale_to_unit(&mut noise);
                let b = (1.0 - a * a).sqrt();
                let mut image: Vec<f64> = mean.iter().zip(&noise).map(|(m, n)| a * m + b * n).collect();
                self.basis.apply(&mut image);
                Embedding::normalised(image.iter().map(|&v| v as f32).collect())
            })
            .collect()
    }
}

/// Eigenvalues ∝ exp(−k/T) with (Σλ)²/Σλ² = 111, or all equal where the dimension is smaller than that.
fn spectrum(dimension: usize) -> Vec<f64> {
    let exponential = |t: f64| -> Vec<f64> { (0..dimension).map(|k| (-(k as f64) / t).exp()).collect() };
    let effective = |l: &[f64]| l.iter().sum::<f64>().powi(2) / l.iter().map(|v| v * v).sum::<f64>();
    if dimension as f64 <= EFFECTIVE_DIMENSION {
        return vec![1.0; dimension];
    }
    let (mut low, mut high) = (1.0, 1e6);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if effective(&exponential(middle)) < EFFECTIVE_DIMENSION { low = middle } else { high = middle }
    }
    exponential(high)
}

/// A random orthogonal map of O(d log d) cost: layers of plane rotations of randomly paired coordinates.
/// Without it the energy would sit in the first coordinates, which no real model does.
struct Rotation {
    layers: Vec<Vec<(usize, usize, f64, f64)>>,
}

impl Rotation {
    fn random(dimension: usize, rng: &mut ChaCha20Rng) -> Self {
        let layers = 2 * dimension.ilog2() as usize + 2;
        Self { layers: (0..layers).map(|_| Self::layer(dimension, rng)).collect() }
    }

    fn layer(dimension: usize, rng: &mut ChaCha20Rng) -> Vec<(usize, usize, f64, f64)> {
        let mut order: Vec<usize> = (0..dimension).collect();
        for i in (1..dimension).rev() {
            // The bias of the remainder is far below what any statistic here can see.
            order.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
        }
        order
            .as_chunks::<2>()
            .0
            .iter()
            .map(|&[i, j]| {
                let (sin, cos) = (std::f64::consts::TAU * (rng.next_u64() as f64 / u64::MAX as f64)).sin_cos();
                (i, j, cos, sin)
            })
            .collect()
    }

    fn apply(&self, v: &mut [f64]) {
        for &(i, j, cos, sin) in self.layers.iter().flatten() {
            (v[i], v[j]) = (cos * v[i] - sin * v[j], sin * v[i] + cos * v[j]);
        }
    }
}

fn normal(rng: &mut ChaCha20Rng) -> f64 {
    StandardNormal.sample(rng)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn scale_to_unit(v: &mut [f64]) {
    let norm = dot(v, v).sqrt();
    v.iter_mut().for_each(|x| *x /= norm);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::real_data;
    use std::collections::BTreeMap;

    #[derive(Debug)]
    struct Moments {
        mean: f64,
        std: f64,
    }

    fn moments(values: &[f64]) -> Moments {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        Moments { mean, std: (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt() }
    }

    /// Mated: all pairs of a person; non-mated: the first images of all people.
    fn statistics(people: &[Vec<Embedding>]) -> (Moments, Moments) {
        let (mut mated, mut non_mated) = (Vec::new(), Vec::new());
        for (i, person) in people.iter().enumerate() {
            for (j, image) in person.iter().enumerate() {
                mated.extend(person[..j].iter().map(|other| image.cosine(other).unwrap()));
            }
            non_mated.extend(people[..i].iter().map(|other| person[0].cosine(&other[0]).unwrap()));
        }
        (moments(&mated), moments(&non_mated))
    }

    fn draw(count: usize, dimension: usize) -> Vec<Vec<Embedding>> {
        people(count, 3, Dimension::new(dimension).unwrap(), 7).unwrap()
    }

    #[test]
    fn the_model_s_statistics_hold_at_every_dimension() {
        for dimension in [112, 128, 256, 512, 1024] {
            let (mated, non_mated) = statistics(&draw(1500, dimension));
            assert!((mated.mean - MATED_MEAN).abs() < 0.01, "{dimension}: {mated:?}");
            assert!((mated.std - MATED_STD).abs() < 0.01, "{dimension}: {mated:?}");
            assert!((non_mated.mean - NON_MATED_MEAN).abs() < 0.004, "{dimension}: {non_mated:?}");
            assert!((non_mated.std - NON_MATED_STD).abs() < 0.003, "{dimension}: {non_mated:?}");
        }
    }

    #[test]
    fn small_dimensions_are_isotropic() {
        for dimension in [16, 64] {
            let (mated, non_mated) = statistics(&draw(1000, dimension));
            assert!((mated.mean - MATED_MEAN).abs() < 0.015, "{dimension}: {mated:?}");
            assert!((non_mated.std * (dimension as f64).sqrt() - 1.0).abs() < 0.05, "{dimension}: {non_mated:?}");
        }
    }

    #[test]
    fn energy_is_spread_over_the_coordinates() {
        let people = draw(400, 512);
        let mut energy = vec![0.0; 512];
        for image in people.iter().flatten() {
            energy.iter_mut().zip(image.values()).for_each(|(e, &v)| *e += f64::from(v).powi(2) / 1200.0);
        }
        let largest = energy.iter().fold(0.0f64, |a, &b| a.max(b));
        assert!(largest < 4.0 / 512.0, "a coordinate holds {largest} of the energy");
    }

    #[test]
    fn a_seed_decides_everything() {
        let dimension = Dimension::new(64).unwrap();
        let draw = |seed| people(3, 2, dimension, seed).unwrap();
        assert!(draw(1) == draw(1));
        assert!(draw(1) != draw(2));
    }

    #[test]
    fn synthetic_matches_lfw() {
        let Some(folder) = real_data("synthetic_matches_lfw") else { return };
        let rows = crate::input::embeddings(&folder.join("lfw/templates_retail0095_f16.npy"), false).unwrap();
        let labels = crate::input::labels(&folder.join("lfw/labels.csv"), rows.len()).unwrap();
        let mut by_person: BTreeMap<_, Vec<Embedding>> = BTreeMap::new();
        for (row, label) in &labels {
            by_person.entry(label.clone()).or_default().push(rows[*row].clone());
        }
        let real: Vec<_> = by_person.into_values().collect();
        let (mated, non_mated) = statistics(&real);
        let (our_mated, our_non_mated) = statistics(&draw(2000, 256));
        assert!((mated.mean - our_mated.mean).abs() < 0.02, "{mated:?} {our_mated:?}");
        assert!((mated.std - our_mated.std).abs() < 0.02, "{mated:?} {our_mated:?}");
        assert!((non_mated.mean - our_non_mated.mean).abs() < 0.005, "{non_mated:?} {our_non_mated:?}");
        assert!((non_mated.std - our_non_mated.std).abs() < 0.005, "{non_mated:?} {our_non_mated:?}");
    }
}
