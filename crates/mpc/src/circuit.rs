//! Circuits on bit-sliced wires: built once from public data, ordered by AND depth, evaluated in the clear as the
//! oracle of the tests and on shares by [`Evaluation`](crate::Evaluation).
//!
//! All gates but AND are linear over GF(2) and act on each component of a share alone. An AND gate of depth δ
//! is one whose result needs δ rounds of messages; all gates of the same depth share one message.

use std::sync::Arc;
use veilmatch_secret::{Label, Stream};

use crate::lanes::{Lanes, transpose};

/// A value inside a circuit; belongs to the builder that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wire(u32);

impl Wire {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// An input number x mod 2^w as two numbers with x = first + second: bit planes, least significant first.
///
/// The holders' additive shares need only two operands, since each holder may know two of the three (DESIGN 5).
#[derive(Clone, Debug)]
pub struct Operands {
    /// u_0 + u_1, dealt by K0.
    pub first: Vec<Wire>,
    /// u_2, known to K1 and K2.
    pub second: Vec<Wire>,
}

#[derive(Debug)]
pub(crate) enum Gate {
    /// A bit plane of an operand; planes are counted over all inputs.
    Operand {
        plane: usize,
        second: bool,
    },
    /// A public value.
    Constant(Arc<Lanes>),
    /// Random bits that no party knows.
    Random,
    Xor(Wire, Wire),
    /// ⊕ a public value.
    Flip(Wire, Arc<Lanes>),
    And(Wire, Wire),
    /// ∧ a public value.
    Mask(Wire, Arc<Lanes>),
    /// Lanes from a place on, padded with 0.
    Slice(Wire, usize),
    /// Every second lane, from lane 0 or 1 on.
    EverySecond(Wire, usize),
    Concat(Vec<Wire>),
}

impl Gate {
    pub(crate) fn for_each_operand(&self, mut visit: impl FnMut(Wire)) {
        match self {
            Self::Operand { .. } | Self::Constant(_) | Self::Random => {}
            Self::Xor(a, b) | Self::And(a, b) => {
                visit(*a);
                visit(*b);
            }
            Self::Flip(a, _) | Self::Mask(a, _) | Self::Slice(a, _) | Self::EverySecond(a, _) => visit(*a),
            Self::Concat(all) => all.iter().copied().for_each(visit),
        }
    }
}

#[derive(Debug)]
struct Node {
    gate: Gate,
    lanes: usize,
    depth: usize,
}

/// The shape of one input: `width` bits modulo 2^width, one number per lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InputShape {
    pub(crate) width: u32,
    pub(crate) lanes: usize,
}

/// The AND gates that share one message, then the linear gates that need nothing deeper.
#[derive(Debug, Default)]
pub(crate) struct Level {
    pub(crate) ands: Vec<(Wire, Wire, Wire, usize)>,
    pub(crate) and_bits: usize,
    pub(crate) linear: Vec<Wire>,
}

/// Builds a [`Circuit`]. Operands of different length are padded with lanes of 0.
#[derive(Debug, Default)]
pub struct CircuitBuilder {
    nodes: Vec<Node>,
    inputs: Vec<InputShape>,
    planes: usize,
}

impl CircuitBuilder {
    /// An empty circuit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of lanes of a wire.
    #[must_use]
    pub fn lanes(&self, wire: Wire) -> usize {
        self.nodes.get(wire.index()).map_or(0, |node| node.lanes)
    }

    /// The rounds that a wire's value takes after the inputs.
    pub(crate) fn depth(&self, wire: Wire) -> usize {
        self.nodes.get(wire.index()).map_or(0, |node| node.depth)
    }

    fn push(&mut self, gate: Gate, lanes: usize) -> Wire {
        let mut depth = 0;
        gate.for_each_operand(|operand| depth = depth.max(self.depth(operand)));
        if matches!(gate, Gate::And(..)) {
            depth += 1;
        }
        let wire = Wire(self.nodes.len() as u32);
        self.nodes.push(Node { gate, lanes, depth });
        wire
    }

    /// An additively shared number of `width` ≤ 64 bits in every lane.
    pub fn input(&mut self, width: u32, lanes: usize) -> Operands {
        let width = width.min(u64::BITS);
        let planes = self.planes..self.planes + width as usize;
        self.planes = planes.end;
        self.inputs.push(InputShape { width, lanes });
        let first = planes.clone().map(|plane| self.push(Gate::Operand { plane, second: false }, lanes)).collect();
        let second = planes.map(|plane| self.push(Gate::Operand { plane, second: true }, lanes)).collect();
        Operands { first, second }
    }

