//! The page of `veilmatch bench report`: results as plots and tables in one file that loads nothing.

use serde_json::Value;
use veilmatch_plots::{self as plot, Bar, Kind, Series, document, escape, section, short, table};

use super::published::{INDEXES, SEARCHES};

/// Where and when the page was made.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) processor: String,
    pub(super) cores: usize,
    pub(super) version: &'static str,
}

/// Saved results by kind, each a checked object.
#[derive(Debug, Default)]
pub(super) struct Results(pub(super) Vec<Value>);

impl Results {
    pub(super) fn of<'a>(&'a self, bench: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |v| v.get("bench").and_then(Value::as_str) == Some(bench))
    }
}

fn number(value: &Value, key: &str) -> f64 {
    value.pointer(key).and_then(Value::as_f64).unwrap_or_default()
}

fn whole(value: &Value, key: &str) -> String {
    crate::report::count(value.pointer(key).and_then(Value::as_u64).unwrap_or_default())
}

/// The largest scan, which the comparisons are made with.
fn largest<'a>(results: &'a Results, bench: &'a str) -> Option<&'a Value> {
    results.of(bench).max_by(|a, b| number(a, "/gallery").total_cmp(&number(b, "/gallery")))
}

/// The whole page; XML as well as HTML.
pub(super) fn render(results: &Results, machine: &Machine) -> String {
    let words = format!(
        "{}, {} cores; veilmatch {}. Made by <code>veilmatch bench report</code>. \
         Full marks and bars were measured on this machine; open and pale ones are published numbers, not measured here.",
        escape(&machine.processor),
        machine.cores,
        escape(machine.version),
    );
    let mut body = String::new();
    for section in [latency, comparison, stages, throughput, memory, scans, costs] {
        body.push_str(&section(results));
    }
    body.push_str(&sources());
    document("Veilmatch: measurements", &words, &body)
}

fn latency(results: &Results) -> String {
    let scan = |name: &str, kind, key: &'static str| Series {
        name: name.into(),
        kind,
        joined: true,
        marked: true,
        points: results
            .of("scan")
            .map(|r| (number(r, "/gallery"), number(r, key) * number(r, "/gallery") / 1e3))
            .collect(),
    };
    let whole = |name: &str, kind, key: &'static str| Series {
        name: name.into(),
        kind,
        joined: true,
        marked: true,
        points: results.of("e2e").map(|r| (number(r, "/gallery"), number(r, key))).collect(),
    };
    let mut series = vec![
        whole("identify through the services, p50", Kind::Ours, "/identify_best/p50"),
        scan("encrypted scan alone", Kind::Second, "/us_per_template"),
        scan("plaintext f32 scan", Kind::Plain, "/f32_us_per_template"),
        scan("plaintext int8 scan", Kind::Machine, "/int8_us_per_template"),
    ];
    series.retain(|s| !s.points.is_empty());
    if series.is_empty() {
        return String::new();
    }
    // Iris codes by the billion would stretch the axis of a page about faces.
    series.extend(SEARCHES.iter().filter(|p| p.templates <= 1e8).map(|p| Series {
        name: p.system.into(),
        kind: Kind::Published,
        joined: false,
        marked: true,
        points: vec![(p.templates, p.seconds * 1e3)],
    }));
    let body =
        plot::lines("Latency against gallery size", "templates in the gallery", "milliseconds for one probe", &series);
    section(
        "Latency against gallery size",
        "Both axes logarithmic. The services are matcher and three key holders on this machine, all sharing its cores; \
         published systems ran on their authors' hardware, see the sources below.",
        &body,
    )
}

fn comparison(results: &Results) -> String {
    let Some(scan) = largest(results, "scan") else { return String::new() };
    let here = format!("{} threads, {} templates", whole(scan, "/threads"), whole(scan, "/gallery"));
    let measured = [
        ("Veilmatch, encrypted scan", Kind::Ours, "/us_per_template"),
        ("plaintext f32", Kind::Plain, "/f32_us_per_template"),
        ("plaintext int8", Kind::Plain, "/int8_us_per_template"),
    ]
    .map(|(name, kind, key)| Bar { name: name.into(), note: here.clone(), kind, value: number(scan, key) });
    let mut bars: Vec<Bar> = SEARCHES
        .iter()
        .map(|p| Bar {
            name: format!("{} (published)", p.system),
            note: String::from("not measured here"),
            kind: Kind::Published,
            value: p.us_per_template(),
        })
        .collect();
    bars.extend(measured);
    if let Some(e2e) = largest(results, "e2e") {
        bars.push(Bar {
            name: "Veilmatch, whole identify".into(),
            note: format!("{} templates, all parties", whole(e2e, "/gallery")),
            kind: Kind::Ours,
            value: number(e2e, "/identify_best/p50") * 1e3 / number(e2e, "/gallery").max(1.0),
        });
    }
    bars.sort_by(|a, b| b.value.total_cmp(&a.value));
    let body = plot::bars("Time per template", "microseconds per template and probe, logarithmic", &bars);
    section(
        "Time per template, beside plaintext and published systems",
        "The encrypted scan is the matcher's part alone; the whole identify holds everything from sealing to the answer. \
         Published times are whole searches divided by the number of templates, on the hardware given below; dimension, \
         protection and what is opened differ between systems.",
        &body,
    )
}

