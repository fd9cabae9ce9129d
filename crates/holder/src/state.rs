//! What all sessions of a holder share: its keys, registry, log and outbox; and a session's channel to its peers.

use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeMap;
use std::sync::Arc;

use veilmatch_domain::{CollectionId, Epoch, Party, SessionId, Suspect, Timestamp};
use veilmatch_glwe::{FromHolder, Parameters};
use veilmatch_kernels::Ring;
use veilmatch_mpc::{Frame, Inbox, Links};
use veilmatch_sealed::{ClientSigningKey, HolderPublicKey};
use veilmatch_secret::Entropy;
use veilmatch_threshold::KeyShare;

use crate::audit::{AuditEntry, AuditEvent, AuditLog};
use crate::error::Speaker;
use crate::holder::{Outbound, PeerMessage, Recipient};
use crate::keys::{EpochKeys, SecretParts};
use crate::ledger::{Asking, Ledger};
use crate::masks::MaskRoom;
use crate::record::{Key, Record};
use crate::registry::Registry;
use crate::run::Circuits;
use crate::unseal::RecentPackets;
use crate::work::{Done, TemplateReader, Work};
use crate::{HolderError, HolderSecretKey};

/// Shared state of a holder.
pub(crate) struct State {
    pub(crate) party: Party,
    pub(crate) parameters: Parameters,
    pub(crate) ring: Arc<Ring>,
    /// How many expanded masks are kept.
    pub(crate) mask_room: Arc<MaskRoom>,
    pub(crate) identity: ClientSigningKey,
    pub(crate) kem: Arc<HolderSecretKey>,
    pub(crate) readers: Option<Arc<[HolderPublicKey; 3]>>,
    /// Packets that were opened not long ago.
    pub(crate) packets: Arc<RecentPackets>,
    pub(crate) epochs: BTreeMap<Epoch, EpochKeys>,
    pub(crate) current: Option<Epoch>,
    /// The epoch that this holder was restored in, until the next one begins.
    pub(crate) restored: Option<Epoch>,
    pub(crate) gallery_secrets: BTreeMap<(Epoch, CollectionId, usize), Arc<SecretParts>>,
    /// This holder's share of the threshold key of the scheme `paillier`.
    pub(crate) paillier: Option<Arc<KeyShare>>,
    pub(crate) registry: Registry,
    pub(crate) audit: AuditLog,
    pub(crate) ledger: Ledger,
    /// Where the log was when the ledger was last saved: its length.
    pub(crate) ledger_saved: u64,
    /// Queries that are under way.
    pub(crate) asking: BTreeMap<SessionId, Asking>,
    /// Circuits that were evaluated lately.
    pub(crate) circuits: Circuits,
    pub(crate) entropy: Box<dyn Entropy>,
    pub(crate) now: Timestamp,
    pub(crate) saves: Vec<Record>,
    pub(crate) logs: Vec<AuditEntry>,
    pub(crate) outbox: Vec<Outbound>,
    pub(crate) work: Vec<Work>,
    /// Number of the next piece of work.
    pub(crate) ticket: u64,
}

impl State {
    pub(crate) fn keys(&self, epoch: Epoch) -> Result<&EpochKeys, HolderError> {
        self.epochs.get(&epoch).ok_or(HolderError::WrongEpoch(epoch))
    }

    pub(crate) fn current_epoch(&self) -> Result<Epoch, HolderError> {
        self.current.ok_or(HolderError::NoKeys)
    }

    /// Writes an entry of the log; the ledger follows it.
    pub(crate) fn log(&mut self, session: SessionId, event: AuditEvent) {
        if self.audit.len() == 0 && self.restored.is_some() && event != AuditEvent::Restored {
            // The log of a lost machine is gone; the new one says so first.
            self.log(SessionId([0; 32]), AuditEvent::Restored);
        }
        let entry = self.audit.append(self.now, session, event);
        self.ledger.apply(&entry);
        self.logs.push(entry);
    }

    /// Saves the ledger, with the place in the log that it has reached.
    pub(crate) fn save_ledger(&mut self) {
        if let Some(head) = self.audit.head() {
            self.saves.push(Record::put(&Key::Ledger, &(Some(head), &self.ledger)));
            self.ledger_saved = self.audit.len();
        }
    }

    /// What reading sealed templates takes.
    pub(crate) fn template_reader(&self) -> Result<TemplateReader, HolderError> {
        Ok(TemplateReader {
            party: self.party,
            kem: Arc::clone(&self.kem),
            readers: Arc::clone(self.readers.as_ref().ok_or(HolderError::NoKeys)?),
            clients: self.registry.clients(),
            packets: Arc::clone(&self.packets),
        })
    }

    /// Hands out work of a session; returns its ticket.
    pub(crate) fn hand_out(&mut self, session: SessionId, job: impl FnOnce() -> Done + Send + 'static) -> u64 {
        let ticket = self.ticket;
        self.ticket += 1;
        self.work.push(Work::new(session, ticket, job));
        ticket
    }

