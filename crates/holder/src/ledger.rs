//! Budgets, lock-out and used probes: what a holder counts about the decisions that it helped to open.
//!
//! The ledger changes through [`Ledger::apply`] alone, so the audit log is its write-ahead log: whatever the log holds after
//! a crash is counted, and nothing else. A decision counts from its opening on, whether its outcome became known or not: a
//! cheat that stops in between gains nothing. Windows are fixed, aligned to the Unix epoch.

use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use veilmatch_domain::{ClientId, CollectionId, Decision, Outcome, Policy, SessionId, SubjectId, Timestamp};

use crate::audit::{Administered, AuditEntry, AuditEvent};
use crate::error::Budget;
use crate::{HolderError, ProbeUse};

/// Openings of `verify` whose outcome may still come. A success beyond this many others does not clear its subject.
const MAX_PENDING: usize = 1024;

/// A decision that is asked for.
pub(crate) struct Asking {
    pub(crate) client: ClientId,
    pub(crate) collection: CollectionId,
    /// Whom `verify` is about.
    pub(crate) subject: Option<SubjectId>,
    pub(crate) nonce: [u8; 16],
    pub(crate) expires: Timestamp,
    /// How many openings of it the ledger does not count yet: two before a preselection, none once it is decided.
    pub(crate) openings: u32,
}

#[derive(Clone, Default, BorshSerialize, BorshDeserialize)]
struct Window {
    seconds: u32,
    number: u64,
    total: u32,
    clients: BTreeMap<ClientId, u32>,
    subjects: BTreeMap<SubjectId, u32>,
}

#[derive(Clone, BorshSerialize, BorshDeserialize)]
struct Failures {
    in_a_row: u16,
    last: Timestamp,
}

/// What the log adds up to.
#[derive(Clone, Default, BorshSerialize, BorshDeserialize)]
pub(crate) struct Ledger {
    windows: BTreeMap<CollectionId, Window>,
    failures: BTreeMap<(CollectionId, SubjectId), Failures>,
    pending: VecDeque<(SessionId, CollectionId, SubjectId)>,
    probes: BTreeMap<(ClientId, [u8; 16]), Timestamp>,
    by_expiry: BTreeSet<(Timestamp, ClientId, [u8; 16])>,
}

fn number(seconds: u32, now: Timestamp) -> u64 {
    now.0.checked_div(seconds.into()).unwrap_or(0)
}

fn one_more(count: &mut u32) {
    *count = count.saturating_add(1);
}

fn higher<K: Ord>(ours: &mut BTreeMap<K, u32>, theirs: BTreeMap<K, u32>) {
    for (key, count) in theirs {
        let ours = ours.entry(key).or_default();
        *ours = count.max(*ours);
    }
}

impl Ledger {
    /// Takes the next entry of the log.
    pub(crate) fn apply(&mut self, entry: &AuditEntry) {
        match &entry.event {
            AuditEvent::NormCheck { probe: Some(probe), .. } => self.use_probe(probe, entry.time),
            AuditEvent::Preselection { client, collection, stage: 0, window_seconds, .. } => {
                self.count(client, collection, *window_seconds, entry.time);
            }
            AuditEvent::Opening { client, collection, query, stage: 0, window_seconds } => {
                let window = self.count(client, collection, *window_seconds, entry.time);
                if let Decision::Verify { subject } = &query.decision {
                    one_more(window.subjects.entry(subject.clone()).or_default());
                    let place = (collection.clone(), subject.clone());
                    let failures = self.failures.entry(place).or_insert(Failures { in_a_row: 0, last: entry.time });
                    failures.in_a_row = failures.in_a_row.saturating_add(1);
                    failures.last = entry.time;
                    self.pending.push_back((entry.session, collection.clone(), subject.clone()));
                    if self.pending.len() > MAX_PENDING {
                        self.pending.pop_front();
                    }
                }
            }
            AuditEvent::Outcome(outcome) => {
                let Some(at) = self.pending.iter().position(|(session, ..)| *session == entry.session) else { return };
                let Some((_, collection, subject)) = self.pending.remove(at) else { return };
                if *outcome == Outcome::Verify(true) {
                    // Those that are open beside it stay counted until they succeed too.
                    let beside = self.pending.iter().filter(|(_, c, s)| (c, s) == (&collection, &subject)).count();
                    let place = (collection, subject);
                    match (beside, self.failures.get_mut(&place)) {
                        (1.., Some(failures)) => failures.in_a_row = u16::try_from(beside).unwrap_or(u16::MAX),
                        _ => drop(self.failures.remove(&place)),
                    }
                }
            }
            AuditEvent::Erased { collection, subject, .. }
            | AuditEvent::Administered { action: Administered::Unlock { collection, subject }, .. } => {
                self.failures.remove(&(collection.clone(), subject.clone()));
                self.pending.retain(|(_, c, s)| (c, s) != (collection, subject));
            }
            _ => {}
        }
    }

