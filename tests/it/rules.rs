//! What holders enforce by themselves: roles, tenants, budgets, lock-out, administrators. All of it holds across restarts.

use std::collections::BTreeSet;

use veilmatch_cluster::ClusterError;
use veilmatch_domain::{
    Budgets, CollectionDescription, CollectionId, Decision, Dimension, Epoch, Explain, LockOut, ModelDigest, Outcome,
    ParameterSetId, Party, Policy, Roles, Suspect, Timestamp,
};
use veilmatch_glwe::{FromHolder, Verdict};
use veilmatch_holder::{Administered, AuditEvent, ClientRecord, HolderError, SessionKind};
use veilmatch_sealed::{Administration, Audience, ClientSigningKey, SignedAdministration};
use veilmatch_secret::os_entropy;
use veilmatch_tests::{query, random_unit};

use crate::cheats::{D, Scene};

fn policy(budgets: Budgets, lock_out: LockOut) -> Policy {
    Policy { budgets, lock_out, ..Policy::permissive(Dimension::new(D).unwrap()) }
}

fn restart(scene: &mut Scene) {
    for party in Party::ALL {
        scene.cluster.restart(party).unwrap();
    }
}

fn reason<T: std::fmt::Debug>(result: Result<T, ClusterError>) -> String {
    let Err(ClusterError::Client(error)) = result else { panic!("{result:?}") };
    error.reason().to_owned()
}

/// A collection that is bound to a model takes nothing of another, and keeps it once somebody is enrolled.
#[test]
fn models() {
    let (model, other) = (ModelDigest([7; 32]), ModelDigest([8; 32]));
    let policy = Policy { model: Some(model), ..Policy::permissive(Dimension::new(D).unwrap()) };
    let mut scene = Scene::with_policy(909, policy.clone());
    let person = scene.person();
    let verdicts = scene.enrol(std::slice::from_ref(&person)).unwrap();
    assert!(matches!(&verdicts[..], [Verdict::Refused(r)] if r.code == "other-model"), "{verdicts:?}");
    let Verdict::Refused(refusal) = &verdicts[0] else { unreachable!() };
    assert!(refusal.message.contains(&model.to_hex()), "{}", refusal.message);
    // Nobody is enrolled: the model may still change, and back.
    let collection = scene.cluster.collection().clone();
    for model in [Some(other), None, Some(model)] {
        scene.cluster.set_policy(&Policy { model, ..policy.clone() }).unwrap();
    }
    scene.cluster.client.set_model(&model);
    assert_eq!(scene.enrol(std::slice::from_ref(&person)).unwrap(), [Verdict::Accepted]);
    assert_eq!(scene.verify(0), Ok(Outcome::Verify(true)));
    restart(&mut scene);
    let before = scene.before();
    scene.cluster.client.set_model(&other);
    assert_eq!(reason(scene.verify(0)), "other-model");
    assert_eq!(reason(scene.cluster.ask(&person.1, query(Decision::Exists, 0.4))), "other-model");
    let verdict = scene.cluster.supersede(&person.0, &person.1).unwrap();
    assert!(matches!(&verdict, Verdict::Refused(r) if r.code == "other-model"), "{verdict:?}");
    for model in [Some(other), None] {
        let refused = scene.cluster.set_policy(&Policy { model, ..policy.clone() });
        assert!(matches!(refused, Err(ClusterError::Holder(HolderError::ModelStays))), "{refused:?}");
    }
    scene.cluster.take_failures();
    scene.assert_untouched(&before);
    scene.cluster.client.set_model(&model);
    assert_eq!(scene.verify(0), Ok(Outcome::Verify(true)));
    assert!(scene.cluster.matcher().stores(&collection, &person.0));
}

