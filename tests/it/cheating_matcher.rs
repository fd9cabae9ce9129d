//! A matcher that lies, played by the test: every lie is refused with an error that blames it, nothing is opened, and the
//! holders' registries are as before.

use veilmatch_domain::{CollectionId, Explain, GroupId};
use veilmatch_domain::{Decision, Dimension, Outcome, Party, Policy, Revision, Suspect, Threshold};
use veilmatch_glwe::{BuildOrder, FromHolder, GroupSums, Parameters, Stage, ToHolder, Verdict, build_session};
use veilmatch_holder::HolderError;
use veilmatch_kernels::{from_bytes, to_bytes};

use crate::cheats::{A, B, D, Puppet, Scene, exists, points_at};
use veilmatch_tests::{query, random_unit};

/// Adds something to one residue of a list.
fn bump(parameters: &Parameters, packed: &mut Vec<u8>, place: usize, by: u32) {
    let q = parameters.modulus;
    let mut residues = from_bytes(q, packed, packed.len() / 4).unwrap();
    residues[place] = ((u64::from(residues[place]) + u64::from(by)) % u64::from(q)) as u32;
    *packed = to_bytes(&residues);
}

#[test]
fn any_coefficient_of_any_sum() {
    let mut puppet = Puppet::with_groups(101);
    let p = puppet.scene.cluster.parameters();
    let n = p.degree;
    // A has rank 2: A_0 and A_1 lie one after the other, B_0 and B_1 hold 32 folded values each.
    let places = [(0, 0), (0, 1), (0, 777), (0, n - 1), (0, n), (0, n + 1234), (0, 2 * n - 1), (1, 0), (1, n - 1)];
    for (turn, (group, place)) in places.into_iter().enumerate() {
        let by = [1, p.modulus - 1, 12_345][turn % 3];
        puppet.refuses("scan-check", |_, _, sums| bump(&p, &mut sums[group].masks, place, by));
    }
    for (turn, (group, place)) in
        [(0, 0), (0, 1), (0, 31), (0, 32), (0, 45), (0, 63), (1, 0), (1, 5), (1, 63)].into_iter().enumerate()
    {
        let by = [1, p.modulus - 1, 12_345][turn % 3];
        puppet.refuses("scan-check", |_, _, sums| bump(&p, &mut sums[group].scores, place, by));
    }
    // Both at once, cancelling each other in a check that weighs them equally.
    puppet.refuses("scan-check", |_, _, sums| {
        bump(&p, &mut sums[0].masks, 3, 1);
        bump(&p, &mut sums[0].masks, n + 3, p.modulus - 1);
    });
    puppet.assert_works();
}

#[test]
fn swapped_bodies_and_other_bodies() {
    let mut puppet = Puppet::with_groups(102);
    let p = puppet.scene.cluster.parameters();
    let swap = |packed: &mut Vec<u8>, count: usize| {
        let mut residues = from_bytes(p.modulus, packed, count).unwrap();
        residues.rotate_left(count / 2);
        *packed = to_bytes(&residues);
    };
    puppet.refuses("scan-check", |_, _, sums| swap(&mut sums[0].masks, 2 * p.degree));
    puppet.refuses("scan-check", |_, _, sums| swap(&mut sums[0].scores, 64));
    puppet.refuses("scan-check", |_, _, sums| {
        swap(&mut sums[0].masks, 2 * p.degree);
        swap(&mut sums[0].scores, 64);
    });
    // The index itself: bodies swapped, one body in both places, all bodies zero.
    for kind in 0..3 {
        puppet.refuses("scan-check", |puppet, asked, sums| {
            let mut group = puppet.groups[&(A, Revision(1))].clone();
            let half = group.bodies.len() / 2;
            let mut bodies = group.bodies.to_vec();
            match kind {
                0 => bodies.rotate_left(half),
                1 => bodies.copy_within(0..half, half),
                _ => bodies.fill(0),
            }
            group.bodies = bodies.into();
            sums[0] = puppet.sums(asked, &group);
        });
    }
    puppet.assert_works();
}

