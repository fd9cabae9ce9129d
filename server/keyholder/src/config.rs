//! The holder's configuration file: TOML, where a key that nobody knows is an error and every problem is one line that
//! names its key.
//!
//! Paths are relative to the folder of the file. `samples/keyholder.toml` shows every key.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytesize::ByteSize;
use serde::Deserialize;
use veilmatch_domain::{Explain, Party, Status};
use veilmatch_sealed::ClientVerifyingKey;

use crate::fs::{self, FileError};

#[cfg(test)]
mod tests;

const LIMIT: u64 = 1 << 20;

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
    /// Without TLS, everybody on the network could read and change what holders say.
    #[error("plaintext is allowed on loopback addresses alone")]
    PlaintextBeyondLoopback,
    /// Both ways of transport.
    #[error("is given together with `plaintext = true`")]
    TlsAndPlaintext,
    /// Not an address of a peer.
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
                "correct the named keys; server/keyholder/samples/keyholder.toml shows all of them"
            }
        }
    }
}

/// How the holder talks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TLS with certificates on both sides.
    Tls(Tls),
    /// None at all; loopback alone.
    Plaintext,
}

/// Files of the TLS identity, in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// This holder's certificate chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who may certify peers, matcher and administrators.
    pub ca: PathBuf,
}

/// How long sessions may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Deadlines {
    /// A query.
    #[serde(with = "humantime_serde")]
    pub query: Duration,
    /// An admission of templates.
    #[serde(with = "humantime_serde")]
    pub admission: Duration,
    /// The build of a group.
    #[serde(with = "humantime_serde")]
    pub build: Duration,
    /// What is open when the holder is asked to end.
    #[serde(with = "humantime_serde")]
    pub shutdown: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            query: Duration::from_secs(10),
            admission: Duration::from_secs(60),
            build: Duration::from_secs(600),
            shutdown: Duration::from_secs(10),
        }
    }
}

/// What the holder takes on at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of one message.
    pub max_message: ByteSize,
    /// Sessions that are open at a time.
    pub max_sessions: u32,
    /// Messages that wait; the next one is refused.
    pub queue: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_message: ByteSize::mib(64), max_sessions: 256, queue: 1024 }
    }
}

/// Threads that compute, apart from those that wait for the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Threads {
    /// For queries; 0 means one per processor.
    pub query: usize,
    /// For admissions and builds; 0 means one per processor.
    pub bulk: usize,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For machines.
    #[default]
    Json,
    /// For people.
    Text,
}

/// What is worth a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something is odd.
    Warn,
    /// What happens.
    #[default]
    Info,
    /// How it happens.
    Debug,
    /// Every step.
    Trace,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

/// Logging.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// What is worth one.
    pub level: LogLevel,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    party: PartyName,
    listen: SocketAddr,
    data: PathBuf,
    #[serde(default)]
    plaintext: bool,
    tls: Option<Tls>,
    keys: KeyPaths,
    #[serde(default)]
    peers: BTreeMap<PartyName, String>,
    #[serde(default)]
    cards: BTreeMap<PartyName, PathBuf>,
    #[serde(default)]
    administrators: Vec<String>,
    #[serde(default)]
    deadlines: Deadlines,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    threads: Threads,
    metrics: Option<Metrics>,
    #[serde(default)]
    log: Log,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PartyName {
    K0,
    K1,
    K2,
}

impl PartyName {
    fn of(party: Party) -> Self {
        match party {
            Party::K0 => Self::K0,
            Party::K1 => Self::K1,
            Party::K2 => Self::K2,
        }
    }

    fn party(self) -> Party {
        Party::from_index(self as usize)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyPaths {
    file: PathBuf,
    unlock: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metrics {
    listen: SocketAddr,
}

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which holder this is.
    pub party: Party,
    /// Where it listens.
    pub listen: SocketAddr,
    /// The folder of its memory and its audit log.
    pub data: PathBuf,
    /// Its key file, see [`HolderKeys`](crate::keyfile::HolderKeys).
    pub key_file: PathBuf,
    /// The file that unlocks the key file, if the environment does not say, see
    /// [`Unlock::from_environment`](crate::keyfile::Unlock::from_environment).
    pub unlock: Option<PathBuf>,
    /// TLS or nothing.
    pub transport: Transport,
    /// URLs of the two other holders.
    pub peers: [(Party, String); 2],
    /// Files with the cards of K0, K1 and K2, this holder's own among them.
    pub cards: [PathBuf; 3],
    /// Who may register clients and change policies.
    pub administrators: Vec<ClientVerifyingKey>,
    /// How long sessions may take.
    pub deadlines: Deadlines,
    /// What the holder takes on at most.
    pub limits: Limits,
    /// Threads that compute.
    pub threads: Threads,
    /// Where metrics can be read, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// Logging.
    pub log: Log,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let bytes = fs::read_public(path, LIMIT)?;
        let text = std::str::from_utf8(&bytes).map_err(|e| {
            let line = bytes.iter().take(e.valid_up_to()).filter(|&&byte| byte == b'\n').count() + 1;
            ConfigError::Syntax { line, key: None, message: "not UTF-8".to_owned() }
        })?;
        Self::parse(text, path.parent().unwrap_or(Path::new("")))
    }

    /// Reads a text whose paths are relative to a folder.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] or [`ConfigError::Invalid`].
    pub fn parse(text: &str, folder: &Path) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text).map_err(|e| syntax(text, &e))?;
        let mut problems = Problems::default();
        let party = file.party.party();
        problems.check_ranges(&file);
        let peers = problems.peers(party, &file);
        let transport = problems.transport(&file);
        let cards = Party::ALL.map(|card| {
            let path = file.cards.get(&PartyName::of(card));
            path.or_else(|| problems.missing(&format!("cards.{}", key_of(card))))
        });
        let administrators = problems.administrators(&file.administrators);
        match (transport, peers, cards) {
            (Some(transport), [Some(first), Some(second)], [Some(c0), Some(c1), Some(c2)]) if problems.0.is_empty() => {
                let path = |path: &Path| folder.join(path);
                let [one, other] = party.peers();
                Ok(Self {
                    party,
                    listen: file.listen,
                    data: path(&file.data),
                    key_file: path(&file.keys.file),
                    unlock: file.keys.unlock.as_deref().map(path),
                    transport: match transport {
                        Transport::Plaintext => Transport::Plaintext,
                        Transport::Tls(tls) => Transport::Tls(Tls {
                            certificate: path(&tls.certificate),
                            key: path(&tls.key),
                            ca: path(&tls.ca),
                        }),
                    },
                    peers: [(one, first), (other, second)],
                    cards: [c0, c1, c2].map(|card| path(card)),
                    administrators,
                    deadlines: file.deadlines,
                    limits: file.limits,
                    threads: file.threads,
                    metrics: file.metrics.map(|metrics| metrics.listen),
                    log: file.log,
                })
            }
            _ => Err(ConfigError::Invalid { problems: problems.0 }),
        }
    }
}

