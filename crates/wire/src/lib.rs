//! The gRPC interface `veilmatch.v1`: generated code, and conversions of public types in pairs.
//!
//! The messages are in `proto/veilmatch/v1`. What comes off the wire becomes a type of `veilmatch_domain` or
//! `veilmatch_glwe` here or is refused with a [`WireError`]. This room reaches no key holder's types.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")
)]

mod conversions;
mod error;
mod status;

pub use conversions::{CollectionInfo, TemplateInfo, TemplateState, page_size};
pub use error::WireError;
pub use status::{MAX_CODE, MAX_MESSAGE, MAX_SUSPECTS, refusal, status, status_of};

/// Generated code: messages, clients and servers. Documented in the proto files.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::allow_attributes_without_reason, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("veilmatch.v1");
}

/// The encoded descriptors of `veilmatch.v1`, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/veilmatch.v1.bin"));

/// Most sealed templates in one `Enroll`.
pub const MAX_BATCH: usize = veilmatch_glwe::MAX_ADMISSION;

/// Most bytes in one gRPC message, in either direction: a full batch of the largest sealed templates fits.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

// Tag and length of each item take 4 bytes or fewer; the rest is for the collection's name.
const _: () = assert!(MAX_BATCH * (veilmatch_sealed::MAX_SEALED + 4) + 256 <= MAX_MESSAGE_BYTES);

/// Most bytes of data in one [`v1::Chunk`].
pub const MAX_CHUNK: usize = 1 << 20;
