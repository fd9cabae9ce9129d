//! The packed index on disk: one file of bodies per revision of a group, `<collection>/<group>-<revision>.bodies`, and a
//! second one, `….cold`, if the group lies in two segments (DESIGN 6).
//!
//! Memory of our own is for what every search reads: bodies in one segment and hot ones. Cold ones are read into memory
//! only where the whole index fits; otherwise they stay in their files, and the page cache has what candidates need.
//!
//! A file is a header of one page and the words behind it, so that they are page-aligned in a map. The header says
//! what the file is; whether it is the right one and undamaged is for the database to say, so it is compared with the
//! header that the row asks for. Nothing here is precious: what is lost is built again from the sealed templates.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use veilmatch_glwe::{Bodies, ColdBodies, PackedGroup, Segments};
use veilmatch_mapped::{MappedWords, ResidentWords, write_once};

use crate::StorageError;
use crate::changes::checksum;
use crate::rows::{BodiesName, GroupRow, encode};

const HEADER: usize = 4096;
const MAGIC: [u8; 8] = *b"veilbody";
// 2: residues in the order of the scan, in one segment. Files of another format are built again.
const FORMAT: u32 = 2;
// Either file of a group in two segments.
const FORMAT_SEGMENTED: u32 = 3;
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

/// Where bodies are cut: the first cold block, and the words in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    from: u64,
    hot: u64,
}

/// Which file of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Segment {
    Whole,
    Hot(Cut),
    Cold(Cut),
}

fn header(name: &BodiesName, row: &GroupRow, segment: Segment) -> Result<Vec<u8>, StorageError> {
    let what = "a header";
    let mut header = match segment {
        Segment::Whole => encode(&(MAGIC, FORMAT, name, row.words, row.checksum), what)?,
        Segment::Hot(Cut { from, hot }) => {
            encode(&(MAGIC, FORMAT_SEGMENTED, name, row.words, row.checksum, from, hot, false), what)?
        }
        Segment::Cold(Cut { from, hot }) => {
            encode(&(MAGIC, FORMAT_SEGMENTED, name, row.words, row.checksum, from, hot, true), what)?
        }
    };
    header.resize(HEADER, 0);
    Ok(header)
}

/// Where the bodies of a file are cut, by its header: `None` if it holds all of them. What it says is checked with the
/// whole header and the checksum afterwards.
fn read_cut(path: &Path, name: &BodiesName, row: &GroupRow) -> Option<Option<Cut>> {
    let mut found = [0u8; HEADER];
    File::open(path).ok()?.read_exact(&mut found).ok()?;
    if found.as_slice() == header(name, row, Segment::Whole).ok()? {
        return Some(None);
    }
    let prefix = encode(&(MAGIC, FORMAT_SEGMENTED, name, row.words, row.checksum), "a header").ok()?;
    let (from, rest) = found.strip_prefix(prefix.as_slice())?.split_first_chunk::<8>()?;
    let (hot, _) = rest.split_first_chunk::<8>()?;
    Some(Some(Cut { from: u64::from_le_bytes(*from), hot: u64::from_le_bytes(*hot) }))
}

/// The words of a file, and the header that they came with.
struct Words {
    header: Vec<u8>,
    bodies: Bodies,
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

    fn cold_path(&self, name: &BodiesName) -> PathBuf {
        self.path(name).with_extension("cold")
    }

    /// Writes bodies durably.
    pub(crate) fn write(&self, name: &BodiesName, row: &GroupRow, packed: &PackedGroup) -> Result<(), StorageError> {
        let path = self.path(name);
        let folder = path.parent().unwrap_or(&self.folder);
        let failed = |error: io::Error| refused(&error, "bodies of a group");
        make_folder(&self.folder).and_then(|()| make_folder(folder)).map_err(failed)?;
        let mut segment = Segment::Whole;
        if let Some(cold) = &packed.cold {
            let cut = Cut { from: cold.from as u64, hot: packed.bodies.len() as u64 };
            segment = Segment::Hot(cut);
            let (cold_path, header) = (self.cold_path(name), header(name, row, Segment::Cold(cut))?);
            write_once(&cold_path.with_extension("new"), &cold_path, &header, &cold.bodies).map_err(failed)?;
        }
        let header = header(name, row, segment)?;
        write_once(&path.with_extension("new"), &path, &header, &packed.bodies).map_err(failed)
    }

