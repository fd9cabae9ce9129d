//! `veilmatch bench report`: saved or fresh results as one HTML file.

use std::path::{Path, PathBuf};

use clap::{Args, Parser};
use serde::Serialize;
use serde_json::Value;

use super::page::{Machine, Results, render};
use super::{Bench, BenchError, cores};
use crate::exit::CliError;
use crate::report::{Progress, Report};

pub(super) const EXAMPLES: &str = "\
Examples:
  veilmatch bench report --out report.html
  veilmatch bench scan --json > scan.json
  veilmatch bench e2e --gallery 10000 --json > e2e.json
  veilmatch bench report --out report.html --from scan.json --from e2e.json

Without --from it measures itself, in galleries of at most 100,000: some minutes.";

/// Largest saved result that is read.
const MAX_SAVED: u64 = 16 << 20;
/// What is measured where nothing was saved.
const FRESH: [&str; 6] = [
    "scan --gallery 10000 --probes 1,8,32",
    "scan --gallery 100000 --probes 1,8,32",
    "client",
    "recrypt",
    "decide",
    "e2e --repeat 100",
];

/// Arguments of `bench report`.
#[derive(Clone, Debug, Args)]
pub struct ReportArguments {
    /// The page to write
    #[arg(long, value_name = "FILE.html")]
    pub out: PathBuf,
    /// Results that `veilmatch bench ... --json` has written; may be given several times
    #[arg(long, value_name = "FILE.json", num_args = 1..)]
    pub from: Vec<PathBuf>,
    /// Write one JSON object to standard output and nothing else
    #[arg(long)]
    pub json: bool,
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Written {
    bench: &'static str,
    file: String,
    bytes: usize,
    results: usize,
    /// Decisions of these results that differ from the plaintext ones.
    outside_band: u64,
}

impl Report for Written {
    fn outside_band(&self) -> u64 {
        self.outside_band
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn text(&self) -> String {
        format!("{}: {} results\n", self.file, self.results)
    }
}

/// Reads or measures, and writes the page.
///
/// # Errors
/// [`CliError`] if a saved result cannot be used, a measurement stops, or the page cannot be written.
pub(super) fn measure(arguments: &ReportArguments, progress: &Progress) -> Result<Written, CliError> {
    let results = if arguments.from.is_empty() {
        FRESH.iter().map(|words| fresh(words, progress)).collect::<Result<Vec<_>, _>>()?
    } else {
        arguments.from.iter().map(|path| saved(path)).collect::<Result<Vec<_>, _>>()?
    };
    let outside_band =
        results.iter().map(|r| r.pointer("/checked/outside_band").and_then(Value::as_u64).unwrap_or(0)).sum();
    let results = Results(results);
    let machine = Machine { processor: processor(), cores: cores(), version: env!("CARGO_PKG_VERSION") };
    let page = render(&results, &machine);
    std::fs::write(&arguments.out, &page).map_err(CliError::Output)?;
    let file = arguments.out.display().to_string();
    Ok(Written { bench: "report", file, bytes: page.len(), results: results.0.len(), outside_band })
}

/// The command line of a measurement that this program makes itself.
#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    what: Bench,
}

fn fresh(words: &str, progress: &Progress) -> Result<Value, CliError> {
    let line = Line::try_parse_from(std::iter::once("bench").chain(words.split(' ')));
    let unknown = || bad(Path::new(words), String::from("not a measurement"));
    let text = match line.map_err(|_| unknown())?.what {
        Bench::Scan(arguments) => super::scan::measure(&arguments, progress)?.json(),
        Bench::Client(arguments) => super::client::measure(&arguments, progress)?.json(),
        Bench::Recrypt(arguments) => super::recrypt::measure(&arguments, progress)?.json(),
        Bench::Decide(arguments) => super::decide::measure(&arguments, progress)?.json(),
        Bench::E2e(arguments) => super::e2e::measure(&arguments, progress)?.json(),
        Bench::Paillier(arguments) => super::paillier::measure(&arguments, progress)?.json(),
        Bench::Report(_) => return Err(unknown()),
    };
    text.and_then(|text| serde_json::from_str(&text)).map_err(|e| CliError::Output(e.into()))
}

/// Reads a saved result and checks that it is one.
fn saved(path: &Path) -> Result<Value, CliError> {
    let length = std::fs::metadata(path).map_err(|e| bad(path, e.to_string()))?.len();
    if length > MAX_SAVED {
        return Err(bad(path, String::from("longer than a result can be")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| bad(path, e.to_string()))?;
    let value: Value = serde_json::from_str(&text).map_err(|e| bad(path, e.to_string()))?;
    let needed: &[&str] = match value.get("bench").and_then(Value::as_str) {
        Some("scan") => &["/gallery", "/us_per_template", "/f32_us_per_template", "/batches/0/probes"],
        Some("e2e") => &["/gallery", "/identify_best/p50", "/stages_ms/scan"],
        Some("decide") => &["/gallery", "/questions/0/shares_cpu_ms/median"],
        Some("recrypt") => &["/layouts/0/probe_cpu_ms/median"],
        Some("paillier") => &["/gallery", "/stages/0/ms/median", "/changes/erase_ms"],
        Some("client") => &["/dim", "/seal_us/median", "/template_bytes"],
        _ => return Err(bad(path, String::from("not a result of `veilmatch bench`"))),
    };
    match needed.iter().find(|key| value.pointer(key).and_then(Value::as_f64).is_none()) {
        Some(key) => Err(bad(path, format!("no number at {key}"))),
        None => Ok(value),
    }
}

fn bad(path: &Path, problem: String) -> CliError {
    CliError::Arguments(Box::new(BenchError::Saved { path: path.display().to_string(), problem }))
}

/// The processor's name, where the operating system tells.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name"));
    line.map_or_else(|| String::from("unknown processor"), |l| l.trim_start_matches([' ', '\t', ':']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::files;

    const SCAN: &[u8] =
        br#"{"bench":"scan","gallery":100000,"dim":512,"threads":2,"kernel":"<avx>","us_per_template":0.06,
        "f32_us_per_template":0.065,"int8_us_per_template":0.02,"bytes_per_template":2055.2,"percent_of_bandwidth":91.0,
        "batches":[{"probes":1,"ratio_to_f32":0.92,"percent_of_bandwidth":91.0,"spread":{"encrypted":{"median":0.06}}}],
        "checked":{"outside_band":0}}"#;
    const E2E: &[u8] =
        br#"{"bench":"e2e","gallery":1000,"dim":512,"identify_best":{"p50":14.2},"stages_ms":{"client_seal":1.0,
        "recrypt":5.0,"scan":0.2,"decide":7.0,"network_and_queues":1.0},"matcher_disk_bytes_per_template":10662.0,
        "throughput":[{"clients":8,"decision":"best","queries_per_second":90.0,"latency":{"p50":80.0,"p99":120.0}}]}"#;

    #[test]
    fn saved_results_become_a_page_with_plots() {
        let (folder, [scan, e2e]) = files([("scan.json", SCAN), ("e2e.json", E2E)]);
        let out = folder.path().join("report.html");
        let arguments = ReportArguments { out: out.clone(), from: vec![scan, e2e], json: false };
        assert_eq!(measure(&arguments, &Progress::hidden()).unwrap().results, 2);
        let page = std::fs::read_to_string(out).unwrap();
        let document = page.strip_prefix("<!DOCTYPE html>\n").unwrap();
        let document = roxmltree::Document::parse(document).unwrap();
        let count = |name: &str| {
            document.descendants().filter(|n| n.has_tag_name(("http://www.w3.org/2000/svg", name))).count()
        };
        assert_eq!(count("svg"), 4, "latency, comparison, stages, memory");
        assert!(count("rect") > 15 && count("circle") > 4);
        for words in ["not measured here", "PFIP", "64 CPUs", "24 H100", "ICCV 2025", "&lt;avx&gt;", "91 %", "0.92"] {
            assert!(page.contains(words), "{words}");
        }
    }

    #[test]
    fn what_is_no_result_is_refused_by_name() {
        let (folder, [text, other, half]) = files([
            ("text.json", b"no"),
            ("other.json", br#"{"bench":"demo"}"#),
            ("half.json", br#"{"bench":"scan","gallery":1}"#),
        ]);
        let absent = folder.path().join("absent.json");
        for (path, part) in
            [(&text, "text.json"), (&other, "not a result"), (&half, "/us_per_template"), (&absent, "absent")]
        {
            let out = folder.path().join("out.html");
            let arguments = ReportArguments { out, from: vec![path.clone()], json: false };
            let error = measure(&arguments, &Progress::hidden()).unwrap_err();
            assert_eq!((error.exit_code(), error.reason()), (2, "bad-result"));
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(!folder.path().join("out.html").exists());
    }

    #[test]
    fn what_is_measured_without_files_can_be_parsed() {
        for words in FRESH {
            assert!(Line::try_parse_from(std::iter::once("bench").chain(words.split(' '))).is_ok(), "{words}");
        }
    }
}
