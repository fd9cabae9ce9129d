//! What can be wrong with keys, ciphertexts and proofs. No plaintext, share or randomness is ever part of an error.

use veilmatch_domain::Party;

use crate::Parts;

/// Why something is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PaillierError {
    /// Another number of bytes than the fields ask for.
    #[error("{found} bytes; this {what} has {expected}")]
    Length {
        /// What was read.
        what: &'static str,
        /// Number of bytes.
        found: usize,
        /// Number of bytes of a well-formed one.
        expected: usize,
    },
    /// A number that is not below its modulus, or above its bound.
    #[error("the {what} is out of range")]
    OutOfRange {
        /// Which number.
        what: &'static str,
    },
    /// A number that shares a factor with N.
    #[error("the {what} is not invertible")]
    NotInvertible {
        /// Which number.
        what: &'static str,
    },
    /// A public key whose elements do not fit each other.
    #[error("not a public key: {why}")]
    Key {
        /// What does not fit.
        why: &'static str,
    },
    /// A field that does not decode.
    #[error("the {what} is malformed")]
    Malformed {
        /// Which field.
        what: &'static str,
    },
    /// A ciphertext or plaintext of another key.
    #[error("this belongs to another key")]
    OtherKey,
    /// Two lists that go together have different lengths, or a list is too long or empty.
    #[error("{found} {what}; expected {expected}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many are allowed or expected.
        expected: usize,
    },
    /// A slot that a packed plaintext does not have.
    #[error("slot {slot} of {slots}")]
    Slot {
        /// Which slot.
        slot: usize,
        /// How many there are.
        slots: usize,
    },
    /// A proof of plaintext knowledge that does not hold.
    #[error("the proof that the client knows what it encrypted does not hold")]
    Knowledge,
    /// A partial decryption that is not what the holder's share gives.
    #[error("the partial decryption of {parts} by {party} is wrong")]
    Decryption {
        /// Who sent it.
        party: Party,
        /// For which parts.
        parts: Parts,
    },
    /// A holder that claims a part which it does not have.
    #[error("{party} does not know {parts}")]
    NotItsPart {
        /// Who.
        party: Party,
        /// Which.
        parts: Parts,
    },
}
