//! The client: seals and signs on the capture device, asks, and reads the holders' sealed replies.
//!
//! # Over the network
//!
//! [`Veilmatch`] is a connection to a matcher, [`Collection`] one of its galleries. Both are handles: cheap to clone,
//! shared between tasks. Embeddings are sealed here; what leaves is ciphertexts and signatures.
//!
//! ```no_run
//! use std::path::Path;
//! use veilmatch_domain::{ClientId, Embedding, SubjectId, Threshold};
//! use veilmatch_sdk::{Ask, HolderCard, Options, SigningKeyFile, Veilmatch};
//! use veilmatch_transport::{Endpoint, Identity, Security};
//!
//! # async fn example(face: Vec<f32>, people: Vec<(SubjectId, Embedding)>) -> Result<(), Box<dyn std::error::Error>> {
//! let folder = Path::new("/etc/veilmatch");
//! let identity = Identity::load(&folder.join("gate-7.crt"), &folder.join("gate-7.pem"), &folder.join("ca.crt"))?;
//! let holders = HolderCard::load_three(["k0.card", "k1.card", "k2.card"].map(|name| folder.join(name)))?;
//! let key = SigningKeyFile::load(&folder.join("gate-7.key"))?;
//! let options = Options {
//!     retries: 2,
//!     ..Options::new(
//!         Endpoint::parse("https://matcher.example.org:7400", false)?,
//!         Security::Tls(identity),
//!         holders,
//!         ClientId::new("gate-7")?,
//!         key.into_key(),
//!     )
//! };
//! let veilmatch = Veilmatch::connect(options).await?;
//! let staff = veilmatch.collection("staff")?;
//!
//! let face = Embedding::normalised(face)?;
//! let threshold = Threshold::new(0.427)?;
//! staff.enroll("alice", &face).await?;
//! let enrolment = staff.enroll_many(people, |progress| eprintln!("{} done", progress.done)).await?;
//! for (subject, refusal) in enrolment.refused() {
//!     eprintln!("{subject}: {}", refusal.message);
//! }
//! let same = staff.verify("alice", &face, threshold).await?;
//! let who = staff.identify(&face, Ask::Matches { max: 5 }, threshold).await?;
//! let erased = staff.erase("alice").await?;
//! # let _ = (same, who, erased.complete); Ok(()) }
//! ```
//!
//! What is repeated after a failure, and what is not:
//!
//! | call | repeated | because |
//! |---|---|---|
//! | reading | after refusals that pass, and broken connections | nothing changes |
//! | [`enroll`](Collection::enroll), [`enroll_many`](Collection::enroll_many) | the same, with the same bytes | a template that is stored is accepted again, by its digest |
//! | [`erase`](Collection::erase) | the same, with the same bytes | so is a signed erasure |
//! | [`verify`](Collection::verify), [`identify`](Collection::identify) | with a fresh probe, if nothing was sent or the refusal says that nothing was opened | a decision counts against budgets and lock-out |
//!
//! A sealed template is accepted as new for [`LIFETIME_SECONDS`]; one that got old without an answer is sealed again only
//! after the matcher said that it does not have it.
//!
//! # Without a network
//!
//! A [`Client`] holds its own signing key and the holders' public keys. It sees its own embeddings and the decisions
//! it asked for, nothing else. It does no IO: requests and answers are bytes, and the caller has the clock.
//!
//! ```
//! use veilmatch_domain::*;
//! use veilmatch_sdk::Client;
//! use veilmatch_secret::os_entropy;
//! # fn holders() -> [veilmatch_sealed::HolderPublicKey; 3] { std::process::exit(1) }
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let collection = CollectionId::new("staff")?;
//! let mut client = Client::new(ClientId::new("gate-7")?, TemplateVersion(1), holders(), os_entropy());
//! let embedding = Embedding::normalised(vec![1.0; 512])?;
//! let now = Timestamp(1_800_000_000);
//! let template = client.seal_template(&collection, SubjectId::new("alice")?, &embedding, now)?;
//! let request = client.enroll(&collection, vec![template], false);
//! # let _ = request;
//! let query = Query::new(Decision::Exists, Threshold::new(0.427)?);
//! let (request, pending) = client.ask(&collection, &embedding, query, now)?;
//! // send `request` to the matcher, and with its answer:
//! # let answer = request;
//! let outcome = pending.read(&answer)?;
//! # let _ = outcome; Ok(()) }
//! ```

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")
)]

