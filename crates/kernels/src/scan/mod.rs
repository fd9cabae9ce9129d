//! The scan's inner loop (DESIGN 3.5): for every body b_k of a packed group and every polynomial v of a probe,
//! Σ_j v_j·b_{j,k}, pointwise on transformed values.
//!
//! **Order of the bodies.** A scan reads its index once, from front to back ([`BodyLayout`]): tile after tile of
//! [`TILE`] points, within a tile pass after pass of four bodies, within a pass half a tile after the other, then block after
//! block. A cache line has four points of four bodies, two bodies side by side in each 64-bit lane; the two
//! polynomials of a probe lie side by side likewise. So sums of eight blocks stay in registers, one line of the index and
//! half a line of the probe serve eight products, the probe's tile (8 KiB at J = 128) stays in the first-level cache,
//! and memory sees a single stream.
//!
//! **Numbers.** Residues modulo q < 2^31 lie centred, |x| ≤ (q−1)/2, so that a product is a signed one below 2^60 and
//! eight of them fit a signed 64-bit sum: 8·((q−1)/2)² < 2^63 for every admissible q, adversarial residues included. Such
//! sums are added up modulo 2^64, and their upper bits beside them ([`eights`]). Below 2^28, residues are not centred and
//! eight take the room of seven: the upper four bits of seven words hold the eighth. Products are below 2^56 and
//! 128 of them are added without a split. The sums' reduction is two Montgomery steps; a probe is multiplied by
//! 2^64 beforehand, so that nothing else is to be done.
//!
//! **Results.** [`scan`] leaves sums as polynomials; [`scan_folded`] writes them as they travel, once: four points of a
//! folded sum are added up in registers, and rooms of results are used again ([`crate::give_back`]).
//!
//! **Instruction sets.** One generic function over [`simd::Simd`] is compiled for AVX-512, AVX2 and plain Rust; a
//! [`Kernel`] is the proof that the machine has what it names. All are compared with `scan_reference`.

mod eights;
mod layout;
mod pass;
mod probe;
mod simd;

use std::ops::Range;

use rayon::prelude::*;

pub use layout::{BodyLayout, TILE};
pub use probe::ScanProbe;

use crate::{Accumulator, Ring, spare};
use layout::HALF;
use pass::{Column, LINE, Tile};
use simd::Portable;

/// Groups that share a tile of the probe.
const GROUPS: usize = 4;

/// Which instructions a scan uses. A value proves that this machine has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Set);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Kernel {
    /// The fastest one of this machine.
    #[must_use]
    pub fn detect() -> Self {
        Self::available().pop().unwrap_or(Self(Set::Portable))
    }

    /// All that this machine can run, the slowest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut kernels = vec![Self(Set::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                kernels.push(Self(Set::Avx2));
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avx512f") {
                kernels.push(Self(Set::Avx512));
            }
        }
        kernels
    }

    /// Plain Rust.
    #[must_use]
    pub fn portable() -> Self {
        Self(Set::Portable)
    }

    /// Whether AVX2 is there; AVX-512 includes it.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn has_avx2(self) -> bool {
        matches!(self.0, Set::Avx2 | Set::Avx512)
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) fn has_avx512(self) -> bool {
        matches!(self.0, Set::Avx512)
    }

    /// Name of the instruction set.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "avx512",
        }
    }
}

/// A length that does not fit the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthError;

impl std::fmt::Display for LengthError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the number of residues does not fit the layout")
    }
}

impl std::error::Error for LengthError {}

/// Groups that are scanned for one probe, checked to fit together.
struct Setup<'a> {
    kernel: Kernel,
    layout: BodyLayout,
    probe: &'a ScanProbe,
    groups: &'a [&'a [u32]],
}

