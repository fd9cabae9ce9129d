//! Public keys of the holders, signing keys of the clients.

use borsh::{BorshDeserialize, BorshSerialize};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use std::fmt;
use std::io;
use veilmatch_secret::{Digest, Entropy, Hasher, Label, Secret, Seed};
use x_wing::{Encapsulate, EncapsulationKey, KeyExport};
use zeroize::Zeroize;

use crate::{KEM_BYTES, SealedError};

/// Bytes of a [`HolderPublicKey`].
pub const HOLDER_KEY_BYTES: usize = x_wing::ENCAPSULATION_KEY_SIZE;
/// Bytes of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;

const HOLDER: SealedError = SealedError::PublicKey { what: "key holder's key" };
const CLIENT: SealedError = SealedError::PublicKey { what: "client's key" };

/// A key holder's X-Wing encapsulation key: ML-KEM-768 (1,184 bytes), then X25519 (32 bytes).
#[derive(Clone, PartialEq, Eq)]
pub struct HolderPublicKey(EncapsulationKey);

impl HolderPublicKey {
    /// Checks that the ML-KEM half is reduced and that the X25519 half is canonical and not of small order. So a key has
    /// one spelling, and both halves contribute.
    ///
    /// # Errors
    /// [`SealedError::PublicKey`].
    pub fn from_bytes(bytes: &[u8; HOLDER_KEY_BYTES]) -> Result<Self, SealedError> {
        let x25519 = bytes.last_chunk::<32>().ok_or(HOLDER)?;
        if !canonical_u(x25519) || SMALL_ORDER.contains(x25519) {
            return Err(HOLDER);
        }
        EncapsulationKey::try_from(bytes.as_slice()).map(Self).map_err(|_| HOLDER)
    }

    /// The canonical bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HOLDER_KEY_BYTES] {
        self.0.to_bytes().into()
    }

    /// What people compare: the digest of the key.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        Hasher::new("veilmatch/sealed/holder-key").field(&self.to_bytes()).finish()
    }

    /// A fresh secret that the holder alone can recover from the bytes that come with it.
    #[must_use]
    pub fn encapsulate(&self, entropy: &mut dyn Entropy) -> ([u8; KEM_BYTES], Seed) {
        let (ciphertext, mut shared) = self.0.encapsulate_with_rng(entropy);
        let secret = Seed::from_bytes(shared.into());
        shared.as_mut_slice().zeroize();
        (ciphertext.into(), secret)
    }
}

/// Curve25519 points of order dividing 8, as reduced u-coordinates: 0, 1, −1 and the two of order 8.
const SMALL_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    {
        let mut minus_one = [0xff; 32];
        minus_one[0] = 0xec;
        minus_one[31] = 0x7f;
        minus_one
    },
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
        0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44,
        0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
];

/// Whether a little-endian u-coordinate is below 2²⁵⁵ − 19.
fn canonical_u(bytes: &[u8; 32]) -> bool {
    let [low, middle @ .., high] = bytes;
    *high < 0x7f || (*high == 0x7f && (*low < 0xed || middle.iter().any(|&byte| byte != 0xff)))
}

/// The digest of who can read: all three keys in order.
///
/// # Errors
/// [`SealedError::RepeatedHolderKey`] if two are equal: then one holder could read every part.
pub fn readers(holders: &[HolderPublicKey; 3]) -> Result<Digest, SealedError> {
    let [k0, k1, k2] = holders;
    if k0 == k1 || k1 == k2 || k0 == k2 {
        return Err(SealedError::RepeatedHolderKey);
    }
    let mut hasher = Hasher::new("veilmatch/sealed/readers");
    for key in holders {
        hasher.field(&key.to_bytes());
    }
    Ok(hasher.finish())
}

impl BorshSerialize for HolderPublicKey {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        writer.write_all(&self.to_bytes())
    }
}

