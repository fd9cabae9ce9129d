//! The running service: everything is checked, then opened, then served until it is asked to end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rayon::ThreadPool;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use veilmatch_domain::{Explain, Party, Status};
use veilmatch_holder::HolderCard;
use veilmatch_transport::{
    Connection, Endpoint, EndpointError, Identity, IdentityError, Name, Security, TlsError, channel, listen, server,
};
use veilmatch_wire::v1::key_holder_server::KeyHolderServer;
use veilmatch_wire::{FILE_DESCRIPTOR_SET, MAX_CHUNK};

use crate::calls::{Calls, Shared};
use crate::card::{CardError, read_card};
use crate::config::{Config, Transport};
use crate::core::{self, Awake, Ended, Event, Overview, Setup};
use crate::dial::dial;
use crate::keyfile::{HolderKeys, KeyFileError, Unlock};
use crate::measures;
use crate::memory::{MemoryError, Origin, audit_folder};

/// How often sessions are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long streams may take to end when the holder has.
const LAST_STREAMS: Duration = Duration::from_secs(5);
/// The name of the service for readiness: both peers are connected and there are keys. Without a name, health says
/// whether the holder takes anything at all.
const READINESS: &str = "veilmatch.v1.KeyHolder";

/// Why the service does not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The holder's secrets.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The key file is another holder's.
    #[error("the key file is that of key holder {found}; this is key holder {expected}")]
    OtherParty {
        /// Of the configuration.
        expected: Party,
        /// Of the key file.
        found: Party,
    },
    /// A holder's card cannot be read.
    #[error("the card of key holder {party}: {source}")]
    Card {
        /// Whose.
        party: Party,
        /// Why.
        source: CardError,
    },
    /// A card is at the place of another holder's.
    #[error("the card of key holder {expected} is that of {found}")]
    CardOfOther {
        /// Where it is.
        expected: Party,
        /// Whose it is.
        found: Party,
    },
    /// This holder's card is not that of its keys.
    #[error("this key holder's card does not belong to its key file")]
    CardOfOtherKeys,
    /// Two holders have a key in common.
    #[error("the cards of key holders {first} and {second} have a key in common")]
    SharedKey {
        /// One.
        first: Party,
        /// The other.
        second: Party,
    },
    /// The certificate or its key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate is somebody else's.
    #[error("the certificate is that of {found}; this is key holder {expected}")]
    CertificateOfOther {
        /// Of the configuration.
        expected: Party,
        /// Of the certificate.
        found: Name,
    },
    /// The URL of a peer.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// TLS or the listening socket.
    #[error(transparent)]
    Transport(#[from] TlsError),
    /// Its memory cannot be read, or cannot be written any more and that does not go away by itself.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The server of metrics.
    #[error("metrics cannot be served on {listen}: {reason}")]
    Metrics {
        /// Where.
        listen: SocketAddr,
        /// Why.
        reason: String,
    },
    /// A thread cannot be started.
    #[error("cannot start the threads: {reason}")]
    Threads {
        /// What the operating system says.
        reason: String,
    },
    /// The network server failed.
    #[error("the server failed: {0}")]
    Server(#[source] tonic::transport::Error),
    /// The holder's task ended in a fault of the program.
    #[error("the key holder's task ended unexpectedly")]
    Broken,
}

impl Explain for ServeError {
    fn code(&self) -> &'static str {
        match self {
            Self::Keys(e) => e.code(),
            Self::OtherParty { .. } => "other-party",
            Self::Card { source, .. } => source.code(),
            Self::CardOfOther { .. } | Self::CardOfOtherKeys => "other-card",
            Self::SharedKey { .. } => "shared-key",
            Self::Identity(e) => e.code(),
            Self::CertificateOfOther { .. } => "other-certificate",
            Self::Endpoint(e) => e.code(),
            Self::Transport(e) => e.code(),
            Self::Memory(e) => e.code(),
            Self::Metrics { .. } => "metrics-server",
            Self::Threads { .. } => "no-threads",
            Self::Server(_) => "server-failed",
            Self::Broken => "holder-broken",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::Keys(e) => e.status(),
            Self::Card { source, .. } => source.status(),
            Self::Identity(e) => e.status(),
            Self::Endpoint(e) => e.status(),
            Self::Transport(e) => e.status(),
            Self::Memory(e) => e.status(),
            Self::OtherParty { .. }
            | Self::CardOfOther { .. }
            | Self::CardOfOtherKeys
            | Self::SharedKey { .. }
            | Self::CertificateOfOther { .. }
            | Self::Metrics { .. } => Status::FailedPrecondition,
            Self::Threads { .. } => Status::ResourceExhausted,
            Self::Server(_) | Self::Broken => Status::Unavailable,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::Keys(e) => e.advice(),
            Self::Card { source, .. } => source.advice(),
            Self::Identity(e) => e.advice(),
            Self::Endpoint(e) => e.advice(),
            Self::Transport(e) => e.advice(),
            Self::Memory(e) => e.advice(),
            Self::OtherParty { .. } => "correct `party` or `keys.file` in the configuration",
            Self::CardOfOther { .. } => "correct the paths in [cards]",
            Self::CardOfOtherKeys => "use the card that was written together with the key file",
            Self::SharedKey { .. } => {
                "fetch each card from its own holder: two holders with one key are one holder to an attacker"
            }
            Self::CertificateOfOther { .. } => "use the certificate that was issued for this key holder",
            Self::Metrics { .. } => "choose a free address for `metrics.listen`; one process has one set of metrics",
            Self::Threads { .. } => "raise the limit of threads of this user, or lower `threads`",
            Self::Server(_) | Self::Broken => "look at the log, start the key holder again and report this",
        }
    }
}

