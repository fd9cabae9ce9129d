//! Proof that a client knows what it encrypted: one for all coordinates of a template.
//!
//! φ(m, r) = (1+N)^m·H^r is a homomorphism from pairs of integers. For ciphertexts c_j = φ(m_j, r_j) the prover shows a = φ(u, s); the
//! challenges e_j of 128 bits are the answers of a random oracle to (context, key, all c_j, a) and j; it answers z = u + Σ e_j·m_j and
//! t = s + Σ e_j·r_j over the integers; the verifier checks φ(z, t) = a·∏ c_j^{e_j}.
//!
//! **Knowledge.** Whoever answers with more than negligible probability answers, for any j, two challenges that differ in e_j alone
//! (run it again, with another answer of the oracle at j). The two equations give φ(Δz, Δt) = c_j^{Δe} with 0 < |Δe| < 2^128. The
//! prime factors of N are longer, so there are α, β with α·Δe + β·N = 1, and
//! c_j = (c_j^{Δe})^α·(c_j^β)^N = (1+N)^{α·Δz}·(h^{α·Δt}·c_j^β)^N: the extractor knows the plaintext α·Δz mod N and a ρ with
//! c_j = (1+N)^m·ρ^N. Nothing is shown about the size of m; the norm check on shares does that (DESIGN section 4).
//!
//! **Zero knowledge.** |Σ e_j·m_j| < 2^169 and Σ e_j·r_j < 2^(|r|+138) for 1,024 coordinates; u and s are uniform over ranges 2^128 times
//! as large, so z and t are within 2^−127 of the same distribution for all witnesses, and a is what the equation makes it.
//!
//! The context is the caller's: whatever the proof must not be carried away from (client, subject, collection, purpose, nonce).

use veilmatch_kernels::montgomery::{Modular, limbs};
use veilmatch_secret::{Digest, Entropy, Hasher, Secret};

use crate::ciphertext::check_all;
use crate::exponentiation::{Exponent, power_product_vartime};
use crate::integers::{challenge_limbs, challenges, random_limbs};
use crate::{Ciphertext, EncryptedIntegers, PaillierError, PublicKey};

/// The most ciphertexts of one proof.
pub const MAX_PROVEN: usize = 1 << 10;
/// Bits of |Σ e_j·m_j|: 10 for the number, 128 for e, 31 for m.
const SUM_BITS: usize = 10 + 128 + 31;
/// Hiding.
const SLACK_BITS: usize = 128;
/// Limbs of z, which is below 2^(169 + 128 + 1).
const NUMBER_LIMBS: usize = (SUM_BITS + SLACK_BITS + 1).div_ceil(64);
/// Bits that t may have more than r: 10 for the number, 128 for e, and those that hide.
const RANDOMNESS_MARGIN: usize = 10 + 128 + SLACK_BITS;

/// A proof for a list of ciphertexts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnowledgeProof {
    commitment: Ciphertext,
    number: Vec<u64>,
    randomness: Vec<u64>,
}

/// Limbs of t.
fn randomness_limbs(key: &PublicKey) -> usize {
    (key.size().randomness_bits() + RANDOMNESS_MARGIN + 1).div_ceil(64)
}

fn check_count(found: usize) -> Result<(), PaillierError> {
    match found {
        1..=MAX_PROVEN => Ok(()),
        _ => Err(PaillierError::Count { what: "ciphertexts to prove", found, expected: MAX_PROVEN }),
    }
}

fn transcript(key: &PublicKey, ciphertexts: &[Ciphertext], commitment: &Ciphertext, context: &[u8]) -> Digest {
    let mut hasher = Hasher::new("veilmatch/paillier/knowledge");
    hasher.field(context).field(&key.digest().0).number(ciphertexts.len() as u64);
    for ciphertext in ciphertexts.iter().chain([commitment]) {
        hasher.field(&ciphertext.to_bytes());
    }
    hasher.finish()
}

