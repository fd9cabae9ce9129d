//! What the tests of cheating parties share: a scene whose wire is watched from the first ceremony on, a cheating holder
//! that re-seals its own frames, a matcher played by the test, and what must hold after every cheat.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use borsh::{BorshDeserialize, BorshSerialize};
use chacha20::ChaCha20Rng;
use veilmatch_cluster::{Address, Cluster, ClusterError};
use veilmatch_domain::{
    ClientId, CollectionId, Decision, Dimension, Embedding, Epoch, Explain, GroupId, Outcome, Party, Policy, Query,
    Revision, SchemeName, SessionId, SubjectId, Suspect, TemplateDigest,
};
use veilmatch_glwe::{
    Bodies, BuildOrder, ClientAnswer, ClientRequest, FromHolder, GLWE_2048_V1, GroupSums, Layout, Member, PackedGroup,
    PartPayload, ProbeCiphertext, Stage, ToHolder, Verdict, build_session, query_session, sum_parts,
};
use veilmatch_holder::{AuditEntry, AuditEvent, HolderError};
use veilmatch_mpc::{Delivery, Frame, Links, PairwiseSeeds};
use veilmatch_paillier::KeySize;
use veilmatch_sdk::{ClientError, PendingQuery};
use veilmatch_sealed::SealedTemplate;
use veilmatch_secret::{Digest, Entropy, Seed};
use veilmatch_tests::{at_cosine, query, random_unit, rng, subject};
use veilmatch_threshold::{Dealt, test_keys};

/// Dimension of every gallery here.
pub(crate) const D: usize = 64;

/// What holders say to each other: a mirror of the holder's own type.
#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) enum PeerMessage {
    Ceremony { epoch: Epoch, seed: [u8; 32], signature: [u8; 64] },
    Frame { epoch: Epoch, frame: Vec<u8> },
}

type Seeds = Arc<Mutex<BTreeMap<(Epoch, Party), [u8; 32]>>>;
/// The client's answer, if all three holders gave theirs, and what they said to the matcher.
pub(crate) type Finished = (Option<Result<Outcome, ClientError>>, Vec<(Party, FromHolder)>);
type Rewrite = Box<dyn FnMut(&mut Delivery<Address>) -> bool + Send>;

/// What the watcher of the wire knows and does.
#[derive(Clone, Default)]
pub(crate) struct Wire {
    seeds: Seeds,
    cheat: Arc<Mutex<Option<Rewrite>>>,
}

impl Wire {
    fn pass(&self, delivery: &mut Delivery<Address>) -> bool {
        if let (Address::Holder(from), Ok(PeerMessage::Ceremony { epoch, seed, .. })) =
            (delivery.from, borsh::from_slice(&delivery.bytes))
        {
            self.seeds.lock().unwrap().insert((epoch, from), seed);
        }
        self.cheat.lock().unwrap().as_mut().is_none_or(|cheat| cheat(delivery))
    }

    /// The links of a holder, from the two seeds that it knows.
    pub(crate) fn links(&self, party: Party, epoch: Epoch) -> Links {
        let seeds = self.seeds.lock().unwrap();
        let seed = |of: Party| Seed::from_bytes(seeds[&(epoch, of)]);
        Links::new(party, &PairwiseSeeds { own: seed(party), next: seed(party.next()) })
    }

    /// Every message from now on.
    pub(crate) fn cheat(&self, rewrite: impl FnMut(&mut Delivery<Address>) -> bool + Send + 'static) {
        *self.cheat.lock().unwrap() = Some(Box::new(rewrite));
    }

    pub(crate) fn honest(&self) {
        *self.cheat.lock().unwrap() = None;
    }

