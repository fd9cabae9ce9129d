//! What services and clients share below the protocol: names in certificates, mutual TLS, messages in chunks, links that
//! come back after a break, and throw-away certificate authorities.
//!
//! Whoever calls or is called is known by the [`Name`] in its certificate. A [`Security`] says how a process proves its
//! own; [`channel`] dials a peer and accepts only the expected name; [`listen`] and [`server`] accept whoever has a
//! certificate of the authority, and [`peer_name`] tells a handler who it is. Plaintext exists for development on
//! loopback, where the caller is believed; a server opts into it with [`Trust::Plaintext`].
//!
//! This room knows no cryptography of the protocol and no key holder's types. It has no clock: whether a certificate has
//! expired is checked by rustls.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")
)]

mod chunks;
mod endpoint;
mod files;
mod identity;
mod links;
mod names;
mod pki;
mod queue;
mod tls;

pub use chunks::{Assembler, ChunkError, Chunks, chunks};
pub use endpoint::{Endpoint, EndpointError, Trust};
pub use files::{FileError, read_private, read_public, write_new_private, write_private, write_public};
pub use identity::{Identity, IdentityError, Security};
pub use links::{Backoff, DownReason, Link, LinkEvent, LinkOptions};
pub use names::{Name, NameError, OperatorName};
pub use pki::{Authority, Issued, PkiError, Validity};
pub use queue::{Incoming, IncomingError, LinkDown, Outgoing, Outlet, QueueLimits, Replies, queue};
pub use tls::{
    CONNECT_TIMEOUT, Connection, Introduction, KEEP_ALIVE, PeerError, TlsError, cause, channel, listen, peer_name,
    server,
};
