//! A holder made from what is on disk, and what it says written back.

use std::path::{Path, PathBuf};
use std::time::Instant;

use veilmatch_domain::{Explain, Party, Status};
use veilmatch_glwe::GLWE_2048_V1;
use veilmatch_holder::{AuditEntry, Holder, HolderCard, Record, RestoreError};
use veilmatch_sealed::{ClientSigningKey, ClientVerifyingKey};
use veilmatch_secret::os_entropy;

use crate::audit_file::{AuditError, AuditFile};
use crate::keyfile::HolderKeys;
use crate::measures;
use crate::records::{RecordStore, StoreError};

/// The folder of the audit log inside the data folder.
const AUDIT: &str = "audit";

/// The folder of the audit log that belongs to a data folder.
#[must_use]
pub fn audit_folder(data: &Path) -> PathBuf {
    data.join(AUDIT)
}

/// Why a holder's memory cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The records.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The two do not make a holder.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

impl MemoryError {
    fn explain(&self) -> &dyn Explain {
        match self {
            Self::Audit(e) => e,
            Self::Store(e) => e,
            Self::Restore(e) => e,
        }
    }

    /// Whether it can go away by itself, as a full disk does when there is room again.
    pub(crate) fn heals(&self) -> bool {
        matches!(self.status(), Status::ResourceExhausted | Status::Unavailable)
    }
}

impl Explain for MemoryError {
    fn code(&self) -> &'static str {
        self.explain().code()
    }
    fn status(&self) -> Status {
        self.explain().status()
    }
    fn advice(&self) -> &'static str {
        self.explain().advice()
    }
}

/// What a holder is made of, besides its memory.
pub(crate) struct Origin {
    pub(crate) keys: HolderKeys,
    pub(crate) cards: [HolderCard; 3],
    pub(crate) administrators: Vec<ClientVerifyingKey>,
    pub(crate) data: PathBuf,
    pub(crate) limits: veilmatch_holder::Limits,
}

/// Where a holder's memory is. One at a time per data folder.
pub(crate) struct Memory {
    audit: AuditFile,
    records: RecordStore,
}

impl Origin {
    pub(crate) fn party(&self) -> Party {
        self.keys.party
    }

    /// Makes the holder from what is stored; from nothing, if it never ran.
    pub(crate) fn wake(&self) -> Result<(Holder, Memory), MemoryError> {
        let begun = Instant::now();
        let milliseconds = || begun.elapsed().as_millis() as u64;
        let records = RecordStore::open(&self.data, self.keys.storage.duplicate())?;
        let opened = milliseconds();
        let audit = AuditFile::open(&audit_folder(&self.data))?;
        if audit.healed_bytes() > 0 {
            tracing::warn!(bytes = audit.healed_bytes(), "cut off an unfinished write at the end of the audit log");
        }
        let mut broken = None;
        let entries = |from| {
            let (entries, failed) = match audit.read_from(from) {
                Ok(entries) => (Some(entries), None),
                Err(e) => (None, Some(Err(e))),
            };
            let entries = failed.into_iter().chain(entries.into_iter().flatten());
            entries.map_while(|entry| entry.map_err(|e| broken = Some(e)).ok()).collect::<Vec<AuditEntry>>()
        };
        let stored = records.load()?;
        let (loaded, count) = (milliseconds(), stored.len());
        let restored = Holder::restore(self.party(), GLWE_2048_V1, self.own_keys(), os_entropy(), stored, entries);
        // The log's own account of the damage says more than what the holder made of it.
        if let Some(e) = broken {
            return Err(e.into());
        }
        let mut holder = restored?;
        holder.limit(self.limits);
        holder.meet(self.cards.clone());
        holder.set_administrators(self.administrators.clone());
        tracing::info!(records = count, opened, loaded, milliseconds = milliseconds(), "memory read");
        Ok((holder, Memory { audit, records }))
    }

    fn own_keys(&self) -> veilmatch_holder::HolderKeys {
        let (identity, kem) = (&self.keys.identity, &self.keys.kem);
        veilmatch_holder::HolderKeys {
            identity: ClientSigningKey::from_bytes(identity.secret_bytes().expose()),
            kem: kem.duplicate(),
        }
    }
}

impl Memory {
    /// Stores what a batch of reactions says; when it returns, all of it survives a crash.
    pub(crate) fn store(&mut self, log: &[AuditEntry], save: &[Record]) -> Result<(), MemoryError> {
        if log.is_empty() && save.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        self.audit.append(log)?;
        self.records.apply(save)?;
        measures::stored(begun.elapsed());
        measures::logged(log);
        Ok(())
    }
}
