//! What every back end must do: random transactions, fitting and not, against the model; loaded in between.

use proptest::prelude::*;
use veilmatch_gallery::{DiskStorage, MemoryStorage, Storage, StorageError};

use crate::model::Model;
use crate::steps::{Step, changes, collection, subject};

/// A back end under test.
trait Backend {
    fn storage(&self) -> &dyn Storage;
    /// The process ends and another begins.
    fn restart(&mut self);
}

impl Backend for MemoryStorage {
    fn storage(&self) -> &dyn Storage {
        self
    }

    fn restart(&mut self) {}
}

struct Disk {
    folder: tempfile::TempDir,
    open: Option<DiskStorage>,
}

impl Disk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let open = Some(DiskStorage::open(folder.path()).unwrap());
        Self { folder, open }
    }
}

impl Backend for Disk {
    fn storage(&self) -> &dyn Storage {
        self.open.as_ref().unwrap()
    }

    fn restart(&mut self) {
        self.open = None;
        self.open = Some(DiskStorage::open(self.folder.path()).unwrap());
    }
}

/// Names are few, so that most steps meet something.
fn step() -> impl Strategy<Value = Step> {
    let (id, c, group, revision) = (0u64..6, 0u8..2, 0u64..3, 0u32..4);
    let template = (0u32..4, 0u8..2, 0u16..3000);
    prop_oneof![
        1 => (0u8..2, 0u32..9).prop_map(|(collection, capacity)| Step::Describe { collection, capacity }),
        2 => (c.clone(), group.clone(), revision.clone())
            .prop_map(|(collection, group, revision)| Step::UseRevision { collection, group, revision }),
        6 => (id.clone(), c.clone(), prop::collection::vec(template, 1..4))
            .prop_map(|(id, collection, templates)| Step::Admit { id, collection, templates }),
        6 => (id.clone(), c.clone(), group.clone(), revision, 0u32..200,
              prop::collection::vec((0u32..4, 0u8..2), 0..4), prop::collection::vec(0u64..3, 0..2))
            .prop_map(|(id, collection, group, revision, words, members, replaces)| {
                Step::Build { id, collection, group, revision, words, members, replaces }
            }),
        4 => (id.clone(), c.clone(), 0u32..4, 0u8..2)
            .prop_map(|(id, collection, subject, version)| Step::Erase { id, collection, subject, version }),
        12 => id.clone().prop_map(|id| Step::Settle { id }),
        2 => id.clone().prop_map(|id| Step::Withdraw { id }),
        1 => (c, group).prop_map(|(collection, group)| Step::DropGroup { collection, group }),
        1 => id.prop_map(|id| Step::Forget { id }),
    ]
}

/// One transaction, and whether the process restarts after it.
fn transactions(count: usize) -> impl Strategy<Value = Vec<(Vec<Step>, bool)>> {
    let steps = prop_oneof![4 => prop::collection::vec(step(), 1..2), 1 => prop::collection::vec(step(), 2..5)];
    prop::collection::vec((steps, prop::bool::weighted(0.1)), 1..count)
}

fn agrees(backend: &mut impl Backend, transactions: &[(Vec<Step>, bool)]) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    let mut lives = 0;
    let described = changes(&[Step::Describe { collection: 0, capacity: 8192 }]);
    backend.storage().apply(&described).unwrap();
    model.apply(&described).unwrap();
    for (steps, restarts) in transactions {
        let changes = changes(steps);
        match (backend.storage().apply(&changes), model.apply(&changes)) {
            (Ok(()), Ok(())) | (Err(StorageError::Misfit(_)), Err(_)) => {}
            (found, expected) => prop_assert!(false, "{found:?}, not {expected:?}, for {steps:?}"),
        }
        if *restarts {
            backend.restart();
            compare(backend, &model, &mut lives)?;
        }
    }
    compare(backend, &model, &mut lives)
}

