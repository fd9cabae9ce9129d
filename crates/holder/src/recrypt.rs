//! Joint encryption: one deterministic function per part, which both holders of the part run (DESIGN 3.3).
//!
//! For part i: scale the sealed values to q, place them in the layout, add a centred binomial error from a PRF under
//! seed_i, transform, add a'·s^(i). The three parts add up to a GLWE ciphertext of the sealed values.
//!
//! Who sees what: the matcher sees all three b^(i). With one holder's seeds it can strip two of them down to shares of
//! the template that are uniform (two of three parts modulo 2^48, scaled); the third is an RLWE sample under a ternary
//! secret and error that it does not know. The mask is uniform because all three holders contribute to its seed and
//! commit before they show. The error's label contains that seed, so no error is used with two masks or messages:
//! the same label gives the same bytes, and the registry refuses a label with other content.

use rayon::prelude::*;
use veilmatch_glwe::{
    Layout, MaskSeed, Masks, Parameters, Scales, SealedUse, SlotPlace, place_gallery, place_probe, scale_part,
};
use veilmatch_kernels::Ring;
use veilmatch_secret::{Label, Secret, Seed};

/// One part of one member: where it goes and its d values modulo 2^48.
pub(crate) struct PartOfMember<'a> {
    /// Body and position.
    pub place: SlotPlace,
    /// The values, as unsealed.
    pub values: &'a [u64],
}

/// Adds the error of one polynomial: centred binomial with parameter η ≤ 4, constant time.
fn add_error(
    parameters: &Parameters,
    ring: &Ring,
    seed: &Seed,
    masks: &MaskSeed,
    (block, body): (usize, usize),
    message: &mut [u32],
) {
    let label = Label::new("veilmatch/recrypt/error")
        .bytes(parameters.name.as_bytes())
        .bytes(&masks.0)
        .number(block as u64)
        .number(body as u64);
    let mut bytes = Secret::new(vec![0u8; message.len()]);
    seed.stream(&label).fill(bytes.expose_mut());
    ring.add_centred_binomial(parameters.error_eta, bytes.expose(), message);
}

/// b = a·s^(i) + (M + e) for one polynomial, in place of M + e: coefficients; `mask` and `secret` are transformed.
pub(crate) fn encrypt(ring: &Ring, mask: &[u32], secret: &[u32], message: &mut [u32]) {
    ring.forward(message);
    ring.multiply_accumulate(message, mask, secret);
}

fn scaled(parameters: &Parameters, scales: &Scales, usage: SealedUse, values: &[u64]) -> Secret<Vec<u32>> {
    let factor = scales.factor(usage);
    Secret::new(values.iter().map(|&v| scale_part(parameters.modulus, factor, v)).collect())
}

