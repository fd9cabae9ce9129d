//! A probe in the order of the scan.

use std::mem::MaybeUninit;

use pulp::Arch;
use rayon::prelude::*;

use super::LengthError;
use super::layout::{HALF, TILE, centre, is_packed};
use crate::Ring;
use crate::pointwise::Reduction;

/// Points that a task of [`ScanProbe::new`] brings into order: four cache lines of each block and polynomial.
const STRIP: usize = 64;

/// Polynomials of probes of J blocks in the order of the scan, ready to be multiplied.
#[derive(Clone, Debug)]
pub struct ScanProbe {
    /// Per two polynomials, per half tile, per block: the residues of both at four points, side by side.
    tiles: Vec<u32>,
    blocks: usize,
    vectors: usize,
    degree: usize,
    modulus: u32,
}

impl ScanProbe {
    /// From `vectors` of J·N transformed residues each, block by block. Uses the current rayon pool.
    ///
    /// # Errors
    /// [`LengthError`] if they are not equally long, empty, or no multiple of N, or N is no multiple of [`TILE`].
    pub fn new(ring: &Ring, vectors: &[&[u32]]) -> Result<Self, LengthError> {
        let n = ring.degree();
        let length = vectors.first().map_or(0, |v| v.len());
        let fits = length > 0 && length.is_multiple_of(n) && n.is_multiple_of(TILE);
        if !fits || vectors.iter().any(|v| v.len() != length) {
            return Err(LengthError);
        }
        let blocks = length / n;
        let words = length * 2 * vectors.len().div_ceil(2);
        let mut tiles: Vec<u32> = Vec::with_capacity(words);
        let turning = Turning {
            n,
            blocks,
            reduction: ring.reduction(),
            factor: ring.cube_of_two_to_32(),
            centred: (!is_packed(ring.modulus())).then_some(ring.modulus()),
        };
        let room = tiles.spare_capacity_mut().get_mut(..words).ok_or(LengthError)?;
        for (part, pair) in room.chunks_exact_mut(2 * length).zip(vectors.chunks(2)) {
            part.par_chunks_mut(blocks * 2 * STRIP).enumerate().for_each(|(strip, to)| {
                turning.strip(pair, strip * STRIP, to);
            });
        }
        // SAFETY: the parts cover the room, the strips a part, and each strip was written whole.
        unsafe { tiles.set_len(words) };
        Ok(Self { tiles, blocks, vectors: vectors.len(), degree: n, modulus: ring.modulus() })
    }

    /// J.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// How many polynomials per block.
    #[must_use]
    pub fn vectors(&self) -> usize {
        self.vectors
    }

    /// Pairs of polynomials; the last one may lack its second.
    pub(super) fn pairs(&self) -> usize {
        self.vectors.div_ceil(2)
    }

    pub(super) fn degree(&self) -> usize {
        self.degree
    }

    pub(super) fn modulus(&self) -> u32 {
        self.modulus
    }

    /// Two polynomials from half a tile on: J runs of eight words, and as many for each following half.
    pub(super) fn half(&self, pair: usize, tile: usize, half: usize) -> &[u32] {
        let start = ((pair * self.degree + tile * TILE + half * HALF) * self.blocks) * 2;
        &self.tiles[start..]
    }
}

/// How residues are brought into order.
struct Turning {
    n: usize,
    blocks: usize,
    reduction: Reduction,
    /// 2^96 modulo q: one Montgomery step with it multiplies by 2^64.
    factor: u64,
    /// q, where residues are to be centred.
    centred: Option<u32>,
}

impl Turning {
    /// Writes the strip that begins at `point`, as many points as `to` has room for.
    fn strip(&self, pair: &[&[u32]], point: usize, to: &mut [MaybeUninit<u32>]) {
        let points = to.len() / (2 * self.blocks);
        let mut halves: Vec<_> = to.chunks_exact_mut(self.blocks * 2 * HALF).collect();
        let mut sides = [[0u32; STRIP]; 2];
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for block in 0..self.blocks {
                    for (side, vector) in sides.iter_mut().zip(pair) {
                        let from = &vector[block * self.n + point..][..points];
                        for (word, &residue) in side.iter_mut().zip(from) {
                            *word = self.reduction.reduce(u64::from(residue) * self.factor);
                        }
                        if let Some(q) = self.centred {
                            side.iter_mut().for_each(|word| *word = centre(q, *word));
                        }
                    }
                    let first = sides[0].as_chunks::<HALF>().0;
                    let second = sides[1].as_chunks::<HALF>().0;
                    for (half, (a, b)) in halves.iter_mut().zip(first.iter().zip(second)) {
                        let run = &mut half[block * 2 * HALF..][..2 * HALF];
                        for (pair, (&a, &b)) in run.as_chunks_mut::<2>().0.iter_mut().zip(a.iter().zip(b)) {
                            pair[0].write(a);
                            pair[1].write(b);
                        }
                    }
                }
            },
        );
    }
}
