//! One key holder that deviates, played by the test: it re-seals altered frames with its own links and tells the matcher
//! what it likes. Every deviation is refused with an error that names it, or the pair that it is one of.

use std::sync::{Arc, Mutex};

use borsh::{BorshDeserialize, BorshSerialize};
use veilmatch_cluster::{Address, ClusterError};
use veilmatch_domain::{
    ClientId, Decision, Dimension, Explain, Outcome, Part, Party, Purpose, Suspect, TemplateVersion, Timestamp,
};
use veilmatch_glwe::{
    ClientAnswer, ClientRequest, FromHolder, Layout, MaskSeed, PartPayload, ProbeShape, Refusal, ToHolder, Verdict,
};
use veilmatch_holder::{AuditEvent, HolderError};
use veilmatch_mpc::Frame;
use veilmatch_sealed::{Associated, ClientSigningKey, ReplyError, combine_replies, open_reply, seal, seal_reply};
use veilmatch_secret::{Counter, Digest, Label};
use veilmatch_tests::{query, rng};

use crate::cheats::{A, D, PeerMessage, Puppet, Scene, Wire, edit, exists, own_errors, points_at};

const HELLO: u32 = 0;
const REVEAL: u32 = 1;
const VOTES: u32 = 2;
const MERGED: u32 = 3;
const PARTS: u32 = 2;
const NORM: u32 = 16;
const PROBE: u32 = 1 << 10;
const SUMS: u32 = PROBE + 1;
const DECISION: u32 = PROBE + 16;
const STOP: u32 = u32::MAX;

