//! Holders that crash and start again from what they stored: nothing that was promised or committed is lost, nothing works
//! twice that must work once, and what was lost on the way is made good by the matcher's repetitions and deadlines.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use veilmatch_cluster::{ClusterError, Crash};
use veilmatch_domain::{Explain, Outcome, Party, Suspect};
use veilmatch_glwe::{ClientRequest, FromHolder, Layout, ToHolder, Verdict};
use veilmatch_holder::{AuditEntry, HolderError};
use veilmatch_sdk::Client;

use crate::cheats::Scene;

const CRASHES: [Crash; 4] = [Crash::BeforeSaving, Crash::BeforeRecords, Crash::BeforeSending, Crash::AfterSending];

/// Crashes a holder at its nth reaction from now.
fn crash_at(scene: &mut Scene, party: Party, nth: usize, crash: Crash) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    scene.cluster.crashes = Some(Box::new(move |at, _| {
        let number = if at == party { seen.fetch_add(1, Ordering::Relaxed) } else { return None };
        (number == nth).then_some(crash)
    }));
    count
}

/// How many reactions of a holder an operation takes.
fn reactions(scene: &mut Scene, party: Party, operation: impl FnOnce(&mut Scene)) -> usize {
    let count = crash_at(scene, party, usize::MAX, Crash::AfterSending);
    operation(scene);
    scene.cluster.crashes = None;
    count.load(Ordering::Relaxed)
}

fn calm(scene: &mut Scene) {
    scene.cluster.crashes = None;
    assert!(scene.cluster.take_broken().is_none());
    // Sessions that lost a party end at their deadlines.
    scene.cluster.pass_deadlines();
    scene.cluster.take_failures();
    for party in Party::ALL {
        assert_eq!(AuditEntry::first_break(scene.cluster.log(party)), None);
    }
}

/// Every holder, restarted between two operations, sees what it saw.
#[test]
fn a_restart_changes_nothing() {
    let mut scene = Scene::new(800, &[3, 2]);
    let gone = scene.people[4].0.clone();
    scene.cluster.erase(&gone).unwrap();
    let before = scene.before();
    let heads = Party::ALL.map(|p| scene.cluster.holder(p).audit_head());
    for party in Party::ALL {
        scene.cluster.restart(party).unwrap();
    }
    assert_eq!(scene.before(), before);
    assert_eq!(Party::ALL.map(|p| scene.cluster.holder(p).audit_head()), heads);
    scene.assert_works();
    scene.cluster.rotate().unwrap();
    let epochs = Party::ALL.map(|p| scene.cluster.holder(p).epochs().collect::<Vec<_>>());
    for party in Party::ALL {
        scene.cluster.restart(party).unwrap();
    }
    assert_eq!(Party::ALL.map(|p| scene.cluster.holder(p).epochs().collect::<Vec<_>>()), epochs);
    assert!(epochs.iter().all(|e| e.len() == 1), "old seeds are forgotten on disk too");
    let person = scene.person();
    assert_eq!(scene.enrol(&[person]).unwrap(), [Verdict::Accepted]);
    scene.assert_works();
}

#[test]
fn crashes_in_an_enrolment() {
    let party = Party::K1;
    let mut scene = Scene::new(801, &[3]);
    let person = scene.person();
    let steps = reactions(&mut scene, party, |scene| drop(scene.enrol(&[person]).unwrap()));
    assert!(steps > 10, "{steps}");
    for crash in CRASHES {
        let mut scene = Scene::new(802, &[3]);
        for nth in 0..steps {
            let place = scene.people.len();
            let person = scene.person();
            crash_at(&mut scene, party, nth, crash);
            let result = scene.enrol(std::slice::from_ref(&person));
            calm(&mut scene);
            let next = scene.person();
            assert_eq!(scene.enrol(&[next]).unwrap(), [Verdict::Accepted], "{crash:?} {nth}");
            scene.assert_agree();
            let enrolled = scene.cluster.holder(party).enrolled(scene.cluster.collection(), &person.0).is_some();
            if matches!(result.as_deref(), Ok([Verdict::Accepted])) {
                assert!(enrolled, "what was acknowledged is there: {crash:?} {nth}");
            }
            if !enrolled {
                assert_eq!(scene.enrol(&[person]).unwrap(), [Verdict::Accepted], "{crash:?} {nth}");
            }
            assert_eq!(scene.verify(place), Ok(Outcome::Verify(true)), "{crash:?} {nth}");
            for place in [place, place + 1] {
                let subject = scene.people[place].0.clone();
                scene.cluster.erase(&subject).unwrap();
            }
        }
    }
}

#[test]
fn crashes_in_a_query() {
    for party in Party::ALL {
        let mut scene = Scene::new(810 + party.index() as u64, &[3]);
        let steps = reactions(&mut scene, party, |scene| drop(scene.verify(1).unwrap()));
        for crash in CRASHES {
            for nth in 0..steps {
                let before = scene.before();
                let log = scene.cluster.log(party).len();
                crash_at(&mut scene, party, nth, crash);
                match scene.verify(1) {
                    Ok(outcome) => assert_eq!(outcome, Outcome::Verify(true)),
                    Err(ClusterError::Client(error)) => assert!(!error.suspects().is_empty(), "{error:?}"),
                    Err(other) => panic!("{other:?}"),
                }
                calm(&mut scene);
                assert!(scene.cluster.log(party).len() >= log);
                assert_eq!(scene.before().registry(), before.registry());
                scene.assert_works();
            }
        }
    }
}

