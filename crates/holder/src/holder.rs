//! A key holder as a state machine over messages: no IO, no clock of its own, no threads that outlive a call.

use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use veilmatch_domain::{
    ClientId, CollectionId, Epoch, Party, Policy, Role, SessionId, SubjectId, Suspect, TemplateDigest, Timestamp,
};
use veilmatch_glwe::{FromHolder, Parameters, Refusal, ToHolder, admission_session, build_session, query_session};
use veilmatch_mpc::{Frame, Inbox, Links};
use veilmatch_sealed::{ClientVerifyingKey, HolderPublicKey, SIGNATURE_BYTES, SealedTemplate, SignedErasure};
use veilmatch_secret::{Digest, Entropy};

use crate::HolderError;
use crate::admission::Admission;
use crate::audit::{AuditEntry, AuditEvent, AuditLog};
use crate::build::Build;
use crate::ceremony::Forming;
use crate::error::Speaker;
use crate::ledger::Ledger;
use crate::masks::MaskRoom;
use crate::memory::HolderKeys;
use crate::query::Query;
use crate::record::{Key, Record, Signer};
use crate::registry::{ClientRecord, Registry};
use crate::restoring::{Escrow, SealedShare};
use crate::run::Circuits;
use crate::state::{Channel, State};
use crate::work::{Done, Work, Worked};

/// The step of the frame that tells peers that a session has ended in an error.
const STOP: u32 = u32::MAX;
/// Frames of one peer that may wait for sessions that this holder has not been asked to open yet. The oldest give way:
/// what is left of a session that never opens must not stand in the way of those that do.
const MAX_EARLY_FRAMES: usize = 256;
/// Committed sessions that are remembered, so that a repeated `Commit` is acknowledged again.
pub(crate) const MAX_COMMITTED: usize = 64;
/// Longest lifetime of an erasure, in seconds: a holder that was down must still accept it.
const ERASURE_SECONDS: u64 = 31 * 86_400;

/// Entries of the log between two snapshots of the ledger.
const ENTRIES_PER_SNAPSHOT: u64 = 1000;

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// The matcher.
    Matcher,
    /// Another holder.
    Peer(Party),
    /// The matcher's twin: the second evaluator of the scheme `paillier`.
    Twin,
}

/// Where a message comes from, as the transport authenticated it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The matcher.
    Matcher,
    /// Another holder.
    Peer(Party),
}

/// A message to send.
#[derive(Clone, PartialEq, Eq)]
pub struct Outbound {
    /// To whom.
    pub to: Recipient,
    /// What.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outbound(to {:?}, {} bytes)", self.to, self.bytes.len())
    }
}

/// What a message led to.
///
/// Its parts are done in this order: `log`, `save`, `send`; `work` may run beside them. A reaction whose log or save cannot
/// be stored is never sent: the holder in memory is then ahead of what would be there after a crash, so whoever drives it
/// stops it and makes it again from its records ([`Holder::restore`]).
#[derive(Debug, Default)]
#[must_use = "what it says must be stored and sent"]
pub struct Reaction {
    /// Registry changes: durable, all or none, before anything in `send` leaves.
    pub save: Vec<Record>,
    /// Audit entries: appended and synced before anything in `send` leaves.
    pub log: Vec<AuditEntry>,
    /// Messages to send, in order.
    pub send: Vec<Outbound>,
    /// Heavy computation to run anywhere and to give back through [`Holder::finish`]. May run after `send` left.
    pub work: Vec<Work>,
    /// The error that the message led to, if any; peers and matcher have been told.
    pub failure: Option<HolderError>,
}

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKind {
    /// Admits templates.
    Admission,
    /// Builds a group.
    Build,
    /// Answers a query.
    Query,
}

/// A session that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSession {
    /// Which.
    pub session: SessionId,
    /// What for.
    pub kind: SessionKind,
    /// Whether this holder has promised to commit: then only the matcher ends it.
    pub prepared: bool,
    /// Whether it waits for this holder's own computation.
    pub computing: bool,
}

/// Public keys of a holder, exchanged before the ceremony and known to clients.
#[derive(Clone, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
pub struct HolderCard {
    /// Which holder.
    pub party: Party,
    /// Verifies its ceremony messages.
    pub identity: ClientVerifyingKey,
    /// Sealed templates are encrypted to it.
    pub encryption: HolderPublicKey,
}

