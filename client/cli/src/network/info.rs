//! `veilmatch info`: the matcher and what it is connected to.

use clap::Args;
use serde::Serialize;
use veilmatch_domain::Party;

use super::{Answer, Output, Session, finish};
use crate::exit::{CliError, Verdict};
use crate::services::stopped;

pub(super) const EXAMPLES: &str = "\
Examples:
  veilmatch info
  veilmatch --profile /etc/veilmatch/gate-7.toml info --json";

/// Arguments of `info`.
#[derive(Clone, Debug, Args)]
pub struct InfoArguments {
    /// The report.
    #[command(flatten)]
    pub output: Output,
}

#[derive(Serialize)]
struct Info {
    matcher: String,
    version: String,
    parameters: String,
    key_epoch: Option<u32>,
    connected: Vec<String>,
    collections: u64,
    max_batch: u32,
    max_message_bytes: u64,
}

impl Answer for Info {
    fn text(&self) -> String {
        let epoch = self.key_epoch.map_or_else(|| String::from("none: no key ceremony yet"), |epoch| epoch.to_string());
        let connected = if self.connected.is_empty() { String::from("none") } else { self.connected.join(", ") };
        format!(
            "matcher      {} (version {})\nparameters   {}\nkey epoch    {epoch}\nkey holders  {connected} connected\n\
             collections  {}\n",
            self.matcher, self.version, self.parameters, self.collections
        )
    }
}

pub(super) async fn run(session: &Session<'_>, arguments: &InfoArguments) -> Result<Verdict, CliError> {
    let profile = session.profile()?;
    let veilmatch = session.connect(&profile).await?;
    let info = veilmatch.server_info().await.map_err(stopped)?;
    let answer = Info {
        matcher: profile.matcher()?.to_string(),
        version: info.version,
        parameters: info.parameters,
        key_epoch: info.key_epoch.map(|epoch| epoch.0),
        connected: info.connected.iter().map(Party::to_string).collect(),
        collections: info.collections,
        max_batch: info.max_batch,
        max_message_bytes: info.max_message_bytes,
    };
    finish(&answer, arguments.output.json)
}
