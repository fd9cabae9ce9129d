//! The order and the form in which the scan reads the bodies of a group.

use super::LengthError;
use super::eights::MOST_BLOCKS;

/// Points of a tile.
pub const TILE: usize = 8;
/// Points of half a tile, which a pass of several bodies covers.
pub(super) const HALF: usize = 4;
/// Bodies of a whole pass. Four bodies of half a tile fill a cache line and use half the registers of AVX2 for sums.
pub(super) const PASS: usize = 4;
/// Blocks that packed residues are stored by.
const EIGHT: usize = 8;

/// Whether residues of this modulus are stored packed.
pub(super) fn is_packed(modulus: u32) -> bool {
    modulus < 1 << 28
}

/// A residue as the 32-bit two's complement of its representative of least magnitude.
pub(super) fn centre(modulus: u32, residue: u32) -> u32 {
    if residue > modulus / 2 { residue.wrapping_sub(modulus) } else { residue }
}

fn canonical(modulus: u32, centred: u32) -> u32 {
    if centred >> 31 == 1 { centred.wrapping_add(modulus) } else { centred }
}

/// Sizes of a group's bodies, and the order of their residues (see the parent module).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLayout {
    degree: usize,
    modulus: u32,
    blocks: usize,
    rank: usize,
}

impl BodyLayout {
    /// For J = `blocks` blocks of `rank` bodies of N = `degree` residues.
    ///
    /// # Errors
    /// [`LengthError`] if N is no multiple of [`TILE`], blocks or rank is zero, or there are more than 2^19 blocks.
    pub fn new(degree: usize, modulus: u32, blocks: usize, rank: usize) -> Result<Self, LengthError> {
        let fits = degree > 0
            && degree.is_multiple_of(TILE)
            && (1..=MOST_BLOCKS).contains(&blocks)
            && rank > 0
            && modulus < 1 << 31;
        if fits { Ok(Self { degree, modulus, blocks, rank }) } else { Err(LengthError) }
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

    /// J.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// r.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Whether eight residues share seven words: if q < 2^28.
    #[must_use]
    pub fn is_packed(&self) -> bool {
        is_packed(self.modulus)
    }

    /// Runs of [`TILE`] words per body and tile.
    pub(super) fn stored_blocks(&self) -> usize {
        if self.is_packed() { self.blocks.div_ceil(EIGHT) * (EIGHT - 1) } else { self.blocks }
    }

    /// Words that the bodies take.
    #[must_use]
    pub fn words(&self) -> usize {
        self.stored_blocks() * self.rank * self.degree
    }

    /// Where a residue lies: the word of a point of a body, in the run `stored` of its pass.
    fn place(&self, body: usize, stored: usize, point: usize) -> usize {
        let (tile, half, within) = (point / TILE, point % TILE / HALF, point % HALF);
        let runs = self.stored_blocks();
        let tile = tile * self.rank * runs * TILE;
        let whole = self.rank / PASS * PASS;
        // Bodies of this pass, and its first.
        let (together, first) = if body < whole {
            (PASS, body / PASS * PASS)
        } else if self.rank - whole >= 2 && body < whole + 2 {
            (2, whole)
        } else {
            (1, self.rank - 1)
        };
        let pass = tile + first * runs * TILE;
        if together == 1 {
            // The halves of one body share a vector.
            pass + stored * TILE + 2 * within + half
        } else {
            let body = body - first;
            pass + (half * runs + stored) * together * HALF + body / 2 * TILE + 2 * within + body % 2
        }
    }

    /// Bodies from their natural order, body (j, k) at (j·r + k)·N, canonical residues, to the order of the scan.
    ///
    /// # Errors
    /// [`LengthError`] unless there are J·r·N.
    pub fn arrange(&self, natural: &[u32]) -> Result<Vec<u32>, LengthError> {
        if natural.len() != self.blocks * self.rank * self.degree {
            return Err(LengthError);
        }
        let mut arranged = vec![0u32; self.words()];
        let residue = |block: usize, body: usize, point: usize| {
            if block < self.blocks { natural[(block * self.rank + body) * self.degree + point] } else { 0 }
        };
        for body in 0..self.rank {
            for stored in 0..self.stored_blocks() {
                for half in (0..self.degree).step_by(HALF) {
                    let start = self.place(body, stored, half);
                    for (word, point) in arranged[start..].iter_mut().step_by(2).zip(half..half + HALF) {
                        *word = if self.is_packed() {
                            let (eight, within) = (stored / 7 * EIGHT, stored % 7);
                            // The eighth residue's highest four bits come first.
                            let part = residue(eight + 7, body, point) >> (24 - 4 * within) & 15;
                            residue(eight + within, body, point) | part << 28
                        } else {
                            centre(self.modulus, residue(stored, body, point))
                        };
                    }
                }
            }
        }
        Ok(arranged)
    }

    /// The inverse of [`BodyLayout::arrange`].
    ///
    /// # Errors
    /// [`LengthError`] unless there are [`BodyLayout::words`].
    pub fn restore(&self, arranged: &[u32]) -> Result<Vec<u32>, LengthError> {
        if arranged.len() != self.words() {
            return Err(LengthError);
        }
        let mut natural = vec![0u32; self.blocks * self.rank * self.degree];
        for (body_of_block, residues) in natural.chunks_exact_mut(self.degree).enumerate() {
            let (block, body) = (body_of_block / self.rank, body_of_block % self.rank);
            for (point, residue) in residues.iter_mut().enumerate() {
                let word = |stored| arranged[self.place(body, stored, point)];
                *residue = if !self.is_packed() {
                    canonical(self.modulus, word(block))
                } else if block % EIGHT < 7 {
                    word(block / EIGHT * 7 + block % EIGHT) & 0x0fff_ffff
                } else {
                    (0..7).fold(0, |eighth, within| eighth << 4 | word(block / EIGHT * 7 + within) >> 28)
                };
            }
        }
        Ok(natural)
    }
}
