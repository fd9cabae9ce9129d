//! The gRPC service `veilmatch.v1.KeyHolder`: who may call what, and the streams in and out of the holder's thread.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status as RpcStatus, Streaming};
use veilmatch_domain::{Epoch, Explain, Party, Status};
use veilmatch_glwe::GLWE_2048_V1;
use veilmatch_holder::RestoreRequest;
use veilmatch_sealed::{Administration, HOLDER_KEY_BYTES, HolderPublicKey, SignedAdministration};
use veilmatch_transport::{Incoming, Name, QueueLimits, Replies, Trust, peer_name, queue};
use veilmatch_wire::v1::key_holder_server::KeyHolder;
use veilmatch_wire::v1::{
    AdministerResponse, AuditEntries, AuditRequest, CeremonyResponse, Chunk, HolderStatus, ProbeSharesRequest,
    SignedRequest, StatusRequest,
};
use veilmatch_wire::{WireError, status, status_of};

use crate::audit_file;
use crate::config::Limits;
use crate::connections::{Lane, Outgoing, StreamId};
use crate::core::{Event, Overview, Unready};

/// How long a ceremony waits for the two others.
const CEREMONY_WAIT: Duration = Duration::from_secs(30);
/// Readers of the audit log at a time.
const AUDIT_READERS: usize = 4;
/// A page of the audit log ends at this many entries, or after the entry that reaches this many bytes.
const PAGE_ENTRIES: usize = 1000;
const PAGE_BYTES: usize = 1 << 20;
/// Messages of the largest size that one stream may have waiting, in each direction.
const LARGEST_WAITING: usize = 4;

/// Why a call is refused before it reaches the holder.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("{caller} called what is for {wanted} alone")]
    NotForCaller { caller: Name, wanted: &'static str },
    #[error("the request is not one for a key ceremony")]
    NotACeremony,
    #[error("key holder {missing} is not connected")]
    PeerMissing { missing: Party },
    #[error("epoch {epoch} was not complete within {} s", CEREMONY_WAIT.as_secs())]
    CeremonyIncomplete { epoch: Epoch },
    #[error("{AUDIT_READERS} readers of the audit log are at work")]
    TooManyReaders,
}

impl Explain for CallError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotForCaller { .. } => "not-for-caller",
            Self::NotACeremony => "not-a-ceremony",
            Self::PeerMissing { .. } => "peer-missing",
            Self::CeremonyIncomplete { .. } => "ceremony-incomplete",
            Self::TooManyReaders => "too-many-readers",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::NotForCaller { .. } => Status::PermissionDenied,
            Self::NotACeremony => Status::InvalidArgument,
            Self::PeerMissing { .. } | Self::CeremonyIncomplete { .. } => Status::Unavailable,
            Self::TooManyReaders => Status::ResourceExhausted,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::NotForCaller { .. } => "call with the certificate of the party that the call is for",
            Self::NotACeremony => "sign BeginEpoch for a ceremony, and send other requests to Administer",
            Self::PeerMissing { .. } => "check that the key holder runs and is reachable, then sign a new request",
            Self::CeremonyIncomplete { .. } => {
                "send a request for the same epoch to all three key holders; what was done already is not done twice"
            }
            Self::TooManyReaders => "try again later",
        }
    }
}

impl From<CallError> for RpcStatus {
    fn from(error: CallError) -> Self {
        status_of(&error, Vec::new())
    }
}

/// What all calls share.
pub(crate) struct Shared {
    pub(crate) party: Party,
    pub(crate) trust: Trust,
    /// Canonical encoding of the holder's card.
    pub(crate) card: Vec<u8>,
    /// The folder of the audit log.
    pub(crate) audit: PathBuf,
    pub(crate) limits: Limits,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) overview: watch::Receiver<Overview>,
    pub(crate) audit_readers: Arc<Semaphore>,
}

