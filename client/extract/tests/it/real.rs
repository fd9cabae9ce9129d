//! Real faces: boxes, landmarks and templates against those that the reference programs computed.

use std::collections::HashMap;
use std::path::Path;

use veilmatch_domain::{Embedding, Explain};
use veilmatch_extract::{
    ExtractError, Extractor, Faces, Gates, Library, Limits, Picture, Point, Rectangle, Settings, annotated, drawn,
};

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
    // A few have somebody in the background.
    let settings = Settings { gates: Gates::OFF, faces: Faces::Largest, ..Settings::default() };
    let extractor = extractor(&data, settings);
    let reference = matrix(&photos.join("templates_retail0095_f32.npy"));
    let mut seen = 0;
    for row in rows(&photos.join("files.csv")) {
        let name = &row["file"];
        let file = photos.join("originals").join(name);
        if !file.exists() {
            continue;
        }
        let number = |column: &str| row[column].parse::<f64>().unwrap();
        let found = extractor.extract_file(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        let bounds = found.face.bounds;
        let expected = Rectangle { x: number("x"), y: number("y"), width: number("w"), height: number("h") };
        assert!(bounds.overlap(&expected) > 0.98, "{name}: {bounds:?} instead of {expected:?}");
        let eyes = found.quality.eye_distance;
        for (k, mark) in found.face.landmarks.points().iter().enumerate() {
            let off = mark.distance(Point::new(number(&format!("k{k}x")), number(&format!("k{k}y"))));
            assert!(off < 0.015 * eyes, "{name}: landmark {k} is off by {off:.2} px, eyes {eyes:.0} px apart");
        }
        let index = row["index"].parse::<usize>().unwrap();
        let cosine = template(&reference[index * 256..][..256]).cosine(&found.embedding).unwrap();
        assert!(cosine > 0.99, "{name}: cosine {cosine:.4} with the reference");
        seen += 1;
    }
    assert!(seen > 40, "{seen} photos");
}

