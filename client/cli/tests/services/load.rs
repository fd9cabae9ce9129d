//! More requests than the matcher takes on, and clients that go away.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use veilmatch_cli::local::Role;
use veilmatch_domain::{Outcome, Party, Status};
use veilmatch_sdk::{Ask, Error};

use crate::cluster::{Cluster, SEARCH, SLACK, Setup, assert_refused, described, face, person, threshold};

/// At most this many bytes may the matcher grow under load.
const GROWTH: u64 = 64 << 20;

/// Resident memory of a process in bytes.
fn resident(cluster: &Cluster, role: Role) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.running.processes.id(role).unwrap()));
    let status = status.unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// So many searches at once; how many were answered and how many refused.
async fn rush(cluster: &Cluster, searches: u64) -> (usize, usize) {
    let mut asking = JoinSet::new();
    for n in 0..searches {
        let faces = cluster.once();
        asking.spawn(async move {
            let begun = Instant::now();
            let answer = faces.identify(&face(n % 3), Ask::Exists, threshold()).await;
            assert!(begun.elapsed() < SEARCH + SLACK, "{:?}", begun.elapsed());
            answer
        });
    }
    let (mut answered, mut busy) = (0, 0);
    for answer in asking.join_all().await {
        match answer {
            Ok(outcome) => {
                assert_eq!(outcome, Outcome::Exists(true));
                answered += 1;
            }
            Err(error) => {
                assert_refused(&error, Status::ResourceExhausted, &["busy"]);
                busy += 1;
            }
        }
    }
    (answered, busy)
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_searches_are_refused_and_take_no_memory() {
    let setup = Setup::new().await;
    setup.append(Role::Matcher, "\n[limits]\nsearches = 2\n");
    let link = setup.between(Role::Matcher, Party::K1).await;
    let cluster = setup.start().await;
    rush(&cluster, 30).await;
    let before = resident(&cluster, Role::Matcher);
    let (mut answered, mut busy) = (0, 0);
    for _ in 0..4 {
        let (a, b) = rush(&cluster, 30).await;
        (answered, busy) = (answered + a, busy + b);
    }
    assert!(answered >= 4 && busy > 0, "{answered} answered, {busy} refused");
    let after = resident(&cluster, Role::Matcher);
    assert!(after < before + GROWTH, "{before} bytes before, {after} after");

    // While a holder is silent, two searches fill the matcher; when their clients go away, the places are free again,
    // long before the searches' own deadline.
    link.stall();
    let faces = cluster.once();
    let probe = face(0);
    let mut hanging = Vec::new();
    for _ in 0..2 {
        let (faces, probe) = (faces.clone(), probe.clone());
        hanging.push(tokio::spawn(async move { faces.verify(&person(0), &probe, threshold()).await }));
    }
    sleep(Duration::from_millis(500)).await;
    let error = timeout(SLACK, faces.verify(&person(1), &face(1), threshold())).await.unwrap().unwrap_err();
    assert_refused(&error, Status::ResourceExhausted, &["busy"]);
    hanging.iter().for_each(tokio::task::JoinHandle::abort);
    sleep(Duration::from_millis(300)).await;
    // This one is taken on: it ends by its own deadline, which the matcher is told.
    let options = cluster.running.deployment().client_options().unwrap();
    let hasty = Cluster::open(veilmatch_sdk::Options { retries: 0, deadline: Duration::from_millis(400), ..options });
    for _ in 0..3 {
        let error = hasty.verify(&person(1), &face(1), threshold()).await.unwrap_err();
        assert!(matches!(error, Error::Deadline { .. }), "{}", described(&error));
    }
    link.heal();
    cluster.recovers().await;
}
