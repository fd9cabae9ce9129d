use super::*;
use crate::testing::{child, child_folder, limit_files};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

fn key() -> Seed {
    Seed::from_bytes([5; 32])
}

fn put(key: impl AsRef<[u8]>, value: impl Into<Vec<u8>>) -> Record {
    Record { key: key.as_ref().to_vec(), value: Some(Secret::new(value.into())) }
}

fn remove(key: impl AsRef<[u8]>) -> Record {
    Record { key: key.as_ref().to_vec(), value: None }
}

fn content(store: &RecordStore) -> BTreeMap<Vec<u8>, Vec<u8>> {
    store.load().unwrap().into_iter().map(|(key, value)| (key, value.expose().clone())).collect()
}

/// Changes the database file behind the store's back.
fn tamper(folder: &Path, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = Database::open(folder.join(FILE)).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}

#[test]
fn records_come_back_after_reopening_and_nothing_readable_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let folder = &folder.path().join("data");
    let store = RecordStore::open(folder, key()).unwrap();
    assert!(content(&store).is_empty());
    store.apply(&[put("subject-alice", "template-of-alice"), put("b", ""), put("", "empty key")]).unwrap();
    store.apply(&[put("b", "1"), remove("b"), put("b", "second-value"), remove("nobody")]).unwrap();
    store.apply(&[]).unwrap();
    let expected = content(&store);
    assert_eq!(expected.len(), 3);
    assert_eq!(expected[&b"b".to_vec()], b"second-value");
    assert!(matches!(RecordStore::open(folder, key()), Err(StoreError::InUse { .. })));
    drop(store);
    assert_eq!(content(&RecordStore::open(folder, key()).unwrap()), expected);
    let bytes = std::fs::read(folder.join(FILE)).unwrap();
    for secret in ["alice", "template-of", "second-value"] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
    }
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(folder), mode(&folder.join(FILE))), (0o700, 0o600));
}

#[test]
fn another_key_an_open_folder_and_another_process_are_refused() {
    const TEST: &str = "records::tests::another_key_an_open_folder_and_another_process_are_refused";
    if let Some(folder) = child_folder() {
        let error = RecordStore::open(&folder, key()).unwrap_err();
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        std::fs::write(folder.join("seen"), error.code()).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = RecordStore::open(folder.path(), key()).unwrap();
    store.apply(&[put("a", "1")]).unwrap();
    assert!(child(TEST, folder.path()).status().unwrap().success());
    assert_eq!(std::fs::read(folder.path().join("seen")).unwrap(), b"store-in-use");
    drop(store);
    let other = RecordStore::open(folder.path(), Seed::from_bytes([6; 32]));
    assert!(matches!(other, Err(StoreError::WrongKey { .. })));
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o770)).unwrap();
    let exposed = RecordStore::open(folder.path(), key()).unwrap_err();
    assert_eq!(exposed.code(), "exposed-file");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(content(&RecordStore::open(folder.path(), key()).unwrap()).len(), 1);
}