#[test]
fn lfw_has_the_templates_of_the_reference_and_passes_the_gates() {
    let Some(data) = crate::data("lfw_has_the_templates_of_the_reference_and_passes_the_gates") else { return };
    let lfw = data.join("lfw");
    // The person meant is in the middle, others may stand beside.
    let settings = Settings { faces: Faces::Central, threads: 1, ..Settings::default() };
    let extractor = extractor(&data, settings);
    let reference = matrix(&lfw.join("templates_retail0095_f16.npy"));
    let index: HashMap<String, usize> =
        rows(&lfw.join("rows.csv")).iter().map(|row| (row["image"].clone(), row["row"].parse().unwrap())).collect();
    let mut files: Vec<String> =
        rows(&lfw.join("image_pairs.csv")).iter().flat_map(|row| [row["a"].clone(), row["b"].clone()]).collect();
    files.sort();
    files.dedup();
    // All of them give the numbers in `Gates`; every seventh takes some seconds.
    let files: Vec<String> = files.into_iter().step_by(7).collect();
    let (mut close, mut refused) = (0, 0);
    for file in &files {
        let examined = extractor.examine_file(&lfw.join("images").join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        let name = Path::new(file).file_stem().unwrap().to_str().unwrap();
        let row = index[name];
        let embedding = extractor.embed(&examined).unwrap_or_else(|error| panic!("{file}: {error}"));
        let cosine = template(&reference[row * 256..][..256]).cosine(&embedding).unwrap();
        assert!(cosine > 0.93, "{file}: cosine {cosine:.4} with the reference");
        close += usize::from(cosine > 0.99);
        refused += usize::from(!examined.refusals.is_empty());
        let model = examined.quality.model.unwrap();
        assert!((0.0..=1.0).contains(&model), "{file}: {model}");
    }
    assert!(close * 100 >= files.len() * 95, "{close} of {} near the reference", files.len());
    assert!(refused * 100 <= files.len() * 10, "{refused} of {} refused", files.len());
}

#[test]
fn several_faces_and_none_are_errors_in_words() {
    let Some(data) = crate::data("several_faces_and_none_are_errors_in_words") else { return };
    let photos = data.join("photos/originals");
    let one = extractor(&data, Settings::default());
    let said = one.extract_file(&photos.join("couple.jpg")).err().unwrap();
    assert_eq!(said, ExtractError::SeveralFaces { found: 2 }, "{said}");
    let said = one.extract_file(&photos.join("selfie-many-people.jpg")).err().unwrap();
    assert!(matches!(said, ExtractError::SeveralFaces { found: 3.. }), "{said}");
    let largest = extractor(&data, Settings { faces: Faces::Largest, gates: Gates::OFF, ..Settings::default() });
    let examined = largest.examine_file(&photos.join("couple.jpg")).unwrap_or_else(|error| panic!("{error}"));
    assert!(examined.faces.iter().all(|face| face.bounds.area() <= examined.face.bounds.area()));
    let wall = drawn::group(&[]).png().unwrap();
    assert_eq!(one.extract(&wall).err(), Some(ExtractError::NoFace));
}

#[test]
fn a_photo_on_its_side_is_found_by_turning_it() {
    let Some(data) = crate::data("a_photo_on_its_side_is_found_by_turning_it") else { return };
    let extractor = extractor(&data, Settings::default());
    let file = data.join("photos/originals/img29.jpg");
    let upright = extractor.extract_file(&file).unwrap_or_else(|error| panic!("{error}"));
    let picture = Picture::read(&file, &Limits::default()).unwrap_or_else(|error| panic!("{error}"));
    for quarters in [1, 2, 3] {
        let turned = picture.turned(quarters).png().unwrap();
        let found = extractor.extract(&turned).unwrap_or_else(|error| panic!("{quarters} quarters: {error}"));
        assert_eq!(found.turned, 4 - quarters);
        assert!(found.embedding.cosine(&upright.embedding).unwrap() > 0.999);
    }
}

#[test]
fn a_face_made_small_is_refused_by_name_and_number() {
    let Some(data) = crate::data("a_face_made_small_is_refused_by_name_and_number") else { return };
    let extractor = extractor(&data, Settings::default());
    let file = data.join("photos/originals/img29.jpg");
    let small = inspect_scaled(&Picture::read(&file, &Limits::default()).unwrap_or_else(|error| panic!("{error}")), 5);
    let Err(ExtractError::Refused { refusals }) = extractor.extract(&small.png().unwrap()) else {
        panic!("a fifth of the size is not enough")
    };
    let said = refusals[0].to_string();
    assert!(said.starts_with("face too small: ") && said.contains(" px between the eyes, 32 needed"), "{said}");
}

/// Every `step`th pixel.
fn inspect_scaled(picture: &Picture, step: usize) -> Picture {
    let mut small = Picture::black(picture.width() / step, picture.height() / step);
    for y in 0..small.height() {
        for x in 0..small.width() {
            small.set(x, y, picture.pixel(x * step, y * step));
        }
    }
    small
}

#[test]
fn presence_is_measured_where_the_gates_ask_for_it() {
    let Some(data) = crate::data("presence_is_measured_where_the_gates_ask_for_it") else { return };
    let gates = Gates { liveness: Some(0.5), ..Gates::OFF };
    let extractor = extractor(&data, Settings { gates, ..Settings::default() });
    let file = data.join("photos/originals/img29.jpg");
    let examined = extractor.examine_file(&file).unwrap_or_else(|error| panic!("{error}"));
    assert!((0.0..=1.0).contains(&examined.quality.liveness.unwrap()));
}

#[test]
fn the_mirrored_sum_is_near_the_single_crop_and_another_vector() {
    let Some(data) = crate::data("the_mirrored_sum_is_near_the_single_crop_and_another_vector") else { return };
    let file = data.join("photos/originals/img29.jpg");
    let of = |flip| {
        let extractor = extractor(&data, Settings { flip, ..Settings::default() });
        extractor.extract_file(&file).unwrap_or_else(|error| panic!("{error}"))
    };
    let cosine = of(true).embedding.cosine(&of(false).embedding).unwrap();
    assert!(cosine > 0.9 && cosine < 0.99999, "{cosine}");
}

#[test]
fn the_annotated_picture_shows_the_photo_the_crop_and_the_numbers() {
    let Some(data) = crate::data("the_annotated_picture_shows_the_photo_the_crop_and_the_numbers") else { return };
    let extractor = extractor(&data, Settings { faces: Faces::Largest, ..Settings::default() });
    let file = data.join("photos/originals/couple.jpg");
    let examined = extractor.examine_file(&file).unwrap_or_else(|error| panic!("{error}"));
    let drawn = annotated(&examined);
    assert!(drawn.width() > examined.crop.width() && drawn.height() > examined.crop.height());
    if let Some(folder) = std::env::var_os("VEILMATCH_KEEP") {
        std::fs::write(Path::new(&folder).join("annotated.png"), &*drawn.png().unwrap()).unwrap();
    }
}

#[test]
fn many_files_come_back_in_order_with_their_errors() {
    let Some(data) = crate::data("many_files_come_back_in_order_with_their_errors") else { return };
    let extractor = extractor(&data, Settings { threads: 1, ..Settings::default() });
    let photos = data.join("photos/originals");
    let files: Vec<_> =
        ["img29.jpg", "couple.jpg", "missing.jpg", "img45.jpg"].iter().map(|n| photos.join(n)).collect();
    let results = extractor.extract_many(&files, 2, &|_| {});
    assert_eq!(results.len(), 4);
    let codes: Vec<_> = results.iter().map(|result| result.as_ref().err().map(|error| error.code())).collect();
    assert_eq!(codes, [None, Some("several-faces"), Some("photo-unreadable"), None]);
    let alone = extractor.extract_file(&files[3]).unwrap_or_else(|error| panic!("{error}"));
    let batch = results[3].as_ref().unwrap_or_else(|error| panic!("{error}"));
    assert!(alone.embedding.cosine(&batch.embedding).unwrap() > 0.9999);
}

/// The values of a matrix of float16 or float32 in NumPy's format.
fn matrix(file: &Path) -> Vec<f32> {
    let bytes = std::fs::read(file).unwrap();
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let text = String::from_utf8_lossy(&bytes[10..header]).into_owned();
    let body = &bytes[header..];
    if text.contains("'<f2'") {
        body.chunks_exact(2).map(|two| half::f16::from_le_bytes([two[0], two[1]]).to_f32()).collect()
    } else {
        assert!(text.contains("'<f4'"), "{text}");
        body.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
    }
}
