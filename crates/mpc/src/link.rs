//! Authenticated frames: everything that holders say to each other inside a session.
//!
//! The tag is keyed BLAKE3 under a key of the pair, over session, step, sender, receiver and payload. It guards against
//! alteration, misattribution and mixing of sessions on the way; secrecy on the way is the transport's (mTLS). Frames
//! that come early wait in an [`Inbox`] with bounded room for each sender.

use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::{BTreeMap, BTreeSet};

use veilmatch_domain::{Party, SessionId};
use veilmatch_secret::{Label, Seed, equal};

use crate::error::ProtocolError;
use crate::sharing::PairwiseSeeds;

const TAG: usize = 32;
/// Bytes that a frame adds to its payload: session, step, sender, receiver, length, tag.
pub const FRAME_OVERHEAD: usize = 32 + 4 + 1 + 1 + 4 + TAG;

/// Frames of one sender that may wait in a session. Counted per sender: one that floods must not get the other refused.
const MAX_WAITING_FRAMES: usize = 256;
/// Bytes of one sender that may wait in a session.
const MAX_WAITING_BYTES: usize = 128 << 20;

/// A message between two holders.
#[derive(Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Frame {
    /// The session.
    pub session: SessionId,
    /// Its number in the session.
    pub step: u32,
    /// The sender.
    pub from: Party,
    /// The receiver.
    pub to: Party,
    /// What.
    pub payload: Vec<u8>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame({} to {}, step {}, {} bytes)", self.from, self.to, self.step, self.payload.len())
    }
}

/// One holder's keys to its two peers.
#[derive(Debug)]
pub struct Links {
    party: Party,
    with_previous: Seed,
    with_next: Seed,
}

impl Links {
    /// Derives the pairs' keys.
    #[must_use]
    pub fn new(party: Party, seeds: &PairwiseSeeds) -> Self {
        let label = Label::new("veilmatch/link/key");
        Self { party, with_previous: seeds.own.derive(&label), with_next: seeds.next.derive(&label) }
    }

    fn tag(&self, peer: Party, frame: &[u8]) -> [u8; TAG] {
        let key = if peer == self.party.next() { &self.with_next } else { &self.with_previous };
        key.tag(&Label::new("veilmatch/link/tag").bytes(frame))
    }

    /// A frame to a peer, as bytes.
    #[must_use]
    pub fn seal(&self, session: SessionId, step: u32, to: Party, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(payload.len() + FRAME_OVERHEAD);
        bytes.extend_from_slice(&session.0);
        bytes.extend_from_slice(&step.to_le_bytes());
        bytes.extend_from_slice(&[self.party.index() as u8, to.index() as u8]);
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(payload);
        let tag = self.tag(to, &bytes);
        bytes.extend_from_slice(&tag);
        bytes
    }

    /// Reads a frame that the transport says comes from `from`.
    ///
    /// # Errors
    /// [`ProtocolError::Altered`] naming `from` if the frame was altered, cut, or made by or for somebody else.
    pub fn open(&self, from: Party, bytes: &[u8]) -> Result<Frame, ProtocolError> {
        let altered = ProtocolError::Altered { from };
        if from == self.party {
            return Err(altered);
        }
        let content = bytes.len().checked_sub(TAG).ok_or_else(|| altered.clone())?;
        let (content, tag) = bytes.split_at_checked(content).ok_or_else(|| altered.clone())?;
        if !equal(&self.tag(from, content), tag) {
            return Err(altered);
        }
        let frame: Frame = borsh::from_slice(content).map_err(|_| altered.clone())?;
        if frame.from != from || frame.to != self.party { Err(altered) } else { Ok(frame) }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Room {
    frames: usize,
    bytes: usize,
}

/// The frames of one session that have come but are not needed yet.
#[derive(Debug)]
pub struct Inbox {
    session: SessionId,
    waiting: BTreeMap<(u32, Party), Vec<u8>>,
    seen: BTreeSet<(u32, Party)>,
    used: BTreeMap<Party, Room>,
}

impl Inbox {
    /// Empty.
    #[must_use]
    pub fn new(session: SessionId) -> Self {
        Self { session, waiting: BTreeMap::new(), seen: BTreeSet::new(), used: BTreeMap::new() }
    }

    /// Keeps a frame.
    ///
    /// # Errors
    /// [`ProtocolError`] if it is of another session, comes for a second time, or its sender's room is full.
    pub fn insert(&mut self, frame: Frame) -> Result<(), ProtocolError> {
        let (from, step) = (frame.from, frame.step);
        if frame.session != self.session {
            return Err(ProtocolError::WrongSession { from });
        }
        if self.seen.contains(&(step, from)) {
            return Err(ProtocolError::Repeated { from });
        }
        let used = self.used.entry(from).or_default();
        let bytes = used.bytes.saturating_add(frame.payload.len());
        if used.frames >= MAX_WAITING_FRAMES || bytes > MAX_WAITING_BYTES {
            return Err(ProtocolError::TooFarAhead { from, step });
        }
        *used = Room { frames: used.frames + 1, bytes };
        self.seen.insert((step, from));
        self.waiting.insert((step, from), frame.payload);
        Ok(())
    }

    /// Takes the message that `from` sent with this number, if it has come.
    pub fn take(&mut self, from: Party, step: u32) -> Option<Vec<u8>> {
        let payload = self.waiting.remove(&(step, from))?;
        if let Some(used) = self.used.get_mut(&from) {
            used.frames = used.frames.saturating_sub(1);
            used.bytes = used.bytes.saturating_sub(payload.len());
        }
        Some(payload)
    }
}

#[cfg(test)]
mod tests;
