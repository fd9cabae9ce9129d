//! Pointwise sums of products with one reduction each, written as plain loops that the compiler vectorises.
//!
//! `pulp` runs a loop with the widest instruction set that the machine has; it needs no unsafe code here. A reduction is
//! Montgomery's: t = ⌊acc/2^32⌋ − ⌊m·q/2^32⌋ with m = acc·q^−1 mod 2^32 is acc·2^−32 modulo q, because acc and m·q
//! have the same low half. The factor 2^−32 is made up for in one of the two factors beforehand ([`Ring::prepared`]).
//! No branch and no address depends on a value.

use pulp::Arch;

use crate::Ring;

/// What a reduction needs, by value, so that a loop keeps it in registers.
#[derive(Clone, Copy)]
struct Reduction {
    q: u32,
    inverse: u32,
}

impl Reduction {
    /// acc·2^−32 modulo q, canonical, for acc below 2·q·2^32.
    #[inline(always)]
    fn reduce(self, acc: u64) -> u32 {
        let high = (acc >> 32) as u32;
        let high = high.min(high.wrapping_sub(self.q));
        let m = (acc as u32).wrapping_mul(self.inverse);
        let low = ((u64::from(m) * u64::from(self.q)) >> 32) as u32;
        let difference = high.wrapping_sub(low);
        // Between −q and q: as numbers without sign a negative one is the larger of the two.
        difference.min(difference.wrapping_add(self.q))
    }

    /// a + b of two residues.
    #[inline(always)]
    fn add(self, a: u32, b: u32) -> u32 {
        let sum = a.wrapping_add(b);
        sum.min(sum.wrapping_sub(self.q))
    }
}

impl Ring {
    fn reduction(&self) -> Reduction {
        Reduction { q: self.modulus(), inverse: self.inverse_of_modulus() }
    }

    /// Residues times 2^32 modulo q: the factors that [`Ring::sum_of_three_products`] and [`Ring::combine`] take.
    #[must_use]
    pub fn prepared(&self, residues: &[u32]) -> Vec<u32> {
        let (r, square) = (self.reduction(), u64::from(self.square_of_two_to_32()));
        Arch::new().dispatch(
            #[inline(always)]
            || residues.iter().map(|&x| r.reduce(u64::from(x) * square)).collect(),
        )
    }

    /// `out = x_0·y_0 + x_1·y_1 + x_2·y_2`, pointwise, for prepared `y` ([`Ring::prepared`]). All slices have the length
    /// of `out`; what is beyond the shortest stays as it is.
    pub fn sum_of_three_products(&self, terms: [(&[u32], &[u32]); 3], out: &mut [u32]) {
        let r = self.reduction();
        let [(x0, y0), (x1, y1), (x2, y2)] = terms;
        Arch::new().dispatch(
            #[inline(always)]
            || {
                let factors = x0.iter().zip(y0).zip(x1.iter().zip(y1)).zip(x2.iter().zip(y2));
                for (o, (((&a, &b), (&c, &d)), (&e, &f))) in out.iter_mut().zip(factors) {
                    // 3·q² < 2·q·2^32, since q < 2^31.
                    let sum = u64::from(a) * u64::from(b) + u64::from(c) * u64::from(d) + u64::from(e) * u64::from(f);
                    *o = r.reduce(sum);
                }
            },
        );
    }

    /// `sum += Σ_k w_k·x_k` for prepared weights ([`Ring::prepared`]) and polynomials that lie one behind the other, each
    /// as long as `sum`.
    pub fn combine(&self, weights: &[u32], polynomials: &[u32], sum: &mut [u32]) {
        let (r, length) = (self.reduction(), sum.len());
        if length == 0 {
            return;
        }
        let mut rest = polynomials;
        for weights in weights.chunks(4) {
            let (four, after) = rest.split_at(rest.len().min(weights.len() * length));
            rest = after;
            Arch::new().dispatch(
                #[inline(always)]
                || match (weights, four.len() == weights.len() * length) {
                    (&[a, b, c, d], true) => {
                        let (x, y) = four.split_at(2 * length);
                        let (x0, x1) = x.split_at(length);
                        let (x2, x3) = y.split_at(length);
                        let [a, b, c, d] = [a, b, c, d].map(u64::from);
                        let points = x0.iter().zip(x1).zip(x2.iter().zip(x3));
                        for (s, ((&x0, &x1), (&x2, &x3))) in sum.iter_mut().zip(points) {
                            // 4·q² < 2·q·2^32, since q < 2^31.
                            let acc = u64::from(x0) * a + u64::from(x1) * b + u64::from(x2) * c + u64::from(x3) * d;
                            *s = r.add(*s, r.reduce(acc));
                        }
                    }
                    _ => {
                        for (&w, x) in weights.iter().zip(four.chunks_exact(length)) {
                            for (s, &x) in sum.iter_mut().zip(x) {
                                *s = r.add(*s, r.reduce(u64::from(x) * u64::from(w)));
                            }
                        }
                    }
                },
            );
        }
    }

    /// `v_m = v_2m + v_2m+1` for every pair of neighbours, in place: the sums fill the first half. What is behind it is
    /// of no use any more.
    pub(crate) fn add_pairs(&self, values: &mut [u32]) {
        // A block is read before any of it is written, and what is written lies at or before it: a copy of the block is
        // all that the compiler needs to see that.
        const BLOCK: usize = 64;
        let (r, pairs) = (self.reduction(), values.len() / 2);
        Arch::new().dispatch(
            #[inline(always)]
            || {
                let whole = values.len() / BLOCK;
                for block in 0..whole {
                    let mut copy = [0u32; BLOCK];
                    copy.copy_from_slice(&values[block * BLOCK..(block + 1) * BLOCK]);
                    let place = block * BLOCK / 2;
                    for (o, &[a, b]) in values[place..place + BLOCK / 2].iter_mut().zip(copy.as_chunks::<2>().0) {
                        *o = r.add(a, b);
                    }
                }
                for m in whole * BLOCK / 2..pairs {
                    values[m] = r.add(values[2 * m], values[2 * m + 1]);
                }
            },
        );
    }

