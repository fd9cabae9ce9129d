//! The holder's memory on disk: its [`Record`]s, encrypted, in one redb file (`registry.redb`).
//!
//! A record is stored under a pseudo-random function of its key, because keys hold ids of subjects and clients. Key and
//! value are sealed together (XChaCha20-Poly1305, random nonce, the place as associated data). Keys are derived from the
//! holder's storage key. Besides the records there is one sealed summary: how many transactions there were, how many
//! records there are, and the exclusive or of a keyed hash of each of them. It changes in the same transaction.
//!
//! **What is found.** Opening with another storage key; on loading, any altered, swapped, removed or added record, and
//! any record that was set back to an older version (the summary does not fit). **What is not found:** the whole file set
//! back to an older version: it is a valid memory of the past. The holder's peers notice where it matters (epochs
//! and views of collections differ). Whoever reads the file sees how many records there are, their lengths and which change.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use borsh::{BorshDeserialize, BorshSerialize};
use rayon::prelude::*;
use redb::backends::FileBackend;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use veilmatch_domain::{Explain, Status};
use veilmatch_holder::Record;
use veilmatch_secret::{Entropy, Label, Secret, Seed, os_entropy};

use crate::aead::{self, NONCE_BYTES, TAG_BYTES};
use crate::fs::{self, FileError};

#[cfg(test)]
mod tests;

const FILE: &str = "registry.redb";
const RECORDS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("records-1");
const SUMMARY: TableDefinition<'_, (), &[u8]> = TableDefinition::new("summary-1");
/// Most bytes of key and value together.
const MAX_RECORD_BYTES: usize = 256 << 20;
/// Bytes of pages that are kept in memory: everything is read once, then written.
const CACHE_BYTES: usize = 64 << 20;

/// What can happen to the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file or folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process, or this one, has the store open.
    #[error("{} is in use", path.display())]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// The store was made with another storage key, or its summary was altered.
    #[error("{} does not open under this holder's storage key", path.display())]
    WrongKey {
        /// The database file.
        path: PathBuf,
    },
    /// The content is not what was written.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// How it shows.
        reason: &'static str,
    },
    /// Written by another version of the database library.
    #[error("{} has another format", path.display())]
    Format {
        /// The database file.
        path: PathBuf,
    },
    /// The disk is full. Nothing of the transaction was stored; the store goes on when there is room.
    #[error("no space is left for {}", path.display())]
    Full {
        /// The database file.
        path: PathBuf,
    },
    /// Writing failed and the file cannot be read back: all of the transaction is stored, or nothing.
    #[error("{}: a transaction failed, and whether it is stored is unknown", path.display())]
    Unsettled {
        /// The database file.
        path: PathBuf,
    },
    /// A record beyond any sane size.
    #[error("a record has {found} bytes; at most {MAX_RECORD_BYTES} are allowed")]
    TooLong {
        /// Bytes of its key and value.
        found: usize,
    },
}

impl Explain for StoreError {
    fn code(&self) -> &'static str {
        match self {
            Self::File(e) => e.code(),
            Self::InUse { .. } => "store-in-use",
            Self::WrongKey { .. } => "wrong-storage-key",
            Self::Damaged { .. } => "store-damaged",
            Self::Format { .. } => "store-format",
            Self::Full { .. } => "storage-full",
            Self::Unsettled { .. } => "store-unsettled",
            Self::TooLong { .. } => "record-too-long",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::File(e) => e.status(),
            Self::InUse { .. } | Self::WrongKey { .. } | Self::Format { .. } | Self::TooLong { .. } => {
                Status::FailedPrecondition
            }
            Self::Damaged { .. } => Status::DataLoss,
            Self::Full { .. } => Status::ResourceExhausted,
            Self::Unsettled { .. } => Status::Unavailable,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::File(e) => e.advice(),
            Self::InUse { .. } => "stop the other key holder process, or give this one its own data folder",
            Self::WrongKey { .. } => "use the key file that belongs to this data folder",
            Self::Damaged { .. } => "restore the data folder from its backup, or this holder from the other two",
            Self::Format { .. } => "use the version of the program that wrote the data folder",
            Self::Full { .. } => "make room on the disk or raise the quota; nothing needs to be repaired afterwards",
            Self::Unsettled { .. } => "check the disk, then restart the key holder: it goes on from what is stored",
            Self::TooLong { .. } => "report this: no record should be that long",
        }
    }
}

/// The keys for one store.
struct Keys {
    /// Where a record is.
    place: Seed,
    /// Encrypts records and the summary.
    content: Seed,
    /// What a record adds to the summary.
    member: Seed,
}

impl Keys {
    fn new(storage: &Seed) -> Self {
        let key = |purpose: &[u8]| storage.derive(&Label::new("veilmatch/records").bytes(purpose));
        Self { place: key(b"place"), content: key(b"content"), member: key(b"member") }
    }

    fn place(&self, key: &[u8]) -> [u8; 32] {
        self.place.tag(&Label::new("veilmatch/records/place").bytes(key))
    }

