use borsh::BorshDeserialize;

use super::*;
use crate::fixtures::{entropy, fixture};
use crate::{Packing, SCALE};

#[test]
fn shares_add_up_and_stay_in_range() {
    let probe: Vec<i32> = (0..1024).map(|j| [0, 4095, -4095, j][j as usize % 4]).collect();
    let [first, second] = split_probe(&probe, &mut *entropy()).unwrap();
    for (j, &coordinate) in probe.iter().enumerate() {
        let (a, b) = (first.expose()[j], second.expose()[j]);
        assert_eq!(a + b, i128::from(coordinate));
        assert!(a.unsigned_abs() <= 1 << (SHARE_BITS - 1));
        assert!(b.unsigned_abs() >> EXPONENT_BITS == 0);
    }
    // A short mask would show: at full width half of the shares use the highest bit but one, and both signs are there.
    for share in [&first, &second] {
        let wide = share.expose().iter().filter(|e| e.unsigned_abs() >> (SHARE_BITS - 2) != 0).count();
        let negative = share.expose().iter().filter(|e| **e < 0).count();
        assert!((350..674).contains(&wide), "{wide}");
        assert!((350..674).contains(&negative), "{negative}");
    }
}

#[test]
fn masks_are_fresh() {
    let splits: Vec<_> = (0..4).map(|_| split_probe(&[7; 8], &mut *entropy()).unwrap()).collect();
    let all: std::collections::HashSet<i128> =
        splits.iter().flatten().flat_map(|share| share.expose().iter().copied()).collect();
    assert_eq!(all.len(), 4 * 2 * 8);
}

#[test]
fn the_hiding_is_at_least_80_bits() {
    // Coordinates differ by less than 2^13; so many of them; a uniform interval of 2^SHARE_BITS.
    let moved = (2 * COORDINATE_BOUND).ilog2() + MAX_COORDINATES.ilog2();
    assert!(SHARE_BITS as u32 - moved >= 80);
    assert!(i64::from(COORDINATE_BOUND).pow(2) >= 2 * i64::from(SCALE).pow(2));
}

#[test]
fn what_is_no_probe_is_refused() {
    for bad in [4096, -4096, i32::MAX, i32::MIN] {
        assert!(matches!(split_probe(&[0, bad], &mut *entropy()), Err(PaillierError::OutOfRange { .. })));
    }
    assert!(matches!(split_probe(&[0; 1025], &mut *entropy()), Err(PaillierError::Count { .. })));
    assert!(ProbeShare::new(vec![(1 << EXPONENT_BITS) - 1, 1 - (1 << EXPONENT_BITS)]).is_ok());
    for bad in [1 << EXPONENT_BITS, -(1 << EXPONENT_BITS), i128::MAX, i128::MIN] {
        assert!(matches!(ProbeShare::new(vec![bad]), Err(PaillierError::OutOfRange { .. })));
    }
    assert!(matches!(ProbeShare::new(vec![0; 1025]), Err(PaillierError::Count { .. })));
}

#[test]
fn a_share_comes_back_from_its_bytes() {
    let [share, _] = split_probe(&[1, -2, 3], &mut *entropy()).unwrap();
    let bytes = borsh::to_vec(&share).unwrap();
    assert_eq!(bytes.len(), 4 + 3 * 16);
    assert_eq!(ProbeShare::try_from_slice(&bytes).unwrap().expose(), share.expose());
    assert!(ProbeShare::try_from_slice(&bytes[..bytes.len() - 1]).is_err());
    assert!(ProbeShare::try_from_slice(&borsh::to_vec(&vec![i128::MAX]).unwrap()).is_err());
}

#[test]
fn two_evaluators_together_encrypt_the_scores() {
    let (f, key) = (fixture(), &fixture().key);
    let packing = Packing::new(key.size());
    let dimension = 6usize;
    // Coordinates at both ends of what is admissible, and in between.
    let template = |t: usize| -> Vec<i32> { (0..dimension).map(|j| [836, -836, 4 - t as i32][(t + j) % 3]).collect() };
    let probe: Vec<i32> = (0..dimension).map(|j| if j % 2 == 0 { 836 } else { -835 }).collect();
    let group = |count: usize| -> PreparedBases {
        let columns: Vec<Ciphertext> = (0..dimension)
            .map(|j| {
                let column: Vec<i32> = (0..count).map(|t| template(t)[j]).collect();
                packing.place_all(key, &key.encrypt_integers(&column, &mut *entropy()).ciphertexts).unwrap()
            })
            .collect();
        PreparedBases::new(key, &columns, 0).unwrap()
    };
    let groups = [group(31), group(2)];
    let groups: Vec<&PreparedBases> = groups.iter().collect();
    let [first, second] = split_probe(&probe, &mut *entropy()).unwrap();
    let evaluate = |share| evaluate_vartime(&groups, share, &mut *entropy()).unwrap();
    for (i, (a, b)) in evaluate(&first).iter().zip(&evaluate(&second)).enumerate() {
        let scores: Vec<i64> = (0..[31, 2][i])
            .map(|t| template(t).iter().zip(&probe).map(|(x, p)| i64::from(*x) * i64::from(*p)).sum())
            .collect();
        let expected = packing.pack(key, &scores).unwrap().expose_signed_vartime(key);
        assert_eq!(f.decrypt(&key.add(a, b).unwrap()), expected);
    }
    // Fresh randomness every time.
    assert_ne!(evaluate(&first), evaluate(&first));
    let short = ProbeShare::new(vec![1; 5]).unwrap();
    assert!(matches!(evaluate_vartime(&groups, &short, &mut *entropy()), Err(PaillierError::Count { .. })));
}
