//! What a matcher is busy with, for metrics and health.

/// Counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Searches under way.
    pub searches: usize,
    /// Searches that wait for a commit to be acknowledged.
    pub held: usize,
    /// Changes of the index that wait for their turn.
    pub waiting: usize,
    /// Whether a change of the index is under way.
    pub writing: bool,
    /// Decisions that not all holders have acknowledged yet.
    pub unsettled: bool,
    /// Whether all that is stored can be searched, all groups have their collection's width, and none is to be merged.
    pub at_rest: bool,
}
