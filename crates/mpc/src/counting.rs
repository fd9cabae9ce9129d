//! Folding many lanes into one: OR, "is any of them 1" in few rounds, and "more than `cap` of them".

use crate::circuit::{CircuitBuilder, Wire};
use crate::lanes::Lanes;

/// The rows of a wire that holds `rows` rows of `columns` lanes joined into one, by halves.
fn join_rows(
    builder: &mut CircuitBuilder,
    mut wire: Wire,
    mut rows: usize,
    columns: usize,
    join: impl Fn(&mut CircuitBuilder, Wire, Wire) -> Wire,
) -> Wire {
    while rows > 1 {
        let (half, odd) = (rows / 2, rows % 2);
        let low = builder.slice(wire, 0, half * columns);
        let high = builder.slice(wire, half * columns, half * columns);
        let joined = join(builder, low, high);
        wire = if odd == 1 {
            let rest = builder.slice(wire, 2 * half * columns, columns);
            builder.concat(&[joined, rest])
        } else {
            joined
        };
        rows = half + odd;
    }
    wire
}

/// OR of the rows of a wire that holds `rows` rows of `columns` lanes: (rows−1)·columns ANDs, ⌈log₂ rows⌉ rounds.
pub(crate) fn any_of_rows(builder: &mut CircuitBuilder, wire: Wire, rows: usize, columns: usize) -> Wire {
    join_rows(builder, wire, rows, columns, CircuitBuilder::or)
}

/// OR of wires; `None` of none. The two that are known first are joined first, so that late ones wait for nothing.
pub(crate) fn any_of(builder: &mut CircuitBuilder, mut wires: Vec<Wire>) -> Option<Wire> {
    while wires.len() > 1 {
        wires.sort_by_key(|&wire| std::cmp::Reverse(builder.depth(wire)));
        let (a, b) = (wires.pop()?, wires.pop()?);
        wires.push(builder.or(a, b));
    }
    wires.pop()
}

/// AND gates per holder that take as long as one more round: a third of a millisecond between services, at about one
/// nanosecond a gate on a core that three holders share.
pub(crate) const GATES_PER_ROUND: usize = 400_000;

/// Bits that stand for one by [`witness_of_rows`].
pub(crate) const WITNESS: usize = 64;

/// Of `rows` rows of `columns` lanes: [`WITNESS`] rows of `columns` lanes. In a column whose lanes are all 0 they are 0; in
/// any other they are uniform and independent, so that they tell nothing but that, and all 0 with probability 2^−64.
///
/// A tree of ORs takes ⌈log₂ rows⌉ rounds. Here every lane is multiplied with random bits that no holder knows, and
/// sums of products are linear: one round. That is 64 gates per lane, so the tree comes first while lanes are many.
pub(crate) fn witness_of_rows(builder: &mut CircuitBuilder, mut wire: Wire, mut rows: usize, columns: usize) -> Wire {
    while rows > 1 && (WITNESS - 1) * rows * columns > 2 * GATES_PER_ROUND {
        let half = rows.div_ceil(2);
        let low = builder.slice(wire, 0, half * columns);
        let high = builder.slice(wire, half * columns, half * columns);
        wire = builder.or(low, high);
        rows = half;
    }
    // With an odd number n of rows, row i of all 64 copies, at n·b + i for b = 0..64, falls once into each of the
    // 64 classes of places modulo 64. So each class has its own random multiple of every row.
    rows |= 1;
    let padded = builder.slice(wire, 0, rows * columns);
    let copies = builder.concat(&[padded; WITNESS]);
    let random = builder.random(WITNESS * rows * columns);
    let products = builder.and(copies, random);
    sum_of_rows(builder, products, rows, WITNESS * columns)
}

/// The sum modulo 2 of `rows` rows of `columns` lanes.
pub(crate) fn sum_of_rows(builder: &mut CircuitBuilder, wire: Wire, rows: usize, columns: usize) -> Wire {
    join_rows(builder, wire, rows, columns, CircuitBuilder::xor)
}

/// One lane: whether more than `cap` lanes are 1.
///
/// The bits of the count come from full adders on thirds of the lanes. A full adder's sum is linear, so all of the
/// carries out of one weight are one round: n lanes take about n ANDs and log₂ n + 1 rounds, comparison included
/// (it goes from the lowest bit up, in step with the bits of the count as they become known).
pub(crate) fn more_than(builder: &mut CircuitBuilder, wire: Wire, cap: usize) -> Wire {
    let zero = builder.constant(Lanes::zeros(1));
    if builder.lanes(wire) <= cap {
        return zero;
    }
    let mut exceeds = zero;
    let mut weight = wire;
    let mut place = 0;
    loop {
        let (bit, carries) = parity_and_carries(builder, weight);
        exceeds = match (cap >> place & 1 == 1, place) {
            (true, 0) => zero,
            (false, 0) => bit,
            (true, _) => builder.and(bit, exceeds),
            (false, _) => builder.or(bit, exceeds),
        };
        place += 1;
        match carries {
            Some(carries) => weight = carries,
            None => break,
        }
    }
    exceeds
}

