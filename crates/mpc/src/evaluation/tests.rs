use super::*;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use proptest::collection::vec;
use proptest::prelude::*;
use veilmatch_secret::Stream;

use crate::addition::sum_bits;
use crate::circuit::{CircuitBuilder, Wire};
use crate::sharing::test_seeds;
use crate::testing::{FIRST_STEP, Meeting, additive, open_by_three, session};
use crate::{Answer, Fault, FaultKind, Question, decision_circuit, read_answer};

pub(super) const LANES: usize = 40;
pub(super) const LIST: Question = Question::List { max: 3 };

/// Three of forty slots are at or above the threshold.
pub(super) fn values() -> Vec<u64> {
    let mut stream = Stream::public([50; 32]);
    (0..LANES).map(|lane| stream.next_u64() & 0x7fff | if [4, 11, 39].contains(&lane) { 0 } else { 0x8000 }).collect()
}

pub(super) fn circuit(question: Question) -> Arc<Circuit> {
    Arc::new(decision_circuit(16, &Lanes::ones(LANES), question))
}

pub(super) fn meeting(question: Question, tag: u8) -> Meeting {
    Meeting::new(&circuit(question), &additive(&values(), &mut Stream::public([tag; 32])), tag)
}

pub(super) fn clear(question: Question) -> Vec<Vec<Lanes>> {
    circuit(question).evaluate_in_clear(&values())
}

/// What was opened as it can be compared: the bits of a witness are random, what they say is not.
pub(super) fn said(question: Question, opened: &[Vec<Lanes>]) -> (usize, Answer) {
    (opened.len(), read_answer(question, opened).unwrap())
}

/// Sender, receiver, number on the link, step of every message of an undisturbed run.
pub(super) fn messages(question: Question) -> Vec<(Party, Party, usize, u32)> {
    let mut meeting = meeting(question, 1);
    meeting.run();
    meeting.result();
    let mut counts = BTreeMap::new();
    meeting
        .sent
        .iter()
        .map(|(from, message)| {
            let count = counts.entry((*from, message.to)).or_insert(0);
            *count += 1;
            (*from, message.to, *count - 1, message.step)
        })
        .collect()
}

pub(super) fn first_opening(question: Question) -> u32 {
    FIRST_STEP + 2 + circuit(question).and_depth() as u32
}

/// A circuit of random gates on sums of inputs, and random inputs.
fn random_circuit(stream: &mut Stream) -> (Circuit, Vec<u64>) {
    let mut pick = |below: usize| stream.next_u64() as usize % below;
    let mut builder = CircuitBuilder::new();
    let (mut wires, mut count): (Vec<Wire>, usize) = (Vec::new(), 0);
    for _ in 0..=pick(3) {
        let (width, lanes) = (1 + pick(20) as u32, 1 + pick(70));
        let input = builder.input(width, lanes);
        wires.extend(sum_bits(&mut builder, &input));
        count += lanes;
    }
    for _ in 0..20 + pick(40) {
        let (a, b) = (wires[pick(wires.len())], wires[pick(wires.len())]);
        let lanes = builder.lanes(a);
        let public = Lanes::from_fn(pick(100), |_| pick(2) == 1);
        let wire = match pick(10) {
            0 => builder.xor(a, b),
            1 | 2 => builder.and(a, b),
            3 => builder.or(a, b),
            4 => builder.not(a),
            5 => builder.flip(a, public),
            6 => builder.mask(a, public),
            7 => builder.slice(a, pick(lanes + 1), pick(lanes + 20)),
            8 => builder.halves(a).1,
            _ if lanes + builder.lanes(b) < 400 => builder.concat(&[a, b, a]),
            _ => builder.constant(public),
        };
        wires.push(wire);
    }
    let stages = (0..1 + pick(3))
        .map(|stage| {
            let open = |builder: &mut CircuitBuilder, wire| {
                // The first stages are 0 now and then, so that later ones are opened.
                if stage == 0 { builder.mask(wire, Lanes::zeros(400)) } else { wire }
            };
            (0..1 + pick(4)).map(|_| wires[pick(wires.len())]).map(|wire| open(&mut builder, wire)).collect()
        })
        .collect();
    let circuit = builder.finish(stages);
    let values = (0..count).map(|_| stream.next_u64()).collect();
    (circuit, values)
}

