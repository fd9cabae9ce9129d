//! Heavy computation that a session hands out: functions of what they are given, to be run on any thread.
//!
//! A session that has work out is computing: frames wait in its channel until the result is given back. Each piece has a
//! ticket, so that the result of a session that ended meanwhile is not taken for that of a later one with the same id.

use std::collections::BTreeMap;
use std::sync::Arc;

use veilmatch_domain::{ClientId, Part, Party, SessionId, TemplateDigest};
use veilmatch_sealed::{Associated, HolderPublicKey, SealedTemplate};
use veilmatch_secret::Digest;

use crate::build::{Encrypted, Members, Recrypted};
use crate::query::{Contributed, Products, Shares};
use crate::registry::ClientRecord;
use crate::unseal::{OpenedTemplate, RecentPackets, open_parts, unseal};
use crate::{HolderError, HolderSecretKey};

/// A computation that a session waits for. Run it anywhere and give the result to [`Holder::finish`](crate::Holder::finish);
/// dropped, its session runs into its deadline.
pub struct Work {
    session: SessionId,
    ticket: u64,
    job: Box<dyn FnOnce() -> Done + Send>,
}

/// What a [`Work`] came to. Its secrets are wiped on drop.
pub struct Worked {
    pub(crate) session: SessionId,
    pub(crate) ticket: u64,
    pub(crate) done: Done,
}

/// Results by kind of session.
pub(crate) enum Done {
    /// Admission: templates read, and the digest of the request.
    Templates(Vec<Result<ReadTemplate, HolderError>>, Digest),
    /// Build: members read.
    Members(Result<Members, HolderError>),
    /// Build: bodies and check vectors.
    Recrypted(Result<Box<Recrypted>, HolderError>),
    /// Query: sums checked, shares of scores.
    Shares(Result<Shares, HolderError>),
    /// Build under `paillier`: this holder's parts, encrypted.
    Encrypted(Result<Encrypted, HolderError>),
    /// Query under `paillier`: products of the evaluators, and masks.
    Multiplied(Result<Box<Products>, HolderError>),
    /// Query under `paillier`: what is decrypted jointly.
    Contributed(Result<Box<Contributed>, HolderError>),
}

impl Work {
    pub(crate) fn new(session: SessionId, ticket: u64, job: impl FnOnce() -> Done + Send + 'static) -> Self {
        Self { session, ticket, job: Box::new(job) }
    }

    /// Computes. It uses the current rayon pool.
    #[must_use]
    pub fn run(self) -> Worked {
        Worked { session: self.session, ticket: self.ticket, done: (self.job)() }
    }

    /// Whose work it is.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Work(session {})", self.session)
    }
}

impl std::fmt::Debug for Worked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Worked(session {}, redacted)", self.session)
    }
}

/// What reading sealed templates takes: keys alone, shared with the holder.
pub(crate) struct TemplateReader {
    pub(crate) party: Party,
    pub(crate) kem: Arc<HolderSecretKey>,
    pub(crate) readers: Arc<[HolderPublicKey; 3]>,
    pub(crate) clients: Arc<BTreeMap<ClientId, ClientRecord>>,
    pub(crate) packets: Arc<RecentPackets>,
}

/// A sealed template whose signature holds, and this holder's parts of it.
pub(crate) struct ReadTemplate {
    pub(crate) associated: Associated,
    pub(crate) digest: TemplateDigest,
    pub(crate) opened: OpenedTemplate,
    /// Digests of part i and part i+1, to be compared with the holder that has the same.
    pub(crate) parts: [Digest; 2],
}

impl TemplateReader {
    /// Checks the signature. What the client may do is not looked at: that holds when a request comes, not for good.
    ///
    /// # Errors
    /// Unknown client, wrong signature.
    pub(crate) fn verify(&self, sealed: &SealedTemplate) -> Result<(), HolderError> {
        let client = &sealed.associated().client;
        let record = self.clients.get(client).ok_or_else(|| HolderError::UnknownClient(client.clone()))?;
        Ok(sealed.verify(&record.key)?)
    }

    /// Checks the signature and opens this holder's parts; remembers what [`read_again`](Self::read_again) needs.
    ///
    /// # Errors
    /// As [`TemplateReader::verify`]; packets that do not open.
    pub(crate) fn read(&self, sealed: &SealedTemplate, session: &SessionId) -> Result<ReadTemplate, HolderError> {
        self.verify(sealed)?;
        let read = self.open(sealed, session)?;
        self.packets.insert(read.digest, *sealed.signature(), &read.opened);
        Ok(read)
    }

    /// Reads a template that was read before, while its packet is remembered: digest and signature stand for the whole, and
    /// a client's key is for good. Otherwise as [`read`](Self::read).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn read_again(&self, sealed: &SealedTemplate, session: &SessionId) -> Result<ReadTemplate, HolderError> {
        let digest = sealed.digest();
        match self.packets.get(&digest, sealed.signature()) {
            Some(packet) => {
                let opened = open_parts(self.party, &self.readers, sealed, packet)?;
                Ok(self.compared(sealed, session, digest, opened))
            }
            None => self.read(sealed, session),
        }
    }

    /// Opens this holder's parts of a template whose signature was checked.
    ///
    /// # Errors
    /// Packets that do not open.
    pub(crate) fn open(&self, sealed: &SealedTemplate, session: &SessionId) -> Result<ReadTemplate, HolderError> {
        let opened = unseal(self.party, &self.kem, &self.readers, sealed)?;
        Ok(self.compared(sealed, session, sealed.digest(), opened))
    }

    fn compared(
        &self,
        sealed: &SealedTemplate,
        session: &SessionId,
        digest: TemplateDigest,
        opened: OpenedTemplate,
    ) -> ReadTemplate {
        let shared = |part: Part| opened.part_digest(part, session, &digest).unwrap_or(Digest([0; 32]));
        let parts = self.party.parts().map(shared);
        ReadTemplate { associated: sealed.associated().clone(), digest, opened, parts }
    }
}
