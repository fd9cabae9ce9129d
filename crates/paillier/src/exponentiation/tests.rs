use num_bigint::BigInt;
use proptest::prelude::*;

use super::*;
use crate::fixtures::{encrypt_all, fixture};

const LARGEST: i32 = 1 << (EXPONENT_BITS - 1);

/// Those of a share: its ends too, both of them.
fn exponent() -> impl Strategy<Value = i32> {
    prop_oneof![
        4 => -LARGEST..=LARGEST,
        1 => prop::sample::select(vec![0, 1, -1, LARGEST, -LARGEST, LARGEST - 1, LARGEST / 2]),
    ]
}

fn check_digits(digits: &Digits, most: i32, window: usize, expected: &[BigInt]) {
    for (j, expected) in expected.iter().enumerate() {
        let mut sum = BigInt::from(0);
        for k in (0..digits.windows()).rev() {
            let digit = digits.row(k)[j];
            assert!(i32::from(digit).abs() <= most);
            sum = (sum << window) + digit;
        }
        assert_eq!(sum, *expected);
    }
}

proptest! {
    #[test]
    fn digits_add_up_to_their_exponent(
        signed in prop::collection::vec(exponent(), 1..6),
        unsigned in prop::collection::vec(any::<u128>(), 1..6),
        window in 1usize..=MAX_WINDOW,
    ) {
        let task = Task { bases: signed.len(), bits: EXPONENT_BITS, signed: true };
        let digits = Digits::of(signed.iter().map(|&e| e.into()), task, window);
        let expected: Vec<BigInt> = signed.iter().map(|&e| e.into()).collect();
        check_digits(&digits, 1 << (window - 1), window, &expected);
        let task = Task { bases: unsigned.len(), bits: 128, signed: false };
        let digits = Digits::of(unsigned.iter().map(|&e| e.into()), task, window);
        let expected: Vec<BigInt> = unsigned.iter().map(|&e| e.into()).collect();
        check_digits(&digits, (1 << window) - 1, window, &expected);
    }
}

/// Preparation with none, some and all levels encrypts Σ e_j·m_j.
fn check_prepared(numbers: &[i32], exponents: &[i32]) {
    let (f, key) = (fixture(), &fixture().key);
    let expected: BigInt = numbers.iter().zip(exponents).map(|(&m, &e)| BigInt::from(m) * e).sum();
    let ciphertexts = encrypt_all(key, numbers);
    let mut work = key.group().workspace();
    let level = PreparedBases::level_bytes(key, numbers.len());
    let mut products = Vec::new();
    for levels in [0, 1, 2, 3, 1000] {
        let prepared = PreparedBases::new(key, &ciphertexts, levels * level).unwrap();
        assert!(prepared.bytes() <= level * levels.max(1));
        assert_eq!(prepared.len(), numbers.len());
        let power = prepared.power_vartime(&mut work, &prepared.digits(exponents));
        products.push(Ciphertext::from_inner(key, &mut work, power));
    }
    assert!(products.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(f.decrypt(&products[0]), expected);
}

/// Both methods with several windows, and the plan, give the very same number.
fn check_unprepared(numbers: &[i32], exponents: &[u128]) {
    let (f, key) = (fixture(), &fixture().key);
    let expected: BigInt = numbers.iter().zip(exponents).map(|(&m, &e)| BigInt::from(m) * e).sum();
    let ciphertexts = encrypt_all(key, numbers);
    let mut work = key.group().workspace();
    let planned = power_product_vartime(key, &mut work, &ciphertexts, exponents);
    let task = Task { bases: numbers.len(), bits: 128, signed: false };
    for window in [1, 2, 5, 8] {
        for plan in [task.straus(window), task.pippenger(window, 1)] {
            let forward = ciphertexts.iter().flat_map(|c| c.to_inner(key, &mut work)).collect();
            let bases =
                PreparedBases { key: key.clone(), bases: numbers.len(), plan, task, forward, inverse: Vec::new() };
            let digits = Digits::of(exponents.iter().map(|&e| e.into()), task, window);
            assert_eq!(bases.power_vartime(&mut work, &digits), planned, "{plan:?}");
        }
    }
    assert_eq!(f.decrypt(&Ciphertext::from_inner(key, &mut work, planned)), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn all_ways_give_the_same_product(
        list in prop::collection::vec((-2048i32..=2048, exponent(), any::<u128>()), 0..9),
    ) {
        let numbers: Vec<i32> = list.iter().map(|of| of.0).collect();
        check_prepared(&numbers, &list.iter().map(|of| of.1).collect::<Vec<_>>());
        check_unprepared(&numbers, &list.iter().map(|of| of.2).collect::<Vec<_>>());
    }
}

#[test]
fn many_bases() {
    let numbers: Vec<i32> = (0..120).map(|i| i * 31 % 4001 - 2000).collect();
    let exponents: Vec<i32> = (0..120u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 6) as i32 - LARGEST).collect();
    check_prepared(&numbers, &exponents);
    check_unprepared(&numbers, &exponents.iter().map(|&e| u128::from(e.unsigned_abs()) << 90).collect::<Vec<_>>());
}

#[test]
fn nothing_and_zero_exponents_encrypt_zero() {
    check_prepared(&[], &[]);
    check_unprepared(&[], &[]);
    check_prepared(&[5], &[0]);
    check_unprepared(&[5], &[0]);
}

#[test]
fn plans_follow_the_number_of_bases_and_the_memory() {
    let task = |bases, signed| Task { bases, bits: if signed { EXPONENT_BITS } else { 128 }, signed };
    assert!(Plan::best(task(2, false)).straus);
    assert!(!Plan::best(task(512, false)).straus);
    let costs: Vec<usize> = [1, 2, 3].map(|levels| Plan::prepared(task(512, true), levels).cost).to_vec();
    assert!(costs.is_sorted_by(|a, b| a > b), "{costs:?}");
    // Never more levels than allowed, and none that saves nothing.
    for most in 1..20 {
        let plan = Plan::prepared(task(512, true), most);
        assert!(plan.levels <= most && plan.levels <= 3, "{plan:?}");
    }
}
