//! Decisions on the signs of score − τ: `any`, `list`, `best` (DESIGN 5).
//!
//! Who sees what: the answer alone is opened. `any` opens 64 bits that are all 0 if no slot is at or above the threshold
//! and uniform otherwise, whichever and however many are (all 0 with probability 2^−64, then the answer is "no"). `list` opens "too many" first and, only if that bit is 0, the slots;
//! `best` opens whether somebody is at or above the threshold and the place of the highest, which is 0 if nobody is. No
//! score is opened.
//!
//! Cost: AND gates over all lanes (each is one bit from each holder to one other) and rounds of messages, with every
//! stage opened; `list` at a cap of 10. The input takes 16 bits per lane more from K_1, K_2 and K_0. `best` has its gates
//! and rounds from how many meet at once in its tournament, which follows the number of slots (see `tournament`).
//!
//! | w = 16 | `any` | `list` | `best` |
//! |---|---|---|---|
//! | 1 slot | 39, 8 rounds | 39, 9 rounds | 39, 8 rounds |
//! | 1,000 slots | 103,064, 9 rounds | 40,003, 19 rounds | 491,830, 30 rounds |
//! | 20,000 slots | 1,430,064, 10 rounds | 800,009, 24 rounds | 4,188,356, 47 rounds |
//! | 1,000 slots, w = 20 | 114,064, 10 rounds | 51,003, 20 rounds | 618,946, 31 rounds |
//!
//! The cap of `list` binds honest holders: the flag "too many" is a result like any other, so a holder that deviates
//! inside the comparison can spoil it, and then the slots are opened (to the holders) although they are too many;
//! [`read_answer`] refuses them. A comparison secure against such a holder is later work (DESIGN 5).

use crate::addition::{sign_of_sum, sum_bits};
use crate::circuit::{Circuit, CircuitBuilder, Wire};
use crate::counting::{any_of_rows, more_than, witness_of_rows};
use crate::error::ProtocolError;
use crate::lanes::Lanes;
use crate::tournament::highest;

/// What is asked of the live slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Is some slot at or above the threshold?
    Any,
    /// Which slots are, if they are at most `max`?
    List {
        /// The cap.
        max: u16,
    },
    /// Which is the highest of those that are? Of equals, the lowest slot.
    Best,
}

/// What was opened. A slot is its lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Question::Any`].
    Any(bool),
    /// To [`Question::List`]: the lanes in order.
    List(Vec<usize>),
    /// To [`Question::List`], beyond its cap.
    TooMany,
    /// To [`Question::Best`].
    Best(Option<usize>),
}

/// The circuit of a decision. Inputs: score − τ modulo 2^width, one lane per slot. A slot counts if its bit in `live`
/// is 1 and its sign bit is 0.
#[must_use]
pub fn decision_circuit(width: u32, live: &Lanes, question: Question) -> Circuit {
    let mut builder = CircuitBuilder::new();
    let lanes = live.len();
    let input = builder.input(width, lanes);
    let hits = |builder: &mut CircuitBuilder, sign: Wire| {
        let above = builder.not(sign);
        builder.mask(above, live.clone())
    };
    let nobody = Lanes::zeros(1);
    let stages = match question {
        Question::Best => {
            let mut bits = sum_bits(&mut builder, &input);
            let Some(sign) = bits.pop() else {
                let no = builder.constant(nobody);
                return builder.finish(vec![vec![no]]);
            };
            let hit = hits(&mut builder, sign);
            // What is below the threshold keeps its bits: it is below whatever has its hit bit set, and if nothing has,
            // the tournament hides its place. A slot that is not live becomes the lowest number of all.
            let mut values: Vec<Wire> = bits.into_iter().map(|bit| builder.mask(bit, live.clone())).collect();
            values.push(hit);
            match highest(&mut builder, values) {
                Some((counts, index)) => vec![std::iter::once(counts).chain(index).collect()],
                None => vec![vec![builder.constant(nobody)]],
            }
        }
        Question::Any | Question::List { .. } => {
            let sign = sign_of_sum(&mut builder, &input);
            let hit = match sign {
                Some(sign) => hits(&mut builder, sign),
                None => builder.constant(Lanes::zeros(lanes)),
            };
            match question {
                Question::List { max } => vec![vec![more_than(&mut builder, hit, max.into())], vec![hit]],
                // Two slots take one round either way.
                _ if lanes <= 2 => vec![vec![any_of_rows(&mut builder, hit, lanes, 1)]],
                _ => vec![vec![witness_of_rows(&mut builder, hit, lanes, 1)]],
            }
        }
    };
    builder.finish(stages)
}

/// The answer in what was opened.
///
/// # Errors
/// [`ProtocolError::NotAnAnswer`] if the stages do not have the question's shape.
pub fn read_answer(question: Question, opened: &[Vec<Lanes>]) -> Result<Answer, ProtocolError> {
    let first = |stage: &[Lanes]| stage.first().map(|bit| bit.get(0)).ok_or(ProtocolError::NotAnAnswer);
    match (question, opened) {
        // One bit, or the bits of a witness.
        (Question::Any, [stage]) => match stage.as_slice() {
            [bits] => Ok(Answer::Any(bits.any())),
            _ => Err(ProtocolError::NotAnAnswer),
        },
        (Question::List { .. }, [stage]) if first(stage)? => Ok(Answer::TooMany),
        (Question::List { max }, [stage, slots]) if !first(stage)? => {
            let lanes: Vec<usize> = slots.first().ok_or(ProtocolError::NotAnAnswer)?.iter_ones().collect();
            if lanes.len() > usize::from(max) { Err(ProtocolError::NotAnAnswer) } else { Ok(Answer::List(lanes)) }
        }
        (Question::Best, [stage]) => {
            if !first(stage)? {
                return Ok(Answer::Best(None));
            }
            let bits = stage.iter().skip(1).enumerate();
            Ok(Answer::Best(Some(bits.map(|(place, bit)| usize::from(bit.get(0)) << place).sum())))
        }
        _ => Err(ProtocolError::NotAnAnswer),
    }
}

#[cfg(test)]
mod tests;
