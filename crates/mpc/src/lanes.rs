//! Bit-sliced words: one bit of many slots, 64 to a word.

use std::fmt;
use veilmatch_secret::Stream;
use zeroize::{Zeroize, Zeroizing};

const WORD: usize = u64::BITS as usize;

/// One bit per lane, `len` lanes, lane i at bit i mod 64 of word i / 64; bits beyond the last lane are always zero.
///
/// May hold shares: wiped on drop, redacted in `Debug`.
#[derive(Default, PartialEq, Eq)]
pub struct Lanes {
    words: Vec<u64>,
    len: usize,
}

impl Clone for Lanes {
    fn clone(&self) -> Self {
        Self { words: self.words.clone(), len: self.len }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        // The words alone: nothing was ever written behind them that is not zero.
        self.words.as_mut_slice().zeroize();
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lanes({} lanes, redacted)", self.len)
    }
}

impl Lanes {
    /// `len` lanes of 0.
    #[must_use]
    pub fn zeros(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(WORD)], len }
    }

    /// `len` lanes of 1.
    #[must_use]
    pub fn ones(len: usize) -> Self {
        Self { words: vec![u64::MAX; len.div_ceil(WORD)], len }.trimmed()
    }

    /// Lane i is `bit(i)`.
    #[must_use]
    pub fn from_fn(len: usize, mut bit: impl FnMut(usize) -> bool) -> Self {
        let mut lanes = Self::zeros(len);
        for (index, word) in lanes.words.iter_mut().enumerate() {
            let first = index * WORD;
            for lane in first..len.min(first + WORD) {
                *word |= u64::from(bit(lane)) << (lane - first);
            }
        }
        lanes
    }

    /// No lanes yet, with room for `capacity`, so that appending does not leave copies behind.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { words: Vec::with_capacity(capacity.div_ceil(WORD) + 1), len: 0 }
    }

    /// `len` lanes of the stream's next bits.
    pub(crate) fn pseudo_random(stream: &mut Stream, len: usize) -> Self {
        let count = len.div_ceil(WORD);
        let mut words = Vec::with_capacity(count);
        let mut buffer = Zeroizing::new([0u8; 4096]);
        while words.len() < count {
            let wanted = (count - words.len()).min(buffer.len() / 8) * 8;
            let Some(bytes) = buffer.get_mut(..wanted) else { break };
            stream.fill(bytes);
            words.extend(bytes.as_chunks::<8>().0.iter().map(|random| u64::from_le_bytes(*random)));
        }
        Self { words, len }.trimmed()
    }

    /// `self ⊕=` the stream's next bits.
    pub(crate) fn xor_pseudo_random(&mut self, stream: &mut Stream) {
        // Through a small buffer: it stays in the first cache and is wiped once.
        let mut buffer = Zeroizing::new([0u8; 4096]);
        for words in self.words.chunks_mut(buffer.len() / 8) {
            let bytes = buffer.get_mut(..words.len() * 8).unwrap_or_default();
            stream.fill(bytes);
            for (word, random) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *word ^= u64::from_le_bytes(*random);
            }
        }
        self.trim();
    }

    /// `self ⊕= words` from lane `from` on, where `words` are the lanes of something not longer than what is left.
    pub(crate) fn xor_words_at(&mut self, from: usize, words: impl Iterator<Item = u64>) {
        let (skip, shift) = (from / WORD, from % WORD);
        let own = self.words.get_mut(skip..).unwrap_or_default();
        if shift == 0 {
            own.iter_mut().zip(words).for_each(|(own, word)| *own ^= word);
            return;
        }
        let mut carried = 0;
        let mut own = own.iter_mut();
        for word in words {
            if let Some(own) = own.next() {
                *own ^= word << shift | carried;
            }
            carried = word >> (WORD - shift);
        }
        if let Some(own) = own.next() {
            *own ^= carried;
        }
    }

    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// a ⊕ b, of the length of `a`; `b` is cut or padded with 0.
    pub(crate) fn xor_of(a: &Lanes, b: &Lanes) -> Lanes {
        if a.words.len() != b.words.len() {
            let mut result = a.clone();
            result.xor_with(b);
            return result;
        }
        let words = a.words.iter().zip(&b.words).map(|(a, b)| a ^ b).collect();
        Self { words, len: a.len }.trimmed()
    }

    /// Number of lanes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no lanes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Lane `lane`; beyond the end, 0.
    #[must_use]
    pub fn get(&self, lane: usize) -> bool {
        self.words.get(lane / WORD).is_some_and(|word| word >> (lane % WORD) & 1 == 1)
    }

    /// Sets lane `lane`; beyond the end, nothing happens.
    pub fn set(&mut self, lane: usize, bit: bool) {
        if lane < self.len
            && let Some(word) = self.words.get_mut(lane / WORD)
        {
            *word = *word & !(1 << (lane % WORD)) | u64::from(bit) << (lane % WORD);
        }
    }

    /// Whether some lane is 1.
    #[must_use]
    pub fn any(&self) -> bool {
        self.words.iter().any(|&word| word != 0)
    }

    /// The lanes that are 1, in order.
    pub fn iter_ones(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len).filter(|&lane| self.get(lane))
    }

    /// Number of lanes that are 1.
    #[must_use]
    pub fn count_ones(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// `self ⊕= other`; `other` is cut or padded with 0 to the length of `self`.
    pub fn xor_with(&mut self, other: &Lanes) {
        for (a, b) in self.words.iter_mut().zip(&other.words) {
            *a ^= b;
        }
        self.trim();
    }

    /// `self ∧= other`; `other` is cut or padded with 0 to the length of `self`.
    pub fn and_with(&mut self, other: &Lanes) {
        let others = other.words.iter().copied().chain(std::iter::repeat(0));
        for (a, b) in self.words.iter_mut().zip(others) {
            *a &= b;
        }
    }

    /// The `len` lanes from `from` on; lanes beyond the end are 0.
    #[must_use]
    pub fn slice(&self, from: usize, len: usize) -> Lanes {
        let (skip, shift) = (from / WORD, from % WORD);
        let rest = self.words.get(skip..).unwrap_or_default();
        let highs = rest.iter().skip(1).copied().chain(std::iter::repeat(0));
        let mut words: Vec<u64> = Vec::with_capacity(len.div_ceil(WORD));
        if shift == 0 {
            words.extend(rest.iter().take(len.div_ceil(WORD)));
        } else {
            let joined = rest.iter().zip(highs).map(|(low, high)| low >> shift | high << (WORD - shift));
            words.extend(joined.take(len.div_ceil(WORD)));
        }
        words.resize(len.div_ceil(WORD), 0);
        Self { words, len }.trimmed()
    }

    /// Adds the lanes of `other` behind the last one.
    pub fn append(&mut self, other: &Lanes) {
        let shift = self.len % WORD;
        self.len += other.len;
        if shift == 0 {
            self.words.extend_from_slice(&other.words);
            return;
        }
        for word in &other.words {
            if let Some(last) = self.words.last_mut() {
                *last |= word << shift;
            }
            self.words.push(word >> (WORD - shift));
        }
        self.words.truncate(self.len.div_ceil(WORD));
    }

    /// Every second lane, from lane `first` (0 or 1) on: lane i of the result is lane 2·i + `first`.
    pub(crate) fn every_second(&self, first: usize) -> Lanes {
        let len = (self.len + 1).saturating_sub(first) / 2;
        let mut words: Vec<u64> = Vec::with_capacity(len.div_ceil(WORD));
        words.extend(
            self.words.chunks(2).map(|pair| {
                pair.iter().rev().fold(0, |word, half| word << (WORD / 2) | even_bits(half >> (first & 1)))
            }),
        );
        words.truncate(len.div_ceil(WORD));
        Self { words, len }
    }

    /// The lanes as ⌈len/8⌉ bytes, lane i at bit i mod 8 of byte i / 8, unused bits zero.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.words.len() * 8);
        for word in &self.words {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.truncate(self.len.div_ceil(8));
        bytes
    }

    /// The inverse of [`Lanes::to_bytes`]; `None` if the number of bytes is not ⌈len/8⌉ or an unused bit is 1.
    #[must_use]
    pub fn from_bytes(bytes: &[u8], len: usize) -> Option<Lanes> {
        if bytes.len() != len.div_ceil(8) {
            return None;
        }
        let unused = bytes.len() * 8 - len;
        if bytes.last().is_some_and(|&last| unused > 0 && last >> (8 - unused) != 0) {
            return None;
        }
        let mut words = Vec::with_capacity(len.div_ceil(WORD));
        let (whole, rest) = bytes.as_chunks::<8>();
        words.extend(whole.iter().map(|chunk| u64::from_le_bytes(*chunk)));
        if !rest.is_empty() {
            words.push(rest.iter().rev().fold(0u64, |word, &byte| word << 8 | u64::from(byte)));
        }
        Some(Self { words, len })
    }

    fn trimmed(mut self) -> Self {
        self.trim();
        self
    }

    fn trim(&mut self) {
        let used = self.len % WORD;
        if used != 0
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1 << used) - 1;
        }
    }
}

