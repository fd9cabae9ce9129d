//! Scheme `paillier` at an evaluator, that is, at the matcher and at its twin: packed groups, shares of a probe, multi-exponentiation
//! (DESIGN 4).
//!
//! A group's index is one ciphertext per dimension, X_j = Enc(Σ_t x_{t,j}·2^{w·t}). An evaluator has a share a_j of the probe modulo 2^26
//! and computes ∏_j X_j^{a_j}, times a fresh encryption of zero.
//!
//! Who sees what: an evaluator sees ciphertexts, and a share of the probe that is uniform as long as the other evaluator's is not known to
//! it. The two together know every probe, so they must not collude; neither may use another share than the holders gave it: what
//! it computes is not checked (DESIGN 4; the README says so).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use veilmatch_domain::{CollectionId, Dimension, GroupId, Part, Party, Revision};
use veilmatch_glwe::{CiphertextError, PartPayload, ProbeAddend, body_digest};
use veilmatch_paillier::{
    Ciphertext, PaillierError, PreparedBases, ProbeShare, PublicKey, TORUS_BITS, centred, evaluate_vartime,
};
use veilmatch_secret::{Secret, os_entropy};

use crate::MatcherError;
use crate::search::{Copies, borrowed};

/// Levels of prepared groups: three take a fifth off one level's time, more take nothing off.
const LEVELS: usize = 3;
/// Words of a group's bodies in a ciphertext, which is a list of little-endian bytes.
const WORD: usize = size_of::<u32>();

/// What an evaluator needs to know, and groups that are ready to be evaluated. Clones share them.
#[derive(Clone)]
pub(crate) struct Evaluator {
    key: PublicKey,
    /// Bytes of prepared groups that are kept.
    limit: usize,
    prepared: Arc<Mutex<Prepared>>,
}

type Name = (CollectionId, GroupId);

#[derive(Default)]
struct Prepared {
    groups: BTreeMap<Name, (Revision, Arc<PreparedBases>)>,
    bytes: usize,
}

/// One group, as its index is stored.
pub(crate) struct Packed<'a> {
    pub(crate) collection: &'a CollectionId,
    pub(crate) group: GroupId,
    pub(crate) revision: Revision,
    /// The ciphertexts as words.
    pub(crate) words: &'a [u32],
}

/// Ciphertexts as words of an index.
pub(crate) fn to_words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks::<WORD>().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

pub(crate) fn to_bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Compares the copies of a group's three parts, one ciphertext per dimension each, and adds them up.
///
/// # Errors
/// [`MatcherError::UnexpectedPart`] naming a holder whose part is not that; [`CiphertextError::Disagree`] naming the part whose holders
/// encrypted different things, or one of them another thing than it told.
pub(crate) fn sum_encrypted(key: &PublicKey, dimension: Dimension, copies: &Copies) -> Result<Vec<u32>, MatcherError> {
    let mut sum: Option<Vec<Ciphertext>> = None;
    for (part, copy) in Part::ALL.into_iter().zip(borrowed(copies)) {
        let (Some(PartPayload::Polynomials(bytes)), Some(PartPayload::Digest(digest))) = copy else {
            return Err(CiphertextError::Missing { part }.into());
        };
        // The form first: it is the sender's alone, where a difference is the pair's.
        let [sender, _] = part.holders();
        let unexpected = |_: PaillierError| MatcherError::UnexpectedPart(sender);
        let ciphertexts = key.ciphertexts(bytes).map_err(unexpected)?;
        if ciphertexts.len() != dimension.get() {
            return Err(MatcherError::UnexpectedPart(sender));
        }
        if body_digest(part, bytes) != *digest {
            return Err(CiphertextError::Disagree { part }.into());
        }
        sum = Some(match sum {
            None => ciphertexts,
            Some(sum) => {
                let added = sum.iter().zip(&ciphertexts).map(|(a, b)| key.add(a, b));
                added.collect::<Result<_, _>>().map_err(unexpected)?
            }
        });
    }
    let bytes: Vec<u8> = sum.unwrap_or_default().iter().flat_map(Ciphertext::to_bytes).collect();
    Ok(to_words(&bytes))
}

impl Evaluator {
    /// `limit` bytes of prepared groups are kept; what is beyond is prepared again for every search.
    pub(crate) fn new(key: PublicKey, limit: usize) -> Self {
        Self { key, limit, prepared: Arc::default() }
    }

    pub(crate) fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The dimension of a group with so many words: it has a ciphertext for each.
    pub(crate) fn dimension_of(&self, words: usize) -> usize {
        words * WORD / self.key.size().ciphertext_bytes()
    }

