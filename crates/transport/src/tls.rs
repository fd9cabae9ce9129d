//! Channels and servers: mutual TLS, keep-alive and timeouts, set in this one place.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::{Interceptor, interceptor::InterceptedService};
use tonic::transport::{Channel, ClientTlsConfig, Server, ServerTlsConfig, server::TcpIncoming};
use tonic::{Request, Status as RpcStatus};
use veilmatch_domain::{Explain, Status};

use crate::{Endpoint, Name, NameError, Security, Trust};

/// Time to connect, and again to shake hands.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that is silent for this long is pinged, and given up if the answer takes as long again.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Flow-control windows in bytes: a few chunks may be on their way.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Bytes in one frame: the sums of a large gallery are megabytes, and every frame passes several queues. Over loopback, messages
/// of 128 KiB take a fifth less processor time than with the default of 16 KiB, and larger frames save nothing more.
const FRAME: u32 = 64 << 10;

/// Calls that one connection may have open.
const STREAMS: u32 = 256;

/// The metadata in which a caller introduces itself in plaintext.
const INTRODUCTION: &str = "veilmatch-name";

/// Why a channel or a server cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The certificate, the key or the authority's certificate is unusable, or they do not belong together.
    #[error("the certificate and key cannot be used: {}", cause(.0))]
    Material(#[source] tonic::transport::Error),
    /// Plaintext with somebody who is reached by TLS, or the other way round.
    #[error("{endpoint} does not fit this process's own transport")]
    Mixed {
        /// Whom.
        endpoint: Endpoint,
    },
    /// Plaintext on an address that other machines reach.
    #[error("{address} is not loopback; plaintext is not served there")]
    Exposed {
        /// Where.
        address: SocketAddr,
    },
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {kind}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the operating system says.
        kind: std::io::ErrorKind,
    },
}

impl Explain for TlsError {
    fn code(&self) -> &'static str {
        match self {
            Self::Material(_) => "bad-certificate",
            Self::Mixed { .. } => "mixed-transport",
            Self::Exposed { .. } => "plaintext-exposed",
            Self::Listen { .. } => "cannot-listen",
        }
    }

    fn status(&self) -> Status {
        Status::FailedPrecondition
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Material(_) => "give a certificate, its own key and the authority that issued it",
            Self::Mixed { .. } => "use https everywhere, or plaintext everywhere on one machine",
            Self::Exposed { .. } => "configure TLS, or listen on 127.0.0.1",
            Self::Listen { .. } => "check that the address is this machine's and that no other process uses the port",
        }
    }
}

/// Why a caller is nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// No certificate came with the connection.
    #[error("the caller has no certificate")]
    Anonymous,
    /// A plaintext call that did not come from this machine.
    #[error("a plaintext call from another machine")]
    Remote,
    /// A plaintext caller that did not introduce itself, or did so twice.
    #[error("the caller did not introduce itself")]
    Introduction,
    /// The certificate or introduction names nobody.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Explain for PeerError {
    fn code(&self) -> &'static str {
        match self {
            Self::Name(e) => e.code(),
            _ => "unknown-caller",
        }
    }

    fn status(&self) -> Status {
        Status::PermissionDenied
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Name(e) => e.advice(),
            _ => "call with a certificate of the deployment's authority",
        }
    }
}

/// A channel to a known peer. Cheap to clone; generated clients are built `with` it.
pub type Connection = InterceptedService<Channel, Introduction>;

/// Says who calls, where no certificate does.
#[derive(Clone, Debug)]
pub struct Introduction(Option<MetadataValue<Ascii>>);

impl Interceptor for Introduction {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, RpcStatus> {
        if let Some(name) = &self.0 {
            request.metadata_mut().insert(INTRODUCTION, name.clone());
        }
        Ok(request)
    }
}

/// A channel to `expected` at `endpoint`. It dials at the first call and again after a break; under TLS, a server whose
/// certificate has another name, is expired or comes from another authority fails every call.
///
/// Must be called inside a tokio runtime.
///
/// # Errors
/// [`TlsError::Material`], [`TlsError::Mixed`].
pub fn channel(endpoint: &Endpoint, security: &Security, expected: &Name) -> Result<Connection, TlsError> {
    if endpoint.trust() != security.trust() {
        return Err(TlsError::Mixed { endpoint: endpoint.clone() });
    }
    let mut dial = Channel::from_shared(endpoint.to_string())
        .map_err(|_| TlsError::Mixed { endpoint: endpoint.clone() })?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME);
    let introduction = match security {
        Security::Tls(identity) => {
            let config = ClientTlsConfig::new()
                .ca_certificate(identity.authority())
                .identity(identity.to_tonic())
                .domain_name(expected.dns())
                .timeout(CONNECT_TIMEOUT);
            dial = dial.tls_config(config).map_err(TlsError::Material)?;
            None
        }
        Security::Plaintext(name) => name.dns().parse().ok(),
    };
    Ok(InterceptedService::new(dial.connect_lazy(), Introduction(introduction)))
}

/// A server to add services to; serve it with [`listen`]. Under TLS, a caller without a current certificate of the
/// authority does not get past the handshake.
///
/// # Errors
/// [`TlsError::Material`].
pub fn server(security: &Security) -> Result<Server, TlsError> {
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(STREAMS);
    match security {
        Security::Tls(identity) => {
            let config = ServerTlsConfig::new()
                .identity(identity.to_tonic())
                .client_ca_root(identity.authority())
                .client_auth_optional(false)
                .timeout(CONNECT_TIMEOUT);
            server.tls_config(config).map_err(TlsError::Material)
        }
        Security::Plaintext(_) => Ok(server),
    }
}

/// Binds a listening socket; port 0 takes a free one (ask `local_addr`).
///
/// Must be called inside a tokio runtime.
///
/// # Errors
/// [`TlsError::Exposed`] for plaintext beyond loopback, [`TlsError::Listen`].
pub fn listen(address: SocketAddr, trust: Trust) -> Result<TcpIncoming, TlsError> {
    if trust == Trust::Plaintext && !address.ip().is_loopback() {
        return Err(TlsError::Exposed { address });
    }
    let incoming = TcpIncoming::bind(address).map_err(|e| TlsError::Listen { address, kind: e.kind() })?;
    Ok(incoming.with_nodelay(Some(true)))
}

/// Who calls.
///
/// # Errors
/// [`PeerError`].
pub fn peer_name<T>(request: &Request<T>, trust: Trust) -> Result<Name, PeerError> {
    match trust {
        Trust::Certificates => {
            let certificates = request.peer_certs().ok_or(PeerError::Anonymous)?;
            let leaf = certificates.first().ok_or(PeerError::Anonymous)?;
            Ok(Name::of_certificate(leaf)?)
        }
        Trust::Plaintext => {
            if !request.remote_addr().is_some_and(|address| address.ip().is_loopback()) {
                return Err(PeerError::Remote);
            }
            let mut introductions = request.metadata().get_all(INTRODUCTION).iter();
            match (introductions.next().and_then(|value| value.to_str().ok()), introductions.next()) {
                (Some(name), None) => Ok(name.parse()?),
                _ => Err(PeerError::Introduction),
            }
        }
    }
}

/// An error with everything that it came from, in one line: what tonic calls "transport error" and why.
#[must_use]
pub fn cause(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let inner = error.to_string();
        if !text.ends_with(&inner) {
            text.push_str(": ");
            text.push_str(&inner);
        }
        source = error.source();
    }
    text
}
