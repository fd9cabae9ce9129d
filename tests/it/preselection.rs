//! Queries in two stages (DESIGN 6): their decisions are those of plain arithmetic in two stages, a lie in either stage is
//! refused and blames the matcher, and every opening is in the logs and the budgets once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use veilmatch_cluster::{Address, Cluster, ClusterError, Crash};
use veilmatch_conformance::{Tally, judge};
use veilmatch_domain::{
    Budgets, Decision, Dimension, Embedding, Explain, GroupId, Outcome, Party, Policy, Preselection, PreselectionRules,
    Query, SubjectId, Suspect, Threshold,
};
use veilmatch_glwe::{FromHolder, GroupSums, Stage, ToHolder, Verdict, decision_noise};
use veilmatch_holder::{AuditEvent, HolderError};
use veilmatch_kernels::{from_bytes, to_bytes};
use veilmatch_mpc::{Answer, Fault, FaultKind, Question};
use veilmatch_tests::{at_cosine, random_unit, subject};

use crate::cheats::{Puppet, Scene, points_at};

/// Dimension of every gallery here, and of its coarse stage.
const D: usize = 256;
const M: u16 = 128;

fn rules() -> PreselectionRules {
    PreselectionRules { least_dimensions: 64, most_groups: 100, lowest_threshold: Threshold::new(-0.9).unwrap() }
}

fn policy() -> Policy {
    Policy { preselection: Some(rules()), ..Policy::permissive(Dimension::new(D).unwrap()) }
}

fn asking(decision: Decision, threshold: f64, coarse: f64, most_groups: u32) -> Query {
    let coarse = Threshold::new(coarse).unwrap();
    let preselection = Some(Preselection { dimensions: M, threshold: coarse, most_groups });
    Query { preselection, ..Query::new(decision, Threshold::new(threshold).unwrap()) }
}

/// A gallery in groups of at most `capacity`, cut behind the first M dimensions.
fn scene(seed: u64, policy: Policy, capacity: u32, people: &[Embedding]) -> Scene {
    let mut scene = Scene::with_policy(seed, policy);
    scene.cluster.limit_groups(capacity);
    scene.cluster.set_hot_dimensions(Some(M));
    let people: Vec<_> = people.iter().enumerate().map(|(i, e)| (subject(i), e.clone())).collect();
    let verdicts = scene.enrol(&people).unwrap();
    assert!(verdicts.iter().all(|v| *v == Verdict::Accepted), "{:?}", scene.cluster.take_failures());
    scene.people = people;
    scene
}

fn random_people(seed: u64, count: usize) -> Vec<Embedding> {
    let mut random = veilmatch_tests::rng(seed);
    (0..count).map(|_| random_unit(D, &mut random)).collect()
}

/// A unit vector whose first M coordinates have this share of its energy.
fn lopsided(head: f64, turn: usize) -> Embedding {
    let m = usize::from(M);
    let weight = |j: usize| if j < m { (head / m as f64).sqrt() } else { ((1.0 - head) / (D - m) as f64).sqrt() };
    let sign = |j: usize| if (j * 31 + turn * 7 + j / 16 * turn).is_multiple_of(2) { 1.0 } else { -1.0 };
    Embedding::normalised((0..D).map(|j| (weight(j) * sign(j)) as f32).collect()).unwrap()
}

/// The groups as the matcher has them: who is in which, erased members left out.
fn groups(cluster: &Cluster) -> Vec<(GroupId, Vec<SubjectId>)> {
    let index = cluster.matcher().index(cluster.collection()).unwrap();
    let current = |g: &veilmatch_glwe::PackedGroup| {
        let record = index.group(g.group).unwrap();
        record.members.iter().filter(|m| index.is_current(m)).map(|m| m.subject.clone()).collect()
    };
    index.groups().map(|g| (g.packed.group, current(&g.packed))).collect()
}

fn noise(cluster: &Cluster) -> f64 {
    let index = cluster.matcher().index(cluster.collection()).unwrap();
    let of = |layout| decision_noise(&cluster.parameters(), layout, Dimension::new(D).unwrap()).0;
    index.groups().map(|g| of(g.packed.layout)).fold(0.0, f64::max)
}

