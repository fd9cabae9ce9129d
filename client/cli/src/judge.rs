//! The plaintext oracle and the rules by which an answer of the encrypted protocol counts as equal to it.
//!
//! Scores under encryption carry noise of a predicted standard deviation σ, so two answers may differ honestly where a
//! plaintext score lies close to the threshold. The band is five σ:
//!
//! - `verify`, and `matches` slot by slot: a difference is excused if the slot's score lies within 5σ of the threshold.
//! - `exists`: excused if the highest score lies within 5σ of the threshold; it alone decides.
//! - `best`: naming nobody is excused like `exists`; naming somebody is excused if that score is no lower than 5σ below
//!   the threshold and no lower than 5√2·σ below the highest (a difference of two noisy scores).
//! - "too many": excused if so many slots lie in the band that the cap may have been passed, or not.
//!
//! Anything else that differs is *outside the band*, and so are answers that no noise explains: subjects that are not
//! enrolled, one subject twice, more matches than were allowed, an answer to another question.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;

use veilmatch_domain::{Decision, Embedding, EmbeddingError, Outcome, Query, SubjectId};

/// Half the width of the band in standard deviations.
pub const BAND: f64 = 5.0;

/// How many decisions were judged, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Decisions judged; `matches` counts once per slot.
    pub decisions: u64,
    /// Decisions that differ from the plaintext one, `outside_band` included.
    pub differing: u64,
    /// Decisions that differ and that noise does not explain.
    pub outside_band: u64,
    /// Decisions whose deciding score lies inside the band, whether they differ or not.
    pub in_band: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.decisions += other.decisions;
        self.differing += other.differing;
        self.outside_band += other.outside_band;
        self.in_band += other.in_band;
    }
}

impl Tally {
    /// One decision. `excused`: whether noise explains a difference; `near`: whether the deciding score is in the band.
    fn one(differs: bool, excused: bool, near: bool) -> Self {
        Self {
            decisions: 1,
            differing: u64::from(differs),
            outside_band: u64::from(differs && !excused),
            in_band: u64::from(near),
        }
    }

    /// A decision that no noise explains.
    #[must_use]
    pub fn wrong() -> Self {
        Self::one(true, false, false)
    }

    /// A decision that is right and that no noise could have changed.
    #[must_use]
    pub fn right() -> Self {
        Self::one(false, true, false)
    }
}

/// Everybody who is enrolled, in plaintext.
#[derive(Debug, Default)]
pub struct Oracle {
    members: BTreeMap<SubjectId, Embedding>,
}

/// A probe's cosine to everybody who is enrolled. Never printed.
pub struct Scores {
    by_subject: BTreeMap<SubjectId, f64>,
    highest: f64,
}

impl Oracle {
    /// Enrols.
    pub fn enroll(&mut self, people: &[(SubjectId, Embedding)]) {
        self.members.extend(people.iter().cloned());
    }

    /// Erases.
    pub fn erase(&mut self, subject: &SubjectId) {
        self.members.remove(subject);
    }

    /// Scores of a probe.
    ///
    /// # Errors
    /// [`EmbeddingError::WrongDimension`].
    pub fn scores(&self, probe: &Embedding) -> Result<Scores, EmbeddingError> {
        let mut by_subject = BTreeMap::new();
        let mut highest = f64::NEG_INFINITY;
        for (subject, member) in &self.members {
            let score = probe.cosine(member)?;
            highest = highest.max(score);
            by_subject.insert(subject.clone(), score);
        }
        Ok(Scores { by_subject, highest })
    }
}

/// Judges one score against a threshold: the decision of an answer that says whether it is reached.
#[must_use]
pub fn bit(answer: bool, score: f64, threshold: f64, noise_std: f64) -> Tally {
    let near = (score - threshold).abs() <= BAND * noise_std;
    Tally::one(answer != (score >= threshold), near, near)
}

