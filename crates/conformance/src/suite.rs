//! The suite: every decision mode on random and extreme inputs, against the plaintext cosines.

use std::collections::VecDeque;
use std::sync::Arc;

use rand_core::Rng;
use veilmatch_domain::{Dimension, Embedding, Party, SessionId, Threshold};
use veilmatch_mpc::{Answer, Evaluation, Lanes, PairwiseSeeds, Question, State, decision_circuit, read_answer};
use veilmatch_secret::{Label, Seed};

use crate::judge::{Tally, judge};
use crate::scheme::{Scheme, ScoreShares};
use crate::vectors::{at_cosine, random_unit, rng};

/// One gallery: how many templates each group has, and how many probes are asked.
#[derive(Clone, Debug)]
pub struct Case {
    /// Dimension of the vectors.
    pub dimension: usize,
    /// Templates per group, in order of indexing.
    pub groups: Vec<usize>,
    /// Probes; every mode is asked once per probe.
    pub probes: usize,
}

/// What a run of the suite counted, mode by mode.
#[derive(Clone, Copy, Debug, Default)]
pub struct SuiteReport {
    /// `any` on one lane.
    pub verify: Tally,
    /// `any` on all lanes.
    pub exists: Tally,
    /// `list`.
    pub matches: Tally,
    /// `best`.
    pub best: Tally,
}

