//! What a coarse first stage loses and saves, measured on labelled embeddings.
//!
//! The first stage scores the first m coordinates alone, ⟨p, x⟩ over k < m, and keeps what reaches a coarse threshold. The
//! threshold is chosen on one half of the people so that the wanted share of their matches is kept, and everything that is
//! reported is measured on the other half. A match is a pair of images of one person whose full cosine reaches the
//! threshold of the decision: what the full scan would find.
//!
//! What is read: the m/d of the index that the first stage scans, and the rest of what holds candidates. What is opened
//! and finished are whole packed groups; so beside the ideal, where a candidate costs its own bytes, stands what
//! groups cost, where the share of groups with a candidate in them counts. Candidates are strangers that pass:
//! the person's own template, one in a small gallery as in a large one, would make a small gallery look worse.

use rayon::prelude::*;
use veilmatch_domain::{Embedding, Explain, Status};
use veilmatch_secret::{Label, Stream};

/// Images of one person: places in the list of embeddings. The first would be enrolled, the others are probes.
pub type Person = Vec<usize>;

/// What is to be found out.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The decision's threshold on the cosine.
    pub threshold: f64,
    /// The share of matches that the first stage must keep on the calibration half, 0 to 1.
    pub hit_rate: f64,
    /// The widths of the first stage.
    pub widths: Vec<usize>,
    /// What is subtracted from each coarse threshold so that noise of encryption loses nothing, as a cosine, one per
    /// width.
    pub margins: Vec<f64>,
    /// Templates in one packed group.
    pub templates_per_group: usize,
    /// Resamples of the bootstrap.
    pub resamples: usize,
    /// Seeds the bootstrap.
    pub seed: u64,
}

/// Why nothing was calibrated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// A half has no match to calibrate or to report on.
    #[error("the {half} half has no two images of one person whose cosine reaches the threshold")]
    NoMatches {
        /// Which half.
        half: &'static str,
    },
    /// A width that no first stage has.
    #[error("a first stage of {m} dimensions; it must have fewer than the {d} of the embeddings, and 1 at least")]
    Width {
        /// The width.
        m: usize,
        /// The dimension.
        d: usize,
    },
    /// Embeddings of different dimensions, or a place beyond their end.
    #[error("the embeddings and the people do not belong together")]
    Mixed,
}

impl Explain for CalibrationError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoMatches { .. } => "no-matches",
            Self::Width { .. } => "bad-width",
            Self::Mixed => "wrong-dimension",
        }
    }
    fn status(&self) -> Status {
        Status::InvalidArgument
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::NoMatches { .. } => "add people with several images, or lower the threshold",
            Self::Width { .. } => "choose other values for --m",
            Self::Mixed => "use embeddings of one model, and the labels that belong to them",
        }
    }
}

/// A 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// 2.5 % of the resamples are below.
    pub low: f64,
    /// 2.5 % of the resamples are above.
    pub high: f64,
}

/// What one width of the first stage comes to, on the half that it was not calibrated on.
#[derive(Clone, Debug, PartialEq)]
pub struct Coarse {
    /// m.
    pub m: usize,
    /// The coarse threshold, margin subtracted.
    pub threshold: f64,
    /// The share of matches that it keeps.
    pub recall: f64,
    /// Bootstrap over people of both halves, the threshold chosen anew each time.
    pub recall_interval: Interval,
    /// The smallest true recall that is compatible with this many misses at 95 % (one-sided, exact); for no miss about
    /// 1 − 3/n. A bootstrap cannot see what never happened.
    pub recall_at_least: f64,
    /// Strangers that pass as a share of the gallery: median over probes.
    pub candidates_median: f64,
    /// The same, 99th percentile.
    pub candidates_p99: f64,
    /// The same, mean.
    pub candidates_mean: f64,
    /// Bytes read as a share of the full scan's if a candidate costs its own bytes: mean over probes.
    pub read_ideal: f64,
    /// Bytes read as a share of the full scan's if a candidate costs its group: mean over probes.
    pub read_packed: f64,
}

/// The result.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// Matches in the half that thresholds are chosen on.
    pub calibration_matches: usize,
    /// Matches in the half that is reported.
    pub reported_matches: usize,
    /// People, and so templates, in the gallery of the half that is reported.
    pub gallery: usize,
    /// Probes in the half that is reported.
    pub probes: usize,
    /// One for each width, in the order of the settings.
    pub widths: Vec<Coarse>,
}

