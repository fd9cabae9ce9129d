//! The audit log on disk: append-only, hash-chained, synced before anything that it announces leaves the holder.
//!
//! A folder holds segments, `000000000000.log` and so on, each named after the sequence number of its first entry. A
//! segment is a row of frames:
//!
//! ```text
//! length of the entry 4 | check of sequence and length 4 | the entry in borsh
//! ```
//!
//! The entry's own hash covers its content and the entry before it. The check covers the length: without it a damaged
//! length would look like an entry that was cut off.
//!
//! **What is found.** Every altered, removed, reordered or duplicated entry and every missing segment, by its sequence
//! number ([`verify`]). Entries removed from the end are found only by somebody who knows a later head, so operators
//! keep heads elsewhere and pass the latest one to [`verify`]. The hashes have no key: against an attacker who rewrites
//! the log from some entry on, too, only a known head helps.
//!
//! **After a crash.** [`AuditFile::open`] cuts off what was not completely written: a last frame that ends early, or a
//! tail of zeros, which is what file systems leave of a file that grew without its content. It had not been
//! acknowledged. Anything else is [`AuditError::Damaged`] and is left for a person to look at.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use veilmatch_domain::{Explain, Status};
use veilmatch_holder::AuditEntry;
use veilmatch_secret::{Digest, Hasher};

use crate::fs::{self, FileError};

#[cfg(test)]
mod tests;

/// A segment that has this many bytes is followed by a new one.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Most bytes of one entry; real ones have a few hundred, outcomes of 64 subjects about 5,000.
const MAX_ENTRY_BYTES: usize = 1 << 20;
const HEADER_BYTES: usize = 8;

/// What can happen to an audit log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// A file or folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process appends to this log.
    #[error("another process has the audit log {} open", folder.display())]
    InUse {
        /// The log.
        folder: PathBuf,
    },
    /// The disk is full. Nothing of the batch remains; appending continues when there is room.
    #[error("no space is left for the audit log {}", folder.display())]
    Full {
        /// The log.
        folder: PathBuf,
    },
    /// The log was changed or damaged at this entry.
    #[error("the audit log is broken at entry {sequence} ({reason}): {} at byte {offset}", file.display())]
    Damaged {
        /// The first entry that is not as it was written.
        sequence: u64,
        /// The segment.
        file: PathBuf,
        /// Where in the segment.
        offset: u64,
        /// How it shows.
        reason: &'static str,
    },
    /// Entries are missing at the end.
    #[error("the audit log ends before entry {expected}: entries {found} and later were removed")]
    Truncated {
        /// Sequence number of the expected head.
        expected: u64,
        /// How many entries there are.
        found: u64,
    },
    /// The whole chain is sound but is not the one that the expected head belongs to.
    #[error("entry {sequence} of the audit log is not the expected one: the log was written anew")]
    Rewritten {
        /// Sequence number of the expected head.
        sequence: u64,
    },
    /// The entries to append do not continue the log.
    #[error("entry {found} does not continue the audit log, whose next entry is {expected}")]
    OutOfOrder {
        /// The log's next sequence number.
        expected: u64,
        /// The entry's.
        found: u64,
    },
    /// An entry has more bytes than the log can hold.
    #[error("entry {sequence} has {bytes} bytes; at most {MAX_ENTRY_BYTES} are allowed")]
    TooLong {
        /// The entry's sequence number.
        sequence: u64,
        /// Its length.
        bytes: usize,
    },
}

