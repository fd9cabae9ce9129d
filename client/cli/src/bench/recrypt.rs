//! `veilmatch bench recrypt`: what the key holders spend on a probe, by layout, and on templates that enter the index.

use clap::Args;
use serde::Serialize;
use veilmatch_domain::{Decision, Dimension, Query, Threshold};
use veilmatch_gallery::layout_for;
use veilmatch_glwe::GLWE_2048_V1;

use super::spread::Spread;
use super::stages::{EnrolCost, QueryCost, Watched, people};
use super::{cores, pool};
use crate::arguments::dimension;
use crate::exit::CliError;
use crate::report::{self, Progress, Report, count};

pub(super) const EXAMPLES: &str = "\
Examples:
  veilmatch bench recrypt
  veilmatch bench recrypt --gallery 8192 --dim 256 --json > recrypt.json

A probe is recrypted once for each block width among the groups: wide blocks, for
few people, make it cheap.";

/// The smallest gallery; larger ones double it.
const SMALLEST: usize = 25;
const THRESHOLD: f64 = 0.427;

/// Arguments of `bench recrypt`.
#[derive(Clone, Debug, Args)]
pub struct RecryptArguments {
    /// How many people the largest gallery has
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub gallery: u32,
    /// Dimension of the synthetic embeddings, 16 to 1024
    #[arg(long, value_name = "D", default_value = "512", value_parser = dimension)]
    pub dim: Dimension,
    /// Threads of each party; by default one for each core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// How many probes for each gallery
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    pub repeat: u32,
    /// Write one JSON object to standard output and nothing else
    #[arg(long)]
    pub json: bool,
}

/// One gallery, and so one layout.
#[derive(Clone, Debug, Serialize)]
struct ByLayout {
    gallery: usize,
    /// (β, r) of the group.
    layout: (usize, usize),
    /// CPU milliseconds of one key holder for a probe: signature, unsealing, handshake, norm check, recrypt.
    probe_cpu_ms: Spread,
    /// CPU microseconds of one key holder for a template: signature, unsealing, norm check.
    admit_us_per_template: f64,
    /// CPU microseconds of one key holder for a template: recrypt into its group, check vectors.
    build_us_per_template: f64,
    /// CPU microseconds of the matcher for a template.
    matcher_us_per_template: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct RecryptReport {
    bench: &'static str,
    gallery: usize,
    dim: usize,
    threads: usize,
    repeat: usize,
    layouts: Vec<ByLayout>,
}

impl Report for RecryptReport {
    fn outside_band(&self) -> u64 {
        0
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .layouts
            .iter()
            .map(|l| {
                vec![
                    count(l.gallery as u64),
                    format!("{}, {}", l.layout.0, l.layout.1),
                    l.probe_cpu_ms.text(1),
                    format!("{:.0}", l.admit_us_per_template),
                    format!("{:.0}", l.build_us_per_template),
                    format!("{:.0}", l.matcher_us_per_template),
                ]
            })
            .collect();
        let header =
            ["people", "β, r", "holder: probe, ms", "holder: admit, µs", "holder: build, µs", "matcher: enrol, µs"];
        let table = report::table(&header, &[0, 1, 2, 3, 4, 5], &rows);
        format!(
            "{} dimensions, {} threads, {} probes for each gallery. CPU time of each key holder; probes: median (quartiles);\n\
             admit, build and the matcher's part: for one template.\n\n{table}\n",
            self.dim, self.threads, self.repeat,
        )
    }
}

/// Measures.
///
/// # Errors
/// [`CliError`] if a party refuses.
pub(super) fn measure(arguments: &RecryptArguments, progress: &Progress) -> Result<RecryptReport, CliError> {
    let threads = arguments.threads.map_or_else(cores, usize::from);
    let gallery = arguments.gallery as usize;
    let sizes = sizes(gallery, arguments.dim);
    let pool = pool(threads)?;
    let layouts = sizes.into_iter().map(|size| pool.install(|| one(size, arguments, progress)));
    let layouts = layouts.collect::<Result<Vec<_>, _>>()?;
    let (dim, repeat) = (arguments.dim.get(), arguments.repeat as usize);
    Ok(RecryptReport { bench: "recrypt", gallery, dim, threads, repeat, layouts })
}

/// The first of the doubling sizes for each block width that the planner gives them, and the gallery itself.
fn sizes(gallery: usize, dimension: Dimension) -> Vec<usize> {
    let beta = |size: usize| layout_for(&GLWE_2048_V1, dimension, size).beta();
    let mut sizes: Vec<usize> = Vec::new();
    let mut size = SMALLEST;
    while size < gallery {
        if beta(size) != beta(gallery) && sizes.last().is_none_or(|&last| beta(last) != beta(size)) {
            sizes.push(size);
        }
        size *= 2;
    }
    sizes.push(gallery);
    sizes
}

fn one(gallery: usize, arguments: &RecryptArguments, progress: &Progress) -> Result<ByLayout, CliError> {
    let people = people(gallery, arguments.dim)?;
    let mut parties = Watched::found(arguments.dim)?;
    let mut enrol = EnrolCost::default();
    let bar = progress.stage("enroll", gallery);
    parties.enroll(&people, &bar, |acts| enrol.add(acts))?;
    drop(bar);
    let threshold = Threshold::new(THRESHOLD).map_err(CliError::protocol)?;
    let query = Query::new(Decision::Exists, threshold);
    let bar = progress.stage("ask", arguments.repeat as usize);
    let mut probes = Vec::with_capacity(arguments.repeat as usize);
    for (_, probe) in people.iter().cycle().take(arguments.repeat as usize) {
        probes.push(QueryCost::of(&parties.ask(probe, &query)?.1).recrypt);
        bar.step();
    }
    let per_template = |time: std::time::Duration| time.as_secs_f64() * 1e6 / gallery as f64;
    Ok(ByLayout {
        gallery,
        layout: parties.layouts().first().copied().unwrap_or_default(),
        probe_cpu_ms: Spread::of(probes),
        admit_us_per_template: per_template(enrol.admit) / 3.0,
        build_us_per_template: per_template(enrol.build) / 3.0,
        matcher_us_per_template: per_template(enrol.matcher),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_of_a_small_run_takes_time() {
        let dim = Dimension::new(16).unwrap();
        let arguments = RecryptArguments { gallery: 100, dim, threads: Some(1), repeat: 3, json: true };
        let report = measure(&arguments, &Progress::hidden()).unwrap();
        assert_eq!(report.layouts.iter().map(|l| l.layout.0).collect::<Vec<_>>(), [64, 32]);
        for layout in &report.layouts {
            assert!(layout.probe_cpu_ms.min > 0.0, "{layout:?}");
            assert!(layout.admit_us_per_template > 0.0 && layout.build_us_per_template > 0.0, "{layout:?}");
        }
    }
}
