//! ∏ X_j^{e_j} for many bases, in variable time: squarings are shared by all bases.
//!
//! **Digits.** Exponents are cut into windows of c bits. With the bases' inverses at hand digits are signed,
//! −2^(c−1) ≤ d ≤ 2^(c−1), which halves buckets; otherwise exponents are not negative and 0 ≤ d < 2^c.
//!
//! **Methods.** *Straus*: a table of every base's multiples; good for few bases. *Pippenger*: per window, bases with the same digit
//! meet in a bucket, and ∏ bucket_d^d takes two multiplications per bucket, of which filling it saves one; good for many.
//! [`Plan::best`] counts multiplications of both for every c and takes the least (b bits, W windows, n bases):
//!
//! | method | multiplications |
//! |---|---|
//! | Straus | n·table + W·n + b |
//! | Pippenger | W·n + W·buckets + b |
//! | prepared, L levels | W·n + ⌈W/L⌉·buckets + b/L |
//!
//! **Prepared bases.** A packed gallery is the same for every query, so [`PreparedBases`] keeps its bases in inner form with
//! their inverses and, if memory allows, their powers by 2^(c·⌈W/L⌉·l) for L levels l: then windows of all levels share
//! buckets. At 512 bases and exponents of 26 bits one level takes about 2,200 multiplications (three windows of nine bits), three levels
//! 1,800; more levels do not help.

use num_bigint::BigUint;
use veilmatch_kernels::montgomery::{Modular, SquaredModulus, Workspace};
use zeroize::Zeroizing;

use crate::ciphertext::check_all;
use crate::{Ciphertext, PaillierError, PublicKey, TORUS_BITS};

/// The widest window that is considered.
const MAX_WINDOW: usize = 12;
/// Bits of the exponents of prepared bases: a sign, and a magnitude of at most 2^25.
const EXPONENT_BITS: usize = TORUS_BITS as usize;

/// A way to compute, and what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    straus: bool,
    /// c, in bits.
    window: usize,
    /// L.
    levels: usize,
    /// Multiplications, about.
    cost: usize,
}

/// What a plan is for.
#[derive(Clone, Copy, Debug)]
struct Task {
    bases: usize,
    /// Of an exponent, with its sign if there is one.
    bits: usize,
    /// With inverses.
    signed: bool,
}

impl Task {
    fn windows(&self, window: usize) -> usize {
        self.bits.div_ceil(window)
    }

    /// The largest digit.
    fn buckets(&self, window: usize) -> usize {
        if self.signed { 1 << (window - 1) } else { (1 << window) - 1 }
    }

    fn straus(&self, window: usize) -> Plan {
        let cost = self.bases * (self.buckets(window) - 1 + self.windows(window)) + self.bits;
        Plan { straus: true, window, levels: 1, cost }
    }

    fn pippenger(&self, window: usize, levels: usize) -> Plan {
        let (windows, passes) = (self.windows(window), self.windows(window).div_ceil(levels));
        let cost = windows * self.bases + passes * self.buckets(window) + (passes - 1) * window;
        Plan { straus: false, window, levels, cost }
    }
}

impl Plan {
    /// The cheapest without preparation.
    fn best(task: Task) -> Self {
        let plans = (1..=MAX_WINDOW).flat_map(|c| [task.straus(c), task.pippenger(c, 1)]);
        plans.min_by_key(|plan| plan.cost).unwrap_or(task.pippenger(1, 1))
    }

    /// The cheapest with at most so many levels.
    fn prepared(task: Task, most_levels: usize) -> Self {
        let plans = (1..=MAX_WINDOW).map(|c| {
            let levels = most_levels.clamp(1, task.windows(c));
            // The least number of levels that takes as many passes: more would be memory for nothing.
            let passes = task.windows(c).div_ceil(levels);
            task.pippenger(c, task.windows(c).div_ceil(passes))
        });
        plans.min_by_key(|plan| plan.cost).unwrap_or(task.pippenger(1, 1))
    }
}

/// Exponents cut into windows. Wiped on drop.
pub(crate) struct Digits {
    /// Window by window from the lowest, all bases each.
    digits: Zeroizing<Vec<i16>>,
    bases: usize,
}

/// An exponent's sign and magnitude.
#[derive(Clone, Copy)]
struct Exponent {
    negative: bool,
    magnitude: u128,
}

impl From<i32> for Exponent {
    fn from(value: i32) -> Self {
        Self { negative: value < 0, magnitude: value.unsigned_abs().into() }
    }
}

impl From<u128> for Exponent {
    fn from(magnitude: u128) -> Self {
        Self { negative: false, magnitude }
    }
}

impl Digits {
    fn of(exponents: impl ExactSizeIterator<Item = Exponent>, task: Task, window: usize) -> Self {
        let (bases, windows) = (exponents.len(), task.windows(window));
        let mut digits = Zeroizing::new(vec![0i16; bases * windows]);
        for (j, exponent) in exponents.enumerate() {
            let mut carry = 0;
            for (k, row) in digits.chunks_exact_mut(bases.max(1)).enumerate() {
                let shifted = exponent.magnitude.checked_shr((k * window) as u32).unwrap_or(0);
                let mut digit = (shifted as i32 & ((1 << window) - 1)) + carry;
                carry = 0;
                if task.signed && digit > 1 << (window - 1) {
                    digit -= 1 << window;
                    carry = 1;
                }
                if let Some(place) = row.get_mut(j) {
                    *place = if exponent.negative { -digit } else { digit } as i16;
                }
            }
        }
        Self { digits, bases }
    }

