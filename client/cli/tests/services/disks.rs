//! Disks that are full: a limit on the size of files makes every write fail as one on a full disk does.

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use veilmatch_cli::local::Role;
use veilmatch_domain::{CollectionId, Explain as _, Party, Status, SubjectId};
use veilmatch_glwe::Verdict;
use veilmatch_sdk::Options;
use veilmatch_sealed::Administration;

use crate::cluster::{
    Cluster, PEOPLE, RECOVERY, Setup, assert_refused, described, face, names, people, person, threshold, until,
};

/// People up to this number are enrolled until nothing fits any more.
const CROWD: u64 = 700;
/// Bytes that the store may still grow by.
const ROOM: u64 = 256 << 10;
/// Bytes beyond which a process cannot write.
const FULL: u64 = 4096;

fn limit(cluster: &Cluster, role: Role, bytes: Option<u64>) {
    let pid = cluster.running.processes.id(role).and_then(|id| Pid::from_raw(id.try_into().unwrap()));
    prlimit(Some(pid.unwrap()), Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

async fn start() -> Cluster {
    let mut setup = Setup::new().await;
    setup.survive_limits();
    setup.start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_matchers_disk_is_full() {
    let cluster = start().await;
    limit(&cluster, Role::Matcher, Some(FULL));
    let faces = cluster.once();
    for _ in 0..2 {
        let error = faces.enroll("somebody", &face(77)).await.unwrap_err();
        assert_refused(&error, Status::ResourceExhausted, &["storage-full"]);
    }
    let error = faces.erase(&person(5)).await.unwrap_err();
    assert_refused(&error, Status::ResourceExhausted, &["storage-full"]);
    // Searches need no room.
    for number in 0..3 {
        cluster.finds(number).await.unwrap();
    }
    assert!(!cluster.stored().await.contains(&String::from("somebody")));

    limit(&cluster, Role::Matcher, None);
    cluster.recovers().await;
    // Nobody is half enrolled or half erased.
    cluster.finds(5).await.unwrap();
    faces.enroll("somebody", &face(77)).await.unwrap();
    assert!(faces.verify("somebody", &face(77), threshold()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_matchers_disk_fills_up_during_an_enrolment() {
    let cluster = start().await;
    // Room for some more people, not for all.
    let store = std::fs::metadata(cluster.root().join("matcher/data/gallery.redb")).unwrap().len();
    limit(&cluster, Role::Matcher, Some(store + ROOM));
    let options = cluster.running.deployment().client_options().unwrap();
    let faces = Cluster::open(Options { retries: 0, window: 16, ..options });
    let enrolment = faces.enroll_many(people(100..CROWD), |_| ()).await.unwrap();
    let refused: Vec<_> = enrolment.refused().collect();
    assert!(!refused.is_empty() && enrolment.accepted() > 0, "{} accepted", enrolment.accepted());
    for (subject, refusal) in refused {
        assert_eq!(
            (refusal.code.as_str(), refusal.status()),
            ("storage-full", Status::ResourceExhausted),
            "{subject}: {refusal:?}"
        );
    }
    let accepted: Vec<String> = enrolment
        .results
        .iter()
        .filter(|result| result.verdict == Some(Verdict::Accepted))
        .map(|result| result.subject.to_string())
        .collect();
    let expected: Vec<String> = (0..PEOPLE).map(person).chain(accepted).collect();
    assert_eq!(cluster.stored().await, expected, "who was refused is not stored, who was accepted is");
    cluster.finds(0).await.unwrap();

    limit(&cluster, Role::Matcher, None);
    cluster.recovers().await;
    let enrolment = cluster.patient().enroll_many(people(100..CROWD), |_| ()).await.unwrap();
    assert!(enrolment.refused().all(|(_, refusal)| refusal.code == "already-enrolled"));
    cluster.indexed(PEOPLE + CROWD - 100).await;
    for number in (100..CROWD).step_by(41) {
        cluster.finds(number).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holders_disk_is_full() {
    let cluster = start().await;
    let k1 = Role::Holder(Party::K1);
    limit(&cluster, k1, Some(FULL));
    // What cannot be written down is not decided: no answer leaves before its entry in the log.
    let faces = cluster.once();
    until("nothing is decided", RECOVERY, async || match faces.verify(&person(0), &face(0), threshold()).await {
        Ok(_) => false,
        Err(error) => {
            let full = ["storage-full", "unreachable", "peer-lost", "timed-out"];
            assert!(full.contains(&error.reason()), "{}", described(&error));
            assert!(names(&error, &[Party::K1]), "{}", described(&error));
            true
        }
    })
    .await;
    // The holder itself says what is wrong.
    let subject = SubjectId::new(person(0)).unwrap();
    let action = Administration::Unlock { collection: CollectionId::new("faces").unwrap(), subject };
    let error = cluster.running.operator.at_holders(&[Party::K1], &action).await.unwrap_err();
    assert_eq!((error.reason(), error.status()), ("storage-full", Status::ResourceExhausted), "{error}");
    let error = faces.enroll("somebody", &face(77)).await.unwrap_err();
    assert!(names(&error, &[Party::K1]), "{}", described(&error));

    limit(&cluster, k1, None);
    cluster.recovers().await;
    faces.enroll("somebody", &face(77)).await.unwrap();
    cluster.running.operator.at_holders(&[Party::K1], &action).await.unwrap();
}
