//! Messages in, messages out: which request a message belongs to, and what happens next.
//!
//! Searches run side by side; what changes the index runs one after the other in a [`Writer`]. The holders refuse a
//! query if their registries differ, and for a moment they do whenever a group is committed or a subject erased. So the
//! writer closes a *gate* first: searches of that collection that are under way finish, new ones wait, the commit is
//! acknowledged by all three, the gate opens. No search fails because people are enrolled beside it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use veilmatch_domain::{
    CollectionId, Epoch, Explain as _, GroupId, Party, Revision, SessionId, SubjectId, Suspect, Timestamp,
};
use veilmatch_gallery::{Change, CollectionIndex, Description, Image, IntentId, Planner};
use veilmatch_glwe::{
    ClientAnswer, ClientRequest, FromHolder, FromTwin, PackedGroup, Parameters, Refusal, ToHolder, ToTwin,
};
use veilmatch_paillier::{KeySize, PublicKey, Slots};

use crate::evaluation::{self, Evaluator};
use crate::search::Search;
use crate::work::{Done, Task, Ticket, hot_blocks};
use crate::writer::{Job, Writer};
use crate::{MatcherError, Progress, Work, Worked};

/// One request of a client, numbered by the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Which stream to a holder a message takes: bulk work must not stand in the way of decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Admissions, builds, commits and erasures.
    Recrypt,
    /// Queries.
    Decide,
}

/// A message to a key holder.
#[derive(Clone, PartialEq, Eq)]
pub struct Outbound {
    /// To whom.
    pub to: Party,
    /// By which stream.
    pub lane: Lane,
    /// What; shared by the three holders.
    pub bytes: Bytes,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outbound(to {} by {:?}, {} bytes)", self.to, self.lane, self.bytes.len())
    }
}

/// What a message led to.
#[derive(Debug, Default)]
pub struct Reaction {
    /// Answers to clients.
    pub answers: Vec<(RequestId, ClientAnswer)>,
    /// Messages to holders, in order.
    pub send: Vec<Outbound>,
    /// What to run and give back through [`Matcher::finish`].
    pub work: Vec<Work>,
    /// How far searches have come, for measuring.
    pub marks: Vec<(RequestId, Mark)>,
    /// Messages to the twin, in order.
    pub to_twin: Vec<Bytes>,
}

/// How far a search has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// The holders were asked to recrypt the probe.
    Asked,
    /// All parts of the probe are here: the scan begins.
    Recrypted,
    /// The sums of a coarse stage have gone to the holders.
    ScannedCoarse,
    /// The holders have named the candidate groups: the rest of them is scanned.
    Preselected,
    /// The sums have gone to the holders: the decision begins.
    Scanned,
}

/// Bounds of what a matcher takes on, and how long it waits. Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A search, from its request to its answer.
    pub search_ms: u64,
    /// A stage of a change (admission, build, commit), for the holders' next message.
    pub write_ms: u64,
    /// More for each template in it.
    pub write_ms_per_template: u64,
    /// Most searches at once, those that wait included.
    pub searches: usize,
    /// Most changes that wait for their turn.
    pub waiting: usize,
    /// Whether merges, rotations and late rebuilds are begun when nothing else is to be done.
    pub maintenance: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            search_ms: 10_000,
            write_ms: 30_000,
            write_ms_per_template: 20,
            searches: 256,
            waiting: 256,
            maintenance: true,
        }
    }
}

/// How many of the first dimensions lie apart in the index, for a coarse stage to read alone (DESIGN 6). Groups that are
/// built differently are rebuilt when nothing else is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HotDimensions {
    /// In every collection that is not named below; `None` for groups in one segment.
    pub default: Option<u16>,
    /// In these collections; 0 for groups in one segment.
    pub collections: BTreeMap<CollectionId, u16>,
}

impl HotDimensions {
    pub(crate) fn of(&self, collection: &CollectionId) -> Option<u16> {
        match self.collections.get(collection) {
            Some(0) => None,
            Some(hot) => Some(*hot),
            None => self.default,
        }
    }
}

/// The longest pause of maintenance after failures, in milliseconds.
const LONGEST_PAUSE_MS: u64 = 60_000;

