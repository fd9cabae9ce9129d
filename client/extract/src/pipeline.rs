//! The way from a photo to a template: decode, detect, choose the face, align, measure, judge, embed, normalise.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use veilmatch_domain::{Embedding, EmbeddingError};
use zeroize::Zeroizing;

use crate::detect::Detector;
use crate::error::ExtractError;
use crate::gates::{Gates, Refusal};
use crate::geometry::{Face, Landmarks, Point, Rectangle, Similarity};
use crate::library::{Library, LibraryError, Model, ModelFile};
use crate::manifest::{Embed, Input, Liveness, Manifest, Scores, Size, Task, TaskKind};
use crate::photo::{Limits, Picture};
use crate::quality::Quality;
use crate::runtime::{self, Runtime, RuntimeChoice, RuntimeError, Session};
use crate::warp;

/// How far the eyes may be from level before the photo is taken to lie on its side, in degrees.
const SIDEWAYS: f64 = 60.0;
/// How much surer a detector has to be of the turned picture than of the picture as it is.
const DOUBT: f64 = 0.02;

/// What an [`Extractor`] is made of.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The detector's name; by default the preferred one that is installed.
    pub detector: Option<String>,
    /// The embedder's name; by default the preferred one that is installed.
    pub embedder: Option<String>,
    /// The run-time.
    pub runtime: RuntimeChoice,
    /// Threads that work on one model at a time; 0 means one per core.
    pub threads: usize,
    /// What a face must be like.
    pub gates: Gates,
    /// Embed the mirrored face too and add both vectors: twice the time, somewhat better.
    pub flip: bool,
    /// Which face.
    pub faces: Faces,
    /// What a photo may cost.
    pub limits: Limits,
}

/// Which face of a photo is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Faces {
    /// The only one: several are an error.
    #[default]
    One,
    /// The one with the largest box.
    Largest,
    /// The one nearest to the middle of the picture, as in data sets that were cut around the person meant.
    Central,
}

impl Faces {
    /// All of them, as words.
    pub const WORDS: [&'static str; 3] = ["one", "largest", "central"];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Largest => "largest",
            Self::Central => "central",
        }
    }
}

/// Turns photos into templates. Any number of threads may use one at once.
pub struct Extractor {
    runtime: Arc<dyn Runtime>,
    detector: Detector,
    detector_manifest: Manifest,
    embedder: Embedder,
    quality: Option<Judge>,
    liveness: Vec<Presence>,
    settings: Settings,
}

struct Embedder {
    session: Box<dyn Session>,
    manifest: Manifest,
    embed: Embed,
}

struct Judge {
    session: Box<dyn Session>,
    input: Input,
    size: Size,
    points: [[f32; 2]; 3],
    output: String,
}

struct Presence {
    session: Box<dyn Session>,
    input: Input,
    liveness: Liveness,
}

/// How long the stages took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From bytes to upright pixels.
    pub decode: Duration,
    /// Finding the face, in every direction that had to be tried.
    pub detect: Duration,
    /// Alignment, and the components of quality that need no model.
    pub align: Duration,
    /// The quality model.
    pub quality: Duration,
    /// The presentation-attack models.
    pub liveness: Duration,
    /// The embedder.
    pub embed: Duration,
}

impl Timings {
    /// Names and durations, in the order in which the stages run.
    #[must_use]
    pub const fn stages(&self) -> [(&'static str, Duration); 6] {
        [
            ("decode", self.decode),
            ("detect", self.detect),
            ("align", self.align),
            ("quality", self.quality),
            ("liveness", self.liveness),
            ("embed", self.embed),
        ]
    }

    /// All stages together.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.stages().iter().map(|(_, time)| *time).sum()
    }
}

