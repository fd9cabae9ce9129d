//! Who plays in the demonstration: people to enrol, people who ask for themselves, and strangers.

use std::collections::BTreeMap;
use std::path::Path;

use veilmatch_domain::{Dimension, Embedding, IdentifierError, SubjectId};

use crate::arguments::DemoArguments;
use crate::exit::CliError;
use crate::input::{self, InputError};
use crate::synthetic;

/// The synthetic cast is the same in every run.
const SEED: u64 = 20_260_901;

/// The cast. Subject ids are pseudonyms: labels of files never leave this module.
pub struct Cast {
    /// One template for each person of the gallery.
    pub enrolled: Vec<(SubjectId, Embedding)>,
    /// Second images of enrolled people; not empty.
    pub mated: Vec<(SubjectId, Embedding)>,
    /// People who are not enrolled; not empty.
    pub strangers: Vec<Embedding>,
    /// Dimension of all of them.
    pub dimension: Dimension,
    /// One line that says where the embeddings come from.
    pub source: String,
}

/// Reads or draws the cast that the arguments ask for.
///
/// # Errors
/// [`CliError::Input`] if a file cannot be used.
pub fn choose(arguments: &DemoArguments) -> Result<Cast, CliError> {
    match (&arguments.embeddings, &arguments.labels) {
        (Some(embeddings), Some(labels)) => from_files(arguments, embeddings, labels),
        _ => synthetic(arguments),
    }
}

fn pseudonym(number: usize) -> Result<SubjectId, IdentifierError> {
    SubjectId::new(format!("person-{number}"))
}

fn synthetic(arguments: &DemoArguments) -> Result<Cast, CliError> {
    let (gallery, probes) = (arguments.gallery() as usize, arguments.probes as usize);
    let mut people = synthetic::people(gallery + probes, 2, arguments.dim, SEED)?;
    let strangers = people.split_off(gallery).into_iter().filter_map(|images| images.into_iter().next()).collect();
    let asking = spread(gallery, probes);
    let (mut enrolled, mut mated) = (Vec::with_capacity(gallery), Vec::with_capacity(probes));
    for (number, images) in people.into_iter().enumerate() {
        let subject = pseudonym(number).map_err(CliError::protocol)?;
        let mut images = images.into_iter();
        if let Some(template) = images.next() {
            enrolled.push((subject.clone(), template));
        }
        if asking.binary_search(&number).is_ok() {
            mated.extend(images.next().map(|probe| (subject, probe)));
        }
    }
    // Below the model's effective dimension non-mated cosines spread wider; see `synthetic`.
    let wider =
        if (arguments.dim.get() as f64) < synthetic::EFFECTIVE_DIMENSION { " (strangers more alike)" } else { "" };
    let source = format!(
        "synthetic embeddings of {} dimensions with the statistics of face-reidentification-retail-0095 on LFW{wider}",
        arguments.dim
    );
    Ok(Cast { enrolled, mated, strangers, dimension: arguments.dim, source })
}

/// Up to `count` of the numbers below `of`, evenly spread, ascending.
fn spread(of: usize, count: usize) -> Vec<usize> {
    let count = count.min(of);
    (0..count).map(|i| i * of / count).collect()
}

/// A person of a file: template, then further images.
struct Person {
    first_row: usize,
    template: Embedding,
    further: Vec<Embedding>,
}

fn from_files(arguments: &DemoArguments, embeddings: &Path, labels: &Path) -> Result<Cast, CliError> {
    let rows = input::embeddings(embeddings, arguments.normalize)?;
    let labels_of = input::labels(labels, rows.len())?;
    let mut rows: Vec<Option<Embedding>> = rows.into_iter().map(Some).collect();
    let mut people: Vec<Person> = Vec::new();
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    for (row, label) in labels_of {
        // Each row has one label at most, so it is still there.
        let Some(image) = rows.get_mut(row).and_then(Option::take) else { continue };
        let number = *numbers.entry(label).or_insert(people.len());
        match people.get_mut(number) {
            Some(person) => person.further.push(image),
            None => people.push(Person { first_row: row, template: image, further: Vec::new() }),
        }
    }
    let count = people.len();
    if count < 3 {
        return Err(InputError::TooFewPeople { path: labels.into() }.into());
    }
    let (gallery, probes) = (arguments.gallery() as usize, arguments.probes as usize);
    // A file of few people keeps at least one stranger, and as many as are asked for if half of the people suffice.
    let size = gallery.min(count - probes.min(count / 3).max(1));
    let (chosen, rest) = divide(people, size, probes);
    cast_of(chosen, rest, probes, labels)
}

