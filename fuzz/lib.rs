//! What the targets share: an honest run to mutate messages of, and the splice that turns fuzz bytes into a message.
//!
//! ```sh
//! cargo +nightly fuzz run holder_message -- -max_total_time=30
//! ```

use std::sync::{Mutex, OnceLock, PoisonError};

use veilmatch_cluster::{Address, Cluster};
use veilmatch_domain::{Decision, Party};
use veilmatch_secret::Digest;
use veilmatch_tests::{cluster, query, random_unit, rng, subject};

/// The smallest dimension: the messages have every field and are short.
pub const DIMENSION: usize = 16;

/// A cluster with three people enrolled, and what an honest enrol, verify and erase delivered.
pub struct Honest {
    /// The parties.
    pub cluster: Cluster,
    /// Deliveries of the honest run: from, to, bytes.
    pub messages: Vec<(Address, Address, Vec<u8>)>,
}

impl Honest {
    fn new() -> Self {
        let mut cluster = cluster(DIMENSION, 1);
        let people: Vec<_> = (0..3).map(|i| (subject(i), random_unit(DIMENSION, &mut rng(i as u64)))).collect();
        let messages = std::sync::Arc::new(Mutex::new(Vec::new()));
        let log = std::sync::Arc::clone(&messages);
        cluster.tamper = Some(Box::new(move |delivery| {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.push((delivery.from, delivery.to, delivery.bytes.clone()));
            true
        }));
        cluster.enroll(&people, &mut |_| ()).unwrap();
        let verify = Decision::Verify { subject: subject(0) };
        cluster.ask(&people[0].1, query(verify, 0.3)).unwrap();
        cluster.ask(&people[1].1, query(Decision::Best, 0.3)).unwrap();
        let view = |cluster: &Cluster| cluster.holder(Party::K0).view(cluster.collection());
        let before = view(&cluster);
        cluster.erase(&subject(2)).unwrap();
        // Or the comparison in `attack` would prove nothing.
        assert!(before.is_some() && view(&cluster).is_some() && view(&cluster) != before);
        cluster.tamper = None;
        cluster.take_failures();
        let messages = std::mem::take(&mut *messages.lock().unwrap_or_else(PoisonError::into_inner));
        Self { cluster, messages }
    }

    /// Everything of the holders that queries depend on.
    pub fn views(&self) -> [Option<Digest>; 3] {
        Party::ALL.map(|party| self.cluster.holder(party).view(self.cluster.collection()))
    }

    /// Splices fuzz bytes into an honest message to `to`, or takes them as they are. The first byte chooses.
    pub fn message(&self, to: impl Fn(Address) -> bool, data: &[u8]) -> Option<(Address, Vec<u8>)> {
        let (&[choice, sender, at_low, at_high, cut], rest) = data.split_first_chunk::<5>()?;
        let senders = [Address::Matcher, Address::Client].into_iter().chain(Party::ALL.map(Address::Holder));
        let sender = senders.clone().nth(usize::from(sender) % 5).unwrap_or(Address::Matcher);
        if choice == 0 {
            return Some((sender, rest.to_vec()));
        }
        let candidates: Vec<_> = self.messages.iter().filter(|(_, receiver, _)| to(*receiver)).collect();
        let (from, _, honest) = candidates.get(usize::from(choice) % candidates.len())?;
        let mut bytes = honest.clone();
        let at = usize::from(u16::from_le_bytes([at_low, at_high])) % (bytes.len() + 1);
        let removed = usize::from(cut & 0x3f).min(bytes.len() - at);
        bytes.splice(at..at + removed, rest.iter().copied());
        // Bit 7: from whom the fuzzer likes.
        Some((if cut & 0x80 == 0 { *from } else { sender }, bytes))
    }
}

/// Delivers one message made of fuzz bytes to the cluster and lets it run; `to` says whom targets of this kind attack.
///
/// # Panics
/// If a holder's view has changed, or anything inside panics.
pub fn attack(data: &[u8], to: impl Fn(Address) -> bool, receiver: Address) {
    static HONEST: OnceLock<Mutex<Honest>> = OnceLock::new();
    let honest = HONEST.get_or_init(|| Mutex::new(Honest::new()));
    let mut honest = honest.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((from, bytes)) = honest.message(to, data) else { return };
    if from == receiver {
        return;
    }
    let before = honest.views();
    honest.cluster.network.send(from, receiver, bytes);
    honest.cluster.run();
    // No session may stay open from one input to the next.
    honest.cluster.pass_deadlines();
    honest.cluster.take_failures();
    assert_eq!(honest.views(), before, "a message that nobody honest sent changed what queries see");
}
