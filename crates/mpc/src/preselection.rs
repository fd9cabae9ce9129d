//! Which groups hold a candidate: the coarse stage of a preselection (DESIGN 6).
//!
//! Lanes are the live slots, group after group, with the shares of score − t₁ on the first m dimensions. What is opened is
//! "too many" first and, only if that bit is 0, one bit per group: whether some lane of it is at or above t₁. A group is
//! what the matcher reads and what the scan check covers, so candidates slot by slot would save nothing and tell more.
//!
//! Cost: the sign of every lane (39 AND gates at w = 16), a tree of ORs within each group (one gate per lane, ⌈log₂⌉ of
//! the largest group's lanes rounds) and the count of groups (about one gate and log₂ rounds of them); then two rounds
//! to open. The bits of a tree are needed one by one for the count, so multiples with random bits, which are a round for
//! a whole tree elsewhere (`counting`), do not help.

use crate::addition::sign_of_sum;
use crate::circuit::{Circuit, CircuitBuilder, Wire};
use crate::counting::more_than;
use crate::error::ProtocolError;
use crate::lanes::Lanes;

/// What the coarse stage opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Candidates {
    /// Places of the groups with a candidate, ascending.
    Groups(Vec<usize>),
    /// More groups than the cap have one.
    TooMany,
}

/// The circuit of the coarse stage. Inputs: score − t₁ modulo 2^width, one lane per live slot; `lanes` counts those of each
/// group in order. Two stages: "more than `most` groups", then one bit per group.
#[must_use]
pub fn preselection_circuit(width: u32, lanes: &[usize], most: usize) -> Circuit {
    let mut builder = CircuitBuilder::new();
    let input = builder.input(width, lanes.iter().sum());
    let hit = match sign_of_sum(&mut builder, &input) {
        Some(sign) => builder.not(sign),
        None => builder.constant(Lanes::zeros(lanes.iter().sum())),
    };
    let groups = any_of_each(&mut builder, hit, lanes);
    let too_many = more_than(&mut builder, groups, most);
    builder.finish(vec![vec![too_many], vec![groups]])
}

/// One lane per group: the OR of its lanes, which stand group after group. All groups shrink by half in one round.
fn any_of_each(builder: &mut CircuitBuilder, mut wire: Wire, lanes: &[usize]) -> Wire {
    let mut lanes = lanes.to_vec();
    while lanes.iter().any(|&of_group| of_group > 1) {
        let (mut low, mut high) = (Vec::new(), Vec::new());
        let mut from = 0;
        for of_group in &mut lanes {
            // The middle one of an odd number meets a lane of 0 behind the end.
            let half = of_group.div_ceil(2);
            low.push(builder.slice(wire, from, half));
            let second = builder.slice(wire, from + half, *of_group - half);
            high.push(builder.slice(second, 0, half));
            from += *of_group;
            *of_group = half;
        }
        let (low, high) = (builder.concat(&low), builder.concat(&high));
        wire = builder.or(low, high);
    }
    // A group without a lane has no candidate; `slice` of nothing pads with 0.
    if lanes.iter().all(|&of_group| of_group == 1) {
        return wire;
    }
    let mut from = 0;
    let padded: Vec<Wire> = lanes
        .iter()
        .map(|&of_group| {
            let one = builder.slice(wire, from, of_group);
            from += of_group;
            builder.slice(one, 0, 1)
        })
        .collect();
    builder.concat(&padded)
}

/// The candidates in what was opened.
///
/// # Errors
/// [`ProtocolError::NotAnAnswer`] if it does not have the circuit's shape, or names more groups than the cap: a holder
/// that deviates can spoil the flag, as it can that of a list (see `decision`).
pub fn read_candidates(groups: usize, most: usize, opened: &[Vec<Lanes>]) -> Result<Candidates, ProtocolError> {
    let flag = |stage: &[Lanes]| match stage {
        [bit] if bit.len() == 1 => Ok(bit.get(0)),
        _ => Err(ProtocolError::NotAnAnswer),
    };
    match opened {
        [too_many] if flag(too_many)? => Ok(Candidates::TooMany),
        [too_many, bits] if !flag(too_many)? => match bits.as_slice() {
            [bits] if bits.len() == groups && bits.count_ones() <= most => {
                Ok(Candidates::Groups(bits.iter_ones().collect()))
            }
            _ => Err(ProtocolError::NotAnAnswer),
        },
        _ => Err(ProtocolError::NotAnAnswer),
    }
}

#[cfg(test)]
mod tests;
