//! Bytes that no party would send: nobody panics, nothing changes, and honest requests still work afterwards.

use rand_core::Rng;
use veilmatch_cluster::Address;
use veilmatch_domain::{Decision, Outcome, Party};
use veilmatch_tests::{cluster, query, random_unit, rng, subject};

const LINKS: [(Address, Address); 6] = [
    (Address::Matcher, Address::Holder(Party::K0)),
    (Address::Holder(Party::K1), Address::Holder(Party::K0)),
    (Address::Holder(Party::K0), Address::Holder(Party::K2)),
    (Address::Holder(Party::K1), Address::Matcher),
    (Address::Client, Address::Matcher),
    (Address::Matcher, Address::Client),
];

#[test]
fn arbitrary_and_damaged_bytes_change_nothing() {
    let mut random = rng(77);
    let mut cluster = cluster(64, 77);
    let people: Vec<_> = (0..3).map(|i| (subject(i), random_unit(64, &mut random))).collect();
    cluster.network.record();
    cluster.enroll(&people, &mut |_| {}).unwrap();
    let best = query(Decision::Best, 0.4);
    assert_eq!(cluster.ask(&people[1].1, best.clone()), Ok(Outcome::Best(Some(subject(1)))));
    let honest = cluster.network.take_record();
    let views: Vec<_> = Party::ALL.iter().map(|p| cluster.holder(*p).view(cluster.collection())).collect();

    for round in 0..1500u32 {
        let (from, to) = LINKS[round as usize % LINKS.len()];
        let mut bytes = if round.is_multiple_of(2) {
            let mut bytes = vec![0u8; (random.next_u32() % 300) as usize];
            random.fill_bytes(&mut bytes);
            bytes
        } else {
            // An honest message of this link, damaged in one to three places or cut.
            let of_link: Vec<_> = honest.iter().filter(|d| d.from == from && d.to == to).collect();
            let mut bytes = of_link[random.next_u32() as usize % of_link.len()].bytes.clone();
            for _ in 0..1 + random.next_u32() % 3 {
                let place = random.next_u32() as usize % bytes.len();
                bytes[place] ^= 1 + (random.next_u32() % 255) as u8;
            }
            bytes
        };
        if random.next_u32().is_multiple_of(3) {
            bytes.truncate(random.next_u32() as usize % (bytes.len() + 1));
        }
        cluster.network.send(from, to, bytes);
        cluster.run();
    }
    cluster.pass_deadlines();
    let after: Vec<_> = Party::ALL.iter().map(|p| cluster.holder(*p).view(cluster.collection())).collect();
    assert_eq!(views, after);
    assert_eq!(cluster.ask(&people[2].1, best), Ok(Outcome::Best(Some(subject(2)))));
    let newcomer = (subject(9), random_unit(64, &mut random));
    cluster.enroll(std::slice::from_ref(&newcomer), &mut |_| {}).unwrap();
    let verify = query(Decision::Verify { subject: subject(9) }, 0.4);
    assert_eq!(cluster.ask(&newcomer.1, verify), Ok(Outcome::Verify(true)));
}
