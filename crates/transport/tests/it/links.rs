//! A link to a key holder whose connection is cut: it comes back, and no message arrives twice or in part.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};
use veilmatch_transport::{
    Backoff, DownReason, Incoming, Link, LinkDown, LinkEvent, LinkOptions, Name, Outlet, QueueLimits, Replies, Trust,
    channel, peer_name, queue,
};
use veilmatch_wire::v1::key_holder_client::KeyHolderClient;
use veilmatch_wire::v1::key_holder_server::{KeyHolder, KeyHolderServer};
use veilmatch_wire::v1::{self, Chunk};

use crate::support::{K0, Proxy, Serving, authority, current, endpoint, identity, serve, until};

const LIMIT: usize = 8 << 20;
const QUEUE: QueueLimits = QueueLimits { messages: 100, bytes: 64 << 20 };

/// A key holder that keeps what comes over `Peer` and says it back.
#[derive(Clone, Default)]
struct Echo {
    received: Arc<Mutex<Vec<Vec<u8>>>>,
    streams: Arc<Mutex<Vec<Outlet>>>,
    /// Streams end at once, in order.
    closed: bool,
}

type Entries = tokio_stream::Pending<Result<v1::AuditEntries, Status>>;

#[tonic::async_trait]
impl KeyHolder for Echo {
    type RecryptStream = Replies;
    type DecideStream = Replies;
    type PeerStream = Replies;
    type ProbeSharesStream = Replies;
    type AuditStream = Entries;
    type RestoreStream = Replies;

    async fn peer(&self, request: Request<Streaming<Chunk>>) -> Result<Response<Replies>, Status> {
        peer_name(&request, Trust::Certificates).map_err(|e| veilmatch_wire::status_of(&e, Vec::new()))?;
        let (outlet, outgoing) = queue(QUEUE);
        let mut incoming = Incoming::new(request.into_inner(), LIMIT);
        if !self.closed {
            let echo = self.clone();
            echo.streams.lock().unwrap().push(outlet.clone());
            tokio::spawn(async move {
                while let Ok(Some(message)) = incoming.next().await {
                    echo.received.lock().unwrap().push(message.clone());
                    // While the other side does not read, nothing more is taken from it.
                    while outlet.send(message.clone()) == Err(LinkDown::Full) {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }
                echo.streams.lock().unwrap().retain(|stream| !stream.is_closed());
            });
        }
        Ok(Response::new(outgoing.replies()))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::HolderStatus>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn administer(&self, _: Request<v1::SignedRequest>) -> Result<Response<v1::AdministerResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn ceremony(&self, _: Request<v1::SignedRequest>) -> Result<Response<v1::CeremonyResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn recrypt(&self, _: Request<Streaming<Chunk>>) -> Result<Response<Replies>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn decide(&self, _: Request<Streaming<Chunk>>) -> Result<Response<Replies>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn probe_shares(&self, _: Request<v1::ProbeSharesRequest>) -> Result<Response<Replies>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn audit(&self, _: Request<v1::AuditRequest>) -> Result<Response<Entries>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn restore(&self, _: Request<v1::RestoreRequest>) -> Result<Response<Replies>, Status> {
        Err(Status::unimplemented(""))
    }
}

fn options() -> LinkOptions {
    LinkOptions {
        queue: QUEUE,
        message_limit: LIMIT,
        backoff: Backoff { first: Duration::from_millis(20), most: Duration::from_millis(200) },
        ..Default::default()
    }
}

struct Bench {
    echo: Echo,
    _serving: Serving,
    proxy: Proxy,
    link: Link,
    events: mpsc::Receiver<LinkEvent>,
}

async fn bench(echo: Echo, options: LinkOptions, room: usize) -> Bench {
    let ca = authority();
    let serving = serve(&identity(&ca, &ca, &K0, current()), |mut s| s.add_service(KeyHolderServer::new(echo.clone())));
    let proxy = Proxy::to(serving.address).await;
    let security = identity(&ca, &ca, &Name::Matcher, current());
    let connection = channel(&endpoint(proxy.address, Trust::Certificates), &security, &K0).unwrap();
    let client = KeyHolderClient::new(connection);
    let (sender, events) = mpsc::channel(room);
    let open = move |outgoing| {
        let mut client = client.clone();
        async move { client.peer(outgoing).await }
    };
    Bench { echo, _serving: serving, proxy, link: Link::spawn(open, options, sender), events }
}

impl Bench {
    async fn next(&mut self) -> LinkEvent {
        timeout(Duration::from_secs(20), self.events.recv()).await.unwrap().unwrap()
    }

    async fn up(&mut self) {
        while !matches!(self.next().await, LinkEvent::Up) {}
    }

    async fn message(&mut self) -> Vec<u8> {
        loop {
            if let LinkEvent::Message(message) = self.next().await {
                return message;
            }
        }
    }
}

/// A message that shows whether all of it is there, in its place.
fn numbered(number: u32, bytes: usize) -> Vec<u8> {
    let mut message = number.to_le_bytes().to_vec();
    message.extend(
        (0..bytes as u32).map(|i| (number.wrapping_mul(31).wrapping_add(i.wrapping_mul(2_654_435_761) >> 11)) as u8),
    );
    message
}

fn number_of(message: &[u8]) -> u32 {
    let number = u32::from_le_bytes(message[..4].try_into().unwrap());
    assert!(message == numbered(number, message.len() - 4), "message {number} is not whole");
    number
}

#[tokio::test]
async fn messages_of_every_size_go_both_ways_in_order() {
    let mut bench = bench(Echo::default(), options(), 100).await;
    assert_eq!(bench.link.send(vec![1]), Err(LinkDown::NotConnected));
    bench.up().await;
    for (number, bytes) in [0, 1, 1000, (1 << 20) - 4, 1 << 20, 5 << 20].into_iter().enumerate() {
        bench.link.send(numbered(number as u32, bytes)).unwrap();
    }
    for number in 0..6 {
        assert_eq!(number_of(&bench.message().await), number);
    }
}

#[tokio::test]
async fn a_cut_link_comes_back_and_delivers_nothing_twice_or_in_part() {
    let mut bench = bench(Echo::default(), options(), 100).await;
    let mut number = 0u32;
    for round in 0..4 {
        bench.up().await;
        for _ in 0..10 {
            bench.link.send(numbered(number, 3 << 20)).unwrap();
            number += 1;
        }
        // Somewhere in the middle of 30 MiB.
        let before = bench.echo.received.lock().unwrap().len();
        until("messages arrive", || bench.echo.received.lock().unwrap().len() > before + round).await;
        bench.proxy.cut();
        while !matches!(bench.next().await, LinkEvent::Down(_)) {}
        assert_eq!(bench.link.send(vec![1; 4]), Err(LinkDown::NotConnected));
        assert!(!bench.link.is_up());
    }
    bench.up().await;
    bench.link.send(numbered(number, 10)).unwrap();
    while number_of(&bench.message().await) != number {}
    let received = bench.echo.received.lock().unwrap();
    let numbers: Vec<u32> = received.iter().map(|message| number_of(message)).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), numbers.len(), "{numbers:?}");
    assert!(numbers.len() < number as usize + 1, "cutting in the middle loses what waited: {numbers:?}");
}