#[test]
fn altered_swapped_removed_added_and_old_records_are_found() {
    type Tamper<'a> = &'a dyn Fn(&redb::WriteTransaction, &[Sealed], &[Sealed]);
    let rows = |folder: &Path| read_all(&Database::open(folder.join(FILE)).unwrap()).unwrap();
    let set = |transaction: &redb::WriteTransaction, place: &[u8; 32], sealed: &[u8]| {
        transaction.open_table(RECORDS).unwrap().insert(place, sealed).unwrap();
    };
    let cases: [(&str, Tamper<'_>); 6] = [
        ("altered", &|t, _, now| {
            let mut sealed = now[0].1.clone();
            sealed[30] ^= 1;
            set(t, &now[0].0, &sealed);
        }),
        ("swapped", &|t, _, now| {
            set(t, &now[0].0, &now[1].1);
            set(t, &now[1].0, &now[0].1);
        }),
        ("removed", &|t, _, now| drop(t.open_table(RECORDS).unwrap().remove(&now[2].0).unwrap())),
        ("added", &|t, old, now| {
            let gone = old.iter().find(|(place, _)| now.iter().all(|(other, _)| other != place)).unwrap();
            set(t, &gone.0, &gone.1);
        }),
        ("set back", &|t, old, now| {
            let (place, sealed) = old.iter().find(|row| now.iter().any(|r| r.0 == row.0 && r.1 != row.1)).unwrap();
            set(t, place, sealed);
        }),
        ("without a summary", &|t, _, _| assert!(t.delete_table(SUMMARY).unwrap())),
    ];
    for (name, case) in cases {
        let folder = tempfile::tempdir().unwrap();
        let store = RecordStore::open(folder.path(), key()).unwrap();
        store.apply(&["a", "b", "c", "d", "e"].map(|k| put(k, "old"))).unwrap();
        drop(store);
        let old = rows(folder.path());
        let store = RecordStore::open(folder.path(), key()).unwrap();
        store.apply(&[put("b", "new"), remove("e")]).unwrap();
        drop(store);
        let now = rows(folder.path());
        assert_eq!((old.len(), now.len()), (5, 4));
        tamper(folder.path(), |transaction| case(transaction, &old, &now));
        let result = RecordStore::open(folder.path(), key()).and_then(|store| store.load().map(drop));
        assert!(matches!(result, Err(StoreError::Damaged { .. })), "{name}: {result:?}");
    }
}

#[test]
fn a_damaged_or_foreign_file_is_an_error_and_not_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    drop(RecordStore::open(folder.path(), key()).unwrap());
    let store = RecordStore::open(folder.path(), key()).unwrap();
    store.apply(&(0..300u32).map(|i| put(i.to_le_bytes(), vec![7; 100])).collect::<Vec<_>>()).unwrap();
    let expected = content(&store);
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    for length in [1, 100, 4096, whole.len() / 2] {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(RecordStore::open(folder.path(), key()).and_then(|s| s.load()).is_err(), "{length} bytes");
    }
    let mut refused = 0;
    for position in (0..whole.len()).step_by(whole.len() / 400) {
        let mut altered = whole.clone();
        altered[position] ^= 0x10;
        std::fs::write(&path, altered).unwrap();
        match RecordStore::open(folder.path(), key()).and_then(|store| store.load()) {
            // The byte is in no page that is in use.
            Ok(loaded) => assert_eq!(loaded.len(), expected.len()),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0);
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(content(&RecordStore::open(folder.path(), key()).unwrap()), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_store_is_a_map(
        batches in proptest::collection::vec(
            proptest::collection::vec((0u8..12, proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40))), 1..8),
            1..8,
        ),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut model = BTreeMap::new();
        for batch in batches {
            let store = RecordStore::open(folder.path(), key()).unwrap();
            prop_assert_eq!(&content(&store), &model);
            let mut records = Vec::new();
            for (name, value) in batch {
                match &value {
                    Some(value) => drop(model.insert(vec![name], value.clone())),
                    None => drop(model.remove(&vec![name])),
                }
                records.push(Record { key: vec![name], value: value.map(Secret::new) });
            }
            store.apply(&records).unwrap();
            prop_assert_eq!(&content(&store), &model);
        }
    }
}

