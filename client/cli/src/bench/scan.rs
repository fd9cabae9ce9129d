//! `veilmatch bench scan`: the matcher's side of a search, beside plaintext scans of as many templates.
//!
//! Four things are timed in turns within one process and one pool: the encrypted scan of every group, an f32 scan, an 8-bit
//! scan, and reading as many bytes as the index has. The order of the four rotates from one round to the next.

use std::hint::black_box;
use std::time::Instant;

use clap::Args;
use rayon::prelude::*;
use serde::Serialize;
use veilmatch_domain::{Dimension, Epoch, GroupId, Revision};
use veilmatch_gallery::layout_for;
use veilmatch_glwe::{GLWE_2048_V1, Layout, PackedGroup, Parameters, ProbeCiphertext, uniform_polynomial};
use veilmatch_kernels::Ring;
use veilmatch_secret::Stream;

use super::genuine::{self, Checked};
use super::spread::Spread;
use super::{cores, fits_memory, pool, yardsticks};
use crate::arguments::dimension;
use crate::exit::CliError;
use crate::report::{self, Progress, Report, count};

pub(super) const EXAMPLES: &str = "\
Examples:
  veilmatch bench scan
  veilmatch bench scan --gallery 1000000 --threads 2
  veilmatch bench scan --gallery 100000 --probes 1,8,32 --json > scan-100000.json

`ratio` is encrypted time over f32 time; below 1 the encrypted scan is the faster
one. Memory: about 4.5 times DIM bytes for each template, twice.";

/// The layout of a large gallery (DESIGN 3.4).
const LARGE: (usize, usize) = (4, 16);

/// Arguments of `bench scan`.
#[derive(Clone, Debug, Args)]
pub struct ScanArguments {
    /// How many templates
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    pub gallery: u32,
    /// Dimension of the templates, 16 to 1024
    #[arg(long, value_name = "D", default_value = "512", value_parser = dimension)]
    pub dim: Dimension,
    /// Threads of every scan; by default one for each core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Rounds; each times all scans once
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(9..=10_000))]
    pub repeat: u32,
    /// Probes that are searched for together: one number or several
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub probes: Vec<u16>,
    /// People who are really enrolled and decided about beforehand; 8,192 fill a group of the large layout
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(125..=8192))]
    pub check: u32,
    /// Write one JSON object to standard output and nothing else
    #[arg(long)]
    pub json: bool,
}

/// One batch size.
#[derive(Clone, Debug, Serialize)]
struct Batch {
    probes: usize,
    /// Microseconds for one template and one probe.
    us_per_template: f64,
    f32_us_per_template: f64,
    int8_us_per_template: f64,
    ratio_to_f32: f64,
    ratio_to_int8: f64,
    /// Bytes of the index read per second, as a share of what reading alone reaches, 0 to 100.
    percent_of_bandwidth: f64,
    /// The rounds, in microseconds for one template and one probe.
    spread: Sides<Spread>,
}

/// One value for each thing that is timed.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Sides<T> {
    encrypted: T,
    f32: T,
    int8: T,
    /// Reading as many bytes as the index has.
    read: T,
}

/// What was measured. The fields of the smallest batch stand at the top.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ScanReport {
    bench: &'static str,
    gallery: usize,
    dim: usize,
    threads: usize,
    repeat: usize,
    kernel: String,
    parameters: &'static str,
    /// (β, r) of most groups.
    layout: (usize, usize),
    us_per_template: f64,
    f32_us_per_template: f64,
    int8_us_per_template: f64,
    ratio_to_f32: f64,
    ratio_to_int8: f64,
    percent_of_bandwidth: f64,
    /// Bytes of the index for one template of the gallery, empty slots of the last group included.
    bytes_per_template: f64,
    /// Bytes per second that reading alone reaches, in units of 10⁹.
    read_gb_per_s: f64,
    spread: Sides<Spread>,
    batches: Vec<Batch>,
    checked: Checked,
}

