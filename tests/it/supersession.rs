//! A template that another takes the place of: all at once at all parties, or not at all (the subject keeps the old one).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use veilmatch_cluster::{Address, ClusterError, Crash};
use veilmatch_domain::{Decision, Embedding, Outcome, Party, Purpose, Roles, SubjectId};
use veilmatch_glwe::{ToHolder, Verdict};
use veilmatch_holder::{AuditEvent, ClientRecord};
use veilmatch_tests::{at_cosine, query, random_unit};

use crate::cheating_client::Forger;
use crate::cheats::{D, Scene};

/// Another embedding for a person.
fn another(scene: &mut Scene) -> Embedding {
    random_unit(D, &mut scene.rng)
}

fn is_it(scene: &mut Scene, subject: &SubjectId, embedding: &Embedding) -> Result<Outcome, ClusterError> {
    let probe = at_cosine(embedding, 0.8, &mut scene.rng);
    scene.cluster.ask(&probe, query(Decision::Verify { subject: subject.clone() }, 0.4))
}

fn found(scene: &mut Scene, embedding: &Embedding) -> Outcome {
    let probe = at_cosine(embedding, 0.8, &mut scene.rng);
    scene.cluster.ask(&probe, query(Decision::Best, 0.4)).unwrap()
}

fn members(scene: &Scene) -> usize {
    let index = scene.cluster.matcher().index(scene.cluster.collection()).unwrap();
    assert!(index.overdue().is_empty() && index.pending().is_empty(), "everything is indexed as it is");
    index.groups().map(|group| group.members.len()).sum()
}

fn supersedes(mut scene: Scene) {
    let (subject, old) = scene.people[1].clone();
    let new = another(&mut scene);
    assert_eq!(is_it(&mut scene, &subject, &new), Ok(Outcome::Verify(false)));
    let before = members(&scene);
    assert_eq!(scene.cluster.supersede(&subject, &new).unwrap(), Verdict::Accepted);
    scene.assert_agree();
    assert_eq!(members(&scene), before, "one template for each");
    assert_eq!(is_it(&mut scene, &subject, &new), Ok(Outcome::Verify(true)));
    assert_eq!(is_it(&mut scene, &subject, &old), Ok(Outcome::Verify(false)), "the old template is gone");
    assert_eq!(found(&mut scene, &new), Outcome::Best(Some(subject.clone())));
    assert_eq!(found(&mut scene, &old), Outcome::Best(None));
    for party in Party::ALL {
        let noted = |entry: &&veilmatch_holder::AuditEntry| matches!(&entry.event, AuditEvent::Superseded { subject: whose, .. } if *whose == subject);
        assert_eq!(scene.cluster.log(party).iter().filter(noted).count(), 1);
        scene.cluster.restart(party).unwrap();
    }
    assert_eq!(is_it(&mut scene, &subject, &new), Ok(Outcome::Verify(true)), "after a restart too");
    scene.assert_agree();

    // Of somebody who has none it is an enrolment.
    let stranger = scene.person();
    assert_eq!(scene.cluster.supersede(&stranger.0, &stranger.1).unwrap(), Verdict::Accepted);
    assert_eq!(is_it(&mut scene, &stranger.0, &stranger.1), Ok(Outcome::Verify(true)));
    assert_eq!(members(&scene), before + 1);

    // Erased like any other.
    scene.cluster.erase(&subject).unwrap();
    assert!(is_it(&mut scene, &subject, &new).is_err());
    assert_eq!(found(&mut scene, &new), Outcome::Best(None));
    scene.assert_works();
}

#[test]
fn one_takes_the_place_of_the_other() {
    supersedes(Scene::new(950, &[4, 2]));
}

#[test]
fn under_paillier_too() {
    let mut scene = Scene::paillier(951);
    scene.enrol_batches(&[4]);
    supersedes(scene);
}

/// The only member of a group, so that nothing is left of the group.
#[test]
fn of_the_last_member_of_a_group() {
    let mut scene = Scene::new(952, &[1]);
    let (subject, old) = scene.people[0].clone();
    for _ in 0..3 {
        let new = another(&mut scene);
        assert_eq!(scene.cluster.supersede(&subject, &new).unwrap(), Verdict::Accepted);
        assert_eq!(members(&scene), 1);
        assert_eq!(is_it(&mut scene, &subject, &new), Ok(Outcome::Verify(true)));
        assert_eq!(found(&mut scene, &old), Outcome::Best(None));
    }
    scene.assert_agree();
}

