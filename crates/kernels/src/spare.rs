//! Rooms for results that are used again. The system gives out fresh memory page by page, which costs a scan more than writing
//! its sums: about a microsecond per 4 KiB (Zen 3, in a virtual machine), a twentieth of the scan's time.
//!
//! What is kept here has held ciphertexts alone, and is written anew before it is read.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Bytes that are kept at most: the sums of a million templates at β = 4 and more.
const MOST: usize = 32 << 20;

/// Rooms by their capacity.
struct Spare {
    rooms: BTreeMap<usize, Vec<Vec<u8>>>,
    bytes: usize,
}

static SPARE: Mutex<Spare> = Mutex::new(Spare { rooms: BTreeMap::new(), bytes: 0 });

/// An empty vector with room for so many bytes.
pub(crate) fn room(bytes: usize) -> Vec<u8> {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    // Not one that is much too large: it would keep the larger ones from those who need them.
    let found = spare.rooms.range_mut(bytes..=2 * bytes).find_map(|(_, rooms)| rooms.pop());
    match found {
        Some(room) => {
            spare.bytes -= room.capacity();
            room
        }
        None => Vec::with_capacity(bytes),
    }
}

/// Takes results back whose content was copied or sent, so that the next scan needs no fresh memory. At most 32 MiB are kept.
/// Only for what is no secret: nothing is wiped.
pub fn give_back(results: impl IntoIterator<Item = Vec<u8>>) {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    for mut room in results {
        let bytes = room.capacity();
        if bytes > 0 && spare.bytes + bytes <= MOST {
            room.clear();
            spare.bytes += bytes;
            spare.rooms.entry(bytes).or_default().push(room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, because all share the spare rooms. Sizes that no scan of this crate's tests asks for.
    #[test]
    fn rooms_come_back_empty_and_only_to_those_they_fit() {
        let bytes = 3_000_017;
        let given = vec![7u8; bytes];
        let place = given.as_ptr();
        give_back([given]);
        let other = room(bytes / 3);
        assert!(other.capacity() < bytes, "much smaller results do not take it");
        let again = room(bytes - 10);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        let another = room(bytes - 10);
        assert_ne!(another.as_ptr(), place, "it is given out once");
        give_back((0..20).map(|_| Vec::with_capacity(bytes)));
        assert!(SPARE.lock().unwrap().bytes <= MOST);
        let rooms = SPARE.lock().unwrap().rooms.values().flatten().map(Vec::capacity).sum::<usize>();
        assert!(rooms <= MOST && rooms > MOST - 2 * bytes, "{rooms}");
    }
}
