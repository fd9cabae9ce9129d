//! Templates for the tests of several modules.

use crate::synthetic::{self, Group};
use crate::{People, Templates};

/// Isotropic unit vectors, each a person of its own.
pub(crate) fn unit_vectors(count: usize, dimension: usize, seed: u64) -> Templates {
    crowd(count, 1, dimension, 1.0, seed).0
}

/// People of one group with nothing in common.
pub(crate) fn crowd(people: usize, images: usize, dimension: usize, likeness: f64, seed: u64) -> (Templates, People) {
    let group = Group { people, shared: 0.0, breadth: dimension as f64 };
    let crowd = synthetic::crowd(&[group], images, dimension, likeness, seed);
    (crowd.templates, crowd.people)
}
