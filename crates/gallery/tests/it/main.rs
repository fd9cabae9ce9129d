//! The store of the gallery: one suite for both back ends, damage, a full disk, and kill -9 in a loop.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]

mod conformance;
mod crash;
mod disk;
mod full;
mod model;
mod steps;
