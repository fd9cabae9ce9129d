//! Scheme `paillier` through all parties: the main job, cheating parties, faults (DESIGN 4).

use veilmatch_domain::{Decision, Outcome};
use veilmatch_glwe::Verdict;
use veilmatch_tests::{at_cosine, paillier_cluster, query, random_unit, rng, subject};

#[test]
fn enrol_verify_identify_erase() {
    let mut rng = rng(1);
    let mut cluster = paillier_cluster(64, 1);
    let people: Vec<_> = (0..30).map(|i| (subject(i), random_unit(64, &mut rng))).collect();
    let verdicts = cluster.enroll(&people, &mut |_| {}).unwrap();
    assert!(verdicts.iter().all(|v| *v == Verdict::Accepted), "{verdicts:?} {:?}", cluster.take_failures());
    let probe = at_cosine(&people[7].1, 0.7, &mut rng);
    let verify = |i| query(Decision::Verify { subject: subject(i) }, 0.4);
    assert_eq!(cluster.ask(&probe, verify(7)), Ok(Outcome::Verify(true)), "{:?}", cluster.take_failures());
    assert_eq!(cluster.ask(&probe, verify(8)), Ok(Outcome::Verify(false)));
    assert_eq!(cluster.ask(&probe, query(Decision::Exists, 0.4)), Ok(Outcome::Exists(true)));
    assert_eq!(cluster.ask(&probe, query(Decision::Exists, 0.8)), Ok(Outcome::Exists(false)));
    let matches = query(Decision::Matches { max_matches: 3 }, 0.5);
    assert_eq!(cluster.ask(&probe, matches), Ok(Outcome::Matches(vec![subject(7)])));
    assert_eq!(cluster.ask(&probe, query(Decision::Best, 0.4)), Ok(Outcome::Best(Some(subject(7)))));
    assert_eq!(cluster.ask(&probe, query(Decision::Best, 0.8)), Ok(Outcome::Best(None)));
    cluster.erase(&subject(7)).unwrap();
    assert_eq!(cluster.ask(&probe, query(Decision::Best, 0.4)), Ok(Outcome::Best(None)));
    cluster.rotate().unwrap();
    let probe = at_cosine(&people[9].1, 0.7, &mut rng);
    assert_eq!(cluster.ask(&probe, query(Decision::Best, 0.4)), Ok(Outcome::Best(Some(subject(9)))));
    assert_eq!(cluster.take_failures(), []);
}

#[test]
fn a_twin_that_is_gone_is_named_at_once_and_comes_back_with_nothing() {
    let mut rng = rng(2);
    let mut cluster = paillier_cluster(64, 2);
    let people: Vec<_> = (0..3).map(|i| (subject(i), random_unit(64, &mut rng))).collect();
    cluster.enroll(&people, &mut |_| {}).unwrap();
    let ask = query(Decision::Best, 0.4);
    let probe = at_cosine(&people[1].1, 0.7, &mut rng);
    assert_eq!(cluster.ask(&probe, ask.clone()), Ok(Outcome::Best(Some(subject(1)))));
    cluster.lose_twin();
    let refused = cluster.ask(&probe, ask.clone()).unwrap_err();
    let text = format!("{refused:?}");
    assert!(text.contains("unreachable") && text.contains("Twin"), "{text}");
    // Enrolment does not need it.
    let newcomer = (subject(3), random_unit(64, &mut rng));
    assert_eq!(cluster.enroll(std::slice::from_ref(&newcomer), &mut |_| {}).unwrap(), [Verdict::Accepted]);
    cluster.restart_twin();
    let probe = at_cosine(&newcomer.1, 0.7, &mut rng);
    assert_eq!(cluster.ask(&probe, ask), Ok(Outcome::Best(Some(subject(3)))));
}
