//! Counters for nonces and labels.

/// A counter that gives each value once. It is not `Clone` and cannot be set back; a holder that restarts
/// resumes above everything it may have given before.
#[derive(Debug)]
pub struct Counter {
    next: u64,
}

/// The counter has no values left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the counter is exhausted; begin a new key epoch")]
pub struct Exhausted;

impl Counter {
    /// Starts at zero under a key that has never been used.
    #[must_use]
    pub fn new() -> Self {
        Self { next: 0 }
    }

    /// Continues above the highest value that may have been given under the same key.
    ///
    /// # Errors
    /// [`Exhausted`] if there is no value above it.
    pub fn resume_after(highest: u64) -> Result<Self, Exhausted> {
        Ok(Self { next: highest.checked_add(1).ok_or(Exhausted)? })
    }

    /// The next value.
    ///
    /// # Errors
    /// [`Exhausted`] instead of ever wrapping around.
    pub fn advance(&mut self) -> Result<u64, Exhausted> {
        let value = self.next;
        self.next = value.checked_add(1).ok_or(Exhausted)?;
        Ok(value)
    }
}

impl Default for Counter {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_repeats_and_never_wraps() {
        let mut counter = Counter::new();
        assert_eq!((counter.advance(), counter.advance()), (Ok(0), Ok(1)));
        let mut late = Counter::resume_after(u64::MAX - 2).unwrap();
        assert_eq!(late.advance(), Ok(u64::MAX - 1));
        assert_eq!(late.advance(), Err(Exhausted));
        assert_eq!(late.advance(), Err(Exhausted));
        assert_eq!(Counter::resume_after(u64::MAX).err(), Some(Exhausted));
    }
}
