//! `veilmatch rotation`: public rotations of embeddings, fitted or random, and the file that holds one.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use veilmatch_domain::{Dimension, Embedding};
use veilmatch_preselect::{Origin, Rotation};

use crate::arguments::dimension;
use crate::exit::CliError;
use crate::input::{self, InputError};
use crate::report::{Report, count};

const FIT_EXAMPLES: &str = "\
Examples:
  veilmatch rotation fit --embeddings public.npy --out pca.rotation
  veilmatch rotation fit --random --dim 512 --seed 7 --out random.rotation

Fit it on public embeddings: everybody may read the file. All templates and
probes of a collection must be rotated by the same one, or by none.";

const SHOW_EXAMPLES: &str = "\
Examples:
  veilmatch rotation show --file pca.rotation
  veilmatch rotation show --file pca.rotation --json";

/// Longest file that is read: a matrix of the largest dimension, with its head.
const MAX_FILE: u64 = 5 << 20;
/// Widths whose energy is shown.
const WIDTHS: [usize; 5] = [16, 32, 64, 128, 256];

/// What to do with a rotation.
#[derive(Debug, Subcommand)]
pub enum RotationCommand {
    /// Fit a rotation on public embeddings, or draw a random one
    #[command(after_help = FIT_EXAMPLES)]
    Fit(FitArguments),
    /// Where a rotation comes from and how much of the embeddings its first coordinates hold
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// The rotation
        #[arg(long, value_name = "FILE.rotation")]
        file: PathBuf,
        /// Write one JSON object to standard output and nothing else
        #[arg(long)]
        json: bool,
    },
}

/// Arguments of `rotation fit`.
#[derive(Clone, Debug, Args)]
pub struct FitArguments {
    /// Public embeddings: a matrix of float16 or float32, one unit vector per row, as many rows as dimensions at least
    #[arg(long, value_name = "X.npy", required_unless_present = "random")]
    pub embeddings: Option<PathBuf>,
    /// Scale embeddings of any length to unit length instead of refusing them
    #[arg(long, requires = "embeddings")]
    pub normalize: bool,
    /// A random rotation instead
    #[arg(long, conflicts_with = "embeddings", requires = "dim")]
    pub random: bool,
    /// Dimension of the random rotation, 16 to 1024
    #[arg(long, value_name = "D", value_parser = dimension, requires = "random")]
    pub dim: Option<Dimension>,
    /// Seed of the random rotation
    #[arg(long, value_name = "N", default_value_t = 0, requires = "random")]
    pub seed: u64,
    /// The file to write
    #[arg(long, value_name = "FILE.rotation")]
    pub out: PathBuf,
    /// Write one JSON object to standard output and nothing else
    #[arg(long)]
    pub json: bool,
}

/// Rotates embeddings before they are sealed.
#[derive(Clone, Debug, Default, Args)]
pub struct RotatedBy {
    /// Rotate embeddings by this public rotation first; everything in the collection must be rotated by the same
    #[arg(long, value_name = "FILE.rotation")]
    pub rotation: Option<PathBuf>,
}

impl RotatedBy {
    /// The rotation, if there is one.
    ///
    /// # Errors
    /// [`CliError::Input`] naming the file.
    pub fn read(&self) -> Result<Option<Rotation>, CliError> {
        self.rotation.as_deref().map(read).transpose()
    }

    /// The embedding as it is to be sealed.
    ///
    /// # Errors
    /// [`CliError`] if the file cannot be used, or is of another dimension.
    pub fn apply(&self, embedding: Embedding) -> Result<Embedding, CliError> {
        match self.read()? {
            Some(rotation) => rotated(&rotation, &embedding),
            None => Ok(embedding),
        }
    }
}

/// Rotates; a rotation of another dimension is bad input.
pub(crate) fn rotated(rotation: &Rotation, embedding: &Embedding) -> Result<Embedding, CliError> {
    rotation.rotate(embedding).map_err(|e| CliError::Arguments(Box::new(e)))
}

/// Reads a rotation.
///
/// # Errors
/// [`CliError::Input`] naming the file.
pub fn read(path: &Path) -> Result<Rotation, CliError> {
    let failed = |source| CliError::from(InputError::Open { path: path.into(), source });
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_FILE).read_to_end(&mut bytes).map_err(failed)?;
    Rotation::from_bytes(&bytes).map_err(|source| InputError::Rotation { path: path.into(), source }.into())
}

/// What is said about a rotation.
#[derive(Clone, Debug, Serialize)]
struct Shown {
    file: String,
    dimension: usize,
    origin: &'static str,
    /// How many embeddings it was fitted on.
    embeddings: Option<u64>,
    seed: Option<u64>,
    /// The share of the embeddings' squared norm in the first m coordinates.
    energy: Vec<Energy>,
}

#[derive(Clone, Debug, Serialize)]
struct Energy {
    m: usize,
    share: f64,
}

impl Shown {
    fn of(path: &Path, rotation: &Rotation) -> Self {
        let dimension = rotation.dimension().get();
        let (origin, embeddings, seed) = match rotation.origin() {
            Origin::Principal { embeddings } => ("principal components", Some(embeddings), None),
            Origin::Random { seed } => ("random", None, Some(seed)),
        };
        let energy = WIDTHS.into_iter().filter(|&m| m < dimension).map(|m| Energy { m, share: rotation.energy(m) });
        Self { file: path.display().to_string(), dimension, origin, embeddings, seed, energy: energy.collect() }
    }
}

