//! Replicated sharing of bits: seeds of pairs, components, shares of zero, products (Araki et al., CCS 2016).
//!
//! x = x_0 ⊕ x_1 ⊕ x_2; K_i holds the components i and i+1. A product of two shared bits is
//! z_i = x_i·y_i ⊕ x_i·y_{i+1} ⊕ x_{i+1}·y_i ⊕ ζ_i, where ζ_0 ⊕ ζ_1 ⊕ ζ_2 = 0 come from the pairs' seeds without a
//! message; K_i sends z_i to K_{i−1}.
//!
//! Who sees what: K_{i−1} receives z_i, masked by ζ_i = F(seed_i) ⊕ F(seed_{i+1}), and does not know seed_{i+1}: to it
//! the bit is uniform and independent of everything else it has.

use veilmatch_domain::{Party, SessionId};
use veilmatch_secret::{Label, Seed, Stream};

use zeroize::Zeroizing;

use crate::lanes::Lanes;

/// The seeds that one party shares with the two others.
#[derive(Debug)]
pub struct PairwiseSeeds {
    /// Seed i, shared with K_{i−1}.
    pub own: Seed,
    /// Seed i+1, shared with K_{i+1}.
    pub next: Seed,
}

/// A party's two components of a shared value.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    /// Component i.
    pub(crate) own: Lanes,
    /// Component i+1.
    pub(crate) next: Lanes,
}

/// Labels of the streams of one session; every use has its own step, so that none is used twice.
pub(crate) fn stream(seed: &Seed, use_of: &'static str, session: &SessionId, step: u32) -> Stream {
    seed.stream(&Label::new(use_of).bytes(&session.0).number(step.into()))
}

/// ζ_i: `bits` bits that are uniform to each other party alone and add up to zero over the three.
pub(crate) fn zero_bits(seeds: &PairwiseSeeds, session: &SessionId, step: u32, bits: usize) -> Lanes {
    const USE: &str = "veilmatch/mpc/zero/bits";
    let mut zero = Lanes::pseudo_random(&mut stream(&seeds.own, USE, session, step), bits);
    zero.xor_pseudo_random(&mut stream(&seeds.next, USE, session, step));
    zero
}

/// Additive shares of zero modulo 2^w, for the inputs of a session in turn.
pub(crate) struct ZeroNumbers {
    own: Stream,
    next: Stream,
    buffers: Zeroizing<[[u8; ZeroNumbers::MOST * 8]; 2]>,
}

impl ZeroNumbers {
    /// How many may be asked for at once: few enough to stay in the first cache.
    pub(crate) const MOST: usize = 512;

    pub(crate) fn new(seeds: &PairwiseSeeds, session: &SessionId, step: u32) -> Self {
        const USE: &str = "veilmatch/mpc/zero/numbers";
        let (own, next) = (stream(&seeds.own, USE, session, step), stream(&seeds.next, USE, session, step));
        Self { own, next, buffers: Zeroizing::new([[0; Self::MOST * 8]; 2]) }
    }

    /// Adds one to each number of `width` bits; at most [`ZeroNumbers::MOST`] numbers. What it adds is uniform in the low
    /// `width` bits, and shares of zero in them.
    pub(crate) fn add_to(&mut self, width: u32, numbers: &mut [u64]) {
        // As many bits as needed are drawn, in whole words of 16, 32 or 64.
        let bytes = match width {
            0..=16 => 2,
            17..=32 => 4,
            _ => 8,
        };
        let [a, b] = &mut *self.buffers;
        let length = numbers.len().min(Self::MOST) * bytes;
        let (Some(a), Some(b)) = (a.get_mut(..length), b.get_mut(..length)) else { return };
        self.own.fill(a);
        self.next.fill(b);
        match bytes {
            2 => add_differences(numbers, a.as_chunks().0, b.as_chunks().0, |word| u64::from(u16::from_le_bytes(word))),
            4 => add_differences(numbers, a.as_chunks().0, b.as_chunks().0, |word| u64::from(u32::from_le_bytes(word))),
            _ => add_differences(numbers, a.as_chunks().0, b.as_chunks().0, u64::from_le_bytes),
        }
    }
}

