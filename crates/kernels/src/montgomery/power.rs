//! Exponentiation: in constant time for secret exponents, with and without tables made beforehand, and in variable time.

use zeroize::Zeroizing;

use super::{BLOCK, Workspace};

/// Bits of a window. A look-up reads all 32 entries: at 64 limbs that is 16 KiB, an eighth of a multiplication.
const WINDOW: usize = 5;
const ENTRIES: usize = 1 << WINDOW;
/// Rows of a fixed base's comb.
const TEETH: usize = 6;
const FIXED_ENTRIES: usize = 1 << TEETH;

/// Entry `index` of a table of residues. Reads all of it.
fn look_up<const ENTRIES: usize>(table: &[u64], index: usize, out: &mut [u64]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 is there.
        return unsafe { look_up_avx2::<ENTRIES>(table, index, out) };
    }
    look_up_blocks::<ENTRIES>(table, index, out);
}

/// The same, compiled for wider registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn look_up_avx2<const ENTRIES: usize>(table: &[u64], index: usize, out: &mut [u64]) {
    look_up_blocks::<ENTRIES>(table, index, out);
}

#[inline(always)]
fn look_up_blocks<const ENTRIES: usize>(table: &[u64], index: usize, out: &mut [u64]) {
    let limbs = out.len();
    assert!(table.len() == ENTRIES * limbs && limbs.is_multiple_of(BLOCK), "whole entries of whole blocks");
    let mut masks = [0; ENTRIES];
    for (i, mask) in masks.iter_mut().enumerate() {
        let differs = (i ^ index) as u64;
        // All ones if the index is this one.
        *mask = ((differs | differs.wrapping_neg()) >> 63).wrapping_sub(1);
    }
    let masks = std::hint::black_box(masks);
    for (at, out) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let mut sum = [0; BLOCK];
        for (entry, mask) in table.chunks_exact(limbs).zip(masks) {
            for (sum, &limb) in sum.iter_mut().zip(&entry[at * BLOCK..(at + 1) * BLOCK]) {
                *sum |= limb & mask;
            }
        }
        *out = sum;
    }
}

/// Bits `at..at + WINDOW` of a number; zero behind its end.
fn window(exponent: &[u64], at: usize) -> usize {
    let limb = |i: usize| exponent.get(i).copied().unwrap_or(0);
    let (i, shift) = (at / 64, at % 64);
    let pair = u128::from(limb(i)) | u128::from(limb(i + 1)) << 64;
    (pair >> shift) as usize & (ENTRIES - 1)
}

/// Arithmetic modulo a number, on residues in the inner form of the implementation.
///
/// Functions panic if a list has another length than the modulus.
pub trait Modular: Sync {
    /// The number of limbs of a residue.
    fn limbs(&self) -> usize;
    /// The modulus.
    fn modulus(&self) -> &[u64];
    /// One, in inner form.
    fn one(&self) -> &[u64];
    /// Room for the functions below.
    fn workspace(&self) -> Workspace;
    /// out := a·b, all in inner form.
    fn multiply(&self, work: &mut Workspace, out: &mut [u64], a: &[u64], b: &[u64]);
    /// a := a·b, both in inner form.
    fn multiply_assign(&self, work: &mut Workspace, a: &mut [u64], b: &[u64]);
    /// a := a², in inner form.
    fn square_assign(&self, work: &mut Workspace, a: &mut [u64]);
    /// Brings a canonical residue into inner form.
    fn enter(&self, work: &mut Workspace, a: &mut [u64]);
    /// Brings a residue out of inner form.
    fn leave(&self, work: &mut Workspace, a: &mut [u64]);

    /// Whether this many limbs are a canonical residue (variable time).
    fn is_canonical_vartime(&self, a: &[u64]) -> bool {
        a.len() == self.limbs() && a.iter().rev().lt(self.modulus().iter().rev())
    }

    /// base^exponent, both in inner form. Constant time: `bits` alone shows, which is how many the
    /// exponent may have; what lies above is not looked at.
    fn power(&self, work: &mut Workspace, base: &[u64], exponent: &[u64], bits: usize) -> Vec<u64> {
        let limbs = self.limbs();
        let mut table = Zeroizing::new(vec![0; ENTRIES * limbs]);
        table[..limbs].copy_from_slice(self.one());
        for i in 1..ENTRIES {
            let (before, entry) = table.split_at_mut(i * limbs);
            self.multiply(work, &mut entry[..limbs], &before[(i - 1) * limbs..], base);
        }
        let mut entry = Zeroizing::new(vec![0; limbs]);
        let mut power = self.one().to_vec();
        let windows = bits.div_ceil(WINDOW);
        for at in (0..windows).rev() {
            if at + 1 < windows {
                for _ in 0..WINDOW {
                    self.square_assign(work, &mut power);
                }
            }
            look_up::<ENTRIES>(&table, window(exponent, at * WINDOW), &mut entry);
            self.multiply_assign(work, &mut power, &entry);
        }
        power
    }

