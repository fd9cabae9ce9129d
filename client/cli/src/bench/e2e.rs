//! `veilmatch bench e2e`: what the real services take on this machine, by stage and party.
//!
//! Starts a deployment as the demonstration does, enrols in bulk and one by one, asks, first alone and then with several
//! clients at once, and reads the stages, bytes, memory and disk space of each process. All five parties share this
//! machine's cores, so times are sums of everybody's work.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use veilmatch_domain::{CollectionId, Dimension, Embedding, Outcome, Policy, SubjectId, Threshold};
use veilmatch_sdk::{Ask, Collection};

use super::spread::Times;
use crate::arguments::dimension;
use crate::exit::CliError;
use crate::local::{Deployment, DeploymentError, Ports, Role, Running};
use crate::report::{self, Progress, Report, count, milliseconds};
use crate::services::{scrape, stopped, sum};
use crate::synthetic;

pub(super) const EXAMPLES: &str = "\
Examples:
  veilmatch bench e2e
  veilmatch bench e2e --gallery 10000 --dim 256 --repeat 50 --clients 1,8,32 --json

All five parties share this machine: times contain everybody's work.";

/// Arguments of `bench e2e`.
#[derive(Clone, Debug, Args)]
pub struct E2eArguments {
    /// How many people to enrol in bulk
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub gallery: u32,
    /// Dimension of the synthetic embeddings, 16 to 1024
    #[arg(long, value_name = "D", default_value = "512", value_parser = dimension)]
    pub dim: Dimension,
    /// How many questions of each kind, and for each number of clients
    #[arg(long, alias = "queries", value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub repeat: u32,
    /// How many clients search at once: one number or several
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1,8,32", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub clients: Vec<u16>,
    /// Write one JSON object to standard output and nothing else
    #[arg(long)]
    pub json: bool,
}

/// Answers do not matter here; only the time that they take.
const THRESHOLD: f64 = 0.427;
/// People that are enrolled one by one.
const SINGLES: usize = 20;
/// Searches after the restart, at most.
const RESTART_ASKED: usize = 50;

/// Means of the stages of `identify`, in milliseconds. `network` is what the client waits beyond the matcher's work.
#[derive(Clone, Copy, Debug, Serialize)]
struct Stages {
    client_seal: f64,
    recrypt: f64,
    scan: f64,
    decide: f64,
    network_and_queues: f64,
}

#[derive(Clone, Debug, Serialize)]
struct Process {
    role: String,
    memory_bytes: u64,
    sent_bytes_per_identify: u64,
    received_bytes_per_identify: u64,
    disk_bytes: u64,
}

/// Several clients that search at once, each with its next probe as soon as it has its answer.
#[derive(Clone, Debug, Serialize)]
struct Throughput {
    clients: usize,
    decision: &'static str,
    queries_per_second: f64,
    latency: Times,
    /// Queries that were refused, because a budget or a queue was full say; they are in neither of the others.
    refused: usize,
}

