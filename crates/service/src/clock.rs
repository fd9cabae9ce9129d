//! The two clocks: seconds of the world for requests and logs, milliseconds of this process for deadlines.

use std::time::{Instant, SystemTime};

use veilmatch_domain::Timestamp;

/// The time of the world. A clock before 1970 counts as 1970: everything is then expired and refused.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place where a service reads the clock; rooms take a Timestamp")]
pub fn now() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()))
}

/// Milliseconds since it was started; never goes back.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Begins at zero.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// How many have passed.
    #[must_use]
    pub fn milliseconds(&self) -> u64 {
        self.0.elapsed().as_millis().try_into().unwrap_or(u64::MAX)
    }
}
