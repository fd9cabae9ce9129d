use super::*;
use veilmatch_secret::Stream;

use crate::testing::open_by_three;

const SCALE: i64 = 1 << 18;
const TOP: i64 = 1 << 47;

/// A vector as its owner's client sends it: three parts modulo 2^48.
struct Parts([Vec<u64>; 3]);

impl Parts {
    fn of(vector: &[i64], stream: &mut Stream) -> Self {
        let mut draw = || vector.iter().map(|_| stream.next_u64() & MASK).collect::<Vec<u64>>();
        let (a, b) = (draw(), draw());
        let rest = |j: usize| (vector[j] as u64).wrapping_sub(a[j]).wrapping_sub(b[j]) & MASK;
        let c = (0..vector.len()).map(rest).collect();
        Self([a, b, c])
    }

    fn held_by(&self, party: Party) -> (&[u64], &[u64]) {
        (&self.0[party.index()], &self.0[party.next().index()])
    }
}

fn shares(vectors: &[Vec<i64>], bounds: &NormBounds) -> [Vec<u64>; 3] {
    let mut stream = Stream::public([31; 32]);
    let parts: Vec<Parts> = vectors.iter().map(|v| Parts::of(v, &mut stream)).collect();
    Party::ALL.map(|party| {
        let held: Vec<_> = parts.iter().map(|p| p.held_by(party)).collect();
        norm_inputs(party, &held, bounds)
    })
}

/// The sum of what the three holders put in.
fn inputs(vectors: &[Vec<i64>], bounds: &NormBounds) -> Vec<u64> {
    let [a, b, c] = shares(vectors, bounds);
    a.iter().zip(b.iter().zip(&c)).map(|(a, (b, c))| a.wrapping_add(*b).wrapping_add(*c) & MASK).collect()
}

fn fits(vectors: &[Vec<i64>], bounds: &NormBounds) -> Vec<bool> {
    let circuit = norm_circuit(vectors.len(), vectors[0].len());
    read_norm(&circuit.evaluate_in_clear(&inputs(vectors, bounds))).unwrap()
}

fn fits_by_three(vectors: &[Vec<i64>], bounds: &NormBounds) -> Vec<bool> {
    let circuit = norm_circuit(vectors.len(), vectors[0].len());
    read_norm(&open_by_three(circuit, &inputs(vectors, bounds), 5)).unwrap()
}

fn unit_bounds() -> NormBounds {
    NormBounds::unit(SCALE as u64)
}

/// (1+ε)·S.
const LARGEST: u64 = (SCALE + SCALE / 100) as u64;

fn square(vector: &[i64]) -> i128 {
    vector.iter().map(|&m| i128::from(m) * i128::from(m)).sum()
}

/// The oracle: exact integers.
fn plain(vector: &[i64], bounds: &NormBounds) -> bool {
    let range = i128::from(bounds.low)..=i128::from(bounds.high);
    vector.iter().all(|m| m.unsigned_abs() <= LARGEST) && range.contains(&square(vector))
}

/// The directions of real embeddings: roughly normal coordinates, normalised.
fn direction(dimension: usize, stream: &mut Stream) -> Vec<f64> {
    let uniform = |stream: &mut Stream| f64::from(stream.next_u32()) / f64::from(u32::MAX);
    let raw: Vec<f64> = (0..dimension).map(|_| (0..12).map(|_| uniform(stream)).sum::<f64>() - 6.0).collect();
    let norm = raw.iter().map(|x| x * x).sum::<f64>().sqrt();
    raw.into_iter().map(|x| x / norm).collect()
}

fn quantised(vector: &[f64], factor: f64) -> Vec<i64> {
    vector.iter().map(|x| (x * factor * SCALE as f64).round() as i64).collect()
}

fn unit(dimension: usize, stream: &mut Stream) -> Vec<i64> {
    quantised(&direction(dimension, stream), 1.0)
}

