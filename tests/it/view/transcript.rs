//! Recorded deliveries as messages of known type, with the fields that are ciphertext, masked or hashed from secrets.
//!
//! Left out of the fields: what is public or constant (names, ids, epochs, layouts, lengths, sessions, verdicts, the
//! public nonce and expiry), signatures and the tags of frames, which authenticate and hide nothing.

use std::collections::{BTreeMap, BTreeSet};

use borsh::{BorshDeserialize, BorshSerialize};
use veilmatch_cluster::Address;
use veilmatch_domain::{Party, SessionId};
use veilmatch_glwe::{
    ClientAnswer, ClientRequest, FromHolder, PartPayload, ProbeShape, ToHolder, admission_session, build_session,
    query_session,
};
use veilmatch_mpc::{Delivery, Frame};
use veilmatch_sealed::{KEM_BYTES, SealedTemplate};
use veilmatch_secret::Digest;

/// Bytes of a frame's tag.
const TAG: usize = 32;
/// Bytes of the counter that a reply's nonce begins with.
const REPLY_COUNTER: usize = 8;
/// Steps of a session among holders: see `handshake`, `admission`, `build` and `query` of `veilmatch-holder`.
const NORM: u32 = 16;
const PROBE: u32 = 1 << 10;
const SUMS: u32 = PROBE + 1;
const DECISION: u32 = PROBE + 16;

/// A field that must look the same whatever it hides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Field {
    /// What it is.
    pub(super) kind: String,
    /// What it belongs to: the digest of a sealed template, or a session.
    pub(super) label: [u8; 32],
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
}

/// One message.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) from: Address,
    pub(super) to: Address,
    /// Its type: variant, or session and step.
    pub(super) kind: String,
    /// Its length on the wire.
    pub(super) length: usize,
    pub(super) fields: Vec<Field>,
}

#[derive(BorshSerialize, BorshDeserialize)]
enum BetweenHolders {
    Ceremony { epoch: u32, seed: [u8; 32], signature: [u8; 64] },
    Frame { epoch: u32, frame: Vec<u8> },
    Escrow { epoch: u32, kem: Box<[u8; KEM_BYTES]>, sealed: Vec<u8>, signature: [u8; 64] },
}

#[derive(BorshDeserialize)]
struct Hello {
    _request: Digest,
    commitment: Digest,
    fresh: Option<[u8; 32]>,
}

#[derive(BorshDeserialize)]
struct Reveal {
    contribution: [u8; 32],
    private: [u8; 32],
    parts: Vec<Digest>,
    /// A copy of another holder's commitment, which the receiver has already.
    _heard: Digest,
}

#[derive(BorshDeserialize)]
struct PartNews {
    shared: Digest,
    checks: PartPayload,
}

#[derive(BorshDeserialize)]
struct ProbeNews {
    _shape: ProbeShape,
    shared: Digest,
    missing: PartPayload,
}

/// What the recording must tell before single messages can be read.
#[derive(Default)]
struct Sessions {
    kinds: BTreeMap<SessionId, &'static str>,
    replies: BTreeMap<Vec<u8>, SessionId>,
    /// Frames per session and step: an opening is the one round in which all three holders write to both peers.
    frames: BTreeMap<(SessionId, u32), usize>,
}

fn read<T: BorshDeserialize>(bytes: &[u8]) -> T {
    borsh::from_slice(bytes).expect("a message of an honest party is canonical")
}

fn frame(bytes: &[u8]) -> Option<Frame> {
    match read(bytes) {
        BetweenHolders::Frame { frame, .. } => Some(read(&frame[..frame.len() - TAG])),
        BetweenHolders::Ceremony { .. } | BetweenHolders::Escrow { .. } => None,
    }
}

impl Sessions {
    fn of(deliveries: &[Delivery<Address>]) -> Self {
        let mut sessions = Self::default();
        for delivery in deliveries {
            match (delivery.from, delivery.to) {
                (Address::Matcher, Address::Holder(_)) => match read(&delivery.bytes) {
                    ToHolder::Admit { attempt, collection, templates } => {
                        sessions.kinds.insert(admission_session(attempt, &collection, &templates), "admit");
                    }
                    ToHolder::Build(order) => {
                        sessions.kinds.insert(build_session(&order), "build");
                    }
                    ToHolder::Ask { sealed } => {
                        let sealed = SealedTemplate::from_bytes(&sealed).unwrap();
                        sessions.kinds.insert(query_session(&sealed.digest()), "query");
                    }
                    _ => {}
                },
                (Address::Holder(_), Address::Matcher) => {
                    if let FromHolder::Answer { session, reply } = read(&delivery.bytes) {
                        sessions.replies.insert(reply, session);
                    }
                }
                (Address::Holder(_), Address::Holder(_)) => {
                    if let Some(frame) = frame(&delivery.bytes) {
                        *sessions.frames.entry((frame.session, frame.step)).or_default() += 1;
                    }
                }
                _ => {}
            }
        }
        sessions
    }
}

