//! Arithmetic modulo large odd numbers, for threshold Paillier (DESIGN section 4): Montgomery multiplication and squaring,
//! exponentiation in constant time and with fixed-base tables.
//!
//! **Numbers** are little-endian lists of 64-bit limbs, as many as the modulus has, a multiple of [`BLOCK`]: 32 and 48 for N of
//! 2,048 and 3,072 bits, 64 and 96 for N². Residues are canonical (`0 ≤ x < n`). [`Modular`] is what can be done with them: on the
//! *inner form*, which is another one for every implementation. [`Montgomery`] is for any odd modulus and has x·R mod n with
//! R = 2^(64·limbs); [`SquaredModulus`] is for n² and two fifths faster. Lists have no wrapper here: `veilmatch-paillier` gives them
//! types.
//!
//! **Constant time.** No branch and no address depends on the value of a residue or of the exponent given to
//! [`Modular::power`] and [`FixedBase::power`]: their lengths alone show. Table look-ups read the whole table under masks.
//! What takes variable time says so in its name. The modulus is public. (Memcheck
//! with undefined exponents and residues finds no branch and no address that depends on them, with both instruction sets.)
//!
//! **Shape.** Eight limbs of one factor are a block; a block times the whole other factor is added up in eight registers that
//! move along the result (`rows`), so that memory sees one load and one store per eight products. A reduction cancels eight
//! limbs at a time likewise. Squares compute what lies off the diagonal once.
//!
//! **Instruction sets.** The two inner functions exist in plain Rust and for x86-64 with BMI2 and ADX; an [`Arithmetic`] is the proof
//! that the machine has what it names. One suite compares both with a plain reference and with another library.

#[cfg(target_arch = "x86_64")]
mod adx;
pub mod limbs;
mod power;
mod rows;
mod squared;
#[cfg(test)]
mod tests;

use zeroize::Zeroize;

pub use power::{FixedBase, Modular};
pub use rows::Arithmetic;
pub use squared::SquaredModulus;

/// Limbs that are worked on together; lengths are multiples of it.
pub const BLOCK: usize = 8;

/// Why a number cannot be a modulus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModulusError {
    /// The number of limbs is zero or no multiple of [`BLOCK`].
    Length,
    /// It is even, or one.
    NotOdd,
    /// Its highest bit is not set: [`SquaredModulus`] wants n of full length.
    NotFull,
}

impl std::fmt::Display for ModulusError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Length => "the number of limbs is not a multiple of eight",
            Self::NotOdd => "the modulus is not odd and greater than one",
            Self::NotFull => "the highest bit of the modulus is not set",
        })
    }
}

impl std::error::Error for ModulusError {}

/// An odd modulus, ready for multiplication.
#[derive(Clone, Debug)]
pub struct Montgomery {
    arithmetic: Arithmetic,
    modulus: Vec<u64>,
    /// −n^−1 mod 2^64.
    negative_inverse: u64,
    /// R mod n.
    one: Vec<u64>,
    /// R² mod n.
    square: Vec<u64>,
}

/// Room for intermediate values; wiped on drop. One per thread and modulus.
pub struct Workspace {
    /// A product, twice the limbs of its factors.
    product: Vec<u64>,
    /// Likewise: squares of the blocks on the diagonal.
    diagonal: Vec<u64>,
    /// Likewise, for what a modulus n² needs: a second product.
    second: Vec<u64>,
    /// Likewise: a residue modulo n.
    low: Vec<u64>,
}

impl Workspace {
    fn new(factor: usize, residue: usize) -> Self {
        let room = |limbs| vec![0; limbs];
        Self { product: room(2 * factor), diagonal: room(2 * factor), second: room(2 * residue), low: room(residue) }
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        for room in [&mut self.product, &mut self.diagonal, &mut self.second, &mut self.low] {
            room.zeroize();
        }
    }
}

impl std::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Workspace(redacted)")
    }
}

impl Montgomery {
    /// A modulus, with the fastest instructions of this machine.
    ///
    /// # Errors
    /// [`ModulusError`] if it is even, one, or of another length than a multiple of eight limbs.
    pub fn new(modulus: &[u64]) -> Result<Self, ModulusError> {
        Self::with(Arithmetic::detect(), modulus)
    }

