//! Transforms and products; the matcher's scan of one group on every instruction set that the machine has; and what it is
//! compared with: plaintext scans of as many templates, and reading as many bytes. Groups fit into a large cache: for
//! memory's part see `veilmatch bench scan`, which uses the same kernels.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use veilmatch_benches::{coordinates, residues};
use veilmatch_domain::{Dimension, Epoch, GroupId, Revision};
use veilmatch_glwe::{Bodies, GLWE_2048_V1, Layout, PackedGroup, ProbeCiphertext, scan_groups};
use veilmatch_kernels::{Accumulator, BodyLayout, Kernel, baseline, scan};

const DIMENSION: usize = 512;

fn arithmetic(c: &mut Criterion) {
    let ring = GLWE_2048_V1.ring();
    let (a, b) = (residues(ring.degree(), ring.modulus(), 1), residues(ring.degree(), ring.modulus(), 2));
    let mut group = c.benchmark_group("kernels");
    group.throughput(Throughput::Elements(ring.degree() as u64));
    let mut values = a.clone();
    group.bench_function("forward transform", |bencher| bencher.iter(|| ring.forward(black_box(&mut values))));
    // The sums have room for 2^32 terms; a fresh accumulator every 2^20 stays far below.
    let mut sum = Accumulator::new(ring.degree());
    let mut terms = 0u32;
    group.bench_function("accumulate", |bencher| {
        bencher.iter(|| {
            terms += 1;
            if terms.is_multiple_of(1 << 20) {
                sum = Accumulator::new(ring.degree());
            }
            sum.accumulate(black_box(&a), black_box(&b));
        });
    });
    group.finish();
}

/// The mean times of what bench functions ran last: criterion keeps its own to itself.
#[derive(Default)]
struct Means(BTreeMap<String, f64>);

impl Means {
    fn measure<T>(&mut self, name: &str, iterations: u64, mut run: impl FnMut() -> T) -> Duration {
        let start = Instant::now();
        for _ in 0..iterations {
            black_box(run());
        }
        let elapsed = start.elapsed();
        self.0.insert(name.to_owned(), elapsed.as_secs_f64() / iterations.max(1) as f64);
        elapsed
    }
}

fn scans(c: &mut Criterion, means: &mut Means) {
    let ring = GLWE_2048_V1.ring();
    let layout = Layout::new(4, 16).unwrap();
    let dimension = Dimension::new(DIMENSION).unwrap();
    let blocks = layout.blocks(dimension);
    let draw = |polynomials: usize, seed| residues(polynomials * ring.degree(), ring.modulus(), seed);
    let natural = draw(blocks * layout.rank(), 3);
    let packed = PackedGroup {
        group: GroupId(0),
        revision: Revision(0),
        epoch: Epoch(0),
        layout,
        bodies: Bodies::arranged(&GLWE_2048_V1, layout, dimension, &natural).unwrap(),
        cold: None,
    };
    let probe = ProbeCiphertext { masks: draw(blocks, 4), bodies: draw(blocks, 5) };
    let prepared = probe.prepare(&ring).unwrap();
    let bodies = BodyLayout::new(ring.degree(), ring.modulus(), blocks, layout.rank()).unwrap();

    let mut group = c.benchmark_group("scan of one group, d = 512, (β, r) = (4, 16)");
    group.throughput(Throughput::Elements(layout.capacity(&GLWE_2048_V1) as u64)).sample_size(20);
    group.bench_function("prepare the probe", |bencher| bencher.iter(|| black_box(&probe).prepare(&ring)));
    for kernel in Kernel::available() {
        group.bench_function(BenchmarkId::new("kernel", kernel.name()), |bencher| {
            bencher.iter_custom(|n| {
                means.measure(kernel.name(), n, || scan(kernel, &ring, bodies, black_box(&prepared), &[&packed.bodies]))
            });
        });
    }
    group.bench_function("as the matcher does it", |bencher| {
        bencher.iter_custom(|n| {
            means.measure("matcher", n, || scan_groups(&GLWE_2048_V1, &ring, black_box(&prepared), &[&packed]))
        });
    });
    group.finish();
}

fn baselines(c: &mut Criterion, means: &mut Means) {
    let templates = Layout::new(4, 16).unwrap().capacity(&GLWE_2048_V1);
    let (gallery, vector) = (coordinates(templates * DIMENSION, 6), coordinates(DIMENSION, 7));
    let quantised = |values: &[f32]| values.iter().map(|v| (v * 127.0) as i8).collect::<Vec<_>>();
    let (bytes, byte_vector) = (quantised(&gallery), quantised(&vector));
    let words = residues(templates * DIMENSION, u32::MAX, 8);
    let kernel = Kernel::detect();
    let mut group = c.benchmark_group("baseline, as many templates");
    group.throughput(Throughput::Elements(templates as u64)).sample_size(20);
    group.bench_function("plaintext f32", |bencher| {
        bencher.iter_custom(|n| {
            means.measure("f32", n, || baseline::scan_f32(kernel, DIMENSION, black_box(&gallery), &[&vector]))
        });
    });
    group.bench_function("plaintext int8", |bencher| {
        bencher.iter_custom(|n| {
            means.measure("int8", n, || baseline::scan_i8(kernel, DIMENSION, black_box(&bytes), &byte_vector))
        });
    });
    group.bench_function("reading alone", |bencher| {
        bencher.iter_custom(|n| means.measure("reading", n, || baseline::read_all(kernel, black_box(&words))));
    });
    group.finish();
}

#[expect(clippy::print_stdout, reason = "the ratios are the report")]
fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut means = Means::default();
    arithmetic(&mut criterion);
    scans(&mut criterion, &mut means);
    baselines(&mut criterion, &mut means);
    criterion.final_summary();
    let Some(plain) = means.0.get("f32") else { return };
    for (name, seconds) in &means.0 {
        println!("{name}: {:.3} ms, ratio to plaintext f32 {:.2}", seconds * 1e3, seconds / plain);
    }
}