/// What was found in a photo, before anything is embedded. Pixels are wiped on drop; there is no `Debug`.
pub struct Examination {
    /// The upright photo; if [`Examination::turned`] is not 0, as it was turned.
    pub picture: Picture,
    /// By how many quarters clockwise the photo had to be turned to find a face.
    pub turned: u8,
    /// All faces, the surest first.
    pub faces: Vec<Face>,
    /// The chosen one.
    pub face: Face,
    /// It, aligned as the embedder wants it.
    pub crop: Picture,
    /// What can be said about it.
    pub quality: Quality,
    /// Why the gates are against it; empty if they are not.
    pub refusals: Vec<Refusal>,
    /// How long it took.
    pub timings: Timings,
}

/// A template and what it was made from. The embedding and the crop are wiped on drop; there is no `Debug`.
pub struct Extraction {
    /// The template, of unit norm.
    pub embedding: Embedding,
    /// The face that was found.
    pub face: Face,
    /// By how many quarters clockwise the photo had to be turned to find it; box and landmarks are those of the turned photo.
    pub turned: u8,
    /// It, aligned as the embedder wants it.
    pub crop: Picture,
    /// What can be said about it.
    pub quality: Quality,
    /// How long the stages took.
    pub timings: Timings,
}

impl Extractor {
    /// Loads the models: detector and embedder, a quality model if one is installed and the gates ask for it, all installed
    /// presentation-attack models if the gates ask for them. For drawn faces
    /// (`tiny-detect`) no other models are loaded.
    ///
    /// # Errors
    /// [`ExtractError::Library`] if a model is missing or damaged, [`ExtractError::Runtime`] if it cannot be loaded,
    /// [`ExtractError::NoModel`] if the gates ask for a task that no installed model does.
    pub fn open(library: &Library, settings: Settings) -> Result<Self, ExtractError> {
        let runtime = runtime::open(settings.runtime, settings.threads)?;
        let detector = library.choose(settings.detector.as_deref(), TaskKind::Detect)?;
        let embedder = library.choose(settings.embedder.as_deref(), TaskKind::Embed)?;
        let (session, detector_manifest) = loaded(&*runtime, detector)?;
        let Task::Detect(detect) = detector_manifest.task.clone() else { return Err(other_task(&detector_manifest)) };
        let detector = Detector { session, input: detector_manifest.input.clone(), detect };
        let (session, manifest) = loaded(&*runtime, embedder)?;
        let Task::Embed(embed) = manifest.task.clone() else { return Err(other_task(&manifest)) };
        let embedder = Embedder { session, manifest, embed };
        let mut extractor =
            Self { runtime, detector, detector_manifest, embedder, quality: None, liveness: Vec::new(), settings };
        extractor.load_judges(library)?;
        Ok(extractor)
    }

    fn load_judges(&mut self, library: &Library) -> Result<(), ExtractError> {
        // What judges real faces thinks nothing of drawn ones.
        if library.entry(&self.detector_manifest.name).is_ok_and(|entry| entry.file == ModelFile::BuiltIn) {
            return Ok(());
        }
        if self.settings.gates.model.is_some()
            && let Some(entry) = library.preferred(TaskKind::Quality)
        {
            let (session, manifest) = loaded(&*self.runtime, library.open(entry)?)?;
            if let Task::Quality(quality) = manifest.task {
                let (size, points, output) = (quality.size, quality.points, quality.output);
                self.quality = Some(Judge { session, input: manifest.input, size, points, output });
            }
        }
        if self.settings.gates.liveness.is_some() {
            for entry in library.installed(TaskKind::Liveness) {
                let (session, manifest) = loaded(&*self.runtime, library.open(entry)?)?;
                if let Task::Liveness(liveness) = manifest.task {
                    self.liveness.push(Presence { session, input: manifest.input, liveness });
                }
            }
            if self.liveness.is_empty() {
                return Err(ExtractError::NoModel { task: TaskKind::Liveness });
            }
        }
        Ok(())
    }

    /// The manifest of the embedder: its digest names the version of the templates.
    #[must_use]
    pub const fn embedder(&self) -> &Manifest {
        &self.embedder.manifest
    }

    /// The manifest of the detector.
    #[must_use]
    pub const fn detector(&self) -> &Manifest {
        &self.detector_manifest
    }