/// Splits people into two halves, at random by the seed.
#[must_use]
pub fn halves(mut people: Vec<Person>, seed: u64) -> (Vec<Person>, Vec<Person>) {
    let mut stream = Stream::public(Label::new("veilmatch/preselect/halves").number(seed).digest().0);
    for last in (1..people.len()).rev() {
        // The bias of the remainder is far below what any statistic here can see.
        people.swap(last, (stream.next_u64() % (last as u64 + 1)) as usize);
    }
    let reported = people.split_off(people.len() / 2);
    (people, reported)
}

/// Coarse scores of the matches of one person, by width.
type Matches = Vec<Vec<f64>>;

/// Calibrates on one half and measures on the other. `embeddings` are rotated already.
///
/// # Errors
/// [`CalibrationError`] if a half has no match, or widths and dimensions do not fit.
pub fn calibrate(
    embeddings: &[Embedding],
    calibration: &[Person],
    reported: &[Person],
    settings: &Settings,
) -> Result<Calibration, CalibrationError> {
    let d = embeddings.first().map_or(0, |e| e.values().len());
    let places = calibration.iter().chain(reported).flatten();
    if embeddings.iter().any(|e| e.values().len() != d) || places.into_iter().any(|&p| p >= embeddings.len()) {
        return Err(CalibrationError::Mixed);
    }
    if let Some(&m) = settings.widths.iter().find(|&&m| m == 0 || m >= d) {
        return Err(CalibrationError::Width { m, d });
    }
    let matches = |people: &[Person]| -> Vec<Matches> {
        people.par_iter().map(|person| matches_of(embeddings, person, settings)).collect()
    };
    let (calibrating, reporting) = (matches(calibration), matches(reported));
    let count = |all: &[Matches]| all.iter().map(Vec::len).sum::<usize>();
    for (half, all) in [("calibration", &calibrating), ("reported", &reporting)] {
        if count(all) == 0 {
            return Err(CalibrationError::NoMatches { half });
        }
    }
    let gallery: Vec<&Embedding> = reported.iter().filter_map(|p| embeddings.get(*p.first()?)).collect();
    let people = (0..).zip(reported.iter().filter(|p| !p.is_empty()));
    let probes: Vec<(usize, &Embedding)> = people
        .flat_map(|(own, person)| person.iter().skip(1).filter_map(move |&p| Some((own, embeddings.get(p)?))))
        .collect();
    let widths = settings.widths.iter().enumerate().map(|(place, &m)| {
        let margin = settings.margins.get(place).copied().unwrap_or_default();
        let all: Vec<&Matches> = calibrating.iter().collect();
        let threshold = coarse_threshold(&all, place, settings.hit_rate) - margin;
        let reporting_all: Vec<&Matches> = reporting.iter().collect();
        let (kept, total) = kept(&reporting_all, place, threshold);
        let rates: Vec<f64> =
            probes.par_iter().map(|&(own, probe)| candidate_rate(own, probe, &gallery, m, threshold)).collect();
        let share = m as f64 / d as f64;
        let mean = |of: &dyn Fn(f64) -> f64| rates.iter().map(|&r| of(r)).sum::<f64>() / rates.len().max(1) as f64;
        let touched = mean(&|rate| 1.0 - (1.0 - rate).powi(settings.templates_per_group as i32));
        Coarse {
            m,
            threshold,
            recall: kept as f64 / total as f64,
            recall_interval: bootstrap(&calibrating, &reporting, place, margin, settings),
            recall_at_least: lower_bound(total, total - kept),
            candidates_median: quantile(&rates, 0.5),
            candidates_p99: quantile(&rates, 0.99),
            candidates_mean: mean(&|rate| rate),
            read_ideal: share + mean(&|rate| rate) * (1.0 - share),
            read_packed: share + touched * (1.0 - share),
        }
    });
    Ok(Calibration {
        calibration_matches: count(&calibrating),
        reported_matches: count(&reporting),
        gallery: gallery.len(),
        probes: probes.len(),
        widths: widths.collect(),
    })
}

fn partial(a: &Embedding, b: &Embedding, m: usize) -> f64 {
    a.values().iter().zip(b.values()).take(m).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
}

fn matches_of(embeddings: &[Embedding], person: &Person, settings: &Settings) -> Matches {
    let images: Vec<&Embedding> = person.iter().filter_map(|&p| embeddings.get(p)).collect();
    let Some((enrolled, probes)) = images.split_first() else { return Vec::new() };
    probes
        .iter()
        .filter(|probe| partial(enrolled, probe, usize::MAX) >= settings.threshold)
        .map(|probe| settings.widths.iter().map(|&m| partial(enrolled, probe, m)).collect())
        .collect()
}