    /// The frames that `cheater` sends to its peers, re-sealed with its own links. `false` drops a frame. What its honest
    /// code says when it notices the consequences is dropped: a cheater would not report itself.
    pub(crate) fn cheat_frames(
        &self,
        cheater: Party,
        mut rewrite: impl FnMut(Party, &mut Frame) -> bool + Send + 'static,
    ) {
        let wire = self.clone();
        self.cheat(move |delivery| {
            if delivery.from == Address::Holder(cheater) && delivery.to == Address::Matcher {
                return !matches!(borsh::from_slice(&delivery.bytes), Ok(FromHolder::Refused { .. }));
            }
            let (Address::Holder(from), Address::Holder(to)) = (delivery.from, delivery.to) else { return true };
            let Ok(PeerMessage::Frame { epoch, frame }) = borsh::from_slice(&delivery.bytes) else { return true };
            if from != cheater {
                return true;
            }
            let mut content: Frame = borsh::from_slice(&frame[..frame.len() - 32]).unwrap();
            if content.step == u32::MAX {
                return false;
            }
            let keep = rewrite(to, &mut content);
            let frame = wire.links(from, epoch).seal(content.session, content.step, content.to, &content.payload);
            delivery.bytes = borsh::to_vec(&PeerMessage::Frame { epoch, frame }).unwrap();
            keep
        });
    }

    /// What `cheater` sends to the matcher.
    pub(crate) fn cheat_matcher(&self, cheater: Party, mut rewrite: impl FnMut(&mut FromHolder) + Send + 'static) {
        self.cheat(move |delivery| {
            if delivery.from == Address::Holder(cheater) && delivery.to == Address::Matcher {
                let mut message = borsh::from_slice(&delivery.bytes).unwrap();
                rewrite(&mut message);
                delivery.bytes = borsh::to_vec(&message).unwrap();
            }
            true
        });
    }

    /// What the matcher says to holders. `false` drops it.
    pub(crate) fn cheat_holders(&self, mut rewrite: impl FnMut(Party, &mut ToHolder) -> bool + Send + 'static) {
        self.cheat(move |delivery| {
            let (Address::Matcher, Address::Holder(to)) = (delivery.from, delivery.to) else { return true };
            let mut message = borsh::from_slice(&delivery.bytes).unwrap();
            let keep = rewrite(to, &mut message);
            delivery.bytes = borsh::to_vec(&message).unwrap();
            keep
        });
    }
}

/// What must not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Before {
    views: [Option<Digest>; 3],
    enrolled: Vec<[Option<TemplateDigest>; 3]>,
    opened: [usize; 3],
}

impl Before {
    /// Views and admissions, without the openings.
    pub(crate) fn registry(&self) -> (&[Option<Digest>; 3], &[[Option<TemplateDigest>; 3]]) {
        (&self.views, &self.enrolled)
    }
}

/// The parties, their people and the wire.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) wire: Wire,
    pub(crate) people: Vec<(SubjectId, Embedding)>,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) seed: u64,
}

fn openings(cluster: &Cluster, party: Party) -> usize {
    let entries = cluster.log(party);
    assert_eq!(AuditEntry::first_break(entries), None);
    entries.iter().filter(|e| matches!(e.event, AuditEvent::Opening { .. } | AuditEvent::Outcome(_))).count()
}

impl Scene {
    /// A ceremony and nobody enrolled.
    pub(crate) fn empty(seed: u64) -> Scene {
        Self::with_policy(seed, Policy::permissive(Dimension::new(D).unwrap()))
    }

    pub(crate) fn with_policy(seed: u64, policy: Policy) -> Scene {
        Self::found(seed, policy, None)
    }

    /// Under the scheme `paillier`, with a key of 2,048 bits that protects nothing; nobody enrolled.
    pub(crate) fn paillier(seed: u64) -> Scene {
        let policy = Policy { scheme: SchemeName::Paillier, ..Policy::permissive(Dimension::new(D).unwrap()) };
        let dealt = test_keys::deal(KeySize::Bits2048, &mut rng(seed)).unwrap();
        Self::found(seed, policy, Some(dealt))
    }

