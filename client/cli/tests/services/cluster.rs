//! A small deployment under test: four processes, a few people, short deadlines.

use std::collections::BTreeSet;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep};
use veilmatch_cli::local::{Deployment, Ports, Role, Running};
use veilmatch_cli::synthetic;
use veilmatch_domain::{
    ClientId, CollectionId, Dimension, Embedding, Explain as _, Outcome, Party, Policy, Roles, SchemeName, Status,
    SubjectId, Suspect, Threshold, Timestamp,
};
use veilmatch_paillier::KeySize;
use veilmatch_sdk::{Ask, Collection, Error, Options, TemplateState, Veilmatch};
use veilmatch_sealed::{Administration, ClientSigningKey};
use veilmatch_secret::{Secret, os_entropy};
use veilmatch_service::now;
use veilmatch_threshold::test_keys;
use veilmatch_transport::{Authority, Identity, Issued, Name, Security, Validity};

use crate::proxy::Proxy;

/// Deployments at a time: each is four processes.
static ROOM: Semaphore = Semaphore::const_new(2);

/// The matcher's deadline of a search, as configured below.
pub(crate) const SEARCH: Duration = Duration::from_secs(3);
/// How long the matcher finishes what it has acknowledged, as configured below.
pub(crate) const SHUTDOWN: Duration = Duration::from_secs(15);
/// What a call may take beyond its deadline: the machine may be busy.
pub(crate) const SLACK: Duration = Duration::from_secs(5);
/// How long a service may take until it works again.
pub(crate) const RECOVERY: Duration = Duration::from_secs(30);
/// People who are enrolled when a test begins: 0 to 5.
pub(crate) const PEOPLE: u64 = 6;

/// The matcher's deadline of a search under the scheme `paillier`, as configured below.
pub(crate) const PAILLIER_SEARCH: Duration = Duration::from_secs(8);

const MATCHER_DEADLINES: &str = "\n[deadlines]\nsearch = \"3s\"\nchange = \"5s\"\nshutdown = \"15s\"\n";
const HOLDER_DEADLINES: &str = "\n[deadlines]\nquery = \"2s\"\nadmission = \"4s\"\nbuild = \"8s\"\nshutdown = \"5s\"\n";

/// Arithmetic modulo N² takes its time on a busy machine; the matcher still knows first.
const LONGER: [(&str, &str); 5] = [
    ("search = \"3s\"", "search = \"8s\""),
    ("change = \"5s\"", "change = \"20s\""),
    ("query = \"2s\"", "query = \"12s\""),
    ("admission = \"4s\"", "admission = \"20s\""),
    ("build = \"8s\"", "build = \"30s\""),
];

/// A face by number: the same number is the same person's same image, another number somebody else's.
pub(crate) fn face(number: u64) -> Embedding {
    let dimension = Dimension::new(64).unwrap();
    synthetic::people(1, 1, dimension, number).unwrap().pop().unwrap().pop().unwrap()
}

/// The subject whose face has this number.
pub(crate) fn person(number: u64) -> String {
    format!("person-{number:05}")
}

/// People by number, for a bulk enrolment.
pub(crate) fn people(numbers: impl IntoIterator<Item = u64>) -> Vec<(SubjectId, Embedding)> {
    numbers.into_iter().map(|n| (SubjectId::new(person(n)).unwrap(), face(n))).collect()
}

pub(crate) fn threshold() -> Threshold {
    Threshold::new(0.7).unwrap()
}

pub(crate) fn policy() -> Policy {
    Policy::permissive(Dimension::new(64).unwrap())
}

/// Certificates of the last hour.
pub(crate) fn expired() -> Validity {
    let end = now().0 - 60;
    Validity { not_before: Timestamp(end - 3600), not_after: Timestamp(end) }
}

/// Certificates for the next hour.
pub(crate) fn current() -> Validity {
    let now = now().0;
    Validity { not_before: Timestamp(now - 300), not_after: Timestamp(now + 3600) }
}

