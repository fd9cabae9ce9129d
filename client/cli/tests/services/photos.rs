//! Photos on the command line, against a real deployment: drawn faces, enrolled from a folder, verified and identified.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use veilmatch_extract::drawn::{Person, View};

use crate::cluster::{Cluster, PEOPLE};

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
}
