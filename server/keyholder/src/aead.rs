//! Sealing what is stored: XChaCha20-Poly1305, whose nonces are long enough to be drawn at random.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use veilmatch_secret::{Entropy, Secret, Seed};

/// Bytes of the nonce in front.
pub(crate) const NONCE_BYTES: usize = 24;
/// Bytes of the tag at the end.
pub(crate) const TAG_BYTES: usize = 16;

/// Nonce, ciphertext, tag. `None` beyond the cipher's 256 GiB.
pub(crate) fn seal(key: &Seed, associated: &[u8], plain: &[u8], entropy: &mut dyn Entropy) -> Option<Vec<u8>> {
    let mut nonce = [0; NONCE_BYTES];
    entropy.fill_bytes(&mut nonce);
    let cipher = XChaCha20Poly1305::new(key.expose().into());
    let sealed = cipher.encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: associated }).ok()?;
    Some([&nonce, sealed.as_slice()].concat())
}

/// What [`seal`] sealed under the same key with the same associated data, and nothing else.
pub(crate) fn open(key: &Seed, associated: &[u8], sealed: &[u8]) -> Option<Secret<Vec<u8>>> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
    let cipher = XChaCha20Poly1305::new(key.expose().into());
    cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: associated }).ok().map(Secret::new)
}
