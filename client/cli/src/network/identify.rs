//! `veilmatch identify`: who, if anybody, is the probe?

use clap::{Args, ValueEnum};
use serde::Serialize;
use veilmatch_domain::{Outcome, SubjectId, Threshold};
use veilmatch_sdk::Ask;

use super::{Answer, InCollection, OneEmbedding, Output, Session, finish, threshold};
use crate::exit::{CliError, Verdict};
use crate::services::stopped;

pub(super) const EXAMPLES: &str = "\
Examples:
  veilmatch identify --embedding probe.npy
  veilmatch identify --embedding probe.npy --mode exists
  veilmatch identify --embedding probes.npy --row 3 --mode matches --max-matches 8 --json

If more people than --max-matches match, only that fact is opened.";

/// Arguments of `identify`.
#[derive(Clone, Debug, Args)]
pub struct IdentifyArguments {
    /// The probe.
    #[command(flatten)]
    pub probe: OneEmbedding,
    /// What to ask
    #[arg(long, value_enum, default_value_t = Mode::Best)]
    pub mode: Mode,
    /// Most people that `matches` may name, 1 to 64
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub max_matches: u16,
    /// Cosine from which two faces match, -0.9 to 0.9; by default the profile's, else 0.427
    #[arg(long, value_name = "T", value_parser = threshold, allow_negative_numbers = true)]
    pub threshold: Option<Threshold>,
    /// The collection.
    #[command(flatten)]
    pub collection: InCollection,
    /// The report.
    #[command(flatten)]
    pub output: Output,
}

/// The question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Who has the highest score at or above the threshold?
    Best,
    /// Is anybody at or above the threshold?
    Exists,
    /// Who is at or above the threshold?
    Matches,
}

#[derive(Serialize)]
struct Identified {
    collection: String,
    mode: &'static str,
    threshold: f64,
    found: bool,
    /// More people match than may be named.
    too_many: bool,
    subjects: Vec<String>,
}

impl Identified {
    fn new(collection: String, threshold: Threshold, outcome: Outcome) -> Self {
        let names = |subjects: Vec<SubjectId>| subjects.iter().map(SubjectId::to_string).collect::<Vec<_>>();
        let (mode, found, subjects) = match outcome {
            Outcome::Verify(found) => ("verify", found, Vec::new()),
            Outcome::Exists(found) => ("exists", found, Vec::new()),
            Outcome::TooMany => ("matches", true, Vec::new()),
            Outcome::Matches(subjects) => ("matches", !subjects.is_empty(), names(subjects)),
            Outcome::Best(best) => ("best", best.is_some(), names(best.into_iter().collect())),
        };
        let too_many = mode == "matches" && found && subjects.is_empty();
        Self { collection, mode, threshold: threshold.cosine(), found, too_many, subjects }
    }
}

impl Answer for Identified {
    fn text(&self) -> String {
        let place = format!("in {} at {}", self.collection, self.threshold);
        match (self.found, self.too_many) {
            (false, _) => format!("no match {place}\n"),
            (true, true) => format!("more matches than may be named {place}\n"),
            (true, false) if self.subjects.is_empty() => format!("there is a match {place}\n"),
            (true, false) => format!("{}\n", self.subjects.join("\n")),
        }
    }

    fn verdict(&self) -> Verdict {
        if self.found { Verdict::Agrees } else { Verdict::No }
    }
}

pub(super) async fn run(session: &Session<'_>, arguments: &IdentifyArguments) -> Result<Verdict, CliError> {
    let probe = arguments.probe.read()?;
    let profile = session.profile()?;
    let threshold = profile.threshold(arguments.threshold)?;
    let collection = session.collection(&profile, &arguments.collection).await?;
    let ask = match arguments.mode {
        Mode::Best => Ask::Best,
        Mode::Exists => Ask::Exists,
        Mode::Matches => Ask::Matches { max: arguments.max_matches },
    };
    let outcome = collection.identify(&probe, ask, threshold).await.map_err(stopped)?;
    finish(&Identified::new(collection.name().to_string(), threshold, outcome), arguments.output.json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_text_and_an_exit_code() {
        let subject = |name: &str| SubjectId::new(name).unwrap();
        let of = |outcome| Identified::new("staff".into(), Threshold::new(0.5).unwrap(), outcome);
        for (outcome, text, verdict) in [
            (Outcome::Best(None), "no match in staff at 0.5\n", Verdict::No),
            (Outcome::Best(Some(subject("a"))), "a\n", Verdict::Agrees),
            (Outcome::Exists(true), "there is a match in staff at 0.5\n", Verdict::Agrees),
            (Outcome::Exists(false), "no match in staff at 0.5\n", Verdict::No),
            (Outcome::Matches(vec![]), "no match in staff at 0.5\n", Verdict::No),
            (Outcome::Matches(vec![subject("a"), subject("b")]), "a\nb\n", Verdict::Agrees),
            (Outcome::TooMany, "more matches than may be named in staff at 0.5\n", Verdict::Agrees),
        ] {
            let answer = of(outcome);
            assert_eq!((answer.text().as_str(), answer.verdict()), (text, verdict));
        }
    }
}