    /// As [`Modular::power`], in variable time: for public exponents.
    fn power_vartime(&self, base: &[u64], exponent: &[u64]) -> Vec<u64> {
        let mut work = self.workspace();
        let bits =
            exponent.iter().rposition(|&limb| limb != 0).map_or(0, |i| 64 * i + exponent[i].ilog2() as usize + 1);
        if bits <= 64 {
            let mut power = self.one().to_vec();
            for at in (0..bits).rev() {
                self.square_assign(&mut work, &mut power);
                if exponent[0] >> at & 1 == 1 {
                    self.multiply_assign(&mut work, &mut power, base);
                }
            }
            return power;
        }
        power_windows_vartime(self, &mut work, base, exponent, bits)
    }
}

fn power_windows_vartime<M: Modular + ?Sized>(
    modulus: &M,
    work: &mut Workspace,
    base: &[u64],
    exponent: &[u64],
    bits: usize,
) -> Vec<u64> {
    let limbs = modulus.limbs();
    let mut table = vec![0; ENTRIES * limbs];
    table[..limbs].copy_from_slice(modulus.one());
    for i in 1..ENTRIES {
        let (before, entry) = table.split_at_mut(i * limbs);
        modulus.multiply(work, &mut entry[..limbs], &before[(i - 1) * limbs..], base);
    }
    let mut power = modulus.one().to_vec();
    for at in (0..bits.div_ceil(WINDOW)).rev() {
        for _ in 0..WINDOW {
            modulus.square_assign(work, &mut power);
        }
        let digit = window(exponent, at * WINDOW);
        if digit != 0 {
            modulus.multiply_assign(work, &mut power, &table[digit * limbs..(digit + 1) * limbs]);
        }
    }
    power
}

/// Powers of one base, for exponents of up to a number of bits: a multiplication for every six bits, and few squarings or none (the comb
/// of Lim and Lee).
///
/// The exponent is six rows of a bits, each cut into k blocks of b = ⌈a/k⌉; for every block there is a table of the products
/// of the six powers base^(2^(a·row + b·block)). Column by column of a block, from the highest, its six bits choose from its
/// table: a multiplications and b − 1 squarings.
#[derive(Clone)]
pub struct FixedBase {
    /// For every block the 64 products that a column may ask for, in inner form.
    table: Vec<u64>,
    /// a.
    columns: usize,
    /// b.
    per_block: usize,
}

impl FixedBase {
    /// The tables of a base in inner form, 64 residues for each of at most `blocks` blocks; as many blocks as columns, ⌈bits/6⌉, spare
    /// all squarings.
    #[must_use]
    pub fn new<M: Modular + ?Sized>(modulus: &M, base: &[u64], bits: usize, blocks: usize) -> Self {
        let limbs = modulus.limbs();
        let columns = bits.div_ceil(TEETH).max(1);
        let per_block = columns.div_ceil(blocks.max(1));
        let blocks = columns.div_ceil(per_block);
        let mut work = modulus.workspace();
        let mut table = vec![0; blocks * FIXED_ENTRIES * limbs];
        let mut power = base.to_vec();
        for tooth in 0..TEETH {
            for column in 0..columns {
                if column % per_block == 0 {
                    // Entries whose highest bit is this tooth's: the power alone, and times what is below.
                    let start = column / per_block * FIXED_ENTRIES;
                    let entries = &mut table[start * limbs..(start + FIXED_ENTRIES) * limbs];
                    if tooth == 0 {
                        entries[..limbs].copy_from_slice(modulus.one());
                    }
                    let (below, above) = entries.split_at_mut(limbs << tooth);
                    for (below, entry) in below.chunks_exact(limbs).zip(above.chunks_exact_mut(limbs)) {
                        modulus.multiply(&mut work, entry, below, &power);
                    }
                }
                modulus.square_assign(&mut work, &mut power);
            }
        }
        Self { table, columns, per_block }
    }

    /// The number of bits an exponent may have.
    #[must_use]
    pub fn bits(&self) -> usize {
        self.columns * TEETH
    }

    /// base^exponent in inner form, in constant time. Bits of the exponent behind [`FixedBase::bits`] are not looked at.
    #[must_use]
    pub fn power<M: Modular + ?Sized>(&self, modulus: &M, work: &mut Workspace, exponent: &[u64]) -> Vec<u64> {
        let limbs = modulus.limbs();
        let bit = |at: usize| exponent.get(at / 64).map_or(0, |limb| (limb >> (at % 64)) as usize & 1);
        let mut entry = Zeroizing::new(vec![0; limbs]);
        let mut power = modulus.one().to_vec();
        for at in (0..self.per_block).rev() {
            if at + 1 < self.per_block {
                modulus.square_assign(work, &mut power);
            }
            for (block, table) in self.table.chunks_exact(FIXED_ENTRIES * limbs).enumerate() {
                let column = block * self.per_block + at;
                if column < self.columns {
                    let index = (0..TEETH).fold(0, |all, tooth| all | bit(tooth * self.columns + column) << tooth);
                    look_up::<FIXED_ENTRIES>(table, index, &mut entry);
                    modulus.multiply_assign(work, &mut power, &entry);
                }
            }
        }
        power
    }
}

impl std::fmt::Debug for FixedBase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FixedBase({} bits)", self.bits())
    }
}
