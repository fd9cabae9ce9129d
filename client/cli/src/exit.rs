//! How the command ends: exit codes and what is written when it fails.

use serde::Serialize;
use std::io::{self, Write};
use std::process::ExitCode;
use veilmatch_domain::{EmbeddingError, Explain, Status};

use crate::input::InputError;
use crate::profile::ProfileError;

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// A file that cannot be used.
    #[error(transparent)]
    Input(#[from] InputError),
    /// An argument, the profile, or a file that it names.
    #[error("{0}")]
    Arguments(Box<dyn Explain + Send + Sync>),
    /// A party refused or deviated; the error of the room that noticed.
    #[error("{0}")]
    Protocol(Box<dyn Explain + Send + Sync>),
    /// A party refused, in its own words.
    #[error("{message}")]
    Refused {
        /// The party's code.
        code: String,
        /// The party's status.
        status: Status,
        /// What happened and one line of advice.
        message: String,
    },
    /// The report could not be written.
    #[error("cannot write the report: {0}")]
    Output(#[source] io::Error),
}

impl CliError {
    /// Wraps the error of a protocol room.
    pub fn protocol(error: impl Explain + Send + Sync + 'static) -> Self {
        Self::Protocol(Box::new(error))
    }

    /// The exit code: 2 if the input is at fault, else 3.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Input(_) | Self::Arguments(_) => 2,
            Self::Protocol(_) | Self::Refused { .. } | Self::Output(_) => 3,
        }
    }

    /// The code of the party that refused, or this error's own.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            other => other.code(),
        }
    }

    /// What happened, with advice.
    fn message(&self, between: &str) -> String {
        match self {
            // The party's advice is part of its message.
            Self::Refused { message, .. } => message.clone(),
            other => format!("{other}{between}{}", other.advice()),
        }
    }
}

impl From<ProfileError> for CliError {
    fn from(error: ProfileError) -> Self {
        Self::Arguments(Box::new(error))
    }
}

impl From<EmbeddingError> for CliError {
    fn from(error: EmbeddingError) -> Self {
        Self::protocol(error)
    }
}

impl Explain for CliError {
    fn code(&self) -> &'static str {
        match self {
            Self::Input(error) => error.code(),
            Self::Arguments(error) | Self::Protocol(error) => error.code(),
            Self::Refused { .. } => "refused",
            Self::Output(_) => "cannot-write",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::Input(error) => error.status(),
            Self::Arguments(error) | Self::Protocol(error) => error.status(),
            Self::Refused { status, .. } => *status,
            Self::Output(_) => Status::Unavailable,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::Input(error) => error.advice(),
            Self::Arguments(error) | Self::Protocol(error) => error.advice(),
            Self::Refused { .. } => "see the message of the party that refused",
            Self::Output(_) => "check where standard output goes",
        }
    }
}

/// How a command that ran to its end went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every decision outside the band equals the plaintext oracle's.
    Agrees,
    /// At least one does not.
    Differs,
    /// The answer is no: nobody matches.
    No,
    /// Something was refused; the report says what.
    Refused,
}

impl Verdict {
    /// From the number of decisions that differ outside the band.
    #[must_use]
    pub fn of(outside_band: u64) -> Self {
        if outside_band == 0 { Self::Agrees } else { Self::Differs }
    }
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Agrees => ExitCode::SUCCESS,
            Verdict::Differs | Verdict::No => ExitCode::from(1),
            Verdict::Refused => ExitCode::from(3),
        }
    }
}

#[derive(Serialize)]
struct Failure<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    code: &'a str,
    message: &'a str,
}

/// The error object of `--json`.
#[must_use]
pub fn error_json(code: &str, message: &str) -> String {
    // Two strings always serialise; the fallback keeps this function total.
    serde_json::to_string(&Failure { error: Body { code, message } })
        .unwrap_or_else(|_| String::from(r#"{"error":{"code":"internal","message":"unprintable error"}}"#))
}

/// Reports a failed command and returns its exit code.
pub fn failure(error: &CliError, json: bool) -> ExitCode {
    if json {
        line(&mut io::stdout(), &error_json(error.reason(), &error.message("; ")));
    } else {
        line(&mut io::stderr(), &format!("error: {}", error.message("\nadvice: ")));
    }
    ExitCode::from(error.exit_code())
}

/// Reports what clap has to say: help and version on standard output, errors with exit code 2.
pub fn usage(error: &clap::Error, json: bool) -> ExitCode {
    if !error.use_stderr() {
        // A closed pipe behind `--help` is nobody's error.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if json {
        line(&mut io::stdout(), &error_json("usage", &usage_message(error)));
    } else {
        let _ = error.print();
    }
    ExitCode::from(2)
}

/// The first paragraph of clap's message in one line, without its prefix.
fn usage_message(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = paragraph.split_whitespace().collect();
    let message = words.join(" ");
    message.strip_prefix("error: ").unwrap_or(&message).to_owned()
}

/// Writes a report to standard output.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CliError::Output)
}

fn line(out: &mut dyn Write, text: &str) {
    // If the terminal is gone there is nowhere left to complain; the exit code still tells.
    let _ = writeln!(out, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_outside_the_band_changes_the_verdict() {
        assert_eq!(Verdict::of(0), Verdict::Agrees);
        assert_eq!(Verdict::of(1), Verdict::Differs);
    }

    #[test]
    fn bad_input_is_told_from_a_protocol_that_stopped() {
        assert_eq!(CliError::Input(InputError::NoMatedPeople { path: "x".into() }).exit_code(), 2);
        assert_eq!(CliError::protocol(EmbeddingError::Zero).exit_code(), 3);
        assert_eq!(CliError::protocol(EmbeddingError::Zero).code(), "zero-vector");
    }

    #[test]
    fn error_objects_have_a_code_and_a_message() {
        assert_eq!(error_json("a-b", "said \"no\""), r#"{"error":{"code":"a-b","message":"said \"no\""}}"#);
    }
}
