//! `veilmatch calibrate`: whether a coarse first stage would pay, on labelled embeddings.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use veilmatch_domain::{Dimension, Threshold};
use veilmatch_glwe::{GLWE_2048_V1, Layout, decision_noise};
use veilmatch_preselect::{Coarse, Person, Rotation, Settings, calibrate, halves};

use crate::arguments::threshold;
use crate::exit::CliError;
use crate::input;
use crate::judge::BAND;
use crate::report::{self, Progress, Report, count};
use crate::rotation::{RotatedBy, rotated};

pub(crate) const EXAMPLES: &str = "\
Examples:
  veilmatch calibrate --embeddings X.npy --labels labels.csv --threshold 0.427
  veilmatch calibrate --embeddings X.npy --labels labels.csv --threshold 0.427 \\
      --rotation pca.rotation --m 32,64,128 --hit-rate 0.99 --json

labels.csv has the columns `row,label`; rows count from 0. A person's first row
is the template, the others are probes. Without --rotation, principal components
are fitted on a quarter of the people, who take no other part: thresholds chosen
on people whom the rotation was fitted on are too high for everybody else.";

/// β of the large layout, whose noise and bodies are reckoned with.
const BETA: usize = 4;
/// Gallery sizes for which the candidates are counted in words.
const GALLERIES: [u64; 2] = [100_000, 1_000_000];

/// Arguments of `calibrate`.
#[derive(Clone, Debug, Args)]
pub struct CalibrateArguments {
    /// The embeddings: a matrix of float16 or float32, one unit vector per row
    #[arg(long, value_name = "X.npy")]
    pub embeddings: PathBuf,
    /// Who is in which row: columns `row,label`
    #[arg(long, value_name = "F.csv")]
    pub labels: PathBuf,
    /// Scale embeddings of any length to unit length instead of refusing them
    #[arg(long)]
    pub normalize: bool,
    /// The rotation.
    #[command(flatten)]
    pub rotated: RotatedBy,
    /// No rotation at all
    #[arg(long, conflicts_with = "rotation")]
    pub unrotated: bool,
    /// Cosine from which two faces match, -0.9 to 0.9
    #[arg(long, value_name = "T", default_value = "0.427", value_parser = threshold, allow_negative_numbers = true)]
    pub threshold: Threshold,
    /// The share of matches that the first stage must keep, 0.5 to 1
    #[arg(long, value_name = "H", default_value = "1.0", value_parser = hit_rate)]
    pub hit_rate: f64,
    /// Dimensions of the first stage, multiples of 4 from 16 on: one number or several
    #[arg(long = "m", value_name = "M,..", value_delimiter = ',', default_value = "32,64,128", value_parser = width)]
    pub widths: Vec<usize>,
    /// Templates in one packed group, which is what a candidate makes the second stage read: a collection's
    /// --group-capacity; without one, groups of a large collection have 8192
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=8192))]
    pub group: u32,
    /// Resamples of the bootstrap
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    pub resamples: u32,
    /// Decides which half a person belongs to
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Write one JSON object to standard output and nothing else
    #[arg(long)]
    pub json: bool,
}

fn hit_rate(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| String::from("not a number"))?;
    if (0.5..=1.0).contains(&number) { Ok(number) } else { Err(String::from("not between 0.5 and 1")) }
}

fn width(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|_| String::from("not a whole number"))?;
    let fits = number.is_multiple_of(BETA) && Dimension::new(number).is_ok();
    if fits { Ok(number) } else { Err(format!("not a multiple of {BETA} between 16 and 1024")) }
}

/// One width.
#[derive(Clone, Debug, Serialize)]
struct Row {
    m: usize,
    coarse_threshold: f64,
    recall: f64,
    recall_95: [f64; 2],
    recall_at_least: f64,
    candidates_median: f64,
    candidates_p99: f64,
    candidates_mean: f64,
    read_ideal: f64,
    read_packed: f64,
    saved_ideal: f64,
    saved_packed: f64,
    pays: bool,
}

impl From<&Coarse> for Row {
    fn from(c: &Coarse) -> Self {
        Self {
            m: c.m,
            coarse_threshold: c.threshold,
            recall: c.recall,
            recall_95: [c.recall_interval.low, c.recall_interval.high],
            recall_at_least: c.recall_at_least,
            candidates_median: c.candidates_median,
            candidates_p99: c.candidates_p99,
            candidates_mean: c.candidates_mean,
            read_ideal: c.read_ideal,
            read_packed: c.read_packed,
            saved_ideal: 1.0 - c.read_ideal,
            saved_packed: 1.0 - c.read_packed,
            pays: c.pays(),
        }
    }
}

/// What was found out.
#[derive(Clone, Debug, Serialize)]
struct Calibrated {
    dimension: usize,
    rotation: &'static str,
    threshold: f64,
    hit_rate: f64,
    calibration_matches: usize,
    reported_matches: usize,
    gallery: usize,
    probes: usize,
    templates_per_group: usize,
    widths: Vec<Row>,
    /// What the matcher would learn from each query, one sentence for each width.
    learned: Vec<String>,
    conclusion: String,
}

