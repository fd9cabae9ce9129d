//! 95 % intervals by the bootstrap over subjects.
//!
//! Comparisons of one person depend on each other, so people are drawn, not comparisons: a resample gives each person
//! the number of times that it was drawn, and a comparison counts as often as its person. A non-mated comparison has two
//! people and counts as often as the product of theirs (the pigeonhole bootstrap, Owen 2007); a person is never compared
//! with a copy of itself. Where single false matches decide, that interval is wider than it need be, never narrower: it
//! counts the noise of single comparisons up to three times.
//!
//! A bootstrap cannot see what never happened. Where no error was observed, [`Rate::new`] gives the exact upper bound for
//! as many independent trials as there are people who could have erred.

use rayon::prelude::*;
use serde::Serialize;
use veilmatch_secret::{Label, Stream};

/// A 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// 2.5 % of the resamples are below.
    pub low: f64,
    /// 2.5 % of the resamples are above.
    pub high: f64,
}

impl Interval {
    /// From the values of the resamples; `None` without any.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|v| v.is_finite());
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len().max(1)) - 1;
            values.get(place).copied()
        };
        Some(Self { low: at(0.025)?, high: at(0.975)? })
    }

    /// Whether a number lies inside.
    #[must_use]
    pub fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// How intervals are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bootstrap {
    /// Resamples.
    pub resamples: usize,
    /// Decides on all of them.
    pub seed: u64,
}

impl Bootstrap {
    /// Runs `statistic` on the weights of every resample: how often each of `people` was drawn.
    pub fn run<T: Send>(&self, people: usize, statistic: impl Fn(&[u32]) -> T + Sync + Send) -> Vec<T> {
        (0..self.resamples as u64)
            .into_par_iter()
            .map(|resample| {
                let label = Label::new("veilmatch/evaluation/bootstrap").number(self.seed).number(resample);
                let mut stream = Stream::public(label.digest().0);
                let mut weights = vec![0u32; people];
                for _ in 0..people {
                    // The bias of the remainder is far below what any statistic here can see.
                    weights[(stream.next_u64() % people as u64) as usize] += 1;
                }
                statistic(&weights)
            })
            .collect()
    }

    /// Intervals of several statistics at once; each resample gives as many numbers as there are statistics.
    pub fn intervals(
        &self,
        people: usize,
        count: usize,
        statistics: impl Fn(&[u32]) -> Vec<f64> + Sync + Send,
    ) -> Vec<Option<Interval>> {
        let values = self.run(people, statistics);
        (0..count).map(|k| Interval::of(values.iter().filter_map(|v| v.get(k)).copied().collect())).collect()
    }

    /// A rate of trials that belong to one person each.
    #[must_use]
    pub fn rate(&self, trials: &[PerPerson]) -> Rate {
        let (errors, all) = trials.iter().fold((0, 0), |(e, n), p| (e + p.errors, n + p.trials));
        let people = trials.iter().filter(|p| p.trials > 0).count();
        // Whoever has no trial cannot change the rate.
        let drawn: Vec<PerPerson> = trials.iter().filter(|p| p.trials > 0).copied().collect();
        let values = if errors == 0 { Vec::new() } else { self.run(drawn.len(), |weights| weighted(&drawn, weights)) };
        Rate::new(errors, all, people as u64, Interval::of(values))
    }
}

/// Errors and trials of one person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerPerson {
    /// Trials that went wrong.
    pub errors: u64,
    /// All trials.
    pub trials: u64,
}

/// The rate under these weights; not a number if nobody with a trial was drawn.
fn weighted(trials: &[PerPerson], weights: &[u32]) -> f64 {
    let (mut errors, mut all) = (0, 0);
    for (person, &weight) in trials.iter().zip(weights) {
        errors += person.errors * u64::from(weight);
        all += person.trials * u64::from(weight);
    }
    errors as f64 / all as f64
}

/// An error rate with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// Errors as a share of the trials.
    pub rate: f64,
    /// Trials that went wrong.
    pub errors: u64,
    /// All trials.
    pub trials: u64,
    /// People with a trial.
    pub people: u64,
    /// The interval; `None` without trials.
    pub interval: Option<Interval>,
}

