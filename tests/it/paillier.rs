//! Scheme `paillier` through all parties: the main job, parties that deviate, a network that does, restarts (DESIGN 4).

use std::collections::BTreeSet;

use borsh::{BorshDeserialize, BorshSerialize};
use veilmatch_cluster::{Address, ClusterError};
use veilmatch_domain::{Decision, Dimension, GroupId, Outcome, Party, Policy, Revision, SchemeName, Suspect};
use veilmatch_glwe::{FromHolder, FromTwin, PartPayload, ProbeAddend, Stage, ToHolder, ToTwin};
use veilmatch_holder::HolderError;
use veilmatch_mpc::{Fault, FaultKind};
use veilmatch_paillier::{KeySize, Plaintext};
use veilmatch_secret::{Digest, Secret};
use veilmatch_tests::{at_cosine, query, rng};
use veilmatch_threshold::test_keys;

use crate::cheats::{D, Scene, Wire, edit};

const PROBE: u32 = 1 << 10;
const SUMS: u32 = PROBE + 1;
const MASKS: u32 = PROBE + 4;
const OPENED: u32 = PROBE + 5;
/// Digests of the parts that a pair encrypted, as long as this.
const COPIES: u32 = 2;
const DIGEST: usize = 32;
/// Bytes of a ciphertext.
const WIDTH: usize = 512;

/// A mirror of what a holder commits to.
#[derive(BorshSerialize, BorshDeserialize)]
struct Committed {
    agreement: Digest,
    commitment: Digest,
}

/// A mirror of what it shows.
#[derive(BorshSerialize, BorshDeserialize)]
struct Shown {
    encrypted: Vec<u8>,
    heard: Digest,
}

fn scene(seed: u64, people: usize) -> Scene {
    let mut scene = Scene::paillier(seed);
    scene.enrol_batches(&[people]);
    scene
}

#[test]
fn enrol_verify_identify_erase() {
    // 30 people are two groups: one with all its slots taken, by the first subjects in the order of names.
    let mut scene = scene(1, 30);
    let (people, mut rng) = (scene.people.clone(), veilmatch_tests::rng(41));
    let cluster = &mut scene.cluster;
    let groups = |cluster: &veilmatch_cluster::Cluster| -> Vec<usize> {
        let index = cluster.matcher().index(cluster.collection()).unwrap();
        index.groups().map(|g| g.members.len()).collect()
    };
    assert_eq!(groups(cluster), [20, 10]);
    let probe = at_cosine(&people[10].1, 0.7, &mut rng);
    let verify = |i: usize| query(Decision::Verify { subject: people[i].0.clone() }, 0.4);
    assert_eq!(cluster.ask(&probe, verify(10)), Ok(Outcome::Verify(true)), "{:?}", cluster.take_failures());
    assert_eq!(cluster.ask(&probe, verify(11)), Ok(Outcome::Verify(false)));
    assert_eq!(cluster.ask(&probe, query(Decision::Exists, 0.4)), Ok(Outcome::Exists(true)));
    assert_eq!(cluster.ask(&probe, query(Decision::Exists, 0.8)), Ok(Outcome::Exists(false)));
    let matches = query(Decision::Matches { max_matches: 3 }, 0.5);
    let named = people[10].0.clone();
    assert_eq!(cluster.ask(&probe, matches), Ok(Outcome::Matches(vec![named.clone()])));
    assert_eq!(cluster.ask(&probe, query(Decision::Best, 0.4)), Ok(Outcome::Best(Some(named.clone()))));
    assert_eq!(cluster.ask(&probe, query(Decision::Best, 0.8)), Ok(Outcome::Best(None)));
    cluster.erase(&named).unwrap();
    assert_eq!(groups(cluster), [19, 10], "the template is encrypted in no group any more");
    assert_eq!(cluster.ask(&probe, query(Decision::Best, 0.4)), Ok(Outcome::Best(None)));
    // A newcomer takes the free slot.
    scene.enrol_batches(&[1]);
    assert_eq!(groups(&scene.cluster), [20, 10]);
    assert_eq!(scene.verify(30), Ok(Outcome::Verify(true)));
    scene.cluster.rotate().unwrap();
    let probe = at_cosine(&people[9].1, 0.7, &mut rng);
    let best = Outcome::Best(Some(people[9].0.clone()));
    assert_eq!(scene.cluster.ask(&probe, query(Decision::Best, 0.4)), Ok(best));
    assert_eq!(scene.cluster.take_failures(), []);
}

