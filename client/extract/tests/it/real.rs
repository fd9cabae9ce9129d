//! Real faces: boxes, landmarks and templates against those that the reference programs computed.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use veilmatch_domain::Embedding;
use veilmatch_extract::{ExtractError, Extractor, Faces, Gates, Library, RuntimeChoice, Settings};

fn extractor(data: &Path, settings: Settings) -> Extractor {
    Extractor::open(&Library::of(vec![data.join("models")]), settings).unwrap_or_else(|error| panic!("{error}"))
}

fn rows(file: &Path) -> Vec<HashMap<String, String>> {
    let mut reader = csv::Reader::from_path(file).unwrap();
    reader.deserialize().map(|row| row.unwrap()).collect()
}

fn template(values: &[f32]) -> Embedding {
    Embedding::normalised(values.to_vec()).unwrap()
}

#[test]
fn photos_have_the_boxes_landmarks_and_templates_of_the_reference() {
    let Some(data) = crate::data("photos_have_the_boxes_landmarks_and_templates_of_the_reference") else { return };
    let photos = data.join("photos");
    let settings = Settings { gates: Gates::OFF, faces: Faces::Largest, ..Settings::default() };
    let extractor = extractor(&data, settings);
    let reference = npyz::NpyFile::new(File::open(photos.join("templates_retail0095_f32.npy")).unwrap()).unwrap();
    let reference: Vec<f32> = reference.into_vec().unwrap();
    for row in rows(&photos.join("files.csv")) {
        let file = photos.join("originals").join(&row["file"]);
        if !file.exists() {
            continue;
        }
        let number = |name: &str| row[name].parse::<f64>().unwrap();
        let found = extractor.extract_file(&file).unwrap_or_else(|error| panic!("{}: {error}", row["file"]));
        let index = number("index") as usize;
        let cosine = template(&reference[index * 256..(index + 1) * 256]).cosine(&found.embedding).unwrap();
        let b = found.face.bounds;
        let box_off = [b.x - number("x"), b.y - number("y"), b.width - number("w"), b.height - number("h")];
        let marks = found.face.landmarks.points();
        let off = (0..5).map(|k| marks[k].distance(veilmatch_extract::Point::new(number(&format!("k{k}x")), number(&format!("k{k}y"))))).fold(0.0, f64::max);
        eprintln!("{} eye {:.0} score {:.4} vs {} box {:?} marks {off:.2} cos {cosine:.5} sharp {:.0} yaw {:.2} pitch {:.2} roll {:.1} bright {:.0} contrast {:.0} clip {:.2} turned {}", row["file"], found.quality.eye_distance, found.face.score, row["det_score"], box_off.map(|v| (v*100.0).round()/100.0), found.quality.sharpness, found.quality.yaw, found.quality.pitch, found.quality.roll, found.quality.brightness, found.quality.contrast, found.quality.clipped, found.turned);
    }
}
