//! The task that owns the [`Matcher`] state machine.
//!
//! Everything that happens reaches it as an [`Event`] through one bounded channel; what it says goes to the links and to
//! whoever asked. It runs beside the tasks of the network, so that a message wakes no thread on its way. Scans run on a pool of their own, storage on a thread of its own, in order, so the state machine
//! never waits for a disk or a core. A request that finds the channel full is refused at once: load turns into
//! RESOURCE_EXHAUSTED, not into memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc as channel};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use veilmatch_domain::{CollectionId, Party};
use veilmatch_gallery::{Description, Storage};
use veilmatch_glwe::{ClientAnswer, ClientRequest, Refusal};
use veilmatch_matching::{Lane, Mark, Matcher, MatcherError, Reaction, RequestId, Work, Worked};
use veilmatch_service::{Stopwatch, now};
use veilmatch_transport::Link;

/// Events that may wait. Requests beyond are refused; messages of holders wait in their streams.
pub(crate) const EVENTS: usize = 1024;

/// What happens to the matcher.
pub(crate) enum Event {
    Request { id: RequestId, content: ClientRequest, reply: oneshot::Sender<ClientAnswer> },
    Describe { id: RequestId, collection: CollectionId, description: Description, reply: oneshot::Sender<ClientAnswer> },
    Index { id: RequestId, collection: CollectionId, reply: oneshot::Sender<ClientAnswer> },
    Cancel(RequestId),
    Message { party: Party, bytes: Vec<u8> },
    Lane { party: Party, lane: Lane, up: bool },
    TwinMessage { bytes: Vec<u8> },
    TwinLink { up: bool },
    Worked(Worked),
    Look(Box<dyn FnOnce(&Matcher) + Send>),
    Tick,
    Finish { until: Instant, done: oneshot::Sender<()> },
}

/// The six streams to the holders, and the one to the twin if there is one.
pub(crate) struct Links {
    pub(crate) recrypt: [Link; 3],
    pub(crate) decide: [Link; 3],
    pub(crate) twin: Option<Link>,
}

impl Links {
    fn of(&self, party: Party, lane: Lane) -> Option<&Link> {
        match lane {
            Lane::Recrypt => self.recrypt.get(party.index()),
            Lane::Decide => self.decide.get(party.index()),
        }
    }
}

/// A way to the core.
#[derive(Clone)]
pub(crate) struct Handle {
    events: mpsc::Sender<Event>,
    next: Arc<AtomicU64>,
}

/// Tells the core that nobody waits any longer, unless the answer has come.
struct Waiting<'a> {
    handle: &'a Handle,
    id: Option<RequestId>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take()
            && let Err(mpsc::error::TrySendError::Full(event)) = self.handle.events.try_send(Event::Cancel(id))
        {
            let events = self.handle.events.clone();
            tokio::spawn(async move { events.send(event).await });
        }
    }
}

fn stopped() -> Refusal {
    MatcherError::Stopping.refusal()
}

impl Handle {
    pub(crate) fn new(events: mpsc::Sender<Event>) -> Self {
        Self { events, next: Arc::new(AtomicU64::new(1)) }
    }

    /// Asks and waits for the answer. If the caller stops waiting, the core is told.
    async fn ask(
        &self,
        event: impl FnOnce(RequestId, oneshot::Sender<ClientAnswer>) -> Event,
    ) -> Result<ClientAnswer, Refusal> {
        let id = RequestId(self.next.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        match self.events.try_send(event(id, reply)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(MatcherError::Busy { limit: EVENTS }.refusal()),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(stopped()),
        }
        let mut waiting = Waiting { handle: self, id: Some(id) };
        let answer = answer.await;
        waiting.id = None;
        match answer {
            Ok(ClientAnswer::Refused(refusal)) => Err(refusal),
            Ok(answer) => Ok(answer),
            Err(_) => Err(stopped()),
        }
    }

    pub(crate) async fn request(&self, content: ClientRequest) -> Result<ClientAnswer, Refusal> {
        self.ask(|id, reply| Event::Request { id, content, reply }).await
    }

    pub(crate) async fn describe(
        &self,
        collection: CollectionId,
        description: Description,
    ) -> Result<ClientAnswer, Refusal> {
        self.ask(|id, reply| Event::Describe { id, collection, description, reply }).await
    }

    /// Makes what is stored searchable.
    pub(crate) async fn index(&self, collection: CollectionId) -> Result<ClientAnswer, Refusal> {
        self.ask(|id, reply| Event::Index { id, collection, reply }).await
    }

    /// Looks at the matcher.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Matcher) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (reply, seen) = oneshot::channel();
        let event = Event::Look(Box::new(move |matcher| drop(reply.send(look(matcher)))));
        self.events.send(event).await.map_err(|_| stopped())?;
        seen.await.map_err(|_| stopped())
    }

