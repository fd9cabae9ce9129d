//! The gRPC interface `veilmatch.v1`: generated code and conversions.
