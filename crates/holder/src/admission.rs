//! Admission of sealed templates: signature, equality of copies, unit norm (DESIGN 3.2, 3.3).
//!
//! Who sees what: each holder reads its two parts, which are uniform; the comparison runs on shares, and per template
//! one bit is opened, "fits" or "does not fit", to the holders. Nothing is remembered before the matcher commits, and
//! it commits only if all three holders accept.

use borsh::{BorshDeserialize, BorshSerialize};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::io;

use veilmatch_domain::{
    ClientId, CollectionId, Epoch, Purpose, Role, SessionId, SubjectId, Suspect, TemplateDigest, Timestamp,
};
use veilmatch_glwe::{FromHolder, MAX_ADMISSION, Verdict};
use veilmatch_mpc::{Inbox, NormBounds, norm_inputs, read_norm};
use veilmatch_sealed::{COORDINATE_SCALE, SealedTemplate};
use veilmatch_secret::{Digest, Label, Seed};

use crate::audit::AuditEvent;
use crate::handshake::{Agreed, Handshake, SharedParts};
use crate::record::{Key, Record, Signer};
use crate::registry::{Superseded, check_dimension, check_model};
use crate::run::{Run, Running, Wanted};
use crate::state::{Channel, State};
use crate::unseal::OpenedTemplate;
use crate::work::{Done, ReadTemplate};
use crate::{HolderError, error::Speaker};

const VERDICTS: u32 = 2;
const MERGED: u32 = 3;
/// Longest lifetime of an enrolment or a probe, in seconds: so long its nonce is remembered.
pub(crate) const REQUEST_SECONDS: u64 = 3600;
/// First step of the norm check, in admissions and queries.
pub(crate) const NORM: u32 = 16;

/// A template that will be admitted.
#[derive(BorshSerialize, BorshDeserialize)]
struct Candidate {
    subject: SubjectId,
    digest: TemplateDigest,
    client: ClientId,
    nonce: [u8; 16],
    expires: Timestamp,
}

/// One item: what it would become, and the parts that this holder read.
struct Item {
    verdict: Result<(), HolderError>,
    candidate: Option<Candidate>,
    opened: Option<OpenedTemplate>,
}

enum Phase {
    /// The templates are being read.
    Computing(u64),
    Handshake(Handshake),
    Verdicts(Box<Agreed>),
    /// The votes are counted; the holders compare the result, or one that votes differently towards its two peers
    /// would have them check different templates.
    Merged(Box<Agreed>, Digest),
    Norm {
        run: Run,
        checked: Vec<usize>,
    },
    AwaitingCommit,
}

/// The session.
pub(crate) struct Admission {
    pub(crate) channel: Channel,
    attempt: u64,
    collection: CollectionId,
    items: Vec<Item>,
    phase: Phase,
}

impl Admission {
    pub(crate) fn start(
        state: &mut State,
        channel: Channel,
        attempt: u64,
        collection: CollectionId,
        templates: Vec<Vec<u8>>,
    ) -> Result<Self, HolderError> {
        if templates.is_empty() || templates.len() > MAX_ADMISSION {
            return Err(HolderError::BatchSize { found: templates.len(), allowed: MAX_ADMISSION });
        }
        let dimension = state.registry.dimension(&collection)?;
        let session = channel.session;
        let reader = state.template_reader()?;
        let wanted = collection.clone();
        // Opening is the slow part and independent per template.
        let ticket = state.hand_out(session, move || {
            let read = |bytes: &Vec<u8>| {
                let sealed = SealedTemplate::from_bytes(bytes)?;
                let associated = sealed.associated();
                if associated.purpose.enrols().is_none() {
                    return Err(HolderError::WrongUse { what: "purpose" });
                }
                if associated.collection != wanted {
                    return Err(HolderError::WrongUse { what: "collection" });
                }
                check_dimension(associated.dimension, dimension)?;
                reader.read(&sealed, &session)
            };
            let label = Label::new("veilmatch/admission/request").bytes(wanted.as_str().as_bytes());
            let request = templates.iter().fold(label, |l, t| l.bytes(t)).digest();
            Done::Templates(templates.par_iter().map(read).collect(), request)
        });
        Ok(Self { channel, attempt, collection, items: Vec::new(), phase: Phase::Computing(ticket) })
    }

