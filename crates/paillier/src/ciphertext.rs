//! Ciphertexts, and what can be computed on them without a key.

use std::fmt;

use num_bigint::{BigInt, BigUint, Sign};
use num_integer::Integer;
use veilmatch_kernels::montgomery::{Modular, Workspace, limbs};
use veilmatch_secret::{Digest, Secret};

use crate::integers::{to_big, to_limbs};
use crate::{PaillierError, Plaintext, PublicKey};

/// An invertible number modulo N². Bytes become one only through [`PublicKey::ciphertext`] and [`PublicKey::ciphertexts`], which check
/// range and invertibility. It remembers its key: operations refuse one of another.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Ciphertext {
    /// Canonical, twice the limbs of N.
    digits: Box<[u64]>,
    tag: Digest,
}

impl fmt::Debug for Ciphertext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ciphertext({:016x}…)", self.digits.first().copied().unwrap_or(0))
    }
}

impl Ciphertext {
    /// From limbs that are known to be canonical and invertible.
    pub(crate) fn from_residue(key: &PublicKey, digits: Vec<u64>) -> Self {
        Self { digits: digits.into_boxed_slice(), tag: key.tag() }
    }

    /// From a residue in inner form that is known to be invertible.
    #[must_use]
    pub(crate) fn from_inner(key: &PublicKey, work: &mut Workspace, mut digits: Vec<u64>) -> Self {
        key.group().leave(work, &mut digits);
        Self::from_residue(key, digits)
    }

    /// The residue's limbs.
    #[must_use]
    pub fn digits(&self) -> &[u64] {
        &self.digits
    }

    /// The residue in inner form.
    #[must_use]
    pub fn to_inner(&self, key: &PublicKey, work: &mut Workspace) -> Vec<u64> {
        let mut digits = self.digits.to_vec();
        key.group().enter(work, &mut digits);
        digits
    }

    /// The residue modulo N².
    #[must_use]
    pub fn to_biguint(&self) -> BigUint {
        to_big(&self.digits)
    }

    /// Little-endian bytes, 2·|N| bits.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        limbs::to_bytes(&self.digits)
    }

    pub(crate) fn check(&self, key: &PublicKey) -> Result<(), PaillierError> {
        if self.tag == key.tag() { Ok(()) } else { Err(PaillierError::OtherKey) }
    }
}

/// Checks that all are ciphertexts of the key.
pub(crate) fn check_all(key: &PublicKey, ciphertexts: &[Ciphertext]) -> Result<(), PaillierError> {
    ciphertexts.iter().try_for_each(|c| c.check(key))
}

impl PublicKey {
    /// Reads a ciphertext.
    ///
    /// # Errors
    /// [`PaillierError`] if the length is wrong, the number is not below N² or not invertible.
    pub fn ciphertext(&self, bytes: &[u8]) -> Result<Ciphertext, PaillierError> {
        let expected = self.size().ciphertext_bytes();
        if bytes.len() != expected {
            return Err(PaillierError::Length { what: "ciphertext", found: bytes.len(), expected });
        }
        let mut all = self.ciphertexts(bytes)?;
        all.pop().ok_or(PaillierError::Malformed { what: "ciphertext" })
    }

    /// Reads ciphertexts one behind the other; one greatest common divisor serves for all of them.
    ///
    /// # Errors
    /// As [`PublicKey::ciphertext`].
    pub fn ciphertexts(&self, bytes: &[u8]) -> Result<Vec<Ciphertext>, PaillierError> {
        let width = self.size().ciphertext_bytes();
        if !bytes.len().is_multiple_of(width) {
            let expected = bytes.len().next_multiple_of(width);
            return Err(PaillierError::Length { what: "list of ciphertexts", found: bytes.len(), expected });
        }
        let all: Vec<Vec<u64>> = bytes.chunks_exact(width).map(limbs::from_bytes).collect();
        let (group, mut work) = (self.group(), self.group().workspace());
        let mut product = to_limbs(&BigUint::from(1u8), self.size().limbs());
        for digits in &all {
            if !group.is_canonical_vartime(digits) {
                return Err(PaillierError::OutOfRange { what: "ciphertext" });
            }
            group.multiply_root(&mut work, &mut product, digits);
        }
        // Powers of R, which is invertible, do not matter.
        if to_big(&product).gcd(self.modulus()) != BigUint::from(1u8) {
            return Err(PaillierError::NotInvertible { what: "ciphertext" });
        }
        Ok(all.into_iter().map(|digits| Ciphertext::from_residue(self, digits)).collect())
    }