/// A collection at the matcher.
pub(crate) struct Collection {
    pub(crate) description: Description,
    pub(crate) index: CollectionIndex,
    /// Until when more templates were announced, in the driver's milliseconds: maintenance leaves those that are stored
    /// and not indexed to whoever brings the rest.
    pub(crate) expecting: u64,
}

impl Collection {
    pub(crate) fn new(description: Description, index: CollectionIndex) -> Self {
        Self { description, index, expecting: 0 }
    }

    /// Slots of a packed ciphertext, if the collection is under the scheme `paillier`.
    pub(crate) fn slots(&self) -> Option<usize> {
        let Description { dimension, ref parameters, .. } = self.description;
        let size = KeySize::ALL.into_iter().find(|size| size.parameters() == *parameters)?;
        Some(Slots::new(size, dimension).count())
    }

    pub(crate) fn planner(&self, parameters: Parameters) -> Planner<'_> {
        let Description { dimension, group_capacity, .. } = self.description;
        if let Some(slots) = self.slots() {
            return Planner::of_slots(parameters, slots, group_capacity as usize, &self.index);
        }
        Planner::new(parameters, dimension, group_capacity as usize, &self.index)
    }
}

/// A search that waits for a gate.
pub(crate) struct Held {
    request: RequestId,
    collection: CollectionId,
    sealed: Vec<u8>,
    started: u64,
}

/// What every request may touch.
pub(crate) struct Shared {
    pub(crate) parameters: Parameters,
    pub(crate) limits: Limits,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) collections: BTreeMap<CollectionId, Collection>,
    /// What evaluating collections of the scheme `paillier` takes.
    pub(crate) evaluator: Option<Evaluator>,
    pub(crate) erased: BTreeMap<IntentId, Timestamp>,
    pub(crate) hot_dimensions: HotDimensions,
    pub(crate) attempt: u64,
    pub(crate) now: u64,
    pub(crate) connected: [bool; 3],
    /// Whether there is a way to the twin.
    twin_connected: bool,
    /// Collections whose searches wait.
    pub(crate) gates: BTreeSet<CollectionId>,
    /// Changes that can be written with the next transaction: what they say is true already and would be found out
    /// again after a crash.
    pub(crate) lazy: Vec<Change>,
    /// Whether a group was committed since maintenance last looked: then it need not pause.
    pub(crate) succeeded: bool,
    /// Erasures that are done but for a rebuild that they share with others.
    pub(crate) rebuild_waiters: Vec<(RequestId, CollectionId)>,
    tickets: u64,
    reaction: Reaction,
}

impl Shared {
    pub(crate) fn tell_all(&mut self, lane: Lane, message: &ToHolder) {
        self.tell(&Party::ALL, lane, message);
    }

    pub(crate) fn tell(&mut self, parties: &[Party], lane: Lane, message: &ToHolder) {
        if let Ok(bytes) = borsh::to_vec(message) {
            self.tell_bytes(parties, lane, &bytes.into());
        }
    }

    pub(crate) fn tell_bytes(&mut self, parties: &[Party], lane: Lane, bytes: &Bytes) {
        let connected = self.connected;
        let reachable = |party: &&Party| connected.get(party.index()).copied().unwrap_or_default();
        for &to in parties.iter().filter(reachable) {
            self.reaction.send.push(Outbound { to, lane, bytes: bytes.clone() });
        }
    }

    pub(crate) fn answer(&mut self, request: RequestId, answer: ClientAnswer) {
        self.reaction.answers.push((request, answer));
    }

    pub(crate) fn refuse(&mut self, request: RequestId, error: &MatcherError) {
        self.answer(request, ClientAnswer::Refused(error.refusal()));
    }

    /// The holders, and the twin if there is one, forget a search.
    fn abandon_search(&mut self, session: SessionId) {
        self.tell_all(Lane::Decide, &ToHolder::Abandon { session });
        if self.evaluator.is_some() {
            self.tell_twin(&ToTwin::Abandon { session });
        }
    }

    pub(crate) fn tell_twin(&mut self, message: &ToTwin) {
        if !self.twin_connected {
            return;
        }
        self.reaction.to_twin.extend(borsh::to_vec(message).ok().map(Bytes::from));
    }

