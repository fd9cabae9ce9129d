//! The key holder's service: what it stores and how, and how it is reached.
//!
//! - `setup`: first keys and card; `restore`: a lost holder from the other two; `share`: its share of a threshold key; `serve`: starting, serving, ending; `calls`: the gRPC service; `dial`: links to peers; `connections`: who is there;
//! - `core`: the thread that owns the holder and stores before it sends; `memory`: the holder made from what is on disk;
//! - `keyfile`, `card`: the secrets that a holder must never lose or show, and the public keys that it gives away;
//! - `records`: the holder's memory, encrypted, in one database; `audit_file`: the log of openings on disk;
//! - `config`: the configuration file;
//! - `fs`: the one place that knows about modes, syncs and atomic files; `aead`: the one that seals what is stored.
//!
//! What stores is not asynchronous: every call may wait for the disk, and runs on the holder's thread. `serve`, `calls` and
//! `dial` are; they never touch the holder and reach it through one bounded queue of events.

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
mod calls;
pub mod card;
pub mod config;
mod connections;
mod core;
mod dial;
mod fs;
pub mod keyfile;
mod measures;
mod memory;
pub mod records;
pub mod restore;
mod serve;
pub mod setup;
pub mod share;

#[cfg(test)]
mod testing;

pub use fs::FileError;
pub use memory::{MemoryError, audit_folder};
pub use serve::{ServeError, Server, run};
