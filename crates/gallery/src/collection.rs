//! One collection as the matcher keeps it in memory: who is stored, and where each is indexed. No sealed template is
//! kept here: at a million people they would be 7 GB; they are read from the [`Storage`](crate::Storage) when a group is
//! built.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use veilmatch_domain::{GroupId, Revision, SubjectId, TemplateDigest};
use veilmatch_glwe::PackedGroup;

/// A stored template and where it is indexed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTemplate {
    /// What it is known by.
    pub digest: TemplateDigest,
    /// The group that holds it, once it is indexed.
    pub group: Option<GroupId>,
}

/// Who sits at a slot of a group. The digest tells a template from a later one of the same subject.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct GroupMember {
    /// The slot.
    pub slot: u32,
    /// Whose template.
    pub subject: SubjectId,
    /// Which template.
    pub digest: TemplateDigest,
}

/// A packed group and its members by ascending slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// The bodies.
    pub packed: PackedGroup,
    /// Members by ascending slot, as built.
    pub members: Vec<GroupMember>,
}

impl GroupRecord {
    /// Whether its bodies were lost: it cannot be searched until it is rebuilt.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.packed.bodies.is_empty()
    }
}

/// Templates and packed groups of one collection.
#[derive(Clone, Debug, Default)]
pub struct CollectionIndex {
    templates: BTreeMap<SubjectId, StoredTemplate>,
    groups: BTreeMap<GroupId, Arc<GroupRecord>>,
    revisions: BTreeMap<GroupId, Revision>,
    /// Templates without a group, and groups with members that are not current: kept, so that nobody walks a million
    /// templates to find that there is nothing to do.
    pending: BTreeSet<SubjectId>,
    overdue: BTreeSet<GroupId>,
}

impl CollectionIndex {
    /// Stores an admitted template that is not indexed yet, in the place of the subject's earlier one: the group that held that must be
    /// rebuilt or dropped, and is returned. Changes nothing if the subject has this very template.
    pub fn insert(&mut self, subject: SubjectId, digest: TemplateDigest) -> Option<GroupId> {
        if self.templates.get(&subject).is_some_and(|template| template.digest == digest) {
            return None;
        }
        let superseded = self.remove(&subject);
        self.pending.insert(subject.clone());
        self.templates.insert(subject, StoredTemplate { digest, group: None });
        superseded.and_then(|template| template.group)
    }

    /// An index of templates as they are stored, in order; their groups are [committed](Self::commit) next, then
    /// [`note_pending`](Self::note_pending).
    pub(crate) fn of_templates(templates: Vec<(SubjectId, TemplateDigest)>) -> Self {
        // Built at once from sorted rows: a million single insertions take seconds of a start.
        let stored = |(subject, digest)| (subject, StoredTemplate { digest, group: None });
        Self { templates: templates.into_iter().map(stored).collect(), ..Self::default() }
    }

    /// Finds the templates that no group holds.
    pub(crate) fn note_pending(&mut self) {
        let pending = self.templates.iter().filter(|(_, template)| template.group.is_none());
        self.pending = pending.map(|(subject, _)| subject.clone()).collect();
    }

    /// Removes a subject's template; the group that held it must be rebuilt or dropped.
    pub fn remove(&mut self, subject: &SubjectId) -> Option<StoredTemplate> {
        let removed = self.templates.remove(subject)?;
        self.pending.remove(subject);
        self.overdue.extend(removed.group.filter(|group| self.groups.contains_key(group)));
        Some(removed)
    }

    /// A subject's template.
    #[must_use]
    pub fn template(&self, subject: &SubjectId) -> Option<&StoredTemplate> {
        self.templates.get(subject)
    }

    /// All subjects with their templates, in order.
    pub fn templates(&self) -> impl Iterator<Item = (&SubjectId, &StoredTemplate)> {
        self.templates.iter()
    }

    /// The templates that follow a subject in order, for listing by pages.
    pub fn templates_after(&self, after: Option<&SubjectId>) -> impl Iterator<Item = (&SubjectId, &StoredTemplate)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.templates.range::<SubjectId, _>((from, Unbounded))
    }

    /// Whether a member of a group is the template that is stored for its subject: neither erased nor replaced.
    #[must_use]
    pub fn is_current(&self, member: &GroupMember) -> bool {
        self.templates.get(&member.subject).is_some_and(|t| t.digest == member.digest)
    }

    /// Subjects that are stored but not indexed, in order.
    #[must_use]
    pub fn pending(&self) -> &BTreeSet<SubjectId> {
        &self.pending
    }

    /// Groups that carry a member that was erased, or whose bodies are damaged: they must be rebuilt.
    #[must_use]
    pub fn overdue(&self) -> &BTreeSet<GroupId> {
        &self.overdue
    }

    /// Marks a group as one that must be rebuilt: its bodies are damaged. The holders count it as live, so its members may
    /// move nowhere else.
    pub fn must_rebuild(&mut self, group: GroupId) {
        if self.groups.contains_key(&group) {
            self.overdue.insert(group);
        }
    }

    /// Live groups by ascending id.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<GroupRecord>> {
        self.groups.values()
    }

    /// A live group.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<&Arc<GroupRecord>> {
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

    /// Notes a revision that was ordered in an earlier life.
    pub fn used_revision(&mut self, group: GroupId, revision: Revision) {
        let highest = self.revisions.entry(group).or_insert(revision);
        *highest = revision.max(*highest);
    }

    /// Takes a committed build into the index and drops the groups that it replaces.
    pub fn commit(&mut self, record: Arc<GroupRecord>, replaces: &[GroupId]) {
        let group = record.packed.group;
        for old in replaces.iter().chain([&group]) {
            self.drop_group(*old);
        }
        for member in &record.members {
            match self.templates.get_mut(&member.subject) {
                Some(template) if template.digest == member.digest => {
                    template.group = Some(group);
                    self.pending.remove(&member.subject);
                }
                _ => drop(self.overdue.insert(group)),
            }
        }
        self.used_revision(group, record.packed.revision);
        self.groups.insert(group, record);
    }

    /// Drops a group that has no members left, or that another takes the place of. Members that are current wait to be
    /// indexed.
    pub fn drop_group(&mut self, group: GroupId) {
        self.overdue.remove(&group);
        let Some(gone) = self.groups.remove(&group) else { return };
        for member in &gone.members {
            if let Some(template) = self.templates.get_mut(&member.subject)
                && template.group == Some(group)
            {
                template.group = None;
                self.pending.insert(member.subject.clone());
            }
        }
    }

    /// Number of stored templates.
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