/// Runs a key holder until `shutdown` completes; then it begins nothing new, finishes what is open within
/// `deadlines.shutdown`, and closes its files.
///
/// # Errors
/// [`ServeError`] if it cannot start, or cannot go on.
pub async fn run(config: Config, unlock: Unlock, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
    Server::open(config, unlock).await?.serve(shutdown).await
}

/// A key holder that is ready to serve: its files are open, its socket is bound.
pub struct Server {
    security: Security,
    incoming: TcpIncoming,
    shared: Arc<Shared>,
    peers: Vec<(Party, Connection)>,
    ended: Ended,
    tasks: JoinSet<()>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({}, keys redacted)", self.shared.party)
    }
}

/// What is read and opened before anything is served; may wait for the disk and for Argon2id.
pub(crate) fn wake(config: &Config, unlock: &Unlock) -> Result<(Origin, Awake), ServeError> {
    let keys = HolderKeys::open(&config.key_file, unlock)?;
    if keys.party != config.party {
        return Err(ServeError::OtherParty { expected: config.party, found: keys.party });
    }
    let cards = read_cards(config, &keys.card())?;
    let (administrators, data) = (config.administrators.clone(), config.data.clone());
    let limits = veilmatch_holder::Limits { mask_cache_bytes: config.limits.mask_cache.as_u64() as usize };
    let origin = Origin { keys, cards, administrators, data, limits };
    let awake = origin.wake()?;
    Ok((origin, awake))
}

fn read_cards(config: &Config, own: &HolderCard) -> Result<[HolderCard; 3], ServeError> {
    let cards = read_card_files(config)?;
    if cards.contains(own) { Ok(cards) } else { Err(ServeError::CardOfOtherKeys) }
}

/// The cards of K0, K1 and K2, no two of which share a key.
pub(crate) fn read_card_files(config: &Config) -> Result<[HolderCard; 3], ServeError> {
    let [k0, k1, k2] = &config.cards;
    let read = |expected, path| {
        let card = read_card(path).map_err(|source| ServeError::Card { party: expected, source })?;
        if card.party == expected { Ok(card) } else { Err(ServeError::CardOfOther { expected, found: card.party }) }
    };
    let cards = [read(Party::K0, k0)?, read(Party::K1, k1)?, read(Party::K2, k2)?];
    let [a, b, c] = &cards;
    for (first, second) in [(a, b), (a, c), (b, c)] {
        if first.identity == second.identity || first.encryption == second.encryption {
            return Err(ServeError::SharedKey { first: first.party, second: second.party });
        }
    }
    Ok(cards)
}

pub(crate) fn security(config: &Config) -> Result<Security, ServeError> {
    let own = Name::Holder(config.party);
    match &config.transport {
        Transport::Plaintext => Ok(Security::Plaintext(own)),
        Transport::Tls(tls) => {
            let identity = Identity::load(&tls.certificate, &tls.key, &tls.ca)?;
            match *identity.name() == own {
                true => Ok(Security::Tls(identity)),
                false => Err(ServeError::CertificateOfOther { expected: config.party, found: identity.name().clone() }),
            }
        }
    }
}

fn pool(name: &'static str, threads: usize) -> Result<ThreadPool, ServeError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(move |i| format!("{name}-{i}"))
        // The session that waits for it runs into its deadline; the others go on.
        .panic_handler(|_| tracing::error!("a computation ended unexpectedly"))
        .build()
        .map_err(|e| ServeError::Threads { reason: e.to_string() })
}

