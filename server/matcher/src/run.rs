//! The matcher as a process: opens its store, dials the holders, serves, ends in order.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use veilmatch_domain::{Explain, Party, Status};
use veilmatch_gallery::{DiskStorage, Storage as _, StorageError};
use veilmatch_glwe::GLWE_2048_V1;
use veilmatch_matching::{HotDimensions, Lane, Limits, Matcher};
use veilmatch_service::{MetricsError, Transport, start_metrics};
use veilmatch_transport::{
    Endpoint, Identity, IdentityError, Link, LinkEvent, LinkOptions, Name, Outgoing, QueueLimits, Security, TlsError,
    channel, listen, server,
};
use veilmatch_wire::v1::key_holder_client::KeyHolderClient;
use veilmatch_wire::v1::matcher_server::MatcherServer;
use veilmatch_wire::v1::twin_client::TwinClient;
use veilmatch_wire::{FILE_DESCRIPTOR_SET, MAX_MESSAGE_BYTES};

use crate::config::{Config, Index};
use crate::core::{Core, EVENTS, Event, Handle, Links};
use crate::public_key::{self, PublicKeyError};
use crate::register::{Register, RegisterError};
use crate::service::Service;

const TICK: Duration = Duration::from_millis(50);

/// Why the matcher, or its twin, does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The store.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The register of clients.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// Its certificate and key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS or the listening socket.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The public key of the scheme `paillier`.
    #[error(transparent)]
    PublicKey(#[from] PublicKeyError),
    /// The certificate is somebody else's.
    #[error("the certificate is for {found}, not for the matcher")]
    NotTheMatcher {
        /// Whom it names.
        found: Name,
    },
    /// The certificate is somebody else's.
    #[error("the certificate is for {found}, not for the matcher's twin")]
    NotTheTwin {
        /// Whom it names.
        found: Name,
    },
    /// The operating system gives no threads.
    #[error("threads cannot be started")]
    Threads,
    /// The server ended by itself.
    #[error("the network service ended: {0}")]
    Serve(String),
}

impl Explain for RunError {
    fn code(&self) -> &'static str {
        match self {
            Self::Storage(e) => e.code(),
            Self::Register(e) => e.code(),
            Self::Identity(e) => e.code(),
            Self::Tls(e) => e.code(),
            Self::Metrics(e) => e.code(),
            Self::PublicKey(e) => e.code(),
            Self::NotTheMatcher { .. } => "not-the-matcher",
            Self::NotTheTwin { .. } => "not-the-twin",
            Self::Threads => "threads",
            Self::Serve(_) => "serve",
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::Storage(e) => e.status(),
            Self::Register(e) => e.status(),
            Self::Identity(e) => e.status(),
            Self::Tls(e) => e.status(),
            Self::Metrics(e) => e.status(),
            Self::PublicKey(e) => e.status(),
            Self::NotTheMatcher { .. } | Self::NotTheTwin { .. } => Status::FailedPrecondition,
            Self::Threads => Status::ResourceExhausted,
            Self::Serve(_) => Status::Unavailable,
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Storage(e) => e.advice(),
            Self::Register(e) => e.advice(),
            Self::Identity(e) => e.advice(),
            Self::Tls(e) => e.advice(),
            Self::Metrics(e) => e.advice(),
            Self::PublicKey(e) => e.advice(),
            Self::NotTheMatcher { .. } => "issue a certificate for the name matcher.veilmatch",
            Self::NotTheTwin { .. } => {
                "issue a certificate for the name twin.veilmatch: veilmatch pki issue --for twin"
            }
            Self::Threads => "raise the limit of threads, or lower those of [limits]",
            Self::Serve(_) => "look at the log; start it again",
        }
    }
}

/// A matcher that listens already: its store is loaded, its address known.
pub struct Bound {
    config: Config,
    security: Security,
    incoming: tonic::transport::server::TcpIncoming,
    address: SocketAddr,
    storage: Arc<DiskStorage>,
    register: Register,
    matcher: Matcher,
}

