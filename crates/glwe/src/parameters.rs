//! Named, versioned parameter sets (DESIGN 3.6).
//!
//! `glwe-2048-v1`: N = 2048, q = 2147389441 = the largest prime below 2^31 with q ≡ 1 mod 4096 that the
//! feasibility study used (524265 · 4096 + 1), errors centred binomial with η = 4 per part (variance η/2 = 2,
//! |e| ≤ 4), secrets uniform ternary per part. With one part unknown the concrete security is in
//! `docs/security-estimate.md`; it is recomputed there with the script beside it.
//!
//! Scales. A coordinate x in \[−1, 1\] is sealed as round(S_c·x), S_c = 2^18, modulo 2^48. Recrypt multiplies by an
//! integer F modulo 2^48 and scales 2^48 to q, so that a gallery coordinate becomes S_x·x and a probe coordinate
//! S_p·x modulo q, with S_u = F_u·S_c·q/2^48. The score then has scale S = S_x·S_p, and S ≤ q/4 keeps S·(cos − τ)
//! from wrapping for |τ| ≤ 0.9 and vectors whose squared norm is within 1 % of one. The noise is smallest at
//! S_p = S_x·√(N/β). F_x is rounded down first and F_p is chosen afterwards to hit the same S for every β (within
//! 4·10⁻⁵), so that scores of groups with different layouts can be compared with each other.

use std::sync::OnceLock;

use veilmatch_domain::Threshold;
use veilmatch_kernels::{Ring, round_to_power_of_two};
use veilmatch_sealed::COORDINATE_SCALE;

use crate::Layout;

/// What a sealed template is turned into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedUse {
    /// A member of a packed group, scale S_x.
    Gallery,
    /// A probe, scale S_p.
    Probe,
}

/// A parameter set. Build the ring once with [`Parameters::ring`] and pass it along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Name and version; part of every label.
    pub name: &'static str,
    /// N, the ring degree.
    pub degree: usize,
    /// q, the scan modulus.
    pub modulus: u32,
    /// η of the centred binomial error of one part: variance η/2, magnitude at most η.
    pub error_eta: u32,
    /// w, the bits of the torus on which the decision is made.
    pub decision_bits: u32,
}

/// The first parameter set.
pub const GLWE_2048_V1: Parameters =
    Parameters { name: "glwe-2048-v1", degree: 2048, modulus: 2_147_389_441, error_eta: 4, decision_bits: 16 };

/// The integer factors and real scales of one block width β.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scales {
    /// F for gallery templates.
    pub gallery_factor: u64,
    /// F for probes.
    pub probe_factor: u64,
    /// S_x: a gallery coordinate of 1 in units of 1/q.
    pub gallery: f64,
    /// S_p: a probe coordinate of 1 in units of 1/q.
    pub probe: f64,
}

impl Scales {
    /// S = S_x·S_p: the cosine 1 in units of 1/q.
    #[must_use]
    pub fn score(&self) -> f64 {
        self.gallery * self.probe
    }

    /// F of this use.
    #[must_use]
    pub fn factor(&self, usage: SealedUse) -> u64 {
        match usage {
            SealedUse::Gallery => self.gallery_factor,
            SealedUse::Probe => self.probe_factor,
        }
    }
}

impl Parameters {
    /// The ring R_q of this set. Its tables are made once per process: that takes a millisecond.
    ///
    /// # Panics
    /// Never for the sets of this crate: a test builds each of them.
    #[must_use]
    #[expect(clippy::expect_used, reason = "constants of this crate, each built by a test")]
    pub fn ring(&self) -> Ring {
        static FIRST: OnceLock<Ring> = OnceLock::new();
        let make = || Ring::new(self.degree, self.modulus).expect("a named parameter set has a transform");
        let first = FIRST.get_or_init(make);
        if (first.degree(), first.modulus()) == (self.degree, self.modulus) { first.clone() } else { make() }
    }

