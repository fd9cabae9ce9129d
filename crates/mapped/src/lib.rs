//! Files of words that are written once and read through memory maps, or into memory of huge pages: the one place that
//! needs `unsafe` for them.
//!
//! **Invariant.** A file that is mapped never changes: its bytes are complete and synced before it gets its name, and
//! under that name it is only ever read or unlinked (a map outlives the unlinking), never written, truncated or
//! extended; a file of the same name that comes later is another file. So the words behind a map cannot change under a
//! reader. [`write_once`] enforces this for every writer of this program: it writes under a name of its own, takes
//! away the permission to write, syncs, and only then renames. Whoever maps a folder's files holds a lock on that
//! folder against other processes (`veilmatch-gallery` does, by its database). What is left is an administrator who
//! changes the files of a running service: reads then see other words, or the process is stopped by `SIGBUS`.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")
)]

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use memmap2::{Advice, Mmap, MmapMut};

#[cfg(target_endian = "big")]
compile_error!("files of words are little-endian, and are read as they lie");

const WORD: usize = size_of::<u32>();

/// Writes a file of a header and words, little-endian, readable by its owner alone, whole or not at all. It is durable
/// when this returns. `temporary` and `path` are in the same folder; a file that has either name is replaced.
///
/// # Errors
/// [`io::Error`]; then nothing of this file is left under either name.
pub fn write_once(temporary: &Path, path: &Path, header: &[u8], words: &[u32]) -> io::Result<()> {
    let written = write_synced(temporary, header, words).and_then(|()| std::fs::rename(temporary, path));
    if written.is_err() {
        // The first error counts; a temporary file that is left is removed by whoever reads the folder next.
        let _ = std::fs::remove_file(temporary);
    }
    written?;
    let folder = path.parent().ok_or(ErrorKind::InvalidInput)?;
    let synced = File::open(folder).and_then(|f| f.sync_all());
    if synced.is_err() {
        let _ = std::fs::remove_file(path);
    }
    synced
}

fn write_synced(temporary: &Path, header: &[u8], words: &[u32]) -> io::Result<()> {
    // What a crash left under this name was never mapped, but may be read-only.
    match std::fs::remove_file(temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(header)?;
    file.write_all(bytemuck::cast_slice(words))?;
    file.set_permissions(std::fs::Permissions::from_mode(0o400))?;
    file.sync_all()
}

/// A file of words behind a header, mapped read-only. The memory is the page cache's.
#[derive(Debug)]
pub struct MappedWords {
    map: Mmap,
    header: usize,
}

impl MappedWords {
    /// Maps a file with a header of `header` bytes, a multiple of four, and `words` words behind it. The file must
    /// keep the invariant above.
    ///
    /// # Errors
    /// [`io::Error`]; [`ErrorKind::InvalidData`] if the file has another length.
    pub fn open(path: &Path, header: usize, words: usize) -> io::Result<Self> {
        let file = File::open(path)?;
        let expected = words.checked_mul(WORD).and_then(|bytes| bytes.checked_add(header));
        if !header.is_multiple_of(WORD) || expected.map(|e| e as u64) != Some(file.metadata()?.len()) {
            return Err(ErrorKind::InvalidData.into());
        }
        let map = map(&file)?;
        // Checked once here, so that `as_ref` need not fail.
        let tail = map.get(header..).ok_or(ErrorKind::InvalidData)?;
        if bytemuck::try_cast_slice::<u8, u32>(tail).map(<[u32]>::len) != Ok(words) {
            return Err(ErrorKind::InvalidData.into());
        }
        // Hints: a scan reads everything from front to back, soon. A kernel or file system without them loses nothing.
        let _ = map.advise(Advice::HugePage);
        let _ = map.advise(Advice::WillNeed);
        Ok(Self { map, header })
    }

    /// The header's bytes.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        self.map.get(..self.header).unwrap_or_default()
    }
}

impl AsRef<[u32]> for MappedWords {
    fn as_ref(&self) -> &[u32] {
        let tail = self.map.get(self.header..).unwrap_or_default();
        bytemuck::try_cast_slice(tail).unwrap_or_default()
    }
}

/// Words in memory of the process's own that nobody changes any more: in huge pages where the system grants them.
#[derive(Debug)]
pub struct HugeWords {
    memory: Mmap,
    bytes: usize,
}

impl HugeWords {
    /// Room for `words` words, all zero at first, that `fill` writes; its error is passed on.
    ///
    /// # Errors
    /// [`io::Error`]: [`ErrorKind::OutOfMemory`] if there is no memory, or what `fill` says.
    pub fn filled(words: usize, fill: impl FnOnce(&mut [u32]) -> io::Result<()>) -> io::Result<Self> {
        let bytes = words.checked_mul(WORD).ok_or(ErrorKind::OutOfMemory)?;
        // An empty map is refused by the system.
        let mut memory = MmapMut::map_anon(bytes.max(WORD))?;
        // Before the first touch, which decides the page's size. A kernel without huge pages loses nothing.
        let _ = memory.advise(Advice::HugePage);
        let room = memory.get_mut(..bytes).ok_or(ErrorKind::InvalidData)?;
        // A map begins at a page, so the words are aligned.
        fill(bytemuck::try_cast_slice_mut(room).map_err(|_| ErrorKind::InvalidData)?)?;
        Ok(Self { memory: memory.make_read_only()?, bytes })
    }
}

