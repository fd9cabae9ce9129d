//! The key holder's service: what it stores and how.
//!
//! - `keyfile`, `card`: the secrets that a holder must never lose or show, and the public keys that it gives away;
//! - `records`: the holder's memory, encrypted, in one database; `audit_file`: the log of openings on disk;
//! - `config`: the configuration file;
//! - `fs`: the one place that knows about modes, syncs and atomic files; `aead`: the one that seals what is stored.
//!
//! Nothing here is asynchronous: every call may wait for the disk.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a test may fail loudly"
    )
)]

mod aead;
pub mod audit_file;
pub mod card;
pub mod config;
mod fs;
pub mod keyfile;
pub mod records;

#[cfg(test)]
mod testing;

pub use fs::FileError;
