//! The matcher's memory: sealed templates, the packed index, and the planner that decides what goes where.
//!
//! Sealed templates are the durable truth; the index can be rebuilt from them (invariant 5 of DESIGN section 7). This
//! room never sees a key. Storage here is in memory; a durable back end comes behind the same two types.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")
)]

mod collection;
mod planner;
mod storage;

pub use collection::{CollectionIndex, GroupMember, GroupRecord, StoredTemplate};
pub use planner::{BuildPlan, layout_for, plan_addition, plan_merge, plan_rebuild, plan_rotation};
pub use storage::{Change, CollectionImage, Description, Image, Intent, IntentId, Storage, StorageError};
