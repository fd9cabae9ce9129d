//! Scheme `paillier`, holder half: the ceremony's dealer, key shares, partial decryption, combination (DESIGN section 4).
//!
//! The matcher, its twin and clients must not reach this room; `.ci/boundaries` checks it. No IO.
//!
//! **Key.** N = P·Q with P = 2p'+1, Q = 2q'+1, all four prime. The secret exponent d is 1 modulo N and 0 modulo λ(N) = 2p'q', so that
//! c^d = (1+N)^m for every c = (1+N)^m·ρ^N. It is shared over the integers, d = d_0 + d_1 + d_2, and replicated as everywhere in the house:
//! K_i knows parts i and i+1, any two holders know all three.
//!
//! **Sizes.** d_0 and d_1 are uniform below 2^(|N²|+128), and d_2 = d − d_0 − d_1, which is negative (a dealer draws again if d_0 or d_1 is
//! not larger than d; that happens with probability 2^−127). What a holder knows: K_0 two uniform numbers; K_1 d_1 and d_0 − d, K_2
//! d_0 and d_1 − d, up to signs. A number uniform below 2^(|N²|+128) and moved by d < 2^|N²| has the same distribution for all d
//! within 2^−128. (Published code has a share of 128 bits: the other server finds it in 2^64 steps.) All signs are public and the
//! same in every key.
//!
//! **What is not wiped.** Copies on the stack; those that `crypto-primes` and `crypto-bigint` make inside while primes are
//! searched and λ is inverted. Everything that this room holds itself is. No secret passes through num-bigint.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")
)]

mod combination;
mod dealer;
mod error;
mod share;
#[cfg(any(test, feature = "test-keys"))]
pub mod test_keys;
#[cfg(test)]
mod tests;

pub use combination::combine;
pub use dealer::{Dealer, Dealt, Progress, Which};
pub use error::ThresholdError;
pub use share::{KeyShare, SHARE_MASK_BITS, share_bits};
