use super::*;
use crate::testing::{child, child_folder, limit_files};
use proptest::prelude::*;
use std::io::{BufRead, Write};
use std::ops::Range;
use std::sync::LazyLock;
use veilmatch_domain::{SessionId, Timestamp};
use veilmatch_holder::AuditEvent;

/// A chain of entries; the same for the same count of an earlier one.
fn entries(count: usize) -> Vec<AuditEntry> {
    let mut entries = Vec::new();
    for i in 0..count as u64 {
        entries.push(entry(entries.last(), i, i as u32));
    }
    entries
}

fn entry(previous: Option<&AuditEntry>, i: u64, templates: u32) -> AuditEntry {
    let event = AuditEvent::NormCheck { templates, probe: None };
    AuditEntry::after(previous, Timestamp(i), SessionId([i as u8; 32]), event)
}

static CHAIN: LazyLock<Vec<AuditEntry>> = LazyLock::new(|| entries(40));

/// Segments of nine or ten entries.
const SMALL: u64 = 1_200;

struct Log {
    folder: tempfile::TempDir,
}

impl Log {
    fn with(entries: &[AuditEntry]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut file = AuditFile::open_with(folder.path(), SMALL).unwrap();
        for entry in entries {
            file.append(std::slice::from_ref(entry)).unwrap();
        }
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn open(&self) -> Result<AuditFile, AuditError> {
        AuditFile::open_with(self.path(), SMALL)
    }

    /// Segment and byte range of each frame.
    fn frames(&self) -> Vec<(PathBuf, Range<usize>)> {
        let mut frames = Vec::new();
        for (_, file) in segments(self.path()).unwrap() {
            let bytes = std::fs::read(&file).unwrap();
            let mut begin = 0;
            while begin < bytes.len() {
                let length = u32::from_le_bytes(bytes[begin..begin + 4].try_into().unwrap()) as usize;
                frames.push((file.clone(), begin..begin + HEADER_BYTES + length));
                begin += HEADER_BYTES + length;
            }
        }
        frames
    }

    fn change(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(file).unwrap();
        change(&mut bytes);
        std::fs::write(file, bytes).unwrap();
    }
}

fn damaged_at(error: &AuditError) -> u64 {
    match error {
        AuditError::Damaged { sequence, .. } => *sequence,
        other => panic!("{other}"),
    }
}

#[test]
fn a_log_rotates_reads_back_and_continues() {
    let log = Log::with(&CHAIN[..30]);
    let head = |i: usize| Some((i as u64, CHAIN[i].hash));
    {
        let mut file = log.open().unwrap();
        assert_eq!((file.head(), file.healed_bytes()), (head(29), 0));
        file.append(&CHAIN[30..40]).unwrap();
        file.append(&[]).unwrap();
        for from in [0, 1, 9, 10, 11, 25, 39, 40, 99] {
            let read: Vec<_> = file.read_from(from as u64).unwrap().map(Result::unwrap).collect();
            assert_eq!(read, CHAIN[from.min(40)..]);
        }
        assert!(matches!(AuditFile::open(log.path()), Err(AuditError::InUse { .. })));
        assert_eq!(verify(log.path(), head(35)).unwrap().entries, 40, "while the holder runs");
        let again = file.append(&CHAIN[39..40]);
        assert!(matches!(again, Err(AuditError::OutOfOrder { expected: 40, found: 39 })));
    }
    let summary = verify(log.path(), None).unwrap();
    assert_eq!((summary.entries, summary.unfinished_bytes, summary.head), (40, 0, head(39)));
    assert!(summary.segments >= 3);
    assert!(matches!(log.open().unwrap().append(&CHAIN[..1]), Err(AuditError::OutOfOrder { .. })));
}

#[test]
fn an_empty_log_is_sound_and_a_gap_at_the_beginning_is_not() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(AuditFile::open(folder.path()).unwrap().head(), None);
    assert_eq!(verify(folder.path(), None).unwrap().head, None);
    let mut file = AuditFile::open(folder.path()).unwrap();
    assert!(matches!(file.append(&CHAIN[1..2]), Err(AuditError::OutOfOrder { expected: 0, found: 1 })));
    assert_eq!(verify(folder.path(), None).unwrap().bytes, 0);
}

