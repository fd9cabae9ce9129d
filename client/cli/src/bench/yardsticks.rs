//! What the encrypted scan is compared with: plaintext scans and a plain read of memory, with the threads of the pool that they run in.

use rayon::prelude::*;

/// Templates that one task scans.
const CHUNK: usize = 512;

/// Dot products of a row-major gallery of f32 with each probe.
pub(super) fn scan_f32(gallery: &[f32], dimension: usize, probes: &[Vec<f32>]) -> f32 {
    let best = |chunk: &[f32]| {
        let mut best = f32::MIN;
        for template in chunk.chunks_exact(dimension) {
            for probe in probes {
                best = best.max(dot_f32(template, probe));
            }
        }
        best
    };
    gallery.par_chunks(CHUNK * dimension).map(best).reduce(|| f32::MIN, f32::max)
}

/// Dot products of a row-major gallery of 8-bit integers with each probe.
pub(super) fn scan_i8(gallery: &[i8], dimension: usize, probes: &[Vec<i8>]) -> i32 {
    let best = |chunk: &[i8]| {
        let mut best = i32::MIN;
        for template in chunk.chunks_exact(dimension) {
            for probe in probes {
                best = best.max(template.iter().zip(probe).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum());
            }
        }
        best
    };
    gallery.par_chunks(CHUNK * dimension).map(best).reduce(|| i32::MIN, i32::max)
}

/// Reads every word once.
pub(super) fn read(words: &[u32]) -> u32 {
    words.par_chunks(1 << 18).map(|chunk| chunk.iter().fold(0u32, |a, &b| a ^ b)).reduce(|| 0, |a, b| a ^ b)
}

fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (x, y) in a.iter().zip(b) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<f32>()
}