/// The parity of all lanes, and ⌊n/2⌋ lanes whose count is half of the rest.
fn parity_and_carries(builder: &mut CircuitBuilder, mut wire: Wire) -> (Wire, Option<Wire>) {
    let mut carries = Vec::new();
    loop {
        let lanes = builder.lanes(wire);
        if lanes <= 1 {
            break;
        }
        if lanes == 2 {
            let (a, b) = (builder.slice(wire, 0, 1), builder.slice(wire, 1, 1));
            carries.push(builder.and(a, b));
            wire = builder.xor(a, b);
            continue;
        }
        let third = lanes / 3;
        let a = builder.slice(wire, 0, third);
        let b = builder.slice(wire, third, third);
        let c = builder.slice(wire, 2 * third, third);
        let rest = builder.slice(wire, 3 * third, lanes - 3 * third);
        // maj(a, b, c) = (a ⊕ c)(b ⊕ c) ⊕ c.
        let (ac, bc) = (builder.xor(a, c), builder.xor(b, c));
        let both = builder.and(ac, bc);
        carries.push(builder.xor(both, c));
        let sum = builder.xor(ac, b);
        wire = if lanes.is_multiple_of(3) { sum } else { builder.concat(&[sum, rest]) };
    }
    let carries = if carries.is_empty() { None } else { Some(builder.concat(&carries)) };
    (wire, carries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use veilmatch_secret::Stream;

    /// The oracle: every lane is an input of one bit.
    fn open(lanes: usize, bits: &[u64], build: impl Fn(&mut CircuitBuilder, Wire) -> Wire) -> (Lanes, usize, usize) {
        let mut builder = CircuitBuilder::new();
        let input = builder.input(1, lanes);
        let wire = builder.xor(input.first[0], input.second[0]);
        let result = build(&mut builder, wire);
        let circuit = builder.finish(vec![vec![result]]);
        (circuit.evaluate_in_clear(bits)[0][0].clone(), circuit.and_bits(), circuit.and_depth())
    }

    #[test]
    fn counts_are_compared_exactly() {
        let mut stream = Stream::public([5; 32]);
        for lanes in (1..40).chain([63, 64, 65, 100, 129, 200, 300]) {
            for cap in (0..10usize).chain([16, 31, 64, 128, 299, 300, 65535]) {
                for ones in [0, 1, cap.saturating_sub(1), cap, cap + 1, cap + 2, lanes] {
                    let ones = ones.min(lanes);
                    let mut bits: Vec<u64> = (0..lanes).map(|lane| u64::from(lane < ones)).collect();
                    for lane in (1..lanes).rev() {
                        bits.swap(lane, stream.next_u64() as usize % (lane + 1));
                    }
                    let (result, gates, depth) = open(lanes, &bits, |builder, wire| more_than(builder, wire, cap));
                    assert_eq!(result.get(0), ones > cap, "{ones} of {lanes}, cap {cap}");
                    assert!(gates <= lanes + 2 * 16 && depth <= lanes.ilog2() as usize + 1);
                }
            }
        }
    }

    #[test]
    fn a_witness_is_zero_for_zeros_and_like_coins_otherwise() {
        let mut stream = Stream::public([7; 32]);
        for (rows, columns) in [(1, 1), (2, 1), (3, 70), (7, 3), (26, 2), (64, 1), (1000, 1), (20_000, 1), (400, 64)] {
            let mut ones = 0;
            for turn in 0..4 {
                // One lane in the first column of a turn, some lanes in every second one, none in the others.
                let hit = stream.next_u64() as usize % rows;
                let bit = |row: usize, column: usize| match column {
                    0 => turn > 0 && row == hit,
                    _ => column % 2 == 1 && (row * 7 + column).is_multiple_of(3),
                };
                let bits: Vec<u64> = (0..rows * columns).map(|i| u64::from(bit(i / columns, i % columns))).collect();
                let (witness, _, _) = open(bits.len(), &bits, |b, wire| witness_of_rows(b, wire, rows, columns));
                assert_eq!(witness.len(), WITNESS * columns);
                for column in 0..columns {
                    let seen = (0..WITNESS).filter(|row| witness.get(row * columns + column)).count();
                    let expected = (0..rows).any(|row| bit(row, column));
                    assert_eq!(seen > 0, expected, "column {column} of {columns}, {rows} rows");
                    ones += if expected { seen } else { 0 };
                }
                let hits = (0..columns).filter(|&c| (0..rows).any(|row| bit(row, c))).count();
                assert!(crate::testing::like_coins(ones, hits * WITNESS) || hits == 0, "{ones} of {hits}");
                ones = 0;
            }
        }
    }

    /// Each lane alone must reach all 64 bits: for every number of rows, also those that 64 has divisors with.
    #[test]
    fn every_row_reaches_every_bit_of_a_witness() {
        for rows in [1, 2, 4, 5, 64, 65, 96, 128] {
            for hit in 0..rows {
                let rows = rows | 1;
                let classes: std::collections::BTreeSet<usize> =
                    (0..WITNESS).map(|copy| (copy * rows + hit) % WITNESS).collect();
                assert_eq!(classes.len(), WITNESS);
            }
        }
    }

    #[test]
    fn rows_fold_to_their_or() {
        for (rows, columns) in [(1, 5), (2, 1), (3, 70), (7, 3), (9, 64), (26, 2)] {
            for hit in 0..rows * columns {
                let bits: Vec<u64> = (0..rows * columns).map(|lane| u64::from(lane == hit)).collect();
                let expected = Lanes::from_fn(columns, |column| column == hit % columns);
                let (any, gates, depth) = open(bits.len(), &bits, |b, wire| any_of_rows(b, wire, rows, columns));
                assert_eq!(any, expected);
                assert_eq!(gates, (rows - 1) * columns);
                assert_eq!(depth, rows.next_power_of_two().ilog2() as usize);
            }
        }
    }
}
