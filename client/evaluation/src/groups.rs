//! Groups: FMR among strangers of one group and FNMR, at one threshold for everybody, and the spread between groups.
//!
//! Measures of the spread over the groups that are large enough: highest over lowest; highest minus lowest; highest over the
//! geometric mean (NIST IR 8429 on demographic differentials); the Gini coefficient with its correction for few groups,
//! n/(n−1)·Σ|x_i − x_j|/(2n²·mean) (GARBE, Howard et al. 2022, which NIST FRTE part 8 reports too). 0 and 1 mean equal and
//! as unequal as can be.

use rayon::prelude::*;
use serde::Serialize;

use crate::bootstrap::{Bootstrap, Interval, PerPerson, Rate};
use crate::verification;
use crate::{EvaluationError, People, Templates};

/// Groups of fewer people are left out of the spread.
pub const FEWEST_PEOPLE: usize = 20;
/// Groups with fewer expected false matches at the wanted FMR are left out of the spread of FMR: the rule of 3 of
/// ISO/IEC 19795-1 could not tell their rate from zero.
pub const FEWEST_EXPECTED: f64 = 3.0;
/// Groups of fewer mated pairs are left out of the spread of FNMR.
pub const FEWEST_MATED: u64 = 30;

/// The one threshold of everybody.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// The one at which all non-mated pairs, across groups too, have this FMR.
    AtFmr(f64),
    /// This cosine.
    Cosine(f64),
}

/// One group.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// People.
    pub people: usize,
    /// Templates.
    pub templates: usize,
    /// Pairs of different people of this group that match.
    pub fmr: Rate,
    /// Mated pairs that do not.
    pub fnmr: Rate,
    /// Too small for the spread of FMR.
    pub too_small_for_fmr: bool,
    /// Too small for the spread of FNMR.
    pub too_small_for_fnmr: bool,
}

/// How far rates of groups lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Groups that are large enough.
    pub groups: usize,
    /// Highest over lowest; `None` where the lowest is zero.
    pub max_over_min: Option<f64>,
    /// Its interval.
    pub max_over_min_interval: Option<Interval>,
    /// Highest minus lowest.
    pub max_minus_min: f64,
    /// Highest over the geometric mean; `None` where a rate is zero.
    pub max_over_geometric_mean: Option<f64>,
    /// Gini coefficient, 0 to 1.
    pub gini: f64,
    /// Its interval.
    pub gini_interval: Option<Interval>,
}

/// The result.
#[derive(Clone, Debug, Serialize)]
pub struct Groups {
    /// The one threshold of everybody.
    pub threshold: f64,
    /// The FMR over all non-mated pairs there.
    pub fmr: f64,
    /// FNMR over all mated pairs there.
    pub fnmr: f64,
    /// In the order of their names.
    pub groups: Vec<Group>,
    /// Between groups; `None` with fewer than two large enough.
    pub fmr_spread: Option<Spread>,
    /// The same.
    pub fnmr_spread: Option<Spread>,
    /// Resamples of the bootstrap.
    pub resamples: usize,
    /// Its seed.
    pub seed: u64,
}

/// Names and members of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    names: Vec<String>,
    rows: Vec<Vec<usize>>,
}

impl Membership {
    /// From the name of the group of each row.
    ///
    /// # Errors
    /// [`EvaluationError`] if a person is in two groups, or the numbers of rows differ.
    pub fn new<N: AsRef<str>>(people: &People, groups: &[N]) -> Result<Self, EvaluationError> {
        if groups.len() != people.of_row().len() {
            return Err(EvaluationError::Mismatch { what: "groups" });
        }
        let mut by_name = std::collections::BTreeMap::<&str, Vec<usize>>::new();
        for rows in people.rows() {
            let mut names = rows.iter().filter_map(|&r| groups.get(r)).map(AsRef::as_ref);
            let Some(name) = names.next() else { continue };
            if names.any(|other| other != name) {
                return Err(EvaluationError::TwoGroups);
            }
            by_name.entry(name).or_default().extend(rows);
        }
        for rows in by_name.values_mut() {
            rows.sort_unstable();
        }
        let (names, rows) = by_name.into_iter().map(|(name, rows)| (name.to_owned(), rows)).unzip();
        Ok(Self { names, rows })
    }

    /// How many groups.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The name of a group; empty if there is none of this number.
    #[must_use]
    pub fn name(&self, number: usize) -> &str {
        self.names.get(number).map_or("", String::as_str)
    }