    /// Whether a collection of the scheme `paillier` is under the public key that is known here.
    pub(crate) fn check_public_key(&self, id: &CollectionId) -> Result<(), MatcherError> {
        let Some(collection) = self.collections.get(id).filter(|collection| collection.slots().is_some()) else {
            return Ok(());
        };
        let known = self.evaluator.as_ref().map(|evaluator| evaluator.key().size().parameters());
        match known {
            Some(known) if collection.description.parameters == known => Ok(()),
            _ => Err(MatcherError::NoPublicKey(id.clone())),
        }
    }

    /// Tells the twin which groups of a collection are left: it forgets the others.
    pub(crate) fn tell_twin_what_is_live(&mut self, id: &CollectionId) {
        let Some(collection) = self.collections.get(id).filter(|collection| collection.slots().is_some()) else {
            return;
        };
        let live = collection.index.groups().map(|g| (g.packed.group, g.packed.revision)).collect();
        self.tell_twin(&ToTwin::Retain { collection: id.clone(), live });
    }

    pub(crate) fn mark(&mut self, request: RequestId, mark: Mark) {
        self.reaction.marks.push((request, mark));
    }

    pub(crate) fn work(&mut self, task: Task) {
        self.reaction.work.push(Work(task));
    }

    pub(crate) fn next_ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    pub(crate) fn next_attempt(&mut self) -> u64 {
        self.attempt += 1;
        self.attempt
    }

    pub(crate) fn take_rebuild_waiters(&mut self, collection: &CollectionId) -> Vec<RequestId> {
        let (ours, others) = std::mem::take(&mut self.rebuild_waiters).into_iter().partition(|(_, c)| c == collection);
        self.rebuild_waiters = others;
        Vec::into_iter(ours).map(|(request, _)| request).collect()
    }

    pub(crate) fn take_lazy(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.lazy)
    }

    pub(crate) fn collection(&mut self, id: &CollectionId) -> Result<&mut Collection, MatcherError> {
        self.collections.get_mut(id).ok_or_else(|| MatcherError::UnknownCollection(id.clone()))
    }

    /// Holders that there is no way to at the moment.
    pub(crate) fn unreachable(&self) -> Vec<Suspect> {
        Party::ALL.into_iter().zip(self.connected).filter(|(_, up)| !up).map(|(p, _)| Suspect::Holder(p)).collect()
    }

    fn reachable(&self) -> Result<(), MatcherError> {
        let suspects = self.unreachable();
        if suspects.is_empty() { Ok(()) } else { Err(MatcherError::Unreachable(suspects)) }
    }
}

/// The matcher. Searches run side by side; what changes the index runs one after the other.
pub struct Matcher {
    shared: Shared,
    searches: BTreeMap<SessionId, Search>,
    held: VecDeque<Held>,
    writer: Option<Writer>,
    waiting: VecDeque<(RequestId, Job)>,
    /// The epochs that the holders say they are in.
    epochs: [Option<Epoch>; 3],
    maintain_from: u64,
    pause_ms: u64,
    /// Whether maintenance found nothing to do when it last looked.
    rests: bool,
    /// The number that requests of the matcher to itself have: nobody waits for an answer.
    own: u64,
}

impl std::fmt::Debug for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Matcher({} searches)", self.searches.len())
    }
}

impl Matcher {
    /// A matcher that remembers `image`. Decisions that were not settled when it was stored are told again first.
    #[must_use]
    pub fn new(parameters: Parameters, limits: Limits, image: Image) -> Self {
        let mut collections = BTreeMap::new();
        for (id, stored) in image.collections {
            collections.insert(id, Collection::new(stored.description, stored.index));
        }
        let shared = Shared {
            parameters,
            limits,
            epoch: None,
            collections,
            evaluator: None,
            erased: image.erased,
            hot_dimensions: HotDimensions::default(),
            // Attempts of this life are above those of every earlier one.
            attempt: image.lives << 32,
            now: 0,
            connected: [true; 3],
            twin_connected: true,
            gates: BTreeSet::new(),
            lazy: Vec::new(),
            succeeded: false,
            rebuild_waiters: Vec::new(),
            tickets: 0,
            reaction: Reaction::default(),
        };
        let mut matcher = Self {
            shared,
            searches: BTreeMap::new(),
            held: VecDeque::new(),
            writer: None,
            waiting: VecDeque::new(),
            epochs: [None; 3],
            maintain_from: 0,
            pause_ms: 0,
            rests: false,
            own: u64::MAX,
        };
        for (id, intent) in image.intents {
            let request = matcher.own_request();
            matcher.waiting.push_back((request, Job::Resume { id, intent }));
        }
        matcher
    }

