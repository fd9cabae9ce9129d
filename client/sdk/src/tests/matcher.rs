//! A matcher without cryptography: it stores digests, opens reply keys with the holders' keys, and plays what the test
//! scripted for the next calls.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use veilmatch_domain::{Outcome, Party, Purpose, SubjectId, TemplateDigest};
use veilmatch_glwe::{Refusal, Verdict};
use veilmatch_holder::{HolderSecretKey, unseal::unseal};
use veilmatch_sealed::{HolderPublicKey, SealedTemplate, SignedErasure, seal_reply};
use veilmatch_secret::Counter;
use veilmatch_transport::{Name, Security, Trust, listen, server};
use veilmatch_wire::v1::{self, matcher_server};
use veilmatch_wire::{TemplateInfo, TemplateState};

/// What happens to one call.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// It is refused with this code.
    Refuse(&'static str, u8),
    /// It takes effect, then the connection is lost.
    Lose,
    /// Nobody answers.
    Hang,
    /// K1's reply is another outcome's.
    Contradict,
    /// The answer belongs to something else.
    Confuse,
}

pub(super) fn refusal(code: &str, status: u8) -> Refusal {
    Refusal { code: code.into(), status, suspects: Vec::new(), message: format!("{code}; as the test wants") }
}

#[derive(Default)]
pub(super) struct State {
    /// For the next calls that are not reading, or items of a stream, in order.
    pub(super) script: VecDeque<Act>,
    /// Every sealed template, probe or erasure that arrived.
    pub(super) arrived: Vec<Bytes>,
    /// Templates by subject.
    pub(super) stored: BTreeMap<SubjectId, TemplateDigest>,
    /// Calls of `GetTemplate`.
    pub(super) lookups: usize,
    /// Streams opened.
    pub(super) streams: usize,
    /// Most items of a stream that were read and not answered.
    pub(super) most_unanswered: usize,
    /// Results are held back until so many items are unanswered.
    pub(super) hold: usize,
    /// After so many items altogether the stream breaks, once each.
    pub(super) breaks: Vec<usize>,
    /// A broken stream has stored what it took, without an answer.
    pub(super) items: usize,
    /// When so much has arrived, this clock moves on by these seconds, before the answer.
    pub(super) later: Option<(usize, Arc<AtomicU64>, u64)>,
    /// The `grpc-timeout` of the last call, in milliseconds.
    pub(super) timeout: Option<Duration>,
}

impl State {
    fn arrives(&mut self, bytes: &Bytes) {
        self.arrived.push(bytes.clone());
        if let Some((_, clock, seconds)) = self.later.take_if(|(arrivals, ..)| *arrivals == self.arrived.len()) {
            clock.fetch_add(seconds, Ordering::Relaxed);
        }
    }
}

#[derive(Clone)]
pub(super) struct Matcher {
    pub(super) address: SocketAddr,
    state: Arc<Mutex<State>>,
    keys: Arc<[HolderSecretKey; 3]>,
    _serving: Arc<Serving>,
}

struct Serving(JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Clone)]
struct Service {
    state: Arc<Mutex<State>>,
    keys: Arc<[HolderSecretKey; 3]>,
}

impl Matcher {
    pub(super) fn start() -> Self {
        let keys = Arc::new([1, 2, 3].map(|seed| HolderSecretKey::from_bytes(&[seed; 32]).unwrap()));
        let state = Arc::<Mutex<State>>::default();
        let incoming = listen("127.0.0.1:0".parse().unwrap(), Trust::Plaintext).unwrap();
        let address = incoming.local_addr().unwrap();
        let service = Service { state: Arc::clone(&state), keys: Arc::clone(&keys) };
        let router = server(&Security::Plaintext(Name::Matcher))
            .unwrap()
            .add_service(matcher_server::MatcherServer::new(service));
        let task = tokio::spawn(async move { router.serve_with_incoming(incoming).await.unwrap() });
        Self { address, state, keys, _serving: Arc::new(Serving(task)) }
    }

    pub(super) fn holder_keys(&self) -> [HolderPublicKey; 3] {
        self.keys.each_ref().map(|key| key.public_key().clone())
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// How many templates, probes and erasures arrived.
    pub(super) fn arrivals(&self) -> usize {
        self.state().arrived.len()
    }

    /// How often `GetTemplate` was called.
    pub(super) fn lookups(&self) -> usize {
        self.state().lookups
    }

    pub(super) fn plays(&self, acts: impl IntoIterator<Item = Act>) {
        self.state().script.extend(acts);
    }
}

/// As it looks to a client when the connection breaks: a transport's status without a refusal.
fn lost() -> Status {
    Status::unavailable("connection reset")
}

impl Service {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Notes what arrived and what is to happen.
    fn next<T>(&self, request: &Request<T>, bytes: &Bytes) -> Option<Act> {
        let mut state = self.state();
        state.arrives(bytes);
        state.timeout = request.metadata().get("grpc-timeout").map(|value| {
            let text = value.to_str().unwrap();
            let (number, unit) = text.split_at(text.len() - 1);
            let number = number.parse().unwrap();
            match unit {
                "n" => Duration::from_nanos(number),
                "u" => Duration::from_micros(number),
                "m" => Duration::from_millis(number),
                _ => Duration::from_secs(number),
            }
        });
        state.script.pop_front()
    }