impl Report for Calibrated {
    fn outside_band(&self) -> u64 {
        0
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn text(&self) -> String {
        let percent = |share: f64| format!("{:.2} %", share * 100.0);
        let rows: Vec<Vec<String>> = self
            .widths
            .iter()
            .map(|w| {
                vec![
                    w.m.to_string(),
                    format!("{:.3}", w.coarse_threshold),
                    percent(w.recall),
                    format!("{} to {}", percent(w.recall_95[0]), percent(w.recall_95[1])),
                    percent(w.candidates_median),
                    percent(w.candidates_p99),
                    percent(w.read_ideal),
                    percent(w.read_packed),
                    String::from(if w.pays { "yes" } else { "no" }),
                ]
            })
            .collect();
        let header = ["m", "coarse τ", "recall", "95 %", "strangers", "p99", "read, ideal", "read, packed", "pays"];
        let table = report::table(&header, &[0, 1, 2, 3, 4, 5, 6, 7], &rows);
        let bound = self.widths.iter().map(|w| w.recall_at_least).fold(1.0, f64::min);
        format!(
            "{} dimensions, {}; threshold {}, wanted hit rate {}.\n\
             Coarse thresholds are chosen on {} matches and reported on {} others: {} probes against {} people.\n\
             Strangers: templates of others that pass, median and 99th percentile over probes.\n\
             Read: bytes as a share of the full scan, when a candidate costs its own bytes (ideal), and when it costs its\n\
             group of {} templates (packed), as it does.\n\n{table}\n\n\
             With so few matches the true recall may be as low as {} (95 %, exact).\n\n\
             What the matcher would learn:\n{}\n\n{}\n",
            self.dimension,
            self.rotation,
            self.threshold,
            percent(self.hit_rate),
            count(self.calibration_matches as u64),
            count(self.reported_matches as u64),
            count(self.probes as u64),
            count(self.gallery as u64),
            self.templates_per_group,
            percent(bound),
            self.learned.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n"),
            self.conclusion,
        )
    }
}

/// Calibrates and prints.
///
/// # Errors
/// [`CliError`] if a file cannot be used, or the labels give nothing to calibrate on.
pub fn run(arguments: &CalibrateArguments, json: bool, progress: &Progress) -> Result<(), CliError> {
    let calibrated = measure(arguments, progress)?;
    report::write(&calibrated, json, &mut std::io::stdout().lock()).map_err(CliError::Output)
}

fn measure(arguments: &CalibrateArguments, progress: &Progress) -> Result<Calibrated, CliError> {
    let bad = |e: Box<dyn veilmatch_domain::Explain + Send + Sync>| CliError::Arguments(e);
    let embeddings = input::embeddings(&arguments.embeddings, arguments.normalize)?;
    let mut people: BTreeMap<String, Person> = BTreeMap::new();
    for (row, label) in input::labels(&arguments.labels, embeddings.len())? {
        people.entry(label).or_default().push(row);
    }
    let (mut calibration, reported) = halves(people.into_values().collect(), arguments.seed);
    let bar = progress.stage("rotate", embeddings.len());
    let (rotation, name) = match arguments.rotated.read()? {
        _ if arguments.unrotated => (None, "not rotated"),
        Some(rotation) => (Some(rotation), "rotated by the file that was given"),
        None => {
            // Whom it is fitted on has more in the first coordinates than others: nobody else may be judged by them.
            let (fitting, rest) = halves(calibration, arguments.seed.wrapping_add(1));
            calibration = rest;
            let rows = fitting.iter().flatten().filter_map(|&row| embeddings.get(row).cloned());
            let fitted = Rotation::fit(&rows.collect::<Vec<_>>()).map_err(|e| bad(Box::new(e)))?;
            (Some(fitted), "rotated by principal components of other people")
        }
    };
    let turned = match &rotation {
        Some(rotation) => embeddings.iter().map(|e| rotated(rotation, e)).collect::<Result<Vec<_>, _>>()?,
        None => embeddings,
    };
    bar.reach(turned.len());
    drop(bar);
    let parameters = GLWE_2048_V1;
    let layout = Layout::new(BETA, 16).map_err(|e| bad(Box::new(e)))?;
    let margin = |m: &usize| Dimension::new(*m).map(|m| BAND * decision_noise(&parameters, layout, m).0);
    let settings = Settings {
        threshold: arguments.threshold.cosine(),
        hit_rate: arguments.hit_rate,
        widths: arguments.widths.clone(),
        margins: arguments.widths.iter().map(margin).collect::<Result<_, _>>()?,
        templates_per_group: arguments.group as usize,
        resamples: arguments.resamples as usize,
        seed: arguments.seed,
    };
    let result = calibrate(&turned, &calibration, &reported, &settings).map_err(|e| bad(Box::new(e)))?;
    let dimension = turned.first().map_or(0, |e| e.dimension().get());
    Ok(Calibrated {
        dimension,
        rotation: name,
        threshold: settings.threshold,
        hit_rate: settings.hit_rate,
        calibration_matches: result.calibration_matches,
        reported_matches: result.reported_matches,
        gallery: result.gallery,
        probes: result.probes,
        templates_per_group: settings.templates_per_group,
        widths: result.widths.iter().map(Row::from).collect(),
        learned: result.widths.iter().map(|width| learned(width, dimension, arguments.group)).collect(),
        conclusion: conclusion(&result.widths),
    })
}

/// What a first stage shows to the matcher.
fn learned(coarse: &Coarse, dimension: usize, group: u32) -> String {
    let hot = coarse.m as f64 / dimension as f64;
    let touched = ((coarse.read_packed - hot) / (1.0 - hot)).clamp(0.0, 1.0);
    let sizes = GALLERIES.map(|gallery| {
        let groups = gallery.div_ceil(group.into());
        format!("{} of the {} of {}", count((touched * groups as f64).round() as u64), count(groups), count(gallery))
    });
    format!(
        "m = {}: which packed groups of {} hold somebody near the probe, for each query: about {} templates; over many \
         queries, whose groups resemble whom",
        coarse.m,
        count(group.into()),
        sizes.join(", or ")
    )
}

fn conclusion(widths: &[Coarse]) -> String {
    let paying = widths.iter().filter(|w| w.pays()).min_by(|a, b| a.read_packed.total_cmp(&b.read_packed));
    match paying {
        Some(w) => format!(
            "A first stage of {} dimensions pays: it reads {:.0} % of the bytes and keeps {:.2} % of the matches.",
            w.m,
            w.read_packed * 100.0,
            w.recall * 100.0
        ),
        None => String::from(
            "No first stage pays with groups of this size: nearly every group holds a candidate, so nearly everything is \
             read. Smaller groups (--group, and the collection's --group-capacity) or more dimensions may.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;
    use crate::testing::{files, npy_bytes, real_data};

    fn arguments(embeddings: PathBuf, labels: PathBuf, widths: &[usize]) -> CalibrateArguments {
        CalibrateArguments {
            embeddings,
            labels,
            normalize: false,
            rotated: RotatedBy { rotation: None },
            unrotated: false,
            threshold: Threshold::new(0.427).unwrap(),
            hit_rate: 1.0,
            widths: widths.to_vec(),
            group: 512,
            resamples: 100,
            seed: 1,
            json: false,
        }
    }

    #[test]
    fn synthetic_people_are_calibrated_and_described() {
        let people = synthetic::people(300, 2, Dimension::new(64).unwrap(), 3).unwrap();
        let values: Vec<f32> = people.iter().flatten().flat_map(|e| e.values().to_vec()).collect();
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let npy = npy_bytes("{'descr': '<f4', 'fortran_order': False, 'shape': (600, 64), }", &data);
        let table: String = (0..600).map(|row| format!("{row},p{}\n", row / 2)).collect();
        let labels = format!("row,label\n{table}");
        let (_folder, [x, l]) = files([("x.npy", npy.as_slice()), ("l.csv", labels.as_bytes())]);
        let calibrated = measure(&arguments(x.clone(), l.clone(), &[16, 48]), &Progress::hidden()).unwrap();
        assert_eq!((calibrated.gallery, calibrated.probes, calibrated.widths.len()), (150, 150, 2));
        let [narrow, wide] = [&calibrated.widths[0], &calibrated.widths[1]];
        assert!(narrow.candidates_mean >= wide.candidates_mean, "{calibrated:?}");
        assert!(wide.recall > 0.9, "{wide:?}");
        assert!(wide.read_ideal >= 0.75 && wide.read_ideal <= wide.read_packed && wide.read_packed < 1.0 + 1e-9);
        let text = calibrated.text();
        assert!(text.contains("What the matcher would learn") && text.contains("of 1,000,000"), "{text}");
        let object: serde_json::Value = serde_json::from_str(&calibrated.json().unwrap()).unwrap();
        assert_eq!(object["widths"][1]["m"], 48);
        let error = measure(&arguments(x, l, &[64]), &Progress::hidden()).unwrap_err();
        assert_eq!((error.exit_code(), error.reason()), (2, "bad-width"));
    }

    #[test]
    fn lfw_keeps_its_matches_at_half_the_dimensions() {
        let Some(folder) = real_data("lfw_keeps_its_matches_at_half_the_dimensions") else { return };
        let lfw = folder.join("lfw");
        let arguments = arguments(lfw.join("templates_retail0095_f16.npy"), lfw.join("labels.csv"), &[128]);
        let calibrated = measure(&arguments, &Progress::hidden()).unwrap();
        let wide = &calibrated.widths[0];
        assert!(calibrated.reported_matches > 1000 && wide.recall > 0.995, "{calibrated:?}");
    }
}
