//! The twin's start and end: checks its name and the public key, dials the holders, serves the matcher.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Streaming};
use veilmatch_domain::{Explain, Party, Status};
use veilmatch_matching::Twin;
use veilmatch_paillier::PublicKey;
use veilmatch_service::{Transport, start_metrics};
use veilmatch_transport::{
    Identity, Incoming, Link, LinkEvent, LinkOptions, Name, Outgoing, QueueLimits, Replies, Security, Trust, channel,
    listen, peer_name, queue, server,
};
use veilmatch_wire::v1::key_holder_client::KeyHolderClient;
use veilmatch_wire::v1::twin_server::{Twin as Rpc, TwinServer};
use veilmatch_wire::v1::{Chunk, ProbeSharesRequest};
use veilmatch_wire::{FILE_DESCRIPTOR_SET, MAX_CHUNK, status_of};

use super::TwinConfig;
use super::core::{Core, Event, Overview};
use crate::{RunError, public_key};

/// Messages that wait for the twin's task; those beyond wait in their streams.
const EVENTS: usize = 64;
/// Messages of one stream that wait for a place among the events.
const WAITING: usize = 4;
/// Longest message of a holder's: its share of a probe has four bytes per dimension.
const SHARE_BYTES: usize = 64 << 10;
/// How long streams may take to end when the twin has.
const LAST_STREAMS: Duration = Duration::from_secs(5);

/// Somebody else than the matcher called.
#[derive(Debug, thiserror::Error)]
#[error("{caller} called what is for the matcher alone")]
struct NotForCaller {
    caller: Name,
}

impl Explain for NotForCaller {
    fn code(&self) -> &'static str {
        "not-for-caller"
    }
    fn status(&self) -> Status {
        Status::PermissionDenied
    }
    fn advice(&self) -> &'static str {
        "call with the certificate of the party that the call is for"
    }
}

/// The twin is ending.
#[derive(Debug, thiserror::Error)]
#[error("the twin is stopping")]
struct Stopping;

impl Explain for Stopping {
    fn code(&self) -> &'static str {
        "stopping"
    }
    fn status(&self) -> Status {
        Status::Unavailable
    }
    fn advice(&self) -> &'static str {
        "try again in a few seconds"
    }
}

/// A twin that listens already.
pub struct BoundTwin {
    config: TwinConfig,
    security: Security,
    incoming: tonic::transport::server::TcpIncoming,
    address: SocketAddr,
    key: PublicKey,
}

impl std::fmt::Debug for BoundTwin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BoundTwin({})", self.address)
    }
}

impl BoundTwin {
    /// Reads the public key and binds the socket. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn open(config: TwinConfig) -> Result<Self, RunError> {
        let security = match &config.transport {
            Transport::Plaintext => Security::Plaintext(Name::Twin),
            Transport::Tls(tls) => Security::Tls(Identity::load(&tls.certificate, &tls.key, &tls.ca)?),
        };
        if *security.name() != Name::Twin {
            return Err(RunError::NotTheTwin { found: security.name().clone() });
        }
        let key = public_key::read(&config.public_key)?;
        let incoming = listen(config.listen, security.trust())?;
        let address = incoming.local_addr().unwrap_or(config.listen);
        Ok(Self { config, security, incoming, address, key })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `end` comes; searches that wait for it are told by the matcher, which sees the stream end.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn serve(self, end: impl Future<Output = ()> + Send) -> Result<(), RunError> {
        let Self { config, security, incoming, address, key } = self;
        if let Some(address) = config.metrics {
            start_metrics(address)?;
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(config.limits.threads as usize)
            .thread_name(|i| format!("evaluate-{i}"))
            .build()
            .map_err(|_| RunError::Threads)?;
        let memory = usize::try_from(config.limits.memory.as_u64()).unwrap_or(usize::MAX);
        let (events, inbox) = mpsc::channel(EVENTS);
        let (shown, overview) = watch::channel(Overview::default());
        let core = Core {
            twin: Twin::new(key, memory),
            pool: Arc::new(pool),
            limit: config.limits.evaluations as usize,
            results: events.downgrade(),
            overview: shown,
        };
        let core = tokio::spawn(core.run(inbox));
        let mut tasks = JoinSet::new();
        for (party, endpoint) in Party::ALL.into_iter().zip(&config.holders) {
            let client = KeyHolderClient::new(channel(endpoint, &security, &Name::Holder(party))?);
            tasks.spawn(dial(party, client, events.clone()));
        }

        let (reporter, health) = tonic_health::server::health_reporter();
        tasks.spawn(watch_readiness(overview, reporter));
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|e| RunError::Serve(e.to_string()))?;
        let limit = usize::try_from(config.limits.max_message.as_u64()).unwrap_or(usize::MAX);
        let service = Service { events: events.clone(), trust: security.trust(), message_limit: limit };
        let service = TwinServer::new(service).max_decoding_message_size(2 * MAX_CHUNK);
        tracing::info!(%address, "the twin serves");
        let stop = CancellationToken::new();
        let router = server(&security)?.add_service(health).add_service(reflection).add_service(service);
        let mut serving = tokio::spawn(router.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned()));
        let failed = tokio::select! {
            () = end => None,
            ended = &mut serving => Some(match ended {
                Ok(Err(e)) => veilmatch_transport::cause(&e),
                Ok(Ok(())) => String::from("it stopped"),
                Err(e) => e.to_string(),
            }),
        };
        // It closes the matcher's stream.
        let _ = events.send(Event::End).await;
        let _ = core.await;
        stop.cancel();
        if failed.is_none() && timeout(LAST_STREAMS, &mut serving).await.is_err() {
            tracing::warn!("some connections were cut");
            serving.abort();
        }
        tasks.shutdown().await;
        tracing::info!("the twin has ended");
        failed.map_or(Ok(()), |cause| Err(RunError::Serve(cause)))
    }
}

