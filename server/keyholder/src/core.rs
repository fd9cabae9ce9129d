//! The task that owns the holder: events in, and out of each batch of them first what must be stored, then what is sent.
//!
//! It runs beside the tasks of the network, on the same few threads: a round of the decision protocol takes less time to
//! compute than to wake a thread, and a message that goes from task to task of one thread wakes none. A sync of the disk
//! stops the thread; nothing could leave meanwhile anyway.
//!
//! Events that wait are taken together, so that one sync serves all of them (group commit). If a batch cannot be stored,
//! nothing of it is sent: the holder in memory is ahead of the disk and is dropped; it is made again from what is stored,
//! as soon as that is possible. Meanwhile all streams are closed and every call is refused with the cause.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rayon::ThreadPool;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use veilmatch_domain::{Epoch, Explain, Party, SessionId, Status};
use veilmatch_glwe::{FromHolder, Refusal, ToHolder, admission_session, build_session, query_session};
use veilmatch_holder::{
    AuditEntry, Holder, HolderError, Outbound, Reaction, Recipient, Record, RestoreRequest, Sender, SessionKind, Work,
    Worked,
};
use veilmatch_sealed::SealedTemplate;
use veilmatch_secret::Digest;
use veilmatch_transport::{LinkDown, Outlet};

use crate::config::{Deadlines, Limits};
use crate::connections::{About, Connections, Lane, Outgoing, StreamId, about, opens_session};
use crate::measures;
use crate::memory::{Memory, MemoryError, Origin};

/// Events that are taken together at most.
const BATCH: usize = 256;
/// Waits between attempts to make the holder again.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What the task hears of.
pub(crate) enum Event {
    /// The matcher opened a stream.
    MatcherUp { lane: Lane, stream: StreamId, to: Outgoing },
    /// A message of the matcher's, with the room that it takes.
    Matcher { lane: Lane, stream: StreamId, bytes: Vec<u8>, room: OwnedSemaphorePermit },
    /// The matcher's stream ended.
    MatcherDown { lane: Lane, stream: StreamId },
    /// A stream with a peer is open.
    PeerUp { party: Party, stream: StreamId, to: Outgoing },
    /// A message of a peer's, with the room that it takes.
    Peer { party: Party, stream: StreamId, bytes: Vec<u8>, room: OwnedSemaphorePermit },
    /// The stream with a peer ended.
    PeerDown { party: Party, stream: StreamId },
    /// The twin opened its stream. That it ended is found when the next share is sent.
    TwinUp { to: Outlet },
    /// A computation is done. It counts only for the holder that asked for it.
    Worked { incarnation: u64, worked: Worked },
    /// An administrator's signed request.
    Administer { request: Vec<u8>, answer: oneshot::Sender<Result<(), Refusal>> },
    /// A lost holder asks for what it lost.
    Restore { request: Box<RestoreRequest>, answer: oneshot::Sender<Result<Vec<u8>, Refusal>> },
    /// Time has passed.
    Tick,
    /// Begin nothing new, finish what is open, end.
    Shutdown,
}

/// What the rest of the service sees of the holder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Overview {
    /// Why nothing is taken at the moment, if so.
    pub(crate) stopped: Option<Refusal>,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) epochs: Vec<Epoch>,
    /// The epoch that was restored from the others, until a later one begins.
    pub(crate) restored: Option<Epoch>,
    /// Number and hash of the last entry that is stored.
    pub(crate) audit: Option<(u64, Digest)>,
    pub(crate) peers: Vec<Party>,
    pub(crate) sessions: usize,
}

impl Overview {
    pub(crate) fn starting() -> Self {
        let stopped = Some(Refusal::new(&Unready::Starting, Vec::new()));
        Self { stopped, epoch: None, epochs: Vec::new(), restored: None, audit: None, peers: Vec::new(), sessions: 0 }
    }

    /// Whether queries can be answered.
    pub(crate) fn ready(&self) -> bool {
        self.stopped.is_none() && self.epoch.is_some() && self.peers.len() == 2
    }
}

/// Why the holder takes nothing, or nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unready {
    #[error("the key holder is starting")]
    Starting,
    #[error("the key holder is shutting down")]
    ShuttingDown,
    #[error("{limit} sessions are open already")]
    Busy { limit: u32 },
}

