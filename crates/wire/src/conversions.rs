//! Public types to messages and back, in pairs.

use veilmatch_domain::{CollectionId, Dimension, Party, SchemeName, SubjectId, Suspect, TemplateDigest, Timestamp};
use veilmatch_glwe::{Refusal, Verdict};

use crate::{MAX_CODE, MAX_MESSAGE, MAX_SUSPECTS, WireError, v1};

/// Items of a page that a request asks for: 1 to 1000, of which 0 asks for 100.
///
/// # Errors
/// [`WireError::Size`] above 1000.
pub fn page_size(asked: u32) -> Result<usize, WireError> {
    match asked {
        0 => Ok(100),
        1..=1000 => Ok(asked as usize),
        _ => Err(WireError::Size { field: "page_size", found: asked as usize, limit: 1000 }),
    }
}

impl From<Party> for v1::Party {
    fn from(party: Party) -> Self {
        match party {
            Party::K0 => Self::K0,
            Party::K1 => Self::K1,
            Party::K2 => Self::K2,
        }
    }
}

impl TryFrom<v1::Party> for Party {
    type Error = WireError;
    fn try_from(party: v1::Party) -> Result<Self, WireError> {
        match party {
            v1::Party::Unspecified => Err(WireError::Missing { field: "party" }),
            v1::Party::K0 => Ok(Self::K0),
            v1::Party::K1 => Ok(Self::K1),
            v1::Party::K2 => Ok(Self::K2),
        }
    }
}

fn party(number: i32) -> Result<Party, WireError> {
    v1::Party::try_from(number).map_err(|_| WireError::Unknown { field: "party" })?.try_into()
}

impl From<Suspect> for v1::Suspect {
    fn from(suspect: Suspect) -> Self {
        use v1::suspect::Kind;
        let number = |party: Party| v1::Party::from(party).into();
        let (kind, holders) = match suspect {
            Suspect::Client => (Kind::Client, Vec::new()),
            Suspect::Matcher => (Kind::Matcher, Vec::new()),
            Suspect::Holder(party) => (Kind::Holder, vec![number(party)]),
            Suspect::Pair(a, b) => (Kind::Pair, vec![number(a), number(b)]),
            Suspect::Twin => (Kind::Twin, Vec::new()),
        };
        Self { kind: kind.into(), holders }
    }
}

impl TryFrom<v1::Suspect> for Suspect {
    type Error = WireError;
    fn try_from(suspect: v1::Suspect) -> Result<Self, WireError> {
        use v1::suspect::Kind;
        match (suspect.kind(), suspect.holders.as_slice()) {
            (Kind::Client, []) => Ok(Self::Client),
            (Kind::Matcher, []) => Ok(Self::Matcher),
            (Kind::Holder, &[holder]) => Ok(Self::Holder(party(holder)?)),
            (Kind::Twin, []) => Ok(Self::Twin),
            (Kind::Pair, &[a, b]) if a != b => Ok(Self::pair(party(a)?, party(b)?)),
            _ => Err(WireError::Unknown { field: "suspects" }),
        }
    }
}

impl From<&Refusal> for v1::Refusal {
    /// Cuts off what is beyond the limits.
    fn from(refusal: &Refusal) -> Self {
        Self {
            code: cut(&refusal.code, MAX_CODE).to_owned(),
            status: refusal.status.into(),
            message: cut(&refusal.message, MAX_MESSAGE).to_owned(),
            suspects: refusal.suspects.iter().take(MAX_SUSPECTS).map(|&suspect| suspect.into()).collect(),
        }
    }
}

