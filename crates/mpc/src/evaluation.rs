//! One holder's side of evaluating a [`Circuit`] on shares: messages in, messages out (DESIGN 5).
//!
//! Messages, numbered from `first_step`:
//! - 0, inputs: K_1 → K_0 and K_2 → K_1, the sender's additive shares plus shares of zero. K_0 then knows u_0 + u_1,
//!   K_1 and K_2 both know u_2.
//! - 1, dealing: K_0 → K_1, the bits of u_0 + u_1 ⊕ a mask that K_0 shares with K_2. u_2 needs no message.
//! - 1 + δ, products: K_i → K_{i−1}, all AND gates of depth δ, one bit each.
//! - then per stage, opening: K_i → K_{i+1} component i, K_i → K_{i−1} component i+1.
//!
//! Who sees what: K_0 receives x_1 + F(seed_1) − F(seed_2) and does not know seed_2; K_1 receives
//! x_2 + F(seed_2) − F(seed_0) and, in step 1, bits masked by F(seed_0), and does not know seed_0; products are masked as
//! `sharing` says. Random bits of a circuit cost no message: component i is F(seed_i), and each holder lacks one of the
//! three. So everything a holder receives before the opening is uniform to it, whatever the inputs are, and it
//! stays so if a peer sends wrong messages: a wrong message can spoil the result, not reveal an input. In the opening
//! the two copies of the component that a holder lacks must agree; one wrong copy names the pair and opens nothing here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use veilmatch_domain::{Party, SessionId, Suspect};
use zeroize::{Zeroize, Zeroizing};

use crate::circuit::{Circuit, Wires};
use crate::error::ProtocolError;
use crate::lanes::{Lanes, transpose};
use crate::sharing::{PairwiseSeeds, Share, ZeroNumbers, holds_constants, local_product, stream, zero_bits};

const DEAL: &str = "veilmatch/mpc/deal";
const RANDOM: &str = "veilmatch/mpc/random";

/// A message to a peer.
#[derive(Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// To whom.
    pub to: Party,
    /// Its number in the session.
    pub step: u32,
    /// What.
    pub payload: Vec<u8>,
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outgoing(to {}, step {}, {} bytes)", self.to, self.step, self.payload.len())
    }
}

/// What an evaluation needs next.
#[derive(Debug, PartialEq, Eq)]
pub enum State {
    /// Messages of peers.
    Waiting,
    /// [`Evaluation::approve_opening`], after the caller has written its log.
    ReadyToOpen {
        /// The stage that is next.
        stage: usize,
    },
    /// Nothing: the bits of every stage that was opened. A stage that was skipped is absent.
    Done(Vec<Vec<Lanes>>),
}

/// What a step led to.
#[derive(Debug)]
pub struct Progress {
    /// Messages to send, in order.
    pub send: Vec<Outgoing>,
    /// What is needed next.
    pub state: State,
}

/// A peer's message that is not needed yet, read already.
enum Early {
    /// Additive shares of the inputs.
    Inputs(Zeroizing<Vec<u64>>),
    Bits(Lanes),
}

/// What a message with some number holds.
#[derive(Clone, Copy)]
enum Content {
    Inputs,
    Bits(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Inputs,
    Deal,
    Level(usize),
    Approval(usize),
    Opening(usize),
    Done,
}

/// One holder's evaluation of one circuit in one session.
pub struct Evaluation {
    party: Party,
    session: SessionId,
    seeds: PairwiseSeeds,
    circuit: Arc<Circuit>,
    first_step: u32,
    at: At,
    /// u_i: this party's inputs with shares of zero added.
    masked: Zeroizing<Vec<u64>>,
    wires: Wires<Share>,
    /// This party's unmasked-by-peer products of the level that is waited for.
    products: Option<Lanes>,
    early: BTreeMap<(u32, Party), Early>,
    seen: BTreeSet<(u32, Party)>,
    opened: Vec<Vec<Lanes>>,
    failed: Option<ProtocolError>,
}

impl std::fmt::Debug for Evaluation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Evaluation({}, {:?}, shares redacted)", self.party, self.at)
    }
}

fn value_bytes(width: u32) -> usize {
    width.div_ceil(8) as usize
}

