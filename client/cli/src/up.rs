//! `veilmatch up`: a whole deployment on this machine, kept running until it is told to end.

use std::time::Duration;

use serde::Serialize;
use veilmatch_domain::{CollectionId, Policy, SchemeName};
use veilmatch_service::ended_by_signal;

use crate::arguments::UpArguments;
use crate::dealer;
use crate::exit::CliError;
use crate::local::{Deployment, DeploymentError, Ports, Role, Running};
use crate::report::{self, Progress, Report};
use crate::space;

/// What runs where.
#[derive(Serialize)]
struct UpReport {
    folder: String,
    profile: String,
    key_epoch: Option<u32>,
    processes: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    role: String,
    pid: Option<u32>,
    address: String,
    metrics: String,
}

impl Report for UpReport {
    fn outside_band(&self) -> u64 {
        0
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .processes
            .iter()
            .map(|line| {
                let pid = line.pid.map(|pid| pid.to_string()).unwrap_or_default();
                vec![line.role.clone(), pid, line.address.clone(), line.metrics.clone()]
            })
            .collect();
        let table = report::table(&["process", "pid", "address", "metrics"], &[1], &rows);
        let epoch = self.key_epoch.map(|e| e.to_string()).unwrap_or_default();
        format!(
            "{table}\n\nKey epoch {epoch}. In another terminal:\n  export VEILMATCH_PROFILE={}\n  veilmatch info\n\
             Logs are in {}/logs. Ctrl-C ends everything in order.\n",
            self.profile, self.folder
        )
    }
}

/// Starts a deployment, says what runs where, and keeps it running.
///
/// # Errors
/// [`CliError`].
pub fn run(arguments: &UpArguments, json: bool, progress: &Progress) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::Output)?;
    runtime.block_on(up(arguments, json, progress))
}

async fn up(arguments: &UpArguments, json: bool, progress: &Progress) -> Result<(), CliError> {
    let deployment = match Deployment::find(&arguments.dir) {
        Some(deployment) => deployment,
        None => {
            let _bar = progress.stage("certificates and keys", 1);
            Ports::from_base(arguments.base_port)
                .and_then(|ports| Deployment::create(&arguments.dir, ports))
                .map_err(CliError::protocol)?
        }
    };
    if arguments.scheme == SchemeName::Paillier && !deployment.has_twin() {
        add_paillier(&deployment, arguments, progress)?;
    }
    let program = std::env::current_exe().map_err(|e| {
        CliError::protocol(DeploymentError::Process { role: String::from("veilmatch"), reason: e.to_string() })
    })?;
    let bar = progress.stage("starting", 1);
    let mut running = Running::start(&program, deployment).await?;
    drop(bar);
    if let Some(name) = &arguments.collection {
        let model = arguments.model.as_deref().map(|name| space::named_model(name, None)).transpose()?;
        create(&running, name, Policy { scheme: arguments.scheme, model, ..Policy::standard(arguments.dim) }).await?;
    }
    let found = report_of(&running).await?;
    report::write(&found, json, &mut std::io::stdout().lock()).map_err(CliError::Output)?;
    let end = ended_by_signal();
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            () = tokio::time::sleep(Duration::from_millis(500)) => {
                running.processes.keep_running().await.map_err(CliError::protocol)?;
            }
        }
    }
    running.processes.stop().await;
    Ok(())
}

/// Holds the dealer's ceremony, unless it was held and then interrupted, and makes the twin.
fn add_paillier(deployment: &Deployment, arguments: &UpArguments, progress: &Progress) -> Result<(), CliError> {
    if !deployment.is_dealt() {
        let dealt = dealer::deal(arguments.key_bits, progress)?;
        deployment.keep_key(&dealt).map_err(CliError::protocol)?;
    }
    let base = deployment.ports()?.matcher;
    let (port, metrics) = (base.saturating_add(8), base.saturating_add(9));
    deployment.add_twin(port, metrics).map_err(CliError::protocol)
}

/// Creates the collection unless it is there: a policy that was changed since stays as it is.
async fn create(running: &Running, name: &CollectionId, policy: Policy) -> Result<(), CliError> {
    let veilmatch = running.deployment().client()?;
    let there = veilmatch.collections().await.map_err(CliError::protocol)?.iter().any(|info| info.name == *name);
    if there { Ok(()) } else { running.create_collection(name, policy).await }
}

async fn report_of(running: &Running) -> Result<UpReport, CliError> {
    let deployment = running.deployment();
    let ports = deployment.ports()?;
    let line = |role: Role| {
        let (port, metrics) = match role {
            Role::Matcher => (ports.matcher, ports.matcher_metrics),
            Role::Twin => (ports.twin, ports.twin_metrics),
            Role::Holder(party) => (
                ports.holders.get(party.index()).copied().unwrap_or_default(),
                ports.holder_metrics.get(party.index()).copied().unwrap_or_default(),
            ),
        };
        Line {
            role: role.to_string(),
            pid: running.processes.id(role),
            address: format!("https://127.0.0.1:{port}"),
            metrics: format!("http://127.0.0.1:{metrics}/metrics"),
        }
    };
    Ok(UpReport {
        folder: deployment.folder().display().to_string(),
        profile: deployment.profile().display().to_string(),
        key_epoch: running.operator.epoch().await?.map(|epoch| epoch.0),
        processes: deployment.roles().into_iter().map(line).collect(),
    })
}