fn inner(a: &Embedding, b: &Embedding, dimensions: usize) -> f64 {
    a.values().iter().zip(b.values()).take(dimensions).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

/// What went over the wire: the candidates that a holder named, and the bytes of the sums of each stage to one holder.
#[derive(Default)]
struct Seen {
    candidates: Option<Vec<GroupId>>,
    sums: Vec<(Stage, usize)>,
}

fn seen(record: &[veilmatch_mpc::Delivery<Address>]) -> Seen {
    let mut seen = Seen::default();
    for delivery in record {
        match (delivery.from, delivery.to) {
            (Address::Holder(Party::K0), Address::Matcher) => {
                if let Ok(FromHolder::Candidates { groups, .. }) = borsh::from_slice(&delivery.bytes) {
                    seen.candidates = Some(groups);
                }
            }
            (Address::Matcher, Address::Holder(Party::K0)) => {
                if let Ok(ToHolder::Sums { stage, groups, .. }) = borsh::from_slice(&delivery.bytes) {
                    seen.sums.push((stage, groups.len()));
                }
            }
            _ => {}
        }
    }
    seen
}

/// Asks in two stages and compares with plain arithmetic in two stages, where the noise leaves no doubt.
fn judged(scene: &mut Scene, probe: &Embedding, query: &Query) -> (Tally, usize) {
    let asked = query.preselection.unwrap();
    let (sigma, of_groups) = (noise(&scene.cluster), groups(&scene.cluster));
    let person = |s: &SubjectId| scene.people.iter().find(|(p, _)| p == s).map(|(_, e)| e).unwrap();
    let coarse = |s: &SubjectId| inner(person(s), probe, M.into()) - asked.threshold.cosine();
    let highest = |of: &[SubjectId]| of.iter().map(&coarse).fold(-2.0, f64::max);
    let clear = of_groups.iter().all(|(_, members)| highest(members).abs() > 5.0 * sigma);
    let expected: Vec<GroupId> =
        of_groups.iter().filter(|(_, members)| highest(members) >= 0.0).map(|(group, _)| *group).collect();

    scene.cluster.network.record();
    let outcome = scene.cluster.ask(probe, query.clone());
    let seen = seen(&scene.cluster.network.take_record());
    if !clear {
        return (Tally { unjudged: 1, ..Tally::default() }, expected.len());
    }
    if expected.len() > asked.most_groups as usize {
        let Err(ClusterError::Client(error)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(error.reason(), "too-many-candidates");
        assert_eq!((seen.candidates, seen.sums.len()), (None, 1), "which they are is not opened");
        return (Tally { questions: 1, ..Tally::default() }, expected.len());
    }
    let coarse_sums = (Stage::Coarse, of_groups.iter().filter(|(_, members)| !members.is_empty()).count());
    if expected.is_empty() {
        assert_eq!((seen.candidates, seen.sums), (None, vec![coarse_sums]));
    } else {
        assert_eq!(seen.sums, [coarse_sums, (Stage::Rest, expected.len())]);
        assert_eq!(seen.candidates, Some(expected.clone()));
    }
    let chosen = of_groups.iter().filter(|(group, _)| expected.contains(group)).flat_map(|(_, members)| members);
    let chosen: Vec<&SubjectId> = chosen.collect();
    let scores: Vec<f64> = chosen.iter().map(|s| person(s).cosine(probe).unwrap()).collect();
    let lane = |s: &SubjectId| chosen.iter().position(|c| *c == s).expect("nobody outside the candidates' groups");
    let question = match &query.decision {
        Decision::Matches { max_matches } => Question::List { max: *max_matches },
        Decision::Best => Question::Best,
        _ => Question::Any,
    };
    let outcome = outcome.unwrap_or_else(|e| panic!("{e}: {:?}", scene.cluster.take_failures()));
    let answer = match &outcome {
        Outcome::Verify(hit) | Outcome::Exists(hit) => Answer::Any(*hit),
        Outcome::TooMany => Answer::TooMany,
        Outcome::Best(best) => Answer::Best(best.as_ref().map(lane)),
        Outcome::Matches(subjects) => {
            let mut lanes: Vec<usize> = subjects.iter().map(lane).collect();
            lanes.sort_unstable();
            Answer::List(lanes)
        }
    };
    (judge(question, query.threshold, &scores, sigma, &answer), expected.len())
}

/// Every mode with several coarse thresholds and caps.
fn ask_all(scene: &mut Scene, probes: &[Embedding]) -> (Tally, BTreeSet<usize>) {
    let (mut tally, mut candidates) = (Tally::default(), BTreeSet::new());
    for (turn, probe) in probes.iter().enumerate() {
        let coarse = [0.2, 0.3, -0.05, 0.12, 0.45][turn % 5];
        for (mode, decision) in
            [Decision::Exists, Decision::Best, Decision::Matches { max_matches: 1 + (turn % 3) as u16 }]
                .into_iter()
                .enumerate()
        {
            let most = [100, 2, 1][(turn + mode) % 3];
            let (judged, found) = judged(scene, probe, &asking(decision, 0.4, coarse, most));
            tally.add(judged);
            candidates.insert(found);
        }
    }
    (tally, candidates)
}

#[test]
#[expect(clippy::print_stdout, reason = "the report of what was judged")]
fn decisions_are_those_of_plain_arithmetic_in_two_stages() {
    let people = random_people(1, 26);
    let mut scene = scene(900, policy(), 4, &people);
    assert!(groups(&scene.cluster).len() >= 6);
    let probes: Vec<Embedding> = (0..12)
        .map(|i| at_cosine(&people[i * 5 % 26], [0.8, 0.45, 0.3, 1.0, -0.9, 0.41][i % 6], &mut scene.rng))
        .collect();
    let (tally, candidates) = ask_all(&mut scene, &probes);
    println!("{tally:?}, candidate groups {candidates:?}");
    assert_eq!((tally.outside_band, scene.cluster.take_failures()), (0, vec![]));
    assert!(tally.questions >= 25, "{tally:?}");
    assert!(candidates.contains(&0) && candidates.len() >= 4, "{candidates:?}");

    // Erased: skipped in both stages, before and after their group is rebuilt; then the keys rotate, twice.
    for gone in [2, 3, 11] {
        scene.cluster.erase(&subject(gone)).unwrap();
    }
    for _ in 0..2 {
        let (tally, _) = ask_all(&mut scene, &probes[..6]);
        assert_eq!((tally.outside_band, scene.cluster.take_failures()), (0, vec![]));
        scene.cluster.rotate().unwrap();
    }
    let (tally, _) = ask_all(&mut scene, &probes);
    assert_eq!((tally.outside_band, scene.cluster.take_failures()), (0, vec![]));
    assert!(tally.questions >= 25, "{tally:?}");
}

#[test]
fn extreme_galleries() {
    // All energy in front, none of it, and halves; the same template many times; groups of one.
    let people: Vec<Embedding> = (0..9).map(|i| lopsided([1.0, 0.0, 0.5][i % 3], i)).collect();
    for (seed, capacity) in [(910, 1), (911, 3), (912, 100)] {
        let mut scene = scene(seed, policy(), capacity, &people);
        let mut probes: Vec<Embedding> = people.clone();
        probes.extend((0..3).map(|i| at_cosine(&people[i], -1.0, &mut scene.rng)));
        let (tally, _) = ask_all(&mut scene, &probes);
        assert_eq!((tally.outside_band, scene.cluster.take_failures()), (0, vec![]));
        assert!(tally.questions >= 20, "{tally:?}");
    }
}

#[test]
fn a_candidate_is_decided_as_in_a_full_search() {
    // Thresholds close to the score: the shares of both stages add up before rounding, so the noise is that of one scan.
    let people = random_people(2, 12);
    let mut scene = scene(920, policy(), 4, &people);
    let sigma = noise(&scene.cluster);
    for turn in 0..30 {
        let target = turn % 12;
        let probe = at_cosine(&people[target], 0.6, &mut scene.rng);
        let score = people[target].cosine(&probe).unwrap();
        let near = score + [6.0, -6.0, 8.0, -8.0][turn % 4] * sigma;
        let query = asking(Decision::Exists, near, -0.2, 100);
        assert_eq!(scene.cluster.ask(&probe, query), Ok(Outcome::Exists(near < score)), "turn {turn}");
    }
}

/// Counts of the entries of a log that are about openings: coarse, their results, decisions, outcomes.
fn entries(scene: &Scene, party: Party) -> [usize; 4] {
    let mut counts = [0; 4];
    for entry in scene.cluster.log(party) {
        match entry.event {
            AuditEvent::Preselection { stage: 0, .. } => counts[0] += 1,
            AuditEvent::Preselected { .. } => counts[1] += 1,
            AuditEvent::Opening { stage: 0, .. } => counts[2] += 1,
            AuditEvent::Outcome(_) => counts[3] += 1,
            _ => {}
        }
    }
    counts
}

fn refused(result: Result<Outcome, ClusterError>) -> String {
    match result {
        Err(ClusterError::Client(error)) => error.reason().to_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn policy_index_and_budgets() {
    let people = random_people(3, 8);
    let budgets = Budgets { window_seconds: 3600, per_client: 5, per_subject: 0, total: 0 };
    let without = Policy { budgets, ..Policy::permissive(Dimension::new(D).unwrap()) };
    let mut scene = scene(930, without.clone(), 2, &people);
    let query = asking(Decision::Best, 0.4, 0.1, 4);
    let ask = |scene: &mut Scene, query: &Query| scene.cluster.ask(&people[0], query.clone());
    // Off by default, and bounded: refused before anything is opened or computed.
    let before = entries(&scene, Party::K1);
    assert_eq!(refused(ask(&mut scene, &query)), "preselection-not-allowed");
    let strict = PreselectionRules { least_dimensions: 192, ..rules() };
    scene.cluster.set_policy(&Policy { preselection: Some(strict), ..without.clone() }).unwrap();
    assert_eq!(refused(ask(&mut scene, &query)), "preselection");
    let strict = PreselectionRules { most_groups: 3, ..rules() };
    scene.cluster.set_policy(&Policy { preselection: Some(strict), ..without.clone() }).unwrap();
    assert_eq!(refused(ask(&mut scene, &query)), "preselection");
    let verify = asking(Decision::Verify { subject: subject(0) }, 0.4, 0.1, 2);
    assert_eq!(refused(ask(&mut scene, &verify)), "preselection");
    assert_eq!(entries(&scene, Party::K1), before);
    scene.cluster.set_policy(&Policy { preselection: Some(rules()), ..without }).unwrap();
    // On other dimensions than the index is cut at, it would read more than a full search.
    let other = Preselection { dimensions: 64, ..query.preselection.unwrap() };
    let other = Query { preselection: Some(other), ..query.clone() };
    assert_eq!(refused(ask(&mut scene, &other)), "not-segmented");
    scene.cluster.take_failures();

    // Two openings each; the fifth and last of the budget is one too few.
    for turn in 1..=2 {
        assert_eq!(ask(&mut scene, &query), Ok(Outcome::Best(Some(subject(0)))));
        for party in Party::ALL {
            assert_eq!(entries(&scene, party), [turn; 4]);
        }
    }
    assert_eq!(refused(ask(&mut scene, &query)), "budget-exhausted");
    let whole = Query { preselection: None, ..query.clone() };
    assert_eq!(ask(&mut scene, &whole), Ok(Outcome::Best(Some(subject(0)))));
    assert_eq!(refused(ask(&mut scene, &whole)), "budget-exhausted");
    // A stage that ends the query has counted once.
    scene.cluster.now.0 += 3600;
    scene.cluster.take_failures();
    let nobody = asking(Decision::Best, 0.4, 0.9, 4);
    let probe = at_cosine(&people[0], 0.7, &mut scene.rng);
    let too_many = asking(Decision::Exists, 0.4, -0.9, 3);
    for turn in 1..=2 {
        assert_eq!(scene.cluster.ask(&probe, nobody.clone()), Ok(Outcome::Best(None)));
        assert_eq!(refused(scene.cluster.ask(&probe, too_many.clone())), "too-many-candidates");
        assert_eq!(entries(&scene, Party::K2), [2 + 2 * turn, 2 + 2 * turn, 3, 3 + turn]);
    }
    assert_eq!(refused(ask(&mut scene, &query)), "budget-exhausted", "four are used, and it needs two");
    scene.cluster.take_failures();
    assert_eq!(ask(&mut scene, &whole), Ok(Outcome::Best(Some(subject(0)))));
    // Entries say what was asked, about how many groups, and what came of it.
    let preselections: Vec<String> = scene
        .cluster
        .log(Party::K0)
        .iter()
        .filter(|e| matches!(e.event, AuditEvent::Preselection { .. } | AuditEvent::Preselected { .. }))
        .map(|e| e.event.to_string())
        .collect();
    assert_eq!(
        preselections[0],
        "preselection for client gate in collection staff: 128 dimensions at 0.1, at most 4 of 4 groups, stage 0"
    );
    assert!(preselections[2].starts_with("preselected ") && preselections[2].ends_with(" of 4 groups"));
    assert!(preselections.iter().any(|entry| entry == "more candidate groups of 4 than asked for"));
}

#[test]
fn a_coarse_stage_needs_whole_blocks_of_every_group() {
    // The test plays the matcher, which does not look: groups of blocks of 64 and 32.
    let mut puppet = Puppet::with_groups(931);
    let rules = PreselectionRules { least_dimensions: 1, ..rules() };
    let dimension = Dimension::new(crate::cheats::D).unwrap();
    let policy = Policy { preselection: Some(rules), ..Policy::permissive(dimension) };
    puppet.scene.cluster.set_policy(&policy).unwrap();
    let before = puppet.scene.before();
    for dimensions in [32, 16, 33, 63] {
        let coarse = Threshold::new(0.1).unwrap();
        let preselection = Some(Preselection { dimensions, threshold: coarse, most_groups: 2 });
        let query = Query { preselection, ..Query::new(Decision::Best, Threshold::new(0.4).unwrap()) };
        let (collection, now) = (puppet.scene.cluster.collection().clone(), puppet.scene.cluster.now);
        let probe = puppet.scene.people[0].1.clone();
        let (request, _) = puppet.scene.cluster.client.ask(&collection, &probe, query, now).unwrap();
        let veilmatch_glwe::ClientRequest::Ask { sealed } = borsh::from_slice(&request).unwrap() else { panic!() };
        let heard = puppet.tell(&Party::ALL, &ToHolder::Ask { sealed });
        let codes: BTreeSet<String> = heard
            .into_iter()
            .map(|(_, message)| match message {
                FromHolder::Refused { refusal, .. } => refusal.code,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(codes.into_iter().collect::<Vec<_>>(), ["preselection-dimensions"]);
    }
    puppet.scene.assert_untouched(&before);
}

type Lie = Box<dyn FnMut(Stage, &mut Stage, &mut Vec<GroupSums>) + Send>;

/// Adds one to a residue.
fn bump(sums: &mut Vec<u8>) {
    let q = veilmatch_glwe::GLWE_2048_V1.modulus;
    let mut residues = from_bytes(q, sums, sums.len() / 4).unwrap();
    residues[5] = (residues[5] + 1) % q;
    *sums = to_bytes(&residues);
}

#[test]
fn a_matcher_that_lies_in_either_stage() {
    let people = random_people(4, 8);
    let mut scene = scene(940, policy(), 2, &people);
    // One of four groups holds a candidate.
    let query = asking(Decision::Best, 0.4, 0.3, 4);
    let probe = people[0].clone();
    assert_eq!(scene.cluster.ask(&probe, query.clone()), Ok(Outcome::Best(Some(subject(0)))));
    let coarse: Arc<Mutex<Vec<GroupSums>>> = Arc::default();
    let keep = |kept: &Arc<Mutex<Vec<GroupSums>>>, change: fn(&[GroupSums], &mut Vec<GroupSums>)| -> Lie {
        let kept = Arc::clone(kept);
        Box::new(move |stage, _, sums| match stage {
            Stage::Rest => change(&kept.lock().unwrap(), sums),
            _ => *kept.lock().unwrap() = sums.clone(),
        })
    };
    let at = |wanted: Stage, change: fn(&mut Stage, &mut Vec<GroupSums>)| -> Lie {
        Box::new(move |stage, told, sums| {
            if stage == wanted {
                change(told, sums);
            }
        })
    };
    let lies: Vec<(&str, Stage, Lie)> = vec![
        ("scan-check", Stage::Coarse, at(Stage::Coarse, |_, sums| bump(&mut sums[1].masks))),
        ("scan-check", Stage::Coarse, at(Stage::Coarse, |_, sums| bump(&mut sums[2].scores))),
        ("group-left-out", Stage::Coarse, at(Stage::Coarse, |_, sums| drop(sums.pop()))),
        ("bad-sums", Stage::Coarse, at(Stage::Coarse, |_, sums| sums[0].scores.truncate(8))),
        ("other-stage", Stage::Coarse, at(Stage::Coarse, |stage, _| *stage = Stage::Rest)),
        ("other-stage", Stage::Coarse, at(Stage::Coarse, |stage, _| *stage = Stage::Whole)),
        ("scan-check", Stage::Rest, at(Stage::Rest, |_, sums| bump(&mut sums[0].masks))),
        ("scan-check", Stage::Rest, at(Stage::Rest, |_, sums| bump(&mut sums[0].scores))),
        ("group-left-out", Stage::Rest, at(Stage::Rest, |_, sums| sums.clear())),
        ("other-stage", Stage::Rest, at(Stage::Rest, |stage, _| *stage = Stage::Coarse)),
        ("bad-sums", Stage::Rest, at(Stage::Rest, |_, sums| sums.push(sums[0].clone()))),
        // The sums of the first stage once more; those of a group without a candidate beside and in place of the true ones.
        (
            "scan-check",
            Stage::Rest,
            keep(&coarse, |kept, sums| {
                sums[0] = kept.iter().find(|k| k.group == sums[0].group).unwrap().clone();
            }),
        ),
        (
            "unregistered-group",
            Stage::Rest,
            keep(&coarse, |kept, sums| {
                sums.push(kept.iter().find(|k| k.group != sums[0].group).unwrap().clone());
            }),
        ),
        (
            "unregistered-group",
            Stage::Rest,
            keep(&coarse, |kept, sums| {
                sums[0] = kept.iter().find(|k| k.group != sums[0].group).unwrap().clone();
            }),
        ),
    ];
    for (turn, (code, stage, mut lie)) in lies.into_iter().enumerate() {
        let before = entries(&scene, Party::K0);
        let views = scene.before();
        scene.wire.cheat_holders(move |_, message| {
            if let ToHolder::Sums { stage, groups, .. } = message {
                lie(*stage, stage, groups);
            }
            true
        });
        let result = scene.cluster.ask(&probe, query.clone());
        assert!(result.is_err(), "lie {turn}: {result:?}");
        let failures = scene.cluster.take_failures();
        assert!(failures.iter().any(|(_, e)| e.code() == code), "lie {turn}, {code}: {failures:?}");
        for (_, error) in &failures {
            assert!(points_at(&error.suspects(), Suspect::Matcher), "lie {turn}: {error:?}");
        }
        // What was opened before the lie is all that is opened, at every holder, and it is counted once.
        let opened = usize::from(stage == Stage::Rest);
        for party in Party::ALL {
            let [coarse, results, decisions, outcomes] = before;
            assert_eq!(entries(&scene, party), [coarse + opened, results + opened, decisions, outcomes], "lie {turn}");
        }
        assert_eq!(scene.before().registry(), views.registry());
        scene.wire.honest();
        assert_eq!(scene.cluster.ask(&probe, query.clone()), Ok(Outcome::Best(Some(subject(0)))), "after lie {turn}");
    }
}

#[test]
fn holders_that_name_other_candidates_are_found_out() {
    let people = random_people(5, 6);
    let mut scene = scene(950, policy(), 2, &people);
    let query = asking(Decision::Best, 0.4, 0.3, 4);
    for liar in Party::ALL {
        scene.wire.cheat_matcher(liar, |message| {
            if let FromHolder::Candidates { groups, .. } = message {
                groups.push(GroupId(77));
            }
        });
        let result = scene.cluster.ask(&people[0], query.clone());
        let Err(ClusterError::Client(error)) = &result else { panic!("{result:?}") };
        assert_eq!((error.reason(), error.suspects()), ("candidates-differ", vec![Suspect::Holder(liar)]));
        scene.wire.honest();
        scene.cluster.take_failures();
    }
    assert_eq!(scene.cluster.ask(&people[0], query), Ok(Outcome::Best(Some(subject(0)))));
}

#[test]
fn a_party_that_is_gone_between_the_stages_is_named() {
    let people = random_people(6, 6);
    let mut scene = scene(960, policy(), 2, &people);
    let query = asking(Decision::Exists, 0.4, 0.3, 4);
    for gone in [Address::Matcher, Address::Holder(Party::K0), Address::Holder(Party::K1), Address::Holder(Party::K2)] {
        let before = entries(&scene, Party::K0);
        // From the moment when candidates are named, nothing comes from it any more.
        let mut named = 0;
        scene.wire.cheat(move |delivery| {
            if let Ok(FromHolder::Candidates { .. }) = borsh::from_slice(&delivery.bytes)
                && delivery.to == Address::Matcher
            {
                named += 1;
            }
            named < 3 || delivery.from != gone || delivery.to == Address::Client
        });
        let result = scene.cluster.ask(&people[0], query.clone());
        let Err(ClusterError::Client(error)) = &result else { panic!("{gone:?}: {result:?}") };
        let culprit = match gone {
            Address::Holder(party) => Suspect::Holder(party),
            _ => Suspect::Matcher,
        };
        let failures = scene.cluster.take_failures();
        let own = failures.iter().filter(|(party, e)| {
            !culprit.includes(*party) && matches!(e, HolderError::TimedOut { .. } | HolderError::PeerStopped { .. })
        });
        assert!(own.clone().count() > 0, "{gone:?}: {failures:?}");
        assert!(
            points_at(&error.suspects(), culprit) || own.clone().any(|(_, e)| points_at(&e.suspects(), culprit)),
            "{gone:?}: {error:?} {failures:?}"
        );
        let [coarse, results, decisions, outcomes] = before;
        let after = entries(&scene, Party::K0);
        assert_eq!(after, [coarse + 1, results + 1, decisions, outcomes], "{gone:?}");
        scene.wire.honest();
        scene.cluster.network.heal();
        assert_eq!(scene.cluster.ask(&people[0], query.clone()), Ok(Outcome::Exists(true)), "{gone:?}");
        scene.cluster.take_failures();
    }
}

#[test]
fn a_network_that_loses_repeats_cuts_and_alters() {
    let people = random_people(7, 4);
    let mut scene = scene(970, policy(), 2, &people);
    let query = asking(Decision::Best, 0.4, 0.3, 4);
    let expected = Ok(Outcome::Best(Some(subject(0))));
    scene.cluster.network.record();
    assert_eq!(scene.cluster.ask(&people[0], query.clone()), expected);
    let record = scene.cluster.network.take_record();
    let links: BTreeSet<(Address, Address)> = record.iter().map(|d| (d.from, d.to)).collect();
    let kinds =
        [FaultKind::Lose, FaultKind::Repeat, FaultKind::Truncate { bytes: 1 }, FaultKind::Alter { byte: 60, bit: 3 }];
    for (from, to) in links {
        let messages = record.iter().filter(|d| d.from == from && d.to == to).count();
        // The later half: the coarse opening, the second sums, the decision.
        for nth in (messages / 3..messages).step_by(1 + messages / 8) {
            for kind in &kinds {
                let before = scene.before();
                let counts = entries(&scene, Party::K0);
                scene.cluster.network.inject(Fault { from, to, nth, kind: kind.clone() });
                match scene.cluster.ask(&people[0], query.clone()) {
                    Err(ClusterError::Client(error)) => assert!(!error.suspects().is_empty(), "{error:?}"),
                    Err(ClusterError::NoAnswer) => assert!(from == Address::Client || to == Address::Client),
                    outcome => assert_eq!(outcome, expected, "{from:?} {to:?} {nth} {kind:?}"),
                }
                for (before, after) in counts.iter().zip(entries(&scene, Party::K0)) {
                    assert!(after == *before || after == before + 1, "an opening is logged once");
                }
                assert_eq!(scene.before().registry(), before.registry());
                scene.cluster.network.heal();
                scene.cluster.take_failures();
                assert_eq!(scene.cluster.ask(&people[0], query.clone()), expected, "{from:?} {to:?} {nth} {kind:?}");
            }
        }
    }
}

#[test]
fn groups_that_are_cut_in_different_ways_are_searched_together() {
    let people = random_people(8, 9);
    let mut scene = scene(980, policy(), 2, &[]);
    for (hot, part) in [None, Some(M), Some(64)].into_iter().zip(people.chunks(3)) {
        scene.cluster.set_hot_dimensions(hot);
        let from = scene.people.len();
        let part: Vec<_> = (from..).map(subject).zip(part.iter().cloned()).collect();
        assert_eq!(scene.enrol(&part).unwrap(), vec![Verdict::Accepted; 3]);
        scene.people.extend(part);
    }
    let cuts = |scene: &Scene| -> BTreeSet<Option<usize>> {
        let index = scene.cluster.matcher().index(scene.cluster.collection()).unwrap();
        index.groups().map(|g| g.packed.cold.as_ref().map(|cold| cold.from * g.packed.layout.beta())).collect()
    };
    assert_eq!(cuts(&scene), BTreeSet::from([None, Some(64), Some(128)]));
    let whole = Query::new(Decision::Best, Threshold::new(0.4).unwrap());
    let all = |scene: &mut Scene| {
        for (person, embedding) in people.iter().enumerate() {
            let found = Ok(Outcome::Best(Some(subject(person))));
            assert_eq!(scene.cluster.ask(embedding, whole.clone()), found);
        }
    };
    all(&mut scene);
    let query = asking(Decision::Best, 0.4, 0.3, 9);
    assert_eq!(refused(scene.cluster.ask(&people[0], query.clone())), "not-segmented");
    // Built anew, all of them are cut alike.
    scene.cluster.set_hot_dimensions(Some(M));
    scene.cluster.rotate().unwrap();
    assert_eq!(cuts(&scene), BTreeSet::from([Some(128)]));
    all(&mut scene);
    for (person, embedding) in people.iter().enumerate() {
        assert_eq!(scene.cluster.ask(embedding, query.clone()), Ok(Outcome::Best(Some(subject(person)))));
    }
    assert_eq!(scene.cluster.take_failures(), []);
}

#[test]
fn holders_that_take_their_time_or_crash() {
    let people = random_people(9, 4);
    let mut scene = scene(990, policy(), 2, &people);
    let query = asking(Decision::Best, 0.4, 0.3, 4);
    let expected = Ok(Outcome::Best(Some(subject(0))));
    // Frames and sums wait for a holder's own computation, in whatever order it ends.
    for order in 0..4 {
        scene.cluster.deferred = Some(Vec::new());
        let (collection, now) = (scene.cluster.collection().clone(), scene.cluster.now);
        let (request, pending) = scene.cluster.client.ask(&collection, &people[0], query.clone(), now).unwrap();
        let id = scene.cluster.submit(request);
        scene.cluster.run();
        let computed = (0..).take_while(|step| scene.cluster.compute(order * step)).count();
        assert!(computed >= 6, "two stages at three holders");
        let answer = scene.cluster.answer_of(id).unwrap();
        assert_eq!(pending.read(&answer), Ok(Outcome::Best(Some(subject(0)))));
        scene.cluster.deferred = None;
    }
    // A crash at any reaction: an answer or an error, and every opening that left is in the log.
    for party in Party::ALL {
        let count = Arc::new(Mutex::new(0));
        let seen = Arc::clone(&count);
        scene.cluster.crashes = Some(Box::new(move |at, _| {
            *seen.lock().unwrap() += usize::from(at == party);
            None
        }));
        assert_eq!(scene.cluster.ask(&people[0], query.clone()), expected);
        let steps = *count.lock().unwrap();
        assert!(steps > 20, "{steps}");
        for crash in [Crash::BeforeSaving, Crash::BeforeRecords, Crash::BeforeSending, Crash::AfterSending] {
            for nth in (0..steps).step_by(3) {
                let [coarse, _, decisions, _] = entries(&scene, party);
                let mut number = 0;
                scene.cluster.crashes = Some(Box::new(move |at, _| {
                    number += usize::from(at == party);
                    (at == party && number == nth + 1).then_some(crash)
                }));
                match scene.cluster.ask(&people[0], query.clone()) {
                    Err(ClusterError::Client(error)) => assert!(!error.suspects().is_empty(), "{error:?}"),
                    outcome => assert_eq!(outcome, expected, "{crash:?} {nth}"),
                }
                scene.cluster.crashes = None;
                assert!(scene.cluster.take_broken().is_none());
                scene.cluster.pass_deadlines();
                scene.cluster.take_failures();
                let [coarse_now, _, decisions_now, _] = entries(&scene, party);
                assert!(coarse_now <= coarse + 1 && decisions_now <= decisions + 1, "{crash:?} {nth}");
                assert_eq!(scene.cluster.ask(&people[0], query.clone()), expected, "{crash:?} {nth}");
            }
        }
    }
}
