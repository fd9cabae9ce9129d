//! A disk that is full: a limit on the size of files does the same to every write.

use std::path::Path;
use std::process::Command;

use veilmatch_domain::Explain;
use veilmatch_gallery::{DiskStorage, Storage, StorageError};

use crate::crash::{Said, child, index_files, say};
use crate::model::Model;
use crate::steps::{Step, changes, collection, sealed, subject};

const FOLDER: &str = "VEILMATCH_FULL_FOLDER";
/// In blocks of 512 bytes, as `ulimit` counts: 4 MiB.
const LIMIT: u32 = 8192;

fn admission(id: u64) -> Vec<Step> {
    let templates = (0..32).map(|i| (id as u32 * 32 + i, 0, 6908)).collect();
    vec![Step::Admit { id, collection: 0, templates }]
}

/// Applies, says how it went, and returns whether it was done. Only lack of room may stop it.
fn attempt(store: &DiskStorage, steps: &[Step]) -> bool {
    say(&Said::Begin(steps.to_vec()));
    match store.apply(&changes(steps)) {
        Ok(()) => {
            say(&Said::Done);
            true
        }
        Err(error) => {
            assert!(matches!(error, StorageError::Full(_)), "{error:?}");
            say(&Said::Failed(error.code().to_owned()));
            false
        }
    }
}

/// Not a test of its own: what the parent runs under the limit.
#[test]
fn writes_until_nothing_fits() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let store = DiskStorage::open(Path::new(&folder)).unwrap();
    assert!(attempt(&store, &[Step::Describe { collection: 0, capacity: 8192 }]));
    let mut admitted = 0;
    while attempt(&store, &admission(admitted)) && attempt(&store, &[Step::Settle { id: admitted }]) {
        admitted += 1;
        assert!(admitted < 1000, "there is no limit");
    }
    assert!(admitted > 0);
    // Reading goes on, and so does everything that needs little room or fails cleanly for want of it.
    for round in 0..20u64 {
        let (first, id) = ((round % admitted) as u32 * 32, 2000 + round);
        let read = store.sealed(&collection(0), &[subject(first)]).unwrap();
        assert_eq!(read, [Some(sealed(first, 0, 6908))]);
        attempt(&store, &admission(1000 + round));
        let words = if round % 2 == 0 { 2_000_000 } else { 1000 };
        let build = Step::Build {
            id,
            collection: 0,
            group: round,
            revision: 0,
            words,
            members: vec![(first, 0)],
            replaces: Vec::new(),
        };
        let built = attempt(&store, &[build]);
        assert!(!built || words == 1000, "a file above the limit");
        if built {
            attempt(&store, &[Step::Settle { id }]);
        }
    }
    assert!(index_files(Path::new(&folder)).iter().all(|file| file.extension().unwrap() == "bodies"));
    say(&Said::Ready);
}

#[test]
fn a_full_disk_is_reported_and_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("trap '' XFSZ; ulimit -f {LIMIT}; exec \"$0\" \"$@\""))
        .arg(std::env::current_exe().unwrap())
        .env(FOLDER, folder.path());
    let (mut child, receive) = child(&mut command, "full::writes_until_nothing_fits");
    let mut model = Model::default();
    let (mut under_way, mut full, mut ended) = (Vec::new(), 0, false);
    for said in receive.iter() {
        match said {
            Said::Begin(steps) => under_way = steps,
            Said::Done => model.apply(&changes(&under_way)).unwrap(),
            Said::Failed(code) => {
                assert_eq!(code, "storage-full");
                full += 1;
            }
            Said::Ready => ended = true,
        }
    }
    assert!(child.wait().unwrap().success() && ended);
    assert!(full > 10, "{full} refusals");

    // The limit is lifted: what was acknowledged is there, what was refused is not, and work goes on.
    let store = DiskStorage::open(folder.path()).unwrap();
    let image = store.load().unwrap();
    assert_eq!(model.difference(&image, &store), None);
    for steps in [admission(5000), vec![Step::Settle { id: 5000 }]] {
        store.apply(&changes(&steps)).unwrap();
        model.apply(&changes(&steps)).unwrap();
    }
    let image = store.load().unwrap();
    assert_eq!(model.difference(&image, &store), None);
}