    fn own_request(&mut self) -> RequestId {
        self.own -= 1;
        RequestId(self.own)
    }

    /// Creates a collection or describes it anew; the answer comes when that is stored.
    ///
    /// A collection that exists keeps its dimension and parameters.
    pub fn describe(&mut self, request: RequestId, collection: CollectionId, description: Description) -> Reaction {
        let misfit = self.shared.collections.get(&collection).is_some_and(|c| {
            (c.description.dimension, &c.description.parameters) != (description.dimension, &description.parameters)
        });
        let evaluated = self.shared.evaluator.as_ref().map(|evaluator| evaluator.key().size().parameters());
        let known = [Some(self.shared.parameters.name), evaluated].contains(&Some(description.parameters.as_str()));
        if !known || misfit {
            self.shared.refuse(request, &MatcherError::OtherCollection(collection));
        } else {
            self.shared.work(Task::Describe { request, collection, description });
        }
        self.react()
    }

    /// Takes the public key of the scheme `paillier`: collections under it can be made and searched from then on. `memory`
    /// bytes of groups are kept ready to be evaluated.
    pub fn set_public_key(&mut self, key: PublicKey, memory: usize) {
        self.shared.evaluator = Some(Evaluator::new(key, memory));
    }

    /// Bytes of groups under the scheme `paillier` that are kept ready to be evaluated.
    #[must_use]
    pub fn prepared_bytes(&self) -> usize {
        self.shared.evaluator.as_ref().map_or(0, Evaluator::prepared_bytes)
    }

    /// The twin can be reached (again): it is told which groups are left of what it may hold.
    pub fn twin_connected(&mut self) -> Reaction {
        self.shared.twin_connected = true;
        let ids: Vec<CollectionId> = self.shared.collections.keys().cloned().collect();
        ids.iter().for_each(|id| self.shared.tell_twin_what_is_live(id));
        self.react()
    }

    /// There is no way to the twin: what waits for it ends at once and names it, and so does every search that would need it, until
    /// [`Self::twin_connected`].
    pub fn twin_lost(&mut self) -> Reaction {
        self.shared.twin_connected = false;
        let waiting = self.searches.iter().filter(|(_, search)| search.waits_for_twin());
        let waiting: Vec<SessionId> = waiting.map(|(session, _)| *session).collect();
        for session in waiting {
            self.end_search(session, MatcherError::Unreachable(vec![Suspect::Twin]).refusal());
        }
        self.react()
    }

    /// Takes a message of the twin's.
    pub fn hear_twin(&mut self, bytes: &[u8]) -> Reaction {
        match borsh::from_slice(bytes) {
            Ok(FromTwin::Evaluated { session, ciphertexts }) => {
                if let Some(search) = self.searches.get_mut(&session)
                    && let Err(error) = search.take_twin(&mut self.shared, ciphertexts)
                {
                    self.end_search(session, error.refusal());
                }
            }
            Ok(FromTwin::Missing { session, collection, groups }) if self.searches.contains_key(&session) => {
                self.show_to_twin(&collection, &groups);
            }
            Ok(FromTwin::Refused { session, refusal }) => self.end_search(session, refusal),
            // What cannot be read names no session: what waits for it runs into its deadline.
            _ => {}
        }
        self.react()
    }

    /// Sends the twin groups that it does not hold; those that are not live (any more) it does not get.
    fn show_to_twin(&mut self, id: &CollectionId, groups: &[(GroupId, Revision)]) {
        for &(group, revision) in groups {
            let index = self.shared.collections.get(id).filter(|c| c.slots().is_some()).map(|c| &c.index);
            let record = index.and_then(|index| index.group(group)).filter(|record| record.packed.revision == revision);
            let Some(record) = record.map(Arc::clone) else { continue };
            let ciphertexts = evaluation::to_bytes(&record.packed.bodies);
            self.shared.tell_twin(&ToTwin::Hold { collection: id.clone(), group, revision, ciphertexts });
        }
    }