    /// A public value.
    pub fn constant(&mut self, value: Lanes) -> Wire {
        let lanes = value.len();
        self.push(Gate::Constant(Arc::new(value)), lanes)
    }

    /// Random bits that no holder knows, fresh in every evaluation.
    pub fn random(&mut self, lanes: usize) -> Wire {
        self.push(Gate::Random, lanes)
    }

    /// a ⊕ b.
    pub fn xor(&mut self, a: Wire, b: Wire) -> Wire {
        let (a, b, lanes) = self.same_length(a, b);
        self.push(Gate::Xor(a, b), lanes)
    }

    /// a ∧ b: one bit of message per lane and holder.
    pub fn and(&mut self, a: Wire, b: Wire) -> Wire {
        let (a, b, lanes) = self.same_length(a, b);
        if lanes == 0 { a } else { self.push(Gate::And(a, b), lanes) }
    }

    /// a ∨ b, with one AND.
    pub fn or(&mut self, a: Wire, b: Wire) -> Wire {
        let sum = self.xor(a, b);
        let both = self.and(a, b);
        self.xor(sum, both)
    }

    /// ¬a.
    pub fn not(&mut self, a: Wire) -> Wire {
        let ones = Lanes::ones(self.lanes(a));
        self.flip(a, ones)
    }

    /// a ⊕ a public value.
    pub fn flip(&mut self, a: Wire, value: Lanes) -> Wire {
        self.push(Gate::Flip(a, Arc::new(value)), self.lanes(a))
    }

    /// a ∧ a public value.
    pub fn mask(&mut self, a: Wire, value: Lanes) -> Wire {
        if value.len() == self.lanes(a) && value.count_ones() == value.len() {
            return a;
        }
        self.push(Gate::Mask(a, Arc::new(value)), self.lanes(a))
    }

    /// The `len` lanes from `from` on; beyond the end, 0.
    pub fn slice(&mut self, a: Wire, from: usize, len: usize) -> Wire {
        if from == 0 && len == self.lanes(a) { a } else { self.push(Gate::Slice(a, from), len) }
    }

    /// The lanes at even places, and those at odd places.
    pub fn halves(&mut self, a: Wire) -> (Wire, Wire) {
        let lanes = self.lanes(a);
        (self.push(Gate::EverySecond(a, 0), lanes.div_ceil(2)), self.push(Gate::EverySecond(a, 1), lanes / 2))
    }

    /// The lanes of all wires one behind the other.
    pub fn concat(&mut self, wires: &[Wire]) -> Wire {
        match wires {
            [one] => *one,
            _ => {
                let lanes = wires.iter().map(|&wire| self.lanes(wire)).sum();
                self.push(Gate::Concat(wires.to_vec()), lanes)
            }
        }
    }

    fn same_length(&mut self, a: Wire, b: Wire) -> (Wire, Wire, usize) {
        let lanes = self.lanes(a).max(self.lanes(b));
        (self.slice(a, 0, lanes), self.slice(b, 0, lanes), lanes)
    }

    /// Orders the gates that the stages need by depth and drops the others. A stage is opened only if every bit
    /// that was opened before it is 0.
    #[must_use]
    pub fn finish(self, stages: Vec<Vec<Wire>>) -> Circuit {
        let mut uses = vec![0u32; self.nodes.len()];
        let add_use = |uses: &mut Vec<u32>, wire: Wire| {
            if let Some(count) = uses.get_mut(wire.index()) {
                *count += 1;
            }
        };
        stages.iter().flatten().for_each(|&wire| add_use(&mut uses, wire));
        // A gate comes after its operands, so one pass from the back finds all that is needed.
        for (index, node) in self.nodes.iter().enumerate().rev() {
            if uses.get(index).is_some_and(|&count| count > 0) {
                node.gate.for_each_operand(|operand| add_use(&mut uses, operand));
            }
        }
        let mut levels: Vec<Level> = vec![Level::default()];
        for ((index, node), &count) in self.nodes.iter().enumerate().zip(&uses) {
            if count == 0 {
                continue;
            }
            if levels.len() <= node.depth {
                levels.resize_with(node.depth + 1, Level::default);
            }
            let Some(level) = levels.get_mut(node.depth) else { continue };
            let wire = Wire(index as u32);
            match node.gate {
                Gate::And(a, b) => {
                    level.ands.push((wire, a, b, node.lanes));
                    level.and_bits += node.lanes;
                }
                Gate::Operand { .. } | Gate::Random => {}
                _ => level.linear.push(wire),
            }
        }
        Circuit { nodes: self.nodes, uses, levels, inputs: self.inputs, stages }
    }
}

