//! One collection as the matcher stores it.

use std::collections::BTreeMap;

use veilmatch_domain::{GroupId, Revision, SubjectId, TemplateDigest};
use veilmatch_glwe::{BuildOrder, PackedGroup};

/// A sealed template and where it is indexed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTemplate {
    /// The encoded sealed template.
    pub sealed: Vec<u8>,
    /// What it is known by.
    pub digest: TemplateDigest,
    /// The group that holds it, once it is indexed.
    pub group: Option<GroupId>,
}

/// A live packed group and its members by slot.
#[derive(Clone, Debug)]
pub struct GroupRecord {
    /// The bodies.
    pub packed: PackedGroup,
    /// Members by ascending slot.
    pub members: Vec<(u32, SubjectId)>,
}

/// Sealed templates and packed groups of one collection.
#[derive(Debug, Default)]
pub struct CollectionIndex {
    templates: BTreeMap<SubjectId, StoredTemplate>,
    groups: BTreeMap<GroupId, GroupRecord>,
    revisions: BTreeMap<GroupId, Revision>,
}

impl CollectionIndex {
    /// Stores an admitted template that is not indexed yet. Returns `false`, changing nothing, if the subject has one.
    pub fn insert(&mut self, subject: SubjectId, digest: TemplateDigest, sealed: Vec<u8>) -> bool {
        if self.templates.contains_key(&subject) {
            return false;
        }
        self.templates.insert(subject, StoredTemplate { sealed, digest, group: None });
        true
    }

    /// Removes a subject's sealed template; the group that held it must be rebuilt or dropped.
    pub fn remove(&mut self, subject: &SubjectId) -> Option<StoredTemplate> {
        self.templates.remove(subject)
    }

    /// A subject's sealed template.
    #[must_use]
    pub fn template(&self, subject: &SubjectId) -> Option<&StoredTemplate> {
        self.templates.get(subject)
    }

    /// All subjects with their templates, in order.
    pub fn templates(&self) -> impl Iterator<Item = (&SubjectId, &StoredTemplate)> {
        self.templates.iter()
    }

    /// Subjects that are stored but not indexed.
    #[must_use]
    pub fn pending(&self) -> Vec<SubjectId> {
        self.templates.iter().filter(|(_, t)| t.group.is_none()).map(|(s, _)| s.clone()).collect()
    }

    /// Live groups by ascending id.
    pub fn groups(&self) -> impl Iterator<Item = &GroupRecord> {
        self.groups.values()
    }

    /// A live group.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<&GroupRecord> {
        self.groups.get(&group)
    }

    /// A group id that was never used here.
    #[must_use]
    pub fn fresh_group(&self) -> GroupId {
        GroupId(self.revisions.keys().next_back().map_or(0, |g| g.0 + 1))
    }

    /// The revision above every one that was ever ordered for a group; ordering it uses it up.
    pub fn next_revision(&mut self, group: GroupId) -> Revision {
        let next = Revision(self.revisions.get(&group).map_or(0, |r| r.0 + 1));
        self.revisions.insert(group, next);
        next
    }

    /// Takes a committed build into the index and drops the groups that it replaces.
    pub fn commit(&mut self, order: &BuildOrder, members: Vec<(u32, SubjectId)>, bodies: Vec<u32>) {
        for old in order.replaces.iter().chain([&order.group]) {
            self.groups.remove(old);
        }
        for (_, subject) in &members {
            if let Some(template) = self.templates.get_mut(subject) {
                template.group = Some(order.group);
            }
        }
        let packed = PackedGroup {
            group: order.group,
            revision: order.revision,
            epoch: order.epoch,
            layout: order.layout,
            bodies,
        };
        self.groups.insert(order.group, GroupRecord { packed, members });
    }

    /// Drops a group that has no members left.
    pub fn drop_group(&mut self, group: GroupId) {
        self.groups.remove(&group);
    }

    /// Number of sealed templates.
    #[must_use]
    pub fn len(&self) -> usize {
        self.templates.len()
    }

    /// Whether nothing is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.templates.is_empty()
    }
}