#[test]
fn groups_left_out_repeated_unknown_or_malformed() {
    let mut puppet = Puppet::with_groups(103);
    puppet.refuses("group-left-out", |_, _, sums| drop(sums.pop()));
    puppet.refuses("group-left-out", |_, _, sums| sums.clear());
    puppet.refuses("bad-sums", |_, _, sums| sums.push(sums[0].clone()));
    puppet.refuses("unregistered-group", |_, _, sums| sums[1].group = GroupId(77));
    puppet.refuses("unregistered-group", |_, _, sums| sums.push(GroupSums { group: GroupId(77), ..sums[0].clone() }));
    puppet.refuses("unregistered-group", |_, _, sums| sums[0].revision = Revision(9));
    puppet.refuses("bad-sums", |_, _, sums| sums[0].masks.truncate(100));
    puppet.refuses("bad-sums", |_, _, sums| sums[0].scores.push(0));
    puppet.refuses("bad-sums", |_, _, sums| sums[0].scores.fill(0xff));
    puppet.refuses("scan-check", |_, _, sums| {
        let other = sums[0].masks.clone();
        sums[1].masks = other[..sums[1].masks.len()].to_vec();
    });
    puppet.assert_works();
}

#[test]
fn revoked_revisions() {
    let mut puppet = Puppet::with_groups(104);
    puppet.build(puppet.order(A, 2, (64, 2), &[(1, 0), (30, 1), (33, 2), (62, 3)])).unwrap();
    let replay = |puppet: &Puppet, asked: &_| puppet.sums(asked, &puppet.groups[&(A, Revision(1))]);
    puppet.refuses("revoked-revision", |puppet, asked, sums| sums[0] = replay(puppet, asked));
    // The old bodies under the new revision's name.
    puppet.refuses("scan-check", |puppet, asked, sums| {
        sums[0] = GroupSums { revision: Revision(2), ..replay(puppet, asked) };
    });
    puppet.assert_works();

    // After an erasure the rebuilt group leaves the subject out; the old revision is never served again.
    let (gone, collection) = (puppet.scene.people[3].0.clone(), puppet.scene.cluster.collection().clone());
    let now = puppet.scene.cluster.now;
    let request = puppet.scene.cluster.client.erase(&collection, gone.clone(), now);
    let veilmatch_glwe::ClientRequest::Erase { request } = borsh::from_slice(&request).unwrap() else { unreachable!() };
    puppet.tell(&Party::ALL, &ToHolder::Erase { request: request.clone() });
    puppet.build(puppet.order(A, 3, (64, 2), &[(1, 0), (30, 1), (33, 2)])).unwrap();
    puppet.refuses("revoked-revision", |puppet, asked, sums| {
        sums[0] = puppet.sums(asked, &puppet.groups[&(A, Revision(2))]);
    });
    puppet.refuses("scan-check", |puppet, asked, sums| {
        let old = puppet.sums(asked, &puppet.groups[&(A, Revision(2))]);
        sums[0] = GroupSums { revision: Revision(3), ..old };
    });
    // A rebuild with the erased member is refused, and a replay of the erasure has no effect.
    let before = puppet.scene.before();
    let order = puppet.order(A, 4, (64, 2), &[(1, 0), (30, 1), (33, 2), (62, 3)]);
    assert!(puppet.recrypt(order).is_none());
    puppet.blames_matcher("not-admitted");
    puppet.tell(&Party::ALL, &ToHolder::Erase { request });
    puppet.scene.assert_untouched(&before);
    puppet.assert_works();
    // A group that is revoked as a whole: its last members move elsewhere.
    let order = BuildOrder { replaces: vec![B], ..puppet.order(GroupId(5), 1, (64, 1), &[(0, 4), (1, 5)]) };
    puppet.build(order).unwrap();
    let stale = puppet.groups.remove(&(B, Revision(1))).unwrap();
    puppet.refuses("revoked-revision", |puppet, asked, sums| {
        let probe_shape_is_gone = puppet.sums(asked, &puppet.groups[&(GroupId(5), Revision(1))]);
        sums.push(GroupSums { group: stale.group, revision: stale.revision, ..probe_shape_is_gone });
    });
    puppet.assert_works();
}

