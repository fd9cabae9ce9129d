//! A client that lies, played by the test: replays, re-purposed and altered templates, other people's templates, what
//! policy forbids, copies that differ. Each is refused with an error that points at the client, and nothing changes.

use veilmatch_cluster::ClusterError;
use veilmatch_domain::{
    ClientId, CollectionId, Decision, Dimension, Embedding, Outcome, Party, Policy, Purpose, Query, SubjectId, Suspect,
    TemplateVersion, Threshold, Timestamp,
};
use veilmatch_glwe::{ClientAnswer, ClientRequest, Refusal, ToHolder, Verdict};
use veilmatch_sdk::Client;
use veilmatch_sealed::{
    Associated, ClientSigningKey, HolderPublicKey, SealedTemplate, SignedErasure, data_context, pack, packet_context,
    quantise, readers, seal_once, split,
};
use veilmatch_secret::{Hasher, Label, Seed};
use veilmatch_tests::{query, random_unit, rng, subject};

use crate::cheats::{D, Puppet, Scene, exists, points_at};

/// A client that seals by hand whatever it likes.
pub(crate) struct Forger {
    signer: ClientSigningKey,
    holders: [HolderPublicKey; 3],
    random: chacha20::ChaCha20Rng,
    nonce: u8,
    pub(crate) associated: Associated,
}

/// What the packets hold, in the order K0, K1, K2: material of part i, material of part i+1.
pub(crate) type Materials = [[Seed; 2]; 3];

impl Forger {
    /// The scene's own client: it has the key that all holders know.
    pub(crate) fn new(scene: &Scene) -> Forger {
        Forger {
            signer: ClientSigningKey::random(&mut rng(scene.seed * 1000 + 4)),
            holders: Party::ALL.map(|p| scene.cluster.holder(p).card().encryption),
            random: rng(scene.seed + 77),
            nonce: 0,
            associated: Associated {
                client: ClientId::new("gate").unwrap(),
                collection: scene.cluster.collection().clone(),
                purpose: Purpose::Probe(exists()),
                dimension: Dimension::new(D).unwrap(),
                template_version: TemplateVersion(1),
                nonce: [0xf0; 16],
                expires: Timestamp(scene.cluster.now.0 + 60),
            },
        }
    }

    pub(crate) fn enrolling(mut self, subject: &SubjectId) -> Self {
        self.associated.purpose = Purpose::Enrol { subject: subject.clone() };
        self
    }

    pub(crate) fn purpose(&mut self, purpose: Purpose) {
        self.associated.purpose = purpose;
    }

    /// Seals arbitrary values modulo 2^48.
    pub(crate) fn seal(&mut self, values: &[u64]) -> Vec<u8> {
        self.seal_with(values, |_| {})
    }

    /// Seals with a change to who gets which material.
    fn seal_with(&mut self, values: &[u64], change: impl FnOnce(&mut Materials)) -> Vec<u8> {
        self.nonce += 1;
        self.associated.nonce[0] = self.nonce;
        let parts = split(values, &mut self.random);
        let [a, b] = parts.seeds;
        let content = Seed::random(&mut self.random);
        let mut materials = [[a.duplicate(), b.duplicate()], [b, content.duplicate()], [content.duplicate(), a]];
        change(&mut materials);
        let readers = readers(&self.holders).unwrap();
        let mut bytes = vec![1u8];
        bytes.extend(borsh::to_vec(&self.associated).unwrap());
        for ((party, key), [own, next]) in Party::ALL.into_iter().zip(&self.holders).zip(&materials) {
            let (kem, secret) = key.encapsulate(&mut self.random);
            let plain = [own.expose().as_slice(), next.expose().as_slice(), &[3; 32]].concat();
            bytes.extend(kem);
            bytes.extend(seal_once(secret, &packet_context(&self.associated, party, &kem, &readers), &plain).unwrap());
        }
        let data = pack(parts.data.expose());
        bytes.extend(seal_once(content, &data_context(&self.associated, &readers), data.expose()).unwrap());
        self.sign(bytes)
    }

    /// Signs what may be another client's template.
    fn sign(&self, mut unsigned: Vec<u8>) -> Vec<u8> {
        let digest = Hasher::new("veilmatch/sealed/template").field(&unsigned).finish();
        unsigned.extend(self.signer.sign(&Label::new("veilmatch/sealed/signature").bytes(&digest.0)));
        unsigned
    }
}

