//! A probe for two evaluators, and what each of them computes.
//!
//! p_j = share0_j + share1_j over the integers, with share0_j uniform in [−2^102, 2^102). Share 0 does not depend on the probe. Share
//! 1 is uniform in an interval of the same length, moved by p_j: for two probes with |p_j| < 2^12 the distributions of one coordinate
//! differ by at most 2^13/2^103, and those of up to 2^10 coordinates by at most 2^10·2^13/2^103 = 2^−80.

use std::collections::BTreeMap;
use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};
use rayon::prelude::*;
use veilmatch_kernels::montgomery::Modular;
use veilmatch_secret::{Entropy, Secret};
use zeroize::Zeroizing;

use crate::exponentiation::Digits;
use crate::integers::random_limbs;
use crate::{Ciphertext, PaillierError, PreparedBases};

/// Bits of the magnitude of a share.
pub const EXPONENT_BITS: usize = 103;
/// share0 is uniform below 2^SHARE_BITS, less 2^(SHARE_BITS − 1).
const SHARE_BITS: usize = 103;
/// Probe coordinates are below 2^12 in magnitude: 2^11·√(1+δ) with δ < 1.
const COORDINATE_BOUND: i32 = 1 << 12;
/// The most coordinates for which the statistical distance above holds.
const MAX_COORDINATES: usize = 1 << 10;

/// One evaluator's share of a probe. Redacted, wiped on drop.
pub struct ProbeShare(Secret<Vec<i128>>);

/// Splits quantised coordinates into two shares; each alone says nothing about them (distance 2^−80). Constant time.
///
/// # Errors
/// [`PaillierError`] on more than 1,024 coordinates or a coordinate of 2^12 or more in magnitude.
pub fn split_probe(probe: &[i32], entropy: &mut dyn Entropy) -> Result<[ProbeShare; 2], PaillierError> {
    if probe.len() > MAX_COORDINATES {
        return Err(PaillierError::Count { what: "coordinates", found: probe.len(), expected: MAX_COORDINATES });
    }
    if !probe.iter().fold(true, |all, p| all & (p.unsigned_abs() < COORDINATE_BOUND.unsigned_abs())) {
        return Err(PaillierError::OutOfRange { what: "coordinate" });
    }
    let random = random_limbs(128 * probe.len(), entropy);
    let (mut first, mut second) = (Vec::with_capacity(probe.len()), Vec::with_capacity(probe.len()));
    for (&coordinate, limbs) in probe.iter().zip(random.expose().chunks_exact(2)) {
        let wide = limbs.iter().rev().fold(0u128, |all, &limb| all << 64 | u128::from(limb));
        let share = (wide >> (128 - SHARE_BITS)) as i128 - (1 << (SHARE_BITS - 1));
        first.push(share);
        second.push(i128::from(coordinate) - share);
    }
    Ok([ProbeShare(Secret::new(first)), ProbeShare(Secret::new(second))])
}

impl ProbeShare {
    /// Checks a share that came from elsewhere.
    ///
    /// # Errors
    /// [`PaillierError`] on too many coordinates or magnitudes of 2^[`EXPONENT_BITS`] or more.
    pub fn new(coordinates: Vec<i128>) -> Result<Self, PaillierError> {
        let share = Self(Secret::new(coordinates));
        if share.len() > MAX_COORDINATES {
            return Err(PaillierError::Count { what: "coordinates", found: share.len(), expected: MAX_COORDINATES });
        }
        if !share.expose().iter().fold(true, |all, e| all & (e.unsigned_abs() >> EXPONENT_BITS == 0)) {
            return Err(PaillierError::OutOfRange { what: "share of a probe" });
        }
        Ok(share)
    }

    /// The number of coordinates.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.expose().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.expose().is_empty()
    }

    /// The coordinates.
    #[must_use]
    pub fn expose(&self) -> &[i128] {
        self.0.expose()
    }
}

impl fmt::Debug for ProbeShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProbeShare(redacted)")
    }
}

impl BorshSerialize for ProbeShare {
    fn serialize<W: std::io::Write>(&self, writer: &mut W) -> std::io::Result<()> {
        self.expose().serialize(writer)
    }
}

impl BorshDeserialize for ProbeShare {
    fn deserialize_reader<R: std::io::Read>(reader: &mut R) -> std::io::Result<Self> {
        let coordinates = Vec::deserialize_reader(reader)?;
        Self::new(coordinates).map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, e))
    }
}

/// One evaluator's work: for every packed group ∏_j X_j^{share_j}, multiplied by a fresh encryption of zero. Groups are spread over the
/// current rayon pool. The time depends on the share, which the evaluator knows.
///
/// # Errors
/// [`PaillierError`] if a group has another number of bases than the share has coordinates.
pub fn evaluate_vartime(
    groups: &[&PreparedBases],
    share: &ProbeShare,
    entropy: &mut dyn Entropy,
) -> Result<Vec<Ciphertext>, PaillierError> {
    let mut recodings: BTreeMap<(usize, usize), Digits> = BTreeMap::new();
    for group in groups {
        if group.len() != share.len() {
            return Err(PaillierError::Count { what: "coordinates", found: share.len(), expected: group.len() });
        }
        recodings.entry(group.recoding()).or_insert_with(|| group.digits(share.expose()));
    }
    let randomness: Vec<_> =
        groups.iter().map(|group| random_limbs(group.key().size().randomness_bits(), entropy)).collect();
    groups
        .par_iter()
        .zip(&randomness)
        .map(|(group, randomness)| {
            let key = group.key();
            let mut work = key.group().workspace();
            let digits = recodings.get(&group.recoding()).ok_or(PaillierError::Malformed { what: "recoding" })?;
            let mut product = group.power_vartime(&mut work, digits)?;
            // Whoever saw it could take the fresh randomness away again.
            let zero = Zeroizing::new(key.table().power(key.group(), &mut work, randomness.expose()));
            key.group().multiply_assign(&mut work, &mut product, &zero);
            Ok(Ciphertext::from_inner(key, &mut work, product))
        })
        .collect()
}

#[cfg(test)]
mod tests;
