//! Messages in, messages out: which request a message belongs to, and what happens next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use veilmatch_domain::{CollectionId, Dimension, Epoch, GroupId, Party, SessionId, SubjectId};
use veilmatch_gallery::{CollectionIndex, plan_rotation};
use veilmatch_glwe::{ClientAnswer, ClientRequest, FromHolder, Parameters, Refusal, ToHolder};
use veilmatch_kernels::Ring;

use crate::MatcherError;
use crate::search::Search;
use crate::writer::{Job, Writer};

/// One request of a client, numbered by the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Where a message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A client; the answer goes back under the same number.
    Client(RequestId),
    /// A key holder.
    Holder(Party),
}

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// The client that made this request.
    Client(RequestId),
    /// A key holder.
    Holder(Party),
}

/// A message to send.
#[derive(Clone, PartialEq, Eq)]
pub struct Outbound {
    /// To whom.
    pub to: Recipient,
    /// What.
    pub bytes: Vec<u8>,
}

/// A collection at the matcher.
#[derive(Default)]
pub(crate) struct Collection {
    pub(crate) dimension: Option<Dimension>,
    pub(crate) index: CollectionIndex,
    /// Groups that carry erased members because their rebuild failed.
    pub(crate) overdue: BTreeSet<GroupId>,
    pub(crate) sealed: BTreeMap<SubjectId, Vec<u8>>,
}

/// What every request may touch.
pub(crate) struct Shared {
    pub(crate) parameters: Parameters,
    pub(crate) ring: Ring,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) collections: BTreeMap<CollectionId, Collection>,
    pub(crate) attempt: u64,
    pub(crate) outbox: Vec<Outbound>,
}

impl Shared {
    pub(crate) fn tell_all(&mut self, message: &ToHolder) {
        self.tell(&Party::ALL, message);
    }

    pub(crate) fn tell(&mut self, parties: &[Party], message: &ToHolder) {
        if let Ok(bytes) = borsh::to_vec(message) {
            for &party in parties {
                self.outbox.push(Outbound { to: Recipient::Holder(party), bytes: bytes.clone() });
            }
        }
    }

    pub(crate) fn answer(&mut self, request: RequestId, answer: &ClientAnswer) {
        if let Ok(bytes) = borsh::to_vec(answer) {
            self.outbox.push(Outbound { to: Recipient::Client(request), bytes });
        }
    }

    pub(crate) fn next_attempt(&mut self) -> u64 {
        self.attempt += 1;
        self.attempt
    }

    pub(crate) fn collection(&mut self, id: &CollectionId) -> Result<&mut Collection, MatcherError> {
        self.collections.get_mut(id).ok_or_else(|| MatcherError::UnknownCollection(id.clone()))
    }
}

/// The matcher. Searches run side by side; what changes the index (enrol, erase, rotation) runs one after the other.
pub struct Matcher {
    shared: Shared,
    searches: BTreeMap<SessionId, Search>,
    writer: Option<Writer>,
    waiting: VecDeque<(RequestId, Job)>,
}

impl std::fmt::Debug for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Matcher({} searches)", self.searches.len())
    }
}

impl Matcher {
    /// An empty matcher. `first_attempt` must be above every attempt number of an earlier life of this matcher.
    #[must_use]
    pub fn new(parameters: Parameters, first_attempt: u64) -> Self {
        let shared = Shared {
            parameters,
            ring: parameters.ring(),
            epoch: None,
            collections: BTreeMap::new(),
            attempt: first_attempt,
            outbox: Vec::new(),
        };
        Self { shared, searches: BTreeMap::new(), writer: None, waiting: VecDeque::new() }
    }

    /// Creates a collection.
    pub fn create_collection(&mut self, collection: CollectionId, dimension: Dimension) {
        self.shared.collections.entry(collection).or_default().dimension = Some(dimension);
    }

    /// Announces the key epoch under which groups are built from now on.
    pub fn set_epoch(&mut self, epoch: Epoch) {
        self.shared.epoch = Some(epoch);
    }

    /// Rebuilds every group of a collection under the current epoch; the answer goes to `request`.
    pub fn rotate(&mut self, request: RequestId, collection: &CollectionId) -> Vec<Outbound> {
        let plans = self.shared.collections.get(collection).map(|c| plan_rotation(&self.shared.parameters, &c.index));
        self.waiting
            .push_back((request, Job::Rebuild { collection: collection.clone(), plans: plans.unwrap_or_default() }));
        self.start_waiting();
        std::mem::take(&mut self.shared.outbox)
    }

