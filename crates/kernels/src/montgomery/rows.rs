//! Products and reductions as blocks of eight limbs times a whole number.
//!
//! Two functions are all that an instruction set has to bring: `add_block`, t += s·b for b of eight limbs, and
//! `reduce_block`, which adds the multiple of n that makes the lowest eight limbs of t zero.

use super::BLOCK;

/// Which instructions are used. A value proves that this machine has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arithmetic(Set);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Adx,
}

impl Arithmetic {
    /// The fastest of this machine.
    #[must_use]
    pub fn detect() -> Self {
        Self::available().pop().unwrap_or(Self(Set::Portable))
    }

    /// All that this machine can run, the slowest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut all = vec![Self(Set::Portable)];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("bmi2") && is_x86_feature_detected!("adx") {
            all.push(Self(Set::Adx));
        }
        all
    }

    /// Plain Rust.
    #[must_use]
    pub fn portable() -> Self {
        Self(Set::Portable)
    }

    /// Name of the instruction set.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Set::Adx => "bmi2+adx",
        }
    }

    /// t += s·b, where t has eight limbs more than s; `carry` is added at the limb behind s. The new carry, 0 or 1.
    pub(super) fn add_block(self, t: &mut [u64], s: &[u64], b: &[u64; BLOCK], carry: u64) -> u64 {
        assert!(t.len() == s.len() + BLOCK && s.len().is_multiple_of(BLOCK) && !s.is_empty(), "whole blocks");
        match self.0 {
            Set::Portable => add_block(t, s, b, carry),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the value proves BMI2 and ADX; the lengths were checked.
            Set::Adx => unsafe { super::adx::add_block(t, s, b, carry) },
        }
    }

    /// t := (t + m·n)/2^512 in the limbs from the ninth, with m such that it divides; t has eight limbs more than n. `carry`
    /// is added at the limb behind n. The new carry, 0 or 1. The lowest eight limbs become m.
    pub(super) fn reduce_block(self, t: &mut [u64], n: &[u64], negative_inverse: u64, carry: u64) -> u64 {
        assert!(t.len() == n.len() + BLOCK && n.len().is_multiple_of(BLOCK) && !n.is_empty(), "whole blocks");
        match self.0 {
            Set::Portable => reduce_block(t, n, negative_inverse, carry),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the value proves BMI2 and ADX; the lengths were checked.
            Set::Adx => unsafe { super::adx::reduce_block(t, n, negative_inverse, carry) },
        }
    }
}

/// The block of a number that begins at a limb.
fn block(a: &[u64], at: usize) -> &[u64; BLOCK] {
    a[at..].first_chunk().expect("lengths are whole blocks")
}

/// out := a·b; out has as many limbs as both.
pub(super) fn product(arithmetic: Arithmetic, out: &mut [u64], a: &[u64], b: &[u64]) {
    out.fill(0);
    add_product(arithmetic, out, a, b);
}

/// out += a·b; out has as many limbs as both. The carry, 0 or 1.
pub(super) fn add_product(arithmetic: Arithmetic, out: &mut [u64], a: &[u64], b: &[u64]) -> u64 {
    assert!(out.len() == a.len() + b.len(), "a product has the limbs of both factors");
    let mut carry = 0;
    for at in (0..b.len()).step_by(BLOCK) {
        carry = arithmetic.add_block(&mut out[at..at + a.len() + BLOCK], a, block(b, at), carry);
    }
    carry
}

/// out := a²; both lists have twice the limbs of a.
pub(super) fn square(arithmetic: Arithmetic, out: &mut [u64], diagonal: &mut [u64], a: &[u64]) {
    assert!(out.len() == 2 * a.len() && diagonal.len() == 2 * a.len(), "a square has twice the limbs");
    out.fill(0);
    diagonal.fill(0);
    for at in (0..a.len()).step_by(BLOCK) {
        let (next, end) = (at + BLOCK, a.len());
        // Blocks behind this one times this one: at limb 2·at + 8, up to at + end.
        if next < end {
            arithmetic.add_block(&mut out[at + next..at + end + BLOCK], &a[next..], block(a, at), 0);
        }
        arithmetic.add_block(&mut diagonal[2 * at..2 * at + 2 * BLOCK], &a[at..next], block(a, at), 0);
    }
    double_and_add(out, diagonal);
}

