//! The files of a deployment.
//!
//! ```text
//! ca.crt ca.key                    the authority of all certificates
//! admin.key                        the administrator's signing key
//! operator/tls.crt tls.key         the operator's certificate
//! client/tls.crt tls.key signing.key
//! veilmatch.toml                   the client's profile
//! cards/k0.card ...                public keys of the holders
//! k0/keyholder.toml tls.crt tls.key holder.keys unlock data/ ...
//! matcher/matcher.toml tls.crt tls.key data/
//! paillier.pub                     the public key, if the deployment has the scheme `paillier`
//! twin/twin.toml tls.crt tls.key   the matcher's twin, likewise
//! logs/
//! ```

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use veilmatch_domain::{ClientId, Explain, IdentifierError, Party, Status};
use veilmatch_keyholder::card::write_card;
use veilmatch_keyholder::keyfile::{Cost, HolderKeys, KeyFileError, Unlock};
use veilmatch_keyholder::share::{ShareError, install_share, seal_share};
use veilmatch_paillier::{KeySize, PublicKey};
use veilmatch_sdk::{KeyFileError as SigningKeyError, SigningKeyFile};
use veilmatch_secret::os_entropy;
use veilmatch_service::fingerprint;
use veilmatch_threshold::Dealt;
use veilmatch_transport::{
    Authority, FileError, Name, NameError, OperatorName, PkiError, read_public, write_new_private, write_private,
    write_public,
};

use super::Role;
use super::pki::{ISSUED_FOR, VALID_FOR, from_now};

/// The client id of a deployment's own profile.
pub(super) const CLIENT: &str = "local";
/// The operator's name in its certificate.
pub(super) const OPERATOR: &str = "local";

