//! `eval time`.

use clap::Args;
use veilmatch_domain::Threshold;
use veilmatch_evaluation::page::Page;
use veilmatch_evaluation::time::{self, OverTime, Slope};

use super::{Evaluated, Inputs, Labelled, Outputs, dates, rate_text, refused};
use crate::arguments::threshold;
use crate::exit::CliError;
use crate::input::InputError;
use crate::report::{self, Progress};

pub(crate) const EXAMPLES: &str = "\
Examples:
  veilmatch eval time --embeddings X.npy --labels people.csv --column taken
  veilmatch eval time --embeddings X.npy --labels people.csv --column taken \\
      --years 0.5,1,2,5,10 --threshold 0.434 --html time.html

people.csv has the columns `row`, `label` and the one that is named, with dates
as YYYY-MM-DD, YYYY-MM or YYYY; rows with an empty cell are left out. All pairs
of images of a person are mated pairs.";

/// Days of a year.
const YEAR: f64 = 365.25;

/// Arguments of `eval time`.
#[derive(Clone, Debug, Args)]
pub struct TimeArguments {
    /// What to read.
    #[command(flatten)]
    pub inputs: Inputs,
    /// The column of the labels' table that holds the date
    #[arg(long, value_name = "NAME", default_value = "date")]
    pub column: String,
    /// Upper ends of the bins of elapsed time, in years, ascending
    #[arg(long, value_name = "Y,..", value_delimiter = ',', default_value = "0.5,1,2,5,10", value_parser = years)]
    pub years: Vec<f64>,
    /// Cosine from which two faces match, -0.9 to 0.9
    #[arg(long, value_name = "T", default_value = "0.427", value_parser = threshold, allow_negative_numbers = true)]
    pub threshold: Threshold,
    /// What to write.
    #[command(flatten)]
    pub outputs: Outputs,
}

fn years(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| String::from("not a number"))?;
    if number > 0.0 && number <= 200.0 { Ok(number) } else { Err(String::from("not between 0 and 200 years")) }
}

/// Evaluates the dates of a column.
pub(super) fn evaluate(
    inputs: &Inputs,
    labelled: &Labelled,
    column: usize,
    years: &[f64],
    threshold: f64,
    outputs: &Outputs,
    progress: &Progress,
) -> Result<OverTime, CliError> {
    let bar = progress.stage("time", 1);
    let bad =
        || InputError::Cell { path: inputs.labels.clone(), problem: "a date is none of YYYY-MM-DD, YYYY-MM and YYYY" };
    let cells = labelled.columns.get(column).map_or(&[][..], Vec::as_slice);
    let days: Vec<f64> = cells.iter().map(|cell| dates::days(cell).ok_or_else(bad)).collect::<Result<_, _>>()?;
    let settings =
        time::Settings { bins: years.iter().map(|y| y * YEAR).collect(), threshold, bootstrap: outputs.bootstrap() };
    let result = time::over_time(&labelled.templates, &labelled.people, &days, &settings).map_err(refused);
    bar.step();
    result
}

pub(super) fn run(arguments: &TimeArguments, progress: &Progress) -> Result<Evaluated<OverTime>, CliError> {
    let TimeArguments { inputs, outputs, .. } = arguments;
    let labelled = inputs.read(&[&arguments.column], progress)?;
    let threshold = arguments.threshold.cosine();
    let result = evaluate(inputs, &labelled, 0, &arguments.years, threshold, outputs, progress)?;
    let source = inputs.source(&labelled);
    let mut page = Page::default();
    page.time(&result);
    outputs.write(&page, &source)?;
    let text = format!("{source}; {} rows without a date left out\n{}", labelled.left_out, text(&result));
    Ok(Evaluated { eval: "time", result, text, outside_band: 0 })
}

pub(super) fn text(result: &OverTime) -> String {
    let years = |days: f64| format!("{:.2}", days / YEAR);
    let rows: Vec<Vec<String>> = result
        .bins
        .iter()
        .map(|b| {
            let interval = b.mean_interval.map_or_else(String::new, |i| format!(" ({:.3} to {:.3})", i.low, i.high));
            vec![
                format!("{} to {}", years(b.from_days), b.to_days.map_or_else(|| String::from("more"), years)),
                report::count(b.pairs),
                format!("{:.3}{interval}", b.mean),
                rate_text(&b.fnmr),
            ]
        })
        .collect();
    let slope = |name: &str, slope: Option<Slope>| match slope {
        Some(s) => {
            let interval = s.interval.map_or_else(String::new, |i| format!(" ({:+.4} to {:+.4})", i.low, i.high));
            format!("Change of the mated score in a year, {name}: {:+.4}{interval}\n", s.per_year)
        }
        None => format!("Change of the mated score in a year, {name}: none to be seen, the times do not differ\n"),
    };
    format!(
        "{} mated pairs of {} people, up to {} years apart; threshold {:.3}\n\n{}\n\n{}{}",
        report::count(result.pairs),
        report::count(result.people),
        years(result.longest_days),
        result.threshold,
        report::table(&["years between", "mated pairs", "mean score", "FNMR"], &[1, 2, 3], &rows),
        slope("over all pairs", result.slope),
        slope("within people", result.slope_within),
    )
}
