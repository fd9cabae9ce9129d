//! Sealed replies: what a holder tells the client, past the matcher.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use std::fmt;
use veilmatch_domain::{
    Decision, Explain, MAX_IDENTIFIER, MAX_MATCHES, Outcome, Party, Query, Status, SubjectId, Suspect, TemplateDigest,
};
use veilmatch_secret::{Counter, Entropy, Label, Secret, Seed};

use crate::template::{canonical, take};
use crate::{SealedError, TAG_BYTES};

const NONCE_BYTES: usize = 24;
/// One byte of length and a name, padded with zeros.
const SLOT_BYTES: usize = 1 + MAX_IDENTIFIER;

/// The key under which one holder answers one request.
#[derive(Debug)]
pub struct ReplyKey(Seed);

impl ReplyKey {
    /// Wraps bytes that came out of a packet or of the client's memory.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Seed::from_bytes(bytes))
    }

    /// The bytes, for sealing.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }

    /// A deliberate second copy.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0.duplicate())
    }
}

/// What the client keeps to read the three answers.
#[derive(Debug)]
pub struct ReplyKeys([ReplyKey; 3]);

impl ReplyKeys {
    /// Draws fresh keys.
    #[must_use]
    pub fn random(entropy: &mut dyn Entropy) -> Self {
        Self([(); 3].map(|()| ReplyKey(Seed::random(entropy))))
    }

    /// The key of one holder.
    #[must_use]
    pub fn of(&self, holder: Party) -> &ReplyKey {
        let [k0, k1, k2] = &self.0;
        match holder {
            Party::K0 => k0,
            Party::K1 => k1,
            Party::K2 => k2,
        }
    }
}

/// Bytes of every reply to this query, whatever the outcome.
///
/// # Errors
/// [`SealedError::Query`] if it asks for 0 matches or more than [`MAX_MATCHES`].
pub fn reply_length(query: &Query) -> Result<usize, SealedError> {
    Ok(NONCE_BYTES + padded_length(query)? + TAG_BYTES)
}

/// Seals an outcome for the client. The nonce is counter ‖ PRF(counter, content): see the crate's page.
///
/// # Errors
/// [`SealedError`] if the outcome cannot answer the query or the counter is exhausted.
pub fn seal_reply(
    key: &ReplyKey,
    counter: &mut Counter,
    request: &TemplateDigest,
    holder: Party,
    query: &Query,
    outcome: &Outcome,
) -> Result<Vec<u8>, SealedError> {
    let padded = pad(query, outcome)?;
    let context = context(request, holder, query);
    let nonce = nonce(key, counter.advance()?, &context, &padded);
    seal_padded(key, &nonce, &context, &padded)
}

/// Opens a reply.
///
/// # Errors
/// [`SealedError`] on another length, a wrong tag, or content that does not answer the query.
pub fn open_reply(
    key: &ReplyKey,
    request: &TemplateDigest,
    holder: Party,
    query: &Query,
    reply: &[u8],
) -> Result<Outcome, SealedError> {
    let expected = reply_length(query)?;
    if reply.len() != expected {
        return Err(SealedError::Length { found: reply.len(), expected });
    }
    let mut sealed = reply;
    let nonce: [u8; NONCE_BYTES] = take(&mut sealed)?;
    let context = context(request, holder, query);
    let padded = cipher(key, &context)
        .decrypt(&XNonce::from(nonce), Payload { msg: sealed, aad: context.as_bytes() })
        .map(Secret::new)
        .map_err(|_| SealedError::NotAuthentic)?;
    unpad(query, padded.expose())
}

fn context(request: &TemplateDigest, holder: Party, query: &Query) -> Label {
    Label::new("veilmatch/sealed/reply").bytes(&request.0).number(holder.index() as u64).bytes(&canonical(query))
}

fn cipher(key: &ReplyKey, context: &Label) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.0.derive(context).expose().into())
}

fn nonce(key: &ReplyKey, counter: u64, context: &Label, padded: &Secret<Vec<u8>>) -> [u8; NONCE_BYTES] {
    let label = Label::new("veilmatch/sealed/reply-nonce").bytes(context.as_bytes()).number(counter);
    let synthetic = key.0.tag(&label.bytes(padded.expose()));
    let mut nonce = [0u8; NONCE_BYTES];
    nonce.iter_mut().zip(counter.to_le_bytes().iter().chain(&synthetic)).for_each(|(to, from)| *to = *from);
    nonce
}

