//! Scheme `glwe`, key-holder half: everything that only a key holder may name.
//!
//! A [`Holder`] is a state machine: messages in, messages out, no IO, no async, no clock. It owns two of three parts of
//! every secret, its registry of clients, collections and groups, and its log of openings. The rooms:
//!
//! - `unseal`: reading this holder's parts of a sealed template; `keys`: replicated secrets and shares of products;
//! - `recrypt`: one deterministic function per part; `masks`, `scan_check`, `scores`: the holders' side of the scan;
//! - `ceremony`; `handshake`, `admission`, `build`, `query`: the sessions; `run` drives `veilmatch-mpc` inside them; `work` is
//!   what they hand out to be computed elsewhere;
//! - `administration`: what administrators sign; `registry`, `audit`, `ledger`: what is remembered; `record`, `memory`: how it survives a restart; `restoring`: how it
//!   survives the loss of its machine.
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

mod administration;
mod admission;
mod audit;
mod build;
mod ceremony;
mod error;
mod handshake;
mod holder;
mod keys;
mod ledger;
mod masks;
mod memory;
mod nonces;
mod paillier;
mod query;
mod record;
mod recrypt;
mod registry;
mod restoring;
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

pub use audit::{Administered, AuditEntry, AuditEvent, ProbeUse};
pub use error::{Budget, HolderError, Speaker};
pub use holder::{Holder, HolderCard, Limits, OpenSession, Outbound, Reaction, Recipient, Sender, SessionKind};
pub use memory::{HolderKeys, RestoreError};
pub use record::Record;
pub use registry::ClientRecord;
pub use restoring::{RestoreRequest, combine_restored};
pub use unseal::{HolderSecretKey, OpenedTemplate, UnsealError};
pub use work::{Work, Worked};
