//! All parties in one process: a client, the matcher, three key holders and, for the scheme `paillier`, the twin, on a network in
//! memory.
//!
//! Parties exchange serialised bytes and nothing else; each object is handed only what is addressed to it. This room is
//! for the demo, evaluations and tests, and never part of a server: it is the one place that owns all three holders.
//! A test may script faults on the [`Network`] or rewrite deliveries as a cheating party would.

use std::collections::{BTreeMap, VecDeque};

use veilmatch_domain::{
    ClientId, CollectionId, Dimension, Embedding, Epoch, Outcome, Party, Policy, Query, SchemeName, SubjectId,
    TemplateVersion, Timestamp,
};
use veilmatch_gallery::{Description, Image, MemoryStorage};
use veilmatch_glwe::{MAX_ADMISSION, Parameters, Verdict};
use veilmatch_holder::{
    AuditEntry, ClientRecord, Holder, HolderCard, HolderError, HolderKeys, HolderSecretKey, Outbound, Reaction,
    Recipient, Record, RestoreError, RestoreRequest, Sender, Work,
};
use veilmatch_matching::{HotDimensions, Limits, Matcher, RequestId, Twin, TwinWork};
use veilmatch_mpc::{Delivery, Network, Traffic};
use veilmatch_paillier::PublicKey;
use veilmatch_sdk::{Client, ClientError};
use veilmatch_sealed::{ClientSigningKey, ClientVerifyingKey, SignedAdministration};
use veilmatch_secret::{Entropy, Secret, os_entropy};
use veilmatch_threshold::Dealt;

/// Bytes of groups that each evaluator keeps ready.
const EVALUATOR_MEMORY: usize = 1 << 30;

/// Who is on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// The client.
    Client,
    /// The matcher.
    Matcher,
    /// A key holder.
    Holder(Party),
    /// The matcher's twin.
    Twin,
}

/// Why the cluster has no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The parties refused, or their answer cannot be read.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A holder could not begin a ceremony.
    #[error(transparent)]
    Holder(#[from] HolderError),
    /// A holder could not be made again from what it stored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The ceremony did not complete at all three holders.
    #[error("the key ceremony did not complete at all three key holders")]
    Ceremony,
    /// No answer came, even after every deadline had passed.
    #[error("no answer came from the matcher")]
    NoAnswer,
}

/// Rewrites a delivery as a cheating party or a broken network would; `false` drops it.
pub type Tamper = Box<dyn FnMut(&mut Delivery<Address>) -> bool + Send>;

/// When a holder crashes on the way of one of its reactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Nothing of the reaction is stored or sent.
    BeforeSaving,
    /// The log is written, nothing else.
    BeforeRecords,
    /// Everything is stored, nothing is sent.
    BeforeSending,
    /// Everything is stored and sent; what it had in memory is gone.
    AfterSending,
}

/// Decides at every reaction of a holder whether it crashes there; it then starts again at once.
pub type Crashes = Box<dyn FnMut(Party, &Reaction) -> Option<Crash> + Send>;

/// What a holder has on disk.
struct Disk {
    identity: Secret<[u8; 32]>,
    kem: Secret<[u8; 32]>,
    records: BTreeMap<Vec<u8>, Secret<Vec<u8>>>,
    log: Vec<AuditEntry>,
}

impl Disk {
    fn new(keys: &HolderKeys) -> Self {
        let (identity, kem) = (keys.identity.secret_bytes(), keys.kem.secret_bytes());
        Self { identity, kem, records: BTreeMap::new(), log: Vec::new() }
    }
}

