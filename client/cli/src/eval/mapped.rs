//! The map of `eval fit-fair`, read from its file and applied before an embedding is sealed.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use veilmatch_domain::Embedding;
use veilmatch_evaluation::fair::Transform;

use super::refused;
use crate::exit::CliError;
use crate::input::InputError;

/// Longest file that is read: a matrix of the largest dimension, with its head.
const MAX_FILE: u64 = 5 << 20;

/// Maps embeddings before they are evaluated or sealed.
#[derive(Clone, Debug, Default, Args)]
pub struct MappedBy {
    /// Map embeddings by this file of `veilmatch eval fit-fair` first; everything in a collection must be mapped by the same
    #[arg(long, value_name = "FILE.fair")]
    pub fair: Option<PathBuf>,
}

impl MappedBy {
    /// The map, if there is one.
    ///
    /// # Errors
    /// [`CliError`] naming the file.
    pub fn read(&self) -> Result<Option<Transform>, CliError> {
        self.fair.as_deref().map(read).transpose()
    }

    /// The embedding as it is to be sealed, at enrolment and as a probe.
    ///
    /// # Errors
    /// [`CliError`] if the file cannot be used, or is of another dimension.
    pub fn apply(&self, embedding: Embedding) -> Result<Embedding, CliError> {
        match self.read()? {
            Some(transform) => transform.apply(&embedding).map_err(refused),
            None => Ok(embedding),
        }
    }

    /// The same for many.
    ///
    /// # Errors
    /// As [`MappedBy::apply`].
    pub fn apply_all(&self, embeddings: Vec<Embedding>) -> Result<Vec<Embedding>, CliError> {
        match self.read()? {
            Some(transform) => embeddings.iter().map(|e| transform.apply(e)).collect::<Result<_, _>>().map_err(refused),
            None => Ok(embeddings),
        }
    }
}

fn read(path: &Path) -> Result<Transform, CliError> {
    let failed = |source| CliError::from(InputError::Open { path: path.into(), source });
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_FILE).read_to_end(&mut bytes).map_err(failed)?;
    Transform::from_bytes(&bytes).map_err(|source| InputError::Transform { path: path.into(), source }.into())
}