/// Why a deployment cannot be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeploymentError {
    /// A certificate.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A holder's key file.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// A holder's card.
    #[error(transparent)]
    Card(#[from] veilmatch_keyholder::card::CardError),
    /// A share of a threshold key.
    #[error(transparent)]
    Share(#[from] Box<ShareError>),
    /// A configuration file of its own cannot be read.
    #[error(transparent)]
    Config(#[from] veilmatch_service::ConfigError),
    /// There is no key of the scheme `paillier`, or its file is damaged.
    #[error("the deployment has no usable key of the scheme `paillier`")]
    NoKey,
    /// A signing key.
    #[error(transparent)]
    SigningKey(#[from] SigningKeyError),
    /// A name.
    #[error(transparent)]
    Identifier(#[from] IdentifierError),
    /// A name in a certificate.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A folder.
    #[error("cannot make {}: {kind}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the operating system says.
        kind: std::io::ErrorKind,
    },
    /// The folder has other content.
    #[error("{} is not empty and holds no deployment", .0.display())]
    NotEmpty(PathBuf),
    /// A port is taken.
    #[error("port {port} of this machine is in use")]
    Port {
        /// Which.
        port: u16,
    },
    /// A process ended or did not become ready.
    #[error("{role} did not start: {reason}")]
    Process {
        /// Whose process.
        role: String,
        /// What is known.
        reason: String,
    },
}

impl Explain for DeploymentError {
    fn code(&self) -> &'static str {
        match self {
            Self::Pki(e) => e.code(),
            Self::File(e) => e.code(),
            Self::KeyFile(e) => e.code(),
            Self::Card(e) => e.code(),
            Self::Share(e) => e.code(),
            Self::Config(e) => e.code(),
            Self::NoKey => "no-public-key",
            Self::SigningKey(e) => e.code(),
            Self::Identifier(e) => e.code(),
            Self::Name(e) => e.code(),
            Self::Folder { .. } => "cannot-make-folder",
            Self::NotEmpty(_) => "folder-not-empty",
            Self::Port { .. } => "port-in-use",
            Self::Process { .. } => "process-ended",
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::Pki(e) => e.status(),
            Self::File(e) => e.status(),
            Self::KeyFile(e) => e.status(),
            Self::Card(e) => e.status(),
            Self::Share(e) => e.status(),
            Self::Config(e) => e.status(),
            Self::SigningKey(e) => e.status(),
            Self::Identifier(e) => e.status(),
            Self::Name(e) => e.status(),
            Self::Process { .. } => Status::Unavailable,
            _ => Status::FailedPrecondition,
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Pki(e) => e.advice(),
            Self::File(e) => e.advice(),
            Self::KeyFile(e) => e.advice(),
            Self::Card(e) => e.advice(),
            Self::Share(e) => e.advice(),
            Self::Config(e) => e.advice(),
            Self::NoKey => "start the deployment with `veilmatch up --scheme paillier`",
            Self::SigningKey(e) => e.advice(),
            Self::Identifier(e) => e.advice(),
            Self::Name(e) => e.advice(),
            Self::Folder { .. } => "choose a folder that you may write to",
            Self::NotEmpty(_) => "choose an empty folder, or the one of a deployment",
            Self::Port { .. } => "choose others with --base-port, or end what uses it",
            Self::Process { .. } => "look at its log in the folder `logs` of the deployment",
        }
    }
}

/// Where the processes listen, all on 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The matcher.
    pub matcher: u16,
    /// The holders.
    pub holders: [u16; 3],
    /// Metrics of the matcher.
    pub matcher_metrics: u16,
    /// Metrics of the holders.
    pub holder_metrics: [u16; 3],
    /// The twin; 0 if the deployment has none.
    pub twin: u16,
    /// Metrics of the twin.
    pub twin_metrics: u16,
}

impl Ports {
    /// Ten ports in a row.
    ///
    /// # Errors
    /// [`DeploymentError::Port`] if one is in use.
    pub fn from_base(base: u16) -> Result<Self, DeploymentError> {
        let port = |i: u16| base.saturating_add(i);
        for i in 0..10 {
            let _free =
                TcpListener::bind(("127.0.0.1", port(i))).map_err(|_| DeploymentError::Port { port: port(i) })?;
        }
        Ok(Self {
            matcher: port(0),
            holders: [port(1), port(2), port(3)],
            matcher_metrics: port(4),
            holder_metrics: [port(5), port(6), port(7)],
            twin: port(8),
            twin_metrics: port(9),
        })
    }

    /// Ten ports that are free at the moment.
    ///
    /// # Errors
    /// [`DeploymentError::Port`] if the machine has none.
    pub fn free() -> Result<Self, DeploymentError> {
        // All are held until all are known, so that none is given twice.
        let mut held = Vec::new();
        let mut port = || -> Result<u16, DeploymentError> {
            let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(|_| DeploymentError::Port { port: 0 })?;
            let port = listener.local_addr().map_err(|_| DeploymentError::Port { port: 0 })?.port();
            held.push(listener);
            Ok(port)
        };
        Ok(Self {
            matcher: port()?,
            holders: [port()?, port()?, port()?],
            matcher_metrics: port()?,
            holder_metrics: [port()?, port()?, port()?],
            twin: port()?,
            twin_metrics: port()?,
        })
    }
}

/// A deployment in a folder.
#[derive(Clone, Debug)]
pub struct Deployment {
    folder: PathBuf,
}

impl Deployment {
    /// The deployment of a folder, if there is one.
    #[must_use]
    pub fn find(folder: &Path) -> Option<Self> {
        let deployment = Self { folder: folder.to_owned() };
        deployment.profile().is_file().then_some(deployment)
    }

    /// Makes certificates, keys and configuration files in an empty or new folder.
    ///
    /// # Errors
    /// [`DeploymentError`]; what was made so far stays for inspection.
    pub fn create(folder: &Path, ports: Ports) -> Result<Self, DeploymentError> {
        make_folder(folder)?;
        if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(DeploymentError::NotEmpty(folder.to_owned()));
        }
        let deployment = Self { folder: folder.to_owned() };
        for name in ["cards", "client", "operator", "matcher", "k0", "k1", "k2", "logs"] {
            make_folder(&deployment.at(name))?;
        }
        let authority = Authority::new("veilmatch local authority", from_now(VALID_FOR))?;
        authority.save(&deployment.at("ca.crt"), &deployment.at("ca.key"))?;
        let hosts = [String::from("localhost"), String::from("127.0.0.1")];
        let certify = |name: Name, folder: &str| -> Result<(), DeploymentError> {
            let issued = authority.issue(&name, &hosts, from_now(ISSUED_FOR))?;
            let folder = deployment.at(folder);
            Ok(issued.save(&folder.join("tls.crt"), &folder.join("tls.key"))?)
        };
        certify(Name::Client(ClientId::new(CLIENT)?), "client")?;
        certify(Name::Operator(OperatorName::new(OPERATOR)?), "operator")?;
        certify(Name::Matcher, "matcher")?;
        SigningKeyFile::create(&deployment.at("client/signing.key"))?;
        let administrator = SigningKeyFile::create(&deployment.at("admin.key"))?.public_key();
        for party in Party::ALL {
            certify(Name::Holder(party), &label(party))?;
            deployment.make_holder(party, ports, &administrator)?;
        }
        write_public(&deployment.at("matcher/matcher.toml"), matcher_config(ports, &administrator).as_bytes())?;
        // The profile comes last: a folder with one is a whole deployment.
        write_public(&deployment.profile(), profile(ports).as_bytes())?;
        Ok(deployment)
    }

    fn make_holder(&self, party: Party, ports: Ports, administrator: &str) -> Result<(), DeploymentError> {
        let folder = self.at(&label(party));
        let mut entropy = os_entropy();
        let mut secret = veilmatch_secret::Secret::new([0u8; 32]);
        entropy.fill_bytes(secret.expose_mut());
        write_new_private(&folder.join("unlock"), secret.expose())?;
        let keys = HolderKeys::random(party, entropy.as_mut());
        let unlock = Unlock::key_file(&folder.join("unlock"))?;
        keys.create(&folder.join("holder.keys"), &unlock, Cost::default(), entropy.as_mut())?;
        write_card(&self.card(party), &keys.card())?;
        let config = holder_config(party, ports, administrator);
        Ok(write_public(&folder.join("keyholder.toml"), config.as_bytes())?)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The client's profile.
    #[must_use]
    pub fn profile(&self) -> PathBuf {
        self.at("veilmatch.toml")
    }

    /// A holder's card.
    #[must_use]
    pub fn card(&self, party: Party) -> PathBuf {
        self.at("cards").join(format!("{}.card", label(party)))
    }

    /// A holder's configuration file.
    #[must_use]
    pub fn holder_config(&self, party: Party) -> PathBuf {
        self.at(&label(party)).join("keyholder.toml")
    }

    /// The twin's configuration file.
    #[must_use]
    pub fn twin_config(&self) -> PathBuf {
        self.at("twin").join("twin.toml")
    }

    /// Whether it has a key of the scheme `paillier` and a twin.
    #[must_use]
    pub fn has_twin(&self) -> bool {
        veilmatch_matcher::Config::load(&self.matcher_config()).is_ok_and(|config| config.paillier.is_some())
    }

    /// Whose processes it has, in the order in which they are started.
    #[must_use]
    pub fn roles(&self) -> Vec<Role> {
        let twin = self.has_twin().then_some(Role::Twin);
        Party::ALL.into_iter().map(Role::Holder).chain(twin).chain([Role::Matcher]).collect()
    }

    fn public_key(&self) -> PathBuf {
        self.at("paillier.pub")
    }

    fn share(&self, party: Party) -> PathBuf {
        self.at(&label(party)).join("paillier.share")
    }

    /// Whether a dealer's results are here.
    #[must_use]
    pub fn is_dealt(&self) -> bool {
        self.public_key().is_file()
    }

    /// The size of its key of the scheme `paillier`.
    ///
    /// # Errors
    /// [`DeploymentError::NoKey`] if there is none.
    pub fn key_size(&self) -> Result<KeySize, DeploymentError> {
        let bytes = read_public(&self.public_key(), 16 << 10).map_err(|_| DeploymentError::NoKey)?;
        PublicKey::from_bytes(&bytes).map(|key| key.size()).map_err(|_| DeploymentError::NoKey)
    }

    /// Keeps what a dealer made: the shares, each sealed to its holder's card, then the public key.
    ///
    /// # Errors
    /// [`DeploymentError`].
    pub fn keep_key(&self, dealt: &Dealt) -> Result<(), DeploymentError> {
        for share in &dealt.shares {
            let card = veilmatch_keyholder::card::read_card(&self.card(share.party()))?;
            let sealed = seal_share(share, &card, os_entropy().as_mut()).map_err(Box::new)?;
            write_private(&self.share(share.party()), &sealed)?;
        }
        Ok(write_public(&self.public_key(), &dealt.key.to_bytes())?)
    }

    /// Gives the holders their shares of the key that is kept here, and makes the twin. Nothing may run meanwhile. Can be repeated
    /// if it was interrupted.
    ///
    /// # Errors
    /// [`DeploymentError`].
    pub fn add_twin(&self, port: u16, metrics: u16) -> Result<(), DeploymentError> {
        let bytes = read_public(&self.public_key(), 16 << 10).map_err(|_| DeploymentError::NoKey)?;
        let key = PublicKey::from_bytes(&bytes).map_err(|_| DeploymentError::NoKey)?;
        let fingerprint = fingerprint(&key.digest().0);
        for party in Party::ALL {
            let config = veilmatch_keyholder::config::Config::load(&self.holder_config(party))?;
            let unlock = Unlock::key_file(&self.at(&label(party)).join("unlock"))?;
            install_share(&config, &unlock, &self.share(party), &fingerprint).map_err(Box::new)?;
        }
        let authority = Authority::load(&self.at("ca.crt"), &self.at("ca.key"))?;
        make_folder(&self.at("twin"))?;
        let hosts = [String::from("localhost"), String::from("127.0.0.1")];
        let issued = authority.issue(&Name::Twin, &hosts, from_now(ISSUED_FOR))?;
        issued.save(&self.at("twin/tls.crt"), &self.at("twin/tls.key"))?;
        let matcher = fs::read_to_string(self.matcher_config());
        let matcher = matcher.map_err(|e| FileError::Read { path: self.matcher_config(), kind: e.kind() })?;
        let holders = holders_of(&matcher);
        write_public(&self.twin_config(), twin_config(port, metrics, &holders).as_bytes())?;
        // The matcher's file comes last: one with a twin is of a whole one.
        let matcher = format!(
            "{matcher}\n[twin]\nurl = \"https://127.0.0.1:{port}\"\n\n[paillier]\npublic_key = \"../paillier.pub\"\n"
        );
        write_public(&self.matcher_config(), matcher.as_bytes())?;
        for party in Party::ALL {
            // They are in the holders' memories; a file that stays is sealed.
            let _ = fs::remove_file(self.share(party));
        }
        Ok(())
    }

    /// The matcher's configuration file.
    #[must_use]
    pub fn matcher_config(&self) -> PathBuf {
        self.at("matcher").join("matcher.toml")
    }

    /// Where its processes listen: what was written when it was made.
    ///
    /// # Errors
    /// [`CliError`](crate::exit::CliError) if its configuration files cannot be read.
    pub fn ports(&self) -> Result<Ports, crate::exit::CliError> {
        use crate::exit::CliError;
        let matcher = veilmatch_matcher::Config::load(&self.matcher_config()).map_err(CliError::protocol)?;
        let mut ports = Ports {
            matcher: matcher.listen.port(),
            holders: [0; 3],
            matcher_metrics: matcher.metrics.map_or(0, |address| address.port()),
            holder_metrics: [0; 3],
            twin: 0,
            twin_metrics: 0,
        };
        if matcher.paillier.is_some() {
            let twin = veilmatch_matcher::TwinConfig::load(&self.twin_config()).map_err(CliError::protocol)?;
            ports.twin = twin.listen.port();
            ports.twin_metrics = twin.metrics.map_or(0, |address| address.port());
        }
        for ((port, metrics), party) in ports.holders.iter_mut().zip(&mut ports.holder_metrics).zip(Party::ALL) {
            let path = self.holder_config(party);
            let holder = veilmatch_keyholder::config::Config::load(&path).map_err(CliError::protocol)?;
            (*port, *metrics) = (holder.listen.port(), holder.metrics.map_or(0, |address| address.port()));
        }
        Ok(ports)
    }

    /// The folder of the logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.at("logs")
    }
}