#[test]
fn three_holders_open_what_the_circuit_gives_in_the_clear() {
    let mut stream = Stream::public([51; 32]);
    for turn in 0..150u8 {
        let (circuit, mut values) = random_circuit(&mut stream);
        let mut rest = values.as_mut_slice();
        for shape in circuit.inputs() {
            let (input, after) = rest.split_at_mut(shape.lanes);
            input.iter_mut().for_each(|value| *value &= width_mask(shape.width));
            rest = after;
        }
        let expected = circuit.evaluate_in_clear(&values);
        assert_eq!(open_by_three(circuit, &values, turn % 80), expected, "circuit {turn}");
    }
}

#[test]
fn every_question_opens_its_answer_at_all_three() {
    for (question, answer) in [
        (Question::Any, Answer::Any(true)),
        (LIST, Answer::List(vec![4, 11, 39])),
        (Question::List { max: 2 }, Answer::TooMany),
        (Question::Best, read_answer(Question::Best, &clear(Question::Best)).unwrap()),
    ] {
        let mut meeting = meeting(question, 2);
        meeting.run();
        assert_eq!(said(question, &meeting.result()), said(question, &clear(question)));
        assert_eq!(read_answer(question, &meeting.result()), Ok(answer));
    }
}

#[test]
fn many_inputs_of_many_widths() {
    for widths in [vec![64, 1, 7], vec![63], vec![48, 48], vec![]] {
        let mut builder = CircuitBuilder::new();
        let mut stage = Vec::new();
        let mut values = Vec::new();
        for (place, width) in widths.into_iter().enumerate() {
            let lanes = [1, 9, 64][place];
            let input = builder.input(width, lanes);
            stage.extend(sum_bits(&mut builder, &input));
            values.extend((0..lanes as u64).map(|lane| (u64::MAX - lane * 0x1234_5678_9abc) & width_mask(width)));
        }
        let circuit = builder.finish(vec![stage]);
        let expected = circuit.evaluate_in_clear(&values);
        assert_eq!(open_by_three(circuit, &values, 3), expected);
    }
}

#[test]
fn the_order_of_messages_does_not_matter() {
    for question in [Question::Any, LIST, Question::Best] {
        let expected = said(question, &clear(question));
        for tag in 0..30 {
            let mut meeting = meeting(question, tag);
            meeting.disorder = Some(Stream::public([tag ^ 0x55; 32]));
            meeting.eager = tag % 2 == 0;
            meeting.run();
            assert_eq!(said(question, &meeting.result()), expected);
        }
        for (from, to, nth, _) in messages(question) {
            let mut meeting = meeting(question, 4);
            meeting.network.inject(Fault { from, to, nth, kind: FaultKind::Reorder });
            meeting.run();
            assert_eq!(said(question, &meeting.result()), expected);
        }
    }
}

#[test]
fn early_messages_are_kept_until_they_are_needed() {
    // K1 gets all that K0 and K2 can send before it has K2's input: the deal and the products of two levels.
    let mut begun = meeting(Question::Any, 5);
    begun.eager = true;
    begun.network.inject(Fault { from: Party::K2, to: Party::K1, nth: 0, kind: FaultKind::Lose });
    begun.run();
    let k1 = &begun.holder(Party::K1).evaluation;
    assert_eq!(k1.at, At::Inputs);
    assert_eq!(k1.early.keys().copied().collect::<Vec<_>>(), [(1, Party::K0), (2, Party::K2), (3, Party::K2)]);
    assert_eq!(k1.waiting_for(), [(Party::K2, FIRST_STEP)]);
    let lost = begun.sent.iter().find(|(from, message)| *from == Party::K2 && message.step == FIRST_STEP);
    let lost = lost.unwrap().1.payload.clone();
    let progress = begun.holder(Party::K1).evaluation.receive(Party::K2, FIRST_STEP, &lost);
    begun.follow(Party::K1, progress);
    begun.run();
    assert_eq!(said(Question::Any, &begun.result()), said(Question::Any, &clear(Question::Any)));
    assert!(begun.holders.iter().all(|holder| holder.evaluation.early.is_empty()));
}

