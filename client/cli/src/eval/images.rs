//! `eval images` and `eval time-limits`: from photos, through the pipeline of `veilmatch-extract`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use veilmatch_domain::{Decision, Embedding, Explain, Query, SubjectId, Threshold};
use veilmatch_evaluation::encrypted::EncryptedPoint;
use veilmatch_evaluation::images::{
    self, Accuracy, Acquisition, Image, Outcome, Pair as Judged, Pairs, TimeLimits, accuracy, acquisition,
};
use veilmatch_evaluation::page::{self, Page};
use veilmatch_extract::{ExtractError, Extractor, Task};

use super::encrypted::{self, Chosen, subject};
use super::pairs::{self, EncryptedAt};
use super::{Evaluated, Outputs, percent, rate_text, refused};
use crate::arguments::{SchemeArguments, threshold};
use crate::engine::{Found, Setup};
use crate::exit::CliError;
use crate::input::{self, ImagePair, InputError, Pair};
use crate::photos::{FaceWord, PhotoOptions};
use crate::report::{self, Progress};
use crate::synthetic;

pub(crate) const EXAMPLES: &str = "\
Examples:
  veilmatch eval images --images lfw --pairs lfw/pairs.txt
  veilmatch eval images --images lfw/images --pairs lfw/image_pairs.csv --html images.html
  veilmatch eval images --images lfw/images --pairs lfw/image_pairs.csv \\
      --gates strict --runtime rust --plaintext-only --json

pairs.txt is LFW's own file: a header, then per fold mated lines `name m n` and
non-mated lines `name m name n` of the files name/name_0001.jpg. A CSV has the
columns `fold,a,b,same` with paths below the folder. An image that a gate refuses
is a failure to acquire: its pairs stay and are decided as no match.";

pub(crate) const TIME_EXAMPLES: &str = "\
Examples:
  veilmatch eval time-limits --images photos
  veilmatch eval time-limits --images photos --gallery 10000 --runtime rust --json

One photo at a time, from its bytes to the decision `best`: decode, detect, align,
judge, embed, then seal, match and read the answer with all parties in this
process. Limits as in FRUITS (WebFace260M).";

/// Thresholds where none is given.
const FMRS: [f64; 2] = [1e-3, 1e-4];
/// Endings of photos in a folder.
const PHOTOS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];
/// Deepest folder below the one that is named.
const DEPTH: usize = 4;

/// Arguments of `eval images`.
#[derive(Clone, Debug, Args)]
pub struct ImagesArguments {
    /// The folder of the images
    #[arg(long, value_name = "FOLDER")]
    pub images: PathBuf,
    /// LFW's pairs.txt, or a table with the columns `fold,a,b,same`
    #[arg(long, value_name = "FILE")]
    pub pairs: PathBuf,
    /// How photos become templates.
    #[command(flatten)]
    pub photos: PhotoOptions,
    /// Thresholds [default: those that the model's manifest gives for FMR 1e-3 and 1e-4]
    #[arg(long, value_name = "T,..", value_delimiter = ',', value_parser = threshold, allow_negative_numbers = true)]
    pub threshold: Vec<Threshold>,
    /// No decisions through the encrypted protocol
    #[arg(long)]
    pub plaintext_only: bool,
    /// Under which scheme, and with which key
    #[command(flatten)]
    pub scheme: SchemeArguments,
    /// What to write.
    #[command(flatten)]
    pub outputs: Outputs,
}

/// Arguments of `eval time-limits`.
#[derive(Clone, Debug, Args)]
pub struct TimeLimitsArguments {
    /// A folder of photos, or one photo
    #[arg(long, value_name = "PATH")]
    pub images: PathBuf,
    /// How photos become templates.
    #[command(flatten)]
    pub photos: PhotoOptions,
    /// How many of the photos at most, evenly spread
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub most: u32,
    /// People in the encrypted gallery, who are synthetic
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub gallery: u32,
    /// Limits in milliseconds
    #[arg(long, value_name = "MS,..", value_delimiter = ',', default_value = "100,500,1000", value_parser = milliseconds)]
    pub limits: Vec<f64>,
    /// Under which scheme, and with which key
    #[command(flatten)]
    pub scheme: SchemeArguments,
    /// What to write.
    #[command(flatten)]
    pub outputs: Outputs,
}

