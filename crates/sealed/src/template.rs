//! The sealed template as bytes: what is in it, how it is read, what its digest and signature cover.

use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;
use veilmatch_domain::{
    ClientId, CollectionId, Dimension, MAX_DIMENSION, MAX_IDENTIFIER, Party, Purpose, TemplateDigest, TemplateVersion,
    Timestamp,
};
use veilmatch_secret::{Digest, Hasher, Label};

use crate::{COORDINATE_BYTES, ClientSigningKey, ClientVerifyingKey, SIGNATURE_BYTES, SealedError, TAG_BYTES};

/// Bytes of an X-Wing ciphertext.
pub const KEM_BYTES: usize = x_wing::CIPHERTEXT_SIZE;
/// Bytes of a packet's plain content: two materials and a reply key.
pub const MATERIAL_BYTES: usize = 3 * 32;
/// Bytes of a sealed packet.
pub const PACKET_BYTES: usize = MATERIAL_BYTES + TAG_BYTES;
/// Most bytes that encoded [`Associated`] data can have: three names, the largest query, the fixed fields.
pub const MAX_ASSOCIATED: usize = 3 * (4 + MAX_IDENTIFIER) + (1 + 1 + 4) + (2 + 4 + 16 + 8);
/// Most bytes that a sealed template can have.
pub const MAX_SEALED: usize = 1 + MAX_ASSOCIATED + body_length(MAX_DIMENSION);

const FORMAT: u8 = 1;

/// Bytes after the associated data.
const fn body_length(dimension: usize) -> usize {
    3 * (KEM_BYTES + PACKET_BYTES) + data_length(dimension) + SIGNATURE_BYTES
}

const fn data_length(dimension: usize) -> usize {
    dimension * COORDINATE_BYTES + TAG_BYTES
}

/// Bytes of a sealed template of this dimension without its associated data, which take at most [`MAX_ASSOCIATED`] more.
#[must_use]
pub const fn sealed_bytes(dimension: Dimension) -> usize {
    1 + body_length(dimension.get())
}

/// What everybody may read of a sealed template, and nobody can change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Associated {
    /// Who sealed it.
    pub client: ClientId,
    /// The gallery.
    pub collection: CollectionId,
    /// To enrol a subject or to answer one query.
    pub purpose: Purpose,
    /// Number of coordinates.
    pub dimension: Dimension,
    /// The embedding model.
    pub template_version: TemplateVersion,
    /// Fresh for each template.
    pub nonce: [u8; 16],
    /// Not accepted as a new request after this.
    pub expires: Timestamp,
}

/// What one holder can open.
#[derive(Clone, PartialEq, Eq)]
pub struct HolderPacket {
    /// The X-Wing ciphertext of the packet's key.
    pub kem: [u8; KEM_BYTES],
    /// The sealed material of part i, material of part i+1, reply key.
    pub sealed: [u8; PACKET_BYTES],
}

/// The context of holder i's packet: label of its key and associated data of its AEAD. It names all that the holder
/// must agree on: the associated data, which holder, which KEM ciphertext, and all who can read (see
/// [`readers`](crate::readers)).
#[must_use]
pub fn packet_context(associated: &Associated, holder: Party, kem: &[u8; KEM_BYTES], readers: &Digest) -> Label {
    Label::new("veilmatch/sealed/packet")
        .number(FORMAT.into())
        .bytes(&canonical(associated))
        .number(holder.index() as u64)
        .bytes(kem)
        .bytes(&readers.0)
}

/// The context of the data part.
#[must_use]
pub fn data_context(associated: &Associated, readers: &Digest) -> Label {
    Label::new("veilmatch/sealed/data").number(FORMAT.into()).bytes(&canonical(associated)).bytes(&readers.0)
}

/// The canonical encoding. Names and lists of our types are bounded and writing to memory does not fail, so there is
/// no error to return.
pub(crate) fn canonical<T: BorshSerialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = value.serialize(&mut bytes);
    debug_assert!(written.is_ok());
    bytes
}

/// Splits N bytes off the front.
pub(crate) fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], SealedError> {
    let (bytes, tail) = rest.split_first_chunk().ok_or(SealedError::Length { found: rest.len(), expected: N })?;
    *rest = tail;
    Ok(*bytes)
}

/// A template that only the holders can open, each its own parts.
///
/// Having this type means that the bytes are well-formed, not that they are authentic: call
/// [`verify`](Self::verify) with the key that is registered for the client before anything is done with them.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedTemplate {
    pub(crate) associated: Associated,
    pub(crate) packets: [HolderPacket; 3],
    pub(crate) data: Vec<u8>,
    pub(crate) signature: [u8; SIGNATURE_BYTES],
}

