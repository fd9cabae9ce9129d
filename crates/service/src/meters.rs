//! Prometheus metrics over HTTP.

use std::net::SocketAddr;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use veilmatch_domain::{Explain, Status};

/// Upper ends of the latency buckets, in seconds.
const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The address is taken or not of this machine, or metrics were started before.
    #[error("metrics cannot be served on {address}: {reason}")]
    Start {
        /// Where.
        address: SocketAddr,
        /// What the exporter says.
        reason: String,
    },
}

impl Explain for MetricsError {
    fn code(&self) -> &'static str {
        "metrics"
    }
    fn status(&self) -> Status {
        Status::FailedPrecondition
    }
    fn advice(&self) -> &'static str {
        "choose a free address of this machine for `metrics.listen`, or leave the table out"
    }
}

/// Serves metrics at `http://address/metrics`. Names that end in `_seconds` are histograms of latencies.
///
/// # Errors
/// [`MetricsError`].
pub fn start_metrics(address: SocketAddr) -> Result<(), MetricsError> {
    let failed = |e: metrics_exporter_prometheus::BuildError| MetricsError::Start { address, reason: e.to_string() };
    PrometheusBuilder::new()
        .with_http_listener(address)
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
        .map_err(failed)?
        .install()
        .map_err(failed)
}
