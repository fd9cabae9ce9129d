//! Keys from primes that everybody can read, for tests and benchmarks: they protect nothing.

use veilmatch_kernels::montgomery::limbs;
use veilmatch_paillier::KeySize;
use veilmatch_secret::{Entropy, Secret};

use crate::{Dealer, Dealt, ThresholdError};

const PRIMES: &str = include_str!("../../../tests/vectors/paillier-safe-primes.txt");

/// A key of this size from the fixed primes, with shares from `entropy`.
///
/// # Errors
/// [`ThresholdError`] if the vector file is damaged.
pub fn deal(size: KeySize, entropy: &mut dyn Entropy) -> Result<Dealt, ThresholdError> {
    let digits = size.bits() / 2 / 4;
    let mut primes = PRIMES.lines().filter(|line| !line.starts_with('#') && line.len() == digits).map(prime);
    let mut next = || primes.next().flatten().ok_or(ThresholdError::Malformed { what: "vector file" });
    Dealer::new(size).deal_from(&next()?, &next()?, entropy)
}

fn prime(line: &str) -> Option<Secret<Vec<u64>>> {
    let mut bytes = (0..line.len() / 2)
        .map(|i| u8::from_str_radix(line.get(2 * i..2 * i + 2)?, 16).ok())
        .collect::<Option<Vec<_>>>()?;
    bytes.reverse();
    Some(Secret::new(limbs::from_bytes(&bytes)))
}