impl SealedTemplate {
    /// The canonical bytes: format (1), associated data, per holder KEM ciphertext (1,120) and packet (112), data part
    /// (6·d + 16), signature (64).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.unsigned();
        bytes.extend_from_slice(&self.signature);
        bytes
    }

    fn unsigned(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + MAX_ASSOCIATED + body_length(self.associated.dimension.get()));
        bytes.push(FORMAT);
        bytes.extend(canonical(&self.associated));
        for packet in &self.packets {
            bytes.extend_from_slice(&packet.kem);
            bytes.extend_from_slice(&packet.sealed);
        }
        bytes.extend_from_slice(&self.data);
        bytes
    }

    /// Reads the one encoding of a template. Lengths are checked before anything is allocated.
    ///
    /// # Errors
    /// [`SealedError`] on another format, malformed associated data, or another length than the dimension's.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealedError> {
        if bytes.len() > MAX_SEALED {
            return Err(SealedError::TooLong { found: bytes.len(), limit: MAX_SEALED });
        }
        let mut rest = bytes;
        if take(&mut rest)? != [FORMAT] {
            return Err(SealedError::Malformed { what: "format" });
        }
        let associated =
            Associated::deserialize(&mut rest).map_err(|_| SealedError::Malformed { what: "associated data" })?;
        let dimension = associated.dimension.get();
        if rest.len() != body_length(dimension) {
            let expected = bytes.len() - rest.len() + body_length(dimension);
            return Err(SealedError::Length { found: bytes.len(), expected });
        }
        let mut packet =
            || -> Result<_, SealedError> { Ok(HolderPacket { kem: take(&mut rest)?, sealed: take(&mut rest)? }) };
        let packets = [packet()?, packet()?, packet()?];
        let (data, signature) = rest.split_last_chunk().ok_or(SealedError::Malformed { what: "signature" })?;
        Ok(Self { associated, packets, data: data.to_vec(), signature: *signature })
    }

    pub(crate) fn signed(
        associated: Associated,
        packets: [HolderPacket; 3],
        data: Vec<u8>,
        signer: &ClientSigningKey,
    ) -> Self {
        let mut sealed = Self { associated, packets, data, signature: [0; SIGNATURE_BYTES] };
        sealed.signature = signer.sign(&signed_message(&sealed.digest()));
        sealed
    }

    /// What everybody may read.
    #[must_use]
    pub fn associated(&self) -> &Associated {
        &self.associated
    }

    /// What this holder can open.
    #[must_use]
    pub fn packet(&self, holder: Party) -> &HolderPacket {
        let [k0, k1, k2] = &self.packets;
        match holder {
            Party::K0 => k0,
            Party::K1 => k1,
            Party::K2 => k2,
        }
    }

    /// The sealed data part.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The client's signature, checked or not.
    #[must_use]
    pub fn signature(&self) -> &[u8; SIGNATURE_BYTES] {
        &self.signature
    }

    /// What the template is known by: the digest of everything but the signature.
    ///
    /// The signature is left out on purpose. Ed25519 lets the *signer* make any number of valid signatures of one
    /// message: with the signature inside, a client could submit one probe under many digests, past the holders' lists
    /// of spent requests and tombstones. Without it, equal content is an equal digest, and every other byte is covered
    /// in its only encoding, so nobody can give one content two digests or one digest two contents. The price: bytes
    /// whose signature was spoilt have the same digest, so nothing may be recorded under a digest (spent, refused)
    /// before [`verify`](Self::verify) accepted those bytes.
    #[must_use]
    pub fn digest(&self) -> TemplateDigest {
        TemplateDigest(Hasher::new("veilmatch/sealed/template").field(&self.unsigned()).finish().0)
    }

    /// Whether the client with this key signed these bytes. The caller looks the key up by
    /// [`Associated::client`], and checks expiry and replay.
    ///
    /// # Errors
    /// [`SealedError::Signature`].
    pub fn verify(&self, key: &ClientVerifyingKey) -> Result<(), SealedError> {
        key.verify(&signed_message(&self.digest()), &self.signature)
    }
}

fn signed_message(digest: &TemplateDigest) -> Label {
    Label::new("veilmatch/sealed/signature").bytes(&digest.0)
}

impl fmt::Debug for SealedTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedTemplate")
            .field("associated", &self.associated)
            .field("digest", &self.digest())
            .finish_non_exhaustive()
    }
}
