//! Faults on the way and holders that cheat: who is named, and that nothing is opened.

use super::tests::{LANES, LIST, circuit, clear, first_opening, meeting, messages, said};
use super::*;

use crate::sharing::test_seeds;
use crate::testing::{FIRST_STEP, Meeting, session};
use crate::{Fault, FaultKind, Question, decision_circuit};

#[test]
fn a_lost_message_makes_everybody_wait_and_is_named() {
    for question in [Question::Any, LIST] {
        for (from, to, nth, step) in messages(question) {
            let mut meeting = meeting(question, 6);
            meeting.network.inject(Fault { from, to, nth, kind: FaultKind::Lose });
            meeting.run();
            let waiting = meeting.holder(to).evaluation.waiting_for();
            assert_eq!(waiting, [(from, step)]);
            assert!(meeting.holder(to).opened.is_none());
            assert!(meeting.holders.iter().all(|holder| holder.error.is_none()));
            if step < first_opening(question) {
                assert!(!meeting.somebody_opened(), "{from} to {to}, message {step}");
            }
        }
    }
}

#[test]
fn a_lost_message_inside_the_comparison_opens_nothing_anywhere() {
    // The sender itself can come two levels further, so it may send opening shares if the loss was among the last.
    let late = first_opening(Question::Any) - 2;
    for (from, to, nth, step) in messages(Question::Any) {
        if step >= late {
            continue;
        }
        let mut meeting = meeting(Question::Any, 7);
        meeting.network.inject(Fault { from, to, nth, kind: FaultKind::Lose });
        meeting.run();
        assert!(meeting.sent.iter().all(|(_, message)| message.step < first_opening(Question::Any)));
        assert!(meeting.holders.iter().all(|holder| !holder.evaluation.waiting_for().is_empty()), "all three wait");
    }
}

/// The receiver's error for a fault on every message, one at a time. The others have no error and the receiver never
/// opens more than what it already had opened when the message came.
fn fault_on_every_message(kind: impl Fn(Party, Party) -> FaultKind<Party>, expected: impl Fn(Party) -> ProtocolError) {
    for (from, to, nth, step) in messages(LIST) {
        let mut meeting = meeting(LIST, 8);
        meeting.network.inject(Fault { from, to, nth, kind: kind(from, to) });
        meeting.run();
        assert_eq!(meeting.holder(to).error, Some(expected(from)), "{from} to {to}, message {step}");
        for other in Party::ALL.into_iter().filter(|party| *party != to) {
            assert_eq!(meeting.holder(other).error, None);
        }
        if step < first_opening(LIST) && !matches!(kind(from, to), FaultKind::Repeat) {
            assert!(!meeting.somebody_opened());
        }
        if !matches!(kind(from, to), FaultKind::Repeat) {
            assert!(meeting.holder(to).opened.is_none());
        }
    }
}

#[test]
fn repeated_cut_altered_and_strange_frames_stop_the_receiver() {
    let altered = |from| ProtocolError::Altered { from };
    fault_on_every_message(|_, _| FaultKind::Repeat, |from| ProtocolError::Repeated { from });
    fault_on_every_message(|_, _| FaultKind::Truncate { bytes: 1 }, altered);
    fault_on_every_message(|_, _| FaultKind::Truncate { bytes: 1 << 20 }, altered);
    for byte in [0, 33, 36, 37, 38, 42, 43, 60] {
        fault_on_every_message(move |_, _| FaultKind::Alter { byte, bit: (byte % 8) as u8 }, altered);
    }
    fault_on_every_message(|_, _| FaultKind::Replace { bytes: vec![1; 200] }, altered);
}

#[test]
fn a_misattributed_frame_names_the_claimed_sender() {
    for (from, to, nth, _) in messages(Question::Any) {
        for claimed in [from.next(), from.previous()] {
            let mut meeting = meeting(Question::Any, 9);
            meeting.network.inject(Fault { from, to, nth, kind: FaultKind::Misattribute { to: claimed } });
            meeting.run();
            assert_eq!(meeting.holder(to).error, Some(ProtocolError::Altered { from: claimed }));
            assert!(meeting.holder(to).opened.is_none());
        }
    }
}

#[test]
fn a_frame_of_another_session_is_refused() {
    // The seeds of the pairs are the same, as when a message of an earlier session is sent again.
    let earlier = crate::Links::new(Party::K1, &test_seeds(10)[1]).seal(session(11), FIRST_STEP, Party::K0, &[0; 80]);
    let mut meeting = meeting(Question::Any, 10);
    let kind = FaultKind::Replace { bytes: earlier };
    meeting.network.inject(Fault { from: Party::K1, to: Party::K0, nth: 0, kind });
    meeting.run();
    assert_eq!(meeting.holder(Party::K0).error, Some(ProtocolError::WrongSession { from: Party::K1 }));
    assert!(!meeting.somebody_opened());
}

fn cut(message: &mut Outgoing) {
    message.payload.pop();
}

