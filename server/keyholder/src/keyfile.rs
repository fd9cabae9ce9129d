//! The secrets that a holder must never lose and never show, in one encrypted file.
//!
//! ```text
//! magic 8 | version 1 | lock 1 | Argon2id memory KiB 4, passes 4, lanes 4 | salt 16 | nonce 24 | ciphertext 97 | tag 16 | check 16
//! ```
//!
//! Numbers are little-endian. Everything before the nonce is associated data, so nobody can weaken the lock of a file
//! without breaking it. The check at the end is a plain hash: it tells an accident from a wrong passphrase, and protects
//! against nobody. The content has a fixed length; a file of any other length is damaged.
//!
//! The key that encrypts comes from a passphrase through Argon2id (the cost stands in the file, so it can grow), or from
//! the content of a separate key file of at least 32 random bytes, where a hash suffices. Prefer the key file in
//! production: an environment variable can be read by whoever may look at the process.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use veilmatch_domain::{Explain, Party, Status};
use veilmatch_holder::{HolderCard, HolderSecretKey};
use veilmatch_sealed::ClientSigningKey;
use veilmatch_secret::{Entropy, Hasher, Label, Secret, Seed};

use crate::aead::{self, NONCE_BYTES, TAG_BYTES};
use crate::fs::{self, FileError};

#[cfg(test)]
mod tests;

/// The variable that holds a passphrase.
pub const PASSPHRASE_VARIABLE: &str = "VEILMATCH_KEY_PASSPHRASE";
/// The variable that holds the path of a key file.
pub const KEY_FILE_VARIABLE: &str = "VEILMATCH_KEY_FILE";

const MAGIC: &[u8; 8] = b"veilkeys";
const VERSION: u8 = 1;
const LOCK_PASSPHRASE: u8 = 0;
const LOCK_KEY_FILE: u8 = 1;
const SALT_BYTES: usize = 16;
const HEADER_BYTES: usize = 8 + 1 + 1 + 12 + SALT_BYTES;
const PLAIN_BYTES: usize = 1 + 3 * 32;
const CHECK_BYTES: usize = 16;
const SEALED_END: usize = HEADER_BYTES + NONCE_BYTES + PLAIN_BYTES + TAG_BYTES;
const FILE_BYTES: usize = SEALED_END + CHECK_BYTES;

/// Fewest bytes of a new passphrase.
pub const MIN_PASSPHRASE_BYTES: usize = 12;
/// Fewest bytes of a key file.
pub const MIN_KEY_FILE_BYTES: usize = 32;
const MAX_UNLOCK_BYTES: u64 = 4096;

/// Why a key file cannot be made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file or the key file that unlocks it.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is something else.
    #[error("{} is not a holder's key file", path.display())]
    NotAKeyFile {
        /// The file.
        path: PathBuf,
    },
    /// Made by another version of this program.
    #[error("{} has format {found}; this program reads format {VERSION}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u8,
    },
    /// Truncated or altered.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The file asks for more work or memory than any sane one, or for less than Argon2id can do.
    #[error("an Argon2id cost of {memory_kib} KiB, {passes} passes and {lanes} lanes is out of bounds")]
    Cost {
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes.
        passes: u32,
        /// Lanes.
        lanes: u32,
    },
    /// A passphrase for a file that a key file locks, or the other way round.
    #[error("{} is locked with a {needed}, and something else was given", path.display())]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// `"passphrase"` or `"key file"`.
        needed: &'static str,
    },
    /// The passphrase or key file is not the right one.
    #[error("the {given} does not open {}", path.display())]
    WrongUnlock {
        /// The file.
        path: PathBuf,
        /// `"passphrase"` or `"key file"`.
        given: &'static str,
    },
    /// Too short or too long to be a passphrase or key file.
    #[error("the {given} has {found} bytes; {least} to {MAX_UNLOCK_BYTES} are allowed")]
    UnlockLength {
        /// `"passphrase"` or `"key file"`.
        given: &'static str,
        /// Its length in bytes.
        found: usize,
        /// Fewest bytes allowed.
        least: usize,
    },
    /// Nothing says how to unlock.
    #[error("neither a passphrase nor a key file is given")]
    NoUnlock,
    /// More than one thing says how to unlock.
    #[error("a passphrase and a key file, or two key files, are given")]
    TwoUnlocks,
    /// There is not enough memory for Argon2id.
    #[error("not enough memory for an Argon2id cost of {memory_kib} KiB")]
    Memory {
        /// Memory in KiB.
        memory_kib: u32,
    },
}

