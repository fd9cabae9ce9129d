//! Three key holders on free ports of this machine, with an authority, cards, keys and an administrator of their own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use veilmatch_domain::{ClientId, Epoch, Party, Roles, Timestamp};
use veilmatch_keyholder::config::Config;
use veilmatch_keyholder::keyfile::{Cost, Unlock};
use veilmatch_keyholder::setup::init;
use veilmatch_keyholder::{ServeError, Server};
use veilmatch_sealed::{Administration, Audience, ClientSigningKey, SignedAdministration};
use veilmatch_secret::{Secret, os_entropy};
use veilmatch_transport::{Authority, Connection, Endpoint, Identity, Name, Security, Validity, channel};
use veilmatch_wire::v1::key_holder_client::KeyHolderClient;
use veilmatch_wire::v1::{HolderStatus, SignedRequest, StatusRequest};

#[expect(clippy::disallowed_methods, reason = "the one clock of these tests: rustls compares with the real time")]
pub(crate) fn now() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

pub(crate) fn validity() -> Validity {
    let now = now().0;
    Validity { not_before: Timestamp(now - 60), not_after: Timestamp(now + 3600) }
}

pub(crate) type Client = KeyHolderClient<Connection>;

pub(crate) struct Deployment {
    folder: tempfile::TempDir,
    authority: Authority,
    administrator: ClientSigningKey,
    ports: [u16; 3],
}

impl Deployment {
    /// Certificates, configurations, keys and cards of all three; nothing runs yet.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Certificates are issued later, and must not outlive it.
        let lasting = Validity { not_after: Timestamp(now().0 + 7200), ..validity() };
        let authority = Authority::new("test", lasting).unwrap();
        authority.save(&folder.path().join("ca.pem"), &folder.path().join("ca.key")).unwrap();
        let sockets = [0; 3].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = sockets.map(|socket| socket.local_addr().unwrap().port());
        let administrator = ClientSigningKey::random(&mut *os_entropy());
        let deployment = Self { folder, authority, administrator, ports };
        for party in Party::ALL {
            let issued = deployment.authority.issue(&Name::Holder(party), &[], validity()).unwrap();
            let path = |suffix: &str| deployment.path(&format!("k{}.{suffix}", party.index()));
            issued.save(&path("pem"), &path("key")).unwrap();
            std::fs::write(path("toml"), deployment.configuration(party)).unwrap();
            init(&deployment.config(party), &unlock(), Cost::default()).unwrap();
        }
        deployment
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn config_path(&self, party: Party) -> PathBuf {
        self.path(&format!("k{}.toml", party.index()))
    }

    pub(crate) fn config(&self, party: Party) -> Config {
        Config::load(&self.config_path(party)).unwrap()
    }

    fn configuration(&self, party: Party) -> String {
        let (own, port) = (party.index(), |party: Party| self.ports[party.index()]);
        let [one, other] = party.peers();
        let peer = |party: Party| format!("k{} = \"https://127.0.0.1:{}\"", party.index(), port(party));
        format!(
            "party = \"k{own}\"\nlisten = \"127.0.0.1:{}\"\ndata = \"k{own}.data\"\nadministrators = [\"{}\"]\n\
             [keys]\nfile = \"k{own}.keys\"\n\
             [tls]\ncertificate = \"k{own}.pem\"\nkey = \"k{own}.key\"\nca = \"ca.pem\"\n\
             [peers]\n{}\n{}\n[cards]\nk0 = \"k0.card\"\nk1 = \"k1.card\"\nk2 = \"k2.card\"\n\
             [threads]\nquery = 1\nbulk = 1\n[deadlines]\nshutdown = \"1s\"\n[log]\nformat = \"text\"\n",
            port(party),
            STANDARD.encode(self.administrator.verifying_key().to_bytes()),
            peer(one),
            peer(other)
        )
    }

