//! Ciphertexts as the matcher holds them: packed groups and probes, and how their parts are added up.

use std::sync::Arc;

use veilmatch_domain::{Dimension, Epoch, GroupId, Part, Revision};
use veilmatch_kernels::{
    BodyLayout, FoldedSums, Kernel, LengthError, PackingError, Ring, ScanProbe, pack, packed_bytes, scan_folded, unpack,
};
use veilmatch_secret::{Digest, Hasher};

use crate::{GroupSums, Layout, Masks, Parameters, PartPayload};

/// Why three parts are not a ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CiphertextError {
    /// The bytes are not the expected number of canonical residues.
    #[error("{part} is not a list of residues of the expected length")]
    Malformed {
        /// Which part.
        part: Part,
    },
    /// A copy of the part is missing: its sender's polynomials or the other holder's digest.
    #[error("{part} is incomplete")]
    Missing {
        /// Which part.
        part: Part,
    },
    /// The polynomials and the digest, which come from two holders, do not agree.
    #[error("the two holders of {part} disagree")]
    Disagree {
        /// Which part.
        part: Part,
    },
}

impl CiphertextError {
    /// The part in question; its two holders are the suspects.
    #[must_use]
    pub fn part(&self) -> Part {
        match *self {
            Self::Malformed { part } | Self::Missing { part } | Self::Disagree { part } => part,
        }
    }
}

/// Transformed polynomials as bytes, densely packed.
#[must_use]
pub fn encode_polynomials(parameters: &Parameters, residues: &[u32]) -> Vec<u8> {
    pack(parameters.modulus, residues)
}

/// `polynomials`·N residues from bytes.
///
/// # Errors
/// [`PackingError`] on another length or a value that is not canonical.
pub fn decode_polynomials(parameters: &Parameters, bytes: &[u8], polynomials: usize) -> Result<Vec<u32>, PackingError> {
    if bytes.len() != packed_bytes(parameters.modulus, polynomials.saturating_mul(parameters.degree)) {
        return Err(PackingError::Length);
    }
    unpack(parameters.modulus, bytes, polynomials * parameters.degree)
}

/// What the two holders of a part compare, and the matcher with them: a digest over the packed polynomials.
#[must_use]
pub fn body_digest(part: Part, packed: &[u8]) -> Digest {
    Hasher::new("veilmatch/glwe/body").number(part.index() as u64).field(packed).finish()
}

/// Adds up three parts, each of which came as polynomials from one holder and as a digest from the other.
///
/// # Errors
/// [`CiphertextError`] naming the part whose copies are missing, malformed or different.
pub fn sum_parts(
    parameters: &Parameters,
    ring: &Ring,
    polynomials: usize,
    parts: &[(Option<&PartPayload>, Option<&PartPayload>); 3],
) -> Result<Vec<u32>, CiphertextError> {
    let mut sum = vec![0u32; polynomials * parameters.degree];
    for (part, copies) in Part::ALL.into_iter().zip(parts) {
        let (Some(PartPayload::Polynomials(bytes)), Some(PartPayload::Digest(digest))) = copies else {
            return Err(CiphertextError::Missing { part });
        };
        if body_digest(part, bytes) != *digest {
            return Err(CiphertextError::Disagree { part });
        }
        let residues =
            decode_polynomials(parameters, bytes, polynomials).map_err(|_| CiphertextError::Malformed { part })?;
        ring.add_assign(&mut sum, &residues);
    }
    Ok(sum)
}

/// The bodies of a packed group: all that the scan reads. The masks belong to the holders' side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedGroup {
    /// Which group.
    pub group: GroupId,
    /// Which rebuild of it.
    pub revision: Revision,
    /// The key epoch of its secrets.
    pub epoch: Epoch,
    /// Its layout.
    pub layout: Layout,
    /// J·r·N transformed residues in the order of the scan ([`BodyLayout`]).
    pub bodies: Bodies,
}

/// Residues that a scan reads: in memory, or in a memory-mapped file of the packed index. Cheap to clone.
#[derive(Clone)]
pub struct Bodies(Arc<dyn AsRef<[u32]> + Send + Sync>);

