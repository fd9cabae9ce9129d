//! Open-set identification (1:N): FNIR at given FPIR, and rank 1, by gallery size (NIST FRTE 1:N).
//!
//! A draw puts people in a random order and takes one random image of each as the template. The gallery of size n holds the
//! first n of them, so galleries of one draw are nested. Further images of enrolled people are mated searches; every image of
//! everybody else is a non-mated search. Searches of all draws are pooled, as an operator would have one threshold.
//!
//! - FPIR(n, T): the share of non-mated searches that return anybody at or above T.
//! - FNIR(n, 1, T): the share of mated searches that do not return the mate at rank 1 at or above T: the decision `best`.
//! - FNIR(n, n, T): the share whose mate is below T, whatever is above it: the decision `matches` without a cap.
//! - rank-1 miss rate: FNIR(n, 1, −∞).

use rayon::prelude::*;
use serde::Serialize;

use crate::bootstrap::{Bootstrap, Interval, Rate, shuffle, stream};
use crate::scan;
use crate::verification::DetPoint;
use crate::{EvaluationError, People, Templates};

/// Points of a DET curve in a decade of FPIR.
const PER_DECADE: i32 = 8;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Gallery sizes, in people.
    pub sizes: Vec<usize>,
    /// FPIRs to find thresholds for, each between 0 and 1.
    pub fpir: Vec<f64>,
    /// How many draws.
    pub draws: usize,
    /// How intervals are made; its seed decides on the draws too.
    pub bootstrap: Bootstrap,
}

/// A threshold in a gallery of one size.
#[derive(Clone, Debug, Serialize)]
pub struct OperatingPoint {
    /// The FPIR that was asked for.
    pub wanted_fpir: f64,
    /// The cosine from which a candidate is returned: the lowest that does not exceed the FPIR.
    pub threshold: f64,
    /// Non-mated searches that return somebody.
    pub fpir: Rate,
    /// Whether fewer than 30 of them do: the threshold is a guess then.
    pub few: bool,
    /// Mated searches without the mate at rank 1 and above the threshold; the interval chooses the threshold anew.
    pub fnir: Rate,
    /// Mated searches whose mate is below the threshold.
    pub fnir_any_rank: Rate,
}

/// One gallery size.
#[derive(Clone, Debug, Serialize)]
pub struct Gallery {
    /// People enrolled.
    pub size: usize,
    /// Mated searches of all draws.
    pub mated_searches: u64,
    /// Non-mated searches of all draws.
    pub non_mated_searches: u64,
    /// Mated searches whose mate is not the nearest.
    pub rank1_miss: Rate,
    /// One for each FPIR of the settings.
    pub points: Vec<OperatingPoint>,
    /// FNIR(n, 1, T) against FPIR(n, T), FPIR ascending.
    pub det: Vec<DetPoint>,
}

/// The result.
#[derive(Clone, Debug, Serialize)]
pub struct Identification {
    /// Templates.
    pub templates: usize,
    /// People.
    pub people: usize,
    /// Draws.
    pub draws: usize,
    /// One for each size.
    pub galleries: Vec<Gallery>,
    /// Resamples of the bootstrap.
    pub resamples: usize,
    /// Its seed, and the draws'.
    pub seed: u64,
}

/// A search with the mate in the gallery.
#[derive(Clone, Copy)]
struct Mated {
    person: u32,
    mate: f32,
    /// The highest of the others.
    other: f32,
}

/// A search without one.
#[derive(Clone, Copy)]
struct NonMated {
    person: u32,
    highest: f32,
}

/// One draw: searches by gallery size.
type Searches = Vec<(Vec<Mated>, Vec<NonMated>)>;

/// A drawn order: the person and the row of the template, by place in the gallery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draw {
    /// People in the gallery's order.
    pub people: Vec<u32>,
    /// The row of the template of each.
    pub templates: Vec<usize>,
}

impl Draw {
    /// The draw of this number: the order of people, and one image of each.
    #[must_use]
    pub fn new(people: &People, seed: u64, number: u64) -> Self {
        let mut stream = stream("veilmatch/evaluation/draw", seed, number);
        let mut order: Vec<u32> = (0u32..).take(people.len()).collect();
        shuffle(&mut order, &mut stream);
        let choose = |&person: &u32| {
            let rows = &people.rows()[person as usize];
            rows[(stream.next_u64() % rows.len() as u64) as usize]
        };
        let templates = order.iter().map(choose).collect();
        Self { people: order, templates }
    }
}