fn milliseconds(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| String::from("not a number"))?;
    if number > 0.0 && number.is_finite() { Ok(number) } else { Err(String::from("not a time in milliseconds")) }
}

/// Whether this is said of the photo, and not of the installation.
fn about_the_photo(error: &ExtractError) -> bool {
    !matches!(
        error,
        ExtractError::Library(_) | ExtractError::Manifest(_) | ExtractError::Runtime(_) | ExtractError::NoModel { .. }
    )
}

/// The result of `eval images`.
#[derive(Serialize)]
pub(super) struct FromImages {
    model: String,
    runtime: String,
    acquisition: Acquisition,
    accuracy: Option<Accuracy>,
    points: Vec<Pairs>,
    encrypted: Vec<EncryptedPoint>,
}

/// Extracted images: what became of each, and its template where there is one.
struct Extracted {
    images: Vec<Image>,
    templates: Vec<Option<Embedding>>,
}

pub(super) fn run(
    arguments: &ImagesArguments,
    found: &Found<'_>,
    progress: &Progress,
) -> Result<Evaluated<FromImages>, CliError> {
    let extractor = arguments.photos.extractor_of(FaceWord::Central)?;
    let thresholds = thresholds(arguments, &extractor)?;
    let listed = input::image_pairs(&arguments.pairs)?;
    let (files, places) = files(&arguments.images, &listed)?;
    let extracted = extract(&extractor, &files, progress)?;
    let both: Vec<(Pair, Judged)> =
        listed.iter().map(|pair| judged(pair, &places, &extracted)).collect::<Result<_, _>>()?;
    let judged: Vec<Judged> = both.iter().map(|p| p.1).collect();
    let bootstrap = arguments.outputs.bootstrap();
    let points = thresholds
        .iter()
        .map(|t| images::pairs(&extracted.images, &judged, t.threshold.cosine(), bootstrap))
        .collect::<Result<Vec<_>, _>>()
        .map_err(refused)?;
    let encrypted = if arguments.plaintext_only {
        Vec::new()
    } else {
        ask(arguments, &both, &extracted, &thresholds, &points, found, progress)?
    };
    let result = FromImages {
        model: extractor.embedder().name.clone(),
        runtime: extractor.runtime(),
        acquisition: acquisition(&extracted.images, bootstrap),
        accuracy: accuracy(&judged),
        points,
        encrypted,
    };
    let source = format!(
        "{} and {}: {} images, {} pairs; {}, {}",
        arguments.images.display(),
        arguments.pairs.display(),
        report::count(files.len() as u64),
        report::count(listed.len() as u64),
        result.model,
        result.runtime
    );
    let mut page = Page::default();
    page.images(&result.acquisition, &result.points, result.accuracy);
    page.encrypted(&result.encrypted);
    arguments.outputs.write(&page, &source)?;
    let text = format!("{source}\n{}", text(&result));
    let outside_band = result.encrypted.iter().map(|e| e.outside_band).sum();
    Ok(Evaluated { eval: "images", result, text, outside_band })
}

