//! The profile: where a deployment is reached and with which keys. `samples/veilmatch.toml` explains every key.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use veilmatch_domain::{ClientId, Explain, IdentifierError, Party, Status, Threshold, ThresholdError};
use veilmatch_sdk::{CardError, HolderCard, KeyFileError, Options, SigningKeyFile};
use veilmatch_service::{ConfigError, Tls, parse_toml, read_text};
use veilmatch_transport::{Endpoint, EndpointError, Identity, IdentityError, Name, OperatorName, Security};

use crate::exit::CliError;
use crate::operator::Operator;

/// The environment variable that names the profile.
pub const VARIABLE: &str = "VEILMATCH_PROFILE";
const HERE: &str = "veilmatch.toml";
const AT_HOME: &str = ".config/veilmatch/client.toml";
/// The operator's name where no certificate says one.
const PLAINTEXT_OPERATOR: &str = "local";

/// One value per key holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Three<T> {
    /// Of K0.
    pub k0: T,
    /// Of K1.
    pub k1: T,
    /// Of K2.
    pub k2: T,
}

impl<T> Three<T> {
    /// The value of one holder.
    pub fn of(&self, party: Party) -> &T {
        match party {
            Party::K0 => &self.k0,
            Party::K1 => &self.k1,
            Party::K2 => &self.k2,
        }
    }
}

/// The content of a profile file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Where the matcher is reached.
    pub matcher: String,
    /// The client's id.
    pub client: String,
    /// The client's signing key file.
    pub signing_key: PathBuf,
    /// The default of `--collection`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// The default of `--threshold`: a cosine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// The administrator's signing key file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub administrator_key: Option<PathBuf>,
    /// No TLS, on loopback alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plaintext: bool,
    /// The client's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// The operator's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_tls: Option<Tls>,
    /// Where the key holders are reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holders: Option<Three<String>>,
    /// The key holders' cards.
    pub cards: Three<PathBuf>,
}

/// Why a profile, or a file that it names, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// There is no profile.
    #[error("there is no profile at {}", list(tried))]
    NotFound {
        /// Where it was looked for.
        tried: Vec<PathBuf>,
    },
    /// The file's syntax.
    #[error("{}: {source}", path.display())]
    Config {
        /// The profile.
        path: PathBuf,
        /// What is wrong.
        source: ConfigError,
    },
    /// A key that this command needs is not there.
    #[error("{}: `{key}` is missing, and this command needs it", path.display())]
    Missing {
        /// The profile.
        path: PathBuf,
        /// The key.
        key: &'static str,
    },
    /// `plaintext = true` together with certificates.
    #[error("{}: `plaintext = true` is given together with `{key}`", path.display())]
    TlsAndPlaintext {
        /// The profile.
        path: PathBuf,
        /// The table.
        key: &'static str,
    },
    /// An address.
    #[error("{}: `{key}`: {source}", path.display())]
    Endpoint {
        /// The profile.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong.
        source: EndpointError,
    },
    /// An id.
    #[error("{}: `{key}`: {source}", path.display())]
    Identifier {
        /// The profile.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong.
        source: IdentifierError,
    },
    /// The threshold.
    #[error("{}: `threshold`: {source}", path.display())]
    Threshold {
        /// The profile.
        path: PathBuf,
        /// What is wrong.
        source: ThresholdError,
    },
    /// A certificate or its key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A signing key.
    #[error("{}: {source}", path.display())]
    SigningKey {
        /// The key file.
        path: PathBuf,
        /// What is wrong.
        source: KeyFileError,
    },
    /// A holder's card.
    #[error("{}: {source}", path.display())]
    Card {
        /// The card, or the profile.
        path: PathBuf,
        /// What is wrong.
        source: CardError,
    },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
}

impl Explain for ProfileError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "no-profile",
            Self::Config { source, .. } => source.code(),
            Self::Missing { .. } => "profile-incomplete",
            Self::TlsAndPlaintext { .. } => "config-invalid",
            Self::Endpoint { source, .. } => source.code(),
            Self::Identifier { source, .. } => source.code(),
            Self::Threshold { source, .. } => source.code(),
            Self::Identity(source) => source.code(),
            Self::SigningKey { source, .. } => source.code(),
            Self::Card { source, .. } => source.code(),
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::NotFound { .. } => Status::NotFound,
            _ => Status::FailedPrecondition,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => {
                "name one with --profile or VEILMATCH_PROFILE; `veilmatch up` makes one for a local deployment"
            }
            Self::Config { source, .. } => source.advice(),
            Self::Missing { .. } => {
                "add it to the profile (samples/veilmatch.toml shows all keys), or give it as an option"
            }
            Self::TlsAndPlaintext { .. } => "leave one of them out",
            Self::Endpoint { source, .. } => source.advice(),
            Self::Identifier { source, .. } => source.advice(),
            Self::Threshold { source, .. } => source.advice(),
            Self::Identity(source) => source.advice(),
            Self::SigningKey { source, .. } => source.advice(),
            Self::Card { source, .. } => source.advice(),
        }
    }
}

