//! Nonces of requests that were carried out, until the requests expire (invariant 3: nothing is taken twice).
//!
//! The nonces of templates that were admitted together are one record: a start after a bulk enrolment reads thousands of
//! them, not millions. They are forgotten together, when the last of their requests has expired; an earlier one of them is
//! refused for its age by then.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;

use borsh::{BorshDeserialize, BorshSerialize};
use veilmatch_domain::{SessionId, Timestamp};

use crate::record::{Key, Record, Signer};

type Nonce = [u8; 16];

/// The nonces of one admission.
#[derive(BorshSerialize, BorshDeserialize)]
struct Together {
    /// When the last of their requests expires.
    expires: Timestamp,
    /// By who signed them.
    nonces: Vec<(Signer, Vec<Nonce>)>,
}

/// What expires at one time.
struct Expiring {
    /// Their record.
    key: Key,
    nonces: Vec<(Signer, Vec<Nonce>)>,
}

/// All that are remembered.
#[derive(Default)]
pub(crate) struct Nonces {
    used: HashMap<Signer, HashSet<Nonce>>,
    by_expiry: BTreeMap<Timestamp, Vec<Expiring>>,
}

impl Nonces {
    pub(crate) fn is_used(&self, signer: &Signer, nonce: &Nonce) -> bool {
        self.used.get(signer).is_some_and(|used| used.contains(nonce))
    }

    /// Uses up one; the change of memory comes back.
    pub(crate) fn use_one(&mut self, signer: Signer, nonce: Nonce, expires: Timestamp) -> Record {
        let key = Key::Nonce(signer.clone(), nonce);
        let record = Record::put(&key, &expires);
        self.keep(key, expires, vec![(signer, vec![nonce])]);
        record
    }

    /// Uses up those of templates that a session admits; nothing changes for none.
    pub(crate) fn use_together(
        &mut self,
        session: SessionId,
        used: impl IntoIterator<Item = (Signer, Nonce, Timestamp)>,
    ) -> Option<Record> {
        let mut by_signer: BTreeMap<Signer, Vec<Nonce>> = BTreeMap::new();
        let mut latest = None;
        for (signer, nonce, expires) in used {
            by_signer.entry(signer).or_default().push(nonce);
            latest = latest.max(Some(expires));
        }
        let together = Together { expires: latest?, nonces: by_signer.into_iter().collect() };
        let key = Key::NoncesOf(session);
        let record = Record::put(&key, &together);
        self.keep(key, together.expires, together.nonces);
        Some(record)
    }

    /// Forgets those whose requests have expired; the changes of memory come back.
    pub(crate) fn forget(&mut self, now: Timestamp) -> Vec<Record> {
        let mut gone = Vec::new();
        while let Some(earliest) = self.by_expiry.first_entry().filter(|earliest| *earliest.key() < now) {
            for Expiring { key, nonces } in earliest.remove() {
                gone.push(Record::gone(&key));
                for (signer, nonces) in nonces {
                    let Some(used) = self.used.get_mut(&signer) else { continue };
                    for nonce in &nonces {
                        used.remove(nonce);
                    }
                    if used.is_empty() {
                        self.used.remove(&signer);
                    }
                }
            }
        }
        gone
    }

