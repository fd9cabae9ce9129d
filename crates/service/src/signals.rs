//! Ends that are asked for.

use tokio::signal::unix::{SignalKind, signal};

/// Waits for SIGTERM or SIGINT. If handlers cannot be installed, waits for ever: the process then ends at once when
/// it is killed, which the stores survive.
pub async fn ended_by_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => tracing::info!("asked to end by SIGTERM"),
        _ = interrupt.recv() => tracing::info!("asked to end by SIGINT"),
    }
}