    /// Bytes of groups that are kept ready.
    pub(crate) fn prepared_bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Prepared> {
        // Every change is one assignment or two numbers.
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bases(&self, packed: &Packed<'_>) -> Result<Arc<PreparedBases>, MatcherError> {
        let name = (packed.collection.clone(), packed.group);
        if let Some((revision, bases)) = self.lock().groups.get(&name)
            && *revision == packed.revision
        {
            return Ok(Arc::clone(bases));
        }
        let damaged = |_: PaillierError| MatcherError::GroupDamaged(packed.group);
        let ciphertexts = self.key.ciphertexts(&to_bytes(packed.words)).map_err(damaged)?;
        // More levels than one pay for groups that stay.
        let level = PreparedBases::level_bytes(&self.key, ciphertexts.len());
        let stays = self.lock().bytes + LEVELS * level <= self.limit;
        let memory = if stays { LEVELS * level } else { level };
        let bases = Arc::new(PreparedBases::new(&self.key, &ciphertexts, memory).map_err(damaged)?);
        let mut prepared = self.lock();
        if let Some((_, old)) = prepared.groups.remove(&name) {
            prepared.bytes = prepared.bytes.saturating_sub(old.bytes());
        }
        if prepared.bytes + bases.bytes() <= self.limit {
            prepared.bytes += bases.bytes();
            prepared.groups.insert(name, (packed.revision, Arc::clone(&bases)));
        }
        Ok(bases)
    }

    /// Forgets what was prepared of a collection's groups that are not live any more.
    pub(crate) fn retain(&self, collection: &CollectionId, live: &[(GroupId, Revision)]) {
        let mut prepared = self.lock();
        prepared.groups.retain(|named, (revision, _)| named.0 != *collection || live.contains(&(named.1, *revision)));
        prepared.bytes = prepared.groups.values().map(|(_, bases)| bases.bytes()).sum();
    }

    /// This evaluator's ciphertext of every group, re-randomised. On the current rayon pool.
    ///
    /// # Errors
    /// [`MatcherError::GroupDamaged`], [`MatcherError::MalformedRequest`] if the share does not have a group's dimension.
    pub(crate) fn evaluate(&self, groups: &[Packed<'_>], share: &ProbeShare) -> Result<Vec<Vec<u8>>, MatcherError> {
        use rayon::prelude::*;
        let bases = groups.par_iter().map(|packed| self.bases(packed)).collect::<Result<Vec<_>, _>>()?;
        let bases: Vec<&PreparedBases> = bases.iter().map(AsRef::as_ref).collect();
        let evaluated =
            evaluate_vartime(&bases, share, &mut *os_entropy()).map_err(|_| MatcherError::MalformedRequest)?;
        Ok(evaluated.iter().map(Ciphertext::to_bytes).collect())
    }
}

/// The three holders' addends of a share, as they come.
#[derive(Default)]
pub(crate) struct Addends([Option<ProbeAddend>; 3]);

impl Addends {
    /// Files an addend; once per holder, and of the collection's dimension.
    ///
    /// # Errors
    /// [`MatcherError::UnexpectedPart`].
    pub(crate) fn take(
        &mut self,
        party: Party,
        dimension: Option<Dimension>,
        addend: ProbeAddend,
    ) -> Result<(), MatcherError> {
        let unexpected = MatcherError::UnexpectedPart(party);
        let in_range = addend.expose().iter().fold(true, |all, residue| all & (residue >> TORUS_BITS == 0));
        let fits = dimension.is_none_or(|dimension| addend.expose().len() == dimension.get());
        let place = self.0.get_mut(party.index()).filter(|place| place.is_none() && in_range && fits);
        *place.ok_or(unexpected)? = Some(addend);
        Ok(())
    }

    /// A holder whose addend has another dimension than the groups that it is for: the twin learns of that only from them.
    pub(crate) fn of_another_dimension(&self, dimension: usize) -> Option<Party> {
        let mut places = Party::ALL.into_iter().zip(&self.0);
        places
            .find(|(_, addend)| addend.as_ref().is_some_and(|a| a.expose().len() != dimension))
            .map(|(party, _)| party)
    }

    /// Holders whose addend has not come.
    pub(crate) fn missing(&self) -> Vec<Party> {
        let places = Party::ALL.into_iter().zip(&self.0);
        places.filter(|(_, addend)| addend.is_none()).map(|(party, _)| party).collect()
    }

    /// The share, once all three are here.
    pub(crate) fn share(&self) -> Option<ProbeShare> {
        let [Some(a), Some(b), Some(c)] = &self.0 else { return None };
        let sum = |((a, b), c): ((&u32, &u32), &u32)| centred(a.wrapping_add(*b).wrapping_add(*c));
        let sums = a.expose().iter().zip(b.expose()).zip(c.expose()).map(sum);
        // All room at once: growing would leave copies behind.
        let mut share = Secret::new(Vec::with_capacity(sums.len()));
        share.expose_mut().extend(sums);
        ProbeShare::new(share).ok()
    }
}
