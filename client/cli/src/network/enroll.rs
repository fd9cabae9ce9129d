//! `veilmatch enroll`: one person, everybody in a table, or everybody in a folder of photos.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

use clap::{ArgGroup, Args};
use serde::Serialize;
use veilmatch_domain::{Embedding, ModelDigest, SubjectId};
use veilmatch_sdk::Enrolment;

use super::{Answer, InCollection, Output, Session, finish, of_model};
use crate::exit::{CliError, Verdict};
use crate::input;
use crate::photos::{self, Albums, PhotoOptions, RefusedPhoto, refusal_table};
use crate::report::{count, table};
use crate::services::stopped;
use crate::space::{Space, SpaceArguments};

pub(super) const EXAMPLES: &str = "\
Examples:
  veilmatch enroll --id alice alice*.jpg
  veilmatch enroll --photos staff/
  veilmatch enroll --list staff.csv --gates strict
  veilmatch enroll --id alice --replace alice-2026.jpg
  veilmatch enroll --id alice --embedding alice.npy
  veilmatch enroll --id alice --embedding staff.npy --row 17
  veilmatch enroll --collection lfw --embeddings X.npy --labels labels.csv --json

Several photos of one person are fused into one template. In the folder of
--photos each folder is a person and its name the id; staff.csv has the columns
`id,path`, paths from where it lies. Photos that are refused are listed with the
reason; a person is refused if none is left.

labels.csv has the columns `row,label`; rows count from 0. The first row of
each label is enrolled, under the label as id. Exit code 3 if anybody is
refused; who is enrolled already is refused as `already-enrolled`.";

/// Arguments of `enroll`.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("source").required(true).args(["files", "photos", "list", "embedding", "embeddings"]))]
pub struct EnrollArguments {
    /// The person's id: 1 to 64 characters from A-Z a-z 0-9 . _ - : @
    #[arg(long, value_name = "ID", conflicts_with_all = ["embeddings", "photos", "list"])]
    pub id: Option<SubjectId>,
    /// Photos of the person; a folder stands for the photos in it
    #[arg(value_name = "PHOTO", requires = "id")]
    pub files: Vec<PathBuf>,
    /// Many people's photos: a folder for each person, named after the id
    #[arg(long, value_name = "FOLDER")]
    pub photos: Option<PathBuf>,
    /// Many people's photos: columns `id,path`
    #[arg(long, value_name = "F.csv")]
    pub list: Option<PathBuf>,
    /// The person's embedding: a matrix of float16 or float32, one unit vector per row
    #[arg(long, value_name = "F.npy", requires = "id")]
    pub embedding: Option<PathBuf>,
    /// Which of its rows, counted from 0
    #[arg(long, value_name = "N", default_value_t = 0, requires = "embedding")]
    pub row: usize,
    /// Many people's embeddings
    #[arg(long, value_name = "X.npy", requires = "labels")]
    pub embeddings: Option<PathBuf>,
    /// Who is in which row: columns `row,label`
    #[arg(long, value_name = "F.csv", requires = "embeddings")]
    pub labels: Option<PathBuf>,
    /// Scale embeddings of any length to unit length instead of refusing them
    #[arg(long)]
    pub normalize: bool,
    /// How photos become templates.
    #[command(flatten)]
    pub options: PhotoOptions,
    /// Put templates in the place of those that people have, at all parties at once: a person whose new template is refused keeps
    /// the old one. Takes the roles for enrolment and for erasure
    #[arg(long)]
    pub replace: bool,
    /// What is done to embeddings.
    #[command(flatten)]
    pub space: SpaceArguments,
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
    /// Photos that gave no template.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused_photos: Vec<RefusedPhoto>,
}

/// The code of people of whom no photo was accepted.
const NO_PHOTO: &str = "no-usable-photo";

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
        text + &refusal_table(&self.refused_photos)
    }

    fn verdict(&self) -> Verdict {
        if self.refused == 0 { Verdict::Agrees } else { Verdict::Refused }
    }
}

pub(super) async fn run(session: &Session<'_>, arguments: &EnrollArguments) -> Result<Verdict, CliError> {
    let Read { people, without, refused_photos, model } = read(arguments, session)?;
    let profile = session.profile()?;
    let collection = of_model(session.collection(&profile, &arguments.collection).await?, model);
    let collection = if arguments.replace { collection.superseding() } else { collection };
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
    let mut enrolled = summary(collection.name().to_string(), &enrolment, seconds);
    enrolled.also_refused(&without, refused_photos);
    finish(&enrolled, arguments.output.json)
}

