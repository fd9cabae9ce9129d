//! Scheme `paillier` at a holder: its part of a group encrypted, its addends of a probe for the two evaluators, and the scores'
//! shares from what is opened under masks (DESIGN 4).
//!
//! A template's durable form is the sealed template, as under `glwe`; the packed ciphertexts are an index that the holders make
//! from their parts of it. Both holders of a part encrypt it, with randomness from the seed that they share, so that copies can be
//! compared as under `glwe`: a holder that encrypts anything else than its part (numbers beyond their slots, say, which would make a
//! later opening exceed its masks) is found out before the matcher stores the group. The matcher adds three parts up and has an
//! encryption of what no holder knows.
//!
//! **From parts to residues.** Sealed parts are modulo 2^48 at the scale 2^18. Each holder rounds its part i to the scale 2^12, which
//! leaves a residue modulo 2^42, of which the last 26 bits count: the sum of three rounded parts is the rounded coordinate up to
//! three errors of half a unit, so the error has standard deviation 1/2 unit at random parts (2^−13 of a coordinate's unit)
//! and is never above 3/2 units. A client that chooses its parts badly on purpose moves a cosine by at most
//! 3/2·2^−12·√d ≤ 0.012 with either side's vector (it must know the other vector's signs for that).
//!
//! Who sees what:
//! - The randomness of an encrypted part is known to the two holders that have the part anyway.
//! - The matcher and its twin get three addends each, one per holder; each sum is uniform modulo 2^26 as long as the other's is not
//!   known, whatever one holder tells: K_i's addends are drawn by K_i, and the parts it does not have are hidden by the others'.
//! - A holder gets, besides ciphertexts, the slots of what is opened: each is hidden by two masks that it does not have
//!   (distance 2^−40, `veilmatch_paillier::Slots`). Masks are encrypted afresh and committed to before any is shown, so that nobody chooses
//!   a mask that takes another's away. What is opened is re-randomised by those encryptions.
//! - What remains at a holder are additive shares of the scores modulo 2^26, for the same decision protocol as under `glwe`.

use std::sync::Arc;

use rayon::prelude::*;
use veilmatch_domain::{CollectionId, Dimension, Party, Policy, SchemeName, SessionId, Threshold};
use veilmatch_glwe::ProbeAddend;
use veilmatch_paillier::{Ciphertext, KeySize, PublicKey, SCALE_BITS, Slots, TORUS_BITS, centred};
use veilmatch_secret::{Entropy, Label, Secret, Seed};
use veilmatch_threshold::KeyShare;

use crate::HolderError;
use crate::audit::AuditEvent;
use crate::holder::{Holder, Reaction};
use crate::record::{Key, Record};

/// Sealed parts are at the scale 2^18.
const DROPPED_BITS: u32 = veilmatch_sealed::COORDINATE_SCALE.trailing_zeros() - SCALE_BITS;
const RESIDUES: u32 = (1 << TORUS_BITS) - 1;

/// The parameter set that a collection of a scheme is described with.
pub(crate) fn parameters_of(scheme: SchemeName, glwe: &'static str, key: Option<KeySize>) -> Option<&'static str> {
    match scheme {
        SchemeName::Glwe => Some(glwe),
        SchemeName::Paillier => key.map(KeySize::parameters),
    }
}

/// A value of a sealed part, rounded to the scale of this scheme: modulo 2^26.
fn rounded(value: u64) -> u32 {
    ((value + (1 << (DROPPED_BITS - 1))) >> DROPPED_BITS) as u32 & RESIDUES
}

/// One member's part, and the slot it goes to.
pub(crate) struct PartInSlot<'a> {
    pub(crate) slot: usize,
    /// Modulo 2^48, one per dimension.
    pub(crate) values: &'a [u64],
}

