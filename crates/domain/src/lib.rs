//! The words of the house as types: embeddings, thresholds, ids, decisions, policies, parties.
//!
//! Everything here is validated when it is built ("parse, don't validate"): a function that takes an
//! [`Embedding`] or a [`SubjectId`] need not check it again. This room knows no cryptography and does no IO.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly"))]

mod decision;
mod embedding;
mod explain;
mod identifiers;
mod party;
mod policy;
mod preselection;
mod roles;
mod scheme;

pub use decision::{Decision, MAX_MATCHES, Outcome, Purpose, Query, Threshold, ThresholdError};
pub use embedding::{Dimension, Embedding, EmbeddingError, MAX_DIMENSION, MIN_DIMENSION, UNIT_TOLERANCE};
pub use explain::{Explain, Status};
pub use identifiers::{
    ClientId, CollectionId, Epoch, GroupId, IdentifierError, MAX_IDENTIFIER, ModelDigest, ParameterSetId, Revision,
    SessionId, SubjectId, TemplateDigest, TemplateVersion, Timestamp,
};
pub use party::{Part, Party, Suspect};
pub use policy::{Budgets, CollectionDescription, LockOut, MAX_WINDOW_SECONDS, Policy, PolicyError};
pub use preselection::{Preselection, PreselectionError, PreselectionRules};
pub use roles::{MAX_CLIENT_COLLECTIONS, Role, Roles};
pub use scheme::{SchemeName, UnknownScheme};