impl TryFrom<v1::Refusal> for Refusal {
    type Error = WireError;
    fn try_from(refusal: v1::Refusal) -> Result<Self, WireError> {
        let within = |field, found, limit| match found <= limit {
            true => Ok(()),
            false => Err(WireError::Size { field, found, limit }),
        };
        within("code", refusal.code.len(), MAX_CODE)?;
        within("message", refusal.message.len(), MAX_MESSAGE)?;
        within("suspects", refusal.suspects.len(), MAX_SUSPECTS)?;
        Ok(Self {
            code: refusal.code,
            status: u8::try_from(refusal.status).map_err(|_| WireError::Unknown { field: "status" })?,
            suspects: refusal.suspects.into_iter().map(Suspect::try_from).collect::<Result<_, _>>()?,
            message: refusal.message,
        })
    }
}

/// The longest beginning of at most `limit` bytes that ends between characters.
fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

impl v1::EnrollResult {
    /// The verdict on the item with this sequence.
    #[must_use]
    pub fn new(sequence: u64, verdict: &Verdict) -> Self {
        use v1::enroll_result::Result;
        let result = match verdict {
            Verdict::Accepted => Result::Accepted(v1::Accepted {}),
            Verdict::Refused(refusal) => Result::Refusal(refusal.into()),
        };
        Self { sequence, result: Some(result) }
    }

    /// The verdict; its item is in `sequence`.
    ///
    /// # Errors
    /// [`WireError`] if the message has no verdict, or a malformed refusal.
    pub fn verdict(self) -> Result<Verdict, WireError> {
        use v1::enroll_result::Result;
        match self.result.ok_or(WireError::Missing { field: "result" })? {
            Result::Accepted(v1::Accepted {}) => Ok(Verdict::Accepted),
            Result::Refusal(refusal) => Ok(Verdict::Refused(refusal.try_into()?)),
        }
    }
}

/// A collection as the matcher describes it: metric cosine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionInfo {
    /// Its name.
    pub name: CollectionId,
    /// Dimension of every embedding.
    pub dimension: Dimension,
    /// The encryption that it is searched under.
    pub scheme: SchemeName,
    /// Parameter set of the scheme, for example `glwe-2048-v1`.
    pub parameters: String,
    /// Most templates in one packed group.
    pub group_capacity: u32,
    /// Stored templates, pending ones included.
    pub templates: u64,
    /// Stored templates that are not searchable yet.
    pub pending: u64,
    /// Live packed groups.
    pub groups: u64,
    /// When it was created.
    pub created: Timestamp,
}

impl From<SchemeName> for v1::Scheme {
    fn from(scheme: SchemeName) -> Self {
        match scheme {
            SchemeName::Glwe => Self::Glwe,
            SchemeName::Paillier => Self::Paillier,
        }
    }
}

impl TryFrom<v1::Scheme> for SchemeName {
    type Error = WireError;
    fn try_from(scheme: v1::Scheme) -> Result<Self, WireError> {
        match scheme {
            v1::Scheme::Unspecified => Err(WireError::Unknown { field: "scheme" }),
            v1::Scheme::Glwe => Ok(Self::Glwe),
            v1::Scheme::Paillier => Ok(Self::Paillier),
        }
    }
}

impl From<CollectionInfo> for v1::Collection {
    fn from(info: CollectionInfo) -> Self {
        Self {
            name: info.name.to_string(),
            dimension: info.dimension.get() as u32,
            metric: v1::Metric::Cosine.into(),
            scheme: v1::Scheme::from(info.scheme).into(),
            parameters: info.parameters,
            group_capacity: info.group_capacity,
            templates: info.templates,
            pending: info.pending,
            groups: info.groups,
            created: info.created.0,
        }
    }
}

impl TryFrom<v1::Collection> for CollectionInfo {
    type Error = WireError;
    fn try_from(collection: v1::Collection) -> Result<Self, WireError> {
        if collection.metric() != v1::Metric::Cosine {
            return Err(WireError::Unknown { field: "metric" });
        }
        let scheme = collection.scheme().try_into()?;
        Ok(Self {
            scheme,
            name: CollectionId::new(collection.name)?,
            dimension: Dimension::new(collection.dimension as usize)?,
            parameters: collection.parameters,
            group_capacity: collection.group_capacity,
            templates: collection.templates,
            pending: collection.pending,
            groups: collection.groups,
            created: Timestamp(collection.created),
        })
    }
}

