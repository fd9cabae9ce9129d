//! Why a call has no result.

use std::error::Error as _;
use std::time::Duration;

use veilmatch_domain::{Explain, IdentifierError, Status, Suspect};
use veilmatch_glwe::Refusal;
use veilmatch_sealed::{ReplyError, SealedError};
use veilmatch_transport::{TlsError, cause};
use veilmatch_wire::WireError;

use crate::{CardError, ClientError, KeyFileError};

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The matcher or a key holder refused; the message is theirs.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// No connection, or it broke.
    #[error("the matcher cannot be reached: {cause}")]
    Unreachable {
        /// What the connection said.
        cause: String,
        /// Whether the request may have arrived.
        sent: bool,
    },
    /// No answer in time.
    #[error("no answer within {} s", after.as_secs_f64())]
    Deadline {
        /// The time that the call had.
        after: Duration,
    },
    /// The holders' replies cannot be read or contradict each other.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// An answer that answers something else.
    #[error("the matcher's answer does not belong to the request: {what}")]
    Mismatch {
        /// What is wrong with it.
        what: &'static str,
    },
    /// An answer that cannot be read.
    #[error("the matcher's answer cannot be read: {0}")]
    Answer(#[source] WireError),
    /// Somebody else than a matcher of this protocol answered, or one of another version.
    #[error("the server answered {code} without a reason: {message}")]
    Foreign {
        /// The gRPC status.
        code: tonic::Code,
        /// Its text.
        message: String,
    },
    /// Sealing failed.
    #[error(transparent)]
    Sealed(#[from] SealedError),
    /// Not an id.
    #[error(transparent)]
    Identifier(#[from] IdentifierError),
    /// The connection cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The signing key.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// A holder's card.
    #[error(transparent)]
    Card(#[from] CardError),
    /// A thread that sealed ended early.
    #[error("sealing was interrupted")]
    Sealing,
}

impl Error {
    /// The refusal, if the matcher or a key holder refused.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Whom the error points at.
    #[must_use]
    pub fn suspects(&self) -> Vec<Suspect> {
        match self {
            Self::Refused(refusal) => refusal.suspects.clone(),
            Self::Reply(e) => e.suspect().into_iter().collect(),
            Self::Mismatch { .. } | Self::Answer(_) | Self::Foreign { .. } => vec![Suspect::Matcher],
            Self::Sealed(_) | Self::Identifier(_) | Self::KeyFile(_) => vec![Suspect::Client],
            _ => Vec::new(),
        }
    }

    /// The refusal's code, or this error's own.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Refused(refusal) => &refusal.code,
            other => other.code(),
        }
    }

    /// From the status of a failed call that had so much time.
    pub(crate) fn from_status(status: &tonic::Status, after: Duration) -> Self {
        if let Some(refusal) = veilmatch_wire::refusal(status) {
            return Self::Refused(refusal);
        }
        let (mut connecting, mut expired, mut source) = (false, false, status.source());
        while let Some(error) = source {
            connecting |= error.is::<tonic::ConnectError>();
            expired |= error.is::<tonic::TimeoutExpired>();
            source = error.source();
        }
        match (status.code(), status.source()) {
            // The server, too, watches the time that the call was given; tonic's says `cancelled` when it is over.
            (tonic::Code::DeadlineExceeded, _) | (tonic::Code::Cancelled, None) => Self::Deadline { after },
            _ if expired => Self::Deadline { after },
            (_, Some(source)) => Self::Unreachable { cause: cause(source), sent: !connecting },
            (tonic::Code::Unavailable, None) => Self::Unreachable { cause: status.message().to_owned(), sent: true },
            (code, None) => Self::Foreign { code, message: status.message().chars().take(300).collect() },
        }
    }

    /// Whether asking again with a fresh request may help and costs nothing: no decision was opened.
    pub(crate) fn nothing_was_opened(&self) -> bool {
        match self {
            Self::Unreachable { sent, .. } => !sent,
            Self::Refused(refusal) => NOTHING_OPENED.contains(&refusal.code.as_str()),
            _ => false,
        }
    }

    /// The same for a query with a preselection, whose coarse stage may have been opened before what happened later.
    pub(crate) fn nothing_was_preselected(&self) -> bool {
        match self {
            Self::Refused(refusal) => BEFORE_ANY_STAGE.contains(&refusal.code.as_str()),
            other => other.nothing_was_opened(),
        }
    }

    /// Whether repeating the same bytes may help, where that is harmless.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(refusal) => passes(refusal),
            _ => false,
        }
    }
}

