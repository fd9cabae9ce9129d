//! Rules of configuration files: TOML, where a key that nobody knows is an error and every problem is one line that
//! names its key.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use veilmatch_domain::{Explain, Status};
use veilmatch_sealed::ClientVerifyingKey;
use veilmatch_transport::{FileError, read_public};

const LIMIT: usize = 1 << 20;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not TOML, an unknown or missing key, or a value of the wrong kind.
    #[error("line {line}: {}{message}", key.as_ref().map(|key| format!("`{key}`: ")).unwrap_or_default())]
    Syntax {
        /// From 1.
        line: usize,
        /// The key on that line, if there is one.
        key: Option<String>,
        /// What the parser says.
        message: String,
    },
    /// Values that do not go together or are out of range; one line each.
    #[error("{}", lines(problems))]
    Invalid {
        /// All of them.
        problems: Vec<Problem>,
    },
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// A value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}`: {fault}")]
pub struct Problem {
    /// The key, with its table.
    pub key: String,
    /// What is wrong with its value.
    pub fault: Fault,
}

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It has to be there.
    #[error("is missing")]
    Missing,
    /// Without TLS, everybody on the network could read and change what is said.
    #[error("plaintext is allowed on loopback addresses alone")]
    PlaintextBeyondLoopback,
    /// Both ways of transport.
    #[error("is given together with `plaintext = true`")]
    TlsAndPlaintext,
    /// Not an address of a party.
    #[error("must be `{scheme}://host:port` and nothing after it")]
    Address {
        /// `https`, or `http` with plaintext.
        scheme: &'static str,
    },
    /// A holder is not its own peer.
    #[error("names this holder itself")]
    OwnParty,
    /// Not a base64 Ed25519 public key.
    #[error("is not the base64 of an Ed25519 public key")]
    PublicKey,
    /// The same value twice.
    #[error("is given twice")]
    Repeated,
    /// Outside of what makes sense.
    #[error("must be {least} to {most}")]
    Range {
        /// Smallest allowed value.
        least: &'static str,
        /// Largest allowed value.
        most: &'static str,
    },
}

impl Explain for ConfigError {
    fn code(&self) -> &'static str {
        match self {
            Self::File(e) => e.code(),
            Self::Syntax { .. } => "config-syntax",
            Self::Invalid { .. } => "config-invalid",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::File(e) => e.status(),
            Self::Syntax { .. } | Self::Invalid { .. } => Status::FailedPrecondition,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::File(e) => e.advice(),
            Self::Syntax { .. } | Self::Invalid { .. } => {
                "correct the named keys; the samples folder shows all of them"
            }
        }
    }
}

/// How a service talks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TLS with certificates on both sides.
    Tls(Tls),
    /// None at all; loopback alone.
    Plaintext,
}

/// Files of a TLS identity, in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The party's certificate chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who may certify the others.
    pub ca: PathBuf,
}

impl Tls {
    /// The same files, with relative paths taken from a folder.
    #[must_use]
    pub fn within(&self, folder: &Path) -> Self {
        Self { certificate: folder.join(&self.certificate), key: folder.join(&self.key), ca: folder.join(&self.ca) }
    }
}

/// Reads the text of a configuration file of at most 1 MiB.
///
/// # Errors
/// [`ConfigError::File`], or [`ConfigError::Syntax`] if it is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, ConfigError> {
    String::from_utf8(read_public(path, LIMIT)?).map_err(|e| {
        let valid = e.utf8_error().valid_up_to();
        let line = e.as_bytes().iter().take(valid).filter(|&&byte| byte == b'\n').count() + 1;
        ConfigError::Syntax { line, key: None, message: "not UTF-8".to_owned() }
    })
}

/// Parses a text.
///
/// # Errors
/// [`ConfigError::Syntax`]: the parser's complaint in one line, with the key of the line that it points at.
pub fn parse_toml<T: DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let begin = error.span().map_or(0, |span| span.start);
        let before = text.get(..begin).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let key =
            text.lines().nth(line - 1).and_then(|line| line.split_once('=')).map(|(key, _)| key.trim().to_owned());
        let key = key.filter(|key| !key.is_empty() && !key.starts_with('#'));
        ConfigError::Syntax { line, key, message: error.message().replace('\n', "; ") }
    })
}

/// Problems found so far.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Notes one.
    pub fn push(&mut self, key: &str, fault: Fault) {
        self.0.push(Problem { key: key.to_owned(), fault });
    }

    /// Notes that a key is missing.
    pub fn missing<T>(&mut self, key: &str) -> Option<T> {
        self.push(key, Fault::Missing);
        None
    }

    /// Notes a value outside its range, given by its ends and how they read.
    pub fn check_range<T: PartialOrd>(
        &mut self,
        key: &str,
        value: &T,
        ends: (T, T),
        read: (&'static str, &'static str),
    ) {
        if *value < ends.0 || *value > ends.1 {
            self.push(key, Fault::Range { least: read.0, most: read.1 });
        }
    }

    /// How the service talks: a `[tls]` table, or `plaintext = true` and a loopback address to listen on.
    pub fn transport(&mut self, tls: Option<&Tls>, plaintext: bool, listen: SocketAddr) -> Option<Transport> {
        match (tls, plaintext) {
            (Some(tls), false) => Some(Transport::Tls(tls.clone())),
            (Some(_), true) => {
                self.push("tls", Fault::TlsAndPlaintext);
                None
            }
            (None, false) => self.missing("tls"),
            (None, true) if listen.ip().is_loopback() => Some(Transport::Plaintext),
            (None, true) => {
                self.push("listen", Fault::PlaintextBeyondLoopback);
                None
            }
        }
    }

    /// Who may administer: Ed25519 public keys in base64, each once.
    pub fn administrators(&mut self, texts: &[String]) -> Vec<ClientVerifyingKey> {
        let mut keys = Vec::new();
        for (i, text) in texts.iter().enumerate() {
            let name = format!("administrators[{i}]");
            let bytes = STANDARD.decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            match bytes.and_then(|bytes| ClientVerifyingKey::from_bytes(&bytes).ok()) {
                None => self.push(&name, Fault::PublicKey),
                Some(key) if keys.contains(&key) => self.push(&name, Fault::Repeated),
                Some(key) => keys.push(key),
            }
        }
        keys
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them as one error.
    #[must_use]
    pub fn into_error(self) -> ConfigError {
        ConfigError::Invalid { problems: self.0 }
    }
}