    /// As a matcher must: the same template again is accepted, another of the same subject is not.
    fn store(&self, bytes: &Bytes) -> Verdict {
        let sealed = SealedTemplate::from_bytes(bytes).unwrap();
        let Purpose::Enrol { subject } = &sealed.associated().purpose else { panic!("not a template") };
        let mut state = self.state();
        match state.stored.get(subject) {
            Some(digest) if *digest == sealed.digest() => Verdict::Accepted,
            Some(_) => Verdict::Refused(refusal("already-enrolled", 6)),
            None => {
                state.stored.insert(subject.clone(), sealed.digest());
                Verdict::Accepted
            }
        }
    }

    async fn answer(&self, request: Request<v1::SealedQuery>) -> Result<Response<v1::SealedAnswer>, Status> {
        let act = self.next(&request, &request.get_ref().sealed_probe);
        match act {
            Some(Act::Refuse(code, status)) => return Err(veilmatch_wire::status(&refusal(code, status))),
            Some(Act::Lose) => return Err(lost()),
            Some(Act::Hang) => std::future::pending().await,
            _ => {}
        }
        let sealed = SealedTemplate::from_bytes(&request.get_ref().sealed_probe).unwrap();
        let Purpose::Probe(query) = &sealed.associated().purpose else { panic!("not a probe") };
        let all = self.keys.each_ref().map(|key| key.public_key().clone());
        let [k0, k1, k2] = Party::ALL.map(|party| {
            use veilmatch_domain::Decision::{Best, Exists, Matches, Verify};
            let yes = !matches!((party, &act), (Party::K1, Some(Act::Contradict)));
            let names: Vec<_> = self.state().stored.keys().take(2).cloned().collect();
            let outcome = match &query.decision {
                Verify { .. } => Outcome::Verify(yes),
                Exists => Outcome::Exists(yes),
                Best => Outcome::Best(names.first().cloned()),
                Matches { .. } => Outcome::Matches(names),
            };
            let opened = unseal(party, &self.keys[party.index()], &all, &sealed).unwrap();
            let mut counter = Counter::new();
            let digest = sealed.digest();
            Bytes::from(seal_reply(&opened.reply, &mut counter, &digest, party, query, &outcome).unwrap())
        });
        let [reply_k0, reply_k1, reply_k2] =
            if matches!(act, Some(Act::Confuse)) { [k1, k0, k2] } else { [k0, k1, k2] };
        Ok(Response::new(v1::SealedAnswer { reply_k0, reply_k1, reply_k2 }))
    }
}

type Results = Pin<Box<dyn Stream<Item = Result<v1::EnrollResult, Status>> + Send>>;

#[tonic::async_trait]
impl matcher_server::Matcher for Service {
    type EnrollStreamStream = Results;

    async fn enroll(&self, request: Request<v1::EnrollRequest>) -> Result<Response<v1::EnrollResponse>, Status> {
        let [bytes] = request.get_ref().sealed_templates.as_slice() else { panic!("one template was sent") };
        let (sequence, verdict) = match self.next(&request, bytes) {
            Some(Act::Refuse(code, status)) => (0, Verdict::Refused(refusal(code, status))),
            Some(Act::Hang) => std::future::pending().await,
            Some(Act::Lose) => {
                self.store(bytes);
                return Err(lost());
            }
            Some(Act::Confuse) => (3, self.store(bytes)),
            _ => (0, self.store(bytes)),
        };
        Ok(Response::new(v1::EnrollResponse { results: vec![v1::EnrollResult::new(sequence, &verdict)] }))
    }

