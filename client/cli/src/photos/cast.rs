//! The cast of `demo --images`: drawn people, or a folder of photos.

use std::path::Path;

use veilmatch_domain::{Embedding, SubjectId};
use veilmatch_extract::drawn::{Person, View};
use veilmatch_extract::{Extractor, TINY_DETECT, TINY_EMBED};

use super::{Albums, PhotoOptions, PhotoRefused, RefusedPhoto, bad, extracted, folder, refusal_table};
use crate::cast::Cast;
use crate::exit::CliError;
use crate::input::InputError;
use crate::report::Progress;

/// People who are drawn if nobody says how many: a second or two of drawing.
pub const DRAWN_GALLERY: u32 = 24;
/// Photos of a drawn person that are fused into the template.
const ENROLLED_PHOTOS: u64 = 2;

/// A cast, and what has to be said beside it.
pub struct PhotoCast {
    /// The cast.
    pub cast: Cast,
    /// The embedder's own threshold.
    pub threshold: Option<veilmatch_domain::Threshold>,
    /// Photos that gave no template, as a table.
    pub refused: String,
}

/// Drawn people: photos are made, written as PNG, read again and go through the whole pipeline with the tiny models.
///
/// # Errors
/// [`CliError`] if a drawn face is refused: then something is broken.
pub fn drawn(
    gallery: usize,
    probes: usize,
    options: &PhotoOptions,
    progress: &Progress,
) -> Result<PhotoCast, CliError> {
    let options = PhotoOptions {
        model: Some(options.model.clone().unwrap_or_else(|| TINY_EMBED.into())),
        detector: Some(options.detector.clone().unwrap_or_else(|| TINY_DETECT.into())),
        ..options.clone()
    };
    let extractor = options.extractor(0)?;
    let bar = progress.stage("photos", gallery + 2 * probes);
    let photo = |person: u64, number: u64| {
        let picture = Person::new(person).photo(&View::varied(person, number));
        let named = || format!("drawn person {person}, photo {number}").into();
        let file = picture.png().map_err(|error| bad(error.into()))?;
        let extraction = extractor
            .extract(&file)
            .map_err(|source| CliError::Arguments(Box::new(PhotoRefused { file: named(), source })))?;
        bar.step();
        Ok::<Embedding, CliError>(extraction.embedding)
    };
    let (mut enrolled, mut mated, mut strangers) = (Vec::new(), Vec::new(), Vec::new());
    for person in 0..gallery as u64 {
        let own = (0..ENROLLED_PHOTOS).map(|number| photo(person, number)).collect::<Result<Vec<_>, _>>()?;
        let subject = SubjectId::new(format!("drawn-{person}")).map_err(CliError::protocol)?;
        enrolled.push((subject.clone(), veilmatch_extract::fused(&own)?));
        if (person as usize) < probes {
            mated.push((subject, photo(person, ENROLLED_PHOTOS)?));
        }
    }
    for person in 0..probes as u64 {
        strangers.push(photo(gallery as u64 + person, 0)?);
    }
    let source = format!("drawn faces, {ENROLLED_PHOTOS} photos each; {}", models(&extractor));
    finished(enrolled, mated, strangers, source, &extractor, String::new())
}

/// A folder of folders named after people: a person's first photos are fused and enrolled, the last is a mated probe; people
/// beyond the gallery are strangers.
///
/// # Errors
/// [`CliError`]: no model, no photos, or too few people whose photos were accepted.
pub fn from_folder(
    path: &Path,
    gallery: usize,
    probes: usize,
    options: &PhotoOptions,
    progress: &Progress,
) -> Result<PhotoCast, CliError> {
    let albums = folder(path)?;
    let extractor = options.extractor(1)?;
    let (mut people, refused) = accepted(&extractor, &albums, progress);
    if people.len() < 3 {
        return Err(InputError::TooFewPeople { path: path.into() }.into());
    }
    // Whoever has a second photo can ask for himself; at least one person stays a stranger.
    people.sort_by_key(|own| own.len() < 2);
    let size = gallery.min(people.len() - probes.min(people.len() / 3).max(1));
    let rest = people.split_off(size);
    let (mut enrolled, mut mated) = (Vec::new(), Vec::new());
    for (number, mut own) in people.into_iter().enumerate() {
        // Names of people do not leave the demonstration's input.
        let subject = SubjectId::new(format!("person-{number}")).map_err(CliError::protocol)?;
        if own.len() > 1
            && mated.len() < probes
            && let Some(last) = own.pop()
        {
            mated.push((subject.clone(), last));
        }
        enrolled.push((subject, veilmatch_extract::fused(&own)?));
    }
    if mated.is_empty() {
        return Err(InputError::NoMatedPeople { path: path.into() }.into());
    }
    let strangers = rest.into_iter().take(probes).filter_map(|own| own.into_iter().next()).collect();
    let source = format!("photos from a folder, {} refused; {}", refused.len(), models(&extractor));
    finished(enrolled, mated, strangers, source, &extractor, refusal_table(&refused))
}