#[test]
fn roles_and_tenants() {
    let mut scene = Scene::new(900, &[3]);
    let (id, key) = (scene.cluster.client.id().clone(), scene.cluster.client.verifying_key());
    let may = |roles: Roles, collections: Option<&str>| ClientRecord {
        roles,
        collections: collections.map(|c| BTreeSet::from([CollectionId::new(c).unwrap()])),
        ..ClientRecord::with_all_roles(key)
    };
    let exists = query(Decision::Exists, 0.4);
    let probe = scene.people[1].1.clone();

    scene.cluster.register_as(&id, &may(Roles { verify: true, ..Roles::default() }, Some("staff")));
    restart(&mut scene);
    assert_eq!(scene.verify(1), Ok(Outcome::Verify(true)));
    assert_eq!(reason(scene.cluster.ask(&probe, exists.clone())), "role-missing");
    let gone = scene.people[2].0.clone();
    assert_eq!(reason(scene.cluster.erase(&gone)), "role-missing");
    let person = scene.person();
    let verdicts = scene.enrol(std::slice::from_ref(&person)).unwrap();
    assert!(matches!(&verdicts[..], [Verdict::Refused(r)] if r.code == "role-missing"), "{verdicts:?}");

    scene.cluster.register_as(&id, &may(Roles { identify: true, ..Roles::default() }, None));
    assert_eq!(scene.cluster.ask(&probe, exists.clone()), Ok(Outcome::Exists(true)));
    assert_eq!(reason(scene.verify(1)), "role-missing");

    scene.cluster.register_as(&id, &may(Roles::ALL, Some("guests")));
    assert_eq!(reason(scene.cluster.ask(&probe, exists.clone())), "other-tenant");
    assert_eq!(reason(scene.cluster.erase(&gone)), "other-tenant");

    // What a client enrolled can be rebuilt whatever became of its roles.
    scene.cluster.register_as(&id, &ClientRecord { revoked: true, ..may(Roles::default(), Some("guests")) });
    restart(&mut scene);
    scene.cluster.rotate().unwrap();
    assert_eq!(reason(scene.cluster.ask(&probe, exists.clone())), "client-revoked");
    scene.cluster.register_as(&id, &may(Roles::ALL, None));
    assert_eq!(scene.cluster.ask(&probe, exists), Ok(Outcome::Exists(true)));
    assert_eq!(scene.enrol(&[person]).unwrap(), [Verdict::Accepted]);
}

#[test]
fn budgets_survive_restarts_and_end_with_the_window() {
    let budgets = Budgets { window_seconds: 3600, per_client: 4, per_subject: 2, total: 0 };
    let mut scene =
        Scene::with_policy(901, policy(budgets, LockOut { failures: 0, delay_seconds: 0, disable_after: 0 }));
    let people = [scene.person(), scene.person()];
    scene.enrol(&people).unwrap();
    assert_eq!(scene.verify(0), Ok(Outcome::Verify(true)));
    restart(&mut scene);
    assert_eq!(scene.verify(0), Ok(Outcome::Verify(true)));
    restart(&mut scene);
    let result = scene.verify(0);
    scene.assert_refused(result, "budget-exhausted", Suspect::Client);
    assert_eq!(scene.verify(1), Ok(Outcome::Verify(true)));
    let probe = scene.people[1].1.clone();
    assert_eq!(scene.cluster.ask(&probe, query(Decision::Exists, 0.4)), Ok(Outcome::Exists(true)));
    assert_eq!(reason(scene.cluster.ask(&probe, query(Decision::Exists, 0.4))), "budget-exhausted");
    scene.cluster.now.0 += 3600;
    scene.assert_works();
}

/// Side by side is no way around a budget: what is under way counts.
#[test]
fn queries_side_by_side_share_one_budget() {
    let budgets = Budgets { window_seconds: 3600, per_client: 0, per_subject: 0, total: 2 };
    let mut scene =
        Scene::with_policy(902, policy(budgets, LockOut { failures: 0, delay_seconds: 0, disable_after: 0 }));
    let people = [scene.person(), scene.person()];
    scene.enrol(&people).unwrap();
    let (collection, now) = (scene.cluster.collection().clone(), scene.cluster.now);
    let asked: Vec<_> = (0..4)
        .map(|_| {
            let exists = query(Decision::Exists, 0.4);
            let (request, pending) = scene.cluster.client.ask(&collection, &people[0].1, exists, now).unwrap();
            (scene.cluster.submit(request), pending)
        })
        .collect();
    let answered: Vec<bool> = asked
        .into_iter()
        .map(|(id, pending)| {
            let answer = scene.cluster.answer_of(id).unwrap();
            pending.read(&answer).is_ok()
        })
        .collect();
    assert_eq!(answered.iter().filter(|ok| **ok).count(), 2);
}

