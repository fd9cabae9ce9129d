//! Folding many lanes into one: OR, and "more than `cap` of them".

use crate::circuit::{CircuitBuilder, Wire};
use crate::lanes::Lanes;

/// OR of the rows of a wire that holds `rows` rows of `columns` lanes: (rows−1)·columns ANDs, ⌈log₂ rows⌉ rounds.
pub(crate) fn any_of_rows(builder: &mut CircuitBuilder, mut wire: Wire, mut rows: usize, columns: usize) -> Wire {
    while rows > 1 {
        let (half, odd) = (rows / 2, rows % 2);
        let low = builder.slice(wire, 0, half * columns);
        let high = builder.slice(wire, half * columns, half * columns);
        let joined = builder.or(low, high);
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