#[test]
fn no_opening_share_leaves_without_leave() {
    let step = first_opening(LIST);
    for unwilling in Party::ALL {
        let mut meeting = meeting(LIST, 18);
        meeting.eager = true;
        meeting.holder(unwilling).approves = false;
        meeting.run();
        assert!(!meeting.sent.iter().any(|(from, message)| *from == unwilling && message.step >= step));
        assert!(!meeting.somebody_opened());
        for peer in unwilling.peers() {
            assert_eq!(meeting.holder(peer).evaluation.waiting_for(), [(unwilling, step)]);
            let early = meeting.holder(peer).evaluation.approve_opening().unwrap_err();
            assert_eq!(early, ProtocolError::NothingToOpen);
        }
        assert_eq!(meeting.holder(unwilling).evaluation.waiting_for(), []);
        meeting.holder(unwilling).approves = true;
        let leave = meeting.holder(unwilling).evaluation.approve_opening();
        meeting.follow(unwilling, leave);
        meeting.run();
        assert_eq!(meeting.result(), clear(LIST), "asking too early does no harm");
    }
}

#[test]
fn beyond_the_cap_nothing_but_too_many_is_sent() {
    for (max, stages) in [(1, 1), (2, 1), (3, 2), (4, 2)] {
        let question = Question::List { max };
        let mut meeting = meeting(question, 19);
        meeting.run();
        assert_eq!(meeting.result().len(), stages);
        let second = first_opening(question) + 1;
        let sent = meeting.sent.iter().filter(|(_, message)| message.step >= second).count();
        assert_eq!(sent, if stages == 2 { 6 } else { 0 }, "cap {max}");
        let flags = meeting.sent.iter().filter(|(_, message)| message.step == second - 1);
        assert!(flags.clone().all(|(_, message)| message.payload.len() == 1));
        assert_eq!(flags.count(), 6);
        for holder in &mut meeting.holders {
            assert_eq!(holder.evaluation.wires.held(), 0, "the slots' shares are gone");
            assert_eq!(holder.evaluation.approve_opening().unwrap_err(), ProtocolError::NothingToOpen);
        }
    }
}

#[test]
fn after_the_end_every_message_is_refused() {
    let question = Question::List { max: 1 };
    let mut meeting = meeting(question, 20);
    meeting.run();
    let (late, slots) = (first_opening(question) + 1, LANES.div_ceil(8));
    let k0 = &mut meeting.holder(Party::K0).evaluation;
    let error = k0.receive(Party::K1, late, &vec![0; slots]).unwrap_err();
    assert_eq!(error, ProtocolError::Unexpected { from: Party::K1, step: late }, "the stage was not opened");
}

#[test]
fn wires_are_released_as_soon_as_nobody_needs_them() {
    for question in [Question::Any, LIST, Question::Best] {
        let circuit = circuit(question);
        let stage_wires: BTreeSet<usize> =
            (0..circuit.stages()).flat_map(|stage| circuit.stage(stage).unwrap()).map(|wire| wire.index()).collect();
        let peak = Rc::new(Cell::new(0));
        let at_opening = Rc::new(RefCell::new(Vec::new()));
        let mut meeting = meeting(question, 21);
        meeting.watch = Some(Box::new({
            let (peak, at_opening) = (Rc::clone(&peak), Rc::clone(&at_opening));
            move |_, evaluation| {
                peak.set(evaluation.wires.held().max(peak.get()));
                if evaluation.at == At::Approval(0) {
                    at_opening.borrow_mut().push(evaluation.wires.held());
                }
                let started = !matches!(evaluation.at, At::Inputs | At::Deal);
                if started {
                    assert!(evaluation.masked.iter().all(|&value| value == 0), "inputs are wiped");
                }
            }
        }));
        meeting.run();
        assert_eq!(*at_opening.borrow(), [stage_wires.len(); 3], "only what is opened is left");
        assert!(peak.get() <= 4 * 16, "{question:?}: {} values at once", peak.get());
        for holder in &meeting.holders {
            assert_eq!(holder.evaluation.wires.held(), 0);
            assert!(holder.evaluation.products.is_none());
        }
    }
}

