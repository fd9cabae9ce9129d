//! No secret in `Debug`, `Display`, errors or refusals: every seed that a party draws, every coordinate and every share
//! is searched for, in decimal and in hex, in whatever the parties can be made to say.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::{Debug, Display};
use std::sync::{Arc, Mutex};

use chacha20::ChaCha20Rng;
use rand_core::{Rng, TryCryptoRng, TryRng};
use veilmatch_cluster::{Address, Cluster};
use veilmatch_domain::{
    ClientId, CollectionId, Decision, Dimension, Embedding, Explain, Party, Policy, Query, SubjectId, TemplateVersion,
};
use veilmatch_glwe::{ClientRequest, GLWE_2048_V1, Refusal, ToHolder};
use veilmatch_holder::{Holder, HolderError, Sender};
use veilmatch_mpc::{Fault, FaultKind};
use veilmatch_sdk::Client;
use veilmatch_sealed::{COORDINATE_BYTES, SealedTemplate, expand_part, pack, quantise};
use veilmatch_secret::{Entropy, Seed};
use veilmatch_tests::{query, random_unit, rng, subject};

const DIMENSION: usize = 32;

type Draws = Arc<Mutex<Vec<Vec<u8>>>>;

/// A generator that remembers what it gave.
struct Recorded(ChaCha20Rng, Draws);

impl TryRng for Recorded {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.next_u32())
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill_bytes(bytes);
        self.1.lock().unwrap().push(bytes.to_vec());
        Ok(())
    }
}

impl TryCryptoRng for Recorded {}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// What to search for.
#[derive(Default)]
struct Secrets {
    /// Anywhere in the text, without regard to case.
    inside: BTreeSet<String>,
    /// As a word of letters and digits of its own.
    words: BTreeSet<String>,
}

impl Secrets {
    /// The beginning and the end, as hex or as a list of numbers.
    fn bytes(&mut self, bytes: &[u8]) {
        let (first, last) = (&bytes[..8], &bytes[bytes.len() - 8..]);
        for eight in [first, last] {
            self.inside.insert(hex(eight));
            self.inside.insert(eight.iter().map(u8::to_string).collect::<Vec<_>>().join(", "));
        }
    }

    fn number(&mut self, value: u64) {
        if value > 9999 {
            self.words.extend([value.to_string(), format!("{value:x}"), format!("{value:012x}")]);
        }
    }

    fn embedding(&mut self, embedding: &Embedding) {
        let values = embedding.values();
        for value in values {
            let digits = format!("{:.5}", value.abs());
            self.inside.insert(digits);
            self.inside.insert(format!("{:.4e}", value.abs())[..6].to_owned());
            self.words.extend([format!("{:08x}", value.to_bits()), format!("{:08x}", value.to_bits().swap_bytes())]);
        }
        let quantised = quantise(embedding);
        self.share(quantised.expose());
        for value in quantised.expose() {
            self.number(value.min(&((1 << 48) - value)).to_owned()); // magnitude, as a signed number shows it
        }
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.bytes(&bytes);
    }

    /// Values modulo 2^48.
    fn share(&mut self, values: &[u64]) {
        values.iter().for_each(|value| self.number(*value));
        for packed in pack(values).expose().chunks(2 * COORDINATE_BYTES) {
            self.bytes(packed);
        }
    }

    fn found_in(&self, text: &str) -> Option<&String> {
        let text = text.to_lowercase();
        let words: BTreeSet<&str> = text.split(|c: char| !c.is_alphanumeric()).collect();
        let word = |secret: &&String| words.contains(secret.as_str()) || words.contains(format!("0x{secret}").as_str());
        self.inside.iter().find(|s| text.contains(s.as_str())).or_else(|| self.words.iter().find(word))
    }
}

/// Everything that was said.
#[derive(Default)]
struct Said(Vec<String>);

impl Said {
    fn debug(&mut self, value: &impl Debug) {
        self.0.extend([format!("{value:?}"), format!("{value:#?}")]);
    }

    fn error(&mut self, error: &(impl Debug + Display + Explain)) {
        self.debug(error);
        self.0.extend([error.to_string(), error.advice().to_owned(), error.code().to_owned()]);
        self.debug(&Refusal::new(error, Vec::new()));
    }
}

/// A cluster, what its holders said when they refused, and with which codes.
struct Stage {
    cluster: Cluster,
    said: Said,
    codes: BTreeSet<&'static str>,
}

impl Stage {
    fn take_failures(&mut self) {
        for (_, error) in self.cluster.take_failures() {
            self.codes.insert(error.code());
            self.said.error(&error);
            self.said.debug(&error.refusal());
            if let HolderError::PeerStopped { refusal, .. } = &error {
                self.said.0.push(refusal.message.clone());
            }
        }
    }

