//! Public masks, expanded from a seed in the transformed domain.

use borsh::{BorshDeserialize, BorshSerialize};
use rayon::prelude::*;
use veilmatch_domain::Dimension;
use veilmatch_secret::{Label, Stream};

use crate::{Layout, Parameters};

/// The public seed of the masks of one group or one probe: a hash of its label and of contributions of all three
/// holders, who committed to them before any was shown. It is uniform as long as one holder is honest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct MaskSeed(pub [u8; 32]);

impl MaskSeed {
    /// The mask a_j of block j for layouts of width `beta`, uniform modulo q, transformed. Length N.
    #[must_use]
    pub fn mask(&self, parameters: &Parameters, beta: usize, block: usize) -> Vec<u32> {
        uniform_polynomial(parameters, &mut self.stream(parameters, beta, block))
    }

    fn stream(&self, parameters: &Parameters, beta: usize, block: usize) -> Stream {
        let label = Label::new("veilmatch/glwe/mask")
            .bytes(parameters.name.as_bytes())
            .bytes(&self.0)
            .number(beta as u64)
            .number(block as u64);
        Stream::public(label.digest().0)
    }
}

/// The masks a_j of all blocks, expanded once and passed along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masks {
    /// What they were expanded from.
    pub seed: MaskSeed,
    /// J·N residues, transformed, block by block.
    pub values: Vec<u32>,
}

impl MaskSeed {
    /// The masks of every block of vectors of this dimension.
    #[must_use]
    pub fn expand(self, parameters: &Parameters, layout: Layout, dimension: Dimension) -> Masks {
        let mut values = vec![0u32; layout.blocks(dimension) * parameters.degree];
        // Few blocks are less work than to wake a thread for.
        let blocks = values.par_chunks_exact_mut(parameters.degree).with_min_len(64);
        blocks.enumerate().for_each(|(block, mask)| {
            fill_uniform(parameters, &mut self.stream(parameters, layout.beta(), block), mask);
        });
        Masks { seed: self, values }
    }
}

/// N values uniform modulo q: [`uniform_residues`].
#[must_use]
pub fn uniform_polynomial(parameters: &Parameters, stream: &mut Stream) -> Vec<u32> {
    uniform_residues(parameters, stream, parameters.degree)
}

/// `count` values uniform modulo q, by rejection from 31 bits; fewer are the first ones of more. Variable time in the
/// rejected values alone, which are independent of the accepted ones.
#[must_use]
pub fn uniform_residues(parameters: &Parameters, stream: &mut Stream, count: usize) -> Vec<u32> {
    let mut values = vec![0; count];
    fill_uniform(parameters, stream, &mut values);
    values
}

#[expect(clippy::indexing_slicing, reason = "the buffer holds all values, and no more are accepted than are left")]
fn fill_uniform(parameters: &Parameters, stream: &mut Stream, values: &mut [u32]) {
    let bits = 32 - (parameters.modulus - 1).leading_zeros();
    let mut bytes = vec![0u8; values.len() * 4];
    let mut rest = values;
    while !rest.is_empty() {
        let chunk = &mut bytes[..rest.len() * 4];
        stream.fill(chunk);
        let mut accepted = 0;
        for word in chunk.as_chunks::<4>().0 {
            let value = u32::from_le_bytes(*word) >> (32 - bits);
            // Written in any case, and overwritten if it was rejected: no branch to predict.
            rest[accepted] = value;
            accepted += usize::from(value < parameters.modulus);
        }
        rest = &mut rest[accepted..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GLWE_2048_V1;

    #[test]
    fn fewer_residues_are_the_first_ones() {
        // Of a modulus just above a power of two every second value is rejected.
        for p in [GLWE_2048_V1, Parameters { modulus: (1 << 30) + 3, ..GLWE_2048_V1 }] {
            let draw = |count| uniform_residues(&p, &mut Stream::public([5; 32]), count);
            let polynomial = uniform_polynomial(&p, &mut Stream::public([5; 32]));
            for count in [1, 2, 16, 17, 32] {
                assert_eq!(draw(count), polynomial[..count]);
            }
        }
    }

    #[test]
    fn masks_are_uniform_and_differ_by_block_width_and_seed() {
        let p = GLWE_2048_V1;
        let a = MaskSeed([1; 32]).mask(&p, 4, 0);
        assert_eq!(a.len(), p.degree);
        assert!(a.iter().all(|&v| v < p.modulus));
        assert_eq!(a, MaskSeed([1; 32]).mask(&p, 4, 0));
        for other in
            [MaskSeed([1; 32]).mask(&p, 4, 1), MaskSeed([1; 32]).mask(&p, 8, 0), MaskSeed([2; 32]).mask(&p, 4, 0)]
        {
            assert!(a.iter().zip(&other).filter(|(x, y)| x == y).count() < 3);
        }
        let mean = a.iter().map(|&v| f64::from(v)).sum::<f64>() / a.len() as f64 / f64::from(p.modulus);
        assert!((mean - 0.5).abs() < 5.0 * (1.0 / 12.0f64).sqrt() / (a.len() as f64).sqrt());
    }
}