/// Enrols sealed templates in one request.
pub(crate) fn enrol(scene: &mut Scene, templates: Vec<Vec<u8>>) -> Result<Vec<Verdict>, ClusterError> {
    let request =
        ClientRequest::Enroll { collection: scene.cluster.collection().clone(), templates, more_follows: false };
    let answer = scene.cluster.request(borsh::to_vec(&request).unwrap())?;
    Ok(Client::read_enrolled(&answer)?)
}

/// Asks with a sealed template; the refusal, or `None` if there were replies.
pub(crate) fn ask(scene: &mut Scene, sealed: Vec<u8>) -> Option<Refusal> {
    let answer = scene.cluster.request(borsh::to_vec(&ClientRequest::Ask { sealed }).unwrap()).unwrap();
    match borsh::from_slice(&answer).unwrap() {
        ClientAnswer::Refused(refusal) => Some(refusal),
        ClientAnswer::Replies { .. } => None,
        other => panic!("{other:?}"),
    }
}

fn assert_blames_client(refusal: &Refusal, code: &str) {
    assert_eq!(refusal.code, code, "{refusal:?}");
    assert!(points_at(&refusal.suspects, Suspect::Client), "{refusal:?}");
}

/// An enrolment that is refused without a trace.
pub(crate) fn refuses_enrolment(scene: &mut Scene, sealed: Vec<u8>, code: &str) {
    let before = scene.before();
    match enrol(scene, vec![sealed]) {
        Ok(verdicts) => {
            let [Verdict::Refused(refusal)] = verdicts.as_slice() else { panic!("{code}: {verdicts:?}") };
            assert_blames_client(refusal, code);
        }
        Err(ClusterError::Client(veilmatch_sdk::ClientError::Refused(refusal))) => assert_blames_client(&refusal, code),
        other => panic!("{other:?}"),
    }
    scene.assert_untouched(&before);
    scene.cluster.take_failures();
}

/// A query that is refused without a trace.
pub(crate) fn refuses_probe(scene: &mut Scene, sealed: Vec<u8>, code: &str) {
    let before = scene.before();
    let refusal = ask(scene, sealed).unwrap_or_else(|| panic!("{code}: answered"));
    assert_blames_client(&refusal, code);
    scene.assert_untouched(&before);
    scene.cluster.take_failures();
}

fn values(embedding: &Embedding) -> Vec<u64> {
    quantise(embedding).expose().clone()
}

#[test]
fn the_forger_seals_like_a_client() {
    let mut scene = Scene::new(400, &[3]);
    let (name, embedding) = scene.person();
    let mut forger = Forger::new(&scene).enrolling(&name);
    let sealed = forger.seal(&values(&embedding));
    assert_eq!(enrol(&mut scene, vec![sealed]).unwrap(), [Verdict::Accepted]);
    forger.purpose(Purpose::Probe(exists()));
    let sealed = forger.seal(&values(&embedding));
    assert_eq!(ask(&mut scene, sealed), None);
    scene.assert_works();
}

#[test]
fn replays() {
    let mut scene = Scene::new(401, &[3]);
    let (name, embedding) = scene.person();
    let mut forger = Forger::new(&scene);
    let probe = forger.seal(&values(&scene.people[0].1));
    assert_eq!(ask(&mut scene, probe.clone()), None);
    refuses_probe(&mut scene, probe.clone(), "session-spent");

    let mut forger = Forger::new(&scene).enrolling(&name);
    forger.associated.nonce[1] = 1;
    let template = forger.seal(&values(&embedding));
    assert_eq!(enrol(&mut scene, vec![template.clone()]).unwrap(), [Verdict::Accepted]);
    // The same template again is what is stored already: acknowledged once more, without effect.
    let before = scene.before();
    assert_eq!(enrol(&mut scene, vec![template.clone()]).unwrap(), [Verdict::Accepted]);
    assert_eq!(scene.before().registry(), before.registry());
    scene.cluster.erase(&name).unwrap();
    refuses_enrolment(&mut scene, template.clone(), "replayed");
    // One nonce for two requests, another content.
    forger.nonce -= 1;
    let same_nonce = forger.seal(&values(&embedding));
    refuses_enrolment(&mut scene, same_nonce, "replayed");
    // When the nonces are forgotten, the requests have expired.
    scene.cluster.now = Timestamp(scene.cluster.now.0 + 1000);
    refuses_enrolment(&mut scene, template.clone(), "expired");
    refuses_probe(&mut scene, probe, "session-spent");
    scene.assert_works();
    refuses_enrolment(&mut scene, template, "expired");
    // An erasure again, after the subject is back: acknowledged by nobody who would act on it.
    let (collection, now) = (scene.cluster.collection().clone(), scene.cluster.now);
    assert_eq!(scene.enrol(&[(name.clone(), embedding)]).unwrap(), [Verdict::Accepted]);
    let erasure = scene.cluster.client.erase(&collection, name.clone(), now);
    Client::read_erased(&scene.cluster.request(erasure.clone()).unwrap()).unwrap();
    let person = scene.people[3].clone();
    assert_eq!(scene.enrol(&[person]).unwrap(), [Verdict::Accepted]);
    let before = scene.before();
    let _ = scene.cluster.request(erasure);
    assert_eq!(scene.before().registry(), before.registry());
    assert_eq!(scene.verify(3), Ok(Outcome::Verify(true)));
    scene.assert_works();
}

