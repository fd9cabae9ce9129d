//! Running sums, and the innermost loop: eight blocks at a time.
//!
//! Eight products of centred residues fit a signed 64-bit sum. Such a sum is added to a total that is kept modulo 2^64, and
//! its uppermost 16 bits, shifted down as a signed number, are added up beside it: a 64-bit addition for each sum, and a
//! shuffle, a shift and a 32-bit addition for two. If the true total is T, the upper bits' sum C and the number of additions
//! G, then T − C·2^48 lies in \[0, G·2^48), so that for G ≤ 2^16 it is what T modulo 2^64 says ([`Sums::split`]).

#![expect(clippy::needless_range_loop, reason = "sums must stay in registers")]

use super::layout::TILE;
use super::pass::{LINE, TERMS, add_block};
use super::simd::Simd;

/// Blocks whose sums can be told apart: 2^16 additions of eight.
pub(super) const MOST_BLOCKS: usize = TERMS << 16;

/// Sums of a pass, in memory: per vector of bodies, per polynomial of the probe.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Sums<V, const G: usize> {
    /// Of even and odd words, modulo 2^64.
    total: [[[V; 2]; 2]; G],
    /// Words: the sums of upper bits, two lanes of the even words and two of the odd ones in turn.
    coarse: [[V; 2]; G],
}

impl<V: Copy, const G: usize> Sums<V, G> {
    #[inline(always)]
    pub(super) fn zero(zero: V) -> Self {
        Self { total: [[[zero; 2]; 2]; G], coarse: [[zero; 2]; G] }
    }

    /// Adds sums of at most [`TERMS`] products.
    ///
    /// # Safety
    /// The instruction set is enabled in the caller.
    #[inline(always)]
    pub(super) unsafe fn take<S: Simd<V = V>>(&mut self, low: &[[[V; 2]; 2]; G]) {
        for g in 0..G {
            for side in 0..2 {
                // SAFETY: the caller's.
                unsafe {
                    let [even, odd] = low[g][side];
                    let upper = S::words_down_16_signed(S::upper_words(even, odd));
                    self.coarse[g][side] = S::add_words(self.coarse[g][side], upper);
                    self.total[g][side] = [S::add(self.total[g][side][0], even), S::add(self.total[g][side][1], odd)];
                }
            }
        }
    }

    /// One sum as low and high, with the value high·2^32 + (low modulo 2^32); high is signed.
    ///
    /// # Safety
    /// The instruction set is enabled in the caller.
    #[inline(always)]
    pub(super) unsafe fn split<S: Simd<V = V>>(&self, g: usize, side: usize, odd: usize) -> [V; 2] {
        // SAFETY: the caller's.
        unsafe {
            let coarse = self.coarse[g][side];
            let lanes = if odd == 0 { S::even_lanes(coarse) } else { S::odd_lanes(coarse) };
            let upper = S::multiply_signed(lanes, S::splat(1 << 16));
            let rest = S::subtract(self.total[g][side][odd], S::raise(upper));
            [rest, S::add(upper, S::upper(rest))]
        }
    }
}

/// Where eights of blocks are read.
#[derive(Clone, Copy)]
pub(super) struct Eights {
    pub(super) probe: *const u32,
    pub(super) bodies: *const u32,
    /// What is asked for meanwhile, as many words as are read of the bodies; need not be valid.
    pub(super) ahead: *const u32,
    /// Likewise, one line per eight.
    pub(super) next: *const u32,
    /// How many eights.
    pub(super) count: usize,
}

impl Eights {
    /// `count` eights after the first `done`, of blocks of `words` words.
    pub(super) fn from(self, done: usize, words: usize, count: usize) -> Self {
        Self {
            probe: self.probe.wrapping_add(done * TERMS * TILE),
            bodies: self.bodies.wrapping_add(done * TERMS * words),
            ahead: self.ahead.wrapping_add(done * TERMS * words),
            next: self.next.wrapping_add(done * LINE),
            count,
        }
    }
}

/// [`Simd::eights`] for any instruction set.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn eights<S: Simd, const G: usize>(at: &Eights, sums: &mut Sums<S::V, G>) {
    let words = G * S::PAIRS * TILE;
    for eight in 0..at.count {
        // SAFETY: the caller's.
        unsafe {
            let mut low = [[[S::splat(0); 2]; 2]; G];
            S::prefetch(at.next.wrapping_add(eight * LINE));
            for line in 0..words * TERMS / LINE {
                S::prefetch(at.ahead.wrapping_add(eight * TERMS * words + line * LINE));
            }
            for term in eight * TERMS..(eight + 1) * TERMS {
                add_block::<S, G>(at.probe.add(term * TILE), at.bodies.add(term * words), &mut low);
            }
            sums.take::<S>(&low);
        }
    }
}

