//! `veilmatch bench scan`: the matcher's side of a search, beside plaintext scans of as many templates.
//!
//! Four things are timed in turns within one process and one pool: the encrypted scan of every group, an f32 scan, an 8-bit
//! scan, and reading as many bytes as the index has. The order of the four rotates from one round to the next.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use rayon::prelude::*;
use serde::Serialize;
use veilmatch_domain::{Dimension, Epoch, GroupId, Revision};
use veilmatch_gallery::layout_for;
use veilmatch_glwe::{
    Bodies, GLWE_2048_V1, GroupSums, Layout, PackedGroup, Parameters, ProbeCiphertext, scan_groups, uniform_polynomial,
};
use veilmatch_kernels::{
    BodyLayout, FoldedSums, Kernel, LengthError, Ring, ScanProbe, baseline, give_back, scan_folded, scan_reference,
    to_bytes,
};
use veilmatch_mapped::HugeWords;
use veilmatch_secret::Stream;

use super::genuine::{self, Checked};
use super::spread::Spread;
use super::{BenchError, cores, fits_memory, pool};
use crate::arguments::dimension;
use crate::exit::CliError;
use crate::report::{self, Progress, Report, count};

pub(super) const EXAMPLES: &str = "\
Examples:
  veilmatch bench scan
  veilmatch bench scan --gallery 1000000 --threads 2
  veilmatch bench scan --gallery 100000 --probes 1,8,32 --json > scan-100000.json

`ratio` is encrypted time over f32 time; below 1 the encrypted scan is the faster
one. Memory: about 9 times DIM bytes for each template.";

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
    kernel: Kernel,
    gallery: usize,
    dimension: usize,
    groups: Vec<PackedGroup>,
    probes: Vec<ProbeCiphertext>,
    /// f32 values.
    single: HugeWords,
    single_probes: Vec<Vec<f32>>,
    /// 8-bit values, four to a word.
    bytes: HugeWords,
    byte_probes: Vec<Vec<i8>>,
}