/// Between holders.
#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) enum PeerMessage {
    /// seed_i of a new key epoch, from K_i to K_{i−1}, signed.
    Ceremony { epoch: Epoch, seed: [u8; 32], signature: [u8; SIGNATURE_BYTES] },
    /// A frame of a session, authenticated under the keys of an epoch.
    Frame { epoch: Epoch, frame: Vec<u8> },
    /// A share of the sender's keys, kept for the day it is lost.
    Escrow(Box<SealedShare>),
}

pub(crate) enum Session {
    Admission(Box<Admission>),
    Build(Box<Build>),
    Query(Box<Query>),
}

impl Session {
    fn channel(&mut self) -> &mut Channel {
        match self {
            Session::Admission(s) => &mut s.channel,
            Session::Build(s) => &mut s.channel,
            Session::Query(s) => &mut s.channel,
        }
    }

    fn advance(&mut self, state: &mut State) -> Result<(), HolderError> {
        match self {
            Session::Admission(s) => s.advance(state),
            Session::Build(s) => s.advance(state),
            Session::Query(s) => s.advance(state),
        }
    }

    fn kind(&self) -> SessionKind {
        match self {
            Session::Admission(_) => SessionKind::Admission,
            Session::Build(_) => SessionKind::Build,
            Session::Query(_) => SessionKind::Query,
        }
    }

    /// The ticket of the work that the session waits for.
    fn computing(&self) -> Option<u64> {
        match self {
            Session::Admission(s) => s.computing(),
            Session::Build(s) => s.computing(),
            Session::Query(s) => s.computing(),
        }
    }

    fn worked(&mut self, state: &mut State, done: Done) -> Result<(), HolderError> {
        match self {
            Session::Admission(s) => s.worked(state, done),
            Session::Build(s) => s.worked(state, done),
            Session::Query(s) => s.worked(state, done),
        }
    }

    fn is_finished(&self) -> bool {
        matches!(self, Session::Query(s) if s.is_finished())
    }

    /// Whether this holder has promised to commit: then only the matcher ends the session.
    pub(crate) fn is_prepared(&self) -> bool {
        match self {
            Session::Admission(s) => s.is_prepared(),
            Session::Build(s) => s.is_prepared(),
            Session::Query(_) => false,
        }
    }

    fn late(&self, state: &State) -> Vec<Suspect> {
        match self {
            Session::Admission(s) => s.late(state),
            Session::Build(s) => s.late(state),
            Session::Query(s) => s.late(state),
        }
    }
}

/// What a holder may use of its machine. Results do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of expanded public masks that are kept in memory, over all collections: 128 per template at β = 4, r = 16
    /// and d = 512. What does not fit is expanded again by every query, at about one nanosecond a byte.
    pub mask_cache_bytes: usize,
}

impl Default for Limits {
    /// 256 MiB of masks: two million templates at 512 dimensions.
    fn default() -> Self {
        Self { mask_cache_bytes: 256 << 20 }
    }
}

/// A key holder.
pub struct Holder {
    pub(crate) state: State,
    pub(crate) peers: Option<[HolderCard; 3]>,
    /// Shares of peers' keys, and what this holder's own are split with.
    pub(crate) escrow: Escrow,
    /// Whom this holder obeys.
    pub(crate) administrators: Vec<ClientVerifyingKey>,
    /// Own and received seeds of ceremonies that are not complete.
    pub(crate) forming: BTreeMap<Epoch, Forming>,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    /// Frames that came before the matcher's word, oldest first.
    early: VecDeque<(Epoch, Frame)>,
    /// Attempt numbers of admissions and builds that are open.
    pub(crate) attempts: BTreeMap<SessionId, u64>,
    /// Admissions and builds that were committed, oldest first, with their numbers.
    pub(crate) committed: VecDeque<(u64, SessionId)>,
}

impl std::fmt::Debug for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Holder({}, {} sessions, keys redacted)", self.state.party, self.sessions.len())
    }
}