/// What was asked for, or what the model's manifest gives.
fn thresholds(arguments: &ImagesArguments, extractor: &Extractor) -> Result<Vec<Chosen>, CliError> {
    if !arguments.threshold.is_empty() {
        // For no FMR that anybody knows of.
        let chosen = |&threshold: &Threshold| Chosen { wanted: 0.0, reached: 0.0, threshold };
        return Ok(arguments.threshold.iter().map(chosen).collect());
    }
    let Task::Embed(embed) = &extractor.embedder().task else { return Ok(Vec::new()) };
    let calibrated = FMRS.iter().filter_map(|&fmr| Some((fmr, embed.cosine_at(fmr)?)));
    let chosen: Vec<Chosen> =
        calibrated.map(|(fmr, cosine)| Chosen::new(fmr, fmr, cosine)).collect::<Result<_, _>>()?;
    if chosen.is_empty() { Err(CliError::Arguments(Box::new(NotCalibrated))) } else { Ok(chosen) }
}

/// The manifest gives no threshold.
#[derive(Debug, thiserror::Error)]
#[error("the model's manifest has no threshold for FMR 1e-3 or 1e-4")]
struct NotCalibrated;

impl Explain for NotCalibrated {
    fn code(&self) -> &'static str {
        "not-calibrated"
    }
    fn status(&self) -> veilmatch_domain::Status {
        veilmatch_domain::Status::InvalidArgument
    }
    fn advice(&self) -> &'static str {
        "give --threshold"
    }
}

/// Every file of the pairs once, and which one a name is.
fn files(folder: &Path, pairs: &[ImagePair]) -> Result<(Vec<PathBuf>, BTreeMap<String, usize>), CliError> {
    let names: std::collections::BTreeSet<&String> = pairs.iter().flat_map(|p| [&p.a, &p.b]).collect();
    let files: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
    if let Some(path) = files.iter().find(|path| !path.is_file()) {
        // An image that is not there is no failure to acquire: nothing was presented.
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(InputError::Open { path: path.clone(), source }.into());
    }
    Ok((files, names.into_iter().cloned().zip(0..).collect()))
}

fn extract(extractor: &Extractor, files: &[PathBuf], progress: &Progress) -> Result<Extracted, CliError> {
    let bar = progress.stage("extract", files.len());
    let mut people: BTreeMap<PathBuf, u32> = BTreeMap::new();
    let (mut images, mut templates) = (Vec::with_capacity(files.len()), Vec::with_capacity(files.len()));
    for (file, result) in files.iter().zip(extractor.extract_many(files, 0, &|done| bar.reach(done))) {
        // A folder is a person; a file without one is a person of its own.
        let folder = file.parent().unwrap_or(file).to_path_buf();
        let next = people.len() as u32;
        let person = *people.entry(folder).or_insert(next);
        let (image, template) = match result {
            Ok(extraction) => {
                let stages = extraction.timings.stages().map(|(name, took)| (name, took.as_secs_f64() * 1e3));
                let image = Image { person, outcome: Outcome::Acquired, stages: stages.to_vec() };
                (image, Some(extraction.embedding))
            }
            Err(error) if about_the_photo(&error) => {
                let outcome = Outcome::Refused(error.code().to_owned());
                (Image { person, outcome, stages: Vec::new() }, None)
            }
            Err(error) => return Err(CliError::Arguments(Box::new(error))),
        };
        images.push(image);
        templates.push(template);
    }
    Ok(Extracted { images, templates })
}

/// A listed pair by the numbers of its images, and with its score.
fn judged(
    pair: &ImagePair,
    places: &BTreeMap<String, usize>,
    extracted: &Extracted,
) -> Result<(Pair, Judged), CliError> {
    let place = |name: &String| places.get(name).copied().unwrap_or(usize::MAX);
    let (a, b) = (place(&pair.a), place(&pair.b));
    let template = |at: usize| extracted.templates.get(at).and_then(Option::as_ref);
    let score = match (template(a), template(b)) {
        (Some(a), Some(b)) => Some(b.cosine(a)?),
        _ => None,
    };
    let by_row = Pair { fold: pair.fold, a, b, same: pair.same };
    Ok((by_row, Judged { fold: pair.fold, images: (a, b), same: pair.same, score }))
}

