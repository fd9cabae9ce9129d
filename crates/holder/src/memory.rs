//! A holder made again from what it stored.

use std::io;
use std::sync::Arc;

use veilmatch_domain::{Explain, Party, Status};
use veilmatch_glwe::Parameters;
use veilmatch_mpc::PairwiseSeeds;
use veilmatch_sealed::ClientSigningKey;
use veilmatch_secret::{Digest, Entropy, Secret, Seed};
use veilmatch_threshold::KeyShare;

use crate::HolderSecretKey;
use crate::admission::Admission;
use crate::audit::{AuditEntry, AuditLog};
use crate::build::Build;
use crate::holder::{Holder, Reaction, Session};
use crate::keys::EpochKeys;
use crate::ledger::Ledger;
use crate::record::{Key, StoredSeed};

/// The keys that make a holder itself: they outlive epochs. Its driver keeps them in an encrypted file.
#[derive(Debug)]
pub struct HolderKeys {
    /// Signs ceremony messages.
    pub identity: ClientSigningKey,
    /// Opens sealed templates.
    pub kem: HolderSecretKey,
}

impl HolderKeys {
    /// Draws fresh keys.
    #[must_use]
    pub fn random(entropy: &mut dyn Entropy) -> Self {
        Self { identity: ClientSigningKey::random(entropy), kem: HolderSecretKey::random(entropy) }
    }
}

/// Why a holder cannot be made again. Nothing is repaired silently: a holder that has forgotten something could use a secret
/// twice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// A record cannot be read.
    #[error("a stored record cannot be read: {kind}")]
    Malformed {
        /// What it was to be.
        kind: &'static str,
    },
    /// The log is shorter than what was counted from it, or another one.
    #[error("the audit log does not hold entry {sequence}, which the ledger was saved with")]
    AuditLost {
        /// Number of the entry.
        sequence: u64,
    },
    /// An entry of the log does not follow the one before it.
    #[error("the audit log's chain breaks at entry {sequence}")]
    AuditBroken {
        /// Number of the entry that should be there.
        sequence: u64,
    },
    /// An answer is not that of this peer to this request, or was altered.
    #[error("the answer of a key holder cannot be read, or is not its own")]
    Answer {
        /// Which peer was expected.
        from: Party,
    },
    /// The two peers do not agree.
    #[error("the two other key holders disagree about a {kind}")]
    Different {
        /// About what.
        kind: &'static str,
    },
    /// The peers have no shares of one split of the keys.
    #[error("the two other key holders hold no shares of the lost one's keys that fit together")]
    NoShares,
    /// The keys are not those that clients seal for.
    #[error("the restored keys are not those of the lost key holder's card")]
    WrongKeys,
}

impl Explain for RestoreError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "damaged-record",
            Self::AuditLost { .. } => "audit-lost",
            Self::AuditBroken { .. } => "audit-broken",
            Self::Answer { .. } => "bad-restore-answer",
            Self::Different { .. } => "peers-differ",
            Self::NoShares => "no-escrow",
            Self::WrongKeys => "wrong-restored-keys",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::Different { .. } | Self::Answer { .. } => Status::Aborted,
            _ => Status::DataLoss,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::Malformed { .. } | Self::AuditLost { .. } | Self::AuditBroken { .. } => {
                "restore this key holder from a whole backup, or from the two other key holders"
            }
            Self::Different { .. } => {
                "wait until the matcher has no change under way, then have both peers answer again"
            }
            Self::Answer { .. } => "have this peer answer again, for this machine's key",
            Self::NoShares | Self::WrongKeys => {
                "restore from a backup: without its keys, templates must be enrolled anew"
            }
        }
    }
}

