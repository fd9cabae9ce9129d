//! From a photo to a template: decode, find the face, align it, judge its quality, embed it, normalise.
//!
//! ```no_run
//! use veilmatch_extract::{Extractor, Library, Settings};
//!
//! # fn main() -> Result<(), veilmatch_extract::ExtractError> {
//! let extractor = Extractor::open(&Library::standard(None), Settings::default())?;
//! let alice = extractor.extract_file("alice.jpg".as_ref())?;
//! let embedding = alice.embedding; // of unit norm, ready to be sealed
//! # Ok(())
//! # }
//! ```
//!
//! A photo, its crops and the vectors made from it stay in the process and are wiped when they are dropped; no type that
//! holds any of them implements `Debug`. What is not wiped: what the decoders and the run-times keep while they work, and
//! what the compiler spills. This room knows no network, prints nothing and runs no task; it knows the domain's
//! `Embedding` and no protocol.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")
)]

mod detect;
pub mod drawn;
mod error;
mod gates;
mod geometry;
mod inspect;
mod library;
mod manifest;
mod photo;
mod pipeline;
mod quality;
mod runtime;
mod warp;

pub use error::ExtractError;
pub use gates::{GatePreset, Gates, Refusal, UnknownPreset};
pub use geometry::{Face, Landmarks, Point, Rectangle, Similarity};
pub use inspect::annotated;
pub use library::{Entry, Library, LibraryError, Model, ModelFile, Origin, TINY_DETECT, TINY_EMBED, read_manifest};
pub use manifest::{
    Calibrated, Colour, Detect, Embed, FileDigest, Input, Layout, Liveness, Manifest, ManifestError,
    Quality as QualityModel, Scores, Size, Task, TaskKind,
};
pub use photo::{Limits, PhotoError, Picture};
pub use pipeline::{Examination, Extraction, Extractor, Faces, Settings, Timings, fused};
pub use quality::Quality;
pub use runtime::{Runtime, RuntimeChoice, RuntimeError, RuntimeName, Session, Tensor, open as open_runtime};
