//! Ciphertexts as the matcher holds them: packed groups and probes, and how their parts are added up.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;
use veilmatch_domain::{Dimension, Epoch, GroupId, Part, Revision};
use veilmatch_kernels::{
    BodyLayout, FoldedSums, Kernel, LengthError, PackingError, Ring, ScanProbe, from_bytes, scan_folded, to_bytes,
};
use veilmatch_secret::{Digest, Hasher};

use crate::{GroupSums, Layout, Masks, Parameters, PartPayload, Stage};

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

/// Transformed polynomials as bytes: little-endian words. Packing them to 31 bits would save 3 % and cost more time than
/// sending the rest.
#[must_use]
pub fn encode_polynomials(residues: &[u32]) -> Vec<u8> {
    to_bytes(residues)
}

/// `polynomials`·N residues from bytes.
///
/// # Errors
/// [`PackingError`] on another length or a value that is not canonical.
pub fn decode_polynomials(parameters: &Parameters, bytes: &[u8], polynomials: usize) -> Result<Vec<u32>, PackingError> {
    from_bytes(parameters.modulus, bytes, polynomials.saturating_mul(parameters.degree))
}

/// What the two holders of a part compare, and the matcher with them: a digest over the polynomials' bytes.
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
    /// Transformed residues in the order of the scan ([`BodyLayout`]): of all J blocks, or of the first ones if there are
    /// cold ones.
    pub bodies: Bodies,
    /// The other blocks, if they lie apart.
    pub cold: Option<ColdBodies>,
}

/// The last blocks of a group, apart from the first ones: what a preselection reads of candidates alone (DESIGN 6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColdBodies {
    /// The first block here.
    pub from: usize,
    /// Its residues and those of the blocks behind it, in the order of the scan.
    pub bodies: Bodies,
}

/// Bodies in one segment, or in two: what is hot, and what is cold.
pub type Segments = (Bodies, Option<ColdBodies>);

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

    /// As [`arranged`](Self::arranged), the first `hot` blocks apart from the others if it is not `None`.
    ///
    /// # Errors
    /// [`LengthError`] if there is another number of residues, or `hot` is not between 1 and J − 1.
    pub fn segmented(
        parameters: &Parameters,
        layout: Layout,
        dimension: Dimension,
        hot: Option<usize>,
        natural: &[u32],
    ) -> Result<Segments, LengthError> {
        let Some(hot) = hot else { return Ok((Self::arranged(parameters, layout, dimension, natural)?, None)) };
        let rest = layout.blocks(dimension).checked_sub(hot).ok_or(LengthError)?;
        let residues = hot.saturating_mul(layout.rank()).saturating_mul(parameters.degree);
        let (first, others) = natural.split_at_checked(residues).ok_or(LengthError)?;
        let first = body_layout(parameters, layout, hot)?.arrange(first)?;
        let others = body_layout(parameters, layout, rest)?.arrange(others)?;
        Ok((first.into(), Some(ColdBodies { from: hot, bodies: others.into() })))
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

    /// The probe in these blocks, and 0 in every other: sums over all blocks are then sums over these.
    ///
    /// # Errors
    /// [`LengthError`] if there are no such blocks of `degree` residues.
    pub fn only(&self, degree: usize, blocks: Range<usize>) -> Result<Self, LengthError> {
        let residues = blocks.start.saturating_mul(degree)..blocks.end.saturating_mul(degree);
        let of = |values: &[u32]| {
            let mut kept = vec![0u32; values.len()];
            let part = kept.get_mut(residues.clone()).ok_or(LengthError)?;
            part.copy_from_slice(values.get(residues.clone()).ok_or(LengthError)?);
            Ok(kept)
        };
        Ok(Self { masks: of(&self.masks)?, bodies: of(&self.bodies)? })
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
    scan_segments(parameters, ring, &[(probe, |group| &group.bodies)], groups)
}

/// `sum += more`, residues as little-endian words.
fn add_words(ring: &Ring, sum: &mut [u8], more: &[u8]) {
    for (word, more) in sum.as_chunks_mut::<4>().0.iter_mut().zip(more.as_chunks::<4>().0) {
        *word = ring.add(u32::from_le_bytes(*word), u32::from_le_bytes(*more)).to_le_bytes();
    }
}

/// A segment of every group, and the part of the probe that belongs to it.
type Segment<'p> = (&'p ScanProbe, fn(&PackedGroup) -> &[u32]);

