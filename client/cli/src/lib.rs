//! The command `veilmatch`: what it reads, whom it asks, how answers are judged and printed.
//!
//! This room parses arguments and files, plays the demonstration and the evaluation against an [`engine::Engine`],
//! compares every answer with the plaintext oracle ([`judge`]) and prints. It knows no cryptography but in
//! [`encrypted`], whose engine is handed in by `main.rs`. Only [`report`] and [`exit`] write to the terminal. No coordinate of an
//! embedding and no score is ever printed, alone or inside an error.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly"))]

pub mod arguments;
pub mod cast;
pub mod demo;
pub mod encrypted;
pub mod engine;
pub mod exit;
pub mod input;
pub mod judge;
pub mod npy;
pub mod pairs;
pub mod report;
pub mod synthetic;
pub mod verification;

#[cfg(test)]
mod testing;

use std::ffi::OsString;
use std::process::ExitCode;

use arguments::{Command, Evaluation};
use engine::Found;
use exit::{CliError, Verdict};
use report::{Progress, Report};

/// Runs the command line and returns the exit code: 0 agrees, 1 a decision differs outside the band, 2 bad input,
/// 3 the protocol stopped.
pub fn run(arguments: impl IntoIterator<Item = OsString>, found: &Found<'_>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let json = arguments::asks_for_json(&arguments);
    let parsed = match arguments::parse(&arguments) {
        Ok(parsed) => parsed,
        Err(error) => return exit::usage(&error, json),
    };
    let progress = Progress::on_stderr();
    let result = match &parsed.command {
        Command::Demo(demo) => demo::run(demo, found, &progress).and_then(|r| finish(&r, json)),
        Command::Eval { what: Evaluation::Pairs(pairs) } => {
            pairs::run(pairs, found, &progress).and_then(|r| finish(&r, json))
        }
    };
    match result {
        Ok(verdict) => verdict.into(),
        Err(error) => exit::failure(&error, json),
    }
}

fn finish(report: &dyn Report, json: bool) -> Result<Verdict, CliError> {
    report::write(report, json, &mut std::io::stdout().lock()).map_err(CliError::Output)?;
    Ok(Verdict::of(report.outside_band()))
}
