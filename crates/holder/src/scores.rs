//! The holders' side of the scan: mask sums, the check of the matcher's sums, shares of scores (DESIGN 3.5).
//!
//! The score of the template at position t of body k is the coefficient βt of
//! B_k − A_k·s_0 − D·s_k + E·s_0·s_k with D = Σ_j b^p_j·a_j and E = Σ_j a^p_j·a_j, and K_i's additive share of it is
//! local: −A_k·s_0^(i) − D·s_k^(i) + E·(s_0·s_k)^\[i\], plus B_k at K_0.
//!
//! Why the holders compute D and E themselves: whoever chooses them freely and sees a decision has a chosen-ciphertext
//! oracle on the gallery's secrets. What they take from the matcher, A and B, has passed the scan check.

use rayon::prelude::*;
use std::sync::Arc;

use veilmatch_domain::{Party, Threshold};
use veilmatch_glwe::{GroupSums, Layout, Parameters, ProbeCiphertext, decode_polynomials};
use veilmatch_kernels::{Accumulator, Ring, unpack};
use veilmatch_secret::Secret;

use crate::HolderError;
use crate::keys::SecretParts;
use crate::registry::RegisteredGroup;
use crate::scan_check::{CHECKS, coefficients, combine_sums, expected};

/// The matcher's sums over one group, decoded.
pub(crate) struct DecodedSums {
    /// A_k, r·N residues, transformed.
    pub masks: Vec<u32>,
    /// B_k at the coefficients βt, r·N/β residues.
    pub scores: Vec<u32>,
}

/// Decodes the sums of one group.
///
/// # Errors
/// [`HolderError::BadSums`] on another length or values that are not residues.
pub(crate) fn decode_sums(
    parameters: &Parameters,
    layout: Layout,
    sums: &GroupSums,
) -> Result<DecodedSums, HolderError> {
    let bad = |_| HolderError::BadSums { what: "not the expected number of residues" };
    Ok(DecodedSums {
        masks: decode_polynomials(parameters, &sums.masks, layout.rank()).map_err(bad)?,
        scores: unpack(parameters.modulus, &sums.scores, layout.capacity(parameters)).map_err(bad)?,
    })
}

/// Checks the sums over all groups of one block width against their registered check vectors.
///
/// # Errors
/// [`HolderError::ScanCheck`] if anything was changed, swapped or left out.
pub(crate) fn check_sums(
    parameters: &Parameters,
    ring: &Ring,
    layout: Layout,
    probe: &ProbeCiphertext,
    groups: &[(&RegisteredGroup, &DecodedSums)],
) -> Result<(), HolderError> {
    let passed = (0..CHECKS).into_par_iter().all(|check| {
        let mut left_masks = vec![0u32; parameters.degree];
        let mut left_scores = vec![0u32; layout.positions(parameters)];
        let mut vector = vec![0u32; probe.bodies.len()];
        for (group, sums) in groups {
            let rho = coefficients(parameters, &group.check_seed, check, group.layout);
            combine_sums(ring, &rho, &sums.masks, &mut left_masks);
            combine_sums(ring, &rho, &sums.scores, &mut left_scores);
            if let Some(registered) = group.checks.get(check) {
                ring.add_assign(&mut vector, registered);
            }
        }
        let right_masks = expected(ring, &probe.masks, &vector);
        let mut right_scores = expected(ring, &probe.bodies, &vector);
        ring.inverse(&mut right_scores);
        left_masks == right_masks && right_scores.iter().step_by(layout.beta()).eq(left_scores.iter())
    });
    if passed { Ok(()) } else { Err(HolderError::ScanCheck) }
}

/// This holder's additive shares of the scores of the chosen slots of one group, on the decision torus, with the
/// threshold subtracted (at K_0): one value below 2^w per slot, in the order of `slots`.
#[expect(clippy::too_many_arguments, reason = "every input of a local computation, named at the call")]
pub(crate) fn score_shares(
    party: Party,
    parameters: &Parameters,
    ring: &Ring,
    group: &RegisteredGroup,
    sums: &DecodedSums,
    probe: &ProbeCiphertext,
    probe_secret: &SecretParts,
    gallery_secrets: &[Arc<SecretParts>],
    slots: &[usize],
    threshold: Threshold,
) -> Vec<u64> {
    let n = parameters.degree;
    let layout = group.layout;
    let positions = layout.positions(parameters);
    let (mut d, mut e) = (Accumulator::new(n), Accumulator::new(n));
    for ((mask, probe_mask), probe_body) in
        group.masks(parameters).chunks_exact(n).zip(probe.masks.chunks_exact(n)).zip(probe.bodies.chunks_exact(n))
    {
        d.accumulate(probe_body, mask);
        e.accumulate(probe_mask, mask);
    }
    let (d, e) = (d.finish(ring), e.finish(ring));
    let offset = parameters.threshold_units(threshold, layout);
    let bodies: Vec<(usize, &[u32])> = sums.masks.chunks_exact(n).enumerate().collect();
    let per_body: Vec<Option<Secret<Vec<u32>>>> = bodies
        .par_iter()
        .map(|&(body, a)| {
            // Bodies without a chosen slot cost nothing.
            let chosen = slots.iter().any(|slot| slot / positions == body);
            let secret = gallery_secrets.get(body).filter(|_| chosen)?;
            // A_k·s_0 + D·s_k first, negated, then E·s_0·s_k.
            let mut share = ring.multiply(a, probe_secret.own.expose());
            ring.multiply_accumulate(&mut share, &d, secret.own.expose());
            for value in &mut share {
                *value = ring.negate(*value);
            }
            ring.multiply_accumulate(&mut share, &e, probe_secret.product_share(ring, secret).expose());
            ring.inverse(&mut share);
            let share = Secret::new(share);
            Some(Secret::new(share.expose().iter().step_by(layout.beta()).copied().collect()))
        })
        .collect();
    slots
        .iter()
        .map(|&slot| {
            let share = per_body.get(slot / positions).and_then(Option::as_ref);
            let mut value = share.and_then(|s| s.expose().get(slot % positions)).copied().unwrap_or(0);
            if party == Party::K0 {
                value = ring.add(value, sums.scores.get(slot).copied().unwrap_or(0));
            }
            let scaled = parameters.to_decision_torus(value);
            let subtracted = if party == Party::K0 { scaled.wrapping_sub(offset) } else { scaled };
            subtracted & (parameters.decision_modulus() - 1)
        })
        .collect()
}
