//! Certificates of another authority, of another party, and such that have expired.

use tokio::time::Instant;
use veilmatch_cli::local::Role;
use veilmatch_cli::operator::Operator;
use veilmatch_domain::{ClientId, Explain as _, Party, Roles, Status};
use veilmatch_sdk::{Error, Options};
use veilmatch_sealed::Administration;
use veilmatch_transport::{Authority, Endpoint, Name};

use crate::cluster::{
    Cluster, SEARCH, SLACK, Setup, assert_refused, current, described, expired, face, names, person, threshold, until,
};

const K1: Role = Role::Holder(Party::K1);

fn name(client: &str) -> Name {
    Name::Client(ClientId::new(client).unwrap())
}

/// The matcher does not let this client in, and says so at once.
async fn assert_shut_out(options: Options) {
    let begun = Instant::now();
    let faces = Cluster::open(Options { retries: 0, ..options });
    let error = faces.verify(&person(0), &face(0), threshold()).await.unwrap_err();
    assert!(begun.elapsed() < SLACK, "{:?}", begun.elapsed());
    assert!(matches!(error, Error::Unreachable { .. }), "{}", described(&error));
    assert_eq!(error.status(), Status::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_wrong_or_expired_certificate() {
    let cluster = Cluster::start().await;
    let own = cluster.running.deployment().client_options().unwrap().signing_key;
    let stranger = Authority::new("another authority", current()).unwrap();
    let issued = stranger.issue(&name("local"), &[], current()).unwrap();
    assert_shut_out(cluster.options("local", &own, cluster.identity(issued))).await;

    let issued = cluster.authority().issue(&name("local"), &[], expired()).unwrap();
    assert_shut_out(cluster.options("local", &own, cluster.identity(issued))).await;

    // A holder's certificate opens the connection and nothing else.
    let issued = cluster.authority().issue(&Name::Holder(Party::K1), &[], current()).unwrap();
    let faces = Cluster::open(cluster.options("local", &own, cluster.identity(issued)));
    let error = faces.verify(&person(0), &face(0), threshold()).await.unwrap_err();
    assert_refused(&error, Status::PermissionDenied, &["caller"]);

    // One client's certificate does not carry another's signature, even if both are registered.
    let (key, theirs) = cluster.register("desk", Roles::ALL, None).await;
    assert!(Cluster::open(theirs).verify(&person(0), &face(0), threshold()).await.unwrap());
    let issued = cluster.authority().issue(&name("local"), &[], current()).unwrap();
    let mixed = Cluster::open(cluster.options("desk", &key, cluster.identity(issued)));
    let error = mixed.verify(&person(0), &face(0), threshold()).await.unwrap_err();
    assert_refused(&error, Status::PermissionDenied, &["other-client"]);
    let error = mixed.enroll("somebody", &face(77)).await.unwrap_err();
    assert_refused(&error, Status::PermissionDenied, &["other-client"]);
    let error = mixed.erase(&person(0)).await.unwrap_err();
    assert_refused(&error, Status::PermissionDenied, &["other-client"]);

    // And with its own key under another's name, the signature is wrong.
    let issued = cluster.authority().issue(&name("desk"), &[], current()).unwrap();
    let forged = Cluster::open(cluster.options("desk", &own, cluster.identity(issued)));
    let error = forged.verify(&person(0), &face(0), threshold()).await.unwrap_err();
    assert_refused(&error, Status::PermissionDenied, &["bad-signature"]);

    // A client's certificate commands no holder, not even with an administrator's key.
    let admin = veilmatch_sdk::SigningKeyFile::load(&cluster.root().join("admin.key")).unwrap().into_key();
    let issued = cluster.authority().issue(&name("desk"), &[], current()).unwrap();
    let endpoint = |port: u16| Endpoint::parse(&format!("https://127.0.0.1:{port}"), false).unwrap();
    let (holders, matcher) = (cluster.ports.holders.map(endpoint), endpoint(cluster.ports.matcher));
    let operator = Operator::new(&holders, &matcher, &cluster.identity(issued), admin).unwrap();
    let action = Administration::RevokeClient { client: ClientId::new("local").unwrap() };
    let error = operator.at_holders(&[Party::K0], &action).await.unwrap_err();
    assert_eq!(error.reason(), "not-for-caller", "{error}");

    cluster.recovers().await;
    assert!(!cluster.stored().await.contains(&String::from("somebody")));
}

/// Queries are refused in time, and name K1.
async fn assert_k1_is_missing(cluster: &Cluster) {
    let begun = Instant::now();
    let error = cluster.once().verify(&person(0), &face(0), threshold()).await.unwrap_err();
    assert!(begun.elapsed() < SEARCH + SLACK, "{:?}", begun.elapsed());
    assert_refused(&error, Status::Unavailable, &["unreachable", "peer-lost", "timed-out"]);
    assert!(names(&error, &[Party::K1]), "{}", described(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_somebody_else() {
    let setup = Setup::new().await;
    let from_matcher = setup.between(Role::Matcher, Party::K1).await;
    let from_holder = setup.between(Role::Holder(Party::K0), Party::K1).await;
    let [_, k1, k2] = setup.ports.holders;
    let mut cluster = setup.start().await;

    // K2 answers where K1 is expected: a good certificate of the same authority with another name.
    from_matcher.redirect(k2);
    until("the matcher has noticed", SLACK, async || {
        cluster.veilmatch.server_info().await.unwrap().connected == [Party::K0, Party::K2]
    })
    .await;
    assert_k1_is_missing(&cluster).await;
    from_matcher.redirect(k1);
    cluster.recovers().await;

    from_holder.redirect(k2);
    until("the holder has noticed", SLACK, async || {
        let status = cluster.running.operator.status(Party::K0).await.unwrap();
        status.peers_connected == [i32::from(veilmatch_wire::v1::Party::from(Party::K2))]
    })
    .await;
    let error = cluster.once().verify(&person(0), &face(0), threshold()).await.unwrap_err();
    assert_refused(&error, Status::Unavailable, &["peer-lost", "timed-out"]);
    assert!(names(&error, &[Party::K0, Party::K1]), "{}", described(&error));
    from_holder.redirect(k1);
    cluster.recovers().await;

    // A holder with another's files does not start, and its log says why.
    let file = |folder: &str, file: &str| cluster.root().join(folder).join(file);
    let kept: Vec<_> = ["tls.crt", "tls.key"].map(|f| std::fs::read(file("k1", f)).unwrap()).into();
    for f in ["tls.crt", "tls.key"] {
        std::fs::copy(file("k2", f), file("k1", f)).unwrap();
    }
    cluster.restart(K1).await;
    let ended = cluster.ends(SLACK).await;
    assert!(ended.contains("K2") || ended.contains("k2"), "{ended}");
    assert_k1_is_missing(&cluster).await;
    for (f, bytes) in ["tls.crt", "tls.key"].into_iter().zip(kept) {
        std::fs::write(cluster.root().join("k1").join(f), bytes).unwrap();
    }
    cluster.restart(K1).await;
    cluster.recovers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_whose_certificate_has_expired() {
    let mut cluster = Cluster::start().await;
    let (certificate, key) = (cluster.root().join("k1/tls.crt"), cluster.root().join("k1/tls.key"));
    let authority = cluster.authority();
    let issued = authority.issue(&Name::Holder(Party::K1), &[], expired()).unwrap();
    issued.save(&certificate, &key).unwrap();
    cluster.restart(K1).await;
    until("the matcher has noticed", SLACK, async || {
        cluster.veilmatch.server_info().await.unwrap().connected == [Party::K0, Party::K2]
    })
    .await;
    assert_k1_is_missing(&cluster).await;

    let issued = authority.issue(&Name::Holder(Party::K1), &[], current()).unwrap();
    issued.save(&certificate, &key).unwrap();
    cluster.restart(K1).await;
    cluster.recovers().await;
}
