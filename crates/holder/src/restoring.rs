//! A holder that lost everything, made again by the two others (DESIGN 3.1).
//!
//! Sealed templates open with a holder's own keys alone, so those must be recoverable: at every ceremony a holder splits them
//! by exclusive or with fresh randomness and gives each peer one share, sealed to that peer's key. When it is lost and an
//! administrator of each peer allows it, the peers answer a fresh key of its new machine with their share, the one seed of
//! every epoch that the lost holder had from them or gave them, and the records that all holders have in common.
//!
//! Who sees what: a share alone is uniform, and each peer gives only what the lost holder knew. Two peers together have always
//! been able to restore the third; that is the trust assumption. The restored holder does not know what it contributed to
//! labels, so it builds nothing until a new epoch begins (invariant 3).

use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeMap;
use std::io;

use veilmatch_domain::{Epoch, Party, SessionId, Timestamp};
use veilmatch_mpc::ProtocolError;
use veilmatch_sealed::{ClientSigningKey, HolderPublicKey, KEM_BYTES, SIGNATURE_BYTES, open_once, seal_once};
use veilmatch_secret::{Digest, Label, Secret};
use veilmatch_threshold::KeyShare;
use zeroize::Zeroize;

use crate::audit::AuditEvent;
use crate::error::Speaker;
use crate::holder::{Holder, HolderCard, Outbound, PeerMessage, Reaction, Recipient, Session};
use crate::ledger::Ledger;
use crate::memory::{HolderKeys, RestoreError};
use crate::record::{Key, Record, StoredSeed, encode_secret};
use crate::state::encode;
use crate::{HolderError, HolderSecretKey};

/// Splits of one peer that are kept: a ceremony may fail at the other peer.
const MAX_SPLITS: usize = 4;
/// How long a permission holds, in seconds.
const PERMISSION_SECONDS: u64 = 3600;
/// Identity seed, then the decapsulation key's seed.
const KEYS: usize = 64;

/// One of two shares of a holder's keys; the other makes it whole.
#[derive(BorshSerialize, BorshDeserialize)]
struct Share {
    /// Which split it is of.
    split: [u8; 16],
    share: [u8; KEYS],
}

impl Drop for Share {
    fn drop(&mut self) {
        self.share.zeroize();
    }
}

impl Share {
    fn duplicate(&self) -> Share {
        Share { split: self.split, share: self.share }
    }
}

/// A share on its way to a peer.
#[derive(Clone, BorshSerialize, BorshDeserialize)]
pub(crate) struct SealedShare {
    epoch: Epoch,
    kem: [u8; KEM_BYTES],
    sealed: Vec<u8>,
    signature: [u8; SIGNATURE_BYTES],
}

fn share_context(owner: Party, keeper: Party, epoch: Epoch, kem: &[u8; KEM_BYTES]) -> Label {
    Label::new("veilmatch/escrow/share")
        .number(owner.index() as u64)
        .number(keeper.index() as u64)
        .number(epoch.0.into())
        .bytes(kem)
}

/// What a holder keeps for the loss of a machine.
#[derive(Default)]
pub(crate) struct Escrow {
    shares: BTreeMap<(Party, Epoch), Share>,
    /// The next holder's share of this holder's keys, and the epoch of the split.
    own: Option<(Epoch, Share)>,
    /// Lost holders that may be answered: with which key, until when.
    permissions: BTreeMap<Party, (Digest, Timestamp)>,
}

