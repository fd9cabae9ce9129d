//! kill -9 in a loop while a store is written.
//!
//! The child is this test binary again. It says on a pipe what it is about to apply and what was applied; the parent
//! kills it at a random moment, opens the store and compares it with a model of what was acknowledged. The change that
//! was under way may be there or not, but whole. Not a fault here: power loss, which takes the page cache too; for
//! that the store relies on what fsync promises.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use veilmatch_domain::GroupId;
use veilmatch_gallery::{DiskStorage, GroupRecord, Image, Intent, Storage};

use crate::model::{Collection, Model};
use crate::steps::{Dice, Step, changes, collection, number_of, number_of_id, sealed, version_of};

const FOLDER: &str = "VEILMATCH_CRASH_FOLDER";
const SEED: &str = "VEILMATCH_CRASH_SEED";
/// How many times the child is killed.
const ROUNDS: &str = "VEILMATCH_CRASH_ROUNDS";
const DEFAULT_ROUNDS: u64 = 40;

/// What a child says.
#[derive(Debug, PartialEq)]
pub(crate) enum Said {
    /// The store is loaded.
    Ready,
    /// It is about to apply these as one transaction.
    Begin(Vec<Step>),
    /// They were applied.
    Done,
    /// They were refused.
    Failed(String),
}

pub(crate) fn say(said: &Said) {
    let line = match said {
        Said::Ready => "@ready".to_owned(),
        Said::Begin(steps) => {
            let bytes = borsh::to_vec(steps).unwrap();
            format!("@begin {}", bytes.iter().map(|b| format!("{b:02x}")).collect::<String>())
        }
        Said::Done => "@done".to_owned(),
        Said::Failed(code) => format!("@failed {code}"),
    };
    // Past the test harness, which holds back what is printed; one write, so that no line is cut by another.
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Reads a line; `None` for what the test harness says, and for a line that death cut short.
fn heard(line: &str) -> Option<Said> {
    let mut words = line.strip_prefix('@')?.split(' ');
    match (words.next()?, words.next()) {
        ("ready", None) => Some(Said::Ready),
        ("done", None) => Some(Said::Done),
        ("failed", Some(code)) => Some(Said::Failed(code.to_owned())),
        ("begin", Some(hex)) => {
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
            let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(byte).collect();
            borsh::from_slice(&bytes?).ok().map(Said::Begin)
        }
        _ => None,
    }
}

/// Runs this binary's test `name` as a child; what it says comes through the channel until its end.
pub(crate) fn child(command: &mut Command, name: &str) -> (std::process::Child, Receiver<Said>) {
    let mut child = command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for said in out.lines().map_while(Result::ok).filter_map(|line| heard(&line)) {
            if send.send(said).is_err() {
                break;
            }
        }
    });
    (child, receive)
}

/// A model of an image of which nothing is in doubt.
fn model_of(image: &Image, sizes: impl Fn(u32, u8) -> u16) -> Model {
    let mut model = Model { erased: image.erased.clone(), ..Model::default() };
    for (id, found) in &image.collections {
        let template = |subject: &_, digest: &_| {
            let (s, v) = (number_of(subject), version_of(digest));
            (*digest, sealed(s, v, sizes(s, v)))
        };
        let mut index = found.index.clone();
        let mut revisions = std::collections::BTreeMap::new();
        for group in (0..index.fresh_group().0).map(GroupId) {
            if let Some(used) = index.next_revision(group).0.checked_sub(1) {
                revisions.insert(group, veilmatch_domain::Revision(used));
            }
        }
        let collection = Collection {
            description: found.description.clone(),
            templates: found.index.templates().map(|(s, t)| (s.clone(), template(s, &t.digest))).collect(),
            groups: found.index.groups().map(|g| (g.packed.group, g.clone())).collect(),
            revisions,
        };
        model.collections.insert(id.clone(), collection);
    }
    for (id, intent) in &image.intents {
        let brought = match intent {
            Intent::Admission { templates, .. } => templates
                .iter()
                .map(|(s, d)| sealed(number_of(s), version_of(d), sizes(number_of(s), version_of(d))))
                .collect(),
            _ => Vec::new(),
        };
        model.intents.push((*id, intent.clone(), brought));
    }
    model
}

/// Bytes of a sealed template: some fill a page or two, some share one.
fn size(subject: u32, version: u8) -> u16 {
    Dice::new(&format!("size {subject} {version}")).below(7000) as u16
}