    /// Whether all of the index has room in memory.
    pub(crate) fn fits(&self) -> bool {
        self.bytes() <= self.room.limit
    }

    /// Reads bodies into memory while there is room, otherwise maps them; cold ones are read into memory only if
    /// `cold_too`. `None` if a file is missing or is not what was written.
    pub(crate) fn map(&self, name: &BodiesName, row: &GroupRow, cold_too: bool) -> Option<Segments> {
        let path = self.path(name);
        let Some(cut) = read_cut(&path, name, row)? else {
            let words = self.words(&path, usize::try_from(row.words).ok()?, true)?;
            let whole = words.header == header(name, row, Segment::Whole).ok()?
                && checksum(&words.bodies, None) == row.checksum;
            return whole.then_some((words.bodies, None));
        };
        let cold_words = usize::try_from(row.words.checked_sub(cut.hot)?).ok()?;
        let hot = self.words(&path, usize::try_from(cut.hot).ok()?, true)?;
        let cold = self.words(&self.cold_path(name), cold_words, cold_too)?;
        let from = usize::try_from(cut.from).ok()?;
        let whole = hot.header == header(name, row, Segment::Hot(cut)).ok()?
            && cold.header == header(name, row, Segment::Cold(cut)).ok()?
            && checksum(&hot.bodies, Some((from, &cold.bodies))) == row.checksum;
        whole.then_some((hot.bodies, Some(ColdBodies { from, bodies: cold.bodies })))
    }

    fn words(&self, path: &Path, words: usize, resident: bool) -> Option<Words> {
        if resident && let Some(resident) = self.room.read(path, words) {
            let header = resident.words.header().to_vec();
            return Some(Words { header, bodies: Bodies::shared(Arc::new(resident)) });
        }
        let mapped = MappedWords::open(path, HEADER, words).ok()?;
        let header = mapped.header().to_vec();
        Some(Words { header, bodies: Bodies::shared(Arc::new(mapped)) })
    }

    /// Removes a group's files. One that cannot be removed now is removed by [`keep_only`](Self::keep_only).
    pub(crate) fn remove(&self, name: &BodiesName) {
        let _ = std::fs::remove_file(self.path(name));
        let _ = std::fs::remove_file(self.cold_path(name));
    }

