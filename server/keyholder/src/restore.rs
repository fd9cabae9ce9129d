//! A lost holder on a new machine: its keys and memory from the two others.
//!
//! The new machine draws a key and shows its fingerprint. Administrators compare it with a person at the new machine and
//! sign AllowRestore for both other holders; each then answers once, sealed to that key. The key waits in a file beside
//! the key file to be, so that a restore that was interrupted goes on under the same fingerprint.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::sleep;
use veilmatch_domain::{Explain, Party, Status};
use veilmatch_glwe::Refusal;
use veilmatch_holder::{HolderCard, RestoreError, combine_restored};
use veilmatch_secret::{Digest, os_entropy};
use veilmatch_transport::{Endpoint, Incoming, IncomingError, Name, channel};
use veilmatch_wire::v1;
use veilmatch_wire::v1::key_holder_client::KeyHolderClient;

use crate::config::{Config, Transport};
use crate::fs::FileError;
use crate::keyfile::{Cost, HolderKeys, KeyFileError, Unlock};
use crate::records::{RecordStore, StoreError};
use crate::serve::{ServeError, read_card_files, security};

/// Between two questions to a peer that does not answer yet.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// The code of a holder that has no permission to answer (`veilmatch_holder`).
const NOT_ALLOWED: &str = "restore-not-allowed";
/// Most bytes of a peer's answer; a million subjects take some 200 MB.
const MAX_ANSWER: usize = 1 << 30;

/// Why a holder cannot be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoringError {
    /// There is something that would be overwritten.
    #[error("{} is there already: this key holder is not lost", path.display())]
    NotLost {
        /// What is there.
        path: PathBuf,
    },
    /// A file or folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// The new key file.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The new records.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Configuration, cards, certificate.
    #[error(transparent)]
    Setup(#[from] Box<ServeError>),
    /// A peer refused.
    #[error("key holder {party}: {}", refusal.message)]
    Refused {
        /// Which.
        party: Party,
        /// Its words.
        refusal: Refusal,
    },
    /// A peer's answer broke off.
    #[error("the answer of key holder {party}: {source}")]
    Broken {
        /// Which.
        party: Party,
        /// How.
        source: IncomingError,
    },
    /// The answers do not make a holder.
    #[error(transparent)]
    Combine(#[from] RestoreError),
}

impl RestoringError {
    fn explain(&self) -> Option<&dyn Explain> {
        match self {
            Self::File(e) => Some(e),
            Self::Keys(e) => Some(e),
            Self::Store(e) => Some(e),
            Self::Setup(e) => Some(e.as_ref()),
            Self::Broken { source, .. } => Some(source),
            Self::Combine(e) => Some(e),
            Self::NotLost { .. } | Self::Refused { .. } => None,
        }
    }
}

impl Explain for RestoringError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotLost { .. } => "not-lost",
            Self::Refused { .. } => "restore-refused",
            other => other.explain().map_or("restore-failed", Explain::code),
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::NotLost { .. } => Status::AlreadyExists,
            Self::Refused { refusal, .. } => refusal.status(),
            other => other.explain().map_or(Status::Aborted, Explain::status),
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::NotLost { .. } => "move key file and data folder away if they are really of no use any more",
            Self::Refused { .. } => "do what it says, then restore again: the fingerprint stays the same",
            other => other.explain().map_or("restore again", Explain::advice),
        }
    }
}

/// A restore that has begun.
#[derive(Debug)]
pub struct Restoring {
    config: Config,
    unlock: Unlock,
    cards: [HolderCard; 3],
    /// Fresh; only its encryption key and storage key are used.
    fresh: HolderKeys,
    fresh_path: PathBuf,
}

