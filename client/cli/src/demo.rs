//! The demonstration: ceremony, enrol, verify, identify, erase; every answer is judged by the plaintext oracle.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::Serialize;
use veilmatch_domain::{Decision, Embedding, Explain, Outcome, Query, Status, SubjectId, Threshold};

use crate::arguments::DemoArguments;
use crate::cast::{self, Cast};
use crate::engine::{Engine, Found, Scheme, Setup, Traffic};
use crate::exit::CliError;
use crate::judge::{BAND, Oracle, Tally};
use crate::photos;
use crate::report::{self, Progress, Report, milliseconds};

/// Most matches that the demonstration lets the holders open.
pub const MAX_MATCHES: u16 = 16;
/// One false match in 10,000 on LFW, for the model whose statistics the synthetic embeddings have.
const USUAL_THRESHOLD: f64 = 0.427;

/// Total time of a stage in milliseconds. Only the parties' work counts, not the oracle's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct StagesMs {
    /// Key ceremony of the three holders.
    pub ceremony: f64,
    /// Sealing, norm checks and packing of everybody.
    pub enroll: f64,
    /// All verifications, mated and non-mated.
    pub verify: f64,
    /// All `exists` questions.
    pub identify_exists: f64,
    /// All `matches` questions.
    pub identify_matches: f64,
    /// All `best` questions.
    pub identify_best: f64,
    /// The erasure of one subject, without the questions that show that it is gone.
    pub erase: f64,
}

#[derive(Serialize)]
struct Json {
    decisions: u64,
    differing: u64,
    outside_band: u64,
    stages_ms: StagesMs,
    bytes_by_party: Traffic,
}

/// Questions of one kind and how they were answered.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    questions: u64,
    took: Duration,
    mated: Answers,
    strangers: Answers,
}

#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    positive: u64,
    all: u64,
}

/// What the demonstration found out.
pub struct DemoReport {
    source: String,
    enrolled: usize,
    threshold: Threshold,
    noise_std: f64,
    tally: Tally,
    ceremony: Duration,
    enroll: Duration,
    verify: Asked,
    exists: Asked,
    matches: Asked,
    best: Asked,
    erase: Duration,
    erased: SubjectId,
    gone: bool,
    traffic: Traffic,
    /// Photos that gave no template, as a table.
    refused: String,
}

/// Plays the demonstration that the arguments ask for.
///
/// # Errors
/// [`CliError`]: a file cannot be used, or a party refused.
pub fn run(arguments: &DemoArguments, found: &Found<'_>, progress: &Progress) -> Result<DemoReport, CliError> {
    let (cast, own, refused) = match &arguments.images {
        None => (cast::choose(arguments)?, None, String::new()),
        Some(folder) => {
            let (gallery, probes) = (arguments.gallery() as usize, arguments.probes as usize);
            let made = match folder {
                None => photos::cast::drawn(gallery, probes, &arguments.photos, progress)?,
                Some(folder) => photos::cast::from_folder(folder, gallery, probes, &arguments.photos, progress)?,
            };
            (made.cast, made.threshold, made.refused)
        }
    };
    let usual = || Threshold::new(USUAL_THRESHOLD).map_err(CliError::protocol);
    let threshold = arguments.threshold.or(own).map_or_else(usual, Ok)?;
    let report = play(cast, threshold, arguments.scheme.chosen(), found, progress)?;
    Ok(DemoReport { refused, ..report })
}

/// Plays the demonstration with this cast.
///
/// # Errors
/// [`CliError`]: a party refused.
pub fn play(
    cast: Cast,
    threshold: Threshold,
    scheme: Scheme,
    found: &Found<'_>,
    progress: &Progress,
) -> Result<DemoReport, CliError> {
    let setup = Setup {
        dimension: cast.dimension,
        members: cast.enrolled.len(),
        lowest_threshold: threshold,
        highest_threshold: threshold,
        scheme,
    };
    let bar = progress.stage("ceremony", 1);
    let started = Instant::now();
    let engine = found(&setup)?;
    let ceremony = started.elapsed();
    drop(bar);

    let mut stage = Stage { engine, oracle: Oracle::default(), threshold, progress, tally: Tally::default() };
    let enroll = stage.enroll(&cast.enrolled)?;
    let verify = stage.verify(&cast)?;
    let exists = stage.identify("identify: exists", &Decision::Exists, &cast)?;
    let matches = stage.identify("identify: matches", &Decision::Matches { max_matches: MAX_MATCHES }, &cast)?;
    let best = stage.identify("identify: best", &Decision::Best, &cast)?;
    let noise_std = stage.engine.noise_std();
    let (erased, erase, gone) = stage.erase(&cast)?;
    Ok(DemoReport {
        source: cast.source,
        enrolled: cast.enrolled.len(),
        threshold,
        noise_std,
        tally: stage.tally,
        ceremony,
        enroll,
        verify,
        exists,
        matches,
        best,
        erase,
        erased,
        gone,
        traffic: stage.engine.traffic(),
        refused: String::new(),
    })
}