/// How many searches `done` will be told about by [`identify`], in all.
#[must_use]
pub fn steps(templates: usize, settings: &Settings) -> usize {
    templates * settings.draws
}

/// Evaluates; `done` is told how many searches have been made, [`steps`] in all.
///
/// # Errors
/// [`EvaluationError`] if a size leaves no mated or no non-mated searches, or numbers are out of range.
pub fn identify(
    templates: &Templates,
    people: &People,
    settings: &Settings,
    done: &(dyn Fn(usize) + Sync),
) -> Result<Identification, EvaluationError> {
    people.fit(templates)?;
    if settings.fpir.iter().any(|f| !(0.0..1.0).contains(f)) {
        return Err(EvaluationError::Range { what: "an FPIR" });
    }
    if settings.draws == 0 || settings.sizes.is_empty() {
        return Err(EvaluationError::Range { what: "the number of draws or sizes" });
    }
    if let Some(&size) = settings.sizes.iter().find(|&&s| s == 0 || s >= people.len()) {
        return Err(EvaluationError::TooFew {
            what: "people",
            found: people.len(),
            needed: size.saturating_add(1).max(2),
        });
    }
    let mut pooled: Searches = settings.sizes.iter().map(|_| (Vec::new(), Vec::new())).collect();
    for number in 0..settings.draws as u64 {
        let draw = Draw::new(people, settings.bootstrap.seed, number);
        for (pool, one) in pooled.iter_mut().zip(search(templates, people, &draw, &settings.sizes, done)) {
            pool.0.extend(one.0);
            pool.1.extend(one.1);
        }
    }
    let galleries = settings
        .sizes
        .par_iter()
        .zip(pooled)
        .map(|(&size, (mated, non_mated))| gallery(size, people.len(), mated, non_mated, settings))
        .collect::<Result<_, _>>()?;
    Ok(Identification {
        templates: templates.len(),
        people: people.len(),
        draws: settings.draws,
        galleries,
        resamples: settings.bootstrap.resamples,
        seed: settings.bootstrap.seed,
    })
}

/// All searches of one draw in galleries of all sizes.
fn search(
    templates: &Templates,
    people: &People,
    draw: &Draw,
    sizes: &[usize],
    done: &(dyn Fn(usize) + Sync),
) -> Searches {
    let largest = sizes.iter().copied().max().unwrap_or(0);
    let gallery = templates.select(draw.templates.get(..largest).unwrap_or(&draw.templates));
    let mut place = vec![usize::MAX; people.len()];
    draw.people.iter().enumerate().for_each(|(at, &person)| place[person as usize] = at);
    let found = scan::searches(
        templates,
        &gallery,
        |probe, scores| {
            let person = people.of_row()[probe];
            let own = place[person as usize];
            let is_template = draw.templates.get(own) == Some(&probe);
            sizes
                .iter()
                .map(|&size| {
                    let enrolled = own < size;
                    let others = scores.iter().take(size).enumerate().filter(|(at, _)| *at != own);
                    let other = others.map(|(_, &score)| score).fold(f32::NEG_INFINITY, f32::max);
                    match (enrolled, is_template) {
                        (true, true) => (None, None),
                        (true, false) => (Some(Mated { person, mate: scores[own], other }), None),
                        (false, _) => (None, Some(NonMated { person, highest: other })),
                    }
                })
                .collect::<Vec<_>>()
        },
        done,
    );
    let mut searches: Searches = sizes.iter().map(|_| (Vec::new(), Vec::new())).collect();
    for (mated, non_mated, pool) in
        found.into_iter().flat_map(|by_size| by_size.into_iter().enumerate()).map(|(k, (m, n))| (m, n, k))
    {
        searches[pool].0.extend(mated);
        searches[pool].1.extend(non_mated);
    }
    searches
}