    /// Takes no new requests, finishes what is under way or waits, at most until `until`.
    pub(crate) async fn finish(&self, until: Instant) {
        let (done, finished) = oneshot::channel();
        if self.events.send(Event::Finish { until, done }).await.is_ok() {
            let _ = finished.await;
        }
    }
}

/// The core with what it needs to act.
pub(crate) struct Core {
    pub(crate) matcher: Matcher,
    pub(crate) links: Links,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) pool: Arc<rayon::ThreadPool>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) inbox: mpsc::Receiver<Event>,
}

/// Since when a request is under way, and who waits.
struct Pending {
    reply: oneshot::Sender<ClientAnswer>,
    since: Instant,
    kind: &'static str,
    /// The stage of a search that is under way, and since when.
    stage: Option<(&'static str, Instant)>,
}

impl Pending {
    fn new(kind: &'static str, reply: oneshot::Sender<ClientAnswer>) -> Self {
        Self { reply, since: Instant::now(), kind, stage: None }
    }

    /// The stage that was under way has ended, another begins.
    fn enter(&mut self, stage: Option<&'static str>) {
        let ended = std::mem::replace(&mut self.stage, stage.map(|stage| (stage, Instant::now())));
        if let Some((stage, since)) = ended {
            metrics::histogram!("veilmatch_stage_seconds", "stage" => stage).record(since.elapsed());
        }
    }
}

impl Core {
    /// Runs until it is told to finish or nobody is left to tell it anything.
    pub(crate) async fn run(mut self) {
        let (store, jobs) = channel::channel::<Work>();
        let storage = Arc::clone(&self.storage);
        let results = self.events.downgrade();
        // Ends when `store` is dropped, with the jobs that wait done.
        let writer = std::thread::Builder::new().name("storage".to_owned()).spawn(move || {
            for work in jobs {
                let begun = Instant::now();
                let worked = work.run(&*storage);
                metrics::histogram!("veilmatch_storage_seconds").record(begun.elapsed());
                if let Some(results) = results.upgrade() {
                    let _ = results.blocking_send(Event::Worked(worked));
                }
            }
        });
        let clock = Stopwatch::start();
        let (mut lanes, mut twin) = ([[false; 2]; 3], false);
        let mut pending: BTreeMap<RequestId, Pending> = BTreeMap::new();
        let mut finishing: Option<(Instant, oneshot::Sender<()>)> = None;
        while let Some(event) = self.inbox.recv().await {
            let reaction = match event {
                Event::Request { reply, .. } | Event::Describe { reply, .. } | Event::Index { reply, .. }
                    if finishing.is_some() =>
                {
                    let _ = reply.send(ClientAnswer::Refused(stopped()));
                    continue;
                }
                Event::Request { id, content, reply } => {
                    let kind = match &content {
                        ClientRequest::Enroll { .. } => "enroll",
                        ClientRequest::Ask { .. } => "ask",
                        ClientRequest::Erase { .. } => "erase",
                    };
                    pending.insert(id, Pending::new(kind, reply));
                    self.matcher.request(id, content)
                }
                Event::Describe { id, collection, description, reply } => {
                    pending.insert(id, Pending::new("describe", reply));
                    self.matcher.describe(id, collection, description)
                }
                Event::Index { id, collection, reply } => {
                    pending.insert(id, Pending::new("index", reply));
                    self.matcher.index_pending(id, collection)
                }
                Event::Cancel(id) => {
                    pending.remove(&id);
                    self.matcher.cancel(id)
                }
                Event::Message { party, bytes } => self.matcher.hear_holder(party, &bytes),
                Event::Lane { party, lane, up } => {
                    let Some(both) = lanes.get_mut(party.index()) else { continue };
                    let before = *both == [true; 2];
                    if let Some(flag) = both.get_mut(usize::from(lane == Lane::Decide)) {
                        *flag = up;
                    }
                    let after = *both == [true; 2];
                    if before == after {
                        continue;
                    }
                    tracing::info!(holder = %party, connected = after, "key holder");
                    metrics::gauge!("veilmatch_holder_connected", "holder" => party.to_string())
                        .set(f64::from(u8::from(after)));
                    self.matcher.set_connected(party, after)
                }
                Event::TwinMessage { bytes } => self.matcher.hear_twin(&bytes),
                Event::TwinLink { up } if up == twin => continue,
                Event::TwinLink { up } => {
                    twin = up;
                    tracing::info!(connected = up, "twin");
                    metrics::gauge!("veilmatch_twin_connected").set(f64::from(u8::from(up)));
                    if up { self.matcher.twin_connected() } else { self.matcher.twin_lost() }
                }
                Event::Worked(worked) => self.matcher.finish(worked),
                Event::Look(look) => {
                    look(&self.matcher);
                    continue;
                }
                Event::Tick => {
                    let expired = self.matcher.forget_expired(now());
                    self.act(expired, &mut pending, &store);
                    self.meter();
                    self.matcher.tick(clock.milliseconds())
                }
                Event::Finish { until, done } => {
                    finishing = Some((until, done));
                    self.matcher.stop_maintenance();
                    Reaction::default()
                }
            };
            self.act(reaction, &mut pending, &store);
            if let Some((until, _)) = &finishing
                && (self.matcher.is_idle() || Instant::now() >= *until)
            {
                break;
            }
            // What was sent leaves before more is taken.
            if !self.inbox.is_empty() {
                tokio::task::yield_now().await;
            }
        }
        for (_, waiting) in pending {
            let _ = waiting.reply.send(ClientAnswer::Refused(stopped()));
        }
        // What is settled in memory is written down, so that the next life need not tell it again.
        if let Some(work) = self.matcher.tidy() {
            let _ = store.send(work);
        }
        drop(store);
        // Results of the last jobs have nobody to go to; the channel must not hold the storage thread up.
        self.inbox.close();
        while self.inbox.try_recv().is_ok() {}
        if let Ok(writer) = writer {
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
        if let Some((_, done)) = finishing {
            let _ = done.send(());
        }
    }

    fn act(&self, reaction: Reaction, pending: &mut BTreeMap<RequestId, Pending>, store: &channel::Sender<Work>) {
        for (id, mark) in reaction.marks {
            if let Some(waiting) = pending.get_mut(&id) {
                waiting.enter(Some(match mark {
                    Mark::Asked => "recrypt",
                    Mark::Recrypted => "scan",
                    Mark::ScannedCoarse => "preselect",
                    Mark::Preselected => "scan candidates",
                    Mark::Scanned => "decide",
                }));
            }
        }
        for (id, answer) in reaction.answers {
            let Some(mut waiting) = pending.remove(&id) else { continue };
            waiting.enter(None);
            let kind = waiting.kind;
            metrics::histogram!("veilmatch_request_seconds", "kind" => kind).record(waiting.since.elapsed());
            let outcome = match &answer {
                ClientAnswer::Refused(refusal) => {
                    let suspects = refusal.suspects.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                    tracing::warn!(kind, code = refusal.code, suspects, "refused");
                    metrics::counter!("veilmatch_refusals_total", "code" => refusal.code.clone()).increment(1);
                    "refused"
                }
                _ => "done",
            };
            metrics::counter!("veilmatch_requests_total", "kind" => kind, "outcome" => outcome).increment(1);
            let _ = waiting.reply.send(answer);
        }
        for message in reaction.send {
            // A message that cannot be sent is lost; whoever waits for its effect has a deadline.
            if let Some(link) = self.links.of(message.to, message.lane)
                && let Err(error) = link.send(message.bytes)
            {
                tracing::debug!(holder = %message.to, %error, "not sent");
            }
        }
        for bytes in reaction.to_twin {
            if let Some(twin) = &self.links.twin
                && let Err(error) = twin.send(bytes)
            {
                tracing::debug!(%error, "not sent to the twin");
            }
        }
        for work in reaction.work {
            if work.needs_storage() {
                let _ = store.send(work);
                continue;
            }
            let (storage, events) = (Arc::clone(&self.storage), self.events.downgrade());
            self.pool.spawn(move || {
                let begun = Instant::now();
                let worked = work.run(&*storage);
                metrics::histogram!("veilmatch_scan_seconds").record(begun.elapsed());
                if let Some(events) = events.upgrade() {
                    let _ = events.blocking_send(Event::Worked(worked));
                }
            });
        }
    }

    fn meter(&self) {
        let progress = self.matcher.progress();
        for (name, value) in [
            ("veilmatch_searches", progress.searches),
            ("veilmatch_searches_held", progress.held),
            ("veilmatch_changes_waiting", progress.waiting),
            ("veilmatch_events_waiting", EVENTS - self.events.capacity()),
            ("veilmatch_index_at_rest", usize::from(progress.at_rest)),
        ] {
            metrics::gauge!(name).set(value as f64);
        }
        for (id, _, index) in self.matcher.collections() {
            let collection = id.to_string();
            metrics::gauge!("veilmatch_templates", "collection" => collection.clone()).set(index.len() as f64);
            metrics::gauge!("veilmatch_templates_pending", "collection" => collection.clone())
                .set(index.pending().len() as f64);
            metrics::gauge!("veilmatch_groups", "collection" => collection.clone()).set(index.groups().count() as f64);
            // A search costs a probe for each: more than one is a collection on its way to another width.
            let widths: BTreeSet<usize> = index.groups().map(|group| group.packed.layout.beta()).collect();
            metrics::gauge!("veilmatch_block_widths", "collection" => collection).set(widths.len() as f64);
        }
    }
}
