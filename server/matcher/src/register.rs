//! Whom the matcher serves: administrators from its configuration, clients that they registered.
//!
//! The holders check signatures, roles and collections of every request themselves; what is checked here keeps strangers
//! and other tenants from reading lists and from occupying the queues. The register is one small file, rewritten whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use borsh::{BorshDeserialize, BorshSerialize};
use veilmatch_domain::{ClientId, CollectionId, Explain, Status, Timestamp};
use veilmatch_sealed::{Administration, ClientVerifyingKey, SealedError, SignedAdministration};
use veilmatch_transport::{FileError, Name, read_private, write_private};

const LIMIT: usize = 64 << 20;
const FORMAT: u8 = 1;
/// How far ahead an administration may expire, in seconds.
const LONGEST: u64 = 86_400;

/// Why somebody is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The caller's certificate names nobody who may do this.
    #[error("{caller} may not do this")]
    Caller {
        /// Who calls.
        caller: Name,
    },
    /// The client is not registered, or was revoked.
    #[error("client {0} is not registered")]
    UnknownClient(ClientId),
    /// The client belongs to other collections.
    #[error("client {client} has no part in collection {collection}")]
    OtherTenant {
        /// The client.
        client: ClientId,
        /// Which collection.
        collection: CollectionId,
    },
    /// A sealed template or signed request of another client.
    #[error("client {caller} sends a request that client {signer} signed")]
    OtherClient {
        /// Who calls.
        caller: ClientId,
        /// Who signed.
        signer: ClientId,
    },
    /// The request cannot be read, or its signature is wrong.
    #[error(transparent)]
    Sealed(#[from] SealedError),
    /// The signer is not among the configured administrators.
    #[error("the administrator is not known here")]
    UnknownAdministrator,
    /// The request is for other parties.
    #[error("the request is not addressed to the matcher")]
    Audience,
    /// Its time is over, or lies too far ahead.
    #[error("the request has expired, or expires more than a day ahead")]
    Expired,
    /// It was used before.
    #[error("the request was used before")]
    Replayed,
    /// Only the key holders do this.
    #[error("this is for key holders, not for the matcher")]
    NotHere,
    /// A client's key cannot change.
    #[error("client {0} is registered with another key")]
    OtherKey(ClientId),
    /// The register cannot be stored.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Explain for RegisterError {
    fn code(&self) -> &'static str {
        match self {
            Self::Caller { .. } => "caller",
            Self::UnknownClient(_) => "unknown-client",
            Self::OtherTenant { .. } => "other-tenant",
            Self::OtherClient { .. } => "other-client",
            Self::Sealed(e) => e.code(),
            Self::UnknownAdministrator => "unknown-administrator",
            Self::Audience => "wrong-audience",
            Self::Expired => "expired",
            Self::Replayed => "replayed",
            Self::NotHere => "not-here",
            Self::OtherKey(_) => "other-key",
            Self::File(e) => e.code(),
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::Sealed(e) => e.status(),
            Self::Audience | Self::NotHere => Status::InvalidArgument,
            Self::OtherKey(_) => Status::AlreadyExists,
            Self::File(_) => Status::Unavailable,
            _ => Status::PermissionDenied,
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Caller { .. } => "call with a certificate of a client or operator",
            Self::UnknownClient(_) => "have an administrator register the client: veilmatch clients add",
            Self::OtherTenant { .. } => "have an administrator add the collection to the client's",
            Self::OtherClient { .. } => "call with the certificate of the client that signs",
            Self::Sealed(e) => e.advice(),
            Self::UnknownAdministrator => "add the administrator's public key to `administrators` of the matcher",
            Self::Audience | Self::NotHere => "address it to the party that it is sent to",
            Self::Expired | Self::Replayed => "sign a new request; each works once",
            Self::OtherKey(_) => "choose another client id, or revoke this one",
            Self::File(e) => e.advice(),
        }
    }
}

#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
struct Client {
    key: ClientVerifyingKey,
    collections: Option<BTreeSet<CollectionId>>,
    revoked: bool,
}

