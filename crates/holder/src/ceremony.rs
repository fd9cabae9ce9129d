//! The key ceremony: each holder draws a seed and gives it to the previous one (DESIGN 3.1).
//!
//! A seed is saved before the message that carries it leaves, so that a holder that restarts in the middle goes on with the
//! same one.

use std::collections::BTreeSet;

use veilmatch_domain::{Epoch, Party, SessionId};
use veilmatch_mpc::{PairwiseSeeds, ProtocolError};
use veilmatch_sealed::SIGNATURE_BYTES;
use veilmatch_secret::{Label, Seed, equal};

use crate::HolderError;
use crate::audit::AuditEvent;
use crate::error::Speaker;
use crate::holder::{Holder, Outbound, PeerMessage, Reaction, Recipient};
use crate::keys::EpochKeys;
use crate::record::{Key, Record};
use crate::state::{State, encode};

/// Ceremonies that may be under way.
const MAX_FORMING: usize = 4;

/// A ceremony that is not complete.
#[derive(Default)]
pub(crate) struct Forming {
    /// Drawn here and sent to the previous holder.
    pub(crate) own: Option<Seed>,
    /// From the next holder.
    pub(crate) next: Option<Seed>,
}

fn ceremony_message(party: Party, epoch: Epoch, seed: &[u8; 32]) -> Label {
    Label::new("veilmatch/ceremony").number(party.index() as u64).number(epoch.0.into()).bytes(seed)
}

impl Holder {
    /// The lowest epoch that this holder can begin: above the current one and above every ceremony that it began.
    #[must_use]
    pub fn next_epoch(&self) -> Epoch {
        let begun = self.forming.iter().filter(|(_, f)| f.own.is_some()).map(|(epoch, _)| *epoch).max();
        let highest = self.state.current.max(begun);
        Epoch(highest.map_or(0, |e| e.0.saturating_add(1)))
    }

    /// Begins the ceremony of [`Holder::next_epoch`].
    ///
    /// # Errors
    /// [`HolderError::NoKeys`] if the peers' public keys are not pinned yet.
    pub fn begin_epoch(&mut self) -> Result<Reaction, HolderError> {
        self.begin_epoch_at(self.next_epoch())
    }

    /// Begins a ceremony: draws seed_i of this epoch and sends it to K_{i−1}. A ceremony that failed at some holder is
    /// held again under the highest [`Holder::next_epoch`] of the three.
    ///
    /// # Errors
    /// [`HolderError::NoKeys`] if the peers' public keys are not pinned yet, [`HolderError::WrongEpoch`] if the epoch is
    /// below [`Holder::next_epoch`].
    pub fn begin_epoch_at(&mut self, epoch: Epoch) -> Result<Reaction, HolderError> {
        self.begin(epoch)?;
        Ok(self.reaction(None))
    }

    fn begin(&mut self, epoch: Epoch) -> Result<(), HolderError> {
        if self.peers.is_none() {
            return Err(HolderError::NoKeys);
        }
        if self.state.current.is_some_and(|current| epoch <= current)
            || self.forming.get(&epoch).is_some_and(|f| f.own.is_some())
        {
            return Err(HolderError::WrongEpoch(epoch));
        }
        let seed = Seed::random(self.state.entropy.as_mut());
        self.send_seed(epoch, &seed)?;
        self.state.saves.push(Record::put(&Key::OwnSeed(epoch), seed.expose()));
        self.forming.entry(epoch).or_default().own = Some(seed);
        self.complete_epoch(epoch)
    }

    /// Begins a ceremony; if this holder has begun it before, says the same once more.
    pub(crate) fn begin_or_repeat(&mut self, epoch: Epoch) -> Result<(), HolderError> {
        let forming = self.forming.get(&epoch).and_then(|f| f.own.as_ref());
        let known = forming.or(self.state.epochs.get(&epoch).map(|keys| &keys.seeds.own)).map(Seed::duplicate);
        match known {
            Some(seed) => self.send_seed(epoch, &seed),
            None => self.begin(epoch),
        }
    }

    fn send_seed(&mut self, epoch: Epoch, seed: &Seed) -> Result<(), HolderError> {
        let signature = self.state.identity.sign(&ceremony_message(self.state.party, epoch, seed.expose()));
        let message = PeerMessage::Ceremony { epoch, seed: *seed.expose(), signature };
        let bytes = encode(&message, Speaker::Matcher)?;
        self.state.outbox.push(Outbound { to: Recipient::Peer(self.state.party.previous()), bytes });
        self.send_shares(epoch)
    }

