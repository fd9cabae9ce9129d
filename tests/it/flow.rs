//! The main job: enrol, verify, identify, erase, rotate.

use veilmatch_domain::{Decision, Outcome};
use veilmatch_glwe::Verdict;
use veilmatch_tests::{at_cosine, cluster, query, random_unit, rng, subject};

#[test]
fn enrol_verify_identify_erase() {
    let mut rng = rng(1);
    let mut cluster = cluster(128, 1);
    let people: Vec<_> = (0..40).map(|i| (subject(i), random_unit(128, &mut rng))).collect();
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

/// An erasure that is acknowledged while a query runs holds for that query: it is refused, and the next one does not
/// know the subject.
#[test]
fn an_erasure_in_the_middle_of_a_query_holds_for_its_answer() {
    let mut rng = rng(2);
    let mut cluster = cluster(64, 2);
    let people: Vec<_> = (0..4).map(|i| (subject(i), random_unit(64, &mut rng))).collect();
    cluster.enroll(&people, &mut |_| {}).unwrap();
    let best = query(Decision::Best, 0.4);
    let (collection, now) = (cluster.collection().clone(), cluster.now);
    let (ask, pending) = cluster.client.ask(&collection, &people[2].1, best.clone(), now).unwrap();
    let erase = cluster.client.erase(&collection, subject(2), now);
    let (asked, erased) = (cluster.submit(ask), cluster.submit(erase));
    let answer = cluster.answer_of(asked).unwrap();
    // The erasure waits until the search that was there first has ended: no search fails because of a change.
    assert_eq!(pending.read(&answer), Ok(Outcome::Best(Some(subject(2)))));
    let answer = cluster.answer_of(erased).unwrap();
    assert_eq!(veilmatch_sdk::Client::read_erased(&answer), Ok(true));
    assert_eq!(cluster.ask(&people[2].1, best), Ok(Outcome::Best(None)));
}