/// The highest threshold that loses no more matches than the hit rate allows.
fn coarse_threshold(people: &[&Matches], width: usize, hit_rate: f64) -> f64 {
    let mut scores: Vec<f64> =
        people.iter().flat_map(|matches| matches.iter()).filter_map(|scores| scores.get(width).copied()).collect();
    scores.sort_by(f64::total_cmp);
    let lost = ((1.0 - hit_rate) * scores.len() as f64 + 1e-9).floor() as usize;
    scores.get(lost.min(scores.len().saturating_sub(1))).copied().unwrap_or(-1.0)
}

/// Matches at or above a coarse threshold, and all.
fn kept(people: &[&Matches], width: usize, threshold: f64) -> (usize, usize) {
    let scores = || people.iter().flat_map(|matches| matches.iter()).filter_map(|scores| scores.get(width));
    (scores().filter(|s| **s >= threshold).count(), scores().count())
}

/// The share of templates other than the probe's `own` that reach a coarse threshold.
fn candidate_rate(own: usize, probe: &Embedding, gallery: &[&Embedding], m: usize, threshold: f64) -> f64 {
    let passes = |(place, template): (usize, &&Embedding)| place != own && partial(probe, template, m) >= threshold;
    let candidates = gallery.iter().enumerate().filter(|strangers| passes(*strangers)).count();
    candidates as f64 / gallery.len().saturating_sub(1).max(1) as f64
}

fn bootstrap(
    calibrating: &[Matches],
    reporting: &[Matches],
    width: usize,
    margin: f64,
    settings: &Settings,
) -> Interval {
    let recalls: Vec<f64> = (0..settings.resamples as u64)
        .into_par_iter()
        .filter_map(|resample| {
            let label = Label::new("veilmatch/preselect/bootstrap").number(settings.seed).number(resample);
            let mut stream = Stream::public(label.digest().0);
            let mut draw = |people: &'_ [Matches]| -> Vec<usize> {
                people.iter().map(|_| (stream.next_u64() % people.len() as u64) as usize).collect()
            };
            let (first, second) = (draw(calibrating), draw(reporting));
            let chosen: Vec<&Matches> = first.iter().filter_map(|&i| calibrating.get(i)).collect();
            let threshold = coarse_threshold(&chosen, width, settings.hit_rate) - margin;
            let chosen: Vec<&Matches> = second.iter().filter_map(|&i| reporting.get(i)).collect();
            let (kept, total) = kept(&chosen, width, threshold);
            (total > 0).then(|| kept as f64 / total as f64)
        })
        .collect();
    Interval { low: quantile(&recalls, 0.025), high: quantile(&recalls, 0.975) }
}

/// The smallest value that at least this share of the values does not exceed.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(place).copied().unwrap_or_default()
}

/// The recall r at which so few misses among n still have a probability of 5 % (Clopper-Pearson, one-sided).
fn lower_bound(n: usize, misses: usize) -> f64 {
    let at_most = |recall: f64| -> f64 {
        // Σ_{i ≤ misses} C(n, i)·(1−r)^i·r^(n−i), in logarithms.
        let mut log_binomial = 0.0;
        let mut sum = 0.0;
        for i in 0..=misses {
            if i > 0 {
                log_binomial += ((n - i + 1) as f64).ln() - (i as f64).ln();
            }
            sum += (log_binomial + i as f64 * (1.0 - recall).ln() + (n - i) as f64 * recall.ln()).exp();
        }
        sum
    };
    if misses >= n {
        return 0.0;
    }
    let (mut low, mut high) = (1e-12, 1.0 - 1e-12);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if at_most(middle) < 0.05 { low = middle } else { high = middle }
    }
    low
}