/// How far a stored template has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateState {
    /// Stored, not searchable yet.
    Pending,
    /// Searchable.
    Indexed,
}

/// What is stored for a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateInfo {
    /// The person.
    pub subject: SubjectId,
    /// Which template.
    pub digest: TemplateDigest,
    /// How far it has come.
    pub state: TemplateState,
    /// Size of the sealed template in bytes.
    pub sealed_bytes: u64,
}

impl From<TemplateInfo> for v1::Template {
    fn from(info: TemplateInfo) -> Self {
        let state = match info.state {
            TemplateState::Pending => v1::template::State::Pending,
            TemplateState::Indexed => v1::template::State::Indexed,
        };
        Self {
            subject: info.subject.to_string(),
            digest: bytes::Bytes::copy_from_slice(&info.digest.0),
            state: state.into(),
            sealed_bytes: info.sealed_bytes,
        }
    }
}

impl TryFrom<v1::Template> for TemplateInfo {
    type Error = WireError;
    fn try_from(template: v1::Template) -> Result<Self, WireError> {
        let state = match template.state() {
            v1::template::State::Unspecified => return Err(WireError::Unknown { field: "state" }),
            v1::template::State::Pending => TemplateState::Pending,
            v1::template::State::Indexed => TemplateState::Indexed,
        };
        let digest = <[u8; 32]>::try_from(template.digest.as_ref()).map_err(|_| WireError::Size {
            field: "digest",
            found: template.digest.len(),
            limit: 32,
        })?;
        Ok(Self {
            subject: SubjectId::new(template.subject)?,
            digest: TemplateDigest(digest),
            state,
            sealed_bytes: template.sealed_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn suspects() -> impl Strategy<Value = Vec<Suspect>> {
        let party = || (0usize..3).prop_map(Party::from_index);
        let suspect = prop_oneof![
            Just(Suspect::Client),
            Just(Suspect::Matcher),
            Just(Suspect::Twin),
            party().prop_map(Suspect::Holder),
            party().prop_map(|p| Suspect::pair(p, p.next())),
        ];
        proptest::collection::vec(suspect, 0..=MAX_SUSPECTS)
    }

    fn refusals() -> impl Strategy<Value = Refusal> {
        ("[a-z-]{1,64}", any::<u8>(), suspects(), "\\PC{0,200}").prop_map(|(code, status, suspects, message)| Refusal {
            code,
            status,
            suspects,
            message,
        })
    }

    fn collections() -> impl Strategy<Value = CollectionInfo> {
        ("[A-Za-z0-9._:@-]{1,64}", 16usize..=1024, "[a-z0-9-]{0,20}", any::<(bool, u32, u64, u64, u64, u64)>())
            .prop_map(|(name, dimension, parameters, (glwe, group_capacity, templates, pending, groups, created))| {
                CollectionInfo {
                    name: CollectionId::new(name).unwrap(),
                    dimension: Dimension::new(dimension).unwrap(),
                    scheme: if glwe { SchemeName::Glwe } else { SchemeName::Paillier },
                    parameters,
                    group_capacity,
                    templates,
                    pending,
                    groups,
                    created: Timestamp(created),
                }
            })
    }

    proptest! {
        #[test]
        fn refusals_survive_message_and_status(refusal in refusals()) {
            prop_assert_eq!(&Refusal::try_from(v1::Refusal::from(&refusal)).unwrap(), &refusal);
            prop_assert_eq!(crate::refusal(&crate::status(&refusal)), Some(refusal));
        }

        #[test]
        fn verdicts_survive(refusal in proptest::option::of(refusals()), sequence: u64) {
            let verdict = refusal.map_or(Verdict::Accepted, Verdict::Refused);
            let result = v1::EnrollResult::new(sequence, &verdict);
            prop_assert_eq!(result.sequence, sequence);
            prop_assert_eq!(result.verdict().unwrap(), verdict);
        }

        #[test]
        fn collections_survive(info in collections()) {
            prop_assert_eq!(CollectionInfo::try_from(v1::Collection::from(info.clone())).unwrap(), info);
        }

        #[test]
        fn templates_survive(subject in "[A-Za-z0-9._:@-]{1,64}", digest: [u8; 32], indexed: bool, sealed_bytes: u64) {
            let state = if indexed { TemplateState::Indexed } else { TemplateState::Pending };
            let subject = SubjectId::new(subject).unwrap();
            let info = TemplateInfo { subject, digest: TemplateDigest(digest), state, sealed_bytes };
            prop_assert_eq!(TemplateInfo::try_from(v1::Template::from(info.clone())).unwrap(), info);
        }
    }

    #[test]
    fn a_collection_of_another_kind_is_refused() {
        let good = v1::Collection {
            name: "lfw".into(),
            dimension: 512,
            metric: v1::Metric::Cosine.into(),
            scheme: v1::Scheme::Glwe.into(),
            ..Default::default()
        };
        assert!(CollectionInfo::try_from(good.clone()).is_ok());
        type Damage = fn(&mut v1::Collection);
        let damages: [Damage; 7] = [
            |c| c.metric = 0,
            |c| c.metric = 77,
            |c| c.scheme = 0,
            |c| c.scheme = 3,
            |c| c.dimension = 15,
            |c| c.name.clear(),
            |c| c.name = "a/b".into(),
        ];
        for damage in damages {
            let mut bad = good.clone();
            damage(&mut bad);
            assert!(CollectionInfo::try_from(bad.clone()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn suspects_that_cannot_be_are_refused() {
        use v1::suspect::Kind;
        let pair = |kind: Kind, holders: &[i32]| v1::Suspect { kind: kind.into(), holders: holders.to_vec() };
        for bad in [
            pair(Kind::Unspecified, &[]),
            pair(Kind::Client, &[1]),
            pair(Kind::Holder, &[]),
            pair(Kind::Holder, &[0]),
            pair(Kind::Holder, &[4]),
            pair(Kind::Pair, &[1]),
            pair(Kind::Pair, &[2, 2]),
            pair(Kind::Pair, &[1, 2, 3]),
            v1::Suspect { kind: 9, holders: Vec::new() },
        ] {
            assert!(Suspect::try_from(bad.clone()).is_err(), "{bad:?}");
        }
        assert_eq!(Suspect::try_from(pair(Kind::Pair, &[3, 1])), Ok(Suspect::pair(Party::K0, Party::K2)));
    }

    #[test]
    fn refusals_beyond_the_limits_and_templates_with_a_short_digest_are_refused() {
        let refusal = |code: usize, status, message: usize, suspects| v1::Refusal {
            code: "c".repeat(code),
            status,
            message: "m".repeat(message),
            suspects: vec![v1::Suspect::from(Suspect::Client); suspects],
        };
        assert!(Refusal::try_from(refusal(64, 10, 1024, 8)).is_ok());
        for bad in [refusal(65, 10, 1, 0), refusal(1, 256, 1, 0), refusal(1, 10, 1025, 0), refusal(1, 10, 1, 9)] {
            assert!(Refusal::try_from(bad).is_err());
        }
        let template = v1::Template { subject: "a".into(), digest: vec![1; 31].into(), state: 1, sealed_bytes: 1 };
        assert_eq!(TemplateInfo::try_from(template), Err(WireError::Size { field: "digest", found: 31, limit: 32 }));
        assert!(v1::EnrollResult { sequence: 1, result: None }.verdict().is_err());
    }

    #[test]
    fn pages_are_bounded() {
        assert_eq!((page_size(0), page_size(1), page_size(1000)), (Ok(100), Ok(1), Ok(1000)));
        assert!(page_size(1001).is_err());
    }
}
