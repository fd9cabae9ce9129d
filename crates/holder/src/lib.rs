//! Scheme `glwe`, key-holder half: everything that only a key holder may name.
//!
//! A [`Holder`] is a state machine: messages in, messages out, no IO, no async, no clock. It owns two of three parts of
//! every secret, its registry of clients, collections and groups, and its log of openings. The rooms:
//!
//! - `unseal`: reading this holder's parts of a sealed template; `keys`: replicated secrets and shares of products;
//! - `recrypt`: one deterministic function per part; `scan_check`, `scores`: the holders' side of the scan;
//! - `handshake`, `admission`, `build`, `query`: the sessions; `run` drives `veilmatch-mpc` inside them;
//! - `registry`, `audit`: what is remembered.
//!
//! Trust (DESIGN section 1): a holder alone, or with the matcher, learns shares that are uniform to it and the outcomes
//! of decisions. Every message of a peer is authenticated; everything that two holders compute is compared.

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

mod admission;
mod audit;
mod build;
mod error;
mod handshake;
mod holder;
mod keys;
mod query;
mod record;
mod recrypt;
mod registry;
mod run;
mod scan_check;
mod scores;
mod state;
pub mod unseal;
mod work;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod reference;

pub use audit::{AuditEntry, AuditEvent, AuditLog};
pub use error::{HolderError, Speaker};
pub use holder::{Holder, HolderCard, Outbound, Reaction, Recipient, Sender};
pub use record::Record;
pub use unseal::{HolderSecretKey, OpenedTemplate, UnsealError};
pub use work::{Work, Worked};
