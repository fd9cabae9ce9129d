//! Replicated keys without a dealer (DESIGN 3.1).
//!
//! Every secret polynomial is s = s^(0)+s^(1)+s^(2); part i is expanded from seed_i and a label, and K_i knows the
//! seeds i and i+1. For two secrets, Σ_i (s·t)^\[i\] = s·t with
//! (s·t)^\[i\] = s^(i)·t^(i) + s^(i)·t^(i+1) + s^(i+1)·t^(i), which K_i computes alone.
//!
//! Who sees what: each seed is known to two holders, so a holder alone lacks one ternary part of every secret, and
//! that part is pseudo-random to it. Two holders can restore all three parts: that is the trust assumption.

use veilmatch_domain::{CollectionId, Epoch, SessionId};
use veilmatch_glwe::Parameters;
use veilmatch_kernels::Ring;
use veilmatch_mpc::PairwiseSeeds;
use veilmatch_secret::{Label, Secret, Seed, Stream};

/// The two seeds of a holder in one key epoch.
pub(crate) struct EpochKeys {
    /// The epoch.
    pub epoch: Epoch,
    /// seed_i, drawn by this holder and sent to K_{i−1}; seed_{i+1}, received from K_{i+1}.
    pub seeds: PairwiseSeeds,
}

/// A holder's two parts of one secret polynomial, transformed. Wiped on drop.
pub(crate) struct SecretParts {
    /// Part i.
    pub own: Secret<Vec<u32>>,
    /// Part i+1.
    pub next: Secret<Vec<u32>>,
}

/// Coefficients uniform in {−1, 0, 1}, constant time: ⌊3u/2^32⌋ − 1 for 32 uniform bits u, off from uniform by
/// less than 2^−31.
fn ternary(ring: &Ring, stream: &mut Stream) -> Vec<u32> {
    (0..ring.degree()).map(|_| ring.from_signed(((u64::from(stream.next_u32()) * 3) >> 32) as i32 - 1)).collect()
}

fn transformed_ternary(ring: &Ring, seed: &Seed, label: &Label) -> Secret<Vec<u32>> {
    let mut polynomial = ternary(ring, &mut seed.stream(label));
    ring.forward(&mut polynomial);
    Secret::new(polynomial)
}

fn label_of_gallery_secret(parameters: &Parameters, collection: &CollectionId, epoch: Epoch, body: usize) -> Label {
    Label::new("veilmatch/key/gallery")
        .bytes(parameters.name.as_bytes())
        .bytes(collection.as_str().as_bytes())
        .number(epoch.0.into())
        .number(body as u64)
}

impl EpochKeys {
    /// This holder's parts of s_k, the secret of body `body` (k from 0) of every group of a collection.
    #[must_use]
    pub(crate) fn gallery_secret(
        &self,
        parameters: &Parameters,
        ring: &Ring,
        collection: &CollectionId,
        body: usize,
    ) -> SecretParts {
        let label = label_of_gallery_secret(parameters, collection, self.epoch, body);
        SecretParts::expand(ring, &self.seeds, &label)
    }

    /// The seeds of one session: each mixes the epoch's seed with the fresh randomness of the part's owner, so that a
    /// session is safe if either is.
    #[must_use]
    pub(crate) fn session_seeds(&self, session: &SessionId, fresh_own: &Seed, fresh_next: &Seed) -> PairwiseSeeds {
        let mix = |seed: &Seed, fresh: &Seed| {
            seed.derive(&Label::new("veilmatch/key/session").bytes(&session.0).bytes(fresh.expose()))
        };
        PairwiseSeeds { own: mix(&self.seeds.own, fresh_own), next: mix(&self.seeds.next, fresh_next) }
    }
}

impl SecretParts {
    /// Expands both parts of the secret with this label.
    #[must_use]
    pub(crate) fn expand(ring: &Ring, seeds: &PairwiseSeeds, label: &Label) -> SecretParts {
        SecretParts {
            own: transformed_ternary(ring, &seeds.own, label),
            next: transformed_ternary(ring, &seeds.next, label),
        }
    }

