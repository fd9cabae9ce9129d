//! A disk that is full: nothing is acknowledged, the cause is said, and the holder goes on by itself when there is room.

use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tonic::Code;
use veilmatch_domain::Party;
use veilmatch_keyholder::{audit_file, audit_folder};

use crate::deployment::{Deployment, code, status, until};

/// Tells the test that it is the child, whose limits may change.
const CHILD: &str = "VEILMATCH_TEST_CHILD";
const NAME: &str = "full_disk::stops_on_a_full_disk_and_recovers_without_a_hand";

fn limit_files(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).unwrap();
}

#[test]
fn stops_on_a_full_disk_and_recovers_without_a_hand() {
    if std::env::var_os(CHILD).is_some() {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(fill_and_free());
        return;
    }
    // The shell ignores the signal of a file that exceeds its limit, so that writing fails as on a full disk.
    let child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" --exact \"$1\" --nocapture --test-threads=1"])
        .arg(std::env::current_exe().unwrap())
        .arg(NAME)
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && text.contains("1 passed"), "{text}");
}

async fn fill_and_free() {
    let deployment = Deployment::new();
    let running = deployment.start_all().await;
    deployment.ceremony(0).await;
    let mut client = deployment.operator(Party::K1);
    client.administer(deployment.registration("before")).await.unwrap();
    let before = status(&mut client).await.unwrap();

    limit_files(Some(1));
    let request = deployment.registration("during");
    let refused = client.administer(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(veilmatch_wire::refusal(&refused).unwrap().code, "storage-full");
    assert!(refused.message().contains("make room"), "{refused:?}");
    // Every call says so from now on.
    assert_eq!(code(client.administer(request.clone()).await), "storage-full");
    assert_eq!(code(status(&mut client).await), "storage-full");

    limit_files(None);
    until("it goes on", async || status(&mut deployment.operator(Party::K1)).await.is_ok()).await;
    deployment.all_connected().await;
    let after = status(&mut client).await.unwrap();
    assert_eq!((after.key_epoch, after.audit_entries), (before.key_epoch, before.audit_entries));
    assert_eq!(after.audit_head, before.audit_head, "what was not stored was not done");
    // The request was not used up, and what came before is known.
    client.administer(request).await.unwrap();
    assert_eq!(code(client.administer(deployment.registration("before")).await), "other-client-key");
    deployment.ceremony(1).await;
    for running in running {
        running.stop().await.unwrap();
    }
    let folder = audit_folder(&deployment.config(Party::K1).data);
    assert!(audit_file::verify(&folder, None).unwrap().entries > before.audit_entries);
}
