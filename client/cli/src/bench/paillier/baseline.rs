//! A **reconstruction** of the published approach, to compare with: two servers, one ciphertext per dimension and template, squared
//! distances by secure multiplication or by batch squaring, the minimum by a tournament of secure comparisons. Formulas of SOCI+ and, as far
//! as its text could be read, Pura (arXiv 2505.15476); this is not the authors' code.
//!
//! It is meant to be a strong one: the arithmetic is this repository's, keys have the structure of SOCI+ (a secret exponent of
//! |N| + l + 1 bits, shorter than ours), shares its short form of 128 bits at one server, powers take variable time, and what can be prepared
//! before the query (masks and their encryptions) is not counted. Masks are fresh for every use. It protects nothing here: the
//! primes below are public.
//!
//! Notation of SOCI+: \[x\] encrypts x; L = 2^130; r are masks of 128 bits; S0 has sk1 and the ciphertexts, S1 has sk2.
//! - Multiplication: S0 sends C = (\[x+r1\])^L·\[y+r2\] and C^sk1; S1 opens both, returns \[(x+r1)(y+r2)\]; S0 takes r2·x, r1·y and r1·r2
//!   away.
//! - Batch square: ∏ \[d_i+r_i\]^{L^i} for as many i as fit, one joint decryption; S1 returns \[(d_i+r_i)²\]; S0 takes 2·r_i·d_i + r_i² away.
//! - Comparison: D = \[r3(x−y+1)+r4\] or \[r3(y−x)+r4\] by a coin, r4 just below N/2; S1 opens D and answers an encryption of whether it is
//!   above N/2; S0 undoes the coin.

use std::time::Duration;

use num_bigint::{BigInt, BigUint};
use rayon::prelude::*;
use veilmatch_domain::Embedding;
use veilmatch_paillier::{Ciphertext, KeyElements, KeySize, PaillierError, Plaintext, PublicKey, random_limbs};
use veilmatch_secret::{Entropy, os_entropy};

use crate::bench::stages::cpu_time;

/// p, p', q, q' with P = 2pp'+1 and Q = 2qq'+1 prime: two lines for N of 2,048 bits, two for 3,072.
const PRIMES: &str = include_str!("baseline-primes.txt");
/// Coordinates are multiplied with this and rounded.
const SCALE: f64 = 2048.0;
/// σ: bits of a mask, and of the short share.
const MASK_BITS: usize = 128;
/// L = 2^130: a masked number and a margin.
const STEP_BITS: usize = MASK_BITS + 2;

/// The keys of both servers.
struct Servers {
    key: PublicKey,
    /// sk1 of S0, sk2 of S1.
    shares: [BigInt; 2],
}

/// What was measured and what came out.
pub(super) struct Measured {
    /// CPU time of the distances of one template to the probe, by batch squares, template by template.
    pub(super) batch_square: Vec<Duration>,
    /// Likewise by one secure multiplication per dimension.
    pub(super) multiplication: Vec<Duration>,
    /// CPU time of one comparison with the minimum so far, and of keeping the smaller one and its number.
    pub(super) minimum: Vec<Duration>,
    /// Whether all distances and the nearest template are those of the plaintext.
    pub(super) correct: bool,
}

/// A number with its encryption.
struct Prepared {
    number: BigUint,
    encrypted: Ciphertext,
}

/// Masks of one multiplication, made beforehand: \[r1\], \[r2\] and \[−r1·r2\].
struct Tuple {
    r1: Prepared,
    r2: Prepared,
    product: Ciphertext,
}

fn random(bits: usize) -> BigUint {
    let limbs = random_limbs(bits, os_entropy().as_mut());
    limbs.expose().iter().rev().fold(BigUint::ZERO, |all, &limb| (all << 64u8) + limb)
}

/// Above every number that is masked, so that no sum is negative.
fn mask() -> BigUint {
    random(MASK_BITS) + (BigUint::from(1u8) << 64u8)
}