    /// The scales for a block width β (see the module documentation).
    #[must_use]
    pub fn scales(&self, beta: usize) -> Scales {
        let q = f64::from(self.modulus);
        let unit = COORDINATE_SCALE as f64 * q / (1u64 << 48) as f64; // S for F = 1
        let slots = (self.degree / beta) as f64;
        let gallery_factor = ((q / 4.0 / slots.sqrt()).sqrt() / unit).floor();
        let gallery = gallery_factor * unit;
        let probe_factor = (q / 4.0 / gallery / unit).floor();
        let probe = probe_factor * unit;
        Scales { gallery_factor: gallery_factor as u64, probe_factor: probe_factor as u64, gallery, probe }
    }

    /// The decision torus: 2^w.
    #[must_use]
    pub fn decision_modulus(&self) -> u64 {
        1 << self.decision_bits
    }

    /// τ in units of 2^−w of the decision torus, modulo 2^w: round(τ·S·2^w/q).
    #[must_use]
    pub fn threshold_units(&self, threshold: Threshold, layout: Layout) -> u64 {
        let unit = self.scales(layout.beta()).score() * self.decision_modulus() as f64 / f64::from(self.modulus);
        ((threshold.cosine() * unit).round() as i64).rem_euclid(self.decision_modulus() as i64) as u64
    }

    /// Scales one additive share from q to 2^w by rounding (DESIGN section 5).
    #[must_use]
    pub fn to_decision_torus(&self, share: u32) -> u64 {
        let mut scaled = [0u32];
        self.all_to_decision_torus(&[share], &mut scaled);
        u64::from(scaled[0])
    }

    /// [`Parameters::to_decision_torus`] of many shares, without a division or a branch.
    pub fn all_to_decision_torus(&self, shares: &[u32], scaled: &mut [u32]) {
        round_to_power_of_two(self.modulus, self.decision_bits, shares, scaled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modulus_is_a_prime_with_a_transform() {
        let p = GLWE_2048_V1;
        assert_eq!(p.modulus % 4096, 1);
        assert!((2..=46_340u32).all(|f| !p.modulus.is_multiple_of(f)), "q is prime");
        assert_eq!(p.ring().degree(), 2048);
    }

    #[test]
    fn scores_cannot_wrap_and_agree_across_layouts() {
        let p = GLWE_2048_V1;
        let q = f64::from(p.modulus);
        for beta in [1, 2, 4, 8, 16, 32, 64, 128, 256] {
            let s = p.scales(beta);
            assert!(s.score() <= q / 4.0, "beta {beta}");
            assert!(s.score() > q / 4.0 * (1.0 - 8e-5), "beta {beta}: {}", s.score() / (q / 4.0));
            // squared norms up to 1.01 on both sides, threshold 0.9
            assert!((1.01 + 0.9) * s.score() < 0.48 * q);
            // no sealed coordinate wraps modulo 2^48 when it is scaled
            assert!(s.probe_factor as f64 * COORDINATE_SCALE as f64 * 1.01 < (1u64 << 47) as f64, "beta {beta}");
        }
    }

    #[test]
    fn three_rounded_shares_are_off_by_at_most_one_and_a_half_units() {
        let p = GLWE_2048_V1;
        let q = u64::from(p.modulus);
        let mut x = 1u64;
        for _ in 0..2000 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (a, b) = ((x >> 33) % q, (x >> 13) % q);
            let value = (x >> 3) % q;
            let c = (2 * q + value - a - b) % q;
            let sum: u64 = [a, b, c].iter().map(|&s| p.to_decision_torus(s as u32)).sum::<u64>() % p.decision_modulus();
            let exact = value as f64 * p.decision_modulus() as f64 / q as f64;
            let difference = (sum as f64 - exact).rem_euclid(p.decision_modulus() as f64);
            assert!(difference.min(p.decision_modulus() as f64 - difference) <= 1.5 + 1e-9);
        }
    }
}