/// Reads a recording.
pub(super) fn messages(deliveries: &[Delivery<Address>]) -> Vec<Message> {
    let sessions = Sessions::of(deliveries);
    deliveries
        .iter()
        .map(|d| {
            let (kind, fields) = match (d.from, d.to) {
                (Address::Client, Address::Matcher) => request(&d.bytes[8..]),
                (Address::Matcher, Address::Client) => answer(&sessions, &d.bytes[8..]),
                (Address::Matcher, Address::Holder(_)) => order(&d.bytes),
                (Address::Holder(_), Address::Matcher) => report(&sessions, &d.bytes),
                (Address::Holder(from), Address::Holder(to)) => peer(&sessions, &d.bytes, from, to),
                other => panic!("nobody talks like {other:?}"),
            };
            Message { from: d.from, to: d.to, kind, length: d.bytes.len(), fields }
        })
        .collect()
}

/// The different fields of messages: what is passed on or sent twice under one label counts once.
pub(super) fn distinct(messages: &[Message]) -> BTreeSet<Field> {
    messages.iter().flat_map(|m| m.fields.iter().cloned()).collect()
}

fn field(kind: impl Into<String>, label: [u8; 32], bytes: impl Into<Vec<u8>>) -> Field {
    Field { kind: kind.into(), label, bytes: bytes.into() }
}

fn sealed(bytes: &[u8]) -> Vec<Field> {
    let sealed = SealedTemplate::from_bytes(bytes).unwrap();
    let label = sealed.digest().0;
    let mut fields = vec![field("sealed data", label, sealed.data())];
    for party in Party::ALL {
        let packet = sealed.packet(party);
        fields.push(field("sealed kem", label, packet.kem));
        fields.push(field("sealed packet", label, packet.sealed));
    }
    fields
}

fn payload(kind: &str, label: [u8; 32], payload: PartPayload) -> Field {
    match payload {
        PartPayload::Polynomials(bytes) => field(format!("{kind} polynomials"), label, bytes),
        PartPayload::Digest(digest) => field(format!("{kind} digest"), label, digest.0),
    }
}

fn request(bytes: &[u8]) -> (String, Vec<Field>) {
    match read(bytes) {
        ClientRequest::Enroll { templates, .. } => {
            ("enroll".into(), templates.iter().flat_map(|t| sealed(t)).collect())
        }
        ClientRequest::Ask { sealed: bytes } => ("ask".into(), sealed(&bytes)),
        ClientRequest::Erase { .. } => ("erase".into(), Vec::new()),
    }
}

fn answer(sessions: &Sessions, bytes: &[u8]) -> (String, Vec<Field>) {
    match read(bytes) {
        ClientAnswer::Enrolled { .. } => ("enrolled".into(), Vec::new()),
        ClientAnswer::Replies { replies } => {
            let reply = |r: &Vec<u8>| field("reply", sessions.replies[r].0, &r[REPLY_COUNTER..]);
            ("replies".into(), replies.iter().map(reply).collect())
        }
        ClientAnswer::Done => ("done".into(), Vec::new()),
        ClientAnswer::Erased { .. } => ("erased".into(), Vec::new()),
        ClientAnswer::Refused(_) => ("refused".into(), Vec::new()),
    }
}