#[test]
fn a_second_decision_in_one_session() {
    let mut puppet = Puppet::with_groups(105);
    let asked = puppet.ask(0, Decision::Exists);
    let (session, sealed) = (asked.session, asked.sealed.clone());
    let groups = puppet.all_sums(&asked);
    let (answer, _) = puppet.finish(asked, [groups.clone(), groups.clone(), groups.clone()]);
    assert_eq!(answer, Some(Ok(Outcome::Exists(true))));
    let before = puppet.scene.before();
    for again in [ToHolder::Sums { session, stage: Stage::Whole, groups: groups.clone() }, ToHolder::Ask { sealed }] {
        let heard = puppet.tell(&Party::ALL, &again);
        assert!(heard.iter().all(|(_, m)| matches!(m, FromHolder::Refused { .. })), "{heard:?}");
        puppet.blames_matcher("session-spent");
        puppet.scene.assert_untouched(&before);
    }

    // Twice before the decision: the second one ends the session.
    for twice in [true, false] {
        let before = puppet.scene.before();
        let asked = puppet.ask(0, Decision::Exists);
        let session = asked.session;
        let mut groups = puppet.all_sums(&asked);
        let first = puppet.tell(&[Party::K1], &ToHolder::Sums { session, stage: Stage::Whole, groups: groups.clone() });
        assert!(first.is_empty());
        if !twice {
            groups.clear();
        }
        puppet.tell(&[Party::K1], &ToHolder::Sums { session, stage: Stage::Whole, groups: groups.clone() });
        puppet.blames_matcher("session-spent");
        let heard = puppet.tell(&Party::ALL, &ToHolder::Sums { session, stage: Stage::Whole, groups });
        assert!(!heard.iter().any(|(_, m)| matches!(m, FromHolder::Answer { .. })));
        puppet.blames_matcher("session-spent");
        puppet.scene.assert_untouched(&before);
    }

    // The same probe while its session is open: refused, and the open session goes on.
    let asked = puppet.ask(0, Decision::Exists);
    let sealed = asked.sealed.clone();
    puppet.tell(&Party::ALL, &ToHolder::Ask { sealed });
    puppet.blames_matcher("out-of-turn");
    let groups = puppet.all_sums(&asked);
    let (answer, _) = puppet.finish(asked, [groups.clone(), groups.clone(), groups]);
    assert_eq!(answer, Some(Ok(Outcome::Exists(true))));
    puppet.assert_works();
}

#[test]
fn different_sums_to_different_holders() {
    let mut puppet = Puppet::with_groups(106);
    let p = puppet.scene.cluster.parameters();
    for odd in Party::ALL {
        // False sums to one holder: it finds out by the scan check. Another order: each set passes, the digests differ.
        for (code, reversed) in [("scan-check", false), ("sums-differ", true)] {
            let before = puppet.scene.before();
            let asked = puppet.ask(0, Decision::Exists);
            let honest = puppet.all_sums(&asked);
            let mut sums = [honest.clone(), honest.clone(), honest];
            if reversed {
                sums[odd.index()].reverse();
            } else {
                bump(&p, &mut sums[odd.index()][0].scores, 0, 1 << 20);
            }
            let (answer, _) = puppet.finish(asked, sums);
            assert_eq!(answer, None);
            puppet.blames_matcher(code);
            puppet.scene.assert_untouched(&before);
        }
        // No sums for one holder: the others wait in vain, and it says so.
        let before = puppet.scene.before();
        let asked = puppet.ask(0, Decision::Exists);
        let session = asked.session;
        let groups = puppet.all_sums(&asked);
        puppet.tell(&odd.peers(), &ToHolder::Sums { session, stage: Stage::Whole, groups });
        puppet.pass_deadlines();
        let failures = puppet.scene.cluster.take_failures();
        assert!(
            failures.iter().all(|(_, e)| matches!(e, HolderError::TimedOut { .. } | HolderError::PeerStopped { .. }))
        );
        assert!(failures.iter().all(|(_, e)| !e.suspects().is_empty()), "{failures:?}");
        puppet.scene.assert_untouched(&before);
    }
    puppet.assert_works();
}

