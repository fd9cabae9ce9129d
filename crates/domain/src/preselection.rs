//! A coarse first stage before a decision (DESIGN 6): what a query may ask for, and what a collection allows.
//!
//! The key holders first open, for every packed group, whether the inner product of the first m dimensions reaches a coarse
//! threshold for some live member; the decision is then made about the members of those groups alone. So the matcher and the
//! holders learn which groups hold candidates, which no other query shows them.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::{Decision, Explain, Query, Status, Threshold};

/// The coarse stage that a query asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Preselection {
    /// m, the dimensions that are compared; a whole number of blocks of every group, and fewer than all.
    pub dimensions: u16,
    /// t₁, on the inner product of the first m dimensions. Rounded and noisy like any score; equal to it counts.
    pub threshold: Threshold,
    /// Most groups that may hold candidates; beyond, only that fact is opened.
    pub most_groups: u32,
}

/// What a collection allows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PreselectionRules {
    /// Least m: a stage on few dimensions tells more about each of them.
    pub least_dimensions: u16,
    /// Largest cap of candidate groups that may be asked for.
    pub most_groups: u32,
    /// Lowest coarse threshold that may be asked for: a very low one tells which group is nearest to any vector.
    pub lowest_threshold: Threshold,
}

/// Why a preselection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PreselectionError {
    /// The collection's policy has no rules for it.
    #[error("the collection's policy does not allow preselection")]
    NotAllowed,
    /// A verification compares one template: there is nothing to preselect.
    #[error("`verify` compares one template and takes no preselection")]
    Mode,
    /// Fewer dimensions than the policy allows.
    #[error("preselection on {asked} dimensions; the policy asks for at least {least}")]
    TooFewDimensions {
        /// What was asked.
        asked: u16,
        /// The policy's least.
        least: u16,
    },
    /// The coarse threshold is below what the policy allows.
    #[error("coarse threshold {asked}; the policy asks for at least {lowest}")]
    Threshold {
        /// What was asked.
        asked: Threshold,
        /// The policy's lowest.
        lowest: Threshold,
    },
    /// More groups than the policy allows, or none.
    #[error("a cap of {asked} candidate groups; the policy allows 1 to {allowed}")]
    Groups {
        /// What was asked.
        asked: u32,
        /// The policy's cap.
        allowed: u32,
    },
}

impl Explain for PreselectionError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotAllowed => "preselection-not-allowed",
            _ => "preselection",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::Mode => Status::InvalidArgument,
            _ => Status::PermissionDenied,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::NotAllowed => "ask without preselection, or have all three key holders allow it in the policy",
            Self::Mode => "ask without preselection",
            _ => "ask for what the collection's policy allows, or have all three key holders change it",
        }
    }
}

