//! Sums of many products with one reduction at the end.

use crate::Ring;

/// Pointwise Σ a·b over any number of terms below 2^32, reduced once.
///
/// Every product is below 2^62 and is split into its low and high 32 bits, so that neither sum can overflow:
/// 2^32 terms of at most 2^32 − 1 fit into 64 bits.
#[derive(Clone, Debug)]
pub struct Accumulator {
    low: Vec<u64>,
    high: Vec<u64>,
}

impl Accumulator {
    /// Zero, of `length` points.
    #[must_use]
    pub fn new(length: usize) -> Self {
        Self { low: vec![0; length], high: vec![0; length] }
    }

    /// Adds `a·b`, pointwise.
    pub fn accumulate(&mut self, a: &[u32], b: &[u32]) {
        for (((low, high), &x), &y) in self.low.iter_mut().zip(&mut self.high).zip(a).zip(b) {
            let product = u64::from(x) * u64::from(y);
            *low += product & 0xffff_ffff;
            *high += product >> 32;
        }
    }

    /// The sums modulo q.
    #[must_use]
    pub fn finish(&self, ring: &Ring) -> Vec<u32> {
        let q = u64::from(ring.modulus());
        let two_to_32 = (1u64 << 32) % q;
        self.low.iter().zip(&self.high).map(|(&low, &high)| ((low % q + high % q * two_to_32) % q) as u32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::{Lcg, Q};

    #[test]
    fn long_sums_of_extreme_and_random_terms() {
        let ring = Ring::new(64, Q).unwrap();
        let mut lcg = Lcg(9);
        for extreme in [true, false] {
            let mut sum = Accumulator::new(64);
            let mut expected = [0u128; 64];
            for _ in 0..1000 {
                let mut draw = || (0..64).map(|_| if extreme { Q - 1 } else { lcg.below(Q) }).collect::<Vec<_>>();
                let (a, b) = (draw(), draw());
                sum.accumulate(&a, &b);
                for (e, (&x, &y)) in expected.iter_mut().zip(a.iter().zip(&b)) {
                    *e += u128::from(x) * u128::from(y);
                }
            }
            let expected: Vec<u32> = expected.iter().map(|&e| (e % u128::from(Q)) as u32).collect();
            assert_eq!(sum.finish(&ring), expected);
        }
    }
}
