//! Fairness: one affine map of embeddings, x → normalise(A·x + b), that brings the FMRs of groups closer together.
//!
//! A model matches strangers of one group more often than of another for two reasons that a map can reach: faces of a group
//! share a direction, the group's centroid, which adds the same amount to all their scores; and directions in which faces
//! of all groups vary little count as much as others. The map removes the first and evens out the second:
//!
//!   A = Σ^(−α/2)·(1 − ρ·U·Uᵀ),   b = −ρ·A·m
//!
//! with m the mean of the group centroids, U an orthonormal basis of the centroids less m, and Σ the covariance within groups,
//! averaged over groups (each counts the same, however large) and shrunk by a tenth towards a multiple of the identity. ρ = 1
//! gives all groups the same centroid, zero; α = 1 whitens. ρ and α are chosen on people whom A was not estimated on,
//! among 15 pairs and doing nothing: the lowest Gini coefficient of FMR, as long as FNMR at the same overall FMR does not rise
//! by more than a given share. The idea of working on centroids after training is that of "centroid fairness" (Conti and
//! Clémençon 2024), which trains a small network; an affine map is what can be checked by hand and kept in one file.
//!
//! The map is the same for everybody: no group is asked for when a person enrols or asks. It is applied before an embedding is
//! sealed, so that nothing changes under encryption, and everything in a collection must have gone through it. It changes
//! scores: thresholds have to be found again. Centroids can be removed altogether. A group whose faces vary in fewer
//! dimensions cannot be given more of them; whitening only weighs down the directions in which it varies, and that for
//! everybody, so it evens out in part, and less with more groups. [`crate::synthetic`] has a set for each case.

use borsh::{BorshDeserialize, BorshSerialize};
use nalgebra::{DMatrix, DVector, SymmetricEigen};
use rayon::prelude::*;
use serde::Serialize;
use veilmatch_domain::{Dimension, Embedding, Explain, Status};
use veilmatch_secret::Hasher;

use crate::bootstrap::{Bootstrap, shuffle, stream};
use crate::groups::{self, Groups, Membership, Threshold};
use crate::{EvaluationError, People, Templates};

const MAGIC: &[u8; 8] = b"vmaffine";
const VERSION: u16 = 1;
const CHECKSUM: usize = 32;
/// How far Σ is moved towards a multiple of the identity.
const SHRINKAGE: f64 = 0.1;
/// Values of ρ and α that are tried.
const REMOVALS: [f64; 3] = [0.0, 0.5, 1.0];
const WHITENINGS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
/// What FNMR may rise by in any case: a few pairs of the half that decides.
const SLACK: f64 = 0.002;

/// An affine map of embeddings. Public as far as centroids of groups are.
#[derive(Clone, PartialEq)]
pub struct Transform {
    dimension: Dimension,
    /// ρ.
    removal: f64,
    /// α.
    whitening: f64,
    /// A, row by row: d² numbers.
    matrix: Vec<f32>,
    /// b: d numbers.
    offset: Vec<f32>,
}

impl std::fmt::Debug for Transform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transform({} dimensions, removal {}, whitening {})", self.dimension, self.removal, self.whitening)
    }
}

impl Transform {
    /// The dimension of what it maps.
    #[must_use]
    pub fn dimension(&self) -> Dimension {
        self.dimension
    }

    /// ρ, how much of the centroids is removed, and α, how much is whitened; 0 to 1.
    #[must_use]
    pub fn strengths(&self) -> (f64, f64) {
        (self.removal, self.whitening)
    }

    /// Maps an embedding, before it is sealed. Templates and probes of a collection must all be mapped, by the same map.
    ///
    /// # Errors
    /// [`EvaluationError`] for another dimension, or an embedding that is mapped to zero.
    pub fn apply(&self, embedding: &Embedding) -> Result<Embedding, EvaluationError> {
        Ok(Embedding::normalised(self.mapped(embedding.values())?)?)
    }

    /// Maps templates.
    ///
    /// # Errors
    /// As [`Transform::apply`].
    pub fn apply_all(&self, templates: &Templates) -> Result<Templates, EvaluationError> {
        let rows: Vec<&[f32]> = templates.rows().collect();
        let mapped: Vec<Embedding> = rows
            .par_iter()
            .map(|row| Ok(Embedding::normalised(self.mapped(row)?)?))
            .collect::<Result<_, EvaluationError>>()?;
        Templates::of(&mapped)
    }

