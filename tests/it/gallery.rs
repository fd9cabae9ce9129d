//! Every decision through all parties, on galleries from 1 to 20,000, dimensions 64 to 1,024 and mixed layouts, judged
//! against the plaintext oracle; and again after the keys were rotated.

use std::collections::BTreeSet;

use veilmatch_cluster::Cluster;
use veilmatch_conformance::{Tally, judge};
use veilmatch_domain::{Decision, Dimension, Embedding, Outcome, Query, SubjectId, Threshold};
use veilmatch_glwe::{Verdict, decision_noise};
use veilmatch_mpc::{Answer, Question};
use veilmatch_tests::{at_cosine, cluster, random_unit, rng, subject};

/// The predicted noise of the noisiest live group.
fn noise(cluster: &Cluster, dimension: usize) -> f64 {
    let dimension = Dimension::new(dimension).unwrap();
    let index = cluster.matcher().index(cluster.collection()).unwrap();
    let of = |layout| decision_noise(&cluster.parameters(), layout, dimension).0;
    index.groups().map(|g| of(g.packed.layout)).fold(0.0, f64::max)
}

fn layouts(cluster: &Cluster) -> BTreeSet<(usize, usize)> {
    let index = cluster.matcher().index(cluster.collection()).unwrap();
    index.groups().map(|g| (g.packed.layout.beta(), g.packed.layout.rank())).collect()
}

/// Asks a question through all parties and judges the answer on the people in this order.
fn judged(
    cluster: &mut Cluster,
    people: &[(SubjectId, Embedding)],
    probe: &Embedding,
    decision: Decision,
    threshold: f64,
) -> Tally {
    let threshold = Threshold::new(threshold).unwrap();
    let sigma = noise(cluster, probe.values().len());
    let scores: Vec<f64> = people.iter().map(|(_, t)| t.cosine(probe).unwrap()).collect();
    let lane = |s: &SubjectId| people.iter().position(|(p, _)| p == s).unwrap();
    let (question, scores) = match &decision {
        Decision::Verify { subject } => (Question::Any, vec![scores[lane(subject)]]),
        Decision::Exists => (Question::Any, scores),
        Decision::Matches { max_matches } => (Question::List { max: *max_matches }, scores),
        Decision::Best => (Question::Best, scores),
    };
    let outcome = cluster.ask(probe, Query::new(decision, threshold));
    let answer = match outcome.unwrap_or_else(|e| panic!("{e}: {:?}", cluster.take_failures())) {
        Outcome::Verify(hit) | Outcome::Exists(hit) => Answer::Any(hit),
        Outcome::TooMany => Answer::TooMany,
        Outcome::Best(subject) => Answer::Best(subject.as_ref().map(lane)),
        Outcome::Matches(subjects) => {
            let mut lanes: Vec<usize> = subjects.iter().map(lane).collect();
            lanes.sort_unstable();
            Answer::List(lanes)
        }
    };
    judge(question, threshold, &scores, sigma, &answer)
}

fn enrol(cluster: &mut Cluster, people: &[(SubjectId, Embedding)]) {
    let verdicts = cluster.enroll(people, &mut |_| {}).unwrap();
    assert!(verdicts.iter().all(|v| *v == Verdict::Accepted), "{:?}", cluster.take_failures());
}

/// Enrols in batches (so that layouts mix), asks in every mode, and checks the tallies.
#[expect(clippy::print_stdout, reason = "the report of what was judged")]
fn run(dimension: usize, batches: &[usize], probes: usize, rotate: bool) {
    let mut random = rng(dimension as u64 + batches.len() as u64);
    let mut cluster = cluster(dimension, dimension as u64);
    let mut people = Vec::new();
    for &batch in batches {
        let from = people.len();
        people.extend((from..from + batch).map(|i| (subject(i), random_unit(dimension, &mut random))));
        enrol(&mut cluster, &people[from..]);
    }
    let ask_all = |cluster: &mut Cluster, tally: &mut Tally| {
        let mut random = rng(9);
        for i in 0..probes {
            let target = (i * 7919 + 3) % people.len();
            let cosine = [0.7, 0.42, 0.38, 1.0, 0.2, 0.401][i % 6];
            let probe = at_cosine(&people[target].1, cosine, &mut random);
            let threshold = 0.4;
            tally.add(judged(cluster, &people, &probe, Decision::Verify { subject: subject(target) }, threshold));
            tally.add(judged(cluster, &people, &probe, Decision::Exists, threshold));
            tally.add(judged(
                cluster,
                &people,
                &probe,
                Decision::Matches { max_matches: 1 + (i % 3) as u16 },
                threshold,
            ));
            tally.add(judged(cluster, &people, &probe, Decision::Best, threshold));
        }
    };
    let mut tally = Tally::default();
    ask_all(&mut cluster, &mut tally);
    println!("d {dimension}, {} people, layouts (β, r) {:?}: {tally:?}", people.len(), layouts(&cluster));
    assert_eq!(tally.outside_band, 0, "{tally:?}");
    assert!(tally.questions + tally.unjudged == 4 * probes && tally.questions >= 3 * probes, "{tally:?}");
    if rotate {
        let before: Vec<_> = cluster.holder(veilmatch_domain::Party::K0).epochs().collect();
        cluster.rotate().unwrap();
        for party in veilmatch_domain::Party::ALL {
            let after: Vec<_> = cluster.holder(party).epochs().collect();
            assert_eq!(after.len(), 1, "the old epoch's seeds are forgotten");
            assert!(!before.contains(&after[0]));
        }
        let mut rotated = Tally::default();
        ask_all(&mut cluster, &mut rotated);
        assert_eq!(rotated.outside_band, 0, "{rotated:?}");
        // Unchanged up to the band: what is judged agrees with the oracle before and after.
        assert_eq!(rotated.questions, tally.questions);
    }
    assert_eq!(cluster.take_failures(), []);
}

#[test]
fn one_template() {
    run(64, &[1], 12, true);
}

#[test]
fn a_few_fresh_templates_beside_fuller_groups() {
    run(128, &[600, 70, 3], 12, true);
}

#[test]
fn the_usual_dimension() {
    run(512, &[300, 20, 1], 6, true);
}

#[test]
fn the_largest_dimension() {
    run(1024, &[40, 5], 6, false);
}

#[test]
fn a_dimension_that_no_block_width_divides() {
    run(99, &[30, 2], 6, false);
}

#[test]
fn twenty_thousand_templates() {
    run(64, &[19_500, 499, 1], 3, true);
}
