//! Which templates go into which group with which layout (DESIGN 3.4).
//!
//! Newcomers go into a small group with wide blocks, which is cheap to scan; groups that have grown similar in size
//! are merged in quiet moments (each template is recrypted about log n times in its life), and full groups of the large
//! layout are left alone.

use veilmatch_domain::{GroupId, SubjectId};
use veilmatch_glwe::{Layout, Parameters};

use crate::CollectionIndex;

/// β of large groups.
const NARROW: usize = 4;
/// r of large groups.
const FULL_RANK: usize = 16;
/// Widest blocks that the planner uses: 32 templates per body at N = 2048.
const WIDEST: usize = 64;

/// Members of a group that an addition may grow to by taking small groups along: about what one body holds.
const QUICK: usize = 64;
/// Groups that a merge brings together at least.
const FEWEST_TO_MERGE: usize = 3;

/// A group to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildPlan {
    /// An existing group to rebuild, or `None` for a new one.
    pub group: Option<GroupId>,
    /// Its layout.
    pub layout: Layout,
    /// Its members by ascending slot.
    pub members: Vec<(u32, SubjectId)>,
    /// Other groups whose members it takes.
    pub replaces: Vec<GroupId>,
}

/// The layout that scans `count` templates with the least work: one body with the widest blocks that holds them,
/// otherwise as few bodies of the narrow layout as hold them, at most 16.
#[must_use]
pub fn layout_for(parameters: &Parameters, count: usize) -> Layout {
    let positions = |beta: usize| parameters.degree / beta;
    let mut beta = WIDEST;
    while beta > NARROW && positions(beta) < count {
        beta /= 2;
    }
    let rank = count.div_ceil(positions(beta)).clamp(1, FULL_RANK);
    // β is a power of two up to 64 and 1 ≤ r ≤ 16 by construction; the fallback is never taken.
    Layout::new(beta, rank).unwrap_or_else(|_| unreachable!("planner layouts are valid"))
}

fn numbered(members: &[SubjectId]) -> Vec<(u32, SubjectId)> {
    (0u32..).zip(members.iter().cloned()).collect()
}

/// Plans groups for subjects that are stored but not indexed. They take small groups along as long as that is quick
/// (a client waits); what is left to be merged is [`plan_merge`]'s. No group gets more than `capacity` members.
#[must_use]
pub fn plan_addition<'a>(
    parameters: &Parameters,
    index: &CollectionIndex,
    pending: impl IntoIterator<Item = &'a SubjectId>,
    capacity: usize,
) -> Vec<BuildPlan> {
    let capacity = (FULL_RANK * parameters.degree / NARROW).min(capacity).max(1);
    let pending: Vec<SubjectId> = pending.into_iter().cloned().collect();
    // A replaced group's members all move into the group that replaces it, so what is merged must fit into one group:
    // the newcomers that do not fill a group of their own, and small groups as long as there is room.
    let full = pending.len() / capacity * capacity;
    let (alone, rest) = pending.split_at_checked(full).unwrap_or((&pending, &[]));
    let mut plans: Vec<BuildPlan> = alone.chunks(capacity).map(|chunk| merged(parameters, chunk, Vec::new())).collect();
    if rest.is_empty() {
        return plans;
    }
    let room = QUICK.max(rest.len()).min(capacity);
    let mut members = rest.to_vec();
    let mut replaces = Vec::new();
    for (size, group) in by_size(index, capacity) {
        if size > members.len() || size + members.len() > room {
            break;
        }
        if let Some(record) = index.group(group) {
            members.extend(record.members.iter().filter(|m| index.is_current(m)).map(|m| m.subject.clone()));
            replaces.push(group);
        }
    }
    plans.push(merged(parameters, &members, replaces));
    plans
}

/// Plans the merge of groups that have grown similar in size: each template is rebuilt about log n times in its life,
/// and the number of groups stays about as small. For quiet moments; searches go on meanwhile.
#[must_use]
pub fn plan_merge(parameters: &Parameters, index: &CollectionIndex, capacity: usize) -> Option<BuildPlan> {
    let capacity = (FULL_RANK * parameters.degree / NARROW).min(capacity).max(1);
    let mut members: Vec<SubjectId> = Vec::new();
    let mut replaces = Vec::new();
    for (size, group) in by_size(index, capacity) {
        let similar = replaces.is_empty() || size <= 2 * members.len();
        if !similar || size + members.len() > capacity {
            break;
        }
        if let Some(record) = index.group(group) {
            members.extend(record.members.iter().filter(|m| index.is_current(m)).map(|m| m.subject.clone()));
            replaces.push(group);
        }
    }
    (replaces.len() >= FEWEST_TO_MERGE && !members.is_empty()).then(|| merged(parameters, &members, replaces))
}

/// Groups below capacity, the smallest first.
fn by_size(index: &CollectionIndex, capacity: usize) -> Vec<(usize, GroupId)> {
    let mut small: Vec<(usize, GroupId)> =
        index.groups().map(|g| (g.members.len(), g.packed.group)).filter(|(size, _)| *size < capacity).collect();
    small.sort_unstable();
    small
}