    /// Counts an opening for its client and its collection.
    fn count(
        &mut self,
        client: &ClientId,
        collection: &CollectionId,
        window_seconds: u32,
        time: Timestamp,
    ) -> &mut Window {
        let window = self.windows.entry(collection.clone()).or_default();
        let now = number(window_seconds, time);
        if window.seconds != window_seconds || window.number != now {
            *window = Window { seconds: window_seconds, number: now, ..Window::default() };
        }
        one_more(&mut window.total);
        one_more(window.clients.entry(client.clone()).or_default());
        window
    }

    fn use_probe(&mut self, probe: &ProbeUse, now: Timestamp) {
        while let Some((expires, client, nonce)) = self.by_expiry.pop_first() {
            if expires >= now {
                self.by_expiry.insert((expires, client, nonce));
                break;
            }
            self.probes.remove(&(client, nonce));
        }
        if self.probes.insert((probe.client.clone(), probe.nonce), probe.expires).is_none() {
            self.by_expiry.insert((probe.expires, probe.client.clone(), probe.nonce));
        }
    }

    /// The stricter of two: what a restored holder counts, since its peers' ledgers differ by their clocks and by sessions that
    /// one of them did not finish.
    pub(crate) fn strictest(mut self, other: Ledger) -> Ledger {
        for (collection, theirs) in other.windows {
            let ours = self.windows.entry(collection).or_default();
            if (ours.number, ours.seconds) != (theirs.number, theirs.seconds) {
                if ours.number <= theirs.number {
                    *ours = theirs;
                }
                continue;
            }
            ours.total = ours.total.max(theirs.total);
            higher(&mut ours.clients, theirs.clients);
            higher(&mut ours.subjects, theirs.subjects);
        }
        for (place, theirs) in other.failures {
            let ours = self.failures.entry(place).or_insert(Failures { in_a_row: 0, last: theirs.last });
            ours.in_a_row = ours.in_a_row.max(theirs.in_a_row);
            ours.last = ours.last.max(theirs.last);
        }
        self.probes.extend(other.probes);
        self.by_expiry.extend(other.by_expiry);
        // This holder takes part in none of the sessions that are open.
        self.pending.clear();
        self
    }

    /// Whether a probe with this nonce was used.
    pub(crate) fn is_used(&self, client: &ClientId, nonce: &[u8; 16]) -> bool {
        self.probes.contains_key(&(client.clone(), *nonce))
    }

