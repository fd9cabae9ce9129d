//! Dealing, joint decryption by every pair, holders that cheat, shares on disk, and the whole way of a query.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use num_bigint::BigInt;
use veilmatch_domain::{Dimension, Part, Party};
use veilmatch_kernels::montgomery::{Modular, limbs};
use veilmatch_paillier::{
    Ciphertext, DecryptionStatement, KeySize, PaillierError, PartialDecryption, Parts, Plaintext, PreparedBases,
    ProbeShare, PublicKey, RESPONSE_MARGIN_BITS, Slots, TORUS_BITS, centred, evaluate_vartime, random_limbs,
};
use veilmatch_secret::{Entropy, Secret, os_entropy};

use crate::share::share_limbs;
use crate::{Dealer, Dealt, KeyShare, SHARE_MASK_BITS, ThresholdError, combine, share_bits, test_keys};

const CONTEXT: &[u8] = b"session 1";

fn entropy() -> Box<dyn Entropy> {
    os_entropy()
}

fn dealt() -> &'static Dealt {
    static DEALT: OnceLock<Dealt> = OnceLock::new();
    DEALT.get_or_init(|| test_keys::deal(KeySize::Bits2048, &mut *entropy()).unwrap())
}

fn share(party: Party) -> &'static KeyShare {
    &dealt().shares[party.index()]
}

fn encrypt(key: &PublicKey, numbers: &[i32]) -> Vec<Ciphertext> {
    let encrypt = |&n: &i32| key.encrypt(&Plaintext::from_integer(key, n.into()), &mut *entropy()).unwrap();
    numbers.iter().map(encrypt).collect()
}

/// The value of a ciphertext moved by a number.
fn plus(key: &PublicKey, value: &Ciphertext, number: i64) -> Ciphertext {
    key.add_plaintext(value, &Plaintext::from_integer(key, number)).unwrap()
}

fn contribute(share: &KeyShare, parts: Parts, ciphertexts: &[Ciphertext]) -> PartialDecryption {
    share.partial_decrypt(parts, ciphertexts, CONTEXT, &mut *entropy()).unwrap()
}

fn numbers(key: &PublicKey, plaintexts: &[Plaintext]) -> Vec<BigInt> {
    plaintexts.iter().map(|p| p.expose_signed_vartime(key)).collect()
}

#[test]
fn every_pair_decrypts_and_so_do_all_three() {
    for size in KeySize::ALL {
        let large;
        let Dealt { key, shares } = if size == KeySize::Bits2048 {
            dealt()
        } else {
            large = test_keys::deal(size, &mut *entropy()).unwrap();
            &large
        };
        let values = [0, 1, -1, i32::MAX, i32::MIN];
        let ciphertexts = encrypt(key, &values);
        let expected: Vec<BigInt> = values.map(BigInt::from).to_vec();
        for holder in Party::ALL {
            let both = contribute(&shares[holder.index()], Parts::Both, &ciphertexts);
            let missing = holder.missing_part();
            for helper in holder.peers() {
                let one = contribute(&shares[helper.index()], Parts::One(missing), &ciphertexts);
                let opened = combine(key, &ciphertexts, &[both.clone(), one], CONTEXT).unwrap();
                assert_eq!(numbers(key, &opened), expected, "{holder} with {helper}");
            }
        }
        let ones: Vec<_> =
            Party::ALL.map(|p| contribute(&shares[p.index()], Parts::One(p.parts()[0]), &ciphertexts)).to_vec();
        assert_eq!(numbers(key, &combine(key, &ciphertexts, &ones, CONTEXT).unwrap()), expected);
    }
}

