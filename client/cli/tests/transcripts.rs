//! The command as its users meet it: help texts pinned in `tests/transcripts`, bad input, exit codes, JSON.
//!
//! To accept a changed help text: `VEILMATCH_ACCEPT=1 cargo test -p veilmatch-cli --test transcripts`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use veilmatch_extract::drawn::{Person, View};

fn veilmatch(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veilmatch"));
    // Help is wrapped at the terminal's width, which a test must not depend on.
    command.args(arguments).env("COLUMNS", "100").env_remove("CLICOLOR_FORCE");
    // Nor on a profile of whoever runs it.
    command.env("HOME", "/nowhere").env_remove("VEILMATCH_PROFILE");
    // Nor on the models that are installed.
    command.env_remove("XDG_DATA_HOME").env_remove("VEILMATCH_MODELS").env_remove("VEILMATCH_DATA").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn pinned(name: &str, arguments: &[&str]) {
    let output = veilmatch(arguments);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts").join(name);
    if std::env::var_os("VEILMATCH_ACCEPT").is_some() {
        std::fs::write(&path, &output.stdout).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text(&output.stdout), expected, "{} has changed; see the head of this file", path.display());
}

#[test]
fn help_is_pinned() {
    pinned("help.txt", &["--help"]);
    pinned("demo-help.txt", &["demo", "--help"]);
    pinned("eval-pairs-help.txt", &["eval", "pairs", "--help"]);
    for command in [
        "eval identification",
        "eval images",
        "eval time-limits",
        "eval groups",
        "eval time",
        "eval fit-fair",
        "eval report",
        "inspect",
        "models list",
        "models verify",
        "models add",
        "models pull",
        "enroll",
        "verify",
        "identify",
        "erase",
        "info",
        "collections list",
        "collections show",
        "collections create",
        "templates list",
        "clients new-key",
        "clients add",
        "clients revoke",
        "unlock",
        "allow-restore",
        "up",
        "dealer",
        "pki init",
        "pki issue",
        "bench",
        "bench scan",
        "bench decide",
        "bench recrypt",
        "bench paillier",
        "bench e2e",
        "bench client",
        "bench report",
        "rotation fit",
        "rotation show",
        "calibrate",
        "ceremony",
        "audit show",
        "audit verify",
    ] {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        pinned(&format!("{}-help.txt", command.replace(' ', "-")), &words);
    }
}

/// A folder of files.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn add(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path: PathBuf = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A matrix of unit rows of 16 dimensions, after a change.
    fn matrix(&self, name: &str, rows: usize, change: impl FnOnce(&mut Vec<f32>)) -> String {
        let mut values: Vec<f32> = (0..rows * 16).map(|i| if i % 16 == (i / 16) % 16 { 1.0 } else { 0.0 }).collect();
        change(&mut values);
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.add(name, npy("<f4", rows, &data))
    }
}

fn npy(kind: &str, rows: usize, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({rows}, 16), }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// Runs with and without `--json`, expects exit code 2 and this code, and returns the message.
fn bad_input(arguments: &[&str], code: &str) -> String {
    let plain = veilmatch(arguments);
    assert_eq!((plain.status.code(), text(&plain.stdout).as_str()), (Some(2), ""), "{arguments:?}");
    assert!(text(&plain.stderr).starts_with("error: "), "{}", text(&plain.stderr));
    let output = veilmatch(&[arguments, &["--json"]].concat());
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(2), ""), "{arguments:?}");
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object.as_object().unwrap().len(), 1);
    let error = object["error"].as_object().unwrap();
    assert_eq!(error.keys().collect::<Vec<_>>(), ["code", "message"]);
    assert_eq!(error["code"], code, "{object}");
    error["message"].as_str().unwrap().to_owned()
}

