//! The gRPC service: checks of form and caller, then a question to the core.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use veilmatch_domain::{CollectionId, Party, Purpose, SchemeName, SubjectId};
use veilmatch_gallery::{CollectionIndex, Description};
use veilmatch_glwe::{ClientAnswer, ClientRequest, Refusal, Verdict};
use veilmatch_matching::MatcherError;
use veilmatch_paillier::KeySize;
use veilmatch_sealed::{Administration, SealedTemplate, SignedErasure};
use veilmatch_service::now;
use veilmatch_transport::{Name, Trust, peer_name};
use veilmatch_wire::v1::matcher_server::Matcher as Rpc;
use veilmatch_wire::{
    CollectionInfo, MAX_BATCH, MAX_MESSAGE_BYTES, TemplateInfo, TemplateState, WireError, page_size, status, status_of,
    v1,
};

use crate::core::Handle;
use crate::register::Register;

/// How long a stream of enrolments waits for more before it sends what has come to the holders.
const LINGER: Duration = Duration::from_millis(20);

/// The service.
pub(crate) struct Service {
    pub(crate) core: Handle,
    pub(crate) register: Arc<Mutex<Register>>,
    pub(crate) trust: Trust,
    pub(crate) parameters: &'static str,
}

/// Counts what clients send, by the bytes of what they sealed or signed.
fn received(bytes: &[u8]) {
    metrics::counter!("veilmatch_client_received_bytes_total").increment(bytes.len() as u64);
}

/// Counts what clients get.
fn sent(bytes: usize) {
    metrics::counter!("veilmatch_client_sent_bytes_total").increment(bytes as u64);
}

fn refused(refusal: Refusal) -> Status {
    status(&refusal)
}

fn bad(error: impl Into<WireError>) -> Status {
    status_of(&error.into(), vec![veilmatch_domain::Suspect::Client])
}

/// An answer of another kind than the request's: a mistake in this program.
fn odd() -> Status {
    Status::internal("the core gave an answer of another kind; report this with the matcher's logs")
}

impl Service {
    fn register<T>(&self, act: impl FnOnce(&mut Register) -> Result<T, crate::RegisterError>) -> Result<T, Status> {
        act(&mut self.register.lock().unwrap_or_else(PoisonError::into_inner))
            .map_err(|e| status_of(&e, vec![veilmatch_domain::Suspect::Client]))
    }

    fn caller<T>(&self, request: &Request<T>) -> Result<Name, Status> {
        peer_name(request, self.trust).map_err(|e| status_of(&e, vec![veilmatch_domain::Suspect::Client]))
    }

    /// The caller, if it may use the collection.
    fn admit<T>(&self, request: &Request<T>, collection: &CollectionId) -> Result<(), Status> {
        let caller = self.caller(request)?;
        self.register(|register| register.admits(&caller, collection, None))
    }

    /// Checks a sealed template's form, purpose and signer before it costs anybody anything.
    fn check_sealed(&self, caller: &Name, bytes: &[u8], enrol: Option<&CollectionId>) -> Result<(), Refusal> {
        received(bytes);
        let sealed = SealedTemplate::from_bytes(bytes).map_err(|e| MatcherError::from(e).refusal())?;
        let associated = sealed.associated();
        let fits = match enrol {
            Some(collection) => associated.purpose.enrols().is_some() && associated.collection == *collection,
            None => matches!(associated.purpose, Purpose::Probe(_)),
        };
        if !fits {
            return Err(MatcherError::WrongUse.refusal());
        }
        self.register
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .admits(caller, &associated.collection, Some(&associated.client))
            .map_err(|e| Refusal::new(&e, vec![veilmatch_domain::Suspect::Client]))
    }

    async fn ask(&self, request: Request<v1::SealedQuery>) -> Result<Response<v1::SealedAnswer>, Status> {
        let caller = self.caller(&request)?;
        let sealed = request.into_inner().sealed_probe;
        self.check_sealed(&caller, &sealed, None).map_err(refused)?;
        let sealed = sealed.to_vec();
        match self.core.request(ClientRequest::Ask { sealed }).await.map_err(refused)? {
            ClientAnswer::Replies { replies: [k0, k1, k2] } => {
                sent(k0.len() + k1.len() + k2.len());
                let answer = v1::SealedAnswer { reply_k0: k0.into(), reply_k1: k1.into(), reply_k2: k2.into() };
                Ok(Response::new(answer))
            }
            _ => Err(odd()),
        }
    }

    async fn info(&self, name: CollectionId) -> Result<v1::Collection, Status> {
        let wanted = name.clone();
        let found = self
            .core
            .look(move |matcher| matcher.collection(&wanted).map(|(d, index)| describe(&wanted, d, index)))
            .await
            .map_err(refused)?;
        found.map(Into::into).ok_or_else(|| refused(MatcherError::UnknownCollection(name).refusal()))
    }
}

