//! Three holders that evaluate a circuit over the network in memory: the harness of this crate's tests.
//!
//! What a holder sends is sealed by [`Links`], carried by [`Network`], opened, kept in an [`Inbox`] and only then given
//! to [`Evaluation`], as in a real holder. A test can script faults on the network, let a holder cheat in frames that
//! are properly authenticated, shuffle everything that is under way, and hold back a holder's leave to open.

use std::sync::Arc;

use veilmatch_domain::{Party, SessionId};
use veilmatch_secret::Stream;

use crate::sharing::{PairwiseSeeds, test_seeds};
use crate::{Circuit, Delivery, Evaluation, Inbox, Lanes, Links, Network, Outgoing, Progress, ProtocolError, State};

/// The number of the first message, so that nothing relies on 0.
pub(crate) const FIRST_STEP: u32 = 100;

/// One holder.
pub(crate) struct Holder {
    pub(crate) links: Links,
    pub(crate) inbox: Inbox,
    pub(crate) evaluation: Evaluation,
    /// What was opened here.
    pub(crate) opened: Option<Vec<Vec<Lanes>>>,
    /// The first error; afterwards the holder reads nothing more.
    pub(crate) error: Option<ProtocolError>,
    /// Whether it gives leave to open.
    pub(crate) approves: bool,
}

type Cheat = Box<dyn FnMut(Party, &mut Outgoing)>;
type Watch = Box<dyn FnMut(Party, &Evaluation)>;

/// Three holders, one circuit, one session.
pub(crate) struct Meeting {
    pub(crate) network: Network<Party>,
    pub(crate) holders: [Holder; 3],
    pub(crate) session: SessionId,
    /// All messages that evaluations gave out, with their sender, before cheats and faults.
    pub(crate) sent: Vec<(Party, Outgoing)>,
    /// Changes a message before it is sealed.
    pub(crate) cheat: Option<Cheat>,
    /// Looks at an evaluation after every step.
    pub(crate) watch: Option<Watch>,
    /// Picks the next delivery at random.
    pub(crate) disorder: Option<Stream>,
    /// Gives frames to the evaluation as they come and not as they are needed.
    pub(crate) eager: bool,
    begun: Vec<(Party, Progress)>,
}

/// Seeds, session and keys follow from `tag` alone.
pub(crate) fn session(tag: u8) -> SessionId {
    SessionId([tag; 32])
}

impl Meeting {
    /// Holders that have started and not yet sent. `inputs` are their additive shares.
    pub(crate) fn new(circuit: &Arc<Circuit>, inputs: &[Vec<u64>; 3], tag: u8) -> Self {
        let seeds = test_seeds(tag);
        let mut begun = Vec::new();
        let holders = Party::ALL.map(|party| {
            let seeds: &PairwiseSeeds = &seeds[party.index()];
            let shares = inputs[party.index()].clone();
            let (evaluation, progress) =
                Evaluation::start(party, session(tag), seeds, Arc::clone(circuit), shares, FIRST_STEP).unwrap();
            begun.push((party, progress));
            let (links, inbox) = (Links::new(party, seeds), Inbox::new(session(tag)));
            Holder { links, inbox, evaluation, opened: None, error: None, approves: true }
        });
        Self {
            network: Network::new(),
            holders,
            session: session(tag),
            sent: Vec::new(),
            cheat: None,
            watch: None,
            disorder: None,
            eager: false,
            begun,
        }
    }

    pub(crate) fn holder(&mut self, party: Party) -> &mut Holder {
        &mut self.holders[party.index()]
    }

    /// Runs until nothing is under way.
    pub(crate) fn run(&mut self) {
        for (party, progress) in std::mem::take(&mut self.begun) {
            self.follow(party, Ok(progress));
        }
        let mut under_way = Vec::new();
        loop {
            match &mut self.disorder {
                None => under_way.extend(self.network.deliver()),
                Some(stream) => {
                    under_way.extend(std::iter::from_fn(|| self.network.deliver()));
                    if !under_way.is_empty() {
                        let last = under_way.len() - 1;
                        under_way.swap(stream.next_u64() as usize % (last + 1), last);
                    }
                }
            }
            let Some(delivery) = under_way.pop() else { return };
            self.arrive(&delivery);
        }
    }