#[test]
fn crashes_in_an_erasure() {
    for party in Party::ALL {
        let mut scene = Scene::new(820 + party.index() as u64, &[3]);
        let person = scene.person();
        scene.enrol(std::slice::from_ref(&person)).unwrap();
        let steps = reactions(&mut scene, party, |scene| scene.cluster.erase(&person.0).unwrap());
        for crash in CRASHES {
            for nth in 0..steps {
                let place = scene.people.len();
                let person = scene.person();
                assert_eq!(scene.enrol(std::slice::from_ref(&person)).unwrap(), [Verdict::Accepted]);
                crash_at(&mut scene, party, nth, crash);
                let erased = scene.cluster.erase(&person.0);
                calm(&mut scene);
                if erased.is_err() && scene.cluster.matcher().stores(scene.cluster.collection(), &person.0) {
                    assert_eq!(scene.cluster.erase(&person.0), Ok(()), "{crash:?} {nth}");
                }
                scene.assert_agree();
                assert!(scene.verify(place).is_err());
                scene.assert_works();
            }
        }
    }
}

#[test]
fn crashes_in_a_ceremony() {
    for party in Party::ALL {
        let mut scene = Scene::new(830 + party.index() as u64, &[3]);
        let steps = reactions(&mut scene, party, |scene| scene.cluster.begin_epoch().unwrap());
        for crash in CRASHES {
            for nth in 0..steps {
                crash_at(&mut scene, party, nth, crash);
                let result = scene.cluster.begin_epoch();
                assert!(matches!(result, Ok(()) | Err(ClusterError::Ceremony)), "{result:?}");
                calm(&mut scene);
                if result.is_err() {
                    scene.cluster.begin_epoch().unwrap();
                }
                scene.assert_works();
            }
        }
        scene.cluster.rotate().unwrap();
        scene.assert_works();
    }
}

/// Between the promise and the `Commit` all three holders crash: the admission, then the build, is committed all the same,
/// and a `Commit` that is repeated after a crash is acknowledged.
#[test]
fn promises_outlive_a_crash() {
    let mut scene = Scene::new(840, &[3]);
    let person = scene.person();
    let mut commits = 0;
    scene.wire.cheat_holders(move |_, message| {
        commits += usize::from(matches!(message, ToHolder::Commit { .. }));
        !matches!(message, ToHolder::Commit { .. }) || commits > 6 || commits % 2 == 0
    });
    let result = scene.enrol(std::slice::from_ref(&person));
    for party in Party::ALL {
        scene.cluster.restart(party).unwrap();
    }
    scene.wire.honest();
    scene.cluster.pass_deadlines();
    scene.cluster.pass_deadlines();
    assert!(matches!(result.as_deref(), Ok([Verdict::Accepted]) | Err(ClusterError::Client(_))), "{result:?}");
    scene.assert_agree();
    let next = scene.person();
    assert_eq!(scene.enrol(&[next]).unwrap(), [Verdict::Accepted]);
    assert_eq!(scene.verify(3), Ok(Outcome::Verify(true)));
    scene.assert_works();
}

/// A promise of an attempt that was given up does not stand in the way after a crash.
#[test]
fn a_later_attempt_ends_an_earlier_promise() {
    let mut scene = Scene::new(841, &[3]);
    let person = scene.person();
    scene.wire.cheat(|delivery| {
        let abandon = matches!(borsh::from_slice(&delivery.bytes), Ok(ToHolder::Abandon { .. }));
        let of_k0 = delivery.from == veilmatch_cluster::Address::Holder(Party::K0);
        let verdict = matches!(borsh::from_slice(&delivery.bytes), Ok(FromHolder::Admitted { .. }));
        !(abandon || (of_k0 && verdict))
    });
    let result = scene.enrol(std::slice::from_ref(&person));
    scene.assert_refused(result, "timed-out", Suspect::Holder(Party::K0));
    scene.wire.honest();
    for party in Party::ALL {
        scene.cluster.restart(party).unwrap();
    }
    assert_eq!(scene.enrol(&[person]).unwrap(), [Verdict::Accepted]);
    assert_eq!(scene.verify(3), Ok(Outcome::Verify(true)));
}