    /// The ticket of the work that is out.
    pub(crate) fn computing(&self) -> Option<u64> {
        if let Phase::Computing(ticket) = self.phase { Some(ticket) } else { None }
    }

    /// The templates are read: reserve their subjects and begin the handshake.
    pub(crate) fn worked(&mut self, state: &mut State, done: Done) -> Result<(), HolderError> {
        let session = self.channel.session;
        let Done::Templates(templates, request) = done else { return Err(HolderError::OutOfTurn(session)) };
        let mut shared = SharedParts { with_next: Vec::new(), with_previous: Vec::new() };
        for read in templates {
            let none = [Digest([0; 32]); 2];
            let (item, [own, next]) = match read.and_then(|read| self.take(state, read)) {
                Ok((candidate, read)) => {
                    (Item { verdict: Ok(()), candidate: Some(candidate), opened: Some(read.opened) }, read.parts)
                }
                Err(error) => (Item { verdict: Err(error), candidate: None, opened: None }, none),
            };
            shared.with_previous.push(own);
            shared.with_next.push(next);
            self.items.push(item);
        }
        let mut contribution = [0u8; 32];
        state.entropy.fill_bytes(&mut contribution);
        let private = Seed::random(state.entropy.as_mut());
        let handshake = Handshake::start(state, &mut self.channel, request, contribution, private, shared)?;
        self.phase = Phase::Handshake(handshake);
        Ok(())
    }

    /// Checks one template against the registry as it is now and reserves its subject.
    fn take(&self, state: &mut State, read: ReadTemplate) -> Result<(Candidate, ReadTemplate), HolderError> {
        let associated = &read.associated;
        let subject = associated.purpose.enrols().ok_or(HolderError::WrongUse { what: "purpose" })?;
        state.registry.authorise(&associated.client, Role::Enroll, &self.collection)?;
        // Whoever takes a template's place does away with the old one.
        let supersedes = matches!(associated.purpose, Purpose::Supersede { .. });
        if supersedes {
            state.registry.authorise(&associated.client, Role::Erase, &self.collection)?;
        }
        let signer = Signer::Client(associated.client.clone());
        state.registry.check_fresh(&signer, &associated.nonce, associated.expires, REQUEST_SECONDS, state.now)?;
        let record = state.registry.collection_mut(&self.collection)?;
        check_model(associated.template_version, record.policy())?;
        if record.is_tombstoned(&read.digest) {
            return Err(HolderError::Replayed);
        }
        record.reserve(subject, self.channel.session, supersedes)?;
        let candidate = Candidate {
            subject: subject.clone(),
            digest: read.digest,
            client: associated.client.clone(),
            nonce: associated.nonce,
            expires: associated.expires,
        };
        Ok((candidate, read))
    }