/// What the holders evaluate together; public.
#[derive(Debug)]
pub struct Circuit {
    nodes: Vec<Node>,
    uses: Vec<u32>,
    levels: Vec<Level>,
    inputs: Vec<InputShape>,
    stages: Vec<Vec<Wire>>,
}

impl Circuit {
    /// Rounds of messages if every stage is opened: two for the inputs, one per AND depth, one per stage.
    #[must_use]
    pub fn rounds(&self) -> usize {
        2 + self.and_depth() + self.stages.len()
    }

    /// AND gates counted per lane: bits that each holder sends for them.
    #[must_use]
    pub fn and_bits(&self) -> usize {
        self.levels.iter().map(|level| level.and_bits).sum()
    }

    /// The number of stages.
    #[must_use]
    pub fn stages(&self) -> usize {
        self.stages.len()
    }

    /// The number of inputs: lanes of all input numbers together.
    #[must_use]
    pub fn input_count(&self) -> usize {
        self.inputs.iter().map(|shape| shape.lanes).sum()
    }

    pub(crate) fn and_depth(&self) -> usize {
        self.levels.len() - 1
    }

    pub(crate) fn level(&self, depth: usize) -> Option<&Level> {
        self.levels.get(depth)
    }

    pub(crate) fn inputs(&self) -> &[InputShape] {
        &self.inputs
    }

    /// Bits of all input planes.
    pub(crate) fn input_bits(&self) -> usize {
        self.inputs.iter().map(|shape| shape.lanes * shape.width as usize).sum()
    }

    pub(crate) fn stage(&self, stage: usize) -> Option<&[Wire]> {
        self.stages.get(stage).map(Vec::as_slice)
    }

    pub(crate) fn stage_bits(&self, stage: usize) -> usize {
        self.stage(stage).unwrap_or_default().iter().map(|&wire| self.lanes(wire)).sum()
    }

    pub(crate) fn lanes(&self, wire: Wire) -> usize {
        self.nodes.get(wire.index()).map_or(0, |node| node.lanes)
    }

    /// The wires that operands are fed into: wire, plane, second operand or first.
    pub(crate) fn operands(&self) -> impl Iterator<Item = (Wire, usize, bool)> + '_ {
        self.nodes.iter().enumerate().filter_map(|(index, node)| match node.gate {
            Gate::Operand { plane, second } => Some((Wire(index as u32), plane, second)),
            _ => None,
        })
    }

    /// The wires of random bits that are needed, in order.
    pub(crate) fn randoms(&self) -> impl Iterator<Item = (Wire, usize)> + '_ {
        let used = |index: usize| self.uses.get(index).is_some_and(|&count| count > 0);
        self.nodes.iter().enumerate().filter_map(move |(index, node)| match node.gate {
            Gate::Random if used(index) => Some((Wire(index as u32), node.lanes)),
            _ => None,
        })
    }

    /// Computes a linear gate on one component; `constants` says whether public values belong to this component.
    pub(crate) fn linear<'a>(
        &self,
        wire: Wire,
        constants: bool,
        fetch: impl Fn(Wire) -> Option<&'a Lanes>,
    ) -> Option<Lanes> {
        let node = self.nodes.get(wire.index())?;
        Some(match &node.gate {
            Gate::Operand { .. } | Gate::Random | Gate::And(..) => return None,
            Gate::Constant(value) if constants => Lanes::clone(value),
            Gate::Constant(value) => Lanes::zeros(value.len()),
            Gate::Xor(a, b) => Lanes::xor_of(fetch(*a)?, fetch(*b)?),
            Gate::Flip(a, value) => {
                let mut result = fetch(*a)?.clone();
                if constants {
                    result.xor_with(value);
                }
                result
            }
            Gate::Mask(a, value) => {
                let mut result = fetch(*a)?.clone();
                result.and_with(value);
                result
            }
            Gate::Slice(a, from) => fetch(*a)?.slice(*from, node.lanes),
            Gate::EverySecond(a, first) => fetch(*a)?.every_second(*first),
            Gate::Concat(wires) => {
                let mut result = Lanes::with_capacity(node.lanes);
                for part in wires {
                    result.append(fetch(*part)?);
                }
                result
            }
        })
    }

    /// The oracle of the tests: what an evaluation opens, from the inputs in the clear (missing ones are 0). The
    /// inputs are split into the two operands in a fixed pseudo-random way; the result does not depend on it. Random bits
    /// are other ones than in an evaluation.
    #[must_use]
    pub fn evaluate_in_clear(&self, inputs: &[u64]) -> Vec<Vec<Lanes>> {
        let mut wires = self.split_in_clear(inputs);
        for level in &self.levels {
            for &(wire, a, b, _) in &level.ands {
                let Some((x, y)) = wires.get(a).zip(wires.get(b)) else { return Vec::new() };
                let mut product = x.clone();
                product.and_with(y);
                wires.put(wire, product);
                wires.release(a);
                wires.release(b);
            }
            for &wire in &level.linear {
                let Some(value) = self.linear(wire, true, |operand| wires.get(operand)) else { return Vec::new() };
                wires.put(wire, value);
                self.release_operands(wire, &mut wires);
            }
        }
        let mut opened = Vec::new();
        for stage in &self.stages {
            let bits: Vec<Lanes> = stage.iter().filter_map(|&wire| wires.get(wire).cloned()).collect();
            let stop = bits.iter().any(Lanes::any);
            opened.push(bits);
            if stop {
                break;
            }
        }
        opened
    }

    fn split_in_clear(&self, inputs: &[u64]) -> Wires<Lanes> {
        let mut stream = Stream::public(Label::new("veilmatch/mpc/split-in-clear").digest().0);
        let mut values = inputs.iter().copied().chain(std::iter::repeat(0));
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for shape in &self.inputs {
            let (a, b): (Vec<u64>, Vec<u64>) = values
                .by_ref()
                .take(shape.lanes)
                .map(|value| {
                    let part = stream.next_u64();
                    (value.wrapping_sub(part), part)
                })
                .unzip();
            first.extend(transpose(&a, shape.width));
            second.extend(transpose(&b, shape.width));
        }
        let mut wires = Wires::new(self);
        for (wire, plane, is_second) in self.operands() {
            let planes = if is_second { &second } else { &first };
            if let Some(lanes) = planes.get(plane) {
                wires.put(wire, lanes.clone());
            }
        }
        for (wire, lanes) in self.randoms() {
            wires.put(wire, Lanes::pseudo_random(&mut stream, lanes));
        }
        wires
    }

    pub(crate) fn release_operands<T>(&self, wire: Wire, wires: &mut Wires<T>) {
        if let Some(node) = self.nodes.get(wire.index()) {
            node.gate.for_each_operand(|operand| wires.release(operand));
        }
    }
}