#[test]
fn a_wire_of_another_builder_is_refused() {
    let mut other = CircuitBuilder::new();
    let wires = other.input(60, 1);
    let mut builder = CircuitBuilder::new();
    let _ = builder.input(2, 1);
    let circuit = Arc::new(builder.finish(vec![vec![wires.second[59]]]));
    let mut meeting = Meeting::new(&circuit, &[vec![0], vec![0], vec![0]], 22);
    meeting.run();
    assert!(meeting.holders.iter().all(|holder| holder.error == Some(ProtocolError::BrokenCircuit)));
}

#[test]
fn nothing_secret_shows_in_debug() {
    let meeting = meeting(Question::Any, 23);
    let text = format!("{:?}", meeting.holders[1].evaluation);
    assert_eq!(text, "Evaluation(K1, Inputs, shares redacted)");
    let message = Outgoing { to: Party::K0, step: 7, payload: vec![0xab; 3] };
    assert_eq!(format!("{message:?}"), "Outgoing(to K0, step 7, 3 bytes)");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever peers send, nothing is opened and no opening share leaves as long as the caller has not agreed; the
    /// first error stays.
    #[test]
    fn arbitrary_messages_neither_panic_nor_open(
        party in 0..3usize,
        list in any::<bool>(),
        events in vec((0..3usize, 0..16u32, vec(any::<u8>(), 0..12), any::<bool>(), any::<u8>()), 1..60),
    ) {
        let question = if list { LIST } else { Question::Best };
        let (party, seeds) = (Party::from_index(party), test_seeds(24));
        let (mut evaluation, _) = Evaluation::start(
            party, session(24), &seeds[party.index()], circuit(question), vec![5; LANES], FIRST_STEP,
        ).unwrap();
        let mut failed: Option<ProtocolError> = None;
        for (from, step, bytes, fitting, fill) in events {
            let from = Party::from_index(from);
            // Half of the messages have the one length that is right, so that the evaluation gets somewhere.
            let expected = evaluation.expected(from, step).filter(|_| fitting);
            let payload = expected.map_or(bytes, |content| {
                let mut payload = vec![fill; evaluation.length(content)];
                // Unused bits must be 0.
                payload.last_mut().map(|last| *last &= 1).unwrap_or_default();
                payload
            });
            match evaluation.receive(from, FIRST_STEP + step, &payload) {
                Ok(progress) => {
                    prop_assert!(failed.is_none());
                    prop_assert!(!matches!(progress.state, State::Done(_)));
                    prop_assert!(progress.send.iter().all(|message| message.step < first_opening(question)));
                }
                Err(error) => {
                    prop_assert!(failed.is_none() || failed == Some(error.clone()));
                    failed = Some(error);
                }
            }
        }
    }

    /// Any reordering, for any values.
    #[test]
    fn any_order_opens_the_same(values in vec(0..1u64 << 16, LANES), order in any::<[u8; 32]>(), eager in any::<bool>()) {
        let inputs = additive(&values, &mut Stream::public([25; 32]));
        let mut meeting = Meeting::new(&circuit(Question::Best), &inputs, 25);
        meeting.disorder = Some(Stream::public(order));
        meeting.eager = eager;
        meeting.run();
        prop_assert_eq!(meeting.result(), circuit(Question::Best).evaluate_in_clear(&values));
    }
}