/// The bits at even places, moved together (Warren, Hacker's Delight, section 7-4).
fn even_bits(word: u64) -> u64 {
    let mut x = word & 0x5555_5555_5555_5555;
    x = (x | x >> 1) & 0x3333_3333_3333_3333;
    x = (x | x >> 2) & 0x0f0f_0f0f_0f0f_0f0f;
    x = (x | x >> 4) & 0x00ff_00ff_00ff_00ff;
    x = (x | x >> 8) & 0x0000_ffff_0000_ffff;
    (x | x >> 16) & 0x0000_0000_ffff_ffff
}

/// Bit planes of numbers: plane b holds bit b of every value, one lane per value; bits from `width` on are dropped.
#[must_use]
pub fn transpose(values: &[u64], width: u32) -> Vec<Lanes> {
    let width = width.min(u64::BITS) as usize;
    if width <= NARROW {
        return transpose_narrow(values, width);
    }
    let mut planes = vec![Vec::with_capacity(values.len().div_ceil(WORD)); width];
    let mut block = Zeroizing::new([0u64; WORD]);
    for chunk in values.chunks(WORD) {
        block.zeroize();
        for (slot, value) in block.iter_mut().zip(chunk) {
            *slot = *value;
        }
        transpose_block(&mut block);
        for (plane, word) in planes.iter_mut().zip(block.iter()) {
            plane.push(*word);
        }
    }
    planes.into_iter().map(|words| Lanes { words, len: values.len() }).collect()
}

