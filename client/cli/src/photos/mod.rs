//! Photos: which files belong to whom, how they become templates, and what is said about those that do not.
//!
//! Pixels and coordinates stay in [`veilmatch_extract`] and the embeddings that it gives; this module handles paths, ids and
//! refusals.

pub mod cast;
pub mod inspect;
pub mod models;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;
use veilmatch_domain::{Embedding, Explain, ModelDigest, Status, SubjectId, Threshold};
use veilmatch_extract::{
    ExtractError, Extraction, Extractor, Faces, GatePreset, Library, RuntimeChoice, Settings, Task, fused,
};

use crate::exit::CliError;
use crate::input::{self, InputError};
use crate::report::{Progress, table};
use crate::space::named_model;

/// Names of files that are taken for photos, in a folder.
const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];
/// The FMR whose threshold is taken where none is named.
const USUAL_FMR: f64 = 1e-4;

/// The heading of photos' options in help texts.
const PHOTOS: &str = "Photos";

/// How photos become templates.
#[derive(Clone, Debug, Default, Args)]
pub struct PhotoOptions {
    /// What a face must be like to be embedded: `strict` for enrolment under supervision, `default`, `off`
    #[arg(long, help_heading = PHOTOS, hide_possible_values = true, value_enum, default_value_t = GateWord::Default, value_name = "GATES")]
    pub gates: GateWord,
    /// Refuse faces that are less likely than this to be there in person, 0 to 1; needs a model that does `liveness`
    #[arg(long, help_heading = PHOTOS, value_name = "P", value_parser = probability)]
    pub liveness: Option<f64>,
    /// Which face of a photo: `one` (the only one), `largest`, or `central`, nearest to the middle [default: one; `eval images`
    /// central, `eval time-limits` largest]
    #[arg(long, help_heading = PHOTOS, hide_possible_values = true, value_enum, value_name = "WHICH")]
    pub faces: Option<FaceWord>,
    /// Embed the mirrored face too and add both vectors
    #[arg(long, help_heading = PHOTOS)]
    pub flip: bool,
    /// The embedder; by default the first that is installed. With embeddings from a file, the model that made them, by name or
    /// digest: a collection that is bound to a model wants to know
    #[arg(long, help_heading = PHOTOS, value_name = "NAME")]
    pub model: Option<String>,
    /// The detector; by default the first that is installed
    #[arg(long, help_heading = PHOTOS, value_name = "NAME")]
    pub detector: Option<String>,
    /// A folder of models and manifests, searched before VEILMATCH_MODELS, ~/.local/share/veilmatch/models and
    /// VEILMATCH_DATA/models
    #[arg(long, help_heading = PHOTOS, value_name = "FOLDER")]
    pub models: Option<PathBuf>,
    /// What runs the models: `onnxruntime` (VEILMATCH_ONNXRUNTIME names the library's file), `rust` (built in), or `auto`: the
    /// first if it is found, else the second
    #[arg(long, help_heading = PHOTOS, hide_possible_values = true, value_enum, default_value_t = RuntimeWord::Auto, value_name = "RUNTIME")]
    pub runtime: RuntimeWord,
}

/// [`GatePreset`] as an option's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GateWord {
    /// For enrolment under supervision.
    Strict,
    /// For everyday photos.
    #[default]
    Default,
    /// None.
    Off,
}

/// [`Faces`] as an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FaceWord {
    /// The only one.
    One,
    /// The largest.
    Largest,
    /// The one in the middle.
    Central,
}

/// [`RuntimeChoice`] as an option's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RuntimeWord {
    /// ONNX Runtime if it is found.
    #[default]
    Auto,
    /// ONNX Runtime.
    #[value(name = "onnxruntime")]
    OnnxRuntime,
    /// Built in.
    Rust,
}

fn probability(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("a number between 0 and 1 is needed".into()),
    }
}

impl PhotoOptions {
    /// The models that can be had.
    #[must_use]
    pub fn library(&self) -> Library {
        Library::standard(self.models.as_deref())
    }