/// Holders and twin come back from what they stored, or from nothing.
#[test]
fn parties_start_again() {
    let mut scene = scene(2, 3);
    for party in Party::ALL {
        scene.cluster.restart(party).unwrap();
        scene.assert_works();
    }
    scene.cluster.restart_twin();
    scene.assert_works();
    let person = scene.person();
    scene.enrol(&[person]).unwrap();
    assert_eq!(scene.verify(3), Ok(Outcome::Verify(true)));
}

/// A holder without a share, with somebody else's, or asked for another scheme refuses and changes nothing.
#[test]
fn schemes_and_shares_are_checked() {
    let dimension = Dimension::new(D).unwrap();
    let paillier = Policy { scheme: SchemeName::Paillier, ..Policy::permissive(dimension) };
    let mut without = Scene::empty(3);
    let other = veilmatch_domain::CollectionId::new("other").unwrap();
    let refused = without.cluster.create_collection(&other, &paillier);
    assert_eq!(refused, Err(ClusterError::Holder(HolderError::NoShare)));
    let refused = without.cluster.set_policy(&paillier);
    assert_eq!(refused, Err(ClusterError::Holder(HolderError::OtherScheme { expected: SchemeName::Glwe })));
    let mut with = scene(3, 1);
    let refused = with.cluster.set_policy(&Policy::permissive(dimension));
    assert_eq!(refused, Err(ClusterError::Holder(HolderError::OtherScheme { expected: SchemeName::Paillier })));
    with.assert_works();
    // Both schemes side by side.
    with.cluster.create_collection(&other, &Policy::permissive(dimension)).unwrap();
    with.assert_works();
}

/// A query under a cheat of a holder: refused, the cheater named, nothing opened, everything as before.
fn in_a_query(scene: &mut Scene, culprit: Suspect, code: &str, cheat: impl FnOnce(&Wire)) {
    let before = scene.before();
    cheat(&scene.wire);
    let result = scene.verify(0);
    scene.assert_refused(result, code, culprit);
    scene.wire.honest();
    scene.cluster.pass_deadlines();
    scene.assert_untouched(&before);
    scene.assert_works();
}