impl Servers {
    fn new(size: KeySize) -> Result<Self, PaillierError> {
        let bad = PaillierError::Key { why: "the primes of the reconstruction" };
        let offset = match size {
            KeySize::Bits2048 => 0,
            KeySize::Bits3072 => 2,
        };
        let lines = PRIMES.lines().filter(|line| !line.starts_with('#')).skip(offset).take(2);
        let numbers: Vec<BigUint> =
            lines.flat_map(str::split_whitespace).filter_map(|n| BigUint::parse_bytes(n.as_bytes(), 16)).collect();
        let [p, p_rest, q, q_rest] = numbers.try_into().map_err(|_| bad.clone())?;
        let one = BigUint::from(1u8);
        let n = (&p * &p_rest * 2u8 + &one) * (&q * &q_rest * 2u8 + &one);
        let (double_alpha, beta) = (p * q * 2u8, p_rest * q_rest);
        // h = −y^{2β}.
        let base = &n - random(size.bits() - 1).modpow(&(beta * 2u8), &n);
        let square = &n * &n;
        let key = PublicKey::new(KeyElements {
            size,
            base_power: base.modpow(&n, &square),
            base,
            // Nothing is proven here.
            verification_base: BigUint::from(4u8),
            verification_keys: [one.clone(), one.clone(), one],
            modulus: n.clone(),
        })?;
        let secret = double_alpha.modinv(&n).ok_or(bad)? * double_alpha;
        let first = random(MASK_BITS);
        Ok(Self { shares: [BigInt::from(first.clone()), BigInt::from(secret) - BigInt::from(first)], key })
    }

    fn encrypt(&self, number: &BigInt, entropy: &mut dyn Entropy) -> Result<Ciphertext, PaillierError> {
        self.key.encrypt(&Plaintext::from_public_vartime(&self.key, number), entropy)
    }

    fn fresh(&self, number: BigInt) -> Result<Ciphertext, PaillierError> {
        self.encrypt(&number, os_entropy().as_mut())
    }

    fn prepare(&self) -> Result<Prepared, PaillierError> {
        let number = mask();
        Ok(Prepared { encrypted: self.fresh(number.clone().into())?, number })
    }

    fn tuple(&self) -> Result<Tuple, PaillierError> {
        let (r1, r2) = (self.prepare()?, self.prepare()?);
        let product = self.fresh(-BigInt::from(&r1.number * &r2.number))?;
        Ok(Tuple { r1, r2, product })
    }

    fn tuples(&self, count: usize) -> Result<Vec<Tuple>, PaillierError> {
        (0..count).into_par_iter().map(|_| self.tuple()).collect()
    }

    /// Joint decryption: the partial decryptions of both servers, multiplied up.
    fn open(&self, c: &Ciphertext) -> Result<BigUint, PaillierError> {
        let [first, second] = &self.shares;
        let product = self.key.add(&self.key.multiply_vartime(c, first)?, &self.key.multiply_vartime(c, second)?)?;
        Ok((product.to_biguint() - 1u8) / self.key.modulus())
    }

    /// c^L, by squarings alone.
    fn step(&self, c: &Ciphertext) -> Result<Ciphertext, PaillierError> {
        let part = |c: &Ciphertext, bits: usize| self.key.multiply_vartime(c, &(BigInt::from(1) << bits));
        part(&part(&part(c, 60)?, 60)?, STEP_BITS - 120)
    }

    /// \[x·y\] for |x|, |y| < 2^64.
    fn multiply(&self, x: &Ciphertext, y: &Ciphertext, tuple: &Tuple) -> Result<Ciphertext, PaillierError> {
        let key = &self.key;
        let (masked_x, masked_y) = (key.add(x, &tuple.r1.encrypted)?, key.add(y, &tuple.r2.encrypted)?);
        // S1.
        let opened = self.open(&key.add(&self.step(&masked_x)?, &masked_y)?)?;
        let low = &opened % (BigUint::from(1u8) << STEP_BITS);
        let product = self.fresh(BigInt::from((opened >> STEP_BITS) * low))?;
        // S0.
        let away = key.add(
            &key.multiply_vartime(x, &tuple.r2.number.clone().into())?,
            &key.multiply_vartime(y, &tuple.r1.number.clone().into())?,
        )?;
        key.add(&key.add(&product, &key.negate(&away)?)?, &tuple.product)
    }