impl Report for ScanReport {
    fn outside_band(&self) -> u64 {
        self.checked.outside_band
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .batches
            .iter()
            .map(|b| {
                vec![
                    b.probes.to_string(),
                    b.spread.encrypted.text(4),
                    b.spread.f32.text(4),
                    b.spread.int8.text(4),
                    format!("{:.2}", b.ratio_to_f32),
                    format!("{:.0} %", b.percent_of_bandwidth),
                ]
            })
            .collect();
        let table = report::table(
            &["probes", "encrypted, µs/template", "plaintext f32", "plaintext int8", "ratio to f32", "of bandwidth"],
            &[0, 1, 2, 3, 4, 5],
            &rows,
        );
        let c = &self.checked;
        format!(
            "{} templates of {} dimensions, {}, kernel {}; {} threads, {} rounds: median (quartiles).\n\
             The index takes {:.0} bytes per template; reading alone reaches {:.1} GB/s.\n\n{table}\n\n\
             Beforehand {} people were enrolled and {} slots decided through this scan: {} yes, {} in the noise band.\n{}\n",
            count(self.gallery as u64),
            self.dim,
            self.parameters,
            self.kernel,
            self.threads,
            self.repeat,
            self.bytes_per_template,
            self.read_gb_per_s,
            count(c.members as u64),
            count(c.slots),
            count(c.yes),
            count(c.in_band),
            report::conclusion(c.outside_band),
        )
    }
}

/// Everything that is scanned.
struct Galleries {
    parameters: Parameters,
    ring: Ring,
    gallery: usize,
    dimension: usize,
    groups: Vec<PackedGroup>,
    probes: Vec<ProbeCiphertext>,
    single: Vec<f32>,
    single_probes: Vec<Vec<f32>>,
    bytes: Vec<i8>,
    byte_probes: Vec<Vec<i8>>,
}

impl Galleries {
    /// Residues and coordinates that mean nothing, the same in every run.
    fn fill(gallery: usize, dimension: Dimension, probes: usize, progress: &Progress) -> Result<Self, CliError> {
        let parameters = GLWE_2048_V1;
        let layouts = layouts(&parameters, gallery);
        let index: usize = layouts.iter().map(|l| l.blocks(dimension) * l.rank() * parameters.degree * 4).sum();
        fits_memory((index + gallery * dimension.get() * 5) as u64)?;
        let bar = progress.stage("fill the galleries", layouts.len());
        let groups = layouts
            .into_iter()
            .enumerate()
            .map(|(number, layout)| {
                bar.step();
                group(&parameters, number, layout, dimension)
            })
            .collect();
        let narrow = layouts_block(&parameters, gallery).blocks(dimension);
        let side = |probe: usize, side: u64| polynomials(&parameters, narrow, 1 << 40 | (probe as u64) << 1 | side);
        let probes_encrypted = (0..probes).map(|p| ProbeCiphertext { masks: side(p, 0), bodies: side(p, 1) }).collect();
        let d = dimension.get();
        let single: Vec<f32> = floats(gallery * d, 1 << 50);
        let bytes = single.par_iter().map(|&v| (v * 127.0) as i8).collect();
        let single_probes: Vec<Vec<f32>> = (0..probes).map(|p| floats(d, 1 << 51 | p as u64)).collect();
        let byte_probes = single_probes.iter().map(|p| p.iter().map(|&v| (v * 127.0) as i8).collect()).collect();
        Ok(Self {
            parameters,
            ring: parameters.ring(),
            gallery,
            dimension: d,
            groups,
            probes: probes_encrypted,
            single,
            single_probes,
            bytes,
            byte_probes,
        })
    }

    fn index_bytes(&self) -> usize {
        self.groups.iter().map(|g| g.bodies.len() * 4).sum()
    }

    /// Seconds for the first `probes` probes.
    fn encrypted(&self, probes: usize) -> f64 {
        let probes = self.probes.get(..probes).unwrap_or_default();
        timed(|| {
            // As the matcher does it: groups side by side, each read once for a probe.
            self.groups
                .par_iter()
                .map(|group| {
                    probes.iter().map(|p| group.scan(&self.parameters, &self.ring, p).scores.len()).sum::<usize>()
                })
                .sum::<usize>()
        })
    }

    fn plaintext_f32(&self, probes: usize) -> f64 {
        let probes = self.single_probes.get(..probes).unwrap_or_default();
        timed(|| yardsticks::scan_f32(&self.single, self.dimension, probes))
    }

    fn plaintext_int8(&self, probes: usize) -> f64 {
        let probes = self.byte_probes.get(..probes).unwrap_or_default();
        timed(|| yardsticks::scan_i8(&self.bytes, self.dimension, probes))
    }

    /// Seconds to read the index, and nothing else.
    fn read(&self) -> f64 {
        timed(|| self.groups.iter().map(|g| yardsticks::read(&g.bodies)).fold(0, |a, b| a ^ b))
    }

