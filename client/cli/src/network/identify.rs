//! `veilmatch identify`: who, if anybody, is the probe?

use clap::{Args, ValueEnum};
use serde::Serialize;
use veilmatch_domain::{Outcome, Preselection, SubjectId, Threshold};
use veilmatch_sdk::Ask;

use super::{Answer, InCollection, OneEmbedding, Output, Probe, Session, finish, of_model, threshold};
use crate::exit::{CliError, Verdict};
use crate::services::stopped;

pub(super) const EXAMPLES: &str = "\
Examples:
  veilmatch identify photo.jpg
  veilmatch identify --embedding probe.npy
  veilmatch identify --embedding probe.npy --mode exists
  veilmatch identify --embedding probes.npy --row 3 --mode matches --max-matches 8 --json
  veilmatch identify --embedding probe.npy --rotation pca.rotation --preselect 192 --coarse-threshold 0.1

If more people than --max-matches match, only that fact is opened.

With --preselect the matcher and the key holders learn which packed groups hold candidates for the
probe, and the matcher that nobody matches if none does; the collection's policy must allow it, and
it counts as two decisions. Whom the coarse threshold does not reach is not found: `veilmatch
calibrate` says which threshold finds how many.";

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
    /// Cosine from which two faces match, -0.9 to 0.9; by default the profile's, else the model's at one false match in
    /// 10,000, else 0.427
    #[arg(long, value_name = "T", value_parser = threshold, allow_negative_numbers = true)]
    pub threshold: Option<Threshold>,
    /// The preselection.
    #[command(flatten)]
    pub preselection: PreselectionArguments,
    /// The collection.
    #[command(flatten)]
    pub collection: InCollection,
    /// The report.
    #[command(flatten)]
    pub output: Output,
}

/// A coarse stage before the decision.
#[derive(Clone, Debug, Args)]
pub struct PreselectionArguments {
    /// Compare the first M dimensions of everybody, and all of them only within groups that hold a candidate; M is
    /// what the matcher's index is cut at
    #[arg(long, value_name = "M", requires = "coarse_threshold", value_parser = clap::value_parser!(u16).range(1..=1023))]
    pub preselect: Option<u16>,
    /// Inner product of the first M dimensions from which somebody is a candidate, -0.9 to 0.9
    #[arg(long, value_name = "T", requires = "preselect", value_parser = threshold, allow_negative_numbers = true)]
    pub coarse_threshold: Option<Threshold>,
    /// Most groups that may hold candidates; if more do, the search is refused and only that is opened
    #[arg(long, value_name = "K", requires = "preselect", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub most_groups: u32,
}

impl PreselectionArguments {
    fn wanted(&self) -> Option<Preselection> {
        let (dimensions, threshold) = self.preselect.zip(self.coarse_threshold)?;
        Some(Preselection { dimensions, threshold, most_groups: self.most_groups })
    }
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
    /// The coarse stage that came first, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    preselection: Option<Preselected>,
}

#[derive(Clone, Copy, Serialize)]
struct Preselected {
    dimensions: u16,
    threshold: f64,
    most_groups: u32,
}

impl Identified {
    fn new(collection: String, threshold: Threshold, asked: Option<Preselection>, outcome: Outcome) -> Self {
        let names = |subjects: Vec<SubjectId>| subjects.iter().map(SubjectId::to_string).collect::<Vec<_>>();
        let (mode, found, subjects) = match outcome {
            Outcome::Verify(found) => ("verify", found, Vec::new()),
            Outcome::Exists(found) => ("exists", found, Vec::new()),
            Outcome::TooMany => ("matches", true, Vec::new()),
            Outcome::Matches(subjects) => ("matches", !subjects.is_empty(), names(subjects)),
            Outcome::Best(best) => ("best", best.is_some(), names(best.into_iter().collect())),
        };
        let too_many = mode == "matches" && found && subjects.is_empty();
        let preselection = asked.map(|asked| Preselected {
            dimensions: asked.dimensions,
            threshold: asked.threshold.cosine(),
            most_groups: asked.most_groups,
        });
        Self { collection, mode, threshold: threshold.cosine(), found, too_many, subjects, preselection }
    }
}

impl Answer for Identified {
    fn text(&self) -> String {
        let stage = self.preselection.map_or_else(String::new, |coarse| {
            format!(", preselected on {} dimensions at {}", coarse.dimensions, coarse.threshold)
        });
        let place = format!("in {} at {}{stage}", self.collection, self.threshold);
        match (self.found, self.too_many) {
            (false, _) => format!("no match {place}\n"),
            (true, true) => format!("more matches than may be named {place}\n"),
            (true, false) if self.subjects.is_empty() => format!("there is a match {place}\n"),
            // Names alone, one a line, for scripts.
            (true, false) => format!("{}\n", self.subjects.join("\n")),
        }
    }

    fn verdict(&self) -> Verdict {
        if self.found { Verdict::Agrees } else { Verdict::No }
    }
}

pub(super) async fn run(session: &Session<'_>, arguments: &IdentifyArguments) -> Result<Verdict, CliError> {
    let Probe { embedding: probe, usual, model } = arguments.probe.read(session.progress)?;
    let profile = session.profile()?;
    let threshold = profile.threshold_or(arguments.threshold, usual)?;
    let collection = of_model(session.collection(&profile, &arguments.collection).await?, model);
    let ask = match arguments.mode {
        Mode::Best => Ask::Best,
        Mode::Exists => Ask::Exists,
        Mode::Matches => Ask::Matches { max: arguments.max_matches },
    };
    let preselection = arguments.preselection.wanted();
    let outcome = match preselection {
        Some(coarse) => collection.identify_preselected(&probe, ask, threshold, coarse).await,
        None => collection.identify(&probe, ask, threshold).await,
    };
    let outcome = outcome.map_err(stopped)?;
    let identified = Identified::new(collection.name().to_string(), threshold, preselection, outcome);
    finish(&identified, arguments.output.json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_text_and_an_exit_code() {
        let subject = |name: &str| SubjectId::new(name).unwrap();
        let of = |outcome| Identified::new("staff".into(), Threshold::new(0.5).unwrap(), None, outcome);
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
        let coarse = Preselection { dimensions: 192, threshold: Threshold::new(0.1).unwrap(), most_groups: 4 };
        let nobody = Outcome::Best(None);
        let answer = Identified::new("staff".into(), Threshold::new(0.5).unwrap(), Some(coarse), nobody);
        assert_eq!(answer.text(), "no match in staff at 0.5, preselected on 192 dimensions at 0.1\n");
        let json = serde_json::to_value(&answer).unwrap();
        assert_eq!(
            (&json["preselection"]["dimensions"], &json["preselection"]["most_groups"]),
            (&192.into(), &4.into())
        );
    }
}