/// Who is to be enrolled, and who cannot be.
#[derive(Default)]
struct Read {
    people: Vec<(SubjectId, Embedding)>,
    /// People of whom no photo was accepted.
    without: Vec<SubjectId>,
    refused_photos: Vec<RefusedPhoto>,
    /// Their model with map and rotation, if it is known.
    model: Option<ModelDigest>,
}

/// Everything is read and checked before the first is sent.
fn read(arguments: &EnrollArguments, session: &Session<'_>) -> Result<Read, CliError> {
    let space = arguments.space.read()?;
    let albums = match (&arguments.id, &arguments.photos, &arguments.list) {
        (Some(id), ..) if !arguments.files.is_empty() => Albums::from([(id.clone(), photos::named(&arguments.files)?)]),
        (_, Some(folder), _) => photos::folder(folder)?,
        (_, _, Some(list)) => photos::listed(list)?,
        _ => {
            let model = arguments.options.named_model()?.map(|model| space.model(model));
            return Ok(Read { people: people(arguments, &space)?, model, ..Read::default() });
        }
    };
    let extractor = arguments.options.extractor(1)?;
    let made = photos::templates(&extractor, &albums, session.progress)?;
    let mapped = |(id, embedding)| Ok((id, space.apply(embedding)?));
    let people = made.people.into_iter().map(mapped).collect::<Result<_, CliError>>()?;
    let model = Some(space.model(extractor.embedder().model()));
    Ok(Read { people, without: made.without, refused_photos: made.refused, model })
}

fn people(arguments: &EnrollArguments, space: &Space) -> Result<Vec<(SubjectId, Embedding)>, CliError> {
    if let (Some(id), Some(path)) = (&arguments.id, &arguments.embedding) {
        let embedding = input::embedding(path, arguments.row, arguments.normalize)?;
        return Ok(vec![(id.clone(), space.apply(embedding)?)]);
    }
    let (Some(embeddings), Some(labels)) = (&arguments.embeddings, &arguments.labels) else {
        // clap asks for one pair or the other.
        return Ok(Vec::new());
    };
    let rows = input::embeddings(embeddings, arguments.normalize)?;
    let mut seen = BTreeSet::new();
    let mut people = Vec::new();
    for (row, label) in input::labels(labels, rows.len())? {
        let subject = input::subject(labels, row, &label)?;
        if let (true, Some(embedding)) = (seen.insert(label), rows.get(row)) {
            people.push((subject, space.apply(embedding.clone())?));
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
    Enrolled {
        collection,
        accepted: enrolment.accepted(),
        refused: refusals.len(),
        codes,
        refusals,
        seconds,
        refused_photos: Vec::new(),
    }
}

impl Enrolled {
    /// People whom nobody was asked about, because no photo of them was accepted; and all refused photos.
    fn also_refused(&mut self, without: &[SubjectId], photos: Vec<RefusedPhoto>) {
        for subject in without {
            let reasons = photos.iter().filter(|photo| photo.subject.as_deref() == Some(subject.as_str()));
            let message = reasons.map(|photo| photo.message.as_str()).collect::<Vec<_>>().join("; ");
            self.refusals.push(Refused { subject: subject.to_string(), code: NO_PHOTO.into(), message });
            *self.codes.entry(NO_PHOTO.into()).or_insert(0) += 1;
        }
        self.refused += without.len();
        self.refused_photos = photos;
    }
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

    #[test]
    fn people_without_a_usable_photo_are_refused_with_the_reason_of_each_photo() {
        let photo = |subject: &str, message: &str| RefusedPhoto {
            subject: Some(subject.into()),
            file: format!("{subject}.jpg"),
            code: "face-too-small",
            message: message.into(),
        };
        let mut enrolled = summary("staff".into(), &Enrolment { results: vec![] }, 1.0);
        let refused = vec![photo("ann", "too small"), photo("bo", "too dark"), photo("bo", "blurred")];
        enrolled.also_refused(&[SubjectId::new("bo").unwrap()], refused);
        assert_eq!((enrolled.refused, enrolled.verdict()), (1, Verdict::Refused));
        assert_eq!(
            (enrolled.refusals[0].subject.as_str(), enrolled.refusals[0].message.as_str()),
            ("bo", "too dark; blurred")
        );
        let text = enrolled.text();
        assert!(text.contains("no-usable-photo") && text.contains("ann.jpg"), "{text}");
    }
}
