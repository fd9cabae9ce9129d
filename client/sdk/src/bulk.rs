//! Enrolling many people over one stream.
//!
//! People are taken from the caller's iterator only as the window allows, sealed in chunks on all cores, sent, and kept
//! until their result is there. After a break everything that has no result is sent again with the same bytes.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use veilmatch_domain::{Embedding, Explain, Status, SubjectId};
use veilmatch_glwe::{Refusal, Verdict};
use veilmatch_wire::v1::{EnrollResult, EnrollStreamRequest};

use crate::attempts::{Attempts, pause};
use crate::error::passes;
use crate::sealed_item::{Item, Person};
use crate::{Collection, Error};

/// People that are sealed in one go.
const CHUNK: usize = 32;

/// How long a matcher that has answered everything may take to end the stream.
const FAREWELL: Duration = Duration::from_secs(1);

/// What became of a bulk enrolment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enrolment {
    /// In the order of the people.
    pub results: Vec<Enrolled>,
}

/// What became of one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// Who.
    pub subject: SubjectId,
    /// Accepted or refused; `None` only in an [`Interrupted`] enrolment: there was no answer.
    pub verdict: Option<Verdict>,
}

impl Enrolment {
    /// How many were accepted.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.results.iter().filter(|result| result.verdict == Some(Verdict::Accepted)).count()
    }

    /// Who was refused, and why.
    pub fn refused(&self) -> impl Iterator<Item = (&SubjectId, &Refusal)> {
        self.results.iter().filter_map(|result| match &result.verdict {
            Some(Verdict::Refused(refusal)) => Some((&result.subject, refusal)),
            _ => None,
        })
    }
}

/// How far a bulk enrolment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// People with a result.
    pub done: usize,
    /// Of them, refused.
    pub refused: usize,
    /// People altogether, if the iterator says so.
    pub total: Option<usize>,
}

/// A bulk enrolment that did not come to its end.
#[derive(Debug)]
pub struct Interrupted {
    /// Why.
    pub error: Error,
    /// Everybody who was taken from the iterator, with the results that are there. Who has none may be enrolled or not.
    pub so_far: Enrolment,
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answered = self.so_far.results.iter().filter(|result| result.verdict.is_some()).count();
        write!(f, "the enrolment stopped after {answered} results: {}", self.error)
    }
}

impl std::error::Error for Interrupted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl Explain for Interrupted {
    fn code(&self) -> &'static str {
        self.error.code()
    }
    fn status(&self) -> Status {
        self.error.status()
    }
    fn advice(&self) -> &'static str {
        self.error.advice()
    }
}

impl From<Interrupted> for Error {
    fn from(interrupted: Interrupted) -> Self {
        interrupted.error
    }
}

pub(crate) async fn enroll<I, F>(collection: &Collection, people: I, progress: F) -> Result<Enrolment, Interrupted>
where
    I: Iterator<Item = (SubjectId, Embedding)> + Send,
    F: FnMut(Progress) + Send,
{
    let total = match people.size_hint() {
        (least, Some(most)) if least == most => Some(least),
        _ => None,
    };
    let mut bulk = Bulk {
        collection,
        people,
        report: progress,
        progress: Progress { done: 0, refused: 0, total },
        exhausted: false,
        results: Vec::new(),
        waiting: VecDeque::new(),
        sealing: None,
        paused: None,
    };
    match bulk.run().await {
        Ok(()) => Ok(Enrolment { results: bulk.results }),
        Err(error) => Err(Interrupted { error, so_far: Enrolment { results: bulk.results } }),
    }
}

/// An item and its place among the results.
struct Placed {
    place: usize,
    item: Item,
    /// Refusals of the moment that it has met.
    busy: u32,
}

struct Bulk<'a, I, F> {
    collection: &'a Collection,
    people: I,
    report: F,
    progress: Progress,
    exhausted: bool,
    results: Vec<Enrolled>,
    /// Sealed, to be sent.
    waiting: VecDeque<Placed>,
    sealing: Option<JoinHandle<Result<Vec<Item>, Error>>>,
    /// Nothing is sent before, because the matcher is busy.
    paused: Option<Instant>,
}

/// What is on its way in one stream.
struct Stream {
    outgoing: mpsc::Sender<EnrollStreamRequest>,
    flying: HashMap<u64, Placed>,
    next: u64,
}

