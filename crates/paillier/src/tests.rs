//! Keys, ciphertexts and what is computed on them. Each result is decrypted in the clear with the fixed primes.

use borsh::BorshDeserialize;
use num_bigint::{BigInt, BigUint};
use proptest::prelude::*;
use veilmatch_kernels::montgomery::Modular;
use veilmatch_secret::Secret;

use crate::fixtures::{Fixture, entropy, fixture, large_fixture};
use crate::*;

fn encrypt(fixture: &Fixture, value: i64) -> Ciphertext {
    fixture.key.encrypt(&Plaintext::from_integer(&fixture.key, value), &mut *entropy()).unwrap()
}

#[test]
fn numbers_come_back() {
    for fixture in [fixture(), large_fixture()] {
        for value in [0, 1, -1, 2048, -2048, i64::MAX, i64::MIN] {
            let ciphertext = encrypt(fixture, value);
            assert_eq!(fixture.decrypt(&ciphertext), BigInt::from(value));
            let read = fixture.key.ciphertext(&ciphertext.to_bytes()).unwrap();
            assert_eq!(read, ciphertext);
        }
        // The largest residues: ±(N−1)/2.
        let half = BigInt::from((fixture.key.modulus() - 1u8) / 2u8);
        for value in [half.clone(), -half] {
            let plaintext = Plaintext::from_public_vartime(&fixture.key, &value);
            assert_eq!(plaintext.expose_signed_vartime(&fixture.key), value);
            let ciphertext = fixture.key.encrypt(&plaintext, &mut *entropy()).unwrap();
            assert_eq!(fixture.decrypt(&ciphertext), value);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn operations_are_those_of_integers(a in any::<i64>(), b in any::<i64>(), factor in any::<i128>()) {
        let (f, key) = (fixture(), &fixture().key);
        let (x, y) = (encrypt(f, a), encrypt(f, b));
        let (a, b) = (BigInt::from(a), BigInt::from(b));
        prop_assert_eq!(f.decrypt(&key.add(&x, &y).unwrap()), &a + &b);
        prop_assert_eq!(f.decrypt(&key.negate(&x).unwrap()), -&a);
        prop_assert_eq!(f.decrypt(&key.multiply_vartime(&x, &factor.into()).unwrap()), &a * factor);
        let plaintext = Plaintext::from_public_vartime(key, &b);
        prop_assert_eq!(f.decrypt(&key.add_plaintext(&x, &plaintext).unwrap()), &a + &b);
        let negated = key.negate_all(&[x.clone(), y]).unwrap();
        prop_assert_eq!(f.decrypt(&negated[1]), -&b);
        let exponent = Secret::new(vec![5, 1]);
        prop_assert_eq!(f.decrypt(&key.power(&x, &exponent, 65).unwrap()), &a * ((1i128 << 64) + 5));
    }
}

#[test]
fn of_nothing_nothing_is_negated() {
    let key = &fixture().key;
    assert!(key.negate_all(&[]).unwrap().is_empty());
    assert!(key.ciphertexts(&[]).unwrap().is_empty());
}

#[test]
fn no_two_encryptions_of_a_number_are_equal() {
    let mut seen = std::collections::HashSet::new();
    assert!((0..32).all(|_| seen.insert(encrypt(fixture(), 5).to_bytes())));
}

#[test]
fn bytes_that_are_no_ciphertext() {
    let (f, key) = (fixture(), &fixture().key);
    let square = key.modulus() * key.modulus();
    let width = key.size().ciphertext_bytes();
    let bytes = |number: &BigUint| {
        let mut bytes = number.to_bytes_le();
        bytes.resize(width, 0);
        bytes
    };
    let out_of_range = Err(PaillierError::OutOfRange { what: "ciphertext" });
    let not_invertible = Err(PaillierError::NotInvertible { what: "ciphertext" });
    assert_eq!(key.ciphertext(&bytes(&square)), out_of_range);
    assert_eq!(key.ciphertext(&vec![0xff; width]), out_of_range);
    for number in [BigUint::ZERO, f.p.clone(), key.modulus().clone(), &f.p * 17u8, &square - &f.p] {
        assert_eq!(key.ciphertext(&bytes(&number)), not_invertible);
        assert_eq!(key.ciphertext_from_biguint(&number), not_invertible);
        // One bad one among good ones.
        let mut list = encrypt(f, 1).to_bytes();
        list.extend(bytes(&number));
        list.extend(encrypt(f, 2).to_bytes());
        assert_eq!(key.ciphertexts(&list), Err(PaillierError::NotInvertible { what: "ciphertext" }));
    }
    assert!(key.ciphertext(&bytes(&(&square - 1u8))).is_ok());
    assert_eq!(key.ciphertext_from_biguint(&(&square << 64u8)), out_of_range);
    for wrong in [0, 1, width - 1, width + 1, 2 * width] {
        assert!(matches!(key.ciphertext(&vec![1; wrong]), Err(PaillierError::Length { .. })), "{wrong}");
    }
    assert!(matches!(key.ciphertexts(&vec![1; width + 1]), Err(PaillierError::Length { .. })));
}

#[test]
fn nothing_of_another_key_is_accepted() {
    let other = Fixture::new(KeySize::Bits2048, 9);
    for stranger in [encrypt(&other, 1), encrypt(large_fixture(), 1)] {
        let (key, own) = (&fixture().key, encrypt(fixture(), 1));
        let refused = PaillierError::OtherKey;
        assert_eq!(key.add(&own, &stranger).unwrap_err(), refused);
        assert_eq!(key.add(&stranger, &own).unwrap_err(), refused);
        assert_eq!(key.negate(&stranger).unwrap_err(), refused);
        assert_eq!(key.multiply_vartime(&stranger, &2.into()).unwrap_err(), refused);
        assert_eq!(key.power(&stranger, &Secret::new(vec![1]), 1).unwrap_err(), refused);
        assert_eq!(PreparedBases::new(key, &[own, stranger], 0).unwrap_err(), refused);
    }
    let plaintext = Plaintext::from_integer(&other.key, 1);
    assert_eq!(fixture().key.encrypt(&plaintext, &mut *entropy()).unwrap_err(), PaillierError::OtherKey);
    assert_eq!(fixture().key.add_plaintext(&encrypt(fixture(), 1), &plaintext).unwrap_err(), PaillierError::OtherKey);
}

#[test]
fn a_key_comes_back_from_its_bytes() {
    for fixture in [fixture(), large_fixture()] {
        let bytes = fixture.key.to_bytes();
        assert_eq!(bytes, borsh::to_vec(&fixture.key).unwrap());
        let key = PublicKey::from_bytes(&bytes).unwrap();
        assert_eq!(key, fixture.key);
        assert_eq!(key.digest(), fixture.key.digest());
        assert_eq!(PublicKey::try_from_slice(&bytes).unwrap(), fixture.key);
        // In a message, something follows.
        let mut longer = bytes.clone();
        longer.push(0);
        let mut reader = longer.as_slice();
        assert_eq!(PublicKey::deserialize(&mut reader).unwrap(), fixture.key);
        assert_eq!(reader, [0]);
        assert!(PublicKey::from_bytes(&longer).is_err());
        for cut in [0, 1, 2, bytes.len() / 2, bytes.len() - 1] {
            assert!(PublicKey::from_bytes(&bytes[..cut]).is_err());
            assert!(PublicKey::try_from_slice(&bytes[..cut]).is_err());
        }
    }
}

#[test]
fn keys_that_are_none() {
    let good = fixture().key.elements().clone();
    let n = good.modulus.clone();
    let refuse = |change: &dyn Fn(&mut KeyElements)| {
        let mut elements = good.clone();
        change(&mut elements);
        PublicKey::new(elements).unwrap_err()
    };
    assert!(matches!(refuse(&|e| e.size = KeySize::Bits3072), PaillierError::Key { .. }));
    assert!(matches!(refuse(&|e| e.modulus >>= 1u8), PaillierError::Key { .. }));
    assert!(matches!(refuse(&|e| e.modulus = BigUint::ZERO), PaillierError::Key { .. }));
    // Even: nothing of it may panic.
    refuse(&|e| e.modulus -= 1u8);
    assert!(matches!(refuse(&|e| e.base += &n), PaillierError::OutOfRange { .. }));
    assert!(matches!(refuse(&|e| e.base_power = &n * &n), PaillierError::OutOfRange { .. }));
    assert!(matches!(refuse(&|e| e.base_power += 1u8), PaillierError::Key { .. }));
    assert!(matches!(refuse(&|e| e.base = BigUint::ZERO), PaillierError::NotInvertible { .. }));
    assert!(matches!(refuse(&|e| e.verification_base = fixture().p.clone()), PaillierError::NotInvertible { .. }));
    assert!(matches!(refuse(&|e| e.verification_keys[1] = 2u8.into()), PaillierError::Key { .. }));
    let bytes = fixture().key.to_bytes();
    for at in (0..bytes.len()).step_by(97) {
        let mut changed = bytes.clone();
        changed[at] ^= 4;
        // v itself is any square: its 512 bytes may be changed.
        let v = 1 + 256 * 4..1 + 256 * 6;
        assert!(v.contains(&at) || PublicKey::from_bytes(&changed).is_err(), "byte {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(
        length in prop::sample::select(vec![0usize, 1, 17, 512, 768, 874, 1024, 3073, 4609]),
        start in prop::collection::vec(any::<u8>(), 4),
        fill in any::<u8>(),
    ) {
        let mut bytes = vec![fill; length];
        for (byte, start) in bytes.iter_mut().zip(start) {
            *byte = start;
        }
        for key in [&fixture().key, &large_fixture().key] {
            let _ = key.ciphertext(&bytes);
            let _ = key.ciphertexts(&bytes);
            prop_assert!(PartialDecryption::from_bytes(key, &bytes, 1).is_err());
        }
        for first in [bytes.first().copied().unwrap_or(0), 0, 1] {
            if let Some(size) = bytes.first_mut() {
                *size = first;
            }
            prop_assert!(PublicKey::from_bytes(&bytes).is_err());
            prop_assert!(PublicKey::try_from_slice(&bytes).is_err());
        }
    }
}

#[test]
fn secrets_are_redacted() {
    let key = &fixture().key;
    let share = ProbeShare::new(Secret::new(vec![77])).unwrap();
    assert_eq!(format!("{:?}", Plaintext::from_integer(key, 9)), "Plaintext(redacted)");
    assert_eq!(format!("{share:?}"), "ProbeShare(redacted)");
}

#[test]
fn opening_takes_one_plus_2mn_alone() {
    let key = &fixture().key;
    let n = key.modulus();
    let open = |m: &BigUint| {
        let residue = key.ciphertext_from_biguint(&((m * n * 2u8 + 1u8) % (n * n))).unwrap();
        key.open_square(residue.digits()).map(|m| m.expose_vartime())
    };
    for m in [BigUint::ZERO, 1u8.into(), n / 2u8, n / 2u8 + 1u8, n - 1u8] {
        assert_eq!(open(&m), Some(m));
    }
    for other in [0u64, 2, u64::MAX] {
        let mut digits = vec![0; key.group().limbs()];
        digits[0] = other;
        assert!(key.open_square(&digits).is_none());
    }
    assert!(key.open_square(&[1]).is_none());
    assert!(key.open_square(&[]).is_none());
}

#[test]
fn errors_explain_themselves_and_name_the_holder() {
    use veilmatch_domain::{Explain, Party, Suspect};
    let cheat = PaillierError::Decryption { party: Party::K1, parts: Parts::Both };
    assert_eq!(cheat.suspect(), Some(Suspect::Holder(Party::K1)));
    assert_eq!(cheat.to_string(), "the partial decryption of both parts by K1 is wrong");
    assert_eq!(PaillierError::OtherKey.suspect(), None);
    let all = [
        cheat,
        PaillierError::Length { what: "x", found: 1, expected: 2 },
        PaillierError::OutOfRange { what: "x" },
        PaillierError::NotInvertible { what: "x" },
        PaillierError::Key { why: "x" },
        PaillierError::Malformed { what: "x" },
        PaillierError::OtherKey,
        PaillierError::Count { what: "x", found: 1, expected: 2 },
        PaillierError::NotItsPart { party: Party::K0, parts: Parts::Both },
    ];
    let codes: std::collections::HashSet<_> = all.iter().map(Explain::code).collect();
    assert_eq!(codes.len(), all.len());
    assert!(all.iter().all(|e| !e.advice().is_empty()));
}