#[test]
fn re_purposed_templates() {
    let mut scene = Scene::new(402, &[3]);
    let (name, embedding) = scene.person();
    let mut forger = Forger::new(&scene);
    let probe = forger.seal(&values(&embedding));
    let mut forger = Forger::new(&scene).enrolling(&name);
    forger.associated.nonce[1] = 1;
    let template = forger.seal(&values(&embedding));
    refuses_enrolment(&mut scene, probe.clone(), "wrong-use");
    refuses_probe(&mut scene, template.clone(), "wrong-use");
    // Past the matcher.
    let before = scene.before();
    let holders = [(ToHolder::Ask { sealed: template.clone() }, "wrong-use")];
    for (message, code) in holders {
        for party in Party::ALL {
            let bytes = borsh::to_vec(&message).unwrap();
            let (from, to) = (veilmatch_cluster::Address::Matcher, veilmatch_cluster::Address::Holder(party));
            scene.cluster.network.send(from, to, bytes);
        }
        scene.cluster.run();
        let failures = scene.cluster.take_failures();
        use veilmatch_domain::Explain as _;
        assert!(failures.iter().any(|(_, e)| e.code() == code), "{failures:?}");
        scene.assert_untouched(&before);
    }
    // With the purpose exchanged the signature breaks.
    let lengths = |purpose: &Purpose| borsh::to_vec(purpose).unwrap();
    let exchange = |sealed: &[u8], from: &Purpose, to: &Purpose| {
        let (from, to) = (lengths(from), lengths(to));
        let place = sealed.windows(from.len()).position(|w| w == from).unwrap();
        [&sealed[..place], &to, &sealed[place + from.len()..]].concat()
    };
    let (as_probe, as_enrolment) = (Purpose::Probe(exists()), Purpose::Enrol { subject: name });
    refuses_enrolment(&mut scene, exchange(&probe, &as_probe, &as_enrolment), "bad-signature");
    refuses_probe(&mut scene, exchange(&template, &as_enrolment, &as_probe), "bad-signature");
    let other = Purpose::Enrol { subject: subject(99) };
    let same = Purpose::Enrol { subject: scene.people[3].0.clone() };
    refuses_enrolment(&mut scene, exchange(&template, &same, &other), "bad-signature");
    scene.assert_works();
    assert_eq!(enrol(&mut scene, vec![template]).unwrap(), [Verdict::Accepted]);
}

#[test]
fn any_field_altered() {
    let mut scene = Scene::new(403, &[3]);
    let (name, embedding) = scene.person();
    let template = Forger::new(&scene).enrolling(&name).seal(&values(&embedding));
    let probe = Forger::new(&scene).seal(&values(&embedding));
    let before = scene.before();
    let refused = |v: &Verdict| matches!(v, Verdict::Refused(r) if points_at(&r.suspects, Suspect::Client));
    for (sealed, is_probe) in [(template, false), (probe, true)] {
        let header = 1 + borsh::to_vec(SealedTemplate::from_bytes(&sealed).unwrap().associated()).unwrap().len();
        let places = (0..header).chain((header..sealed.len()).step_by(231)).chain([sealed.len() - 1]);
        for (turn, place) in places.enumerate() {
            let mut altered = sealed.clone();
            altered[place] ^= 1 << (turn % 8);
            if is_probe {
                let refusal = ask(&mut scene, altered).expect("refused");
                assert!(points_at(&refusal.suspects, Suspect::Client), "{place}: {refusal:?}");
            } else {
                match enrol(&mut scene, vec![altered]) {
                    Ok(verdicts) => assert!(verdicts.iter().all(refused), "{place}: {verdicts:?}"),
                    Err(ClusterError::Client(e)) => assert!(points_at(&e.suspects(), Suspect::Client), "{e:?}"),
                    other => panic!("{other:?}"),
                }
            }
        }
        scene.cluster.take_failures();
        scene.assert_untouched(&before);
    }
    scene.assert_works();
}

