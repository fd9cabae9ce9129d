//! Plaintext scans to compare the encrypted one with, and the memory's own speed.
//!
//! These are no straw men: one sequential stream, several independent sums, fused multiply-add, as fast as memory delivers
//! for one probe, and register-blocked for several. They run on the current rayon pool.

use rayon::prelude::*;

use crate::{Kernel, LengthError};

/// Templates of a block of the batched scan.
const ROWS: usize = 4;
/// Probes of a block of the batched scan.
const COLUMNS: usize = 2;
/// Templates that a task takes, about 1 MiB of f32 at 512 dimensions.
const TASK: usize = 512;

/// Inner products of every template with every probe: `scores[t·probes + p]`.
///
/// `gallery` has a multiple of `dimension` values, row by row; each probe has `dimension` values.
///
/// # Errors
/// [`LengthError`] if lengths do not fit together.
pub fn scan_f32(kernel: Kernel, dimension: usize, gallery: &[f32], probes: &[&[f32]]) -> Result<Vec<f32>, LengthError> {
    if dimension == 0 || !gallery.len().is_multiple_of(dimension) || probes.iter().any(|p| p.len() != dimension) {
        return Err(LengthError);
    }
    let mut scores = vec![0f32; gallery.len() / dimension * probes.len()];
    if probes.is_empty() {
        return Ok(scores);
    }
    let tasks = scores.par_chunks_mut(TASK * probes.len()).zip(gallery.par_chunks(TASK * dimension));
    tasks.for_each(|(scores, rows)| {
        let blocks = scores.chunks_mut(ROWS * probes.len()).zip(rows.chunks(ROWS * dimension));
        if probes.len() == 1 {
            dots_f32(kernel, dimension, rows, probes[0], scores);
        } else {
            blocks.for_each(|(scores, rows)| block_f32(kernel, dimension, rows, probes, scores));
        }
    });
    Ok(scores)
}

fn dots_f32(kernel: Kernel, dimension: usize, rows: &[f32], probe: &[f32], scores: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        if kernel.has_avx512() {
            // SAFETY: the kernel proves AVX-512.
            return unsafe { x86::dots_avx512(dimension, rows, probe, scores) };
        }
        if kernel.has_avx2() && is_x86_feature_detected!("fma") {
            // SAFETY: the kernel proves AVX2, and FMA was just detected.
            return unsafe { x86::dots_avx2(dimension, rows, probe, scores) };
        }
    }
    let _ = kernel;
    for (score, row) in scores.iter_mut().zip(rows.chunks_exact(dimension)) {
        *score = dot(row, probe);
    }
}