impl Bound {
    /// Opens the store, reads what it holds and binds the socket. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn open(config: Config) -> Result<Self, RunError> {
        let security = match &config.transport {
            Transport::Plaintext => Security::Plaintext(Name::Matcher),
            Transport::Tls(tls) => Security::Tls(Identity::load(&tls.certificate, &tls.key, &tls.ca)?),
        };
        if *security.name() != Name::Matcher {
            return Err(RunError::NotTheMatcher { found: security.name().clone() });
        }
        let begun = Instant::now();
        let storage = Arc::new(DiskStorage::open_within(&config.data, index_memory(config.limits.index_memory))?);
        let image = storage.load()?;
        let strict = matches!(config.transport, Transport::Tls(_));
        let register = Register::open(&config.data, config.administrators.clone(), strict)?;
        let limits = Limits {
            search_ms: millis(config.deadlines.search),
            write_ms: millis(config.deadlines.change),
            write_ms_per_template: millis(config.deadlines.change_per_template),
            searches: config.limits.searches as usize,
            waiting: config.limits.changes as usize,
            maintenance: true,
        };
        let (collections, intents) = (image.collections.len(), image.intents.len());
        let templates: usize = image.collections.values().map(|c| c.index.len()).sum();
        for (name, stored) in &image.collections {
            for group in &stored.damaged {
                tracing::warn!(collection = %name, group = group.0, "the file of a group is damaged; it is built again");
            }
        }
        let mut matcher = Matcher::new(GLWE_2048_V1, limits, image);
        let Index { hot_dimensions, collections: by_collection } = config.index.clone();
        matcher.set_hot_dimensions(HotDimensions { default: hot_dimensions, collections: by_collection });
        if let Some(paillier) = &config.paillier {
            let memory = usize::try_from(paillier.memory.as_u64()).unwrap_or(usize::MAX);
            matcher.set_public_key(public_key::read(&paillier.public_key)?, memory);
        }
        let took = begun.elapsed().as_millis() as u64;
        tracing::info!(collections, templates, intents, milliseconds = took, "store loaded");
        let incoming = listen(config.listen, security.trust())?;
        let address = incoming.local_addr().unwrap_or(config.listen);
        Ok(Self { config, security, incoming, address, storage, register, matcher })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `end` comes, then finishes what was acknowledged.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn serve(self, end: impl Future<Output = ()> + Send + 'static) -> Result<(), RunError> {
        let Self { config, security, incoming, address, storage, register, mut matcher } = self;
        if let Some(address) = config.metrics {
            start_metrics(address)?;
        }
        for party in Party::ALL {
            drop(matcher.set_connected(party, false));
        }
        drop(matcher.twin_lost());
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(config.limits.scan_threads as usize)
            .thread_name(|i| format!("scan-{i}"))
            .build()
            .map_err(|_| RunError::Threads)?;
        let (events, inbox) = mpsc::channel(EVENTS);
        let handle = Handle::new(events.clone());
        let links = dial(&config, &security, &events)?;
        let core = Core {
            matcher,
            links,
            storage: Arc::clone(&storage) as _,
            pool: Arc::new(pool),
            events: events.clone(),
            inbox,
        };
        let core = tokio::spawn(core.run());
        let ticker = tick(events);

        let (reporter, health) = tonic_health::server::health_reporter();
        let watcher = watch(handle.clone(), reporter);
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|e| RunError::Serve(e.to_string()))?;
        let service = Service {
            core: handle.clone(),
            register: Arc::new(Mutex::new(register)),
            trust: security.trust(),
            parameters: GLWE_2048_V1.name,
        };
        let service = MatcherServer::new(service)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        tracing::info!(%address, "the matcher serves");
        let patience = config.deadlines.shutdown;
        let finishing = handle.clone();
        let served = server(&security)?
            .add_service(health)
            .add_service(reflection)
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, async move {
                end.await;
                // Requests that were accepted are answered; the server then has nothing left to wait for.
                finishing.finish(Instant::now() + patience).await;
            })
            .await;
        handle.finish(Instant::now()).await;
        watcher.abort();
        ticker.abort();
        let _ = core.await;
        tracing::info!("the matcher has ended");
        served.map_err(|e| RunError::Serve(veilmatch_transport::cause(&e)))
    }
}

