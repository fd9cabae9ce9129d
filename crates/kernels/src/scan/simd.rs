//! Vectors of 64-bit lanes behind one trait, so that the scan is written once and tested on every machine.
//!
//! A vector holds residues of 32 bits, two per lane, in `PAIRS` parts of four lanes. Products take the lower residue of each
//! lane; the upper ones are brought down with [`Simd::upper`]. Only instructions differ between the implementations.

pub(super) use super::eights::{Eights, Sums};
use super::layout::HALF;

/// Operations on vectors.
///
/// # Safety
/// Every function may only be called where the instruction set of the implementation is there, and inlined into a
/// function that enables it. Pointers must be valid for the words that are read or written; they need no alignment.
pub(super) unsafe trait Simd: Copy {
    /// A vector.
    type V: Copy;
    /// Parts of a vector: each has two bodies side by side, lane by lane.
    const PAIRS: usize;

    /// Eight words per part.
    unsafe fn load(from: *const u32) -> Self::V;
    /// The same eight words in every part.
    unsafe fn load_probe(from: *const u32) -> Self::V;
    /// The lower words of the first part, the upper ones `stride` words behind, and so on with the next part.
    unsafe fn store(to: *mut u32, stride: usize, v: Self::V);
    /// As [`Simd::store`], but one word each: those of the first lane.
    unsafe fn store_first(to: *mut u32, stride: usize, v: Self::V);
    /// Lanes in pairs, swapped.
    unsafe fn swap_lanes(a: Self::V) -> Self::V;
    /// Pairs of lanes within each part, swapped.
    unsafe fn swap_pairs(a: Self::V) -> Self::V;
    /// Asks for the cache line of an address, which need not be valid.
    unsafe fn prefetch(at: *const u32);
    /// The same 64 bits in every lane.
    unsafe fn splat(value: u64) -> Self::V;
    /// Signed product of the lower halves.
    unsafe fn multiply_signed(a: Self::V, b: Self::V) -> Self::V;
    /// Unsigned product of the lower halves.
    unsafe fn multiply(a: Self::V, b: Self::V) -> Self::V;
    /// 64-bit sum.
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// 64-bit difference.
    unsafe fn subtract(a: Self::V, b: Self::V) -> Self::V;
    /// The upper half of each lane, moved down; zeros above.
    unsafe fn upper(a: Self::V) -> Self::V;
    /// The lower half of each lane, moved up; zeros below.
    unsafe fn raise(a: Self::V) -> Self::V;
    unsafe fn and(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn or(a: Self::V, b: Self::V) -> Self::V;
    /// Difference of 32-bit residues.
    unsafe fn subtract_words(a: Self::V, b: Self::V) -> Self::V;
    /// Smaller of unsigned 32-bit residues.
    unsafe fn smaller_words(a: Self::V, b: Self::V) -> Self::V;
    /// The lower half of each lane of `a` under the upper half of `b`.
    unsafe fn join(a: Self::V, b: Self::V) -> Self::V;
    /// Sum of 32-bit words.
    unsafe fn add_words(a: Self::V, b: Self::V) -> Self::V;
    /// The upper words of all lanes of `a` and `b`, in an order that [`Simd::even_lanes`] and [`Simd::odd_lanes`] undo.
    unsafe fn upper_words(a: Self::V, b: Self::V) -> Self::V;
    /// Words that [`Simd::upper_words`] took from `a`, each in the lower half of its lane; above, anything.
    unsafe fn even_lanes(words: Self::V) -> Self::V;
    /// Likewise those from `b`.
    unsafe fn odd_lanes(words: Self::V) -> Self::V;
    /// 32-bit words moved down by 16 bits, as signed numbers.
    unsafe fn words_down_16_signed(a: Self::V) -> Self::V;
    /// 32-bit residues moved down by 28 bits.
    unsafe fn words_down_28(a: Self::V) -> Self::V;
    /// 32-bit residues moved up by 4 bits.
    unsafe fn words_up_4(a: Self::V) -> Self::V;
    /// Adds the products of eights of blocks, of G vectors of bodies each.
    ///
    /// The pointers are good for so many eights: 8·8 words of the probe and 8·G vectors of the bodies each.
    #[inline(always)]
    unsafe fn eights<const G: usize>(at: &Eights, sums: &mut Sums<Self::V, G>) {
        // SAFETY: the caller's.
        unsafe { super::eights::eights::<Self, G>(at, sums) }
    }
}

/// What brings a probe into order: vectors of eight words.
///
/// # Safety
/// As [`Simd`].
pub(super) unsafe trait Interleave: Simd {
    /// The words of `a` and `b` in turn: those of the first four, and of the last four.
    unsafe fn interleave(a: Self::V, b: Self::V) -> [Self::V; 2];
    /// Writes eight words.
    unsafe fn store_words(to: *mut u32, v: Self::V);
}

/// Plain Rust on arrays, for machines without the others, and for tests on machines without the instructions.
#[derive(Clone, Copy)]
pub(super) struct Portable;

#[inline(always)]
fn lanes(f: impl Fn(usize) -> u64) -> [u64; 4] {
    [f(0), f(1), f(2), f(3)]
}

#[inline(always)]
fn words(f: impl Fn(u32, u32) -> u32, a: [u64; 4], b: [u64; 4]) -> [u64; 4] {
    lanes(|i| {
        let upper = f((a[i] >> 32) as u32, (b[i] >> 32) as u32);
        u64::from(f(a[i] as u32, b[i] as u32)) | u64::from(upper) << 32
    })
}

// SAFETY: needs no instruction set.
unsafe impl Simd for Portable {
    type V = [u64; 4];
    const PAIRS: usize = 1;

    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self::V {
        // SAFETY: eight words by the contract.
        let word = |i| u64::from(unsafe { from.add(i).read() });
        const { assert!(HALF == 4, "four lanes hold the points of half a tile") };
        lanes(|i| word(2 * i) | word(2 * i + 1) << 32)
    }
    #[inline(always)]
    unsafe fn load_probe(from: *const u32) -> Self::V {
        // SAFETY: the caller's.
        unsafe { Self::load(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u32, stride: usize, v: Self::V) {
        for (i, lane) in v.into_iter().enumerate() {
            // SAFETY: four words at each place, by the contract.
            unsafe {
                to.add(i).write_unaligned(lane as u32);
                to.add(stride + i).write_unaligned((lane >> 32) as u32);
            }
        }
    }
    #[inline(always)]
    unsafe fn store_first(to: *mut u32, stride: usize, v: Self::V) {
        // SAFETY: one word at each place, by the contract.
        unsafe {
            to.write_unaligned(v[0] as u32);
            to.add(stride).write_unaligned((v[0] >> 32) as u32);
        }
    }
    #[inline(always)]
    unsafe fn swap_lanes(a: Self::V) -> Self::V {
        lanes(|i| a[i ^ 1])
    }
    #[inline(always)]
    unsafe fn swap_pairs(a: Self::V) -> Self::V {
        lanes(|i| a[i ^ 2])
    }
    #[inline(always)]
    unsafe fn prefetch(_at: *const u32) {}
    #[inline(always)]
    unsafe fn splat(value: u64) -> Self::V {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn multiply_signed(a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| (i64::from(a[i] as i32) * i64::from(b[i] as i32)) as u64)
    }
    #[inline(always)]
    unsafe fn multiply(a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| u64::from(a[i] as u32) * u64::from(b[i] as u32))
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    unsafe fn upper(a: Self::V) -> Self::V {
        lanes(|i| a[i] >> 32)
    }
    #[inline(always)]
    unsafe fn raise(a: Self::V) -> Self::V {
        lanes(|i| a[i] << 32)
    }
    #[inline(always)]
    unsafe fn and(a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| a[i] & b[i])
    }
    #[inline(always)]
    unsafe fn or(a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| a[i] | b[i])
    }
    #[inline(always)]
    unsafe fn subtract(a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    unsafe fn join(a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| a[i] & 0xffff_ffff | b[i] & 0xffff_ffff_0000_0000)
    }
    #[inline(always)]
    unsafe fn add_words(a: Self::V, b: Self::V) -> Self::V {
        words(u32::wrapping_add, a, b)
    }
    #[inline(always)]
    unsafe fn upper_words(a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| a[i] >> 32 | b[i] & 0xffff_ffff_0000_0000)
    }
    #[inline(always)]
    unsafe fn even_lanes(words: Self::V) -> Self::V {
        words
    }
    #[inline(always)]
    unsafe fn odd_lanes(words: Self::V) -> Self::V {
        lanes(|i| words[i] >> 32)
    }
    #[inline(always)]
    unsafe fn words_down_16_signed(a: Self::V) -> Self::V {
        words(|x, _| (x as i32 >> 16) as u32, a, a)
    }
    #[inline(always)]
    unsafe fn subtract_words(a: Self::V, b: Self::V) -> Self::V {
        words(u32::wrapping_sub, a, b)
    }
    #[inline(always)]
    unsafe fn smaller_words(a: Self::V, b: Self::V) -> Self::V {
        words(u32::min, a, b)
    }
    #[inline(always)]
    unsafe fn words_down_28(a: Self::V) -> Self::V {
        words(|x, _| x >> 28, a, a)
    }
    #[inline(always)]
    unsafe fn words_up_4(a: Self::V) -> Self::V {
        words(|x, _| x << 4, a, a)
    }
}

