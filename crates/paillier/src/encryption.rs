//! Encryption and re-randomisation.

use std::fmt;

use rayon::prelude::*;
use veilmatch_kernels::montgomery::Modular;
use veilmatch_secret::{Entropy, Secret};
use zeroize::Zeroize;

use crate::ciphertext::check_all;
use crate::integers::random_limbs;
use crate::{Ciphertext, PaillierError, Plaintext, PublicKey};

/// What a client knows about its ciphertexts: the numbers and the randomness. Wiped on drop.
pub struct Witness {
    pub(crate) numbers: Secret<Vec<i32>>,
    pub(crate) randomness: Vec<Secret<Vec<u64>>>,
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Witness(redacted)")
    }
}

/// A list of numbers, encrypted one by one, and what a proof about them needs.
#[derive(Debug)]
pub struct EncryptedIntegers {
    /// The ciphertexts, in order.
    pub ciphertexts: Vec<Ciphertext>,
    /// For [`crate::KnowledgeProof::prove`].
    pub witness: Witness,
}

impl PublicKey {
    fn fresh_randomness(&self, entropy: &mut dyn Entropy) -> Secret<Vec<u64>> {
        random_limbs(self.size().randomness_bits(), entropy)
    }

    /// (1+m·N)·H^r.
    fn encrypt_with(&self, number: &[u64], randomness: &[u64]) -> Ciphertext {
        let mut work = self.group().workspace();
        let mut power = self.table().power(self.group(), &mut work, randomness);
        self.group().multiply_one_plus(&mut work, &mut power, number);
        Ciphertext::from_inner(self, &mut work, power)
    }

    /// c·H^r.
    fn blind(&self, a: &Ciphertext, randomness: &[u64]) -> Ciphertext {
        let mut work = self.group().workspace();
        let mut power = self.table().power(self.group(), &mut work, randomness);
        let residue = a.to_inner(self, &mut work);
        self.group().multiply_assign(&mut work, &mut power, &residue);
        Ciphertext::from_inner(self, &mut work, power)
    }

    /// Encrypts a number: (1+m·N)·H^r, in constant time.
    ///
    /// # Errors
    /// [`PaillierError::OtherKey`] if the plaintext is one of another key.
    pub fn encrypt(&self, number: &Plaintext, entropy: &mut dyn Entropy) -> Result<Ciphertext, PaillierError> {
        number.check(self)?;
        let randomness = self.fresh_randomness(entropy);
        Ok(self.encrypt_with(number.expose(), randomness.expose()))
    }

    /// A fresh encryption of zero.
    #[must_use]
    pub fn encrypt_zero(&self, entropy: &mut dyn Entropy) -> Ciphertext {
        self.encrypt_with(&vec![0; self.size().limbs()], self.fresh_randomness(entropy).expose())
    }

    /// Encrypts numbers one by one, on the current rayon pool. Copies of the numbers are wiped with the witness.
    #[must_use]
    pub fn encrypt_integers(&self, numbers: &[i32], entropy: &mut dyn Entropy) -> EncryptedIntegers {
        let randomness: Vec<_> = numbers.iter().map(|_| self.fresh_randomness(entropy)).collect();
        let ciphertexts = numbers
            .par_iter()
            .zip(&randomness)
            .map(|(&number, r)| {
                let mut number = i64::from(number);
                let plaintext = Plaintext::from_integer(self, number);
                number.zeroize();
                self.encrypt_with(plaintext.expose(), r.expose())
            })
            .collect();
        EncryptedIntegers { ciphertexts, witness: Witness { numbers: Secret::new(numbers.to_vec()), randomness } }
    }

    /// The same plaintext under fresh randomness: whoever made the ciphertext does not know it again.
    ///
    /// # Errors
    /// [`PaillierError::OtherKey`].
    pub fn rerandomise(&self, a: &Ciphertext, entropy: &mut dyn Entropy) -> Result<Ciphertext, PaillierError> {
        a.check(self)?;
        Ok(self.blind(a, self.fresh_randomness(entropy).expose()))
    }

    /// [`PublicKey::rerandomise`] of many, on the current rayon pool.
    ///
    /// # Errors
    /// [`PaillierError::OtherKey`].
    pub fn rerandomise_all(
        &self,
        all: &[Ciphertext],
        entropy: &mut dyn Entropy,
    ) -> Result<Vec<Ciphertext>, PaillierError> {
        check_all(self, all)?;
        let randomness: Vec<_> = all.iter().map(|_| self.fresh_randomness(entropy)).collect();
        Ok(all.par_iter().zip(&randomness).map(|(c, r)| self.blind(c, r.expose())).collect())
    }
}