impl Bodies {
    /// The bodies of a group, J·r·N transformed residues with body (j, k) at (j·r + k)·N, put into the order of the scan.
    ///
    /// # Errors
    /// [`LengthError`] if there is another number of residues.
    pub fn arranged(
        parameters: &Parameters,
        layout: Layout,
        dimension: Dimension,
        natural: &[u32],
    ) -> Result<Self, LengthError> {
        Ok(body_layout(parameters, layout, layout.blocks(dimension))?.arrange(natural)?.into())
    }

    /// Residues that somebody else owns, a mapped file say.
    #[must_use]
    pub fn shared(owner: Arc<dyn AsRef<[u32]> + Send + Sync>) -> Self {
        Self(owner)
    }
}

impl From<Vec<u32>> for Bodies {
    fn from(residues: Vec<u32>) -> Self {
        Self(Arc::new(residues))
    }
}

impl std::ops::Deref for Bodies {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        (*self.0).as_ref()
    }
}

impl std::fmt::Debug for Bodies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bodies({} residues)", self.len())
    }
}

impl PartialEq for Bodies {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Bodies {}

/// A probe for one block width.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeCiphertext {
    /// J·N residues: the masks a^p_j, transformed.
    pub masks: Vec<u32>,
    /// J·N residues: the bodies b^p_j, transformed.
    pub bodies: Vec<u32>,
}

impl ProbeCiphertext {
    /// A probe with these masks.
    #[must_use]
    pub fn new(masks: Masks, bodies: Vec<u32>) -> Self {
        Self { masks: masks.values, bodies }
    }
}

fn body_layout(parameters: &Parameters, layout: Layout, blocks: usize) -> Result<BodyLayout, LengthError> {
    BodyLayout::new(parameters.degree, parameters.modulus, blocks, layout.rank())
}

impl ProbeCiphertext {
    /// The probe in the order of the scan, prepared once for all groups of its block width.
    ///
    /// # Errors
    /// [`LengthError`] if masks and bodies are not equally many polynomials.
    pub fn prepare(&self, ring: &Ring) -> Result<ScanProbe, LengthError> {
        ScanProbe::new(ring, &[&self.masks, &self.bodies])
    }
}

impl PackedGroup {
    /// The matcher's side of the scan of this group: A_k whole, B_k folded to N/β values; nothing is transformed back.
    ///
    /// # Errors
    /// As [`scan_groups`].
    pub fn scan(
        &self,
        parameters: &Parameters,
        ring: &Ring,
        probe: &ProbeCiphertext,
    ) -> Result<GroupSums, LengthError> {
        let mut sums = scan_groups(parameters, ring, &probe.prepare(ring)?, &[self])?;
        sums.pop().ok_or(LengthError)
    }
}

/// The matcher's side of the scan of groups of one block width (DESIGN 3.5), in their order. Uses the current rayon pool.
///
/// # Errors
/// [`LengthError`] if a group's bodies or the probe do not fit its layout.
pub fn scan_groups(
    parameters: &Parameters,
    ring: &Ring,
    probe: &ScanProbe,
    groups: &[&PackedGroup],
) -> Result<Vec<GroupSums>, LengthError> {
    let kernel = Kernel::detect();
    let mut sums = Vec::with_capacity(groups.len());
    // Neighbours of one layout are scanned together.
    for alike in groups.chunk_by(|a, b| a.layout == b.layout) {
        let Some(layout) = alike.first().map(|group| group.layout) else { continue };
        let bodies: Vec<&[u32]> = alike.iter().map(|group| &*group.bodies).collect();
        let body_layout = body_layout(parameters, layout, probe.blocks())?;
        let scanned = scan_folded(kernel, ring, body_layout, probe, layout.beta(), &bodies)?;
        for (group, pairs) in alike.iter().zip(scanned) {
            let [of_probe] = <[FoldedSums; 1]>::try_from(pairs).map_err(|_| LengthError)?;
            let (masks, scores) = (of_probe.whole, of_probe.folded);
            sums.push(GroupSums { group: group.group, revision: group.revision, masks, scores });
        }
    }
    Ok(sums)
}
