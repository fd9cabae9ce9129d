//! Scheme `paillier` between the evaluators' ciphertexts and the comparison: masks, the joint decryption, shares (DESIGN 4).
//!
//! 1. The product of both evaluators' ciphertexts is formed per group; every holder draws masks for all slots, encrypts them, and tells its
//!    peers a commitment to the encryptions and a digest of everything that the answer depends on.
//! 2. Once both peers' are here and the digests agree, the encryptions are shown, and what the third holder had committed to. A
//!    commitment that was broken, or told differently to two holders, names who did it.
//! 3. Two holders, chosen by the session's id, decrypt what all masks are added to: one with both its parts of the exponent, one with
//!    the third part; each proves it. The third holder has as much to do as its peers in steps 1 and 4, and less in this one.
//! 4. Everybody checks the proofs, a wrong one names its holder, and is left with shares of the scores.
//!
//! No bit of the decision is opened here: what is decrypted is uniform to everybody up to 2^−40 a slot, whether or not the probe fits, so
//! the norm check may still run.

use std::collections::BTreeMap;
use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use rayon::prelude::*;
use veilmatch_domain::{Dimension, GroupId, Party, SessionId, Suspect, TemplateDigest, Threshold};
use veilmatch_glwe::{Evaluation, FromHolder};
use veilmatch_paillier::{Ciphertext, PaillierError, PartialDecryption, Parts, PublicKey, Slots};
use veilmatch_secret::{Digest, Hasher, Label, Secret, Seed, equal};
use veilmatch_threshold::{KeyShare, ThresholdError, combine};

use super::sharing::Shares;
use super::{PROBE, Phase, Query, SUMS, compare_agreement};
use crate::HolderError;
use crate::error::Speaker;
use crate::paillier::{Masked, mask, score_shares, split_part};
use crate::registry::Scope;
use crate::state::State;
use crate::work::Done;

const MASKS: u32 = PROBE + 4;
const OPENED: u32 = PROBE + 5;

/// Step 1: to both peers.
#[derive(BorshSerialize, BorshDeserialize)]
struct Committed {
    agreement: Digest,
    commitment: Digest,
}

/// Step 2: to both peers.
#[derive(BorshSerialize, BorshDeserialize)]
struct Shown {
    /// One ciphertext per group, one behind the other.
    encrypted: Vec<u8>,
    /// The commitment of the third holder, as the sender received it.
    heard: Digest,
}

/// Products of both evaluators, this holder's masks, and their encryptions.
pub(crate) struct Products {
    sums: Vec<Ciphertext>,
    masked: Vec<Masked>,
    agreement: Digest,
}

/// What is decrypted jointly, and this holder's contribution if it is one of the two.
pub(crate) struct Contributed {
    ciphertexts: Vec<Ciphertext>,
    contribution: Option<PartialDecryption>,
}

/// Where the session stands.
enum Step {
    /// Commitments of the peers are waited for.
    Committed(Vec<Ciphertext>),
    /// Their encrypted masks are.
    Shown { sums: Vec<Ciphertext>, commitments: [Digest; 2] },
    /// The joint decryption's contributions are.
    Contributed(Contributed),
    /// Work is out.
    Computing(u64),
}

/// The phase of a query.
pub(super) struct Opening {
    step: Step,
    masks: Vec<Secret<Vec<u128>>>,
    encrypted: Vec<u8>,
    agreement: Digest,
    /// Contributions of peers that are here.
    heard: BTreeMap<Party, Vec<u8>>,
}

/// Who decrypts: the first with both its parts, the second with the one that the first lacks.
fn decryptors(session: &SessionId) -> [(Party, Parts); 2] {
    let first = Party::from_index(usize::from(session.0[0]));
    [(first, Parts::Both), (first.next(), Parts::One(first.missing_part()))]
}

fn commitment(session: &SessionId, party: Party, encrypted: &[u8]) -> Digest {
    // Encryptions are fresh: the digest hides them.
    let label = Label::new("veilmatch/paillier/masks").bytes(&session.0).number(party.index() as u64);
    label.bytes(encrypted).digest()
}

/// What the proofs of one decryption are bound to.
fn context(session: &SessionId, agreement: &Digest) -> Vec<u8> {
    [b"veilmatch/paillier/query".as_slice(), &session.0, &agreement.0].concat()
}

/// What products and masks are computed from.
pub(super) struct Multiplying {
    key: PublicKey,
    slots: Slots,
    seed: Seed,
    session: SessionId,
    digest: TemplateDigest,
    view: Digest,
    scope: Arc<Scope>,
    groups: Vec<Evaluation>,
}