impl Holder {
    /// Makes a holder again. `records` are those that its reactions saved, the last value of each key. `log` gives the
    /// entries of its audit log from a number on; they are as recent as the records or more so, because a reaction's log is
    /// written first.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn restore<T>(
        party: Party,
        parameters: Parameters,
        keys: HolderKeys,
        entropy: Box<dyn Entropy>,
        records: impl IntoIterator<Item = (Vec<u8>, Secret<Vec<u8>>)>,
        log: impl FnOnce(u64) -> T,
    ) -> Result<Holder, RestoreError>
    where
        T: IntoIterator<Item = AuditEntry>,
    {
        let mut holder = Holder::new(party, parameters, keys, entropy);
        let mut saved_ledger = None;
        for (key, value) in records {
            let unreadable = |_| RestoreError::Malformed { kind: "key" };
            let key = borsh::from_slice(&key).map_err(unreadable)?;
            holder
                .remember(&key, value.expose(), &mut saved_ledger)
                .map_err(|_| RestoreError::Malformed { kind: key.kind() })?;
        }
        holder.state.registry.settle();
        holder.committed.make_contiguous().sort_unstable();
        holder.state.current = holder.state.epochs.keys().next_back().copied();
        let head = match saved_ledger {
            Some((head, ledger)) => {
                holder.state.ledger = ledger;
                head
            }
            None => None,
        };
        holder.replay(head, log)?;
        Ok(holder)
    }

    /// Counts what the log holds beyond the saved ledger.
    fn replay<T>(&mut self, saved: Option<(u64, Digest)>, log: impl FnOnce(u64) -> T) -> Result<(), RestoreError>
    where
        T: IntoIterator<Item = AuditEntry>,
    {
        // The entry that the ledger was saved with must be there, or the log was cut.
        let mut entries = log(saved.map_or(0, |(sequence, _)| sequence)).into_iter();
        if let Some((sequence, hash)) = saved
            && !entries.next().is_some_and(|entry| entry.sequence == sequence && entry.hash == hash)
        {
            return Err(RestoreError::AuditLost { sequence });
        }
        self.state.audit = AuditLog::resume(saved);
        self.state.ledger_saved = self.state.audit.len();
        for entry in entries {
            if !entry.follows_head(self.state.audit.head()) {
                return Err(RestoreError::AuditBroken { sequence: self.state.audit.len() });
            }
            self.state.ledger.apply(&entry);
            self.state.audit = AuditLog::resume(Some((entry.sequence, entry.hash)));
        }
        Ok(())
    }

    fn remember(
        &mut self,
        key: &Key,
        value: &[u8],
        saved_ledger: &mut Option<(Option<(u64, Digest)>, Ledger)>,
    ) -> io::Result<()> {
        if self.state.registry.remember(key, value)? {
            return Ok(());
        }
        match key {
            Key::Committed(number) => self.committed.push_back((*number, borsh::from_slice(value)?)),
            Key::Ledger => *saved_ledger = Some(borsh::from_slice(value)?),
            Key::Epoch(epoch) => {
                let [StoredSeed(own), StoredSeed(next)] = borsh::from_slice(value)?;
                let keys = EpochKeys { epoch: *epoch, seeds: PairwiseSeeds { own, next } };
                self.state.epochs.insert(*epoch, keys);
            }
            Key::OwnSeed(epoch) => self.forming.entry(*epoch).or_default().own = Some(read_seed(value)?),
            Key::PeerSeed(epoch) => self.forming.entry(*epoch).or_default().next = Some(read_seed(value)?),
            Key::PreparedAdmission(id) => {
                let (attempt, session) = Admission::restore(&mut self.state, *id, value)?;
                self.attempts.insert(*id, attempt);
                self.sessions.insert(*id, Session::Admission(Box::new(session)));
            }
            Key::PreparedBuild(id) => {
                let (attempt, session) = Build::restore(*id, value)?;
                self.attempts.insert(*id, attempt);
                self.sessions.insert(*id, Session::Build(Box::new(session)));
            }
            Key::PaillierShare => {
                let share = KeyShare::from_bytes(value).map_err(|_| io::ErrorKind::InvalidData)?;
                self.state.paillier = Some(Arc::new(share));
            }
            Key::Restored => self.state.restored = Some(borsh::from_slice(value)?),
            key => return self.escrow.remember(key, value),
        }
        Ok(())
    }

    /// Saves what is otherwise saved from time to time, before a shutdown: the next start has less of the log to read.
    pub fn snapshot(&mut self) -> Reaction {
        self.state.save_ledger();
        self.reaction(None)
    }
}

