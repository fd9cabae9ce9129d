//! The twin's configuration file. `samples/twin.toml` shows every key.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use serde::Deserialize;
use veilmatch_service::{ConfigError, Log, Problems, Tls, Transport, parse_toml, read_text};
use veilmatch_transport::Endpoint;

use crate::config::{Holders, Metrics};

/// What the twin takes on at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TwinLimits {
    /// Evaluations that are under way or wait for a thread; the next one is refused.
    pub evaluations: u32,
    /// Threads that evaluate; 0: one per core.
    pub threads: u32,
    /// Bytes of groups that are kept ready to be evaluated, besides the groups themselves; what is beyond is prepared again by
    /// every search.
    pub memory: ByteSize,
    /// Bytes of a message to or from the matcher.
    pub max_message: ByteSize,
}

impl Default for TwinLimits {
    fn default() -> Self {
        Self { evaluations: 256, threads: 0, memory: ByteSize::gib(1), max_message: ByteSize::mib(256) }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: SocketAddr,
    public_key: PathBuf,
    #[serde(default)]
    plaintext: bool,
    tls: Option<Tls>,
    holders: Holders,
    #[serde(default)]
    limits: TwinLimits,
    metrics: Option<Metrics>,
    #[serde(default)]
    log: Log,
}

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct TwinConfig {
    /// Where the matcher reaches it.
    pub listen: SocketAddr,
    /// The file of the public key.
    pub public_key: PathBuf,
    /// TLS or nothing.
    pub transport: Transport,
    /// The three key holders.
    pub holders: [Endpoint; 3],
    /// What it takes on at most.
    pub limits: TwinLimits,
    /// Where metrics can be read, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// Logging.
    pub log: Log,
}

impl TwinConfig {
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
        let limits = &file.limits;
        problems.check_range("limits.evaluations", &limits.evaluations, (1, 65_536), ("1", "65536"));
        problems.check_range("limits.threads", &limits.threads, (0, 1024), ("0", "1024"));
        problems.check_range("limits.memory", &limits.memory, (ByteSize::b(0), ByteSize::tib(1)), ("0", "1TiB"));
        let sizes = (ByteSize::kib(64), ByteSize::gib(1));
        problems.check_range("limits.max_message", &limits.max_message, sizes, ("64KiB", "1GiB"));
        let transport = problems.transport(file.tls.as_ref(), file.plaintext, file.listen);
        let holders = file.holders.endpoints(&mut problems, file.plaintext);
        let (Some(transport), Some(holders), true) = (transport, holders, problems.is_empty()) else {
            return Err(problems.into_error());
        };
        Ok(Self {
            listen: file.listen,
            public_key: folder.join(&file.public_key),
            transport: match transport {
                Transport::Plaintext => Transport::Plaintext,
                Transport::Tls(tls) => Transport::Tls(tls.within(folder)),
            },
            holders,
            limits: file.limits,
            metrics: file.metrics.map(|metrics| metrics.listen),
            log: file.log,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../samples/twin.toml");

    #[test]
    fn the_sample_is_complete_and_shows_the_defaults() {
        let config = TwinConfig::parse(SAMPLE, Path::new("/etc/veilmatch")).unwrap();
        assert_eq!((config.limits, config.log), Default::default());
        assert_eq!(config.public_key, Path::new("/etc/veilmatch/paillier.pub"));
        assert!(config.metrics.is_some() && matches!(config.transport, Transport::Tls(_)));
    }

    #[test]
    fn what_is_deployed_can_be_used() {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
        let config = TwinConfig::load(&deploy.join("systemd/twin.toml")).unwrap();
        assert!(config.listen.port() == 7441 && matches!(config.transport, Transport::Tls(_)));
    }

    #[test]
    fn unknown_keys_and_bad_values_are_named() {
        let broken = |from: &str, to: &str| {
            assert!(SAMPLE.contains(from), "{from}");
            TwinConfig::parse(&SAMPLE.replacen(from, to, 1), Path::new("")).unwrap_err().to_string()
        };
        assert!(broken("threads = ", "treads = ").contains("treads"));
        assert!(broken("public_key", "private_key").contains("private_key"));
        assert!(broken("[log]", "[log]\ncolour = true").contains("colour"));
        assert!(broken("https://k1", "http://k1").contains("`holders.k1`: must be `https://host:port`"));
        assert!(broken("evaluations = 256", "evaluations = 0").contains("`limits.evaluations`: must be 1 to 65536"));
        assert!(broken("\"256MiB\"", "\"1KiB\"").contains("`limits.max_message`: must be 64KiB to 1GiB"));
        let plain = SAMPLE.replacen("# plaintext = true", "plaintext = true", 1);
        assert!(TwinConfig::parse(&plain, Path::new("")).unwrap_err().to_string().contains("`tls`: is given together"));
    }
}
