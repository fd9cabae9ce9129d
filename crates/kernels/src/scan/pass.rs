//! Sums over all blocks at one tile, for any instruction set.

// Indexed loops of constant length are unrolled and leave sums in registers; iterators over nested arrays did not.
#![expect(clippy::needless_range_loop, reason = "sums must stay in registers")]

use std::ops::Range;

use super::layout::{BodyLayout, HALF, PASS, TILE};
use super::probe::ScanProbe;
use super::simd::{Eights, Simd, Sums};

/// Terms that are added before a sum is added to the totals: 8·((q−1)/2)² < 2^63 for q < 2^31.
pub(super) const TERMS: usize = 8;
/// Terms between two splits of packed residues: 128·2^56 = 2^63.
pub(super) const PACKED_TERMS: usize = 128;
/// Words of a cache line.
pub(super) const LINE: usize = 16;
/// Words that are asked for ahead of their use.
const AHEAD: usize = 512;

/// A tile of a group and the probe it is multiplied with.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    pub(super) probe: &'a ScanProbe,
    pub(super) layout: BodyLayout,
    /// The group's bodies.
    pub(super) bodies: &'a [u32],
    /// Which tile.
    pub(super) tile: usize,
    /// What will be read after this tile; need not be valid.
    pub(super) after: *const u32,
}

/// Where the sums of one polynomial of a probe go, at one tile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// The first body's sums at the tile's first point, any alignment; null if there is no such polynomial.
    pub(super) first: *mut u32,
    /// Words from one body to the next.
    pub(super) body: usize,
    /// Whether the four points of half a tile are added up to one word (folding by four).
    pub(super) folded: bool,
}

impl Column {
    /// For a polynomial that is not there.
    pub(super) const NONE: Self = Self { first: std::ptr::null_mut(), body: 0, folded: false };

    fn words_of_half(self) -> usize {
        if self.folded { 1 } else { HALF }
    }

    /// # Safety
    /// `body` and `half` lie within the room of the column.
    unsafe fn at(self, body: usize, half: usize) -> Self {
        if self.first.is_null() {
            return self;
        }
        let half = half * self.words_of_half();
        // SAFETY: the caller's.
        Self { first: unsafe { self.first.add(body * self.body + half) }, ..self }
    }
}

/// Whole passes with `S`, the bodies that are left with `Rest`, whose vectors hold two.
///
/// # Safety
/// The tile is below N/TILE, bodies and probe fit the layout (as `scan` checks), there is a pair of columns for each pair
/// of polynomials, they are good for r bodies of [`TILE`] words that nobody else writes, and the instruction sets of `S` and
/// `Rest` are enabled in the caller.
#[inline(always)]
pub(super) unsafe fn one_tile<S: Simd, Rest: Simd>(job: &Tile<'_>, columns: &[[Column; 2]]) {
    let (layout, probe, tile) = (job.layout, job.probe, job.tile);
    let (blocks, rank) = (layout.blocks(), layout.rank());
    let stored = layout.stored_blocks();
    // SAFETY: pointers stay within the slices: tile < N/TILE, and the lengths are those of the layout.
    unsafe {
        let rest = Ending::<Rest>::new(&layout);
        let bodies = job.bodies.as_ptr().add(tile * stored * rank * TILE);
        let until = bodies.add(stored * rank * TILE);
        let whole = rank / PASS * PASS;
        if S::PAIRS == 2 {
            whole_passes::<S, 1>(job, columns);
        } else {
            whole_passes::<S, 2>(job, columns);
        }
        if rank - whole >= 2 {
            for half in 0..2 {
                let bodies = bodies.add((2 * whole + half * 2) * stored * HALF);
                for (pair, sides) in columns.iter().enumerate() {
                    let polynomials = probe.half(pair, tile, half).as_ptr();
                    let next = polynomials.wrapping_add(2 * probe.stride());
                    let ahead = Ahead::of_pair(0, 1, blocks);
                    let pass = Pass { probe: polynomials, bodies, blocks, next, ahead, until, after: job.after };
                    let sides = [sides[0].at(whole, half), sides[1].at(whole, half)];
                    if layout.is_packed() {
                        pass.packed::<Rest, 1>(&rest, sides);
                    } else {
                        let mut sums = Sums::zero(rest.zero);
                        pass.centred::<Rest, 1>(rest.zero, &mut sums);
                        rest.write_sums(&sums, sides);
                    }
                }
            }
        }
        if rank % 2 == 1 {
            for (pair, sides) in columns.iter().enumerate() {
                let polynomials = probe.half(pair, tile, 0).as_ptr();
                let next = polynomials.wrapping_add(2 * probe.stride());
                let bodies = bodies.add((rank - 1) * stored * TILE);
                let ahead = Ahead::of_pair(0, 1, blocks);
                let pass = Pass { probe: polynomials, bodies, blocks, next, ahead, until, after: job.after };
                // The vector's second half is that of the points: it lies behind the first.
                let halves = |column: Column| Column { body: column.words_of_half(), ..column.at(rank - 1, 0) };
                let sides = [halves(sides[0]), halves(sides[1])];
                if layout.is_packed() {
                    pass.single_packed::<Rest>(&rest, probe.stride(), sides);
                } else {
                    pass.single::<Rest>(&rest, probe.stride(), sides);
                }
            }
        }
    }
}