/// Every deviation of a holder between the evaluation and the comparison names it, or the pair that it is one of.
#[test]
fn holders_that_deviate() {
    let mut scene = scene(4, 3);
    for cheater in Party::ALL {
        let culprit = Suspect::Holder(cheater);
        in_a_query(&mut scene, culprit, "sums-differ", |wire| {
            wire.cheat_frames(cheater, |_, frame| {
                if frame.step == SUMS {
                    edit(&mut frame.payload, |committed: &mut Committed| committed.agreement.0[0] ^= 1);
                }
                true
            });
        });
        in_a_query(&mut scene, culprit, "commitment-broken", |wire| {
            wire.cheat_frames(cheater, |_, frame| {
                if frame.step == SUMS {
                    edit(&mut frame.payload, |committed: &mut Committed| committed.commitment.0[0] ^= 1);
                }
                true
            });
        });
        in_a_query(&mut scene, culprit, "commitments-differ", |wire| {
            wire.cheat_frames(cheater, move |to, frame| {
                if frame.step == SUMS && to == cheater.next() {
                    edit(&mut frame.payload, |committed: &mut Committed| committed.commitment.0[0] ^= 1);
                }
                true
            });
        });
        in_a_query(&mut scene, culprit, "commitments-differ", |wire| {
            wire.cheat_frames(cheater, |_, frame| {
                if frame.step == MASKS {
                    edit(&mut frame.payload, |shown: &mut Shown| shown.heard.0[0] ^= 1);
                }
                true
            });
        });
        // Masks that cancel another's would be the cheater's wish: what was committed to does not fit them.
        in_a_query(&mut scene, culprit, "commitment-broken", |wire| {
            wire.cheat_frames(cheater, |_, frame| {
                if frame.step == MASKS {
                    edit(&mut frame.payload, |shown: &mut Shown| shown.encrypted[..WIDTH].reverse());
                }
                true
            });
        });
        in_a_query(&mut scene, culprit, "unexpected-part", |wire| {
            wire.cheat_matcher(cheater, |message| {
                if let FromHolder::ProbeShare { addend, .. } = message {
                    *addend = ProbeAddend::new(Secret::new(vec![1 << 26; addend.expose().len()]));
                }
            });
        });
        in_a_query(&mut scene, culprit, "unexpected-part", |wire| {
            wire.cheat(move |delivery| {
                if (delivery.from, delivery.to) == (Address::Holder(cheater), Address::Twin) {
                    edit(&mut delivery.bytes, |message: &mut FromHolder| {
                        if let FromHolder::ProbeShare { addend, .. } = message {
                            *addend = ProbeAddend::new(Secret::new(vec![u32::MAX; addend.expose().len()]));
                        }
                    });
                }
                true
            });
        });
        in_a_query(&mut scene, culprit, "unexpected-part", |wire| {
            wire.cheat(move |delivery| {
                if (delivery.from, delivery.to) == (Address::Holder(cheater), Address::Twin) {
                    edit(&mut delivery.bytes, |message: &mut FromHolder| {
                        if let FromHolder::ProbeShare { addend, .. } = message {
                            *addend = ProbeAddend::new(Secret::new(addend.expose()[1..].to_vec()));
                        }
                    });
                }
                true
            });
        });
    }
}

/// A contribution to the decryption that is wrong is found by its proof, whoever gives it; one that is cut is not read.
#[test]
fn decryptions_that_are_wrong() {
    let mut scene = scene(5, 3);
    let mut seen = BTreeSet::new();
    // Who decrypts depends on the session: ask until everybody has cheated.
    for _ in 0..60 {
        for cheater in Party::ALL.into_iter().filter(|party| !seen.contains(party)).collect::<Vec<_>>() {
            let before = scene.before();
            let cheated = std::sync::Arc::new(std::sync::Mutex::new(false));
            let noted = std::sync::Arc::clone(&cheated);
            scene.wire.cheat_frames(cheater, move |_, frame| {
                if frame.step == OPENED {
                    // Another power of the ciphertext: its square root of one is not what was asked for.
                    let at = frame.payload.len() - WIDTH;
                    frame.payload[at] ^= 2;
                    *noted.lock().unwrap() = true;
                }
                true
            });
            let result = scene.verify(0);
            if *cheated.lock().unwrap() {
                scene.assert_refused(result, "wrong-decryption", Suspect::Holder(cheater));
                seen.insert(cheater);
                scene.cluster.pass_deadlines();
                scene.assert_untouched(&before);
            } else {
                assert_eq!(result, Ok(Outcome::Verify(true)));
            }
            scene.assert_works();
        }
        if seen.len() == 3 {
            return;
        }
    }
    panic!("only {seen:?} took part in a decryption");
}

