//! A stream to a peer that is opened again whenever it breaks.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Response, Streaming};
use veilmatch_secret::{Entropy, os_entropy};
use veilmatch_wire::v1::Chunk;

use crate::{CONNECT_TIMEOUT, Incoming, IncomingError, LinkDown, Outgoing, Outlet, QueueLimits, queue};

/// How long to wait between attempts: doubling from `first` to `most`, each time a random half to all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// Never longer. A stream that lives this long counts as recovered, and the next failure as the first.
    pub most: Duration,
}

/// How a [`Link`] behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkOptions {
    /// What may wait to be sent.
    pub queue: QueueLimits,
    /// Longest message accepted from the other side, in bytes.
    pub message_limit: usize,
    /// Longest time to open the stream, connecting included.
    pub open_timeout: Duration,
    /// Waiting between attempts.
    pub backoff: Backoff,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            queue: QueueLimits { messages: 4096, bytes: 256 << 20 },
            message_limit: 256 << 20,
            open_timeout: 3 * CONNECT_TIMEOUT,
            backoff: Backoff { first: Duration::from_millis(100), most: Duration::from_secs(5) },
        }
    }
}

/// What a [`Link`] reports, in order: a message belongs to the last `Up` before it.
#[derive(Debug)]
#[non_exhaustive]
pub enum LinkEvent {
    /// The stream is open; [`Link::send`] works.
    Up,
    /// A whole message from the other side.
    Message(Vec<u8>),
    /// The stream broke, or an attempt to open it failed. The next attempt follows by itself.
    Down(DownReason),
}

/// Why a stream broke or did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownReason {
    /// The other side refused the stream or cannot be reached.
    #[error("cannot open the stream: {}", crate::cause(.0.as_ref()))]
    Refused(Box<tonic::Status>),
    /// Nothing answered in time.
    #[error("opening the stream took longer than {0:?}")]
    TimedOut(Duration),
    /// The other side ended the stream in order, for example because it shuts down.
    #[error("the other side ended the stream")]
    Ended,
    /// This side broke the stream.
    #[error("the stream was cut")]
    Cut,
    /// The stream broke, or its chunks made no message.
    #[error(transparent)]
    Broken(#[from] IncomingError),
}

/// A stream to a peer that is opened again whenever it breaks; closed when this is dropped.
///
/// Messages that wait when the stream breaks are dropped: sessions above time out and decide what to repeat. No message
/// is delivered twice or in part.
#[derive(Debug)]
pub struct Link {
    outlet: Shared,
    cut: Arc<Notify>,
    task: JoinHandle<()>,
}

type Shared = Arc<Mutex<Option<Outlet>>>;

impl Link {
    /// Starts a link. `open` opens the stream with the request stream it is given, for example
    /// `move |outgoing| { let mut client = client.clone(); async move { client.peer(outgoing).await } }`. Events go to
    /// `events`; while it is full nothing is read from the other side. The link ends when the receiver is dropped.
    ///
    /// Must be called inside a tokio runtime.
    #[must_use]
    pub fn spawn<O, F>(open: O, options: LinkOptions, events: mpsc::Sender<LinkEvent>) -> Self
    where
        O: Fn(Outgoing) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Response<Streaming<Chunk>>, tonic::Status>> + Send + 'static,
    {
        let (outlet, cut) = (Shared::default(), Arc::<Notify>::default());
        let task = tokio::spawn(run(open, options, events, Arc::clone(&outlet), Arc::clone(&cut)));
        Self { outlet, cut, task }
    }

    /// Puts a message into the outbound queue, without waiting.
    ///
    /// # Errors
    /// [`LinkDown`] at once if the link is down or the queue is full.
    pub fn send(&self, message: impl Into<Bytes>) -> Result<(), LinkDown> {
        lock(&self.outlet, |outlet| outlet.as_ref().map_or(Err(LinkDown::NotConnected), |outlet| outlet.send(message)))
    }

