//! Sealing, on the client.

use veilmatch_domain::{Embedding, Party};
use veilmatch_secret::{Entropy, Secret, Seed};

use crate::{
    Associated, ClientSigningKey, HolderPacket, HolderPublicKey, MATERIAL_BYTES, ReplyKey, ReplyKeys, SealedError,
    SealedTemplate, Split, data_context, pack, packet_context, quantise, readers, seal_once, split,
};

/// Seals an embedding for the three holders and signs it. The client keeps the [`ReplyKeys`] to read the answers.
///
/// # Errors
/// [`SealedError::Dimension`] if the associated data name another dimension, [`SealedError::RepeatedHolderKey`] if two
/// holders have one key.
pub fn seal(
    embedding: &Embedding,
    associated: Associated,
    holders: &[HolderPublicKey; 3],
    signer: &ClientSigningKey,
    entropy: &mut dyn Entropy,
) -> Result<(SealedTemplate, ReplyKeys), SealedError> {
    if embedding.dimension() != associated.dimension {
        return Err(SealedError::Dimension {
            found: embedding.dimension().get(),
            expected: associated.dimension.get(),
        });
    }
    let readers = readers(holders)?;
    let Split { seeds: [seed_0, seed_1], data } = split(quantise(embedding).expose(), entropy);
    let content_key = Seed::random(entropy);
    let replies = ReplyKeys::random(entropy);

    let mut packet = |holder: Party, key: &HolderPublicKey, own: &Seed, next: &Seed| {
        let (kem, secret) = key.encapsulate(entropy);
        let plain = packet_content(own, next, replies.of(holder));
        let sealed = seal_once(secret, &packet_context(&associated, holder, &kem, &readers), plain.expose())?;
        let sealed = sealed.try_into().map_err(|_| SealedError::Malformed { what: "packet" })?;
        Ok::<_, SealedError>(HolderPacket { kem, sealed })
    };
    let [k0, k1, k2] = holders;
    let packets = [
        packet(Party::K0, k0, &seed_0, &seed_1)?,
        packet(Party::K1, k1, &seed_1, &content_key)?,
        packet(Party::K2, k2, &content_key, &seed_0)?,
    ];
    let data = seal_once(content_key, &data_context(&associated, &readers), pack(data.expose()).expose())?;
    Ok((SealedTemplate::signed(associated, packets, data, signer), replies))
}