/// The parties and the oracle that watches them.
struct Stage<'a> {
    engine: Box<dyn Engine>,
    oracle: Oracle,
    threshold: Threshold,
    progress: &'a Progress,
    tally: Tally,
}

impl Stage<'_> {
    fn enroll(&mut self, people: &[(SubjectId, Embedding)]) -> Result<Duration, CliError> {
        let bar = self.progress.stage("enroll", people.len());
        let started = Instant::now();
        self.engine.enroll(people, &|count| bar.reach(count))?;
        let took = started.elapsed();
        self.oracle.enroll(people);
        Ok(took)
    }

    /// Asks, judges, and says whether the answer was positive.
    fn ask(&mut self, probe: &Embedding, decision: Decision, mated: bool, asked: &mut Asked) -> Result<(), CliError> {
        let scores = self.oracle.scores(probe)?;
        let query = Query::new(decision, self.threshold);
        let started = Instant::now();
        let outcome = self.engine.ask(probe, &query)?;
        asked.took += started.elapsed();
        asked.questions += 1;
        self.tally += scores.judge(&query, &outcome, self.engine.noise_std());
        let answers = if mated { &mut asked.mated } else { &mut asked.strangers };
        answers.all += 1;
        answers.positive += u64::from(is_positive(&outcome));
        Ok(())
    }

    /// Enrolled people claim to be themselves; strangers claim to be one of them.
    fn verify(&mut self, cast: &Cast) -> Result<Asked, CliError> {
        let bar = self.progress.stage("verify", cast.mated.len() + cast.strangers.len());
        let mut asked = Asked::default();
        for (subject, probe) in &cast.mated {
            self.ask(probe, Decision::Verify { subject: subject.clone() }, true, &mut asked)?;
            bar.step();
        }
        for (probe, (subject, _)) in cast.strangers.iter().zip(cast.mated.iter().cycle()) {
            self.ask(probe, Decision::Verify { subject: subject.clone() }, false, &mut asked)?;
            bar.step();
        }
        Ok(asked)
    }

    fn identify(&mut self, name: &'static str, decision: &Decision, cast: &Cast) -> Result<Asked, CliError> {
        let bar = self.progress.stage(name, cast.mated.len() + cast.strangers.len());
        let mut asked = Asked::default();
        let mated = cast.mated.iter().map(|(_, probe)| (probe, true));
        for (probe, mated) in mated.chain(cast.strangers.iter().map(|probe| (probe, false))) {
            self.ask(probe, decision.clone(), mated, &mut asked)?;
            bar.step();
        }
        Ok(asked)
    }

    /// Erases the first person who asked, and asks for that person in every way there is.
    fn erase(&mut self, cast: &Cast) -> Result<(SubjectId, Duration, bool), CliError> {
        let Some((subject, probe)) = cast.mated.first() else { return Err(CliError::protocol(NobodyToErase)) };
        let bar = self.progress.stage("erase", 5);
        let started = Instant::now();
        self.engine.erase(subject)?;
        let took = started.elapsed();
        bar.step();
        self.oracle.erase(subject);

        let before = self.tally.outside_band;
        let verify = Query::new(Decision::Verify { subject: subject.clone() }, self.threshold);
        self.tally += match self.engine.ask(probe, &verify) {
            Err(error) if error.status() == Status::NotFound => Tally::right(),
            Err(error) => return Err(error),
            Ok(_) => Tally::wrong(),
        };
        bar.step();
        for decision in [Decision::Exists, Decision::Matches { max_matches: MAX_MATCHES }, Decision::Best] {
            self.ask(probe, decision, true, &mut Asked::default())?;
            bar.step();
        }
        Ok((subject.clone(), took, self.tally.outside_band == before))
    }
}

fn is_positive(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Verify(bit) | Outcome::Exists(bit) => *bit,
        Outcome::Matches(subjects) => !subjects.is_empty(),
        Outcome::TooMany => true,
        Outcome::Best(subject) => subject.is_some(),
    }
}

