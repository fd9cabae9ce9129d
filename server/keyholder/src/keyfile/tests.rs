use super::*;
use proptest::prelude::*;
use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;
use std::time::Instant;
use veilmatch_secret::os_entropy;

const CHEAP: Cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };
const PATH: &str = "k1.keys";

fn passphrase(text: &str) -> Unlock {
    Unlock::passphrase(Secret::new(text.as_bytes().to_vec())).unwrap()
}

fn key_file(byte: u8) -> Unlock {
    Unlock(Lock::KeyFile(Secret::new(vec![byte; 32])))
}

fn keys() -> HolderKeys {
    HolderKeys::random(Party::K1, &mut *os_entropy())
}

fn secrets(keys: &HolderKeys) -> (Party, [[u8; 32]; 3]) {
    let (identity, kem) = (keys.identity.secret_bytes(), keys.kem.secret_bytes());
    (keys.party, [*identity.expose(), *kem.expose(), *keys.storage.expose()])
}

/// A file's bytes under a given lock.
fn file(unlock: &Unlock) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(PATH);
    keys().create(&path, unlock, CHEAP, &mut *os_entropy()).unwrap();
    std::fs::read(path).unwrap()
}

fn open(bytes: &[u8], unlock: &Unlock) -> Result<HolderKeys, KeyFileError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(PATH);
    fs::create(&path, bytes, fs::PRIVATE).unwrap();
    HolderKeys::open(&path, unlock)
}

/// The bytes with a check that fits, as somebody who alters a file on purpose would write them.
fn with_check(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(SEALED_END);
    let check = check(&bytes);
    bytes.extend(&check[..CHECK_BYTES]);
    bytes
}

#[test]
fn a_file_gives_back_what_was_put_in_and_to_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(PATH);
    for (right, wrong) in
        [(passphrase("correct horse battery"), passphrase("correct horse batterz")), (key_file(1), key_file(2))]
    {
        let keys = keys();
        keys.create(&path, &right, CHEAP, &mut *os_entropy()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let opened = HolderKeys::open(&path, &right).unwrap();
        assert_eq!(secrets(&opened), secrets(&keys));
        assert_eq!(opened.card(), keys.card());
        let error = HolderKeys::open(&path, &wrong).unwrap_err();
        assert_eq!(error.to_string(), format!("the {} does not open {}", right.kind(), path.display()));
        let again = self::keys().create(&path, &right, CHEAP, &mut *os_entropy());
        assert!(matches!(again, Err(KeyFileError::File(FileError::Exists { .. }))));
        assert_eq!(secrets(&HolderKeys::open(&path, &right).unwrap()), secrets(&keys), "the old file is untouched");
        std::fs::remove_file(&path).unwrap();
    }
    assert_ne!(secrets(&keys()), secrets(&keys()));
}

#[test]
fn the_default_cost_is_what_the_file_says_and_takes_a_moment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(PATH);
    let unlock = passphrase("correct horse battery");
    let begin = Instant::now();
    keys().create(&path, &unlock, Cost::default(), &mut *os_entropy()).unwrap();
    assert!(begin.elapsed().as_millis() >= 10, "64 MiB three times cannot be that fast");
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(Header::from_bytes(&path, &bytes[..HEADER_BYTES]).unwrap().cost, Some(Cost::default()));
    HolderKeys::open(&path, &unlock).unwrap();
}

#[test]
fn a_hostile_cost_is_refused_before_any_memory_is_taken() {
    let unlock = passphrase("correct horse battery");
    let bytes = file(&unlock);
    for numbers in [[100 << 20, 3, 4], [1 << 16, u32::MAX, 4], [1 << 16, 3, 1 << 20], [0, 0, 0], [7, 1, 1]] {
        let mut hostile = bytes.clone();
        for (i, number) in numbers.into_iter().enumerate() {
            hostile[10 + 4 * i..14 + 4 * i].copy_from_slice(&u32::to_le_bytes(number));
        }
        let error = open(&with_check(hostile), &unlock).unwrap_err();
        assert!(matches!(error, KeyFileError::Cost { .. }), "{error}");
    }
}