/// The gallery: the first `size` people, but so that up to `probes` of them have a second image.
fn divide(people: Vec<Person>, size: usize, probes: usize) -> (Vec<Person>, Vec<Person>) {
    let mut order: Vec<(bool, Person)> = people.into_iter().map(|p| (!p.further.is_empty(), p)).collect();
    let in_front = order.iter().take(size).filter(|(asks, _)| *asks).count();
    if in_front < probes.min(size) {
        // Stable: people with a second image first, else in file order.
        order.sort_by_key(|(asks, _)| !asks);
    }
    let mut people = order.into_iter().map(|(_, person)| person);
    let chosen = people.by_ref().take(size).collect();
    (chosen, people.collect())
}

fn cast_of(chosen: Vec<Person>, rest: Vec<Person>, probes: usize, labels: &Path) -> Result<Cast, CliError> {
    let total = chosen.len() + rest.len();
    let dimension = match chosen.first() {
        Some(person) => person.template.dimension(),
        None => return Err(InputError::TooFewPeople { path: labels.into() }.into()),
    };
    let (mut enrolled, mut mated) = (Vec::with_capacity(chosen.len()), Vec::new());
    for person in chosen {
        let subject = pseudonym(person.first_row).map_err(CliError::protocol)?;
        if let Some(probe) = person.further.into_iter().next() {
            mated.push((subject.clone(), probe));
        }
        enrolled.push((subject, person.template));
    }
    let asking = spread(mated.len(), probes);
    let mated: Vec<_> =
        mated.into_iter().enumerate().filter(|(i, _)| asking.binary_search(i).is_ok()).map(|(_, m)| m).collect();
    if mated.is_empty() {
        return Err(InputError::NoMatedPeople { path: labels.into() }.into());
    }
    let strangers = rest.into_iter().take(probes).map(|p| p.template).collect();
    let source = format!("embeddings of {dimension} dimensions and {total} people from files");
    Ok(Cast { enrolled, mated, strangers, dimension, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Command, parse};
    use crate::testing::{files, unit_rows_npy};
    use veilmatch_domain::Explain;

    fn demo(extra: &[&str]) -> DemoArguments {
        let words: Vec<_> = ["veilmatch", "demo"].iter().chain(extra).map(std::ffi::OsString::from).collect();
        let Command::Demo(demo) = parse(&words).unwrap().command else { panic!("not a demo") };
        demo
    }

    fn real(labels: &str, rows: usize, extra: &[&str]) -> Result<Cast, CliError> {
        let (_folder, [x, l]) = files([("x.npy", &unit_rows_npy(rows, 16, 1.0)), ("l.csv", labels.as_bytes())]);
        let words = ["--embeddings", x.to_str().unwrap(), "--labels", l.to_str().unwrap()];
        choose(&demo(&[&words, extra].concat()))
    }

    #[test]
    fn the_synthetic_cast_has_the_asked_sizes() {
        let cast = choose(&demo(&["--gallery", "30", "--dim", "32", "--probes", "7"])).unwrap();
        assert_eq!((cast.enrolled.len(), cast.mated.len(), cast.strangers.len()), (30, 7, 7));
        for (subject, probe) in &cast.mated {
            let (_, template) = cast.enrolled.iter().find(|(s, _)| s == subject).unwrap();
            assert!(probe.cosine(template).unwrap() > 0.2);
        }
        let small = choose(&demo(&["--gallery", "3", "--dim", "32", "--probes", "7"])).unwrap();
        assert_eq!((small.enrolled.len(), small.mated.len(), small.strangers.len()), (3, 3, 7));
    }

    #[test]
    fn people_with_a_second_image_are_enrolled_first_where_they_are_needed() {
        let labels = "row,label\n0,ann\n1,bo\n2,cy\n3,cy\n4,di\n5,di\n6,ed\n";
        let cast = real(labels, 7, &["--gallery", "2", "--probes", "2"]).unwrap();
        let names: Vec<_> = cast.enrolled.iter().map(|(s, _)| s.as_str()).collect();
        assert_eq!(names, ["person-2", "person-4"]);
        assert_eq!((cast.mated.len(), cast.strangers.len()), (2, 2));
        let all = real(labels, 7, &[]).unwrap();
        assert_eq!((all.enrolled.len(), all.mated.len(), all.strangers.len()), (4, 2, 1));
    }

    #[test]
    fn too_few_people_are_bad_input() {
        let code = |labels: &str| match real(labels, 7, &[]) {
            Ok(_) => panic!("accepted"),
            Err(error) => (error.exit_code(), error.code()),
        };
        assert_eq!(code("row,label\n0,ann\n1,bo\n2,bo\n"), (2, "too-few-people"));
        assert_eq!(code("row,label\n0,ann\n1,bo\n2,cy\n"), (2, "too-few-people"));
        assert_eq!(code("row,label\n0,ann\n7,bo\n2,cy\n"), (2, "row-out-of-range"));
    }
}