impl Escrow {
    /// Takes a record back after a restart.
    pub(crate) fn remember(&mut self, key: &Key, value: &[u8]) -> io::Result<()> {
        match key {
            Key::Escrow(party, epoch) => {
                self.shares.insert((*party, *epoch), borsh::from_slice(value)?);
            }
            Key::OwnSplit => self.own = Some(borsh::from_slice(value)?),
            Key::RestorePermission(party) => {
                self.permissions.insert(*party, borsh::from_slice(value)?);
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        Ok(())
    }
}

/// Asks a peer for everything that a lost holder needs.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RestoreRequest {
    /// Who is lost.
    pub party: Party,
    /// A fresh key of its new machine.
    pub key: HolderPublicKey,
}

/// A peer's answer, sealed to the fresh key and signed.
#[derive(BorshSerialize, BorshDeserialize)]
struct RestoreAnswer {
    from: Party,
    kem: [u8; KEM_BYTES],
    sealed: Vec<u8>,
    signature: [u8; SIGNATURE_BYTES],
}

/// What is in it.
#[derive(BorshSerialize, BorshDeserialize)]
struct Contents {
    shares: Vec<(Epoch, Share)>,
    /// Per epoch the one seed that this peer and the lost holder share.
    seeds: Vec<(Epoch, StoredSeed)>,
    current: Option<Epoch>,
    records: Vec<(Vec<u8>, Vec<u8>)>,
    committed: Vec<SessionId>,
    ledger: Ledger,
    /// Of a threshold key (scheme `paillier`): the part that this peer and the lost holder share, with the public key.
    threshold: Option<Vec<u8>>,
}

impl Drop for Contents {
    fn drop(&mut self) {
        self.threshold.zeroize();
        // Records hold check seeds.
        self.records.iter_mut().for_each(|(_, value)| value.zeroize());
    }
}

fn answer_context(request: &RestoreRequest, from: Party, kem: &[u8; KEM_BYTES]) -> Label {
    Label::new("veilmatch/restore/answer")
        .number(request.party.index() as u64)
        .bytes(&request.key.fingerprint().0)
        .number(from.index() as u64)
        .bytes(kem)
}

impl Holder {
    /// Gives each peer its share of this holder's keys. One split per epoch, so that a repetition gives the same.
    pub(crate) fn send_shares(&mut self, epoch: Epoch) -> Result<(), HolderError> {
        let Some(cards) = &self.peers else { return Err(HolderError::NoKeys) };
        if self.escrow.own.as_ref().is_none_or(|(split, _)| *split != epoch) {
            let mut drawn = Share { split: [0; 16], share: [0; KEYS] };
            self.state.entropy.fill_bytes(&mut drawn.split);
            self.state.entropy.fill_bytes(&mut drawn.share);
            self.state.saves.push(Record::put(&Key::OwnSplit, &(epoch, &drawn)));
            self.escrow.own = Some((epoch, drawn));
        }
        let Some((_, for_next)) = &self.escrow.own else { return Ok(()) };
        let mut for_previous = for_next.duplicate();
        let (identity, kem) = (self.state.identity.secret_bytes(), self.state.kem.secret_bytes());
        for (byte, key) in for_previous.share.iter_mut().zip(identity.expose().iter().chain(kem.expose())) {
            *byte ^= key;
        }
        let party = self.state.party;
        for (peer, share) in [(party.next(), for_next), (party.previous(), &for_previous)] {
            let card = cards.get(peer.index()).ok_or(HolderError::NoKeys)?;
            let (kem, secret) = card.encryption.encapsulate(self.state.entropy.as_mut());
            let context = share_context(party, peer, epoch, &kem);
            let sealed = seal_once(secret, &context, encode_secret(share).expose())?;
            let signature = self.state.identity.sign(&context.bytes(&sealed));
            let message = PeerMessage::Escrow(Box::new(SealedShare { epoch, kem, sealed, signature }));
            let bytes = encode(&message, Speaker::Matcher)?;
            self.state.outbox.push(Outbound { to: Recipient::Peer(peer), bytes });
        }
        Ok(())
    }

    /// Keeps a peer's share.
    pub(crate) fn take_share(&mut self, owner: Party, message: &SealedShare) -> Result<(), HolderError> {
        let SealedShare { epoch, kem, sealed, signature } = message;
        let card = self.peers.as_ref().and_then(|p| p.get(owner.index())).ok_or(HolderError::NoKeys)?;
        let context = share_context(owner, self.state.party, *epoch, kem);
        let altered = HolderError::Protocol(ProtocolError::Altered { from: owner });
        card.identity.verify(&context.clone().bytes(sealed), signature).map_err(|_| altered.clone())?;
        let plain = self.state.kem.decapsulate(kem).and_then(|secret| open_once(&secret, &context, sealed));
        let share: Share = plain
            .ok()
            .and_then(|plain| borsh::from_slice(plain.expose()).ok())
            .ok_or(HolderError::Malformed { speaker: Speaker::Peer(owner) })?;
        let of_owner = |escrow: &Escrow| -> Vec<Epoch> {
            escrow.shares.keys().filter(|(party, _)| *party == owner).map(|(_, epoch)| *epoch).collect()
        };
        let kept = of_owner(&self.escrow);
        if kept.len() >= MAX_SPLITS
            && !kept.contains(epoch)
            && let Some(oldest) = kept.first()
        {
            // Older than all that are kept: an old message that was held back.
            if epoch < oldest {
                return Ok(());
            }
            self.escrow.shares.remove(&(owner, *oldest));
            self.state.saves.push(Record::gone(&Key::Escrow(owner, *oldest)));
        }
        self.state.saves.push(Record::put(&Key::Escrow(owner, *epoch), &share));
        self.escrow.shares.insert((owner, *epoch), share);
        Ok(())
    }

