//! Which templates go into which group with which layout (DESIGN 3.4).
//!
//! All groups of a collection have one block width β at rest, because a probe is recrypted for every width in its scope:
//! d/β polynomials of N words for each of six copies of its parts, whatever the gallery's size. What a width costs per
//! template are the sums that go to the holders, 4(1+β) bytes to each. So the best β for n templates is about √(2·d·N/n),
//! and the width follows the collection's size, with hysteresis: a template is built anew for it each time the collection
//! has grown about fourfold.
//!
//! Newcomers go into a small group; groups that have grown similar in size are merged in quiet moments (each template is
//! built about log n times in its life), and full groups are left alone.

use std::collections::BTreeMap;

use veilmatch_domain::{Dimension, GroupId, SubjectId};
use veilmatch_glwe::{Layout, MAX_RANK, Parameters};

use crate::CollectionIndex;

/// β of large collections, and of the smallest ones.
const NARROWEST: usize = 4;
const WIDEST: usize = 64;
/// Members of the largest group. With β = 4 these are 16 bodies: the holders' part is 1/16 of the scan then.
const LARGEST_GROUP: usize = 8192;
/// Members of a group that an addition may grow to by taking small groups along: a client waits for it.
const QUICK: usize = 64;

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

/// The layout of one group that holds a whole collection of `count` templates, or of the first group of a collection that
/// needs several.
#[must_use]
pub fn layout_for(parameters: &Parameters, dimension: Dimension, count: usize) -> Layout {
    let beta = best_width(parameters, dimension, count);
    layout(parameters, beta, count.min(most_members(parameters, beta)))
}

/// √(3·d·N/n): where one probe polynomial more costs as much as another body's sums. In bytes the two are even at
/// √(2·d·N/n); a probe polynomial also has to be made by six hands, and measured at 1,000 templates the wider layout is
/// faster.
fn ideal_width(parameters: &Parameters, dimension: Dimension, count: usize) -> f64 {
    (3.0 * dimension.get() as f64 * parameters.degree as f64 / count.max(1) as f64).sqrt()
}

/// The ideal rounded to a power of two.
fn best_width(parameters: &Parameters, dimension: Dimension, count: usize) -> usize {
    let ideal = ideal_width(parameters, dimension, count);
    let mut beta = NARROWEST;
    while beta < WIDEST && ideal >= 1.5 * beta as f64 {
        beta *= 2;
    }
    beta
}

/// Whether a collection that has a width keeps it. What was chosen at 0.75 to 1.5 times the ideal is kept over a range
/// that is wider on both sides, so that a collection whose size swings about a border is not rebuilt each time.
fn keeps_width(parameters: &Parameters, dimension: Dimension, count: usize, beta: usize) -> bool {
    let ratio = ideal_width(parameters, dimension, count) / beta as f64;
    let (narrow_enough, wide_enough) = (beta == NARROWEST || ratio >= 0.53, beta == WIDEST || ratio < 2.12);
    narrow_enough && wide_enough
}

/// Members of a full group.
fn most_members(parameters: &Parameters, beta: usize) -> usize {
    (MAX_RANK * parameters.degree / beta).min(LARGEST_GROUP)
}

/// As few bodies as hold `count` templates, at the width or the next narrower one that has room for them.
fn layout(parameters: &Parameters, mut beta: usize, count: usize) -> Layout {
    while beta > NARROWEST && most_members(parameters, beta) < count {
        beta /= 2;
    }
    let rank = count.div_ceil(parameters.degree / beta).clamp(1, MAX_RANK);
    // β is a power of two up to 64 and 1 ≤ r ≤ 32 by construction; the fallback is never taken.
    Layout::new(beta, rank).unwrap_or_else(|_| unreachable!("planner layouts are valid"))
}

/// Stands for a layout where there is none: groups of the scheme `paillier` have slots alone.
const NO_LAYOUT: usize = 1;

fn no_layout() -> Layout {
    Layout::new(NO_LAYOUT, 1).unwrap_or_else(|_| unreachable!("one is a block width and a rank"))
}

fn numbered(members: &[SubjectId]) -> Vec<(u32, SubjectId)> {
    (0u32..).zip(members.iter().cloned()).collect()
}