#[tokio::test]
async fn a_slow_receiver_fills_the_queue_instead_of_memory() {
    let limits = QueueLimits { messages: 100, bytes: 4 << 20 };
    // Nobody takes events: the echo is not read, so neither side can go on.
    let mut bench = bench(Echo::default(), LinkOptions { queue: limits, ..options() }, 1).await;
    until("the link is up", || bench.link.is_up()).await;
    let mut sent = 0u32;
    let refused = loop {
        match bench.link.send(numbered(sent, 1 << 20)) {
            Ok(()) => sent += 1,
            Err(LinkDown::Full) if bench.echo.received.lock().unwrap().len() >= 100 => panic!("nothing holds it back"),
            Err(LinkDown::Full) => {
                let before = bench.echo.received.lock().unwrap().len();
                tokio::time::sleep(Duration::from_millis(300)).await;
                if bench.echo.received.lock().unwrap().len() == before {
                    break LinkDown::Full;
                }
            }
            Err(other) => break other,
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(refused, LinkDown::Full);
    let too_long = LinkDown::TooLong { found: (5 << 20) + 4, limit: 4 << 20 };
    assert_eq!(bench.link.send(numbered(0, 5 << 20)), Err(too_long));
    // Once events are taken, everything goes on.
    for number in 0..sent.min(20) {
        assert_eq!(number_of(&bench.message().await), number);
    }
}

#[tokio::test]
async fn a_message_beyond_the_limit_breaks_the_stream_and_says_why() {
    let mut bench = bench(Echo::default(), LinkOptions { message_limit: 1000, ..options() }, 100).await;
    bench.up().await;
    bench.link.send(numbered(1, 2000)).unwrap();
    let LinkEvent::Down(DownReason::Broken(error)) = bench.next().await else { panic!("another event") };
    assert!(error.to_string().contains("more than 1000 bytes"), "{error}");
    bench.up().await;
    bench.link.send(numbered(2, 10)).unwrap();
    assert_eq!(number_of(&bench.message().await), 2);
}

#[tokio::test]
async fn a_stream_that_ends_in_order_is_reported_and_tried_again() {
    let mut bench = bench(Echo { closed: true, ..Default::default() }, options(), 100).await;
    for _ in 0..3 {
        assert!(matches!(bench.next().await, LinkEvent::Up));
        assert!(matches!(bench.next().await, LinkEvent::Down(DownReason::Ended)));
    }
}

#[tokio::test]
async fn nobody_at_the_other_end_is_reported_with_the_cause() {
    let ca = authority();
    let security = identity(&ca, &ca, &Name::Matcher, current());
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = KeyHolderClient::new(channel(&endpoint(free, Trust::Certificates), &security, &K0).unwrap());
    let (sender, mut events) = mpsc::channel(10);
    let open = move |outgoing| {
        let mut client = client.clone();
        async move { client.peer(outgoing).await }
    };
    let link = Link::spawn(open, options(), sender);
    for _ in 0..3 {
        let LinkEvent::Down(reason) = events.recv().await.unwrap() else { panic!("another event") };
        assert!(reason.to_string().contains("onnection refused"), "{reason}");
    }
    assert_eq!(link.send(Vec::new()), Err(LinkDown::NotConnected));
}

#[tokio::test]
async fn dropping_the_link_or_its_events_closes_the_stream() {
    let echo = Echo::default();
    let mut first = bench(echo.clone(), options(), 100).await;
    first.up().await;
    first.link.send(numbered(0, 1)).unwrap();
    first.message().await;
    assert_eq!(echo.streams.lock().unwrap().len(), 1);
    drop(first.link);
    until("the server sees the end", || echo.streams.lock().unwrap().iter().all(Outlet::is_closed)).await;

    let echo = Echo::default();
    let mut second = bench(echo.clone(), options(), 100).await;
    second.up().await;
    drop(second.events);
    until("the link ends", || !second.link.is_up()).await;
    until("the server sees the end", || echo.streams.lock().unwrap().iter().all(Outlet::is_closed)).await;
}
