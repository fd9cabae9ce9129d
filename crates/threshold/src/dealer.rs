//! The ceremony: one trusted dealer makes the key, hands out the shares and forgets.
//!
//! Whoever runs it sees everything while it runs. When [`Dealer::deal`] returns, the primes, λ(N), d and the dealer's own copies of the shares
//! are wiped (but for what `lib.rs` names); when [`Dealt`] is dropped, the shares are.
//!
//! **h.** y is drawn modulo N and h = −y². P and Q are 3 modulo 4, so −1 is a non-square modulo both and h has Jacobi symbol 1. The squares
//! are a cyclic group of order p'q', in which y² generates all but for a chance of 1/p' + 1/q'; −1 has order 2. So h generates
//! the group {±1} × squares of order 2p'q' = λ(N), and H = h^N the N-th residues modulo N² of that order (N is prime to λ):
//! every encryption is blinded by a uniform-looking element of it, and d ≡ 0 mod λ(N) removes it.
//!
//! **v** = x² modulo N², which generates all squares but for the same chance and one of 1/P + 1/Q.

use std::fmt;

use crypto_bigint::{BoxedUint, Odd};
use crypto_primes::hazmat::{SetBits, SieveFactory, SmallFactorsSieveFactory};
use crypto_primes::{Flavor, is_prime};
use num_bigint::BigUint;
use rayon::prelude::*;
use veilmatch_domain::Party;
use veilmatch_kernels::montgomery::{Modular, SquaredModulus, limbs};
use veilmatch_paillier::{KeyElements, KeySize, PublicKey, random_limbs};
use veilmatch_secret::{Entropy, Label, Secret, Seed};
use zeroize::Zeroize;

use crate::ThresholdError;
use crate::share::{KeyShare, SHARE_MASK_BITS, share_bits, share_limbs};

/// Which of the two primes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// P.
    First,
    /// Q.
    Second,
}

/// How the search goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which prime is looked for.
    pub prime: Which,
    /// Candidates tested so far; some 1,700 are needed on average at 2,048 bits, 3,800 at 3,072, with a long tail.
    pub tested: u64,
    /// Whether it is found.
    pub found: bool,
}

/// What the ceremony hands out.
pub struct Dealt {
    /// For everybody.
    pub key: PublicKey,
    /// For K0, K1 and K2, each to be told over a channel that only it can read.
    pub shares: [KeyShare; 3],
}

impl fmt::Debug for Dealt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dealt({:?}, redacted)", self.key)
    }
}

/// The trusted dealer.
#[derive(Clone, Copy, Debug)]
pub struct Dealer {
    size: KeySize,
}

impl Dealer {
    /// A dealer of keys of a size.
    #[must_use]
    pub const fn new(size: KeySize) -> Self {
        Self { size }
    }

    /// Searches both primes at once (two threads of the current rayon pool; seconds at 2,048 bits, up to minutes at 3,072), makes the key and
    /// the shares, and forgets everything else. `progress` is called from both threads.
    ///
    /// # Errors
    /// [`ThresholdError`] if the search fails or the primes happen to be equal.
    pub fn deal(
        self,
        progress: &(dyn Fn(Progress) + Sync),
        entropy: &mut dyn Entropy,
    ) -> Result<Dealt, ThresholdError> {
        let (p_seed, q_seed) = (Seed::random(entropy), Seed::random(entropy));
        let bits = (self.size.bits() / 2) as u32;
        let (p, q) = rayon::join(
            || safe_prime(bits, Which::First, &p_seed, progress),
            || safe_prime(bits, Which::Second, &q_seed, progress),
        );
        self.deal_from(&p?, &q?, entropy)
    }

    /// Makes the key from primes that are known to be safe.
    pub(crate) fn deal_from(
        self,
        p: &Secret<Vec<u64>>,
        q: &Secret<Vec<u64>>,
        entropy: &mut dyn Entropy,
    ) -> Result<Dealt, ThresholdError> {
        if p.expose() == q.expose() {
            return Err(ThresholdError::Unsuitable);
        }
        let modulus = limbs::product(p.expose(), q.expose());
        if modulus.len() != self.size.limbs() || modulus.last().is_none_or(|limb| limb >> 63 == 0) {
            return Err(ThresholdError::Unsuitable);
        }
        let exponent = secret_exponent(p, q, &modulus)?;
        let magnitudes = split(self.size, &exponent, entropy);
        let key = self.public_key(&modulus, &magnitudes, entropy)?;
        let [d0, d1, d2] = &magnitudes;
        let shares = [(Party::K0, d0, d1), (Party::K1, d1, d2), (Party::K2, d2, d0)]
            .map(|(party, own, next)| KeyShare::from_parts(key.clone(), party, [own.duplicate(), next.duplicate()]));
        Ok(Dealt { key, shares })
    }

