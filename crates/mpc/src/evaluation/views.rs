//! What a holder sees, and what each mask is there for.
//!
//! For every mask there is an attack that reads a secret out of the received message when the mask is off. With the
//! real masks the same attack is a guess: its hits are compared with fair coins at five standard deviations (a sound
//! mask fails that once in 1.7 million; the seeds are fixed, so a test that passes keeps passing).
//!
//! Masks hide, and masked bytes are uniform: chi-square over the 256 byte values, 255 degrees of freedom, against the
//! quantile for α = 1e-6.

use super::*;
use veilmatch_secret::Stream;

use crate::circuit::{CircuitBuilder, Operands, Wire};
use crate::sharing::test_seeds;
use crate::testing::{FIRST_STEP, Meeting, additive, like_coins, session};
use crate::{Question, decision_circuit};

/// The chi-square quantile for 255 degrees of freedom and α = 1e-6.
const CHI_SQUARE: f64 = 377.08;
const WIDTH: u32 = 16;
const LANES: usize = 4096;

fn numbers(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) | u64::from(pair[1]) << 8).collect()
}

/// Scores − τ as an attacker would like to know them, and the holders' additive shares of them.
fn scores() -> (Vec<u64>, [Vec<u64>; 3]) {
    let mut stream = Stream::public([60; 32]);
    let values: Vec<u64> = (0..LANES).map(|_| stream.next_u64() & 0xffff).collect();
    let shares = additive(&values, &mut stream).map(|share| share.iter().map(|x| x & 0xffff).collect());
    (values, shares)
}

fn any_circuit(lanes: usize) -> Arc<Circuit> {
    Arc::new(decision_circuit(WIDTH, &Lanes::ones(lanes), Question::Any))
}

/// The payload of a message of an undisturbed run.
fn message(meeting: &Meeting, from: Party, step: u32) -> Vec<u8> {
    let found = meeting.sent.iter().find(|(sender, message)| *sender == from && message.step == FIRST_STEP + step);
    found.unwrap().1.payload.clone()
}

/// Lanes where the guess is right, and bits.
fn right(guess: &[u64], truth: &[u64]) -> (usize, usize) {
    assert_eq!(guess.len(), truth.len());
    let lanes = guess.iter().zip(truth).filter(|(g, t)| g == t).count();
    let bits = guess.iter().zip(truth).map(|(g, t)| WIDTH as usize - (g ^ t).count_ones() as usize).sum();
    (lanes, bits)
}

/// A guess at numbers of 16 bits is right in one lane of 65,536: of 4,096 lanes in more than four with probability
/// 1e-8. Single bits are fair coins.
fn is_guessing((lanes, bits): (usize, usize)) -> bool {
    lanes <= 4 && like_coins(bits, LANES * WIDTH as usize)
}

#[test]
fn without_shares_of_zero_the_input_message_is_the_senders_share() {
    let (_, shares) = scores();
    let circuit = any_circuit(LANES);
    // K0 reads K1's additive share, and K1 reads K2's: the message itself.
    for from in [Party::K1, Party::K2] {
        let share = &shares[from.index()];
        let mut off = share.clone();
        mask_inputs(&circuit, &mut off, |_, _| {});
        assert_eq!(right(&off, share), (LANES, LANES * WIDTH as usize), "with the mask off the attack succeeds");

        let mut meeting = Meeting::new(&circuit, &shares, 61);
        meeting.run();
        meeting.result();
        let guess = numbers(&message(&meeting, from, 0));
        assert!(is_guessing(right(&guess, share)), "{from}: {:?}", right(&guess, share));
        // Nor does the half of the mask that the receiver knows help: it shares one of the sender's two seeds.
        let receiver = from.previous();
        let known = &test_seeds(61)[receiver.index()].next;
        let mut stream = stream(known, "veilmatch/mpc/zero/numbers", &session(61), FIRST_STEP);
        let better: Vec<u64> = guess.iter().map(|g| g.wrapping_sub(stream.next_u64()) & 0xffff).collect();
        assert!(is_guessing(right(&better, share)), "{from}: {:?}", right(&better, share));
    }
}

