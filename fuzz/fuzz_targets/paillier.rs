//! Bytes as what the scheme `paillier` decodes: a public key, a holder's share, ciphertexts, a contribution to a decryption. Refused, or read
//! and canonical; nothing that is read breaks the arithmetic behind it.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use veilmatch_domain::Party;
use veilmatch_paillier::{Ciphertext, KeySize, PartialDecryption, PublicKey};
use veilmatch_tests::rng;
use veilmatch_threshold::{Dealt, KeyShare, test_keys};

static DEALT: OnceLock<Dealt> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let dealt = DEALT.get_or_init(|| test_keys::deal(KeySize::Bits2048, &mut rng(1)).unwrap());
    let key = &dealt.key;
    let Some((&[kind, at_low, at_high], rest)) = data.split_first_chunk::<3>() else { return };
    // Into an honest spelling, so that the length is right now and then.
    let spliced = |mut honest: Vec<u8>| {
        let at = usize::from(u16::from_le_bytes([at_low, at_high])) % honest.len();
        honest.iter_mut().skip(at).zip(rest).for_each(|(byte, other)| *byte = *other);
        honest
    };
    match kind % 5 {
        0 => {
            let bytes = spliced(key.to_bytes());
            if let Ok(read) = PublicKey::from_bytes(&bytes) {
                assert_eq!(read.to_bytes(), bytes, "one key has one spelling");
            }
        }
        1 => {
            let share = dealt.shares.iter().find(|share| share.party() == Party::K1).unwrap();
            let bytes = spliced(share.to_bytes().expose().clone());
            if let Ok(read) = KeyShare::from_bytes(&bytes) {
                assert_eq!(*read.to_bytes().expose(), bytes, "one share has one spelling");
            }
        }
        2 => {
            let Ok(read) = key.ciphertexts(rest) else { return };
            assert_eq!(read.iter().flat_map(Ciphertext::to_bytes).collect::<Vec<_>>(), rest);
            if let [first, ..] = read.as_slice() {
                key.add(first, &key.negate(first).unwrap()).unwrap();
            }
        }
        3 => {
            let zero = veilmatch_paillier::Plaintext::from_integer(key, 0);
            let honest = key.encrypt(&zero, &mut rng(2)).unwrap().to_bytes();
            let bytes = spliced(honest);
            if let Ok(read) = key.ciphertext(&bytes) {
                assert_eq!(read.to_bytes(), bytes, "one ciphertext has one spelling");
            }
        }
        _ => {
            let Ok(read) = PartialDecryption::from_bytes(key, rest, usize::from(at_low % 3)) else { return };
            assert_eq!(read.to_bytes(), rest, "one contribution has one spelling");
        }
    }
});
