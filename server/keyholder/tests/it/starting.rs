//! What a key holder refuses to start with.

use std::os::unix::fs::PermissionsExt as _;

use veilmatch_domain::{Explain, Party};
use veilmatch_keyholder::card::{read_card, write_card};
use veilmatch_keyholder::keyfile::Unlock;
use veilmatch_keyholder::{ServeError, Server};

use crate::deployment::{Deployment, unlock, write_private};

async fn refusal(deployment: &Deployment, party: Party, with: Unlock) -> ServeError {
    Server::open(deployment.config(party), with).await.map(drop).unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_readable_key_file_and_a_wrong_unlock() {
    let deployment = Deployment::new();
    let keys = deployment.path("k0.keys");
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = refusal(&deployment, Party::K0, unlock()).await;
    assert_eq!(error.code(), "exposed-file");
    assert!(error.to_string().contains("chmod 600"), "{error}");
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let wrong = Unlock::key_file(&write_private(folder.path(), &[8; 32])).unwrap();
    assert_eq!(refusal(&deployment, Party::K0, wrong).await.code(), "wrong-unlock");
    deployment.start(Party::K0).await.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_cards_and_certificates_of_others() {
    let deployment = Deployment::new();
    let place = |from: &str, to: &str| {
        std::fs::copy(deployment.path(from), deployment.path(to)).unwrap();
    };
    let saved =
        [("k0.keys", "saved.keys"), ("k1.card", "saved.card"), ("k0.card", "own.card"), ("k0.pem", "saved.pem")];
    saved.iter().for_each(|(from, to)| place(from, to));
    let restore = || saved.iter().for_each(|(from, to)| place(to, from));

    place("k1.keys", "k0.keys");
    assert!(matches!(
        refusal(&deployment, Party::K0, unlock()).await,
        ServeError::OtherParty { expected: Party::K0, found: Party::K1 }
    ));
    restore();
    place("k2.card", "k1.card");
    assert!(matches!(
        refusal(&deployment, Party::K0, unlock()).await,
        ServeError::CardOfOther { expected: Party::K1, found: Party::K2 }
    ));
    // K1 shows the keys of K2 as its own.
    let mut twice = read_card(&deployment.path("k2.card")).unwrap();
    twice.party = Party::K1;
    std::fs::remove_file(deployment.path("k1.card")).unwrap();
    write_card(&deployment.path("k1.card"), &twice).unwrap();
    assert!(matches!(
        refusal(&deployment, Party::K0, unlock()).await,
        ServeError::SharedKey { first: Party::K1, second: Party::K2 }
    ));
    restore();
    // A card of this holder, but of other keys.
    let other = read_card(&Deployment::new().path("k0.card")).unwrap();
    std::fs::remove_file(deployment.path("k0.card")).unwrap();
    write_card(&deployment.path("k0.card"), &other).unwrap();
    assert!(matches!(refusal(&deployment, Party::K0, unlock()).await, ServeError::CardOfOtherKeys));
    restore();
    place("k1.pem", "k0.pem");
    assert!(matches!(refusal(&deployment, Party::K0, unlock()).await, ServeError::CertificateOfOther { .. }));
    restore();
    deployment.start(Party::K0).await.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_another_process_uses() {
    let deployment = Deployment::new();
    let running = deployment.start(Party::K0).await;
    let mut config = deployment.config(Party::K0);
    config.listen.set_port(0);
    let error = Server::open(config, unlock()).await.map(drop).unwrap_err();
    assert_eq!(error.code(), "store-in-use");
    assert_eq!(refusal(&deployment, Party::K0, unlock()).await.code(), "cannot-listen");
    running.stop().await.unwrap();
}
