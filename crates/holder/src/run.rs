//! Drives one evaluation of `veilmatch-mpc` with the frames of a session.

use std::sync::Arc;

use veilmatch_domain::Suspect;
use veilmatch_mpc::{Circuit, Evaluation, Lanes, PairwiseSeeds, Progress, State as Stage};

use crate::HolderError;
use crate::state::{Channel, State};

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
        circuit: Circuit,
        inputs: Vec<u64>,
        first_step: u32,
    ) -> Result<Self, HolderError> {
        let (evaluation, progress) =
            Evaluation::start(state.party, channel.session, seeds, Arc::new(circuit), inputs, first_step)?;
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
