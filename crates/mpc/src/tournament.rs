//! The highest of many numbers and its place, by a tournament on shares.
//!
//! A round of the tournament: m neighbours meet, everybody against everybody at once, and the one that beats all others
//! goes on. It takes ⌈log₂ b⌉ + 1 rounds of messages for the comparisons of b bits, ⌈log₂(m−1)⌉ for "beats all", and one
//! to take the winner over: little more than for two that meet, so a large m saves rounds of messages; but
//! comparisons grow with m. How many meet is chosen for every round of the tournament, by [`plan`], from the number of
//! those that are left: pairs while they are many, dozens at the end.
//!
//! Neighbours meet (lanes m·i .. m·i+m−1), and of two the upper one wins only if it is greater, so a tie goes to the
//! lowest lane of all. (With lanes that lie far apart, ties would go to another lane than the lowest.)
//!
//! Numbers have their hit bit on top: it is set if the score is at or above the threshold and the slot counts. Below it
//! the order goes on, so a slot that does not count could be the highest if no slot counts. Therefore the index is
//! multiplied by "somebody counts", which is known to the last round of the tournament before its winner is: nothing
//! about the scores leaks with "nobody". No difference of numbers is formed, so none can wrap.

use std::collections::BTreeMap;

use crate::addition::greater;
use crate::circuit::{CircuitBuilder, Wire};
use crate::counting::{GATES_PER_ROUND, any_of_rows, sum_of_rows};

/// Most that meet at once; more never pays, and circuits grow with the square.
const MOST: usize = 128;

/// How many meet in each round of the tournament, for `lanes` numbers of `bits` bits: what costs least by gates and
/// rounds of messages. Powers of two.
fn plan(lanes: usize, bits: usize) -> Vec<usize> {
    let mut known = BTreeMap::new();
    least_cost(lanes, bits, &mut known);
    let mut left = lanes;
    std::iter::from_fn(|| {
        let &(_, size) = known.get(&left)?;
        left = left.div_ceil(size);
        Some(size)
    })
    .collect()
}

/// The least cost of finding the highest of `lanes` numbers, in gates. `known` holds it, and how many meet first, by the
/// number of those that are left.
fn least_cost(lanes: usize, bits: usize, known: &mut BTreeMap<usize, (u64, usize)>) -> u64 {
    if lanes <= 1 {
        return 0;
    }
    if let Some((cost, _)) = known.get(&lanes) {
        return *cost;
    }
    let mut least = (u64::MAX, 2);
    let mut size = 2;
    loop {
        let (groups, ends) = (lanes.div_ceil(size), size >= lanes);
        let others = (size.min(lanes) - 1) as u64;
        let rounds = 2 + bits.next_power_of_two().trailing_zeros() + others.next_power_of_two().trailing_zeros();
        // Of a comparison, and of taking over a number and about as many bits of its place.
        let comparison = (3 * bits) as u64;
        let taken = if ends { bits } else { 2 * bits } as u64;
        let per_group = others * (others + 1) / 2 * comparison + others * (others.saturating_sub(1) + taken);
        let rest = if ends { 0 } else { least_cost(groups, bits, known) };
        let cost = groups as u64 * per_group + u64::from(rounds) * GATES_PER_ROUND as u64 + rest;
        least = least.min((cost, size));
        if ends || size >= MOST {
            break;
        }
        size *= 2;
    }
    known.insert(lanes, least);
    least.0
}

/// Whether somebody counts, and the winner's lane in binary, lowest bit first: all 0 if nobody counts. Ties go to the lowest
/// lane. `values` are bit planes, lowest first, all of the same number of lanes; the last one is the hit bit.
/// `None` for numbers of no bits.
pub(crate) fn highest(builder: &mut CircuitBuilder, values: Vec<Wire>) -> Option<(Wire, Vec<Wire>)> {
    let lanes = builder.lanes(*values.last()?);
    let plan = plan(lanes, values.len());
    highest_by(builder, values, &plan)
}