fn add_differences<const N: usize>(numbers: &mut [u64], a: &[[u8; N]], b: &[[u8; N]], read: impl Fn([u8; N]) -> u64) {
    for (number, (a, b)) in numbers.iter_mut().zip(a.iter().zip(b)) {
        *number = number.wrapping_add(read(*a)).wrapping_sub(read(*b));
    }
}

/// This party's share of x·y before it is masked, word by word.
pub(crate) fn local_product<'a>(x: &'a Share, y: &'a Share) -> impl Iterator<Item = u64> + 'a {
    // x_i·(y_i ⊕ y_{i+1}) ⊕ x_{i+1}·y_i
    let x = x.own.words().iter().zip(x.next.words());
    let y = y.own.words().iter().zip(y.next.words());
    x.zip(y).map(|((x_own, x_next), (y_own, y_next))| x_own & (y_own ^ y_next) ^ x_next & y_own)
}

/// Which of this party's components public values are added to: component 0.
pub(crate) fn holds_constants(party: Party) -> (bool, bool) {
    (party == Party::K0, party == Party::K2)
}

#[cfg(test)]
pub(crate) fn test_seeds(tag: u8) -> [PairwiseSeeds; 3] {
    let seed = |i: usize| Seed::from_bytes([tag.wrapping_mul(3).wrapping_add((i % 3) as u8); 32]);
    Party::ALL.map(|p| PairwiseSeeds { own: seed(p.index()), next: seed(p.index() + 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_zero_add_up_to_zero_and_differ_by_step() {
        let seeds = test_seeds(1);
        let session = SessionId([1; 32]);
        let mut sum = Lanes::zeros(130);
        for s in &seeds {
            sum.xor_with(&zero_bits(s, &session, 7, 130));
        }
        assert!(!sum.any());
        let mut zeros = seeds.each_ref().map(|s| ZeroNumbers::new(s, &session, 7));
        let (mut high, mut count) = (0, 0);
        for (width, lanes) in [(5, 500), (16, 70), (16, 512), (20, 5), (32, 400), (48, 512), (64, 9)] {
            let drawn = zeros.each_mut().map(|zeros| {
                let mut numbers = vec![0; lanes];
                zeros.add_to(width, &mut numbers);
                numbers
            });
            for i in 0..lanes {
                let sum = drawn.iter().fold(0u64, |sum, numbers| sum.wrapping_add(numbers[i]));
                assert_eq!(sum << (64 - width), 0, "number {i} of {width} bits");
                high += usize::from(drawn[0][i] >> (width - 1) & 1 == 1);
                count += 1;
            }
        }
        assert!(crate::testing::like_coins(high, count), "the top bit is a coin: {high} of {count}");
        assert_ne!(zero_bits(&seeds[0], &session, 7, 130), zero_bits(&seeds[0], &session, 8, 130));
    }

    #[test]
    fn local_products_add_up_to_the_product() {
        let mut stream = Stream::public([8; 32]);
        let mut draw = || Lanes::pseudo_random(&mut stream, 200);
        let (x, y) = ([draw(), draw(), draw()], [draw(), draw(), draw()]);
        let share = |v: &[Lanes; 3], i: usize| Share { own: v[i].clone(), next: v[(i + 1) % 3].clone() };
        let total = |v: &[Lanes; 3]| {
            let mut sum = v[0].clone();
            sum.xor_with(&v[1]);
            sum.xor_with(&v[2]);
            sum
        };
        let products = [0, 1, 2].map(|i| {
            let mut product = Lanes::zeros(200);
            product.xor_words_at(0, local_product(&share(&x, i), &share(&y, i)));
            product
        });
        let mut expected = total(&x);
        expected.and_with(&total(&y));
        assert_eq!(total(&products), expected);
    }
}