#[test]
fn one_holder_alone_opens_nothing() {
    let key = &dealt().key;
    let ciphertexts = encrypt(key, &[5]);
    for holder in Party::ALL {
        let both = contribute(share(holder), Parts::Both, &ciphertexts);
        assert_eq!(
            combine(key, &ciphertexts, std::slice::from_ref(&both), CONTEXT).unwrap_err(),
            ThresholdError::MissingPart(holder.missing_part())
        );
        let own = contribute(share(holder), Parts::One(holder.parts()[1]), &ciphertexts);
        assert_eq!(
            combine(key, &ciphertexts, &[both.clone(), own], CONTEXT).unwrap_err(),
            ThresholdError::RepeatedPart(holder.parts()[1])
        );
        // Nor does the value that it knows contain the plaintext: it is no power of 1+N.
        let mut product = both.values[0].to_inner(key, &mut key.group().workspace());
        let mut work = key.group().workspace();
        key.group().square_assign(&mut work, &mut product);
        key.group().leave(&mut work, &mut product);
        assert!(key.open_square(&product).is_none());
    }
    assert_eq!(combine(key, &ciphertexts, &[], CONTEXT).unwrap_err(), ThresholdError::MissingPart(Part::ALL[0]));
}

#[test]
fn a_holder_does_not_contribute_what_it_does_not_know() {
    let ciphertexts = encrypt(&dealt().key, &[5]);
    for holder in Party::ALL {
        let parts = Parts::One(holder.missing_part());
        let refused = PaillierError::NotItsPart { party: holder, parts };
        let found = share(holder).partial_decrypt(parts, &ciphertexts, CONTEXT, &mut *entropy());
        assert_eq!(found.unwrap_err(), ThresholdError::Paillier(refused.clone()));
        // Nor does anybody believe that it does.
        let mut lie = contribute(share(holder), Parts::Both, &ciphertexts);
        lie.parts = parts;
        assert_eq!(lie.verify(&dealt().key, &ciphertexts, CONTEXT), Err(refused.clone()));
        let others = [holder.next(), holder.previous()].map(|p| contribute(share(p), Parts::Both, &ciphertexts));
        let found = combine(&dealt().key, &ciphertexts, &[lie, others[0].clone()], CONTEXT);
        assert_eq!(found.unwrap_err(), ThresholdError::Paillier(refused));
    }
}

#[test]
fn a_cheating_holder_is_named() {
    let Dealt { key, .. } = dealt();
    let ciphertexts = encrypt(key, &[5, 6, 7]);
    let honest = contribute(share(Party::K0), Parts::Both, &ciphertexts);
    let good = contribute(share(Party::K2), Parts::One(Part::ALL[2]), &ciphertexts);
    let named = |cheating: &PartialDecryption| {
        let expected = PaillierError::Decryption { party: Party::K2, parts: Parts::One(Part::ALL[2]) };
        assert_eq!(cheating.verify(key, &ciphertexts, CONTEXT), Err(expected.clone()));
        let found = combine(key, &ciphertexts, &[honest.clone(), cheating.clone()], CONTEXT);
        assert_eq!(found.unwrap_err(), ThresholdError::Paillier(expected));
    };
    // A value is another one, values change places, all are for another plaintext.
    for k in 0..3 {
        let mut changed = good.clone();
        changed.values[k] = plus(key, &good.values[k], 1);
        named(&changed);
    }
    let mut swapped = good.clone();
    swapped.values.swap(0, 2);
    named(&swapped);
    let mut replayed = contribute(share(Party::K2), Parts::One(Part::ALL[2]), &encrypt(key, &[5, 6, 7]));
    named(&replayed);
    replayed.values.clone_from(&good.values);
    named(&replayed);
    // A share that is off by one, with a proof made from it.
    let mut dealt_again = KeyShare::from_bytes(share(Party::K2).to_bytes().expose()).unwrap();
    dealt_again.corrupt(0);
    named(&contribute(&dealt_again, Parts::One(Part::ALL[2]), &ciphertexts));
    // The proof's own numbers.
    let mut tampered = good.clone();
    tampered.challenge[0] ^= 1;
    named(&tampered);
    let mut tampered = good.clone();
    tampered.response[0] ^= 1;
    named(&tampered);
    let mut tampered = good.clone();
    tampered.response.pop();
    named(&tampered);
    // Of another session.
    let other = share(Party::K2).partial_decrypt(good.parts, &ciphertexts, b"session 2", &mut *entropy()).unwrap();
    named(&other);
    // Sent in another's name.
    let mut borrowed = good.clone();
    borrowed.party = Party::K1;
    assert_eq!(
        borrowed.verify(key, &ciphertexts, CONTEXT),
        Err(PaillierError::Decryption { party: Party::K1, parts: good.parts })
    );
    good.verify(key, &ciphertexts, CONTEXT).unwrap();
}