/// [`Simd::eights`] of AVX2 for two vectors of bodies. In assembly, because the compiler keeps the sums in memory instead of
/// registers (2.1 to 5.5 ns per cache line instead of 1.9; Zen 3).
///
/// # Safety
/// AVX2 is there, and as [`Simd::eights`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) unsafe fn two_vectors_avx2(at: &Eights, sums: *mut u8) {
    use std::arch::asm;

    if at.count == 0 {
        return;
    }
    // ymm0 to ymm7: sums of one eight, [vector of bodies][polynomial][even, odd], in the order of `Sums::total`.
    // ymm8, ymm9: the probe's two polynomials; ymm10, ymm11: even and odd bodies; ymm12 to ymm15: products.
    macro_rules! bodies {
        ($block:literal, $byte:literal) => {
            concat!(
                concat!("vmovdqu ymm10, [{bodies} + 64*", $block, " + ", $byte, "]\n"),
                "vpsrlq ymm11, ymm10, 32\n",
            )
        };
    }
    macro_rules! products {
        ($a:literal, $b:literal, $c:literal, $d:literal) => {
            concat!(
                concat!("vpmuldq ymm", $a, ", ymm10, ymm8\n", "vpmuldq ymm", $c, ", ymm10, ymm9\n"),
                concat!("vpmuldq ymm", $b, ", ymm11, ymm8\n", "vpmuldq ymm", $d, ", ymm11, ymm9\n"),
            )
        };
    }
    macro_rules! probe {
        ($block:literal) => {
            concat!(
                concat!("vmovdqu ymm8, [{probe} + 32*", $block, "]\n", "vpsrlq ymm9, ymm8, 32\n"),
                concat!("prefetcht0 [{ahead} + 64*", $block, "]\n"),
            )
        };
    }
    macro_rules! first_block {
        () => {
            concat!(probe!(0), bodies!(0, 0), products!(0, 1, 2, 3), bodies!(0, 32), products!(4, 5, 6, 7))
        };
    }
    macro_rules! block {
        ($block:literal) => {
            concat!(
                concat!(probe!($block), bodies!($block, 0), products!(12, 13, 14, 15), bodies!($block, 32)),
                "vpaddq ymm0, ymm0, ymm12\nvpaddq ymm1, ymm1, ymm13\nvpaddq ymm2, ymm2, ymm14\nvpaddq ymm3, ymm3, ymm15\n",
                products!(12, 13, 14, 15),
                "vpaddq ymm4, ymm4, ymm12\nvpaddq ymm5, ymm5, ymm13\nvpaddq ymm6, ymm6, ymm14\nvpaddq ymm7, ymm7, ymm15\n",
            )
        };
    }
    // `Sums::take` for one vector of bodies and one polynomial; `$coarse` is the place of its upper bits.
    macro_rules! take {
        ($even:literal, $odd:literal, $coarse:literal) => {
            concat!(
                concat!("vshufps ymm8, ymm", $even, ", ymm", $odd, ", 0xdd\n"),
                concat!("vpaddq ymm9, ymm", $even, ", [{sums} + 32*", $even, "]\n"),
                concat!("vpaddq ymm10, ymm", $odd, ", [{sums} + 32*", $odd, "]\n"),
                "vpsrad ymm8, ymm8, 16\n",
                concat!("vmovdqu [{sums} + 32*", $even, "], ymm9\n"),
                concat!("vmovdqu [{sums} + 32*", $odd, "], ymm10\n"),
                concat!("vpaddd ymm8, ymm8, [{sums} + 32*", $coarse, "]\n"),
                concat!("vmovdqu [{sums} + 32*", $coarse, "], ymm8\n"),
            )
        };
    }
    // SAFETY: reads eight blocks of the probe (256 bytes) and of the bodies (512) per turn, `count` turns, and 384 bytes of
    // sums; a prefetch of any address is allowed.
    unsafe {
        asm!(
            ".p2align 5",
            "2:",
            "prefetcht0 [{next}]",
            first_block!(),
            block!(1), block!(2), block!(3), block!(4), block!(5), block!(6), block!(7),
            take!(0, 1, 8), take!(2, 3, 9), take!(4, 5, 10), take!(6, 7, 11),
            "add {probe}, 256",
            "add {bodies}, 512",
            "add {ahead}, 512",
            "add {next}, 64",
            "dec {count}",
            "jnz 2b",
            probe = inout(reg) at.probe => _,
            bodies = inout(reg) at.bodies => _,
            ahead = inout(reg) at.ahead => _,
            next = inout(reg) at.next => _,
            count = inout(reg) at.count => _,
            sums = in(reg) sums,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
            out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
            out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
            out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nostack),
        );
    }
}
