//! A probe in the order of the scan.

use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::layout::{HALF, TILE, is_packed};
use super::pass::LINE;
use super::simd::{Interleave, Portable};
use super::{Kernel, LengthError};
use crate::Ring;

/// Points that are brought into order together: four cache lines of each block and polynomial, since each block is in a page of
/// its own.
const STRIP: usize = 64;
/// Blocks that are asked for ahead of their use: no hardware looks into the next page.
const AHEAD: usize = 2;
/// Rooms of probes that are kept for the next ones.
const SPARES: usize = 4;

/// Rooms of probes that are gone. The system gives out a new one page by page, which takes longer than filling it (half a
/// millisecond for 2 MiB). Probes are ciphertexts: nothing in them needs wiping.
static SPARE: Mutex<Vec<Vec<u32>>> = Mutex::new(Vec::new());

/// Polynomials of probes of J blocks in the order of the scan, ready to be multiplied.
#[derive(Clone, Debug)]
pub struct ScanProbe {
    /// Per two polynomials, per half tile, per block: the residues of both at four points, side by side. Behind the blocks of a
    /// half lies a cache line of no meaning.
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
        Self::with(Kernel::detect(), ring, vectors)
    }

    /// [`ScanProbe::new`] with the instructions of a kernel.
    pub(super) fn with(kernel: Kernel, ring: &Ring, vectors: &[&[u32]]) -> Result<Self, LengthError> {
        let n = ring.degree();
        let length = vectors.first().map_or(0, |v| v.len());
        let fits = length > 0 && length.is_multiple_of(n) && n.is_multiple_of(TILE);
        if !fits || vectors.iter().any(|v| v.len() != length) {
            return Err(LengthError);
        }
        let turning = Turning { ring, blocks: length / n };
        let part = n / HALF * stride(turning.blocks);
        let words = part * vectors.len().div_ceil(2);
        let mut tiles = room(words);
        for (part, pair) in tiles.spare_capacity_mut()[..words].chunks_exact_mut(part).zip(vectors.chunks(2)) {
            // Without a second polynomial the first stands for it; its sums are not written.
            let pair = [pair[0], pair[pair.len() - 1]];
            let strips = part.par_chunks_mut(STRIP / HALF * stride(turning.blocks)).enumerate();
            strips.for_each(|(strip, to)| turning.strip(kernel, pair, strip * STRIP, to));
        }
        // SAFETY: the parts cover the room, the strips a part, and each strip was written whole, its lines without meaning too.
        unsafe { tiles.set_len(words) };
        Ok(Self { tiles, blocks: turning.blocks, vectors: vectors.len(), degree: n, modulus: ring.modulus() })
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

    /// Words from one half tile to the next.
    pub(super) fn stride(&self) -> usize {
        stride(self.blocks)
    }

    pub(super) fn degree(&self) -> usize {
        self.degree
    }

    pub(super) fn modulus(&self) -> u32 {
        self.modulus
    }

    /// Two polynomials from half a tile on: J runs of eight words; the next half lies
    /// [`ScanProbe::stride`] words behind.
    pub(super) fn half(&self, pair: usize, tile: usize, half: usize) -> &[u32] {
        let start = (pair * self.degree / HALF + tile * 2 + half) * self.stride();
        &self.tiles[start..]
    }
}

impl Drop for ScanProbe {
    fn drop(&mut self) {
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARES {
            self.tiles.clear();
            spare.push(std::mem::take(&mut self.tiles));
        }
    }
}

/// Room for so many words, empty.
fn room(words: usize) -> Vec<u32> {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    // Not one that is much too large: it would keep the larger ones from those who need them.
    match spare.iter().position(|room| (words..=2 * words).contains(&room.capacity())) {
        Some(found) => spare.swap_remove(found),
        None => Vec::with_capacity(words),
    }
}

/// Words from one half tile to the next. With a power of two the halves that are written together would share a few sets of
/// the first-level cache.
fn stride(blocks: usize) -> usize {
    blocks * 2 * HALF + LINE
}

/// What brings residues into order.
struct Turning<'a> {
    ring: &'a Ring,
    blocks: usize,
}

