//! The check of the matcher's sums (DESIGN 3.5): Freivalds with secret, registered check vectors.
//!
//! When a group is built the holders form C_{g,j} = Σ_k ρ_{g,k}·b_{g,j,k} with ρ uniform modulo q, known to them alone,
//! twice (κ = 2). A matcher that changes any A_k or B_k, scans other bodies or leaves some out passes only if a fixed
//! nonzero combination of two uniform ρ vectors vanishes: probability q^−2 < 2^−61.9, whatever it does, because
//! ρ never leaves the holders. The equations are linear in the matcher's sums, so they tell it nothing but "passed".
//! B_k comes folded (see `veilmatch-kernels`); folding is linear and loses nothing about the coefficients βt, so folded
//! values are compared.
//!
//! The right-hand side needs ΣC over all groups, which does not depend on the probe: [`CheckSums`] keeps it between
//! queries. The left-hand side is summed up group by group while the group's sums are at hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use veilmatch_domain::GroupId;
use veilmatch_glwe::{Layout, Parameters, ProbeCiphertext, uniform_residues};
use veilmatch_kernels::{Folding, Ring};
use veilmatch_secret::{Label, Seed};

use crate::registry::RegisteredGroup;

/// κ, the number of independent check vectors.
pub(crate) const CHECKS: usize = 2;

/// One check vector of a group: J polynomials, transformed.
pub(crate) type CheckVector = Vec<u32>;

/// ρ_{g,k} of check `check` for k = 0..r, uniform modulo q.
#[must_use]
pub(crate) fn coefficients(parameters: &Parameters, seed: &Seed, check: usize, layout: Layout) -> Vec<u32> {
    let mut stream = seed.stream(&Label::new("veilmatch/check/rho").number(check as u64));
    uniform_residues(parameters, &mut stream, layout.rank())
}

/// Σ_k ρ_k·b_{j,k} over the bodies of one part (or of the whole group) for every block j.
#[must_use]
pub(crate) fn combine_bodies(
    parameters: &Parameters,
    ring: &Ring,
    layout: Layout,
    rho: &[u32],
    bodies: &[u32],
) -> CheckVector {
    let n = parameters.degree;
    let weights = ring.prepared(rho);
    let mut vector = vec![0u32; bodies.len() / layout.rank()];
    for (sum, block) in vector.chunks_exact_mut(n).zip(bodies.chunks_exact(layout.rank() * n)) {
        ring.combine(&weights, block, sum);
    }
    vector
}

/// The check vectors of a set of groups added up: block by block, the vectors of all checks side by side. Length J·κ·N.
pub(crate) type CheckSum = Arc<Vec<u32>>;

/// Adds the check vectors of a group to a sum, or takes them away.
fn count(ring: &Ring, sum: &mut [u32], group: &RegisteredGroup, add: bool) {
    let n = ring.degree();
    for (block, sums) in sum.chunks_exact_mut(CHECKS * n).enumerate() {
        for (sum, vector) in sums.chunks_exact_mut(n).zip(&group.checks) {
            let Some(vector) = vector.get(block * n..(block + 1) * n) else { continue };
            if add { ring.add_assign(sum, vector) } else { ring.sub_assign(sum, vector) }
        }
    }
}

/// The check vectors of some groups of one block width, added up from nothing.
pub(crate) fn check_sum<'a>(ring: &Ring, groups: impl IntoIterator<Item = &'a RegisteredGroup>) -> CheckSum {
    let mut sum = Vec::new();
    for group in groups {
        sum.resize(length(group), 0);
        count(ring, &mut sum, group, true);
    }
    Arc::new(sum)
}

fn length(group: &RegisteredGroup) -> usize {
    group.checks.iter().map(Vec::len).sum()
}

#[derive(Default)]
struct Counted {
    sum: CheckSum,
    groups: usize,
}

/// ΣC over all live groups of a collection, by block width. Changes are noted when they happen and counted when a query
/// needs the sum: a start adds up everything once, a commit later one group.
#[derive(Default)]
pub(crate) struct CheckSums {
    counted: BTreeMap<usize, Counted>,
    added: BTreeMap<GroupId, Arc<RegisteredGroup>>,
    removed: Vec<Arc<RegisteredGroup>>,
}