    /// Whether one more decision may be asked for, beside those that are under way.
    ///
    /// # Errors
    /// [`HolderError::BudgetExhausted`], [`HolderError::LockedOut`], [`HolderError::Disabled`].
    pub(crate) fn check<'a>(
        &self,
        policy: &Policy,
        asked: &Asking,
        under_way: impl Iterator<Item = &'a Asking>,
        now: Timestamp,
    ) -> Result<(), HolderError> {
        let (mut all, mut of_client, mut of_subject) = (0u32, 0u32, 0u32);
        for other in under_way.filter(|a| a.collection == asked.collection) {
            let openings = other.openings;
            all += openings;
            of_client += if other.client == asked.client { openings } else { 0 };
            of_subject += if asked.subject.is_some() && other.subject == asked.subject { openings } else { 0 };
        }
        self.check_budgets(policy, asked, [all, of_client, of_subject], now)?;
        match &asked.subject {
            Some(subject) => self.check_lock(policy, &asked.collection, subject, of_subject, now),
            None => Ok(()),
        }
    }

    fn check_budgets(
        &self,
        policy: &Policy,
        asked: &Asking,
        [all, of_client, of_subject]: [u32; 3],
        now: Timestamp,
    ) -> Result<(), HolderError> {
        let budgets = policy.budgets;
        let seconds = budgets.window_seconds;
        let current = number(seconds, now);
        let window = self.windows.get(&asked.collection).filter(|w| w.seconds == seconds && w.number == current);
        let used = |of: &dyn Fn(&Window) -> Option<u32>| window.and_then(of).unwrap_or(0);
        let limits = [
            (Budget::Client, budgets.per_client, of_client, used(&|w| w.clients.get(&asked.client).copied())),
            (
                Budget::Subject,
                if asked.subject.is_some() { budgets.per_subject } else { 0 },
                of_subject,
                used(&|w| w.subjects.get(asked.subject.as_ref()?).copied()),
            ),
            (Budget::Collection, budgets.total, all, used(&|w| Some(w.total))),
        ];
        for (what, limit, under_way, used) in limits {
            if limit > 0 && used.saturating_add(under_way).saturating_add(asked.openings) > limit {
                let end = current.saturating_add(1).saturating_mul(seconds.into());
                return Err(HolderError::BudgetExhausted { what, retry_after: end.saturating_sub(now.0) });
            }
        }
        Ok(())
    }

    fn check_lock(
        &self,
        policy: &Policy,
        collection: &CollectionId,
        subject: &SubjectId,
        under_way: u32,
        now: Timestamp,
    ) -> Result<(), HolderError> {
        let rules = policy.lock_out;
        let failures = self.failures.get(&(collection.clone(), subject.clone()));
        let in_a_row = failures.map_or(0, |f| u32::from(f.in_a_row));
        // What is under way may fail: attempts side by side must not get around the delay.
        let worst = in_a_row.saturating_add(under_way);
        let (allowed, disable_after) = (u32::from(rules.failures), u32::from(rules.disable_after));
        if allowed == 0 || worst < allowed {
            return Ok(());
        }
        if disable_after > 0 && worst >= disable_after {
            return Err(HolderError::Disabled { subject: subject.clone() });
        }
        let doublings = worst.saturating_sub(allowed).min(32);
        let delay = u64::from(rules.delay_seconds) << doublings;
        let since = if under_way > 0 { now.0 } else { failures.map_or(0, |f| f.last.0) };
        match since.saturating_add(delay).saturating_sub(now.0) {
            0 => Ok(()),
            retry_after => Err(HolderError::LockedOut { subject: subject.clone(), retry_after }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::AuditLog;
    use veilmatch_domain::{Budgets, Dimension, LockOut, Query, Threshold};

    struct Book {
        log: AuditLog,
        ledger: Ledger,
        policy: Policy,
        now: Timestamp,
        session: u8,
    }

    fn asking(client: &str, subject: Option<&str>) -> Asking {
        Asking {
            client: ClientId::new(client).unwrap(),
            collection: CollectionId::new("staff").unwrap(),
            subject: subject.map(|s| SubjectId::new(s).unwrap()),
            nonce: [0; 16],
            expires: Timestamp(0),
            openings: 1,
        }
    }

    impl Book {
        fn new(budgets: Budgets, lock_out: LockOut) -> Book {
            let policy = Policy { budgets, lock_out, ..Policy::permissive(Dimension::new(64).unwrap()) };
            assert_eq!(policy.validate(), Ok(()));
            Book { log: AuditLog::default(), ledger: Ledger::default(), policy, now: Timestamp(86_400), session: 0 }
        }

        fn log(&mut self, session: u8, event: AuditEvent) {
            self.ledger.apply(&self.log.append(self.now, SessionId([session; 32]), event));
        }

        fn check(&self, client: &str, subject: Option<&str>) -> Result<(), HolderError> {
            self.ledger.check(&self.policy, &asking(client, subject), [].iter(), self.now)
        }

        /// Opens; returns the session.
        fn open(&mut self, client: &str, subject: Option<&str>) -> u8 {
            self.session += 1;
            let Asking { client, collection, subject, .. } = asking(client, subject);
            let decision = subject.map_or(Decision::Exists, |subject| Decision::Verify { subject });
            let query = Query::new(decision, Threshold::new(0.4).unwrap());
            let window_seconds = self.policy.budgets.window_seconds;
            self.log(self.session, AuditEvent::Opening { client, collection, query, stage: 0, window_seconds });
            self.session
        }

        fn verify(&mut self, subject: &str, hit: bool) {
            let session = self.open("gate", Some(subject));
            self.log(session, AuditEvent::Outcome(Outcome::Verify(hit)));
        }

        /// A snapshot there and back.
        fn restart(&mut self) {
            let bytes = borsh::to_vec(&self.ledger).unwrap();
            self.ledger = borsh::from_slice(&bytes).unwrap();
        }
    }

    const OFF: LockOut = LockOut { failures: 0, delay_seconds: 0, disable_after: 0 };
    const FREE: Budgets = Budgets { window_seconds: 0, per_client: 0, per_subject: 0, total: 0 };

    #[test]
    fn budgets_by_client_subject_and_collection_until_the_window_ends() {
        let budgets = Budgets { window_seconds: 3600, per_client: 2, per_subject: 3, total: 5 };
        let mut book = Book::new(budgets, OFF);
        book.now = Timestamp(86_400 + 600);
        let exhausted = |what| Err(HolderError::BudgetExhausted { what, retry_after: 3000 });
        book.open("a", Some("x"));
        book.open("a", Some("x"));
        assert_eq!(book.check("a", None), exhausted(Budget::Client));
        assert_eq!(book.check("b", Some("x")), Ok(()));
        book.open("b", Some("x"));
        book.restart();
        assert_eq!(book.check("c", Some("x")), exhausted(Budget::Subject));
        assert_eq!(book.check("c", Some("y")), Ok(()));
        book.open("c", None);
        // One that is under way counts as well, once.
        let mut other = asking("d", None);
        let check =
            |other: &Asking| book.ledger.check(&book.policy, &asking("c", None), std::iter::once(other), book.now);
        assert_eq!(check(&other), exhausted(Budget::Collection));
        other.openings = 0;
        assert_eq!(check(&other), Ok(()));
        book.open("d", None);
        assert_eq!(book.check("e", None), exhausted(Budget::Collection));
        book.now = Timestamp(86_400 + 3600);
        assert_eq!(book.check("a", Some("x")), Ok(()));
    }

    #[test]
    fn failures_in_a_row_delay_then_disable() {
        let mut book = Book::new(FREE, LockOut { failures: 2, delay_seconds: 30, disable_after: 5 });
        let locked = |retry_after| Err(HolderError::LockedOut { subject: SubjectId::new("x").unwrap(), retry_after });
        book.verify("x", false);
        book.verify("x", true);
        book.verify("x", false);
        assert_eq!(book.check("a", Some("x")), Ok(()));
        // Side by side: the one that is under way would be the second failure.
        let other = asking("b", Some("x"));
        let check = book.ledger.check(&book.policy, &asking("a", Some("x")), std::iter::once(&other), book.now);
        assert_eq!(check, locked(30));
        // An opening without an outcome is a failure.
        book.open("gate", Some("x"));
        book.restart();
        assert_eq!(book.check("a", Some("x")), locked(30));
        assert_eq!(book.check("a", Some("y")), Ok(()));
        assert_eq!(book.check("a", None), Ok(()));
        for (failures, delay) in [(3, 60), (4, 120)] {
            book.now = Timestamp(book.now.0 + delay / 2);
            assert_eq!(book.check("a", Some("x")), Ok(()), "{failures}");
            book.verify("x", false);
            assert_eq!(book.check("a", Some("x")), locked(delay));
        }
        book.now = Timestamp(book.now.0 + 120);
        book.verify("x", false);
        book.now = Timestamp(book.now.0 + 1_000_000);
        let disabled = Err(HolderError::Disabled { subject: SubjectId::new("x").unwrap() });
        assert_eq!(book.check("a", Some("x")), disabled);
        let collection = CollectionId::new("staff").unwrap();
        let action = Administered::Unlock { collection, subject: SubjectId::new("x").unwrap() };
        book.log(0, AuditEvent::Administered { administrator: [0; 32], action });
        assert_eq!(book.check("a", Some("x")), Ok(()));
    }

    #[test]
    fn a_success_beside_a_failure_does_not_clear_it() {
        let mut book = Book::new(FREE, LockOut { failures: 1, delay_seconds: 30, disable_after: 0 });
        let (hit, miss) = (book.open("a", Some("x")), book.open("b", Some("x")));
        book.log(hit, AuditEvent::Outcome(Outcome::Verify(true)));
        assert!(book.check("a", Some("x")).is_err());
        book.log(miss, AuditEvent::Outcome(Outcome::Verify(false)));
        assert!(book.check("a", Some("x")).is_err());
    }

    #[test]
    fn probes_are_remembered_until_they_expire() {
        let mut book = Book::new(FREE, OFF);
        let client = ClientId::new("gate").unwrap();
        let check = |nonce, expires| AuditEvent::NormCheck {
            templates: 1,
            probe: Some(ProbeUse { client: client.clone(), nonce: [nonce; 16], expires: Timestamp(expires) }),
        };
        book.log(1, check(1, 86_500));
        book.restart();
        assert!(book.ledger.is_used(&client, &[1; 16]) && !book.ledger.is_used(&client, &[2; 16]));
        book.now = Timestamp(86_501);
        book.log(2, check(2, 90_000));
        assert!(!book.ledger.is_used(&client, &[1; 16]) && book.ledger.is_used(&client, &[2; 16]));
        assert_eq!(book.ledger.probes.len(), book.ledger.by_expiry.len());
    }
}
