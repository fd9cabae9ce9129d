//! Threshold Paillier at both key sizes, on the fixed test keys; the arithmetic below it beside num-bigint. All cores but where "one
//! thread" is said.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use num_bigint::BigUint;
use veilmatch_domain::{Dimension, Part, Party};
use veilmatch_kernels::montgomery::{Arithmetic, Modular, Montgomery, SquaredModulus, limbs};
use veilmatch_paillier::{
    Ciphertext, KeySize, Parts, PreparedBases, ProbeShare, PublicKey, Slots, centred, evaluate_vartime,
};
use veilmatch_secret::{Entropy, Secret, Stream};
use veilmatch_tests::rng;
use veilmatch_threshold::{KeyShare, combine, test_keys};

const DIMENSION: usize = 512;
/// Ciphertexts of a batch that is decrypted: 19 or 29 scores each.
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

fn slots(key: &PublicKey) -> Slots {
    Slots::new(key.size(), Dimension::new(DIMENSION).unwrap())
}

/// A holder's part of a group.
fn encrypt(key: &PublicKey, count: usize, entropy: &mut dyn Entropy) -> Vec<Ciphertext> {
    let slots = slots(key);
    let column =
        |j: usize| -> Vec<i32> { (0..slots.count()).map(|t| centred((j * 7919 + t * 104_729) as u32)).collect() };
    (0..count).map(|j| key.encrypt(&slots.pack(key, &column(j)).unwrap(), entropy).unwrap()).collect()
}

fn ciphertexts(criterion: &mut Criterion, key: &PublicKey, entropy: &mut dyn Entropy) {
    let mut group = criterion.benchmark_group(format!("paillier {}, d = {DIMENSION}", key.size().bits()));
    let slots = slots(key);
    let packed = slots.pack(key, &vec![-1000; slots.count()]).unwrap();
    let one = key.encrypt(&packed, entropy).unwrap();
    group.bench_function("encrypt one, one thread", |b| b.iter(|| key.encrypt(&packed, entropy).unwrap()));
    group.bench_function("add, one thread", |b| b.iter(|| key.add(&one, &one).unwrap()));
    let masks = slots.draw_masks(entropy);
    group.bench_function("encrypt masks, one thread", |b| {
        b.iter(|| key.encrypt(&slots.masks(key, &masks).unwrap(), entropy).unwrap());
    });
    let bytes: Vec<u8> = encrypt(key, DIMENSION, entropy).iter().flat_map(Ciphertext::to_bytes).collect();
    group.bench_function("read and validate a group, one thread", |b| b.iter(|| key.ciphertexts(&bytes).unwrap()));
    group.finish();
}

fn multi_exponentiation(criterion: &mut Criterion, key: &PublicKey, entropy: &mut dyn Entropy) {
    let name = format!("paillier {}: one packed group, d = {DIMENSION}, exponents of 26 bits", key.size().bits());
    let mut group = criterion.benchmark_group(name);
    let slots = slots(key).count();
    group.throughput(Throughput::Elements(slots as u64));
    let columns = encrypt(key, DIMENSION, entropy);
    let residues = random(DIMENSION, 4).iter().map(|&r| centred(r as u32)).collect();
    let share = ProbeShare::new(Secret::new(residues)).unwrap();
    let level = PreparedBases::level_bytes(key, DIMENSION);
    for levels in [1, 2, 3] {
        group.bench_function(format!("prepare {levels} levels, one thread"), |b| {
            b.iter(|| PreparedBases::new(key, &columns, levels * level).unwrap());
        });
        let prepared = PreparedBases::new(key, &columns, levels * level).unwrap();
        let (bytes, cost) = (prepared.bytes() / slots, prepared.cost());
        group.bench_function(format!("prepared, {bytes} bytes per template, {cost} products, one thread"), |b| {
            b.iter(|| evaluate_vartime(&[&prepared], &share, entropy).unwrap());
        });
    }
    let prepared = PreparedBases::new(key, &columns, 3 * level).unwrap();
    let eight = [&prepared; 8];
    group.throughput(Throughput::Elements(8 * slots as u64));
    group.bench_function("prepared, eight groups", |b| b.iter(|| evaluate_vartime(&eight, &share, entropy).unwrap()));
    group.finish();
}

fn decryption(criterion: &mut Criterion, key: &PublicKey, shares: &[KeyShare; 3], entropy: &mut dyn Entropy) {
    let mut group = criterion.benchmark_group(format!("paillier {}: {BATCH} packed ciphertexts", key.size().bits()));
    group.throughput(Throughput::Elements(BATCH as u64));
    let batch = encrypt(key, BATCH, entropy);
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