/// Plans the groups of a collection.
#[derive(Clone, Copy, Debug)]
pub struct Planner<'i> {
    parameters: Parameters,
    index: &'i CollectionIndex,
    beta: usize,
    capacity: usize,
    /// Whether groups are packed ciphertexts of the scheme `paillier`, with so many slots.
    slots: bool,
}

impl<'i> Planner<'i> {
    /// A planner for a collection of a dimension, no group of which gets more than `capacity` members.
    #[must_use]
    pub fn new(parameters: Parameters, dimension: Dimension, capacity: usize, index: &'i CollectionIndex) -> Self {
        let count = index.len();
        let mut beta = match prevailing_width(index) {
            Some(beta) if keeps_width(&parameters, dimension, count, beta) => beta,
            _ => best_width(&parameters, dimension, count),
        };
        // A group's members must stay together, so the largest group must fit at this width.
        let largest = index.groups().map(|g| g.members.len()).max().unwrap_or_default();
        while beta > NARROWEST && most_members(&parameters, beta) < largest {
            beta /= 2;
        }
        let capacity = most_members(&parameters, beta).min(capacity).max(1);
        Self { parameters, index, beta, capacity, slots: false }
    }

    /// A planner for a collection under the scheme `paillier`, whose groups have `slots` slots. Building a group costs the same
    /// however many of them are taken, so newcomers take the free slots of groups that are there.
    #[must_use]
    pub fn of_slots(parameters: Parameters, slots: usize, capacity: usize, index: &'i CollectionIndex) -> Self {
        Self { parameters, index, beta: NO_LAYOUT, capacity: slots.min(capacity).max(1), slots: true }
    }

    /// β of every group that is built now.
    #[must_use]
    pub fn width(&self) -> usize {
        self.beta
    }

    /// Plans groups for subjects that are stored but not indexed. They take small groups along as long as that is quick
    /// (a client waits); what is left to be merged is for [`tidy`](Self::tidy). If more subjects are about to come, only
    /// full groups are planned.
    #[must_use]
    pub fn addition(&self, more_follows: bool) -> Vec<BuildPlan> {
        let mut pending: Vec<SubjectId> = self.index.pending().iter().cloned().collect();
        if self.slots && !more_follows {
            return self.fill_slots(&mut pending);
        }
        // A replaced group's members all move into the group that replaces it, so what is merged must fit into one group:
        // the newcomers that do not fill a group of their own, and small groups as long as there is room.
        let full = pending.len() / self.capacity * self.capacity;
        let (alone, rest) = pending.split_at_checked(full).unwrap_or((&pending, &[]));
        let mut plans: Vec<BuildPlan> =
            alone.chunks(self.capacity).map(|chunk| self.plan(None, chunk, Vec::new())).collect();
        if rest.is_empty() || more_follows {
            return plans;
        }
        let room = QUICK.max(rest.len()).min(self.capacity);
        let mut members = rest.to_vec();
        let mut replaces = Vec::new();
        for (size, group) in self.by_size(|_| true) {
            if size > members.len() || size + members.len() > room {
                break;
            }
            members.extend(self.current(group));
            replaces.push(group);
        }
        plans.push(self.plan(None, &members, replaces));
        plans
    }

    /// Newcomers into the free slots of groups, the fullest first, and into new groups.
    fn fill_slots(&self, pending: &mut Vec<SubjectId>) -> Vec<BuildPlan> {
        let mut plans = Vec::new();
        let current = self.index.groups().map(|g| (self.current(g.packed.group), g.packed.group));
        let mut current: Vec<_> = current.filter(|(members, _)| members.len() < self.capacity).collect();
        current.sort_by_key(|(members, group)| (std::cmp::Reverse(members.len()), *group));
        for (mut members, group) in current {
            let taken = pending.len().min(self.capacity - members.len());
            if taken == 0 {
                break;
            }
            members.extend(pending.drain(..taken));
            plans.push(self.plan(Some(group), &members, Vec::new()));
        }
        plans.extend(pending.chunks(self.capacity).map(|chunk| self.plan(None, chunk, Vec::new())));
        plans
    }

    /// Plans a group again without its erased members; `None` if nobody is left.
    #[must_use]
    pub fn rebuild(&self, group: GroupId) -> Option<BuildPlan> {
        let members = self.current(group);
        (!members.is_empty()).then(|| self.plan(Some(group), &members, Vec::new()))
    }

