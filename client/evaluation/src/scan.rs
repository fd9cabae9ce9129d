//! All pairs: blocked matrix products on all cores.
//!
//! Scores are f32 sums of f32 products, so they differ from [`crate::Templates::cosine`] by up to about 10⁻⁶.

use nalgebra::DMatrix;
use rayon::prelude::*;

use crate::Templates;

/// Rows of a block. Two blocks and their products fit a core's cache.
const BLOCK: usize = 256;

/// Bins of a [`Histogram`] over [−1, 1].
const BINS: usize = 1 << 17;

/// The width of a bin, as a cosine: what a threshold is rounded up by at most.
pub const RESOLUTION: f64 = 2.0 / BINS as f64;

/// Scores of the rows `a` (lines) against the rows `b` (columns).
fn product(templates: &Templates, a: (usize, usize), b: (usize, usize)) -> DMatrix<f32> {
    let d = templates.dimension();
    let columns = |(from, to): (usize, usize)| {
        DMatrix::from_column_slice(d, to - from, templates.values().get(from * d..to * d).unwrap_or_default())
    };
    columns(a).transpose() * columns(b)
}

/// Visits every pair of rows (i < j) once, in parallel: folds tiles into accumulators and merges these. `done` is told how
/// many pairs of a tile have been visited.
pub(crate) fn pairs<T: Send>(
    templates: &Templates,
    begin: impl Fn() -> T + Sync + Send,
    visit: impl Fn(&mut T, usize, usize, f32) + Sync + Send,
    merge: impl Fn(T, T) -> T + Sync + Send,
    done: &(dyn Fn(usize) + Sync),
) -> T {
    let rows = templates.len();
    let blocks = rows.div_ceil(BLOCK);
    let tiles: Vec<(usize, usize)> = (0..blocks).flat_map(|a| (a..blocks).map(move |b| (a, b))).collect();
    let range = |block: usize| (block * BLOCK, ((block + 1) * BLOCK).min(rows));
    tiles
        .par_iter()
        .fold(&begin, |mut into, &(a, b)| {
            let (rows_a, rows_b) = (range(a), range(b));
            let scores = product(templates, rows_a, rows_b);
            let mut visited = 0;
            for (j, column) in (rows_b.0..).zip(scores.column_iter()) {
                for (i, &score) in (rows_a.0..).zip(column.iter()) {
                    if i < j {
                        visit(&mut into, i, j, score);
                        visited += 1;
                    }
                }
            }
            done(visited);
            into
        })
        .reduce(&begin, merge)
}

/// Scores of every row of `probes` against every row of `gallery`; `visit` gets a probe and its scores in the gallery's
/// order, and what it returns comes back in the order of the probes.
pub(crate) fn searches<T: Send>(
    probes: &Templates,
    gallery: &Templates,
    visit: impl Fn(usize, &[f32]) -> T + Sync + Send,
    done: &(dyn Fn(usize) + Sync),
) -> Vec<T> {
    let d = gallery.dimension();
    let transposed = DMatrix::from_column_slice(d, gallery.len(), gallery.values()).transpose();
    let blocks: Vec<usize> = (0..probes.len()).step_by(BLOCK).collect();
    let found: Vec<Vec<T>> = blocks
        .par_iter()
        .map(|&from| {
            let to = (from + BLOCK).min(probes.len());
            let values = probes.values().get(from * d..to * d).unwrap_or_default();
            let scores = &transposed * DMatrix::from_column_slice(d, to - from, values);
            let results = (from..)
                .zip(scores.as_slice().chunks_exact(gallery.len().max(1)))
                .map(|(probe, scores)| visit(probe, scores))
                .collect();
            done(to - from);
            results
        })
        .collect();
    found.into_iter().flatten().collect()
}

/// How many scores lie in which bin of width [`RESOLUTION`] over [−1, 1]. Counts at and above the lower edge of a bin are
/// exact.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    bins: Vec<u64>,
    sum: f64,
    squares: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { bins: vec![0; BINS], sum: 0.0, squares: 0.0 }
    }
}

impl Histogram {
    /// Adds a score; one outside [−1, 1] goes to the nearest bin.
    pub fn add(&mut self, score: f64) {
        // Exact for an f32 score: the sum needs 25 bits and the factor is a power of two.
        let bin = ((score + 1.0) / RESOLUTION).floor().clamp(0.0, (BINS - 1) as f64) as usize;
        self.bins[bin] += 1;
        self.sum += score;
        self.squares += score * score;
    }

    pub(crate) fn merged(mut self, other: Self) -> Self {
        self.bins.iter_mut().zip(&other.bins).for_each(|(a, b)| *a += b);
        self.sum += other.sum;
        self.squares += other.squares;
        self
    }

