//! Storage in a folder: a database of rows (`gallery.redb`) and the files of the packed index (`index/`).
//!
//! A transaction of the database is what counts. A file is complete and synced before the transaction that names it,
//! and is unlinked after the one that no longer does; what a crash leaves between the two is removed by the next load.
//! Every commit is in two phases and carries the allocator's state, so that the start after a crash does not read the
//! whole database.
//!
//! An erased template's row is gone with its transaction. Its bytes, sealed for the key holders, lie in free pages of
//! the file until they are used again.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use redb::backends::FileBackend;
use redb::{Builder, Database, Durability, ReadableDatabase};
use veilmatch_domain::{CollectionId, SubjectId};
use veilmatch_glwe::{PackedGroup, Segments};

use crate::changes::{BodiesShelf, carry_out, group_row};
use crate::files::{IndexFolder, bytes_on_disk, make_folder, refused, sync_folder};
use crate::image::{named_bodies, read_image, read_sealed};
use crate::rows::{
    BodiesName, FORMAT, FORMAT_KEY, GroupRow, LIVES_COUNT, RowsMut, Table, count, decode, encode, raise,
};
use crate::tables::{ReadRows, WriteRows, definition, failed};
use crate::{Change, GroupRecord, Image, Storage, StorageError};

const DATABASE: &str = "gallery.redb";
const INDEX: &str = "index";
/// Memory for pages. A start reads each page once and a build each template once, so a large cache gains nothing.
const CACHE_BYTES: usize = 32 << 20;
/// Number of the last transaction: tells whether one whose commit failed was made.
const TRANSACTIONS_COUNT: &[u8] = b"transactions";

/// A store in a folder that belongs to this process alone.
#[derive(Debug)]
pub struct DiskStorage {
    folder: PathBuf,
    index: IndexFolder,
    /// `None` after a failure, until it can be opened again.
    database: RwLock<Option<Database>>,
    writer: Mutex<Writer>,
}

/// One transaction at a time.
#[derive(Debug)]
struct Writer {
    /// The last transaction that its caller was told of.
    transactions: u64,
}

/// What the store holds and takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Stored templates of all collections.
    pub templates: u64,
    /// Live groups of all collections.
    pub groups: u64,
    /// Bytes that the database takes on disk.
    pub database_bytes: u64,
    /// Bytes that the packed index takes on disk.
    pub index_bytes: u64,
}

impl DiskStorage {
    /// Opens the store in a folder, or begins one. Folder and files are made for their owner alone.
    ///
    /// # Errors
    /// [`StorageError::InUse`] if the store is open already, [`StorageError::Newer`] if a newer program wrote it,
    /// otherwise what the disk says.
    pub fn open(folder: &Path) -> Result<Self, StorageError> {
        Self::open_within(folder, u64::MAX)
    }

    /// As [`DiskStorage::open`]; at most `index_memory` bytes of the packed index are held in memory of the process's own,
    /// in huge pages where the system grants them. What is beyond is read through memory maps, more slowly. Cold segments are
    /// held only if the whole index fits when they are read.
    ///
    /// # Errors
    /// As [`DiskStorage::open`].
    pub fn open_within(folder: &Path, index_memory: u64) -> Result<Self, StorageError> {
        make_folder(folder).map_err(|error| refused(&error, "the store's folder"))?;
        let database = open_database(folder)?;
        let transactions = transactions(&database)?;
        Ok(Self {
            folder: folder.to_owned(),
            index: IndexFolder::new(folder.join(INDEX), index_memory),
            database: RwLock::new(Some(database)),
            writer: Mutex::new(Writer { transactions }),
        })
    }

    /// What the store holds and takes, for metrics.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn statistics(&self) -> Result<Statistics, StorageError> {
        let (templates, groups) = self.read(|rows| Ok((rows.len(Table::Templates)?, rows.len(Table::Groups)?)))?;
        let database_bytes = bytes_on_disk(&self.folder.join(DATABASE)).map_err(|e| refused(&e, DATABASE))?;
        Ok(Statistics { templates, groups, database_bytes, index_bytes: self.index.bytes() })
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // Held across calls that do not panic; what it guards is one number.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the database and opens it again: after a failure it answers nothing else. Returns the number of the last
    /// transaction.
    fn reopen(&self) -> Result<u64, StorageError> {
        let mut place = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // The old one goes first: it holds the lock.
        *place = None;
        let database = open_database(&self.folder)?;
        let last = transactions(&database)?;
        *place = Some(database);
        Ok(last)
    }

    fn last_transaction(&self) -> Result<u64, StorageError> {
        let last = self.database().as_ref().and_then(|database| transactions(database).ok());
        last.map_or_else(|| self.reopen(), Ok)
    }

    /// Makes sure that the database is open and is the one that callers know of.
    fn ready(&self, writer: &Writer) -> Result<(), StorageError> {
        match self.last_transaction()? {
            last if last == writer.transactions => Ok(()),
            _ => Err(StorageError::Io("a change that was reported as failed was made; load the store again".into())),
        }
    }

    fn read<T>(&self, look: impl Fn(&ReadRows) -> Result<T, StorageError>) -> Result<T, StorageError> {
        let attempt = || match &*self.database() {
            Some(database) => ReadRows::begin(database).and_then(|rows| look(&rows)),
            None => Err(StorageError::Io("the database is closed".into())),
        };
        match attempt() {
            // One failed read or write stops the database until it is opened again.
            Err(StorageError::Io(_) | StorageError::Full(_)) => {
                let _writer = self.writer();
                self.reopen()?;
                attempt()
            }
            result => result,
        }
    }

