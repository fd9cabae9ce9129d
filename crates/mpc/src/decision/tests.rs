use super::*;
use veilmatch_secret::Stream;

use crate::testing::open_by_three;

/// The oracle: plain arithmetic on score − τ as signed numbers of `width` bits.
fn plain(width: u32, values: &[u64], live: &Lanes, question: Question) -> Answer {
    let hits: Vec<usize> =
        (0..values.len()).filter(|&lane| live.get(lane) && values[lane] < 1 << (width - 1)).collect();
    match question {
        Question::Any => Answer::Any(!hits.is_empty()),
        Question::List { max } if hits.len() > usize::from(max) => Answer::TooMany,
        Question::List { .. } => Answer::List(hits),
        // `max_by_key` gives the last of equals; a tie is won by the lower lane.
        Question::Best => Answer::Best(hits.into_iter().rev().max_by_key(|&lane| values[lane])),
    }
}

fn clear(width: u32, values: &[u64], live: &Lanes, question: Question) -> Answer {
    let opened = decision_circuit(width, live, question).evaluate_in_clear(values);
    read_answer(question, &opened).unwrap()
}

fn draw(stream: &mut Stream, width: u32) -> u64 {
    stream.next_u64() & ((1 << width) - 1)
}

/// Slots of many kinds: random, nobody, everybody, exactly τ, the extremes, ties, one or two winners.
fn galleries(width: u32, lanes: usize, stream: &mut Stream) -> Vec<Vec<u64>> {
    let top = 1u64 << (width - 1);
    let mut random = || draw(stream, width);
    let below = |v: u64| v | top;
    let above = |v: u64| v & (top - 1);
    let nobody: Vec<u64> = (0..lanes).map(|_| below(random())).collect();
    let everybody = (0..lanes).map(|_| above(random())).collect();
    let few_values = (0..lanes).map(|_| [0, 1, top - 1, top, 2 * top - 1][(random() % 5) as usize]).collect();
    let mut one = nobody.clone();
    one[(random() as usize) % lanes] = above(random());
    let mut exactly = vec![2 * top - 1; lanes]; // one step below τ
    exactly[(random() as usize) % lanes] = 0; // exactly τ
    let mut two_equal = nobody.clone();
    let winner = above(random());
    for _ in 0..2 {
        two_equal[(random() as usize) % lanes] = winner;
    }
    vec![
        (0..lanes).map(|_| random()).collect(),
        nobody,
        everybody,
        few_values,
        one,
        exactly,
        two_equal,
        vec![top; lanes],     // the most negative
        vec![top - 1; lanes], // the highest, all equal
        vec![0; lanes],       // all exactly τ
    ]
}

fn questions(lanes: usize) -> Vec<Question> {
    let caps = [1, lanes / 2, lanes, lanes + 1].map(|max| Question::List { max: max.max(1) as u16 });
    [Question::Any, Question::Best].into_iter().chain(caps).collect()
}

#[test]
fn answers_are_those_of_plain_arithmetic() {
    let mut stream = Stream::public([21; 32]);
    let sizes = [1, 2, 3, 5, 7, 8, 9, 31, 33, 63, 64, 65, 100, 127, 129, 200, 255, 256, 257, 299, 300];
    for (turn, width) in (8..=32u32).enumerate() {
        for lanes in [1, sizes[turn % sizes.len()], sizes[(turn * 5 + 3) % sizes.len()]] {
            for values in galleries(width, lanes, &mut stream) {
                let all = Lanes::ones(lanes);
                let some = Lanes::from_fn(lanes, |_| !stream.next_u32().is_multiple_of(4));
                for question in questions(lanes) {
                    for live in [&all, &some] {
                        let expected = plain(width, &values, live, question);
                        let answer = clear(width, &values, live, question);
                        assert_eq!(answer, expected, "{question:?}, width {width}, {lanes} lanes");
                    }
                }
            }
        }
    }
}

#[test]
fn every_number_of_lanes_finds_its_best() {
    let mut stream = Stream::public([22; 32]);
    for lanes in 1..=300 {
        let values: Vec<u64> = (0..lanes).map(|_| draw(&mut stream, 8)).collect();
        let live = Lanes::ones(lanes);
        assert_eq!(clear(8, &values, &live, Question::Best), plain(8, &values, &live, Question::Best), "{lanes}");
        let question = Question::List { max: (lanes / 2).max(1) as u16 };
        assert_eq!(clear(8, &values, &live, question), plain(8, &values, &live, question), "{lanes}");
    }
}

#[test]
fn a_winner_that_is_not_live_does_not_count() {
    let values = [5, 900, 70, 70, 1 << 15];
    let mut live = Lanes::ones(5);
    assert_eq!(clear(16, &values, &live, Question::Best), Answer::Best(Some(1)));
    live.set(1, false);
    assert_eq!(clear(16, &values, &live, Question::Best), Answer::Best(Some(2)), "of equals the lower lane");
    assert_eq!(clear(16, &values, &live, Question::List { max: 3 }), Answer::List(vec![0, 2, 3]));
    assert_eq!(clear(16, &values, &live, Question::List { max: 2 }), Answer::TooMany);
    for question in questions(5) {
        let nobody = match question {
            Question::Any => Answer::Any(false),
            Question::List { .. } => Answer::List(Vec::new()),
            Question::Best => Answer::Best(None),
        };
        assert_eq!(clear(16, &values, &Lanes::zeros(5), question), nobody);
    }
}

