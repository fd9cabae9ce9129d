//! A network that loses, repeats, cuts, alters, reorders and misattributes messages, one at a time, on every link of every
//! operation: it succeeds with the right answer or fails with an error that names somebody, and goes on working.

use std::collections::BTreeSet;

use veilmatch_cluster::{Address, ClusterError};
use veilmatch_domain::{Outcome, Party, Suspect};
use veilmatch_glwe::{FromHolder, ToHolder, Verdict};
use veilmatch_mpc::{Delivery, Fault, FaultKind};

use crate::cheats::Scene;

fn links() -> Vec<(Address, Address)> {
    let mut links = vec![(Address::Client, Address::Matcher), (Address::Matcher, Address::Client)];
    for party in Party::ALL {
        links.push((Address::Matcher, Address::Holder(party)));
        links.push((Address::Holder(party), Address::Matcher));
        links.extend(party.peers().map(|peer| (Address::Holder(party), Address::Holder(peer))));
    }
    links
}

fn kinds(from: Address, to: Address) -> Vec<FaultKind<Address>> {
    let other = Party::ALL.into_iter().map(Address::Holder).find(|a| *a != from && *a != to).unwrap();
    vec![
        FaultKind::Lose,
        FaultKind::Repeat,
        FaultKind::Reorder,
        FaultKind::Truncate { bytes: 1 },
        FaultKind::Truncate { bytes: usize::MAX },
        FaultKind::Alter { byte: 3, bit: 5 },
        FaultKind::Alter { byte: 150, bit: 0 },
        FaultKind::Misattribute { to: other },
    ]
}

/// Which messages of a link are struck: the first, the last, and some of the many rounds between.
fn places(messages: usize, few: bool) -> BTreeSet<usize> {
    let early = if few { 2 } else { 5 };
    let ends = (0..messages).filter(|&n| n < early || n + 3 > messages);
    ends.chain((early < messages).then_some(messages / 2)).collect()
}

/// How many messages an operation sends on a link.
fn count(record: &[Delivery<Address>], (from, to): (Address, Address)) -> usize {
    record.iter().filter(|d| d.from == from && d.to == to).count()
}

/// The error names somebody; silence towards the client names the matcher by itself.
fn assert_names_somebody(error: &ClusterError, (from, to): (Address, Address), fault: &Fault<Address>) {
    match error {
        ClusterError::Client(error) => assert!(!error.suspects().is_empty(), "{error:?} {fault:?}"),
        ClusterError::NoAnswer => assert!(from == Address::Client || to == Address::Client, "{fault:?}"),
        other => panic!("{other:?} {fault:?}"),
    }
}

fn strike(scene: &mut Scene, (from, to): (Address, Address), nth: usize, kind: &FaultKind<Address>) -> Fault<Address> {
    let fault = Fault { from, to, nth, kind: kind.clone() };
    scene.cluster.network.inject(fault.clone());
    fault
}

fn queries_on(links: &[(Address, Address)], seed: u64) {
    let mut scene = Scene::new(seed, &[3]);
    scene.cluster.network.record();
    scene.assert_works();
    let record = scene.cluster.network.take_record();
    for &link in links {
        for kind in kinds(link.0, link.1) {
            for nth in places(count(&record, link), false) {
                let before = scene.before();
                let fault = strike(&mut scene, link, nth, &kind);
                match scene.verify(1) {
                    Ok(outcome) => assert_eq!(outcome, Outcome::Verify(true), "{fault:?}"),
                    Err(error) => assert_names_somebody(&error, link, &fault),
                }
                assert_eq!(scene.before().registry(), before.registry(), "{fault:?}");
                scene.assert_works();
            }
        }
    }
}

#[test]
fn queries_over_links_of_the_matcher() {
    let links: Vec<_> = links().into_iter().filter(|(a, b)| *a == Address::Matcher || *b == Address::Matcher).collect();
    queries_on(&links, 600);
}

