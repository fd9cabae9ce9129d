//! One suite for every instruction set: against row-by-row arithmetic in plain Rust and against num-bigint.

use num_bigint::BigUint;
use proptest::prelude::*;

use super::*;

/// The limb counts in use: primes, N and N² of both sizes.
const LENGTHS: [usize; 7] = [8, 16, 24, 32, 48, 64, 96];

fn big(limbs: &[u64]) -> BigUint {
    BigUint::from_bytes_le(&limbs::to_bytes(limbs))
}

fn limbs_of(number: &BigUint, count: usize) -> Vec<u64> {
    let mut digits = number.to_u64_digits();
    digits.resize(count, 0);
    digits
}

/// Limbs that are often extreme: products of such carry through everything.
fn limb() -> impl Strategy<Value = u64> {
    prop_oneof![3 => any::<u64>(), 1 => Just(0), 1 => Just(u64::MAX), 1 => Just(1), 1 => Just(1 << 63)]
}

fn case() -> impl Strategy<Value = (Vec<u64>, Vec<u64>, Vec<u64>)> {
    prop::sample::select(&LENGTHS[..]).prop_flat_map(|length| {
        let list = || prop::collection::vec(limb(), length);
        (list(), list(), list()).prop_map(|(mut n, a, b)| {
            n[0] |= 3;
            let count = n.len();
            let below = |a: &[u64]| limbs_of(&(big(a) % big(&n)), count);
            let (a, b) = (below(&a), below(&b));
            (n, a, b)
        })
    })
}

/// a·b·R^−1 mod n.
fn expected(n: &[u64], a: &[u64], b: &[u64]) -> Vec<u64> {
    let (n_big, r) = (big(n), BigUint::from(1u8) << (64 * n.len()));
    let inverse = r.modinv(&n_big).unwrap();
    limbs_of(&(big(a) * big(b) * inverse % n_big), n.len())
}

