//! A wrapper that keeps a value out of logs and wipes it.

use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// A value that is redacted in `Debug`, wiped on drop, not `Clone`, and read only through [`Secret::expose`].
pub struct Secret<T: Zeroize>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    /// Wraps a value.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self(Zeroizing::new(value))
    }

    /// Reads the value. Search for this word to review every use of a secret.
    #[must_use]
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// Changes the value in place.
    #[must_use]
    pub fn expose_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Zeroize + Clone> Secret<T> {
    /// A deliberate second copy (`Clone` is not implemented, so that none is made by accident).
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// Equality in constant time; only the lengths may show.
#[must_use]
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_is_redacted() {
        assert_eq!(format!("{:?}", Secret::new([7u8; 32])), "Secret(redacted)");
    }

    #[test]
    fn equality_sees_every_byte_and_the_length() {
        let a = [9u8; 40];
        for i in 0..40 {
            let mut b = a;
            b[i] ^= 0x80;
            assert!(!equal(&a, &b));
        }
        assert!(equal(&a, &a));
        assert!(!equal(&a, &a[..39]));
    }
}