/// The passes of four bodies of a tile, in G vectors.
///
/// # Safety
/// As [`one_tile`].
#[inline(always)]
unsafe fn whole_passes<S: Simd, const G: usize>(job: &Tile<'_>, columns: &[[Column; 2]]) {
    let (layout, probe, tile) = (job.layout, job.probe, job.tile);
    let (blocks, rank, stored) = (layout.blocks(), layout.rank(), layout.stored_blocks());
    // SAFETY: as in `one_tile`.
    unsafe {
        let end = Ending::<S>::new(&layout);
        let bodies = job.bodies.as_ptr().add(tile * stored * rank * TILE);
        let until = bodies.add(stored * rank * TILE);
        for first in (0..rank / PASS * PASS).step_by(PASS) {
            for half in 0..2 {
                let bodies = bodies.add((2 * first + half * PASS) * stored * HALF);
                // Bodies of this pass stay in the first-level cache for all pairs of polynomials.
                for (pair, sides) in columns.iter().enumerate() {
                    let polynomials = probe.half(pair, tile, half).as_ptr();
                    let next = if columns.len() == 1 {
                        // The probe's next tile comes from a slower cache; a pass asks for its share of it.
                        let share = (first / PASS * 2 + half) * blocks.div_ceil(TERMS) * LINE;
                        polynomials.wrapping_add(2 * probe.stride() + share)
                    } else {
                        // Where the next pair begins.
                        let turn = usize::from(pair + 1 == columns.len());
                        probe.half((pair + 1) % columns.len(), tile, half ^ turn).as_ptr()
                    };
                    let ahead = Ahead::of_pair(pair, columns.len(), blocks);
                    let pass = Pass { probe: polynomials, bodies, blocks, next, ahead, until, after: job.after };
                    let sides = [sides[0].at(first, half), sides[1].at(first, half)];
                    if layout.is_packed() {
                        pass.packed::<S, G>(&end, sides);
                        continue;
                    }
                    // Stores leave in order: one that waits for its line holds up the running sums behind it.
                    for side in sides.into_iter().filter(|side| half == 0 && !side.first.is_null()) {
                        for body in 0..PASS {
                            S::prefetch(side.first.wrapping_add(body * side.body));
                        }
                    }
                    let mut sums = Sums::zero(end.zero);
                    pass.centred::<S, G>(end.zero, &mut sums);
                    end.write_sums(&sums, sides);
                }
            }
        }
    }
}

/// What a pass asks for of the bodies that come after it.
#[derive(Clone)]
struct Ahead {
    /// During which of its eights of blocks; as many words as these read.
    eights: Range<usize>,
    /// How many words ahead.
    distance: usize,
}

