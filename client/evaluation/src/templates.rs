//! Templates as one matrix, and who is in which row.

use std::collections::BTreeMap;
use std::fmt;

use veilmatch_domain::{Embedding, EmbeddingError, UNIT_TOLERANCE};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::EvaluationError;

/// Unit vectors, row-major: `len` × `dimension` numbers. Wiped on drop and redacted in `Debug`: they describe people.
#[derive(Clone, PartialEq, Zeroize, ZeroizeOnDrop)]
pub struct Templates {
    dimension: usize,
    values: Vec<f32>,
}

impl fmt::Debug for Templates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Templates({} of {} dimensions)", self.len(), self.dimension)
    }
}

impl Templates {
    /// Takes row-major values; every row must be finite and within 10⁻³ of unit norm.
    ///
    /// # Errors
    /// [`EvaluationError`] for a row that is no unit vector, or a number of values that is no multiple of the dimension.
    pub fn new(values: Vec<f32>, dimension: usize) -> Result<Self, EvaluationError> {
        let templates = Self { dimension, values };
        if dimension == 0 || !templates.values.len().is_multiple_of(dimension) {
            return Err(EvaluationError::Dimension { found: templates.values.len(), expected: dimension });
        }
        for row in templates.rows() {
            if let Some(index) = row.iter().position(|v| !v.is_finite()) {
                return Err(EmbeddingError::NotFinite { index }.into());
            }
            let norm = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            if (norm - 1.0).abs() > UNIT_TOLERANCE {
                return Err(EmbeddingError::NotUnit.into());
            }
        }
        Ok(templates)
    }

    /// Takes values that are unit vectors because of where they come from.
    pub(crate) fn trusted(values: Vec<f32>, dimension: usize) -> Self {
        Self { dimension: dimension.max(1), values }
    }

    /// Copies embeddings, which are unit vectors already.
    ///
    /// # Errors
    /// [`EvaluationError::Dimension`] if they differ in dimension.
    pub fn of<'a>(embeddings: impl IntoIterator<Item = &'a Embedding>) -> Result<Self, EvaluationError> {
        let mut templates = Self { dimension: 1, values: Vec::new() };
        for embedding in embeddings {
            let found = embedding.values().len();
            if templates.values.is_empty() {
                templates.dimension = found;
            }
            if found != templates.dimension {
                return Err(EvaluationError::Dimension { found, expected: templates.dimension });
            }
            templates.values.extend_from_slice(embedding.values());
        }
        Ok(templates)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len() / self.dimension
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Coordinates of each.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The rows in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.dimension)
    }

    /// One row.
    #[must_use]
    pub fn row(&self, row: usize) -> Option<&[f32]> {
        self.values.chunks_exact(self.dimension).nth(row)
    }

    /// These rows, in this order; a row that is not there is left out.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let values = rows.iter().filter_map(|&row| self.row(row)).flatten().copied().collect();
        Self { dimension: self.dimension, values }
    }

    /// The cosine of two rows, added up in f64.
    #[must_use]
    pub fn cosine(&self, a: usize, b: usize) -> Option<f64> {
        let (a, b) = (self.row(a)?, self.row(b)?);
        Some(a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum())
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }
}

/// Who is in which row. People are numbered in the order of their first row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct People {
    of_row: Vec<u32>,
    rows: Vec<Vec<usize>>,
}

impl People {
    /// From one label for each row.
    #[must_use]
    pub fn new<L: AsRef<str>>(labels: impl IntoIterator<Item = L>) -> Self {
        let mut numbers: BTreeMap<String, u32> = BTreeMap::new();
        let (mut of_row, mut rows) = (Vec::new(), Vec::<Vec<usize>>::new());
        for (row, label) in labels.into_iter().enumerate() {
            let number = *numbers.entry(label.as_ref().to_owned()).or_insert(rows.len() as u32);
            if number as usize == rows.len() {
                rows.push(Vec::new());
            }
            rows[number as usize].push(row);
            of_row.push(number);
        }
        Self { of_row, rows }
    }

    /// How many people.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The person in each row.
    #[must_use]
    pub fn of_row(&self) -> &[u32] {
        &self.of_row
    }

    /// The rows of each person.
    #[must_use]
    pub fn rows(&self) -> &[Vec<usize>] {
        &self.rows
    }

    /// The same for some of the rows: person `i` of the result is the i-th person met among them.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        Self::new(rows.iter().filter_map(|&row| self.of_row.get(row)).map(u32::to_string))
    }

    /// Refuses people who do not belong to these templates.
    pub(crate) fn fit(&self, templates: &Templates) -> Result<(), EvaluationError> {
        if self.of_row.len() == templates.len() { Ok(()) } else { Err(EvaluationError::Mismatch { what: "labels" }) }
    }

    /// Mated pairs, every one of every person: person, and two rows.
    pub fn mated(&self) -> impl Iterator<Item = (u32, usize, usize)> {
        self.rows.iter().zip(0u32..).flat_map(|(rows, person)| {
            rows.iter().enumerate().flat_map(move |(i, &a)| rows.iter().skip(i + 1).map(move |&b| (person, a, b)))
        })
    }

    /// How many mated pairs there are.
    #[must_use]
    pub fn mated_count(&self) -> u64 {
        self.rows.iter().map(|r| (r.len() * r.len().saturating_sub(1) / 2) as u64).sum()
    }

    /// How many non-mated pairs there are.
    #[must_use]
    pub fn non_mated_count(&self) -> u64 {
        let all = self.of_row.len() as u64;
        all * all.saturating_sub(1) / 2 - self.mated_count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_checked_and_selected() {
        let unit = |k: usize| (0..16).map(move |i| if i == k { 1.0f32 } else { 0.0 });
        let all = Templates::new((0..3).flat_map(unit).collect(), 16).unwrap();
        assert_eq!((all.len(), all.cosine(0, 0), all.cosine(0, 2), all.cosine(0, 3)), (3, Some(1.0), Some(0.0), None));
        assert!(all.select(&[2, 7, 0]) == Templates::new(unit(2).chain(unit(0)).collect(), 16).unwrap());
        assert_eq!(format!("{all:?}"), "Templates(3 of 16 dimensions)");
        let bad = |values: Vec<f32>, code| {
            assert_eq!(veilmatch_domain::Explain::code(&Templates::new(values, 16).unwrap_err()), code)
        };
        bad(vec![0.5; 16], "not-unit-norm");
        bad(vec![f32::NAN; 16], "not-finite");
        bad(vec![0.25; 17], "wrong-dimension");
    }

    #[test]
    fn pairs_are_counted() {
        let people = People::new(["bo", "ann", "bo", "cy", "bo"]);
        assert_eq!((people.len(), people.of_row()), (3, [0, 1, 0, 2, 0].as_slice()));
        assert_eq!(people.mated().collect::<Vec<_>>(), [(0, 0, 2), (0, 0, 4), (0, 2, 4)]);
        assert_eq!((people.mated_count(), people.non_mated_count()), (3, 7));
        assert_eq!(people.select(&[3, 0, 2]).rows(), [vec![0], vec![1, 2]]);
    }
}