impl Report for Shown {
    fn outside_band(&self) -> u64 {
        0
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn text(&self) -> String {
        let origin = match (self.embeddings, self.seed) {
            (Some(n), _) => format!("principal components of {} embeddings", count(n)),
            (_, Some(seed)) => format!("random, seed {seed}"),
            _ => self.origin.to_owned(),
        };
        let energy: Vec<String> =
            self.energy.iter().map(|e| format!("{:.1} % in the first {}", e.share * 100.0, e.m)).collect();
        format!("{}: {} dimensions, {origin}\nsquared norm: {}\n", self.file, self.dimension, energy.join(", "))
    }
}

/// Fits or shows.
///
/// # Errors
/// [`CliError`] if a file cannot be used or written.
pub fn run(command: &RotationCommand, json: bool) -> Result<(), CliError> {
    let shown = match command {
        RotationCommand::Show { file, .. } => Shown::of(file, &read(file)?),
        RotationCommand::Fit(arguments) => Shown::of(&arguments.out, &fit(arguments)?),
    };
    crate::report::write(&shown, json, &mut std::io::stdout().lock()).map_err(CliError::Output)
}

fn fit(arguments: &FitArguments) -> Result<Rotation, CliError> {
    let rotation = match (&arguments.embeddings, arguments.dim) {
        (Some(path), _) => Rotation::fit(&input::embeddings(path, arguments.normalize)?)
            .map_err(|e| CliError::Arguments(Box::new(e)))?,
        (None, Some(dimension)) => Rotation::random(dimension, arguments.seed),
        // The command line asks for one of the two; this keeps the function total.
        (None, None) => return Err(CliError::Output(std::io::Error::from(std::io::ErrorKind::InvalidInput))),
    };
    let path = &arguments.out;
    let failed = |source| CliError::from(InputError::Open { path: path.into(), source });
    // A rotation in use is not to be written over: what is enrolled under it could not be found any more.
    let mut file = File::create_new(path).map_err(failed)?;
    file.write_all(&rotation.to_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(rotation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encrypted;
    use crate::engine::{Scheme, Setup};
    use crate::judge::Oracle;
    use crate::synthetic;
    use crate::testing::{files, subject};
    use veilmatch_domain::{Decision, Outcome, Query, Threshold};

    fn random(dim: usize, out: PathBuf) -> FitArguments {
        let dim = Dimension::new(dim).unwrap();
        FitArguments { embeddings: None, normalize: false, random: true, dim: Some(dim), seed: 3, out, json: false }
    }

    #[test]
    fn a_rotation_is_written_once_and_read_again() {
        let (folder, [text]) = files([("text.rotation", b"no")]);
        let path = folder.path().join("r.rotation");
        let made = fit(&random(32, path.clone())).unwrap();
        assert!(read(&path).unwrap() == made);
        assert!(Shown::of(&path, &made).text().contains("32 dimensions, random, seed 3"));
        assert_eq!(fit(&random(32, path)).unwrap_err().exit_code(), 2);
        let error = read(&text).unwrap_err();
        assert_eq!((error.exit_code(), error.reason()), (2, "not-a-rotation"));
        assert!(error.to_string().contains("text.rotation"));
        let absent = RotatedBy { rotation: Some(folder.path().join("absent")) };
        assert_eq!(absent.read().unwrap_err().reason(), "no-such-file");
    }

    #[test]
    fn a_rotated_gallery_decides_as_the_unrotated_one() {
        let dimension = Dimension::new(128).unwrap();
        let threshold = Threshold::new(0.427).unwrap();
        let images = synthetic::people(30, 2, dimension, 21).unwrap();
        let rotation = Rotation::random(dimension, 5);
        let turned = |e: &Embedding| rotated(&rotation, e).unwrap();
        let setup = Setup {
            dimension,
            members: 30,
            lowest_threshold: threshold,
            highest_threshold: threshold,
            scheme: Scheme::Glwe,
        };
        let mut engine = encrypted::found(&setup).unwrap();
        // Rotated people are enrolled, and the oracle knows the unrotated ones alone.
        let name = |i: usize| subject(&format!("p{i}"));
        let plain: Vec<_> = images.iter().enumerate().map(|(i, own)| (name(i), own[0].clone())).collect();
        let people: Vec<_> = plain.iter().map(|(s, e)| (s.clone(), turned(e))).collect();
        let mut oracle = Oracle::default();
        oracle.enroll(&plain);
        engine.enroll(&people, &|_| {}).unwrap();
        let query = Query::new(Decision::Matches { max_matches: 30 }, threshold);
        let mut named = 0;
        for own in &images {
            let outcome = engine.ask(&turned(&own[1]), &query).unwrap();
            let tally = oracle.scores(&own[1]).unwrap().judge(&query, &outcome, engine.noise_std());
            assert_eq!((tally.decisions, tally.outside_band), (30, 0));
            if let Outcome::Matches(subjects) = outcome {
                named += subjects.len();
            }
        }
        assert!(named > 15, "most second images match: {named}");
        // And an unrotated probe finds nobody, or the rotation would do nothing.
        let mut found = 0;
        for own in images.iter().take(10) {
            found += usize::from(engine.ask(&own[1], &query).unwrap() != Outcome::Matches(Vec::new()));
        }
        assert!(found <= 2, "{found}");
    }
}
