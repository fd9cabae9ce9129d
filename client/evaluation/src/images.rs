//! From images: what gates refuse, what it does to pairs, and whether the time suffices.
//!
//! A refused image is a failure to acquire (FTA, ISO/IEC 19795-1), not a pair to leave out. FMR and FNMR are over pairs of
//! two acquired images, as the standard has them; beside them stand the false accept and false reject rates over all
//! pairs, in which a pair with a refused image is a rejection. Accuracy over folds counts it as "no match" as well.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::EvaluationError;
use crate::bootstrap::{Bootstrap, Interval, PerPerson, Rate};
use crate::folds::{self, Scored};

/// What became of an image.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// There is a template.
    Acquired,
    /// A gate refused it, or it could not be read; its stable code.
    Refused(String),
}

/// One image.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Whom it shows.
    pub person: u32,
    /// What became of it.
    pub outcome: Outcome,
    /// Milliseconds of each stage, in order.
    pub stages: Vec<(&'static str, f64)>,
}

/// How many images could not be used.
#[derive(Clone, Debug, Serialize)]
pub struct Acquisition {
    /// Images.
    pub images: u64,
    /// The share that was refused.
    pub failure_to_acquire: Rate,
    /// How often each reason, the most frequent first.
    pub reasons: Vec<(String, u64)>,
}

/// Counts refusals.
#[must_use]
pub fn acquisition(images: &[Image], bootstrap: Bootstrap) -> Acquisition {
    let mut people: BTreeMap<u32, PerPerson> = BTreeMap::new();
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for image in images {
        let counts = people.entry(image.person).or_default();
        counts.trials += 1;
        if let Outcome::Refused(reason) = &image.outcome {
            counts.errors += 1;
            *reasons.entry(reason).or_default() += 1;
        }
    }
    let mut reasons: Vec<(String, u64)> = reasons.into_iter().map(|(r, n)| (r.to_owned(), n)).collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.1));
    let counts: Vec<PerPerson> = people.into_values().collect();
    Acquisition { images: images.len() as u64, failure_to_acquire: bootstrap.rate(&counts), reasons }
}

/// A pair of images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// The fold that it belongs to.
    pub fold: u32,
    /// Its images.
    pub images: (usize, usize),
    /// Whether both show one person.
    pub same: bool,
    /// Their cosine; whatever it is, a pair with a refused image has none.
    pub score: Option<f64>,
}

/// Pairs at one threshold.
#[derive(Clone, Debug, Serialize)]
pub struct Pairs {
    /// The cosine from which a pair matches.
    pub threshold: f64,
    /// Pairs.
    pub pairs: u64,
    /// Pairs with a refused image.
    pub refused: u64,
    /// Over pairs of acquired images.
    pub fmr: Rate,
    /// The same.
    pub fnmr: Rate,
    /// Over all non-mated pairs.
    pub false_accept: Rate,
    /// Over all mated pairs; a refused image makes it a rejection.
    pub false_reject: Rate,
}

/// Counts decisions at a threshold.
///
/// # Errors
/// [`EvaluationError::Mismatch`] if a pair names an image that is not there.
pub fn pairs(images: &[Image], pairs: &[Pair], threshold: f64, bootstrap: Bootstrap) -> Result<Pairs, EvaluationError> {
    let mut listed = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let (Some(a), Some(b)) = (images.get(pair.images.0), images.get(pair.images.1)) else {
            return Err(EvaluationError::Mismatch { what: "pairs" });
        };
        let acquired = a.outcome == Outcome::Acquired && b.outcome == Outcome::Acquired;
        let matches = pair.score.filter(|_| acquired).map(|s| s >= threshold);
        listed.push(Decided { people: (a.person, b.person), same: pair.same, matches });
    }
    let rate = |same: bool, acquired_only: bool| {
        let chosen: Vec<Decided> =
            listed.iter().filter(|d| d.same == same && (!acquired_only || d.matches.is_some())).copied().collect();
        over_people(&chosen, bootstrap)
    };
    Ok(Pairs {
        threshold,
        pairs: pairs.len() as u64,
        refused: listed.iter().filter(|d| d.matches.is_none()).count() as u64,
        fmr: rate(false, true),
        fnmr: rate(true, true),
        false_accept: rate(false, false),
        false_reject: rate(true, false),
    })
}

/// A decided pair; `None` if an image was refused.
#[derive(Clone, Copy)]
struct Decided {
    people: (u32, u32),
    same: bool,
    matches: Option<bool>,
}

impl Decided {
    fn wrong(self) -> bool {
        self.matches.unwrap_or(false) != self.same
    }
}

