//! The scan's inner loop (DESIGN 3.5): for every body b_k of a packed group and every polynomial v of a probe,
//! Σ_j v_j·b_{j,k}, pointwise on transformed values.
//!
//! **Order of the bodies.** A scan reads its index once, from front to back ([`BodyLayout`]): tile after tile of
//! [`TILE`] points, within a tile pass after pass of four bodies, within a pass half a tile after the other, then block after
//! block. A cache line has four points of four bodies, two bodies side by side in each 64-bit lane; the two
//! polynomials of a probe lie side by side likewise. So sums stay in registers for a whole pass, one line of the index and
//! half a line of the probe serve eight products, the probe's tile (8 KiB at J = 128) stays in the first-level cache,
//! and memory sees a single stream.
//!
//! **Numbers.** Residues modulo q < 2^31 lie centred, |x| ≤ (q−1)/2, so that a product is a signed one of 60 bits and
//! eight of them fit beside a rest of 32 bits: 8·((q−1)/2)² + 2^32 < 2^63 for every admissible q, adversarial
//! residues included. After eight terms a 64-bit sum is split into its upper and lower half; upper halves are
//! added up apart. A lane begins at 2^63, so the split needs no arithmetic shift. Below 2^28, residues are not centred and
//! eight take the room of seven: the upper four bits of seven words hold the eighth. Products are below 2^56 and
//! 128 of them are added without a split. The sums' reduction is two Montgomery steps; a probe is multiplied by
//! 2^64 beforehand, so that nothing else is to be done.
//!
//! **Instruction sets.** One generic function over [`simd::Simd`] is compiled for AVX-512, AVX2 and plain Rust; a
//! [`Kernel`] is the proof that the machine has what it names. All are compared with `scan_reference`.

// Indexed loops of constant length are unrolled and leave sums in registers; iterators over nested arrays did not.
#![expect(clippy::needless_range_loop, reason = "sums must stay in registers")]

mod layout;
mod simd;

use rayon::prelude::*;

pub use layout::{BodyLayout, TILE};

use crate::{Accumulator, Ring};
use layout::{HALF, PASS};
use simd::{Portable, Simd};

/// Terms between two splits: 8·((q−1)/2)² + 2^32 < 2^63 for q < 2^31.
const TERMS: usize = 8;
/// Terms between two splits of packed residues: 128·2^56 = 2^63.
const PACKED_TERMS: usize = 128;
/// Words of a cache line.
const LINE: usize = 16;
/// Words that are asked for ahead of their use.
const AHEAD: usize = 1024;
/// Half tiles that a task of [`ScanProbe::new`] brings into order.
const TURNED: usize = 64;
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

/// Polynomials of probes of J blocks in the order of the scan, ready to be multiplied.
#[derive(Clone, Debug)]
pub struct ScanProbe {
    /// Per two polynomials, per half tile, per block: the residues of both at four points, side by side.
    tiles: Vec<u32>,
    blocks: usize,
    vectors: usize,
    modulus: u32,
}

impl ScanProbe {
    /// From `vectors` of J·N transformed residues each, block by block.
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
        let form = |residue: u32| {
            if layout::is_packed(ring.modulus()) { residue } else { layout::centre(ring.modulus(), residue) }
        };
        // Times 2^32, twice.
        let scaled: Vec<Vec<u32>> = vectors.par_iter().map(|v| ring.prepared(&ring.prepared(v))).collect();
        let mut tiles = vec![0u32; length * 2 * vectors.len().div_ceil(2)];
        for (part, pair) in tiles.chunks_exact_mut(2 * length).zip(scaled.chunks(2)) {
            part.par_chunks_mut(blocks * 2 * HALF * TURNED).enumerate().for_each(|(first, halves)| {
                // Eight blocks at a time: whole cache lines are read and written, though both sides stride.
                for start in (0..blocks).step_by(8) {
                    for (half, chunk) in halves.chunks_exact_mut(blocks * 2 * HALF).enumerate() {
                        let point = (first * TURNED + half) * HALF;
                        let runs = chunk.chunks_exact_mut(2 * HALF).enumerate().skip(start).take(8);
                        for (block, to) in runs {
                            for (side, vector) in pair.iter().enumerate() {
                                let residues = &vector[block * n + point..block * n + point + HALF];
                                for (word, &residue) in to.iter_mut().skip(side).step_by(2).zip(residues) {
                                    *word = form(residue);
                                }
                            }
                        }
                    }
                }
            });
        }
        Ok(Self { tiles, blocks, vectors: vectors.len(), modulus: ring.modulus() })
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
}