/// What a matcher might do next: pairs of decision and settlement, in which a crash can fall anywhere.
fn next_steps(model: &Model, dice: &mut Dice, fresh: &mut u64) -> Vec<Step> {
    if let Some((id, ..)) = model.intents.first() {
        let id = number_of_id(id);
        let settles = dice.below(8) > 0;
        return vec![if settles { Step::Settle { id } } else { Step::Withdraw { id } }];
    }
    let Some(faces) = model.collections.get(&collection(0)) else {
        return vec![Step::Describe { collection: 0, capacity: 8192 }];
    };
    *fresh += 1;
    let id = *fresh;
    let stored: Vec<(u32, u8)> = faces.templates.iter().map(|(s, (d, _))| (number_of(s), version_of(d))).collect();
    match dice.below(10) {
        0..4 => {
            // Some have a template already: another takes its place.
            let subjects: BTreeSet<u32> = (0..1 + dice.below(12)).map(|_| dice.below(400) as u32).collect();
            let templates: Vec<(u32, u8, u16)> = subjects
                .into_iter()
                .map(|s| {
                    let version = dice.below(250) as u8;
                    (s, version, size(s, version))
                })
                .filter(|(s, version, _)| !stored.contains(&(*s, *version)))
                .collect();
            vec![Step::Admit { id, collection: 0, templates }]
        }
        4..7 => {
            let rebuilt = dice.below(4);
            let exists = faces.groups.contains_key(&GroupId(rebuilt));
            let group = if exists { rebuilt } else { faces.revisions.keys().next_back().map_or(0, |g| g.0 + 1) };
            let revision = faces.revisions.get(&GroupId(group)).map_or(0, |r| r.0 + 1);
            // A merge: other groups go, all that is stored moves here.
            let replaces = faces.groups.keys().map(|g| g.0).filter(|_| dice.below(3) == 0).collect();
            let words = 1 + dice.below(30_000) as u32;
            let build = Step::Build { id, collection: 0, group, revision, words, members: stored, replaces };
            vec![Step::UseRevision { collection: 0, group, revision }, build]
        }
        7..9 if !stored.is_empty() => {
            let (subject, version) = stored[dice.below(stored.len() as u64) as usize];
            vec![Step::Erase { id, collection: 0, subject, version }]
        }
        _ => match (model.erased.keys().next(), faces.groups.keys().next_back()) {
            (Some(done), _) => vec![Step::Forget { id: number_of_id(done) }],
            (None, Some(group)) => vec![Step::DropGroup { collection: 0, group: group.0 }],
            (None, None) => Vec::new(),
        },
    }
}

/// Not a test of its own: what the parent runs and kills.
#[test]
fn writes_until_it_is_killed() {
    let (Some(folder), Ok(seed)) = (std::env::var_os(FOLDER), std::env::var(SEED)) else { return };
    let store = DiskStorage::open(Path::new(&folder)).unwrap();
    let image = store.load().unwrap();
    let mut model = model_of(&image, size);
    let mut dice = Dice::new(&seed);
    // Ids of one life are above those of the lives before.
    let mut fresh = image.lives << 32;
    say(&Said::Ready);
    loop {
        let steps = next_steps(&model, &mut dice, &mut fresh);
        say(&Said::Begin(steps.clone()));
        let changes = changes(&steps);
        store.apply(&changes).unwrap();
        say(&Said::Done);
        model.apply(&changes).unwrap();
    }
}

/// Files of the packed index.
pub(crate) fn index_files(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = |folder: &Path| {
        std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    entries(&folder.join("index")).iter().flat_map(|collection| entries(collection)).collect()
}

/// One for each group that is live or decided, two if it lies in two segments.
fn files_expected(model: &Model) -> usize {
    let files = |record: &GroupRecord| 1 + usize::from(record.packed.cold.is_some());
    let live: usize = model.collections.values().flat_map(|c| c.groups.values()).map(|record| files(record)).sum();
    let decided = model.intents.iter().filter_map(|(_, intent, _)| match intent {
        Intent::Build { record, .. } => Some(files(record)),
        _ => None,
    });
    live + decided.sum::<usize>()
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_erased_comes_back() {
    let rounds = std::env::var(ROUNDS).map_or(DEFAULT_ROUNDS, |rounds| rounds.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    let (mut acknowledged, mut in_doubt, mut made, mut lives) = (0, 0, 0, 0);
    for round in 0..rounds {
        let mut dice = Dice::new(&format!("parent {round}"));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(FOLDER, folder.path()).env(SEED, format!("child {round}"));
        let (mut child, receive) = child(&mut command, "crash::writes_until_it_is_killed");
        let delay = Duration::from_micros(1000 + dice.below(39_000));
        // Every fourth child dies while it starts: opening repairs and loading cleans up what the last one left.
        let mut deadline = round.is_multiple_of(4).then(|| Instant::now() + delay);
        let mut log = Vec::new();
        loop {
            let left = deadline.map_or(Duration::from_secs(60), |d| d.saturating_duration_since(Instant::now()));
            match receive.recv_timeout(left) {
                Ok(Said::Ready) => drop(deadline.get_or_insert_with(|| Instant::now() + delay)),
                Ok(said) => log.push(said),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => panic!("round {round}: the child ended by itself"),
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        log.extend(receive.iter());

        let mut under_way = None;
        for said in log {
            match said {
                Said::Begin(steps) => under_way = Some(changes(&steps)),
                Said::Done => {
                    model.apply(&under_way.take().unwrap()).unwrap();
                    acknowledged += 1;
                }
                said => assert_eq!(said, Said::Ready),
            }
        }
        let store = DiskStorage::open(folder.path()).unwrap();
        let image = store.load().unwrap();
        assert!(image.lives > lives, "round {round}");
        lives = image.lives;
        if let Some(difference) = model.difference(&image, &store) {
            let changes = under_way.take().unwrap_or_else(|| panic!("round {round}: {difference}"));
            model.apply(&changes).unwrap();
            assert_eq!(model.difference(&image, &store), None, "round {round}, with the change that was under way");
            made += 1;
            in_doubt += 1;
        } else {
            in_doubt += u32::from(under_way.is_some());
        }
        let there = index_files(folder.path());
        assert_eq!(there.len(), files_expected(&model), "round {round}: {there:?}");
    }
    let mut report = std::io::stdout().lock();
    writeln!(report, "{rounds} kills, {acknowledged} acknowledged, {in_doubt} under way, {made} of them made").unwrap();
    assert!(acknowledged > rounds, "the children did too little for the test to mean anything");
}
