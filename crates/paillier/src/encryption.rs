//! Encryption.

use veilmatch_kernels::montgomery::Modular;
use veilmatch_secret::Entropy;

use crate::integers::random_limbs;
use crate::{Ciphertext, PaillierError, Plaintext, PublicKey};

impl PublicKey {
    /// Encrypts a number: (1+m·N)·H^r with fresh r, in constant time.
    ///
    /// # Errors
    /// [`PaillierError::OtherKey`] if the plaintext is one of another key.
    pub fn encrypt(&self, number: &Plaintext, entropy: &mut dyn Entropy) -> Result<Ciphertext, PaillierError> {
        number.check(self)?;
        let randomness = random_limbs(self.size().randomness_bits(), entropy);
        let mut work = self.group().workspace();
        let mut power = self.table().power(self.group(), &mut work, randomness.expose());
        self.group().multiply_one_plus(&mut work, &mut power, number.expose());
        Ok(Ciphertext::from_inner(self, &mut work, power))
    }
}
