//! Who somebody is: the one name under `.veilmatch` in a certificate.
//!
//! | who | subject alternative name (DNS) |
//! |---|---|
//! | key holder 0 | `k0.holder.veilmatch` |
//! | the matcher | `matcher.veilmatch` |
//! | the matcher's twin | `twin.veilmatch` |
//! | client `desk-1` | `chin6qpd64.client.veilmatch` |
//! | operator `anna` | `anna.operator.veilmatch` |
//!
//! A client id may contain characters and upper case that DNS names may not. It is written in base32hex (RFC 4648 section
//! 7) in lower case without padding, cut into labels of 63 characters: every id has one spelling, and no two share one.

use std::fmt;
use std::str::FromStr;

use veilmatch_domain::{ClientId, Explain, IdentifierError, Party, Status};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

const ROOT: &str = ".veilmatch";
const LABEL: usize = 63;
const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// Who a certificate says somebody is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// A key holder.
    Holder(Party),
    /// The matcher.
    Matcher,
    /// The matcher's twin, the second evaluator of the scheme `paillier`.
    Twin,
    /// A capture device or relying party.
    Client(ClientId),
    /// A person who runs a service.
    Operator(OperatorName),
}

/// An operator's name: one DNS label, 1 to 63 characters from `a-z 0-9 -`, no hyphen at either end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperatorName(String);

impl OperatorName {
    /// Checks length and alphabet.
    ///
    /// # Errors
    /// [`NameError::Operator`].
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        let alphabet = text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
        let hyphens = text.starts_with('-') || text.ends_with('-');
        if alphabet && !hyphens && (1..=LABEL).contains(&text.len()) {
            Ok(Self(text))
        } else {
            Err(NameError::Operator)
        }
    }

    /// The checked text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a certificate or a text names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Not an X.509 certificate, or one whose alternative names cannot be read.
    #[error("the certificate cannot be read")]
    Certificate,
    /// No name under `.veilmatch`.
    #[error("the certificate has no name under .veilmatch")]
    Nameless,
    /// More than one name under `.veilmatch`.
    #[error("the certificate has {found} names under .veilmatch")]
    Several {
        /// How many.
        found: usize,
    },
    /// A name under `.veilmatch` that is nobody's, or not in its one spelling.
    #[error("the name is not one of this system")]
    Unknown,
    /// An operator's name outside its alphabet.
    #[error("the operator's name is not 1 to 63 characters from a-z 0-9 -")]
    Operator,
    /// A client's name that does not decode to a client id.
    #[error(transparent)]
    Client(#[from] IdentifierError),
}

impl Explain for NameError {
    fn code(&self) -> &'static str {
        "bad-name"
    }

    fn status(&self) -> Status {
        match self {
            Self::Operator => Status::InvalidArgument,
            _ => Status::PermissionDenied,
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Operator => "choose a short name in lower case, for example anna",
            _ => {
                "use a certificate that the deployment's authority issued for exactly one holder, matcher, twin, client or operator"
            }
        }
    }
}

impl Name {
    /// The DNS name that stands in the certificate.
    #[must_use]
    pub fn dns(&self) -> String {
        match self {
            Self::Holder(party) => format!("k{}.holder{ROOT}", party.index()),
            Self::Matcher => format!("matcher{ROOT}"),
            Self::Twin => format!("twin{ROOT}"),
            Self::Client(client) => format!("{}.client{ROOT}", to_labels(client.as_str().as_bytes())),
            Self::Operator(name) => format!("{}.operator{ROOT}", name.as_str()),
        }
    }

