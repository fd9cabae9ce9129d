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
}
