//! `eval report`: everything about one set of templates, as one page.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use veilmatch_evaluation::encrypted::EncryptedPoint;
use veilmatch_evaluation::groups::{self, Groups};
use veilmatch_evaluation::page::Page;
use veilmatch_evaluation::time::OverTime;
use veilmatch_evaluation::verification::Verification;

use super::identification::{self, Found1N, Searching};
use super::pairs::{self, EncryptedAt};
use super::{Evaluated, Inputs, Outputs, rate, time, write_page};
use crate::engine::Found;
use crate::exit::CliError;
use crate::input::{self, Pair};
use crate::report::Progress;

pub(crate) const EXAMPLES: &str = "\
Examples:
  veilmatch eval report --embeddings X.npy --labels labels.csv --html accuracy.html
  veilmatch eval report --embeddings X.npy --labels labels.csv --pairs pairs.csv \\
      --encrypted-pairs --encrypted 50 --html accuracy.html
  veilmatch eval report --embeddings X.npy --labels people.csv --group-column sex \\
      --date-column taken --html accuracy.html

Without --encrypted-pairs and --encrypted everything is plaintext. Encrypted
scores do not exist: what the protocol decided is drawn as points.";

/// Bins of elapsed time, in years.
const YEARS: [f64; 5] = [0.5, 1.0, 2.0, 5.0, 10.0];

/// Arguments of `eval report`.
#[derive(Clone, Debug, Args)]
pub struct ReportArguments {
    /// What to read.
    #[command(flatten)]
    pub inputs: Inputs,
    /// Listed pairs, whose mated ones FNMR is given for too: columns `fold,a,b,same` or `a,b,same`
    #[arg(long, value_name = "pairs.csv")]
    pub pairs: Option<PathBuf>,
    /// False match rates to find thresholds for
    #[arg(long, value_name = "R,..", value_delimiter = ',', default_value = "1e-2,1e-3,1e-4,1e-5", value_parser = rate)]
    pub fmr: Vec<f64>,
    /// Decide the listed mated pairs and a sample of the non-mated ones through the encrypted protocol
    #[arg(long, requires = "pairs")]
    pub encrypted_pairs: bool,
    /// At which of these FMRs
    #[arg(long, value_name = "R,..", value_delimiter = ',', default_value = "1e-3,1e-4", value_parser = rate)]
    pub encrypted_fmr: Vec<f64>,
    /// How many listed non-mated pairs
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub encrypted_non_mated: usize,
    /// How to search.
    #[command(flatten)]
    pub searching: Searching,
    /// The column of the labels' table that holds the group
    #[arg(long, value_name = "NAME")]
    pub group_column: Option<String>,
    /// The column of the labels' table that holds the date
    #[arg(long, value_name = "NAME")]
    pub date_column: Option<String>,
    /// What to write.
    #[command(flatten)]
    pub outputs: Outputs,
}

/// Everything.
#[derive(Serialize)]
pub(super) struct Everything {
    verification: Verification,
    encrypted: Vec<EncryptedPoint>,
    identification: Found1N,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Groups>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<OverTime>,
}

pub(super) fn run(
    arguments: &ReportArguments,
    found: &Found<'_>,
    progress: &Progress,
) -> Result<Evaluated<Everything>, CliError> {
    let ReportArguments { inputs, outputs, .. } = arguments;
    let labelled = inputs.read(&[], progress)?;
    let pairs: Vec<Pair> = match &arguments.pairs {
        Some(path) => input::pairs(path, labelled.place.len())?,
        None => Vec::new(),
    };
    let listed = pairs::placed(&pairs, &labelled);
    let mut fmr = arguments.fmr.clone();
    if arguments.encrypted_pairs {
        fmr.extend(arguments.encrypted_fmr.iter().filter(|f| !arguments.fmr.contains(f)));
    }
    fmr.sort_by(|a, b| b.total_cmp(a));
    let verification = pairs::verification(&labelled, &listed, &fmr, outputs, progress)?;
    let encrypted = if arguments.encrypted_pairs {
        let at = EncryptedAt {
            pairs: &listed,
            non_mated: arguments.encrypted_non_mated,
            fmr: &arguments.encrypted_fmr,
            scheme: arguments.searching.scheme.chosen(),
        };
        pairs::encrypted_points(&labelled.embeddings, &at, &verification, found, progress)?
    } else {
        Vec::new()
    };
    let identification = identification::evaluate(&labelled, &arguments.searching, outputs, found, progress)?;
    let mut page = Page::default();
    page.verification(&verification, &encrypted);
    page.identification(&identification.plain, &identification.encrypted);
    let mut text = pairs::verification_text(&verification, &encrypted);
    text += &format!("\n{}", identification::text(&identification));
    // A person without a group or a date takes no part in that section alone.
    let groups = match &arguments.group_column {
        Some(column) => {
            let labelled = inputs.read(&[column], progress)?;
            let at = groups::Threshold::AtFmr(arguments.fmr.get(1).or(arguments.fmr.first()).copied().unwrap_or(1e-3));
            let result = super::groups::evaluate(&labelled, 0, at, outputs, progress)?;
            page.groups("Groups", &result);
            text += &format!("\n{}", super::groups::text(&result));
            Some(result)
        }
        None => None,
    };
    let time = match &arguments.date_column {
        Some(column) => {
            let labelled = inputs.read(&[column], progress)?;
            let threshold = verification.points.last().map_or(0.5, |p| p.threshold);
            let result = time::evaluate(inputs, &labelled, 0, &YEARS, threshold, outputs, progress)?;
            page.time(&result);
            text += &format!("\n{}", time::text(&result));
            Some(result)
        }
        None => None,
    };
    let source = inputs.source(&labelled);
    if let Some(path) = &outputs.html {
        write_page(path, &page, &source)?;
    }
    let outside_band = encrypted.iter().map(|e| e.outside_band).sum::<u64>() + identification.outside_band();
    let result = Everything { verification, encrypted, identification, groups, time };
    Ok(Evaluated { eval: "report", result, text: format!("{source}\n{text}"), outside_band })
}