    /// The name in a certificate. Whether the certificate is genuine and current is the TLS layer's to check.
    ///
    /// # Errors
    /// [`NameError`] unless the certificate has exactly one name under `.veilmatch` and that is somebody's. Names outside
    /// `.veilmatch` (a server's host names) are not looked at.
    pub fn of_certificate(der: &[u8]) -> Result<Self, NameError> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| NameError::Certificate)?;
        if !rest.is_empty() {
            return Err(NameError::Certificate);
        }
        let alternative = certificate.subject_alternative_name().map_err(|_| NameError::Certificate)?;
        let general = alternative.map_or(&[][..], |extension| &extension.value.general_names);
        let ours: Vec<&str> = general
            .iter()
            .filter_map(|name| match name {
                GeneralName::DNSName(name) if is_ours(name) => Some(*name),
                _ => None,
            })
            .collect();
        match ours.as_slice() {
            [] => Err(NameError::Nameless),
            [name] => name.parse(),
            several => Err(NameError::Several { found: several.len() }),
        }
    }
}

/// Whether a DNS name is under `.veilmatch`, in whatever spelling a verifier may take for it.
pub(crate) fn is_ours(dns: &str) -> bool {
    let dns = dns.trim_end_matches('.').to_ascii_lowercase();
    dns.ends_with(ROOT) || Some(dns.as_str()) == ROOT.get(1..)
}

impl FromStr for Name {
    type Err = NameError;

    /// Reads the DNS name of [`Name::dns`].
    fn from_str(dns: &str) -> Result<Self, NameError> {
        let inner = dns.strip_suffix(ROOT).ok_or(NameError::Unknown)?;
        let name = match inner.rsplit_once('.') {
            None if inner == "matcher" => Self::Matcher,
            None if inner == "twin" => Self::Twin,
            Some((labels, "client")) => {
                let bytes = from_labels(labels).ok_or(NameError::Unknown)?;
                Self::Client(ClientId::new(String::from_utf8(bytes).map_err(|_| NameError::Unknown)?)?)
            }
            Some((name, "operator")) => Self::Operator(OperatorName::new(name)?),
            Some(("k0", "holder")) => Self::Holder(Party::K0),
            Some(("k1", "holder")) => Self::Holder(Party::K1),
            Some(("k2", "holder")) => Self::Holder(Party::K2),
            _ => return Err(NameError::Unknown),
        };
        // One spelling per name: labels cut elsewhere, or bits left over, are nobody.
        if name.dns() == dns { Ok(name) } else { Err(NameError::Unknown) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holder(party) => write!(f, "key holder {party}"),
            Self::Matcher => f.write_str("the matcher"),
            Self::Twin => f.write_str("the matcher's twin"),
            Self::Client(client) => write!(f, "client {client}"),
            Self::Operator(name) => write!(f, "operator {}", name.as_str()),
        }
    }
}

fn to_labels(bytes: &[u8]) -> String {
    let mut text = String::new();
    let (mut bits, mut held, mut digits) = (0u32, 0u32, 0usize);
    let mut put = |value: u32| {
        if digits > 0 && digits.is_multiple_of(LABEL) {
            text.push('.');
        }
        digits += 1;
        text.extend(ALPHABET.get((value & 31) as usize).map(|&c| char::from(c)));
    };
    for &byte in bytes {
        bits = (bits << 8 | u32::from(byte)) & 0xfff;
        held += 8;
        while held >= 5 {
            held -= 5;
            put(bits >> held);
        }
    }
    if held > 0 {
        put(bits << (5 - held));
    }
    text
}

