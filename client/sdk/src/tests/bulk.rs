//! Bulk enrolment: windows, breaks, refusals, progress.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use veilmatch_domain::{Purpose, SubjectId};
use veilmatch_glwe::Verdict;
use veilmatch_sealed::SealedTemplate;

use super::matcher::{Act, Matcher, refusal};
use super::{Desk, people};
use crate::Progress;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_is_enrolled_in_order_and_within_the_window() {
    let matcher = Matcher::start();
    matcher.state().hold = usize::MAX;
    let desk = Desk::with(&matcher, |options| options.window = 40);
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&taken);
    let mut seen = Vec::new();
    let ahead = Arc::new(AtomicUsize::new(0));
    let most = Arc::clone(&ahead);
    let people: Vec<_> = people(100);
    let names: Vec<_> = people.iter().map(|(subject, _)| subject.clone()).collect();
    let people = people.into_iter().inspect(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let enrolment = desk
        .staff
        .enroll_many(people, |progress| {
            most.fetch_max(taken.load(Ordering::Relaxed) - progress.done, Ordering::Relaxed);
            seen.push(progress);
        })
        .await
        .unwrap();
    assert_eq!(enrolment.accepted(), 100);
    assert_eq!(enrolment.results.iter().map(|result| result.subject.clone()).collect::<Vec<_>>(), names);
    let expected: Vec<_> = (1..=100).map(|done| Progress { done, refused: 0, total: Some(100) }).collect();
    assert_eq!(seen, expected);
    let state = matcher.state();
    assert_eq!((state.stored.len(), state.streams, state.most_unanswered), (100, 1, 40));
    // Nobody is taken from the iterator and sealed far ahead of the window.
    assert!(ahead.load(Ordering::Relaxed) <= 41, "{ahead:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_per_person_and_a_busy_matcher_gets_the_same_bytes_again() {
    let matcher = Matcher::start();
    let desk = Desk::of(&matcher);
    desk.staff.enroll("person-3", &super::face(9)).await.unwrap();
    let acts = [Act::Refuse("busy", 8), Act::Refuse("bad-signature", 7), Act::Refuse("unreachable", 14)];
    matcher.plays(acts);
    let mut last = None;
    let enrolment = desk.staff.enroll_many(people(6), |progress| last = Some(progress)).await.unwrap();
    let refused: Vec<_> = enrolment.refused().map(|(subject, why)| (subject.as_str(), why.code.as_str())).collect();
    assert_eq!(refused, [("person-1", "bad-signature"), ("person-3", "already-enrolled")]);
    assert_eq!(enrolment.results[1].verdict, Some(Verdict::Refused(refusal("bad-signature", 7))));
    assert_eq!(last, Some(Progress { done: 6, refused: 2, total: Some(6) }));
    let mut times = HashMap::new();
    for bytes in &matcher.state().arrived {
        *times.entry(bytes.clone()).or_insert(0) += 1;
    }
    let mut times: Vec<usize> = times.into_values().collect();
    times.sort_unstable();
    assert_eq!(times, [1, 1, 1, 1, 1, 2, 2], "the busy and the unreachable one, same bytes");
    // A matcher that stays busy for one person does not hold up the others for ever.
    let acts = [Act::Refuse("busy", 8), Act::Refuse("busy", 8), Act::Refuse("busy", 8), Act::Refuse("busy", 8)];
    matcher.plays(acts);
    let one = [(SubjectId::new("late").unwrap(), super::face(3))];
    let enrolment = desk.staff.enroll_many(one, |_| {}).await.unwrap();
    assert_eq!(enrolment.refused().map(|(_, why)| why.code.as_str()).collect::<Vec<_>>(), ["busy"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_matcher_that_goes_away_mid_stream_gets_the_rest_once() {
    let matcher = Matcher::start();
    matcher.state().hold = 7;
    // Items are stored when the stream breaks, and nobody is told.
    matcher.state().breaks = vec![5, 30, 31, 60];
    let desk = Desk::with(&matcher, |options| options.window = 16);
    let mut done = Vec::new();
    let enrolment = desk.staff.enroll_many(people(50), |progress| done.push(progress.done)).await.unwrap();
    assert_eq!((enrolment.accepted(), enrolment.results.len()), (50, 50));
    assert_eq!(done, (1..=50).collect::<Vec<_>>(), "nobody is counted twice");
    let state = matcher.state();
    assert_eq!((state.stored.len(), state.streams), (50, 5));
    // One template per person: what was sent twice was the same.
    let distinct: HashSet<_> = state.arrived.iter().collect();
    assert_eq!(distinct.len(), 50);
    assert!(state.arrived.len() > 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_got_old_during_a_break_is_looked_up_first() {
    let matcher = Matcher::start();
    matcher.state().hold = usize::MAX;
    matcher.state().breaks = vec![3];
    let desk = Desk::of(&matcher);
    matcher.state().later = Some((3, Arc::clone(&desk.clock), 1000));
    let enrolment = desk.staff.enroll_many(people(5), |_| {}).await.unwrap();
    assert_eq!(enrolment.accepted(), 5);
    let state = matcher.state();
    // Three were stored before the break and are not sent again; two were not and are sealed again.
    assert_eq!((state.lookups, state.items, state.stored.len()), (5, 5, 5));
    for bytes in state.arrived.iter().skip(3) {
        let sealed = SealedTemplate::from_bytes(bytes).unwrap();
        let Purpose::Enrol { subject } = &sealed.associated().purpose else { panic!("not a template") };
        assert!(["person-3", "person-4"].contains(&subject.as_str()));
        assert!(sealed.associated().expires.0 > 1_900_001_000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_matcher_that_stays_away_or_silent_or_confused_ends_it_with_what_is_known() {
    let matcher = Matcher::start();
    matcher.state().hold = 2;
    matcher.state().breaks = (5..100).collect();
    let desk = Desk::with(&matcher, |options| {
        options.window = 4;
        options.retries = 2;
        options.enroll_deadline = Duration::from_millis(500);
    });
    let stopped = desk.staff.enroll_many(people(20), |_| {}).await.unwrap_err();
    assert_eq!(stopped.error.reason(), "matcher-unreachable");
    assert_eq!(stopped.so_far.accepted(), 4);
    assert_eq!(matcher.state().streams, 3);
    let unknown = stopped.so_far.results.iter().filter(|result| result.verdict.is_none()).count();
    assert!(unknown > 0 && unknown <= 4, "{unknown}");

    matcher.state().breaks.clear();
    matcher.plays([Act::Hang]);
    let stopped = desk.staff.enroll_many(people(20), |_| {}).await.unwrap_err();
    assert_eq!((stopped.error.reason(), stopped.so_far.accepted()), ("deadline", 0));
    matcher.state().script.clear();
    matcher.plays([Act::Confuse]);
    let stopped = desk.staff.enroll_many(people(20), |_| {}).await.unwrap_err();
    assert_eq!(stopped.error.reason(), "answer-mismatch");
    assert!(stopped.to_string().starts_with("the enrolment stopped after 0 results: "));
}

#[tokio::test]
async fn nobody_is_enrolled_without_a_stream() {
    let matcher = Matcher::start();
    let desk = Desk::of(&matcher);
    let enrolment = desk.staff.enroll_many(Vec::new(), |_| panic!("nobody")).await.unwrap();
    assert_eq!((enrolment.results.len(), matcher.state().streams), (0, 0));
}