    pub(crate) fn advance(&mut self, state: &mut State) -> Result<(), HolderError> {
        loop {
            match &mut self.phase {
                Phase::Computing(_) | Phase::AwaitingCommit => return Ok(()),
                Phase::Handshake(handshake) => {
                    let Some(agreed) = handshake.advance(state, &mut self.channel)? else { return Ok(()) };
                    for (item, compared) in self.items.iter_mut().zip(handshake.compare_parts(state.party, &agreed)) {
                        if item.verdict.is_ok() {
                            item.verdict = compared;
                        }
                    }
                    let bits: Vec<bool> = self.items.iter().map(|i| i.verdict.is_ok()).collect();
                    for peer in state.party.peers() {
                        self.channel.send(state, VERDICTS, peer, &bits)?;
                    }
                    self.phase = Phase::Verdicts(Box::new(agreed));
                }
                Phase::Verdicts(_) => {
                    let Some(votes) = self.channel.take_both::<Vec<bool>>(state.party, VERDICTS)? else {
                        return Ok(());
                    };
                    for (vote, peer) in votes.iter().zip(state.party.peers()) {
                        if vote.len() != self.items.len() {
                            return Err(HolderError::Malformed { speaker: Speaker::Peer(peer) });
                        }
                        for (item, accepted) in self.items.iter_mut().zip(vote) {
                            if item.verdict.is_ok() && !accepted {
                                item.verdict = Err(HolderError::RefusedByPeer { by: peer });
                            }
                        }
                    }
                    let label = Label::new("veilmatch/admission/merged").bytes(&self.channel.session.0);
                    let merged = self.items.iter().fold(label, |l, i| l.number(i.verdict.is_ok().into())).digest();
                    for peer in state.party.peers() {
                        self.channel.send(state, MERGED, peer, &merged)?;
                    }
                    if let Phase::Verdicts(agreed) = std::mem::replace(&mut self.phase, Phase::AwaitingCommit) {
                        self.phase = Phase::Merged(agreed, merged);
                    }
                }
                Phase::Merged(agreed, merged) => {
                    let Some(theirs) = self.channel.take_both::<Digest>(state.party, MERGED)? else { return Ok(()) };
                    if theirs.iter().any(|digest| digest != merged) {
                        let [next, previous] = state.party.peers();
                        return Err(HolderError::VotesDiffer { suspect: Suspect::pair(next, previous) });
                    }
                    let checked: Vec<usize> = (0..self.items.len())
                        .filter(|&i| self.items.get(i).is_some_and(|item| item.verdict.is_ok()))
                        .collect();
                    if checked.is_empty() {
                        self.report(state)?;
                        continue;
                    }
                    let parts: Vec<(&[u64], &[u64])> = checked
                        .iter()
                        .filter_map(|&i| self.items.get(i)?.opened.as_ref())
                        .map(|o| (o.own.expose().as_slice(), o.next.expose().as_slice()))
                        .collect();
                    let dimension = parts.first().map_or(0, |(own, _)| own.len());
                    let bounds = NormBounds::unit(COORDINATE_SCALE);
                    let inputs = norm_inputs(state.party, &parts, &bounds);
                    let wanted = Wanted::Norm { templates: checked.len(), dimension };
                    let run = Run::start(state, &mut self.channel, &agreed.seeds, wanted, inputs, NORM)?;
                    self.phase = Phase::Norm { run, checked };
                }
                Phase::Norm { run, checked } => match run.advance(state, &mut self.channel)? {
                    Running::Waiting => return Ok(()),
                    Running::ReadyToOpen(_) => {
                        let event = AuditEvent::NormCheck { templates: checked.len() as u32, probe: None };
                        state.log(self.channel.session, event);
                        run.open(state, &mut self.channel)?;
                    }
                    Running::Done(opened) => {
                        let fits = read_norm(&opened)?;
                        for (&index, fits) in checked.iter().zip(fits) {
                            if let Some(item) = self.items.get_mut(index)
                                && !fits
                            {
                                item.verdict = Err(HolderError::NotUnit);
                            }
                        }
                        self.report(state)?;
                    }
                },
            }
        }
    }

    /// Tells the matcher, drops the opened parts and waits for its word.
    fn report(&mut self, state: &mut State) -> Result<(), HolderError> {
        for item in &mut self.items {
            item.opened = None;
        }
        let verdicts = self
            .items
            .iter()
            .map(|item| match &item.verdict {
                Ok(()) => Verdict::Accepted,
                Err(error) => Verdict::Refused(error.refusal()),
            })
            .collect();
        self.phase = Phase::AwaitingCommit;
        state.saves.push(self.prepared(self.channel.session));
        state.tell_matcher(&FromHolder::Admitted { session: self.channel.session, verdicts })
    }