/// The parties and their network.
pub struct Cluster {
    /// The network; tests inject faults here.
    pub network: Network<Address>,
    /// Rewrites deliveries, for tests of cheating parties.
    pub tamper: Option<Tamper>,
    /// Crashes of holders, for tests.
    pub crashes: Option<Crashes>,
    /// Work of holders that waits for [`Cluster::compute`]; `None` computes at once.
    pub deferred: Option<Vec<(Party, Work)>>,
    /// The time that all parties see.
    pub now: Timestamp,
    /// The client that asks.
    pub client: Client,
    /// Errors of holders since the last [`Cluster::take_failures`].
    failures: Vec<(Party, HolderError)>,
    /// The first restart that failed.
    broken: Option<ClusterError>,
    parameters: Parameters,
    holders: [Holder; 3],
    disks: [Disk; 3],
    cards: [HolderCard; 3],
    matcher: Matcher,
    /// The second evaluator, and the public key that it and the matcher have.
    twin: Option<(Twin, PublicKey)>,
    collection: CollectionId,
    answers: BTreeMap<RequestId, Vec<u8>>,
    next_request: u64,
    storage: MemoryStorage,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster({})", self.collection)
    }
}

impl Cluster {
    /// Sets up the parties, exchanges their public keys and holds the first ceremony. `entropy` is called once per party:
    /// the three holders, then the client.
    ///
    /// # Errors
    /// [`ClusterError::Ceremony`] if it does not complete.
    pub fn new(
        parameters: Parameters,
        collection: CollectionId,
        policy: Policy,
        client: ClientId,
        entropy: impl FnMut() -> Box<dyn Entropy>,
    ) -> Result<Self, ClusterError> {
        Self::with_tamper(parameters, collection, policy, client, entropy, None)
    }

    /// As [`Cluster::new`], with deliveries rewritten from the first ceremony on.
    ///
    /// # Errors
    /// [`ClusterError::Ceremony`] if it does not complete.
    pub fn with_tamper(
        parameters: Parameters,
        collection: CollectionId,
        policy: Policy,
        client: ClientId,
        entropy: impl FnMut() -> Box<dyn Entropy>,
        tamper: Option<Tamper>,
    ) -> Result<Self, ClusterError> {
        Self::found(parameters, (collection, policy), client, entropy, tamper, None)
    }

    /// As [`Cluster::new`], with a twin and with the shares of a threshold key at the holders: the collection may be under the scheme
    /// `paillier`.
    ///
    /// # Errors
    /// [`ClusterError::Ceremony`] if it does not complete, [`ClusterError::Holder`] if a share is refused.
    pub fn with_key(
        parameters: Parameters,
        collection: CollectionId,
        policy: Policy,
        client: ClientId,
        entropy: impl FnMut() -> Box<dyn Entropy>,
        dealt: Dealt,
        tamper: Option<Tamper>,
    ) -> Result<Self, ClusterError> {
        Self::found(parameters, (collection, policy), client, entropy, tamper, Some(dealt))
    }

    fn found(
        parameters: Parameters,
        (collection, policy): (CollectionId, Policy),
        client: ClientId,
        mut entropy: impl FnMut() -> Box<dyn Entropy>,
        tamper: Option<Tamper>,
        dealt: Option<Dealt>,
    ) -> Result<Self, ClusterError> {
        let (mut disks, mut holders) = (Vec::new(), Vec::new());
        for party in Party::ALL {
            let mut entropy = entropy();
            let keys = HolderKeys::random(entropy.as_mut());
            disks.push(Disk::new(&keys));
            holders.push(Holder::new(party, parameters, keys, entropy));
        }
        let (Ok(holders), Ok(disks)) = (<[Holder; 3]>::try_from(holders), <[Disk; 3]>::try_from(disks)) else {
            return Err(ClusterError::Ceremony);
        };
        let cards = holders.each_ref().map(Holder::card);
        let keys = cards.each_ref().map(|card| card.encryption.clone());
        let client = Client::new(client, TemplateVersion(1), keys, entropy());
        // Maintenance waits for a quiet moment, which has no place in a run that is to be repeatable.
        let limits = Limits { maintenance: false, ..Limits::default() };
        let matcher = Matcher::new(parameters, limits, Image::default());
        let mut cluster = Self {
            network: Network::new(),
            tamper,
            crashes: None,
            deferred: None,
            now: Timestamp(1_800_000_000),
            client,
            failures: Vec::new(),
            broken: None,
            parameters,
            holders,
            disks,
            cards,
            matcher,
            twin: None,
            collection: collection.clone(),
            answers: BTreeMap::new(),
            next_request: 0,
            storage: MemoryStorage::default(),
        };
        for party in Party::ALL {
            let cards = cluster.cards.clone();
            cluster.holder_mut(party).meet(cards);
        }
        if let Some(dealt) = dealt {
            cluster.install(dealt)?;
        }
        let (id, key) = (cluster.client.id().clone(), cluster.client.verifying_key());
        cluster.register_as(&id, &ClientRecord::with_all_roles(key));
        cluster.create_collection(&collection, &policy)?;
        cluster.begin_epoch()?;
        Ok(cluster)
    }

