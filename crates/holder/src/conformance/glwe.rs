//! The scheme `glwe` under the conformance suite, and its noise measured on real ciphertexts.
//!
//! These tests run the holders' and the matcher's functions directly, without sessions, so that they can look at what
//! no party ever sees: scores. Nothing outside tests adds score shares.

use std::sync::Arc;

use rayon::prelude::*;
use veilmatch_conformance::{Case, Scheme, ScoreShares, at_cosine, random_unit, rng, run};
use veilmatch_domain::{
    ClientId, CollectionId, Decision, Dimension, Embedding, Epoch, GroupId, Part, Party, Purpose, Query, Revision,
    SubjectId, TemplateVersion, Threshold, Timestamp,
};
use veilmatch_glwe::{
    Bodies, GLWE_2048_V1, Layout, MaskSeed, PackedGroup, Parameters, ProbeCiphertext, SegmentedProbe, Stage,
    decision_noise, score_noise, uniform_residues,
};
use veilmatch_kernels::{BodyLayout, Ring};
use veilmatch_mpc::PairwiseSeeds;
use veilmatch_sealed::{
    Associated, ClientSigningKey, HolderPublicKey, SealedTemplate, expand_part, quantise, seal, split,
};
use veilmatch_secret::{Secret, Seed};

use crate::keys::{EpochKeys, SecretParts};
use crate::masks::{GroupMasks, MaskRoom};
use crate::recrypt::{PartOfMember, gallery_part, probe_part};
use crate::registry::RegisteredGroup;
use crate::scan_check::{CHECKS, CheckSums, LeftSide, check_sum, coefficients, combine_bodies};
use crate::scores::{DecodedSums, Factors, ShareInputs, decode_sums, score_shares};
use crate::unseal::{HolderSecretKey, unseal};

const P: Parameters = GLWE_2048_V1;

/// The three parts of a vector modulo 2^48.
type Parts = [Vec<u64>; 3];

/// One indexed group with everything that the three holders and the matcher have of it.
struct Indexed {
    packed: PackedGroup,
    registered: RegisteredGroup,
    /// Per member, in the order of enrolment.
    slots: Vec<usize>,
}

impl Indexed {
    /// The masks as the scan reads them.
    fn arranged_masks(&self) -> std::borrow::Cow<'_, [u32]> {
        let group = &self.registered;
        group.masks.values(&P, group.layout, group.dimension, &MaskRoom::new(0))
    }

    /// The masks block by block.
    fn masks(&self) -> Vec<u32> {
        let blocks = self.registered.layout.blocks(self.registered.dimension);
        BodyLayout::new(P.degree, P.modulus, blocks, 1).unwrap().restore(&self.arranged_masks()).unwrap()
    }
}

/// All parties' cryptography without their sessions.
struct Glwe {
    ring: Ring,
    keys: [EpochKeys; 3],
    holders: [HolderSecretKey; 3],
    public: [HolderPublicKey; 3],
    signer: ClientSigningKey,
    dimension: Dimension,
    groups: Vec<Indexed>,
    random: chacha20::ChaCha20Rng,
    sessions: u64,
}

fn epoch_keys(tag: u8) -> [EpochKeys; 3] {
    let seed = |i: usize| Seed::from_bytes([tag + (i % 3) as u8; 32]);
    Party::ALL.map(|p| EpochKeys {
        epoch: Epoch(0),
        seeds: PairwiseSeeds { own: seed(p.index()), next: seed(p.index() + 1) },
    })
}

/// The secret parts of a part: K_i's own.
fn part_secret(secrets: &[SecretParts; 3], part: Part) -> &[u32] {
    secrets[part.index()].own.expose()
}

impl Glwe {
    fn new(seed: u64) -> Self {
        let mut random = rng(seed);
        let holders = Party::ALL.map(|_| HolderSecretKey::random(&mut random));
        let public = holders.each_ref().map(|h| h.public_key().clone());
        let signer = ClientSigningKey::random(&mut random);
        Self {
            ring: P.ring(),
            keys: epoch_keys(10),
            holders,
            public,
            signer,
            dimension: Dimension::new(64).unwrap(),
            groups: Vec::new(),
            random,
            sessions: 0,
        }
    }