    /// An administrator allows a lost holder with this fresh key to be answered.
    pub(crate) fn allow_restore(&mut self, party: Party, fingerprint: Digest) {
        let permission = (fingerprint, Timestamp(self.state.now.0.saturating_add(PERMISSION_SECONDS)));
        self.state.saves.push(Record::put(&Key::RestorePermission(party), &permission));
        self.escrow.permissions.insert(party, permission);
    }

    /// Answers a lost holder. The bytes go to it once the reaction is stored, and not before.
    ///
    /// # Errors
    /// [`HolderError::RestoreNotAllowed`] unless an administrator has allowed exactly this, in the last hour and not used yet.
    pub fn answer_restore(
        &mut self,
        request: &RestoreRequest,
        now: Timestamp,
    ) -> Result<(Vec<u8>, Reaction), HolderError> {
        self.state.now = now;
        let (lost, from) = (request.party, self.state.party);
        let not_allowed = HolderError::RestoreNotAllowed { party: lost };
        let allowed = self
            .escrow
            .permissions
            .get(&lost)
            .is_some_and(|(fingerprint, until)| *fingerprint == request.key.fingerprint() && now <= *until);
        if lost == from || !allowed {
            return Err(not_allowed);
        }
        let contents = self.contents_for(lost);
        let (kem, secret) = request.key.encapsulate(self.state.entropy.as_mut());
        let context = answer_context(request, from, &kem);
        let sealed = seal_once(secret, &context, encode_secret(&contents).expose())?;
        let signature = self.state.identity.sign(&signed_answer(context, &sealed));
        let bytes = encode(&RestoreAnswer { from, kem, sealed, signature }, Speaker::Peer(lost))?;
        self.escrow.permissions.remove(&lost);
        self.state.saves.push(Record::gone(&Key::RestorePermission(lost)));
        self.state.log(SessionId([0; 32]), AuditEvent::RestoreAnswered { party: lost });
        Ok((bytes, self.reaction(None)))
    }

