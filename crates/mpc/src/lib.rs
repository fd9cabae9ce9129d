//! Three-party replicated sharing: conversion, comparison, OR, tournament, openings. Rounds and messages, no IO.
//!
//! The setting (DESIGN 1, 5): three key holders K0, K1, K2, at most one of which is curious about what it sees.
//! A bit-sliced value x = x₀ ⊕ x₁ ⊕ x₂ is shared so that K_i knows the components i and i+1; a pseudo-random seed i
//! is known to K_i and K_{i−1}. Every protocol is a [`Circuit`] that is built from public data alone and is run by
//! one state machine, [`Evaluation`]: all AND gates of one depth travel in one message, so a protocol takes as many
//! rounds as its circuit is deep.
//!
//! - [`lanes`](Lanes): bit-sliced words. [`CircuitBuilder`], [`Circuit`]: gates, depths, the oracle in the clear.
//! - [`decision_circuit`], [`read_answer`]: `any`, `list`, `best` on the signs of score − τ (DESIGN 5). Where "is any of them
//!   1" is asked, random multiples are added up instead of a tree of ORs (`counting`).
//! - [`preselection_circuit`], [`read_candidates`]: which groups hold a candidate (DESIGN 6).
//! - [`norm_circuit`], [`norm_inputs`], [`read_norm`], [`dot_share`]: is a sealed template a unit vector (DESIGN 3.3)?
//! - [`Evaluation`]: messages in, messages out, openings only after [`Evaluation::approve_opening`].
//! - [`Links`], [`Frame`], [`Inbox`]: authenticated frames for all that holders say to each other.
//! - [`Network`]: a network in memory with scripted faults, for tests, simulations and the demo in one process.
//!
//! What a holder that deviates can do: every message has one possible length and one sender, frames are
//! authenticated, and whatever is opened arrives in two copies from two holders, so openings cannot be changed
//! unnoticed. A wrong message *inside* the comparison (a wrong product share, a wrong input share) is not noticed.
//! Nothing that the deviating holder receives before the opening tells it anything, because all of it is masked by a
//! seed that it does not have, whatever it sent before. But the result that is then opened may be a wrong one: the
//! answer of another threshold, say, or the slots beyond the cap of a list. So a holder that deviates can spoil a
//! decision and bend what its one opening asks, not read scores.
//!
//! Shares are wiped when they are dropped. Not wiped: payloads that were handed to the network, registers, and
//! copies that the compiler spills to the stack.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a test may fail loudly"
    )
)]

mod addition;
mod circuit;
mod counting;
mod decision;
mod error;
mod evaluation;
mod lanes;
mod link;
mod network;
mod norm;
mod preselection;
mod sharing;
#[cfg(test)]
mod testing;
mod tournament;

pub use circuit::{Circuit, CircuitBuilder, Operands, Wire};
pub use decision::{Answer, Question, decision_circuit, read_answer};
pub use error::ProtocolError;
pub use evaluation::{Evaluation, Outgoing, Progress, State};
pub use lanes::{Lanes, transpose};
pub use link::{FRAME_OVERHEAD, Frame, Inbox, Links};
pub use network::{Delivery, Fault, FaultKind, Network, Traffic};
pub use norm::{NORM_WIDTH, NormBounds, dot_share, norm_circuit, norm_inputs, read_norm};
pub use preselection::{Candidates, preselection_circuit, read_candidates};
pub use sharing::PairwiseSeeds;