    /// Runs one transaction; it is durable when this returns, or was not made.
    fn transact(
        &self,
        writer: &mut Writer,
        steps: impl FnOnce(&mut WriteRows<'_>) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.ready(writer)?;
        let failure = match &*self.database() {
            Some(database) => commit(database, steps),
            None => Err(StorageError::Io("the database is closed".into())),
        };
        let failure = match failure {
            Ok(()) => {
                writer.transactions += 1;
                return Ok(());
            }
            Err(misfit @ StorageError::Misfit(_)) => return Err(misfit),
            Err(failure) => failure,
        };
        // Whether a commit that failed was made is known once the database is read again. If it was, one more
        // transaction makes it durable; if that fails too, `ready` lets nothing through until a load.
        let made = self.reopen().is_ok_and(|last| last > writer.transactions);
        let sealed = made && matches!(&*self.database(), Some(database) if commit(database, |_| Ok(())).is_ok());
        if sealed {
            writer.transactions += 2;
            return Ok(());
        }
        Err(failure)
    }
}

/// The files that a transaction makes and unlinks.
struct Shelf<'i> {
    index: &'i IndexFolder,
    kept: Vec<BodiesName>,
    discarded: Vec<BodiesName>,
}

impl BodiesShelf for Shelf<'_> {
    fn keep(&mut self, name: &BodiesName, row: &GroupRow, packed: &PackedGroup) -> Result<(), StorageError> {
        if self.discarded.contains(name) {
            return Err(StorageError::Misfit("bodies are built again in the transaction that discards them".into()));
        }
        self.index.write(name, row, packed)?;
        self.kept.push(name.clone());
        Ok(())
    }

    fn discard(&mut self, name: BodiesName) {
        self.discarded.push(name);
    }
}

impl Storage for DiskStorage {
    fn load(&self) -> Result<Image, StorageError> {
        let mut writer = self.writer();
        writer.transactions = self.last_transaction()?;
        self.transact(&mut writer, |rows| raise(rows, LIVES_COUNT).map(drop))?;
        let database = self.database();
        let Some(open) = &*database else { return Err(StorageError::Io("the database is closed".into())) };
        let rows = ReadRows::begin(open)?;
        self.index.keep_only(&named_bodies(&rows)?);
        let cold_too = self.index.fits();
        read_image(&rows, &|name, row| self.index.map(name, row, cold_too))
    }

    fn apply(&self, changes: &[Change]) -> Result<(), StorageError> {
        let mut writer = self.writer();
        let mut shelf = Shelf { index: &self.index, kept: Vec::new(), discarded: Vec::new() };
        let result = self
            .transact(&mut writer, |rows| changes.iter().try_for_each(|change| carry_out(rows, &mut shelf, change)));
        let unlinked = match &result {
            Ok(()) => shelf.discarded,
            // Not if the outcome is unknown: the file may be named.
            Err(_) if self.ready(&writer).is_ok() => shelf.kept,
            Err(_) => Vec::new(),
        };
        unlinked.iter().for_each(|name| self.index.remove(name));
        result
    }

    fn sealed(&self, collection: &CollectionId, subjects: &[SubjectId]) -> Result<Vec<Option<Vec<u8>>>, StorageError> {
        self.read(|rows| read_sealed(rows, collection, subjects))
    }

    fn mapped(&self, collection: &CollectionId, record: &GroupRecord) -> Option<Segments> {
        let name =
            BodiesName { collection: collection.clone(), group: record.packed.group, revision: record.packed.revision };
        let cold_too = record.packed.cold.is_some() && self.index.fits();
        self.index.map(&name, &group_row(record), cold_too)
    }
}

fn open_database(folder: &Path) -> Result<Database, StorageError> {
    let path = folder.join(DATABASE);
    let new = !path.exists();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| refused(&error, DATABASE))?;
    let backend = FileBackend::new(file).map_err(failed)?;
    let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend).map_err(failed)?;
    if new {
        sync_folder(folder).map_err(|error| refused(&error, "the store's folder"))?;
    }
    let format = stored_format(&database)?;
    match format {
        Some(FORMAT) => Ok(database),
        Some(found) => Err(StorageError::Newer { found, known: FORMAT }),
        None => {
            commit(&database, |rows| rows.put(Table::Counts, FORMAT_KEY, encode(&FORMAT, "the format")?))?;
            Ok(database)
        }
    }
}

/// The format; `None` in a database without tables.
fn stored_format(database: &Database) -> Result<Option<u32>, StorageError> {
    let transaction = database.begin_read().map_err(failed)?;
    if transaction.list_tables().map_err(failed)?.next().is_none() {
        return Ok(None);
    }
    let name = "the format";
    let table = transaction.open_table(definition(Table::Counts.name())).map_err(failed)?;
    let row = table.get(FORMAT_KEY).map_err(failed)?;
    let bytes = row.ok_or_else(|| StorageError::Damaged(format!("{name} is missing")))?;
    decode(bytes.value(), name).map(Some)
}

fn transactions(database: &Database) -> Result<u64, StorageError> {
    count(&ReadRows::begin(database)?, TRANSACTIONS_COUNT)
}

fn commit(
    database: &Database,
    steps: impl FnOnce(&mut WriteRows<'_>) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let mut transaction = database.begin_write().map_err(failed)?;
    transaction.set_durability(Durability::Immediate).map_err(failed)?;
    transaction.set_quick_repair(true);
    let mut rows = WriteRows::begin(&transaction)?;
    let done = steps(&mut rows).and_then(|()| raise(&mut rows, TRANSACTIONS_COUNT));
    drop(rows);
    match done {
        Ok(_) => transaction.commit().map_err(failed),
        Err(error) => {
            // The first error counts; a database that cannot abort is opened again.
            let _ = transaction.abort();
            Err(error)
        }
    }
}
