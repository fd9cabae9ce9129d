//! The packed index on disk: one file of bodies per revision of a group, `<collection>/<group>-<revision>.bodies`.
//!
//! A file is a header of one page and the words behind it, so that they are page-aligned in a map. The header says
//! what the file is; whether it is the right one and undamaged is for the database to say, so it is compared with the
//! header that the row asks for. Nothing here is precious: what is lost is built again from the sealed templates.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use veilmatch_glwe::Bodies;
use veilmatch_mapped::{MappedWords, ResidentWords, write_once};

use crate::StorageError;
use crate::changes::checksum;
use crate::rows::{BodiesName, GroupRow, encode};

const HEADER: usize = 4096;
const MAGIC: [u8; 8] = *b"veilbody";
// 2: residues in the order of the scan. Files of another format are built again.
const FORMAT: u32 = 2;
/// What a name cannot contain, in front of a name that would otherwise be hidden or lead upwards.
const DOT: &str = "%2E";

/// The folder `index`.
#[derive(Debug)]
pub(crate) struct IndexFolder {
    folder: PathBuf,
    room: Arc<Room>,
}

/// How many bytes of bodies are held in memory of our own; what is beyond is read through maps.
#[derive(Debug)]
struct Room {
    limit: u64,
    used: AtomicU64,
}

/// Bodies in memory; gives the room back on drop.
struct Resident {
    words: ResidentWords,
    bytes: u64,
    room: Arc<Room>,
}

impl Room {
    fn read(self: &Arc<Self>, path: &Path, words: usize) -> Option<Resident> {
        let bytes = (words as u64).checked_mul(size_of::<u32>() as u64)?;
        let grown = |used: u64| used.checked_add(bytes).filter(|total| *total <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).ok()?;
        match ResidentWords::read(path, HEADER, words) {
            Ok(words) => Some(Resident { words, bytes, room: Arc::clone(self) }),
            Err(_) => {
                self.used.fetch_sub(bytes, Ordering::Relaxed);
                None
            }
        }
    }
}

impl AsRef<[u32]> for Resident {
    fn as_ref(&self) -> &[u32] {
        self.words.as_ref()
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What the operating system refused.
pub(crate) fn refused(error: &io::Error, what: &str) -> StorageError {
    let text = format!("{what}: {error}");
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::FileTooLarge | ErrorKind::QuotaExceeded => StorageError::Full(text),
        ErrorKind::InvalidData => StorageError::Damaged(text),
        _ => StorageError::Io(text),
    }
}

/// Makes a folder for the owner alone if it is not there, durably.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => Ok(()),
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Bytes that a file takes on disk; a hole takes none.
pub(crate) fn bytes_on_disk(path: &Path) -> io::Result<u64> {
    Ok(std::fs::metadata(path)?.blocks() * 512)
}

fn header(name: &BodiesName, row: &GroupRow) -> Result<Vec<u8>, StorageError> {
    let mut header = encode(&(MAGIC, FORMAT, name, row.words, row.checksum), "a header")?;
    header.resize(HEADER, 0);
    Ok(header)
}

impl IndexFolder {
    pub(crate) fn new(folder: PathBuf, memory: u64) -> Self {
        Self { folder, room: Arc::new(Room { limit: memory, used: AtomicU64::new(0) }) }
    }

    fn path(&self, name: &BodiesName) -> PathBuf {
        let collection = name.collection.as_str();
        let collection = match collection.strip_prefix('.') {
            Some(rest) => format!("{DOT}{rest}"),
            None => collection.to_owned(),
        };
        self.folder.join(collection).join(format!("{}-{}.bodies", name.group, name.revision))
    }

    /// Writes bodies durably.
    pub(crate) fn write(&self, name: &BodiesName, row: &GroupRow, words: &[u32]) -> Result<(), StorageError> {
        let header = header(name, row)?;
        let path = self.path(name);
        let folder = path.parent().unwrap_or(&self.folder);
        make_folder(&self.folder)
            .and_then(|()| make_folder(folder))
            .and_then(|()| write_once(&path.with_extension("new"), &path, &header, words))
            .map_err(|error| refused(&error, "bodies of a group"))
    }

    /// Reads bodies into memory while there is room, otherwise maps them; `None` if the file is missing or is not what was
    /// written.
    pub(crate) fn map(&self, name: &BodiesName, row: &GroupRow) -> Option<Bodies> {
        let words = usize::try_from(row.words).ok()?;
        let (path, header) = (self.path(name), header(name, row).ok()?);
        let whole = |found: &[u8], words: &[u32]| found == header && checksum(words) == row.checksum;
        if let Some(resident) = self.room.read(&path, words) {
            return whole(resident.words.header(), resident.as_ref()).then(|| Bodies::shared(Arc::new(resident)));
        }
        let mapped = MappedWords::open(&path, HEADER, words).ok()?;
        whole(mapped.header(), mapped.as_ref()).then(|| Bodies::shared(Arc::new(mapped)))
    }