/// What the matcher may not say.
#[test]
fn matchers_that_deviate() {
    type Cheat = fn(Party, &mut ToHolder);
    let mut scene = scene(6, 24);
    let cheats: [(&str, Cheat); 8] = [
        ("bad-sums", |_, m| {
            if let ToHolder::Evaluations { groups, .. } = m {
                groups[0].matcher.fill(0)
            }
        }),
        ("bad-sums", |_, m| {
            if let ToHolder::Evaluations { groups, .. } = m {
                groups[0].twin.fill(255)
            }
        }),
        ("bad-sums", |_, m| {
            if let ToHolder::Evaluations { groups, .. } = m {
                groups[0].twin.truncate(100)
            }
        }),
        ("bad-sums", |_, m| {
            if let ToHolder::Evaluations { groups, .. } = m {
                let first = groups[0].clone();
                groups.push(first)
            }
        }),
        // A number that is no encryption of small slots.
        ("bad-sums", |_, m| {
            if let ToHolder::Evaluations { groups, .. } = m {
                groups[0].matcher[3] ^= 1
            }
        }),
        ("group-left-out", |_, m| {
            if let ToHolder::Evaluations { groups, .. } = m {
                groups.pop();
            }
        }),
        ("unregistered-group", |_, m| {
            if let ToHolder::Evaluations { groups, .. } = m {
                groups[0].group = GroupId(99)
            }
        }),
        ("sums-differ", |to, m| {
            if let ToHolder::Evaluations { groups, .. } = m
                && to == Party::K1
            {
                groups.reverse()
            }
        }),
    ];
    for (code, cheat) in cheats {
        let before = scene.before();
        scene.wire.cheat_holders(move |to, message| {
            cheat(to, message);
            true
        });
        let probe = scene.people[3].1.clone();
        let result = scene.cluster.ask(&probe, query(Decision::Exists, 0.4));
        scene.assert_refused(result, code, Suspect::Matcher);
        scene.wire.honest();
        scene.cluster.pass_deadlines();
        scene.assert_untouched(&before);
        scene.assert_works();
    }
    // A revision that was revoked.
    scene.wire.cheat_holders(|_, message| {
        if let ToHolder::Evaluations { groups, .. } = message {
            groups[0].revision = Revision(0);
        }
        true
    });
    scene.cluster.rotate().unwrap();
    let probe = scene.people[3].1.clone();
    let result = scene.cluster.ask(&probe, query(Decision::Exists, 0.4));
    scene.assert_refused(result, "revoked-revision", Suspect::Matcher);
    scene.assert_works();
    // The other scheme's sums.
    scene.wire.cheat_holders(|_, message| {
        if let ToHolder::Evaluations { session, .. } = message {
            *message = ToHolder::Sums { session: *session, stage: Stage::Whole, groups: Vec::new() };
        }
        true
    });
    let result = scene.verify(0);
    scene.assert_refused(result, "out-of-turn", Suspect::Matcher);
    scene.assert_works();
}

/// A holder whose part of a group is not one ciphertext per dimension is named, and nothing is committed.
#[test]
fn parts_of_groups_that_are_wrong() {
    let mut scene = scene(7, 2);
    for cheater in Party::ALL {
        for kind in 0..3 {
            let before = scene.before();
            scene.wire.cheat_matcher(cheater, move |message| {
                if let FromHolder::GroupPart { payload: PartPayload::Polynomials(bytes), .. } = message {
                    match kind {
                        0 => bytes.truncate(bytes.len() - WIDTH),
                        1 => bytes[..WIDTH].fill(0),
                        _ => bytes[..WIDTH].fill(255),
                    }
                }
            });
            let person = scene.person();
            let result = scene.enrol(std::slice::from_ref(&person));
            scene.assert_refused(result, "unexpected-part", Suspect::Holder(cheater));
            scene.wire.honest();
            assert_eq!(scene.before().registry().0, before.registry().0, "no group changed");
            // Who was admitted is indexed with the next change.
            let next = scene.person();
            scene.enrol(&[next]).unwrap();
            let place = scene.people.len() - 2;
            assert_eq!(scene.verify(place), Ok(Outcome::Verify(true)));
            scene.assert_works();
        }
    }
}

