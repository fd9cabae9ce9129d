//! Threshold Paillier at both key sizes, on the fixed test keys; the arithmetic below it beside num-bigint. All cores but where "one
//! thread" is said.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use num_bigint::BigUint;
use veilmatch_domain::{Part, Party};
use veilmatch_kernels::montgomery::{Arithmetic, Modular, Montgomery, SquaredModulus, limbs};
use veilmatch_paillier::{
    Ciphertext, KeySize, KnowledgeProof, Packing, Parts, Plaintext, PreparedBases, PublicKey, evaluate_vartime,
    multi_exponentiation_vartime, split_probe,
};
use veilmatch_secret::{Entropy, Stream};
use veilmatch_tests::rng;
use veilmatch_threshold::{KeyShare, combine, test_keys};

const DIMENSION: usize = 512;
/// Ciphertexts of a batch that is decrypted: 31 or 46 scores each.
const BATCH: usize = 32;
const CONTEXT: &[u8] = b"bench";

fn main() {
    let mut criterion = Criterion::default().configure_from_args().sample_size(10);
    let mut entropy = rng(1);
    for size in KeySize::ALL {
        arithmetic(&mut criterion, size);
        let dealt = test_keys::deal(size, &mut entropy).unwrap();
        ciphertexts(&mut criterion, &dealt.key, &mut entropy);
        multi_exponentiation(&mut criterion, &dealt.key, &mut entropy);
        decryption(&mut criterion, &dealt.key, &dealt.shares, &mut entropy);
    }
    criterion.final_summary();
}

fn random(count: usize, seed: u8) -> Vec<u64> {
    let mut stream = Stream::public([seed; 32]);
    (0..count).map(|_| stream.next_u64()).collect()
}

/// Modulo n², and a power with an exponent as long as n.
fn arithmetic(criterion: &mut Criterion, size: KeySize) {
    let mut group = criterion.benchmark_group(format!("modulo N², N of {} bits, one thread", size.bits()));
    let mut root = random(size.limbs(), 1);
    root[0] |= 1;
    *root.last_mut().unwrap() |= 1 << 63;
    let square = limbs::product(&root, &root);
    let mut a = random(square.len(), 2);
    *a.last_mut().unwrap() >>= 2;
    let exponent = random(size.limbs(), 3);
    for arithmetic in Arithmetic::available() {
        let plain = Montgomery::with(arithmetic, &square).unwrap();
        let digits = SquaredModulus::with(arithmetic, &root).unwrap();
        for (name, modulus) in [("Montgomery", &plain as &dyn Modular), ("digits to the base N", &digits)] {
            let mut work = modulus.workspace();
            let mut x = a.clone();
            modulus.enter(&mut work, &mut x);
            let y = x.clone();
            let name = format!("{name}, {}", arithmetic.name());
            group.bench_function(format!("product, {name}"), |b| {
                b.iter(|| modulus.multiply_assign(&mut work, &mut x, &y))
            });
            group.bench_function(format!("square, {name}"), |b| b.iter(|| modulus.square_assign(&mut work, &mut x)));
            group.bench_function(format!("power, {name}"), |b| {
                b.iter(|| modulus.power(&mut work, &y, &exponent, size.bits()));
            });
        }
    }
    let big = |digits: &[u64]| BigUint::from_bytes_le(&limbs::to_bytes(digits));
    let (n, x, e) = (big(&square), big(&a), big(&exponent));
    group.bench_function("product, num-bigint", |b| b.iter(|| black_box(&x) * &x % &n));
    group.bench_function("power, num-bigint, variable time", |b| b.iter(|| black_box(&x).modpow(&e, &n)));
    group.finish();
}

