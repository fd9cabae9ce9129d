//! Five parties in this process, and what each of them spends on an operation: CPU time of this process, charged to whoever
//! handles a message or computes, until the next one does.
//!
//! The parties run one after the other, so CPU time is theirs alone however many threads they use. Holders' heavy work is
//! deferred and computed when everything else has come to rest, which changes no message and no result.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use veilmatch_cluster::{Address, Cluster};
use veilmatch_domain::{
    ClientId, CollectionId, Dimension, Embedding, Outcome, Party, Policy, Query, SchemeName, SubjectId,
};
use veilmatch_glwe::{GLWE_2048_V1, MAX_ADMISSION, Verdict};
use veilmatch_secret::os_entropy;
use veilmatch_threshold::Dealt;

use super::BenchError;
use crate::encrypted::stopped;
use crate::exit::CliError;
use crate::report::Bar;

/// What a party did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// A holder computed what a session had handed out.
    Work(Party),
    /// A message was handled by its receiver.
    Message {
        /// Its sender.
        from: Address,
        /// Who handled it.
        to: Address,
        /// Its first byte, which is the variant of a message between matcher and holders.
        variant: u8,
        /// Its length.
        bytes: usize,
    },
}

/// An act and the CPU time that it took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    pub(super) act: Act,
    pub(super) cpu: Duration,
}

/// The acts of one operation in order.
#[derive(Debug, Default)]
struct Journal {
    acts: Vec<Spent>,
    /// The act that goes on, and when it began.
    open: Option<(Act, Duration)>,
}

impl Journal {
    fn close(&mut self) {
        let now = cpu_time();
        if let Some((act, since)) = self.open.take() {
            self.acts.push(Spent { act, cpu: now.saturating_sub(since) });
        }
    }

    fn begin(&mut self, act: Act) {
        self.close();
        self.open = Some((act, cpu_time()));
    }
}

/// CPU time of all threads of this process.
pub(super) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// The parties, watched.
pub(super) struct Watched {
    cluster: Cluster,
    journal: Arc<Mutex<Journal>>,
}

impl Watched {
    /// Founds the parties of one collection.
    ///
    /// # Errors
    /// [`CliError::Protocol`] if the ceremony does not complete.
    pub(super) fn found(dimension: Dimension) -> Result<Self, CliError> {
        Self::with(Policy::permissive(dimension), None)
    }

    /// Founds the parties of one collection under the scheme `paillier`, with a twin.
    ///
    /// # Errors
    /// As [`Watched::found`].
    pub(super) fn found_with_key(dimension: Dimension, dealt: Dealt) -> Result<Self, CliError> {
        Self::with(Policy { scheme: SchemeName::Paillier, ..Policy::permissive(dimension) }, Some(dealt))
    }

    fn with(policy: Policy, dealt: Option<Dealt>) -> Result<Self, CliError> {
        let collection = CollectionId::new("bench").map_err(CliError::protocol)?;
        let client = ClientId::new("veilmatch-cli").map_err(CliError::protocol)?;
        let cluster = match dealt {
            None => Cluster::new(GLWE_2048_V1, collection, policy, client, os_entropy),
            Some(dealt) => Cluster::with_key(GLWE_2048_V1, collection, policy, client, os_entropy, dealt, None),
        };
        let mut cluster = cluster.map_err(stopped)?;
        let journal = Arc::new(Mutex::new(Journal::default()));
        let shared = Arc::clone(&journal);
        cluster.tamper = Some(Box::new(move |delivery| {
            let variant = delivery.bytes.first().copied().unwrap_or_default();
            let act = Act::Message { from: delivery.from, to: delivery.to, variant, bytes: delivery.bytes.len() };
            lock(&shared).begin(act);
            true
        }));
        Ok(Self { cluster, journal })
    }

