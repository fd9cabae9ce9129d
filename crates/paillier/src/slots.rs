//! Slots: the scores of many templates in one plaintext, from shares of templates and of the probe.
//!
//! Nobody holds a template or a probe. Holder K_i has part i of both modulo 2^k, k = [`TORUS_BITS`] = 26, at the scale
//! S = 2^[`SCALE_BITS`] = 2^12, and everything below is in representatives between −2^(k−1) and 2^(k−1):
//!
//! - of a template, X_j = Σ_t (x⁰+x¹+x²)_{t,j}·2^{w·t} is the sum of the three holders' plaintexts, one per dimension j;
//! - of the probe, the matcher has a_j and its twin b_j with a_j + b_j ≡ p_j modulo 2^k, each uniform by itself;
//! - Σ_j (a_j+b_j)·X_j holds V_t = Σ_j (a_j+b_j)(x⁰+x¹+x²)_{t,j} in slot t, and V_t ≡ Σ_j p_j·x_{t,j} modulo 2^k: the score.
//!
//! The multiples of 2^k in V_t say something about the shares, so V_t is opened under masks that hide all of it.
//!
//! **No slot can overflow**, whatever the parts are (they are residues, so there is nothing that a client could choose too large). With
//! d coordinates:
//!
//! 1. |a_j+b_j| ≤ 2^k and |x⁰+x¹+x²| ≤ 3·2^(k−1), so |V_t| ≤ 3d·2^(2k−1);
//! 2. with the offset O, the least power of two that is not below that: 0 ≤ V_t + O ≤ 2·O;
//! 3. each of three masks is below 2^m with 2^m = 2·O·2^40: V_t + O + M_t ≤ 2·O + 3·(2^m − 1) < 2^(m+2), and w = m + 2;
//! 4. Y = Σ_t (V_t + O + M_t)·2^{w·t} < 2^{w·slots} ≤ 2^(|N|−1) ≤ N: Y is not reduced modulo N, and its digits to the base 2^w are
//!    the slots.
//!
//! What the matcher and its twin compute along the way may be negative or beyond N as an integer; it counts modulo N alone.
//!
//! **What an opened slot hides.** Whoever reads it lacks at least one mask that is uniform below 2^m; for two values of V_t the
//! distributions of the slot differ by at most 2·O/2^m = 2^−40. [`STATISTICAL_BITS`] says so.

use veilmatch_domain::Dimension;
use veilmatch_kernels::montgomery::limbs;
use veilmatch_secret::{Entropy, Secret};

use crate::integers::random_limbs;
use crate::{KeySize, PaillierError, Plaintext, PublicKey};

/// k: shares of coordinates, and scores, are residues modulo 2^k.
pub const TORUS_BITS: u32 = 26;
/// Coordinates are multiplied with 2^SCALE_BITS; a cosine of 1 is 2^(2·SCALE_BITS), a quarter of the torus.
pub const SCALE_BITS: u32 = 12;
/// Masks are this many bits longer than what they hide.
pub const STATISTICAL_BITS: u32 = 40;
/// Masks in a slot: one per holder.
const MASKS: u32 = 3;
/// The largest magnitude of a representative.
const HALF: i64 = 1 << (TORUS_BITS - 1);

impl KeySize {
    /// The name of the parameter set: key size, and the scales and widths above.
    #[must_use]
    pub const fn parameters(self) -> &'static str {
        match self {
            Self::Bits2048 => "paillier-2048-v1",
            Self::Bits3072 => "paillier-3072-v1",
        }
    }
}

/// How templates of a dimension lie in a plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    size: KeySize,
    /// O = 2^offset.
    offset: u32,
}

/// Standard deviation of the error of the cosine that is compared with the threshold, with shares rounded to `decision_bits`. A
/// coordinate is the sum of three rounded parts on either side: variance 3/12 of a unit squared each, and both vectors
/// have length 1; the three shares of a score are rounded once more.
#[must_use]
pub fn decision_noise(decision_bits: u32) -> f64 {
    let unit = f64::from(1u32 << SCALE_BITS);
    let decided = f64::from(1u32 << (decision_bits - 2));
    (2.0 * 0.25 / (unit * unit) + 0.25 / (decided * decided)).sqrt()
}