/// Numbers of at most this many bits are transposed four blocks at a time.
const NARROW: usize = 16;

/// [`transpose`] for at most 16 bits: a word holds four values, and four 16×16 matrices are transposed at once.
fn transpose_narrow(values: &[u64], width: usize) -> Vec<Lanes> {
    let mut planes = vec![Vec::with_capacity(values.len().div_ceil(WORD)); width];
    let mut block = Zeroizing::new([0u64; NARROW]);
    let (whole, rest) = values.as_chunks::<WORD>();
    let mut last = Zeroizing::new([0u64; WORD]);
    last.iter_mut().zip(rest).for_each(|(slot, value)| *slot = *value);
    let last = (!rest.is_empty()).then_some(&*last);
    for chunk in whole.iter().chain(last) {
        let (quarters, _) = chunk.as_chunks::<NARROW>();
        if let [a, b, c, d] = quarters {
            for (word, (((a, b), c), d)) in block.iter_mut().zip(a.iter().zip(b).zip(c).zip(d)) {
                let low = 0xffff;
                *word = a & low | (b & low) << 16 | (c & low) << 32 | (d & low) << 48;
            }
        }
        transpose_four(&mut block);
        for (plane, word) in planes.iter_mut().zip(block.iter()) {
            plane.push(*word);
        }
    }
    planes.into_iter().map(|words| Lanes { words, len: values.len() }).collect()
}

/// Transposes four 16×16 bit matrices side by side: bit c of field f of row r goes to bit r of field f of row c.
#[expect(
    clippy::indexing_slicing,
    reason = "row | size < 16: row runs over the rows below 16 that lack the bit `size`"
)]
fn transpose_four(rows: &mut [u64; NARROW]) {
    for (size, low) in
        [(8, 0x00ff_00ff_00ff_00ff), (4, 0x0f0f_0f0f_0f0f_0f0f), (2, 0x3333_3333_3333_3333), (1, 0x5555_5555_5555_5555)]
    {
        for row in (0..NARROW).filter(|row| row & size == 0) {
            let swap = (rows[row] >> size ^ rows[row | size]) & low;
            rows[row | size] ^= swap;
            rows[row] ^= swap << size;
        }
    }
}

