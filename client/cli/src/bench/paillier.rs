//! `veilmatch bench paillier`: the second scheme by stage, and beside the published approach.

mod baseline;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use veilmatch_cluster::Address;
use veilmatch_domain::{Decision, Dimension, Embedding, Outcome, Query, SubjectId, Threshold};
use veilmatch_glwe::GLWE_2048_V1;
use veilmatch_paillier::{KeySize, Slots, decision_noise};
use veilmatch_secret::os_entropy;
use veilmatch_threshold::{Dealer, Dealt};

use super::spread::Spread;
use super::stages::{Act, Spent, Watched, people};
use super::{BenchError, cores, pool};
use crate::arguments::dimension;
use crate::exit::CliError;
use crate::report::{self, Progress, Report, count};

pub(super) const EXAMPLES: &str = "\
Examples:
  veilmatch bench paillier
  veilmatch bench paillier --baseline --dim 128
  veilmatch bench paillier --gallery 100 --key-bits 3072 --json > paillier-3072.json

All parties run in this process, one after the other: CPU time is what each would
need on a machine of its own. The key ceremony comes first: seconds with 2,048
bits, a minute or more with 3,072. --baseline adds minutes.";

/// Answers are compared with the plaintext; the threshold of the timed questions itself does not matter.
const THRESHOLD: f64 = 0.427;
/// Templates that the baseline is run on.
const BASELINE_TEMPLATES: usize = 20;
/// Slots that are decided close to their plaintext score, on both sides of it.
const SAMPLED: usize = 12;
/// How close, in standard deviations of the error.
const CLOSE: f64 = 8.0;

/// Arguments of `bench paillier`.
#[derive(Clone, Debug, Args)]
pub struct PaillierArguments {
    /// How many people to enrol
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    pub gallery: u32,
    /// Dimension of the synthetic embeddings, 16 to 1024
    #[arg(long, value_name = "D", default_value = "512", value_parser = dimension)]
    pub dim: Dimension,
    /// Bits of the key's modulus: 2048 for 112 bits of security, 3072 for 128
    #[arg(long, value_name = "BITS", default_value = "2048", value_parser = key_size)]
    pub key_bits: KeySize,
    /// Threads of each party; by default one for each core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// How many timed questions
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    pub repeat: u32,
    /// Also reconstruct the published approach, on 20 templates with keys of the same size, and compare
    #[arg(long)]
    pub baseline: bool,
    /// Write one JSON object to standard output and nothing else
    #[arg(long)]
    pub json: bool,
}

fn key_size(text: &str) -> Result<KeySize, String> {
    let size = KeySize::ALL.into_iter().find(|size| size.bits().to_string() == text);
    size.ok_or_else(|| "keys have 2048 or 3072 bits".to_owned())
}

/// CPU milliseconds of one question by stage.
#[derive(Clone, Debug, Default, PartialEq)]
struct Cost {
    /// Each holder, mean: signature, unsealing, handshake, norm check, shares of the probe.
    probe: f64,
    matcher: f64,
    twin: f64,
    /// Each holder, mean: reading the evaluators' ciphertexts, masks and their encryption, checking commitments.
    masks: f64,
    /// Each of the two that decrypt, mean.
    decryption: f64,
    /// Each holder, mean: both proofs, combination, shares of scores.
    combination: f64,
    /// Each holder, mean: comparison and replies.
    comparison: f64,
    /// Everybody.
    all: f64,
    /// From whom to whom.
    bytes: BTreeMap<(Address, Address), usize>,
}

/// The variant byte of `ToHolder::Evaluations`.
const EVALUATIONS: u8 = 7;