    /// s_0, the secret of one query session.
    #[must_use]
    pub(crate) fn of_probe(ring: &Ring, session_seeds: &PairwiseSeeds) -> SecretParts {
        SecretParts::expand(ring, session_seeds, &Label::new("veilmatch/key/probe"))
    }

    /// This holder's additive share of the product of two secrets, transformed.
    #[must_use]
    pub(crate) fn product_share(&self, ring: &Ring, other: &SecretParts) -> Secret<Vec<u32>> {
        let mut share = ring.multiply(self.own.expose(), other.own.expose());
        ring.multiply_accumulate(&mut share, self.own.expose(), other.next.expose());
        ring.multiply_accumulate(&mut share, self.next.expose(), other.own.expose());
        Secret::new(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recrypt::probe_part;
    use veilmatch_domain::{Dimension, Embedding, Party};
    use veilmatch_glwe::{GLWE_2048_V1, Layout, MaskSeed};
    use veilmatch_sealed::{Split, expand_part, quantise, split};
    use veilmatch_secret::os_entropy;

    pub(crate) fn epoch_keys(epoch: u32) -> [EpochKeys; 3] {
        let seed = |i: usize| Seed::from_bytes([(i % 3) as u8 + 40; 32]);
        Party::ALL.map(|p| EpochKeys {
            epoch: Epoch(epoch),
            seeds: PairwiseSeeds { own: seed(p.index()), next: seed(p.index() + 1) },
        })
    }

    fn whole(ring: &Ring, parts: [&SecretParts; 3]) -> Vec<u32> {
        let mut sum = vec![0; ring.degree()];
        for p in parts {
            ring.add_assign(&mut sum, p.own.expose());
        }
        sum
    }

    #[test]
    fn shares_of_products_add_up_to_the_product() {
        let parameters = GLWE_2048_V1;
        let ring = parameters.ring();
        let keys = epoch_keys(0);
        let collection = CollectionId::new("c").unwrap();
        let s = keys.each_ref().map(|k| k.gallery_secret(&parameters, &ring, &collection, 0));
        let t = keys.each_ref().map(|k| k.gallery_secret(&parameters, &ring, &collection, 1));
        assert_eq!(s[0].next.expose(), s[1].own.expose(), "part 1 is the same at K0 and K1");
        let product = ring.multiply(&whole(&ring, s.each_ref()), &whole(&ring, t.each_ref()));
        let mut sum = vec![0; ring.degree()];
        for i in 0..3 {
            ring.add_assign(&mut sum, s[i].product_share(&ring, &t[i]).expose());
        }
        assert_eq!(sum, product);
    }

    #[test]
    fn parts_are_ternary_balanced_and_differ_by_label() {
        let parameters = GLWE_2048_V1;
        let ring = parameters.ring();
        let [k0, ..] = epoch_keys(0);
        let collection = CollectionId::new("c").unwrap();
        let mut seen = Vec::new();
        for (body, keys) in [(0, &k0), (1, &k0), (0, &epoch_keys(1)[0])] {
            let mut part = keys.gallery_secret(&parameters, &ring, &collection, body).own.expose().clone();
            ring.inverse(&mut part);
            let centred: Vec<i64> = part.iter().map(|&v| ring.centred(v)).collect();
            assert!(centred.iter().all(|v| (-1..=1).contains(v)));
            for value in -1..=1 {
                let count = centred.iter().filter(|&&v| v == value).count() as f64;
                assert!((count - 2048.0 / 3.0).abs() < 5.0 * (2048.0f64 * 2.0 / 9.0).sqrt(), "{value}: {count}");
            }
            seen.push(centred);
        }
        assert!(seen[0] != seen[1] && seen[0] != seen[2] && seen[1] != seen[2]);
    }

    const P: Parameters = GLWE_2048_V1;
    const DIMENSION: usize = 64;
    const RING_MASK: u64 = (1 << 48) - 1;

    /// A probe as the three parts modulo 2^48 that its client makes of it, and its quantised coordinates.
    struct Probe {
        parts: [Vec<u64>; 3],
        quantised: Vec<i64>,
    }

    fn probe(salt: usize) -> Probe {
        let values = (0..DIMENSION).map(|j| ((j * j * 7 + j * salt * 13 + salt) % 31) as f32 - 15.3).collect();
        let quantised = quantise(&Embedding::normalised(values).unwrap());
        let Split { seeds: [a, b], data } = split(quantised.expose(), &mut *os_entropy());
        let expand = |seed| expand_part(seed, Dimension::new(DIMENSION).unwrap()).expose().clone();
        let signed = quantised.expose().iter().map(|&v| ((v << 16) as i64) >> 16).collect();
        Probe { parts: [expand(&a), expand(&b), data.expose().clone()], quantised: signed }
    }

    fn layout() -> Layout {
        Layout::new(64, 1).unwrap()
    }

    /// The three parts of the probe's body, as the matcher receives them. Session id and masks are always the same: what
    /// is left to keep two sessions apart is `fresh`, by owner.
    fn bodies(ring: &Ring, fresh: &[Seed; 3], probe: &Probe) -> [Vec<u32>; 3] {
        let (keys, session) = (epoch_keys(0), SessionId([6; 32]));
        [0, 1, 2].map(|i| {
            let seeds = keys[i].session_seeds(&session, &fresh[i], &fresh[(i + 1) % 3]);
            let secret = SecretParts::of_probe(ring, &seeds);
            let masks = MaskSeed([5; 32]).expand(&P, layout(), Dimension::new(DIMENSION).unwrap());
            probe_part(&P, ring, layout(), &masks, &seeds.own, secret.own.expose(), &probe.parts[i])
        })
    }

    fn fresh_seeds() -> [Seed; 3] {
        [(); 3].map(|()| Seed::random(&mut *os_entropy()))
    }

    /// The coordinates in a transformed polynomial P(X) = Σ m_i·X^−i, modulo q.
    fn coordinates(ring: &Ring, mut polynomial: Vec<u32>) -> Vec<u32> {
        ring.inverse(&mut polynomial);
        let n = ring.degree();
        (0..DIMENSION).map(|i| if i == 0 { polynomial[0] } else { ring.negate(polynomial[n - i]) }).collect()
    }

    /// Of how many coordinates the estimate is right to within `tolerance` steps of 2^−18, and of how many its sign is.
    fn hits(estimate: &[i64], truth: &[i64], tolerance: i64) -> (usize, usize) {
        let right =
            |good: &dyn Fn(i64, i64) -> bool| estimate.iter().zip(truth).filter(|(e, t)| good(**e, **t)).count();
        (right(&|e, t| (e - t).abs() <= tolerance), right(&|e, t| (e < 0) == (t < 0)))
    }

    fn no_better_than_guessing(trials: usize, attack: impl Fn() -> (usize, usize)) {
        let (mut exact, mut signs) = (0, 0);
        for _ in 0..trials {
            let (e, s) = attack();
            (exact, signs) = (exact + e, signs + s);
        }
        let all = (trials * DIMENSION) as f64;
        assert_eq!(exact, 0, "a hit by chance has a probability of about 10^−8");
        assert!((signs as f64 - all / 2.0).abs() < 6.0 * all.sqrt() / 2.0, "{signs} signs of {all} guessed");
    }

    /// The matcher and K0 together, on two probes: the part that K0 lacks hides in b = a·s + e + M. With one s and e for
    /// both, the difference of the bodies is that of the messages, and K0 adds the difference of the parts it has.
    fn difference_of_probes(ring: &Ring, bodies: [&[u32]; 2], known: [[&[u64]; 2]; 2]) -> Vec<i64> {
        let factor = P.scales(layout().beta()).probe_factor;
        let mut difference = bodies[0].to_vec();
        ring.sub_assign(&mut difference, bodies[1]);
        let third = coordinates(ring, difference);
        (0..DIMENSION)
            .map(|j| {
                let third = (u128::from(third[j]) << 48) / u128::from(P.modulus);
                let [of_first, of_second] = known.map(|[own, next]| own[j].wrapping_add(next[j]));
                let sum =
                    (third as u64).wrapping_add(of_first.wrapping_sub(of_second).wrapping_mul(factor)) & RING_MASK;
                (((sum << 16) as i64) >> 16) / factor as i64
            })
            .collect()
    }

    /// Session randomness by what it protects: if it repeats, two probes differ by what their ciphertexts differ by.
    #[test]
    fn with_repeated_session_randomness_two_probes_show_their_difference_and_with_fresh_not() {
        let ring = P.ring();
        let (first, second) = (probe(1), probe(2));
        let truth: Vec<i64> = first.quantised.iter().zip(&second.quantised).map(|(a, b)| a - b).collect();
        // A ciphertext carries a coordinate in units of 1/S_p, a few steps of 2^−18: two roundings make one unit.
        let tolerance = ((1u64 << 48) / u64::from(P.modulus) / P.scales(64).probe_factor) as i64 + 1;
        assert!(tolerance <= 6);
        let known = [&first, &second].map(|p| [p.parts[0].as_slice(), p.parts[1].as_slice()]);
        let attack = |fresh: [&[Seed; 3]; 2]| {
            let [a, b] = [(fresh[0], &first), (fresh[1], &second)].map(|(fresh, probe)| bodies(&ring, fresh, probe));
            hits(&difference_of_probes(&ring, [&a[2], &b[2]], known), &truth, tolerance)
        };
        let once = fresh_seeds();
        assert_eq!(attack([&once, &once]), (DIMENSION, DIMENSION), "the attack must succeed, or it tests nothing");
        no_better_than_guessing(32, || attack([&fresh_seeds(), &fresh_seeds()]));
        // Enough that the owner of the part that K0 lacks draws afresh.
        no_better_than_guessing(32, || {
            let [own, next, _] = once.each_ref().map(Seed::duplicate);
            attack([&once, &[own, next, Seed::random(&mut *os_entropy())]])
        });
    }

    /// And afterwards: the matcher has kept a probe's body, and later all seeds of the epoch are stolen.
    #[test]
    fn without_session_randomness_stolen_epoch_seeds_open_old_probes_and_with_it_not() {
        let ring = P.ring();
        let (probe, public) = (probe(3), [(); 3].map(|()| Seed::from_bytes([0; 32])));
        let scale = P.scales(layout().beta()).probe / veilmatch_sealed::COORDINATE_SCALE as f64;
        // Three errors of at most η, three roundings.
        let tolerance = ((3.0 * f64::from(P.error_eta) + 1.5) / scale) as i64 + 1;
        let attack = |fresh: &[Seed; 3]| {
            let [mut body, b1, b2] = bodies(&ring, fresh, &probe);
            ring.add_assign(&mut body, &b1);
            ring.add_assign(&mut body, &b2);
            // The thief derives s_0 as holders do that draw nothing: with something that everybody knows.
            let mut secret = vec![0; ring.degree()];
            for (i, keys) in epoch_keys(0).iter().enumerate() {
                let seeds = keys.session_seeds(&SessionId([6; 32]), &public[i], &public[(i + 1) % 3]);
                ring.add_assign(&mut secret, SecretParts::of_probe(&ring, &seeds).own.expose());
            }
            ring.sub_assign(&mut body, &ring.multiply(&MaskSeed([5; 32]).mask(&P, layout().beta(), 0), &secret));
            let found = coordinates(&ring, body).into_iter().map(|v| (ring.centred(v) as f64 / scale).round() as i64);
            hits(&found.collect::<Vec<_>>(), &probe.quantised, tolerance)
        };
        assert_eq!(attack(&public), (DIMENSION, DIMENSION), "the attack must succeed, or it tests nothing");
        no_better_than_guessing(32, || attack(&fresh_seeds()));
    }
}
