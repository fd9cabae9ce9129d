//! What a key holder allows in a collection. Each holder keeps and enforces its own copy.

use borsh::{BorshDeserialize, BorshSerialize};

use std::io;

use crate::{
    Decision, Dimension, Explain, MAX_MATCHES, ModelDigest, ParameterSetId, PreselectionError, PreselectionRules,
    Query, SchemeName, Status, Threshold,
};

/// Longest window of [`Budgets`]: 31 days.
pub const MAX_WINDOW_SECONDS: u32 = 31 * 86_400;

/// How many decisions may be opened in one window of time. Windows are fixed: they begin at multiples of their length since
/// the Unix epoch. Every limit of 0 means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Budgets {
    /// Length of a window in seconds, at most [`MAX_WINDOW_SECONDS`]; another length starts the counts again.
    pub window_seconds: u32,
    /// Decisions that one client may have opened.
    pub per_client: u32,
    /// `verify` decisions about one subject, whoever asks.
    pub per_subject: u32,
    /// Decisions in the whole collection.
    pub total: u32,
}

/// Lock-out after failed verifications of one subject in a row (NIST SP 800-63B, 5.2.2: throttling). A decision that was
/// opened and has no outcome counts as failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LockOut {
    /// Failures in a row after which the next attempt has to wait; 0 turns lock-out off.
    pub failures: u16,
    /// How long, in seconds; every further failure doubles it.
    pub delay_seconds: u32,
    /// Failures in a row after which the subject is locked until an administrator unlocks it, or it is erased; 0 for never.
    pub disable_after: u16,
}

/// What a collection is made of; the matcher plans its index by it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CollectionDescription {
    /// The scheme's parameter set.
    pub parameters: ParameterSetId,
    /// Most templates in one packed group; 0 leaves it to the planner.
    pub group_capacity: u32,
}

/// The rules of one collection.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// How many decisions may be opened.
    pub budgets: Budgets,
    /// When a subject is locked.
    pub lock_out: LockOut,
    /// What preselection may be asked for; `None` forbids it.
    pub preselection: Option<PreselectionRules>,
    /// Under which scheme the index is. A collection that exists keeps it.
    pub scheme: SchemeName,
    /// The model whose embeddings are in the collection: templates and probes of others are refused. `None` takes all; a collection that
    /// has templates keeps what it has.
    pub model: Option<ModelDigest>,
}

/// Added to the byte of `best` if rules of preselection follow at the end.
const PRESELECTED: u8 = 2;
/// Added to it if the scheme is `paillier`.
const PAILLIER: u8 = 4;
/// Added to it if a model follows at the end.
const OF_MODEL: u8 = 8;

// Policies of the scheme `glwe` without preselection are encoded as they were before there were these: registries of that time
// stay readable.
impl BorshSerialize for Policy {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let last = u8::from(self.best)
            | flag(self.preselection.is_some(), PRESELECTED)
            | flag(self.scheme == SchemeName::Paillier, PAILLIER)
            | flag(self.model.is_some(), OF_MODEL);
        (self.dimension, self.lowest_threshold, self.highest_threshold).serialize(writer)?;
        (self.verify, self.exists, self.max_matches, last, self.budgets, self.lock_out).serialize(writer)?;
        self.preselection.as_ref().map_or(Ok(()), |rules| rules.serialize(writer))?;
        self.model.as_ref().map_or(Ok(()), |model| model.serialize(writer))
    }
}

impl BorshDeserialize for Policy {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let (dimension, lowest_threshold, highest_threshold) = BorshDeserialize::deserialize_reader(reader)?;
        let (verify, exists, max_matches, last, budgets, lock_out): (bool, bool, u16, u8, Budgets, LockOut) =
            BorshDeserialize::deserialize_reader(reader)?;
        if last > (1 | PRESELECTED | PAILLIER | OF_MODEL) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not the rules of `best`"));
        }
        let preselected = last & PRESELECTED != 0;
        let preselection = if preselected { Some(BorshDeserialize::deserialize_reader(reader)?) } else { None };
        let of_model = last & OF_MODEL != 0;
        let model = if of_model { Some(BorshDeserialize::deserialize_reader(reader)?) } else { None };
        Ok(Self {
            dimension,
            lowest_threshold,
            highest_threshold,
            verify,
            exists,
            max_matches,
            best: last & 1 != 0,
            budgets,
            lock_out,
            preselection,
            scheme: if last & PAILLIER != 0 { SchemeName::Paillier } else { SchemeName::Glwe },
            model,
        })
    }
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
    /// The preselection is not allowed.
    #[error(transparent)]
    Preselection(#[from] PreselectionError),
    /// The policy contradicts itself.
    #[error("the policy is not valid: {what}")]
    Invalid {
        /// What is wrong.
        what: &'static str,
    },
}

impl Explain for PolicyError {
    fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "bad-policy",
            Self::Preselection(error) => error.code(),
            _ => "policy",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::Invalid { .. } => Status::InvalidArgument,
            Self::Preselection(error) => error.status(),
            _ => Status::PermissionDenied,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "correct the policy and send it to all three key holders again",
            Self::Preselection(error) => error.advice(),
            _ => "ask for what the collection's policy allows, or have all three key holders change it",
        }
    }
}

