//! The command `veilmatch-keyholder`: one key holder, from its configuration file.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};
use veilmatch_domain::Explain;
use veilmatch_holder::HolderCard;
use veilmatch_keyholder::card::fingerprint;
use veilmatch_keyholder::config::{Config, ConfigError};
use veilmatch_keyholder::keyfile::{Cost, KeyFileError, Unlock};
use veilmatch_keyholder::restore::{Restoring, RestoringError};
use veilmatch_keyholder::setup::{SetupError, init, rewrite_card};
use veilmatch_keyholder::share::{ShareError, install_share};
use veilmatch_keyholder::{ServeError, Server};

const EXAMPLES: &str = "\
Examples:
  # Once, on the machine of the key holder: keys, and the card for the two others
  VEILMATCH_KEY_FILE=/run/credentials/k0.unlock veilmatch-keyholder init --config k0.toml
  # From then on
  VEILMATCH_KEY_FILE=/run/credentials/k0.unlock veilmatch-keyholder --config k0.toml
  # On a new machine, if the old one is lost: the configuration, certificate and all three cards are enough
  VEILMATCH_KEY_FILE=/run/credentials/k0.unlock veilmatch-keyholder restore --config k0.toml
  # Once for collections of the scheme paillier, while the key holder does not run: what `veilmatch dealer` made for it
  VEILMATCH_KEY_FILE=/run/credentials/k0.unlock veilmatch-keyholder install-share k0.share --config k0.toml \\
      --fingerprint \"3f21 90ab 5c7e 0d11 8a42 77f0 c9d3 2b6e 41aa 905f\"

The key file is unlocked with VEILMATCH_KEY_PASSPHRASE, with the file that VEILMATCH_KEY_FILE names, or with
`keys.unlock` of the configuration: exactly one of them.

Exit codes: 0 ended as asked, 2 wrong arguments or configuration, 3 cannot start or cannot go on.";

/// Serves one of the three key holders.
#[derive(Parser)]
#[command(name = "veilmatch-keyholder", version, after_help = EXAMPLES)]
struct Arguments {
    /// Configuration file; server/keyholder/samples/keyholder.toml shows every key
    #[arg(long, global = true, value_name = "FILE", default_value = "keyholder.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Draws the holder's keys, writes key file and card, and prints the fingerprint; never overwrites
    Init,
    /// Makes a lost holder again on a new machine, from the two others: prints the fingerprint of a fresh key, waits until
    /// administrators have allowed it at both, and writes key file and memory
    Restore,
    /// Stores this holder's share of a threshold key of the scheme `paillier`, from the file that the dealer sealed to its card.
    /// The key holder must not run meanwhile
    InstallShare {
        /// The file
        #[arg(value_name = "FILE.share")]
        file: PathBuf,
        /// Fingerprint of the public key, as the dealer printed it: ask for it over a second channel, anybody could seal a share
        #[arg(long, value_name = "HEX")]
        fingerprint: String,
    },
    /// Writes the card of the key file that is there, and prints its fingerprint
    Card,
}

/// Why the command ends with a code other than 0.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Unlock(#[from] KeyFileError),
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Restore(#[from] RestoringError),
    #[error(transparent)]
    Share(#[from] ShareError),
    #[error("cannot start or print: {0}")]
    Io(#[from] io::Error),
}

impl Failure {
    fn advice(&self) -> &'static str {
        match self {
            Self::Config(e) => e.advice(),
            Self::Unlock(e) => e.advice(),
            Self::Setup(e) => e.advice(),
            Self::Serve(e) => e.advice(),
            Self::Restore(e) => e.advice(),
            Self::Share(e) => e.advice(),
            Self::Io(_) => "check the limits of this user and where the output goes",
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            _ => 3,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match execute(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to tell if this fails.
            let _ = writeln!(io::stderr(), "error: {failure}\n  {}", failure.advice());
            ExitCode::from(failure.exit_code())
        }
    }
}

fn execute(arguments: &Arguments) -> Result<(), Failure> {
    let config = Config::load(&arguments.config)?;
    let unlock = Unlock::from_environment(config.unlock.as_deref())?;
    match &arguments.command {
        None => serve(config, unlock),
        Some(Command::Init) => Ok(tell(&init(&config, &unlock, Cost::default())?, &config.key_file)?),
        Some(Command::Restore) => restore(config, unlock),
        Some(Command::InstallShare { file, fingerprint }) => {
            let parameters = install_share(&config, &unlock, file, fingerprint)?;
            writeln!(io::stdout(), "stored key holder {}'s share of {parameters}: start the key holder", config.party)?;
            Ok(())
        }
        Some(Command::Card) => Ok(tell(&rewrite_card(&config, &unlock)?, &config.key_file)?),
    }
}

fn tell(card: &HolderCard, key_file: &Path) -> io::Result<()> {
    writeln!(
        io::stdout(),
        "key holder {}\nkey file: {}\nfingerprint of its card: {}",
        card.party,
        key_file.display(),
        fingerprint(card)
    )
}

fn restore(config: Config, unlock: Unlock) -> Result<(), Failure> {
    veilmatch_service::start_logs(config.log);
    let restoring = Restoring::begin(config, unlock, Cost::default())?;
    let hex: String = restoring.fingerprint().0.iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(io::stdout(), "fingerprint of the fresh key: {hex}")?;
    let runtime = veilmatch_service::start_runtime()?;
    runtime.block_on(restoring.finish(Cost::default()))?;
    writeln!(io::stdout(), "restored: start the key holder, then begin a new epoch at all three")?;
    Ok(())
}

fn serve(config: Config, unlock: Unlock) -> Result<(), Failure> {
    veilmatch_service::start_logs(config.log);
    let runtime = veilmatch_service::start_runtime()?;
    runtime.block_on(async {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Server::open(config, unlock).await?.serve(either(terminate, interrupt)).await?)
    })
}

async fn either(mut terminate: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