/// Private, so that the nonce cannot be chosen from outside.
fn seal_padded(
    key: &ReplyKey,
    nonce: &[u8; NONCE_BYTES],
    context: &Label,
    padded: &Secret<Vec<u8>>,
) -> Result<Vec<u8>, SealedError> {
    let sealed = cipher(key, context)
        .encrypt(&XNonce::from(*nonce), Payload { msg: padded.expose(), aad: context.as_bytes() })
        .map_err(|_| SealedError::TooLong { found: padded.expose().len(), limit: u32::MAX as usize })?;
    let mut reply = Vec::with_capacity(NONCE_BYTES + sealed.len());
    reply.extend_from_slice(nonce);
    reply.extend(sealed);
    Ok(reply)
}

const NO: u8 = 0;
const YES: u8 = 1;
const TOO_MANY: u8 = 2;

fn slots(query: &Query) -> Result<usize, SealedError> {
    match query.decision {
        Decision::Verify { .. } | Decision::Exists => Ok(0),
        Decision::Best => Ok(1),
        Decision::Matches { max_matches: max @ 1..=MAX_MATCHES } => Ok(max.into()),
        Decision::Matches { .. } => Err(SealedError::Query),
    }
}

fn padded_length(query: &Query) -> Result<usize, SealedError> {
    Ok(1 + slots(query)? * SLOT_BYTES)
}

/// One byte for the kind of answer, then the query's number of slots for names.
fn pad(query: &Query, outcome: &Outcome) -> Result<Secret<Vec<u8>>, SealedError> {
    let slots = slots(query)?;
    let (kind, names): (u8, &[SubjectId]) = match (&query.decision, outcome) {
        (Decision::Verify { .. }, Outcome::Verify(answer)) | (Decision::Exists, Outcome::Exists(answer)) => {
            (if *answer { YES } else { NO }, &[])
        }
        (Decision::Matches { .. }, Outcome::TooMany) => (TOO_MANY, &[]),
        (Decision::Matches { .. }, Outcome::Matches(names)) => (YES, names),
        (Decision::Best, Outcome::Best(best)) => (YES, best.as_slice()),
        _ => return Err(SealedError::Outcome),
    };
    if names.len() > slots || !names.is_sorted_by(|a, b| a < b) {
        return Err(SealedError::Outcome);
    }
    let mut padded = Vec::with_capacity(padded_length(query)?);
    padded.push(kind);
    for slot in 0..slots {
        let name = names.get(slot).map_or("", |name| name.as_str());
        padded.push(name.len() as u8);
        padded.extend_from_slice(name.as_bytes());
        padded.extend(std::iter::repeat_n(0, MAX_IDENTIFIER - name.len()));
    }
    Ok(Secret::new(padded))
}

fn unpad(query: &Query, padded: &[u8]) -> Result<Outcome, SealedError> {
    const WRONG: SealedError = SealedError::Outcome;
    let (&kind, slots) = padded.split_first().ok_or(WRONG)?;
    let mut names = Vec::new();
    for slot in slots.as_chunks::<SLOT_BYTES>().0 {
        let [length, text @ ..] = slot;
        let text = text.get(..usize::from(*length)).ok_or(WRONG)?;
        if !text.is_empty() {
            let text = std::str::from_utf8(text).map_err(|_| WRONG)?;
            names.push(SubjectId::new(text).map_err(|_| WRONG)?);
        }
    }
    let outcome = match (&query.decision, kind) {
        (Decision::Verify { .. }, NO | YES) => Outcome::Verify(kind == YES),
        (Decision::Exists, NO | YES) => Outcome::Exists(kind == YES),
        (Decision::Matches { .. }, YES) => Outcome::Matches(names),
        (Decision::Matches { .. }, TOO_MANY) => Outcome::TooMany,
        (Decision::Best, YES) => Outcome::Best(names.pop()),
        _ => return Err(WRONG),
    };
    // One encoding for one outcome: no gaps, no disorder, nothing in the padding.
    if pad(query, &outcome)?.expose() == padded { Ok(outcome) } else { Err(WRONG) }
}

