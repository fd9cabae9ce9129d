//! The encrypted side: the same decisions through the protocol, beside the plaintext ones.

use std::collections::BTreeMap;

use veilmatch_domain::{Decision, Embedding, IdentifierError, Outcome, Query, SubjectId, Threshold};
use veilmatch_evaluation::encrypted::{EncryptedPoint, EncryptedSearches};

use crate::engine::{Engine, Found, Scheme, Setup};
use crate::exit::CliError;
use crate::input::Pair;
use crate::judge::{self, Oracle, Tally};
use crate::report::Progress;

/// A threshold with what it was chosen for in plaintext.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chosen {
    /// The FMR or FPIR that was wanted.
    pub(super) wanted: f64,
    /// That in plaintext at the threshold.
    pub(super) reached: f64,
    pub(super) threshold: Threshold,
}

impl Chosen {
    pub(super) fn new(wanted: f64, reached: f64, cosine: f64) -> Result<Self, CliError> {
        let threshold = Threshold::new(cosine).map_err(|e| CliError::Arguments(Box::new(e)))?;
        Ok(Self { wanted, reached, threshold })
    }
}

/// The id that a row is enrolled under.
pub(super) fn subject(row: usize) -> Result<SubjectId, IdentifierError> {
    SubjectId::new(format!("row-{row}"))
}

/// Up to `most` of the items, evenly spread over the list.
pub(super) fn sample<T: Copy>(items: &[T], most: usize) -> Vec<T> {
    let count = most.min(items.len());
    (0..count).filter_map(|i| items.get(i * items.len() / count.max(1))).copied().collect()
}

/// Verifies mated pairs and a sample of the non-mated ones at each threshold; the pairs' rows `a` are enrolled already.
pub(super) fn points(
    engine: &mut dyn Engine,
    embeddings: &[Embedding],
    pairs: &[Pair],
    non_mated: usize,
    chosen: &[Chosen],
    progress: &Progress,
) -> Result<(Vec<EncryptedPoint>, Tally), CliError> {
    let of = |same: bool| pairs.iter().filter(|p| p.same == same).copied().collect::<Vec<Pair>>();
    let mut asked = of(true);
    asked.extend(sample(&of(false), non_mated));
    let bar = progress.stage("verify at FMR", asked.len() * chosen.len());
    let noise_std = engine.noise_std();
    let (mut points, mut total) = (Vec::new(), Tally::default());
    for one in chosen {
        let cosine = one.threshold.cosine();
        let mut tally = Tally::default();
        // Pairs, plaintext matches and encrypted matches: non-mated, mated.
        let mut counts = [[0u64; 3]; 2];
        for pair in &asked {
            let (Some(template), Some(probe)) = (embeddings.get(pair.a), embeddings.get(pair.b)) else { continue };
            let claimed = subject(pair.a).map_err(CliError::protocol)?;
            let query = Query::new(Decision::Verify { subject: claimed }, one.threshold);
            let score = probe.cosine(template)?;
            let (bit, judged) = match engine.ask(probe, &query)? {
                Outcome::Verify(bit) => (bit, judge::bit(bit, score, cosine, noise_std)),
                // Not an answer to the question: wrong, whatever the pair is.
                _ => (score < cosine, Tally::wrong()),
            };
            tally += judged;
            let counts = &mut counts[usize::from(pair.same)];
            counts[0] += 1;
            counts[1] += u64::from(score >= cosine);
            counts[2] += u64::from(bit);
            bar.step();
        }
        let [[strangers, false_plain, false_encrypted], [mated, right_plain, right_encrypted]] = counts;
        let missed = |right: u64| (mated - right) as f64 / mated.max(1) as f64;
        points.push(EncryptedPoint {
            wanted_fmr: one.wanted,
            fmr: one.reached,
            threshold: cosine,
            mated,
            fnmr_plain: missed(right_plain),
            fnmr_encrypted: missed(right_encrypted),
            non_mated: strangers,
            false_matches_plain: false_plain,
            false_matches_encrypted: false_encrypted,
            differing: tally.differing,
            in_band: tally.in_band,
            outside_band: tally.outside_band,
        });
        total += tally;
    }
    Ok((points, total))
}

/// A probe, and whom it shows if that person is enrolled.
pub(super) struct Search<'a> {
    pub(super) probe: &'a Embedding,
    pub(super) mate: Option<SubjectId>,
}

/// Enrols a gallery and asks for the nearest above each threshold.
pub(super) fn searches(
    gallery: &[(SubjectId, Embedding)],
    asked: &[Search<'_>],
    chosen: &[Chosen],
    scheme: Scheme,
    found: &Found<'_>,
    progress: &Progress,
) -> Result<Vec<EncryptedSearches>, CliError> {
    let thresholds = || chosen.iter().map(|c| c.threshold);
    let (Some(lowest), Some(highest), Some(first)) = (thresholds().min(), thresholds().max(), gallery.first()) else {
        return Ok(Vec::new());
    };
    let setup = Setup {
        dimension: first.1.dimension(),
        members: gallery.len(),
        lowest_threshold: lowest,
        highest_threshold: highest,
        scheme,
    };
    let mut engine = found(&setup)?;
    let bar = progress.stage("enroll", gallery.len());
    engine.enroll(gallery, &|count| bar.reach(count))?;
    drop(bar);
    let mut oracle = Oracle::default();
    oracle.enroll(gallery);
    let members: BTreeMap<&SubjectId, &Embedding> = gallery.iter().map(|(s, e)| (s, e)).collect();
    let bar = progress.stage("identify", asked.len() * chosen.len());
    let noise_std = engine.noise_std();
    let mut results = Vec::new();
    for one in chosen {
        let query = Query::new(Decision::Best, one.threshold);
        let mut result = EncryptedSearches {
            wanted_fpir: one.wanted,
            threshold: one.threshold.cosine(),
            gallery: gallery.len() as u64,
            mated: 0,
            misses_plain: 0,
            misses_encrypted: 0,
            non_mated: 0,
            false_positives_plain: 0,
            false_positives_encrypted: 0,
            differing: 0,
            in_band: 0,
            outside_band: 0,
        };
        for search in asked {
            let mut nearest: Option<(&SubjectId, f64)> = None;
            for (subject, member) in &members {
                let score = search.probe.cosine(member)?;
                if nearest.is_none_or(|(_, best)| score > best) {
                    nearest = Some((subject, score));
                }
            }
            let plain = nearest.filter(|(_, score)| *score >= one.threshold.cosine()).map(|(subject, _)| subject);
            let outcome = engine.ask(search.probe, &query)?;
            let tally = oracle.scores(search.probe)?.judge(&query, &outcome, noise_std);
            let answer = match &outcome {
                Outcome::Best(answer) => answer.as_ref(),
                _ => None,
            };
            match &search.mate {
                Some(mate) => {
                    result.mated += 1;
                    result.misses_plain += u64::from(plain != Some(mate));
                    result.misses_encrypted += u64::from(answer != Some(mate));
                }
                None => {
                    result.non_mated += 1;
                    result.false_positives_plain += u64::from(plain.is_some());
                    result.false_positives_encrypted += u64::from(answer.is_some());
                }
            }
            result.differing += tally.differing;
            result.in_band += tally.in_band;
            result.outside_band += tally.outside_band;
            bar.step();
        }
        results.push(result);
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_spread_and_no_longer_than_the_list() {
        assert_eq!(sample(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 4), [0, 2, 5, 7]);
        assert_eq!(sample(&[1, 2], 5), [1, 2]);
        assert!(sample::<u8>(&[], 5).is_empty() && sample(&[1], 0).is_empty());
    }
}