    /// The run-time, for people.
    #[must_use]
    pub fn runtime(&self) -> String {
        self.runtime.describe()
    }

    /// What it was made with.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The template of the face in the bytes of a file.
    ///
    /// # Errors
    /// [`ExtractError`]; [`ExtractError::Refused`] names every gate that is against the face.
    pub fn extract(&self, bytes: &[u8]) -> Result<Extraction, ExtractError> {
        self.accepted(self.examine(bytes)?)
    }

    /// The template of the face in a file.
    ///
    /// # Errors
    /// As [`Extractor::extract`].
    pub fn extract_file(&self, file: &Path) -> Result<Extraction, ExtractError> {
        self.accepted(self.examine_file(file)?)
    }

    /// The templates of many files, on `threads` threads (0: one per core). `progress` is told how many are done, from
    /// any of the threads. Results come in the order of the files.
    ///
    /// The threads are the function's own. A photo may wait for the run-time's thread pool, and a thread of rayon that
    /// waits for another pool takes up the next photo meanwhile, upon the same stack, and so on.
    #[must_use]
    pub fn extract_many(
        &self,
        files: &[PathBuf],
        threads: usize,
        progress: &(dyn Fn(usize) + Sync),
    ) -> Vec<Result<Extraction, ExtractError>> {
        in_parallel(files.len(), threads, progress, |number| match files.get(number) {
            Some(file) => self.extract_file(file),
            None => Err(ExtractError::NoFace),
        })
    }

    /// Finds and measures the face in the bytes of a file, and embeds nothing.
    ///
    /// # Errors
    /// [`ExtractError`], except that refusals of the gates are part of the answer.
    pub fn examine(&self, bytes: &[u8]) -> Result<Examination, ExtractError> {
        let began = Instant::now();
        let picture = Picture::decode(bytes, &self.settings.limits)?;
        self.examine_picture(picture, began.elapsed())
    }

    /// Finds and measures the face in a file, and embeds nothing.
    ///
    /// # Errors
    /// As [`Extractor::examine`].
    pub fn examine_file(&self, file: &Path) -> Result<Examination, ExtractError> {
        let began = Instant::now();
        let picture = Picture::read(file, &self.settings.limits)?;
        self.examine_picture(picture, began.elapsed())
    }

    /// Finds and measures the face in a decoded picture, and embeds nothing. `decode` is how long decoding took.
    ///
    /// # Errors
    /// As [`Extractor::examine`].
    pub fn examine_picture(&self, picture: Picture, decode: Duration) -> Result<Examination, ExtractError> {
        let mut timings = Timings { decode, ..Timings::default() };
        let began = Instant::now();
        let (picture, turned, faces) = self.upright(picture)?;
        let face = chosen(&picture, &faces, self.settings.faces)?;
        timings.detect = began.elapsed();

        let began = Instant::now();
        let embed = &self.embedder.embed;
        let crop = aligned(&picture, &face.landmarks.points(), &embed.points, embed.size)?;
        let mut quality = Quality::measured(&face, &crop);
        timings.align = began.elapsed();

        let began = Instant::now();
        quality.model = self.quality.as_ref().map(|judge| judge.ask(&picture, &face.landmarks)).transpose()?;
        timings.quality = began.elapsed();

        let began = Instant::now();
        quality.liveness = presence(&self.liveness, &picture, &face.bounds)?;
        timings.liveness = began.elapsed();

        let refusals = self.settings.gates.refusals(&quality);
        Ok(Examination { picture, turned, faces, face, crop, quality, refusals, timings })
    }

    /// The template of an examined face, whatever the gates said.
    ///
    /// # Errors
    /// [`ExtractError::Runtime`], [`ExtractError::Embedding`].
    pub fn embed(&self, examination: &Examination) -> Result<Embedding, ExtractError> {
        self.embed_crop(&examination.crop)
    }

