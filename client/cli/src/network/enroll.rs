//! `veilmatch enroll`: one person, or everybody in a table.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use veilmatch_domain::{Embedding, SubjectId};
use veilmatch_sdk::Enrolment;

use super::{Answer, InCollection, Output, Session, finish};
use crate::exit::{CliError, Verdict};
use crate::input;
use crate::report::{count, table};
use crate::rotation::{RotatedBy, rotated};
use crate::services::stopped;

pub(super) const EXAMPLES: &str = "\
Examples:
  veilmatch enroll --id alice --embedding alice.npy
  veilmatch enroll --id alice --embedding staff.npy --row 17
  veilmatch enroll --collection lfw --embeddings X.npy --labels labels.csv --json

labels.csv has the columns `row,label`; rows count from 0. The first row of
each label is enrolled, under the label as id. Exit code 3 if anybody is
refused; who is enrolled already is refused as `already-enrolled`.";

/// Arguments of `enroll`.
#[derive(Clone, Debug, Args)]
pub struct EnrollArguments {
    /// The person's id: 1 to 64 characters from A-Z a-z 0-9 . _ - : @
    #[arg(long, value_name = "ID", requires = "embedding", required_unless_present = "embeddings")]
    pub id: Option<SubjectId>,
    /// The person's embedding: a matrix of float16 or float32, one unit vector per row
    #[arg(long, value_name = "F.npy", requires = "id", conflicts_with = "embeddings")]
    pub embedding: Option<PathBuf>,
    /// Which of its rows, counted from 0
    #[arg(long, value_name = "N", default_value_t = 0, requires = "embedding")]
    pub row: usize,
    /// Many people's embeddings
    #[arg(long, value_name = "X.npy", requires = "labels", conflicts_with = "id")]
    pub embeddings: Option<PathBuf>,
    /// Who is in which row: columns `row,label`
    #[arg(long, value_name = "F.csv", requires = "embeddings")]
    pub labels: Option<PathBuf>,
    /// Scale embeddings of any length to unit length instead of refusing them
    #[arg(long)]
    pub normalize: bool,
    /// The rotation.
    #[command(flatten)]
    pub rotated: RotatedBy,
    /// The collection.
    #[command(flatten)]
    pub collection: InCollection,
    /// The report.
    #[command(flatten)]
    pub output: Output,
}

#[derive(Serialize)]
struct Enrolled {
    collection: String,
    accepted: usize,
    refused: usize,
    /// People by the code of their refusal.
    codes: BTreeMap<String, usize>,
    refusals: Vec<Refused>,
    seconds: f64,
}

#[derive(Serialize)]
struct Refused {
    subject: String,
    code: String,
    message: String,
}

impl Answer for Enrolled {
    fn text(&self) -> String {
        let rate = if self.seconds > 0.0 { self.accepted as f64 / self.seconds } else { 0.0 };
        let mut text = format!(
            "{}: {} accepted, {} refused, {:.2} s ({rate:.0} a second)\n",
            self.collection,
            count(self.accepted as u64),
            count(self.refused as u64),
            self.seconds,
        );
        if !self.codes.is_empty() {
            let first = |code: &str| self.refusals.iter().find(|refused| refused.code == code);
            let rows: Vec<Vec<String>> = self
                .codes
                .iter()
                .map(|(code, number)| {
                    let (who, why) = first(code).map_or(("", ""), |first| (&first.subject, &first.message));
                    vec![code.clone(), count(*number as u64), who.to_owned(), why.to_owned()]
                })
                .collect();
            text += &table(&["refused as", "people", "for example", "because"], &[1], &rows);
            text.push('\n');
        }
        text
    }

    fn verdict(&self) -> Verdict {
        if self.refused == 0 { Verdict::Agrees } else { Verdict::Refused }
    }
}

