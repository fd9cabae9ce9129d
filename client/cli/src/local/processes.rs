//! The processes of a deployment, as children of this one.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use veilmatch_domain::Party;

use super::deployment::label;
use super::{Deployment, DeploymentError};

/// Whose process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A key holder.
    Holder(Party),
    /// The matcher's twin, if the deployment has one.
    Twin,
    /// The matcher.
    Matcher,
}

impl Role {
    /// Those of every deployment, holders first. [`Deployment::roles`] has the twin as well.
    pub const ALL: [Role; 4] =
        [Role::Holder(Party::K0), Role::Holder(Party::K1), Role::Holder(Party::K2), Role::Matcher];
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Role::Holder(party) => write!(f, "key holder {party}"),
            Role::Twin => f.write_str("twin"),
            Role::Matcher => f.write_str("matcher"),
        }
    }
}

/// The name of a role's folder and log.
fn name_of(role: Role) -> String {
    match role {
        Role::Holder(party) => label(party),
        Role::Twin => String::from("twin"),
        Role::Matcher => String::from("matcher"),
    }
}

/// How long a child has to end in order before it is killed.
const PATIENCE: Duration = Duration::from_secs(40);
/// A child that ran this long before it ended is started again at once; one that did not, after a pause.
const STABLE: Duration = Duration::from_secs(10);

struct Process {
    role: Role,
    child: Child,
    started: Instant,
    pause: Duration,
}

/// The processes. Killed when this is dropped; [`Processes::stop`] ends them in order.
pub struct Processes {
    program: PathBuf,
    deployment: Deployment,
    running: Vec<Process>,
}

impl std::fmt::Debug for Processes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Processes({})", self.deployment.folder().display())
    }
}

impl Processes {
    /// Starts all servers. `program` is the `veilmatch` to run them with. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`DeploymentError::Process`].
    pub fn start(program: &Path, deployment: &Deployment) -> Result<Self, DeploymentError> {
        let mut processes = Self { program: program.to_owned(), deployment: deployment.clone(), running: Vec::new() };
        for role in deployment.roles() {
            processes.spawn(role, Duration::ZERO)?;
        }
        Ok(processes)
    }

    fn spawn(&mut self, role: Role, pause: Duration) -> Result<(), DeploymentError> {
        let failed = |e: std::io::Error| DeploymentError::Process { role: role.to_string(), reason: e.to_string() };
        let name = name_of(role);
        let config = match role {
            Role::Holder(party) => self.deployment.holder_config(party),
            Role::Twin => self.deployment.twin_config(),
            Role::Matcher => self.deployment.matcher_config(),
        };
        let path = self.deployment.logs().join(format!("{name}.log"));
        let log = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        let child = Command::new(&self.program)
            .args(["serve", &name, "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // A signal of the terminal is for the parent, which ends its children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        self.running.push(Process { role, child, started: Instant::now(), pause });
        Ok(())
    }

    /// The process of a role.
    #[must_use]
    pub fn id(&self, role: Role) -> Option<u32> {
        self.running.iter().find(|p| p.role == role).and_then(|p| p.child.id())
    }

    /// Kills a process as a crash would (SIGKILL), and waits until it is gone.
    pub async fn kill(&mut self, role: Role) {
        if let Some(at) = self.running.iter().position(|p| p.role == role) {
            let mut process = self.running.swap_remove(at);
            let _ = process.child.kill().await;
        }
    }

    /// Starts a process that was killed or has ended.
    ///
    /// # Errors
    /// [`DeploymentError::Process`].
    pub async fn restart(&mut self, role: Role) -> Result<(), DeploymentError> {
        self.kill(role).await;
        self.spawn(role, Duration::ZERO)
    }

    /// Sends a process a signal.
    pub fn signal(&self, role: Role, signal: rustix::process::Signal) {
        if let Some(pid) = self.id(role).and_then(|id| rustix::process::Pid::from_raw(id as i32)) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Starts again whatever has ended by itself; says which roles did.
    ///
    /// # Errors
    /// [`DeploymentError::Process`].
    pub async fn keep_running(&mut self) -> Result<Vec<Role>, DeploymentError> {
        let mut ended = Vec::new();
        let mut at = 0;
        while let Some(process) = self.running.get_mut(at) {
            if matches!(process.child.try_wait(), Ok(None)) {
                at += 1;
                continue;
            }
            let process = self.running.swap_remove(at);
            let stable = process.started.elapsed() >= STABLE;
            let pause =
                if stable { Duration::ZERO } else { (2 * process.pause).clamp(Duration::from_millis(500), STABLE) };
            ended.push((process.role, pause));
        }
        for (role, pause) in &ended {
            sleep(*pause).await;
            self.spawn(*role, *pause)?;
        }
        Ok(ended.into_iter().map(|(role, _)| role).collect())
    }

    /// Whether a process has ended: then there is no use in waiting for it.
    ///
    /// # Errors
    /// [`DeploymentError::Process`] with the last line of its log.
    pub fn check(&mut self) -> Result<(), DeploymentError> {
        for process in &mut self.running {
            if let Ok(Some(status)) = process.child.try_wait() {
                let name = name_of(process.role);
                let log = std::fs::read_to_string(self.deployment.logs().join(format!("{name}.log")));
                let last = log.unwrap_or_default().lines().rev().take(2).collect::<Vec<_>>().join(" / ");
                let reason = format!("it ended with {status}: {last}");
                return Err(DeploymentError::Process { role: process.role.to_string(), reason });
            }
        }
        Ok(())
    }

    /// Ends all processes in order: the matcher first, so that it can finish what it has acknowledged.
    pub async fn stop(mut self) {
        self.running.sort_by_key(|p| std::cmp::Reverse(p.role));
        for role in self.deployment.roles().into_iter().rev() {
            self.signal(role, rustix::process::Signal::TERM);
            if let Some(process) = self.running.iter_mut().find(|p| p.role == role)
                && timeout(PATIENCE, process.child.wait()).await.is_err()
            {
                let _ = process.child.kill().await;
            }
        }
    }
}