    /// As settings. `threads` work on one model at a time; 0 means one per core.
    #[must_use]
    pub fn settings(&self, threads: usize) -> Settings {
        let preset = match self.gates {
            GateWord::Strict => GatePreset::Strict,
            GateWord::Default => GatePreset::Default,
            GateWord::Off => GatePreset::Off,
        };
        let mut gates = preset.gates();
        gates.liveness = self.liveness.or(gates.liveness);
        Settings {
            detector: self.detector.clone(),
            embedder: self.model.clone(),
            runtime: match self.runtime {
                RuntimeWord::Auto => RuntimeChoice::Auto,
                RuntimeWord::OnnxRuntime => RuntimeChoice::OnnxRuntime,
                RuntimeWord::Rust => RuntimeChoice::Rust,
            },
            threads,
            gates,
            flip: self.flip,
            faces: match self.faces {
                None | Some(FaceWord::One) => Faces::One,
                Some(FaceWord::Largest) => Faces::Largest,
                Some(FaceWord::Central) => Faces::Central,
            },
            ..Settings::default()
        }
    }

    /// Loads the models.
    ///
    /// # Errors
    /// [`CliError::Arguments`]: a model is missing or cannot be run.
    pub fn extractor(&self, threads: usize) -> Result<Extractor, CliError> {
        Extractor::open(&self.library(), self.settings(threads)).map_err(bad)
    }

    /// The same, on all cores, where another face is meant unless the options say which.
    ///
    /// # Errors
    /// As [`PhotoOptions::extractor`].
    pub fn extractor_of(&self, usual: FaceWord) -> Result<Extractor, CliError> {
        Self { faces: self.faces.or(Some(usual)), ..self.clone() }.extractor(0)
    }

    /// The model of embeddings that come from a file, if `--model` says which.
    ///
    /// # Errors
    /// [`CliError::Arguments`] if there is no embedder of that name and it is no digest.
    pub fn named_model(&self) -> Result<Option<ModelDigest>, CliError> {
        self.model.as_deref().map(|name| named_model(name, self.models.as_deref())).transpose()
    }
}

/// The cosine at one false match in 10,000, if somebody measured it for this embedder.
#[must_use]
pub fn usual_threshold(extractor: &Extractor) -> Option<Threshold> {
    let Task::Embed(embed) = &extractor.embedder().task else { return None };
    embed.cosine_at(USUAL_FMR).and_then(|cosine| Threshold::new(cosine).ok())
}

pub(crate) fn bad(error: ExtractError) -> CliError {
    CliError::Arguments(Box::new(error))
}

/// A photo that gave no template, by name.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", file.display())]
pub struct PhotoRefused {
    /// The file.
    pub file: PathBuf,
    /// Why.
    pub source: ExtractError,
}

impl Explain for PhotoRefused {
    fn code(&self) -> &'static str {
        self.source.code()
    }
    fn status(&self) -> Status {
        self.source.status()
    }
    fn advice(&self) -> &'static str {
        self.source.advice()
    }
}

/// One line of a report: a photo that gave no template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusedPhoto {
    /// Whose it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The file.
    pub file: String,
    /// The stable code.
    pub code: &'static str,
    /// What was found, what is needed and what to do.
    pub message: String,
}

fn refused_photo(subject: Option<&SubjectId>, file: &Path, error: &ExtractError) -> RefusedPhoto {
    RefusedPhoto {
        subject: subject.map(SubjectId::to_string),
        file: file.display().to_string(),
        code: error.code(),
        message: error.to_string(),
    }
}

/// Refusals as a table, or nothing.
#[must_use]
pub fn refusal_table(refused: &[RefusedPhoto]) -> String {
    if refused.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> =
        refused.iter().map(|one| vec![one.file.clone(), one.code.into(), one.message.clone()]).collect();
    format!("{}\n", table(&["photo", "refused as", "because"], &[], &rows))
}

/// People and their photos, by id.
pub type Albums = BTreeMap<SubjectId, Vec<PathBuf>>;

/// Everything that was made of albums.
pub struct Templates {
    /// One template a person: the mean of the photos that were accepted.
    pub people: Vec<(SubjectId, Embedding)>,
    /// Photos that gave none.
    pub refused: Vec<RefusedPhoto>,
    /// People of whom no photo was accepted.
    pub without: Vec<SubjectId>,
    /// Photos in all.
    pub photos: usize,
}

/// Photos named one by one; of a folder, those that lie in it.
///
/// # Errors
/// [`InputError::Open`] for a folder that cannot be read, [`InputError::NoPhotos`] for one without photos.
pub fn named(paths: &[PathBuf]) -> Result<Vec<PathBuf>, InputError> {
    let mut photos = Vec::new();
    for path in paths {
        if path.is_dir() {
            let within = within(path)?.0;
            if within.is_empty() {
                return Err(InputError::NoPhotos { path: path.clone() });
            }
            photos.extend(within);
        } else {
            photos.push(path.clone());
        }
    }
    Ok(photos)
}