/// The numbers of which these are the bit planes.
fn numbers_of(planes: &[Lanes]) -> Vec<u64> {
    (0..LANES).map(|lane| (0..).zip(planes).map(|(bit, plane)| u64::from(plane.get(lane)) << bit).sum()).collect()
}

#[test]
fn without_its_mask_the_deal_gives_all_scores_to_k1() {
    let (values, shares) = scores();
    let circuit = any_circuit(LANES);
    let seeds = test_seeds(62);
    let mut meeting = Meeting::new(&circuit, &shares, 62);
    meeting.run();
    meeting.result();
    let third = numbers(&message(&meeting, Party::K2, 0)); // u_2, which K1 is meant to have
    let attack = |planes: &[Lanes]| -> Vec<u64> {
        numbers_of(planes).iter().zip(&third).map(|(sum, third)| sum.wrapping_add(*third) & 0xffff).collect()
    };

    let share = shares[0].clone();
    let (k0, _) = Evaluation::start(Party::K0, session(62), &seeds[0], circuit, share, FIRST_STEP).unwrap();
    let sum = k0.add_inputs(Zeroizing::new(numbers(&message(&meeting, Party::K1, 0))));
    let off = k0.dealt_planes(&sum, &vec![Lanes::zeros(LANES); WIDTH as usize]);
    assert_eq!(attack(&off), values, "with the mask off K1 has every score");

    let dealt = Lanes::from_bytes(&message(&meeting, Party::K0, 1), LANES * WIDTH as usize).unwrap();
    let on: Vec<Lanes> = (0..WIDTH as usize).map(|plane| dealt.slice(plane * LANES, LANES)).collect();
    let result = right(&attack(&on), &values);
    assert!(is_guessing(result), "{result:?}");
}

/// z = x ∧ y on shared bits that are kept for the test to look at.
fn one_and(lanes: usize) -> (Circuit, Wire, Wire) {
    let mut builder = CircuitBuilder::new();
    let bit = |builder: &mut CircuitBuilder| {
        let Operands { first, second } = builder.input(1, lanes);
        builder.xor(first[0], second[0])
    };
    let (x, y) = (bit(&mut builder), bit(&mut builder));
    let z = builder.and(x, y);
    (builder.finish(vec![vec![z], vec![x, y]]), x, y)
}

#[test]
fn without_shares_of_zero_a_product_gives_away_the_other_operand() {
    const BITS: usize = 20_000;
    let (circuit, x, y) = one_and(BITS);
    let circuit = Arc::new(circuit);
    let mut stream = Stream::public([63; 32]);
    let values: Vec<u64> = (0..2 * BITS).map(|_| stream.next_u64() & 1).collect();
    let mut meeting = Meeting::new(&circuit, &additive(&values, &mut stream), 63);
    for party in Party::ALL {
        meeting.holder(party).approves = false;
    }
    meeting.run();
    for sender in Party::ALL {
        let receiver = &meeting.holders[sender.previous().index()].evaluation;
        let (mine_x, mine_y) = (receiver.wires.get(x).unwrap(), receiver.wires.get(y).unwrap());
        // z_i = x_i·y_i ⊕ x_i·y_{i+1} ⊕ x_{i+1}·y_i. The receiver knows the components i−1 and i: where x_i = 1 and
        // y_i = 0, z_i is the component of y that it lacks, and the other way round for x.
        let attack = |z: &Lanes| {
            let (mut hits, mut trials) = (0, 0);
            for lane in 0..BITS {
                let (guess, truth) = match (mine_x.next.get(lane), mine_y.next.get(lane)) {
                    (true, false) => (mine_y.own.get(lane) ^ mine_y.next.get(lane) ^ z.get(lane), values[BITS + lane]),
                    (false, true) => (mine_x.own.get(lane) ^ mine_x.next.get(lane) ^ z.get(lane), values[lane]),
                    _ => continue,
                };
                trials += 1;
                hits += usize::from(u64::from(guess) == truth);
            }
            (hits, trials)
        };
        let evaluation = &meeting.holders[sender.index()].evaluation;
        let ands = &circuit.level(1).unwrap().ands;
        let off = evaluation.masked_products(ands, Lanes::zeros(BITS)).unwrap();
        let (hits, trials) = attack(&off);
        assert!(hits == trials && trials > BITS / 3, "with the mask off every guess is right: {hits} of {trials}");

        let on = Lanes::from_bytes(&message(&meeting, sender, 2), BITS).unwrap();
        let (hits, trials) = attack(&on);
        assert!(like_coins(hits, trials), "{sender}: {hits} of {trials}");
        // Nor with the half of the mask that the receiver knows, that of seed i.
        let seed = &test_seeds(63)[sender.previous().index()].next;
        let mut known = super::stream(seed, "veilmatch/mpc/zero/bits", &session(63), FIRST_STEP + 2);
        let mut half = on.clone();
        half.xor_with(&Lanes::pseudo_random(&mut known, BITS));
        let (hits, trials) = attack(&half);
        assert!(like_coins(hits, trials), "{sender}: {hits} of {trials}");
    }
}

