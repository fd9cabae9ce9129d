//! One suite for every instruction set, against the reference, on random and extreme residues.

use super::eights::MOST_BLOCKS;
use super::pass::{PACKED_TERMS, TERMS};
use super::*;
use crate::tests_support::{Lcg, Q};
use crate::to_bytes;

const SMALL: u32 = 268_369_921;

/// Draws residues: all largest, all middle, all zero, or random with extremes strewn in.
fn residues(lcg: &mut Lcg, q: u32, count: usize, kind: usize) -> Vec<u32> {
    let fixed = [None, Some(q - 1), Some(q / 2), Some(q / 2 + 1), Some(0), None][kind % 6];
    let extremes = [0, 1, q / 2, q / 2 + 1, q - 1];
    (0..count)
        .map(|_| {
            let random = lcg.below(q);
            fixed.unwrap_or(if kind % 6 == 5 && random.is_multiple_of(3) {
                extremes[random as usize % 5]
            } else {
                random
            })
        })
        .collect()
}

fn compare(kernel: Kernel, q: u32, blocks: usize, rank: usize, count: usize, kinds: [usize; 2], seed: u64) {
    let ring = Ring::new(64, q).unwrap();
    let n = ring.degree();
    let mut lcg = Lcg(seed);
    let bodies = residues(&mut lcg, q, blocks * rank * n, kinds[0]);
    let vectors: Vec<Vec<u32>> = (0..count).map(|_| residues(&mut lcg, q, blocks * n, kinds[1])).collect();
    let vectors: Vec<&[u32]> = vectors.iter().map(Vec::as_slice).collect();
    let layout = BodyLayout::new(n, q, blocks, rank).unwrap();
    let arranged = layout.arrange(&bodies).unwrap();
    let probe = ScanProbe::with(kernel, &ring, &vectors).unwrap();
    let sums = scan(kernel, &ring, layout, &probe, &[&arranged]).unwrap();
    let expected = scan_reference(&ring, rank, &vectors, &bodies).unwrap();
    assert_eq!(sums[0], expected, "{} q={q} J={blocks} r={rank} {count} vectors, kinds {kinds:?}", kernel.name());
}

/// Shapes that meet every pass width, every remainder of a split, and longer sums than any layout has.
fn suite(kernel: Kernel) {
    let blocks: &[usize] = if cfg!(miri) { &[1, 9] } else { &[1, 2, 7, 8, 9, 15, 16, 17, 127, 128, 129, 300, 1024] };
    for q in [Q, SMALL] {
        for (i, &blocks) in blocks.iter().enumerate() {
            for rank in [1, 2, 3, 4, 5, 6, 8] {
                for count in [1, 2, 3] {
                    compare(kernel, q, blocks, rank, count, [5, 5], (i * 100 + rank * 10 + count) as u64);
                }
            }
            for kinds in [[1, 1], [2, 2], [2, 3], [3, 3], [4, 1], [1, 0]] {
                compare(kernel, q, blocks, 2, 2, kinds, i as u64);
            }
        }
    }
}

#[test]
fn portable_agrees_with_the_reference() {
    suite(Kernel::portable());
}

/// A set that this machine lacks is named, so that nobody takes silence for success.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn suite_of(name: &str) {
    match Kernel::available().into_iter().find(|k| k.name() == name) {
        Some(kernel) => suite(kernel),
        None => eprintln!("SKIPPED: this machine has no {name}; the scan for it was not run"),
    }
}

#[test]
#[cfg_attr(miri, ignore)]
fn avx2_agrees_with_the_reference() {
    suite_of("avx2");
}

#[test]
#[cfg_attr(miri, ignore)]
fn avx512_agrees_with_the_reference() {
    suite_of("avx512");
}

#[test]
fn the_reference_is_the_sum_of_products() {
    let ring = Ring::new(64, Q).unwrap();
    let mut lcg = Lcg(3);
    let (blocks, rank, n) = (5, 3, 64);
    let bodies = residues(&mut lcg, Q, blocks * rank * n, 5);
    let vector = residues(&mut lcg, Q, blocks * n, 5);
    let sums = scan_reference(&ring, rank, &[&vector], &bodies).unwrap();
    for body in 0..rank {
        for point in 0..n {
            let sum: u128 = (0..blocks)
                .map(|j| u128::from(vector[j * n + point]) * u128::from(bodies[(j * rank + body) * n + point]))
                .sum();
            assert_eq!(u128::from(sums[body * n + point]), sum % u128::from(Q));
        }
    }
}

#[test]
fn the_bounds_of_the_lazy_sums_hold_for_every_modulus() {
    // The largest odd q below 2^31, and the largest below 2^28.
    let half = u128::from((1u32 << 31) - 1) / 2;
    assert!(TERMS as u128 * half * half < 1 << 63);
    // The rests of so many additions fill 64 bits at most, and their upper bits 32.
    let additions = (MOST_BLOCKS / TERMS) as u128;
    assert!(additions << 48 <= 1 << 64 && additions << 15 <= 1 << 31);
    // Products are below 2^60. What two Montgomery steps leave of the upper sums with their correction is below the least
    // modulus of centred residues, 2^28, so that the result is below 2q.
    assert!(half * half < 1 << 60 && (2 * MOST_BLOCKS as u128) << 28 >> 32 < 1 << 28);
    let packed = u128::from((1u32 << 28) - 1);
    assert!(PACKED_TERMS as u128 * packed * packed + (1 << 32) < 1 << 64);
}