impl Policy {
    /// A policy for use: thresholds 0.3 to 0.7, all modes, at most 8 matches, and per day 10,000 decisions for a client and
    /// 100 about a subject; after five failed verifications in a row 30 seconds, doubling, and after 50 locked.
    ///
    /// # Panics
    /// Never: the thresholds are inside their range.
    #[must_use]
    pub fn standard(dimension: Dimension) -> Policy {
        let (Ok(lowest_threshold), Ok(highest_threshold)) = (Threshold::new(0.3), Threshold::new(0.7)) else {
            unreachable!("0.3 and 0.7 are valid thresholds")
        };
        Policy {
            lowest_threshold,
            highest_threshold,
            max_matches: 8,
            budgets: Budgets { window_seconds: 86_400, per_client: 10_000, per_subject: 100, total: 0 },
            lock_out: LockOut { failures: 5, delay_seconds: 30, disable_after: 50 },
            ..Policy::permissive(dimension)
        }
    }

    /// Whether the rules fit together.
    ///
    /// # Errors
    /// [`PolicyError::Invalid`] naming the first that does not.
    pub fn validate(&self) -> Result<(), PolicyError> {
        let Budgets { window_seconds, per_client, per_subject, total } = self.budgets;
        let limited = per_client > 0 || per_subject > 0 || total > 0;
        let LockOut { failures, delay_seconds, disable_after } = self.lock_out;
        let dimension = self.dimension.get();
        let coarse = |fits: fn(&PreselectionRules, usize) -> bool| {
            self.preselection.as_ref().is_none_or(|rules| fits(rules, dimension))
        };
        let rules = [
            (self.lowest_threshold <= self.highest_threshold, "the lowest threshold is above the highest"),
            (self.max_matches <= MAX_MATCHES, "max_matches is above what a decision can open"),
            (!limited || window_seconds > 0, "budgets need a window"),
            (window_seconds <= MAX_WINDOW_SECONDS, "the window is longer than 31 days"),
            (failures == 0 || delay_seconds > 0, "lock-out needs a delay"),
            (disable_after == 0 || disable_after >= failures, "a subject is disabled before it is delayed"),
            (disable_after == 0 || failures > 0, "lock-out is off, yet subjects are disabled"),
            (coarse(|r, _| r.most_groups > 0), "preselection with no candidate groups"),
            (
                self.preselection.is_none() || self.scheme == SchemeName::Glwe,
                "preselection is for the scheme `glwe`: under `paillier` all dimensions are decrypted at once",
            ),
            (coarse(|r, d| (1..d).contains(&r.least_dimensions.into())), "preselection needs some dimensions, not all"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, what)) => Err(PolicyError::Invalid { what }),
            None => Ok(()),
        }
    }

    /// A policy that allows every mode but preselection, thresholds 0 to 0.9 and up to [`MAX_MATCHES`] matches, without budgets or lock-out.
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
            budgets: Budgets { window_seconds: 0, per_client: 0, per_subject: 0, total: 0 },
            lock_out: LockOut { failures: 0, delay_seconds: 0, disable_after: 0 },
            preselection: None,
            scheme: SchemeName::Glwe,
            model: None,
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
        PreselectionRules::permit(self.preselection.as_ref(), query)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_modes_thresholds_and_caps_outside_the_policy() {
        let mut policy = Policy::permissive(Dimension::new(64).unwrap());
        let query = |decision, t| Query::new(decision, Threshold::new(t).unwrap());
        assert!(policy.permits(&query(Decision::Exists, 0.4)).is_ok());
        assert!(matches!(policy.permits(&query(Decision::Exists, -0.1)), Err(PolicyError::Threshold { .. })));
        for cap in [0, MAX_MATCHES + 1] {
            let asked = query(Decision::Matches { max_matches: cap }, 0.4);
            assert!(matches!(policy.permits(&asked), Err(PolicyError::MaxMatches { .. })));
        }
        let dimension = policy.dimension;
        assert_eq!((policy.validate(), Policy::standard(dimension).validate()), (Ok(()), Ok(())));
        let invalid = |change: &dyn Fn(&mut Policy)| {
            let mut policy = Policy::standard(dimension);
            change(&mut policy);
            assert!(matches!(policy.validate(), Err(PolicyError::Invalid { .. })), "{policy:?}");
        };
        invalid(&|p| p.budgets.window_seconds = 0);
        invalid(&|p| p.budgets.window_seconds = MAX_WINDOW_SECONDS + 1);
        invalid(&|p| p.lock_out.delay_seconds = 0);
        invalid(&|p| p.lock_out.disable_after = 4);
        invalid(&|p| p.lock_out.failures = 0);
        invalid(&|p| p.max_matches = MAX_MATCHES + 1);
        invalid(&|p| p.lowest_threshold = Threshold::new(0.8).unwrap());
        let rules =
            PreselectionRules { least_dimensions: 16, most_groups: 1, lowest_threshold: Threshold::new(0.0).unwrap() };
        invalid(&|p| (p.preselection, p.scheme) = (Some(rules), SchemeName::Paillier));
        for (preselection, scheme) in
            [(None, SchemeName::Glwe), (Some(rules), SchemeName::Glwe), (None, SchemeName::Paillier)]
        {
            for model in [None, Some(ModelDigest([7; 32]))] {
                let policy = Policy { preselection, scheme, model, ..Policy::standard(dimension) };
                let bytes = borsh::to_vec(&policy).unwrap();
                assert_eq!(borsh::from_slice::<Policy>(&bytes).unwrap(), policy);
            }
        }
        policy.exists = false;
        assert!(matches!(policy.permits(&query(Decision::Exists, 0.4)), Err(PolicyError::Mode { mode: "exists" })));
    }
}