    fn seal(&mut self, embedding: &Embedding, purpose: Purpose) -> Vec<u8> {
        let associated = Associated {
            client: ClientId::new("gate").unwrap(),
            collection: CollectionId::new("c").unwrap(),
            purpose,
            dimension: embedding.dimension(),
            template_version: TemplateVersion(1),
            nonce: [0; 16],
            expires: Timestamp(1),
        };
        seal(embedding, associated, &self.public, &self.signer, &mut self.random).unwrap().0.to_bytes()
    }

    /// What the holders read, part by part; both holders of each part read the same.
    fn unseal(&self, bytes: &[u8]) -> Parts {
        let sealed = SealedTemplate::from_bytes(bytes).unwrap();
        let opened = Party::ALL.map(|p| unseal(p, &self.holders[p.index()], &self.public, &sealed).unwrap());
        for i in 0..3 {
            assert_eq!(opened[i].next.expose(), opened[(i + 1) % 3].own.expose());
        }
        opened.each_ref().map(|o| o.own.expose().clone())
    }

    fn index_parts(&mut self, layout: Layout, members: &[Parts]) {
        let group = GroupId(self.groups.len() as u64);
        let collection = CollectionId::new("c").unwrap();
        let masks = MaskSeed([self.groups.len() as u8 + 1; 32]).expand(&P, layout, self.dimension);
        let check_seed = Seed::from_bytes([self.groups.len() as u8 + 100; 32]);
        let secrets: Vec<[SecretParts; 3]> = (0..layout.rank())
            .map(|k| self.keys.each_ref().map(|keys| keys.gallery_secret(&P, &self.ring, &collection, k)))
            .collect();
        // Fill from the last slot down, so that slots and order differ.
        let slots: Vec<usize> =
            (0..members.len()).map(|i| layout.capacity(&P) - 1 - i * 2 % layout.capacity(&P)).collect();
        let slots = if members.len() * 2 > layout.capacity(&P) { (0..members.len()).collect() } else { slots };
        let blocks = layout.blocks(self.dimension);
        let mut bodies = vec![0u32; blocks * layout.rank() * P.degree];
        for part in Part::ALL {
            let secrets: Vec<&[u32]> = secrets.iter().map(|s| part_secret(s, part)).collect();
            let parts: Vec<PartOfMember<'_>> = members
                .iter()
                .zip(&slots)
                .map(|(m, &slot)| PartOfMember { place: layout.place(&P, slot).unwrap(), values: &m[part.index()] })
                .collect();
            let seed = &self.keys[part.index()].seeds.own;
            let body = gallery_part(&P, &self.ring, layout, &masks, seed, &secrets, &parts);
            self.ring.add_assign(&mut bodies, &body);
        }
        let checks = std::array::from_fn::<_, CHECKS, _>(|check| {
            let rho = coefficients(&P, &check_seed, check, layout);
            combine_bodies(&P, &self.ring, layout, &rho, &bodies)
        });
        let registered = RegisteredGroup {
            group,
            revision: Revision(0),
            epoch: Epoch(0),
            layout,
            members: Vec::new(),
            dimension: self.dimension,
            masks: GroupMasks::expanded(&P, &masks, &MaskRoom::new(usize::MAX)),
            check_seed,
            checks,
        };
        let bodies = Bodies::arranged(&P, layout, self.dimension, &bodies).unwrap();
        let packed = PackedGroup { group, revision: Revision(0), epoch: Epoch(0), layout, bodies, cold: None };
        self.groups.push(Indexed { packed, registered, slots });
    }

    /// The probe for one block width, and the parts of its secret.
    fn probe(&mut self, layout: Layout, parts: &Parts) -> (ProbeCiphertext, [SecretParts; 3]) {
        self.sessions += 1;
        let layout = Layout::new(layout.beta(), 1).unwrap();
        let tag = Seed::from_bytes([77; 32]);
        let fresh =
            |i: usize| tag.derive(&veilmatch_secret::Label::new("test").number(self.sessions).number((i % 3) as u64));
        let seeds = Party::ALL.map(|p| PairwiseSeeds { own: fresh(p.index()), next: fresh(p.index() + 1) });
        let secrets = seeds.each_ref().map(|s| SecretParts::of_probe(&self.ring, s));
        let mut mask_bytes = [0u8; 32];
        mask_bytes[..8].copy_from_slice(&self.sessions.to_le_bytes());
        let masks = MaskSeed(mask_bytes).expand(&P, layout, self.dimension);
        let mut bodies = vec![0u32; layout.blocks(self.dimension) * P.degree];
        for part in Part::ALL {
            let secret = part_secret(&secrets, part);
            let seed = &seeds[part.index()].own;
            let values = &parts[part.index()];
            let body = probe_part(&P, &self.ring, layout, &masks, seed, secret, values);
            self.ring.add_assign(&mut bodies, &body);
        }
        (ProbeCiphertext::new(masks, bodies), secrets)
    }