fn contains(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

const PAIRS: &str = "fold,a,b,same\n0,0,1,1\n0,2,3,0\n1,1,2,1\n1,3,0,0\n";

#[test]
fn bad_embeddings_are_named_by_file_and_row() {
    let files = Files::new();
    let pairs = files.add("pairs.csv", PAIRS);
    let eval = |x: &str, code| bad_input(&["eval", "pairs", "--embeddings", x, "--pairs", &pairs], code);
    contains(&eval("/nowhere/x.npy", "no-such-file"), &["/nowhere/x.npy"]);
    let nan = files.matrix("nan.npy", 4, |v| v[2 * 16 + 5] = f32::NAN);
    contains(&eval(&nan, "not-finite"), &["nan.npy", "row 2"]);
    let long = files.matrix("long.npy", 4, |v| v[3 * 16 + 3] = 1.25);
    let message = eval(&long, "not-unit-norm");
    contains(&message, &["long.npy", "row 3", "--normalize"]);
    assert!(!message.contains("1.25"), "a value is in the message");
    let double = files.add("double.npy", npy("<f8", 4, &[0; 512]));
    contains(&eval(&double, "unsupported-dtype"), &["double.npy", "<f8"]);
    let short = files.add("short.npy", npy("<f4", 4, &[0; 100]));
    contains(&eval(&short, "truncated"), &["short.npy", "row 1 of 4"]);
    let text = files.add("text.npy", "0.1,0.2\n");
    contains(&eval(&text, "bad-npy"), &["text.npy"]);
}

#[test]
fn bad_tables_are_named_by_file_and_line() {
    let files = Files::new();
    let x = files.matrix("x.npy", 4, |_| {});
    let eval = |name: &str, table: &str, code| {
        let pairs = files.add(name, table);
        bad_input(&["eval", "pairs", "--embeddings", &x, "--pairs", &pairs], code)
    };
    contains(&eval("range.csv", &format!("{PAIRS}1,4,0,0\n"), "row-out-of-range"), &["range.csv", "line 6", "row 4"]);
    contains(&eval("word.csv", "a,b,same\n0,one,1\n", "bad-csv"), &["word.csv", "line 2"]);
    contains(&eval("columns.csv", "x,y\n0,1\n", "bad-csv"), &["columns.csv", "line 1"]);
    let labels = files.add("labels.csv", "row,label\n0,ann\n9,bo\n");
    let message = bad_input(&["demo", "--embeddings", &x, "--labels", &labels], "row-out-of-range");
    contains(&message, &["labels.csv", "line 3", "row 9"]);
}

const PROFILE: &str = "\
matcher = \"http://127.0.0.1:1\"
plaintext = true
client = \"gate-7\"
signing_key = \"gate-7.key\"
[cards]
k0 = \"k0.card\"
k1 = \"k1.card\"
k2 = \"k2.card\"
";

#[test]
fn bad_profiles_and_probes_are_named_before_anybody_is_asked() {
    let files = Files::new();
    let x = files.matrix("x.npy", 4, |v| v[16] = f32::NAN);
    let profile = files.add("veilmatch.toml", PROFILE);
    contains(&bad_input(&["info"], "no-profile"), &["veilmatch.toml", ".config/veilmatch/client.toml", "--profile"]);
    let typo = files.add("typo.toml", PROFILE.replace("client =", "cleint ="));
    contains(&bad_input(&["--profile", &typo, "info"], "config-syntax"), &["typo.toml", "cleint"]);
    // The card files do not exist.
    contains(&bad_input(&["--profile", &profile, "info"], "cannot-read-file"), &["k0.card"]);
    let verify = |row: &str, code| {
        bad_input(&["--profile", &profile, "verify", "--id", "alice", "--embedding", &x, "--row", row], code)
    };
    contains(&verify("1", "not-finite"), &["x.npy", "row 1"]);
    contains(&verify("4", "row-out-of-range"), &["x.npy", "no row 4", "has 4"]);
    contains(&verify("0", "profile-incomplete"), &["veilmatch.toml", "`collection`"]);
    contains(&bad_input(&["--profile", &profile, "ceremony"], "profile-incomplete"), &["administrator_key"]);
    let policy = ["collections", "create", "staff", "--dim", "64", "--window", "0"];
    contains(&bad_input(&policy, "bad-policy"), &["budgets need a window"]);

    let good = files.matrix("good.npy", 4, |_| {});
    let labels = files.add("labels.csv", "row,label\n0,ann\n2,bo b\n");
    let enroll = ["enroll", "--collection", "staff", "--embeddings", &good, "--labels", &labels];
    contains(&bad_input(&enroll, "bad-identifier"), &["labels.csv", "row 2", "' '"]);
}

#[test]
fn a_signing_key_is_made_once() {
    let files = Files::new();
    let path = files.0.path().join("gate-7.key");
    let arguments = ["clients", "new-key", "--key", path.to_str().unwrap()];
    let output = veilmatch(&[&arguments[..], &["--json"]].concat());
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["public_key"].as_str().unwrap().len(), 44);
    assert_eq!(object["file"], path.to_str().unwrap());
    contains(&bad_input(&arguments, "cannot-write-file"), &["gate-7.key"]);
}

#[test]
fn bad_arguments_are_bad_input() {
    bad_input(&["demo", "--gallery", "1"], "usage");
    bad_input(&["demo", "--embeddings", "x.npy"], "usage");
    bad_input(&["eval", "pairs"], "usage");
    contains(&bad_input(&["demo", "--threshold", "2"], "usage"), &["--threshold", "between -0.9 and 0.9"]);
}

#[test]
fn a_demonstration_writes_one_object_or_tables() {
    let small = ["demo", "--gallery", "10", "--dim", "16", "--probes", "2", "--threshold", "0.8"];
    let output = veilmatch(&[&small[..], &["--json"]].concat());
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    assert_eq!(text(&output.stdout).lines().count(), 1);
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["outside_band"], 0);
    assert!(object["stages_ms"]["ceremony"].as_f64().unwrap() > 0.0);
    let output = veilmatch(&small);
    assert_eq!(output.status.code(), Some(0));
    contains(&text(&output.stdout), &["never saw", "key holder K2", "equals the plaintext decision"]);
}