/// Runs with a holder that changes its own message on a link before it is sealed.
fn with_cheat(question: Question, from: Party, to: Party, step: u32, change: fn(&mut Outgoing)) -> Meeting {
    let mut meeting = meeting(question, 12);
    meeting.eager = true;
    meeting.cheat = Some(Box::new(move |party, message| {
        if (party, message.to, message.step) == (from, to, step) {
            change(message);
        }
    }));
    meeting.run();
    meeting
}

#[test]
fn authentic_messages_of_the_wrong_length_or_step_name_their_sender() {
    for (from, to, _, step) in messages(LIST) {
        let mut shorter = with_cheat(LIST, from, to, step, cut);
        assert_eq!(shorter.holder(to).error, Some(ProtocolError::Truncated { from }));
        let mut empty = with_cheat(LIST, from, to, step, |message| message.payload.clear());
        assert_eq!(empty.holder(to).error, Some(ProtocolError::Truncated { from }));
        let mut longer = with_cheat(LIST, from, to, step, |message| message.payload.push(0));
        assert_eq!(longer.holder(to).error, Some(ProtocolError::Malformed { from }));
        let wrongs: [fn(&mut Outgoing); 3] = [|m| m.step = 0, |m| m.step = u32::MAX, |m| m.step = FIRST_STEP - 1];
        for wrong in wrongs {
            let mut strange = with_cheat(LIST, from, to, step, wrong);
            let error = strange.holder(to).error.clone();
            assert!(matches!(error, Some(ProtocolError::Unexpected { from: named, .. }) if named == from), "{error:?}");
            assert!(strange.holder(to).opened.is_none());
        }
        for meeting in [&mut shorter, &mut empty, &mut longer] {
            assert!(meeting.holder(to).opened.is_none());
        }
    }
}

#[test]
fn bits_that_must_be_zero_are_looked_at() {
    // A stage of one bit leaves seven bits of its byte, a width of 12 leaves four bits of two bytes.
    let step = first_opening(LIST);
    let mut meeting = with_cheat(LIST, Party::K2, Party::K0, step, |message| message.payload[0] |= 0x80);
    assert_eq!(meeting.holder(Party::K0).error, Some(ProtocolError::Malformed { from: Party::K2 }));

    let circuit = Arc::new(decision_circuit(12, &Lanes::ones(4), Question::Any));
    for (from, to) in [(Party::K1, Party::K0), (Party::K2, Party::K1)] {
        let mut meeting = Meeting::new(&circuit, &[0; 3].map(|n| vec![n; 4]), 13);
        meeting.cheat = Some(Box::new(move |party, message| {
            if (party, message.step) == (from, FIRST_STEP) {
                message.payload[1] |= 0x10;
            }
        }));
        meeting.run();
        assert_eq!(meeting.holder(to).error, Some(ProtocolError::Malformed { from }));
        assert!(!meeting.somebody_opened());
    }
}

#[test]
fn a_message_to_the_wrong_holder_or_twice_is_refused() {
    let seeds = test_seeds(14);
    let start = |party: Party| {
        let inputs = vec![0; LANES];
        let circuit = circuit(Question::Any);
        Evaluation::start(party, session(14), &seeds[party.index()], circuit, inputs, FIRST_STEP).unwrap().0
    };
    let unexpected = |from, step| ProtocolError::Unexpected { from, step };
    // K2 receives no inputs, nobody but K1 the deal, and products come from the next holder alone.
    for (to, from, step) in [
        (Party::K2, Party::K0, 0),
        (Party::K2, Party::K1, 0),
        (Party::K0, Party::K2, 0),
        (Party::K1, Party::K0, 0),
        (Party::K0, Party::K1, 1),
        (Party::K2, Party::K0, 1),
        (Party::K1, Party::K2, 1),
        (Party::K0, Party::K2, 2),
        (Party::K0, Party::K0, 0),
        (Party::K0, Party::K0, first_opening(Question::Any) - FIRST_STEP),
    ] {
        let step = FIRST_STEP + step;
        assert_eq!(start(to).receive(from, step, &[]).unwrap_err(), unexpected(from, step), "{from} to {to}");
    }
    let mut k0 = start(Party::K0);
    k0.receive(Party::K1, FIRST_STEP, &[0; 2 * LANES]).unwrap();
    let twice = k0.receive(Party::K1, FIRST_STEP, &[0; 2 * LANES]).unwrap_err();
    assert_eq!(twice, ProtocolError::Repeated { from: Party::K1 });
}

