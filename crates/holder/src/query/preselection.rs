//! The coarse stage of a query (DESIGN 6): what it opens, and what is left to decide afterwards.
//!
//! ```text
//! AwaitingSums(Coarse) → Computing → Decision ─┬─ too many: the query ends, refused
//!                                              ├─ none: the answer is "nobody", sealed as always
//!                                              └─ some → AwaitingSums(Rest) → Computing → Decision → answer
//! ```
//!
//! **What is opened.** One bit per packed group of the scope: some live member of it reaches t₁ on the first m dimensions;
//! if more groups than the query's cap do, that one fact instead. The three holders see it and tell the matcher, which
//! must know what to scan. It is less than candidates slot by slot, which DESIGN 6 has: the matcher reads and is checked
//! by groups, so which slot it was would save nothing. That no group has a candidate, and thereby the outcome of the
//! query, is part of what the matcher learns; of a decision about candidates it learns nothing more.
//!
//! **Why nothing else is.** The coarse stage is a session of its own: it has its own session id for all masks of the
//! comparison, its own agreement (which names the stage), its own entry in the log and its own place in the budgets, and
//! it is spent once its sums have come. Its sums pass the scan check with the check vectors of the first m/β blocks, and
//! those of the second stage with the vectors of the others and of exactly the agreed groups; the holders compute the mask
//! side of either themselves. So each stage's shares are those of the true sums over its blocks, whatever the matcher
//! sends: a sum of another stage, of another set of groups or of other bodies passes with probability 2⁻⁶². Until the
//! opening the comparison shows nothing (`veilmatch-mpc`), and no opening leaves before the norm check has said "fits" at
//! all three and both peers have the same agreement.
//!
//! **Why the decision is that of a full search on the candidates.** The score is linear in the blocks. The shares of the
//! coarse stage are kept modulo q before rounding, at their holder and wiped with the session; the sum of both stages
//! is the share that a scan of all blocks would have given, number by number, and is rounded once.

use std::sync::Arc;

use veilmatch_domain::{Decision, Dimension, Preselection, Query as Asked, SessionId};
use veilmatch_glwe::{FromHolder, Stage};
use veilmatch_mpc::{Answer, Candidates, Lanes, read_candidates};
use veilmatch_secret::{Label, Secret};

use super::{COARSE, Phase, Query};
use crate::HolderError;
use crate::audit::AuditEvent;
use crate::registry::Scope;
use crate::run::Wanted;
use crate::state::State;

/// The stage that a query begins with.
///
/// # Errors
/// [`HolderError::CoarseDimensions`] unless m is a whole number of blocks of every group, and fewer than all.
pub(super) fn first_stage(asked: &Asked, dimension: Dimension, scope: &Scope) -> Result<Stage, HolderError> {
    let Some(asked) = asked.preselection else { return Ok(Stage::Whole) };
    let m = usize::from(asked.dimensions);
    let misfit = |beta| HolderError::CoarseDimensions { asked: asked.dimensions, beta };
    for served in &scope.groups {
        let beta = served.group.layout.beta();
        if m == 0 || m >= dimension.get() || !m.is_multiple_of(beta) {
            return Err(misfit(beta));
        }
    }
    Ok(Stage::Coarse)
}

/// The session of the coarse stage's comparison.
fn coarse_session(query: &SessionId) -> SessionId {
    SessionId(Label::new("veilmatch/session/preselection").bytes(&query.0).digest().0)
}

impl Query {
    /// What the comparison of the coarse stage is: circuit, session, first step.
    pub(super) fn coarse_run(&self, width: u32, asked: &Preselection) -> (Wanted, SessionId, u32) {
        let lanes = self.scope.groups.iter().map(|served| served.slots.len()).collect();
        let wanted = Wanted::Preselection { width, lanes, most: asked.most_groups as usize };
        (wanted, coarse_session(&self.channel.session), COARSE)
    }

    /// The coarse stage is open: goes on with the candidates' groups, or ends the query.
    pub(super) fn preselected(&mut self, state: &mut State, opened: &[Vec<Lanes>]) -> Result<(), HolderError> {
        let session = self.channel.session;
        let asked = self.asked.preselection.ok_or(HolderError::OutOfTurn(session))?;
        let groups = self.scope.groups.len();
        let found = read_candidates(groups, asked.most_groups as usize, opened)?;
        let candidates = match &found {
            Candidates::Groups(places) => Some(places.len() as u32),
            Candidates::TooMany => None,
        };
        state.log(session, AuditEvent::Preselected { candidates, groups: groups as u32 });
        match found {
            Candidates::TooMany => {
                // An end like any other, not a failure of this holder: its peers have opened the same.
                self.phase = Phase::Finished;
                let refusal = HolderError::TooManyCandidates { most: asked.most_groups }.refusal();
                state.tell_matcher(&FromHolder::Refused { session: Some(session), refusal })
            }
            Candidates::Groups(places) if places.is_empty() => {
                let nobody = match &self.asked.decision {
                    Decision::Verify { .. } | Decision::Exists => Answer::Any(false),
                    Decision::Matches { .. } => Answer::List(Vec::new()),
                    Decision::Best => Answer::Best(None),
                };
                self.answer(state, nobody)
            }
            Candidates::Groups(places) => {
                let coarse = self.coarse.take().ok_or(HolderError::OutOfTurn(session))?;
                self.coarse = Some(chosen_lanes(&self.scope, &places, &coarse));
                self.scope = self.scope.chosen(&places);
                self.stage = Stage::Rest;
                self.phase = Phase::AwaitingSums;
                let groups = self.scope.groups.iter().map(|served| served.group.group).collect();
                state.tell_matcher(&FromHolder::Candidates { session, groups })
            }
        }
    }
}

/// The lanes of the groups at these places.
fn chosen_lanes(scope: &Arc<Scope>, places: &[usize], lanes: &Secret<Vec<u32>>) -> Secret<Vec<u32>> {
    let mut rest = lanes.expose().as_slice();
    // Room for all of them: a vector that grows leaves copies behind that nobody wipes.
    let mut chosen = Secret::new(Vec::with_capacity(rest.len()));
    for (place, served) in scope.groups.iter().enumerate() {
        let (own, others) = rest.split_at(served.slots.len().min(rest.len()));
        rest = others;
        if places.binary_search(&place).is_ok() {
            chosen.expose_mut().extend_from_slice(own);
        }
    }
    chosen
}
