//! `veilmatch bench services`: what the real services take on this machine, by stage and party.
//!
//! Starts a deployment as the demonstration does, enrols in bulk and one by one, asks, and reads the stages, bytes, memory
//! and disk space of each process. All five parties share this machine's cores, so times are sums of everybody's work.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use veilmatch_domain::{CollectionId, Policy, SubjectId, Threshold};
use veilmatch_sdk::Ask;

use crate::arguments::BenchArguments;
use crate::exit::CliError;
use crate::local::{Deployment, DeploymentError, Ports, Role, Running};
use crate::report::{self, Progress, Report, milliseconds};
use crate::services::{scrape, stopped, sum};
use crate::synthetic;

/// Answers do not matter here; only the time that they take.
const THRESHOLD: f64 = 0.427;
/// People that are enrolled one by one.
const SINGLES: usize = 20;

/// Times of many calls, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Times {
    calls: usize,
    p50: f64,
    p99: f64,
    mean: f64,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let place = ((times.len() as f64 * share).ceil() as usize).clamp(1, times.len().max(1)) - 1;
            times.get(place).copied().unwrap_or_default()
        };
        let mean = times.iter().sum::<Duration>() / times.len().max(1) as u32;
        let calls = times.len();
        Self { calls, p50: milliseconds(at(0.5)), p99: milliseconds(at(0.99)), mean: milliseconds(mean) }
    }
}

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

/// What was measured.
#[derive(Clone, Debug, Serialize)]
struct BenchReport {
    gallery: usize,
    dimension: usize,
    start_ms: f64,
    enroll_bulk_per_second: f64,
    enroll_single: Times,
    identify_best: Times,
    identify_exists: Times,
    verify: Times,
    stages_ms: Stages,
    probe_bytes: u64,
    matcher_disk_bytes_per_template: f64,
    processes: Vec<Process>,
}

impl Report for BenchReport {
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
        format!(
            "{} people of {} dimensions; all five parties on this machine.\n\
             Start with key ceremony: {:.0} ms. Bulk enrolment: {:.0} templates per second.\n\
             A probe takes {} on the wire, a template {:.0} bytes on the matcher's disk.\n\n{calls}\n\n{stages}\n\n{processes}\n",
            self.gallery,
            self.dimension,
            self.start_ms,
            self.enroll_bulk_per_second,
            report::bytes(self.probe_bytes),
            self.matcher_disk_bytes_per_template,
        )
    }
}

/// Measures.
///
/// # Errors
/// [`CliError`].
pub fn run(arguments: &BenchArguments, json: bool, progress: &Progress) -> Result<(), CliError> {
    let no_folder =
        |e: std::io::Error| CliError::protocol(DeploymentError::Folder { path: std::env::temp_dir(), kind: e.kind() });
    let folder = tempfile::Builder::new().prefix("veilmatch-").tempdir().map_err(no_folder)?;
    let program = std::env::current_exe().map_err(no_folder)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(no_folder)?;
    let measured = runtime.block_on(measure(arguments, &program, folder.path(), progress))?;
    report::write(&measured, json, &mut std::io::stdout().lock()).map_err(CliError::Output)
}

async fn measure(
    arguments: &BenchArguments,
    program: &Path,
    folder: &Path,
    progress: &Progress,
) -> Result<BenchReport, CliError> {
    let gallery = arguments.gallery as usize;
    let queries = arguments.queries as usize;
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
    let running = Running::start(program, deployment).await?;
    let start_ms = milliseconds(begun.elapsed());
    drop(bar);
    let name = CollectionId::new("bench").map_err(CliError::protocol)?;
    running.create_collection(&name, Policy::permissive(arguments.dim)).await?;
    let collection = running.deployment().client()?.collection(name.as_str()).map_err(stopped)?;

    let bar = progress.stage("enroll", gallery);
    let begun = Instant::now();
    let bulk = collection.enroll_many(people.clone(), |p| bar.reach(p.done)).await.map_err(|e| stopped(e.error))?;
    let enroll_bulk_per_second = bulk.accepted() as f64 / begun.elapsed().as_secs_f64();
    drop(bar);
    let mut times = Vec::new();
    for (subject, embedding) in &singles {
        let begun = Instant::now();
        collection.enroll(subject.as_str(), embedding).await.map_err(stopped)?;
        times.push(begun.elapsed());
    }
    let enroll_single = Times::of(times);
    settle(&collection).await?;

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
            },
        })
        .collect();
    let report = BenchReport {
        gallery,
        dimension: arguments.dim.get(),
        start_ms,
        enroll_bulk_per_second,
        enroll_single,
        identify_best,
        identify_exists: Times::of(exists),
        verify: Times::of(verify),
        stages_ms: Stages { client_seal, recrypt, scan, decide, network_and_queues },
        probe_bytes: veilmatch_sealed::sealed_bytes(arguments.dim) as u64,
        matcher_disk_bytes_per_template: disk("matcher/data") as f64 / (gallery + SINGLES) as f64,
        processes,
    };
    running.processes.stop().await;
    Ok(report)
}

/// Waits until everybody is searchable and merges have come to rest, at most half a minute.
async fn settle(collection: &veilmatch_sdk::Collection) -> Result<(), CliError> {
    let mut last = None;
    for _ in 0..30 {
        let info = collection.info().await.map_err(stopped)?;
        let state = (info.pending, info.groups);
        if info.pending == 0 && last == Some(state) {
            break;
        }
        last = Some(state);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// The mean time to seal a probe, on one core.
fn seal_time(
    running: &Running,
    collection: &CollectionId,
    people: &[(SubjectId, veilmatch_domain::Embedding)],
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_times() {
        let times = Times::of((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!((times.calls, times.p50, times.p99, times.mean), (100, 50.0, 99.0, 50.5));
        let one = Times::of(vec![Duration::from_millis(7)]);
        assert_eq!((one.p50, one.p99), (7.0, 7.0));
    }
}
