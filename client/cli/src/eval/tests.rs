//! The evaluations on synthetic people, through files as their users give them.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;
use veilmatch_domain::{Decision, Dimension, Explain, Outcome, Query, Threshold};

use super::*;
use crate::arguments::{Command, parse};
use crate::encrypted;
use crate::engine::{Scheme, Setup};
use crate::synthetic;
use crate::testing::{self, Lie, files, npy_bytes, real_data, subject};

/// What is written where nothing is asked for; a hundred resamples.
pub(super) fn outputs() -> Outputs {
    Outputs { resamples: 100, seed: 1, html: None, json: true }
}

/// Parsed words, with `{}` replaced by a folder.
fn command(words: &str, folder: &TempDir) -> Evaluation {
    let words = words.replace("{}", folder.path().to_str().unwrap());
    let words: Vec<_> = words.split(' ').map(std::ffi::OsString::from).collect();
    let Command::Eval { what } = parse(&words).unwrap().command else { panic!("not an evaluation") };
    what
}

/// Three images each of `people`; tables with groups and dates, and pairs.
fn synthetic_files(people: usize, dimension: usize) -> TempDir {
    let cast = synthetic::people(people, 3, Dimension::new(dimension).unwrap(), 3).unwrap();
    let data: Vec<u8> = cast.iter().flatten().flat_map(|e| e.values()).flat_map(|v| v.to_le_bytes()).collect();
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {dimension}), }}", 3 * people);
    let mut table = String::from("row,label,half,taken\n");
    let mut pairs = String::from("a,b,same\n");
    for row in 0..3 * people {
        // The last person has no group and no date.
        let known = row / 3 + 1 < people;
        let half = if !known {
            ""
        } else if row % 6 < 3 {
            "odd"
        } else {
            "even"
        };
        let taken = if known { format!("20{:02}-0{}-01", row % 3, 1 + row % 9) } else { String::new() };
        table += &format!("{row},person {},{half},{taken}\n", row / 3);
    }
    for person in 0..people {
        pairs +=
            &format!("{},{},1\n{},{},0\n", 3 * person, 3 * person + 1, 3 * person, (3 * person + 4) % (3 * people));
    }
    let (folder, _) =
        files([("x.npy", &npy_bytes(&header, &data)), ("t.csv", table.as_bytes()), ("p.csv", pairs.as_bytes())]);
    folder
}

fn object<T: Serialize>(evaluated: &Evaluated<T>) -> Value {
    serde_json::from_str(&evaluated.json().unwrap()).unwrap()
}

fn is_page(path: &PathBuf) {
    let page = std::fs::read_to_string(path).unwrap();
    let document = roxmltree::Document::parse(page.strip_prefix("<!DOCTYPE html>\n").unwrap()).unwrap();
    assert!(document.descendants().any(|n| n.tag_name().name() == "table"));
}

#[test]
fn pairs_are_decided_at_given_fmrs_too() {
    let folder = synthetic_files(40, 64);
    let words = "veilmatch eval pairs --embeddings {}/x.npy --pairs {}/p.csv --labels {}/t.csv --fmr 1e-1,1e-2 \
                 --non-mated 7 --resamples 100 --html {}/pairs.html";
    let Evaluation::Pairs(arguments) = command(words, &folder) else { panic!("not pairs") };
    let report = pairs::run(&arguments, &testing::Plaintext::found(None), &Progress::hidden()).unwrap();
    assert_eq!(report.tally().decisions, 80 + 2 * 47);
    let object: Value = serde_json::from_str(&report.json().unwrap()).unwrap();
    let encrypted = &object["at_fmr"]["encrypted"];
    assert_eq!((&encrypted[1]["mated"], &encrypted[1]["non_mated"]), (&Value::from(40), &Value::from(7)));
    assert_eq!(encrypted[1]["fnmr_plain"], encrypted[1]["fnmr_encrypted"]);
    assert_eq!(encrypted[0]["fnmr_plain"], object["at_fmr"]["points"][0]["fnmr_listed"]["rate"]);
    assert!(report.text().contains("Through the encrypted protocol") && report.outside_band() == 0);
    is_page(&folder.path().join("pairs.html"));
    let lying = pairs::run(&arguments, &testing::Plaintext::found(Some(Lie::Verify)), &Progress::hidden()).unwrap();
    assert!(lying.outside_band() > 160, "{}", lying.outside_band());
}

