//! Drives one evaluation of `veilmatch-mpc` with the frames of a session.

use std::collections::VecDeque;
use std::sync::Arc;

use veilmatch_domain::{SessionId, Suspect};
use veilmatch_mpc::{
    Circuit, Evaluation, Lanes, PairwiseSeeds, Progress, Question, State as Stage, decision_circuit, norm_circuit,
    preselection_circuit,
};

use crate::HolderError;
use crate::state::{Channel, State};

/// Which circuit a run evaluates: public data alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Are these unit vectors?
    Norm { templates: usize, dimension: usize },
    /// The decision on scores of `width` bits.
    Decision { width: u32, lanes: usize, question: Question },
    /// Which groups, of so many lanes each, hold a candidate?
    Preselection { width: u32, lanes: Vec<usize>, most: usize },
}

/// Circuits that were evaluated lately: most queries of a collection have the same one.
#[derive(Default)]
pub(crate) struct Circuits(VecDeque<(Wanted, Arc<Circuit>)>);

/// Circuits that are kept; a few megabytes each at a million lanes.
const KEPT: usize = 8;

impl Circuits {
    /// The circuit, built if it is not there. What was used longest ago gives way.
    pub(crate) fn get(&mut self, wanted: Wanted) -> Arc<Circuit> {
        let place = self.0.iter().position(|(kept, _)| *kept == wanted);
        let found = place.and_then(|place| self.0.remove(place));
        let entry = found.unwrap_or_else(|| {
            let built = match &wanted {
                Wanted::Norm { templates, dimension } => norm_circuit(*templates, *dimension),
                Wanted::Decision { width, lanes, question } => {
                    decision_circuit(*width, &Lanes::ones(*lanes), *question)
                }
                Wanted::Preselection { width, lanes, most } => preselection_circuit(*width, lanes, *most),
            };
            (wanted, Arc::new(built))
        });
        let circuit = Arc::clone(&entry.1);
        self.0.push_front(entry);
        self.0.truncate(KEPT);
        circuit
    }
}

/// What a run needs next.
pub(crate) enum Running {
    /// Messages of peers.
    Waiting,
    /// Leave to open this stage, after the log is written.
    ReadyToOpen(usize),
    /// Nothing: these stages are open.
    Done(Vec<Vec<Lanes>>),
}

/// An evaluation under way.
pub(crate) struct Run {
    evaluation: Evaluation,
    state: Stage,
}

impl Run {
    pub(crate) fn start(
        state: &mut State,
        channel: &mut Channel,
        seeds: &PairwiseSeeds,
        wanted: Wanted,
        inputs: Vec<u64>,
        first_step: u32,
    ) -> Result<Self, HolderError> {
        Self::start_as(channel.session, state, channel, seeds, wanted, inputs, first_step)
    }

    /// As [`start`](Self::start), with the masks of another session than the channel's.
    pub(crate) fn start_as(
        session: SessionId,
        state: &mut State,
        channel: &mut Channel,
        seeds: &PairwiseSeeds,
        wanted: Wanted,
        inputs: Vec<u64>,
        first_step: u32,
    ) -> Result<Self, HolderError> {
        let circuit = state.circuits.get(wanted);
        let (evaluation, progress) = Evaluation::start(state.party, session, seeds, circuit, inputs, first_step)?;
        let mut run = Self { evaluation, state: Stage::Waiting };
        run.take(state, channel, progress)?;
        Ok(run)
    }

    fn take(&mut self, state: &mut State, channel: &mut Channel, progress: Progress) -> Result<(), HolderError> {
        for message in progress.send {
            channel.send_bytes(state, message.step, message.to, &message.payload)?;
        }
        self.state = progress.state;
        Ok(())
    }

    /// Feeds every frame that is waited for and has arrived.
    pub(crate) fn advance(&mut self, state: &mut State, channel: &mut Channel) -> Result<Running, HolderError> {
        loop {
            match &mut self.state {
                Stage::ReadyToOpen { stage } => return Ok(Running::ReadyToOpen(*stage)),
                Stage::Done(opened) => return Ok(Running::Done(std::mem::take(opened))),
                Stage::Waiting => {}
            }
            let arrived = self
                .evaluation
                .waiting_for()
                .into_iter()
                .find_map(|(from, step)| channel.take(from, step).map(|payload| (from, step, payload)));
            let Some((from, step, payload)) = arrived else { return Ok(Running::Waiting) };
            let progress = self.evaluation.receive(from, step, &payload)?;
            self.take(state, channel, progress)?;
        }
    }

    /// Opens the stage that [`Running::ReadyToOpen`] named.
    pub(crate) fn open(&mut self, state: &mut State, channel: &mut Channel) -> Result<(), HolderError> {
        let progress = self.evaluation.approve_opening()?;
        self.take(state, channel, progress)
    }

    pub(crate) fn late(&self) -> Vec<Suspect> {
        let mut suspects: Vec<Suspect> =
            self.evaluation.waiting_for().into_iter().map(|(from, _)| Suspect::Holder(from)).collect();
        suspects.dedup();
        suspects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circuits_are_built_once_and_the_oldest_give_way() {
        let mut circuits = Circuits::default();
        let wanted = |lanes| Wanted::Decision { width: 16, lanes, question: Question::Best };
        let first = circuits.get(wanted(1));
        for lanes in 2..=KEPT {
            assert_eq!(circuits.get(wanted(lanes)).input_count(), lanes);
        }
        assert!(Arc::ptr_eq(&first, &circuits.get(wanted(1))), "it is used again, so another one is the oldest");
        let norm = circuits.get(Wanted::Norm { templates: 3, dimension: 16 });
        assert_eq!(norm.input_count(), 3 * (16 + 2));
        assert!(Arc::ptr_eq(&first, &circuits.get(wanted(1))));
        assert!(!circuits.0.iter().any(|(kept, _)| *kept == wanted(2)));
        assert_eq!(circuits.0.len(), KEPT);
    }
}
