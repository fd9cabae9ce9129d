//! Files: embeddings, labels and pairs. Everything is checked here; errors name file and row, never a value.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use veilmatch_domain::{Embedding, EmbeddingError, Explain, IdentifierError, Status, SubjectId};

use veilmatch_evaluation::fair;
use veilmatch_preselect::FileError;

use crate::npy::{self, NpyError};

/// Longest label in bytes.
pub const MAX_LABEL: usize = 1024;
/// Folds that are made where the file has none.
pub const DEFAULT_FOLDS: u32 = 10;
/// Longest file of pairs of images that is read.
const MAX_PAIRS_FILE: u64 = 64 << 20;
/// Most lines of a table.
const MAX_LINES: usize = npy::MAX_ROWS;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// The file cannot be opened.
    #[error("{}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Not a matrix of embeddings.
    #[error("{}: {source}", path.display())]
    Npy {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: NpyError,
    },
    /// A row that is not an embedding.
    #[error("{}: row {row}: {source}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The row, counted from 0.
        row: usize,
        /// What is wrong.
        source: EmbeddingError,
    },
    /// A table that cannot be read.
    #[error("{}: line {line}: {problem}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1; the header is line 1.
        line: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// A table names a row that the embeddings do not have.
    #[error("{}: line {line}: there is no row {row}; the embeddings have {rows}", path.display())]
    RowOutOfRange {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// The row that it names.
        row: usize,
        /// How many there are.
        rows: usize,
    },
    /// The row that is asked for is not there.
    #[error("{}: there is no row {row}; the matrix has {rows}", path.display())]
    NoSuchRow {
        /// The file.
        path: PathBuf,
        /// The row that is asked for, counted from 0.
        row: usize,
        /// How many there are.
        rows: usize,
    },
    /// A label that cannot be a person's id.
    #[error("{}: the label of row {row}: {source}", path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// The row that it belongs to.
        row: usize,
        /// What is wrong.
        source: IdentifierError,
    },
    /// An id of a table of photos that is none.
    #[error("{}: line {line}: the id: {source}", path.display())]
    Identifier {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong.
        source: IdentifierError,
    },
    /// A folder of photos whose name cannot be a person's id.
    #[error("{}: the folder's name as an id: {source}", path.display())]
    FolderName {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        source: IdentifierError,
    },
    /// A folder without photos.
    #[error("{}: no photos (JPEG, PNG, WebP) where they were looked for", path.display())]
    NoPhotos {
        /// The folder.
        path: PathBuf,
    },
    /// Not a rotation.
    #[error("{}: {source}", path.display())]
    Rotation {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: FileError,
    },
    /// Not a transform.
    #[error("{}: {source}", path.display())]
    Transform {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: fair::FileError,
    },
    /// A table has no column of this name.
    #[error("{}: there is no column {column:?}", path.display())]
    NoSuchColumn {
        /// The file.
        path: PathBuf,
        /// The column that is asked for.
        column: String,
    },
    /// A cell that does not hold what its column should.
    #[error("{}: {problem}", path.display())]
    Cell {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// Nobody has two rows, so nobody can be enrolled and ask.
    #[error("{}: no label has two rows", path.display())]
    NoMatedPeople {
        /// The file.
        path: PathBuf,
    },
    /// Fewer than three people: no gallery of two and a stranger.
    #[error("{}: at least three different labels are needed", path.display())]
    TooFewPeople {
        /// The file.
        path: PathBuf,
    },
    /// A fold cannot be evaluated.
    #[error("{}: at least two folds are needed, and mated and non-mated pairs outside each of them", path.display())]
    TooFewPairs {
        /// The file.
        path: PathBuf,
    },
}

