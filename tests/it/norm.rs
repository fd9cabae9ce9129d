//! The norm check through the whole system: only unit vectors are admitted or compared, and honest ones always pass.

use rand_core::Rng;
use veilmatch_domain::{Decision, Embedding, Outcome, Purpose};
use veilmatch_glwe::Verdict;
use veilmatch_sealed::{COORDINATE_SCALE, RING_MASK, quantise};
use veilmatch_tests::{query, random_unit, rng, subject};

use crate::cheating_client::{Forger, ask, enrol, refuses_enrolment, refuses_probe};
use crate::cheats::{D, Scene, exists};

const S: i64 = COORDINATE_SCALE as i64;

/// Signed values modulo 2^48.
fn ring(values: &[i64]) -> Vec<u64> {
    values.iter().map(|&v| v as u64 & RING_MASK).collect()
}

fn scaled(embedding: &Embedding, by: f64) -> Vec<i64> {
    embedding.values().iter().map(|&x| (f64::from(x) * by * COORDINATE_SCALE as f64).round_ties_even() as i64).collect()
}

fn with(mut values: Vec<i64>, place: usize, value: i64) -> Vec<u64> {
    values[place] = value;
    ring(&values)
}

#[test]
fn what_is_not_a_unit_vector_is_neither_admitted_nor_compared() {
    let mut scene = Scene::new(500, &[3]);
    let mut random = rng(500);
    let (x, y) = (random_unit(D, &mut random), random_unit(D, &mut random));
    let unit = scaled(&x, 1.0);
    let sum: Vec<i64> = unit.iter().zip(scaled(&y, 1.0)).map(|(a, b)| a + b).collect();
    let enrolled: Vec<i64> = {
        let all: Vec<_> = scene.people.iter().map(|(_, e)| scaled(e, 1.0)).collect();
        (0..D).map(|j| all.iter().map(|v| v[j]).sum()).collect()
    };
    let mut spike = vec![0i64; D];
    spike[7] = S;
    let bound = S + S / 100;
    let attacks: Vec<(&str, Vec<u64>)> = vec![
        ("twice as long", ring(&scaled(&x, 2.0))),
        ("ten times as long", ring(&scaled(&x, 10.0))),
        ("one percent too long", ring(&scaled(&x, 1.01))),
        ("one percent too short", ring(&scaled(&x, 0.99))),
        ("half as long", ring(&scaled(&x, 0.5))),
        ("a thousand times as long", ring(&scaled(&x, 1000.0))),
        ("two people at once", ring(&sum)),
        ("everybody who is enrolled at once", ring(&enrolled)),
        ("all zero", ring(&[0; D])),
        ("one unit everywhere", ring(&[1; D])),
        ("the largest value everywhere", vec![RING_MASK; D]),
        ("one coordinate beyond the bound", with(vec![0; D], 0, bound + 1)),
        ("one huge coordinate", with(unit.clone(), 3, 1 << 20)),
        ("one coordinate of 2^40", with(unit.clone(), 3, 1 << 40)),
        ("one coordinate of −2^47", with(unit.clone(), 3, -(1 << 47))),
        ("one coordinate of 2^47 − 1", with(unit.clone(), 3, (1 << 47) - 1)),
        // Squares that vanish modulo 2^48: the sum of squares is that of the unit vector.
        ("2^24 beside a unit vector", with(spike.clone(), 9, 1 << 24)),
        ("−2^24 beside a unit vector", with(spike.clone(), 9, -(1 << 24))),
        ("2^47 beside a unit vector", with(spike.clone(), 9, 1 << 47)),
        ("2^46 four times", {
            let mut v = spike.clone();
            v[10..14].fill(1 << 46);
            ring(&v)
        }),
        // (2^30 + S)² = S² + 2^49 + 2^60 ≡ S² modulo 2^48.
        ("2^30 added to the one coordinate", with(spike.clone(), 7, (1 << 30) + S)),
        ("2^47 added to the one coordinate", with(spike.clone(), 7, (1 << 47) + S)),
        ("random garbage", (0..D).map(|_| random.next_u64() & RING_MASK).collect()),
        ("random garbage again", (0..D).map(|_| random.next_u64() & RING_MASK).collect()),
        ("random 20-bit values", (0..D).map(|_| u64::from(random.next_u32() >> 12)).collect()),
    ];
    let mut forger = Forger::new(&scene);
    for (name, values) in attacks {
        assert_eq!(values.len(), D, "{name}");
        forger.purpose(Purpose::Enrol { subject: subject(50) });
        let template = forger.seal(&values);
        refuses_enrolment(&mut scene, template, "not-unit-norm");
        forger.purpose(Purpose::Probe(exists()));
        let probe = forger.seal(&values);
        refuses_probe(&mut scene, probe, "not-unit-norm");
    }
    // One bad vector among good ones: it alone is refused.
    let good = scene.person();
    forger.purpose(Purpose::Enrol { subject: good.0.clone() });
    let first = forger.seal(&ring(&scaled(&good.1, 1.0)));
    forger.purpose(Purpose::Enrol { subject: subject(51) });
    let second = forger.seal(&ring(&scaled(&x, 1.5)));
    let verdicts = enrol(&mut scene, vec![first, second]).unwrap();
    assert!(
        matches!(verdicts.as_slice(), [Verdict::Accepted, Verdict::Refused(r)] if r.code == "not-unit-norm"),
        "{verdicts:?}"
    );
    assert_eq!(scene.verify(3), Ok(Outcome::Verify(true)));
    scene.assert_works();
}