/// A mask that is used twice falls out of the difference of two messages. Here the same product, of the same shares, is
/// computed twice in one level and once more in the next: each time the message must look new.
#[test]
fn no_two_products_have_the_same_mask() {
    const BITS: usize = 4096;
    let mut builder = CircuitBuilder::new();
    let Operands { first, second } = builder.input(1, BITS);
    let (x, y) = (first[0], second[0]);
    let (once, twice) = (builder.and(x, y), builder.and(x, y));
    let nothing = builder.mask(once, Lanes::zeros(BITS));
    let later = builder.xor(x, nothing);
    let thrice = builder.and(later, y);
    let circuit = Arc::new(builder.finish(vec![vec![once, twice, thrice]]));
    let mut meeting = Meeting::new(&circuit, &[vec![1; BITS], vec![0; BITS], vec![0; BITS]], 67);
    meeting.run();
    meeting.result();
    for sender in Party::ALL {
        let level = Lanes::from_bytes(&message(&meeting, sender, 2), 2 * BITS).unwrap();
        let products = [
            level.slice(0, BITS),
            level.slice(BITS, BITS),
            Lanes::from_bytes(&message(&meeting, sender, 3), BITS).unwrap(),
        ];
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            let mut difference = products[a].clone();
            difference.xor_with(&products[b]);
            let ones = difference.count_ones();
            assert!(like_coins(ones, BITS), "{sender}, messages {a} and {b}: {ones} of {BITS} bits differ");
        }
    }
}

fn counts(bytes: &[u8]) -> [f64; 256] {
    let mut counts = [0.0; 256];
    bytes.iter().for_each(|&byte| counts[usize::from(byte)] += 1.0);
    counts
}

/// Against the uniform distribution.
fn chi_square(bytes: &[u8]) -> f64 {
    let expected = bytes.len() as f64 / 256.0;
    counts(bytes).iter().map(|count| (count - expected).powi(2) / expected).sum()
}

/// Two samples of the same size against each other.
fn chi_square_of_two(a: &[u8], b: &[u8]) -> f64 {
    let (a, b) = (counts(a), counts(b));
    a.iter().zip(&b).filter(|(a, b)| *a + *b > 0.0).map(|(a, b)| (a - b).powi(2) / (a + b)).sum()
}