    /// Removes a file. One that cannot be removed now is removed by [`keep_only`](Self::keep_only).
    pub(crate) fn remove(&self, name: &BodiesName) {
        let _ = std::fs::remove_file(self.path(name));
    }

    /// Removes every file that none of the names is for: what a crash left between a file and its transaction.
    pub(crate) fn keep_only(&self, names: &[BodiesName]) {
        let named: BTreeSet<PathBuf> = names.iter().map(|name| self.path(name)).collect();
        for path in self.files() {
            if !named.contains(&path) {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    /// Bytes of all files on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.files().filter_map(|path| bytes_on_disk(&path).ok()).sum()
    }

    fn files(&self) -> impl Iterator<Item = PathBuf> {
        let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
        entries(&self.folder).flat_map(move |collection| entries(&collection))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use veilmatch_domain::{CollectionId, Epoch, GroupId, Revision};
    use veilmatch_glwe::Layout;

    fn stored(folder: &Path, collection: &str, memory: u64) -> (IndexFolder, BodiesName, GroupRow, PathBuf) {
        let index = IndexFolder::new(folder.join("index"), memory);
        let name =
            BodiesName { collection: CollectionId::new(collection).unwrap(), group: GroupId(3), revision: Revision(1) };
        let words: Vec<u32> = (0..700).collect();
        let row = GroupRow {
            revision: name.revision,
            epoch: Epoch(0),
            layout: Layout::new(4, 1).unwrap(),
            members: Vec::new(),
            words: 700,
            checksum: checksum(&words),
        };
        index.write(&name, &row, &words).unwrap();
        assert_eq!(**index.map(&name, &row).as_ref().unwrap(), words);
        let path = index.path(&name);
        (index, name, row, path)
    }

    fn overwrite(path: &Path, bytes: &[u8]) {
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn any_flipped_bit_any_cut_and_any_other_file_is_damage() {
        for memory in [0, u64::MAX] {
            every_damage_is_found(memory);
        }
    }

    #[test]
    fn memory_is_bounded_and_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let (index, name, row, path) = stored(folder.path(), "faces", 2 * 700 * 4);
        let used = || index.room.used.load(Ordering::Relaxed);
        let two: Vec<Bodies> = (0..2).filter_map(|_| index.map(&name, &row)).collect();
        let third = index.map(&name, &row).unwrap();
        assert_eq!((two.len(), used()), (2, 2 * 700 * 4), "the third is mapped");
        assert_eq!(third, two[0]);
        drop(two);
        assert_eq!(used(), 0);
        std::fs::remove_file(path).unwrap();
        assert!(index.map(&name, &row).is_none());
        assert_eq!(used(), 0, "what could not be read takes no room");
    }

    fn every_damage_is_found(memory: u64) {
        let folder = tempfile::tempdir().unwrap();
        let (index, name, row, path) = stored(folder.path(), "faces", memory);
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(whole.len(), HEADER + 700 * 4);
        for bit in (0..whole.len() * 8).step_by(61) {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            overwrite(&path, &flipped);
            assert!(index.map(&name, &row).is_none(), "bit {bit}");
        }
        for length in [0, 1, HEADER - 1, HEADER, HEADER + 4, whole.len() - 4, whole.len() - 1] {
            overwrite(&path, &whole[..length]);
            assert!(index.map(&name, &row).is_none(), "length {length}");
        }
        overwrite(&path, &[whole.as_slice(), &[0; 4]].concat());
        assert!(index.map(&name, &row).is_none());
        overwrite(&path, &whole);
        assert!(index.map(&name, &row).is_some());
        let other = GroupRow { words: u64::MAX, ..row.clone() };
        assert!(index.map(&name, &other).is_none());
        let renamed = BodiesName { revision: Revision(2), ..name.clone() };
        std::fs::rename(&path, index.path(&renamed)).unwrap();
        assert!(index.map(&name, &row).is_none() && index.map(&renamed, &row).is_none());
    }

    #[test]
    fn no_collection_leads_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        for collection in ["..", ".", "...", ".hidden", "a:b@c"] {
            let (index, _, _, path) = stored(folder.path(), collection, 0);
            let real = path.canonicalize().unwrap();
            assert_eq!(real.parent().unwrap().parent().unwrap(), index.folder.canonicalize().unwrap(), "{collection}");
        }
    }

    #[test]
    fn what_is_not_named_goes() {
        let folder = tempfile::tempdir().unwrap();
        let (index, name, row, path) = stored(folder.path(), "faces", u64::MAX);
        let later = BodiesName { revision: Revision(2), ..name.clone() };
        index.write(&later, &row, &(0..700).collect::<Vec<u32>>()).unwrap();
        std::fs::write(path.with_extension("new"), "half a fi").unwrap();
        index.keep_only(std::slice::from_ref(&name));
        assert_eq!(index.files().collect::<Vec<_>>(), [path]);
        assert!(index.bytes() >= HEADER as u64 + 2800);
        index.remove(&name);
        assert_eq!(index.bytes(), 0);
    }
}