    fn forget_forming(&mut self, epoch: Epoch) {
        self.state.saves.extend([Record::gone(&Key::OwnSeed(epoch)), Record::gone(&Key::PeerSeed(epoch))]);
    }

    fn complete_epoch(&mut self, epoch: Epoch) -> Result<(), HolderError> {
        let complete = self.forming.get(&epoch).is_some_and(|f| f.own.is_some() && f.next.is_some());
        if complete && let Some(Forming { own: Some(own), next: Some(next) }) = self.forming.remove(&epoch) {
            self.state.saves.push(Record::put(&Key::Epoch(epoch), &[own.expose(), next.expose()]));
            self.state.epochs.insert(epoch, EpochKeys { epoch, seeds: PairwiseSeeds { own, next } });
            self.state.current = Some(epoch);
            if self.state.restored.take().is_some() {
                self.state.saves.push(Record::gone(&Key::Restored));
            }
            let later = self.forming.split_off(&epoch);
            for tried in std::mem::replace(&mut self.forming, later).into_keys().chain([epoch]) {
                self.forget_forming(tried);
            }
            self.state.log(SessionId([0; 32]), AuditEvent::Ceremony { epoch });
            self.state.tell_status()?;
        }
        Ok(())
    }

    pub(crate) fn take_seed(
        &mut self,
        party: Party,
        epoch: Epoch,
        seed: [u8; 32],
        signature: &[u8; SIGNATURE_BYTES],
    ) -> Result<(), HolderError> {
        let malformed = HolderError::Malformed { speaker: Speaker::Peer(party) };
        let card = self.peers.as_ref().and_then(|p| p.get(party.index())).ok_or(HolderError::NoKeys)?;
        let seed = Seed::from_bytes(seed);
        card.identity
            .verify(&ceremony_message(party, epoch, seed.expose()), signature)
            .map_err(|_| HolderError::Protocol(ProtocolError::Altered { from: party }))?;
        // So is the seed of an epoch that is complete here already.
        if party == self.state.party.next()
            && self.state.epochs.get(&epoch).is_some_and(|keys| equal(keys.seeds.next.expose(), seed.expose()))
        {
            return Ok(());
        }
        // Any later epoch will do: this holder may have missed a ceremony that the others completed.
        if party != self.state.party.next() || self.state.current.is_some_and(|current| epoch <= current) {
            return Err(malformed);
        }
        if self.forming.len() >= MAX_FORMING && !self.forming.contains_key(&epoch) {
            // One that this holder began stays: its seed must not be drawn again.
            let oldest = self.forming.iter().find(|(_, f)| f.own.is_none()).map(|(epoch, _)| *epoch);
            let oldest = oldest.ok_or(malformed)?;
            self.forming.remove(&oldest);
            self.forget_forming(oldest);
        }
        let forming = self.forming.entry(epoch).or_default();
        if let Some(known) = &forming.next {
            // A holder that restarted, or was asked again, says the same again; another seed is a lie.
            let same = equal(known.expose(), seed.expose());
            return if same { Ok(()) } else { Err(HolderError::Protocol(ProtocolError::Repeated { from: party })) };
        }
        self.state.saves.push(Record::put(&Key::PeerSeed(epoch), seed.expose()));
        forming.next = Some(seed);
        self.complete_epoch(epoch)
    }
}

impl State {
    /// Forgets the seeds of old epochs that no live group needs.
    pub(crate) fn retire_epochs(&mut self) {
        let Some(current) = self.current else { return };
        let needed: BTreeSet<Epoch> =
            self.registry.collections().flat_map(|(_, record)| record.live_groups().map(|g| g.epoch)).collect();
        let kept = |epoch: &Epoch| *epoch == current || needed.contains(epoch);
        let old: Vec<Epoch> = self.epochs.keys().filter(|epoch| !kept(epoch)).copied().collect();
        for epoch in old {
            self.epochs.remove(&epoch);
            self.saves.push(Record::gone(&Key::Epoch(epoch)));
        }
        self.gallery_secrets.retain(|(epoch, _, _), _| kept(epoch));
    }
}
