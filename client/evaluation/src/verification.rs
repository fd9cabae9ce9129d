//! Verification (1:1): FMR from every non-mated pair of the templates, FNMR from every mated pair and from a given list,
//! thresholds at wanted FMRs, EER and the DET curve (ISO/IEC 19795-1).

use serde::Serialize;

use crate::bootstrap::{Bootstrap, Interval, PerPerson, Rate};
use crate::scan::{self, Histogram};
use crate::{EvaluationError, People, Templates};

/// Most non-mated pairs of highest score that the bootstrap works on.
const MOST_TAIL: f64 = 3e6;
/// The share of the non-mated pairs that it works on at least, as far as [`MOST_TAIL`] allows: EERs lie below.
const TAIL: f64 = 0.02;
/// Sets of fewer non-mated pairs are kept whole.
const WHOLE: u64 = 500_000;
/// Points of a DET curve in a decade of FMR.
const PER_DECADE: i32 = 10;
/// Parts of the score histograms over [−1, 1].
const PARTS: usize = 256;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Settings {
    /// FMRs to find thresholds for, each between 0 and 1.
    pub fmr: Vec<f64>,
    /// How intervals are made.
    pub bootstrap: Bootstrap,
}

/// A mated pair of a given list: rows of the templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatedPair {
    /// The template's row.
    pub a: usize,
    /// The probe's row.
    pub b: usize,
}

/// A threshold and what happens there.
#[derive(Clone, Debug, Serialize)]
pub struct OperatingPoint {
    /// The FMR that was asked for.
    pub wanted_fmr: f64,
    /// The cosine from which a pair matches: at most [`crate::RESOLUTION`] above the lowest that does not exceed the FMR.
    pub threshold: f64,
    /// False matches at exactly this threshold; the interval is for the threshold as it stands.
    pub fmr: Rate,
    /// Whether there are fewer than 30 false matches (the rule of 30 of ISO/IEC 19795-1): the threshold is a guess then.
    pub few: bool,
    /// Over every mated pair. The interval holds both uncertainties: each resample chooses its threshold anew.
    pub fnmr: Rate,
    /// The same over the given list of mated pairs.
    pub fnmr_listed: Option<Rate>,
}

/// A point of the DET curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DetPoint {
    /// The cosine from which a pair matches.
    pub threshold: f64,
    /// FMR, or FPIR.
    pub false_positive: f64,
    /// FNMR, or FNIR.
    pub false_negative: f64,
}

/// Mean and standard deviation of scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Moments {
    /// Mean cosine.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
}

/// The result.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// Templates.
    pub templates: usize,
    /// People.
    pub people: usize,
    /// Pairs of different people.
    pub non_mated_pairs: u64,
    /// Pairs of one person.
    pub mated_pairs: u64,
    /// Mated pairs of the given list.
    pub listed_mated_pairs: u64,
    /// Scores of non-mated pairs.
    pub non_mated: Moments,
    /// Scores of mated pairs.
    pub mated: Moments,
    /// Where FMR and FNMR over all pairs are equal, to the resolution of the histogram.
    pub eer: f64,
    /// Its interval; `None` if the EER lies outside the scores that the bootstrap keeps.
    pub eer_interval: Option<Interval>,
    /// The threshold there.
    pub eer_threshold: f64,
    /// One for each FMR of the settings.
    pub points: Vec<OperatingPoint>,
    /// The DET curve, FMR ascending, ten points a decade, as far down as one false match.
    pub det: Vec<DetPoint>,
    /// Resamples of the bootstrap.
    pub resamples: usize,
    /// Its seed.
    pub seed: u64,
    /// Densities of non-mated and of mated scores: middle of each part, and density.
    #[serde(skip)]
    pub densities: [Vec<(f64, f64)>; 2],
}

/// A score and whose it is; sorted descending where it is in a list.
#[derive(Clone, Copy)]
struct Mated {
    score: f32,
    person: u32,
}

/// A non-mated pair of high score.
#[derive(Clone, Copy)]
struct Pair {
    score: f32,
    people: (u32, u32),
}

