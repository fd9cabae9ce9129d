//! What a holder must not forget, as records that its driver keeps.
//!
//! A holder does no IO. Every change of its memory leaves it as [`Record`]s in a
//! [`Reaction`](crate::Reaction); the driver writes them, all or none, before it sends anything of that reaction. After
//! a restart the holder is made again from the records that are there. A record is one natural unit (a client, the templates
//! of one admission, a group), so that a change writes few and small ones.

use borsh::{BorshDeserialize, BorshSerialize};

use veilmatch_domain::{ClientId, CollectionId, Epoch, GroupId, Party, SessionId, SubjectId, TemplateDigest};
use veilmatch_secret::Secret;

/// A key with its new value, or `None` if the key is gone. Values can hold seeds: whoever stores them encrypts them. In a
/// list, a later record replaces an earlier one with the same key.
#[derive(Debug)]
pub struct Record {
    /// Unique; its first byte tells the kind.
    pub key: Vec<u8>,
    /// The value.
    pub value: Option<Secret<Vec<u8>>>,
}

/// Who signed a nonce.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub(crate) enum Signer {
    Client(ClientId),
    /// By its verifying key.
    Administrator([u8; 32]),
}

/// The kinds of records. A stored format: new kinds go to the end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub(crate) enum Key {
    /// [`ClientRecord`](crate::ClientRecord).
    Client(ClientId),
    /// Its policy.
    Collection(CollectionId),
    /// Digest of the admitted template: how a restored holder gets them, one by one.
    Admitted(CollectionId, SubjectId),
    /// Nothing: the digest was erased.
    Tombstone(CollectionId, TemplateDigest),
    /// The last erasure of a subject.
    Erased(CollectionId, SubjectId),
    /// A live group, without its expanded masks.
    Group(CollectionId, GroupId),
    /// The highest revision of a group that was revoked: those below it are never served either.
    Revoked(CollectionId, GroupId),
    /// The newest label of a group and what this holder contributed to it.
    Label(CollectionId, GroupId),
    /// When a used nonce expires.
    Nonce(Signer, [u8; 16]),
    /// Committed sessions by number, for repeated `Commit`s.
    Committed(u64),
    /// Snapshot of the ledger.
    Ledger,
    /// Both seeds of an epoch.
    Epoch(Epoch),
    /// This holder's seed of a ceremony that is not complete.
    OwnSeed(Epoch),
    /// The peer's seed of such a ceremony.
    PeerSeed(Epoch),
    /// An admission that this holder has promised to commit.
    PreparedAdmission(SessionId),
    /// A build that this holder has promised to commit.
    PreparedBuild(SessionId),
    /// A peer's share of its keys, by the epoch that it was split for.
    Escrow(Party, Epoch),
    /// What this holder's own keys were last split with.
    OwnSplit,
    /// A lost holder that an administrator allows to be answered.
    RestorePermission(Party),
    /// The epoch that this holder was restored in.
    Restored,
    /// At a restored holder: the highest revision of a group that a label was used for.
    UsedLabel(CollectionId, GroupId),
    /// Subjects and digests of templates that a session admitted. It stays when one of them is erased: the tombstone counts.
    AdmittedBy(CollectionId, SessionId),
    /// The nonces of those templates' requests, and when the last of them expires.
    NoncesOf(SessionId),
    /// This holder's share of the threshold key of the scheme `paillier`.
    PaillierShare,
}

impl Key {
    /// The kind in words.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Key::Client(_) => "client",
            Key::Collection(_) => "collection",
            Key::Admitted(..) | Key::AdmittedBy(..) => "admitted subject",
            Key::Tombstone(..) => "tombstone",
            Key::Erased(..) => "erasure",
            Key::Group(..) => "group",
            Key::Revoked(..) => "revoked revision",
            Key::Label(..) => "label",
            Key::Nonce(..) | Key::NoncesOf(_) => "nonce",
            Key::Committed(_) => "committed session",
            Key::Ledger => "ledger",
            Key::Epoch(_) => "key epoch",
            Key::OwnSeed(_) | Key::PeerSeed(_) => "ceremony",
            Key::PreparedAdmission(_) => "prepared admission",
            Key::PreparedBuild(_) => "prepared build",
            Key::Escrow(..) | Key::OwnSplit => "escrow",
            Key::RestorePermission(_) => "restore permission",
            Key::Restored => "restored",
            Key::PaillierShare => "share of a threshold key",
            Key::UsedLabel(..) => "used label",
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(self, &mut bytes);
        bytes
    }
}

impl Record {
    pub(crate) fn put<T: BorshSerialize + ?Sized>(key: &Key, value: &T) -> Record {
        Record { key: key.to_bytes(), value: Some(encode_secret(value)) }
    }

    pub(crate) fn gone(key: &Key) -> Record {
        Record { key: key.to_bytes(), value: None }
    }
}

/// Encodes a value in a buffer that is wiped and never grows, so that no copy stays behind.
pub(crate) fn encode_secret<T: BorshSerialize + ?Sized>(value: &T) -> Secret<Vec<u8>> {
    let mut bytes = Secret::new(Vec::with_capacity(borsh::object_length(value).unwrap_or(0)));
    write(value, bytes.expose_mut());
    bytes
}

/// Our lists are far below 2^32 entries and memory takes every write, so there is no error to return.
fn write<T: BorshSerialize + ?Sized>(value: &T, bytes: &mut Vec<u8>) {
    let written = value.serialize(bytes);
    debug_assert!(written.is_ok());
}

/// Seeds in records: `#[borsh(serialize_with = …, deserialize_with = …)]`, so that no seed is encoded by accident.
pub(crate) mod seed {
    use borsh::{BorshDeserialize, BorshSerialize};
    use std::io;
    use veilmatch_secret::Seed;
    use zeroize::Zeroize;

    pub(crate) fn write<W: io::Write>(seed: &Seed, writer: &mut W) -> io::Result<()> {
        seed.expose().serialize(writer)
    }

    pub(crate) fn read<R: io::Read>(reader: &mut R) -> io::Result<Seed> {
        let mut bytes = <[u8; 32]>::deserialize_reader(reader)?;
        let seed = Seed::from_bytes(bytes);
        bytes.zeroize();
        Ok(seed)
    }
}

/// A seed as a record of its own.
#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) struct StoredSeed(
    #[borsh(serialize_with = "seed::write", deserialize_with = "seed::read")] pub(crate) veilmatch_secret::Seed,
);