impl BorshDeserialize for HolderPublicKey {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let mut bytes = [0u8; HOLDER_KEY_BYTES];
        reader.read_exact(&mut bytes)?;
        Self::from_bytes(&bytes).map_err(invalid)
    }
}

impl fmt::Debug for HolderPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HolderPublicKey({:?})", self.fingerprint())
    }
}

/// A client's Ed25519 signing key; wiped on drop.
pub struct ClientSigningKey(SigningKey);

impl ClientSigningKey {
    /// Draws a fresh key.
    #[must_use]
    pub fn random(entropy: &mut dyn Entropy) -> Self {
        Self::from_bytes(Seed::random(entropy).expose())
    }

    /// The key with these secret bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(bytes))
    }

    /// The secret bytes, for the client's own key file.
    #[must_use]
    pub fn secret_bytes(&self) -> Secret<[u8; 32]> {
        Secret::new(self.0.to_bytes())
    }

    /// The key that checks this one's signatures.
    #[must_use]
    pub fn verifying_key(&self) -> ClientVerifyingKey {
        ClientVerifyingKey(self.0.verifying_key())
    }

    /// Signs a label; its domain says what the signature is for.
    #[must_use]
    pub fn sign(&self, message: &Label) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(message.as_bytes()).to_bytes()
    }
}

impl fmt::Debug for ClientSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSigningKey(redacted)")
    }
}

/// A client's Ed25519 verifying key: canonical and not of small order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClientVerifyingKey(VerifyingKey);

impl ClientVerifyingKey {
    /// Checks that the bytes are the canonical spelling of a point that is not of small order.
    ///
    /// # Errors
    /// [`SealedError::PublicKey`].
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, SealedError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| CLIENT)?;
        let canonical = key.to_edwards().compress().to_bytes() == *bytes;
        if canonical && !key.is_weak() { Ok(Self(key)) } else { Err(CLIENT) }
    }

    /// The canonical bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Checks a signature strictly: reduced scalar, canonical point, no small order. Nobody but the signer can turn one
    /// valid signature of a message into another.
    ///
    /// # Errors
    /// [`SealedError::Signature`].
    pub fn verify(&self, message: &Label, signature: &[u8; SIGNATURE_BYTES]) -> Result<(), SealedError> {
        self.0.verify_strict(message.as_bytes(), &Signature::from_bytes(signature)).map_err(|_| SealedError::Signature)
    }
}

impl BorshSerialize for ClientVerifyingKey {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        writer.write_all(&self.to_bytes())
    }
}

impl BorshDeserialize for ClientVerifyingKey {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        Self::from_bytes(&<[u8; 32]>::deserialize_reader(reader)?).map_err(invalid)
    }
}

impl fmt::Debug for ClientVerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientVerifyingKey({:?})", Digest(self.to_bytes()))
    }
}