impl Explain for InputError {
    fn code(&self) -> &'static str {
        match self {
            Self::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => "no-such-file",
            Self::Open { .. } => "cannot-read",
            Self::Npy { source, .. } => source.code(),
            Self::Row { source, .. } => source.code(),
            Self::Rotation { source, .. } => source.code(),
            Self::Transform { source, .. } => source.code(),
            Self::NoSuchColumn { .. } => "no-such-column",
            Self::Table { .. } | Self::Cell { .. } => "bad-csv",
            Self::RowOutOfRange { .. } | Self::NoSuchRow { .. } => "row-out-of-range",
            Self::Label { source, .. } | Self::Identifier { source, .. } | Self::FolderName { source, .. } => {
                source.code()
            }
            Self::NoPhotos { .. } => "no-photos",
            Self::NoMatedPeople { .. } | Self::TooFewPeople { .. } => "too-few-people",
            Self::TooFewPairs { .. } => "too-few-pairs",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::Open { .. } => Status::NotFound,
            Self::Npy { source, .. } => source.status(),
            Self::Rotation { source, .. } => source.status(),
            Self::Transform { source, .. } => source.status(),
            _ => Status::InvalidArgument,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::Open { .. } => "check the path and its permissions",
            Self::Npy { source, .. } => source.advice(),
            Self::Rotation { source, .. } => source.advice(),
            Self::Transform { source, .. } => source.advice(),
            Self::NoSuchColumn { .. } => "name a column of the table's first line; see --help",
            Self::Row { source: EmbeddingError::NotUnit, .. } => {
                "divide each row by its L2 norm, or let --normalize do it"
            }
            Self::Row { source, .. } => source.advice(),
            Self::Table { .. } | Self::Cell { .. } => "see --help for the columns",
            Self::RowOutOfRange { .. } => "rows count from 0; check that the table belongs to these embeddings",
            Self::NoSuchRow { .. } => "rows count from 0",
            Self::Label { source, .. } | Self::Identifier { source, .. } | Self::FolderName { source, .. } => {
                source.advice()
            }
            Self::NoPhotos { .. } => "for many people: one folder for each, named after the id, with the photos in it",
            Self::NoMatedPeople { .. } => "a demonstration needs a second image of at least one person",
            Self::TooFewPeople { .. } => "add people, or leave the files out to use synthetic ones",
            Self::TooFewPairs { .. } => "add pairs or merge folds",
        }
    }
}

/// A pair of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The fold that it belongs to.
    pub fold: u32,
    /// The row that is enrolled.
    pub a: usize,
    /// The row that is the probe.
    pub b: usize,
    /// Whether both show the same person.
    pub same: bool,
}

/// Reads embeddings: rows within 10⁻³ of unit norm are renormalised, anything else is refused unless `normalize`.
///
/// # Errors
/// [`InputError`] naming the first row that cannot be used.
pub fn embeddings(path: &Path, normalize: bool) -> Result<Vec<Embedding>, InputError> {
    let matrix = npy::read(open(path)?).map_err(|source| InputError::Npy { path: path.into(), source })?;
    let build = if normalize { Embedding::normalised } else { Embedding::new };
    let checked = |(row, values): (usize, &[f32])| {
        build(values.to_vec()).map_err(|e| InputError::Row { path: path.into(), row, source: e })
    };
    matrix.rows().enumerate().map(checked).collect()
}

/// Reads one row as an embedding; the others need not be ones.
///
/// # Errors
/// [`InputError`] naming the row.
pub fn embedding(path: &Path, row: usize, normalize: bool) -> Result<Embedding, InputError> {
    let matrix = npy::read(open(path)?).map_err(|source| InputError::Npy { path: path.into(), source })?;
    let rows = matrix.rows().count();
    let values = matrix.rows().nth(row).ok_or_else(|| InputError::NoSuchRow { path: path.into(), row, rows })?;
    let build = if normalize { Embedding::normalised } else { Embedding::new };
    build(values.to_vec()).map_err(|source| InputError::Row { path: path.into(), row, source })
}

/// A label as a person's id.
///
/// # Errors
/// [`InputError::Label`].
pub fn subject(path: &Path, row: usize, label: &str) -> Result<SubjectId, InputError> {
    SubjectId::new(label).map_err(|source| InputError::Label { path: path.into(), row, source })
}