/// Each person's accepted photos, and the refused ones.
fn accepted(extractor: &Extractor, albums: &Albums, progress: &Progress) -> (Vec<Vec<Embedding>>, Vec<RefusedPhoto>) {
    let files: Vec<_> = albums.values().flatten().cloned().collect();
    let mut results = extracted(extractor, files, progress).into_iter();
    let (mut people, mut refused) = (Vec::new(), Vec::new());
    for (subject, files) in albums {
        let mut own = Vec::new();
        for (file, result) in files.iter().zip(results.by_ref()) {
            match result {
                Ok(extraction) => own.push(extraction.embedding),
                Err(error) => refused.push(super::refused_photo(Some(subject), file, &error)),
            }
        }
        if !own.is_empty() {
            people.push(own);
        }
    }
    (people, refused)
}

fn models(extractor: &Extractor) -> String {
    let (detector, embedder) = (&extractor.detector().name, &extractor.embedder().name);
    format!("{detector} and {embedder} on {}", extractor.runtime())
}

fn finished(
    enrolled: Vec<(SubjectId, Embedding)>,
    mated: Vec<(SubjectId, Embedding)>,
    strangers: Vec<Embedding>,
    source: String,
    extractor: &Extractor,
    refused: String,
) -> Result<PhotoCast, CliError> {
    let Some((_, first)) = enrolled.first() else {
        return Err(CliError::protocol(veilmatch_domain::EmbeddingError::Zero));
    };
    let dimension = first.dimension();
    let threshold = super::usual_threshold(extractor);
    Ok(PhotoCast { cast: Cast { enrolled, mated, strangers, dimension, source }, threshold, refused })
}

#[cfg(test)]
mod tests {
    use super::*;
    use veilmatch_domain::Explain as _;

    #[test]
    fn drawn_people_are_like_themselves_and_unlike_strangers() {
        let made = drawn(6, 3, &super::super::tests::options(), &Progress::hidden()).unwrap();
        let (cast, threshold) = (made.cast, made.threshold.unwrap().cosine());
        assert_eq!((cast.enrolled.len(), cast.mated.len(), cast.strangers.len()), (6, 3, 3));
        for (subject, probe) in &cast.mated {
            for (name, template) in &cast.enrolled {
                assert_eq!(probe.cosine(template).unwrap() >= threshold, name == subject, "{subject} and {name}");
            }
        }
        assert!(cast.source.contains("tiny-embed"));
    }

    #[test]
    fn a_folder_of_photos_becomes_a_cast_under_pseudonyms() {
        let folder = tempfile::TempDir::new().unwrap();
        for (name, person, photos) in [("ann", 1, 3), ("bo", 2, 2), ("cy", 3, 1), ("di", 4, 1)] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            for number in 0..photos {
                let photo = Person::new(person).photo(&View::varied(person, number));
                std::fs::write(folder.path().join(format!("{name}/{number}.png")), &*photo.png().unwrap()).unwrap();
            }
        }
        std::fs::write(folder.path().join("di/broken.jpg"), "no photo").unwrap();
        let options = super::super::tests::options();
        let made = from_folder(folder.path(), 10, 5, &options, &Progress::hidden()).unwrap();
        assert_eq!((made.cast.enrolled.len(), made.cast.mated.len(), made.cast.strangers.len()), (3, 2, 1));
        assert!(made.cast.enrolled.iter().all(|(subject, _)| subject.as_str().starts_with("person-")));
        assert!(made.refused.contains("broken.jpg") && made.cast.source.contains("1 refused"));
        std::fs::remove_dir_all(folder.path().join("ann")).unwrap();
        std::fs::remove_dir_all(folder.path().join("bo")).unwrap();
        let few = from_folder(folder.path(), 10, 5, &options, &Progress::hidden()).err().unwrap();
        assert_eq!((few.exit_code(), few.code()), (2, "too-few-people"));
    }
}
