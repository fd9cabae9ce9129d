//! Every β-th coefficient of a transformed polynomial, without the whole inverse transform (DESIGN 3.5).
//!
//! A polynomial's value k is P(ψ^(2·bitrev(k)+1)). The β neighbouring values βm .. βm+β−1 belong to the points x·ω^c,
//! c = 0..β, for one x = ψ^(2·bitrev(m)+1) and ω of order β, so their sum keeps the powers of x that β divides:
//! β·Σ_t p_βt·x^βt. These are β times the values, in bit-reversed order too, of the polynomial with the coefficients
//! p_βt in the ring of degree N/β whose root is ψ^β. Folded values are as linear as transformed ones: they are added,
//! scaled and compared as they are, and cost one small transform when the coefficients are wanted.

use tfhe_ntt::prime32::Plan;

use crate::Ring;

/// Folding by one width β.
#[derive(Clone, Debug)]
pub struct Folding {
    beta: usize,
    points: usize,
    small: Small,
    /// 1/N, prepared: the 1/β of the fold and the β/N of the small transform.
    scale: u32,
}

#[derive(Clone, Debug)]
enum Small {
    Plan(Box<Plan>),
    /// Row t, column m: ψ^(−βt·(2·bitrev(m)+1)), prepared. For sizes that the plan does not offer.
    Table(Vec<u32>),
}

impl Folding {
    pub(crate) fn new(ring: &Ring, beta: usize) -> Option<Self> {
        let points = ring.degree().checked_div(beta).filter(|_| beta.is_power_of_two())?;
        if points == 0 {
            return None;
        }
        let q = u64::from(ring.modulus());
        let power = |base: u64, exponent: u64| {
            let bits = (0..u64::BITS - exponent.leading_zeros()).rev();
            bits.fold(1u64, |acc, bit| acc * acc % q * (if exponent >> bit & 1 == 1 { base } else { 1 }) % q)
        };
        let mut x = vec![0u32; ring.degree()];
        x[1] = 1;
        ring.forward(&mut x);
        let root = power(u64::from(x[0]), beta as u64);
        let plan = Plan::try_new(points, ring.modulus()).filter(|plan| {
            // The plan chooses its own root; ours is given by the large ring.
            let mut x = vec![0u32; points];
            x[1] = 1;
            plan.fwd(&mut x);
            u64::from(x[0]) == root
        });
        let small = match plan {
            Some(plan) => Small::Plan(Box::new(plan)),
            None => {
                let inverse = power(root, q - 2);
                let bits = points.trailing_zeros();
                let mut table = Vec::with_capacity(points * points);
                for t in 0..points as u64 {
                    for m in 0..points as u64 {
                        let reversed = if bits == 0 { 0 } else { m.reverse_bits() >> (u64::BITS - bits) };
                        table.push(power(inverse, t * (2 * reversed + 1)) as u32);
                    }
                }
                Small::Table(ring.prepared(&table))
            }
        };
        let scale = ring.prepared(&[power(ring.degree() as u64, q - 2) as u32])[0];
        Some(Self { beta, points, small, scale })
    }

    /// N/β, the number of folded values.
    #[must_use]
    pub fn points(&self) -> usize {
        self.points
    }
}

impl Ring {
    /// Folds N transformed values to N/β, for every polynomial in `values`, in place and without another buffer (shares
    /// of secrets pass through here). Returns the folded values; what was behind them is of no use any more.
    pub fn fold<'a>(&self, folding: &Folding, values: &'a mut [u32]) -> &'a mut [u32] {
        let mut length = values.len();
        for _ in 0..folding.beta.trailing_zeros() {
            self.add_pairs(&mut values[..length]);
            length /= 2;
        }
        &mut values[..length]
    }

    /// The coefficients βt, t = 0..N/β in order, of the polynomial that was folded; in place, N/β values.
    pub fn unfold(&self, folding: &Folding, folded: &mut [u32]) {
        match &folding.small {
            Small::Plan(plan) => plan.inv(folded),
            Small::Table(table) => {
                let values = folded.to_vec();
                for (out, row) in folded.iter_mut().zip(table.chunks_exact(folding.points)) {
                    let mut sum = [0u32];
                    self.combine(row, &values, &mut sum);
                    [*out] = sum;
                }
            }
        }
        self.scale(folded, folding.scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::{Lcg, Q};

    /// For every width down to one point, and for moduli of both sizes: what a whole inverse transform gives.
    #[test]
    fn folding_is_picking_coefficients() {
        for q in [Q, 268_369_921] {
            for degree in [32usize, 64, 2048] {
                let ring = Ring::new(degree, q).unwrap();
                let mut lcg = Lcg(41);
                for extreme in [None, Some(q - 1), Some(0), Some(1)] {
                    let values: Vec<u32> = (0..degree).map(|_| extreme.unwrap_or_else(|| lcg.below(q))).collect();
                    let mut whole = values.clone();
                    ring.inverse(&mut whole);
                    for beta in (0..=degree.trailing_zeros().min(8)).map(|b| 1usize << b) {
                        let folding = ring.folding(beta).unwrap();
                        let mut whole_values = values.clone();
                        let mut folded = ring.fold(folding, &mut whole_values).to_vec();
                        assert_eq!(folded.len(), folding.points());
                        assert!(folded.iter().all(|&v| v < q));
                        ring.unfold(folding, &mut folded);
                        let picked: Vec<u32> = whole.iter().step_by(beta).copied().collect();
                        assert_eq!(folded, picked, "N {degree}, q {q}, β {beta}");
                    }
                }
            }
        }
    }

    /// Sizes that the plan offers must not fall back to the table, which takes (N/β)² products.
    #[test]
    fn the_plan_of_a_smaller_ring_has_the_root_that_folding_needs() {
        for q in [Q, 268_369_921] {
            let ring = Ring::new(2048, q).unwrap();
            for beta in [1, 2, 4, 8, 16, 32, 64] {
                assert!(matches!(ring.folding(beta).unwrap().small, Small::Plan(_)), "β {beta}");
            }
            for beta in [128, 256] {
                assert!(matches!(ring.folding(beta).unwrap().small, Small::Table(_)), "β {beta}");
            }
        }
    }

    #[test]
    fn several_polynomials_fold_side_by_side() {
        let ring = Ring::new(64, Q).unwrap();
        let folding = ring.folding(4).unwrap();
        let mut lcg = Lcg(42);
        let values: Vec<u32> = (0..128).map(|_| lcg.below(Q)).collect();
        let apart: Vec<u32> =
            values.chunks_exact(64).flat_map(|one| ring.fold(folding, &mut one.to_vec()).to_vec()).collect();
        assert_eq!(ring.fold(folding, &mut values.clone()), apart);
    }

    #[test]
    fn widths_that_do_not_divide_have_no_folding() {
        let ring = Ring::new(64, Q).unwrap();
        for beta in [0usize, 3, 128, 512] {
            assert!(ring.folding(beta).is_none(), "β {beta}");
        }
    }
}
