//! Secrets that redact and wipe themselves, labelled pseudo-random functions, counters that cannot repeat.
//!
//! Every pseudo-random byte in the system is PRF(seed, label): the key of a ChaCha20 stream is the keyed BLAKE3
//! hash of a canonical [`Label`] under a 32-byte [`Seed`]. Two different labels give independent streams; a label
//! is spelled in one place and carries everything that makes its use unique (invariant 3 of DESIGN section 7).
//!
//! What is not wiped: copies that the compiler spills to the stack, and registers.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")
)]

mod counter;
mod entropy;
mod label;
mod prf;
mod wrapped;

pub use counter::{Counter, Exhausted};
pub use entropy::{Entropy, os_entropy};
pub use label::{Digest, Hasher, Label};
pub use prf::{Seed, Stream};
pub use wrapped::{Secret, equal};
