use num_bigint::{BigInt, BigUint};

use super::*;
use crate::fixtures::{entropy, fixture, large_fixture};

const LARGEST: i64 = (1 << (SCORE_BITS - 1)) - 1;

#[test]
fn the_width_is_the_least_that_holds_a_masked_score() {
    let packing = Packing::new(KeySize::Bits2048);
    let most = ((1u128 << SCORE_BITS) - 1) + MASKS as u128 * ((1u128 << MASK_BITS) - 1);
    assert_eq!(packing.width(), 66);
    assert!((1 << 65..1 << 66).contains(&most));
    assert_eq!(packing.slots(), 31);
    assert_eq!(Packing::new(KeySize::Bits3072).slots(), 46);
    for size in KeySize::ALL {
        let packing = Packing::new(size);
        assert!(packing.slots() * packing.width() < size.bits());
        assert!((packing.slots() + 1) * packing.width() >= size.bits());
    }
}

#[test]
fn scores_of_admissible_vectors_fit() {
    // (1+δ)·S² with δ as large as it may be: the bound is not reached.
    let square = i64::from(SCALE) * i64::from(SCALE);
    assert!(2 * square == LARGEST + 1);
    // A norm check that allows 2 %, and rounding of 1,024 coordinates.
    let norm = 1.02 * f64::from(SCALE) + 0.5 * 32.0;
    assert!(norm * norm < 2.0 * square as f64);
}

/// Values, offset and masks added up in the clear, unpacked.
fn unpacked(key: &PublicKey, values: &[i64], masks: &[Vec<u64>; 3]) -> Vec<u128> {
    let packing = Packing::new(key.size());
    let mut sum = packing.pack(key, values).unwrap().expose_signed_vartime(key);
    sum += packing.offset(key).unwrap().expose_signed_vartime(key);
    for masks in masks {
        sum += BigInt::from(packing.masks(key, masks).unwrap().expose_vartime());
    }
    let opened = Plaintext::from_public_vartime(key, &sum);
    packing.unpack(&opened).unwrap().expose().clone()
}

#[test]
fn no_slot_overflows_at_the_extremes() {
    for key in [&fixture().key, &large_fixture().key] {
        let slots = Packing::new(key.size()).slots();
        for masks in [0, 1, u64::MAX] {
            let masks = [(); 3].map(|()| vec![masks; slots]);
            let total = masks.iter().map(|m| u128::from(m[0])).sum::<u128>();
            let alternating = |t: usize| if t.is_multiple_of(2) { LARGEST } else { -LARGEST };
            for values in [
                vec![LARGEST; slots],
                vec![-LARGEST; slots],
                vec![0; slots],
                vec![-1; slots],
                (0..slots).map(alternating).collect(),
                (1..=slots).map(alternating).collect(),
            ] {
                let expected: Vec<u128> = values.iter().map(|v| (v + LARGEST + 1) as u128 + total).collect();
                assert_eq!(unpacked(key, &values, &masks), expected);
            }
        }
    }
}

#[test]
fn what_cannot_be_packed_is_refused() {
    let key = &fixture().key;
    let packing = Packing::new(key.size());
    for bad in [LARGEST + 1, -LARGEST - 1, i64::MAX, i64::MIN] {
        assert_eq!(packing.pack(key, &[0, bad]).unwrap_err(), PaillierError::OutOfRange { what: "value of a slot" });
    }
    assert!(matches!(packing.pack(key, &[0; 32]), Err(PaillierError::Count { found: 32, expected: 31, .. })));
    assert!(matches!(packing.masks(key, &[0; 30]), Err(PaillierError::Count { found: 30, expected: 31, .. })));
    let other = Packing::new(KeySize::Bits3072);
    assert_eq!(other.pack(key, &[0]).unwrap_err(), PaillierError::OtherKey);
    assert_eq!(other.offset(key).unwrap_err(), PaillierError::OtherKey);
    assert_eq!(other.masks(key, &[0; 46]).unwrap_err(), PaillierError::OtherKey);
    let ciphertext = key.encrypt_zero(&mut *entropy());
    assert_eq!(
        packing.place(key, &ciphertext, &ciphertext, 31).unwrap_err(),
        PaillierError::Slot { slot: 31, slots: 31 }
    );
    assert!(matches!(packing.place_all(key, &[]), Err(PaillierError::Count { .. })));
    assert!(matches!(packing.place_all(key, &vec![ciphertext; 32]), Err(PaillierError::Count { .. })));
}