    /// Says how groups are cut from now on.
    pub fn set_hot_dimensions(&mut self, hot_dimensions: HotDimensions) {
        self.shared.hot_dimensions = hot_dimensions;
        self.maintain_from = self.shared.now;
    }

    /// Announces the key epoch under which groups are built from now on.
    pub fn set_epoch(&mut self, epoch: Epoch) {
        self.shared.epoch = Some(epoch);
        self.maintain_from = self.shared.now;
    }

    /// The key epoch, once all three holders are in it.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.shared.epoch
    }

    /// Says that a holder can be reached, or cannot. What waits for one that is lost ends at once and names it; what was
    /// promised is told again when it comes back.
    pub fn set_connected(&mut self, party: Party, connected: bool) -> Reaction {
        if let Some(flag) = self.shared.connected.get_mut(party.index()) {
            *flag = connected;
        }
        if connected {
            self.maintain_from = self.shared.now;
            if let Some(writer) = &mut self.writer {
                writer.say_again(&mut self.shared, party);
            }
        } else {
            if let Some(epoch) = self.epochs.get_mut(party.index()) {
                *epoch = None;
            }
            let error = MatcherError::Unreachable(vec![Suspect::Holder(party)]);
            for (session, search) in std::mem::take(&mut self.searches) {
                self.shared.abandon_search(session);
                self.shared.refuse(search.request, &error);
            }
            for held in std::mem::take(&mut self.held) {
                self.shared.refuse(held.request, &error);
            }
            self.writer = self.writer.take().and_then(|writer| writer.lose(&mut self.shared, &error));
        }
        self.react()
    }

    /// Which holders can be reached.
    #[must_use]
    pub fn connected(&self) -> [bool; 3] {
        self.shared.connected
    }

    /// Rebuilds every group of a collection under the current epoch; the answer goes to `request`.
    pub fn rotate(&mut self, request: RequestId, collection: &CollectionId) -> Reaction {
        let plans = self
            .shared
            .collections
            .get(collection)
            .map(|c| c.planner(self.shared.parameters).rotation())
            .unwrap_or_default();
        self.waiting.push_back((request, Job::Rebuild { collection: collection.clone(), plans }));
        self.react()
    }

    /// Makes searchable what is stored and is not yet; the answer comes when it is.
    pub fn index_pending(&mut self, request: RequestId, collection: CollectionId) -> Reaction {
        if let Err(error) = self.queue(request, Job::Index { collection }) {
            self.shared.refuse(request, &error);
        }
        self.react()
    }

    /// Begins no maintenance any more.
    pub fn stop_maintenance(&mut self) {
        self.shared.limits.maintenance = false;
    }

    /// What is true already and only has to be written down.
    pub fn tidy(&mut self) -> Option<Work> {
        let lazy = self.shared.take_lazy();
        (!lazy.is_empty()).then_some(Work(Task::Tidy { lazy }))
    }

    /// Collections with their descriptions and indexes, by name.
    pub fn collections(&self) -> impl Iterator<Item = (&CollectionId, &Description, &CollectionIndex)> {
        self.shared.collections.iter().map(|(id, c)| (id, &c.description, &c.index))
    }

    /// A collection's description and index.
    #[must_use]
    pub fn collection(&self, collection: &CollectionId) -> Option<(&Description, &CollectionIndex)> {
        self.shared.collections.get(collection).map(|c| (&c.description, &c.index))
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

    /// What is under way.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            searches: self.searches.len(),
            held: self.held.len(),
            waiting: self.waiting.len(),
            writing: self.writer.is_some(),
            unsettled: self.writer.as_ref().is_some_and(Writer::is_promised),
            at_rest: self.rests && self.writer.is_none() && self.waiting.is_empty(),
        }
    }

    /// Whether more templates were announced for some collection.
    fn expects_more(&self) -> bool {
        self.shared.collections.values().any(|c| self.shared.now < c.expecting)
    }

    /// Whether nothing that a client was promised is under way or waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.searches.is_empty() && self.held.is_empty() && self.writer.is_none() && self.waiting.is_empty()
    }

    /// Takes a client's request as bytes.
    pub fn hear_client(&mut self, request: RequestId, bytes: &[u8]) -> Reaction {
        match borsh::from_slice(bytes) {
            Ok(content) => self.request(request, content),
            Err(_) => {
                self.shared.refuse(request, &MatcherError::MalformedRequest);
                self.react()
            }
        }
    }

    /// Takes a client's request.
    pub fn request(&mut self, request: RequestId, content: ClientRequest) -> Reaction {
        if let Err(error) = self.accept(request, content) {
            self.shared.refuse(request, &error);
        }
        self.react()
    }

    /// The client does not wait any longer. What is not begun is not begun; a search ends; a change goes on.
    pub fn cancel(&mut self, request: RequestId) -> Reaction {
        let asked = self.searches.iter().find(|(_, s)| s.request == request).map(|(session, _)| *session);
        if let Some(session) = asked {
            self.searches.remove(&session);
            self.shared.abandon_search(session);
        }
        self.held.retain(|held| held.request != request);
        self.waiting.retain(|(waiting, _)| *waiting != request);
        self.react()
    }

    /// Takes a holder's message.
    pub fn hear_holder(&mut self, party: Party, bytes: &[u8]) -> Reaction {
        // A message that cannot be read names no session: what waits for it runs into its deadline.
        if let Ok(message) = borsh::from_slice::<FromHolder>(bytes) {
            self.take(party, message);
        }
        self.react()
    }

    /// Takes the result of some work.
    pub fn finish(&mut self, worked: Worked) -> Reaction {
        match worked.0 {
            Done::Scanned { session, result } => match (self.searches.get_mut(&session), result) {
                (Some(search), Ok(scanned)) => search.scanned(&mut self.shared, scanned),
                (Some(_), Err(error)) => self.end_search(session, error.refusal()),
                (None, _) => {}
            },
            Done::Evaluated { session, result } => {
                if let Some(search) = self.searches.get_mut(&session)
                    && let Err(error) = result.and_then(|own| search.take_own(&mut self.shared, own))
                {
                    self.end_search(session, error.refusal());
                }
            }
            Done::Described { request, collection, description, result } => match result {
                Ok(()) => {
                    match self.shared.collections.get_mut(&collection) {
                        Some(known) => known.description = description,
                        None => {
                            let new = Collection::new(description, CollectionIndex::default());
                            self.shared.collections.insert(collection, new);
                        }
                    }
                    self.shared.answer(request, ClientAnswer::Done);
                }
                Err(error) => self.shared.refuse(request, &error),
            },
            Done::Tidied { lazy } => self.shared.lazy.splice(0..0, lazy).for_each(drop),
            done => {
                if let Some(writer) = self.writer.take() {
                    self.writer = writer.finish(&mut self.shared, done);
                }
            }
        }
        self.react()
    }

    /// Lets time pass: ends what is overdue, and begins maintenance if there is nothing else to do. `now` is in
    /// milliseconds from any start.
    pub fn tick(&mut self, now: u64) -> Reaction {
        self.shared.now = now;
        let limits = self.shared.limits;
        let late: Vec<SessionId> = self
            .searches
            .iter()
            .filter(|(_, search)| now.saturating_sub(search.started) >= limits.search_ms)
            .map(|(session, _)| *session)
            .collect();
        for session in late {
            self.time_out(session);
        }
        let (late, held): (VecDeque<Held>, VecDeque<Held>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|held| now.saturating_sub(held.started) >= limits.search_ms);
        self.held = held;
        self.refuse_held(late);
        if self.writer.as_ref().is_some_and(|writer| writer.is_overdue(now, limits.write_ms)) {
            self.expire_writer();
        }
        if limits.maintenance {
            self.maintain();
        }
        if self.writer.is_none()
            && let Some(Work(task)) = self.tidy()
        {
            self.shared.work(task);
        }
        self.react()
    }

    /// Gives up every request that waits for a holder, as if all deadlines had passed. Holders are told to forget the
    /// sessions. What they were told to commit or to erase is not given up but said again, for they must not come apart.
    pub fn expire(&mut self) -> Reaction {
        let sessions: Vec<SessionId> = self.searches.keys().copied().collect();
        for session in sessions {
            self.time_out(session);
        }
        let held = std::mem::take(&mut self.held);
        self.refuse_held(held);
        self.expire_writer();
        self.react()
    }

    fn time_out(&mut self, session: SessionId) {
        if let Some(search) = self.searches.remove(&session) {
            let error = MatcherError::TimedOut(search.late());
            self.shared.abandon_search(session);
            self.shared.refuse(search.request, &error);
        }
    }

    fn refuse_held(&mut self, late: VecDeque<Held>) {
        // They waited for a commit: for whoever did not acknowledge it.
        let suspects = self.writer.as_ref().map(|writer| writer.late()).unwrap_or_default();
        for held in late {
            self.shared.refuse(held.request, &MatcherError::TimedOut(suspects.clone()));
        }
    }

    fn expire_writer(&mut self) {
        self.writer = self.writer.take().and_then(|writer| writer.expire(&mut self.shared));
    }

    /// What every call ends with: gates are passed or opened, waiting jobs begun.
    fn react(&mut self) -> Reaction {
        loop {
            if let Some(writer) = self.writer.take() {
                let busy = |id: &CollectionId| self.searches.values().any(|search| search.collection == *id);
                match writer.at_gate() {
                    Some(collection) if !busy(collection) => self.writer = writer.pass_gate(&mut self.shared),
                    _ => {
                        self.writer = Some(writer);
                        break;
                    }
                }
            } else {
                let Some((request, job)) = self.waiting.pop_front() else { break };
                // Erasures that follow share one rebuild.
                let more = matches!(self.waiting.front(), Some((_, Job::Erase { .. })));
                match Writer::start(&mut self.shared, request, job, more) {
                    Ok(writer) => self.writer = writer,
                    Err(error) => self.shared.refuse(request, &error),
                }
            }
        }
        self.open_gates();
        std::mem::take(&mut self.shared.reaction)
    }

    fn open_gates(&mut self) {
        let (waiting, free): (VecDeque<Held>, VecDeque<Held>) =
            std::mem::take(&mut self.held).into_iter().partition(|held| self.shared.gates.contains(&held.collection));
        self.held = waiting;
        for held in free {
            if let Err(error) = self.search(held.request, held.sealed, held.started) {
                self.shared.refuse(held.request, &error);
            }
        }
    }

    fn accept(&mut self, request: RequestId, content: ClientRequest) -> Result<(), MatcherError> {
        match content {
            ClientRequest::Enroll { collection, templates, more_follows } => {
                self.queue(request, Job::Enroll { collection, templates, more_follows })
            }
            ClientRequest::Erase { request: signed } => self.queue(request, Job::Erase { signed }),
            ClientRequest::Ask { sealed } => {
                if self.searches.len() + self.held.len() >= self.shared.limits.searches {
                    return Err(MatcherError::Busy { limit: self.shared.limits.searches });
                }
                self.search(request, sealed, self.shared.now)
            }
        }
    }

    fn queue(&mut self, request: RequestId, job: Job) -> Result<(), MatcherError> {
        if self.waiting.len() >= self.shared.limits.waiting {
            return Err(MatcherError::Busy { limit: self.shared.limits.waiting });
        }
        self.shared.reachable()?;
        self.waiting.push_back((request, job));
        Ok(())
    }

    fn search(&mut self, request: RequestId, sealed: Vec<u8>, started: u64) -> Result<(), MatcherError> {
        self.shared.reachable()?;
        let (session, search) = Search::start(&mut self.shared, request, &sealed, started)?;
        if search.waits_for_twin() && !self.shared.twin_connected {
            return Err(MatcherError::Unreachable(vec![Suspect::Twin]));
        }
        if self.shared.gates.contains(&search.collection) {
            self.held.push_back(Held { request, collection: search.collection, sealed, started });
            return Ok(());
        }
        if self.searches.contains_key(&session) {
            return Err(MatcherError::WrongUse);
        }
        self.shared.mark(request, Mark::Asked);
        self.shared.tell_all(Lane::Decide, &ToHolder::Ask { sealed });
        search.ask_twin(&mut self.shared);
        self.searches.insert(session, search);
        Ok(())
    }

    fn take(&mut self, party: Party, message: FromHolder) {
        match message {
            FromHolder::Status { epoch, .. } => {
                if let Some(known) = self.epochs.get_mut(party.index()) {
                    *known = epoch;
                }
                if let [Some(a), Some(b), Some(c)] = self.epochs
                    && a == b
                    && b == c
                    && self.shared.epoch < Some(a)
                {
                    self.set_epoch(a);
                }
            }
            FromHolder::ProbePart { session, .. }
            | FromHolder::ProbeShare { session, .. }
            | FromHolder::Candidates { session, .. }
            | FromHolder::Answer { session, .. } => {
                let Some(search) = self.searches.get_mut(&session) else { return };
                match search.take(&mut self.shared, party, message) {
                    Ok(false) => {}
                    Ok(true) => drop(self.searches.remove(&session)),
                    Err(error) => self.end_search(session, error.refusal()),
                }
            }
            FromHolder::Refused { session: Some(session), refusal } if self.searches.contains_key(&session) => {
                let refusal = self.whom_it_waits_for(session, refusal);
                self.end_search(session, refusal);
            }
            message => {
                if let Some(writer) = self.writer.take() {
                    self.writer = writer.take(&mut self.shared, party, message);
                }
            }
        }
    }

    /// A holder that waited in vain for this matcher, or heard of one that did, cannot see whom the matcher waits for.
    fn whom_it_waits_for(&self, session: SessionId, refusal: Refusal) -> Refusal {
        let late = self.searches.get(&session).map(Search::late).unwrap_or_default();
        let error = MatcherError::TimedOut(late);
        let relayed = refusal.code == error.code() && refusal.suspects.contains(&Suspect::Matcher);
        if relayed && !error.suspects().is_empty() { error.refusal() } else { refusal }
    }

    fn end_search(&mut self, session: SessionId, refusal: Refusal) {
        if let Some(search) = self.searches.remove(&session) {
            self.shared.abandon_search(session);
            self.shared.answer(search.request, ClientAnswer::Refused(refusal));
        }
    }

    /// Begins what the index needs when nobody waits for anything: templates that are not searchable yet, groups that
    /// carry erased members, are of an old epoch or of another width than the collection's, merges.
    fn maintain(&mut self) {
        if std::mem::take(&mut self.shared.succeeded) {
            (self.pause_ms, self.maintain_from) = (0, self.shared.now);
        }
        let idle = self.writer.is_none() && self.waiting.is_empty() && self.shared.unreachable().is_empty();
        if !idle || self.shared.now < self.maintain_from {
            return;
        }
        let Some(epoch) = self.shared.epoch else { return };
        let (parameters, now) = (self.shared.parameters, self.shared.now);
        let chore = self.shared.collections.iter().find_map(|(id, c)| {
            let collection = id.clone();
            if now < c.expecting {
                return None;
            }
            if !c.index.pending().is_empty() {
                return Some(Job::Index { collection });
            }
            let planner = c.planner(parameters);
            let late: Vec<_> = c.index.overdue().iter().filter_map(|group| planner.rebuild(*group)).collect();
            let plans = if late.is_empty() {
                let hot = self.shared.hot_dimensions.of(&collection);
                // Groups of the other scheme are not cut.
                let cut = |g: &PackedGroup| {
                    c.slots().is_some()
                        || hot_blocks(g.layout, c.description.dimension, hot) == g.cold.as_ref().map(|cold| cold.from)
                };
                let old = c.index.groups().find(|g| g.packed.epoch < epoch || !cut(&g.packed));
                let old = old.map(|g| g.packed.group);
                old.and_then(|group| planner.rebuild(group)).or_else(|| planner.tidy()).into_iter().collect()
            } else {
                late
            };
            (!plans.is_empty()).then_some(Job::Rebuild { collection, plans })
        });
        self.rests = chore.is_none() && !self.expects_more();
        if let Some(job) = chore {
            // Until it has succeeded it is not begun again at once.
            self.pause_ms = (self.pause_ms * 2).clamp(250, LONGEST_PAUSE_MS);
            self.maintain_from = self.shared.now + self.pause_ms;
            let request = self.own_request();
            self.waiting.push_back((request, job));
        } else {
            self.pause_ms = 0;
        }
    }

    /// Forgets erasures whose requests have expired: a repetition is refused by its expiry now.
    pub fn forget_expired(&mut self, now: Timestamp) -> Reaction {
        let expired: Vec<IntentId> =
            self.shared.erased.iter().filter(|(_, expires)| **expires < now).map(|(id, _)| *id).collect();
        for id in expired {
            self.shared.erased.remove(&id);
            self.shared.lazy.push(Change::ForgetErasure { id });
        }
        self.react()
    }
}