impl Ahead {
    /// For one pair of polynomials, a fixed distance. Several read the same bodies from a cache: each asks for its share of
    /// those of the next pass, so that memory is as busy during the last pair as during the first.
    fn of_pair(pair: usize, pairs: usize, blocks: usize) -> Self {
        let eights = blocks / TERMS;
        if pairs == 1 {
            return Self { eights: 0..eights, distance: AHEAD };
        }
        Self { eights: pair * eights / pairs..(pair + 1) * eights / pairs, distance: blocks * PASS * HALF }
    }
}

/// Two polynomials of a probe and some bodies over all blocks, at half a tile.
struct Pass {
    probe: *const u32,
    bodies: *const u32,
    blocks: usize,
    /// What is asked for meanwhile, a line per [`TERMS`] blocks.
    next: *const u32,
    ahead: Ahead,
    /// Where the tile's bodies end, and where reading goes on then.
    until: *const u32,
    after: *const u32,
}

impl Pass {
    /// Adds up the products of centred residues.
    ///
    /// # Safety
    /// The pointers are good for `blocks` blocks of a probe and of G vectors.
    #[inline(always)]
    unsafe fn centred<S: Simd, const G: usize>(&self, zero: S::V, sums: &mut Sums<S::V, G>) {
        // SAFETY: the caller's.
        unsafe {
            // Words of a block, and of eight.
            let words = G * S::PAIRS * TILE;
            let count = self.blocks / TERMS;
            let all = Eights { probe: self.probe, bodies: self.bodies, ahead: self.bodies, next: self.next, count };
            let Ahead { eights: Range { start, end }, distance } = self.ahead.clone();
            // What is asked for lies in this tile at first, then in the one that follows.
            let ahead = self.bodies.wrapping_add(distance);
            let left = (self.until as usize).saturating_sub(ahead as usize) / size_of::<u32>();
            let here = left.div_ceil(words * TERMS).clamp(start, end);
            S::eights(&Eights { count: start, ..all }, sums);
            let part = all.from(start, words, here - start);
            S::eights(&Eights { ahead: ahead.wrapping_add(start * words * TERMS), ..part }, sums);
            let part = all.from(here, words, end - here);
            let beyond = (here * words * TERMS).saturating_sub(left);
            S::eights(&Eights { ahead: self.after.wrapping_add(beyond), ..part }, sums);
            S::eights(&all.from(end, words, count - end), sums);
            if count * TERMS < self.blocks {
                let mut low = [[[zero; 2]; 2]; G];
                for term in count * TERMS..self.blocks {
                    add_block::<S, G>(self.probe.add(term * TILE), self.bodies.add(term * words), &mut low);
                }
                sums.take::<S>(&low);
            }
        }
    }