/// The parser's complaint in one line, with the key of the line that it points at.
fn syntax(text: &str, error: &toml::de::Error) -> ConfigError {
    let begin = error.span().map_or(0, |span| span.start);
    let before = text.get(..begin).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let key = text.lines().nth(line - 1).and_then(|line| line.split_once('=')).map(|(key, _)| key.trim().to_owned());
    let key = key.filter(|key| !key.is_empty() && !key.starts_with('#'));
    ConfigError::Syntax { line, key, message: error.message().replace('\n', "; ") }
}

fn key_of(party: Party) -> String {
    format!("k{}", party.index())
}

/// Problems found so far.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn push(&mut self, key: &str, fault: Fault) {
        self.0.push(Problem { key: key.to_owned(), fault });
    }

    fn missing<T>(&mut self, key: &str) -> Option<T> {
        self.push(key, Fault::Missing);
        None
    }

    fn check_ranges(&mut self, file: &File) {
        let deadlines = &file.deadlines;
        for (key, value) in [
            ("deadlines.query", deadlines.query),
            ("deadlines.admission", deadlines.admission),
            ("deadlines.build", deadlines.build),
            ("deadlines.shutdown", deadlines.shutdown),
        ] {
            if !(Duration::from_millis(100)..=Duration::from_secs(86_400)).contains(&value) {
                self.push(key, Fault::Range { least: "100ms", most: "1day" });
            }
        }
        let limits = &file.limits;
        if !(ByteSize::kib(64)..=ByteSize::gib(1)).contains(&limits.max_message) {
            self.push("limits.max_message", Fault::Range { least: "64KiB", most: "1GiB" });
        }
        if !(1..=65_536).contains(&limits.max_sessions) {
            self.push("limits.max_sessions", Fault::Range { least: "1", most: "65536" });
        }
        for (key, threads) in [("threads.query", file.threads.query), ("threads.bulk", file.threads.bulk)] {
            if threads > 1024 {
                self.push(key, Fault::Range { least: "0", most: "1024" });
            }
        }
        if !(1..=1_048_576).contains(&limits.queue) {
            self.push("limits.queue", Fault::Range { least: "1", most: "1048576" });
        }
    }

    fn transport(&mut self, file: &File) -> Option<Transport> {
        match (&file.tls, file.plaintext) {
            (Some(tls), false) => Some(Transport::Tls(tls.clone())),
            (Some(_), true) => {
                self.push("tls", Fault::TlsAndPlaintext);
                None
            }
            (None, false) => self.missing("tls"),
            (None, true) if file.listen.ip().is_loopback() => Some(Transport::Plaintext),
            (None, true) => {
                self.push("listen", Fault::PlaintextBeyondLoopback);
                None
            }
        }
    }

    /// URLs of the next and the previous holder.
    fn peers(&mut self, party: Party, file: &File) -> [Option<String>; 2] {
        if file.peers.contains_key(&PartyName::of(party)) {
            self.push(&format!("peers.{}", key_of(party)), Fault::OwnParty);
        }
        let scheme = if file.plaintext { "http" } else { "https" };
        party.peers().map(|peer| {
            let key = format!("peers.{}", key_of(peer));
            let Some(url) = file.peers.get(&PartyName::of(peer)) else { return self.missing(&key) };
            match host_of(url, scheme) {
                None => self.push(&key, Fault::Address { scheme }),
                Some(host) if file.plaintext && !is_loopback(host) => self.push(&key, Fault::PlaintextBeyondLoopback),
                Some(_) => return Some(url.clone()),
            }
            None
        })
    }

    fn administrators(&mut self, listed: &[String]) -> Vec<ClientVerifyingKey> {
        let mut keys = Vec::new();
        for (i, text) in listed.iter().enumerate() {
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
}

/// The host in `scheme://host:port`.
fn host_of<'a>(url: &'a str, scheme: &str) -> Option<&'a str> {
    let authority = url.strip_prefix(scheme)?.strip_prefix("://")?;
    let (host, port) = authority.rsplit_once(':')?;
    port.parse::<u16>().ok().filter(|&port| port > 0)?;
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let plain = |host: &str| host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
    match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok().then_some(address),
        None => (!host.is_empty() && plain(host)).then_some(host),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