#[test]
fn lock_out_delays_doubles_and_disables() {
    let lock_out = LockOut { failures: 2, delay_seconds: 30, disable_after: 4 };
    let free = Budgets { window_seconds: 0, per_client: 0, per_subject: 0, total: 0 };
    let mut scene = Scene::with_policy(903, policy(free, lock_out));
    let people = [scene.person(), scene.person()];
    scene.enrol(&people).unwrap();
    let subject = people[0].0.clone();
    let impostor = random_unit(D, &mut scene.rng);
    let attempt = |scene: &mut Scene| {
        let verify = query(Decision::Verify { subject: subject.clone() }, 0.4);
        scene.cluster.ask(&impostor, verify)
    };
    for _ in 0..2 {
        assert_eq!(attempt(&mut scene), Ok(Outcome::Verify(false)));
    }
    restart(&mut scene);
    let result = scene.verify(0);
    scene.assert_refused(result, "locked-out", Suspect::Client);
    assert_eq!(scene.verify(1), Ok(Outcome::Verify(true)));
    for delay in [30, 60] {
        scene.cluster.now.0 += delay - 1;
        assert_eq!(reason(scene.verify(0)), "locked-out");
        scene.cluster.now.0 += 1;
        assert_eq!(attempt(&mut scene), Ok(Outcome::Verify(false)));
    }
    scene.cluster.now.0 += 100_000;
    restart(&mut scene);
    assert_eq!(reason(scene.verify(0)), "subject-disabled");
    // A new template of the subject is not a way around it.
    let embedding = scene.people[0].1.clone();
    assert_eq!(scene.cluster.supersede(&subject, &embedding).unwrap(), Verdict::Accepted);
    assert_eq!(reason(scene.verify(0)), "subject-disabled");
    restart(&mut scene);
    assert_eq!(reason(scene.verify(0)), "subject-disabled");
    scene.cluster.take_failures();
    // Erased and enrolled again, the subject starts anew.
    scene.cluster.erase(&subject).unwrap();
    scene.enrol(&people[..1]).unwrap();
    assert_eq!(scene.verify(0), Ok(Outcome::Verify(true)));
    assert_eq!(attempt(&mut scene), Ok(Outcome::Verify(false)));
    assert_eq!(scene.verify(0), Ok(Outcome::Verify(true)));
    assert_eq!(attempt(&mut scene), Ok(Outcome::Verify(false)));
    assert_eq!(scene.verify(0), Ok(Outcome::Verify(true)), "a success ends the row");
}

struct Office {
    key: ClientSigningKey,
    nonce: u8,
}

impl Office {
    fn open(scene: &mut Scene) -> Office {
        let office = Office { key: ClientSigningKey::random(&mut *os_entropy()), nonce: 0 };
        scene.cluster.set_administrators(&[office.key.verifying_key()]);
        office
    }

    fn sign(&mut self, scene: &Scene, audience: Audience, action: Administration) -> SignedAdministration {
        self.nonce += 1;
        let now = scene.cluster.now;
        SignedAdministration::sign(audience, [self.nonce; 16], now, Timestamp(now.0 + 600), action, &self.key)
    }

    fn ask_all(&mut self, scene: &mut Scene, action: Administration) -> [Result<(), HolderError>; 3] {
        let request = self.sign(scene, Audience::ALL, action);
        Party::ALL.map(|party| scene.cluster.administer(party, &request))
    }
}

