//! What both services need around their work and what is the same for both: rules of configuration files, the clock,
//! logs, metrics, the threads of the network, the signals that end a process in order. It knows neither keys nor
//! ciphertexts.

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

mod clock;
mod config;
mod fingerprint;
mod logs;
mod meters;
mod runtime;
mod signals;

pub use clock::{Stopwatch, now};
pub use config::{ConfigError, Fault, Problem, Problems, Tls, Transport, parse_toml, read_text};
pub use fingerprint::{fingerprint, is_fingerprint_of};
pub use logs::{Log, LogFormat, LogLevel, start_logs};
pub use meters::{MetricsError, start_metrics};
pub use runtime::start_runtime;
pub use signals::ended_by_signal;
