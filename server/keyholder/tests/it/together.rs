//! Three holders: ceremony, restart, the audit log, the matcher's streams, the end.

use tokio_stream::StreamExt as _;
use veilmatch_domain::{Epoch, Party};
use veilmatch_glwe::FromHolder;
use veilmatch_holder::AuditEntry;
use veilmatch_keyholder::{audit_file, audit_folder};
use veilmatch_sealed::Administration;
use veilmatch_transport::{Incoming, Name, QueueLimits, queue};
use veilmatch_wire::v1::AuditRequest;

use crate::deployment::{Client, Deployment, code, status, until};

async fn entries(client: &mut Client, from_sequence: u64, limit: u64) -> Vec<AuditEntry> {
    let mut pages = client.audit(AuditRequest { from_sequence, limit }).await.unwrap().into_inner();
    let mut entries = Vec::new();
    while let Some(page) = pages.message().await.unwrap() {
        entries.extend(page.entry.iter().map(|bytes| borsh::from_slice::<AuditEntry>(bytes).unwrap()));
    }
    entries
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ceremony_and_the_registry_outlive_a_restart() {
    let deployment = Deployment::new();
    let [k0, k1, k2] = deployment.start_all().await;
    let mut clients = Party::ALL.map(|party| deployment.operator(party));
    assert_eq!(status(&mut clients[1]).await.unwrap().key_epoch, None);

    deployment.ceremony(0).await;
    let registration = deployment.registration("gate");
    for (party, client) in Party::ALL.into_iter().zip(&mut clients) {
        client.administer(registration.clone()).await.unwrap();
        // A request works once at each holder.
        assert_eq!(code(client.administer(registration.clone()).await), "replayed");
        let status = status(client).await.unwrap();
        assert_eq!(status.party(), party.into());
        assert_eq!((status.key_epoch, status.epochs.as_slice()), (Some(0), &[0][..]));
    }

    let before = status(&mut clients[1]).await.unwrap();
    k1.stop().await.unwrap();
    let missing = deployment.signed(Administration::BeginEpoch { epoch: Epoch(1) });
    until("the loss is noticed", async || {
        status(&mut deployment.operator(Party::K0)).await.unwrap().peers_connected.len() == 1
    })
    .await;
    assert_eq!(code(clients[0].ceremony(missing).await), "peer-missing");

    let k1 = deployment.start(Party::K1).await;
    deployment.all_connected().await;
    let after = status(&mut clients[1]).await.unwrap();
    assert_eq!(after, before, "epoch, log and card are as before");
    assert_eq!(code(clients[1].administer(registration).await), "replayed");
    assert_eq!(code(clients[1].administer(deployment.registration("gate")).await), "other-client-key");
    deployment.ceremony(1).await;
    assert_eq!(status(&mut clients[1]).await.unwrap().key_epoch, Some(1));
    for running in [k0, k1, k2] {
        running.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_pages_verify_and_agree_with_the_files() {
    let deployment = Deployment::new();
    let running = deployment.start(Party::K1).await;
    let mut client = deployment.operator(Party::K1);
    assert_eq!(entries(&mut client, 0, 0).await, []);
    for i in 0..5 {
        client.administer(deployment.registration(&format!("gate-{i}"))).await.unwrap();
    }
    let all = entries(&mut client, 0, 0).await;
    let status = status(&mut client).await.unwrap();
    let head = all.last().unwrap();
    assert_eq!((all.len() as u64, &head.hash.0[..]), (status.audit_entries, &status.audit_head[..]));
    assert_eq!((all.len(), AuditEntry::first_break(&all)), (5, None));
    assert_eq!(entries(&mut client, 2, 2).await, all[2..4]);
    assert_eq!(entries(&mut client, 4, u64::MAX).await, all[4..]);
    assert_eq!(entries(&mut client, 5, 0).await, []);
    running.stop().await.unwrap();
    let folder = audit_folder(&deployment.config(Party::K1).data);
    let summary = audit_file::verify(&folder, Some((head.sequence, head.hash))).unwrap();
    assert_eq!(summary.entries, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_matcher_hears_where_the_holder_stands_and_a_new_stream_replaces_the_old_one() {
    let deployment = Deployment::new();
    let running = deployment.start(Party::K2).await;
    let mut matcher = deployment.call_as(&Name::Matcher, Party::K2);
    let limits = QueueLimits { messages: 8, bytes: 1 << 20 };
    let open = async |client: &mut Client| {
        let (outlet, outgoing) = queue(limits);
        let stream = client.decide(outgoing).await.unwrap().into_inner();
        (outlet, Incoming::new(stream, 1 << 20))
    };
    let hear = async |incoming: &mut Incoming| {
        let message = incoming.next().await.unwrap().unwrap();
        borsh::from_slice::<FromHolder>(&message).unwrap()
    };
    let standing = FromHolder::Status { party: Party::K2, epoch: None };
    let (_first, mut old) = open(&mut matcher).await;
    assert_eq!(hear(&mut old).await, standing);
    let (second, mut new) = open(&mut matcher).await;
    assert_eq!(hear(&mut new).await, standing);
    assert!(matches!(old.next().await, Ok(None)), "the old stream ends");
    second.send(b"nonsense".to_vec()).unwrap();
    let FromHolder::Refused { session: None, refusal } = hear(&mut new).await else { panic!("not refused") };
    assert_eq!(refusal.code, "malformed-message");
    // The end does not wait for streams that are open.
    running.stop().await.unwrap();
    assert!(matches!(new.next().await, Ok(None)), "the stream ends in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_the_keys_and_the_peers() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let deployment = Deployment::new();
    let [k0, k1, k2] = deployment.start_all().await;
    let mut health = HealthClient::new(deployment.connection(&Name::Matcher, Party::K0));
    let request = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let readiness = "veilmatch.v1.KeyHolder";
    assert_eq!(health.check(request("")).await.unwrap().into_inner().status(), ServingStatus::Serving);
    let mut watched = health.watch(request(readiness)).await.unwrap().into_inner();
    let mut next = async || watched.next().await.unwrap().unwrap().status();
    assert_eq!(next().await, ServingStatus::NotServing, "no keys yet");
    deployment.ceremony(0).await;
    assert_eq!(next().await, ServingStatus::Serving);
    k2.stop().await.unwrap();
    assert_eq!(next().await, ServingStatus::NotServing, "a peer is gone");
    assert_eq!(health.check(request("")).await.unwrap().into_inner().status(), ServingStatus::Serving);
    k0.stop().await.unwrap();
    k1.stop().await.unwrap();
}
