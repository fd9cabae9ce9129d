//! The holders' side of the scan: mask sums and shares of scores (DESIGN 3.5).
//!
//! The score of the template at position t of body k is the coefficient βt of
//! B_k − A_k·s_0 − D·s_k + E·s_0·s_k with D = Σ_j b^p_j·a_j and E = Σ_j a^p_j·a_j, and K_i's additive share of it is
//! local: −A_k·s_0^(i) − D·s_k^(i) + E·(s_0·s_k)^\[i\], plus B_k at K_0. The sum is formed on transformed values, point by
//! point, folded to the N/β points that determine the coefficients βt, and only these are transformed back.
//!
//! Why the holders compute D and E themselves: whoever chooses them freely and sees a decision has a chosen-ciphertext
//! oracle on the gallery's secrets. What they take from the matcher, A and B, has passed the scan check.

use std::sync::Arc;

use veilmatch_domain::{Party, Threshold};
use veilmatch_glwe::{GroupSums, Layout, Parameters};
use veilmatch_kernels::{BodyLayout, Folding, Kernel, LengthError, Ring, ScanProbe, from_bytes, scan};
use veilmatch_secret::Secret;

use crate::HolderError;
use crate::keys::SecretParts;

/// The matcher's sums over one group, decoded.
pub(crate) struct DecodedSums {
    /// A_k, r·N residues, transformed.
    pub masks: Vec<u32>,
    /// B_k, folded: r·N/β residues.
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
    let decode = |bytes, count| {
        from_bytes(parameters.modulus, bytes, count)
            .map_err(|_| HolderError::BadSums { what: "not the expected number of residues" })
    };
    Ok(DecodedSums {
        masks: decode(&sums.masks, layout.rank() * parameters.degree)?,
        scores: decode(&sums.scores, layout.capacity(parameters))?,
    })
}

/// This holder's secrets as factors of the sum, prepared once per session for all groups of a key epoch.
pub(crate) struct Factors {
    /// −s_0^(i).
    probe: Secret<Vec<u32>>,
    /// −s_k^(i) and (s_0·s_k)^\[i\] by k.
    bodies: Vec<[Secret<Vec<u32>>; 2]>,
}

impl Factors {
    /// From the parts of s_0 and of s_k, k = 0, 1, ….
    pub(crate) fn new(ring: &Ring, probe: &SecretParts, gallery: &[Arc<SecretParts>]) -> Self {
        let negated = |values: &[u32]| {
            let negated = Secret::new(values.iter().map(|&v| ring.negate(v)).collect::<Vec<u32>>());
            Secret::new(ring.prepared(negated.expose()))
        };
        let bodies = gallery.iter().map(|secret| {
            let product = probe.product_share(ring, secret);
            [negated(secret.own.expose()), Secret::new(ring.prepared(product.expose()))]
        });
        Self { probe: negated(probe.own.expose()), bodies: bodies.collect() }
    }
}

/// D and E of a group: the scan of its masks as if they were the bodies of a group of rank 1.
///
/// # Errors
/// [`LengthError`] unless masks and probe have equally many polynomials.
fn mask_sums(ring: &Ring, probe: &ScanProbe, masks: &[u32]) -> Result<[Vec<u32>; 2], LengthError> {
    let layout = BodyLayout::new(ring.degree(), ring.modulus(), probe.blocks(), 1)?;
    let mut sums = scan(Kernel::detect(), ring, layout, probe, &[masks])?;
    let mut e = sums.pop().ok_or(LengthError)?;
    let d = e.split_off(ring.degree());
    Ok([d, e])
}

/// What the shares of one group are computed from, but for its sums.
pub(crate) struct ShareInputs<'a> {
    pub(crate) party: Party,
    pub(crate) parameters: &'a Parameters,
    pub(crate) ring: &'a Ring,
    pub(crate) folding: &'a Folding,
    pub(crate) layout: Layout,
    /// The group's masks a_j, in the order of a scan of rank 1.
    pub(crate) masks: &'a [u32],
    pub(crate) probe: &'a ScanProbe,
    pub(crate) factors: &'a Factors,
    /// The slots that are compared, ascending.
    pub(crate) slots: &'a [u32],
    pub(crate) threshold: Threshold,
    /// Shares modulo q of these slots' sums over other blocks, which are added before rounding.
    pub(crate) coarse: Option<&'a [u32]>,
}

/// This holder's additive shares of the scores of the chosen slots of one group, on the decision torus, with the
/// threshold subtracted (at K_0): one value below 2^w per slot, in the order of `slots`. `unrounded` gets the same shares
/// modulo q and without the threshold, if it is there.
///
/// # Errors
/// [`LengthError`] unless masks and probe have equally many polynomials.
pub(crate) fn score_shares(
    inputs: &ShareInputs<'_>,
    sums: &DecodedSums,
    mut unrounded: Option<&mut Secret<Vec<u32>>>,
) -> Result<Secret<Vec<u64>>, LengthError> {
    let ShareInputs { party, parameters, ring, folding, layout, .. } = *inputs;
    let (n, positions) = (parameters.degree, folding.points());
    let [d, e] = mask_sums(ring, inputs.probe, inputs.masks)?;
    let (at_k0, torus) = (party == Party::K0, (parameters.decision_modulus() - 1) as u32);
    let offset = if at_k0 { parameters.threshold_units(inputs.threshold, layout) as u32 } else { 0 };
    let mut shares = Secret::new(Vec::with_capacity(inputs.slots.len()));
    let mut whole = Secret::new(vec![0u32; n]);
    let mut scaled = Secret::new(vec![0u32; positions]);
    let mut rest = inputs.slots;
    let mut coarse = inputs.coarse;
    let bodies = sums.masks.chunks_exact(n).zip(sums.scores.chunks_exact(positions));
    for (body, ((a, b), [secret, product])) in bodies.zip(&inputs.factors.bodies).enumerate() {
        let first = body * positions;
        let (chosen, after) = rest.split_at(rest.partition_point(|&slot| (slot as usize) < first + positions));
        rest = after;
        // Bodies without a chosen slot cost nothing.
        if chosen.is_empty() {
            continue;
        }
        let terms = [(a, inputs.factors.probe.expose()), (&d, secret.expose()), (&e, product.expose())];
        ring.sum_of_three_products(terms.map(|(x, y)| (x, y.as_slice())), whole.expose_mut());
        let share = ring.fold(folding, whole.expose_mut());
        if at_k0 {
            ring.add_assign(share, b);
        }
        ring.unfold(folding, share);
        if let Some(earlier) = &mut coarse {
            let (own, others) = earlier.split_at_checked(chosen.len()).ok_or(LengthError)?;
            *earlier = others;
            for (&slot, &value) in chosen.iter().zip(own) {
                if let Some(place) = share.get_mut(slot as usize - first) {
                    ring.add_assign(std::slice::from_mut(place), &[value]);
                }
            }
        }
        if let Some(kept) = &mut unrounded {
            kept.expose_mut().extend(chosen.iter().filter_map(|&slot| share.get(slot as usize - first)));
        }
        parameters.all_to_decision_torus(share, scaled.expose_mut());
        let subtracted = |value: u32| u64::from(value.wrapping_sub(offset) & torus);
        let scaled = scaled.expose();
        if chosen.len() == positions {
            shares.expose_mut().extend(scaled.iter().map(|&value| subtracted(value)));
        } else {
            let picked = chosen.iter().map(|&slot| scaled.get(slot as usize - first).copied().unwrap_or(0));
            shares.expose_mut().extend(picked.map(subtracted));
        }
    }
    Ok(shares)
}
