//! Is a sealed vector a unit vector? (DESIGN 3.3)
//!
//! The holders have a vector m as three parts modulo 2^48, two each. They check |m_j| ≤ (1+ε)·S_c for every coordinate
//! and (1−ε)·S_c² ≤ Σ m_j² ≤ (1+ε)·S_c², ε = 0.01, by comparisons on shares. With all coordinates in range and
//! d ≤ 1,024, Σ m_j² ≤ d·(1+ε)²·S_c² < 2^47, so the sum that is compared modulo 2^48 is the true one. A coordinate that
//! is out of range fails its own comparison whatever the sum wraps to: B − m and m + B are both non-negative modulo
//! 2^48 (read as signed) exactly if −B ≤ m ≤ B.
//!
//! Squares are local: with x = x_0 + x_1 + x_2, K_i's share of x·y is x_i·y_i + x_i·y_{i+1} + x_{i+1}·y_i (DESIGN 3.1).
//!
//! Margin: rounding moves a coordinate by at most 1/2, so an honest Σ m² is off by at most S_c·√d + d/4, 1/81 of the
//! 0.01·S_c² allowed at d = 1,024; a coordinate of a unit vector is at most S_c, and 0.01·S_c more is allowed.
//!
//! Cost: 133 AND gates per comparison and 2d+2 comparisons, then 64 per comparison to see whether one failed:
//! 202,186 gates for one vector at d = 512 (25,674 at 64, 403,914 at 1,024) in 11 rounds, for a few vectors at once; of more, comparisons are joined by ORs first.
//!
//! Who sees what: the comparisons show nothing (see `evaluation`). Opened is per vector "fits" or not, as 64 bits that are all
//! 0 if it fits and uniform if it does not, whatever is wrong with it (all 0 with probability 2^−64 then, over randomness
//! that its sender does not know).

use veilmatch_domain::Party;

use crate::addition::sign_of_sum;
use crate::circuit::{Circuit, CircuitBuilder};
use crate::counting::{WITNESS, witness_of_rows};
use crate::error::ProtocolError;
use crate::lanes::Lanes;

/// Bits of the ring in which sealed vectors live.
pub const NORM_WIDTH: u32 = 48;
const MASK: u64 = (1 << NORM_WIDTH) - 1;

/// The admissible ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormBounds {
    /// |m_j| is at most this.
    pub coordinate: u64,
    /// Σ m_j² is at least this.
    pub low: u64,
    /// Σ m_j² is at most this.
    pub high: u64,
}

impl NormBounds {
    /// The bounds for unit vectors of `dimension` ≤ 1,024 coordinates scaled by `scale` = S_c = 2^18, ε = 0.01.
    #[must_use]
    pub fn unit(scale: u64, dimension: usize) -> Self {
        let square = scale * scale;
        let coordinate = scale + scale / 100;
        debug_assert!(
            (dimension as u128) * u128::from(coordinate) * u128::from(coordinate) < 1 << (NORM_WIDTH - 1),
            "the sum of squares could wrap"
        );
        Self { coordinate, low: square - square / 100, high: square + square / 100 }
    }
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

/// Rows of comparisons per vector: two per coordinate and two for the sum of squares.
fn rows(dimension: usize) -> usize {
    2 * dimension + 2
}

/// The circuit for `templates` vectors of `dimension` coordinates. Lane c·`templates` + t is comparison c of vector t;
/// the output is one stage of 64 rows of `templates` lanes; vector t fits if its lane is 0 in all of them.
#[must_use]
pub fn norm_circuit(templates: usize, dimension: usize) -> Circuit {
    let mut builder = CircuitBuilder::new();
    let input = builder.input(NORM_WIDTH, rows(dimension) * templates);
    // NORM_WIDTH is not 0, so there is a sign; a circuit without one would open nothing and be refused as an answer.
    let stage = match sign_of_sum(&mut builder, &input) {
        Some(sign) => vec![witness_of_rows(&mut builder, sign, rows(dimension), templates)],
        None => Vec::new(),
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
    let public = |value: u64| if party == Party::K0 { value } else { 0 };
    let mut inputs = Vec::with_capacity(rows(dimension) * parts.len());
    for j in 0..dimension {
        for (own, _) in parts {
            let m = own.get(j).copied().unwrap_or(0);
            inputs.push(public(bounds.coordinate).wrapping_sub(m) & MASK);
        }
        for (own, _) in parts {
            let m = own.get(j).copied().unwrap_or(0);
            inputs.push(public(bounds.coordinate).wrapping_add(m) & MASK);
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