#[test]
fn identification_in_plaintext_and_through_the_protocol() {
    let folder = synthetic_files(40, 64);
    let words = "veilmatch eval identification --embeddings {}/x.npy --labels {}/t.csv --sizes 10,20 --fpir 0.1 \
                 --draws 2 --encrypted 4 --encrypted-gallery 20 --resamples 100 --html {}/i.html";
    let Evaluation::Identification(arguments) = command(words, &folder) else { panic!("not an identification") };
    let run = |found: &Found<'_>| identification::run(&arguments, found, &Progress::hidden()).unwrap();
    let report = run(&encrypted::found);
    assert_eq!((report.outside_band, report.result.encrypted.len()), (0, 1));
    let one = &report.result.encrypted[0];
    assert_eq!((one.gallery, one.mated, one.non_mated), (20, 4, 4));
    let value = object(&report);
    assert_eq!((&value["eval"], &value["galleries"][1]["size"]), (&Value::from("identification"), &Value::from(20)));
    // 20 people with two further images each, in two draws.
    assert_eq!(value["galleries"][1]["mated_searches"], 80);
    assert!(report.text.contains("20 people enrolled"), "{}", report.text);
    is_page(&folder.path().join("i.html"));
    assert!(run(&testing::Plaintext::found(Some(Lie::Best))).outside_band > 0);
}

#[test]
fn groups_and_dates_come_from_columns() {
    let folder = synthetic_files(60, 32);
    let words =
        "veilmatch eval groups --embeddings {}/x.npy --labels {}/t.csv --column half --fmr 1e-2 --resamples 100";
    let Evaluation::Groups(arguments) = command(words, &folder) else { panic!("not groups") };
    let report = groups::run(&arguments, &Progress::hidden()).unwrap();
    let value = object(&report);
    assert_eq!((&value["groups"][0]["name"], &value["groups"][1]["people"]), (&Value::from("even"), &Value::from(30)));
    assert!(report.text.contains("3 rows without a group left out"), "{}", report.text);
    let words = "veilmatch eval time --embeddings {}/x.npy --labels {}/t.csv --column taken --years 1,1.5 \
                 --threshold 0.5 --resamples 100 --html {}/t.html";
    let Evaluation::Time(arguments) = command(words, &folder) else { panic!("not a time") };
    let report = time::run(&arguments, &Progress::hidden()).unwrap();
    assert_eq!(object(&report)["pairs"], 59 * 3);
    assert!(report.text.contains("within people"), "{}", report.text);
    is_page(&folder.path().join("t.html"));
    let wrong = |words: &str| match command(words, &folder) {
        Evaluation::Groups(a) => groups::run(&a, &Progress::hidden()).map(|_| ()).unwrap_err(),
        Evaluation::Time(a) => time::run(&a, &Progress::hidden()).map(|_| ()).unwrap_err(),
        _ => panic!("another evaluation"),
    };
    let error = wrong("veilmatch eval groups --embeddings {}/x.npy --labels {}/t.csv --column sex");
    assert_eq!((error.exit_code(), error.code()), (2, "no-such-column"));
    let error = wrong("veilmatch eval time --embeddings {}/x.npy --labels {}/t.csv --column half");
    assert_eq!((error.exit_code(), error.code()), (2, "bad-csv"));
    let error = wrong("veilmatch eval groups --embeddings {}/x.npy --labels {}/t.csv --column taken");
    assert_eq!((error.exit_code(), error.code()), (2, "two-groups"));
}

#[test]
fn a_fitted_map_is_written_once_and_decides_the_same_under_encryption() {
    let (folder, []) = files([]);
    let words = "veilmatch eval fit-fair --synthetic shared-direction --people 160 --dim 64 --fmr 0.01 --resamples 100 \
                 --html {}/fair.html";
    let Evaluation::FitFair(shown) = command(words, &folder) else { panic!("not a fit") };
    let report = fit_fair::run(&shown, &Progress::hidden()).unwrap();
    assert!(report.text.contains("The map helps"), "{}", report.text);
    assert_eq!(object(&report)["verdict"], "helps");
    is_page(&folder.path().join("fair.html"));

    let files = synthetic_files(170, 64);
    let words = "veilmatch eval fit-fair --embeddings {}/x.npy --labels {}/t.csv --column half --fmr 0.02 --out {}/m.fair \
                 --resamples 100";
    let Evaluation::FitFair(fitting) = command(words, &files) else { panic!("not a fit") };
    fit_fair::run(&fitting, &Progress::hidden()).unwrap();
    let again = fit_fair::run(&fitting, &Progress::hidden()).map(|_| ()).unwrap_err();
    assert_eq!(again.exit_code(), 2, "a map is not written over");
    // A map that does something, whatever was chosen above.
    let path = files.path().join("shared.fair");
    std::fs::write(&path, report.result.transform.to_bytes()).unwrap();
    let mapped = MappedBy { fair: Some(path.clone()) };
    let dimension = Dimension::new(64).unwrap();
    let threshold = Threshold::new(0.4).unwrap();
    let people = synthetic::people(12, 2, dimension, 5).unwrap();
    let setup = Setup {
        dimension,
        members: 12,
        lowest_threshold: threshold,
        highest_threshold: threshold,
        scheme: Scheme::Glwe,
    };
    let mut engine = encrypted::found(&setup).unwrap();
    let name = |i: usize| subject(&format!("p{i}"));
    let enrolled: Vec<_> =
        people.iter().enumerate().map(|(i, own)| (name(i), mapped.apply(own[0].clone()).unwrap())).collect();
    engine.enroll(&enrolled, &|_| {}).unwrap();
    for (i, own) in people.iter().enumerate() {
        let probe = mapped.apply(own[1].clone()).unwrap();
        let score = probe.cosine(&enrolled[i].1).unwrap();
        assert!((score - own[1].cosine(&own[0]).unwrap()).abs() > 1e-4, "the map changes scores");
        let Outcome::Verify(bit) =
            engine.ask(&probe, &Query::new(Decision::Verify { subject: name(i) }, threshold)).unwrap()
        else {
            panic!("another answer")
        };
        assert_eq!(crate::judge::bit(bit, score, 0.4, engine.noise_std()).outside_band, 0);
    }
    let words = format!(
        "veilmatch eval groups --embeddings {{}}/x.npy --labels {{}}/t.csv --column half --fmr 0.02 --resamples 100 --fair {}",
        path.display()
    );
    let Evaluation::Groups(arguments) = command(&words, &files) else { panic!("not groups") };
    assert!(groups::run(&arguments, &Progress::hidden()).unwrap().text.contains("mapped"));
    std::fs::write(&path, b"vmrotate").unwrap();
    let error = groups::run(&arguments, &Progress::hidden()).map(|_| ()).unwrap_err();
    assert_eq!((error.exit_code(), error.code()), (2, "not-a-transform"));
}

