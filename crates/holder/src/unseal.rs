//! Opening sealed templates: the half of `veilmatch-sealed` that needs a key holder's decapsulation key (DESIGN 3.2).
//!
//! K_i learns parts i and i+1 and its reply key, nothing of part i+2: the proof sketch is on the page of
//! `veilmatch-sealed`. A client may have given the other holder of a part something else, so nothing may be computed
//! from a part before its two holders compared [`OpenedTemplate::part_digest`].

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use veilmatch_domain::{Explain, Part, Party, SessionId, Status, TemplateDigest};
use veilmatch_sealed::{
    HolderPublicKey, ReplyKey, SIGNATURE_BYTES, SealedError, SealedTemplate, data_context, expand_part, open_once,
    pack, packet_context, readers, unpack,
};
use veilmatch_secret::{Digest, Entropy, Hasher, Label, Secret, Seed};
use x_wing::{DecapsulationKeyRejectNonContrib, Decapsulator, KeyExport, TryDecapsulate};
use zeroize::Zeroize;

/// A key holder's X-Wing decapsulation key. Wiped on drop.
pub struct HolderSecretKey {
    key: DecapsulationKeyRejectNonContrib,
    public: HolderPublicKey,
}

impl HolderSecretKey {
    /// Draws a fresh key.
    #[must_use]
    pub fn random(entropy: &mut dyn Entropy) -> Self {
        loop {
            // Every 32 bytes are a key whose public half is valid; the type system does not know, so there is a loop.
            if let Ok(key) = Self::from_bytes(Seed::random(entropy).expose()) {
                return key;
            }
        }
    }

    /// The key with these secret bytes, from the holder's own key file.
    ///
    /// # Errors
    /// [`UnsealError::SecretKey`] if they are not 32.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, UnsealError> {
        let bytes: &[u8; 32] = bytes.try_into().map_err(|_| UnsealError::SecretKey)?;
        let key = DecapsulationKeyRejectNonContrib::from(*bytes);
        let public = key.encapsulation_key().to_bytes().into();
        let public = HolderPublicKey::from_bytes(&public).map_err(|_| UnsealError::SecretKey)?;
        Ok(Self { key, public })
    }

    /// A second copy; wiped on drop like the first.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self { key: self.key.clone(), public: self.public.clone() }
    }

    /// The secret bytes, for the holder's own key file.
    #[must_use]
    pub fn secret_bytes(&self) -> Secret<[u8; 32]> {
        let mut bytes = self.key.to_bytes();
        let secret = Secret::new(bytes.into());
        bytes.as_mut_slice().zeroize();
        secret
    }

    /// What clients seal for.
    #[must_use]
    pub fn public_key(&self) -> &HolderPublicKey {
        &self.public
    }

    /// Opens what was sealed with `seal_once` under a secret that [`HolderPublicKey::encapsulate`] made for this key.
    ///
    /// # Errors
    /// [`SealedError::NotAuthentic`] if it was sealed for another key, in another context, or a bit differs.
    pub fn open_sealed(
        &self,
        kem: &[u8; veilmatch_sealed::KEM_BYTES],
        context: &Label,
        sealed: &[u8],
    ) -> Result<Secret<Vec<u8>>, SealedError> {
        veilmatch_sealed::open_once(&self.decapsulate(kem)?, context, sealed)
    }

    pub(crate) fn decapsulate(&self, ciphertext: &[u8; veilmatch_sealed::KEM_BYTES]) -> Result<Seed, SealedError> {
        let mut shared = self.key.try_decapsulate(&(*ciphertext).into()).map_err(|_| SealedError::NotAuthentic)?;
        let secret = Seed::from_bytes(shared.into());
        shared.as_mut_slice().zeroize();
        Ok(secret)
    }
}

impl fmt::Debug for HolderSecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HolderSecretKey(redacted)")
    }
}