#[derive(BorshSerialize, BorshDeserialize)]
struct Hello {
    request: Digest,
    commitment: Digest,
    fresh: Option<[u8; 32]>,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct Reveal {
    contribution: [u8; 32],
    private: [u8; 32],
    parts: Vec<Digest>,
    heard: Digest,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct PartNews {
    shared_bodies: Digest,
    checks: PartPayload,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct ProbeNews {
    shape: ProbeShape,
    shared: Digest,
    missing: PartPayload,
}

/// Changes a part: one residue, or the digest.
fn spoil(payload: &mut PartPayload) {
    match payload {
        PartPayload::Polynomials(bytes) => bytes[5] ^= 1,
        PartPayload::Digest(digest) => digest.0[0] ^= 1,
    }
}

/// A query under a cheat: refused, the cheater named, nothing opened, everything as before.
fn in_a_query(scene: &mut Scene, cheater: Party, code: &str, cheat: impl FnOnce(&Wire)) {
    let before = scene.before();
    cheat(&scene.wire);
    let result = scene.verify(0);
    scene.assert_refused(result, code, Suspect::Holder(cheater));
    scene.wire.honest();
    scene.cluster.pass_deadlines();
    scene.assert_untouched(&before);
    scene.assert_works();
}

/// An enrolment under a cheat. If the cheat is in the admission nobody is admitted; if it is in the build the newcomer is
/// admitted but what queries see is as before, and the next enrolment makes the newcomer searchable.
fn in_an_enrolment(scene: &mut Scene, cheater: Party, code: &str, admitted: bool, cheat: impl FnOnce(&Wire)) {
    let newcomer = scene.person();
    let place = scene.people.len() - 1;
    let before = scene.before();
    cheat(&scene.wire);
    let result = scene.enrol(std::slice::from_ref(&newcomer));
    match &result {
        // A template that one holder votes against is refused, not the whole request.
        Ok(verdicts) => {
            let [Verdict::Refused(refusal)] = verdicts.as_slice() else { panic!("{verdicts:?}") };
            assert_eq!(refusal.code, code);
            assert!(points_at(&refusal.suspects, Suspect::Holder(cheater)), "{refusal:?}");
        }
        Err(_) => scene.assert_refused(result, code, Suspect::Holder(cheater)),
    }
    scene.wire.honest();
    scene.cluster.pass_deadlines();
    if admitted {
        scene.assert_agree();
        let other = scene.person();
        assert_eq!(scene.enrol(&[other]).unwrap(), [Verdict::Accepted]);
        assert_eq!(scene.verify(place), Ok(Outcome::Verify(true)));
        assert_eq!(scene.verify(place + 1), Ok(Outcome::Verify(true)));
    } else {
        scene.assert_untouched(&before);
        assert_eq!(scene.enrol(&[newcomer]).unwrap(), [Verdict::Accepted]);
        assert_eq!(scene.verify(place), Ok(Outcome::Verify(true)));
    }
    scene.assert_works();
}

/// Alters one kind of frame on its way to some peers.
fn frames(
    wire: &Wire,
    cheater: Party,
    step: u32,
    to: &'static [Party],
    mut change: impl FnMut(Party, &mut Frame) + Send + 'static,
) {
    wire.cheat_frames(cheater, move |peer, frame| {
        if frame.step == step && to.contains(&peer) {
            change(peer, frame);
        }
        true
    });
}

const ALL: &[Party] = &Party::ALL;

fn only(party: Party) -> &'static [Party] {
    &ALL[party.index()..=party.index()]
}

#[test]
fn contributions_after_the_others() {
    for cheater in Party::ALL {
        let mut scene = Scene::new(200 + cheater.index() as u64, &[3]);
        for private in [false, true] {
            for to in [ALL, only(cheater.next()), only(cheater.previous())] {
                let change = move |_: Party, frame: &mut Frame| {
                    edit(&mut frame.payload, |reveal: &mut Reveal| {
                        let seed = if private { &mut reveal.private } else { &mut reveal.contribution };
                        seed[7] ^= 1;
                    });
                };
                in_a_query(&mut scene, cheater, "commitment-broken", |w| frames(w, cheater, REVEAL, to, change));
                let admission = move |w: &Wire| frames(w, cheater, REVEAL, to, change);
                in_an_enrolment(&mut scene, cheater, "commitment-broken", false, admission);
            }
        }
        // In the build: the reveals of the admission stay honest.
        let seen = Arc::new(Mutex::new(0));
        in_an_enrolment(&mut scene, cheater, "commitment-broken", true, |w| {
            frames(w, cheater, REVEAL, ALL, move |_, frame| {
                *seen.lock().unwrap() += 1;
                if *seen.lock().unwrap() > 2 {
                    edit(&mut frame.payload, |reveal: &mut Reveal| reveal.contribution[0] ^= 1);
                }
            });
        });
    }
}

/// It commits to one thing towards one peer and to another towards the other, and shows each what it committed to.
#[test]
fn two_faced_commitments() {
    for cheater in Party::ALL {
        let mut scene = Scene::new(210 + cheater.index() as u64, &[3]);
        for fooled in cheater.peers() {
            in_a_query(&mut scene, cheater, "commitments-differ", |w| {
                w.cheat_frames(cheater, move |to, frame| {
                    let (contribution, private) = ([7; 32], [8; 32]);
                    if to == fooled && frame.step == HELLO {
                        let label = Label::new("veilmatch/handshake/commitment")
                            .bytes(&frame.session.0)
                            .number(cheater.index() as u64)
                            .bytes(&contribution)
                            .bytes(&private);
                        edit(&mut frame.payload, |hello: &mut Hello| hello.commitment = label.digest());
                    }
                    if to == fooled && frame.step == REVEAL {
                        edit(&mut frame.payload, |reveal: &mut Reveal| {
                            (reveal.contribution, reveal.private) = (contribution, private);
                        });
                    }
                    true
                });
            });
            // Or it misreports what the other said.
            in_a_query(&mut scene, cheater, "commitments-differ", |w| {
                frames(w, cheater, REVEAL, only(fooled), |_, frame| {
                    edit(&mut frame.payload, |reveal: &mut Reveal| reveal.heard.0[3] ^= 1);
                });
            });
        }
    }
}

#[test]
fn hellos_and_parts_of_sealed_templates() {
    for cheater in Party::ALL {
        let mut scene = Scene::new(220 + cheater.index() as u64, &[3]);
        for to in [ALL, only(cheater.next()), only(cheater.previous())] {
            let request = |_: Party, frame: &mut Frame| {
                edit(&mut frame.payload, |hello: &mut Hello| hello.request.0[0] ^= 1);
            };
            in_a_query(&mut scene, cheater, "requests-differ", |w| frames(w, cheater, HELLO, to, request));
            in_an_enrolment(&mut scene, cheater, "requests-differ", false, |w| frames(w, cheater, HELLO, to, request));
            let part = |_: Party, frame: &mut Frame| {
                edit(&mut frame.payload, |reveal: &mut Reveal| reveal.parts[0].0[0] ^= 1);
            };
            in_a_query(&mut scene, cheater, "copies-differ", |w| frames(w, cheater, REVEAL, to, part));
            in_an_enrolment(&mut scene, cheater, "copies-differ", false, |w| frames(w, cheater, REVEAL, to, part));
        }
        in_a_query(&mut scene, cheater, "malformed-message", |w| {
            frames(w, cheater, HELLO, ALL, |_, frame| {
                edit(&mut frame.payload, |hello: &mut Hello| hello.fresh = None);
            });
        });
        in_a_query(&mut scene, cheater, "malformed-message", |w| {
            frames(w, cheater, REVEAL, ALL, |_, frame| frame.payload.push(0));
        });
    }
}

#[test]
fn votes() {
    for cheater in Party::ALL {
        let mut scene = Scene::new(230 + cheater.index() as u64, &[3]);
        for to in [ALL, only(cheater.next()), only(cheater.previous())] {
            for votes in [vec![], vec![true, true], vec![false; 700]] {
                in_an_enrolment(&mut scene, cheater, "malformed-message", false, |w| {
                    frames(w, cheater, VOTES, to, move |_, frame| {
                        if borsh::from_slice::<Vec<bool>>(&frame.payload).is_ok() {
                            frame.payload = borsh::to_vec(&votes).unwrap();
                        }
                    });
                });
            }
            in_an_enrolment(&mut scene, cheater, "votes-differ", false, |w| {
                frames(w, cheater, MERGED, to, |_, frame| frame.payload[0] ^= 1);
            });
        }
        // Against a template, to both or to one.
        let against = |_: Party, frame: &mut Frame| frame.payload = borsh::to_vec(&vec![false]).unwrap();
        for (to, code) in
            [(ALL, "votes-differ"), (only(cheater.next()), "votes-differ"), (only(cheater.previous()), "votes-differ")]
        {
            in_an_enrolment(&mut scene, cheater, code, false, |w| frames(w, cheater, VOTES, to, against));
        }
        // To the matcher: another verdict than the others give, and a list of the wrong length.
        for (code, wrong) in [("verdicts-differ", 1), ("malformed-message", 0), ("malformed-message", 2)] {
            in_an_enrolment(&mut scene, cheater, code, false, |w| {
                w.cheat_matcher(cheater, move |message| {
                    if let FromHolder::Admitted { verdicts, .. } = message {
                        *verdicts = vec![Verdict::Refused(Refusal::new(&HolderError::NotUnit, Vec::new())); wrong];
                    }
                });
            });
        }
    }
}

/// Alters the first opening from `first` on: the one message to the next holder that is not a dealing.
fn opening(wire: &Wire, cheater: Party, first: u32, to: Party, change: fn(&mut Vec<u8>)) {
    let mut step = None;
    wire.cheat_frames(cheater, move |peer, frame| {
        let beyond = if first == NORM { PROBE } else { STOP };
        if step.is_none() && peer == cheater.next() && frame.step > first + 1 && frame.step < beyond {
            step = Some(frame.step);
        }
        if step == Some(frame.step) && peer == to {
            change(&mut frame.payload);
        }
        true
    });
}

#[test]
fn the_opened_component_of_the_norm_check() {
    for cheater in Party::ALL {
        let mut scene = Scene::new(240 + cheater.index() as u64, &[3]);
        for to in cheater.peers() {
            for (code, change) in [
                ("opening-mismatch", (|payload| payload[0] ^= 1) as fn(&mut Vec<u8>)),
                ("message-truncated", |payload| payload.clear()),
                ("message-malformed", |payload| payload.push(0)),
                ("opening-mismatch", |payload| payload[7] ^= 0x80),
            ] {
                in_a_query(&mut scene, cheater, code, |w| opening(w, cheater, NORM, to, change));
                in_an_enrolment(&mut scene, cheater, code, false, |w| opening(w, cheater, NORM, to, change));
            }
        }
    }
}

#[test]
fn the_opened_component_of_the_decision() {
    for cheater in Party::ALL {
        let mut scene = Scene::new(250 + cheater.index() as u64, &[3]);
        for to in cheater.peers() {
            for decision in [Decision::Exists, Decision::Matches { max_matches: 2 }, Decision::Best] {
                let before = scene.before();
                opening(&scene.wire, cheater, DECISION, to, |payload| payload[0] ^= 1);
                let probe = scene.people[0].1.clone();
                let sessions: Vec<_> = scene.cluster.log(to).iter().map(|e| e.session).collect();
                let result = scene.cluster.ask(&probe, query(decision, 0.4));
                scene.assert_refused(result, "opening-mismatch", Suspect::Holder(cheater));
                // The opening was logged before it left; the deceived holder has no outcome of it, nor has the client.
                let entries = scene.cluster.log(to);
                let of_session = entries.iter().filter(|e| !sessions.contains(&e.session));
                assert!(!of_session.clone().any(|e| matches!(e.event, AuditEvent::Outcome(_))));
                assert!(of_session.clone().any(|e| matches!(e.event, AuditEvent::Opening { .. })));
                let after = scene.before();
                assert_eq!(format!("{:?}", after.registry()), format!("{:?}", before.registry()));
                scene.assert_works();
            }
        }
    }
}

#[test]
fn parts_of_a_recrypt() {
    for cheater in Party::ALL {
        let mut scene = Scene::new(260 + cheater.index() as u64, &[3]);
        let [own, next] = cheater.parts();
        for part in [own, next] {
            in_an_enrolment(&mut scene, cheater, "bodies-differ", true, |w| {
                w.cheat_matcher(cheater, move |message| {
                    if let FromHolder::GroupPart { part: of, payload, .. } = message
                        && *of == part
                    {
                        spoil(payload);
                    }
                });
            });
            in_a_query(&mut scene, cheater, "bodies-differ", |w| {
                w.cheat_matcher(cheater, move |message| {
                    if let FromHolder::ProbePart { part: of, payload, .. } = message
                        && *of == part
                    {
                        spoil(payload);
                    }
                });
            });
        }
        for peer in cheater.peers() {
            in_a_query(&mut scene, cheater, "bodies-differ", |w| {
                frames(w, cheater, PROBE, only(peer), |_, frame| {
                    edit(&mut frame.payload, |news: &mut Vec<ProbeNews>| news[0].shared.0[0] ^= 1);
                });
            });
            in_a_query(&mut scene, cheater, "bodies-differ", |w| {
                frames(w, cheater, PROBE, only(peer), |_, frame| {
                    edit(&mut frame.payload, |news: &mut Vec<ProbeNews>| spoil(&mut news[0].missing));
                });
            });
            in_a_query(&mut scene, cheater, "malformed-message", |w| {
                frames(w, cheater, PROBE, only(peer), |_, frame| {
                    edit(&mut frame.payload, |news: &mut Vec<ProbeNews>| news.clear());
                });
            });
            // Of the build's news: the digest of the shared part, and the check vectors C.
            let news = |change: fn(&mut PartNews)| {
                move |_: Party, frame: &mut Frame| {
                    if borsh::from_slice::<PartNews>(&frame.payload).is_ok() {
                        edit(&mut frame.payload, change);
                    }
                }
            };
            let bodies = news(|news| news.shared_bodies.0[0] ^= 1);
            let checks = news(|news| spoil(&mut news.checks));
            let only = only(peer);
            in_an_enrolment(&mut scene, cheater, "bodies-differ", true, |w| frames(w, cheater, PARTS, only, bodies));
            in_an_enrolment(&mut scene, cheater, "check-vectors-differ", true, |w| {
                frames(w, cheater, PARTS, only, checks);
            });
        }
        // The probe's public fields towards the matcher.
        type Change = fn(&mut MaskSeed, &mut ProbeShape, &mut Part);
        let fields: [(&str, Change); 3] = [
            ("seeds-differ", |seed, _, _| seed.0[0] ^= 1),
            ("unexpected-part", |_, shape, _| shape.layout = Layout::new(2, 1).unwrap()),
            ("unexpected-part", |_, _, part| *part = Part::from_index(part.index() + 2)),
        ];
        for (code, change) in fields {
            in_a_query(&mut scene, cheater, code, |w| {
                w.cheat_matcher(cheater, move |message| {
                    if let FromHolder::ProbePart { seed, shape, part, .. } = message {
                        change(seed, shape, part);
                    }
                });
            });
        }
    }
}

#[test]
fn the_digest_of_the_sums() {
    for cheater in Party::ALL {
        let mut scene = Scene::new(270 + cheater.index() as u64, &[3]);
        for to in [ALL, only(cheater.next()), only(cheater.previous())] {
            in_a_query(&mut scene, cheater, "sums-differ", |w| {
                frames(w, cheater, SUMS, to, |_, frame| frame.payload[31] ^= 1);
            });
        }
    }
}

#[test]
fn wrong_replies_are_noticed_by_the_client() {
    for cheater in Party::ALL {
        let mut scene = Scene::new(280 + cheater.index() as u64, &[3]);
        for length in [0usize, 1] {
            scene.wire.cheat_matcher(cheater, move |message| {
                if let FromHolder::Answer { reply, .. } = message {
                    reply[30] ^= 1;
                    reply.truncate(reply.len() - length);
                }
            });
            let result = scene.verify(0);
            scene.assert_refused(result, "reply-unreadable", Suspect::Holder(cheater));
            scene.assert_works();
        }
        // It knows its reply key: it seals the opposite.
        let signer = ClientSigningKey::random(&mut rng(scene.seed * 1000 + 4));
        let holders = Party::ALL.map(|p| scene.cluster.holder(p).card().encryption);
        let asked = exists();
        let associated = Associated {
            client: ClientId::new("gate").unwrap(),
            collection: scene.cluster.collection().clone(),
            purpose: Purpose::Probe(asked.clone()),
            dimension: Dimension::new(D).unwrap(),
            template_version: TemplateVersion(1),
            nonce: [9; 16],
            expires: Timestamp(scene.cluster.now.0 + 60),
        };
        let (sealed, keys) = seal(&scene.people[0].1, associated, &holders, &signer, &mut rng(5)).unwrap();
        let digest = sealed.digest();
        let lie = seal_reply(keys.of(cheater), &mut Counter::new(), &digest, cheater, &asked, &Outcome::Exists(false))
            .unwrap();
        scene.wire.cheat_matcher(cheater, move |message| {
            if let FromHolder::Answer { reply, .. } = message {
                reply.clone_from(&lie);
            }
        });
        let request = ClientRequest::Ask { sealed: sealed.to_bytes() };
        let answer = scene.cluster.request(borsh::to_vec(&request).unwrap()).unwrap();
        let ClientAnswer::Replies { replies } = borsh::from_slice(&answer).unwrap() else { panic!() };
        let opened = Party::ALL.map(|p| open_reply(keys.of(p), &digest, p, &asked, &replies[p.index()]));
        assert_eq!(opened[cheater.index()], Ok(Outcome::Exists(false)));
        assert_eq!(combine_replies(opened), Err(ReplyError::Deviates { holder: cheater }));
        scene.assert_works();
    }
}

#[test]
fn forged_stops() {
    for cheater in Party::ALL {
        let mut scene = Scene::new(290 + cheater.index() as u64, &[3]);
        // At the first step of each phase, blaming somebody else.
        for (turn, step) in [HELLO, REVEAL, PROBE, SUMS].into_iter().enumerate() {
            let blamed = [Suspect::Matcher, Suspect::Client, Suspect::Holder(cheater.next())][turn % 3];
            let refusal = Refusal::new(&HolderError::NotUnit, vec![blamed]);
            let payload = borsh::to_vec(&refusal).unwrap();
            let before = scene.before();
            frames(&scene.wire, cheater, step, ALL, move |_, frame| {
                frame.step = STOP;
                frame.payload.clone_from(&payload);
            });
            let result = scene.verify(0);
            let failures = scene.cluster.take_failures();
            let stopped = |(party, error): &(Party, HolderError)| {
                *party == cheater
                    || matches!(error, HolderError::SessionSpent(_))
                    || matches!(error, HolderError::PeerStopped { by, .. } if *by == cheater)
            };
            assert!(!failures.is_empty() && failures.iter().all(stopped), "{failures:?}");
            let Err(ClusterError::Client(error)) = result else { panic!("{result:?}") };
            assert!(points_at(&error.suspects(), Suspect::Holder(cheater)), "{error:?}");
            scene.assert_untouched(&before);
            scene.assert_works();
        }
        in_a_query(&mut scene, cheater, "malformed-message", |w| {
            frames(w, cheater, REVEAL, ALL, |_, frame| {
                frame.step = STOP;
                frame.payload = vec![1, 2, 3];
            });
        });
    }
}

/// Those who have promised to commit keep their promise, whoever tells them to stop.
#[test]
fn a_stop_after_the_promise() {
    for cheater in Party::ALL {
        let mut puppet = Puppet::with_groups(330 + cheater.index() as u64);
        let order = puppet.order(A, 2, (64, 2), &[(1, 0), (30, 1), (33, 2), (62, 3)]);
        let (session, packed) = puppet.recrypt(order).unwrap();
        let epoch = puppet.scene.cluster.holder(cheater).epoch().unwrap();
        let payload = borsh::to_vec(&Refusal::new(&HolderError::NotUnit, vec![Suspect::Client])).unwrap();
        for peer in cheater.peers() {
            for (step, payload) in [(STOP, &payload), (HELLO, &payload), (900, &payload)] {
                let frame = puppet.scene.wire.links(cheater, epoch).seal(session, step, peer, payload);
                let bytes = borsh::to_vec(&PeerMessage::Frame { epoch, frame }).unwrap();
                puppet.scene.cluster.network.send(Address::Holder(cheater), Address::Holder(peer), bytes);
            }
        }
        puppet.scene.cluster.run();
        puppet.pass_deadlines();
        puppet.scene.cluster.take_failures();
        let heard = puppet.tell(&Party::ALL, &ToHolder::Commit { session });
        let committed = |message: &FromHolder| matches!(message, FromHolder::Committed { .. });
        assert_eq!(heard.iter().filter(|(_, m)| committed(m)).count(), 3, "{heard:?}");
        puppet.groups.insert((A, packed.revision), packed);
        puppet.assert_works();
    }
}

#[test]
fn ceremonies() {
    for cheater in Party::ALL {
        let mut scene = Scene::new(300 + cheater.index() as u64, &[3]);
        let old = Arc::new(Mutex::new(None::<Vec<u8>>));
        for (turn, code) in ["frame-altered", "frame-altered", "malformed-message"].into_iter().enumerate() {
            let old = Arc::clone(&old);
            scene.wire.cheat(move |delivery| {
                let from = delivery.from == Address::Holder(cheater);
                if from && let Ok(PeerMessage::Ceremony { .. }) = borsh::from_slice(&delivery.bytes) {
                    let genuine = delivery.bytes.clone();
                    match turn {
                        0 => delivery.bytes[5] ^= 1,
                        1 => delivery.bytes[1] ^= 64,
                        _ => delivery.bytes = old.lock().unwrap().clone().unwrap(),
                    }
                    *old.lock().unwrap() = Some(genuine);
                }
                true
            });
            let before = scene.before();
            assert_eq!(scene.cluster.begin_epoch(), Err(ClusterError::Ceremony));
            let failures = scene.cluster.take_failures();
            let found = own_errors(&failures, Suspect::Holder(cheater));
            assert!(found.iter().any(|e| e.code() == code), "{code}: {failures:?}");
            assert!(found.iter().all(|e| points_at(&e.suspects(), Suspect::Holder(cheater))), "{failures:?}");
            scene.assert_untouched(&before);
            // Held again, it completes.
            scene.wire.honest();
            scene.cluster.begin_epoch().unwrap();
            scene.assert_works();
        }
        // A late replay of an old message changes nothing.
        let replay = old.lock().unwrap().clone().unwrap();
        let (from, to) = (Address::Holder(cheater), Address::Holder(cheater.previous()));
        scene.cluster.network.send(from, to, replay);
        scene.cluster.run();
        let failures = scene.cluster.take_failures();
        assert!(
            matches!(failures.as_slice(), [(_, e)] if e.code() == "malformed-message"
                && points_at(&e.suspects(), Suspect::Holder(cheater))),
            "{failures:?}"
        );
        scene.cluster.rotate().unwrap();
        scene.assert_works();
    }
}

/// Randomness that only one peer gets cannot be compared; wrong, it spoils the session and opens nothing.
#[test]
fn wrong_fresh_randomness_spoils_the_session_only() {
    for cheater in Party::ALL {
        let mut scene = Scene::new(310 + cheater.index() as u64, &[3]);
        let before = scene.before();
        frames(&scene.wire, cheater, HELLO, ALL, |_, frame| {
            edit(&mut frame.payload, |hello: &mut Hello| {
                if let Some(fresh) = &mut hello.fresh {
                    fresh[0] ^= 1;
                }
            });
        });
        assert!(scene.verify(0).is_err());
        scene.assert_untouched(&before);
        scene.assert_works();
    }
}
