//! Residues as words: arbitrary bytes are refused or are the one spelling of what they decode to.
#![no_main]

use libfuzzer_sys::fuzz_target;
use veilmatch_kernels::{from_bytes, to_bytes};

fuzz_target!(|data: &[u8]| {
    let Some((&[choice, low, high], bytes)) = data.split_first_chunk::<3>() else { return };
    let modulus = [2_147_389_441, 268_369_921, 5, 2][usize::from(choice & 3)];
    // Half of the time the count that fits the length.
    let count = if choice & 4 == 0 { bytes.len() / 4 } else { usize::from(u16::from_le_bytes([low, high])) };
    if let Ok(residues) = from_bytes(modulus, bytes, count) {
        assert_eq!(residues.len(), count);
        assert!(residues.iter().all(|&r| r < modulus));
        assert_eq!(to_bytes(&residues), bytes, "one list has one spelling");
    }
    let residues: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|c| u32::from_le_bytes(*c) % modulus).collect();
    assert_eq!(from_bytes(modulus, &to_bytes(&residues), residues.len()), Ok(residues));
});