    async fn enroll_stream(
        &self,
        request: Request<Streaming<v1::EnrollStreamRequest>>,
    ) -> Result<Response<Results>, Status> {
        self.state().streams += 1;
        let mut items = request.into_inner();
        let (results, outgoing) = mpsc::channel(10_000);
        let own = self.clone();
        tokio::spawn(async move {
            let mut held = Vec::new();
            loop {
                // A pause in the stream means that the client's window is full, or that it has nothing more.
                let item = tokio::time::timeout(Duration::from_millis(100), items.message()).await;
                if let Ok(Ok(Some(item))) = item {
                    let (act, broken) = {
                        let mut state = own.state();
                        state.items += 1;
                        state.arrives(&item.sealed_template);
                        let count = state.items;
                        (state.script.pop_front(), state.breaks.contains(&count))
                    };
                    let result = match act {
                        Some(Act::Refuse(code, status)) => Verdict::Refused(refusal(code, status)),
                        Some(Act::Hang) => std::future::pending().await,
                        Some(Act::Confuse) => {
                            let _ = results.send(Ok(v1::EnrollResult::new(1 << 40, &Verdict::Accepted))).await;
                            return;
                        }
                        _ => own.store(&item.sealed_template),
                    };
                    if broken {
                        let _ = results.send(Err(lost())).await;
                        return;
                    }
                    held.push(v1::EnrollResult::new(item.sequence, &result));
                    let mut state = own.state();
                    state.most_unanswered = state.most_unanswered.max(held.len());
                    if held.len() < state.hold {
                        continue;
                    }
                } else if item.is_ok() {
                    return;
                }
                // In any order.
                for result in held.drain(..).rev() {
                    let _ = results.send(Ok(result)).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn identify(&self, request: Request<v1::SealedQuery>) -> Result<Response<v1::SealedAnswer>, Status> {
        self.answer(request).await
    }

    async fn verify(&self, request: Request<v1::SealedQuery>) -> Result<Response<v1::SealedAnswer>, Status> {
        self.answer(request).await
    }

    async fn erase(&self, request: Request<v1::EraseRequest>) -> Result<Response<v1::EraseResponse>, Status> {
        let bytes = &request.get_ref().signed_erasure;
        let act = self.next(&request, bytes);
        if let Some(Act::Refuse(code, status)) = act {
            return Err(veilmatch_wire::status(&refusal(code, status)));
        }
        let erased = self.state().stored.remove(&SignedErasure::from_bytes(bytes).unwrap().subject).is_some();
        match act {
            Some(Act::Lose) => Err(lost()),
            _ => Ok(Response::new(v1::EraseResponse { complete: !erased })),
        }
    }

    async fn get_template(&self, request: Request<v1::GetTemplateRequest>) -> Result<Response<v1::Template>, Status> {
        let mut state = self.state();
        state.lookups += 1;
        let subject = SubjectId::new(request.get_ref().subject.clone()).unwrap();
        match state.stored.get(&subject) {
            Some(&digest) => {
                let state = TemplateState::Indexed;
                Ok(Response::new(TemplateInfo { subject, digest, state, sealed_bytes: 4000 }.into()))
            }
            None => Err(veilmatch_wire::status(&refusal("unknown-subject", 5))),
        }
    }

    async fn list_templates(
        &self,
        request: Request<v1::ListTemplatesRequest>,
    ) -> Result<Response<v1::ListTemplatesResponse>, Status> {
        let v1::ListTemplatesRequest { page_size, page_token, .. } = request.into_inner();
        let state = self.state();
        let rest = state.stored.iter().filter(|(subject, _)| subject.as_str() > page_token.as_str());
        let templates: Vec<v1::Template> = rest
            .take(page_size as usize)
            .map(|(subject, &digest)| {
                TemplateInfo { subject: subject.clone(), digest, state: TemplateState::Pending, sealed_bytes: 1 }.into()
            })
            .collect();
        let last = templates.last().map(|template| template.subject.clone()).unwrap_or_default();
        let next_page_token =
            if state.stored.keys().any(|s| s.as_str() > last.as_str()) { last } else { String::new() };
        Ok(Response::new(v1::ListTemplatesResponse { templates, next_page_token }))
    }

    async fn server_info(&self, request: Request<v1::ServerInfoRequest>) -> Result<Response<v1::ServerInfo>, Status> {
        match self.next(&request, &Bytes::new()) {
            Some(Act::Lose) => return Err(lost()),
            Some(Act::Confuse) => return Ok(Response::new(v1::ServerInfo::default())),
            _ => {}
        }
        let holders = Party::ALL
            .map(|party| v1::HolderConnection { holder: v1::Party::from(party).into(), connected: party != Party::K1 });
        Ok(Response::new(v1::ServerInfo {
            version: "0.1.0".into(),
            parameters: "glwe-2048-v1".into(),
            key_epoch: Some(4),
            holders: holders.to_vec(),
            collections: 1,
            limits: Some(v1::Limits { max_batch: 512, max_message_bytes: 16 << 20 }),
        }))
    }

    async fn list_collections(
        &self,
        request: Request<v1::ListCollectionsRequest>,
    ) -> Result<Response<v1::ListCollectionsResponse>, Status> {
        let first = request.get_ref().page_token.is_empty();
        let collection = v1::Collection {
            name: if first { "guests".into() } else { "staff".into() },
            dimension: 16,
            metric: v1::Metric::Cosine.into(),
            scheme: v1::Scheme::Glwe.into(),
            ..Default::default()
        };
        let next_page_token = if first { "guests".into() } else { String::new() };
        Ok(Response::new(v1::ListCollectionsResponse { collections: vec![collection], next_page_token }))
    }

    async fn get_collection(&self, _: Request<v1::GetCollectionRequest>) -> Result<Response<v1::Collection>, Status> {
        Err(Status::unimplemented("not asked by these tests"))
    }

    async fn create_collection(
        &self,
        _: Request<v1::CreateCollectionRequest>,
    ) -> Result<Response<v1::Collection>, Status> {
        Err(Status::unimplemented("not asked by these tests"))
    }

    async fn administer(&self, _: Request<v1::SignedRequest>) -> Result<Response<v1::AdministerResponse>, Status> {
        Err(Status::unimplemented("not asked by these tests"))
    }
}