impl<'a> Setup<'a> {
    fn new(
        kernel: Kernel,
        ring: &Ring,
        layout: BodyLayout,
        probe: &'a ScanProbe,
        groups: &'a [&'a [u32]],
    ) -> Result<Self, LengthError> {
        let fits = layout.degree() == ring.degree()
            && layout.modulus() == ring.modulus()
            && probe.modulus() == ring.modulus()
            && probe.degree() == ring.degree()
            && layout.blocks() == probe.blocks()
            && groups.iter().all(|bodies| layout.words() == bodies.len());
        if fits { Ok(Self { kernel, layout, probe, groups }) } else { Err(LengthError) }
    }

    /// Calls `work` with each span of tiles of each few groups; every group has each of its tiles in one span.
    ///
    /// The probe's tile is read once for a few groups. A tile of a group is 64 KiB at J = 128 and r = 16: work enough for
    /// a task, and small enough to share a single group among threads.
    fn spans(&self, tiles_of_span: usize, work: impl Fn(&mut Scratch, Range<usize>, Range<usize>) + Sync) {
        let tiles = self.layout.degree() / TILE;
        let spans = tiles.div_ceil(tiles_of_span);
        let groups = self.groups.len();
        let least = 128 / (self.layout.rank() * GROUPS.min(groups).max(1) * tiles_of_span);
        let tasks = (0..groups.div_ceil(GROUPS) * spans).into_par_iter().with_min_len(least.clamp(1, spans));
        tasks.for_each_init(Scratch::default, |scratch, task| {
            let (first, span) = (task / spans * GROUPS, task % spans * tiles_of_span);
            work(scratch, first..(first + GROUPS).min(groups), span..(span + tiles_of_span).min(tiles));
        });
    }

    /// Scans a span of tiles of a few groups; `columns` says where the sums of a pair of polynomials of a group go.
    ///
    /// # Safety
    /// For each group, tile and pair the columns are good for r bodies of [`TILE`] words, and nobody else writes them.
    unsafe fn scan(
        &self,
        sides: &mut Vec<[Column; 2]>,
        groups: Range<usize>,
        tiles: Range<usize>,
        columns: impl Fn(usize, usize, usize) -> [Column; 2],
    ) {
        let words = self.layout.words() / (self.layout.degree() / TILE);
        for tile in tiles {
            for group in groups.clone() {
                let next = if group + 1 < groups.end { (group + 1, tile) } else { (groups.start, tile + 1) };
                let after = self.groups[next.0].as_ptr().wrapping_add(next.1 * words);
                let (layout, probe, bodies) = (self.layout, self.probe, self.groups[group]);
                sides.clear();
                sides.extend((0..probe.pairs()).map(|pair| columns(group, tile, pair)));
                // SAFETY: a kernel proves that the machine has its instructions; lengths were checked by `new`; the rest
                // is the caller's.
                unsafe { run(self.kernel, &Tile { probe, layout, bodies, tile, after }, sides) }
            }
        }
    }
}

/// What a thread keeps from one task to the next.
#[derive(Default)]
struct Scratch {
    sides: Vec<[Column; 2]>,
    /// Sums that are folded when a span is through: per group, pair and body, the points of the span.
    unfolded: Vec<u32>,
}

/// A room that tasks write disjoint parts of.
struct Room<T>(*mut T);

// SAFETY: tasks write disjoint places of it; see where it is used.
unsafe impl<T: Send> Sync for Room<T> {}

/// Σ_j v_j·b_{j,k} for every polynomial v of the probe and every body k of packed groups of one layout, transformed.
///
/// Each of `groups` is in the order of [`BodyLayout`]; each result has `vectors`·r·N canonical residues, polynomial (v, k)
/// at (v·r + k)·N. Uses the current rayon pool.
///
/// # Errors
/// [`LengthError`] if the bodies, the probe and the layout do not fit together.
pub fn scan(
    kernel: Kernel,
    ring: &Ring,
    layout: BodyLayout,
    probe: &ScanProbe,
    groups: &[&[u32]],
) -> Result<Vec<Vec<u32>>, LengthError> {
    let setup = Setup::new(kernel, ring, layout, probe, groups)?;
    let (n, rank, vectors) = (layout.degree(), layout.rank(), probe.vectors());
    let mut sums: Vec<Vec<u32>> = groups.iter().map(|_| Vec::with_capacity(vectors * rank * n)).collect();
    let rooms: Vec<Room<u32>> = sums.iter_mut().map(|sums| Room(sums.as_mut_ptr())).collect();
    setup.spans(1, |scratch, groups, tiles| {
        let column = |group: usize, tile: usize, vector: usize| {
            if vector >= vectors {
                return Column::NONE;
            }
            Column { first: rooms[group].0.wrapping_add(vector * rank * n + tile * TILE), body: n, folded: false }
        };
        let columns = |group, tile, pair| [column(group, tile, 2 * pair), column(group, tile, 2 * pair + 1)];
        // SAFETY: each result has room for `vectors`·r polynomials; tile t of a group alone writes their words TILE·t...
        unsafe { setup.scan(&mut scratch.sides, groups, tiles, columns) }
    });
    for sums in &mut sums {
        // SAFETY: every tile of every group was in one span, and all of its words were written for every vector and body.
        unsafe { sums.set_len(vectors * rank * n) }
    }
    Ok(sums)
}

