//! What each change does to the rows: the rules of the store, the same for every back end.

use std::collections::BTreeSet;

use borsh::BorshDeserialize;
use veilmatch_domain::{CollectionId, GroupId, Revision, SubjectId, TemplateDigest};
use veilmatch_glwe::PackedGroup;

use crate::rows::{
    BodiesName, DECISIONS_COUNT, GroupRow, IntentRow, RowsMut, Table, collection_key, decode, encode, group_key,
    guarded, raise, sealed_key, template_key,
};
use crate::{Change, GroupRecord, Intent, IntentId, StorageError};

/// Where the bodies of groups are kept.
pub(crate) trait BodiesShelf {
    /// Keeps bodies; they are durable when this returns, and gone again if the transaction fails.
    fn keep(&mut self, name: &BodiesName, row: &GroupRow, packed: &PackedGroup) -> Result<(), StorageError>;

    /// Marks bodies to be removed once the transaction is durable.
    fn discard(&mut self, name: BodiesName);
}

fn misfit<T>(what: impl Into<String>) -> Result<T, StorageError> {
    Err(StorageError::Misfit(what.into()))
}

fn row<T: BorshDeserialize>(
    rows: &impl RowsMut,
    table: Table,
    key: &[u8],
    what: &str,
) -> Result<Option<T>, StorageError> {
    rows.get(table, key)?.map(|bytes| decode(&bytes, what)).transpose()
}

fn described(rows: &impl RowsMut, collection: &CollectionId) -> Result<(), StorageError> {
    match rows.get(Table::Descriptions, &collection_key(collection))? {
        Some(_) => Ok(()),
        None => misfit(format!("collection {collection} was not described")),
    }
}

/// Carries out one change. After an error the transaction must be abandoned.
pub(crate) fn carry_out(
    rows: &mut impl RowsMut,
    shelf: &mut impl BodiesShelf,
    change: &Change,
) -> Result<(), StorageError> {
    match change {
        Change::Describe { collection, description } => {
            rows.put(Table::Descriptions, &collection_key(collection), encode(description, "a description")?)
        }
        Change::UseRevision { collection, group, revision } => {
            described(rows, collection)?;
            match highest_revision(rows, collection, *group)? {
                Some(highest) if *revision <= highest => {
                    misfit(format!("revision {revision} of group {group} follows revision {highest}"))
                }
                _ => use_revision(rows, collection, *group, *revision),
            }
        }
        Change::Decide { id, intent, sealed } => decide(rows, shelf, id, intent, sealed),
        Change::Settle { id } => settle(rows, shelf, id),
        Change::Withdraw { id } => withdraw(rows, shelf, id),
        Change::DropGroup { collection, group } => {
            described(rows, collection)?;
            drop_group(rows, shelf, collection, *group)
        }
        Change::ForgetErasure { id } => rows.remove(Table::Erased, &id.0),
    }
}

fn highest_revision(
    rows: &impl RowsMut,
    collection: &CollectionId,
    group: GroupId,
) -> Result<Option<Revision>, StorageError> {
    row(rows, Table::Revisions, &group_key(collection, group), "a revision")
}

fn use_revision(
    rows: &mut impl RowsMut,
    collection: &CollectionId,
    group: GroupId,
    revision: Revision,
) -> Result<(), StorageError> {
    let highest = highest_revision(rows, collection, group)?.map_or(revision, |highest| highest.max(revision));
    rows.put(Table::Revisions, &group_key(collection, group), encode(&highest, "a revision")?)
}

/// All intents that wait.
fn waiting(rows: &impl RowsMut) -> Result<Vec<IntentRow>, StorageError> {
    let mut intents = Vec::new();
    rows.scan(Table::Intents, &mut |_, value| {
        let (_, intent): (u64, IntentRow) = decode(value, "an intent")?;
        intents.push(intent);
        Ok(())
    })?;
    Ok(intents)
}