fn order(bytes: &[u8]) -> (String, Vec<Field>) {
    match read(bytes) {
        ToHolder::Admit { templates, .. } => ("admit".into(), templates.iter().flat_map(|t| sealed(t)).collect()),
        ToHolder::Build(order) => ("build".into(), order.members.iter().flat_map(|m| sealed(&m.sealed)).collect()),
        ToHolder::Commit { .. } => ("commit".into(), Vec::new()),
        ToHolder::Abandon { .. } => ("abandon".into(), Vec::new()),
        ToHolder::Ask { sealed: bytes } => ("ask".into(), sealed(&bytes)),
        ToHolder::Sums { session, groups, .. } => {
            let fields = groups
                .into_iter()
                .flat_map(|g| [field("sums masks", session.0, g.masks), field("sums scores", session.0, g.scores)]);
            ("sums".into(), fields.collect())
        }
        ToHolder::Evaluations { session, groups } => {
            let fields = groups.into_iter().flat_map(|g| {
                [field("matcher's product", session.0, g.matcher), field("twin's product", session.0, g.twin)]
            });
            ("evaluations".into(), fields.collect())
        }
        ToHolder::Erase { .. } => ("erase".into(), Vec::new()),
    }
}

fn report(sessions: &Sessions, bytes: &[u8]) -> (String, Vec<Field>) {
    match read(bytes) {
        FromHolder::Admitted { .. } => ("admitted".into(), Vec::new()),
        FromHolder::GroupPart { session, part, payload: bytes } => {
            (format!("group {part}"), vec![payload("group part", session.0, bytes)])
        }
        FromHolder::Committed { session } => (format!("committed {}", sessions.kinds[&session]), Vec::new()),
        FromHolder::ProbePart { session, seed, part, payload: bytes, .. } => {
            let fields = vec![payload("probe part", session.0, bytes), field("probe mask seed", session.0, seed.0)];
            (format!("probe {part}"), fields)
        }
        FromHolder::Answer { session, reply } => {
            ("answer".into(), vec![field("reply", session.0, &reply[REPLY_COUNTER..])])
        }
        FromHolder::Erased { .. } => ("erased".into(), Vec::new()),
        FromHolder::Refused { .. } => ("refused".into(), Vec::new()),
        FromHolder::Status { .. } => ("status".into(), Vec::new()),
        FromHolder::Candidates { .. } => ("candidates".into(), Vec::new()),
        FromHolder::ProbeShare { session, addend } => {
            let bytes: Vec<u8> = addend.expose().iter().flat_map(|residue| residue.to_le_bytes()).collect();
            ("addend".into(), vec![field("addend", session.0, bytes)])
        }
    }
}

fn peer(sessions: &Sessions, bytes: &[u8], from: Party, to: Party) -> (String, Vec<Field>) {
    let Some(frame) = frame(bytes) else { return ("ceremony".into(), Vec::new()) };
    assert_eq!((frame.from, frame.to), (from, to));
    let (label, step, bytes) = (frame.session.0, frame.step, frame.payload);
    let session = sessions.kinds[&frame.session];
    let evaluation = |name: &str, first: u32| {
        let opening = sessions.frames[&(frame.session, step)] == 6;
        let what = match step - first {
            0 => "inputs",
            _ if opening => "opening",
            1 if from == Party::K0 => "deal",
            _ => "products",
        };
        format!("{name} {what}")
    };
    let fields = match (session, step) {
        (_, 0) => {
            let hello: Hello = read(&bytes);
            let fresh = hello.fresh.map(|fresh| field("fresh", label, fresh));
            [field("commitment", label, hello.commitment.0)].into_iter().chain(fresh).collect()
        }
        (_, 1) => {
            let reveal: Reveal = read(&bytes);
            let parts = reveal.parts.iter().map(|d| field("part digest", label, d.0));
            let shown = [field("contribution", label, reveal.contribution), field("private", label, reveal.private)];
            shown.into_iter().chain(parts).collect()
        }
        ("admit", 2 | 3) => Vec::new(), // votes, and a digest of all votes
        ("build", 2) => {
            let news: PartNews = read(&bytes);
            vec![field("body digest", label, news.shared.0), payload("check vector", label, news.checks)]
        }
        ("query", PROBE) => read::<Vec<ProbeNews>>(&bytes)
            .into_iter()
            .flat_map(|n| [field("body digest", label, n.shared.0), payload("probe part", label, n.missing)])
            .collect(),
        ("query", SUMS) => vec![field("agreement", label, read::<Digest>(&bytes).0)],
        ("query", DECISION..) => vec![field(evaluation("decision", DECISION), label, bytes)],
        ("admit" | "query", NORM..) => vec![field(evaluation("norm", NORM), label, bytes)],
        other => panic!("no holder sends a frame at {other:?}"),
    };
    (format!("{session} {step}"), fields)
}
