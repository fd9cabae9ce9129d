//! The very same bytes, sent twice at once, again later, and again after all processes have been started anew.

use tonic::Status as RpcStatus;
use veilmatch_cli::local::Role;
use veilmatch_domain::{CollectionId, Decision, Query, Status, SubjectId, TemplateVersion};
use veilmatch_glwe::{Refusal, Verdict};
use veilmatch_sdk::{Client, Options};
use veilmatch_sealed::ClientSigningKey;
use veilmatch_secret::os_entropy;
use veilmatch_service::now;
use veilmatch_transport::{Connection, Name, channel};
use veilmatch_wire::v1::matcher_client::MatcherClient;
use veilmatch_wire::{refusal, v1};

use crate::cluster::{Cluster, PEOPLE, face, person, threshold};

/// A client that sends bytes as they are.
struct Raw {
    client: Client,
    faces: CollectionId,
    matcher: MatcherClient<Connection>,
}

fn refused(status: &RpcStatus) -> Refusal {
    refusal(status).unwrap_or_else(|| panic!("a status without a reason: {status:?}"))
}

impl Raw {
    fn new(cluster: &Cluster) -> Self {
        let Options { matcher, security, holders, client, signing_key, .. } =
            cluster.running.deployment().client_options().unwrap();
        let key = ClientSigningKey::from_bytes(signing_key.secret_bytes().expose());
        Self {
            client: Client::with_key(client, TemplateVersion(1), holders, key, os_entropy()),
            faces: CollectionId::new("faces").unwrap(),
            matcher: MatcherClient::new(channel(&matcher, &security, &Name::Matcher).unwrap()),
        }
    }

    async fn verify(&self, probe: &[u8]) -> Result<v1::SealedAnswer, RpcStatus> {
        let request = v1::SealedQuery { sealed_probe: probe.to_vec().into() };
        Ok(self.matcher.clone().verify(request).await?.into_inner())
    }

    async fn enrol(&self, template: &[u8]) -> Result<Verdict, RpcStatus> {
        let sealed_templates = vec![template.to_vec().into()];
        let request = v1::EnrollRequest { collection: self.faces.to_string(), sealed_templates };
        let mut answer = self.matcher.clone().enroll(request).await?.into_inner();
        Ok(answer.results.remove(0).verdict().unwrap())
    }

    async fn erase(&self, signed: &[u8]) -> Result<v1::EraseResponse, RpcStatus> {
        let request = v1::EraseRequest { signed_erasure: signed.to_vec().into() };
        Ok(self.matcher.clone().erase(request).await?.into_inner())
    }
}

fn assert_replay(refusal: &Refusal) {
    let expected = ["replayed", "session-spent", "wrong-use"];
    assert!(expected.contains(&refusal.code.as_str()), "{refusal:?}");
    let status = refusal.status();
    let statuses = [Status::PermissionDenied, Status::FailedPrecondition, Status::InvalidArgument];
    assert!(statuses.contains(&status), "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_again() {
    let mut cluster = Cluster::start().await;
    let mut raw = Raw::new(&cluster);
    let faces = raw.faces.clone();
    let subject = |number| SubjectId::new(person(number)).unwrap();

    // A probe gives one answer.
    let query = Query::new(Decision::Verify { subject: subject(0) }, threshold());
    let (probe, pending) = raw.client.seal_probe(&faces, &face(0), query, now()).unwrap();
    let (first, second) = tokio::join!(raw.verify(&probe), raw.verify(&probe));
    let (answered, refusals): (Vec<_>, Vec<_>) = [first, second].into_iter().partition(Result::is_ok);
    assert!(answered.len() <= 1);
    refusals.iter().for_each(|r| assert_replay(&refused(r.as_ref().unwrap_err())));
    if let Some(Ok(answer)) = answered.into_iter().next() {
        let outcome = pending.read_replies([&answer.reply_k0, &answer.reply_k1, &answer.reply_k2]);
        assert_eq!(outcome, Ok(veilmatch_domain::Outcome::Verify(true)));
    }
    assert_replay(&refused(&raw.verify(&probe).await.unwrap_err()));

    // A probe is no template.
    match raw.enrol(&probe).await {
        Ok(Verdict::Refused(refusal)) => assert_eq!(refusal.code, "wrong-use"),
        other => panic!("{other:?}"),
    }

    // A template that is stored is accepted again and stored once.
    let template = raw.client.seal_template(&faces, subject(700), &face(700), now()).unwrap();
    assert!(raw.verify(&template).await.is_err_and(|status| refused(&status).code == "wrong-use"));
    let (first, second) = tokio::join!(raw.enrol(&template), raw.enrol(&template));
    assert_eq!((first.unwrap(), second.unwrap()), (Verdict::Accepted, Verdict::Accepted));
    assert_eq!(raw.enrol(&template).await.unwrap(), Verdict::Accepted);
    cluster.indexed(PEOPLE + 1).await;

    // So is an erasure that was carried out; after it, the old template does not come back.
    let erasure = raw.client.sign_erasure(&faces, subject(700), now());
    raw.erase(&erasure).await.unwrap();
    raw.erase(&erasure).await.unwrap();
    let gone = |verdict: Verdict| match verdict {
        Verdict::Refused(refusal) => assert_replay(&refusal),
        Verdict::Accepted => panic!("an erased template was accepted again"),
    };
    gone(raw.enrol(&template).await.unwrap());
    cluster.indexed(PEOPLE).await;

    // The old erasure does not touch what was enrolled after it.
    let again = raw.client.seal_template(&faces, subject(700), &face(700), now()).unwrap();
    assert_eq!(raw.enrol(&again).await.unwrap(), Verdict::Accepted);
    let _ = raw.erase(&erasure).await;
    cluster.indexed(PEOPLE + 1).await;
    cluster.finds(700).await.unwrap();

    // All of it is remembered by processes that were killed and started anew.
    for role in Role::ALL {
        cluster.restart(role).await;
    }
    cluster.recovers().await;
    assert_replay(&refused(&raw.verify(&probe).await.unwrap_err()));
    gone(raw.enrol(&template).await.unwrap());
    let _ = raw.erase(&erasure).await;
    cluster.indexed(PEOPLE + 1).await;
    cluster.finds(700).await.unwrap();
    assert_eq!(raw.enrol(&again).await.unwrap(), Verdict::Accepted);
}
