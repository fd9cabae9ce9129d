//! The scan check of the matcher's sums and this holder's shares of the scores, away from the session: a function of what it
//! is given (DESIGN 3.5).
//!
//! A stage is a range of blocks (DESIGN 6). The probe is taken to be 0 in every other block: the mask side D and E and both
//! sides of the scan check then run over the blocks of the stage alone, with the registered check vectors and masks as
//! they are. The scores of the coarse stage are kept modulo q, not rounded; added to those of the remaining blocks they
//! are this holder's shares of the full scores, as if there had been one stage.

use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use veilmatch_domain::{Epoch, GroupId, Party, SessionId, TemplateDigest, Threshold};
use veilmatch_glwe::{GroupSums, Parameters, ProbeCiphertext, Stage};
use veilmatch_kernels::{Ring, ScanProbe, to_bytes};
use veilmatch_secret::{Digest, Hasher, Label, Secret};

use crate::HolderError;
use crate::keys::SecretParts;
use crate::masks::MaskRoom;
use crate::registry::{Scope, ServedGroup};
use crate::scan_check::{CheckSum, LeftSide, check_sum};
use crate::scores::{Factors, ShareInputs, decode_sums, score_shares};

/// Shares of the scores, and the digest of everything that they depend on.
pub(crate) struct Shares {
    /// On the decision torus, with the threshold subtracted, one per lane of the scope.
    pub(super) shares: Secret<Vec<u64>>,
    /// After the coarse stage: the shares modulo q, without the threshold.
    pub(super) coarse: Option<Secret<Vec<u32>>>,
    pub(super) agreement: Digest,
}

/// What the scan check and the shares of scores are computed from.
pub(super) struct Sharing {
    pub(super) stage: Stage,
    /// m: where the blocks of the coarse stage end. Of no use to a decision in one stage.
    pub(super) coarse_dimensions: usize,
    /// What the coarse stage left, lane by lane of the scope; for the stage that finishes.
    pub(super) coarse: Option<Secret<Vec<u32>>>,
    pub(super) party: Party,
    pub(super) parameters: Parameters,
    pub(super) ring: Arc<Ring>,
    pub(super) room: Arc<MaskRoom>,
    pub(super) session: SessionId,
    pub(super) digest: TemplateDigest,
    pub(super) view: Digest,
    pub(super) threshold: Threshold,
    pub(super) scope: Arc<Scope>,
    /// By block width.
    pub(super) probes: BTreeMap<usize, Probe>,
    pub(super) probe_secret: Arc<SecretParts>,
    /// By epoch of the groups, then by body.
    pub(super) secrets: BTreeMap<Epoch, Vec<Arc<SecretParts>>>,
    pub(super) groups: Vec<GroupSums>,
}

/// The probe for one block width.
pub(super) struct Probe {
    pub(super) ciphertext: Arc<ProbeCiphertext>,
    /// ΣC over the groups of this width in the scope, if it is known already.
    pub(super) check: Option<CheckSum>,
}

/// What the sums of one group came to.
struct OfGroup {
    shares: Secret<Vec<u64>>,
    coarse: Option<Secret<Vec<u32>>>,
    left: LeftSide,
    digest: Digest,
}

impl Sharing {
    pub(super) fn run(self) -> Result<Shares, HolderError> {
        let mut named: BTreeMap<GroupId, &GroupSums> = BTreeMap::new();
        for sums in &self.groups {
            if named.insert(sums.group, sums).is_some() {
                return Err(HolderError::BadSums { what: "a group appears twice" });
            }
        }
        let mut work: Vec<(&ServedGroup, &GroupSums, Range<usize>)> = Vec::with_capacity(self.scope.groups.len());
        let mut lanes = 0;
        for served in &self.scope.groups {
            let group = served.group.group;
            let sums = named.get(&group).copied().ok_or(HolderError::GroupLeftOut { group })?;
            work.push((served, sums, lanes..lanes + served.slots.len()));
            lanes += served.slots.len();
        }
        let factors: BTreeMap<Epoch, Factors> = self
            .secrets
            .iter()
            .map(|(epoch, secrets)| (*epoch, Factors::new(&self.ring, &self.probe_secret, secrets)))
            .collect();
        let mut prepared: BTreeMap<usize, (Arc<ProbeCiphertext>, ScanProbe)> = BTreeMap::new();
        for (&beta, probe) in &self.probes {
            let of_stage = self.of_stage(beta, &probe.ciphertext)?;
            let for_scan = of_stage.prepare(&self.ring).map_err(|_| HolderError::BadSlots)?;
            prepared.insert(beta, (of_stage, for_scan));
        }
        let of_group = |(served, sums, lanes): &(&ServedGroup, &GroupSums, Range<usize>)| {
            self.group(served, sums, lanes, &factors, &prepared)
        };
        let parts: Vec<OfGroup> = work.par_iter().map(of_group).collect::<Result<_, _>>()?;

        for (&beta, probe) in &self.probes {
            let folding = self.ring.folding(beta).ok_or(HolderError::BadSlots)?;
            let of_width = || work.iter().zip(&parts).filter(|((served, ..), _)| served.group.layout.beta() == beta);
            let mut left = LeftSide::empty(&self.ring, folding);
            of_width().for_each(|(_, part)| left.add(&self.ring, &part.left));
            let check = match &probe.check {
                Some(check) => Arc::clone(check),
                None => check_sum(&self.ring, of_width().map(|((served, ..), _)| served.group.as_ref())),
            };
            let agrees = prepared.get(&beta).is_some_and(|(probe, _)| left.agrees(&self.ring, folding, probe, &check));
            if !agrees {
                return Err(HolderError::ScanCheck);
            }
        }
        let mut shares = Secret::new(Vec::with_capacity(self.scope.lanes));
        parts.iter().for_each(|part| shares.expose_mut().extend_from_slice(part.shares.expose()));
        let coarse = (self.stage == Stage::Coarse).then(|| {
            let mut coarse = Secret::new(Vec::with_capacity(self.scope.lanes));
            let of_groups = parts.iter().filter_map(|part| part.coarse.as_ref());
            of_groups.for_each(|shares| coarse.expose_mut().extend_from_slice(shares.expose()));
            coarse
        });
        Ok(Shares { shares, coarse, agreement: self.agreement(&parts) })
    }