    fn found(seed: u64, policy: Policy, dealt: Option<Dealt>) -> Scene {
        let mut next = seed * 1000;
        let entropy = || {
            next += 1;
            Box::new(rng(next)) as Box<dyn Entropy>
        };
        let wire = Wire::default();
        let watch = wire.clone();
        let tamper: veilmatch_cluster::Tamper = Box::new(move |delivery| watch.pass(delivery));
        let (collection, client) = (CollectionId::new("staff").unwrap(), ClientId::new("gate").unwrap());
        let cluster = match dealt {
            None => Cluster::with_tamper(GLWE_2048_V1, collection, policy, client, entropy, Some(tamper)),
            Some(dealt) => Cluster::with_key(GLWE_2048_V1, collection, policy, client, entropy, dealt, Some(tamper)),
        };
        let cluster = cluster.unwrap();
        Scene { cluster, wire, people: Vec::new(), rng: rng(seed), seed }
    }

    /// A gallery enrolled in these batches.
    pub(crate) fn new(seed: u64, batches: &[usize]) -> Scene {
        let mut scene = Scene::empty(seed);
        scene.enrol_batches(batches);
        scene
    }

    /// Enrols people in these batches.
    pub(crate) fn enrol_batches(&mut self, batches: &[usize]) {
        let scene = self;
        for &batch in batches {
            for _ in 0..batch {
                scene.person();
            }
            let from = scene.people.len() - batch;
            let verdicts = scene.cluster.enroll(&scene.people[from..], &mut |_| {}).unwrap();
            assert!(verdicts.iter().all(|v| *v == Verdict::Accepted), "{verdicts:?}");
        }
    }

    /// Another person, not enrolled yet.
    pub(crate) fn person(&mut self) -> (SubjectId, Embedding) {
        let person = (subject(self.people.len()), random_unit(D, &mut self.rng));
        self.people.push(person.clone());
        person
    }

    pub(crate) fn enrol(&mut self, people: &[(SubjectId, Embedding)]) -> Result<Vec<Verdict>, ClusterError> {
        self.cluster.enroll(people, &mut |_| {})
    }

    pub(crate) fn verify(&mut self, place: usize) -> Result<Outcome, ClusterError> {
        let (subject, embedding) = self.people[place].clone();
        let probe = at_cosine(&embedding, 0.8, &mut self.rng);
        self.cluster.ask(&probe, query(Decision::Verify { subject }, 0.4))
    }

    pub(crate) fn before(&self) -> Before {
        let of = |party: Party| self.cluster.holder(party);
        Before {
            views: Party::ALL.map(|p| of(p).view(self.cluster.collection())),
            enrolled: self
                .people
                .iter()
                .map(|(s, _)| Party::ALL.map(|p| of(p).enrolled(self.cluster.collection(), s)))
                .collect(),
            opened: Party::ALL.map(|p| openings(&self.cluster, p)),
        }
    }

    /// All three holders see the same registry.
    pub(crate) fn assert_agree(&self) {
        let Before { views: [a, b, c], enrolled, .. } = self.before();
        assert!(a == b && b == c, "the holders' views differ");
        assert!(enrolled.iter().all(|[a, b, c]| a == b && b == c), "the holders' admissions differ");
    }

    /// The registries are as before and equal, and no decision was opened.
    pub(crate) fn assert_untouched(&self, before: &Before) {
        self.assert_agree();
        assert_eq!(self.before(), *before);
    }

    /// An honest request is answered as if nothing had happened.
    pub(crate) fn assert_works(&mut self) {
        self.wire.honest();
        self.cluster.network.heal();
        self.cluster.take_failures();
        let place = self
            .people
            .iter()
            .position(|(s, _)| self.cluster.holder(Party::K0).enrolled(self.cluster.collection(), s).is_some())
            .expect("somebody is enrolled");
        assert_eq!(self.verify(place), Ok(Outcome::Verify(true)), "{:?}", self.cluster.take_failures());
        assert_eq!(self.cluster.take_failures(), []);
    }