/// Reads `row,label`: pairs of a row and its person, in file order.
///
/// # Errors
/// [`InputError`] naming the line.
pub fn labels(path: &Path, rows: usize) -> Result<Vec<(usize, String)>, InputError> {
    let mut seen = BTreeSet::new();
    let mut labels = Vec::new();
    for (line, (row, label)) in table::<(usize, String)>(path, &[&["row", "label"]])?.1 {
        let problem = |problem| InputError::Table { path: path.into(), line, problem };
        in_range(path, line, row, rows)?;
        if label.is_empty() || label.len() > MAX_LABEL {
            return Err(problem("the label is empty or longer than 1,024 bytes"));
        }
        if !seen.insert(row) {
            return Err(problem("this row has a label already"));
        }
        labels.push((row, label));
    }
    Ok(labels)
}

/// Who is in which row, and what other columns say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// Rows in file order, each once.
    pub rows: Vec<usize>,
    /// The label of each of them.
    pub labels: Vec<String>,
    /// For each column that was asked for, its cells in the same order.
    pub columns: Vec<Vec<String>>,
}

/// Reads a table with the columns `row` and `label` and any others, of which these are wanted.
///
/// # Errors
/// [`InputError`] naming the line or the column.
pub fn roster(path: &Path, rows: usize, columns: &[&str]) -> Result<Roster, InputError> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(without_mark(open(path)?));
    let header: Vec<String> = reader.headers().map_err(|e| csv_error(path, &e))?.iter().map(str::to_owned).collect();
    let place = |name: &str| {
        let column = name.to_owned();
        let missing = || InputError::NoSuchColumn { path: path.into(), column };
        header.iter().position(|c| c == name).ok_or_else(missing)
    };
    let (row_at, label_at) = (place("row")?, place("label")?);
    let wanted: Vec<usize> = columns.iter().map(|name| place(name)).collect::<Result<_, _>>()?;
    let mut roster = Roster { rows: Vec::new(), labels: Vec::new(), columns: vec![Vec::new(); columns.len()] };
    let mut seen = BTreeSet::new();
    for record in reader.records() {
        let record = record.map_err(|e| csv_error(path, &e))?;
        let line = record.position().map_or(0, csv::Position::line);
        let problem = |problem| InputError::Table { path: path.into(), line, problem };
        if roster.rows.len() == MAX_LINES {
            return Err(problem("the table is too long"));
        }
        let cell = |at: usize| record.get(at).unwrap_or_default();
        let row: usize = cell(row_at).parse().map_err(|_| problem("`row` is not a row number"))?;
        in_range(path, line, row, rows)?;
        if cell(label_at).is_empty() || record.iter().any(|c| c.len() > MAX_LABEL) {
            return Err(problem("a label is empty, or a cell longer than 1,024 bytes"));
        }
        if !seen.insert(row) {
            return Err(problem("this row has a label already"));
        }
        roster.rows.push(row);
        roster.labels.push(cell(label_at).to_owned());
        wanted.iter().zip(&mut roster.columns).for_each(|(&at, column)| column.push(cell(at).to_owned()));
    }
    if roster.rows.is_empty() {
        Err(InputError::Table { path: path.into(), line: 1, problem: "the table has no lines" })
    } else {
        Ok(roster)
    }
}

/// Reads `id,path`: whose photo lies where, in file order.
///
/// # Errors
/// [`InputError`] naming the line.
pub fn photos(path: &Path) -> Result<Vec<(SubjectId, PathBuf)>, InputError> {
    let mut photos = Vec::new();
    for (line, (id, file)) in table::<(String, String)>(path, &[&["id", "path"]])?.1 {
        if file.is_empty() {
            return Err(InputError::Table { path: path.into(), line, problem: "the path is empty" });
        }
        let subject =
            SubjectId::new(id.as_str()).map_err(|source| InputError::Identifier { path: path.into(), line, source })?;
        photos.push((subject, PathBuf::from(file)));
    }
    Ok(photos)
}