#[test]
fn a_known_head_finds_what_the_chain_alone_cannot() {
    let log = Log::with(&CHAIN[..20]);
    let expected = Some((19, CHAIN[19].hash));
    assert!(verify(log.path(), expected).is_ok());
    // The last entry is removed, frame and all: the rest is a sound chain.
    let (file, range) = log.frames().pop().unwrap();
    Log::change(&file, |bytes| bytes.truncate(range.start));
    assert_eq!(verify(log.path(), None).unwrap().entries, 19);
    let error = verify(log.path(), expected).unwrap_err();
    assert!(matches!(error, AuditError::Truncated { expected: 19, found: 19 }), "{error}");
    // Then somebody writes another entry in its place.
    log.open().unwrap().append(&[entry(Some(&CHAIN[18]), 19, 7)]).unwrap();
    assert!(matches!(verify(log.path(), expected), Err(AuditError::Rewritten { sequence: 19 })));
}

#[test]
fn torn_tails_of_every_length_are_healed() {
    // 21 entries: the tail is in the middle of a segment; 10: perhaps the first of one.
    for count in [1, 2, 10, 11, 21] {
        let log = Log::with(&CHAIN[..count]);
        let (file, range) = log.frames().pop().unwrap();
        let whole = std::fs::read(&file).unwrap();
        for length in range.clone() {
            for zeros in [0, 1, 5, 300] {
                let mut torn = whole[..length].to_vec();
                // A file that grew without its content; after half a frame zeros would be an altered entry.
                if zeros > 0 && length > range.start {
                    continue;
                }
                torn.resize(length + zeros, 0);
                std::fs::write(&file, torn).unwrap();
                let unfinished = (length - range.start + zeros) as u64;
                let summary = verify(log.path(), None).unwrap();
                assert_eq!((summary.entries, summary.unfinished_bytes), (count as u64 - 1, unfinished));
                let mut opened = log.open().unwrap();
                assert_eq!(opened.healed_bytes(), unfinished);
                assert_eq!(opened.head().map(|(sequence, _)| sequence), (count as u64).checked_sub(2));
                opened.append(&CHAIN[count - 1..count]).unwrap();
                drop(opened);
                assert_eq!(std::fs::read(&file).unwrap(), whole);
            }
        }
    }
}

#[test]
fn a_tail_that_was_complete_is_never_cut() {
    let log = Log::with(&CHAIN[..12]);
    for (sequence, (file, range)) in log.frames().into_iter().enumerate().skip(10) {
        let whole = std::fs::read(&file).unwrap();
        for position in range {
            Log::change(&file, |bytes| bytes[position] ^= 0x20);
            assert_eq!(damaged_at(&log.open().unwrap_err()), sequence as u64, "byte {position}");
            assert_eq!(std::fs::read(&file).unwrap().len(), whole.len(), "nothing was cut");
            std::fs::write(&file, &whole).unwrap();
        }
    }
    assert!(log.open().is_ok());
}

#[test]
fn missing_and_misnamed_segments_are_named() {
    let log = Log::with(&CHAIN);
    let all = segments(log.path()).unwrap();
    for (i, (first, file)) in all.iter().enumerate().take(all.len() - 1) {
        let aside = log.path().join("aside");
        std::fs::rename(file, &aside).unwrap();
        assert_eq!(damaged_at(&verify(log.path(), None).unwrap_err()), *first);
        if i + 2 == all.len() {
            assert_eq!(damaged_at(&log.open().unwrap_err()), *first);
        }
        if i > 0 {
            let error = read_from(log.path(), 0).unwrap().find_map(Result::err).unwrap();
            assert_eq!(damaged_at(&error), *first);
        }
        std::fs::rename(&aside, file).unwrap();
    }
    // A segment that ends early, though another follows it.
    Log::change(&all[0].1, |bytes| bytes.truncate(bytes.len() - 1));
    let last = all[1].0 - 1;
    assert_eq!(damaged_at(&verify(log.path(), None).unwrap_err()), last);
    assert_eq!(damaged_at(&read_from(log.path(), 0).unwrap().find_map(Result::err).unwrap()), last);
}