mod attempts;
mod bulk;
mod clock;
mod collection;
mod connection;
mod error;
mod holder_card;
mod sealed_item;
mod signing_key_file;

#[cfg(test)]
mod tests;

pub use bulk::{Enrolled, Enrolment, Interrupted, Progress};
pub use clock::now;
pub use collection::{Ask, Collection, Erased, Page};
pub use connection::{Options, ServerInfo, Veilmatch};
pub use error::Error;
pub use holder_card::{CardError, HolderCard};
pub use signing_key_file::{KeyFileError, SigningKeyFile, public_key_from_text, public_key_text};
pub use veilmatch_wire::{CollectionInfo, TemplateInfo, TemplateState};

use std::sync::Arc;

use veilmatch_domain::{
    ClientId, CollectionId, Embedding, Explain, ModelDigest, Outcome, Party, Purpose, Query, Status, SubjectId,
    Suspect, TemplateDigest, TemplateVersion, Timestamp,
};
use veilmatch_glwe::{ClientAnswer, ClientRequest, Refusal, Verdict};
use veilmatch_sealed::{
    Associated, ClientSigningKey, ClientVerifyingKey, HolderPublicKey, ReplyError, ReplyKeys, SealedError,
    SealedTemplate, SignedErasure, combine_replies, open_reply, seal,
};
use veilmatch_secret::Entropy;

/// How long a sealed template or signed request is accepted as new, in seconds.
pub const LIFETIME_SECONDS: u64 = 300;
/// How long an erasure stays acceptable, in seconds: a key holder that is down now must still accept it when it is back.
pub const ERASURE_SECONDS: u64 = 30 * 86_400;

/// Why a client has no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Sealing or encoding failed.
    #[error(transparent)]
    Sealed(#[from] SealedError),
    /// The matcher or a holder refused.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The holders' replies cannot be read or contradict each other.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// The matcher's answer is not one, or answers something else.
    #[error("the matcher's answer cannot be read")]
    Malformed,
}

impl ClientError {
    /// Whom the error points at.
    #[must_use]
    pub fn suspects(&self) -> Vec<Suspect> {
        match self {
            Self::Sealed(_) => vec![Suspect::Client],
            Self::Refused(refusal) => refusal.suspects.clone(),
            Self::Reply(e) => e.suspect().into_iter().collect(),
            Self::Malformed => vec![Suspect::Matcher],
        }
    }

    /// The refusal's code, or this error's own.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Refused(refusal) => &refusal.code,
            other => other.code(),
        }
    }
}

impl Explain for ClientError {
    fn code(&self) -> &'static str {
        match self {
            Self::Sealed(e) => e.code(),
            Self::Refused(_) => "refused",
            Self::Reply(e) => e.code(),
            Self::Malformed => "malformed-message",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::Sealed(e) => e.status(),
            Self::Refused(refusal) => refusal.status(),
            Self::Reply(e) => e.status(),
            Self::Malformed => Status::DataLoss,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::Sealed(e) => e.advice(),
            Self::Refused(_) => "see the message of the party that refused",
            Self::Reply(e) => e.advice(),
            Self::Malformed => "use a client and a matcher of the same version",
        }
    }
}

/// A capture device or relying party.
pub struct Client {
    id: ClientId,
    version: TemplateVersion,
    signer: Arc<ClientSigningKey>,
    holders: Arc<[HolderPublicKey; 3]>,
    entropy: Box<dyn Entropy>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({}, keys redacted)", self.id)
    }
}

/// A query that was sent: what it takes to read the replies.
pub struct PendingQuery {
    query: Query,
    digest: TemplateDigest,
    keys: ReplyKeys,
}

impl std::fmt::Debug for PendingQuery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PendingQuery({}, keys redacted)", self.digest)
    }
}

