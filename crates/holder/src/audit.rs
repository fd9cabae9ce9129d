//! The append-only, hash-chained log of openings (invariant 7 of DESIGN section 7), and of what else a holder must answer
//! for.
//!
//! An entry is appended before a holder sends its share of an opening, and another with the outcome before its reply
//! leaves. Each entry's hash covers the previous one, so that a removed, changed or reordered entry breaks the chain. The
//! log is also the write-ahead log of the [`Ledger`](crate::ledger::Ledger): what budgets and lock-out count is read from it.

use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;

use veilmatch_domain::{
    ClientId, CollectionId, Decision, Epoch, Outcome, Party, Query, SessionId, SubjectId, Timestamp,
};
use veilmatch_secret::{Digest, Hasher};

/// The use of a probe: it works once.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ProbeUse {
    /// Who signed it.
    pub client: ClientId,
    /// Its nonce.
    pub nonce: [u8; 16],
    /// Until when the nonce must be remembered.
    pub expires: Timestamp,
}

/// What an administrator had this holder do.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Administered {
    /// A client was registered or its roles were changed.
    RegisterClient(ClientId),
    /// A client was revoked.
    RevokeClient(ClientId),
    /// A collection was created or its policy was changed.
    SetPolicy(CollectionId),
    /// A locked subject was unlocked.
    Unlock {
        /// In which collection.
        collection: CollectionId,
        /// Who.
        subject: SubjectId,
    },
    /// A ceremony was begun.
    BeginEpoch(Epoch),
    /// A lost holder may be answered.
    AllowRestore(Party),
}

/// What is about to be opened, or was. Its borsh encoding is what logs on disk consist of: variants and fields are never
/// changed, new variants go to the end.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum AuditEvent {
    /// Whether sealed templates have unit norm is about to be opened.
    NormCheck {
        /// How many templates.
        templates: u32,
        /// The probe, if it is one: used up from here on.
        probe: Option<ProbeUse>,
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
        /// The budget window of the collection's policy in seconds.
        window_seconds: u32,
    },
    /// What was opened.
    Outcome(Outcome),
    /// Templates were admitted.
    Admitted {
        /// To which collection.
        collection: CollectionId,
        /// How many.
        templates: u32,
    },
    /// A subject was erased.
    Erased {
        /// Who asked.
        client: ClientId,
        /// From which collection.
        collection: CollectionId,
        /// Who.
        subject: SubjectId,
    },
    /// A ceremony is complete here.
    Ceremony {
        /// The epoch that began.
        epoch: Epoch,
    },
    /// An administrator's request was carried out.
    Administered {
        /// The administrator's verifying key.
        administrator: [u8; 32],
        /// What.
        action: Administered,
    },
    /// A lost holder was answered.
    RestoreAnswered {
        /// Which.
        party: Party,
    },
    /// This holder was restored from its peers: the first entry of its new log.
    Restored,
    /// The coarse stage of a query is about to be opened: one bit per group.
    Preselection {
        /// Who asked.
        client: ClientId,
        /// Of which collection.
        collection: CollectionId,
        /// What, coarse stage included.
        query: Query,
        /// About how many groups.
        groups: u32,
        /// 0 for whether they are too many, 1 for which they are.
        stage: u8,
        /// The budget window of the collection's policy in seconds.
        window_seconds: u32,
    },
    /// What the coarse stage opened; the matcher is told.
    Preselected {
        /// How many groups hold candidates; `None` if more than the query's cap.
        candidates: Option<u32>,
        /// Out of how many.
        groups: u32,
    },
    /// This holder took its share of a threshold key (scheme `paillier`).
    ShareInstalled {
        /// Digest of the public key.
        key: Digest,
    },
    /// A subject's template gave way to a later one that was admitted.
    Superseded {
        /// Who asked.
        client: ClientId,
        /// In which collection.
        collection: CollectionId,
        /// Whose.
        subject: SubjectId,
    },
}

/// One entry of the chain.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AuditEntry {
    /// From 0, without gaps.
    pub sequence: u64,
    /// When.
    pub time: Timestamp,
    /// In which session; zeros if in none.
    pub session: SessionId,
    /// What.
    pub event: AuditEvent,
    /// Hash of the previous entry; of nothing for the first.
    pub previous: Digest,
    /// Hash of this entry.
    pub hash: Digest,
}

