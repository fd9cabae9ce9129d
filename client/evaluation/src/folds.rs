//! Verification accuracy as LFW measures it (View 2): thresholds on the training folds, decisions on the fold left out.
//!
//! Accuracy is the mean over the folds; FMR and FNMR are the shares of all test decisions, each at its fold's
//! threshold; EER is over all pairs at once, where FMR and FNMR cross (ISO/IEC 19795-1).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use veilmatch_domain::{Threshold, ThresholdError};

/// A pair's score; never printed.
#[derive(Clone, Copy)]
pub struct Scored {
    /// The fold it belongs to.
    pub fold: u32,
    /// Plaintext cosine.
    pub score: f64,
    /// Whether the pair is mated.
    pub same: bool,
}

/// Rates of decisions on pairs, as fractions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// Mean over the folds of the share of right decisions.
    pub accuracy: f64,
    /// False match rate: non-mated pairs decided as a match.
    pub fmr: f64,
    /// False non-match rate: mated pairs decided as no match.
    pub fnmr: f64,
}

/// For each fold the threshold of highest accuracy on all other folds.
///
/// # Errors
/// None in practice: thresholds are kept inside the range of [`Threshold`].
pub fn thresholds(pairs: &[Scored]) -> Result<BTreeMap<u32, Threshold>, ThresholdError> {
    let folds: BTreeSet<u32> = pairs.iter().map(|p| p.fold).collect();
    folds
        .into_iter()
        .map(|fold| {
            let training: Vec<Scored> = pairs.iter().filter(|p| p.fold != fold).copied().collect();
            Ok((fold, Threshold::new(most_accurate(training).clamp(-0.9, 0.9))?))
        })
        .collect()
}

/// The middle of the widest gap between neighbouring scores at which the most pairs are decided rightly.
fn most_accurate(mut pairs: Vec<Scored>) -> f64 {
    pairs.sort_by(|a, b| a.score.total_cmp(&b.score));
    // Threshold below all scores: every mated pair is right. Raising it past a pair turns that pair's decision.
    let mut right = pairs.iter().filter(|p| p.same).count() as i64;
    let mut best = (i64::MIN, 0.0, 0.0);
    let edge = |i: usize| pairs.get(i).map_or(1.0, |p: &Scored| p.score);
    for i in 0..=pairs.len() {
        let (below, above) = (i.checked_sub(1).map_or(-1.0, edge), edge(i));
        if let Some(passed) = i.checked_sub(1).and_then(|i| pairs.get(i)) {
            right += if passed.same { -1 } else { 1 };
        }
        let gap = above - below;
        // Equal neighbours cannot be told apart by any threshold.
        if gap > 0.0 && (right > best.0 || (right == best.0 && gap > best.1)) {
            best = (right, gap, 0.5 * (above + below));
        }
    }
    best.2
}

/// Rates of decisions: one per pair, in the same order.
#[must_use]
pub fn rates(pairs: &[Scored], decisions: &[bool]) -> Rates {
    let mut folds: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    let (mut mated, mut non_mated, mut missed, mut false_matches) = (0u64, 0u64, 0u64, 0u64);
    for (pair, &decision) in pairs.iter().zip(decisions) {
        let (right, all) = folds.entry(pair.fold).or_default();
        *right += u64::from(decision == pair.same);
        *all += 1;
        if pair.same {
            mated += 1;
            missed += u64::from(!decision);
        } else {
            non_mated += 1;
            false_matches += u64::from(decision);
        }
    }
    let shares: f64 = folds.values().map(|(right, all)| share(*right, *all)).sum();
    Rates {
        accuracy: shares / folds.len().max(1) as f64,
        fmr: share(false_matches, non_mated),
        fnmr: share(missed, mated),
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Equal error rate over all pairs: the mean of FMR and FNMR where they are closest.
#[must_use]
pub fn equal_error_rate(pairs: &[Scored]) -> f64 {
    let sorted = |same: bool| {
        let mut scores: Vec<f64> = pairs.iter().filter(|p| p.same == same).map(|p| p.score).collect();
        scores.sort_by(f64::total_cmp);
        scores
    };
    let (mated, non_mated) = (sorted(true), sorted(false));
    if mated.is_empty() || non_mated.is_empty() {
        return 0.0;
    }
    let mut closest = (f64::INFINITY, 0.0);
    for threshold in mated.iter().chain(&non_mated) {
        let fnmr = mated.partition_point(|s| s < threshold) as f64 / mated.len() as f64;
        let fmr = (non_mated.len() - non_mated.partition_point(|s| s < threshold)) as f64 / non_mated.len() as f64;
        if (fmr - fnmr).abs() < closest.0 {
            closest = ((fmr - fnmr).abs(), 0.5 * (fmr + fnmr));
        }
    }
    closest.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(fold: u32, score: f64, same: bool) -> Scored {
        Scored { fold, score, same }
    }

    #[test]
    fn thresholds_come_from_the_other_folds() {
        // Fold 0 is separable at 0.3 to 0.5, fold 1 at 0.6 to 0.8: each is decided at the other's threshold.
        let pairs = [pair(0, 0.5, true), pair(0, 0.3, false), pair(1, 0.8, true), pair(1, 0.6, false)];
        let thresholds = thresholds(&pairs).unwrap();
        assert!((thresholds[&0].cosine() - 0.7).abs() < 1e-9 && (thresholds[&1].cosine() - 0.4).abs() < 1e-9);
        let decisions: Vec<bool> = pairs.iter().map(|p| p.score >= thresholds[&p.fold].cosine()).collect();
        assert_eq!(decisions, [false, false, true, true]);
        assert_eq!(rates(&pairs, &decisions), Rates { accuracy: 0.5, fmr: 0.5, fnmr: 0.5 });
    }

    #[test]
    fn accuracy_is_the_mean_over_folds_of_any_size() {
        let pairs = [pair(0, 0.5, true), pair(1, 0.1, false), pair(1, 0.2, false), pair(1, 0.3, false)];
        assert_eq!(rates(&pairs, &[false, false, false, false]), Rates { accuracy: 0.5, fmr: 0.0, fnmr: 1.0 });
    }

    #[test]
    fn the_best_threshold_survives_ties_and_extremes() {
        let at = |pairs: &[(f64, bool)]| most_accurate(pairs.iter().map(|&(s, same)| pair(0, s, same)).collect());
        assert!((at(&[(0.2, false), (0.6, true)]) - 0.4).abs() < 1e-12);
        assert!((at(&[(0.2, false), (0.2, true), (0.8, true)]) - -0.4).abs() < 1e-12);
        assert!(at(&[(0.1, true), (0.2, true)]) < 0.1);
        assert!(at(&[(0.1, false), (0.2, false)]) > 0.2);
    }

    #[test]
    fn equal_error_rates() {
        let all = |mated: &[f64], non: &[f64]| -> Vec<Scored> {
            mated.iter().map(|&s| pair(0, s, true)).chain(non.iter().map(|&s| pair(0, s, false))).collect()
        };
        assert_eq!(equal_error_rate(&all(&[0.5, 0.6], &[0.1, 0.2])), 0.0);
        assert_eq!(equal_error_rate(&all(&[0.1, 0.6], &[0.1, 0.2])), 0.5);
        assert_eq!(equal_error_rate(&all(&[0.15, 0.6, 0.7, 0.8], &[0.1, 0.05, 0.0, 0.2])), 0.25);
        assert_eq!(equal_error_rate(&all(&[0.1], &[0.9])), 1.0);
        assert_eq!(equal_error_rate(&[]), 0.0);
    }
}
