//! Drawn faces through the whole pipeline, with the models that are part of the program.

use veilmatch_extract::drawn::{self, Person, View};
use veilmatch_extract::{
    ExtractError, Extractor, Faces, Gates, Library, Picture, Point, RuntimeChoice, Settings, TINY_DETECT, TINY_EMBED, fused,
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