fn decide(
    rows: &mut impl RowsMut,
    shelf: &mut impl BodiesShelf,
    id: &IntentId,
    intent: &Intent,
    sealed: &[Vec<u8>],
) -> Result<(), StorageError> {
    let new = intent_row(intent);
    if let Some((_, known)) = row::<(u64, IntentRow)>(rows, Table::Intents, &id.0, "an intent")? {
        return if known == new && same_sealed(rows, &known, sealed)? {
            Ok(())
        } else {
            misfit(format!("{id:?} was decided with other content"))
        };
    }
    if rows.get(Table::Erased, &id.0)?.is_some() {
        return misfit(format!("{id:?} is done"));
    }
    match &new {
        IntentRow::Admission { collection, templates } => admit(rows, collection, templates, sealed)?,
        IntentRow::Build { collection, group, row, .. } => {
            let Intent::Build { record, .. } = intent else { return misfit("a build without bodies") };
            check_no_sealed(sealed)?;
            check_build(rows, collection, *group, row)?;
            use_revision(rows, collection, *group, row.revision)?;
            let name = BodiesName { collection: collection.clone(), group: *group, revision: row.revision };
            shelf.keep(&name, row, &record.packed)?;
        }
        IntentRow::Erasure { collection, subject, digest, .. } => {
            check_no_sealed(sealed)?;
            if stored_digest(rows, collection, subject)? != Some(*digest) {
                return misfit("the template that is to be erased is not stored");
            }
        }
    }
    let place = raise(rows, DECISIONS_COUNT)?;
    rows.put(Table::Intents, &id.0, encode(&(place, &new), "an intent")?)
}

fn intent_row(intent: &Intent) -> IntentRow {
    match intent {
        Intent::Admission { collection, templates } => {
            IntentRow::Admission { collection: collection.clone(), templates: templates.clone() }
        }
        Intent::Build { collection, record, replaces } => IntentRow::Build {
            collection: collection.clone(),
            group: record.packed.group,
            row: group_row(record),
            replaces: replaces.clone(),
        },
        Intent::Erasure { collection, subject, digest, request, expires } => IntentRow::Erasure {
            collection: collection.clone(),
            subject: subject.clone(),
            digest: *digest,
            request: request.clone(),
            expires: *expires,
        },
    }
}

/// The row of a group; hashes its bodies.
pub(crate) fn group_row(record: &GroupRecord) -> GroupRow {
    let PackedGroup { bodies, cold, .. } = &record.packed;
    let cold = cold.as_ref().map(|cold| (cold.from, &*cold.bodies));
    GroupRow {
        revision: record.packed.revision,
        epoch: record.packed.epoch,
        layout: record.packed.layout,
        members: record.members.clone(),
        words: bodies.len() as u64 + cold.map_or(0, |(_, words)| words.len() as u64),
        checksum: checksum(bodies, cold),
    }
}

