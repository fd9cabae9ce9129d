//! Where fresh randomness comes from.

use rand_core::{CryptoRng, UnwrapErr};

/// A source of fresh randomness. Parties own one; production code passes [`os_entropy`].
pub trait Entropy: CryptoRng + Send {}

impl<T: CryptoRng + Send> Entropy for T {}

/// The operating system's generator.
///
/// # Panics
/// Drawing from it panics if the operating system has no randomness to give: there is no safe way to go on.
#[must_use]
pub fn os_entropy() -> Box<dyn Entropy> {
    Box::new(UnwrapErr(getrandom::SysRng))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        let mut entropy = os_entropy();
        let (mut a, mut b) = ([0u8; 32], [0u8; 32]);
        entropy.fill_bytes(&mut a);
        entropy.fill_bytes(&mut b);
        assert_ne!(a, b);
    }
}
