//! What the store keeps, as tables of rows: the form that both back ends share, and any other would.
//!
//! Keys are bytes that sort as the names sort: a collection's name, a zero byte (no name has one), and the rest.
//! Values are canonical borsh.

use borsh::{BorshDeserialize, BorshSerialize};
use veilmatch_domain::{CollectionId, Epoch, GroupId, Revision, SubjectId, TemplateDigest, Timestamp};
use veilmatch_glwe::Layout;

use crate::{GroupMember, StorageError};

/// The format that this program writes.
pub(crate) const FORMAT: u32 = 1;

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    /// One of the `*_COUNT` names or [`FORMAT_KEY`] → number.
    Counts,
    /// Collection → [`Description`](crate::Description).
    Descriptions,
    /// (Collection, subject) → [`TemplateDigest`].
    Templates,
    /// (Collection, subject, digest) → [`guarded`] sealed template. Written when its admission is decided, so that
    /// settling moves no bytes; whether it counts is for `Templates` to say.
    Sealed,
    /// (Collection, group) → [`GroupRow`] that is live.
    Groups,
    /// (Collection, group) → highest [`Revision`] that was ordered or built.
    Revisions,
    /// Intent id → (place in the order of decisions, [`IntentRow`]).
    Intents,
    /// Id of an erasure that is done → [`Timestamp`] of its request's expiry.
    Erased,
}

impl Table {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Table; 8] = [
        Table::Counts,
        Table::Descriptions,
        Table::Templates,
        Table::Sealed,
        Table::Groups,
        Table::Revisions,
        Table::Intents,
        Table::Erased,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Table::Counts => "counts",
            Table::Descriptions => "descriptions",
            Table::Templates => "templates",
            Table::Sealed => "sealed",
            Table::Groups => "groups",
            Table::Revisions => "revisions",
            Table::Intents => "intents",
            Table::Erased => "erased",
        }
    }
}

/// The store's format.
pub(crate) const FORMAT_KEY: &[u8] = b"format";
/// How often the store was loaded.
pub(crate) const LIVES_COUNT: &[u8] = b"lives";
/// How many decisions were stored.
pub(crate) const DECISIONS_COUNT: &[u8] = b"decisions";

/// Rows as a transaction sees them.
pub(crate) trait Rows {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError>;

    /// All rows of a table by ascending key.
    fn scan(&self, table: Table, each: &mut Each<'_>) -> Result<(), StorageError>;
}

/// What looks at each row of a scan.
pub(crate) type Each<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), StorageError> + 'a;

/// Rows that a transaction changes.
pub(crate) trait RowsMut: Rows {
    fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) -> Result<(), StorageError>;
    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), StorageError>;
}

/// A packed group but for its bodies.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct GroupRow {
    pub revision: Revision,
    pub epoch: Epoch,
    pub layout: Layout,
    pub members: Vec<GroupMember>,
    /// How many words the bodies have, in both segments if there are two.
    pub words: u64,
    /// BLAKE3 of the words as little-endian bytes, and of where they are cut if they are.
    pub checksum: [u8; 32],
}

impl GroupRow {
    /// The revision of a row, without reading its members: it stands first.
    pub(crate) fn revision_of(mut row: &[u8]) -> Result<Revision, StorageError> {
        Revision::deserialize(&mut row).map_err(|_| damaged("a group"))
    }
}

/// An intent but for what it stores elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) enum IntentRow {
    Admission {
        collection: CollectionId,
        templates: Vec<(SubjectId, TemplateDigest)>,
    },
    Build {
        collection: CollectionId,
        group: GroupId,
        row: GroupRow,
        replaces: Vec<GroupId>,
    },
    Erasure {
        collection: CollectionId,
        subject: SubjectId,
        digest: TemplateDigest,
        request: Vec<u8>,
        expires: Timestamp,
    },
}

/// The file, or whatever it is, that holds the bodies of one revision of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize)]
pub(crate) struct BodiesName {
    pub collection: CollectionId,
    pub group: GroupId,
    pub revision: Revision,
}

fn joined(collection: &CollectionId, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = collection.as_str().as_bytes().to_vec();
    for part in parts {
        key.push(0);
        key.extend_from_slice(part);
    }
    key
}

pub(crate) fn collection_key(collection: &CollectionId) -> Vec<u8> {
    joined(collection, &[])
}

pub(crate) fn template_key(collection: &CollectionId, subject: &SubjectId) -> Vec<u8> {
    joined(collection, &[subject.as_str().as_bytes()])
}

pub(crate) fn sealed_key(collection: &CollectionId, subject: &SubjectId, digest: &TemplateDigest) -> Vec<u8> {
    joined(collection, &[subject.as_str().as_bytes(), &digest.0])
}