impl AuditEntry {
    /// The entry that comes directly after `previous`, or first if there is none.
    #[must_use]
    pub fn after(previous: Option<&AuditEntry>, time: Timestamp, session: SessionId, event: AuditEvent) -> Self {
        AuditLog::resume(previous.map(|p| (p.sequence, p.hash))).append(time, session, event)
    }

    fn compute_hash(&self) -> Digest {
        let mut hasher = Hasher::new("veilmatch/audit");
        hasher.number(self.sequence).number(self.time.0).field(&self.session.0).field(&self.previous.0);
        if let Ok(event) = borsh::to_vec(&self.event) {
            hasher.field(&event);
        }
        hasher.finish()
    }

    /// Whether the entry is whole and comes directly after `previous`, or first if there is none.
    #[must_use]
    pub fn follows(&self, previous: Option<&AuditEntry>) -> bool {
        self.follows_head(previous.map(|p| (p.sequence, p.hash)))
    }

    pub(crate) fn follows_head(&self, head: Option<(u64, Digest)>) -> bool {
        let (sequence, hash) = match head {
            Some((sequence, hash)) => (sequence.checked_add(1), hash),
            None => (Some(0), genesis()),
        };
        sequence == Some(self.sequence) && self.previous == hash && self.compute_hash() == self.hash
    }

    /// The position of the first entry that breaks the chain, if any does.
    #[must_use]
    pub fn first_break(entries: &[AuditEntry]) -> Option<usize> {
        let previous = std::iter::once(None).chain(entries.iter().map(Some));
        entries.iter().zip(previous).position(|(entry, previous)| !entry.follows(previous))
    }
}

fn genesis() -> Digest {
    Hasher::new("veilmatch/audit/genesis").finish()
}

/// The end of the log: all that the next entry needs.
#[derive(Debug, Default)]
pub(crate) struct AuditLog {
    head: Option<(u64, Digest)>,
}

impl AuditLog {
    /// Goes on after the entry with this number and hash.
    pub(crate) fn resume(head: Option<(u64, Digest)>) -> Self {
        Self { head }
    }

    /// Number and hash of the last entry.
    pub(crate) fn head(&self) -> Option<(u64, Digest)> {
        self.head
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> u64 {
        self.head.map_or(0, |(sequence, _)| sequence.saturating_add(1))
    }

    /// Appends an event.
    pub(crate) fn append(&mut self, time: Timestamp, session: SessionId, event: AuditEvent) -> AuditEntry {
        let previous = self.head.map_or_else(genesis, |(_, hash)| hash);
        let mut entry = AuditEntry { sequence: self.len(), time, session, event, previous, hash: previous };
        entry.hash = entry.compute_hash();
        self.head = Some((entry.sequence, entry.hash));
        entry
    }
}

impl fmt::Display for AuditEntry {
    /// One line: number, seconds since the Unix epoch, session, event.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.sequence, self.time, self.session, self.event)
    }
}