fn check(n: &[u64], a: &[u64], b: &[u64]) {
    for arithmetic in Arithmetic::available() {
        let modulus = Montgomery::with(arithmetic, n).unwrap();
        let mut work = modulus.workspace();
        let mut out = vec![0; n.len()];
        modulus.multiply(&mut work, &mut out, a, b);
        assert_eq!(out, expected(n, a, b), "product, {}", arithmetic.name());
        let mut squared = a.to_vec();
        modulus.square_assign(&mut work, &mut squared);
        assert_eq!(squared, expected(n, a, a), "square, {}", arithmetic.name());
        let mut there_and_back = a.to_vec();
        modulus.enter(&mut work, &mut there_and_back);
        modulus.multiply_assign(&mut work, &mut there_and_back, b);
        assert_eq!(big(&there_and_back), big(a) * big(b) % big(n), "enter, {}", arithmetic.name());
        modulus.enter(&mut work, &mut there_and_back);
        modulus.leave(&mut work, &mut there_and_back);
        assert_eq!(big(&there_and_back), big(a) * big(b) % big(n), "leave, {}", arithmetic.name());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn products_and_squares_are_right((n, a, b) in case()) {
        check(&n, &a, &b);
    }

    #[test]
    fn instruction_sets_agree_on_blocks(
        t in prop::collection::vec(limb(), 40),
        n in prop::collection::vec(limb(), 32),
        b in prop::array::uniform8(limb()),
        carry in 0u64..2,
        inverse in any::<u64>(),
    ) {
        for arithmetic in Arithmetic::available() {
            for length in [8, 16, 24, 32] {
                let (mut plain, mut vector) = (t[..length + 8].to_vec(), t[..length + 8].to_vec());
                let carries = (
                    Arithmetic::portable().add_block(&mut plain, &n[..length], &b, carry),
                    arithmetic.add_block(&mut vector, &n[..length], &b, carry),
                );
                prop_assert_eq!(carries.0, carries.1);
                prop_assert_eq!(&plain, &vector);
                let (mut plain, mut vector) = (t[..length + 8].to_vec(), t[..length + 8].to_vec());
                let carries = (
                    Arithmetic::portable().reduce_block(&mut plain, &n[..length], inverse, carry),
                    arithmetic.reduce_block(&mut vector, &n[..length], inverse, carry),
                );
                prop_assert_eq!(carries.0, carries.1);
                prop_assert_eq!(&plain, &vector);
            }
        }
    }

    #[test]
    fn sums_and_products_of_limbs(a in prop::collection::vec(limb(), 1..20), b in prop::collection::vec(limb(), 1..20)) {
        prop_assert_eq!(big(&limbs::product(&a, &b)), big(&a) * big(&b));
        let room = BigUint::from(1u8) << (64 * a.len());
        let low = big(&b) % &room;
        let mut sum = a.clone();
        let carry = limbs::add_assign(&mut sum, &b);
        prop_assert_eq!(big(&sum) + &room * carry, big(&a) + &low);
        let mut difference = a.clone();
        let borrow = limbs::subtract_assign(&mut difference, &b);
        prop_assert_eq!(big(&difference) + low, big(&a) + room * borrow);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn powers_are_right((n, a, _) in case(), exponent in prop::collection::vec(limb(), 0..4)) {
        let expected = big(&a).modpow(&big(&exponent), &big(&n));
        for arithmetic in Arithmetic::available() {
            let modulus = Montgomery::with(arithmetic, &n).unwrap();
            let mut work = modulus.workspace();
            let mut base = a.clone();
            modulus.enter(&mut work, &mut base);
            let mut powers = vec![
                modulus.power(&mut work, &base, &exponent, 64 * exponent.len()),
                modulus.power_vartime(&base, &exponent),
            ];
            for blocks in [1, 2, 5, 1000] {
                let fixed = FixedBase::new(&modulus, &base, 64 * exponent.len(), blocks);
                prop_assert!(fixed.bits() >= 64 * exponent.len());
                powers.push(fixed.power(&modulus, &mut work, &exponent));
            }
            for mut power in powers {
                modulus.leave(&mut work, &mut power);
                prop_assert_eq!(&big(&power), &expected);
            }
        }
    }
}

#[test]
fn extreme_residues() {
    for length in LENGTHS {
        let mut moduli = vec![vec![u64::MAX; length]];
        // 2^(64·limbs − 1) + 1, and a modulus of which only the lowest limb is not zero.
        let mut sparse = vec![0; length];
        (sparse[0], sparse[length - 1]) = (1, 1 << 63);
        moduli.push(sparse);
        let mut small = vec![0; length];
        small[0] = 3;
        moduli.push(small);
        for n in moduli {
            let largest = limbs_of(&(big(&n) - 1u8), length);
            let one = limbs_of(&BigUint::from(1u8), length);
            for a in [&largest, &one, &vec![0; length]] {
                for b in [&largest, &one] {
                    check(&n, a, b);
                }
            }
        }
    }
}

/// The pair of two digits as a number modulo n².
fn pair(a: &[u64], n: &BigUint) -> BigUint {
    let (low, high) = a.split_at(a.len() / 2);
    big(low) + big(high) * n
}

/// Products and squares of pairs whose digits are given, and the way in and out.
fn check_pairs(n: &[u64], a: &[u64], b: &[u64]) {
    let root = big(n);
    let square = &root * &root;
    let inverse = (BigUint::from(1u8) << (64 * n.len())).modinv(&square).unwrap();
    let (x, y) = (pair(a, &root), pair(b, &root));
    for arithmetic in Arithmetic::available() {
        let name = arithmetic.name();
        let modulus = SquaredModulus::with(arithmetic, n).unwrap();
        assert_eq!(big(modulus.modulus()), square);
        let mut work = modulus.workspace();
        let mut out = vec![0; a.len()];
        modulus.multiply(&mut work, &mut out, a, b);
        let digits_are_canonical = |a: &[u64]| a.chunks(n.len()).all(|digit| big(digit) < root);
        assert!(digits_are_canonical(&out), "{name}");
        assert_eq!(pair(&out, &root), &x * &y * &inverse % &square, "product, {name}");
        out.copy_from_slice(a);
        modulus.square_assign(&mut work, &mut out);
        assert!(digits_are_canonical(&out), "{name}");
        assert_eq!(pair(&out, &root), &x * &x * &inverse % &square, "square, {name}");
        modulus.leave(&mut work, &mut out);
        assert_eq!(big(&out), &x * &x * &inverse % &square * &inverse % &square, "leave, {name}");
        modulus.enter(&mut work, &mut out);
        assert!(digits_are_canonical(&out), "{name}");
        assert_eq!(pair(&out, &root), &x * &x * &inverse % &square, "enter, {name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn products_modulo_a_square((n, a, b) in case(), (c, d) in (any::<prop::sample::Index>(), any::<bool>())) {
        // The digits of two pairs, from two residues modulo n and combinations of them.
        let mut n = n;
        *n.last_mut().unwrap() |= 1 << 63;
        let largest = limbs_of(&(big(&n) - 1u8), n.len());
        let digits = [a, b, largest, vec![0; n.len()]];
        let x = [digits[c.index(4)].clone(), digits[0].clone()].concat();
        let y = [digits[1].clone(), digits[if d { 2 } else { 1 }].clone()].concat();
        check_pairs(&n, &x, &y);
    }

    #[test]
    fn powers_modulo_a_square((n, a, b) in case(), exponent in prop::collection::vec(limb(), 0..3)) {
        let mut n = n;
        *n.last_mut().unwrap() |= 1 << 63;
        let modulus = SquaredModulus::new(&n).unwrap();
        let square = big(&n) * big(&n);
        let mut work = modulus.workspace();
        let start = limbs_of(&((big(&a) * big(&n) + big(&b)) % &square), 2 * n.len());
        let mut base = start.clone();
        modulus.enter(&mut work, &mut base);
        let mut power = modulus.power(&mut work, &base, &exponent, 64 * exponent.len());
        modulus.leave(&mut work, &mut power);
        prop_assert_eq!(big(&power), big(&start).modpow(&big(&exponent), &square));
    }
}

proptest! {
    #[test]
    fn one_plus_a_multiple_of_the_root((n, a, b) in case(), largest in any::<bool>()) {
        let mut n = n;
        *n.last_mut().unwrap() |= 1 << 63;
        let modulus = SquaredModulus::new(&n).unwrap();
        let (root, square) = (big(&n), big(&n) * big(&n));
        let mut work = modulus.workspace();
        let m = if largest { limbs_of(&(&root - 1u8), n.len()) } else { a.clone() };
        let mut x = limbs_of(&(big(&b) * &root + big(&a)), 2 * n.len());
        let start = x.clone();
        modulus.enter(&mut work, &mut x);
        modulus.multiply_one_plus(&mut work, &mut x, &m);
        modulus.leave(&mut work, &mut x);
        prop_assert_eq!(big(&x), big(&start) * (big(&m) * &root + 1u8) % &square);
        let mut y = b.clone();
        modulus.multiply_root(&mut work, &mut y, &start);
        let r = BigUint::from(1u8) << (64 * n.len());
        prop_assert_eq!(big(&y) * &r * &r % &root, big(&b) * big(&start) % &root);
    }
}

#[test]
fn extreme_pairs() {
    for length in [8, 16, 32, 48] {
        let mut sparse = vec![0; length];
        (sparse[0], sparse[length - 1]) = (1, 1 << 63);
        for n in [vec![u64::MAX; length], sparse] {
            let largest = limbs_of(&(big(&n) - 1u8), length);
            let mut one = vec![0; length];
            one[0] = 1;
            let digits = [largest, one, vec![0; length]];
            for (a0, a1) in digits.iter().flat_map(|a| digits.iter().map(move |b| (a, b))) {
                for (b0, b1) in digits.iter().flat_map(|a| digits.iter().map(move |b| (a, b))) {
                    check_pairs(&n, &[&a0[..], &a1[..]].concat(), &[&b0[..], &b1[..]].concat());
                }
            }
        }
    }
}

#[test]
fn moduli_that_are_none() {
    assert_eq!(SquaredModulus::new(&[3; 8]).unwrap_err(), ModulusError::NotFull);
    assert_eq!(SquaredModulus::new(&[u64::MAX; 7]).unwrap_err(), ModulusError::Length);
    assert_eq!(SquaredModulus::new(&[u64::MAX - 1; 8]).unwrap_err(), ModulusError::NotOdd);
    assert_eq!(Montgomery::new(&[]).unwrap_err(), ModulusError::Length);
    assert_eq!(Montgomery::new(&[3; 7]).unwrap_err(), ModulusError::Length);
    assert_eq!(Montgomery::new(&[2; 8]).unwrap_err(), ModulusError::NotOdd);
    assert_eq!(Montgomery::new(&[1, 0, 0, 0, 0, 0, 0, 0]).unwrap_err(), ModulusError::NotOdd);
}

#[test]
fn canonical_means_below_the_modulus() {
    let modulus = Montgomery::new(&[5; 8]).unwrap();
    assert!(!modulus.is_canonical_vartime(&[5; 8]));
    assert!(modulus.is_canonical_vartime(&[4, 5, 5, 5, 5, 5, 5, 5]));
    assert!(!modulus.is_canonical_vartime(&[6, 5, 5, 5, 5, 5, 5, 5]));
    assert!(!modulus.is_canonical_vartime(&[0; 7]));
}

#[test]
fn a_workspace_does_not_show_what_is_in_it() {
    let modulus = Montgomery::new(&[5; 8]).unwrap();
    assert_eq!(format!("{:?}", modulus.workspace()), "Workspace(redacted)");
}
