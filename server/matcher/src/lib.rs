//! The matcher's service.