    /// The probe in the blocks of this stage, and 0 in the others.
    fn of_stage(&self, beta: usize, probe: &Arc<ProbeCiphertext>) -> Result<Arc<ProbeCiphertext>, HolderError> {
        let (n, coarse) = (self.parameters.degree, self.coarse_dimensions / beta);
        let blocks = match self.stage {
            Stage::Whole => return Ok(Arc::clone(probe)),
            Stage::Coarse => 0..coarse,
            Stage::Rest => coarse..probe.bodies.len() / n,
        };
        Ok(Arc::new(probe.only(n, blocks).map_err(|_| HolderError::BadSlots)?))
    }

    /// One pass over a group's sums, which stay in a core's cache: decoding, digest, left side of the check, shares.
    fn group(
        &self,
        served: &ServedGroup,
        sums: &GroupSums,
        lanes: &Range<usize>,
        factors: &BTreeMap<Epoch, Factors>,
        probes: &BTreeMap<usize, (Arc<ProbeCiphertext>, ScanProbe)>,
    ) -> Result<OfGroup, HolderError> {
        let (group, layout) = (&served.group, served.group.layout);
        let decoded = decode_sums(&self.parameters, layout, sums)?;
        let digest = Label::new("veilmatch/query/sums")
            .number(sums.group.0)
            .number(sums.revision.0.into())
            .bytes(&sums.masks)
            .bytes(&sums.scores)
            .digest();
        let folding = self.ring.folding(layout.beta()).ok_or(HolderError::BadSlots)?;
        let (Some((_, probe)), Some(factors)) = (probes.get(&layout.beta()), factors.get(&group.epoch)) else {
            return Err(HolderError::BadSlots);
        };
        let mut left = LeftSide::empty(&self.ring, folding);
        left.add_group(&self.parameters, &self.ring, group, &decoded.masks, &decoded.scores);
        let masks = group.masks.values(&self.parameters, layout, group.dimension, &self.room);
        let inputs = ShareInputs {
            party: self.party,
            parameters: &self.parameters,
            ring: &self.ring,
            folding,
            layout,
            masks: &masks,
            probe,
            factors,
            slots: &served.slots,
            threshold: self.threshold,
            coarse: self.coarse.as_ref().map(|coarse| coarse.expose().get(lanes.clone()).unwrap_or_default()),
        };
        let mut coarse = (self.stage == Stage::Coarse).then(|| Secret::new(Vec::with_capacity(lanes.len())));
        let shares = score_shares(&inputs, &decoded, coarse.as_mut()).map_err(|_| HolderError::BadSlots)?;
        Ok(OfGroup { shares, coarse, left, digest })
    }

    /// H(session ‖ stage ‖ signed request ‖ registry ‖ probe ‖ groups, revisions, A, B): everything the answer depends on.
    fn agreement(&self, parts: &[OfGroup]) -> Digest {
        let mut hasher = Hasher::new("veilmatch/query/agreement");
        hasher.field(&self.session.0).number(self.stage as u64).field(&self.digest.0);
        hasher.field(&self.view.0);
        for (beta, probe) in &self.probes {
            hasher.number(*beta as u64).field(&to_bytes(&probe.ciphertext.bodies));
        }
        // In the matcher's order, so that holders that agree have had the same message.
        let digests: BTreeMap<GroupId, &Digest> =
            self.scope.groups.iter().zip(parts).map(|(served, part)| (served.group.group, &part.digest)).collect();
        for digest in self.groups.iter().filter_map(|sums| digests.get(&sums.group)) {
            hasher.field(&digest.0);
        }
        hasher.finish()
    }
}