/// Why a holder cannot open a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnsealError {
    /// The bytes are not a decapsulation key.
    #[error("the decapsulation key does not have 32 bytes")]
    SecretKey,
    /// The key's public half is not the one in the list of readers.
    #[error("the public key listed for {holder} does not belong to its decapsulation key")]
    WrongKey {
        /// Who was to open.
        holder: Party,
    },
    /// Two holders are listed with one key.
    #[error("two key holders are listed with the same public key")]
    RepeatedKey,
    /// The packet does not open: the client sealed it for other keys or made it wrong.
    #[error("the client's packet for {holder} does not open")]
    Packet {
        /// Who was to open.
        holder: Party,
    },
    /// The data part does not open under the client's content key.
    #[error("the client's data part does not open for {holder}")]
    Data {
        /// Who was to open.
        holder: Party,
    },
}

impl Explain for UnsealError {
    fn code(&self) -> &'static str {
        match self {
            Self::SecretKey => "bad-holder-key",
            Self::WrongKey { .. } => "wrong-holder-key",
            Self::RepeatedKey => "repeated-holder-key",
            Self::Packet { .. } | Self::Data { .. } => "unsealing-failed",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::SecretKey | Self::WrongKey { .. } | Self::RepeatedKey => Status::FailedPrecondition,
            Self::Packet { .. } | Self::Data { .. } => Status::InvalidArgument,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::SecretKey => "restore the key file of this key holder",
            Self::WrongKey { .. } | Self::RepeatedKey => {
                "configure all three key holders with the same list of public keys"
            }
            Self::Packet { .. } | Self::Data { .. } => {
                "seal again with the current public keys of all three key holders"
            }
        }
    }
}

/// What one holder knows of a template.
#[derive(Debug)]
pub struct OpenedTemplate {
    /// Part i: d values below 2^48.
    pub own: Secret<Vec<u64>>,
    /// Part i+1: d values below 2^48.
    pub next: Secret<Vec<u64>>,
    /// The key under which this holder answers.
    pub reply: ReplyKey,
    holder: Party,
    own_material: Seed,
    next_material: Seed,
}

impl OpenedTemplate {
    /// What the two holders of a part compare before they use it; `None` for the part that this holder does not know.
    ///
    /// It covers the part's plain values, so a client that gave the two holders different seeds, or two content keys
    /// under which one ciphertext opens differently, is caught. It also covers the part's material (seed or content key),
    /// 32 uniform bytes that the third holder does not have: that one knows the two other parts, could compute this
    /// part's values from a guess of the template, and would otherwise confirm the guess on the digest.
    #[must_use]
    pub fn part_digest(&self, part: Part, session: &SessionId, digest: &TemplateDigest) -> Option<Digest> {
        let [own, next] = self.holder.parts();
        let (material, values) = if part == own {
            (&self.own_material, &self.own)
        } else if part == next {
            (&self.next_material, &self.next)
        } else {
            return None;
        };
        let mut hasher = Hasher::new("veilmatch/holder/part");
        hasher.field(material.expose()).number(part.index() as u64).field(&session.0).field(&digest.0);
        Some(hasher.field(pack(values.expose()).expose()).finish())
    }
}

/// What a client's packet for one holder holds: what the decapsulation key is needed for. Wiped on drop.
pub(crate) struct Packet {
    own: Seed,
    next: Seed,
    reply: ReplyKey,
}

impl Packet {
    fn duplicate(&self) -> Self {
        Self { own: self.own.duplicate(), next: self.next.duplicate(), reply: self.reply.duplicate() }
    }
}

/// Packets that were opened not long ago, by their templates' digests, with the signatures that were checked. A template is read twice within a short time, when
/// it is admitted and when its group is built, and opening its packet is the slow half of that. What is remembered opens
/// nothing that this holder's decapsulation key would not open again.
#[derive(Default)]
pub(crate) struct RecentPackets {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    packets: BTreeMap<TemplateDigest, ([u8; SIGNATURE_BYTES], Packet)>,
    oldest_first: VecDeque<TemplateDigest>,
}

/// Packets that are remembered: those of eight full groups, in about 10 MB.
const MAX_PACKETS: usize = 65_536;