impl Profile {
    /// The profile as TOML.
    ///
    /// # Errors
    /// toml's, for paths that are not UTF-8.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

/// A profile that was read, and where from.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileFile {
    path: PathBuf,
    profile: Profile,
}

impl ProfileFile {
    /// Finds and reads the profile: the one that is named, else the one that the environment names, else the usual places.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub fn find(named: Option<&Path>) -> Result<Self, ProfileError> {
        let named = named.map(Path::to_owned).or_else(|| std::env::var_os(VARIABLE).map(PathBuf::from));
        if let Some(path) = named {
            return Self::load(&path);
        }
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(AT_HOME));
        let places: Vec<PathBuf> = [Some(PathBuf::from(HERE)), home].into_iter().flatten().collect();
        match places.iter().find(|path| path.exists()) {
            Some(path) => Self::load(path),
            None => Err(ProfileError::NotFound { tried: places }),
        }
    }

    /// Reads a profile.
    ///
    /// # Errors
    /// [`ProfileError::Config`].
    pub fn load(path: &Path) -> Result<Self, ProfileError> {
        let failed = |source| ProfileError::Config { path: path.to_owned(), source };
        let text = read_text(path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), profile: parse_toml(&text).map_err(failed)? })
    }

    /// What stands in it.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    fn at(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    fn missing(&self, key: &'static str) -> ProfileError {
        ProfileError::Missing { path: self.path.clone(), key }
    }

    fn endpoint(&self, key: &'static str, text: &str) -> Result<Endpoint, ProfileError> {
        Endpoint::parse(text, self.profile.plaintext).map_err(|source| ProfileError::Endpoint {
            path: self.path.clone(),
            key,
            source,
        })
    }

    /// Where the matcher is reached.
    ///
    /// # Errors
    /// [`ProfileError::Endpoint`].
    pub fn matcher(&self) -> Result<Endpoint, ProfileError> {
        self.endpoint("matcher", &self.profile.matcher)
    }

    /// The client's id.
    ///
    /// # Errors
    /// [`ProfileError::Identifier`].
    pub fn client(&self) -> Result<ClientId, ProfileError> {
        ClientId::new(self.profile.client.as_str()).map_err(|source| ProfileError::Identifier {
            path: self.path.clone(),
            key: "client",
            source,
        })
    }

    /// The collection that is asked for, or the profile's.
    ///
    /// # Errors
    /// [`ProfileError::Missing`] if there is neither.
    pub fn collection(&self, asked: Option<&str>) -> Result<String, ProfileError> {
        asked.or(self.profile.collection.as_deref()).map(str::to_owned).ok_or_else(|| self.missing("collection"))
    }

    /// The threshold that is asked for, or the profile's, or 0.427: one false match in 10,000 on LFW.
    ///
    /// # Errors
    /// [`ProfileError::Threshold`].
    pub fn threshold(&self, asked: Option<Threshold>) -> Result<Threshold, ProfileError> {
        self.threshold_or(asked, None)
    }

    /// The threshold that is asked for, else the profile's, else `usual`, else 0.427.
    ///
    /// # Errors
    /// [`ProfileError::Threshold`].
    pub fn threshold_or(&self, asked: Option<Threshold>, usual: Option<Threshold>) -> Result<Threshold, ProfileError> {
        let own = || match (self.profile.threshold, usual) {
            (None, Some(usual)) => Ok(usual),
            (own, _) => Threshold::new(own.unwrap_or(0.427)),
        };
        asked.map_or_else(own, Ok).map_err(|source| ProfileError::Threshold { path: self.path.clone(), source })
    }

    fn security(&self, key: &'static str, tls: Option<&Tls>, name: Name) -> Result<Security, ProfileError> {
        match (tls, self.profile.plaintext) {
            (Some(_), true) => Err(ProfileError::TlsAndPlaintext { path: self.path.clone(), key }),
            (None, true) => Ok(Security::Plaintext(name)),
            (None, false) => Err(self.missing(key)),
            (Some(tls), false) => {
                Ok(Security::Tls(Identity::load(&self.at(&tls.certificate), &self.at(&tls.key), &self.at(&tls.ca))?))
            }
        }
    }

    fn key(&self, path: &Path) -> Result<SigningKeyFile, ProfileError> {
        let path = self.at(path);
        SigningKeyFile::load(&path).map_err(|source| ProfileError::SigningKey { path, source })
    }

    /// A holder's card.
    ///
    /// # Errors
    /// [`ProfileError::Card`].
    pub fn card(&self, party: Party) -> Result<HolderCard, ProfileError> {
        let path = self.at(self.profile.cards.of(party));
        match HolderCard::load(&path) {
            Ok(card) if card.party == party => Ok(card),
            Ok(card) => {
                let source = CardError::Party { path: path.clone(), found: card.party, expected: party };
                Err(ProfileError::Card { path, source })
            }
            Err(source) => Err(ProfileError::Card { path, source }),
        }
    }

    /// What a client connects with.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub fn options(&self) -> Result<Options, ProfileError> {
        let client = self.client()?;
        let security = self.security("tls", self.profile.tls.as_ref(), Name::Client(client.clone()))?;
        let holders =
            [self.card(Party::K0)?.encryption, self.card(Party::K1)?.encryption, self.card(Party::K2)?.encryption];
        let key = self.key(&self.profile.signing_key)?;
        Ok(Options::new(self.matcher()?, security, holders, client, key.into_key()))
    }

    /// An administrator's connections. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`CliError`].
    pub fn operator(&self) -> Result<Operator, CliError> {
        let key = self.profile.administrator_key.as_ref().ok_or_else(|| self.missing("administrator_key"))?;
        let holders = self.profile.holders.as_ref().ok_or_else(|| self.missing("holders"))?;
        let name = Name::Operator(OperatorName::new(PLAINTEXT_OPERATOR).map_err(CliError::protocol)?);
        let security = self.security("operator_tls", self.profile.operator_tls.as_ref(), name)?;
        let holders = [
            self.endpoint("holders.k0", &holders.k0)?,
            self.endpoint("holders.k1", &holders.k1)?,
            self.endpoint("holders.k2", &holders.k2)?,
        ];
        Operator::new(&holders, &self.matcher()?, &security, self.key(key)?.into_key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    const SAMPLE: &str = include_str!("../samples/veilmatch.toml");

    fn written(text: &str) -> (TempDir, Result<ProfileFile, ProfileError>) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("veilmatch.toml");
        fs::write(&path, text).unwrap();
        let read = ProfileFile::find(Some(&path));
        (folder, read)
    }

    #[test]
    fn the_sample_shows_every_key_and_survives_being_written() {
        let (folder, file) = written(SAMPLE);
        let file = file.unwrap();
        let profile = file.profile();
        assert!(profile.collection.is_some() && profile.threshold.is_some() && profile.administrator_key.is_some());
        assert!(profile.tls.is_some() && profile.operator_tls.is_some() && profile.holders.is_some());
        assert!(SAMPLE.contains("# plaintext = true"));
        let again: Profile = parse_toml(&profile.to_toml().unwrap()).unwrap();
        assert_eq!(&again, profile);
        assert_eq!(file.at(Path::new("k0.card")), folder.path().join("k0.card"));
        assert_eq!(file.at(Path::new("/etc/k0.card")), Path::new("/etc/k0.card"));
        assert_eq!(file.collection(None).unwrap(), "staff");
        assert_eq!(file.collection(Some("lfw")).unwrap(), "lfw");
        assert!((file.threshold(None).unwrap().cosine() - 0.427).abs() < 1e-9);
    }

    #[test]
    fn the_profile_that_is_deployed_can_be_used() {
        let deployed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/compose/config/veilmatch.toml");
        let file = ProfileFile::load(&deployed).unwrap();
        assert_eq!(file.client().unwrap().as_str(), "evaluation");
        assert_eq!(file.matcher().unwrap().to_string(), "https://matcher:7440");
        let profile = file.profile();
        assert!(profile.administrator_key.is_some() && profile.operator_tls.is_some() && profile.holders.is_some());
    }

    #[test]
    fn bad_profiles_are_named_by_file_and_key() {
        let broken = |from: &str, to: &str| {
            assert!(SAMPLE.contains(from), "{from}");
            let (_folder, file) = written(&SAMPLE.replacen(from, to, 1));
            let error = match file {
                Ok(file) => file.threshold(None).err().or_else(|| file.options().err()).unwrap(),
                Err(error) => error,
            };
            (error.code(), error.to_string())
        };
        for (from, to, code, part) in [
            ("client =", "cleint =", "config-syntax", "cleint"),
            ("[tls]", "[tls]\ncolour = 1", "config-syntax", "colour"),
            ("threshold = 0.427", "threshold = 0.95", "threshold-out-of-range", "`threshold`"),
            ("client = \"gate-7\"", "client = \"gate 7\"", "bad-identifier", "`client`"),
            ("# plaintext = true", "plaintext = true", "config-invalid", "`tls`"),
            ("signing_key", "#", "config-syntax", "signing_key"),
        ] {
            let (found, text) = broken(from, to);
            assert!(found == code && text.contains(part) && text.contains("veilmatch.toml"), "{found}: {text}");
        }
        // Without certificate and card files, the first that is needed is named.
        let (_folder, file) = written(SAMPLE);
        assert!(file.unwrap().options().unwrap_err().to_string().contains("gate-7.pem"));
        let (_folder, file) = written(&SAMPLE.replacen("matcher = \"https", "matcher = \"http", 1));
        assert_eq!(file.unwrap().matcher().unwrap_err().code(), "plaintext-endpoint");
        assert!(matches!(ProfileFile::find(Some(Path::new("/nowhere/x.toml"))), Err(ProfileError::Config { .. })));
    }

    #[tokio::test]
    async fn the_profile_of_a_local_deployment_serves_client_and_operator() {
        let folder = TempDir::new().unwrap();
        let deployment =
            crate::local::Deployment::create(&folder.path().join("local"), crate::local::Ports::free().unwrap())
                .unwrap();
        let file = ProfileFile::load(&deployment.profile()).unwrap();
        assert_eq!(file.options().unwrap().client.as_str(), "local");
        file.operator().unwrap();
    }
}