impl Turning<'_> {
    /// Writes the strip that begins at `point`, as many points as `to` has room for.
    fn strip(&self, kernel: Kernel, pair: [&[u32]; 2], point: usize, to: &mut [MaybeUninit<u32>]) {
        let points = to.len() / stride(self.blocks) * HALF;
        assert!(points.is_multiple_of(TILE) && point + points <= self.ring.degree());
        assert!(pair.iter().all(|vector| vector.len() == self.blocks * self.ring.degree()));
        let to = to.as_mut_ptr().cast();
        // SAFETY: a kernel proves that the machine has its instructions; lengths were just checked.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            if kernel.has_avx2() {
                return self.strip_avx2(pair, point, points, to);
            }
            let _ = kernel;
            self.points::<Portable>(pair, point, points, to);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    unsafe fn strip_avx2(&self, pair: [&[u32]; 2], point: usize, points: usize, to: *mut u32) {
        // SAFETY: the caller's, and the instruction set is enabled here.
        unsafe { self.points::<super::simd::x86::Avx2>(pair, point, points, to) }
    }

    /// # Safety
    /// `points` from `point` on are below N and a multiple of [`TILE`], both vectors have J·N residues, `to` has room for
    /// both, and the instruction set is enabled in the caller.
    #[inline(always)]
    unsafe fn points<S: Interleave>(&self, pair: [&[u32]; 2], point: usize, points: usize, to: *mut u32) {
        let (n, q) = (self.ring.degree(), u64::from(self.ring.modulus()));
        let half = if is_packed(self.ring.modulus()) { 0 } else { q / 2 };
        // SAFETY: the caller's.
        unsafe {
            let scaling = Scaling::<S> {
                factor: S::splat(self.ring.cube_of_two_to_32()),
                inverse: S::splat(u64::from(self.ring.inverse_of_modulus().wrapping_neg())),
                modulus: S::splat(q | q << 32),
                half: S::splat(half | half << 32),
            };
            for half in 0..points / HALF {
                let line = to.add(half * stride(self.blocks) + self.blocks * 2 * HALF);
                std::ptr::write_bytes(line, 0, LINE);
            }
            for block in 0..self.blocks {
                for tile in 0..points / TILE {
                    let from = pair.map(|vector| vector.as_ptr().add(block * n + point + tile * TILE));
                    if (tile * TILE).is_multiple_of(LINE) {
                        S::prefetch(from[0].wrapping_add(AHEAD * n));
                        S::prefetch(from[1].wrapping_add(AHEAD * n));
                    }
                    let halves = S::interleave(scaling.scale(S::load(from[0])), scaling.scale(S::load(from[1])));
                    for (half, words) in halves.into_iter().enumerate() {
                        S::store_words(to.add((2 * tile + half) * stride(self.blocks) + block * 2 * HALF), words);
                    }
                }
            }
        }
    }
}

/// Multiplies residues by 2^64 and centres them.
struct Scaling<S: Interleave> {
    /// 2^96 modulo q: one Montgomery step with it multiplies by 2^64.
    factor: S::V,
    /// −q^−1 modulo 2^32.
    inverse: S::V,
    /// q in both halves.
    modulus: S::V,
    /// (q − 1)/2 in both halves, or 0 where residues stay as they are.
    half: S::V,
}

impl<S: Interleave> Scaling<S> {
    #[inline(always)]
    unsafe fn scale(&self, residues: S::V) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let even = S::upper(self.step(residues));
            let odd = S::raise(S::upper(self.step(S::upper(residues))));
            let canonical = self.below_q(S::or(even, odd));
            // Canonical and (q−1)/2 above what is wanted: then below the centre is above zero.
            S::subtract_words(self.below_q(S::add_words(canonical, self.half)), self.half)
        }
    }

    /// x·factor + m·q with the m < 2^32 that makes the lower half zero; below 2q·2^32.
    #[inline(always)]
    unsafe fn step(&self, x: S::V) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let product = S::multiply(x, self.factor);
            S::add(product, S::multiply(S::multiply(product, self.inverse), self.modulus))
        }
    }

    /// For words below 2q: the smaller of x and x − q, which wraps for x < q.
    #[inline(always)]
    unsafe fn below_q(&self, x: S::V) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::smaller_words(x, S::subtract_words(x, self.modulus)) }
    }
}