    fn contents_for(&mut self, lost: Party) -> Contents {
        let shares =
            self.escrow.shares.iter().filter(|((owner, _), _)| *owner == lost).map(|((_, e), s)| (*e, s.duplicate()));
        // K_{i−1} has seed i beside its own, K_{i+1} has seed i+1 as its own: the two that K_i had.
        let is_previous = self.state.party == lost.previous();
        let seeds = self.state.epochs.values().map(|keys| {
            let seed = if is_previous { &keys.seeds.next } else { &keys.seeds.own };
            (keys.epoch, StoredSeed(seed.duplicate()))
        });
        let mut records = self.state.registry.export();
        for (id, session) in self.sessions.iter().filter(|(_, session)| session.is_prepared()) {
            records.extend(match session {
                Session::Admission(admission) => Some(admission.prepared(*id)),
                Session::Build(build) => build.prepared(*id),
                Session::Query(_) => None,
            });
        }
        let plain = |record: Record| Some((record.key, std::mem::take(record.value?.expose_mut())));
        Contents {
            shares: shares.collect(),
            seeds: seeds.collect(),
            current: self.state.current,
            records: records.into_iter().filter_map(plain).collect(),
            committed: self.committed.iter().map(|(_, id)| *id).collect(),
            ledger: self.state.ledger.clone(),
            threshold: self.state.paillier.as_ref().and_then(|share| {
                let [own, next] = lost.parts();
                let mut part = share.part(if is_previous { own } else { next }).ok()?;
                Some(std::mem::take(part.expose_mut()))
            }),
        }
    }
}

fn signed_answer(context: Label, sealed: &[u8]) -> Label {
    Label::new("veilmatch/restore/signed").bytes(context.as_bytes()).bytes(sealed)
}

fn open_answer(
    request: &RestoreRequest,
    key: &HolderSecretKey,
    card: &HolderCard,
    bytes: &[u8],
) -> Result<Contents, RestoreError> {
    let failed = RestoreError::Answer { from: card.party };
    let answer: RestoreAnswer = borsh::from_slice(bytes).map_err(|_| failed.clone())?;
    if answer.from != card.party {
        return Err(failed);
    }
    let context = answer_context(request, answer.from, &answer.kem);
    let signed = signed_answer(context.clone(), &answer.sealed);
    card.identity.verify(&signed, &answer.signature).map_err(|_| failed.clone())?;
    let secret = key.decapsulate(&answer.kem).map_err(|_| failed.clone())?;
    let plain = open_once(&secret, &context, &answer.sealed).map_err(|_| failed.clone())?;
    borsh::from_slice(plain.expose()).map_err(|_| failed)
}

/// Makes a lost holder's keys and records from the answers of its peers, next then previous. `cards` are the pinned ones,
/// `key` is the fresh key of the request. Pass the records to [`Holder::restore`] with an empty log.
///
/// # Errors
/// [`RestoreError::Answer`], [`RestoreError::Different`] naming the first kind of record that the peers disagree about,
/// [`RestoreError::NoShares`], [`RestoreError::WrongKeys`].
pub fn combine_restored(
    party: Party,
    cards: &[HolderCard; 3],
    key: &HolderSecretKey,
    answers: [&[u8]; 2],
) -> Result<(HolderKeys, Vec<Record>), RestoreError> {
    let request = RestoreRequest { party, key: key.public_key().clone() };
    let [next, previous] = party.peers();
    let card = |of: Party| cards.get(of.index()).ok_or(RestoreError::Answer { from: of });
    let [of_next, of_previous] = answers;
    let mut a = open_answer(&request, key, card(next)?, of_next)?;
    let mut b = open_answer(&request, key, card(previous)?, of_previous)?;
    let keys = join_shares(&a, &b)?;
    let own = card(party)?;
    if keys.identity.verifying_key() != own.identity || *keys.kem.public_key() != own.encryption {
        return Err(RestoreError::WrongKeys);
    }
    let mut records = Vec::new();
    // Part i comes from K_{i−1}, part i+1 from K_{i+1}.
    let epochs = |of: &Contents| of.seeds.iter().map(|(epoch, _)| *epoch).collect::<Vec<_>>();
    if epochs(&a) != epochs(&b) || a.current != b.current {
        return Err(RestoreError::Different { kind: Key::Epoch(Epoch(0)).kind() });
    }
    for ((epoch, StoredSeed(next)), (_, StoredSeed(own))) in a.seeds.iter().zip(&b.seeds) {
        records.push(Record::put(&Key::Epoch(*epoch), &[own.expose(), next.expose()]));
    }
    if let Some(current) = a.current {
        records.push(Record::put(&Key::Restored, &current));
    }
    for (number, session) in (0u64..).zip(both(&a.committed, &b.committed)) {
        records.push(Record::put(&Key::Committed(number), &session));
    }
    match (&b.threshold, &a.threshold) {
        (Some(own), Some(next)) => {
            let share = KeyShare::join(party, own, next);
            let share = share.map_err(|_| RestoreError::Different { kind: Key::PaillierShare.kind() })?;
            records.push(Record { key: Key::PaillierShare.to_bytes(), value: Some(share.to_bytes()) });
        }
        (None, None) => {}
        _ => return Err(RestoreError::Different { kind: Key::PaillierShare.kind() }),
    }
    let ledger = std::mem::take(&mut a.ledger).strictest(std::mem::take(&mut b.ledger));
    records.push(Record::put(&Key::Ledger, &(None::<(u64, Digest)>, &ledger)));
    records.extend(join_records(&mut a, &mut b)?);
    Ok((keys, records))
}

/// Committed sessions that either peer remembers.
fn both(a: &[SessionId], b: &[SessionId]) -> Vec<SessionId> {
    let mut all: Vec<SessionId> = a.iter().filter(|id| !b.contains(id)).copied().collect();
    all.extend(b);
    all
}

fn join_shares(a: &Contents, b: &Contents) -> Result<HolderKeys, RestoreError> {
    let fitting = a.shares.iter().rev().find_map(|(epoch, ours)| {
        let (_, theirs) = b.shares.iter().find(|(e, s)| e == epoch && s.split == ours.split)?;
        Some((ours, theirs))
    });
    let (ours, theirs) = fitting.ok_or(RestoreError::NoShares)?;
    let mut keys = Secret::new(ours.share);
    keys.expose_mut().iter_mut().zip(&theirs.share).for_each(|(byte, other)| *byte ^= other);
    let ([identity, kem], []) = keys.expose().as_chunks::<32>() else { return Err(RestoreError::WrongKeys) };
    let identity = ClientSigningKey::from_bytes(identity);
    let kem = HolderSecretKey::from_bytes(kem).map_err(|_| RestoreError::WrongKeys)?;
    Ok(HolderKeys { identity, kem })
}

/// What both have must be equal. Nonces, used labels and promises may be known to one of them alone.
fn join_records(a: &mut Contents, b: &mut Contents) -> Result<Vec<Record>, RestoreError> {
    let read = |of: &mut Contents| -> Result<BTreeMap<Key, Vec<u8>>, RestoreError> {
        let records = std::mem::take(&mut of.records);
        let known = |(key, value): (Vec<u8>, Vec<u8>)| Ok((borsh::from_slice(&key)?, value));
        let read: io::Result<_> = records.into_iter().map(known).collect();
        read.map_err(|_| RestoreError::Malformed { kind: "key" })
    };
    let (ours, mut theirs) = (read(a)?, read(b)?);
    let mut joined = Vec::new();
    for (key, value) in ours {
        let other = theirs.remove(&key);
        let value = match (&key, other) {
            (_, Some(other)) if other == value => value,
            (Key::UsedLabel(..), Some(other)) => higher_revision(value, other),
            (_, None) if is_known_to_one(&key) => value,
            _ => return Err(RestoreError::Different { kind: key.kind() }),
        };
        joined.push(Record { key: key.to_bytes(), value: Some(Secret::new(value)) });
    }
    for (key, value) in theirs {
        if !is_known_to_one(&key) {
            return Err(RestoreError::Different { kind: key.kind() });
        }
        joined.push(Record { key: key.to_bytes(), value: Some(Secret::new(value)) });
    }
    Ok(joined)
}

fn is_known_to_one(key: &Key) -> bool {
    matches!(key, Key::Nonce(..) | Key::UsedLabel(..) | Key::PreparedAdmission(_) | Key::PreparedBuild(_))
}

/// Revisions are four little-endian bytes.
fn higher_revision(a: Vec<u8>, b: Vec<u8>) -> Vec<u8> {
    if a.iter().rev().ge(b.iter().rev()) { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;
    use veilmatch_glwe::GLWE_2048_V1;
    use veilmatch_secret::os_entropy;

    /// Three holders that hold ceremonies; what K0's peers keep of it.
    fn shares_of_k0(ceremonies: usize) -> (HolderKeys, [Vec<[u8; KEYS]>; 2]) {
        let mut holders = Party::ALL.map(|party| Holder::with_fresh_keys(party, GLWE_2048_V1, os_entropy()));
        let cards = holders.each_ref().map(Holder::card);
        holders.iter_mut().for_each(|holder| holder.meet(cards.clone()));
        let mut kept = [Vec::new(), Vec::new()];
        for epoch in 0..ceremonies {
            let epoch = Epoch(epoch as u32);
            for from in Party::ALL {
                for Outbound { to, bytes } in holders[from.index()].begin_epoch_at(epoch).unwrap().send {
                    let Recipient::Peer(to) = to else { continue };
                    let heard = holders[to.index()].receive(crate::Sender::Peer(from), &bytes, Timestamp(1));
                    assert_eq!(heard.failure, None);
                }
            }
            for (kept, keeper) in kept.iter_mut().zip(Party::K0.peers()) {
                kept.push(holders[keeper.index()].escrow.shares[&(Party::K0, epoch)].share);
            }
        }
        assert!(holders.iter().all(|h| h.escrow.shares.len() == 2 * MAX_SPLITS.min(ceremonies)));
        let secrets = (holders[0].state.identity.secret_bytes(), holders[0].state.kem.secret_bytes());
        let keys = HolderKeys {
            identity: ClientSigningKey::from_bytes(secrets.0.expose()),
            kem: HolderSecretKey::from_bytes(secrets.1.expose()).unwrap(),
        };
        (keys, kept)
    }

    /// A share by what it protects: alone it says nothing about the keys, however many splits one peer sees; two give them.
    #[test]
    fn one_share_is_uniform_and_two_are_the_keys() {
        let ceremonies = 40;
        let (keys, [next, previous]) = shares_of_k0(ceremonies);
        let secret: Vec<u8> =
            keys.identity.secret_bytes().expose().iter().chain(keys.kem.secret_bytes().expose()).copied().collect();
        let right = |guess: &mut dyn Iterator<Item = u8>| -> u32 {
            guess.zip(&secret).map(|(guess, byte)| (!(guess ^ byte)).count_ones()).sum()
        };
        for (a, b) in next.iter().zip(&previous) {
            assert_eq!(right(&mut a.iter().zip(b).map(|(a, b)| a ^ b)), 8 * KEYS as u32);
        }
        for shares in [&next, &previous] {
            let bits: u32 = shares.iter().map(|share| right(&mut share.iter().copied())).sum();
            let pairs: u32 = shares.windows(2).map(|w| right(&mut w[0].iter().zip(&w[1]).map(|(a, b)| a ^ b))).sum();
            for (hits, trials) in [(bits, ceremonies), (pairs, ceremonies - 1)] {
                let all = (trials * 8 * KEYS) as f64;
                assert!((f64::from(hits) - all / 2.0).abs() < 6.0 * all.sqrt() / 2.0, "{hits} of {all} bits");
            }
        }
    }
}
