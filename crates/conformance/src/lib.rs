//! What a scheme owes: the [`Scheme`] contract, the plaintext oracle, and the suite that every scheme passes.
//!
//! A scheme generates keys, encrypts, indexes, and turns a probe into three additive shares per score; the decision
//! protocol of `veilmatch-mpc` does the rest. The suite runs all decisions on random and extreme inputs and compares
//! them with plaintext cosines ([`judge`]). It is test code: no server and no client depends on it.

mod judge;
mod oracle;
mod scheme;
mod suite;
mod vectors;

pub use judge::{BAND, Tally, judge};
pub use oracle::Plaintext;
pub use scheme::{Scheme, ScoreShares};
pub use suite::{Case, SuiteReport, decide, preselect, run};
pub use vectors::{at_cosine, random_unit, rng};