#[test]
fn a_caller_with_the_wrong_number_of_inputs_or_of_steps_is_refused() {
    let seeds = test_seeds(15);
    let circuit = circuit(LIST);
    let start = |inputs: usize, first_step: u32| {
        let inputs = vec![0; inputs];
        Evaluation::start(Party::K1, session(15), &seeds[1], Arc::clone(&circuit), inputs, first_step)
    };
    for found in [0, LANES - 1, LANES + 1] {
        let error = start(found, FIRST_STEP).unwrap_err();
        assert_eq!(error, ProtocolError::Inputs { expected: LANES, found });
        assert_eq!(error.suspect(), None);
    }
    let rounds = circuit.rounds() as u32;
    assert_eq!(start(LANES, u32::MAX - rounds).unwrap_err(), ProtocolError::StepsExhausted);
    assert_eq!(start(LANES, u32::MAX).unwrap_err(), ProtocolError::StepsExhausted);
    let (last, _) = start(LANES, u32::MAX - rounds - 1).unwrap();
    assert_eq!(last.last_step(), u32::MAX - 2);
    assert_eq!(start(LANES, FIRST_STEP).unwrap().0.last_step(), messages(LIST).last().unwrap().3);
}

#[test]
fn a_changed_component_of_an_opening_names_the_pair_and_opens_nothing() {
    for question in [Question::Any, LIST, Question::Best] {
        for cheater in Party::ALL {
            for victim in cheater.peers() {
                let step = first_opening(question);
                let mut meeting = with_cheat(question, cheater, victim, step, |message| message.payload[0] ^= 1);
                let other = Party::ALL.into_iter().find(|p| *p != cheater && *p != victim).unwrap();
                let mismatch = ProtocolError::Mismatch { suspect: Suspect::pair(cheater, other) };
                assert_eq!(meeting.holder(victim).error, Some(mismatch.clone()));
                assert!(mismatch.suspect().unwrap().includes(cheater));
                let victim = meeting.holder(victim);
                assert!(victim.opened.is_none() && victim.evaluation.opened.is_empty());
                // The other one got honest copies from both.
                assert_eq!(meeting.holder(other).error, None);
                if question == LIST {
                    assert_eq!(meeting.holder(other).opened, None, "it waits for the second stage of the victim");
                } else {
                    let opened = meeting.holder(other).opened.take().unwrap();
                    assert_eq!(said(question, &opened), said(question, &clear(question)));
                }
            }
        }
    }
}

#[test]
fn a_component_changed_in_the_second_stage_opens_no_slot_at_the_victim() {
    let step = first_opening(LIST) + 1;
    for bit in [0u8, 3, 39] {
        let mut meeting = meeting(LIST, 16);
        meeting.cheat = Some(Box::new(move |party, message| {
            if (party, message.to, message.step) == (Party::K1, Party::K0, step) {
                message.payload[usize::from(bit) / 8] ^= 1 << (bit % 8);
            }
        }));
        meeting.run();
        let suspect = Suspect::pair(Party::K1, Party::K2);
        assert_eq!(meeting.holder(Party::K0).error, Some(ProtocolError::Mismatch { suspect }));
        assert!(meeting.holder(Party::K0).opened.is_none());
        assert_eq!(meeting.holder(Party::K2).opened, Some(clear(LIST)));
    }
}

/// The limit that the crate's documentation states: products are not checked, so a wrong one can spoil the result. A
/// cheater that gives its peer another component than it keeps itself is named where the difference reaches the opening.
#[test]
fn a_wrong_product_spoils_the_result_or_names_the_pair() {
    let (mut spoiled, mut named) = (0, 0);
    for bit in (0..15 * LANES).step_by(7) {
        let mut meeting = meeting(LIST, 17);
        meeting.cheat = Some(Box::new(move |party, message| {
            if (party, message.step) == (Party::K2, FIRST_STEP + 2) {
                message.payload[bit / 8] ^= 1 << (bit % 8);
            }
        }));
        meeting.run();
        for holder in &meeting.holders {
            match &holder.error {
                None => spoiled += usize::from(holder.opened.as_ref().is_some_and(|opened| *opened != clear(LIST))),
                Some(error) => {
                    assert_eq!(*error, ProtocolError::Mismatch { suspect: Suspect::pair(Party::K1, Party::K2) });
                    named += 1;
                }
            }
        }
    }
    assert!(spoiled > 0 && named > 0, "{spoiled} spoiled, {named} named");
}

#[test]
fn after_an_error_an_evaluation_stays_stopped() {
    let mut meeting = with_cheat(Question::Any, Party::K2, Party::K1, FIRST_STEP + 2, cut);
    let k1 = &mut meeting.holder(Party::K1).evaluation;
    let error = ProtocolError::Truncated { from: Party::K2 };
    for step in [FIRST_STEP + 2, FIRST_STEP + 3, first_opening(Question::Any), 0] {
        for from in [Party::K0, Party::K2] {
            assert_eq!(k1.receive(from, step, &[0; 75]).unwrap_err(), error);
        }
    }
    assert_eq!(k1.approve_opening().unwrap_err(), error);
    assert_eq!(k1.waiting_for(), []);
    assert_eq!(k1.wires.held(), 0, "shares are wiped at once");
    assert!(k1.early.is_empty() && k1.opened.is_empty());
    assert!(!meeting.somebody_opened());
}
