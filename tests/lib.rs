//! What the integration tests share: a cluster with fixed seeds, and embeddings at chosen angles.

use veilmatch_cluster::Cluster;
pub use veilmatch_conformance::{at_cosine, random_unit, rng};
use veilmatch_domain::{ClientId, CollectionId, Decision, Dimension, Policy, Query, SubjectId, Threshold};
use veilmatch_glwe::GLWE_2048_V1;
use veilmatch_secret::Entropy;

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

/// A query.
///
/// # Panics
/// If the threshold is out of range.
#[must_use]
pub fn query(decision: Decision, threshold: f64) -> Query {
    Query::new(decision, Threshold::new(threshold).unwrap())
}