#[test]
fn administrators_change_clients_policies_and_keys() {
    let mut scene = Scene::new(904, &[3]);
    let mut office = Office::open(&mut scene);
    let (client, key) = (scene.cluster.client.id().clone(), scene.cluster.client.verifying_key());
    let done = [Ok(()), Ok(()), Ok(())];

    let revoke = Administration::RevokeClient { client: client.clone() };
    assert_eq!(office.ask_all(&mut scene, revoke.clone()), done);
    assert_eq!(office.ask_all(&mut scene, revoke), done, "again, with the same effect");
    assert_eq!(reason(scene.verify(0)), "client-revoked");
    let register =
        |key| Administration::RegisterClient { client: client.clone(), key, roles: Roles::ALL, collections: None };
    assert_eq!(office.ask_all(&mut scene, register(key)), done);
    assert_eq!(scene.verify(0), Ok(Outcome::Verify(true)));
    let other = ClientSigningKey::random(&mut *os_entropy()).verifying_key();
    let refused = office.ask_all(&mut scene, register(other));
    assert!(refused.iter().all(|r| *r == Err(HolderError::OtherKey(client.clone()))), "{refused:?}");

    let collection = scene.cluster.collection().clone();
    let set = |policy: Policy, parameters: &str| Administration::SetPolicy {
        collection: collection.clone(),
        policy,
        description: CollectionDescription { parameters: ParameterSetId::new(parameters).unwrap(), group_capacity: 0 },
    };
    let mut strict = Policy::standard(Dimension::new(D).unwrap());
    strict.verify = false;
    assert_eq!(office.ask_all(&mut scene, set(strict.clone(), "glwe-2048-v1")), done);
    assert_eq!(reason(scene.verify(0)), "policy");
    strict.verify = true;
    let code = |results: [Result<(), HolderError>; 3]| results.map(|r| r.unwrap_err().code());
    assert_eq!(code(office.ask_all(&mut scene, set(strict.clone(), "glwe-4096-v1"))), ["other-parameters"; 3]);
    let wide = Policy { dimension: Dimension::new(512).unwrap(), ..strict.clone() };
    assert_eq!(code(office.ask_all(&mut scene, set(wide, "glwe-2048-v1"))), ["wrong-dimension"; 3]);
    strict.budgets.window_seconds = 0;
    assert_eq!(code(office.ask_all(&mut scene, set(strict.clone(), "glwe-2048-v1"))), ["bad-policy"; 3]);
    strict.budgets.window_seconds = 86_400;
    strict.lock_out = LockOut { failures: 1, delay_seconds: 1000, disable_after: 1 };
    assert_eq!(office.ask_all(&mut scene, set(strict, "glwe-2048-v1")), done);

    let subject = scene.people[0].0.clone();
    let impostor = random_unit(D, &mut scene.rng);
    let verify = query(Decision::Verify { subject: subject.clone() }, 0.4);
    assert_eq!(scene.cluster.ask(&impostor, verify), Ok(Outcome::Verify(false)));
    assert_eq!(reason(scene.verify(0)), "subject-disabled");
    assert_eq!(office.ask_all(&mut scene, Administration::Unlock { collection, subject }), done);
    assert_eq!(scene.verify(0), Ok(Outcome::Verify(true)));

    let epoch = Epoch(scene.cluster.holder(Party::K0).next_epoch().0);
    scene.cluster.network.record();
    assert_eq!(office.ask_all(&mut scene, Administration::BeginEpoch { epoch }), done);
    let said = scene.cluster.network.take_record();
    let told = |message: &FromHolder| matches!(message, FromHolder::Status { epoch: Some(e), .. } if *e == epoch);
    let statuses = said.iter().filter(|d| borsh::from_slice(&d.bytes).is_ok_and(|message| told(&message)));
    assert_eq!(statuses.count(), 3, "each holder tells the matcher when the ceremony is complete");
    assert_eq!(office.ask_all(&mut scene, Administration::BeginEpoch { epoch }), done);
    assert!(Party::ALL.iter().all(|p| scene.cluster.holder(*p).epoch() == Some(epoch)));
    scene.cluster.rotate().unwrap();
    let gone = Administration::BeginEpoch { epoch: Epoch(0) };
    assert_eq!(code(office.ask_all(&mut scene, gone)), ["wrong-epoch"; 3]);

    let logged: Vec<_> = scene
        .cluster
        .log(Party::K1)
        .iter()
        .filter_map(
            |e| if let AuditEvent::Administered { action, .. } = &e.event { Some(action.clone()) } else { None },
        )
        .collect();
    assert_eq!(logged[0], Administered::RevokeClient(client.clone()));
    assert!(
        logged.contains(&Administered::BeginEpoch(epoch)) && logged.contains(&Administered::RegisterClient(client))
    );
}