fn block_f32(kernel: Kernel, dimension: usize, rows: &[f32], probes: &[&[f32]], scores: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if rows.len() == ROWS * dimension {
        for (i, pair) in probes.chunks_exact(COLUMNS).enumerate() {
            let products = if kernel.has_avx512() {
                // SAFETY: the kernel proves AVX-512; there are four rows and two probes of `dimension` values.
                unsafe { x86::block_avx512(dimension, rows, [pair[0], pair[1]]) }
            } else if kernel.has_avx2() && is_x86_feature_detected!("fma") {
                // SAFETY: the kernel proves AVX2, and FMA was just detected; lengths as above.
                unsafe { x86::block_avx2(dimension, rows, [pair[0], pair[1]]) }
            } else {
                break;
            };
            for (row, products) in products.into_iter().enumerate() {
                let start = row * probes.len() + i * COLUMNS;
                scores[start..start + COLUMNS].copy_from_slice(&products);
            }
            if (i + 1) * COLUMNS + COLUMNS > probes.len() {
                for (row, values) in rows.chunks_exact(dimension).enumerate() {
                    for (p, probe) in probes.iter().enumerate().skip((i + 1) * COLUMNS) {
                        scores[row * probes.len() + p] = dot(values, probe);
                    }
                }
                return;
            }
        }
    }
    let _ = kernel;
    for (scores, row) in scores.chunks_mut(probes.len()).zip(rows.chunks_exact(dimension)) {
        for (score, probe) in scores.iter_mut().zip(probes) {
            *score = dot(row, probe);
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Inner products of every template of 8-bit values with one probe. Values of −128 are not allowed in `probe`.
///
/// # Errors
/// [`LengthError`] if lengths do not fit together.
pub fn scan_i8(kernel: Kernel, dimension: usize, gallery: &[i8], probe: &[i8]) -> Result<Vec<i32>, LengthError> {
    if dimension == 0 || !gallery.len().is_multiple_of(dimension) || probe.len() != dimension {
        return Err(LengthError);
    }
    let mut scores = vec![0i32; gallery.len() / dimension];
    scores.par_chunks_mut(4 * TASK).zip(gallery.par_chunks(4 * TASK * dimension)).for_each(|(scores, rows)| {
        for (score, row) in scores.iter_mut().zip(rows.chunks_exact(dimension)) {
            *score = dot_i8(kernel, row, probe);
        }
    });
    Ok(scores)
}

fn dot_i8(kernel: Kernel, a: &[i8], b: &[i8]) -> i32 {
    #[cfg(target_arch = "x86_64")]
    if kernel.has_avx2() {
        // SAFETY: the kernel proves AVX2 (AVX-512 includes it); both slices have one length.
        return unsafe { x86::dot_i8_avx2(a, b) };
    }
    let _ = kernel;
    a.iter().zip(b).map(|(&x, &y)| i32::from(x) * i32::from(y)).sum()
}

/// Reads all words once and returns their exclusive or, so that nothing can be left out: the speed of memory.
#[must_use]
pub fn read_all(kernel: Kernel, words: &[u32]) -> u32 {
    let chunk = |words: &[u32]| {
        #[cfg(target_arch = "x86_64")]
        if kernel.has_avx2() {
            // SAFETY: the kernel proves AVX2.
            return unsafe { x86::read_avx2(words) };
        }
        let _ = kernel;
        words.iter().fold(0, |all, word| all ^ word)
    };
    words.par_chunks(1 << 18).map(chunk).reduce(|| 0, |a, b| a ^ b)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{COLUMNS, ROWS, dot};
    use std::arch::x86_64::*;

    macro_rules! f32_scans {
        ($feature:literal, $lanes:literal, $dots:ident, $block:ident, $zero:expr, $load:ident, $fma:ident, $add:ident, $sum:ident) => {
            /// # Safety
            /// The features are there.
            #[target_feature(enable = $feature)]
            pub(super) unsafe fn $dots(dimension: usize, rows: &[f32], probe: &[f32], scores: &mut [f32]) {
                const STEP: usize = 4 * $lanes;
                let whole = dimension / STEP * STEP;
                for (score, row) in scores.iter_mut().zip(rows.chunks_exact(dimension)) {
                    let mut sums = [$zero; 4];
                    for start in (0..whole).step_by(STEP) {
                        for (i, sum) in sums.iter_mut().enumerate() {
                            let at = start + i * $lanes;
                            // SAFETY: `at` and the lanes behind it are below `whole`; both slices have `dimension` values.
                            unsafe { *sum = $fma($load(row.as_ptr().add(at)), $load(probe.as_ptr().add(at)), *sum) };
                        }
                    }
                    let sum = $add($add(sums[0], sums[1]), $add(sums[2], sums[3]));
                    *score = $sum(sum) + dot(&row[whole..], &probe[whole..dimension]);
                }
            }

            /// # Safety
            /// The features are there, and there are four rows and two probes of `dimension` values.
            #[target_feature(enable = $feature)]
            pub(super) unsafe fn $block(
                dimension: usize,
                rows: &[f32],
                probes: [&[f32]; COLUMNS],
            ) -> [[f32; COLUMNS]; ROWS] {
                let whole = dimension / $lanes * $lanes;
                let mut sums = [[$zero; COLUMNS]; ROWS];
                for at in (0..whole).step_by($lanes) {
                    // SAFETY: `at` and the lanes behind it are below `dimension`, the length of each row and probe.
                    unsafe {
                        let probe = [$load(probes[0].as_ptr().add(at)), $load(probes[1].as_ptr().add(at))];
                        for (row, sums) in sums.iter_mut().enumerate() {
                            let values = $load(rows.as_ptr().add(row * dimension + at));
                            sums[0] = $fma(values, probe[0], sums[0]);
                            sums[1] = $fma(values, probe[1], sums[1]);
                        }
                    }
                }
                let mut products = [[0.0; COLUMNS]; ROWS];
                for (row, (products, sums)) in products.iter_mut().zip(sums).enumerate() {
                    let rest = &rows[row * dimension + whole..(row + 1) * dimension];
                    for (product, (sum, probe)) in products.iter_mut().zip(sums.into_iter().zip(probes)) {
                        *product = $sum(sum) + dot(rest, &probe[whole..]);
                    }
                }
                products
            }
        };
    }

    f32_scans!(
        "avx2,fma",
        8,
        dots_avx2,
        block_avx2,
        _mm256_setzero_ps(),
        _mm256_loadu_ps,
        _mm256_fmadd_ps,
        _mm256_add_ps,
        sum_256
    );
    f32_scans!(
        "avx512f",
        16,
        dots_avx512,
        block_avx512,
        _mm512_setzero_ps(),
        _mm512_loadu_ps,
        _mm512_fmadd_ps,
        _mm512_add_ps,
        _mm512_reduce_add_ps
    );

    #[target_feature(enable = "avx2")]
    fn sum_256(v: __m256) -> f32 {
        let half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
        _mm_cvtss_f32(_mm_add_ss(quarter, _mm_shuffle_ps::<1>(quarter, quarter)))
    }

    /// # Safety
    /// AVX2 is there and `b` is as long as `a`.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn dot_i8_avx2(a: &[i8], b: &[i8]) -> i32 {
        let whole = a.len() / 32 * 32;
        let ones = _mm256_set1_epi16(1);
        let mut sum = _mm256_setzero_si256();
        for at in (0..whole).step_by(32) {
            // SAFETY: 32 values from `at` on are below `whole`.
            let (x, y) = unsafe {
                (_mm256_loadu_si256(a.as_ptr().add(at).cast()), _mm256_loadu_si256(b.as_ptr().add(at).cast()))
            };
            // |x|·(±y): two products of at most 128·127 fit 16 bits.
            let products = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(y, x));
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(products, ones));
        }
        let half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
        let quarter = _mm_add_epi32(half, _mm_shuffle_epi32::<0b00_00_11_10>(half));
        let total = _mm_cvtsi128_si32(_mm_add_epi32(quarter, _mm_shuffle_epi32::<1>(quarter)));
        total + a[whole..].iter().zip(&b[whole..]).map(|(&x, &y)| i32::from(x) * i32::from(y)).sum::<i32>()
    }

    /// # Safety
    /// AVX2 is there.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn read_avx2(words: &[u32]) -> u32 {
        let mut all = [_mm256_setzero_si256(); 4];
        let chunks = words.chunks_exact(32);
        let mut rest = chunks.remainder().iter().fold(0, |all, word| all ^ word);
        for chunk in chunks {
            for (i, all) in all.iter_mut().enumerate() {
                // SAFETY: the chunk has 32 words.
                *all = _mm256_xor_si256(*all, unsafe { _mm256_loadu_si256(chunk.as_ptr().add(8 * i).cast()) });
            }
        }
        let mut lanes = [0u32; 8];
        let both = _mm256_xor_si256(_mm256_xor_si256(all[0], all[1]), _mm256_xor_si256(all[2], all[3]));
        // SAFETY: eight words.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), both) };
        for lane in lanes {
            rest ^= lane;
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::Lcg;

    #[test]
    fn every_set_computes_the_same_products() {
        let mut lcg = Lcg(21);
        for dimension in [1usize, 31, 64, 100, 512] {
            let templates = 9;
            let gallery: Vec<i8> = (0..templates * dimension).map(|_| (lcg.below(256) as i32 - 128) as i8).collect();
            let probes: Vec<Vec<i8>> =
                (0..5).map(|_| (0..dimension).map(|_| (lcg.below(255) as i32 - 127) as i8).collect()).collect();
            let float = |values: &[i8]| values.iter().map(|&v| f32::from(v)).collect::<Vec<f32>>();
            let float_probes: Vec<Vec<f32>> = probes.iter().map(|p| float(p)).collect();
            let references: Vec<&[f32]> = float_probes.iter().map(Vec::as_slice).collect();
            let expected = |p: usize, t: usize| {
                let row = &gallery[t * dimension..(t + 1) * dimension];
                row.iter().zip(&probes[p]).map(|(&x, &y)| i32::from(x) * i32::from(y)).sum::<i32>()
            };
            for kernel in Kernel::available() {
                for count in 1..=5 {
                    let scores = scan_f32(kernel, dimension, &float(&gallery), &references[..count]).unwrap();
                    for (i, score) in scores.iter().enumerate() {
                        let exact = expected(i % count, i / count) as f32;
                        assert!((score - exact).abs() <= 8.0, "{} d={dimension}: {score} {exact}", kernel.name());
                    }
                    assert_eq!(scores.len(), templates * count);
                }
                let scores = scan_i8(kernel, dimension, &gallery, &probes[0]).unwrap();
                assert_eq!(scores, (0..templates).map(|t| expected(0, t)).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn reading_misses_no_word() {
        let mut lcg = Lcg(22);
        let words: Vec<u32> = (0..600_001).map(|_| lcg.below(1 << 31)).collect();
        let expected = words.iter().fold(0, |all, word| all ^ word);
        for kernel in Kernel::available() {
            assert_eq!(read_all(kernel, &words), expected);
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let kernel = Kernel::detect();
        assert!(scan_f32(kernel, 3, &[0.0; 7], &[&[0.0; 3]]).is_err());
        assert!(scan_f32(kernel, 3, &[0.0; 6], &[&[0.0; 2]]).is_err());
        assert!(scan_i8(kernel, 0, &[], &[]).is_err());
        assert_eq!(scan_f32(kernel, 3, &[0.0; 6], &[]), Ok(Vec::new()));
    }
}
