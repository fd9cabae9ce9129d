//! Packing: the scores of many templates in one plaintext.
//!
//! A packed plaintext is X = Σ_t x_t·2^{w·t} modulo N, with signed x_t in slots of w bits. For every dimension j a ciphertext X_j
//! holds coordinate j of ⌊(|N|−1)/w⌋ templates; Σ_j p_j·X_j then holds the scores s_t = Σ_j p_j·x_{t,j} in the same
//! slots, because p_j multiplies all slots alike. What is opened is Y = Σ_t (s_t + 2^(b−1) + M_t)·2^{w·t}, where b is
//! [`SCORE_BITS`] and M_t the sum of [`MASKS`] masks of [`MASK_BITS`] bits, one per holder.
//!
//! **No slot can overflow.** *Admissible* are integer vectors p, x at scale S = [`SCALE`] = 2^11 that passed the norm check:
//! Σ p_j² ≤ (1+δ)·S² and Σ x_j² ≤ (1+δ)·S² with δ < 1 (the check allows some 2 %, and quantisation adds √d/S at most; DESIGN 3.3). Then
//!
//! 1. by Cauchy-Schwarz |s_t| ≤ (1+δ)·S² < 2·2^22 = 2^23 = 2^(b−1), for any d;
//! 2. so 0 < s_t + 2^(b−1) < 2^b;
//! 3. so 0 ≤ s_t + 2^(b−1) + M_t ≤ (2^b − 1) + 3·(2^64 − 1) < 2^w, where w = 66 is the least width for which this holds
//!    ([`Packing::width`] derives it): no slot of Y is negative or reaches into its neighbour;
//! 4. so 0 ≤ Y < 2^{w·slots} ≤ 2^(|N|−1) ≤ N: Y is not reduced modulo N, and its digits to the base 2^w are the slots.
//!
//! Intermediate values may be negative or larger than N as integers: an evaluator works with ∏ X_j^{share_j}, whose slots overflow
//! everywhere. That is no loss, because sums of exponents are exact: the two evaluators' products encrypt
//! Σ_j (share0_j + share1_j)·X_j ≡ Σ_j p_j·X_j modulo N, of which alone steps 1 to 4 speak.
//!
//! **What an opened slot hides.** M_t has at least one mask of 64 bits that the reader does not know; the slot's distribution for
//! two scores differs by at most 2^24/2^64 = 2^−40 (DESIGN section 4 chooses the width).

use rayon::prelude::*;
use veilmatch_kernels::montgomery::{Modular, limbs};
use veilmatch_secret::Secret;

use crate::ciphertext::check_all;
use crate::{Ciphertext, KeySize, PaillierError, Plaintext, PublicKey};

/// S: the scale of quantised coordinates.
pub const SCALE: i32 = 1 << 11;
/// b: bits of a score with its sign.
pub const SCORE_BITS: usize = 24;
/// Bits of one mask.
pub const MASK_BITS: usize = 64;
/// Masks that are added to a slot: one per holder.
pub const MASKS: usize = 3;

/// How templates lie in a plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    size: KeySize,
}

/// The least w with (2^b − 1) + masks·(2^64 − 1) < 2^w.
const fn slot_width() -> usize {
    let most = ((1u128 << SCORE_BITS) - 1) + MASKS as u128 * ((1u128 << MASK_BITS) - 1);
    128 - most.leading_zeros() as usize
}

impl Packing {
    /// The packing for keys of a size.
    #[must_use]
    pub const fn new(size: KeySize) -> Self {
        Self { size }
    }

    /// w: bits of a slot (66).
    #[must_use]
    pub const fn width(self) -> usize {
        slot_width()
    }

