//! One party of a deployment, in this process: what `veilmatch up` starts as children of itself.

use std::path::Path;

use veilmatch_keyholder::keyfile::Unlock;
use veilmatch_service::{ended_by_signal, start_logs, start_runtime};

use super::{DeploymentError, Role};
use crate::exit::CliError;

/// Runs a party until it is told to end.
///
/// # Errors
/// [`CliError`] with the party's own error.
pub fn serve(role: Role, config: &Path) -> Result<(), CliError> {
    let runtime = start_runtime().map_err(|e| {
        let reason = e.kind().to_string();
        CliError::protocol(DeploymentError::Process { role: role.to_string(), reason })
    })?;
    match role {
        Role::Matcher => {
            let config = veilmatch_matcher::Config::load(config).map_err(CliError::protocol)?;
            start_logs(config.log);
            runtime.block_on(veilmatch_matcher::run(config, ended_by_signal())).map_err(CliError::protocol)
        }
        Role::Twin => {
            let config = veilmatch_matcher::TwinConfig::load(config).map_err(CliError::protocol)?;
            start_logs(config.log);
            runtime.block_on(veilmatch_matcher::run_twin(config, ended_by_signal())).map_err(CliError::protocol)
        }
        Role::Holder(_) => {
            let config = veilmatch_keyholder::config::Config::load(config).map_err(CliError::protocol)?;
            let unlock = Unlock::from_environment(config.unlock.as_deref()).map_err(CliError::protocol)?;
            start_logs(config.log);
            runtime.block_on(veilmatch_keyholder::run(config, unlock, ended_by_signal())).map_err(CliError::protocol)
        }
    }
}
