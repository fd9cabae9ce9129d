//! A rotation as bytes: magic, version, content, checksum.
//!
//! `vmrotate`, the version as u16, then borsh of dimension, origin, energies and matrix, then a digest of all before it. The
//! digest finds damage, not malice; a matrix that is not orthogonal is refused whoever made it.

use borsh::{BorshDeserialize, BorshSerialize};
use veilmatch_domain::{Dimension, Explain, Status};
use veilmatch_secret::Hasher;

use crate::{Origin, Rotation};

const MAGIC: &[u8; 8] = b"vmrotate";
const VERSION: u16 = 1;
const CHECKSUM: usize = 32;
/// How far from orthogonal the matrix may be, entry by entry of R·Rᵀ − 1.
const TOLERANCE: f64 = 1e-4;

/// Why bytes are no rotation.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Another kind of file.
    #[error("not a rotation")]
    Magic,
    /// Made by a later version.
    #[error("version {0} of the format is not known; {VERSION} is")]
    Version(u16),
    /// Cut, or changed.
    #[error("damaged: the checksum is wrong")]
    Checksum,
    /// The checksum holds, but what it covers is not a rotation.
    #[error("malformed: {0}")]
    Content(&'static str),
}

impl Explain for FileError {
    fn code(&self) -> &'static str {
        match self {
            Self::Magic => "not-a-rotation",
            Self::Version(_) => "unknown-version",
            Self::Checksum => "damaged",
            Self::Content(_) => "bad-rotation",
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
            Self::Magic | Self::Content(_) => "give a file that `veilmatch rotation fit` has written",
            Self::Version(_) => "use the version of veilmatch that wrote it, or a later one",
            Self::Checksum => "copy the file again from where it was made",
        }
    }
}

#[derive(BorshSerialize, BorshDeserialize)]
struct Content {
    dimension: Dimension,
    origin: Origin,
    energy: Vec<f32>,
    matrix: Vec<f32>,
}

impl Rotation {
    /// The file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        let Self { dimension, origin, energy, matrix } = self.clone();
        // Writing into memory does not fail, and the numbers are finite.
        bytes.extend(borsh::to_vec(&Content { dimension, origin, energy, matrix }).unwrap_or_default());
        let checksum = checksum(&bytes);
        bytes.extend(checksum);
        bytes
    }

    /// Reads a file and checks it: checksum, sizes, and that the matrix is orthogonal to 10⁻⁴.
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
        let Content { dimension, origin, energy, matrix } =
            borsh::from_slice(content).map_err(|_| FileError::Content("it cannot be read"))?;
        let d = dimension.get();
        if energy.len() != d || matrix.len() != d * d {
            return Err(FileError::Content("the number of values is not the dimension's"));
        }
        if !energy.iter().all(|e| (0.0..=1.0).contains(e)) {
            return Err(FileError::Content("an energy is not between 0 and 1"));
        }
        let rotation = Self { dimension, origin, energy, matrix };
        if rotation.is_orthogonal(TOLERANCE) {
            Ok(rotation)
        } else {
            Err(FileError::Content("the matrix is not orthogonal"))
        }
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    Hasher::new("veilmatch/preselect/rotation").field(bytes).finish().0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotation::tests::uneven;

    fn resealed(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = Rotation::fit(&uneven(40, 16, 1)).unwrap().to_bytes();
        bytes.truncate(bytes.len() - CHECKSUM);
        change(&mut bytes);
        let sum = checksum(&bytes);
        bytes.extend(sum);
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        for rotation in [Rotation::fit(&uneven(40, 16, 1)).unwrap(), Rotation::random(Dimension::new(32).unwrap(), 5)] {
            assert_eq!(Rotation::from_bytes(&rotation.to_bytes()), Ok(rotation));
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_found() {
        let bytes = resealed(|_| ());
        assert!(Rotation::from_bytes(&bytes).is_ok());
        for cut in 0..bytes.len() {
            assert!(Rotation::from_bytes(&bytes[..cut]).is_err(), "{cut}");
        }
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            assert!(Rotation::from_bytes(&changed).is_err(), "{place}");
        }
        assert!(Rotation::from_bytes(&[bytes.as_slice(), b"x"].concat()).is_err());
    }

    #[test]
    fn what_a_checksum_cannot_see_is_refused_too() {
        assert_eq!(Rotation::from_bytes(&resealed(|b| b[8] = 2)), Err(FileError::Version(2)));
        assert_eq!(Rotation::from_bytes(b"VEILMATC\x01\x00"), Err(FileError::Magic));
        let reason = |bytes: Vec<u8>| match Rotation::from_bytes(&bytes) {
            Err(FileError::Content(reason)) => reason,
            other => panic!("{other:?}"),
        };
        // The last four bytes are an entry of the matrix.
        let entry = |value: f32| {
            move |b: &mut Vec<u8>| {
                let at = b.len() - 4;
                b[at..].copy_from_slice(&value.to_le_bytes());
            }
        };
        assert_eq!(reason(resealed(entry(0.9))), "the matrix is not orthogonal");
        assert_eq!(reason(resealed(entry(f32::INFINITY))), "the matrix is not orthogonal");
        assert_eq!(reason(resealed(entry(f32::NAN))), "it cannot be read");
        assert_eq!(reason(resealed(|b| b[10] = 17)), "the number of values is not the dimension's");
        assert_eq!(reason(resealed(|b| b.push(0))), "it cannot be read");
    }
}