impl Cost {
    /// Splits a question. After the evaluators' ciphertexts a holder computes three times: masks, decryption, combination.
    fn of(acts: &[Spent]) -> Self {
        let mut cost = Self::default();
        let mut done: [Option<usize>; 3] = [None; 3];
        let mut decryption = [0.0; 3];
        for Spent { act, cpu } in acts {
            let ms = cpu.as_secs_f64() * 1e3;
            cost.all += ms;
            if let Act::Message { from, to, bytes, .. } = *act {
                *cost.bytes.entry((from, to)).or_default() += bytes;
            }
            let each = ms / 3.0;
            match *act {
                Act::Work(party) => {
                    match done[party.index()] {
                        None => cost.probe += each,
                        Some(0) => cost.masks += each,
                        Some(1) => decryption[party.index()] += ms,
                        Some(_) => cost.combination += each,
                    }
                    done[party.index()] = done[party.index()].map(|n| n + 1);
                }
                Act::Message { to: Address::Matcher, .. } => cost.matcher += ms,
                Act::Message { to: Address::Twin, .. } => cost.twin += ms,
                Act::Message { to: Address::Client, .. } => {}
                Act::Message { to: Address::Holder(party), from, variant, .. } => {
                    let state = &mut done[party.index()];
                    if from == Address::Matcher && variant == EVALUATIONS {
                        *state = Some(0);
                    }
                    match state {
                        None => cost.probe += each,
                        Some(0..=2) => cost.masks += each,
                        Some(_) => cost.comparison += each,
                    }
                }
            }
        }
        // The third holder only adds masks up.
        decryption.sort_unstable_by(f64::total_cmp);
        cost.decryption = (decryption[1] + decryption[2]) / 2.0;
        cost.masks += decryption[0] / 3.0;
        cost
    }

    fn sum_of_bytes(&self, is: impl Fn(Address, Address) -> bool) -> f64 {
        self.bytes.iter().filter(|((from, to), _)| is(*from, *to)).map(|(_, bytes)| *bytes as f64).sum()
    }
}

/// Bytes of one question, means over equal links.
#[derive(Clone, Debug, Serialize)]
struct Links {
    client_to_matcher: f64,
    matcher_to_client: f64,
    matcher_to_each_holder: f64,
    each_holder_to_matcher: f64,
    each_holder_to_twin: f64,
    matcher_to_twin: f64,
    twin_to_matcher: f64,
    each_holder_to_each_peer: f64,
    /// Everything that one holder sends.
    sent_by_each_holder: f64,
    /// Everything that one holder receives.
    received_by_each_holder: f64,
}

impl Links {
    fn of(costs: &[Cost]) -> Self {
        let mean = |links: f64, is: &dyn Fn(Address, Address) -> bool| {
            costs.iter().map(|cost| cost.sum_of_bytes(is)).sum::<f64>() / (links * costs.len().max(1) as f64)
        };
        let holder = |a: Address| matches!(a, Address::Holder(_));
        Self {
            client_to_matcher: mean(1.0, &|a, b| (a, b) == (Address::Client, Address::Matcher)),
            matcher_to_client: mean(1.0, &|a, b| (a, b) == (Address::Matcher, Address::Client)),
            matcher_to_each_holder: mean(3.0, &|a, b| a == Address::Matcher && holder(b)),
            each_holder_to_matcher: mean(3.0, &|a, b| holder(a) && b == Address::Matcher),
            each_holder_to_twin: mean(3.0, &|a, b| holder(a) && b == Address::Twin),
            matcher_to_twin: mean(1.0, &|a, b| (a, b) == (Address::Matcher, Address::Twin)),
            twin_to_matcher: mean(1.0, &|a, b| (a, b) == (Address::Twin, Address::Matcher)),
            each_holder_to_each_peer: mean(6.0, &|a, b| holder(a) && holder(b)),
            sent_by_each_holder: mean(3.0, &|a, _| holder(a)),
            received_by_each_holder: mean(3.0, &|_, b| holder(b)),
        }
    }