    /// The rows of each group.
    #[must_use]
    pub fn rows(&self) -> &[Vec<usize>] {
        &self.rows
    }
}

/// What one group comes to, and its counts for the bootstrap.
struct Measured {
    people: People,
    /// False matches by pairs of people of the group.
    false_matches: Vec<(u32, u32)>,
    mated: Vec<PerPerson>,
    pairs: u64,
}

impl Measured {
    fn of(templates: &Templates, people: &People, rows: &[usize], threshold: f64) -> Self {
        let (templates, people) = (templates.select(rows), people.select(rows));
        let of = people.of_row();
        let keep = |kept: &mut Vec<(u32, u32)>, i: usize, j: usize, score: f32| {
            if f64::from(score) >= threshold && of[i] != of[j] {
                kept.push((of[i], of[j]));
            }
        };
        let join = |mut a: Vec<(u32, u32)>, b: Vec<(u32, u32)>| {
            a.extend(b);
            a
        };
        let false_matches = crate::scan::pairs(&templates, Vec::new, keep, join, &|_| {});
        let mated = verification::per_person(&templates, &people, threshold);
        Self { pairs: people.non_mated_count(), people, false_matches, mated }
    }

    /// FMR and FNMR under weights of the group's people.
    fn weighted(&self, weights: &[u32]) -> (f64, f64) {
        let weight = |person: u32| f64::from(weights[person as usize]);
        let own = || self.people.rows().iter().zip(weights).map(|(rows, &w)| rows.len() as f64 * f64::from(w));
        let pairs = 0.5 * (own().sum::<f64>().powi(2) - own().map(|x| x * x).sum::<f64>());
        let matches: f64 = self.false_matches.iter().map(|&(a, b)| weight(a) * weight(b)).sum();
        let mated = |of: fn(&PerPerson) -> u64| -> f64 {
            self.mated.iter().zip(weights).map(|(p, &w)| (of(p) * u64::from(w)) as f64).sum()
        };
        (matches / pairs, mated(|p| p.errors) / mated(|p| p.trials))
    }

    fn group(&self, name: &str, wanted: f64, rates: &[(f64, f64)]) -> Group {
        let interval = |of: fn(&(f64, f64)) -> f64| Interval::of(rates.iter().map(of).collect());
        let sum = |of: fn(&PerPerson) -> u64| self.mated.iter().map(of).sum::<u64>();
        let mated = sum(|p| p.trials);
        let with_mated = self.mated.iter().filter(|p| p.trials > 0).count() as u64;
        let people = self.people.len();
        Group {
            name: name.to_owned(),
            people,
            templates: self.people.of_row().len(),
            fmr: Rate::new(self.false_matches.len() as u64, self.pairs, people as u64, interval(|r| r.0)),
            fnmr: Rate::new(sum(|p| p.errors), mated, with_mated, interval(|r| r.1)),
            too_small_for_fmr: people < FEWEST_PEOPLE || (self.pairs as f64) * wanted < FEWEST_EXPECTED,
            too_small_for_fnmr: people < FEWEST_PEOPLE || mated < FEWEST_MATED,
        }
    }
}

/// How many pairs `done` will be told about by [`compare`], in all.
#[must_use]
pub fn steps(templates: usize) -> usize {
    templates * templates.saturating_sub(1) / 2
}

