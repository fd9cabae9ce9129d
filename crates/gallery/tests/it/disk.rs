//! What only a folder can do: be locked, be readable by others, lose and damage files, be of another format.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use veilmatch_domain::GroupId;
use veilmatch_gallery::{Change, DiskStorage, Image, Intent, Storage, StorageError};

use crate::crash::index_files;
use crate::steps::{Step, bodies, changes, collection};

/// Two groups that are live, of two and one of three templates.
fn filled(folder: &Path) -> DiskStorage {
    let store = DiskStorage::open(folder).unwrap();
    let build = |id, group, members| Step::Build {
        id,
        collection: 0,
        group,
        revision: 4,
        words: 3000,
        members,
        replaces: Vec::new(),
    };
    let steps = [
        Step::Describe { collection: 0, capacity: 8192 },
        Step::Admit { id: 1, collection: 0, templates: vec![(1, 0, 700), (2, 0, 700), (3, 0, 700)] },
        Step::Settle { id: 1 },
        build(2, 0, vec![(1, 0), (2, 0)]),
        build(3, 1, vec![(3, 0)]),
        Step::Settle { id: 2 },
        Step::Settle { id: 3 },
    ];
    store.apply(&changes(&steps)).unwrap();
    store
}

fn damage(folder: &Path, group: u64, change: impl FnOnce(&mut Vec<u8>)) {
    let path = folder.join(format!("index/faces/{group}-4.bodies"));
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
}

/// Damaged groups, members of groups that are due to be rebuilt, and the next revision of group 0.
fn state(image: &Image) -> (Vec<u64>, usize, u32) {
    let image = &image.collections[&collection(0)];
    let mut index = image.index.clone();
    let damaged = image.damaged.iter().map(|g| g.0).collect();
    assert!(index.groups().all(|g| g.is_damaged() == image.damaged.contains(&g.packed.group)));
    let due = index.overdue().iter().map(|g| index.group(*g).unwrap().members.len()).sum();
    (damaged, due, index.next_revision(GroupId(0)).0)
}

#[test]
fn a_group_whose_file_is_damaged_or_missing_is_due_to_be_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path());
    assert_eq!(state(&store.load().unwrap()), (vec![], 0, 5));
    damage(folder.path(), 0, |bytes| bytes[5000] ^= 16);
    assert_eq!(state(&store.load().unwrap()), (vec![0], 2, 5));
    damage(folder.path(), 0, |bytes| bytes[5000] ^= 16);
    damage(folder.path(), 1, |bytes| bytes.truncate(4096 + 11_000));
    assert_eq!(state(&store.load().unwrap()), (vec![1], 1, 5));
    std::fs::remove_file(folder.path().join("index/faces/0-4.bodies")).unwrap();
    assert_eq!(state(&store.load().unwrap()), (vec![0, 1], 3, 5));
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    drop(store);
    let store = DiskStorage::open(folder.path()).unwrap();
    assert_eq!(state(&store.load().unwrap()), (vec![0, 1], 3, 5));
    // The index is built again, in place of what was lost.
    let build = Step::Build {
        id: 9,
        collection: 0,
        group: 0,
        revision: 5,
        words: 100,
        members: vec![(1, 0), (2, 0), (3, 0)],
        replaces: vec![1],
    };
    store.apply(&changes(&[build, Step::Settle { id: 9 }])).unwrap();
    assert_eq!(state(&store.load().unwrap()), (vec![], 0, 6));
}

#[test]
fn a_build_that_waits_without_its_file_is_told_and_then_built_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path());
    let build = Step::Build {
        id: 9,
        collection: 0,
        group: 0,
        revision: 5,
        words: 100,
        members: vec![(1, 0)],
        replaces: Vec::new(),
    };
    store.apply(&changes(&[build])).unwrap();
    std::fs::remove_file(folder.path().join("index/faces/0-5.bodies")).unwrap();
    let image = store.load().unwrap();
    assert_eq!(image.collections[&collection(0)].damaged, [GroupId(0)]);
    let [(_, Intent::Build { record, .. })] = image.intents.as_slice() else { panic!("{:?}", image.intents) };
    assert!(record.packed.bodies.is_empty() && record.members.len() == 1);
    store.apply(&changes(&[Step::Settle { id: 9 }])).unwrap();
    assert_eq!(state(&store.load().unwrap()), (vec![0], 1, 6));
}

