//! The matcher's twin: the second evaluator of the scheme `paillier`, run by somebody else than the matcher (DESIGN 4).
//!
//! It is a state machine like the matcher, but stores nothing that is needed: groups come from the matcher when they are first asked for,
//! and are kept in memory. A session is an order of the matcher and one addend from each holder, in any sequence; when all are here
//! the groups are evaluated, once, and the session is gone.
//!
//! Who sees what: ciphertexts, and its own share of every probe, which comes from the holders and never through the matcher.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use veilmatch_domain::{CollectionId, GroupId, Party, Revision, SessionId};
use veilmatch_glwe::{FromHolder, FromTwin, ToTwin};
use veilmatch_paillier::{ProbeShare, PublicKey};

use crate::MatcherError;
use crate::evaluation::{Addends, Evaluator, Packed, to_words};

/// Sessions that may be open. The oldest gives way: what is left of one that never completes must not stand in the way.
const MAX_SESSIONS: usize = 256;

/// The ciphertexts of a group, as words.
type Words = Arc<Vec<u32>>;

/// A revision of a group that is held.
type Held = (Revision, Words);

/// A twin.
pub struct Twin {
    evaluator: Evaluator,
    groups: BTreeMap<(CollectionId, GroupId), Held>,
    sessions: BTreeMap<SessionId, Session>,
    /// Open sessions, oldest first.
    order: VecDeque<SessionId>,
}

#[derive(Default)]
struct Session {
    asked: Option<(CollectionId, Vec<(GroupId, Revision)>)>,
    addends: Addends,
    /// Groups that the matcher was asked for.
    waits_for: Vec<(GroupId, Revision)>,
}

/// What a message led to.
#[derive(Default)]
pub struct TwinReaction {
    /// Messages to the matcher.
    pub send: Vec<Vec<u8>>,
    /// To be run anywhere; its result is a message to the matcher.
    pub work: Vec<TwinWork>,
}

/// An evaluation, to be run away from the state machine.
pub struct TwinWork {
    session: SessionId,
    evaluator: Evaluator,
    collection: CollectionId,
    groups: Vec<(GroupId, Revision, Words)>,
    share: ProbeShare,
}

impl std::fmt::Debug for Twin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Twin({} groups, {} sessions)", self.groups.len(), self.sessions.len())
    }
}

impl std::fmt::Debug for TwinReaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TwinReaction({} messages, {} evaluations)", self.send.len(), self.work.len())
    }
}

impl std::fmt::Debug for TwinWork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TwinWork({} groups, redacted)", self.groups.len())
    }
}