#[derive(Clone, Debug, Default, BorshSerialize, BorshDeserialize)]
struct Content {
    clients: BTreeMap<ClientId, Client>,
    used: BTreeMap<[u8; 16], Timestamp>,
}

/// The register.
#[derive(Debug)]
pub(crate) struct Register {
    path: PathBuf,
    administrators: Vec<ClientVerifyingKey>,
    content: Content,
    /// Whether callers are known by certificates; without them there is no identity to check.
    strict: bool,
}

impl Register {
    /// Reads the register of a data folder; a new one is empty.
    pub(crate) fn open(
        folder: &Path,
        administrators: Vec<ClientVerifyingKey>,
        strict: bool,
    ) -> Result<Self, RegisterError> {
        let path = folder.join("clients.register");
        let content = match read_private(&path, LIMIT) {
            Ok(bytes) => match bytes.expose().split_first() {
                Some((&FORMAT, rest)) => borsh::from_slice(rest)
                    .map_err(|_| SealedError::Malformed { what: "register of clients (clients.register)" })?,
                _ => return Err(SealedError::Malformed { what: "register of clients (clients.register)" }.into()),
            },
            Err(FileError::Read { kind: std::io::ErrorKind::NotFound, .. }) => Content::default(),
            Err(error) => return Err(error.into()),
        };
        Ok(Self { path, administrators, content, strict })
    }

    /// Checks that a caller may use a collection with a request that `signer` signed.
    pub(crate) fn admits(
        &self,
        caller: &Name,
        collection: &CollectionId,
        signer: Option<&ClientId>,
    ) -> Result<(), RegisterError> {
        let client = match caller {
            Name::Client(client) => client,
            Name::Operator(_) if signer.is_none() => return Ok(()),
            _ => return Err(RegisterError::Caller { caller: caller.clone() }),
        };
        if let Some(signer) = signer
            && signer != client
        {
            return Err(RegisterError::OtherClient { caller: client.clone(), signer: signer.clone() });
        }
        let Some(known) = self.content.clients.get(client).filter(|known| !known.revoked) else {
            return if self.strict { Err(RegisterError::UnknownClient(client.clone())) } else { Ok(()) };
        };
        match &known.collections {
            Some(own) if !own.contains(collection) => {
                Err(RegisterError::OtherTenant { client: client.clone(), collection: collection.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Reads and checks an administrator's request, and uses it up. The change is stored before this returns.
    pub(crate) fn administer(&mut self, bytes: &[u8], now: Timestamp) -> Result<Administration, RegisterError> {
        let request = SignedAdministration::from_bytes(bytes)?;
        request.verify()?;
        if !self.administrators.contains(&request.administrator) {
            return Err(RegisterError::UnknownAdministrator);
        }
        if !request.audience.includes_matcher() {
            return Err(RegisterError::Audience);
        }
        if request.expires < now || request.expires.0 > now.0.saturating_add(LONGEST) {
            return Err(RegisterError::Expired);
        }
        let mut content = self.content.clone();
        content.used.retain(|_, expires| *expires >= now);
        if content.used.insert(request.nonce, request.expires).is_some() {
            return Err(RegisterError::Replayed);
        }
        match &request.action {
            Administration::RegisterClient { client, key, collections, .. } => {
                if content.clients.get(client).is_some_and(|known| known.key != *key) {
                    return Err(RegisterError::OtherKey(client.clone()));
                }
                let record = Client { key: *key, collections: collections.clone(), revoked: false };
                content.clients.insert(client.clone(), record);
            }
            Administration::RevokeClient { client } => match content.clients.get_mut(client) {
                Some(known) => known.revoked = true,
                None => return Err(RegisterError::UnknownClient(client.clone())),
            },
            Administration::SetPolicy { .. } => {}
            _ => return Err(RegisterError::NotHere),
        }
        let mut encoded = vec![FORMAT];
        encoded.extend(borsh::to_vec(&content).map_err(|_| SealedError::Malformed { what: "register of clients" })?);
        write_private(&self.path, &encoded)?;
        self.content = content;
        Ok(request.action)
    }
}
