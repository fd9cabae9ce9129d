//! The public key.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use borsh::{BorshDeserialize, BorshSerialize};
use num_bigint::BigUint;
use num_integer::Integer;
use veilmatch_domain::{Part, Party};
use veilmatch_kernels::montgomery::{FixedBase, Modular, SquaredModulus};
use veilmatch_secret::{Digest, Hasher};

use crate::integers::{to_big, to_limbs};
use crate::{DecryptionStatement, PaillierError, Parts};

/// Blocks of the table for encryptions: 256 KiB at 2,048 bits, so that it stays in a core's own cache.
const ENCRYPTION_BLOCKS: usize = 8;
/// Blocks of the table for proofs: 128 KiB at 2,048 bits; a third of the time of a power without one.
const PROOF_BLOCKS: usize = 4;

/// The number of bits of N.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum KeySize {
    /// 112 bits of security.
    Bits2048,
    /// 128 bits of security.
    Bits3072,
}

impl KeySize {
    /// Both sizes.
    pub const ALL: [Self; 2] = [Self::Bits2048, Self::Bits3072];

    /// |N|, in bits.
    #[must_use]
    pub const fn bits(self) -> usize {
        match self {
            Self::Bits2048 => 2048,
            Self::Bits3072 => 3072,
        }
    }

    /// 4k bits of randomness per encryption, k being the security level (PAPERS: 448 and 512).
    #[must_use]
    pub const fn randomness_bits(self) -> usize {
        match self {
            Self::Bits2048 => 448,
            Self::Bits3072 => 512,
        }
    }

    /// Limbs of a number modulo N.
    #[must_use]
    pub const fn limbs(self) -> usize {
        self.bits() / 64
    }

    /// Bytes of a ciphertext.
    #[must_use]
    pub const fn ciphertext_bytes(self) -> usize {
        2 * self.bits() / 8
    }
}

/// What a public key is made of, unchecked: numbers from a dealer or from bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyElements {
    /// The size that N must have.
    pub size: KeySize,
    /// N.
    pub modulus: BigUint,
    /// h, below N.
    pub base: BigUint,
    /// H = h^N mod N².
    pub base_power: BigUint,
    /// v, a square modulo N².
    pub verification_base: BigUint,
    /// v to the power of the parts d_0, d_1, d_2 of the secret exponent.
    pub verification_keys: [BigUint; 3],
}

/// A public key: N, the base of encryptions, and what partial decryptions are checked with. Cheap to clone.
///
/// Checked when it is made: sizes and ranges, everything invertible, H = h^N, v^(d_0+d_1+d_2) ≡ 1 modulo N. That N is the product of
/// two safe primes and that v is a square is the dealer's word.
#[derive(Clone)]
pub struct PublicKey(Arc<Inner>);

struct Inner {
    elements: KeyElements,
    modulus: Vec<u64>,
    group: SquaredModulus,
    digest: Digest,
    base_power: Vec<u64>,
    table: OnceLock<FixedBase>,
    verification_table: OnceLock<FixedBase>,
    /// N^−1 mod 2^|N|.
    inverse: Vec<u64>,
}

impl PublicKey {
    /// Checks the elements.
    ///
    /// # Errors
    /// [`PaillierError`] that names what does not fit.
    pub fn new(elements: KeyElements) -> Result<Self, PaillierError> {
        let KeyElements { size, modulus, base, base_power, verification_base, verification_keys } = &elements;
        if modulus.bits() != size.bits() as u64 {
            return Err(PaillierError::Key { why: "the modulus has another size" });
        }
        let square = modulus * modulus;
        if base >= modulus {
            return Err(PaillierError::OutOfRange { what: "base of encryptions" });
        }
        for number in verification_keys.iter().chain([base_power, verification_base]) {
            if *number >= square {
                return Err(PaillierError::OutOfRange { what: "key element" });
            }
        }
        let product =
            verification_keys.iter().fold(base * base_power * verification_base % modulus, |a, b| a * b % modulus);
        if product.gcd(modulus) != BigUint::from(1u8) {
            return Err(PaillierError::NotInvertible { what: "key element" });
        }
        let one = BigUint::from(1u8);
        if verification_keys.iter().fold(one.clone(), |a, b| a * b % modulus) != one {
            return Err(PaillierError::Key { why: "the verification keys do not belong together" });
        }
        let group = SquaredModulus::new(&to_limbs(modulus, size.limbs()))
            .map_err(|_| PaillierError::Key { why: "the modulus is even" })?;
        let (mut work, mut start) = (group.workspace(), to_limbs(base, group.limbs()));
        group.enter(&mut work, &mut start);
        let expected = group.power_vartime(&start, &to_limbs(modulus, size.limbs()));
        let mut found = expected.clone();
        group.leave(&mut work, &mut found);
        if to_big(&found) != *base_power {
            return Err(PaillierError::Key { why: "H is not h to the power of N" });
        }
        let mut hasher = Hasher::new("veilmatch/paillier/key");
        hasher.number(size.bits() as u64);
        for number in [modulus, base, base_power, verification_base].into_iter().chain(verification_keys) {
            hasher.field(&number.to_bytes_le());
        }
        let digest = hasher.finish();
        let inverse = modulus.modinv(&(BigUint::from(1u8) << size.bits()));
        let inverse = to_limbs(&inverse.ok_or(PaillierError::Key { why: "the modulus is even" })?, size.limbs());
        let modulus = to_limbs(modulus, size.limbs());
        Ok(Self(Arc::new(Inner {
            modulus,
            group,
            digest,
            base_power: expected,
            table: OnceLock::new(),
            verification_table: OnceLock::new(),
            inverse,
            elements,
        })))
    }

