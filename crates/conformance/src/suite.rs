//! The suite: every decision mode on random and extreme inputs, against the plaintext cosines.

use std::collections::VecDeque;
use std::sync::Arc;

use rand_core::Rng;
use veilmatch_domain::{Dimension, Embedding, Party, SessionId, Threshold};
use veilmatch_mpc::{
    Answer, Candidates, Circuit, Evaluation, Lanes, PairwiseSeeds, Question, State, decision_circuit,
    preselection_circuit, read_answer, read_candidates,
};
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
    /// Dimensions of a coarse stage, after which every probe is asked about once more; 0 for none.
    pub coarse: usize,
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
    /// Which groups a coarse stage names; a slot is a group.
    pub coarse: Tally,
    /// Decisions about the groups that it named.
    pub preselected: Tally,
}

impl SuiteReport {
    /// The tallies with their names.
    #[must_use]
    pub fn modes(&self) -> [(&'static str, Tally); 6] {
        [
            ("verify", self.verify),
            ("exists", self.exists),
            ("matches", self.matches),
            ("best", self.best),
            ("coarse", self.coarse),
            ("preselected", self.preselected),
        ]
    }

    /// Panics unless every mode has at least 100 judged decisions and none differs outside the band; prints the share
    /// that lies inside the band. `stages`: whether the scheme has the modes in two stages.
    ///
    /// # Panics
    /// As said: this is an assertion.
    #[expect(clippy::print_stdout, reason = "the report of a test suite")]
    pub fn assert_conformant(&self, scheme: &str, stages: bool) {
        let modes = self.modes();
        for (mode, tally) in modes.into_iter().take(if stages { modes.len() } else { 4 }) {
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
    let circuit = decision_circuit(width, &Lanes::ones(shares[0].len()), question);
    read_answer(question, &evaluate(shares, circuit, session)).unwrap()
}

/// The coarse stage on three parties' shares of score − t₁, in memory; `lanes` counts those of each group.
///
/// # Panics
/// As [`decide`].
#[must_use]
pub fn preselect(shares: ScoreShares, width: u32, lanes: &[usize], most: usize, session: u64) -> Candidates {
    let circuit = preselection_circuit(width, lanes, most);
    read_candidates(lanes.len(), most, &evaluate(shares, circuit, session)).unwrap()
}

/// What three parties open of a circuit. Random bits differ between none of them.
fn evaluate(shares: ScoreShares, circuit: Circuit, session: u64) -> Vec<Vec<Lanes>> {
    let circuit = Arc::new(circuit);
    let session = SessionId(Label::new("veilmatch/conformance/session").number(session).digest().0);
    let seed = |i: usize| Seed::from_bytes([(i % 3) as u8 + 1; 32]);
    let mut queue = VecDeque::new();
    let mut answers = Vec::new();
    let mut take = |party: Party, progress: veilmatch_mpc::Progress, queue: &mut VecDeque<_>| {
        queue.extend(progress.send.into_iter().map(|message| (party, message)));
        let ready = matches!(progress.state, State::ReadyToOpen { .. });
        if let State::Done(opened) = progress.state {
            answers.push(opened);
        }
        ready
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
            if case.coarse > 0 {
                let stage = Stages { case, scheme: &mut *scheme, threshold, number, session: &mut session };
                stage.run(&encrypted, &templates, &probe, &scores, &mut report);
            }
        }
    }
    report
}

/// One probe's questions in two stages.
struct Stages<'a> {
    case: &'a Case,
    scheme: &'a mut dyn Scheme,
    threshold: Threshold,
    number: usize,
    session: &'a mut u64,
}

impl Stages<'_> {
    fn run(
        self,
        encrypted: &[u8],
        templates: &[&Embedding],
        probe: &Embedding,
        scores: &[f64],
        report: &mut SuiteReport,
    ) {
        let (groups, width, noise) = (&self.case.groups, self.scheme.decision_bits(), self.scheme.noise());
        let coarse_threshold = Threshold::new([0.1, 0.3, -0.3, 0.6, 0.0][self.number % 5]).unwrap();
        let stages = self.scheme.stage_shares(encrypted, self.case.coarse, coarse_threshold, self.threshold);
        let [coarse, whole] = stages.expect("a case in two stages needs a scheme that has them");
        let inner = |template: &Embedding| {
            let pairs = template.values().iter().zip(probe.values()).take(self.case.coarse);
            pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>()
        };
        let mut from = 0;
        let of_groups: Vec<(std::ops::Range<usize>, f64)> = groups
            .iter()
            .map(|&size| {
                let lanes = from..from + size;
                from += size;
                let highest = templates[lanes.clone()].iter().map(|t| inner(t)).fold(-2.0, f64::max);
                (lanes, highest - coarse_threshold.cosine())
            })
            .collect();
        *self.session += 1;
        let most = [groups.len(), 1][self.number % 2];
        let named = match preselect(coarse, width, groups, most, *self.session) {
            Candidates::Groups(named) => named,
            Candidates::TooMany => {
                let band = crate::BAND * noise;
                let possible = of_groups.iter().filter(|(_, above)| *above >= -band).count();
                report.coarse.add(Tally {
                    questions: 1,
                    slots: 1,
                    outside_band: usize::from(possible <= most),
                    differing: usize::from(possible <= most),
                    ..Tally::default()
                });
                return;
            }
        };
        let mut tally = Tally { questions: 1, ..Tally::default() };
        for (place, (_, above)) in of_groups.iter().enumerate() {
            let (inside, differs) = (above.abs() <= crate::BAND * noise, named.contains(&place) != (*above >= 0.0));
            tally.slots += 1;
            tally.inside_band += usize::from(inside);
            tally.differing += usize::from(differs);
            tally.outside_band += usize::from(differs && !inside);
        }
        report.coarse.add(tally);
        let lanes: Vec<usize> = named.iter().flat_map(|&place| of_groups[place].0.clone()).collect();
        if lanes.is_empty() {
            return;
        }
        let chosen = whole.each_ref().map(|shares| lanes.iter().map(|&lane| shares[lane]).collect::<Vec<_>>());
        let scores: Vec<f64> = lanes.iter().map(|&lane| scores[lane]).collect();
        for question in [Question::Any, Question::List { max: 3 }, Question::Best] {
            *self.session += 1;
            let answer = decide(chosen.clone(), width, question, *self.session);
            report.preselected.add(judge(question, self.threshold, &scores, noise, &answer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Plaintext;

    fn cases() -> Vec<Case> {
        vec![
            Case { dimension: 64, groups: vec![1], probes: 40, coarse: 20 },
            Case { dimension: 128, groups: vec![3, 60, 20], probes: 105, coarse: 40 },
        ]
    }

    #[test]
    fn the_plaintext_scheme_passes() {
        run(&mut Plaintext::new(1), &cases(), 7).assert_conformant("plaintext", true);
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
        fn stage_shares(
            &mut self,
            probe: &[u8],
            m: usize,
            coarse: Threshold,
            threshold: Threshold,
        ) -> Option<[ScoreShares; 2]> {
            let mut stages = self.0.stage_shares(probe, m, coarse, threshold)?;
            stages.iter_mut().flatten().for_each(|shares| shares.rotate_left(1));
            Some(stages)
        }
        fn noise(&self) -> f64 {
            self.0.noise()
        }
    }

    #[test]
    fn a_scheme_that_mixes_up_templates_fails() {
        let report = run(&mut Swapped(Plaintext::new(1)), &cases(), 7);
        assert!(report.verify.outside_band > 0 && report.matches.outside_band > 0 && report.best.outside_band > 0);
        assert!(report.coarse.outside_band > 0 && report.preselected.outside_band > 0);
    }
}