fn compare(backend: &impl Backend, model: &Model, lives: &mut u64) -> Result<(), TestCaseError> {
    let image = backend.storage().load().unwrap();
    prop_assert_eq!(model.difference(&image, backend.storage()), None);
    prop_assert_eq!(image.lives, *lives + 1);
    *lives = image.lives;
    for (_, intent) in &image.intents {
        if let veilmatch_gallery::Intent::Admission { collection, templates } = intent {
            for (subject, _) in templates {
                let stored = model.collections[collection].templates.get(subject).map(|(_, bytes)| bytes.clone());
                let found = backend.storage().sealed(collection, std::slice::from_ref(subject)).unwrap();
                prop_assert_eq!(found, vec![stored], "undecided templates are not stored");
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 500, failure_persistence: None, ..Default::default() })]
    #[test]
    fn memory_does_what_the_model_does(transactions in transactions(60)) {
        agrees(&mut MemoryStorage::new(), &transactions)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 100, failure_persistence: None, ..Default::default() })]
    #[test]
    fn disk_does_what_the_model_does(transactions in transactions(40)) {
        agrees(&mut Disk::new(), &transactions)?;
    }
}

/// The life of one template, step by step, where random transactions might miss a turn.
fn one_life(backend: &mut impl Backend) {
    let apply = |backend: &mut dyn Backend, step: Step| backend.storage().apply(&[step.change()]);
    let build = |id, revision, members: Vec<(u32, u8)>, replaces| Step::Build {
        id,
        collection: 0,
        group: 0,
        revision,
        words: 100,
        members,
        replaces,
    };
    let admission = Step::Admit { id: 1, collection: 0, templates: vec![(1, 0, 500), (2, 0, 600)] };
    assert!(matches!(apply(backend, admission.clone()), Err(StorageError::Misfit(_))), "no such collection");
    apply(backend, Step::Describe { collection: 0, capacity: 8192 }).unwrap();
    apply(backend, admission.clone()).unwrap();
    apply(backend, admission.clone()).unwrap();
    assert_eq!(backend.storage().sealed(&collection(0), &[subject(1)]).unwrap(), [None]);
    let other = Step::Admit { id: 1, collection: 0, templates: vec![(1, 0, 501), (2, 0, 600)] };
    assert!(matches!(apply(backend, other), Err(StorageError::Misfit(_))), "the same id with other bytes");
    backend.restart();
    apply(backend, Step::Settle { id: 1 }).unwrap();
    assert!(matches!(apply(backend, Step::Settle { id: 1 }), Err(StorageError::Misfit(_))), "twice");
    apply(backend, build(2, 0, vec![(1, 0), (2, 0)], vec![])).unwrap();
    backend.restart();
    let image = backend.storage().load().unwrap();
    assert_eq!(image.collections[&collection(0)].index.pending().len(), 2, "a decision changes no index");
    apply(backend, Step::Settle { id: 2 }).unwrap();
    let erasure = Step::Erase { id: 3, collection: 0, subject: 1, version: 0 };
    apply(backend, erasure.clone()).unwrap();
    apply(backend, Step::Settle { id: 3 }).unwrap();
    assert!(matches!(apply(backend, erasure), Err(StorageError::Misfit(_))), "it is done");
    backend.restart();
    let image = backend.storage().load().unwrap();
    let index = &image.collections[&collection(0)].index;
    assert_eq!((index.len(), index.overdue().len(), image.erased.len()), (1, 1, 1));
    assert!(backend.storage().sealed(&collection(0), &[subject(1), subject(2)]).unwrap()[0].is_none());
    // The subject comes back under a new template; the group still holds the old one.
    apply(backend, Step::Admit { id: 4, collection: 0, templates: vec![(1, 1, 700)] }).unwrap();
    apply(backend, Step::Settle { id: 4 }).unwrap();
    apply(backend, build(5, 1, vec![(2, 0), (1, 1)], vec![])).unwrap();
    apply(backend, Step::Settle { id: 5 }).unwrap();
    backend.restart();
    let image = backend.storage().load().unwrap();
    let index = &image.collections[&collection(0)].index;
    assert!(index.pending().is_empty() && index.overdue().is_empty());
    assert_eq!(index.groups().count(), 1);
    assert_eq!(backend.storage().sealed(&collection(0), &[subject(1)]).unwrap()[0].as_ref().unwrap().len(), 700);
}

#[test]
fn one_life_in_memory() {
    one_life(&mut MemoryStorage::new());
}

#[test]
fn one_life_on_disk() {
    one_life(&mut Disk::new());
}