/// A negated vector has unit norm: it is somebody, but not the one it is the opposite of.
#[test]
fn a_negated_vector_does_not_match_its_opposite() {
    let mut scene = Scene::new(501, &[3]);
    let x = scene.people[0].1.clone();
    let negated = Embedding::new(x.values().iter().map(|v| -v).collect()).unwrap();
    for threshold in [0.0, 0.2, 0.4, 0.6, 0.8, 0.9] {
        let verify = query(Decision::Verify { subject: subject(0) }, threshold);
        assert_eq!(scene.cluster.ask(&negated, verify.clone()), Ok(Outcome::Verify(false)), "{threshold}");
        assert_eq!(scene.cluster.ask(&x, verify), Ok(Outcome::Verify(true)), "{threshold}");
    }
    let opposite = (subject(1000), negated.clone());
    assert_eq!(scene.enrol(&[opposite]).unwrap(), [Verdict::Accepted]);
    for threshold in [0.0, 0.4, 0.9] {
        let of_opposite = query(Decision::Verify { subject: subject(1000) }, threshold);
        assert_eq!(scene.cluster.ask(&x, of_opposite.clone()), Ok(Outcome::Verify(false)), "{threshold}");
        assert_eq!(scene.cluster.ask(&negated, of_opposite), Ok(Outcome::Verify(true)), "{threshold}");
    }
    let best = query(Decision::Best, 0.5);
    assert_eq!(scene.cluster.ask(&x, best.clone()), Ok(Outcome::Best(Some(subject(0)))));
    assert_eq!(scene.cluster.ask(&negated, best), Ok(Outcome::Best(Some(subject(1000)))));
}

/// The nearest value with 10 bits of mantissa, as in an f16 of normal range.
fn to_f16(value: f32) -> f32 {
    f32::from_bits((value.to_bits() + 0x1000) & !0x1fff)
}

/// Honest inputs, rounded as models round them, pass with room to spare.
#[test]
fn honest_vectors_pass() {
    let mut scene = Scene::new(502, &[1]);
    let mut random = rng(502);
    let mut forger = Forger::new(&scene);
    let mut spike = vec![0.0f32; D];
    spike[5] = -1.0;
    let mut vectors: Vec<Vec<f32>> = (0..60).map(|_| random_unit(D, &mut random).values().to_vec()).collect();
    vectors.push(spike);
    vectors.push(vec![1.0 / 8.0; D]);
    let mut widest = 0.0f64;
    let mut templates = Vec::new();
    for (number, vector) in vectors.iter().enumerate() {
        let rounded: Vec<f32> = vector.iter().map(|&v| to_f16(v)).collect();
        // As the SDK seals it, and f16 values that nobody renormalised.
        let exact = quantise(&Embedding::new(vector.clone()).unwrap()).expose().clone();
        let raw: Vec<i64> =
            rounded.iter().map(|&x| (f64::from(x) * COORDINATE_SCALE as f64).round_ties_even() as i64).collect();
        for (kind, values) in [exact, ring(&raw)].into_iter().enumerate() {
            let signed = |v: &u64| ((v << 16) as i64 >> 16) as f64 / COORDINATE_SCALE as f64;
            let square: f64 = values.iter().map(signed).map(|v| v * v).sum();
            widest = widest.max((square - 1.0).abs());
            forger.purpose(Purpose::Enrol { subject: subject(100 + 2 * number + kind) });
            templates.push(forger.seal(&values));
        }
    }
    // The check allows 0.01.
    assert!(widest < 0.002, "the margin is a factor of {}", 0.01 / widest);
    let verdicts = enrol(&mut scene, templates).unwrap();
    assert!(verdicts.iter().all(|v| *v == Verdict::Accepted), "{verdicts:?}");
    for vector in vectors.iter().take(5) {
        let rounded = Embedding::new(vector.iter().map(|&v| to_f16(v)).collect()).unwrap();
        forger.purpose(Purpose::Probe(exists()));
        let sealed = forger.seal(quantise(&rounded).expose());
        assert_eq!(ask(&mut scene, sealed), None);
    }
    // The edges of the allowed range, in both directions.
    let x = random_unit(D, &mut random);
    for (by, fits) in [(1.0049, true), (0.9951, true), (1.0052, false), (0.9948, false)] {
        forger.purpose(Purpose::Probe(exists()));
        let sealed = forger.seal(&ring(&scaled(&x, by)));
        assert_eq!(ask(&mut scene, sealed).is_none(), fits, "{by}");
    }
    scene.cluster.take_failures();
    scene.assert_works();
}
