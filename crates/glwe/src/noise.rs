//! The noise of a score, predicted (DESIGN 3.6).
//!
//! With σ_e² = 3·η/2 (three parts), the standard deviation of the cosine is
//! √( (σ_e²+1/3)/S_x² + (σ_e²·N/β+1/3)/S_p² + (d/β)·N·σ_e⁴/(S_x·S_p)² ):
//! the error of the gallery body against the probe, the error of the probe against all N/β templates of the body,
//! and error against error over all blocks; 1/3 bounds the variance of the rounding of three parts. The decision adds the rounding of three shares to w
//! bits (variance 3/12 in units of 2^−w) and of the threshold (at most half a unit).

use veilmatch_domain::Dimension;

use crate::{Layout, Parameters};

/// A predicted standard deviation of the cosine.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Noise(pub f64);

/// Standard deviation of a score's cosine before the decision, for a full body.
#[must_use]
pub fn score_noise(parameters: &Parameters, layout: Layout, dimension: Dimension) -> Noise {
    let scales = parameters.scales(layout.beta());
    let error = 3.0 * f64::from(parameters.error_eta) / 2.0;
    let slots = layout.positions(parameters) as f64;
    let blocks = layout.blocks(dimension) as f64;
    let gallery = (error + 1.0 / 3.0) / scales.gallery.powi(2);
    let probe = (error * slots + 1.0 / 3.0) / scales.probe.powi(2);
    let cross = blocks * parameters.degree as f64 * error.powi(2) / scales.score().powi(2);
    Noise((gallery + probe + cross).sqrt())
}

/// Standard deviation of the cosine that is compared with the threshold.
#[must_use]
pub fn decision_noise(parameters: &Parameters, layout: Layout, dimension: Dimension) -> Noise {
    let unit = f64::from(parameters.modulus)
        / (parameters.scales(layout.beta()).score() * parameters.decision_modulus() as f64);
    let rounding = (3.0 / 12.0 + 1.0 / 12.0) * unit.powi(2);
    Noise((score_noise(parameters, layout, dimension).0.powi(2) + rounding).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GLWE_2048_V1;

    #[test]
    fn the_large_layout_has_the_noise_of_the_specification() {
        let layout = Layout::new(4, 16).unwrap();
        let noise = score_noise(&GLWE_2048_V1, layout, Dimension::new(512).unwrap());
        assert!((0.0006..0.0008).contains(&noise.0), "{noise:?}");
        let decided = decision_noise(&GLWE_2048_V1, layout, Dimension::new(512).unwrap());
        assert!(decided.0 > noise.0 && decided.0 < noise.0 * 1.01, "{decided:?}");
    }

    #[test]
    fn wider_blocks_are_less_noisy() {
        let at = |beta| score_noise(&GLWE_2048_V1, Layout::new(beta, 1).unwrap(), Dimension::new(512).unwrap()).0;
        assert!(at(64) < at(16) && at(16) < at(4) && at(4) < at(2));
    }
}