pub(crate) fn group_key(collection: &CollectionId, group: GroupId) -> Vec<u8> {
    joined(collection, &[&group.0.to_be_bytes()])
}

fn damaged(what: &str) -> StorageError {
    StorageError::Damaged(format!("{what} cannot be read"))
}

fn name<T: std::str::FromStr>(bytes: &[u8], what: &str) -> Result<T, StorageError> {
    std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).ok_or_else(|| damaged(what))
}

/// Takes a key apart: the collection, and the rest if there is one.
pub(crate) fn read_collection<'k>(key: &'k [u8], what: &str) -> Result<(CollectionId, &'k [u8]), StorageError> {
    let end = key.iter().position(|byte| *byte == 0).unwrap_or(key.len());
    let (collection, rest) = key.split_at_checked(end).unwrap_or((key, &[]));
    Ok((name(collection, what)?, rest.get(1..).unwrap_or_default()))
}

pub(crate) fn read_subject(rest: &[u8]) -> Result<SubjectId, StorageError> {
    name(rest, "the key of a template")
}

pub(crate) fn read_group(rest: &[u8]) -> Result<GroupId, StorageError> {
    let bytes = rest.try_into().map_err(|_| damaged("the key of a group"))?;
    Ok(GroupId(u64::from_be_bytes(bytes)))
}

/// Encodes a row.
pub(crate) fn encode(row: &impl BorshSerialize, what: &str) -> Result<Vec<u8>, StorageError> {
    // Fails only for a list of more than 2³² entries.
    borsh::to_vec(row).map_err(|_| StorageError::Misfit(format!("{what} is too large")))
}

/// Decodes a row.
pub(crate) fn decode<T: BorshDeserialize>(bytes: &[u8], what: &str) -> Result<T, StorageError> {
    borsh::from_slice(bytes).map_err(|_| damaged(what))
}

/// A count; zero before it was first written.
pub(crate) fn count(rows: &impl Rows, key: &[u8]) -> Result<u64, StorageError> {
    rows.get(Table::Counts, key)?.map_or(Ok(0), |bytes| decode(&bytes, "a count"))
}

/// Raises a count and returns its new value.
pub(crate) fn raise(rows: &mut impl RowsMut, key: &[u8]) -> Result<u64, StorageError> {
    let next = count(rows, key)?.checked_add(1).ok_or_else(|| damaged("a count"))?;
    rows.put(Table::Counts, key, encode(&next, "a count")?)?;
    Ok(next)
}

const GUARD: usize = 16;

fn guard(key: &[u8], sealed: &[u8]) -> [u8; GUARD] {
    let mut guard = [0; GUARD];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(sealed).finalize_xof().fill(&mut guard);
    guard
}

/// Puts a checksum over key and bytes in front of a sealed template: the database checks its pages after a crash, not
/// when it reads them.
pub(crate) fn guarded(key: &[u8], sealed: &[u8]) -> Vec<u8> {
    [&guard(key, sealed), sealed].concat()
}

/// Checks and removes the checksum.
pub(crate) fn unguarded(key: &[u8], mut row: Vec<u8>) -> Result<Vec<u8>, StorageError> {
    match row.split_first_chunk::<GUARD>() {
        Some((found, sealed)) if *found == guard(key, sealed) => Ok(row.split_off(GUARD)),
        _ => Err(StorageError::Damaged("a sealed template is not what was stored".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_apart_as_they_were_joined() {
        let collection = CollectionId::new("faces@hq").unwrap();
        let subject = SubjectId::new("a:1").unwrap();
        let key = template_key(&collection, &subject);
        let (found, rest) = read_collection(&key, "key").unwrap();
        assert_eq!((found, read_subject(rest).unwrap()), (collection.clone(), subject));
        let key = group_key(&collection, GroupId(0x0001_0000_0000_0200));
        let (found, rest) = read_collection(&key, "key").unwrap();
        assert_eq!((found, read_group(rest).unwrap()), (collection.clone(), GroupId(0x0001_0000_0000_0200)));
        assert_eq!(read_collection(&collection_key(&collection), "key").unwrap(), (collection, [].as_slice()));
        assert!(matches!(read_collection(b"\xff\0x", "key"), Err(StorageError::Damaged(_))));
        assert!(matches!(read_group(b"short"), Err(StorageError::Damaged(_))));
    }

    #[test]
    fn a_flipped_bit_and_another_key_are_found() {
        let row = guarded(b"key", b"sealed template");
        assert_eq!(unguarded(b"key", row.clone()).unwrap(), b"sealed template");
        assert!(unguarded(b"kez", row.clone()).is_err());
        for bit in 0..row.len() * 8 {
            let mut flipped = row.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(unguarded(b"key", flipped).is_err());
        }
        assert!(unguarded(b"key", vec![0; GUARD - 1]).is_err());
    }
}