/// A holder that encrypts something else than its part (numbers beyond their slots would make a later opening exceed its masks) is
/// caught by the copy of the part's other holder, whoever it tells what; the group is not stored and nothing is learnt from it.
#[test]
fn parts_of_groups_that_are_something_else() {
    let mut scene = scene(10, 2);
    let dealt = test_keys::deal(KeySize::Bits2048, &mut rng(10)).unwrap();
    let key = dealt.shares[0].key();
    let mut digits = vec![u64::MAX; key.size().limbs()];
    digits[key.size().limbs() - 1] = 1;
    let large = Plaintext::from_limbs(key, Secret::new(digits)).unwrap();
    let large = key.encrypt(&large, &mut rng(99)).unwrap().to_bytes();
    for cheater in Party::ALL {
        let [own, next] = cheater.parts();
        for kind in 0..5 {
            let before = scene.before();
            match kind {
                // Well-formed ciphertexts of too large a number to the matcher, with an honest digest among the holders.
                0 => {
                    let large = large.clone();
                    scene.wire.cheat_matcher(cheater, move |message| {
                        if let FromHolder::GroupPart { payload: PartPayload::Polynomials(bytes), .. } = message {
                            bytes[..WIDTH].copy_from_slice(&large);
                        }
                    });
                }
                // Its own part's ciphertexts in another order.
                1 => scene.wire.cheat_matcher(cheater, |message| {
                    if let FromHolder::GroupPart { payload: PartPayload::Polynomials(bytes), .. } = message {
                        bytes.rotate_left(WIDTH);
                    }
                }),
                // As the witness of the next part it tells another digest.
                2 => scene.wire.cheat_matcher(cheater, move |message| {
                    if let FromHolder::GroupPart { part, payload: PartPayload::Digest(digest), .. } = message {
                        assert_eq!(*part, next);
                        digest.0[0] ^= 1;
                    }
                }),
                // It stands by what it encrypted: its peers hear the digest of that too.
                3 => scene.wire.cheat_frames(cheater, move |to, frame| {
                    if frame.step == COPIES && frame.payload.len() == DIGEST && to == cheater.previous() {
                        edit(&mut frame.payload, |digest: &mut Digest| digest.0[0] ^= 1);
                    }
                    true
                }),
                _ => scene.wire.cheat_frames(cheater, move |to, frame| {
                    if frame.step == COPIES && frame.payload.len() == DIGEST && to == cheater.next() {
                        edit(&mut frame.payload, |digest: &mut Digest| digest.0[0] ^= 1);
                    }
                    true
                }),
            }
            let person = scene.person();
            let result = scene.enrol(std::slice::from_ref(&person));
            let part = if matches!(kind, 2 | 4) { next } else { own };
            scene.assert_refused(result, "bodies-differ", Suspect::holders_of(part));
            scene.wire.honest();
            scene.cluster.pass_deadlines();
            assert_eq!(scene.before().registry().0, before.registry().0, "no group changed");
            let next = scene.person();
            scene.enrol(&[next]).unwrap();
            let place = scene.people.len() - 2;
            assert_eq!(scene.verify(place), Ok(Outcome::Verify(true)));
            scene.assert_works();
        }
    }
}