fn describe(name: &CollectionId, description: &Description, index: &CollectionIndex) -> CollectionInfo {
    CollectionInfo {
        name: name.clone(),
        dimension: description.dimension,
        scheme: scheme_of(description),
        parameters: description.parameters.clone(),
        group_capacity: description.group_capacity,
        templates: index.len() as u64,
        pending: index.pending().len() as u64,
        groups: index.groups().count() as u64,
        created: description.created,
    }
}

/// The scheme that the parameter set belongs to.
fn scheme_of(description: &Description) -> SchemeName {
    let is_paillier = KeySize::ALL.into_iter().any(|size| size.parameters() == description.parameters);
    if is_paillier { SchemeName::Paillier } else { SchemeName::Glwe }
}

fn template(subject: &SubjectId, stored: &veilmatch_gallery::StoredTemplate, sealed_bytes: u64) -> TemplateInfo {
    let state = if stored.group.is_some() { TemplateState::Indexed } else { TemplateState::Pending };
    TemplateInfo { subject: subject.clone(), digest: stored.digest, state, sealed_bytes }
}

/// Enrols what a stream brings, in batches as large as what has come, and answers item by item.
struct Enrolment {
    core: Handle,
    results: mpsc::Sender<Result<v1::EnrollResult, Status>>,
}

impl Enrolment {
    /// Enrols one batch; `false` if nobody listens any more.
    async fn batch(&self, collection: &CollectionId, items: Vec<(u64, Vec<u8>)>, more_follows: bool) -> bool {
        let (sequences, templates): (Vec<u64>, Vec<Vec<u8>>) = items.into_iter().unzip();
        let content = ClientRequest::Enroll { collection: collection.clone(), templates, more_follows };
        let verdicts = match self.core.request(content).await {
            Ok(ClientAnswer::Enrolled { verdicts }) if verdicts.len() == sequences.len() => verdicts,
            Ok(_) => return self.results.send(Err(odd())).await.is_ok(),
            // The whole batch failed, for a reason that every item can be told: the client may send each again.
            Err(refusal) => vec![Verdict::Refused(refusal); sequences.len()],
        };
        for (sequence, verdict) in sequences.into_iter().zip(verdicts) {
            if self.results.send(Ok(v1::EnrollResult::new(sequence, &verdict))).await.is_err() {
                return false;
            }
        }
        true
    }
}

