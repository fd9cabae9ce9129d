//! From parts of a sealed template to polynomials: recrypt steps 1 and 2 (DESIGN 3.3).
//!
//! These are public maps; a key holder applies them to its parts, a test applies them to a plain vector.

use veilmatch_kernels::Ring;
use veilmatch_sealed::{RING_BITS, RING_MASK};

use crate::Layout;

/// Step 1: multiply a part by F modulo 2^48 and scale 2^48 to q by rounding. Three scaled parts add up to the scaled
/// value within 1.5 units.
#[must_use]
pub fn scale_part(modulus: u32, factor: u64, value: u64) -> u32 {
    let scaled = u128::from(value.wrapping_mul(factor) & RING_MASK) * u128::from(modulus);
    let rounded = ((scaled + (1u128 << (RING_BITS - 1))) >> RING_BITS) as u64;
    // 2^48 − 1 can round up to q itself; subtract it without a branch.
    let wrapped = rounded.wrapping_sub(u64::from(modulus));
    let below = (wrapped >> 63).wrapping_neg();
    (wrapped.wrapping_add(u64::from(modulus) & below)) as u32
}

/// Step 2 for the gallery: adds the scaled coordinates jβ .. jβ+β of the template at `position` to the polynomial of
/// block j: m\[jβ+i\] goes to the coefficient β·t + i (DESIGN 3.4).
#[expect(clippy::indexing_slicing, reason = "position < N/β is checked by the layout")]
pub fn place_gallery(layout: Layout, block: usize, position: usize, scaled: &[u32], polynomial: &mut [u32]) {
    let beta = layout.beta();
    let start = block * beta;
    let coordinates = &scaled[start.min(scaled.len())..(start + beta).min(scaled.len())];
    polynomial[beta * position..beta * position + coordinates.len()].copy_from_slice(coordinates);
}

/// Step 2 for a probe, into a polynomial of zeros: P_j(X) = Σ_{i<β} m\[jβ+i\]·X^{−i}, and X^{−i} = −X^{N−i} for i > 0.
#[expect(clippy::indexing_slicing, reason = "i < β ≤ N")]
pub fn place_probe(ring: &Ring, layout: Layout, block: usize, scaled: &[u32], polynomial: &mut [u32]) {
    let n = ring.degree();
    for (i, &value) in scaled.iter().skip(block * layout.beta()).take(layout.beta()).enumerate() {
        if i == 0 {
            polynomial[0] = value;
        } else {
            polynomial[n - i] = ring.negate(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GLWE_2048_V1;

    /// Computed with `scale` of the design's reference program (F as given there, q = 2147389441).
    #[test]
    fn scaling_agrees_with_the_reference_program() {
        const Q: u32 = 2_147_389_441;
        for (value, factor, expected) in crate::placement::reference_vectors::SCALE {
            assert_eq!(scale_part(Q, *factor, *value), *expected);
        }
    }

    #[test]
    fn parts_add_up_within_one_and_a_half_units() {
        let p = GLWE_2048_V1;
        let factor = p.scales(4).probe_factor;
        let q = i128::from(p.modulus);
        let mut x = 7u64;
        for round in 0..3000u64 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (a, b) =
                if round % 3 == 0 { (RING_MASK, RING_MASK - round) } else { (x & RING_MASK, (x >> 16) & RING_MASK) };
            let m = ((x >> 40) & 0x7ffff) as i64 - (1 << 18); // a coordinate of a unit vector
            let c = (m as u64).wrapping_sub(a).wrapping_sub(b) & RING_MASK;
            let sum: i128 = [a, b, c].iter().map(|&v| i128::from(scale_part(p.modulus, factor, v))).sum();
            let exact = m as f64 * factor as f64 * f64::from(p.modulus) / (1u64 << 48) as f64;
            let difference = (sum as f64 - exact).rem_euclid(q as f64);
            assert!(difference.min(q as f64 - difference) <= 1.5 + 1e-6);
        }
    }

    #[test]
    fn the_product_has_the_inner_product_at_its_slot() {
        let p = GLWE_2048_V1;
        let ring = p.ring();
        let layout = Layout::new(8, 1).unwrap();
        let d = 20; // three blocks, the last one padded
        let x: Vec<u32> = (0..d).map(|i| i * 3 + 1).collect();
        let y: Vec<u32> = (0..d).map(|i| i * i + 2).collect();
        let mut sum = vec![0u32; p.degree];
        for block in 0..3 {
            let mut gallery = vec![0u32; p.degree];
            place_gallery(layout, block, 5, &x, &mut gallery);
            let mut probe = vec![0; p.degree];
            place_probe(&ring, layout, block, &y, &mut probe);
            ring.forward(&mut gallery);
            ring.forward(&mut probe);
            ring.multiply_accumulate(&mut sum, &gallery, &probe);
        }
        ring.inverse(&mut sum);
        assert_eq!(sum[8 * 5], x.iter().zip(&y).map(|(a, b)| a * b).sum::<u32>());
        assert_eq!(sum[8 * 4], 0);
    }
}

#[cfg(test)]
mod reference_vectors;