fn packet_content(own: &Seed, next: &Seed, reply: &ReplyKey) -> Secret<Vec<u8>> {
    let mut plain = Secret::new(Vec::with_capacity(MATERIAL_BYTES));
    for part in [own.expose(), next.expose(), reply.expose()] {
        plain.expose_mut().extend_from_slice(part);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClientVerifyingKey, MAX_ASSOCIATED, MAX_SEALED};
    use proptest::prelude::*;
    use std::collections::HashSet;
    use std::sync::LazyLock;
    use veilmatch_domain::{
        ClientId, CollectionId, Decision, Dimension, Purpose, Query, SubjectId, TemplateVersion, Threshold, Timestamp,
    };
    use veilmatch_secret::os_entropy;
    use x_wing::{DecapsulationKey, Decapsulator, KeyExport};

    static HOLDERS: LazyLock<[HolderPublicKey; 3]> = LazyLock::new(|| {
        [1, 2, 3].map(|seed: u8| {
            let secret = DecapsulationKey::from([seed; 32]);
            HolderPublicKey::from_bytes(&secret.encapsulation_key().to_bytes().into()).unwrap()
        })
    });

    fn signer() -> ClientSigningKey {
        ClientSigningKey::from_bytes(&[9; 32])
    }

    fn enrol(subject: &str) -> Purpose {
        Purpose::Enrol { subject: SubjectId::new(subject).unwrap() }
    }

    fn associated(dimension: usize, purpose: Purpose) -> Associated {
        Associated {
            client: ClientId::new("gate-7").unwrap(),
            collection: CollectionId::new("staff").unwrap(),
            purpose,
            dimension: Dimension::new(dimension).unwrap(),
            template_version: TemplateVersion(3),
            nonce: [5; 16],
            expires: Timestamp(1_900_000_000),
        }
    }

    fn embedding(dimension: usize, turn: usize) -> Embedding {
        Embedding::normalised((0..dimension).map(|j| ((j * 7 + turn) % 11) as f32 - 4.5).collect()).unwrap()
    }

    fn sealed(dimension: usize, purpose: Purpose) -> SealedTemplate {
        let associated = associated(dimension, purpose);
        seal(&embedding(dimension, 0), associated, &HOLDERS, &signer(), &mut *os_entropy()).unwrap().0
    }

    #[test]
    #[expect(clippy::print_stdout, reason = "the sizes are the test's report")]
    fn sizes() {
        for dimension in [16, 128, 256, 512, 1024] {
            let length = sealed(dimension, enrol("alice")).to_bytes().len();
            println!("d = {dimension}: {length} bytes");
            assert!(dimension > 512 || length <= 7_168);
        }
        let longest = "x".repeat(64);
        let decision = Decision::Verify { subject: SubjectId::new(longest.clone()).unwrap() };
        let mut largest = associated(512, Purpose::Probe(Query::new(decision, Threshold::new(-0.9).unwrap())));
        largest.client = ClientId::new(longest.clone()).unwrap();
        largest.collection = CollectionId::new(longest).unwrap();
        assert_eq!(borsh::to_vec(&largest).unwrap().len(), MAX_ASSOCIATED);
        let seal = |associated: Associated| {
            let embedding = embedding(associated.dimension.get(), 0);
            let (sealed, _) = seal(&embedding, associated, &HOLDERS, &signer(), &mut *os_entropy()).unwrap();
            sealed.to_bytes()
        };
        let length = seal(largest.clone()).len();
        println!("d = 512, longest names: {length} bytes");
        assert!(length <= 7_168);
        let bytes = seal(Associated { dimension: Dimension::new(1024).unwrap(), ..largest });
        assert_eq!(bytes.len(), MAX_SEALED);
        assert!(SealedTemplate::from_bytes(&bytes).is_ok());
    }

    #[test]
    fn survives_the_wire_and_carries_a_valid_signature() {
        let sealed = sealed(64, enrol("alice"));
        let again = SealedTemplate::from_bytes(&sealed.to_bytes()).unwrap();
        assert_eq!(again, sealed);
        assert_eq!(again.digest(), sealed.digest());
        assert_eq!(again.verify(&signer().verifying_key()), Ok(()));
        let stranger = ClientSigningKey::random(&mut *os_entropy()).verifying_key();
        assert_eq!(again.verify(&stranger), Err(SealedError::Signature));
    }

    #[test]
    fn every_altered_byte_is_refused() {
        let original = sealed(16, enrol("alice"));
        let bytes = original.to_bytes();
        let key = signer().verifying_key();
        for i in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[i] ^= 1 << (i % 8);
            let read = SealedTemplate::from_bytes(&altered);
            assert!(read.and_then(|sealed| sealed.verify(&key)).is_err(), "byte {i}");
        }
    }

    #[test]
    fn the_digest_covers_all_but_the_signature() {
        let original = sealed(16, enrol("alice"));
        let bytes = original.to_bytes();
        for i in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[i] ^= 1;
            let Ok(read) = SealedTemplate::from_bytes(&altered) else { continue };
            assert_eq!(read.digest() == original.digest(), i >= bytes.len() - 64, "byte {i}");
        }
    }

    #[test]
    fn truncated_and_extended_bytes_are_refused() {
        let bytes = sealed(16, enrol("alice")).to_bytes();
        for length in 0..bytes.len() {
            assert!(SealedTemplate::from_bytes(&bytes[..length]).is_err());
        }
        for extra in [1, 6, 16, 5000, 1 << 20] {
            let mut extended = bytes.clone();
            extended.resize(bytes.len() + extra, 0);
            assert!(SealedTemplate::from_bytes(&extended).is_err());
        }
    }

    #[test]
    fn lengths_depend_on_the_public_fields_alone() {
        let lengths: HashSet<usize> = (0..8)
            .map(|turn| {
                let embedding = embedding(128, turn);
                let associated = associated(128, enrol(["alice", "chloe"][turn % 2]));
                let (sealed, _) = seal(&embedding, associated, &HOLDERS, &signer(), &mut *os_entropy()).unwrap();
                sealed.to_bytes().len()
            })
            .collect();
        assert_eq!(lengths.len(), 1);
    }

    #[test]
    fn the_same_vector_sealed_twice_shares_no_window() {
        let encrypted = |sealed: &SealedTemplate| {
            let fields = sealed.packets.iter().flat_map(|packet| [packet.kem.to_vec(), packet.sealed.to_vec()]);
            fields.chain([sealed.data.clone()]).collect::<Vec<_>>()
        };
        let (a, b) = (sealed(512, enrol("alice")), sealed(512, enrol("alice")));
        assert_ne!(a.digest(), b.digest());
        let windows = |fields: &[Vec<u8>]| -> Vec<Vec<u8>> {
            fields.iter().flat_map(|field| field.windows(32).map(<[u8]>::to_vec)).collect()
        };
        let seen: HashSet<_> = windows(&encrypted(&a)).into_iter().collect();
        assert!(windows(&encrypted(&b)).iter().all(|window| !seen.contains(window)));
        assert_eq!(seen.len(), windows(&encrypted(&a)).len(), "nor does one template repeat itself");
    }

    #[test]
    fn refuses_another_dimension_and_a_repeated_holder() {
        let seal = |dimension, holders: &[HolderPublicKey; 3]| {
            seal(&embedding(64, 0), associated(dimension, enrol("a")), holders, &signer(), &mut *os_entropy()).err()
        };
        assert_eq!(seal(128, &HOLDERS), Some(SealedError::Dimension { found: 64, expected: 128 }));
        let [k0, k1, _] = HOLDERS.clone();
        assert_eq!(seal(64, &[k0.clone(), k1, k0]), Some(SealedError::RepeatedHolderKey));
    }

    #[test]
    fn debug_shows_public_fields_alone() {
        let text = format!("{:?}", sealed(16, enrol("alice")));
        assert!(text.contains("alice") && text.len() < 600, "{text}");
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(SealedTemplate::from_bytes(&bytes).is_err());
        }

        #[test]
        fn what_decodes_is_canonical_and_never_verifies_unless_equal(
            at in proptest::collection::vec((0usize..4000, any::<u8>()), 1..4),
        ) {
            let original = sealed(16, enrol("alice")).to_bytes();
            let mut bytes = original.clone();
            for (i, byte) in at {
                let length = bytes.len();
                bytes[i % length] = byte;
            }
            if let Ok(read) = SealedTemplate::from_bytes(&bytes) {
                prop_assert_eq!(read.to_bytes(), bytes.clone());
                let key: ClientVerifyingKey = signer().verifying_key();
                prop_assert_eq!(read.verify(&key).is_ok(), bytes == original);
            }
        }
    }
}