impl Evaluation {
    /// Begins. `inputs` are this party's additive shares, one per lane of every input of the circuit in order; messages
    /// are numbered from `first_step`.
    ///
    /// # Errors
    /// [`ProtocolError::Inputs`] if their number is wrong, [`ProtocolError::StepsExhausted`] if the numbers would
    /// overflow.
    pub fn start(
        party: Party,
        session: SessionId,
        seeds: &PairwiseSeeds,
        circuit: Arc<Circuit>,
        mut inputs: Vec<u64>,
        first_step: u32,
    ) -> Result<(Evaluation, Progress), ProtocolError> {
        let (expected, found) = (circuit.input_count(), inputs.len());
        if expected != found {
            inputs.zeroize();
            return Err(ProtocolError::Inputs { expected, found });
        }
        let steps = u32::try_from(circuit.rounds()).map_err(|_| ProtocolError::StepsExhausted)?;
        first_step.checked_add(steps).filter(|last| *last < u32::MAX).ok_or(ProtocolError::StepsExhausted)?;
        let mut zeros = ZeroNumbers::new(seeds, &session, first_step);
        mask_inputs(&circuit, &mut inputs, |width, numbers| zeros.add_to(width, numbers));
        let wires = Wires::new(&circuit);
        let mut evaluation = Evaluation {
            party,
            session,
            seeds: PairwiseSeeds { own: seeds.own.duplicate(), next: seeds.next.duplicate() },
            circuit,
            first_step,
            at: At::Inputs,
            masked: Zeroizing::new(inputs),
            wires,
            products: None,
            early: BTreeMap::new(),
            seen: BTreeSet::new(),
            opened: Vec::new(),
            failed: None,
        };
        let mut send = Vec::new();
        if party != Party::K0 {
            send.push(evaluation.outgoing(party.previous(), 0, evaluation.encode_inputs(&evaluation.masked)));
        }
        let progress = evaluation.go_on(send)?;
        Ok((evaluation, progress))
    }

    /// Takes a peer's message. Early ones are kept; a second one with the same number is refused, and so is any after
    /// the end (that of a stage which was not opened, say).
    ///
    /// # Errors
    /// [`ProtocolError`] naming the sender; after an error nothing is opened any more.
    pub fn receive(&mut self, from: Party, step: u32, payload: &[u8]) -> Result<Progress, ProtocolError> {
        self.unless_failed()?;
        let result = self.accept(from, step, payload).and_then(|()| self.go_on(Vec::new()));
        self.poison(result)
    }

    /// Lets the opening shares of the stage that is ready leave.
    ///
    /// # Errors
    /// [`ProtocolError::NothingToOpen`] if no stage is ready.
    pub fn approve_opening(&mut self) -> Result<Progress, ProtocolError> {
        self.unless_failed()?;
        let At::Approval(stage) = self.at else { return Err(ProtocolError::NothingToOpen) };
        let result = self.opening_share(stage).and_then(|share| {
            let step = self.opening_step(stage);
            let send = vec![
                self.outgoing(self.party.next(), step, share.own.to_bytes()),
                self.outgoing(self.party.previous(), step, share.next.to_bytes()),
            ];
            self.at = At::Opening(stage);
            self.go_on(send)
        });
        self.poison(result)
    }