#[test]
fn the_environment_gives_exactly_one_unlock() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("unlock");
    fs::create(&path, &[7; 32], fs::PRIVATE).unwrap();
    let text = || Some(OsString::from("a passphrase"));
    let name = || Some(path.clone().into_os_string());
    assert_eq!(Unlock::choose(text(), None, None).unwrap().kind(), "passphrase");
    assert_eq!(Unlock::choose(None, name(), None).unwrap().kind(), "key file");
    assert_eq!(Unlock::choose(None, None, Some(&path)).unwrap().kind(), "key file");
    assert!(matches!(Unlock::choose(None, None, None), Err(KeyFileError::NoUnlock)));
    for two in [(text(), name(), None), (text(), None, Some(path.as_path())), (None, name(), Some(path.as_path()))] {
        assert!(matches!(Unlock::choose(two.0, two.1, two.2), Err(KeyFileError::TwoUnlocks)));
    }
    assert!(matches!(Unlock::choose(Some(OsString::new()), None, None), Err(KeyFileError::UnlockLength { .. })));
    assert!(!format!("{:?}", Unlock::choose(text(), None, None).unwrap()).contains("phrase\""));
}

#[test]
fn short_unlocks_and_readable_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let short = folder.path().join("short");
    fs::create(&short, &[7; 31], fs::PRIVATE).unwrap();
    assert!(matches!(Unlock::key_file(&short), Err(KeyFileError::UnlockLength { found: 31, least: 32, .. })));
    let path = folder.path().join(PATH);
    let weak = keys().create(&path, &passphrase("elevenbytes"), CHEAP, &mut *os_entropy());
    assert!(matches!(weak, Err(KeyFileError::UnlockLength { found: 11, least: 12, .. })));
    assert!(!path.exists());

    keys().create(&path, &key_file(1), CHEAP, &mut *os_entropy()).unwrap();
    let readable = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(&path, readable.clone()).unwrap();
    let error = HolderKeys::open(&path, &key_file(1)).unwrap_err();
    assert!(error.to_string().contains("mode 0640") && error.to_string().contains("chmod 600 "), "{error}");
    assert_eq!(error.code(), "exposed-file");
    std::fs::set_permissions(&short, readable).unwrap();
    assert_eq!(Unlock::key_file(&short).unwrap_err().code(), "exposed-file");
}

#[test]
fn the_wrong_kind_of_unlock_is_named() {
    let locked = file(&passphrase("correct horse battery"));
    assert!(matches!(open(&locked, &key_file(1)), Err(KeyFileError::WrongKind { needed: "passphrase", .. })));
    let locked = file(&key_file(1));
    let error = open(&locked, &passphrase("correct horse battery"));
    assert!(matches!(error, Err(KeyFileError::WrongKind { needed: "key file", .. })));
}

static FILES: LazyLock<[(Unlock, Vec<u8>); 2]> = LazyLock::new(|| {
    [passphrase("correct horse battery"), key_file(1)].map(|unlock| {
        let bytes = file(&unlock);
        (unlock, bytes)
    })
});

#[test]
fn every_altered_byte_and_every_length_is_refused() {
    for (unlock, bytes) in FILES.iter() {
        assert_eq!(bytes.len(), FILE_BYTES);
        assert!(open(bytes, unlock).is_ok() && open(&with_check(bytes.clone()), unlock).is_ok());
        for i in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[i] ^= 0x41;
            let error = open(&altered, unlock).unwrap_err();
            let expected = match i {
                0..8 => "not-a-key-file",
                8 => "key-file-format",
                _ => "key-file-damaged",
            };
            assert_eq!(error.code(), expected, "byte {i}");
            // Past the check, the lock, the cost and the seal hold on their own.
            if i < SEALED_END {
                assert!(open(&with_check(altered), unlock).is_err(), "byte {i}");
            }
        }
        for length in 0..bytes.len() {
            assert!(open(&bytes[..length], unlock).is_err(), "{length} bytes");
        }
        assert!(open(&[bytes.as_slice(), &[0]].concat(), unlock).is_err());
    }
}

proptest! {
    #[test]
    fn altered_files_with_a_valid_check_are_refused(
        which in 0usize..2,
        changes in proptest::collection::vec((9usize..SEALED_END, 1u8..), 1..4),
    ) {
        let (unlock, bytes) = &FILES[which];
        let mut altered = bytes.clone();
        for (position, difference) in changes {
            // The cost stays below 4 MiB and 255 passes, or the test takes hours.
            if !(10..22).contains(&position) {
                altered[position] ^= difference;
            }
        }
        prop_assume!(altered != *bytes);
        prop_assert!(open(&with_check(altered), unlock).is_err());
    }
}