impl Shared {
    pub(crate) fn new_audit_readers() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(AUDIT_READERS))
    }

    /// Longest message accepted, in bytes.
    pub(crate) fn message_limit(&self) -> usize {
        usize::try_from(self.limits.max_message.as_u64()).unwrap_or(usize::MAX)
    }

    pub(crate) fn queue_limits(&self) -> QueueLimits {
        let bytes = self.message_limit().saturating_mul(LARGEST_WAITING);
        QueueLimits { messages: self.limits.queue as usize, bytes }
    }

    /// Where one stream's messages go on their way to the holder's thread; bounded like the way back.
    pub(crate) fn inlet(&self) -> Inlet {
        let bytes = self.queue_limits().bytes.min(Semaphore::MAX_PERMITS);
        Inlet { events: self.events.clone(), room: Arc::new(Semaphore::new(bytes)) }
    }

    /// Refuses with the cause while the holder takes nothing.
    pub(crate) fn running(&self) -> Result<Overview, RpcStatus> {
        let overview = self.overview.borrow().clone();
        match &overview.stopped {
            Some(cause) => Err(status(cause)),
            None => Ok(overview),
        }
    }
}

/// One stream's way to the holder's thread.
pub(crate) struct Inlet {
    events: mpsc::Sender<Event>,
    room: Arc<Semaphore>,
}

impl Inlet {
    /// Waits until there is room, then hands a message over; `false` if the thread has ended.
    pub(crate) async fn pass(
        &self,
        bytes: Vec<u8>,
        event: impl FnOnce(Vec<u8>, tokio::sync::OwnedSemaphorePermit) -> Event,
    ) -> bool {
        let permits = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        match Arc::clone(&self.room).acquire_many_owned(permits).await {
            Ok(room) => self.tell(event(bytes, room)).await,
            Err(_) => false,
        }
    }

    pub(crate) async fn tell(&self, event: Event) -> bool {
        self.events.send(event).await.is_ok()
    }
}

/// The service.
pub(crate) struct Calls(pub(crate) Arc<Shared>);

impl Calls {
    fn caller<T>(&self, request: &Request<T>) -> Result<Name, RpcStatus> {
        peer_name(request, self.0.trust).map_err(|e| status_of(&e, Vec::new()))
    }

    fn only<T>(
        &self,
        request: &Request<T>,
        wanted: &'static str,
        allowed: impl FnOnce(&Name) -> bool,
    ) -> Result<Name, RpcStatus> {
        let caller = self.caller(request)?;
        if allowed(&caller) {
            return Ok(caller);
        }
        let error = CallError::NotForCaller { caller, wanted };
        tracing::warn!(code = error.code(), "refused: {error}");
        Err(error.into())
    }

    fn only_operators<T>(&self, request: &Request<T>) -> Result<(), RpcStatus> {
        self.only(request, "operators", |name| matches!(name, Name::Operator(_))).map(drop)
    }