/// A contribution whose values were changed before the proof was made, by a holder that knows its share.
fn prove_about(
    share: &KeyShare,
    which: usize,
    ciphertexts: &[Ciphertext],
    values: Vec<Ciphertext>,
) -> PartialDecryption {
    let (key, parts) = (share.key(), Parts::One(share.party().parts()[which]));
    let statement = DecryptionStatement::new(key, (share.party(), parts), ciphertexts, &values, CONTEXT).unwrap();
    let size = 2 * key.size().bits() + RESPONSE_MARGIN_BITS;
    let mut response = random_limbs(size, &mut *entropy());
    response.expose_mut().resize(DecryptionStatement::response_limbs(key), 0);
    let commit = |base: &[u64]| key.group().power(&mut key.group().workspace(), base, response.expose(), size);
    let commitments = [statement.verification_power(response.expose()), commit(statement.base())];
    let challenge = statement.challenge(&commitments[0], &commitments[1]);
    limbs::add_assign(response.expose_mut(), &limbs::product(share.magnitude(which).expose(), &challenge));
    PartialDecryption { party: share.party(), parts, values, challenge, response: response.expose().clone() }
}

#[test]
fn a_sign_is_all_that_a_holder_can_change_and_it_changes_nothing() {
    let Dealt { key, .. } = dealt();
    let ciphertexts = encrypt(key, &[5, -6]);
    let honest = contribute(share(Party::K2), Parts::Both, &ciphertexts);
    let good = contribute(share(Party::K0), Parts::One(Part::ALL[1]), &ciphertexts).values;
    let square = key.modulus() * key.modulus();
    let minus = |value: &Ciphertext| key.ciphertext_from_biguint(&(&square - value.to_biguint())).unwrap();
    let negated = prove_about(share(Party::K0), 1, &ciphertexts, vec![minus(&good[0]), good[1].clone()]);
    let opened = combine(key, &ciphertexts, &[honest, negated], CONTEXT).unwrap();
    assert_eq!(numbers(key, &opened), [5, -6].map(BigInt::from));
    // Any other change is found even if the proof is made for it.
    let shifted = plus(key, &good[0], 1);
    let cheating = prove_about(share(Party::K0), 1, &ciphertexts, vec![shifted.clone(), good[1].clone()]);
    assert!(matches!(cheating.verify(key, &ciphertexts, CONTEXT), Err(PaillierError::Decryption { .. })));
    // Two changes that would cancel each other without random weights.
    let back = plus(key, &good[1], -1);
    let cheating = prove_about(share(Party::K0), 1, &ciphertexts, vec![shifted, back]);
    assert!(matches!(cheating.verify(key, &ciphertexts, CONTEXT), Err(PaillierError::Decryption { .. })));
}

#[test]
fn batches_that_do_not_fit() {
    let Dealt { key, .. } = dealt();
    let ciphertexts = encrypt(key, &[5, 6]);
    let one = contribute(share(Party::K0), Parts::Both, &ciphertexts[..1]);
    assert!(matches!(one.verify(key, &ciphertexts, CONTEXT), Err(PaillierError::Count { .. })));
    let empty = share(Party::K0).partial_decrypt(Parts::Both, &[], CONTEXT, &mut *entropy());
    assert!(matches!(empty, Err(ThresholdError::Paillier(PaillierError::Count { .. }))));
    let other = test_keys::deal(KeySize::Bits2048, &mut *entropy()).unwrap();
    let stranger = encrypt(&other.key, &[5]);
    for parts in [Parts::Both, Parts::One(Part::ALL[1])] {
        let refused = share(Party::K1).partial_decrypt(parts, &stranger, CONTEXT, &mut *entropy());
        assert_eq!(refused.unwrap_err(), ThresholdError::Paillier(PaillierError::OtherKey));
    }
    let theirs = contribute(&other.shares[0], Parts::Both, &stranger);
    assert_eq!(theirs.verify(key, &ciphertexts[..1], CONTEXT), Err(PaillierError::OtherKey));
}

