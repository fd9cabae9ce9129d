//! The command `veilmatch`: parses, dispatches, exits. Everything else is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    veilmatch_cli::run(std::env::args_os(), &veilmatch_cli::services::found, &veilmatch_cli::encrypted::found)
}
