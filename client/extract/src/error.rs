//! Why a photo gave no template, and what to do about it.

use veilmatch_domain::{EmbeddingError, Explain, Status};

use crate::gates::Refusal;
use crate::library::LibraryError;
use crate::manifest::{ManifestError, TaskKind};
use crate::photo::PhotoError;
use crate::runtime::RuntimeError;

/// Why a photo gave no template. No pixel and no coordinate of an embedding is ever part of the message.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ExtractError {
    /// The file is not a picture that can be used.
    #[error(transparent)]
    Photo(#[from] PhotoError),
    /// A model cannot be had.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// A manifest is not valid.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A model cannot be run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// No face, in any of the four directions that the photo can be turned to.
    #[error("no face found; the face must be seen from the front and fill more than a twentieth of the picture")]
    NoFace,
    /// More than one face.
    #[error("{found} faces found, one is needed; cut the picture, or ask for the largest face")]
    SeveralFaces {
        /// How many.
        found: usize,
    },
    /// The landmarks have no direction.
    #[error("the landmarks of the face lie in one point")]
    Landmarks,
    /// The gates are against it.
    #[error("{}", said(refusals))]
    Refused {
        /// All reasons; at least one.
        refusals: Vec<Refusal>,
    },
    /// The gates ask for a model that is not installed.
    #[error("the gates ask for {task}, but no model that does it is installed")]
    NoModel {
        /// What is asked for.
        task: TaskKind,
    },
    /// What the embedder gave is no embedding.
    #[error("the embedder gave no usable vector: {0}")]
    Embedding(#[from] EmbeddingError),
}

fn said(refusals: &[Refusal]) -> String {
    refusals.iter().map(Refusal::to_string).collect::<Vec<_>>().join(". Also: ")
}

impl Explain for ExtractError {
    fn code(&self) -> &'static str {
        match self {
            Self::Photo(PhotoError::Read { .. }) => "photo-unreadable",
            Self::Photo(PhotoError::Bytes { .. } | PhotoError::Size { .. } | PhotoError::Memory { .. }) => {
                "photo-too-large"
            }
            Self::Photo(PhotoError::Format) => "not-a-photo",
            Self::Photo(PhotoError::Damaged { .. }) => "photo-damaged",
            Self::Library(LibraryError::Unknown { .. } | LibraryError::Task { .. }) => "unknown-model",
            Self::Library(LibraryError::Digest { .. }) => "wrong-model-file",
            Self::Library(LibraryError::Read { .. }) => "model-unreadable",
            Self::Library(_) | Self::NoModel { .. } => "no-model",
            Self::Manifest(_) => "bad-manifest",
            Self::Runtime(RuntimeError::Unavailable { .. } | RuntimeError::Unknown { .. }) => "no-runtime",
            Self::Runtime(_) => "model-failed",
            Self::NoFace => "no-face",
            Self::SeveralFaces { .. } => "several-faces",
            Self::Landmarks => "no-landmarks",
            Self::Refused { refusals } => refusals.first().map_or("refused", Refusal::code),
            Self::Embedding(error) => error.code(),
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::Library(LibraryError::Digest { .. }) => Status::DataLoss,
            Self::Library(_) | Self::Manifest(_) | Self::Runtime(_) | Self::NoModel { .. } => {
                Status::FailedPrecondition
            }
            Self::Photo(PhotoError::Read { .. }) => Status::NotFound,
            _ => Status::InvalidArgument,
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Photo(PhotoError::Read { .. }) => "check the path and the permissions of the file",
            Self::Photo(PhotoError::Bytes { .. } | PhotoError::Size { .. } | PhotoError::Memory { .. }) => {
                "scale the picture down first"
            }
            Self::Photo(_) => "save the picture again as JPEG, PNG or WebP",
            Self::Library(LibraryError::Unknown { .. } | LibraryError::Task { .. }) => "see `veilmatch models list`",
            Self::Library(LibraryError::Digest { .. }) => {
                "the file is damaged or another model: add it again, or write a manifest of its own"
            }
            Self::Library(LibraryError::NoneInstalled { task, .. }) | Self::NoModel { task } => match task {
                TaskKind::Detect => {
                    "`veilmatch models pull yunet-2023mar` downloads one; `veilmatch models add FILE` installs a file you have"
                }
                TaskKind::Embed => {
                    "`veilmatch models add retail0095.onnx` installs it once you have the file; `veilmatch models list` says \
                     where it comes from"
                }
                TaskKind::Quality | TaskKind::Liveness => {
                    "`veilmatch models add FILE` installs one; `veilmatch models list` says where they come from"
                }
            },
            Self::Library(_) => "`veilmatch models add FILE` installs it once you have the file",
            Self::Manifest(_) => "correct the manifest",
            Self::Runtime(RuntimeError::Unavailable { .. }) => {
                "name the library in VEILMATCH_ONNXRUNTIME, or use the run-time `rust`"
            }
            Self::Runtime(_) => "check the manifest against the model, or try the other run-time",
            Self::NoFace => "use a picture in which the face is larger and seen from the front",
            Self::SeveralFaces { .. } => "cut the picture so that one face is left, or ask for the largest face",
            Self::Landmarks => "use another picture",
            Self::Refused { .. } => "use a better picture, or other gates",
            Self::Embedding(_) => "check the manifest against the model",
        }
    }
}