    /// The matcher's honest sums of a group, decoded as the holders do.
    fn sums(&self, group: &Indexed, probe: &ProbeCiphertext) -> DecodedSums {
        decode_sums(&P, group.packed.layout, &group.packed.scan(&P, &self.ring, probe).unwrap()).unwrap()
    }

    fn gallery_secrets(&self, party: Party, layout: Layout) -> Vec<Arc<SecretParts>> {
        let collection = CollectionId::new("c").unwrap();
        let keys = &self.keys[party.index()];
        (0..layout.rank()).map(|k| Arc::new(keys.gallery_secret(&P, &self.ring, &collection, k))).collect()
    }

    /// One holder's shares, in the order of enrolment.
    fn group_shares(
        &self,
        party: Party,
        group: &Indexed,
        probe: &ProbeCiphertext,
        secrets: &[SecretParts; 3],
        sums: &DecodedSums,
        threshold: Threshold,
    ) -> Vec<u64> {
        let mut kept = Secret::new(Vec::new());
        self.stage(party, group, probe, secrets, sums, threshold, Stage::Whole, &mut kept)
    }

    /// One holder's shares of a stage; `kept` is filled by the coarse one and added by the one that finishes.
    #[expect(clippy::too_many_arguments, reason = "what a stage is made of")]
    fn stage(
        &self,
        party: Party,
        group: &Indexed,
        probe: &ProbeCiphertext,
        secrets: &[SecretParts; 3],
        sums: &DecodedSums,
        threshold: Threshold,
        stage: Stage,
        kept: &mut Secret<Vec<u32>>,
    ) -> Vec<u64> {
        let earlier = (stage == Stage::Rest).then(|| kept.expose().clone());
        let layout = group.packed.layout;
        let mut ascending: Vec<u32> = group.slots.iter().map(|&slot| slot as u32).collect();
        ascending.sort_unstable();
        let gallery = self.gallery_secrets(party, layout);
        let inputs = ShareInputs {
            party,
            parameters: &P,
            ring: &self.ring,
            folding: self.ring.folding(layout.beta()).unwrap(),
            layout,
            masks: &group.arranged_masks(),
            probe: &probe.prepare(&self.ring).unwrap(),
            factors: &Factors::new(&self.ring, &secrets[party.index()], &gallery),
            slots: &ascending,
            threshold,
            coarse: earlier.as_deref(),
        };
        let shares = score_shares(&inputs, sums, (stage == Stage::Coarse).then_some(kept)).unwrap();
        let lane = |slot: &usize| ascending.binary_search(&(*slot as u32)).unwrap();
        group.slots.iter().map(|slot| shares.expose()[lane(slot)]).collect()
    }