/// Why the three replies give no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// Replies that are missing or do not open. In index order; never empty.
    #[error("no readable reply from {}", Names(.holders))]
    Unreadable {
        /// Which holders'.
        holders: Vec<Party>,
    },
    /// One reply contradicts the two others, which agree.
    #[error("the reply of key holder {holder} contradicts the two others")]
    Deviates {
        /// Whose reply.
        holder: Party,
    },
    /// All three differ: at least two are wrong.
    #[error("the three replies differ from each other")]
    AllDiffer,
}

struct Names<'a>(&'a [Party]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, party) in self.0.iter().enumerate() {
            write!(f, "{}{party}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl ReplyError {
    /// Whom the error points at, if it can tell. The matcher carries replies and may drop or spoil them, so an
    /// unreadable reply only says on whose path to look; a reply that contradicts was sealed by the holder itself.
    #[must_use]
    pub fn suspect(&self) -> Option<Suspect> {
        match self {
            Self::Unreadable { holders } => match holders.as_slice() {
                [one] => Some(Suspect::Holder(*one)),
                [a, b] => Some(Suspect::pair(*a, *b)),
                _ => None,
            },
            Self::Deviates { holder } => Some(Suspect::Holder(*holder)),
            Self::AllDiffer => None,
        }
    }
}

impl Explain for ReplyError {
    fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "reply-unreadable",
            Self::Deviates { .. } => "reply-deviates",
            Self::AllDiffer => "replies-differ",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::Unreadable { .. } => Status::Unavailable,
            Self::Deviates { .. } | Self::AllDiffer => Status::Aborted,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "seal a new request and ask again; look at the named holders and the matcher",
            Self::Deviates { .. } => "do not act on the answer; have the named holder's operator compare audit logs",
            Self::AllDiffer => "do not act on the answer; have all three operators compare their audit logs",
        }
    }
}