    /// The template of an aligned face of the embedder's size.
    ///
    /// # Errors
    /// [`ExtractError::Runtime`] (also if the size is another one), [`ExtractError::Embedding`].
    pub fn embed_crop(&self, crop: &Picture) -> Result<Embedding, ExtractError> {
        let mut sum = self.embedder.vector(crop)?;
        if self.settings.flip {
            let mirrored = self.embedder.vector(&crop.mirrored())?;
            sum.iter_mut().zip(mirrored.iter()).for_each(|(value, other)| *value += other);
        }
        Ok(Embedding::normalised(std::mem::take(&mut *sum))?)
    }

    fn accepted(&self, examination: Examination) -> Result<Extraction, ExtractError> {
        if !examination.refusals.is_empty() {
            return Err(ExtractError::Refused { refusals: examination.refusals });
        }
        let began = Instant::now();
        let embedding = self.embed(&examination)?;
        let Examination { face, turned, crop, quality, mut timings, .. } = examination;
        timings.embed = began.elapsed();
        Ok(Extraction { embedding, face, turned, crop, quality, timings })
    }

    /// The faces of the picture as it is, or as it has to be turned to stand upright. Photos without a word about their
    /// orientation are common, so if no face is upright for sure, the picture is turned by a quarter, three quarters and two,
    /// and the direction in which the detector is surest of an upright face counts; in doubt the picture's own.
    fn upright(&self, picture: Picture) -> Result<(Picture, u8, Vec<Face>), ExtractError> {
        let surest = |faces: &[Face]| {
            faces
                .iter()
                .filter(|face| face.landmarks.roll().abs() < SIDEWAYS)
                .map(|face| face.score)
                .fold(0.0, f64::max)
        };
        let faces = self.detector.find(&picture)?;
        let mut best = (surest(&faces) + DOUBT, picture, 0, faces);
        if best.0 - DOUBT >= f64::from(self.detector.detect.upright) {
            return Ok((best.1, 0, best.3));
        }
        let mut others = Vec::new();
        for quarters in [1, 3, 2] {
            let turned = best.1.turned(quarters);
            let faces = self.detector.find(&turned)?;
            others.push((surest(&faces), turned, quarters, faces));
        }
        for other in others {
            // Without an upright face nothing is turned.
            if other.0 > 0.0 && other.0 > best.0 {
                best = other;
            }
        }
        let (_, picture, turned, faces) = best;
        Ok((picture, turned, faces))
    }
}

/// The mean of several templates of one person, normalised: one template that is near all of them.
///
/// # Errors
/// [`EmbeddingError::WrongDimension`] if they do not have one dimension, [`EmbeddingError::Dimension`] if there are none,
/// [`EmbeddingError::Zero`] if they cancel out.
pub fn fused(templates: &[Embedding]) -> Result<Embedding, EmbeddingError> {
    let Some(first) = templates.first() else { return Err(EmbeddingError::Dimension { found: 0 }) };
    let expected = first.values().len();
    let mut sum = Zeroizing::new(vec![0.0_f32; expected]);
    for template in templates {
        if template.values().len() != expected {
            return Err(EmbeddingError::WrongDimension { found: template.values().len(), expected });
        }
        sum.iter_mut().zip(template.values()).for_each(|(sum, value)| *sum += value);
    }
    Embedding::normalised(std::mem::take(&mut *sum))
}

/// Runs `work` for the numbers below `count` on scoped threads, and returns the answers in order.
fn in_parallel<T: Send>(
    count: usize,
    threads: usize,
    progress: &(dyn Fn(usize) + Sync),
    work: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if threads == 0 { cores } else { threads }.min(count.max(1));
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let answers = Mutex::new(Vec::with_capacity(count));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let answer = work(number);
                    answers.lock().unwrap_or_else(PoisonError::into_inner).push((number, answer));
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
    });
    let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    answers.sort_by_key(|(number, _)| *number);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

fn loaded(runtime: &dyn Runtime, model: Model) -> Result<(Box<dyn Session>, Manifest), ExtractError> {
    let Model { manifest, bytes } = model;
    let session = runtime.load(&bytes)?;
    if !session.inputs().contains(&manifest.input.name) {
        return Err(RuntimeError::Input { name: manifest.input.name }.into());
    }
    Ok((session, manifest))
}