/// A cast always has somebody who asks; this keeps the code total.
#[derive(Debug, thiserror::Error)]
#[error("nobody asked, so nobody can be erased")]
struct NobodyToErase;

impl Explain for NobodyToErase {
    fn code(&self) -> &'static str {
        "nobody-to-erase"
    }
    fn status(&self) -> Status {
        Status::FailedPrecondition
    }
    fn advice(&self) -> &'static str {
        "enrol people with a second image"
    }
}

/// Who saw what: what DESIGN section 1 promises, beside the bytes that were measured.
const VIEWS: [(&str, &str); 6] = [
    ("its own embeddings and the answers to its own questions", "any other embedding, any score"),
    ("sealed templates it cannot open, ciphertexts, subject ids, sizes, timing", "embeddings, scores, answers, keys"),
    (HOLDER_SAW, HOLDER_NEVER),
    (HOLDER_SAW, HOLDER_NEVER),
    (HOLDER_SAW, HOLDER_NEVER),
    (
        "ciphertexts, a uniformly random share of every probe, timing",
        "embeddings, scores, answers, keys, the matcher's shares",
    ),
];
const HOLDER_SAW: &str = "uniformly random shares, who asked what, the answer";
const HOLDER_NEVER: &str = "embeddings, scores";

impl DemoReport {
    /// The counts.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Time by stage.
    #[must_use]
    pub fn stages_ms(&self) -> StagesMs {
        StagesMs {
            ceremony: milliseconds(self.ceremony),
            enroll: milliseconds(self.enroll),
            verify: milliseconds(self.verify.took),
            identify_exists: milliseconds(self.exists.took),
            identify_matches: milliseconds(self.matches.took),
            identify_best: milliseconds(self.best.took),
            erase: milliseconds(self.erase),
        }
    }

    fn stage_table(&self) -> String {
        let plain = |name: &str, times: u64, took: Duration| {
            let each = milliseconds(took) / times.max(1) as f64;
            let numbers = [report::count(times), format!("{:.0}", milliseconds(took)), format!("{each:.2}")];
            let mut row = vec![name.to_owned()];
            row.extend(numbers);
            row
        };
        let mut rows = Vec::new();
        let mut one = |name: &str, times, took| {
            let mut row = plain(name, times, took);
            row.extend([String::new(), String::new()]);
            rows.push(row);
        };
        one("ceremony", 1, self.ceremony);
        one("enroll", self.enrolled as u64, self.enroll);
        let questions = [
            ("verify", self.verify),
            ("identify: exists", self.exists),
            ("identify: matches", self.matches),
            ("identify: best", self.best),
        ];
        for (name, asked) in questions {
            let mut row = plain(name, asked.questions, asked.took);
            let share = |a: Answers| format!("{} of {}", a.positive, a.all);
            row.extend([share(asked.mated), share(asked.strangers)]);
            rows.push(row);
        }
        let mut row = plain("erase", 1, self.erase);
        row.extend([String::new(), String::new()]);
        rows.push(row);
        report::table(
            &["stage", "times", "ms", "ms each", "enrolled found", "strangers found"],
            &[1, 2, 3, 4, 5],
            &rows,
        )
    }

    fn view_table(&self) -> String {
        let rows: Vec<_> = report::parties(&self.traffic)
            .into_iter()
            .zip(VIEWS)
            .map(|((party, bytes), (saw, never))| {
                vec![
                    party.to_owned(),
                    saw.to_owned(),
                    never.to_owned(),
                    report::bytes(bytes.sent),
                    report::bytes(bytes.received),
                ]
            })
            .collect();
        report::table(&["party", "saw", "never saw", "sent", "received"], &[3, 4], &rows)
    }
}

