//! The append-only, hash-chained log of openings (invariant 7 of DESIGN section 7).
//!
//! An entry is appended before a holder sends its share of an opening, and another with the outcome before its reply
//! leaves. Each entry's hash covers the previous one, so that a removed, changed or reordered entry breaks the chain.

use borsh::{BorshDeserialize, BorshSerialize};
use veilmatch_domain::{ClientId, CollectionId, Outcome, Query, SessionId, Timestamp};
use veilmatch_secret::{Digest, Hasher};

/// What is about to be opened, or was.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum AuditEvent {
    /// Whether sealed templates have unit norm is about to be opened.
    NormCheck {
        /// How many templates.
        templates: u32,
    },
    /// A decision is about to be opened. For `matches` the entry appears once per stage.
    Opening {
        /// Who asked.
        client: ClientId,
        /// Of which collection.
        collection: CollectionId,
        /// What.
        query: Query,
        /// 0, or 1 for the slots of a `matches` decision that is within its cap.
        stage: u8,
    },
    /// What was opened.
    Outcome(Outcome),
}

/// One entry of the chain.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AuditEntry {
    /// From 0, without gaps.
    pub sequence: u64,
    /// When.
    pub time: Timestamp,
    /// In which session.
    pub session: SessionId,
    /// What.
    pub event: AuditEvent,
    /// Hash of the previous entry; of nothing for the first.
    pub previous: Digest,
    /// Hash of this entry.
    pub hash: Digest,
}

impl AuditEntry {
    fn compute_hash(&self) -> Digest {
        let mut hasher = Hasher::new("veilmatch/audit");
        hasher.number(self.sequence).number(self.time.0).field(&self.session.0).field(&self.previous.0);
        if let Ok(event) = borsh::to_vec(&self.event) {
            hasher.field(&event);
        }
        hasher.finish()
    }

    /// Whether this entry is whole and comes directly after `previous`; `None` stands for the beginning of the log.
    #[must_use]
    pub fn follows(&self, previous: Option<&AuditEntry>) -> bool {
        let (sequence, hash) = match previous {
            None => (Some(0), genesis()),
            Some(entry) => (entry.sequence.checked_add(1), entry.hash),
        };
        Some(self.sequence) == sequence && self.previous == hash && self.compute_hash() == self.hash
    }
}

/// The log of one holder, in memory; the key-holder service writes it to disk before it lets go.
#[derive(Debug, Default)]
pub struct AuditLog {
    entries: Vec<AuditEntry>,
}

fn genesis() -> Digest {
    Hasher::new("veilmatch/audit/genesis").finish()
}

impl AuditLog {
    /// Appends an event.
    pub fn append(&mut self, time: Timestamp, session: SessionId, event: AuditEvent) {
        let previous = self.entries.last().map_or_else(genesis, |e| e.hash);
        let sequence = self.entries.len() as u64;
        let mut entry = AuditEntry { sequence, time, session, event, previous, hash: previous };
        entry.hash = entry.compute_hash();
        self.entries.push(entry);
    }

    /// All entries, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[AuditEntry] {
        &self.entries
    }

    /// The sequence number of the first entry that breaks the chain, if any does.
    #[must_use]
    pub fn first_break(entries: &[AuditEntry]) -> Option<u64> {
        let mut previous = None;
        for (sequence, entry) in (0u64..).zip(entries) {
            if !entry.follows(previous) {
                return Some(sequence);
            }
            previous = Some(entry);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_breaks_the_chain() {
        let mut log = AuditLog::default();
        for i in 0..5 {
            log.append(Timestamp(i), SessionId([i as u8; 32]), AuditEvent::NormCheck { templates: i as u32 });
        }
        assert_eq!(AuditLog::first_break(log.entries()), None);
        let altered = |change: &dyn Fn(&mut Vec<AuditEntry>)| {
            let mut entries = log.entries().to_vec();
            change(&mut entries);
            AuditLog::first_break(&entries)
        };
        assert_eq!(altered(&|e| e[2].time = Timestamp(9)), Some(2));
        assert_eq!(altered(&|e| drop(e.remove(1))), Some(1));
        assert_eq!(altered(&|e| e.swap(3, 4)), Some(3));
        assert_eq!(altered(&|e| e[0].event = AuditEvent::NormCheck { templates: 7 }), Some(0));
    }
}
