//! The space in which embeddings are compared: the model that made them, and what is done to its output before it is sealed. All
//! templates and probes of a collection must be of one space; nothing in the encrypted numbers would show that they are not.

use std::path::PathBuf;

use clap::Args;
use veilmatch_domain::{Embedding, Explain, ModelDigest, Status};
use veilmatch_evaluation::fair::Transform;
use veilmatch_extract::{ExtractError, Library, LibraryError, TaskKind};
use veilmatch_preselect::Rotation;
use veilmatch_secret::Hasher;

use crate::eval::MappedBy;
use crate::exit::CliError;
use crate::rotation::{RotatedBy, rotated};

/// What is done to embeddings before they are sealed.
#[derive(Clone, Debug, Default, Args)]
pub struct SpaceArguments {
    /// The map of `eval fit-fair`.
    #[command(flatten)]
    pub mapped: MappedBy,
    /// The rotation, after the map.
    #[command(flatten)]
    pub rotated: RotatedBy,
}

impl SpaceArguments {
    /// Reads the files.
    ///
    /// # Errors
    /// [`CliError`] naming the file.
    pub fn read(&self) -> Result<Space, CliError> {
        Ok(Space { map: self.mapped.read()?, rotation: self.rotated.read()? })
    }
}

/// The map and the rotation, read.
pub struct Space {
    map: Option<Transform>,
    rotation: Option<Rotation>,
}

impl Space {
    /// The embedding as it is to be sealed.
    ///
    /// # Errors
    /// [`CliError`] if the map or the rotation is of another dimension.
    pub fn apply(&self, mut embedding: Embedding) -> Result<Embedding, CliError> {
        if let Some(map) = &self.map {
            embedding = map.apply(&embedding).map_err(crate::eval::refused)?;
        }
        match &self.rotation {
            Some(rotation) => rotated(rotation, &embedding),
            None => Ok(embedding),
        }
    }

    /// Whether scores are other than the model's own.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        self.map.is_some()
    }

    /// The model as a collection of this space knows it: its own digest, or a digest of it with map and rotation.
    #[must_use]
    pub fn model(&self, model: ModelDigest) -> ModelDigest {
        if self.map.is_none() && self.rotation.is_none() {
            return model;
        }
        let mut hasher = Hasher::new("veilmatch/cli/space");
        hasher.field(&model.0);
        hasher.field(&self.map.as_ref().map(Transform::to_bytes).unwrap_or_default());
        hasher.field(&self.rotation.as_ref().map(Rotation::to_bytes).unwrap_or_default());
        ModelDigest(hasher.finish().0)
    }
}

/// The model of embeddings that come from a file, by name or digest.
///
/// # Errors
/// [`CliError::Arguments`] if there is no embedder of that name and the text is no digest.
pub fn named_model(name: &str, models: Option<&std::path::Path>) -> Result<ModelDigest, CliError> {
    if let Ok(digest) = name.parse() {
        return Ok(digest);
    }
    let bad = |error: LibraryError| CliError::Arguments(Box::new(ExtractError::from(error)));
    let library = Library::standard(models);
    let manifest = &library.entry(name).map_err(bad)?.manifest;
    match manifest.task.kind() {
        TaskKind::Embed => Ok(manifest.model()),
        found => Err(bad(LibraryError::Task { name: name.to_owned(), found, wanted: TaskKind::Embed })),
    }
}

/// A collection that is bound to no model is bound to no map either.
#[derive(Debug, thiserror::Error)]
#[error("a map or a rotation without the model that it is for")]
struct OfNoModel;

impl Explain for OfNoModel {
    fn code(&self) -> &'static str {
        "no-model"
    }
    fn status(&self) -> Status {
        Status::InvalidArgument
    }
    fn advice(&self) -> &'static str {
        "name the model with --model"
    }
}

/// The space that a collection is bound to.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Model")]
pub struct BoundTo {
    /// Take templates and probes of this embedder alone: its name in `veilmatch models list`, or its 64-digit digest. Stays
    /// once people are enrolled
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// A folder of models and manifests, searched first
    #[arg(long, value_name = "FOLDER", requires = "model")]
    pub models: Option<PathBuf>,
    /// Map and rotation, if clients apply any.
    #[command(flatten)]
    pub space: SpaceArguments,
}

impl BoundTo {
    /// The digest of the model with what is done to its output; `None` takes all.
    ///
    /// # Errors
    /// [`CliError`] if there is no such model, or a file cannot be used.
    pub fn digest(&self) -> Result<Option<ModelDigest>, CliError> {
        let space = self.space.read()?;
        match &self.model {
            Some(name) => Ok(Some(space.model(named_model(name, self.models.as_deref())?))),
            None if space.map.is_some() || space.rotation.is_some() => Err(CliError::Arguments(Box::new(OfNoModel))),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use veilmatch_domain::Dimension;

    #[test]
    fn what_is_done_to_a_models_output_makes_another_space() {
        let model = named_model("retail0095", None).unwrap();
        assert_eq!(named_model(&model.to_hex(), None).unwrap(), model);
        assert!(named_model("retail0096", None).is_err());
        let rotation = |seed| Some(Rotation::random(Dimension::new(16).unwrap(), seed));
        let spaces = [None, rotation(1), rotation(2)].map(|rotation| Space { map: None, rotation }.model(model));
        assert_eq!(spaces[0], model);
        assert!(spaces[1] != model && spaces[2] != model && spaces[1] != spaces[2]);
    }
}
