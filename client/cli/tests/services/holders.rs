//! Holders that are killed, slow, or cannot reach each other.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use veilmatch_cli::local::Role;
use veilmatch_domain::{Explain as _, Party, Status};
use veilmatch_glwe::Verdict;
use veilmatch_sdk::{Ask, Error, Options};

use crate::cluster::{
    Cluster, PEOPLE, SEARCH, SLACK, Setup, assert_refused, described, face, names, people, person, threshold,
};

const K1: Role = Role::Holder(Party::K1);

/// People up to this number are enrolled while holders are killed.
const CROWD: u64 = 300;

/// What queries are refused with while a holder or a link is gone, depending on who notices first.
const GONE: [&str; 4] = ["unreachable", "peer-lost", "timed-out", "starting"];

/// Asks without a pause until told to stop; every answer must be right, and every refusal in time.
async fn ask_until(cluster: &Cluster, stop: tokio::sync::watch::Receiver<bool>) -> JoinSet<(usize, Vec<Error>)> {
    let mut asking = JoinSet::new();
    for n in 0..6 {
        let (faces, stop) = (cluster.once(), stop.clone());
        asking.spawn(async move {
            let (mut answered, mut refused) = (0, Vec::new());
            while !*stop.borrow() {
                let begun = Instant::now();
                let answer = match n % 2 {
                    0 => faces.verify(&person(n), &face(n), threshold()).await,
                    _ => faces.identify(&face(n + 500_000), Ask::Exists, threshold()).await.map(|outcome| {
                        assert_eq!(outcome, veilmatch_domain::Outcome::Exists(false));
                        true
                    }),
                };
                assert!(begun.elapsed() < SEARCH + SLACK, "{:?} {answer:?}", begun.elapsed());
                match answer {
                    Ok(right) => {
                        assert!(right);
                        answered += 1;
                    }
                    Err(error) => {
                        refused.push(error);
                        sleep(Duration::from_millis(20)).await;
                    }
                }
            }
            (answered, refused)
        });
    }
    asking
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_is_killed_in_the_middle_of_queries() {
    let mut cluster = Cluster::start().await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let asking = ask_until(&cluster, stopped).await;
    sleep(Duration::from_millis(700)).await;
    cluster.kill(K1).await;
    sleep(Duration::from_millis(300)).await;
    cluster.restart(K1).await;
    cluster.recovers().await;
    sleep(Duration::from_millis(300)).await;
    stop.send(true).unwrap();
    let ended = asking.join_all().await;
    assert!(ended.iter().all(|(answered, _)| *answered > 0), "{ended:?}");
    let refused: Vec<Error> = ended.into_iter().flat_map(|(_, refused)| refused).collect();
    assert!(!refused.is_empty());
    for error in &refused {
        assert_refused(error, Status::Unavailable, &GONE);
        assert!(names(error, &[Party::K1]), "{}", described(error));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_is_killed_in_the_middle_of_an_enrolment() {
    let mut cluster = Cluster::start().await;
    // One that repeats nothing sees refusals; who is refused is not enrolled, not even half.
    let (done, mut progress) = tokio::sync::watch::channel(0);
    let options = cluster.running.deployment().client_options().unwrap();
    let faces = Cluster::open(Options { retries: 0, window: 16, ..options });
    let enrolling = tokio::spawn(async move {
        faces
            .enroll_many(people(100..CROWD), move |p| {
                done.send_replace(p.done);
            })
            .await
    });
    progress.wait_for(|done| *done > 0).await.unwrap();
    cluster.kill(K1).await;
    cluster.restart(K1).await;
    let results = match enrolling.await.unwrap() {
        Ok(enrolment) => enrolment.results,
        Err(interrupted) => interrupted.so_far.results,
    };
    cluster.recovers().await;
    let stored = cluster.stored().await;
    for result in &results {
        let subject = result.subject.to_string();
        match &result.verdict {
            Some(Verdict::Accepted) => assert!(stored.contains(&subject), "{subject} was acknowledged and is lost"),
            Some(Verdict::Refused(refusal)) => {
                assert_eq!(refusal.status(), Status::Unavailable, "{refusal:?}");
                assert!(refusal.suspects.iter().any(|s| s.includes(Party::K1)), "{refusal:?}");
            }
            None => {}
        }
    }
    assert!(results.iter().any(|result| result.verdict == Some(Verdict::Accepted)));

    // Another holder, and a client that repeats: everybody is enrolled in the end, whatever was refused before.
    let before = stored.len();
    let (done, mut progress) = tokio::sync::watch::channel(0);
    let faces = cluster.patient();
    let enrolling = tokio::spawn(async move {
        faces
            .enroll_many(people(100..CROWD), move |p| {
                done.send_replace(p.done);
            })
            .await
    });
    progress.wait_for(|done| *done >= before.min(64)).await.unwrap();
    cluster.kill(Role::Holder(Party::K2)).await;
    cluster.restart(Role::Holder(Party::K2)).await;
    let enrolment = enrolling.await.unwrap().unwrap();
    for (subject, refusal) in enrolment.refused() {
        assert_eq!(refusal.code, "already-enrolled", "{subject}: {refusal:?}");
    }
    cluster.indexed(PEOPLE + CROWD - 100).await;
    let expected: Vec<String> = (0..PEOPLE).chain(100..CROWD).map(person).collect();
    assert_eq!(cluster.stored().await, expected);
    for number in (100..CROWD).step_by(7) {
        cluster.finds(number).await.unwrap();
    }
    cluster.recovers().await;
}

/// A query is refused within the deadline, and one of these holders is named.
async fn assert_late(cluster: &Cluster, suspects: &[Party]) {
    let begun = Instant::now();
    let error = cluster.once().verify(&person(0), &face(0), threshold()).await.unwrap_err();
    assert!(begun.elapsed() < SEARCH + SLACK, "{:?}", begun.elapsed());
    assert_refused(&error, Status::Unavailable, &GONE);
    assert!(names(&error, suspects), "{}", described(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_and_a_silent_holder() {
    let setup = Setup::new().await;
    let link = setup.between(Role::Matcher, Party::K1).await;
    let cluster = setup.start().await;
    link.slow(Duration::from_millis(1500));
    assert_late(&cluster, &[Party::K1]).await;
    link.heal();
    cluster.recovers().await;

    link.stall();
    assert_late(&cluster, &[Party::K1]).await;
    let begun = Instant::now();
    let error = cluster.once().enroll("somebody", &face(77)).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(10) + SLACK, "{:?}", begun.elapsed());
    assert_refused(&error, Status::Unavailable, &GONE);
    assert!(names(&error, &[Party::K1]), "{}", described(&error));
    link.heal();
    cluster.recovers().await;
    // Nobody came to be half enrolled.
    assert!(!cluster.stored().await.contains(&String::from("somebody")));
    cluster.faces.enroll("somebody", &face(77)).await.unwrap();
    assert!(link.bytes() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_holders_are_slow_to_each_other_and_then_apart() {
    let setup = Setup::new().await;
    // Of each pair, the holder with the lower index dials.
    let link = setup.between(Role::Holder(Party::K0), Party::K1).await;
    let cluster = setup.start().await;
    link.slow(Duration::from_millis(600));
    assert_late(&cluster, &[Party::K0, Party::K1]).await;
    link.heal();
    cluster.recovers().await;

    link.cut();
    assert_late(&cluster, &[Party::K0, Party::K1]).await;
    let error = cluster.once().enroll("somebody", &face(77)).await.unwrap_err();
    assert_eq!(error.status(), Status::Unavailable, "{}", described(&error));
    assert!(names(&error, &[Party::K0, Party::K1]), "{}", described(&error));
    link.heal();
    cluster.recovers().await;
    cluster.faces.enroll("somebody", &face(77)).await.unwrap();
    assert!(link.bytes() > 0);
}