/// How often `done` will be told about a pair by [`verify`], in all.
#[must_use]
pub fn steps(templates: usize) -> usize {
    templates * templates.saturating_sub(1)
}

/// Histogram of all non-mated scores.
pub(crate) fn non_mated(templates: &Templates, people: &People, done: &(dyn Fn(usize) + Sync)) -> Histogram {
    let of = people.of_row();
    let add = |h: &mut Histogram, i: usize, j: usize, score: f32| {
        if of[i] != of[j] {
            h.add(score.into());
        }
    };
    scan::pairs(templates, Histogram::default, add, Histogram::merged, done)
}

/// Scores of pairs of one person, descending.
fn mated(templates: &Templates, pairs: impl Iterator<Item = (u32, usize, usize)>) -> Vec<Mated> {
    let score = |(person, a, b)| templates.cosine(a, b).map(|score| Mated { score: score as f32, person });
    let mut scores: Vec<Mated> = pairs.filter_map(score).collect();
    scores.sort_by(|a, b| b.score.total_cmp(&a.score));
    scores
}

/// Evaluates. `listed` are the mated pairs of a protocol such as LFW's; `done` is told how many pairs have been compared,
/// [`steps`] in all.
///
/// # Errors
/// [`EvaluationError`] if there are no mated or no non-mated pairs, or lists do not belong together.
pub fn verify(
    templates: &Templates,
    people: &People,
    listed: &[MatedPair],
    settings: &Settings,
    done: &(dyn Fn(usize) + Sync),
) -> Result<Verification, EvaluationError> {
    people.fit(templates)?;
    for fmr in &settings.fmr {
        if !(0.0..1.0).contains(fmr) {
            return Err(EvaluationError::Range { what: "an FMR" });
        }
    }
    let of = people.of_row();
    if listed.iter().any(|p| of.get(p.a).is_none() || of.get(p.a) != of.get(p.b) || p.a == p.b) {
        return Err(EvaluationError::Mismatch { what: "listed pairs" });
    }
    let all = mated(templates, people.mated());
    let listed = mated(templates, listed.iter().map(|p| (of[p.a], p.a, p.b)));
    let histogram = non_mated(templates, people, done);
    let count = histogram.count();
    for (what, found) in [("mated pairs", all.len() as u64), ("non-mated pairs", count)] {
        if found == 0 {
            return Err(EvaluationError::TooFew { what, found: 0, needed: 1 });
        }
    }
    let lists = [all.as_slice(), listed.as_slice()];
    let thresholds: Vec<(f64, u64)> = settings.fmr.iter().map(|&fmr| histogram.threshold(fmr)).collect();
    let tail = tail(templates, people, &histogram, &settings.fmr, done);
    let intervals = intervals(people, &tail, lists, &thresholds, settings);
    let points = settings
        .fmr
        .iter()
        .zip(&thresholds)
        .zip(intervals.chunks(3))
        .map(|((&wanted_fmr, &(threshold, above)), intervals)| {
            let fnmr = |list: &[Mated], interval: Option<Interval>| {
                let missed = list.iter().filter(|m| f64::from(m.score) < threshold).count();
                Rate::new(missed as u64, list.len() as u64, distinct(list), interval)
            };
            OperatingPoint {
                wanted_fmr,
                threshold,
                fmr: Rate::new(above, count, people.len() as u64, intervals.first().copied().flatten()),
                few: above < 30,
                fnmr: fnmr(&all, intervals.get(1).copied().flatten()),
                fnmr_listed: (!listed.is_empty()).then(|| fnmr(&listed, intervals.get(2).copied().flatten())),
            }
        })
        .collect();
    let (eer, eer_threshold) = equal_error(&histogram, &all);
    let mut genuine = Histogram::default();
    all.iter().for_each(|m| genuine.add(m.score.into()));
    let moments = |h: &Histogram| Moments { mean: h.moments().0, std: h.moments().1 };
    Ok(Verification {
        templates: templates.len(),
        people: people.len(),
        non_mated_pairs: count,
        mated_pairs: all.len() as u64,
        listed_mated_pairs: listed.len() as u64,
        non_mated: moments(&histogram),
        mated: moments(&genuine),
        eer,
        eer_interval: intervals.last().copied().flatten(),
        eer_threshold,
        points,
        det: det(&histogram, &all),
        resamples: settings.bootstrap.resamples,
        seed: settings.bootstrap.seed,
        densities: [histogram.density(PARTS), genuine.density(PARTS)],
    })
}