    /// A number as a ciphertext.
    ///
    /// # Errors
    /// [`PaillierError`] if it is not below N² or not invertible.
    pub fn ciphertext_from_biguint(&self, number: &BigUint) -> Result<Ciphertext, PaillierError> {
        if number.bits() > 2 * self.size().bits() as u64 {
            return Err(PaillierError::OutOfRange { what: "ciphertext" });
        }
        self.ciphertext(&limbs::to_bytes(&to_limbs(number, self.group().limbs())))
    }

    /// Encrypts the sum.
    ///
    /// # Errors
    /// [`PaillierError::OtherKey`], here and below.
    pub fn add(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext, PaillierError> {
        a.check(self)?;
        b.check(self)?;
        let mut work = self.group().workspace();
        let mut product = a.to_inner(self, &mut work);
        let b = b.to_inner(self, &mut work);
        self.group().multiply_assign(&mut work, &mut product, &b);
        Ok(Ciphertext::from_inner(self, &mut work, product))
    }

    /// Encrypts the negated number. For many at once use [`PublicKey::negate_all`].
    ///
    /// # Errors
    /// [`PaillierError::OtherKey`].
    pub fn negate(&self, a: &Ciphertext) -> Result<Ciphertext, PaillierError> {
        let mut all = self.negate_all(std::slice::from_ref(a))?;
        all.pop().ok_or(PaillierError::NotInvertible { what: "ciphertext" })
    }

    /// The inverses of all, with one inversion and three multiplications each (variable time: ciphertexts are public).
    ///
    /// # Errors
    /// [`PaillierError::OtherKey`].
    pub fn negate_all(&self, all: &[Ciphertext]) -> Result<Vec<Ciphertext>, PaillierError> {
        check_all(self, all)?;
        let mut work = self.group().workspace();
        let residues: Vec<Vec<u64>> = all.iter().map(|c| c.to_inner(self, &mut work)).collect();
        let inverses = self.inverses(&mut work, &residues)?;
        Ok(inverses.into_iter().map(|inverse| Ciphertext::from_inner(self, &mut work, inverse)).collect())
    }

    /// Inverses of residues in inner form.
    pub(crate) fn inverses(&self, work: &mut Workspace, residues: &[Vec<u64>]) -> Result<Vec<Vec<u64>>, PaillierError> {
        let group = self.group();
        // prefixes[i] is the product of those before i.
        let mut prefixes = Vec::with_capacity(residues.len());
        let mut product = group.one().to_vec();
        for residue in residues {
            prefixes.push(product.clone());
            group.multiply_assign(work, &mut product, residue);
        }
        group.leave(work, &mut product);
        let square = self.modulus() * self.modulus();
        let inverse = to_big(&product).modinv(&square).ok_or(PaillierError::NotInvertible { what: "ciphertext" })?;
        let mut rest = to_limbs(&inverse, group.limbs());
        group.enter(work, &mut rest);
        for (prefix, residue) in prefixes.iter_mut().zip(residues).rev() {
            group.multiply_assign(work, prefix, &rest);
            group.multiply_assign(work, &mut rest, residue);
        }
        Ok(prefixes)
    }

    /// Encrypts the product with a public number.
    ///
    /// # Errors
    /// [`PaillierError::OtherKey`].
    pub fn multiply_vartime(&self, a: &Ciphertext, factor: &BigInt) -> Result<Ciphertext, PaillierError> {
        let base = if factor.sign() == Sign::Minus { self.negate(a)? } else { a.clone() };
        base.check(self)?;
        let mut work = self.group().workspace();
        let base = base.to_inner(self, &mut work);
        let power = self.group().power_vartime(&base, &factor.magnitude().to_u64_digits());
        Ok(Ciphertext::from_inner(self, &mut work, power))
    }

    /// c^exponent for a secret exponent of at most `bits` bits, in constant time.
    ///
    /// # Errors
    /// [`PaillierError::OtherKey`].
    pub fn power(&self, a: &Ciphertext, exponent: &Secret<Vec<u64>>, bits: usize) -> Result<Ciphertext, PaillierError> {
        a.check(self)?;
        let mut work = self.group().workspace();
        let base = a.to_inner(self, &mut work);
        let power = self.group().power(&mut work, &base, exponent.expose(), bits);
        Ok(Ciphertext::from_inner(self, &mut work, power))
    }

    /// Encrypts the sum with a number, in constant time, without fresh randomness: add a fresh encryption before it is opened.
    ///
    /// # Errors
    /// [`PaillierError::OtherKey`].
    pub fn add_plaintext(&self, a: &Ciphertext, number: &Plaintext) -> Result<Ciphertext, PaillierError> {
        a.check(self)?;
        number.check(self)?;
        let mut work = self.group().workspace();
        let mut sum = a.to_inner(self, &mut work);
        self.group().multiply_one_plus(&mut work, &mut sum, number.expose());
        Ok(Ciphertext::from_inner(self, &mut work, sum))
    }
}
