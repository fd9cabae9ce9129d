//! `veilmatch eval`: accuracy of a model in plaintext, and what the encrypted protocol decides at the same thresholds.
//!
//! The mathematics is in `veilmatch-evaluation`. This module reads files, runs the encrypted side through
//! [`crate::engine`], prints, and writes pages.

mod dates;
mod encrypted;
mod fit_fair;
mod groups;
mod identification;
mod images;
mod mapped;
pub mod pairs;
mod report;
mod time;

pub use mapped::MappedBy;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use veilmatch_domain::Embedding;
use veilmatch_evaluation::bootstrap::Bootstrap;
use veilmatch_evaluation::page::{self, Page};
use veilmatch_evaluation::{EvaluationError, People, Templates};

use crate::engine::Found;
use crate::exit::{CliError, Verdict};
use crate::input::{self, Roster};
use crate::report::{self as print, Progress, Report};

/// The evaluations.
#[derive(Debug, Subcommand)]
pub enum Evaluation {
    /// Verification of labelled pairs as in LFW, with thresholds chosen on the other folds
    ///
    /// With --fmr also at the thresholds of given FMRs, found over all pairs of different people: the listed mated pairs and a
    /// sample of the non-mated ones are decided through the encrypted protocol too.
    #[command(after_help = pairs::EXAMPLES)]
    Pairs(pairs::PairsArguments),
    /// Open-set identification: FNIR at given FPIR, and rank 1, by gallery size
    #[command(after_help = identification::EXAMPLES)]
    Identification(identification::IdentificationArguments),
    /// Verification from images: what gates refuse, and what is decided then
    #[command(after_help = images::EXAMPLES)]
    Images(images::ImagesArguments),
    /// Whether a photo is decided within 100, 500 and 1,000 ms
    #[command(after_help = images::TIME_EXAMPLES)]
    TimeLimits(images::TimeLimitsArguments),
    /// FMR and FNMR of groups at one threshold, and the spread between them
    #[command(after_help = groups::EXAMPLES)]
    Groups(groups::GroupsArguments),
    /// Mated scores against the time between two images
    #[command(after_help = time::EXAMPLES)]
    Time(time::TimeArguments),
    /// Fit an affine map of embeddings that brings the FMRs of groups closer together
    ///
    /// The map is applied before an embedding is sealed, so nothing changes under encryption. It is fitted on one half of the
    /// people of each group, shown on the other, and changes scores: thresholds have to be found again.
    #[command(after_help = fit_fair::EXAMPLES)]
    FitFair(fit_fair::FitFairArguments),
    /// Everything about one set of templates, as one page
    #[command(after_help = report::EXAMPLES)]
    Report(report::ReportArguments),
}

/// What all evaluations of labelled embeddings read.
#[derive(Clone, Debug, Args)]
pub struct Inputs {
    /// The embeddings: a matrix of float16 or float32, one unit vector per row
    #[arg(long, value_name = "X.npy")]
    pub embeddings: PathBuf,
    /// Who is in which row: a table with the columns `row` and `label` and any others; rows without a line are left out
    #[arg(long, value_name = "F.csv")]
    pub labels: PathBuf,
    /// Scale embeddings of any length to unit length instead of refusing them
    #[arg(long)]
    pub normalize: bool,
    /// The map to apply first.
    #[command(flatten)]
    pub mapped: MappedBy,
}

/// What all evaluations do with their result.
#[derive(Clone, Debug, Args)]
pub struct Outputs {
    /// Resamples of the bootstrap over people
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    pub resamples: u32,
    /// Decides on resamples, draws and halves
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Write the result as one HTML page too
    #[arg(long, value_name = "FILE.html")]
    pub html: Option<PathBuf>,
    /// Write one JSON object to standard output and nothing else
    #[arg(long)]
    pub json: bool,
}

impl Outputs {
    pub(crate) fn bootstrap(&self) -> Bootstrap {
        Bootstrap { resamples: self.resamples as usize, seed: self.seed }
    }

    /// Writes the page, if one is asked for.
    pub(crate) fn write(&self, page: &Page, source: &str) -> Result<(), CliError> {
        match &self.html {
            Some(path) => write_page(path, page, source),
            None => Ok(()),
        }
    }
}

pub(crate) fn write_page(path: &Path, page: &Page, source: &str) -> Result<(), CliError> {
    std::fs::write(path, page.render(source))
        .map_err(|source| input::InputError::Open { path: path.into(), source }.into())
}