    /// The client was refused with this code, and every error that an honest party found by itself points at the culprit.
    pub(crate) fn assert_refused<T: std::fmt::Debug>(
        &mut self,
        result: Result<T, ClusterError>,
        code: &str,
        culprit: Suspect,
    ) {
        let failures = self.cluster.take_failures();
        let Err(ClusterError::Client(error)) = &result else { panic!("{result:?} {failures:?}") };
        assert!(points_at(&error.suspects(), culprit), "{error:?} {failures:?}");
        let found = own_errors(&failures, culprit);
        assert!(error.reason() == code || found.iter().any(|e| e.code() == code), "{error:?} {failures:?}");
        for error in found {
            assert!(points_at(&error.suspects(), culprit), "{error:?} {failures:?}");
        }
    }
}

/// Errors of honest holders that are not somebody else's word or silence, nor sums that crossed with a stop.
pub(crate) fn own_errors(failures: &[(Party, HolderError)], culprit: Suspect) -> Vec<HolderError> {
    let own = |(party, error): &&(Party, HolderError)| {
        !culprit.includes(*party)
            && !matches!(
                error,
                HolderError::PeerStopped { .. } | HolderError::TimedOut { .. } | HolderError::SessionSpent(_)
            )
    };
    failures.iter().filter(own).map(|(_, error)| error.clone()).collect()
}

/// Whether the suspects name the culprit, alone or as one of a pair.
pub(crate) fn points_at(suspects: &[Suspect], culprit: Suspect) -> bool {
    suspects.iter().any(|s| match culprit {
        Suspect::Holder(party) => s.includes(party),
        other => *s == other,
    })
}

/// Borsh there and back, with a change on the way.
pub(crate) fn edit<T: BorshSerialize + BorshDeserialize>(bytes: &mut Vec<u8>, change: impl FnOnce(&mut T)) {
    let mut value: T = borsh::from_slice(bytes).unwrap();
    change(&mut value);
    *bytes = borsh::to_vec(&value).unwrap();
}

/// A query that the puppet has taken to the point where it would send its sums.
pub(crate) struct Asked {
    pub(crate) session: SessionId,
    pub(crate) sealed: Vec<u8>,
    pending: PendingQuery,
    probes: BTreeMap<usize, ProbeCiphertext>,
}

/// A matcher played by the test: it can say anything to anybody.
pub(crate) struct Puppet {
    pub(crate) scene: Scene,
    pub(crate) sealed: BTreeMap<SubjectId, Vec<u8>>,
    pub(crate) groups: BTreeMap<(GroupId, Revision), PackedGroup>,
    attempt: u64,
}

impl Puppet {
    /// Admits `count` people and builds nothing.
    pub(crate) fn new(seed: u64, count: usize) -> Puppet {
        let mut scene = Scene::empty(seed);
        scene.cluster.network.record();
        let mut puppet = Puppet { scene, sealed: BTreeMap::new(), groups: BTreeMap::new(), attempt: 0 };
        for _ in 0..count {
            puppet.scene.person();
        }
        let sealed: Vec<_> = (0..count).map(|i| puppet.seal(i)).collect();
        puppet.admit(sealed);
        assert_eq!(puppet.scene.cluster.take_failures(), []);
        puppet
    }

    /// Two groups: A, rank 2, with members in both bodies; B, of another block width.
    pub(crate) fn with_groups(seed: u64) -> Puppet {
        let mut puppet = Puppet::new(seed, 6);
        puppet.build(puppet.order(A, 1, (64, 2), &[(0, 0), (31, 1), (32, 2), (63, 3)])).unwrap();
        puppet.build(puppet.order(B, 1, (32, 1), &[(5, 4), (63, 5)])).unwrap();
        puppet
    }