impl Report for DemoReport {
    fn outside_band(&self) -> u64 {
        self.tally.outside_band
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&Json {
            decisions: self.tally.decisions,
            differing: self.tally.differing,
            outside_band: self.tally.outside_band,
            stages_ms: self.stages_ms(),
            bytes_by_party: self.traffic,
        })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        text += &self.refused;
        // Writing to a string does not fail.
        let _ = writeln!(text, "{} people enrolled: {}", report::count(self.enrolled as u64), self.source);
        let _ = writeln!(text, "Threshold: cosine {}\n\n{}\n", self.threshold, self.stage_table());
        let _ = writeln!(text, "{}\n", self.view_table());
        let end = if self.gone { "it is gone: verification refuses it, no search names it" } else { "IT IS NOT GONE" };
        let _ = writeln!(text, "Erased {}: {end}.", self.erased);
        let _ = writeln!(
            text,
            "{} decisions compared with plaintext: {} in the noise band of ±{:.4} around the threshold ({BAND} × {:.5}), \
             {} differ, {} of them outside the band.",
            report::count(self.tally.decisions),
            report::count(self.tally.in_band),
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
    use crate::arguments::{Command, parse};
    use crate::encrypted;
    use crate::testing::{Lie, Plaintext};

    fn arguments(words: &str) -> DemoArguments {
        let words: Vec<_> = words.split(' ').map(std::ffi::OsString::from).collect();
        let Command::Demo(demo) = parse(&words).unwrap().command else { panic!("not a demo") };
        demo
    }

    const SMALL: &str = "veilmatch demo --gallery 40 --dim 64 --probes 3";

    fn with_lie(lie: Option<Lie>) -> Result<DemoReport, CliError> {
        run(&arguments(SMALL), &Plaintext::found(lie), &Progress::hidden())
    }

    #[test]
    fn an_honest_engine_agrees_and_every_slot_is_counted() {
        let report = with_lie(None).unwrap();
        // 6 verifications, 6 of each search with 40 slots for `matches`, then 39 slots and three more when one is gone.
        assert_eq!(report.tally(), Tally { decisions: 6 + 6 + 6 * 40 + 6 + 42, ..Tally::default() });
        assert!(report.gone && report.text().contains("it is gone"));
    }

    #[test]
    fn every_lie_is_noticed() {
        for lie in [
            Lie::Verify,
            Lie::Exists,
            Lie::DropsMatches,
            Lie::AddsStranger,
            Lie::AlwaysTooMany,
            Lie::Best,
            Lie::KeepsErased,
            Lie::WrongKind,
        ] {
            let report = with_lie(Some(lie)).unwrap();
            assert!(report.outside_band() > 0, "{lie:?}");
            assert!(report.tally().differing >= report.outside_band(), "{lie:?}");
        }
        let Err(error) = with_lie(Some(Lie::Deviates)) else { panic!("a deviation went unnoticed") };
        assert_eq!((error.exit_code(), error.status()), (3, Status::Aborted));
    }

    #[test]
    fn an_erased_subject_that_stays_is_reported() {
        let report = with_lie(Some(Lie::KeepsErased)).unwrap();
        assert!(!report.gone && report.text().contains("NOT GONE"));
    }

    #[test]
    fn the_object_has_the_documented_fields() {
        let object: serde_json::Value = serde_json::from_str(&with_lie(None).unwrap().json().unwrap()).unwrap();
        let names = |v: &serde_json::Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(names(&object), "bytes_by_party decisions differing outside_band stages_ms");
        assert_eq!(
            names(&object["stages_ms"]),
            "ceremony enroll erase identify_best identify_exists identify_matches verify"
        );
        assert_eq!(names(&object["bytes_by_party"]), "client k0 k1 k2 matcher");
        assert_eq!(names(&object["bytes_by_party"]["k1"]), "received sent");
    }

    #[test]
    fn drawn_faces_agree_too_and_are_told_apart() {
        let words = "veilmatch demo --images --gallery 6 --probes 3 --runtime rust";
        let report = run(&arguments(words), &Plaintext::found(None), &Progress::hidden()).unwrap();
        assert_eq!(report.outside_band(), 0);
        let (mated, strangers) = (report.best.mated, report.best.strangers);
        assert_eq!((mated.positive, mated.all, strangers.positive, strangers.all), (3, 3, 0, 3));
        assert!(report.text().contains("drawn faces"));
    }

    #[test]
    fn the_encrypted_demonstration_agrees() {
        agrees(SMALL);
    }

    fn agrees(command: &str) {
        let report = run(&arguments(command), &encrypted::found, &Progress::hidden()).unwrap();
        assert_eq!(report.outside_band(), 0, "{}", report.text());
        assert!(report.gone);
        for (party, bytes) in report::parties(&report.traffic) {
            assert!(bytes.sent > 0 && bytes.received > 0, "{party}");
        }
        let sum = |of: fn(&crate::engine::Bytes) -> u64| {
            report::parties(&report.traffic).iter().map(|(_, b)| of(b)).sum::<u64>()
        };
        assert_eq!(sum(|b| b.sent), sum(|b| b.received));
    }
}
