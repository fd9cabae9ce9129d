//! The matcher's memory: sealed templates, the packed index, and the planner that decides what goes where.
//!
//! Sealed templates are the durable truth; the index can be rebuilt from them (invariant 5 of DESIGN section 7). This
//! room never sees a key.
//!
//! What is remembered goes through [`Storage`]. Both back ends, [`MemoryStorage`] and [`DiskStorage`], keep the same
//! rows and follow the same rules; they differ in where rows and bodies lie.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")
)]

mod changes;
mod collection;
mod disk;
mod files;
mod image;
mod memory;
mod planner;
mod rows;
mod storage;
mod tables;

pub use collection::{CollectionIndex, GroupMember, GroupRecord, StoredTemplate};
pub use disk::{DiskStorage, Statistics};
pub use memory::MemoryStorage;
pub use planner::{BuildPlan, Planner, layout_for};
pub use storage::{Change, CollectionImage, Description, Image, Intent, IntentId, Storage, StorageError};
