//! Packed residues: arbitrary bytes are refused or are the one spelling of what they unpack to.
#![no_main]

use libfuzzer_sys::fuzz_target;
use veilmatch_kernels::{pack, packed_bytes, unpack};

fuzz_target!(|data: &[u8]| {
    let Some((&[choice, low, high], bytes)) = data.split_first_chunk::<3>() else { return };
    let modulus = [2_147_389_441, 268_369_921, 5, 2][usize::from(choice & 3)];
    // Half of the time the count that fits the length.
    let bits = packed_bytes(modulus, 8);
    let fitting = bytes.len() * 8 / bits;
    let count = if choice & 4 == 0 { fitting } else { usize::from(u16::from_le_bytes([low, high])) };
    if let Ok(residues) = unpack(modulus, bytes, count) {
        assert_eq!(residues.len(), count);
        assert!(residues.iter().all(|&r| r < modulus));
        assert_eq!(pack(modulus, &residues), bytes, "one list has one spelling");
    }
    let residues: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|c| u32::from_le_bytes(*c) % modulus).collect();
    assert_eq!(unpack(modulus, &pack(modulus, &residues), residues.len()), Ok(residues));
});
