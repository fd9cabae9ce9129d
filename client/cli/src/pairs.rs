//! `eval pairs`: verification of labelled pairs, in plaintext and through the encrypted protocol, at the same thresholds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::Serialize;
use veilmatch_domain::{Decision, Embedding, IdentifierError, Outcome, Query, SubjectId, Threshold};

use crate::arguments::PairsArguments;
use crate::engine::{Found, Setup, Traffic};
use crate::exit::CliError;
use crate::input::{self, InputError, Pair};
use crate::judge::{self, BAND, Tally};
use crate::report::{self, Progress, Report, milliseconds};
use veilmatch_evaluation::folds::{self, Rates, Scored};

#[derive(Serialize)]
struct Plain {
    #[serde(flatten)]
    rates: Rates,
    eer: f64,
}

#[derive(Serialize)]
struct Json {
    pairs: usize,
    plain: Plain,
    encrypted: Rates,
    differing: u64,
    outside_band: u64,
    noise_std: f64,
}

/// What the evaluation found out.
pub struct PairsReport {
    pairs: usize,
    folds: usize,
    enrolled: usize,
    plain: Rates,
    eer: f64,
    encrypted: Rates,
    tally: Tally,
    noise_std: f64,
    enroll: Duration,
    verify: Duration,
    traffic: Traffic,
}

/// Pairs with their plaintext side: scores, thresholds by fold, decisions.
struct Plaintext {
    scored: Vec<Scored>,
    thresholds: BTreeMap<u32, Threshold>,
    decisions: Vec<bool>,
}

impl Plaintext {
    fn new(embeddings: &[Embedding], pairs: &[Pair]) -> Result<Self, CliError> {
        let mut scored = Vec::with_capacity(pairs.len());
        for pair in pairs {
            // Rows were checked when the pairs were read.
            let (Some(a), Some(b)) = (embeddings.get(pair.a), embeddings.get(pair.b)) else { continue };
            scored.push(Scored { fold: pair.fold, score: b.cosine(a)?, same: pair.same });
        }
        let thresholds = folds::thresholds(&scored).map_err(CliError::protocol)?;
        let decisions = scored.iter().map(|p| thresholds.get(&p.fold).is_some_and(|t| p.score >= t.cosine())).collect();
        Ok(Self { scored, thresholds, decisions })
    }
}

/// Runs the evaluation that the arguments ask for.
///
/// # Errors
/// [`CliError`]: a file cannot be used, or a party refused.
pub fn run(arguments: &PairsArguments, found: &Found<'_>, progress: &Progress) -> Result<PairsReport, CliError> {
    let embeddings = input::embeddings(&arguments.embeddings, arguments.normalize)?;
    let pairs = input::pairs(&arguments.pairs, embeddings.len())?;
    let too_few = || CliError::Input(InputError::TooFewPairs { path: arguments.pairs.clone() });
    let plaintext = Plaintext::new(&embeddings, &pairs)?;
    let lowest = plaintext.thresholds.values().min().copied().ok_or_else(too_few)?;
    let highest = plaintext.thresholds.values().max().copied().ok_or_else(too_few)?;
    let dimension = embeddings.first().ok_or_else(too_few)?.dimension();

    let rows: BTreeSet<usize> = pairs.iter().map(|p| p.a).collect();
    let named = |row: &usize| Ok((subject(*row)?, embeddings.get(*row)));
    let people: Vec<(SubjectId, Option<&Embedding>)> =
        rows.iter().map(named).collect::<Result<_, IdentifierError>>().map_err(CliError::protocol)?;
    let people: Vec<_> = people.into_iter().filter_map(|(s, e)| Some((s, e?.clone()))).collect();

    let scheme = arguments.scheme.chosen();
    let setup =
        Setup { dimension, members: people.len(), lowest_threshold: lowest, highest_threshold: highest, scheme };
    let mut engine = found(&setup)?;
    let bar = progress.stage("enroll", people.len());
    let started = Instant::now();
    engine.enroll(&people, &|count| bar.reach(count))?;
    let enroll = started.elapsed();
    drop(bar);

    let noise_std = engine.noise_std();
    let bar = progress.stage("verify", pairs.len());
    let (mut tally, mut verify) = (Tally::default(), Duration::ZERO);
    let mut decisions = Vec::with_capacity(pairs.len());
    for (pair, scored) in pairs.iter().zip(&plaintext.scored) {
        let (Some(&threshold), Some(probe)) = (plaintext.thresholds.get(&pair.fold), embeddings.get(pair.b)) else {
            continue;
        };
        let claimed = subject(pair.a).map_err(CliError::protocol)?;
        let query = Query::new(Decision::Verify { subject: claimed }, threshold);
        let started = Instant::now();
        let outcome = engine.ask(probe, &query)?;
        verify += started.elapsed();
        let (decision, judged) = match outcome {
            Outcome::Verify(bit) => (bit, judge::bit(bit, scored.score, threshold.cosine(), noise_std)),
            // Not an answer to the question: wrong, whatever the pair is.
            _ => (!scored.same, Tally::wrong()),
        };
        tally += judged;
        decisions.push(decision);
        bar.step();
    }
    drop(bar);
    Ok(PairsReport {
        pairs: pairs.len(),
        folds: plaintext.thresholds.len(),
        enrolled: people.len(),
        plain: folds::rates(&plaintext.scored, &plaintext.decisions),
        eer: folds::equal_error_rate(&plaintext.scored),
        encrypted: folds::rates(&plaintext.scored, &decisions),
        tally,
        noise_std,
        enroll,
        verify,
        traffic: engine.traffic(),
    })
}

