//! What a store should hold: an independent model that is compared with an image.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use veilmatch_domain::{CollectionId, GroupId, Revision, SubjectId, TemplateDigest, Timestamp};
use veilmatch_gallery::{Change, Description, GroupRecord, Image, Intent, IntentId, Storage};

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) collections: BTreeMap<CollectionId, Collection>,
    /// In the order of their decisions, with the sealed templates they bring.
    pub(crate) intents: Vec<(IntentId, Intent, Vec<Vec<u8>>)>,
    pub(crate) erased: BTreeMap<IntentId, Timestamp>,
}

#[derive(Clone, Debug)]
pub(crate) struct Collection {
    pub(crate) description: Description,
    pub(crate) templates: BTreeMap<SubjectId, (TemplateDigest, Vec<u8>)>,
    pub(crate) groups: BTreeMap<GroupId, Arc<GroupRecord>>,
    pub(crate) revisions: BTreeMap<GroupId, Revision>,
}

/// The change does not fit.
#[derive(Debug, PartialEq)]
pub(crate) struct Unfit;

fn fits(condition: bool) -> Result<(), Unfit> {
    if condition { Ok(()) } else { Err(Unfit) }
}

impl Model {
    /// All changes or none.
    pub(crate) fn apply(&mut self, changes: &[Change]) -> Result<(), Unfit> {
        let mut next = self.clone();
        let mut gone = Vec::new();
        for change in changes {
            next.change(change, &mut gone)?;
        }
        *self = next;
        Ok(())
    }

    fn collection(&mut self, id: &CollectionId) -> Result<&mut Collection, Unfit> {
        self.collections.get_mut(id).ok_or(Unfit)
    }

    fn change(&mut self, change: &Change, gone: &mut Vec<(CollectionId, GroupId, Revision)>) -> Result<(), Unfit> {
        match change {
            Change::Describe { collection, description } => {
                let new = || Collection {
                    description: description.clone(),
                    templates: BTreeMap::new(),
                    groups: BTreeMap::new(),
                    revisions: BTreeMap::new(),
                };
                self.collections.entry(collection.clone()).or_insert_with(new).description = description.clone();
            }
            Change::UseRevision { collection, group, revision } => {
                let revisions = &mut self.collection(collection)?.revisions;
                fits(revisions.get(group).is_none_or(|highest| highest < revision))?;
                revisions.insert(*group, *revision);
            }
            Change::Decide { id, intent, sealed } => {
                if let Some((_, known, brought)) = self.intents.iter().find(|(known, ..)| known == id) {
                    return fits(known == intent && brought == sealed);
                }
                fits(!self.erased.contains_key(id))?;
                self.decide(intent, sealed, gone)?;
                self.intents.push((*id, intent.clone(), sealed.clone()));
            }
            Change::Settle { id } => {
                let (intent, sealed) = self.take(id)?;
                self.settle(id, intent, sealed, gone)?;
            }
            Change::Withdraw { id } => {
                if let (Intent::Build { collection, record, .. }, _) = self.take(id)? {
                    gone.push((collection, record.packed.group, record.packed.revision));
                }
            }
            Change::DropGroup { collection, group } => {
                if let Some(old) = self.collection(collection)?.groups.remove(group) {
                    gone.push((collection.clone(), *group, old.packed.revision));
                }
            }
            Change::ForgetErasure { id } => drop(self.erased.remove(id)),
        }
        Ok(())
    }

    fn take(&mut self, id: &IntentId) -> Result<(Intent, Vec<Vec<u8>>), Unfit> {
        let place = self.intents.iter().position(|(known, ..)| known == id).ok_or(Unfit)?;
        let (_, intent, sealed) = self.intents.remove(place);
        Ok((intent, sealed))
    }

    fn decide(
        &mut self,
        intent: &Intent,
        sealed: &[Vec<u8>],
        gone: &[(CollectionId, GroupId, Revision)],
    ) -> Result<(), Unfit> {
        match intent {
            Intent::Admission { collection: id, templates } => {
                let stored = self.collection(id)?.templates.clone();
                let new = |(s, d): &(SubjectId, TemplateDigest)| stored.get(s).is_none_or(|(known, _)| known != d);
                let mut taken: BTreeSet<SubjectId> = BTreeSet::new();
                for (_, other, _) in &self.intents {
                    if let Intent::Admission { collection, templates } = other
                        && collection == id
                    {
                        taken.extend(templates.iter().map(|(s, _)| s.clone()));
                    }
                }
                let taken = templates.iter().all(|(s, _)| taken.insert(s.clone()));
                fits(sealed.len() == templates.len() && taken && templates.iter().all(new))
            }
            Intent::Build { collection: id, record, .. } => {
                let (group, revision) = (record.packed.group, record.packed.revision);
                let waits = |(_, other, _): &(IntentId, Intent, Vec<Vec<u8>>)| matches!(other, Intent::Build { collection, record, .. } if collection == id && record.packed.group == group);
                fits(sealed.is_empty() && !self.intents.iter().any(waits))?;
                fits(!gone.contains(&(id.clone(), group, revision)))?;
                let collection = self.collection(id)?;
                fits(collection.groups.get(&group).is_none_or(|live| live.packed.revision < revision))?;
                let highest = collection.revisions.entry(group).or_insert(revision);
                *highest = revision.max(*highest);
                Ok(())
            }
            Intent::Erasure { collection, subject, digest, .. } => {
                let stored = self.collection(collection)?.templates.get(subject);
                fits(sealed.is_empty() && stored.is_some_and(|(stored, _)| stored == digest))
            }
        }
    }

