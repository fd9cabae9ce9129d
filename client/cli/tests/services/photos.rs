//! Photos on the command line, against a real deployment: drawn faces, enrolled from a folder, verified and identified.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use veilmatch_extract::drawn::{Person, View};

use crate::cluster::{Cluster, PEOPLE};

/// Of the embedder for drawn faces.
const DIMENSION: usize = 64;

/// What the program says: exit code, and the object on standard output.
async fn veilmatch(profile: &Path, arguments: &[&str], files: &[&Path]) -> (i32, Value) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_veilmatch"))
        .arg("--profile")
        .arg(profile)
        .args(arguments)
        .args(["--collection", "faces", "--json", "--detector", "tiny-detect", "--model", "tiny-embed"])
        .args(files)
        .output()
        .await
        .unwrap();
    let object = serde_json::from_slice(&output.stdout);
    let object = object.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), object)
}

fn draw(file: &Path, person: u64, view: &View) {
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, &*Person::new(person).photo(view).png().unwrap()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_enrolled_and_found_by_their_photos() {
    let cluster = Cluster::start().await;
    let profile = cluster.running.deployment().profile();
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for number in 0..2 {
        draw(&at(&format!("staff/ann/{number}.png")), 1, &View::varied(1, number));
    }
    draw(&at("staff/bo/0.png"), 2, &View::varied(2, 0));
    draw(&at("staff/cy/far.png"), 3, &View { eye_distance: 26.0, ..View::varied(3, 0) });
    for (name, person) in [("ann.png", 1), ("bo.png", 2), ("di.png", 4)] {
        draw(&at(name), person, &View::varied(person, 7));
    }

    let staff = at("staff");
    let (code, enrolled) = veilmatch(&profile, &["enroll", "--photos", staff.to_str().unwrap()], &[]).await;
    assert_eq!((code, &enrolled["accepted"], &enrolled["refused"]), (3, &2.into(), &1.into()), "{enrolled}");
    assert_eq!(enrolled["codes"]["no-usable-photo"], 1, "{enrolled}");
    let refused = &enrolled["refused_photos"][0];
    assert_eq!((&refused["subject"], &refused["code"]), (&"cy".into(), &"face-too-small".into()), "{enrolled}");
    assert!(refused["message"].as_str().unwrap().contains("26 px between the eyes, 32 needed"), "{enrolled}");
    cluster.indexed(PEOPLE + 2).await;

    for (id, photo, code, verified) in
        [("ann", "ann.png", 0, true), ("bo", "bo.png", 0, true), ("bo", "ann.png", 1, false)]
    {
        let (ended, answer) = veilmatch(&profile, &["verify", "--id", id], &[&at(photo)]).await;
        assert_eq!((ended, &answer["verified"]), (code, &verified.into()), "{id} {photo}: {answer}");
        // The model's own threshold, because neither the profile nor anybody names one.
        assert!((answer["threshold"].as_f64().unwrap() - 0.584).abs() < 1e-9, "{answer}");
    }
    for (photo, subjects) in [("bo.png", vec!["bo"]), ("di.png", vec![])] {
        let (_, answer) = veilmatch(&profile, &["identify"], &[&at(photo)]).await;
        assert_eq!(answer["subjects"], Value::from(subjects), "{answer}");
    }
    let (code, said) = veilmatch(&profile, &["verify", "--id", "ann"], &[&at("staff/cy/far.png")]).await;
    assert_eq!((code, &said["error"]["code"]), (2, &"face-too-small".into()), "{said}");
    let (code, said) = veilmatch(&profile, &["enroll", "--id", "ann"], &[&at("ann.png")]).await;
    assert_eq!((code, &said["codes"]["already-enrolled"]), (3, &1.into()), "{said}");

    // Ann's template gives way to Di's face, and to nobody's if that is refused.
    let far = at("staff/cy/far.png");
    let (code, said) = veilmatch(&profile, &["enroll", "--id", "ann", "--replace"], &[&far]).await;
    assert_eq!((code, &said["codes"]["no-usable-photo"]), (3, &1.into()), "{said}");
    let (code, _) = veilmatch(&profile, &["verify", "--id", "ann"], &[&at("ann.png")]).await;
    assert_eq!(code, 0, "the old template is still there");
    let (code, said) = veilmatch(&profile, &["enroll", "--id", "ann", "--replace"], &[&at("di.png")]).await;
    assert_eq!((code, &said["accepted"]), (0, &1.into()), "{said}");
    cluster.indexed(PEOPLE + 2).await;
    for (photo, code) in [("di.png", 0), ("ann.png", 1)] {
        let (ended, answer) = veilmatch(&profile, &["verify", "--id", "ann"], &[&at(photo)]).await;
        assert_eq!(ended, code, "{photo}: {answer}");
    }
}

/// A collection that is bound to an embedder takes its templates and probes, and refuses those of others.
#[tokio::test(flavor = "multi_thread")]
async fn a_bound_collection_takes_one_model_alone() {
    let cluster = Cluster::start().await;
    let profile = cluster.running.deployment().profile();
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (photo, bound) = (at("eve.png"), ["--collection", "bound"]);
    draw(&photo, 5, &View::varied(5, 0));
    let dim = u16::try_from(DIMENSION).unwrap().to_string();
    let create = |model: &'static str| {
        let words = ["collections", "create", "bound", "--dim", &dim, "--model", model, "--json"].map(String::from);
        let profile = profile.clone();
        async move {
            let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_veilmatch"));
            command.arg("--profile").arg(profile).args(words).output().await.unwrap()
        }
    };
    assert!(create("tiny-embed").await.status.success());
    let ask = async |arguments: &[&str], model: &str, files: &[&Path]| {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_veilmatch"))
            .arg("--profile")
            .arg(&profile)
            .args(arguments)
            .args(bound)
            .args(["--json", "--detector", "tiny-detect", "--model", model])
            .args(files)
            .output()
            .await
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = ask(&["enroll", "--id", "eve"], "tiny-embed", &[&photo]).await;
    assert_eq!(code, 0, "{said}");
    // An embedding from a file, said to be another model's.
    let unit: Vec<f32> = (0..DIMENSION).map(|i| f32::from(u8::from(i == 0))).collect();
    let file = at("e.npy");
    std::fs::write(&file, npy(&unit)).unwrap();
    let file = file.to_str().unwrap();
    for model in ["retail0095", &"ab".repeat(32)] {
        let (code, said) = ask(&["enroll", "--id", "fay", "--embedding", file], model, &[]).await;
        assert!(code == 3 && said.contains("other-model"), "{model}: {code} {said}");
        let (code, said) = ask(&["identify", "--embedding", file], model, &[]).await;
        assert!(code == 3 && said.contains("other-model"), "{model}: {code} {said}");
    }
    let (code, said) = ask(&["enroll", "--id", "fay", "--embedding", file], "tiny-embed", &[]).await;
    assert_eq!(code, 0, "{said}");
    // With people in it, it keeps its model.
    let other = create("retail0095").await;
    assert_eq!(other.status.code(), Some(3), "{}", String::from_utf8_lossy(&other.stdout));
}

/// A matrix of one row of float32, as NumPy writes it.
fn npy(row: &[f32]) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': (1, {}), }}", row.len());
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 11;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(padded + 1).unwrap().to_le_bytes());
    bytes.extend(format!("{header:padded$}\n").into_bytes());
    bytes.extend(row.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}
