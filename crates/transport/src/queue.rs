//! The two halves of a stream of whole messages: a bounded queue that goes out in chunks, and what comes in.
//!
//! A queue belongs to one stream and dies with it: messages that were not sent yet are dropped, those that were half sent
//! are not continued elsewhere. So no message is delivered twice or in part; one may be lost, and whoever waits for an
//! answer times out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::Stream;
use tonic::Streaming;
use veilmatch_domain::{Explain, Status};
use veilmatch_wire::v1::Chunk;

use crate::{Assembler, ChunkError, Chunks, chunks};

/// How much may wait to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Messages; at least 1.
    pub messages: usize,
    /// Bytes of all of them together; below 4 GiB.
    pub bytes: usize,
}

/// Why a message was not taken. Nothing of it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkDown {
    /// There is no connection at the moment.
    #[error("the other side is not connected")]
    NotConnected,
    /// The other side does not take messages as fast as they come.
    #[error("too much is waiting to be sent to the other side")]
    Full,
    /// The message alone is over the queue's limit.
    #[error("a message of {found} bytes; the queue takes {limit}")]
    TooLong {
        /// Its size in bytes.
        found: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

impl Explain for LinkDown {
    fn code(&self) -> &'static str {
        match self {
            Self::NotConnected => "not-connected",
            Self::Full => "queue-full",
            Self::TooLong { .. } => "message-too-long",
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::NotConnected => Status::Unavailable,
            Self::Full | Self::TooLong { .. } => Status::ResourceExhausted,
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::NotConnected => "check that the other side runs and is reachable, then try again",
            Self::Full => "try again later, or ask for less at a time",
            Self::TooLong { .. } => "send less in one message, or raise the queue's limit",
        }
    }
}

#[derive(Debug)]
struct Queued {
    chunks: Chunks,
    /// Given back when the last chunk is taken.
    _room: OwnedSemaphorePermit,
}

/// The end of a queue that messages go into. Clones share the queue.
#[derive(Clone, Debug)]
pub struct Outlet {
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    limit: u32,
}

/// The end that goes to the other side: give it to a generated client as the request stream, or, as
/// [`replies`](Self::replies), back from a handler. It ends when the last [`Outlet`] is dropped and all is sent.
#[derive(Debug)]
pub struct Outgoing {
    queue: mpsc::Receiver<Queued>,
    current: Option<Queued>,
}

/// A new queue.
#[must_use]
pub fn queue(limits: QueueLimits) -> (Outlet, Outgoing) {
    let limit = u32::try_from(limits.bytes).unwrap_or(u32::MAX).min((Semaphore::MAX_PERMITS >> 1) as u32);
    let (sender, receiver) = mpsc::channel(limits.messages.max(1));
    let outlet = Outlet { queue: sender, room: Arc::new(Semaphore::new(limit as usize)), limit };
    (outlet, Outgoing { queue: receiver, current: None })
}

impl Outlet {
    /// Puts a message into the queue, without waiting.
    ///
    /// # Errors
    /// [`LinkDown`].
    pub fn send(&self, message: impl Into<Bytes>) -> Result<(), LinkDown> {
        if self.queue.is_closed() {
            return Err(LinkDown::NotConnected);
        }
        let message = message.into();
        let found = message.len();
        let bytes = u32::try_from(found).ok().filter(|&bytes| bytes <= self.limit);
        let bytes = bytes.ok_or(LinkDown::TooLong { found, limit: self.limit as usize })?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes).map_err(|_| LinkDown::Full)?;
        metrics::counter!("veilmatch_link_sent_bytes_total").increment(bytes.into());
        self.queue.try_send(Queued { chunks: chunks(message), _room: room }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => LinkDown::Full,
            mpsc::error::TrySendError::Closed(_) => LinkDown::NotConnected,
        })
    }

    /// Whether the stream is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }
}

