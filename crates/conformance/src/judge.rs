//! "Equal to the oracle", up to the scheme's noise.
//!
//! `verify` and `matches` are judged slot by slot, and a slot may differ only if its plaintext score lies within 5σ of
//! the threshold. `exists` and `best` are judged where all slots that decide lie outside that band (`best`: the gap of
//! the first two exceeds 5√2·σ).

use veilmatch_domain::Threshold;
use veilmatch_mpc::{Answer, Question};

/// Half the width of the band around the threshold, in σ.
pub const BAND: f64 = 5.0;

/// Counts of judged decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Questions that were judged.
    pub questions: usize,
    /// Questions that the band kept from being judged.
    pub unjudged: usize,
    /// Slots that were judged (one per question except for `list`).
    pub slots: usize,
    /// Judged slots inside the band.
    pub inside_band: usize,
    /// Judged slots that differ from the oracle.
    pub differing: usize,
    /// Judged slots that differ outside the band: there must be none.
    pub outside_band: usize,
}

impl Tally {
    /// Adds another tally.
    pub fn add(&mut self, other: Tally) {
        self.questions += other.questions;
        self.unjudged += other.unjudged;
        self.slots += other.slots;
        self.inside_band += other.inside_band;
        self.differing += other.differing;
        self.outside_band += other.outside_band;
    }

    fn slot(&mut self, inside: bool, differs: bool) {
        self.slots += 1;
        self.inside_band += usize::from(inside);
        self.differing += usize::from(differs);
        self.outside_band += usize::from(differs && !inside);
    }
}

/// Judges one answer. `scores` are the plaintext cosines of the lanes that were asked about, `noise` is σ.
#[must_use]
pub fn judge(question: Question, threshold: Threshold, scores: &[f64], noise: f64, answer: &Answer) -> Tally {
    let mut tally = Tally::default();
    let (threshold, band) = (threshold.cosine(), BAND * noise);
    let clear_hits = scores.iter().filter(|&&s| s > threshold + band).count();
    let possible_hits = scores.iter().filter(|&&s| s >= threshold - band).count();
    match (question, answer) {
        // One lane is a verification: always judged.
        (Question::Any, Answer::Any(hit)) if scores.len() == 1 => {
            let score = scores.first().copied().unwrap_or_default();
            tally.questions = 1;
            tally.slot((score - threshold).abs() <= band, *hit != (score >= threshold));
        }
        (Question::Any, Answer::Any(hit)) => {
            if clear_hits == 0 && possible_hits > 0 {
                tally.unjudged = 1;
            } else {
                tally.questions = 1;
                tally.slot(false, *hit != (clear_hits > 0));
            }
        }
        (Question::List { max }, Answer::TooMany) => {
            tally.questions = 1;
            let (clear, possible) = (clear_hits > usize::from(max), possible_hits > usize::from(max));
            tally.slot(possible && !clear, !possible);
        }
        (Question::List { max }, Answer::List(lanes)) => {
            tally.questions = 1;
            for (lane, score) in scores.iter().enumerate() {
                let listed = lanes.binary_search(&lane).is_ok();
                tally.slot((score - threshold).abs() <= band, listed != (*score >= threshold));
            }
            if clear_hits > usize::from(max) {
                tally.slot(false, true);
            }
        }
        (Question::Best, Answer::Best(lane)) => {
            let mut order: Vec<usize> = (0..scores.len()).collect();
            let score = |lane: &usize| scores.get(*lane).copied().unwrap_or(-2.0);
            order.sort_by(|a, b| score(b).total_cmp(&score(a)));
            let top = order.first().map_or(-2.0, score);
            let gap = top - order.get(1).map_or(-2.0, score);
            if top < threshold - band {
                tally.questions = 1;
                tally.slot(false, lane.is_some());
            } else if top > threshold + band && gap > band * std::f64::consts::SQRT_2 {
                tally.questions = 1;
                tally.slot(false, *lane != order.first().copied());
            } else {
                tally.unjudged = 1;
            }
        }
        // An answer to another question is wrong whatever the scores are.
        _ => {
            tally.questions = 1;
            tally.slot(false, true);
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(cosine: f64) -> Threshold {
        Threshold::new(cosine).unwrap()
    }

    #[test]
    fn wrong_answers_outside_the_band_are_counted() {
        let scores = [0.9, 0.1, 0.5];
        let outside = |question, answer| judge(question, t(0.4), &scores, 0.001, &answer).outside_band;
        let list = Question::List { max: 2 };
        assert_eq!(outside(list, Answer::List(vec![0, 2])), 0);
        assert_eq!(outside(list, Answer::List(vec![0])), 1);
        assert_eq!(outside(list, Answer::List(vec![0, 1, 2])), 1);
        assert_eq!(outside(list, Answer::TooMany), 1);
        assert_eq!(outside(Question::List { max: 1 }, Answer::TooMany), 0);
        assert_eq!(outside(Question::List { max: 1 }, Answer::List(vec![0, 2])), 1);
        assert_eq!(outside(Question::Any, Answer::Any(true)), 0);
        assert_eq!(outside(Question::Any, Answer::Any(false)), 1);
        assert_eq!(outside(Question::Best, Answer::Best(Some(0))), 0);
        assert_eq!(outside(Question::Best, Answer::Best(Some(2))), 1);
        assert_eq!(outside(Question::Best, Answer::Best(None)), 1);
        assert_eq!(outside(Question::Best, Answer::Any(true)), 1);
        assert_eq!(judge(Question::Any, t(0.4), &[0.3], 0.001, &Answer::Any(true)).outside_band, 1);
    }

    #[test]
    fn the_band_excuses_and_leaves_unjudged() {
        let near = [0.4004];
        let tally = judge(Question::Any, t(0.4), &near, 0.001, &Answer::Any(false));
        assert_eq!((tally.differing, tally.inside_band, tally.outside_band), (1, 1, 0));
        let tally = judge(Question::Any, t(0.4), &[0.4004, 0.1], 0.001, &Answer::Any(false));
        assert_eq!((tally.questions, tally.unjudged), (0, 1));
        let tally = judge(Question::Best, t(0.4), &[0.9, 0.901], 0.001, &Answer::Best(Some(0)));
        assert_eq!((tally.questions, tally.unjudged), (0, 1));
    }
}