    /// One round, beginning with the `first` of the four.
    fn round(&self, probes: usize, first: usize) -> Sides<f64> {
        let mut sides = Sides::default();
        for step in 0..4 {
            match (first + step) % 4 {
                0 => sides.encrypted = self.encrypted(probes),
                1 => sides.f32 = self.plaintext_f32(probes),
                2 => sides.int8 = self.plaintext_int8(probes),
                _ => sides.read = self.read(),
            }
        }
        sides
    }
}

/// Full groups of the large layout, and what the planner makes of the rest.
fn layouts(parameters: &Parameters, gallery: usize) -> Vec<Layout> {
    let full = layouts_block(parameters, gallery);
    let capacity = full.capacity(parameters);
    let mut layouts = vec![full; gallery / capacity];
    let rest = gallery % capacity;
    if rest > 0 {
        let planned = layout_for(parameters, rest);
        // One probe serves all groups: the rest keeps the block width of the others.
        let rank = rest.div_ceil(full.positions(parameters));
        layouts.push(if layouts.is_empty() { planned } else { Layout::new(full.beta(), rank).unwrap_or(planned) });
    }
    layouts
}

/// The layout of the groups that the gallery's block width is chosen for.
fn layouts_block(parameters: &Parameters, gallery: usize) -> Layout {
    let (beta, rank) = LARGE;
    let planned = layout_for(parameters, gallery);
    if planned.beta() == beta { Layout::new(beta, rank).unwrap_or(planned) } else { planned }
}

fn group(parameters: &Parameters, number: usize, layout: Layout, dimension: Dimension) -> PackedGroup {
    let count = layout.blocks(dimension) * layout.rank();
    PackedGroup {
        group: GroupId(number as u64),
        revision: Revision(0),
        epoch: Epoch(0),
        layout,
        bodies: polynomials(parameters, count, (number as u64) << 20).into(),
    }
}

/// So many uniform polynomials, from a public seed.
fn polynomials(parameters: &Parameters, count: usize, seed: u64) -> Vec<u32> {
    let mut residues = vec![0; count * parameters.degree];
    residues.par_chunks_exact_mut(parameters.degree).enumerate().for_each(|(i, polynomial)| {
        polynomial.copy_from_slice(&uniform_polynomial(parameters, &mut stream(seed + i as u64)));
    });
    residues
}

/// Numbers in [−1, 1), from a public seed.
fn floats(count: usize, seed: u64) -> Vec<f32> {
    const CHUNK: usize = 1 << 16;
    let mut values = vec![0f32; count];
    values.par_chunks_mut(CHUNK).enumerate().for_each(|(i, chunk)| {
        let mut stream = stream(seed + ((i as u64) << 20));
        chunk.iter_mut().for_each(|v| *v = stream.next_u32() as i32 as f32 / 2_147_483_648.0);
    });
    values
}

fn stream(seed: u64) -> Stream {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    Stream::public(bytes)
}

fn timed<T>(run: impl FnOnce() -> T) -> f64 {
    let begun = Instant::now();
    black_box(run());
    begun.elapsed().as_secs_f64()
}

/// Measures.
///
/// # Errors
/// [`CliError`] if the galleries do not fit, or the parties of the check stop.
pub(super) fn measure(arguments: &ScanArguments, progress: &Progress) -> Result<ScanReport, CliError> {
    let threads = arguments.threads.map_or_else(cores, usize::from);
    let gallery = arguments.gallery as usize;
    let mut sizes: Vec<usize> = arguments.probes.iter().map(|&p| p.into()).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let most = sizes.last().copied().unwrap_or(1);
    let checked = genuine::decide(arguments.check as usize, arguments.dim, progress)?;
    let galleries = Galleries::fill(gallery, arguments.dim, most, progress)?;
    let pool = pool(threads)?;
    let rounds = arguments.repeat as usize;
    let bar = progress.stage("measure", sizes.len() * (rounds + 1));
    let batches: Vec<(Batch, f64)> = sizes
        .into_iter()
        .map(|probes| {
            // The first round warms up pages and clocks, and is not counted.
            pool.install(|| galleries.round(probes, 0));
            bar.step();
            let rounds: Vec<Sides<f64>> = (0..rounds)
                .map(|i| {
                    bar.step();
                    pool.install(|| galleries.round(probes, i))
                })
                .collect();
            batch(probes, &galleries, &rounds)
        })
        .collect();
    let Some((first, read)) = batches.first().cloned() else {
        return Err(CliError::protocol(super::BenchError::Threads));
    };
    let layout = layouts_block(&galleries.parameters, gallery);
    Ok(ScanReport {
        bench: "scan",
        gallery,
        dim: arguments.dim.get(),
        threads,
        repeat: rounds,
        kernel: String::from("scalar"),
        parameters: galleries.parameters.name,
        layout: (layout.beta(), layout.rank()),
        us_per_template: first.us_per_template,
        f32_us_per_template: first.f32_us_per_template,
        int8_us_per_template: first.int8_us_per_template,
        ratio_to_f32: first.ratio_to_f32,
        ratio_to_int8: first.ratio_to_int8,
        percent_of_bandwidth: first.percent_of_bandwidth,
        bytes_per_template: galleries.index_bytes() as f64 / gallery as f64,
        read_gb_per_s: galleries.index_bytes() as f64 / read / 1e9,
        spread: first.spread,
        batches: batches.into_iter().map(|(batch, _)| batch).collect(),
        checked,
    })
}

