//! Single calls: what is repeated, with which bytes, until when.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use veilmatch_domain::{Epoch, Explain, Outcome, Party, Purpose, SubjectId, Suspect};
use veilmatch_sealed::{ReplyError, SealedTemplate};

use super::matcher::{Act, Matcher};
use super::{Desk, face, people, threshold};
use crate::{Ask, Error};

/// Distinct probes or templates among what arrived.
fn digests(matcher: &Matcher) -> HashSet<[u8; 32]> {
    matcher.state().arrived.iter().map(|bytes| SealedTemplate::from_bytes(bytes).unwrap().digest().0).collect()
}

#[tokio::test]
async fn queries_are_answered_by_three_replies_that_agree() {
    let matcher = Matcher::start();
    let desk = Desk::of(&matcher);
    desk.staff.enroll("alice", &face(1)).await.unwrap();
    assert!(desk.staff.verify("alice", &face(1), threshold()).await.unwrap());
    let alice = SubjectId::new("alice").unwrap();
    for (ask, expected) in [
        (Ask::Exists, Outcome::Exists(true)),
        (Ask::Best, Outcome::Best(Some(alice.clone()))),
        (Ask::Matches { max: 3 }, Outcome::Matches(vec![alice.clone()])),
    ] {
        assert_eq!(desk.staff.identify(&face(1), ask, threshold()).await.unwrap(), expected);
    }
    let told = matcher.state().timeout.unwrap();
    assert!(told <= Duration::from_secs(5) && told > Duration::from_secs(4), "{told:?}");
    matcher.plays([Act::Contradict]);
    let error = desk.staff.verify("alice", &face(1), threshold()).await.unwrap_err();
    assert!(matches!(error, Error::Reply(ReplyError::Deviates { holder: Party::K1 })), "{error:?}");
    assert_eq!(error.suspects(), [Suspect::Holder(Party::K1)]);
    matcher.plays([Act::Confuse]);
    let error = desk.staff.verify("alice", &face(1), threshold()).await.unwrap_err();
    assert_eq!((error.reason(), matcher.arrivals()), ("reply-unreadable", 7), "not asked again");
}

#[tokio::test]
async fn a_query_is_repeated_with_a_fresh_probe_if_nothing_was_opened() {
    let matcher = Matcher::start();
    let desk = Desk::of(&matcher);
    matcher.plays([Act::Refuse("busy", 8), Act::Refuse("registry-changed", 10), Act::Refuse("unreachable", 14)]);
    assert!(desk.staff.verify("alice", &face(1), threshold()).await.unwrap());
    assert_eq!((matcher.arrivals(), digests(&matcher).len()), (4, 4));
    // One repetition more than there are.
    matcher.plays(vec![Act::Refuse("requests-differ", 10); 4]);
    let error = desk.staff.identify(&face(1), Ask::Exists, threshold()).await.unwrap_err();
    assert_eq!((error.reason(), error.refusal().unwrap().code.as_str()), ("requests-differ", "requests-differ"));
    assert_eq!((matcher.arrivals(), digests(&matcher).len()), (8, 8));
}

#[tokio::test]
async fn a_query_that_may_have_been_counted_is_not_repeated() {
    let matcher = Matcher::start();
    let desk = Desk::of(&matcher);
    for (act, reason) in [
        (Act::Refuse("timed-out", 14), "timed-out"),
        (Act::Refuse("budget-exhausted", 8), "budget-exhausted"),
        (Act::Refuse("unknown-subject", 5), "unknown-subject"),
        (Act::Lose, "matcher-unreachable"),
    ] {
        let before = matcher.arrivals();
        matcher.plays([act]);
        let error = desk.staff.verify("alice", &face(1), threshold()).await.unwrap_err();
        assert_eq!((error.reason(), matcher.arrivals() - before), (reason, 1));
    }
}

