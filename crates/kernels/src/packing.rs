//! Residues as a dense bit string, least significant bit first.

/// Why packed bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PackingError {
    /// Another number of bytes than [`packed_bytes`] says.
    Length,
    /// A value that is not a residue, or set bits after the last one.
    NotCanonical,
}

/// Bits per residue of this modulus.
fn bits(modulus: u32) -> usize {
    (32 - (modulus - 1).leading_zeros()) as usize
}

/// Bytes that `count` residues take.
#[must_use]
pub fn packed_bytes(modulus: u32, count: usize) -> usize {
    (count * bits(modulus)).div_ceil(8)
}

/// Packs residues below `modulus`.
#[must_use]
pub fn pack(modulus: u32, residues: &[u32]) -> Vec<u8> {
    let width = bits(modulus);
    let mut bytes = Vec::with_capacity(packed_bytes(modulus, residues.len()) + 8);
    let (mut buffer, mut filled) = (0u64, 0usize);
    for &residue in residues {
        buffer |= u64::from(residue) << filled;
        filled += width;
        if filled >= 32 {
            bytes.extend_from_slice(&(buffer as u32).to_le_bytes());
            buffer >>= 32;
            filled -= 32;
        }
    }
    bytes.extend_from_slice(&buffer.to_le_bytes()[..filled.div_ceil(8)]);
    bytes
}

/// Unpacks `count` residues and checks that they are canonical.
///
/// # Errors
/// [`PackingError`] if the length is off or a value is not below `modulus`.
pub fn unpack(modulus: u32, bytes: &[u8], count: usize) -> Result<Vec<u32>, PackingError> {
    if bytes.len() != packed_bytes(modulus, count) {
        return Err(PackingError::Length);
    }
    let width = bits(modulus);
    let mask = (1u64 << width) - 1;
    let unused = bytes.len() * 8 - count * width;
    if bytes.last().is_some_and(|&last| unused > 0 && last >> (8 - unused) != 0) {
        return Err(PackingError::NotCanonical);
    }
    // A residue of at most 31 bits lies within the eight bytes from the one it begins in; the last ones get a short read.
    let window = |byte: usize| match bytes.get(byte..byte + 8).and_then(|w| w.try_into().ok()) {
        Some(word) => u64::from_le_bytes(word),
        None => bytes[byte..].iter().rev().fold(0u64, |word, &b| word << 8 | u64::from(b)),
    };
    let residues: Vec<u32> = (0..count).map(|i| (window(i * width / 8) >> (i * width % 8) & mask) as u32).collect();
    if residues.iter().all(|&r| r < modulus) { Ok(residues) } else { Err(PackingError::NotCanonical) }
}

/// Residues as little-endian words of four bytes: a bit longer than packed, and as fast as copying.
#[must_use]
pub fn to_bytes(residues: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0u8; residues.len() * 4];
    for (word, residue) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(residues) {
        *word = residue.to_le_bytes();
    }
    bytes
}

/// The inverse of [`to_bytes`] for `count` residues; checks that they are canonical.
///
/// # Errors
/// [`PackingError`] if the length is off or a value is not below `modulus`.
pub fn from_bytes(modulus: u32, bytes: &[u8], count: usize) -> Result<Vec<u32>, PackingError> {
    if count.checked_mul(4) != Some(bytes.len()) {
        return Err(PackingError::Length);
    }
    let residues: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    // All of them are looked at, so that the loop has no branch.
    let largest = residues.iter().fold(0, |largest, &r| largest.max(r));
    if residues.is_empty() || largest < modulus { Ok(residues) } else { Err(PackingError::NotCanonical) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::{Lcg, Q};

    #[test]
    fn packing_is_exact_and_canonical() {
        let mut lcg = Lcg(17);
        for modulus in [Q, 268_369_921, 5] {
            for count in [0usize, 1, 2, 7, 8, 9, 2048] {
                let residues: Vec<u32> =
                    (0..count).map(|i| if i % 5 == 0 { modulus - 1 } else { lcg.below(modulus) }).collect();
                let bytes = pack(modulus, &residues);
                assert_eq!(bytes.len(), packed_bytes(modulus, count));
                assert_eq!(unpack(modulus, &bytes, count), Ok(residues));
                assert_eq!(unpack(modulus, &bytes, count + 9), Err(PackingError::Length));
            }
        }
        assert_eq!(packed_bytes(Q, 2048), 7936);
        assert_eq!(unpack(Q, &[0xff; 7936], 2048), Err(PackingError::NotCanonical));
        assert_eq!(unpack(Q, &[0, 0, 0, 0x80], 1), Err(PackingError::NotCanonical));
    }

    #[test]
    fn words_are_exact_and_canonical() {
        let mut lcg = Lcg(18);
        for modulus in [Q, 268_369_921] {
            for count in [0usize, 1, 7, 2048] {
                let residues: Vec<u32> =
                    (0..count).map(|i| if i % 5 == 0 { modulus - 1 } else { lcg.below(modulus) }).collect();
                let mut bytes = to_bytes(&residues);
                assert_eq!(from_bytes(modulus, &bytes, count), Ok(residues));
                assert_eq!(from_bytes(modulus, &bytes, count + 1), Err(PackingError::Length));
                assert_eq!(from_bytes(modulus, &bytes, usize::MAX), Err(PackingError::Length));
                if let Some(last) = bytes.last_chunk_mut::<4>() {
                    *last = modulus.to_le_bytes();
                    assert_eq!(from_bytes(modulus, &bytes, count), Err(PackingError::NotCanonical));
                }
            }
        }
    }
}