    fn mapped(&self, values: &[f32]) -> Result<Vec<f32>, EvaluationError> {
        let expected = self.dimension.get();
        if values.len() != expected {
            return Err(EvaluationError::Dimension { found: values.len(), expected });
        }
        let line = |(row, b): (&[f32], &f32)| {
            let product: f64 = row.iter().zip(values).map(|(&a, &x)| f64::from(a) * f64::from(x)).sum();
            (product + f64::from(*b)) as f32
        };
        Ok(self.matrix.chunks_exact(expected).zip(&self.offset).map(line).collect())
    }

    /// The file: `vmaffine`, the version as u16, borsh of the content, and a digest of all before it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { dimension, removal, whitening, matrix, offset } = self.clone();
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        // Writing into memory does not fail, and the numbers are finite.
        bytes.extend(borsh::to_vec(&Content { dimension, removal, whitening, matrix, offset }).unwrap_or_default());
        let checksum = checksum(&bytes);
        bytes.extend(checksum);
        bytes
    }

    /// Reads a file and checks it. The digest finds damage, not malice: what is applied is whatever map the file holds.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FileError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(FileError::Magic)?;
        let (version, _) = rest.split_first_chunk::<2>().ok_or(FileError::Checksum)?;
        let version = u16::from_le_bytes(*version);
        if version != VERSION {
            return Err(FileError::Version(version));
        }
        let (covered, found) = bytes.split_last_chunk::<CHECKSUM>().ok_or(FileError::Checksum)?;
        if checksum(covered) != *found {
            return Err(FileError::Checksum);
        }
        let content = covered.get(MAGIC.len() + 2..).ok_or(FileError::Checksum)?;
        let Content { dimension, removal, whitening, matrix, offset } =
            borsh::from_slice(content).map_err(|_| FileError::Content("it cannot be read"))?;
        let d = dimension.get();
        if matrix.len() != d * d || offset.len() != d {
            return Err(FileError::Content("the number of values is not the dimension's"));
        }
        let strengths = [removal, whitening].iter().all(|s| (0.0..=1.0).contains(s));
        if !strengths || !matrix.iter().chain(&offset).all(|v| v.is_finite()) {
            return Err(FileError::Content("a number is out of range"));
        }
        Ok(Self { dimension, removal, whitening, matrix, offset })
    }
}

#[derive(BorshSerialize, BorshDeserialize)]
struct Content {
    dimension: Dimension,
    removal: f64,
    whitening: f64,
    matrix: Vec<f32>,
    offset: Vec<f32>,
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    Hasher::new("veilmatch/evaluation/fair").field(bytes).finish().0
}

/// Why bytes are no transform.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Another kind of file.
    #[error("not a transform")]
    Magic,
    /// Made by a later version.
    #[error("version {0} of the format is not known; {VERSION} is")]
    Version(u16),
    /// Cut, or changed.
    #[error("damaged: the checksum is wrong")]
    Checksum,
    /// The checksum holds, but what it covers is not a transform.
    #[error("malformed: {0}")]
    Content(&'static str),
}

impl Explain for FileError {
    fn code(&self) -> &'static str {
        match self {
            Self::Magic => "not-a-transform",
            Self::Version(_) => "unknown-version",
            Self::Checksum => "damaged",
            Self::Content(_) => "bad-transform",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::Checksum => Status::DataLoss,
            _ => Status::InvalidArgument,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::Magic | Self::Content(_) => "give a file that `veilmatch eval fit-fair` has written",
            Self::Version(_) => "use the version of veilmatch that wrote it, or a later one",
            Self::Checksum => "copy the file again from where it was made",
        }
    }
}

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The overall FMR at which groups are compared.
    pub fmr: f64,
    /// By which share FNMR may rise at that FMR, 0 to 1.
    pub fnmr_rise: f64,
    /// How intervals are made; its seed decides which half a person belongs to.
    pub bootstrap: Bootstrap,
}

