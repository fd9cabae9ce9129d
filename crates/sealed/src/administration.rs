//! What an administrator signs: changes of clients, policies and keys.

use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeSet;
use veilmatch_domain::{
    ClientId, CollectionDescription, CollectionId, Epoch, MAX_CLIENT_COLLECTIONS, Party, Policy, Roles, SubjectId,
    Timestamp,
};
use veilmatch_secret::{Digest, Label};

use crate::template::{canonical, take};
use crate::{ClientSigningKey, ClientVerifyingKey, SIGNATURE_BYTES, SealedError};

const FORMAT: u8 = 1;
/// A client limited to as many collections as there can be, and the fixed fields.
const MAX_BYTES: usize = 8 << 10;

/// Whom a request is for: each party carries out what is addressed to it and refuses the rest, so that a request for one
/// holder cannot be passed on to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Audience(u8);

impl Audience {
    /// The matcher and all three holders.
    pub const ALL: Audience = Audience(0b1111);
    /// The matcher alone.
    pub const MATCHER: Audience = Audience(0b1000);
    /// All three holders.
    pub const HOLDERS: Audience = Audience(0b0111);

    /// One holder alone.
    #[must_use]
    pub const fn holder(party: Party) -> Audience {
        Audience(1 << party.index())
    }

    /// Whether a holder is addressed.
    #[must_use]
    pub const fn includes(self, party: Party) -> bool {
        self.0 & Self::holder(party).0 != 0
    }

    /// Whether the matcher is addressed.
    #[must_use]
    pub const fn includes_matcher(self) -> bool {
        self.0 & Self::MATCHER.0 != 0
    }
}

/// What is to be done. Each is done once or several times with the same effect.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Administration {
    /// Registers a client, or changes the roles and collections of one; its key cannot change.
    RegisterClient {
        /// Who.
        client: ClientId,
        /// Checks its signatures.
        key: ClientVerifyingKey,
        /// What it may do.
        roles: Roles,
        /// In which collections, at most [`MAX_CLIENT_COLLECTIONS`]; `None` for all.
        collections: Option<BTreeSet<CollectionId>>,
    },
    /// Accepts nothing new from a client any more. What it enrolled stays.
    RevokeClient {
        /// Who.
        client: ClientId,
    },
    /// Creates a collection or changes its policy.
    SetPolicy {
        /// Which.
        collection: CollectionId,
        /// The rules.
        policy: Policy,
        /// What it is made of.
        description: CollectionDescription,
    },
    /// Unlocks a subject after failed verifications.
    Unlock {
        /// In which collection.
        collection: CollectionId,
        /// Who.
        subject: SubjectId,
    },
    /// Begins a key ceremony.
    BeginEpoch {
        /// The epoch, above the current one at every holder.
        epoch: Epoch,
    },
    /// Lets a holder that has lost everything be answered, once, within an hour.
    AllowRestore {
        /// Which holder.
        party: Party,
        /// [`HolderPublicKey::fingerprint`](crate::HolderPublicKey::fingerprint) of the fresh key on its new machine.
        key_fingerprint: Digest,
    },
}

/// An administrator's request. Well-formed, not yet authentic: see [`verify`](Self::verify).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedAdministration {
    /// Who asks. Whoever carries it out has a list of those it obeys.
    pub administrator: ClientVerifyingKey,
    /// Whom it is for.
    pub audience: Audience,
    /// Fresh for each request.
    pub nonce: [u8; 16],
    /// When it was signed.
    pub issued: Timestamp,
    /// Not accepted after this.
    pub expires: Timestamp,
    /// What is to be done.
    pub action: Administration,
    signature: [u8; SIGNATURE_BYTES],
}

impl SignedAdministration {
    /// Makes and signs a request.
    #[must_use]
    pub fn sign(
        audience: Audience,
        nonce: [u8; 16],
        issued: Timestamp,
        expires: Timestamp,
        action: Administration,
        signer: &ClientSigningKey,
    ) -> Self {
        let administrator = signer.verifying_key();
        let mut request =
            Self { administrator, audience, nonce, issued, expires, action, signature: [0; SIGNATURE_BYTES] };
        request.signature = signer.sign(&request.message());
        request
    }

    /// Whether the administrator that it names signed it. The caller checks whether it obeys that one, expiry and replay.
    ///
    /// # Errors
    /// [`SealedError::Signature`].
    pub fn verify(&self) -> Result<(), SealedError> {
        self.administrator.verify(&self.message(), &self.signature)
    }

