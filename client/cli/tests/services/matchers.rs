//! The matcher killed and told to end in the middle of changes, and with its packed index gone.

use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use veilmatch_cli::local::Role;
use veilmatch_domain::{Explain as _, Status};
use veilmatch_glwe::Verdict;
use veilmatch_sdk::{Collection, Enrolment, Interrupted};

use crate::cluster::{Cluster, PEOPLE, SHUTDOWN, SLACK, described, face, people, person, threshold};

/// Enrols people by number; the receiver says how many have a result.
fn enrol(
    faces: Collection,
    numbers: std::ops::Range<u64>,
) -> (JoinHandle<Result<Enrolment, Interrupted>>, watch::Receiver<usize>) {
    let (done, progress) = watch::channel(0);
    let enrolling = tokio::spawn(async move {
        let report = move |p: veilmatch_sdk::Progress| {
            done.send_replace(p.done);
        };
        faces.enroll_many(people(numbers), report).await
    });
    (enrolling, progress)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_matcher_is_killed_in_the_middle_of_an_enrolment() {
    let mut cluster = Cluster::start().await;
    let (enrolling, mut progress) = enrol(cluster.patient(), 100..250);
    for enough in [1, 100] {
        progress.wait_for(|done| *done >= enough).await.unwrap();
        cluster.kill(Role::Matcher).await;
        cluster.restart(Role::Matcher).await;
    }
    let enrolment = enrolling.await.unwrap().unwrap();
    assert_eq!(enrolment.accepted(), 150, "{:?}", enrolment.refused().collect::<Vec<_>>());
    cluster.indexed(PEOPLE + 150).await;
    let expected: Vec<String> = (0..PEOPLE).chain(100..250).map(person).collect();
    assert_eq!(cluster.stored().await, expected);
    for number in (100..250).step_by(9) {
        cluster.finds(number).await.unwrap();
    }
    cluster.recovers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_matcher_is_killed_in_the_middle_of_erasures() {
    let mut cluster = Cluster::start().await;
    let gone = 100..148;
    cluster.faces.enroll_many(people(gone.clone()), |_| ()).await.unwrap();
    cluster.indexed(PEOPLE + 48).await;
    let mut erasing = JoinSet::new();
    for number in gone.clone() {
        let faces = cluster.once();
        erasing.spawn(async move { (number, faces.erase(&person(number)).await) });
    }
    let first = erasing.join_next().await.unwrap().unwrap();
    cluster.kill(Role::Matcher).await;
    cluster.restart(Role::Matcher).await;
    let mut all = erasing.join_all().await;
    all.push(first);

    let faces = cluster.patient();
    for (number, erased) in &all {
        match erased {
            Ok(_) => {
                let stored = faces.get(&person(*number)).await.unwrap();
                assert!(stored.is_none(), "{} was erased and came back", person(*number));
            }
            // Whether it took effect is not known: asked again, it does.
            Err(_) => match faces.erase(&person(*number)).await {
                Ok(_) => {}
                Err(error) => assert_eq!(error.reason(), "unknown-subject", "{}", described(&error)),
            },
        }
    }
    cluster.indexed(PEOPLE).await;
    assert_eq!(cluster.stored().await, (0..PEOPLE).map(person).collect::<Vec<_>>());
    for number in gone {
        let error = cluster.faces.verify(&person(number), &face(number), threshold()).await.unwrap_err();
        assert_eq!(error.reason(), "unknown-subject", "{}", described(&error));
    }
    // The holders have tombstones as well: the same people can be enrolled anew.
    cluster.faces.enroll(&person(100), &face(100)).await.unwrap();
    cluster.recovers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_matcher_is_told_to_end_in_the_middle_of_an_enrolment() {
    let mut cluster = Cluster::start().await;
    let (enrolling, mut progress) = enrol(cluster.once(), 100..250);
    progress.wait_for(|done| *done > 0).await.unwrap();
    cluster.signal(Role::Matcher, Signal::TERM);
    let ended = cluster.ends(SHUTDOWN + SLACK).await;
    assert!(ended.contains("exit status: 0"), "{ended}");
    let results = match enrolling.await.unwrap() {
        Ok(enrolment) => enrolment.results,
        Err(interrupted) => {
            assert_eq!(interrupted.error.status(), Status::Unavailable, "{}", described(&interrupted.error));
            interrupted.so_far.results
        }
    };
    cluster.restart(Role::Matcher).await;
    cluster.recovers().await;
    let stored = cluster.stored().await;
    let mut accepted = 0;
    for result in results {
        match result.verdict {
            Some(Verdict::Accepted) => {
                accepted += 1;
                assert!(stored.contains(&result.subject.to_string()), "{} was acknowledged", result.subject);
            }
            Some(Verdict::Refused(refusal)) => assert_eq!(refusal.status(), Status::Unavailable, "{refusal:?}"),
            None => {}
        }
    }
    assert!(accepted > 0);
    // Everybody else is enrolled now, and nobody is in the way of it.
    let (enrolling, _) = enrol(cluster.patient(), 100..250);
    for (subject, refusal) in enrolling.await.unwrap().unwrap().refused() {
        assert_eq!(refusal.code, "already-enrolled", "{subject}: {refusal:?}");
    }
    cluster.indexed(PEOPLE + 150).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_packed_index_is_lost_and_built_again() {
    let mut cluster = Cluster::start().await;
    cluster.signal(Role::Matcher, Signal::TERM);
    let ended = cluster.ends(SHUTDOWN + SLACK).await;
    assert!(ended.contains("exit status: 0"), "{ended}");
    let index = cluster.root().join("matcher/data/index");
    assert!(std::fs::read_dir(&index).unwrap().next().is_some());
    std::fs::remove_dir_all(&index).unwrap();
    cluster.restart(Role::Matcher).await;
    cluster.recovers().await;
    for number in 0..PEOPLE {
        cluster.finds(number).await.unwrap();
    }
}