    /// Enrols people and forgets what that took, unless the journal is read after each batch.
    ///
    /// # Errors
    /// [`CliError`] if anybody is refused.
    pub(super) fn enroll(
        &mut self,
        people: &[(SubjectId, Embedding)],
        bar: &Bar,
        mut each: impl FnMut(&[Spent]),
    ) -> Result<(), CliError> {
        let collection = self.cluster.collection().clone();
        let batches = people.len().div_ceil(MAX_ADMISSION);
        for (number, batch) in people.chunks(MAX_ADMISSION).enumerate() {
            let mut templates = Vec::with_capacity(batch.len());
            for (subject, embedding) in batch {
                let now = self.cluster.now;
                let sealed = self.cluster.client.seal_template(&collection, subject.clone(), embedding, now);
                templates.push(sealed.map_err(|e| stopped(e.into()))?);
            }
            let request = self.cluster.client.enroll(&collection, templates, number + 1 < batches);
            let answer = self.answer(request)?;
            let verdicts = veilmatch_sdk::Client::read_enrolled(&answer).map_err(|e| stopped(e.into()))?;
            if verdicts.iter().any(|v| matches!(v, Verdict::Refused(_))) {
                return Err(CliError::protocol(BenchError::Incomplete("enrolment")));
            }
            each(&self.take());
            bar.reach(number * MAX_ADMISSION + batch.len());
        }
        Ok(())
    }

    /// Asks, and returns what everybody did.
    ///
    /// # Errors
    /// [`CliError`] if the query is refused.
    pub(super) fn ask(&mut self, probe: &Embedding, query: &Query) -> Result<(Outcome, Vec<Spent>), CliError> {
        let (collection, now) = (self.cluster.collection().clone(), self.cluster.now);
        let asked = self.cluster.client.ask(&collection, probe, query.clone(), now);
        let (request, pending) = asked.map_err(|e| stopped(e.into()))?;
        self.take();
        let answer = self.answer(request)?;
        let outcome = pending.read(&answer).map_err(|e| stopped(e.into()))?;
        Ok((outcome, self.take()))
    }

    /// Erases a person, and returns what everybody did.
    ///
    /// # Errors
    /// [`CliError`] if the erasure is refused.
    pub(super) fn erase(&mut self, subject: &SubjectId) -> Result<Vec<Spent>, CliError> {
        self.take();
        self.cluster.erase(subject).map_err(stopped)?;
        Ok(self.take())
    }

    /// Bytes of groups that the matcher keeps ready under `paillier`.
    pub(super) fn prepared_bytes(&self) -> usize {
        self.cluster.matcher().prepared_bytes()
    }

    /// The block width and the rank of each live group.
    pub(super) fn layouts(&self) -> Vec<(usize, usize)> {
        let index = self.cluster.matcher().index(self.cluster.collection());
        let groups = index.into_iter().flat_map(|i| i.groups());
        groups.map(|g| (g.packed.layout.beta(), g.packed.layout.rank())).collect()
    }

    /// The acts since the last call.
    fn take(&mut self) -> Vec<Spent> {
        let mut journal = lock(&self.journal);
        journal.close();
        std::mem::take(&mut journal.acts)
    }

    fn answer(&mut self, request: Vec<u8>) -> Result<Vec<u8>, CliError> {
        self.cluster.deferred = Some(Vec::new());
        let id = self.cluster.submit(request);
        self.cluster.run();
        while let Some(party) = self.cluster.deferred.as_ref().and_then(|d| d.first()).map(|(party, _)| *party) {
            lock(&self.journal).begin(Act::Work(party));
            self.cluster.compute(0);
        }
        lock(&self.journal).close();
        self.cluster.deferred = None;
        let answer = self.cluster.answer_of(id).map_err(stopped);
        drop(self.cluster.take_failures());
        answer
    }
}

/// A journal that a panic left behind is as good as any: it holds times alone.
fn lock(journal: &Mutex<Journal>) -> std::sync::MutexGuard<'_, Journal> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}

/// CPU milliseconds of one query by stage. Fields of the holders are means over the three.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct QueryCost {
    /// One holder, from the request to its part of the probe: signature, unsealing, handshake, norm check, recrypt.
    pub(super) recrypt: f64,
    /// The matcher: adding parts up, scanning, encoding.
    pub(super) matcher: f64,
    /// One holder: mask side, check of the matcher's sums, shares of scores.
    pub(super) shares: f64,
    /// One holder: comparison and opening, replies.
    pub(super) comparison: f64,
    /// Bytes from the matcher to one holder with its sums.
    pub(super) sums_bytes: f64,
}