    /// Plans every group again: for a new key epoch.
    #[must_use]
    pub fn rotation(&self) -> Vec<BuildPlan> {
        self.index.groups().filter_map(|g| self.rebuild(g.packed.group)).collect()
    }

    /// Plans the next step towards rest, for quiet moments; searches go on meanwhile. `None` if all groups have the
    /// collection's width and no two that fit into one are similar in size.
    #[must_use]
    pub fn tidy(&self) -> Option<BuildPlan> {
        self.move_to_width().or_else(|| self.merge())
    }

    /// Groups of another width are built anew, as many together as fit.
    fn move_to_width(&self) -> Option<BuildPlan> {
        let outdated: Vec<_> = self
            .index
            .groups()
            .filter(|g| g.packed.layout.beta() != self.beta)
            .map(|g| (g.members.len(), g.packed.group))
            .collect();
        self.together(outdated, |_, _| true, 1)
    }

    /// Groups that have grown similar in size become one: it is at least half as large again as any of them. At rest each
    /// group is more than twice as large as the next smaller one, or fits with none.
    fn merge(&self) -> Option<BuildPlan> {
        let small = self.by_size(|size| size < self.capacity);
        let similar = |pair: &[(usize, GroupId)]| match pair {
            [(one, _), (next, _)] => *next <= 2 * *one && one + next <= self.capacity,
            _ => false,
        };
        let first = small.windows(2).position(similar)?;
        self.together(small.into_iter().skip(first).collect(), |before, size| size <= 2 * before, 2)
    }

    /// The first groups, in order of size, that fit into one and are each `similar` to those before them together.
    fn together(
        &self,
        mut groups: Vec<(usize, GroupId)>,
        similar: impl Fn(usize, usize) -> bool,
        fewest: usize,
    ) -> Option<BuildPlan> {
        groups.sort_unstable();
        let (mut count, mut replaces) = (0, Vec::new());
        for (size, group) in groups {
            if !replaces.is_empty() && (!similar(count, size) || count + size > self.capacity) {
                break;
            }
            count += size;
            replaces.push(group);
        }
        let members: Vec<SubjectId> = replaces.iter().flat_map(|group| self.current(*group)).collect();
        match replaces.as_slice() {
            _ if replaces.len() < fewest || members.is_empty() => None,
            // Alone it stays what it is, in a new revision.
            [group] => Some(self.plan(Some(*group), &members, Vec::new())),
            _ => Some(self.plan(None, &members, replaces)),
        }
    }

    /// Groups of wanted sizes, the smallest first.
    fn by_size(&self, wanted: impl Fn(usize) -> bool) -> Vec<(usize, GroupId)> {
        let sizes = self.index.groups().map(|g| (g.members.len(), g.packed.group));
        let mut sizes: Vec<(usize, GroupId)> = sizes.filter(|(size, _)| wanted(*size)).collect();
        sizes.sort_unstable();
        sizes
    }

    /// Members of a group that are still stored.
    fn current(&self, group: GroupId) -> Vec<SubjectId> {
        let members = self.index.group(group).map(|record| record.members.as_slice()).unwrap_or_default();
        members.iter().filter(|m| self.index.is_current(m)).map(|m| m.subject.clone()).collect()
    }

    fn plan(&self, group: Option<GroupId>, members: &[SubjectId], replaces: Vec<GroupId>) -> BuildPlan {
        let layout = if self.slots { no_layout() } else { layout(&self.parameters, self.beta, members.len()) };
        BuildPlan { group, layout, members: numbered(members), replaces }
    }
}