#[tokio::test]
async fn nothing_lasts_longer_than_its_deadline() {
    let matcher = Matcher::start();
    let desk = Desk::with(&matcher, |options| {
        options.deadline = Duration::from_millis(300);
        options.enroll_deadline = Duration::from_millis(300);
        options.retries = 1000;
    });
    let began = Instant::now();
    matcher.plays([Act::Hang]);
    let error = desk.staff.verify("alice", &face(1), threshold()).await.unwrap_err();
    assert!(matches!(error, Error::Deadline { after } if after == Duration::from_millis(300)), "{error:?}");
    matcher.plays([Act::Hang]);
    assert_eq!(desk.staff.enroll("alice", &face(1)).await.unwrap_err().reason(), "deadline");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // Repetitions end well before the deadline, with what the matcher said last.
    let desk = Desk::with(&matcher, |options| {
        options.deadline = Duration::from_secs(2);
        options.retries = 1000;
    });
    let began = Instant::now();
    matcher.plays(vec![Act::Refuse("busy", 8); 1000]);
    assert_eq!(desk.staff.verify("alice", &face(1), threshold()).await.unwrap_err().reason(), "busy");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(matcher.arrivals() > 3);
}

#[tokio::test]
async fn without_a_matcher_everything_says_so_and_nothing_was_sent() {
    let matcher = Matcher::start();
    let desk = Desk::with(&matcher, |options| {
        // A port that was free a moment ago.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        options.matcher = veilmatch_transport::Endpoint::parse(&format!("http://{free}"), true).unwrap();
        options.retries = 1;
    });
    for error in [
        desk.staff.verify("alice", &face(1), threshold()).await.unwrap_err(),
        desk.staff.enroll("alice", &face(1)).await.unwrap_err(),
        desk.staff.info().await.unwrap_err(),
        desk.staff.enroll_many(people(3), |_| {}).await.unwrap_err().into(),
    ] {
        assert!(matches!(error, Error::Unreachable { sent: false, .. }), "{error:?}");
        assert!(error.advice().contains("nothing was sent"));
    }
}

#[tokio::test]
async fn a_lost_answer_to_an_enrolment_is_asked_for_with_the_same_bytes() {
    let matcher = Matcher::start();
    let desk = Desk::of(&matcher);
    matcher.plays([Act::Lose, Act::Refuse("busy", 8)]);
    desk.staff.enroll("alice", &face(1)).await.unwrap();
    let arrived = matcher.state().arrived.clone();
    assert_eq!(arrived.len(), 3);
    assert!(arrived.iter().all(|bytes| *bytes == arrived[0]));
    assert_eq!(matcher.lookups(), 0);
    // A refusal that an earlier attempt explains is none; one that it does not explain stands.
    matcher.plays([Act::Lose, Act::Refuse("replayed", 6)]);
    desk.staff.enroll("bob", &face(2)).await.unwrap();
    assert_eq!(matcher.lookups(), 1);
    let error = desk.staff.enroll("alice", &face(3)).await.unwrap_err();
    assert_eq!((error.reason(), matcher.lookups()), ("already-enrolled", 1));
    matcher.plays([Act::Refuse("busy", 8)]);
    let error = desk.staff.enroll("alice", &face(3)).await.unwrap_err();
    assert_eq!((error.reason(), matcher.lookups()), ("already-enrolled", 2), "alice's template is not this one");
    matcher.plays([Act::Confuse]);
    let error = desk.staff.enroll("carol", &face(4)).await.unwrap_err();
    assert_eq!((error.reason(), error.suspects()), ("answer-mismatch", vec![Suspect::Matcher]));
}

