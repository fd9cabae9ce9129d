//! What a decision costs a holder: CPU time, bytes and rounds of three holders that take turns on one thread.
//!
//! `cargo run --release -p veilmatch-mpc --example decide -- [lanes] [repetitions]`
//!
//! Prints for `exists` and `best`: AND gates per lane, rounds, median CPU time of one holder (all three, divided by three;
//! the circuit is built once and not counted; from /proc, so that a machine with other work does not matter much), bytes that a holder sends, and what was opened, so that a fast wrong
//! evaluation shows.

#![expect(clippy::print_stdout, reason = "the measurement")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use veilmatch_domain::{Party, SessionId};
use veilmatch_mpc::{
    Circuit, Evaluation, Lanes, Outgoing, PairwiseSeeds, ProtocolError, Question, State, decision_circuit, read_answer,
};
use veilmatch_secret::{Seed, Stream};

const WIDTH: u32 = 16;

fn main() -> Result<(), ProtocolError> {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<usize>().ok());
    let lanes = arguments.next().flatten().unwrap_or(1_000_000);
    let repetitions = arguments.next().flatten().unwrap_or(5);
    // All scores are below the threshold but that of one lane.
    let mut stream = Stream::public([1; 32]);
    let hit = lanes / 3;
    let values = (0..lanes).map(|lane| {
        let magnitude = u64::from(stream.next_u32() >> 18);
        if lane == hit { magnitude } else { (1 << WIDTH) - 1 - magnitude }
    });
    let mut shares = [Vec::with_capacity(lanes), Vec::with_capacity(lanes), Vec::with_capacity(lanes)];
    let mask = (1u64 << WIDTH) - 1;
    let mut random = Stream::public([2; 32]);
    for value in values {
        let (a, b) = (random.next_u64() & mask, random.next_u64() & mask);
        let all = [a, b, value.wrapping_sub(a).wrapping_sub(b) & mask];
        shares.iter_mut().zip(all).for_each(|(shares, share)| shares.push(share));
    }
    for (name, question) in [("exists", Question::Any), ("best", Question::Best)] {
        let begun = Instant::now();
        let circuit = Arc::new(decision_circuit(WIDTH, &Lanes::ones(lanes), question));
        let built = begun.elapsed();
        let mut times = Vec::new();
        let mut last = None;
        for _ in 0..repetitions.max(1) {
            let (took, sent, opened) = evaluate(&circuit, &shares)?;
            times.push(took);
            last = Some((sent, read_answer(question, &opened)?));
        }
        times.sort_unstable();
        println!(
            "{name}: {lanes} lanes, {:.1} ANDs per lane, {} rounds, circuit built in {built:.2?}; per holder {:.2?} (median of {}, least {:.2?}); {:?}",
            circuit.and_bits() as f64 / lanes as f64,
            circuit.rounds(),
            times.get(times.len() / 2).copied().unwrap_or_default() / 3,
            times.len(),
            times.first().copied().unwrap_or_default() / 3,
            last.map(|(sent, answer)| format!("{} bytes sent by a holder, opened {answer:?}", sent / 3)),
        );
    }
    Ok(())
}

type Opened = Vec<Vec<Lanes>>;

/// Three holders in turn: time of all three, bytes of all three, what K0 opened.
fn evaluate(circuit: &Arc<Circuit>, shares: &[Vec<u64>; 3]) -> Result<(Duration, usize, Opened), ProtocolError> {
    let session = SessionId([3; 32]);
    let inputs = shares.clone();
    let begun = cpu_time();
    let (mut evaluations, mut waiting) = (Vec::new(), VecDeque::new());
    let (mut sent, mut opened) = (0, Vec::new());
    for (party, inputs) in Party::ALL.into_iter().zip(inputs) {
        let seed = |i: usize| Seed::from_bytes([(i % 3) as u8 + 1; 32]);
        let seeds = PairwiseSeeds { own: seed(party.index()), next: seed(party.index() + 1) };
        let (evaluation, progress) = Evaluation::start(party, session, &seeds, Arc::clone(circuit), inputs, 0)?;
        evaluations.push(evaluation);
        waiting.extend(progress.send.into_iter().map(|m| (party, m)));
    }
    while let Some((from, message)) = waiting.pop_front() {
        let Outgoing { to, step, payload } = message;
        sent += payload.len();
        let Some(evaluation) = evaluations.get_mut(to.index()) else { continue };
        let mut progress = evaluation.receive(from, step, &payload)?;
        waiting.extend(progress.send.drain(..).map(|m| (to, m)));
        if let State::ReadyToOpen { .. } = progress.state {
            progress = evaluation.approve_opening()?;
            waiting.extend(progress.send.drain(..).map(|m| (to, m)));
        }
        if let State::Done(bits) = progress.state
            && to == Party::K0
        {
            opened = bits;
        }
    }
    Ok((cpu_time().saturating_sub(begun), sent, opened))
}

/// What this thread has computed so far, as the kernel counts it; where it does not say, 0.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).unwrap_or(0))
}
