//! Reading and writing certificate and key files. A key file is its owner's alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use veilmatch_domain::{Explain, Status};
use veilmatch_secret::Secret;

const OWNER_ONLY: u32 = 0o600;
const EVERYBODY_READS: u32 = 0o644;

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Reading failed.
    #[error("cannot read {}: {kind}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        kind: io::ErrorKind,
    },
    /// Writing failed.
    #[error("cannot write {}: {kind}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        kind: io::ErrorKind,
    },
    /// Others than the owner may read or write a secret.
    #[error("{} can be used by others than its owner (mode {mode:03o})", path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// More bytes than such a file has.
    #[error("{} has more than {limit} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: usize,
    },
}

impl Explain for FileError {
    fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "cannot-read-file",
            Self::Write { .. } => "cannot-write-file",
            Self::Permissions { .. } => "file-permissions",
            Self::TooLong { .. } => "file-too-long",
        }
    }

    fn status(&self) -> Status {
        Status::FailedPrecondition
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Read { .. } => "check that the path is right and that this user may read it",
            Self::Write { .. } => "check that the folder exists, is writable, and does not have the file already",
            Self::Permissions { .. } => "chmod 600 the file; if others may have read it, replace the key in it",
            Self::TooLong { .. } => "check that the path is right",
        }
    }
}

/// Reads a public file of at most `limit` bytes.
///
/// # Errors
/// [`FileError`].
pub fn read_public(path: &Path, limit: usize) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    read(&open(path)?, path, limit, &mut bytes)?;
    Ok(bytes)
}

/// Reads a secret file of at most `limit` bytes. The permissions checked are those of the file that is read.
///
/// # Errors
/// [`FileError`]; [`FileError::Permissions`] if group or others have any right to it.
pub fn read_private(path: &Path, limit: usize) -> Result<Secret<Vec<u8>>, FileError> {
    let file = open(path)?;
    let metadata = file.metadata().map_err(|e| FileError::Read { path: path.to_owned(), kind: e.kind() })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(FileError::Permissions { path: path.to_owned(), mode });
    }
    // Room for all of it at once: growing would leave unwiped copies behind.
    let mut bytes = Secret::new(Vec::with_capacity(limit.min(metadata.len() as usize).saturating_add(1)));
    read(&file, path, limit, bytes.expose_mut())?;
    Ok(bytes)
}

fn open(path: &Path) -> Result<File, FileError> {
    File::open(path).map_err(|e| FileError::Read { path: path.to_owned(), kind: e.kind() })
}

fn read(file: &File, path: &Path, limit: usize, bytes: &mut Vec<u8>) -> Result<(), FileError> {
    let most = (limit as u64).saturating_add(1);
    file.take(most).read_to_end(bytes).map_err(|e| FileError::Read { path: path.to_owned(), kind: e.kind() })?;
    if bytes.len() > limit { Err(FileError::TooLong { path: path.to_owned(), limit }) } else { Ok(()) }
}

/// Writes a secret file with mode 0600 that did not exist before, and syncs it.
///
/// # Errors
/// [`FileError::Write`], also if the file exists.
pub fn write_new_private(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    create(path, bytes, OWNER_ONLY).map_err(|e| FileError::Write { path: path.to_owned(), kind: e.kind() })
}

/// Writes or replaces a secret file with mode 0600: after a crash the file is the old one or the new one.
///
/// # Errors
/// [`FileError::Write`].
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    replace(path, bytes, OWNER_ONLY)
}

/// Writes or replaces a public file with mode 0644: after a crash the file is the old one or the new one.
///
/// # Errors
/// [`FileError::Write`].
pub fn write_public(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    replace(path, bytes, EVERYBODY_READS)
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let written = (|| {
        // What an interrupted write left behind.
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        create(&new, bytes, mode)?;
        fs::rename(&new, path)?;
        sync_folder(path)
    })();
    written.map_err(|e| FileError::Write { path: path.to_owned(), kind: e.kind() })
}

fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_folder(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn secret_files_are_the_owners_and_refused_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        write_new_private(&path, b"first").unwrap();
        assert!(matches!(
            write_new_private(&path, b"x"),
            Err(FileError::Write { kind: io::ErrorKind::AlreadyExists, .. })
        ));
        write_private(&path, b"second").unwrap();
        assert_eq!((mode(&path), read_private(&path, 100).unwrap().expose().as_slice()), (0o600, &b"second"[..]));
        for bits in [0o640, 0o604, 0o620, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
            assert_eq!(read_private(&path, 100).err(), Some(FileError::Permissions { path: path.clone(), mode: bits }));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(read_private(&path, 100).is_ok());
    }

    #[test]
    fn lengths_are_bounded_and_leftovers_do_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        fs::write(folder.path().join("ca.pem.new"), b"half").unwrap();
        write_public(&path, b"12345").unwrap();
        assert_eq!(read_public(&path, 5).unwrap(), b"12345");
        assert_eq!(read_public(&path, 4), Err(FileError::TooLong { path: path.clone(), limit: 4 }));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(matches!(read_public(folder.path(), 4), Err(FileError::Read { .. })));
        assert!(write_public(&folder.path().join("no/such/folder"), b"").is_err());
    }
}
