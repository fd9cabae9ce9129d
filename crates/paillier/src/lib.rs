//! Scheme `paillier`, public half: what the matcher, its twin and the clients may know (DESIGN section 4).
//!
//! The public key, ciphertexts and what can be computed on them, packing, multi-exponentiation, and the check of a holder's partial
//! decryption. No type here holds a share of the secret exponent; those live in
//! `veilmatch-threshold`, which this room cannot reach. No IO.
//!
//! **Integers.** Public integers are [`num_bigint`]'s at the interface. Secret ones ([`Plaintext`], randomness, shares) never pass
//! through it: they are lists of limbs that are wiped on drop, and what is done with them takes constant time
//! (`veilmatch_kernels::montgomery`). What takes variable time says so in its name. Not wiped: what the compiler leaves on the
//! stack, and the intermediate values of [`Plaintext::expose_vartime`].
//!
//! **Security.** A ciphertext is (1+m·N)·H^r mod N² with H = h^N and r of 4k bits (448 for N of 2,048 bits, 512 for 3,072):
//! semantically secure under decisional composite residuosity and the assumption that h^r for short r looks like h^r for any r
//! (Damgård, Jurik, Nielsen 2010; the best attack known is a search of 2^(2k) steps). h = −y² generates a group of order 2p'q'
//! where N = (2p'+1)(2q'+1).

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")
)]

mod ciphertext;
mod decryption;
mod encryption;
mod error;
mod exponentiation;
mod integers;
mod key;
mod plaintext;
mod probe;
mod slots;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;

pub use ciphertext::Ciphertext;
pub use decryption::{DecryptionStatement, PartialDecryption, Parts, RESPONSE_MARGIN_BITS};
pub use error::PaillierError;
pub use exponentiation::PreparedBases;
pub use integers::random_limbs;
pub use key::{KeyElements, KeySize, PublicKey};
pub use plaintext::Plaintext;
pub use probe::{ProbeShare, evaluate_vartime};
pub use slots::{SCALE_BITS, STATISTICAL_BITS, Slots, TORUS_BITS, centred, decision_noise};