#[test]
fn another_clients_template() {
    let mut scene = Scene::new(404, &[3]);
    let (name, embedding) = scene.person();
    let holders = Party::ALL.map(|p| scene.cluster.holder(p).card().encryption);
    let mallory = ClientId::new("mallory").unwrap();
    let version = TemplateVersion(1);
    let client = Client::new(mallory.clone(), version, holders.clone(), Box::new(rng(9_999)));
    scene.cluster.register(&client);
    let template = Forger::new(&scene).enrolling(&name).seal(&values(&embedding));
    let mut forger = Forger::new(&scene);
    forger.associated.nonce[1] = 1;
    let probe = forger.seal(&values(&embedding));
    let mut thief = Forger::new(&scene);
    thief.signer = ClientSigningKey::random(&mut rng(9_999));
    assert_eq!(thief.signer.verifying_key().to_bytes(), client.verifying_key().to_bytes());
    for (sealed, is_probe) in [(template.clone(), false), (probe.clone(), true)] {
        let read = SealedTemplate::from_bytes(&sealed).unwrap();
        let old = borsh::to_vec(read.associated()).unwrap();
        let new = borsh::to_vec(&Associated { client: mallory.clone(), ..read.associated().clone() }).unwrap();
        let body = &sealed[1 + old.len()..sealed.len() - 64];
        let stolen = thief.sign([&sealed[..1], &new, body].concat());
        // Under the victim's name, with the thief's signature.
        let renamed = thief.sign(sealed[..sealed.len() - 64].to_vec());
        if is_probe {
            refuses_probe(&mut scene, stolen, "unsealing-failed");
            refuses_probe(&mut scene, renamed, "bad-signature");
        } else {
            refuses_enrolment(&mut scene, stolen, "unsealing-failed");
            refuses_enrolment(&mut scene, renamed, "bad-signature");
        }
    }
    // The victim's own requests still work.
    assert_eq!(enrol(&mut scene, vec![template]).unwrap(), [Verdict::Accepted]);
    assert_eq!(ask(&mut scene, probe), None);
    scene.assert_works();
}