#[test]
fn different_requests_to_different_holders() {
    let mut puppet = Puppet::with_groups(107);
    for odd in Party::ALL {
        let before = puppet.scene.before();
        let (_, one, _) = puppet.probe(0, Decision::Exists);
        let (_, two, _) = puppet.probe(1, Decision::Exists);
        let mut asks = [(); 3].map(|()| ToHolder::Ask { sealed: one.clone() });
        asks[odd.index()] = ToHolder::Ask { sealed: two };
        let heard = puppet.tell_each(asks);
        assert!(heard.is_empty(), "no probe is recrypted: {heard:?}");
        puppet.pass_deadlines();
        let failures = puppet.scene.cluster.take_failures();
        assert!(failures.iter().all(|(_, e)| !e.suspects().is_empty()), "{failures:?}");
        puppet.scene.assert_untouched(&before);
        // The admission of other templates, too.
        let person = puppet.scene.people.len();
        puppet.scene.person();
        let (one, two) = (puppet.seal(person), puppet.seal(person));
        let (attempt, collection) = (puppet.next_attempt(), puppet.scene.cluster.collection().clone());
        let before = puppet.scene.before();
        let mut orders =
            [(); 3].map(|()| ToHolder::Admit { attempt, collection: collection.clone(), templates: vec![one.clone()] });
        orders[odd.index()] = ToHolder::Admit { attempt, collection, templates: vec![two] };
        assert!(puppet.tell_each(orders).is_empty());
        puppet.pass_deadlines();
        puppet.scene.cluster.take_failures();
        puppet.scene.assert_untouched(&before);
        puppet.assert_works();
    }
}

#[test]
fn another_build_for_one_holder() {
    let mut puppet = Puppet::with_groups(108);
    let good = puppet.order(A, 2, (64, 2), &[(1, 0), (30, 1), (33, 2), (62, 3)]);
    let layout = puppet.order(A, 2, (32, 1), &[(1, 0), (30, 1), (33, 2), (62, 3)]);
    let members = puppet.order(A, 2, (64, 2), &[(2, 0), (30, 1), (33, 2), (62, 3)]);
    for (turn, bad) in [layout, members].into_iter().enumerate() {
        for odd in Party::ALL {
            let before = puppet.scene.before();
            let revision = Revision((10 + turn * 3 + odd.index()) as u32);
            let attempt = puppet.next_attempt();
            let order = |order: &BuildOrder| ToHolder::Build(BuildOrder { attempt, revision, ..order.clone() });
            let mut orders = [order(&good), order(&good), order(&good)];
            orders[odd.index()] = order(&bad);
            let sessions = [&good, &bad].map(|o| build_session(&BuildOrder { attempt, revision, ..o.clone() }));
            let heard = puppet.tell_each(orders);
            assert!(heard.is_empty(), "no body is recrypted: {heard:?}");
            for session in sessions {
                puppet.tell(&Party::ALL, &ToHolder::Commit { session });
            }
            puppet.pass_deadlines();
            let failures = puppet.scene.cluster.take_failures();
            assert!(failures.iter().all(|(_, e)| !e.suspects().is_empty()), "{failures:?}");
            puppet.scene.assert_untouched(&before);
        }
    }
    puppet.build(BuildOrder { revision: Revision(20), ..good }).unwrap();
    puppet.assert_works();
}

