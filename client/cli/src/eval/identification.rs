//! `eval identification`.

use clap::Args;
use serde::Serialize;
use veilmatch_domain::{Embedding, SubjectId};
use veilmatch_evaluation::encrypted::EncryptedSearches;
use veilmatch_evaluation::identification::{self, Draw, Identification, Settings};
use veilmatch_evaluation::page::Page;

use super::encrypted::{self, Chosen, Search, sample, subject};
use super::{Evaluated, Inputs, Labelled, Outputs, rate, rate_text, refused, wanted};
use crate::arguments::SchemeArguments;
use crate::engine::Found;
use crate::exit::CliError;
use crate::report::{self, Progress};

pub(crate) const EXAMPLES: &str = "\
Examples:
  veilmatch eval identification --embeddings X.npy --labels labels.csv
  veilmatch eval identification --embeddings X.npy --labels labels.csv \\
      --sizes 100,1000 --fpir 0.01 --draws 50 --html identification.html
  veilmatch eval identification --embeddings X.npy --labels labels.csv \\
      --encrypted 50 --encrypted-gallery 1000 --json

Each draw enrols people in a random order with one random image each. Further
images of enrolled people are mated searches, all images of everybody else are
non-mated ones. FNIR is the share of mated searches without the mate at rank 1
and above the threshold (as the decision `best`), or at any rank (`matches`).";

/// Gallery sizes where none are given, as far as there are more people.
const SIZES: [usize; 4] = [100, 500, 1000, 2000];
/// The largest default gallery as a share of the people: the others are not enrolled and search.
const LARGEST: f64 = 0.8;

/// Arguments of `eval identification`.
#[derive(Clone, Debug, Args)]
pub struct IdentificationArguments {
    /// What to read.
    #[command(flatten)]
    pub inputs: Inputs,
    /// How to search.
    #[command(flatten)]
    pub searching: Searching,
    /// What to write.
    #[command(flatten)]
    pub outputs: Outputs,
}

/// How to search.
#[derive(Clone, Debug, Args)]
pub struct Searching {
    /// Gallery sizes in people [default: 100, 500, 1000, 2000 and four fifths of the people, as far as there are more]
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    pub sizes: Vec<usize>,
    /// False positive identification rates
    #[arg(long, value_name = "R,..", value_delimiter = ',', default_value = "0.1,0.01,0.001", value_parser = rate)]
    pub fpir: Vec<f64>,
    /// How often people are drawn anew
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub draws: u32,
    /// Ask so many mated and as many non-mated probes through the encrypted protocol too, at each FPIR
    #[arg(long, value_name = "K", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub encrypted: u32,
    /// People in the encrypted gallery at most; it is the first draw's
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    pub encrypted_gallery: u32,
    /// Under which scheme, and with which key
    #[command(flatten)]
    pub scheme: SchemeArguments,
}

/// The result with its encrypted side.
#[derive(Serialize)]
pub(super) struct Found1N {
    #[serde(flatten)]
    pub(super) plain: Identification,
    pub(super) encrypted: Vec<EncryptedSearches>,
}

impl Found1N {
    pub(super) fn outside_band(&self) -> u64 {
        self.encrypted.iter().map(|e| e.outside_band).sum()
    }
}

pub(super) fn evaluate(
    labelled: &Labelled,
    searching: &Searching,
    outputs: &Outputs,
    found: &Found<'_>,
    progress: &Progress,
) -> Result<Found1N, CliError> {
    let people = labelled.people.len();
    let mut sizes = searching.sizes.clone();
    if sizes.is_empty() {
        let largest = (LARGEST * people as f64) as usize;
        sizes = SIZES.into_iter().filter(|&s| s < largest).chain([largest]).collect();
    }
    let encrypted_size = (searching.encrypted_gallery as usize).min(sizes.iter().copied().max().unwrap_or(0));
    if searching.encrypted > 0 && !sizes.contains(&encrypted_size) {
        sizes.push(encrypted_size);
    }
    sizes.sort_unstable();
    sizes.dedup();
    let settings = Settings {
        sizes,
        fpir: searching.fpir.clone(),
        draws: searching.draws as usize,
        bootstrap: outputs.bootstrap(),
    };
    let bar = progress.stage("search", identification::steps(labelled.templates.len(), &settings));
    let plain = identification::identify(&labelled.templates, &labelled.people, &settings, &|n| bar.advance(n))
        .map_err(refused)?;
    drop(bar);
    let encrypted = if searching.encrypted > 0 {
        ask(labelled, searching, &plain, encrypted_size, outputs.seed, found, progress)?
    } else {
        Vec::new()
    };
    Ok(Found1N { plain, encrypted })
}