impl CheckSums {
    /// A group went live.
    pub(crate) fn put_up(&mut self, group: &Arc<RegisteredGroup>) {
        // Under `paillier` there is nothing to add up.
        if length(group) == 0 {
            return;
        }
        self.added.insert(group.group, Arc::clone(group));
    }

    /// A group that was live is not any more.
    pub(crate) fn take_down(&mut self, group: &Arc<RegisteredGroup>) {
        if self.added.remove(&group.group).is_none() && length(group) > 0 {
            self.removed.push(Arc::clone(group));
        }
    }

    /// The sum over all live groups of this block width, and their number.
    pub(crate) fn of_width(&mut self, ring: &Ring, beta: usize) -> (CheckSum, usize) {
        let removed = std::mem::take(&mut self.removed).into_iter().map(|group| (group, false));
        let added = std::mem::take(&mut self.added).into_values().map(|group| (group, true));
        for (group, add) in removed.chain(added) {
            let counted = self.counted.entry(group.layout.beta()).or_default();
            let sum = Arc::make_mut(&mut counted.sum);
            sum.resize(length(&group).max(sum.len()), 0);
            count(ring, sum, &group, add);
            counted.groups = if add { counted.groups + 1 } else { counted.groups.saturating_sub(1) };
        }
        self.counted.get(&beta).map_or_else(Default::default, |c| (Arc::clone(&c.sum), c.groups))
    }
}

/// What the matcher's sums come to, for all checks: Σ ρ·A whole and Σ ρ·B folded, one check behind the other.
pub(crate) struct LeftSide {
    masks: Vec<u32>,
    scores: Vec<u32>,
}

impl LeftSide {
    /// That of no groups at all.
    pub(crate) fn empty(ring: &Ring, folding: &Folding) -> Self {
        Self { masks: vec![0; CHECKS * ring.degree()], scores: vec![0; CHECKS * folding.points()] }
    }

    /// Adds a group's sums: A_k whole, B_k folded.
    pub(crate) fn add_group(
        &mut self,
        parameters: &Parameters,
        ring: &Ring,
        group: &RegisteredGroup,
        masks: &[u32],
        scores: &[u32],
    ) {
        let points = self.scores.len() / CHECKS;
        let sums = self.masks.chunks_exact_mut(ring.degree()).zip(self.scores.chunks_exact_mut(points));
        for (check, (left_masks, left_scores)) in sums.enumerate() {
            let weights = ring.prepared(&coefficients(parameters, &group.check_seed, check, group.layout));
            ring.combine(&weights, masks, left_masks);
            ring.combine(&weights, scores, left_scores);
        }
    }

    /// Adds what other groups came to.
    pub(crate) fn add(&mut self, ring: &Ring, other: &LeftSide) {
        ring.add_assign(&mut self.masks, &other.masks);
        ring.add_assign(&mut self.scores, &other.scores);
    }

    /// Whether this is what the registered check vectors say: Σ_j p_j·ΣC_j for the probe's masks, and for its bodies.
    pub(crate) fn agrees(&self, ring: &Ring, folding: &Folding, probe: &ProbeCiphertext, sum: &CheckSum) -> bool {
        let n = ring.degree();
        let (mut masks, mut scores) = (vec![0u32; CHECKS * n], Vec::with_capacity(self.scores.len()));
        let mut bodies = vec![0u32; CHECKS * n];
        let blocks = sum.chunks_exact(CHECKS * n).zip(probe.masks.chunks_exact(n).zip(probe.bodies.chunks_exact(n)));
        for (vectors, (mask, body)) in blocks {
            let sums = masks.chunks_exact_mut(n).zip(bodies.chunks_exact_mut(n));
            for ((masks, bodies), vector) in sums.zip(vectors.chunks_exact(n)) {
                ring.multiply_accumulate(masks, mask, vector);
                ring.multiply_accumulate(bodies, body, vector);
            }
        }
        for body in bodies.chunks_exact_mut(n) {
            scores.extend_from_slice(ring.fold(folding, body));
        }
        self.masks == masks && self.scores == scores
    }
}