#[test]
fn a_live_group_is_served_from_its_file_even_after_it_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path());
    let image = store.load().unwrap();
    let faces = collection(0);
    let record = image.collections[&faces].index.group(GroupId(0)).unwrap().clone();
    let mut unbacked = (*record).clone();
    unbacked.packed.bodies = bodies(0, 0, 4, 3000);
    let mapped = store.mapped(&faces, &unbacked).unwrap();
    assert_eq!(mapped, (record.packed.bodies.clone(), None));
    unbacked.packed.bodies = bodies(0, 0, 5, 3000);
    assert_eq!(store.mapped(&faces, &unbacked), None, "other bodies");
    unbacked.packed.revision.0 += 1;
    assert_eq!(store.mapped(&faces, &unbacked), None, "no such file");
    store.apply(&[Change::DropGroup { collection: faces, group: GroupId(0) }]).unwrap();
    assert_eq!(index_files(folder.path()).len(), 1);
    assert_eq!(mapped, (bodies(0, 0, 4, 3000), None));
}

#[test]
fn a_refused_transaction_leaves_no_file_and_no_row() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path());
    let build = Step::Build {
        id: 9,
        collection: 0,
        group: 7,
        revision: 0,
        words: 100,
        members: Vec::new(),
        replaces: Vec::new(),
    };
    let refused = store.apply(&changes(&[build, Step::Settle { id: 77 }]));
    assert!(matches!(refused, Err(StorageError::Misfit(_))));
    assert_eq!(index_files(folder.path()).len(), 2);
    assert!(store.load().unwrap().intents.is_empty());
}

#[test]
fn what_a_crash_left_is_cleaned_up() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path());
    let faces = folder.path().join("index/faces");
    std::fs::write(faces.join("0-5.bodies"), "a build that was never decided").unwrap();
    std::fs::write(faces.join("0-6.new"), "half a f").unwrap();
    store.load().unwrap();
    assert_eq!(index_files(folder.path()).len(), 2);
}

#[test]
fn one_process_at_a_time_and_nobody_else_reads() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("gallery");
    let store = filled(&folder);
    assert!(matches!(DiskStorage::open(&folder), Err(StorageError::InUse(_))));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&folder.join("gallery.redb")), 0o600);
    assert_eq!(mode(&folder.join("index")), 0o700);
    assert_eq!(mode(&folder.join("index/faces")), 0o700);
    assert_eq!(mode(&folder.join("index/faces/0-4.bodies")), 0o400);
    let statistics = store.statistics().unwrap();
    assert_eq!((statistics.templates, statistics.groups), (3, 2));
    assert!(statistics.database_bytes > 3 * 700 && statistics.index_bytes >= 2 * (4096 + 12_000));
    drop(store);
    assert!(DiskStorage::open(&folder).is_ok());
}

#[test]
fn a_newer_format_and_what_is_no_database_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(folder.path()));
    let path = folder.path().join("gallery.redb");
    let counts: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("counts");
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let newer = 7u32.to_le_bytes();
    transaction.open_table(counts).unwrap().insert(b"format".as_slice(), newer.as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let refused = DiskStorage::open(folder.path());
    assert!(matches!(refused, Err(StorageError::Newer { found: 7, known: 1 })));
    std::fs::write(&path, "something else altogether, and long enough to be a header".repeat(100)).unwrap();
    let refused = DiskStorage::open(folder.path()).unwrap_err();
    assert!(matches!(refused, StorageError::Damaged(_)), "{refused:?}");
    assert!(matches!(DiskStorage::open(&path), Err(StorageError::Io(_))), "a file is no folder");
}