impl SuiteReport {
    /// The tallies with their names.
    #[must_use]
    pub fn modes(&self) -> [(&'static str, Tally); 4] {
        [("verify", self.verify), ("exists", self.exists), ("matches", self.matches), ("best", self.best)]
    }

    /// Panics unless every mode has at least 100 judged decisions and none differs outside the band; prints the share
    /// that lies inside the band.
    ///
    /// # Panics
    /// As said: this is an assertion.
    #[expect(clippy::print_stdout, reason = "the report of a test suite")]
    pub fn assert_conformant(&self, scheme: &str) {
        for (mode, tally) in self.modes() {
            println!(
                "{scheme} {mode}: {} questions judged, {} left to the band, {} slots, {:.4} of them inside the band, {} differ",
                tally.questions,
                tally.unjudged,
                tally.slots,
                tally.inside_band as f64 / tally.slots.max(1) as f64,
                tally.differing,
            );
            assert!(tally.questions >= 100, "{scheme} {mode}: only {} judged decisions", tally.questions);
            assert_eq!(tally.outside_band, 0, "{scheme} {mode}: decisions differ outside the band");
        }
    }
}

/// Decides on three parties' shares of score − τ, in memory.
///
/// # Panics
/// If the parties' protocol fails or they disagree.
#[must_use]
pub fn decide(shares: ScoreShares, width: u32, question: Question, session: u64) -> Answer {
    let lanes = shares[0].len();
    let circuit = Arc::new(decision_circuit(width, &Lanes::ones(lanes), question));
    let session = SessionId(Label::new("veilmatch/conformance/session").number(session).digest().0);
    let seed = |i: usize| Seed::from_bytes([(i % 3) as u8 + 1; 32]);
    let mut queue = VecDeque::new();
    let mut answers = Vec::new();
    let mut take = |party: Party, progress: veilmatch_mpc::Progress, queue: &mut VecDeque<_>| {
        queue.extend(progress.send.into_iter().map(|message| (party, message)));
        if let State::Done(opened) = &progress.state {
            answers.push(read_answer(question, opened).unwrap());
        }
        matches!(progress.state, State::ReadyToOpen { .. })
    };
    let mut parties: Vec<Evaluation> = Vec::new();
    for (party, inputs) in Party::ALL.into_iter().zip(shares) {
        let seeds = PairwiseSeeds { own: seed(party.index()), next: seed(party.index() + 1) };
        let (mut evaluation, progress) =
            Evaluation::start(party, session, &seeds, Arc::clone(&circuit), inputs, 0).unwrap();
        let mut ready = take(party, progress, &mut queue);
        while ready {
            ready = take(party, evaluation.approve_opening().unwrap(), &mut queue);
        }
        parties.push(evaluation);
    }
    while let Some((from, message)) = queue.pop_front() {
        let party = message.to;
        let evaluation = &mut parties[party.index()];
        let progress = evaluation.receive(from, message.step, &message.payload).unwrap();
        let mut ready = take(party, progress, &mut queue);
        while ready {
            ready = take(party, evaluation.approve_opening().unwrap(), &mut queue);
        }
    }
    assert_eq!(answers.len(), 3, "a party did not finish");
    assert!(answers.iter().all(|a| *a == answers[0]), "the parties disagree");
    answers.remove(0)
}

/// Runs the suite on one scheme.
///
/// # Panics
/// If the scheme gives another number of shares than templates, or the protocol fails.
pub fn run(scheme: &mut dyn Scheme, cases: &[Case], seed: u64) -> SuiteReport {
    let mut report = SuiteReport::default();
    let mut session = 0;
    for case in cases {
        let mut random = rng(seed ^ (case.dimension as u64) << 20 ^ case.groups.len() as u64);
        scheme.generate_keys(Dimension::new(case.dimension).unwrap());
        let gallery: Vec<Vec<Embedding>> = case
            .groups
            .iter()
            .map(|&size| (0..size).map(|_| random_unit(case.dimension, &mut random)).collect())
            .collect();
        let encrypted: Vec<Vec<Vec<u8>>> =
            gallery.iter().map(|group| group.iter().map(|t| scheme.encrypt_template(t)).collect()).collect();
        scheme.index(&encrypted);
        let templates: Vec<&Embedding> = gallery.iter().flatten().collect();

        for number in 0..case.probes {
            let threshold = Threshold::new([0.35, 0.5, -0.2, 0.9, 0.0][number % 5]).unwrap();
            let target = random.next_u32() as usize % templates.len();
            let tau = threshold.cosine();
            // Clear hits and misses, scores near the threshold, identity and its opposite.
            let cosine =
                [0.75, tau + 0.02, tau - 0.02, 1.0, -1.0, tau + scheme.noise(), 0.1][number % 7].clamp(-1.0, 1.0);
            let probe = at_cosine(templates[target], cosine, &mut random);
            let scores: Vec<f64> = templates.iter().map(|t| t.cosine(&probe).unwrap()).collect();
            let encrypted = scheme.encrypt_probe(&probe);
            let shares = scheme.score_shares(&encrypted, threshold);
            assert!(shares.iter().all(|s| s.len() == templates.len()));
            let mut ask = |question, shares: ScoreShares, scores: &[f64]| {
                session += 1;
                let answer = decide(shares, scheme.decision_bits(), question, session);
                judge(question, threshold, scores, scheme.noise(), &answer)
            };
            let one = |lane: usize| shares.each_ref().map(|s| vec![s[lane]]);
            report.verify.add(ask(Question::Any, one(target), &scores[target..=target]));
            let other = (target + 1) % templates.len();
            report.verify.add(ask(Question::Any, one(other), &scores[other..=other]));
            report.exists.add(ask(Question::Any, shares.clone(), &scores));
            let max = [1, 3, 64][number % 3];
            report.matches.add(ask(Question::List { max }, shares.clone(), &scores));
            report.best.add(ask(Question::Best, shares.clone(), &scores));
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Plaintext;

    fn cases() -> Vec<Case> {
        vec![
            Case { dimension: 64, groups: vec![1], probes: 40 },
            Case { dimension: 128, groups: vec![3, 60, 20], probes: 105 },
        ]
    }

    #[test]
    fn the_plaintext_scheme_passes() {
        run(&mut Plaintext::new(1), &cases(), 7).assert_conformant("plaintext");
    }

    /// A scheme that adds the same template twice and forgets another must fail: the suite can.
    struct Swapped(Plaintext);

    impl Scheme for Swapped {
        fn name(&self) -> &'static str {
            "swapped"
        }
        fn decision_bits(&self) -> u32 {
            self.0.decision_bits()
        }
        fn generate_keys(&mut self, dimension: Dimension) {
            self.0.generate_keys(dimension);
        }
        fn encrypt_template(&mut self, template: &Embedding) -> Vec<u8> {
            self.0.encrypt_template(template)
        }
        fn encrypt_probe(&mut self, probe: &Embedding) -> Vec<u8> {
            self.0.encrypt_probe(probe)
        }
        fn index(&mut self, groups: &[Vec<Vec<u8>>]) {
            self.0.index(groups);
        }
        fn score_shares(&mut self, probe: &[u8], threshold: Threshold) -> ScoreShares {
            let mut shares = self.0.score_shares(probe, threshold);
            for share in &mut shares {
                share.rotate_left(1);
            }
            shares
        }
        fn noise(&self) -> f64 {
            self.0.noise()
        }
    }

    #[test]
    fn a_scheme_that_mixes_up_templates_fails() {
        let report = run(&mut Swapped(Plaintext::new(1)), &cases(), 7);
        assert!(report.verify.outside_band > 0 && report.matches.outside_band > 0 && report.best.outside_band > 0);
    }
}