    pub(crate) fn seal(&mut self, person: usize) -> Vec<u8> {
        let (subject, embedding) = self.scene.people[person].clone();
        let (collection, now) = (self.scene.cluster.collection().clone(), self.scene.cluster.now);
        let sealed = self.scene.cluster.client.seal_template(&collection, subject.clone(), &embedding, now).unwrap();
        self.sealed.insert(subject, sealed.clone());
        sealed
    }

    pub(crate) fn next_attempt(&mut self) -> u64 {
        self.attempt += 1;
        self.attempt
    }

    /// Says something to some holders and lets everything happen; returns what holders said to the matcher.
    pub(crate) fn tell(&mut self, to: &[Party], message: &ToHolder) -> Vec<(Party, FromHolder)> {
        let network = &mut self.scene.cluster.network;
        network.take_record();
        for &party in to {
            network.send(Address::Matcher, Address::Holder(party), borsh::to_vec(message).unwrap());
        }
        self.listen()
    }

    /// Different things to each holder at once.
    pub(crate) fn tell_each(&mut self, messages: [ToHolder; 3]) -> Vec<(Party, FromHolder)> {
        let network = &mut self.scene.cluster.network;
        network.take_record();
        for (party, message) in Party::ALL.into_iter().zip(&messages) {
            network.send(Address::Matcher, Address::Holder(party), borsh::to_vec(message).unwrap());
        }
        self.listen()
    }

    fn listen(&mut self) -> Vec<(Party, FromHolder)> {
        self.scene.cluster.run();
        let heard = self.scene.cluster.network.take_record();
        let to_matcher = |delivery: Delivery<Address>| match (delivery.from, delivery.to) {
            (Address::Holder(party), Address::Matcher) => Some((party, borsh::from_slice(&delivery.bytes).unwrap())),
            _ => None,
        };
        heard.into_iter().filter_map(to_matcher).collect()
    }

    /// Lets the holders' deadlines pass.
    pub(crate) fn pass_deadlines(&mut self) {
        self.scene.cluster.pass_deadlines();
    }

    pub(crate) fn admit(&mut self, templates: Vec<Vec<u8>>) -> Vec<Verdict> {
        let collection = self.scene.cluster.collection().clone();
        let attempt = self.next_attempt();
        let heard = self.tell(&Party::ALL, &ToHolder::Admit { attempt, collection, templates });
        let (session, verdicts) = heard
            .into_iter()
            .find_map(|(_, message)| match message {
                FromHolder::Admitted { session, verdicts } => Some((session, verdicts)),
                _ => None,
            })
            .unwrap();
        self.tell(&Party::ALL, &ToHolder::Commit { session });
        verdicts
    }

    /// An order for these (slot, person) members.
    pub(crate) fn order(
        &self,
        group: GroupId,
        revision: u32,
        (beta, rank): (usize, usize),
        members: &[(u32, usize)],
    ) -> BuildOrder {
        let sealed = |person: usize| self.sealed[&self.scene.people[person].0].clone();
        BuildOrder {
            attempt: 0,
            collection: self.scene.cluster.collection().clone(),
            group,
            revision: Revision(revision),
            epoch: self.scene.cluster.holder(Party::K0).epoch().unwrap(),
            layout: Layout::new(beta, rank).unwrap(),
            members: members.iter().map(|&(slot, person)| Member { slot, sealed: sealed(person) }).collect(),
            replaces: Vec::new(),
        }
    }

