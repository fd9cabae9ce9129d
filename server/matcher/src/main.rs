//! The program `veilmatch-matcher`: the matcher, or its twin.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use veilmatch_domain::Explain;
use veilmatch_matcher::{Config, RunError, TwinConfig, run, run_twin};
use veilmatch_service::{ConfigError, Log, ended_by_signal, start_logs};

const EXAMPLES: &str = "\
Examples:
  veilmatch-matcher --config /etc/veilmatch/matcher.toml
  veilmatch-matcher --config matcher.toml --check
  veilmatch-matcher --role twin --config /etc/veilmatch/twin.toml

Exit codes: 0 ended in order, 2 the configuration cannot be used, 3 it cannot run.
SIGTERM and SIGINT end it in order: what was acknowledged is finished first.";

/// What the process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Stores, indexes and searches
    Matcher,
    /// The matcher's twin: the second evaluator of the scheme `paillier`, run by somebody else
    Twin,
}

/// Finds matches in an encrypted gallery; holds no key.
#[derive(Debug, Parser)]
#[command(name = "veilmatch-matcher", version, after_help = EXAMPLES)]
struct Arguments {
    /// What to run; each has a configuration file of its own kind
    #[arg(long, value_enum, default_value_t = Role::Matcher)]
    role: Role,
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

/// A configuration of either role.
enum Configured {
    Matcher(Box<Config>),
    Twin(Box<TwinConfig>),
}

impl Configured {
    fn load(arguments: &Arguments) -> Result<Self, ConfigError> {
        Ok(match arguments.role {
            Role::Matcher => Self::Matcher(Box::new(Config::load(&arguments.config)?)),
            Role::Twin => Self::Twin(Box::new(TwinConfig::load(&arguments.config)?)),
        })
    }

    fn log(&self) -> Log {
        match self {
            Self::Matcher(config) => config.log,
            Self::Twin(config) => config.log,
        }
    }

    async fn run(self) -> Result<(), RunError> {
        match self {
            Self::Matcher(config) => run(*config, ended_by_signal()).await,
            Self::Twin(config) => run_twin(*config, ended_by_signal()).await,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Configured::load(&arguments) {
        Ok(config) => config,
        Err(error) => {
            complain(&error);
            return ExitCode::from(2);
        }
    };
    if arguments.check {
        return ExitCode::SUCCESS;
    }
    start_logs(config.log());
    let Ok(runtime) = veilmatch_service::start_runtime() else {
        complain(&RunError::Threads);
        return ExitCode::from(3);
    };
    match runtime.block_on(config.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(3)
        }
    }
}