impl AsRef<[u32]> for HugeWords {
    fn as_ref(&self) -> &[u32] {
        bytemuck::try_cast_slice(self.memory.get(..self.bytes).unwrap_or_default()).unwrap_or_default()
    }
}

/// A file of words behind a header, read into memory as [`HugeWords`]: pages of a file are not huge, and a scan of
/// the packed index is a good deal faster so (docs/performance.md).
#[derive(Debug)]
pub struct ResidentWords {
    header: Vec<u8>,
    words: HugeWords,
}

impl ResidentWords {
    /// Reads a file with a header of `header` bytes and `words` words behind it.
    ///
    /// # Errors
    /// [`io::Error`]; [`ErrorKind::InvalidData`] if the file has another length, [`ErrorKind::OutOfMemory`] if there
    /// is no memory.
    pub fn read(path: &Path, header: usize, words: usize) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let length = words.checked_mul(WORD).and_then(|bytes| bytes.checked_add(header));
        if length.map(|length| length as u64) != Some(file.metadata()?.len()) {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut head = vec![0; header];
        file.read_exact(&mut head)?;
        let words = HugeWords::filled(words, |room| file.read_exact(bytemuck::cast_slice_mut(room)))?;
        Ok(Self { header: head, words })
    }

    /// The header's bytes.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        &self.header
    }
}

impl AsRef<[u32]> for ResidentWords {
    fn as_ref(&self) -> &[u32] {
        self.words.as_ref()
    }
}

#[expect(unsafe_code, reason = "a memory map is only as constant as its file; the module's invariant says why it is")]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: by the invariant above, nobody writes, truncates or extends the file while it is mapped.
    unsafe { Mmap::map(file) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn names(folder: &tempfile::TempDir) -> (PathBuf, PathBuf) {
        (folder.path().join("words.new"), folder.path().join("words"))
    }

    #[test]
    fn words_are_read_as_written_and_outlive_the_name() {
        let folder = tempfile::tempdir().unwrap();
        let (temporary, path) = names(&folder);
        let words: Vec<u32> = (0..5000u32).map(|i| i.wrapping_mul(2_654_435_761)).collect();
        write_once(&temporary, &path, &[7; 4096], &words).unwrap();
        let mapped = MappedWords::open(&path, 4096, words.len()).unwrap();
        write_once(&temporary, &path, &[8; 4096], &[1, 2, 3]).unwrap();
        let later = MappedWords::open(&path, 4096, 3).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(mapped.as_ref(), words);
        assert_eq!(mapped.header(), [7; 4096]);
        assert_eq!(later.as_ref(), [1, 2, 3]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn words_in_memory_are_those_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let (temporary, path) = names(&folder);
        let words: Vec<u32> = (0..1_000_000u32).map(|i| i.wrapping_mul(2_654_435_761)).collect();
        write_once(&temporary, &path, &[7; 4096], &words).unwrap();
        let resident = ResidentWords::read(&path, 4096, words.len()).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(resident.as_ref(), words);
        assert_eq!(resident.header(), [7; 4096]);
        write_once(&temporary, &path, &[1; 8], &[]).unwrap();
        assert!(ResidentWords::read(&path, 8, 0).unwrap().as_ref().is_empty());
        assert_eq!(ResidentWords::read(&path, 8, 1).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(ResidentWords::read(&path, 8, usize::MAX).unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn only_the_owner_can_read_and_nobody_can_write() {
        let folder = tempfile::tempdir().unwrap();
        let (temporary, path) = names(&folder);
        std::fs::write(&temporary, "left by a crash").unwrap();
        write_once(&temporary, &path, &[], &[9]).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o400);
        assert_eq!(std::fs::read(&path).unwrap(), [9, 0, 0, 0]);
    }

    #[test]
    fn another_length_a_crooked_header_and_no_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (temporary, path) = names(&folder);
        write_once(&temporary, &path, &[0; 8], &[1, 2]).unwrap();
        let kind = |header, words| MappedWords::open(&path, header, words).unwrap_err().kind();
        assert_eq!(kind(8, 1), ErrorKind::InvalidData);
        assert_eq!(kind(8, 3), ErrorKind::InvalidData);
        assert_eq!(kind(6, 2), ErrorKind::InvalidData);
        assert_eq!(kind(8, usize::MAX), ErrorKind::InvalidData);
        assert_eq!(MappedWords::open(&temporary, 8, 2).unwrap_err().kind(), ErrorKind::NotFound);
        let empty = folder.path().join("empty");
        write_once(&temporary, &empty, &[0; 8], &[]).unwrap();
        assert!(MappedWords::open(&empty, 8, 0).unwrap().as_ref().is_empty());
    }

    #[test]
    fn what_cannot_be_named_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (temporary, path) = names(&folder);
        std::fs::create_dir(&path).unwrap();
        assert!(write_once(&temporary, &path, &[], &[1]).is_err());
        assert!(!temporary.exists());
    }
}