impl KnowledgeProof {
    /// Proves that the caller knows the encrypted numbers. Constant time but for lengths.
    ///
    /// # Errors
    /// [`PaillierError`] on none or more than [`MAX_PROVEN`] ciphertexts, or for another key.
    pub fn prove(
        key: &PublicKey,
        encrypted: &EncryptedIntegers,
        context: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<Self, PaillierError> {
        check_count(encrypted.ciphertexts.len())?;
        check_all(key, &encrypted.ciphertexts)?;
        let witness = &encrypted.witness;

        // At least 2^169, so that no sum of negative numbers brings z below zero.
        let mut z = random_limbs(SUM_BITS + SLACK_BITS, entropy);
        z.expose_mut().resize(NUMBER_LIMBS, 0);
        limbs::add_assign(z.expose_mut(), &[0, 0, 1 << (SUM_BITS - 128)]);
        let mut t = random_limbs(key.size().randomness_bits() + RANDOMNESS_MARGIN, entropy);
        t.expose_mut().resize(randomness_limbs(key), 0);
        let commitment = commit(key, z.expose(), t.expose());

        let challenges =
            challenges(&transcript(key, &encrypted.ciphertexts, &commitment, context), witness.randomness.len());
        let mut negative = Secret::new(vec![0u64; NUMBER_LIMBS]);
        for ((&m, r), &e) in witness.numbers.expose().iter().zip(&witness.randomness).zip(&challenges) {
            let e = challenge_limbs(e);
            let below = (i64::from(m) >> 63) as u64;
            let magnitude = u64::from(m.unsigned_abs());
            let plus = Secret::new(limbs::product(&e, &[magnitude & !below]));
            let minus = Secret::new(limbs::product(&e, &[magnitude & below]));
            limbs::add_assign(z.expose_mut(), plus.expose());
            limbs::add_assign(negative.expose_mut(), minus.expose());
            limbs::add_assign(t.expose_mut(), Secret::new(limbs::product(r.expose(), &e)).expose());
        }
        limbs::subtract_assign(z.expose_mut(), negative.expose());
        // From here on they are public.
        Ok(Self { commitment, number: z.expose().clone(), randomness: t.expose().clone() })
    }

    /// Checks the proof.
    ///
    /// # Errors
    /// [`PaillierError::Knowledge`] if it does not hold for these ciphertexts, this key and this context; others if the lists cannot
    /// belong together.
    pub fn verify(&self, key: &PublicKey, ciphertexts: &[Ciphertext], context: &[u8]) -> Result<(), PaillierError> {
        check_count(ciphertexts.len())?;
        self.commitment.check(key)?;
        let challenges = challenges(&transcript(key, ciphertexts, &self.commitment, context), ciphertexts.len());
        let exponents: Vec<Exponent> = challenges.into_iter().map(Exponent::from).collect();
        let (group, mut work) = (key.group(), key.group().workspace());
        let mut right = power_product_vartime(key, &mut work, ciphertexts, &exponents)?;
        let commitment = self.commitment.to_inner(key, &mut work);
        group.multiply_assign(&mut work, &mut right, &commitment);
        let mut left = group.power_vartime(key.base_power(), &self.randomness);
        let mut number = self.number.clone();
        number.resize(key.size().limbs(), 0);
        group.multiply_one_plus(&mut work, &mut left, &number);
        if left == right { Ok(()) } else { Err(PaillierError::Knowledge) }
    }

    /// Bytes of a proof.
    #[must_use]
    pub fn bytes(key: &PublicKey) -> usize {
        key.size().ciphertext_bytes() + 8 * (NUMBER_LIMBS + randomness_limbs(key))
    }

    /// The canonical bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.commitment.to_bytes();
        bytes.extend(limbs::to_bytes(&self.number));
        bytes.extend(limbs::to_bytes(&self.randomness));
        bytes
    }

    /// Reads a proof.
    ///
    /// # Errors
    /// [`PaillierError`] on another length or a commitment that is no ciphertext.
    pub fn from_bytes(key: &PublicKey, bytes: &[u8]) -> Result<Self, PaillierError> {
        let expected = Self::bytes(key);
        let wrong = PaillierError::Length { what: "proof of knowledge", found: bytes.len(), expected };
        let (commitment, rest) = bytes.split_at_checked(key.size().ciphertext_bytes()).ok_or(wrong.clone())?;
        let (number, randomness) = rest.split_at_checked(8 * NUMBER_LIMBS).ok_or(wrong.clone())?;
        if randomness.len() != 8 * randomness_limbs(key) {
            return Err(wrong);
        }
        Ok(Self {
            commitment: key.ciphertext(commitment)?,
            number: limbs::from_bytes(number),
            randomness: limbs::from_bytes(randomness),
        })
    }
}

/// φ(u, s), in constant time.
fn commit(key: &PublicKey, number: &[u64], randomness: &[u64]) -> Ciphertext {
    let mut work = key.group().workspace();
    let mut power = key.group().power(&mut work, key.base_power(), randomness, 64 * randomness.len());
    let mut wide = Secret::new(vec![0; key.size().limbs()]);
    for (wide, &limb) in wide.expose_mut().iter_mut().zip(number) {
        *wide = limb;
    }
    key.group().multiply_one_plus(&mut work, &mut power, wide.expose());
    Ciphertext::from_inner(key, &mut work, power)
}

#[cfg(test)]
mod tests;