    fn public_key(
        self,
        modulus: &[u64],
        magnitudes: &[Secret<Vec<u64>>; 3],
        entropy: &mut dyn Entropy,
    ) -> Result<PublicKey, ThresholdError> {
        let big = |digits: &[u64]| BigUint::from_bytes_le(&limbs::to_bytes(digits));
        let n = big(modulus);
        let square = &n * &n;
        // y and x are not secret: nobody learns anything from a root of −h or v.
        let mut random = |bound: &BigUint| big(random_limbs(bound.bits() as usize + 128, entropy).expose()) % bound;
        let (y, x) = (random(&n), random(&square));
        let (base, verification_base) = (&n - &y * &y % &n, &x * &x % &square);

        let group = SquaredModulus::new(modulus).map_err(|_| ThresholdError::Unsuitable)?;
        let mut work = group.workspace();
        let mut start = limbs::from_bytes(&verification_base.to_bytes_le());
        start.resize(group.limbs(), 0);
        group.enter(&mut work, &mut start);
        let powers: Vec<BigUint> = magnitudes
            .par_iter()
            .map(|magnitude| {
                let mut work = group.workspace();
                let mut power = group.power(&mut work, &start, magnitude.expose(), share_bits(self.size));
                group.leave(&mut work, &mut power);
                big(&power)
            })
            .collect();
        let [v0, v1, v2] = <[BigUint; 3]>::try_from(powers).map_err(|_| ThresholdError::Unsuitable)?;
        // d_2 is negative.
        let v2 = v2.modinv(&square).ok_or(ThresholdError::Unsuitable)?;
        let base_power = base.modpow(&n, &square);
        Ok(PublicKey::new(KeyElements {
            size: self.size,
            modulus: n,
            base,
            base_power,
            verification_base,
            verification_keys: [v0, v1, v2],
        })?)
    }
}

/// P = 2p'+1 of `bits` bits, the two highest set. Candidates are sieved and tested by crypto-primes (Miller-Rabin to base 2 and a Lucas
/// test, for P and p').
fn safe_prime(
    bits: u32,
    which: Which,
    seed: &Seed,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Secret<Vec<u64>>, ThresholdError> {
    let mut stream = seed.stream(&Label::new("veilmatch/paillier/prime").number(bits.into()));
    let mut factory = SmallFactorsSieveFactory::<BoxedUint>::new(Flavor::Safe, bits, SetBits::TwoMsb)
        .map_err(|_| ThresholdError::Primes { why: "the sieve cannot be made" })?;
    let mut tested = 0;
    loop {
        let sieve = factory.make_sieve(&mut stream, None);
        let sieve = sieve.map_err(|_| ThresholdError::Primes { why: "no candidate can be drawn" })?;
        let Some(sieve) = sieve else { return Err(ThresholdError::Primes { why: "no candidates are left" }) };
        for mut candidate in sieve {
            tested += 1;
            let found = is_prime(Flavor::Safe, &candidate);
            progress(Progress { prime: which, tested, found });
            if found {
                let prime = Secret::new(candidate.to_words().into_vec());
                candidate.zeroize();
                return Ok(prime);
            }
            candidate.zeroize();
        }
    }
}

/// d = λ·(λ^−1 mod N), λ = (P−1)(Q−1)/2: 0 modulo λ and 1 modulo N, below 2^|N²|.
fn secret_exponent(
    p: &Secret<Vec<u64>>,
    q: &Secret<Vec<u64>>,
    modulus: &[u64],
) -> Result<Secret<Vec<u64>>, ThresholdError> {
    let less_one = |prime: &Secret<Vec<u64>>| {
        let mut prime = prime.duplicate();
        limbs::subtract_assign(prime.expose_mut(), &[1]);
        prime
    };
    let mut lambda = Secret::new(limbs::product(less_one(p).expose(), less_one(q).expose()));
    let mut above = 0;
    for limb in lambda.expose_mut().iter_mut().rev() {
        (*limb, above) = (*limb >> 1 | above << 63, *limb & 1);
    }
    let odd: Odd<BoxedUint> =
        Odd::new(BoxedUint::from_words(modulus.iter().copied())).into_option().ok_or(ThresholdError::Unsuitable)?;
    let mut number = BoxedUint::from_words(lambda.expose().iter().copied());
    let inverse = number.invert_odd_mod(&odd).into_option();
    number.zeroize();
    let mut inverse = inverse.ok_or(ThresholdError::Unsuitable)?;
    let exponent = Secret::new(limbs::product(lambda.expose(), inverse.as_words()));
    inverse.zeroize();
    Ok(exponent)
}

/// Magnitudes of d_0, d_1 and d_2 with d = d_0 + d_1 − |d_2|.
fn split(size: KeySize, exponent: &Secret<Vec<u64>>, entropy: &mut dyn Entropy) -> [Secret<Vec<u64>>; 3] {
    let mut mask = || loop {
        let mut mask = random_limbs(2 * size.bits() + SHARE_MASK_BITS, entropy);
        mask.expose_mut().resize(share_limbs(size), 0);
        let mut difference = mask.duplicate();
        if limbs::subtract_assign(difference.expose_mut(), exponent.expose()) == 0 {
            return mask;
        }
    };
    let (d0, d1) = (mask(), mask());
    let mut d2 = d0.duplicate();
    limbs::add_assign(d2.expose_mut(), d1.expose());
    limbs::subtract_assign(d2.expose_mut(), exponent.expose());
    [d0, d1, d2]
}
