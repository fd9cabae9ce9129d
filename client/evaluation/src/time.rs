//! Mated scores over time: how much of a match is lost with the years between two images (as in longitudinal studies of
//! face recognition, Best-Rowden and Jain 2018).
//!
//! Two slopes: over all mated pairs at once, and within people, where each person's mean is taken off scores and times
//! first. The second is not fooled by people with long series who happen to match better or worse.

use serde::Serialize;

use crate::bootstrap::{Bootstrap, Interval, PerPerson, Rate};
use crate::{EvaluationError, People, Templates};

/// Days of a year.
const YEAR: f64 = 365.25;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Upper ends of the bins of elapsed time in days, ascending; a last bin holds what is longer.
    pub bins: Vec<f64>,
    /// The cosine from which a pair matches.
    pub threshold: f64,
    /// How intervals are made.
    pub bootstrap: Bootstrap,
}

/// Mated pairs of similar age.
#[derive(Clone, Debug, Serialize)]
pub struct Bin {
    /// Elapsed days, from.
    pub from_days: f64,
    /// Elapsed days, up to; `None` for the last.
    pub to_days: Option<f64>,
    /// Mated pairs.
    pub pairs: u64,
    /// Mean score.
    pub mean: f64,
    /// Its interval.
    pub mean_interval: Option<Interval>,
    /// Pairs that do not match.
    pub fnmr: Rate,
}

/// A change of the score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Slope {
    /// Change of the mated cosine in a year.
    pub per_year: f64,
    /// Its interval.
    pub interval: Option<Interval>,
}

/// The result.
#[derive(Clone, Debug, Serialize)]
pub struct OverTime {
    /// The cosine from which a pair matches.
    pub threshold: f64,
    /// Mated pairs.
    pub pairs: u64,
    /// People with a mated pair.
    pub people: u64,
    /// The longest time between two images in days.
    pub longest_days: f64,
    /// Bins with at least one pair.
    pub bins: Vec<Bin>,
    /// Over all pairs; `None` if all have the same age.
    pub slope: Option<Slope>,
    /// Within people; `None` if nobody has pairs of different ages.
    pub slope_within: Option<Slope>,
    /// Resamples of the bootstrap.
    pub resamples: usize,
    /// Its seed.
    pub seed: u64,
}

/// One mated pair.
#[derive(Clone, Copy)]
struct Pair {
    days: f64,
    score: f64,
}

