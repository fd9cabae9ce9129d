//! Arithmetic modulo large odd numbers, for threshold Paillier (DESIGN section 4): Montgomery multiplication and squaring,
//! exponentiation in constant time and with fixed-base tables.
//!
//! **Numbers** are little-endian lists of 64-bit limbs, as many as the modulus has, a multiple of [`BLOCK`]: 32 and 48 for N of
//! 2,048 and 3,072 bits, 64 and 96 for N². Residues are canonical (`0 ≤ x < n`); "in Montgomery form" means x·R mod n with
//! R = 2^(64·limbs). Lists have no wrapper here: `veilmatch-paillier` gives them types.
//!
//! **Constant time.** No branch and no address depends on the value of a residue or of the exponent given to
//! [`Montgomery::power`] and [`FixedBase::power`]: their lengths alone show. Table look-ups read the whole table under masks.
//! What takes variable time says so in its name. The modulus is public.
//!
//! **Shape.** Eight limbs of one factor are a block; a block times the whole other factor is added up in eight registers that
//! move along the result ([`rows`]), so that memory sees one load and one store per eight products. A reduction cancels eight
//! limbs at a time likewise. Squares compute what lies off the diagonal once.
//!
//! **Instruction sets.** The two inner functions exist in plain Rust and for x86-64 with BMI2 and ADX; an [`Arithmetic`] is the proof
//! that the machine has what it names. One suite compares both with a plain reference and with another library.

#[cfg(target_arch = "x86_64")]
mod adx;
pub mod limbs;
mod power;
mod rows;
#[cfg(test)]
mod tests;

use zeroize::Zeroize;

pub use power::FixedBase;
pub use rows::Arithmetic;

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
}

impl std::fmt::Display for ModulusError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Length => "the number of limbs is not a multiple of eight",
            Self::NotOdd => "the modulus is not odd and greater than one",
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

/// Room for intermediate values; wiped on drop. One per thread and size.
pub struct Workspace {
    /// Twice the limbs: a product.
    product: Vec<u64>,
    /// Twice the limbs: squares of the blocks on the diagonal.
    diagonal: Vec<u64>,
}

impl Drop for Workspace {
    fn drop(&mut self) {
        self.product.zeroize();
        self.diagonal.zeroize();
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
        one[0] = 1;
        for _ in 0..64 * limbs {
            this.double(&mut one);
        }
        this.one.clone_from(&one);
        // 2^64 in Montgomery form, then its power of `limbs`: R in Montgomery form is R².
        let mut word = one;
        for _ in 0..64 {
            this.double(&mut word);
        }
        this.square = this.power_vartime(&word, &[limbs as u64]);
        Ok(this)
    }

    /// The number of limbs of a residue.
    #[must_use]
    pub fn limbs(&self) -> usize {
        self.modulus.len()
    }

    /// The modulus.
    #[must_use]
    pub fn modulus(&self) -> &[u64] {
        &self.modulus
    }

    /// One, in Montgomery form.
    #[must_use]
    pub fn one(&self) -> &[u64] {
        &self.one
    }

    /// Which instructions are used.
    #[must_use]
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// Room for the functions below.
    #[must_use]
    pub fn workspace(&self) -> Workspace {
        Workspace { product: vec![0; 2 * self.limbs()], diagonal: vec![0; 2 * self.limbs()] }
    }

    /// Whether this many limbs are a canonical residue (variable time).
    #[must_use]
    pub fn is_canonical_vartime(&self, a: &[u64]) -> bool {
        a.len() == self.limbs() && a.iter().rev().lt(self.modulus.iter().rev())
    }

    /// a·b/R mod n: the product in Montgomery form of two residues in Montgomery form.
    ///
    /// # Panics
    /// If a list has another length than the modulus, here and in all functions below.
    pub fn multiply(&self, work: &mut Workspace, out: &mut [u64], a: &[u64], b: &[u64]) {
        rows::product(self.arithmetic, &mut work.product, a, b);
        self.reduce(work, out);
    }

    /// a := a·b/R mod n.
    pub fn multiply_assign(&self, work: &mut Workspace, a: &mut [u64], b: &[u64]) {
        rows::product(self.arithmetic, &mut work.product, a, b);
        self.reduce(work, a);
    }

    /// a := a²/R mod n.
    pub fn square_assign(&self, work: &mut Workspace, a: &mut [u64]) {
        rows::square(self.arithmetic, &mut work.product, &mut work.diagonal, a);
        self.reduce(work, a);
    }

    /// Brings a residue into Montgomery form.
    pub fn enter(&self, work: &mut Workspace, a: &mut [u64]) {
        self.multiply_assign(work, a, &self.square);
    }

    /// Brings a residue out of Montgomery form.
    pub fn leave(&self, work: &mut Workspace, a: &mut [u64]) {
        let (low, high) = work.product.split_at_mut(self.limbs());
        low.copy_from_slice(a);
        high.fill(0);
        self.reduce(work, a);
    }

    /// The product of the workspace times R^−1 mod n; the product is below n·R.
    fn reduce(&self, work: &mut Workspace, out: &mut [u64]) {
        let carry = rows::reduce(self.arithmetic, &mut work.product, &self.modulus, self.negative_inverse);
        self.subtract_once(carry, &work.product[self.limbs()..], out);
    }

    /// carry·R + a, which is below 2n, modulo n: one subtraction under a mask.
    fn subtract_once(&self, carry: u64, a: &[u64], out: &mut [u64]) {
        assert_eq!(out.len(), self.limbs(), "a residue has as many limbs as its modulus");
        let borrow = rows::subtract(out, a, &self.modulus);
        // Keep the difference if it did not run below zero, or if there was a carry to take from.
        let keep = std::hint::black_box((carry | (borrow ^ 1)).wrapping_neg());
        for (out, &a) in out.iter_mut().zip(a) {
            *out = (*out & keep) | (a & !keep);
        }
    }

    /// a := 2a mod n.
    fn double(&self, a: &mut [u64]) {
        let mut carry = 0;
        let mut doubled = vec![0; a.len()];
        for (out, &limb) in doubled.iter_mut().zip(&*a) {
            *out = limb << 1 | carry;
            carry = limb >> 63;
        }
        self.subtract_once(carry, &doubled, a);
    }
}