/// The sums over some segments of groups of one block width, in the groups' order.
fn scan_segments(
    parameters: &Parameters,
    ring: &Ring,
    segments: &[Segment<'_>],
    groups: &[&PackedGroup],
) -> Result<Vec<GroupSums>, LengthError> {
    let kernel = Kernel::detect();
    let mut sums = Vec::with_capacity(groups.len());
    // Neighbours of one layout are scanned together.
    for alike in groups.chunk_by(|a, b| a.layout == b.layout) {
        let Some(layout) = alike.first().map(|group| group.layout) else { continue };
        let mut scanned: Option<Vec<FoldedSums>> = None;
        for (probe, of) in segments {
            let bodies: Vec<&[u32]> = alike.iter().map(|group| of(group)).collect();
            let body_layout = body_layout(parameters, layout, probe.blocks())?;
            let more = scan_folded(kernel, ring, body_layout, probe, layout.beta(), &bodies)?;
            let more: Vec<FoldedSums> = more.into_iter().flatten().collect();
            match &mut scanned {
                None => scanned = Some(more),
                // Folding is linear: sums of segments add up folded as well.
                Some(all) => all.par_iter_mut().zip(more).for_each(|(all, more)| {
                    add_words(ring, &mut all.whole, &more.whole);
                    add_words(ring, &mut all.folded, &more.folded);
                }),
            }
        }
        let scanned = scanned.filter(|all| all.len() == alike.len()).ok_or(LengthError)?;
        for (group, FoldedSums { whole: masks, folded: scores }) in alike.iter().zip(scanned) {
            sums.push(GroupSums { group: group.group, revision: group.revision, masks, scores });
        }
    }
    Ok(sums)
}

/// A probe for groups of one block width that lie in one segment or in two, prepared for each way in which they are cut.
#[derive(Debug)]
pub struct SegmentedProbe {
    whole: Option<ScanProbe>,
    /// By the first cold block.
    cut: BTreeMap<usize, [ScanProbe; 2]>,
}

fn cold_bodies(group: &PackedGroup) -> &[u32] {
    group.cold.as_ref().map(|cold| &*cold.bodies).unwrap_or_default()
}

impl SegmentedProbe {
    /// The probe for these groups.
    ///
    /// # Errors
    /// [`LengthError`] if masks and bodies are not equally many polynomials, or fewer than a group's hot blocks.
    pub fn new<'g>(
        parameters: &Parameters,
        ring: &Ring,
        probe: &ProbeCiphertext,
        groups: impl IntoIterator<Item = &'g PackedGroup>,
    ) -> Result<Self, LengthError> {
        let mut prepared = Self { whole: None, cut: BTreeMap::new() };
        for group in groups {
            match &group.cold {
                None if prepared.whole.is_none() => prepared.whole = Some(probe.prepare(ring)?),
                Some(cold) if !prepared.cut.contains_key(&cold.from) => {
                    let at = cold.from.checked_mul(parameters.degree).ok_or(LengthError)?;
                    let masks = probe.masks.split_at_checked(at).ok_or(LengthError)?;
                    let bodies = probe.bodies.split_at_checked(at).ok_or(LengthError)?;
                    let hot = ScanProbe::new(ring, &[masks.0, bodies.0])?;
                    prepared.cut.insert(cold.from, [hot, ScanProbe::new(ring, &[masks.1, bodies.1])?]);
                }
                _ => {}
            }
        }
        Ok(prepared)
    }

    /// The matcher's side of a stage of a query over groups of this block width, by ascending id. Reads the segments that
    /// the stage needs and no others. Uses the current rayon pool.
    ///
    /// # Errors
    /// [`LengthError`] if a group's bodies or the probe do not fit its layout, or a stage of a preselection is wanted of
    /// a group that lies in one segment.
    pub fn scan(
        &self,
        parameters: &Parameters,
        ring: &Ring,
        stage: Stage,
        groups: &[&PackedGroup],
    ) -> Result<Vec<GroupSums>, LengthError> {
        let (apart, whole): (Vec<&PackedGroup>, Vec<&PackedGroup>) =
            groups.iter().partition(|group| group.cold.is_some());
        let mut sums = Vec::with_capacity(groups.len());
        if !whole.is_empty() {
            let probe = self.whole.as_ref().filter(|_| stage == Stage::Whole).ok_or(LengthError)?;
            sums.extend(scan_groups(parameters, ring, probe, &whole)?);
        }
        let cut = |group: &PackedGroup| group.cold.as_ref().map(|cold| cold.from);
        for alike in apart.chunk_by(|a, b| cut(a) == cut(b)) {
            let from = alike.first().and_then(|group| cut(group)).ok_or(LengthError)?;
            let [hot, cold] = self.cut.get(&from).ok_or(LengthError)?;
            let segments: [Segment<'_>; 2] = [(hot, |group| &group.bodies), (cold, cold_bodies)];
            let segments = match stage {
                Stage::Whole => &segments[..],
                Stage::Coarse => &segments[..1],
                Stage::Rest => &segments[1..],
            };
            sums.extend(scan_segments(parameters, ring, segments, alike)?);
        }
        sums.sort_unstable_by_key(|sums| sums.group);
        Ok(sums)
    }
}
