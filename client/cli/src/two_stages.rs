//! Identification in two stages through all parties on real faces (DESIGN 6): with a public rotation and a calibrated coarse
//! threshold, the decisions are those of a full search.

use std::collections::{BTreeMap, BTreeSet};

use veilmatch_cluster::Cluster;
use veilmatch_domain::{
    ClientId, CollectionId, Decision, Dimension, Embedding, Outcome, Party, Policy, Preselection, PreselectionRules,
    Query, SubjectId, Threshold,
};
use veilmatch_glwe::{GLWE_2048_V1, Layout, Verdict, decision_noise};
use veilmatch_holder::AuditEvent;
use veilmatch_preselect::{Person, Rotation, Settings, calibrate, halves};
use veilmatch_secret::os_entropy;

use crate::input;
use crate::judge::BAND;
use crate::rotation::rotated;
use crate::testing::{real_data, subject};

/// Members of a group: a body at the block width of a gallery of this size.
const GROUP: u32 = 128;
const TAU: f64 = 0.427;
/// How many mated probes are asked, twice each.
const PROBES: usize = 60;

/// How many groups held candidates in the last coarse stage, and out of how many.
fn candidates(cluster: &Cluster) -> (u32, u32) {
    let last = cluster.log(Party::K0).iter().rev().find_map(|entry| match entry.event {
        AuditEvent::Preselected { candidates, groups } => Some((candidates.unwrap(), groups)),
        _ => None,
    });
    last.unwrap()
}

#[test]
#[expect(clippy::print_stdout, reason = "what was saved is what the test is for")]
fn lfw_is_identified_as_by_a_full_search() {
    let Some(data) = real_data("two_stages::lfw_is_identified_as_by_a_full_search") else { return };
    let lfw = data.join("lfw");
    let embeddings = input::embeddings(&lfw.join("templates_retail0095_f16.npy"), false).unwrap();
    let mut people: BTreeMap<String, Person> = BTreeMap::new();
    for (row, label) in input::labels(&lfw.join("labels.csv"), embeddings.len()).unwrap() {
        people.entry(label).or_default().push(row);
    }
    // As `veilmatch calibrate` does it: a quarter fits the rotation, a quarter chooses the threshold, the others are asked.
    let (calibration, reported) = halves(people.into_values().collect(), 1);
    let (fitting, calibration) = halves(calibration, 2);
    let fitted: Vec<Embedding> = fitting.iter().flatten().map(|&row| embeddings[row].clone()).collect();
    let rotation = Rotation::fit(&fitted).unwrap();
    let turned: Vec<Embedding> = embeddings.iter().map(|e| rotated(&rotation, e).unwrap()).collect();
    let dimension = turned[0].dimension();
    let threshold = Threshold::new(TAU).unwrap();
    let mated = |person: &Person| {
        let (template, probes) = person.split_first().unwrap();
        let hit = probes.iter().find(|&&probe| turned[*template].cosine(&turned[probe]).unwrap() > TAU + 0.01);
        hit.copied()
    };

    for m in [128u16, 192] {
        let width = Dimension::new(m.into()).unwrap();
        let settings = Settings {
            threshold: TAU,
            hit_rate: 1.0,
            widths: vec![m.into()],
            margins: vec![BAND * decision_noise(&GLWE_2048_V1, Layout::new(4, 16).unwrap(), width).0],
            templates_per_group: GROUP as usize,
            resamples: 100,
            seed: 1,
        };
        let coarse = calibrate(&turned, &calibration, &reported, &settings).unwrap().widths.remove(0).threshold;
        let coarse = Threshold::new(coarse).unwrap();

        let rules = PreselectionRules { least_dimensions: 64, most_groups: 1000, lowest_threshold: coarse };
        let policy = Policy { preselection: Some(rules), ..Policy::permissive(dimension) };
        let (collection, client) = (CollectionId::new("lfw").unwrap(), ClientId::new("gate").unwrap());
        let mut cluster = Cluster::new(GLWE_2048_V1, collection, policy, client, os_entropy).unwrap();
        cluster.limit_groups(GROUP);
        cluster.set_hot_dimensions(Some(m));
        let name = |person: &Person| subject(&format!("row{}", person[0]));
        let enrolled: Vec<(SubjectId, Embedding)> =
            reported.iter().map(|person| (name(person), turned[person[0]].clone())).collect();
        let verdicts = cluster.enroll(&enrolled, &mut |_| {}).unwrap();
        assert!(verdicts.iter().all(|v| *v == Verdict::Accepted));

        let asked: Vec<(SubjectId, usize)> =
            reported.iter().filter_map(|person| Some((name(person), mated(person)?))).collect();
        let step = (asked.len() / PROBES).max(1);
        let (mut touched, mut total, mut probes, mut found) = (0, 0, 0u32, 0u32);
        let mut counts = BTreeSet::new();
        for (person, row) in asked.iter().step_by(step) {
            let whole = Query::new(Decision::Best, threshold);
            let preselection = Some(Preselection { dimensions: m, threshold: coarse, most_groups: 1000 });
            let two_stages = Query { preselection, ..whole.clone() };
            let full = cluster.ask(&turned[*row], whole).unwrap();
            assert_eq!(cluster.ask(&turned[*row], two_stages).unwrap(), full, "{person}, m {m}");
            let (candidates, groups) = candidates(&cluster);
            counts.insert(candidates);
            (touched, total, probes) = (touched + candidates, total + groups, probes + 1);
            found += u32::from(full == Outcome::Best(Some(person.clone())));
        }
        let share = f64::from(touched) / f64::from(total);
        let hot = f64::from(m) / dimension.get() as f64;
        println!(
            "LFW, {} people, {} groups, m {m} of {}, coarse threshold {:.3}: {probes} mated probes, {found} found, all as by \
             a full search; candidate groups {:.1} % ({} to {}), bytes read {:.1} % of a full scan",
            enrolled.len(),
            total / probes,
            dimension.get(),
            coarse.cosine(),
            share * 100.0,
            counts.first().unwrap(),
            counts.last().unwrap(),
            (hot + (1.0 - hot) * share) * 100.0,
        );
        assert!(probes >= PROBES as u32 && found * 10 >= probes * 9, "{found} of {probes}");
        assert_eq!(cluster.take_failures(), []);
    }
}