impl Scores {
    /// Judges an answer; `noise_std` is σ.
    #[must_use]
    pub fn judge(&self, query: &Query, outcome: &Outcome, noise_std: f64) -> Tally {
        let threshold = query.threshold.cosine();
        match (&query.decision, outcome) {
            (Decision::Verify { subject }, Outcome::Verify(answer)) => match self.by_subject.get(subject) {
                Some(score) => bit(*answer, *score, threshold, noise_std),
                None => Tally::wrong(),
            },
            (Decision::Exists, Outcome::Exists(answer)) => bit(*answer, self.highest, threshold, noise_std),
            (Decision::Best, Outcome::Best(answer)) => self.best(answer.as_ref(), threshold, noise_std),
            (Decision::Matches { max_matches }, Outcome::Matches(named)) => {
                self.matches(named, usize::from(*max_matches), threshold, noise_std)
            }
            (Decision::Matches { max_matches }, Outcome::TooMany) => {
                self.too_many(usize::from(*max_matches), threshold, noise_std)
            }
            _ => Tally::wrong(),
        }
    }

    fn count_from(&self, score: f64) -> usize {
        self.by_subject.values().filter(|s| **s >= score).count()
    }

    fn best(&self, answer: Option<&SubjectId>, threshold: f64, noise_std: f64) -> Tally {
        let near = (self.highest - threshold).abs() <= BAND * noise_std;
        let Some(subject) = answer else { return bit(false, self.highest, threshold, noise_std) };
        let Some(&score) = self.by_subject.get(subject) else { return Tally::wrong() };
        let differs = score < self.highest || score < threshold;
        let lowest = (threshold - BAND * noise_std).max(self.highest - BAND * noise_std * std::f64::consts::SQRT_2);
        let rivals = self.count_from(self.highest - BAND * noise_std * std::f64::consts::SQRT_2);
        Tally::one(differs, score >= lowest, near || rivals > 1)
    }

    fn matches(&self, named: &[SubjectId], allowed: usize, threshold: f64, noise_std: f64) -> Tally {
        let mut total = Tally::default();
        let set: BTreeSet<_> = named.iter().collect();
        for (subject, score) in &self.by_subject {
            total += bit(set.contains(subject), *score, threshold, noise_std);
        }
        let strangers = set.iter().filter(|s| !self.by_subject.contains_key(**s)).count();
        let repeated = named.len() - set.len();
        let beyond = usize::from(named.len() > allowed);
        for _ in 0..strangers + repeated + beyond {
            total += Tally::wrong();
        }
        total
    }