fn with(vector: &[i64], changes: &[(usize, i64)]) -> Vec<i64> {
    let mut changed = vector.to_vec();
    for &(place, value) in changes {
        changed[place] = value;
    }
    changed
}

/// e_j·S: a unit vector along one axis.
fn axis(dimension: usize, sign: i64) -> Vec<i64> {
    with(&vec![0; dimension], &[(dimension / 2, sign * SCALE)])
}

/// Rounding moves each coordinate by at most 1/2, so |Σ m² − S²| ≤ S·√d + d/4: at d = 1,024 that is 1/81 of the
/// 0.01·S² that is allowed. What is measured: at most 1/200, where rounding errors all have one sign, and 1/800 on random directions.
#[test]
fn honest_vectors_fit_with_a_wide_margin() {
    let mut stream = Stream::public([32; 32]);
    for (dimension, count) in [(16, 200), (64, 100), (512, 30), (1024, 20)] {
        let bounds = unit_bounds();
        let mut vectors: Vec<Vec<i64>> = (0..count).map(|_| unit(dimension, &mut stream)).collect();
        vectors.extend([axis(dimension, 1), axis(dimension, -1)]);
        // The same coordinate everywhere, where rounding errors all have one sign.
        vectors.push(quantised(&vec![1.0 / (dimension as f64).sqrt(); dimension], 1.0));
        let allowed = SCALE * SCALE / 100;
        let worst = vectors.iter().map(|v| (square(v) - i128::from(SCALE * SCALE)).abs()).max().unwrap();
        let bound = SCALE as f64 * (dimension as f64).sqrt() + dimension as f64 / 4.0;
        assert!(worst as f64 <= bound && bound * 80.0 < allowed as f64);
        let typical = vectors[..count].iter().map(|v| (square(v) - i128::from(SCALE * SCALE)).abs()).max().unwrap();
        assert!(worst * 200 < i128::from(allowed), "d {dimension}: {worst} of {allowed}");
        assert!(typical * 800 < i128::from(allowed), "d {dimension}: {typical} of {allowed}");
        let largest = vectors.iter().flatten().map(|m| m.unsigned_abs()).max().unwrap();
        assert!(largest + SCALE as u64 / 100 <= LARGEST, "one axis leaves a hundredth of S");
        assert!(LARGEST <= HALF_WINDOW - (2 << dropped_bits(dimension)), "which every window has room for");
        assert_eq!(fits(&vectors, &bounds), vec![true; vectors.len()], "d {dimension}");
    }
}

/// Vectors that an honest client does not send, each with its reason.
fn attacks(dimension: usize, stream: &mut Stream) -> Vec<(&'static str, Vec<i64>)> {
    let x = direction(dimension, stream);
    let honest = quantised(&x, 1.0);
    let other = unit(dimension, stream);
    let sum: Vec<i64> = honest.iter().zip(&other).map(|(a, b)| a + b).collect();
    let mut garbage = || (0..dimension).map(|_| ((stream.next_u64() & MASK) as i64) - TOP).collect::<Vec<i64>>();
    vec![
        ("scaled by 1.02", quantised(&x, 1.02)),
        ("scaled by 0.98", quantised(&x, 0.98)),
        ("scaled by 10", quantised(&x, 10.0)),
        ("scaled by -10", quantised(&x, -10.0)),
        ("scaled by 100,000", quantised(&x, 1e5)),
        ("sum of two subjects", sum),
        ("one huge coordinate", with(&honest, &[(0, 40 * SCALE)])),
        ("one coordinate of 1.02", with(&vec![0; dimension], &[(3, SCALE + SCALE / 50)])),
        ("all zero", vec![0; dimension]),
        ("2^47 − 1", with(&honest, &[(1, TOP - 1)])),
        ("−2^47", with(&honest, &[(1, -TOP)])),
        ("−2^47 + 1", with(&honest, &[(1, 1 - TOP)])),
        ("just below 2^47", with(&honest, &[(2, TOP - SCALE)])),
        ("just above −2^47", with(&honest, &[(2, SCALE - TOP)])),
        ("random garbage", garbage()),
        ("more garbage", garbage()),
        ("small garbage", (0..dimension as i64).map(|j| j % 7 - 3).collect()),
    ]
}

