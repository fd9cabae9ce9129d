//! What the integration tests share: a cluster with fixed seeds, and embeddings at chosen angles.

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use veilmatch_cluster::Cluster;
use veilmatch_domain::{ClientId, CollectionId, Decision, Dimension, Embedding, Policy, Query, SubjectId, Threshold};
use veilmatch_glwe::GLWE_2048_V1;
use veilmatch_secret::Entropy;

/// A generator with a fixed seed.
#[must_use]
pub fn rng(seed: u64) -> ChaCha20Rng {
    let mut bytes = [0u8; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    ChaCha20Rng::from_seed(bytes)
}

/// A cluster whose parties draw from fixed seeds.
///
/// # Panics
/// If the ceremony fails.
#[must_use]
pub fn cluster(dimension: usize, seed: u64) -> Cluster {
    let mut next = seed * 1000;
    let entropy = || {
        next += 1;
        Box::new(rng(next)) as Box<dyn Entropy>
    };
    let policy = Policy::permissive(Dimension::new(dimension).unwrap());
    let collection = CollectionId::new("staff").unwrap();
    Cluster::new(GLWE_2048_V1, collection, policy, ClientId::new("gate").unwrap(), entropy).unwrap()
}

/// A subject id.
///
/// # Panics
/// Never.
#[must_use]
pub fn subject(number: usize) -> SubjectId {
    SubjectId::new(format!("s{number}")).unwrap()
}

/// A random unit vector (normal coordinates by sums of uniforms).
///
/// # Panics
/// Never.
#[must_use]
pub fn random_unit(dimension: usize, rng: &mut ChaCha20Rng) -> Embedding {
    let mut normal = || (0..12).map(|_| f64::from(rng.next_u32()) / 4_294_967_296.0 - 0.5).sum::<f64>() as f32;
    Embedding::normalised((0..dimension).map(|_| normal()).collect()).unwrap()
}

/// A unit vector at this cosine to another.
///
/// # Panics
/// Never for finite cosines in \[−1, 1\].
#[must_use]
pub fn at_cosine(to: &Embedding, cosine: f64, rng: &mut ChaCha20Rng) -> Embedding {
    let other = random_unit(to.values().len(), rng);
    let dot = to.cosine(&other).unwrap();
    let orthogonal: Vec<f64> =
        to.values().iter().zip(other.values()).map(|(&a, &b)| f64::from(b) - dot * f64::from(a)).collect();
    let norm = orthogonal.iter().map(|v| v * v).sum::<f64>().sqrt();
    let sine = (1.0 - cosine * cosine).max(0.0).sqrt();
    let mixed =
        to.values().iter().zip(&orthogonal).map(|(&a, &o)| (cosine * f64::from(a) + sine * o / norm) as f32).collect();
    Embedding::normalised(mixed).unwrap()
}

/// A query.
///
/// # Panics
/// If the threshold is out of range.
#[must_use]
pub fn query(decision: Decision, threshold: f64) -> Query {
    Query { decision, threshold: Threshold::new(threshold).unwrap() }
}
