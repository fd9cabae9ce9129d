//! What the encrypted protocol decided, as counts beside the plaintext ones. It opens no score, so there is no curve.

use serde::Serialize;

/// Decisions of verifications at one threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EncryptedPoint {
    /// The FMR over all non-mated pairs in plaintext that the threshold was chosen for.
    pub wanted_fmr: f64,
    /// The FMR in plaintext at the threshold.
    pub fmr: f64,
    /// The threshold as the protocol knows it.
    pub threshold: f64,
    /// Mated pairs that were decided.
    pub mated: u64,
    /// FNMR over them in plaintext.
    pub fnmr_plain: f64,
    /// FNMR over them, encrypted.
    pub fnmr_encrypted: f64,
    /// Non-mated pairs that were decided: a sample, too small to tell a low FMR.
    pub non_mated: u64,
    /// False matches among them in plaintext.
    pub false_matches_plain: u64,
    /// False matches among them, encrypted.
    pub false_matches_encrypted: u64,
    /// Decisions that differ.
    pub differing: u64,
    /// Decisions whose plaintext score lies in the noise band around the threshold.
    pub in_band: u64,
    /// Decisions that differ outside the band.
    pub outside_band: u64,
}

/// Decisions of searches for the nearest above a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EncryptedSearches {
    /// The FPIR in plaintext that the threshold was chosen for.
    pub wanted_fpir: f64,
    /// The threshold as the protocol knows it.
    pub threshold: f64,
    /// People enrolled.
    pub gallery: u64,
    /// Mated searches.
    pub mated: u64,
    /// Of these, without the mate, in plaintext.
    pub misses_plain: u64,
    /// Of these, without the mate, encrypted.
    pub misses_encrypted: u64,
    /// Non-mated searches.
    pub non_mated: u64,
    /// Of these, with somebody, in plaintext.
    pub false_positives_plain: u64,
    /// Of these, with somebody, encrypted.
    pub false_positives_encrypted: u64,
    /// Answers that differ.
    pub differing: u64,
    /// Answers that the noise could have changed.
    pub in_band: u64,
    /// Answers that differ and that noise does not explain.
    pub outside_band: u64,
}
