//! That a fast scan is also a right one: people are really sealed, enrolled and searched for by five parties in this process,
//! whose matcher calls the scan that is timed, and every slot of every answer is compared with the plaintext oracle.

use serde::Serialize;
use veilmatch_domain::{Decision, Dimension, Outcome, Query, SubjectId, Threshold};

use crate::encrypted;
use crate::engine::{Scheme, Setup};
use crate::exit::CliError;
use crate::judge::{Oracle, Tally};
use crate::report::Progress;
use crate::synthetic;

/// A cosine that strangers pass now and then and that most second images pass.
const THRESHOLD: f64 = 0.427;
/// Most people that one answer may name.
const MOST: u16 = 64;
/// Questions about each gallery.
const QUESTIONS: usize = 8;

/// Decisions that were compared with the plaintext ones.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Checked {
    /// People enrolled.
    pub members: usize,
    /// Slots decided, over all questions.
    pub slots: u64,
    /// Slots whose answer was yes.
    pub yes: u64,
    /// Slots whose score lies in the noise band around the threshold.
    pub in_band: u64,
    /// Slots decided unlike plaintext, in the band or not.
    pub differing: u64,
    /// Slots decided unlike plaintext that noise does not explain.
    pub outside_band: u64,
}

/// Enrols `members` people and asks who matches second images of some of them.
///
/// # Errors
/// [`CliError`] if a party refuses: the key holders' own check of the matcher's sums does so when the scan is wrong.
pub(super) fn decide(members: usize, dimension: Dimension, progress: &Progress) -> Result<Checked, CliError> {
    let bar = progress.stage("enroll for the check", members);
    let mut people = Vec::with_capacity(members);
    let mut probes = Vec::with_capacity(QUESTIONS);
    for (i, images) in synthetic::people(members, 2, dimension, 11)?.into_iter().enumerate() {
        let mut images = images.into_iter();
        let subject = SubjectId::new(format!("person-{i}")).map_err(CliError::protocol)?;
        people.extend(images.next().map(|image| (subject, image)));
        // Spread over the slots, so that every body has a part in some yes.
        if i % members.div_ceil(QUESTIONS) == members.div_ceil(QUESTIONS) / 2 {
            probes.extend(images.next());
        }
    }
    let threshold = Threshold::new(THRESHOLD).map_err(CliError::protocol)?;
    let setup =
        Setup { dimension, members, lowest_threshold: threshold, highest_threshold: threshold, scheme: Scheme::Glwe };
    let mut engine = encrypted::found(&setup)?;
    let mut oracle = Oracle::default();
    engine.enroll(&people, &|count| bar.reach(count))?;
    oracle.enroll(&people);
    drop(bar);

    let bar = progress.stage("check decisions", probes.len());
    let query = Query::new(Decision::Matches { max_matches: MOST }, threshold);
    let (mut tally, mut yes) = (Tally::default(), 0);
    for probe in &probes {
        let outcome = engine.ask(probe, &query)?;
        tally += oracle.scores(probe)?.judge(&query, &outcome, engine.noise_std());
        if let Outcome::Matches(named) = outcome {
            yes += named.len() as u64;
        }
        bar.step();
    }
    let Tally { decisions, differing, outside_band, in_band } = tally;
    Ok(Checked { members, slots: decisions, yes, in_band, differing, outside_band })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_ciphertexts_are_decided_as_in_plaintext_with_both_answers() {
        let checked = decide(40, Dimension::new(128).unwrap(), &Progress::hidden()).unwrap();
        assert_eq!((checked.members, checked.slots, checked.outside_band), (40, 320, 0));
        assert!(checked.yes > 0 && checked.yes < checked.slots, "{checked:?}");
    }
}
