//! A matcher that is sent anything, as by a client or by a holder: it never panics and no holder's view changes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use veilmatch_cluster::Address;

fuzz_target!(|data: &[u8]| {
    veilmatch_fuzz::attack(data, |to| to == Address::Matcher, Address::Matcher);
});