#[test]
fn an_empty_gallery_has_an_answer() {
    for (question, answer) in [
        (Question::Any, Answer::Any(false)),
        (Question::List { max: 1 }, Answer::List(Vec::new())),
        (Question::Best, Answer::Best(None)),
    ] {
        assert_eq!(clear(16, &[], &Lanes::zeros(0), question), answer);
        let opened = open_by_three(decision_circuit(16, &Lanes::zeros(0), question), &[], 3);
        assert_eq!(read_answer(question, &opened), Ok(answer));
    }
}

#[test]
fn three_holders_answer_as_plain_arithmetic_does() {
    let mut stream = Stream::public([23; 32]);
    let mut tag = 0u8;
    for (width, lanes) in [(8, 1), (16, 2), (16, 65), (20, 100), (32, 130), (16, 1000)] {
        for values in galleries(width, lanes, &mut stream) {
            let live = Lanes::from_fn(lanes, |_| !stream.next_u32().is_multiple_of(8));
            for question in questions(lanes) {
                tag = (tag + 1) % 80;
                let opened = open_by_three(decision_circuit(width, &live, question), &values, tag);
                let expected = plain(width, &values, &live, question);
                assert_eq!(read_answer(question, &opened), Ok(expected), "{question:?}, {width} bits, {lanes} lanes");
            }
        }
    }
}

#[test]
fn twenty_thousand_slots() {
    let lanes = 20_000;
    let mut stream = Stream::public([24; 32]);
    let mut values: Vec<u64> = (0..lanes).map(|_| draw(&mut stream, 16) | 1 << 15).collect();
    for (lane, value) in [(19_999, 300), (7, 299), (12_345, 300), (4_096, 0)] {
        values[lane] = value;
    }
    let live = Lanes::ones(lanes);
    for question in [Question::Any, Question::Best, Question::List { max: 3 }, Question::List { max: 4 }] {
        let expected = plain(16, &values, &live, question);
        assert_eq!(clear(16, &values, &live, question), expected);
        let opened = open_by_three(decision_circuit(16, &live, question), &values, 9);
        assert_eq!(read_answer(question, &opened), Ok(expected), "{question:?}");
    }
}

/// Rounds are saved where there are few slots; where there are many, gates are what costs.
#[test]
fn a_million_slots_take_no_more_gates_for_their_best_than_pairs_would() {
    let circuit = decision_circuit(16, &Lanes::ones(1_000_000), Question::Best);
    assert!(circuit.and_bits() < 131 * 1_000_000, "{}", circuit.and_bits());
    assert!(circuit.rounds() <= 80, "{}", circuit.rounds());
    let any = decision_circuit(16, &Lanes::ones(1_000_000), Question::Any);
    assert!(any.and_bits() < 41 * 1_000_000 && any.rounds() <= 16, "{} {}", any.and_bits(), any.rounds());
}

/// The table of the module's documentation.
#[test]
fn gates_and_rounds_are_those_of_the_documentation() {
    let cost = |width, lanes, question| {
        let circuit = decision_circuit(width, &Lanes::ones(lanes), question);
        (circuit.and_bits(), circuit.rounds())
    };
    let list = Question::List { max: 10 };
    let table = [1, 1_000, 20_000].map(|lanes| [Question::Any, list, Question::Best].map(|q| cost(16, lanes, q)));
    let expected = [
        [(39, 8), (39, 9), (39, 8)],
        [(103_064, 9), (40_003, 19), (491_830, 30)],
        [(1_430_064, 10), (800_009, 24), (4_188_356, 47)],
    ];
    assert_eq!(table, expected);
    let wide = [Question::Any, list, Question::Best].map(|q| cost(20, 1_000, q));
    assert_eq!(wide, [(114_064, 10), (51_003, 20), (618_946, 31)]);
}

#[test]
fn what_has_another_shape_is_not_an_answer() {
    let (one, zero) = (|| vec![Lanes::ones(1)], || vec![Lanes::zeros(1)]);
    let list = Question::List { max: 1 };
    for (question, opened) in [
        (Question::Any, vec![]),
        (Question::Any, vec![vec![]]),
        (Question::Any, vec![zero(), zero()]),
        (Question::Best, vec![]),
        (Question::Best, vec![zero(), zero()]),
        (list, vec![]),
        (list, vec![zero()]),
        (list, vec![one(), one()]),
        (list, vec![zero(), vec![]]),
        (list, vec![zero(), vec![Lanes::ones(2)]]),
        (list, vec![zero(), zero(), zero()]),
    ] {
        assert_eq!(read_answer(question, &opened), Err(ProtocolError::NotAnAnswer), "{question:?}");
    }
}