// `wrong-epoch`: the session began while a ceremony was complete at some holders only, and ended at its first message.
const NOTHING_OPENED: [&str; 5] = ["registry-changed", "requests-differ", "wrong-epoch", "unreachable", "busy"];

// Of these, what can only come before the norm check.
const BEFORE_ANY_STAGE: [&str; 3] = ["requests-differ", "wrong-epoch", "busy"];

/// Whether a refusal is of the moment.
pub(crate) fn passes(refusal: &Refusal) -> bool {
    NOTHING_OPENED.contains(&refusal.code.as_str()) || refusal.status() == Status::Unavailable
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Sealed(e) => Self::Sealed(e),
            ClientError::Refused(refusal) => Self::Refused(refusal),
            ClientError::Reply(e) => Self::Reply(e),
            ClientError::Malformed => Self::Mismatch { what: "another kind of message" },
        }
    }
}

impl Explain for Error {
    fn code(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Unreachable { .. } => "matcher-unreachable",
            Self::Deadline { .. } => "deadline",
            Self::Reply(e) => e.code(),
            Self::Mismatch { .. } => "answer-mismatch",
            Self::Answer(_) => "malformed-answer",
            Self::Foreign { .. } => "foreign-answer",
            Self::Sealed(e) => e.code(),
            Self::Identifier(e) => e.code(),
            Self::Tls(e) => e.code(),
            Self::KeyFile(e) => e.code(),
            Self::Card(e) => e.code(),
            Self::Sealing => "sealing-interrupted",
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::Refused(refusal) => refusal.status(),
            Self::Unreachable { .. } | Self::Deadline { .. } => Status::Unavailable,
            Self::Reply(e) => e.status(),
            Self::Mismatch { .. } | Self::Answer(_) | Self::Foreign { .. } => Status::DataLoss,
            Self::Sealed(e) => e.status(),
            Self::Identifier(e) => e.status(),
            Self::Tls(e) => e.status(),
            Self::KeyFile(e) => e.status(),
            Self::Card(e) => e.status(),
            Self::Sealing => Status::Aborted,
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Refused(_) => "see the message of the party that refused",
            Self::Unreachable { sent: false, .. } => {
                "check the matcher's address and certificate and that it runs; nothing was sent"
            }
            Self::Unreachable { .. } => "check that the matcher runs; the request may have arrived",
            Self::Deadline { .. } => {
                "look at the matcher's load and the key holders' connections, or allow more time; the request may have arrived"
            }
            Self::Reply(e) => e.advice(),
            Self::Mismatch { .. } => "do not act on the answer; report the matcher to its operator",
            Self::Answer(_) | Self::Foreign { .. } => "use a client and a matcher of the same version",
            Self::Sealed(e) => e.advice(),
            Self::Identifier(e) => e.advice(),
            Self::Tls(e) => e.advice(),
            Self::KeyFile(e) => e.advice(),
            Self::Card(e) => e.advice(),
            Self::Sealing => "ask again; if it happens twice, report it",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_one_whoever_noticed_it() {
        let after = Duration::from_secs(1);
        for status in [tonic::Status::cancelled("Timeout expired"), tonic::Status::deadline_exceeded("")] {
            assert!(matches!(Error::from_status(&status, after), Error::Deadline { after: a } if a == after));
        }
        let error = Error::from_status(&tonic::Status::unknown(""), after);
        assert!(matches!(error, Error::Foreign { .. }));
    }
}
