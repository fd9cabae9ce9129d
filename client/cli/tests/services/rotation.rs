//! A new key epoch while people are enrolled and queries go on.

use tokio::sync::watch;
use veilmatch_domain::Party;

use crate::cluster::{Cluster, PEOPLE, RECOVERY, described, face, people, person, threshold, until};

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_while_queries_go_on() {
    let cluster = Cluster::start().await;
    cluster.faces.enroll_many(people(100..130), |_| ()).await.unwrap();
    cluster.indexed(PEOPLE + 30).await;
    let before = cluster.veilmatch.server_info().await.unwrap().key_epoch.unwrap();

    let (stop, stopped) = watch::channel(false);
    let faces = cluster.faces.clone();
    let asking = tokio::spawn(async move {
        let mut answered = 0;
        while !*stopped.borrow() {
            for number in [0, 101, 129] {
                match faces.verify(&person(number), &face(number), threshold()).await {
                    Ok(same) => assert!(same, "{}", person(number)),
                    Err(error) => panic!("{}: {}", person(number), described(&error)),
                }
                answered += 1;
            }
        }
        answered
    });
    let epoch = cluster.running.operator.ceremony().await.unwrap();
    assert!(epoch > before);
    until("the matcher builds under the new epoch", RECOVERY, async || {
        cluster.veilmatch.server_info().await.unwrap().key_epoch == Some(epoch)
    })
    .await;
    // When the last group of the old epoch is gone, its seeds are forgotten.
    for party in Party::ALL {
        until("everything is built anew", RECOVERY, async || {
            cluster.running.operator.status(party).await.unwrap().epochs == [epoch.0]
        })
        .await;
    }
    stop.send(true).unwrap();
    assert!(asking.await.unwrap() > 0);
    for number in (100..130).step_by(5) {
        cluster.finds(number).await.unwrap();
    }
    cluster.recovers().await;
}
