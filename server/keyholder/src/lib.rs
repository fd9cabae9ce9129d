//! The key holder's service.