    fn too_many(&self, allowed: usize, threshold: f64, noise_std: f64) -> Tally {
        let band = BAND * noise_std;
        let possibly = self.count_from(threshold - band) > allowed;
        let surely = self.count_from(threshold + band) > allowed;
        Tally::one(self.count_from(threshold) <= allowed, possibly, possibly && !surely)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::subject;
    use veilmatch_domain::Threshold;

    const SIGMA: f64 = 0.001;

    fn scores(list: &[(&str, f64)]) -> Scores {
        let by_subject: BTreeMap<_, _> = list.iter().map(|(name, score)| (subject(name), *score)).collect();
        let highest = by_subject.values().copied().fold(f64::NEG_INFINITY, f64::max);
        Scores { by_subject, highest }
    }

    /// (decisions, differing, outside the band) at threshold 0.4.
    fn judged(scores: &Scores, decision: Decision, outcome: &Outcome) -> (u64, u64, u64) {
        let query = Query::new(decision, Threshold::new(0.4).unwrap());
        let tally = scores.judge(&query, outcome, SIGMA);
        (tally.decisions, tally.differing, tally.outside_band)
    }

    fn named(names: &[&str]) -> Outcome {
        Outcome::Matches(names.iter().map(|n| subject(n)).collect())
    }

    #[test]
    fn verify_is_excused_inside_the_band_only() {
        let verify = |s: &str| Decision::Verify { subject: subject(s) };
        let all = scores(&[("far", 0.41), ("near", 0.404), ("below", 0.396), ("low", 0.1)]);
        for (name, honest, excused) in
            [("far", true, false), ("near", true, true), ("below", false, true), ("low", false, false)]
        {
            assert_eq!(judged(&all, verify(name), &Outcome::Verify(honest)), (1, 0, 0), "{name}");
            assert_eq!(judged(&all, verify(name), &Outcome::Verify(!honest)), (1, 1, u64::from(!excused)), "{name}");
        }
        assert_eq!(judged(&all, verify("nobody"), &Outcome::Verify(false)), (1, 1, 1));
        assert_eq!(judged(&all, verify("far"), &Outcome::Exists(true)), (1, 1, 1));
    }

    #[test]
    fn the_highest_score_decides_exists() {
        let exists = |s: &[(&str, f64)], bit| judged(&scores(s), Decision::Exists, &Outcome::Exists(bit));
        assert_eq!(exists(&[("a", 0.5), ("b", 0.401)], false), (1, 1, 1));
        assert_eq!(exists(&[("a", 0.404), ("b", 0.1)], false), (1, 1, 0));
        assert_eq!(exists(&[("a", 0.39), ("b", 0.1)], true), (1, 1, 1));
        assert_eq!(exists(&[("a", 0.39)], false), (1, 0, 0));
    }

    #[test]
    fn best_is_excused_for_close_rivals_only() {
        let all = scores(&[("a", 0.5), ("b", 0.4935), ("c", 0.492)]);
        let best = |name: Option<&str>| judged(&all, Decision::Best, &Outcome::Best(name.map(subject)));
        assert_eq!(best(Some("a")), (1, 0, 0));
        assert_eq!(best(Some("b")), (1, 1, 0));
        assert_eq!(best(Some("c")), (1, 1, 1));
        assert_eq!(best(Some("nobody")), (1, 1, 1));
        assert_eq!(best(None), (1, 1, 1));
        let low = scores(&[("a", 0.397), ("b", 0.1)]);
        let best = |name: Option<&str>| judged(&low, Decision::Best, &Outcome::Best(name.map(subject)));
        assert_eq!(best(None), (1, 0, 0));
        assert_eq!(best(Some("a")), (1, 1, 0));
        assert_eq!(best(Some("b")), (1, 1, 1));
    }

    #[test]
    fn matches_are_judged_slot_by_slot() {
        let all = scores(&[("a", 0.6), ("b", 0.5), ("near", 0.402), ("low", 0.1)]);
        let matches = |outcome: &Outcome| judged(&all, Decision::Matches { max_matches: 3 }, outcome);
        assert_eq!(matches(&named(&["a", "b", "near"])), (4, 0, 0));
        assert_eq!(matches(&named(&["a", "b"])), (4, 1, 0));
        assert_eq!(matches(&named(&["a"])), (4, 2, 1));
        assert_eq!(matches(&named(&["a", "b", "low"])), (4, 2, 1));
        assert_eq!(matches(&named(&["a", "b", "stranger"])), (5, 2, 1));
        assert_eq!(matches(&named(&["a", "b", "b"])), (5, 2, 1));
        assert_eq!(matches(&named(&["a", "b", "near", "low"])), (5, 2, 2));
        assert_eq!(matches(&Outcome::TooMany), (1, 1, 1));
    }

    #[test]
    fn too_many_is_judged_by_the_count() {
        let all = scores(&[("a", 0.6), ("b", 0.5), ("near", 0.402), ("low", 0.1)]);
        let answer = |max_matches| judged(&all, Decision::Matches { max_matches }, &Outcome::TooMany);
        assert_eq!((answer(1), answer(2), answer(3)), ((1, 0, 0), (1, 0, 0), (1, 1, 1)));
        let short = scores(&[("a", 0.6), ("b", 0.5), ("near", 0.398)]);
        assert_eq!(judged(&short, Decision::Matches { max_matches: 2 }, &Outcome::TooMany), (1, 1, 0));
        // A list where the plaintext count is beyond the cap leaves somebody out, and that slot is judged.
        assert_eq!(judged(&all, Decision::Matches { max_matches: 1 }, &named(&["a"])), (4, 2, 1));
    }
}