/// `Library::choose` gives models of the task that was asked for, so this is never seen.
fn other_task(manifest: &Manifest) -> ExtractError {
    let found = manifest.task.kind();
    LibraryError::Task { name: manifest.name.clone(), found, wanted: found }.into()
}

fn chosen(picture: &Picture, faces: &[Face], which: Faces) -> Result<Face, ExtractError> {
    let middle = Point::new(picture.width() as f64 / 2.0, picture.height() as f64 / 2.0);
    let off = |face: &Face| {
        let Rectangle { x, y, width, height } = face.bounds;
        Point::new(x + width / 2.0, y + height / 2.0).distance(middle)
    };
    let best = match which {
        Faces::One if faces.len() > 1 => return Err(ExtractError::SeveralFaces { found: faces.len() }),
        Faces::One | Faces::Largest => faces.iter().max_by(|a, b| a.bounds.area().total_cmp(&b.bounds.area())),
        Faces::Central => faces.iter().min_by(|a, b| off(a).total_cmp(&off(b))),
    };
    best.copied().ok_or(ExtractError::NoFace)
}

/// The face moved so that its landmarks come to lie on the template (fractions of width and height).
fn aligned(picture: &Picture, marks: &[Point], template: &[[f32; 2]], size: Size) -> Result<Picture, ExtractError> {
    let (width, height) = (f64::from(size.width), f64::from(size.height));
    let onto: Vec<Point> =
        template.iter().map(|&[x, y]| Point::new(f64::from(x) * width, f64::from(y) * height)).collect();
    let map = Similarity::fit(marks, &onto).ok_or(ExtractError::Landmarks)?;
    Ok(warp::warped(picture, &map, size.width as usize, size.height as usize))
}

/// The named output, which must hold `expected` values.
fn output(
    session: &dyn Session,
    input: &Input,
    picture: &Picture,
    name: &str,
    expected: usize,
) -> Result<Zeroizing<Vec<f32>>, RuntimeError> {
    let tensor = warp::tensor(picture, input, picture.width(), picture.height())?;
    let outputs = session.run(&[(&input.name, &tensor)])?;
    let Some((_, found)) = outputs.iter().find(|(known, _)| known == name) else {
        return Err(RuntimeError::Output { name: name.to_owned() });
    };
    if found.values().len() != expected {
        let (found, expected) = (found.shape().to_vec(), format!("[1, {expected}]"));
        return Err(RuntimeError::OutputShape { name: name.to_owned(), found, expected });
    }
    Ok(Zeroizing::new(found.values().to_vec()))
}

impl Embedder {
    /// The raw vector of an aligned face.
    fn vector(&self, crop: &Picture) -> Result<Zeroizing<Vec<f32>>, RuntimeError> {
        let Size { width, height } = self.embed.size;
        if (crop.width(), crop.height()) != (width as usize, height as usize) {
            let shape = vec![1, 3, height as usize, width as usize];
            return Err(RuntimeError::Shape { shape, values: crop.bytes().len() });
        }
        output(&*self.session, &self.manifest.input, crop, &self.embed.output, self.embed.dimension.get())
    }
}

impl Judge {
    fn ask(&self, picture: &Picture, marks: &Landmarks) -> Result<f64, ExtractError> {
        let three = [marks.left_eye, marks.right_eye, marks.left_mouth.middle(marks.right_mouth)];
        let crop = aligned(picture, &three, &self.points, self.size)?;
        let answer = output(&*self.session, &self.input, &crop, &self.output, 1)?;
        Ok(answer.first().copied().map_or(f64::NAN, f64::from))
    }
}