impl Explain for Unready {
    fn code(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::ShuttingDown => "shutting-down",
            Self::Busy { .. } => "too-many-sessions",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::Starting | Self::ShuttingDown => Status::Unavailable,
            Self::Busy { .. } => Status::ResourceExhausted,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::Starting | Self::ShuttingDown => "try again in a few seconds",
            Self::Busy { .. } => "ask for less at a time, or raise `limits.max_sessions`",
        }
    }
}

/// What the task is given.
pub(crate) struct Setup {
    pub(crate) origin: Origin,
    pub(crate) deadlines: Deadlines,
    pub(crate) limits: Limits,
    /// Where queries are computed.
    pub(crate) query_pool: ThreadPool,
    /// Where admissions and builds are.
    pub(crate) bulk_pool: ThreadPool,
    /// Where results of computations go.
    pub(crate) results: mpsc::WeakSender<Event>,
    pub(crate) overview: watch::Sender<Overview>,
}

/// How the holder ended.
enum End {
    /// As asked.
    Shutdown,
    /// A batch could not be stored, and was not sent.
    NotStored(MemoryError),
}

/// A holder that is awake already: the service starts with one, so that what is wrong with its memory is said at once.
pub(crate) type Awake = (Holder, Memory);

/// Runs until it is asked to end; the error is one that does not go away by itself.
async fn run(setup: &Setup, first: Awake, events: &mut mpsc::Receiver<Event>) -> Result<(), MemoryError> {
    let mut awake = Some(first);
    let mut wait = FIRST_WAIT;
    for incarnation in 0.. {
        let error = match awake.take().map_or_else(|| setup.origin.wake(), Ok) {
            Ok(awake) => {
                let begun = Instant::now();
                let mut core = Core::new(setup, incarnation, awake);
                match core.run(events).await {
                    End::Shutdown => return Ok(()),
                    End::NotStored(error) => {
                        core.connections.cut();
                        if begun.elapsed() >= LONGEST_WAIT {
                            wait = FIRST_WAIT;
                        }
                        error
                    }
                }
            }
            Err(error) => error,
        };
        let refusal = Refusal::new(&error, Vec::new());
        tracing::error!(code = error.code(), "stopped, nothing was sent: {}", refusal.message);
        measures::stopped();
        setup.overview.send_modify(|overview| {
            *overview = Overview { stopped: Some(refusal.clone()), peers: Vec::new(), sessions: 0, ..overview.clone() };
        });
        if !error.heals() {
            return Err(error);
        }
        if refuse_for(wait, &refusal, events).await == Goes::End {
            return Ok(());
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum Goes {
    On,
    End,
}

/// Lets time pass. The ticks come ten times a second.
async fn refuse_for(wait: Duration, cause: &Refusal, events: &mut mpsc::Receiver<Event>) -> Goes {
    let begun = Instant::now();
    while begun.elapsed() < wait {
        match events.recv().await {
            None | Some(Event::Shutdown) => return Goes::End,
            Some(Event::Administer { answer, .. }) => {
                let _ = answer.send(Err(cause.clone()));
            }
            Some(Event::Restore { answer, .. }) => {
                let _ = answer.send(Err(cause.clone()));
            }
            // Streams that come up are closed again by being dropped.
            Some(Event::PeerUp { to, .. } | Event::MatcherUp { to, .. }) => to.cut(),
            Some(_) => {}
        }
    }
    Goes::On
}

/// A session as the deadlines see it.
struct Opened {
    kind: SessionKind,
    since: Instant,
    prepared: bool,
}

/// What a batch of events has led to so far.
#[derive(Default)]
struct Batch {
    log: Vec<AuditEntry>,
    save: Vec<Record>,
    send: Vec<(Outbound, Option<Lane>)>,
    answers: Vec<Answer>,
}

/// What a call is told when the batch is stored.
enum Answer {
    Administered(oneshot::Sender<Result<(), Refusal>>, Result<(), Refusal>),
    Restored(oneshot::Sender<Result<Vec<u8>, Refusal>>, Result<Vec<u8>, Refusal>),
}

impl Answer {
    /// Whoever asked may have left.
    fn give(self) {
        match self {
            Self::Administered(to, result) => drop(to.send(result)),
            Self::Restored(to, result) => drop(to.send(result)),
        }
    }

    /// The batch was not stored. Whoever was refused stays refused for the reason that was found.
    fn take_back(self, cause: &Refusal) {
        match self {
            Self::Administered(to, result) => drop(to.send(result.and_then(|()| Err(cause.clone())))),
            Self::Restored(to, result) => drop(to.send(result.and_then(|_| Err(cause.clone())))),
        }
    }
}

struct Core<'a> {
    setup: &'a Setup,
    incarnation: u64,
    holder: Holder,
    memory: Memory,
    connections: Connections,
    opened: BTreeMap<SessionId, Opened>,
    batch: Batch,
    /// When to end at the latest, once that is asked for.
    ending: Option<Instant>,
}

impl<'a> Core<'a> {
    fn new(setup: &'a Setup, incarnation: u64, (holder, memory): Awake) -> Self {
        let (connections, batch) = (Connections::default(), Batch::default());
        let mut core =
            Self { setup, incarnation, holder, memory, connections, opened: BTreeMap::new(), batch, ending: None };
        core.note_sessions(None);
        core
    }

    async fn run(&mut self, events: &mut mpsc::Receiver<Event>) -> End {
        self.publish(events.len());
        loop {
            let Some(event) = events.recv().await else { return self.end() };
            self.take(event);
            for _ in 1..BATCH {
                match events.try_recv() {
                    Ok(event) => self.take(event),
                    Err(_) => break,
                }
            }
            self.expire();
            if let Err(error) = self.settle(events.len()) {
                return End::NotStored(error);
            }
            if self.ending.is_some_and(|latest| Instant::now() >= latest || self.is_quiet()) {
                return self.end();
            }
            // What was sent leaves before more is computed.
            if !events.is_empty() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Nothing is open but what waits for the matcher's word, and that survives.
    fn is_quiet(&self) -> bool {
        self.opened.values().all(|session| session.prepared)
    }

    /// Writes a snapshot, so that the next start has little to read, and lets go of everything.
    fn end(&mut self) -> End {
        let reaction = self.holder.snapshot();
        self.absorb(reaction, None);
        if let Err(error) = self.settle(0) {
            tracing::warn!(code = error.code(), "no snapshot at the end: {error}");
        }
        self.connections.cut();
        End::Shutdown
    }

    fn take(&mut self, event: Event) {
        let now = veilmatch_service::now();
        match event {
            Event::MatcherUp { lane, stream, to } => {
                tracing::info!(?lane, "the matcher is connected");
                self.connections.matcher_up(lane, stream, to);
                match self.holder.matcher_connected() {
                    Ok(reaction) => self.absorb(reaction, Some(lane)),
                    Err(error) => self.note_failure(&error, None, &[]),
                }
            }
            Event::Matcher { lane, stream, bytes, room } => {
                if self.connections.is_matcher(lane, stream) {
                    match self.cannot_open(&bytes) {
                        Some(unready) => self.refuse(&bytes, unready, lane),
                        None => {
                            let reaction = self.holder.receive(Sender::Matcher, &bytes, now);
                            self.absorb(reaction, Some(lane));
                        }
                    }
                }
                drop(room);
            }
            Event::MatcherDown { lane, stream } => {
                if self.connections.matcher_down(lane, stream) {
                    tracing::warn!(?lane, "the matcher is gone");
                }
            }
            Event::PeerUp { party, stream, to } => {
                tracing::info!(%party, "a key holder is connected");
                self.connections.peer_up(party, stream, to);
            }
            Event::Peer { party, stream, bytes, room } => {
                if self.connections.is_peer(party, stream) {
                    let reaction = self.holder.receive(Sender::Peer(party), &bytes, now);
                    self.absorb(reaction, None);
                }
                drop(room);
            }
            Event::PeerDown { party, stream } => {
                if self.connections.peer_down(party, stream) {
                    tracing::warn!(%party, "a key holder is gone");
                    self.lose_peer(party);
                }
            }
            Event::TwinUp { to } => {
                tracing::info!("the twin is connected");
                self.connections.twin_up(to);
            }
            Event::Worked { incarnation, worked } => {
                if incarnation == self.incarnation {
                    let reaction = self.holder.finish(worked, now);
                    self.absorb(reaction, None);
                }
            }
            Event::Administer { request, answer } => {
                let result = match self.holder.administer(&request, now) {
                    Ok(reaction) => {
                        self.absorb(reaction, None);
                        Ok(())
                    }
                    Err(error) => {
                        self.note_failure(&error, None, &[]);
                        Err(error.refusal())
                    }
                };
                self.batch.answers.push(Answer::Administered(answer, result));
            }
            Event::Restore { request, answer } => {
                let result = match self.holder.answer_restore(&request, now) {
                    Ok((bytes, reaction)) => {
                        tracing::warn!(party = %request.party, "answered a key holder that lost its keys");
                        self.absorb(reaction, None);
                        Ok(bytes)
                    }
                    Err(error) => {
                        self.note_failure(&error, None, &[]);
                        Err(error.refusal())
                    }
                };
                self.batch.answers.push(Answer::Restored(answer, result));
            }
            Event::Tick => {}
            Event::Shutdown => {
                tracing::info!(sessions = self.opened.len(), "shutting down");
                self.ending = Some(Instant::now() + self.setup.deadlines.shutdown);
            }
        }
    }

    fn lose_peer(&mut self, party: Party) {
        let reaction = self.holder.peer_lost(party, veilmatch_service::now());
        self.absorb(reaction, None);
    }

    /// Why a message of the matcher's that would open a session is not taken.
    fn cannot_open(&self, message: &[u8]) -> Option<Unready> {
        let limit = self.setup.limits.max_sessions;
        match opens_session(message) {
            true if self.ending.is_some() => Some(Unready::ShuttingDown),
            true if self.opened.len() >= limit as usize => Some(Unready::Busy { limit }),
            _ => None,
        }
    }

    /// Refuses to open a session. The other two holders wait for this one until their deadline, or until the matcher gives
    /// up.
    fn refuse(&mut self, message: &[u8], unready: Unready, lane: Lane) {
        let session = match borsh::from_slice(message) {
            Ok(ToHolder::Admit { attempt, collection, templates }) => {
                Some(admission_session(attempt, &collection, &templates))
            }
            Ok(ToHolder::Build(order)) => Some(build_session(&order)),
            Ok(ToHolder::Ask { sealed }) => {
                SealedTemplate::from_bytes(&sealed).ok().map(|sealed| query_session(&sealed.digest()))
            }
            _ => None,
        };
        measures::refused(unready.code());
        tracing::debug!(code = unready.code(), session = session.map(tracing::field::display), "refused");
        let refused = FromHolder::Refused { session, refusal: Refusal::new(&unready, Vec::new()) };
        if let Ok(bytes) = borsh::to_vec(&refused) {
            self.batch.send.push((Outbound { to: Recipient::Matcher, bytes }, Some(lane)));
        }
    }

    /// Takes over what a reaction says. `lane` is the one that the matcher's message came on.
    fn absorb(&mut self, reaction: Reaction, lane: Option<Lane>) {
        let Reaction { mut save, mut log, send, work, failure } = reaction;
        self.batch.log.append(&mut log);
        self.batch.save.append(&mut save);
        // Before sessions that have ended are forgotten: a refusal goes where its session belongs.
        for message in send {
            let lane = self.lane_of(&message, lane);
            self.batch.send.push((message, lane));
        }
        let ended = self.note_sessions(failure.as_ref());
        if let Some(error) = failure {
            self.note_failure(&error, lane, &ended);
        }
        for work in work {
            self.compute(work);
        }
    }

    fn lane_of(&self, message: &Outbound, came_on: Option<Lane>) -> Option<Lane> {
        if message.to != Recipient::Matcher {
            return None;
        }
        match about(&message.bytes) {
            About::Lane(lane) => Some(lane),
            About::Everybody => came_on,
            About::Refusal => match borsh::from_slice(&message.bytes) {
                Ok(FromHolder::Refused { session: Some(id), .. }) => {
                    self.opened.get(&id).map(|session| Lane::of(session.kind)).or(came_on)
                }
                _ => came_on,
            },
        }
    }

    /// Compares the open sessions with those that were open before; says which have ended.
    fn note_sessions(&mut self, failure: Option<&HolderError>) -> Vec<SessionId> {
        let mut before = std::mem::take(&mut self.opened);
        for open in self.holder.open_sessions() {
            let known = before.remove(&open.session);
            let since = known.map_or_else(
                || {
                    measures::session_opened(open.kind);
                    Instant::now()
                },
                |known| known.since,
            );
            self.opened.insert(open.session, Opened { kind: open.kind, since, prepared: open.prepared });
        }
        if let Some(error) = failure {
            before.values().for_each(|ended| measures::session_failed(ended.kind, error.code()));
        }
        before.into_keys().collect()
    }

    /// One line per refusal. Errors hold no secrets.
    fn note_failure(&self, error: &HolderError, lane: Option<Lane>, ended: &[SessionId]) {
        measures::refused(error.code());
        let list = |items: Vec<String>| items.join(", ");
        let suspects = list(error.suspects().iter().map(ToString::to_string).collect());
        let sessions = list(ended.iter().map(ToString::to_string).collect());
        tracing::warn!(code = error.code(), sessions, suspects, ?lane, "refused: {error}");
    }

    fn compute(&self, work: Work) {
        let kind = self.opened.get(&work.session()).map(|session| session.kind);
        let pool = if kind == Some(SessionKind::Query) { &self.setup.query_pool } else { &self.setup.bulk_pool };
        let (results, incarnation) = (self.setup.results.clone(), self.incarnation);
        pool.spawn(move || {
            let worked = work.run();
            // The task that takes it has ended, or there is nobody to tell.
            if let Some(results) = results.upgrade() {
                let _ = results.blocking_send(Event::Worked { incarnation, worked });
            }
        });
    }

    fn expire(&mut self) {
        let deadlines = self.setup.deadlines;
        let late: Vec<SessionId> = self
            .opened
            .iter()
            .filter(|(_, session)| {
                let deadline = match session.kind {
                    SessionKind::Query => deadlines.query,
                    SessionKind::Admission => deadlines.admission,
                    SessionKind::Build => deadlines.build,
                };
                !session.prepared && session.since.elapsed() >= deadline
            })
            .map(|(id, _)| *id)
            .collect();
        for session in late {
            let reaction = self.holder.expire(session);
            self.absorb(reaction, None);
        }
    }

    /// Makes the batch durable, then sends it. What the loss of a peer leads to is a batch of its own.
    fn settle(&mut self, queue: usize) -> Result<(), MemoryError> {
        loop {
            let Batch { log, save, send, answers } = std::mem::take(&mut self.batch);
            if let Err(error) = self.memory.store(&log, &save) {
                let refusal = Refusal::new(&error, Vec::new());
                answers.into_iter().for_each(|answer| answer.take_back(&refusal));
                return Err(error);
            }
            let mut lost = Vec::new();
            for (message, lane) in send {
                lost.extend(self.connections.send(message, lane));
            }
            // Whoever has an answer finds what it led to.
            self.publish(queue);
            answers.into_iter().for_each(Answer::give);
            for lost in &lost {
                if lost.why != LinkDown::NotConnected {
                    tracing::warn!(code = lost.why.code(), to = ?lost.to, "a stream was ended: {}", lost.why);
                }
                // A session whose word did not reach a peer or the twin cannot end well: it is told now, not at its deadline.
                match (lost.to, lost.session) {
                    (Recipient::Peer(party), _) => self.lose_peer(party),
                    (Recipient::Twin, Some(session)) => {
                        let reaction = self.holder.twin_lost(session, veilmatch_service::now());
                        self.absorb(reaction, None);
                    }
                    _ => {}
                }
            }
            if lost.is_empty() {
                return Ok(());
            }
        }
    }

    fn publish(&self, queue: usize) {
        let stopped = self.ending.map(|_| Refusal::new(&Unready::ShuttingDown, Vec::new()));
        let overview = Overview {
            stopped,
            epoch: self.holder.epoch(),
            epochs: self.holder.epochs().collect(),
            restored: self.holder.restored_epoch(),
            audit: self.holder.audit_head(),
            peers: self.connections.peers(),
            sessions: self.opened.len(),
        };
        measures::levels(queue, overview.sessions, overview.peers.len());
        measures::twin(self.connections.has_twin());
        self.setup.overview.send_if_modified(|shown| {
            let changed = *shown != overview;
            *shown = overview;
            changed
        });
    }
}

/// The task's handle: it has ended when this yields.
pub(crate) type Ended = oneshot::Receiver<Result<(), MemoryError>>;

/// Starts the task. Must be called inside a tokio runtime.
pub(crate) fn start(setup: Setup, first: Awake, mut events: mpsc::Receiver<Event>) -> Ended {
    let (ended, end) = oneshot::channel();
    tokio::spawn(async move {
        let result = run(&setup, first, &mut events).await;
        // Whoever started the task has lost interest.
        let _ = ended.send(result);
    });
    end
}
