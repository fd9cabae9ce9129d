//! The highest of many numbers and its place, by a tournament on shares.
//!
//! Numbers that are below the threshold were set to zero and their hit bit is the top bit, so no difference is formed
//! that could wrap and a slot that does not count can never win. If no slot counts, every comparison is "not greater"
//! and all bits of the index stay 0: nothing about the scores leaks with "nobody".

use crate::addition::greater;
use crate::circuit::{CircuitBuilder, Wire};

/// The winner's bits and its lane in binary, lowest bit first. Ties go to the lower lane.
/// `values` are bit planes, lowest first, all of the same number of lanes.
pub(crate) fn highest(builder: &mut CircuitBuilder, mut values: Vec<Wire>) -> (Vec<Wire>, Vec<Wire>) {
    let mut index: Vec<Wire> = Vec::new();
    loop {
        let lanes = values.first().map_or(0, |&wire| builder.lanes(wire));
        if lanes <= 1 {
            // The last round decided the lowest bit.
            index.reverse();
            return (values, index);
        }
        let half = lanes.next_power_of_two() / 2;
        let paired = lanes - half; // lanes of the lower half that have an opponent
        let low: Vec<Wire> = values.iter().map(|&v| builder.slice(v, 0, paired)).collect();
        let high: Vec<Wire> = values.iter().map(|&v| builder.slice(v, half, paired)).collect();
        let Some(wins) = greater(builder, &high, &low) else { return (values, index) };
        values = values.iter().map(|&v| choose(builder, v, wins, half, paired)).collect();
        index = index.iter().map(|&v| choose(builder, v, wins, half, paired)).collect();
        let bit = builder.slice(wins, 0, half); // those without an opponent stay where they are: 0
        index.push(bit);
    }
}

/// Lane i of the lower half, or of the upper one where it wins; lanes without an opponent are kept.
fn choose(builder: &mut CircuitBuilder, value: Wire, wins: Wire, half: usize, paired: usize) -> Wire {
    let low = builder.slice(value, 0, paired);
    let high = builder.slice(value, half, paired);
    let difference = builder.xor(low, high);
    let change = builder.and(wins, difference);
    let whole = builder.slice(value, 0, half);
    builder.xor(whole, change)
}