impl Stream for Outgoing {
    type Item = Chunk;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Chunk>> {
        loop {
            if let Some(queued) = &mut self.current {
                let chunk = queued.chunks.next();
                if queued.chunks.is_done() {
                    self.current = None;
                }
                if chunk.is_some() {
                    return Poll::Ready(chunk);
                }
            }
            match self.queue.poll_recv(context) {
                Poll::Ready(Some(queued)) => self.current = Some(queued),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Outgoing {
    /// The stream as a handler returns it.
    #[must_use]
    pub fn replies(self) -> Replies {
        Replies(self)
    }
}

/// [`Outgoing`] as a handler returns it.
#[derive(Debug)]
pub struct Replies(Outgoing);

impl Stream for Replies {
    type Item = Result<Chunk, tonic::Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(context).map(|chunk| chunk.map(Ok))
    }
}

/// Why no more messages come in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IncomingError {
    /// The other side ended the stream with a status, or the connection broke.
    #[error("the stream broke: {}", crate::cause(.0.as_ref()))]
    Broken(Box<tonic::Status>),
    /// The other side sent chunks that make no message.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// The stream ended inside a message.
    #[error("the stream ended inside a message")]
    Half,
}

impl Explain for IncomingError {
    fn code(&self) -> &'static str {
        match self {
            Self::Broken(_) | Self::Half => "stream-broken",
            Self::Chunk(e) => e.code(),
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::Broken(_) | Self::Half => Status::Unavailable,
            Self::Chunk(e) => e.status(),
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Broken(_) | Self::Half => "check that the other side runs and is reachable; the link is opened again",
            Self::Chunk(e) => e.advice(),
        }
    }
}

/// Whole messages from the other side.
#[derive(Debug)]
pub struct Incoming {
    chunks: Streaming<Chunk>,
    assembler: Assembler,
}

impl Incoming {
    /// Reads messages of at most `limit` bytes.
    #[must_use]
    pub fn new(chunks: Streaming<Chunk>, limit: usize) -> Self {
        Self { chunks, assembler: Assembler::new(limit) }
    }

    /// The next message; `None` when the other side has ended the stream in order. May be dropped while it waits without
    /// losing anything.
    ///
    /// # Errors
    /// [`IncomingError`]; nothing more comes then.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, IncomingError> {
        loop {
            match self.chunks.message().await.map_err(|status| IncomingError::Broken(Box::new(status)))? {
                None if self.assembler.is_between() => return Ok(None),
                None => return Err(IncomingError::Half),
                Some(chunk) => {
                    if let Some(message) = self.assembler.push(chunk)? {
                        metrics::counter!("veilmatch_link_received_bytes_total").increment(message.len() as u64);
                        return Ok(Some(message));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt as _;

    #[tokio::test]
    async fn the_queue_is_bounded_by_messages_and_bytes_and_frees_what_was_sent() {
        let (outlet, mut outgoing) = queue(QueueLimits { messages: 2, bytes: 10 });
        assert_eq!(outlet.send(vec![1; 11]), Err(LinkDown::TooLong { found: 11, limit: 10 }));
        outlet.send(vec![1; 8]).unwrap();
        assert_eq!(outlet.send(vec![2; 3]), Err(LinkDown::Full), "bytes");
        outlet.send(vec![2; 2]).unwrap();
        assert_eq!(outlet.send(Vec::new()), Err(LinkDown::Full), "messages");
        assert_eq!(outgoing.next().await.unwrap().data, vec![1; 8]);
        outlet.send(vec![3; 8]).unwrap();
        assert_eq!(outlet.send(vec![4; 1]), Err(LinkDown::Full));
        drop(outgoing);
        assert_eq!(outlet.send(vec![5]), Err(LinkDown::NotConnected));
    }

    #[tokio::test]
    async fn what_was_queued_is_sent_before_the_end() {
        let (outlet, outgoing) = queue(QueueLimits { messages: 4, bytes: 8 << 20 });
        outlet.send(vec![1; (1 << 20) + 1]).unwrap();
        outlet.send(Vec::new()).unwrap();
        drop(outlet);
        let chunks: Vec<_> = outgoing.map(|chunk| (chunk.data.len(), chunk.last)).collect().await;
        assert_eq!(chunks, [(1 << 20, false), (1, true), (0, true)]);
    }
}