/// The values that are still needed: each is dropped, and thereby wiped, after its last use.
pub(crate) struct Wires<T> {
    values: Vec<Option<T>>,
    uses: Vec<u32>,
}

impl<T> Wires<T> {
    pub(crate) fn new(circuit: &Circuit) -> Self {
        Self { values: circuit.uses.iter().map(|_| None).collect(), uses: circuit.uses.clone() }
    }

    pub(crate) fn get(&self, wire: Wire) -> Option<&T> {
        self.values.get(wire.index())?.as_ref()
    }

    pub(crate) fn put(&mut self, wire: Wire, value: T) {
        if self.uses.get(wire.index()).is_some_and(|&count| count > 0)
            && let Some(slot) = self.values.get_mut(wire.index())
        {
            *slot = Some(value);
        }
    }

    /// Counts one use of a wire.
    pub(crate) fn release(&mut self, wire: Wire) {
        if let Some(count) = self.uses.get_mut(wire.index()) {
            *count = count.saturating_sub(1);
            if *count == 0
                && let Some(slot) = self.values.get_mut(wire.index())
            {
                *slot = None;
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.values.clear();
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.values.iter().flatten().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_of_one_depth_share_a_level_and_unneeded_gates_are_dropped() {
        let mut builder = CircuitBuilder::new();
        let input = builder.input(2, 10);
        let a = builder.and(input.first[0], input.second[0]);
        let b = builder.and(input.first[1], input.second[1]);
        let unneeded = builder.and(a, input.first[0]);
        let _ = builder.and(unneeded, a);
        let c = builder.xor(a, b);
        let d = builder.and(c, a);
        let circuit = builder.finish(vec![vec![d]]);
        assert_eq!((circuit.and_bits(), circuit.and_depth(), circuit.rounds(), circuit.stages()), (30, 2, 5, 1));
        let mut wires = circuit.split_in_clear(&[3; 10]);
        assert_eq!(wires.held(), 4);
        wires.release(input.first[0]);
        assert_eq!(wires.held(), 3);
    }

    #[test]
    fn a_stage_opens_only_after_zeros() {
        let mut builder = CircuitBuilder::new();
        let zero = builder.constant(Lanes::zeros(3));
        let one = builder.not(zero);
        let circuit = builder.finish(vec![vec![zero], vec![one], vec![zero]]);
        assert_eq!(circuit.evaluate_in_clear(&[]), [vec![Lanes::zeros(3)], vec![Lanes::ones(3)]]);
    }
}