    /// The index of a collection.
    #[must_use]
    pub fn index(&self, collection: &CollectionId) -> Option<&CollectionIndex> {
        self.shared.collections.get(collection).map(|c| &c.index)
    }

    /// Whether a subject's sealed template is stored here.
    #[must_use]
    pub fn stores(&self, collection: &CollectionId, subject: &SubjectId) -> bool {
        self.index(collection).is_some_and(|i| i.template(subject).is_some())
    }

    /// Takes one message; returns what to send.
    pub fn receive(&mut self, from: Sender, bytes: &[u8]) -> Vec<Outbound> {
        match from {
            Sender::Client(request) => {
                if let Err(error) = self.hear_client(request, bytes) {
                    self.shared.answer(request, &ClientAnswer::Refused(error.refusal()));
                }
            }
            Sender::Holder(party) => self.hear_holder(party, bytes),
        }
        self.start_waiting();
        std::mem::take(&mut self.shared.outbox)
    }

    /// Gives up every request that waits for a holder; the caller has the clock. Holders are told to forget the sessions.
    /// What holders were told to commit or to erase is not given up but said again, for they must not come apart.
    pub fn expire(&mut self) -> Vec<Outbound> {
        for (session, search) in std::mem::take(&mut self.searches) {
            let error = MatcherError::TimedOut(search.late());
            self.shared.tell_all(&ToHolder::Abandon { session });
            self.shared.answer(search.request, &ClientAnswer::Refused(error.refusal()));
        }
        self.writer = self.writer.take().and_then(|writer| writer.expire(&mut self.shared));
        self.start_waiting();
        std::mem::take(&mut self.shared.outbox)
    }

    fn hear_client(&mut self, request: RequestId, bytes: &[u8]) -> Result<(), MatcherError> {
        match borsh::from_slice(bytes).map_err(|_| MatcherError::MalformedRequest)? {
            ClientRequest::Enroll { collection, templates, more_follows } => {
                self.waiting.push_back((request, Job::Enroll { collection, templates, more_follows }));
            }
            ClientRequest::Erase { request: signed } => self.waiting.push_back((request, Job::Erase { signed })),
            ClientRequest::Ask { sealed } => {
                let (session, search) = Search::start(&mut self.shared, request, &sealed)?;
                if self.searches.contains_key(&session) {
                    return Err(MatcherError::WrongUse);
                }
                self.shared.tell_all(&ToHolder::Ask { sealed });
                self.searches.insert(session, search);
            }
        }
        Ok(())
    }

    fn start_waiting(&mut self) {
        while self.writer.is_none() {
            let Some((request, job)) = self.waiting.pop_front() else { return };
            match Writer::start(&mut self.shared, request, job) {
                Ok(writer) => self.writer = writer,
                Err(error) => self.shared.answer(request, &ClientAnswer::Refused(error.refusal())),
            }
        }
    }

    fn hear_holder(&mut self, party: Party, bytes: &[u8]) {
        // A message that cannot be read names no session: what waits for it runs into its deadline.
        let Ok(message) = borsh::from_slice::<FromHolder>(bytes) else { return };
        match message {
            FromHolder::ProbePart { session, .. } | FromHolder::Answer { session, .. } => {
                let Some(search) = self.searches.get_mut(&session) else { return };
                match search.take(&mut self.shared, party, message) {
                    Ok(false) => {}
                    Ok(true) => drop(self.searches.remove(&session)),
                    Err(error) => self.end_search(session, error.refusal()),
                }
            }
            FromHolder::Refused { session: Some(session), refusal } if self.searches.contains_key(&session) => {
                self.end_search(session, refusal);
            }
            message => {
                if let Some(writer) = self.writer.take() {
                    self.writer = writer.take(&mut self.shared, party, message);
                }
            }
        }
    }

    fn end_search(&mut self, session: SessionId, refusal: Refusal) {
        if let Some(search) = self.searches.remove(&session) {
            self.shared.tell_all(&ToHolder::Abandon { session });
            self.shared.answer(search.request, &ClientAnswer::Refused(refusal));
        }
    }
}
