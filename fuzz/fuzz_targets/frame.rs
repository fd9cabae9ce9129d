//! A frame between holders: arbitrary bytes are never opened, and a sealed frame opens only as it was sealed.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use veilmatch_domain::{Party, SessionId};
use veilmatch_mpc::{Links, PairwiseSeeds};
use veilmatch_secret::Seed;

static LINKS: OnceLock<[Links; 3]> = OnceLock::new();

fn links() -> &'static [Links; 3] {
    LINKS.get_or_init(|| {
        let seed = |party: Party| Seed::from_bytes([party.index() as u8 + 1; 32]);
        Party::ALL.map(|party| Links::new(party, &PairwiseSeeds { own: seed(party), next: seed(party.next()) }))
    })
}

fuzz_target!(|data: &[u8]| {
    let [k0, k1, _] = links();
    for from in Party::ALL {
        assert!(k0.open(from, data).is_err(), "a tag was forged");
    }
    let Some((&[step, at, flip], payload)) = data.split_first_chunk::<3>() else { return };
    let mut sealed = k1.seal(SessionId([step; 32]), step.into(), Party::K0, payload);
    let frame = k0.open(Party::K1, &sealed).expect("what was sealed opens");
    assert_eq!((frame.payload.as_slice(), frame.step), (payload, u32::from(step)));
    if flip != 0 {
        let place = usize::from(at) * 7 % sealed.len();
        sealed[place] ^= flip;
        assert!(k0.open(Party::K1, &sealed).is_err(), "an altered frame opened");
    }
});