impl Explain for AuditError {
    fn code(&self) -> &'static str {
        match self {
            Self::File(e) => e.code(),
            Self::InUse { .. } => "audit-in-use",
            Self::Full { .. } => "storage-full",
            Self::Damaged { .. } => "audit-damaged",
            Self::Truncated { .. } => "audit-truncated",
            Self::Rewritten { .. } => "audit-rewritten",
            Self::OutOfOrder { .. } => "audit-out-of-order",
            Self::TooLong { .. } => "audit-entry-too-long",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::File(e) => e.status(),
            Self::InUse { .. } | Self::OutOfOrder { .. } | Self::TooLong { .. } => Status::FailedPrecondition,
            Self::Full { .. } => Status::ResourceExhausted,
            Self::Damaged { .. } | Self::Truncated { .. } | Self::Rewritten { .. } => Status::DataLoss,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::File(e) => e.advice(),
            Self::InUse { .. } => "stop the other key holder process, or give this one its own data folder",
            Self::Full { .. } => "make room on the disk or raise the quota; nothing needs to be repaired afterwards",
            Self::Damaged { .. } | Self::Truncated { .. } | Self::Rewritten { .. } => {
                "keep the folder as evidence, compare it with a backup, find out who had access to it"
            }
            Self::OutOfOrder { .. } => "restart the key holder, so that it continues from the log on disk",
            Self::TooLong { .. } => "report this: no entry should be that long",
        }
    }
}

/// What [`verify`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Entries, all sound.
    pub entries: u64,
    /// Segments.
    pub segments: u64,
    /// Bytes in sound entries.
    pub bytes: u64,
    /// Bytes after the last entry that are not an entry yet: a write that is under way or was interrupted.
    pub unfinished_bytes: u64,
    /// Sequence number and hash of the last entry; keep it elsewhere.
    pub head: Option<(u64, Digest)>,
}

fn frame_check(sequence: u64, length: u32) -> [u8; 4] {
    let [a, b, c, d, ..] = Hasher::new("veilmatch/audit/frame/1").number(sequence).number(length.into()).finish().0;
    [a, b, c, d]
}

fn push_frame(batch: &mut Vec<u8>, entry: &AuditEntry) -> Result<(), AuditError> {
    let header = batch.len();
    batch.extend([0; HEADER_BYTES]);
    let too_long = |bytes| AuditError::TooLong { sequence: entry.sequence, bytes };
    borsh::to_writer(&mut *batch, entry).map_err(|_| too_long(usize::MAX))?;
    let bytes = batch.len() - header - HEADER_BYTES;
    let length = u32::try_from(bytes).ok().filter(|_| bytes <= MAX_ENTRY_BYTES).ok_or(too_long(bytes))?;
    let fields = length.to_le_bytes().into_iter().chain(frame_check(entry.sequence, length));
    for (to, from) in batch.iter_mut().skip(header).zip(fields) {
        *to = from;
    }
    Ok(())
}

/// The segments of a folder with the sequence numbers of their first entries, in order.
fn segments(folder: &Path) -> Result<Vec<(u64, PathBuf)>, AuditError> {
    let failed = |e| FileError::from_io("list", folder, e);
    let mut found = Vec::new();
    for item in std::fs::read_dir(folder).map_err(failed)? {
        let path = item.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".log"));
        if let Some(first) = name.filter(|n| n.len() >= 12).and_then(|n| n.parse().ok()) {
            found.push((first, path));
        }
    }
    found.sort();
    Ok(found)
}

/// How reading a segment goes on.
enum Step {
    Entry(Box<AuditEntry>),
    /// The segment ends after a whole entry.
    End,
    /// It ends within one, or in zeros.
    Unfinished,
}

/// Reads the frames of one segment, checking each against the one before it.
struct Segment {
    reader: BufReader<File>,
    file: PathBuf,
    /// Where the next frame begins.
    offset: u64,
    next: u64,
    /// The last entry read, of this segment or an earlier one. Without it the first entry is taken as it is.
    previous: Option<AuditEntry>,
}

impl Segment {
    /// A segment whose first entry must follow `previous`. Without one, the first entry of the log is checked against its
    /// beginning, and that of a later segment is taken as it is.
    fn open(file: &Path, first: u64, previous: Option<AuditEntry>) -> Result<Self, AuditError> {
        let opened = File::open(file).map_err(|e| FileError::from_io("open", file, e))?;
        let reader = BufReader::with_capacity(1 << 16, opened);
        Ok(Self { reader, file: file.to_owned(), offset: 0, next: first, previous })
    }

    fn damaged(&self, reason: &'static str) -> AuditError {
        AuditError::Damaged { sequence: self.next, file: self.file.clone(), offset: self.offset, reason }
    }

