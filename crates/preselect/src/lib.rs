//! Preselection, client side and offline (DESIGN section 6): public rotations, and what a coarse first stage would cost.
//!
//! A rotation is an orthogonal matrix that everybody may know. It changes no cosine, so a gallery whose templates and probes
//! are all rotated decides as before; but it gathers what tells people apart in the first m coordinates, which a first
//! stage compares alone. [`calibrate`] says, on labelled data, which coarse threshold loses how many matches, how many candidates
//! are left, how many bytes are saved, and so whether a first stage pays at all. Which groups hold candidates is shown to the
//! matcher: the first stage is an opening and is off by default.
//!
//! No IO and no keys. Embeddings come in as [`veilmatch_domain::Embedding`] and leave as such; a rotation is fitted on public ones.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a test may fail loudly"
    )
)]

mod calibration;
mod file;
mod rotation;

pub use calibration::{Calibration, CalibrationError, Coarse, Interval, Person, Settings, calibrate, halves};
pub use file::FileError;
pub use rotation::{Origin, Rotation, RotationError};
