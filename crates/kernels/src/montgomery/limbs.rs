//! Sums and products of little-endian lists of limbs in constant time: only lengths show. For integers that are secret.

/// a·b, with the limbs of both.
#[must_use]
pub fn product(a: &[u64], b: &[u64]) -> Vec<u64> {
    let mut out = vec![0; a.len() + b.len()];
    for (i, &x) in b.iter().enumerate() {
        out[i + a.len()] = super::rows::add_row(&mut out[i..i + a.len()], a, x);
    }
    out
}

/// a += b modulo 2^(64·limbs of a); the carry, 0 or 1. Limbs of b behind the end of a are not looked at.
pub fn add_assign(a: &mut [u64], b: &[u64]) -> u64 {
    let mut carry = 0;
    for (i, a) in a.iter_mut().enumerate() {
        let sum = u128::from(*a) + u128::from(b.get(i).copied().unwrap_or(0)) + u128::from(carry);
        *a = sum as u64;
        carry = (sum >> 64) as u64;
    }
    carry
}

/// a −= b modulo 2^(64·limbs of a); the borrow, 0 or 1. Limbs of b behind the end of a are not looked at.
pub fn subtract_assign(a: &mut [u64], b: &[u64]) -> u64 {
    let mut borrow = 0;
    for (i, a) in a.iter_mut().enumerate() {
        let difference = i128::from(*a) - i128::from(b.get(i).copied().unwrap_or(0)) - i128::from(borrow);
        *a = difference as u64;
        borrow = (difference >> 64) as u64 & 1;
    }
    borrow
}

/// a := b if `choice` is 1, unchanged if it is 0.
pub fn assign_if(choice: u64, a: &mut [u64], b: &[u64]) {
    let mask = std::hint::black_box((choice & 1).wrapping_neg());
    for (a, &b) in a.iter_mut().zip(b) {
        *a = (*a & !mask) | (b & mask);
    }
}

/// The number as little-endian bytes, eight per limb.
#[must_use]
pub fn to_bytes(a: &[u64]) -> Vec<u8> {
    a.iter().flat_map(|limb| limb.to_le_bytes()).collect()
}

/// Limbs from little-endian bytes; a last limb that is not full is filled with zeros.
#[must_use]
pub fn from_bytes(bytes: &[u8]) -> Vec<u64> {
    bytes
        .chunks(8)
        .map(|chunk| {
            let mut limb = [0; 8];
            limb[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(limb)
        })
        .collect()
}