    /// Cosines in the clear of the slots of a group, before the decision's rounding: only a test may add shares.
    fn cosines(&self, group: &Indexed, probe: &ProbeCiphertext, secrets: &[SecretParts; 3]) -> Vec<f64> {
        let sums = self.sums(group, probe);
        let (layout, n) = (group.packed.layout, P.degree);
        let positions = layout.positions(&P);
        let collection = CollectionId::new("c").unwrap();
        let whole = |parts: [&SecretParts; 3]| {
            let mut sum = vec![0u32; n];
            parts.iter().for_each(|p| self.ring.add_assign(&mut sum, p.own.expose()));
            sum
        };
        let s_0 = whole(secrets.each_ref());
        let (mut d, mut e) = (vec![0u32; n], vec![0u32; n]);
        let masks = group.masks();
        let blocks = masks.chunks_exact(n).zip(probe.masks.chunks_exact(n)).zip(probe.bodies.chunks_exact(n));
        for ((a, pa), pb) in blocks {
            self.ring.multiply_accumulate(&mut d, pb, a);
            self.ring.multiply_accumulate(&mut e, pa, a);
        }
        let scale = P.scales(layout.beta()).score();
        let decrypted: Vec<Vec<u32>> = (0..layout.rank())
            .map(|k| {
                let s_k = self.keys.each_ref().map(|keys| keys.gallery_secret(&P, &self.ring, &collection, k));
                let s_k = whole(s_k.each_ref());
                // B_k − A_k·s_0 − D·s_k + E·s_0·s_k
                let mut sum = self.ring.multiply(&sums.masks[k * n..(k + 1) * n], &s_0);
                self.ring.multiply_accumulate(&mut sum, &d, &s_k);
                sum.iter_mut().for_each(|v| *v = self.ring.negate(*v));
                self.ring.multiply_accumulate(&mut sum, &e, &self.ring.multiply(&s_0, &s_k));
                self.ring.inverse(&mut sum);
                let mut b = sums.scores[k * positions..(k + 1) * positions].to_vec();
                self.ring.unfold(self.ring.folding(layout.beta()).unwrap(), &mut b);
                sum.iter().step_by(layout.beta()).zip(&b).map(|(&x, &y)| self.ring.add(x, y)).collect()
            })
            .collect();
        group
            .slots
            .iter()
            .map(|slot| self.ring.centred(decrypted[slot / positions][slot % positions]) as f64 / scale)
            .collect()
    }
}

fn layout_of(size: usize) -> Layout {
    match size {
        0..=8 => Layout::new(128, 1).unwrap(),
        9..=32 => Layout::new(64, 1).unwrap(),
        33..=128 => Layout::new(16, 1).unwrap(),
        _ => Layout::new(4, size.div_ceil(512)).unwrap(),
    }
}

