//! What a holder must not forget, as records that its driver keeps.
//!
//! A holder does no IO. Every change of its memory leaves it as [`Record`]s in a
//! [`Reaction`](crate::Reaction); the driver writes them, all or none, before it sends anything of that reaction. After
//! a restart the holder is made again from the records that are there.

use veilmatch_secret::Secret;

/// A key with its new value, or `None` if the key is gone. Values can hold seeds: whoever stores them encrypts them.
#[derive(Debug)]
pub struct Record {
    /// Unique; ordered bytes whose first one tells the kind.
    pub key: Vec<u8>,
    /// The value.
    pub value: Option<Secret<Vec<u8>>>,
}
