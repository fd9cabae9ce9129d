//! The scheme `paillier` over the network: the main job, a twin that is killed and that hangs, strangers at its door, everything
//! started anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Code;
use veilmatch_cli::local::Role;
use veilmatch_domain::{ClientId, Explain as _, Party, SchemeName, Status, SubjectId, Suspect};
use veilmatch_sdk::{Ask, Error};
use veilmatch_transport::{Endpoint, Name, OperatorName, QueueLimits, channel, queue};
use veilmatch_wire::v1::twin_client::TwinClient;

use crate::cluster::{
    Cluster, PAILLIER_SEARCH, PEOPLE, RECOVERY, SLACK, Setup, current, described, face, names, person, threshold, until,
};

/// An error that points at the twin, whoever noticed first.
fn assert_names_twin(error: &Error, codes: &[&str]) {
    assert!(error.suspects().contains(&Suspect::Twin), "{}", described(error));
    assert!(error.status() == Status::Unavailable && codes.contains(&error.reason()), "{}", described(error));
}

/// The ports of the twin open for the matcher alone.
async fn assert_shut_to_others(cluster: &Cluster) {
    let url = format!("https://127.0.0.1:{}", cluster.ports.twin);
    let client = Name::Client(ClientId::new("local").unwrap());
    let operator = Name::Operator(OperatorName::new("local").unwrap());
    for name in [client, operator, Name::Holder(Party::K1), Name::Twin] {
        let security = cluster.identity(cluster.authority().issue(&name, &[], current()).unwrap());
        let connection = channel(&Endpoint::parse(&url, false).unwrap(), &security, &Name::Twin).unwrap();
        let (_outlet, outgoing) = queue(QueueLimits { messages: 1, bytes: 1 });
        let status = TwinClient::new(connection).evaluate(outgoing).await.unwrap_err();
        let code = veilmatch_wire::refusal(&status).map(|refusal| refusal.code);
        assert_eq!((status.code(), code.as_deref()), (Code::PermissionDenied, Some("not-for-caller")), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_is_killed_hangs_and_comes_back() {
    let mut cluster = Setup::paillier().await.start().await;
    let info = cluster.faces.info().await.unwrap();
    assert_eq!((info.scheme, info.parameters.as_str()), (SchemeName::Paillier, "paillier-2048-v1"));
    cluster.works().await.unwrap();
    assert_shut_to_others(&cluster).await;

    // Killed while searches are under way: those that need it end at once and name it.
    let answered = Arc::new(AtomicU64::new(0));
    let mut asking = JoinSet::new();
    for number in 0..3 {
        let (faces, answered) = (cluster.once(), Arc::clone(&answered));
        asking.spawn(async move {
            loop {
                let begun = Instant::now();
                if let Err(error) = faces.identify(&face(number), Ask::Best, threshold()).await {
                    return (error, begun.elapsed());
                }
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    until("searches are under way", RECOVERY, async || answered.load(Ordering::Relaxed) >= 6).await;
    cluster.kill(Role::Twin).await;
    while let Some(asked) = asking.join_next().await {
        let (error, took) = asked.unwrap();
        assert_names_twin(&error, &["unreachable", "twin-lost"]);
        assert!(took < PAILLIER_SEARCH, "not before the deadline: {took:?}");
    }
    let begun = Instant::now();
    let error = cluster.once().verify(&person(1), &face(1), threshold()).await.unwrap_err();
    assert_names_twin(&error, &["unreachable"]);
    assert!(begun.elapsed() < SLACK, "{:?}", begun.elapsed());

    // Who is enrolled meanwhile is found later.
    let newcomer = person(700);
    cluster.faces.enroll(&newcomer, &face(700)).await.unwrap();
    cluster.restart(Role::Twin).await;
    cluster.recovers().await;
    cluster.indexed(PEOPLE + 1).await;
    cluster.finds(700).await.unwrap();

    // It hangs: the deadline names it.
    cluster.signal(Role::Twin, Signal::STOP);
    let error = cluster.once().verify(&person(1), &face(1), threshold()).await.unwrap_err();
    assert_names_twin(&error, &["timed-out", "unreachable", "twin-lost"]);
    cluster.signal(Role::Twin, Signal::CONT);
    cluster.recovers().await;

    // Everything is killed and started anew: keys, shares and templates are still there, what was erased is not.
    cluster.faces.erase(&newcomer).await.unwrap();
    let roles = cluster.running.deployment().roles();
    assert!(roles.contains(&Role::Twin), "{roles:?}");
    for role in &roles {
        cluster.kill(*role).await;
    }
    for role in roles {
        cluster.restart(role).await;
    }
    cluster.recovers().await;
    cluster.indexed(PEOPLE).await;
    for number in 0..PEOPLE {
        cluster.finds(number).await.unwrap();
    }
    let found = cluster.faces.identify(&face(700), Ask::Best, threshold()).await.unwrap();
    assert_eq!(found, veilmatch_domain::Outcome::Best(None));
    let found = cluster.faces.identify(&face(3), Ask::Matches { max: 3 }, threshold()).await.unwrap();
    assert_eq!(found, veilmatch_domain::Outcome::Matches(vec![SubjectId::new(person(3)).unwrap()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_without_a_way_to_the_twin_says_so_at_once() {
    let setup = Setup::paillier().await;
    let proxy = setup.between(Role::Twin, Party::K1).await;
    let cluster = setup.start().await;
    cluster.finds(0).await.unwrap();
    proxy.cut();
    // The matcher and the two other holders still reach the twin: K1 alone can know. Until it has heard of the cut, what it sends
    // is lost and the deadline ends the search.
    let faces = cluster.once();
    let patience = Instant::now();
    let (error, took) = loop {
        let begun = Instant::now();
        match faces.verify(&person(1), &face(1), threshold()).await {
            Err(error) if error.reason() == "twin-lost" => break (error, begun.elapsed()),
            other => assert!(patience.elapsed() < 2 * PAILLIER_SEARCH, "K1 does not say it: {other:?}"),
        }
    };
    assert_names_twin(&error, &["twin-lost"]);
    assert!(names(&error, &[Party::K1]) && !names(&error, &[Party::K0, Party::K2]), "{}", described(&error));
    assert!(took < SLACK, "{took:?}");
    proxy.heal();
    cluster.recovers().await;
}