impl Scheme for Glwe {
    fn name(&self) -> &'static str {
        P.name
    }

    fn decision_bits(&self) -> u32 {
        P.decision_bits
    }

    fn generate_keys(&mut self, dimension: Dimension) {
        self.keys = epoch_keys(dimension.get() as u8 | 1);
        self.dimension = dimension;
        self.groups.clear();
    }

    fn encrypt_template(&mut self, template: &Embedding) -> Vec<u8> {
        self.seal(template, Purpose::Enrol { subject: SubjectId::new("s").unwrap() })
    }

    fn encrypt_probe(&mut self, probe: &Embedding) -> Vec<u8> {
        let query = Query::new(Decision::Exists, Threshold::new(0.4).unwrap());
        self.seal(probe, Purpose::Probe(query))
    }

    fn index(&mut self, groups: &[Vec<Vec<u8>>]) {
        for group in groups {
            let members: Vec<Parts> = group.par_iter().map(|bytes| self.unseal(bytes)).collect();
            self.index_parts(layout_of(group.len()), &members);
        }
    }

    fn stage_shares(
        &mut self,
        probe: &[u8],
        dimensions: usize,
        coarse: Threshold,
        threshold: Threshold,
    ) -> Option<[ScoreShares; 2]> {
        let parts = self.unseal(probe);
        let mut stages: [ScoreShares; 2] = Default::default();
        for index in 0..self.groups.len() {
            let layout = self.groups[index].packed.layout;
            let (probe, secrets) = self.probe(layout, &parts);
            let (group, hot, blocks) = (&self.groups[index], dimensions / layout.beta(), layout.blocks(self.dimension));
            // The matcher has the bodies in two segments and reads one in each stage.
            let natural = BodyLayout::new(P.degree, P.modulus, blocks, layout.rank()).unwrap();
            let natural = natural.restore(&group.packed.bodies).unwrap();
            let (bodies, cold) = Bodies::segmented(&P, layout, self.dimension, Some(hot), &natural).unwrap();
            let packed = PackedGroup { bodies, cold, ..group.packed.clone() };
            let prepared = SegmentedProbe::new(&P, &self.ring, &probe, [&packed]).unwrap();
            let sums = |stage| {
                let sums = prepared.scan(&P, &self.ring, stage, &[&packed]).unwrap().pop().unwrap();
                decode_sums(&P, layout, &sums).unwrap()
            };
            let whole = sums(Stage::Whole);
            let at_once = self.sums(group, &probe);
            assert!(whole.masks == at_once.masks && whole.scores == at_once.scores, "a scan of both segments");
            let folding = self.ring.folding(layout.beta()).unwrap();
            let mut kept: [Secret<Vec<u32>>; 3] = std::array::from_fn(|_| Secret::new(Vec::new()));
            for (place, (stage, of_stage, threshold)) in
                [(Stage::Coarse, 0..hot, coarse), (Stage::Rest, hot..blocks, threshold)].into_iter().enumerate()
            {
                let (probe, sums) = (probe.only(P.degree, of_stage).unwrap(), sums(stage));
                let mut left = LeftSide::empty(&self.ring, folding);
                left.add_group(&P, &self.ring, &group.registered, &sums.masks, &sums.scores);
                assert!(left.agrees(&self.ring, folding, &probe, &check_sum(&self.ring, [&group.registered])));
                for party in Party::ALL {
                    let kept = &mut kept[party.index()];
                    let shares = self.stage(party, group, &probe, &secrets, &sums, threshold, stage, kept);
                    stages[place][party.index()].extend(shares);
                }
            }
        }
        Some(stages)
    }

    fn score_shares(&mut self, probe: &[u8], threshold: Threshold) -> ScoreShares {
        let parts = self.unseal(probe);
        let mut shares: ScoreShares = [Vec::new(), Vec::new(), Vec::new()];
        for index in 0..self.groups.len() {
            let layout = self.groups[index].packed.layout;
            let (probe, secrets) = self.probe(layout, &parts);
            let group = &self.groups[index];
            let sums = self.sums(group, &probe);
            let folding = self.ring.folding(layout.beta()).unwrap();
            let registered = &group.registered;
            let mut left = LeftSide::empty(&self.ring, folding);
            left.add_group(&P, &self.ring, registered, &sums.masks, &sums.scores);
            assert!(left.agrees(&self.ring, folding, &probe, &check_sum(&self.ring, [registered])));
            for party in Party::ALL {
                shares[party.index()].extend(self.group_shares(party, group, &probe, &secrets, &sums, threshold));
            }
        }
        shares
    }

    fn noise(&self) -> f64 {
        let noise = |g: &Indexed| decision_noise(&P, g.packed.layout, self.dimension).0;
        self.groups.iter().map(noise).fold(0.0, f64::max)
    }
}

#[test]
fn glwe_conforms() {
    // From one template to mixed layouts: a few fresh ones with wide blocks beside fuller groups.
    let cases = [
        Case { dimension: 64, groups: vec![1], probes: 30, coarse: 0 },
        Case { dimension: 128, groups: vec![600, 3, 40], probes: 30, coarse: 0 },
        Case { dimension: 512, groups: vec![5, 130, 1], probes: 42, coarse: 256 },
        Case { dimension: 1024, groups: vec![20, 9], probes: 100, coarse: 384 },
    ];
    let mut scheme = Glwe::new(1);
    run(&mut scheme, &cases, 3).assert_conformant("glwe-2048-v1", true);
}

/// Splits a vector without the hybrid encryption around it.
fn parts_of(embedding: &Embedding, random: &mut chacha20::ChaCha20Rng) -> Parts {
    let split = split(quantise(embedding).expose(), random);
    let [a, b] = &split.seeds;
    let dimension = embedding.dimension();
    [
        expand_part(a, dimension).expose().clone(),
        expand_part(b, dimension).expose().clone(),
        split.data.expose().clone(),
    ]
}