    /// Sends a message to K0 in the matcher's name.
    fn tell_holder(&mut self, bytes: Vec<u8>) {
        self.cluster.network.send(Address::Matcher, Address::Holder(Party::K0), bytes);
        self.cluster.run();
        self.cluster.pass_deadlines();
        self.take_failures();
    }

    fn order(&mut self, message: &ToHolder) {
        self.tell_holder(borsh::to_vec(message).unwrap());
    }

    /// Asks, and notes whatever comes back.
    fn ask(&mut self, probe: &Embedding, asked: Query) {
        match self.cluster.ask(probe, asked) {
            Ok(outcome) => self.said.debug(&outcome),
            Err(error) => {
                self.said.debug(&error);
                self.said.0.push(error.to_string());
            }
        }
        self.take_failures();
    }

    fn enrol(&mut self, name: SubjectId, embedding: &Embedding) {
        let verdicts = self.cluster.enroll(&[(name, embedding.clone())], &mut |_| {});
        self.said.debug(&verdicts);
        if let Ok(verdicts) = verdicts {
            self.said.0.extend(verdicts.iter().map(ToString::to_string));
        }
        self.take_failures();
    }

    fn fault(&mut self, from: Address, to: Address, nth: usize, kind: FaultKind<Address>) {
        self.cluster.network.inject(Fault { from, to, nth, kind });
    }
}

fn sealed_in(request: &[u8]) -> Vec<u8> {
    match borsh::from_slice(request).unwrap() {
        ClientRequest::Ask { sealed } => sealed,
        other => panic!("{other:?}"),
    }
}

/// Refusals of many kinds, provoked one after the other.
fn provoke(stage: &mut Stage, vectors: &[Embedding], stranger: &mut Client) {
    let exists = || query(Decision::Exists, 0.5);
    let [k0, k1] = [Party::K0, Party::K1].map(Address::Holder);
    let (now, collection) = (stage.cluster.now, stage.cluster.collection().clone());
    let other = CollectionId::new("other").unwrap();

    stage.tell_holder(vec![0xff; 40]);
    stage.enrol(subject(0), &vectors[1]);
    stage.ask(&vectors[0], query(Decision::Verify { subject: subject(9) }, 0.5));
    let ask = |stage: &mut Stage, collection: &CollectionId, probe: &Embedding, asked: Query| {
        let (request, pending) = stage.cluster.client.ask(collection, probe, asked, now).unwrap();
        stage.said.debug(&pending);
        sealed_in(&request)
    };
    let sealed = ask(stage, &collection, &vectors[2], query(Decision::Verify { subject: subject(9) }, 0.5));
    stage.order(&ToHolder::Ask { sealed });
    let sealed = ask(stage, &other, &vectors[2], exists());
    stage.order(&ToHolder::Ask { sealed });
    let sealed = stage.cluster.client.seal_template(&collection, subject(5), &vectors[2], now).unwrap();
    stage.said.debug(&SealedTemplate::from_bytes(&sealed).unwrap());
    stage.order(&ToHolder::Ask { sealed: sealed.clone() });
    stage.order(&ToHolder::Ask { sealed: sealed[..sealed.len() - 1].to_vec() });
    let mut spoilt = sealed;
    *spoilt.last_mut().unwrap() ^= 1;
    stage.order(&ToHolder::Admit { attempt: 900, collection: collection.clone(), templates: vec![spoilt] });
    stage.order(&ToHolder::Admit { attempt: 901, collection: collection.clone(), templates: Vec::new() });

    // Twice the same, too late, by a stranger, of another dimension, for other holders' keys.
    let (request, _) = stage.cluster.client.ask(&collection, &vectors[2], exists(), now).unwrap();
    for _ in 0..2 {
        let answer = stage.cluster.request(request.clone());
        stage.said.debug(&answer);
        stage.take_failures();
    }
    let (request, _) = stage.cluster.client.ask(&collection, &vectors[2], exists(), now).unwrap();
    stage.cluster.now.0 += 1_000_000;
    stage.order(&ToHolder::Ask { sealed: sealed_in(&request) });
    stage.cluster.now = now;
    let (request, pending) = stranger.ask(&collection, &vectors[2], exists(), now).unwrap();
    stage.said.debug(&pending);
    stage.order(&ToHolder::Ask { sealed: sealed_in(&request) });
    stage.cluster.register(stranger);
    let (request, _) = stranger.ask(&collection, &vectors[2], exists(), now).unwrap();
    stage.order(&ToHolder::Ask { sealed: sealed_in(&request) });
    let wide = random_unit(2 * DIMENSION, &mut rng(77));
    let sealed = ask(stage, &collection, &wide, exists());
    stage.order(&ToHolder::Ask { sealed });

    // Faults on the way: between holders, of the sums, silence.
    for kind in [FaultKind::Alter { byte: 70, bit: 1 }, FaultKind::Lose, FaultKind::Repeat] {
        stage.fault(k0, k1, 3, kind);
        stage.ask(&vectors[2], exists());
        stage.cluster.network.heal();
    }
    for tampered in [80, usize::MAX] {
        stage.cluster.tamper = Some(Box::new(move |delivery| {
            if delivery.from == Address::Matcher
                && let Ok(ToHolder::Sums { session, stage, mut groups }) = borsh::from_slice(&delivery.bytes)
            {
                match groups[0].masks.get_mut(tampered) {
                    Some(byte) => *byte ^= 1,
                    None => groups.clear(),
                }
                delivery.bytes = borsh::to_vec(&ToHolder::Sums { session, stage, groups }).unwrap();
            }
            true
        }));
        stage.ask(&vectors[2], exists());
        stage.cluster.tamper = None;
    }
    let mut policy = Policy::permissive(Dimension::new(DIMENSION).unwrap());
    policy.exists = false;
    stage.cluster.set_policy(&policy).unwrap();
    stage.ask(&vectors[2], exists());
}

