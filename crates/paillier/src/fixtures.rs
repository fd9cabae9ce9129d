//! Keys of this room's tests, from the fixed primes, and plain decryption with them.

use std::sync::OnceLock;

use num_bigint::{BigInt, BigUint};
use veilmatch_secret::{Entropy, os_entropy};

use crate::{Ciphertext, KeyElements, KeySize, Plaintext, PublicKey};

const PRIMES: &str = include_str!("../../../tests/vectors/paillier-safe-primes.txt");

/// A key and its primes.
pub(crate) struct Fixture {
    pub(crate) key: PublicKey,
    pub(crate) p: BigUint,
    lambda: BigUint,
}

/// The key of 2,048 bits.
pub(crate) fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| Fixture::new(KeySize::Bits2048, 7))
}

/// The key of 3,072 bits.
pub(crate) fn large_fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| Fixture::new(KeySize::Bits3072, 7))
}

pub(crate) fn entropy() -> Box<dyn Entropy> {
    os_entropy()
}

/// Numbers encrypted one by one.
pub(crate) fn encrypt_all(key: &PublicKey, numbers: &[i32]) -> Vec<Ciphertext> {
    let encrypt = |&n: &i32| key.encrypt(&Plaintext::from_integer(key, n.into()), &mut *entropy()).unwrap();
    numbers.iter().map(encrypt).collect()
}

impl Fixture {
    /// With h = −y². Nobody decrypts jointly here: the verification keys are those of d_i = 0.
    pub(crate) fn new(size: KeySize, y: u32) -> Self {
        let digits = size.bits() / 8;
        let mut primes = PRIMES.lines().filter(|line| !line.starts_with('#') && line.len() == digits);
        let mut next = || BigUint::parse_bytes(primes.next().unwrap().as_bytes(), 16).unwrap();
        let (p, q) = (next(), next());
        let n = &p * &q;
        let (square, one) = (&n * &n, BigUint::from(1u8));
        let base = &n - y * y;
        let elements = KeyElements {
            size,
            base_power: base.modpow(&n, &square),
            base,
            verification_base: BigUint::from(4u8),
            verification_keys: [one.clone(), one.clone(), one.clone()],
            modulus: n,
        };
        Self { key: PublicKey::new(elements).unwrap(), lambda: (&p - &one) * (q - one), p }
    }

    /// The plaintext between −N/2 and N/2.
    pub(crate) fn decrypt(&self, ciphertext: &Ciphertext) -> BigInt {
        let n = self.key.modulus();
        let power = ciphertext.to_biguint().modpow(&self.lambda, &(n * n));
        assert_eq!(&power % n, BigUint::from(1u8), "a ciphertext to the power of λ is 1 modulo N");
        let m = (power - 1u8) / n * self.lambda.modinv(n).unwrap() % n;
        if &m << 1u8 < *n { m.into() } else { BigInt::from(m) - BigInt::from(n.clone()) }
    }
}