    /// Value, key, length of the key: so that the value can stay where it was decrypted.
    fn seal(
        &self,
        place: &[u8; 32],
        key: &[u8],
        value: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<Vec<u8>, StoreError> {
        let found = key.len().saturating_add(value.len());
        let too_long = StoreError::TooLong { found };
        let length = u32::try_from(key.len()).ok().filter(|_| found <= MAX_RECORD_BYTES);
        let Some(length) = length else { return Err(too_long) };
        let mut plain = Secret::new(Vec::with_capacity(found + 4));
        for part in [value, key, &length.to_le_bytes()] {
            plain.expose_mut().extend_from_slice(part);
        }
        aead::seal(&self.content, &record_context(place), plain.expose(), entropy).ok_or(too_long)
    }

    fn open(&self, place: &[u8; 32], sealed: &[u8]) -> Option<Stored> {
        let mut plain = aead::open(&self.content, &record_context(place), sealed)?;
        let bytes = plain.expose_mut();
        let length = u32::from_le_bytes(*bytes.last_chunk::<4>()?) as usize;
        let end = bytes.len().checked_sub(4)?;
        let key = bytes.get(end.checked_sub(length)?..end)?.to_vec();
        bytes.truncate(end - length);
        Some((key, plain))
    }

    /// Nonce and tag stand for the sealed record: no second one has both.
    fn member(&self, place: &[u8; 32], sealed: &[u8]) -> [u8; 32] {
        let nonce = sealed.get(..NONCE_BYTES).unwrap_or_default();
        let tag = sealed.last_chunk::<TAG_BYTES>().map_or(&[][..], |tag| tag.as_slice());
        self.member.tag(&Label::new("veilmatch/records/member").bytes(place).bytes(nonce).bytes(tag))
    }
}

fn record_context(place: &[u8; 32]) -> Vec<u8> {
    [b"veilmatch/records/1/record".as_slice(), place].concat()
}

const SUMMARY_CONTEXT: &[u8] = b"veilmatch/records/1/summary";

/// What all records are together.
#[derive(Clone, Copy, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Summary {
    transactions: u64,
    records: u64,
    members: [u8; 32],
}

impl Summary {
    /// Adds a member, or takes it out again.
    fn flip(&mut self, member: &[u8; 32]) {
        self.members.iter_mut().zip(member).for_each(|(to, from)| *to ^= from);
    }
}

/// A record's key and value.
pub type Stored = (Vec<u8>, Secret<Vec<u8>>);

/// A place and what is sealed there.
type Sealed = ([u8; 32], Vec<u8>);

type Open = (Database, Summary);

/// A place and what is sealed there from now on, if anything.
type Change = ([u8; 32], Option<Vec<u8>>);

/// A holder's records on disk. One process at a time.
pub struct RecordStore {
    path: PathBuf,
    keys: Keys,
    /// Closed after a write that failed: redb then refuses everything until the file is opened again.
    open: Mutex<Option<Open>>,
}

impl std::fmt::Debug for RecordStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecordStore({}, keys redacted)", self.path.display())
    }
}

impl RecordStore {
    /// Opens the store in a folder, or begins one. The folder is made for the holder alone; one that others can write
    /// into is refused.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::WrongKey`], [`StoreError::Damaged`], [`StoreError::Full`],
    /// [`StoreError::File`].
    pub fn open(folder: &Path, storage_key: Seed) -> Result<Self, StoreError> {
        fs::private_folder(folder)?;
        let path = folder.join(FILE);
        let keys = Keys::new(&storage_key);
        let open = open_database(&path, &keys)?;
        Ok(Self { path, keys, open: Mutex::new(Some(open)) })
    }

    /// All records: keys and values, in no order.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if a record or the set of records is not what was written.
    pub fn load(&self) -> Result<Vec<Stored>, StoreError> {
        let (sealed, summary) = {
            let mut open = self.lock();
            let (database, summary) = self.ensure_open(&mut open)?;
            (read_all(database).map_err(|e| translate(&self.path, e))?, *summary)
        };
        let damaged = |reason| StoreError::Damaged { path: self.path.clone(), reason };
        let opened: Option<Vec<_>> = sealed
            .into_par_iter()
            .map(|(place, sealed)| {
                let (key, value) = self.keys.open(&place, &sealed)?;
                Some((self.keys.member(&place, &sealed), key, value))
            })
            .collect();
        let opened = opened.ok_or_else(|| damaged("a record does not open"))?;
        let mut found = Summary { records: opened.len() as u64, members: [0; 32], ..summary };
        opened.iter().for_each(|(member, _, _)| found.flip(member));
        if found != summary {
            return Err(damaged("its records are not those of the last transaction"));
        }
        Ok(opened.into_iter().map(|(_, key, value)| (key, value)).collect())
    }

    /// Stores or removes records, all or none; when it returns they survive a crash. The same key may come twice: the
    /// last one counts.
    ///
    /// # Errors
    /// [`StoreError::Full`] and others: nothing is stored. [`StoreError::Unsettled`]: all or nothing is.
    pub fn apply(&self, records: &[Record]) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut entropy = os_entropy();
        let changes = records.iter().map(|record| {
            let place = self.keys.place(&record.key);
            let seal = |value: &Secret<Vec<u8>>| self.keys.seal(&place, &record.key, value.expose(), &mut *entropy);
            Ok((place, record.value.as_ref().map(seal).transpose()?))
        });
        let changes = changes.collect::<Result<Vec<Change>, StoreError>>()?;

