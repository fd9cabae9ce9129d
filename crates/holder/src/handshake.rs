//! The first two steps of every session: agree on the request, commit to randomness, then show it.
//!
//! Step 0: each holder sends a digest of what it was asked and of the registry it sees, a commitment to its
//! contributions, and (to K_{i−1} alone) fresh randomness for part i of the session's secrets. Step 1: only after both
//! commitments have arrived, the contributions, with digests of the parts that the pair shares and the commitment that
//! the third holder sent: whoever commits to different things towards its two peers is found out.
//!
//! Who sees what: contributions to masks become public anyway; contributions to check vectors stay among holders;
//! digests of parts go only to the holder that has the same part. A holder that waits for the others' contributions
//! before it chooses its own breaks its commitment and is named.

use borsh::{BorshDeserialize, BorshSerialize};
use veilmatch_domain::{Party, SessionId, Suspect};
use veilmatch_glwe::MaskSeed;
use veilmatch_mpc::PairwiseSeeds;
use veilmatch_secret::{Digest, Label, Seed, equal};

use crate::HolderError;
use crate::error::Speaker;
use crate::state::{Channel, State};

const HELLO: u32 = 0;
const REVEAL: u32 = 1;

#[derive(BorshSerialize, BorshDeserialize)]
struct Hello {
    request: Digest,
    commitment: Digest,
    fresh: Option<[u8; 32]>,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct Reveal {
    contribution: [u8; 32],
    private: [u8; 32],
    parts: Vec<Digest>,
    /// The commitment of the third holder, as the sender received it.
    heard: Digest,
}

fn commitment(session: &SessionId, party: Party, contribution: &[u8; 32], private: &[u8; 32]) -> Digest {
    Label::new("veilmatch/handshake/commitment")
        .bytes(&session.0)
        .number(party.index() as u64)
        .bytes(contribution)
        .bytes(private)
        .digest()
}

/// What the three holders share after the handshake.
pub(crate) struct Agreed {
    /// This session's seeds: secret of the probe and all masks of the decision.
    pub(crate) seeds: PairwiseSeeds,
    contributions: [[u8; 32]; 3],
    private: [[u8; 32]; 3],
    /// The digests of shared parts as the next and the previous holder see them.
    pub(crate) peer_parts: [Vec<Digest>; 2],
}

impl Agreed {
    /// The mask seed of a label: uniform if one holder is honest.
    pub(crate) fn masks(&self, label: Label) -> MaskSeed {
        MaskSeed(self.contributions.iter().fold(label, |label, c| label.bytes(c)).digest().0)
    }

    /// A seed that the matcher does not know.
    pub(crate) fn check_seed(&self, label: Label) -> Seed {
        Seed::from_bytes(self.private.iter().fold(label, |label, c| label.bytes(c)).digest().0)
    }
}

/// The digests of the parts that this holder shares: with the next holder (part i+1), with the previous (part i).
pub(crate) struct SharedParts {
    pub(crate) with_next: Vec<Digest>,
    pub(crate) with_previous: Vec<Digest>,
}

/// The state machine of the two steps.
pub(crate) struct Handshake {
    request: Digest,
    contribution: [u8; 32],
    private: Seed,
    fresh_own: Seed,
    parts: SharedParts,
    hellos: Option<[Hello; 2]>,
}

impl Handshake {
    /// Sends step 0.
    pub(crate) fn start(
        state: &mut State,
        channel: &mut Channel,
        request: Digest,
        contribution: [u8; 32],
        private: Seed,
        parts: SharedParts,
    ) -> Result<Self, HolderError> {
        let fresh_own = Seed::random(state.entropy.as_mut());
        let commitment = commitment(&channel.session, state.party, &contribution, private.expose());
        for peer in state.party.peers() {
            let fresh = (peer == state.party.previous()).then(|| *fresh_own.expose());
            channel.send(state, HELLO, peer, &Hello { request, commitment, fresh })?;
        }
        Ok(Self { request, contribution, private, fresh_own, parts, hellos: None })
    }