fn merged(parameters: &Parameters, members: &[SubjectId], replaces: Vec<GroupId>) -> BuildPlan {
    BuildPlan { group: None, layout: layout_for(parameters, members.len()), members: numbered(members), replaces }
}

/// Plans a group again without its erased members; `None` if nobody is left.
#[must_use]
pub fn plan_rebuild(parameters: &Parameters, index: &CollectionIndex, group: GroupId) -> Option<BuildPlan> {
    let record = index.group(group)?;
    let members: Vec<SubjectId> =
        record.members.iter().filter(|m| index.is_current(m)).map(|m| m.subject.clone()).collect();
    if members.is_empty() {
        return None;
    }
    let layout = layout_for(parameters, members.len());
    Some(BuildPlan { group: Some(group), layout, members: numbered(&members), replaces: Vec::new() })
}

/// Plans every group again as it is: for a new key epoch.
#[must_use]
pub fn plan_rotation(parameters: &Parameters, index: &CollectionIndex) -> Vec<BuildPlan> {
    index.groups().filter_map(|g| plan_rebuild(parameters, index, g.packed.group)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GroupMember, GroupRecord};
    use std::sync::Arc;
    use veilmatch_domain::{Epoch, TemplateDigest};
    use veilmatch_glwe::{GLWE_2048_V1, PackedGroup};

    const P: Parameters = GLWE_2048_V1;

    fn subjects(range: std::ops::Range<usize>) -> Vec<SubjectId> {
        range.map(|i| SubjectId::new(format!("s{i}")).unwrap()).collect()
    }

    fn store(index: &mut CollectionIndex, subjects: &[SubjectId]) {
        for (i, s) in subjects.iter().enumerate() {
            assert!(index.insert(s.clone(), TemplateDigest([i as u8; 32])));
        }
    }

    fn carry_out(index: &mut CollectionIndex, plans: Vec<BuildPlan>) {
        for plan in plans {
            assert!(plan.members.len() <= plan.layout.capacity(&P));
            let group = plan.group.unwrap_or_else(|| index.fresh_group());
            let packed = PackedGroup {
                group,
                revision: index.next_revision(group),
                epoch: Epoch(0),
                layout: plan.layout,
                bodies: Vec::new().into(),
            };
            let members = plan.members.into_iter().map(|(slot, subject)| {
                let digest = index.template(&subject).unwrap().digest;
                GroupMember { slot, subject, digest }
            });
            let members = members.collect();
            index.commit(Arc::new(GroupRecord { packed, members }), &plan.replaces);
        }
    }

    #[test]
    fn layouts_fit_and_small_groups_have_wide_blocks() {
        for count in [1, 2, 31, 32, 33, 64, 500, 512, 513, 1000, 7701, 8192] {
            assert!(layout_for(&P, count).capacity(&P) >= count, "{count}");
        }
        assert_eq!(layout_for(&P, 1), Layout::new(64, 1).unwrap());
        assert_eq!(layout_for(&P, 1000), Layout::new(4, 2).unwrap());
        assert_eq!(layout_for(&P, 8192), Layout::new(4, 16).unwrap());
    }

    #[test]
    fn newcomers_are_merged_and_nobody_is_lost_or_doubled() {
        let mut index = CollectionIndex::default();
        let mut total = 0;
        for batch in [1usize, 1, 3, 700, 2, 8192, 1, 20_000, 5, 9000] {
            let new = subjects(total..total + batch);
            total += batch;
            store(&mut index, &new);
            let plans = plan_addition(&P, &index, index.pending(), usize::MAX);
            carry_out(&mut index, plans);
            assert!(index.pending().is_empty());
            while let Some(plan) = plan_merge(&P, &index, usize::MAX) {
                carry_out(&mut index, vec![plan]);
            }
            let mut listed: Vec<_> = index.groups().flat_map(|g| g.members.iter().map(|m| m.subject.clone())).collect();
            listed.sort();
            listed.dedup();
            assert_eq!(listed.len(), total);
            assert_eq!(index.groups().map(|g| g.members.len()).sum::<usize>(), total);
        }
        assert!(index.groups().count() < 12, "{} groups", index.groups().count());
    }

    #[test]
    fn a_rebuild_leaves_the_erased_out_and_an_empty_group_is_not_rebuilt() {
        let mut index = CollectionIndex::default();
        let all = subjects(0..3);
        store(&mut index, &all);
        let plans = plan_addition(&P, &index, index.pending(), usize::MAX);
        carry_out(&mut index, plans);
        let group = index.template(&all[1]).unwrap().group.unwrap();
        index.remove(&all[1]);
        assert!(index.overdue().contains(&group));
        let plan = plan_rebuild(&P, &index, group).unwrap();
        assert_eq!(plan.members.iter().map(|(_, s)| s.clone()).collect::<Vec<_>>(), [all[0].clone(), all[2].clone()]);
        carry_out(&mut index, vec![plan]);
        assert_eq!(index.group(group).unwrap().packed.revision.0, 1);
        assert!(index.overdue().is_empty());
        index.remove(&all[0]);
        index.remove(&all[2]);
        assert_eq!(plan_rebuild(&P, &index, group), None);
    }
}