/// Where the sums of a group go: `vectors`·r polynomials of N residues.
struct Output(*mut u32);

// SAFETY: tasks write disjoint columns of it; see `scan`.
unsafe impl Sync for Output {}

struct Job<'a> {
    probe: &'a ScanProbe,
    bodies: &'a [u32],
    layout: BodyLayout,
    modulus: u32,
    output: Output,
}

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
    let fits = layout.degree() == ring.degree()
        && layout.modulus() == ring.modulus()
        && probe.modulus == ring.modulus()
        && layout.blocks() == probe.blocks
        && groups.iter().all(|bodies| layout.words() == bodies.len())
        && probe.tiles.len() == probe.blocks * 2 * probe.vectors.div_ceil(2) * layout.degree();
    if !fits {
        return Err(LengthError);
    }
    let mut sums = vec![vec![0u32; probe.vectors * layout.rank() * layout.degree()]; groups.len()];
    let mut jobs = Vec::with_capacity(groups.len());
    for (bodies, sums) in groups.iter().zip(&mut sums) {
        jobs.push(Job { probe, bodies, layout, modulus: ring.modulus(), output: Output(sums.as_mut_ptr()) });
    }
    // The probe's tile is read once for a few groups. A tile of a group is 64 KiB at J = 128 and r = 16: work enough for
    // a task, and small enough to share a single group among threads.
    let tiles = layout.degree() / TILE;
    let chunks: Vec<&[Job<'_>]> = jobs.chunks(GROUPS).collect();
    let least = (128 / (layout.rank() * GROUPS.min(groups.len()).max(1))).clamp(1, tiles);
    (0..chunks.len() * tiles).into_par_iter().with_min_len(least).for_each(|task| {
        for job in chunks[task / tiles] {
            // SAFETY: lengths were checked above; tile t of a group alone writes the columns TILE·t.. of each of its
            // polynomials, so no two tasks write the same word, and `sums` outlives them all.
            unsafe { run(kernel, job, task % tiles) }
        }
    });
    drop(jobs);
    Ok(sums)
}

