//! What can go wrong among the holders, and whose fault it is.

use veilmatch_domain::{Explain, Party, Status, Suspect};

/// Why a protocol among the holders stopped. No share, score or payload is ever part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A message did not come in time. Built by the caller, who has the clock, from `Evaluation::waiting_for`.
    #[error("message {step} from key holder {from} did not arrive")]
    Missing {
        /// Who owes the message.
        from: Party,
        /// Its number in the session.
        step: u32,
    },
    /// A second message with the number of an earlier one.
    #[error("key holder {from} sent a message twice")]
    Repeated {
        /// The sender.
        from: Party,
    },
    /// A message shorter than the only length that it can have.
    #[error("a message from key holder {from} is too short")]
    Truncated {
        /// The sender.
        from: Party,
    },
    /// A message longer than the only length that it can have, or with padding that is not zero.
    #[error("a message from key holder {from} does not have the form that it must have")]
    Malformed {
        /// The sender.
        from: Party,
    },
    /// A message that this party does not send to this holder at any time of the protocol.
    #[error("key holder {from} sent message {step}, which the protocol does not know")]
    Unexpected {
        /// The sender.
        from: Party,
        /// The number of the message.
        step: u32,
    },
    /// The tag of a frame is wrong: altered, cut, or said by somebody else.
    #[error("a frame that claims to come from key holder {from} is not authentic")]
    Altered {
        /// The claimed sender.
        from: Party,
    },
    /// An authentic frame of another session.
    #[error("key holder {from} sent a frame of another session")]
    WrongSession {
        /// The sender.
        from: Party,
    },
    /// A frame so far ahead, or so many bytes ahead, that it is not kept.
    #[error("key holder {from} is too far ahead with message {step}")]
    TooFarAhead {
        /// The sender.
        from: Party,
        /// The number of the message.
        step: u32,
    },
    /// The two copies of a component that was to be opened differ.
    #[error("two copies of an opened component differ; one of them is wrong: {suspect}")]
    Mismatch {
        /// The two holders that sent the copies.
        suspect: Suspect,
    },
    /// The caller gave another number of inputs than the circuit has.
    #[error("the circuit takes {expected} inputs, not {found}")]
    Inputs {
        /// Lanes of all inputs of the circuit.
        expected: usize,
        /// What came.
        found: usize,
    },
    /// The message numbers of this session do not suffice.
    #[error("the session has no message numbers left for this circuit")]
    StepsExhausted,
    /// An opening was approved when none was due.
    #[error("there is nothing to open now")]
    NothingToOpen,
    /// What was opened does not have the shape of an answer to the question.
    #[error("what was opened is not an answer to the question")]
    NotAnAnswer,
    /// The circuit uses a wire that does not exist.
    #[error("the circuit uses a wire that does not exist")]
    BrokenCircuit,
}

impl ProtocolError {
    /// Whom the error points at; `None` if the fault is the caller's own.
    #[must_use]
    pub fn suspect(&self) -> Option<Suspect> {
        match *self {
            Self::Missing { from, .. }
            | Self::Repeated { from }
            | Self::Truncated { from }
            | Self::Malformed { from }
            | Self::Unexpected { from, .. }
            | Self::Altered { from }
            | Self::WrongSession { from }
            | Self::TooFarAhead { from, .. } => Some(Suspect::Holder(from)),
            Self::Mismatch { suspect } => Some(suspect),
            Self::Inputs { .. }
            | Self::StepsExhausted
            | Self::NothingToOpen
            | Self::NotAnAnswer
            | Self::BrokenCircuit => None,
        }
    }
}

impl Explain for ProtocolError {
    fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "message-missing",
            Self::Repeated { .. } => "message-repeated",
            Self::Truncated { .. } => "message-truncated",
            Self::Malformed { .. } => "message-malformed",
            Self::Unexpected { .. } => "message-unexpected",
            Self::Altered { .. } => "frame-altered",
            Self::WrongSession { .. } => "frame-of-another-session",
            Self::TooFarAhead { .. } => "message-too-far-ahead",
            Self::Mismatch { .. } => "opening-mismatch",
            Self::Inputs { .. } => "wrong-number-of-inputs",
            Self::StepsExhausted => "steps-exhausted",
            Self::NothingToOpen => "nothing-to-open",
            Self::NotAnAnswer => "not-an-answer",
            Self::BrokenCircuit => "broken-circuit",
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::Missing { .. } => Status::Unavailable,
            Self::Inputs { .. } | Self::BrokenCircuit => Status::InvalidArgument,
            Self::NothingToOpen | Self::NotAnAnswer => Status::FailedPrecondition,
            Self::StepsExhausted => Status::ResourceExhausted,
            _ => Status::Aborted,
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "check that the named key holder is up, then begin a new session",
            Self::Mismatch { .. } => "the session is spent; compare the audit logs of the two named key holders",
            Self::Inputs { .. } | Self::StepsExhausted | Self::NothingToOpen | Self::NotAnAnswer => {
                "this is a mistake in the calling program; the session is spent"
            }
            Self::BrokenCircuit => "wires may be used only with the builder that made them",
            _ => "the session is spent; check the named key holder and the way to it, then begin a new session",
        }
    }
}