    fn rows(&self) -> Vec<Vec<String>> {
        [
            ("client → matcher", self.client_to_matcher),
            ("matcher → client", self.matcher_to_client),
            ("matcher → each holder", self.matcher_to_each_holder),
            ("each holder → matcher", self.each_holder_to_matcher),
            ("each holder → twin", self.each_holder_to_twin),
            ("matcher → twin", self.matcher_to_twin),
            ("twin → matcher", self.twin_to_matcher),
            ("each holder → each peer", self.each_holder_to_each_peer),
            ("sent by each holder", self.sent_by_each_holder),
            ("received by each holder", self.received_by_each_holder),
        ]
        .map(|(link, bytes)| vec![link.to_owned(), report::bytes(bytes.round() as u64)])
        .to_vec()
    }
}

/// CPU milliseconds of enrolment and erasure, everybody together unless said otherwise.
#[derive(Clone, Debug, Serialize)]
struct Changes {
    /// One template in a bulk enrolment.
    enrol_ms_per_template: f64,
    /// Of that, each holder.
    holder_ms_per_template: f64,
    /// One more person, whose group the holders encrypt anew.
    newcomer_ms: f64,
    /// Erasing one person, whose group the holders encrypt anew.
    erase_ms: f64,
}

/// Bytes that one template takes.
#[derive(Clone, Debug, Serialize)]
struct Memory {
    /// Sealed, at the matcher's database.
    sealed: usize,
    /// Packed ciphertexts, at each evaluator.
    index: f64,
    /// Ready for multi-exponentiation, in each evaluator's memory.
    prepared: f64,
}

/// A stage's CPU milliseconds.
#[derive(Clone, Debug, Serialize)]
struct Stage {
    stage: &'static str,
    who: &'static str,
    ms: Spread,
    us_per_template: f64,
}

