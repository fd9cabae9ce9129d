//! Agreement with the design's reference program, number by number, at N = 64 (tests/vectors/reference-n64.txt).

use std::collections::BTreeMap;
use std::sync::Arc;

use veilmatch_domain::{Party, Threshold};
use veilmatch_glwe::{GLWE_2048_V1, Layout, Parameters, ProbeCiphertext, place_gallery, place_probe};
use veilmatch_kernels::{BodyLayout, Ring, scan_reference};
use veilmatch_secret::Secret;

use crate::keys::SecretParts;
use crate::recrypt::encrypt;
use crate::scan_check::combine_bodies;
use crate::scores::{DecodedSums, Factors, ShareInputs, score_shares};

struct Vectors(BTreeMap<String, Vec<u32>>);

impl Vectors {
    fn load() -> Self {
        let text = include_str!("../../../tests/vectors/reference-n64.txt");
        let lines = text.lines().filter(|l| !l.starts_with('#'));
        Self(
            lines
                .map(|line| {
                    let mut words = line.split(' ');
                    (words.next().unwrap().to_owned(), words.map(|w| w.parse().unwrap()).collect())
                })
                .collect(),
        )
    }

    fn get(&self, name: &str) -> &[u32] {
        &self.0[name]
    }

    /// The polynomial with this name, transformed.
    fn ntt(&self, ring: &Ring, name: &str) -> Vec<u32> {
        let mut values = self.get(name).to_vec();
        ring.forward(&mut values);
        values
    }
}

fn coefficients_of(ring: &Ring, transformed: &[u32]) -> Vec<u32> {
    let mut values = transformed.to_vec();
    ring.inverse(&mut values);
    values
}

#[test]
fn every_step_agrees_with_the_reference_program() {
    let v = Vectors::load();
    let &[n, d, beta, r, q] = v.get("shape") else { panic!("shape") };
    let (n, d, beta, r) = (n as usize, d as usize, beta as usize, r as usize);
    let parameters = Parameters { name: "toy", degree: n, modulus: q, ..GLWE_2048_V1 };
    let ring = parameters.ring();
    let layout = Layout::new(beta, r).unwrap();
    let (blocks, positions) = (d / beta, n / beta);

    // Placement and recrypt of the gallery, part by part, then the sum.
    let mut bodies = Vec::new();
    for j in 0..blocks {
        let mask = v.ntt(&ring, &format!("a.{j}"));
        for k in 0..r {
            let mut sum = vec![0u32; n];
            for i in 0..3 {
                let mut message = vec![0u32; n];
                for t in 0..positions {
                    place_gallery(layout, j, t, v.get(&format!("gallery.scaled.{k}.{t}.{i}")), &mut message);
                }
                let secret = v.ntt(&ring, &format!("s{}.{i}", k + 1));
                let mut part = message;
                ring.add_assign(&mut part, v.get(&format!("e.{j}.{k}.{i}")));
                encrypt(&ring, &mask, &secret, &mut part);
                assert_eq!(coefficients_of(&ring, &part), v.get(&format!("b.part.{j}.{k}.{i}")));
                ring.add_assign(&mut sum, &part);
            }
            assert_eq!(coefficients_of(&ring, &sum), v.get(&format!("b.{j}.{k}")));
            bodies.extend(sum);
        }
    }

    // The probe.
    let (mut masks, mut probe_masks, mut probe_bodies) = (Vec::new(), Vec::new(), Vec::new());
    for j in 0..blocks {
        masks.extend(v.ntt(&ring, &format!("a.{j}")));
        let mask = v.ntt(&ring, &format!("ap.{j}"));
        let mut sum = vec![0u32; n];
        for i in 0..3 {
            let mut body = vec![0; n];
            place_probe(&ring, layout, j, v.get(&format!("probe.scaled.{i}")), &mut body);
            ring.add_assign(&mut body, v.get(&format!("ep.{j}.{i}")));
            let secret = v.ntt(&ring, &format!("s0.{i}"));
            encrypt(&ring, &mask, &secret, &mut body);
            ring.add_assign(&mut sum, &body);
        }
        assert_eq!(coefficients_of(&ring, &sum), v.get(&format!("bp.{j}")));
        probe_masks.extend(mask);
        probe_bodies.extend(sum);
    }

    // The matcher's sums.
    let sums = scan_reference(&ring, r, &[&probe_masks, &probe_bodies], &bodies).unwrap();
    let polynomials: Vec<Vec<u32>> = sums.chunks_exact(n).map(<[u32]>::to_vec).collect();
    let (a, b) = polynomials.split_at(r);
    for k in 0..r {
        assert_eq!(coefficients_of(&ring, &a[k]), v.get(&format!("A.{k}")));
        assert_eq!(coefficients_of(&ring, &b[k]), v.get(&format!("B.{k}")));
    }

    // The check vector.
    let check = combine_bodies(&parameters, &ring, layout, v.get("rho"), &bodies);
    for (j, block) in check.chunks_exact(n).enumerate() {
        assert_eq!(coefficients_of(&ring, block), v.get(&format!("C.{j}")));
    }

    // Folded sums unfold to the coefficients βt, and shares of scores.
    let folding = ring.folding(beta).unwrap();
    let sums = DecodedSums {
        masks: a.concat(),
        scores: b.iter().flat_map(|body| ring.fold(folding, &mut body.clone()).to_vec()).collect(),
    };
    let probe = ProbeCiphertext { masks: probe_masks, bodies: probe_bodies };
    for (k, folded) in sums.scores.chunks_exact(positions).enumerate() {
        let mut picked = folded.to_vec();
        ring.unfold(folding, &mut picked);
        assert!(picked.iter().eq(v.get(&format!("B.{k}")).iter().step_by(beta)));
    }
    let parts = |name: &str, i: usize| SecretParts {
        own: Secret::new(v.ntt(&ring, &format!("{name}.{i}"))),
        next: Secret::new(v.ntt(&ring, &format!("{name}.{}", (i + 1) % 3))),
    };
    let prepared = probe.prepare(&ring).unwrap();
    let masks = BodyLayout::new(n, ring.modulus(), blocks, 1).unwrap().arrange(&masks).unwrap();
    let slots: Vec<u32> = (0..(r * positions) as u32).collect();
    for party in Party::ALL {
        let i = party.index();
        let gallery: Vec<_> = (1..=r).map(|k| Arc::new(parts(&format!("s{k}"), i))).collect();
        let inputs = ShareInputs {
            party,
            parameters: &parameters,
            ring: &ring,
            folding,
            layout,
            masks: &masks,
            probe: &prepared,
            factors: &Factors::new(&ring, &parts("s0", i), &gallery),
            slots: &slots,
            threshold: Threshold::new(0.0).unwrap(),
            coarse: None,
        };
        let shares = score_shares(&inputs, &sums, None).unwrap();
        let expected: Vec<u64> = (0..r)
            .flat_map(|k| v.get(&format!("share.{k}.{i}")).iter().map(|&share| parameters.to_decision_torus(share)))
            .collect();
        assert_eq!(*shares.expose(), expected, "{party}");
    }
}
