//! Files as this service keeps them: private, and written whole or not at all.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use veilmatch_domain::{Explain, Status};
use veilmatch_secret::Secret;

/// Mode of a file that only its owner may read.
pub(crate) const PRIVATE: u32 = 0o600;
/// Mode of a file that everybody may read.
pub(crate) const PUBLIC: u32 = 0o644;

/// What can be wrong with a file or folder. Content is never part of the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Others could read a secret, or change what the holder relies on.
    #[error("{} has mode {mode:04o}, so others than its owner can use it: chmod {wanted} {}", path.display(), path.display())]
    Exposed {
        /// The file or folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The mode that it should have, as `chmod` takes it.
        wanted: &'static str,
    },
    /// There is nothing at this path.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// The file is there already and is not overwritten.
    #[error("{} exists already and is not overwritten", path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// Something else is at this path.
    #[error("{} is not a {wanted}", path.display())]
    Kind {
        /// The path.
        path: PathBuf,
        /// `"file"` or `"folder"`.
        wanted: &'static str,
    },
    /// More bytes than a file of this kind has.
    #[error("{} has more than {limit} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Most bytes allowed.
        limit: u64,
    },
    /// The disk, the quota or the file-size limit is exhausted.
    #[error("no space is left to write {}", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl FileError {
    pub(crate) fn from_io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::NotFound => Self::Missing { path },
            ErrorKind::AlreadyExists => Self::Exists { path },
            _ if is_full(&source) => Self::Full { path },
            _ => Self::Io { action, path, source },
        }
    }
}

impl Explain for FileError {
    fn code(&self) -> &'static str {
        match self {
            Self::Exposed { .. } => "exposed-file",
            Self::Missing { .. } => "missing-file",
            Self::Exists { .. } => "file-exists",
            Self::Kind { .. } => "wrong-file-kind",
            Self::TooLong { .. } => "file-too-long",
            Self::Full { .. } => "storage-full",
            Self::Io { .. } => "file-access",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::Exposed { .. } | Self::Kind { .. } | Self::TooLong { .. } => Status::FailedPrecondition,
            Self::Missing { .. } => Status::NotFound,
            Self::Exists { .. } => Status::AlreadyExists,
            Self::Full { .. } => Status::ResourceExhausted,
            Self::Io { .. } => Status::Unavailable,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::Exposed { .. } => {
                "run `chmod 600` on the file (`chmod 700` on a folder); a key that others could read is replaced"
            }
            Self::Missing { .. } => "check the path, and that the volume is mounted",
            Self::Exists { .. } => "choose another path, or move the old file away",
            Self::Kind { .. } | Self::TooLong { .. } => "check that the path names the right file",
            Self::Full { .. } => "make room on the disk or raise the quota; nothing needs to be repaired afterwards",
            Self::Io { .. } => "check the owner of the file and the health of the disk",
        }
    }
}

/// Whether an error means that there is no room; a file-size limit and a quota are the same to us as a full disk.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

fn mode(metadata: &Metadata) -> u32 {
    metadata.permissions().mode() & 0o7777
}

/// Opens a file for reading and checks the handle, not the path: what was checked is what is read.
fn open_file(path: &Path, limit: u64, forbidden: u32) -> Result<(File, u64), FileError> {
    let file = File::open(path).map_err(|e| FileError::from_io("open", path, e))?;
    let metadata = file.metadata().map_err(|e| FileError::from_io("read the mode of", path, e))?;
    if !metadata.is_file() {
        return Err(FileError::Kind { path: path.to_owned(), wanted: "file" });
    }
    if mode(&metadata) & forbidden != 0 {
        return Err(FileError::Exposed { path: path.to_owned(), mode: mode(&metadata), wanted: "600" });
    }
    if metadata.len() > limit {
        return Err(FileError::TooLong { path: path.to_owned(), limit });
    }
    Ok((file, metadata.len()))
}

fn read_up_to(path: &Path, limit: u64, forbidden: u32) -> Result<Secret<Vec<u8>>, FileError> {
    let (file, length) = open_file(path, limit, forbidden)?;
    // One byte more than asked for, so that a file that grows meanwhile is noticed and the buffer never moves.
    let mut bytes = Secret::new(Vec::with_capacity(length as usize + 1));
    file.take(length + 1).read_to_end(bytes.expose_mut()).map_err(|e| FileError::from_io("read", path, e))?;
    if bytes.expose().len() as u64 > length {
        return Err(FileError::TooLong { path: path.to_owned(), limit: length });
    }
    Ok(bytes)
}