        let mut open = self.lock();
        let (database, summary) = self.ensure_open(&mut open)?;
        let mut after = *summary;
        let error = match write(database, &self.keys, &changes, &mut after) {
            Ok(()) => {
                *summary = after;
                return Ok(());
            }
            Err(error) => translate(&self.path, error),
        };
        *open = None;
        // What the file says counts: the failure may have come after the transaction was safe.
        match self.ensure_open(&mut open) {
            Ok((_, stored)) if stored.transactions == after.transactions => Ok(()),
            Ok(_) => Err(error),
            Err(_) => Err(StoreError::Unsettled { path: self.path.clone() }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        // A panic cannot leave a summary that is not the file's: it changes last.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ensure_open<'a>(&self, open: &'a mut Option<Open>) -> Result<&'a mut Open, StoreError> {
        let opened = match open.take() {
            Some(opened) => opened,
            None => open_database(&self.path, &self.keys)?,
        };
        Ok(open.insert(opened))
    }
}

fn open_database(path: &Path, keys: &Keys) -> Result<Open, StoreError> {
    let file = fs::open_private(path)?;
    let database = FileBackend::new(file).and_then(|backend| {
        // Without the check redb trusts the file, and panics if it should not have.
        Database::builder().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).create_with_backend(backend)
    });
    let database = database.map_err(|e| translate(path, e))?;
    let damaged = |reason| StoreError::Damaged { path: path.to_owned(), reason };
    let summary = match read_summary(&database).map_err(|e| translate(path, e))? {
        Some(sealed) => {
            let plain = aead::open(&keys.content, SUMMARY_CONTEXT, &sealed)
                .ok_or_else(|| StoreError::WrongKey { path: path.to_owned() })?;
            borsh::from_slice(plain.expose()).map_err(|_| damaged("its summary does not decode"))?
        }
        None if has_tables(&database).map_err(|e| translate(path, e))? => {
            return Err(damaged("its summary is missing"));
        }
        None => {
            let mut summary = Summary::default();
            write(&database, keys, &[], &mut summary).map_err(|e| translate(path, e))?;
            summary
        }
    };
    Ok((database, summary))
}

fn has_tables(database: &Database) -> Result<bool, redb::Error> {
    Ok(database.begin_read()?.list_tables()?.next().is_some())
}

fn read_summary(database: &Database) -> Result<Option<Vec<u8>>, redb::Error> {
    let table = match database.begin_read()?.open_table(SUMMARY) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        table => table?,
    };
    Ok(table.get(())?.map(|sealed| sealed.value().to_vec()))
}

fn read_all(database: &Database) -> Result<Vec<Sealed>, redb::Error> {
    let table = database.begin_read()?.open_table(RECORDS)?;
    table
        .iter()?
        .map(|item| {
            let (place, sealed) = item?;
            Ok((*place.value(), sealed.value().to_vec()))
        })
        .collect()
}

/// One transaction: the changes and the summary that results.
fn write(database: &Database, keys: &Keys, changes: &[Change], summary: &mut Summary) -> Result<(), redb::Error> {
    summary.transactions = summary.transactions.saturating_add(1);
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut table = transaction.open_table(RECORDS)?;
        for (place, sealed) in changes {
            let old = match sealed {
                Some(sealed) => table.insert(place, sealed.as_slice())?,
                None => table.remove(place)?,
            };
            if let Some(old) = old {
                summary.flip(&keys.member(place, old.value()));
                summary.records = summary.records.saturating_sub(1);
            }
            if let Some(sealed) = sealed {
                summary.flip(&keys.member(place, sealed));
                summary.records = summary.records.saturating_add(1);
            }
        }
    }
    let plain = borsh::to_vec(summary)?;
    // The cipher takes 256 GiB; the summary has 48 bytes.
    let sealed = aead::seal(&keys.content, SUMMARY_CONTEXT, &plain, &mut *os_entropy()).unwrap_or_default();
    transaction.open_table(SUMMARY)?.insert((), sealed.as_slice())?;
    Ok(transaction.commit()?)
}

fn translate(path: &Path, error: impl Into<redb::Error>) -> StoreError {
    let path = path.to_owned();
    match error.into() {
        redb::Error::Io(e) if fs::is_full(&e) => StoreError::Full { path },
        redb::Error::Io(e) if matches!(e.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
            StoreError::Damaged { path, reason: "it is not a database, or cut off" }
        }
        redb::Error::Io(e) => FileError::from_io("use", &path, e).into(),
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse { path },
        redb::Error::UpgradeRequired(_) | redb::Error::LockProtocolMismatch => StoreError::Format { path },
        redb::Error::PreviousIo | redb::Error::DatabaseClosed | redb::Error::TransactionPoisoned => {
            StoreError::Unsettled { path }
        }
        _ => StoreError::Damaged { path, reason: "its pages are not what was written" },
    }
}
