//! `eval pairs`: verification of labelled pairs, in plaintext and through the encrypted protocol, at the same thresholds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use veilmatch_domain::{Decision, Embedding, IdentifierError, Outcome, Query, SubjectId, Threshold};
use veilmatch_evaluation::encrypted::EncryptedPoint;
use veilmatch_evaluation::folds::{self, Rates, Scored};
use veilmatch_evaluation::page::{self, Page};
use veilmatch_evaluation::verification::{self, MatedPair, Settings, Verification};

use super::encrypted::{self, Chosen, subject};
use super::{Inputs, Labelled, MappedBy, Outputs, percent, rate, rate_text, refused, wanted};
use crate::arguments::SchemeArguments;
use crate::engine::{Found, Scheme, Setup, Traffic};
use crate::exit::CliError;
use crate::input::{self, InputError, Pair};
use crate::judge::{self, BAND, Tally};
use crate::report::{self, Progress, Report, milliseconds};

pub(crate) const EXAMPLES: &str = "\
Examples:
  veilmatch eval pairs --embeddings templates.npy --pairs pairs.csv
  veilmatch eval pairs --embeddings raw.npy --pairs pairs.csv --normalize --json
  veilmatch eval pairs --embeddings templates.npy --pairs pairs.csv \\
      --labels labels.csv --fmr 1e-3,1e-4 --html pairs.html
  veilmatch eval pairs --scheme paillier --embeddings templates.npy --pairs pairs.csv

pairs.csv has the columns `fold,a,b,same` or `a,b,same`: rows of the embeddings,
counted from 0, and 0/1/true/false. Without folds, ten are made: the i-th mated
and the i-th non-mated pair, in file order, go to fold i modulo 10.";

/// Arguments of `eval pairs`.
#[derive(Clone, Debug, Args)]
pub struct PairsArguments {
    /// The embeddings: a matrix of float16 or float32, one unit vector per row
    #[arg(long, value_name = "X.npy")]
    pub embeddings: PathBuf,
    /// The pairs: columns `fold,a,b,same` or `a,b,same`
    #[arg(long, value_name = "pairs.csv")]
    pub pairs: PathBuf,
    /// Under which scheme, and with which key
    #[command(flatten)]
    pub scheme: SchemeArguments,
    /// Scale embeddings of any length to unit length instead of refusing them
    #[arg(long)]
    pub normalize: bool,
    /// The map to apply first.
    #[command(flatten)]
    pub mapped: MappedBy,
    /// Decide at the thresholds of these FMRs too, found over all pairs of different people of the labels
    #[arg(long, value_name = "R,..", value_delimiter = ',', value_parser = rate, requires = "labels")]
    pub fmr: Vec<f64>,
    /// Who is in which row, for --fmr: a table with the columns `row` and `label`
    #[arg(long, value_name = "F.csv", requires = "fmr")]
    pub labels: Option<PathBuf>,
    /// How many of the listed non-mated pairs are decided at each of these thresholds, besides all mated ones
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub non_mated: usize,
    /// What to write.
    #[command(flatten)]
    pub outputs: Outputs,
}

#[derive(Serialize)]
struct Plain {
    #[serde(flatten)]
    rates: Rates,
    eer: f64,
}

#[derive(Serialize)]
struct Json<'a> {
    pairs: usize,
    plain: Plain,
    encrypted: Rates,
    differing: u64,
    outside_band: u64,
    noise_std: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_fmr: Option<&'a AtFmr>,
}

/// What happens at the thresholds of given FMRs.
#[derive(Serialize)]
struct AtFmr {
    #[serde(flatten)]
    plain: Verification,
    encrypted: Vec<EncryptedPoint>,
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
    at_fmr: Option<AtFmr>,
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
    let embeddings = arguments.mapped.apply_all(embeddings)?;
    let pairs = input::pairs(&arguments.pairs, embeddings.len())?;
    let too_few = || CliError::Input(InputError::TooFewPairs { path: arguments.pairs.clone() });
    let plaintext = Plaintext::new(&embeddings, &pairs)?;
    let plain_at_fmr = at_fmr(arguments, &pairs, progress)?;
    let chosen = plain_at_fmr.as_ref().map_or_else(|| Ok(Vec::new()), |v| chosen(v, &arguments.fmr))?;
    let thresholds = || plaintext.thresholds.values().copied().chain(chosen.iter().map(|c| c.threshold));
    let lowest = thresholds().min().ok_or_else(too_few)?;
    let highest = thresholds().max().ok_or_else(too_few)?;
    let dimension = embeddings.first().ok_or_else(too_few)?.dimension();