/// One part of the bodies of a packed group: J·r polynomials in scan order.
///
/// `secrets` holds this part of s_k for k = 0..r, transformed; `seed` is the seed of the part.
#[must_use]
pub(crate) fn gallery_part(
    parameters: &Parameters,
    ring: &Ring,
    layout: Layout,
    masks: &Masks,
    seed: &Seed,
    secrets: &[&[u32]],
    members: &[PartOfMember<'_>],
) -> Vec<u32> {
    let scales = parameters.scales(layout.beta());
    let scaled: Vec<(SlotPlace, Secret<Vec<u32>>)> =
        members.par_iter().map(|m| (m.place, scaled(parameters, &scales, SealedUse::Gallery, m.values))).collect();
    let (degree, rank) = (parameters.degree, layout.rank());
    let mut bodies = vec![0u32; masks.values.len() * rank];
    let blocks = bodies.par_chunks_exact_mut(rank * degree).zip(masks.values.par_chunks_exact(degree));
    blocks.enumerate().for_each(|(block, (bodies, mask))| {
        for (place, values) in &scaled {
            if let Some(message) = bodies.chunks_exact_mut(degree).nth(place.body) {
                place_gallery(layout, block, place.position, values.expose(), message);
            }
        }
        for (body, (message, secret)) in bodies.chunks_exact_mut(degree).zip(secrets).enumerate() {
            add_error(parameters, ring, seed, &masks.seed, (block, body), message);
            encrypt(ring, mask, secret, message);
        }
    });
    bodies
}

/// One part of the bodies of a probe for layouts of width β: J polynomials.
#[must_use]
pub(crate) fn probe_part(
    parameters: &Parameters,
    ring: &Ring,
    layout: Layout,
    masks: &Masks,
    seed: &Seed,
    secret: &[u32],
    values: &[u64],
) -> Vec<u32> {
    let scales = parameters.scales(layout.beta());
    let values = scaled(parameters, &scales, SealedUse::Probe, values);
    let degree = parameters.degree;
    let mut bodies = vec![0u32; masks.values.len()];
    // The probe of a small gallery has few blocks: less work than to wake a thread for.
    let blocks = bodies.par_chunks_exact_mut(degree).with_min_len(64).zip(masks.values.par_chunks_exact(degree));
    blocks.enumerate().for_each(|(block, (message, mask))| {
        place_probe(ring, layout, block, values.expose(), message);
        add_error(parameters, ring, seed, &masks.seed, (block, 0), message);
        encrypt(ring, mask, secret, message);
    });
    bodies
}

#[cfg(test)]
mod tests {
    use super::*;
    use veilmatch_domain::Dimension;
    use veilmatch_glwe::GLWE_2048_V1;

    #[test]
    fn errors_are_centred_binomial() {
        let parameters = GLWE_2048_V1;
        let ring = parameters.ring();
        let seed = Seed::from_bytes([3; 32]);
        let mut values = Vec::new();
        for block in 0..50 {
            let mut e = vec![0; 2048];
            add_error(&parameters, &ring, &seed, &MaskSeed([0; 32]), (block, 0), &mut e);
            values.extend(e.iter().map(|&v| ring.centred(v) as f64));
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| v * v).sum::<f64>() / n;
        assert!(values.iter().all(|v| v.abs() <= 4.0));
        assert!(mean.abs() < 5.0 * (2.0 / n).sqrt(), "{mean}");
        assert!((variance - 2.0).abs() < 0.05, "{variance}");
    }

    /// The mask by what it protects: without the error, whoever knows the message's part solves b = a·s + M for s;
    /// with it, the same attack finds nothing ternary.
    #[test]
    fn without_the_error_the_secret_is_recovered_and_with_it_not() {
        let parameters = GLWE_2048_V1;
        let ring = parameters.ring();
        let mut secret: Vec<u32> = (0..2048).map(|i| ring.from_signed((i * i % 3) - 1)).collect();
        let original = secret.clone();
        ring.forward(&mut secret);
        let masks = MaskSeed([9; 32]);
        let mask = masks.mask(&parameters, 4, 0);
        let message = vec![77u32; 2048];
        let attack = |body: &[u32]| {
            let mut known = message.clone();
            ring.forward(&mut known);
            let mut difference = body.to_vec();
            ring.sub_assign(&mut difference, &known);
            let inverses: Vec<u32> = mask.iter().map(|&a| inverse(parameters.modulus, a)).collect();
            let mut guess = ring.multiply(&difference, &inverses);
            ring.inverse(&mut guess);
            guess
        };
        let mut bare = message.clone();
        encrypt(&ring, &mask, &secret, &mut bare);
        assert_eq!(attack(&bare), original, "without the error the attack must succeed, or it tests nothing");
        let mut body = message.clone();
        add_error(&parameters, &ring, &Seed::from_bytes([3; 32]), &masks, (0, 0), &mut body);
        encrypt(&ring, &mask, &secret, &mut body);
        let guess = attack(&body);
        let hits = guess.iter().zip(&original).filter(|(a, b)| a == b).count();
        assert!(hits < 10, "{hits} of 2048 coefficients guessed");
        assert!(guess.iter().filter(|&&v| ring.centred(v).abs() <= 1).count() < 10);
        // Nor is the nearest of the three possible values right more often than one guess in three.
        let bound = i64::from(parameters.modulus) / 6;
        let nearest = |v| if ring.centred(v).abs() <= bound { 0 } else { ring.centred(v).signum() };
        let right = guess.iter().zip(&original).filter(|(g, o)| nearest(**g) == ring.centred(**o)).count() as f64;
        assert!(
            (right - 2048.0 / 3.0).abs() < 6.0 * (2048.0f64 * 2.0 / 9.0).sqrt(),
            "{right} of 2048 coefficients guessed"
        );
    }

    fn inverse(q: u32, a: u32) -> u32 {
        let (mut result, mut base, mut exponent) = (1u64, u64::from(a), q - 2);
        while exponent > 0 {
            if exponent & 1 == 1 {
                result = result * base % u64::from(q);
            }
            base = base * base % u64::from(q);
            exponent >>= 1;
        }
        result as u32
    }

    #[test]
    fn a_part_is_deterministic_and_changes_with_its_label() {
        let parameters = GLWE_2048_V1;
        let ring = parameters.ring();
        let layout = Layout::new(64, 2).unwrap();
        let dimension = Dimension::new(64).unwrap();
        let seed = Seed::from_bytes([1; 32]);
        let secrets = [vec![5u32; 2048], vec![6u32; 2048]];
        let secrets: Vec<&[u32]> = secrets.iter().map(Vec::as_slice).collect();
        let values = vec![(1u64 << 47) + 3; 64];
        let member = || [PartOfMember { place: SlotPlace { body: 1, position: 3 }, values: &values }];
        let part = |masks| {
            let masks = MaskSeed(masks).expand(&parameters, layout, dimension);
            gallery_part(&parameters, &ring, layout, &masks, &seed, &secrets, &member())
        };
        assert_eq!(part([1; 32]), part([1; 32]));
        let (a, b) = (part([1; 32]), part([2; 32]));
        assert!(a.iter().zip(&b).filter(|(x, y)| x == y).count() < 5);
    }
}