    /// This holder's parts of s_k, expanded once per epoch, collection and body.
    pub(crate) fn gallery_secret(
        &mut self,
        collection: &CollectionId,
        epoch: Epoch,
        body: usize,
    ) -> Result<Arc<SecretParts>, HolderError> {
        let key = (epoch, collection.clone(), body);
        if let Some(parts) = self.gallery_secrets.get(&key) {
            return Ok(Arc::clone(parts));
        }
        let parts = Arc::new(self.keys(epoch)?.gallery_secret(&self.parameters, &self.ring, collection, body));
        self.gallery_secrets.insert(key, Arc::clone(&parts));
        Ok(parts)
    }

    /// This holder's share of the key of the scheme `paillier`.
    pub(crate) fn paillier_share(&self) -> Result<Arc<KeyShare>, HolderError> {
        self.paillier.as_ref().map(Arc::clone).ok_or(HolderError::NoShare)
    }

    pub(crate) fn tell_twin(&mut self, message: &FromHolder) -> Result<(), HolderError> {
        let bytes = encode(message, Speaker::Matcher)?;
        self.outbox.push(Outbound { to: Recipient::Twin, bytes });
        Ok(())
    }

    /// Tells the matcher which epoch is current here.
    pub(crate) fn tell_status(&mut self) -> Result<(), HolderError> {
        self.tell_matcher(&FromHolder::Status { party: self.party, epoch: self.current })
    }

    pub(crate) fn tell_matcher(&mut self, message: &FromHolder) -> Result<(), HolderError> {
        let bytes = encode(message, Speaker::Matcher)?;
        self.outbox.push(Outbound { to: Recipient::Matcher, bytes });
        Ok(())
    }
}

/// Encodes one of our own messages. It can fail only for a list of 2^32 entries; then the speaker asked for it.
pub(crate) fn encode<T: BorshSerialize>(value: &T, asker: Speaker) -> Result<Vec<u8>, HolderError> {
    borsh::to_vec(value).map_err(|_| HolderError::Malformed { speaker: asker })
}

/// One session's frames to and from the two peers.
pub(crate) struct Channel {
    pub(crate) session: SessionId,
    pub(crate) epoch: Epoch,
    inbox: Inbox,
    taken: BTreeMap<(u32, Party), Vec<u8>>,
    /// The step that both peers are waited for at, for naming who is late.
    waiting_step: Option<u32>,
}

impl Channel {
    pub(crate) fn new(session: SessionId, epoch: Epoch, inbox: Inbox) -> Self {
        Self { session, epoch, inbox, taken: BTreeMap::new(), waiting_step: None }
    }

    pub(crate) fn insert(&mut self, frame: Frame) -> Result<(), HolderError> {
        if self.taken.contains_key(&(frame.step, frame.from)) {
            return Err(veilmatch_mpc::ProtocolError::Repeated { from: frame.from }.into());
        }
        Ok(self.inbox.insert(frame)?)
    }

    pub(crate) fn send<T: BorshSerialize>(
        &mut self,
        state: &mut State,
        step: u32,
        to: Party,
        message: &T,
    ) -> Result<(), HolderError> {
        let payload = encode(message, Speaker::Matcher)?;
        self.send_bytes(state, step, to, &payload)
    }

    pub(crate) fn send_bytes(
        &mut self,
        state: &mut State,
        step: u32,
        to: Party,
        payload: &[u8],
    ) -> Result<(), HolderError> {
        let links = Links::new(state.party, &state.keys(self.epoch)?.seeds);
        let frame = links.seal(self.session, step, to, payload);
        let message = PeerMessage::Frame { epoch: self.epoch, frame };
        let bytes = encode(&message, Speaker::Matcher)?;
        state.outbox.push(Outbound { to: Recipient::Peer(to), bytes });
        Ok(())
    }

    /// The messages of both peers at a step, in the order next, previous, once both are here.
    pub(crate) fn take_both<T: BorshDeserialize>(
        &mut self,
        party: Party,
        step: u32,
    ) -> Result<Option<[T; 2]>, HolderError> {
        self.waiting_step = Some(step);
        for peer in party.peers() {
            if !self.taken.contains_key(&(step, peer))
                && let Some(payload) = self.inbox.take(peer, step)
            {
                self.taken.insert((step, peer), payload);
            }
        }
        let [next, previous] = party.peers();
        let (Some(a), Some(b)) = (self.taken.get(&(step, next)), self.taken.get(&(step, previous))) else {
            return Ok(None);
        };
        let decode = |bytes: &[u8], peer| {
            borsh::from_slice(bytes).map_err(|_| HolderError::Malformed { speaker: Speaker::Peer(peer) })
        };
        let both = [decode(a, next)?, decode(b, previous)?];
        // The entries stay as markers, so that a repetition is noticed; their content is dropped.
        self.taken.insert((step, next), Vec::new());
        self.taken.insert((step, previous), Vec::new());
        self.waiting_step = None;
        Ok(Some(both))
    }

    pub(crate) fn take(&mut self, from: Party, step: u32) -> Option<Vec<u8>> {
        self.inbox.take(from, step)
    }

    /// Whose message at the current step has not come.
    pub(crate) fn late(&self, party: Party) -> Vec<Suspect> {
        self.waiting_step.map_or_else(Vec::new, |step| self.late_at(party, step))
    }

    /// Whose message at a step has not come.
    pub(crate) fn late_at(&self, party: Party, step: u32) -> Vec<Suspect> {
        party.peers().into_iter().filter(|&peer| !self.taken.contains_key(&(step, peer))).map(Suspect::Holder).collect()
    }
}