#[tokio::test]
async fn what_got_old_is_sealed_again_only_if_the_matcher_does_not_have_it() {
    let matcher = Matcher::start();
    let desk = Desk::of(&matcher);
    let late = || Some((matcher.arrivals() + 1, std::sync::Arc::clone(&desk.clock), 290));
    let after_the_next = late();
    matcher.state().later = after_the_next;
    matcher.plays([Act::Lose]);
    desk.staff.enroll("alice", &face(1)).await.unwrap();
    assert_eq!((matcher.arrivals(), matcher.lookups()), (1, 1), "it was stored");
    let after_the_next = late();
    matcher.state().later = after_the_next;
    matcher.plays([Act::Refuse("busy", 8)]);
    desk.staff.enroll("bob", &face(1)).await.unwrap();
    assert_eq!((matcher.arrivals(), digests(&matcher).len(), matcher.lookups()), (3, 3, 2));
    let last = SealedTemplate::from_bytes(&matcher.state().arrived[2]).unwrap();
    assert!(matches!(&last.associated().purpose, Purpose::Enrol { subject } if subject.as_str() == "bob"));
}

#[tokio::test]
async fn an_erasure_is_repeated_with_the_same_bytes() {
    let matcher = Matcher::start();
    let desk = Desk::of(&matcher);
    desk.staff.enroll("alice", &face(1)).await.unwrap();
    matcher.plays([Act::Lose, Act::Refuse("unreachable", 14)]);
    assert!(desk.staff.erase("alice").await.unwrap().complete);
    let arrived = matcher.state().arrived.clone();
    assert_eq!(arrived.len(), 4);
    assert!(arrived[1] == arrived[2] && arrived[2] == arrived[3]);
    matcher.plays([Act::Refuse("role-missing", 7)]);
    assert_eq!(desk.staff.erase("alice").await.unwrap_err().reason(), "role-missing");
    assert_eq!(matcher.arrivals(), 5);
}

#[tokio::test]
async fn reading_is_repeated_and_lists_have_pages() {
    let matcher = Matcher::start();
    let desk = Desk::of(&matcher);
    let veilmatch = crate::Veilmatch { shared: std::sync::Arc::clone(&desk.staff.shared) };
    matcher.plays([Act::Lose]);
    let info = veilmatch.server_info().await.unwrap();
    assert_eq!((info.key_epoch, info.connected, info.max_batch), (Some(Epoch(4)), vec![Party::K0, Party::K2], 512));
    matcher.plays([Act::Confuse]);
    assert_eq!(veilmatch.server_info().await.unwrap_err().reason(), "malformed-answer");
    let names: Vec<_> = veilmatch.collections().await.unwrap().into_iter().map(|c| c.name.to_string()).collect();
    assert_eq!(names, ["guests", "staff"]);
    let enrolment = desk.staff.enroll_many(people(5), |_| {}).await.unwrap();
    assert_eq!(enrolment.accepted(), 5);
    let first = desk.staff.templates(3, None).await.unwrap();
    let rest = desk.staff.templates(3, first.next.as_deref()).await.unwrap();
    assert_eq!((first.items.len(), rest.items.len(), rest.next), (3, 2, None));
    assert_eq!(desk.staff.get("person-4").await.unwrap().unwrap(), {
        let mut last = rest.items[1].clone();
        last.state = crate::TemplateState::Indexed;
        last.sealed_bytes = 4000;
        last
    });
    assert_eq!(desk.staff.get("nobody").await.unwrap(), None);
    assert!(matches!(desk.staff.info().await.unwrap_err(), Error::Foreign { code: tonic::Code::Unimplemented, .. }));
}

#[tokio::test]
async fn bad_input_is_noticed_before_anything_is_sent() {
    let matcher = Matcher::start();
    let desk = Desk::of(&matcher);
    assert_eq!(desk.staff.enroll("a/b", &face(1)).await.unwrap_err().reason(), "bad-identifier");
    assert_eq!(desk.staff.erase("").await.unwrap_err().reason(), "bad-identifier");
    assert!(desk.staff.verify(&"x".repeat(65), &face(1), threshold()).await.is_err());
    assert!(matcher.state().arrived.is_empty());
}
