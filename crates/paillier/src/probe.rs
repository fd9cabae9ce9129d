//! What an evaluator has of a probe, and what it computes with it.
//!
//! The probe p is split modulo 2^k, k = [`crate::TORUS_BITS`] = 26: a_j + b_j ≡ p_j, one share for the matcher and one for its twin,
//! each uniform as long as the other is not known. As exponents serve the representatives between −2^(k−1) and 2^(k−1); the multiple of
//! 2^k by which a_j + b_j differs from p_j as integers stays in the slots ([`crate::Slots`]) and is masked with them.

use std::collections::BTreeMap;
use std::fmt;

use rayon::prelude::*;
use veilmatch_kernels::montgomery::Modular;
use veilmatch_secret::{Entropy, Secret};
use zeroize::Zeroizing;

use crate::exponentiation::Digits;
use crate::integers::random_limbs;
use crate::slots::is_representative;
use crate::{Ciphertext, PaillierError, PreparedBases};

/// One evaluator's share of a probe: representatives of residues modulo 2^26, one for each dimension. Redacted, wiped on drop.
pub struct ProbeShare(Secret<Vec<i32>>);

impl ProbeShare {
    /// Takes representatives, as [`crate::centred`] gives them. Constant time.
    ///
    /// # Errors
    /// [`PaillierError::OutOfRange`] on a coordinate beyond ±2^25.
    pub fn new(coordinates: Secret<Vec<i32>>) -> Result<Self, PaillierError> {
        if coordinates.expose().iter().fold(true, |all, &e| all & is_representative(e)) {
            Ok(Self(coordinates))
        } else {
            Err(PaillierError::OutOfRange { what: "share of a probe" })
        }
    }

    /// The number of coordinates.
    fn len(&self) -> usize {
        self.0.expose().len()
    }
}

impl fmt::Debug for ProbeShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProbeShare(redacted)")
    }
}

/// One evaluator's work: for every packed group ∏_j X_j^{share_j}, multiplied by a fresh encryption of zero. Groups are spread over the
/// current rayon pool. The time depends on the share, which the evaluator knows.
///
/// # Errors
/// [`PaillierError::Count`] if a group has another number of bases than the share has coordinates.
pub fn evaluate_vartime(
    groups: &[&PreparedBases],
    share: &ProbeShare,
    entropy: &mut dyn Entropy,
) -> Result<Vec<Ciphertext>, PaillierError> {
    let mut recodings: BTreeMap<usize, Digits> = BTreeMap::new();
    for group in groups {
        if group.len() != share.len() {
            return Err(PaillierError::Count { what: "coordinates", found: share.len(), expected: group.len() });
        }
        recodings.entry(group.window()).or_insert_with(|| group.digits(share.0.expose()));
    }
    let randomness: Vec<_> =
        groups.iter().map(|group| random_limbs(group.key().size().randomness_bits(), entropy)).collect();
    groups
        .par_iter()
        .zip(&randomness)
        .map(|(group, randomness)| {
            let key = group.key();
            let mut work = key.group().workspace();
            let digits = recodings.get(&group.window()).ok_or(PaillierError::Malformed { what: "recoding" })?;
            let mut product = group.power_vartime(&mut work, digits);
            // Whoever saw it could take the fresh randomness away again.
            let zero = Zeroizing::new(key.table().power(key.group(), &mut work, randomness.expose()));
            key.group().multiply_assign(&mut work, &mut product, &zero);
            Ok(Ciphertext::from_inner(key, &mut work, product))
        })
        .collect()
}

#[cfg(test)]
mod tests;