fn gallery(
    size: usize,
    people: usize,
    mut mated: Vec<Mated>,
    mut non_mated: Vec<NonMated>,
    settings: &Settings,
) -> Result<Gallery, EvaluationError> {
    for (what, found) in [("mated searches", mated.len()), ("non-mated searches", non_mated.len())] {
        if found == 0 {
            return Err(EvaluationError::TooFew { what, found, needed: 1 });
        }
    }
    // Best first: by what makes the mate come back at rank 1, which is never if another is as near.
    let rank1 = |m: &Mated| if m.mate > m.other { m.mate } else { f32::NEG_INFINITY };
    mated.sort_unstable_by(|a, b| rank1(b).total_cmp(&rank1(a)));
    non_mated.sort_unstable_by(|a, b| b.highest.total_cmp(&a.highest));
    let hits: Vec<(f32, u32)> = mated.iter().map(|m| (rank1(m), m.person)).collect();
    let mut any_rank: Vec<(f32, u32)> = mated.iter().map(|m| (m.mate, m.person)).collect();
    any_rank.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let highest: Vec<(f32, u32)> = non_mated.iter().map(|n| (n.highest, n.person)).collect();

    let thresholds: Vec<f64> = settings.fpir.iter().map(|&fpir| threshold(&highest, fpir)).collect();
    let count = settings.fpir.len();
    let intervals = settings.bootstrap.intervals(people, 3 * count + 1, |weights| {
        let mut out = Vec::with_capacity(3 * count + 1);
        for (&fpir, &fixed) in settings.fpir.iter().zip(&thresholds) {
            out.push(1.0 - missed(&highest, fixed, weights));
            let chosen = weighted_threshold(&highest, fpir, weights);
            out.push(missed(&hits, chosen, weights));
            out.push(missed(&any_rank, chosen, weights));
        }
        out.push(missed(&hits, -2.0, weights));
        out
    });
    let (mated_people, non_mated_people) = (distinct(&hits), distinct(&highest));
    let below = |list: &[(f32, u32)], t: f64| list.iter().filter(|s| f64::from(s.0) < t).count() as u64;
    let rate = |errors, list: &[(f32, u32)], people, interval: Option<&Option<Interval>>| {
        Rate::new(errors, list.len() as u64, people, interval.copied().flatten())
    };
    let points = settings
        .fpir
        .iter()
        .zip(&thresholds)
        .enumerate()
        .map(|(k, (&wanted_fpir, &threshold))| {
            let returned = highest.len() as u64 - below(&highest, threshold);
            OperatingPoint {
                wanted_fpir,
                threshold,
                fpir: rate(returned, &highest, non_mated_people, intervals.get(3 * k)),
                few: returned < 30,
                fnir: rate(below(&hits, threshold), &hits, mated_people, intervals.get(3 * k + 1)),
                fnir_any_rank: rate(below(&any_rank, threshold), &any_rank, mated_people, intervals.get(3 * k + 2)),
            }
        })
        .collect();
    Ok(Gallery {
        size,
        mated_searches: hits.len() as u64,
        non_mated_searches: highest.len() as u64,
        rank1_miss: rate(below(&hits, -2.0), &hits, mated_people, intervals.last()),
        points,
        det: det(&highest, &hits),
    })
}

fn distinct(list: &[(f32, u32)]) -> u64 {
    let mut people: Vec<u32> = list.iter().map(|s| s.1).collect();
    people.sort_unstable();
    people.dedup();
    people.len() as u64
}

/// The lowest threshold that at most this share of a descending list reaches.
fn threshold(highest: &[(f32, u32)], share: f64) -> f64 {
    let allowed = (share * highest.len() as f64).floor() as usize;
    match highest.get(allowed) {
        // Just above the first score that is one too many.
        Some(first) => f64::from(first.0.next_up()),
        None => -1.0,
    }
}

fn weighted_threshold(highest: &[(f32, u32)], share: f64, weights: &[u32]) -> f64 {
    let all: f64 = highest.iter().map(|s| f64::from(weights[s.1 as usize])).sum();
    let mut reached = 0.0;
    for (score, person) in highest {
        reached += f64::from(weights[*person as usize]);
        if reached > share * all {
            return f64::from(score.next_up());
        }
    }
    f64::NAN
}

/// The weighted share of a descending list below a threshold; not a number where the threshold is none.
fn missed(list: &[(f32, u32)], threshold: f64, weights: &[u32]) -> f64 {
    if threshold.is_nan() {
        return f64::NAN;
    }
    let (mut below, mut all) = (0.0, 0.0);
    for (score, person) in list {
        let weight = f64::from(weights[*person as usize]);
        all += weight;
        if f64::from(*score) < threshold {
            below += weight;
        }
    }
    below / all
}