#[test]
fn a_contribution_comes_back_from_its_bytes() {
    let Dealt { key, .. } = dealt();
    let ciphertexts = encrypt(key, &[5, 6]);
    for parts in [Parts::Both, Parts::One(Part::ALL[1])] {
        let contribution = contribute(share(Party::K1), parts, &ciphertexts);
        let bytes = contribution.to_bytes();
        assert_eq!(PartialDecryption::from_bytes(key, &bytes, 2).unwrap(), contribution);
        for (cut, count) in [(0, 2), (1, 2), (bytes.len() - 1, 2), (bytes.len(), 1), (bytes.len(), 3), (18, usize::MAX)]
        {
            let read = PartialDecryption::from_bytes(key, &bytes[..cut], count);
            assert!(matches!(read, Err(PaillierError::Length { .. })), "{cut}");
        }
        for (at, value) in [(0, 3), (0, 0xff), (1, 4), (1, 0)] {
            let mut changed = bytes.clone();
            changed[at] = value;
            assert!(PartialDecryption::from_bytes(key, &changed, 2).is_err(), "byte {at} = {value}");
        }
        let mut zero = bytes.clone();
        let at = bytes.len() - key.size().ciphertext_bytes();
        zero[at..].fill(0);
        assert_eq!(
            PartialDecryption::from_bytes(key, &zero, 2),
            Err(PaillierError::NotInvertible { what: "ciphertext" })
        );
        zero[at..].fill(0xff);
        assert_eq!(PartialDecryption::from_bytes(key, &zero, 2), Err(PaillierError::OutOfRange { what: "ciphertext" }));
    }
}

