//! The client: seals and signs on the capture device, asks, and reads the holders' sealed replies.
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
//! let query = Query { decision: Decision::Exists, threshold: Threshold::new(0.427)? };
//! let (request, pending) = client.ask(&collection, &embedding, query, now)?;
//! // send `request` to the matcher, and with its answer:
//! # let answer = request;
//! let outcome = pending.read(&answer)?;
//! # let _ = outcome; Ok(()) }
//! ```

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use veilmatch_domain::{
    ClientId, CollectionId, Embedding, Explain, Outcome, Party, Purpose, Query, Status, SubjectId, Suspect,
    TemplateDigest, TemplateVersion, Timestamp,
};
use veilmatch_glwe::{ClientAnswer, ClientRequest, Refusal, Verdict};
use veilmatch_sealed::{
    Associated, ClientSigningKey, ClientVerifyingKey, HolderPublicKey, ReplyError, ReplyKeys, SealedError,
    SignedErasure, combine_replies, open_reply, seal,
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
    signer: ClientSigningKey,
    holders: [HolderPublicKey; 3],
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
        Self { id, version, signer, holders, entropy }
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
        let associated = self.associated(collection, Purpose::Enrol { subject }, embedding, now);
        let (sealed, _) = seal(embedding, associated, &self.holders, &self.signer, self.entropy.as_mut())?;
        Ok(sealed.to_bytes())
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

    /// Seals a probe for one query.
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
        let associated = self.associated(collection, Purpose::Probe(query.clone()), probe, now);
        let (sealed, keys) = seal(probe, associated, &self.holders, &self.signer, self.entropy.as_mut())?;
        let pending = PendingQuery { query, digest: sealed.digest(), keys };
        Ok((encode(&ClientRequest::Ask { sealed: sealed.to_bytes() }), pending))
    }

    /// The signed request that erases a subject.
    #[must_use]
    pub fn erase(&mut self, collection: &CollectionId, subject: SubjectId, now: Timestamp) -> Vec<u8> {
        let mut nonce = [0u8; 16];
        self.entropy.fill_bytes(&mut nonce);
        let expires = Timestamp(now.0 + ERASURE_SECONDS);
        let signed = SignedErasure::sign(self.id.clone(), collection.clone(), subject, nonce, expires, &self.signer);
        encode(&ClientRequest::Erase { request: signed.to_bytes() })
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
        let open = |holder: Party, reply: &[u8]| {
            if reply.is_empty() {
                return Err(SealedError::MissingReply);
            }
            open_reply(self.keys.of(holder), &self.digest, holder, &self.query, reply)
        };
        Ok(combine_replies([open(Party::K0, &a), open(Party::K1, &b), open(Party::K2, &c)])?)
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