fn highest_by(builder: &mut CircuitBuilder, mut values: Vec<Wire>, plan: &[usize]) -> Option<(Wire, Vec<Wire>)> {
    let mut index: Vec<Wire> = Vec::new();
    let mut anybody = *values.last()?;
    for (level, &size) in plan.iter().enumerate() {
        let lanes = builder.lanes(*values.first()?);
        let groups = lanes.div_ceil(size);
        let all: Vec<Wire> = values.iter().chain(&index).map(|&wire| apart(builder, wire, size, groups)).collect();
        let (met, places) = all.split_at(values.len());
        let hits = *met.last()?;
        let counts = (level + 1 == plan.len()).then(|| any_of_rows(builder, hits, size, groups));
        let wins = winners(builder, met, size, groups, counts)?;
        let place = places_of(builder, wins, size, groups);
        index = places.iter().map(|&bit| taken(builder, wins, bit, groups, counts)).collect();
        index.extend(place);
        match counts {
            Some(counts) => anybody = counts,
            None => values = met.iter().map(|&bit| taken(builder, wins, bit, groups, None)).collect(),
        }
    }
    Some((anybody, index))
}

/// Lanes c, m+c, 2m+c, … one behind the other, for c = 0..m; lanes that are missing are 0, which beats nobody.
fn apart(builder: &mut CircuitBuilder, wire: Wire, size: usize, groups: usize) -> Wire {
    let mut wire = builder.slice(wire, 0, size * groups);
    // Taking even lanes before odd ones moves the lowest bit of a lane's number to its top.
    for _ in 0..size.trailing_zeros() {
        let (even, odd) = builder.halves(wire);
        wire = builder.concat(&[even, odd]);
    }
    wire
}

/// For the numbers 1..m of every group whether it beats all others of its group, one number behind the other; and
/// whether somebody counts, if that is asked for. If it is none of them it is number 0.
fn winners(
    builder: &mut CircuitBuilder,
    met: &[Wire],
    size: usize,
    groups: usize,
    counts: Option<Wire>,
) -> Option<Wire> {
    // Everybody against the one that is s places below it, for all s: one long comparison.
    let (mut upper, mut lower) = (Vec::new(), Vec::new());
    for &plane in met {
        let above: Vec<Wire> = (1..size).map(|s| builder.slice(plane, s * groups, (size - s) * groups)).collect();
        let below: Vec<Wire> = (1..size).map(|s| builder.slice(plane, 0, (size - s) * groups)).collect();
        upper.push(builder.concat(&above));
        lower.push(builder.concat(&below));
    }
    let beats = greater(builder, &upper, &lower)?;
    let mut distance = Vec::with_capacity(size);
    let mut from = 0;
    for s in 1..size {
        distance.push(builder.slice(beats, from, (size - s) * groups));
        from += (size - s) * groups;
    }
    // Number c against c−s modulo m: if that is below it, "greater"; if it is above it, by m−s, "not beaten by it".
    let mut terms: Vec<Wire> = Vec::with_capacity(size);
    for s in 1..size {
        let (above, below) = (*distance.get(size - s - 1)?, *distance.get(s - 1)?);
        let unbeaten = builder.not(above);
        let both = builder.concat(&[unbeaten, below]);
        terms.push(builder.slice(both, groups, (size - 1) * groups));
    }
    terms.extend(counts.map(|counts| builder.concat(&vec![counts; size - 1])));
    while terms.len() > 1 {
        terms = terms
            .chunks(2)
            .filter_map(|pair| match *pair {
                [a, b] => Some(builder.and(a, b)),
                [last] => Some(last),
                _ => None,
            })
            .collect();
    }
    terms.first().copied()
}

/// The bits of the winner's number in its group, lowest first: linear, since at most one of `wins` is 1.
fn places_of(builder: &mut CircuitBuilder, wins: Wire, size: usize, groups: usize) -> Vec<Wire> {
    (0..size.trailing_zeros())
        .map(|bit| {
            let with_bit: Vec<Wire> = (1..size)
                .filter(|number| number >> bit & 1 == 1)
                .map(|number| builder.slice(wins, (number - 1) * groups, groups))
                .collect();
            let rows = with_bit.len();
            let joined = builder.concat(&with_bit);
            sum_of_rows(builder, joined, rows, groups)
        })
        .collect()
}