/// BLAKE3 of words as little-endian bytes; of two segments, of both one behind the other and of where they were cut.
pub(crate) fn checksum(words: &[u32], cold: Option<(usize, &[u32])>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update_rayon(bytemuck::cast_slice(words));
    if let Some((from, words_behind)) = cold {
        hasher.update_rayon(bytemuck::cast_slice(words_behind));
        hasher.update(&(from as u64).to_le_bytes()).update(&(words.len() as u64).to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

fn check_no_sealed(sealed: &[Vec<u8>]) -> Result<(), StorageError> {
    if sealed.is_empty() { Ok(()) } else { misfit("only an admission brings sealed templates") }
}

fn same_sealed(rows: &impl RowsMut, intent: &IntentRow, sealed: &[Vec<u8>]) -> Result<bool, StorageError> {
    let IntentRow::Admission { collection, templates } = intent else { return Ok(sealed.is_empty()) };
    if templates.len() != sealed.len() {
        return Ok(false);
    }
    for ((subject, digest), bytes) in templates.iter().zip(sealed) {
        let key = sealed_key(collection, subject, digest);
        if rows.get(Table::Sealed, &key)? != Some(guarded(&key, bytes)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn stored_digest(
    rows: &impl RowsMut,
    collection: &CollectionId,
    subject: &SubjectId,
) -> Result<Option<TemplateDigest>, StorageError> {
    row(rows, Table::Templates, &template_key(collection, subject), "a template")
}

fn admit(
    rows: &mut impl RowsMut,
    collection: &CollectionId,
    templates: &[(SubjectId, TemplateDigest)],
    sealed: &[Vec<u8>],
) -> Result<(), StorageError> {
    described(rows, collection)?;
    if templates.len() != sealed.len() {
        return misfit(format!("{} sealed templates for {} subjects", sealed.len(), templates.len()));
    }
    let others = waiting(rows)?;
    let mut taken: BTreeSet<&SubjectId> = BTreeSet::new();
    for other in &others {
        if let IntentRow::Admission { collection: there, templates } = other
            && there == collection
        {
            taken.extend(templates.iter().map(|(subject, _)| subject));
        }
    }
    for ((subject, digest), bytes) in templates.iter().zip(sealed) {
        // One that is stored is superseded when the intent is settled.
        if !taken.insert(subject) || stored_digest(rows, collection, subject)? == Some(*digest) {
            return misfit(format!("subject {subject} has this template, or another is on its way"));
        }
        let key = sealed_key(collection, subject, digest);
        rows.put(Table::Sealed, &key, guarded(&key, bytes))?;
    }
    Ok(())
}

fn check_build(
    rows: &impl RowsMut,
    collection: &CollectionId,
    group: GroupId,
    new: &GroupRow,
) -> Result<(), StorageError> {
    described(rows, collection)?;
    let live: Option<GroupRow> = row(rows, Table::Groups, &group_key(collection, group), "a group")?;
    let passed = live.is_some_and(|live| live.revision >= new.revision);
    if passed {
        return misfit(format!("revision {} of group {group} was built", new.revision));
    }
    // So a group's revisions become live in the order of their decisions, and no two files have one name.
    let waits = waiting(rows)?.iter().any(
        |other| matches!(other, IntentRow::Build { collection: c, group: g, .. } if c == collection && *g == group),
    );
    if waits { misfit(format!("another build of group {group} waits")) } else { Ok(()) }
}

fn take_intent(rows: &mut impl RowsMut, id: &IntentId) -> Result<IntentRow, StorageError> {
    let Some((_, intent)) = row::<(u64, IntentRow)>(rows, Table::Intents, &id.0, "an intent")? else {
        return misfit(format!("{id:?} does not wait"));
    };
    rows.remove(Table::Intents, &id.0)?;
    Ok(intent)
}

fn settle(rows: &mut impl RowsMut, shelf: &mut impl BodiesShelf, id: &IntentId) -> Result<(), StorageError> {
    match take_intent(rows, id)? {
        IntentRow::Admission { collection, templates } => {
            for (subject, digest) in &templates {
                if let Some(superseded) = stored_digest(rows, &collection, subject)?
                    && superseded != *digest
                {
                    rows.remove(Table::Sealed, &sealed_key(&collection, subject, &superseded))?;
                }
                rows.put(Table::Templates, &template_key(&collection, subject), encode(digest, "a template")?)?;
            }
            Ok(())
        }
        IntentRow::Build { collection, group, row: new, replaces } => {
            for old in replaces.iter().chain([&group]) {
                drop_group(rows, shelf, &collection, *old)?;
            }
            rows.put(Table::Groups, &group_key(&collection, group), encode(&new, "a group")?)
        }
        IntentRow::Erasure { collection, subject, digest, expires, .. } => {
            if stored_digest(rows, &collection, &subject)? == Some(digest) {
                rows.remove(Table::Templates, &template_key(&collection, &subject))?;
                rows.remove(Table::Sealed, &sealed_key(&collection, &subject, &digest))?;
            }
            rows.put(Table::Erased, &id.0, encode(&expires, "an expiry")?)
        }
    }
}

fn withdraw(rows: &mut impl RowsMut, shelf: &mut impl BodiesShelf, id: &IntentId) -> Result<(), StorageError> {
    match take_intent(rows, id)? {
        IntentRow::Admission { collection, templates } => templates
            .iter()
            .try_for_each(|(subject, digest)| rows.remove(Table::Sealed, &sealed_key(&collection, subject, digest))),
        IntentRow::Build { collection, group, row, .. } => {
            shelf.discard(BodiesName { collection, group, revision: row.revision });
            Ok(())
        }
        IntentRow::Erasure { .. } => Ok(()),
    }
}

fn drop_group(
    rows: &mut impl RowsMut,
    shelf: &mut impl BodiesShelf,
    collection: &CollectionId,
    group: GroupId,
) -> Result<(), StorageError> {
    let key = group_key(collection, group);
    if let Some(live) = row::<GroupRow>(rows, Table::Groups, &key, "a group")? {
        rows.remove(Table::Groups, &key)?;
        shelf.discard(BodiesName { collection: collection.clone(), group, revision: live.revision });
    }
    Ok(())
}
