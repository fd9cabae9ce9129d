//! Holders whose heavy computation takes its time: frames wait for it, whatever order it ends in, and what ends too late has no
//! effect.

use std::collections::BTreeSet;

use veilmatch_domain::{Decision, Explain, Outcome, Party};
use veilmatch_glwe::Verdict;
use veilmatch_holder::{HolderError, SessionKind};
use veilmatch_sdk::Client;
use veilmatch_tests::query;

use crate::cheats::Scene;

/// Computes until nothing is left, each time another piece of what waits.
fn compute_all(scene: &mut Scene, order: usize) -> usize {
    scene.cluster.run();
    (0..).take_while(|step| scene.cluster.compute(order * step)).count()
}

fn enrolment(scene: &mut Scene) -> Vec<u8> {
    let (subject, embedding) = scene.person();
    let (collection, now) = (scene.cluster.collection().clone(), scene.cluster.now);
    let sealed = scene.cluster.client.seal_template(&collection, subject, &embedding, now).unwrap();
    scene.cluster.client.enroll(&collection, vec![sealed], false)
}

#[test]
fn results_may_come_in_any_order() {
    for order in 0..4 {
        let mut scene = Scene::new(970 + order as u64, &[3, 1]);
        scene.cluster.deferred = Some(Vec::new());
        let (collection, now) = (scene.cluster.collection().clone(), scene.cluster.now);
        let probes: Vec<_> = (0..3).map(|i| scene.people[i].1.clone()).collect();
        let asked: Vec<_> = probes
            .iter()
            .map(|probe| {
                let best = query(Decision::Best, 0.4);
                let (request, pending) = scene.cluster.client.ask(&collection, probe, best, now).unwrap();
                (scene.cluster.submit(request), pending)
            })
            .collect();
        let computed = compute_all(&mut scene, order);
        assert_eq!(computed, 9, "three queries at three holders");
        for (place, (id, pending)) in asked.into_iter().enumerate() {
            let answer = scene.cluster.answer_of(id).unwrap();
            let best = Outcome::Best(Some(scene.people[place].0.clone()));
            assert_eq!(pending.read(&answer), Ok(best));
        }
        let request = enrolment(&mut scene);
        let id = scene.cluster.submit(request);
        let computed = compute_all(&mut scene, order);
        assert!(computed >= 9, "reading, reading and recrypting: {computed}");
        let answer = scene.cluster.answer_of(id).unwrap();
        assert_eq!(Client::read_enrolled(&answer).unwrap(), [Verdict::Accepted]);
        scene.cluster.deferred = None;
        scene.assert_agree();
        assert_eq!(scene.verify(4), Ok(Outcome::Verify(true)));
    }
}

#[test]
fn what_ends_after_its_deadline_has_no_effect() {
    let mut scene = Scene::new(980, &[3]);
    let before = scene.before();
    scene.cluster.deferred = Some(Vec::new());
    let request = enrolment(&mut scene);
    let id = scene.cluster.submit(request);
    scene.cluster.run();
    for party in Party::ALL {
        let open: Vec<_> = scene.cluster.holder(party).open_sessions().collect();
        assert!(matches!(&open[..], [one] if one.kind == SessionKind::Admission && one.computing), "{open:?}");
    }
    let waiting: BTreeSet<_> = scene.cluster.deferred.iter().flatten().map(|(_, work)| work.session()).collect();
    assert_eq!(waiting.len(), 1);
    let answer = scene.cluster.answer_of(id).unwrap();
    assert_eq!(Client::read_enrolled(&answer).unwrap_err().reason(), "timed-out");
    let failures = scene.cluster.take_failures();
    let own: Vec<_> = failures.iter().filter(|(_, e)| !matches!(e, HolderError::PeerStopped { .. })).collect();
    assert!(!own.is_empty() && own.iter().all(|(_, e)| e.code() == "timed-out"), "{failures:?}");
    // This holder's own computation was late, and nobody else is blamed.
    assert!(own.iter().any(|(_, e)| e.suspects().is_empty()), "{failures:?}");
    assert_eq!(compute_all(&mut scene, 1), 3);
    assert_eq!(scene.cluster.take_failures(), []);
    assert_eq!(scene.before().registry().0, before.registry().0);
    scene.assert_agree();
    scene.cluster.deferred = None;
    scene.assert_works();
}
