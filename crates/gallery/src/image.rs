//! Reads the rows back: the image that the matcher begins a life with, and sealed templates.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;
use veilmatch_domain::{CollectionId, GroupId, Revision, SubjectId, TemplateDigest, Timestamp};
use veilmatch_glwe::{PackedGroup, Segments};

use crate::rows::{
    BodiesName, GroupRow, IntentRow, LIVES_COUNT, Rows, Table, count, decode, read_collection, read_group,
    read_subject, sealed_key, template_key, unguarded,
};
use crate::{CollectionImage, CollectionIndex, GroupRecord, Image, Intent, IntentId, StorageError};

/// Finds the bodies of a group; `None` if they are missing or not what was written.
pub(crate) type FindBodies<'a> = dyn Fn(&BodiesName, &GroupRow) -> Option<Segments> + Sync + 'a;

/// Reads everything but the sealed templates.
pub(crate) fn read_image(rows: &impl Rows, find: &FindBodies<'_>) -> Result<Image, StorageError> {
    let mut collections = read_collections(rows)?;
    read_templates(rows, &mut collections)?;
    rows.scan(Table::Revisions, &mut |key, value| {
        let (collection, rest) = read_collection(key, "the key of a revision")?;
        let revision: Revision = decode(value, "a revision")?;
        image_of(&mut collections, &collection)?.index.used_revision(read_group(rest)?, revision);
        Ok(())
    })?;
    read_groups(rows, find, &mut collections)?;
    collections.values_mut().for_each(|image| image.index.note_pending());
    let intents = read_intents(rows, find, &mut collections)?;
    let mut erased = BTreeMap::new();
    rows.scan(Table::Erased, &mut |key, value| {
        let expires: Timestamp = decode(value, "an expiry")?;
        erased.insert(read_id(key)?, expires);
        Ok(())
    })?;
    for image in collections.values_mut() {
        image.damaged.sort_unstable();
        image.damaged.dedup();
    }
    Ok(Image { lives: count(rows, LIVES_COUNT)?, collections, intents, erased })
}

/// Names of all bodies that are live or wait to be.
pub(crate) fn named_bodies(rows: &impl Rows) -> Result<Vec<BodiesName>, StorageError> {
    let mut names = Vec::new();
    rows.scan(Table::Groups, &mut |key, value| {
        let (collection, rest) = read_collection(key, "the key of a group")?;
        let revision = GroupRow::revision_of(value)?;
        names.push(BodiesName { collection, group: read_group(rest)?, revision });
        Ok(())
    })?;
    rows.scan(Table::Intents, &mut |_, value| {
        let (_, intent): (u64, IntentRow) = decode(value, "an intent")?;
        if let IntentRow::Build { collection, group, row, .. } = intent {
            names.push(BodiesName { collection, group, revision: row.revision });
        }
        Ok(())
    })?;
    Ok(names)
}

/// Sealed templates of subjects that are stored, in order.
pub(crate) fn read_sealed(
    rows: &impl Rows,
    collection: &CollectionId,
    subjects: &[SubjectId],
) -> Result<Vec<Option<Vec<u8>>>, StorageError> {
    let read = |subject: &SubjectId| {
        let Some(digest) = rows.get(Table::Templates, &template_key(collection, subject))? else { return Ok(None) };
        let digest: TemplateDigest = decode(&digest, "a template")?;
        let key = sealed_key(collection, subject, &digest);
        match rows.get(Table::Sealed, &key)? {
            Some(row) => unguarded(&key, row).map(Some),
            None => Err(StorageError::Damaged(format!("the sealed template of {subject} is missing"))),
        }
    };
    subjects.iter().map(read).collect()
}

type Images = BTreeMap<CollectionId, CollectionImage>;

fn read_collections(rows: &impl Rows) -> Result<Images, StorageError> {
    let mut collections = Images::new();
    rows.scan(Table::Descriptions, &mut |key, value| {
        let (collection, _) = read_collection(key, "the key of a description")?;
        let description = decode(value, "a description")?;
        let image = CollectionImage { description, index: CollectionIndex::default(), damaged: Vec::new() };
        collections.insert(collection, image);
        Ok(())
    })?;
    Ok(collections)
}