impl Client {
    /// Draws a signing key. Its verifying key must be registered with all three holders.
    #[must_use]
    pub fn new(
        id: ClientId,
        version: TemplateVersion,
        holders: [HolderPublicKey; 3],
        mut entropy: Box<dyn Entropy>,
    ) -> Self {
        let signer = ClientSigningKey::random(entropy.as_mut());
        Self::with_key(id, version, holders, signer, entropy)
    }

    /// The client with this signing key.
    #[must_use]
    pub fn with_key(
        id: ClientId,
        version: TemplateVersion,
        holders: [HolderPublicKey; 3],
        signer: ClientSigningKey,
        entropy: Box<dyn Entropy>,
    ) -> Self {
        Self { id, version, signer: Arc::new(signer), holders: Arc::new(holders), entropy }
    }

    /// This client's id.
    #[must_use]
    pub fn id(&self) -> &ClientId {
        &self.id
    }

    /// The key that the holders check this client's signatures with.
    #[must_use]
    pub fn verifying_key(&self) -> ClientVerifyingKey {
        self.signer.verifying_key()
    }

    fn associated(
        &mut self,
        collection: &CollectionId,
        purpose: Purpose,
        embedding: &Embedding,
        now: Timestamp,
    ) -> Associated {
        let mut nonce = [0u8; 16];
        self.entropy.fill_bytes(&mut nonce);
        Associated {
            client: self.id.clone(),
            collection: collection.clone(),
            purpose,
            dimension: embedding.dimension(),
            template_version: self.version,
            nonce,
            expires: Timestamp(now.0 + LIFETIME_SECONDS),
        }
    }

    /// Seals an embedding as the template of a subject. About 6.9 KB at 512 dimensions.
    ///
    /// # Errors
    /// [`ClientError::Sealed`] if the holders' keys are not three different keys.
    pub fn seal_template(
        &mut self,
        collection: &CollectionId,
        subject: SubjectId,
        embedding: &Embedding,
        now: Timestamp,
    ) -> Result<Vec<u8>, ClientError> {
        Ok(self.seal_for(collection, Purpose::Enrol { subject }, embedding, now)?.to_bytes())
    }

    /// Seals an embedding as the template of a subject, in the place of the one that it has, if it has one. Admitting it takes
    /// the roles for enrolment and for erasure.
    ///
    /// # Errors
    /// As [`seal_template`](Self::seal_template).
    pub fn seal_supersession(
        &mut self,
        collection: &CollectionId,
        subject: SubjectId,
        embedding: &Embedding,
        now: Timestamp,
    ) -> Result<Vec<u8>, ClientError> {
        Ok(self.seal_for(collection, Purpose::Supersede { subject }, embedding, now)?.to_bytes())
    }

    /// Says of which model the templates and probes are from now on.
    pub fn set_model(&mut self, model: &ModelDigest) {
        self.version = model.version();
    }

    fn seal_for(
        &mut self,
        collection: &CollectionId,
        purpose: Purpose,
        embedding: &Embedding,
        now: Timestamp,
    ) -> Result<SealedTemplate, ClientError> {
        let associated = self.associated(collection, purpose, embedding, now);
        Ok(seal(embedding, associated, &self.holders, &self.signer, self.entropy.as_mut())?.0)
    }

    /// The request that enrols sealed templates. `more_follows` delays indexing until the last batch.
    #[must_use]
    pub fn enroll(&self, collection: &CollectionId, templates: Vec<Vec<u8>>, more_follows: bool) -> Vec<u8> {
        encode(&ClientRequest::Enroll { collection: collection.clone(), templates, more_follows })
    }

    /// Reads the matcher's answer to an enrolment: one verdict per template.
    ///
    /// # Errors
    /// [`ClientError`] if the whole request was refused or the answer cannot be read.
    pub fn read_enrolled(answer: &[u8]) -> Result<Vec<Verdict>, ClientError> {
        match decode(answer)? {
            ClientAnswer::Enrolled { verdicts } => Ok(verdicts),
            _ => Err(ClientError::Malformed),
        }
    }

