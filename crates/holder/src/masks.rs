//! The public masks of registered groups: their seeds, and what they expand to while there is room.
//!
//! Expanded masks take 4·d/β·N bytes per group, 128 bytes per template at β = 4, r = 16 and d = 512. They are public and
//! can be expanded again at any time, so a bound on what is kept costs time alone. What came first stays: a query goes
//! through all groups in order, and a cache that drops the least recently used would drop everything once it is too small.

use borsh::{BorshDeserialize, BorshSerialize};
use std::borrow::Cow;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use veilmatch_domain::Dimension;
use veilmatch_glwe::{Layout, MaskSeed, Masks, Parameters};
use veilmatch_kernels::BodyLayout;

/// How many bytes of expanded masks a holder keeps, over all collections.
#[derive(Debug)]
pub(crate) struct MaskRoom {
    limit: AtomicUsize,
    used: AtomicUsize,
}

impl MaskRoom {
    /// Room for `limit` bytes.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: AtomicUsize::new(limit), used: AtomicUsize::new(0) })
    }

    /// Changes the limit. What is kept already stays.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    fn reserve(self: &Arc<Self>, values: Vec<u32>) -> Result<Kept, Vec<u32>> {
        let bytes = size_of_val(values.as_slice());
        let limit = self.limit.load(Ordering::Relaxed);
        let grown = |used: usize| used.checked_add(bytes).filter(|total| *total <= limit);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown) {
            Ok(_) => Ok(Kept { values, room: Arc::clone(self) }),
            Err(_) => Err(values),
        }
    }
}

/// Masks that room was found for; gives it back on drop.
struct Kept {
    values: Vec<u32>,
    room: Arc<MaskRoom>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.room.used.fetch_sub(size_of_val(self.values.as_slice()), Ordering::Relaxed);
    }
}

/// The masks of a group: their seed, and what it expands to once that was needed and if there was room.
pub(crate) struct GroupMasks {
    seed: MaskSeed,
    kept: OnceLock<Kept>,
}

impl BorshSerialize for GroupMasks {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        self.seed.serialize(writer)
    }
}

impl BorshDeserialize for GroupMasks {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        Ok(Self { seed: MaskSeed::deserialize_reader(reader)?, kept: OnceLock::new() })
    }
}

impl GroupMasks {
    /// Of a group that has none.
    pub(crate) fn none() -> Self {
        Self { seed: MaskSeed([0; 32]), kept: OnceLock::new() }
    }

    /// Masks that are expanded already; kept if there is room.
    pub(crate) fn expanded(parameters: &Parameters, masks: &Masks, room: &Arc<MaskRoom>) -> Self {
        let kept = room.reserve(arranged(parameters, &masks.values)).map(OnceLock::from).unwrap_or_default();
        Self { seed: masks.seed, kept }
    }

    /// J·N transformed residues in the order of a scan of rank 1: those that are kept, or expanded anew.
    pub(crate) fn values(
        &self,
        parameters: &Parameters,
        layout: Layout,
        dimension: Dimension,
        room: &Arc<MaskRoom>,
    ) -> Cow<'_, [u32]> {
        if let Some(kept) = self.kept.get() {
            return Cow::Borrowed(&kept.values);
        }
        match room.reserve(arranged(parameters, &self.seed.expand(parameters, layout, dimension).values)) {
            // Of two queries that expand at once, one keeps its values; they are the same.
            Ok(kept) => Cow::Borrowed(&self.kept.get_or_init(|| kept).values),
            Err(values) => Cow::Owned(values),
        }
    }
}

/// Masks in the order in which a scan reads them as the bodies of a group of rank 1; nothing if they are no whole
/// polynomials, which the scan refuses.
fn arranged(parameters: &Parameters, masks: &[u32]) -> Vec<u32> {
    BodyLayout::new(parameters.degree, parameters.modulus, masks.len() / parameters.degree, 1)
        .and_then(|layout| layout.arrange(masks))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use veilmatch_glwe::GLWE_2048_V1;

    #[test]
    fn masks_are_the_same_with_and_without_room_and_the_bound_holds() {
        let p = GLWE_2048_V1;
        let (layout, dimension) = (Layout::new(16, 1).unwrap(), Dimension::new(64).unwrap());
        let bytes = 4 * layout.blocks(dimension) * p.degree;
        let expand = |i: u8| MaskSeed([i; 32]).expand(&p, layout, dimension);
        let order = |i: u8| arranged(&p, &expand(i).values);
        let room = MaskRoom::new(2 * bytes);
        let groups: Vec<GroupMasks> =
            (0..3).map(|i| GroupMasks { seed: expand(i).seed, kept: OnceLock::new() }).collect();
        for _ in 0..2 {
            for (i, group) in groups.iter().enumerate() {
                let values = group.values(&p, layout, dimension, &room);
                assert_eq!(*values, *order(i as u8));
                assert_eq!(matches!(values, Cow::Borrowed(_)), i < 2, "the first two are kept");
            }
            assert_eq!(room.used.load(Ordering::Relaxed), 2 * bytes);
        }
        // A group that is gone makes room for another.
        let mut groups = groups.into_iter();
        drop(groups.next());
        assert_eq!(room.used.load(Ordering::Relaxed), bytes);
        let last = groups.next_back().unwrap();
        assert!(matches!(last.values(&p, layout, dimension, &room), Cow::Borrowed(_)));
        let built = GroupMasks::expanded(&p, &expand(9), &room);
        assert!(built.kept.get().is_none(), "no room is left");
        assert_eq!(*built.values(&p, layout, dimension, &room), *order(9));
    }
}
