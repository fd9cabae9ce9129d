//! The ring: transforms and pointwise arithmetic on canonical residues.

use std::sync::OnceLock;
use tfhe_ntt::prime32::Plan;

use crate::Folding;

/// Widths of foldings that a ring keeps: 1 to 256.
const FOLDINGS: usize = 9;

/// R_q = Z_q\[X\]/(X^N+1) for a power of two N ≥ 32 and a prime q < 2^31 with q ≡ 1 mod 2N.
#[derive(Clone, Debug)]
pub struct Ring {
    plan: Plan,
    degree: usize,
    modulus: u32,
    /// q^−1 modulo 2^32.
    inverse: u32,
    /// Foldings by the widths 2^0 .. 2^8, made when they are first used.
    foldings: [OnceLock<Option<Folding>>; FOLDINGS],
}

impl Ring {
    /// Builds the transform tables; `None` if the degree or the modulus does not fit the rules above.
    #[must_use]
    pub fn new(degree: usize, modulus: u32) -> Option<Self> {
        if modulus >= 1 << 31 {
            return None;
        }
        let plan = Plan::try_new(degree, modulus)?;
        // Newton's iteration doubles the number of right bits; an odd number is its own inverse modulo 8.
        let inverse = (0..4).fold(modulus, |x, _| x.wrapping_mul(2u32.wrapping_sub(modulus.wrapping_mul(x))));
        Some(Self { plan, degree, modulus, inverse, foldings: Default::default() })
    }

    /// Folding by β, a power of two up to 256 that divides N.
    #[must_use]
    pub fn folding(&self, beta: usize) -> Option<&Folding> {
        if !beta.is_power_of_two() {
            return None;
        }
        let kept = self.foldings.get(beta.trailing_zeros() as usize)?;
        kept.get_or_init(|| Folding::new(self, beta)).as_ref()
    }

    pub(crate) fn inverse_of_modulus(&self) -> u32 {
        self.inverse
    }

    /// 2^64 modulo q.
    pub(crate) fn square_of_two_to_32(&self) -> u32 {
        ((1u128 << 64) % u128::from(self.modulus)) as u32
    }

    /// 2^96 modulo q.
    pub(crate) fn cube_of_two_to_32(&self) -> u64 {
        ((1u128 << 96) % u128::from(self.modulus)) as u64
    }

    /// N.
    #[must_use]
    pub fn degree(&self) -> usize {
        self.degree
    }

    /// q.
    #[must_use]
    pub fn modulus(&self) -> u32 {
        self.modulus
    }

    /// Coefficients to transformed values, in place. Length N.
    pub fn forward(&self, values: &mut [u32]) {
        self.plan.fwd(values);
    }

    /// Transformed values to coefficients, in place. Length N.
    pub fn inverse(&self, values: &mut [u32]) {
        self.plan.inv(values);
        self.plan.normalize(values);
    }

    /// `a + b` of two residues.
    #[must_use]
    pub fn add(&self, a: u32, b: u32) -> u32 {
        let sum = a + b;
        // Branch-free: residues of secrets pass through here.
        let reduced = sum.wrapping_sub(self.modulus);
        let borrow = (reduced >> 31).wrapping_neg();
        reduced.wrapping_add(self.modulus & borrow)
    }

    /// `-a` of a residue.
    #[must_use]
    pub fn negate(&self, a: u32) -> u32 {
        let nonzero = (a | a.wrapping_neg()) >> 31;
        (self.modulus - a) & nonzero.wrapping_neg()
    }

    /// A small signed number (|v| < q) as a residue, without branches.
    #[must_use]
    pub fn from_signed(&self, v: i32) -> u32 {
        (v as u32).wrapping_add(self.modulus & ((v >> 31) as u32))
    }

    /// A residue as the signed number of smallest magnitude.
    #[must_use]
    pub fn centred(&self, a: u32) -> i64 {
        if a > self.modulus / 2 { i64::from(a) - i64::from(self.modulus) } else { i64::from(a) }
    }

    /// `acc -= a`, pointwise.
    pub fn sub_assign(&self, acc: &mut [u32], a: &[u32]) {
        for (x, &y) in acc.iter_mut().zip(a) {
            *x = self.add(*x, self.negate(y));
        }
    }

