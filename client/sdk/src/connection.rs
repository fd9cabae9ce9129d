//! The connection to a matcher and what it says about itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use veilmatch_domain::{ClientId, CollectionId, Epoch, Party, TemplateVersion, Timestamp};
use veilmatch_sealed::{ClientSigningKey, HolderPublicKey, readers};
use veilmatch_secret::os_entropy;
use veilmatch_transport::{Connection, Endpoint, Name, Security, channel};
use veilmatch_wire::v1::matcher_client::MatcherClient;
use veilmatch_wire::{CollectionInfo, MAX_MESSAGE_BYTES, WireError, v1};

use crate::attempts::Attempts;
use crate::{Client, Collection, Error, Page};

/// Most pages of a listing that is read to its end.
const MAX_PAGES: usize = 10_000;

/// What a connection needs. Write `Options { retries: 0, ..Options::new(…) }` to change a default.
#[derive(Debug)]
pub struct Options {
    /// The matcher.
    pub matcher: Endpoint,
    /// How this process proves its name and knows the matcher's.
    pub security: Security,
    /// The keys of K0, K1 and K2 that templates and probes are sealed for: see
    /// [`HolderCard::load_three`](crate::HolderCard::load_three). Compare their fingerprints with the holders' people.
    pub holders: [HolderPublicKey; 3],
    /// The id that this client's signing key is registered under.
    pub client: ClientId,
    /// Signs templates, probes and erasures.
    pub signing_key: ClientSigningKey,
    /// The embedding model's version, part of what is signed. Default 1.
    pub template_version: TemplateVersion,
    /// Most repetitions of a call where repeating is safe. Default 3.
    pub retries: u32,
    /// Time for a query or for reading, repetitions included. Default 10 s.
    pub deadline: Duration,
    /// Time for an enrolment or an erasure, repetitions included; of a bulk enrolment, the longest time without any
    /// result. Default 60 s.
    pub enroll_deadline: Duration,
    /// Most templates of a bulk enrolment that are on their way, 1 to 4,096. Default 1,024: two
    /// batches, so that one is sealed while the holders check the other; 7 MB at 512 dimensions.
    pub window: usize,
}

impl Options {
    /// The defaults.
    #[must_use]
    pub fn new(
        matcher: Endpoint,
        security: Security,
        holders: [HolderPublicKey; 3],
        client: ClientId,
        signing_key: ClientSigningKey,
    ) -> Self {
        Self {
            matcher,
            security,
            holders,
            client,
            signing_key,
            template_version: TemplateVersion(1),
            retries: 3,
            deadline: Duration::from_secs(10),
            enroll_deadline: Duration::from_secs(60),
            window: 1024,
        }
    }
}

/// A connection to a matcher. Cheap to clone; all clones share one connection, which is made again after a break.
#[derive(Clone)]
pub struct Veilmatch {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    client: ClientId,
    version: TemplateVersion,
    signer: Arc<ClientSigningKey>,
    holders: Arc<[HolderPublicKey; 3]>,
    matcher: MatcherClient<Connection>,
    pub(crate) retries: u32,
    deadline: Duration,
    pub(crate) enroll_deadline: Duration,
    pub(crate) window: usize,
    pub(crate) clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
}

impl fmt::Debug for Veilmatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Veilmatch({}, keys redacted)", self.shared.client)
    }
}

/// What the matcher says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Version of the matcher, for example `0.1.0`.
    pub version: String,
    /// Parameter set of the scheme, for example `glwe-2048-v1`.
    pub parameters: String,
    /// The key epoch that new groups are built under; `None` before the key ceremony.
    pub key_epoch: Option<Epoch>,
    /// The key holders that the matcher is connected to.
    pub connected: Vec<Party>,
    /// Number of collections.
    pub collections: u64,
    /// Most sealed templates in one batch.
    pub max_batch: u32,
    /// Largest message in bytes.
    pub max_message_bytes: u64,
}

impl TryFrom<v1::ServerInfo> for ServerInfo {
    type Error = WireError;
    fn try_from(info: v1::ServerInfo) -> Result<Self, WireError> {
        let limits = info.limits.ok_or(WireError::Missing { field: "limits" })?;
        let connected = info.holders.iter().filter(|holder| holder.connected);
        Ok(Self {
            connected: connected.map(|holder| holder.holder().try_into()).collect::<Result<_, _>>()?,
            version: info.version,
            parameters: info.parameters,
            key_epoch: info.key_epoch.map(Epoch),
            collections: info.collections,
            max_batch: limits.max_batch,
            max_message_bytes: limits.max_message_bytes,
        })
    }
}