/// What [`scan_folded`] says about one group and one probe: residues as four little-endian bytes each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoldedSums {
    /// Σ_j v_j·b_{j,k} for the pair's first polynomial v: r·N residues.
    pub whole: Vec<u8>,
    /// The same for its second one, folded by β ([`Ring::fold`]): r·N/β residues.
    pub folded: Vec<u8>,
}

/// [`scan`] in the form in which sums leave the matcher: of every two polynomials of the probe (a^p and b^p of DESIGN 3.5),
/// the sums of the first whole and those of the second folded by β, written once and in place. Who is done with them may hand their rooms
/// on to the next scan ([`crate::give_back`]).
///
/// The result has an entry for each group, and in it one for each pair of polynomials. Uses the current rayon pool.
///
/// # Errors
/// [`LengthError`] if the bodies, the probe and the layout do not fit together, if the probe has an odd number of polynomials,
/// or if β has no folding ([`Ring::folding`]).
pub fn scan_folded(
    kernel: Kernel,
    ring: &Ring,
    layout: BodyLayout,
    probe: &ScanProbe,
    beta: usize,
    groups: &[&[u32]],
) -> Result<Vec<Vec<FoldedSums>>, LengthError> {
    let setup = Setup::new(kernel, ring, layout, probe, groups)?;
    ring.folding(beta).ok_or(LengthError)?;
    let (n, rank, pairs) = (layout.degree(), layout.rank(), probe.pairs());
    if !probe.vectors().is_multiple_of(2) {
        return Err(LengthError);
    }
    const WORD: usize = size_of::<u32>();
    let (whole, folded) = (rank * n * WORD, rank * n / beta * WORD);
    let room = || FoldedSums { whole: spare::room(whole), folded: spare::room(folded) };
    let mut sums: Vec<Vec<FoldedSums>> = groups.iter().map(|_| (0..pairs).map(|_| room()).collect()).collect();
    let rooms: Vec<[Room<u8>; 2]> =
        sums.iter_mut().flatten().map(|s| [Room(s.whole.as_mut_ptr()), Room(s.folded.as_mut_ptr())]).collect();
    // Four points are folded in registers; what is left of the folding waits in the thread's room until a span is through,
    // which has whole cache lines and whole foldings.
    let by_four = beta.is_multiple_of(HALF);
    let left = if by_four { beta / HALF } else { beta };
    let rest = ring.folding(left).ok_or(LengthError)?;
    let tiles_of_span = (beta / TILE).max(LINE / TILE);
    setup.spans(tiles_of_span, |scratch, groups, tiles| {
        let first = groups.start;
        let unfolded = if by_four { tiles.len() * TILE / HALF } else { tiles.len() * TILE };
        if left > 1 {
            scratch.unfolded.resize(groups.len() * pairs * rank * unfolded, 0);
        }
        let room = scratch.unfolded.as_mut_ptr();
        let columns = |group: usize, tile: usize, pair: usize| {
            let rooms = &rooms[group * pairs + pair];
            let whole = Column { first: rooms[0].0.cast::<u32>().wrapping_add(tile * TILE), body: n, folded: false };
            let words = if by_four { TILE / HALF } else { TILE };
            let (first, body) = if left > 1 {
                let place = ((group - first) * pairs + pair) * rank * unfolded + (tile - tiles.start) * words;
                (room.wrapping_add(place), unfolded)
            } else {
                (rooms[1].0.cast::<u32>().wrapping_add(tile * words), n / beta)
            };
            [whole, Column { first, body, folded: by_four }]
        };
        // SAFETY: each first result has room for r polynomials, and tile t of a group alone writes their words TILE·t..; the
        // second ones go likewise to rooms of r·N/β words or, if they are to be folded on, to the thread's own.
        unsafe { setup.scan(&mut scratch.sides, groups.clone(), tiles.clone(), columns) }
        if left == 1 {
            return;
        }
        for (values, room) in scratch.unfolded.chunks_exact_mut(rank * unfolded).zip(&rooms[first * pairs..]) {
            let values = ring.fold(rest, values);
            for (body, values) in values.chunks_exact(unfolded / left).enumerate() {
                let place = (body * n + tiles.start * TILE) / beta;
                // SAFETY: the second result has room for r·N/β residues, and those of a span's points are its own.
                unsafe {
                    let to = room[1].0.cast::<u32>().wrapping_add(place);
                    std::ptr::copy_nonoverlapping(values.as_ptr().cast::<u8>(), to.cast(), values.len() * WORD);
                }
            }
        }
    });
    for sums in sums.iter_mut().flatten() {
        // SAFETY: every tile of every group was in one span, which wrote its words of all bodies.
        unsafe {
            sums.whole.set_len(whole);
            sums.folded.set_len(folded);
        }
        if cfg!(target_endian = "big") {
            let words = [&mut sums.whole, &mut sums.folded].map(|bytes| bytes.as_chunks_mut::<WORD>().0);
            words.into_iter().flatten().for_each(|word| word.reverse());
        }
    }
    Ok(sums)
}