#[test]
fn a_report_of_everything() {
    let folder = synthetic_files(50, 64);
    let words = "veilmatch eval report --embeddings {}/x.npy --labels {}/t.csv --pairs {}/p.csv --fmr 0.1,0.01 \
                 --encrypted-pairs --encrypted-fmr 0.02 --encrypted-non-mated 3 --sizes 20 --fpir 0.1 --draws 1 \
                 --encrypted 2 --group-column half --date-column taken --resamples 100 --html {}/all.html";
    let Evaluation::Report(arguments) = command(words, &folder) else { panic!("not a report") };
    let report = report::run(&arguments, &testing::Plaintext::found(None), &Progress::hidden()).unwrap();
    let value = object(&report);
    assert_eq!(value["verification"]["points"].as_array().unwrap().len(), 3);
    assert_eq!(
        (&value["encrypted"][0]["mated"], &value["encrypted"][0]["non_mated"]),
        (&Value::from(50), &Value::from(3))
    );
    assert_eq!(value["identification"]["encrypted"][0]["non_mated"], 2);
    assert!(value["groups"]["groups"].is_array() && value["time"]["bins"].is_array());
    is_page(&folder.path().join("all.html"));
}

/// Two photos each of drawn people and one without a face, with pairs of both kinds; the last mated pair has it.
fn drawn_photos(people: u64) -> TempDir {
    use veilmatch_extract::Picture;
    use veilmatch_extract::drawn::{Person, View};
    let (folder, []) = files([]);
    let mut pairs = String::from("fold,a,b,same\n");
    for person in 0..people {
        let own = folder.path().join(format!("p{person}"));
        std::fs::create_dir(&own).unwrap();
        for number in 0..2 {
            let photo = Person::new(person).photo(&View::varied(person, number));
            std::fs::write(own.join(format!("{number}.png")), &*photo.png().unwrap()).unwrap();
        }
        let fold = person % 2;
        pairs += &format!(
            "{fold},p{person}/0.png,p{person}/1.png,1\n{fold},p{person}/0.png,p{}/1.png,0\n",
            (person + 1) % people
        );
    }
    std::fs::write(folder.path().join("p0/dark.png"), &*Picture::black(300, 300).png().unwrap()).unwrap();
    pairs += "1,p0/0.png,p0/dark.png,1\n";
    std::fs::write(folder.path().join("pairs.csv"), pairs).unwrap();
    folder
}

const TINY: &str = "--detector tiny-detect --model tiny-embed --runtime rust --gates off";