impl Restoring {
    /// Draws the new machine's key, or goes on with the one of an interrupted restore. `cost` is for passphrases.
    ///
    /// # Errors
    /// [`RestoringError`]; [`RestoringError::NotLost`] if there is a key file or a memory.
    pub fn begin(config: Config, unlock: Unlock, cost: Cost) -> Result<Self, RestoringError> {
        for path in [&config.key_file, &config.data] {
            match std::fs::symlink_metadata(path) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(FileError::from_io("look at", path, e).into()),
                // The administrator of the machine may have made the folder.
                Ok(found) if found.is_dir() && is_empty(path)? => {}
                Ok(_) => return Err(RestoringError::NotLost { path: path.clone() }),
            }
        }
        let cards = read_card_files(&config).map_err(Box::new)?;
        let mut name = config.key_file.clone().into_os_string();
        name.push(".restoring");
        let fresh_path = PathBuf::from(name);
        let fresh = match HolderKeys::open(&fresh_path, &unlock) {
            Err(KeyFileError::File(FileError::Missing { .. })) => {
                let mut entropy = os_entropy();
                let fresh = HolderKeys::random(config.party, entropy.as_mut());
                fresh.create(&fresh_path, &unlock, cost, entropy.as_mut())?;
                fresh
            }
            opened => opened?,
        };
        Ok(Self { config, unlock, cards, fresh, fresh_path })
    }

    /// What administrators compare and allow.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        self.fresh.kem.public_key().fingerprint()
    }

    /// Asks both peers until they answer, then writes the key file and the memory. A peer answers once per permission, so
    /// an answer that is there is kept while the other is waited for. May be dropped while it waits; the peers that have
    /// answered must be allowed to once more then.
    ///
    /// # Errors
    /// [`RestoringError`]; what is not permitted yet or not reachable is waited for.
    pub async fn finish(self, cost: Cost) -> Result<(), RestoringError> {
        let [(one, first), (other, second)] = &self.config.peers;
        // In the order of `Party::peers`, which is that of the configuration.
        let answers = tokio::try_join!(self.ask(*one, first), self.ask(*other, second))?;
        let written = tokio::task::spawn_blocking(move || self.write(&answers.0, &answers.1, cost));
        written.await.unwrap_or(Err(RestoringError::Combine(RestoreError::Malformed { kind: "answer" })))
    }

    async fn ask(&self, party: Party, url: &str) -> Result<Vec<u8>, RestoringError> {
        let setup = |error: ServeError| RestoringError::Setup(Box::new(error));
        let security = security(&self.config).map_err(setup)?;
        let endpoint = Endpoint::parse(url, self.config.transport == Transport::Plaintext);
        let endpoint = endpoint.map_err(|e| setup(e.into()))?;
        let connection = channel(&endpoint, &security, &Name::Holder(party)).map_err(|e| setup(e.into()))?;
        let mut client = KeyHolderClient::new(connection);
        let mut said = String::new();
        loop {
            let request = v1::RestoreRequest {
                party: v1::Party::from(self.config.party).into(),
                key: self.fresh.kem.public_key().to_bytes().to_vec().into(),
            };
            let refused = match client.restore(request).await {
                Ok(answer) => {
                    let mut incoming = Incoming::new(answer.into_inner(), MAX_ANSWER);
                    match incoming.next().await {
                        Ok(Some(bytes)) => return Ok(bytes),
                        Ok(None) => return Err(RestoringError::Broken { party, source: IncomingError::Half }),
                        Err(source) => return Err(RestoringError::Broken { party, source }),
                    }
                }
                Err(refused) => refused,
            };
            let message = match veilmatch_wire::refusal(&refused) {
                // Permission is what the peers' administrators are about to give.
                Some(refusal) if refusal.code == NOT_ALLOWED || refusal.status() == Status::Unavailable => {
                    refusal.message
                }
                Some(refusal) => return Err(RestoringError::Refused { party, refusal }),
                None => veilmatch_transport::cause(&refused),
            };
            if message != said {
                tracing::info!(%party, "waiting: {message}");
                said = message;
            }
            sleep(ASK_AGAIN).await;
        }
    }

    /// The memory first: the key file says that the restore is complete.
    fn write(self, first: &[u8], second: &[u8], cost: Cost) -> Result<(), RestoringError> {
        let Self { config, unlock, cards, fresh, fresh_path } = self;
        let (keys, records) = combine_restored(config.party, &cards, &fresh.kem, [first, second])?;
        RecordStore::open(&config.data, fresh.storage.duplicate())?.apply(&records)?;
        let veilmatch_holder::HolderKeys { identity, kem } = keys;
        let keys = HolderKeys { party: config.party, identity, kem, storage: fresh.storage };
        keys.create(&config.key_file, &unlock, cost, os_entropy().as_mut())?;
        std::fs::remove_file(&fresh_path).map_err(|e| FileError::from_io("remove", &fresh_path, e))?;
        Ok(())
    }
}

fn is_empty(folder: &std::path::Path) -> Result<bool, FileError> {
    let mut entries = std::fs::read_dir(folder).map_err(|e| FileError::from_io("list", folder, e))?;
    Ok(entries.next().is_none())
}