impl Multiplying {
    fn run(self) -> Result<Products, HolderError> {
        let mut named: BTreeMap<GroupId, &Evaluation> = BTreeMap::new();
        for evaluation in &self.groups {
            if named.insert(evaluation.group, evaluation).is_some() {
                return Err(HolderError::BadSums { what: "a group appears twice" });
            }
        }
        let offset = self.slots.offset(&self.key).map_err(|_| HolderError::BadSlots)?;
        let bad = |_| HolderError::BadSums { what: "not a ciphertext" };
        let product = |(place, served): (usize, &Arc<crate::registry::ServedGroup>)| {
            let group = served.group.group;
            let of = named.get(&group).ok_or(HolderError::GroupLeftOut { group })?;
            let both = [&of.matcher, &of.twin].map(|bytes| self.key.ciphertext(bytes).map_err(bad));
            let [matcher, twin] = both;
            let sum = self.key.add(&matcher?, &twin?).and_then(|sum| self.key.add_plaintext(&sum, &offset));
            Ok((sum.map_err(bad)?, mask(&self.key, self.slots, &self.seed, place)?))
        };
        let all = self.scope.groups.par_iter().enumerate().map(product).collect::<Result<Vec<_>, HolderError>>()?;
        let (sums, masked) = all.into_iter().unzip();
        Ok(Products { sums, masked, agreement: self.agreement() })
    }

    /// H(session ‖ signed request ‖ registry ‖ groups, revisions, both ciphertexts), in the matcher's order.
    fn agreement(&self) -> Digest {
        let mut hasher = Hasher::new("veilmatch/paillier/agreement");
        hasher.field(&self.session.0).field(&self.digest.0).field(&self.view.0).field(&self.key.digest().0);
        for of in &self.groups {
            hasher.number(of.group.0).number(of.revision.0.into()).field(&of.matcher).field(&of.twin);
        }
        hasher.finish()
    }
}

impl Query {
    /// Sends this holder's addends of the probe to the matcher and its twin.
    pub(super) fn share_probe(&mut self, state: &mut State) -> Result<(), HolderError> {
        let session = self.channel.session;
        let opened = self.opened.take().ok_or(HolderError::OutOfTurn(session))?;
        let [first, second] = split_part(opened.own.expose(), state.entropy.as_mut());
        state.tell_matcher(&FromHolder::ProbeShare { session, addend: first })?;
        state.tell_twin(&FromHolder::ProbeShare { session, addend: second })
    }

    /// Takes the evaluators' ciphertexts; once.
    pub(crate) fn evaluations(&mut self, state: &mut State, groups: Vec<Evaluation>) -> Result<(), HolderError> {
        let session = self.channel.session;
        if self.share.is_none() {
            return Err(HolderError::OutOfTurn(session));
        }
        if self.early_evaluations.is_some()
            || matches!(self.phase, Phase::Opening(_) | Phase::Decision(_) | Phase::Finished)
        {
            return Err(HolderError::SessionSpent(session));
        }
        self.early_evaluations = Some(groups);
        self.advance(state)
    }

    fn key_share(&self) -> Result<Arc<KeyShare>, HolderError> {
        self.share.as_ref().map(Arc::clone).ok_or(HolderError::OutOfTurn(self.channel.session))
    }

    /// Checks that the evaluations are of live groups in the scope, and hands out what follows.
    pub(super) fn multiply(&mut self, state: &mut State, groups: Vec<Evaluation>) -> Result<Opening, HolderError> {
        self.check_scope(state)?;
        let named = groups.iter().map(|of| (of.group, of.revision));
        self.check_groups(state, named)?;
        let (key, session) = (self.key_share()?.key().clone(), self.channel.session);
        let multiplying = Multiplying {
            slots: Slots::new(key.size(), self.associated.dimension),
            key,
            seed: Seed::random(state.entropy.as_mut()),
            session,
            digest: self.digest,
            view: self.view,
            scope: Arc::clone(&self.scope),
            groups,
        };
        let ticket = state.hand_out(session, move || Done::Multiplied(multiplying.run().map(Box::new)));
        Ok(Opening {
            step: Step::Computing(ticket),
            masks: Vec::new(),
            encrypted: Vec::new(),
            agreement: Digest([0; 32]),
            heard: BTreeMap::new(),
        })
    }

    /// Products and masks are there: commits to the encryptions.
    pub(super) fn commit_masks(&mut self, state: &mut State, products: Products) -> Result<(), HolderError> {
        self.check_scope(state)?;
        let session = self.channel.session;
        let Phase::Opening(opening) = &mut self.phase else { return Err(HolderError::OutOfTurn(session)) };
        opening.agreement = products.agreement;
        for Masked { masks, encrypted } in products.masked {
            opening.masks.push(masks);
            opening.encrypted.extend(encrypted.to_bytes());
        }
        let commitment = commitment(&session, state.party, &opening.encrypted);
        let committed = Committed { agreement: opening.agreement, commitment };
        opening.step = Step::Committed(products.sums);
        for peer in state.party.peers() {
            self.channel.send(state, SUMS, peer, &committed)?;
        }
        Ok(())
    }

