//! Norm check and decisions on shares: building the circuits, and evaluating them by three holders in turn.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion};
use veilmatch_benches::{additive_shares, coordinates, evaluate, pairwise_seeds};
use veilmatch_domain::Party;
use veilmatch_mpc::{Lanes, NormBounds, Question, decision_circuit, norm_circuit, norm_inputs, read_answer, read_norm};
use veilmatch_sealed::COORDINATE_SCALE;
use veilmatch_tests::{random_unit, rng};

const DIMENSION: usize = 512;
const LANES: usize = 1000;
const DECISION_BITS: u32 = 16;

fn norm(c: &mut Criterion) {
    let values: Vec<u64> = random_unit(DIMENSION, &mut rng(1))
        .values()
        .iter()
        .map(|&x| (f64::from(x) * COORDINATE_SCALE as f64).round() as i64 as u64)
        .collect();
    let parts = additive_shares(&values, 1).map(|part| part.iter().map(|v| v & ((1 << 48) - 1)).collect::<Vec<_>>());
    let bounds = NormBounds::unit(COORDINATE_SCALE);
    let inputs = || {
        Party::ALL.map(|party| {
            let (own, next) = (&parts[party.index()], &parts[party.next().index()]);
            norm_inputs(party, &[(own, next)], &bounds)
        })
    };
    let seeds = pairwise_seeds();
    let circuit = Arc::new(norm_circuit(1, DIMENSION));
    assert_eq!(read_norm(&evaluate(&circuit, &seeds, inputs())), Ok(vec![true]));

    let mut group = c.benchmark_group("norm check of one vector, d = 512");
    group.sample_size(20);
    group.bench_function("build", |bencher| bencher.iter(|| norm_circuit(black_box(1), black_box(DIMENSION))));
    group.bench_function("three holders in turn", |bencher| {
        bencher.iter(|| evaluate(&circuit, &seeds, inputs()));
    });
    group.finish();
}

fn decisions(c: &mut Criterion) {
    // Score − τ: one slot in a hundred is above.
    let half = f32::from(1u16 << (DECISION_BITS - 2));
    let values: Vec<u64> = coordinates(LANES, 2)
        .iter()
        .enumerate()
        .map(|(slot, x)| {
            let magnitude = (x.abs() * half) as i64 + 1;
            (if slot % 100 == 0 { magnitude } else { -magnitude }) as u64
        })
        .collect();
    let shares = additive_shares(&values, 3);
    let seeds = pairwise_seeds();
    let live = Lanes::ones(LANES);
    let mut group = c.benchmark_group("decision, 1,000 lanes");
    group.sample_size(20);
    for (name, question) in
        [("exists", Question::Any), ("matches", Question::List { max: 20 }), ("best", Question::Best)]
    {
        let circuit = Arc::new(decision_circuit(DECISION_BITS, &live, question));
        read_answer(question, &evaluate(&circuit, &seeds, shares.clone())).unwrap();
        group.bench_function(BenchmarkId::new("build", name), |bencher| {
            bencher.iter(|| decision_circuit(DECISION_BITS, black_box(&live), question));
        });
        group.bench_function(BenchmarkId::new("three holders in turn", name), |bencher| {
            bencher.iter(|| evaluate(&circuit, &seeds, shares.clone()));
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    norm(&mut criterion);
    decisions(&mut criterion);
    criterion.final_summary();
}
