//! What a model is: a TOML file that says what it does, what goes in and what comes out, and which file exactly it is.
//!
//! A [`Manifest`] that exists has been checked: a field that is missing, of the wrong kind or out of range is a
//! [`ManifestError`] that names it, and a key that nobody reads is refused.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use veilmatch_domain::{Dimension, ModelDigest};

/// Largest side of a model's input, in pixels.
const MAX_SIDE: u32 = 4096;

/// A checked manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The name by which commands ask for the model: letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// What it does, with all that only this task needs.
    pub task: Task,
    /// The file's name, without a folder.
    pub file: String,
    /// SHA-256 of the file.
    pub digest: FileDigest,
    /// The licence of the weights, as the authors name it.
    pub licence: String,
    /// Where the model comes from: a page for people.
    pub source: String,
    /// Where exactly this file can be downloaded, if anywhere: an https address.
    pub download: Option<String>,
    /// How pixels become the input.
    pub input: Input,
}

impl Manifest {
    /// What embeddings of this model are known by: the SHA-256 of its file.
    #[must_use]
    pub const fn model(&self) -> ModelDigest {
        ModelDigest(*self.digest.bytes())
    }
}

/// What a model does.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Finds faces and their landmarks.
    Detect(Detect),
    /// Turns an aligned face into a vector.
    Embed(Embed),
    /// Says how good the picture of a face is.
    Quality(Quality),
    /// Says whether a face is there in person.
    Liveness(Liveness),
}

impl Task {
    /// The kind alone.
    #[must_use]
    pub const fn kind(&self) -> TaskKind {
        match self {
            Self::Detect(_) => TaskKind::Detect,
            Self::Embed(_) => TaskKind::Embed,
            Self::Quality(_) => TaskKind::Quality,
            Self::Liveness(_) => TaskKind::Liveness,
        }
    }
}

/// The four tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// Finds faces and their landmarks.
    Detect,
    /// Turns an aligned face into a vector.
    Embed,
    /// Says how good the picture of a face is.
    Quality,
    /// Says whether a face is there in person.
    Liveness,
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Detect => "detect",
            Self::Embed => "embed",
            Self::Quality => "quality",
            Self::Liveness => "liveness",
        })
    }
}

/// How pixels become the input of a model: value = (pixel − mean) / std, per channel in the order of [`Colour`].
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// The input's name.
    pub name: String,
    /// The order of the axes.
    pub layout: Layout,
    /// The order of the channels.
    pub colour: Colour,
    /// What is subtracted from each channel (pixels are 0 to 255).
    pub mean: [f32; 3],
    /// What each channel is divided by.
    pub std: [f32; 3],
}

/// The order of an input's axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Channels before rows and columns.
    Nchw,
    /// Channels last.
    Nhwc,
}

/// The order of an input's channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Colour {
    /// Red first.
    Rgb,
    /// Blue first.
    Bgr,
}

/// A size in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Size {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// A detector that answers as YuNet does: for every stride, one score pair, box and five landmarks per cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Detect {
    /// The longest side that a photo is scaled to, in pixels.
    pub longest: u32,
    /// Both sides are padded with zeros to multiples of this.
    pub multiple: u32,
    /// Pixels per cell, one level each; outputs are `cls_S`, `obj_S`, `bbox_S`, `kps_S`.
    pub strides: Vec<u32>,
    /// Lowest score √(cls·obj) of a face, 0 to 1.
    pub score: f32,
    /// Of two boxes that overlap by more than this (intersection over union), the better one stays.
    pub overlap: f32,
    /// From this score on a face with level eyes stands upright for sure; below it the photo is tried in other directions.
    pub upright: f32,
}

/// An embedder.
#[derive(Clone, Debug, PartialEq)]
pub struct Embed {
    /// The size of the aligned face.
    pub size: Size,
    /// Where the five landmarks go, as fractions of width and height.
    pub points: [[f32; 2]; 5],
    /// The output's name; its shape is [1, dimension].
    pub output: String,
    /// Coordinates of the vector.
    pub dimension: Dimension,
    /// Thresholds that somebody measured, by falling FMR.
    pub thresholds: Vec<Calibrated>,
}

impl Embed {
    /// The cosine from which two faces match, measured at this FMR (within a hundredth of it).
    #[must_use]
    pub fn cosine_at(&self, fmr: f64) -> Option<f64> {
        self.thresholds.iter().find(|one| (one.fmr / fmr - 1.0).abs() < 0.01).map(|one| one.cosine)
    }
}

/// A threshold at a given false match rate.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibrated {
    /// The false match rate.
    pub fmr: f64,
    /// The cosine.
    pub cosine: f64,
}