    pub(crate) async fn start(&self, party: Party) -> Running {
        let server = Server::open(self.config(party), unlock()).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server.serve(async move {
            let _ = stopped.await;
        }));
        Running { stop, task }
    }

    pub(crate) async fn start_all(&self) -> [Running; 3] {
        let running = [self.start(Party::K0).await, self.start(Party::K1).await, self.start(Party::K2).await];
        self.all_connected().await;
        running
    }

    pub(crate) async fn all_connected(&self) {
        for party in Party::ALL {
            let mut client = self.operator(party);
            until("holders are connected", async || {
                status(&mut client).await.is_ok_and(|s| s.peers_connected.len() == 2)
            })
            .await;
        }
    }

    /// A caller with a certificate of the deployment's authority.
    pub(crate) fn call_as(&self, name: &Name, party: Party) -> Client {
        KeyHolderClient::new(self.connection(name, party))
    }

    pub(crate) fn connection(&self, name: &Name, party: Party) -> Connection {
        let issued = self.authority.issue(name, &[], validity()).unwrap();
        let key = Secret::new(issued.key.expose().clone().into_bytes());
        let authority = self.authority.certificate().to_owned().into_bytes();
        let identity = Identity::from_pem(issued.certificate.into_bytes(), key, authority).unwrap();
        let endpoint = format!("https://127.0.0.1:{}", self.ports[party.index()]);
        let endpoint = Endpoint::parse(&endpoint, false).unwrap();
        channel(&endpoint, &Security::Tls(identity), &Name::Holder(party)).unwrap()
    }

    pub(crate) fn operator(&self, party: Party) -> Client {
        self.call_as(&operator(), party)
    }

    /// An administrator's request for all holders.
    pub(crate) fn signed(&self, action: Administration) -> SignedRequest {
        let mut nonce = [0; 16];
        os_entropy().fill_bytes(&mut nonce);
        let (issued, expires) = (now(), Timestamp(now().0 + 600));
        let signed = SignedAdministration::sign(Audience::ALL, nonce, issued, expires, action, &self.administrator);
        SignedRequest { request: signed.to_bytes().into() }
    }

    /// Registers a client with a fresh key.
    pub(crate) fn registration(&self, client: &str) -> SignedRequest {
        let key = ClientSigningKey::random(&mut *os_entropy()).verifying_key();
        let client = ClientId::new(client).unwrap();
        self.signed(Administration::RegisterClient { client, key, roles: Roles::ALL, collections: None })
    }

    /// Holds a ceremony at all three.
    pub(crate) async fn ceremony(&self, epoch: u32) {
        let request = self.signed(Administration::BeginEpoch { epoch: Epoch(epoch) });
        let mut clients = Party::ALL.map(|party| self.operator(party));
        let [k0, k1, k2] = &mut clients;
        let held = tokio::join!(k0.ceremony(request.clone()), k1.ceremony(request.clone()), k2.ceremony(request));
        for held in [held.0, held.1, held.2] {
            assert_eq!(held.unwrap().into_inner().epoch, epoch);
        }
    }
}

pub(crate) fn operator() -> Name {
    "anna.operator.veilmatch".parse().unwrap()
}

/// A key file opens in no time; a passphrase does not.
pub(crate) fn unlock() -> Unlock {
    let folder = tempfile::tempdir().unwrap();
    Unlock::key_file(&write_private(folder.path(), &[7; 32])).unwrap()
}

pub(crate) fn write_private(folder: &Path, bytes: &[u8]) -> PathBuf {
    let path = folder.join("unlock");
    veilmatch_transport::write_new_private(&path, bytes).unwrap();
    path
}

pub(crate) async fn status(client: &mut Client) -> Result<HolderStatus, tonic::Status> {
    client.status(StatusRequest {}).await.map(tonic::Response::into_inner)
}

/// The code of the refusal that a failed call carries.
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, tonic::Status>) -> String {
    let failed = result.unwrap_err();
    veilmatch_wire::refusal(&failed).unwrap_or_else(|| panic!("no refusal: {failed:?}")).code
}

pub(crate) struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Running {
    /// Ends in order, as on SIGTERM.
    pub(crate) async fn stop(self) -> Result<(), ServeError> {
        self.stop.send(()).unwrap();
        self.task.await.unwrap()
    }
}

/// Waits for a condition that somebody else brings about.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within 30 s: {what}");
}
