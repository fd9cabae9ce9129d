//! Adding two bit-sliced numbers: the sign of the sum alone, or all of its bits; comparing two numbers.
//!
//! Both are carry trees: position j generates a carry (g) or propagates one (p), and two neighbouring ranges combine
//! to (g_hi ⊕ p_hi·g_lo, p_hi·p_lo). With n positions one carry takes ⌈log₂ n⌉ rounds.

use crate::circuit::{CircuitBuilder, Operands, Wire};

#[derive(Clone, Copy)]
struct Range {
    generate: Wire,
    propagate: Wire,
}

/// The carry out of all ranges, lowest first: 2(n−1) − ⌈log₂ n⌉ ANDs (the lowest range is never asked whether it
/// propagates).
fn carry_out(builder: &mut CircuitBuilder, mut ranges: Vec<Range>) -> Option<Wire> {
    while ranges.len() > 1 {
        ranges = ranges
            .chunks(2)
            .enumerate()
            .filter_map(|(position, pair)| match *pair {
                [low, high] => Some(joined(builder, low, high, position == 0)),
                [last] => Some(last),
                _ => None,
            })
            .collect();
    }
    ranges.first().map(|range| range.generate)
}

fn joined(builder: &mut CircuitBuilder, low: Range, high: Range, lowest: bool) -> Range {
    let carried = builder.and(high.propagate, low.generate);
    let generate = builder.xor(high.generate, carried);
    let propagate = if lowest { low.propagate } else { builder.and(high.propagate, low.propagate) };
    Range { generate, propagate }
}

fn positions(builder: &mut CircuitBuilder, sum: &Operands, count: usize) -> Vec<Range> {
    sum.first
        .iter()
        .zip(&sum.second)
        .take(count)
        .map(|(&a, &b)| Range { generate: builder.and(a, b), propagate: builder.xor(a, b) })
        .collect()
}

/// The carry of first + second into bit `place`; `None` for bit 0.
pub(crate) fn carry_into(builder: &mut CircuitBuilder, sum: &Operands, place: usize) -> Option<Wire> {
    let ranges = positions(builder, sum, place);
    carry_out(builder, ranges)
}

/// The top bit of first + second mod 2^w. w = 16 takes 39 ANDs per lane, w = 20 takes 50; 1 + ⌈log₂(w−1)⌉ rounds.
/// `None` for numbers of no bits.
pub(crate) fn sign_of_sum(builder: &mut CircuitBuilder, sum: &Operands) -> Option<Wire> {
    let top = builder.xor(*sum.first.last()?, *sum.second.last()?);
    let carry = carry_into(builder, sum, sum.first.len() - 1);
    Some(carry.map_or(top, |carry| builder.xor(top, carry)))
}

/// All bits of first + second mod 2^w, lowest first, in the same number of rounds (Sklansky's prefix adder: n/2·log₂ n
/// combinations instead of n).
pub(crate) fn sum_bits(builder: &mut CircuitBuilder, sum: &Operands) -> Vec<Wire> {
    let mut ranges = positions(builder, sum, sum.first.len().saturating_sub(1));
    let mut span = 1;
    while span < ranges.len() {
        let before = ranges.clone();
        for (position, range) in ranges.iter_mut().enumerate() {
            let block = position / span;
            // Odd blocks take over the carry out of the block below; block 1 then starts at bit 0.
            if block % 2 == 1
                && let Some(low) = before.get(block * span - 1)
            {
                *range = joined(builder, *low, *range, block == 1);
            }
        }
        span *= 2;
    }
    let carries = std::iter::once(None).chain(ranges.iter().map(|range| Some(range.generate)));
    let pairs = sum.first.iter().zip(&sum.second);
    pairs
        .zip(carries)
        .map(|((&a, &b), carry)| {
            let bit = builder.xor(a, b);
            carry.map_or(bit, |carry| builder.xor(bit, carry))
        })
        .collect()
}

/// Whether a > b as numbers without sign, lowest bit first; exact, no difference is formed that could wrap. `None`
/// for numbers of no bits.
pub(crate) fn greater(builder: &mut CircuitBuilder, a: &[Wire], b: &[Wire]) -> Option<Wire> {
    let ranges = a
        .iter()
        .zip(b)
        .map(|(&x, &y)| {
            let not_y = builder.not(y);
            Range { generate: builder.and(x, not_y), propagate: builder.xor(x, not_y) }
        })
        .collect();
    carry_out(builder, ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::Lanes;
    use veilmatch_secret::Stream;

    fn extremes_and_random(width: u32, count: usize) -> Vec<u64> {
        let top = 1u64 << (width - 1);
        let mut stream = Stream::public([width as u8; 32]);
        [0, 1, 2, top - 1, top, top + 1, 2 * top - 1]
            .into_iter()
            .chain((0..count).map(|_| stream.next_u64()))
            .map(|value| value & (2 * top - 1))
            .collect()
    }

    #[test]
    fn the_sign_takes_exactly_the_gates_of_the_design() {
        for (width, gates, rounds) in [(16, 39, 8), (20, 50, 9), (48, 133, 10)] {
            let mut builder = CircuitBuilder::new();
            let input = builder.input(width, 1);
            let sign = sign_of_sum(&mut builder, &input).unwrap();
            let circuit = builder.finish(vec![vec![sign]]);
            assert_eq!((circuit.and_bits(), circuit.rounds()), (gates, rounds), "width {width}");
        }
    }

    #[test]
    fn signs_and_sums_are_those_of_arithmetic() {
        for width in 1..=48 {
            let values = extremes_and_random(width, 100);
            let mut builder = CircuitBuilder::new();
            let input = builder.input(width, values.len());
            let sign = sign_of_sum(&mut builder, &input).unwrap();
            let sum = sum_bits(&mut builder, &input);
            let stages: Vec<Vec<Wire>> = vec![std::iter::once(sign).chain(sum).collect()];
            let opened = builder.finish(stages).evaluate_in_clear(&values);
            let expected: Vec<Lanes> = std::iter::once(width - 1)
                .chain(0..width)
                .map(|bit| Lanes::from_fn(values.len(), |lane| values[lane] >> bit & 1 == 1))
                .collect();
            assert_eq!(opened, [expected], "width {width}");
        }
    }

    #[test]
    fn the_greater_of_two_numbers() {
        for width in [1, 2, 7, 16, 32] {
            let values = extremes_and_random(width, 80);
            let n = values.len();
            let all: Vec<u64> = (0..n * n).map(|i| values[i / n]).chain((0..n * n).map(|i| values[i % n])).collect();
            let mut builder = CircuitBuilder::new();
            let (a, b) = (builder.input(width, n * n), builder.input(width, n * n));
            let (a, b) = (sum_bits(&mut builder, &a), sum_bits(&mut builder, &b));
            let result = greater(&mut builder, &a, &b).unwrap();
            let opened = builder.finish(vec![vec![result]]).evaluate_in_clear(&all);
            let expected = Lanes::from_fn(n * n, |i| values[i / n] > values[i % n]);
            assert_eq!(opened, [[expected]], "width {width}");
        }
    }
}
