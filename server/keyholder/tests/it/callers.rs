//! Who may call what: the name in the certificate decides, before anything else is looked at.

use tonic::{Code, Status};
use veilmatch_domain::Party;
use veilmatch_keyholder::card::read_card;
use veilmatch_transport::{Name, QueueLimits, queue};
use veilmatch_wire::v1::{AuditRequest, ProbeSharesRequest, RestoreRequest, SignedRequest, StatusRequest};

use crate::deployment::{Client, Deployment, code, operator};

async fn call(client: &mut Client, rpc: &str) -> Result<(), Status> {
    let (_outlet, outgoing) = queue(QueueLimits { messages: 1, bytes: 1 });
    let request = SignedRequest { request: b"nonsense".to_vec().into() };
    match rpc {
        "Status" => client.status(StatusRequest {}).await.map(drop),
        "Administer" => client.administer(request).await.map(drop),
        "Ceremony" => client.ceremony(request).await.map(drop),
        "Recrypt" => client.recrypt(outgoing).await.map(drop),
        "Decide" => client.decide(outgoing).await.map(drop),
        "Peer" => client.peer(outgoing).await.map(drop),
        "ProbeShares" => client.probe_shares(ProbeSharesRequest {}).await.map(drop),
        "Audit" => client.audit(AuditRequest { from_sequence: 0, limit: 1 }).await.map(drop),
        "Restore" => {
            let party = veilmatch_wire::v1::Party::K0.into();
            client.restore(RestoreRequest { party, key: Vec::new().into() }).await.map(drop)
        }
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_refused_to_everybody_else() {
    let deployment = Deployment::new();
    let running = deployment.start(Party::K1).await;
    let client = Name::Client("desk-1".parse().unwrap());
    let (k0, k1, k2) = (Name::Holder(Party::K0), Name::Holder(Party::K1), Name::Holder(Party::K2));
    let everybody = [operator(), client, Name::Matcher, Name::Twin, k0.clone(), k1, k2];
    let allowed = |rpc: &str, name: &Name| match rpc {
        "Status" => true,
        "Administer" | "Ceremony" | "Audit" => *name == operator(),
        "Recrypt" | "Decide" => *name == Name::Matcher,
        // What goes to the twin never goes to the matcher.
        "ProbeShares" => *name == Name::Twin,
        // K0 dials K1, K1 dials K2; only the holder that lost its keys asks for them.
        "Peer" | "Restore" => *name == k0,
        other => panic!("{other}"),
    };
    for name in &everybody {
        let mut caller = deployment.call_as(name, Party::K1);
        for rpc in ["Status", "Administer", "Ceremony", "Recrypt", "Decide", "Peer", "ProbeShares", "Audit", "Restore"]
        {
            let answer = call(&mut caller, rpc).await;
            if allowed(rpc, name) {
                let refused = answer.as_ref().is_err_and(|status| status.code() == Code::PermissionDenied);
                assert!(!refused, "{rpc} by {name}: {answer:?}");
                continue;
            }
            let status = answer.expect_err(rpc);
            let refusal = veilmatch_wire::refusal(&status).unwrap();
            assert_eq!((status.code(), refusal.code.as_str()), (Code::PermissionDenied, "not-for-caller"));
            assert!(status.message().contains("call with the certificate"), "{rpc} by {name}: {status:?}");
        }
    }
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_strangers_and_other_kinds_are_refused_with_the_reason() {
    let deployment = Deployment::new();
    let other = Deployment::new();
    let running = deployment.start(Party::K1).await;
    let mut client = deployment.operator(Party::K1);
    assert_eq!(code(client.administer(other.registration("gate")).await), "unknown-administrator");
    assert_eq!(code(client.ceremony(deployment.registration("gate")).await), "not-a-ceremony");
    let mut altered = deployment.registration("gate").request.to_vec();
    *altered.last_mut().unwrap() ^= 1;
    let request = SignedRequest { request: altered.into() };
    assert_eq!(client.administer(request).await.unwrap_err().code(), Code::PermissionDenied);
    let mut lost = deployment.call_as(&Name::Holder(Party::K0), Party::K1);
    let key = read_card(&deployment.path("k0.card")).unwrap().encryption.to_bytes();
    let request = RestoreRequest { party: veilmatch_wire::v1::Party::K0.into(), key: key.to_vec().into() };
    assert_eq!(code(lost.restore(request).await), "restore-not-allowed");
    running.stop().await.unwrap();
}
