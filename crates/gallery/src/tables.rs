//! The rows as tables of redb.

use redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction,
};

use crate::StorageError;
use crate::files::refused;
use crate::rows::{Each, Rows, RowsMut, Table};

type Bytes = &'static [u8];

pub(crate) fn definition(name: &'static str) -> TableDefinition<'static, Bytes, Bytes> {
    TableDefinition::new(name)
}

/// What redb reports, in our words.
pub(crate) fn failed(error: impl Into<redb::Error>) -> StorageError {
    match error.into() {
        redb::Error::Io(error) => refused(&error, "the database"),
        error @ (redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch) => {
            StorageError::InUse(error.to_string())
        }
        error @ (redb::Error::Corrupted(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::UpgradeRequired(_)) => StorageError::Damaged(error.to_string()),
        error => StorageError::Io(error.to_string()),
    }
}

/// All tables as they were when this began.
pub(crate) struct ReadRows {
    tables: Vec<ReadOnlyTable<Bytes, Bytes>>,
}

impl ReadRows {
    pub(crate) fn begin(database: &Database) -> Result<Self, StorageError> {
        let transaction = database.begin_read().map_err(failed)?;
        let open = |table: Table| transaction.open_table(definition(table.name())).map_err(failed);
        Ok(Self { tables: Table::ALL.into_iter().map(open).collect::<Result<_, _>>()? })
    }

    /// Number of rows.
    pub(crate) fn len(&self, table: Table) -> Result<u64, StorageError> {
        named(&self.tables, table)?.len().map_err(failed)
    }
}

/// All tables in a transaction that changes them.
pub(crate) struct WriteRows<'t> {
    tables: Vec<redb::Table<'t, Bytes, Bytes>>,
}

impl<'t> WriteRows<'t> {
    /// Opens the tables, and makes those that are not there.
    pub(crate) fn begin(transaction: &'t WriteTransaction) -> Result<Self, StorageError> {
        let open = |table: Table| transaction.open_table(definition(table.name())).map_err(failed);
        Ok(Self { tables: Table::ALL.into_iter().map(open).collect::<Result<_, _>>()? })
    }

    fn table(&mut self, table: Table) -> Result<&mut redb::Table<'t, Bytes, Bytes>, StorageError> {
        self.tables.get_mut(table as usize).ok_or_else(missing)
    }
}

fn missing() -> StorageError {
    StorageError::Damaged("a table is missing".into())
}

/// Tables are opened in the order of [`Table::ALL`], which is that of [`Table`].
fn named<T>(tables: &[T], table: Table) -> Result<&T, StorageError> {
    tables.get(table as usize).ok_or_else(missing)
}

fn get(table: &impl ReadableTable<Bytes, Bytes>, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
    Ok(table.get(key).map_err(failed)?.map(|row| row.value().to_vec()))
}

fn scan(table: &impl ReadableTable<Bytes, Bytes>, each: &mut Each<'_>) -> Result<(), StorageError> {
    for row in table.iter().map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        each(key.value(), value.value())?;
    }
    Ok(())
}

impl Rows for ReadRows {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        get(named(&self.tables, table)?, key)
    }

    fn scan(&self, table: Table, each: &mut Each<'_>) -> Result<(), StorageError> {
        scan(named(&self.tables, table)?, each)
    }
}

impl Rows for WriteRows<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        get(named(&self.tables, table)?, key)
    }

    fn scan(&self, table: Table, each: &mut Each<'_>) -> Result<(), StorageError> {
        scan(named(&self.tables, table)?, each)
    }
}

impl RowsMut for WriteRows<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) -> Result<(), StorageError> {
        self.table(table)?.insert(key, value.as_slice()).map_err(failed).map(drop)
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), StorageError> {
        self.table(table)?.remove(key).map_err(failed).map(drop)
    }
}
