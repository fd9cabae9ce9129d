//! Partial decryptions as everybody sees them, and the proof that one is right.
//!
//! The secret exponent is d = e_0 + e_1 + e_2, positive or negative integers; v^{e_i} are in the public key. A holder that knows parts i
//! and i+1 contributes c^e with e = e_i, e_{i+1} or e_i + e_{i+1} for every ciphertext c of a batch. The values contributed for all three
//! parts multiply to c^d; squared, that is c^{2d} = 1 + 2mN.
//!
//! **The proof**, one per batch. From a digest of everything come 128-bit ρ_k; with C = (∏ c_k^{ρ_k})² and M = (∏ m_k^{ρ_k})² the holder shows
//! log_v V = log_C M for V = v^e: a_1 = v^r, a_2 = C^r, challenge x of 128 bits from a digest, z = r + x·e over the integers;
//! the verifier checks a_1 = v^z·V^−x and a_2 = C^z·M^−x. The proof is (x, z).
//!
//! **Soundness.** v, V, C, M are squares. The group of squares modulo N² is cyclic of order N·p'·q', whose prime factors are all longer
//! than 1,000 bits. Two answers z, z' to x ≠ x' give v^Δz = V^Δx and C^Δz = M^Δx, where Δx, being shorter than the factors, has an
//! inverse modulo the order: so both logarithms are Δz/Δx, and as v generates the squares this is e. Then ∏ (m_k²/c_k^{2e})^{ρ_k} = 1; if
//! some factor were not 1, at most one value of its ρ_k (of 2^128) would do. So m_k² = c_k^{2e} for every k: a holder can
//! at most choose the sign, of its values or of another square root of 1, and that is gone when the product is squared.
//!
//! **Zero knowledge.** |e| < 2^(|N²|+129); r is uniform in [2^K, 2^(K+1)), K = |N²| + 129 + 256, so z says nothing about e
//! (distance 2^−128).

use std::fmt;

use num_bigint::BigUint;
use veilmatch_domain::{Part, Party};
use veilmatch_kernels::montgomery::{Modular, limbs};
use veilmatch_secret::{Digest, Hasher, Secret};

use crate::ciphertext::check_all;
use crate::exponentiation::{power_of_number_vartime, power_product_vartime};
use crate::integers::{challenge_limbs, challenges};
use crate::{Ciphertext, PaillierError, Plaintext, PublicKey};

/// K less |N²|: bits by which r (and z, with two more) may be longer than N².
pub const RESPONSE_MARGIN_BITS: usize = 129 + 256;
/// The most ciphertexts of a batch.
const MAX_BATCH: usize = 1 << 20;

/// Which parts of the secret exponent a holder contributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parts {
    /// One that it knows.
    One(Part),
    /// Both that it knows.
    Both,
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(part) => part.fmt(f),
            Self::Both => f.write_str("both parts"),
        }
    }
}

impl Parts {
    /// The parts as a set, if the holder knows them.
    ///
    /// # Errors
    /// [`PaillierError::NotItsPart`].
    pub fn of(self, party: Party) -> Result<[bool; 3], PaillierError> {
        let mut set = [false; 3];
        for part in party.parts() {
            let contributed = match self {
                Self::One(one) => one == part,
                Self::Both => true,
            };
            if let Some(place) = set.get_mut(part.index()) {
                *place = contributed;
            }
        }
        if set.contains(&true) { Ok(set) } else { Err(PaillierError::NotItsPart { party, parts: self }) }
    }

    fn code(self) -> u8 {
        match self {
            Self::One(part) => part.index() as u8,
            Self::Both => 3,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            0..=2 => Some(Self::One(Part::from_index(code.into()))),
            3 => Some(Self::Both),
            _ => None,
        }
    }
}

/// A holder's contribution to the decryption of a batch, with its proof. Public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialDecryption {
    /// Who contributes.
    pub party: Party,
    /// Which parts.
    pub parts: Parts,
    /// c^e for every ciphertext of the batch.
    pub values: Vec<Ciphertext>,
    /// x.
    pub challenge: [u64; 2],
    /// z, as many limbs as [`DecryptionStatement::response_limbs`].
    pub response: Vec<u64>,
}