fn stages(results: &Results) -> String {
    const KEYS: [&str; 5] = ["client_seal", "recrypt", "scan", "decide", "network_and_queues"];
    let rows: Vec<(String, Vec<f64>)> = results
        .of("e2e")
        .map(|r| {
            let parts = KEYS.iter().map(|key| number(r, &format!("/stages_ms/{key}"))).collect();
            (format!("{} templates, {}-d", whole(r, "/gallery"), whole(r, "/dim")), parts)
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let names = ["client: seal, sign", "recrypt", "scan", "check, decision", "network, queues"];
    let body = plot::stacks("Stages of identify", "mean milliseconds of identify: best", &names, &rows);
    section("Stages of identify", "Means over the questions of one client that asks alone.", &body)
}

fn throughput(results: &Results) -> String {
    let mut rows = Vec::new();
    for result in results.of("e2e") {
        for t in result.get("throughput").and_then(Value::as_array).into_iter().flatten() {
            rows.push(vec![
                whole(result, "/gallery"),
                t.get("decision").and_then(Value::as_str).unwrap_or_default().to_owned(),
                whole(t, "/clients"),
                format!("{:.1}", number(t, "/queries_per_second")),
                format!("{:.1}", number(t, "/latency/p50")),
                format!("{:.1}", number(t, "/latency/p99")),
            ]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let header = [
        ("gallery", true),
        ("decision", false),
        ("clients", true),
        ("per second", true),
        ("p50 ms", true),
        ("p99 ms", true),
    ];
    section("Throughput", "Each client asks again as soon as it has its answer.", &table(&header, &rows))
}

fn memory(results: &Results) -> String {
    let mut bars = Vec::new();
    let mut bar = |name: &str, note: &str, kind, value: f64| {
        if value > 0.0 {
            bars.push(Bar { name: name.into(), note: note.into(), kind, value });
        }
    };
    if let Some(scan) = largest(results, "scan") {
        let dim = number(scan, "/dim");
        bar("packed index", "matcher, in memory or mapped", Kind::Ours, number(scan, "/bytes_per_template"));
        bar("plaintext f32", "the vector itself", Kind::Plain, dim * 4.0);
        bar("plaintext int8", "the vector itself", Kind::Plain, dim);
    }
    if let Some(client) = results.of("client").last() {
        bar("sealed template", "on the wire and on disk", Kind::Second, number(client, "/template_bytes"));
    }
    if let Some(e2e) = largest(results, "e2e") {
        bar(
            "matcher's disk, everything",
            "sealed and packed",
            Kind::Second,
            number(e2e, "/matcher_disk_bytes_per_template"),
        );
    }
    if bars.is_empty() {
        return String::new();
    }
    for (name, _, value) in INDEXES {
        bars.push(Bar { name: name.into(), note: "published".into(), kind: Kind::Published, value });
    }
    bars.sort_by(|a, b| b.value.total_cmp(&a.value));
    section(
        "Memory per template",
        "Bytes per template, logarithmic. A scan reads the packed index alone.",
        &plot::bars("Memory per template", "bytes per template, logarithmic", &bars),
    )
}

fn scans(results: &Results) -> String {
    let mut rows = Vec::new();
    for r in results.of("scan") {
        for b in r.get("batches").and_then(Value::as_array).into_iter().flatten() {
            let spread = |side: &str| {
                let at = |quartile: &str| short(number(b, &format!("/spread/{side}/{quartile}")));
                format!("{} ({} to {})", at("median"), at("q1"), at("q3"))
            };
            rows.push(vec![
                whole(r, "/gallery"),
                r.get("kernel").and_then(Value::as_str).unwrap_or_default().to_owned(),
                whole(r, "/threads"),
                whole(b, "/probes"),
                spread("encrypted"),
                spread("f32"),
                spread("int8"),
                format!("{:.2}", number(b, "/ratio_to_f32")),
                format!("{:.0} %", number(b, "/percent_of_bandwidth")),
            ]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let header = [
        ("gallery", true),
        ("kernel", false),
        ("threads", true),
        ("probes", true),
        ("encrypted, µs", true),
        ("f32, µs", true),
        ("int8, µs", true),
        ("ratio to f32", true),
        ("of bandwidth", true),
    ];
    section(
        "Scans",
        "Microseconds for one template and one probe: median and quartiles of interleaved rounds in one process.",
        &table(&header, &rows),
    )
}

fn costs(results: &Results) -> String {
    let mut out = String::new();
    let rows: Vec<Vec<String>> = results
        .of("decide")
        .flat_map(|r| r.get("questions").and_then(Value::as_array).into_iter().flatten().map(move |q| (r, q)))
        .map(|(r, q)| {
            vec![
                whole(r, "/gallery"),
                q.get("decision").and_then(Value::as_str).unwrap_or_default().to_owned(),
                format!("{:.1}", number(q, "/recrypt_cpu_ms/median")),
                format!("{:.1}", number(q, "/matcher_cpu_ms/median")),
                format!("{:.1}", number(q, "/shares_cpu_ms/median")),
                format!("{:.1}", number(q, "/comparison_cpu_ms/median")),
            ]
        })
        .collect();
    if !rows.is_empty() {
        let header = [
            ("gallery", true),
            ("decision", false),
            ("holder: recrypt", true),
            ("matcher", true),
            ("holder: check, shares", true),
            ("holder: comparison", true),
        ];
        out += &section(
            "CPU time of a decision",
            "CPU milliseconds for one probe; each holder. Medians.",
            &table(&header, &rows),
        );
    }
    let rows: Vec<Vec<String>> = results
        .of("recrypt")
        .flat_map(|r| r.get("layouts").and_then(Value::as_array).into_iter().flatten())
        .map(|l| {
            vec![
                whole(l, "/gallery"),
                format!("{}, {}", whole(l, "/layout/0"), whole(l, "/layout/1")),
                format!("{:.1}", number(l, "/probe_cpu_ms/median")),
                format!("{:.0}", number(l, "/admit_us_per_template")),
                format!("{:.0}", number(l, "/build_us_per_template")),
            ]
        })
        .collect();
    if !rows.is_empty() {
        let header = [
            ("people", true),
            ("β, r", false),
            ("probe, ms", true),
            ("admit, µs/template", true),
            ("build, µs/template", true),
        ];
        out += &section("Recrypt", "CPU time of each key holder. Medians.", &table(&header, &rows));
    }
    let rows: Vec<Vec<String>> = results
        .of("paillier")
        .flat_map(|r| {
            let stages = r.get("stages").and_then(Value::as_array).into_iter().flatten();
            stages.map(|s| {
                let text = |key| s.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
                vec![
                    whole(r, "/gallery"),
                    whole(r, "/dim"),
                    text("stage"),
                    text("who"),
                    format!("{:.1}", number(s, "/ms/median")),
                    format!("{:.0}", number(s, "/us_per_template")),
                ]
            })
        })
        .collect();
    if !rows.is_empty() {
        let header = [
            ("people", true),
            ("dimension", true),
            ("stage", false),
            ("who", false),
            ("ms", true),
            ("µs/template", true),
        ];
        out += &section("The scheme paillier", "CPU time of one question. Medians.", &table(&header, &rows));
    }
    let rows: Vec<Vec<String>> = results
        .of("client")
        .flat_map(|r| {
            [("seal", "seal_us"), ("of that, sign", "sign_us"), ("encode", "encode_us"), ("whole query", "ask_us")].map(
                |(name, key)| {
                    let at = |quartile: &str| format!("{:.1}", number(r, &format!("/{key}/{quartile}")));
                    vec![whole(r, "/dim"), name.to_owned(), at("q1"), at("median"), at("q3")]
                },
            )
        })
        .collect();
    if !rows.is_empty() {
        let header = [
            ("dimension", true),
            ("step", false),
            ("lower quartile", true),
            ("median", true),
            ("upper quartile", true),
        ];
        out += &section("The capture device", "Microseconds on one core.", &table(&header, &rows));
    }
    out
}

fn sources() -> String {
    let rows: Vec<Vec<String>> = SEARCHES
        .iter()
        .map(|p| {
            vec![
                p.system.to_owned(),
                p.source.to_owned(),
                p.setting.to_owned(),
                p.hardware.to_owned(),
                format!("{} in {} s", short(p.templates), short(p.seconds)),
            ]
        })
        .chain(INDEXES.iter().map(|(system, source, bytes)| {
            vec![
                (*system).to_owned(),
                (*source).to_owned(),
                String::from("memory"),
                String::from("-"),
                format!("{} B per template", short(*bytes)),
            ]
        }))
        .collect();
    let header = [("system", false), ("source", false), ("setting", false), ("hardware", false), ("figure", true)];
    section("Published, not measured here", "The authors' own figures.", &table(&header, &rows))
}