    fn windows(&self) -> usize {
        self.digits.len() / self.bases.max(1)
    }

    fn row(&self, k: usize) -> &[i16] {
        self.digits.chunks_exact(self.bases.max(1)).nth(k).unwrap_or(&[])
    }
}

/// A product that may still be empty: the first factor costs nothing.
struct Product<'a> {
    group: &'a SquaredModulus,
    value: Option<Vec<u64>>,
}

impl<'a> Product<'a> {
    fn new(group: &'a SquaredModulus) -> Self {
        Self { group, value: None }
    }

    fn times(&mut self, work: &mut Workspace, factor: &[u64]) {
        match &mut self.value {
            Some(value) => self.group.multiply_assign(work, value, factor),
            None => self.value = Some(factor.to_vec()),
        }
    }

    fn square(&mut self, work: &mut Workspace, times: usize) {
        if let Some(value) = &mut self.value {
            for _ in 0..times {
                self.group.square_assign(work, value);
            }
        }
    }

    /// Takes ∏ bucket_d^d, d from 1, and empties the buckets.
    fn collect(&mut self, work: &mut Workspace, buckets: &mut Buckets) {
        let (mut running, mut sum) = (Product::new(self.group), Product::new(self.group));
        for d in (0..buckets.full.len()).rev() {
            if let Some(bucket) = buckets.take(d) {
                running.times(work, bucket);
            }
            if let Some(value) = &running.value {
                sum.times(work, value);
            }
        }
        if let Some(value) = sum.value {
            self.times(work, &value);
        }
    }
}

/// Products of bases with one digit.
struct Buckets {
    residues: Vec<u64>,
    full: Vec<bool>,
    limbs: usize,
}

impl Buckets {
    fn new(group: &SquaredModulus, count: usize) -> Self {
        Self { residues: vec![0; count * group.limbs()], full: vec![false; count], limbs: group.limbs() }
    }

    /// Multiplies bucket `d − 1`.
    fn put(&mut self, group: &SquaredModulus, work: &mut Workspace, d: usize, factor: &[u64]) {
        let at = d.wrapping_sub(1);
        let bucket = self.residues.chunks_exact_mut(self.limbs).nth(at);
        if let (Some(bucket), Some(full)) = (bucket, self.full.get_mut(at)) {
            if *full {
                group.multiply_assign(work, bucket, factor);
            } else {
                bucket.copy_from_slice(factor);
                *full = true;
            }
        }
    }

    fn take(&mut self, at: usize) -> Option<&[u64]> {
        let full = self.full.get_mut(at)?;
        let was_full = std::mem::replace(full, false);
        if was_full { self.residues.chunks_exact(self.limbs).nth(at) } else { None }
    }
}

/// Bases in inner form, ready for many multi-exponentiations with exponents between ±2^25.
#[derive(Clone)]
pub struct PreparedBases {
    key: PublicKey,
    bases: usize,
    plan: Plan,
    task: Task,
    /// Level by level, all bases each.
    forward: Vec<u64>,
    /// Likewise the inverses; empty if there are none.
    inverse: Vec<u64>,
}

impl std::fmt::Debug for PreparedBases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PreparedBases({} bases, {} bytes, {:?})", self.bases, self.bytes(), self.plan)
    }
}

impl PreparedBases {
    /// Prepares ciphertexts within `memory` bytes; the least it takes is [`PreparedBases::level_bytes`]. Every level adds as much, and
    /// costs 18 squarings per ciphertext here.
    ///
    /// # Errors
    /// [`PaillierError::OtherKey`].
    pub fn new(key: &PublicKey, ciphertexts: &[Ciphertext], memory: usize) -> Result<Self, PaillierError> {
        check_all(key, ciphertexts)?;
        let (group, bases) = (key.group(), ciphertexts.len());
        let task = Task { bases, bits: EXPONENT_BITS, signed: true };
        let plan = Plan::prepared(task, memory / Self::level_bytes(key, bases).max(1));
        let mut work = group.workspace();
        let residues: Vec<Vec<u64>> = ciphertexts.iter().map(|c| c.to_inner(key, &mut work)).collect();
        let inverses = key.inverses(&mut work, &residues)?;
        let step = plan.window * task.windows(plan.window).div_ceil(plan.levels);
        let mut levels = |residues: &[Vec<u64>]| {
            let mut all = residues.concat();
            for level in 1..plan.levels {
                let start = (level - 1) * bases * group.limbs();
                for at in (start..start + bases * group.limbs()).step_by(group.limbs()) {
                    let mut power = all.get(at..at + group.limbs()).map(<[u64]>::to_vec).unwrap_or_default();
                    for _ in 0..step {
                        group.square_assign(&mut work, &mut power);
                    }
                    all.extend_from_slice(&power);
                }
            }
            all
        };
        let (forward, inverse) = (levels(&residues), levels(&inverses));
        Ok(Self { key: key.clone(), bases, plan, task, forward, inverse })
    }

