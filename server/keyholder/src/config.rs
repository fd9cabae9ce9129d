//! The holder's configuration file: TOML, where a key that nobody knows is an error and every problem is one line that
//! names its key.
//!
//! Paths are relative to the folder of the file. `samples/keyholder.toml` shows every key.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;
use veilmatch_domain::Party;
use veilmatch_sealed::ClientVerifyingKey;
use veilmatch_service::{Problems, parse_toml, read_text};

pub use veilmatch_service::{ConfigError, Fault, Log, LogFormat, LogLevel, Problem, Tls, Transport};

#[cfg(test)]
mod tests;

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
    /// Bytes of the groups' public masks that are kept expanded between queries. What does not fit is expanded again by every
    /// query.
    pub mask_cache: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_message: ByteSize::mib(64), max_sessions: 256, queue: 1024, mask_cache: ByteSize::mib(256) }
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
        Self::parse(&read_text(path)?, path.parent().unwrap_or(Path::new("")))
    }

    /// Reads a text whose paths are relative to a folder.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] or [`ConfigError::Invalid`].
    pub fn parse(text: &str, folder: &Path) -> Result<Self, ConfigError> {
        let file: File = parse_toml(text)?;
        let mut problems = Problems::default();
        let party = file.party.party();
        check_ranges(&mut problems, &file);
        let peers = peers(&mut problems, party, &file);
        let transport = problems.transport(file.tls.as_ref(), file.plaintext, file.listen);
        let cards = Party::ALL.map(|card| {
            let path = file.cards.get(&PartyName::of(card));
            path.or_else(|| problems.missing(&format!("cards.{}", key_of(card))))
        });
        let administrators = problems.administrators(&file.administrators);
        match (transport, peers, cards) {
            (Some(transport), [Some(first), Some(second)], [Some(c0), Some(c1), Some(c2)]) if problems.is_empty() => {
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
                        Transport::Tls(tls) => Transport::Tls(tls.within(folder)),
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
            _ => Err(problems.into_error()),
        }
    }
}

fn key_of(party: Party) -> String {
    format!("k{}", party.index())
}

fn check_ranges(problems: &mut Problems, file: &File) {
    let deadlines = &file.deadlines;
    let (tenth, day) = (Duration::from_millis(100), Duration::from_secs(86_400));
    for (key, value) in [
        ("deadlines.query", deadlines.query),
        ("deadlines.admission", deadlines.admission),
        ("deadlines.build", deadlines.build),
        ("deadlines.shutdown", deadlines.shutdown),
    ] {
        problems.check_range(key, &value, (tenth, day), ("100ms", "1day"));
    }
    let limits = &file.limits;
    let sizes = (ByteSize::kib(64), ByteSize::gib(1));
    problems.check_range("limits.max_message", &limits.max_message, sizes, ("64KiB", "1GiB"));
    problems.check_range("limits.max_sessions", &limits.max_sessions, (1, 65_536), ("1", "65536"));
    for (key, threads) in [("threads.query", file.threads.query), ("threads.bulk", file.threads.bulk)] {
        problems.check_range(key, &threads, (0, 1024), ("0", "1024"));
    }
    problems.check_range("limits.queue", &limits.queue, (1, 1_048_576), ("1", "1048576"));
    problems.check_range("limits.mask_cache", &limits.mask_cache, (ByteSize::b(0), ByteSize::tib(1)), ("0", "1TiB"));
}

/// URLs of the next and the previous holder.
fn peers(problems: &mut Problems, party: Party, file: &File) -> [Option<String>; 2] {
    if file.peers.contains_key(&PartyName::of(party)) {
        problems.push(&format!("peers.{}", key_of(party)), Fault::OwnParty);
    }
    let scheme = if file.plaintext { "http" } else { "https" };
    party.peers().map(|peer| {
        let key = format!("peers.{}", key_of(peer));
        let Some(url) = file.peers.get(&PartyName::of(peer)) else { return problems.missing(&key) };
        match host_of(url, scheme) {
            None => problems.push(&key, Fault::Address { scheme }),
            Some(host) if file.plaintext && !is_loopback(host) => problems.push(&key, Fault::PlaintextBeyondLoopback),
            Some(_) => return Some(url.clone()),
        }
        None
    })
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