proptest! {
    #[test]
    fn every_altered_byte_is_found_and_its_entry_named(position in any::<prop::sample::Index>(), difference in 1u8..) {
        let log = Log::with(&CHAIN);
        let frames = log.frames();
        let total: usize = frames.iter().map(|(_, range)| range.len()).sum();
        let mut position = position.index(total);
        let (sequence, (file, range)) = frames.iter().enumerate().find(|(_, (_, range))| {
            let here = position < range.len();
            if !here { position -= range.len(); }
            here
        }).unwrap();
        Log::change(file, |bytes| bytes[range.start + position] ^= difference);
        prop_assert_eq!(damaged_at(&verify(log.path(), None).unwrap_err()), sequence as u64);
        let error = read_from(log.path(), 0).unwrap().find_map(Result::err).unwrap();
        prop_assert_eq!(damaged_at(&error), sequence as u64);
    }

    #[test]
    fn removed_repeated_and_exchanged_entries_are_found(at in 0usize..39, kind in 0u8..3) {
        let log = Log::with(&CHAIN);
        let frames = log.frames();
        let (file, range) = frames[at].clone();
        // Exchanging two entries needs both in one segment.
        let after = frames[at + 1].clone();
        prop_assume!(kind != 2 || after.0 == file);
        let expected = match kind {
            0 => { Log::change(&file, |bytes| drop(bytes.drain(range))); at }
            1 => {
                Log::change(&file, |bytes| {
                    let copy = bytes[range.clone()].to_vec();
                    bytes.splice(range.end..range.end, copy);
                });
                at + 1
            }
            _ => { Log::change(&file, |bytes| bytes[range.start..after.1.end].rotate_left(range.len())); at }
        };
        prop_assert_eq!(damaged_at(&verify(log.path(), None).unwrap_err()), expected as u64);
    }

    #[test]
    fn no_file_panics_or_takes_much_memory(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let folder = tempfile::tempdir().unwrap();
        let file = segment_path(folder.path(), 0);
        fs::create(&file, &bytes, fs::PRIVATE).unwrap();
        let empty = verify(folder.path(), None).is_ok_and(|summary| summary.entries == 0);
        prop_assert_eq!(empty, bytes.len() < HEADER_BYTES || bytes.iter().all(|&b| b == 0));
    }
}

#[test]
fn a_full_disk_is_an_error_that_passes() {
    const TEST: &str = "audit_file::tests::a_full_disk_is_an_error_that_passes";
    let Some(folder) = child_folder() else {
        let folder = tempfile::tempdir().unwrap();
        let status = child(TEST, folder.path()).status().unwrap();
        assert!(status.success());
        let summary = verify(folder.path(), None).unwrap();
        assert_eq!((summary.entries, summary.unfinished_bytes), (600, 0), "no hole and nothing left over");
        return;
    };
    let chain = entries(600);
    let mut log = AuditFile::open(&folder).unwrap();
    log.append(&chain[..3]).unwrap();
    let three = std::fs::metadata(&log.path).unwrap().len();
    // Every limit from within a header to the middle of the second of two entries.
    for room in 0..200 {
        limit_files(Some(three + room));
        let error = log.append(&chain[3..5]).unwrap_err();
        assert!(matches!(error, AuditError::Full { .. }) && error.status() == Status::ResourceExhausted, "{error}");
        assert_eq!(log.head().unwrap().0, 2);
        assert_eq!(std::fs::metadata(&log.path).unwrap().len(), three, "a partial write is cut off");
    }
    limit_files(Some(40_000));
    let mut next = 3;
    while log.append(&chain[next..next + 7]).is_ok() {
        next += 7;
    }
    assert!(next > 100);
    limit_files(None);
    for batch in chain[next..].chunks(7) {
        log.append(batch).unwrap();
    }
}

#[test]
fn nothing_acknowledged_is_lost_to_a_kill() {
    const TEST: &str = "audit_file::tests::nothing_acknowledged_is_lost_to_a_kill";
    if let Some(folder) = child_folder() {
        let chain = entries(20_000);
        let mut log = AuditFile::open_with(&folder, 20_000).unwrap();
        let mut out = std::io::stdout();
        loop {
            let next = log.head().map_or(0, |(sequence, _)| sequence as usize + 1);
            log.append(&chain[next..next + 1 + next % 5]).unwrap();
            writeln!(out, "acknowledged {}", log.head().unwrap().0).unwrap();
            out.flush().unwrap();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = None;
    for round in 0..25u64 {
        let mut process = child(TEST, folder.path()).spawn().unwrap();
        let mut lines = std::io::BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let number = |line: String| line.strip_prefix("acknowledged ").and_then(|n| n.parse::<u64>().ok());
        let mut seen = lines.by_ref().filter_map(number);
        // Killed after a varying number of acknowledgements, at whatever it is doing then.
        for _ in 0..1 + round * 7 % 40 {
            acknowledged = seen.next().or(acknowledged);
        }
        process.kill().unwrap();
        acknowledged = seen.last().or(acknowledged);
        process.wait().unwrap();
        let summary = verify(folder.path(), None).unwrap();
        assert!(summary.head.map(|(sequence, _)| sequence) >= acknowledged, "{summary:?}, {acknowledged:?}");
    }
    assert!(acknowledged.unwrap() > 500);
    let log = AuditFile::open_with(folder.path(), 20_000).unwrap();
    let chain = entries(20_000);
    assert!(log.read_from(0).unwrap().map(Result::unwrap).eq(chain[..=log.head().unwrap().0 as usize].iter().cloned()));
}