    /// Bytes of one level of so many ciphertexts, with their inverses (512 at 2,048 bits: 512 KiB).
    #[must_use]
    pub fn level_bytes(key: &PublicKey, ciphertexts: usize) -> usize {
        2 * key.size().ciphertext_bytes() * ciphertexts
    }

    /// The number of bases.
    pub(crate) fn len(&self) -> usize {
        self.bases
    }

    /// Bytes of memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        8 * (self.forward.len() + self.inverse.len())
    }

    /// Multiplications that one multi-exponentiation takes, about.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.plan.cost
    }

    /// The key of the bases.
    pub(crate) fn key(&self) -> &PublicKey {
        &self.key
    }

    /// c: exponents are recoded alike for all with the same number.
    pub(crate) fn window(&self) -> usize {
        self.plan.window
    }

    /// Exponents between ±2^25, recoded for these bases and for as many others with the same [`PreparedBases::window`].
    pub(crate) fn digits(&self, exponents: &[i32]) -> Digits {
        Digits::of(exponents.iter().map(|&e| e.into()), self.task, self.plan.window)
    }

    /// ∏ X_j^{e_j} in inner form.
    pub(crate) fn power_vartime(&self, work: &mut Workspace, digits: &Digits) -> Vec<u64> {
        let power = if self.plan.straus { self.straus(work, digits) } else { self.pippenger(work, digits) };
        power.value.unwrap_or_else(|| self.key.group().one().to_vec())
    }

    fn residue(&self, inverted: bool, level: usize, base: usize) -> Option<&[u64]> {
        let limbs = self.key.group().limbs();
        let at = (level * self.bases + base) * limbs;
        if inverted { &self.inverse } else { &self.forward }.get(at..at + limbs)
    }

    fn pippenger(&self, work: &mut Workspace, digits: &Digits) -> Product<'_> {
        let group = self.key.group();
        let passes = digits.windows().div_ceil(self.plan.levels);
        let mut product = Product::new(group);
        let mut buckets = Buckets::new(group, self.task.buckets(self.plan.window));
        for pass in (0..passes).rev() {
            product.square(work, self.plan.window);
            for level in 0..self.plan.levels {
                for (base, &digit) in digits.row(level * passes + pass).iter().enumerate() {
                    if let (1.., Some(residue)) = (digit.unsigned_abs(), self.residue(digit < 0, level, base)) {
                        buckets.put(group, work, digit.unsigned_abs().into(), residue);
                    }
                }
            }
            product.collect(work, &mut buckets);
        }
        product
    }

    fn straus(&self, work: &mut Workspace, digits: &Digits) -> Product<'_> {
        let (group, limbs) = (self.key.group(), self.key.group().limbs());
        let entries = self.task.buckets(self.plan.window);
        let mut tables = Vec::with_capacity(self.bases * entries * limbs);
        for base in self.forward.chunks_exact(limbs) {
            let mut power = base.to_vec();
            for _ in 1..entries {
                tables.extend_from_slice(&power);
                group.multiply_assign(work, &mut power, base);
            }
            tables.extend_from_slice(&power);
        }
        let mut product = Product::new(group);
        for k in (0..digits.windows()).rev() {
            product.square(work, self.plan.window);
            for (table, &digit) in tables.chunks_exact(entries * limbs).zip(digits.row(k)) {
                let at = usize::from(digit.unsigned_abs()).wrapping_sub(1);
                if let Some(entry) = table.chunks_exact(limbs).nth(at) {
                    product.times(work, entry);
                }
            }
        }
        product
    }
}

/// ∏ c_j^{e_j} in inner form, without preparation; as many exponents as ciphertexts.
pub(crate) fn power_product_vartime(
    key: &PublicKey,
    work: &mut Workspace,
    ciphertexts: &[Ciphertext],
    exponents: &[u128],
) -> Vec<u64> {
    let bits = exponents.iter().map(|e| 128 - e.leading_zeros()).max().unwrap_or(0).max(1) as usize;
    let task = Task { bases: ciphertexts.len(), bits, signed: false };
    let plan = Plan::best(task);
    let forward = ciphertexts.iter().map(|c| c.to_inner(key, work)).collect::<Vec<_>>().concat();
    let bases = PreparedBases { key: key.clone(), bases: ciphertexts.len(), plan, task, forward, inverse: Vec::new() };
    bases.power_vartime(work, &Digits::of(exponents.iter().map(|&e| e.into()), task, plan.window))
}

/// A public number to a public power modulo N², in inner form.
pub(crate) fn power_of_number_vartime(
    key: &PublicKey,
    work: &mut Workspace,
    base: &BigUint,
    exponent: &[u64],
) -> Vec<u64> {
    let mut residue = crate::integers::to_limbs(base, key.group().limbs());
    key.group().enter(work, &mut residue);
    key.group().power_vartime(&residue, exponent)
}

#[cfg(test)]
mod tests;