    /// Goes on as far as the peers' messages allow; `false` if something is waited for.
    pub(super) fn advance_opening(&mut self, state: &mut State) -> Result<(), HolderError> {
        let (session, party) = (self.channel.session, state.party);
        let share = self.key_share()?;
        let dimension = self.associated.dimension;
        let Phase::Opening(opening) = &mut self.phase else { return Ok(()) };
        if let Step::Committed(sums) = &mut opening.step {
            let Some([next, previous]) = self.channel.take_both::<Committed>(party, SUMS)? else { return Ok(()) };
            compare_agreement(party, &opening.agreement, &[next.agreement, previous.agreement])?;
            let commitments = [next.commitment, previous.commitment];
            let heard = [previous.commitment, next.commitment];
            opening.step = Step::Shown { sums: std::mem::take(sums), commitments };
            for (peer, heard) in party.peers().into_iter().zip(heard) {
                let shown = Shown { encrypted: opening.encrypted.clone(), heard };
                self.channel.send(state, MASKS, peer, &shown)?;
            }
        }
        if let Step::Shown { sums, commitments } = &mut opening.step {
            let Some(shown) = self.channel.take_both::<Shown>(party, MASKS)? else { return Ok(()) };
            check_shown(&session, party, commitments, &shown)?;
            let [next, previous] = shown.map(|shown| shown.encrypted);
            let decrypting = Decrypting {
                share,
                party,
                session,
                context: context(&session, &opening.agreement),
                sums: std::mem::take(sums),
                encrypted: [(party, opening.encrypted.clone()), (party.next(), next), (party.previous(), previous)],
                seed: Seed::random(state.entropy.as_mut()),
            };
            let ticket = state.hand_out(session, move || Done::Contributed(decrypting.run().map(Box::new)));
            opening.step = Step::Computing(ticket);
            return Ok(());
        }
        if let Step::Contributed(_) = &opening.step {
            let who = decryptors(&session);
            for (peer, _) in who.iter().filter(|(peer, _)| *peer != party) {
                if !opening.heard.contains_key(peer)
                    && let Some(bytes) = self.channel.take(*peer, OPENED)
                {
                    opening.heard.insert(*peer, bytes);
                }
            }
            if who.iter().any(|(peer, _)| *peer != party && !opening.heard.contains_key(peer)) {
                return Ok(());
            }
            let Step::Contributed(contributed) = std::mem::replace(&mut opening.step, Step::Computing(0)) else {
                return Ok(());
            };
            let threshold = self.asked.threshold;
            let combining = Combining {
                key: share.key().clone(),
                dimension,
                party,
                decision_bits: state.parameters.decision_bits,
                threshold,
                context: context(&session, &opening.agreement),
                agreement: opening.agreement,
                who,
                contributed,
                heard: std::mem::take(&mut opening.heard),
                masks: std::mem::take(&mut opening.masks),
                scope: Arc::clone(&self.scope),
            };
            let ticket = state.hand_out(session, move || Done::Shares(combining.run()));
            opening.step = Step::Computing(ticket);
        }
        Ok(())
    }

    /// This holder has contributed to the decryption, or need not.
    pub(super) fn contribute(&mut self, state: &mut State, contributed: Contributed) -> Result<(), HolderError> {
        let session = self.channel.session;
        if let Some(contribution) = &contributed.contribution {
            let bytes = contribution.to_bytes();
            for peer in state.party.peers() {
                self.channel.send_bytes(state, OPENED, peer, &bytes)?;
            }
        }
        let Phase::Opening(opening) = &mut self.phase else { return Err(HolderError::OutOfTurn(session)) };
        opening.step = Step::Contributed(contributed);
        Ok(())
    }
}

impl Opening {
    /// The ticket of the work that is out.
    pub(super) fn computing(&self) -> Option<u64> {
        if let Step::Computing(ticket) = self.step { Some(ticket) } else { None }
    }

    /// Whose message is missing.
    pub(super) fn late(&self, query: &Query, party: Party) -> Vec<Suspect> {
        match &self.step {
            Step::Computing(_) => Vec::new(),
            Step::Committed(_) => query.channel.late_at(party, SUMS),
            Step::Shown { .. } => query.channel.late_at(party, MASKS),
            Step::Contributed(_) => decryptors(&query.channel.session)
                .into_iter()
                .map(|(peer, _)| peer)
                .filter(|peer| *peer != party && !self.heard.contains_key(peer))
                .map(Suspect::Holder)
                .collect(),
        }
    }
}