/// The reconstruction beside ours.
#[derive(Clone, Debug, Serialize)]
struct Baseline {
    /// What it is.
    reconstruction: bool,
    templates: usize,
    /// CPU milliseconds of one template: distance by batch squares.
    batch_square_ms: Spread,
    /// Likewise by one multiplication per dimension.
    multiplication_ms: Spread,
    /// Comparison with the minimum so far.
    minimum_ms: Spread,
    /// The faster way and the minimum, times the gallery: scaled, not measured.
    scaled_to_gallery_s: f64,
    /// The faster way with the minimum, per template, by ours with everything.
    ratio: f64,
    /// The slower way likewise.
    ratio_multiplication: f64,
    correct: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct PaillierReport {
    bench: &'static str,
    parameters: &'static str,
    gallery: usize,
    dim: usize,
    threads: usize,
    repeat: usize,
    slots: usize,
    ceremony_s: f64,
    changes: Changes,
    memory: Memory,
    /// The first question after enrolment, which prepares the groups: CPU milliseconds of both evaluators.
    first_evaluation_ms: f64,
    stages: Vec<Stage>,
    /// Wall-clock milliseconds of a question, all parties in turn in this process.
    wall_ms: Spread,
    /// CPU milliseconds of everybody for one verification.
    verify_ms: Spread,
    bytes: Links,
    /// Decisions that were compared with the plaintext.
    checked: usize,
    /// Those that differ.
    wrong: u64,
    baseline: Option<Baseline>,
}

impl Report for PaillierReport {
    fn outside_band(&self) -> u64 {
        self.wrong
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn text(&self) -> String {
        let stages: Vec<Vec<String>> = self
            .stages
            .iter()
            .map(|s| vec![s.stage.to_owned(), s.who.to_owned(), s.ms.text(1), format!("{:.0}", s.us_per_template)])
            .collect();
        let Changes { enrol_ms_per_template, holder_ms_per_template, newcomer_ms, erase_ms } = self.changes;
        let mut text = format!(
            "{}, {} people of {} dimensions, {} to a ciphertext, {} threads, {} questions of the kind `best`.\n\
             CPU milliseconds of one question, median (quartiles); all parties run in turn in this process.\n\n{}\n\n\
             Wall clock of a question, parties in turn: {} ms. A verification, everybody: {} ms of CPU.\n\
             The first question prepares the groups: {:.0} ms at the evaluators. Key ceremony: {:.1} s.\n\n\
             Enrolment: {enrol_ms_per_template:.1} ms of CPU a template in bulk, {holder_ms_per_template:.1} ms of it at each holder; \
             one more person {newcomer_ms:.0} ms;\nerasing one {erase_ms:.0} ms: the holders encrypt the group anew.\n\
             Bytes a template: {} sealed, {} of index and {} of prepared powers at each evaluator.\n\n{}\n\n\
             {} decisions compared with the plaintext, {} of them differ.\n",
            self.parameters,
            count(self.gallery as u64),
            self.dim,
            self.slots,
            self.threads,
            self.repeat,
            report::table(&["stage", "who", "CPU ms", "µs/template"], &[2, 3], &stages),
            self.wall_ms.text(0),
            self.verify_ms.text(0),
            self.first_evaluation_ms,
            self.ceremony_s,
            report::bytes(self.memory.sealed as u64),
            report::bytes(self.memory.index as u64),
            report::bytes(self.memory.prepared as u64),
            report::table(&["bytes of one question", ""], &[1], &self.bytes.rows()),
            self.checked,
            self.wrong,
        );
        if let Some(baseline) = &self.baseline {
            text.push_str(&baseline.text(self.gallery));
        }
        text
    }
}

impl Baseline {
    fn text(&self, gallery: usize) -> String {
        let rows = [
            ("distance by batch squares", self.batch_square_ms),
            ("distance by a multiplication per dimension", self.multiplication_ms),
            ("comparison with the minimum", self.minimum_ms),
        ]
        .map(|(what, ms)| vec![what.to_owned(), ms.text(1)]);
        format!(
            "\nReconstruction of the published approach (formulas of SOCI+ and Pura; not the authors' code), {} templates, keys of\n\
             the same size; masks and their encryptions beforehand are not counted. CPU milliseconds of one template:\n\n{}\n\n\
             {} templates would take {:.0} s of CPU (scaled linearly, not measured).\n\
             Ours takes less by a factor of {:.0} (batch squares) and {:.0} (multiplications).{}\n",
            self.templates,
            report::table(&["reconstruction", "CPU ms per template"], &[1], &rows),
            count(gallery as u64),
            self.scaled_to_gallery_s,
            self.ratio,
            self.ratio_multiplication,
            if self.correct { "" } else { " Its results are WRONG." },
        )
    }
}

/// Measures.
///
/// # Errors
/// [`CliError`] if a party refuses.
pub(super) fn measure(arguments: &PaillierArguments, progress: &Progress) -> Result<PaillierReport, CliError> {
    let threads = arguments.threads.map_or_else(cores, usize::from);
    pool(threads)?.install(|| {
        let begun = Instant::now();
        let bar = progress.stage("key ceremony", 1);
        let dealt = Dealer::new(arguments.key_bits).deal(&|_| {}, os_entropy().as_mut()).map_err(CliError::protocol)?;
        bar.step();
        drop(bar);
        measure_with(dealt, begun.elapsed(), arguments, threads, progress)
    })
}

/// A probe that lies between two people, nearer to the first.
fn between(a: &Embedding, b: &Embedding, share: f32) -> Result<Embedding, CliError> {
    let mixed = a.values().iter().zip(b.values()).map(|(a, b)| a * share + b * (1.0 - share));
    Embedding::normalised(mixed.collect()).map_err(CliError::protocol)
}

fn measure_with(
    dealt: Dealt,
    ceremony: Duration,
    arguments: &PaillierArguments,
    threads: usize,
    progress: &Progress,
) -> Result<PaillierReport, CliError> {
    let (gallery, repeat, dim) = (arguments.gallery as usize, arguments.repeat as usize, arguments.dim);
    let size = arguments.key_bits;
    // One more, who comes later.
    let everybody = people(gallery + 1, dim)?;
    let (people, newcomer) = everybody.split_at(gallery);
    let mut parties = Watched::found_with_key(dim, dealt)?;

    let bar = progress.stage("enroll", gallery);
    let (mut enrol, mut at_holders) = (Duration::ZERO, Duration::ZERO);
    parties.enroll(people, &bar, |acts| {
        for Spent { act, cpu } in acts {
            enrol += *cpu;
            if matches!(act, Act::Work(_) | Act::Message { to: Address::Holder(_), .. }) {
                at_holders += *cpu;
            }
        }
    })?;
    drop(bar);

    let threshold = Threshold::new(THRESHOLD).map_err(CliError::protocol)?;
    let best = Query::new(Decision::Best, threshold);
    let (mut checked, mut wrong) = (0, 0);
    let noise = decision_noise(GLWE_2048_V1.decision_bits);
    let bar = progress.stage("ask", repeat + 1);
    let (mut costs, mut wall, mut first_evaluation_ms) = (Vec::with_capacity(repeat), Vec::new(), 0.0);
    for turn in 0..=repeat {
        let place = |n: usize| people.get((turn * 37 + n) % gallery).ok_or(CliError::protocol(BenchError::WrongScan));
        let probe = between(&place(0)?.1, &place(1)?.1, 0.8)?;
        let begun = Instant::now();
        let (outcome, acts) = parties.ask(&probe, &best)?;
        let took = begun.elapsed();
        let cost = Cost::of(&acts);
        if let Some(right) = nearest(people, &probe, THRESHOLD, CLOSE * noise)? {
            checked += 1;
            wrong += u64::from(outcome != Outcome::Best(right));
        }
        if turn == 0 {
            first_evaluation_ms = cost.matcher + cost.twin;
        } else {
            wall.push(took.as_secs_f64() * 1e3);
            costs.push(cost);
        }
        bar.step();
    }
    drop(bar);

    let mut verifications = Vec::new();
    let bar = progress.stage("decide near the plaintext score", SAMPLED);
    for turn in 0..SAMPLED {
        let [(subject, template), (_, other)] = [turn * 53, turn * 53 + 1].map(|place| &people[place % gallery]);
        let probe = between(template, other, [0.35, 0.5, 0.65, 0.8][turn % 4])?;
        let score = template.cosine(&probe).map_err(CliError::protocol)?;
        for (threshold, right) in [(score - CLOSE * noise, true), (score + CLOSE * noise, false)] {
            // Beyond what policies of the bench allow.
            if !(0.0..=0.9).contains(&threshold) {
                continue;
            }
            let threshold = Threshold::new(threshold).map_err(CliError::protocol)?;
            let verify = Query::new(Decision::Verify { subject: subject.clone() }, threshold);
            let (outcome, acts) = parties.ask(&probe, &verify)?;
            checked += 1;
            wrong += u64::from(outcome != Outcome::Verify(right));
            verifications.push(Cost::of(&acts).all);
        }
        bar.step();
    }
    drop(bar);

    let prepared = parties.prepared_bytes() as f64 / gallery as f64;
    let groups = parties.layouts().len();
    let ms = |acts: &[Spent]| acts.iter().map(|spent| spent.cpu.as_secs_f64() * 1e3).sum::<f64>();
    let mut newcomer_ms = 0.0;
    let bar = progress.stage("enroll one, erase one", 2);
    parties.enroll(newcomer, &bar, |acts| newcomer_ms += ms(acts))?;
    let erase_ms = ms(&parties.erase(&people[gallery / 2].0)?);
    drop(bar);

    let spread = |of: fn(&Cost) -> f64| Spread::of(costs.iter().map(of));
    let all = spread(|c| c.all);
    if spread(|c| c.decryption).median <= 0.0 || spread(|c| c.matcher).median <= 0.0 {
        return Err(CliError::protocol(BenchError::Incomplete("a decision")));
    }
    let stage = |stage, who, of: fn(&Cost) -> f64| {
        let ms = spread(of);
        Stage { stage, who, ms, us_per_template: ms.median * 1e3 / gallery as f64 }
    };
    let per_template = |time: Duration| time.as_secs_f64() * 1e3 / gallery as f64;
    let report = PaillierReport {
        bench: "paillier",
        parameters: size.parameters(),
        gallery,
        dim: dim.get(),
        threads,
        repeat,
        slots: Slots::new(size, dim).count(),
        ceremony_s: ceremony.as_secs_f64(),
        changes: Changes {
            enrol_ms_per_template: per_template(enrol),
            holder_ms_per_template: per_template(at_holders) / 3.0,
            newcomer_ms,
            erase_ms,
        },
        memory: Memory {
            sealed: veilmatch_sealed::sealed_bytes(dim),
            index: (groups * dim.get() * size.ciphertext_bytes()) as f64 / gallery as f64,
            prepared,
        },
        first_evaluation_ms,
        stages: vec![
            stage("probe: open, norm check, shares", "each holder", |c| c.probe),
            stage("evaluate", "matcher", |c| c.matcher),
            stage("evaluate", "twin", |c| c.twin),
            stage("products, encrypted masks", "each holder", |c| c.masks),
            stage("partial decryption, proof", "each of two holders", |c| c.decryption),
            stage("check proofs, combine, shares", "each holder", |c| c.combination),
            stage("comparison", "each holder", |c| c.comparison),
            stage("everything", "everybody", |c| c.all),
        ],
        wall_ms: Spread::of(wall),
        verify_ms: Spread::of(verifications),
        bytes: Links::of(&costs),
        checked,
        wrong,
        baseline: None,
    };
    if !arguments.baseline {
        return Ok(report);
    }
    let baseline = compare(size, people, all.median / gallery as f64, progress)?;
    // A fast wrong answer must not pass on either side.
    Ok(PaillierReport { wrong: wrong + u64::from(!baseline.correct), baseline: Some(baseline), ..report })
}

/// Whom the plaintext finds, unless two are so close that either may be.
fn nearest(
    people: &[(SubjectId, Embedding)],
    probe: &Embedding,
    threshold: f64,
    gap: f64,
) -> Result<Option<Option<SubjectId>>, CliError> {
    let mut scores = Vec::with_capacity(people.len());
    for (subject, template) in people {
        scores.push((template.cosine(probe).map_err(CliError::protocol)?, subject));
    }
    scores.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let (Some(first), second) = (scores.first(), scores.get(1)) else { return Ok(None) };
    let clear = second.is_none_or(|second| first.0 - second.0 > gap) && (first.0 - threshold).abs() > gap;
    Ok(clear.then(|| (first.0 >= threshold).then(|| first.1.clone())))
}

/// Runs the reconstruction; `ours` is CPU milliseconds per template.
fn compare(
    size: KeySize,
    people: &[(SubjectId, Embedding)],
    ours: f64,
    progress: &Progress,
) -> Result<Baseline, CliError> {
    let templates: Vec<&Embedding> = people.iter().map(|(_, e)| e).take(BASELINE_TEMPLATES).collect();
    let probe = people.last().map(|(_, e)| e).ok_or(CliError::protocol(BenchError::Incomplete("a gallery")))?;
    let bar = progress.stage("reconstruction of the published approach", templates.len());
    let measured = baseline::measure(size, &templates, probe, &mut || bar.step()).map_err(CliError::protocol)?;
    let spread = |times: &[Duration]| Spread::of(times.iter().map(|time| time.as_secs_f64() * 1e3));
    let [batch, multiplication, minimum] =
        [&measured.batch_square, &measured.multiplication, &measured.minimum].map(|times| spread(times));
    let total = |distance: Spread| distance.median + minimum.median;
    Ok(Baseline {
        reconstruction: true,
        templates: templates.len(),
        batch_square_ms: batch,
        multiplication_ms: multiplication,
        minimum_ms: minimum,
        scaled_to_gallery_s: total(batch).min(total(multiplication)) * people.len() as f64 / 1e3,
        ratio: total(batch) / ours,
        ratio_multiplication: total(multiplication) / ours,
        correct: measured.correct,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use veilmatch_domain::Party;
    use veilmatch_glwe::ToHolder;

    #[test]
    fn a_small_run_decides_as_the_plaintext_and_every_stage_takes_time() {
        let dim = Dimension::new(16).unwrap();
        let (threads, key_bits) = (Some(2), KeySize::Bits2048);
        let arguments =
            PaillierArguments { gallery: 22, dim, key_bits, threads, repeat: 3, baseline: true, json: true };
        let dealt = veilmatch_threshold::test_keys::deal(key_bits, os_entropy().as_mut()).unwrap();
        let report = measure_with(dealt, Duration::ZERO, &arguments, 2, &Progress::hidden()).unwrap();
        assert_eq!(report.wrong, 0, "{report:?}");
        assert!(report.checked >= 15, "{report:?}");
        assert!(report.stages.iter().all(|stage| stage.ms.min > 0.0), "{report:?}");
        assert!(report.changes.erase_ms > 0.0 && report.changes.newcomer_ms > 0.0);
        // Two ciphertexts of 20 slots each: 22 people in two groups.
        assert!(report.memory.index >= 2.0 * 16.0 * 512.0 / 22.0 && report.memory.prepared > report.memory.index);
        let baseline = report.baseline.as_ref().unwrap();
        assert!(baseline.correct && baseline.ratio > 1.0, "{baseline:?}");
        let text = report.text();
        assert!(text.contains("Reconstruction") && text.contains("scaled linearly"), "{text}");
    }

    #[test]
    fn a_question_is_split_by_what_holders_compute() {
        let ms = |act, ms| Spent { act, cpu: Duration::from_millis(ms) };
        let message = |from, to, variant| Act::Message { from, to, variant, bytes: 10 };
        let holder = Address::Holder;
        let mut acts = vec![ms(message(Address::Client, Address::Matcher, 0), 1)];
        for party in Party::ALL {
            acts.push(ms(message(Address::Matcher, holder(party), 4), 3));
            acts.push(ms(message(holder(party), Address::Twin, 0), 2));
        }
        acts.extend(Party::ALL.map(|party| ms(message(Address::Matcher, holder(party), EVALUATIONS), 0)));
        for time in [30, 60, 90] {
            acts.extend(Party::ALL.map(|party| {
                // The last holder has nothing to decrypt.
                ms(Act::Work(party), if time == 60 && party == Party::K2 { 0 } else { time })
            }));
        }
        acts.push(ms(message(holder(Party::K0), holder(Party::K1), 0), 6));
        let cost = Cost::of(&acts);
        assert_eq!((cost.probe, cost.matcher, cost.twin), (3.0, 1.0, 6.0));
        assert_eq!((cost.masks, cost.decryption, cost.combination, cost.comparison), (30.0, 60.0, 90.0, 2.0));
        assert_eq!(cost.sum_of_bytes(|_, to| to == Address::Twin), 30.0);
    }

    #[test]
    fn the_variant_of_evaluations_is_known() {
        let session = veilmatch_domain::SessionId([0; 32]);
        let message = ToHolder::Evaluations { session, groups: Vec::new() };
        assert_eq!(borsh::to_vec(&message).unwrap()[0], EVALUATIONS);
    }

    #[test]
    fn close_neighbours_are_left_to_chance() {
        let dim = Dimension::new(16).unwrap();
        let people = people(3, dim).unwrap();
        let probe = &people[1].1;
        assert_eq!(nearest(&people, probe, 0.4, 0.001).unwrap(), Some(Some(people[1].0.clone())));
        assert_eq!(nearest(&people, probe, 0.4, 2.0).unwrap(), None);
        assert!(key_size("2048").is_ok() && key_size("1024").is_err());
    }
}