    /// Σ d_i², by batches; `negated` encrypts −d_i.
    fn batch_square(
        &self,
        differences: &[Ciphertext],
        negated: &[Ciphertext],
        masks: &[(Prepared, Ciphertext)],
    ) -> Result<Ciphertext, PaillierError> {
        let key = &self.key;
        let batch = (key.size().bits() - 1) / STEP_BITS;
        let all: Vec<_> = differences.iter().zip(negated).zip(masks).collect();
        let sums = all.par_chunks(batch).map(|batch| {
            let mut packed: Option<Ciphertext> = None;
            for ((difference, _), (mask, _)) in batch.iter().rev() {
                let masked = key.add(difference, &mask.encrypted)?;
                packed = Some(match packed {
                    None => masked,
                    Some(packed) => key.add(&self.step(&packed)?, &masked)?,
                });
            }
            let mut sum: Option<Ciphertext> = None;
            if let Some(packed) = packed {
                // S1.
                let mut opened = self.open(&packed)?;
                for ((_, negated), (mask, square)) in batch {
                    let digit = &opened % (BigUint::from(1u8) << STEP_BITS);
                    opened >>= STEP_BITS;
                    let squared = self.fresh(BigInt::from(&digit * &digit))?;
                    // S0.
                    let away = key.multiply_vartime(negated, &BigInt::from(&mask.number * 2u8))?;
                    let term = key.add(&key.add(&squared, &away)?, square)?;
                    sum = Some(match sum {
                        None => term,
                        Some(sum) => key.add(&sum, &term)?,
                    });
                }
            }
            sum.ok_or(PaillierError::Malformed { what: "batch" })
        });
        self.total(sums.collect::<Result<_, _>>()?)
    }

    fn total(&self, terms: Vec<Ciphertext>) -> Result<Ciphertext, PaillierError> {
        let mut terms = terms.into_iter();
        let first = terms.next().ok_or(PaillierError::Malformed { what: "distance" })?;
        terms.try_fold(first, |sum, term| self.key.add(&sum, &term))
    }

    /// \[1\] if x < y, else \[0\]; re-randomised by S1's encryption.
    fn less(&self, x: &Ciphertext, y: &Ciphertext) -> Result<Ciphertext, PaillierError> {
        let key = &self.key;
        let half = BigInt::from(key.modulus() / 2u8);
        let factor = BigInt::from(mask());
        let below = half.clone() - BigInt::from(random(64));
        let coin = random(1) == BigUint::ZERO;
        let difference = if coin { key.add(x, &key.negate(y)?)? } else { key.add(y, &key.negate(x)?)? };
        let added = if coin { &factor + below } else { below };
        let blinded = key.add(&key.multiply_vartime(&difference, &factor)?, &self.fresh(added)?)?;
        // S1: above N/2 means x ≥ y with the coin, y > x without.
        let above = BigInt::from(self.open(&blinded)?) > half;
        let answer = self.fresh(BigInt::from(u8::from(!above)))?;
        if coin { Ok(answer) } else { key.add(&key.negate(&answer)?, &self.fresh(BigInt::from(1))?) }
    }

    /// y + u·(x − y).
    fn choose(&self, bit: &Ciphertext, [x, y]: [&Ciphertext; 2], tuple: &Tuple) -> Result<Ciphertext, PaillierError> {
        let difference = self.key.add(x, &self.key.negate(y)?)?;
        self.key.add(y, &self.multiply(bit, &difference, tuple)?)
    }
}

fn quantised(vector: &Embedding) -> Vec<i64> {
    vector.values().iter().map(|v| (f64::from(*v) * SCALE).round() as i64).collect()
}

