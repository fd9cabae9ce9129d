//! How accurate a face model is: verification, open-set identification, groups, time, images, and their page.
//!
//! Templates, labels, groups, dates and scores come in; typed results that serialise go out. Everything here is plaintext:
//! encrypted scores do not exist, and what the encrypted protocol decided comes in as numbers ([`encrypted`]). No IO, no
//! network, no keys. Words are those of ISO/IEC 19795-1 and NIST FRTE: mated and non-mated comparisons, FMR and FNMR, FPIR
//! and FNIR, failure to acquire.
//!
//! Every rate has a 95 % interval from a bootstrap over people ([`bootstrap`]).

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly"))]

pub mod bootstrap;
pub mod encrypted;
mod error;
pub mod fair;
pub mod folds;
pub mod groups;
pub mod identification;
pub mod images;
pub mod page;
mod scan;
pub mod synthetic;
mod templates;
#[cfg(test)]
mod testing;
pub mod time;
pub mod verification;

pub use error::EvaluationError;
pub use scan::{Histogram, RESOLUTION};
pub use templates::{People, Templates};