/// What a proof is about: the batch, boiled down to one pair (C, M).
#[derive(Debug)]
pub struct DecryptionStatement<'a> {
    key: &'a PublicKey,
    transcript: Digest,
    verification_key: BigUint,
    base: Vec<u64>,
    power: Vec<u64>,
}

impl<'a> DecryptionStatement<'a> {
    /// From the batch and what was contributed. The context is the caller's: whatever the proof must not be carried away from.
    ///
    /// # Errors
    /// [`PaillierError`] if the lists differ in length, are empty, belong to another key, or the holder does not know the parts.
    pub fn new(
        key: &'a PublicKey,
        (party, parts): (Party, Parts),
        ciphertexts: &[Ciphertext],
        values: &[Ciphertext],
        context: &[u8],
    ) -> Result<Self, PaillierError> {
        let count = ciphertexts.len();
        if values.len() != count || count == 0 || count > MAX_BATCH {
            let expected = count.clamp(1, MAX_BATCH);
            return Err(PaillierError::Count { what: "partial decryptions", found: values.len(), expected });
        }
        check_all(key, ciphertexts)?;
        check_all(key, values)?;
        let verification_key = key.verification_key(party, parts)?;
        let mut hasher = Hasher::new("veilmatch/paillier/decryption");
        hasher.field(context).field(&key.digest().0).number(party.index() as u64).number(parts.code().into());
        hasher.number(count as u64);
        for ciphertext in ciphertexts.iter().chain(values) {
            hasher.field(&ciphertext.to_bytes());
        }
        let transcript = hasher.finish();
        let weights = challenges(&transcript, count);
        let mut work = key.group().workspace();
        let mut base = power_product_vartime(key, &mut work, ciphertexts, &weights);
        let mut power = power_product_vartime(key, &mut work, values, &weights);
        key.group().square_assign(&mut work, &mut base);
        key.group().square_assign(&mut work, &mut power);
        Ok(Self { key, transcript, verification_key, base, power })
    }

    /// C in inner form.
    #[must_use]
    pub fn base(&self) -> &[u64] {
        &self.base
    }

    /// v^r in inner form, for as many limbs as [`DecryptionStatement::response_limbs`]. Constant time.
    #[must_use]
    pub fn verification_power(&self, exponent: &[u64]) -> Vec<u64> {
        let group = self.key.group();
        self.key.verification_table().power(group, &mut group.workspace(), exponent)
    }

    /// The challenge to the commitments v^r and C^r, both in inner form.
    #[must_use]
    pub fn challenge(&self, verification: &[u64], batch: &[u64]) -> [u64; 2] {
        let mut hasher = Hasher::new("veilmatch/paillier/decryption/challenge");
        hasher.field(&self.transcript.0);
        for residue in [verification, batch] {
            hasher.field(&limbs::to_bytes(residue));
        }
        challenge_limbs(challenges(&hasher.finish(), 1).first().copied().unwrap_or(0))
    }

    /// Limbs of z, which is below 2^(|N²| + margin + 2).
    #[must_use]
    pub fn response_limbs(key: &PublicKey) -> usize {
        key.group().limbs() + (RESPONSE_MARGIN_BITS + 2).div_ceil(64)
    }

    fn holds(&self, challenge: [u64; 2], response: &[u64]) -> Result<bool, PaillierError> {
        if response.len() != Self::response_limbs(self.key) {
            return Ok(false);
        }
        let (group, mut work) = (self.key.group(), self.key.group().workspace());
        let v = self.verification_power(response);
        let c = group.power_vartime(&self.base, response);
        let divisors = [
            power_of_number_vartime(self.key, &mut work, &self.verification_key, &challenge),
            group.power_vartime(&self.power, &challenge),
        ];
        let mut commitments = [v, c];
        for (commitment, inverse) in commitments.iter_mut().zip(self.key.inverses(&mut work, &divisors)?) {
            group.multiply_assign(&mut work, commitment, &inverse);
        }
        let [verification, batch] = &commitments;
        Ok(self.challenge(verification, batch) == challenge)
    }
}