    async fn administer(&self, request: Vec<u8>) -> Result<(), RpcStatus> {
        let gone = || status_of(&Unready::ShuttingDown, Vec::new());
        let (answer, answered) = oneshot::channel();
        self.0.events.send(Event::Administer { request, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?.map_err(|refusal| status(&refusal))
    }

    /// Opens a stream: `up` tells the holder's thread where answers go, `message` and `down` what came and that it ended.
    async fn stream(
        &self,
        chunks: Streaming<Chunk>,
        up: impl FnOnce(StreamId, Outgoing) -> Event,
        message: impl Fn(StreamId, Vec<u8>, tokio::sync::OwnedSemaphorePermit) -> Event + Send + Sync + 'static,
        down: impl FnOnce(StreamId) -> Event + Send + 'static,
    ) -> Result<Response<Replies>, RpcStatus> {
        self.0.running()?;
        let (outlet, outgoing) = queue(self.0.queue_limits());
        let (id, stop, inlet) = (StreamId::fresh(), CancellationToken::new(), self.0.inlet());
        if !inlet.tell(up(id, Outgoing::Accepted(outlet, stop.clone().drop_guard()))).await {
            return Err(status_of(&Unready::ShuttingDown, Vec::new()));
        }
        let mut incoming = Incoming::new(chunks, self.0.message_limit());
        tokio::spawn(async move {
            loop {
                let next = tokio::select! {
                    next = incoming.next() => next,
                    () = stop.cancelled() => break,
                };
                match next {
                    Ok(Some(bytes)) => {
                        if !inlet.pass(bytes, |bytes, room| message(id, bytes, room)).await {
                            break;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::info!(code = error.code(), "a stream ended: {error}");
                        break;
                    }
                }
            }
            inlet.tell(down(id)).await;
        });
        Ok(Response::new(outgoing.replies()))
    }

    async fn matcher(&self, lane: Lane, request: Request<Streaming<Chunk>>) -> Result<Response<Replies>, RpcStatus> {
        self.only(&request, "the matcher", |name| *name == Name::Matcher)?;
        self.stream(
            request.into_inner(),
            |stream, to| Event::MatcherUp { lane, stream, to },
            move |stream, bytes, room| Event::Matcher { lane, stream, bytes, room },
            move |stream| Event::MatcherDown { lane, stream },
        )
        .await
    }
}

#[tonic::async_trait]
impl KeyHolder for Calls {
    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<HolderStatus>, RpcStatus> {
        self.caller(&request)?;
        let overview = self.0.running()?;
        let number = |party: Party| veilmatch_wire::v1::Party::from(party).into();
        Ok(Response::new(HolderStatus {
            party: number(self.0.party),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            parameters: GLWE_2048_V1.name.to_owned(),
            key_epoch: overview.epoch.map(|epoch| epoch.0),
            epochs: overview.epochs.iter().map(|epoch| epoch.0).collect(),
            card: self.0.card.clone().into(),
            audit_entries: overview.audit.map_or(0, |(sequence, _)| sequence.saturating_add(1)),
            audit_head: overview.audit.map_or([0; 32], |(_, hash)| hash.0).to_vec().into(),
            peers_connected: overview.peers.into_iter().map(number).collect(),
            open_sessions: u32::try_from(overview.sessions).unwrap_or(u32::MAX),
            restored_epoch: overview.restored.map(|epoch| epoch.0),
        }))
    }

    async fn administer(&self, request: Request<SignedRequest>) -> Result<Response<AdministerResponse>, RpcStatus> {
        self.only_operators(&request)?;
        self.0.running()?;
        self.administer(request.into_inner().request.into()).await?;
        Ok(Response::new(AdministerResponse {}))
    }

    async fn ceremony(&self, request: Request<SignedRequest>) -> Result<Response<CeremonyResponse>, RpcStatus> {
        self.only_operators(&request)?;
        let overview = self.0.running()?;
        let bytes: Vec<u8> = request.into_inner().request.into();
        let signed = SignedAdministration::from_bytes(&bytes).map_err(|e| status_of(&e, Vec::new()))?;
        let Administration::BeginEpoch { epoch } = signed.action else { return Err(CallError::NotACeremony.into()) };
        // A seed that is sent to nobody would be lost until the request is repeated.
        if let Some(missing) = self.0.party.peers().into_iter().find(|peer| !overview.peers.contains(peer)) {
            return Err(CallError::PeerMissing { missing }.into());
        }
        self.administer(bytes).await?;
        let mut overview = self.0.overview.clone();
        let complete = overview.wait_for(|now| now.stopped.is_some() || now.epoch >= Some(epoch));
        match timeout(CEREMONY_WAIT, complete).await {
            Ok(Ok(now)) if now.stopped.is_none() => Ok(Response::new(CeremonyResponse { epoch: epoch.0 })),
            Ok(_) => Err(self.0.running().err().unwrap_or_else(|| CallError::CeremonyIncomplete { epoch }.into())),
            Err(_) => Err(CallError::CeremonyIncomplete { epoch }.into()),
        }
    }

    type RecryptStream = Replies;

    async fn recrypt(&self, request: Request<Streaming<Chunk>>) -> Result<Response<Replies>, RpcStatus> {
        self.matcher(Lane::Recrypt, request).await
    }

    type DecideStream = Replies;

    async fn decide(&self, request: Request<Streaming<Chunk>>) -> Result<Response<Replies>, RpcStatus> {
        self.matcher(Lane::Decide, request).await
    }

    type PeerStream = Replies;

    async fn peer(&self, request: Request<Streaming<Chunk>>) -> Result<Response<Replies>, RpcStatus> {
        let own = self.0.party;
        // Of each pair, the holder with the lower index dials.
        let dials = |name: &Name| matches!(name, Name::Holder(party) if party.index() < own.index());
        let Name::Holder(party) = self.only(&request, "key holders of a lower number", dials)? else {
            return Err(status_of(&WireError::Unknown { field: "party" }, Vec::new()));
        };
        self.stream(
            request.into_inner(),
            |stream, to| Event::PeerUp { party, stream, to },
            move |stream, bytes, room| Event::Peer { party, stream, bytes, room },
            move |stream| Event::PeerDown { party, stream },
        )
        .await
    }

    type ProbeSharesStream = Replies;

    async fn probe_shares(&self, request: Request<ProbeSharesRequest>) -> Result<Response<Replies>, RpcStatus> {
        self.only(&request, "the matcher's twin", |name| *name == Name::Twin)?;
        self.0.running()?;
        let (to, outgoing) = queue(self.0.queue_limits());
        let told = self.0.events.send(Event::TwinUp { to }).await;
        told.map_err(|_| status_of(&Unready::ShuttingDown, Vec::new()))?;
        Ok(Response::new(outgoing.replies()))
    }

    type AuditStream = ReceiverStream<Result<AuditEntries, RpcStatus>>;

    async fn audit(&self, request: Request<AuditRequest>) -> Result<Response<Self::AuditStream>, RpcStatus> {
        self.only_operators(&request)?;
        // The log can be read while the holder cannot write it.
        let stored = self.0.overview.borrow().audit.map_or(0, |(sequence, _)| sequence.saturating_add(1));
        let AuditRequest { from_sequence, limit } = request.into_inner();
        let end = match limit {
            0 => stored,
            limit => from_sequence.saturating_add(limit).min(stored),
        };
        let reader = Arc::clone(&self.0.audit_readers).try_acquire_owned().map_err(|_| CallError::TooManyReaders)?;
        let (pages, stream) = mpsc::channel(1);
        let folder = self.0.audit.clone();
        tokio::task::spawn_blocking(move || {
            let _reader = reader;
            if let Err(error) = send_pages(&folder, from_sequence..end, &pages) {
                tracing::error!(code = error.code(), "reading the audit log: {error}");
                let _ = pages.blocking_send(Err(status_of(&error, Vec::new())));
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    type RestoreStream = Replies;

    async fn restore(
        &self,
        request: Request<veilmatch_wire::v1::RestoreRequest>,
    ) -> Result<Response<Replies>, RpcStatus> {
        let own = self.0.party;
        let lost = |name: &Name| matches!(name, Name::Holder(party) if *party != own);
        let caller = self.only(&request, "the other key holders", lost)?;
        let party = Party::try_from(request.get_ref().party()).map_err(|e| status_of(&e, Vec::new()))?;
        if caller != Name::Holder(party) {
            return Err(CallError::NotForCaller { caller, wanted: "the key holder that is to be restored" }.into());
        }
        self.0.running()?;
        let key = <[u8; HOLDER_KEY_BYTES]>::try_from(&request.get_ref().key[..]).map_err(|_| {
            let (found, limit) = (request.get_ref().key.len(), HOLDER_KEY_BYTES);
            status_of(&WireError::Size { field: "key", found, limit }, Vec::new())
        })?;
        let key = HolderPublicKey::from_bytes(&key).map_err(|e| status_of(&e, Vec::new()))?;
        let gone = || status_of(&Unready::ShuttingDown, Vec::new());
        let (answer, answered) = oneshot::channel();
        let event = Event::Restore { request: Box::new(RestoreRequest { party, key }), answer };
        self.0.events.send(event).await.map_err(|_| gone())?;
        let bytes = answered.await.map_err(|_| gone())?.map_err(|refusal| status(&refusal))?;
        // One message, of whatever size: it is in memory already.
        let (outlet, outgoing) = queue(QueueLimits { messages: 1, bytes: bytes.len() });
        outlet.send(bytes).map_err(|e| status_of(&e, Vec::new()))?;
        Ok(Response::new(outgoing.replies()))
    }
}

type Pages = mpsc::Sender<Result<AuditEntries, RpcStatus>>;

fn send_pages(
    folder: &std::path::Path,
    range: std::ops::Range<u64>,
    pages: &Pages,
) -> Result<(), audit_file::AuditError> {
    let (mut page, mut bytes) = (Vec::new(), 0);
    if range.is_empty() {
        return Ok(());
    }
    for entry in audit_file::read_from(folder, range.start)? {
        let entry = entry?;
        if entry.sequence >= range.end {
            break;
        }
        // Writing to memory does not fail.
        let encoded = borsh::to_vec(&entry).unwrap_or_default();
        bytes += encoded.len();
        page.push(encoded.into());
        if page.len() >= PAGE_ENTRIES || bytes >= PAGE_BYTES {
            let full = AuditEntries { entry: std::mem::take(&mut page) };
            bytes = 0;
            if pages.blocking_send(Ok(full)).is_err() {
                return Ok(()); // the caller has left
            }
        }
    }
    if !page.is_empty() {
        let _ = pages.blocking_send(Ok(AuditEntries { entry: page }));
    }
    Ok(())
}