/// The twin is down, lies about its form, or answers twice.
#[test]
fn twins_that_deviate() {
    let mut scene = scene(8, 2);
    let to_matcher = |delivery: &veilmatch_mpc::Delivery<Address>| delivery.from == Address::Twin;
    in_a_query(&mut scene, Suspect::Twin, "timed-out", |wire| wire.cheat(move |delivery| !to_matcher(delivery)));
    in_a_query(&mut scene, Suspect::Twin, "timed-out", |wire| {
        wire.cheat(|delivery| (delivery.from, delivery.to) != (Address::Matcher, Address::Twin));
    });
    in_a_query(&mut scene, Suspect::Twin, "unexpected-evaluation", |wire| {
        wire.cheat(move |delivery| {
            if to_matcher(delivery) {
                edit(&mut delivery.bytes, |message: &mut FromTwin| {
                    if let FromTwin::Evaluated { ciphertexts, .. } = message {
                        ciphertexts.clear();
                    }
                });
            }
            true
        });
    });
    // A group that the twin lost is shown to it again; one that it holds under another revision is not used.
    scene.wire.cheat(|delivery| {
        if (delivery.from, delivery.to) == (Address::Matcher, Address::Twin) {
            edit(&mut delivery.bytes, |message: &mut ToTwin| {
                if let ToTwin::Evaluate { groups, .. } = message {
                    groups[0].1 = Revision(77);
                }
            });
        }
        true
    });
    let result = scene.verify(0);
    scene.assert_refused(result, "timed-out", Suspect::Twin);
    scene.assert_works();
}

/// One message of one link lost, cut or altered: the right answer, or an error that names somebody; then all is well.
#[test]
fn a_network_that_deviates() {
    let mut scene = scene(9, 2);
    scene.cluster.network.record();
    scene.assert_works();
    let record = scene.cluster.network.take_record();
    let parties = [Address::Matcher, Address::Twin].into_iter().chain(Party::ALL.map(Address::Holder));
    let parties: Vec<Address> = parties.collect();
    for &from in &parties {
        for &to in &parties {
            let sent = record.iter().filter(|d| d.from == from && d.to == to).count();
            let places: BTreeSet<usize> = [0, sent / 3, sent / 2, sent.saturating_sub(2)].into_iter().collect();
            for nth in places.into_iter().filter(|&nth| nth < sent) {
                for kind in [
                    FaultKind::Lose,
                    FaultKind::Repeat,
                    FaultKind::Truncate { bytes: 1 },
                    FaultKind::Alter { byte: 150, bit: 0 },
                ] {
                    let before = scene.before();
                    let fault = Fault { from, to, nth, kind };
                    scene.cluster.network.inject(fault.clone());
                    match scene.verify(1) {
                        Ok(outcome) => assert_eq!(outcome, Outcome::Verify(true), "{fault:?}"),
                        Err(ClusterError::Client(error)) => {
                            assert!(!error.suspects().is_empty(), "{error:?} {fault:?}")
                        }
                        Err(other) => panic!("{other:?} {fault:?}"),
                    }
                    assert_eq!(scene.before().registry(), before.registry(), "{fault:?}");
                    scene.assert_works();
                }
            }
        }
    }
}

#[test]
fn a_twin_that_is_gone_is_named_at_once_and_comes_back_with_nothing() {
    let mut rng = veilmatch_tests::rng(2);
    let mut scene = Scene::paillier(12);
    let people: Vec<_> = (0..3).map(|_| scene.person()).collect();
    let newcomer = scene.person();
    let cluster = &mut scene.cluster;
    cluster.enroll(&people, &mut |_| {}).unwrap();
    let ask = query(Decision::Best, 0.4);
    let probe = at_cosine(&people[1].1, 0.7, &mut rng);
    assert_eq!(cluster.ask(&probe, ask.clone()), Ok(Outcome::Best(Some(people[1].0.clone()))));
    cluster.lose_twin();
    let refused = cluster.ask(&probe, ask.clone()).unwrap_err();
    let text = format!("{refused:?}");
    assert!(text.contains("unreachable") && text.contains("Twin"), "{text}");
    // Enrolment does not need it.
    assert_eq!(
        cluster.enroll(std::slice::from_ref(&newcomer), &mut |_| {}).unwrap(),
        [veilmatch_glwe::Verdict::Accepted]
    );
    cluster.restart_twin();
    let probe = at_cosine(&newcomer.1, 0.7, &mut rng);
    assert_eq!(cluster.ask(&probe, ask), Ok(Outcome::Best(Some(newcomer.0.clone()))));
}
