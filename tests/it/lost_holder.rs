//! A holder that lost its machine is made again from the two others.

use veilmatch_domain::{Decision, Dimension, Explain, LockOut, Outcome, Party, Policy, Timestamp};
use veilmatch_glwe::{ToHolder, Verdict};
use veilmatch_holder::{AuditEntry, AuditEvent, HolderSecretKey, RestoreError, RestoreRequest, combine_restored};
use veilmatch_sealed::{Administration, Audience, ClientSigningKey, SignedAdministration};
use veilmatch_secret::os_entropy;
use veilmatch_tests::{query, random_unit};

use crate::cheats::{D, Scene};

/// A lost holder's new machine, and the administrator.
struct Rescue {
    lost: Party,
    key: HolderSecretKey,
    office: ClientSigningKey,
    nonce: u8,
}

impl Rescue {
    fn of(lost: Party, scene: &mut Scene) -> Rescue {
        let office = ClientSigningKey::random(&mut *os_entropy());
        scene.cluster.set_administrators(&[office.verifying_key()]);
        Rescue { lost, key: HolderSecretKey::random(&mut *os_entropy()), office, nonce: 0 }
    }

    fn request(&self) -> RestoreRequest {
        RestoreRequest { party: self.lost, key: self.key.public_key().clone() }
    }

    fn allow(&mut self, scene: &mut Scene, at: Party) {
        self.nonce += 1;
        let action =
            Administration::AllowRestore { party: self.lost, key_fingerprint: self.key.public_key().fingerprint() };
        let now = scene.cluster.now;
        let until = Timestamp(now.0 + 600);
        let request = SignedAdministration::sign(Audience::HOLDERS, [self.nonce; 16], now, until, action, &self.office);
        scene.cluster.administer(at, &request).unwrap();
    }

    fn answers(&mut self, scene: &mut Scene) -> [Vec<u8>; 2] {
        self.lost.peers().map(|peer| {
            self.allow(scene, peer);
            scene.cluster.answer_restore(peer, &self.request()).unwrap()
        })
    }

    fn carry_out(&mut self, scene: &mut Scene) {
        let [a, b] = self.answers(scene);
        let (keys, records) = combine_restored(self.lost, scene.cluster.cards(), &self.key, [&a, &b]).unwrap();
        scene.cluster.replace(self.lost, &keys, records).unwrap();
    }
}

#[test]
fn queries_go_on_and_a_ceremony_makes_it_whole() {
    for lost in Party::ALL {
        let mut scene = Scene::new(950 + lost.index() as u64, &[3, 2]);
        let gone = scene.people[4].0.clone();
        scene.cluster.erase(&gone).unwrap();
        // Two epochs are in use: groups of the first are still live.
        scene.cluster.begin_epoch().unwrap();
        let before = scene.before();
        let mut rescue = Rescue::of(lost, &mut scene);
        rescue.carry_out(&mut scene);
        assert_eq!(scene.before().registry(), before.registry());
        for place in 0..4 {
            assert_eq!(scene.verify(place), Ok(Outcome::Verify(true)));
        }
        let probe = scene.people[4].1.clone();
        assert_eq!(scene.cluster.ask(&probe, query(Decision::Exists, 0.4)), Ok(Outcome::Exists(false)));
        let log = scene.cluster.log(lost);
        assert_eq!((AuditEntry::first_break(log), &log[0].event), (None, &AuditEvent::Restored));
        assert_eq!(scene.cluster.take_failures(), []);

        // It does not know what it used up under the old epochs: it builds nothing until a new one begins.
        let person = scene.person();
        scene.cluster.restart(lost).unwrap();
        let verdicts = scene.enrol(std::slice::from_ref(&person));
        let refused = scene.cluster.take_failures();
        assert!(refused.iter().any(|(p, e)| *p == lost && e.code() == "restored-epoch"), "{verdicts:?} {refused:?}");
        scene.cluster.rotate().unwrap();
        let next = scene.person();
        assert_eq!(scene.enrol(&[next]).unwrap(), [Verdict::Accepted]);
        assert_eq!(scene.verify(5), Ok(Outcome::Verify(true)), "who was admitted meanwhile is taken along");
        assert_eq!(scene.verify(6), Ok(Outcome::Verify(true)));
        scene.cluster.erase(&person.0).unwrap();
        scene.assert_agree();
        scene.assert_works();
        // And it can be lost again, or be the one that helps.
        let other = lost.next();
        Rescue::of(other, &mut scene).carry_out(&mut scene);
        scene.assert_works();
    }
}

/// Under `paillier` the two others give a lost holder its parts of the threshold key too.
#[test]
fn a_share_of_a_threshold_key_comes_back() {
    let mut scene = Scene::paillier(955);
    scene.enrol_batches(&[2]);
    for lost in Party::ALL {
        Rescue::of(lost, &mut scene).carry_out(&mut scene);
        // Ask until every pair of holders has decrypted.
        for _ in 0..6 {
            assert_eq!(scene.verify(1), Ok(Outcome::Verify(true)));
        }
        scene.cluster.rotate().unwrap();
        scene.assert_works();
    }
}