    /// Orders a build and adds up the parts; nothing is committed.
    pub(crate) fn recrypt(&mut self, mut order: BuildOrder) -> Option<(SessionId, PackedGroup)> {
        order.attempt = self.next_attempt();
        let session = build_session(&order);
        let heard = self.tell(&Party::ALL, &ToHolder::Build(order.clone()));
        let mut copies: [(Option<PartPayload>, Option<PartPayload>); 3] = Default::default();
        for (_, message) in heard {
            if let FromHolder::GroupPart { part, payload, .. } = message {
                let (polynomials, digest) = &mut copies[part.index()];
                let place = if matches!(payload, PartPayload::Digest(_)) { digest } else { polynomials };
                *place = Some(payload);
            }
        }
        let parameters = self.scene.cluster.parameters();
        let polynomials = order.layout.blocks(Dimension::new(D).unwrap()) * order.layout.rank();
        let borrowed = copies.each_ref().map(|(a, b)| (a.as_ref(), b.as_ref()));
        let bodies = sum_parts(&parameters, &parameters.ring(), polynomials, &borrowed).ok()?;
        let BuildOrder { group, revision, epoch, layout, .. } = order;
        let bodies = Bodies::arranged(&parameters, layout, Dimension::new(D).unwrap(), &bodies).unwrap();
        Some((session, PackedGroup { group, revision, epoch, layout, bodies, cold: None }))
    }

    /// Builds and commits.
    pub(crate) fn build(&mut self, order: BuildOrder) -> Option<()> {
        let (session, packed) = self.recrypt(order)?;
        let heard = self.tell(&Party::ALL, &ToHolder::Commit { session });
        let committed = heard.iter().filter(|(_, m)| matches!(m, FromHolder::Committed { .. })).count();
        self.groups.insert((packed.group, packed.revision), packed);
        (committed == 3).then_some(())
    }

    /// Has a probe of a person sealed and recrypted.
    pub(crate) fn ask(&mut self, person: usize, decision: Decision) -> Asked {
        let (session, sealed, pending) = self.probe(person, decision);
        let heard = self.tell(&Party::ALL, &ToHolder::Ask { sealed: sealed.clone() });
        let probes = self.probes(heard);
        Asked { session, sealed, pending, probes }
    }

    /// A sealed probe of a person.
    pub(crate) fn probe(&mut self, person: usize, decision: Decision) -> (SessionId, Vec<u8>, PendingQuery) {
        let probe = at_cosine(&self.scene.people[person].1, 0.8, &mut self.scene.rng);
        let (collection, now) = (self.scene.cluster.collection().clone(), self.scene.cluster.now);
        let (request, pending) = self.scene.cluster.client.ask(&collection, &probe, query(decision, 0.4), now).unwrap();
        let ClientRequest::Ask { sealed } = borsh::from_slice(&request).unwrap() else { unreachable!() };
        (query_session(&SealedTemplate::from_bytes(&sealed).unwrap().digest()), sealed, pending)
    }

    fn probes(&self, heard: Vec<(Party, FromHolder)>) -> BTreeMap<usize, ProbeCiphertext> {
        let mut gathered: BTreeMap<_, [(Option<PartPayload>, Option<PartPayload>); 3]> = BTreeMap::new();
        for (_, message) in heard {
            if let FromHolder::ProbePart { seed, shape, part, payload, .. } = message {
                let (polynomials, digest) = &mut gathered.entry((shape, seed.0)).or_default()[part.index()];
                let place = if matches!(payload, PartPayload::Digest(_)) { digest } else { polynomials };
                *place = Some(payload);
            }
        }
        let parameters = self.scene.cluster.parameters();
        let dimension = Dimension::new(D).unwrap();
        gathered
            .into_iter()
            .filter_map(|((shape, seed), copies)| {
                let borrowed = copies.each_ref().map(|(a, b)| (a.as_ref(), b.as_ref()));
                let polynomials = shape.layout.blocks(dimension);
                let bodies = sum_parts(&parameters, &parameters.ring(), polynomials, &borrowed).ok()?;
                let seed = veilmatch_glwe::MaskSeed(seed);
                let probe = ProbeCiphertext::new(seed.expand(&parameters, shape.layout, dimension), bodies);
                Some((shape.layout.beta(), probe))
            })
            .collect()
    }

