//! Canonical labels and digests with domain separation.

use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;

/// A 32-byte BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Digest(pub [u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(")?;
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// What a pseudo-random stream is for, as canonical bytes: every field carries its length, so that no two
/// different sequences of fields collide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label(Vec<u8>);

impl Label {
    /// Starts a label in a domain such as `"veilmatch/recrypt/error"`; one domain per use in the code.
    #[must_use]
    pub fn new(domain: &'static str) -> Self {
        Label(Vec::with_capacity(96)).bytes(domain.as_bytes())
    }

    /// Adds a field of bytes.
    #[must_use]
    pub fn bytes(mut self, field: &[u8]) -> Self {
        self.0.extend_from_slice(&(field.len() as u64).to_le_bytes());
        self.0.extend_from_slice(field);
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(self, field: u64) -> Self {
        self.bytes(&field.to_le_bytes())
    }

    /// The canonical bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The digest of the label itself: for public hashes such as those of transcripts.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(*blake3::hash(&self.0).as_bytes())
    }
}

/// An incremental digest in a domain; fields carry their lengths as in [`Label`].
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Starts a digest in a domain.
    #[must_use]
    pub fn new(domain: &'static str) -> Self {
        let mut hasher = Hasher(blake3::Hasher::new());
        hasher.field(domain.as_bytes());
        hasher
    }

    /// Adds a field of bytes.
    pub fn field(&mut self, field: &[u8]) -> &mut Self {
        self.0.update(&(field.len() as u64).to_le_bytes());
        self.0.update(field);
        self
    }

    /// Adds a number.
    pub fn number(&mut self, field: u64) -> &mut Self {
        self.field(&field.to_le_bytes())
    }

    /// The digest of all fields so far.
    #[must_use]
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_together() {
        let a = Label::new("test").bytes(b"ab").bytes(b"c");
        let b = Label::new("test").bytes(b"a").bytes(b"bc");
        let c = Label::new("test").bytes(b"abc");
        assert_ne!(a, b);
        assert_ne!(b, c);
        assert_ne!(a.digest(), Label::new("other").bytes(b"ab").bytes(b"c").digest());
    }

    #[test]
    fn hasher_and_label_agree() {
        let label = Label::new("test").bytes(b"x").number(7);
        assert_eq!(Hasher::new("test").field(b"x").number(7).finish(), label.digest());
    }
}