/// The winner's bit of a plane; 0 if somebody should count and nobody does.
fn taken(builder: &mut CircuitBuilder, wins: Wire, plane: Wire, groups: usize, counts: Option<Wire>) -> Wire {
    let rows = builder.lanes(plane) / groups.max(1) - 1;
    let first = builder.slice(plane, 0, groups);
    let others = builder.slice(plane, groups, rows * groups);
    let firsts = builder.concat(&vec![first; rows]);
    let difference = builder.xor(others, firsts);
    let change = builder.and(wins, difference);
    let change = sum_of_rows(builder, change, rows, groups);
    let base = counts.map_or(first, |counts| builder.and(first, counts));
    builder.xor(base, change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addition::sum_bits;
    use veilmatch_secret::Stream;

    /// Whether the top bit of the highest number is set, and its lane.
    fn winner(width: u32, values: &[u64], plan: &[usize]) -> (bool, usize) {
        let mut builder = CircuitBuilder::new();
        let input = builder.input(width, values.len());
        let bits = sum_bits(&mut builder, &input);
        let (counts, index) = highest_by(&mut builder, bits, plan).unwrap();
        assert_eq!(index.len(), plan.iter().map(|size| size.trailing_zeros() as usize).sum::<usize>());
        let stage = std::iter::once(counts).chain(index).collect();
        let opened = builder.finish(vec![stage]).evaluate_in_clear(values);
        let (counts, index) = opened[0].split_first().unwrap();
        (counts.get(0), index.iter().rev().fold(0, |n, bit| n << 1 | usize::from(bit.get(0))))
    }

    fn expected(width: u32, values: &[u64]) -> (bool, usize) {
        let highest = *values.iter().max().unwrap();
        let counts = highest >> (width - 1) & 1 == 1;
        (counts, if counts { values.iter().position(|&v| v == highest).unwrap() } else { 0 })
    }

    /// Plans by hand for this many lanes, and the chosen one.
    fn plans(lanes: usize) -> Vec<Vec<usize>> {
        let levels = |size: usize| {
            let mut left = lanes;
            std::iter::from_fn(|| {
                (left > 1).then(|| {
                    left = left.div_ceil(size);
                    size
                })
            })
            .collect::<Vec<_>>()
        };
        let mut mixed = levels(2);
        if mixed.len() >= 3 {
            mixed.truncate(mixed.len() - 2);
            mixed.push(4);
        }
        vec![plan(lanes, 16), levels(2), levels(4), levels(8), mixed]
    }

    #[test]
    fn the_highest_wins_and_the_lowest_of_equals() {
        let mut stream = Stream::public([6; 32]);
        for lanes in (1..70).chain([100, 127, 128, 129, 140]) {
            for width in [1, 2, 5, 16] {
                let values: Vec<u64> = (0..lanes).map(|_| stream.next_u64() & ((1 << width) - 1)).collect();
                for plan in plans(lanes) {
                    assert_eq!(winner(width, &values, &plan), expected(width, &values), "{lanes} by {plan:?}");
                }
            }
        }
    }

    #[test]
    fn of_equals_the_lowest_lane_wins_wherever_they_are() {
        for lanes in [2, 3, 8, 13, 16] {
            for plan in plans(lanes) {
                for a in 0..lanes {
                    for b in a..lanes {
                        let mut values = vec![3; lanes];
                        values[a] = 9;
                        values[b] = 9;
                        assert_eq!(winner(4, &values, &plan), (true, a), "{plan:?}");
                    }
                }
                assert_eq!(winner(4, &vec![0; lanes], &plan), (false, 0));
                assert_eq!(winner(4, &vec![15; lanes], &plan), (true, 0));
            }
        }
    }

    /// The highest of those that do not count is nobody's business.
    #[test]
    fn nobody_shows_no_place() {
        for lanes in [1, 2, 3, 9, 33, 70] {
            for place in 0..lanes {
                let mut values = vec![2; lanes];
                values[place] = 7;
                for plan in plans(lanes) {
                    assert_eq!(winner(4, &values, &plan), (false, 0), "{plan:?}");
                }
            }
        }
    }

    #[test]
    fn few_meet_while_they_are_many_and_many_once_they_are_few() {
        for lanes in [0usize, 1, 2, 3, 64, 65, 1_000, 20_000, 1_000_000] {
            let plan = plan(lanes, 16);
            assert!(plan.iter().all(|size| size.is_power_of_two()));
            assert_eq!(plan.iter().fold(lanes, |left, size| left.div_ceil(*size)), lanes.min(1), "{plan:?}");
            assert!(plan.is_sorted(), "{plan:?}");
        }
        assert_eq!(plan(1_000_000, 16)[0], 2);
    }
}