    fn settle(
        &mut self,
        id: &IntentId,
        intent: Intent,
        sealed: Vec<Vec<u8>>,
        gone: &mut Vec<(CollectionId, GroupId, Revision)>,
    ) -> Result<(), Unfit> {
        match intent {
            Intent::Admission { collection, templates } => {
                let stored = &mut self.collection(&collection)?.templates;
                stored.extend(templates.into_iter().zip(sealed).map(|((s, d), bytes)| (s, (d, bytes))));
            }
            Intent::Build { collection: id, record, replaces } => {
                let groups = &mut self.collection(&id)?.groups;
                for old in replaces.iter().chain([&record.packed.group]) {
                    if let Some(old) = groups.remove(old) {
                        gone.push((id.clone(), old.packed.group, old.packed.revision));
                    }
                }
                groups.insert(record.packed.group, record);
            }
            Intent::Erasure { collection, subject, digest, expires, .. } => {
                let stored = &mut self.collection(&collection)?.templates;
                if stored.get(&subject).is_some_and(|(stored, _)| *stored == digest) {
                    stored.remove(&subject);
                }
                self.erased.insert(*id, expires);
            }
        }
        Ok(())
    }

    /// How an image and the sealed templates of a store differ from this; `None` if they do not.
    pub(crate) fn difference(&self, image: &Image, storage: &dyn Storage) -> Option<String> {
        let intents: Vec<_> = self.intents.iter().map(|(id, intent, _)| (*id, intent.clone())).collect();
        if intents != image.intents {
            return Some(format!("intents {:?}, not {intents:?}", image.intents));
        }
        if self.erased != image.erased {
            return Some(format!("erased {:?}, not {:?}", image.erased, self.erased));
        }
        if !self.collections.keys().eq(image.collections.keys()) {
            return Some(format!("collections {:?}", image.collections.keys()));
        }
        self.collections.iter().find_map(|(id, collection)| {
            let found = &image.collections[id];
            let mut index = found.index.clone();
            if found.description != collection.description || !found.damaged.is_empty() {
                return Some(format!("{:?}, damaged {:?}", found.description, found.damaged));
            }
            let stored: Vec<_> =
                collection.templates.iter().map(|(s, (d, _))| (s.clone(), *d, collection.group_of(s, d))).collect();
            let listed: Vec<_> = index.templates().map(|(s, t)| (s.clone(), t.digest, t.group)).collect();
            if stored != listed {
                return Some(format!("templates {listed:?}, not {stored:?}"));
            }
            if !index.groups().eq(collection.groups.values()) {
                return Some(format!("groups {:?}", index.groups().map(|g| &g.packed).collect::<Vec<_>>()));
            }
            let unused = GroupId(collection.revisions.keys().next_back().map_or(0, |g| g.0 + 1));
            if index.fresh_group() != unused {
                return Some(format!("the fresh group is {}, not {unused}", index.fresh_group()));
            }
            for group in (0..unused.0).map(GroupId) {
                let next = Revision(collection.revisions.get(&group).map_or(0, |r| r.0 + 1));
                if index.next_revision(group) != next {
                    return Some(format!("the next revision of {group} is not {next}"));
                }
            }
            let subjects: Vec<SubjectId> = collection.templates.keys().cloned().collect();
            let sealed: Vec<_> = collection.templates.values().map(|(_, bytes)| Some(bytes.clone())).collect();
            (storage.sealed(id, &subjects).unwrap() != sealed).then(|| "sealed templates".to_owned())
        })
    }
}

impl Collection {
    /// The group that a template is indexed in: the last one that has it.
    fn group_of(&self, subject: &SubjectId, digest: &TemplateDigest) -> Option<GroupId> {
        let holds = |g: &&Arc<GroupRecord>| g.members.iter().any(|m| m.subject == *subject && m.digest == *digest);
        self.groups.values().rfind(holds).map(|g| g.packed.group)
    }
}