#[test]
fn strangers_and_wrong_names() {
    let mut scene = Scene::new(405, &[3]);
    let (name, embedding) = scene.person();
    let vector = values(&embedding);
    let mut nonce = 0;
    let mut forge = |scene: &Scene, change: &dyn Fn(&mut Associated)| {
        nonce += 1;
        let mut forger = Forger::new(scene);
        forger.associated.nonce[2] = nonce;
        change(&mut forger.associated);
        let length = forger.associated.dimension.get();
        forger.seal(&vector.iter().copied().cycle().take(length).collect::<Vec<_>>())
    };
    let enrolling = |to: &SubjectId| Purpose::Enrol { subject: to.clone() };
    let late = Timestamp(scene.cluster.now.0 - 1);
    type Case<'a> = (&'a str, Box<dyn Fn(&mut Associated)>);
    let cases: Vec<Case<'_>> = vec![
        ("unknown-client", Box::new(|a| a.client = ClientId::new("nobody").unwrap())),
        ("expired", Box::new(move |a| a.expires = late)),
        ("wrong-dimension", Box::new(|a| a.dimension = Dimension::new(128).unwrap())),
    ];
    for (code, change) in &cases {
        let probe = forge(&scene, change.as_ref());
        refuses_probe(&mut scene, probe, code);
        let template = forge(&scene, &|a| {
            change(a);
            a.purpose = enrolling(&name);
        });
        refuses_enrolment(&mut scene, template, code);
    }
    let guests = CollectionId::new("guests").unwrap();
    let probe = forge(&scene, &|a| a.collection = guests.clone());
    refuses_probe(&mut scene, probe, "unknown-collection");
    let template = forge(&scene, &|a| (a.collection, a.purpose) = (guests.clone(), enrolling(&name)));
    refuses_enrolment(&mut scene, template, "wrong-use");
    // A collection that exists: its template does not enter another one, nor does its request find anything there.
    let other = CollectionId::new("visitors").unwrap();
    scene.cluster.create_collection(&other, &Policy::permissive(Dimension::new(D).unwrap())).unwrap();
    let template = forge(&scene, &|a| (a.collection, a.purpose) = (other.clone(), enrolling(&name)));
    refuses_enrolment(&mut scene, template, "wrong-use");
    let probe = forge(&scene, &|a| a.collection = other.clone());
    let refusal = ask(&mut scene, probe).unwrap();
    assert_eq!(refusal.code, "empty-scope");
    // A subject that is enrolled, or twice in one request.
    let template = forge(&scene, &|a| a.purpose = enrolling(&subject(0)));
    refuses_enrolment(&mut scene, template, "already-enrolled");
    let twice =
        vec![forge(&scene, &|a| a.purpose = enrolling(&name)), forge(&scene, &|a| a.purpose = enrolling(&name))];
    let verdicts = enrol(&mut scene, twice).unwrap();
    let [Verdict::Accepted, Verdict::Refused(second)] = verdicts.as_slice() else { panic!("{verdicts:?}") };
    assert_eq!(second.code, "already-enrolled");
    // A subject that nobody knows.
    let nobody = Decision::Verify { subject: subject(98) };
    let probe = forge(&scene, &|a| a.purpose = Purpose::Probe(query(nobody.clone(), 0.4)));
    refuses_probe(&mut scene, probe, "unknown-subject");
    let unknown = scene.cluster.erase(&subject(98));
    scene.assert_refused(unknown, "unknown-subject", Suspect::Client);
    // Erasures by strangers, under another's name, altered, expired.
    let before = scene.before();
    let strangers = ClientSigningKey::random(&mut rng(1));
    let own = Forger::new(&scene).signer;
    let (collection, now) = (scene.cluster.collection().clone(), scene.cluster.now);
    let erasure = |client: &str, signer: &ClientSigningKey, expires: u64| {
        let client = ClientId::new(client).unwrap();
        SignedErasure::sign(client, collection.clone(), subject(0), [4; 16], Timestamp(expires), signer).to_bytes()
    };
    let mut altered = erasure("gate", &own, now.0 + 5);
    let last = altered.len() - 1;
    altered[last] ^= 1;
    for (request, code) in [
        (erasure("nobody", &strangers, now.0 + 5), "unknown-client"),
        (erasure("gate", &strangers, now.0 + 5), "bad-signature"),
        (erasure("gate", &own, now.0 - 1), "expired"),
        (altered, "bad-signature"),
    ] {
        let answer = scene.cluster.request(borsh::to_vec(&ClientRequest::Erase { request }).unwrap()).unwrap();
        let refused = Client::read_erased(&answer).map_err(ClusterError::from);
        scene.assert_refused(refused, code, Suspect::Client);
        scene.assert_untouched(&before);
    }
    scene.assert_works();
}

