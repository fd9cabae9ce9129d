//! The matcher's configuration file. `samples/matcher.toml` shows every key.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use veilmatch_domain::{CollectionId, MAX_DIMENSION, Party};
use veilmatch_sealed::ClientVerifyingKey;
use veilmatch_service::{ConfigError, Fault, Log, Problems, Tls, Transport, parse_toml, read_text};
use veilmatch_transport::Endpoint;

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Deadlines {
    /// A search, from request to answer.
    #[serde(with = "humantime_serde")]
    pub search: Duration,
    /// A stage of a change of the index.
    #[serde(with = "humantime_serde")]
    pub change: Duration,
    /// More for each template in it.
    #[serde(with = "humantime_serde")]
    pub change_per_template: Duration,
    /// How long acknowledged work is finished after a signal to end.
    #[serde(with = "humantime_serde")]
    pub shutdown: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            search: Duration::from_secs(10),
            change: Duration::from_secs(30),
            change_per_template: Duration::from_millis(20),
            shutdown: Duration::from_secs(30),
        }
    }
}

/// What the matcher takes on at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Searches at once.
    pub searches: u32,
    /// Changes that wait.
    pub changes: u32,
    /// Threads that scan; 0: one per core.
    pub scan_threads: u32,
    /// Bytes of a message to or from a key holder.
    pub max_message: ByteSize,
    /// Bytes of the packed index that are held in memory, in huge pages where the system grants them; what is beyond is
    /// read through memory maps. Without it: three quarters of the memory that is available at the start.
    pub index_memory: Option<ByteSize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { searches: 256, changes: 256, scan_threads: 0, max_message: ByteSize::mib(256), index_memory: None }
    }
}

/// How the packed index lies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Index {
    /// How many of the first dimensions lie apart, for preselection. A multiple of 64 is whole blocks of every group.
    /// Without it, groups lie in one segment.
    pub hot_dimensions: Option<u16>,
    /// The same for single collections; 0 for one segment.
    #[serde(deserialize_with = "by_collection")]
    pub collections: BTreeMap<CollectionId, u16>,
}