/// People with a score in a list.
fn distinct(list: &[Mated]) -> u64 {
    let mut people: Vec<u32> = list.iter().map(|m| m.person).collect();
    people.sort_unstable();
    people.dedup();
    people.len() as u64
}

/// The share of a descending list below a threshold.
fn missed(list: &[Mated], threshold: f64) -> f64 {
    let reached = list.partition_point(|m| f64::from(m.score) >= threshold);
    (list.len() - reached) as f64 / list.len().max(1) as f64
}

fn equal_error(histogram: &Histogram, mated: &[Mated]) -> (f64, f64) {
    let count = histogram.count() as f64;
    let mut best = (f64::INFINITY, 0.5, 0.0);
    for (edge, above) in histogram.descending() {
        let (fmr, fnmr) = (above as f64 / count, missed(mated, edge));
        if (fmr - fnmr).abs() < best.0 {
            best = ((fmr - fnmr).abs(), 0.5 * (fmr + fnmr), edge);
        }
        if fmr > fnmr {
            break;
        }
    }
    (best.1, best.2)
}

fn det(histogram: &Histogram, mated: &[Mated]) -> Vec<DetPoint> {
    let count = histogram.count() as f64;
    let decades = count.log10().floor() as i32;
    let mut points: Vec<DetPoint> = (0..=decades * PER_DECADE)
        .map(|k| {
            let (threshold, above) = histogram.threshold(10f64.powf(-f64::from(k) / f64::from(PER_DECADE)));
            DetPoint { threshold, false_positive: above as f64 / count, false_negative: missed(mated, threshold) }
        })
        .filter(|p| p.false_positive > 0.0)
        .collect();
    points.reverse();
    points.dedup_by(|a, b| a.threshold == b.threshold);
    points
}

/// The non-mated pairs of highest score, descending: enough for the bootstrap of every FMR and of the EER.
fn tail(
    templates: &Templates,
    people: &People,
    histogram: &Histogram,
    fmr: &[f64],
    done: &(dyn Fn(usize) + Sync),
) -> Vec<Pair> {
    let count = histogram.count();
    let share = fmr.iter().fold(TAIL, |most, f| most.max(2.0 * f)).min(MOST_TAIL / count as f64);
    let from = if count <= WHOLE { f32::NEG_INFINITY } else { histogram.threshold(share).0 as f32 };
    let of = people.of_row();
    let keep = |kept: &mut Vec<Pair>, i: usize, j: usize, score: f32| {
        if score >= from && of[i] != of[j] {
            kept.push(Pair { score, people: (of[i], of[j]) });
        }
    };
    let join = |mut a: Vec<Pair>, b: Vec<Pair>| {
        a.extend(b);
        a
    };
    let mut tail = scan::pairs(templates, Vec::new, keep, join, done);
    // Blocks come back in any order; equal scores must not depend on it.
    tail.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.people.cmp(&b.people)));
    tail
}