    /// Reads until the buffer is full or the file ends; says how much was read.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, AuditError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.reader.read(rest) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(FileError::from_io("read", &self.file, e).into()),
            }
        }
        Ok(filled)
    }

    /// Whether nothing but zeros is left.
    fn zeros_to_the_end(&mut self) -> Result<bool, AuditError> {
        let mut buffer = [0; 4096];
        loop {
            let read = self.fill(&mut buffer)?;
            if read == 0 {
                return Ok(true);
            }
            if buffer.iter().take(read).any(|&byte| byte != 0) {
                return Ok(false);
            }
        }
    }

    fn step(&mut self) -> Result<Step, AuditError> {
        let mut header = [0; HEADER_BYTES];
        match self.fill(&mut header)? {
            0 => return Ok(Step::End),
            HEADER_BYTES => {}
            _ => return Ok(Step::Unfinished),
        }
        let [l0, l1, l2, l3, check @ ..] = header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        if header == [0; HEADER_BYTES] && self.zeros_to_the_end()? {
            return Ok(Step::Unfinished);
        }
        if check != frame_check(self.next, length) || length as usize > MAX_ENTRY_BYTES {
            return Err(self.damaged("its frame is altered or belongs to another entry"));
        }
        let mut bytes = vec![0; length as usize];
        if self.fill(&mut bytes)? < bytes.len() {
            return Ok(Step::Unfinished);
        }
        let entry: AuditEntry = borsh::from_slice(&bytes).map_err(|_| self.damaged("it does not decode"))?;
        let begins_unanchored = self.previous.is_none() && self.next > 0;
        if entry.sequence != self.next || !(begins_unanchored || entry.follows(self.previous.as_ref())) {
            return Err(self.damaged("its hash is wrong or does not cover the entry before it"));
        }
        self.offset += (HEADER_BYTES + bytes.len()) as u64;
        self.next += 1;
        self.previous = Some(entry.clone());
        Ok(Step::Entry(Box::new(entry)))
    }

    /// Reads to the end. Says how many bytes are unfinished.
    fn run(&mut self) -> Result<u64, AuditError> {
        loop {
            match self.step()? {
                Step::Entry(_) => {}
                Step::End => return Ok(0),
                Step::Unfinished => {
                    let length =
                        self.reader.get_ref().metadata().map_err(|e| FileError::from_io("read", &self.file, e))?;
                    return Ok(length.len().saturating_sub(self.offset));
                }
            }
        }
    }
}

/// Entries of a log, oldest first, one in memory at a time.
///
/// Each is checked against the one before it; the first one of a segment in the middle of the log, where reading began,
/// is taken as it is. A write that is under way ends the iteration.
pub struct Entries {
    /// The next segment last.
    left: Vec<(u64, PathBuf)>,
    segment: Option<Segment>,
    from: u64,
    /// Entries from here on are not shown.
    end: u64,
}

impl std::fmt::Debug for Entries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entries(from {})", self.from)
    }
}

impl Entries {
    fn advance(&mut self) -> Result<Option<AuditEntry>, AuditError> {
        loop {
            let Some(segment) = &mut self.segment else {
                let Some((first, file)) = self.left.pop() else { return Ok(None) };
                self.segment = Some(Segment::open(&file, first, None)?);
                continue;
            };
            match segment.step()? {
                Step::Entry(entry) if entry.sequence >= self.end => return Ok(None),
                Step::Entry(entry) if entry.sequence >= self.from => return Ok(Some(*entry)),
                Step::Entry(_) => {}
                Step::End => match self.left.pop() {
                    None => return Ok(None),
                    Some((first, _)) if first != segment.next => return Err(segment.damaged("its segment is missing")),
                    Some((first, file)) => {
                        *segment = Segment::open(&file, first, segment.previous.take())?;
                    }
                },
                Step::Unfinished if self.left.is_empty() => return Ok(None),
                Step::Unfinished => return Err(segment.damaged("its segment ends within it")),
            }
        }
    }
}

impl Iterator for Entries {
    type Item = Result<AuditEntry, AuditError>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.advance().transpose();
        if !matches!(result, Some(Ok(_))) {
            // Nothing comes after the end or an error.
            (self.segment, self.left) = (None, Vec::new());
        }
        result
    }
}