impl Explain for KeyFileError {
    fn code(&self) -> &'static str {
        match self {
            Self::File(e) => e.code(),
            Self::NotAKeyFile { .. } => "not-a-key-file",
            Self::Format { .. } => "key-file-format",
            Self::Damaged { .. } => "key-file-damaged",
            Self::Cost { .. } => "key-file-cost",
            Self::WrongKind { .. } => "wrong-unlock-kind",
            Self::WrongUnlock { .. } => "wrong-unlock",
            Self::UnlockLength { .. } => "unlock-length",
            Self::NoUnlock => "no-unlock",
            Self::TwoUnlocks => "two-unlocks",
            Self::Memory { .. } => "key-file-memory",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::File(e) => e.status(),
            Self::Damaged { .. } => Status::DataLoss,
            Self::WrongUnlock { .. } => Status::PermissionDenied,
            Self::Memory { .. } => Status::ResourceExhausted,
            Self::UnlockLength { .. } => Status::InvalidArgument,
            Self::NotAKeyFile { .. }
            | Self::Format { .. }
            | Self::Cost { .. }
            | Self::WrongKind { .. }
            | Self::NoUnlock
            | Self::TwoUnlocks => Status::FailedPrecondition,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::File(e) => e.advice(),
            Self::NotAKeyFile { .. } => "check the path of the key file in the configuration",
            Self::Format { .. } => "use the version of the program that made the file, or a newer one",
            Self::Damaged { .. } => "restore the file from its backup",
            Self::Cost { .. } => "restore the file from its backup, or choose at most 1 GiB, 64 passes and 16 lanes",
            Self::WrongKind { .. } | Self::NoUnlock => {
                "set VEILMATCH_KEY_PASSPHRASE, or VEILMATCH_KEY_FILE to the path of a key file, as when it was made"
            }
            Self::WrongUnlock { .. } => {
                "give the passphrase or key file that this file was made with; if it is right, restore the file from its backup"
            }
            Self::UnlockLength { .. } => "use a longer passphrase, or a file of 32 random bytes",
            Self::TwoUnlocks => "set only one of VEILMATCH_KEY_PASSPHRASE, VEILMATCH_KEY_FILE and `keys.unlock`",
            Self::Memory { .. } => "give the process more memory",
        }
    }
}

/// What opens a holder's key file. Wiped on drop, redacted in `Debug`.
#[derive(Debug)]
pub struct Unlock(Lock);

#[derive(Debug)]
enum Lock {
    Passphrase(Secret<Vec<u8>>),
    KeyFile(Secret<Vec<u8>>),
}

impl Unlock {
    /// A passphrase.
    ///
    /// # Errors
    /// [`KeyFileError::UnlockLength`] if it is empty or has more than 4,096 bytes.
    pub fn passphrase(passphrase: Secret<Vec<u8>>) -> Result<Self, KeyFileError> {
        check_length("passphrase", passphrase.expose(), 1)?;
        Ok(Self(Lock::Passphrase(passphrase)))
    }

    /// The content of a key file: at least 32 random bytes, readable by its owner alone.
    ///
    /// # Errors
    /// [`KeyFileError::File`] and [`KeyFileError::UnlockLength`].
    pub fn key_file(path: &Path) -> Result<Self, KeyFileError> {
        let content = fs::read_private(path, MAX_UNLOCK_BYTES)?;
        check_length("key file", content.expose(), MIN_KEY_FILE_BYTES)?;
        Ok(Self(Lock::KeyFile(content)))
    }

    /// What the environment says ([`PASSPHRASE_VARIABLE`] or [`KEY_FILE_VARIABLE`]), or the path in the configuration.
    ///
    /// # Errors
    /// [`KeyFileError::NoUnlock`], [`KeyFileError::TwoUnlocks`] and those of the constructors.
    pub fn from_environment(configured: Option<&Path>) -> Result<Self, KeyFileError> {
        Self::choose(std::env::var_os(PASSPHRASE_VARIABLE), std::env::var_os(KEY_FILE_VARIABLE), configured)
    }

    fn choose(
        passphrase: Option<OsString>,
        key_file: Option<OsString>,
        configured: Option<&Path>,
    ) -> Result<Self, KeyFileError> {
        let passphrase = passphrase.map(|text| Secret::new(text.into_vec()));
        match (passphrase, key_file, configured) {
            (Some(passphrase), None, None) => Self::passphrase(passphrase),
            (None, Some(path), None) => Self::key_file(Path::new(&path)),
            (None, None, Some(path)) => Self::key_file(path),
            (None, None, None) => Err(KeyFileError::NoUnlock),
            _ => Err(KeyFileError::TwoUnlocks),
        }
    }

