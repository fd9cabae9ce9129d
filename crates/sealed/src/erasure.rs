//! The signed request to forget a subject.

use borsh::{BorshDeserialize, BorshSerialize};
use veilmatch_domain::{ClientId, CollectionId, MAX_IDENTIFIER, SubjectId, Timestamp};
use veilmatch_secret::{Digest, Label};

use crate::template::{canonical, take};
use crate::{ClientSigningKey, ClientVerifyingKey, SIGNATURE_BYTES, SealedError};

const FORMAT: u8 = 1;
const MAX_BYTES: usize = 1 + 3 * (4 + MAX_IDENTIFIER) + 16 + 8 + SIGNATURE_BYTES;

/// A client's request to erase a subject from a collection. Well-formed, not yet authentic: see
/// [`verify`](Self::verify).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedErasure {
    /// Who asks.
    pub client: ClientId,
    /// The gallery.
    pub collection: CollectionId,
    /// Whom to forget.
    pub subject: SubjectId,
    /// Fresh for each request.
    pub nonce: [u8; 16],
    /// Not accepted after this.
    pub expires: Timestamp,
    signature: [u8; SIGNATURE_BYTES],
}

impl SignedErasure {
    /// Makes and signs a request.
    #[must_use]
    pub fn sign(
        client: ClientId,
        collection: CollectionId,
        subject: SubjectId,
        nonce: [u8; 16],
        expires: Timestamp,
        signer: &ClientSigningKey,
    ) -> Self {
        let mut request = Self { client, collection, subject, nonce, expires, signature: [0; SIGNATURE_BYTES] };
        request.signature = signer.sign(&request.message());
        request
    }

    /// Whether the client with this key signed the request. The caller checks expiry and replay.
    ///
    /// # Errors
    /// [`SealedError::Signature`].
    pub fn verify(&self, key: &ClientVerifyingKey) -> Result<(), SealedError> {
        key.verify(&self.message(), &self.signature)
    }

    /// What the request is known by; without the signature, for the reason given at
    /// [`SealedTemplate::digest`](crate::SealedTemplate::digest).
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.message().digest()
    }

    /// The canonical bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend(canonical(self));
        bytes
    }

    /// Reads the one encoding of a request.
    ///
    /// # Errors
    /// [`SealedError`] if the bytes are too long, of another format or malformed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealedError> {
        if bytes.len() > MAX_BYTES {
            return Err(SealedError::TooLong { found: bytes.len(), limit: MAX_BYTES });
        }
        let mut rest = bytes;
        if take(&mut rest)? != [FORMAT] {
            return Err(SealedError::Malformed { what: "format" });
        }
        borsh::from_slice(rest).map_err(|_| SealedError::Malformed { what: "erasure request" })
    }

    fn message(&self) -> Label {
        Label::new("veilmatch/sealed/erasure")
            .number(FORMAT.into())
            .bytes(self.client.as_str().as_bytes())
            .bytes(self.collection.as_str().as_bytes())
            .bytes(self.subject.as_str().as_bytes())
            .bytes(&self.nonce)
            .number(self.expires.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use veilmatch_secret::os_entropy;

    fn request(name: &str, signer: &ClientSigningKey) -> SignedErasure {
        SignedErasure::sign(
            ClientId::new(name).unwrap(),
            CollectionId::new(name).unwrap(),
            SubjectId::new(name).unwrap(),
            [1; 16],
            Timestamp(7),
            signer,
        )
    }

    #[test]
    fn survives_the_wire_and_refuses_every_altered_byte() {
        let signer = ClientSigningKey::random(&mut *os_entropy());
        let key = signer.verifying_key();
        let bytes = request("alice", &signer).to_bytes();
        let read = SignedErasure::from_bytes(&bytes).unwrap();
        assert_eq!((read.verify(&key), read.to_bytes()), (Ok(()), bytes.clone()));
        assert!(read.verify(&ClientSigningKey::random(&mut *os_entropy()).verifying_key()).is_err());
        for i in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[i] ^= 1 << (i % 8);
            assert!(SignedErasure::from_bytes(&altered).and_then(|read| read.verify(&key)).is_err(), "byte {i}");
            assert!(SignedErasure::from_bytes(&bytes[..i]).is_err());
        }
        assert_eq!(request(&"x".repeat(64), &signer).to_bytes().len(), MAX_BYTES);
        let mut extended = bytes;
        extended.push(0);
        assert!(SignedErasure::from_bytes(&extended).is_err());
    }

    #[test]
    fn fields_do_not_run_together() {
        let signer = ClientSigningKey::random(&mut *os_entropy());
        let original = request("ab", &signer);
        let mut moved = original.clone();
        moved.client = ClientId::new("aba").unwrap();
        moved.collection = CollectionId::new("b").unwrap();
        assert_eq!(moved.verify(&signer.verifying_key()), Err(SealedError::Signature));
        assert_ne!(moved.digest(), original.digest());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(SignedErasure::from_bytes(&bytes).is_err());
        }
    }
}