#[test]
fn a_share_comes_back_from_its_bytes_and_damage_is_found() {
    for holder in Party::ALL {
        let bytes = share(holder).to_bytes();
        let bytes = bytes.expose();
        let read = KeyShare::from_bytes(bytes).unwrap();
        assert_eq!(read.party(), holder);
        assert_eq!(read.to_bytes().expose(), bytes);
        let ciphertexts = encrypt(read.key(), &[9]);
        let contributions = [
            contribute(&read, Parts::Both, &ciphertexts),
            contribute(share(holder.next()), Parts::One(holder.missing_part()), &ciphertexts),
        ];
        assert_eq!(
            numbers(read.key(), &combine(read.key(), &ciphertexts, &contributions, CONTEXT).unwrap()),
            [9.into()]
        );
    }
    let bytes = share(Party::K1).to_bytes();
    let bytes = bytes.expose();
    let width = 8 * share_limbs(KeySize::Bits2048);
    for (at, part) in [(bytes.len() - 2 * width, 1), (bytes.len() - width, 2)] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let expected = ThresholdError::WrongPart { party: Party::K1, part: Part::ALL[part] };
        assert_eq!(KeyShare::from_bytes(&changed).unwrap_err(), expected);
        changed[at + width - 1] = 1;
        assert_eq!(KeyShare::from_bytes(&changed).unwrap_err(), ThresholdError::Malformed { what: "part" });
    }
    for cut in [0, 1, 2, width, 2 * width, bytes.len() - 1] {
        assert!(KeyShare::from_bytes(&bytes[..cut]).is_err(), "{cut}");
    }
    for (at, value) in [(0, 3), (0, 0), (1, 1), (1, 2)] {
        let mut changed = bytes.clone();
        changed[at] = value;
        assert!(KeyShare::from_bytes(&changed).is_err(), "byte {at} = {value}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(KeyShare::from_bytes(&longer).is_err());
}

#[test]
fn shares_are_longer_than_n_squared_by_the_mask() {
    // Pitfall: a share of 128 bits is found in 2^64 steps. Ours have 80 bits and more above |N²|, all of them.
    const { assert!(SHARE_MASK_BITS >= 80) };
    for size in KeySize::ALL {
        let fresh = test_keys::deal(size, &mut *entropy()).unwrap();
        for share in &fresh.shares {
            for which in 0..2 {
                let magnitude = share.magnitude(which).expose();
                let bits = magnitude
                    .iter()
                    .rposition(|&l| l != 0)
                    .map_or(0, |i| 64 * i + 64 - magnitude[i].leading_zeros() as usize);
                assert!(bits <= share_bits(size));
                assert!(bits > 2 * size.bits() + SHARE_MASK_BITS - 40, "{bits}");
            }
        }
    }
}

#[test]
fn two_dealings_of_the_same_primes_share_nothing_but_n() {
    let other = test_keys::deal(KeySize::Bits2048, &mut *entropy()).unwrap();
    let (a, b) = (dealt().key.elements(), other.key.elements());
    assert_eq!(a.modulus, b.modulus);
    assert!(
        a.base != b.base && a.verification_base != b.verification_base && a.verification_keys != b.verification_keys
    );
    for (one, two) in dealt().shares.iter().zip(&other.shares) {
        for which in 0..2 {
            assert_ne!(one.magnitude(which).expose(), two.magnitude(which).expose());
        }
    }
    // A share of one dealing does not fit the other, though N is the same.
    let mut mixed = other.key.to_bytes();
    mixed.insert(0, 0);
    let own = share(Party::K0).to_bytes();
    mixed.extend_from_slice(&own.expose()[mixed.len()..]);
    assert!(matches!(KeyShare::from_bytes(&mixed), Err(ThresholdError::WrongPart { .. })));
}

#[test]
fn primes_that_make_no_key() {
    let dealer = Dealer::new(KeySize::Bits2048);
    let prime = |low: u64, high: u64| {
        let mut limbs = vec![0; 16];
        (limbs[0], limbs[15]) = (low, high);
        Secret::new(limbs)
    };
    let deal = |p: &Secret<Vec<u64>>, q: &Secret<Vec<u64>>| dealer.deal_from(p, q, &mut *entropy()).unwrap_err();
    let large = prime(3, 3 << 62);
    assert_eq!(deal(&large, &large), ThresholdError::Unsuitable);
    // N too short, of another width, and even.
    assert_eq!(deal(&prime(3, 1), &prime(5, 1)), ThresholdError::Unsuitable);
    assert_eq!(deal(&large, &Secret::new(vec![3])), ThresholdError::Unsuitable);
    assert_eq!(deal(&large, &prime(4, 3 << 62)), ThresholdError::Unsuitable);
}

#[test]
fn a_ceremony_searches_its_primes_and_says_how_far_it_is() {
    let (calls, found) = (AtomicU64::new(0), AtomicU64::new(0));
    let progress = |p: crate::Progress| {
        calls.fetch_add(1, Ordering::Relaxed);
        found.fetch_add(p.found.into(), Ordering::Relaxed);
    };
    let Dealt { key, shares } = Dealer::new(KeySize::Bits2048).deal(&progress, &mut *entropy()).unwrap();
    assert_eq!(found.into_inner(), 2);
    assert!(calls.into_inner() >= 2);
    assert_ne!(key.modulus(), dealt().key.modulus());
    let ciphertexts = encrypt(&key, &[-77]);
    let contributions = [
        contribute(&shares[0], Parts::Both, &ciphertexts),
        contribute(&shares[1], Parts::One(Part::ALL[2]), &ciphertexts),
    ];
    assert_eq!(numbers(&key, &combine(&key, &ciphertexts, &contributions, CONTEXT).unwrap()), [(-77).into()]);
}

#[test]
fn secrets_are_redacted() {
    let text = format!("{:?} {:?}", share(Party::K0), dealt());
    assert!(text.starts_with("KeyShare(K0, PublicKey(2048 bits,") && text.contains("redacted"));
    let digits = share(Party::K0).magnitude(0).expose()[0];
    assert!(!text.contains(&format!("{digits}")) && !text.contains(&format!("{digits:x}")));
}

/// From residues of templates and of a probe to what the holders open: what the services do.
#[test]
fn a_whole_query() {
    let Dealt { key, .. } = dealt();
    let (dimension, people) = (16usize, 19usize);
    let slots = Slots::new(key.size(), Dimension::new(dimension).unwrap());
    let residue = |v: u32| v & ((1 << TORUS_BITS) - 1);
    let mut random = entropy();
    let mut numbers = |count: usize| -> Vec<u32> { (0..count).map(|_| residue(random.next_u32())).collect() };
    // Part by part, as the holders encrypt them.
    let parts: Vec<Vec<Vec<u32>>> = Party::ALL.map(|_| (0..people).map(|_| numbers(dimension)).collect()).to_vec();
    let columns: Vec<Ciphertext> = (0..dimension)
        .map(|j| {
            let encrypted = parts.iter().map(|part| {
                let column: Vec<i32> = part.iter().map(|template| centred(template[j])).collect();
                key.encrypt(&slots.pack(key, &column).unwrap(), &mut *entropy()).unwrap()
            });
            encrypted.reduce(|a, b| key.add(&a, &b).unwrap()).unwrap()
        })
        .collect();
    let group = PreparedBases::new(key, &columns, 0).unwrap();
    let shares = [numbers(dimension), numbers(dimension)];
    let evaluated = shares.each_ref().map(|share| {
        let share = ProbeShare::new(Secret::new(share.iter().copied().map(centred).collect())).unwrap();
        evaluate_vartime(&[&group], &share, &mut *entropy()).unwrap().remove(0)
    });
    let [a, b] = &evaluated;
    let mut score = key.add_plaintext(&key.add(a, b).unwrap(), &slots.offset(key).unwrap()).unwrap();
    let mut masks = Vec::new();
    for _ in Party::ALL {
        let fresh = slots.draw_masks(&mut *entropy());
        let encrypted = key.encrypt(&slots.masks(key, &fresh).unwrap(), &mut *entropy()).unwrap();
        score = key.add(&score, &encrypted).unwrap();
        masks.push(fresh);
    }
    let batch = [score];
    let contributions = [
        contribute(share(Party::K1), Parts::Both, &batch),
        contribute(share(Party::K0), Parts::One(Part::ALL[0]), &batch),
    ];
    let opened = combine(key, &batch, &contributions, CONTEXT).unwrap().remove(0);
    let opened = slots.open(&opened).unwrap();
    for t in 0..people {
        let masked = masks.iter().fold(opened.expose()[t], |rest, m| rest.wrapping_sub(m.expose()[t] as u32));
        let template = |j: usize| parts.iter().fold(0u32, |sum, part| sum.wrapping_add(part[t][j]));
        let probe = |j: usize| shares.iter().fold(0u32, |sum, share| sum.wrapping_add(share[j]));
        let score = (0..dimension).fold(0u32, |sum, j| sum.wrapping_add(template(j).wrapping_mul(probe(j))));
        assert_eq!(residue(masked), residue(score), "slot {t}");
    }
}

#[test]
fn a_lost_share_is_made_of_the_parts_of_the_two_others_and_of_nothing_else() {
    for lost in Party::ALL {
        let [own, next] = lost.parts();
        let (of_previous, of_next) =
            (share(lost.previous()).part(own).unwrap(), share(lost.next()).part(next).unwrap());
        let made = KeyShare::join(lost, of_previous.expose(), of_next.expose()).unwrap();
        assert_eq!(made.to_bytes().expose(), share(lost).to_bytes().expose());
        assert!(matches!(
            KeyShare::join(lost, of_next.expose(), of_previous.expose()),
            Err(ThresholdError::WrongPart { .. })
        ));
        assert!(share(lost.next()).part(own).is_err(), "a peer gives what it knows");
        let bytes = of_next.expose();
        for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            assert!(KeyShare::join(lost, of_previous.expose(), &bytes[..cut]).is_err());
            assert!(KeyShare::join(lost, &bytes[..cut], bytes).is_err());
        }
        let mut altered = bytes.clone();
        *altered.last_mut().unwrap() ^= 1;
        assert!(KeyShare::join(lost, of_previous.expose(), &altered).is_err());
    }
}