// SAFETY: needs no instruction set.
unsafe impl Interleave for Portable {
    #[inline(always)]
    unsafe fn interleave(a: Self::V, b: Self::V) -> [Self::V; 2] {
        let word = |v: Self::V, i: usize| v[i / 2] >> (i % 2 * 32) & 0xffff_ffff;
        [0, 4].map(|first| lanes(|i| word(a, first + i) | word(b, first + i) << 32))
    }
    #[inline(always)]
    unsafe fn store_words(to: *mut u32, v: Self::V) {
        for (i, lane) in v.into_iter().enumerate() {
            // SAFETY: eight words by the contract.
            unsafe {
                to.add(2 * i).write_unaligned(lane as u32);
                to.add(2 * i + 1).write_unaligned((lane >> 32) as u32);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use super::super::eights::{eights, two_vectors_avx2};
    use super::{Eights, Interleave, Simd, Sums};
    use std::arch::x86_64::*;

    macro_rules! intrinsics {
        ($(fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty = $body:expr;)*) => {
            $(
                #[inline(always)]
                unsafe fn $name($($arg: $type),*) -> $out {
                    // SAFETY: the caller has the instruction set and valid pointers, by the contract of the trait.
                    unsafe { $body }
                }
            )*
        };
    }

    /// 256-bit vectors.
    #[derive(Clone, Copy)]
    pub(in crate::scan) struct Avx2;

    // SAFETY: AVX2 instructions alone.
    unsafe impl Simd for Avx2 {
        type V = __m256i;
        const PAIRS: usize = 1;

        intrinsics! {
            fn load(from: *const u32) -> __m256i = _mm256_loadu_si256(from.cast());
            fn load_probe(from: *const u32) -> __m256i = _mm256_loadu_si256(from.cast());
            fn store(to: *mut u32, stride: usize, v: __m256i) -> () = {
                let apart = _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
                _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(apart));
                _mm_storeu_si128(to.add(stride).cast(), _mm256_extracti128_si256::<1>(apart))
            };
            fn store_first(to: *mut u32, stride: usize, v: __m256i) -> () = {
                let words = _mm_cvtsi128_si64(_mm256_castsi256_si128(v));
                to.write_unaligned(words as u32);
                to.add(stride).write_unaligned((words >> 32) as u32)
            };
            fn swap_lanes(a: __m256i) -> __m256i = _mm256_shuffle_epi32::<0b01_00_11_10>(a);
            fn swap_pairs(a: __m256i) -> __m256i = _mm256_permute4x64_epi64::<0b01_00_11_10>(a);
            fn prefetch(at: *const u32) -> () = _mm_prefetch::<_MM_HINT_T0>(at.cast());
            fn splat(value: u64) -> __m256i = _mm256_set1_epi64x(value as i64);
            fn multiply_signed(a: __m256i, b: __m256i) -> __m256i = _mm256_mul_epi32(a, b);
            fn multiply(a: __m256i, b: __m256i) -> __m256i = _mm256_mul_epu32(a, b);
            fn add(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi64(a, b);
            fn upper(a: __m256i) -> __m256i = _mm256_srli_epi64::<32>(a);
            fn raise(a: __m256i) -> __m256i = _mm256_slli_epi64::<32>(a);
            fn and(a: __m256i, b: __m256i) -> __m256i = _mm256_and_si256(a, b);
            fn or(a: __m256i, b: __m256i) -> __m256i = _mm256_or_si256(a, b);
            fn subtract(a: __m256i, b: __m256i) -> __m256i = _mm256_sub_epi64(a, b);
            fn join(a: __m256i, b: __m256i) -> __m256i = _mm256_blend_epi32::<0b1010_1010>(a, b);
            fn add_words(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi32(a, b);
            fn upper_words(a: __m256i, b: __m256i) -> __m256i = {
                let (a, b) = (_mm256_castsi256_ps(a), _mm256_castsi256_ps(b));
                _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(a, b))
            };
            fn even_lanes(words: __m256i) -> __m256i = _mm256_shuffle_epi32::<0b01_01_00_00>(words);
            fn odd_lanes(words: __m256i) -> __m256i = _mm256_shuffle_epi32::<0b11_11_10_10>(words);
            fn words_down_16_signed(a: __m256i) -> __m256i = _mm256_srai_epi32::<16>(a);
            fn subtract_words(a: __m256i, b: __m256i) -> __m256i = _mm256_sub_epi32(a, b);
            fn smaller_words(a: __m256i, b: __m256i) -> __m256i = _mm256_min_epu32(a, b);
            fn words_down_28(a: __m256i) -> __m256i = _mm256_srli_epi32::<28>(a);
            fn words_up_4(a: __m256i) -> __m256i = _mm256_slli_epi32::<4>(a);
        }

        #[inline(always)]
        unsafe fn eights<const G: usize>(at: &Eights, sums: &mut Sums<__m256i, G>) {
            // SAFETY: the caller's; sums of two vectors take 12 vectors without a gap.
            unsafe {
                if G == 2 {
                    two_vectors_avx2(at, std::ptr::from_mut(sums).cast());
                } else {
                    eights::<Self, G>(at, sums);
                }
            }
        }
    }

    // SAFETY: AVX2 instructions alone.
    unsafe impl Interleave for Avx2 {
        intrinsics! {
            fn interleave(a: __m256i, b: __m256i) -> [__m256i; 2] = {
                let (low, high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
                [_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high)]
            };
            fn store_words(to: *mut u32, v: __m256i) -> () = _mm256_storeu_si256(to.cast(), v);
        }
    }

    /// 512-bit vectors.
    #[derive(Clone, Copy)]
    pub(in crate::scan) struct Avx512;

    // SAFETY: AVX-512F instructions alone.
    unsafe impl Simd for Avx512 {
        type V = __m512i;
        const PAIRS: usize = 2;

        intrinsics! {
            fn load(from: *const u32) -> __m512i = _mm512_loadu_si512(from.cast());
            fn load_probe(from: *const u32) -> __m512i = _mm512_broadcast_i64x4(_mm256_loadu_si256(from.cast()));
            fn store(to: *mut u32, stride: usize, v: __m512i) -> () = {
                let order = _mm512_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
                let apart = _mm512_permutexvar_epi32(order, v);
                _mm_storeu_si128(to.cast(), _mm512_extracti32x4_epi32::<0>(apart));
                _mm_storeu_si128(to.add(stride).cast(), _mm512_extracti32x4_epi32::<1>(apart));
                _mm_storeu_si128(to.add(2 * stride).cast(), _mm512_extracti32x4_epi32::<2>(apart));
                _mm_storeu_si128(to.add(3 * stride).cast(), _mm512_extracti32x4_epi32::<3>(apart))
            };
            fn store_first(to: *mut u32, stride: usize, v: __m512i) -> () = {
                let first = _mm_cvtsi128_si64(_mm512_castsi512_si128(v));
                let second = _mm_cvtsi128_si64(_mm512_extracti32x4_epi32::<2>(v));
                to.write_unaligned(first as u32);
                to.add(stride).write_unaligned((first >> 32) as u32);
                to.add(2 * stride).write_unaligned(second as u32);
                to.add(3 * stride).write_unaligned((second >> 32) as u32)
            };
            fn swap_lanes(a: __m512i) -> __m512i = _mm512_shuffle_epi32::<0b01_00_11_10>(a);
            fn swap_pairs(a: __m512i) -> __m512i = _mm512_shuffle_i64x2::<0b10_11_00_01>(a, a);
            fn prefetch(at: *const u32) -> () = _mm_prefetch::<_MM_HINT_T0>(at.cast());
            fn splat(value: u64) -> __m512i = _mm512_set1_epi64(value as i64);
            fn multiply_signed(a: __m512i, b: __m512i) -> __m512i = _mm512_mul_epi32(a, b);
            fn multiply(a: __m512i, b: __m512i) -> __m512i = _mm512_mul_epu32(a, b);
            fn add(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi64(a, b);
            fn upper(a: __m512i) -> __m512i = _mm512_srli_epi64::<32>(a);
            fn raise(a: __m512i) -> __m512i = _mm512_slli_epi64::<32>(a);
            fn and(a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
            fn or(a: __m512i, b: __m512i) -> __m512i = _mm512_or_si512(a, b);
            fn subtract(a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi64(a, b);
            fn join(a: __m512i, b: __m512i) -> __m512i = _mm512_mask_blend_epi32(0b1010_1010_1010_1010, a, b);
            fn add_words(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
            fn upper_words(a: __m512i, b: __m512i) -> __m512i = {
                let (a, b) = (_mm512_castsi512_ps(a), _mm512_castsi512_ps(b));
                _mm512_castps_si512(_mm512_shuffle_ps::<0b11_01_11_01>(a, b))
            };
            fn even_lanes(words: __m512i) -> __m512i = _mm512_shuffle_epi32::<0b01_01_00_00>(words);
            fn odd_lanes(words: __m512i) -> __m512i = _mm512_shuffle_epi32::<0b11_11_10_10>(words);
            fn words_down_16_signed(a: __m512i) -> __m512i = _mm512_srai_epi32::<16>(a);
            fn subtract_words(a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi32(a, b);
            fn smaller_words(a: __m512i, b: __m512i) -> __m512i = _mm512_min_epu32(a, b);
            fn words_down_28(a: __m512i) -> __m512i = _mm512_srli_epi32::<28>(a);
            fn words_up_4(a: __m512i) -> __m512i = _mm512_slli_epi32::<4>(a);
        }
    }
}
