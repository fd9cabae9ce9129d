//! Budgets and lock-out as the real services keep them.

use veilmatch_cli::local::Role;
use veilmatch_domain::{Budgets, CollectionId, LockOut, Party, Policy, Status, SubjectId};
use veilmatch_sealed::Administration;

use crate::cluster::{Setup, assert_refused, described, face, person, policy, threshold};

#[tokio::test(flavor = "multi_thread")]
async fn failures_lock_a_subject_and_budgets_end() {
    let mut setup = Setup::new().await;
    const PER_SUBJECT: u32 = 40;
    setup.policy(Policy {
        budgets: Budgets { window_seconds: 86_400, per_client: 0, per_subject: PER_SUBJECT, total: 0 },
        lock_out: LockOut { failures: 3, delay_seconds: 600, disable_after: 50 },
        ..policy()
    });
    let mut cluster = setup.start().await;
    let faces = cluster.once();
    let ask = async |subject: u64, probe: u64| faces.verify(&person(subject), &face(probe), threshold()).await;

    for impostor in 0..3 {
        assert!(!ask(1, 900 + impostor).await.unwrap());
    }
    let locked = async || {
        let error = ask(1, 1).await.unwrap_err();
        assert_refused(&error, Status::ResourceExhausted, &["locked-out"]);
        let wait = error.to_string();
        assert!(wait.contains("locked for another 5") || wait.contains("locked for another 600"), "{wait}");
    };
    locked().await;
    assert!(ask(2, 2).await.unwrap(), "others are not locked");

    for _ in 0..PER_SUBJECT {
        assert!(ask(3, 3).await.unwrap());
    }
    let spent = async || {
        let error = ask(3, 3).await.unwrap_err();
        assert_refused(&error, Status::ResourceExhausted, &["budget-exhausted"]);
        assert!(error.to_string().contains("for another"), "{}", described(&error));
    };
    spent().await;

    // Holders that were killed remember both.
    for party in Party::ALL {
        cluster.restart(Role::Holder(party)).await;
    }
    cluster.recovers().await;
    locked().await;
    spent().await;

    let (collection, subject) = (CollectionId::new("faces").unwrap(), SubjectId::new(person(1)).unwrap());
    let action = Administration::Unlock { collection, subject };
    cluster.running.operator.at_holders(&Party::ALL, &action).await.unwrap();
    assert!(ask(1, 1).await.unwrap());
    cluster.recovers().await;
}