/// Reads `fold,a,b,same` or `a,b,same`. Without folds ten are made: the i-th mated and the i-th non-mated pair, in file
/// order, go to fold i modulo 10.
///
/// # Errors
/// [`InputError`] naming the line.
pub fn pairs(path: &Path, rows: usize) -> Result<Vec<Pair>, InputError> {
    let columns: [&[&str]; 2] = [&["fold", "a", "b", "same"], &["a", "b", "same"]];
    let (has_folds, lines) = {
        let (header, lines) = table::<Vec<String>>(path, &columns)?;
        (header.len() == 4, lines)
    };
    let mut counts = [0u32; 2];
    let mut pairs = Vec::with_capacity(lines.len());
    for (line, fields) in lines {
        let problem = |problem| InputError::Table { path: path.into(), line, problem };
        let (fold, rest) = if has_folds {
            let (fold, rest) = fields.split_first().ok_or_else(|| problem("the line is empty"))?;
            (Some(fold.parse::<u32>().map_err(|_| problem("`fold` is not a whole number"))?), rest)
        } else {
            (None, fields.as_slice())
        };
        let [a, b, same] = rest else { return Err(problem("the number of fields is not the header's")) };
        let same = truth(same).ok_or_else(|| problem("`same` is none of 0, 1, true and false"))?;
        let row = |text: &str| text.parse::<usize>().map_err(|_| problem("`a` or `b` is not a row number"));
        let (a, b) = (row(a)?, row(b)?);
        in_range(path, line, a, rows)?;
        in_range(path, line, b, rows)?;
        let count = &mut counts[usize::from(same)];
        let fold = fold.unwrap_or(*count % DEFAULT_FOLDS);
        *count += 1;
        pairs.push(Pair { fold, a, b, same });
    }
    if trainable(&pairs) { Ok(pairs) } else { Err(InputError::TooFewPairs { path: path.into() }) }
}

/// A pair of images: paths below a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePair {
    /// The fold that it belongs to.
    pub fold: u32,
    /// The image that is enrolled.
    pub a: String,
    /// The image that is the probe.
    pub b: String,
    /// Whether both show the same person.
    pub same: bool,
}

/// Reads pairs of images: a table with the columns `fold,a,b,same`, or LFW's own file, whose first line is the number of
/// folds and of mated pairs in each, and whose further lines are `name m n` and `name m name n`.
///
/// # Errors
/// [`InputError`] naming the line.
pub fn image_pairs(path: &Path) -> Result<Vec<ImagePair>, InputError> {
    let failed = |source| InputError::Open { path: path.into(), source };
    let mut text = String::new();
    open(path)?.take(MAX_PAIRS_FILE).read_to_string(&mut text).map_err(failed)?;
    let first = text.lines().next().unwrap_or_default();
    if !first.split_whitespace().all(|word| word.parse::<u32>().is_ok()) || first.trim().is_empty() {
        return image_table(path);
    }
    let table = |line: usize, problem| InputError::Table { path: path.into(), line: line as u64 + 1, problem };
    let size: u32 = match first.split_whitespace().collect::<Vec<_>>()[..] {
        [size] | [_, size] => size.parse().ok().filter(|s| *s > 0),
        _ => None,
    }
    .ok_or_else(|| table(0, "the first line is not the number of folds and of pairs"))?;
    let mut pairs = Vec::new();
    for (number, line) in text.lines().enumerate().skip(1).filter(|(_, line)| !line.trim().is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let file = |name: &str, n: &str| match n.parse::<u32>() {
            Ok(n) if inside(name) => Ok(format!("{name}/{name}_{n:04}.jpg")),
            _ => Err(table(number, "not a name and a number")),
        };
        let (a, b, same) = match words[..] {
            [name, m, n] => (file(name, m)?, file(name, n)?, true),
            [first, m, second, n] => (file(first, m)?, file(second, n)?, false),
            _ => return Err(table(number, "neither `name m n` nor `name m name n`")),
        };
        pairs.push(ImagePair { fold: pairs.len() as u32 / size.saturating_mul(2), a, b, same });
    }
    if pairs.is_empty() { Err(table(0, "the table has no lines")) } else { Ok(pairs) }
}