#[test]
fn queries_over_links_of_holders() {
    let links: Vec<_> = links().into_iter().filter(|(a, b)| *a != Address::Matcher && *b != Address::Matcher).collect();
    queries_on(&links, 601);
}

#[test]
fn enrolments() {
    let mut scene = Scene::new(610, &[3]);
    scene.cluster.network.record();
    let person = scene.person();
    scene.enrol(&[person]).unwrap();
    let record = scene.cluster.network.take_record();
    for (number, link) in links().into_iter().enumerate() {
        let mut scene = Scene::new(620 + number as u64, &[3]);
        for kind in kinds(link.0, link.1) {
            for nth in places(count(&record, link), true) {
                let place = scene.people.len();
                let person = scene.person();
                let fault = strike(&mut scene, link, nth, &kind);
                match scene.enrol(std::slice::from_ref(&person)) {
                    Ok(verdicts) => match verdicts.as_slice() {
                        [Verdict::Accepted] => assert_eq!(scene.verify(place), Ok(Outcome::Verify(true)), "{fault:?}"),
                        [Verdict::Refused(refusal)] => assert!(!refusal.suspects.is_empty(), "{refusal:?} {fault:?}"),
                        other => panic!("{other:?}"),
                    },
                    Err(error) => assert_names_somebody(&error, link, &fault),
                }
                scene.cluster.network.heal();
                // The next change goes through, and takes along who was admitted but not indexed.
                let next = scene.person();
                let verdicts = scene.enrol(&[next]);
                assert_eq!(verdicts.as_deref(), Ok([Verdict::Accepted].as_slice()), "{fault:?}");
                scene.assert_agree();
                assert_eq!(scene.verify(place + 1), Ok(Outcome::Verify(true)), "{fault:?}");
                if scene.cluster.holder(Party::K0).enrolled(scene.cluster.collection(), &person.0).is_none() {
                    assert!(!scene.cluster.matcher().stores(scene.cluster.collection(), &person.0));
                    let again = scene.enrol(std::slice::from_ref(&person));
                    assert_eq!(again.as_deref(), Ok([Verdict::Accepted].as_slice()), "{fault:?}");
                }
                assert_eq!(scene.verify(place), Ok(Outcome::Verify(true)), "{fault:?}");
                scene.assert_agree();
                // Keep the gallery small.
                for place in [place, place + 1] {
                    let subject = scene.people[place].0.clone();
                    scene.cluster.erase(&subject).unwrap();
                }
                scene.cluster.take_failures();
            }
        }
    }
}

#[test]
fn erasures() {
    let mut scene = Scene::new(650, &[4]);
    scene.cluster.network.record();
    let gone = scene.people[3].0.clone();
    scene.cluster.erase(&gone).unwrap();
    let record = scene.cluster.network.take_record();
    for (number, link) in links().into_iter().enumerate() {
        let mut scene = Scene::new(660 + number as u64, &[3]);
        for kind in kinds(link.0, link.1) {
            for nth in places(count(&record, link), true) {
                let place = scene.people.len();
                let person = scene.person();
                assert_eq!(scene.enrol(std::slice::from_ref(&person)).unwrap(), [Verdict::Accepted]);
                let fault = strike(&mut scene, link, nth, &kind);
                let erased = scene.cluster.erase(&person.0);
                if let Err(error) = &erased {
                    assert_names_somebody(error, link, &fault);
                }
                scene.cluster.network.heal();
                if erased.is_err() && scene.cluster.matcher().stores(scene.cluster.collection(), &person.0) {
                    // The client asks again.
                    assert_eq!(scene.cluster.erase(&person.0), Ok(()), "{fault:?}");
                }
                scene.assert_agree();
                assert!(scene.cluster.holder(Party::K0).enrolled(scene.cluster.collection(), &person.0).is_none());
                assert!(!scene.cluster.matcher().stores(scene.cluster.collection(), &person.0));
                assert!(scene.verify(place).is_err(), "{fault:?}");
                scene.assert_works();
            }
        }
    }
}

