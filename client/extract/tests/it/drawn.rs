//! Drawn faces through the whole pipeline, with the models that are part of the program.

use veilmatch_extract::drawn::{self, Person, View};
use veilmatch_extract::{
    ExtractError, Extractor, Faces, Gates, Library, Picture, Point, RuntimeChoice, Settings, TINY_DETECT, TINY_EMBED,
    annotated, fused,
};

fn settings() -> Settings {
    Settings {
        detector: Some(TINY_DETECT.into()),
        embedder: Some(TINY_EMBED.into()),
        runtime: RuntimeChoice::Rust,
        threads: 1,
        ..Settings::default()
    }
}

fn extractor(settings: Settings) -> Extractor {
    Extractor::open(&Library::of(Vec::new()), settings).unwrap_or_else(|error| panic!("{error}"))
}

fn file(picture: &Picture) -> Vec<u8> {
    picture.png().unwrap().to_vec()
}

#[test]
fn photos_of_one_person_are_alike_and_of_two_are_not() {
    let extractor = extractor(settings());
    let (people, photos) = (12, 4);
    let mut templates = Vec::new();
    for seed in 0..people {
        let person = Person::new(seed);
        for number in 0..photos {
            let view = View::varied(seed, number);
            let extraction = extractor
                .extract(&file(&person.photo(&view)))
                .unwrap_or_else(|error| panic!("person {seed}, photo {number}: {error}"));
            let truth = view.landmarks();
            for (found, drawn) in extraction.face.landmarks.points().iter().zip(truth.points()) {
                assert!(found.distance(drawn) < 1.5, "person {seed}, photo {number}: {found:?} instead of {drawn:?}");
            }
            templates.push((seed, extraction.embedding));
        }
    }
    let (mut mated, mut non_mated): (Vec<f64>, Vec<f64>) = (vec![], vec![]);
    for (i, (a, one)) in templates.iter().enumerate() {
        for (b, other) in &templates[i + 1..] {
            let scores = if a == b { &mut mated } else { &mut non_mated };
            scores.push(one.cosine(other).unwrap());
        }
    }
    let least = mated.iter().copied().fold(1.0, f64::min);
    let most = non_mated.iter().copied().fold(-1.0, f64::max);
    assert!(least > 0.8 && most < 0.55, "mated scores from {least:.3}, non-mated up to {most:.3}");
}

#[test]
fn a_fused_template_is_nearer_to_a_new_photo_than_its_parts() {
    let extractor = extractor(settings());
    let of = |number| {
        let photo = Person::new(7).photo(&View::varied(7, number));
        extractor.extract(&file(&photo)).unwrap_or_else(|error| panic!("{error}")).embedding
    };
    let parts: Vec<_> = (0..4).map(of).collect();
    let (together, new) = (fused(&parts).unwrap(), of(9));
    let alone: f64 = parts.iter().map(|part| part.cosine(&new).unwrap()).sum::<f64>() / parts.len() as f64;
    assert!(together.cosine(&new).unwrap() > alone, "{alone}");
}

#[test]
fn two_faces_are_refused_and_one_of_them_is_found_when_asked_for() {
    let view = |x: f64, distance: f64| View {
        width: 520,
        eyes: Point::new(x, 180.0),
        eye_distance: distance,
        roll: 0.0,
        ..View::varied(1, 1)
    };
    let (near, far) = (Person::new(1), Person::new(2));
    let photo = file(&drawn::group(&[(&near, view(140.0, 80.0)), (&far, view(400.0, 50.0))]));
    let one = extractor(settings());
    assert_eq!(one.extract(&photo).err(), Some(ExtractError::SeveralFaces { found: 2 }));
    let largest = extractor(Settings { faces: Faces::Largest, ..settings() });
    let found = largest.extract(&photo).unwrap_or_else(|error| panic!("{error}"));
    assert!((found.face.landmarks.left_eye.x - 100.0).abs() < 3.0, "{:?}", found.face);
    let central = extractor(Settings { faces: Faces::Central, ..settings() });
    let found = central.extract(&photo).unwrap_or_else(|error| panic!("{error}"));
    assert!((found.face.landmarks.left_eye.x - 100.0).abs() < 3.0, "{:?}", found.face);
}