impl Rate {
    /// `interval` is the bootstrap's; without an error it is replaced by [0, 1 − 0.025^(1/n)] for n people.
    #[must_use]
    pub fn new(errors: u64, trials: u64, people: u64, interval: Option<Interval>) -> Self {
        let rate = if trials == 0 { 0.0 } else { errors as f64 / trials as f64 };
        let unseen = Interval { low: 0.0, high: 1.0 - 0.025f64.powf(1.0 / people.max(1) as f64) };
        let interval = match (trials, errors) {
            (0, _) => None,
            (_, 0) => Some(unseen),
            _ => interval,
        };
        Self { rate, errors, trials, people, interval }
    }
}

/// Uniform in (0, 1).
pub(crate) fn uniform(stream: &mut Stream) -> f64 {
    ((stream.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// A standard normal number (Box-Muller).
pub(crate) fn normal(stream: &mut Stream) -> f64 {
    let (u, v) = (uniform(stream), uniform(stream));
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// Shuffles by a public stream.
pub(crate) fn shuffle<T>(list: &mut [T], stream: &mut Stream) {
    for last in (1..list.len()).rev() {
        list.swap(last, (stream.next_u64() % (last as u64 + 1)) as usize);
    }
}

/// A stream of public randomness for one purpose.
pub(crate) fn stream(domain: &'static str, seed: u64, number: u64) -> Stream {
    Stream::public(Label::new(domain).number(seed).number(number).digest().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_draws_and_a_seed_decides_them() {
        let bootstrap = Bootstrap { resamples: 200, seed: 1 };
        let all = bootstrap.run(50, <[u32]>::to_vec);
        assert!(all.iter().all(|w| w.iter().sum::<u32>() == 50));
        let zeros = all.iter().flatten().filter(|w| **w == 0).count() as f64 / 10_000.0;
        // (1 − 1/50)^50 of the people are not drawn.
        assert!((zeros - 0.364).abs() < 0.02, "{zeros}");
        assert_eq!(all, bootstrap.run(50, <[u32]>::to_vec));
        assert_ne!(all, Bootstrap { seed: 2, ..bootstrap }.run(50, <[u32]>::to_vec));
    }

    #[test]
    fn without_errors_the_bound_is_exact() {
        let rate = Bootstrap { resamples: 100, seed: 1 }.rate(&[PerPerson { errors: 0, trials: 2 }; 100]);
        let interval = rate.interval.unwrap();
        assert_eq!((rate.rate, rate.trials, rate.people, interval.low), (0.0, 200, 100, 0.0));
        // At this rate, a hundred people without an error have a probability of 2.5 %.
        assert!(((1.0 - interval.high).powi(100) - 0.025).abs() < 1e-12);
        assert_eq!(Bootstrap { resamples: 100, seed: 1 }.rate(&[PerPerson::default(); 3]).interval, None);
    }

    /// People with 8 trials each that nearly all succeed or nearly all fail together; the true rate is 0.1.
    fn clustered(seed: u64) -> Vec<PerPerson> {
        let mut stream = stream("test/clustered", seed, 0);
        (0..150)
            .map(|_| {
                let chance = if uniform(&mut stream) < 0.125 { 0.8 } else { 0.0 };
                let errors = (0..8).filter(|_| uniform(&mut stream) < chance).count() as u64;
                PerPerson { errors, trials: 8 }
            })
            .collect()
    }

    #[test]
    fn intervals_over_people_cover_and_intervals_over_comparisons_do_not() {
        let (mut over_people, mut over_comparisons) = (0, 0);
        for seed in 0..200 {
            let bootstrap = Bootstrap { resamples: 200, seed };
            let people = clustered(seed);
            over_people += usize::from(bootstrap.rate(&people).interval.unwrap().holds(0.1));
            let comparisons: Vec<PerPerson> = people
                .iter()
                .flat_map(|p| (0..8).map(|k| PerPerson { errors: u64::from(k < p.errors), trials: 1 }))
                .collect();
            over_comparisons += usize::from(bootstrap.rate(&comparisons).interval.unwrap().holds(0.1));
        }
        assert!((182..=198).contains(&over_people), "{over_people} of 200");
        assert!(over_comparisons < 160, "{over_comparisons} of 200");
    }
}