#[test]
fn vectors_of_any_length_are_normalised_on_request() {
    let files = Files::new();
    let x = files.matrix("x.npy", 4, |v| v.iter_mut().for_each(|v| *v *= 3.0));
    let pairs = files.add("pairs.csv", PAIRS);
    let arguments = ["eval", "pairs", "--embeddings", &x, "--pairs", &pairs, "--normalize", "--json"];
    let output = veilmatch(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&object["pairs"], &object["outside_band"]), (&Value::from(4), &Value::from(0)));
}

/// Drawn faces and the models for them, run by what is part of the program.
const TINY: [&str; 6] = ["--detector", "tiny-detect", "--model", "tiny-embed", "--runtime", "rust"];

fn photo(person: u64, view: &View) -> Vec<u8> {
    Person::new(person).photo(view).png().unwrap().to_vec()
}

#[test]
fn a_demonstration_with_drawn_faces_needs_nothing_installed() {
    let output = veilmatch(&["demo", "--images", "--gallery", "6", "--probes", "2", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(object["outside_band"] == 0 && object["decisions"].as_u64().unwrap() > 20, "{object}");
}

#[test]
fn a_photo_is_inspected_in_words_numbers_and_a_picture() {
    let files = Files::new();
    let good = files.add("good.png", photo(1, &View::varied(1, 0)));
    let far = files.add("far.png", photo(1, &View { eye_distance: 26.0, ..View::varied(1, 0) }));
    let out = files.0.path().join("annotated.png");
    let output = veilmatch(&[&["inspect", &good, "--out", out.to_str().unwrap()][..], &TINY].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    contains(&text(&output.stdout), &["tiny-detect and tiny-embed", "eye distance, px", "at least 32", "accepted"]);
    assert!(std::fs::read(&out).unwrap().starts_with(b"\x89PNG"));

    let output = veilmatch(&[&["inspect", &far, "--json"][..], &TINY].concat());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&object["accepted"], &object["refusals"][0]["code"]), (&false.into(), &"face-too-small".into()));
    assert_eq!(object["faces"].as_array().unwrap().len(), 1);
    let output = veilmatch(&[&["inspect", &far, "--gates", "off"][..], &TINY].concat());
    assert_eq!(output.status.code(), Some(0));

    let wall = files.add("wall.png", veilmatch_extract::drawn::group(&[]).png().unwrap());
    contains(&bad_input(&[&["inspect", &wall][..], &TINY].concat(), "no-face"), &["wall.png", "no face found"]);
    let text = files.add("text.jpg", "no photo");
    contains(&bad_input(&[&["inspect", &text][..], &TINY].concat(), "not-a-photo"), &["text.jpg", "JPEG"]);
}

#[test]
fn without_models_the_way_to_them_is_said() {
    let files = Files::new();
    let good = files.add("good.png", photo(1, &View::varied(1, 0)));
    let said = bad_input(&["inspect", &good], "no-model");
    contains(
        &said,
        &["no model that does detect", "/nowhere/.local/share/veilmatch/models", "veilmatch models pull yunet-2023mar"],
    );
    let said = bad_input(&["inspect", &good, "--detector", "tiny-detect"], "no-model");
    contains(&said, &["no model that does embed", "veilmatch models add retail0095.onnx"]);
    contains(&bad_input(&["inspect", &good, "--model", "resnet"], "no-model"), &["detect"]);
    contains(&bad_input(&["models", "pull", "retail0095"], "no-download"), &["open_model_zoo", "models add FILE"]);
    contains(&bad_input(&["models", "add", &good], "unknown-model-file"), &["good.png", "--manifest"]);
}

#[test]
fn models_are_listed_and_verified() {
    let output = veilmatch(&["models", "list"]);
    assert_eq!(output.status.code(), Some(0));
    contains(&text(&output.stdout), &["yunet", "missing", "part of the program", "Apache-2.0"]);
    let output = veilmatch(&["models", "list", "--json"]);
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    let models = object["models"].as_array().unwrap();
    let one = models.iter().find(|model| model["name"] == "retail0095").unwrap();
    assert_eq!((&one["dimension"], one["digest"].as_str().unwrap().len()), (&256.into(), 64));
    assert_eq!((&one["installed"], &one["thresholds"][0]["cosine"]), (&false.into(), &0.34.into()));
    let output = veilmatch(&["models", "verify", "--runtime", "rust"]);
    assert_eq!(output.status.code(), Some(0));
    contains(&text(&output.stdout), &["good  tiny-detect", "good  tiny-embed"]);
    let files = Files::new();
    files.add("yunet.onnx", "another file");
    let output = veilmatch(&["models", "verify", "--models", files.0.path().to_str().unwrap(), "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    let bad = object["models"].as_array().unwrap().iter().find(|model| model["name"] == "yunet").unwrap();
    assert!(bad["good"] == false && bad["problem"].as_str().unwrap().contains("SHA-256"), "{object}");
}
