//! Sealed templates: replicated splitting, hybrid KEM, associated data, signatures, sealed replies (DESIGN 3.2).
//!
//! This is the client's and the public half: it seals, checks signatures, reads public fields and lets a client open
//! the replies to its own requests. What opens a template lives in `veilmatch-holder`, because the matcher depends on
//! this crate and must not be able to name a decapsulation key or a share. It depends on `domain` and `secret` alone.
//!
//! # What a sealed template is
//!
//! The quantised vector m is split, m = p⁽⁰⁾ + p⁽¹⁾ + p⁽²⁾ mod 2⁴⁸. Parts 0 and 1 are expanded from 32-byte seeds, part 2 is
//! data, encrypted once under a fresh content key. The *material* of a part is its seed or the content key. For every
//! holder K_i there is one X-Wing (X25519 + ML-KEM-768) ciphertext and one packet that holds the material of part i,
//! the material of part i+1 and K_i's reply key. The client signs the [digest](SealedTemplate::digest).
//!
//! # Who sees what, and why that is harmless
//!
//! - *Nobody without a decapsulation key* (matcher, storage, network) sees the associated data and lengths. X-Wing is
//!   CCA-secure if X25519 or ML-KEM-768 holds, so the KEM secrets are uniform to him, so are the packet keys (a PRF of
//!   those secrets), so are the materials (AEAD), so is the content key, so is part 2 (AEAD). The lengths depend on the
//!   associated data alone.
//! - *One holder K_i* gets parts i and i+1. Part i+2 is the expansion of a seed that it does not have, or the data part
//!   under a content key that it does not have. K_0 reads p⁽⁰⁾, p⁽¹⁾, both independent of m. K_1 reads p⁽¹⁾ and
//!   p⁽²⁾ = m − p⁽⁰⁾ − p⁽¹⁾ and does not know seed 0, so p⁽⁰⁾ is a pseudo-random pad on m; K_2 likewise with p⁽¹⁾. Two
//!   holders together restore m: the honest majority that DESIGN section 1 assumes.
//! - *One holder with the matcher* has no more than these two views: the ciphertexts were public already.
//! - *Another client* cannot resubmit a template as its own: the client's name is in the associated data of every AEAD,
//!   and of the derivation of its key, so a copy under another name does not open. It cannot change the subject,
//!   the query, the expiry or the set of readers for the same reason, and the signature refuses it before that.
//! - *A lying client* may give the two holders of a part different material (AEADs do not commit to their keys: one
//!   ciphertext can open under two content keys). The two compare a digest of the part's plain values, mixed with the
//!   material so that the third holder, who could compute the values from a guessed m, cannot confirm a guess.
//! - *The matcher carrying a reply* sees a length that depends on the query alone.
//!
//! # Why no nonce repeats
//!
//! Packets and the data part use ChaCha20-Poly1305 with nonce zero under a key that seals one message: it is
//! derived from a secret drawn for that message ([`seal_once`] consumes it). A reply key may seal several messages (a
//! retry), so replies use XChaCha20-Poly1305 with nonce = counter ‖ PRF(counter, content): the
//! [`Counter`](veilmatch_secret::Counter) never repeats, and if a holder is restored from an old copy and its counter
//! does, two different contents still get different nonces and equal contents give equal bytes.
//!
//! What is not wiped: the internal states of hash functions, the padded outcome inside a nonce label, and what `veilmatch-secret` names.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")
)]

mod administration;
mod erasure;
mod error;
mod keys;
mod once;
mod parts;
mod reply;
mod seal;
mod template;

pub use administration::{Administration, Audience, SignedAdministration};
pub use erasure::SignedErasure;
pub use error::SealedError;
pub use keys::{ClientSigningKey, ClientVerifyingKey, HOLDER_KEY_BYTES, HolderPublicKey, SIGNATURE_BYTES, readers};
pub use once::{TAG_BYTES, open_once, seal_once};
pub use parts::{
    COORDINATE_BYTES, COORDINATE_SCALE, RING_BITS, RING_MASK, Split, expand_part, pack, quantise, split, unpack,
};
pub use reply::{ReplyError, ReplyKey, ReplyKeys, combine_replies, open_reply, reply_length, seal_reply};
pub use seal::seal;
pub use template::{
    Associated, HolderPacket, KEM_BYTES, MATERIAL_BYTES, MAX_ASSOCIATED, MAX_SEALED, PACKET_BYTES, SealedTemplate,
    data_context, packet_context, sealed_bytes,
};