fn over_people(decided: &[Decided], bootstrap: Bootstrap) -> Rate {
    let mut numbers: BTreeMap<u32, usize> = BTreeMap::new();
    for person in decided.iter().flat_map(|d| [d.people.0, d.people.1]) {
        let next = numbers.len();
        numbers.entry(person).or_insert(next);
    }
    let errors = decided.iter().filter(|d| d.wrong()).count() as u64;
    let people = numbers.len();
    let values = if errors == 0 {
        Vec::new()
    } else {
        bootstrap.run(people, |weights| {
            let weight = |person: u32| f64::from(numbers.get(&person).map_or(0, |&n| weights[n]));
            let (mut wrong, mut all) = (0.0, 0.0);
            for one in decided {
                let weight = if one.same { weight(one.people.0) } else { weight(one.people.0) * weight(one.people.1) };
                all += weight;
                wrong += weight * f64::from(u8::from(one.wrong()));
            }
            wrong / all
        })
    };
    Rate::new(errors, decided.len() as u64, people as u64, Interval::of(values))
}

/// Accuracy over folds, each at the threshold of highest accuracy on the others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// Mean over the folds.
    pub accuracy: f64,
    /// Its standard error over the folds.
    pub standard_error: f64,
    /// Folds.
    pub folds: usize,
}

/// Accuracy as LFW reports it; a pair with a refused image is decided as "no match" at every threshold.
#[must_use]
pub fn accuracy(pairs: &[Pair]) -> Option<Accuracy> {
    // Below every threshold there is.
    let scored: Vec<Scored> =
        pairs.iter().map(|p| Scored { fold: p.fold, score: p.score.unwrap_or(-1.0), same: p.same }).collect();
    let thresholds = folds::thresholds(&scored).ok()?;
    let shares: Vec<f64> = thresholds
        .iter()
        .map(|(fold, threshold)| {
            let inside: Vec<&Scored> = scored.iter().filter(|p| p.fold == *fold).collect();
            let right = inside.iter().filter(|p| (p.score >= threshold.cosine()) == p.same).count();
            right as f64 / inside.len().max(1) as f64
        })
        .collect();
    let n = shares.len() as f64;
    let mean = shares.iter().sum::<f64>() / n;
    let variance = shares.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (n > 1.0).then(|| Accuracy { accuracy: mean, standard_error: (variance / n).sqrt(), folds: shares.len() })
}

/// One stage, or all together.
#[derive(Clone, Debug, Serialize)]
pub struct StageTime {
    /// Its name.
    pub stage: String,
    /// Images that went through it.
    pub images: u64,
    /// Median in milliseconds.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Limit {
    /// In milliseconds, from the image's bytes to the decision.
    pub limit_ms: f64,
    /// The share of the decided attempts that took no longer.
    pub within: f64,
    /// Whether the 99th percentile does.
    pub met: bool,
}

/// Time limits as in FRUITS (WebFace260M): 100, 500 and 1,000 ms for everything.
#[derive(Clone, Debug, Serialize)]
pub struct TimeLimits {
    /// By stage in order, and last their sum.
    pub stages: Vec<StageTime>,
    /// One for each limit.
    pub limits: Vec<Limit>,
}

/// Judges the times of attempts that came to a decision; refused images are left out, as they end early.
///
/// # Errors
/// [`EvaluationError::TooFew`] if no image came to a decision.
pub fn time_limits(images: &[Image], limits_ms: &[f64]) -> Result<TimeLimits, EvaluationError> {
    let mut names: Vec<&'static str> = Vec::new();
    let mut times: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    let mut totals = Vec::new();
    for image in images.iter().filter(|i| i.outcome == Outcome::Acquired) {
        for &(stage, ms) in &image.stages {
            if !names.contains(&stage) {
                names.push(stage);
            }
            times.entry(stage).or_default().push(ms);
        }
        totals.push(image.stages.iter().map(|s| s.1).sum::<f64>());
    }
    if totals.is_empty() {
        return Err(EvaluationError::TooFew { what: "decided attempts", found: 0, needed: 1 });
    }
    totals.sort_by(f64::total_cmp);
    let stage = |name: &str, times: &[f64]| StageTime {
        stage: name.to_owned(),
        images: times.len() as u64,
        p50: quantile(times, 0.5),
        p95: quantile(times, 0.95),
        p99: quantile(times, 0.99),
    };
    let mut stages: Vec<StageTime> = names
        .into_iter()
        .filter_map(|name| {
            let mut own = times.remove(name)?;
            own.sort_by(f64::total_cmp);
            Some(stage(name, &own))
        })
        .collect();
    stages.push(stage("all", &totals));
    let limit = |&limit_ms: &f64| Limit {
        limit_ms,
        within: totals.partition_point(|t| *t <= limit_ms) as f64 / totals.len() as f64,
        met: quantile(&totals, 0.99) <= limit_ms,
    };
    Ok(TimeLimits { stages, limits: limits_ms.iter().map(limit).collect() })
}

