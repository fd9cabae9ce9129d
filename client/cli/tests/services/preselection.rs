//! Searches in two stages through real processes: the index in two segments on disk, before and after a restart.

use veilmatch_cli::local::Role;
use veilmatch_cli::synthetic;
use veilmatch_domain::{
    CollectionDescription, CollectionId, Dimension, Embedding, Outcome, Party, Policy, Preselection, PreselectionRules,
    Status, SubjectId, Threshold,
};
use veilmatch_sdk::{Ask, Collection};
use veilmatch_sealed::Administration;

use crate::cluster::{Cluster, RECOVERY, Setup, assert_refused, described, person, until};

const PEOPLE: u64 = 8;

fn wide(number: u64) -> Embedding {
    let dimension = Dimension::new(256).unwrap();
    synthetic::people(1, 1, dimension, number).unwrap().pop().unwrap().pop().unwrap()
}

fn coarse(threshold: f64, most_groups: u32) -> Preselection {
    Preselection { dimensions: 128, threshold: Threshold::new(threshold).unwrap(), most_groups }
}

async fn set_policy(cluster: &Cluster, collection: &CollectionId, rules: Option<PreselectionRules>) {
    let policy = Policy { preselection: rules, ..Policy::permissive(Dimension::new(256).unwrap()) };
    let description = CollectionDescription { parameters: "glwe-2048-v1".parse().unwrap(), group_capacity: 2 };
    let action = Administration::SetPolicy { collection: collection.clone(), policy, description };
    cluster.running.operator.at_holders(&Party::ALL, &action).await.unwrap();
    cluster.running.operator.create_collection(action).await.unwrap();
}

async fn all_are_found(faces: &Collection) {
    let threshold = Threshold::new(0.7).unwrap();
    for number in 0..PEOPLE {
        let found = Outcome::Best(Some(SubjectId::new(person(number)).unwrap()));
        let two_stages = faces.identify_preselected(&wide(number), Ask::Best, threshold, coarse(0.25, 4)).await;
        assert_eq!(two_stages.map_err(|e| described(&e)), Ok(found.clone()));
        assert_eq!(faces.identify(&wide(number), Ask::Best, threshold).await.unwrap(), found);
    }
    let nobody = faces.identify_preselected(&wide(9999), Ask::Exists, threshold, coarse(0.9, 1)).await.unwrap();
    assert_eq!(nobody, Outcome::Exists(false));
    let error = faces.identify_preselected(&wide(0), Ask::Best, threshold, coarse(-0.9, 1)).await.unwrap_err();
    assert_refused(&error, Status::FailedPrecondition, &["too-many-candidates"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stages_before_and_after_a_restart() {
    let setup = Setup::new().await;
    setup.append(Role::Matcher, "\n[index]\nhot_dimensions = 128\n");
    let mut cluster = setup.start().await;
    let wide_faces = CollectionId::new("wide").unwrap();
    set_policy(&cluster, &wide_faces, None).await;
    let faces = cluster.veilmatch.collection("wide").unwrap();
    let people = (0..PEOPLE).map(|n| (SubjectId::new(person(n)).unwrap(), wide(n)));
    assert_eq!(faces.enroll_many(people, |_| ()).await.unwrap().accepted() as u64, PEOPLE);
    until("all are searchable", RECOVERY, async || faces.info().await.is_ok_and(|info| info.pending == 0)).await;

    let threshold = Threshold::new(0.7).unwrap();
    let error = faces.identify_preselected(&wide(0), Ask::Best, threshold, coarse(0.25, 4)).await.unwrap_err();
    assert_refused(&error, Status::PermissionDenied, &["preselection-not-allowed"]);
    let lowest_threshold = Threshold::new(-0.9).unwrap();
    set_policy(
        &cluster,
        &wide_faces,
        Some(PreselectionRules { least_dimensions: 128, most_groups: 4, lowest_threshold }),
    )
    .await;
    all_are_found(&faces).await;
    let other = Preselection { dimensions: 192, ..coarse(0.25, 4) };
    let error = faces.identify_preselected(&wide(0), Ask::Best, threshold, other).await.unwrap_err();
    assert_eq!(error.reason(), "not-segmented", "{}", described(&error));

    // The groups lie in two files each, and are searched from them by the next process.
    let cold = |cluster: &Cluster| {
        let folder = cluster.running.deployment().matcher_config().parent().unwrap().join("data/index/wide");
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|ending| ending == "cold")).count()
    };
    assert!(cold(&cluster) >= 4);
    cluster.kill(Role::Matcher).await;
    cluster.restart(Role::Matcher).await;
    until("the matcher answers again", RECOVERY, async || {
        faces.identify(&wide(1), Ask::Exists, threshold).await.is_ok_and(|found| found == Outcome::Exists(true))
    })
    .await;
    all_are_found(&faces).await;
    cluster.recovers().await;
}
