//! A deployment's authority, servers on free ports, and a proxy that cuts connections.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tonic::transport::server::Router;
use veilmatch_domain::{Party, Timestamp};
use veilmatch_secret::Secret;
use veilmatch_transport::{Authority, Endpoint, Identity, Name, Security, Trust, Validity, listen, server};

pub(crate) const K0: Name = Name::Holder(Party::K0);

#[expect(clippy::disallowed_methods, reason = "the one clock of these tests: rustls compares with the real time")]
pub(crate) fn now() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

pub(crate) fn authority() -> Authority {
    let now = now().0;
    Authority::new("test", Validity { not_before: Timestamp(now - 100_000), not_after: Timestamp(now + 100_000) })
        .unwrap()
}

pub(crate) fn current() -> Validity {
    let now = now().0;
    Validity { not_before: Timestamp(now - 60), not_after: Timestamp(now + 3600) }
}

pub(crate) fn expired() -> Validity {
    let now = now().0;
    Validity { not_before: Timestamp(now - 3600), not_after: Timestamp(now - 60) }
}

/// An identity that `issuer` signed and that accepts certificates of `accepted`.
pub(crate) fn identity(issuer: &Authority, accepted: &Authority, name: &Name, validity: Validity) -> Security {
    let issued = issuer.issue(name, &[], validity).unwrap();
    let key = Secret::new(issued.key.expose().clone().into_bytes());
    let authority = accepted.certificate().to_owned().into_bytes();
    Security::Tls(Identity::from_pem(issued.certificate.into_bytes(), key, authority).unwrap())
}

/// A server that is stopped when this is dropped.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn serve(security: &Security, services: impl FnOnce(tonic::transport::Server) -> Router) -> Serving {
    let incoming = listen("127.0.0.1:0".parse().unwrap(), security.trust()).unwrap();
    let address = incoming.local_addr().unwrap();
    let router = services(server(security).unwrap());
    let task = tokio::spawn(async move { router.serve_with_incoming(incoming).await.unwrap() });
    Serving { address, task }
}

pub(crate) fn endpoint(address: SocketAddr, trust: Trust) -> Endpoint {
    let scheme = if trust == Trust::Plaintext { "http" } else { "https" };
    Endpoint::parse(&format!("{scheme}://{address}"), true).unwrap()
}

/// Passes connections on to a server, and cuts all of them on demand.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
    listener: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let open = Arc::clone(&connections);
        let listener = tokio::spawn(async move {
            while let Ok((mut near, _)) = socket.accept().await {
                let task = tokio::spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(server).await {
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
                open.lock().unwrap().push(task);
            }
        });
        Self { address, connections, listener }
    }

    /// Cuts every connection; new ones are passed on again.
    pub(crate) fn cut(&self) {
        self.connections.lock().unwrap().drain(..).for_each(|task| task.abort());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
        self.cut();
    }
}

/// Waits for a condition that another task brings about.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 10 s: {what}");
}