    /// Gives every holder its share, and both evaluators the public key.
    fn install(&mut self, dealt: Dealt) -> Result<(), ClusterError> {
        for (party, share) in Party::ALL.into_iter().zip(dealt.shares) {
            let reaction = self.holder_mut(party).install_share(share)?;
            self.take(party, reaction);
        }
        self.matcher.set_public_key(dealt.key.clone(), EVALUATOR_MEMORY);
        self.twin = Some((Twin::new(dealt.key.clone(), EVALUATOR_MEMORY), dealt.key));
        Ok(())
    }

    /// Holds a ceremony for the next key epoch.
    ///
    /// # Errors
    /// [`ClusterError::Ceremony`] if it does not complete at all three holders.
    pub fn begin_epoch(&mut self) -> Result<(), ClusterError> {
        let before = self.holders.each_ref().map(Holder::epoch);
        let epoch = self.holders.iter().map(Holder::next_epoch).max().unwrap_or(Epoch(0));
        for party in Party::ALL {
            let reaction = self.holder_mut(party).begin_epoch_at(epoch)?;
            self.take(party, reaction);
        }
        self.run();
        let after = self.holders.each_ref().map(Holder::epoch);
        let [Some(first), second, third] = after else { return Err(ClusterError::Ceremony) };
        if second != Some(first) || third != Some(first) || before.contains(&Some(first)) {
            return Err(ClusterError::Ceremony);
        }
        self.matcher.set_epoch(first);
        Ok(())
    }

    /// Rotates the keys: a ceremony, then every group is rebuilt under the new epoch.
    ///
    /// # Errors
    /// [`ClusterError`] if the ceremony or a rebuild fails.
    pub fn rotate(&mut self) -> Result<(), ClusterError> {
        self.begin_epoch()?;
        let request = self.fresh_request();
        let reaction = self.matcher.rotate(request, &self.collection);
        self.take_from_matcher(reaction);
        let answer = self.answer_of(request)?;
        Client::read_enrolled(&answer)?;
        Ok(())
    }