impl Veilmatch {
    /// Connects and asks the matcher for its [`ServerInfo`], so that a wrong address or certificate shows here.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn connect(options: Options) -> Result<Self, Error> {
        let veilmatch = Self::prepare(options)?;
        veilmatch.server_info().await?;
        Ok(veilmatch)
    }

    /// The same without asking: the connection is made at the first call.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Sealed`] if two holders have one key, [`Error::Tls`].
    pub fn prepare(options: Options) -> Result<Self, Error> {
        Ok(Self { shared: Arc::new(Shared::new(options)?) })
    }

    /// A collection, by name; whether it exists shows at its first use.
    ///
    /// # Errors
    /// [`Error::Identifier`].
    pub fn collection(&self, name: &str) -> Result<Collection, Error> {
        Ok(Collection {
            shared: Arc::clone(&self.shared),
            name: Arc::new(CollectionId::new(name)?),
            supersedes: false,
            model: None,
        })
    }

    /// Version, parameters, key epoch, connected holders, limits.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn server_info(&self) -> Result<ServerInfo, Error> {
        let info = self
            .shared
            .read(v1::ServerInfoRequest {}, |mut matcher, request| async move { matcher.server_info(request).await })
            .await?;
        info.try_into().map_err(Error::Answer)
    }

    /// All collections by name.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn collections(&self) -> Result<Vec<CollectionInfo>, Error> {
        let mut all = Vec::new();
        let mut token = String::new();
        for _ in 0..MAX_PAGES {
            let request = v1::ListCollectionsRequest { page_size: 1000, page_token: token };
            let page = self
                .shared
                .read(request, |mut matcher, request| async move { matcher.list_collections(request).await })
                .await?;
            let page = Page::read(page.collections, page.next_page_token)?;
            all.extend(page.items);
            match page.next {
                Some(next) => token = next,
                None => return Ok(all),
            }
        }
        Err(Error::Mismatch { what: "a list without an end" })
    }
}

impl Shared {
    pub(crate) fn new(options: Options) -> Result<Self, Error> {
        readers(&options.holders)?;
        let connection = channel(&options.matcher, &options.security, &Name::Matcher)?;
        let matcher = MatcherClient::new(connection)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self {
            client: options.client,
            version: options.template_version,
            signer: Arc::new(options.signing_key),
            holders: Arc::new(options.holders),
            matcher,
            retries: options.retries,
            deadline: options.deadline,
            enroll_deadline: options.enroll_deadline,
            window: options.window.clamp(1, 4096),
            clock: Box::new(crate::now),
        })
    }

    pub(crate) fn matcher(&self) -> MatcherClient<Connection> {
        self.matcher.clone()
    }

    /// One that seals and signs, with entropy of its own.
    pub(crate) fn client(&self) -> Client {
        Client {
            id: self.client.clone(),
            version: self.version,
            signer: Arc::clone(&self.signer),
            holders: Arc::clone(&self.holders),
            entropy: os_entropy(),
        }
    }

    /// A query's attempts.
    pub(crate) fn query_attempts(&self) -> Attempts {
        Attempts::new(self.retries, self.deadline)
    }

    /// An enrolment's or erasure's attempts.
    pub(crate) fn enroll_attempts(&self) -> Attempts {
        Attempts::new(self.retries, self.enroll_deadline)
    }

    /// A call that changes nothing.
    pub(crate) async fn read<M, T, F>(
        &self,
        message: M,
        call: impl Fn(MatcherClient<Connection>, tonic::Request<M>) -> F,
    ) -> Result<T, Error>
    where
        M: Clone,
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        self.repeat(self.query_attempts(), message, call).await
    }

    /// The same message again while the failure is one that passes.
    pub(crate) async fn repeat<M, T, F>(
        &self,
        mut attempts: Attempts,
        message: M,
        call: impl Fn(MatcherClient<Connection>, tonic::Request<M>) -> F,
    ) -> Result<T, Error>
    where
        M: Clone,
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        loop {
            let request = attempts.request(message.clone());
            match attempts.answer(call(self.matcher(), request)).await {
                Err(error) if error.passes() => attempts.again(error).await?,
                other => return other,
            }
        }
    }
}