#[test]
fn images_are_extracted_decided_and_refusals_counted() {
    let folder = drawn_photos(8);
    let words = format!(
        "veilmatch eval images --images {{}} --pairs {{}}/pairs.csv {TINY} --threshold 0.75 --resamples 100 --html {{}}/i.html"
    );
    let Evaluation::Images(arguments) = command(&words, &folder) else { panic!("not images") };
    let report = images::run(&arguments, &encrypted::found, &Progress::hidden()).unwrap();
    let value = object(&report);
    let acquisition = &value["acquisition"];
    assert_eq!((&acquisition["images"], &acquisition["failure_to_acquire"]["errors"]), (&17.into(), &1.into()));
    assert_eq!(acquisition["reasons"][0][0], "no-face");
    let point = &value["points"][0];
    assert_eq!((&point["refused"], &point["fnmr"]["trials"]), (&1.into(), &8.into()));
    // The pair of the refused image is a rejection.
    let (missed, rejected) =
        (point["fnmr"]["errors"].as_u64().unwrap(), point["false_reject"]["errors"].as_u64().unwrap());
    assert_eq!((rejected, &point["false_reject"]["trials"]), (missed + 1, &9.into()));
    let encrypted = &value["encrypted"][0];
    assert_eq!((&encrypted["mated"], &encrypted["non_mated"], report.outside_band), (&8.into(), &8.into(), 0));
    assert!(
        report.text.contains("no-face: 1") && report.text.contains("Through the encrypted protocol"),
        "{}",
        report.text
    );
    is_page(&folder.path().join("i.html"));
    let reason = |words: &str| {
        let Evaluation::Images(arguments) = command(words, &folder) else { panic!("not images") };
        let error = images::run(&arguments, &encrypted::found, &Progress::hidden()).map(|_| ()).unwrap_err();
        (error.exit_code(), error.code())
    };
    // An embedder of the user's own, whose manifest says nothing of thresholds.
    let manifest = include_str!("../../../../models/tiny-embed.toml").replace("tiny-embed", "own");
    let (uncalibrated, _) = manifest.split_once("[[threshold]]").unwrap();
    std::fs::write(folder.path().join("own.toml"), uncalibrated).unwrap();
    std::fs::write(folder.path().join("own.onnx"), include_bytes!("../../../../models/tiny-embed.onnx")).unwrap();
    let own = "--models {} --detector tiny-detect --model own --runtime rust --gates off";
    let words = format!("veilmatch eval images --images {{}} --pairs {{}}/pairs.csv {own}");
    assert_eq!(reason(&words), (2, "not-calibrated"));
    std::fs::remove_file(folder.path().join("p3/1.png")).unwrap();
    let words = format!("veilmatch eval images --images {{}} --pairs {{}}/pairs.csv {TINY}");
    assert_eq!(reason(&words), (2, "no-such-file"));
}

#[test]
fn time_limits_have_every_stage() {
    let folder = drawn_photos(3);
    let words =
        format!("veilmatch eval time-limits --images {{}} {TINY} --gallery 20 --limits 0.001,1e9 --html {{}}/t.html");
    let Evaluation::TimeLimits(arguments) = command(&words, &folder) else { panic!("not time limits") };
    let report = images::time_limits(&arguments, &encrypted::found, &Progress::hidden()).unwrap();
    let value = object(&report);
    let stages: Vec<&str> = value["stages"].as_array().unwrap().iter().map(|s| s["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["decode", "detect", "align", "quality", "liveness", "embed", "seal and match", "all"]);
    assert_eq!((&value["refused"], &value["stages"][7]["images"]), (&1.into(), &6.into()));
    assert_eq!((&value["limits"][0]["met"], &value["limits"][1]["met"]), (&false.into(), &true.into()));
    is_page(&folder.path().join("t.html"));
}

#[test]
fn lfw_has_the_measured_thresholds_and_rates() {
    let Some(data) = real_data("lfw_has_the_measured_thresholds_and_rates") else { return };
    let lfw = data.join("lfw");
    let inputs = Inputs {
        embeddings: lfw.join("templates_retail0095_f16.npy"),
        labels: lfw.join("labels.csv"),
        normalize: false,
        mapped: MappedBy::default(),
    };
    let labelled = inputs.read(&[], &Progress::hidden()).unwrap();
    let pairs = input::pairs(&lfw.join("pairs.csv"), labelled.templates.len()).unwrap();
    let result = pairs::verification(&labelled, &pairs, &[1e-3, 1e-4, 1e-5], &outputs(), &Progress::hidden()).unwrap();
    assert_eq!((result.people, result.listed_mated_pairs), (4281, 3000));
    assert!((29_600_000..29_700_000).contains(&result.non_mated_pairs), "{}", result.non_mated_pairs);
    // Measured elsewhere: README of the data.
    for (point, threshold) in result.points.iter().zip([0.340, 0.427, 0.504]) {
        assert!((point.threshold - threshold).abs() < 0.001, "{point:?}");
        assert!(point.fmr.interval.unwrap().holds(point.wanted_fmr) && !point.few);
    }
    for (point, fnmr) in result.points.iter().zip([0.0137, 0.0340]) {
        let listed = point.fnmr_listed.unwrap();
        assert!((listed.rate - fnmr).abs() < 0.0006 && listed.interval.unwrap().holds(fnmr), "{listed:?}");
    }
}