    fn kind(&self) -> &'static str {
        match self.0 {
            Lock::Passphrase(_) => "passphrase",
            Lock::KeyFile(_) => "key file",
        }
    }
}

fn check_length(given: &'static str, bytes: &[u8], least: usize) -> Result<(), KeyFileError> {
    let found = bytes.len();
    if found < least || found as u64 > MAX_UNLOCK_BYTES {
        return Err(KeyFileError::UnlockLength { given, found, least });
    }
    Ok(())
}

/// How much work a passphrase costs whoever guesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Default for Cost {
    /// 64 MiB, 3 passes, 4 lanes: the second recommended option of RFC 9106, section 4.
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 }
    }
}

impl Cost {
    /// Memory in KiB (8 per lane to 1 GiB), passes (1 to 64) and lanes (1 to 16).
    ///
    /// # Errors
    /// [`KeyFileError::Cost`] outside these bounds: a hostile file could ask for days or for all memory.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, KeyFileError> {
        let sane =
            (1..=16).contains(&lanes) && (1..=64).contains(&passes) && (8 * lanes..=1 << 20).contains(&memory_kib);
        if sane {
            Ok(Self { memory_kib, passes, lanes })
        } else {
            Err(KeyFileError::Cost { memory_kib, passes, lanes })
        }
    }

    fn hash(self, passphrase: &[u8], salt: &[u8; SALT_BYTES]) -> Result<Seed, KeyFileError> {
        let Self { memory_kib, passes, lanes } = self;
        let params = Params::new(memory_kib, passes, lanes, Some(32)).map_err(|_| KeyFileError::Cost {
            memory_kib,
            passes,
            lanes,
        })?;
        let mut key = Secret::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase, salt, key.expose_mut())
            .map_err(|_| KeyFileError::Memory { memory_kib })?;
        Ok(Seed::from_bytes(*key.expose()))
    }
}

/// The header of a file, before the nonce.
struct Header {
    lock: u8,
    /// Absent for a key file.
    cost: Option<Cost>,
    salt: [u8; SALT_BYTES],
}

impl Header {
    fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let numbers = self.cost.map_or([0; 3], |cost| [cost.memory_kib, cost.passes, cost.lanes]);
        let numbers: Vec<u8> = numbers.into_iter().flat_map(u32::to_le_bytes).collect();
        let fields = [MAGIC.as_slice(), &[VERSION, self.lock], &numbers, &self.salt];
        for (to, from) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }

    fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self, KeyFileError> {
        let damaged = || KeyFileError::Damaged { path: path.to_owned() };
        let rest = bytes.get(10..).ok_or_else(damaged)?;
        let (numbers, rest) = rest.split_first_chunk::<12>().ok_or_else(damaged)?;
        let salt = *rest.first_chunk().ok_or_else(damaged)?;
        let lock = *bytes.get(9).ok_or_else(damaged)?;
        let ([memory, passes, lanes], []) = numbers.as_chunks::<4>() else { return Err(damaged()) };
        let numbers = [memory, passes, lanes].map(|n| u32::from_le_bytes(*n));
        let cost = match (lock, numbers) {
            (LOCK_PASSPHRASE, [memory_kib, passes, lanes]) => Some(Cost::new(memory_kib, passes, lanes)?),
            (LOCK_KEY_FILE, [0, 0, 0]) => None,
            _ => return Err(damaged()),
        };
        Ok(Self { lock, cost, salt })
    }

    /// The key that encrypts the content.
    fn key(&self, path: &Path, unlock: &Unlock) -> Result<Seed, KeyFileError> {
        let seed = match (&unlock.0, self.cost) {
            (Lock::Passphrase(passphrase), Some(cost)) => cost.hash(passphrase.expose(), &self.salt)?,
            (Lock::KeyFile(content), None) => {
                Seed::from_bytes(Hasher::new("veilmatch/keyfile/unlock").field(content.expose()).finish().0)
            }
            (_, cost) => {
                let needed = if cost.is_some() { "passphrase" } else { "key file" };
                return Err(KeyFileError::WrongKind { path: path.to_owned(), needed });
            }
        };
        Ok(seed.derive(&Label::new("veilmatch/keyfile/content").bytes(&self.to_bytes())))
    }
}

fn check(bytes: &[u8]) -> [u8; 32] {
    Hasher::new("veilmatch/keyfile/check").field(bytes).finish().0
}

/// The secrets of one holder.
#[derive(Debug)]
pub struct HolderKeys {
    /// Which holder.
    pub party: Party,
    /// Signs its ceremony messages.
    pub identity: ClientSigningKey,
    /// Opens what clients seal for it.
    pub kem: HolderSecretKey,
    /// Encrypts its memory, see [`RecordStore`](crate::records::RecordStore).
    pub storage: Seed,
}