fn image_table(path: &Path) -> Result<Vec<ImagePair>, InputError> {
    let mut pairs = Vec::new();
    for (line, (fold, a, b, same)) in table::<(u32, String, String, String)>(path, &[&["fold", "a", "b", "same"]])?.1 {
        let problem = |problem| InputError::Table { path: path.into(), line, problem };
        let same = truth(&same).ok_or_else(|| problem("`same` is none of 0, 1, true and false"))?;
        if !inside(&a) || !inside(&b) {
            return Err(problem("a path leads out of the folder, or is empty"));
        }
        pairs.push(ImagePair { fold, a, b, same });
    }
    Ok(pairs)
}

/// Whether a path stays below the folder that it is meant for.
fn inside(path: &str) -> bool {
    let mut parts = Path::new(path).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, std::path::Component::Normal(_)))
}

fn truth(word: &str) -> Option<bool> {
    match word {
        "1" | "true" | "True" => Some(true),
        "0" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Whether there are two folds or more, and both kinds of pairs outside each.
fn trainable(pairs: &[Pair]) -> bool {
    let folds: BTreeSet<u32> = pairs.iter().map(|p| p.fold).collect();
    // A kind exists outside every fold if it exists in two folds, or in one fold besides pairs of the others; counting
    // the folds in which a kind occurs is enough: one alone leaves its own fold without that kind to train on.
    let spread = |same| pairs.iter().filter(|p| p.same == same).map(|p| p.fold).collect::<BTreeSet<_>>().len() >= 2;
    folds.len() >= 2 && spread(true) && spread(false)
}

fn in_range(path: &Path, line: u64, row: usize, rows: usize) -> Result<(), InputError> {
    if row < rows { Ok(()) } else { Err(InputError::RowOutOfRange { path: path.into(), line, row, rows }) }
}

fn open(path: &Path) -> Result<BufReader<File>, InputError> {
    let failed = |source| InputError::Open { path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    Ok(BufReader::new(file))
}

/// Header, and each line with its number.
type Table<T> = (Vec<String>, Vec<(u64, T)>);

/// Reads a table whose header is one of those given.
fn table<T: DeserializeOwned>(path: &Path, headers: &[&[&str]]) -> Result<Table<T>, InputError> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(without_mark(open(path)?));
    let table = |line, problem| InputError::Table { path: path.into(), line, problem };
    let header: Vec<String> = match reader.headers() {
        Ok(record) => record.iter().map(str::to_owned).collect(),
        Err(error) => return Err(csv_error(path, &error)),
    };
    if !headers.contains(&header.iter().map(String::as_str).collect::<Vec<_>>().as_slice()) {
        return Err(table(1, "the columns are not the expected ones"));
    }
    let mut lines = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| csv_error(path, &e))?;
        let line = record.position().map_or(0, csv::Position::line);
        if lines.len() == MAX_LINES {
            return Err(table(line, "the table is too long"));
        }
        let fields = record.deserialize(None).map_err(|_| table(line, "a field is not of its column's type"))?;
        lines.push((line, fields));
    }
    if lines.is_empty() {
        return Err(table(1, "the table has no lines"));
    }
    Ok((header, lines))
}

/// Skips the byte order mark that spreadsheet programs write.
fn without_mark(mut reader: BufReader<File>) -> impl Read {
    use std::io::BufRead;
    let marked = reader.fill_buf().is_ok_and(|bytes| bytes.starts_with(b"\xef\xbb\xbf"));
    if marked {
        reader.consume(3);
    }
    reader
}

