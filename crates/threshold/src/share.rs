//! A holder's share, and what it does with it.

use std::fmt;

use rayon::prelude::*;
use veilmatch_domain::{Part, Party};
use veilmatch_kernels::montgomery::{Modular, limbs};
use veilmatch_paillier::{
    Ciphertext, DecryptionStatement, KeySize, PartialDecryption, Parts, PublicKey, RESPONSE_MARGIN_BITS, random_limbs,
};
use veilmatch_secret::{Entropy, Secret};

use crate::ThresholdError;

/// Bits by which the masks d_0 and d_1 are longer than N².
pub const SHARE_MASK_BITS: usize = 128;

/// Bits of a contributed exponent's magnitude: those of a mask and one more.
#[must_use]
pub const fn share_bits(size: KeySize) -> usize {
    2 * size.bits() + SHARE_MASK_BITS + 1
}

/// Limbs in which magnitudes are kept.
pub(crate) const fn share_limbs(size: KeySize) -> usize {
    share_bits(size).div_ceil(64)
}

/// One holder's two parts of the secret exponent. Redacted, wiped on drop, not `Clone`.
pub struct KeyShare {
    key: PublicKey,
    party: Party,
    /// Magnitudes of parts i and i+1, as many limbs as a contribution; part 2 is negative.
    parts: [Secret<Vec<u64>>; 2],
}

impl fmt::Debug for KeyShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyShare({}, {:?}, redacted)", self.party, self.key)
    }
}

/// Whether part 2 alone or with another is contributed: then the exponent is negative.
fn is_negative(party: Party, parts: Parts) -> bool {
    match parts {
        Parts::One(part) => part.index() == 2,
        Parts::Both => party.parts().iter().any(|part| part.index() == 2),
    }
}

impl KeyShare {
    /// From magnitudes that belong to the key.
    pub(crate) fn from_parts(key: PublicKey, party: Party, parts: [Secret<Vec<u64>>; 2]) -> Self {
        Self { key, party, parts }
    }

    /// Whose share it is.
    #[must_use]
    pub fn party(&self) -> Party {
        self.party
    }

    /// The public key.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// |e| of what is contributed for some parts. d_0 + d_1 for K_0; d_1 + d_2 and d_2 + d_0 are negative, their magnitudes
    /// |d_2| − d_1 and |d_2| − d_0.
    fn exponent(&self, parts: Parts) -> Result<Secret<Vec<u64>>, ThresholdError> {
        parts.of(self.party)?;
        let [own, next] = &self.parts;
        Ok(match (parts, self.party) {
            (Parts::One(part), party) if part == party.parts()[0] => own.duplicate(),
            (Parts::One(_), _) => next.duplicate(),
            (Parts::Both, Party::K0) => {
                let mut sum = own.duplicate();
                limbs::add_assign(sum.expose_mut(), next.expose());
                sum
            }
            (Parts::Both, party) => {
                let (large, small) = if party == Party::K1 { (next, own) } else { (own, next) };
                let mut difference = large.duplicate();
                limbs::subtract_assign(difference.expose_mut(), small.expose());
                difference
            }
        })
    }

