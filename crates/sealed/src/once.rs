//! Authenticated encryption of one message under a secret that seals nothing else.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use veilmatch_secret::{Label, Secret, Seed};

use crate::SealedError;

/// Bytes that sealing adds.
pub const TAG_BYTES: usize = 16;

/// Seals one message: ChaCha20-Poly1305 under PRF(secret, context) with nonce zero and the context as associated
/// data.
///
/// The zero nonce is sound because the key seals this message alone: `secret` must have been drawn for it, and is
/// consumed; to use it again one would have to write `duplicate`, which a review finds.
///
/// # Errors
/// [`SealedError::TooLong`] beyond the cipher's 256 GiB.
pub fn seal_once(secret: Seed, context: &Label, plain: &[u8]) -> Result<Vec<u8>, SealedError> {
    cipher(&secret, context)
        .encrypt(&Nonce::default(), Payload { msg: plain, aad: context.as_bytes() })
        .map_err(|_| SealedError::TooLong { found: plain.len(), limit: u32::MAX as usize })
}

/// Opens what [`seal_once`] sealed under the same secret and context. The secret is the border: whoever has it may
/// read.
///
/// # Errors
/// [`SealedError::NotAuthentic`] if a single bit of secret, context or bytes differs.
pub fn open_once(secret: &Seed, context: &Label, sealed: &[u8]) -> Result<Secret<Vec<u8>>, SealedError> {
    cipher(secret, context)
        .decrypt(&Nonce::default(), Payload { msg: sealed, aad: context.as_bytes() })
        .map(Secret::new)
        .map_err(|_| SealedError::NotAuthentic)
}

fn cipher(secret: &Seed, context: &Label) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(secret.derive(context).expose().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use veilmatch_secret::os_entropy;

    #[test]
    fn opens_under_the_same_secret_and_context_alone() {
        let context = Label::new("test").number(1);
        let sealed = seal_once(Seed::from_bytes([1; 32]), &context, b"material").unwrap();
        assert_eq!(sealed.len(), 8 + TAG_BYTES);
        let open = |seed: u8, context: &Label, sealed: &[u8]| open_once(&Seed::from_bytes([seed; 32]), context, sealed);
        assert_eq!(open(1, &context, &sealed).unwrap().expose(), b"material");
        assert_eq!(open(2, &context, &sealed).err(), Some(SealedError::NotAuthentic));
        assert_eq!(open(1, &Label::new("test").number(2), &sealed).err(), Some(SealedError::NotAuthentic));
        for length in 0..sealed.len() {
            assert!(open(1, &context, &sealed[..length]).is_err());
        }
        for i in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[i] ^= 1;
            assert!(open(1, &context, &altered).is_err());
        }
    }

    /// The fresh secret by what it protects: whoever knows one of two messages computes the other, if both were sealed
    /// under one secret, because the nonce is always zero.
    #[test]
    fn a_repeated_secret_would_give_a_message_away_and_a_fresh_one_does_not() {
        let context = Label::new("test");
        let (known, hidden) = ([0x5au8; 96], core::array::from_fn::<u8, 96, _>(|i| (i * i) as u8));
        let attack = |first: Seed, second: Seed| -> u32 {
            let (a, b) = (seal_once(first, &context, &known).unwrap(), seal_once(second, &context, &hidden).unwrap());
            let guess = a.iter().zip(&b).zip(&known).map(|((a, b), known)| a ^ b ^ known);
            guess.zip(&hidden).map(|(guess, hidden)| (!(guess ^ hidden)).count_ones()).sum()
        };
        let bits = 8 * hidden.len() as u32;
        let once = Seed::random(&mut *os_entropy());
        assert_eq!(attack(once.duplicate(), once), bits, "the attack must succeed, or it tests nothing");
        let trials = 64;
        let fresh = || Seed::random(&mut *os_entropy());
        let right: u32 = (0..trials).map(|_| attack(fresh(), fresh())).sum();
        let all = f64::from(trials * bits);
        assert!((f64::from(right) - all / 2.0).abs() < 6.0 * all.sqrt() / 2.0, "{right} of {all} bits");
    }
}