impl<I, F> Bulk<'_, I, F>
where
    I: Iterator<Item = (SubjectId, Embedding)> + Send,
    F: FnMut(Progress) + Send,
{
    async fn run(&mut self) -> Result<(), Error> {
        let shared = &self.collection.shared;
        let attempts = || Attempts::new(shared.retries, Duration::MAX);
        let mut left = attempts();
        loop {
            let before = self.progress.done;
            let Err(error) = self.stream().await else { return Ok(()) };
            if !error.passes() {
                return Err(error);
            }
            // Only breaks without any result between them count up.
            if self.progress.done > before {
                left = attempts();
            }
            left.again(error).await?;
        }
    }

    /// Opens a stream and works until everything has its result. What has none when it fails is waiting again.
    async fn stream(&mut self) -> Result<(), Error> {
        let (outgoing, requests) = mpsc::channel(self.collection.shared.window);
        let mut stream = Stream { outgoing, flying: HashMap::new(), next: 0 };
        let worked = self.work(&mut stream, requests).await;
        let mut unanswered: Vec<_> = stream.flying.into_values().chain(self.waiting.drain(..)).collect();
        unanswered.sort_unstable_by_key(|placed| placed.place);
        self.waiting = unanswered.into();
        worked
    }

    async fn work(&mut self, stream: &mut Stream, requests: mpsc::Receiver<EnrollStreamRequest>) -> Result<(), Error> {
        let patience = self.collection.shared.enroll_deadline;
        let late = || Error::Deadline { after: patience };
        // The first items go before the answer is awaited: a server may look at them first.
        self.fill(stream).await?;
        if stream.flying.is_empty() && self.sealing.is_some() {
            self.sealed().await?;
            self.fill(stream).await?;
        }
        if self.is_done(stream) {
            return Ok(());
        }
        let mut matcher = self.collection.shared.matcher();
        let opening = matcher.enroll_stream(ReceiverStream::new(requests));
        let mut results = timeout(patience, opening)
            .await
            .map_err(|_| late())?
            .map_err(|status| Error::from_status(&status, patience))?
            .into_inner();
        let mut silent_since = Instant::now();
        while !self.is_done(stream) {
            self.fill(stream).await?;
            let resume = self.paused.filter(|_| !self.waiting.is_empty());
            tokio::select! {
                result = results.message(), if !stream.flying.is_empty() => {
                    let result = result.map_err(|status| Error::from_status(&status, patience))?;
                    self.answered(stream, result.ok_or_else(ended)?).await?;
                    silent_since = Instant::now();
                }
                sealed = joined(&mut self.sealing) => {
                    self.sealing = None;
                    self.take_in(sealed.map_err(|_| Error::Sealing)??);
                }
                () = until(resume) => self.paused = None,
                () = sleep_until(silent_since + patience), if !stream.flying.is_empty() => return Err(late()),
            }
            if stream.flying.is_empty() {
                silent_since = Instant::now();
            }
        }
        self.end(stream, results).await;
        Ok(())
    }

    fn is_done(&self, stream: &Stream) -> bool {
        self.exhausted && self.sealing.is_none() && self.waiting.is_empty() && stream.flying.is_empty()
    }

    /// Sends what waits and begins to seal the next chunk, as far as the window allows.
    async fn fill(&mut self, stream: &mut Stream) -> Result<(), Error> {
        let window = self.collection.shared.window;
        while self.paused.is_none() && stream.flying.len() < window {
            let Some(mut placed) = self.waiting.pop_front() else { break };
            match placed.item.freshen(self.collection).await {
                Ok(false) => {}
                Ok(true) => {
                    self.record(placed.place, Verdict::Accepted);
                    continue;
                }
                Err(error) => {
                    self.waiting.push_front(placed);
                    return Err(error);
                }
            }
            let request = EnrollStreamRequest {
                collection: self.collection.name.to_string(),
                sealed_template: placed.item.send(),
                sequence: stream.next,
            };
            stream.flying.insert(stream.next, placed);
            stream.next += 1;
            // The queue holds a whole window: it is full only if it is closed, which the results will explain.
            if stream.outgoing.try_send(request).is_err() {
                break;
            }
        }
        let room = window.saturating_sub(stream.flying.len() + self.waiting.len());
        if self.sealing.is_none() && !self.exhausted && room > 0 {
            let chunk: Vec<Person> = self
                .people
                .by_ref()
                .take(room.min(CHUNK))
                .map(|(subject, embedding)| Person { subject, embedding })
                .collect();
            self.exhausted = chunk.len() < room.min(CHUNK);
            if !chunk.is_empty() {
                let nobody = chunk.iter().map(|person| Enrolled { subject: person.subject.clone(), verdict: None });
                self.results.extend(nobody);
                self.sealing = Some(tokio::spawn(Item::seal_many(self.collection.clone(), chunk)));
            }
        }
        Ok(())
    }

    async fn sealed(&mut self) -> Result<(), Error> {
        if let Some(sealing) = self.sealing.take() {
            self.take_in(sealing.await.map_err(|_| Error::Sealing)??);
        }
        Ok(())
    }

    /// Items of one chunk, the last that were taken from the iterator.
    fn take_in(&mut self, items: Vec<Item>) {
        let first = self.results.len().saturating_sub(items.len());
        let placed = items.into_iter().zip(first..).map(|(item, place)| Placed { place, item, busy: 0 });
        self.waiting.extend(placed);
    }

    async fn answered(&mut self, stream: &mut Stream, result: EnrollResult) -> Result<(), Error> {
        const UNKNOWN: Error = Error::Mismatch { what: "a result that nothing was sent for" };
        let sequence = result.sequence;
        let verdict = result.verdict().map_err(Error::Answer)?;
        let placed = stream.flying.get_mut(&sequence).ok_or(UNKNOWN)?;
        match placed.item.settle(self.collection, verdict).await? {
            Verdict::Refused(refusal) if passes(&refusal) && placed.busy < self.collection.shared.retries => {
                placed.busy += 1;
                self.paused = Some(Instant::now() + pause(placed.busy));
                self.waiting.extend(stream.flying.remove(&sequence));
            }
            verdict => {
                let place = placed.place;
                stream.flying.remove(&sequence);
                self.record(place, verdict);
            }
        }
        Ok(())
    }

    fn record(&mut self, place: usize, verdict: Verdict) {
        self.progress.done += 1;
        self.progress.refused += usize::from(verdict != Verdict::Accepted);
        if let Some(result) = self.results.get_mut(place) {
            result.verdict = Some(verdict);
        }
        (self.report)(self.progress);
    }

    /// Everything is answered: closes in order, so that the matcher does not see a client that went away.
    async fn end(&self, stream: &mut Stream, mut results: Streaming<EnrollResult>) {
        let (closed, _) = mpsc::channel(1);
        stream.outgoing = closed;
        // Whatever comes now changes no result.
        let _ = timeout(FAREWELL, results.message()).await;
    }
}

/// A stream that ended without an error while something had no result.
fn ended() -> Error {
    Error::Unreachable { cause: String::from("the matcher ended the stream"), sent: true }
}

async fn joined<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