#[tonic::async_trait]
impl Rpc for Service {
    async fn server_info(&self, request: Request<v1::ServerInfoRequest>) -> Result<Response<v1::ServerInfo>, Status> {
        self.caller(&request)?;
        let (epoch, connected, collections) = self
            .core
            .look(|matcher| (matcher.epoch(), matcher.connected(), matcher.collections().count()))
            .await
            .map_err(refused)?;
        let holders = Party::ALL
            .into_iter()
            .zip(connected)
            .map(|(party, connected)| v1::HolderConnection { holder: v1::Party::from(party).into(), connected })
            .collect();
        Ok(Response::new(v1::ServerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            parameters: self.parameters.to_owned(),
            key_epoch: epoch.map(|epoch| epoch.0),
            holders,
            collections: collections as u64,
            limits: Some(v1::Limits { max_batch: MAX_BATCH as u32, max_message_bytes: MAX_MESSAGE_BYTES as u64 }),
        }))
    }

    async fn create_collection(
        &self,
        request: Request<v1::CreateCollectionRequest>,
    ) -> Result<Response<v1::Collection>, Status> {
        self.caller(&request)?;
        let signed = request.into_inner().signed_administration;
        let action = self.register(|register| register.administer(&signed, now()))?;
        let Administration::SetPolicy { collection, policy, description } = action else {
            return Err(refused(MatcherError::WrongUse.refusal()));
        };
        let capacity = if description.group_capacity == 0 { u32::MAX } else { description.group_capacity };
        let description = Description {
            dimension: policy.dimension,
            parameters: description.parameters.to_string(),
            group_capacity: capacity,
            created: now(),
        };
        self.core.describe(collection.clone(), description).await.map_err(refused)?;
        Ok(Response::new(self.info(collection).await?))
    }

    async fn get_collection(
        &self,
        request: Request<v1::GetCollectionRequest>,
    ) -> Result<Response<v1::Collection>, Status> {
        let name = CollectionId::new(request.get_ref().name.clone()).map_err(bad)?;
        self.admit(&request, &name)?;
        Ok(Response::new(self.info(name).await?))
    }

    async fn list_collections(
        &self,
        request: Request<v1::ListCollectionsRequest>,
    ) -> Result<Response<v1::ListCollectionsResponse>, Status> {
        let caller = self.caller(&request)?;
        let v1::ListCollectionsRequest { page_size: size, page_token } = request.into_inner();
        let size = page_size(size).map_err(bad)?;
        let after = if page_token.is_empty() { None } else { Some(CollectionId::new(page_token).map_err(bad)?) };
        let all: Vec<CollectionInfo> = self
            .core
            .look(|matcher| matcher.collections().map(|(id, d, index)| describe(id, d, index)).collect())
            .await
            .map_err(refused)?;
        // A client sees its own collections alone.
        let mut visible = all
            .into_iter()
            .filter(|info| after.as_ref().is_none_or(|after| info.name > *after))
            .filter(|info| self.register(|register| register.admits(&caller, &info.name, None)).is_ok());
        let page: Vec<CollectionInfo> = visible.by_ref().take(size).collect();
        let more = visible.next().is_some();
        let next_page_token = page.last().filter(|_| more).map(|info| info.name.to_string()).unwrap_or_default();
        let collections = page.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListCollectionsResponse { collections, next_page_token }))
    }

    async fn enroll(&self, request: Request<v1::EnrollRequest>) -> Result<Response<v1::EnrollResponse>, Status> {
        let caller = self.caller(&request)?;
        let v1::EnrollRequest { collection, sealed_templates } = request.into_inner();
        let collection = CollectionId::new(collection).map_err(bad)?;
        let mut results: Vec<Option<Verdict>> = Vec::with_capacity(sealed_templates.len());
        let mut templates = Vec::new();
        for bytes in &sealed_templates {
            let checked = self.check_sealed(&caller, bytes, Some(&collection));
            results.push(checked.err().map(Verdict::Refused));
            if matches!(results.last(), Some(None)) {
                templates.push(bytes.to_vec());
            }
        }
        if !templates.is_empty() || results.is_empty() {
            let content = ClientRequest::Enroll { collection, templates, more_follows: false };
            let ClientAnswer::Enrolled { verdicts } = self.core.request(content).await.map_err(refused)? else {
                return Err(odd());
            };
            let mut verdicts = verdicts.into_iter();
            for open in results.iter_mut().filter(|result| result.is_none()) {
                *open = verdicts.next();
            }
        }
        let results = (0u64..)
            .zip(results)
            .map(|(sequence, verdict)| Ok(v1::EnrollResult::new(sequence, &verdict.ok_or_else(odd)?)))
            .collect::<Result<_, Status>>()?;
        Ok(Response::new(v1::EnrollResponse { results }))
    }

    type EnrollStreamStream = ReceiverStream<Result<v1::EnrollResult, Status>>;

    async fn enroll_stream(
        &self,
        request: Request<Streaming<v1::EnrollStreamRequest>>,
    ) -> Result<Response<Self::EnrollStreamStream>, Status> {
        let caller = self.caller(&request)?;
        let (results, answers) = mpsc::channel(MAX_BATCH);
        let (items, mut checked) = mpsc::channel::<(CollectionId, u64, Vec<u8>)>(MAX_BATCH);
        let enrolment = Enrolment { core: self.core.clone(), results: results.clone() };
        let (register, trust, parameters) = (Arc::clone(&self.register), self.trust, self.parameters);
        let service = Service { core: self.core.clone(), register, trust, parameters };
        // One task reads and checks, one enrols: while a batch is with the holders, the next one comes in.
        tokio::spawn(async move {
            let mut stream = request.into_inner();
            loop {
                let item = match stream.message().await {
                    Ok(Some(item)) => item,
                    Ok(None) => return,
                    Err(error) => return drop(results.send(Err(error)).await),
                };
                let read = CollectionId::new(item.collection)
                    .map_err(|e| Refusal::new(&WireError::from(e), vec![veilmatch_domain::Suspect::Client]));
                let verdict = read.and_then(|collection| {
                    service.check_sealed(&caller, &item.sealed_template, Some(&collection)).map(|()| collection)
                });
                let sent = match verdict {
                    Ok(collection) => {
                        items.send((collection, item.sequence, item.sealed_template.to_vec())).await.is_ok()
                    }
                    Err(refusal) => {
                        let result = v1::EnrollResult::new(item.sequence, &Verdict::Refused(refusal));
                        results.send(Ok(result)).await.is_ok()
                    }
                };
                if !sent {
                    return;
                }
            }
        });
        tokio::spawn(async move {
            let mut next = checked.recv().await;
            let mut touched = None;
            while let Some((collection, sequence, bytes)) = next.take() {
                let mut batch = vec![(sequence, bytes)];
                let mut ended = false;
                while batch.len() < MAX_BATCH {
                    match tokio::time::timeout(LINGER, checked.recv()).await {
                        Ok(Some((same, sequence, bytes))) if same == collection => batch.push((sequence, bytes)),
                        Ok(Some(other)) => {
                            next = Some(other);
                            break;
                        }
                        Ok(None) => {
                            ended = true;
                            break;
                        }
                        Err(_) => break,
                    }
                }
                if !enrolment.batch(&collection, batch, !ended).await {
                    return;
                }
                touched = (!ended).then_some(collection);
                if next.is_none() && !ended {
                    next = checked.recv().await;
                }
            }
            // The last batch was sent before its sender knew that it was the last: make it searchable too.
            if let Some(collection) = touched
                && let Err(refusal) = enrolment.core.index(collection).await
            {
                tracing::warn!(code = refusal.code, "what was enrolled last is indexed later");
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn identify(&self, request: Request<v1::SealedQuery>) -> Result<Response<v1::SealedAnswer>, Status> {
        self.ask(request).await
    }

    async fn verify(&self, request: Request<v1::SealedQuery>) -> Result<Response<v1::SealedAnswer>, Status> {
        self.ask(request).await
    }

    async fn erase(&self, request: Request<v1::EraseRequest>) -> Result<Response<v1::EraseResponse>, Status> {
        let caller = self.caller(&request)?;
        let signed = request.into_inner().signed_erasure.to_vec();
        received(&signed);
        let erasure = SignedErasure::from_bytes(&signed).map_err(|e| refused(MatcherError::from(e).refusal()))?;
        self.register(|register| register.admits(&caller, &erasure.collection, Some(&erasure.client)))?;
        match self.core.request(ClientRequest::Erase { request: signed }).await.map_err(refused)? {
            ClientAnswer::Erased { complete } => Ok(Response::new(v1::EraseResponse { complete })),
            _ => Err(odd()),
        }
    }

    async fn get_template(&self, request: Request<v1::GetTemplateRequest>) -> Result<Response<v1::Template>, Status> {
        let collection = CollectionId::new(request.get_ref().collection.clone()).map_err(bad)?;
        let subject = SubjectId::new(request.get_ref().subject.clone()).map_err(bad)?;
        self.admit(&request, &collection)?;
        let found = self
            .core
            .look(move |matcher| {
                let (description, index) = matcher
                    .collection(&collection)
                    .ok_or_else(|| MatcherError::UnknownCollection(collection.clone()).refusal())?;
                let stored = index.template(&subject);
                let stored = stored.ok_or_else(|| MatcherError::UnknownSubject(subject.clone()).refusal())?;
                Ok(template(&subject, stored, sealed_size(description)))
            })
            .await
            .map_err(refused)?;
        Ok(Response::new(found.map_err(refused)?.into()))
    }

    async fn list_templates(
        &self,
        request: Request<v1::ListTemplatesRequest>,
    ) -> Result<Response<v1::ListTemplatesResponse>, Status> {
        let collection = CollectionId::new(request.get_ref().collection.clone()).map_err(bad)?;
        self.admit(&request, &collection)?;
        let v1::ListTemplatesRequest { page_size: size, page_token, .. } = request.into_inner();
        let size = page_size(size).map_err(bad)?;
        let after = if page_token.is_empty() { None } else { Some(SubjectId::new(page_token).map_err(bad)?) };
        let page = self
            .core
            .look(move |matcher| {
                let (description, index) = matcher
                    .collection(&collection)
                    .ok_or_else(|| MatcherError::UnknownCollection(collection.clone()).refusal())?;
                let bytes = sealed_size(description);
                let mut rest = index.templates_after(after.as_ref());
                let page: Vec<TemplateInfo> = rest.by_ref().take(size).map(|(s, t)| template(s, t, bytes)).collect();
                Ok((page, rest.next().is_some()))
            })
            .await
            .map_err(refused)?;
        let (page, more) = page.map_err(refused)?;
        let next_page_token = page.last().filter(|_| more).map(|t| t.subject.to_string()).unwrap_or_default();
        let templates = page.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListTemplatesResponse { templates, next_page_token }))
    }

    async fn administer(
        &self,
        request: Request<v1::SignedRequest>,
    ) -> Result<Response<v1::AdministerResponse>, Status> {
        self.caller(&request)?;
        let signed = request.into_inner().request;
        self.register(|register| register.administer(&signed, now()))?;
        Ok(Response::new(v1::AdministerResponse {}))
    }
}

/// Bytes of a sealed template of this dimension, but for the lengths of its names (at most 200 bytes more).
fn sealed_size(description: &Description) -> u64 {
    veilmatch_sealed::sealed_bytes(description.dimension) as u64
}