    /// Takes a record back after a restart; `false` if it is of another kind.
    ///
    /// # Errors
    /// The value cannot be read.
    pub(crate) fn remember(&mut self, key: &Key, value: &[u8]) -> io::Result<bool> {
        match key {
            Key::Nonce(signer, nonce) => {
                let nonces = vec![(signer.clone(), vec![*nonce])];
                self.keep(key.clone(), borsh::from_slice(value)?, nonces);
            }
            Key::NoncesOf(_) => {
                let Together { expires, nonces } = borsh::from_slice(value)?;
                self.keep(key.clone(), expires, nonces);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// All of them as records of one nonce each: two holders may have heard of the same ones in different company.
    pub(crate) fn export(&self) -> impl Iterator<Item = Record> {
        self.by_expiry.iter().flat_map(|(expires, expiring)| {
            let each = expiring.iter().flat_map(|expiring| &expiring.nonces);
            let each = each.flat_map(|(signer, nonces)| nonces.iter().map(move |nonce| (signer, nonce)));
            each.map(move |(signer, nonce)| Record::put(&Key::Nonce(signer.clone(), *nonce), expires))
        })
    }

    fn keep(&mut self, key: Key, expires: Timestamp, nonces: Vec<(Signer, Vec<Nonce>)>) {
        for (signer, nonces) in &nonces {
            match self.used.get_mut(signer) {
                Some(used) => used.extend(nonces),
                None => drop(self.used.insert(signer.clone(), nonces.iter().copied().collect())),
            }
        }
        self.by_expiry.entry(expires).or_default().push(Expiring { key, nonces });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use veilmatch_domain::ClientId;

    fn signer(name: &str) -> Signer {
        Signer::Client(ClientId::new(name).unwrap())
    }

    fn read_back(records: &[Record]) -> Nonces {
        let mut nonces = Nonces::default();
        for record in records {
            let key: Key = borsh::from_slice(&record.key).unwrap();
            assert!(nonces.remember(&key, record.value.as_ref().unwrap().expose()).unwrap());
        }
        nonces
    }

    #[test]
    fn nonces_of_one_admission_are_one_record_and_are_forgotten_with_the_last() {
        let mut nonces = Nonces::default();
        let (gate, desk) = (signer("gate"), signer("desk"));
        let session = SessionId([7; 32]);
        let used = [(10, &gate, 1), (12, &desk, 1), (11, &gate, 2)];
        let used = used.map(|(expires, by, nonce)| (by.clone(), [nonce; 16], Timestamp(expires)));
        let together = nonces.use_together(session, used).unwrap();
        let one = nonces.use_one(gate.clone(), [3; 16], Timestamp(11));
        assert!(nonces.use_together(session, []).is_none());
        let expected = |by: &Signer| if *by == gate { vec![1, 2, 3] } else { vec![1] };
        let all = |nonces: &Nonces| {
            let used = |by: &Signer| (0..9).filter(|n| nonces.is_used(by, &[*n; 16])).collect::<Vec<u8>>();
            used(&gate) == expected(&gate) && used(&desk) == expected(&desk)
        };
        assert!(all(&nonces));
        let records = [together, one];
        assert!(all(&read_back(&records)));
        let exported: Vec<Record> = nonces.export().collect();
        assert_eq!(exported.len(), 4);
        assert!(all(&read_back(&exported)));

        for mut nonces in [nonces, read_back(&records)] {
            assert!(nonces.forget(Timestamp(11)).is_empty(), "a request is fresh until it expires");
            let gone = nonces.forget(Timestamp(12));
            assert_eq!(gone.iter().map(|r| &r.key).collect::<Vec<_>>(), [&records[1].key]);
            assert!(nonces.is_used(&gate, &[1; 16]) && !nonces.is_used(&gate, &[3; 16]));
            let gone = nonces.forget(Timestamp(13));
            assert!(gone.iter().all(|r| r.value.is_none()));
            assert_eq!(gone.iter().map(|r| &r.key).collect::<Vec<_>>(), [&records[0].key]);
            assert!(nonces.used.is_empty() && nonces.by_expiry.is_empty());
        }
    }

    #[test]
    fn damaged_records_are_refused() {
        let mut nonces = Nonces::default();
        let record = nonces.use_together(SessionId([1; 32]), [(signer("gate"), [1; 16], Timestamp(1))]).unwrap();
        let bytes = record.value.unwrap();
        for length in 0..bytes.expose().len() {
            let cut = bytes.expose().get(..length).unwrap();
            assert!(Nonces::default().remember(&Key::NoncesOf(SessionId([1; 32])), cut).is_err(), "{length}");
        }
        assert!(!nonces.remember(&Key::Ledger, &[]).unwrap());
    }
}
