//! Is a sealed vector a unit vector? (DESIGN 3.3)
//!
//! The holders have a vector m as three parts modulo 2^48, two each. They check (1−ε)·S_c² ≤ Σ m_j² ≤ (1+ε)·S_c²,
//! ε = 0.01, which implies |m_j| ≤ √(1+ε)·S_c for every coordinate. The sum is compared modulo 2^48, so they check first that
//! it is the true one: that no coordinate leaves a window about 0 of 20 bits (S_c has 18) and a little more, such that d
//! squares of it stay below 2^48.
//!
//! Window: with x = m + 2^19 modulo 2^48, each holder drops the k lowest bits of its additive share. What is left adds
//! up to t = ⌊x/2^k⌋ − δ modulo 2^(48−k) with δ ∈ {0, 1, 2}, for three times less than one is dropped. t < 2^(20−k)
//! passes. So every m in −2^19 + 2^(k+1) ≤ m < 2^19 passes, which is more than (1+ε)·S_c on both sides for k ≤ 16; and what
//! passes has −2^19 ≤ m < 2^19 + 2^(k+1). k is the largest for which d·(2^19 + 2^(k+1) − 1)² < 2^48: 16 up to d = 655. For
//! d = 1,024 there is none: nothing is dropped, δ = 0, and Σ m² is at most 2^48, which it is only if all coordinates are −2^19;
//! modulo 2^48 that is 0 and below the lower bound. With 0 ≤ Σ < 2^48 and (1+ε)·S_c² < 2^47, Σ − low and high − Σ are both
//! non-negative modulo 2^48 (read as signed) exactly if low ≤ Σ ≤ high.
//!
//! Top bits: whether the upper bits of a + b are all 0 takes no adder. If those below bit i are 0, the carry into bit i
//! is a_{i−1} ∨ b_{i−1}; so all are 0 exactly if a_i ⊕ b_i equals that for every i, and the carry out of the 20−k lowest
//! bits for the first.
//!
//! Squares are local: with x = x_0 + x_1 + x_2, K_i's share of x·y is x_i·y_i + x_i·y_{i+1} + x_{i+1}·y_i (DESIGN 3.1).
//!
//! Margin: rounding moves a coordinate by at most 1/2, so an honest Σ m² is off by at most S_c·√d + d/4, 1/81 of the
//! 0.01·S_c² allowed at d = 1,024; a coordinate of a unit vector is at most S_c, and 0.01·S_c more always passes.
//!
//! Cost: 62 AND gates per coordinate up to d = 655 (107 at 1,024), 133 for each of the two comparisons of the sum, then 64 for
//! every second coordinate (at 1,024 for every one) to see whether one failed: 48,842 gates for one vector at d = 512 (6,506 at 64, 175,562 at 1,024)
//! in 11 rounds, for a few vectors at once; of more, failures are joined by ORs first. Two exact comparisons per coordinate, as
//! DESIGN 3.3 has it, take 202,186 gates at d = 512.
//!
//! Who sees what: the comparisons show nothing (see `evaluation`). Opened is per vector "fits" or not, as 64 bits that are all
//! 0 if it fits and uniform if it does not, whatever is wrong with it (all 0 with probability 2^−64 then, over randomness
//! that its sender does not know).

use veilmatch_domain::Party;

use crate::addition::{carry_into, sign_of_sum};
use crate::circuit::{Circuit, CircuitBuilder, Operands, Wire};
use crate::counting::{WITNESS, any_of, witness_of_rows};
use crate::error::ProtocolError;
use crate::lanes::Lanes;

/// Bits of the ring in which sealed vectors live.
pub const NORM_WIDTH: u32 = 48;
const MASK: u64 = (1 << NORM_WIDTH) - 1;

/// Half the width of the window that no coordinate may leave: 2·S_c.
const HALF_WINDOW: u64 = 1 << 19;
/// Bits of the window.
const WINDOW_BITS: u32 = HALF_WINDOW.ilog2() + 1;
/// Most low bits that an honest coordinate can do without.
const MOST_DROPPED: u32 = 16;

/// The admissible sums of squares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormBounds {
    /// Σ m_j² is at least this; more than 0.
    pub low: u64,
    /// Σ m_j² is at most this; below 2^47.
    pub high: u64,
}

impl NormBounds {
    /// The bounds for unit vectors of at most 1,024 coordinates scaled by `scale` = S_c = 2^18, ε = 0.01.
    #[must_use]
    pub fn unit(scale: u64) -> Self {
        let square = scale * scale;
        debug_assert!(
            scale + scale / 100 <= HALF_WINDOW - (2 << MOST_DROPPED),
            "an honest coordinate leaves the window"
        );
        Self { low: square - square / 100, high: square + square / 100 }
    }
}

/// How many low bits of every coordinate's shares are dropped; 0 if any would be too many.
fn dropped_bits(dimension: usize) -> u32 {
    let stays_true = |&dropped: &u32| {
        let largest = u128::from(HALF_WINDOW + (2 << dropped) - 1);
        dimension as u128 * largest * largest < 1 << NORM_WIDTH
    };
    (1..=MOST_DROPPED).rev().find(stays_true).unwrap_or(0)
}