impl Holder {
    /// A holder that has never run before. Its keys must be stored before its card is shown to anybody.
    #[must_use]
    pub fn new(party: Party, parameters: Parameters, keys: HolderKeys, entropy: Box<dyn Entropy>) -> Self {
        let HolderKeys { identity, kem } = keys;
        let state = State {
            party,
            parameters,
            ring: Arc::new(parameters.ring()),
            mask_room: MaskRoom::new(Limits::default().mask_cache_bytes),
            identity,
            kem: Arc::new(kem),
            readers: None,
            packets: Arc::default(),
            epochs: BTreeMap::new(),
            current: None,
            restored: None,
            gallery_secrets: BTreeMap::new(),
            paillier: None,
            registry: Registry::default(),
            audit: AuditLog::default(),
            ledger: Ledger::default(),
            ledger_saved: 0,
            asking: BTreeMap::new(),
            circuits: Circuits::default(),
            entropy,
            now: Timestamp(0),
            saves: Vec::new(),
            logs: Vec::new(),
            outbox: Vec::new(),
            work: Vec::new(),
            ticket: 0,
        };
        Self {
            state,
            peers: None,
            escrow: Escrow::default(),
            administrators: Vec::new(),
            forming: BTreeMap::new(),
            sessions: BTreeMap::new(),
            early: VecDeque::new(),
            attempts: BTreeMap::new(),
            committed: VecDeque::new(),
        }
    }

    /// A holder with fresh keys that live as long as it does.
    #[must_use]
    pub fn with_fresh_keys(party: Party, parameters: Parameters, mut entropy: Box<dyn Entropy>) -> Self {
        let keys = HolderKeys::random(entropy.as_mut());
        Self::new(party, parameters, keys, entropy)
    }

    /// Sets what this holder may use of its machine. What it has kept already stays.
    pub fn limit(&mut self, limits: Limits) {
        self.state.mask_room.set_limit(limits.mask_cache_bytes);
    }

    /// The public keys that clients and the other holders need.
    #[must_use]
    pub fn card(&self) -> HolderCard {
        HolderCard {
            party: self.state.party,
            identity: self.state.identity.verifying_key(),
            encryption: self.state.kem.public_key().clone(),
        }
    }

    /// Pins the public keys of all three holders, in the order K0, K1, K2.
    pub fn meet(&mut self, cards: [HolderCard; 3]) {
        self.state.readers = Some(Arc::new(cards.each_ref().map(|c| c.encryption.clone())));
        self.peers = Some(cards);
    }

    /// Registers a client or changes what it may do. Its key must stay the same: templates that it enrolled are checked with
    /// it at every rebuild.
    pub fn register_client(&mut self, client: ClientId, record: ClientRecord) -> Reaction {
        self.state.registry.register_client(client, record);
        self.reaction(None)
    }

    /// Creates a collection or changes its policy.
    ///
    /// # Errors
    /// [`HolderError::Policy`] if the policy contradicts itself.
    pub fn set_policy(&mut self, collection: CollectionId, policy: Policy) -> Result<Reaction, HolderError> {
        policy.validate()?;
        self.check_scheme(&collection, &policy)?;
        self.state.registry.set_policy(collection, policy);
        Ok(self.reaction(None))
    }

    /// Number and hash of the last entry of the log.
    #[must_use]
    pub fn audit_head(&self) -> Option<(u64, Digest)> {
        self.state.audit.head()
    }

    /// The epoch under which this holder was restored from the others; until a later one begins, it builds nothing.
    #[must_use]
    pub fn restored_epoch(&self) -> Option<Epoch> {
        self.state.restored
    }