/// What worked once does not work again after all holders have restarted.
#[test]
fn nothing_works_twice_across_restarts() {
    let mut scene = Scene::new(842, &[3]);
    let sent: Arc<Mutex<Vec<ToHolder>>> = Arc::default();
    let kept = Arc::clone(&sent);
    scene.wire.cheat_holders(move |to, message| {
        if to == Party::K0 {
            kept.lock().unwrap().push(message.clone());
        }
        true
    });
    let (person, stays) = (scene.person(), scene.person());
    scene.enrol(&[person.clone(), stays]).unwrap();
    scene.verify(3).unwrap();
    scene.cluster.erase(&person.0).unwrap();
    scene.wire.honest();
    for party in Party::ALL {
        scene.cluster.restart(party).unwrap();
    }
    let before = scene.before();
    let sent = std::mem::take(&mut *sent.lock().unwrap());
    let mut codes = Vec::new();
    for message in sent {
        let replay = match message {
            // A new attempt with the old template, and an order that is repeated word for word.
            ToHolder::Admit { attempt, collection, templates } => {
                ToHolder::Admit { attempt: attempt + 1000, collection, templates }
            }
            ToHolder::Build(mut order) => {
                order.attempt += 1000;
                order.layout = Layout::new(order.layout.beta(), order.layout.rank() * 2).unwrap();
                ToHolder::Build(order)
            }
            message @ (ToHolder::Ask { .. } | ToHolder::Sums { .. }) => message,
            _ => continue,
        };
        for party in Party::ALL {
            let bytes = borsh::to_vec(&replay).unwrap();
            scene.cluster.network.send(
                veilmatch_cluster::Address::Matcher,
                veilmatch_cluster::Address::Holder(party),
                bytes,
            );
        }
        scene.cluster.run();
        scene.cluster.pass_deadlines();
        codes.extend(scene.cluster.take_failures().into_iter().map(|(_, error)| error.code()));
    }
    for code in ["replayed", "unknown-session", "label-reused"] {
        assert!(codes.contains(&code), "{code}: {codes:?}");
    }
    assert_eq!(scene.before(), before);
    scene.assert_works();
}

/// An erasure that one holder missed and a later one overtook must not erase who was enrolled again since.
#[test]
fn a_stale_erasure_spares_a_later_enrolment() {
    let mut scene = Scene::new(843, &[4]);
    let (subject, embedding) = scene.people[3].clone();
    // A matcher that tells K2 nothing of the first erasure, and all three of a second one.
    let collection = scene.cluster.collection().clone();
    let sign = |scene: &mut Scene| {
        let now = scene.cluster.now;
        let request = scene.cluster.client.erase(&collection, subject.clone(), now);
        let Ok(ClientRequest::Erase { request }) = borsh::from_slice(&request) else { panic!() };
        borsh::to_vec(&ToHolder::Erase { request }).unwrap()
    };
    let tell = |scene: &mut Scene, parties: &[Party], bytes: &[u8]| {
        for &party in parties {
            let to = veilmatch_cluster::Address::Holder(party);
            scene.cluster.network.send(veilmatch_cluster::Address::Matcher, to, bytes.to_vec());
        }
        scene.cluster.run();
    };
    let stale = sign(&mut scene);
    tell(&mut scene, &[Party::K0, Party::K1], &stale);
    scene.cluster.now.0 += 60;
    let later = sign(&mut scene);
    tell(&mut scene, &Party::ALL, &later);
    scene.cluster.erase(&subject).unwrap();
    scene.enrol(&[(subject.clone(), embedding)]).unwrap();
    scene.assert_agree();
    for party in Party::ALL {
        scene.cluster.restart(party).unwrap();
    }
    let before = scene.before();
    tell(&mut scene, &Party::ALL, &stale);
    let refused = scene.cluster.take_failures();
    assert_eq!(refused, Party::ALL.map(|party| (party, HolderError::Replayed)));
    assert_eq!(scene.before(), before);
    assert_eq!(scene.verify(3), Ok(Outcome::Verify(true)));
}

/// Requests that would have to be remembered for longer than a holder is willing to.
#[test]
fn requests_that_expire_too_late() {
    let mut scene = Scene::new(844, &[3]);
    let (collection, now) = (scene.cluster.collection().clone(), scene.cluster.now);
    scene.cluster.now.0 -= 7200;
    let subject = scene.people[1].0.clone();
    let late = scene.cluster.client.erase(&collection, subject, veilmatch_domain::Timestamp(now.0 + 2 * 86_400));
    let answer = scene.cluster.request(late).unwrap();
    assert_eq!(Client::read_erased(&answer).unwrap_err().reason(), "expires-too-late");
    let person = scene.person();
    let sealed = scene.cluster.client.seal_template(&collection, person.0, &person.1, now).unwrap();
    let request = scene.cluster.client.enroll(&collection, vec![sealed], false);
    let answer = scene.cluster.request(request).unwrap();
    let verdicts = Client::read_enrolled(&answer).unwrap();
    assert!(matches!(&verdicts[0], Verdict::Refused(r) if r.code == "expires-too-late"), "{verdicts:?}");
    let probe = scene.people[0].1.clone();
    let query = veilmatch_tests::query(veilmatch_domain::Decision::Exists, 0.4);
    let (request, pending) = scene.cluster.client.ask(&collection, &probe, query, now).unwrap();
    assert!(matches!(borsh::from_slice(&request), Ok(ClientRequest::Ask { .. })));
    let answer = scene.cluster.request(request).unwrap();
    assert_eq!(pending.read(&answer).unwrap_err().reason(), "expires-too-late");
    scene.cluster.take_failures();
    scene.assert_works();
}
