//! Quantisation and the split into three parts modulo 2⁴⁸ (DESIGN 3.2).

use veilmatch_domain::{Dimension, Embedding};
use veilmatch_secret::{Entropy, Label, Secret, Seed};

/// S_c: what a coordinate is multiplied with before it is rounded.
pub const COORDINATE_SCALE: u64 = 1 << 18;
/// Parts are vectors modulo 2^RING_BITS.
pub const RING_BITS: u32 = 48;
/// Reduces modulo 2^[`RING_BITS`].
pub const RING_MASK: u64 = (1 << RING_BITS) - 1;
/// Bytes of one packed value.
pub const COORDINATE_BYTES: usize = RING_BITS as usize / 8;

/// m_j = round(S_c·x_j) mod 2⁴⁸, in f64 (exact: an f32 times a power of two), ties to even as in `reference.py`.
#[must_use]
pub fn quantise(embedding: &Embedding) -> Secret<Vec<u64>> {
    let scale = COORDINATE_SCALE as f64;
    // |x_j| ≤ 1, so the rounded value fits; the cast to u64 is two's complement, that is, modulo 2^64.
    let quantised = |&x: &f32| ((f64::from(x) * scale).round_ties_even() as i64 as u64) & RING_MASK;
    Secret::new(embedding.values().iter().map(quantised).collect())
}

/// Three parts that add up to a vector modulo 2⁴⁸.
#[derive(Debug)]
pub struct Split {
    /// Parts 0 and 1, to be expanded with [`expand_part`].
    pub seeds: [Seed; 2],
    /// Part 2: what is missing to the vector.
    pub data: Secret<Vec<u64>>,
}

/// Splits a vector: two fresh seeds and what their expansions lack. Any two parts are independent of the vector, as far
/// as the stream cipher is a PRF; for parts 0 and 2, or 1 and 2, because the seed of the third is unknown.
#[must_use]
pub fn split(values: &[u64], entropy: &mut dyn Entropy) -> Split {
    let seeds = [Seed::random(entropy), Seed::random(entropy)];
    let mut data = Secret::new(values.to_vec());
    for seed in &seeds {
        let part = expand(seed, values.len());
        for (value, mask) in data.expose_mut().iter_mut().zip(part.expose()) {
            *value = value.wrapping_sub(*mask) & RING_MASK;
        }
    }
    Split { seeds, data }
}

/// The values of a part that is known by its seed.
#[must_use]
pub fn expand_part(seed: &Seed, dimension: Dimension) -> Secret<Vec<u64>> {
    expand(seed, dimension.get())
}

fn expand(seed: &Seed, values: usize) -> Secret<Vec<u64>> {
    let mut bytes = Secret::new(vec![0u8; values * COORDINATE_BYTES]);
    seed.stream(&Label::new("veilmatch/sealed/part").number(values as u64)).fill(bytes.expose_mut());
    unpack(bytes.expose())
}

/// Values below 2⁴⁸ as six little-endian bytes each.
#[must_use]
pub fn pack(values: &[u64]) -> Secret<Vec<u8>> {
    let mut bytes = Vec::with_capacity(values.len() * COORDINATE_BYTES);
    for value in values {
        bytes.extend(value.to_le_bytes().iter().take(COORDINATE_BYTES));
    }
    Secret::new(bytes)
}

/// The inverse of [`pack`]; bytes after the last whole value are ignored.
#[must_use]
pub fn unpack(bytes: &[u8]) -> Secret<Vec<u64>> {
    let value =
        |chunk: &[u8; COORDINATE_BYTES]| chunk.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
    Secret::new(bytes.as_chunks().0.iter().map(value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use veilmatch_secret::os_entropy;

    fn sum(split: &Split, values: usize) -> Vec<u64> {
        let [p0, p1] = split.seeds.each_ref().map(|seed| expand(seed, values));
        (0..values).map(|j| (p0.expose()[j] + p1.expose()[j] + split.data.expose()[j]) & RING_MASK).collect()
    }

    #[test]
    fn quantises_the_extremes_and_ties_like_the_reference() {
        for (axis, sign, expected) in [(0, 1.0f32, 1 << 18), (63, -1.0, (1 << 48) - (1 << 18))] {
            let mut vector = vec![0.0f32; 64];
            vector[axis] = sign;
            let m = quantise(&Embedding::new(vector).unwrap());
            assert_eq!(m.expose()[axis], expected);
            assert_eq!(m.expose().iter().filter(|&&v| v == 0).count(), 63);
        }
        // Python: [round(2**18 * v) for v in (0.5/2**18, 1.5/2**18, -0.5/2**18, -1.5/2**18, -1/2**18)] = 0, 2, 0, -2, -1
        let mut vector = vec![0.0f32; 16];
        let unit = 1.0 / COORDINATE_SCALE as f32;
        (vector[0], vector[1], vector[2], vector[3]) = (1.0, 0.5 * unit, 1.5 * unit, -0.5 * unit);
        (vector[4], vector[5]) = (-1.5 * unit, -unit);
        let m = quantise(&Embedding::new(vector).unwrap());
        assert_eq!(m.expose()[..6], [1 << 18, 0, 2, 0, RING_MASK - 1, RING_MASK]);
    }

    #[test]
    fn one_split_tells_nothing_of_another() {
        let values = vec![7u64; 512];
        let mut entropy = os_entropy();
        let (a, b) = (split(&values, &mut *entropy), split(&values, &mut *entropy));
        assert!(a.data.expose().iter().zip(b.data.expose()).filter(|(a, b)| a == b).count() < 3);
        let mean = a.data.expose().iter().map(|&v| v as f64 / (1u64 << 48) as f64).sum::<f64>() / 512.0;
        assert!((mean - 0.5).abs() < 0.1, "seven standard deviations: {mean}");
    }

    proptest! {
        #[test]
        fn parts_add_up(values in proptest::collection::vec(0..=RING_MASK, 0..100)) {
            let split = split(&values, &mut *os_entropy());
            prop_assert!(split.data.expose().iter().all(|&v| v <= RING_MASK));
            prop_assert_eq!(sum(&split, values.len()), values);
        }

        #[test]
        fn packing_is_exact(values in proptest::collection::vec(0..=RING_MASK, 0..100)) {
            let bytes = pack(&values);
            prop_assert_eq!(bytes.expose().len(), values.len() * COORDINATE_BYTES);
            let again = unpack(bytes.expose());
            prop_assert_eq!(again.expose(), &values);
        }
    }
}