/// Reads a file of at most `limit` bytes that nobody but its owner can read, change or run.
pub(crate) fn read_private(path: &Path, limit: u64) -> Result<Secret<Vec<u8>>, FileError> {
    read_up_to(path, limit, 0o077)
}

/// Reads a file of at most `limit` bytes that everybody may see.
pub(crate) fn read_public(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let mut bytes = read_up_to(path, limit, 0)?;
    Ok(std::mem::take(bytes.expose_mut()))
}

/// Creates a file with its whole content, durably, or leaves nothing; never replaces one.
pub(crate) fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let folder = folder_of(path);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.new", std::process::id()));
    let temporary = folder.join(name);
    let written = write_new(&temporary, bytes, mode)
        // A link, unlike a rename, fails if the name is taken.
        .and_then(|()| std::fs::hard_link(&temporary, path).map_err(|e| FileError::from_io("create", path, e)));
    if !matches!(&written, Err(FileError::Exists { path }) if *path == temporary) {
        // The file is complete under its own name, or useless: nothing depends on this one.
        let _ = std::fs::remove_file(&temporary);
    }
    written?;
    sync_folder(folder)
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(|e| FileError::from_io("create", path, e))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| FileError::from_io("write", path, e))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes names that were created or removed in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), FileError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| FileError::from_io("sync", folder, e))
}

/// Creates a folder for the holder alone if there is none, and refuses one that others can write into.
pub(crate) fn private_folder(folder: &Path) -> Result<(), FileError> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    match created {
        // Something that is not a folder is at this path; the check below says so.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        other => other.map_err(|e| FileError::from_io("create", folder, e))?,
    }
    let metadata = std::fs::metadata(folder).map_err(|e| FileError::from_io("read the mode of", folder, e))?;
    if !metadata.is_dir() {
        return Err(FileError::Kind { path: folder.to_owned(), wanted: "folder" });
    }
    if mode(&metadata) & 0o022 != 0 {
        return Err(FileError::Exposed { path: folder.to_owned(), mode: mode(&metadata), wanted: "700" });
    }
    sync_folder(folder_of(folder))
}

/// Opens a file for reading and writing, for the holder alone; creates it, durably, if it is not there.
pub(crate) fn open_private(path: &Path) -> Result<File, FileError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE)
        .open(path)
        .map_err(|e| FileError::from_io("open", path, e))?;
    let metadata = file.metadata().map_err(|e| FileError::from_io("read the mode of", path, e))?;
    if mode(&metadata) & 0o077 != 0 {
        return Err(FileError::Exposed { path: path.to_owned(), mode: mode(&metadata), wanted: "600" });
    }
    sync_folder(folder_of(path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_created_file_is_private_whole_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        create(&path, b"content", PRIVATE).unwrap();
        assert_eq!(mode(&std::fs::metadata(&path).unwrap()), 0o600);
        assert!(matches!(create(&path, b"other", PRIVATE), Err(FileError::Exists { path: p }) if p == path));
        assert_eq!(read_private(&path, 7).unwrap().expose(), b"content");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "temporary files are gone");
        assert!(matches!(read_private(&path, 6), Err(FileError::TooLong { limit: 6, .. })));
    }

    #[test]
    fn every_bit_for_others_is_refused_and_the_message_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        create(&path, b"content", PRIVATE).unwrap();
        for bit in [0o1, 0o2, 0o4, 0o10, 0o20, 0o40] {
            set_mode(&path, 0o600 | bit);
            let error = read_private(&path, 99).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "{0} has mode {1:04o}, so others than its owner can use it: chmod 600 {0}",
                    path.display(),
                    0o600 | bit
                )
            );
            assert!(matches!(open_private(&path), Err(FileError::Exposed { .. })));
        }
        set_mode(&path, 0o400);
        assert!(read_private(&path, 99).is_ok());
        for (bits, accepted) in [(0o700, true), (0o755, true), (0o720, false), (0o702, false)] {
            set_mode(folder.path(), bits);
            assert_eq!(private_folder(folder.path()).is_ok(), accepted, "{bits:o}");
        }
        set_mode(folder.path(), 0o700);
        assert!(matches!(private_folder(&path), Err(FileError::Kind { wanted: "folder", .. })));
        assert!(matches!(read_private(folder.path(), 9), Err(FileError::Kind { wanted: "file", .. })));
    }
}