    /// [`Montgomery::new`] with the instructions of choice.
    ///
    /// # Errors
    /// As [`Montgomery::new`].
    pub fn with(arithmetic: Arithmetic, modulus: &[u64]) -> Result<Self, ModulusError> {
        if modulus.is_empty() || !modulus.len().is_multiple_of(BLOCK) {
            return Err(ModulusError::Length);
        }
        if modulus[0] & 1 == 0 || modulus[0] == 1 && modulus[1..].iter().all(|&limb| limb == 0) {
            return Err(ModulusError::NotOdd);
        }
        // Newton: each step doubles the number of right bits, from three.
        let mut inverse = modulus[0];
        for _ in 0..5 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(modulus[0].wrapping_mul(inverse)));
        }
        let limbs = modulus.len();
        let mut this = Self {
            arithmetic,
            modulus: modulus.to_vec(),
            negative_inverse: inverse.wrapping_neg(),
            one: vec![0; limbs],
            square: Vec::new(),
        };
        let mut one = vec![0; limbs];
        let mut room = one.clone();
        one[0] = 1;
        for _ in 0..64 * limbs {
            this.double(&mut room, &mut one);
        }
        this.one.clone_from(&one);
        // 2^64 in Montgomery form, then its power of `limbs`: R in Montgomery form is R².
        let mut word = one;
        for _ in 0..64 {
            this.double(&mut room, &mut word);
        }
        this.square = this.power_vartime(&word, &[limbs as u64]);
        Ok(this)
    }

    /// Which instructions are used.
    #[must_use]
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// The product of the workspace times R^−1 mod n; the product is below n·R.
    fn reduce(&self, work: &mut Workspace, out: &mut [u64]) {
        let carry = rows::reduce(self.arithmetic, &mut work.product, &self.modulus, self.negative_inverse);
        self.subtract_once(carry, &work.product[self.modulus.len()..], out);
    }

    /// carry·R + a, which is below 2n, modulo n: one subtraction under a mask.
    /// Gives 1 if it was done.
    fn subtract_once(&self, carry: u64, a: &[u64], out: &mut [u64]) -> u64 {
        assert_eq!(out.len(), self.modulus.len(), "a residue has as many limbs as its modulus");
        let borrow = rows::subtract(out, a, &self.modulus);
        // Keep the difference if it did not run below zero, or if there was a carry to take from.
        let done = carry | (borrow ^ 1);
        let keep = std::hint::black_box(done.wrapping_neg());
        for (out, &a) in out.iter_mut().zip(a) {
            *out = (*out & keep) | (a & !keep);
        }
        done
    }

    /// a := 2a mod n with room for as many limbs; 1 if n was taken away.
    fn double(&self, room: &mut [u64], a: &mut [u64]) -> u64 {
        let carry = rows::double(room, a);
        self.subtract_once(carry, room, a)
    }
}

impl Modular for Montgomery {
    fn limbs(&self) -> usize {
        self.modulus.len()
    }

    fn modulus(&self) -> &[u64] {
        &self.modulus
    }

    fn one(&self) -> &[u64] {
        &self.one
    }

    fn workspace(&self) -> Workspace {
        Workspace::new(self.limbs(), 0)
    }

    fn multiply(&self, work: &mut Workspace, out: &mut [u64], a: &[u64], b: &[u64]) {
        rows::product(self.arithmetic, &mut work.product, a, b);
        self.reduce(work, out);
    }

    fn multiply_assign(&self, work: &mut Workspace, a: &mut [u64], b: &[u64]) {
        rows::product(self.arithmetic, &mut work.product, a, b);
        self.reduce(work, a);
    }

    fn square_assign(&self, work: &mut Workspace, a: &mut [u64]) {
        rows::square(self.arithmetic, &mut work.product, &mut work.diagonal, a);
        self.reduce(work, a);
    }

    fn enter(&self, work: &mut Workspace, a: &mut [u64]) {
        self.multiply_assign(work, a, &self.square);
    }

    fn leave(&self, work: &mut Workspace, a: &mut [u64]) {
        let (low, high) = work.product.split_at_mut(self.limbs());
        low.copy_from_slice(a);
        high.fill(0);
        self.reduce(work, a);
    }
}