fn subject(row: usize) -> Result<SubjectId, IdentifierError> {
    SubjectId::new(format!("row-{row}"))
}

impl PairsReport {
    /// The counts.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Rates of the plaintext decisions and the equal error rate.
    #[must_use]
    pub fn plain(&self) -> (Rates, f64) {
        (self.plain, self.eer)
    }
}

impl Report for PairsReport {
    fn outside_band(&self) -> u64 {
        self.tally.outside_band
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&Json {
            pairs: self.pairs,
            plain: Plain { rates: self.plain, eer: self.eer },
            encrypted: self.encrypted,
            differing: self.tally.differing,
            outside_band: self.tally.outside_band,
            noise_std: self.noise_std,
        })
    }

    fn text(&self) -> String {
        let percent = |rate: f64| format!("{:.2} %", 100.0 * rate);
        let row = |name: &str, rates: Rates, eer: String| {
            vec![name.to_owned(), percent(rates.accuracy), percent(rates.fmr), percent(rates.fnmr), eer]
        };
        let rates = [row("plaintext", self.plain, percent(self.eer)), row("encrypted", self.encrypted, String::new())];
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{} pairs in {} folds; thresholds from the plaintext training folds\n\n{}\n",
            report::count(self.pairs as u64),
            self.folds,
            report::table(&["", "accuracy", "FMR", "FNMR", "EER"], &[1, 2, 3, 4], &rates)
        );
        let traffic: Vec<_> = report::parties(&self.traffic)
            .into_iter()
            .map(|(party, b)| vec![party.to_owned(), report::bytes(b.sent), report::bytes(b.received)])
            .collect();
        let _ = writeln!(text, "{}\n", report::table(&["party", "sent", "received"], &[1, 2], &traffic));
        let each = |took: Duration, times: usize| milliseconds(took) / times.max(1) as f64;
        let _ = writeln!(
            text,
            "{} templates enrolled in {:.1} s ({:.2} ms each); verified in {:.1} s ({:.2} ms each).",
            report::count(self.enrolled as u64),
            self.enroll.as_secs_f64(),
            each(self.enroll, self.enrolled),
            self.verify.as_secs_f64(),
            each(self.verify, self.pairs),
        );
        let _ = writeln!(
            text,
            "{} pairs lie in the noise band of ±{:.4} around their threshold ({BAND} × {:.5}); {} decisions differ, {} \
             of them outside the band.",
            self.tally.in_band,
            BAND * self.noise_std,
            self.noise_std,
            self.tally.differing,
            self.tally.outside_band,
        );
        let _ = writeln!(text, "{}", report::conclusion(self.tally.outside_band));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::SchemeArguments;
    use crate::encrypted;
    use crate::testing::{self, Lie, files, npy_bytes, real_data};
    use std::path::Path;
    use tempfile::TempDir;
    use veilmatch_domain::Dimension;

    fn arguments(embeddings: &Path, pairs: &Path) -> PairsArguments {
        let scheme = SchemeArguments::default();
        PairsArguments { embeddings: embeddings.into(), pairs: pairs.into(), scheme, normalize: false, json: true }
    }

    /// Two images each of `people` people, and one mated and one non-mated pair for each of them.
    fn synthetic(people: usize) -> (TempDir, PairsArguments) {
        let cast = crate::synthetic::people(people, 2, Dimension::new(64).unwrap(), 3).unwrap();
        let data: Vec<u8> = cast.iter().flatten().flat_map(|e| e.values()).flat_map(|v| v.to_le_bytes()).collect();
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, 64), }}", 2 * people);
        let mut pairs = String::from("a,b,same\n");
        for i in 0..people {
            pairs += &format!("{},{},1\n{},{},0\n", 2 * i, 2 * i + 1, 2 * i, (2 * i + 3) % (2 * people));
        }
        let (folder, [x, p]) = files([("x.npy", &npy_bytes(&header, &data)), ("p.csv", pairs.as_bytes())]);
        (folder, arguments(&x, &p))
    }

    #[test]
    fn an_honest_engine_has_the_plaintext_rates() {
        let (_folder, arguments) = synthetic(30);
        let report = run(&arguments, &testing::Plaintext::found(None), &Progress::hidden()).unwrap();
        assert_eq!((report.tally().decisions, report.tally().differing), (60, 0));
        assert_eq!(report.plain, report.encrypted);
        assert_eq!((report.folds, report.enrolled), (10, 30));
        let object: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        let names = |v: &serde_json::Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(names(&object), "differing encrypted noise_std outside_band pairs plain");
        assert_eq!(names(&object["plain"]), "accuracy eer fmr fnmr");
        assert_eq!(names(&object["encrypted"]), "accuracy fmr fnmr");
        assert!(report.text().contains("equals the plaintext decision"));
    }

    #[test]
    fn a_lying_engine_is_noticed() {
        let (_folder, arguments) = synthetic(30);
        let report = run(&arguments, &testing::Plaintext::found(Some(Lie::Verify)), &Progress::hidden()).unwrap();
        assert_eq!(report.tally().differing, 60);
        assert!(report.outside_band() > 50);
        assert!((report.plain.accuracy + report.encrypted.accuracy - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_encrypted_evaluation_agrees() {
        let (_folder, arguments) = synthetic(12);
        let report = run(&arguments, &encrypted::found, &Progress::hidden()).unwrap();
        assert_eq!((report.tally().decisions, report.outside_band()), (24, 0));
        assert!(report.noise_std > 0.0 && report.noise_std < 0.01);
    }

    #[test]
    fn lfw_in_plaintext_is_as_accurate_as_measured_elsewhere() {
        let Some(folder) = real_data("lfw_in_plaintext_is_as_accurate_as_measured_elsewhere") else { return };
        let lfw = folder.join("lfw");
        let arguments = arguments(&lfw.join("templates_retail0095_f16.npy"), &lfw.join("pairs.csv"));
        let report = run(&arguments, &testing::Plaintext::found(None), &Progress::hidden()).unwrap();
        let (rates, eer) = report.plain();
        assert_eq!(report.pairs, 6000);
        assert!((rates.accuracy - 0.9930).abs() < 0.002, "{rates:?}");
        assert!((eer - 0.0063).abs() < 0.0005, "{eer}");
    }
}
