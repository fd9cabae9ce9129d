//! The plaintext scheme: the same arithmetic in the clear. It passes the suite without noise, which tests the suite.

use std::ops::Range;

use rand_core::Rng;
use veilmatch_domain::{Dimension, Embedding, Threshold};

use crate::scheme::{Scheme, ScoreShares};
use crate::vectors::rng;

const BITS: u32 = 16;
/// The cosine 1 in units of 2^−w: a quarter of the torus, as in `glwe`.
const UNIT: f64 = (1u32 << (BITS - 2)) as f64;

/// Templates and probes in the clear; scores split into three random shares.
#[derive(Debug)]
pub struct Plaintext {
    templates: Vec<Vec<f32>>,
    random: chacha20::ChaCha20Rng,
}

impl Plaintext {
    /// Shares are drawn from a fixed seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { templates: Vec::new(), random: rng(seed) }
    }
}

fn decode(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

impl Scheme for Plaintext {
    fn name(&self) -> &'static str {
        "plaintext"
    }

    fn decision_bits(&self) -> u32 {
        BITS
    }

    fn generate_keys(&mut self, _: Dimension) {
        self.templates.clear();
    }

    fn encrypt_template(&mut self, template: &Embedding) -> Vec<u8> {
        template.values().iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn encrypt_probe(&mut self, probe: &Embedding) -> Vec<u8> {
        self.encrypt_template(probe)
    }

    fn index(&mut self, groups: &[Vec<Vec<u8>>]) {
        self.templates.extend(groups.iter().flatten().map(|bytes| decode(bytes)));
    }

    fn score_shares(&mut self, probe: &[u8], threshold: Threshold) -> ScoreShares {
        let probe = decode(probe);
        let scores = self.scores(&probe, 0..probe.len());
        self.split(&scores, threshold)
    }

    fn stage_shares(
        &mut self,
        probe: &[u8],
        dimensions: usize,
        coarse: Threshold,
        threshold: Threshold,
    ) -> Option<[ScoreShares; 2]> {
        let probe = decode(probe);
        let first = self.scores(&probe, 0..dimensions);
        let rest = self.scores(&probe, dimensions..probe.len());
        let whole: Vec<f64> = first.iter().zip(&rest).map(|(a, b)| a + b).collect();
        Some([self.split(&first, coarse), self.split(&whole, threshold)])
    }

    fn noise(&self) -> f64 {
        // Two roundings, uniform in ±1/2.
        (2.0 / 12.0f64).sqrt() / UNIT
    }
}

impl Plaintext {
    /// Inner products in these dimensions.
    fn scores(&self, probe: &[f32], dimensions: Range<usize>) -> Vec<f64> {
        let of = |template: &Vec<f32>| {
            let pairs = template.iter().zip(probe).take(dimensions.end).skip(dimensions.start);
            pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
        };
        self.templates.iter().map(of).collect()
    }

    fn split(&mut self, scores: &[f64], threshold: Threshold) -> ScoreShares {
        let modulus = 1u64 << BITS;
        let mut shares: ScoreShares = [Vec::new(), Vec::new(), Vec::new()];
        for cosine in scores {
            let value = ((cosine * UNIT).round() - (threshold.cosine() * UNIT).round()) as i64;
            let (a, b) = (self.random.next_u64() % modulus, self.random.next_u64() % modulus);
            let c = (value.rem_euclid(modulus as i64) as u64).wrapping_sub(a).wrapping_sub(b) % modulus;
            for (share, part) in shares.iter_mut().zip([a, b, c]) {
                share.push(part);
            }
        }
        shares
    }
}
