//! The scheme `paillier` under the conformance suite.
//!
//! Client, evaluators and holders as they are, with a key of 2,048 bits from fixed primes; nothing but a test owns all of them.

use veilmatch_conformance::{Case, Scheme, ScoreShares, at_cosine, random_unit, rng, run};
use veilmatch_domain::{
    ClientId, CollectionId, Decision, Dimension, Embedding, Party, Purpose, Query, SubjectId, TemplateVersion,
    Threshold, Timestamp,
};
use veilmatch_glwe::ProbeAddend;
use veilmatch_paillier::{
    Ciphertext, KeySize, Parts, PreparedBases, ProbeShare, PublicKey, Slots, centred, evaluate_vartime,
};
use veilmatch_sealed::{Associated, ClientSigningKey, HolderPublicKey, SealedTemplate, seal};
use veilmatch_secret::{Secret, Seed};
use veilmatch_threshold::{KeyShare, combine, test_keys};

use crate::paillier::{PartInSlot, encrypt_part, mask, score_shares, split_part};
use crate::unseal::{HolderSecretKey, unseal};

const DECISION_BITS: u32 = 16;

/// One packed group.
struct Group {
    bases: PreparedBases,
    members: usize,
}

struct Paillier {
    key: PublicKey,
    shares: [KeyShare; 3],
    holders: [HolderSecretKey; 3],
    public: [HolderPublicKey; 3],
    signer: ClientSigningKey,
    dimension: Dimension,
    groups: Vec<Group>,
    random: chacha20::ChaCha20Rng,
    sessions: u8,
}

impl Paillier {
    fn new(seed: u64) -> Self {
        let mut random = rng(seed);
        let dealt = test_keys::deal(KeySize::Bits2048, &mut random).unwrap();
        let holders = Party::ALL.map(|_| HolderSecretKey::random(&mut random));
        let public = holders.each_ref().map(|h| h.public_key().clone());
        let signer = ClientSigningKey::random(&mut random);
        let dimension = Dimension::new(64).unwrap();
        Self {
            key: dealt.key,
            shares: dealt.shares,
            holders,
            public,
            signer,
            dimension,
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

    /// The part that each holder reads as its own.
    fn parts(&self, bytes: &[u8]) -> [Vec<u64>; 3] {
        let sealed = SealedTemplate::from_bytes(bytes).unwrap();
        Party::ALL.map(|p| unseal(p, &self.holders[p.index()], &self.public, &sealed).unwrap().own.expose().clone())
    }

    fn slots(&self) -> Slots {
        Slots::new(self.key.size(), self.dimension)
    }

    /// An evaluator's share from the holders' addends.
    fn share(addends: [&ProbeAddend; 3]) -> ProbeShare {
        let sum = |j: usize| addends.iter().fold(0u32, |sum, addend| sum.wrapping_add(addend.expose()[j]));
        ProbeShare::new(Secret::new((0..addends[0].expose().len()).map(|j| centred(sum(j))).collect())).unwrap()
    }

    /// Both evaluators' products, group by group.
    fn evaluate(&mut self, probe: &[u8]) -> Vec<Ciphertext> {
        let parts = self.parts(probe);
        let addends = parts.each_ref().map(|part| split_part(part, &mut self.random));
        let bases: Vec<&PreparedBases> = self.groups.iter().map(|group| &group.bases).collect();
        let [matcher, twin] = [0, 1].map(|evaluator| {
            let share = Self::share(addends.each_ref().map(|both| &both[evaluator]));
            evaluate_vartime(&bases, &share, &mut rng(u64::from(self.sessions))).unwrap()
        });
        matcher.iter().zip(&twin).map(|(a, b)| self.key.add(a, b).unwrap()).collect()
    }
}

impl Scheme for Paillier {
    fn name(&self) -> &'static str {
        KeySize::Bits2048.parameters()
    }

    fn decision_bits(&self) -> u32 {
        DECISION_BITS
    }

    fn generate_keys(&mut self, dimension: Dimension) {
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
            let members: Vec<[Vec<u64>; 3]> = group.iter().map(|bytes| self.parts(bytes)).collect();
            let mut sum: Option<Vec<Ciphertext>> = None;
            for holder in 0..3 {
                let in_slots: Vec<PartInSlot<'_>> = members
                    .iter()
                    .enumerate()
                    .map(|(slot, parts)| PartInSlot { slot, values: &parts[holder] })
                    .collect();
                let seed = Seed::random(&mut self.random);
                let part = encrypt_part(&self.key, self.dimension, &in_slots, &seed).unwrap();
                let part = self.key.ciphertexts(&part).unwrap();
                sum = Some(match sum {
                    None => part,
                    Some(sum) => sum.iter().zip(&part).map(|(a, b)| self.key.add(a, b).unwrap()).collect(),
                });
            }
            let bases = PreparedBases::new(&self.key, &sum.unwrap(), 1 << 22).unwrap();
            self.groups.push(Group { bases, members: members.len() });
        }
    }