fn invalid(error: SealedError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use veilmatch_secret::os_entropy;
    use x_wing::{DecapsulationKeyRejectNonContrib, Decapsulator, TryDecapsulate};

    fn pair(seed: u8) -> (DecapsulationKeyRejectNonContrib, [u8; HOLDER_KEY_BYTES]) {
        let secret = DecapsulationKeyRejectNonContrib::from([seed; 32]);
        let public = secret.encapsulation_key().to_bytes().into();
        (secret, public)
    }

    #[test]
    fn the_list_of_small_orders_is_what_the_key_agreement_calls_non_contributory() {
        let (secret, public) = pair(1);
        let key = HolderPublicKey::from_bytes(&public).unwrap();
        for point in SMALL_ORDER {
            let (mut ciphertext, _) = key.encapsulate(&mut *os_entropy());
            assert!(secret.try_decapsulate(&ciphertext.into()).is_ok());
            ciphertext[KEM_BYTES - 32..].copy_from_slice(&point);
            assert!(secret.try_decapsulate(&ciphertext.into()).is_err());
            let mut weak = public;
            weak[HOLDER_KEY_BYTES - 32..].copy_from_slice(&point);
            assert_eq!(HolderPublicKey::from_bytes(&weak), Err(HOLDER));
        }
    }

    #[test]
    fn refuses_keys_with_a_second_spelling() {
        let (_, public) = pair(1);
        let mut high_bit = public;
        high_bit[HOLDER_KEY_BYTES - 1] |= 0x80;
        let mut unreduced = public;
        unreduced[HOLDER_KEY_BYTES - 32..].fill(0xff);
        unreduced[HOLDER_KEY_BYTES - 1] = 0x7f;
        let mut modulus = public;
        modulus[..2].fill(0xff);
        for bad in [high_bit, unreduced, modulus] {
            assert_eq!(HolderPublicKey::from_bytes(&bad), Err(HOLDER));
        }
        assert!(canonical_u(&[0x7f; 32]));
    }

    #[test]
    fn encapsulation_agrees_and_is_fresh() {
        let (secret, public) = pair(3);
        let key = HolderPublicKey::from_bytes(&public).unwrap();
        let (a, ours) = key.encapsulate(&mut *os_entropy());
        let (b, other) = key.encapsulate(&mut *os_entropy());
        assert_eq!(secret.try_decapsulate(&a.into()).unwrap().as_slice(), ours.expose());
        assert_ne!(a, b);
        assert_ne!(ours.expose(), other.expose());
    }

    #[test]
    fn readers_are_three_and_ordered() {
        let [a, b, c] = [1, 2, 3].map(|seed| HolderPublicKey::from_bytes(&pair(seed).1).unwrap());
        let digest = readers(&[a.clone(), b.clone(), c.clone()]).unwrap();
        assert_ne!(digest, readers(&[b.clone(), a.clone(), c]).unwrap());
        assert_eq!(readers(&[a.clone(), b, a]), Err(SealedError::RepeatedHolderKey));
    }

    #[test]
    fn keys_survive_the_wire_and_signing_keys_are_redacted() {
        let holder = HolderPublicKey::from_bytes(&pair(5).1).unwrap();
        assert_eq!(borsh::from_slice::<HolderPublicKey>(&borsh::to_vec(&holder).unwrap()).unwrap(), holder);
        let client = ClientSigningKey::random(&mut *os_entropy());
        let public = client.verifying_key();
        assert_eq!(borsh::from_slice::<ClientVerifyingKey>(&borsh::to_vec(&public).unwrap()).unwrap(), public);
        assert_eq!(format!("{client:?}"), "ClientSigningKey(redacted)");
        let again = ClientSigningKey::from_bytes(client.secret_bytes().expose());
        assert_eq!(again.verifying_key(), public);
    }

    #[test]
    fn refuses_client_keys_of_small_order_and_signatures_that_were_reworked() {
        let mut identity = [0u8; 32];
        identity[0] = 1;
        assert_eq!(ClientVerifyingKey::from_bytes(&identity), Err(CLIENT));
        let client = ClientSigningKey::random(&mut *os_entropy());
        let message = Label::new("test").number(1);
        let signature = client.sign(&message);
        assert_eq!(client.verifying_key().verify(&message, &signature), Ok(()));
        assert!(client.verifying_key().verify(&Label::new("test").number(2), &signature).is_err());
        // s + L is the same scalar in another spelling.
        let order: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut reworked = signature;
        let mut carry = 0u16;
        for (byte, add) in reworked[32..].iter_mut().zip(order) {
            carry += u16::from(*byte) + u16::from(add);
            *byte = carry as u8;
            carry >>= 8;
        }
        assert_eq!(client.verifying_key().verify(&message, &reworked), Err(SealedError::Signature));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1300)) {
            let _ = borsh::from_slice::<HolderPublicKey>(&bytes);
            let _ = borsh::from_slice::<ClientVerifyingKey>(&bytes);
        }
    }
}
