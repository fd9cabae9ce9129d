//! A TCP proxy on loopback that can be cut, slowed, stalled and pointed at somebody else.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Bytes that are passed on at once.
const CHUNK: usize = 16 << 10;

/// What the proxy does with connections and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Passes them on, each chunk after a delay.
    Forward { delay: Duration },
    /// Keeps connections open and passes nothing on.
    Stall,
    /// Closes them.
    Cut,
}

#[derive(Clone, Copy)]
struct State {
    mode: Mode,
    target: u16,
    /// Connections of an older generation are closed.
    generation: u64,
}

/// A proxy in front of a port of this machine. Ends when this is dropped.
pub(crate) struct Proxy {
    /// Where it listens, on 127.0.0.1.
    pub(crate) port: u16,
    state: Arc<watch::Sender<State>>,
    bytes: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = Mode::Forward { delay: Duration::ZERO };
        let state = Arc::new(watch::Sender::new(State { mode, target, generation: 0 }));
        let bytes = Arc::<AtomicU64>::default();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state), Arc::clone(&bytes)));
        Self { port, state, bytes, accepting }
    }

    /// Closes all connections and every new one.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| {
            state.mode = Mode::Cut;
            state.generation += 1;
        });
    }

    /// Forwards again, at full speed.
    pub(crate) fn heal(&self) {
        self.slow(Duration::ZERO);
    }

    /// Forwards, each chunk after a delay.
    pub(crate) fn slow(&self, delay: Duration) {
        self.state.send_modify(|state| state.mode = Mode::Forward { delay });
    }

    /// Keeps connections open, accepts new ones, and forwards nothing.
    pub(crate) fn stall(&self) {
        self.state.send_modify(|state| state.mode = Mode::Stall);
    }

    /// Closes all connections; new ones go to another port.
    pub(crate) fn redirect(&self, target: u16) {
        self.state.send_modify(|state| {
            state.target = target;
            state.generation += 1;
        });
    }

    /// Bytes forwarded so far, both directions together.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<watch::Sender<State>>, bytes: Arc<AtomicU64>) {
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        let now = *state.borrow();
        if now.mode == Mode::Cut {
            continue;
        }
        let (state, bytes) = (state.subscribe(), Arc::clone(&bytes));
        tokio::spawn(async move {
            let mut cut = state.clone();
            let _ = tokio::select! {
                _ = cut.wait_for(|state| state.generation != now.generation) => Ok(()),
                ended = connect(near, now.target, state, bytes) => ended,
            };
        });
    }
}

async fn connect(near: TcpStream, target: u16, state: watch::Receiver<State>, bytes: Arc<AtomicU64>) -> io::Result<()> {
    let far = TcpStream::connect(("127.0.0.1", target)).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::select! {
        ended = pass(near_in, far_out, state.clone(), &bytes) => ended,
        ended = pass(far_in, near_out, state.clone(), &bytes) => ended,
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    bytes: &AtomicU64,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let forwards = |state: &State| matches!(state.mode, Mode::Forward { .. });
        let mode = match state.wait_for(forwards).await {
            Ok(state) => state.mode,
            Err(_) => return Ok(()),
        };
        if let Mode::Forward { delay } = mode
            && !delay.is_zero()
        {
            sleep(delay).await;
        }
        to.write_all(&chunk[..read]).await?;
        bytes.fetch_add(read as u64, Ordering::Relaxed);
    }
}
