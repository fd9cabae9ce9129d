use super::*;
use crate::KeySize;
use crate::fixtures::{Fixture, entropy, fixture, large_fixture};

const CONTEXT: &[u8] = b"client, subject, collection, nonce";

fn proven(fixture: &Fixture, numbers: &[i32]) -> (EncryptedIntegers, KnowledgeProof) {
    let encrypted = fixture.key.encrypt_integers(numbers, &mut *entropy());
    let proof = KnowledgeProof::prove(&fixture.key, &encrypted, CONTEXT, &mut *entropy()).unwrap();
    (encrypted, proof)
}

#[test]
fn honest_proofs_hold_at_the_extremes_too() {
    for (fixture, numbers) in [
        (fixture(), vec![0]),
        (fixture(), vec![i32::MIN; 3]),
        (fixture(), vec![i32::MAX; 3]),
        (fixture(), (-20..20).map(|i| i * 100).collect()),
        (large_fixture(), vec![i32::MIN, 5, i32::MAX, -1]),
    ] {
        let (encrypted, proof) = proven(fixture, &numbers);
        proof.verify(&fixture.key, &encrypted.ciphertexts, CONTEXT).unwrap();
        let bytes = proof.to_bytes();
        assert_eq!(bytes.len(), KnowledgeProof::bytes(&fixture.key));
        assert_eq!(KnowledgeProof::from_bytes(&fixture.key, &bytes).unwrap(), proof);
    }
}

#[test]
fn the_most_ciphertexts_that_one_proof_covers() {
    let (f, mut numbers) = (fixture(), vec![i32::MIN; MAX_PROVEN]);
    let (encrypted, proof) = proven(f, &numbers);
    proof.verify(&f.key, &encrypted.ciphertexts, CONTEXT).unwrap();
    numbers.push(0);
    let too_many = f.key.encrypt_integers(&numbers, &mut *entropy());
    let refused = KnowledgeProof::prove(&f.key, &too_many, CONTEXT, &mut *entropy());
    assert!(matches!(refused, Err(PaillierError::Count { .. })));
    assert!(matches!(proof.verify(&f.key, &too_many.ciphertexts, CONTEXT), Err(PaillierError::Count { .. })));
}

#[test]
fn a_proof_holds_for_its_context_key_and_ciphertexts_alone() {
    let f = fixture();
    let (encrypted, proof) = proven(f, &[10, -20, 30]);
    let ciphertexts = &encrypted.ciphertexts;
    let refused = Err(PaillierError::Knowledge);
    assert_eq!(proof.verify(&f.key, ciphertexts, b"another client"), refused);
    let swapped = [ciphertexts[1].clone(), ciphertexts[0].clone(), ciphertexts[2].clone()];
    assert_eq!(proof.verify(&f.key, &swapped, CONTEXT), refused);
    assert_eq!(proof.verify(&f.key, &ciphertexts[..2], CONTEXT), refused);
    for j in 0..3 {
        // The same plaintext under other randomness, and another plaintext.
        let mut other = ciphertexts.clone();
        other[j] = f.key.rerandomise(&ciphertexts[j], &mut *entropy()).unwrap();
        assert_eq!(proof.verify(&f.key, &other, CONTEXT), refused);
        other[j] = f.key.add_constant_vartime(&ciphertexts[j], &1.into()).unwrap();
        assert_eq!(proof.verify(&f.key, &other, CONTEXT), refused);
    }
    let other = Fixture::new(KeySize::Bits2048, 9);
    assert_eq!(proof.verify(&other.key, ciphertexts, CONTEXT), Err(PaillierError::OtherKey));
    assert!(matches!(proof.verify(&f.key, &[], CONTEXT), Err(PaillierError::Count { .. })));
}

#[test]
fn somebody_elses_ciphertext_cannot_be_proven() {
    // The witness of one list with the ciphertexts of another: what a client that replays ciphertexts has.
    let f = fixture();
    let stolen = f.key.encrypt_integers(&[1, 2], &mut *entropy());
    let own = f.key.encrypt_integers(&[1, 2], &mut *entropy());
    let mixed = EncryptedIntegers { ciphertexts: stolen.ciphertexts, witness: own.witness };
    let proof = KnowledgeProof::prove(&f.key, &mixed, CONTEXT, &mut *entropy()).unwrap();
    assert_eq!(proof.verify(&f.key, &mixed.ciphertexts, CONTEXT), Err(PaillierError::Knowledge));
}

#[test]
fn damaged_bytes_are_refused() {
    let f = fixture();
    let (encrypted, proof) = proven(f, &[10, -20]);
    let bytes = proof.to_bytes();
    for at in (0..bytes.len()).step_by(41) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let verdict = KnowledgeProof::from_bytes(&f.key, &changed)
            .and_then(|proof| proof.verify(&f.key, &encrypted.ciphertexts, CONTEXT));
        assert!(verdict.is_err(), "byte {at}");
    }
    for cut in [0, 1, 512, 552, bytes.len() - 1] {
        assert!(matches!(KnowledgeProof::from_bytes(&f.key, &bytes[..cut]), Err(PaillierError::Length { .. })));
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(matches!(KnowledgeProof::from_bytes(&f.key, &longer), Err(PaillierError::Length { .. })));
}

#[test]
fn two_proofs_of_the_same_share_nothing() {
    let f = fixture();
    let encrypted = f.key.encrypt_integers(&[1], &mut *entropy());
    let prove = || KnowledgeProof::prove(&f.key, &encrypted, CONTEXT, &mut *entropy()).unwrap();
    let (a, b) = (prove(), prove());
    assert_ne!(a.commitment, b.commitment);
    assert_ne!(a.number, b.number);
    assert_ne!(a.randomness, b.randomness);
}
