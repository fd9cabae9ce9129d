//! Vectors at chosen angles, reproducible.

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use veilmatch_domain::Embedding;

/// A generator with a fixed seed.
#[must_use]
pub fn rng(seed: u64) -> ChaCha20Rng {
    let mut bytes = [0u8; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    ChaCha20Rng::from_seed(bytes)
}

/// A random unit vector: coordinates are sums of twelve uniform values, close enough to normal to be isotropic.
///
/// # Panics
/// If the dimension is not supported.
#[must_use]
pub fn random_unit(dimension: usize, rng: &mut ChaCha20Rng) -> Embedding {
    let mut normal = || (0..12).map(|_| f64::from(rng.next_u32()) / 4_294_967_296.0 - 0.5).sum::<f64>() as f32;
    match Embedding::normalised((0..dimension).map(|_| normal()).collect()) {
        Ok(embedding) => embedding,
        Err(error) => panic!("{error}"),
    }
}

/// A unit vector at this cosine to another, in a random direction otherwise.
///
/// # Panics
/// If the cosine is not between −1 and 1.
#[must_use]
pub fn at_cosine(to: &Embedding, cosine: f64, rng: &mut ChaCha20Rng) -> Embedding {
    let other = random_unit(to.values().len(), rng);
    let dot: f64 = to.values().iter().zip(other.values()).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    let orthogonal: Vec<f64> =
        to.values().iter().zip(other.values()).map(|(&a, &b)| f64::from(b) - dot * f64::from(a)).collect();
    let norm = orthogonal.iter().map(|v| v * v).sum::<f64>().sqrt();
    let sine = (1.0 - cosine * cosine).sqrt();
    let mixed: Vec<f32> =
        to.values().iter().zip(&orthogonal).map(|(&a, &o)| (cosine * f64::from(a) + sine * o / norm) as f32).collect();
    match Embedding::normalised(mixed) {
        Ok(embedding) => embedding,
        Err(error) => panic!("{error}"),
    }
}