#[test]
fn an_opened_plaintext_with_too_many_digits_is_refused() {
    for key in [&fixture().key, &large_fixture().key] {
        let packing = Packing::new(key.size());
        let end = packing.width() * packing.slots();
        let largest = (BigUint::from(1u8) << end) - 1u8;
        let plaintext = |n: BigUint| Plaintext::from_public_vartime(key, &n.into());
        assert_eq!(
            packing.unpack(&plaintext(largest.clone())).unwrap().expose(),
            &vec![(1 << 66) - 1; packing.slots()]
        );
        // A negative sum wraps to just below N.
        for bad in [largest + 1u8, key.modulus() - 1u8] {
            assert_eq!(
                packing.unpack(&plaintext(bad)).unwrap_err(),
                PaillierError::OutOfRange { what: "opened plaintext" }
            );
        }
        let other = if key.size() == KeySize::Bits2048 { KeySize::Bits3072 } else { KeySize::Bits2048 };
        assert!(Packing::new(other).unpack(&plaintext(0u8.into())).is_err());
    }
}

#[test]
fn coordinates_are_placed_and_taken_out() {
    let (f, key) = (fixture(), &fixture().key);
    let packing = Packing::new(key.size());
    let values: Vec<i32> = (0..31).map(|t| if t % 3 == 0 { -2047 + t } else { 2048 - t }).collect();
    let coordinates = key.encrypt_integers(&values, &mut *entropy()).ciphertexts;
    let wide: Vec<i64> = values.iter().map(|&v| v.into()).collect();
    let at_once = packing.place_all(key, &coordinates).unwrap();
    assert_eq!(f.decrypt(&at_once), packing.pack(key, &wide).unwrap().expose_signed_vartime(key));
    // One by one, in another order; then the last one and the fifth are erased.
    let mut packed = key.encrypt_zero(&mut *entropy());
    for slot in (0..31).rev() {
        packed = packing.place(key, &packed, &coordinates[slot], slot).unwrap();
    }
    assert_eq!(f.decrypt(&packed), f.decrypt(&at_once));
    let mut rest = wide;
    for slot in [30, 5] {
        packed = packing.place(key, &packed, &key.negate(&coordinates[slot]).unwrap(), slot).unwrap();
        rest[slot] = 0;
    }
    assert_eq!(f.decrypt(&packed), packing.pack(key, &rest).unwrap().expose_signed_vartime(key));
}

#[test]
fn templates_are_packed_by_dimension() {
    let (f, key) = (fixture(), &fixture().key);
    let packing = Packing::new(key.size());
    let templates = [[1, -2, 3], [-4, 5, -6], [7, 8, 9]].map(|t| key.encrypt_integers(&t, &mut *entropy()).ciphertexts);
    let [a, b, c] = templates.each_ref().map(|t| t.as_slice());
    let expected = |column: &[i64]| packing.pack(key, column).unwrap().expose_signed_vartime(key);
    let two = packing.pack_templates(key, &[a, b]).unwrap();
    let three = packing.place_template(key, &two, c, 2).unwrap();
    for (packed, column) in three.iter().zip([[1, -4, 7], [-2, 5, 8], [3, -6, 9]]) {
        assert_eq!(f.decrypt(packed), expected(&column));
    }
    // Erasing the second leaves a gap and the others as they were.
    let gone = packing.place_template(key, &three, &key.negate_all(b).unwrap(), 1).unwrap();
    for (packed, column) in gone.iter().zip([[1, 0, 7], [-2, 0, 8], [3, 0, 9]]) {
        assert_eq!(f.decrypt(packed), expected(&column));
    }
    assert!(packing.pack_templates(key, &[]).unwrap().is_empty());
    assert!(matches!(packing.pack_templates(key, &[a, &b[..2]]), Err(PaillierError::Count { .. })));
    assert!(matches!(packing.pack_templates(key, &[a; 32]), Err(PaillierError::Count { .. })));
    assert!(matches!(packing.place_template(key, &two, &c[..2], 2), Err(PaillierError::Count { .. })));
    assert!(matches!(packing.place_template(key, &two, c, 31), Err(PaillierError::Slot { .. })));
}