/// Vectors whose Σ m² wraps modulo 2^48 into the allowed range: the sum alone would accept them.
fn aliases(dimension: usize) -> Vec<(&'static str, Vec<i64>)> {
    let honest = axis(dimension, 1);
    let mut all = vec![
        ("(2^24)² = 2^48", with(&honest, &[(0, 1 << 24)])),
        ("(−2^24)²", with(&honest, &[(0, -(1 << 24))])),
        ("(3·2^24)²", with(&honest, &[(0, 3 << 24)])),
        ("(2^46)²", with(&honest, &[(0, 1 << 46)])),
        ("(−2^47)²", with(&honest, &[(0, -TOP)])),
        ("4·(2^23)²", with(&honest, &[(0, 1 << 23), (1, -(1 << 23)), (2, 1 << 23), (3, 1 << 23)])),
        (
            "S + 2^47 is a root of S² too",
            axis(dimension, 1).into_iter().map(|m| if m == 0 { 0 } else { m - TOP }).collect(),
        ),
        ("everywhere a multiple of 2^24", {
            let many: Vec<i64> = (0..dimension as i64).map(|j| (j - 5) << 24).collect();
            with(&many, &[(0, SCALE)])
        }),
    ];
    // Equal coordinates just above 2·S with d·c² = 2^48 + S² (and a little): the gentlest way to wrap.
    let wrapped = ((1u64 << 48) + (1 << 36)) as f64 / dimension as f64;
    all.push(("d equal coordinates", vec![wrapped.sqrt().round() as i64; dimension]));
    all
}

#[test]
fn attacks_do_not_fit_and_unit_vectors_do() {
    let mut stream = Stream::public([33; 32]);
    for dimension in [16, 64, 512, 1024] {
        let bounds = unit_bounds();
        for (name, vector) in attacks(dimension, &mut stream) {
            assert!(!plain(&vector, &bounds), "{name}");
            assert_eq!(fits(&[vector], &bounds), [false], "{name}, d {dimension}");
        }
        // The negated vector is a unit vector, and a scaling within ε is one too.
        let x = direction(dimension, &mut stream);
        for factor in [1.0, -1.0, 1.004, 0.996] {
            assert_eq!(fits(&[quantised(&x, factor)], &bounds), [true], "{factor}");
        }
    }
}

#[test]
fn sums_that_alias_modulo_2_48_do_not_fit() {
    for dimension in [16, 64, 512, 1024] {
        let bounds = unit_bounds();
        for (name, vector) in aliases(dimension) {
            let wrapped = square(&vector).rem_euclid(1 << 48) as u64;
            assert!((bounds.low..=bounds.high).contains(&wrapped), "{name}: the attack would pass the sum alone");
            assert_eq!(fits(&[vector], &bounds), [false], "{name}, d {dimension}");
        }
    }
}

#[test]
fn no_vector_inside_the_window_can_alias() {
    for dimension in 1..=1024 {
        let (dropped, squared) = (dropped_bits(dimension), |m: u64| dimension as u128 * u128::from(m) * u128::from(m));
        match dropped {
            // One more would be too many, or more than an honest coordinate can do without.
            1.. => {
                assert!(squared(HALF_WINDOW + (2 << dropped) - 1) < 1 << 48);
                assert!(dropped == 16 || squared(HALF_WINDOW + (4 << dropped) - 1) >= 1 << 48);
            }
            // Exact: 2^48 only if all coordinates are -2^19, and then it is 0 modulo 2^48.
            0 => assert!(dimension == 1024 && squared(HALF_WINDOW) == 1 << 48 && squared(HALF_WINDOW - 1) < 1 << 48),
        }
    }
    for value in [HALF_WINDOW as i64, HALF_WINDOW as i64 - 1, LARGEST as i64] {
        for vector in [vec![value; 1024], vec![-value; 1024]] {
            assert_eq!(fits(&[vector], &unit_bounds()), [false], "{value}");
        }
    }
}