#[test]
fn a_wall_has_no_face() {
    let wall = file(&drawn::group(&[]));
    assert_eq!(extractor(settings()).extract(&wall).err(), Some(ExtractError::NoFace));
}

#[test]
fn a_photo_on_its_side_is_turned_and_says_so() {
    let extractor = extractor(settings());
    let photo = Person::new(3).photo(&View { roll: 0.0, ..View::varied(3, 0) });
    let upright = extractor.extract(&file(&photo)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(upright.turned, 0);
    for quarters in [1, 2, 3] {
        let found = extractor.extract(&file(&photo.turned(quarters))).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(found.turned, 4 - quarters);
        assert!(found.embedding.cosine(&upright.embedding).unwrap() > 0.99);
    }
}

#[test]
fn a_small_face_is_refused_in_words_unless_the_gates_are_off() {
    let photo = file(&Person::new(4).photo(&View { eye_distance: 26.0, ..View::varied(4, 0) }));
    let said = extractor(settings()).extract(&photo).err().unwrap().to_string();
    assert!(said.starts_with("face too small: 26 px between the eyes, 32 needed; come closer"), "{said}");
    let open = extractor(Settings { gates: Gates::OFF, ..settings() });
    assert!(open.extract(&photo).is_ok());
}

#[test]
fn a_face_in_dim_light_is_refused_as_too_dark_and_in_the_dark_nothing_is_found() {
    let photo = |light: f64| file(&Person::new(4).photo(&View { light: [light; 3], noise: 1.0, ..View::varied(4, 0) }));
    let gates = Gates { brightness: Some((160.0, 225.0)), ..Gates::DEFAULT };
    let said = extractor(Settings { gates, ..settings() }).extract(&photo(0.86)).err().unwrap();
    assert!(matches!(said, ExtractError::Refused { .. }) && said.to_string().contains("face too dark"), "{said}");
    assert_eq!(extractor(settings()).extract(&photo(0.12)).err(), Some(ExtractError::NoFace));
}

#[test]
fn the_mirrored_sum_does_not_depend_on_the_side() {
    let extractor = extractor(Settings { flip: true, ..settings() });
    let examined =
        extractor.examine(&file(&Person::new(5).photo(&View::varied(5, 0)))).unwrap_or_else(|e| panic!("{e}"));
    let (one, other) = (extractor.embed_crop(&examined.crop), extractor.embed_crop(&examined.crop.mirrored()));
    let cosine = one.unwrap_or_else(|e| panic!("{e}")).cosine(&other.unwrap_or_else(|e| panic!("{e}"))).unwrap();
    assert!((cosine - 1.0).abs() < 1e-5, "{cosine}");
    assert!(matches!(extractor.embed_crop(&Picture::black(10, 10)), Err(ExtractError::Runtime(_))));
    // A crop of one colour has no direction.
    assert!(extractor.embed_crop(&Picture::black(64, 64)).is_err());
}

#[test]
fn the_annotated_picture_shows_box_landmarks_and_words() {
    let extractor = extractor(settings());
    let view = View::varied(6, 0);
    let examined = extractor.examine(&file(&Person::new(6).photo(&view))).unwrap_or_else(|error| panic!("{error}"));
    let drawn = annotated(&examined);
    assert!(drawn.width() >= view.width + 420 && drawn.height() >= view.height);
    let eye = examined.face.landmarks.left_eye;
    assert_eq!(drawn.pixel(eye.x as usize, eye.y as usize), [70, 200, 255]);
    let (left, middle) = (examined.face.bounds.x.round(), examined.face.bounds.y + examined.face.bounds.height / 2.0);
    assert_eq!(drawn.pixel(left as usize, middle as usize), [60, 220, 90]);
    let written =
        (view.width..drawn.width()).any(|x| (100..drawn.height()).any(|y| drawn.pixel(x, y) == [225, 228, 232]));
    assert!(written, "no words");
    if let Some(folder) = std::env::var_os("VEILMATCH_KEEP") {
        std::fs::write(std::path::Path::new(&folder).join("annotated-drawn.png"), &*drawn.png().unwrap()).unwrap();
    }
}
