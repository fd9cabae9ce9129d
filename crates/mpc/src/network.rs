//! A network in memory: for tests, simulations and the demo in one process. No IO, no threads, no clock.
//!
//! Messages are delivered first in, first out, each to its receiver alone. Faults are scripted: the n-th message on a
//! link is lost, repeated, held back, cut, altered or attributed to somebody else. Every byte is counted, and copies are
//! kept on request (for view tests).

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;

/// A message on its way out of the network.
#[derive(Clone, PartialEq, Eq)]
pub struct Delivery<A> {
    /// Who sent it, as the transport says.
    pub from: A,
    /// Who receives it.
    pub to: A,
    /// What.
    pub bytes: Vec<u8>,
}

impl<A: Debug> Debug for Delivery<A> {
    // Holders send each other seeds; the transport that keeps them secret is not part of this network.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Delivery({:?} to {:?}, {} bytes)", self.from, self.to, self.bytes.len())
    }
}

/// What happens to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind<A> {
    /// It never arrives.
    Lose,
    /// It arrives twice.
    Repeat,
    /// It arrives after the next message on the same link that is not held back itself.
    Reorder,
    /// Its last bytes are missing.
    Truncate {
        /// How many.
        bytes: usize,
    },
    /// One bit is flipped.
    Alter {
        /// Which byte, counted modulo the length.
        byte: usize,
        /// Which bit, 0 to 7.
        bit: u8,
    },
    /// The transport names another sender.
    Misattribute {
        /// Whom.
        to: A,
    },
    /// Something else arrives.
    Replace {
        /// What.
        bytes: Vec<u8>,
    },
}

/// A fault on the n-th message (from 0) of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault<A> {
    /// Sender.
    pub from: A,
    /// Receiver.
    pub to: A,
    /// Which message of the link.
    pub nth: usize,
    /// What happens to it.
    pub kind: FaultKind<A>,
}

/// Bytes that an address sent and received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
}

/// The network. `A` is an address.
#[derive(Debug)]
pub struct Network<A: Copy + Ord + Debug> {
    queue: VecDeque<Delivery<A>>,
    held: BTreeMap<(A, A), Vec<Delivery<A>>>,
    counts: BTreeMap<(A, A), usize>,
    faults: Vec<Fault<A>>,
    traffic: BTreeMap<A, Traffic>,
    record: Option<Vec<Delivery<A>>>,
}

impl<A: Copy + Ord + Debug> Default for Network<A> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            held: BTreeMap::new(),
            counts: BTreeMap::new(),
            faults: Vec::new(),
            traffic: BTreeMap::new(),
            record: None,
        }
    }
}

impl<A: Copy + Ord + Debug> Network<A> {
    /// A network without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fault. From now on the messages of its link are counted anew, for every fault on that link.
    pub fn inject(&mut self, fault: Fault<A>) {
        self.counts.insert((fault.from, fault.to), 0);
        self.faults.push(fault);
    }

    /// Removes every fault that has not struck.
    pub fn heal(&mut self) {
        self.faults.clear();
    }

    /// Keeps a copy of everything that is delivered from now on.
    pub fn record(&mut self) {
        self.record = Some(Vec::new());
    }

    /// The copies so far.
    pub fn take_record(&mut self) -> Vec<Delivery<A>> {
        self.record.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Sends a message.
    pub fn send(&mut self, from: A, to: A, bytes: Vec<u8>) {
        self.traffic.entry(from).or_default().sent += bytes.len() as u64;
        let count = self.counts.entry((from, to)).or_insert(0);
        let nth = *count;
        *count += 1;
        let struck = self.faults.iter().position(|f| f.from == from && f.to == to && f.nth == nth);
        let fault = struck.map(|place| self.faults.remove(place).kind);
        let mut delivery = Delivery { from, to, bytes };
        match fault {
            Some(FaultKind::Lose) => return,
            Some(FaultKind::Repeat) => self.queue.push_back(delivery.clone()),
            Some(FaultKind::Reorder) => {
                self.held.entry((from, to)).or_default().push(delivery);
                return;
            }
            Some(FaultKind::Truncate { bytes }) => {
                let kept = delivery.bytes.len().saturating_sub(bytes);
                delivery.bytes.truncate(kept);
            }
            Some(FaultKind::Alter { byte, bit }) => {
                let place = byte % delivery.bytes.len().max(1);
                if let Some(byte) = delivery.bytes.get_mut(place) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            Some(FaultKind::Misattribute { to }) => delivery.from = to,
            Some(FaultKind::Replace { bytes }) => delivery.bytes = bytes,
            None => {}
        }
        self.queue.push_back(delivery);
        self.queue.extend(self.held.remove(&(from, to)).unwrap_or_default());
    }

    /// The next message, in order of sending. A message that is held back comes at the latest when nothing else is left.
    pub fn deliver(&mut self) -> Option<Delivery<A>> {
        if self.queue.is_empty()
            && let Some((_, held)) = self.held.pop_first()
        {
            self.queue.extend(held);
        }
        let delivery = self.queue.pop_front()?;
        self.traffic.entry(delivery.to).or_default().received += delivery.bytes.len() as u64;
        if let Some(record) = &mut self.record {
            record.push(delivery.clone());
        }
        Some(delivery)
    }

    /// Bytes that an address has sent and received.
    #[must_use]
    pub fn traffic(&self, address: A) -> Traffic {
        self.traffic.get(&address).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
