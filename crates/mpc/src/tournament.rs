//! The highest of many numbers and its place, by a tournament on shares.
//!
//! Numbers that are below the threshold were set to zero and their hit bit is the top bit, so no difference is formed
//! that could wrap and a slot that does not count can never win. If no slot counts, every comparison is "not greater"
//! and all bits of the index stay 0: nothing about the scores leaks with "nobody".
//!
//! Neighbours meet (lanes 2i and 2i+1), so after every round the places stand for blocks of lanes in their order, and
//! "the upper one wins only if it is greater" gives a tie to the lowest lane of all. (With the lower half against the
//! upper one, ties would go to the lane whose reversed index is lowest.)

use crate::addition::greater;
use crate::circuit::{CircuitBuilder, Wire};

/// The winner's bits and its lane in binary, lowest bit first. Ties go to the lowest lane.
/// `values` are bit planes, lowest first, all of the same number of lanes. Each of the ⌈log₂ n⌉ rounds of the
/// tournament takes ⌈log₂ b⌉ + 2 rounds of messages for numbers of b bits.
pub(crate) fn highest(builder: &mut CircuitBuilder, mut values: Vec<Wire>) -> (Vec<Wire>, Vec<Wire>) {
    let mut index: Vec<Wire> = Vec::new();
    while values.first().is_some_and(|&wire| builder.lanes(wire) > 1) {
        let (even, odd): (Vec<Wire>, Vec<Wire>) = values.iter().map(|&v| builder.halves(v)).unzip();
        // The last of an odd number of lanes has no opponent: it meets 0, which is not greater.
        let Some(wins) = greater(builder, &odd, &even) else { break };
        values = even.into_iter().zip(odd).map(|(low, high)| choose(builder, wins, low, high)).collect();
        let halves: Vec<(Wire, Wire)> = index.into_iter().map(|bit| builder.halves(bit)).collect();
        index = halves.into_iter().map(|(low, high)| choose(builder, wins, low, high)).collect();
        index.push(wins);
    }
    (values, index)
}

/// The upper one where it wins, the lower one elsewhere.
fn choose(builder: &mut CircuitBuilder, wins: Wire, low: Wire, high: Wire) -> Wire {
    let difference = builder.xor(low, high);
    let change = builder.and(wins, difference);
    builder.xor(low, change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addition::sum_bits;
    use veilmatch_secret::Stream;

    /// The highest number and its lane, without a threshold.
    fn winner(width: u32, values: &[u64]) -> (u64, usize) {
        let mut builder = CircuitBuilder::new();
        let input = builder.input(width, values.len());
        let bits = sum_bits(&mut builder, &input);
        let (winner, index) = highest(&mut builder, bits);
        assert_eq!(index.len(), values.len().next_power_of_two().ilog2() as usize);
        let stage = winner.iter().chain(&index).copied().collect();
        let opened = builder.finish(vec![stage]).evaluate_in_clear(values);
        let (winner, index) = opened[0].split_at(winner.len());
        let number = |bits: &[crate::Lanes]| bits.iter().rev().fold(0, |n, bit| n << 1 | u64::from(bit.get(0)));
        (number(winner), number(index) as usize)
    }

    #[test]
    fn the_highest_wins_and_the_lowest_of_equals() {
        let mut stream = Stream::public([6; 32]);
        for lanes in 1..140 {
            for width in [1, 2, 5, 16] {
                let values: Vec<u64> = (0..lanes).map(|_| stream.next_u64() & ((1 << width) - 1)).collect();
                let highest = *values.iter().max().unwrap();
                let place = values.iter().position(|&v| v == highest).unwrap();
                assert_eq!(winner(width, &values), (highest, place), "{lanes} lanes of {width} bits");
            }
        }
    }

    #[test]
    fn of_equals_the_lowest_lane_wins_wherever_they_are() {
        for lanes in [2, 3, 8, 13, 16] {
            for a in 0..lanes {
                for b in a..lanes {
                    let mut values = vec![3; lanes];
                    values[a] = 9;
                    values[b] = 9;
                    assert_eq!(winner(4, &values), (9, a));
                }
                assert_eq!(winner(4, &vec![0; lanes]), (0, 0));
            }
        }
    }
}