/// The batch, and the median of the seconds that reading takes.
fn batch(probes: usize, galleries: &Galleries, rounds: &[Sides<f64>]) -> (Batch, f64) {
    let seconds = |side: fn(&Sides<f64>) -> f64| Spread::of(rounds.iter().map(side));
    let sides = Sides {
        encrypted: seconds(|s| s.encrypted),
        f32: seconds(|s| s.f32),
        int8: seconds(|s| s.int8),
        read: seconds(|s| s.read),
    };
    let per_template = |s: Spread| s.map(|v| v * 1e6 / (galleries.gallery * probes) as f64);
    let spread = Sides {
        encrypted: per_template(sides.encrypted),
        f32: per_template(sides.f32),
        int8: per_template(sides.int8),
        read: per_template(sides.read),
    };
    let batch = Batch {
        probes,
        us_per_template: spread.encrypted.median,
        f32_us_per_template: spread.f32.median,
        int8_us_per_template: spread.int8.median,
        ratio_to_f32: sides.encrypted.median / sides.f32.median,
        ratio_to_int8: sides.encrypted.median / sides.int8.median,
        // What lies in a cache may be read faster than the reading pass, which is slower at its start.
        percent_of_bandwidth: (sides.read.median / sides.encrypted.median * 100.0).min(100.0),
        spread,
    };
    (batch, sides.read.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments() -> ScanArguments {
        let dim = Dimension::new(16).unwrap();
        ScanArguments { gallery: 700, dim, threads: Some(1), repeat: 9, probes: vec![2, 1], check: 125, json: true }
    }

    #[test]
    fn layouts_hold_the_gallery_with_one_block_width() {
        let p = GLWE_2048_V1;
        for gallery in [1, 40, 700, 8191, 8192, 8193, 100_000] {
            let layouts = layouts(&p, gallery);
            let capacity: usize = layouts.iter().map(|l| l.capacity(&p)).sum();
            let beta = layouts[0].beta();
            assert!(capacity >= gallery && capacity < gallery + p.degree / beta, "{gallery}: {capacity}");
            assert!(layouts.iter().all(|l| l.beta() == beta));
        }
        assert_eq!(layouts(&p, 100_000).len(), 13);
    }

    #[test]
    fn a_small_run_reports_every_field() {
        let report = measure(&arguments(), &Progress::hidden()).unwrap();
        assert_eq!(report.batches.iter().map(|b| b.probes).collect::<Vec<_>>(), [1, 2]);
        // Two bodies of 512 slots: 1,024 slots of 4·16 bytes for 700 templates.
        assert!((report.bytes_per_template - 1024.0 * 64.0 / 700.0).abs() < 1e-9, "{}", report.bytes_per_template);
        let object: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        for key in
            ["us_per_template", "f32_us_per_template", "int8_us_per_template", "ratio_to_f32", "percent_of_bandwidth"]
        {
            assert!(object[key].as_f64().unwrap() > 0.0, "{key}");
        }
        assert_eq!((&object["bench"], object["spread"]["encrypted"]["runs"].as_u64()), (&"scan".into(), Some(9)));
        assert_eq!(report.outside_band(), 0);
        assert!(report.text().contains("700 templates of 16 dimensions"));
    }
}