/// Parts whose low bits are chosen, because what is dropped of each of them matters: the worst that a client can send.
#[test]
fn the_window_is_as_wide_as_the_documentation_says() {
    let any_sum = NormBounds { low: 1, high: (1 << 47) - 1 };
    for dimension in [16, 512, 700, 1000, 1024] {
        let dropped = dropped_bits(dimension);
        let (half, step) = (HALF_WINDOW as i64, 1i64 << dropped);
        let error = if dropped == 0 { 0 } else { 2 * step };
        let mut stream = Stream::public([40; 32]);
        for edge in [-half, -half + error, half, half + error] {
            for near in [-step - 1, -step, -1, 0, 1, step - 1, step] {
                let m = edge + near;
                for low_bits in [[0, 0], [step - 1, step - 1], [step - 1, 0], [step / 2, step - 1]] {
                    let mut parts = Parts::of(&with(&vec![0; dimension], &[(1, m)]), &mut stream);
                    for (part, low) in low_bits.into_iter().enumerate() {
                        parts.0[part][1] = parts.0[part][1] & !(step as u64 - 1) | low as u64;
                    }
                    parts.0[2][1] = (m as u64).wrapping_sub(parts.0[0][1]).wrapping_sub(parts.0[1][1]) & MASK;
                    let shares = Party::ALL.map(|party| norm_inputs(party, &[parts.held_by(party)], &any_sum));
                    let sum =
                        (0..shares[0].len()).map(|i| shares.iter().fold(0u64, |s, v| s.wrapping_add(v[i]) & MASK));
                    let circuit = norm_circuit(1, dimension);
                    let fit = read_norm(&circuit.evaluate_in_clear(&sum.collect::<Vec<u64>>())).unwrap() == [true];
                    let (always, ever) = (-half + error <= m && m < half, -half <= m && m < half + error);
                    assert!(if fit { ever } else { !always }, "d {dimension}: {m} fits: {fit}");
                }
            }
        }
    }
}

#[test]
fn the_bounds_of_the_sum_are_exact() {
    let mut stream = Stream::public([34; 32]);
    let vector = unit(16, &mut stream);
    let sum = square(&vector) as u64;
    for (low, high, fit) in [
        (sum, sum, true),
        (sum + 1, sum + 1, false),
        (sum - 1, sum - 1, false),
        (sum - 1, sum, true),
        (sum, sum + 1, true),
        (1, sum - 1, false),
        (sum + 1, 1 << 46, false),
    ] {
        assert_eq!(fits(std::slice::from_ref(&vector), &NormBounds { low, high }), [fit]);
    }
}

#[test]
fn random_vectors_are_judged_as_by_exact_integers() {
    let mut stream = Stream::public([35; 32]);
    let bounds = unit_bounds();
    let mut vectors = Vec::new();
    for _ in 0..300 {
        let factor = 0.99 + f64::from(stream.next_u32()) / f64::from(u32::MAX) * 0.02;
        vectors.push(quantised(&direction(16, &mut stream), factor));
    }
    let expected: Vec<bool> = vectors.iter().map(|v| plain(v, &bounds)).collect();
    assert!(expected.iter().any(|&fit| fit) && expected.iter().any(|&fit| !fit));
    assert_eq!(fits(&vectors, &bounds), expected);
}