#[test]
fn ceremonies() {
    let mut scene = Scene::new(690, &[3]);
    for from in Party::ALL {
        let link = (Address::Holder(from), Address::Holder(from.previous()));
        for kind in kinds(link.0, link.1) {
            let fault = strike(&mut scene, link, 0, &kind);
            let result = scene.cluster.begin_epoch();
            assert!(matches!(result, Ok(()) | Err(ClusterError::Ceremony)), "{result:?} {fault:?}");
            scene.cluster.network.heal();
            if result.is_err() {
                scene.cluster.begin_epoch().unwrap();
            }
            scene.assert_works();
        }
    }
    scene.cluster.rotate().unwrap();
    scene.assert_works();
}

/// A holder that misses every `Commit`: the client is told who is late, and when the holder is back the change goes through.
#[test]
fn a_holder_that_is_away_at_the_commit() {
    for away in Party::ALL {
        for spared in [0, 1] {
            let mut scene = Scene::new(700 + away.index() as u64, &[3]);
            let person = scene.person();
            let mut commits = 0;
            scene.wire.cheat_holders(move |to, message| {
                if to != away || !matches!(message, ToHolder::Commit { .. }) {
                    return true;
                }
                commits += 1;
                commits <= spared // the admission, then the build
            });
            let result = scene.enrol(std::slice::from_ref(&person));
            scene.assert_refused(result, "timed-out", Suspect::Holder(away));
            scene.wire.honest();
            // A change that was asked for meanwhile waits; the deadline passes once more, and both go through.
            let next = scene.person();
            assert_eq!(scene.enrol(&[next]).unwrap(), [Verdict::Accepted]);
            scene.assert_agree();
            assert_eq!(scene.verify(3), Ok(Outcome::Verify(true)));
            assert_eq!(scene.verify(4), Ok(Outcome::Verify(true)));
            scene.assert_works();
        }
    }
}

/// A promise whose `Abandon` is lost does not stand in the way of the next attempt.
#[test]
fn an_abandon_that_is_lost() {
    for deaf in Party::ALL {
        let mut scene = Scene::new(710 + deaf.index() as u64, &[3]);
        let person = scene.person();
        let before = scene.before();
        scene.wire.cheat(move |delivery| {
            let abandon = delivery.to == Address::Holder(deaf)
                && matches!(borsh::from_slice(&delivery.bytes), Ok(ToHolder::Abandon { .. }));
            let verdict = delivery.from == Address::Holder(deaf.next())
                && matches!(borsh::from_slice(&delivery.bytes), Ok(FromHolder::Admitted { .. }));
            !abandon && !verdict
        });
        let result = scene.enrol(std::slice::from_ref(&person));
        scene.assert_refused(result, "timed-out", Suspect::Holder(deaf.next()));
        scene.wire.honest();
        scene.assert_untouched(&before);
        assert_eq!(scene.enrol(&[person]).unwrap(), [Verdict::Accepted]);
        assert_eq!(scene.verify(3), Ok(Outcome::Verify(true)));
        scene.assert_works();
    }
}

/// An erasure that one holder never hears of: queries are refused rather than answered from two registries, and the client's
/// second request brings the holders together.
#[test]
fn an_erasure_that_one_holder_never_hears_of() {
    for away in Party::ALL {
        let mut scene = Scene::new(720 + away.index() as u64, &[4]);
        let gone = scene.people[3].0.clone();
        scene.wire.cheat_holders(move |to, message| to != away || !matches!(message, ToHolder::Erase { .. }));
        let erased = scene.cluster.erase(&gone);
        scene.assert_refused(erased, "timed-out", Suspect::Holder(away));
        scene.wire.honest();
        // A search waits behind the erasure, for the holder that has not heard of it. When the deadline passes the search
        // is refused and the erasure told again: the matcher has promised it.
        let asked = scene.verify(0);
        scene.assert_refused(asked, "timed-out", Suspect::Holder(away));
        scene.assert_agree();
        assert!(scene.verify(3).is_err());
        scene.assert_works();
    }
}
