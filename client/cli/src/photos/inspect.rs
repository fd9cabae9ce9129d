//! `veilmatch inspect`: what is found in a photo, as numbers and as a picture. Nothing is embedded, stored or sent.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use veilmatch_domain::Explain;
use veilmatch_extract::{Examination, Extractor, Face, Faces, annotated};

use super::{PhotoOptions, PhotoRefused};
use crate::exit::{CliError, Verdict};
use crate::report::{milliseconds, table};

pub(crate) const EXAMPLES: &str = "\
Examples:
  veilmatch inspect photo.jpg
  veilmatch inspect photo.jpg --out annotated.png
  veilmatch inspect photo.jpg --gates strict --json | jq .quality

Exit code 0 if the photo would be accepted, 1 if not: the gates are against the face, or
there are several; 2 if there is none, or the file is no photo.";

/// Arguments of `inspect`.
#[derive(Clone, Debug, Args)]
pub struct InspectArguments {
    /// The photo: JPEG, PNG or WebP
    #[arg(value_name = "PHOTO")]
    pub photo: PathBuf,
    /// Write the photo with boxes, landmarks, aligned face and numbers
    #[arg(long, value_name = "FILE.png")]
    pub out: Option<PathBuf>,
    /// Write one JSON object to standard output and nothing else
    #[arg(long)]
    pub json: bool,
    /// How photos become templates.
    #[command(flatten)]
    pub options: PhotoOptions,
}

