//! The contract between a scheme and the decision protocol.

use veilmatch_domain::{Dimension, Embedding, Threshold};

/// Additive shares of score − τ, one vector per holder, one value below 2^w per indexed template in the order of
/// indexing.
pub type ScoreShares = [Vec<u64>; 3];

/// Key generation, encryption, indexing and score shares. Errors are failures of the test.
pub trait Scheme {
    /// For reports.
    fn name(&self) -> &'static str;

    /// w: shares are modulo 2^w.
    fn decision_bits(&self) -> u32;

    /// Draws keys for a collection of this dimension; forgets everything indexed before.
    fn generate_keys(&mut self, dimension: Dimension);

    /// Encrypts a template as a client does.
    fn encrypt_template(&mut self, template: &Embedding) -> Vec<u8>;

    /// Encrypts a probe as a client does.
    fn encrypt_probe(&mut self, probe: &Embedding) -> Vec<u8>;

    /// Indexes encrypted templates, group by group; how a group is laid out is the scheme's choice.
    fn index(&mut self, groups: &[Vec<Vec<u8>>]);

    /// The holders' shares of all scores minus the threshold.
    fn score_shares(&mut self, probe: &[u8], threshold: Threshold) -> ScoreShares;

    /// The same in two stages, as a preselection has them: first all scores of the first `dimensions` minus `coarse`, then all
    /// scores minus the threshold, made of the first stage's shares and of sums over the other dimensions. `None` if the scheme
    /// has no stages.
    fn stage_shares(
        &mut self,
        probe: &[u8],
        dimensions: usize,
        coarse: Threshold,
        threshold: Threshold,
    ) -> Option<[ScoreShares; 2]> {
        let _ = (probe, dimensions, coarse, threshold);
        None
    }

    /// Predicted standard deviation of the cosine that is compared with the threshold; the largest of all groups.
    fn noise(&self) -> f64;
}