/// For widths that fold within half a tile, within a tile and over several, several probes, and more groups than share a task.
#[test]
fn folded_sums_are_the_sums_folded() {
    let mut lcg = Lcg(17);
    for kernel in Kernel::available() {
        for (degree, beta) in [(64, 1), (64, 2), (64, 4), (64, 8), (64, 16), (256, 64), (32, 32)] {
            for (q, blocks, rank, pairs, groups) in
                [(Q, 9, 5, 1, 1), (Q, 16, 4, 3, 5), (SMALL, 9, 7, 2, 2), (Q, 1, 1, 1, 3)]
            {
                let ring = Ring::new(degree, q).unwrap();
                let layout = BodyLayout::new(degree, q, blocks, rank).unwrap();
                let bodies: Vec<Vec<u32>> =
                    (0..groups).map(|_| residues(&mut lcg, q, blocks * rank * degree, 5)).collect();
                let vectors: Vec<Vec<u32>> =
                    (0..2 * pairs).map(|_| residues(&mut lcg, q, blocks * degree, 5)).collect();
                let vectors: Vec<&[u32]> = vectors.iter().map(Vec::as_slice).collect();
                let probe = ScanProbe::new(&ring, &vectors).unwrap();
                let arranged: Vec<Vec<u32>> = bodies.iter().map(|b| layout.arrange(b).unwrap()).collect();
                let arranged: Vec<&[u32]> = arranged.iter().map(Vec::as_slice).collect();
                let found = scan_folded(kernel, &ring, layout, &probe, beta, &arranged).unwrap();
                assert_eq!(found.len(), groups);
                for (found, bodies) in found.iter().zip(&bodies) {
                    let sums = scan_reference(&ring, rank, &vectors, bodies).unwrap();
                    let expected = sums.chunks_exact(2 * rank * degree).map(|pair| {
                        let (whole, folded) = pair.split_at(rank * degree);
                        let mut folded = folded.to_vec();
                        let folded = ring.fold(ring.folding(beta).unwrap(), &mut folded);
                        FoldedSums { whole: to_bytes(whole), folded: to_bytes(folded) }
                    });
                    let expected: Vec<FoldedSums> = expected.collect();
                    assert_eq!(found, &expected, "{} q={q} N={degree} β={beta} r={rank}", kernel.name());
                }
            }
        }
    }
}

#[test]
fn foldings_that_do_not_exist_and_half_pairs_are_refused() {
    let ring = Ring::new(64, Q).unwrap();
    let layout = BodyLayout::new(64, Q, 2, 2).unwrap();
    let (vector, bodies) = (vec![1u32; 128], vec![1u32; 256]);
    let kernel = Kernel::detect();
    let pair = ScanProbe::new(&ring, &[&vector, &vector]).unwrap();
    let fold = |probe: &ScanProbe, beta: usize, bodies: &[u32]| {
        scan_folded(kernel, &ring, layout, probe, beta, &[bodies]).map(|sums| sums.len())
    };
    assert_eq!(fold(&pair, 4, &bodies), Ok(1));
    assert_eq!(fold(&pair, 3, &bodies), Err(LengthError));
    assert_eq!(fold(&pair, 128, &bodies), Err(LengthError));
    assert_eq!(fold(&pair, 4, &bodies[1..]), Err(LengthError));
    assert_eq!(fold(&ScanProbe::new(&ring, &[&vector]).unwrap(), 4, &bodies), Err(LengthError));
}

#[test]
fn arranging_is_undone_by_restoring() {
    let mut lcg = Lcg(11);
    for q in [Q, SMALL] {
        for (blocks, rank) in [(1, 1), (8, 2), (9, 3), (17, 5)] {
            let layout = BodyLayout::new(32, q, blocks, rank).unwrap();
            let natural = residues(&mut lcg, q, blocks * rank * 32, 5);
            let arranged = layout.arrange(&natural).unwrap();
            assert_eq!(arranged.len(), layout.words());
            assert_eq!(layout.restore(&arranged).unwrap(), natural);
            assert_eq!(layout.restore(&arranged[1..]), Err(LengthError));
            assert_eq!(layout.arrange(&natural[1..]), Err(LengthError));
        }
    }
    let packed = BodyLayout::new(2048, SMALL, 128, 16).unwrap();
    assert_eq!(packed.words() * 4, 16 * 512 * 1792, "1,792 bytes per template at d = 512");
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let ring = Ring::new(64, Q).unwrap();
    let layout = BodyLayout::new(64, Q, 2, 2).unwrap();
    let (vector, bodies) = (vec![1u32; 128], vec![1u32; 256]);
    let probe = ScanProbe::new(&ring, &[&vector]).unwrap();
    let kernel = Kernel::detect();
    assert!(scan(kernel, &ring, layout, &probe, &[&bodies]).is_ok());
    assert_eq!(scan(kernel, &ring, layout, &probe, &[&bodies[1..]]), Err(LengthError));
    let other = BodyLayout::new(64, Q, 1, 4).unwrap();
    assert_eq!(scan(kernel, &ring, other, &probe, &[&bodies]), Err(LengthError));
    let other = BodyLayout::new(64, SMALL, 2, 2).unwrap();
    assert_eq!(scan(kernel, &ring, other, &probe, &[&vec![1; other.words()]]), Err(LengthError));
    assert!(ScanProbe::new(&ring, &[]).is_err());
    assert!(ScanProbe::new(&ring, &[&vector, &vector[..64]]).is_err());
    assert!(ScanProbe::new(&ring, &[&vector[..100]]).is_err());
    assert!(BodyLayout::new(20, Q, 1, 1).is_err());
    assert!(BodyLayout::new(64, Q, 0, 1).is_err());
    assert!(BodyLayout::new(64, Q, MOST_BLOCKS, 1).is_ok());
    assert!(BodyLayout::new(64, Q, MOST_BLOCKS + 1, 1).is_err());
}