#[test]
fn one_bad_vector_changes_its_own_verdict_only() {
    let mut stream = Stream::public([36; 32]);
    let honest: Vec<Vec<i64>> = (0..70).map(|_| unit(16, &mut stream)).collect();
    let bounds = unit_bounds();
    let bad: Vec<Vec<i64>> = attacks(16, &mut stream).into_iter().chain(aliases(16)).map(|(_, v)| v).collect();
    for (place, vector) in bad.into_iter().enumerate() {
        let place = place * 41 % honest.len();
        let mut vectors = honest.clone();
        vectors[place] = vector;
        let expected: Vec<bool> = (0..honest.len()).map(|t| t != place).collect();
        assert_eq!(fits(&vectors, &bounds), expected);
    }
}

#[test]
fn three_holders_judge_as_exact_integers_do() {
    let mut stream = Stream::public([37; 32]);
    for dimension in [16, 64, 512, 1024] {
        let bounds = unit_bounds();
        let mut vectors: Vec<Vec<i64>> = (0..3).map(|_| unit(dimension, &mut stream)).collect();
        vectors.extend(attacks(dimension, &mut stream).into_iter().chain(aliases(dimension)).map(|(_, v)| v));
        vectors.push(vectors[0].iter().map(|m| -m).collect());
        let expected: Vec<bool> = vectors.iter().map(|v| plain(v, &bounds)).collect();
        assert_eq!(expected.iter().filter(|&&fit| fit).count(), 4);
        assert_eq!(fits_by_three(&vectors, &bounds), expected, "d {dimension}");
    }
}

#[test]
fn shares_of_a_dot_product_add_up() {
    let mut stream = Stream::public([38; 32]);
    for dimension in [0, 1, 16, 100] {
        let (x, y) = (unit(dimension, &mut stream), unit(dimension, &mut stream));
        let (a, b) = (Parts::of(&x, &mut stream), Parts::of(&y, &mut stream));
        let sum = Party::ALL
            .map(|party| dot_share(a.held_by(party), b.held_by(party)))
            .into_iter()
            .fold(0u64, |sum, share| sum.wrapping_add(share) & MASK);
        let expected: i64 = x.iter().zip(&y).map(|(a, b)| a * b).sum();
        assert_eq!(sum, expected as u64 & MASK);
    }
}

#[test]
fn a_vector_of_another_dimension_is_not_compared_in_part() {
    let mut stream = Stream::public([39; 32]);
    let bounds = unit_bounds();
    // A seventeenth coordinate that nobody would compare, with a square that vanishes modulo 2^48.
    let mut longer = unit(16, &mut stream);
    longer.push(1 << 24);
    let vectors = [unit(16, &mut stream), longer];
    assert_ne!(shares(&vectors, &bounds)[0].len(), norm_circuit(2, 16).input_count(), "refused, whatever the order");
    let shorter = [unit(16, &mut stream), unit(9, &mut stream)];
    assert_eq!(fits(&shorter, &bounds), [true, true], "padded with 0");
}

/// The table of the module's documentation.
#[test]
fn gates_and_rounds_are_those_of_the_documentation() {
    let cost = |templates, dimension| {
        let circuit = norm_circuit(templates, dimension);
        (circuit.and_bits(), circuit.rounds())
    };
    assert_eq!([cost(1, 64), cost(1, 512), cost(1, 1024)], [(6506, 11), (48_842, 11), (175_562, 11)]);
    assert_eq!(cost(16, 512), (781_472, 11));
}

#[test]
fn what_has_another_shape_is_not_a_verdict() {
    for opened in
        [vec![], vec![vec![]], vec![vec![Lanes::zeros(1), Lanes::zeros(1)]], vec![vec![Lanes::zeros(1)], vec![]]]
    {
        assert_eq!(read_norm(&opened), Err(ProtocolError::NotAnAnswer));
    }
    assert_eq!(read_norm(&[vec![Lanes::zeros(65)]]), Err(ProtocolError::NotAnAnswer));
    for bit in [1, 3 * 5 + 1, 3 * 63 + 1] {
        assert_eq!(read_norm(&[vec![Lanes::from_fn(3 * 64, |i| i == bit)]]), Ok(vec![true, false, true]));
    }
}