/// Runs both ways of computing distances, and the tournament, on the current rayon pool.
///
/// # Errors
/// [`PaillierError`] if a number does not fit, which the code above rules out.
pub(super) fn measure(
    size: KeySize,
    templates: &[&Embedding],
    probe: &Embedding,
    step: &mut dyn FnMut(),
) -> Result<Measured, PaillierError> {
    let servers = Servers::new(size)?;
    let key = &servers.key;
    let encrypt = |numbers: &[i64]| -> Result<Vec<Ciphertext>, PaillierError> {
        numbers.par_iter().map(|&n| servers.fresh(n.into())).collect()
    };
    let probe_numbers = quantised(probe);
    // The client may send both signs; templates are negated when they are enrolled.
    let probe = encrypt(&probe_numbers)?;
    let minus_probe = key.negate_all(&probe)?;
    let mut measured =
        Measured { batch_square: Vec::new(), multiplication: Vec::new(), minimum: Vec::new(), correct: true };
    let (mut best, mut expected): (Option<(Ciphertext, Ciphertext)>, Vec<i64>) = (None, Vec::new());
    for (index, template) in templates.iter().enumerate() {
        let numbers = quantised(template);
        let distance: i64 = numbers.iter().zip(&probe_numbers).map(|(a, b)| (a - b).pow(2)).sum();
        expected.push(distance);
        let template = encrypt(&numbers)?;
        let minus_template = key.negate_all(&template)?;
        let masks = (0..numbers.len()).into_par_iter().map(|_| {
            let mask = servers.prepare()?;
            let square = servers.fresh(-BigInt::from(&mask.number * &mask.number))?;
            Ok::<_, PaillierError>((mask, square))
        });
        let masks = masks.collect::<Result<Vec<_>, _>>()?;
        let tuples = servers.tuples(numbers.len())?;

        let begun = cpu_time();
        let sums = |a: &[Ciphertext], b: &[Ciphertext]| -> Result<Vec<Ciphertext>, PaillierError> {
            a.par_iter().zip(b).map(|(a, b)| key.add(a, b)).collect()
        };
        let differences = sums(&template, &minus_probe)?;
        let negated = sums(&minus_template, &probe)?;
        let squared = servers.batch_square(&differences, &negated, &masks)?;
        measured.batch_square.push(cpu_time().saturating_sub(begun));

        let begun = cpu_time();
        let differences = sums(&template, &minus_probe)?;
        let squares = differences.par_iter().zip(&tuples).map(|(d, tuple)| servers.multiply(d, d, tuple));
        let multiplied = servers.total(squares.collect::<Result<_, _>>()?)?;
        measured.multiplication.push(cpu_time().saturating_sub(begun));
        for found in [&squared, &multiplied] {
            measured.correct &= servers.open(found)? == BigUint::from(distance.unsigned_abs());
        }

        let number = servers.fresh(BigInt::from(index))?;
        best = Some(match best {
            None => (squared, number),
            Some((nearest, which)) => {
                let pair = servers.tuples(2)?;
                let begun = cpu_time();
                let less = servers.less(&squared, &nearest)?;
                let nearest = servers.choose(&less, [&squared, &nearest], &pair[0])?;
                let which = servers.choose(&less, [&number, &which], &pair[1])?;
                measured.minimum.push(cpu_time().saturating_sub(begun));
                (nearest, which)
            }
        });
        step();
    }
    let least = expected.iter().min().copied().unwrap_or_default();
    if let Some((nearest, which)) = best {
        let which = usize::try_from(servers.open(&which)?).ok().and_then(|which| expected.get(which));
        measured.correct &= servers.open(&nearest)? == BigUint::from(least.unsigned_abs()) && which == Some(&least);
    }
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;
    use veilmatch_domain::Dimension;

    #[test]
    fn distances_and_the_minimum_are_those_of_the_plaintext() {
        let people = crate::synthetic::people(4, 1, Dimension::new(16).unwrap(), 3).unwrap();
        let templates: Vec<&Embedding> = people.iter().flatten().collect();
        for size in KeySize::ALL {
            let measured = measure(size, &templates[1..], templates[0], &mut || {}).unwrap();
            assert!(measured.correct);
            assert_eq!((measured.batch_square.len(), measured.minimum.len()), (3, 2));
        }
    }

    #[test]
    fn comparisons_hold_at_the_edges_and_never_answer_the_same_bytes() {
        let servers = Servers::new(KeySize::Bits2048).unwrap();
        let mut seen = std::collections::HashSet::new();
        for (x, y) in [(0, 0), (0, 1), (1, 0), (1 << 40, (1 << 40) - 1), (5, 1 << 40)] {
            for _ in 0..4 {
                let [a, b] = [x, y].map(|n: i64| servers.fresh(n.into()).unwrap());
                let less = servers.less(&a, &b).unwrap();
                assert_eq!(servers.open(&less).unwrap(), BigUint::from(u8::from(x < y)), "{x} {y}");
                assert!(seen.insert(less.to_bytes()));
            }
        }
    }
}