impl HolderKeys {
    /// Draws fresh secrets.
    #[must_use]
    pub fn random(party: Party, entropy: &mut dyn Entropy) -> Self {
        Self {
            party,
            identity: ClientSigningKey::random(entropy),
            kem: HolderSecretKey::random(entropy),
            storage: Seed::random(entropy),
        }
    }

    /// The public half, for clients and the other holders.
    #[must_use]
    pub fn card(&self) -> HolderCard {
        HolderCard {
            party: self.party,
            identity: self.identity.verifying_key(),
            encryption: self.kem.public_key().clone(),
        }
    }

    /// Writes the secrets to a new file with mode 0600, durably, or leaves nothing. `cost` is for passphrases alone.
    ///
    /// # Errors
    /// [`KeyFileError::UnlockLength`] for a passphrase below [`MIN_PASSPHRASE_BYTES`], [`FileError::Exists`] if there is
    /// a file, [`KeyFileError::Memory`] and other [`FileError`]s.
    pub fn create(
        &self,
        path: &Path,
        unlock: &Unlock,
        cost: Cost,
        entropy: &mut dyn Entropy,
    ) -> Result<(), KeyFileError> {
        let (lock, cost) = match &unlock.0 {
            Lock::Passphrase(passphrase) => {
                check_length("passphrase", passphrase.expose(), MIN_PASSPHRASE_BYTES)?;
                (LOCK_PASSPHRASE, Some(cost))
            }
            Lock::KeyFile(_) => (LOCK_KEY_FILE, None),
        };
        let mut salt = [0; SALT_BYTES];
        entropy.fill_bytes(&mut salt);
        let header = Header { lock, cost, salt };
        let mut plain = Secret::new(Vec::with_capacity(PLAIN_BYTES));
        let (identity, kem) = (self.identity.secret_bytes(), self.kem.secret_bytes());
        plain.expose_mut().push(self.party.index() as u8);
        for secret in [identity.expose(), kem.expose(), self.storage.expose()] {
            plain.expose_mut().extend_from_slice(secret);
        }
        let mut file = header.to_bytes().to_vec();
        let sealed = aead::seal(&header.key(path, unlock)?, &file, plain.expose(), entropy)
            .ok_or_else(|| KeyFileError::Damaged { path: path.to_owned() })?;
        file.extend_from_slice(&sealed);
        let check = check(&file);
        file.extend(check.iter().take(CHECK_BYTES));
        Ok(fs::create(path, &file, fs::PRIVATE)?)
    }

    /// Reads the secrets from a file that only its owner can read.
    ///
    /// # Errors
    /// [`KeyFileError`]; nothing but the right file with the right passphrase or key file opens.
    pub fn open(path: &Path, unlock: &Unlock) -> Result<Self, KeyFileError> {
        let file = fs::read_private(path, 64 * 1024)?;
        let file = file.expose();
        let damaged = || KeyFileError::Damaged { path: path.to_owned() };
        if !file.starts_with(MAGIC) {
            return Err(KeyFileError::NotAKeyFile { path: path.to_owned() });
        }
        match file.get(MAGIC.len()) {
            None => return Err(damaged()),
            Some(&VERSION) => {}
            Some(&found) => return Err(KeyFileError::Format { path: path.to_owned(), found }),
        }
        let (content, checksum) = file.split_at_checked(SEALED_END).ok_or_else(damaged)?;
        if file.len() != FILE_BYTES || check(content).get(..CHECK_BYTES) != Some(checksum) {
            return Err(damaged());
        }
        let (header_bytes, sealed) = content.split_at_checked(HEADER_BYTES).ok_or_else(damaged)?;
        let key = Header::from_bytes(path, header_bytes)?.key(path, unlock)?;
        let plain = aead::open(&key, header_bytes, sealed)
            .ok_or_else(|| KeyFileError::WrongUnlock { path: path.to_owned(), given: unlock.kind() })?;
        Self::from_plain(plain.expose()).ok_or_else(damaged)
    }

    fn from_plain(plain: &[u8]) -> Option<Self> {
        let (&party, secrets) = plain.split_first()?;
        let party = Party::ALL.into_iter().find(|p| p.index() == usize::from(party))?;
        let ([identity, kem, storage], []) = secrets.as_chunks::<32>() else { return None };
        Some(Self {
            party,
            identity: ClientSigningKey::from_bytes(identity),
            kem: HolderSecretKey::from_bytes(kem).ok()?,
            storage: Seed::from_bytes(*storage),
        })
    }
}