#[test]
fn what_was_used_up_stays_used_up() {
    let lock_out = LockOut { failures: 1, delay_seconds: 1000, disable_after: 0 };
    let policy = Policy { lock_out, ..Policy::permissive(Dimension::new(D).unwrap()) };
    let mut scene = Scene::with_policy(960, policy);
    let people = [scene.person(), scene.person()];
    scene.enrol(&people).unwrap();
    let impostor = random_unit(D, &mut scene.rng);
    let verify = query(Decision::Verify { subject: people[0].0.clone() }, 0.4);
    assert_eq!(scene.cluster.ask(&impostor, verify), Ok(Outcome::Verify(false)));
    let (collection, now) = (scene.cluster.collection().clone(), scene.cluster.now);
    let exists = query(Decision::Exists, 0.4);
    let (ask, pending) = scene.cluster.client.ask(&collection, &people[1].1, exists, now).unwrap();
    let answer = scene.cluster.request(ask.clone()).unwrap();
    assert_eq!(pending.read(&answer), Ok(Outcome::Exists(true)));
    Rescue::of(Party::K1, &mut scene).carry_out(&mut scene);
    assert!(scene.verify(0).is_err());
    let codes: Vec<_> = scene.cluster.take_failures().into_iter().map(|(p, e)| (p, e.code())).collect();
    assert!(codes.contains(&(Party::K1, "locked-out")), "{codes:?}");
    let veilmatch_glwe::ClientRequest::Ask { sealed } = borsh::from_slice(&ask).unwrap() else { panic!() };
    let bytes = borsh::to_vec(&ToHolder::Ask { sealed }).unwrap();
    scene.cluster.network.send(
        veilmatch_cluster::Address::Matcher,
        veilmatch_cluster::Address::Holder(Party::K1),
        bytes,
    );
    scene.cluster.run();
    let codes: Vec<_> = scene.cluster.take_failures().into_iter().map(|(p, e)| (p, e.code())).collect();
    assert!(codes.contains(&(Party::K1, "replayed")), "{codes:?}");
}

#[test]
fn nobody_is_answered_without_an_administrator() {
    let mut scene = Scene::new(961, &[3]);
    let mut rescue = Rescue::of(Party::K1, &mut scene);
    let refused = |scene: &mut Scene, request: &RestoreRequest| {
        assert_eq!(scene.cluster.answer_restore(Party::K0, request).unwrap_err().code(), "restore-not-allowed");
    };
    refused(&mut scene, &rescue.request());
    rescue.allow(&mut scene, Party::K0);
    let stranger = HolderSecretKey::random(&mut *os_entropy());
    refused(&mut scene, &RestoreRequest { key: stranger.public_key().clone(), ..rescue.request() });
    refused(&mut scene, &RestoreRequest { party: Party::K2, ..rescue.request() });
    scene.cluster.restart(Party::K0).unwrap();
    scene.cluster.answer_restore(Party::K0, &rescue.request()).unwrap();
    refused(&mut scene, &rescue.request());
    scene.cluster.set_administrators(&[rescue.office.verifying_key()]);
    rescue.allow(&mut scene, Party::K0);
    scene.cluster.now.0 += 3601;
    refused(&mut scene, &rescue.request());
    scene.assert_works();
}

#[test]
fn answers_that_differ_are_incomplete_or_altered() {
    let lost = Party::K2;
    let mut scene = Scene::new(962, &[3]);
    let mut rescue = Rescue::of(lost, &mut scene);
    let [a, b] = rescue.answers(&mut scene);
    let cards = scene.cluster.cards().clone();
    let combine = |answers: [&[u8]; 2]| combine_restored(lost, &cards, &rescue.key, answers).err();
    let [next, previous] = lost.peers();
    assert_eq!(combine([&a, &b]), None);
    // One peer's answer does for one peer.
    assert_eq!(combine([&a, &a]), Some(RestoreError::Answer { from: previous }));
    assert_eq!(combine([&b, &a]), Some(RestoreError::Answer { from: next }));
    for at in [0, 5, 2000, a.len() - 1] {
        let mut altered = a.clone();
        altered[at] ^= 1;
        assert_eq!(combine([&altered, &b]), Some(RestoreError::Answer { from: next }), "byte {at}");
    }
    let other = HolderSecretKey::random(&mut *os_entropy());
    assert!(combine_restored(lost, &cards, &other, [&a, &b]).is_err());
    let mut pinned = cards.clone();
    pinned[lost.index()].encryption = other.public_key().clone();
    assert_eq!(combine_restored(lost, &pinned, &rescue.key, [&a, &b]).err(), Some(RestoreError::WrongKeys));

    // One peer knows of a change that the other has not carried out.
    let action = Administration::RevokeClient { client: scene.cluster.client.id().clone() };
    let (now, until) = (scene.cluster.now, Timestamp(scene.cluster.now.0 + 600));
    let request = SignedAdministration::sign(Audience::ALL, [99; 16], now, until, action, &rescue.office);
    scene.cluster.administer(next, &request).unwrap();
    let [a, b] = rescue.answers(&mut scene);
    let different = combine_restored(lost, &cards, &rescue.key, [&a, &b]).err();
    assert_eq!(different, Some(RestoreError::Different { kind: "client" }));
}