fn read_seed(value: &[u8]) -> io::Result<Seed> {
    borsh::from_slice(value).map(|StoredSeed(seed)| seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::masks::{GroupMasks, MaskRoom};
    use crate::registry::{RegisteredGroup, RegisteredMember};
    use std::time::Instant;
    use veilmatch_domain::{
        ClientId, CollectionId, Dimension, Epoch, GroupId, Policy, Revision, SubjectId, TemplateDigest,
    };
    use veilmatch_glwe::{GLWE_2048_V1, Layout, MaskSeed, Masks};
    use veilmatch_secret::os_entropy;

    type Stored = Vec<(Vec<u8>, Secret<Vec<u8>>)>;

    fn digest(i: usize) -> TemplateDigest {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(i as u64).to_le_bytes());
        TemplateDigest(bytes)
    }

    fn records(subjects: usize, per_group: usize) -> (Stored, Option<Digest>) {
        let mut holder = Holder::with_fresh_keys(Party::K0, GLWE_2048_V1, os_entropy());
        let collection = CollectionId::new("staff").unwrap();
        let dimension = Dimension::new(512).unwrap();
        let mut records = holder.set_policy(collection.clone(), Policy::standard(dimension)).unwrap().save;
        let registry = &mut holder.state.registry;
        let subject = |i: usize| SubjectId::new(format!("subject-{i}")).unwrap();
        let layout = Layout::new(4, 16).unwrap();
        let vector = vec![1u32; layout.blocks(dimension) * GLWE_2048_V1.degree];
        for from in (0..subjects).step_by(128) {
            let session = veilmatch_domain::SessionId(digest(from).0);
            let templates = (from..subjects.min(from + 128)).map(|i| (subject(i), digest(i))).collect();
            registry.collection_mut(&collection).unwrap().admit(&collection, session, templates);
        }
        for (number, from) in (0..subjects).step_by(per_group).enumerate() {
            let member = |(slot, i)| RegisteredMember { slot, subject: subject(i), digest: digest(i) };
            let built = RegisteredGroup {
                group: GroupId(number as u64),
                revision: Revision(1),
                epoch: Epoch(0),
                layout,
                dimension,
                members: (from..subjects.min(from + per_group)).enumerate().map(member).collect(),
                masks: GroupMasks::expanded(
                    &GLWE_2048_V1,
                    &Masks { seed: MaskSeed([1; 32]), values: Vec::new() },
                    &MaskRoom::new(0),
                ),
                check_seed: Seed::from_bytes([2; 32]),
                checks: [vector.clone(), vector.clone()],
            };
            registry.collection_mut(&collection).unwrap().commit(&collection, built, &[]);
        }
        let view = holder.view(&collection);
        records.append(&mut holder.reaction(None).save);
        (records.into_iter().map(|r| (r.key, r.value.unwrap())).collect(), view)
    }

    fn restore(records: Stored, log: Vec<AuditEntry>) -> Result<Holder, RestoreError> {
        let keys = HolderKeys::random(&mut *os_entropy());
        Holder::restore(Party::K0, GLWE_2048_V1, keys, os_entropy(), records, |from| {
            log.into_iter().skip(from as usize)
        })
    }

    #[test]
    #[expect(clippy::print_stdout, reason = "the measurement")]
    fn a_hundred_thousand_subjects_are_back_at_once() {
        let (records, view) = records(100_000, 8192);
        let bytes: usize = records.iter().map(|(key, value)| key.len() + value.expose().len()).sum();
        let (count, begun) = (records.len(), Instant::now());
        let holder = restore(records, Vec::new()).unwrap();
        let took = begun.elapsed();
        println!("{count} records of {} MB restored in {took:?}", bytes >> 20);
        assert_eq!(holder.view(&CollectionId::new("staff").unwrap()), view);
        assert!(took.as_secs() < 3, "{took:?}");
    }

    /// The record of an admission still names a template that was erased; the tombstone takes it out, wherever it is read.
    #[test]
    fn what_was_erased_is_not_read_back_and_what_was_enrolled_again_is() {
        let mut holder = Holder::with_fresh_keys(Party::K0, GLWE_2048_V1, os_entropy());
        let id = CollectionId::new("staff").unwrap();
        let mut saved = holder.set_policy(id.clone(), Policy::standard(Dimension::new(16).unwrap())).unwrap().save;
        let [ann, bob] = ["ann", "bob"].map(|name| SubjectId::new(name).unwrap());
        let session = |i| veilmatch_domain::SessionId(digest(i).0);
        let record = holder.state.registry.collection_mut(&id).unwrap();
        record.admit(&id, session(1), vec![(ann.clone(), digest(1)), (bob.clone(), digest(2))]);
        record.erase(&id, &ann, Digest([1; 32]), veilmatch_domain::Timestamp(1)).unwrap();
        record.admit(&id, session(2), vec![(ann.clone(), digest(3))]);
        record.erase(&id, &bob, Digest([2; 32]), veilmatch_domain::Timestamp(1)).unwrap();
        saved.append(&mut holder.reaction(None).save);
        let stored = || saved.iter().filter_map(|r| Some((r.key.clone(), r.value.as_ref()?.duplicate())));
        for records in [stored().collect::<Stored>(), stored().rev().collect()] {
            let holder = restore(records, Vec::new()).unwrap();
            let record = holder.state.registry.collection(&id).unwrap();
            assert_eq!(record.template_of(&ann), Some(&digest(3)));
            assert_eq!(record.template_of(&bob), None);
            assert!(record.is_tombstoned(&digest(1)) && record.is_tombstoned(&digest(2)));
        }
    }

    #[test]
    fn damaged_records_and_cut_or_altered_logs_are_found() {
        let mut holder = Holder::with_fresh_keys(Party::K0, GLWE_2048_V1, os_entropy());
        let mut log = Vec::new();
        let mut erase = |holder: &mut Holder, i: u64| {
            let (client, subject) = (ClientId::new("gate").unwrap(), SubjectId::new(format!("s{i}")).unwrap());
            let collection = CollectionId::new("staff").unwrap();
            let event = crate::AuditEvent::Erased { client, collection, subject };
            holder.state.log(veilmatch_domain::SessionId([0; 32]), event);
            log.extend(holder.reaction(None).log);
        };
        (0..3).for_each(|i| erase(&mut holder, i));
        let saved = holder.snapshot().save;
        let saved = || saved.iter().map(|r| (r.key.clone(), r.value.as_ref().unwrap().duplicate())).collect::<Vec<_>>();
        (3..5).for_each(|i| erase(&mut holder, i));
        assert_eq!(restore(saved(), log.clone()).unwrap().audit_head(), holder.audit_head());
        assert_eq!(restore(saved(), log[..3].to_vec()).unwrap().audit_head(), Some((2, log[2].hash)));
        let failure = |records, log| restore(records, log).unwrap_err();
        assert_eq!(failure(saved(), log[..2].to_vec()), RestoreError::AuditLost { sequence: 2 });
        let mut altered = log.clone();
        altered[4].time.0 += 1;
        assert_eq!(failure(saved(), altered.clone()), RestoreError::AuditBroken { sequence: 4 });
        altered[2].hash = altered[1].hash;
        assert_eq!(failure(saved(), altered), RestoreError::AuditLost { sequence: 2 });
        let mut cut = saved();
        cut[0].1.expose_mut().pop();
        assert_eq!(failure(cut, log.clone()), RestoreError::Malformed { kind: "ledger" });
        assert_eq!(failure(vec![(vec![255], Secret::new(Vec::new()))], log), RestoreError::Malformed { kind: "key" });
    }
}