#[test]
fn what_policy_forbids() {
    let mut policy = Policy::permissive(Dimension::new(D).unwrap());
    policy.lowest_threshold = Threshold::new(0.3).unwrap();
    policy.highest_threshold = Threshold::new(0.8).unwrap();
    (policy.max_matches, policy.best, policy.exists) = (2, false, false);
    let mut scene = Scene::with_policy(406, policy.clone());
    let people: Vec<_> = (0..3).map(|_| scene.person()).collect();
    scene.enrol(&people).unwrap();
    let verify = || Decision::Verify { subject: subject(0) };
    let mut forger = Forger::new(&scene);
    let vector = values(&people[0].1);
    for forbidden in [
        query(verify(), 0.299_999),
        query(verify(), -0.9),
        query(verify(), 0.800_001),
        query(Decision::Exists, 0.4),
        query(Decision::Best, 0.4),
        query(Decision::Matches { max_matches: 3 }, 0.4),
        query(Decision::Matches { max_matches: 0 }, 0.4),
        query(Decision::Matches { max_matches: u16::MAX }, 0.4),
    ] {
        forger.purpose(Purpose::Probe(forbidden));
        let sealed = forger.seal(&vector);
        refuses_probe(&mut scene, sealed, "policy");
    }
    for allowed in [query(verify(), 0.3), query(verify(), 0.8), query(Decision::Matches { max_matches: 2 }, 0.4)] {
        forger.purpose(Purpose::Probe(allowed));
        let sealed = forger.seal(&vector);
        assert_eq!(ask(&mut scene, sealed), None);
    }
    (policy.verify, policy.max_matches) = (false, 0);
    scene.cluster.set_policy(&policy).unwrap();
    for forbidden in [query(verify(), 0.4), query(Decision::Matches { max_matches: 1 }, 0.4)] {
        forger.purpose(Purpose::Probe(forbidden));
        let sealed = forger.seal(&vector);
        refuses_probe(&mut scene, sealed, "policy");
    }
    // A threshold that the type itself does not have.
    let mut sealed = forger.seal(&vector);
    let place = 1
        + borsh::to_vec(&forger.associated.client).unwrap().len()
        + borsh::to_vec(&forger.associated.collection).unwrap().len()
        + borsh::to_vec(&forger.associated.purpose).unwrap().len();
    sealed[place - 4..place].copy_from_slice(&900_001i32.to_le_bytes());
    let unsigned = sealed[..sealed.len() - 64].to_vec();
    let sealed = forger.sign(unsigned);
    refuses_probe(&mut scene, sealed, "sealed-malformed");
}

#[test]
fn copies_that_differ() {
    let mut scene = Scene::new(407, &[3]);
    let (name, embedding) = scene.person();
    let vector = values(&embedding);
    let other = || Seed::from_bytes([0x55; 32]);
    // Seeds of parts 0 and 1 at one of their two holders; the content key at one of its two holders.
    let swaps: [(usize, usize, &str); 6] = [
        (0, 0, "copies-differ"),
        (0, 1, "copies-differ"),
        (1, 0, "copies-differ"),
        (2, 1, "copies-differ"),
        (1, 1, "unsealing-failed"),
        (2, 0, "unsealing-failed"),
    ];
    for (holder, which, code) in swaps {
        let mut forger = Forger::new(&scene).enrolling(&name);
        forger.associated.nonce[1] = 1 + (holder * 2 + which) as u8;
        let template = forger.seal_with(&vector, |m| m[holder][which] = other());
        // Who cannot open a template has nothing to compare, and its partner says so first.
        refuses_enrolment(&mut scene, template, "copies-differ");
        forger.purpose(Purpose::Probe(exists()));
        let probe = forger.seal_with(&vector, |m| m[holder][which] = other());
        refuses_probe(&mut scene, probe, code);
    }
    // Beside good ones: the others in the request are admitted.
    let mut forger = Forger::new(&scene).enrolling(&name);
    forger.associated.nonce[1] = 99;
    let bad = forger.seal_with(&vector, |m| m[0][0] = other());
    let next = scene.person();
    forger = forger.enrolling(&next.0);
    let good = forger.seal(&values(&next.1));
    let verdicts = enrol(&mut scene, vec![bad, good]).unwrap();
    assert!(matches!(verdicts.as_slice(), [Verdict::Refused(r), Verdict::Accepted] if r.code == "copies-differ"));
    assert_eq!(scene.verify(4), Ok(Outcome::Verify(true)));
    scene.assert_works();
}

#[test]
fn floods_of_sessions_that_never_open() {
    // A matcher and a client that begin at one holder alone leave frames at the others; honest requests still work.
    let mut puppet = Puppet::with_groups(408);
    for turn in 0..300 {
        let (_, sealed, _) = puppet.probe(turn % 4, Decision::Exists);
        puppet.tell(&[Party::K1], &ToHolder::Ask { sealed });
    }
    puppet.assert_works();
    puppet.pass_deadlines();
    puppet.assert_works();
}

/// A probe that nobody resembles is answered, honestly.
#[test]
fn a_stranger_does_not_match() {
    let mut scene = Scene::new(409, &[3]);
    let stranger = random_unit(D, &mut scene.rng);
    let asked = Query::new(Decision::Best, Threshold::new(0.6).unwrap());
    assert_eq!(scene.cluster.ask(&stranger, asked), Ok(Outcome::Best(None)));
}