    /// `acc += a·b`, pointwise on transformed values.
    pub fn multiply_accumulate(&self, acc: &mut [u32], a: &[u32], b: &[u32]) {
        // The plan works on whole vector registers and would drop a remainder.
        if acc.len().is_multiple_of(16) {
            self.plan.mul_accumulate(acc, a, b);
        } else {
            for (x, (&y, &z)) in acc.iter_mut().zip(a.iter().zip(b)) {
                *x = self.add(*x, (u64::from(y) * u64::from(z) % u64::from(self.modulus)) as u32);
            }
        }
    }

    /// `a·b`, pointwise on transformed values.
    #[must_use]
    pub fn multiply(&self, a: &[u32], b: &[u32]) -> Vec<u32> {
        let mut product = vec![0; a.len()];
        self.multiply_accumulate(&mut product, a, b);
        product
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::{Lcg, Q, negacyclic};

    #[test]
    fn products_agree_with_the_schoolbook() {
        let ring = Ring::new(64, Q).unwrap();
        let mut lcg = Lcg(5);
        for extreme in [None, Some(Q - 1), Some(0), Some(1)] {
            let mut draw = || (0..64).map(|_| extreme.unwrap_or_else(|| lcg.below(Q))).collect::<Vec<u32>>();
            let (a, b) = (draw(), draw());
            let expected = negacyclic(&a, &b, Q);
            let (mut fa, mut fb) = (a, b);
            ring.forward(&mut fa);
            ring.forward(&mut fb);
            let mut product = ring.multiply(&fa, &fb);
            ring.inverse(&mut product);
            assert_eq!(product, expected);
        }
    }

    /// Transformed values are exchanged between machines, so their order must be the documented one: value k is
    /// the polynomial at ψ^(2·bitrev(k)+1) for one fixed primitive 2N-th root ψ.
    #[test]
    fn transformed_values_are_in_bit_reversed_order() {
        for degree in [64usize, 2048] {
            let ring = Ring::new(degree, Q).unwrap();
            let bits = degree.trailing_zeros();
            let mut x = vec![0u32; degree];
            x[1] = 1;
            ring.forward(&mut x); // values of the polynomial X, that is, the roots themselves
            let psi = u64::from(x[0]);
            let power = |e: u64| (0..e).fold(1u64, |acc, _| acc * psi % u64::from(Q));
            for k in [0usize, 1, 2, 3, degree / 2, degree - 1] {
                let reversed = (k as u64).reverse_bits() >> (64 - bits);
                assert_eq!(u64::from(x[k]), power(2 * reversed + 1), "N = {degree}, k = {k}");
            }
        }
    }

    #[test]
    fn signed_numbers_and_negation() {
        let ring = Ring::new(64, Q).unwrap();
        for v in [-4i32, -1, 0, 1, 4] {
            assert_eq!(ring.centred(ring.from_signed(v)), i64::from(v));
            assert_eq!(ring.negate(ring.from_signed(v)), ring.from_signed(-v));
        }
        assert_eq!(ring.add(Q - 1, 1), 0);
        assert_eq!(ring.add(Q - 1, Q - 1), Q - 2);
        assert_eq!(ring.add(0, 0), 0);
    }

    #[test]
    fn lengths_that_are_no_multiple_of_a_register_are_whole() {
        let ring = Ring::new(64, Q).unwrap();
        let mut lcg = Lcg(8);
        for length in [1usize, 8, 15, 16, 17, 40] {
            let mut draw = || (0..length).map(|_| lcg.below(Q)).collect::<Vec<u32>>();
            let (a, b) = (draw(), draw());
            let expected: Vec<u32> =
                a.iter().zip(&b).map(|(&x, &y)| (u64::from(x) * u64::from(y) % u64::from(Q)) as u32).collect();
            assert_eq!(ring.multiply(&a, &b), expected);
        }
    }

    #[test]
    fn refuses_moduli_that_do_not_fit() {
        assert!(Ring::new(2048, Q - 1).is_none());
        assert!(Ring::new(2048, 4_293_918_721).is_none());
        assert!(Ring::new(48, Q).is_none());
    }
}
