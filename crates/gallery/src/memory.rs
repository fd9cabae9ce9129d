//! Storage without a disk, for the cluster in one process and for tests. What it remembers lives as long as it does.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use veilmatch_domain::{CollectionId, SubjectId};
use veilmatch_glwe::{PackedGroup, Segments};

use crate::changes::{BodiesShelf, carry_out};
use crate::image::{read_image, read_sealed};
use crate::rows::{BodiesName, Each, GroupRow, LIVES_COUNT, Rows, RowsMut, Table, raise};
use crate::{Change, Image, Storage, StorageError};

/// Keeps everything in memory, sealed templates too. [`load`](Storage::load) again stands for a restart.
#[derive(Default)]
pub struct MemoryStorage {
    kept: Mutex<Kept>,
}

type Key = (Table, Vec<u8>);

#[derive(Default)]
struct Kept {
    rows: BTreeMap<Key, Vec<u8>>,
    bodies: BTreeMap<BodiesName, Segments>,
}

/// A transaction: what it changes, over what is kept.
struct Draft<'k> {
    kept: &'k Kept,
    rows: BTreeMap<Key, Option<Vec<u8>>>,
    bodies: Shelf,
}

#[derive(Default)]
struct Shelf {
    kept: Vec<(BodiesName, Segments)>,
    discarded: Vec<BodiesName>,
}

impl MemoryStorage {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A transaction is merged in steps that do not panic, so what a panicking thread left is whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStorage").field("rows", &self.kept().rows.len()).finish()
    }
}

impl Kept {
    fn transact(&mut self, steps: impl FnOnce(&mut Draft<'_>) -> Result<(), StorageError>) -> Result<(), StorageError> {
        let mut draft = Draft { kept: self, rows: BTreeMap::new(), bodies: Shelf::default() };
        steps(&mut draft)?;
        let Draft { rows, bodies, .. } = draft;
        for (key, value) in rows {
            match value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
        self.bodies.extend(bodies.kept);
        for name in bodies.discarded {
            self.bodies.remove(&name);
        }
        Ok(())
    }

    fn table(&self, table: Table) -> impl Iterator<Item = (&Vec<u8>, &Vec<u8>)> {
        let rows = self.rows.range((table, Vec::new())..).take_while(move |((t, _), _)| *t == table);
        rows.map(|((_, key), value)| (key, value))
    }
}

impl Rows for Kept {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.rows.get(&(table, key.to_vec())).cloned())
    }

    fn scan(&self, table: Table, each: &mut Each<'_>) -> Result<(), StorageError> {
        self.table(table).try_for_each(|(key, value)| each(key, value))
    }
}

impl Rows for Draft<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        match self.rows.get(&(table, key.to_vec())) {
            Some(changed) => Ok(changed.clone()),
            None => self.kept.get(table, key),
        }
    }

    fn scan(&self, table: Table, each: &mut Each<'_>) -> Result<(), StorageError> {
        let mut merged: BTreeMap<&[u8], &[u8]> =
            self.kept.table(table).map(|(key, value)| (key.as_slice(), value.as_slice())).collect();
        for ((t, key), changed) in self.rows.range((table, Vec::new())..) {
            if *t != table {
                break;
            }
            match changed {
                Some(value) => merged.insert(key, value),
                None => merged.remove(key.as_slice()),
            };
        }
        merged.into_iter().try_for_each(|(key, value)| each(key, value))
    }
}

impl RowsMut for Draft<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) -> Result<(), StorageError> {
        self.rows.insert((table, key.to_vec()), Some(value));
        Ok(())
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), StorageError> {
        self.rows.insert((table, key.to_vec()), None);
        Ok(())
    }
}

impl BodiesShelf for Shelf {
    fn keep(&mut self, name: &BodiesName, _row: &GroupRow, packed: &PackedGroup) -> Result<(), StorageError> {
        if self.discarded.contains(name) {
            return Err(StorageError::Misfit("bodies are built again in the transaction that discards them".into()));
        }
        self.kept.push((name.clone(), (packed.bodies.clone(), packed.cold.clone())));
        Ok(())
    }

    fn discard(&mut self, name: BodiesName) {
        self.discarded.push(name);
    }
}

impl Storage for MemoryStorage {
    fn load(&self) -> Result<Image, StorageError> {
        let mut kept = self.kept();
        kept.transact(|draft| raise(draft, LIVES_COUNT).map(drop))?;
        let bodies = &kept.bodies;
        read_image(&*kept, &|name, _| bodies.get(name).cloned())
    }

    fn apply(&self, changes: &[Change]) -> Result<(), StorageError> {
        self.kept().transact(|draft| {
            let mut shelf = Shelf::default();
            changes.iter().try_for_each(|change| carry_out(draft, &mut shelf, change))?;
            draft.bodies = shelf;
            Ok(())
        })
    }

    fn sealed(&self, collection: &CollectionId, subjects: &[SubjectId]) -> Result<Vec<Option<Vec<u8>>>, StorageError> {
        read_sealed(&*self.kept(), collection, subjects)
    }
}