impl RecentPackets {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // What a panic leaves half done is a packet that is forgotten too early or too late.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The packet of a template whose signature was found to be this one.
    pub(crate) fn get(&self, digest: &TemplateDigest, signature: &[u8; SIGNATURE_BYTES]) -> Option<Packet> {
        let kept = self.kept();
        let (_, packet) = kept.packets.get(digest).filter(|(checked, _)| checked == signature)?;
        Some(packet.duplicate())
    }

    /// Forgets the packet of a template that was erased. Its place in the order stays, and runs out.
    pub(crate) fn forget(&self, digest: &TemplateDigest) {
        self.kept().packets.remove(digest);
    }

    /// Remembers the packet of a template whose signature was checked.
    pub(crate) fn insert(&self, digest: TemplateDigest, signature: [u8; SIGNATURE_BYTES], opened: &OpenedTemplate) {
        let packet = Packet {
            own: opened.own_material.duplicate(),
            next: opened.next_material.duplicate(),
            reply: opened.reply.duplicate(),
        };
        let mut kept = self.kept();
        if kept.packets.insert(digest, (signature, packet)).is_none() {
            kept.oldest_first.push_back(digest);
        }
        if kept.oldest_first.len() > MAX_PACKETS
            && let Some(oldest) = kept.oldest_first.pop_front()
        {
            kept.packets.remove(&oldest);
        }
    }
}

/// Opens the parts of one holder. `all` are the public keys of the three holders in order.
///
/// It checks that the client sealed exactly this content for exactly these readers. It does not check the signature:
/// call [`SealedTemplate::verify`] first, or anyone can make the holder spend time.
///
/// # Errors
/// [`UnsealError`]: `WrongKey` and `RepeatedKey` are the holder's own configuration, `Packet` and `Data` are the client's
/// doing (its signature covers both).
pub fn unseal(
    party: Party,
    key: &HolderSecretKey,
    all: &[HolderPublicKey; 3],
    sealed: &SealedTemplate,
) -> Result<OpenedTemplate, UnsealError> {
    let readers = readers(all).map_err(|_| UnsealError::RepeatedKey)?;
    if all.get(party.index()) != Some(key.public_key()) {
        return Err(UnsealError::WrongKey { holder: party });
    }
    open_parts(party, all, sealed, open_packet(party, key, &readers, sealed)?)
}

/// Opens the packet of one holder.
fn open_packet(
    party: Party,
    key: &HolderSecretKey,
    readers: &Digest,
    sealed: &SealedTemplate,
) -> Result<Packet, UnsealError> {
    let associated = sealed.associated();
    let packet = sealed.packet(party);
    let context = packet_context(associated, party, &packet.kem, readers);
    let plain = key
        .decapsulate(&packet.kem)
        .and_then(|secret| open_once(&secret, &context, &packet.sealed))
        .map_err(|_| UnsealError::Packet { holder: party })?;
    let ([own, next, reply], []) = plain.expose().as_chunks::<32>() else {
        return Err(UnsealError::Packet { holder: party });
    };
    Ok(Packet { own: Seed::from_bytes(*own), next: Seed::from_bytes(*next), reply: ReplyKey::from_bytes(*reply) })
}

