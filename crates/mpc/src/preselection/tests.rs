use super::*;
use veilmatch_secret::Stream;

use crate::testing::open_by_three;

/// The oracle: plain arithmetic on score − t₁ as signed numbers of `width` bits.
fn plain(width: u32, values: &[u64], lanes: &[usize], most: usize) -> Candidates {
    let mut rest = values;
    let mut groups = Vec::new();
    for (group, &of_group) in lanes.iter().enumerate() {
        let (own, others) = rest.split_at(of_group);
        rest = others;
        if own.iter().any(|&value| value < 1 << (width - 1)) {
            groups.push(group);
        }
    }
    if groups.len() > most { Candidates::TooMany } else { Candidates::Groups(groups) }
}

fn draw(stream: &mut Stream, width: u32) -> u64 {
    stream.next_u64() & ((1 << width) - 1)
}

/// Group sizes of many kinds, empty groups among them.
fn shapes() -> Vec<Vec<usize>> {
    let mixed = vec![0, 1, 2, 3, 64, 65, 0, 127, 5];
    vec![vec![1], vec![2], vec![7], vec![300], vec![1; 40], vec![2, 1, 9], mixed, vec![0, 0], vec![8; 9], vec![0, 33]]
}

/// Random slots; nobody, everybody; one slot in one group, exactly at t₁ and one step below; the extremes.
fn galleries(width: u32, slots: usize, stream: &mut Stream) -> Vec<Vec<u64>> {
    let top = 1u64 << (width - 1);
    let mut all: Vec<Vec<u64>> = vec![
        (0..slots).map(|_| draw(stream, width)).collect(),
        // A few hits: most groups have none.
        (0..slots).map(|_| draw(stream, width) | if stream.next_u32().is_multiple_of(40) { 0 } else { top }).collect(),
        vec![top; slots],
        vec![top - 1; slots],
        vec![2 * top - 1; slots],
        vec![0; slots],
    ];
    for _ in 0..3.min(slots) {
        let mut one = vec![2 * top - 1; slots];
        one[stream.next_u64() as usize % slots] = 0;
        all.push(one);
    }
    all
}

#[test]
fn candidates_are_those_of_plain_arithmetic_and_the_cap_is_exact() {
    let mut stream = Stream::public([31; 32]);
    for width in [8, 16, 20] {
        for lanes in shapes() {
            for values in galleries(width, lanes.iter().sum(), &mut stream) {
                let hits = match plain(width, &values, &lanes, usize::MAX) {
                    Candidates::Groups(groups) => groups.len(),
                    Candidates::TooMany => unreachable!("there is no such number"),
                };
                for most in [0, 1, hits.saturating_sub(1), hits, hits + 1, lanes.len(), usize::MAX] {
                    let opened = preselection_circuit(width, &lanes, most).evaluate_in_clear(&values);
                    let read = read_candidates(lanes.len(), most, &opened).unwrap();
                    assert_eq!(read, plain(width, &values, &lanes, most), "{lanes:?}, most {most}, {hits} groups");
                }
            }
        }
    }
}

#[test]
fn three_holders_open_the_flag_alone_beyond_the_cap() {
    let mut stream = Stream::public([32; 32]);
    for (turn, lanes) in [vec![3usize, 70, 1, 8], vec![1], vec![64; 5], vec![0, 9, 0, 4]].into_iter().enumerate() {
        for values in galleries(16, lanes.iter().sum(), &mut stream) {
            for most in [1, 2, 5] {
                let circuit = preselection_circuit(16, &lanes, most);
                let opened = open_by_three(circuit, &values, turn as u8);
                let read = read_candidates(lanes.len(), most, &opened).unwrap();
                assert_eq!(read, plain(16, &values, &lanes, most));
                // Which groups they are is opened only if they are few.
                assert_eq!(opened.len(), if read == Candidates::TooMany { 1 } else { 2 });
            }
        }
    }
}

#[test]
fn gates_and_rounds_are_as_documented() {
    let lanes = [8192usize; 20];
    let circuit = preselection_circuit(16, &lanes, 8);
    let slots = 20 * 8192;
    let gates = circuit.and_bits();
    assert!(gates >= 40 * slots - 20 && gates <= 40 * slots + 100, "{gates}");
    assert!(circuit.and_depth() <= 5 + 13 + 6, "{}", circuit.and_depth());
}

#[test]
fn what_is_no_answer_is_refused() {
    let bit = |value| vec![Lanes::from_fn(1, |_| value)];
    let groups = |ones: usize| vec![Lanes::from_fn(5, |group| group < ones)];
    assert_eq!(read_candidates(5, 2, &[bit(true)]), Ok(Candidates::TooMany));
    assert_eq!(read_candidates(5, 2, &[bit(false), groups(2)]), Ok(Candidates::Groups(vec![0, 1])));
    // A flag that a deviating holder has spoilt does not let a longer list through.
    for opened in [
        vec![],
        vec![vec![]],
        vec![bit(false)],
        vec![bit(true), groups(1)],
        vec![bit(false), groups(3)],
        vec![bit(false), bit(false)],
        vec![groups(0), groups(0)],
        vec![bit(false), groups(1), groups(1)],
    ] {
        assert_eq!(read_candidates(5, 2, &opened), Err(ProtocolError::NotAnAnswer), "{opened:?}");
    }
}
