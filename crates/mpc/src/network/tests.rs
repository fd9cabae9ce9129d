use super::*;

fn drain(network: &mut Network<u8>) -> Vec<(u8, u8, Vec<u8>)> {
    std::iter::from_fn(|| network.deliver()).map(|d| (d.from, d.to, d.bytes)).collect()
}

/// Four messages from 0 to 1 and one from 0 to 2 in the middle, with a fault on the second message to 1.
fn with_fault(kind: FaultKind<u8>) -> Vec<(u8, u8, Vec<u8>)> {
    let mut network = Network::new();
    network.inject(Fault { from: 0, to: 1, nth: 1, kind });
    for (to, byte) in [(1, 10), (1, 11), (2, 20), (1, 12), (1, 13)] {
        network.send(0, to, vec![byte, byte]);
    }
    drain(&mut network)
}

fn to_one(bytes: &[u8]) -> Vec<(u8, u8, Vec<u8>)> {
    bytes.iter().map(|&b| (0, 1, vec![b, b])).collect()
}

#[test]
fn without_faults_messages_come_in_the_order_of_sending() {
    let mut network = Network::new();
    let sent = [(0u8, 1u8, vec![1]), (1, 0, vec![2, 3]), (0, 1, vec![]), (2, 1, vec![4])];
    for (from, to, bytes) in sent.clone() {
        network.send(from, to, bytes);
    }
    assert_eq!(drain(&mut network), sent);
    assert_eq!(network.deliver(), None);
}

#[test]
fn each_fault_does_what_it_says_to_its_message_alone() {
    let to_two = (0, 2, vec![20, 20]);
    let expect = |second: Option<(u8, u8, Vec<u8>)>| {
        let mut all = to_one(&[10]);
        all.extend(second);
        all.push(to_two.clone());
        all.extend(to_one(&[12, 13]));
        all
    };
    assert_eq!(with_fault(FaultKind::Lose), expect(None));
    assert_eq!(with_fault(FaultKind::Truncate { bytes: 1 }), expect(Some((0, 1, vec![11]))));
    assert_eq!(with_fault(FaultKind::Truncate { bytes: 9 }), expect(Some((0, 1, vec![]))));
    assert_eq!(with_fault(FaultKind::Alter { byte: 3, bit: 4 }), expect(Some((0, 1, vec![11, 11 ^ 16]))));
    assert_eq!(with_fault(FaultKind::Misattribute { to: 2 }), expect(Some((2, 1, vec![11, 11]))));
    assert_eq!(with_fault(FaultKind::Replace { bytes: vec![7] }), expect(Some((0, 1, vec![7]))));

    let mut repeated = to_one(&[10, 11, 11]);
    repeated.push(to_two.clone());
    repeated.extend(to_one(&[12, 13]));
    assert_eq!(with_fault(FaultKind::Repeat), repeated);

    let mut reordered = to_one(&[10]);
    reordered.push(to_two);
    reordered.extend(to_one(&[12, 11, 13]));
    assert_eq!(with_fault(FaultKind::Reorder), reordered);
}

#[test]
fn altering_an_empty_message_changes_nothing() {
    let mut network = Network::new();
    network.inject(Fault { from: 0u8, to: 1, nth: 0, kind: FaultKind::Alter { byte: 5, bit: 1 } });
    network.send(0, 1, Vec::new());
    assert_eq!(drain(&mut network), [(0, 1, vec![])]);
}

#[test]
fn messages_that_are_held_back_are_never_lost() {
    let mut network = Network::new();
    for nth in 0..3 {
        network.inject(Fault { from: 0u8, to: 1, nth, kind: FaultKind::Reorder });
    }
    for byte in 0..3 {
        network.send(0, 1, vec![byte]);
    }
    network.send(0, 2, vec![9]);
    let bytes: Vec<u8> = drain(&mut network).into_iter().flat_map(|(_, _, bytes)| bytes).collect();
    assert_eq!(bytes, [9, 0, 1, 2], "all three come when nothing else is left");
}

#[test]
fn a_fault_strikes_once_and_healing_removes_those_to_come() {
    let mut network = Network::new();
    for nth in [0, 1, 2] {
        network.inject(Fault { from: 0u8, to: 1, nth, kind: FaultKind::Lose });
    }
    network.send(0, 1, vec![0]);
    network.send(1, 0, vec![1]);
    network.send(0, 1, vec![2]);
    network.heal();
    network.send(0, 1, vec![3]);
    assert_eq!(drain(&mut network), [(1, 0, vec![1]), (0, 1, vec![3])]);
    network.inject(Fault { from: 0, to: 1, nth: 1, kind: FaultKind::Lose });
    for byte in 4..7 {
        network.send(0, 1, vec![byte]);
    }
    assert_eq!(drain(&mut network), to_bytes(&[4, 6]), "the count begins with the injection");
}

fn to_bytes(bytes: &[u8]) -> Vec<(u8, u8, Vec<u8>)> {
    bytes.iter().map(|&b| (0, 1, vec![b])).collect()
}

#[test]
fn traffic_counts_what_was_sent_and_what_arrived() {
    let mut network = Network::new();
    network.inject(Fault { from: 0u8, to: 1, nth: 0, kind: FaultKind::Lose });
    network.inject(Fault { from: 0, to: 2, nth: 0, kind: FaultKind::Repeat });
    network.send(0, 1, vec![0; 10]);
    network.send(0, 1, vec![0; 5]);
    network.send(0, 2, vec![0; 3]);
    assert_eq!(network.traffic(0), Traffic { sent: 18, received: 0 });
    assert_eq!(network.traffic(1), Traffic::default(), "nothing has been delivered yet");
    drain(&mut network);
    assert_eq!(network.traffic(1), Traffic { sent: 0, received: 5 });
    assert_eq!(network.traffic(2), Traffic { sent: 0, received: 6 });
}

#[test]
fn a_record_holds_everything_that_is_delivered_from_then_on() {
    let mut network = Network::new();
    network.send(0u8, 1, vec![1]);
    drain(&mut network);
    assert!(network.take_record().is_empty());
    network.record();
    network.send(0, 1, vec![2]);
    network.send(1, 0, vec![3]);
    assert!(network.take_record().is_empty());
    drain(&mut network);
    let record: Vec<Vec<u8>> = network.take_record().into_iter().map(|d| d.bytes).collect();
    assert_eq!(record, [vec![2], vec![3]]);
    assert!(network.take_record().is_empty());
}