/// The mean of what the models say, 0 to 1; none without models.
fn presence(models: &[Presence], picture: &Picture, bounds: &Rectangle) -> Result<Option<f64>, ExtractError> {
    if models.is_empty() {
        return Ok(None);
    }
    let mut sum = 0.0;
    for Presence { session, input, liveness } in models {
        let region = surroundings(picture, bounds, f64::from(liveness.scale));
        let Size { width, height } = liveness.size;
        let cut = warp::scaled(picture, &region, width as usize, height as usize);
        let scores = output(&**session, input, &cut, &liveness.output, liveness.classes)?;
        sum += match liveness.scores {
            Scores::Probabilities => scores.get(liveness.real).copied().map_or(f64::NAN, f64::from),
            Scores::Logits => softmax(&scores, liveness.real),
        };
    }
    Ok(Some(sum / models.len() as f64))
}

fn softmax(scores: &[f32], of: usize) -> f64 {
    let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = scores.iter().map(|&score| f64::from(score - top).exp()).collect();
    powers.get(of).copied().unwrap_or_default() / powers.iter().sum::<f64>()
}

/// A box scaled about its centre, but no larger than the picture, and shifted into it.
fn surroundings(picture: &Picture, bounds: &Rectangle, scale: f64) -> Rectangle {
    let (right, bottom) = (picture.width() as f64, picture.height() as f64);
    let scale = scale.min(right / bounds.width).min(bottom / bounds.height);
    let (width, height) = (bounds.width * scale, bounds.height * scale);
    let shifted = |middle: f64, side: f64, most: f64| (middle - side / 2.0).min(most - side).max(0.0);
    let x = shifted(bounds.x + bounds.width / 2.0, width, right);
    let y = shifted(bounds.y + bounds.height / 2.0, height, bottom);
    Rectangle { x, y, width, height }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surroundings_stay_within_the_picture() {
        let picture = Picture::black(200, 100);
        let bounds = Rectangle { x: 150.0, y: 10.0, width: 20.0, height: 30.0 };
        let around = surroundings(&picture, &bounds, 2.7);
        assert!((around.width - 54.0).abs() < 1e-9 && (around.height - 81.0).abs() < 1e-9);
        assert!((around.x - 133.0).abs() < 1e-9 && around.y == 0.0);
        let most = surroundings(&picture, &bounds, 9.0);
        assert!((most.height - 100.0).abs() < 1e-9 && (most.y).abs() < 1e-9 && most.x + most.width <= 200.0);
    }

    #[test]
    fn softmax_is_a_share() {
        assert!((softmax(&[0.0, 0.0, 0.0], 1) - 1.0 / 3.0).abs() < 1e-12);
        assert!(softmax(&[0.0, 1000.0, -1000.0], 1) > 0.999);
        assert_eq!(softmax(&[1.0, 2.0], 7), 0.0);
    }

    #[test]
    fn fusing_gives_a_unit_vector_between_the_templates() {
        let unit = |at: usize| {
            let mut values = vec![0.0; 16];
            values[at] = 1.0;
            Embedding::new(values).unwrap()
        };
        let both = fused(&[unit(0), unit(1)]).unwrap();
        assert!((both.cosine(&unit(0)).unwrap() - std::f64::consts::FRAC_1_SQRT_2).abs() < 1e-6);
        let negative = Embedding::new(unit(0).values().iter().map(|value| -value).collect()).unwrap();
        assert_eq!(fused(&[unit(0), negative]), Err(EmbeddingError::Zero));
        assert_eq!(fused(&[]), Err(EmbeddingError::Dimension { found: 0 }));
        let other = Embedding::normalised(vec![1.0; 17]).unwrap();
        assert_eq!(fused(&[unit(0), other]), Err(EmbeddingError::WrongDimension { found: 17, expected: 16 }));
    }

    #[test]
    fn work_in_parallel_comes_back_in_order() {
        let told = AtomicUsize::new(0);
        let answers = in_parallel(
            50,
            4,
            &|done| {
                told.fetch_max(done, Ordering::Relaxed);
            },
            |number| number * 3,
        );
        assert_eq!(answers, (0..50).map(|number| number * 3).collect::<Vec<_>>());
        assert_eq!(told.into_inner(), 50);
        assert!(in_parallel(0, 0, &|_| {}, |number| number).is_empty());
    }
}