/// Whether the map is worth having.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The Gini coefficient of FMR falls below its interval without the map.
    Helps,
    /// It falls, but not below that interval.
    NotShown,
    /// It does not fall, or nothing was better than no map.
    DoesNotHelp,
}

/// The result.
#[derive(Clone, Debug, Serialize)]
pub struct Fitted {
    /// The map, estimated on the whole fitting half.
    #[serde(skip)]
    pub transform: Transform,
    /// ρ that was chosen.
    pub removal: f64,
    /// α that was chosen.
    pub whitening: f64,
    /// People whom the map was fitted on.
    pub fitting_people: usize,
    /// Other people, whom the rest of this is about.
    pub reported_people: usize,
    /// Without the map, at the threshold of the wanted overall FMR.
    pub before: Groups,
    /// With it, at the threshold of the same overall FMR.
    pub after: Groups,
    /// What comes of it.
    pub verdict: Verdict,
}

/// Rows of two halves of the people, at random by the seed, each group halved on its own.
fn halves(people: &People, membership: &Membership, seed: u64, number: u64) -> [Vec<usize>; 2] {
    let mut stream = stream("veilmatch/evaluation/halves", seed, number);
    let mut halves = [Vec::new(), Vec::new()];
    for rows in membership.rows() {
        let mut members: Vec<u32> = rows.iter().map(|&r| people.of_row()[r]).collect();
        members.sort_unstable();
        members.dedup();
        shuffle(&mut members, &mut stream);
        for (place, &person) in members.iter().enumerate() {
            halves[usize::from(place >= members.len() / 2)].extend(&people.rows()[person as usize]);
        }
    }
    halves.iter_mut().for_each(|half| half.sort_unstable());
    halves
}

/// Templates with their people and groups.
struct Set {
    templates: Templates,
    people: People,
    membership: Membership,
}

impl Set {
    fn select(&self, rows: &[usize]) -> Result<Self, EvaluationError> {
        let mut of_row = vec![0usize; self.templates.len()];
        for (number, members) in self.membership.rows().iter().enumerate() {
            members.iter().for_each(|&row| of_row[row] = number);
        }
        let people = self.people.select(rows);
        let groups: Vec<&str> = rows.iter().map(|&r| self.membership.name(of_row[r])).collect();
        let membership = Membership::new(&people, &groups)?;
        Ok(Self { templates: self.templates.select(rows), people, membership })
    }

    fn compare(&self, templates: &Templates, fmr: f64, bootstrap: Bootstrap) -> Result<Groups, EvaluationError> {
        groups::compare(templates, &self.people, &self.membership, Threshold::AtFmr(fmr), bootstrap, &|_| {})
    }
}

/// Centroids and covariance of some people.
struct Estimate {
    /// m.
    mean: DVector<f64>,
    /// U, one column for each direction.
    directions: DMatrix<f64>,
    eigen: SymmetricEigen<f64, nalgebra::Dyn>,
}

impl Estimate {
    /// Every person counts the same in its group, and every group the same in the whole.
    fn of(set: &Set) -> Result<Self, EvaluationError> {
        let d = set.templates.dimension();
        let mut centroids = Vec::new();
        let mut covariance = DMatrix::zeros(d, d);
        for rows in set.membership.rows() {
            let weight = |row: usize| (1.0 / set.people.rows()[set.people.of_row()[row] as usize].len() as f64).sqrt();
            let chosen = set.templates.select(rows);
            let values = chosen.rows().zip(rows).flat_map(|(v, &r)| {
                let weight = weight(r);
                v.iter().map(move |&x| f64::from(x) * weight).collect::<Vec<_>>()
            });
            // Columns are images, scaled so that those of a person count as one.
            let columns = DMatrix::from_iterator(d, rows.len(), values);
            let roots = DVector::from_iterator(rows.len(), rows.iter().map(|&r| weight(r)));
            let total = roots.norm_squared();
            let centroid = &columns * &roots / total;
            covariance += &columns * columns.transpose() / total - &centroid * centroid.transpose();
            centroids.push(centroid);
        }
        let groups = centroids.len() as f64;
        let mean = centroids.iter().fold(DVector::zeros(d), |sum, c| sum + c) / groups;
        covariance /= groups;
        let even = DMatrix::identity(d, d) * (covariance.trace() / d as f64);
        let shrunk = covariance * (1.0 - SHRINKAGE) + even * SHRINKAGE;
        let eigen = SymmetricEigen::try_new(shrunk, 1e-12, 0).ok_or(EvaluationError::Diverged)?;
        let mut directions: Vec<DVector<f64>> = Vec::new();
        for centroid in &centroids {
            let mut rest = centroid - &mean;
            // Twice, so that what is left is orthogonal to working precision.
            for _ in 0..2 {
                for u in &directions {
                    rest -= u * u.dot(&rest);
                }
            }
            // The last centroid less the mean is a sum of the others: what is left of it is rounding.
            if rest.norm() > 1e-6 {
                directions.push(rest.normalize());
            }
        }
        let directions = if directions.is_empty() { DMatrix::zeros(d, 0) } else { DMatrix::from_columns(&directions) };
        Ok(Self { mean, directions, eigen })
    }