/// `k0`, `k1` or `k2`.
pub(super) fn label(party: Party) -> String {
    format!("k{}", party.index())
}

fn make_folder(path: &Path) -> Result<(), DeploymentError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|e| DeploymentError::Folder { path: path.to_owned(), kind: e.kind() })
}

const TLS: &str = "[tls]\ncertificate = \"tls.crt\"\nkey = \"tls.key\"\nca = \"../ca.crt\"\n";

fn holder_config(party: Party, ports: Ports, administrator: &str) -> String {
    let port = |of: Party| ports.holders.get(of.index()).copied().unwrap_or_default();
    let metrics = ports.holder_metrics.get(party.index()).copied().unwrap_or_default();
    let peers: String =
        party.peers().map(|peer| format!("{} = \"https://127.0.0.1:{}\"\n", label(peer), port(peer))).concat();
    let cards: String = Party::ALL.map(|of| format!("{0} = \"../cards/{0}.card\"\n", label(of))).concat();
    format!(
        "# Made by `veilmatch`; server/keyholder/samples/keyholder.toml explains the keys.\n\
         party = \"{name}\"\nlisten = \"127.0.0.1:{listen}\"\ndata = \"data\"\n\
         administrators = [\"{administrator}\"]\n\n\
         [keys]\nfile = \"holder.keys\"\nunlock = \"unlock\"\n\n{TLS}\n\
         [peers]\n{peers}\n[cards]\n{cards}\n[log]\nformat = \"text\"\n\n\
         [metrics]\nlisten = \"127.0.0.1:{metrics}\"\n",
        name = label(party),
        listen = port(party),
    )
}

