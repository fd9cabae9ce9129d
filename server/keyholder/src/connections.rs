//! Who is connected, and what may wait to be sent to them.
//!
//! The matcher opens one stream per lane; its twin opens one, on which nothing comes back; of each pair of holders the one with the lower index dials. Every stream has a
//! number of its own, so that the end of one that was replaced does not end its successor.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::DropGuard;
use veilmatch_domain::{Party, SessionId};
use veilmatch_holder::{Outbound, Recipient, SessionKind};
use veilmatch_transport::{Link, LinkDown, Outlet};

/// One of the matcher's two streams: queries do not wait behind bulk work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Admissions, builds, erasures.
    Recrypt,
    /// Queries.
    Decide,
}

impl Lane {
    pub(crate) fn of(kind: SessionKind) -> Self {
        match kind {
            SessionKind::Admission | SessionKind::Build => Self::Recrypt,
            SessionKind::Query => Self::Decide,
        }
    }
}

/// The number of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamId(u64);

impl StreamId {
    pub(crate) fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Where messages to somebody go.
pub(crate) enum Outgoing {
    /// A stream that the other side opened; it and its reader end when this is dropped.
    Accepted(Outlet, #[expect(dead_code, reason = "ends the reader when it is dropped")] DropGuard),
    /// A stream that this holder opened and opens again.
    Dialled(Arc<Link>),
}

impl Outgoing {
    fn send(&self, message: Vec<u8>) -> Result<(), LinkDown> {
        match self {
            Self::Accepted(outlet, _) => outlet.send(message),
            Self::Dialled(link) => link.send(message),
        }
    }

    /// Ends the stream: what waits in it is not worth waiting for.
    pub(crate) fn cut(self) {
        if let Self::Dialled(link) = self {
            link.cut();
        }
    }
}

/// The streams that are open.
#[derive(Default)]
pub(crate) struct Connections {
    matcher: BTreeMap<Lane, (StreamId, Outgoing)>,
    peers: BTreeMap<Party, (StreamId, Outgoing)>,
    twin: Option<Outlet>,
}

/// A message that could not be sent; if there was a stream, it was ended.
pub(crate) struct Lost {
    pub(crate) to: Recipient,
    /// The session that a message to the twin belongs to.
    pub(crate) session: Option<SessionId>,
    pub(crate) why: LinkDown,
}

impl Connections {
    /// A stream of the matcher's; an earlier one of the same lane ends.
    pub(crate) fn matcher_up(&mut self, lane: Lane, stream: StreamId, to: Outgoing) {
        self.matcher.insert(lane, (stream, to));
    }

    pub(crate) fn matcher_down(&mut self, lane: Lane, stream: StreamId) -> bool {
        let is_current = self.is_matcher(lane, stream);
        if is_current {
            self.matcher.remove(&lane);
        }
        is_current
    }

    pub(crate) fn is_matcher(&self, lane: Lane, stream: StreamId) -> bool {
        self.matcher.get(&lane).is_some_and(|(current, _)| *current == stream)
    }

    /// A stream with a peer; an earlier one ends.
    pub(crate) fn peer_up(&mut self, party: Party, stream: StreamId, to: Outgoing) {
        self.peers.insert(party, (stream, to));
    }

    pub(crate) fn peer_down(&mut self, party: Party, stream: StreamId) -> bool {
        let is_current = self.is_peer(party, stream);
        if is_current {
            self.peers.remove(&party);
        }
        is_current
    }

    pub(crate) fn is_peer(&self, party: Party, stream: StreamId) -> bool {
        self.peers.get(&party).is_some_and(|(current, _)| *current == stream)
    }

    /// The twin's stream; an earlier one ends.
    pub(crate) fn twin_up(&mut self, to: Outlet) {
        self.twin = Some(to);
    }

    pub(crate) fn has_twin(&self) -> bool {
        self.twin.as_ref().is_some_and(|twin| !twin.is_closed())
    }

    pub(crate) fn peers(&self) -> Vec<Party> {
        self.peers.keys().copied().collect()
    }