/// Asks a sample of probes in the gallery of the first draw.
fn ask(
    labelled: &Labelled,
    searching: &Searching,
    plain: &Identification,
    size: usize,
    seed: u64,
    found: &Found<'_>,
    progress: &Progress,
) -> Result<Vec<EncryptedSearches>, CliError> {
    let Labelled { embeddings, people, .. } = labelled;
    let draw = Draw::new(people, seed, 0);
    let mut gallery: Vec<(SubjectId, Embedding)> = Vec::with_capacity(size);
    let (mut mated, mut non_mated) = (Vec::new(), Vec::new());
    for (place, (&person, &template)) in draw.people.iter().zip(&draw.templates).enumerate() {
        let rows = people.rows().get(person as usize).map_or(&[][..], Vec::as_slice);
        if place < size {
            if let Some(embedding) = embeddings.get(template) {
                gallery.push((subject(template).map_err(CliError::protocol)?, embedding.clone()));
            }
            mated.extend(rows.iter().filter(|&&row| row != template).map(|&row| (row, Some(template))));
        } else {
            non_mated.extend(rows.iter().map(|&row| (row, None)));
        }
    }
    let mut asked = Vec::new();
    for (row, mate) in [mated, non_mated].iter().flat_map(|list| sample(list, searching.encrypted as usize)) {
        let mate = mate.map(subject).transpose().map_err(CliError::protocol)?;
        asked.extend(embeddings.get(row).map(|probe| Search { probe, mate }));
    }
    let points = plain.galleries.iter().filter(|g| g.size == size).flat_map(|g| &g.points);
    let chosen: Vec<Chosen> =
        points.map(|p| Chosen::new(p.wanted_fpir, p.fpir.rate, p.threshold)).collect::<Result<_, _>>()?;
    encrypted::searches(&gallery, &asked, &chosen, searching.scheme.chosen(), found, progress)
}

pub(super) fn run(
    arguments: &IdentificationArguments,
    found: &Found<'_>,
    progress: &Progress,
) -> Result<Evaluated<Found1N>, CliError> {
    let labelled = arguments.inputs.read(&[], progress)?;
    let result = evaluate(&labelled, &arguments.searching, &arguments.outputs, found, progress)?;
    let source = arguments.inputs.source(&labelled);
    let mut page = Page::default();
    page.identification(&result.plain, &result.encrypted);
    arguments.outputs.write(&page, &source)?;
    let (text, outside_band) = (format!("{source}\n{}", text(&result)), result.outside_band());
    Ok(Evaluated { eval: "identification", result, text, outside_band })
}

pub(super) fn text(result: &Found1N) -> String {
    let plain = &result.plain;
    let mut rows = Vec::new();
    for gallery in &plain.galleries {
        for (number, point) in gallery.points.iter().enumerate() {
            let first = |text: String| if number == 0 { text } else { String::new() };
            rows.push(vec![
                first(report::count(gallery.size as u64)),
                first(rate_text(&gallery.rank1_miss)),
                wanted(point.wanted_fpir),
                format!("{:.3}{}", point.threshold, if point.few { "*" } else { "" }),
                rate_text(&point.fnir),
                rate_text(&point.fnir_any_rank),
            ]);
        }
    }
    let header = ["enrolled", "rank-1 misses", "FPIR", "threshold", "FNIR, rank 1", "FNIR, any rank"];
    let few = plain.galleries.iter().flat_map(|g| &g.points).any(|p| p.few);
    let mut text = format!(
        "{} draws; 95 % intervals from {} resamples of people\n\n{}\n{}",
        plain.draws,
        report::count(plain.resamples as u64),
        report::table(&header, &[0, 1, 2, 3, 4, 5], &rows),
        if few { "* fewer than 30 false positives in all draws: the threshold is a guess.\n" } else { "" },
    );
    if let Some(first) = result.encrypted.first() {
        let rows: Vec<Vec<String>> = result
            .encrypted
            .iter()
            .map(|e| {
                vec![
                    wanted(e.wanted_fpir),
                    format!("{:.3}", e.threshold),
                    format!("{} / {} of {}", e.misses_plain, e.misses_encrypted, e.mated),
                    format!("{} / {} of {}", e.false_positives_plain, e.false_positives_encrypted, e.non_mated),
                    e.differing.to_string(),
                    e.outside_band.to_string(),
                ]
            })
            .collect();
        let header = ["FPIR", "threshold", "misses, plain / enc.", "false positives", "differ", "outside band"];
        text += &format!(
            "\nThrough the encrypted protocol, {} people enrolled:\n\n{}\n\n{}\n",
            report::count(first.gallery),
            report::table(&header, &[0, 1, 2, 3, 4, 5], &rows),
            report::conclusion(result.outside_band()),
        );
    }
    text
}
