//! The engine of the demonstration: the real services, as child processes on loopback ports with mutual TLS from a
//! throw-away authority, behind [`Engine`].

use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use veilmatch_domain::{CollectionId, Decision, Embedding, Outcome, Party, Policy, Query, SubjectId};
use veilmatch_gallery::layout_for;
use veilmatch_glwe::{GLWE_2048_V1, decision_noise};
use veilmatch_sdk::{Ask, Collection, Error};
use veilmatch_secret::os_entropy;
use veilmatch_threshold::Dealer;

use crate::engine::{Bytes, Engine, Scheme, Setup, Traffic};
use crate::exit::CliError;
use crate::local::{Deployment, DeploymentError, Ports, Running};

struct Services {
    runtime: Runtime,
    /// `None` only while the processes are being stopped.
    running: Option<Running>,
    collection: Collection,
    setup: Setup,
    /// Removed with everything in it at the end.
    _folder: TempDir,
}

/// The ceremony: starts four servers in a temporary folder, holds the key ceremony and creates the collection. Under `paillier` a
/// dealer looks for two safe primes first, and there is a twin.
///
/// # Errors
/// [`CliError`].
pub fn found(setup: &Setup) -> Result<Box<dyn Engine>, CliError> {
    let no_folder =
        |e: std::io::Error| CliError::protocol(DeploymentError::Folder { path: std::env::temp_dir(), kind: e.kind() });
    let folder = tempfile::Builder::new().prefix("veilmatch-").tempdir().map_err(no_folder)?;
    let program = std::env::current_exe().map_err(no_folder)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(no_folder)?;
    let policy = Policy {
        lowest_threshold: setup.lowest_threshold,
        highest_threshold: setup.highest_threshold,
        scheme: setup.scheme.name(),
        ..Policy::permissive(setup.dimension)
    };
    let (running, collection) = runtime.block_on(async {
        let ports = Ports::free().map_err(CliError::protocol)?;
        let deployment = Deployment::create(&folder.path().join("demo"), ports).map_err(CliError::protocol)?;
        if let Scheme::Paillier(size) = setup.scheme {
            let dealt = Dealer::new(size).deal(&|_| {}, os_entropy().as_mut()).map_err(CliError::protocol)?;
            deployment.keep_key(&dealt).map_err(CliError::protocol)?;
            deployment.add_twin(ports.twin, ports.twin_metrics).map_err(CliError::protocol)?;
        }
        let running = Running::start(&program, deployment).await?;
        let name = CollectionId::new("demo").map_err(CliError::protocol)?;
        running.create_collection(&name, policy).await?;
        let collection = running.deployment().client()?.collection(name.as_str()).map_err(stopped)?;
        Ok::<_, CliError>((running, collection))
    })?;
    Ok(Box::new(Services { runtime, running: Some(running), collection, setup: setup.clone(), _folder: folder }))
}

impl Engine for Services {
    fn enroll(&mut self, people: &[(SubjectId, Embedding)], progress: &dyn Fn(usize)) -> Result<(), CliError> {
        let (send, mut counts) = tokio::sync::mpsc::unbounded_channel();
        let (collection, people) = (self.collection.clone(), people.to_vec());
        let enrolment = self.runtime.block_on(async {
            let enrolling = tokio::spawn(async move {
                collection
                    .enroll_many(people, move |p| {
                        // Nobody counts any more only if this function has ended.
                        let _ = send.send(p.done);
                    })
                    .await
                    .map_err(|e| stopped(e.error))
            });
            while let Some(count) = counts.recv().await {
                progress(count);
            }
            enrolling.await
        });
        let enrolment = enrolment.map_err(|e| {
            let reason = e.to_string();
            CliError::protocol(DeploymentError::Process { role: String::from("client"), reason })
        })??;
        match enrolment.refused().next() {
            Some((_, refusal)) => Err(CliError::Refused {
                code: refusal.code.clone(),
                status: refusal.status(),
                message: refusal.message.clone(),
            }),
            None => self.runtime.block_on(self.searchable()),
        }
    }