/// This holder's additive share of Σ_j x_j·y_j modulo 2^48, from its two parts of both vectors.
#[must_use]
pub fn dot_share(x: (&[u64], &[u64]), y: (&[u64], &[u64])) -> u64 {
    let (own, next) = (x.0.iter().zip(y.0), x.1.iter().zip(y.1));
    own.zip(next).fold(0u64, |sum, ((a, b), (c, d))| {
        let product = a.wrapping_mul(b.wrapping_add(*d)).wrapping_add(c.wrapping_mul(*b));
        sum.wrapping_add(product)
    }) & MASK
}

/// Whether the bits of first + second from bit `low` on are not all 0; see the module's documentation.
fn leaves_window(builder: &mut CircuitBuilder, sum: &Operands, low: usize) -> Option<Wire> {
    let mut carry = carry_into(builder, sum, low);
    let mut unequal = Vec::new();
    for (&a, &b) in sum.first.iter().zip(&sum.second).skip(low) {
        let bit = builder.xor(a, b);
        unequal.push(carry.map_or(bit, |carry| builder.xor(bit, carry)));
        carry = Some(builder.or(a, b));
    }
    any_of(builder, unequal)
}

/// The circuit for `templates` vectors of `dimension` coordinates. Its inputs are coordinate c of vector t in lane
/// c·`templates` + t, without the bits that are dropped, then the two comparisons of the sums in the same way; the output
/// is one stage of 64 rows of `templates` lanes; vector t fits if its lane is 0 in all of them.
#[must_use]
pub fn norm_circuit(templates: usize, dimension: usize) -> Circuit {
    let mut builder = CircuitBuilder::new();
    let dropped = dropped_bits(dimension);
    let coordinates = builder.input(NORM_WIDTH - dropped, dimension * templates);
    let sums = builder.input(NORM_WIDTH, 2 * templates);
    let outside = leaves_window(&mut builder, &coordinates, (WINDOW_BITS - dropped) as usize);
    // NORM_WIDTH is not 0, so there are bits; a circuit without any would open nothing and be refused as an answer.
    let stage = match (outside, sign_of_sum(&mut builder, &sums)) {
        (Some(mut outside), Some(sign)) => {
            let mut rows = dimension;
            // The sums take longer: meanwhile two coordinates become one.
            while rows > 1 && builder.depth(outside) < builder.depth(sign) {
                let half = rows.div_ceil(2) * templates;
                let (low, high) = (builder.slice(outside, 0, half), builder.slice(outside, half, half));
                outside = builder.or(low, high);
                rows = rows.div_ceil(2);
            }
            let failures = builder.concat(&[outside, sign]);
            vec![witness_of_rows(&mut builder, failures, rows + 2, templates)]
        }
        _ => Vec::new(),
    };
    builder.finish(vec![stage])
}

/// This holder's additive shares of the circuit's inputs; `parts[t]` are its two parts of vector t, each of the same
/// number of values modulo 2^48. K_0 adds the public bounds. A vector that is shorter than the longest is padded with
/// 0, so that none has a coordinate that is not compared: with a circuit of a smaller dimension the number of inputs is
/// refused.
#[must_use]
pub fn norm_inputs(party: Party, parts: &[(&[u64], &[u64])], bounds: &NormBounds) -> Vec<u64> {
    let dimension = parts.iter().map(|(own, _)| own.len()).max().unwrap_or(0);
    let dropped = dropped_bits(dimension);
    let public = |value: u64| if party == Party::K0 { value } else { 0 };
    let mut inputs = Vec::with_capacity((dimension + 2) * parts.len());
    for j in 0..dimension {
        for (own, _) in parts {
            let m = own.get(j).copied().unwrap_or(0);
            inputs.push((public(HALF_WINDOW).wrapping_add(m) & MASK) >> dropped);
        }
    }
    let squares: Vec<u64> = parts.iter().map(|&part| dot_share(part, part)).collect();
    inputs.extend(squares.iter().map(|s| s.wrapping_sub(public(bounds.low)) & MASK));
    inputs.extend(squares.iter().map(|s| public(bounds.high).wrapping_sub(*s) & MASK));
    inputs
}

/// Which vectors fit.
///
/// # Errors
/// [`ProtocolError::NotAnAnswer`] if what was opened does not have the circuit's shape.
pub fn read_norm(opened: &[Vec<Lanes>]) -> Result<Vec<bool>, ProtocolError> {
    match opened {
        [stage] => match stage.as_slice() {
            [bad] if bad.len().is_multiple_of(WITNESS) => {
                let templates = bad.len() / WITNESS;
                Ok((0..templates).map(|t| !(0..WITNESS).any(|row| bad.get(row * templates + t))).collect())
            }
            _ => Err(ProtocolError::NotAnAnswer),
        },
        _ => Err(ProtocolError::NotAnAnswer),
    }
}

#[cfg(test)]
mod tests;