/// An error that says all that a test wants to know.
pub(crate) fn described(error: &Error) -> String {
    format!("{} {:?} {error} {:?}", error.reason(), error.status(), error.suspects())
}

/// Checks status and code of a refusal.
pub(crate) fn assert_refused(error: &Error, status: Status, codes: &[&str]) {
    assert!(error.refusal().is_some(), "not refused by a party: {}", described(error));
    assert!(error.status() == status && codes.contains(&error.reason()), "{}", described(error));
}

/// Whether one of these holders is among those whom the error points at.
pub(crate) fn names(error: &Error, parties: &[Party]) -> bool {
    error.suspects().iter().any(|suspect: &Suspect| parties.iter().any(|party| suspect.includes(*party)))
}

/// Asks again until the answer is yes.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, within: Duration, mut ask: impl FnMut() -> F) {
    let begun = Instant::now();
    while !ask().await {
        assert!(begun.elapsed() < within, "{what}: not within {within:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// A deployment whose files are made and may still be changed.
pub(crate) struct Setup {
    room: SemaphorePermit<'static>,
    folder: TempDir,
    pub(crate) deployment: Deployment,
    pub(crate) ports: Ports,
    policy: Policy,
    program: PathBuf,
}

impl Setup {
    pub(crate) async fn new() -> Self {
        let room = ROOM.acquire().await.unwrap();
        let folder = tempfile::Builder::new().prefix("veilmatch-services-").tempdir().unwrap();
        let ports = Ports::free().unwrap();
        let deployment = Deployment::create(&folder.path().join("d"), ports).unwrap();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_veilmatch"));
        let setup = Self { room, folder, deployment, ports, policy: policy(), program };
        setup.append(Role::Matcher, MATCHER_DEADLINES);
        Party::ALL.into_iter().for_each(|party| setup.append(Role::Holder(party), HOLDER_DEADLINES));
        setup
    }

    /// One with a twin, whose collection is under the scheme `paillier`; its key is from primes that anybody can read.
    pub(crate) async fn paillier() -> Self {
        let mut setup = Self::new().await;
        let dealt = test_keys::deal(KeySize::Bits2048, os_entropy().as_mut()).unwrap();
        setup.deployment.keep_key(&dealt).unwrap();
        setup.deployment.add_twin(setup.ports.twin, setup.ports.twin_metrics).unwrap();
        for role in Role::ALL {
            let path = setup.config(role);
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(path, LONGER.iter().fold(text, |text, (from, to)| text.replace(from, to))).unwrap();
        }
        setup.policy(Policy { scheme: SchemeName::Paillier, ..policy() });
        setup
    }

    fn config(&self, role: Role) -> PathBuf {
        match role {
            Role::Twin => self.deployment.twin_config(),
            Role::Matcher => self.deployment.matcher_config(),
            Role::Holder(party) => self.deployment.holder_config(party),
        }
    }

    /// Adds tables to a configuration file.
    pub(crate) fn append(&self, role: Role, text: &str) {
        let path = self.config(role);
        let whole = std::fs::read_to_string(&path).unwrap() + text;
        std::fs::write(path, whole).unwrap();
    }

    /// The policy of the collection.
    pub(crate) fn policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Has every process survive the signal of a file that may not grow, as one on a disk that is full would.
    pub(crate) fn survive_limits(&mut self) {
        let script = self.folder.path().join("veilmatch");
        let text = format!("#!/bin/sh\ntrap '' XFSZ\nexec '{}' \"$@\"\n", self.program.display());
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        self.program = script;
    }

    /// Puts a proxy between a party and a holder that it dials.
    pub(crate) async fn between(&self, caller: Role, holder: Party) -> Proxy {
        let target = self.ports.holders[holder.index()];
        let proxy = Proxy::start(target).await;
        let address = |port: u16| format!("k{} = \"https://127.0.0.1:{port}\"", holder.index());
        let path = self.config(caller);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(&address(target)), "{text}");
        std::fs::write(path, text.replace(&address(target), &address(proxy.port))).unwrap();
        proxy
    }

    /// Starts it, holds the ceremony, creates the collection and enrols [`PEOPLE`].
    pub(crate) async fn start(self) -> Cluster {
        let Self { room, folder, deployment, ports, policy, program } = self;
        let running = Running::start(&program, deployment).await.unwrap();
        running.create_collection(&CollectionId::new("faces").unwrap(), policy).await.unwrap();
        let veilmatch = running.deployment().client().unwrap();
        let faces = veilmatch.collection("faces").unwrap();
        let cluster = Cluster { running, veilmatch, faces, ports, newcomers: AtomicU64::new(0), folder, _room: room };
        let enrolment = cluster.faces.enroll_many(people(0..PEOPLE), |_| ()).await.unwrap();
        assert_eq!(enrolment.accepted() as u64, PEOPLE, "{enrolment:?}");
        cluster.indexed(PEOPLE).await;
        cluster
    }
}

/// A deployment that runs.
pub(crate) struct Cluster {
    pub(crate) running: Running,
    /// With the defaults: what an application would use.
    pub(crate) veilmatch: Veilmatch,
    pub(crate) faces: Collection,
    pub(crate) ports: Ports,
    newcomers: AtomicU64,
    folder: TempDir,
    _room: SemaphorePermit<'static>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::env::var_os("VEILMATCH_KEEP").is_some() {
            self.folder.disable_cleanup(true);
            let _ = writeln!(std::io::stderr(), "kept: {}", self.folder.path().display());
        }
    }
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Setup::new().await.start().await
    }

    pub(crate) fn root(&self) -> &Path {
        self.running.deployment().folder()
    }

    /// The same client, which repeats nothing: a test sees the first refusal.
    pub(crate) fn once(&self) -> Collection {
        let options = self.running.deployment().client_options().unwrap();
        Self::open(Options {
            retries: 0,
            deadline: Duration::from_secs(20),
            enroll_deadline: Duration::from_secs(40),
            ..options
        })
    }

    /// The same client, which does not give up: it repeats what is safe to repeat for as long as a recovery may take.
    pub(crate) fn patient(&self) -> Collection {
        let options = self.running.deployment().client_options().unwrap();
        Self::open(Options { retries: 40, enroll_deadline: 2 * RECOVERY, window: 64, ..options })
    }

    /// The collection as a client with these options sees it.
    pub(crate) fn open(options: Options) -> Collection {
        Veilmatch::prepare(options).unwrap().collection("faces").unwrap()
    }

    /// The authority of the deployment.
    pub(crate) fn authority(&self) -> Authority {
        Authority::load(&self.root().join("ca.crt"), &self.root().join("ca.key")).unwrap()
    }

    /// An identity that trusts the deployment's authority, whoever issued its own certificate.
    pub(crate) fn identity(&self, issued: Issued) -> Security {
        let authority = std::fs::read(self.root().join("ca.crt")).unwrap();
        let key = Secret::new(issued.key.expose().as_bytes().to_vec());
        Security::Tls(Identity::from_pem(issued.certificate.into_bytes(), key, authority).unwrap())
    }

    /// A client's options with another identity.
    pub(crate) fn options(&self, client: &str, key: &ClientSigningKey, security: Security) -> Options {
        Options {
            security,
            client: ClientId::new(client).unwrap(),
            signing_key: ClientSigningKey::from_bytes(key.secret_bytes().expose()),
            retries: 0,
            ..self.running.deployment().client_options().unwrap()
        }
    }

    /// Registers a client with every party and gives it a certificate.
    pub(crate) async fn register(
        &self,
        client: &str,
        roles: Roles,
        collections: Option<&[&str]>,
    ) -> (ClientSigningKey, Options) {
        let key = ClientSigningKey::random(os_entropy().as_mut());
        let id = ClientId::new(client).unwrap();
        let collections = collections.map(|names| -> BTreeSet<CollectionId> {
            names.iter().map(|name| CollectionId::new(*name).unwrap()).collect()
        });
        let action =
            Administration::RegisterClient { client: id.clone(), key: key.verifying_key(), roles, collections };
        self.running.operator.at_holders(&Party::ALL, &action).await.unwrap();
        self.running.operator.at_matcher(action).await.unwrap();
        let issued = self.authority().issue(&Name::Client(id), &[], current()).unwrap();
        let options = self.options(client, &key, self.identity(issued));
        (key, options)
    }

    pub(crate) async fn kill(&mut self, role: Role) {
        self.running.processes.kill(role).await;
    }

    pub(crate) async fn restart(&mut self, role: Role) {
        self.running.processes.restart(role).await.unwrap();
    }

    pub(crate) fn signal(&self, role: Role, signal: Signal) {
        self.running.processes.signal(role, signal);
    }

    /// Waits until a process has ended by itself; says how.
    pub(crate) async fn ends(&mut self, within: Duration) -> String {
        let begun = Instant::now();
        loop {
            if let Err(ended) = self.running.processes.check() {
                return ended.to_string();
            }
            assert!(begun.elapsed() < within, "nothing has ended within {within:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The log of a process so far.
    pub(crate) fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.running.deployment().logs().join(format!("{name}.log"))).unwrap()
    }

    /// Waits until so many templates are stored and all of them are searchable.
    pub(crate) async fn indexed(&self, templates: u64) {
        let settled = async || match self.faces.info().await {
            Ok(info) => (info.templates, info.pending) == (templates, 0),
            Err(_) => false,
        };
        until(&format!("{templates} templates, all searchable"), RECOVERY, settled).await;
    }

    /// Everybody who is stored, in order.
    pub(crate) async fn stored(&self) -> Vec<String> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = self.faces.templates(1000, after.as_deref()).await.unwrap();
            all.extend(page.items.into_iter().map(|template| template.subject.to_string()));
            match page.next {
                Some(next) => after = Some(next),
                None => return all,
            }
        }
    }

    /// Whether a search finds this person, and nobody else in the person's place.
    pub(crate) async fn finds(&self, number: u64) -> Result<(), String> {
        let failed = |error: Error| format!("{}: {}", person(number), described(&error));
        if !self.faces.verify(&person(number), &face(number), threshold()).await.map_err(failed)? {
            return Err(format!("{}: a mated probe was rejected", person(number)));
        }
        if self.faces.verify(&person(number), &face(number + 1_000_000), threshold()).await.map_err(failed)? {
            return Err(format!("{}: a non-mated probe was accepted", person(number)));
        }
        Ok(())
    }

    /// Verifies, identifies, enrols and erases.
    pub(crate) async fn works(&self) -> Result<(), String> {
        let step = |what: &'static str| move |error: Error| format!("{what}: {}", described(&error));
        self.finds(0).await?;
        let found = self.faces.identify(&face(2), Ask::Best, threshold()).await.map_err(step("identify"))?;
        if found != Outcome::Best(Some(SubjectId::new(person(2)).unwrap())) {
            return Err(format!("identify: {found:?}"));
        }
        let number = 50_000 + self.newcomers.fetch_add(1, Ordering::Relaxed);
        let newcomer = person(number);
        self.faces.enroll(&newcomer, &face(number)).await.map_err(step("enrol"))?;
        until("a newcomer is searchable", RECOVERY, async || {
            let stored = self.faces.get(&newcomer).await;
            stored.is_ok_and(|stored| stored.is_some_and(|stored| stored.state == TemplateState::Indexed))
        })
        .await;
        self.finds(number).await?;
        self.faces.erase(&newcomer).await.map_err(step("erase"))?;
        match self.faces.verify(&newcomer, &face(number), threshold()).await {
            Err(error) if error.reason() == "unknown-subject" => Ok(()),
            other => Err(format!("verify after the erasure: {other:?}")),
        }
    }

    /// Works again, without a hand, within [`RECOVERY`].
    pub(crate) async fn recovers(&self) {
        let begun = Instant::now();
        while let Err(why) = self.works().await {
            assert!(
                begun.elapsed() < RECOVERY,
                "after {RECOVERY:?}: {why}; the matcher says:\n{}",
                self.log("matcher")
            );
            sleep(Duration::from_millis(100)).await;
        }
    }
}