    fn ask(&mut self, probe: &Embedding, query: &Query) -> Result<Outcome, CliError> {
        let (collection, threshold) = (&self.collection, query.threshold);
        let identify = |ask| self.runtime.block_on(collection.identify(probe, ask, threshold));
        match &query.decision {
            Decision::Verify { subject } => {
                self.runtime.block_on(collection.verify(subject.as_str(), probe, threshold)).map(Outcome::Verify)
            }
            Decision::Exists => identify(Ask::Exists),
            Decision::Matches { max_matches } => identify(Ask::Matches { max: *max_matches }),
            Decision::Best => identify(Ask::Best),
        }
        .map_err(stopped)
    }

    fn erase(&mut self, subject: &SubjectId) -> Result<(), CliError> {
        self.runtime.block_on(self.collection.erase(subject.as_str())).map_err(stopped)?;
        Ok(())
    }

    /// The noise of the narrowest layout that this many people are indexed with; groups with wider blocks have less.
    fn noise_std(&self) -> f64 {
        if let Scheme::Paillier(_) = self.setup.scheme {
            return veilmatch_paillier::decision_noise(GLWE_2048_V1.decision_bits);
        }
        let layout = layout_for(&GLWE_2048_V1, self.setup.dimension, self.setup.members);
        decision_noise(&GLWE_2048_V1, layout, self.setup.dimension).0
    }

    fn traffic(&self) -> Traffic {
        self.runtime.block_on(self.count()).unwrap_or_default()
    }
}

/// How long the index may stand still before nobody waits for it any more.
const STANDSTILL: Duration = Duration::from_secs(60);

impl Services {
    /// Waits until everybody who is enrolled can be found: groups are built after the answers.
    async fn searchable(&self) -> Result<(), CliError> {
        let (mut least, mut since) = (u64::MAX, Instant::now());
        loop {
            let pending = self.collection.info().await.map_err(stopped)?.pending;
            if pending == 0 {
                return Ok(());
            }
            if pending < least {
                (least, since) = (pending, Instant::now());
            }
            if since.elapsed() > STANDSTILL {
                let reason = format!("{pending} people are not searchable, and none became so for {STANDSTILL:?}");
                return Err(CliError::protocol(DeploymentError::Process { role: String::from("matcher"), reason }));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The bytes that the parties have counted, from their metrics.
    async fn count(&self) -> Option<Traffic> {
        let ports = self.running.as_ref()?.deployment().ports().ok()?;
        let matcher = scrape(ports.matcher_metrics).await?;
        let of = |text: &str, name: &str| sum(text, name);
        let client = Bytes {
            sent: of(&matcher, "veilmatch_client_received_bytes_total"),
            received: of(&matcher, "veilmatch_client_sent_bytes_total"),
        };
        let link = |text: &str| Bytes {
            sent: of(text, "veilmatch_link_sent_bytes_total"),
            received: of(text, "veilmatch_link_received_bytes_total"),
        };
        let own = link(&matcher);
        let mut holders = [Bytes::default(); 3];
        for (bytes, party) in holders.iter_mut().zip(Party::ALL) {
            *bytes = link(&scrape(*ports.holder_metrics.get(party.index())?).await?);
        }
        let twin = match self.setup.scheme {
            Scheme::Glwe => None,
            Scheme::Paillier(_) => Some(link(&scrape(ports.twin_metrics).await?)),
        };
        let [k0, k1, k2] = holders;
        let matcher = Bytes { sent: own.sent + client.received, received: own.received + client.sent };
        Some(Traffic { client, matcher, k0, k1, k2, twin })
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.processes.stop());
        }
    }
}

/// The metrics of a process on this machine, as text.
pub(crate) async fn scrape(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    Some(text)
}

/// The sum of a counter over its labels.
pub(crate) fn sum(text: &str, name: &str) -> u64 {
    text.lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum::<f64>() as u64
}

/// Keeps code, status and message of whoever refused.
pub(crate) fn stopped(error: Error) -> CliError {
    match error.refusal() {
        Some(refusal) => {
            CliError::Refused { code: refusal.code.clone(), status: refusal.status(), message: refusal.message.clone() }
        }
        None => CliError::protocol(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_their_labels_alone() {
        let text = "# TYPE a_total counter\na_total{x=\"1\"} 3\na_total{x=\"2\"} 4\na_total_more 9\n\nb 1\n";
        assert_eq!((sum(text, "a_total"), sum(text, "b"), sum(text, "c")), (7, 1, 0));
    }
}
