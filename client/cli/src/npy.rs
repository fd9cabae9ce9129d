//! NumPy's `.npy` format, as far as a matrix of float16 or float32 needs it (NEP 1, versions 1.0 to 3.0).
//!
//! Written here and not taken from a crate because the file is untrusted: the header is bounded, sizes are multiplied
//! with overflow checks, and memory grows with the bytes that really arrive, never with what a header claims.

use half::f16;
use std::io::{self, Read};
use veilmatch_domain::{Dimension, EmbeddingError, Explain, Status};

/// Longest header text that is read.
pub const MAX_HEADER: usize = 64 * 1024;
/// Most rows of a matrix.
pub const MAX_ROWS: usize = 4_000_000;
/// Most numbers in a matrix: 4 GiB of f32.
pub const MAX_VALUES: usize = 1 << 30;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
const CHUNK: usize = 1 << 20;

/// Why bytes are not a matrix of embeddings. No value is ever part of the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NpyError {
    /// Reading failed.
    #[error("cannot be read: {0}")]
    Io(#[source] io::Error),
    /// Not an npy file at all.
    #[error("does not begin with the npy magic string")]
    Magic,
    /// A version this reader does not know.
    #[error("npy version {0}.{1} is not known; 1.0 to 3.0 are")]
    Version(u8, u8),
    /// A header that is not the dictionary that NumPy writes.
    #[error("the npy header is malformed: {0}")]
    Header(&'static str),
    /// An element type other than float16 and float32.
    #[error("element type {0:?} is not supported; float16 and float32 are")]
    ElementType(String),
    /// Not a matrix.
    #[error("the array has {0} axes; a matrix with one embedding per row is needed")]
    Axes(usize),
    /// No rows.
    #[error("the matrix has no rows")]
    Empty,
    /// More rows or values than this command reads.
    #[error("the matrix is too large: at most {MAX_ROWS} rows and {MAX_VALUES} values are read")]
    TooLarge,
    /// A row length that no embedding has.
    #[error(transparent)]
    Dimension(EmbeddingError),
    /// The data end early.
    #[error("the file ends in row {row} of {rows}")]
    Truncated {
        /// The first incomplete row (rows of a Fortran-ordered file: the first incomplete column).
        row: usize,
        /// Rows that the header promises.
        rows: usize,
    },
    /// Something follows the matrix.
    #[error("there are bytes after the last row")]
    Trailing,
}

impl Explain for NpyError {
    fn code(&self) -> &'static str {
        match self {
            Self::Io(_) => "cannot-read",
            Self::ElementType(_) => "unsupported-dtype",
            Self::Axes(_) | Self::Empty => "wrong-shape",
            Self::TooLarge => "too-large",
            Self::Dimension(error) => error.code(),
            Self::Truncated { .. } => "truncated",
            Self::Magic | Self::Version(..) | Self::Header(_) | Self::Trailing => "bad-npy",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::Io(_) => Status::Unavailable,
            _ => Status::InvalidArgument,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::Io(_) => "check the path and its permissions",
            Self::ElementType(_) => "save it with numpy.save(path, x.astype('float32'))",
            Self::Axes(_) | Self::Empty => "save a matrix with one embedding per row",
            Self::TooLarge => "split the file",
            Self::Dimension(_) => "embeddings of 16 to 1024 dimensions are supported",
            Self::Truncated { .. } | Self::Trailing => "the file is damaged: write or copy it again",
            Self::Magic | Self::Version(..) | Self::Header(_) => "write the file with numpy.save",
        }
    }
}

/// A matrix in row-major order.
pub struct Matrix {
    columns: usize,
    values: Vec<f32>,
}

impl Matrix {
    /// The rows in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.columns)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    Half,
    Single,
}