    /// Breaks the stream, if it is open: what waits is dropped, and the link is opened again as after any break.
    pub fn cut(&self) {
        lock(&self.outlet, |outlet| *outlet = None);
        self.cut.notify_waiters();
    }

    /// Whether the stream is open.
    #[must_use]
    pub fn is_up(&self) -> bool {
        lock(&self.outlet, |outlet| outlet.as_ref().is_some_and(|outlet| !outlet.is_closed()))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(outlet: &Shared, act: impl FnOnce(&mut Option<Outlet>) -> T) -> T {
    // The option is whole whatever happened to another holder of the lock.
    act(&mut outlet.lock().unwrap_or_else(PoisonError::into_inner))
}

async fn run<O, F>(open: O, options: LinkOptions, events: mpsc::Sender<LinkEvent>, shared: Shared, cut: Arc<Notify>)
where
    O: Fn(Outgoing) -> F,
    F: Future<Output = Result<Response<Streaming<Chunk>>, tonic::Status>>,
{
    let mut entropy = os_entropy();
    let mut failures = 0u32;
    let attempts = async {
        loop {
            let (outlet, outgoing) = queue(options.queue);
            let reason = match timeout(options.open_timeout, open(outgoing)).await {
                Err(_) => DownReason::TimedOut(options.open_timeout),
                Ok(Err(status)) => DownReason::Refused(Box::new(status)),
                Ok(Ok(response)) => {
                    let since = Instant::now();
                    lock(&shared, |shared| *shared = Some(outlet));
                    let reason = tokio::select! {
                        reason = carry(response.into_inner(), options.message_limit, &events) => reason,
                        () = cut.notified() => DownReason::Cut,
                    };
                    lock(&shared, |shared| *shared = None);
                    if since.elapsed() >= options.backoff.most {
                        failures = 0;
                    }
                    reason
                }
            };
            if events.send(LinkEvent::Down(reason)).await.is_err() {
                return;
            }
            sleep(wait(options.backoff, failures, &mut *entropy)).await;
            failures = failures.saturating_add(1);
        }
    };
    // Nobody listens any more: no stream is kept open for it.
    tokio::select! {
        () = attempts => {}
        () = events.closed() => {}
    }
    lock(&shared, |shared| *shared = None);
}

/// Passes messages on until the stream ends.
async fn carry(chunks: Streaming<Chunk>, limit: usize, events: &mpsc::Sender<LinkEvent>) -> DownReason {
    let mut incoming = Incoming::new(chunks, limit);
    let mut event = LinkEvent::Up;
    loop {
        if events.send(event).await.is_err() {
            return DownReason::Ended;
        }
        event = match incoming.next().await {
            Ok(Some(message)) => LinkEvent::Message(message),
            Ok(None) => return DownReason::Ended,
            Err(error) => return error.into(),
        };
    }
}

/// The wait after a number of failures: a random half to all of min(first·2^failures, most).
fn wait(backoff: Backoff, failures: u32, entropy: &mut dyn Entropy) -> Duration {
    let full = backoff.first.saturating_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX)).min(backoff.most);
    let mut bytes = [0; 4];
    entropy.fill_bytes(&mut bytes);
    let random = f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX);
    full.mul_f64(0.5 + 0.5 * random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_stay_in_their_half_and_are_capped() {
        let backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(5) };
        let mut entropy = os_entropy();
        for (failures, full) in [(0, 100), (1, 200), (5, 3200), (6, 5000), (31, 5000), (32, 5000), (u32::MAX, 5000)] {
            let full = Duration::from_millis(full);
            let waits: Vec<_> = (0..50).map(|_| wait(backoff, failures, &mut *entropy)).collect();
            assert!(waits.iter().all(|w| *w >= full / 2 && *w <= full), "{failures}: {waits:?}");
            assert!(waits.iter().any(|w| *w != waits[0]), "jitter");
        }
    }
}