    let people = enrolled(&pairs, &embeddings)?;

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
    let (points, at_points) =
        encrypted::points(engine.as_mut(), &embeddings, &pairs, arguments.non_mated, &chosen, progress)?;
    tally += at_points;
    let report = PairsReport {
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
        at_fmr: plain_at_fmr.map(|plain| AtFmr { plain, encrypted: points }),
    };
    report.write(arguments)?;
    Ok(report)
}

/// The plaintext side of `--fmr`.
fn at_fmr(arguments: &PairsArguments, pairs: &[Pair], progress: &Progress) -> Result<Option<Verification>, CliError> {
    let Some(labels) = &arguments.labels else { return Ok(None) };
    let inputs = Inputs {
        embeddings: arguments.embeddings.clone(),
        labels: labels.clone(),
        normalize: arguments.normalize,
        mapped: arguments.mapped.clone(),
    };
    let labelled = inputs.read(&[], progress)?;
    let listed = placed(pairs, &labelled);
    verification(&labelled, &listed, &arguments.fmr, &arguments.outputs, progress).map(Some)
}

/// Pairs by the rows of labelled embeddings; those with an unlabelled row are left out.
pub(super) fn placed(pairs: &[Pair], labelled: &Labelled) -> Vec<Pair> {
    let place = |row: usize| labelled.place.get(row).copied().flatten();
    pairs.iter().filter_map(|p| Some(Pair { a: place(p.a)?, b: place(p.b)?, ..*p })).collect()
}

/// Verification in plaintext, with the mated ones of these pairs as the list.
pub(super) fn verification(
    labelled: &Labelled,
    pairs: &[Pair],
    fmr: &[f64],
    outputs: &Outputs,
    progress: &Progress,
) -> Result<Verification, CliError> {
    let mated: Vec<MatedPair> = pairs.iter().filter(|p| p.same).map(|p| MatedPair { a: p.a, b: p.b }).collect();
    let settings = Settings { fmr: fmr.to_vec(), bootstrap: outputs.bootstrap() };
    let bar = progress.stage("all pairs", verification::steps(labelled.templates.len()));
    verification::verify(&labelled.templates, &labelled.people, &mated, &settings, &|n| bar.advance(n)).map_err(refused)
}

/// The thresholds of these FMRs.
fn chosen(plain: &Verification, fmr: &[f64]) -> Result<Vec<Chosen>, CliError> {
    let points = plain.points.iter().filter(|p| fmr.contains(&p.wanted_fmr));
    points.map(|p| Chosen::new(p.wanted_fmr, p.fmr.rate, p.threshold)).collect()
}

/// What is decided through the encrypted protocol, at which FMRs.
pub(super) struct EncryptedAt<'a> {
    pub(super) pairs: &'a [Pair],
    pub(super) non_mated: usize,
    pub(super) fmr: &'a [f64],
    pub(super) scheme: Scheme,
}

/// Enrols the pairs' templates and decides the pairs, at thresholds alone.
pub(super) fn encrypted_points(
    embeddings: &[Embedding],
    at: &EncryptedAt<'_>,
    plain: &Verification,
    found: &Found<'_>,
    progress: &Progress,
) -> Result<Vec<EncryptedPoint>, CliError> {
    decided(embeddings, at, &chosen(plain, at.fmr)?, found, progress)
}

/// The same at thresholds from elsewhere; `at.fmr` is not looked at.
pub(super) fn decided(
    embeddings: &[Embedding],
    at: &EncryptedAt<'_>,
    chosen: &[Chosen],
    found: &Found<'_>,
    progress: &Progress,
) -> Result<Vec<EncryptedPoint>, CliError> {
    let people = enrolled(at.pairs, embeddings)?;
    let thresholds = || chosen.iter().map(|c| c.threshold);
    let (Some(lowest), Some(highest), Some(first)) = (thresholds().min(), thresholds().max(), people.first()) else {
        return Ok(Vec::new());
    };
    let setup = Setup {
        dimension: first.1.dimension(),
        members: people.len(),
        lowest_threshold: lowest,
        highest_threshold: highest,
        scheme: at.scheme,
    };
    let mut engine = found(&setup)?;
    let bar = progress.stage("enroll", people.len());
    engine.enroll(&people, &|count| bar.reach(count))?;
    drop(bar);
    let (points, _) = encrypted::points(engine.as_mut(), embeddings, at.pairs, at.non_mated, chosen, progress)?;
    Ok(points)
}