fn from_labels(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0u32, 0u32);
    for character in text.bytes().filter(|&c| c != b'.') {
        let value = ALPHABET.iter().position(|&c| c == character)? as u32;
        bits = (bits << 5 | value) & 0xfff;
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};

    fn client(text: &str) -> Name {
        Name::Client(ClientId::new(text).unwrap())
    }

    fn certificate(names: &[&str]) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        CertificateParams::new(names).unwrap().self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn names_have_the_spellings_of_the_table() {
        assert_eq!(Name::Holder(Party::K2).dns(), "k2.holder.veilmatch");
        assert_eq!(Name::Matcher.dns(), "matcher.veilmatch");
        assert_eq!(Name::Twin.dns(), "twin.veilmatch");
        assert_eq!("twin.veilmatch".parse(), Ok(Name::Twin));
        // RFC 4648 section 10: BASE32-HEX("fooba") = "CPNMUOJ1".
        assert_eq!(client("fooba").dns(), "cpnmuoj1.client.veilmatch");
        assert_eq!(client("foob").dns(), "cpnmuog.client.veilmatch");
        assert_eq!(client("desk-1").dns(), "chin6qpd64.client.veilmatch");
        let anna = Name::Operator(OperatorName::new("anna").unwrap());
        assert_eq!(anna.dns(), "anna.operator.veilmatch");
    }

    #[test]
    fn second_spellings_and_strangers_are_nobody() {
        for bad in [
            "",
            "veilmatch",
            ".veilmatch",
            "k3.holder.veilmatch",
            "K0.holder.veilmatch",
            "k0.holder.veilmatch.",
            "k0.holder.example",
            "x.k0.holder.veilmatch",
            "*.client.veilmatch",
            ".client.veilmatch",
            "client.veilmatch",
            "CPNMUOJ1.client.veilmatch",
            "cpnm.uoj1.client.veilmatch",
            "cpnmuoj1..client.veilmatch",
            // "foob" with a bit set in the padding, and a digit too many
            "cpnmuoh.client.veilmatch",
            "cpnmuoj10.client.veilmatch",
            // "a/b" and bytes that are not UTF-8
            "c4nm4.client.veilmatch",
            "vs.client.veilmatch",
            "Anna.operator.veilmatch",
            "-a.operator.veilmatch",
            "a.b.operator.veilmatch",
            "other.matcher.veilmatch",
            "other.twin.veilmatch",
            "Twin.veilmatch",
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_certificate_names_exactly_one() {
        let read = |names: &[&str]| Name::of_certificate(&certificate(names));
        assert_eq!(read(&["k1.holder.veilmatch", "k1.example.org", "10.0.0.7"]), Ok(Name::Holder(Party::K1)));
        assert_eq!(read(&["k1.example.org"]), Err(NameError::Nameless));
        assert_eq!(read(&[]), Err(NameError::Nameless));
        for second in ["matcher.veilmatch", "MATCHER.Veilmatch", "*.client.veilmatch", "evil.veilmatch"] {
            assert_eq!(read(&["k1.holder.veilmatch", second]), Err(NameError::Several { found: 2 }), "{second}");
        }
        assert_eq!(read(&["K1.Holder.veilmatch"]), Err(NameError::Unknown));
        let mut trailing = certificate(&["matcher.veilmatch"]);
        trailing.push(0);
        assert_eq!(Name::of_certificate(&trailing), Err(NameError::Certificate));
    }

    proptest! {
        #[test]
        fn client_names_survive_and_are_dns_names(text in "[A-Za-z0-9._:@-]{1,64}") {
            let name = client(&text);
            let dns = name.dns();
            prop_assert!(dns.len() <= 253);
            prop_assert!(dns.split('.').all(|label| (1..=63).contains(&label.len())));
            prop_assert!(dns.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'.'));
            prop_assert_eq!(dns.parse::<Name>(), Ok(name));
        }

        #[test]
        fn whatever_parses_is_in_its_one_spelling(dns in "[a-z0-9.-]{0,30}(\\.client|\\.operator|)\\.veilmatch") {
            if let Ok(name) = dns.parse::<Name>() {
                prop_assert_eq!(name.dns(), dns);
            }
        }

        #[test]
        fn random_certificates_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Name::of_certificate(&bytes).is_err());
        }
    }

    #[test]
    fn the_longest_client_id_fits() {
        let name = client(&"Z".repeat(64));
        assert_eq!(Name::of_certificate(&certificate(&[&name.dns()])), Ok(name));
    }
}