/// The answer, if all three holders gave the same. `replies` are in index order; what never came is
/// [`SealedError::MissingReply`].
///
/// # Errors
/// [`ReplyError`], which names the holder that is missing or that the two others contradict.
pub fn combine_replies(replies: [Result<Outcome, SealedError>; 3]) -> Result<Outcome, ReplyError> {
    match replies {
        [Ok(a), Ok(b), Ok(c)] => match (a == b, b == c, a == c) {
            (true, true, _) => Ok(a),
            (true, false, _) => Err(ReplyError::Deviates { holder: Party::K2 }),
            (false, true, _) => Err(ReplyError::Deviates { holder: Party::K0 }),
            (false, false, true) => Err(ReplyError::Deviates { holder: Party::K1 }),
            (false, false, false) => Err(ReplyError::AllDiffer),
        },
        replies => {
            let failed = Party::ALL.iter().zip(&replies).filter(|(_, reply)| reply.is_err());
            Err(ReplyError::Unreadable { holders: failed.map(|(party, _)| *party).collect() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use veilmatch_domain::Threshold;
    use veilmatch_secret::os_entropy;

    fn query(decision: Decision) -> Query {
        Query::new(decision, Threshold::new(0.4).unwrap())
    }

    fn id(text: &str) -> SubjectId {
        SubjectId::new(text).unwrap()
    }

    fn cases() -> Vec<(Query, Vec<Outcome>)> {
        let verify = Decision::Verify { subject: id("alice") };
        vec![
            (query(verify), vec![Outcome::Verify(false), Outcome::Verify(true)]),
            (query(Decision::Exists), vec![Outcome::Exists(false), Outcome::Exists(true)]),
            (
                query(Decision::Matches { max_matches: 3 }),
                vec![
                    Outcome::Matches(vec![]),
                    Outcome::Matches(vec![id("alice")]),
                    Outcome::Matches(vec![id("a"), id(&"b".repeat(64)), id("c")]),
                    Outcome::TooMany,
                ],
            ),
            (query(Decision::Best), vec![Outcome::Best(None), Outcome::Best(Some(id("x")))]),
        ]
    }

    const REQUEST: TemplateDigest = TemplateDigest([3; 32]);

    #[test]
    fn every_outcome_opens_and_its_length_is_the_querys() {
        let key = ReplyKey::from_bytes([1; 32]);
        let mut counter = Counter::new();
        for (query, outcomes) in cases() {
            for outcome in outcomes {
                let reply = seal_reply(&key, &mut counter, &REQUEST, Party::K1, &query, &outcome).unwrap();
                assert_eq!(reply.len(), reply_length(&query).unwrap());
                assert_eq!(open_reply(&key, &REQUEST, Party::K1, &query, &reply), Ok(outcome));
            }
        }
        assert_eq!(reply_length(&cases()[2].0), Ok(24 + 1 + 3 * 65 + 16));
    }

    #[test]
    fn an_altered_or_displaced_reply_is_refused() {
        let key = ReplyKey::from_bytes([1; 32]);
        let (asked, outcome) = (query(Decision::Best), Outcome::Best(Some(id("alice"))));
        let reply = seal_reply(&key, &mut Counter::new(), &REQUEST, Party::K1, &asked, &outcome).unwrap();
        for i in 0..reply.len() {
            let mut altered = reply.clone();
            altered[i] ^= 1 << (i % 8);
            assert_eq!(open_reply(&key, &REQUEST, Party::K1, &asked, &altered), Err(SealedError::NotAuthentic));
            assert!(open_reply(&key, &REQUEST, Party::K1, &asked, &reply[..i]).is_err());
        }
        let other = Query { threshold: Threshold::new(0.5).unwrap(), ..asked.clone() };
        assert!(open_reply(&key, &TemplateDigest([4; 32]), Party::K1, &asked, &reply).is_err());
        assert!(open_reply(&key, &REQUEST, Party::K2, &asked, &reply).is_err());
        assert!(open_reply(&key, &REQUEST, Party::K1, &other, &reply).is_err());
        assert!(open_reply(&ReplyKey::from_bytes([2; 32]), &REQUEST, Party::K1, &asked, &reply).is_err());
    }

    #[test]
    fn an_outcome_must_answer_the_query() {
        let key = ReplyKey::from_bytes([1; 32]);
        let seal = |decision, outcome| {
            seal_reply(&key, &mut Counter::new(), &REQUEST, Party::K0, &query(decision), &outcome).err()
        };
        let two = Decision::Matches { max_matches: 2 };
        assert_eq!(seal(Decision::Exists, Outcome::Verify(true)), Some(SealedError::Outcome));
        assert_eq!(seal(Decision::Best, Outcome::TooMany), Some(SealedError::Outcome));
        for names in [vec!["b", "a"], vec!["a", "a"], vec!["a", "b", "c"]] {
            let outcome = Outcome::Matches(names.into_iter().map(id).collect());
            assert_eq!(seal(two.clone(), outcome), Some(SealedError::Outcome));
        }
        for max_matches in [0, MAX_MATCHES + 1, u16::MAX] {
            assert_eq!(seal(Decision::Matches { max_matches }, Outcome::TooMany), Some(SealedError::Query));
        }
    }

    #[test]
    fn padding_has_one_spelling() {
        let asked = query(Decision::Matches { max_matches: 2 });
        let padded = pad(&asked, &Outcome::Matches(vec![id("a")])).unwrap();
        for i in 2..padded.expose().len() {
            let mut altered = padded.expose().clone();
            altered[i] = 0xff;
            assert_eq!(unpad(&asked, &altered), Err(SealedError::Outcome), "byte {i}");
        }
        let mut gap = padded.expose().clone();
        gap[1..].rotate_left(SLOT_BYTES);
        assert_eq!(unpad(&asked, &gap), Err(SealedError::Outcome));
    }

    /// Somebody who knows the content of one reply computes the other's, if both were masked with one key stream.
    fn attack(known_reply: &[u8], known: &[u8], other_reply: &[u8]) -> Vec<u8> {
        let body = |reply: &[u8]| reply[NONCE_BYTES..reply.len() - TAG_BYTES].to_vec();
        let (a, b) = (body(known_reply), body(other_reply));
        a.iter().zip(&b).zip(known).map(|((a, b), known)| a ^ b ^ known).collect()
    }

    fn equal_bits(a: &[u8], b: &[u8]) -> u32 {
        a.iter().zip(b).map(|(a, b)| 8 - (a ^ b).count_ones()).sum()
    }

    #[test]
    fn a_repeated_nonce_would_give_the_outcome_away_and_the_real_one_does_not() {
        let asked = query(Decision::Matches { max_matches: 8 });
        let (first, second) = (Outcome::Matches(vec![]), Outcome::Matches(vec![id("alice"), id("bob")]));
        let (known, secret) = (pad(&asked, &first).unwrap(), pad(&asked, &second).unwrap());
        let bits = 8 * secret.expose().len() as u32;
        let context = context(&REQUEST, Party::K0, &asked);
        let (mut recovered, mut restored, trials) = (0, 0, 32);
        for _ in 0..trials {
            let key = ReplyKey(Seed::random(&mut *os_entropy()));

            // The mask off: one nonce for both.
            let fixed = [7; NONCE_BYTES];
            let a = seal_padded(&key, &fixed, &context, &known).unwrap();
            let b = seal_padded(&key, &fixed, &context, &secret).unwrap();
            assert_eq!(&attack(&a, known.expose(), &b), secret.expose());

            // The real thing, and the real thing after a restore that set the counter back.
            let mut counter = Counter::new();
            let seal = |counter: &mut Counter, outcome| {
                seal_reply(&key, counter, &REQUEST, Party::K0, &asked, outcome).unwrap()
            };
            let (a, b) = (seal(&mut counter, &first), seal(&mut counter, &second));
            recovered += equal_bits(&attack(&a, known.expose(), &b), secret.expose());
            let again = seal(&mut Counter::new(), &second);
            assert_eq!(a[..8], again[..8], "the counter did repeat");
            restored += equal_bits(&attack(&a, known.expose(), &again), secret.expose());
        }
        let half = f64::from(bits * trials) / 2.0;
        let deviation = (half / 2.0).sqrt();
        for hits in [recovered, restored] {
            assert!((f64::from(hits) - half).abs() < 6.0 * deviation, "{hits} of {} bits", bits * trials);
        }
    }

    #[test]
    fn combining_names_the_odd_one_out() {
        let [no, yes] = [Outcome::Exists(false), Outcome::Exists(true)];
        let combine = |a: &Outcome, b: &Outcome, c: &Outcome| combine_replies([a, b, c].map(|o| Ok(o.clone())));
        assert_eq!(combine(&yes, &yes, &yes), Ok(yes.clone()));
        assert_eq!(combine(&no, &yes, &yes), Err(ReplyError::Deviates { holder: Party::K0 }));
        assert_eq!(combine(&yes, &no, &yes), Err(ReplyError::Deviates { holder: Party::K1 }));
        let error = combine(&no, &no, &yes).unwrap_err();
        assert_eq!(error.suspect(), Some(Suspect::Holder(Party::K2)));
        let error = combine(&no, &yes, &Outcome::TooMany).unwrap_err();
        assert_eq!((error.suspect(), error), (None, ReplyError::AllDiffer));
        let error = combine_replies([Ok(no.clone()), Err(SealedError::MissingReply), Ok(no)]).unwrap_err();
        assert_eq!(error.suspect(), Some(Suspect::Holder(Party::K1)));
        assert_eq!(error.to_string(), "no readable reply from K1");
        let bad = || Err(SealedError::NotAuthentic);
        let error = combine_replies([bad(), Ok(yes), bad()]).unwrap_err();
        assert_eq!(error.suspect(), Some(Suspect::pair(Party::K0, Party::K2)));
        assert_eq!(error.to_string(), "no readable reply from K0, K2");
        assert_eq!(combine_replies([bad(), bad(), bad()]).unwrap_err().suspect(), None);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), case in 0usize..4) {
            let query = &cases()[case].0;
            let key = ReplyKey::from_bytes([1; 32]);
            prop_assert!(open_reply(&key, &REQUEST, Party::K0, query, &bytes).is_err());
            let _ = unpad(query, &bytes);
        }

        #[test]
        fn random_content_of_the_right_length_never_panics(
            bytes in proptest::collection::vec(0u8..70, 1 + 3 * SLOT_BYTES),
        ) {
            let query = &cases()[2].0;
            if let Ok(outcome) = unpad(query, &bytes) {
                let again = pad(query, &outcome).unwrap();
                prop_assert_eq!(again.expose(), &bytes);
            }
        }
    }
}