/// A judge of picture quality: one number, higher is better.
#[derive(Clone, Debug, PartialEq)]
pub struct Quality {
    /// The size of the aligned face.
    pub size: Size,
    /// Where both eyes and the middle of the mouth go, as fractions of width and height.
    pub points: [[f32; 2]; 3],
    /// The output's name; it holds one number.
    pub output: String,
}

/// A judge of presence: scores of classes, one of which is a real face.
#[derive(Clone, Debug, PartialEq)]
pub struct Liveness {
    /// The size of the cut.
    pub size: Size,
    /// How far the face's box is scaled about its centre before it is cut out.
    pub scale: f32,
    /// The output's name; its shape is [1, classes].
    pub output: String,
    /// The class of real faces.
    pub real: usize,
    /// The number of classes.
    pub classes: usize,
    /// What the output holds.
    pub scores: Scores,
}

/// What a classifier's output holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scores {
    /// Probabilities: the soft-max is part of the model.
    Probabilities,
    /// What a soft-max makes into probabilities.
    Logits,
}

/// SHA-256 of a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileDigest([u8; 32]);

impl FileDigest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::{Digest, Sha256};
        Self(Sha256::digest(bytes).into())
    }

    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// The bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Why a manifest is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not TOML, a key that is missing or unknown, or a value of the wrong kind.
    #[error("{from}: {message}")]
    Syntax {
        /// The file, or the name of a built-in one.
        from: String,
        /// The parser's words.
        message: String,
    },
    /// A section that the task needs is missing, or one that it does not know is there.
    #[error("{from}: a model that does {task:?} {problem} [{section}]")]
    Section {
        /// The file.
        from: String,
        /// The task.
        task: TaskKind,
        /// The section.
        section: &'static str,
        /// "needs" or "has no".
        problem: &'static str,
    },
    /// A value that cannot be.
    #[error("{from}: {field} {problem}")]
    Value {
        /// The file.
        from: String,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The file cannot be read.
    #[error("{}: {message}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's words.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    task: TaskKind,
    file: String,
    sha256: String,
    licence: String,
    source: String,
    download: Option<String>,
    input: RawInput,
    align: Option<RawAlign>,
    detect: Option<RawDetect>,
    embed: Option<RawEmbed>,
    quality: Option<RawQuality>,
    liveness: Option<RawLiveness>,
    #[serde(default)]
    threshold: Vec<Calibrated>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInput {
    name: String,
    layout: Layout,
    colour: Colour,
    mean: [f32; 3],
    std: [f32; 3],
    width: Option<u32>,
    height: Option<u32>,
    longest: Option<u32>,
    multiple: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAlign {
    points: Vec<[f32; 2]>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Decoding {
    Yunet,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDetect {
    #[expect(dead_code, reason = "one decoding so far; the manifest names it so that another can come")]
    decoding: Decoding,
    strides: Vec<u32>,
    score: f32,
    overlap: f32,
    upright: f32,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Metric {
    Cosine,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEmbed {
    output: String,
    dimension: usize,
    #[expect(dead_code, reason = "the protocols compute cosines alone; a manifest that says otherwise is refused")]
    metric: Metric,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawQuality {
    output: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLiveness {
    output: String,
    scale: f32,
    real: usize,
    classes: usize,
    scores: Scores,
}

impl Manifest {
    /// Reads and checks a manifest. `from` says in errors which one it is.
    ///
    /// # Errors
    /// [`ManifestError`] names the field and what is wrong with it.
    pub fn parse(text: &str, from: &str) -> Result<Self, ManifestError> {
        let raw: Raw = toml::from_str(text)
            .map_err(|error| ManifestError::Syntax { from: from.to_owned(), message: error.to_string() })?;
        Checks { from }.manifest(raw)
    }
}

/// The checks, with the name that their errors begin with.
struct Checks<'a> {
    from: &'a str,
}

impl Checks<'_> {
    fn value<T>(&self, field: &'static str, problem: impl Into<String>) -> Result<T, ManifestError> {
        Err(ManifestError::Value { from: self.from.to_owned(), field, problem: problem.into() })
    }

    fn manifest(&self, raw: Raw) -> Result<Manifest, ManifestError> {
        let plain = |text: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !text.is_empty() && text.len() <= 64 && !text.starts_with('.') && text.chars().all(known)
        };
        if !plain(&raw.name) {
            return self.value("name", "must be 1 to 64 of A-Z a-z 0-9 . _ - and not begin with a dot");
        }
        if !plain(&raw.file) {
            return self.value("file", "must be a plain name without a folder: the file lies beside the manifest");
        }
        let Some(digest) = FileDigest::parse(&raw.sha256) else {
            return self.value("sha256", "must be 64 hexadecimal digits");
        };
        for (field, text) in [("licence", &raw.licence), ("source", &raw.source)] {
            if text.trim().is_empty() {
                return self.value(field, "must not be empty: whoever uses the model has to know");
            }
        }
        if let Some(address) = &raw.download
            && !address.starts_with("https://")
        {
            return self.value("download", "must be an https address");
        }
        if raw.input.std.iter().any(|&std| !std.is_finite() || std.abs() < 1e-6) {
            return self.value("input.std", "must not be zero");
        }
        if raw.input.mean.iter().any(|mean| !mean.is_finite()) {
            return self.value("input.mean", "must be finite");
        }
        self.sections(&raw)?;
        let task = self.task(&raw)?;
        let RawInput { name, layout, colour, mean, std, .. } = raw.input;
        Ok(Manifest {
            name: raw.name,
            task,
            file: raw.file,
            digest,
            licence: raw.licence,
            source: raw.source,
            download: raw.download,
            input: Input { name, layout, colour, mean, std },
        })
    }

    /// Exactly the sections that the task has.
    fn sections(&self, raw: &Raw) -> Result<(), ManifestError> {
        use TaskKind::{Detect, Embed, Liveness, Quality};
        for (section, there, tasks) in [
            ("align", raw.align.is_some(), &[Embed, Quality][..]),
            ("detect", raw.detect.is_some(), &[Detect]),
            ("embed", raw.embed.is_some(), &[Embed]),
            ("quality", raw.quality.is_some(), &[Quality]),
            ("liveness", raw.liveness.is_some(), &[Liveness]),
        ] {
            let wanted = tasks.contains(&raw.task);
            if wanted != there {
                let problem = if wanted { "needs" } else { "has no" };
                return Err(ManifestError::Section { from: self.from.to_owned(), task: raw.task, section, problem });
            }
        }
        if !raw.threshold.is_empty() && raw.task != Embed {
            return self.value("threshold", "is for models that embed");
        }
        Ok(())
    }

    fn task(&self, raw: &Raw) -> Result<Task, ManifestError> {
        if let Some(detect) = &raw.detect {
            return self.detect(&raw.input, detect).map(Task::Detect);
        }
        if raw.input.longest.is_some() || raw.input.multiple.is_some() {
            return self.value("input.longest", "is for models that detect; others have width and height");
        }
        let size = self.size(&raw.input)?;
        let points = raw.align.as_ref().map_or(&[][..], |align| &align.points);
        if points.iter().flatten().any(|place| !(-0.5..=1.5).contains(place)) {
            return self.value("align.points", "are fractions of the input's sides");
        }
        if let Some(embed) = &raw.embed {
            let Ok(points) = points.try_into() else {
                return self.value("align.points", "must be five: eyes, nose, corners of the mouth");
            };
            let dimension = match Dimension::new(embed.dimension) {
                Ok(dimension) => dimension,
                Err(error) => return self.value("embed.dimension", error.to_string()),
            };
            let thresholds = self.thresholds(&raw.threshold)?;
            return Ok(Task::Embed(Embed { size, points, output: embed.output.clone(), dimension, thresholds }));
        }
        if let Some(quality) = &raw.quality {
            let Ok(points) = points.try_into() else {
                return self.value("align.points", "must be three: eyes and the middle of the mouth");
            };
            return Ok(Task::Quality(Quality { size, points, output: quality.output.clone() }));
        }
        let Some(liveness) = &raw.liveness else {
            // `sections` has seen to it that the task's own section is there.
            return self.value("task", "has no section");
        };
        if !(0.5..=10.0).contains(&liveness.scale) {
            return self.value("liveness.scale", "must lie between 0.5 and 10");
        }
        if !(2..=100).contains(&liveness.classes) || liveness.real >= liveness.classes {
            return self.value("liveness.real", "must be one of at least two classes, counted from 0");
        }
        Ok(Task::Liveness(Liveness {
            size,
            scale: liveness.scale,
            output: liveness.output.clone(),
            real: liveness.real,
            classes: liveness.classes,
            scores: liveness.scores,
        }))
    }

    fn size(&self, input: &RawInput) -> Result<Size, ManifestError> {
        match (input.width, input.height) {
            (Some(width @ 8..=MAX_SIDE), Some(height @ 8..=MAX_SIDE)) => Ok(Size { width, height }),
            _ => self.value("input.width and input.height", format!("must lie between 8 and {MAX_SIDE}")),
        }
    }

    fn detect(&self, input: &RawInput, detect: &RawDetect) -> Result<Detect, ManifestError> {
        if input.width.is_some() || input.height.is_some() {
            return self.value("input.width", "is not for models that detect; they have longest and multiple");
        }
        let (Some(longest @ 32..=MAX_SIDE), Some(multiple @ 1..=MAX_SIDE)) = (input.longest, input.multiple) else {
            return self
                .value("input.longest and input.multiple", format!("must lie between 32, or 1, and {MAX_SIDE}"));
        };
        if detect.strides.is_empty() || detect.strides.iter().any(|&stride| stride == 0 || multiple % stride != 0) {
            return self.value("detect.strides", "must be given, and divide input.multiple");
        }
        let RawDetect { score, overlap, upright, .. } = *detect;
        if [score, overlap, upright].iter().any(|value| !(0.0..=1.0).contains(value)) {
            return self.value("detect.score, overlap and upright", "must lie between 0 and 1");
        }
        Ok(Detect { longest, multiple, strides: detect.strides.clone(), score, overlap, upright })
    }

    fn thresholds(&self, given: &[Calibrated]) -> Result<Vec<Calibrated>, ManifestError> {
        let mut thresholds = given.to_vec();
        let sound = |one: &Calibrated| one.fmr > 0.0 && one.fmr < 1.0 && (-0.9..=0.9).contains(&one.cosine);
        if !thresholds.iter().all(sound) {
            return self.value("threshold", "needs an fmr between 0 and 1 and a cosine between -0.9 and 0.9");
        }
        thresholds.sort_by(|a, b| b.fmr.total_cmp(&a.fmr));
        if thresholds.windows(2).any(|two| matches!(two, [a, b] if a.fmr <= b.fmr || a.cosine >= b.cosine)) {
            return self.value("threshold", "must rise as the fmr falls");
        }
        Ok(thresholds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETAIL: &str = include_str!("../../../models/retail0095.toml");
    const YUNET: &str = include_str!("../../../models/yunet.toml");
    const FASNET: &str = include_str!("../../../models/minifasnet_v2.toml");

    fn refusal(text: &str) -> String {
        Manifest::parse(text, "m.toml").unwrap_err().to_string()
    }

    #[test]
    fn thresholds_are_found_by_fmr() {
        let Task::Embed(embed) = Manifest::parse(RETAIL, "m").unwrap().task else { panic!("it embeds") };
        assert_eq!(embed.cosine_at(1e-4), Some(0.427));
        assert_eq!(embed.cosine_at(1e-7), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, old, new, words) in [
            (RETAIL, "task = \"embed\"", "task = \"dance\"", "unknown variant `dance`"),
            (RETAIL, "licence = \"Apache-2.0\"", "licence = \" \"", "m.toml: licence must not be empty"),
            (RETAIL, "file = \"", "file = \"../", "file must be a plain name"),
            (RETAIL, "sha256 = \"99", "sha256 = \"zz", "sha256 must be 64 hexadecimal digits"),
            (RETAIL, "name = \"retail0095\"", "name = \".x\"", "name must be"),
            (RETAIL, "width = 128", "width = 4", "input.width and input.height must lie"),
            (RETAIL, "width = 128", "width = 128\nlongest = 640", "input.longest is for models that detect"),
            (RETAIL, "std = [1.0,", "std = [0.0,", "input.std must not be zero"),
            (RETAIL, "dimension = 256", "dimension = 4", "embed.dimension an embedding of 4 dimensions"),
            (RETAIL, "metric = \"cosine\"", "metric = \"l2\"", "unknown variant `l2`"),
            (RETAIL, "cosine = 0.427", "cosine = 0.2", "threshold must rise as the fmr falls"),
            (RETAIL, "[0.31556875, 0.46157411],", "", "align.points must be five"),
            (RETAIL, "[embed]", "[quality]\noutput = \"o\"\n[embed]", "a model that does Embed has no [quality]"),
            (RETAIL, "layout = ", "order = 1\nlayout = ", "unknown field `order`"),
            (YUNET, "strides = [8, 16, 32]", "strides = [8, 16, 24]", "detect.strides must be given, and divide"),
            (YUNET, "score = 0.6", "score = 60", "detect.score, overlap and upright must lie"),
            (YUNET, "[input]", "download = \"http://x\"\n[input]", "download must be an https address"),
            (YUNET, "task = \"detect\"", "task = \"embed\"", "a model that does Embed needs [align]"),
            (FASNET, "real = 1", "real = 3", "liveness.real must be one of"),
        ] {
            assert!(text.contains(old), "the test changes what is there: {old}");
            let said = refusal(&text.replacen(old, new, 1));
            assert!(said.contains(words), "{said:?} does not say {words:?}");
        }
    }

    #[test]
    fn digests_are_read_back() {
        let digest = FileDigest::of(b"abc");
        assert!(digest.to_string().starts_with("ba7816bf8f01cfea"));
        assert_eq!(FileDigest::parse(&digest.to_string()), Some(digest));
        assert_eq!(FileDigest::parse("ä".repeat(32).as_str()), None);
        assert_eq!(FileDigest::parse(&"+f".repeat(32)), None);
    }
}