    /// Who has not sent what is needed now.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<(Party, u32)> {
        if self.failed.is_some() {
            return Vec::new();
        }
        let step = match self.at {
            At::Inputs => 0,
            At::Deal => 1,
            At::Level(depth) => 1 + depth as u32,
            At::Opening(stage) => self.opening_step(stage),
            At::Approval(_) | At::Done => return Vec::new(),
        };
        self.party
            .peers()
            .into_iter()
            .filter(|&peer| self.expected(peer, step).is_some())
            .map(|peer| (peer, self.first_step + step))
            .filter(|&(peer, step)| !self.seen.contains(&(step, peer)))
            .collect()
    }

    /// The highest step number that this evaluation can use.
    #[must_use]
    pub fn last_step(&self) -> u32 {
        // There are at least two rounds, and `start` has checked that the sum does not overflow.
        self.first_step + (self.circuit.rounds() as u32).saturating_sub(1)
    }

    fn unless_failed(&self) -> Result<(), ProtocolError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn poison(&mut self, result: Result<Progress, ProtocolError>) -> Result<Progress, ProtocolError> {
        if let Err(error) = &result {
            self.failed = Some(error.clone());
            self.wires.clear();
            self.opened.clear();
            self.early.clear();
        }
        result
    }

    fn outgoing(&self, to: Party, step: u32, payload: Vec<u8>) -> Outgoing {
        Outgoing { to, step: self.first_step + step, payload }
    }

    fn opening_step(&self, stage: usize) -> u32 {
        (2 + self.circuit.and_depth() + stage) as u32
    }

    /// The one content that a peer's message with this number can have; `None` if it sends none.
    fn expected(&self, from: Party, step: u32) -> Option<Content> {
        let depth = self.circuit.and_depth() as u32;
        match step {
            0 => (self.party != Party::K2 && from == self.party.next()).then_some(Content::Inputs),
            1 => (self.party == Party::K1 && from == Party::K0).then(|| Content::Bits(self.circuit.input_bits())),
            _ if step <= 1 + depth => {
                let bits = self.circuit.level(step as usize - 1)?.and_bits;
                (from == self.party.next()).then_some(Content::Bits(bits))
            }
            _ => {
                let stage = (step - 2 - depth) as usize;
                (stage < self.circuit.stages() && from != self.party)
                    .then(|| Content::Bits(self.circuit.stage_bits(stage)))
            }
        }
    }

    /// Bytes that a content takes.
    fn length(&self, content: Content) -> usize {
        match content {
            Content::Inputs => self.input_bytes(),
            Content::Bits(bits) => bits.div_ceil(8),
        }
    }

    fn input_bytes(&self) -> usize {
        self.circuit.inputs().iter().map(|shape| shape.lanes * value_bytes(shape.width)).sum()
    }

    fn accept(&mut self, from: Party, step: u32, payload: &[u8]) -> Result<(), ProtocolError> {
        let relative = step.checked_sub(self.first_step).ok_or(ProtocolError::Unexpected { from, step })?;
        let expected = self.expected(from, relative).ok_or(ProtocolError::Unexpected { from, step })?;
        if !self.seen.insert((step, from)) {
            return Err(ProtocolError::Repeated { from });
        }
        if self.at == At::Done {
            return Err(ProtocolError::Unexpected { from, step });
        }
        match payload.len().cmp(&self.length(expected)) {
            std::cmp::Ordering::Less => return Err(ProtocolError::Truncated { from }),
            std::cmp::Ordering::Greater => return Err(ProtocolError::Malformed { from }),
            std::cmp::Ordering::Equal => {}
        }
        let early = match expected {
            Content::Inputs => Early::Inputs(self.decode_inputs(payload, from)?),
            Content::Bits(bits) => {
                Early::Bits(Lanes::from_bytes(payload, bits).ok_or(ProtocolError::Malformed { from })?)
            }
        };
        self.early.insert((relative, from), early);
        Ok(())
    }

    /// The inputs that a peer has sent, once they are here.
    fn early_inputs(&mut self, from: Party) -> Option<Zeroizing<Vec<u64>>> {
        match self.early.remove(&(0, from))? {
            Early::Inputs(values) => Some(values),
            Early::Bits(_) => None,
        }
    }

    /// The bits that a peer has sent with this number, once they are here.
    fn early_bits(&mut self, step: u32, from: Party) -> Option<Lanes> {
        match self.early.remove(&(step, from))? {
            Early::Bits(bits) => Some(bits),
            Early::Inputs(_) => None,
        }
    }

    /// Runs as far as the messages that are here allow.
    fn go_on(&mut self, mut send: Vec<Outgoing>) -> Result<Progress, ProtocolError> {
        loop {
            let moved = match self.at {
                At::Inputs => self.take_inputs(&mut send)?,
                At::Deal => self.take_deal(&mut send)?,
                At::Level(depth) => self.take_products(depth, &mut send)?,
                At::Opening(stage) => self.take_opening(stage)?,
                At::Approval(stage) => return Ok(Progress { send, state: State::ReadyToOpen { stage } }),
                At::Done => {
                    return Ok(Progress { send, state: State::Done(std::mem::take(&mut self.opened)) });
                }
            };
            if !moved {
                return Ok(Progress { send, state: State::Waiting });
            }
        }
    }

    fn encode_inputs(&self, values: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.input_bytes());
        let mut values = values.iter();
        for shape in self.circuit.inputs() {
            let values = values.by_ref().take(shape.lanes);
            match value_bytes(shape.width) {
                2 => bytes.extend(values.flat_map(|value| (*value as u16).to_le_bytes())),
                size => {
                    for value in values {
                        bytes.extend_from_slice(value.to_le_bytes().get(..size).unwrap_or_default());
                    }
                }
            }
        }
        bytes
    }

    fn decode_inputs(&self, bytes: &[u8], from: Party) -> Result<Zeroizing<Vec<u64>>, ProtocolError> {
        let mut values = Zeroizing::new(Vec::with_capacity(self.circuit.input_count()));
        let mut rest = bytes;
        for shape in self.circuit.inputs() {
            let size = value_bytes(shape.width);
            let (chunk, after) = rest.split_at_checked(shape.lanes * size).ok_or(ProtocolError::Truncated { from })?;
            rest = after;
            let first = values.len();
            match size {
                0 => values.resize(first + shape.lanes, 0),
                2 => values.extend(chunk.as_chunks().0.iter().map(|bytes| u64::from(u16::from_le_bytes(*bytes)))),
                _ => values.extend(
                    chunk
                        .chunks_exact(size)
                        .map(|bytes| bytes.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte))),
                ),
            }
            let used = values.iter().skip(first).fold(0, |used, value| used | value);
            if used & !width_mask(shape.width) != 0 {
                return Err(ProtocolError::Malformed { from });
            }
        }
        Ok(values)
    }

    /// The bit planes of all inputs, one behind the other.
    fn planes(&self, values: &[u64]) -> Vec<Lanes> {
        let mut rest = values;
        let mut planes = Vec::new();
        for shape in self.circuit.inputs() {
            let (chunk, after) = rest.split_at_checked(shape.lanes).unwrap_or((rest, &[]));
            planes.extend(transpose(chunk, shape.width));
            rest = after;
        }
        planes
    }

    /// Feeds both components of the first operands or of the second ones; `None` stands for zeros.
    fn feed(&mut self, second: bool, own: Option<Vec<Lanes>>, next: Option<Vec<Lanes>>) {
        let zeros = || {
            let shapes = self.circuit.inputs().iter();
            shapes.flat_map(|shape| (0..shape.width).map(|_| Lanes::zeros(shape.lanes))).collect::<Vec<_>>()
        };
        let (own, next) = (own.unwrap_or_else(zeros), next.unwrap_or_else(zeros));
        let mut shares: Vec<Option<Share>> =
            own.into_iter().zip(next).map(|(own, next)| Some(Share { own, next })).collect();
        let circuit = Arc::clone(&self.circuit);
        for (wire, plane, _) in circuit.operands().filter(|(_, _, s)| *s == second) {
            if let Some(share) = shares.get_mut(plane).and_then(Option::take) {
                self.wires.put(wire, share);
            }
        }
    }

    fn take_inputs(&mut self, send: &mut Vec<Outgoing>) -> Result<bool, ProtocolError> {
        match self.party {
            Party::K0 => {
                let Some(theirs) = self.early_inputs(Party::K1) else { return Ok(false) };
                let sum = self.add_inputs(theirs);
                let mask = self.deal_mask(&self.seeds.own);
                let dealt = self.dealt_planes(&sum, &mask);
                let mut payload = Lanes::with_capacity(self.circuit.input_bits());
                dealt.iter().for_each(|plane| payload.append(plane));
                send.push(self.outgoing(Party::K1, 1, payload.to_bytes()));
                self.feed(false, Some(mask), Some(dealt));
                self.feed(true, None, None);
                self.enter_level_zero(send)?;
            }
            Party::K1 => {
                let Some(third) = self.early_inputs(Party::K2) else { return Ok(false) };
                let planes = self.planes(&third);
                self.feed(true, None, Some(planes));
                self.at = At::Deal;
            }
            Party::K2 => {
                let planes = self.planes(&self.masked);
                self.feed(true, Some(planes), None);
                let mask = self.deal_mask(&self.seeds.next);
                self.feed(false, None, Some(mask));
                self.enter_level_zero(send)?;
            }
        }
        Ok(true)
    }

    /// The bits of u_0 + u_1 ⊕ the mask. The mask is an argument so that a test can show what it protects.
    fn dealt_planes(&self, sum: &[u64], mask: &[Lanes]) -> Vec<Lanes> {
        let mut planes = self.planes(sum);
        planes.iter_mut().zip(mask).for_each(|(plane, mask)| plane.xor_with(mask));
        planes
    }

    /// u_0 + u_1 modulo 2^w, in the place of u_1.
    fn add_inputs(&self, mut theirs: Zeroizing<Vec<u64>>) -> Zeroizing<Vec<u64>> {
        let mut pairs = theirs.iter_mut().zip(self.masked.iter());
        for shape in self.circuit.inputs() {
            let mask = width_mask(shape.width);
            pairs.by_ref().take(shape.lanes).for_each(|(a, b)| *a = a.wrapping_add(*b) & mask);
        }
        theirs
    }

    /// The mask of dealt bits, from seed 0, which K_0 and K_2 share.
    fn deal_mask(&self, seed: &veilmatch_secret::Seed) -> Vec<Lanes> {
        let mut stream = stream(seed, DEAL, &self.session, self.first_step);
        let shapes = self.circuit.inputs().iter();
        shapes
            .flat_map(|s| (0..s.width).map(|_| s.lanes))
            .map(|lanes| Lanes::pseudo_random(&mut stream, lanes))
            .collect()
    }

    fn take_deal(&mut self, send: &mut Vec<Outgoing>) -> Result<bool, ProtocolError> {
        let Some(all) = self.early_bits(1, Party::K0) else { return Ok(false) };
        let mut planes = Vec::new();
        let mut from = 0;
        for shape in self.circuit.inputs() {
            for _ in 0..shape.width {
                planes.push(all.slice(from, shape.lanes));
                from += shape.lanes;
            }
        }
        self.feed(false, Some(planes), None);
        self.enter_level_zero(send)?;
        Ok(true)
    }

    fn enter_level_zero(&mut self, send: &mut Vec<Outgoing>) -> Result<(), ProtocolError> {
        self.masked.zeroize();
        // Component i is expanded from seed i, which K_{i+1} does not know: to each holder one component is uniform.
        let circuit = Arc::clone(&self.circuit);
        let mut own = stream(&self.seeds.own, RANDOM, &self.session, self.first_step);
        let mut next = stream(&self.seeds.next, RANDOM, &self.session, self.first_step);
        for (wire, lanes) in circuit.randoms() {
            let (own, next) = (Lanes::pseudo_random(&mut own, lanes), Lanes::pseudo_random(&mut next, lanes));
            self.wires.put(wire, Share { own, next });
        }
        self.run_linear(0)?;
        self.enter_level(1, send)
    }

    /// Computes the linear gates that need nothing deeper than `depth`.
    fn run_linear(&mut self, depth: usize) -> Result<(), ProtocolError> {
        let circuit = Arc::clone(&self.circuit);
        let (own_constants, next_constants) = holds_constants(self.party);
        for &wire in &circuit.level(depth).ok_or(ProtocolError::BrokenCircuit)?.linear {
            let wires = &self.wires;
            let own = circuit.linear(wire, own_constants, |w| wires.get(w).map(|s| &s.own));
            let next = circuit.linear(wire, next_constants, |w| wires.get(w).map(|s| &s.next));
            let (Some(own), Some(next)) = (own, next) else { return Err(ProtocolError::BrokenCircuit) };
            self.wires.put(wire, Share { own, next });
            circuit.release_operands(wire, &mut self.wires);
        }
        Ok(())
    }

    /// Sends this party's shares of the products of a level, or goes to the opening after the last one.
    fn enter_level(&mut self, depth: usize, send: &mut Vec<Outgoing>) -> Result<(), ProtocolError> {
        if depth > self.circuit.and_depth() {
            self.at = if self.circuit.stages() == 0 { At::Done } else { At::Approval(0) };
            return Ok(());
        }
        let step = 1 + depth as u32;
        let circuit = Arc::clone(&self.circuit);
        let level = circuit.level(depth).ok_or(ProtocolError::BrokenCircuit)?;
        let zero = zero_bits(&self.seeds, &self.session, self.first_step + step, level.and_bits);
        let products = self.masked_products(&level.ands, zero)?;
        for &(_, a, b, _) in &level.ands {
            self.wires.release(a);
            self.wires.release(b);
        }
        send.push(self.outgoing(self.party.previous(), step, products.to_bytes()));
        self.products = Some(products);
        self.at = At::Level(depth);
        Ok(())
    }

    /// All products of a level, masked with a share of zero. The mask is an argument so that a test can show what it
    /// protects; the one caller passes a fresh one.
    fn masked_products(
        &self,
        ands: &[(crate::circuit::Wire, crate::circuit::Wire, crate::circuit::Wire, usize)],
        zero: Lanes,
    ) -> Result<Lanes, ProtocolError> {
        let mut products = zero;
        let mut place = 0;
        for &(_, a, b, lanes) in ands {
            let (Some(x), Some(y)) = (self.wires.get(a), self.wires.get(b)) else {
                return Err(ProtocolError::BrokenCircuit);
            };
            products.xor_words_at(place, local_product(x, y));
            place += lanes;
        }
        Ok(products)
    }

    fn take_products(&mut self, depth: usize, send: &mut Vec<Outgoing>) -> Result<bool, ProtocolError> {
        let Some(theirs) = self.early_bits(1 + depth as u32, self.party.next()) else { return Ok(false) };
        let circuit = Arc::clone(&self.circuit);
        let level = circuit.level(depth).ok_or(ProtocolError::BrokenCircuit)?;
        let ours = self.products.take().ok_or(ProtocolError::BrokenCircuit)?;
        let mut place = 0;
        for &(wire, _, _, lanes) in &level.ands {
            self.wires.put(wire, Share { own: ours.slice(place, lanes), next: theirs.slice(place, lanes) });
            place += lanes;
        }
        self.run_linear(depth)?;
        self.enter_level(depth + 1, send)?;
        Ok(true)
    }

    /// This party's components of all bits of a stage, one behind the other.
    fn opening_share(&self, stage: usize) -> Result<Share, ProtocolError> {
        let bits = self.circuit.stage_bits(stage);
        let mut share = Share { own: Lanes::with_capacity(bits), next: Lanes::with_capacity(bits) };
        for &wire in self.circuit.stage(stage).unwrap_or_default() {
            let value = self.wires.get(wire).ok_or(ProtocolError::BrokenCircuit)?;
            share.own.append(&value.own);
            share.next.append(&value.next);
        }
        Ok(share)
    }

    fn take_opening(&mut self, stage: usize) -> Result<bool, ProtocolError> {
        let step = self.opening_step(stage);
        let [next, previous] = self.party.peers();
        if !self.early.contains_key(&(step, next)) || !self.early.contains_key(&(step, previous)) {
            return Ok(false);
        }
        let (Some(a), Some(b)) = (self.early_bits(step, next), self.early_bits(step, previous)) else {
            return Ok(false);
        };
        // Opened components of an agreed result are about to be public among the holders: no secret is compared here.
        if a != b {
            return Err(ProtocolError::Mismatch { suspect: Suspect::pair(next, previous) });
        }
        let share = self.opening_share(stage)?;
        let mut value = share.own.clone();
        value.xor_with(&share.next);
        value.xor_with(&a);
        let mut place = 0;
        let mut opened = Vec::new();
        for &wire in self.circuit.stage(stage).unwrap_or_default() {
            let lanes = self.circuit.lanes(wire);
            opened.push(value.slice(place, lanes));
            place += lanes;
        }
        let stop = opened.iter().any(Lanes::any) || stage + 1 == self.circuit.stages();
        self.opened.push(opened);
        self.at = if stop { At::Done } else { At::Approval(stage + 1) };
        if stop {
            self.wires.clear();
        }
        Ok(true)
    }
}

fn width_mask(width: u32) -> u64 {
    if width >= 64 { u64::MAX } else { (1 << width) - 1 }
}

/// u_i = x_i + ζ_i modulo 2^w, in place. Whatever adds the shares of zero, a few numbers of a width at a time, is an
/// argument so that a test can show what they protect.
fn mask_inputs(circuit: &Circuit, inputs: &mut [u64], mut add_zeros: impl FnMut(u32, &mut [u64])) {
    let mut rest = inputs;
    for shape in circuit.inputs() {
        let mask = width_mask(shape.width);
        let (numbers, after) = rest.split_at_mut(shape.lanes.min(rest.len()));
        rest = after;
        for few in numbers.chunks_mut(ZeroNumbers::MOST) {
            add_zeros(shape.width, few);
            few.iter_mut().for_each(|number| *number &= mask);
        }
    }
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod views;
