//! The one clock of the client.

use std::time::{SystemTime, UNIX_EPOCH};

use veilmatch_domain::Timestamp;

/// The present, in seconds. Requests expire by it; the key holders compare with their own clocks.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the client's one clock")]
pub fn now() -> Timestamp {
    // A clock before 1970 gives requests that have expired, which the holders say.
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs()))
}
