//! The matcher's service: gRPC for clients, streams to the three key holders, the durable gallery, a scan pool.
//!
//! It holds no key and its dependency tree contains no type of one. The state machine is `veilmatch-matching`, the
//! store `veilmatch-gallery`; here are the network, threads, deadlines, and the order in which things end.
//!
//! - `core`: the thread that owns the state machine; `service`: the RPCs; `register`: whom it serves;
//! - `run`: start and end; `config`: the configuration file; `public_key`: that of the scheme `paillier`;
//! - `twin`: the matcher's twin, a process of its own that somebody else runs.

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

pub mod config;
mod core;
mod public_key;
mod register;
mod run;
mod service;
mod twin;

pub use config::Config;
pub use public_key::PublicKeyError;
pub use register::RegisterError;
pub use run::{Bound, RunError, run};
pub use twin::{BoundTwin, TwinConfig, TwinLimits, run_twin};
