//! A holder that is sent anything, as by the matcher or by a peer: it never panics and its view stays as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use veilmatch_cluster::Address;
use veilmatch_domain::Party;

fuzz_target!(|data: &[u8]| {
    veilmatch_fuzz::attack(data, |to| to == Address::Holder(Party::K0), Address::Holder(Party::K0));
});