impl PartialDecryption {
    /// Checks the proof: that the values are right, up to a square root of 1 which combination removes.
    ///
    /// # Errors
    /// [`PaillierError::Decryption`], naming the holder, if it does not hold for these ciphertexts, key and context; others if the lists
    /// cannot belong together.
    pub fn verify(&self, key: &PublicKey, ciphertexts: &[Ciphertext], context: &[u8]) -> Result<(), PaillierError> {
        let statement = DecryptionStatement::new(key, (self.party, self.parts), ciphertexts, &self.values, context)?;
        if statement.holds(self.challenge, &self.response)? {
            Ok(())
        } else {
            Err(PaillierError::Decryption { party: self.party, parts: self.parts })
        }
    }

    /// The canonical bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.party.index() as u8, self.parts.code()];
        bytes.extend(limbs::to_bytes(&self.challenge));
        bytes.extend(limbs::to_bytes(&self.response));
        for value in &self.values {
            bytes.extend(value.to_bytes());
        }
        bytes
    }

    /// Reads a contribution for a batch of `count`.
    ///
    /// # Errors
    /// [`PaillierError`] on another length, an unknown holder or part, or a value that is out of range or not invertible.
    pub fn from_bytes(key: &PublicKey, bytes: &[u8], count: usize) -> Result<Self, PaillierError> {
        let response_bytes = 8 * DecryptionStatement::response_limbs(key);
        let expected = count.saturating_mul(key.size().ciphertext_bytes()).saturating_add(18 + response_bytes);
        if bytes.len() != expected {
            return Err(PaillierError::Length { what: "partial decryption", found: bytes.len(), expected });
        }
        let malformed = |what| PaillierError::Malformed { what };
        let (head, rest) = bytes.split_at_checked(18).ok_or(malformed("partial decryption"))?;
        let (response, values) = rest.split_at_checked(response_bytes).ok_or(malformed("partial decryption"))?;
        let (&[party, parts], challenge) = head.split_first_chunk().ok_or(malformed("partial decryption"))?;
        let party = Party::ALL.into_iter().find(|p| p.index() == usize::from(party)).ok_or(malformed("party"))?;
        let parts = Parts::from_code(parts).ok_or(malformed("parts"))?;
        parts.of(party)?;
        let challenge = limbs::from_bytes(challenge).try_into().map_err(|_| malformed("challenge"))?;
        Ok(Self { party, parts, values: key.ciphertexts(values)?, challenge, response: limbs::from_bytes(response) })
    }
}

impl PublicKey {
    /// The m of a residue 1 + 2mN modulo N² (canonical), in constant time; nothing if it is not of that form.
    #[must_use]
    pub fn open_square(&self, residue: &[u64]) -> Option<Plaintext> {
        let half = self.size().limbs();
        // 2m = (residue − 1)/N exactly, so modulo 2^|N| it is the product with N^−1.
        let mut numerator = Secret::new(residue.to_vec());
        limbs::subtract_assign(numerator.expose_mut(), &[1]);
        let low = numerator.expose().get(..half)?;
        let mut double = Secret::new(limbs::product(low, self.inverse_of_modulus()));
        double.expose_mut().truncate(half);
        let back = Secret::new(limbs::product(self.modulus_limbs(), double.expose()));
        let differs = back.expose().iter().zip(numerator.expose()).fold(0, |all, (a, b)| all | (a ^ b));
        if back.expose().len() != residue.len() || differs != 0 {
            return None;
        }
        // Half of it: if it is odd, that of it plus N.
        let odd = double.expose().first()? & 1;
        let mut even = double.duplicate();
        let carry = limbs::add_assign(even.expose_mut(), self.modulus_limbs());
        limbs::assign_if(odd, double.expose_mut(), even.expose());
        let mut above = carry & odd;
        for limb in double.expose_mut().iter_mut().rev() {
            (*limb, above) = (*limb >> 1 | above << 63, *limb & 1);
        }
        Plaintext::from_limbs(self, double).ok()
    }
}