fn matcher_config(ports: Ports, administrator: &str) -> String {
    let [k0, k1, k2] = ports.holders;
    format!(
        "# Made by `veilmatch`; server/matcher/samples/matcher.toml explains the keys.\n\
         listen = \"127.0.0.1:{}\"\ndata = \"data\"\nadministrators = [\"{administrator}\"]\n\n{TLS}\n\
         [holders]\nk0 = \"https://127.0.0.1:{k0}\"\nk1 = \"https://127.0.0.1:{k1}\"\nk2 = \"https://127.0.0.1:{k2}\"\n\n\
         [log]\nformat = \"text\"\n\n[metrics]\nlisten = \"127.0.0.1:{}\"\n",
        ports.matcher, ports.matcher_metrics,
    )
}

/// The lines of the table of holders in a matcher's configuration as it is made here.
fn holders_of(matcher: &str) -> String {
    let lines = matcher.lines().skip_while(|line| *line != "[holders]").skip(1);
    lines
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.is_empty())
        .map(|line| format!("{line}\n"))
        .collect()
}

fn twin_config(port: u16, metrics: u16, holders: &str) -> String {
    format!(
        "# Made by `veilmatch`; server/matcher/samples/twin.toml explains the keys.\n\
         listen = \"127.0.0.1:{port}\"\npublic_key = \"../paillier.pub\"\n\n{TLS}\n[holders]\n{holders}\n\
         [log]\nformat = \"text\"\n\n[metrics]\nlisten = \"127.0.0.1:{metrics}\"\n"
    )
}

fn profile(ports: Ports) -> String {
    let [k0, k1, k2] = ports.holders;
    format!(
        "# Made by `veilmatch`; client/cli/samples/veilmatch.toml explains the keys.\n\
         matcher = \"https://127.0.0.1:{}\"\nclient = \"{CLIENT}\"\nsigning_key = \"client/signing.key\"\n\
         administrator_key = \"admin.key\"\n\n\
         [tls]\ncertificate = \"client/tls.crt\"\nkey = \"client/tls.key\"\nca = \"ca.crt\"\n\n\
         [operator_tls]\ncertificate = \"operator/tls.crt\"\nkey = \"operator/tls.key\"\nca = \"ca.crt\"\n\n\
         [holders]\nk0 = \"https://127.0.0.1:{k0}\"\nk1 = \"https://127.0.0.1:{k1}\"\nk2 = \"https://127.0.0.1:{k2}\"\n\n\
         [cards]\nk0 = \"cards/k0.card\"\nk1 = \"cards/k1.card\"\nk2 = \"cards/k2.card\"\n",
        ports.matcher,
    )
}