/// The templates of pairs, each once.
fn enrolled(pairs: &[Pair], embeddings: &[Embedding]) -> Result<Vec<(SubjectId, Embedding)>, CliError> {
    let rows: BTreeSet<usize> = pairs.iter().map(|p| p.a).collect();
    let named = |row: usize| -> Result<_, IdentifierError> { Ok((subject(row)?, embeddings.get(row).cloned())) };
    let people: Vec<_> =
        rows.into_iter().map(named).collect::<Result<_, IdentifierError>>().map_err(CliError::protocol)?;
    Ok(people.into_iter().filter_map(|(subject, embedding)| Some((subject, embedding?))).collect())
}

/// Tables of a verification.
pub(super) fn verification_text(plain: &Verification, encrypted: &[EncryptedPoint]) -> String {
    let rows: Vec<Vec<String>> = plain
        .points
        .iter()
        .map(|p| {
            vec![
                wanted(p.wanted_fmr),
                format!("{:.4}", p.threshold),
                format!("{}{}", report::count(p.fmr.errors), if p.few { "*" } else { "" }),
                page::percent_interval(p.fmr.interval),
                rate_text(&p.fnmr),
                p.fnmr_listed.as_ref().map_or_else(String::new, rate_text),
            ]
        })
        .collect();
    let header = ["FMR", "threshold", "false matches", "FMR, 95 %", "FNMR, all mated pairs", "FNMR, listed pairs"];
    let mut text = format!(
        "{} non-mated and {} mated pairs of {} templates of {} people; EER {} ({})\n\n{}\n{}",
        report::count(plain.non_mated_pairs),
        report::count(plain.mated_pairs),
        report::count(plain.templates as u64),
        report::count(plain.people as u64),
        percent(plain.eer),
        page::percent_interval(plain.eer_interval),
        report::table(&header, &[0, 1, 2, 3, 4, 5], &rows),
        if plain.points.iter().any(|p| p.few) {
            "* fewer than 30 false matches: the threshold is a guess.\n"
        } else {
            ""
        },
    );
    text += &encrypted_text(encrypted);
    text
}

/// A table of encrypted decisions; nothing if there are none.
pub(super) fn encrypted_text(encrypted: &[EncryptedPoint]) -> String {
    if encrypted.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = encrypted
        .iter()
        .map(|e| {
            vec![
                wanted(e.wanted_fmr),
                report::count(e.mated),
                percent(e.fnmr_plain),
                percent(e.fnmr_encrypted),
                format!("{} / {} of {}", e.false_matches_plain, e.false_matches_encrypted, report::count(e.non_mated)),
                e.in_band.to_string(),
                e.differing.to_string(),
                e.outside_band.to_string(),
            ]
        })
        .collect();
    let header = [
        "FMR",
        "mated",
        "FNMR plain",
        "FNMR encrypted",
        "false matches, plain / enc.",
        "in band",
        "differ",
        "outside band",
    ];
    let table = report::table(&header, &[0, 1, 2, 3, 4, 5, 6, 7], &rows);
    format!("\nThrough the encrypted protocol:\n\n{table}\n")
}

impl PairsReport {
    /// The counts.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// The page, if one is asked for.
    fn write(&self, arguments: &PairsArguments) -> Result<(), CliError> {
        let mut page = Page::default();
        if let Some(at) = &self.at_fmr {
            page.verification(&at.plain, &at.encrypted);
        }
        let words = format!(
            "{} pairs in {} folds, each decided at the threshold of highest accuracy on the others. {} decisions differ from the \
             plaintext ones, {} of them outside the noise band; with the decisions at fixed FMRs.",
            report::count(self.pairs as u64),
            self.folds,
            self.tally.differing,
            self.tally.outside_band
        );
        page.folds(&self.plain, self.eer, Some(&self.encrypted), &words);
        let source = format!("{} and {}", arguments.embeddings.display(), arguments.pairs.display());
        arguments.outputs.write(&page, &source)
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
            at_fmr: self.at_fmr.as_ref(),
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
        if let Some(at) = &self.at_fmr {
            let _ = writeln!(text, "{}", verification_text(&at.plain, &at.encrypted));
        }
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
            "{} decisions lie in the noise band of ±{:.4} around their threshold ({BAND} × {:.5}); {} decisions differ, {} \
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
    use crate::encrypted;
    use crate::testing::{self, Lie, files, npy_bytes, real_data};
    use std::path::Path;
    use tempfile::TempDir;
    use veilmatch_domain::Dimension;

    fn arguments(embeddings: &Path, pairs: &Path) -> PairsArguments {
        PairsArguments {
            embeddings: embeddings.into(),
            pairs: pairs.into(),
            scheme: SchemeArguments::default(),
            normalize: false,
            mapped: MappedBy::default(),
            fmr: Vec::new(),
            labels: None,
            non_mated: 500,
            outputs: crate::eval::tests::outputs(),
        }
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