/// Opens a matcher and serves until `end` comes.
///
/// # Errors
/// [`RunError`].
pub async fn run(config: Config, end: impl Future<Output = ()> + Send + 'static) -> Result<(), RunError> {
    Bound::open(config)?.serve(end).await
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Opens the streams to the holders; they come back by themselves whenever they break.
fn dial(config: &Config, security: &Security, events: &mpsc::Sender<Event>) -> Result<Links, RunError> {
    let limit = config.limits.max_message.as_u64() as usize;
    let options = LinkOptions {
        queue: QueueLimits { messages: 4096, bytes: 2 * limit },
        message_limit: limit,
        ..LinkOptions::default()
    };
    let open = |party: Party, lane: Lane| -> Result<Link, RunError> {
        let [k0, k1, k2] = &config.holders;
        let endpoint = match party {
            Party::K0 => k0,
            Party::K1 => k1,
            Party::K2 => k2,
        };
        let client = KeyHolderClient::new(channel(endpoint, security, &Name::Holder(party))?);
        let (sender, mut news) = mpsc::channel(64);
        let stream = move |outgoing: Outgoing| {
            let mut client = client.clone();
            async move {
                match lane {
                    Lane::Recrypt => client.recrypt(outgoing).await,
                    Lane::Decide => client.decide(outgoing).await,
                }
            }
        };
        let link = Link::spawn(stream, options, sender);
        let events = events.clone();
        tokio::spawn(async move {
            while let Some(event) = news.recv().await {
                let event = match event {
                    LinkEvent::Up => Event::Lane { party, lane, up: true },
                    LinkEvent::Message(bytes) => Event::Message { party, bytes },
                    LinkEvent::Down(reason) => {
                        tracing::debug!(holder = %party, ?lane, %reason, "no stream");
                        Event::Lane { party, lane, up: false }
                    }
                    _ => continue,
                };
                if events.send(event).await.is_err() {
                    return;
                }
            }
        });
        Ok(link)
    };
    let lanes = |lane: Lane| -> Result<[Link; 3], RunError> {
        Ok([open(Party::K0, lane)?, open(Party::K1, lane)?, open(Party::K2, lane)?])
    };
    let twin = match &config.paillier {
        Some(paillier) => Some(dial_twin(&paillier.twin, options, security, events)?),
        None => None,
    };
    Ok(Links { recrypt: lanes(Lane::Recrypt)?, decide: lanes(Lane::Decide)?, twin })
}

/// Opens the stream to the twin; it comes back by itself as well.
fn dial_twin(
    endpoint: &Endpoint,
    options: LinkOptions,
    security: &Security,
    events: &mpsc::Sender<Event>,
) -> Result<Link, RunError> {
    let client = TwinClient::new(channel(endpoint, security, &Name::Twin)?);
    let (sender, mut news) = mpsc::channel(64);
    let stream = move |outgoing: Outgoing| {
        let mut client = client.clone();
        async move { client.evaluate(outgoing).await }
    };
    let link = Link::spawn(stream, options, sender);
    let events = events.clone();
    tokio::spawn(async move {
        while let Some(event) = news.recv().await {
            let event = match event {
                LinkEvent::Up => Event::TwinLink { up: true },
                LinkEvent::Message(bytes) => Event::TwinMessage { bytes },
                LinkEvent::Down(reason) => {
                    tracing::debug!(%reason, "no stream to the twin");
                    Event::TwinLink { up: false }
                }
                _ => continue,
            };
            if events.send(event).await.is_err() {
                return;
            }
        }
    });
    Ok(link)
}

fn tick(events: mpsc::Sender<Event>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            if events.send(Event::Tick).await.is_err() {
                return;
            }
        }
    })
}

/// Keeps the health service up to date: the matcher is ready when all holders are connected and agree on an epoch.
fn watch(core: Handle, reporter: tonic_health::server::HealthReporter) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let ready = core.look(|matcher| matcher.epoch().is_some() && matcher.connected() == [true; 3]).await;
            match ready {
                Ok(true) => reporter.set_serving::<MatcherServer<Service>>().await,
                Ok(false) | Err(_) => reporter.set_not_serving::<MatcherServer<Service>>().await,
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
}

/// Bytes of memory for the index: what is configured, or three quarters of what the system says is available; where it
/// does not say, none, and the index is read through maps.
fn index_memory(configured: Option<bytesize::ByteSize>) -> u64 {
    configured.map_or_else(|| available_memory().map_or(0, |bytes| bytes / 4 * 3), |bytes| bytes.as_u64())
}

fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