    /// Sends a message. `lane` is the matcher's lane that it belongs to; without one it goes to both. A stream that does
    /// not take it is ended, so that nothing piles up. A matcher that is not connected misses it: it asks again.
    pub(crate) fn send(&mut self, message: Outbound, lane: Option<Lane>) -> Option<Lost> {
        let Outbound { to, bytes } = message;
        match (to, lane) {
            (Recipient::Peer(party), _) => {
                let stream = self.peers.get(&party);
                let why = stream.map_or(Err(LinkDown::NotConnected), |(_, stream)| stream.send(bytes)).err()?;
                if let Some((_, stream)) = self.peers.remove(&party) {
                    stream.cut();
                }
                Some(Lost { to, session: None, why })
            }
            (Recipient::Twin, _) => {
                let session = session_of_share(&bytes);
                let why = self.twin.as_ref().map_or(Err(LinkDown::NotConnected), |twin| twin.send(bytes)).err()?;
                self.twin = None;
                Some(Lost { to, session, why })
            }
            (Recipient::Matcher, Some(lane)) => self.send_on(lane, bytes),
            (Recipient::Matcher, None) => {
                let lost = self.send_on(Lane::Recrypt, bytes.clone());
                self.send_on(Lane::Decide, bytes).or(lost)
            }
        }
    }

    fn send_on(&mut self, lane: Lane, bytes: Vec<u8>) -> Option<Lost> {
        let why = self.matcher.get(&lane)?.1.send(bytes).err()?;
        self.matcher.remove(&lane);
        Some(Lost { to: Recipient::Matcher, session: None, why })
    }

