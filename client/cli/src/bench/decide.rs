//! `veilmatch bench decide`: what each party computes for one probe, in CPU time.

use clap::Args;
use serde::Serialize;
use veilmatch_domain::{Decision, Dimension, Outcome, Query, Threshold};

use super::spread::Spread;
use super::stages::{QueryCost, Watched, people};
use super::{BenchError, cores, pool};
use crate::arguments::dimension;
use crate::exit::CliError;
use crate::report::{self, Progress, Report, count};

pub(super) const EXAMPLES: &str = "\
Examples:
  veilmatch bench decide
  veilmatch bench decide --gallery 20000 --repeat 30 --json > decide-20000.json

All parties run in this process, one after the other: CPU time is what each would
need on a machine of its own. People are really enrolled first, which takes some
minutes from 20,000 on.";

/// Answers do not matter here; only what they take.
const THRESHOLD: f64 = 0.427;

/// Arguments of `bench decide`.
#[derive(Clone, Debug, Args)]
pub struct DecideArguments {
    /// How many people to enrol
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub gallery: u32,
    /// Dimension of the synthetic embeddings, 16 to 1024
    #[arg(long, value_name = "D", default_value = "512", value_parser = dimension)]
    pub dim: Dimension,
    /// Threads of each party; by default one for each core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// How many questions of each kind
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    pub repeat: u32,
    /// Write one JSON object to standard output and nothing else
    #[arg(long)]
    pub json: bool,
}

/// One kind of question.
#[derive(Clone, Debug, Serialize)]
struct Asked {
    decision: &'static str,
    /// CPU milliseconds of one key holder until the matcher has its part of the probe.
    recrypt_cpu_ms: Spread,
    /// CPU milliseconds of the matcher.
    matcher_cpu_ms: Spread,
    /// CPU milliseconds of one key holder: mask side, scan check, shares of scores.
    shares_cpu_ms: Spread,
    /// CPU milliseconds of one key holder: comparison, opening, reply.
    comparison_cpu_ms: Spread,
    /// CPU microseconds of one key holder for one template: shares and comparison.
    holder_us_per_template: f64,
    /// Bytes from the matcher to each key holder for one template of the gallery.
    sums_bytes_per_template: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct DecideReport {
    bench: &'static str,
    gallery: usize,
    dim: usize,
    threads: usize,
    repeat: usize,
    /// (β, r) of each group.
    layouts: Vec<(usize, usize)>,
    questions: Vec<Asked>,
    /// Answers that were not those of people who are enrolled.
    wrong: u64,
}

impl Report for DecideReport {
    fn outside_band(&self) -> u64 {
        self.wrong
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .questions
            .iter()
            .map(|q| {
                vec![
                    q.decision.to_owned(),
                    q.recrypt_cpu_ms.text(1),
                    q.matcher_cpu_ms.text(1),
                    q.shares_cpu_ms.text(1),
                    q.comparison_cpu_ms.text(1),
                    format!("{:.3}", q.holder_us_per_template),
                    format!("{:.1}", q.sums_bytes_per_template),
                ]
            })
            .collect();
        let table = report::table(
            &[
                "decision",
                "holder: recrypt",
                "matcher",
                "holder: shares",
                "holder: compare",
                "µs/template",
                "B/template",
            ],
            &[1, 2, 3, 4, 5, 6],
            &rows,
        );
        format!(
            "{} people of {} dimensions, {} threads, {} questions of each kind.\n\
             CPU milliseconds for one probe, median (quartiles); holders: each of the three.\n\n{table}\n\n\
             µs/template: shares and comparison. B/template: sums from the matcher to each holder.\n",
            count(self.gallery as u64),
            self.dim,
            self.threads,
            self.repeat,
        )
    }
}

/// Measures.
///
/// # Errors
/// [`CliError`] if a party refuses.
pub(super) fn measure(arguments: &DecideArguments, progress: &Progress) -> Result<DecideReport, CliError> {
    let threads = arguments.threads.map_or_else(cores, usize::from);
    pool(threads)?.install(|| measure_here(arguments, threads, progress))
}

fn measure_here(arguments: &DecideArguments, threads: usize, progress: &Progress) -> Result<DecideReport, CliError> {
    let gallery = arguments.gallery as usize;
    let repeat = arguments.repeat as usize;
    let people = people(gallery, arguments.dim)?;
    let mut parties = Watched::found(arguments.dim)?;
    let bar = progress.stage("enroll", gallery);
    parties.enroll(&people, &bar, |_| {})?;
    drop(bar);
    let threshold = Threshold::new(THRESHOLD).map_err(CliError::protocol)?;
    let bar = progress.stage("ask", 2 * repeat);
    let (mut questions, mut wrong) = (Vec::new(), 0);
    for (name, decision) in [("exists", Decision::Exists), ("best", Decision::Best)] {
        let query = Query::new(decision, threshold);
        let mut costs = Vec::with_capacity(repeat);
        for (subject, probe) in people.iter().cycle().step_by(1 + gallery / repeat.max(1)).take(repeat) {
            let (outcome, acts) = parties.ask(probe, &query)?;
            // Each probe is enrolled under its subject, so there is one right answer.
            wrong += u64::from(match outcome {
                Outcome::Exists(found) => !found,
                Outcome::Best(best) => best.as_ref() != Some(subject),
                _ => true,
            });
            costs.push(QueryCost::of(&acts));
            bar.step();
        }
        let spread = |of: fn(&QueryCost) -> f64| Spread::of(costs.iter().map(of));
        let (shares, comparison) = (spread(|c| c.shares), spread(|c| c.comparison));
        if shares.median <= 0.0 || comparison.median <= 0.0 {
            return Err(CliError::protocol(BenchError::Incomplete("a decision")));
        }
        questions.push(Asked {
            decision: name,
            recrypt_cpu_ms: spread(|c| c.recrypt),
            matcher_cpu_ms: spread(|c| c.matcher),
            holder_us_per_template: (shares.median + comparison.median) * 1e3 / gallery as f64,
            shares_cpu_ms: shares,
            comparison_cpu_ms: comparison,
            sums_bytes_per_template: spread(|c| c.sums_bytes).median / gallery as f64,
        });
    }
    Ok(DecideReport {
        bench: "decide",
        gallery,
        dim: arguments.dim.get(),
        threads,
        repeat,
        layouts: parties.layouts(),
        questions,
        wrong,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_of_a_small_run_takes_time_and_answers_are_right() {
        let dim = Dimension::new(64).unwrap();
        let arguments = DecideArguments { gallery: 40, dim, threads: Some(1), repeat: 3, json: true };
        let report = measure(&arguments, &Progress::hidden()).unwrap();
        assert_eq!((report.wrong, report.questions.len()), (0, 2));
        for asked in &report.questions {
            assert!(asked.recrypt_cpu_ms.median > 0.0 && asked.matcher_cpu_ms.median > 0.0, "{asked:?}");
            assert!(asked.sums_bytes_per_template > 4.0, "{asked:?}");
        }
        assert!(report.text().contains("best"));
    }
}