/// The entries of the log in a folder, from one on; works while its holder runs.
///
/// # Errors
/// [`AuditError::File`]; the iterator yields [`AuditError::Damaged`] where it meets it.
pub fn read_from(folder: &Path, sequence: u64) -> Result<Entries, AuditError> {
    let mut left = segments(folder)?;
    let begin = left.iter().rposition(|(first, _)| *first <= sequence).unwrap_or(0);
    left.drain(..begin);
    left.reverse();
    Ok(Entries { left, segment: None, from: sequence, end: u64::MAX })
}

/// Checks the whole log in a folder without changing it; works while its holder runs. (If the disk fills up at that very
/// moment, an append that is taken back can look like damage: then check again.)
///
/// # Errors
/// [`AuditError::Damaged`] with the first entry that is not as it was written; [`AuditError::Truncated`] and
/// [`AuditError::Rewritten`] if `expected`, a head that was seen earlier, is not in the log; [`AuditError::File`].
pub fn verify(folder: &Path, expected: Option<(u64, Digest)>) -> Result<Summary, AuditError> {
    let all = segments(folder)?;
    let mut summary = Summary { entries: 0, segments: all.len() as u64, bytes: 0, unfinished_bytes: 0, head: None };
    let mut found = None;
    let mut previous = None;
    for (i, (first, file)) in all.iter().enumerate() {
        let mut segment = Segment::open(file, summary.entries, previous.take())?;
        if *first != segment.next {
            return Err(segment.damaged("its segment is missing"));
        }
        loop {
            match segment.step()? {
                Step::Entry(entry) if expected.is_some_and(|(sequence, _)| sequence == entry.sequence) => {
                    found = Some(entry.hash);
                }
                Step::Entry(_) => {}
                Step::End => break,
                Step::Unfinished if i + 1 == all.len() => {
                    let length = std::fs::metadata(file).map_err(|e| FileError::from_io("read", file, e))?.len();
                    summary.unfinished_bytes = length.saturating_sub(segment.offset);
                    break;
                }
                Step::Unfinished => return Err(segment.damaged("its segment ends within it")),
            }
        }
        summary.bytes += segment.offset;
        summary.entries = segment.next;
        previous = segment.previous;
    }
    summary.head = previous.map(|entry| (entry.sequence, entry.hash));
    match (expected, found) {
        (Some((sequence, hash)), Some(found)) if found != hash => Err(AuditError::Rewritten { sequence }),
        (Some((expected, _)), None) => Err(AuditError::Truncated { expected, found: summary.entries }),
        _ => Ok(summary),
    }
}

/// The log that this process appends to.
#[derive(Debug)]
pub struct AuditFile {
    folder: PathBuf,
    /// Held as long as the log is open.
    _lock: File,
    last: Option<AuditEntry>,
    path: PathBuf,
    file: File,
    /// Bytes of acknowledged entries in the last segment.
    length: u64,
    /// Bytes may follow that were never acknowledged.
    unclean: bool,
    healed: u64,
    segment_bytes: u64,
}

impl AuditFile {
    /// Opens the log in a folder, or begins one. Checks the last segment and its link to the one before, and cuts off
    /// what a crash left unfinished.
    ///
    /// # Errors
    /// [`AuditError::Damaged`], [`AuditError::InUse`], [`AuditError::File`].
    pub fn open(folder: &Path) -> Result<Self, AuditError> {
        Self::open_with(folder, SEGMENT_BYTES)
    }

