use super::*;
use std::fs;
use tempfile::TempDir;
use veilmatch_extract::drawn::{Person, View};
use veilmatch_extract::{TINY_DETECT, TINY_EMBED};

pub(super) fn options() -> PhotoOptions {
    PhotoOptions {
        detector: Some(TINY_DETECT.into()),
        model: Some(TINY_EMBED.into()),
        runtime: RuntimeWord::Rust,
        ..PhotoOptions::default()
    }
}

/// Draws photos: path below the folder, person, number of the view.
fn drawn(photos: &[(&str, u64, u64)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (path, person, number) in photos {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let photo = Person::new(*person).photo(&View::varied(*person, *number));
        fs::write(path, &*photo.png().unwrap()).unwrap();
    }
    folder
}

fn ids(albums: &Albums) -> Vec<(&str, usize)> {
    albums.iter().map(|(subject, files)| (subject.as_str(), files.len())).collect()
}

#[test]
fn folders_are_people_and_other_files_are_passed_over() {
    let folder = drawn(&[("ann/1.png", 1, 0), ("ann/2.PNG", 1, 1), ("bo/1.jpeg", 2, 0)]);
    fs::write(folder.path().join("ann/notes.txt"), "hello").unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    assert_eq!(ids(&super::folder(folder.path()).unwrap()), [("ann", 2), ("bo", 1)]);
    assert_eq!(named(&[folder.path().join("ann")]).unwrap().len(), 2);
    let code = |result: Result<Albums, InputError>| result.unwrap_err().code();
    assert_eq!(code(super::folder(&folder.path().join("ann"))), "no-photos");
    assert_eq!(code(super::folder(&folder.path().join("nobody"))), "no-such-file");
    fs::create_dir(folder.path().join("b o")).unwrap();
    fs::copy(folder.path().join("bo/1.jpeg"), folder.path().join("b o/1.png")).unwrap();
    assert_eq!(code(super::folder(folder.path())), "bad-identifier");
}

#[test]
fn tables_name_photos_from_where_they_lie() {
    let folder = drawn(&[("ann/1.png", 1, 0), ("2.png", 1, 1), ("bo.png", 2, 0)]);
    let list = folder.path().join("list.csv");
    fs::write(&list, "id,path\nann,ann/1.png\nbo,bo.png\nann,2.png\n").unwrap();
    let albums = listed(&list).unwrap();
    assert_eq!(ids(&albums), [("ann", 2), ("bo", 1)]);
    assert!(albums.values().flatten().all(|file| file.exists()));
    fs::write(&list, "id,path\nann,a.png\nb o,b.png\n").unwrap();
    let error = listed(&list).unwrap_err();
    assert!(error.code() == "bad-identifier" && error.to_string().contains("line 3"), "{error}");
    fs::write(&list, "id,path\nann,\n").unwrap();
    assert_eq!(listed(&list).unwrap_err().code(), "bad-csv");
}

#[test]
fn one_template_a_person_and_every_refusal_by_name() {
    let folder = drawn(&[("ann/1.png", 1, 0), ("ann/2.png", 1, 1), ("bo/1.png", 2, 0)]);
    fs::write(folder.path().join("ann/broken.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    fs::create_dir(folder.path().join("cy")).unwrap();
    fs::write(folder.path().join("cy/text.jpg"), "no photo").unwrap();
    let extractor = options().extractor(1).unwrap();
    let made = templates(&extractor, &super::folder(folder.path()).unwrap(), &Progress::hidden()).unwrap();
    let people: Vec<_> = made.people.iter().map(|(subject, _)| subject.as_str()).collect();
    assert_eq!((people, made.photos), (vec!["ann", "bo"], 5));
    let codes: Vec<_> = made.refused.iter().map(|one| (one.subject.as_deref().unwrap(), one.code)).collect();
    assert_eq!(codes, [("ann", "photo-damaged"), ("cy", "not-a-photo")]);
    assert_eq!(made.without, [SubjectId::new("cy").unwrap()]);
    assert!(refusal_table(&made.refused).contains("broken.png"));

    // A new photo of one of them is like the fused template, and unlike the other's.
    let new = drawn(&[("new.png", 1, 5)]);
    let asked = probe(&extractor, &[new.path().join("new.png")], &Progress::hidden()).unwrap();
    assert!(asked.cosine(&made.people[0].1).unwrap() > 0.8 && asked.cosine(&made.people[1].1).unwrap() < 0.6);
    let error = probe(&extractor, &[folder.path().join("cy/text.jpg")], &Progress::hidden()).unwrap_err();
    assert_eq!((error.exit_code(), error.reason()), (2, "not-a-photo"));
    assert!(error.to_string().contains("text.jpg"), "{error}");
}

#[test]
fn the_usual_threshold_is_the_models_own() {
    let threshold = usual_threshold(&options().extractor(1).unwrap()).unwrap();
    assert!((0.3..0.8).contains(&threshold.cosine()), "{threshold}");
}