    fn transform(&self, removal: f64, whitening: f64) -> Result<Transform, EvaluationError> {
        let d = self.mean.len();
        let scales = self.eigen.eigenvalues.map(|v| v.max(1e-12).powf(-0.5 * whitening));
        // Any factor is lost in the normalisation; this one keeps the numbers near 1.
        let scales = &scales / scales.mean();
        let vectors = &self.eigen.eigenvectors;
        let whiten = vectors * DMatrix::from_diagonal(&scales) * vectors.transpose();
        let project = DMatrix::identity(d, d) - (&self.directions * self.directions.transpose()) * removal;
        let matrix = whiten * project;
        let offset = -(&matrix * &self.mean) * removal;
        Ok(Transform {
            dimension: Dimension::new(d)?,
            removal,
            whitening,
            // Column-major of the transpose is row-major.
            matrix: matrix.transpose().iter().map(|&v| v as f32).collect(),
            offset: offset.iter().map(|&v| v as f32).collect(),
        })
    }
}

/// How many candidates `done` will be told about by [`fit`], in all.
pub const STEPS: usize = REMOVALS.len() * WHITENINGS.len();

/// Fits on one half of the people of each group, and reports on the other. `done` is told after each candidate.
///
/// # Errors
/// [`EvaluationError`] if groups are too few or too small to compare, or lists do not belong together.
pub fn fit(
    templates: &Templates,
    people: &People,
    membership: &Membership,
    settings: &Settings,
    done: &(dyn Fn() + Sync),
) -> Result<Fitted, EvaluationError> {
    people.fit(templates)?;
    if membership.len() < 2 {
        return Err(EvaluationError::TooFew { what: "groups", found: membership.len(), needed: 2 });
    }
    if !(0.0..=1.0).contains(&settings.fnmr_rise) {
        return Err(EvaluationError::Range { what: "the rise of FNMR" });
    }
    let all = Set { templates: templates.clone(), people: people.clone(), membership: membership.clone() };
    let [fitting, reported] = halves(people, membership, settings.bootstrap.seed, 0);
    let (fitting, reported) = (all.select(&fitting)?, all.select(&reported)?);
    let [estimating, choosing] = halves(&fitting.people, &fitting.membership, settings.bootstrap.seed, 1);
    let (estimating, choosing) = (fitting.select(&estimating)?, fitting.select(&choosing)?);
    let fewest = reported.people.len().min(choosing.people.len()) / membership.len();
    if fewest < groups::FEWEST_PEOPLE {
        let needed = 4 * groups::FEWEST_PEOPLE * membership.len();
        return Err(EvaluationError::TooFew { what: "people in groups", found: people.len(), needed });
    }
    let (removal, whitening) = choose(&estimating, &choosing, settings, done)?;
    let transform = Estimate::of(&fitting)?.transform(removal, whitening)?;
    let before = reported.compare(&reported.templates, settings.fmr, settings.bootstrap)?;
    let after = reported.compare(&transform.apply_all(&reported.templates)?, settings.fmr, settings.bootstrap)?;
    let verdict = match (&before.fmr_spread, &after.fmr_spread) {
        (Some(b), Some(a)) if (removal, whitening) != (0.0, 0.0) && a.gini < b.gini => {
            if b.gini_interval.is_some_and(|i| a.gini < i.low) { Verdict::Helps } else { Verdict::NotShown }
        }
        (Some(_), Some(_)) => Verdict::DoesNotHelp,
        _ => {
            let pairs = (groups::FEWEST_EXPECTED / settings.fmr).ceil() as usize;
            let found = before.groups.iter().map(|g| g.fmr.trials as usize).min().unwrap_or(0);
            return Err(EvaluationError::TooFew { what: "non-mated pairs in a group", found, needed: pairs });
        }
    };
    Ok(Fitted {
        transform,
        removal,
        whitening,
        fitting_people: fitting.people.len(),
        reported_people: reported.people.len(),
        before,
        after,
        verdict,
    })
}