/// Evaluates; `done` is told how many pairs have been compared, [`steps`] in all.
///
/// # Errors
/// [`EvaluationError`] if lists do not belong together, or the FMR is out of range.
pub fn compare(
    templates: &Templates,
    people: &People,
    membership: &Membership,
    threshold: Threshold,
    bootstrap: Bootstrap,
    done: &(dyn Fn(usize) + Sync),
) -> Result<Groups, EvaluationError> {
    people.fit(templates)?;
    if membership.rows.iter().map(Vec::len).sum::<usize>() != templates.len() {
        return Err(EvaluationError::Mismatch { what: "groups" });
    }
    let all = verification::non_mated(templates, people, done);
    let threshold = match threshold {
        Threshold::AtFmr(fmr) if (0.0..1.0).contains(&fmr) => all.threshold(fmr).0,
        Threshold::AtFmr(_) => return Err(EvaluationError::Range { what: "the FMR" }),
        Threshold::Cosine(cosine) => cosine,
    };
    let fmr = all.at_least(threshold) as f64 / all.count().max(1) as f64;
    let measured: Vec<Measured> =
        membership.rows.iter().map(|rows| Measured::of(templates, people, rows, threshold)).collect();
    // Resamples draw the people of every group on their own, as groups are given and people are not.
    let rates: Vec<Vec<(f64, f64)>> = measured
        .iter()
        .zip(0u64..)
        .map(|(one, number)| {
            let seeded = Bootstrap { seed: bootstrap.seed.wrapping_add(number << 32), ..bootstrap };
            seeded.run(one.people.len(), |weights| one.weighted(weights))
        })
        .collect();
    let groups: Vec<Group> = measured
        .iter()
        .zip(&rates)
        .zip(&membership.names)
        .map(|((one, rates), name)| one.group(name, fmr, rates))
        .collect();
    let mated = verification::per_person(templates, people, threshold);
    let trials = mated.iter().map(|p| p.trials).sum::<u64>();
    let large_fmr: Vec<bool> = groups.iter().map(|g| !g.too_small_for_fmr).collect();
    let large_fnmr: Vec<bool> = groups.iter().map(|g| !g.too_small_for_fnmr).collect();
    Ok(Groups {
        threshold,
        fmr,
        fnmr: mated.iter().map(|p| p.errors).sum::<u64>() as f64 / trials.max(1) as f64,
        fmr_spread: spread(&groups.iter().map(|g| g.fmr.rate).collect::<Vec<_>>(), &large_fmr, &rates, |r| r.0),
        fnmr_spread: spread(&groups.iter().map(|g| g.fnmr.rate).collect::<Vec<_>>(), &large_fnmr, &rates, |r| r.1),
        groups,
        resamples: bootstrap.resamples,
        seed: bootstrap.seed,
    })
}

/// The spread of the large groups' rates, with intervals from their resamples.
fn spread(rates: &[f64], large: &[bool], resamples: &[Vec<(f64, f64)>], of: fn(&(f64, f64)) -> f64) -> Option<Spread> {
    let chosen = |values: Vec<f64>| -> Vec<f64> {
        values.into_iter().zip(large).filter(|(_, large)| **large).map(|(v, _)| v).collect()
    };
    let rates = chosen(rates.to_vec());
    if rates.len() < 2 {
        return None;
    }
    let count = resamples.first().map_or(0, Vec::len);
    let drawn: Vec<Vec<f64>> = (0..count)
        .into_par_iter()
        .map(|k| chosen(resamples.iter().map(|r| r.get(k).map_or(f64::NAN, of)).collect()))
        .collect();
    let interval = |of: fn(&[f64]) -> Option<f64>| Interval::of(drawn.iter().filter_map(|r| of(r)).collect());
    let (low, high) = range(&rates);
    Some(Spread {
        groups: rates.len(),
        max_over_min: ratio(&rates),
        // Where a resample's lowest rate is zero the ratio has no bound, and none is claimed.
        max_over_min_interval: if drawn.iter().all(|r| ratio(r).is_some()) { interval(ratio) } else { None },
        max_minus_min: high - low,
        max_over_geometric_mean: over_geometric_mean(&rates),
        gini: gini(&rates).unwrap_or(0.0),
        gini_interval: interval(gini),
    })
}

fn range(rates: &[f64]) -> (f64, f64) {
    rates.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &r| (low.min(r), high.max(r)))
}

fn ratio(rates: &[f64]) -> Option<f64> {
    let (low, high) = range(rates);
    (low > 0.0).then(|| high / low)
}

pub(crate) fn over_geometric_mean(rates: &[f64]) -> Option<f64> {
    let (low, high) = range(rates);
    let logarithms: f64 = rates.iter().map(|r| r.ln()).sum();
    (low > 0.0).then(|| high / (logarithms / rates.len() as f64).exp())
}

