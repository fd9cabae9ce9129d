//! What the benchmarks share: values that are the same in every run, and the three holders' evaluation of a circuit in one
//! process. May depend on everything; nothing may depend on it.

use std::collections::VecDeque;
use std::sync::Arc;

use veilmatch_domain::{Party, SessionId};
use veilmatch_mpc::{Circuit, Evaluation, Lanes, PairwiseSeeds, Progress, State};
use veilmatch_secret::Stream;

/// Coordinates in \[−1, 1), the same in every run.
#[must_use]
pub fn coordinates(count: usize, seed: u8) -> Vec<f32> {
    let mut stream = Stream::public([seed; 32]);
    (0..count).map(|_| stream.next_u32() as i32 as f32 / 2_147_483_648.0).collect()
}

/// Residues modulo `modulus`, the same in every run.
#[must_use]
pub fn residues(count: usize, modulus: u32, seed: u8) -> Vec<u32> {
    let mut stream = Stream::public([seed; 32]);
    (0..count).map(|_| stream.next_u32() % modulus).collect()
}

/// The seeds that three holders share in pairs.
#[must_use]
pub fn pairwise_seeds() -> [PairwiseSeeds; 3] {
    let seed = |party: Party| veilmatch_secret::Seed::from_bytes([party.index() as u8 + 1; 32]);
    Party::ALL.map(|party| PairwiseSeeds { own: seed(party), next: seed(party.next()) })
}

/// Random additive shares of the values, one list per holder.
#[must_use]
pub fn additive_shares(values: &[u64], seed: u8) -> [Vec<u64>; 3] {
    let mut stream = Stream::public([seed; 32]);
    let [mut k0, mut k1, mut k2] = [(); 3].map(|()| Vec::with_capacity(values.len()));
    for value in values {
        let (a, b) = (stream.next_u64(), stream.next_u64());
        k0.push(a);
        k1.push(b);
        k2.push(value.wrapping_sub(a).wrapping_sub(b));
    }
    [k0, k1, k2]
}

/// Lets three holders evaluate a circuit, one after the other, until it is open; returns what K0 opened. Evaluations
/// under one session repeat their masks, so this is for measuring only.
///
/// # Panics
/// If a holder refuses a message.
#[must_use]
pub fn evaluate(circuit: &Arc<Circuit>, seeds: &[PairwiseSeeds; 3], inputs: [Vec<u64>; 3]) -> Vec<Vec<Lanes>> {
    let mut queue = VecDeque::new();
    let mut holders = Vec::with_capacity(3);
    let mut open = Vec::new();
    for ((party, seeds), inputs) in Party::ALL.into_iter().zip(seeds).zip(inputs) {
        let (evaluation, progress) =
            Evaluation::start(party, SessionId([7; 32]), seeds, Arc::clone(circuit), inputs, 0).unwrap();
        holders.push(evaluation);
        queue.extend(progress.send.into_iter().map(|message| (party, message)));
    }
    while let Some((from, message)) = queue.pop_front() {
        let to = message.to;
        let holder = &mut holders[to.index()];
        let mut progress: Progress = holder.receive(from, message.step, &message.payload).unwrap();
        loop {
            queue.extend(progress.send.drain(..).map(|message| (to, message)));
            match progress.state {
                State::ReadyToOpen { .. } => progress = holder.approve_opening().unwrap(),
                State::Done(stages) if to == Party::K0 => break open = stages,
                State::Waiting | State::Done(_) => break,
            }
        }
    }
    open
}