/// Compares what the peers show with what they committed to.
fn check_shown(
    session: &SessionId,
    party: Party,
    commitments: &[Digest; 2],
    shown: &[Shown; 2],
) -> Result<(), HolderError> {
    let [of_next, of_previous] = commitments;
    let [from_next, from_previous] = shown;
    if from_next.heard != *of_previous || from_previous.heard != *of_next {
        return Err(HolderError::CommitmentsDiffer { suspect: Suspect::pair(party.next(), party.previous()) });
    }
    for ((peer, committed), shown) in party.peers().into_iter().zip(commitments).zip(shown) {
        if !equal(&commitment(session, peer, &shown.encrypted).0, &committed.0) {
            return Err(HolderError::CommitmentBroken { party: peer });
        }
    }
    Ok(())
}

/// What a contribution is computed from.
struct Decrypting {
    share: Arc<KeyShare>,
    party: Party,
    session: SessionId,
    context: Vec<u8>,
    sums: Vec<Ciphertext>,
    /// Encrypted masks by holder.
    encrypted: [(Party, Vec<u8>); 3],
    seed: Seed,
}

impl Decrypting {
    fn run(self) -> Result<Contributed, HolderError> {
        let key = self.share.key();
        let mut ciphertexts = self.sums;
        for (party, bytes) in &self.encrypted {
            let malformed = |_: PaillierError| HolderError::Malformed { speaker: Speaker::Peer(*party) };
            let masks = key.ciphertexts(bytes).map_err(malformed)?;
            if masks.len() != ciphertexts.len() {
                return Err(HolderError::Malformed { speaker: Speaker::Peer(*party) });
            }
            for (sum, mask) in ciphertexts.iter_mut().zip(&masks) {
                *sum = key.add(sum, mask).map_err(malformed)?;
            }
        }
        let own = decryptors(&self.session).into_iter().find(|(party, _)| *party == self.party);
        let contribution = match own {
            Some((_, parts)) => {
                let mut entropy = self.seed.stream(&Label::new("veilmatch/paillier/proof"));
                let contribution = self.share.partial_decrypt(parts, &ciphertexts, &self.context, &mut entropy);
                Some(contribution.map_err(|_| HolderError::OutOfTurn(self.session))?)
            }
            None => None,
        };
        Ok(Contributed { ciphertexts, contribution })
    }
}

/// What shares are computed from.
struct Combining {
    key: PublicKey,
    dimension: Dimension,
    party: Party,
    decision_bits: u32,
    threshold: Threshold,
    context: Vec<u8>,
    agreement: Digest,
    who: [(Party, Parts); 2],
    contributed: Contributed,
    heard: BTreeMap<Party, Vec<u8>>,
    masks: Vec<Secret<Vec<u128>>>,
    scope: Arc<Scope>,
}

impl Combining {
    fn run(self) -> Result<Shares, HolderError> {
        let Contributed { ciphertexts, contribution } = self.contributed;
        let mut contributions: Vec<PartialDecryption> = contribution.into_iter().collect();
        for (party, bytes) in &self.heard {
            let malformed = HolderError::Malformed { speaker: Speaker::Peer(*party) };
            let read =
                PartialDecryption::from_bytes(&self.key, bytes, ciphertexts.len()).map_err(|_| malformed.clone())?;
            if !self.who.contains(&(read.party, read.parts)) || read.party != *party {
                return Err(malformed);
            }
            contributions.push(read);
        }
        let opened = combine(&self.key, &ciphertexts, &contributions, &self.context).map_err(|error| match error {
            ThresholdError::Paillier(PaillierError::Decryption { party, .. }) => HolderError::WrongDecryption { party },
            // Everybody's proof holds: what was decrypted is not an encryption under this key.
            _ => HolderError::BadSums { what: "not an encryption under the collection's key" },
        })?;
        let slots = Slots::new(self.key.size(), self.dimension);
        let mut shares = Secret::new(Vec::with_capacity(self.scope.lanes));
        for ((served, opened), masks) in self.scope.groups.iter().zip(&opened).zip(&self.masks) {
            let opened = slots.open(opened).map_err(|_| HolderError::BadSums { what: "slots that overflow" })?;
            let of_group = score_shares(self.party, self.decision_bits, self.threshold, &opened, masks, &served.slots)?;
            shares.expose_mut().extend_from_slice(of_group.expose());
        }
        Ok(Shares { shares, coarse: None, agreement: self.agreement })
    }
}
