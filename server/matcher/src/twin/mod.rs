//! The matcher's twin as a process: the second evaluator of the scheme `paillier` (DESIGN 4). `veilmatch-matcher --role twin` runs
//! it, at somebody else's than the matcher.
//!
//! It dials the three holders, which send it its shares of probes, and serves one stream to the matcher. It stores nothing:
//! after a start it asks the matcher for the groups that it needs.
//!
//! Who sees what: ciphertexts, and its own share of every probe, which is uniform as long as the matcher's is not known to it.

mod config;
mod core;
mod run;

pub use config::{TwinConfig, TwinLimits};
pub use run::{BoundTwin, run_twin};