pub(super) async fn run(session: &Session<'_>, arguments: &EnrollArguments) -> Result<Verdict, CliError> {
    let people = people(arguments)?;
    let profile = session.profile()?;
    let collection = session.collection(&profile, &arguments.collection).await?;
    let bar = session.progress.stage("enrolling", people.len());
    let began = Instant::now();
    let enrolment = collection.enroll_many(people, |progress| bar.reach(progress.done)).await;
    let seconds = began.elapsed().as_secs_f64();
    drop(bar);
    let enrolment = enrolment.map_err(|interrupted| {
        let answered = interrupted.so_far.results.iter().filter(|result| result.verdict.is_some()).count();
        // What the party or the connection says; how far it came is worth knowing too.
        match stopped(interrupted.error) {
            CliError::Refused { code, status, message } => {
                CliError::Refused { code, status, message: format!("after {answered} results: {message}") }
            }
            other => other,
        }
    })?;
    finish(&summary(collection.name().to_string(), &enrolment, seconds), arguments.output.json)
}

/// Everything is read and checked before the first is sent.
fn people(arguments: &EnrollArguments) -> Result<Vec<(SubjectId, Embedding)>, CliError> {
    if let (Some(id), Some(path)) = (&arguments.id, &arguments.embedding) {
        let embedding = input::embedding(path, arguments.row, arguments.normalize)?;
        return Ok(vec![(id.clone(), arguments.rotated.apply(embedding)?)]);
    }
    let (Some(embeddings), Some(labels)) = (&arguments.embeddings, &arguments.labels) else {
        // clap asks for one pair or the other.
        return Ok(Vec::new());
    };
    let mut rows = input::embeddings(embeddings, arguments.normalize)?;
    if let Some(rotation) = arguments.rotated.read()? {
        rows = rows.iter().map(|row| rotated(&rotation, row)).collect::<Result<_, _>>()?;
    }
    let mut seen = BTreeSet::new();
    let mut people = Vec::new();
    for (row, label) in input::labels(labels, rows.len())? {
        let subject = input::subject(labels, row, &label)?;
        if let (true, Some(embedding)) = (seen.insert(label), rows.get(row)) {
            people.push((subject, embedding.clone()));
        }
    }
    Ok(people)
}

fn summary(collection: String, enrolment: &Enrolment, seconds: f64) -> Enrolled {
    let refusals: Vec<Refused> = enrolment
        .refused()
        .map(|(subject, refusal)| Refused {
            subject: subject.to_string(),
            code: refusal.code.clone(),
            message: refusal.message.clone(),
        })
        .collect();
    let mut codes = BTreeMap::new();
    for refused in &refusals {
        *codes.entry(refused.code.clone()).or_insert(0) += 1;
    }
    Enrolled { collection, accepted: enrolment.accepted(), refused: refusals.len(), codes, refusals, seconds }
}

#[cfg(test)]
mod tests {
    use super::*;
    use veilmatch_glwe::{Refusal, Verdict as Answered};

    #[test]
    fn refusals_are_counted_by_code_and_end_with_exit_code_3() {
        let refusal = |code: &str| Refusal { code: code.into(), status: 6, suspects: vec![], message: "why".into() };
        let result = |name: &str, verdict| veilmatch_sdk::Enrolled {
            subject: SubjectId::new(name).unwrap(),
            verdict: Some(verdict),
        };
        let results = vec![
            result("a", Answered::Accepted),
            result("b", Answered::Refused(refusal("already-enrolled"))),
            result("c", Answered::Refused(refusal("busy"))),
            result("d", Answered::Refused(refusal("already-enrolled"))),
        ];
        let summary = summary("staff".into(), &Enrolment { results }, 2.0);
        assert_eq!((summary.accepted, summary.refused, summary.verdict()), (1, 3, Verdict::Refused));
        assert_eq!(
            summary.codes.iter().map(|(c, n)| (c.as_str(), *n)).collect::<Vec<_>>(),
            [("already-enrolled", 2), ("busy", 1)]
        );
        let text = summary.text();
        assert!(text.starts_with("staff: 1 accepted, 3 refused") && text.contains("already-enrolled"), "{text}");
    }
}
