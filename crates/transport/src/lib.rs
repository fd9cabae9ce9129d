//! What services and clients share below the protocol: TLS identities, channels, chunked streams.
