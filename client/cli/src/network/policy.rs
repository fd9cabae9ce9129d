//! The policy of a collection as options: the standard one, and what is said otherwise.

use clap::Args;
use veilmatch_domain::{
    Budgets, Dimension, LockOut, ModelDigest, Policy, PolicyError, PreselectionRules, SchemeName, Threshold,
};

use super::threshold;

/// What a collection's policy differs in from the standard one.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Policy")]
pub struct PolicyArguments {
    /// Lowest threshold that may be asked for
    #[arg(long, value_name = "T", default_value = "0.3", value_parser = threshold, allow_negative_numbers = true)]
    pub lowest_threshold: Threshold,
    /// Highest threshold that may be asked for
    #[arg(long, value_name = "T", default_value = "0.7", value_parser = threshold, allow_negative_numbers = true)]
    pub highest_threshold: Threshold,
    /// Forbid `verify`
    #[arg(long)]
    pub no_verify: bool,
    /// Forbid `exists`
    #[arg(long)]
    pub no_exists: bool,
    /// Forbid `best`
    #[arg(long)]
    pub no_best: bool,
    /// Most people that `matches` may name, up to 64; 0 forbids it
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(0..=64))]
    pub max_matches: u16,
    /// Length of the budgets' windows in seconds, up to 31 days
    #[arg(long, value_name = "S", default_value_t = 86_400)]
    pub window: u32,
    /// Decisions per client and window; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub per_client: u32,
    /// Verifications per person and window; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub per_subject: u32,
    /// Decisions of everybody per window; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub total: u32,
    /// Failed verifications in a row after which a person has to wait; 0 for never
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub lock_out_after: u16,
    /// How long, in seconds; every further failure doubles it
    #[arg(long, value_name = "S", default_value_t = 30)]
    pub lock_out_delay: u32,
    /// Failed verifications in a row after which a person is locked until `veilmatch unlock`; 0 for never
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub disable_after: u16,
    /// Allow a preselection that names at most so many candidate groups; without it, preselection is forbidden. The matcher
    /// and the key holders learn which packed groups hold candidates
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub preselect_groups: Option<u32>,
    /// Fewest dimensions that a preselection may compare
    #[arg(long, value_name = "M", default_value_t = 128, requires = "preselect_groups")]
    pub preselect_least: u16,
    /// Lowest coarse threshold that a preselection may ask for
    #[arg(long, value_name = "T", default_value = "0", requires = "preselect_groups", value_parser = threshold, allow_negative_numbers = true)]
    pub preselect_lowest: Threshold,
}

impl PolicyArguments {
    pub(super) fn policy(
        &self,
        dimension: Dimension,
        scheme: SchemeName,
        model: Option<ModelDigest>,
    ) -> Result<Policy, PolicyError> {
        let policy = Policy {
            dimension,
            lowest_threshold: self.lowest_threshold,
            highest_threshold: self.highest_threshold,
            verify: !self.no_verify,
            exists: !self.no_exists,
            max_matches: self.max_matches,
            best: !self.no_best,
            budgets: Budgets {
                window_seconds: self.window,
                per_client: self.per_client,
                per_subject: self.per_subject,
                total: self.total,
            },
            lock_out: LockOut {
                failures: self.lock_out_after,
                delay_seconds: self.lock_out_delay,
                disable_after: if self.lock_out_after == 0 { 0 } else { self.disable_after },
            },
            preselection: self.preselect_groups.map(|most_groups| PreselectionRules {
                least_dimensions: self.preselect_least,
                most_groups,
                lowest_threshold: self.preselect_lowest,
            }),
            scheme,
            model,
        };
        policy.validate().map(|()| policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        policy: PolicyArguments,
    }

    fn policy(options: &[&str]) -> Result<Policy, PolicyError> {
        let arguments = Only::try_parse_from([&["x"], options].concat()).unwrap();
        arguments.policy.policy(Dimension::new(64).unwrap(), SchemeName::Glwe, None)
    }

    #[test]
    fn the_scheme_is_in_it_and_paillier_has_no_preselection() {
        let with = |options: &[&str]| {
            let arguments = Only::try_parse_from([&["x"], options].concat()).unwrap();
            arguments.policy.policy(Dimension::new(64).unwrap(), SchemeName::Paillier, None)
        };
        assert_eq!(with(&[]).unwrap().scheme, SchemeName::Paillier);
        assert!(with(&["--preselect-groups", "9", "--preselect-least", "32"]).is_err());
    }

    #[test]
    fn the_defaults_are_the_standard_policy() {
        assert_eq!(policy(&[]).unwrap(), Policy::standard(Dimension::new(64).unwrap()));
    }

    #[test]
    fn options_change_it_and_contradictions_are_refused() {
        let changed = policy(&["--no-exists", "--max-matches", "0", "--lock-out-after", "0", "--total", "7"]).unwrap();
        assert!(!changed.exists && changed.max_matches == 0 && changed.budgets.total == 7);
        assert_eq!((changed.lock_out.failures, changed.lock_out.disable_after), (0, 0));
        let options = ["--preselect-groups", "9", "--preselect-least", "32", "--preselect-lowest", "0.1"];
        let lowest_threshold = Threshold::new(0.1).unwrap();
        let rules = PreselectionRules { least_dimensions: 32, most_groups: 9, lowest_threshold };
        assert_eq!(policy(&options).unwrap().preselection, Some(rules));
        assert!(policy(&["--preselect-groups", "9", "--preselect-least", "64"]).is_err(), "all dimensions");
        assert!(policy(&["--lowest-threshold", "0.8"]).is_err());
        assert!(policy(&["--window", "0"]).is_err());
        assert!(policy(&["--disable-after", "2"]).is_err());
    }
}
