//! Recrypt of a probe, d = 512: from the matcher's request until all three holders have sent their parts of the probe's
//! bodies for the one block width that a gallery of one template uses. The three run one after the other, so a holder of
//! its own takes about a third.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::Criterion;
use veilmatch_cluster::{Address, Cluster};
use veilmatch_domain::Decision;
use veilmatch_tests::{cluster, query, random_unit, rng, subject};

const DIMENSION: usize = 512;

/// Sends one query and stops where the holders' parts would reach the matcher.
fn recrypt(cluster: &mut Cluster, number: u64) -> Duration {
    let probe = random_unit(DIMENSION, &mut rng(number));
    let (collection, now) = (cluster.collection().clone(), cluster.now);
    let asked = query(Decision::Verify { subject: subject(0) }, 0.3);
    let (request, _) = cluster.client.ask(&collection, &probe, asked, now).unwrap();
    let mut framed = number.to_le_bytes().to_vec();
    framed.extend(request);
    cluster.network.send(Address::Client, Address::Matcher, framed);
    let start = Instant::now();
    cluster.run();
    let elapsed = start.elapsed();
    // The query will not be finished: let everybody forget it, off the clock.
    cluster.pass_deadlines();
    cluster.take_failures();
    elapsed
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut cluster = cluster(DIMENSION, 1);
    let person = random_unit(DIMENSION, &mut rng(0));
    cluster.enroll(&[(subject(0), person)], &mut |_| ()).unwrap();
    // A part of a probe is the only long message from a holder to the matcher; each comes from one of its two holders.
    let parts = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&parts);
    cluster.tamper = Some(Box::new(move |delivery| {
        let from_holder = matches!(delivery.from, Address::Holder(_));
        let part = from_holder && delivery.to == Address::Matcher && delivery.bytes.len() > 4096;
        counted.fetch_add(part.into(), Ordering::Relaxed);
        !part
    }));
    recrypt(&mut cluster, 0);
    assert_eq!(parts.load(Ordering::Relaxed), 3, "the parts of one probe");
    let mut number = 1u64 << 32;
    let mut group = criterion.benchmark_group("recrypt, d = 512");
    group.sample_size(10);
    group.bench_function("probe at three holders in turn", |bencher| {
        bencher.iter_custom(|iterations| {
            (0..iterations)
                .map(|_| {
                    number += 1;
                    recrypt(&mut cluster, number)
                })
                .sum()
        });
    });
    group.finish();
    criterion.final_summary();
}