/// The csv crate's messages may quote fields; ours do not.
fn csv_error(path: &Path, error: &csv::Error) -> InputError {
    let line = error.position().map_or(1, csv::Position::line);
    let problem = match error.kind() {
        csv::ErrorKind::Io(source) => {
            return InputError::Open { path: path.into(), source: io::Error::from(source.kind()) };
        }
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8",
        csv::ErrorKind::UnequalLengths { .. } => "the number of fields is not the header's",
        _ => "it cannot be read as CSV",
    };
    InputError::Table { path: path.into(), line, problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{npy_bytes, unit_rows_npy};
    use std::fs;
    use tempfile::TempDir;

    fn file(folder: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn matrix(folder: &TempDir, scale: f32) -> PathBuf {
        file(folder, "x.npy", unit_rows_npy(3, 16, scale))
    }

    #[test]
    fn norms_are_repaired_checked_or_normalised() {
        let folder = TempDir::new().unwrap();
        let rows = embeddings(&matrix(&folder, 1.0005), false).unwrap();
        assert!((rows[2].values()[2] - 1.0).abs() < 1e-7);
        let error = embeddings(&matrix(&folder, 1.002), false).unwrap_err();
        assert_eq!((error.code(), error.status()), ("not-unit-norm", Status::InvalidArgument));
        assert!(error.to_string().ends_with("x.npy: row 0: the vector does not have unit norm"), "{error}");
        assert_eq!(embeddings(&matrix(&folder, 7.0), true).unwrap().len(), 3);
        assert_eq!(embeddings(&matrix(&folder, 0.0), true).unwrap_err().code(), "zero-vector");
    }

    #[test]
    fn missing_and_unreadable_files_are_named() {
        let folder = TempDir::new().unwrap();
        let error = embeddings(&folder.path().join("absent.npy"), false).unwrap_err();
        assert_eq!((error.code(), error.status()), ("no-such-file", Status::NotFound));
        assert!(error.to_string().contains("absent.npy"));
        assert_eq!(labels(folder.path(), 3).unwrap_err().code(), "cannot-read");
        let half = npy_bytes("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 16), }", &[0; 128]);
        assert_eq!(embeddings(&file(&folder, "y.npy", half), false).unwrap_err().code(), "unsupported-dtype");
    }

    #[test]
    fn labels_are_read_and_checked() {
        let folder = TempDir::new().unwrap();
        let read = |text: &str| labels(&file(&folder, "l.csv", text), 3);
        let good = read("\u{feff}row,label\r\n0,ann\n2,\"bo, jr\"\n").unwrap();
        assert_eq!(good, [(0, "ann".to_owned()), (2, "bo, jr".to_owned())]);
        for (bad, code, line) in [
            ("", "bad-csv", 1),
            ("row,label\n", "bad-csv", 1),
            ("label,row\nann,0\n", "bad-csv", 1),
            ("row,label\n0,ann\nx,bo\n", "bad-csv", 3),
            ("row,label\n-1,ann\n", "bad-csv", 2),
            ("row,label\n0,ann,1\n", "bad-csv", 2),
            ("row,label\n0,\n", "bad-csv", 2),
            ("row,label\n0,ann\n0,bo\n", "bad-csv", 3),
            ("row,label\n3,ann\n", "row-out-of-range", 2),
        ] {
            let error = read(bad).unwrap_err();
            assert_eq!(error.code(), code, "{bad}");
            assert!(error.to_string().contains(&format!("line {line}:")), "{bad}: {error}");
        }
        let latin = file(&folder, "m.csv", b"row,label\n0,J\xf8rgen\n");
        assert_eq!(labels(&latin, 3).unwrap_err().code(), "bad-csv");
    }

    #[test]
    fn pairs_of_images_are_read_in_both_forms() {
        let folder = TempDir::new().unwrap();
        let read = |text: &str| image_pairs(&file(&folder, "p.txt", text));
        let found = read("2\t1\nAnn_B\t1\t12\nAnn_B\t2\tCy\t1\nCy 1 2\nCy 1 Di 4\n").unwrap();
        assert_eq!(
            found.iter().map(|p| (p.fold, p.same)).collect::<Vec<_>>(),
            [(0, true), (0, false), (1, true), (1, false)]
        );
        assert_eq!((found[0].b.as_str(), found[1].b.as_str()), ("Ann_B/Ann_B_0012.jpg", "Cy/Cy_0001.jpg"));
        let table = read("fold,a,b,same\n3,x/1.jpg,y/2.png,0\n").unwrap();
        assert_eq!(table, [ImagePair { fold: 3, a: "x/1.jpg".into(), b: "y/2.png".into(), same: false }]);
        for bad in [
            "",
            "2 1\n",
            "0\nAnn 1 2\n",
            "1 2 3\nAnn 1 2\n",
            "1\nAnn 1\n",
            "1\nAnn one 2\n",
            "1\n../Ann 1 2\n",
            "fold,a,b,same\n0,/etc/x.jpg,y.jpg,1\n",
            "fold,a,b,same\n0,../x.jpg,y.jpg,1\n",
            "fold,a,b,same\n0,,y.jpg,1\n",
            "fold,a,b,same\n0,x.jpg,y.jpg,2\n",
        ] {
            assert_eq!(read(bad).unwrap_err().code(), "bad-csv", "{bad}");
        }
    }

    #[test]
    fn rosters_have_columns_in_any_order() {
        let folder = TempDir::new().unwrap();
        let read = |text: &str, columns: &[&str]| roster(&file(&folder, "r.csv", text), 3, columns);
        let table = "sex,label,row,taken\nf,ann,2,2004\n,bo,0,\n";
        let found = read(table, &["taken", "sex"]).unwrap();
        assert_eq!((found.rows, found.labels), (vec![2, 0], vec!["ann".to_owned(), "bo".to_owned()]));
        assert_eq!(found.columns, [["2004", ""], ["f", ""]]);
        for (bad, code) in [
            ("row,name\n0,ann\n", "no-such-column"),
            ("row,label\n0,ann\n0,bo\n", "bad-csv"),
            ("row,label\n3,ann\n", "row-out-of-range"),
            ("row,label\nx,ann\n", "bad-csv"),
            ("row,label\n0,\n", "bad-csv"),
            ("row,label\n", "bad-csv"),
        ] {
            assert_eq!(read(bad, &[]).unwrap_err().code(), code, "{bad}");
        }
        let error = read(table, &["age"]).unwrap_err();
        assert!(error.to_string().contains("no column \"age\""), "{error}");
    }

    #[test]
    fn pairs_are_read_with_and_without_folds() {
        let folder = TempDir::new().unwrap();
        let read = |text: &str| pairs(&file(&folder, "p.csv", text), 3);
        let good = read("fold,a,b,same\n7,0,1,1\n7,0,2,0\n8,1,2,true\n8,2,0,false\n").unwrap();
        assert_eq!(good[0], Pair { fold: 7, a: 0, b: 1, same: true });
        assert_eq!(good[3], Pair { fold: 8, a: 2, b: 0, same: false });
        let made = read("a,b,same\n0,1,1\n0,2,0\n1,2,1\n2,0,0\n").unwrap();
        assert_eq!(made.iter().map(|p| p.fold).collect::<Vec<_>>(), [0, 0, 1, 1]);
        for (bad, code) in [
            ("fold,a,b\n0,1,1\n", "bad-csv"),
            ("a,b,same\n0,1,2\n", "bad-csv"),
            ("a,b,same\n0,1.5,1\n", "bad-csv"),
            ("a,b,same\n0,1\n", "bad-csv"),
            ("fold,a,b,same\nfirst,0,1,1\n", "bad-csv"),
            ("a,b,same\n0,3,1\n", "row-out-of-range"),
            ("a,b,same\n0,1,1\n0,2,0\n", "too-few-pairs"),
            ("fold,a,b,same\n0,0,1,1\n0,0,2,0\n0,1,2,1\n0,2,0,0\n", "too-few-pairs"),
            ("fold,a,b,same\n0,0,1,1\n1,0,2,0\n1,1,2,1\n", "too-few-pairs"),
        ] {
            assert_eq!(read(bad).unwrap_err().code(), code, "{bad}");
        }
    }
}
