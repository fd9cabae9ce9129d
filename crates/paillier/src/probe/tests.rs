use num_bigint::BigInt;
use veilmatch_domain::Dimension;

use super::*;
use crate::fixtures::{entropy, fixture};
use crate::{Slots, TORUS_BITS, centred};

const HALF: i32 = 1 << (TORUS_BITS - 1);

fn share(coordinates: &[i32]) -> Result<ProbeShare, PaillierError> {
    ProbeShare::new(Secret::new(coordinates.to_vec()))
}

#[test]
fn what_is_no_representative_is_refused() {
    assert!(share(&[HALF, -HALF, 0]).is_ok());
    for bad in [HALF + 1, -HALF - 1, i32::MAX, i32::MIN] {
        assert_eq!(share(&[0, bad]).unwrap_err(), PaillierError::OutOfRange { what: "share of a probe" });
    }
    let every_bit = (0..1 << 10).map(|i: u32| centred(i << 16 | 0xffff)).collect::<Vec<_>>();
    assert!(share(&every_bit).is_ok(), "what `centred` gives always fits");
}

/// Numbers from nowhere.
fn residues(seed: u32) -> impl Iterator<Item = u32> {
    (1u32..).map(move |i| i.wrapping_mul(0x9e37_79b9).wrapping_add(seed).wrapping_mul(0x85eb_ca6b) >> (32 - TORUS_BITS))
}

#[test]
fn two_evaluators_together_encrypt_the_scores() {
    let (f, key) = (fixture(), &fixture().key);
    let (dimension, residue) = (16usize, |v: u32| v & ((1 << TORUS_BITS) - 1));
    let slots = Slots::new(key.size(), Dimension::new(dimension).unwrap());
    let probe: Vec<u32> = residues(1).take(dimension).collect();
    let first: Vec<u32> = residues(2).take(dimension).collect();
    let second: Vec<u32> = probe.iter().zip(&first).map(|(p, a)| residue(p.wrapping_sub(*a))).collect();
    let shares = [first, second].map(|of| share(&of.into_iter().map(centred).collect::<Vec<_>>()).unwrap());
    let template = |t: usize| residues(10 + t as u32).take(dimension);
    let group = |count: usize, memory| {
        let columns: Vec<Vec<i32>> =
            (0..dimension).map(|j| (0..count).map(|t| centred(template(t).nth(j).unwrap())).collect()).collect();
        let encrypt = |column: &Vec<i32>| key.encrypt(&slots.pack(key, column).unwrap(), &mut *entropy()).unwrap();
        PreparedBases::new(key, &columns.iter().map(encrypt).collect::<Vec<_>>(), memory).unwrap()
    };
    let level = PreparedBases::level_bytes(key, dimension);
    // Groups with different plans.
    let groups = [group(slots.count(), 0), group(2, 4 * level)];
    assert_ne!(groups[0].window(), groups[1].window());
    let groups: Vec<&PreparedBases> = groups.iter().collect();
    let [a, b] = shares.each_ref().map(|share| evaluate_vartime(&groups, share, &mut *entropy()).unwrap());
    for ((a, b), count) in a.iter().zip(&b).zip([slots.count(), 2]) {
        let sum = f.decrypt(&key.add(a, b).unwrap()) + slots.offset(key).unwrap().expose_signed_vartime(key);
        let opened = slots.open(&crate::Plaintext::from_public_vartime(key, &sum)).unwrap();
        let score = |t| template(t).zip(&probe).fold(0, |sum: u32, (x, p)| sum.wrapping_add(x.wrapping_mul(*p)));
        let expected: Vec<u32> = (0..slots.count()).map(|t| if t < count { residue(score(t)) } else { 0 }).collect();
        assert_eq!(*opened.expose(), expected);
    }
    // One share alone is another linear function, and there is fresh randomness in every ciphertext.
    assert_ne!(f.decrypt(&a[0]), BigInt::ZERO);
    let again = evaluate_vartime(&groups, &shares[0], &mut *entropy()).unwrap();
    for (a, again) in a.iter().zip(&again) {
        assert_ne!(a, again);
        assert_eq!(f.decrypt(a), f.decrypt(again));
    }
    let short = share(&[1; 5]).unwrap();
    assert!(matches!(evaluate_vartime(&groups, &short, &mut *entropy()), Err(PaillierError::Count { .. })));
}
