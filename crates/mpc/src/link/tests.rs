use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::sharing::test_seeds;

fn links(tag: u8) -> [Links; 3] {
    let seeds = test_seeds(tag);
    Party::ALL.map(|party| Links::new(party, &seeds[party.index()]))
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

const SESSION: SessionId = SessionId([4; 32]);

fn frame(from: Party, step: u32, payload: &[u8]) -> Frame {
    Frame { session: SESSION, step, from, to: from.next(), payload: payload.to_vec() }
}

#[test]
fn every_pair_reads_each_others_frames() {
    let links = links(1);
    for from in Party::ALL {
        for to in from.peers() {
            for payload in [&b""[..], b"x", &[7; 1000]] {
                let bytes = links[from.index()].seal(SESSION, 9, to, payload);
                assert_eq!(bytes.len(), payload.len() + FRAME_OVERHEAD);
                let expected = Frame { session: SESSION, step: 9, from, to, payload: payload.to_vec() };
                assert_eq!(links[to.index()].open(from, &bytes), Ok(expected));
            }
        }
    }
}

#[test]
fn every_altered_bit_and_every_cut_is_seen() {
    let links = links(2);
    let bytes = links[0].seal(SESSION, 3, Party::K1, b"opening share");
    let altered = Err(ProtocolError::Altered { from: Party::K0 });
    for place in 0..bytes.len() {
        for bit in 0..8 {
            let mut copy = bytes.clone();
            copy[place] ^= 1 << bit;
            assert_eq!(links[1].open(Party::K0, &copy), altered, "byte {place}, bit {bit}");
        }
        assert_eq!(links[1].open(Party::K0, &bytes[..place]), altered, "{place} bytes");
        assert_eq!(links[1].open(Party::K0, &bytes[place + 1..]), altered);
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(links[1].open(Party::K0, &longer), altered);
}

#[test]
fn a_frame_is_good_for_one_direction_of_one_pair_only() {
    let links = links(3);
    for from in Party::ALL {
        for to in from.peers() {
            let bytes = links[from.index()].seal(SESSION, 3, to, b"share");
            for reader in Party::ALL {
                for claimed in Party::ALL {
                    if (claimed, reader) == (from, to) {
                        continue;
                    }
                    // To somebody else, reflected to its sender, from somebody else, from the reader itself.
                    let result = links[reader.index()].open(claimed, &bytes);
                    assert_eq!(result, Err(ProtocolError::Altered { from: claimed }), "{from}→{to} read by {reader}");
                }
            }
        }
    }
}

#[test]
fn frames_of_other_keys_and_forged_headers_are_refused() {
    let (ours, others) = (links(4), links(40));
    let foreign = others[0].seal(SESSION, 3, Party::K1, b"share");
    assert_eq!(ours[1].open(Party::K0, &foreign), Err(ProtocolError::Altered { from: Party::K0 }));
    // K0 knows the key of its pair with K1 but cannot speak as K1 or K2 to it: the header is part of what is read.
    for claimed in [Party::K1, Party::K2] {
        let mut content = borsh::to_vec(&Frame { from: claimed, ..frame(Party::K0, 3, b"share") }).unwrap();
        let tag = ours[0].tag(Party::K1, &content);
        content.extend(tag);
        assert_eq!(ours[1].open(Party::K0, &content), Err(ProtocolError::Altered { from: Party::K0 }));
    }
}

#[test]
fn an_authentic_frame_that_is_not_a_frame_is_refused() {
    let links = links(5);
    let mut content = borsh::to_vec(&frame(Party::K0, 3, b"share")).unwrap();
    content.push(0);
    for content in [&content[..], &content[..20], b""] {
        let mut bytes = content.to_vec();
        bytes.extend(links[0].tag(Party::K1, content));
        assert_eq!(links[1].open(Party::K0, &bytes), Err(ProtocolError::Altered { from: Party::K0 }));
    }
}

#[test]
fn an_inbox_gives_each_message_once() {
    let mut inbox = Inbox::new(SESSION);
    assert_eq!(inbox.insert(frame(Party::K0, 1, b"a")), Ok(()));
    assert_eq!(inbox.insert(frame(Party::K1, 1, b"b")), Ok(()));
    assert_eq!(inbox.insert(frame(Party::K0, 1, b"c")), Err(ProtocolError::Repeated { from: Party::K0 }));
    assert_eq!(inbox.take(Party::K0, 1).as_deref(), Some(&b"a"[..]));
    assert_eq!(inbox.take(Party::K0, 1), None);
    assert_eq!(inbox.insert(frame(Party::K0, 1, b"a")), Err(ProtocolError::Repeated { from: Party::K0 }));
    let stray = Frame { session: SessionId([5; 32]), ..frame(Party::K1, 2, b"d") };
    assert_eq!(inbox.insert(stray), Err(ProtocolError::WrongSession { from: Party::K1 }));
    assert_eq!(inbox.take(Party::K1, 1).as_deref(), Some(&b"b"[..]));
}

#[test]
fn a_sender_that_floods_fills_its_own_room_only() {
    let mut inbox = Inbox::new(SESSION);
    for step in 0..MAX_WAITING_FRAMES as u32 {
        assert_eq!(inbox.insert(frame(Party::K1, step, b"")), Ok(()));
    }
    assert_eq!(
        inbox.insert(frame(Party::K1, 9999, b"")),
        Err(ProtocolError::TooFarAhead { from: Party::K1, step: 9999 })
    );
    assert_eq!(inbox.insert(frame(Party::K2, 0, b"share")), Ok(()));
    // Refused is not seen: it may come again when there is room.
    assert!(inbox.take(Party::K1, 0).is_some());
    assert_eq!(inbox.insert(frame(Party::K1, 9999, b"")), Ok(()));

    let mut inbox = Inbox::new(SESSION);
    assert_eq!(inbox.insert(frame(Party::K1, 0, &vec![0; MAX_WAITING_BYTES])), Ok(()));
    assert_eq!(inbox.insert(frame(Party::K1, 1, b"x")), Err(ProtocolError::TooFarAhead { from: Party::K1, step: 1 }));
    assert_eq!(inbox.insert(frame(Party::K2, 1, b"x")), Ok(()));
}

#[test]
fn nothing_of_a_frame_shows_in_debug() {
    assert_eq!(format!("{:?}", frame(Party::K0, 7, b"share")), "Frame(K0 to K1, step 7, 5 bytes)");
    assert!(!format!("{:?}", links(6)).contains(|c: char| c.is_ascii_digit() && c > '2'));
}

fn party() -> impl Strategy<Value = Party> {
    (0..3usize).prop_map(Party::from_index)
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn arbitrary_bytes_are_never_a_frame(from in party(), to in party(), bytes in vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(links(7)[to.index()].open(from, &bytes), Err(ProtocolError::Altered { from }));
    }

    #[test]
    fn a_spliced_frame_is_refused(
        place in 0..100usize, len in 0..20usize, patch in vec(any::<u8>(), 0..20), payload in vec(any::<u8>(), 0..60),
    ) {
        let links = links(8);
        let bytes = links[0].seal(SESSION, 3, Party::K1, &payload);
        let from = place.min(bytes.len());
        let mut changed = bytes.clone();
        changed.splice(from..(from + len).min(bytes.len()), patch);
        prop_assume!(changed != bytes);
        prop_assert_eq!(links[1].open(Party::K0, &changed), Err(ProtocolError::Altered { from: Party::K0 }));
    }

    /// Against a model: the first frame of a number counts, once, as long as there is room.
    #[test]
    fn an_inbox_is_a_set_of_numbered_messages(
        events in vec((party(), 0..6u32, any::<bool>(), vec(any::<u8>(), 0..3)), 0..80),
    ) {
        let mut inbox = Inbox::new(SESSION);
        let mut seen = BTreeSet::new();
        let mut waiting = BTreeMap::new();
        for (from, step, insert, payload) in events {
            if insert {
                let result = inbox.insert(frame(from, step, &payload));
                if seen.insert((from, step)) {
                    prop_assert_eq!(result, Ok(()));
                    waiting.insert((from, step), payload);
                } else {
                    prop_assert_eq!(result, Err(ProtocolError::Repeated { from }));
                }
            } else {
                prop_assert_eq!(inbox.take(from, step), waiting.remove(&(from, step)));
            }
        }
    }
}
