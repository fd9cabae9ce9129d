//! Layouts (β, r) as run-time values (DESIGN 3.4).

use borsh::{BorshDeserialize, BorshSerialize};
use std::io;
use veilmatch_domain::{Dimension, Explain, Status};

use crate::Parameters;

/// Most bodies that share one mask.
pub const MAX_RANK: usize = 32;
const MAX_BETA: usize = 256;

/// How templates are packed: blocks of β dimensions, r bodies per mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize)]
pub struct Layout {
    beta: u16,
    rank: u16,
}

/// Why (β, r) is not a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// β is not a power of two between 1 and 256.
    #[error("block width {0} is not a power of two between 1 and {MAX_BETA}")]
    Beta(usize),
    /// r is not between 1 and [`MAX_RANK`].
    #[error("rank {0} is not between 1 and {MAX_RANK}")]
    Rank(usize),
}

impl Explain for LayoutError {
    fn code(&self) -> &'static str {
        "bad-layout"
    }
    fn status(&self) -> Status {
        Status::InvalidArgument
    }
    fn advice(&self) -> &'static str {
        "use a power of two up to 256 for beta and 1 to 32 for the rank; (4, 16) suits a large gallery"
    }
}

/// Where a slot lies: body k, position t (the score is the coefficient β·t of body k).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotPlace {
    /// k, the body.
    pub body: usize,
    /// t, the position within the body.
    pub position: usize,
}

impl Layout {
    /// Checks β and r.
    ///
    /// # Errors
    /// [`LayoutError`] naming the value that is out of range.
    pub fn new(beta: usize, rank: usize) -> Result<Self, LayoutError> {
        if !beta.is_power_of_two() || beta > MAX_BETA {
            return Err(LayoutError::Beta(beta));
        }
        if rank == 0 || rank > MAX_RANK {
            return Err(LayoutError::Rank(rank));
        }
        Ok(Self { beta: beta as u16, rank: rank as u16 })
    }

    /// β, the dimensions per block.
    #[must_use]
    pub fn beta(self) -> usize {
        self.beta.into()
    }

    /// r, the bodies per mask.
    #[must_use]
    pub fn rank(self) -> usize {
        self.rank.into()
    }

    /// J = ⌈d/β⌉, the blocks of a vector; the last one is padded with zeros.
    #[must_use]
    pub fn blocks(self, dimension: Dimension) -> usize {
        dimension.get().div_ceil(self.beta())
    }

    /// N/β, the templates per body.
    #[must_use]
    pub fn positions(self, parameters: &Parameters) -> usize {
        parameters.degree / self.beta()
    }

    /// r·N/β, the templates per group.
    #[must_use]
    pub fn capacity(self, parameters: &Parameters) -> usize {
        self.rank() * self.positions(parameters)
    }

    /// Where a slot lies; `None` beyond the capacity.
    #[must_use]
    pub fn place(self, parameters: &Parameters, slot: usize) -> Option<SlotPlace> {
        let positions = self.positions(parameters);
        (slot < self.capacity(parameters)).then(|| SlotPlace { body: slot / positions, position: slot % positions })
    }
}

impl BorshDeserialize for Layout {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let (beta, rank) = (u16::deserialize_reader(reader)?, u16::deserialize_reader(reader)?);
        Self::new(beta.into(), rank.into()).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GLWE_2048_V1;

    #[test]
    fn capacity_blocks_and_places() {
        let layout = Layout::new(4, 16).unwrap();
        assert_eq!(layout.capacity(&GLWE_2048_V1), 8192);
        assert_eq!(layout.blocks(Dimension::new(512).unwrap()), 128);
        assert_eq!(layout.blocks(Dimension::new(65).unwrap()), 17);
        assert_eq!(layout.place(&GLWE_2048_V1, 513), Some(SlotPlace { body: 1, position: 1 }));
        assert_eq!(layout.place(&GLWE_2048_V1, 8192), None);
    }

    #[test]
    fn refuses_other_values_on_the_wire_too() {
        for (beta, rank) in [(0usize, 1usize), (3, 1), (512, 1), (4, 0), (4, 33)] {
            assert!(Layout::new(beta, rank).is_err());
            let bytes = borsh::to_vec(&(beta as u16, rank as u16)).unwrap();
            assert!(borsh::from_slice::<Layout>(&bytes).is_err());
        }
    }
}