fn det(highest: &[(f32, u32)], hits: &[(f32, u32)]) -> Vec<DetPoint> {
    let decades = (highest.len() as f64).log10().floor() as i32;
    let mut points: Vec<DetPoint> = (0..=decades * PER_DECADE)
        .map(|k| {
            let threshold = threshold(highest, 10f64.powf(-f64::from(k) / f64::from(PER_DECADE)));
            let share = |list: &[(f32, u32)]| {
                list.partition_point(|s| f64::from(s.0) >= threshold) as f64 / list.len().max(1) as f64
            };
            DetPoint { threshold, false_positive: share(highest), false_negative: 1.0 - share(hits) }
        })
        .filter(|p| p.false_positive > 0.0)
        .collect();
    points.reverse();
    points.dedup_by(|a, b| a.threshold == b.threshold);
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::crowd;

    fn settings(sizes: &[usize], draws: usize) -> Settings {
        let bootstrap = Bootstrap { resamples: 100, seed: 4 };
        Settings { sizes: sizes.to_vec(), fpir: vec![0.1, 0.01], draws, bootstrap }
    }

    #[test]
    fn searches_equal_those_made_one_by_one() {
        let (templates, people) = crowd(80, 3, 24, 0.8, 2);
        let settings = settings(&[20, 50], 2);
        let result = identify(&templates, &people, &settings, &|_| {}).unwrap();
        for (gallery, &size) in result.galleries.iter().zip(&settings.sizes) {
            let (mut hits, mut misses, mut highest) = (Vec::new(), 0u64, Vec::new());
            for number in 0..2 {
                let draw = Draw::new(&people, 4, number);
                let enrolled = &draw.templates[..size];
                for probe in (0..templates.len()).filter(|p| !enrolled.contains(p)) {
                    let person = people.of_row()[probe];
                    let mut ranked: Vec<(f64, u32)> =
                        (0..size).map(|g| (templates.cosine(probe, enrolled[g]).unwrap(), draw.people[g])).collect();
                    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
                    if draw.people[..size].contains(&person) {
                        hits.push(if ranked[0].1 == person { ranked[0].0 } else { -9.0 });
                        misses += u64::from(ranked[0].1 != person);
                    } else {
                        highest.push(ranked[0].0);
                    }
                }
            }
            assert_eq!((gallery.mated_searches, gallery.non_mated_searches), (hits.len() as u64, highest.len() as u64));
            assert_eq!(gallery.rank1_miss.errors, misses);
            assert_eq!(hits.len(), 2 * 2 * size, "two further images each");
            for point in &gallery.points {
                // A probe may have the same nearest neighbour in both draws: as many as allowed, or all ties would be in.
                let above = |t: f64| highest.iter().filter(|s| **s >= t).count();
                let allowed = (point.wanted_fpir * highest.len() as f64).floor() as usize;
                assert!(above(point.threshold + 1e-6) <= allowed && above(point.threshold - 1e-6) > allowed);
                let missed = hits.iter().filter(|s| **s < point.threshold).count() as f64;
                assert!((point.fnir.errors as f64 - missed).abs() <= 2.0, "{missed} {point:?}");
                assert!(point.fnir_any_rank.errors <= point.fnir.errors);
                assert!(point.fnir.interval.unwrap().holds(point.fnir.rate));
            }
        }
        let [small, large] = &result.galleries[..] else { panic!("two sizes") };
        assert!(small.rank1_miss.rate <= large.rank1_miss.rate);
        assert!(small.points[0].threshold < large.points[0].threshold);
        assert!(large.det.windows(2).all(|w| w[0].false_negative >= w[1].false_negative));
    }

    #[test]
    fn draws_are_seeded_and_nested() {
        let (_, people) = crowd(30, 2, 16, 0.8, 2);
        let draw = Draw::new(&people, 1, 0);
        assert_eq!(draw, Draw::new(&people, 1, 0));
        assert_ne!(draw, Draw::new(&people, 1, 1));
        assert_ne!(draw, Draw::new(&people, 2, 0));
        assert!(draw.people.iter().zip(&draw.templates).all(|(&p, &row)| people.of_row()[row] == p));
    }

    #[test]
    fn galleries_of_everybody_are_refused() {
        let (templates, people) = crowd(30, 2, 16, 0.8, 2);
        let run = |sizes: &[usize], draws| identify(&templates, &people, &settings(sizes, draws), &|_| {}).map(|_| ());
        assert_eq!(run(&[30], 1).unwrap_err(), EvaluationError::TooFew { what: "people", found: 30, needed: 31 });
        assert!(run(&[0], 1).is_err() && run(&[], 1).is_err() && run(&[10], 0).is_err());
        assert!(run(&[29], 1).is_ok());
    }
}