    /// Goes on as far as the messages that have arrived allow.
    pub(crate) fn advance(&mut self, state: &mut State, channel: &mut Channel) -> Result<Option<Agreed>, HolderError> {
        if self.hellos.is_none() {
            let Some([next, previous]) = channel.take_both::<Hello>(state.party, HELLO)? else { return Ok(None) };
            let different: Vec<Suspect> = [(&next, state.party.next()), (&previous, state.party.previous())]
                .into_iter()
                .filter(|(hello, _)| hello.request != self.request)
                .map(|(_, peer)| Suspect::Holder(peer))
                .collect();
            match different.as_slice() {
                [] => {}
                // One peer stands alone: it, or the matcher that asked it for something else.
                [one] => return Err(HolderError::RequestsDiffer { suspects: vec![Suspect::Matcher, *one] }),
                _ => return Err(HolderError::RequestsDiffer { suspects: vec![Suspect::Matcher] }),
            }
            if next.fresh.is_none() {
                return Err(HolderError::Malformed { speaker: Speaker::Peer(state.party.next()) });
            }
            let reveal = |parts: &[Digest], heard: Digest| Reveal {
                contribution: self.contribution,
                private: *self.private.expose(),
                parts: parts.to_vec(),
                heard,
            };
            let to_next = reveal(&self.parts.with_next, previous.commitment);
            let to_previous = reveal(&self.parts.with_previous, next.commitment);
            self.hellos = Some([next, previous]);
            channel.send(state, REVEAL, state.party.next(), &to_next)?;
            channel.send(state, REVEAL, state.party.previous(), &to_previous)?;
        }
        let Some(hellos) = &self.hellos else { return Ok(None) };
        let Some(reveals) = channel.take_both::<Reveal>(state.party, REVEAL)? else { return Ok(None) };
        let mut contributions = [[0u8; 32]; 3];
        let mut private = [[0u8; 32]; 3];
        let own = state.party.index();
        if let (Some(c), Some(p)) = (contributions.get_mut(own), private.get_mut(own)) {
            (*c, *p) = (self.contribution, *self.private.expose());
        }
        let [next, previous] = hellos;
        let [from_next, from_previous] = &reveals;
        if from_next.heard != previous.commitment || from_previous.heard != next.commitment {
            return Err(HolderError::CommitmentsDiffer {
                suspect: Suspect::pair(state.party.next(), state.party.previous()),
            });
        }
        for ((hello, reveal), peer) in hellos.iter().zip(&reveals).zip(state.party.peers()) {
            let shown = commitment(&channel.session, peer, &reveal.contribution, &reveal.private);
            if !equal(&shown.0, &hello.commitment.0) {
                return Err(HolderError::CommitmentBroken { party: peer });
            }
            if let (Some(c), Some(p)) = (contributions.get_mut(peer.index()), private.get_mut(peer.index())) {
                (*c, *p) = (reveal.contribution, reveal.private);
            }
        }
        let fresh_next = next.fresh.ok_or(HolderError::Malformed { speaker: Speaker::Peer(state.party.next()) })?;
        let seeds =
            state.keys(channel.epoch)?.session_seeds(&channel.session, &self.fresh_own, &Seed::from_bytes(fresh_next));
        let peer_parts = reveals.map(|reveal| reveal.parts);
        Ok(Some(Agreed { seeds, contributions, private, peer_parts }))
    }

    /// Compares this holder's digests of shared parts with its peers': for every template the part that differs.
    pub(crate) fn compare_parts(&self, party: Party, agreed: &Agreed) -> Vec<Result<(), HolderError>> {
        let [own, next] = party.parts();
        let [of_next, of_previous] = &agreed.peer_parts;
        (0..self.parts.with_next.len())
            .map(|t| {
                if self.parts.with_next.get(t) != of_next.get(t) {
                    Err(HolderError::CopiesDiffer { part: next })
                } else if self.parts.with_previous.get(t) != of_previous.get(t) {
                    Err(HolderError::CopiesDiffer { part: own })
                } else {
                    Ok(())
                }
            })
            .collect()
    }
}