/// Opens the parts of one holder whose packet is open.
///
/// # Errors
/// As [`unseal`], without `WrongKey`.
pub(crate) fn open_parts(
    party: Party,
    all: &[HolderPublicKey; 3],
    sealed: &SealedTemplate,
    packet: Packet,
) -> Result<OpenedTemplate, UnsealError> {
    let readers = readers(all).map_err(|_| UnsealError::RepeatedKey)?;
    let associated = sealed.associated();
    let Packet { own: own_material, next: next_material, reply } = packet;
    let values = |part: Part, material: &Seed| {
        if part != Part::from_index(2) {
            return Ok(expand_part(material, associated.dimension));
        }
        let bytes = open_once(material, &data_context(associated, &readers), sealed.data())
            .map_err(|_| UnsealError::Data { holder: party })?;
        Ok(unpack(bytes.expose()))
    };
    let [own, next] = party.parts();
    Ok(OpenedTemplate {
        own: values(own, &own_material)?,
        next: values(next, &next_material)?,
        reply,
        holder: party,
        own_material,
        next_material,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]
mod tests {
    use super::*;
    use std::sync::LazyLock;
    use veilmatch_domain::{
        ClientId, CollectionId, Decision, Dimension, Embedding, Outcome, Purpose, Query, SubjectId, TemplateVersion,
        Threshold, Timestamp,
    };
    use veilmatch_sealed::{
        Associated, ClientSigningKey, RING_MASK, combine_replies, open_reply, quantise, seal, seal_once, seal_reply,
    };
    use veilmatch_secret::{Counter, Label, Stream, os_entropy};

    static KEYS: LazyLock<[HolderSecretKey; 3]> =
        LazyLock::new(|| [(); 3].map(|()| HolderSecretKey::random(&mut *os_entropy())));
    static PUBLIC: LazyLock<[HolderPublicKey; 3]> =
        LazyLock::new(|| KEYS.each_ref().map(|key| key.public_key().clone()));
    const SESSION: SessionId = SessionId([1; 32]);

    #[test]
    fn a_remembered_packet_opens_to_the_same_parts_and_the_oldest_are_forgotten() {
        let template = sealed(&embedding(64));
        let recent = RecentPackets::default();
        let opened = open(Party::K1, &template).unwrap();
        let signature = *template.signature();
        recent.insert(template.digest(), signature, &opened);
        assert!(recent.get(&template.digest(), &[7; SIGNATURE_BYTES]).is_none(), "another signature was never checked");
        let packet = recent.get(&template.digest(), &signature).unwrap();
        let again = open_parts(Party::K1, &PUBLIC, &template, packet).unwrap();
        assert_eq!((again.own.expose(), again.next.expose()), (opened.own.expose(), opened.next.expose()));
        let digests = |o: &OpenedTemplate| Party::K1.parts().map(|p| o.part_digest(p, &SESSION, &template.digest()));
        assert_eq!(digests(&again), digests(&opened));
        // Another template's packet does not open this one's data part.
        let packet = recent.get(&template.digest(), &signature).unwrap();
        assert!(open_parts(Party::K1, &PUBLIC, &sealed(&embedding(64)), packet).is_err());
        recent.forget(&template.digest());
        assert!(recent.get(&template.digest(), &signature).is_none(), "an erased template's packet is gone");
        recent.insert(template.digest(), signature, &opened);
        for number in 0..MAX_PACKETS as u64 {
            recent.insert(TemplateDigest(Label::new("test").number(number).digest().0), signature, &opened);
        }
        assert!(recent.get(&template.digest(), &signature).is_none());
        assert_eq!(recent.kept().packets.len(), MAX_PACKETS);
    }

    fn signer() -> ClientSigningKey {
        ClientSigningKey::from_bytes(&[9; 32])
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

    fn enrol() -> Purpose {
        Purpose::Enrol { subject: SubjectId::new("alice").unwrap() }
    }

    fn embedding(dimension: usize) -> Embedding {
        Embedding::normalised((0..dimension).map(|j| ((j * 7) % 11) as f32 - 4.5).collect()).unwrap()
    }

    fn sealed(embedding: &Embedding) -> SealedTemplate {
        let associated = associated(embedding.dimension().get(), enrol());
        seal(embedding, associated, &PUBLIC, &signer(), &mut *os_entropy()).unwrap().0
    }

    fn open(party: Party, sealed: &SealedTemplate) -> Result<OpenedTemplate, UnsealError> {
        unseal(party, &KEYS[party.index()], &PUBLIC, sealed)
    }

    fn open_all(sealed: &SealedTemplate) -> [OpenedTemplate; 3] {
        Party::ALL.map(|party| open(party, sealed).unwrap())
    }

    /// Parts whose two holders do not agree.
    fn disputed(opened: &[OpenedTemplate; 3], sealed: &SealedTemplate) -> Vec<Part> {
        let digest = |party: Party, part| opened[party.index()].part_digest(part, &SESSION, &sealed.digest()).unwrap();
        Part::ALL
            .into_iter()
            .filter(|part| digest(part.holders()[0], *part) != digest(part.holders()[1], *part))
            .collect()
    }

    #[test]
    fn parts_add_up_and_pairs_agree() {
        let axis = |dimension: usize, sign: f32| {
            let mut vector = vec![0.0; dimension];
            vector[dimension / 2] = sign;
            Embedding::new(vector).unwrap()
        };
        let inputs = [16, 17, 128, 256, 511, 512, 1024].map(embedding).into_iter();
        for embedding in inputs.chain([axis(16, 1.0), axis(1024, -1.0)]) {
            let sealed = SealedTemplate::from_bytes(&sealed(&embedding).to_bytes()).unwrap();
            assert_eq!(sealed.verify(&signer().verifying_key()), Ok(()));
            let opened = open_all(&sealed);
            let m = quantise(&embedding);
            for (j, expected) in m.expose().iter().enumerate() {
                let sum = opened.iter().fold(0, |sum, holder| (sum + holder.own.expose()[j]) & RING_MASK);
                assert_eq!(sum, *expected);
            }
            for party in Party::ALL {
                let (holder, next) = (&opened[party.index()], &opened[party.next().index()]);
                assert_eq!(holder.next.expose(), next.own.expose());
                assert_eq!(holder.own.expose().len(), embedding.dimension().get());
                assert_eq!(holder.part_digest(party.missing_part(), &SESSION, &sealed.digest()), None);
            }
            assert_eq!(disputed(&opened, &sealed), []);
        }
    }

    #[test]
    fn two_parts_look_uniform_whatever_the_vector() {
        // Averages of a holder's values over 2^48 are 1/2: 7 standard deviations of 1,024 uniform ones are 0.063.
        let mut vector = vec![0.0; 1024];
        vector[0] = 1.0;
        for holder in open_all(&sealed(&Embedding::new(vector).unwrap())) {
            for part in [&holder.own, &holder.next] {
                let mean = part.expose().iter().map(|&v| v as f64 / (1u64 << 48) as f64).sum::<f64>() / 1024.0;
                assert!((mean - 0.5).abs() < 0.063, "{mean}");
            }
        }
    }

    #[test]
    fn digests_are_bound_to_session_template_and_part() {
        let sealed = sealed(&embedding(16));
        let [k0, _, _] = open_all(&sealed);
        let [own, next] = Party::K0.parts();
        let digest = k0.part_digest(own, &SESSION, &sealed.digest());
        assert_ne!(digest, k0.part_digest(next, &SESSION, &sealed.digest()));
        assert_ne!(digest, k0.part_digest(own, &SessionId([2; 32]), &sealed.digest()));
        assert_ne!(digest, k0.part_digest(own, &SESSION, &TemplateDigest([0; 32])));
    }

    #[test]
    fn a_holder_cannot_open_anothers_packet_nor_with_other_readers() {
        let sealed = sealed(&embedding(16));
        for party in Party::ALL {
            let own = &KEYS[party.index()];
            let wrong = unseal(party.next(), own, &PUBLIC, &sealed);
            assert_eq!(wrong.err(), Some(UnsealError::WrongKey { holder: party.next() }));
            // The list turned round, so that its key stands at another place.
            let mut turned = PUBLIC.clone();
            turned.rotate_right(1);
            let wrong = unseal(party.next(), own, &turned, &sealed);
            assert_eq!(wrong.err(), Some(UnsealError::Packet { holder: party.next() }));
            // One reader replaced.
            let mut other = PUBLIC.clone();
            other[party.next().index()] = HolderSecretKey::random(&mut *os_entropy()).public_key().clone();
            assert_eq!(unseal(party, own, &other, &sealed).err(), Some(UnsealError::Packet { holder: party }));
            other[party.next().index()] = own.public_key().clone();
            assert_eq!(unseal(party, own, &other, &sealed).err(), Some(UnsealError::RepeatedKey));
        }
    }

    /// Signs bytes again, as the client itself could: past this, only the AEADs and the comparison stand.
    fn resign(mut bytes: Vec<u8>) -> Result<SealedTemplate, SealedError> {
        let digest = SealedTemplate::from_bytes(&bytes)?.digest();
        let at = bytes.len() - 64;
        bytes[at..].copy_from_slice(&signer().sign(&Label::new("veilmatch/sealed/signature").bytes(&digest.0)));
        let sealed = SealedTemplate::from_bytes(&bytes)?;
        sealed.verify(&signer().verifying_key())?;
        Ok(sealed)
    }

    #[test]
    fn every_altered_byte_is_refused_by_its_readers_even_if_the_client_signs_it() {
        let original = sealed(&embedding(16));
        let bytes = original.to_bytes();
        let header = 1 + borsh::to_vec(original.associated()).unwrap().len();
        for i in 0..bytes.len() - 64 {
            let mut altered = bytes.clone();
            altered[i] ^= 1 << (i % 8);
            let Ok(read) = resign(altered) else {
                assert!(i < header, "only the associated data can be malformed");
                continue;
            };
            let refusing: Vec<usize> = (0..3).filter(|&k| open(Party::from_index(k), &read).is_err()).collect();
            let expected = match i.checked_sub(header) {
                None => vec![0, 1, 2],
                Some(body) if body < 3 * 1232 => vec![body / 1232],
                Some(_) => vec![1, 2],
            };
            assert_eq!(refusing, expected, "byte {i}");
        }
    }

    #[test]
    fn random_bodies_never_panic() {
        let mut stream = Stream::public([4; 32]);
        let original = sealed(&embedding(16));
        let header = 1 + borsh::to_vec(original.associated()).unwrap().len();
        for _ in 0..50 {
            let mut bytes = original.to_bytes();
            stream.fill(&mut bytes[header..]);
            let read = SealedTemplate::from_bytes(&bytes).unwrap();
            assert!(Party::ALL.into_iter().all(|party| open(party, &read).is_err()));
            assert!(read.verify(&signer().verifying_key()).is_err());
        }
    }

    /// A client that follows the format and chooses all content itself.
    fn forge(associated: &Associated, materials: [[&Seed; 2]; 3], data: &[u8]) -> SealedTemplate {
        let readers = readers(&PUBLIC).unwrap();
        let mut bytes = vec![1];
        bytes.extend(borsh::to_vec(associated).unwrap());
        for (party, [own, next]) in Party::ALL.into_iter().zip(materials) {
            let (kem, secret) = PUBLIC[party.index()].encapsulate(&mut *os_entropy());
            let plain = [*own.expose(), *next.expose(), [8; 32]].concat();
            bytes.extend(kem);
            bytes.extend(seal_once(secret, &packet_context(associated, party, &kem, &readers), &plain).unwrap());
        }
        bytes.extend(data);
        bytes.extend([0; 64]);
        resign(bytes).unwrap()
    }

    #[test]
    fn different_seeds_for_the_two_holders_of_a_part_are_caught() {
        let associated = associated(16, enrol());
        let [a, b, c, key] = [(); 4].map(|()| Seed::random(&mut *os_entropy()));
        let context = data_context(&associated, &readers(&PUBLIC).unwrap());
        let data = seal_once(key.duplicate(), &context, &[3; 96]).unwrap();
        let honest = forge(&associated, [[&a, &b], [&b, &key], [&key, &a]], &data);
        assert_eq!(disputed(&open_all(&honest), &honest), []);
        for (materials, part) in [([[&c, &b], [&b, &key], [&key, &a]], 0), ([[&a, &c], [&b, &key], [&key, &a]], 1)] {
            let forged = forge(&associated, materials, &data);
            assert_eq!(disputed(&open_all(&forged), &forged), [Part::from_index(part)]);
        }
        let forged = forge(&associated, [[&a, &b], [&b, &c], [&key, &a]], &data);
        assert_eq!(open(Party::K1, &forged).err(), Some(UnsealError::Data { holder: Party::K1 }));
    }

    /// Numbers modulo 2^130 − 5 in limbs of 44, 44 and 42 bits, for the attack below.
    mod poly1305 {
        #[derive(Clone, Copy, PartialEq)]
        pub(super) struct Residue([u128; 3]);

        const LIMB: u128 = (1 << 44) - 1;
        const TOP: u128 = (1 << 42) - 1;

        impl Residue {
            fn reduced(mut c: [u128; 3]) -> Self {
                for _ in 0..4 {
                    c = [c[0] & LIMB, c[1] + (c[0] >> 44), c[2]];
                    c = [c[0], c[1] & LIMB, c[2] + (c[1] >> 44)];
                    c = [c[0] + 5 * (c[2] >> 42), c[1], c[2] & TOP];
                }
                if c[0] >= LIMB - 4 && c[1] == LIMB && c[2] == TOP {
                    c = [c[0] - (LIMB - 4), 0, 0];
                }
                Self(c)
            }

            /// A 16-byte block with `high` times 2^128.
            pub(super) fn block(value: u128, high: u128) -> Self {
                Self::reduced([value & LIMB, (value >> 44) & LIMB, (value >> 88) + (high << 40)])
            }

            pub(super) fn plus(self, b: Self) -> Self {
                Self::reduced([0, 1, 2].map(|i| self.0[i] + b.0[i]))
            }

            pub(super) fn times(self, b: Self) -> Self {
                let (a, b) = (self.0, b.0);
                Self::reduced([
                    a[0] * b[0] + 20 * (a[1] * b[2] + a[2] * b[1]),
                    a[0] * b[1] + a[1] * b[0] + 20 * a[2] * b[2],
                    a[0] * b[2] + a[1] * b[1] + a[2] * b[0],
                ])
            }

            pub(super) fn negated(self) -> Self {
                self.times(Self([LIMB - 5, LIMB, TOP]))
            }

            /// a^(p−2).
            pub(super) fn inverted(self) -> Self {
                // p − 2 = 2^130 − 7: all ones but bits 1 and 2.
                (0..130).rev().fold(Self([1, 0, 0]), |power, bit| {
                    let square = power.times(power);
                    if bit == 1 || bit == 2 { square } else { square.times(self) }
                })
            }

            /// The value modulo 2^128, and what is above.
            pub(super) fn parts(self) -> (u128, u128) {
                (self.0[0] | self.0[1] << 44 | self.0[2] << 88, self.0[2] >> 40)
            }
        }

        /// r and s of a one-time key, and Σ block·r^… of blocks.
        pub(super) struct Key {
            pub(super) r: Residue,
            pub(super) s: u128,
        }

        impl Key {
            pub(super) fn new(bytes: &[u8; 32]) -> Self {
                let half = |at: usize| u128::from_le_bytes(bytes[at..at + 16].try_into().unwrap());
                Self { r: Residue::block(half(0) & 0x0ffffffc_0ffffffc_0ffffffc_0fffffff, 0), s: half(16) }
            }

            pub(super) fn sum(&self, blocks: &[Residue]) -> Residue {
                blocks.iter().fold(Residue::block(0, 0), |sum, block| sum.plus(*block).times(self.r))
            }

            pub(super) fn tag(&self, blocks: &[Residue]) -> u128 {
                self.sum(blocks).parts().0.wrapping_add(self.s)
            }
        }
    }

    /// One ciphertext and tag that open under two keys: blocks are random but for one, which is solved for.
    fn opens_under_both(context: &Label, keys: [&Seed; 2], length: usize) -> Vec<u8> {
        use poly1305::{Key, Residue};
        let keys = keys.map(|key| {
            // Nonce zero: the first block of the stream under the key is the one-time Poly1305 key.
            let mut bytes = [0; 32];
            Stream::public(*key.derive(context).expose()).fill(&mut bytes);
            Key::new(&bytes)
        });
        let blocks_of = |bytes: &[u8]| -> Vec<u128> {
            let chunk = |chunk: &[u8]| chunk.iter().rev().fold(0, |value, byte| value << 8 | u128::from(*byte));
            bytes.chunks(16).map(chunk).collect()
        };
        let associated = blocks_of(context.as_bytes());
        let lengths = context.as_bytes().len() as u128 | (length as u128) << 64;
        for seed in 0..=u8::MAX {
            let mut cipher = vec![0u8; length];
            Stream::public([seed; 32]).fill(&mut cipher);
            let mut blocks: Vec<Residue> = [associated.clone(), blocks_of(&cipher), vec![lengths]]
                .concat()
                .iter()
                .map(|&block| Residue::block(block, 1))
                .collect();
            // The last block of the ciphertext stands before the lengths: its factor is r².
            let free = blocks.len() - 2;
            blocks[free] = Residue::block(0, 0);
            let [a, b] = &keys;
            let slope = a.r.times(a.r).plus(b.r.times(b.r).negated()).inverted();
            for carry in 0..8 {
                let carry = Residue::block(0, carry).plus(Residue::block(0, 4).negated());
                let gap = b.sum(&blocks).plus(Residue::block(b.s, 0)).plus(carry);
                let gap = gap.plus(a.sum(&blocks).plus(Residue::block(a.s, 0)).negated());
                let solution = gap.times(slope);
                let mut solved = blocks.clone();
                solved[free] = solution;
                if solution.parts().1 == 1 && a.tag(&solved) == b.tag(&solved) {
                    cipher[length - 16..].copy_from_slice(&solution.parts().0.to_le_bytes());
                    cipher.extend(a.tag(&solved).to_le_bytes());
                    return cipher;
                }
            }
        }
        panic!("no collision in 256 trials")
    }

    #[test]
    fn one_ciphertext_under_two_content_keys_is_caught_by_the_comparison() {
        let associated = associated(64, enrol());
        let [a, b, first, second] = [(); 4].map(|()| Seed::random(&mut *os_entropy()));
        let context = data_context(&associated, &readers(&PUBLIC).unwrap());
        let data = opens_under_both(&context, [&first, &second], 6 * 64);
        let forged = forge(&associated, [[&a, &b], [&b, &first], [&second, &a]], &data);
        // The signature holds and every AEAD accepts.
        assert_eq!(forged.verify(&signer().verifying_key()), Ok(()));
        let opened = open_all(&forged);
        assert_ne!(opened[1].next.expose(), opened[2].own.expose(), "the two holders of part 2 read different values");
        assert_eq!(disputed(&opened, &forged), [Part::from_index(2)]);
    }

    #[test]
    fn answers_travel_back_to_the_client() {
        let query = Query::new(Decision::Best, Threshold::new(0.4).unwrap());
        let associated = associated(128, Purpose::Probe(query.clone()));
        let entropy = &mut *os_entropy();
        let (sealed, keys) = seal(&embedding(128), associated, &PUBLIC, &signer(), entropy).unwrap();
        let request = sealed.digest();
        let outcome = Outcome::Best(Some(SubjectId::new("alice").unwrap()));
        let replies = Party::ALL.map(|party| {
            let opened = open(party, &sealed).unwrap();
            let mut counter = Counter::new();
            let reply = seal_reply(&opened.reply, &mut counter, &request, party, &query, &outcome).unwrap();
            // Another holder's key does not open it.
            assert!(open_reply(keys.of(party.next()), &request, party, &query, &reply).is_err());
            open_reply(keys.of(party), &request, party, &query, &reply)
        });
        assert_eq!(combine_replies(replies), Ok(outcome));
    }

    #[test]
    fn secret_keys_are_redacted_and_survive_their_file() {
        let key = HolderSecretKey::random(&mut *os_entropy());
        assert_eq!(format!("{key:?}"), "HolderSecretKey(redacted)");
        let again = HolderSecretKey::from_bytes(key.secret_bytes().expose()).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        assert_eq!(HolderSecretKey::from_bytes(&[0; 31]).err(), Some(UnsealError::SecretKey));
        let text = format!("{:?}", open(Party::K0, &sealed(&embedding(16))).unwrap());
        assert!(text.len() < 300 && text.contains("own: Secret(redacted)"), "{text}");
    }
}