    fn arrive(&mut self, delivery: &Delivery<Party>) {
        let (party, eager) = (delivery.to, self.eager);
        let holder = self.holder(party);
        if holder.error.is_some() {
            return;
        }
        let read = holder.links.open(delivery.from, &delivery.bytes).and_then(|frame| {
            let place = (frame.from, frame.step);
            holder.inbox.insert(frame).map(|()| place)
        });
        match read {
            Err(error) => holder.error = Some(error),
            Ok((from, step)) if eager => {
                let payload = holder.inbox.take(from, step).unwrap();
                let result = holder.evaluation.receive(from, step, &payload);
                self.follow(party, result);
            }
            Ok(_) => self.feed(party),
        }
    }

    /// Gives a holder everything that it waits for and that has come.
    fn feed(&mut self, party: Party) {
        loop {
            let holder = self.holder(party);
            let Some((from, step, payload)) = holder
                .evaluation
                .waiting_for()
                .into_iter()
                .find_map(|(from, step)| holder.inbox.take(from, step).map(|payload| (from, step, payload)))
            else {
                return;
            };
            let result = holder.evaluation.receive(from, step, &payload);
            self.follow(party, result);
        }
    }

    /// Does what a step led to.
    pub(crate) fn follow(&mut self, party: Party, result: Result<Progress, ProtocolError>) {
        let mut next = result;
        loop {
            if let Some(watch) = &mut self.watch {
                watch(party, &self.holders[party.index()].evaluation);
            }
            let progress = match next {
                Ok(progress) => progress,
                Err(error) => {
                    self.holder(party).error = Some(error);
                    return;
                }
            };
            for mut message in progress.send {
                self.sent.push((party, message.clone()));
                if let Some(cheat) = &mut self.cheat {
                    cheat(party, &mut message);
                }
                let session = self.session;
                let frame = self.holder(party).links.seal(session, message.step, message.to, &message.payload);
                self.network.send(party, message.to, frame);
            }
            let holder = self.holder(party);
            match progress.state {
                State::ReadyToOpen { .. } if holder.approves => next = holder.evaluation.approve_opening(),
                State::Done(opened) => {
                    holder.opened = Some(opened);
                    return;
                }
                State::ReadyToOpen { .. } | State::Waiting => return,
            }
        }
    }

    /// Whether some holder has opened something.
    pub(crate) fn somebody_opened(&self) -> bool {
        self.holders.iter().any(|holder| holder.opened.is_some())
    }

    /// What all three opened.
    pub(crate) fn result(&self) -> Vec<Vec<Lanes>> {
        for (party, holder) in Party::ALL.into_iter().zip(&self.holders) {
            assert_eq!(holder.error, None, "{party}");
            assert!(holder.evaluation.waiting_for().is_empty(), "{party}");
            assert!(holder.opened.is_some(), "{party} has opened nothing");
            assert_eq!(holder.opened, self.holders[0].opened, "{party} and K0 differ");
        }
        self.holders[0].opened.clone().unwrap()
    }
}

/// Random additive shares of values.
pub(crate) fn additive(values: &[u64], stream: &mut Stream) -> [Vec<u64>; 3] {
    let a: Vec<u64> = values.iter().map(|_| stream.next_u64()).collect();
    let b: Vec<u64> = values.iter().map(|_| stream.next_u64()).collect();
    let c = values.iter().zip(a.iter().zip(&b)).map(|(v, (a, b))| v.wrapping_sub(*a).wrapping_sub(*b)).collect();
    [a, b, c]
}

/// What three honest holders open.
pub(crate) fn open_by_three(circuit: Circuit, values: &[u64], tag: u8) -> Vec<Vec<Lanes>> {
    let inputs = additive(values, &mut Stream::public([tag; 32]));
    let mut meeting = Meeting::new(&Arc::new(circuit), &inputs, tag);
    meeting.run();
    meeting.result()
}

/// The bound of a two-sided test at five standard deviations: `hits` of `trials` fair coins.
pub(crate) fn like_coins(hits: usize, trials: usize) -> bool {
    (hits as f64 - trials as f64 / 2.0).abs() <= 5.0 * (trials as f64).sqrt() / 2.0
}