/// The representative of a residue modulo 2^k between −2^(k−1) and 2^(k−1).
#[must_use]
pub const fn centred(residue: u32) -> i32 {
    (residue << (32 - TORUS_BITS)) as i32 >> (32 - TORUS_BITS)
}

/// Whether a number is between −2^(k−1) and 2^(k−1). Constant time.
pub(crate) const fn is_representative(number: i32) -> bool {
    number.unsigned_abs() <= HALF as u32
}

impl Slots {
    /// For keys of a size and vectors of a dimension.
    #[must_use]
    pub const fn new(size: KeySize, dimension: Dimension) -> Self {
        // 3d·2^(2k−1) ≤ 2^offset.
        let products = (MASKS as usize * dimension.get()).next_power_of_two().trailing_zeros();
        Self { size, offset: products + 2 * TORUS_BITS - 1 }
    }

    /// m: bits of one mask.
    #[must_use]
    pub const fn mask_bits(self) -> u32 {
        self.offset + 1 + STATISTICAL_BITS
    }

    /// w: bits of a slot.
    #[must_use]
    pub const fn width(self) -> usize {
        self.mask_bits() as usize + 2
    }

    /// Templates per ciphertext: ⌊(|N|−1)/w⌋.
    #[must_use]
    pub const fn count(self) -> usize {
        (self.size.bits() - 1) / self.width()
    }

    /// One dimension of the templates in the slots: representatives of residues, empty slots zero, missing ones too. Constant time.
    ///
    /// # Errors
    /// [`PaillierError`] on more values than slots, a value beyond ±2^25, or a key of another size.
    pub fn pack(self, key: &PublicKey, values: &[i32]) -> Result<Plaintext, PaillierError> {
        self.check(key, values.len())?;
        let in_range = values.iter().fold(true, |all, &v| all & is_representative(v));
        if !in_range {
            return Err(PaillierError::OutOfRange { what: "value of a slot" });
        }
        // Shifted to be positive; the shift is taken away again, modulo N.
        let mut sum = self.gather(values.iter().map(|&v| (i64::from(v) + HALF) as u128));
        let shift = self.gather(values.iter().map(|_| HALF as u128));
        let borrow = limbs::subtract_assign(sum.expose_mut(), shift.expose());
        let mut wrapped = sum.duplicate();
        limbs::add_assign(wrapped.expose_mut(), key.modulus_limbs());
        limbs::assign_if(borrow, sum.expose_mut(), wrapped.expose());
        Plaintext::from_limbs(key, sum)
    }

    /// O in every slot: what makes all of them positive before they are opened.
    ///
    /// # Errors
    /// [`PaillierError::OtherKey`] on a key of another size.
    pub fn offset(self, key: &PublicKey) -> Result<Plaintext, PaillierError> {
        self.check(key, 0)?;
        Plaintext::from_limbs(key, self.gather((0..self.count()).map(|_| 1 << self.offset)))
    }

    /// One holder's fresh masks, one for every slot. For one opening.
    #[must_use]
    pub fn draw_masks(self, entropy: &mut dyn Entropy) -> Secret<Vec<u128>> {
        let random = random_limbs(128 * self.count(), entropy);
        let mut masks = Secret::new(Vec::with_capacity(self.count()));
        let wide =
            random.expose().chunks_exact(2).map(|limbs| limbs.iter().fold(0, |all, &l| all << 64 | u128::from(l)));
        masks.expose_mut().extend(wide.map(|wide: u128| wide >> (128 - self.mask_bits())));
        masks
    }

    /// A holder's masks as a plaintext.
    ///
    /// # Errors
    /// [`PaillierError`] if there are not as many as slots, one is 2^m or more, or on a key of another size.
    pub fn masks(self, key: &PublicKey, masks: &Secret<Vec<u128>>) -> Result<Plaintext, PaillierError> {
        let masks = masks.expose();
        self.check(key, masks.len())?;
        if masks.len() != self.count() {
            return Err(PaillierError::Count { what: "masks", found: masks.len(), expected: self.count() });
        }
        if !masks.iter().fold(true, |all, mask| all & (mask >> self.mask_bits() == 0)) {
            return Err(PaillierError::OutOfRange { what: "mask" });
        }
        Plaintext::from_limbs(key, self.gather(masks.iter().copied()))
    }

