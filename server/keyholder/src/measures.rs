//! What Prometheus reads. Names are counted and timed here alone; labels hold codes and kinds, never names of clients or
//! subjects.

use std::net::SocketAddr;
use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, ExporterFuture, PrometheusBuilder};
use veilmatch_holder::{AuditEntry, AuditEvent, SessionKind};

const SESSIONS_OPENED: &str = "veilmatch_keyholder_sessions_opened_total";
const SESSIONS_FAILED: &str = "veilmatch_keyholder_sessions_failed_total";
const SESSIONS_OPEN: &str = "veilmatch_keyholder_sessions_open";
const REFUSALS: &str = "veilmatch_keyholder_refusals_total";
const OPENINGS: &str = "veilmatch_keyholder_openings_total";
const AUDIT_ENTRIES: &str = "veilmatch_keyholder_audit_entries_total";
const SYNC_SECONDS: &str = "veilmatch_keyholder_storage_sync_seconds";
const QUEUE: &str = "veilmatch_keyholder_queue_depth";
const PEERS: &str = "veilmatch_keyholder_peers_connected";
const TWIN: &str = "veilmatch_keyholder_twin_connected";
const STOPS: &str = "veilmatch_keyholder_storage_stops_total";

/// Upper ends of the sync histogram in seconds: a fast SSD to a disk that is about to fail.
const SYNC_BUCKETS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0];

/// Makes this process's recorder and the server that shows it; the future must be polled.
pub(crate) fn exporter(listen: SocketAddr) -> Result<ExporterFuture, BuildError> {
    let builder = PrometheusBuilder::new().with_http_listener(listen).set_buckets(&SYNC_BUCKETS)?;
    let (recorder, exporter) = builder.build()?;
    metrics::set_global_recorder(recorder)?;
    describe_counter!(SESSIONS_OPENED, "Sessions opened, by kind.");
    describe_counter!(SESSIONS_FAILED, "Sessions that ended in an error, by kind and code.");
    describe_gauge!(SESSIONS_OPEN, "Sessions that are open.");
    describe_counter!(REFUSALS, "Messages and calls that were refused, by code.");
    describe_counter!(OPENINGS, "Decisions that were opened.");
    describe_counter!(AUDIT_ENTRIES, "Entries appended to the audit log.");
    describe_histogram!(SYNC_SECONDS, "Seconds to make a batch durable.");
    describe_gauge!(QUEUE, "Events that wait for the holder.");
    describe_gauge!(PEERS, "Other key holders that are connected.");
    describe_gauge!(TWIN, "Whether the matcher's twin is connected.");
    describe_counter!(STOPS, "Times that the holder stopped because it could not store.");
    Ok(exporter)
}

pub(crate) fn kind(kind: SessionKind) -> &'static str {
    match kind {
        SessionKind::Admission => "admission",
        SessionKind::Build => "build",
        SessionKind::Query => "query",
    }
}

pub(crate) fn session_opened(of: SessionKind) {
    counter!(SESSIONS_OPENED, "kind" => kind(of)).increment(1);
}

pub(crate) fn session_failed(of: SessionKind, code: &'static str) {
    counter!(SESSIONS_FAILED, "kind" => kind(of), "code" => code).increment(1);
}

pub(crate) fn refused(code: &'static str) {
    counter!(REFUSALS, "code" => code).increment(1);
}

pub(crate) fn logged(entries: &[AuditEntry]) {
    let opening = |event: &AuditEvent| matches!(event, AuditEvent::Opening { .. } | AuditEvent::Preselection { .. });
    let openings = entries.iter().filter(|entry| opening(&entry.event)).count();
    counter!(OPENINGS).increment(openings as u64);
    counter!(AUDIT_ENTRIES).increment(entries.len() as u64);
}

pub(crate) fn stored(took: Duration) {
    histogram!(SYNC_SECONDS).record(took);
}

pub(crate) fn stopped() {
    counter!(STOPS).increment(1);
}

pub(crate) fn levels(queue: usize, sessions: usize, peers: usize) {
    gauge!(QUEUE).set(queue as f64);
    gauge!(SESSIONS_OPEN).set(sessions as f64);
    gauge!(PEERS).set(peers as f64);
}

pub(crate) fn twin(connected: bool) {
    gauge!(TWIN).set(f64::from(u8::from(connected)));
}