/// # Safety
/// As [`pass::one_tile`], but for the instruction sets.
unsafe fn run(kernel: Kernel, tile: &Tile<'_>, columns: &[[Column; 2]]) {
    // SAFETY: a kernel proves that the machine has its instructions; the rest is the caller's.
    unsafe {
        match kernel.0 {
            Set::Portable => pass::one_tile::<Portable, Portable>(tile, columns),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => one_tile_avx2(tile, columns),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => one_tile_avx512(tile, columns),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn one_tile_avx2(tile: &Tile<'_>, columns: &[[Column; 2]]) {
    // SAFETY: the caller's, and the instruction set is enabled here.
    unsafe { pass::one_tile::<simd::x86::Avx2, simd::x86::Avx2>(tile, columns) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,avx512f")]
unsafe fn one_tile_avx512(tile: &Tile<'_>, columns: &[[Column; 2]]) {
    // SAFETY: the caller's, and the instruction sets are enabled here.
    unsafe { pass::one_tile::<simd::x86::Avx512, simd::x86::Avx2>(tile, columns) }
}

/// [`scan`] on bodies in their natural order (body (j, k) at (j·r + k)·N), without any trick: what every kernel is
/// compared with.
///
/// # Errors
/// [`LengthError`] if lengths do not fit together.
pub fn scan_reference(ring: &Ring, rank: usize, vectors: &[&[u32]], bodies: &[u32]) -> Result<Vec<u32>, LengthError> {
    let n = ring.degree();
    let mut sums = Vec::with_capacity(vectors.len() * rank * n);
    for vector in vectors {
        if rank == 0 || !vector.len().is_multiple_of(n) || bodies.len() != vector.len() * rank {
            return Err(LengthError);
        }
        for body in 0..rank {
            let mut sum = Accumulator::new(n);
            for (block, v) in bodies.chunks_exact(rank * n).zip(vector.chunks_exact(n)) {
                sum.accumulate(v, &block[body * n..(body + 1) * n]);
            }
            sums.extend(sum.finish(ring));
        }
    }
    Ok(sums)
}

#[cfg(test)]
mod tests;