fn by_collection<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<CollectionId, u16>, D::Error> {
    let named = BTreeMap::<String, u16>::deserialize(from)?;
    named.into_iter().map(|(name, hot)| Ok((CollectionId::new(name).map_err(D::Error::custom)?, hot))).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: SocketAddr,
    data: PathBuf,
    #[serde(default)]
    plaintext: bool,
    #[serde(default)]
    administrators: Vec<String>,
    tls: Option<Tls>,
    holders: Holders,
    #[serde(default)]
    deadlines: Deadlines,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    index: Index,
    twin: Option<TwinAddress>,
    paillier: Option<Paillier>,
    metrics: Option<Metrics>,
    #[serde(default)]
    log: Log,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Holders {
    k0: String,
    k1: String,
    k2: String,
}

impl Holders {
    /// The three addresses, if all of them are.
    pub(crate) fn endpoints(&self, problems: &mut Problems, plaintext: bool) -> Option<[Endpoint; 3]> {
        let mut of = |party: Party, url| endpoint(problems, &format!("holders.k{}", party.index()), url, plaintext);
        let all = [of(Party::K0, &self.k0), of(Party::K1, &self.k1), of(Party::K2, &self.k2)];
        let [Some(k0), Some(k1), Some(k2)] = all else { return None };
        Some([k0, k1, k2])
    }
}

fn endpoint(problems: &mut Problems, key: &str, url: &str, plaintext: bool) -> Option<Endpoint> {
    let parsed = Endpoint::parse(url, plaintext).ok();
    if parsed.is_none() {
        problems.push(key, Fault::Address { scheme: if plaintext { "http" } else { "https" } });
    }
    parsed
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TwinAddress {
    url: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Paillier {
    public_key: PathBuf,
    #[serde(default = "prepared")]
    memory: ByteSize,
}

fn prepared() -> ByteSize {
    ByteSize::gib(1)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metrics {
    pub(crate) listen: SocketAddr,
}

/// What collections of the scheme `paillier` need.
#[derive(Clone, Debug)]
pub struct Evaluating {
    /// The twin.
    pub twin: Endpoint,
    /// The file of the public key.
    pub public_key: PathBuf,
    /// Bytes of groups that are kept ready to be evaluated.
    pub memory: ByteSize,
}

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients reach the matcher.
    pub listen: SocketAddr,
    /// The folder of its store.
    pub data: PathBuf,
    /// TLS or nothing.
    pub transport: Transport,
    /// The three key holders.
    pub holders: [Endpoint; 3],
    /// Who may create collections and register clients.
    pub administrators: Vec<ClientVerifyingKey>,
    /// How long things may take.
    pub deadlines: Deadlines,
    /// What the matcher takes on at most.
    pub limits: Limits,
    /// How the packed index lies.
    pub index: Index,
    /// What collections of the scheme `paillier` need; without it there are none.
    pub paillier: Option<Evaluating>,
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
        check_ranges(&mut problems, &file);
        let transport = problems.transport(file.tls.as_ref(), file.plaintext, file.listen);
        let holders = file.holders.endpoints(&mut problems, file.plaintext);
        let paillier = match (&file.twin, &file.paillier) {
            (None, None) => None,
            (Some(twin), Some(Paillier { public_key, memory })) => {
                problems.check_range("paillier.memory", memory, (ByteSize::b(0), ByteSize::tib(1)), ("0", "1TiB"));
                let twin = endpoint(&mut problems, "twin.url", &twin.url, file.plaintext);
                twin.map(|twin| Evaluating { twin, public_key: folder.join(public_key), memory: *memory })
            }
            // One without the other is of no use.
            (Some(_), None) => problems.missing("paillier"),
            (None, Some(_)) => problems.missing("twin"),
        };
        let administrators = problems.administrators(&file.administrators);
        let (Some(transport), Some(holders), true) = (transport, holders, problems.is_empty()) else {
            return Err(problems.into_error());
        };
        Ok(Self {
            listen: file.listen,
            data: folder.join(&file.data),
            transport: match transport {
                Transport::Plaintext => Transport::Plaintext,
                Transport::Tls(tls) => Transport::Tls(tls.within(folder)),
            },
            holders,
            administrators,
            deadlines: file.deadlines,
            limits: file.limits,
            index: file.index,
            paillier,
            metrics: file.metrics.map(|metrics| metrics.listen),
            log: file.log,
        })
    }
}

fn check_ranges(problems: &mut Problems, file: &File) {
    let (deadlines, limits) = (&file.deadlines, &file.limits);
    let (tenth, day) = (Duration::from_millis(100), Duration::from_secs(86_400));
    for (key, value) in [
        ("deadlines.search", deadlines.search),
        ("deadlines.change", deadlines.change),
        ("deadlines.shutdown", deadlines.shutdown),
    ] {
        problems.check_range(key, &value, (tenth, day), ("100ms", "1day"));
    }
    let second = Duration::from_secs(1);
    problems.check_range(
        "deadlines.change_per_template",
        &deadlines.change_per_template,
        (Duration::ZERO, second),
        ("0ms", "1s"),
    );
    let most = MAX_DIMENSION as u16;
    if let Some(hot) = file.index.hot_dimensions {
        problems.check_range("index.hot_dimensions", &hot, (1, most), ("1", "1024"));
    }
    for (collection, hot) in &file.index.collections {
        problems.check_range(&format!("index.collections.{collection}"), hot, (0, most), ("0", "1024"));
    }
    problems.check_range("limits.searches", &limits.searches, (1, 65_536), ("1", "65536"));
    problems.check_range("limits.changes", &limits.changes, (1, 65_536), ("1", "65536"));
    problems.check_range("limits.scan_threads", &limits.scan_threads, (0, 1024), ("0", "1024"));
    problems.check_range(
        "limits.max_message",
        &limits.max_message,
        (ByteSize::kib(64), ByteSize::gib(1)),
        ("64KiB", "1GiB"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../samples/matcher.toml");

    #[test]
    fn the_sample_is_complete_and_shows_the_defaults() {
        let config = Config::parse(SAMPLE, Path::new("/etc/veilmatch")).unwrap();
        assert_eq!((config.deadlines, config.limits, config.log), Default::default());
        assert_eq!((config.administrators.len(), config.metrics.is_some()), (1, true));
    }

    #[test]
    fn hot_dimensions_are_read_for_all_and_for_single_collections() {
        let cut = SAMPLE.replacen("# hot_dimensions = 192", "hot_dimensions = 192", 1);
        let config = Config::parse(&cut.replacen("# faces = 128", "faces = 128", 1), Path::new("")).unwrap();
        let faces = CollectionId::new("faces").unwrap();
        assert_eq!((config.index.hot_dimensions, config.index.collections.get(&faces)), (Some(192), Some(&128)));
        assert_eq!(Config::parse(SAMPLE, Path::new("")).unwrap().index, Index::default());
    }

    #[test]
    fn a_twin_comes_with_a_public_key() {
        assert!(Config::parse(SAMPLE, Path::new("")).unwrap().paillier.is_none());
        let twin = SAMPLE.replacen("# [twin]", "[twin]", 1).replacen("# url = ", "url = ", 1);
        let error = Config::parse(&twin, Path::new("")).unwrap_err().to_string();
        assert!(error.contains("`paillier`: is missing"), "{error}");
        let key = |text: &str| text.replacen("# [paillier]", "[paillier]", 1).replacen("# public_key", "public_key", 1);
        let error = Config::parse(&key(SAMPLE), Path::new("")).unwrap_err().to_string();
        assert!(error.contains("`twin`: is missing"), "{error}");
        let both = key(&twin);
        let paillier = Config::parse(&both, Path::new("")).unwrap().paillier.unwrap();
        assert_eq!((paillier.twin.port(), paillier.memory), (7441, ByteSize::gib(1)));
        let shown = Config::parse(&both.replacen("# memory = ", "memory = ", 1), Path::new("")).unwrap();
        assert_eq!(shown.paillier.unwrap().memory, paillier.memory);
        let broken = both.replacen("https://twin", "http://twin", 1);
        assert!(Config::parse(&broken, Path::new("")).unwrap_err().to_string().contains("`twin.url`: must be"));
    }

    #[test]
    fn what_is_deployed_can_be_used() {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
        for file in ["systemd/matcher.toml", "compose/config/matcher.toml"] {
            let config = Config::load(&deploy.join(file)).unwrap();
            assert_eq!((config.listen.port(), config.administrators.len()), (7440, 0), "{file}");
            assert!(matches!(config.transport, Transport::Tls(_)), "{file}");
        }
    }

    #[test]
    fn unknown_keys_and_bad_values_are_named() {
        let broken = |from: &str, to: &str| {
            assert!(SAMPLE.contains(from), "{from}");
            Config::parse(&SAMPLE.replacen(from, to, 1), Path::new("")).unwrap_err().to_string()
        };
        assert!(broken("search = ", "serach = ").contains("serach"));
        assert!(broken("[log]", "[log]\ncolour = true").contains("colour"));
        assert!(broken("\"10s\"", "\"10\"").contains("search"));
        assert!(broken("https://k1", "http://k1").contains("`holders.k1`: must be `https://host:port`"));
        assert!(broken("searches = 256", "searches = 0").contains("`limits.searches`: must be 1 to 65536"));
        assert!(
            broken("# hot_dimensions = 192", "hot_dimensions = 0").contains("`index.hot_dimensions`: must be 1 to")
        );
        assert!(broken("# faces = 128", "faces = 1025").contains("`index.collections.faces`: must be 0 to 1024"));
        assert!(
            broken("# faces = 128", "\"a b\" = 128").contains("line 56: the collection id contains the character ' '")
        );
        assert!(broken("11qYAY", "11qYA!").contains("`administrators[0]`"));
        let plain = SAMPLE.replacen("# plaintext = true", "plaintext = true", 1);
        assert!(Config::parse(&plain, Path::new("")).unwrap_err().to_string().contains("`tls`: is given together"));
    }
}