#[test]
fn requests_of_nobody_for_others_expired_or_repeated() {
    let mut scene = Scene::new(905, &[3]);
    let mut office = Office::open(&mut scene);
    let revoke = Administration::RevokeClient { client: scene.cluster.client.id().clone() };
    let before = scene.before();
    let refuses = |scene: &mut Scene, request: &SignedAdministration, code: &str| {
        assert_eq!(scene.cluster.administer(Party::K0, request).unwrap_err().code(), code);
        scene.assert_untouched(&before);
    };
    let for_k1 = office.sign(&scene, Audience::holder(Party::K1), revoke.clone());
    refuses(&mut scene, &for_k1, "not-addressed");
    let mut stranger = Office { key: ClientSigningKey::random(&mut *os_entropy()), nonce: 0 };
    let strange = stranger.sign(&scene, Audience::ALL, revoke.clone());
    refuses(&mut scene, &strange, "unknown-administrator");
    let mut forged = strange.clone();
    forged.administrator = office.key.verifying_key();
    refuses(&mut scene, &forged, "bad-signature");
    let register = Administration::RegisterClient {
        client: scene.cluster.client.id().clone(),
        key: scene.cluster.client.verifying_key(),
        roles: Roles::ALL,
        collections: None,
    };
    let request = office.sign(&scene, Audience::ALL, register);
    scene.cluster.administer(Party::K0, &request).unwrap();
    restart(&mut scene);
    scene.cluster.set_administrators(&[office.key.verifying_key()]);
    refuses(&mut scene, &request, "replayed");
    let old = office.sign(&scene, Audience::ALL, revoke);
    scene.cluster.now.0 += 601;
    refuses(&mut scene, &old, "expired");
    scene.assert_works();
}

/// A holder whose connection to a peer breaks ends what waits for that peer at once and says so.
#[test]
fn a_peer_that_is_lost_ends_what_waits_for_it() {
    let mut scene = Scene::new(906, &[3]);
    scene.wire.cheat(|delivery| delivery.from != veilmatch_cluster::Address::Holder(Party::K2));
    let (collection, now) = (scene.cluster.collection().clone(), scene.cluster.now);
    let probe = scene.people[0].1.clone();
    let (request, pending) = scene.cluster.client.ask(&collection, &probe, query(Decision::Best, 0.4), now).unwrap();
    let id = scene.cluster.submit(request);
    scene.cluster.run();
    let open: Vec<_> = scene.cluster.holder(Party::K0).open_sessions().collect();
    assert!(
        matches!(&open[..], [one] if one.kind == SessionKind::Query && !one.prepared && !one.computing),
        "{open:?}"
    );
    scene.cluster.lose_peer(Party::K0, Party::K1);
    assert_eq!(scene.cluster.holder(Party::K0).open_sessions().count(), 1, "it does not wait for K1");
    scene.cluster.lose_peer(Party::K0, Party::K2);
    assert_eq!(scene.cluster.holder(Party::K0).open_sessions().count(), 0);
    let answer = scene.cluster.answer_of(id).unwrap();
    let error = pending.read(&answer).unwrap_err();
    assert_eq!((error.reason(), error.suspects()), ("peer-lost", vec![Suspect::Pair(Party::K0, Party::K2)]));
    scene.assert_works();
}