    /// The slots of an opened plaintext modulo 2^k: the offset is a multiple of it, so these are the scores and the masks.
    ///
    /// # Errors
    /// [`PaillierError::OutOfRange`] if the plaintext has more digits than slots, or a slot is larger than its content and three masks can
    /// be: an evaluator did not compute what it should. That is noticed, not prevented: what was opened was not hidden as
    /// it should have been.
    pub fn open(self, opened: &Plaintext) -> Result<Secret<Vec<u32>>, PaillierError> {
        let digits = opened.expose();
        let end = self.count() * self.width();
        let rest = digits
            .iter()
            .enumerate()
            .skip(end / 64)
            .fold(0, |all, (i, &limb)| all | if i == end / 64 { limb >> (end % 64) } else { limb });
        if digits.len() != self.size.limbs() || rest != 0 {
            return Err(PaillierError::OutOfRange { what: "opened plaintext" });
        }
        let limb = |i: usize| u128::from(digits.get(i).copied().unwrap_or(0));
        let largest = (2u128 << self.offset) + u128::from(MASKS) * ((1 << self.mask_bits()) - 1);
        let mut slots = Secret::new(Vec::with_capacity(self.count()));
        let mut fits = true;
        for t in 0..self.count() {
            let (at, shift) = (t * self.width() / 64, t * self.width() % 64);
            let high = if shift == 0 { 0 } else { limb(at + 2) << (128 - shift) };
            let slot = ((limb(at) | limb(at + 1) << 64) >> shift | high) & ((1 << self.width()) - 1);
            fits &= slot <= largest;
            slots.expose_mut().push(slot as u32 & ((1 << TORUS_BITS) - 1));
        }
        if fits { Ok(slots) } else { Err(PaillierError::OutOfRange { what: "slot of an opened plaintext" }) }
    }

    /// Σ_t value_t·2^{w·t} for values below 2^w: limbs of N.
    fn gather(self, values: impl Iterator<Item = u128>) -> Secret<Vec<u64>> {
        let mut sum = Secret::new(vec![0u64; self.size.limbs()]);
        for (slot, value) in values.enumerate() {
            let (at, shift) = (slot * self.width() / 64, slot * self.width() % 64);
            let (low, high) = (value << shift, value.checked_shr(128 - shift as u32).unwrap_or(0));
            if let Some(rest) = sum.expose_mut().get_mut(at..) {
                limbs::add_assign(rest, &[low as u64, (low >> 64) as u64, high as u64]);
            }
        }
        sum
    }

    fn check(self, key: &PublicKey, values: usize) -> Result<(), PaillierError> {
        if key.size() != self.size {
            return Err(PaillierError::OtherKey);
        }
        let expected = self.count();
        if values <= expected { Ok(()) } else { Err(PaillierError::Count { what: "slots", found: values, expected }) }
    }
}

#[cfg(test)]
mod tests {
    use num_bigint::BigInt;
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::{entropy, fixture, large_fixture};

    fn slots(key: &PublicKey, dimension: usize) -> Slots {
        Slots::new(key.size(), Dimension::new(dimension).unwrap())
    }

    #[test]
    fn the_width_is_the_least_that_the_proof_asks_for() {
        for (size, dimension, width, count) in [
            (KeySize::Bits2048, 16, 100, 20),
            (KeySize::Bits2048, 128, 103, 19),
            (KeySize::Bits2048, 512, 105, 19),
            (KeySize::Bits2048, 1024, 106, 19),
            (KeySize::Bits3072, 512, 105, 29),
        ] {
            let slots = Slots::new(size, Dimension::new(dimension).unwrap());
            assert_eq!((slots.width(), slots.count()), (width, count), "{size:?} {dimension}");
            let most = 3 * dimension as u128 * (1 << (2 * TORUS_BITS - 1));
            let offset = 1u128 << slots.offset;
            assert!(most <= offset && 2 * most > offset && offset.is_multiple_of(1 << TORUS_BITS));
            let sum = 2 * offset + 3 * ((1 << slots.mask_bits()) - 1);
            assert!(sum < 1 << width && sum >= 1 << (width - 1));
            assert_eq!((1u128 << slots.mask_bits()) / (2 * offset), 1 << STATISTICAL_BITS);
            assert!(count * width < size.bits() && (count + 1) * width >= size.bits());
        }
    }