/// 4,096 templates, mated, non-mated and the extremes cos = ±1: the errors have the predicted standard deviation and no
/// outlier.
#[expect(clippy::print_stdout, reason = "the measured numbers are what the test is for")]
fn measure(layout: Layout, dimension: usize, templates: usize) {
    let mut random = rng(layout.beta() as u64);
    let mut scheme = Glwe::new(2);
    scheme.generate_keys(Dimension::new(dimension).unwrap());
    let probe = random_unit(dimension, &mut random);
    let opposite = Embedding::normalised(probe.values().iter().map(|v| -v).collect()).unwrap();
    let gallery: Vec<Embedding> = (0..templates)
        .map(|i| match i % 16 {
            0 => probe.clone(),
            1 => opposite.clone(),
            2..=5 => at_cosine(&probe, 0.669, &mut random),
            _ => random_unit(dimension, &mut random),
        })
        .collect();
    let members: Vec<Parts> = gallery.iter().map(|t| parts_of(t, &mut random)).collect();
    for chunk in members.chunks(layout.capacity(&P)) {
        scheme.index_parts(layout, chunk);
    }
    let (mut errors, mut rounded) = (Vec::new(), Vec::new());
    let mut cosines = gallery.iter().map(|t| t.cosine(&probe).unwrap());
    let parts = parts_of(&probe, &mut random);
    let threshold = Threshold::new(0.4).unwrap();
    let unit = P.scales(layout.beta()).score() * P.decision_modulus() as f64 / f64::from(P.modulus);
    for index in 0..scheme.groups.len() {
        let (ciphertext, secrets) = scheme.probe(layout, &parts);
        let group = &scheme.groups[index];
        let measured = scheme.cosines(group, &ciphertext, &secrets);
        let sums = scheme.sums(group, &ciphertext);
        let shares = Party::ALL.map(|party| scheme.group_shares(party, group, &ciphertext, &secrets, &sums, threshold));
        for (lane, measured) in measured.iter().enumerate() {
            let expected = cosines.next().unwrap();
            errors.push(measured - expected);
            let sum = shares.iter().map(|s| s[lane]).sum::<u64>() % P.decision_modulus();
            let half = P.decision_modulus() / 2;
            let signed = if sum >= half { sum as f64 - 2.0 * half as f64 } else { sum as f64 };
            rounded.push(signed / unit + threshold.cosine() - expected);
        }
    }
    let deviation = |values: &[f64]| (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt();
    let worst = |values: &[f64]| values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let predicted = score_noise(&P, layout, scheme.dimension).0;
    let decided = decision_noise(&P, layout, scheme.dimension).0;
    println!(
        "{} beta {} rank {} d {dimension}: {} scores, measured {:.3e} predicted {predicted:.3e} (max {:.3e}); after rounding {:.3e} predicted {decided:.3e} (max {:.3e})",
        P.name,
        layout.beta(),
        layout.rank(),
        errors.len(),
        deviation(&errors),
        worst(&errors),
        deviation(&rounded),
        worst(&rounded),
    );
    // The standard deviation of the estimate is 1/√(2n), below 2 % for 4,096 scores; errors of one probe's blocks are
    // shared by the slots of a body, which widens it.
    let tolerance = if errors.len() >= 4096 { 0.10 } else { 0.35 };
    assert!((deviation(&errors) / predicted - 1.0).abs() < tolerance);
    assert!((deviation(&rounded) / decided - 1.0).abs() < tolerance);
    assert!(worst(&errors) < 5.5 * predicted && worst(&rounded) < 5.5 * decided);
}

#[test]
fn noise_of_a_large_group_is_as_predicted() {
    measure(Layout::new(4, 8).unwrap(), 512, 4096);
}

#[test]
fn noise_of_wide_blocks_is_as_predicted() {
    measure(Layout::new(16, 16).unwrap(), 256, 4096);
    measure(Layout::new(64, 4).unwrap(), 512, 4096);
}

#[test]
fn noise_at_the_largest_and_smallest_dimension_is_as_predicted() {
    measure(Layout::new(4, 8).unwrap(), 1024, 4096);
    measure(Layout::new(4, 8).unwrap(), 64, 4096);
}

#[test]
fn the_scan_check_catches_every_single_change_and_accepts_honest_sums() {
    let mut random = rng(5);
    let mut scheme = Glwe::new(5);
    scheme.generate_keys(Dimension::new(64).unwrap());
    let layout = Layout::new(64, 3).unwrap();
    let members: Vec<Parts> = (0..70).map(|_| parts_of(&random_unit(64, &mut random), &mut random)).collect();
    scheme.index_parts(layout, &members);
    scheme.index_parts(layout, &members[..10]);
    let (probe, _) = scheme.probe(layout, &members[3]);
    let honest: Vec<DecodedSums> = scheme.groups.iter().map(|g| scheme.sums(g, &probe)).collect();
    let registered: Vec<&RegisteredGroup> = scheme.groups.iter().map(|g| &g.registered).collect();
    let vectors = check_sum(&scheme.ring, registered.iter().copied());
    let folding = scheme.ring.folding(layout.beta()).unwrap();
    let check = |sums: &[DecodedSums]| {
        // Group by group and added up, as holders do.
        let mut left = LeftSide::empty(&scheme.ring, folding);
        for (group, sums) in registered.iter().zip(sums) {
            let mut of_group = LeftSide::empty(&scheme.ring, folding);
            of_group.add_group(&P, &scheme.ring, group, &sums.masks, &sums.scores);
            left.add(&scheme.ring, &of_group);
        }
        left.agrees(&scheme.ring, folding, &probe, &vectors)
    };
    assert!(check(&honest));
    assert!(!check(&honest[..1]), "a group left out");
    let copy = |sums: &[DecodedSums]| -> Vec<DecodedSums> {
        sums.iter().map(|s| DecodedSums { masks: s.masks.clone(), scores: s.scores.clone() }).collect()
    };
    for group in 0..2 {
        for place in [0, 1, 2047, 2048, 3 * 2048 - 1] {
            let mut changed = copy(&honest);
            changed[group].masks[place] = scheme.ring.add(changed[group].masks[place], 1);
            assert!(!check(&changed), "A of group {group}, {place}");
        }
        for place in 0..3 * 32 {
            let mut changed = copy(&honest);
            changed[group].scores[place] = scheme.ring.add(changed[group].scores[place], P.modulus - 1);
            assert!(!check(&changed), "B of group {group}, {place}");
        }
    }
    let mut swapped = copy(&honest);
    swapped[0].masks.rotate_left(2048);
    swapped[0].scores.rotate_left(32);
    assert!(!check(&swapped), "bodies swapped");
    let mut exchanged = copy(&honest);
    exchanged.swap(0, 1);
    assert!(!check(&exchanged), "groups exchanged");
}

/// What is kept between queries is what adding up all live groups gives, whatever went live and was taken down.
#[test]
fn check_vectors_that_are_kept_are_those_of_the_live_groups() {
    let ring = P.ring();
    let group = |number: u64, beta: usize| {
        let layout = Layout::new(beta, 1).unwrap();
        let dimension = Dimension::new(64).unwrap();
        let vector = |check: u8| {
            let mut stream = veilmatch_secret::Stream::public([number as u8 * 2 + check; 32]);
            uniform_residues(&P, &mut stream, layout.blocks(dimension) * P.degree)
        };
        Arc::new(RegisteredGroup {
            group: GroupId(number),
            revision: Revision(1),
            epoch: Epoch(0),
            layout,
            members: Vec::new(),
            dimension,
            masks: GroupMasks::expanded(&P, &MaskSeed([0; 32]).expand(&P, layout, dimension), &MaskRoom::new(0)),
            check_seed: Seed::from_bytes([0; 32]),
            checks: [vector(0), vector(1)],
        })
    };
    let groups: Vec<_> = (0..5).map(|i| group(i, if i < 4 { 16 } else { 32 })).collect();
    let mut kept = CheckSums::default();
    assert_eq!(kept.of_width(&ring, 16).1, 0);
    let mut live: Vec<usize> = Vec::new();
    // Up (positive) and down, with queries (0) between them.
    for step in [1i32, 2, 0, 5, 3, -3, 0, -1, 0, 4, -2, 0, -4, -5, 0] {
        match step {
            0 => {
                for beta in [16, 32] {
                    let of_width: Vec<_> =
                        live.iter().map(|&i| groups[i].as_ref()).filter(|g| g.layout.beta() == beta).collect();
                    let (sum, count) = kept.of_width(&ring, beta);
                    assert_eq!(count, of_width.len());
                    if count > 0 {
                        assert_eq!(sum, check_sum(&ring, of_width), "{live:?}");
                    } else {
                        assert!(sum.iter().all(|&v| v == 0));
                    }
                }
            }
            up if up > 0 => {
                live.push(up as usize - 1);
                kept.put_up(&groups[up as usize - 1]);
            }
            down => {
                live.retain(|&i| i != (-down) as usize - 1);
                kept.take_down(&groups[(-down) as usize - 1]);
            }
        }
    }
}