/// Decides all pairs of two acquired images through the encrypted protocol.
fn ask(
    arguments: &ImagesArguments,
    both: &[(Pair, Judged)],
    extracted: &Extracted,
    thresholds: &[Chosen],
    plain: &[Pairs],
    found: &Found<'_>,
    progress: &Progress,
) -> Result<Vec<EncryptedPoint>, CliError> {
    // Rows are numbers of acquired images.
    let mut row = vec![usize::MAX; extracted.templates.len()];
    let mut embeddings: Vec<Embedding> = Vec::new();
    for (at, template) in extracted.templates.iter().enumerate() {
        if let Some(template) = template {
            row[at] = embeddings.len();
            embeddings.push(template.clone());
        }
    }
    let acquired: Vec<Pair> = both
        .iter()
        .filter(|(_, judged)| judged.score.is_some())
        .map(|(pair, _)| Pair { a: row[pair.a], b: row[pair.b], ..*pair })
        .collect();
    // What was measured here, beside what the manifest promises.
    let chosen: Vec<Chosen> = thresholds.iter().zip(plain).map(|(c, p)| Chosen { reached: p.fmr.rate, ..*c }).collect();
    let at = EncryptedAt { pairs: &acquired, non_mated: usize::MAX, fmr: &[], scheme: arguments.scheme.chosen() };
    pairs::decided(&embeddings, &at, &chosen, found, progress)
}

fn text(result: &FromImages) -> String {
    let a = &result.acquisition;
    let mut text = format!("Failure to acquire: {}\n", rate_text(&a.failure_to_acquire));
    for (reason, count) in &a.reasons {
        text += &format!("  {reason}: {count}\n");
    }
    if let Some(accuracy) = result.accuracy {
        text += &format!(
            "Accuracy over {} folds: {} ± {} (a pair with a refused image is decided as no match)\n",
            accuracy.folds,
            percent(accuracy.accuracy),
            percent(accuracy.standard_error)
        );
    }
    let rows: Vec<Vec<String>> = result
        .points
        .iter()
        .map(|p| {
            vec![
                format!("{:.4}", p.threshold),
                format!("{} of {}", p.refused, p.pairs),
                page::rate_numbers(&p.fmr),
                page::rate_numbers(&p.fnmr),
                page::rate_numbers(&p.false_accept),
                page::rate_numbers(&p.false_reject),
            ]
        })
        .collect();
    let header = ["threshold", "refused pairs", "FMR, %", "FNMR, %", "false accepts, %", "false rejects, %"];
    text += &format!("\n{}\n", report::table(&header, &[0, 1, 2, 3, 4, 5], &rows));
    text += &pairs::encrypted_text(&result.encrypted);
    text
}

/// The result of `eval time-limits`.
#[derive(Serialize)]
pub(super) struct Timed {
    model: String,
    runtime: String,
    gallery: u32,
    refused: u64,
    #[serde(flatten)]
    times: TimeLimits,
}