    /// How many scores.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.bins.iter().sum()
    }

    /// Mean and standard deviation; zero if there is no score.
    #[must_use]
    pub fn moments(&self) -> (f64, f64) {
        let n = self.count().max(1) as f64;
        let mean = self.sum / n;
        (mean, (self.squares / n - mean * mean).max(0.0).sqrt())
    }

    /// The lowest edge of a bin at and above which at most this share of the scores lies, and how many lie there: the
    /// number is exact, the edge at most [`RESOLUTION`] above the lowest threshold that would do.
    #[must_use]
    pub fn threshold(&self, share: f64) -> (f64, u64) {
        let allowed = share * self.count() as f64;
        let mut above = 0;
        for (bin, count) in self.bins.iter().enumerate().rev() {
            if (above + count) as f64 > allowed {
                return (edge(bin + 1), above);
            }
            above += count;
        }
        (-1.0, above)
    }

    /// How many scores lie at or above a threshold, which is rounded to the nearest edge of a bin.
    #[must_use]
    pub fn at_least(&self, threshold: f64) -> u64 {
        let bin = ((threshold + 1.0) / RESOLUTION).round().clamp(0.0, BINS as f64) as usize;
        self.bins.iter().skip(bin).sum()
    }

    /// Non-empty bins from the highest down: lower edge, and how many scores lie at or above it.
    pub(crate) fn descending(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut above = 0;
        self.bins.iter().enumerate().rev().filter(|(_, count)| **count > 0).map(move |(bin, count)| {
            above += count;
            (edge(bin), above)
        })
    }

    /// The density in this many equal parts of [−1, 1]: middle of each part, and density.
    #[must_use]
    pub fn density(&self, parts: usize) -> Vec<(f64, f64)> {
        let width = (BINS / parts.clamp(1, BINS)).max(1);
        let all = self.count().max(1) as f64 * width as f64 * RESOLUTION;
        let middle = |part: usize| edge(part * width) + 0.5 * width as f64 * RESOLUTION;
        self.bins
            .chunks(width)
            .enumerate()
            .map(|(p, bins)| (middle(p), bins.iter().sum::<u64>() as f64 / all))
            .collect()
    }
}

fn edge(bin: usize) -> f64 {
    bin as f64 * RESOLUTION - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::unit_vectors;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_pair_is_visited_once_with_its_cosine() {
        // More than two blocks, and no multiple of one.
        let templates = unit_vectors(600, 24, 1);
        let done = AtomicUsize::new(0);
        let seen = pairs(
            &templates,
            Vec::new,
            |seen, i, j, score| seen.push((i, j, score)),
            |mut a, b| {
                a.extend(b);
                a
            },
            &|visited| {
                done.fetch_add(visited, Ordering::Relaxed);
            },
        );
        assert_eq!((seen.len(), done.into_inner()), (600 * 599 / 2, 600 * 599 / 2));
        let mut places: Vec<_> = seen.iter().map(|s| (s.0, s.1)).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), seen.len());
        for &(i, j, score) in seen.iter().step_by(97) {
            assert!((f64::from(score) - templates.cosine(i, j).unwrap()).abs() < 1e-6);
        }
    }

    #[test]
    fn searches_come_back_in_order() {
        let (probes, gallery) = (unit_vectors(300, 24, 2), unit_vectors(70, 24, 3));
        let found = searches(&probes, &gallery, |probe, scores| (probe, scores.to_vec()), &|_| {});
        assert_eq!(found.len(), 300);
        for (i, (probe, scores)) in found.iter().enumerate() {
            assert_eq!((i, scores.len()), (*probe, 70));
            let expected: f32 = probes.row(i).unwrap().iter().zip(gallery.row(69).unwrap()).map(|(a, b)| a * b).sum();
            assert!((scores[69] - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn thresholds_count_exactly_and_are_as_low_as_the_bins_allow() {
        let scores: Vec<f64> = (0..1000).map(|i| f64::from(((i * 7919) % 1000) as f32 / 1000.0)).collect();
        let mut histogram = Histogram::default();
        scores.iter().for_each(|&s| histogram.add(s));
        for share in [0.5, 0.1, 0.01, 0.0015, 0.0] {
            let (threshold, above) = histogram.threshold(share);
            let at = |t: f64| scores.iter().filter(|s| **s >= t).count() as u64;
            assert_eq!((at(threshold), above), (above, (share * 1000.0).floor() as u64), "{share}");
            assert!(at(threshold - RESOLUTION) as f64 > share * 1000.0);
        }
        let (mean, std) = histogram.moments();
        assert!((mean - 0.4995).abs() < 1e-6 && (std - 0.288_675).abs() < 1e-4, "{mean} {std}");
        let area: f64 = histogram.density(100).iter().map(|p| p.1 * 0.02).sum();
        assert!((area - 1.0).abs() < 0.01, "{area}");
        assert_eq!(Histogram::default().threshold(0.1), (-1.0, 0));
    }
}