#[test]
fn orders_that_must_not_be_built() {
    let mut puppet = Puppet::with_groups(109);
    let all = [(1, 0), (30, 1), (33, 2), (62, 3)];
    let good = puppet.order(A, 2, (64, 2), &all);
    // Never admitted: a fresh template of an enrolled person, and of a stranger.
    puppet.scene.person();
    let known = puppet.sealed.clone();
    puppet.seal(0);
    let other_template = puppet.order(A, 2, (64, 2), &all);
    puppet.sealed = known;
    puppet.seal(6);
    let stranger = puppet.order(A, 2, (64, 2), &[(1, 0), (30, 1), (33, 2), (62, 3), (63, 6)]);
    // Of another collection.
    let (subject, embedding) = puppet.scene.people[6].clone();
    let guests = CollectionId::new("guests").unwrap();
    puppet.scene.cluster.create_collection(&guests, &Policy::permissive(Dimension::new(D).unwrap())).unwrap();
    let now = puppet.scene.cluster.now;
    let foreign = puppet.scene.cluster.client.seal_template(&guests, subject.clone(), &embedding, now).unwrap();
    puppet.sealed.insert(subject.clone(), foreign);
    let foreign = puppet.order(A, 2, (64, 2), &[(1, 0), (30, 1), (33, 2), (62, 3), (63, 6)]);
    // Of a collection that nobody knows.
    let nowhere = CollectionId::new("nowhere").unwrap();
    let lost = puppet.scene.cluster.client.seal_template(&nowhere, subject.clone(), &embedding, now).unwrap();
    puppet.sealed.insert(subject.clone(), lost);
    let lost = puppet.order(A, 2, (64, 2), &[(1, 0), (30, 1), (33, 2), (62, 3), (63, 6)]);
    // A probe as a member.
    let (_, probe, _) = puppet.probe(0, Decision::Exists);
    puppet.sealed.insert(subject, probe);
    let probe = puppet.order(A, 2, (64, 2), &[(1, 0), (30, 1), (33, 2), (62, 3), (63, 6)]);
    let mut spoilt = good.clone();
    let last = spoilt.members[2].sealed.len() - 1;
    spoilt.members[2].sealed[last] ^= 1;
    let mut unordered = good.clone();
    unordered.members.swap(0, 1);

    let cases = [
        ("not-admitted", other_template),
        ("not-admitted", stranger),
        ("wrong-use", foreign),
        ("unknown-collection", lost),
        ("wrong-use", probe),
        ("bad-signature", spoilt),
        ("member-left-out", puppet.order(A, 2, (64, 2), &all[..3])),
        ("member-left-out", BuildOrder { replaces: vec![B], ..good.clone() }),
        ("member-elsewhere", puppet.order(A, 2, (64, 2), &[(1, 0), (30, 1), (33, 2), (62, 3), (63, 4)])),
        ("bad-slots", puppet.order(A, 2, (64, 1), &all)),
        ("bad-slots", puppet.order(A, 2, (64, 2), &[(1, 0), (1, 1), (33, 2), (62, 3)])),
        ("bad-slots", puppet.order(A, 2, (64, 2), &[(1, 0), (30, 1), (33, 2), (62, 3), (63, 3)])),
        ("bad-slots", puppet.order(A, 2, (64, 2), &[])),
        ("bad-slots", unordered),
        ("unknown-collection", BuildOrder { collection: CollectionId::new("nowhere").unwrap(), ..good.clone() }),
        ("wrong-epoch", BuildOrder { epoch: veilmatch_domain::Epoch(7), ..good.clone() }),
        // The label of the live revision with other content, and one below it.
        ("label-reused", puppet.order(A, 1, (64, 2), &all)),
        ("label-reused", puppet.order(A, 1, (32, 1), &[(0, 0), (31, 1), (32, 2), (63, 3)])),
        ("label-reused", puppet.order(A, 0, (64, 2), &all)),
    ];
    for (code, order) in cases {
        let before = puppet.scene.before();
        assert!(puppet.recrypt(order).is_none());
        let failures = puppet.scene.cluster.take_failures();
        assert!(failures.iter().any(|(_, e)| e.code() == code), "{code}: {failures:?}");
        // What the order's templates say may be the client's doing; what the order itself says is the matcher's.
        assert!(
            failures.iter().all(|(_, e)| {
                points_at(&e.suspects(), Suspect::Matcher) || points_at(&e.suspects(), Suspect::Client)
            })
        );
        puppet.scene.assert_untouched(&before);
    }
    // A retry of a label with the same content gives the same bytes.
    let retry = puppet.order(A, 1, (64, 2), &[(0, 0), (31, 1), (32, 2), (63, 3)]);
    let (session, again) = puppet.recrypt(retry).unwrap();
    assert_eq!(again, puppet.groups[&(A, Revision(1))]);
    puppet.tell(&Party::ALL, &ToHolder::Abandon { session });
    puppet.assert_works();
    puppet.build(good).unwrap();
    puppet.assert_works();
}