/// ρ and α with the lowest Gini coefficient on people whom the candidates were not estimated on.
fn choose(
    estimating: &Set,
    choosing: &Set,
    settings: &Settings,
    done: &(dyn Fn() + Sync),
) -> Result<(f64, f64), EvaluationError> {
    let estimate = Estimate::of(estimating)?;
    // Intervals are for the report.
    let bootstrap = Bootstrap { resamples: 0, ..settings.bootstrap };
    let none = choosing.compare(&choosing.templates, settings.fmr, bootstrap)?;
    let most = none.fnmr * (1.0 + settings.fnmr_rise) + SLACK;
    let candidates: Vec<(f64, f64)> = REMOVALS.iter().flat_map(|&r| WHITENINGS.iter().map(move |&w| (r, w))).collect();
    let judged: Vec<Option<f64>> = candidates
        .par_iter()
        .map(|&(removal, whitening)| {
            let mapped = estimate.transform(removal, whitening)?.apply_all(&choosing.templates)?;
            let groups = choosing.compare(&mapped, settings.fmr, bootstrap)?;
            done();
            let rates: Vec<f64> = groups.groups.iter().map(|g| g.fmr.rate).collect();
            Ok(groups::gini(&rates).filter(|_| groups.fnmr <= most))
        })
        .collect::<Result<_, EvaluationError>>()?;
    let best = candidates
        .into_iter()
        .zip(judged)
        .filter_map(|(candidate, gini)| Some((candidate, gini?)))
        // The first of equals, which changes least.
        .min_by(|a, b| a.1.total_cmp(&b.1));
    Ok(best.map_or((0.0, 0.0), |b| b.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::{Cause, Crowd, crowd};

    fn settings(fmr: f64) -> Settings {
        Settings { fmr, fnmr_rise: 0.1, bootstrap: Bootstrap { resamples: 200, seed: 1 } }
    }

    fn fitted(crowd: &Crowd, settings: &Settings) -> Result<Fitted, EvaluationError> {
        let names: Vec<String> = crowd.groups.iter().map(|g| format!("g{g}")).collect();
        let membership = Membership::new(&crowd.people, &names)?;
        fit(&crowd.templates, &crowd.people, &membership, settings, &|| {})
    }

    #[test]
    fn groups_that_share_a_direction_are_brought_together() {
        let crowd = crowd(&Cause::SharedDirection.groups(240, 64), 2, 64, 0.8, 1);
        let result = fitted(&crowd, &settings(0.01)).unwrap();
        let (before, after) = (result.before.fmr_spread.unwrap(), result.after.fmr_spread.unwrap());
        assert_eq!((result.verdict, result.reported_people), (Verdict::Helps, 360));
        assert!(after.gini < 0.5 * before.gini, "{before:?} {after:?}");
        assert!(result.after.fnmr < result.before.fnmr * 1.2 + 0.01, "{result:?}");
        assert!(result.removal > 0.0);
    }

    #[test]
    fn narrow_groups_are_evened_out_in_part() {
        let crowd = crowd(&Cause::Narrowness.groups(240, 64), 2, 64, 0.8, 1);
        let result = fitted(&crowd, &settings(0.01)).unwrap();
        let (before, after) = (result.before.fmr_spread.unwrap(), result.after.fmr_spread.unwrap());
        assert!(
            before.gini > 0.2 && after.gini > 0.25 * before.gini && after.gini < before.gini,
            "{before:?} {after:?}"
        );
        assert!(result.whitening > 0.0);
    }

    #[test]
    fn equal_groups_are_not_claimed_to_be_helped() {
        let crowd = crowd(&[Cause::SharedDirection.groups(240, 64)[0]; 3], 2, 64, 0.8, 1);
        let result = fitted(&crowd, &settings(0.01)).unwrap();
        assert_ne!(result.verdict, Verdict::Helps, "{:?} {:?}", result.before.fmr_spread, result.after.fmr_spread);
    }

    #[test]
    fn centroids_coincide_after_full_removal_and_whitening_evens_out() {
        let crowd = crowd(&Cause::SharedDirection.groups(200, 32), 1, 32, 0.9, 2);
        let names: Vec<String> = crowd.groups.iter().map(|g| g.to_string()).collect();
        let membership = Membership::new(&crowd.people, &names).unwrap();
        let set = Set { templates: crowd.templates.clone(), people: crowd.people.clone(), membership };
        let estimate = Estimate::of(&set).unwrap();
        assert_eq!(estimate.directions.ncols(), 2, "three centroids span two directions beside their mean");
        let transform = estimate.transform(1.0, 1.0).unwrap();
        for (number, rows) in set.membership.rows().iter().enumerate() {
            let mut centroid = vec![0.0f64; 32];
            for &row in rows {
                let mapped = transform.mapped(crowd.templates.row(row).unwrap()).unwrap();
                centroid.iter_mut().zip(&mapped).for_each(|(c, &v)| *c += f64::from(v) / rows.len() as f64);
            }
            let norm = centroid.iter().map(|c| c * c).sum::<f64>().sqrt();
            assert!(norm < 1e-4, "group {number}: {norm}");
        }
        let identity = estimate.transform(0.0, 0.0).unwrap();
        let mapped = identity.apply_all(&crowd.templates).unwrap();
        assert!((mapped.cosine(0, 7).unwrap() - crowd.templates.cosine(0, 7).unwrap()).abs() < 1e-5);
    }

    #[test]
    fn files_are_read_back_and_damage_is_found() {
        let crowd = crowd(&Cause::SharedDirection.groups(90, 16), 2, 16, 0.8, 3);
        let transform = fitted(&crowd, &settings(0.02)).unwrap().transform;
        let bytes = transform.to_bytes();
        assert!(Transform::from_bytes(&bytes).unwrap() == transform);
        let mut damaged = bytes.clone();
        damaged[40] ^= 1;
        assert_eq!(Transform::from_bytes(&damaged), Err(FileError::Checksum));
        assert_eq!(Transform::from_bytes(&bytes[..50]), Err(FileError::Checksum));
        assert_eq!(Transform::from_bytes(b"vmrotate"), Err(FileError::Magic));
        let mut later = bytes.clone();
        later[8] = 9;
        assert_eq!(Transform::from_bytes(&later), Err(FileError::Version(9)));
        let mut nan = transform.clone();
        nan.matrix[3] = f32::NAN;
        assert!(matches!(Transform::from_bytes(&nan.to_bytes()), Err(FileError::Content(_))));
        let other = Embedding::normalised(vec![1.0; 32]).unwrap();
        assert_eq!(transform.apply(&other), Err(EvaluationError::Dimension { found: 32, expected: 16 }));
        let own = Embedding::normalised(crowd.templates.row(0).unwrap().to_vec()).unwrap();
        let all = transform.apply_all(&crowd.templates).unwrap();
        assert_eq!(transform.apply(&own).unwrap().values(), all.row(0).unwrap());
    }

    #[test]
    fn too_few_people_are_refused() {
        let small = crowd(&Cause::SharedDirection.groups(30, 16), 2, 16, 0.8, 3);
        assert!(matches!(fitted(&small, &settings(0.02)), Err(EvaluationError::TooFew { .. })));
        let one = crowd(&Cause::SharedDirection.groups(100, 16)[..1], 2, 16, 0.8, 3);
        assert!(matches!(fitted(&one, &settings(0.02)), Err(EvaluationError::TooFew { what: "groups", .. })));
        let enough = crowd(&Cause::SharedDirection.groups(90, 16), 2, 16, 0.8, 3);
        assert!(matches!(fitted(&enough, &settings(1e-6)), Err(EvaluationError::TooFew { .. })));
    }
}
