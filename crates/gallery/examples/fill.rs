//! Fills a store and says what it costs: `cargo run --release -p veilmatch-gallery --example fill -- 100000 [folder]`.
//!
//! A folder that is filled already is only loaded: what a start takes, in a process that did nothing else.
//!
//! Sealed templates are random bytes of the size of a 512-dimensional one; groups are full ones of 8,192.

#![expect(clippy::print_stdout, reason = "a measurement prints what it finds")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use veilmatch_domain::{CollectionId, Dimension, Epoch, GroupId, Revision, SubjectId, TemplateDigest, Timestamp};
use veilmatch_gallery::{Change, Description, DiskStorage, GroupMember, GroupRecord, Intent, IntentId, Storage};
use veilmatch_glwe::{Layout, PackedGroup};

const SEALED: usize = 6908;
const DIMENSION: usize = 512;
const ADMISSION: usize = 512;
const GROUP: usize = 8192;

fn random(name: &str, number: usize, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().update(name.as_bytes()).update(&number.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn template(number: usize) -> Result<(SubjectId, TemplateDigest), Box<dyn Error>> {
    let digest = blake3::hash(&number.to_le_bytes());
    // In no order, like names.
    Ok((SubjectId::new(&digest.to_hex()[..16])?, TemplateDigest(*digest.as_bytes())))
}

fn intent_id(name: &str, number: usize) -> IntentId {
    IntentId(*blake3::Hasher::new().update(name.as_bytes()).update(&number.to_le_bytes()).finalize().as_bytes())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let count: usize = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let temporary = tempfile::tempdir()?;
    let folder = arguments.next().map_or_else(|| temporary.path().join("gallery"), PathBuf::from);
    if !folder.join("gallery.redb").exists() {
        fill(&folder, count)?;
    }
    let before = resident();
    let begin = Instant::now();
    let store = DiskStorage::open(&folder)?;
    let opened = begin.elapsed();
    let image = store.load()?;
    let statistics = store.statistics()?;
    let count = statistics.templates as usize;
    println!("open {opened:.1?}, load {:.1?}", begin.elapsed() - opened);
    let index_bytes = statistics.index_bytes as f64;
    // Pages of the index are the page cache's; what the process has of its own comes on top.
    let own = (resident().0 - before.0) as f64;
    println!(
        "memory beside the index: {:.0} bytes per template; index and memory together {:.2} times the index",
        own / count.max(1) as f64,
        (index_bytes + own) / index_bytes
    );
    let groups: Vec<_> = image.collections.values().flat_map(|c| c.index.groups()).collect();
    let sum = || groups.iter().flat_map(|g| g.packed.bodies.iter()).fold(0u32, |sum, word| sum.wrapping_add(*word));
    let (first, mapped) = (timed_value(sum), timed_value(sum));
    let heap: Vec<Vec<u32>> = groups.iter().map(|g| g.packed.bodies.to_vec()).collect();
    let in_memory = timed_value(|| heap.iter().flatten().fold(0u32, |sum, word| sum.wrapping_add(*word)));
    println!("read the index once: mapped {:.1?} at first, then {:.1?}; heap {:.1?}", first.1, mapped.1, in_memory.1);
    if first.0 != in_memory.0 {
        return Err("the map and its copy differ".into());
    }
    Ok(())
}

fn fill(folder: &Path, count: usize) -> Result<(), Box<dyn Error>> {
    let store = DiskStorage::open(folder)?;
    let collection = CollectionId::new("faces")?;
    let description = Description {
        dimension: Dimension::new(DIMENSION)?,
        parameters: "glwe-2048-v1".into(),
        group_capacity: 8192,
        created: Timestamp(0),
    };
    store.apply(&[Change::Describe { collection: collection.clone(), description }])?;

    let numbers: Vec<usize> = (0..count).collect();
    let (mut decided, mut settled) = (Vec::new(), Vec::new());
    for (batch, numbers) in numbers.chunks(ADMISSION).enumerate() {
        let templates = numbers.iter().map(|n| template(*n)).collect::<Result<Vec<_>, _>>()?;
        let sealed = numbers.iter().map(|n| random("sealed", *n, SEALED)).collect();
        let intent = Intent::Admission { collection: collection.clone(), templates };
        let id = intent_id("admission", batch);
        decided.push(timed(|| store.apply(&[Change::Decide { id, intent, sealed }]))?);
        settled.push(timed(|| store.apply(&[Change::Settle { id }]))?);
    }
    report(&format!("decide an admission of {ADMISSION}"), &mut decided);
    report("settle it", &mut settled);

    let mut built = Vec::new();
    for (group, numbers) in numbers.chunks(GROUP).enumerate() {
        let members = (0u32..).zip(numbers).map(|(slot, n)| {
            let (subject, digest) = template(*n)?;
            Ok::<_, Box<dyn Error>>(GroupMember { slot, subject, digest })
        });
        let members = members.collect::<Result<Vec<_>, _>>()?;
        let rank = numbers.len().div_ceil(512);
        let words: Vec<u32> = random("bodies", group, rank * 512 * DIMENSION * 4)
            .chunks_exact(4)
            .map(|word| word.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)))
            .collect();
        let packed = PackedGroup {
            group: GroupId(group as u64),
            revision: Revision(0),
            epoch: Epoch(0),
            layout: Layout::new(4, rank)?,
            bodies: words.into(),
            cold: None,
        };
        let record = Arc::new(GroupRecord { packed, members });
        let intent = Intent::Build { collection: collection.clone(), record, replaces: Vec::new() };
        let id = intent_id("build", group);
        built.push(timed(|| {
            store.apply(&[Change::Decide { id, intent, sealed: Vec::new() }])?;
            store.apply(&[Change::Settle { id }])
        })?);
    }
    report(&format!("decide and settle a group of {GROUP}"), &mut built);

    let subjects = (0..GROUP.min(count)).map(|n| template(n).map(|(s, _)| s)).collect::<Result<Vec<_>, _>>()?;
    let read = timed(|| store.sealed(&collection, &subjects).map(drop))?;
    println!("read {} sealed templates: {read:.1?}", subjects.len());
    let statistics = store.statistics()?;
    let per_template = |bytes: u64| bytes as f64 / count.max(1) as f64;
    println!("{statistics:?}");
    let length = std::fs::metadata(folder.join("gallery.redb"))?.len();
    println!(
        "per template: database {:.0} bytes ({:.0} of file length), index {:.0} bytes",
        per_template(statistics.database_bytes),
        per_template(length),
        per_template(statistics.index_bytes)
    );
    Ok(())
}

/// Resident memory of this process in bytes: its own, and that of mapped files.
fn resident() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default()
    };
    (kilobytes("RssAnon:") * 1024, kilobytes("RssFile:") * 1024)
}

fn timed<E>(work: impl FnOnce() -> Result<(), E>) -> Result<Duration, E> {
    let begin = Instant::now();
    work().map(|()| begin.elapsed())
}

fn timed_value<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    let value = work();
    (value, begin.elapsed())
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |part: usize| times.get((times.len() * part / 100).min(times.len().saturating_sub(1))).copied();
    println!(
        "{what}: {} times, median {:.1?}, p99 {:.1?}",
        times.len(),
        at(50).unwrap_or_default(),
        at(99).unwrap_or_default()
    );
}
