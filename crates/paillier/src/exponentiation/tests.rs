use num_bigint::BigInt;
use proptest::prelude::*;

use super::*;
use crate::fixtures::{entropy, fixture};

fn exponent() -> impl Strategy<Value = i128> {
    prop_oneof![
        4 => any::<i128>().prop_map(|e| e >> 25),
        1 => Just(0),
        1 => Just(1),
        1 => Just(-1),
        1 => Just((1 << EXPONENT_BITS) - 1),
        1 => Just(1 - (1 << EXPONENT_BITS)),
        1 => Just(1 << (EXPONENT_BITS - 1)),
    ]
}

proptest! {
    #[test]
    fn digits_add_up_to_their_exponent(
        exponents in prop::collection::vec(any::<i128>(), 1..6),
        window in 1usize..=MAX_WINDOW,
        signed in any::<bool>(),
    ) {
        let task = Task { bases: exponents.len(), bits: 128, signed, inverses: false };
        let digits = Digits::of(exponents.iter().map(|&e| e.into()), task, window);
        for (j, &exponent) in exponents.iter().enumerate() {
            let mut sum = BigInt::from(0);
            for k in (0..digits.windows()).rev() {
                let digit = digits.row(k)[j];
                let most = if signed { 1 << (window - 1) } else { (1 << window) - 1 };
                prop_assert!(i32::from(digit).abs() <= most);
                sum = (sum << window) + digit;
            }
            prop_assert_eq!(sum, BigInt::from(exponent));
        }
    }
}

/// Σ e_j·m_j in the clear.
fn expected(numbers: &[i32], exponents: &[i128]) -> BigInt {
    numbers.iter().zip(exponents).map(|(&m, &e)| BigInt::from(m) * e).sum()
}

fn check(numbers: &[i32], exponents: &[i128]) {
    let (f, key) = (fixture(), &fixture().key);
    let ciphertexts = key.encrypt_integers(numbers, &mut *entropy()).ciphertexts;
    let product = multi_exponentiation_vartime(key, &ciphertexts, exponents).unwrap();
    assert_eq!(f.decrypt(&product), expected(numbers, exponents));
    let mut work = key.group().workspace();
    // Every method with several windows, and preparation with none, some and all levels gives the very same number.
    let bits = EXPONENT_BITS;
    for signed in [true, false] {
        if !signed && exponents.iter().any(|&e| e < 0) {
            continue;
        }
        let task = Task { bases: numbers.len(), bits, signed, inverses: false };
        for window in [1, 2, 5, 8] {
            for plan in [task.straus(window), task.buckets(window, 1)] {
                let forward = ciphertexts.iter().flat_map(|c| c.to_inner(key, &mut work)).collect();
                let bases =
                    PreparedBases { key: key.clone(), bases: numbers.len(), plan, task, forward, inverse: Vec::new() };
                let digits = Digits::of(exponents.iter().map(|&e| e.into()), task, window);
                let power = bases.power_vartime(&mut work, &digits).unwrap();
                assert_eq!(Ciphertext::from_inner(key, &mut work, power), product, "{plan:?}");
            }
        }
    }
    let level = 2 * key.size().ciphertext_bytes() * numbers.len();
    for levels in [0, 1, 2, 5, 1000] {
        let prepared = PreparedBases::new(key, &ciphertexts, levels * level).unwrap();
        assert!(prepared.bytes() <= level * levels.max(1));
        assert_eq!(prepared.len(), numbers.len());
        let power = prepared.power_vartime(&mut work, &prepared.digits(exponents)).unwrap();
        assert_eq!(Ciphertext::from_inner(key, &mut work, power), product, "{prepared:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn all_ways_give_the_same_product(list in prop::collection::vec((-2048i32..=2048, exponent()), 0..9)) {
        let (numbers, exponents): (Vec<_>, Vec<_>) = list.into_iter().unzip();
        check(&numbers, &exponents);
    }
}

#[test]
fn many_bases() {
    let numbers: Vec<i32> = (0..120).map(|i| i * 31 % 4001 - 2000).collect();
    let exponents: Vec<i128> = (0..120).map(|i| ((i as i128 * 0x9e37_79b9_7f4a_7c15) << 31) - (1 << 101)).collect();
    check(&numbers, &exponents);
    let unsigned: Vec<i128> = exponents.iter().map(|e| e.abs()).collect();
    check(&numbers, &unsigned);
}

#[test]
fn exponents_of_128_bits() {
    let (f, key) = (fixture(), &fixture().key);
    let ciphertexts = key.encrypt_integers(&[3, -5, 7], &mut *entropy()).ciphertexts;
    let exponents = [i128::MIN, i128::MAX, -1];
    let product = multi_exponentiation_vartime(key, &ciphertexts, &exponents).unwrap();
    assert_eq!(f.decrypt(&product), expected(&[3, -5, 7], &exponents));
}

#[test]
fn lists_of_different_lengths_are_refused() {
    let key = &fixture().key;
    let one = [key.encrypt_zero(&mut *entropy())];
    assert!(matches!(multi_exponentiation_vartime(key, &one, &[1, 2]), Err(PaillierError::Count { .. })));
    assert!(matches!(multi_exponentiation_vartime(key, &[], &[1]), Err(PaillierError::Count { .. })));
    assert_eq!(fixture().decrypt(&multi_exponentiation_vartime(key, &[], &[]).unwrap()), BigInt::from(0));
    assert_eq!(fixture().decrypt(&multi_exponentiation_vartime(key, &one, &[0]).unwrap()), BigInt::from(0));
}

#[test]
fn plans_follow_the_number_of_bases_and_the_memory() {
    let task = |bases, inverses| Task { bases, bits: EXPONENT_BITS, signed: true, inverses };
    assert!(Plan::best(task(2, false)).straus);
    assert!(!Plan::best(task(512, false)).straus);
    let costs: Vec<usize> = [1, 2, 4, 16].map(|levels| Plan::prepared(task(512, true), levels).cost).to_vec();
    assert!(costs.is_sorted_by(|a, b| a > b), "{costs:?}");
    assert!(costs[0] < Plan::best(task(512, false)).cost);
    // Never more levels than allowed.
    for most in 1..20 {
        assert!(Plan::prepared(task(512, true), most).levels <= most);
    }
}
