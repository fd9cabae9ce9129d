//! Sealing at the client and opening at one holder, d = 512.

use std::hint::black_box;

use criterion::Criterion;
use veilmatch_domain::{ClientId, CollectionId, Dimension, Party, Purpose, TemplateVersion, Timestamp};
use veilmatch_holder::HolderSecretKey;
use veilmatch_holder::unseal::unseal;
use veilmatch_sealed::{Associated, ClientSigningKey, SealedTemplate, seal};
use veilmatch_tests::{random_unit, rng, subject};

const DIMENSION: usize = 512;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut entropy = rng(1);
    let signer = ClientSigningKey::random(&mut entropy);
    let secrets = [(); 3].map(|()| HolderSecretKey::random(&mut entropy));
    let keys = secrets.each_ref().map(|secret| secret.public_key().clone());
    let embedding = random_unit(DIMENSION, &mut entropy);
    let associated = Associated {
        client: ClientId::new("gate").unwrap(),
        collection: CollectionId::new("staff").unwrap(),
        purpose: Purpose::Enrol { subject: subject(1) },
        dimension: Dimension::new(DIMENSION).unwrap(),
        template_version: TemplateVersion(1),
        nonce: [1; 16],
        expires: Timestamp(1_900_000_000),
    };
    let mut sealed = || seal(&embedding, associated.clone(), &keys, &signer, &mut entropy).unwrap().0;
    let template = sealed();
    let bytes = template.to_bytes();

    let mut group = criterion.benchmark_group("sealed, d = 512");
    group.bench_function("seal", |bencher| bencher.iter(&mut sealed));
    group.bench_function("read and check the signature", |bencher| {
        let key = signer.verifying_key();
        bencher.iter(|| SealedTemplate::from_bytes(black_box(&bytes)).unwrap().verify(&key).unwrap());
    });
    let [own, ..] = &secrets;
    group.bench_function("unseal at one holder", |bencher| {
        bencher.iter(|| unseal(Party::K0, own, &keys, black_box(&template)).unwrap());
    });
    group.finish();
    criterion.final_summary();
}