/// A folder of folders: each is named after the person whose photos it holds.
///
/// # Errors
/// [`InputError`]: the folder cannot be read, holds no such folder, or one's name is no id.
pub fn folder(path: &Path) -> Result<Albums, InputError> {
    let mut albums = Albums::new();
    for own in within(path)?.1 {
        let photos = within(&own)?.0;
        if photos.is_empty() {
            continue;
        }
        let name = own.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let subject =
            SubjectId::new(name.as_str()).map_err(|source| InputError::FolderName { path: own.clone(), source })?;
        albums.insert(subject, photos);
    }
    if albums.is_empty() { Err(InputError::NoPhotos { path: path.into() }) } else { Ok(albums) }
}

/// Photos and folders in a folder, by name.
fn within(path: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), InputError> {
    let failed = |source| InputError::Open { path: path.into(), source };
    let (mut photos, mut folders) = (Vec::new(), Vec::new());
    for item in std::fs::read_dir(path).map_err(failed)? {
        let item = item.map_err(failed)?.path();
        let extension = item.extension().map(|text| text.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        if item.is_dir() {
            folders.push(item);
        } else if EXTENSIONS.contains(&extension.as_str()) {
            photos.push(item);
        }
    }
    photos.sort();
    folders.sort();
    Ok((photos, folders))
}

/// A table of photos: columns `id,path`; paths count from the folder of the table.
///
/// # Errors
/// [`InputError`] naming the line.
pub fn listed(file: &Path) -> Result<Albums, InputError> {
    let mut albums = Albums::new();
    let beside = file.parent().unwrap_or(Path::new("."));
    for (subject, path) in input::photos(file)? {
        albums.entry(subject).or_default().push(beside.join(path));
    }
    Ok(albums)
}

/// One template of each person: photos are extracted side by side, those of one person fused.
///
/// # Errors
/// [`CliError`] if fusing fails; photos that are refused are part of the answer.
pub fn templates(extractor: &Extractor, albums: &Albums, progress: &Progress) -> Result<Templates, CliError> {
    let files: Vec<(&SubjectId, &PathBuf)> =
        albums.iter().flat_map(|(subject, files)| files.iter().map(move |file| (subject, file))).collect();
    let results = extracted(extractor, files.iter().map(|(_, file)| (*file).clone()).collect(), progress);
    let mut refused = Vec::new();
    let mut accepted: BTreeMap<&SubjectId, Vec<Embedding>> = BTreeMap::new();
    for ((subject, file), result) in files.iter().zip(results) {
        match result {
            Ok(extraction) => accepted.entry(subject).or_default().push(extraction.embedding),
            Err(error) => refused.push(refused_photo(Some(subject), file, &error)),
        }
    }
    let mut people = Vec::with_capacity(accepted.len());
    for (subject, own) in accepted {
        people.push((subject.clone(), fused(&own)?));
    }
    let known = |subject: &SubjectId| people.iter().any(|(known, _)| known == subject);
    let without = albums.keys().filter(|subject| !known(subject)).cloned().collect();
    Ok(Templates { people, refused, without, photos: files.len() })
}

/// All files, side by side, with a bar.
pub(crate) fn extracted(
    extractor: &Extractor,
    files: Vec<PathBuf>,
    progress: &Progress,
) -> Vec<Result<Extraction, ExtractError>> {
    let bar = progress.stage("photos", files.len());
    extractor.extract_many(&files, 0, &|done| bar.reach(done))
}

/// One probe from photos of one person, each of which must be accepted.
///
/// # Errors
/// [`CliError::Arguments`] naming the first photo that gives no template.
pub fn probe(extractor: &Extractor, files: &[PathBuf], progress: &Progress) -> Result<Embedding, CliError> {
    let files = named(files)?;
    let mut templates = Vec::with_capacity(files.len());
    for (file, result) in files.iter().zip(extracted(extractor, files.clone(), progress)) {
        let extraction =
            result.map_err(|source| CliError::Arguments(Box::new(PhotoRefused { file: file.clone(), source })))?;
        templates.push(extraction.embedding);
    }
    Ok(fused(&templates)?)
}

#[cfg(test)]
mod tests;
