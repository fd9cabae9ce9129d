//! Between lists of limbs, bytes and num-bigint, and fresh random numbers.

use num_bigint::BigUint;
use veilmatch_kernels::montgomery::limbs;
use veilmatch_secret::{Digest, Entropy, Secret, Stream};

/// A public number as `count` limbs; what lies above is cut off.
pub(crate) fn to_limbs(number: &BigUint, count: usize) -> Vec<u64> {
    let mut digits = number.to_u64_digits();
    digits.resize(count, 0);
    digits
}

/// Public limbs as a number.
pub(crate) fn to_big(digits: &[u64]) -> BigUint {
    BigUint::from_bytes_le(&limbs::to_bytes(digits))
}

/// A number uniform below 2^bits, in ⌈bits/64⌉ limbs.
#[must_use]
pub fn random_limbs(bits: usize, entropy: &mut dyn Entropy) -> Secret<Vec<u64>> {
    let mut number = Secret::new(vec![0u64; bits.div_ceil(64)]);
    for limb in number.expose_mut().iter_mut() {
        *limb = entropy.next_u64();
    }
    if let (Some(last), spare @ 1..) = (number.expose_mut().last_mut(), number_of_spare_bits(bits)) {
        *last >>= spare;
    }
    number
}

fn number_of_spare_bits(bits: usize) -> usize {
    bits.div_ceil(64) * 64 - bits
}

/// `count` challenges of 128 bits, expanded from a transcript: each is the answer of a random oracle to (transcript, index).
pub(crate) fn challenges(transcript: &Digest, count: usize) -> Vec<u128> {
    let mut stream = Stream::public(transcript.0);
    (0..count).map(|_| u128::from(stream.next_u64()) | u128::from(stream.next_u64()) << 64).collect()
}

/// The two limbs of a challenge.
pub(crate) fn challenge_limbs(challenge: u128) -> [u64; 2] {
    [challenge as u64, (challenge >> 64) as u64]
}