#[test]
fn commits_out_of_turn() {
    let mut puppet = Puppet::with_groups(110);
    let mut order = puppet.order(A, 2, (64, 2), &[(1, 0), (30, 1), (33, 2), (62, 3)]);
    order.attempt = puppet.next_attempt();
    let session = build_session(&order);
    let before = puppet.scene.before();
    puppet.tell(&Party::ALL, &ToHolder::Commit { session });
    puppet.blames_matcher("unknown-session");
    // One holder has not been asked at all, so nobody is ready.
    puppet.tell(&[Party::K0, Party::K1], &ToHolder::Build(order));
    puppet.tell(&[Party::K0], &ToHolder::Commit { session });
    puppet.blames_matcher("out-of-turn");
    puppet.tell(&[Party::K1, Party::K2], &ToHolder::Commit { session });
    puppet.blames_matcher("unknown-session");
    puppet.scene.assert_untouched(&before);
    // A query takes no commit, a build no sums, and what is abandoned is gone.
    let asked = puppet.ask(0, Decision::Exists);
    puppet.tell(&[Party::K2], &ToHolder::Commit { session: asked.session });
    puppet.blames_matcher("out-of-turn");
    puppet.scene.assert_untouched(&before);
    let (session, _) = puppet.recrypt(puppet.order(A, 3, (64, 2), &[(1, 0), (30, 1), (33, 2), (62, 3)])).unwrap();
    puppet.tell(&Party::ALL, &ToHolder::Sums { session, stage: Stage::Whole, groups: Vec::new() });
    puppet.blames_matcher("out-of-turn");
    puppet.tell(&Party::ALL, &ToHolder::Abandon { session });
    puppet.tell(&Party::ALL, &ToHolder::Commit { session });
    puppet.blames_matcher("unknown-session");
    puppet.scene.assert_untouched(&before);
    puppet.assert_works();
    // Admissions: the same template twice at once, and again when it is enrolled.
    puppet.scene.person();
    let sealed = puppet.seal(6);
    assert_eq!(puppet.admit(vec![sealed.clone()]), [Verdict::Accepted]);
    let before = puppet.scene.before();
    for templates in [vec![sealed.clone()], vec![sealed.clone(), sealed]] {
        let verdicts = puppet.admit(templates);
        assert!(verdicts.iter().all(|v| matches!(v, Verdict::Refused(r) if r.code == "replayed")), "{verdicts:?}");
        puppet.scene.assert_untouched(&before);
    }
}

#[test]
fn a_commit_at_one_holder_alone() {
    let mut puppet = Puppet::with_groups(111);
    let order = puppet.order(A, 2, (64, 2), &[(1, 0), (30, 1), (33, 2), (62, 3)]);
    let (session, packed) = puppet.recrypt(order).unwrap();
    puppet.tell(&[Party::K1], &ToHolder::Commit { session });
    let opened = puppet.scene.before();
    let (_, sealed, _) = puppet.probe(0, Decision::Exists);
    let heard = puppet.tell(&Party::ALL, &ToHolder::Ask { sealed });
    assert!(!heard.iter().any(|(_, m)| matches!(m, FromHolder::ProbePart { .. })));
    puppet.blames_matcher("requests-differ");
    assert_eq!(puppet.scene.before(), opened);
    // The others have promised and still wait, whatever deadlines pass and whatever their peers say.
    puppet.pass_deadlines();
    puppet.tell(&Party::ALL, &ToHolder::Commit { session });
    puppet.groups.insert((A, Revision(2)), packed);
    puppet.assert_works();
}

