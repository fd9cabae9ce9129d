//! Transforms, products and the matcher's scan of one group, beside a plaintext scan of as many templates.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use veilmatch_benches::{coordinates, plaintext_scan, residues};
use veilmatch_domain::{Dimension, Epoch, GroupId, Revision};
use veilmatch_glwe::{GLWE_2048_V1, Layout, PackedGroup, ProbeCiphertext};
use veilmatch_kernels::Accumulator;

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

/// The mean time of what a bench function ran last: criterion keeps its own to itself.
#[derive(Default)]
struct Mean(Duration, u64);

impl Mean {
    fn measure<T>(&mut self, iterations: u64, mut run: impl FnMut() -> T) -> Duration {
        let start = Instant::now();
        for _ in 0..iterations {
            black_box(run());
        }
        let elapsed = start.elapsed();
        self.0 += elapsed;
        self.1 += iterations;
        elapsed
    }

    fn seconds(&self) -> f64 {
        self.0.as_secs_f64() / self.1.max(1) as f64
    }
}

#[expect(clippy::print_stdout, reason = "the ratio is the report")]
fn scan(c: &mut Criterion) {
    let ring = GLWE_2048_V1.ring();
    let layout = Layout::new(4, 16).unwrap();
    let blocks = layout.blocks(Dimension::new(DIMENSION).unwrap());
    let templates = layout.capacity(&GLWE_2048_V1);
    let draw = |polynomials: usize, seed| residues(polynomials * ring.degree(), ring.modulus(), seed);
    let packed = PackedGroup {
        group: GroupId(0),
        revision: Revision(0),
        epoch: Epoch(0),
        layout,
        bodies: draw(blocks * layout.rank(), 3).into(),
    };
    let probe = ProbeCiphertext { masks: draw(blocks, 4), bodies: draw(blocks, 5) };
    let (gallery, vector) = (coordinates(templates * DIMENSION, 6), coordinates(DIMENSION, 7));

    let mut group = c.benchmark_group("scan of one group, d = 512, (β, r) = (4, 16)");
    group.throughput(Throughput::Elements(templates as u64)).sample_size(20);
    let (mut encrypted, mut plain) = (Mean::default(), Mean::default());
    group.bench_function("encrypted, all cores", |bencher| {
        bencher.iter_custom(|n| encrypted.measure(n, || packed.scan(&GLWE_2048_V1, &ring, black_box(&probe))));
    });
    group.bench_function("plaintext f32, one core", |bencher| {
        bencher.iter_custom(|n| plain.measure(n, || plaintext_scan(black_box(&gallery), black_box(&vector))));
    });
    group.finish();
    println!(
        "{templates} templates: encrypted {:.2} ms, plaintext {:.2} ms, ratio {:.1}",
        encrypted.seconds() * 1e3,
        plain.seconds() * 1e3,
        encrypted.seconds() / plain.seconds()
    );
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    arithmetic(&mut criterion);
    scan(&mut criterion);
    criterion.final_summary();
}