    /// Ends all streams.
    pub(crate) fn cut(&mut self) {
        self.twin = None;
        let (matcher, peers) = (std::mem::take(&mut self.matcher), std::mem::take(&mut self.peers));
        matcher.into_values().chain(peers.into_values()).for_each(|(_, stream)| stream.cut());
    }
}

// Variants of `FromHolder` and `ToHolder` as borsh numbers them; a test compares.
const ADMITTED: u8 = 0;
const GROUP_PART: u8 = 1;
const COMMITTED: u8 = 2;
const PROBE_PART: u8 = 3;
const ANSWER: u8 = 4;
const ERASED: u8 = 5;
const REFUSED: u8 = 6;
const CANDIDATES: u8 = 8;
const PROBE_SHARE: u8 = 9;
const ADMIT: u8 = 0;
const BUILD: u8 = 1;
const ASK: u8 = 4;

/// What a message to the matcher is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// Belongs to a lane.
    Lane(Lane),
    /// A refusal: it goes where its session belongs.
    Refusal,
    /// For every lane.
    Everybody,
}

/// Reads it off the first byte: the rest may have megabytes.
pub(crate) fn about(message: &[u8]) -> About {
    match message.first() {
        Some(&(ADMITTED | GROUP_PART | COMMITTED | ERASED)) => About::Lane(Lane::Recrypt),
        Some(&(PROBE_PART | ANSWER | CANDIDATES | PROBE_SHARE)) => About::Lane(Lane::Decide),
        Some(&REFUSED) => About::Refusal,
        _ => About::Everybody,
    }
}

/// The session of a share of a probe; read off its beginning.
fn session_of_share(message: &[u8]) -> Option<SessionId> {
    match message.split_first() {
        Some((&PROBE_SHARE, rest)) => rest.first_chunk().map(|session| SessionId(*session)),
        _ => None,
    }
}

/// Whether a message of the matcher's would open a session; read off the first byte as well.
pub(crate) fn opens_session(message: &[u8]) -> bool {
    matches!(message.first(), Some(&(ADMIT | BUILD | ASK)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use veilmatch_domain::{CollectionId, Epoch, Part, TemplateDigest};
    use veilmatch_glwe::{FromHolder, PartPayload, ProbeAddend, Refusal, Stage, ToHolder};
    use veilmatch_secret::{Digest, Secret};
    use veilmatch_transport::{QueueLimits, queue};

    fn encoded<T: borsh::BorshSerialize>(message: &T) -> Vec<u8> {
        borsh::to_vec(message).unwrap()
    }

    #[test]
    fn a_message_to_a_peer_that_is_not_connected_is_lost_and_said_so() {
        let message = || Outbound { to: Recipient::Peer(Party::K1), bytes: vec![1] };
        let lost = Connections::default().send(message(), None).unwrap();
        assert_eq!((lost.to, lost.why), (Recipient::Peer(Party::K1), LinkDown::NotConnected));
    }

    #[test]
    fn a_share_that_does_not_reach_the_twin_is_lost_with_its_session() {
        let session = SessionId([7; 32]);
        let addend = || ProbeAddend::new(Secret::new(vec![1; 16]));
        let share = || encoded(&FromHolder::ProbeShare { session, addend: addend() });
        let message = || Outbound { to: Recipient::Twin, bytes: share() };
        let mut connections = Connections::default();
        let lost = connections.send(message(), None).unwrap();
        assert_eq!((lost.to, lost.session, lost.why), (Recipient::Twin, Some(session), LinkDown::NotConnected));
        let (outlet, outgoing) = queue(QueueLimits { messages: 1, bytes: 1000 });
        connections.twin_up(outlet);
        assert!(connections.send(message(), None).is_none() && connections.has_twin());
        // It is full: the stream ends, so that the twin does not get one share and miss another without a word.
        assert_eq!(connections.send(message(), None).map(|lost| lost.why), Some(LinkDown::Full));
        assert!(!connections.has_twin());
        drop(outgoing);
        assert_eq!(session_of_share(&[PROBE_SHARE, 1, 2]), None);
        assert_eq!(session_of_share(&encoded(&FromHolder::Committed { session })), None);
    }

    #[test]
    fn messages_are_told_apart_by_their_first_byte() {
        let session = SessionId([1; 32]);
        let refusal = Refusal { code: "x".into(), status: 10, suspects: Vec::new(), message: "x".into() };
        let payload = PartPayload::Digest(Digest([0; 32]));
        let part = Part::ALL[0];
        for (message, expected) in [
            (FromHolder::Admitted { session, verdicts: Vec::new() }, About::Lane(Lane::Recrypt)),
            (FromHolder::GroupPart { session, part, payload }, About::Lane(Lane::Recrypt)),
            (FromHolder::Committed { session }, About::Lane(Lane::Recrypt)),
            (FromHolder::Erased { digest: TemplateDigest([0; 32]), group: None }, About::Lane(Lane::Recrypt)),
            (FromHolder::Answer { session, reply: Vec::new() }, About::Lane(Lane::Decide)),
            (FromHolder::Candidates { session, groups: Vec::new() }, About::Lane(Lane::Decide)),
            (
                FromHolder::ProbeShare { session, addend: ProbeAddend::new(Secret::new(Vec::new())) },
                About::Lane(Lane::Decide),
            ),
            (FromHolder::Refused { session: None, refusal }, About::Refusal),
            (FromHolder::Status { party: Party::K0, epoch: Some(Epoch(1)) }, About::Everybody),
        ] {
            assert_eq!(about(&encoded(&message)), expected, "{message:?}");
        }
        // A probe's part comes between those that the list has.
        assert_eq!((about(&[PROBE_PART]), about(&[])), (About::Lane(Lane::Decide), About::Everybody));

        let collection = CollectionId::new("faces").unwrap();
        let admit = ToHolder::Admit { attempt: 0, collection, templates: Vec::new() };
        for (message, expected) in [
            (admit, true),
            (ToHolder::Ask { sealed: Vec::new() }, true),
            (ToHolder::Commit { session }, false),
            (ToHolder::Abandon { session }, false),
            (ToHolder::Sums { session, stage: Stage::Whole, groups: Vec::new() }, false),
            (ToHolder::Erase { request: Vec::new() }, false),
            (ToHolder::Evaluations { session, groups: Vec::new() }, false),
        ] {
            assert_eq!(opens_session(&encoded(&message)), expected, "{message:?}");
        }
        assert!(opens_session(&[BUILD]));
    }
}