/// t·2^(−64·limbs) mod n, up to one n if t is below n·2^(64·limbs), in the upper half of t and the carry. In the lower half is the
/// m of (t + m·n)/2^(64·limbs).
pub(super) fn reduce(arithmetic: Arithmetic, t: &mut [u64], n: &[u64], negative_inverse: u64) -> u64 {
    assert!(t.len() == 2 * n.len(), "a product has twice the limbs");
    let mut carry = 0;
    for at in (0..n.len()).step_by(BLOCK) {
        carry = arithmetic.reduce_block(&mut t[at..at + n.len() + BLOCK], n, negative_inverse, carry);
    }
    carry
}

/// out := a − b modulo 2^(64·limbs); the borrow, 0 or 1. Whole blocks: within one the borrow stays in the processor's flag.
pub(super) fn subtract(out: &mut [u64], a: &[u64], b: &[u64]) -> u64 {
    let mut borrow = false;
    let (out, a, b) = (out.as_chunks_mut::<BLOCK>().0, a.as_chunks::<BLOCK>().0, b.as_chunks::<BLOCK>().0);
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
            (*out, borrow) = subtract_with_borrow(a, b, borrow);
        }
    }
    u64::from(borrow)
}

/// out := 2·out + b modulo 2^(64·limbs), in whole blocks.
fn double_and_add(out: &mut [u64], b: &[u64]) {
    let (mut above, mut carry) = (0, false);
    for (out, b) in out.as_chunks_mut::<BLOCK>().0.iter_mut().zip(b.as_chunks::<BLOCK>().0) {
        for (out, &b) in out.iter_mut().zip(b) {
            let doubled = *out << 1 | above;
            above = *out >> 63;
            (*out, carry) = add_with_carry(doubled, b, carry);
        }
    }
}

/// out := 2·a modulo 2^(64·limbs); what is carried out.
pub(super) fn double(out: &mut [u64], a: &[u64]) -> u64 {
    let mut above = 0;
    for (out, &a) in out.iter_mut().zip(a) {
        *out = a << 1 | above;
        above = a >> 63;
    }
    above
}

fn add_with_carry(a: u64, b: u64, carry: bool) -> (u64, bool) {
    let (sum, first) = a.overflowing_add(b);
    let (sum, second) = sum.overflowing_add(u64::from(carry));
    (sum, first | second)
}

fn subtract_with_borrow(a: u64, b: u64, borrow: bool) -> (u64, bool) {
    let (difference, first) = a.overflowing_sub(b);
    let (difference, second) = difference.overflowing_sub(u64::from(borrow));
    (difference, first | second)
}

/// t += s·x over the limbs of s; what is carried out.
pub(super) fn add_row(t: &mut [u64], s: &[u64], x: u64) -> u64 {
    let mut carry = 0;
    for (t, &s) in t.iter_mut().zip(s) {
        let sum = u128::from(s) * u128::from(x) + u128::from(*t) + u128::from(carry);
        *t = sum as u64;
        carry = (sum >> 64) as u64;
    }
    carry
}

fn add_block(t: &mut [u64], s: &[u64], b: &[u64; BLOCK], carry: u64) -> u64 {
    let mut carry = carry != 0;
    for (i, &x) in b.iter().enumerate() {
        let out = add_row(&mut t[i..i + s.len()], s, x);
        (t[i + s.len()], carry) = add_with_carry(t[i + s.len()], out, carry);
    }
    u64::from(carry)
}

fn reduce_block(t: &mut [u64], n: &[u64], negative_inverse: u64, carry: u64) -> u64 {
    let mut carry = carry != 0;
    for i in 0..BLOCK {
        let multiple = t[i].wrapping_mul(negative_inverse);
        let out = add_row(&mut t[i..i + n.len()], n, multiple);
        // The sum left a zero here.
        t[i] = multiple;
        (t[i + n.len()], carry) = add_with_carry(t[i + n.len()], out, carry);
    }
    u64::from(carry)
}