    /// Multiplies by a prepared factor, in place.
    pub(crate) fn scale(&self, values: &mut [u32], prepared: u32) {
        let (r, factor) = (self.reduction(), u64::from(prepared));
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for v in values {
                    *v = r.reduce(u64::from(*v) * factor);
                }
            },
        );
    }
}

/// Rounds each residue x to round(x·2^bits/q) modulo 2^bits, exactly, without a division: for x < q < 2^31 and
/// 2^bits < q.
///
/// y = ⌊x·μ/2^32⌋ with μ = ⌊2^(32+bits)/q⌋ is at most ⌊x·2^bits/q⌋ and less by at most 1: x·2^bits/q − x·μ/2^32 is at
/// least 0 and below x/2^32 < 1/2. So x·2^bits + ⌊q/2⌋ − y·q lies in \[0, 3q), and two comparisons finish the quotient.
pub fn round_to_power_of_two(modulus: u32, bits: u32, residues: &[u32], out: &mut [u32]) {
    let q = u64::from(modulus);
    let factor = ((1u128 << (32 + bits)) / u128::from(modulus)) as u32;
    let (half, mask) = (q / 2, (((1u64 << bits) - 1) & u64::from(u32::MAX)) as u32);
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (o, &x) in out.iter_mut().zip(residues) {
                let y = (u64::from(x) * u64::from(factor)) >> 32;
                let left = (u64::from(x) << bits) + half - (y & 0xffff_ffff) * q;
                let more = u32::from(left >= q) + u32::from(left >= 2 * q);
                *o = (y as u32).wrapping_add(more) & mask;
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::{Lcg, Q};

    const SMALL: u32 = 268_369_921;

    fn draws(lcg: &mut Lcg, q: u32, length: usize) -> Vec<u32> {
        (0..length).map(|i| if i % 7 == 0 { q - 1 } else { lcg.below(q) }).collect()
    }

    #[test]
    fn sums_of_products_are_those_of_wide_integers() {
        for q in [Q, SMALL, 12289] {
            let ring = Ring::new(64, q).unwrap();
            let mut lcg = Lcg(31);
            for length in [1usize, 7, 64, 1000] {
                let x: Vec<Vec<u32>> = (0..3).map(|_| draws(&mut lcg, q, length)).collect();
                let y: Vec<Vec<u32>> = (0..3).map(|_| draws(&mut lcg, q, length)).collect();
                let prepared: Vec<Vec<u32>> = y.iter().map(|y| ring.prepared(y)).collect();
                let mut out = vec![0; length];
                ring.sum_of_three_products([0, 1, 2].map(|i| (x[i].as_slice(), prepared[i].as_slice())), &mut out);
                for (m, &found) in out.iter().enumerate() {
                    let sum: u128 = (0..3).map(|i| u128::from(x[i][m]) * u128::from(y[i][m])).sum();
                    assert_eq!(u128::from(found), sum % u128::from(q));
                }
            }
        }
    }

    #[test]
    fn combinations_of_any_number_of_polynomials() {
        for q in [Q, SMALL] {
            let ring = Ring::new(64, q).unwrap();
            let mut lcg = Lcg(32);
            for count in [0usize, 1, 2, 3, 4, 5, 8, 16, 17] {
                for length in [1usize, 33, 64] {
                    let weights = draws(&mut lcg, q, count);
                    let polynomials = draws(&mut lcg, q, count * length);
                    let before = draws(&mut lcg, q, length);
                    let mut sum = before.clone();
                    ring.combine(&ring.prepared(&weights), &polynomials, &mut sum);
                    for m in 0..length {
                        let products =
                            (0..count).map(|k| u128::from(weights[k]) * u128::from(polynomials[k * length + m]));
                        let expected = u128::from(before[m]) + products.sum::<u128>();
                        assert_eq!(u128::from(sum[m]), expected % u128::from(q));
                    }
                }
            }
        }
    }

    /// Every residue next to a border between two results, and many others.
    #[test]
    fn rounding_is_exact() {
        for q in [Q, SMALL] {
            for bits in [8u32, 16, 20] {
                let mut lcg = Lcg(33);
                let borders = (0..1u64 << bits.min(16)).flat_map(|y| {
                    // The least x with x·2^bits + q/2 ≥ y·q.
                    let x = (y * u64::from(q)).saturating_sub(u64::from(q) / 2).div_ceil(1 << bits);
                    [x.saturating_sub(1), x, x + 1]
                });
                let mut residues: Vec<u32> = borders.map(|x| (x as u32).min(q - 1)).collect();
                residues.extend([0, 1, q / 2, q / 2 + 1, q - 1]);
                residues.extend((0..10_000).map(|_| lcg.below(q)));
                let mut out = vec![0; residues.len()];
                round_to_power_of_two(q, bits, &residues, &mut out);
                for (&x, &found) in residues.iter().zip(&out) {
                    let exact = ((u128::from(x) << bits) + u128::from(q) / 2) / u128::from(q) % (1 << bits);
                    assert_eq!(u128::from(found), exact, "{x} modulo {q} to {bits} bits");
                }
            }
        }
    }
}