/// What is refused changes nothing: a vector that is too long, a client that may not erase, a template that was superseded before.
#[test]
fn refused_it_leaves_the_old_one() {
    let mut scene = Scene::new(953, &[3]);
    let (subject, old) = scene.people[1].clone();
    let before = scene.before();
    let mut forger = Forger::new(&scene);
    forger.purpose(Purpose::Supersede { subject: subject.clone() });
    let mut values = vec![0u64; D];
    values[0] = 3 << 18;
    let request = scene.cluster.client.enroll(scene.cluster.collection(), vec![forger.seal(&values)], false);
    let verdicts = veilmatch_sdk::Client::read_enrolled(&scene.cluster.request(request).unwrap()).unwrap();
    assert!(matches!(&verdicts[..], [Verdict::Refused(r)] if r.code == "not-unit-norm"), "{verdicts:?}");

    let (id, key) = (scene.cluster.client.id().clone(), scene.cluster.client.verifying_key());
    let enrols = ClientRecord {
        roles: Roles { enroll: true, verify: true, ..Roles::default() },
        ..ClientRecord::with_all_roles(key)
    };
    scene.cluster.register_as(&id, &enrols);
    let new = another(&mut scene);
    let verdict = scene.cluster.supersede(&subject, &new).unwrap();
    assert!(matches!(&verdict, Verdict::Refused(r) if r.code == "role-missing"), "{verdict:?}");
    let verdicts = scene.enrol(&[(subject.clone(), new.clone())]).unwrap();
    assert!(matches!(&verdicts[..], [Verdict::Refused(r)] if r.code == "already-enrolled"), "{verdicts:?}");
    scene.cluster.register_as(&id, &ClientRecord::with_all_roles(key));
    assert_eq!(scene.before().registry(), before.registry());
    assert_eq!(is_it(&mut scene, &subject, &old), Ok(Outcome::Verify(true)));

    // A matcher that brings back what was superseded.
    let sent: Arc<Mutex<Option<ToHolder>>> = Arc::default();
    let kept = Arc::clone(&sent);
    scene.wire.cheat_holders(move |_, message| {
        if let ToHolder::Admit { .. } = message {
            *kept.lock().unwrap() = Some(message.clone());
        }
        true
    });
    assert_eq!(scene.cluster.supersede(&subject, &new).unwrap(), Verdict::Accepted);
    scene.wire.honest();
    let newest = another(&mut scene);
    assert_eq!(scene.cluster.supersede(&subject, &newest).unwrap(), Verdict::Accepted);
    let Some(ToHolder::Admit { attempt, collection, templates }) = sent.lock().unwrap().take() else { panic!() };
    let again = borsh::to_vec(&ToHolder::Admit { attempt: attempt + 1000, collection, templates }).unwrap();
    for party in Party::ALL {
        scene.cluster.network.send(Address::Matcher, Address::Holder(party), again.clone());
    }
    scene.cluster.run();
    scene.cluster.pass_deadlines();
    scene.cluster.take_failures();
    assert_eq!(is_it(&mut scene, &subject, &newest), Ok(Outcome::Verify(true)));
    assert_eq!(is_it(&mut scene, &subject, &new), Ok(Outcome::Verify(false)));
    scene.assert_works();
}

/// Whenever a holder crashes, the subject has one template afterwards, the old one or the new one, at all parties.
#[test]
fn crashes_leave_the_old_one_or_the_new_one() {
    let mut scene = Scene::new(954, &[3]);
    let (subject, mut old) = scene.people[1].clone();
    let (mut kept, mut replaced) = (0, 0);
    for party in [Party::K0, Party::K2] {
        for crash in [Crash::BeforeSaving, Crash::BeforeRecords, Crash::BeforeSending, Crash::AfterSending] {
            for nth in 0.. {
                let new = another(&mut scene);
                let seen = Arc::new(AtomicUsize::new(0));
                let count = Arc::clone(&seen);
                scene.cluster.crashes = Some(Box::new(move |at, _| {
                    let number = if at == party { count.fetch_add(1, Ordering::Relaxed) } else { return None };
                    (number == nth).then_some(crash)
                }));
                let result = scene.cluster.supersede(&subject, &new);
                scene.cluster.crashes = None;
                assert!(scene.cluster.take_broken().is_none());
                scene.cluster.pass_deadlines();
                scene.cluster.pass_deadlines();
                scene.cluster.take_failures();
                // What is stored is indexed with the next change at the latest.
                let next = scene.person();
                assert_eq!(scene.enrol(std::slice::from_ref(&next)).unwrap(), [Verdict::Accepted], "{crash:?} {nth}");
                scene.cluster.erase(&next.0).unwrap();
                scene.assert_agree();
                let is_new = is_it(&mut scene, &subject, &new) == Ok(Outcome::Verify(true));
                let is_old = is_it(&mut scene, &subject, &old) == Ok(Outcome::Verify(true));
                assert!(is_new != is_old, "{crash:?} {nth}: old {is_old}, new {is_new}");
                if matches!(result, Ok(Verdict::Accepted)) {
                    assert!(is_new, "what was acknowledged is there: {crash:?} {nth}");
                }
                (kept, replaced) = (kept + usize::from(is_old), replaced + usize::from(is_new));
                if is_new {
                    old = new;
                }
                assert_eq!(members(&scene), 3);
                if seen.load(Ordering::Relaxed) <= nth {
                    break;
                }
            }
        }
    }
    assert!(kept > 5 && replaced > 5, "{kept} kept, {replaced} replaced");
    scene.assert_works();
}
