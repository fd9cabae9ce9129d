//! `veilmatch bench`: what each part takes on this machine, and what it is compared with.
//!
//! Every command prints medians with their spread, as tables or as one JSON object that begins with `"bench"`: `report` reads
//! these back and draws them. Whatever is compared is measured in the same process, in turns, so that a busy machine is
//! unfair to nobody.

mod client;
mod decide;
mod e2e;
mod genuine;
mod page;
mod paillier;
mod published;
mod recrypt;
mod report;
mod scan;
mod spread;
mod stages;

use std::num::NonZeroUsize;

use clap::Subcommand;
use veilmatch_domain::{Explain, Status};

use crate::exit::{CliError, Verdict};
use crate::report::{Progress, Report};

/// The measurements.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// The matcher's scan beside plaintext scans and the memory's own speed, in the same run
    ///
    /// Synthetic ciphertexts fill the gallery, since time does not depend on what they hide. Beforehand the same scan takes part in
    /// decisions about people who are really enrolled, and each decision is compared with the plaintext one.
    #[command(after_help = scan::EXAMPLES)]
    Scan(scan::ScanArguments),
    /// What deciding about one probe costs each key holder: check, shares of scores, comparison
    #[command(after_help = decide::EXAMPLES)]
    Decide(decide::DecideArguments),
    /// What recrypting costs each key holder: a probe, and a group of templates
    #[command(after_help = recrypt::EXAMPLES)]
    Recrypt(recrypt::RecryptArguments),
    /// The scheme `paillier` by stage, and with --baseline beside the published approach in the same run
    #[command(after_help = paillier::EXAMPLES)]
    Paillier(paillier::PaillierArguments),
    /// The real services: latency by stage, throughput, enrolment rates, bytes, memory and disk space of each process
    #[command(after_help = e2e::EXAMPLES, alias = "services")]
    E2e(e2e::E2eArguments),
    /// What the capture device does: seal, sign, encode
    #[command(after_help = client::EXAMPLES)]
    Client(client::ClientArguments),
    /// One HTML file with plots, from saved results or from a fresh measurement
    #[command(after_help = report::EXAMPLES)]
    Report(report::ReportArguments),
}

/// Why a measurement cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The galleries do not fit into memory.
    #[error("this needs about {} of memory, and {} are free", crate::report::bytes(*needed), crate::report::bytes(*free))]
    Memory {
        /// What the galleries take, in bytes.
        needed: u64,
        /// What the operating system says is available, in bytes.
        free: u64,
    },
    /// The threads cannot be started.
    #[error("the threads cannot be started")]
    Threads,
    /// A timed scan has another result than the reference.
    #[error("the timed scan differs from the reference on synthetic ciphertexts")]
    WrongScan,
    /// The parties did not do what is measured.
    #[error("the parties did not get as far as {0}")]
    Incomplete(&'static str),
    /// A saved result that is not one.
    #[error("{path}: {problem}")]
    Saved {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

impl Explain for BenchError {
    fn code(&self) -> &'static str {
        match self {
            Self::Memory { .. } => "too-large",
            Self::Threads => "no-threads",
            Self::WrongScan => "wrong-scan",
            Self::Incomplete(_) => "incomplete",
            Self::Saved { .. } => "bad-result",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::Memory { .. } | Self::Threads => Status::ResourceExhausted,
            Self::WrongScan => Status::DataLoss,
            Self::Incomplete(_) => Status::Aborted,
            Self::Saved { .. } => Status::InvalidArgument,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::Memory { .. } => "choose a smaller --gallery or --dim",
            Self::Threads => "choose fewer --threads",
            Self::WrongScan => {
                "do not use this build on this machine; report the instruction set that `bench scan` names"
            }
            Self::Incomplete(_) => "run the command again; if it happens twice, report it with the arguments",
            Self::Saved { .. } => "give files that `veilmatch bench ... --json` has written, one object each",
        }
    }
}

/// Runs one of the measurements.
///
/// # Errors
/// [`CliError`].
pub fn run(what: &Bench, json: bool, progress: &Progress) -> Result<Verdict, CliError> {
    match what {
        Bench::Scan(arguments) => finish(&scan::measure(arguments, progress)?, json),
        Bench::Decide(arguments) => finish(&decide::measure(arguments, progress)?, json),
        Bench::Recrypt(arguments) => finish(&recrypt::measure(arguments, progress)?, json),
        Bench::Paillier(arguments) => finish(&paillier::measure(arguments, progress)?, json),
        Bench::E2e(arguments) => finish(&e2e::measure(arguments, progress)?, json),
        Bench::Client(arguments) => finish(&client::measure(arguments, progress)?, json),
        Bench::Report(arguments) => finish(&report::measure(arguments, progress)?, json),
    }
}

fn finish(report: &dyn Report, json: bool) -> Result<Verdict, CliError> {
    crate::report::write(report, json, &mut std::io::stdout().lock()).map_err(CliError::Output)?;
    Ok(Verdict::of(report.outside_band()))
}

/// The threads asked for, or all cores.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// A pool of so many threads, for measurements that must not use more.
fn pool(threads: usize) -> Result<rayon::ThreadPool, CliError> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|_| CliError::protocol(BenchError::Threads))
}

/// Refuses what would make the machine swap. Where the operating system does not say what is free, nothing is refused.
fn fits_memory(needed: u64) -> Result<(), CliError> {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let free = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).map(|kib| kib * 1024);
    match free {
        Some(free) if needed > free / 10 * 9 => Err(CliError::Arguments(Box::new(BenchError::Memory { needed, free }))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn galleries_beyond_memory_are_refused_before_they_are_made() {
        assert!(fits_memory(1 << 20).is_ok());
        let error = fits_memory(u64::MAX / 2).unwrap_err();
        assert_eq!((error.exit_code(), error.reason()), (2, "too-large"));
    }
}