/// Transposes a 64×64 bit matrix in place: bit c of row r goes to bit r of row c. Swaps quadrants, then their
/// quadrants, and so on (Warren, Hacker's Delight, section 7-3, with bit 0 as the first column).
#[expect(
    clippy::indexing_slicing,
    reason = "row | size < 64: row runs over the rows below 64 that lack the bit `size`"
)]
fn transpose_block(rows: &mut [u64; WORD]) {
    let mut size = WORD / 2;
    let mut low = u64::MAX >> (WORD / 2);
    while size > 0 {
        for row in (0..WORD).filter(|row| row & size == 0) {
            let swap = (rows[row] >> size ^ rows[row | size]) & low;
            rows[row | size] ^= swap;
            rows[row] ^= swap << size;
        }
        size /= 2;
        low ^= low << size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(len: usize, seed: u8) -> Lanes {
        Lanes::pseudo_random(&mut Stream::public([seed; 32]), len)
    }

    #[test]
    fn planes_hold_the_bits_of_the_values() {
        let mut stream = Stream::public([3; 32]);
        for count in [0, 1, 63, 64, 65, 200] {
            let values: Vec<u64> = (0..count).map(|_| stream.next_u64()).collect();
            for width in [1, 7, 15, 16, 17, 48, 64] {
                let planes = transpose(&values, width);
                assert_eq!(planes.len(), width as usize);
                for (bit, plane) in planes.iter().enumerate() {
                    assert_eq!(*plane, Lanes::from_fn(count, |lane| values[lane] >> bit & 1 == 1));
                }
            }
        }
    }

    #[test]
    fn slices_appends_and_bytes_agree_with_single_lanes() {
        for len in [0, 1, 2, 7, 8, 63, 64, 65, 127, 128, 129, 130, 191, 192, 193, 300] {
            let lanes = pattern(len, 1);
            for from in [0, 1, 5, 63, 64, 70, 128, 299, 400] {
                for count in [0, 1, 10, 64, 65, 200] {
                    assert_eq!(lanes.slice(from, count), Lanes::from_fn(count, |lane| lanes.get(from + lane)));
                }
            }
            for more in [0, 1, 30, 64, 100] {
                let other = pattern(more, 2);
                let mut both = lanes.clone();
                both.append(&other);
                let expected = Lanes::from_fn(len + more, |i| if i < len { lanes.get(i) } else { other.get(i - len) });
                assert_eq!(both, expected);
            }
            assert_eq!(Lanes::from_bytes(&lanes.to_bytes(), len).as_ref(), Some(&lanes));
            assert!(Lanes::from_bytes(&lanes.to_bytes(), len + 8).is_none());
            for first in [0, 1] {
                let count = (0..len).filter(|lane| lane % 2 == first).count();
                assert_eq!(lanes.every_second(first), Lanes::from_fn(count, |lane| lanes.get(2 * lane + first)));
            }
            assert_eq!(lanes.iter_ones().count(), lanes.count_ones());
        }
    }

    #[test]
    fn words_are_added_at_any_place() {
        for len in [1usize, 64, 65, 130, 300] {
            for from in [0, 1, 63, 64, 70, 128].into_iter().filter(|from| *from < len) {
                let other = pattern(len - from, 4);
                let mut sum = pattern(len, 5);
                sum.xor_words_at(from, other.words().iter().copied());
                let before = pattern(len, 5);
                let expected = |lane: usize| before.get(lane) ^ (lane >= from && other.get(lane - from));
                assert_eq!(sum, Lanes::from_fn(len, expected), "{len} lanes from {from}");
            }
        }
        for (a, b) in [(100, 100), (100, 10), (10, 100), (64, 64)] {
            let mut sum = pattern(a, 1);
            sum.xor_with(&pattern(b, 2));
            assert_eq!(Lanes::xor_of(&pattern(a, 1), &pattern(b, 2)), sum);
        }
    }

    #[test]
    fn unused_bits_on_the_wire_are_refused() {
        assert!(Lanes::from_bytes(&[0x08], 3).is_none());
        assert!(Lanes::from_bytes(&[0x07], 3).is_some());
        assert_eq!(Lanes::ones(3).to_bytes(), [0x07]);
    }

    #[test]
    fn operations_pad_with_zero() {
        let mut a = Lanes::ones(100);
        a.and_with(&Lanes::ones(10));
        assert_eq!(a.count_ones(), 10);
        let mut b = Lanes::zeros(3);
        b.xor_with(&Lanes::ones(70));
        assert_eq!(b, Lanes::ones(3));
        b.set(1, false);
        b.set(7, true);
        assert_eq!(b.iter_ones().collect::<Vec<_>>(), [0, 2]);
        assert_eq!(format!("{b:?}"), "Lanes(3 lanes, redacted)");
    }
}
