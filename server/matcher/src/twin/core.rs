//! The task that owns the [`Twin`] state machine: events through one bounded channel, evaluations on a pool of their own.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::DropGuard;
use veilmatch_domain::Party;
use veilmatch_matching::{Twin, TwinReaction};
use veilmatch_transport::Outlet;

/// What happens to the twin.
pub(super) enum Event {
    /// The matcher opened a stream; an earlier one ends.
    MatcherUp { stream: u64, to: Outlet, guard: DropGuard },
    /// A message of the matcher's.
    Matcher { stream: u64, bytes: Vec<u8> },
    /// The matcher's stream ended.
    MatcherDown { stream: u64 },
    /// A share of a probe.
    Share { party: Party, bytes: Vec<u8> },
    /// The stream to a holder is open, or is not.
    Holder { party: Party, up: bool },
    /// An evaluation is done; the message is the matcher's.
    Evaluated(Option<Vec<u8>>),
    /// Close all streams and end.
    End,
}

/// Who is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Overview {
    pub(super) holders: [bool; 3],
    pub(super) matcher: bool,
}

/// The stream to the matcher; its reader ends when this is dropped.
struct Matcher {
    stream: u64,
    to: Outlet,
    _guard: DropGuard,
}

pub(super) struct Core {
    pub(super) twin: Twin,
    pub(super) pool: Arc<rayon::ThreadPool>,
    /// Evaluations at once, those that wait for a thread included.
    pub(super) limit: usize,
    pub(super) results: mpsc::WeakSender<Event>,
    pub(super) overview: watch::Sender<Overview>,
}

impl Core {
    /// Runs until it is told to end.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Event>) {
        let mut matcher: Option<Matcher> = None;
        let mut under_way = 0usize;
        while let Some(event) = inbox.recv().await {
            let is_current = |stream: u64| matcher.as_ref().is_some_and(|known| known.stream == stream);
            let reaction = match event {
                Event::MatcherUp { stream, to, guard } => {
                    tracing::info!("the matcher is connected");
                    matcher = Some(Matcher { stream, to, _guard: guard });
                    TwinReaction::default()
                }
                Event::Matcher { stream, bytes } if is_current(stream) => self.twin.hear_matcher(&bytes),
                Event::MatcherDown { stream } if is_current(stream) => {
                    tracing::warn!("the matcher is gone");
                    matcher = None;
                    TwinReaction::default()
                }
                // Of a stream that was replaced.
                Event::Matcher { .. } | Event::MatcherDown { .. } => continue,
                Event::Share { party, bytes } => self.twin.hear_holder(party, &bytes),
                Event::Holder { party, up } => {
                    self.note_holder(party, up);
                    TwinReaction::default()
                }
                Event::Evaluated(message) => {
                    under_way = under_way.saturating_sub(1);
                    TwinReaction { send: message.into_iter().collect(), work: Vec::new() }
                }
                Event::End => break,
            };
            let TwinReaction { mut send, work } = reaction;
            for work in work {
                if under_way >= self.limit {
                    metrics::counter!("veilmatch_twin_evaluations_total", "outcome" => "refused").increment(1);
                    send.extend(work.refuse(self.limit));
                    continue;
                }
                under_way += 1;
                let results = self.results.clone();
                self.pool.spawn(move || {
                    let begun = Instant::now();
                    let message = work.run();
                    metrics::histogram!("veilmatch_twin_evaluation_seconds").record(begun.elapsed());
                    metrics::counter!("veilmatch_twin_evaluations_total", "outcome" => "done").increment(1);
                    if let Some(results) = results.upgrade() {
                        let _ = results.blocking_send(Event::Evaluated(message));
                    }
                });
            }
            // A stream that does not take a message is ended: the matcher hears of it and tells whoever waits.
            let failed = matcher.as_ref().and_then(|known| send.into_iter().find_map(|m| known.to.send(m).err()));
            if let Some(error) = failed {
                tracing::warn!(%error, "the stream to the matcher was ended");
                matcher = None;
            }
            metrics::gauge!("veilmatch_twin_evaluations").set(under_way as f64);
            metrics::gauge!("veilmatch_twin_matcher_connected").set(f64::from(u8::from(matcher.is_some())));
            self.show(|overview| overview.matcher = matcher.is_some());
            // What was sent leaves before more is taken.
            if !inbox.is_empty() {
                tokio::task::yield_now().await;
            }
        }
    }

    fn note_holder(&self, party: Party, up: bool) {
        let known = self.overview.borrow().holders.get(party.index()).copied();
        if known == Some(up) {
            return;
        }
        tracing::info!(holder = %party, connected = up, "key holder");
        metrics::gauge!("veilmatch_twin_holder_connected", "holder" => party.to_string()).set(f64::from(u8::from(up)));
        self.show(|overview| {
            if let Some(flag) = overview.holders.get_mut(party.index()) {
                *flag = up;
            }
        });
    }

    fn show(&self, change: impl FnOnce(&mut Overview)) {
        self.overview.send_if_modified(|shown| {
            let before = *shown;
            change(shown);
            before != *shown
        });
    }
}
