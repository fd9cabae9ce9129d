//! Clients of other tenants, revoked ones, and such that lack a role.

use veilmatch_domain::{ClientId, CollectionId, Explain as _, Outcome, Party, Roles, Status};
use veilmatch_sdk::{Ask, Collection, Error, Veilmatch};
use veilmatch_sealed::Administration;

use crate::cluster::{Cluster, PEOPLE, assert_refused, described, face, people, person, policy, threshold};

const DENIED: Status = Status::PermissionDenied;

/// What `faces` says to everything that a client can ask.
async fn errors(faces: &Collection) -> Vec<(&'static str, Error)> {
    let (known, probe) = (person(0), face(0));
    vec![
        ("verify", faces.verify(&known, &probe, threshold()).await.unwrap_err()),
        ("identify", faces.identify(&probe, Ask::Best, threshold()).await.unwrap_err()),
        ("enrol", faces.enroll("somebody", &face(77)).await.unwrap_err()),
        ("erase", faces.erase(&known).await.unwrap_err()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_may_not() {
    let cluster = Cluster::start().await;
    let others = CollectionId::new("others").unwrap();
    cluster.running.create_collection(&others, policy()).await.unwrap();

    // A client of another tenant: in its own collection everything, in ours nothing, not even names.
    let (_, options) = cluster.register("guest", Roles::ALL, Some(&["others"])).await;
    let guest = Veilmatch::prepare(options).unwrap();
    let (faces, own) = (guest.collection("faces").unwrap(), guest.collection("others").unwrap());
    for (what, error) in errors(&faces).await {
        assert_eq!((error.status(), error.reason()), (DENIED, "other-tenant"), "{what}: {}", described(&error));
    }
    assert_refused(&faces.info().await.unwrap_err(), DENIED, &["other-tenant"]);
    assert_refused(&faces.get(&person(0)).await.unwrap_err(), DENIED, &["other-tenant"]);
    assert_refused(&faces.templates(10, None).await.unwrap_err(), DENIED, &["other-tenant"]);
    let enrolment = faces.enroll_many(people(100..103), |_| ()).await.unwrap();
    assert!(enrolment.refused().count() == 3 && enrolment.refused().all(|(_, r)| r.code == "other-tenant"));
    let visible: Vec<String> = guest.collections().await.unwrap().into_iter().map(|c| c.name.to_string()).collect();
    assert_eq!(visible, ["others"]);
    own.enroll("alice", &face(900)).await.unwrap();
    assert!(own.verify("alice", &face(900), threshold()).await.unwrap());
    // The same name and the same face in two collections have nothing to do with each other.
    let best = cluster.faces.identify(&face(900), Ask::Best, threshold()).await.unwrap();
    assert_eq!(best, Outcome::Best(None));

    // The holders check for themselves, whatever the matcher has been told.
    let (key, options) = cluster.register("smuggler", Roles::ALL, Some(&["others"])).await;
    let client = ClientId::new("smuggler").unwrap();
    let action =
        Administration::RegisterClient { client, key: key.verifying_key(), roles: Roles::ALL, collections: None };
    cluster.running.operator.at_matcher(action).await.unwrap();
    for (what, error) in errors(&Cluster::open(options)).await {
        assert_eq!((error.status(), error.reason()), (DENIED, "other-tenant"), "{what}: {}", described(&error));
    }

    // Roles.
    let roles = Roles { verify: true, ..Roles::default() };
    let (_, options) = cluster.register("door", roles, None).await;
    let door = Cluster::open(options);
    assert!(door.verify(&person(0), &face(0), threshold()).await.unwrap());
    let error = door.identify(&face(0), Ask::Exists, threshold()).await.unwrap_err();
    assert_refused(&error, DENIED, &["role-missing"]);
    assert_refused(&door.enroll("somebody", &face(77)).await.unwrap_err(), DENIED, &["role-missing"]);
    assert_refused(&door.erase(&person(0)).await.unwrap_err(), DENIED, &["role-missing"]);

    // Revoked at the holders alone, then everywhere; and one that nobody knows.
    let (_, options) = cluster.register("former", Roles::ALL, None).await;
    let former = Cluster::open(options);
    assert!(former.verify(&person(0), &face(0), threshold()).await.unwrap());
    let action = Administration::RevokeClient { client: ClientId::new("former").unwrap() };
    cluster.running.operator.at_holders(&Party::ALL, &action).await.unwrap();
    for (what, error) in errors(&former).await {
        assert_eq!((error.status(), error.reason()), (DENIED, "client-revoked"), "{what}: {}", described(&error));
    }
    cluster.running.operator.at_matcher(action).await.unwrap();
    for (what, error) in errors(&former).await {
        assert_eq!((error.status(), error.reason()), (DENIED, "unknown-client"), "{what}: {}", described(&error));
    }

    assert_eq!(cluster.stored().await, (0..PEOPLE).map(person).collect::<Vec<_>>(), "nothing was changed");
    cluster.recovers().await;
}