pub(super) fn time_limits(
    arguments: &TimeLimitsArguments,
    found: &Found<'_>,
    progress: &Progress,
) -> Result<Evaluated<Timed>, CliError> {
    let extractor = arguments.photos.extractor_of(FaceWord::Largest)?;
    let mut photos = Vec::new();
    collect(&arguments.images, DEPTH, &mut photos)?;
    photos.sort();
    let numbers: Vec<usize> = (0..photos.len()).collect();
    let numbers = encrypted::sample(&numbers, arguments.most as usize);
    let Task::Embed(embed) = &extractor.embedder().task else {
        return Err(CliError::Arguments(Box::new(NotCalibrated)));
    };
    let threshold = Threshold::new(0.4).map_err(|e| CliError::Arguments(Box::new(e)))?;
    let setup = Setup {
        dimension: embed.dimension,
        members: arguments.gallery as usize,
        lowest_threshold: threshold,
        highest_threshold: threshold,
        scheme: arguments.scheme.chosen(),
    };
    let mut engine = found(&setup)?;
    let people = synthetic::people(arguments.gallery as usize, 1, embed.dimension, arguments.outputs.seed)?;
    let people: Vec<(SubjectId, Embedding)> = people
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(row, embedding)| Ok((subject(row).map_err(CliError::protocol)?, embedding)))
        .collect::<Result<_, CliError>>()?;
    let bar = progress.stage("enroll", people.len());
    engine.enroll(&people, &|count| bar.reach(count))?;
    drop(bar);
    let query = Query::new(Decision::Best, threshold);
    let bar = progress.stage("photos", numbers.len());
    let mut attempts = Vec::with_capacity(numbers.len());
    for photo in numbers.into_iter().filter_map(|n| photos.get(n)) {
        let outcome = match extractor.extract_file(photo) {
            Ok(extraction) => {
                let began = Instant::now();
                engine.ask(&extraction.embedding, &query)?;
                let match_ms = began.elapsed().as_secs_f64() * 1e3;
                let mut stages: Vec<(&'static str, f64)> = extraction
                    .timings
                    .stages()
                    .into_iter()
                    .map(|(name, took)| (name, took.as_secs_f64() * 1e3))
                    .collect();
                stages.push(("seal and match", match_ms));
                Image { person: 0, outcome: Outcome::Acquired, stages }
            }
            Err(error) if about_the_photo(&error) => {
                Image { person: 0, outcome: Outcome::Refused(error.code().to_owned()), stages: Vec::new() }
            }
            Err(error) => return Err(CliError::Arguments(Box::new(error))),
        };
        attempts.push(outcome);
        bar.step();
    }
    drop(bar);
    let times = images::time_limits(&attempts, &arguments.limits).map_err(refused)?;
    let result = Timed {
        model: extractor.embedder().name.clone(),
        runtime: extractor.runtime(),
        gallery: arguments.gallery,
        refused: attempts.iter().filter(|a| a.outcome != Outcome::Acquired).count() as u64,
        times,
    };
    let source = format!(
        "{}: {} photos, {} of them refused; {}, {}; {} people enrolled, all parties in this process",
        arguments.images.display(),
        report::count(attempts.len() as u64),
        result.refused,
        result.model,
        result.runtime,
        report::count(arguments.gallery.into()),
    );
    let mut page = Page::default();
    page.time_limits(&result.times);
    arguments.outputs.write(&page, &source)?;
    let rows: Vec<Vec<String>> = result
        .times
        .stages
        .iter()
        .map(|s| vec![s.stage.clone(), format!("{:.2}", s.p50), format!("{:.2}", s.p95), format!("{:.2}", s.p99)])
        .collect();
    let mut text = format!(
        "{source}\n\n{}\n\n",
        report::table(&["stage", "median, ms", "95th percentile", "99th percentile"], &[1, 2, 3], &rows)
    );
    for limit in &result.times.limits {
        let met = if limit.met { "met" } else { "not met" };
        text += &format!(
            "{:.0} ms: {met} at the 99th percentile, {} within\n",
            limit.limit_ms,
            page::percent(limit.within)
        );
    }
    Ok(Evaluated { eval: "time-limits", result, text, outside_band: 0 })
}

/// Photos below a folder.
fn collect(path: &Path, depth: usize, photos: &mut Vec<PathBuf>) -> Result<(), CliError> {
    let failed = |source| CliError::from(InputError::Open { path: path.into(), source });
    if path.is_file() {
        photos.push(path.to_path_buf());
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let inside = entry.map_err(failed)?.path();
        let ending = inside.extension().map(|e| e.to_string_lossy().to_lowercase());
        if inside.is_dir() && depth > 0 {
            collect(&inside, depth - 1, photos)?;
        } else if ending.is_some_and(|e| PHOTOS.contains(&e.as_str())) {
            photos.push(inside);
        }
    }
    Ok(())
}