    /// What the request is known by; without the signature.
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
        let malformed = SealedError::Malformed { what: "administration request" };
        let mut rest = bytes;
        if take(&mut rest)? != [FORMAT] {
            return Err(SealedError::Malformed { what: "format" });
        }
        let read: Self = borsh::from_slice(rest).map_err(|_| malformed.clone())?;
        let within = match &read.action {
            Administration::RegisterClient { collections: Some(named), .. } => named.len() <= MAX_CLIENT_COLLECTIONS,
            _ => true,
        };
        // A set in another order decodes too, but is not the one encoding.
        if within && read.audience.0 <= Audience::ALL.0 && read.to_bytes() == bytes { Ok(read) } else { Err(malformed) }
    }

    fn message(&self) -> Label {
        Label::new("veilmatch/sealed/administration")
            .number(FORMAT.into())
            .bytes(&self.administrator.to_bytes())
            .number(self.audience.0.into())
            .bytes(&self.nonce)
            .number(self.issued.0)
            .number(self.expires.0)
            .bytes(&canonical(&self.action))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use veilmatch_domain::{Dimension, ParameterSetId};
    use veilmatch_secret::os_entropy;

    fn signed(action: Administration, signer: &ClientSigningKey) -> SignedAdministration {
        SignedAdministration::sign(Audience::HOLDERS, [1; 16], Timestamp(6), Timestamp(7), action, signer)
    }

    fn actions(key: ClientVerifyingKey, collections: usize) -> Vec<Administration> {
        let collection = |i: usize| CollectionId::new(format!("{i:064}")).unwrap();
        let (client, subject) = (ClientId::new("gate").unwrap(), SubjectId::new("alice").unwrap());
        let named = (0..collections).map(collection).collect();
        let parameters = ParameterSetId::new("glwe-2048-v1").unwrap();
        vec![
            Administration::RegisterClient { client: client.clone(), key, roles: Roles::ALL, collections: Some(named) },
            Administration::RevokeClient { client },
            Administration::SetPolicy {
                collection: collection(0),
                policy: Policy::standard(Dimension::new(512).unwrap()),
                description: CollectionDescription { parameters, group_capacity: 0 },
            },
            Administration::Unlock { collection: collection(0), subject },
            Administration::BeginEpoch { epoch: Epoch(3) },
            Administration::AllowRestore { party: Party::K1, key_fingerprint: Digest([5; 32]) },
        ]
    }

    #[test]
    fn survives_the_wire_and_refuses_every_altered_byte() {
        let signer = ClientSigningKey::random(&mut *os_entropy());
        for action in actions(signer.verifying_key(), 2) {
            let bytes = signed(action, &signer).to_bytes();
            let read = SignedAdministration::from_bytes(&bytes).unwrap();
            assert_eq!((read.verify(), read.to_bytes()), (Ok(()), bytes.clone()));
            for i in 0..bytes.len() {
                let mut altered = bytes.clone();
                altered[i] ^= 1 << (i % 8);
                let accepted = SignedAdministration::from_bytes(&altered).and_then(|read| read.verify());
                assert!(accepted.is_err(), "byte {i}");
                assert!(SignedAdministration::from_bytes(&bytes[..i]).is_err());
            }
        }
    }

    #[test]
    fn the_largest_request_fits_and_a_larger_one_does_not() {
        let signer = ClientSigningKey::random(&mut *os_entropy());
        let with = |collections| {
            let action = actions(signer.verifying_key(), collections).swap_remove(0);
            SignedAdministration::from_bytes(&signed(action, &signer).to_bytes())
        };
        assert!(with(MAX_CLIENT_COLLECTIONS).is_ok());
        assert!(with(MAX_CLIENT_COLLECTIONS + 1).is_err());
    }

    #[test]
    fn an_audience_is_who_it_names() {
        for party in Party::ALL {
            assert!(Audience::ALL.includes(party) && Audience::HOLDERS.includes(party));
            assert!(!Audience::MATCHER.includes(party));
            for other in Party::ALL {
                assert_eq!(Audience::holder(party).includes(other), party == other);
            }
        }
        assert!(Audience::ALL.includes_matcher() && !Audience::HOLDERS.includes_matcher());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(SignedAdministration::from_bytes(&bytes).is_err());
        }
    }
}
