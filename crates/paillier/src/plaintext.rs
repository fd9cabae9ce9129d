//! Numbers modulo N that are to be encrypted or were decrypted.

use std::fmt;

use num_bigint::{BigInt, BigUint, Sign};
use num_integer::Integer;
use veilmatch_kernels::montgomery::limbs;
use veilmatch_secret::{Digest, Secret};

use crate::integers::{to_big, to_limbs};
use crate::{PaillierError, PublicKey};

/// A number modulo N. Redacted, wiped on drop.
pub struct Plaintext {
    /// Canonical, as many limbs as N.
    digits: Secret<Vec<u64>>,
    tag: Digest,
}

impl Plaintext {
    /// A small signed number, in constant time.
    #[must_use]
    pub fn from_integer(key: &PublicKey, value: i64) -> Self {
        let mut digits = Secret::new(vec![0; key.size().limbs()]);
        if let Some(first) = digits.expose_mut().first_mut() {
            *first = value.unsigned_abs();
        }
        let negative = (value >> 63) as u64 & 1;
        let mut from_above = Secret::new(key.modulus_limbs().to_vec());
        limbs::subtract_assign(from_above.expose_mut(), digits.expose());
        limbs::assign_if(negative, digits.expose_mut(), from_above.expose());
        Self { digits, tag: key.tag() }
    }

    /// Any integer, modulo N, in variable time: for values that are not secret.
    #[must_use]
    pub fn from_public_vartime(key: &PublicKey, value: &BigInt) -> Self {
        let modulus = BigInt::from_biguint(Sign::Plus, key.modulus().clone());
        let residue = value.mod_floor(&modulus).magnitude().clone();
        Self { digits: Secret::new(to_limbs(&residue, key.size().limbs())), tag: key.tag() }
    }

    /// From limbs that are below N.
    ///
    /// # Errors
    /// [`PaillierError::OutOfRange`] if they are not. (Whether they are shows in the time this takes, nothing else.)
    pub fn from_limbs(key: &PublicKey, digits: Secret<Vec<u64>>) -> Result<Self, PaillierError> {
        let mut difference = Secret::new(digits.expose().clone());
        let borrow = limbs::subtract_assign(difference.expose_mut(), key.modulus_limbs());
        if digits.expose().len() != key.size().limbs() || borrow == 0 {
            return Err(PaillierError::OutOfRange { what: "plaintext" });
        }
        Ok(Self { digits, tag: key.tag() })
    }

    /// The limbs, least significant first.
    #[must_use]
    pub fn expose(&self) -> &[u64] {
        self.digits.expose()
    }

    /// The number, 0 ≤ m < N, where it is not secret (any more).
    #[must_use]
    pub fn expose_vartime(&self) -> BigUint {
        to_big(self.digits.expose())
    }

    /// The number between −N/2 and N/2, where it is not secret (any more).
    #[must_use]
    pub fn expose_signed_vartime(&self, key: &PublicKey) -> BigInt {
        let value = self.expose_vartime();
        let below = &value << 1u8 < *key.modulus();
        let value = BigInt::from(value);
        if below { value } else { value - BigInt::from(key.modulus().clone()) }
    }

    pub(crate) fn check(&self, key: &PublicKey) -> Result<(), PaillierError> {
        if self.tag == key.tag() { Ok(()) } else { Err(PaillierError::OtherKey) }
    }
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plaintext(redacted)")
    }
}