    /// Removes every file that none of the names is for: what a crash left between a file and its transaction.
    pub(crate) fn keep_only(&self, names: &[BodiesName]) {
        let named: BTreeSet<PathBuf> = names.iter().flat_map(|name| [self.path(name), self.cold_path(name)]).collect();
        // Listed first: what a listing shows of a folder that changes meanwhile is the file system's choice.
        let found: Vec<PathBuf> = self.files().collect();
        for path in found {
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

    /// 700 words, in one segment or cut behind the first `hot`.
    fn packed(hot: Option<usize>) -> PackedGroup {
        let words: Vec<u32> = (0..700).collect();
        let (first, others) = words.split_at(hot.unwrap_or(700));
        let cold = hot.map(|_| ColdBodies { from: 2, bodies: others.to_vec().into() });
        PackedGroup {
            group: GroupId(3),
            revision: Revision(1),
            epoch: Epoch(0),
            layout: Layout::new(4, 1).unwrap(),
            bodies: first.to_vec().into(),
            cold,
        }
    }

    fn stored(folder: &Path, collection: &str, memory: u64) -> (IndexFolder, BodiesName, GroupRow, PathBuf) {
        stored_in(folder, collection, memory, None)
    }

    fn stored_in(
        folder: &Path,
        collection: &str,
        memory: u64,
        hot: Option<usize>,
    ) -> (IndexFolder, BodiesName, GroupRow, PathBuf) {
        let index = IndexFolder::new(folder.join("index"), memory);
        let name =
            BodiesName { collection: CollectionId::new(collection).unwrap(), group: GroupId(3), revision: Revision(1) };
        let packed = packed(hot);
        let row = GroupRow {
            revision: name.revision,
            epoch: Epoch(0),
            layout: Layout::new(4, 1).unwrap(),
            members: Vec::new(),
            words: 700,
            checksum: checksum(&packed.bodies, packed.cold.as_ref().map(|cold| (cold.from, &*cold.bodies))),
        };
        index.write(&name, &row, &packed).unwrap();
        assert_eq!(index.map(&name, &row, true), Some((packed.bodies, packed.cold)));
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
        let two: Vec<Segments> = (0..2).filter_map(|_| index.map(&name, &row, true)).collect();
        let third = index.map(&name, &row, true).unwrap();
        assert_eq!((two.len(), used()), (2, 2 * 700 * 4), "the third is mapped");
        assert_eq!(third, two[0]);
        drop(two);
        assert_eq!(used(), 0);
        std::fs::remove_file(path).unwrap();
        assert!(index.map(&name, &row, true).is_none());
        assert_eq!(used(), 0, "what could not be read takes no room");
    }

    #[test]
    fn of_two_segments_the_hot_one_has_the_memory_and_damage_in_either_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (index, name, row, path) = stored_in(folder.path(), "faces", 700 * 4, Some(300));
        let cold_path = path.with_extension("cold");
        let used = || index.room.used.load(Ordering::Relaxed);
        assert_eq!(used(), 0);
        let mapped = index.map(&name, &row, false).unwrap();
        assert_eq!(used(), 300 * 4, "the cold words stay in their file");
        let words = mapped.clone();
        drop(mapped);
        assert_eq!(used(), 300 * 4, "a clone shares them");
        drop(words);
        let whole = index.map(&name, &row, true).unwrap();
        assert_eq!(used(), 700 * 4, "all of them have room");
        drop(whole);
        assert_eq!(used(), 0);
        for file in [&path, &cold_path] {
            let bytes = std::fs::read(file).unwrap();
            for bit in (0..bytes.len() * 8).step_by(61) {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                overwrite(file, &flipped);
                assert!(index.map(&name, &row, true).is_none(), "bit {bit}");
            }
            overwrite(file, &bytes[..bytes.len() - 4]);
            assert!(index.map(&name, &row, true).is_none());
            overwrite(file, &bytes);
            assert!(index.map(&name, &row, true).is_some());
        }
        // Neither file passes for the other, nor for a group in one segment.
        let (hot, cold) = (std::fs::read(&path).unwrap(), std::fs::read(&cold_path).unwrap());
        overwrite(&path, &cold);
        overwrite(&cold_path, &hot);
        assert!(index.map(&name, &row, true).is_none());
        std::fs::remove_file(&cold_path).unwrap();
        overwrite(&path, &hot);
        assert!(index.map(&name, &row, true).is_none());
        std::fs::write(&cold_path, &cold).unwrap();
        index.keep_only(std::slice::from_ref(&name));
        assert_eq!(index.files().count(), 2);
        index.remove(&name);
        assert_eq!(index.bytes(), 0);
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
            assert!(index.map(&name, &row, true).is_none(), "bit {bit}");
        }
        for length in [0, 1, HEADER - 1, HEADER, HEADER + 4, whole.len() - 4, whole.len() - 1] {
            overwrite(&path, &whole[..length]);
            assert!(index.map(&name, &row, true).is_none(), "length {length}");
        }
        overwrite(&path, &[whole.as_slice(), &[0; 4]].concat());
        assert!(index.map(&name, &row, true).is_none());
        overwrite(&path, &whole);
        assert!(index.map(&name, &row, true).is_some());
        let other = GroupRow { words: u64::MAX, ..row.clone() };
        assert!(index.map(&name, &other, true).is_none());
        let renamed = BodiesName { revision: Revision(2), ..name.clone() };
        std::fs::rename(&path, index.path(&renamed)).unwrap();
        assert!(index.map(&name, &row, true).is_none() && index.map(&renamed, &row, true).is_none());
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
        index.write(&later, &row, &packed(None)).unwrap();
        std::fs::write(path.with_extension("new"), "half a fi").unwrap();
        index.keep_only(std::slice::from_ref(&name));
        assert_eq!(index.files().collect::<Vec<_>>(), [path]);
        assert!(index.bytes() >= HEADER as u64 + 2800);
        index.remove(&name);
        assert_eq!(index.bytes(), 0);
    }
}
