//! The matcher as a state machine over messages: stores sealed templates, keeps the packed index, scans.
//!
//! It holds no key and its dependency tree contains no type of one (CI proves it with `cargo tree`). What it sees:
//! sealed templates it cannot open, ciphertexts, sizes, timing, and sealed replies. No IO, no async, no clock: what is
//! slow or needs the store leaves as [`Work`] and comes back through [`Matcher::finish`]; the network service is a layer
//! above.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")
)]

mod error;
mod evaluation;
mod matcher;
mod progress;
mod search;
mod twin;
mod work;
mod writer;

pub use error::MatcherError;
pub use matcher::{HotDimensions, Lane, Limits, Mark, Matcher, Outbound, Reaction, RequestId};
pub use progress::Progress;
pub use twin::{Twin, TwinReaction, TwinWork};
pub use work::{Work, Worked};