impl Coarse {
    /// Whether the first stage saves at least a third of the bytes in packed groups. Below that, the second pass through
    /// check and opening costs about as much as it saves.
    #[must_use]
    pub fn pays(&self) -> bool {
        self.read_packed <= 2.0 / 3.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotation::tests::uneven;

    /// Two images each of people in `d` dimensions: the second is turned towards a stranger.
    fn people(count: usize, d: usize) -> (Vec<Embedding>, Vec<Person>) {
        let firsts = uneven(count, d, 5);
        let others = uneven(count, d, 6);
        let mut embeddings = firsts.clone();
        for (a, b) in firsts.iter().zip(&others) {
            let mixed = a.values().iter().zip(b.values()).map(|(x, y)| 0.8 * x + 0.6 * y).collect();
            embeddings.push(Embedding::normalised(mixed).unwrap());
        }
        (embeddings, (0..count).map(|i| vec![i, count + i]).collect())
    }

    fn settings(widths: &[usize], hit_rate: f64) -> Settings {
        Settings {
            threshold: 0.5,
            hit_rate,
            widths: widths.to_vec(),
            margins: vec![0.001; widths.len()],
            templates_per_group: 512,
            resamples: 200,
            seed: 1,
        }
    }

    #[test]
    fn a_hit_rate_of_one_keeps_every_match_of_the_half_that_it_was_chosen_on() {
        let (embeddings, people) = people(300, 64);
        let (first, _) = halves(people, 1);
        let result = calibrate(&embeddings, &first, &first, &settings(&[16, 32], 1.0)).unwrap();
        assert!(result.widths.iter().all(|w| w.recall == 1.0), "{result:?}");
        assert_eq!((result.gallery, result.probes), (150, 150));
        // Half of the matches may be lost at a hit rate of one half, and about half are.
        let half = calibrate(&embeddings, &first, &first, &settings(&[16], 0.5)).unwrap();
        assert!((half.widths[0].recall - 0.5).abs() < 0.02, "{half:?}");
    }

    #[test]
    fn numbers_are_those_of_a_plain_count() {
        let (embeddings, people) = people(200, 32);
        let (first, second) = halves(people, 2);
        let result = calibrate(&embeddings, &first, &second, &settings(&[16], 1.0)).unwrap();
        let coarse = &result.widths[0];
        let dot = |a: usize, b: usize, m: usize| -> f64 {
            embeddings[a].values()[..m].iter().zip(embeddings[b].values()).map(|(x, y)| f64::from(x * y)).sum()
        };
        let mut lowest = f64::MAX;
        for person in first.iter().filter(|p| dot(p[0], p[1], 32) >= 0.5) {
            lowest = lowest.min(dot(person[0], person[1], 16));
        }
        assert!((coarse.threshold - (lowest - 0.001)).abs() < 1e-6, "{} {lowest}", coarse.threshold);
        let mut rates = Vec::new();
        for probe in &second {
            let strangers = second.iter().filter(|p| *p != probe);
            let hits = strangers.filter(|p| dot(probe[1], p[0], 16) >= coarse.threshold).count();
            rates.push(hits as f64 / (second.len() - 1) as f64);
        }
        let mean = rates.iter().sum::<f64>() / rates.len() as f64;
        assert!((coarse.candidates_mean - mean).abs() < 1e-9);
        assert!((coarse.read_ideal - (0.5 + mean * 0.5)).abs() < 1e-9);
        assert!(coarse.read_packed >= coarse.read_ideal && coarse.read_packed <= 1.0);
        assert!(coarse.recall_interval.low <= coarse.recall && coarse.recall <= coarse.recall_interval.high + 1e-9);
        assert!(coarse.recall_at_least < coarse.recall);
    }

    #[test]
    fn bounds_are_exact() {
        assert!((lower_bound(100, 0) - 0.05f64.powf(0.01)).abs() < 1e-9);
        // From tables: 95 % one-sided for 1 miss of 20 is 0.7839.
        assert!((lower_bound(20, 1) - 0.7839).abs() < 1e-4, "{}", lower_bound(20, 1));
        assert_eq!(lower_bound(3, 3), 0.0);
    }

    #[test]
    fn halves_are_a_partition_that_the_seed_decides() {
        let people: Vec<Person> = (0..101).map(|i| vec![i]).collect();
        let (a, b) = halves(people.clone(), 3);
        assert_eq!((a.len(), b.len()), (50, 51));
        let mut together: Vec<_> = a.iter().chain(&b).cloned().collect();
        together.sort();
        assert_eq!(together, people);
        assert_eq!(halves(people.clone(), 3), (a.clone(), b));
        assert_ne!(halves(people, 4).0, a);
    }

    #[test]
    fn what_cannot_be_calibrated_is_refused() {
        let (embeddings, people) = people(40, 16);
        let (first, second) = halves(people, 1);
        let run =
            |settings: &Settings, second: &[Person]| calibrate(&embeddings, &first, second, settings).unwrap_err();
        assert_eq!(run(&settings(&[16], 1.0), &second), CalibrationError::Width { m: 16, d: 16 });
        assert_eq!(run(&settings(&[0], 1.0), &second), CalibrationError::Width { m: 0, d: 16 });
        let single: Vec<Person> = second.iter().map(|p| vec![p[0]]).collect();
        assert_eq!(run(&settings(&[8], 1.0), &single), CalibrationError::NoMatches { half: "reported" });
        assert_eq!(run(&settings(&[8], 1.0), &[vec![80]]), CalibrationError::Mixed);
    }
}
