//! Arithmetic in R_q = Z_q\[X\]/(X^N+1) and the scan's inner loop; arithmetic modulo large numbers in [`montgomery`].
//!
//! Residues are canonical (`0 ≤ x < q < 2^31`) in `u32`. The transform comes from `tfhe-ntt`; its output is in
//! bit-reversed order on every instruction set, which matters because transformed values travel between parties.
//! This is the room of unsafe code: vector kernels stand behind a plain reference that one suite compares them with.

mod accumulator;
pub mod baseline;
mod folding;
pub mod montgomery;
mod packing;
mod pointwise;
mod ring;
mod scan;
mod spare;

pub use accumulator::Accumulator;
pub use folding::Folding;
pub use packing::{PackingError, from_bytes, to_bytes};
pub use pointwise::round_to_power_of_two;
pub use ring::Ring;
pub use scan::{BodyLayout, FoldedSums, Kernel, LengthError, ScanProbe, TILE, scan, scan_folded, scan_reference};
pub use spare::give_back;

#[cfg(test)]
mod tests_support {
    pub(crate) const Q: u32 = 2_147_389_441;

    /// A small deterministic generator: these tests need variety, not secrecy.
    pub(crate) struct Lcg(pub(crate) u64);

    impl Lcg {
        pub(crate) fn below(&mut self, bound: u32) -> u32 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((self.0 >> 33) % u64::from(bound)) as u32
        }
    }

    /// Schoolbook product modulo X^N+1.
    pub(crate) fn negacyclic(a: &[u32], b: &[u32], q: u32) -> Vec<u32> {
        let (n, q) = (a.len(), i128::from(q));
        let mut out = vec![0i128; n];
        for (i, &x) in a.iter().enumerate() {
            for (j, &y) in b.iter().enumerate() {
                let product = i128::from(x) * i128::from(y);
                if i + j < n { out[i + j] += product } else { out[i + j - n] -= product }
            }
        }
        out.iter().map(|&v| v.rem_euclid(q) as u32).collect()
    }
}