    fn open_with(folder: &Path, segment_bytes: u64) -> Result<Self, AuditError> {
        fs::private_folder(folder)?;
        let lock_path = folder.join("lock");
        let lock = fs::open_private(&lock_path)?;
        lock.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => AuditError::InUse { folder: folder.to_owned() },
            std::fs::TryLockError::Error(e) => FileError::from_io("lock", &lock_path, e).into(),
        })?;
        let mut all = segments(folder)?;
        let (first, path) = all.pop().unwrap_or_else(|| (0, segment_path(folder, 0)));
        let previous = match all.pop() {
            Some((before, file)) => {
                let mut segment = Segment::open(&file, before, None)?;
                if segment.run()? > 0 {
                    return Err(segment.damaged("its segment ends within it"));
                }
                if segment.next != first {
                    return Err(segment.damaged("its segment is missing"));
                }
                segment.previous
            }
            None if first > 0 => {
                let (file, reason) = (segment_path(folder, 0), "its segment is missing");
                return Err(AuditError::Damaged { sequence: 0, file, offset: 0, reason });
            }
            None => None,
        };
        let file = fs::open_private(&path)?;
        let mut segment = Segment::open(&path, first, previous)?;
        let healed = segment.run()?;
        let (length, last) = (segment.offset, segment.previous);
        let folder = folder.to_owned();
        let mut log =
            Self { folder, _lock: lock, last, path, file, length, unclean: healed > 0, healed, segment_bytes };
        log.cut()?;
        Ok(log)
    }

    /// Bytes of an unfinished write that opening cut off.
    #[must_use]
    pub fn healed_bytes(&self) -> u64 {
        self.healed
    }

    /// Sequence number and hash of the last entry.
    #[must_use]
    pub fn head(&self) -> Option<(u64, Digest)> {
        self.last.as_ref().map(|entry| (entry.sequence, entry.hash))
    }

    /// Appends a batch with one write and one sync. When it returns, the batch survives a crash.
    ///
    /// # Errors
    /// [`AuditError::OutOfOrder`] and [`AuditError::TooLong`] before anything is written; [`AuditError::Full`] and
    /// [`AuditError::File`]: nothing of the batch counts, and what was written of it is cut off, at the latest before the
    /// next append.
    pub fn append(&mut self, entries: &[AuditEntry]) -> Result<(), AuditError> {
        let Some(new_last) = entries.last() else { return Ok(()) };
        let mut batch = Vec::with_capacity(entries.len() * 256);
        let mut previous = self.last.as_ref();
        for entry in entries {
            if !entry.follows(previous) {
                let expected = previous.map_or(0, |entry| entry.sequence.saturating_add(1));
                return Err(AuditError::OutOfOrder { expected, found: entry.sequence });
            }
            push_frame(&mut batch, entry)?;
            previous = Some(entry);
        }
        self.cut()?;
        if self.length >= self.segment_bytes {
            self.rotate()?;
        }
        self.unclean = true;
        if let Err(e) = self.file.write_all_at(&batch, self.length).and_then(|()| self.file.sync_data()) {
            // A sync that failed may have dropped pages: they are cut off and written again, never taken for granted.
            let error = self.failed("append to", e);
            // If this fails too, the next append tries it first.
            let _ = self.cut();
            return Err(error);
        }
        self.unclean = false;
        self.length += batch.len() as u64;
        self.last = Some(new_last.clone());
        Ok(())
    }

    /// The acknowledged entries from one on.
    ///
    /// # Errors
    /// [`AuditError::File`]; the iterator yields [`AuditError::Damaged`] where it meets it.
    pub fn read_from(&self, sequence: u64) -> Result<Entries, AuditError> {
        let mut entries = read_from(&self.folder, sequence)?;
        entries.end = self.last.as_ref().map_or(0, |entry| entry.sequence.saturating_add(1));
        Ok(entries)
    }

    /// Removes what follows the acknowledged entries.
    fn cut(&mut self) -> Result<(), AuditError> {
        if self.unclean {
            self.file
                .set_len(self.length)
                .and_then(|()| self.file.sync_all())
                .map_err(|e| self.failed("cut off the end of", e))?;
            self.unclean = false;
        }
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), AuditError> {
        let first = self.last.as_ref().map_or(0, |entry| entry.sequence.saturating_add(1));
        let path = segment_path(&self.folder, first);
        self.file = fs::open_private(&path)?;
        self.path = path;
        self.length = 0;
        Ok(())
    }

    fn failed(&self, action: &'static str, error: std::io::Error) -> AuditError {
        if fs::is_full(&error) {
            return AuditError::Full { folder: self.folder.clone() };
        }
        FileError::from_io(action, &self.path, error).into()
    }
}

fn segment_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:012}.log"))
}
