//! What a key holder allows in a collection. Each holder keeps and enforces its own copy.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::{Decision, Dimension, Explain, MAX_MATCHES, Query, Status, Threshold};

/// The rules of one collection.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Policy {
    /// Dimension of every template and probe.
    pub dimension: Dimension,
    /// Lowest threshold that may be asked for: a very low one turns `matches` into an export.
    pub lowest_threshold: Threshold,
    /// Highest threshold that may be asked for.
    pub highest_threshold: Threshold,
    /// Whether `verify` may be asked.
    pub verify: bool,
    /// Whether `exists` may be asked.
    pub exists: bool,
    /// How many matches `matches` may open; 0 forbids it.
    pub max_matches: u16,
    /// Whether `best` may be asked.
    pub best: bool,
}

/// Why a policy refuses a query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The mode is not allowed in this collection.
    #[error("the collection's policy does not allow `{mode}`")]
    Mode {
        /// The mode that was asked.
        mode: &'static str,
    },
    /// The threshold is outside the allowed range.
    #[error("threshold {asked} is outside the policy's range {lowest} to {highest}")]
    Threshold {
        /// What was asked.
        asked: Threshold,
        /// Lower end.
        lowest: Threshold,
        /// Upper end.
        highest: Threshold,
    },
    /// More matches were asked for than the policy opens, or none.
    #[error("max_matches is {asked}; the policy allows 1 to {allowed}")]
    MaxMatches {
        /// What was asked.
        asked: u16,
        /// The policy's cap.
        allowed: u16,
    },
}

impl Explain for PolicyError {
    fn code(&self) -> &'static str {
        "policy"
    }
    fn status(&self) -> Status {
        Status::PermissionDenied
    }
    fn advice(&self) -> &'static str {
        "ask for what the collection's policy allows, or have all three key holders change it"
    }
}

impl Policy {
    /// A policy that allows every mode, thresholds 0 to 0.9 and up to [`MAX_MATCHES`] matches.
    ///
    /// # Panics
    /// Never: the thresholds are inside their range.
    #[must_use]
    pub fn permissive(dimension: Dimension) -> Policy {
        let (Ok(lowest_threshold), Ok(highest_threshold)) = (Threshold::new(0.0), Threshold::new(0.9)) else {
            unreachable!("0 and 0.9 are valid thresholds")
        };
        Policy {
            dimension,
            lowest_threshold,
            highest_threshold,
            verify: true,
            exists: true,
            max_matches: MAX_MATCHES,
            best: true,
        }
    }

    /// Whether this query may be asked.
    ///
    /// # Errors
    /// [`PolicyError`] naming the rule.
    pub fn permits(&self, query: &Query) -> Result<(), PolicyError> {
        let mode = match &query.decision {
            Decision::Verify { .. } => self.verify,
            Decision::Exists => self.exists,
            Decision::Matches { .. } => self.max_matches > 0,
            Decision::Best => self.best,
        };
        if !mode {
            return Err(PolicyError::Mode { mode: query.decision.mode() });
        }
        if let Decision::Matches { max_matches } = query.decision {
            let allowed = self.max_matches.min(MAX_MATCHES);
            if max_matches == 0 || max_matches > allowed {
                return Err(PolicyError::MaxMatches { asked: max_matches, allowed });
            }
        }
        if query.threshold < self.lowest_threshold || query.threshold > self.highest_threshold {
            return Err(PolicyError::Threshold {
                asked: query.threshold,
                lowest: self.lowest_threshold,
                highest: self.highest_threshold,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_modes_thresholds_and_caps_outside_the_policy() {
        let mut policy = Policy::permissive(Dimension::new(64).unwrap());
        let query = |decision, t| Query { decision, threshold: Threshold::new(t).unwrap() };
        assert!(policy.permits(&query(Decision::Exists, 0.4)).is_ok());
        assert!(matches!(policy.permits(&query(Decision::Exists, -0.1)), Err(PolicyError::Threshold { .. })));
        for cap in [0, MAX_MATCHES + 1] {
            let asked = query(Decision::Matches { max_matches: cap }, 0.4);
            assert!(matches!(policy.permits(&asked), Err(PolicyError::MaxMatches { .. })));
        }
        policy.exists = false;
        assert!(matches!(policy.permits(&query(Decision::Exists, 0.4)), Err(PolicyError::Mode { mode: "exists" })));
    }
}
