//! What many runs of one thing came to: medians with their spread, never means alone.

use std::time::Duration;

use serde::Serialize;

/// Minimum, quartiles and maximum of repeated measurements, in the unit of the field that holds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Spread {
    /// How many measurements.
    pub runs: usize,
    /// The smallest.
    pub min: f64,
    /// The lower quartile.
    pub q1: f64,
    /// The median.
    pub median: f64,
    /// The upper quartile.
    pub q3: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these measurements; zeros for none.
    #[must_use]
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        // Linear between the two neighbours, so that the median of an even number is their mean.
        let at = |share: f64| {
            let place = share * sorted.len().saturating_sub(1) as f64;
            let value = |i: usize| sorted.get(i).copied().unwrap_or_default();
            let below = value(place.floor() as usize);
            below + (value(place.ceil() as usize) - below) * place.fract()
        };
        Self { runs: sorted.len(), min: at(0.0), q1: at(0.25), median: at(0.5), q3: at(0.75), max: at(1.0) }
    }

    /// Every number through a function that keeps the order.
    #[must_use]
    pub(super) fn map(self, change: impl Fn(f64) -> f64) -> Self {
        let Self { runs, min, q1, median, q3, max } = self;
        Self { runs, min: change(min), q1: change(q1), median: change(median), q3: change(q3), max: change(max) }
    }

    /// `median (q1 to q3)`.
    #[must_use]
    pub(super) fn text(&self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$} to {:.digits$})", self.median, self.q1, self.q3)
    }
}

/// Times of many calls, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Times {
    /// How many calls.
    pub calls: usize,
    /// Half of the calls took at most this.
    pub p50: f64,
    /// 99 of 100 calls took at most this.
    pub p99: f64,
    /// The mean.
    pub mean: f64,
}

impl Times {
    /// Of these calls; zeros for none.
    #[must_use]
    pub(super) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let place = ((times.len() as f64 * share).ceil() as usize).clamp(1, times.len().max(1)) - 1;
            times.get(place).copied().unwrap_or_default()
        };
        let mean = times.iter().sum::<Duration>() / times.len().max(1) as u32;
        let ms = crate::report::milliseconds;
        Self { calls: times.len(), p50: ms(at(0.5)), p99: ms(at(0.99)), mean: ms(mean) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_times() {
        let times = Times::of((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!((times.calls, times.p50, times.p99, times.mean), (100, 50.0, 99.0, 50.5));
        let one = Times::of(vec![Duration::from_millis(7)]);
        assert_eq!((one.p50, one.p99), (7.0, 7.0));
    }

    #[test]
    fn quartiles_lie_between_neighbours() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]);
        assert_eq!((spread.min, spread.q1, spread.median, spread.q3, spread.max), (1.0, 1.75, 2.5, 3.25, 4.0));
        assert_eq!(Spread::of([]), Spread::default());
        assert_eq!(Spread::of([2.0]).map(|v| v * 10.0).text(1), "20.0 (20.0 to 20.0)");
    }
}