/// The smallest of sorted values that this share of them does not exceed.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(place).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOTSTRAP: Bootstrap = Bootstrap { resamples: 200, seed: 5 };

    fn image(person: u32, refused: Option<&str>, ms: f64) -> Image {
        let outcome = refused.map_or(Outcome::Acquired, |r| Outcome::Refused(r.to_owned()));
        Image { person, outcome, stages: vec![("detect", ms), ("embed", 2.0 * ms)] }
    }

    fn pair(fold: u32, images: (usize, usize), same: bool, score: Option<f64>) -> Pair {
        Pair { fold, images, same, score }
    }

    #[test]
    fn refused_images_are_failures_and_their_pairs_rejections() {
        let images = [
            image(0, None, 1.0),
            image(0, Some("face-too-small"), 1.0),
            image(1, None, 1.0),
            image(1, None, 1.0),
            image(2, Some("blurred"), 1.0),
            image(2, Some("face-too-small"), 1.0),
        ];
        let found = acquisition(&images, BOOTSTRAP);
        assert_eq!((found.failure_to_acquire.errors, found.failure_to_acquire.trials), (3, 6));
        assert_eq!(found.reasons, [("face-too-small".to_owned(), 2), ("blurred".to_owned(), 1)]);
        let list = [
            pair(0, (0, 1), true, Some(0.9)),
            pair(0, (2, 3), true, Some(0.8)),
            pair(1, (4, 5), true, None),
            pair(0, (0, 2), false, Some(0.6)),
            pair(1, (0, 3), false, Some(0.1)),
            pair(1, (1, 4), false, None),
        ];
        let result = pairs(&images, &list, 0.5, BOOTSTRAP).unwrap();
        assert_eq!((result.pairs, result.refused), (6, 3));
        assert_eq!((result.fnmr.errors, result.fnmr.trials), (0, 1), "a score of a refused image does not count");
        assert_eq!((result.false_reject.errors, result.false_reject.trials), (2, 3));
        assert_eq!((result.fmr.errors, result.fmr.trials), (1, 2));
        assert_eq!((result.false_accept.errors, result.false_accept.trials), (1, 3));
        assert!(result.false_reject.interval.unwrap().holds(2.0 / 3.0));
        let bad = [pair(0, (0, 6), true, None)];
        assert_eq!(pairs(&images, &bad, 0.5, BOOTSTRAP).unwrap_err(), EvaluationError::Mismatch { what: "pairs" });
    }

    #[test]
    fn refused_pairs_lower_the_accuracy() {
        let list = |refused: bool| -> Vec<Pair> {
            (0..40)
                .map(|i| {
                    let same = i % 2 == 0;
                    let score = if same { 0.7 } else { 0.1 };
                    pair(i / 10, (0, 1), same, (!(refused && i < 10)).then_some(score))
                })
                .collect()
        };
        let (all, some) = (accuracy(&list(false)).unwrap(), accuracy(&list(true)).unwrap());
        assert_eq!((all.accuracy, all.folds), (1.0, 4));
        // Five mated pairs of one fold of ten are rejected.
        assert!((some.accuracy - 0.875).abs() < 1e-9 && some.standard_error > 0.1, "{some:?}");
        assert_eq!(accuracy(&list(false)[..10]), None);
    }

    #[test]
    fn limits_count_whole_attempts() {
        let images: Vec<Image> =
            (1..=100).map(|i| image(i, None, f64::from(i))).chain([image(0, Some("blurred"), 1e6)]).collect();
        let result = time_limits(&images, &[100.0, 150.0, 500.0]).unwrap();
        assert_eq!(result.stages.iter().map(|s| s.stage.as_str()).collect::<Vec<_>>(), ["detect", "embed", "all"]);
        assert_eq!((result.stages[0].p50, result.stages[2].p99), (50.0, 297.0));
        assert_eq!(result.limits.iter().map(|l| l.within).collect::<Vec<_>>(), [0.33, 0.5, 1.0]);
        assert_eq!(result.limits.iter().map(|l| l.met).collect::<Vec<_>>(), [false, false, true]);
        assert!(time_limits(&images[100..], &[100.0]).is_err());
    }
}