fn ciphertexts(criterion: &mut Criterion, key: &PublicKey, entropy: &mut dyn Entropy) {
    let mut group = criterion.benchmark_group(format!("paillier {}, d = {DIMENSION}", key.size().bits()));
    let number = Plaintext::from_integer(key, -1000);
    let one = key.encrypt(&number, entropy).unwrap();
    group.bench_function("encrypt one, one thread", |b| b.iter(|| key.encrypt(&number, entropy).unwrap()));
    group.bench_function("add, one thread", |b| b.iter(|| key.add(&one, &one).unwrap()));
    group.bench_function("re-randomise, one thread", |b| b.iter(|| key.rerandomise(&one, entropy).unwrap()));
    let packing = Packing::new(key.size());
    let last = packing.slots() - 1;
    group.bench_function("place a coordinate in the last slot, one thread", |b| {
        b.iter(|| packing.place(key, &one, &one, last).unwrap());
    });
    let numbers: Vec<i32> = (0..DIMENSION as i32).map(|i| i * 8 - 2048).collect();
    group.bench_function("encrypt a template", |b| b.iter(|| key.encrypt_integers(&numbers, entropy)));
    let encrypted = key.encrypt_integers(&numbers, entropy);
    let bytes: Vec<u8> = encrypted.ciphertexts.iter().flat_map(Ciphertext::to_bytes).collect();
    group.bench_function("read and validate a template, one thread", |b| b.iter(|| key.ciphertexts(&bytes).unwrap()));
    group.bench_function("negate a template, one thread", |b| {
        b.iter(|| key.negate_all(&encrypted.ciphertexts).unwrap())
    });
    group.bench_function("prove knowledge of a template, one thread", |b| {
        b.iter(|| KnowledgeProof::prove(key, &encrypted, CONTEXT, entropy).unwrap());
    });
    let proof = KnowledgeProof::prove(key, &encrypted, CONTEXT, entropy).unwrap();
    group.bench_function("check that proof, one thread", |b| {
        b.iter(|| proof.verify(key, &encrypted.ciphertexts, CONTEXT).unwrap());
    });
    group.finish();
}

fn multi_exponentiation(criterion: &mut Criterion, key: &PublicKey, entropy: &mut dyn Entropy) {
    let name = format!("paillier {}: one packed group, d = {DIMENSION}, exponents of 103 bits", key.size().bits());
    let mut group = criterion.benchmark_group(name);
    let slots = Packing::new(key.size()).slots();
    group.throughput(Throughput::Elements(slots as u64));
    let numbers: Vec<i32> = (0..DIMENSION as i32).map(|i| i * 8 - 2048).collect();
    let columns = key.encrypt_integers(&numbers, entropy).ciphertexts;
    let [share, _] = split_probe(&numbers, entropy).unwrap();
    group.bench_function("unprepared, one thread", |b| {
        b.iter(|| multi_exponentiation_vartime(key, &columns, share.expose()).unwrap());
    });
    let level = 2 * key.size().ciphertext_bytes() * DIMENSION;
    for levels in [1, 2, 4, 8] {
        let prepared = PreparedBases::new(key, &columns, levels * level).unwrap();
        let (bytes, cost) = (prepared.bytes() / slots, prepared.cost());
        group.bench_function(format!("prepared, {bytes} bytes per template, {cost} products, one thread"), |b| {
            b.iter(|| evaluate_vartime(&[&prepared], &share, entropy).unwrap());
        });
    }
    let prepared = PreparedBases::new(key, &columns, 0).unwrap();
    let eight = [&prepared; 8];
    group.throughput(Throughput::Elements(8 * slots as u64));
    group.bench_function("prepared, eight groups", |b| b.iter(|| evaluate_vartime(&eight, &share, entropy).unwrap()));
    group.finish();
}

fn decryption(criterion: &mut Criterion, key: &PublicKey, shares: &[KeyShare; 3], entropy: &mut dyn Entropy) {
    let mut group = criterion.benchmark_group(format!("paillier {}: {BATCH} packed ciphertexts", key.size().bits()));
    group.throughput(Throughput::Elements(BATCH as u64));
    let batch = key.encrypt_integers(&[7; BATCH], entropy).ciphertexts;
    let [k0, _, k2] = shares;
    let mut contribute =
        |share: &KeyShare, parts, batch: &[Ciphertext]| share.partial_decrypt(parts, batch, CONTEXT, entropy).unwrap();
    group.bench_function("contribute with proof", |b| b.iter(|| contribute(k0, Parts::Both, &batch)));
    group.bench_function("contribute one with proof", |b| b.iter(|| contribute(k0, Parts::Both, &batch[..1])));
    assert_eq!(k2.party(), Party::K2);
    let contributions = [contribute(k0, Parts::Both, &batch), contribute(k2, Parts::One(Part::ALL[2]), &batch)];
    group.bench_function("check a contribution, one thread", |b| {
        b.iter(|| contributions[0].verify(key, &batch, CONTEXT).unwrap());
    });
    group.bench_function("combine", |b| b.iter(|| combine(key, &batch, &contributions, CONTEXT).unwrap()));
    group.finish();
}
