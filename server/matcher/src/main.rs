//! The program `veilmatch-matcher`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use veilmatch_domain::Explain;
use veilmatch_matcher::{Config, run};
use veilmatch_service::{ended_by_signal, start_logs};

const EXAMPLES: &str = "\
Examples:
  veilmatch-matcher --config /etc/veilmatch/matcher.toml
  veilmatch-matcher --config matcher.toml --check

Exit codes: 0 ended in order, 2 the configuration cannot be used, 3 it cannot run.
SIGTERM and SIGINT end it in order: what was acknowledged is finished first.";

/// Finds matches in an encrypted gallery; holds no key.
#[derive(Debug, Parser)]
#[command(name = "veilmatch-matcher", version, after_help = EXAMPLES)]
struct Arguments {
    /// The configuration file
    #[arg(long, value_name = "FILE.toml")]
    config: PathBuf,
    /// Check the configuration and end
    #[arg(long)]
    check: bool,
}

#[expect(clippy::print_stderr, reason = "a program says on standard error why it does not run")]
fn complain(error: &dyn Explain) {
    eprintln!("error: {error}\n  {}", error.advice());
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            complain(&error);
            return ExitCode::from(2);
        }
    };
    if arguments.check {
        return ExitCode::SUCCESS;
    }
    start_logs(config.log);
    let Ok(runtime) = veilmatch_service::start_runtime() else {
        complain(&veilmatch_matcher::RunError::Threads);
        return ExitCode::from(3);
    };
    match runtime.block_on(run(config, ended_by_signal())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(3)
        }
    }
}