/// Sums that a slope is made of.
#[derive(Clone, Copy, Default)]
struct Sums {
    n: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Sums {
    fn of(pairs: &[Pair]) -> Self {
        let mut sums = Self::default();
        for pair in pairs {
            let x = pair.days / YEAR;
            sums.add(1.0, Self { n: 1.0, x, y: pair.score, xx: x * x, xy: x * pair.score });
        }
        sums
    }

    fn add(&mut self, weight: f64, other: Self) {
        self.n += weight * other.n;
        self.x += weight * other.x;
        self.y += weight * other.y;
        self.xx += weight * other.xx;
        self.xy += weight * other.xy;
    }

    /// The same with the means taken off.
    fn centred(self) -> Self {
        let n = self.n.max(1.0);
        Self { n: 0.0, x: 0.0, y: 0.0, xx: self.xx - self.x * self.x / n, xy: self.xy - self.x * self.y / n }
    }

    /// Least squares; not a number where the times do not differ.
    fn slope(self) -> f64 {
        let centred = if self.n > 0.0 { self.centred() } else { self };
        if centred.xx > 1e-9 { centred.xy / centred.xx } else { f64::NAN }
    }
}

fn total(people: &[Sums], weights: &[u32]) -> f64 {
    let mut all = Sums::default();
    people.iter().zip(weights).for_each(|(sums, &w)| all.add(f64::from(w), *sums));
    all.slope()
}

/// Evaluates; `days` is the date of each row, as days from any beginning.
///
/// # Errors
/// [`EvaluationError`] if there is no mated pair, or lists do not belong together.
pub fn over_time(
    templates: &Templates,
    people: &People,
    days: &[f64],
    settings: &Settings,
) -> Result<OverTime, EvaluationError> {
    people.fit(templates)?;
    if days.len() != templates.len() || days.iter().any(|d| !d.is_finite()) {
        return Err(EvaluationError::Mismatch { what: "dates" });
    }
    if !settings.bins.is_sorted_by(|a, b| a < b) {
        return Err(EvaluationError::Range { what: "the order of the bins" });
    }
    let mut by_person: Vec<Vec<Pair>> = vec![Vec::new(); people.len()];
    for (person, a, b) in people.mated() {
        if let Some(score) = templates.cosine(a, b) {
            by_person[person as usize].push(Pair { days: (days[a] - days[b]).abs(), score });
        }
    }
    by_person.retain(|pairs| !pairs.is_empty());
    if by_person.is_empty() {
        return Err(EvaluationError::TooFew { what: "mated pairs", found: 0, needed: 1 });
    }
    let slope = |sums: Vec<Sums>| {
        let per_year = total(&sums, &vec![1; sums.len()]);
        let drawn = settings.bootstrap.run(sums.len(), |weights| total(&sums, weights));
        per_year.is_finite().then(|| Slope { per_year, interval: Interval::of(drawn) })
    };
    let sums: Vec<Sums> = by_person.iter().map(|pairs| Sums::of(pairs)).collect();
    let mut from = 0.0;
    let mut bins = Vec::new();
    for to in settings.bins.iter().copied().map(Some).chain([None]) {
        bins.extend(bin(&by_person, from, to, settings));
        from = to.unwrap_or(from);
    }
    Ok(OverTime {
        threshold: settings.threshold,
        pairs: by_person.iter().map(|p| p.len() as u64).sum(),
        people: by_person.len() as u64,
        longest_days: by_person.iter().flatten().map(|p| p.days).fold(0.0, f64::max),
        bins,
        slope_within: slope(sums.iter().map(|s| s.centred()).collect()),
        slope: slope(sums),
        resamples: settings.bootstrap.resamples,
        seed: settings.bootstrap.seed,
    })
}

/// Pairs whose age lies in [from, to); `None` if there is none.
fn bin(people: &[Vec<Pair>], from: f64, to: Option<f64>, settings: &Settings) -> Option<Bin> {
    let inside = |p: &&Pair| p.days >= from && to.is_none_or(|to| p.days < to);
    let sums: Vec<(f64, PerPerson)> = people
        .iter()
        .map(|pairs| {
            let pairs: Vec<&Pair> = pairs.iter().filter(inside).collect();
            let errors = pairs.iter().filter(|p| p.score < settings.threshold).count() as u64;
            (pairs.iter().map(|p| p.score).sum(), PerPerson { errors, trials: pairs.len() as u64 })
        })
        .filter(|(_, counts): &(f64, PerPerson)| counts.trials > 0)
        .collect();
    let mean = |weights: &[u32]| {
        let all = sums.iter().zip(weights).fold((0.0, 0.0), |(s, n), ((sum, counts), &w)| {
            (s + sum * f64::from(w), n + counts.trials as f64 * f64::from(w))
        });
        all.0 / all.1
    };
    if sums.is_empty() {
        return None;
    }
    let counts: Vec<PerPerson> = sums.iter().map(|s| s.1).collect();
    Some(Bin {
        from_days: from,
        to_days: to,
        pairs: counts.iter().map(|c| c.trials).sum(),
        mean: mean(&vec![1; sums.len()]),
        mean_interval: Interval::of(settings.bootstrap.run(sums.len(), mean)),
        fnmr: settings.bootstrap.rate(&counts),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::{normal, stream};

    /// People whose images turn by an angle with the years: the cosine of two images is cos(rate·years), about
    /// 1 − (rate·years)²/2, with a little noise. `rate` in radians per year.
    fn ageing(people: usize, rate: f64, seed: u64) -> (Templates, People, Vec<f64>) {
        let mut stream = stream("test/ageing", seed, 0);
        let (mut values, mut labels, mut days) = (Vec::new(), Vec::new(), Vec::new());
        for person in 0..people {
            for image in 0..4 {
                let years = 2.0 * f64::from(image);
                let angle = rate * years + 0.02 * normal(&mut stream) + 0.3 * f64::from(image % 2);
                let mut row = vec![0.0f32; 16];
                (row[0], row[1]) = (angle.cos() as f32, angle.sin() as f32);
                values.extend(row);
                labels.push(person.to_string());
                days.push(years * YEAR);
            }
        }
        (Templates::new(values, 16).unwrap(), People::new(labels), days)
    }

    fn settings() -> Settings {
        Settings {
            bins: vec![2.5 * YEAR, 4.5 * YEAR],
            threshold: 0.9,
            bootstrap: Bootstrap { resamples: 200, seed: 1 },
        }
    }

    #[test]
    fn ageing_faces_have_a_falling_slope_and_bins_that_add_up() {
        let (templates, people, days) = ageing(50, 0.06, 1);
        let result = over_time(&templates, &people, &days, &settings()).unwrap();
        assert_eq!((result.pairs, result.people, result.longest_days), (300, 50, 6.0 * YEAR));
        assert_eq!(result.bins.iter().map(|b| b.pairs).collect::<Vec<_>>(), [150, 100, 50]);
        for slope in [result.slope.unwrap(), result.slope_within.unwrap()] {
            let interval = slope.interval.unwrap();
            assert!(slope.per_year < -0.005 && interval.high < 0.0 && interval.holds(slope.per_year), "{slope:?}");
        }
        let [_, middle, last] = &result.bins[..] else { panic!("three bins") };
        // Four years apart: 0.24 rad; six: 0.36, and 0.3 more as one of them is an odd image.
        assert!((middle.mean - 0.24f64.cos()).abs() < 0.01, "{}", middle.mean);
        assert!((last.mean - 0.66f64.cos()).abs() < 0.02 && last.fnmr.rate == 1.0, "{last:?}");
        assert!(middle.mean_interval.unwrap().holds(middle.mean));
    }

    #[test]
    fn faces_that_do_not_age_have_no_slope() {
        let mut covered = 0;
        for seed in 0..40 {
            let mut stream = stream("test/ageless", seed, 0);
            let (templates, people) = crate::testing::crowd(60, 3, 24, 0.8, seed);
            let days: Vec<f64> = (0..180).map(|_| 1000.0 * crate::bootstrap::uniform(&mut stream)).collect();
            let result = over_time(&templates, &people, &days, &settings()).unwrap();
            covered += usize::from(result.slope_within.unwrap().interval.unwrap().holds(0.0));
        }
        assert!((34..=40).contains(&covered), "{covered} of 40");
    }

    #[test]
    fn dates_that_do_not_fit_are_refused_and_equal_ones_have_no_slope() {
        let (templates, people, days) = ageing(3, 0.1, 1);
        let run = |days: &[f64]| over_time(&templates, &people, days, &settings());
        assert_eq!(run(&days[1..]).unwrap_err(), EvaluationError::Mismatch { what: "dates" });
        assert_eq!(run(&[f64::NAN; 12]).unwrap_err(), EvaluationError::Mismatch { what: "dates" });
        let same = run(&[5.0; 12]).unwrap();
        assert!(same.slope.is_none() && same.slope_within.is_none() && same.bins.len() == 1);
    }
}
