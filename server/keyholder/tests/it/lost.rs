//! A holder whose machine is gone, made again from the two others.

use std::time::Duration;

use veilmatch_domain::{Explain, Party};
use veilmatch_keyholder::keyfile::Cost;
use veilmatch_keyholder::restore::Restoring;
use veilmatch_sealed::Administration;

use crate::deployment::{Deployment, code, status, unlock, until};

fn begin(deployment: &Deployment) -> Restoring {
    Restoring::begin(deployment.config(Party::K1), unlock(), Cost::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_holder_comes_back_when_administrators_allow_it() {
    let deployment = Deployment::new();
    let [k0, k1, k2] = deployment.start_all().await;
    deployment.ceremony(0).await;
    let registration = deployment.registration("gate");
    for party in Party::ALL {
        deployment.operator(party).administer(registration.clone()).await.unwrap();
    }
    let card = status(&mut deployment.operator(Party::K1)).await.unwrap().card;
    k1.stop().await.unwrap();
    let not_lost = Restoring::begin(deployment.config(Party::K1), unlock(), Cost::default()).unwrap_err();
    assert_eq!(not_lost.code(), "not-lost");
    std::fs::remove_dir_all(deployment.path("k1.data")).unwrap();
    std::fs::remove_file(deployment.path("k1.keys")).unwrap();

    let fingerprint = begin(&deployment).fingerprint();
    // Interrupted and begun again: what people compared still holds.
    let restoring = begin(&deployment);
    assert_eq!(restoring.fingerprint(), fingerprint);
    let allow = Administration::AllowRestore { party: Party::K1, key_fingerprint: fingerprint };
    deployment.operator(Party::K0).administer(deployment.signed(allow.clone())).await.unwrap();
    // One peer alone is not enough, and its answer is not asked for twice.
    let mut restored = tokio::spawn(restoring.finish(Cost::default()));
    let early = tokio::time::timeout(Duration::from_secs(3), &mut restored).await;
    assert!(early.is_err(), "{early:?}");
    deployment.operator(Party::K2).administer(deployment.signed(allow)).await.unwrap();
    restored.await.unwrap().unwrap();
    assert!(!deployment.path("k1.keys.restoring").exists());

    let k1 = deployment.start(Party::K1).await;
    deployment.all_connected().await;
    let mut client = deployment.operator(Party::K1);
    let now = status(&mut client).await.unwrap();
    assert_eq!((now.key_epoch, now.restored_epoch, now.card), (Some(0), Some(0), card));
    assert_eq!(code(client.administer(deployment.registration("gate")).await), "other-client-key");
    deployment.ceremony(1).await;
    until("a new epoch ends it", async || {
        status(&mut deployment.operator(Party::K1)).await.is_ok_and(|s| s.restored_epoch.is_none())
    })
    .await;
    for running in [k0, k1, k2] {
        running.stop().await.unwrap();
    }
}