#[test]
#[expect(clippy::print_stdout, reason = "what was provoked is the test's report")]
fn no_secret_is_ever_said() {
    let draws = Draws::default();
    let mut next = 500;
    let mut entropy = || -> Box<dyn Entropy> {
        next += 1;
        Box::new(Recorded(rng(next), Arc::clone(&draws)))
    };
    let dimension = Dimension::new(DIMENSION).unwrap();
    let policy = Policy::permissive(dimension);
    let collection = CollectionId::new("staff").unwrap();
    let gate = ClientId::new("gate").unwrap();
    let cluster = Cluster::new(GLWE_2048_V1, collection, policy, gate, &mut entropy).unwrap();
    let mut stage = Stage { cluster, said: Said::default(), codes: BTreeSet::new() };
    let mut random = rng(10);
    let vectors: Vec<Embedding> = (0..3).map(|_| random_unit(DIMENSION, &mut random)).collect();

    // A holder of its own for reactions: its ceremony message carries a seed.
    let mut holders = Party::ALL.map(|party| Holder::with_fresh_keys(party, GLWE_2048_V1, entropy()));
    let cards = holders.each_ref().map(Holder::card);
    holders[0].meet(cards.clone());
    stage.said.debug(&holders[0].begin_epoch().unwrap());
    stage.said.debug(&holders[0].receive(Sender::Matcher, b"nonsense", stage.cluster.now));
    stage.said.debug(&holders);
    let keys = cards.map(|card| card.encryption);
    let mut stranger = Client::new(ClientId::new("stranger").unwrap(), TemplateVersion(1), keys, entropy());
    stage.said.debug(&stranger);

    stage.enrol(subject(0), &vectors[0]);
    stage.enrol(subject(1), &vectors[1]);
    stage.cluster.network.record();
    stage.ask(&vectors[2], query(Decision::Best, 0.5));
    provoke(&mut stage, &vectors, &mut stranger);

    let Stage { cluster, mut said, codes } = stage;
    said.debug(&cluster);
    said.debug(&cluster.client);
    said.debug(&cluster.network);
    said.debug(cluster.matcher());
    for party in Party::ALL {
        said.debug(cluster.holder(party));
        cluster.log(party).iter().for_each(|entry| said.debug(entry));
    }
    vectors.iter().for_each(|v| said.debug(v));

    let mut secrets = Secrets::default();
    vectors.iter().for_each(|v| secrets.embedding(v));
    let draws = draws.lock().unwrap();
    // Shorter draws are nonces, which are public.
    for draw in draws.iter().filter(|draw| draw.len() >= 32) {
        secrets.bytes(draw);
        if let Ok(seed) = <[u8; 32]>::try_from(draw.as_slice()) {
            secrets.share(expand_part(&Seed::from_bytes(seed), dimension).expose());
        }
    }
    let length: usize = said.0.iter().map(String::len).sum();
    let (inside, words) = (secrets.inside.len(), secrets.words.len());
    println!("{} texts, {length} characters, {inside} + {words} forms of secrets; errors: {codes:?}", said.0.len());
    for text in &said.0 {
        if let Some(secret) = secrets.found_in(text) {
            let text: String = text.chars().take(400).collect();
            panic!("{secret} is in {text}");
        }
    }
    assert!(codes.len() >= 12, "{codes:?}");

    // The search can find something.
    let quantised = quantise(&vectors[0]);
    for leak in [
        format!("{:?}", vectors[0].values()),
        format!("{:e}", vectors[0].values()[3]),
        format!("{:?}", quantised.expose()),
        format!("{:x?}", pack(quantised.expose()).expose()).replace(", ", ""),
        format!("seed {:?}", draws[0]),
        format!("seed 0x{}", hex(&draws[0]).to_uppercase()),
        format!("{:#x}", vectors[0].values()[5].to_bits()),
    ] {
        assert!(secrets.found_in(&leak).is_some(), "{leak}");
    }
}