fn read_templates(rows: &impl Rows, collections: &mut Images) -> Result<(), StorageError> {
    let mut templates: BTreeMap<CollectionId, Vec<(SubjectId, TemplateDigest)>> = BTreeMap::new();
    rows.scan(Table::Templates, &mut |key, value| {
        let (collection, rest) = read_collection(key, "the key of a template")?;
        let digest: TemplateDigest = decode(value, "a template")?;
        templates.entry(collection).or_default().push((read_subject(rest)?, digest));
        Ok(())
    })?;
    for (collection, templates) in templates {
        image_of(collections, &collection)?.index = CollectionIndex::of_templates(templates);
    }
    Ok(())
}

fn image_of<'i>(images: &'i mut Images, collection: &CollectionId) -> Result<&'i mut CollectionImage, StorageError> {
    images
        .get_mut(collection)
        .ok_or_else(|| StorageError::Damaged(format!("the description of {collection} is missing")))
}

fn read_id(key: &[u8]) -> Result<IntentId, StorageError> {
    key.try_into().map(IntentId).map_err(|_| StorageError::Damaged("the id of an intent cannot be read".into()))
}

/// What stands for bodies that are missing or damaged.
fn lost() -> Segments {
    (Vec::new().into(), None)
}

fn record(group: GroupId, row: GroupRow, (bodies, cold): Segments) -> Arc<GroupRecord> {
    let GroupRow { revision, epoch, layout, members, .. } = row;
    Arc::new(GroupRecord { packed: PackedGroup { group, revision, epoch, layout, bodies, cold }, members })
}

fn read_groups(rows: &impl Rows, find: &FindBodies<'_>, collections: &mut Images) -> Result<(), StorageError> {
    let mut groups = Vec::new();
    rows.scan(Table::Groups, &mut |key, value| {
        let (collection, rest) = read_collection(key, "the key of a group")?;
        let row: GroupRow = decode(value, "a group")?;
        groups.push((BodiesName { collection, group: read_group(rest)?, revision: row.revision }, row));
        Ok(())
    })?;
    // Reading and hashing every file is most of a start: all processors do it.
    let found: Vec<Option<Segments>> = groups.par_iter().map(|(name, row)| find(name, row)).collect();
    for ((name, row), bodies) in groups.into_iter().zip(found) {
        let image = image_of(collections, &name.collection)?;
        image.index.used_revision(name.group, name.revision);
        if bodies.is_none() {
            image.damaged.push(name.group);
        }
        image.index.commit(record(name.group, row, bodies.unwrap_or_else(lost)), &[]);
        if image.damaged.last() == Some(&name.group) {
            image.index.must_rebuild(name.group);
        }
    }
    Ok(())
}

fn read_intents(
    rows: &impl Rows,
    find: &FindBodies<'_>,
    collections: &mut Images,
) -> Result<Vec<(IntentId, Intent)>, StorageError> {
    let mut placed = Vec::new();
    rows.scan(Table::Intents, &mut |key, value| {
        let (place, intent): (u64, IntentRow) = decode(value, "an intent")?;
        let intent = match intent {
            IntentRow::Admission { collection, templates } => Intent::Admission { collection, templates },
            IntentRow::Build { collection, group, row, replaces } => {
                let name = BodiesName { collection: collection.clone(), group, revision: row.revision };
                let bodies = find(&name, &row).unwrap_or_else(|| {
                    if let Some(image) = collections.get_mut(&collection) {
                        image.damaged.push(group);
                    }
                    lost()
                });
                Intent::Build { collection, record: record(group, row, bodies), replaces }
            }
            IntentRow::Erasure { collection, subject, digest, request, expires } => {
                Intent::Erasure { collection, subject, digest, request, expires }
            }
        };
        placed.push((place, read_id(key)?, intent));
        Ok(())
    })?;
    placed.sort_unstable_by_key(|(place, ..)| *place);
    Ok(placed.into_iter().map(|(_, id, intent)| (id, intent)).collect())
}