    /// Seals a probe for one query and wraps it in a request.
    ///
    /// # Errors
    /// [`ClientError::Sealed`] if the holders' keys are not three different keys.
    pub fn ask(
        &mut self,
        collection: &CollectionId,
        probe: &Embedding,
        query: Query,
        now: Timestamp,
    ) -> Result<(Vec<u8>, PendingQuery), ClientError> {
        let (sealed, pending) = self.seal_probe(collection, probe, query, now)?;
        Ok((encode(&ClientRequest::Ask { sealed }), pending))
    }

    /// Seals a probe for one query.
    ///
    /// # Errors
    /// [`ClientError::Sealed`] if the holders' keys are not three different keys.
    pub fn seal_probe(
        &mut self,
        collection: &CollectionId,
        probe: &Embedding,
        query: Query,
        now: Timestamp,
    ) -> Result<(Vec<u8>, PendingQuery), ClientError> {
        let associated = self.associated(collection, Purpose::Probe(query.clone()), probe, now);
        let (sealed, keys) = seal(probe, associated, &self.holders, &self.signer, self.entropy.as_mut())?;
        let pending = PendingQuery { query, digest: sealed.digest(), keys };
        Ok((sealed.to_bytes(), pending))
    }

    /// The signed request that erases a subject.
    #[must_use]
    pub fn erase(&mut self, collection: &CollectionId, subject: SubjectId, now: Timestamp) -> Vec<u8> {
        encode(&ClientRequest::Erase { request: self.sign_erasure(collection, subject, now) })
    }

    /// The signed erasure itself.
    #[must_use]
    pub fn sign_erasure(&mut self, collection: &CollectionId, subject: SubjectId, now: Timestamp) -> Vec<u8> {
        let mut nonce = [0u8; 16];
        self.entropy.fill_bytes(&mut nonce);
        let expires = Timestamp(now.0 + ERASURE_SECONDS);
        let signed = SignedErasure::sign(self.id.clone(), collection.clone(), subject, nonce, expires, &self.signer);
        signed.to_bytes()
    }

    /// Reads the matcher's answer to an erasure: whether the group that held the subject is rebuilt already.
    ///
    /// # Errors
    /// [`ClientError`] if it was refused or the answer cannot be read.
    pub fn read_erased(answer: &[u8]) -> Result<bool, ClientError> {
        match decode(answer)? {
            ClientAnswer::Erased { complete } => Ok(complete),
            _ => Err(ClientError::Malformed),
        }
    }
}

impl PendingQuery {
    /// Opens the three replies and compares them.
    ///
    /// # Errors
    /// [`ClientError`] if the query was refused, a reply does not open, or the replies differ; it names the party.
    pub fn read(self, answer: &[u8]) -> Result<Outcome, ClientError> {
        let ClientAnswer::Replies { replies: [a, b, c] } = decode(answer)? else { return Err(ClientError::Malformed) };
        Ok(self.read_replies([&a, &b, &c])?)
    }

    /// Opens the three replies, in index order, and compares them. An empty one is missing.
    ///
    /// # Errors
    /// [`ReplyError`] if a reply does not open or the replies differ; it names the party.
    pub fn read_replies(self, replies: [&[u8]; 3]) -> Result<Outcome, ReplyError> {
        let [a, b, c] = replies;
        let open = |holder: Party, reply: &[u8]| {
            if reply.is_empty() {
                return Err(SealedError::MissingReply);
            }
            open_reply(self.keys.of(holder), &self.digest, holder, &self.query, reply)
        };
        combine_replies([open(Party::K0, a), open(Party::K1, b), open(Party::K2, c)])
    }
}

fn encode(request: &ClientRequest) -> Vec<u8> {
    // Encoding fails only for lists beyond 2^32 entries.
    borsh::to_vec(request).unwrap_or_default()
}

fn decode(answer: &[u8]) -> Result<ClientAnswer, ClientError> {
    match borsh::from_slice(answer).map_err(|_| ClientError::Malformed)? {
        ClientAnswer::Refused(refusal) => Err(ClientError::Refused(refusal)),
        other => Ok(other),
    }
}