    fn score_shares(&mut self, probe: &[u8], threshold: Threshold) -> ScoreShares {
        self.sessions = self.sessions.wrapping_add(1);
        let slots = self.slots();
        let offset = slots.offset(&self.key).unwrap();
        let mut ciphertexts = self.evaluate(probe);
        for sum in &mut ciphertexts {
            *sum = self.key.add_plaintext(sum, &offset).unwrap();
        }
        // Masks of every holder, then the decryption by one pair of holders after the other.
        let mut masks: [Vec<Secret<Vec<u128>>>; 3] = Default::default();
        for (place, sum) in ciphertexts.iter_mut().enumerate() {
            for masks in &mut masks {
                let drawn = mask(&self.key, slots, &Seed::random(&mut self.random), place).unwrap();
                *sum = self.key.add(sum, &drawn.encrypted).unwrap();
                masks.push(drawn.masks);
            }
        }
        let first = Party::from_index(self.sessions.into());
        let contributions =
            [(first, Parts::Both), (first.next(), Parts::One(first.missing_part()))].map(|(party, parts)| {
                self.shares[party.index()].partial_decrypt(parts, &ciphertexts, b"test", &mut self.random).unwrap()
            });
        let opened = combine(&self.key, &ciphertexts, &contributions, b"test").unwrap();
        Party::ALL.map(|party| {
            let groups = self.groups.iter().zip(&opened).zip(&masks[party.index()]);
            let shares = groups.flat_map(|((group, opened), masks)| {
                let chosen: Vec<u32> = (0..group.members as u32).collect();
                let opened = slots.open(opened).unwrap();
                score_shares(party, DECISION_BITS, threshold, &opened, masks, &chosen).unwrap().expose().clone()
            });
            shares.collect()
        })
    }

    fn noise(&self) -> f64 {
        veilmatch_paillier::decision_noise(DECISION_BITS)
    }
}

#[test]
fn paillier_conforms() {
    // A probe takes two proofs whatever the gallery is: no more than the suite wants.
    let cases = [
        Case { dimension: 64, groups: vec![1], probes: 16, coarse: 0 },
        Case { dimension: 128, groups: vec![19, 3, 8], probes: 12, coarse: 0 },
        Case { dimension: 512, groups: vec![2, 19], probes: 6, coarse: 0 },
        Case { dimension: 16, groups: vec![20], probes: 78, coarse: 0 },
    ];
    let mut scheme = Paillier::new(1);
    run(&mut scheme, &cases, 3).assert_conformant(KeySize::Bits2048.parameters(), false);
}

/// The errors of scores have the predicted standard deviation and no outlier, at the extremes too.
#[test]
#[expect(clippy::print_stdout, reason = "the measured numbers are what the test is for")]
fn the_error_of_scores_is_as_predicted() {
    let mut random = rng(9);
    let mut scheme = Paillier::new(2);
    scheme.generate_keys(Dimension::new(128).unwrap());
    let probes: Vec<Embedding> = (0..20).map(|_| random_unit(128, &mut random)).collect();
    let opposite = Embedding::normalised(probes[0].values().iter().map(|v| -v).collect()).unwrap();
    let mut gallery = vec![probes[0].clone(), opposite];
    gallery.extend((2..38).map(|i| at_cosine(&probes[i % 20], 0.6, &mut random)));
    let encrypted: Vec<Vec<u8>> = gallery.iter().map(|t| scheme.encrypt_template(t)).collect();
    scheme.index(&encrypted.chunks(19).map(<[_]>::to_vec).collect::<Vec<_>>());
    let threshold = Threshold::new(0.4).unwrap();
    let mut errors = Vec::new();
    for probe in &probes {
        let sealed = scheme.encrypt_probe(probe);
        let [a, b, c] = scheme.score_shares(&sealed, threshold);
        for (lane, template) in gallery.iter().enumerate() {
            let sum = (a[lane] + b[lane] + c[lane]) % (1 << DECISION_BITS);
            let signed =
                if sum >= 1 << (DECISION_BITS - 1) { sum as f64 - f64::from(1 << DECISION_BITS) } else { sum as f64 };
            let measured = signed / f64::from(1 << (DECISION_BITS - 2)) + threshold.cosine();
            errors.push(measured - template.cosine(probe).unwrap());
        }
    }
    let deviation = (errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64).sqrt();
    let worst = errors.iter().fold(0.0f64, |m, e| m.max(e.abs()));
    println!(
        "{} scores: measured {deviation:.3e}, predicted {:.3e}, largest {worst:.3e}",
        errors.len(),
        scheme.noise()
    );
    assert!((deviation / scheme.noise() - 1.0).abs() < 0.15);
    assert!(worst < 5.5 * scheme.noise());
}