/// `None` where every rate is zero or one is not a number.
pub(crate) fn gini(rates: &[f64]) -> Option<f64> {
    let n = rates.len() as f64;
    let mean = rates.iter().sum::<f64>() / n;
    let differences: f64 = rates.iter().flat_map(|a| rates.iter().map(move |b| (a - b).abs())).sum();
    (mean > 0.0 && n > 1.0).then(|| n / (n - 1.0) * differences / (2.0 * n * n * mean))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::{Cause, crowd};

    const BOOTSTRAP: Bootstrap = Bootstrap { resamples: 200, seed: 3 };

    #[test]
    fn measures_of_spread_have_their_formulas() {
        let rates = [0.001, 0.002, 0.004];
        assert_eq!(ratio(&rates), Some(4.0));
        assert!((over_geometric_mean(&rates).unwrap() - 2.0).abs() < 1e-9);
        // Differences |x_i − x_j| over ordered pairs: 2·(1 + 3 + 2) = 12 thousandths; 12/(2·9·7/3) · 3/2.
        assert!((gini(&rates).unwrap() - 12.0 / 42.0 * 1.5).abs() < 1e-9);
        assert!((gini(&[0.0, 0.0, 1.0]).unwrap() - 1.0).abs() < 1e-9);
        assert!(gini(&[0.3, 0.3]).unwrap().abs() < 1e-9);
        assert_eq!((ratio(&[0.0, 1.0]), gini(&[0.0, 0.0])), (None, None));
    }

    #[test]
    fn rates_of_groups_equal_those_of_all_pairs_one_by_one() {
        let crowd = crowd(&Cause::SharedDirection.groups(60, 32), 2, 32, 0.8, 1);
        let names: Vec<String> = crowd.groups.iter().map(|g| format!("g{g}")).collect();
        let membership = Membership::new(&crowd.people, &names).unwrap();
        let at = Threshold::AtFmr(0.01);
        let result = compare(&crowd.templates, &crowd.people, &membership, at, BOOTSTRAP, &|_| {}).unwrap();
        assert!((result.fmr - 0.01).abs() < 0.0005);
        for (number, group) in result.groups.iter().enumerate() {
            let (mut matches, mut pairs, mut missed) = (0u64, 0u64, 0u64);
            let rows: Vec<usize> = (0..crowd.groups.len()).filter(|&r| crowd.groups[r] == number).collect();
            for &a in &rows {
                for &b in rows.iter().filter(|b| **b > a) {
                    let yes = crowd.templates.cosine(a, b).unwrap() >= result.threshold;
                    if crowd.people.of_row()[a] == crowd.people.of_row()[b] {
                        missed += u64::from(!yes);
                    } else {
                        pairs += 1;
                        matches += u64::from(yes);
                    }
                }
            }
            assert_eq!((group.people, group.fmr.trials, group.fnmr.trials), (60, pairs, 60));
            assert_eq!((group.fmr.errors, group.fnmr.errors), (matches, missed));
            let interval = group.fmr.interval.unwrap();
            assert!(interval.low <= group.fmr.rate && group.fmr.rate <= interval.high, "{group:?}");
        }
        let spread = result.fmr_spread.unwrap();
        assert!(spread.groups == 3 && spread.gini > 0.3 && spread.gini_interval.unwrap().low > 0.1, "{spread:?}");
        assert!(result.groups[2].fmr.rate > result.groups[0].fmr.rate);
    }

    #[test]
    fn small_groups_are_marked_and_left_out() {
        let crowd = crowd(&Cause::SharedDirection.groups(40, 32), 2, 32, 0.8, 1);
        // Ten people of the last group become a group of their own.
        let name = |row: usize| if row >= 220 { "few" } else { ["a", "b", "c"][crowd.groups[row]] };
        let names: Vec<&str> = (0..crowd.groups.len()).map(name).collect();
        let membership = Membership::new(&crowd.people, &names).unwrap();
        let at = Threshold::Cosine(0.4);
        let result = compare(&crowd.templates, &crowd.people, &membership, at, BOOTSTRAP, &|_| {}).unwrap();
        let few = result.groups.iter().find(|g| g.name == "few").unwrap();
        assert!(few.people == 10 && few.too_small_for_fmr && few.too_small_for_fnmr);
        assert_eq!(result.fmr_spread.unwrap().groups, 3);
        assert_eq!(result.threshold, 0.4);
    }

    #[test]
    fn a_person_in_two_groups_is_refused() {
        let people = People::new(["ann", "ann", "bo"]);
        assert_eq!(Membership::new(&people, &["x", "y", "y"]), Err(EvaluationError::TwoGroups));
        assert_eq!(Membership::new(&people, &["x", "x"]), Err(EvaluationError::Mismatch { what: "groups" }));
        assert_eq!(Membership::new(&people, &["y", "y", "x"]).unwrap().rows(), [vec![2], vec![0, 1]]);
    }
}