/// Labelled embeddings, mapped where a map was given; labels and columns belong to their rows.
pub(crate) struct Labelled {
    pub(crate) embeddings: Vec<Embedding>,
    pub(crate) templates: Templates,
    pub(crate) people: People,
    /// One list of values for each column that was asked for.
    pub(crate) columns: Vec<Vec<String>>,
    /// Where each row of the file is now, if it is.
    pub(crate) place: Vec<Option<usize>>,
    /// Rows that were left out because a column that was asked for is empty there.
    pub(crate) left_out: usize,
}

impl Inputs {
    /// Reads embeddings and labels; rows without a value in one of these columns are left out.
    pub(crate) fn read(&self, columns: &[&str], progress: &Progress) -> Result<Labelled, CliError> {
        let bar = progress.stage("read", 1);
        let all = input::embeddings(&self.embeddings, self.normalize)?;
        let all = self.mapped.apply_all(all)?;
        let Roster { rows, labels, columns: values } = input::roster(&self.labels, all.len(), columns)?;
        bar.step();
        let kept: Vec<usize> = (0..rows.len()).filter(|&i| values.iter().all(|column| !column[i].is_empty())).collect();
        let mut place = vec![None; all.len()];
        kept.iter().enumerate().for_each(|(at, &i)| place[rows[i]] = Some(at));
        let embeddings: Vec<Embedding> = kept.iter().map(|&i| all[rows[i]].clone()).collect();
        Ok(Labelled {
            templates: Templates::of(&embeddings).map_err(refused)?,
            people: People::new(kept.iter().map(|&i| &labels[i])),
            columns: values.iter().map(|column| kept.iter().map(|&i| column[i].clone()).collect()).collect(),
            left_out: rows.len() - kept.len(),
            embeddings,
            place,
        })
    }

    /// What was evaluated, in one line.
    pub(crate) fn source(&self, labelled: &Labelled) -> String {
        let name = self
            .embeddings
            .file_name()
            .map_or_else(|| self.embeddings.display().to_string(), |n| n.to_string_lossy().into());
        let map = if self.mapped.fair.is_some() { ", mapped" } else { "" };
        format!(
            "{name}{map}: {} templates of {} people, {} dimensions",
            print::count(labelled.templates.len() as u64),
            print::count(labelled.people.len() as u64),
            labelled.templates.dimension()
        )
    }
}

/// What cannot be evaluated is bad input.
pub(crate) fn refused(error: EvaluationError) -> CliError {
    CliError::Arguments(Box::new(error))
}

/// A finished evaluation.
pub(crate) struct Evaluated<T> {
    pub(crate) eval: &'static str,
    pub(crate) result: T,
    pub(crate) text: String,
    pub(crate) outside_band: u64,
}

#[derive(Serialize)]
struct Object<'a, T> {
    eval: &'static str,
    #[serde(flatten)]
    result: &'a T,
}

impl<T: Serialize> Report for Evaluated<T> {
    fn outside_band(&self) -> u64 {
        self.outside_band
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&Object { eval: self.eval, result: &self.result })
    }

    fn text(&self) -> String {
        self.text.clone()
    }
}

/// A list of rates such as `1e-3,1e-4`.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| String::from("not a number"))?;
    if number > 0.0 && number < 1.0 { Ok(number) } else { Err(String::from("not between 0 and 1")) }
}

pub(crate) use page::{percent, rate as rate_text, wanted};

/// Evaluates and prints.
///
/// # Errors
/// [`CliError`]: a file cannot be used or written, or a party refused.
pub fn run(what: &Evaluation, json: bool, found: &Found<'_>, progress: &Progress) -> Result<Verdict, CliError> {
    let report: Box<dyn Report> = match what {
        Evaluation::Pairs(arguments) => Box::new(pairs::run(arguments, found, progress)?),
        Evaluation::Identification(arguments) => Box::new(identification::run(arguments, found, progress)?),
        Evaluation::Images(arguments) => Box::new(images::run(arguments, found, progress)?),
        Evaluation::TimeLimits(arguments) => Box::new(images::time_limits(arguments, found, progress)?),
        Evaluation::Groups(arguments) => Box::new(groups::run(arguments, progress)?),
        Evaluation::Time(arguments) => Box::new(time::run(arguments, progress)?),
        Evaluation::FitFair(arguments) => Box::new(fit_fair::run(arguments, progress)?),
        Evaluation::Report(arguments) => Box::new(report::run(arguments, found, progress)?),
    };
    crate::finish(report.as_ref(), json)
}

#[cfg(test)]
mod tests;