impl Twin {
    /// A twin that keeps `memory` bytes of groups ready.
    #[must_use]
    pub fn new(key: PublicKey, memory: usize) -> Self {
        Self {
            evaluator: Evaluator::new(key, memory),
            groups: BTreeMap::new(),
            sessions: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Takes a message of the matcher's. One that cannot be read is dropped: the session runs into the matcher's deadline.
    pub fn hear_matcher(&mut self, bytes: &[u8]) -> TwinReaction {
        let mut reaction = TwinReaction::default();
        match borsh::from_slice(bytes) {
            Ok(ToTwin::Evaluate { session, collection, groups }) => {
                let open = self.session(session);
                if open.asked.is_none() {
                    open.asked = Some((collection, groups));
                    self.go_on(session, &mut reaction);
                }
            }
            Ok(ToTwin::Hold { collection, group, revision, ciphertexts }) => {
                let words = Arc::new(to_words(&ciphertexts));
                self.groups.insert((collection.clone(), group), (revision, words));
                for session in self.order.clone() {
                    let waits = self.sessions.get_mut(&session).is_some_and(|open| {
                        let of_collection = open.asked.as_ref().is_some_and(|(named, _)| *named == collection);
                        of_collection && open.waits_for.contains(&(group, revision))
                    });
                    if waits {
                        self.go_on(session, &mut reaction);
                    }
                }
            }
            Ok(ToTwin::Retain { collection, live }) => {
                let of_others = |named: &(CollectionId, GroupId)| named.0 != collection;
                self.groups.retain(|named, (revision, _)| of_others(named) || live.contains(&(named.1, *revision)));
                self.evaluator.retain(&collection, &live);
            }
            Ok(ToTwin::Abandon { session }) => self.end(session),
            Err(_) => {}
        }
        reaction
    }

    /// Takes a message of a holder's, as the transport authenticated it.
    pub fn hear_holder(&mut self, party: Party, bytes: &[u8]) -> TwinReaction {
        let mut reaction = TwinReaction::default();
        if let Ok(FromHolder::ProbeShare { session, addend }) = borsh::from_slice(bytes) {
            match self.session(session).addends.take(party, None, addend) {
                Ok(()) => self.go_on(session, &mut reaction),
                Err(error) => self.refuse(session, &error, &mut reaction),
            }
        }
        reaction
    }

    fn session(&mut self, session: SessionId) -> &mut Session {
        if !self.sessions.contains_key(&session) {
            if self.order.len() >= MAX_SESSIONS
                && let Some(oldest) = self.order.pop_front()
            {
                self.sessions.remove(&oldest);
            }
            self.order.push_back(session);
        }
        self.sessions.entry(session).or_default()
    }

    fn end(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        self.order.retain(|open| *open != session);
    }

    fn refuse(&mut self, session: SessionId, error: &MatcherError, reaction: &mut TwinReaction) {
        self.end(session);
        reaction.send.extend(encoded(&FromTwin::Refused { session, refusal: error.refusal() }));
    }

    /// Asks for groups that are missing, or evaluates if everything is here.
    fn go_on(&mut self, session: SessionId, reaction: &mut TwinReaction) {
        let Some(open) = self.sessions.get_mut(&session) else { return };
        let Some((collection, asked)) = &open.asked else { return };
        let held = |(group, revision): &(GroupId, Revision)| {
            let held = self.groups.get(&(collection.clone(), *group));
            held.filter(|(held, _)| held == revision).map(|(_, words)| (*group, *revision, Arc::clone(words)))
        };
        let missing: Vec<(GroupId, Revision)> = asked.iter().filter(|named| held(named).is_none()).copied().collect();
        if !missing.is_empty() {
            if open.waits_for.is_empty() {
                let (collection, groups) = (collection.clone(), missing.clone());
                reaction.send.extend(encoded(&FromTwin::Missing { session, collection, groups }));
            }
            open.waits_for = missing;
            return;
        }
        let groups: Vec<_> = asked.iter().filter_map(held).collect();
        let dimension = groups.first().map(|(_, _, words)| self.evaluator.dimension_of(words.len()));
        if let Some(party) = dimension.and_then(|dimension| open.addends.of_another_dimension(dimension)) {
            return self.refuse(session, &MatcherError::UnexpectedPart(party), reaction);
        }
        let Some(share) = open.addends.share() else { return };
        let (collection, evaluator) = (collection.clone(), self.evaluator.clone());
        reaction.work.push(TwinWork { session, evaluator, collection, groups, share });
        self.end(session);
    }
}

fn encoded(message: &FromTwin) -> Option<Vec<u8>> {
    borsh::to_vec(message).ok()
}

impl TwinWork {
    /// Evaluates; the result is a message to the matcher. It uses the current rayon pool.
    #[must_use]
    pub fn run(self) -> Option<Vec<u8>> {
        let packed: Vec<Packed<'_>> = self
            .groups
            .iter()
            .map(|(group, revision, words)| Packed {
                collection: &self.collection,
                group: *group,
                revision: *revision,
                words: words.as_slice(),
            })
            .collect();
        let session = self.session;
        encoded(&match self.evaluator.evaluate(&packed, &self.share) {
            Ok(ciphertexts) => FromTwin::Evaluated { session, ciphertexts },
            Err(error) => FromTwin::Refused { session, refusal: error.refusal() },
        })
    }

    /// Does nothing, because `limit` evaluations are under way already; the result is a message to the matcher.
    #[must_use]
    pub fn refuse(self, limit: usize) -> Option<Vec<u8>> {
        let refusal = MatcherError::Busy { limit }.refusal();
        encoded(&FromTwin::Refused { session: self.session, refusal })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use veilmatch_glwe::ProbeAddend;
    use veilmatch_paillier::{KeyElements, KeySize};
    use veilmatch_secret::Secret;

    /// A modulus that has the form of one and protects nothing: nothing is decrypted here.
    fn key() -> PublicKey {
        let primes = include_str!("../../../tests/vectors/paillier-safe-primes.txt");
        let mut primes = primes.lines().filter(|line| !line.starts_with('#') && line.len() == 256);
        let mut next = || num_bigint::BigUint::parse_bytes(primes.next().unwrap().as_bytes(), 16).unwrap();
        let modulus = next() * next();
        let square = &modulus * &modulus;
        let base = &modulus - 49u8;
        let one = num_bigint::BigUint::from(1u8);
        PublicKey::new(KeyElements {
            size: KeySize::Bits2048,
            base_power: base.modpow(&modulus, &square),
            base,
            verification_base: num_bigint::BigUint::from(4u8),
            verification_keys: [one.clone(), one.clone(), one],
            modulus,
        })
        .unwrap()
    }

    fn say(twin: &mut Twin, message: &ToTwin) -> Vec<FromTwin> {
        let reaction = twin.hear_matcher(&borsh::to_vec(message).unwrap());
        let run = reaction.work.into_iter().filter_map(TwinWork::run);
        reaction.send.into_iter().chain(run).map(|bytes| borsh::from_slice(&bytes).unwrap()).collect()
    }

    fn addend(twin: &mut Twin, party: Party, session: SessionId, values: Vec<u32>) -> Vec<FromTwin> {
        let message = FromHolder::ProbeShare { session, addend: ProbeAddend::new(Secret::new(values)) };
        let reaction = twin.hear_holder(party, &borsh::to_vec(&message).unwrap());
        let run = reaction.work.into_iter().filter_map(TwinWork::run);
        reaction.send.into_iter().chain(run).map(|bytes| borsh::from_slice(&bytes).unwrap()).collect()
    }

    #[test]
    fn groups_are_asked_for_once_evaluated_once_and_forgotten_when_they_are_not_live() {
        let (key, collection) = (key(), CollectionId::new("staff").unwrap());
        let mut twin = Twin::new(key.clone(), 1 << 24);
        let session = |i: u8| SessionId([i; 32]);
        let named = vec![(GroupId(3), Revision(1))];
        let evaluate =
            |i| ToTwin::Evaluate { session: session(i), collection: collection.clone(), groups: named.clone() };
        assert!(
            addend(&mut twin, Party::K2, session(1), vec![5, 6]).is_empty(),
            "the order of messages does not matter"
        );
        let missing = FromTwin::Missing { session: session(1), collection: collection.clone(), groups: named.clone() };
        assert_eq!(say(&mut twin, &evaluate(1)), [missing]);
        assert!(addend(&mut twin, Party::K0, session(1), vec![1, 2]).is_empty(), "it has asked already");
        let mut entropy = veilmatch_secret::os_entropy();
        let zero = veilmatch_paillier::Plaintext::from_integer(&key, 0);
        let ciphertexts = [(); 2].map(|()| key.encrypt(&zero, &mut *entropy).unwrap().to_bytes()).concat();
        let revision = Revision(1);
        let hold = ToTwin::Hold { collection: collection.clone(), group: GroupId(3), revision, ciphertexts };
        assert!(say(&mut twin, &hold).is_empty());
        let done = addend(&mut twin, Party::K1, session(1), vec![3, 4]);
        assert!(matches!(done.as_slice(), [FromTwin::Evaluated { ciphertexts, .. }] if ciphertexts.len() == 1));
        assert!(twin.sessions.is_empty() && twin.order.is_empty());

        // Held now: another session is evaluated at once, to another ciphertext of the same.
        for (party, values) in Party::ALL.into_iter().zip([[1, 2], [3, 4], [5, 6]]) {
            assert!(addend(&mut twin, party, session(2), values.to_vec()).is_empty());
        }
        let again = say(&mut twin, &evaluate(2));
        let ciphertext = |of: &[FromTwin]| match of {
            [FromTwin::Evaluated { ciphertexts, .. }] => ciphertexts[0].clone(),
            other => panic!("{other:?}"),
        };
        assert_ne!(ciphertext(&again), ciphertext(&done), "no two outputs are equal");

        // What is not live any more is gone, in memory too.
        say(&mut twin, &ToTwin::Retain { collection: collection.clone(), live: vec![(GroupId(3), Revision(2))] });
        assert!(twin.groups.is_empty());
        assert_eq!(
            say(&mut twin, &evaluate(3)),
            [FromTwin::Missing { session: session(3), collection, groups: named }]
        );
    }

    #[test]
    fn addends_out_of_range_or_twice_are_refused_by_name_and_sessions_are_bounded() {
        let mut twin = Twin::new(key(), 0);
        let session = SessionId([1; 32]);
        for values in [vec![1 << 26], vec![u32::MAX]] {
            let refused = addend(&mut twin, Party::K1, session, values);
            let [FromTwin::Refused { refusal, .. }] = refused.as_slice() else { panic!("{refused:?}") };
            assert_eq!(refusal.suspects, [veilmatch_domain::Suspect::Holder(Party::K1)]);
        }
        assert!(addend(&mut twin, Party::K0, session, vec![1]).is_empty());
        assert!(matches!(addend(&mut twin, Party::K0, session, vec![1]).as_slice(), [FromTwin::Refused { .. }]));
        for i in 0..2 * MAX_SESSIONS {
            let session = SessionId(std::array::from_fn(|at| (i >> (8 * (at % 2))) as u8));
            addend(&mut twin, Party::K0, session, vec![1]);
        }
        assert_eq!((twin.sessions.len(), twin.order.len()), (MAX_SESSIONS, MAX_SESSIONS));
        for bytes in [vec![], vec![255; 40], vec![0; 3]] {
            let (a, b) = (twin.hear_matcher(&bytes), twin.hear_holder(Party::K0, &bytes));
            assert!(a.send.is_empty() && a.work.is_empty() && b.send.is_empty() && b.work.is_empty());
        }
    }
}