/// A part of a group: one ciphertext per dimension, one behind the other. On the current rayon pool; constant time in the values.
/// Whoever has the same key, members and seed computes the same bytes. `seed` is used for nothing else.
///
/// # Errors
/// [`HolderError::BadSlots`] if a slot does not exist.
pub(crate) fn encrypt_part(
    key: &PublicKey,
    dimension: Dimension,
    members: &[PartInSlot<'_>],
    seed: &Seed,
) -> Result<Vec<u8>, HolderError> {
    let slots = Slots::new(key.size(), dimension);
    let encrypt = |j: usize| {
        let mut column = Secret::new(vec![0i32; slots.count()]);
        for member in members {
            let place = column.expose_mut().get_mut(member.slot).ok_or(HolderError::BadSlots)?;
            *place = centred(rounded(member.values.get(j).copied().ok_or(HolderError::BadSlots)?));
        }
        let packed = slots.pack(key, column.expose()).map_err(|_| HolderError::BadSlots)?;
        let mut entropy = seed.stream(&Label::new("veilmatch/paillier/part").number(j as u64));
        Ok(key.encrypt(&packed, &mut entropy).map_err(|_| HolderError::BadSlots)?.to_bytes())
    };
    let ciphertexts = (0..dimension.get()).into_par_iter().map(encrypt).collect::<Result<Vec<_>, HolderError>>()?;
    Ok(ciphertexts.concat())
}

/// This holder's addends of a probe: for the matcher, then for its twin. They add up to its part.
pub(crate) fn split_part(part: &[u64], entropy: &mut dyn Entropy) -> [ProbeAddend; 2] {
    let mut first = Secret::new(vec![0u32; part.len()]);
    first.expose_mut().iter_mut().for_each(|share| *share = entropy.next_u32() & RESIDUES);
    let mut second = Secret::new(vec![0u32; part.len()]);
    for ((second, first), &value) in second.expose_mut().iter_mut().zip(first.expose()).zip(part) {
        *second = rounded(value).wrapping_sub(*first) & RESIDUES;
    }
    [ProbeAddend::new(first), ProbeAddend::new(second)]
}

/// A holder's masks of one group's slots, and their encryption.
pub(crate) struct Masked {
    pub(crate) masks: Secret<Vec<u128>>,
    pub(crate) encrypted: Ciphertext,
}

/// Draws masks and encrypts them. `seed` is fresh.
pub(crate) fn mask(key: &PublicKey, slots: Slots, seed: &Seed, group: usize) -> Result<Masked, HolderError> {
    let mut entropy = seed.stream(&Label::new("veilmatch/paillier/masks").number(group as u64));
    let masks = slots.draw_masks(&mut entropy);
    let plaintext = slots.masks(key, &masks).map_err(|_| HolderError::BadSlots)?;
    let encrypted = key.encrypt(&plaintext, &mut entropy).map_err(|_| HolderError::BadSlots)?;
    Ok(Masked { masks, encrypted })
}

/// τ in units of 2^−w of the decision torus: a cosine of 1 is a quarter of it.
fn threshold_units(threshold: Threshold, decision_bits: u32) -> u64 {
    let quarter = f64::from(1u32 << (decision_bits - 2));
    ((threshold.cosine() * quarter).round() as i64).rem_euclid(1 << decision_bits) as u64
}

/// This holder's shares on the decision torus of chosen slots of one group: what was opened less its mask at K_0, less its mask alone
/// at the others; rounded to w bits, the threshold subtracted at K_0.
pub(crate) fn score_shares(
    party: Party,
    decision_bits: u32,
    threshold: Threshold,
    opened: &Secret<Vec<u32>>,
    masks: &Secret<Vec<u128>>,
    slots: &[u32],
) -> Result<Secret<Vec<u64>>, HolderError> {
    let (dropped, torus) = (TORUS_BITS - decision_bits, (1u64 << decision_bits) - 1);
    let at_k0 = party == Party::K0;
    let offset = if at_k0 { threshold_units(threshold, decision_bits) } else { 0 };
    let mut shares = Secret::new(Vec::with_capacity(slots.len()));
    for &slot in slots {
        let value = |of: Option<u32>| of.ok_or(HolderError::BadSlots);
        let opened = value(opened.expose().get(slot as usize).copied())?;
        let mask = value(masks.expose().get(slot as usize).map(|&mask| mask as u32 & RESIDUES))?;
        let share = (if at_k0 { opened } else { 0 }).wrapping_sub(mask) & RESIDUES;
        let rounded = (u64::from(share) + (1 << (dropped - 1))) >> dropped;
        shares.expose_mut().push(rounded.wrapping_sub(offset) & torus);
    }
    Ok(shares)
}

impl Holder {
    /// Whether a policy names the scheme and the model that its collection has, and a scheme that this holder has a key for.
    pub(crate) fn check_scheme(&self, collection: &CollectionId, policy: &Policy) -> Result<(), HolderError> {
        let record = self.state.registry.collection(collection).ok();
        let known = record.and_then(|record| record.policy());
        match known {
            Some(known) if known.model != policy.model && record.is_some_and(|record| !record.is_empty()) => {
                Err(HolderError::ModelStays)
            }
            Some(known) if known.scheme != policy.scheme => Err(HolderError::OtherScheme { expected: known.scheme }),
            _ if policy.scheme == SchemeName::Paillier => self.state.paillier_share().map(drop),
            _ => Ok(()),
        }
    }

    /// Takes this holder's share of a threshold key: collections of the scheme `paillier` can be made from then on.
    ///
    /// # Errors
    /// [`HolderError::OtherShare`] if it is another holder's, or there is one of another key already.
    pub fn install_share(&mut self, share: KeyShare) -> Result<Reaction, HolderError> {
        let known = self.state.paillier.as_ref();
        if share.party() != self.state.party || known.is_some_and(|known| known.key().digest() != share.key().digest())
        {
            return Err(HolderError::OtherShare);
        }
        self.state.saves.push(Record { key: Key::PaillierShare.to_bytes(), value: Some(share.to_bytes()) });
        self.state.log(SessionId([0; 32]), AuditEvent::ShareInstalled { key: share.key().digest() });
        self.state.paillier = Some(Arc::new(share));
        Ok(self.reaction(None))
    }
}