#[test]
fn an_altered_sealed_template() {
    let mut scene = Scene::new(112, &[3]);
    let newcomer = scene.person();
    let before = scene.before();
    for place in [0usize, 1, 30, 200, 1400, 3600, 3900, 4250] {
        scene.wire.cheat_holders(move |_, message| {
            let bytes = match message {
                ToHolder::Ask { sealed } => sealed,
                ToHolder::Admit { templates, .. } => &mut templates[0],
                _ => return true,
            };
            let place = place % bytes.len();
            bytes[place] ^= 4;
            true
        });
        // The client is told something is wrong with its template, or nothing in time: the matcher's session is another.
        let asked = scene.verify(0);
        assert!(asked.is_err(), "{asked:?}");
        let failures = scene.cluster.take_failures();
        assert!(
            failures.iter().any(|(_, e)| matches!(e, HolderError::Sealed(_) | HolderError::UnknownClient(_))
                || e.code() == "unknown-collection"),
            "{place}: {failures:?}"
        );
        let enrolled = scene.enrol(std::slice::from_ref(&newcomer));
        let refused = |v: &Verdict| matches!(v, Verdict::Refused(_));
        assert!(enrolled.as_ref().is_ok_and(|v| v.iter().all(refused)) || enrolled.is_err(), "{enrolled:?}");
        scene.wire.honest();
        scene.cluster.pass_deadlines();
        scene.assert_untouched(&before);
    }
    // To one holder alone.
    scene.wire.cheat_holders(|to, message| {
        if let (Party::K1, ToHolder::Ask { sealed }) = (to, message) {
            let last = sealed.len() - 1;
            sealed[last] ^= 1;
        }
        true
    });
    let asked = scene.verify(0);
    scene.assert_refused(asked, "bad-signature", Suspect::Client);
    scene.assert_untouched(&before);
    scene.assert_works();
}

#[test]
fn holders_with_different_policies_open_nothing() {
    let mut scene = Scene::new(113, &[3]);
    let probe = random_unit(D, &mut scene.rng);
    let mut strict = Policy::permissive(Dimension::new(D).unwrap());
    strict.lowest_threshold = Threshold::new(0.5).unwrap();
    scene.cluster.set_policy(&strict).unwrap();
    let refused = scene.cluster.ask(&probe, exists());
    scene.assert_refused(refused, "policy", Suspect::Client);
    assert_eq!(scene.cluster.ask(&probe, query(Decision::Exists, 0.6)), Ok(Outcome::Exists(false)));
}

/// A build that was given up may be ordered again: the same label and content give the same bytes, so a matcher that asks
/// twice has no second sample of a secret. Another revision gives other bytes throughout.
#[test]
fn a_retry_gives_identical_bytes() {
    let mut puppet = Puppet::new(131, 4);
    let members = [(0, 0), (40, 1), (63, 3)];
    let first = puppet.order(A, 1, (64, 2), &members);
    let (session, bodies) = puppet.recrypt(first.clone()).unwrap();
    puppet.tell(&Party::ALL, &ToHolder::Abandon { session });
    let (retried, again) = puppet.recrypt(first).unwrap();
    assert_ne!(session, retried, "an attempt is a session of its own");
    assert!(bodies == again, "the retry gave other bytes");
    puppet.tell(&Party::ALL, &ToHolder::Abandon { session: retried });
    let second = puppet.order(A, 2, (64, 2), &members);
    let (_, other) = puppet.recrypt(second).unwrap();
    let equal = bodies.bodies.iter().zip(other.bodies.iter()).filter(|(a, b)| a == b).count();
    assert!(equal < 10, "{equal} of {} residues are equal in another revision", other.bodies.len());
}