#[derive(Serialize)]
struct Inspected {
    accepted: bool,
    /// Photo, width and height as they are after turning.
    photo: String,
    width: usize,
    height: usize,
    turned_degrees: u16,
    faces: Vec<Found>,
    quality: Components,
    refusals: Vec<Reason>,
    timings_ms: Vec<(&'static str, f64)>,
    detector: String,
    embedder: String,
    runtime: String,
}

#[derive(Serialize)]
struct Found {
    chosen: bool,
    score: f64,
    /// x, y, width, height.
    bounds: [f64; 4],
    /// Eyes, nose, corners of the mouth; the picture's left first.
    landmarks: [[f64; 2]; 5],
}

#[derive(Serialize)]
struct Components {
    eye_distance: f64,
    sharpness: f64,
    yaw: f64,
    pitch: f64,
    roll: f64,
    brightness: f64,
    contrast: f64,
    clipped: f64,
    model: Option<f64>,
    liveness: Option<f64>,
}

#[derive(Serialize)]
struct Reason {
    code: &'static str,
    message: String,
}

/// Examines the photo and prints what was found.
///
/// # Errors
/// [`CliError`]: no model, no photo, no face, or the picture cannot be written.
pub fn run(arguments: &InspectArguments) -> Result<Verdict, CliError> {
    let mut settings = arguments.options.settings(0);
    // Several faces are shown, not refused: whoever looks wants to see them.
    let alone = settings.faces == Faces::One;
    if alone {
        settings.faces = Faces::Largest;
    }
    let extractor = Extractor::open(&arguments.options.library(), settings).map_err(super::bad)?;
    let examination = extractor
        .examine_file(&arguments.photo)
        .map_err(|source| CliError::Arguments(Box::new(PhotoRefused { file: arguments.photo.clone(), source })))?;
    if let Some(out) = &arguments.out {
        let failed = |kind| CliError::Arguments(Box::new(super::models::FileError { path: out.clone(), kind }));
        let picture = annotated(&examination).png().map_err(|error| super::bad(error.into()))?;
        std::fs::write(out, &*picture).map_err(|error| failed(error.kind()))?;
    }
    let inspected = inspected(arguments, &extractor, &examination, alone);
    let text = if arguments.json { json(&inspected)? } else { inspected.text(arguments) };
    crate::exit::print(&text)?;
    Ok(if inspected.accepted { Verdict::Agrees } else { Verdict::No })
}

pub(crate) fn json(value: &impl Serialize) -> Result<String, CliError> {
    serde_json::to_string(value).map(|text| text + "\n").map_err(|error| CliError::Output(error.into()))
}

fn inspected(arguments: &InspectArguments, extractor: &Extractor, found: &Examination, alone: bool) -> Inspected {
    let tenth = |value: f64| (value * 10.0).round() / 10.0;
    let face = |face: &Face| {
        let bounds = face.bounds;
        Found {
            chosen: *face == found.face,
            score: (face.score * 1e3).round() / 1e3,
            bounds: [bounds.x, bounds.y, bounds.width, bounds.height].map(tenth),
            landmarks: face.landmarks.points().map(|point| [tenth(point.x), tenth(point.y)]),
        }
    };
    let q = found.quality;
    let short = |value: f64| (value * 1e3).round() / 1e3;
    let mut refusals: Vec<Reason> = Vec::new();
    if alone && found.faces.len() > 1 {
        let error = veilmatch_extract::ExtractError::SeveralFaces { found: found.faces.len() };
        refusals.push(Reason { code: error.code(), message: error.to_string() });
    }
    refusals.extend(found.refusals.iter().map(|one| Reason { code: one.code(), message: one.to_string() }));
    Inspected {
        accepted: refusals.is_empty(),
        photo: arguments.photo.display().to_string(),
        width: found.picture.width(),
        height: found.picture.height(),
        turned_degrees: u16::from(found.turned) * 90,
        faces: found.faces.iter().map(face).collect(),
        quality: Components {
            eye_distance: short(q.eye_distance),
            sharpness: short(q.sharpness),
            yaw: short(q.yaw),
            pitch: short(q.pitch),
            roll: short(q.roll),
            brightness: short(q.brightness),
            contrast: short(q.contrast),
            clipped: short(q.clipped),
            model: q.model.map(short),
            liveness: q.liveness.map(short),
        },
        refusals,
        timings_ms: found.timings.stages().iter().map(|(name, time)| (*name, milliseconds(*time))).collect(),
        detector: extractor.detector().name.clone(),
        embedder: extractor.embedder().name.clone(),
        runtime: extractor.runtime(),
    }
}

impl Inspected {
    fn text(&self, arguments: &InspectArguments) -> String {
        let turned = match self.turned_degrees {
            0 => String::new(),
            degrees => format!(", found when turned by {degrees} degrees"),
        };
        let mut text = format!("{}: {} x {}{turned}\n", self.photo, self.width, self.height);
        text += &format!("{} and {} on {}\n", self.detector, self.embedder, self.runtime);
        let (q, gates) = (&self.quality, arguments.options.settings(0).gates);
        let least = |gate: Option<f64>| gate.map_or(String::new(), |value| format!("at least {value}"));
        let most = |gate: Option<f64>| gate.map_or(String::new(), |value| format!("at most {value} either way"));
        let between = gates.brightness.map_or(String::new(), |(low, high)| format!("{low} to {high}"));
        let at_most = gates.clipped.map_or(String::new(), |value| format!("at most {value}"));
        let mut rows = vec![
            ("faces", self.faces.len().to_string(), String::new()),
            ("eye distance, px", format!("{:.0}", q.eye_distance), least(gates.eye_distance)),
            ("sharpness", format!("{:.0}", q.sharpness), least(gates.sharpness)),
            ("yaw", format!("{:+.2}", q.yaw), most(gates.yaw)),
            ("pitch", format!("{:+.2}", q.pitch), most(gates.pitch)),
            ("roll, degrees", format!("{:+.0}", q.roll), most(gates.roll)),
            ("brightness", format!("{:.0}", q.brightness), between),
            ("contrast", format!("{:.0}", q.contrast), least(gates.contrast)),
            ("black or white", format!("{:.3}", q.clipped), at_most),
        ];
        if let Some(value) = q.model {
            rows.push(("quality model", format!("{value:.2}"), least(gates.model)));
        }
        if let Some(value) = q.liveness {
            rows.push(("presence", format!("{value:.2}"), least(gates.liveness)));
        }
        let rows: Vec<Vec<String>> =
            rows.into_iter().map(|(name, found, gate)| vec![name.into(), found, gate]).collect();
        text += &table(&["component", "found", "needed"], &[1], &rows);
        text.push('\n');
        for refusal in &self.refusals {
            text += &format!("refused: {}\n", refusal.message);
        }
        if self.accepted {
            text += "accepted\n";
        }
        if let Some(out) = &arguments.out {
            text += &format!("drawn in {}\n", out.display());
        }
        text
    }
}
