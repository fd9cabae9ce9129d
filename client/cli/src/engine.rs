//! The seam between the command and the parties: what the demonstration needs from an engine, and no more.
//!
//! An engine owns all five parties of one collection. They exchange serialised bytes and nothing else; the engine
//! counts these bytes per party. Nothing behind this trait can return a score: there is no such type here.

use serde::Serialize;
use veilmatch_domain::{Dimension, Embedding, Outcome, Query, SchemeName, SubjectId, Threshold};
use veilmatch_paillier::KeySize;

use crate::exit::CliError;

/// What the ceremony must provide for.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Dimension of every template and probe.
    pub dimension: Dimension,
    /// How many people will be enrolled.
    pub members: usize,
    /// Lowest threshold that will be asked for; the holders' policy must allow it.
    pub lowest_threshold: Threshold,
    /// Highest threshold that will be asked for; the holders' policy must allow it.
    pub highest_threshold: Threshold,
    /// The scheme of the index.
    pub scheme: Scheme,
}

/// Under which scheme, and with which key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// `glwe`.
    #[default]
    Glwe,
    /// `paillier`, with a key that a dealer makes for this run.
    Paillier(KeySize),
}

impl Scheme {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> SchemeName {
        match self {
            Self::Glwe => SchemeName::Glwe,
            Self::Paillier(_) => SchemeName::Paillier,
        }
    }
}

/// The ceremony: makes the parties of one collection. Timed as the stage `ceremony`.
pub type Found<'a> = dyn Fn(&Setup) -> Result<Box<dyn Engine>, CliError> + 'a;

/// All parties of one collection.
pub trait Engine {
    /// Enrols people. `progress` is called with the number enrolled so far, at least once per thousand.
    ///
    /// # Errors
    /// [`CliError::Protocol`] with the typed error of the party that refused; nobody is enrolled then.
    fn enroll(&mut self, people: &[(SubjectId, Embedding)], progress: &dyn Fn(usize)) -> Result<(), CliError>;

    /// Asks one question in a session of its own. The threshold is applied inside the protocol.
    ///
    /// # Errors
    /// [`CliError::Protocol`]; its status is `NotFound` when a verification names a subject that is not enrolled.
    fn ask(&mut self, probe: &Embedding, query: &Query) -> Result<Outcome, CliError>;

    /// Erases a subject: template, packed groups, revisions, tombstone.
    ///
    /// # Errors
    /// [`CliError::Protocol`], and the subject is still there.
    fn erase(&mut self, subject: &SubjectId) -> Result<(), CliError>;

    /// Predicted standard deviation of a score's error, as a cosine: errors of encryption, quantisation of the
    /// coordinates and rounding before the comparison, all together. The band of [`crate::judge`] is five of these.
    fn noise_std(&self) -> f64;

    /// Bytes sent and received by each party since the ceremony began.
    fn traffic(&self) -> Traffic;
}

/// Bytes of one party.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// Sent by the party.
    pub sent: u64,
    /// Received by the party.
    pub received: u64,
}

/// Bytes by party.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Capture device or relying party.
    pub client: Bytes,
    /// The server that does the work.
    pub matcher: Bytes,
    /// Key holder 0.
    pub k0: Bytes,
    /// Key holder 1.
    pub k1: Bytes,
    /// Key holder 2.
    pub k2: Bytes,
    /// The second evaluator, under the scheme `paillier`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub twin: Option<Bytes>,
}