    /// What this holder promises, as a record: the same at all three.
    pub(crate) fn prepared(&self, session: SessionId) -> Record {
        let accepted: Vec<&Candidate> =
            self.items.iter().filter(|i| i.verdict.is_ok()).filter_map(|i| i.candidate.as_ref()).collect();
        let prepared = (self.attempt, self.channel.epoch, &self.collection, accepted);
        Record::put(&Key::PreparedAdmission(session), &prepared)
    }

    /// The admission that a record holds, prepared as before; returns its attempt number too.
    ///
    /// # Errors
    /// The record cannot be read.
    pub(crate) fn restore(state: &mut State, session: SessionId, value: &[u8]) -> io::Result<(u64, Self)> {
        let (attempt, epoch, collection, accepted): (u64, Epoch, CollectionId, Vec<Candidate>) =
            borsh::from_slice(value)?;
        let record = state.registry.entry(&collection);
        for candidate in &accepted {
            // Two sessions that both promised the same subject cannot be: the second was refused.
            let _ = record.reserve(&candidate.subject, session, true);
        }
        let item = |candidate| Item { verdict: Ok(()), candidate: Some(candidate), opened: None };
        let items = accepted.into_iter().map(item).collect();
        let channel = Channel::new(session, epoch, Inbox::new(session));
        Ok((attempt, Self { channel, attempt, collection, items, phase: Phase::AwaitingCommit }))
    }

    /// Remembers what was accepted. All three holders accepted the same templates, as their votes and the opening say.
    pub(crate) fn commit(&mut self, state: &mut State) -> Result<(), HolderError> {
        let session = self.channel.session;
        if !matches!(self.phase, Phase::AwaitingCommit) {
            return Err(HolderError::OutOfTurn(session));
        }
        let accepted: Vec<Candidate> =
            self.items.drain(..).filter(|item| item.verdict.is_ok()).filter_map(|item| item.candidate).collect();
        let clients: BTreeMap<SubjectId, ClientId> =
            accepted.iter().map(|c| (c.subject.clone(), c.client.clone())).collect();
        let (nonces, admitted): (Vec<_>, Vec<_>) = accepted
            .into_iter()
            .map(|c| ((Signer::Client(c.client), c.nonce, c.expires), (c.subject, c.digest)))
            .unzip();
        let (collection, templates) = (&self.collection, admitted.len() as u32);
        state.registry.use_nonces(session, nonces, state.now);
        let superseded = state.registry.collection_mut(collection)?.admit(collection, session, admitted);
        state.log(session, AuditEvent::Admitted { collection: collection.clone(), templates });
        for Superseded { subject, digest, group } in superseded {
            state.registry.drop_empty_group(collection, group)?;
            state.packets.forget(&digest);
            if let Some(client) = clients.get(&subject).cloned() {
                state.log(session, AuditEvent::Superseded { client, collection: collection.clone(), subject });
            }
        }
        self.release(state, session);
        state.tell_matcher(&FromHolder::Committed { session })
    }

    pub(crate) fn release(&self, state: &mut State, session: SessionId) {
        if let Ok(record) = state.registry.collection_mut(&self.collection) {
            record.release(session);
        }
    }

    /// Whether this holder has promised to commit.
    pub(crate) fn is_prepared(&self) -> bool {
        matches!(self.phase, Phase::AwaitingCommit)
    }

    pub(crate) fn late(&self, state: &State) -> Vec<Suspect> {
        match &self.phase {
            Phase::Computing(_) => Vec::new(),
            Phase::Handshake(_) | Phase::Verdicts(_) | Phase::Merged(..) => self.channel.late(state.party),
            Phase::Norm { run, .. } => run.late(),
            Phase::AwaitingCommit => vec![Suspect::Matcher],
        }
    }
}