impl Element {
    fn width(self) -> usize {
        match self {
            Self::Half => 2,
            Self::Single => 4,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Header {
    element: Element,
    big_endian: bool,
    fortran: bool,
    rows: usize,
    columns: usize,
}

/// Reads a matrix whose rows have the length of an embedding.
///
/// # Errors
/// [`NpyError`].
pub fn read(mut reader: impl Read) -> Result<Matrix, NpyError> {
    let header = read_header(&mut reader)?;
    let total = header.rows * header.columns;
    let mut values = Vec::new();
    let mut chunk = vec![0u8; CHUNK];
    while values.len() < total {
        let wanted = ((total - values.len()) * header.element.width()).min(CHUNK);
        let got = read_full(&mut reader, &mut chunk[..wanted])?;
        decode(&chunk[..got], &header, &mut values);
        if got < wanted {
            let line = if header.fortran { header.rows } else { header.columns };
            return Err(NpyError::Truncated { row: values.len() / line, rows: header.rows });
        }
    }
    if read_full(&mut reader, &mut [0u8; 1])? != 0 {
        return Err(NpyError::Trailing);
    }
    if header.fortran {
        values = transposed(&values, header.rows, header.columns);
    }
    Ok(Matrix { columns: header.columns, values })
}

fn decode(bytes: &[u8], header: &Header, values: &mut Vec<f32>) {
    match (header.element, header.big_endian) {
        (Element::Half, false) => values.extend(bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32())),
        (Element::Half, true) => values.extend(bytes.as_chunks().0.iter().map(|&b| f16::from_be_bytes(b).to_f32())),
        (Element::Single, false) => values.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
        (Element::Single, true) => values.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_be_bytes(b))),
    }
}

fn transposed(columns_first: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows).flat_map(|r| (0..columns).map(move |c| columns_first[c * rows + r])).collect()
}

/// Fills as much of the buffer as the reader has.
fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize, NpyError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(NpyError::Io(e)),
        }
    }
    Ok(filled)
}