impl PreselectionRules {
    /// Whether this stage may be asked for.
    ///
    /// # Errors
    /// [`PreselectionError`] naming the rule.
    pub fn permit(rules: Option<&Self>, query: &Query) -> Result<(), PreselectionError> {
        let Some(asked) = query.preselection else { return Ok(()) };
        let rules = rules.ok_or(PreselectionError::NotAllowed)?;
        if matches!(query.decision, Decision::Verify { .. }) {
            return Err(PreselectionError::Mode);
        }
        if asked.dimensions < rules.least_dimensions {
            return Err(PreselectionError::TooFewDimensions { asked: asked.dimensions, least: rules.least_dimensions });
        }
        if asked.threshold < rules.lowest_threshold {
            return Err(PreselectionError::Threshold { asked: asked.threshold, lowest: rules.lowest_threshold });
        }
        if asked.most_groups == 0 || asked.most_groups > rules.most_groups {
            return Err(PreselectionError::Groups { asked: asked.most_groups, allowed: rules.most_groups });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dimension, Policy, PolicyError};

    fn asked(dimensions: u16, most_groups: u32) -> Query {
        let threshold = Threshold::new(0.1).unwrap();
        let preselection = Some(Preselection { dimensions, threshold, most_groups });
        Query { preselection, ..Query::new(Decision::Best, Threshold::new(0.4).unwrap()) }
    }

    #[test]
    fn it_is_off_by_default_and_bounded_by_the_policy() {
        let mut policy = Policy::permissive(Dimension::new(512).unwrap());
        assert_eq!(Policy::standard(policy.dimension).preselection, None);
        let refusal = |policy: &Policy, query: &Query| match policy.permits(query) {
            Err(PolicyError::Preselection(error)) => Some(error),
            other => {
                assert_eq!(other, Ok(()));
                None
            }
        };
        assert_eq!(refusal(&policy, &asked(192, 2)), Some(PreselectionError::NotAllowed));
        assert_eq!(PolicyError::from(PreselectionError::NotAllowed).code(), "preselection-not-allowed");
        let threshold = |cosine| Threshold::new(cosine).unwrap();
        let rules = PreselectionRules { least_dimensions: 128, most_groups: 8, lowest_threshold: threshold(0.1) };
        policy.preselection = Some(rules);
        assert_eq!(policy.validate(), Ok(()));
        assert_eq!(refusal(&policy, &asked(128, 8)), None);
        let few = PreselectionError::TooFewDimensions { asked: 127, least: 128 };
        assert_eq!(refusal(&policy, &asked(127, 8)), Some(few));
        for most in [0, 9] {
            let groups = PreselectionError::Groups { asked: most, allowed: 8 };
            assert_eq!(refusal(&policy, &asked(192, most)), Some(groups));
        }
        policy.preselection = Some(PreselectionRules { lowest_threshold: threshold(0.11), ..rules });
        let low = PreselectionError::Threshold { asked: threshold(0.1), lowest: threshold(0.11) };
        assert_eq!(refusal(&policy, &asked(192, 2)), Some(low));
        let subject = crate::SubjectId::new("alice").unwrap();
        let verify = Query { decision: Decision::Verify { subject }, ..asked(192, 2) };
        assert_eq!(refusal(&policy, &verify), Some(PreselectionError::Mode));
        for (least_dimensions, most_groups) in [(0, 1), (64, 0), (512, 1)] {
            policy.preselection = Some(PreselectionRules { least_dimensions, most_groups, ..rules });
            assert!(matches!(policy.validate(), Err(PolicyError::Invalid { .. })));
        }
    }

    /// Audit logs, registries and sealed templates of earlier versions hold queries and policies as they were.
    #[test]
    fn without_it_queries_and_policies_are_encoded_as_before_and_with_it_they_come_back() {
        let threshold = Threshold::new(0.4).unwrap();
        for decision in [Decision::Exists, Decision::Matches { max_matches: 3 }, Decision::Best] {
            let before = borsh::to_vec(&(&decision, threshold)).unwrap();
            let query = Query::new(decision, threshold);
            assert_eq!(borsh::to_vec(&query).unwrap(), before);
            assert_eq!(borsh::from_slice::<Query>(&before).unwrap(), query);
            let with = Query { preselection: asked(192, 2).preselection, ..query };
            let bytes = borsh::to_vec(&with).unwrap();
            assert_eq!(borsh::from_slice::<Query>(&bytes).unwrap(), with);
            // A program that does not know it finds no decision of this number, and nothing else is read into it.
            assert!(borsh::from_slice::<Decision>(&bytes).is_err());
            for end in 0..bytes.len() {
                assert!(borsh::from_slice::<Query>(&bytes[..end]).is_err());
            }
        }
        assert!(borsh::from_slice::<Query>(&[7, 0, 0, 0, 0]).is_err());
        let mut policy = Policy::standard(Dimension::new(512).unwrap());
        let p = policy.clone();
        let modes = (p.verify, p.exists, p.max_matches, p.best);
        let before = (p.dimension, p.lowest_threshold, p.highest_threshold, modes, p.budgets, p.lock_out);
        let before = borsh::to_vec(&before).unwrap();
        assert_eq!(borsh::to_vec(&policy).unwrap(), before);
        assert_eq!(borsh::from_slice::<Policy>(&before).unwrap(), policy);
        for best in [false, true] {
            policy.best = best;
            policy.preselection =
                Some(PreselectionRules { least_dimensions: 64, most_groups: 3, lowest_threshold: threshold });
            let bytes = borsh::to_vec(&policy).unwrap();
            assert_eq!(borsh::from_slice::<Policy>(&bytes).unwrap(), policy);
            assert!(borsh::from_slice::<Policy>(&bytes[..bytes.len() - 1]).is_err());
        }
    }
}
