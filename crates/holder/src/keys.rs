//! Replicated keys without a dealer (DESIGN 3.1).
//!
//! Every secret polynomial is s = s^(0)+s^(1)+s^(2); part i is expanded from seed_i and a label, and K_i knows the
//! seeds i and i+1. For two secrets, Σ_i (s·t)^\[i\] = s·t with
//! (s·t)^\[i\] = s^(i)·t^(i) + s^(i)·t^(i+1) + s^(i+1)·t^(i), which K_i computes alone.
//!
//! Who sees what: each seed is known to two holders, so a holder alone lacks one ternary part of every secret, and
//! that part is pseudo-random to it. Two holders can restore all three parts: that is the trust assumption.

use veilmatch_domain::{CollectionId, Epoch, Part, Party, SessionId};
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

    /// The seed of a part, if this holder knows it.
    #[must_use]
    pub(crate) fn seed_of(&self, party: Party, part: Part) -> Option<&Seed> {
        let [own, next] = party.parts();
        if part == own {
            Some(&self.seeds.own)
        } else if part == next {
            Some(&self.seeds.next)
        } else {
            None
        }
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
    use veilmatch_glwe::GLWE_2048_V1;

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
}