    /// The current key epoch, once its ceremony is complete here.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.state.current
    }

    /// The admitted template of a subject, if there is one.
    #[must_use]
    pub fn enrolled(&self, collection: &CollectionId, subject: &SubjectId) -> Option<TemplateDigest> {
        self.state.registry.collection(collection).ok()?.template_of(subject).copied()
    }

    /// A digest of everything that decides what queries of a collection see. Equal at all holders when none is behind.
    #[must_use]
    pub fn view(&self, collection: &CollectionId) -> Option<veilmatch_secret::Digest> {
        Some(self.state.registry.collection(collection).ok()?.view_digest())
    }

    /// Key epochs that this holder still has seeds of: old ones go with the last group that needs them.
    pub fn epochs(&self) -> impl Iterator<Item = Epoch> {
        self.state.epochs.keys().copied()
    }

    /// Takes one message. Every error leaves the registry as it was; the session it belongs to, if any, ends.
    pub fn receive(&mut self, from: Sender, bytes: &[u8], now: Timestamp) -> Reaction {
        self.state.now = now;
        let result = match from {
            Sender::Matcher => self.hear_matcher(bytes),
            Sender::Peer(party) => self.hear_peer(party, bytes),
        };
        let failure = match result {
            Ok(()) => None,
            Err((session, error)) => {
                self.fail(session, &error, from);
                Some(error)
            }
        };
        self.reaction(failure)
    }

    /// Takes the result of a piece of [`Work`]. If its session has ended meanwhile, it is dropped.
    pub fn finish(&mut self, worked: Worked, now: Timestamp) -> Reaction {
        self.state.now = now;
        let Worked { session, ticket, done } = worked;
        if self.sessions.get(&session).and_then(Session::computing) != Some(ticket) {
            return self.reaction(None);
        }
        let result = self.with(session, |open, state| {
            open.worked(state, done)?;
            open.advance(state)?;
            Ok(open.is_finished())
        });
        let failure = result.err().map(|(session, error)| {
            self.fail(session, &error, Sender::Matcher);
            error
        });
        self.reaction(failure)
    }

    /// Ends a session whose messages do not come; the caller has the clock. The error names who is late. A session that
    /// this holder has promised to commit stays: the matcher may have told the others to commit already.
    pub fn expire(&mut self, session: SessionId) -> Reaction {
        let Some(open) = self.sessions.get(&session) else {
            return self.reaction(Some(HolderError::UnknownSession(session)));
        };
        if open.is_prepared() {
            return self.reaction(None);
        }
        let error = HolderError::TimedOut { suspects: open.late(&self.state) };
        self.fail(Some(session), &error, Sender::Matcher);
        self.reaction(Some(error))
    }

    /// Sessions that are open. Those that are prepared never expire.
    pub fn open_sessions(&self) -> impl Iterator<Item = OpenSession> {
        self.sessions.iter().map(|(id, session)| OpenSession {
            session: *id,
            kind: session.kind(),
            prepared: session.is_prepared(),
            computing: session.computing().is_some(),
        })
    }

    /// What the matcher hears when it connects.
    ///
    /// # Errors
    /// None that can happen: the message is a few bytes.
    pub fn matcher_connected(&mut self) -> Result<Reaction, HolderError> {
        self.state.tell_status()?;
        Ok(self.reaction(None))
    }

    /// Ends at once what waits for a peer that is gone or was sent something in vain, instead of at its deadline. The last error is the reaction's.
    pub fn peer_lost(&mut self, party: Party, now: Timestamp) -> Reaction {
        self.state.now = now;
        let waits = |open: &Session, state: &State| {
            !open.is_prepared() && open.late(state).iter().any(|suspect| suspect.includes(party))
        };
        let waiting: Vec<SessionId> =
            self.sessions.iter().filter(|(_, open)| waits(open, &self.state)).map(|(id, _)| *id).collect();
        let mut failure = None;
        let mut send = Vec::new();
        for id in waiting {
            let error = HolderError::PeerLost { by: self.state.party, party };
            self.fail(Some(id), &error, Sender::Matcher);
            // The end of one session clears what is queued: what the others said is kept aside.
            send.append(&mut self.state.outbox);
            failure = Some(error);
        }
        self.state.outbox = send;
        self.reaction(failure)
    }

    /// Ends at once a session whose message to the twin could not be sent, instead of at its deadline. The error names the twin.
    pub fn twin_lost(&mut self, session: SessionId, now: Timestamp) -> Reaction {
        self.state.now = now;
        if !self.sessions.contains_key(&session) {
            return self.reaction(None);
        }
        let error = HolderError::TwinLost { by: self.state.party };
        self.fail(Some(session), &error, Sender::Matcher);
        self.reaction(Some(error))
    }

    pub(crate) fn reaction(&mut self, failure: Option<HolderError>) -> Reaction {
        if self.state.audit.len().saturating_sub(self.state.ledger_saved) >= ENTRIES_PER_SNAPSHOT {
            self.state.save_ledger();
        }
        let mut save = std::mem::take(&mut self.state.saves);
        save.append(&mut self.state.registry.take_changes());
        Reaction {
            save,
            log: std::mem::take(&mut self.state.logs),
            send: std::mem::take(&mut self.state.outbox),
            work: std::mem::take(&mut self.state.work),
            failure,
        }
    }

    /// Ends a session and tells peers and matcher why.
    fn fail(&mut self, session: Option<SessionId>, error: &HolderError, from: Sender) {
        // What was promised stays promised: a message out of place is refused, and the session waits for the matcher.
        let session = session.filter(|id| !self.sessions.get(id).is_some_and(Session::is_prepared));
        if let Some(id) = session {
            if let Some(mut ended) = self.end(id) {
                // What the session had queued in this call must not leave any more.
                self.state.outbox.clear();
                self.state.work.clear();
                if !matches!(error, HolderError::PeerStopped { .. }) {
                    let refusal = error.refusal();
                    for peer in self.state.party.peers() {
                        // An error here has nobody left to be told to.
                        let _ = ended.channel().send(&mut self.state, STOP, peer, &refusal);
                    }
                }
            } else if matches!(error, HolderError::OutOfTurn(_) | HolderError::UnknownSession(_))
                && from != Sender::Matcher
            {
                return;
            }
        }
        let refused = FromHolder::Refused { session, refusal: error.refusal() };
        let _ = self.state.tell_matcher(&refused);
    }

    /// Ends a session, if it is open, with everything that belongs to it.
    fn end(&mut self, id: SessionId) -> Option<Session> {
        self.forget_early(id);
        self.attempts.remove(&id);
        let ended = self.sessions.remove(&id)?;
        if ended.is_prepared() {
            self.forget_prepared(&ended, id);
        }
        match &ended {
            Session::Query(_) => self.spend(id),
            Session::Admission(admission) => admission.release(&mut self.state, id),
            Session::Build(_) => {}
        }
        Some(ended)
    }

    fn forget_prepared(&mut self, session: &Session, id: SessionId) {
        self.state.saves.extend(match session {
            Session::Admission(_) => Some(Record::gone(&Key::PreparedAdmission(id))),
            Session::Build(_) => Some(Record::gone(&Key::PreparedBuild(id))),
            Session::Query(_) => None,
        });
    }

    fn spend(&mut self, id: SessionId) {
        if let Some(asking) = self.state.asking.remove(&id) {
            self.state.registry.spend(id, asking.expires, self.state.now);
        }
    }

    fn is_committed(&self, session: &SessionId) -> bool {
        self.committed.iter().any(|(_, id)| id == session)
    }

    fn hear_matcher(&mut self, bytes: &[u8]) -> Result<(), (Option<SessionId>, HolderError)> {
        let message: ToHolder =
            borsh::from_slice(bytes).map_err(|_| (None, HolderError::Malformed { speaker: Speaker::Matcher }))?;
        match message {
            ToHolder::Admit { attempt, collection, templates } => {
                let id = admission_session(attempt, &collection, &templates);
                self.begin_attempt(id, attempt)?;
                self.open(id, |state, channel| {
                    let admission = Admission::start(state, channel, attempt, collection, templates)?;
                    Ok(Session::Admission(Box::new(admission)))
                })
            }
            ToHolder::Build(order) => {
                let id = build_session(&order);
                self.begin_attempt(id, order.attempt)?;
                self.open(id, |state, channel| Ok(Session::Build(Box::new(Build::start(state, channel, order)?))))
            }
            ToHolder::Ask { sealed } => {
                let sealed = SealedTemplate::from_bytes(&sealed).map_err(|e| (None, e.into()))?;
                let id = query_session(&sealed.digest());
                if self.state.registry.is_spent(&id) {
                    return Err((Some(id), HolderError::SessionSpent(id)));
                }
                self.open(id, |state, channel| Ok(Session::Query(Box::new(Query::start(state, channel, &sealed)?))))
            }
            ToHolder::Commit { session } => {
                // The matcher repeats itself until it has heard from all three.
                if self.is_committed(&session) {
                    let committed = FromHolder::Committed { session };
                    return self.state.tell_matcher(&committed).map_err(|e| (None, e));
                }
                self.with(session, |open, state| match open {
                    Session::Admission(s) => s.commit(state).map(|()| true),
                    Session::Build(s) => s.commit(state).map(|()| true),
                    Session::Query(_) => Err(HolderError::OutOfTurn(session)),
                })?;
                self.attempts.remove(&session);
                let number = self.committed.back().map_or(0, |(number, _)| number.saturating_add(1));
                self.state.saves.push(Record::put(&Key::Committed(number), &session));
                self.committed.push_back((number, session));
                if self.committed.len() > MAX_COMMITTED
                    && let Some((old, _)) = self.committed.pop_front()
                {
                    self.state.saves.push(Record::gone(&Key::Committed(old)));
                }
                Ok(())
            }
            ToHolder::Abandon { session } => {
                self.end(session);
                Ok(())
            }
            ToHolder::Sums { session, stage, groups } => {
                if self.state.registry.is_spent(&session) {
                    return Err((Some(session), HolderError::SessionSpent(session)));
                }
                self.with(session, |open, state| match open {
                    Session::Query(s) => s.sums(state, stage, groups).map(|()| s.is_finished()),
                    Session::Admission(_) | Session::Build(_) => Err(HolderError::OutOfTurn(session)),
                })
            }
            ToHolder::Evaluations { session, groups } => {
                if self.state.registry.is_spent(&session) {
                    return Err((Some(session), HolderError::SessionSpent(session)));
                }
                self.with(session, |open, state| match open {
                    Session::Query(s) => s.evaluations(state, groups).map(|()| s.is_finished()),
                    Session::Admission(_) | Session::Build(_) => Err(HolderError::OutOfTurn(session)),
                })
            }
            ToHolder::Erase { request } => self.erase(&request).map_err(|e| (None, e)),
        }
    }

    fn hear_peer(&mut self, party: Party, bytes: &[u8]) -> Result<(), (Option<SessionId>, HolderError)> {
        let malformed = (None, HolderError::Malformed { speaker: Speaker::Peer(party) });
        let message: PeerMessage = borsh::from_slice(bytes).map_err(|_| malformed.clone())?;
        match message {
            PeerMessage::Ceremony { epoch, seed, signature } => {
                self.take_seed(party, epoch, seed, &signature).map_err(|e| (None, e))
            }
            PeerMessage::Escrow(share) => self.take_share(party, &share).map_err(|e| (None, e)),
            PeerMessage::Frame { epoch, frame } => {
                let keys = self.state.keys(epoch).map_err(|e| (None, e))?;
                let frame =
                    Links::new(self.state.party, &keys.seeds).open(party, &frame).map_err(|e| (None, e.into()))?;
                self.take_frame(frame, epoch)
            }
        }
    }

    fn take_frame(&mut self, frame: Frame, epoch: Epoch) -> Result<(), (Option<SessionId>, HolderError)> {
        let (id, from) = (frame.session, frame.from);
        if frame.step == STOP {
            let refusal: Refusal = borsh::from_slice(&frame.payload)
                .map_err(|_| (None, HolderError::Malformed { speaker: Speaker::Peer(from) }))?;
            self.forget_early(id);
            if self.sessions.get(&id).is_some_and(|open| !open.is_prepared()) {
                return Err((Some(id), HolderError::PeerStopped { by: from, refusal: Box::new(refusal) }));
            }
            return Ok(());
        }
        if self.sessions.contains_key(&id) {
            return self.with(id, |open, state| {
                if open.channel().epoch != epoch {
                    return Err(HolderError::WrongEpoch(epoch));
                }
                open.channel().insert(frame)?;
                open.advance(state)?;
                Ok(open.is_finished())
            });
        }
        if self.state.registry.is_spent(&id) || self.is_committed(&id) {
            return Ok(()); // late news of a session that has ended
        }
        let of_sender = |(_, waiting): &(Epoch, Frame)| waiting.from == from;
        if self.early.iter().filter(|waiting| of_sender(waiting)).count() >= MAX_EARLY_FRAMES
            && let Some(oldest) = self.early.iter().position(of_sender)
        {
            self.early.remove(oldest);
        }
        self.early.push_back((epoch, frame));
        Ok(())
    }

    fn forget_early(&mut self, id: SessionId) {
        self.early.retain(|(_, frame)| frame.session != id);
    }

    /// Notes the attempt of an admission or a build. The matcher changes its index in one session at a time, so earlier
    /// attempts that this holder has promised to commit were given up: it would have had to acknowledge them otherwise.
    fn begin_attempt(&mut self, id: SessionId, attempt: u64) -> Result<(), (Option<SessionId>, HolderError)> {
        if self.is_committed(&id) {
            return Err((None, HolderError::OutOfTurn(id)));
        }
        let given_up: Vec<SessionId> = self.attempts.iter().filter(|(_, a)| **a < attempt).map(|(id, _)| *id).collect();
        for old in given_up {
            if self.sessions.get(&old).is_some_and(Session::is_prepared) {
                self.end(old);
            }
        }
        self.attempts.insert(id, attempt);
        Ok(())
    }

    /// Opens a session and hands it the frames that came before the matcher's word.
    fn open(
        &mut self,
        id: SessionId,
        start: impl FnOnce(&mut State, Channel) -> Result<Session, HolderError>,
    ) -> Result<(), (Option<SessionId>, HolderError)> {
        if self.sessions.contains_key(&id) {
            // The session that is open goes on; the repetition is refused without ending it.
            return Err((None, HolderError::OutOfTurn(id)));
        }
        let started = (|| {
            let epoch = self.state.current_epoch()?;
            let channel = Channel::new(id, epoch, Inbox::new(id));
            start(&mut self.state, channel)
        })();
        let mut session = match started {
            Ok(session) => session,
            Err(error) => {
                // Nothing that was begun here may leave; peers learn that this holder stopped.
                self.state.outbox.clear();
                self.state.work.clear();
                self.forget_early(id);
                self.attempts.remove(&id);
                self.state.asking.remove(&id);
                self.state.registry.release(id);
                self.tell_peers_to_stop(id, &error);
                return Err((Some(id), error));
            }
        };
        let (early, others) = std::mem::take(&mut self.early).into_iter().partition(|(_, f)| f.session == id);
        self.early = others;
        let own_epoch = session.channel().epoch;
        let fed = VecDeque::into_iter(early).try_for_each(|(epoch, frame)| {
            if epoch == own_epoch { session.channel().insert(frame) } else { Err(HolderError::WrongEpoch(epoch)) }
        });
        self.sessions.insert(id, session);
        if let Err(error) = fed {
            return Err((Some(id), error));
        }
        self.with(id, |open, state| {
            open.advance(state)?;
            Ok(open.is_finished())
        })
    }

    fn tell_peers_to_stop(&mut self, id: SessionId, error: &HolderError) {
        if let Ok(epoch) = self.state.current_epoch() {
            let mut channel = Channel::new(id, epoch, Inbox::new(id));
            let refusal = error.refusal();
            for peer in self.state.party.peers() {
                let _ = channel.send(&mut self.state, STOP, peer, &refusal);
            }
        }
    }

    /// Runs a step of an open session; `Ok(true)` ends it.
    fn with(
        &mut self,
        id: SessionId,
        step: impl FnOnce(&mut Session, &mut State) -> Result<bool, HolderError>,
    ) -> Result<(), (Option<SessionId>, HolderError)> {
        let Some(session) = self.sessions.get_mut(&id) else {
            return Err((Some(id), HolderError::UnknownSession(id)));
        };
        match step(session, &mut self.state) {
            Ok(false) => Ok(()),
            Ok(true) => {
                if let Some(ended) = self.sessions.remove(&id) {
                    match ended {
                        Session::Query(_) => self.spend(id),
                        committed => self.forget_prepared(&committed, id),
                    }
                }
                Ok(())
            }
            Err(error) => Err((Some(id), error)),
        }
    }

    fn erase(&mut self, request: &[u8]) -> Result<(), HolderError> {
        let request = SignedErasure::from_bytes(request)?;
        let (client, collection, subject) = (&request.client, &request.collection, &request.subject);
        let now = self.state.now;
        let registry = &mut self.state.registry;
        request.verify(&registry.client(client)?.key)?;
        // The matcher repeats an erasure until all three holders have acknowledged it.
        let done = registry.collection(collection)?.erased_by(subject, &request.digest());
        if let Some((digest, group)) = done {
            return self.state.tell_matcher(&FromHolder::Erased { digest, group });
        }
        registry.authorise(client, Role::Erase, collection)?;
        let signer = Signer::Client(client.clone());
        registry.check_fresh(&signer, &request.nonce, request.expires, ERASURE_SECONDS, now)?;
        let record = registry.collection_mut(collection)?;
        let (digest, group) = record.erase(collection, subject, request.digest(), request.expires)?;
        registry.use_nonce(signer, request.nonce, request.expires, now);
        registry.drop_empty_group(collection, group)?;
        self.state.packets.forget(&digest);
        let event =
            AuditEvent::Erased { client: client.clone(), collection: collection.clone(), subject: subject.clone() };
        self.state.log(SessionId([0; 32]), event);
        self.state.tell_matcher(&FromHolder::Erased { digest, group })
    }
}