impl Galleries {
    /// Residues and coordinates that mean nothing, the same in every run.
    fn fill(gallery: usize, dimension: Dimension, probes: usize, progress: &Progress) -> Result<Self, CliError> {
        let parameters = GLWE_2048_V1;
        let layouts = layouts(&parameters, dimension, gallery);
        let index: usize = layouts.iter().map(|l| l.blocks(dimension) * l.rank() * parameters.degree * 4).sum();
        fits_memory((index + gallery * dimension.get() * 9) as u64)?;
        let bar = progress.stage("fill the galleries", layouts.len());
        let groups = layouts.into_par_iter().enumerate().map(|(number, layout)| {
            bar.step();
            group(&parameters, number, layout, dimension)
        });
        let groups = groups.collect::<Result<Vec<_>, CliError>>()?;
        let narrow = layout_for(&parameters, dimension, gallery).blocks(dimension);
        let side = |probe: usize, side: u64| polynomials(&parameters, narrow, 1 << 40 | (probe as u64) << 1 | side);
        let probes_encrypted = (0..probes).map(|p| ProbeCiphertext { masks: side(p, 0), bodies: side(p, 1) }).collect();
        let d = dimension.get();
        let values = floats(gallery * d, 1 << 50);
        // All of them in huge pages, as the matcher's index is: one side must not have an advantage.
        let single = huge(gallery * d, |room| bytemuck::cast_slice_mut(room).copy_from_slice(&values))?;
        let bytes = huge((gallery * d).div_ceil(4), |room| {
            let room: &mut [i8] = bytemuck::cast_slice_mut(room);
            room.par_iter_mut().zip(&values).for_each(|(byte, &v)| *byte = (v * 127.0) as i8);
        })?;
        drop(values);
        let single_probes: Vec<Vec<f32>> = (0..probes).map(|p| floats(d, 1 << 51 | p as u64)).collect();
        let byte_probes = single_probes.iter().map(|p| p.iter().map(|&v| (v * 127.0) as i8).collect()).collect();
        Ok(Self {
            parameters,
            ring: parameters.ring(),
            kernel: Kernel::detect(),
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

    /// Seconds for the first `probes` probes, prepared and folded as the matcher does it.
    fn encrypted(&self, probes: usize) -> Result<f64, CliError> {
        let probes = self.probes.get(..probes).unwrap_or_default();
        timed(|| match probes {
            [probe] => {
                let prepared = probe.prepare(&self.ring)?;
                let groups: Vec<&PackedGroup> = self.groups.iter().collect();
                let sums = scan_groups(&self.parameters, &self.ring, &prepared, &groups)?;
                let done = sums.len();
                GroupSums::give_back(black_box(sums));
                Ok(done)
            }
            several => self.encrypted_together(several),
        })
    }

    /// Several probes in one pass over the index. Few groups at a time: their sums for all probes must not fill memory.
    fn encrypted_together(&self, probes: &[ProbeCiphertext]) -> Result<usize, LengthError> {
        let prepared = ScanProbe::new(&self.ring, &vectors(probes))?;
        let mut done = 0;
        for alike in self.groups.chunk_by(|a, b| a.layout == b.layout) {
            let Some(layout) = alike.first().map(|g| g.layout) else { continue };
            let bodies_layout = body_layout(&self.parameters, layout, prepared.blocks())?;
            for few in alike.chunks(TOGETHER) {
                let bodies: Vec<&[u32]> = few.iter().map(|g| &*g.bodies).collect();
                let sums = scan_folded(self.kernel, &self.ring, bodies_layout, &prepared, layout.beta(), &bodies)?;
                done += sums.len();
                give_back(black_box(sums).into_iter().flatten().flat_map(|sums| [sums.whole, sums.folded]));
            }
        }
        Ok(done)
    }

    fn plaintext_f32(&self, probes: usize) -> Result<f64, CliError> {
        let probes: Vec<&[f32]> = self.single_probes.iter().take(probes).map(Vec::as_slice).collect();
        let gallery = bytemuck::cast_slice(self.single.as_ref());
        timed(|| baseline::scan_f32(self.kernel, self.dimension, gallery, &probes))
    }

    fn plaintext_int8(&self, probes: usize) -> Result<f64, CliError> {
        let probes = self.byte_probes.get(..probes).unwrap_or_default();
        let values: &[i8] = bytemuck::cast_slice(self.bytes.as_ref());
        let gallery = values.get(..self.gallery * self.dimension).unwrap_or_default();
        timed(|| {
            probes.iter().try_fold(0, |done, probe| {
                baseline::scan_i8(self.kernel, self.dimension, gallery, probe).map(|scores| done + scores.len())
            })
        })
    }

    /// Seconds to read the index, and nothing else.
    fn read(&self) -> Result<f64, CliError> {
        timed(|| Ok(self.groups.iter().fold(0, |all, g| all ^ baseline::read_all(self.kernel, &g.bodies))))
    }

    /// One round, beginning with the `first` of the four.
    fn round(&self, probes: usize, first: usize) -> Result<Sides<f64>, CliError> {
        let mut sides = Sides::default();
        for step in 0..4 {
            match (first + step) % 4 {
                0 => sides.encrypted = self.encrypted(probes)?,
                1 => sides.f32 = self.plaintext_f32(probes)?,
                2 => sides.int8 = self.plaintext_int8(probes)?,
                _ => sides.read = self.read()?,
            }
        }
        Ok(sides)
    }

    /// Whether the timed scan of the last group, with one probe and with all, is the sum that the definition says.
    fn agrees_with_reference(&self) -> Result<bool, LengthError> {
        let (Some(group), Some(first)) = (self.groups.last(), self.probes.first()) else { return Err(LengthError) };
        let (rank, n) = (group.layout.rank(), self.parameters.degree);
        let prepared = ScanProbe::new(&self.ring, &vectors(&self.probes))?;
        let layout = body_layout(&self.parameters, group.layout, prepared.blocks())?;
        let natural = layout.restore(&group.bodies)?;
        let mut expected = scan_reference(&self.ring, rank, &vectors(&self.probes), &natural)?;
        let beta = group.layout.beta();
        let mut together = scan_folded(self.kernel, &self.ring, layout, &prepared, beta, &[&group.bodies])?;
        let folding = self.ring.folding(beta).ok_or(LengthError)?;
        let expected: Vec<FoldedSums> = expected
            .chunks_exact_mut(2 * rank * n)
            .filter_map(|sums| sums.split_at_mut_checked(rank * n))
            .map(|(masks, bodies)| FoldedSums {
                whole: to_bytes(masks),
                folded: to_bytes(self.ring.fold(folding, bodies)),
            })
            .collect();
        if together.pop() != Some(expected.clone()) {
            return Ok(false);
        }
        let one = scan_groups(&self.parameters, &self.ring, &first.prepare(&self.ring)?, &[group])?;
        let (Some(one), Some(expected)) = (one.first(), expected.first()) else { return Ok(false) };
        Ok(one.masks == expected.whole && one.scores == expected.folded)
    }
}

/// Groups whose sums for all probes of a batch are in memory at once.
const TOGETHER: usize = 4;

/// Masks and bodies of each probe, in this order.
fn vectors(probes: &[ProbeCiphertext]) -> Vec<&[u32]> {
    probes.iter().flat_map(|p| [p.masks.as_slice(), p.bodies.as_slice()]).collect()
}

fn body_layout(parameters: &Parameters, layout: Layout, blocks: usize) -> Result<BodyLayout, LengthError> {
    BodyLayout::new(parameters.degree, parameters.modulus, blocks, layout.rank())
}

/// Full groups of the planner's layout for this gallery, and one of the same block width for the rest.
fn layouts(parameters: &Parameters, dimension: Dimension, gallery: usize) -> Vec<Layout> {
    let full = layout_for(parameters, dimension, gallery);
    let capacity = full.capacity(parameters);
    let mut layouts = vec![full; gallery / capacity];
    let rest = gallery % capacity;
    if rest > 0 {
        layouts.push(Layout::new(full.beta(), rest.div_ceil(full.positions(parameters))).unwrap_or(full));
    }
    layouts
}

fn group(
    parameters: &Parameters,
    number: usize,
    layout: Layout,
    dimension: Dimension,
) -> Result<PackedGroup, CliError> {
    let count = layout.blocks(dimension) * layout.rank();
    let natural = polynomials(parameters, count, (number as u64) << 20);
    let arranged = Bodies::arranged(parameters, layout, dimension, &natural).map_err(wrong)?;
    let bodies = Bodies::shared(Arc::new(huge(arranged.len(), |room| room.copy_from_slice(&arranged))?));
    let group = GroupId(number as u64);
    Ok(PackedGroup { group, revision: Revision(0), epoch: Epoch(0), layout, bodies, cold: None })
}

/// Words in huge pages where the system grants them.
fn huge(words: usize, fill: impl FnOnce(&mut [u32])) -> Result<HugeWords, CliError> {
    HugeWords::filled(words, |room| {
        fill(room);
        Ok(())
    })
    .map_err(|_| CliError::protocol(BenchError::Memory { needed: words as u64 * 4, free: 0 }))
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

/// Seconds of a scan; lengths that do not fit together are this module's mistake.
fn timed<T>(run: impl FnOnce() -> Result<T, LengthError>) -> Result<f64, CliError> {
    let begun = Instant::now();
    let result = black_box(run());
    let seconds = begun.elapsed().as_secs_f64();
    result.map(|_| seconds).map_err(wrong)
}

fn wrong(_: LengthError) -> CliError {
    CliError::protocol(BenchError::WrongScan)
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
    if !galleries.agrees_with_reference().map_err(wrong)? {
        return Err(CliError::protocol(BenchError::WrongScan));
    }
    let pool = pool(threads)?;
    let rounds = arguments.repeat as usize;
    let bar = progress.stage("measure", sizes.len() * (rounds + 1));
    let mut batches = Vec::with_capacity(sizes.len());
    for probes in sizes {
        // The first round warms up pages and clocks, and is not counted.
        pool.install(|| galleries.round(probes, 0))?;
        bar.step();
        let mut measured = Vec::with_capacity(rounds);
        for i in 0..rounds {
            measured.push(pool.install(|| galleries.round(probes, i))?);
            bar.step();
        }
        batches.push(batch(probes, &galleries, &measured));
    }
    let Some((first, read)) = batches.first().cloned() else {
        return Err(CliError::protocol(super::BenchError::Threads));
    };
    let layout = layout_for(&galleries.parameters, arguments.dim, gallery);
    Ok(ScanReport {
        bench: "scan",
        gallery,
        dim: arguments.dim.get(),
        threads,
        repeat: rounds,
        kernel: galleries.kernel.name().to_owned(),
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
        let d = Dimension::new(512).unwrap();
        for gallery in [1, 40, 700, 8191, 8192, 8193, 100_000] {
            let layouts = layouts(&p, d, gallery);
            let capacity: usize = layouts.iter().map(|l| l.capacity(&p)).sum();
            let beta = layouts[0].beta();
            assert!(capacity >= gallery && capacity < gallery + p.degree / beta, "{gallery}: {capacity}");
            assert!(layouts.iter().all(|l| l.beta() == beta));
        }
        assert_eq!(layouts(&p, d, 100_000).len(), 13);
    }

    #[test]
    fn a_small_run_reports_every_field() {
        let report = measure(&arguments(), &Progress::hidden()).unwrap();
        assert_eq!(report.batches.iter().map(|b| b.probes).collect::<Vec<_>>(), [1, 2]);
        // Three bodies of 256 slots: 768 slots of 4·16 bytes for 700 templates.
        assert!((report.bytes_per_template - 768.0 * 64.0 / 700.0).abs() < 1e-9, "{}", report.bytes_per_template);
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
