//! What an error owes to the person who reads it: a stable code, a status, one line of advice.

/// The status that an error maps to at the network border; the names are gRPC's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// The caller sent something that can never be accepted.
    InvalidArgument,
    /// The named subject, collection or group does not exist.
    NotFound,
    /// The id is taken.
    AlreadyExists,
    /// The caller may not do this.
    PermissionDenied,
    /// The system is not in the state that the request needs.
    FailedPrecondition,
    /// A limit or a budget is used up.
    ResourceExhausted,
    /// The operation was stopped because a party deviated or messages disagree.
    Aborted,
    /// A party cannot be reached; trying again may help.
    Unavailable,
    /// Stored or received data is damaged.
    DataLoss,
}

/// Implemented by every public error of the workspace.
pub trait Explain: std::error::Error {
    /// A stable, machine-readable code in kebab-case.
    fn code(&self) -> &'static str;
    /// The status at the network border.
    fn status(&self) -> Status;
    /// One line that says what to do next.
    fn advice(&self) -> &'static str;
}
