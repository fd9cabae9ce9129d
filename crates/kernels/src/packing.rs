//! Residues as bytes.

/// Why bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PackingError {
    /// Another number of bytes than four per residue.
    Length,
    /// A value that is not a residue.
    NotCanonical,
}

/// Residues as little-endian words of four bytes: 3 % longer than packed to 31 bits, and as fast as copying.
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