    /// The sums over one revision of a group.
    pub(crate) fn sums(&self, asked: &Asked, group: &PackedGroup) -> GroupSums {
        let parameters = self.scene.cluster.parameters();
        group.scan(&parameters, &parameters.ring(), &asked.probes[&group.layout.beta()]).unwrap()
    }

    /// Honest sums over the newest revision of every group.
    pub(crate) fn all_sums(&self, asked: &Asked) -> Vec<GroupSums> {
        let newest: BTreeMap<GroupId, &PackedGroup> = self.groups.iter().map(|((g, _), p)| (*g, p)).collect();
        newest.into_values().map(|group| self.sums(asked, group)).collect()
    }

    /// Sends sums to each holder; the client reads the answer if all three holders gave one.
    pub(crate) fn finish(&mut self, asked: Asked, sums: [Vec<GroupSums>; 3]) -> Finished {
        let session = asked.session;
        let heard = self.tell_each(sums.map(|groups| ToHolder::Sums { session, stage: Stage::Whole, groups }));
        (Self::read(asked.pending, &heard), heard)
    }

    fn read(pending: PendingQuery, heard: &[(Party, FromHolder)]) -> Option<Result<Outcome, ClientError>> {
        let mut replies: BTreeMap<Party, Vec<u8>> = BTreeMap::new();
        for (party, message) in heard {
            if let FromHolder::Answer { reply, .. } = message {
                replies.insert(*party, reply.clone());
            }
        }
        let replies: [Vec<u8>; 3] = replies.into_values().collect::<Vec<_>>().try_into().ok()?;
        Some(pending.read(&borsh::to_vec(&ClientAnswer::Replies { replies }).unwrap()))
    }

    /// The same honest sums to all, changed; they must be refused by everybody with this code, blaming the matcher.
    pub(crate) fn refuses(&mut self, code: &str, change: impl FnOnce(&Puppet, &Asked, &mut Vec<GroupSums>)) {
        let before = self.scene.before();
        let asked = self.ask(0, Decision::Exists);
        let mut sums = self.all_sums(&asked);
        change(self, &asked, &mut sums);
        let (answer, _) = self.finish(asked, [sums.clone(), sums.clone(), sums]);
        assert_eq!(answer, None);
        self.blames_matcher(code);
        self.scene.assert_untouched(&before);
    }

    /// All failures blame the matcher, and some holder found this one.
    pub(crate) fn blames_matcher(&mut self, code: &str) {
        let failures = self.scene.cluster.take_failures();
        assert!(failures.iter().any(|(_, e)| e.code() == code), "{code}: {failures:?}");
        for (_, error) in &failures {
            assert!(points_at(&error.suspects(), Suspect::Matcher), "{error:?}");
        }
    }

    /// An honest query works.
    pub(crate) fn assert_works(&mut self) {
        self.scene.assert_agree();
        self.scene.cluster.take_failures();
        let Some((subject, person)) = (0..self.scene.people.len()).find_map(|i| {
            let subject = self.scene.people[i].0.clone();
            let collection = self.scene.cluster.collection();
            self.scene.cluster.holder(Party::K0).enrolled(collection, &subject).map(|_| (subject, i))
        }) else {
            panic!("nobody is enrolled")
        };
        let asked = self.ask(person, Decision::Best);
        let sums = self.all_sums(&asked);
        let (answer, _) = self.finish(asked, [sums.clone(), sums.clone(), sums]);
        assert_eq!(answer, Some(Ok(Outcome::Best(Some(subject)))), "{:?}", self.scene.cluster.take_failures());
        assert_eq!(self.scene.cluster.take_failures(), []);
    }
}

/// The two groups of [`Puppet::with_groups`].
pub(crate) const A: GroupId = GroupId(0);
pub(crate) const B: GroupId = GroupId(1);

/// A query, as a value.
pub(crate) fn exists() -> Query {
    query(Decision::Exists, 0.4)
}