    /// The size of N.
    #[must_use]
    pub fn size(&self) -> KeySize {
        self.0.elements.size
    }

    /// N.
    #[must_use]
    pub fn modulus(&self) -> &BigUint {
        &self.0.elements.modulus
    }

    /// All elements.
    #[must_use]
    pub fn elements(&self) -> &KeyElements {
        &self.0.elements
    }

    /// A digest of the whole key.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    /// The canonical bytes, of fixed width.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let e = &self.0.elements;
        let width = self.size().bits() / 8;
        let mut bytes = vec![u8::from(e.size == KeySize::Bits3072)];
        for (number, width) in [(&e.modulus, width), (&e.base, width)].into_iter().chain(
            [&e.base_power, &e.verification_base].into_iter().chain(&e.verification_keys).map(|n| (n, 2 * width)),
        ) {
            let mut digits = number.to_bytes_le();
            digits.resize(width, 0);
            bytes.extend_from_slice(&digits);
        }
        bytes
    }

    /// Reads and checks a key.
    ///
    /// # Errors
    /// [`PaillierError`] as [`PublicKey::new`], or if the length is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PaillierError> {
        let mut reader = bytes;
        let key = Self::read(&mut reader)?;
        match reader.len() {
            0 => Ok(key),
            rest => Err(PaillierError::Length { what: "public key", found: bytes.len(), expected: bytes.len() - rest }),
        }
    }

    fn read(reader: &mut &[u8]) -> Result<Self, PaillierError> {
        let found = reader.len();
        let size = match reader.split_off_first() {
            Some(0) => KeySize::Bits2048,
            Some(1) => KeySize::Bits3072,
            _ => return Err(PaillierError::Malformed { what: "size of the public key" }),
        };
        let width = size.bits() / 8;
        let mut number = |width: usize| {
            let digits = reader.split_off(..width).map(BigUint::from_bytes_le);
            digits.ok_or(PaillierError::Length { what: "public key", found, expected: 1 + 12 * size.bits() / 8 })
        };
        Self::new(KeyElements {
            size,
            modulus: number(width)?,
            base: number(width)?,
            base_power: number(2 * width)?,
            verification_base: number(2 * width)?,
            verification_keys: [number(2 * width)?, number(2 * width)?, number(2 * width)?],
        })
    }

    /// What distinguishes keys in memory.
    pub(crate) fn tag(&self) -> Digest {
        self.0.digest
    }

    /// Arithmetic modulo N².
    #[must_use]
    pub fn group(&self) -> &SquaredModulus {
        &self.0.group
    }

    /// N as limbs.
    #[must_use]
    pub fn modulus_limbs(&self) -> &[u64] {
        &self.0.modulus
    }

    /// N^−1 modulo 2^|N|.
    pub(crate) fn inverse_of_modulus(&self) -> &[u64] {
        &self.0.inverse
    }

    /// Powers of H for one encryption's randomness; made at the first use.
    pub(crate) fn table(&self) -> &FixedBase {
        let bits = self.size().randomness_bits();
        self.0.table.get_or_init(|| FixedBase::new(&self.0.group, &self.0.base_power, bits, ENCRYPTION_BLOCKS))
    }

    /// Powers of v for a proof's response; made at the first use.
    pub(crate) fn verification_table(&self) -> &FixedBase {
        self.0.verification_table.get_or_init(|| {
            let (group, mut base) = (&self.0.group, to_limbs(&self.0.elements.verification_base, self.0.group.limbs()));
            group.enter(&mut group.workspace(), &mut base);
            FixedBase::new(group, &base, 64 * DecryptionStatement::response_limbs(self), PROOF_BLOCKS)
        })
    }

    /// v to the power of what a holder contributes; error if it does not know the part.
    pub(crate) fn verification_key(&self, party: Party, parts: Parts) -> Result<BigUint, PaillierError> {
        let [k0, k1, k2] = &self.0.elements.verification_keys;
        let of = |part: Part| match part.index() {
            0 => k0,
            1 => k1,
            _ => k2,
        };
        match parts {
            Parts::One(part) if party.parts().contains(&part) => Ok(of(part).clone()),
            Parts::One(_) => Err(PaillierError::NotItsPart { party, parts }),
            Parts::Both => {
                let [a, b] = party.parts();
                Ok(of(a) * of(b) % (self.modulus() * self.modulus()))
            }
        }
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.elements == other.0.elements
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} bits, {:?})", self.size().bits(), self.0.digest)
    }
}

impl BorshSerialize for PublicKey {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        writer.write_all(&self.to_bytes())
    }
}

impl BorshDeserialize for PublicKey {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let mut bytes = vec![u8::deserialize_reader(reader)?];
        let rest = match bytes.as_slice() {
            [0] => 12 * KeySize::Bits2048.bits() / 8,
            [1] => 12 * KeySize::Bits3072.bits() / 8,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "size of the public key")),
        };
        bytes.resize(1 + rest, 0);
        reader.read_exact(bytes.split_at_mut(1).1)?;
        Self::from_bytes(&bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }
}