/// The width of most members' groups.
fn prevailing_width(index: &CollectionIndex) -> Option<usize> {
    let mut members = BTreeMap::<usize, usize>::new();
    for group in index.groups() {
        *members.entry(group.packed.layout.beta()).or_default() += group.members.len();
    }
    members.into_iter().max_by_key(|(_, members)| *members).map(|(beta, _)| beta)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GroupMember, GroupRecord};
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use veilmatch_domain::{Epoch, TemplateDigest};
    use veilmatch_glwe::{GLWE_2048_V1, PackedGroup};

    const P: Parameters = GLWE_2048_V1;

    fn dimension() -> Dimension {
        Dimension::new(512).unwrap()
    }

    fn planner(index: &CollectionIndex, capacity: usize) -> Planner<'_> {
        Planner::new(P, dimension(), capacity, index)
    }

    fn subjects(range: std::ops::Range<usize>) -> Vec<SubjectId> {
        range.map(|i| SubjectId::new(format!("s{i}")).unwrap()).collect()
    }

    fn store(index: &mut CollectionIndex, subjects: &[SubjectId]) {
        for (i, s) in subjects.iter().enumerate() {
            assert_eq!(index.insert(s.clone(), TemplateDigest([i as u8; 32])), None);
        }
    }

    fn carry_out(index: &mut CollectionIndex, plans: Vec<BuildPlan>) {
        for plan in plans {
            assert!(plan.members.len() <= plan.layout.capacity(&P));
            // What the holders demand: whoever is enrolled in a group that is replaced is in the one that replaces it.
            let members: BTreeSet<_> = plan.members.iter().map(|(_, subject)| subject).collect();
            for old in plan.replaces.iter().chain(&plan.group) {
                let stays = |m: &GroupMember| !index.is_current(m) || members.contains(&m.subject);
                assert!(index.group(*old).is_none_or(|old| old.members.iter().all(stays)));
            }
            let group = plan.group.unwrap_or_else(|| index.fresh_group());
            let packed = PackedGroup {
                group,
                revision: index.next_revision(group),
                epoch: Epoch(0),
                layout: plan.layout,
                bodies: Vec::new().into(),
                cold: None,
            };
            let members = plan.members.into_iter().map(|(slot, subject)| {
                let digest = index.template(&subject).unwrap().digest;
                GroupMember { slot, subject, digest }
            });
            let members = members.collect();
            index.commit(Arc::new(GroupRecord { packed, members }), &plan.replaces);
        }
    }

    fn add(index: &mut CollectionIndex, capacity: usize) {
        let plans = planner(index, capacity).addition(false);
        carry_out(index, plans);
        assert!(index.pending().is_empty());
    }

    /// Members that were built until nothing is left to tidy.
    fn rest(index: &mut CollectionIndex, capacity: usize) -> usize {
        let mut built = 0;
        while let Some(plan) = planner(index, capacity).tidy() {
            built += plan.members.len();
            carry_out(index, vec![plan]);
        }
        built
    }

    #[test]
    fn newcomers_take_free_slots_and_sparse_groups_become_one() {
        let mut index = CollectionIndex::default();
        let slots = |index: &CollectionIndex| -> Vec<usize> { index.groups().map(|g| g.members.len()).collect() };
        fn planner(index: &CollectionIndex) -> Planner<'_> {
            Planner::of_slots(P, 19, usize::MAX, index)
        }
        let mut enrolled = 0;
        for (count, expected) in [(5, vec![5]), (20, vec![19, 6]), (13, vec![19, 19]), (1, vec![19, 19, 1])] {
            store(&mut index, &subjects(enrolled..enrolled + count));
            enrolled += count;
            let plans = planner(&index).addition(false);
            carry_out(&mut index, plans);
            assert_eq!(slots(&index), expected);
        }
        assert_eq!(planner(&index).tidy(), None);
        store(&mut index, &subjects(39..80));
        assert_eq!(planner(&index).addition(true).len(), 2, "while more follow only full groups are built");
        let plans = planner(&index).addition(false);
        carry_out(&mut index, plans);
        assert_eq!(slots(&index), [19, 19, 19, 19, 4]);
        for erased in subjects(0..12).into_iter().chain(subjects(19..34)) {
            let Some(group) = index.remove(&erased).and_then(|t| t.group) else { continue };
            let plan = planner(&index).rebuild(group);
            carry_out(&mut index, plan.into_iter().collect());
        }
        while let Some(plan) = planner(&index).tidy() {
            carry_out(&mut index, vec![plan]);
        }
        let mut sizes = slots(&index);
        sizes.sort_unstable();
        assert_eq!(sizes, [15, 19, 19], "4 and 4 and 7 members share a ciphertext now");
    }

    fn erase(index: &mut CollectionIndex, subject: &SubjectId) {
        let Some(group) = index.remove(subject).and_then(|t| t.group) else { return };
        match planner(index, usize::MAX).rebuild(group) {
            Some(plan) => carry_out(index, vec![plan]),
            None => index.drop_group(group),
        }
    }

    fn widths(index: &CollectionIndex) -> BTreeSet<usize> {
        index.groups().map(|g| g.packed.layout.beta()).collect()
    }

    fn members(index: &CollectionIndex) -> Vec<SubjectId> {
        index.groups().flat_map(|g| g.members.iter().map(|m| m.subject.clone())).collect()
    }

    #[test]
    fn the_width_balances_the_probe_and_the_sums() {
        for (count, beta) in [(1, 64), (1300, 64), (1400, 32), (6000, 16), (25_000, 8), (100_000, 4), (1_000_000, 4)] {
            assert_eq!(layout_for(&P, dimension(), count).beta(), beta, "{count}");
        }
        // A probe of a quarter of the dimensions costs a quarter.
        assert_eq!(layout_for(&P, Dimension::new(128).unwrap(), 1400).beta(), 16);
        assert_eq!(layout_for(&P, dimension(), 1000), Layout::new(64, 32).unwrap());
        assert_eq!(layout_for(&P, dimension(), 8192), Layout::new(16, 32).unwrap());
        assert_eq!(layout_for(&P, dimension(), 1_000_000), Layout::new(4, 16).unwrap());
        for count in [1, 2, 31, 32, 33, 64, 500, 512, 513, 1000, 2048] {
            assert!(layout_for(&P, dimension(), count).capacity(&P) >= count, "{count}");
        }
    }

    #[test]
    fn newcomers_are_merged_and_nobody_is_lost_or_doubled() {
        let mut index = CollectionIndex::default();
        let mut total = 0;
        for batch in [1usize, 1, 3, 700, 2, 8192, 1, 20_000, 5, 9000] {
            let new = subjects(total..total + batch);
            total += batch;
            store(&mut index, &new);
            add(&mut index, usize::MAX);
            rest(&mut index, usize::MAX);
            let mut listed = members(&index);
            listed.sort();
            listed.dedup();
            assert_eq!(listed.len(), total);
            assert_eq!(members(&index).len(), total);
            assert_eq!(widths(&index).len(), 1);
        }
        assert!(index.groups().count() < 12, "{} groups", index.groups().count());
    }

    #[test]
    fn a_bulk_fills_whole_groups_while_more_follows() {
        let mut index = CollectionIndex::default();
        store(&mut index, &subjects(0..8000));
        // All that is stored counts for the width, indexed or not: 4,096 templates are a full group here.
        let plans = planner(&index, usize::MAX).addition(true);
        assert_eq!(plans.iter().map(|p| (p.layout.beta(), p.members.len())).collect::<Vec<_>>(), [(16, 4096)]);
        carry_out(&mut index, plans);
        assert_eq!(planner(&index, usize::MAX).addition(true), []);
        add(&mut index, usize::MAX);
        assert_eq!((index.groups().count(), rest(&mut index, usize::MAX)), (2, 0));
    }

    #[test]
    fn two_similar_groups_are_merged_though_smaller_ones_stand_before_them() {
        let mut index = CollectionIndex::default();
        let all = subjects(0..210);
        for range in [0..100, 100..208, 208..210] {
            store(&mut index, &all[range]);
            add(&mut index, usize::MAX);
        }
        assert_eq!(index.groups().count(), 3);
        let plan = planner(&index, usize::MAX).tidy().unwrap();
        assert_eq!((plan.members.len(), plan.replaces.len()), (208, 2));
        carry_out(&mut index, vec![plan]);
        assert_eq!(planner(&index, usize::MAX).tidy(), None);
    }

    #[test]
    fn growing_one_by_one_rebuilds_each_template_about_log_n_times() {
        let mut index = CollectionIndex::default();
        let mut built = 0;
        let total = 3000;
        for subject in subjects(0..total) {
            store(&mut index, std::slice::from_ref(&subject));
            add(&mut index, usize::MAX);
            built += rest(&mut index, usize::MAX);
        }
        let logarithm = (total as f64).log2();
        assert!((built as f64) < 2.0 * total as f64 * logarithm, "{built}");
        assert!((index.groups().count() as f64) <= logarithm, "{} groups", index.groups().count());
    }

    #[test]
    fn a_size_that_swings_about_a_border_changes_no_width() {
        let mut index = CollectionIndex::default();
        let all = subjects(0..1800);
        store(&mut index, &all[..1250]);
        add(&mut index, usize::MAX);
        assert_eq!(widths(&index), [64].into());
        // A new collection of the larger size would be narrower.
        assert_eq!(layout_for(&P, dimension(), 1450).beta(), 32);
        for _ in 0..2 {
            store(&mut index, &all[1250..1450]);
            add(&mut index, usize::MAX);
            rest(&mut index, usize::MAX);
            assert_eq!(widths(&index), [64].into());
            for subject in &all[1250..1450] {
                erase(&mut index, subject);
            }
        }
        store(&mut index, &all[1250..]);
        add(&mut index, usize::MAX);
        for more in 0..1400 {
            store(&mut index, &[SubjectId::new(format!("more{more}")).unwrap()]);
        }
        add(&mut index, usize::MAX);
        rest(&mut index, usize::MAX);
        assert_eq!(widths(&index), [32].into());
    }

    #[test]
    fn a_group_that_is_too_large_for_wide_blocks_keeps_the_collection_narrow() {
        let mut index = CollectionIndex::default();
        store(&mut index, &subjects(0..120_000));
        add(&mut index, usize::MAX);
        assert_eq!(widths(&index), [4].into());
        // Everybody goes but one full group and one person of each other.
        let full: Vec<GroupId> = index.groups().filter(|g| g.members.len() == 8192).map(|g| g.packed.group).collect();
        for record in index.groups().cloned().collect::<Vec<_>>() {
            if record.packed.group != full[0] {
                for member in record.members.iter().skip(1) {
                    assert!(index.remove(&member.subject).is_some());
                }
            }
        }
        for group in index.overdue().clone() {
            let plan = planner(&index, usize::MAX).rebuild(group).unwrap();
            carry_out(&mut index, vec![plan]);
        }
        rest(&mut index, usize::MAX);
        // 8,192 members need β = 8; their number alone would make it 16.
        assert_eq!(widths(&index), [8].into());
        assert_eq!(members(&index).len(), index.len());
    }

    #[test]
    fn a_rebuild_leaves_the_erased_out_and_an_empty_group_is_not_rebuilt() {
        let mut index = CollectionIndex::default();
        let all = subjects(0..3);
        store(&mut index, &all);
        add(&mut index, usize::MAX);
        let group = index.template(&all[1]).unwrap().group.unwrap();
        index.remove(&all[1]);
        assert!(index.overdue().contains(&group));
        let plan = planner(&index, usize::MAX).rebuild(group).unwrap();
        assert_eq!(plan.members.iter().map(|(_, s)| s.clone()).collect::<Vec<_>>(), [all[0].clone(), all[2].clone()]);
        carry_out(&mut index, vec![plan]);
        assert_eq!(index.group(group).unwrap().packed.revision.0, 1);
        assert!(index.overdue().is_empty());
        index.remove(&all[0]);
        index.remove(&all[2]);
        assert_eq!(planner(&index, usize::MAX).rebuild(group), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// Enrolments and erasures of any sizes: nobody is lost or doubled, the capacity is kept; at rest there is one
        /// width, and groups are few.
        #[test]
        fn any_history_comes_to_rest(
            steps in proptest::collection::vec((any::<bool>(), 1usize..900, any::<bool>()), 1..14),
            capacity in prop_oneof![Just(usize::MAX), 40usize..600],
        ) {
            let mut index = CollectionIndex::default();
            let (mut enrolled, mut next) = (BTreeSet::new(), 0);
            for (erases, count, rests) in steps {
                if erases {
                    for subject in enrolled.iter().step_by(3).take(count).cloned().collect::<Vec<_>>() {
                        enrolled.remove(&subject);
                        erase(&mut index, &subject);
                    }
                } else {
                    let new = subjects(next..next + count);
                    next += count;
                    store(&mut index, &new);
                    enrolled.extend(new);
                    add(&mut index, capacity);
                }
                if rests {
                    rest(&mut index, capacity);
                }
                let listed = members(&index);
                prop_assert_eq!(listed.len(), enrolled.len());
                prop_assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), enrolled.clone());
                prop_assert!(index.groups().all(|g| g.members.len() <= capacity));
            }
            rest(&mut index, capacity);
            prop_assert!(widths(&index).len() <= 1);
            let full = planner(&index, capacity).capacity;
            let most = 2 * enrolled.len() / full + 1 + (full as f64).log2().ceil() as usize;
            prop_assert!(index.groups().count() <= most, "{} groups of at most {}", index.groups().count(), most);
        }
    }
}