/// Opens a twin and serves until `end` comes.
///
/// # Errors
/// [`RunError`].
pub async fn run_twin(config: TwinConfig, end: impl Future<Output = ()> + Send) -> Result<(), RunError> {
    BoundTwin::open(config)?.serve(end).await
}

/// Keeps a holder's stream of shares open until the twin ends. Nothing is sent to the holder.
async fn dial(party: Party, client: KeyHolderClient<veilmatch_transport::Connection>, events: mpsc::Sender<Event>) {
    let stream = move |_: Outgoing| {
        let mut client = client.clone();
        async move { client.probe_shares(ProbeSharesRequest {}).await }
    };
    let options = LinkOptions {
        queue: QueueLimits { messages: 1, bytes: 1 },
        message_limit: SHARE_BYTES,
        ..LinkOptions::default()
    };
    let (sender, mut news) = mpsc::channel(WAITING);
    let _link = Link::spawn(stream, options, sender);
    while let Some(event) = news.recv().await {
        let event = match event {
            LinkEvent::Up => Event::Holder { party, up: true },
            LinkEvent::Message(bytes) => Event::Share { party, bytes },
            LinkEvent::Down(reason) => {
                tracing::debug!(holder = %party, %reason, "no stream");
                Event::Holder { party, up: false }
            }
            _ => continue,
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// Ready when everybody is connected.
async fn watch_readiness(mut overview: watch::Receiver<Overview>, reporter: tonic_health::server::HealthReporter) {
    loop {
        let Overview { holders, matcher } = *overview.borrow_and_update();
        if holders == [true; 3] && matcher {
            reporter.set_serving::<TwinServer<Service>>().await;
        } else {
            reporter.set_not_serving::<TwinServer<Service>>().await;
        }
        if overview.changed().await.is_err() {
            reporter.set_not_serving::<TwinServer<Service>>().await;
            return;
        }
    }
}

struct Service {
    events: mpsc::Sender<Event>,
    trust: Trust,
    message_limit: usize,
}

#[tonic::async_trait]
impl Rpc for Service {
    type EvaluateStream = Replies;

    async fn evaluate(&self, request: Request<Streaming<Chunk>>) -> Result<Response<Replies>, tonic::Status> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let caller = peer_name(&request, self.trust).map_err(|e| status_of(&e, Vec::new()))?;
        if caller != Name::Matcher {
            let error = NotForCaller { caller };
            tracing::warn!(code = error.code(), "refused: {error}");
            return Err(status_of(&error, Vec::new()));
        }
        let (to, outgoing) = queue(QueueLimits { messages: 4096, bytes: self.message_limit.saturating_mul(2) });
        let (stream, stop) = (NEXT.fetch_add(1, Ordering::Relaxed), CancellationToken::new());
        let up = Event::MatcherUp { stream, to, guard: stop.clone().drop_guard() };
        self.events.send(up).await.map_err(|_| status_of(&Stopping, Vec::new()))?;
        let (events, mut incoming) = (self.events.clone(), Incoming::new(request.into_inner(), self.message_limit));
        tokio::spawn(async move {
            loop {
                let next = tokio::select! {
                    next = incoming.next() => next,
                    () = stop.cancelled() => break,
                };
                match next {
                    Ok(Some(bytes)) => {
                        if events.send(Event::Matcher { stream, bytes }).await.is_err() {
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
            let _ = events.send(Event::MatcherDown { stream }).await;
        });
        Ok(Response::new(outgoing.replies()))
    }
}