    /// d·(a+b)·(x⁰+x¹+x²) in every slot with all of them at one end, alternately at the other, under extreme masks.
    #[test]
    fn no_slot_overflows_at_the_extremes() {
        for (key, dimension) in [(&fixture().key, 512), (&fixture().key, 1024), (&large_fixture().key, 16)] {
            let slots = slots(key, dimension);
            let top = (1u128 << slots.mask_bits()) - 1;
            let most = dimension as i128 * i128::from(2 * HALF) * i128::from(3 * HALF);
            for masks in [0, 1, top] {
                let masks = Secret::new(vec![masks; slots.count()]);
                for signs in [[1, 1], [-1, -1], [1, -1], [0, -1]] {
                    let sign = |t: usize| signs[t % 2];
                    let column: Vec<i32> = (0..slots.count()).map(|t| sign(t) * HALF as i32).collect();
                    let column = slots.pack(key, &column).unwrap().expose_signed_vartime(key);
                    let mut sum = column * BigInt::from(3 * dimension as u64) * BigInt::from(2 * HALF);
                    sum += slots.offset(key).unwrap().expose_signed_vartime(key);
                    for _ in 0..MASKS {
                        sum += BigInt::from(slots.masks(key, &masks).unwrap().expose_vartime());
                    }
                    assert!(sum >= BigInt::ZERO && sum < BigInt::from(key.modulus().clone()));
                    let opened = slots.open(&Plaintext::from_public_vartime(key, &sum)).unwrap();
                    let expected = |t: usize| {
                        let value = i128::from(sign(t)) * most + 3 * masks.expose()[0] as i128;
                        value.rem_euclid(1 << TORUS_BITS) as u32
                    };
                    assert_eq!(*opened.expose(), (0..slots.count()).map(expected).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let key = &fixture().key;
        let slots = slots(key, 512);
        for bad in [HALF as i32 + 1, -(HALF as i32) - 1, i32::MAX, i32::MIN] {
            assert!(matches!(slots.pack(key, &[0, bad]), Err(PaillierError::OutOfRange { .. })));
        }
        assert!(matches!(slots.pack(key, &[0; 20]), Err(PaillierError::Count { found: 20, expected: 19, .. })));
        assert!(slots.masks(key, &Secret::new(vec![0; 18])).is_err());
        assert!(slots.masks(key, &Secret::new(vec![1 << slots.mask_bits(); 19])).is_err());
        let larger = Slots::new(KeySize::Bits3072, Dimension::new(512).unwrap());
        assert_eq!(larger.pack(key, &[0]).unwrap_err(), PaillierError::OtherKey);
        assert_eq!(larger.offset(key).unwrap_err(), PaillierError::OtherKey);
        // One more than content and masks can be, in the first or the last slot.
        let largest = (2u128 << slots.offset) + 3 * ((1 << slots.mask_bits()) - 1);
        for slot in [0, slots.count() - 1] {
            let opened = |value: u128| {
                let shifted = BigInt::from(value) << (slot * slots.width());
                slots.open(&Plaintext::from_public_vartime(key, &shifted)).map(|opened| opened.expose()[slot])
            };
            assert_eq!(opened(largest), Ok(largest as u32 & ((1 << TORUS_BITS) - 1)));
            assert!(matches!(opened(largest + 1), Err(PaillierError::OutOfRange { .. })));
        }
        let too_large = Plaintext::from_public_vartime(key, &-BigInt::from(1));
        assert!(matches!(slots.open(&too_large), Err(PaillierError::OutOfRange { .. })));
    }

    #[test]
    fn masks_are_fresh_and_fill_their_range() {
        let slots = slots(&fixture().key, 512);
        let drawn: Vec<_> = (0..200).map(|_| slots.draw_masks(&mut *entropy())).collect();
        let mut all: Vec<u128> = drawn.iter().flat_map(|masks| masks.expose().iter().copied()).collect();
        let ones = |bit: u32| all.iter().filter(|mask| *mask >> bit & 1 == 1).count() as f64;
        let (count, deviation) = (all.len() as f64, (all.len() as f64).sqrt() / 2.0);
        for bit in 0..slots.mask_bits() {
            assert!((ones(bit) - count / 2.0).abs() < 6.0 * deviation, "bit {bit}");
        }
        assert!(all.iter().all(|mask| mask >> slots.mask_bits() == 0));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len() as f64, count, "no mask comes twice");
    }

    /// Pitfall: a multiplicative blind shows how far a score is from the threshold. What a holder sees of a slot, its own mask
    /// taken away, is distributed alike for the scores of the same person, of a stranger and of the opposite vector, and for the largest
    /// and the smallest sum of shares that there can be.
    #[test]
    fn what_is_opened_looks_the_same_for_near_and_far() {
        let key = &fixture().key;
        let slots = slots(key, 512);
        let offset = BigInt::from(1u128 << slots.offset);
        let most = 3 * 512 * (1i128 << (2 * TORUS_BITS - 1));
        let scores = [1 << (2 * SCALE_BITS), 0, -(1 << (2 * SCALE_BITS)), most, -most];
        let opened = scores.map(|score| {
            let mut seen: Vec<u128> = Vec::new();
            while seen.len() < 2000 {
                // Two masks that the reader does not have.
                let [a, b] = [0, 1].map(|_| slots.draw_masks(&mut *entropy()));
                let hidden = a.expose().iter().zip(b.expose());
                seen.extend(hidden.map(|(a, b)| u128::try_from(&offset + score).unwrap() + a + b));
            }
            seen.sort_unstable();
            seen
        });
        // Kolmogorov and Smirnov: a distance of 2·√(2/n) comes by chance once in 1,500.
        let distance = |a: &[u128], b: &[u128]| {
            let below = |of: &[u128], at: u128| of.partition_point(|v| *v <= at) as f64 / of.len() as f64;
            a.iter().chain(b).map(|&at| (below(a, at) - below(b, at)).abs()).fold(0.0, f64::max)
        };
        let bound = 2.5 * (2.0f64 / 2000.0).sqrt();
        for far in &opened[1..] {
            assert!(distance(&opened[0], far) < bound, "{}", distance(&opened[0], far));
            // Low bits, of which shares are made.
            let low = |of: &[u128]| {
                let mut low: Vec<u128> = of.iter().map(|v| v & ((1 << TORUS_BITS) - 1)).collect();
                low.sort_unstable();
                low
            };
            assert!(distance(&low(&opened[0]), &low(far)) < bound);
        }
        // The test sees what it looks for: masks no longer than what they hide.
        let short = [most, -most].map(|score| {
            let mut seen: Vec<u128> = opened[0].iter().map(|v| v % (1 << slots.offset)).collect();
            seen.iter_mut().for_each(|v| *v += u128::try_from(&offset + score).unwrap());
            seen.sort_unstable();
            seen
        });
        assert!(distance(&short[0], &short[1]) > bound);
    }

    proptest! {
        #[test]
        fn sums_of_products_come_back_modulo_two_to_the_k(
            columns in proptest::collection::vec((any::<[u32; 6]>(), any::<[u32; 2]>()), 16..40),
        ) {
            let key = &fixture().key;
            let slots = slots(key, 64);
            let residue = |v: u32| v & ((1 << TORUS_BITS) - 1);
            let (mut sum, mut expected) = (BigInt::ZERO, [0u32; 2]);
            for (parts, shares) in &columns {
                let exponent: i64 = shares.iter().map(|&s| i64::from(centred(residue(s)))).sum();
                for party in 0..3 {
                    let column = [parts[2 * party], parts[2 * party + 1]].map(|v| centred(residue(v)));
                    let packed = slots.pack(key, &column).unwrap();
                    sum += packed.expose_signed_vartime(key) * exponent;
                    for (slot, expected) in expected.iter_mut().enumerate() {
                        let score = (shares[0].wrapping_add(shares[1])).wrapping_mul(parts[2 * party + slot]);
                        *expected = residue(expected.wrapping_add(score));
                    }
                }
            }
            sum += slots.offset(key).unwrap().expose_signed_vartime(key);
            let opened = slots.open(&Plaintext::from_public_vartime(key, &sum)).unwrap();
            prop_assert_eq!(&opened.expose()[..2], &expected);
            prop_assert!(opened.expose()[2..].iter().all(|&empty| empty == 0));
        }
    }
}