    /// Enrols people; `progress` hears how many are sealed and admitted so far. One verdict per person, in order.
    ///
    /// # Errors
    /// [`ClusterError`] if a whole request is refused.
    pub fn enroll(
        &mut self,
        people: &[(SubjectId, Embedding)],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Verdict>, ClusterError> {
        let mut verdicts = Vec::with_capacity(people.len());
        let batches = people.len().div_ceil(MAX_ADMISSION);
        for (number, batch) in people.chunks(MAX_ADMISSION).enumerate() {
            let mut templates = Vec::with_capacity(batch.len());
            for (subject, embedding) in batch {
                templates.push(self.client.seal_template(&self.collection, subject.clone(), embedding, self.now)?);
            }
            let request = self.client.enroll(&self.collection, templates, number + 1 < batches);
            let answer = self.request(request)?;
            verdicts.extend(Client::read_enrolled(&answer)?);
            progress(verdicts.len());
        }
        Ok(verdicts)
    }

    /// Enrols a subject in the place of the template that it has, if it has one.
    ///
    /// # Errors
    /// [`ClusterError`] if the whole request is refused.
    pub fn supersede(&mut self, subject: &SubjectId, embedding: &Embedding) -> Result<Verdict, ClusterError> {
        let sealed = self.client.seal_supersession(&self.collection, subject.clone(), embedding, self.now)?;
        let request = self.client.enroll(&self.collection, vec![sealed], false);
        let answer = self.request(request)?;
        Ok(Client::read_enrolled(&answer)?.pop().ok_or(ClientError::Malformed)?)
    }

    /// Asks about a probe.
    ///
    /// # Errors
    /// [`ClusterError`] if the query is refused or its answer cannot be read.
    pub fn ask(&mut self, probe: &Embedding, query: Query) -> Result<Outcome, ClusterError> {
        let (request, pending) = self.client.ask(&self.collection, probe, query, self.now)?;
        let answer = self.request(request)?;
        Ok(pending.read(&answer)?)
    }

    /// Erases a subject.
    ///
    /// # Errors
    /// [`ClusterError`] if the erasure is refused.
    pub fn erase(&mut self, subject: &SubjectId) -> Result<(), ClusterError> {
        let request = self.client.erase(&self.collection, subject.clone(), self.now);
        let answer = self.request(request)?;
        Client::read_erased(&answer)?;
        Ok(())
    }

    /// Sends a client's request and runs the parties until the answer is there; if they fall silent first, until every
    /// deadline has passed.
    ///
    /// # Errors
    /// [`ClusterError::NoAnswer`].
    pub fn request(&mut self, request: Vec<u8>) -> Result<Vec<u8>, ClusterError> {
        let id = self.submit(request);
        self.answer_of(id)
    }

    /// Puts a client's request on the network without running the parties: several can then run side by side.
    pub fn submit(&mut self, request: Vec<u8>) -> RequestId {
        let id = self.fresh_request();
        let mut framed = id.0.to_le_bytes().to_vec();
        framed.extend(request);
        self.network.send(Address::Client, Address::Matcher, framed);
        id
    }

    fn fresh_request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    /// Runs the parties until this request's answer is there, or every deadline has passed.
    ///
    /// # Errors
    /// [`ClusterError::NoAnswer`].
    pub fn answer_of(&mut self, id: RequestId) -> Result<Vec<u8>, ClusterError> {
        self.run();
        // The matcher says a commit again when a deadline passes, and tells the client when a second one does.
        for _ in 0..2 {
            if !self.answers.contains_key(&id) {
                self.pass_deadlines();
            }
        }
        self.answers.remove(&id).ok_or(ClusterError::NoAnswer)
    }

    /// Delivers messages until none is left.
    pub fn run(&mut self) {
        while let Some(mut delivery) = self.network.deliver() {
            let keep = self.tamper.as_mut().is_none_or(|tamper| tamper(&mut delivery));
            if keep {
                self.hand_over(delivery);
            }
        }
    }

    /// Lets the deadlines of every open session pass, first at the holders, then at the matcher.
    pub fn pass_deadlines(&mut self) {
        for party in Party::ALL {
            let open: Vec<_> = self.holder_mut(party).open_sessions().collect();
            for open in open {
                let reaction = self.holder_mut(party).expire(open.session);
                self.take(party, reaction);
            }
        }
        self.run();
        let reaction = self.matcher.expire();
        self.take_from_matcher(reaction);
        self.run();
    }

    fn hand_over(&mut self, delivery: Delivery<Address>) {
        let Delivery { from, to, bytes } = delivery;
        match to {
            Address::Client => {
                if let Some((id, answer)) = bytes.split_first_chunk::<8>() {
                    // A client takes the first answer and closes.
                    self.answers.entry(RequestId(u64::from_le_bytes(*id))).or_insert_with(|| answer.to_vec());
                }
            }
            Address::Matcher => {
                let reaction = match (from, bytes.split_first_chunk::<8>()) {
                    (Address::Holder(party), _) => self.matcher.hear_holder(party, &bytes),
                    (Address::Twin, _) => self.matcher.hear_twin(&bytes),
                    (Address::Client, Some((id, request))) => {
                        self.matcher.hear_client(RequestId(u64::from_le_bytes(*id)), request)
                    }
                    _ => return,
                };
                self.take_from_matcher(reaction);
            }
            Address::Twin => self.hand_to_twin(from, &bytes),
            Address::Holder(party) => {
                let sender = match from {
                    Address::Holder(peer) => Sender::Peer(peer),
                    Address::Client | Address::Matcher | Address::Twin => Sender::Matcher,
                };
                let now = self.now;
                let reaction = self.holder_mut(party).receive(sender, &bytes, now);
                self.take(party, reaction);
            }
        }
    }

    /// Hands a message to the twin and does its work at once.
    fn hand_to_twin(&mut self, from: Address, bytes: &[u8]) {
        let Some((twin, _)) = &mut self.twin else { return };
        let reaction = match from {
            Address::Holder(party) => twin.hear_holder(party, bytes),
            Address::Matcher => twin.hear_matcher(bytes),
            Address::Client | Address::Twin => return,
        };
        for bytes in reaction.send.into_iter().chain(reaction.work.into_iter().filter_map(TwinWork::run)) {
            self.network.send(Address::Twin, Address::Matcher, bytes);
        }
    }

    /// The matcher has no way to the twin, until it starts again.
    pub fn lose_twin(&mut self) {
        let reaction = self.matcher.twin_lost();
        self.take_from_matcher(reaction);
    }

    /// The twin starts again with nothing in memory.
    pub fn restart_twin(&mut self) {
        if let Some((twin, key)) = &mut self.twin {
            *twin = Twin::new(key.clone(), EVALUATOR_MEMORY);
        }
        let reaction = self.matcher.twin_connected();
        self.take_from_matcher(reaction);
    }

    /// Does what a holder's driver does: log, save, send, compute. A crash in between is followed by a restart.
    fn take(&mut self, party: Party, reaction: Reaction) {
        let crash = self.crashes.as_mut().and_then(|crashes| crashes(party, &reaction));
        let Reaction { save, log, send, work, failure } = reaction;
        if crash != Some(Crash::BeforeSaving) {
            let disk = self.disk_mut(party);
            disk.log.extend(log);
            if crash != Some(Crash::BeforeRecords) {
                for record in save {
                    match record.value {
                        Some(value) => disk.records.insert(record.key, value),
                        None => disk.records.remove(&record.key),
                    };
                }
            }
        }
        if matches!(crash, None | Some(Crash::AfterSending)) {
            if let Some(error) = failure {
                self.failures.push((party, error));
            }
            for Outbound { to, bytes } in send {
                let to = match to {
                    Recipient::Matcher => Address::Matcher,
                    Recipient::Peer(peer) => Address::Holder(peer),
                    Recipient::Twin => Address::Twin,
                };
                self.network.send(Address::Holder(party), to, bytes);
            }
        }
        if crash.is_some() {
            if let Err(error) = self.restart(party) {
                self.broken.get_or_insert(error);
            }
            return;
        }
        if let Some(deferred) = &mut self.deferred {
            deferred.extend(work.into_iter().map(|work| (party, work)));
            return;
        }
        for work in work {
            self.finish(party, work);
        }
    }

    fn finish(&mut self, party: Party, work: Work) {
        let now = self.now;
        let reaction = self.holder_mut(party).finish(work.run(), now);
        self.take(party, reaction);
    }

    /// Does one piece of deferred work, counted from the oldest and around, and runs the parties; `false` if there is none.
    pub fn compute(&mut self, place: usize) -> bool {
        let Some(deferred) = self.deferred.as_mut().filter(|d| !d.is_empty()) else { return false };
        let (party, work) = deferred.remove(place % deferred.len());
        self.finish(party, work);
        self.run();
        true
    }

    /// Pins whom the holders obey; lasts until a restart.
    pub fn set_administrators(&mut self, administrators: &[ClientVerifyingKey]) {
        for party in Party::ALL {
            self.holder_mut(party).set_administrators(administrators.to_vec());
        }
    }

    /// Hands an administrator's request to a holder, and runs the parties.
    ///
    /// # Errors
    /// [`HolderError`] if the holder refuses it.
    pub fn administer(&mut self, party: Party, request: &SignedAdministration) -> Result<(), HolderError> {
        let now = self.now;
        let reaction = self.holder_mut(party).administer(&request.to_bytes(), now)?;
        self.take(party, reaction);
        self.run();
        Ok(())
    }

    /// Tells a holder that its connection to a peer is lost, and runs the parties.
    pub fn lose_peer(&mut self, party: Party, peer: Party) {
        let now = self.now;
        let reaction = self.holder_mut(party).peer_lost(peer, now);
        self.take(party, reaction);
        self.run();
    }

    /// Makes a holder again from what it stored.
    ///
    /// # Errors
    /// [`ClusterError::Restore`] if its records or its log are damaged.
    pub fn restart(&mut self, party: Party) -> Result<(), ClusterError> {
        let (parameters, cards) = (self.parameters, self.cards.clone());
        let disk = self.disk_mut(party);
        let damaged = |_| RestoreError::Malformed { kind: "key file" };
        let identity = ClientSigningKey::from_bytes(disk.identity.expose());
        let kem = HolderSecretKey::from_bytes(disk.kem.expose()).map_err(damaged)?;
        let records: Vec<_> = disk.records.iter().map(|(key, value)| (key.clone(), value.duplicate())).collect();
        let log = |from: u64| disk.log.iter().skip(from as usize).cloned();
        let mut holder = Holder::restore(party, parameters, HolderKeys { identity, kem }, os_entropy(), records, log)?;
        holder.meet(cards);
        *self.holder_mut(party) = holder;
        Ok(())
    }

    /// Has a holder answer a lost one.
    ///
    /// # Errors
    /// [`HolderError`] if the holder refuses.
    pub fn answer_restore(&mut self, party: Party, request: &RestoreRequest) -> Result<Vec<u8>, HolderError> {
        let now = self.now;
        let (answer, reaction) = self.holder_mut(party).answer_restore(request, now)?;
        self.take(party, reaction);
        Ok(answer)
    }

    /// A new machine takes the place of a holder's: what the old one had stored is gone.
    ///
    /// # Errors
    /// [`ClusterError::Restore`] if the records cannot be read.
    pub fn replace(&mut self, party: Party, keys: &HolderKeys, records: Vec<Record>) -> Result<(), ClusterError> {
        let mut disk = Disk::new(keys);
        disk.records.extend(records.into_iter().filter_map(|record| Some((record.key, record.value?))));
        *self.disk_mut(party) = disk;
        self.restart(party)
    }

    /// The public keys of the holders.
    #[must_use]
    pub fn cards(&self) -> &[HolderCard; 3] {
        &self.cards
    }

    /// The first restart that failed, if one has.
    pub fn take_broken(&mut self) -> Option<ClusterError> {
        self.broken.take()
    }

    fn disk_mut(&mut self, party: Party) -> &mut Disk {
        let [k0, k1, k2] = &mut self.disks;
        match party {
            Party::K0 => k0,
            Party::K1 => k1,
            Party::K2 => k2,
        }
    }

    /// A holder's audit log, oldest entry first.
    #[must_use]
    pub fn log(&self, party: Party) -> &[AuditEntry] {
        let [k0, k1, k2] = &self.disks;
        match party {
            Party::K0 => &k0.log,
            Party::K1 => &k1.log,
            Party::K2 => &k2.log,
        }
    }

    /// Does the matcher's work at once, and sends what it says.
    fn take_from_matcher(&mut self, reaction: veilmatch_matching::Reaction) {
        let mut reactions = VecDeque::from([reaction]);
        while let Some(reaction) = reactions.pop_front() {
            for (id, answer) in reaction.answers {
                let mut framed = id.0.to_le_bytes().to_vec();
                framed.extend(borsh::to_vec(&answer).unwrap_or_default());
                self.network.send(Address::Matcher, Address::Client, framed);
            }
            for message in reaction.send {
                self.network.send(Address::Matcher, Address::Holder(message.to), message.bytes.to_vec());
            }
            for bytes in reaction.to_twin {
                self.network.send(Address::Matcher, Address::Twin, bytes.to_vec());
            }
            for work in reaction.work {
                reactions.push_back(self.matcher.finish(work.run(&self.storage)));
            }
        }
    }

    /// From now on at most this many templates share a packed group of the collection.
    pub fn limit_groups(&mut self, group_capacity: u32) {
        let collection = self.collection.clone();
        if let Some((known, _)) = self.matcher.collection(&collection) {
            let (dimension, parameters) = (known.dimension, known.parameters.clone());
            self.describe(&collection, dimension, parameters, group_capacity);
        }
    }

    /// From now on the first dimensions of every group lie apart, for a preselection.
    pub fn set_hot_dimensions(&mut self, hot: Option<u16>) {
        let hot_dimensions = HotDimensions { default: hot, ..HotDimensions::default() };
        self.matcher.set_hot_dimensions(hot_dimensions);
    }

    fn describe(&mut self, collection: &CollectionId, dimension: Dimension, parameters: String, group_capacity: u32) {
        let description = Description { dimension, parameters, group_capacity, created: self.now };
        let request = self.fresh_request();
        let reaction = self.matcher.describe(request, collection.clone(), description);
        self.take_from_matcher(reaction);
    }

    fn holder_mut(&mut self, party: Party) -> &mut Holder {
        let [k0, k1, k2] = &mut self.holders;
        match party {
            Party::K0 => k0,
            Party::K1 => k1,
            Party::K2 => k2,
        }
    }

    /// A holder, to look at.
    #[must_use]
    pub fn holder(&self, party: Party) -> &Holder {
        let [k0, k1, k2] = &self.holders;
        match party {
            Party::K0 => k0,
            Party::K1 => k1,
            Party::K2 => k2,
        }
    }

    /// Registers a further client, which may do everything, with all holders.
    pub fn register(&mut self, client: &Client) {
        self.register_as(client.id(), &ClientRecord::with_all_roles(client.verifying_key()));
    }

    /// Registers a client or changes what it may do at all holders.
    pub fn register_as(&mut self, client: &ClientId, record: &ClientRecord) {
        for party in Party::ALL {
            let reaction = self.holder_mut(party).register_client(client.clone(), record.clone());
            self.take(party, reaction);
        }
    }

    /// Creates a further collection at all holders and at the matcher.
    ///
    /// # Errors
    /// [`ClusterError::Holder`] if the policy contradicts itself.
    pub fn create_collection(&mut self, collection: &CollectionId, policy: &Policy) -> Result<(), ClusterError> {
        self.set_policy_of(collection, policy)?;
        let parameters = match (policy.scheme, &self.twin) {
            (SchemeName::Paillier, Some((_, key))) => key.size().parameters(),
            _ => self.parameters.name,
        };
        self.describe(collection, policy.dimension, parameters.to_owned(), u32::MAX);
        Ok(())
    }

    /// Changes the collection's policy at all holders.
    ///
    /// # Errors
    /// [`ClusterError::Holder`] if the policy contradicts itself.
    pub fn set_policy(&mut self, policy: &Policy) -> Result<(), ClusterError> {
        let collection = self.collection.clone();
        self.set_policy_of(&collection, policy)
    }

    fn set_policy_of(&mut self, collection: &CollectionId, policy: &Policy) -> Result<(), ClusterError> {
        for party in Party::ALL {
            let reaction = self.holder_mut(party).set_policy(collection.clone(), policy.clone())?;
            self.take(party, reaction);
        }
        Ok(())
    }

    /// The matcher, to look at.
    #[must_use]
    pub fn matcher(&self) -> &Matcher {
        &self.matcher
    }

    /// The collection that everything here is about.
    #[must_use]
    pub fn collection(&self) -> &CollectionId {
        &self.collection
    }

    /// The parameter set.
    #[must_use]
    pub fn parameters(&self) -> Parameters {
        self.parameters
    }

    /// Errors of holders since the last call, oldest first.
    pub fn take_failures(&mut self) -> Vec<(Party, HolderError)> {
        std::mem::take(&mut self.failures)
    }

    /// Bytes that a party has sent and received.
    #[must_use]
    pub fn traffic(&self, address: Address) -> Traffic {
        self.network.traffic(address)
    }
}