    /// Templates per ciphertext: ⌊(|N|−1)/w⌋, 31 at 2,048 bits, 46 at 3,072.
    #[must_use]
    pub const fn slots(self) -> usize {
        (self.size.bits() - 1) / slot_width()
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

    fn of_key(self, key: &PublicKey) -> Result<(), PaillierError> {
        if key.size() == self.size { Ok(()) } else { Err(PaillierError::OtherKey) }
    }

    fn fits(self, count: usize) -> Result<(), PaillierError> {
        let expected = self.slots();
        if count <= expected { Ok(()) } else { Err(PaillierError::Count { what: "slots", found: count, expected }) }
    }

    /// Signed values of less than 2^(b−1) in magnitude, one per slot, the rest zero. Constant time.
    ///
    /// # Errors
    /// [`PaillierError`] on more values than slots, a value out of range, or a key of another size.
    pub fn pack(self, key: &PublicKey, values: &[i64]) -> Result<Plaintext, PaillierError> {
        self.of_key(key)?;
        self.fits(values.len())?;
        let half = 1i64 << (SCORE_BITS - 1);
        let in_range = values.iter().fold(true, |all, v| all & (v.unsigned_abs() < half as u64));
        if !in_range {
            return Err(PaillierError::OutOfRange { what: "value of a slot" });
        }
        // Shifted to be positive; the shift is taken away again, modulo N.
        let mut sum = self.gather(values.iter().map(|v| (v + half) as u128));
        let shift = self.gather(values.iter().map(|_| half as u128));
        let borrow = limbs::subtract_assign(sum.expose_mut(), shift.expose());
        let mut wrapped = sum.duplicate();
        limbs::add_assign(wrapped.expose_mut(), key.modulus_limbs());
        limbs::assign_if(borrow, sum.expose_mut(), wrapped.expose());
        Plaintext::from_limbs(key, sum)
    }

    /// 2^(b−1) in every slot: what makes all scores positive before they are opened.
    ///
    /// # Errors
    /// [`PaillierError::OtherKey`] on a key of another size.
    pub fn offset(self, key: &PublicKey) -> Result<Plaintext, PaillierError> {
        self.of_key(key)?;
        Plaintext::from_limbs(key, self.gather((0..self.slots()).map(|_| 1 << (SCORE_BITS - 1))))
    }

    /// One holder's masks, one for every slot. Draw them afresh for every opening.
    ///
    /// # Errors
    /// [`PaillierError`] if there are not as many as slots, or on a key of another size.
    pub fn masks(self, key: &PublicKey, masks: &[u64]) -> Result<Plaintext, PaillierError> {
        self.of_key(key)?;
        if masks.len() != self.slots() {
            return Err(PaillierError::Count { what: "masks", found: masks.len(), expected: self.slots() });
        }
        Plaintext::from_limbs(key, self.gather(masks.iter().map(|&mask| mask.into())))
    }

    /// The slots of an opened plaintext, each 0 ≤ y < 2^w.
    ///
    /// # Errors
    /// [`PaillierError::OutOfRange`] if it has more digits than slots: then something in it was not admissible.
    pub fn unpack(self, opened: &Plaintext) -> Result<Secret<Vec<u128>>, PaillierError> {
        let digits = opened.expose();
        let limb = |i: usize| u128::from(digits.get(i).copied().unwrap_or(0));
        let mask = (1u128 << self.width()) - 1;
        let slot = |t: usize| {
            let (at, shift) = (t * self.width() / 64, t * self.width() % 64);
            let low = limb(at) | limb(at + 1) << 64;
            let high = if shift == 0 { 0 } else { limb(at + 2) << (128 - shift) };
            (low >> shift | high) & mask
        };
        let end = self.slots() * self.width();
        let rest = (end / 64..digits.len()).fold(0, |all, i| {
            let keep = if i == end / 64 { limb(i) >> (end % 64) } else { limb(i) };
            all | keep
        });
        if digits.len() != self.size.limbs() || rest != 0 {
            return Err(PaillierError::OutOfRange { what: "opened plaintext" });
        }
        Ok(Secret::new((0..self.slots()).map(slot).collect()))
    }

    /// Adds an encrypted coordinate into a slot of a packed ciphertext: packed·c^(2^{w·slot}). With the negated coordinate
    /// ([`PublicKey::negate_all`]) it takes it out again. w·slot squarings.
    ///
    /// # Errors
    /// [`PaillierError`] if there is no such slot, or for another key.
    pub fn place(
        self,
        key: &PublicKey,
        packed: &Ciphertext,
        coordinate: &Ciphertext,
        slot: usize,
    ) -> Result<Ciphertext, PaillierError> {
        self.of_key(key)?;
        if slot >= self.slots() {
            return Err(PaillierError::Slot { slot, slots: self.slots() });
        }
        key.add(packed, &key.shift(coordinate, self.width() * slot)?)
    }

    /// [`Packing::place`] for all dimensions of a template, on the current rayon pool: `packed` and `template` have a ciphertext for
    /// each.
    ///
    /// # Errors
    /// As [`Packing::place`], or if the lists differ in length.
    pub fn place_template(
        self,
        key: &PublicKey,
        packed: &[Ciphertext],
        template: &[Ciphertext],
        slot: usize,
    ) -> Result<Vec<Ciphertext>, PaillierError> {
        if packed.len() != template.len() {
            let (found, expected) = (template.len(), packed.len());
            return Err(PaillierError::Count { what: "coordinates", found, expected });
        }
        packed.par_iter().zip(template).map(|(packed, c)| self.place(key, packed, c, slot)).collect()
    }

    /// Packs whole templates, one per slot from the first, with [`Packing::place_all`] for every dimension, on the current rayon pool: the
    /// packed ciphertexts by dimension.
    ///
    /// # Errors
    /// As [`Packing::place_all`], or if templates differ in length.
    pub fn pack_templates(
        self,
        key: &PublicKey,
        templates: &[&[Ciphertext]],
    ) -> Result<Vec<Ciphertext>, PaillierError> {
        self.fits(templates.len())?;
        let dimension = templates.first().map_or(0, |template| template.len());
        if let Some(other) = templates.iter().find(|template| template.len() != dimension) {
            return Err(PaillierError::Count { what: "coordinates", found: other.len(), expected: dimension });
        }
        (0..dimension)
            .into_par_iter()
            .map(|j| {
                let column: Vec<Ciphertext> =
                    templates.iter().filter_map(|template| template.get(j)).cloned().collect();
                self.place_all(key, &column)
            })
            .collect()
    }

    /// Packs encrypted coordinates, one per slot from the first: Horner's rule, w squarings and a multiplication each.
    ///
    /// Nothing here checks that a coordinate is admissible. Digits of an opened packed plaintext do not show it either: a coordinate of 2^w
    /// looks like a zero and a one in the next slot, and another packing would put that one elsewhere. Whoever admits a template must
    /// compare the ciphertexts themselves with the digits that were checked, for instance by opening Σ ρ_j·c_j under a mask, with
    /// random public ρ_j ([`crate::multi_exponentiation_vartime`]).
    ///
    /// # Errors
    /// [`PaillierError`] on none or more coordinates than slots, or for another key.
    pub fn place_all(self, key: &PublicKey, coordinates: &[Ciphertext]) -> Result<Ciphertext, PaillierError> {
        self.of_key(key)?;
        self.fits(coordinates.len())?;
        check_all(key, coordinates)?;
        let mut work = key.group().workspace();
        let mut all = coordinates.iter().rev().map(|c| c.to_inner(key, &mut key.group().workspace()));
        let mut sum =
            all.next().ok_or(PaillierError::Count { what: "coordinates", found: 0, expected: self.slots() })?;
        for coordinate in all {
            for _ in 0..self.width() {
                key.group().square_assign(&mut work, &mut sum);
            }
            key.group().multiply_assign(&mut work, &mut sum, &coordinate);
        }
        Ok(Ciphertext::from_inner(key, &mut work, sum))
    }
}

#[cfg(test)]
mod tests;