#[test]
fn a_full_disk_is_an_error_that_passes() {
    const TEST: &str = "records::tests::a_full_disk_is_an_error_that_passes";
    let Some(folder) = child_folder() else {
        let folder = tempfile::tempdir().unwrap();
        assert!(child(TEST, folder.path()).status().unwrap().success());
        let stored = content(&RecordStore::open(folder.path(), key()).unwrap());
        assert_eq!(stored[&b"last".to_vec()], b"value");
        return;
    };
    let store = RecordStore::open(&folder, key()).unwrap();
    let mut model = BTreeMap::new();
    let mut step = |name: String, bytes: usize| {
        let result = store.apply(&[put(&name, vec![1; bytes])]);
        if result.is_ok() {
            model.insert(name.into_bytes(), vec![1; bytes]);
        }
        assert_eq!(content(&store), model, "all or nothing, and usable");
        result
    };
    step("first".into(), 1000).unwrap();
    let size = std::fs::metadata(folder.join(FILE)).unwrap().len();
    // More than fits, with the file just as long as it is and somewhat longer.
    for (i, room) in [0, 5_000, 100_000, 1 << 20].into_iter().enumerate() {
        limit_files(Some(size + room));
        let error = step(format!("big-{i}"), 8 << 20).unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }) && error.status() == Status::ResourceExhausted, "{error}");
    }
    limit_files(None);
    step("big".into(), 8 << 20).unwrap();
    step("last".into(), 5).unwrap_or_else(|e| panic!("{e}"));
    store.apply(&[put("last", "value")]).unwrap();
}

#[test]
fn nothing_acknowledged_is_lost_to_a_kill() {
    const TEST: &str = "records::tests::nothing_acknowledged_is_lost_to_a_kill";
    if let Some(folder) = child_folder() {
        let store = RecordStore::open(&folder, key()).unwrap();
        let mut out = std::io::stdout();
        let mut round =
            content(&store).get(b"round".as_slice()).map_or(0, |v| u64::from_le_bytes(v[..].try_into().unwrap()));
        loop {
            round += 1;
            let slot = |i: u64| format!("slot-{}", i % 50);
            let bytes = round.to_le_bytes();
            store
                .apply(&[put("round", bytes), put(slot(round), vec![round as u8; 500]), remove(slot(round + 7))])
                .unwrap();
            writeln!(out, "acknowledged {round}").unwrap();
            out.flush().unwrap();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..15u64 {
        let mut process = child(TEST, folder.path()).spawn().unwrap();
        let mut lines = std::io::BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let number = |line: String| line.strip_prefix("acknowledged ").and_then(|n| n.parse::<u64>().ok());
        let mut seen = lines.by_ref().filter_map(number);
        for _ in 0..1 + round * 7 % 30 {
            acknowledged = seen.next().unwrap_or(acknowledged);
        }
        process.kill().unwrap();
        acknowledged = seen.last().unwrap_or(acknowledged);
        process.wait().unwrap();
        let stored = content(&RecordStore::open(folder.path(), key()).unwrap());
        let last = u64::from_le_bytes(stored[b"round".as_slice()][..].try_into().unwrap());
        assert!(last >= acknowledged, "{last} {acknowledged}");
        // The rest belongs to the same transaction.
        assert_eq!(stored[format!("slot-{}", last % 50).as_bytes()], vec![last as u8; 500]);
        assert!(!stored.contains_key(format!("slot-{}", (last + 7) % 50).as_bytes()));
    }
    assert!(acknowledged > 150);
}

#[test]
fn a_hundred_thousand_records_load_in_a_moment() {
    let folder = tempfile::tempdir().unwrap();
    let store = RecordStore::open(folder.path(), key()).unwrap();
    let records: Vec<Record> = (0..100_000u32).map(|i| put(format!("subject-{i}"), vec![3; 200])).collect();
    let begin = Instant::now();
    store.apply(&records).unwrap();
    let applied = begin.elapsed();
    drop(store);
    let begin = Instant::now();
    let store = RecordStore::open(folder.path(), key()).unwrap();
    let opened = begin.elapsed();
    let loaded = store.load().unwrap().len();
    let both = begin.elapsed();
    assert_eq!(loaded, 100_000);
    // Generous: it is there to notice a quadratic loop, on any machine. The message has the figures.
    assert!(both.as_secs() < 10, "applied {applied:?}, opened {opened:?}, with loading {both:?}");
}
