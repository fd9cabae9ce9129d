//! `eval groups`.

use clap::Args;
use veilmatch_domain::Threshold;
use veilmatch_evaluation::groups::{self, Groups, Membership};
use veilmatch_evaluation::page::{self, Page};

use super::{Evaluated, Inputs, Labelled, Outputs, percent, rate, rate_text, refused};
use crate::arguments::threshold;
use crate::exit::CliError;
use crate::report::{self, Progress};

pub(crate) const EXAMPLES: &str = "\
Examples:
  veilmatch eval groups --embeddings X.npy --labels people.csv --column sex
  veilmatch eval groups --embeddings X.npy --labels people.csv --column region \\
      --fmr 1e-4 --html groups.html
  veilmatch eval groups --embeddings X.npy --labels people.csv --column sex \\
      --fair sex.fair --json

people.csv has the columns `row`, `label` and the one that is named; a person is
in one group, and rows with an empty cell are left out. FMR of a group is over
pairs of different people of that group. Groups that are too small are marked
and left out of the spread.";

/// Arguments of `eval groups`.
#[derive(Clone, Debug, Args)]
pub struct GroupsArguments {
    /// What to read.
    #[command(flatten)]
    pub inputs: Inputs,
    /// The column of the labels' table that holds the group
    #[arg(long, value_name = "NAME", default_value = "group")]
    pub column: String,
    /// The one threshold is that of this FMR over all pairs of different people
    #[arg(long, value_name = "R", default_value = "1e-3", value_parser = rate, conflicts_with = "threshold")]
    pub fmr: f64,
    /// The one threshold, a cosine from -0.9 to 0.9
    #[arg(long, value_name = "T", value_parser = threshold, allow_negative_numbers = true)]
    pub threshold: Option<Threshold>,
    /// What to write.
    #[command(flatten)]
    pub outputs: Outputs,
}

/// Evaluates groups of rows.
pub(super) fn evaluate(
    labelled: &Labelled,
    column: usize,
    at: groups::Threshold,
    outputs: &Outputs,
    progress: &Progress,
) -> Result<Groups, CliError> {
    let of_row = labelled.columns.get(column).map_or(&[][..], Vec::as_slice);
    let membership = Membership::new(&labelled.people, of_row).map_err(refused)?;
    let bar = progress.stage("groups", groups::steps(labelled.templates.len()));
    groups::compare(&labelled.templates, &labelled.people, &membership, at, outputs.bootstrap(), &|n| bar.advance(n))
        .map_err(refused)
}

pub(super) fn run(arguments: &GroupsArguments, progress: &Progress) -> Result<Evaluated<Groups>, CliError> {
    let labelled = arguments.inputs.read(&[&arguments.column], progress)?;
    let at = match arguments.threshold {
        Some(threshold) => groups::Threshold::Cosine(threshold.cosine()),
        None => groups::Threshold::AtFmr(arguments.fmr),
    };
    let result = evaluate(&labelled, 0, at, &arguments.outputs, progress)?;
    let source = arguments.inputs.source(&labelled);
    let mut page = Page::default();
    page.groups("Groups", &result);
    arguments.outputs.write(&page, &source)?;
    let text = format!("{source}; {} rows without a group left out\n{}", labelled.left_out, text(&result));
    Ok(Evaluated { eval: "groups", result, text, outside_band: 0 })
}

/// A table and the spread.
pub(super) fn text(result: &Groups) -> String {
    let rows: Vec<Vec<String>> = result
        .groups
        .iter()
        .map(|g| {
            let small = |mark: bool| if mark { " *" } else { "" };
            vec![
                g.name.clone(),
                report::count(g.people as u64),
                format!("{}{}", rate_text(&g.fmr), small(g.too_small_for_fmr)),
                format!("{}{}", rate_text(&g.fnmr), small(g.too_small_for_fnmr)),
            ]
        })
        .collect();
    format!(
        "One threshold: cosine {:.4}; overall FMR {}, FNMR {}; 95 % intervals from {} resamples of people\n\n{}\n\n{}\n{}\n{}",
        result.threshold,
        percent(result.fmr),
        percent(result.fnmr),
        report::count(result.resamples as u64),
        report::table(&["group", "people", "FMR within the group", "FNMR"], &[1, 2, 3], &rows),
        page::spread("FMR", result.fmr_spread.as_ref()),
        page::spread("FNMR", result.fnmr_spread.as_ref()),
        if result.groups.iter().any(|g| g.too_small_for_fmr || g.too_small_for_fnmr) {
            "* too small a group for the spread: too few people, or too few comparisons for this rate.\n"
        } else {
            ""
        },
    )
}