/// What each holder receives before the opening, by sender and kind of message: lengths, and whole bytes one behind
/// the other (the last one of a message may have unused bits).
type View = BTreeMap<(Party, Party, &'static str), (Vec<usize>, Vec<u8>)>;

fn view(circuit: &Arc<Circuit>, shares: &[Vec<u64>; 3], tag: u8) -> View {
    let mut meeting = Meeting::new(circuit, shares, tag);
    meeting.run();
    meeting.result();
    let opening = FIRST_STEP + 2 + circuit.and_depth() as u32;
    let mut view = View::new();
    for (from, message) in &meeting.sent {
        let kind = match message.step {
            FIRST_STEP => "inputs",
            step if step == FIRST_STEP + 1 => "deal",
            step if step < opening => "products",
            _ => continue,
        };
        let (lengths, bytes) = view.entry((message.to, *from, kind)).or_default();
        lengths.push(message.payload.len());
        bytes.extend(message.payload.split_last().unwrap().1);
    }
    view
}

#[test]
fn messages_before_the_opening_are_uniform_whatever_the_inputs_are() {
    let lanes = 20_000;
    let circuit = any_circuit(lanes);
    // As structured as inputs can be: no randomness but that of the masks. Both decisions are "yes".
    let constant = [vec![0; lanes], vec![0; lanes], vec![0x8000; lanes]];
    let mut first = constant.clone();
    first[2][17] = 1;
    let second = [vec![0; lanes], vec![0; lanes], vec![0x7fff; lanes]];
    let (a, b) = (view(&circuit, &first, 64), view(&circuit, &second, 65));
    let kinds: Vec<_> = a.keys().copied().collect();
    use Party::{K0, K1, K2};
    let expected = [
        (K0, K1, "inputs"),
        (K0, K1, "products"),
        (K1, K0, "deal"),
        (K1, K2, "inputs"),
        (K1, K2, "products"),
        (K2, K0, "products"),
    ];
    assert_eq!(kinds, expected);
    for kind in kinds {
        let ((a_lengths, a_bytes), (b_lengths, b_bytes)) = (&a[&kind], &b[&kind]);
        assert_eq!(a_lengths, b_lengths, "lengths carry no data");
        assert!(a_bytes.len() > 30_000);
        for (name, statistic) in [
            ("first", chi_square(a_bytes)),
            ("second", chi_square(b_bytes)),
            ("against each other", chi_square_of_two(a_bytes, b_bytes)),
        ] {
            assert!(statistic < CHI_SQUARE, "{kind:?}, {name}: {statistic}");
        }
    }
    // The statistic can tell: what the inputs are without their mask.
    let mut bare = first[2].clone();
    mask_inputs(&circuit, &mut bare, |_, _| {});
    let bare: Vec<u8> = bare.iter().flat_map(|value| [*value as u8, (*value >> 8) as u8]).collect();
    assert!(chi_square(&bare) > 1000.0 * CHI_SQUARE);
}

#[test]
fn the_same_inputs_never_give_the_same_message_again() {
    let circuit = any_circuit(1000);
    let shares = [vec![0; 1000], vec![0; 1000], vec![0x8000; 1000]];
    let payloads = |session: SessionId, first_step: u32| -> Vec<Vec<u8>> {
        let seeds = test_seeds(66);
        let start = |party: Party| {
            let (circuit, inputs) = (Arc::clone(&circuit), shares[party.index()].clone());
            Evaluation::start(party, session, &seeds[party.index()], circuit, inputs, first_step).unwrap()
        };
        let (mut k0, _) = start(Party::K0);
        let (_, from_k1) = start(Party::K1);
        let (_, from_k2) = start(Party::K2);
        let from_k0 = k0.receive(Party::K1, first_step, &from_k1.send[0].payload).unwrap();
        let all = from_k0.send.into_iter().chain(from_k1.send).chain(from_k2.send);
        all.map(|message| message.payload).collect()
    };
    // Another session, another place in the session: other masks everywhere.
    let runs: Vec<Vec<u8>> =
        [(session(1), 5), (session(2), 5), (session(1), 50)].into_iter().flat_map(|(s, f)| payloads(s, f)).collect();
    assert_eq!(runs.len(), 3 * 5);
    let distinct: BTreeSet<&[u8]> = runs.iter().map(|payload| &payload[..100]).collect();
    assert_eq!(distinct.len(), runs.len());
    // A retry gives identical bytes.
    assert_eq!(payloads(session(1), 5), runs[..5]);
}
