//! The check of the matcher's sums (DESIGN 3.5): Freivalds with secret, registered check vectors.
//!
//! When a group is built the holders form C_{g,j} = Σ_k ρ_{g,k}·b_{g,j,k} with ρ uniform modulo q, known to them alone,
//! twice (κ = 2). A matcher that changes any A_k or B_k, scans other bodies or leaves some out passes only if a fixed
//! nonzero combination of two uniform ρ vectors vanishes: probability q^−2 < 2^−61.9, whatever it does, because
//! ρ never leaves the holders. The equations are linear in the matcher's sums, so they tell it nothing but "passed".

use veilmatch_domain::Dimension;
use veilmatch_glwe::{Layout, Parameters, uniform_polynomial};
use veilmatch_kernels::{Accumulator, Ring};
use veilmatch_secret::{Label, Seed};

/// κ, the number of independent check vectors.
pub(crate) const CHECKS: usize = 2;

/// One check vector of a group, or the sum of those of several groups: J polynomials, transformed.
pub(crate) type CheckVector = Vec<u32>;

/// ρ_{g,k} of check `check` for k = 0..r, uniform modulo q.
#[must_use]
pub(crate) fn coefficients(parameters: &Parameters, seed: &Seed, check: usize, layout: Layout) -> Vec<u32> {
    let mut stream = seed.stream(&Label::new("veilmatch/check/rho").number(check as u64));
    let mut values = uniform_polynomial(parameters, &mut stream);
    values.truncate(layout.rank());
    values
}

/// Σ_k ρ_k·b_{j,k} over the bodies of one part (or of the whole group) for every block j.
#[must_use]
pub(crate) fn combine_bodies(
    parameters: &Parameters,
    ring: &Ring,
    layout: Layout,
    dimension: Dimension,
    rho: &[u32],
    bodies: &[u32],
) -> CheckVector {
    let n = parameters.degree;
    let mut vector = Vec::with_capacity(layout.blocks(dimension) * n);
    for block in bodies.chunks_exact(layout.rank() * n) {
        let mut sum = Accumulator::new(n);
        for (body, &r) in block.chunks_exact(n).zip(rho) {
            sum.accumulate(body, &vec![r; n]);
        }
        vector.extend(sum.finish(ring));
    }
    vector
}

/// Adds Σ_k ρ_k·x_k to `sum` for polynomials x_k (or their picked coefficients) laid out one after the other.
pub(crate) fn combine_sums(ring: &Ring, rho: &[u32], polynomials: &[u32], sum: &mut [u32]) {
    let length = sum.len();
    for (polynomial, &r) in polynomials.chunks_exact(length).zip(rho) {
        ring.multiply_accumulate(sum, polynomial, &vec![r; length]);
    }
}

/// Σ_j p_j·C_j for a probe's masks or bodies and the sum of the check vectors of its groups; transformed.
#[must_use]
pub(crate) fn expected(ring: &Ring, probe: &[u32], check: &[u32]) -> Vec<u32> {
    let n = ring.degree();
    let mut sum = Accumulator::new(n);
    for (p, c) in probe.chunks_exact(n).zip(check.chunks_exact(n)) {
        sum.accumulate(p, c);
    }
    sum.finish(ring)
}