impl Server {
    /// Checks and opens everything. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ServeError`]; nothing is served then.
    pub async fn open(config: Config, unlock: Unlock) -> Result<Self, ServeError> {
        let security = security(&config)?;
        let mut peers = Vec::new();
        for (party, url) in &config.peers {
            let endpoint = Endpoint::parse(url, config.transport == Transport::Plaintext)?;
            // Of each pair, the holder with the lower index dials.
            if config.party.index() < party.index() {
                peers.push((*party, channel(&endpoint, &security, &Name::Holder(*party))?));
            }
        }
        let (query_pool, bulk_pool) = (pool("query", config.threads.query)?, pool("bulk", config.threads.bulk)?);
        let incoming = listen(config.listen, security.trust())?;

        let mut tasks = JoinSet::new();
        if let Some(listen) = config.metrics {
            let exporter =
                measures::exporter(listen).map_err(|e| ServeError::Metrics { listen, reason: e.to_string() })?;
            tasks.spawn(async move {
                if exporter.await.is_err() {
                    tracing::error!("the server of metrics ended");
                }
            });
        }
        let reading = tokio::task::spawn_blocking(move || wake(&config, &unlock).map(|awake| (config, awake)));
        let (config, (origin, awake)) = reading.await.map_err(|_| ServeError::Broken)??;
        if config.administrators.is_empty() {
            tracing::warn!("no administrators are configured: clients, policies and epochs cannot be changed");
        }

        let (events, receiver) = mpsc::channel(config.limits.queue as usize);
        let (shown, overview) = watch::channel(Overview::starting());
        let shared = Arc::new(Shared {
            party: config.party,
            trust: security.trust(),
            // Writing to memory does not fail.
            card: borsh::to_vec(&origin.keys.card()).unwrap_or_default(),
            audit: audit_folder(&config.data),
            limits: config.limits,
            events: events.clone(),
            overview,
            audit_readers: Shared::new_audit_readers(),
        });
        let (deadlines, limits, results) = (config.deadlines, config.limits, events.downgrade());
        let setup = Setup { origin, deadlines, limits, query_pool, bulk_pool, results, overview: shown };
        let mut first = shared.overview.clone();
        let ended = core::start(setup, awake, receiver);
        // Until the task has shown where it stands, calls would be refused because the holder is starting. If it ends at once,
        // `serve` says why.
        let _ = first.changed().await;
        Ok(Self { security, incoming, shared, peers, ended, tasks })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.incoming.local_addr().ok()
    }

    /// Serves until `shutdown` completes, and ends in order.
    ///
    /// # Errors
    /// [`ServeError::Memory`], [`ServeError::Server`], [`ServeError::Broken`].
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
        let Self { security, incoming, shared, peers, mut ended, mut tasks } = self;
        let (health_reporter, health) = tonic_health::server::health_reporter();
        tasks.spawn(report_health(health_reporter, shared.overview.clone()));
        tasks.spawn(tick(shared.events.clone()));
        for (party, connection) in peers {
            tasks.spawn(dial(party, connection, Arc::clone(&shared)));
        }
        let calls = KeyHolderServer::new(Calls(Arc::clone(&shared))).max_decoding_message_size(2 * MAX_CHUNK);
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|_| ServeError::Broken)?;
        let stop = CancellationToken::new();
        let router = server(&security)?.add_service(health).add_service(reflection).add_service(calls);
        let stopped = stop.clone().cancelled_owned();
        let mut serving = tokio::spawn(router.serve_with_incoming_shutdown(incoming, stopped));
        tracing::info!(party = %shared.party, version = env!("CARGO_PKG_VERSION"), "serving");

        let result = tokio::select! {
            () = shutdown => {
                // If the task has ended already, that is what the next line hears.
                let _ = shared.events.send(Event::Shutdown).await;
                ended_result((&mut ended).await)
            }
            end = &mut ended => ended_result(end).and(Err(ServeError::Broken)),
            end = &mut serving => match end {
                Ok(Err(error)) => Err(ServeError::Server(error)),
                Ok(Ok(())) | Err(_) => Err(ServeError::Broken),
            },
        };
        stop.cancel();
        if !serving.is_finished() && timeout(LAST_STREAMS, &mut serving).await.is_err() {
            tracing::warn!("some connections were cut");
            serving.abort();
        }
        tasks.shutdown().await;
        tracing::info!("ended");
        result
    }
}

fn ended_result<E>(end: Result<Result<(), MemoryError>, E>) -> Result<(), ServeError> {
    match end {
        Ok(result) => Ok(result?),
        Err(_) => Err(ServeError::Broken),
    }
}

async fn tick(events: mpsc::Sender<Event>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if events.send(Event::Tick).await.is_err() {
            return;
        }
    }
}

async fn report_health(reporter: HealthReporter, mut overview: watch::Receiver<Overview>) {
    let serving = |yes| if yes { ServingStatus::Serving } else { ServingStatus::NotServing };
    let mut shown = None;
    loop {
        let (runs, ready) = {
            let now = overview.borrow_and_update();
            (now.stopped.is_none(), now.ready())
        };
        // Whoever watches hears of changes alone.
        if shown.replace((runs, ready)) != Some((runs, ready)) {
            reporter.set_service_status("", serving(runs)).await;
            reporter.set_service_status(READINESS, serving(ready)).await;
        }
        if overview.changed().await.is_err() {
            reporter.set_service_status("", ServingStatus::NotServing).await;
            return;
        }
    }
}