/// For every threshold three intervals: FMR there, FNMR over all and over listed pairs at a threshold that each resample
/// chooses for the same FMR; last the EER's.
fn intervals(
    people: &People,
    tail: &[Pair],
    lists: [&[Mated]; 2],
    thresholds: &[(f64, u64)],
    settings: &Settings,
) -> Vec<Option<Interval>> {
    let images: Vec<f64> = people.rows().iter().map(|rows| rows.len() as f64).collect();
    // Pairs of the tail at or above each threshold.
    let above: Vec<usize> = thresholds.iter().map(|t| tail.partition_point(|p| f64::from(p.score) >= t.0)).collect();
    settings.bootstrap.intervals(people.len(), 3 * thresholds.len() + 1, |weights| {
        let weight = |person: u32| f64::from(weights[person as usize]);
        let own = || images.iter().zip(weights).map(|(n, &w)| n * f64::from(w));
        let pairs = 0.5 * (own().sum::<f64>().powi(2) - own().map(|x| x * x).sum::<f64>());
        let totals = lists.map(|list| list.iter().map(|m| weight(m.person)).sum::<f64>());
        let (mut left, mut next) = (totals, [0usize; 2]);
        let mut out = vec![f64::NAN; 3 * thresholds.len() + 1];
        let mut reached = 0.0;
        for (number, pair) in tail.iter().enumerate() {
            for ((list, next), left) in lists.iter().zip(&mut next).zip(&mut left) {
                while let Some(m) = list.get(*next).filter(|m| m.score > pair.score) {
                    *left -= weight(m.person);
                    *next += 1;
                }
            }
            let before = reached;
            reached += weight(pair.people.0) * weight(pair.people.1);
            for (k, fmr) in settings.fmr.iter().enumerate() {
                if above[k] == number + 1 {
                    out[3 * k] = reached / pairs;
                }
                // The threshold of this resample lies just above this pair.
                if before <= fmr * pairs && reached > fmr * pairs {
                    out[3 * k + 1] = left[0] / totals[0];
                    out[3 * k + 2] = left[1] / totals[1];
                }
            }
            let last = 3 * thresholds.len();
            if out[last].is_nan() && reached / pairs >= left[0] / totals[0] {
                out[last] = 0.5 * (reached / pairs + left[0] / totals[0]);
            }
        }
        out
    })
}

