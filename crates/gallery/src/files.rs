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

use veilmatch_glwe::Bodies;
use veilmatch_mapped::{MappedWords, write_once};

use crate::StorageError;
use crate::changes::checksum;
use crate::rows::{BodiesName, GroupRow, encode};

const HEADER: usize = 4096;
const MAGIC: [u8; 8] = *b"veilbody";
const FORMAT: u32 = 1;
/// What a name cannot contain, in front of a name that would otherwise be hidden or lead upwards.
const DOT: &str = "%2E";

/// The folder `index`.
#[derive(Debug)]
pub(crate) struct IndexFolder {
    folder: PathBuf,
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
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
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

    /// Maps bodies; `None` if the file is missing or is not what was written.
    pub(crate) fn map(&self, name: &BodiesName, row: &GroupRow) -> Option<Bodies> {
        let words = usize::try_from(row.words).ok()?;
        let mapped = MappedWords::open(&self.path(name), HEADER, words).ok()?;
        let whole = mapped.header() == header(name, row).ok()? && checksum(mapped.as_ref()) == row.checksum;
        whole.then(|| Bodies::shared(Arc::new(mapped)))
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

    fn stored(folder: &Path, collection: &str) -> (IndexFolder, BodiesName, GroupRow, PathBuf) {
        let index = IndexFolder::new(folder.join("index"));
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
        let folder = tempfile::tempdir().unwrap();
        let (index, name, row, path) = stored(folder.path(), "faces");
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
            let (index, _, _, path) = stored(folder.path(), collection);
            let real = path.canonicalize().unwrap();
            assert_eq!(real.parent().unwrap().parent().unwrap(), index.folder.canonicalize().unwrap(), "{collection}");
        }
    }

    #[test]
    fn what_is_not_named_goes() {
        let folder = tempfile::tempdir().unwrap();
        let (index, name, row, path) = stored(folder.path(), "faces");
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