/// All processes killed at once and started again, as after a power failure.
#[derive(Clone, Debug, Serialize)]
struct Restart {
    /// From the first start until the first answer to `identify`.
    ready_ms: f64,
    /// Searches for people who are enrolled, asked afterwards.
    asked: usize,
    /// How many of them found nobody, or somebody else.
    wrong: usize,
    /// The matcher's resident memory after them.
    matcher_memory_bytes: u64,
    /// The packed index on its disk.
    index_bytes: u64,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct E2eReport {
    bench: &'static str,
    gallery: usize,
    dim: usize,
    repeat: usize,
    start_ms: f64,
    /// From the first template until everybody is searchable.
    bulk_load_s: f64,
    enroll_bulk_per_second: f64,
    enroll_single: Times,
    identify_best: Times,
    identify_exists: Times,
    verify: Times,
    throughput: Vec<Throughput>,
    stages_ms: Stages,
    probe_bytes: u64,
    matcher_disk_bytes_per_template: f64,
    processes: Vec<Process>,
    restart: Restart,
}

impl Report for E2eReport {
    fn outside_band(&self) -> u64 {
        0
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn text(&self) -> String {
        let line = |name: &str, t: &Times| {
            vec![name.to_owned(), t.calls.to_string(), format!("{:.1}", t.p50), format!("{:.1}", t.p99)]
        };
        let calls = report::table(
            &["call", "times", "p50 ms", "p99 ms"],
            &[1, 2, 3],
            &[
                line("enroll one", &self.enroll_single),
                line("verify", &self.verify),
                line("identify: exists", &self.identify_exists),
                line("identify: best", &self.identify_best),
            ],
        );
        let throughput: Vec<Vec<String>> = self
            .throughput
            .iter()
            .map(|t| {
                vec![
                    format!("identify: {}", t.decision),
                    t.clients.to_string(),
                    format!("{:.1}", t.queries_per_second),
                    format!("{:.1}", t.latency.p50),
                    format!("{:.1}", t.latency.p99),
                    t.refused.to_string(),
                ]
            })
            .collect();
        let throughput = report::table(
            &["search", "clients", "per second", "p50 ms", "p99 ms", "refused"],
            &[1, 2, 3, 4, 5],
            &throughput,
        );
        let stages = &self.stages_ms;
        let stages = report::table(
            &["stage of identify: best", "mean ms"],
            &[1],
            &[
                ("client: seal and sign", stages.client_seal),
                ("recrypt of the probe", stages.recrypt),
                ("scan", stages.scan),
                ("check and decision", stages.decide),
                ("network and queues", stages.network_and_queues),
            ]
            .map(|(name, ms)| vec![name.to_owned(), format!("{ms:.1}")]),
        );
        let processes: Vec<Vec<String>> = self
            .processes
            .iter()
            .map(|p| {
                vec![
                    p.role.clone(),
                    report::bytes(p.memory_bytes),
                    report::bytes(p.sent_bytes_per_identify),
                    report::bytes(p.received_bytes_per_identify),
                    report::bytes(p.disk_bytes),
                ]
            })
            .collect();
        let processes = report::table(
            &["process", "memory", "sent per identify", "received per identify", "disk"],
            &[1, 2, 3, 4],
            &processes,
        );
        let again = &self.restart;
        format!(
            "{} people of {} dimensions; all five parties on this machine.\n\
             Start with key ceremony: {:.0} ms. Bulk enrolment: {:.1} s, {:.0} templates per second.\n\
             A probe takes {} on the wire, a template {:.0} bytes on the matcher's disk.\n\n\
             {calls}\n\n{throughput}\n\n{stages}\n\n{processes}\n\n\
             All processes killed and started again: the first answer after {:.1} s; {} of {} people found; the matcher holds {} for an index of {}.\n",
            count(self.gallery as u64),
            self.dim,
            self.start_ms,
            self.bulk_load_s,
            self.enroll_bulk_per_second,
            report::bytes(self.probe_bytes),
            self.matcher_disk_bytes_per_template,
            again.ready_ms / 1e3,
            again.asked - again.wrong,
            again.asked,
            report::bytes(again.matcher_memory_bytes),
            report::bytes(again.index_bytes),
        )
    }
}

/// Measures.
///
/// # Errors
/// [`CliError`].
pub(super) fn measure(arguments: &E2eArguments, progress: &Progress) -> Result<E2eReport, CliError> {
    let no_folder =
        |e: std::io::Error| CliError::protocol(DeploymentError::Folder { path: std::env::temp_dir(), kind: e.kind() });
    let folder = tempfile::Builder::new().prefix("veilmatch-").tempdir().map_err(no_folder)?;
    let program = std::env::current_exe().map_err(no_folder)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(no_folder)?;
    runtime.block_on(measure_services(arguments, &program, folder.path(), progress))
}

async fn measure_services(
    arguments: &E2eArguments,
    program: &Path,
    folder: &Path,
    progress: &Progress,
) -> Result<E2eReport, CliError> {
    let gallery = arguments.gallery as usize;
    let queries = arguments.repeat as usize;
    let threshold = Threshold::new(THRESHOLD).map_err(CliError::protocol)?;
    let images = synthetic::people(gallery + SINGLES, 1, arguments.dim, 1)?;
    let mut people = Vec::with_capacity(images.len());
    for (i, mut own) in images.into_iter().enumerate() {
        let subject = SubjectId::new(format!("person-{i}")).map_err(CliError::protocol)?;
        people.push((subject, own.swap_remove(0)));
    }
    let singles = people.split_off(gallery);

    let bar = progress.stage("start", 1);
    let begun = Instant::now();
    let ports = Ports::free().map_err(CliError::protocol)?;
    let deployment = Deployment::create(&folder.join("bench"), ports).map_err(CliError::protocol)?;
    let mut running = Running::start(program, deployment).await?;
    let start_ms = milliseconds(begun.elapsed());
    drop(bar);
    let name = CollectionId::new("bench").map_err(CliError::protocol)?;
    running.create_collection(&name, Policy::permissive(arguments.dim)).await?;
    let collection = running.deployment().client()?.collection(name.as_str()).map_err(stopped)?;

    let bar = progress.stage("enroll", gallery);
    let begun = Instant::now();
    let bulk = collection.enroll_many(people.clone(), |p| bar.reach(p.done)).await.map_err(|e| stopped(e.error))?;
    let bulk_load_s = begun.elapsed().as_secs_f64();
    let enroll_bulk_per_second = bulk.accepted() as f64 / bulk_load_s;
    drop(bar);
    let mut times = Vec::new();
    for (subject, embedding) in &singles {
        let begun = Instant::now();
        collection.enroll(subject.as_str(), embedding).await.map_err(stopped)?;
        times.push(begun.elapsed());
    }
    let enroll_single = Times::of(times);
    settle(&running, &collection).await?;

    let bar = progress.stage("ask", 3 * queries);
    let mut verify = Vec::with_capacity(queries);
    let mut exists = Vec::with_capacity(queries);
    let mut best = Vec::with_capacity(queries);
    let probe = |i: usize| people.get(i % people.len().max(1));
    for (subject, embedding) in (0..queries).filter_map(probe) {
        let begun = Instant::now();
        collection.verify(subject.as_str(), embedding, threshold).await.map_err(stopped)?;
        verify.push(begun.elapsed());
        bar.step();
    }
    for (_, embedding) in (0..queries).filter_map(probe) {
        let begun = Instant::now();
        collection.identify(embedding, Ask::Exists, threshold).await.map_err(stopped)?;
        exists.push(begun.elapsed());
        bar.step();
    }
    let before = counters(&running).await?;
    for (_, embedding) in (0..queries).filter_map(probe) {
        let begun = Instant::now();
        collection.identify(embedding, Ask::Best, threshold).await.map_err(stopped)?;
        best.push(begun.elapsed());
        bar.step();
    }
    let after = counters(&running).await?;
    drop(bar);
    let mut throughput = Vec::new();
    let probes: Arc<[Embedding]> = people.iter().map(|(_, embedding)| embedding.clone()).collect();
    for clients in arguments.clients.iter().map(|&c| usize::from(c)) {
        for (decision, ask) in [("exists", Ask::Exists), ("best", Ask::Best)] {
            throughput
                .push(together(&collection, &probes, (decision, ask), threshold, clients, queries, progress).await?);
        }
    }
    let identify_best = Times::of(best);
    let client_seal = milliseconds(seal_time(&running, &name, &people)?);
    let since = |stage: &str| (after.stage(stage) - before.stage(stage)) * 1e3 / queries as f64;
    let (recrypt, scan, decide) = (since("recrypt"), since("scan"), since("decide"));
    let network_and_queues = (identify_best.mean - client_seal - recrypt - scan - decide).max(0.0);
    let disk = |name: &str| disk_bytes(&running.deployment().folder().join(name));
    let processes: Vec<Process> = Role::ALL
        .into_iter()
        .zip(after.links.iter().zip(&before.links))
        .map(|(role, (after, before))| Process {
            role: role.to_string(),
            memory_bytes: running.processes.id(role).and_then(resident).unwrap_or_default(),
            sent_bytes_per_identify: after.0.saturating_sub(before.0) / queries as u64,
            received_bytes_per_identify: after.1.saturating_sub(before.1) / queries as u64,
            disk_bytes: match role {
                Role::Holder(party) => disk(&format!("k{}", party.index())),
                Role::Matcher => disk("matcher"),
                Role::Twin => disk("twin"),
            },
        })
        .collect();
    let matcher_disk = disk("matcher/data") as f64;
    let restart = start_again(&mut running, &name, &people, queries.min(RESTART_ASKED), progress).await?;
    let report = E2eReport {
        bench: "e2e",
        gallery,
        dim: arguments.dim.get(),
        repeat: queries,
        start_ms,
        bulk_load_s,
        enroll_bulk_per_second,
        enroll_single,
        identify_best,
        identify_exists: Times::of(exists),
        verify: Times::of(verify),
        throughput,
        stages_ms: Stages { client_seal, recrypt, scan, decide, network_and_queues },
        probe_bytes: veilmatch_sealed::sealed_bytes(arguments.dim) as u64,
        matcher_disk_bytes_per_template: matcher_disk / (gallery + SINGLES) as f64,
        processes,
        restart,
    };
    running.processes.stop().await;
    Ok(report)
}

/// Kills everything, starts it again, and looks for people spread over the whole gallery.
async fn start_again(
    running: &mut Running,
    name: &CollectionId,
    people: &[(SubjectId, Embedding)],
    asked: usize,
    progress: &Progress,
) -> Result<Restart, CliError> {
    let bar = progress.stage("restart", asked);
    let index_bytes = disk_bytes(&running.deployment().folder().join("matcher/data/index"));
    for role in Role::ALL {
        running.processes.kill(role).await;
    }
    let begun = Instant::now();
    for role in Role::ALL {
        running.processes.restart(role).await.map_err(CliError::protocol)?;
    }
    running.wait_for_holders().await?;
    running.wait_for_matcher().await?;
    let collection = running.deployment().client()?.collection(name.as_str()).map_err(stopped)?;
    let threshold = Threshold::new(THRESHOLD).map_err(CliError::protocol)?;
    let (mut ready_ms, mut wrong) = (0.0, 0);
    let some: Vec<_> = people.iter().step_by(people.len().div_ceil(asked.max(1)).max(1)).take(asked).collect();
    for (subject, embedding) in &some {
        let outcome = collection.identify(embedding, Ask::Best, threshold).await.map_err(stopped)?;
        if ready_ms == 0.0 {
            ready_ms = milliseconds(begun.elapsed());
        }
        wrong += usize::from(outcome != Outcome::Best(Some(subject.clone())));
        bar.step();
    }
    let matcher_memory_bytes = running.processes.id(Role::Matcher).and_then(resident).unwrap_or_default();
    Ok(Restart { ready_ms, asked: some.len(), wrong, matcher_memory_bytes, index_bytes })
}

/// So many clients ask until `queries` questions are answered or refused, at least one each.
async fn together(
    collection: &Collection,
    probes: &Arc<[Embedding]>,
    (decision, ask): (&'static str, Ask),
    threshold: Threshold,
    clients: usize,
    queries: usize,
    progress: &Progress,
) -> Result<Throughput, CliError> {
    let queries = queries.max(clients);
    let bar = progress.stage("ask together", queries);
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let (collection, probes, next) = (collection.clone(), Arc::clone(probes), Arc::clone(&next));
        tasks.spawn(async move {
            let (mut times, mut refused) = (Vec::new(), 0usize);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(probe) = probes.get(number % probes.len().max(1)).filter(|_| number < queries) else { break };
                let begun = Instant::now();
                match collection.identify(probe, ask, threshold).await {
                    Ok(_) => times.push(begun.elapsed()),
                    Err(error) if error.refusal().is_some() => refused += 1,
                    Err(error) => return Err(stopped(error)),
                }
            }
            Ok((times, refused))
        });
    }
    let (mut times, mut refused) = (Vec::with_capacity(queries), 0);
    while let Some(task) = tasks.join_next().await {
        let lost = |e: tokio::task::JoinError| {
            let reason = e.to_string();
            CliError::protocol(DeploymentError::Process { role: String::from("client"), reason })
        };
        let (of_one, refused_one) = task.map_err(lost)??;
        times.extend(of_one);
        refused += refused_one;
        bar.reach(times.len() + refused);
    }
    let queries_per_second = times.len() as f64 / begun.elapsed().as_secs_f64();
    Ok(Throughput { clients, decision, queries_per_second, latency: Times::of(times), refused })
}

/// Waits until everybody is searchable and the matcher says that its index is at rest, at most ten minutes.
async fn settle(running: &Running, collection: &Collection) -> Result<(), CliError> {
    let metrics = running.deployment().ports()?.matcher_metrics;
    for _ in 0..600 {
        let pending = collection.info().await.map_err(stopped)?.pending;
        let text = scrape(metrics).await.unwrap_or_default();
        if pending == 0 && sum(&text, "veilmatch_index_at_rest") == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// The mean time to seal a probe, on one core.
fn seal_time(
    running: &Running,
    collection: &CollectionId,
    people: &[(SubjectId, Embedding)],
) -> Result<Duration, CliError> {
    let options = running.deployment().client_options()?;
    let key = options.signing_key;
    let entropy = veilmatch_secret::os_entropy();
    let mut client =
        veilmatch_sdk::Client::with_key(options.client, options.template_version, options.holders, key, entropy);
    let now = veilmatch_service::now();
    let some = people.iter().take(50);
    let count = some.len().max(1) as u32;
    let begun = Instant::now();
    for (subject, embedding) in some {
        client.seal_template(collection, subject.clone(), embedding, now).map_err(CliError::protocol)?;
    }
    Ok(begun.elapsed() / count)
}

/// Counters of all processes: bytes sent and received in the order of [`Role::ALL`], and the matcher's metrics.
struct Counters {
    links: Vec<(u64, u64)>,
    matcher: String,
}

impl Counters {
    /// Seconds that a stage has taken altogether.
    fn stage(&self, stage: &str) -> f64 {
        let wanted = format!("stage=\"{stage}\"");
        self.matcher
            .lines()
            .filter(|line| line.starts_with("veilmatch_stage_seconds_sum{") && line.contains(&wanted))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

async fn counters(running: &Running) -> Result<Counters, CliError> {
    let ports = running.deployment().ports()?;
    let mut links = Vec::new();
    let mut matcher = String::new();
    for role in Role::ALL {
        let port = match role {
            Role::Holder(party) => ports.holder_metrics.get(party.index()).copied().unwrap_or_default(),
            Role::Matcher => ports.matcher_metrics,
            Role::Twin => ports.twin_metrics,
        };
        let text = scrape(port).await.ok_or_else(|| {
            let reason = String::from("its metrics cannot be read");
            CliError::protocol(DeploymentError::Process { role: role.to_string(), reason })
        })?;
        let mut bytes =
            (sum(&text, "veilmatch_link_sent_bytes_total"), sum(&text, "veilmatch_link_received_bytes_total"));
        if role == Role::Matcher {
            bytes.0 += sum(&text, "veilmatch_client_sent_bytes_total");
            bytes.1 += sum(&text, "veilmatch_client_received_bytes_total");
            matcher = text;
        }
        links.push(bytes);
    }
    Ok(Counters { links, matcher })
}

/// Resident memory of a process.
fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Disk blocks of everything in a folder, in bytes.
fn disk_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