/// # Safety
/// `tile` is below N/TILE, the job's lengths fit its layout, and nobody else writes this tile's columns.
unsafe fn run(kernel: Kernel, job: &Job<'_>, tile: usize) {
    // SAFETY: a kernel proves that the machine has its instructions; the rest is the caller's.
    unsafe {
        match kernel.0 {
            Set::Portable => one_tile::<Portable, Portable>(job, tile),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => one_tile_avx2(job, tile),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => one_tile_avx512(job, tile),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn one_tile_avx2(job: &Job<'_>, tile: usize) {
    // SAFETY: the caller's, and the instruction set is enabled here.
    unsafe { one_tile::<simd::x86::Avx2, simd::x86::Avx2>(job, tile) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,avx512f")]
unsafe fn one_tile_avx512(job: &Job<'_>, tile: usize) {
    // SAFETY: the caller's, and the instruction sets are enabled here.
    unsafe { one_tile::<simd::x86::Avx512, simd::x86::Avx2>(job, tile) }
}

/// Whole passes with `S`, the bodies that are left with `Rest`, whose vectors hold two.
///
/// # Safety
/// As [`run`]; the instruction sets of `S` and `Rest` are enabled in the caller.
#[inline(always)]
unsafe fn one_tile<S: Simd, Rest: Simd>(job: &Job<'_>, tile: usize) {
    let (layout, probe) = (job.layout, job.probe);
    let (blocks, rank, n) = (layout.blocks(), layout.rank(), layout.degree());
    let stored = layout.stored_blocks();
    // SAFETY: pointers stay within the slices: tile < N/TILE, and the lengths are those of the layout (`scan`).
    unsafe {
        let end = Ending::<S>::new(job.modulus, blocks, layout.is_packed());
        let rest = Ending::<Rest>::new(job.modulus, blocks, layout.is_packed());
        let bodies = job.bodies.as_ptr().add(tile * stored * rank * TILE);
        let whole = rank / PASS * PASS;
        for first in (0..rank).step_by(PASS) {
            for vector in (0..probe.vectors).step_by(2) {
                let tiles = probe.tiles.as_ptr().add((vector * n + 2 * tile * TILE) * blocks);
                let columns = |body: usize, half: usize| Columns {
                    first: job.output.0.add((vector * rank + body) * n + tile * TILE + half * HALF),
                    body: n,
                    vector: if vector + 1 < probe.vectors { rank * n } else { 0 },
                };
                for half in 0..2 {
                    let tiles = tiles.add(half * blocks * TILE);
                    // The probe's next tile comes from a slower cache; a pass asks for its share of it.
                    let chunks = blocks.div_ceil(TERMS);
                    let next = tiles.wrapping_add((2 * TILE * blocks) + (first / PASS * 2 + half) * chunks * LINE);
                    if first < whole {
                        let bodies = bodies.add((2 * first + half * PASS) * stored * HALF);
                        let pass = Pass { probe: tiles, bodies, blocks, next };
                        match (S::PAIRS == 2, layout.is_packed()) {
                            (true, false) => pass.centred::<S, 1>(&end, columns(first, half)),
                            (true, true) => pass.packed::<S, 1>(&end, columns(first, half)),
                            (false, false) => pass.centred::<S, 2>(&end, columns(first, half)),
                            (false, true) => pass.packed::<S, 2>(&end, columns(first, half)),
                        }
                    } else if rank - whole >= 2 {
                        let bodies = bodies.add((2 * first + half * 2) * stored * HALF);
                        let pass = Pass { probe: tiles, bodies, blocks, next };
                        if layout.is_packed() {
                            pass.packed::<Rest, 1>(&rest, columns(first, half));
                        } else {
                            pass.centred::<Rest, 1>(&rest, columns(first, half));
                        }
                    }
                }
                if first >= whole && rank % 2 == 1 {
                    let bodies = bodies.add((rank - 1) * stored * TILE);
                    let pass = Pass { probe: tiles, bodies, blocks, next: tiles.wrapping_add(2 * TILE * blocks) };
                    pass.single::<Rest>(&rest, layout.is_packed(), Columns { body: HALF, ..columns(rank - 1, 0) });
                }
            }
        }
    }
}

/// Where the sums of one pass go.
#[derive(Clone, Copy)]
struct Columns {
    first: *mut u32,
    /// Words from one body to the next.
    body: usize,
    /// Words from one vector to the next; 0 if there is no second one.
    vector: usize,
}

/// Sums: per vector of bodies, per polynomial of the probe, of even and odd words.
type Sums<S, const G: usize> = [[[<S as Simd>::V; 2]; 2]; G];

/// Two polynomials of a probe and some bodies over all blocks, at half a tile.
struct Pass {
    probe: *const u32,
    bodies: *const u32,
    blocks: usize,
    /// What is asked for meanwhile, a line per [`TERMS`] blocks.
    next: *const u32,
}

impl Pass {
    /// # Safety
    /// The pointers are good for `blocks` blocks of a probe and of G vectors, `output` for the sums.
    #[inline(always)]
    unsafe fn centred<S: Simd, const G: usize>(&self, end: &Ending<S>, output: Columns) {
        // SAFETY: the caller's.
        unsafe {
            let mut low: Sums<S, G> = [[[end.bias; 2]; 2]; G];
            let mut high: Sums<S, G> = [[[S::splat(0); 2]; 2]; G];
            let mut block = 0;
            while block + TERMS <= self.blocks {
                S::prefetch(self.next.wrapping_add(block / TERMS * LINE));
                for term in block..block + TERMS {
                    self.term::<S, G>(term, &mut low);
                }
                end.split(&mut low, &mut high);
                block += TERMS;
            }
            if block < self.blocks {
                for term in block..self.blocks {
                    self.term::<S, G>(term, &mut low);
                }
                end.split(&mut low, &mut high);
            }
            end.write(&low, &high, output);
        }
    }

    /// The probe's first polynomial and its second, each in the lower words of its lanes.
    #[inline(always)]
    unsafe fn probe_at<S: Simd>(&self, term: usize) -> [S::V; 2] {
        // SAFETY: the caller's: `term` is below `blocks`.
        unsafe {
            let both = S::load_probe(self.probe.add(term * TILE));
            [both, S::upper(both)]
        }
    }

    #[inline(always)]
    unsafe fn term<S: Simd, const G: usize>(&self, term: usize, low: &mut Sums<S, G>) {
        // SAFETY: the caller's: `term` is below `blocks`.
        unsafe {
            let probe = self.probe_at::<S>(term);
            let bodies = self.bodies.add(term * G * S::PAIRS * TILE);
            S::prefetch(bodies.wrapping_add(AHEAD));
            for g in 0..G {
                let even = S::load(bodies.add(g * S::PAIRS * TILE));
                let odd = S::upper(even);
                for side in 0..2 {
                    low[g][side][0] = S::add(low[g][side][0], S::multiply_signed(even, probe[side]));
                    low[g][side][1] = S::add(low[g][side][1], S::multiply_signed(odd, probe[side]));
                }
            }
        }
    }

    /// As [`Pass::centred`], for packed residues: `bodies` is good for 7 runs of G vectors per eight blocks.
    #[inline(always)]
    unsafe fn packed<S: Simd, const G: usize>(&self, end: &Ending<S>, output: Columns) {
        // SAFETY: the caller's; blocks are padded to a multiple of eight in the bodies, not in the probe.
        unsafe {
            let mut low: Sums<S, G> = [[[S::splat(0); 2]; 2]; G];
            let mut high: Sums<S, G> = [[[S::splat(0); 2]; 2]; G];
            let mut block = 0;
            while block < self.blocks {
                let until = (block + PACKED_TERMS).min(self.blocks);
                while block < until {
                    S::prefetch(self.next.wrapping_add(block / TERMS * LINE));
                    let mut eighth = [S::splat(0); G];
                    for within in 0..7 {
                        let bodies = self.bodies.add((block / 8 * 7 + within) * G * S::PAIRS * TILE);
                        S::prefetch(bodies.wrapping_add(AHEAD));
                        let mut values = [S::splat(0); G];
                        for g in 0..G {
                            let words = S::load(bodies.add(g * S::PAIRS * TILE));
                            values[g] = S::and(words, end.residue);
                            eighth[g] = S::or(S::words_up_4(eighth[g]), S::words_down_28(words));
                        }
                        if block + within < until {
                            self.packed_term::<S, G>(block + within, &values, &mut low);
                        }
                    }
                    if block + 7 < until {
                        self.packed_term::<S, G>(block + 7, &eighth, &mut low);
                    }
                    block += 8;
                }
                end.split_packed(&mut low, &mut high);
            }
            end.write(&low, &high, output);
        }
    }

    #[inline(always)]
    unsafe fn packed_term<S: Simd, const G: usize>(&self, term: usize, values: &[S::V; G], low: &mut Sums<S, G>) {
        // SAFETY: the caller's: `term` is below `blocks`.
        unsafe {
            let probe = self.probe_at::<S>(term);
            for g in 0..G {
                let (even, odd) = (values[g], S::upper(values[g]));
                for side in 0..2 {
                    low[g][side][0] = S::add(low[g][side][0], S::multiply(even, probe[side]));
                    low[g][side][1] = S::add(low[g][side][1], S::multiply(odd, probe[side]));
                }
            }
        }
    }

    /// A body without a partner: its vector has the points of the tile's first half in the even words and those of the
    /// second half in the odd ones. `probe` is that of the first half.
    #[inline(always)]
    unsafe fn single<S: Simd>(&self, end: &Ending<S>, packed: bool, output: Columns) {
        // SAFETY: the caller's.
        unsafe {
            let second = Pass { probe: self.probe.add(self.blocks * TILE), ..*self };
            let start = if packed { S::splat(0) } else { end.bias };
            let mut low: Sums<S, 1> = [[[start; 2]; 2]];
            let mut high: Sums<S, 1> = [[[S::splat(0); 2]; 2]];
            let mut eighth = S::splat(0);
            for term in 0..self.blocks {
                let words = if !packed {
                    S::load(self.bodies.add(term * TILE))
                } else if term % 8 < 7 {
                    let words = S::load(self.bodies.add((term / 8 * 7 + term % 8) * TILE));
                    eighth = S::or(S::words_up_4(eighth), S::words_down_28(words));
                    S::and(words, end.residue)
                } else {
                    // Seven shifts have pushed the eighth of the last eight out.
                    S::and(eighth, end.residue)
                };
                for (odd, (pass, words)) in [(self, words), (&second, S::upper(words))].into_iter().enumerate() {
                    let probe = pass.probe_at::<S>(term);
                    for side in 0..2 {
                        let product = if packed {
                            S::multiply(words, probe[side])
                        } else {
                            S::multiply_signed(words, probe[side])
                        };
                        low[0][side][odd] = S::add(low[0][side][odd], product);
                    }
                }
                let last = term + 1 == self.blocks;
                if packed && (last || (term + 1) % PACKED_TERMS == 0) {
                    end.split_packed(&mut low, &mut high);
                } else if !packed && (last || (term + 1) % TERMS == 0) {
                    end.split(&mut low, &mut high);
                }
            }
            end.write(&low, &high, output);
        }
    }
}

/// Splitting and reducing sums.
struct Ending<S: Simd> {
    /// 2^32 − 1.
    lower: S::V,
    /// 2^63.
    bias: S::V,
    /// 2^28 − 1, twice.
    residue: S::V,
    /// q in both halves.
    modulus: S::V,
    /// −q^−1 modulo 2^32.
    inverse: S::V,
    /// A multiple of q that makes upper sums positive, less what the bias has added to them.
    correction: S::V,
}

impl<S: Simd> Ending<S> {
    #[inline(always)]
    unsafe fn new(modulus: u32, blocks: usize, packed: bool) -> Self {
        let splits = blocks.div_ceil(TERMS) as u64;
        let q = u64::from(modulus);
        let biased = splits << 31;
        // Centred: |Σ upper| < 2^31 per split, so the next multiple of q above makes it positive.
        let correction = if packed { 0 } else { biased.div_ceil(q) * q };
        let correction = if packed { 0 } else { correction.wrapping_sub(biased) };
        // SAFETY: the caller's.
        unsafe {
            Self {
                lower: S::splat(0xffff_ffff),
                bias: S::splat(1 << 63),
                residue: S::splat(0x0fff_ffff_0fff_ffff),
                modulus: S::splat(q | q << 32),
                inverse: S::splat(u64::from(negated_inverse(modulus))),
                correction: S::splat(correction),
            }
        }
    }

    /// Moves the upper halves of biased sums away.
    #[inline(always)]
    unsafe fn split<const G: usize>(&self, low: &mut Sums<S, G>, high: &mut Sums<S, G>) {
        for body in 0..G {
            for vector in 0..2 {
                for half in 0..2 {
                    // SAFETY: the caller's.
                    unsafe {
                        high[body][vector][half] = S::add(high[body][vector][half], S::upper(low[body][vector][half]));
                        low[body][vector][half] = S::join(low[body][vector][half], self.bias);
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn split_packed<const G: usize>(&self, low: &mut Sums<S, G>, high: &mut Sums<S, G>) {
        for body in 0..G {
            for vector in 0..2 {
                for half in 0..2 {
                    // SAFETY: the caller's.
                    unsafe {
                        high[body][vector][half] = S::add(high[body][vector][half], S::upper(low[body][vector][half]));
                        low[body][vector][half] = S::and(low[body][vector][half], self.lower);
                    }
                }
            }
        }
    }

    /// Reduces sums that have just been split, and writes them.
    #[inline(always)]
    unsafe fn write<const G: usize>(&self, low: &Sums<S, G>, high: &Sums<S, G>, output: Columns) {
        for g in 0..G {
            for vector in 0..2 {
                if vector == 1 && output.vector == 0 {
                    continue;
                }
                let (low, high) = (&low[g][vector], &high[g][vector]);
                // SAFETY: the caller's.
                unsafe {
                    let even = self.reduce(low[0], high[0]);
                    let odd = self.reduce(low[1], high[1]);
                    let both = S::or(even, S::raise(odd));
                    // Below 2q: the smaller of x and x − q, which wraps for x < q.
                    let reduced = S::smaller_words(both, S::subtract_words(both, self.modulus));
                    S::store(
                        output.first.add(g * S::PAIRS * 2 * output.body + vector * output.vector),
                        output.body,
                        reduced,
                    );
                }
            }
        }
    }

    /// (high·2^32 + low)·2^−64 modulo q, below 2q: two Montgomery steps.
    #[inline(always)]
    unsafe fn reduce(&self, low: S::V, high: S::V) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let high = S::add(high, self.correction);
            let first = S::add(high, self.carried(S::and(low, self.lower)));
            S::add(S::upper(first), self.carried(S::and(first, self.lower)))
        }
    }

    /// For x < 2^32: (x + m·q)/2^32 with the m < 2^32 that makes it whole.
    #[inline(always)]
    unsafe fn carried(&self, x: S::V) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let m = S::multiply(x, self.inverse);
            S::upper(S::add(x, S::multiply(m, self.modulus)))
        }
    }
}

/// −q^−1 modulo 2^32 of an odd q, by Newton's iteration.
fn negated_inverse(q: u32) -> u32 {
    (0..5).fold(q, |x, _| x.wrapping_mul(2u32.wrapping_sub(q.wrapping_mul(x)))).wrapping_neg()
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
