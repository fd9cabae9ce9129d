//! Bytes of a client as a signed erasure: read, checked, and canonical if they are read.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use veilmatch_sealed::{ClientSigningKey, ClientVerifyingKey, SignedErasure};

static KEY: OnceLock<ClientVerifyingKey> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let key = KEY.get_or_init(|| ClientSigningKey::from_bytes(&[9; 32]).verifying_key());
    let Ok(erasure) = SignedErasure::from_bytes(data) else { return };
    assert_eq!(erasure.to_bytes(), data, "one request has one spelling");
    assert!(erasure.verify(key).is_err(), "a signature was forged");
});
