//! Seeds and the streams expanded from them.

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng, TryCryptoRng, TryRng};
use std::convert::Infallible;
use std::fmt;
use zeroize::Zeroize;

use crate::{Entropy, Label, Secret};

/// A 32-byte secret from which everything else is derived.
pub struct Seed(Secret<[u8; 32]>);

impl Seed {
    /// Draws a fresh seed.
    #[must_use]
    pub fn random(entropy: &mut dyn Entropy) -> Self {
        let mut bytes = [0u8; 32];
        entropy.fill_bytes(&mut bytes);
        Self::from_bytes(bytes)
    }

    /// Wraps bytes that came from a peer or a file.
    #[must_use]
    pub fn from_bytes(mut bytes: [u8; 32]) -> Self {
        let seed = Self(Secret::new(bytes));
        bytes.zeroize();
        seed
    }

    /// The bytes, for sending over an authenticated channel or for sealing.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }

    /// A deliberate second copy.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0.duplicate())
    }

    /// An independent seed for a purpose.
    #[must_use]
    pub fn derive(&self, label: &Label) -> Seed {
        Seed::from_bytes(*blake3::keyed_hash(self.0.expose(), label.as_bytes()).as_bytes())
    }

    /// The pseudo-random stream PRF(seed, label).
    #[must_use]
    pub fn stream(&self, label: &Label) -> Stream {
        Stream(ChaCha20Rng::from_seed(*self.derive(label).expose()))
    }

    /// A 32-byte authentication tag of a message under this seed.
    #[must_use]
    pub fn tag(&self, label: &Label) -> [u8; 32] {
        *blake3::keyed_hash(self.0.expose(), label.as_bytes()).as_bytes()
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(redacted)")
    }
}

/// A pseudo-random byte stream (ChaCha20; its state is wiped on drop).
pub struct Stream(ChaCha20Rng);

impl Stream {
    /// The stream that a public seed expands to, for masks that everybody may know.
    #[must_use]
    pub fn public(seed: [u8; 32]) -> Stream {
        Stream(ChaCha20Rng::from_seed(seed))
    }

    /// Fills a buffer with the next bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
}

// A stream of a secret seed is as good a source as what the seed was drawn from.
impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill_bytes(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Stream {}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_seeds_separate_streams() {
        let seed = Seed::from_bytes([1; 32]);
        let first = |seed: &Seed, label: Label| {
            let mut bytes = [0u8; 32];
            seed.stream(&label).fill(&mut bytes);
            bytes
        };
        let a = first(&seed, Label::new("a").number(1));
        assert_eq!(a, first(&seed, Label::new("a").number(1)));
        assert_ne!(a, first(&seed, Label::new("a").number(2)));
        assert_ne!(a, first(&seed, Label::new("b").number(1)));
        assert_ne!(a, first(&Seed::from_bytes([2; 32]), Label::new("a").number(1)));
        assert_ne!(&a, seed.derive(&Label::new("a").number(1)).expose());
    }

    #[test]
    fn debug_is_redacted() {
        assert_eq!(format!("{:?}", Seed::from_bytes([1; 32])), "Seed(redacted)");
    }
}