    /// As [`Pass::centred`], for packed residues: `bodies` is good for 7 runs of G vectors per eight blocks.
    #[inline(always)]
    unsafe fn packed<S: Simd, const G: usize>(&self, end: &Ending<S>, output: [Column; 2]) {
        // SAFETY: the caller's; blocks are padded to a multiple of eight in the bodies, not in the probe.
        unsafe {
            let mut low = [[[end.zero; 2]; 2]; G];
            let mut high = [[[end.zero; 2]; 2]; G];
            let mut block = 0;
            while block < self.blocks {
                let until = (block + PACKED_TERMS).min(self.blocks);
                while block < until {
                    S::prefetch(self.next.wrapping_add(block / TERMS * LINE));
                    let mut eighth = [end.zero; G];
                    for within in 0..7 {
                        let bodies = self.bodies.add((block / 8 * 7 + within) * G * S::PAIRS * TILE);
                        S::prefetch(bodies.wrapping_add(AHEAD));
                        let mut values = [end.zero; G];
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
            end.write_packed(&low, &high, output);
        }
    }

    #[inline(always)]
    unsafe fn packed_term<S: Simd, const G: usize>(
        &self,
        term: usize,
        values: &[S::V; G],
        low: &mut [[[S::V; 2]; 2]; G],
    ) {
        // SAFETY: the caller's: `term` is below `blocks`.
        unsafe {
            let probe = probe_at::<S>(self.probe.add(term * TILE));
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
    /// second half in the odd ones. `probe` is that of the first half, and the second is `stride` words behind.
    ///
    /// # Safety
    /// As [`Pass::centred`], `output` is good for the sums, and residues are centred.
    #[inline(always)]
    unsafe fn single<S: Simd>(&self, end: &Ending<S>, stride: usize, output: [Column; 2]) {
        // SAFETY: the caller's.
        unsafe {
            let mut sums = Sums::<S::V, 1>::zero(end.zero);
            for first in (0..self.blocks).step_by(TERMS) {
                S::prefetch(self.bodies.wrapping_add(first * TILE + AHEAD));
                let mut low = [[[end.zero; 2]; 2]];
                for term in first..(first + TERMS).min(self.blocks) {
                    let even = S::load(self.bodies.add(term * TILE));
                    let words = [even, S::upper(even)];
                    for odd in 0..2 {
                        let probe = probe_at::<S>(self.probe.add(odd * stride + term * TILE));
                        for side in 0..2 {
                            let product = S::multiply_signed(words[odd], probe[side]);
                            low[0][side][odd] = S::add(low[0][side][odd], product);
                        }
                    }
                }
                sums.take::<S>(&low);
            }
            end.write_sums(&sums, output);
        }
    }

    /// As [`Pass::single`], for packed residues.
    #[inline(always)]
    unsafe fn single_packed<S: Simd>(&self, end: &Ending<S>, stride: usize, output: [Column; 2]) {
        // SAFETY: the caller's.
        unsafe {
            let mut low = [[[end.zero; 2]; 2]];
            let mut high = [[[end.zero; 2]; 2]];
            let mut eighth = end.zero;
            for term in 0..self.blocks {
                let words = if term % 8 < 7 {
                    let words = S::load(self.bodies.add((term / 8 * 7 + term % 8) * TILE));
                    eighth = S::or(S::words_up_4(eighth), S::words_down_28(words));
                    S::and(words, end.residue)
                } else {
                    // Seven shifts have pushed the eighth of the last eight out.
                    S::and(eighth, end.residue)
                };
                for (odd, words) in [words, S::upper(words)].into_iter().enumerate() {
                    let probe = probe_at::<S>(self.probe.add(odd * stride + term * TILE));
                    for side in 0..2 {
                        low[0][side][odd] = S::add(low[0][side][odd], S::multiply(words, probe[side]));
                    }
                }
                if term + 1 == self.blocks || (term + 1) % PACKED_TERMS == 0 {
                    end.split_packed(&mut low, &mut high);
                }
            }
            end.write_packed(&low, &high, output);
        }
    }
}

/// The probe's first polynomial and its second, each in the lower words of its lanes.
#[inline(always)]
unsafe fn probe_at<S: Simd>(probe: *const u32) -> [S::V; 2] {
    // SAFETY: the caller's: eight words.
    unsafe {
        let both = S::load_probe(probe);
        [both, S::upper(both)]
    }
}

/// Adds the products of one block.
///
/// # Safety
/// The pointers are good for one block of a probe and of G vectors; the instruction set is enabled in the caller.
#[inline(always)]
pub(super) unsafe fn add_block<S: Simd, const G: usize>(
    probe: *const u32,
    bodies: *const u32,
    low: &mut [[[S::V; 2]; 2]; G],
) {
    // SAFETY: the caller's.
    unsafe {
        let probe = probe_at::<S>(probe);
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

/// Reducing sums.
struct Ending<S: Simd> {
    zero: S::V,
    /// 2^32 − 1.
    lower: S::V,
    /// 2^28 − 1, twice.
    residue: S::V,
    /// q in both halves.
    modulus: S::V,
    /// q^−1 modulo 2^32.
    inverse: S::V,
    /// A multiple of q that makes upper sums less q positive.
    correction: S::V,
}

impl<S: Simd> Ending<S> {
    #[inline(always)]
    unsafe fn new(layout: &BodyLayout) -> Self {
        let q = u64::from(layout.modulus());
        // Centred: |Σ| < J·2^60, so upper sums are at least −J·2^28.
        let least = if layout.is_packed() { 0 } else { (layout.blocks() as u64) << 28 };
        // SAFETY: the caller's.
        unsafe {
            Self {
                zero: S::splat(0),
                lower: S::splat(0xffff_ffff),
                residue: S::splat(0x0fff_ffff_0fff_ffff),
                modulus: S::splat(q | q << 32),
                inverse: S::splat(u64::from(inverse(layout.modulus()))),
                correction: S::splat(least.next_multiple_of(q) + q),
            }
        }
    }

    /// Moves the upper halves of sums of packed residues away.
    #[inline(always)]
    unsafe fn split_packed<const G: usize>(&self, low: &mut [[[S::V; 2]; 2]; G], high: &mut [[[S::V; 2]; 2]; G]) {
        for body in 0..G {
            for side in 0..2 {
                for odd in 0..2 {
                    // SAFETY: the caller's.
                    unsafe {
                        high[body][side][odd] = S::add(high[body][side][odd], S::upper(low[body][side][odd]));
                        low[body][side][odd] = S::and(low[body][side][odd], self.lower);
                    }
                }
            }
        }
    }

    /// Reduces and writes the sums of a pass.
    #[inline(always)]
    unsafe fn write_sums<const G: usize>(&self, sums: &Sums<S::V, G>, output: [Column; 2]) {
        for g in 0..G {
            for side in 0..2 {
                if !output[side].first.is_null() {
                    // SAFETY: the caller's.
                    unsafe {
                        let (even, odd) = (sums.split::<S>(g, side, 0), sums.split::<S>(g, side, 1));
                        self.write(even, odd, output[side].at(g * S::PAIRS * 2, 0));
                    }
                }
            }
        }
    }

    /// The same for sums that were split.
    #[inline(always)]
    unsafe fn write_packed<const G: usize>(
        &self,
        low: &[[[S::V; 2]; 2]; G],
        high: &[[[S::V; 2]; 2]; G],
        output: [Column; 2],
    ) {
        for g in 0..G {
            for side in 0..2 {
                if !output[side].first.is_null() {
                    let (low, high) = (low[g][side], high[g][side]);
                    // SAFETY: the caller's.
                    unsafe { self.write([low[0], high[0]], [low[1], high[1]], output[side].at(g * S::PAIRS * 2, 0)) }
                }
            }
        }
    }

    /// Reduces sums, each given as low and high with the value high·2^32 + (low modulo 2^32), and writes them.
    #[inline(always)]
    unsafe fn write(&self, even: [S::V; 2], odd: [S::V; 2], output: Column) {
        // SAFETY: the caller's.
        unsafe {
            let both = S::join(self.reduce(even), S::raise(self.reduce(odd)));
            // Between −q and q: as numbers without sign a negative one is the larger of the two.
            let reduced = S::smaller_words(both, S::add_words(both, self.modulus));
            if output.folded {
                let pairs = self.sum(reduced, S::swap_lanes(reduced));
                S::store_first(output.first, output.body, self.sum(pairs, S::swap_pairs(pairs)));
            } else {
                S::store(output.first, output.body, reduced);
            }
        }
    }

    /// a + b modulo q, word by word.
    #[inline(always)]
    unsafe fn sum(&self, a: S::V, b: S::V) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let sum = S::add_words(a, b);
            S::smaller_words(sum, S::subtract_words(sum, self.modulus))
        }
    }

    /// (high·2^32 + low)·2^−64 modulo q, between −q and q, in the lower half of each lane: two Montgomery steps. One takes
    /// ⌊x/2^32⌋ − ⌊m·q/2^32⌋ with m = x·q^−1 modulo 2^32, whose lower half is that of x.
    #[inline(always)]
    unsafe fn reduce(&self, [low, high]: [S::V; 2]) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let first = S::add(S::subtract(high, self.multiple(low)), self.correction);
            S::subtract(S::upper(first), self.multiple(first))
        }
    }

    /// ⌊m·q/2^32⌋ for m = x·q^−1 modulo 2^32.
    #[inline(always)]
    unsafe fn multiple(&self, x: S::V) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::upper(S::multiply(S::multiply(x, self.inverse), self.modulus)) }
    }
}

/// q^−1 modulo 2^32 of an odd q, by Newton's iteration.
fn inverse(q: u32) -> u32 {
    (0..5).fold(q, |x, _| x.wrapping_mul(2u32.wrapping_sub(q.wrapping_mul(x))))
}
