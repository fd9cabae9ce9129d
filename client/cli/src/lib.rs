//! The command `veilmatch`: what it reads, whom it asks, how answers are judged and printed.
//!
//! This room parses arguments and files, plays the demonstration and the evaluation against an [`engine::Engine`],
//! compares every answer with the plaintext oracle ([`judge`]) and prints. It knows no cryptography but in
//! [`encrypted`], whose engine is handed in by `main.rs`. Only [`report`] and [`exit`] write to the terminal. No coordinate of an
//! embedding and no score is ever printed, alone or inside an error.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly"))]

pub mod arguments;
pub mod bench;
pub mod calibrate;
pub mod cast;
pub mod dealer;
pub mod demo;
pub mod encrypted;
pub mod engine;
pub mod eval;
pub mod exit;
pub mod input;
pub mod judge;
pub mod local;
pub mod network;
pub mod npy;
pub mod operator;
pub mod photos;
pub mod pki;
pub mod profile;
pub mod report;
pub mod rotation;
pub mod services;
pub mod space;
pub mod synthetic;
pub mod up;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod two_stages;

use std::ffi::OsString;
use std::process::ExitCode;

use arguments::{Command, ServeParty};
use engine::Found;
use exit::{CliError, Verdict};
use local::Role;
use report::{Progress, Report};
use veilmatch_domain::Party;

/// Runs the command line and returns the exit code: 0 done, yes or agrees, 1 no match or a decision differs outside the band,
/// 2 bad input, 3 refused or the protocol stopped.
///
/// `demo` makes the parties of the demonstration, `evaluated` those of evaluations.
pub fn run(arguments: impl IntoIterator<Item = OsString>, demo: &Found<'_>, evaluated: &Found<'_>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let json = arguments::asks_for_json(&arguments);
    let parsed = match arguments::parse(&arguments) {
        Ok(parsed) => parsed,
        Err(error) => return exit::usage(&error, json),
    };
    let progress = Progress::on_stderr();
    let result = match &parsed.command {
        Command::Demo(arguments) => demo::run(arguments, demo, &progress).and_then(|r| finish(&r, json)),
        Command::Eval { what } => eval::run(what, json, evaluated, &progress),
        Command::Inspect(arguments) => photos::inspect::run(arguments),
        Command::Models { what } => photos::models::run(what),
        Command::Network(command) => network::run(command, parsed.profile.as_deref(), &progress),
        Command::Bench { what } => bench::run(what, json, &progress),
        Command::Rotation { what } => rotation::run(what, json).map(|()| Verdict::Agrees),
        Command::Calibrate(arguments) => calibrate::run(arguments, json, &progress).map(|()| Verdict::Agrees),
        Command::Up(arguments) => up::run(arguments, json, &progress).map(|()| Verdict::Agrees),
        Command::Dealer(arguments) => dealer::run(arguments, json, &progress).map(|()| Verdict::Agrees),
        Command::Pki { what } => pki::run(what, json).map(|()| Verdict::Agrees),
        Command::Serve(arguments) => {
            let role = match arguments.party {
                ServeParty::K0 => Role::Holder(Party::K0),
                ServeParty::K1 => Role::Holder(Party::K1),
                ServeParty::K2 => Role::Holder(Party::K2),
                ServeParty::Matcher => Role::Matcher,
                ServeParty::Twin => Role::Twin,
            };
            local::serve(role, &arguments.config).map(|()| Verdict::Agrees)
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
