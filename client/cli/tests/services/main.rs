//! Whole deployments as processes, with real sockets and mutual TLS, and what goes wrong with them: processes are killed,
//! links cut and slowed, disks full, certificates wrong, clients strangers, requests repeated.
//!
//! Each test checks three things: whoever asks gets the right status and code within its deadline, and a name where one
//! can be named; nothing that was acknowledged is lost and nothing half-done stays; afterwards the service works again
//! without a hand ([`cluster::Cluster::recovers`]).
//!
//! The logs of a failed test's processes are kept if `VEILMATCH_KEEP` is set; the test then says where.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

mod certificates;
mod cluster;
mod disks;
mod holders;
mod load;
mod lock_out;
mod matchers;
mod paillier;
mod photos;
mod preselection;
mod proxy;
mod replays;
mod rotation;
mod tenants;