impl fmt::Display for AuditEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NormCheck { probe: Some(probe), .. } => write!(f, "norm-check of a probe of client {}", probe.client),
            Self::NormCheck { templates, probe: None } => write!(f, "norm-check of {templates} templates"),
            Self::Opening { client, collection, query, stage, .. } => {
                write!(f, "opening for client {client} in collection {collection}: ")?;
                match &query.decision {
                    Decision::Verify { subject } => write!(f, "verify {subject}")?,
                    Decision::Matches { max_matches } => write!(f, "matches, at most {max_matches}")?,
                    other => f.write_str(other.mode())?,
                }
                write!(f, " at {}, stage {stage}", query.threshold)
            }
            Self::Outcome(outcome) => {
                f.write_str("outcome: ")?;
                match outcome {
                    Outcome::Verify(true) => f.write_str("verified"),
                    Outcome::Verify(false) => f.write_str("not verified"),
                    Outcome::Exists(true) => f.write_str("exists"),
                    Outcome::Exists(false) => f.write_str("does not exist"),
                    Outcome::TooMany => f.write_str("too many matches"),
                    Outcome::Best(None) => f.write_str("no match"),
                    Outcome::Best(Some(subject)) => write!(f, "best match {subject}"),
                    Outcome::Matches(subjects) => {
                        write!(f, "{} matches", subjects.len())?;
                        subjects.iter().try_for_each(|subject| write!(f, " {subject}"))
                    }
                }
            }
            Self::Admitted { collection, templates } => write!(f, "admitted {templates} templates to {collection}"),
            Self::Erased { client, collection, subject } => {
                write!(f, "erased {subject} from {collection} for client {client}")
            }
            Self::Superseded { client, collection, subject } => {
                write!(f, "superseded the template of {subject} in {collection} for client {client}")
            }
            Self::Ceremony { epoch } => write!(f, "ceremony of epoch {epoch} complete"),
            Self::Administered { administrator, action } => {
                f.write_str("administrator ")?;
                administrator.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))?;
                match action {
                    Administered::RegisterClient(client) => write!(f, " registered client {client}"),
                    Administered::RevokeClient(client) => write!(f, " revoked client {client}"),
                    Administered::SetPolicy(collection) => write!(f, " set the policy of {collection}"),
                    Administered::Unlock { collection, subject } => write!(f, " unlocked {subject} in {collection}"),
                    Administered::BeginEpoch(epoch) => write!(f, " began epoch {epoch}"),
                    Administered::AllowRestore(party) => write!(f, " allowed {party} to be restored"),
                }
            }
            Self::RestoreAnswered { party } => write!(f, "answered the lost key holder {party}"),
            Self::Restored => f.write_str("restored from the two other key holders"),
            Self::Preselection { client, collection, query, groups, stage, .. } => {
                write!(f, "preselection for client {client} in collection {collection}: ")?;
                if let Some(asked) = query.preselection {
                    write!(f, "{} dimensions at {}, at most {}", asked.dimensions, asked.threshold, asked.most_groups)?;
                }
                write!(f, " of {groups} groups, stage {stage}")
            }
            Self::Preselected { candidates: Some(candidates), groups } => {
                write!(f, "preselected {candidates} of {groups} groups")
            }
            Self::ShareInstalled { key } => {
                f.write_str("took its share of the threshold key ")?;
                key.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Preselected { candidates: None, groups } => {
                write!(f, "more candidate groups of {groups} than asked for")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn norm_check(templates: u32) -> AuditEvent {
        AuditEvent::NormCheck { templates, probe: None }
    }

    #[test]
    fn every_change_breaks_the_chain() {
        let mut log = AuditLog::default();
        let append = |i: u64| log.append(Timestamp(i), SessionId([i as u8; 32]), norm_check(i as u32));
        let entries: Vec<AuditEntry> = (0..5).map(append).collect();
        assert_eq!(AuditEntry::first_break(&entries), None);
        assert_eq!(log.len(), 5);
        let altered = |change: &dyn Fn(&mut Vec<AuditEntry>)| {
            let mut entries = entries.clone();
            change(&mut entries);
            AuditEntry::first_break(&entries)
        };
        assert_eq!(altered(&|e| e[2].time = Timestamp(9)), Some(2));
        assert_eq!(altered(&|e| drop(e.remove(1))), Some(1));
        assert_eq!(altered(&|e| e.swap(3, 4)), Some(3));
        assert_eq!(altered(&|e| e[0].event = norm_check(7)), Some(0));
        let mut resumed = AuditLog::resume(Some((entries[4].sequence, entries[4].hash)));
        assert!(resumed.append(Timestamp(6), SessionId([6; 32]), norm_check(1)).follows(Some(&entries[4])));
    }

    #[test]
    fn an_entry_is_one_line() {
        let event = AuditEvent::Erased {
            client: ClientId::new("gate").unwrap(),
            collection: CollectionId::new("staff").unwrap(),
            subject: SubjectId::new("alice").unwrap(),
        };
        let entry = AuditLog::default().append(Timestamp(7), SessionId([0xab; 32]), event);
        assert_eq!(entry.to_string(), "0 7 abababababababab erased alice from staff for client gate");
    }
}