impl QueryCost {
    /// Splits a query: its second half begins when the matcher sends something after the holders have sent it something.
    pub(super) fn of(acts: &[Spent]) -> Self {
        let (mut cost, mut heard, mut scanned) = (Self::default(), false, false);
        for Spent { act, cpu } in acts {
            let ms = cpu.as_secs_f64() * 1e3;
            match *act {
                Act::Work(_) if scanned => cost.shares += ms / 3.0,
                Act::Work(_) => cost.recrypt += ms / 3.0,
                Act::Message { to: Address::Matcher, from, .. } => {
                    heard |= matches!(from, Address::Holder(_));
                    cost.matcher += ms;
                }
                Act::Message { to: Address::Holder(_), from, bytes, .. } => {
                    let from_matcher = from == Address::Matcher;
                    scanned |= from_matcher && heard;
                    if scanned && from_matcher {
                        cost.sums_bytes += bytes as f64 / 3.0;
                    }
                    // What comes with the sums is decoded and computed in the work that follows.
                    match (scanned, from_matcher) {
                        (false, _) => cost.recrypt += ms / 3.0,
                        (true, true) => cost.shares += ms / 3.0,
                        (true, false) => cost.comparison += ms / 3.0,
                    }
                }
                Act::Message { to: Address::Client | Address::Twin, .. } => {}
            }
        }
        cost
    }
}

/// CPU time of an enrolment by what the matcher had ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct EnrolCost {
    /// All three holders: signatures, unsealing, norm check.
    pub(super) admit: Duration,
    /// All three holders: reading members again, recrypt, check vectors.
    pub(super) build: Duration,
    /// The matcher: everything.
    pub(super) matcher: Duration,
}

/// The variant byte of `ToHolder::Build`.
const BUILD: u8 = 1;

impl EnrolCost {
    /// Adds a batch's acts: what holders do after the matcher has ordered a build belongs to the build.
    pub(super) fn add(&mut self, acts: &[Spent]) {
        let mut building = false;
        for Spent { act, cpu } in acts {
            match *act {
                Act::Message { to: Address::Matcher, .. } => self.matcher += *cpu,
                Act::Message { to: Address::Client, .. } => {}
                Act::Message { from: Address::Matcher, variant, .. } if variant == BUILD => {
                    building = true;
                    self.build += *cpu;
                }
                Act::Work(_) | Act::Message { .. } if building => self.build += *cpu,
                Act::Work(_) | Act::Message { .. } => self.admit += *cpu,
            }
        }
    }
}

/// Synthetic people with ids, one image each.
///
/// # Errors
/// None in practice.
pub(super) fn people(count: usize, dimension: Dimension) -> Result<Vec<(SubjectId, Embedding)>, CliError> {
    let mut people = Vec::with_capacity(count);
    for (i, images) in crate::synthetic::people(count, 1, dimension, 1)?.into_iter().enumerate() {
        let subject = SubjectId::new(format!("person-{i}")).map_err(CliError::protocol)?;
        people.extend(images.into_iter().map(|image| (subject.clone(), image)));
    }
    Ok(people)
}

#[cfg(test)]
mod tests {
    use super::*;
    use veilmatch_glwe::{BuildOrder, Layout, ToHolder};

    #[test]
    fn a_query_is_split_where_the_sums_come() {
        let ms = |act, ms| Spent { act, cpu: Duration::from_millis(ms) };
        let message = |from, to, bytes| Act::Message { from, to, variant: 0, bytes };
        let (k0, k1) = (Address::Holder(Party::K0), Address::Holder(Party::K1));
        let cost = QueryCost::of(&[
            ms(message(Address::Client, Address::Matcher, 9), 1),
            ms(message(Address::Matcher, k0, 9), 3),
            ms(message(k0, k1, 9), 6),
            ms(Act::Work(Party::K0), 9),
            ms(message(k0, Address::Matcher, 9), 5),
            ms(message(Address::Matcher, k0, 300), 3),
            ms(Act::Work(Party::K0), 30),
            ms(message(k0, k1, 9), 12),
            ms(message(k0, Address::Matcher, 9), 1),
            ms(message(Address::Matcher, Address::Client, 9), 50),
        ]);
        let expected = QueryCost { recrypt: 6.0, matcher: 7.0, shares: 11.0, comparison: 4.0, sums_bytes: 100.0 };
        assert_eq!(cost, expected);
    }

    #[test]
    fn the_variant_of_a_build_order_is_known() {
        let order = BuildOrder {
            attempt: 1,
            collection: CollectionId::new("c").unwrap(),
            group: veilmatch_domain::GroupId(0),
            revision: veilmatch_domain::Revision(0),
            epoch: veilmatch_domain::Epoch(0),
            layout: Layout::new(4, 1).unwrap(),
            members: Vec::new(),
            replaces: Vec::new(),
        };
        assert_eq!(borsh::to_vec(&ToHolder::Build(order)).unwrap()[0], BUILD);
    }
}