    /// Contributes to the decryption of a batch: c^e for every ciphertext, and a proof for all of them. One exponentiation
    /// per ciphertext, whichever parts; on the current rayon pool; constant time in the share.
    ///
    /// A pair of holders decrypts if one contributes [`Parts::Both`] and the other the part that the first one lacks.
    ///
    /// **What must be ensured before**: the opened plaintext hides what it should (masks are fresh, everything is
    /// re-randomised), and policy allows the opening. This room opens whatever it is given.
    ///
    /// # Errors
    /// [`ThresholdError`] on an empty batch, ciphertexts of another key, or parts that this holder does not know.
    pub fn partial_decrypt(
        &self,
        parts: Parts,
        ciphertexts: &[Ciphertext],
        context: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<PartialDecryption, ThresholdError> {
        let (key, bits) = (&self.key, share_bits(self.key.size()));
        let exponent = self.exponent(parts)?;
        let negative = is_negative(self.party, parts);
        let inverted;
        let bases = if negative {
            inverted = key.negate_all(ciphertexts)?;
            inverted.as_slice()
        } else {
            ciphertexts
        };
        let values = bases.par_iter().map(|c| key.power(c, &exponent, bits)).collect::<Result<Vec<_>, _>>()?;

        let statement = DecryptionStatement::new(key, (self.party, parts), ciphertexts, &values, context)?;
        // r, uniform in [2^K, 2^(K+1)), so that z is positive whichever sign e has.
        let size = 2 * key.size().bits() + RESPONSE_MARGIN_BITS;
        let mut response = random_limbs(size, entropy);
        response.expose_mut().resize(DecryptionStatement::response_limbs(key), 0);
        if let Some(limb) = response.expose_mut().get_mut(size / 64) {
            *limb |= 1 << (size % 64);
        }
        let commit = |base: &[u64]| key.group().power(&mut key.group().workspace(), base, response.expose(), size + 1);
        let (verification, batch) =
            rayon::join(|| statement.verification_power(response.expose()), || commit(statement.base()));
        let challenge = statement.challenge(&verification, &batch);
        let product = Secret::new(limbs::product(exponent.expose(), &challenge));
        if negative {
            limbs::subtract_assign(response.expose_mut(), product.expose());
        } else {
            limbs::add_assign(response.expose_mut(), product.expose());
        }
        // z is public from here on.
        Ok(PartialDecryption { party: self.party, parts, values, challenge, response: response.expose().clone() })
    }

    /// Whether both parts are those of the public key.
    fn check(self) -> Result<Self, ThresholdError> {
        let key = &self.key;
        let v = key.ciphertext_from_biguint(&key.elements().verification_base)?;
        for (part, magnitude) in self.party.parts().into_iter().zip(&self.parts) {
            let power = key.power(&v, magnitude, share_bits(key.size()))?;
            let power = if part.index() == 2 { key.negate(&power)? } else { power };
            if Some(&power.to_biguint()) != key.elements().verification_keys.get(part.index()) {
                return Err(ThresholdError::WrongPart { party: self.party, part });
            }
        }
        Ok(self)
    }

    /// The canonical bytes, for an encrypted key file.
    #[must_use]
    pub fn to_bytes(&self) -> Secret<Vec<u8>> {
        let key = self.key.to_bytes();
        let width = 8 * share_limbs(self.key.size());
        // All room at once: growing would leave copies behind.
        let mut bytes = Secret::new(Vec::with_capacity(1 + key.len() + 2 * width));
        bytes.expose_mut().push(self.party.index() as u8);
        bytes.expose_mut().extend_from_slice(&key);
        for part in &self.parts {
            for limb in part.expose() {
                bytes.expose_mut().extend_from_slice(&limb.to_le_bytes());
            }
        }
        bytes
    }

    /// One of the parts, with the public key: what a peer that shares it gives a holder that lost its own.
    ///
    /// # Errors
    /// [`ThresholdError`] if this holder does not know the part.
    pub fn part(&self, part: Part) -> Result<Secret<Vec<u8>>, ThresholdError> {
        Parts::One(part).of(self.party)?;
        let [own, next] = &self.parts;
        let magnitude = if part == self.party.parts()[0] { own } else { next };
        let key = self.key.to_bytes();
        let mut bytes = Secret::new(Vec::with_capacity(key.len() + 8 * magnitude.expose().len()));
        bytes.expose_mut().extend_from_slice(&key);
        for limb in magnitude.expose() {
            bytes.expose_mut().extend_from_slice(&limb.to_le_bytes());
        }
        Ok(bytes)
    }

    /// A lost holder's share from its two parts, i and i+1, as [`KeyShare::part`] gives them; checked against the public key, which
    /// must be the same.
    ///
    /// # Errors
    /// [`ThresholdError`] on malformed bytes, two keys, or a part that does not belong to the key.
    pub fn join(party: Party, own: &[u8], next: &[u8]) -> Result<Self, ThresholdError> {
        let malformed = ThresholdError::Malformed { what: "length" };
        let size = match own.first() {
            Some(0) => KeySize::Bits2048,
            Some(1) => KeySize::Bits3072,
            _ => return Err(ThresholdError::Malformed { what: "size" }),
        };
        let at = own.len().checked_sub(8 * share_limbs(size)).ok_or(malformed.clone())?;
        let (Some((key, _)), Some((other, rest))) = (own.split_at_checked(at), next.split_at_checked(at)) else {
            return Err(malformed);
        };
        if key != other {
            return Err(ThresholdError::Malformed { what: "public key" });
        }
        let mut bytes = Secret::new(Vec::with_capacity(1 + own.len() + rest.len()));
        bytes.expose_mut().push(party.index() as u8);
        bytes.expose_mut().extend_from_slice(own);
        bytes.expose_mut().extend_from_slice(rest);
        Self::from_bytes(bytes.expose())
    }

    /// Reads a share and checks it against the public key in it (two exponentiations).
    ///
    /// # Errors
    /// [`ThresholdError`] on malformed bytes or a part that does not belong to the key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ThresholdError> {
        let malformed = |what| ThresholdError::Malformed { what };
        let (&party, rest) = bytes.split_first().ok_or(malformed("holder"))?;
        let party = Party::ALL.into_iter().find(|p| p.index() == usize::from(party)).ok_or(malformed("holder"))?;
        let size = match rest.first() {
            Some(0) => KeySize::Bits2048,
            Some(1) => KeySize::Bits3072,
            _ => return Err(malformed("size")),
        };
        let width = 8 * share_limbs(size);
        let (key, parts) =
            rest.len().checked_sub(2 * width).and_then(|at| rest.split_at_checked(at)).ok_or(malformed("length"))?;
        let key = PublicKey::from_bytes(key)?;
        let (own, next) = parts.split_at_checked(width).ok_or(malformed("length"))?;
        let read = |bytes: &[u8]| {
            let magnitude = Secret::new(limbs::from_bytes(bytes));
            let above = magnitude.expose().last().map_or(0, |limb| limb >> (share_bits(size) % 64));
            if above == 0 { Ok(magnitude) } else { Err(malformed("part")) }
        };
        Self { parts: [read(own)?, read(next)?], key, party }.check()
    }

    /// The magnitude of one of the parts, 0 for i and 1 for i+1, for tests of its size.
    #[cfg(test)]
    pub(crate) fn magnitude(&self, which: usize) -> &Secret<Vec<u64>> {
        &self.parts[which]
    }

    /// Changes a part, as a cheating holder would.
    #[cfg(test)]
    pub(crate) fn corrupt(&mut self, which: usize) {
        self.parts[which].expose_mut()[0] ^= 1;
    }
}
