//! The matcher's side of the scan (DESIGN 3.5), as a plain reference.

use crate::{Accumulator, Ring};
use rayon::prelude::*;

/// A probe ciphertext of J blocks, transformed; each slice has J·N values, block by block.
#[derive(Clone, Copy, Debug)]
pub struct ScanProbe<'a> {
    /// Masks a^p_j.
    pub masks: &'a [u32],
    /// Bodies b^p_j.
    pub bodies: &'a [u32],
}

/// For one packed group of `rank` bodies: A_k = Σ_j a^p_j·b_{j,k} and B_k = Σ_j b^p_j·b_{j,k}, transformed.
///
/// `bodies` has J·rank·N values; body (j, k) begins at (j·rank + k)·N, so that one pass reads it in order.
/// Returns (A, B), `rank` polynomials each.
#[must_use]
pub fn scan_bodies(ring: &Ring, probe: ScanProbe<'_>, bodies: &[u32], rank: usize) -> (Vec<Vec<u32>>, Vec<Vec<u32>>) {
    let n = ring.degree();
    (0..rank)
        .into_par_iter()
        .map(|k| {
            let mut a = Accumulator::new(n);
            let mut b = Accumulator::new(n);
            let blocks =
                bodies.chunks_exact(rank * n).zip(probe.masks.chunks_exact(n).zip(probe.bodies.chunks_exact(n)));
            for (block, (mask, body)) in blocks {
                let gallery = &block[k * n..(k + 1) * n];
                a.accumulate(mask, gallery);
                b.accumulate(body, gallery);
            }
            (a.finish(ring), b.finish(ring))
        })
        .unzip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::{Lcg, Q};

    #[test]
    fn sums_every_block_of_every_body() {
        let ring = Ring::new(64, Q).unwrap();
        let (n, blocks, rank) = (64, 5, 3);
        let mut lcg = Lcg(3);
        let mut draw = |count: usize| (0..count).map(|_| lcg.below(Q)).collect::<Vec<u32>>();
        let (masks, probe, bodies) = (draw(blocks * n), draw(blocks * n), draw(blocks * rank * n));
        let (a, b) = scan_bodies(&ring, ScanProbe { masks: &masks, bodies: &probe }, &bodies, rank);
        for k in 0..rank {
            for c in 0..n {
                let sum = |side: &[u32]| {
                    let q = u64::from(Q);
                    (0..blocks).fold(0u64, |acc, j| {
                        (acc + u64::from(side[j * n + c]) * u64::from(bodies[(j * rank + k) * n + c]) % q) % q
                    }) as u32
                };
                assert_eq!((a[k][c], b[k][c]), (sum(&masks), sum(&probe)));
            }
        }
    }
}