fn read_header(reader: &mut impl Read) -> Result<Header, NpyError> {
    let mut start = [0u8; 8];
    if read_full(reader, &mut start)? < start.len() || start[..6] != MAGIC[..] {
        return Err(NpyError::Magic);
    }
    let length_bytes = match (start[6], start[7]) {
        (1, 0) => 2,
        (2 | 3, 0) => 4,
        (major, minor) => return Err(NpyError::Version(major, minor)),
    };
    let mut length = [0u8; 4];
    if read_full(reader, &mut length[..length_bytes])? < length_bytes {
        return Err(NpyError::Header("it ends early"));
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_HEADER {
        return Err(NpyError::Header("it is longer than 64 KiB"));
    }
    let mut text = vec![0u8; length];
    if read_full(reader, &mut text)? < length {
        return Err(NpyError::Header("it ends early"));
    }
    let text = std::str::from_utf8(&text).map_err(|_| NpyError::Header("it is not text"))?;
    parse_header(text)
}

/// Parses `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`, keys in any order.
fn parse_header(text: &str) -> Result<Header, NpyError> {
    let mut cursor = Cursor(text);
    let (mut kind, mut fortran, mut shape) = (None, None, None);
    cursor.expect('{', "a dictionary is missing")?;
    while !cursor.take('}') {
        let key = cursor.quoted()?;
        cursor.expect(':', "a colon is missing")?;
        match key {
            "descr" => kind = Some(element_type(&mut cursor)?),
            "fortran_order" => fortran = Some(cursor.boolean()?),
            "shape" => shape = Some(cursor.tuple()?),
            _ => return Err(NpyError::Header("it has an unknown key")),
        }
        if !cursor.take(',') {
            cursor.expect('}', "a comma is missing")?;
            break;
        }
    }
    if !cursor.0.trim_matches(|c: char| c.is_whitespace() || c == '\0').is_empty() {
        return Err(NpyError::Header("something follows the dictionary"));
    }
    let ((element, big_endian), Some(fortran), Some(shape)) =
        (kind.ok_or(NpyError::Header("`descr` is missing"))?, fortran, shape)
    else {
        return Err(NpyError::Header("`fortran_order` or `shape` is missing"));
    };
    let &[rows, columns] = shape.as_slice() else { return Err(NpyError::Axes(shape.len())) };
    check_size(rows, columns)?;
    Ok(Header { element, big_endian, fortran, rows, columns })
}

fn check_size(rows: usize, columns: usize) -> Result<(), NpyError> {
    if rows == 0 {
        return Err(NpyError::Empty);
    }
    Dimension::new(columns).map_err(NpyError::Dimension)?;
    match rows.checked_mul(columns) {
        Some(values) if values <= MAX_VALUES && rows <= MAX_ROWS => Ok(()),
        _ => Err(NpyError::TooLarge),
    }
}

fn element_type(cursor: &mut Cursor<'_>) -> Result<(Element, bool), NpyError> {
    if cursor.peek() == Some('[') {
        return Err(NpyError::ElementType(String::from("structured")));
    }
    match cursor.quoted()? {
        "<f2" => Ok((Element::Half, false)),
        ">f2" => Ok((Element::Half, true)),
        "<f4" => Ok((Element::Single, false)),
        ">f4" => Ok((Element::Single, true)),
        other => Err(NpyError::ElementType(other.chars().take(16).collect())),
    }
}

/// The rest of the header text.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn peek(&mut self) -> Option<char> {
        self.0 = self.0.trim_start();
        self.0.chars().next()
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.0 = &self.0[wanted.len_utf8()..];
        }
        found
    }

    fn expect(&mut self, wanted: char, problem: &'static str) -> Result<(), NpyError> {
        if self.take(wanted) { Ok(()) } else { Err(NpyError::Header(problem)) }
    }

    fn quoted(&mut self) -> Result<&'a str, NpyError> {
        const PROBLEM: NpyError = NpyError::Header("a quoted string is missing");
        let quote = self.peek().filter(|c| *c == '\'' || *c == '"').ok_or(PROBLEM)?;
        let (text, rest) = self.0[1..].split_once(quote).ok_or(PROBLEM)?;
        self.0 = rest;
        Ok(text)
    }

    fn boolean(&mut self) -> Result<bool, NpyError> {
        self.peek();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.0.strip_prefix(word) {
                self.0 = rest;
                return Ok(value);
            }
        }
        Err(NpyError::Header("`fortran_order` is neither True nor False"))
    }

    fn tuple(&mut self) -> Result<Vec<usize>, NpyError> {
        let mut numbers = Vec::new();
        self.expect('(', "`shape` is not a tuple")?;
        while !self.take(')') {
            self.peek();
            let end = self.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.0.len());
            let number = match self.0[..end].parse::<usize>() {
                Ok(number) => number,
                Err(e) if *e.kind() == std::num::IntErrorKind::PosOverflow => usize::MAX,
                Err(_) => return Err(NpyError::Header("`shape` has an entry that is not a number")),
            };
            numbers.push(number);
            self.0 = &self.0[end..];
            if !self.take(',') {
                self.expect(')', "`shape` is not closed")?;
                break;
            }
        }
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::npy_bytes;

    fn data(rows: usize) -> Vec<u8> {
        (0..rows * 16).flat_map(|i| (i as f32).to_le_bytes()).collect()
    }

    fn error(header: &str, data: &[u8]) -> NpyError {
        match read(npy_bytes(header, data).as_slice()) {
            Ok(_) => panic!("{header} was accepted"),
            Err(error) => error,
        }
    }

    fn shape(shape: &str) -> String {
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}")
    }

    #[test]
    fn all_layouts_give_the_same_rows() {
        let value = |r: usize, c: usize| (r * 16 + c) as f32;
        let cells = |fortran: bool| -> Vec<f32> {
            if fortran {
                (0..48).map(|i| value(i % 3, i / 3)).collect()
            } else {
                (0..48).map(|i| value(i / 16, i % 16)).collect()
            }
        };
        for (descr, fortran) in ["<f4", ">f4", "<f2", ">f2"].into_iter().flat_map(|d| [(d, false), (d, true)]) {
            let bytes: Vec<u8> = cells(fortran)
                .into_iter()
                .flat_map(|v| match descr {
                    "<f4" => v.to_le_bytes().to_vec(),
                    ">f4" => v.to_be_bytes().to_vec(),
                    "<f2" => f16::from_f32(v).to_le_bytes().to_vec(),
                    _ => f16::from_f32(v).to_be_bytes().to_vec(),
                })
                .collect();
            let order = if fortran { "True" } else { "False" };
            let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': (3, 16), }}");
            let matrix = read(npy_bytes(&header, &bytes).as_slice()).unwrap();
            assert_eq!(matrix.rows().len(), 3);
            for (r, row) in matrix.rows().enumerate() {
                let expected: Vec<f32> = (0..16).map(|c| value(r, c)).collect();
                assert_eq!(row, expected, "{descr} {order}");
            }
        }
    }

    #[test]
    fn keys_come_in_any_order_and_longer_headers_are_read() {
        let header = r#"{"shape": (2,16), "fortran_order": False, "descr": "<f4"}"#;
        assert_eq!(read(npy_bytes(header, &data(2)).as_slice()).unwrap().rows().len(), 2);
        let mut version2 = b"\x93NUMPY\x02\x00".to_vec();
        version2.extend((header.len() as u32).to_le_bytes());
        version2.extend(header.as_bytes());
        version2.extend(data(2));
        assert_eq!(read(version2.as_slice()).unwrap().rows().len(), 2);
    }

    #[test]
    fn more_than_a_chunk_is_read_whole() {
        let rows = CHUNK / 64 + 3;
        let matrix = read(npy_bytes(&shape(&format!("({rows}, 16)")), &data(rows)).as_slice()).unwrap();
        assert_eq!(matrix.rows().len(), rows);
        assert_eq!(matrix.rows().last().unwrap()[15], (rows * 16 - 1) as f32);
    }

    #[test]
    fn refuses_what_is_not_a_matrix_of_small_floats() {
        assert!(matches!(read(&b"PK\x03\x04"[..]), Err(NpyError::Magic)));
        assert!(matches!(read(&b"\x93NUMPY\x09\x00\x00\x00"[..]), Err(NpyError::Version(9, 0))));
        assert!(matches!(read(&b"\x93NUMPY\x02\x00\xff\xff\xff\xff"[..]), Err(NpyError::Header(_))));
        assert!(matches!(read(&b"\x93NUMPY\x01\x00\xff"[..]), Err(NpyError::Header(_))));
        assert!(matches!(error(&shape("(2, 16)"), &data(1)), NpyError::Truncated { row: 1, rows: 2 }));
        assert!(matches!(error(&shape("(1, 16)"), &data(2)), NpyError::Trailing));
        assert!(matches!(error(&shape("(0, 16)"), &[]), NpyError::Empty));
        assert!(matches!(error(&shape("(16,)"), &data(1)), NpyError::Axes(1)));
        assert!(matches!(error(&shape("(2, 2, 4)"), &data(1)), NpyError::Axes(3)));
        assert!(matches!(error(&shape("(2, 8)"), &data(1)), NpyError::Dimension(_)));
        assert!(matches!(error(&shape("(4000001, 16)"), &[]), NpyError::TooLarge));
        assert!(matches!(error(&shape("(99999999999999999999999, 16)"), &[]), NpyError::TooLarge));
        for descr in ["<f8", "|O", "<i4", "|u1"] {
            let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (1, 16), }}");
            assert!(matches!(error(&header, &data(1)), NpyError::ElementType(t) if t == descr));
        }
        let structured = "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1, 16), }";
        assert!(matches!(error(structured, &data(1)), NpyError::ElementType(_)));
    }

    #[test]
    fn malformed_headers_never_panic() {
        let good = shape("(2, 16)");
        for cut in 0..good.len() {
            assert!(matches!(error(&good[..cut], &data(2)), NpyError::Header(_)), "{}", &good[..cut]);
        }
        for bad in ["{}", "(1,)", "{'x': 1}", "{'shape': (-1, 2)}", "{'descr': '<f4'}", "é", "{'é", "{'descr': 'é"] {
            assert!(matches!(error(bad, &[]), NpyError::Header(_)), "{bad}");
        }
        assert!(matches!(error(&format!("{good} {good}"), &data(2)), NpyError::Header(_)));
    }
}
