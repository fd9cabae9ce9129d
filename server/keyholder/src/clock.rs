//! The one place that reads the wall clock. Deadlines run on the monotonic one.

use std::time::{SystemTime, UNIX_EPOCH};

use veilmatch_domain::Timestamp;

/// Now, by this machine's clock; 1970 if it is set before that.
#[expect(clippy::disallowed_methods, reason = "the one clock of this service: rooms take a `Timestamp`")]
pub(crate) fn now() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}