/// FNMR of one person's mated pairs at a threshold.
pub(crate) fn per_person(templates: &Templates, people: &People, threshold: f64) -> Vec<PerPerson> {
    let mut counts = vec![PerPerson::default(); people.len()];
    for (person, a, b) in people.mated() {
        if let Some(score) = templates.cosine(a, b) {
            counts[person as usize].trials += 1;
            counts[person as usize].errors += u64::from(score < threshold);
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::crowd;

    fn settings(fmr: &[f64]) -> Settings {
        Settings { fmr: fmr.to_vec(), bootstrap: Bootstrap { resamples: 200, seed: 1 } }
    }

    /// Every pair, one by one: non-mated and mated scores.
    fn brute_force(templates: &Templates, people: &People) -> (Vec<f64>, Vec<f64>) {
        let (mut non_mated, mut mated) = (Vec::new(), Vec::new());
        for j in 0..templates.len() {
            for i in 0..j {
                let score = templates.cosine(i, j).unwrap();
                if people.of_row()[i] == people.of_row()[j] { mated.push(score) } else { non_mated.push(score) }
            }
        }
        (non_mated, mated)
    }

    #[test]
    fn rates_thresholds_and_det_equal_those_of_all_pairs_one_by_one() {
        let (templates, people) = crowd(150, 3, 32, 0.75, 5);
        let (non_mated, mated) = brute_force(&templates, &people);
        let listed: Vec<_> = people.mated().take(100).map(|(_, a, b)| MatedPair { a, b }).collect();
        let result = verify(&templates, &people, &listed, &settings(&[0.1, 0.01, 0.001]), &|_| {}).unwrap();
        assert_eq!((result.non_mated_pairs, result.mated_pairs), (non_mated.len() as u64, 450));
        let share = |scores: &[f64], t: f64| scores.iter().filter(|s| **s >= t).count() as f64 / scores.len() as f64;
        for point in &result.points {
            assert!((point.fmr.rate - share(&non_mated, point.threshold)).abs() < 1.5 / non_mated.len() as f64);
            assert!(point.fmr.rate <= point.wanted_fmr);
            assert!(share(&non_mated, point.threshold - 1.1 * scan::RESOLUTION) > point.wanted_fmr);
            assert!((point.fnmr.rate - (1.0 - share(&mated, point.threshold))).abs() < 1e-9);
            let listed_score = |p: &MatedPair| templates.cosine(p.a, p.b).unwrap();
            let missed = listed.iter().filter(|p| listed_score(p) < point.threshold).count();
            assert_eq!(point.fnmr_listed.unwrap().errors, missed as u64);
        }
        for point in &result.det {
            assert!((point.false_positive - share(&non_mated, point.threshold)).abs() < 1.5 / non_mated.len() as f64);
            assert!((point.false_negative - (1.0 - share(&mated, point.threshold))).abs() < 1e-9);
        }
        assert!(result.det.windows(2).all(|w| w[0].false_positive <= w[1].false_positive));
        let fmr = share(&non_mated, result.eer_threshold);
        assert!(
            (fmr - result.eer).abs() < 0.005 && result.eer_interval.unwrap().holds(result.eer),
            "{fmr} {}",
            result.eer
        );
        assert!((result.mated.mean - mated.iter().sum::<f64>() / 450.0).abs() < 1e-6);
    }

    #[test]
    fn intervals_hold_the_rates_and_shrink_with_people() {
        let width = |people: usize| {
            let (templates, people) = crowd(people, 3, 32, 0.6, 6);
            let result = verify(&templates, &people, &[], &settings(&[0.01]), &|_| {}).unwrap();
            let point = &result.points[0];
            assert!(
                point.fmr.interval.unwrap().holds(point.fmr.rate)
                    && point.fnmr.interval.unwrap().holds(point.fnmr.rate)
            );
            let interval = point.fnmr.interval.unwrap();
            interval.high - interval.low
        };
        assert!(width(60) > 1.3 * width(240));
    }

    /// FMR at a fixed threshold of people drawn from a distribution whose FMR is known by a large draw.
    #[test]
    fn intervals_of_fmr_cover_the_truth() {
        let draw = |people: usize, seed: u64| crowd(people, 1, 16, 1.0, seed);
        let threshold = 0.5;
        let fmr = |templates: &Templates, people: &People| {
            let (scores, _) = brute_force(templates, people);
            scores.iter().filter(|s| **s >= threshold).count() as f64 / scores.len() as f64
        };
        let (templates, people) = draw(2500, 999);
        let truth = fmr(&templates, &people);
        let mut covered = 0;
        for seed in 0..100 {
            let (templates, people) = draw(60, seed);
            let tail = tail(&templates, &people, &non_mated(&templates, &people, &|_| {}), &[0.5], &|_| {});
            let above = tail.iter().filter(|p| f64::from(p.score) >= threshold).count();
            let settings = Settings { fmr: vec![0.5], bootstrap: Bootstrap { resamples: 150, seed } };
            let found = intervals(&people, &tail, [&[], &[]], &[(threshold, above as u64)], &settings);
            covered += usize::from(found[0].unwrap().holds(truth));
        }
        // Conservative where single pairs decide, as the module says: not below 95 %, at most above.
        assert!(covered >= 92, "{covered} of 100 at {truth}");
    }

    #[test]
    fn what_cannot_be_evaluated_is_refused() {
        let (templates, people) = crowd(20, 2, 16, 0.8, 1);
        let run = |people: &People, listed: &[MatedPair], fmr| {
            verify(&templates, people, listed, &settings(&[fmr]), &|_| {}).map(|_| ()).unwrap_err()
        };
        assert_eq!(run(&People::new(["a"]), &[], 0.1), EvaluationError::Mismatch { what: "labels" });
        assert_eq!(run(&people, &[], 1.0), EvaluationError::Range { what: "an FMR" });
        for (a, b) in [(0, 2), (0, 0), (40, 41)] {
            assert_eq!(run(&people, &[MatedPair { a, b }], 0.1), EvaluationError::Mismatch { what: "listed pairs" });
        }
        let alone = People::new((0..40).map(|i| i.to_string()));
        assert!(matches!(run(&alone, &[], 0.1), EvaluationError::TooFew { what: "mated pairs", .. }));
        let one = People::new([""; 40]);
        assert!(matches!(run(&one, &[], 0.1), EvaluationError::TooFew { what: "non-mated pairs", .. }));
    }
}
