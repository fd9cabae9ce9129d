//! `veilmatch audit`: the key holders' logs of openings, over the network or in a folder.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use tonic::{Request, Streaming};
use veilmatch_domain::{Explain, Party, Status};
use veilmatch_holder::AuditEntry;
use veilmatch_keyholder::audit_file;
use veilmatch_secret::Digest;
use veilmatch_transport::Name;
use veilmatch_wire::v1::{AuditEntries, AuditRequest};

use super::{Answer, Output, Session, finish, holder};
use crate::exit::{CliError, Verdict};
use crate::operator::{Operator, ended};
use crate::report::{count, table};

const SHOW_EXAMPLES: &str = "\
Examples:
  veilmatch audit show --holder k0
  veilmatch audit show --holder k0 --from 0 --limit 20 --json
  veilmatch audit show --folder /var/lib/veilmatch/audit

Without --from the last --limit entries are shown. Over the network it needs an
operator's certificate in the profile.";

const VERIFY_EXAMPLES: &str = "\
Examples:
  veilmatch audit verify
  veilmatch audit verify --holder k1
  veilmatch audit verify --folder /var/lib/veilmatch/audit --expect 1041:9f86d081884c7d65...

Every entry's hash and its place in the chain are checked. A chain proves order
and completeness only up to a head that was kept elsewhere: write the printed
head down, and give it as --expect the next time. Exit code 3 if the chain is
broken or the expected head is not in it.";

/// Entries that are asked for at once.
const PAGE: u64 = 10_000;

/// What to do with an audit log.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Print entries, one a line
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// Where from.
        #[command(flatten)]
        log: OneLog,
        /// The first entry, counted from 0
        #[arg(long, value_name = "N")]
        from: Option<u64>,
        /// Most entries
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        /// The report.
        #[command(flatten)]
        output: Output,
    },
    /// Check the chain of every entry
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify {
        /// The key holder: k0, k1 or k2; by default all three
        #[arg(long, value_name = "HOLDER", value_parser = holder)]
        holder: Option<Party>,
        /// A folder with the log, instead of the network
        #[arg(long, value_name = "FOLDER", conflicts_with = "holder")]
        folder: Option<PathBuf>,
        /// A head that was seen earlier: number and hash of an entry
        #[arg(long, value_name = "NUMBER:HASH", value_parser = head)]
        expect: Option<(u64, Digest)>,
        /// The report.
        #[command(flatten)]
        output: Output,
    },
}

/// One log.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct OneLog {
    /// The key holder: k0, k1 or k2
    #[arg(long, value_name = "HOLDER", value_parser = holder)]
    pub holder: Option<Party>,
    /// A folder with the log, instead of the network
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
}

fn head(text: &str) -> Result<(u64, Digest), String> {
    let wrong = || String::from("not a number, a colon and 64 hexadecimal digits");
    let (number, hash) = text.split_once(':').ok_or_else(wrong)?;
    if hash.len() != 64 || !hash.is_ascii() {
        return Err(wrong());
    }
    let mut bytes = [0u8; 32];
    for (byte, digits) in bytes.iter_mut().zip(hash.as_bytes().as_chunks::<2>().0) {
        let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
    }
    Ok((number.parse().map_err(|_| wrong())?, Digest(bytes)))
}

fn hexadecimal(digest: &Digest) -> String {
    digest.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is wrong with a log that came over the network.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum LogError {
    #[error("key holder {party} sent an entry that cannot be read, after {after} sound ones")]
    Unreadable { party: Party, after: u64 },
    #[error("the chain of key holder {party}'s log breaks at entry {sequence}")]
    Broken { party: Party, sequence: u64 },
    #[error("key holder {party} announced {announced} entries and sent {sent}")]
    Short { party: Party, announced: u64, sent: u64 },
    #[error("entry {sequence} of key holder {party}'s log does not have the expected hash")]
    Rewritten { party: Party, sequence: u64 },
}

impl Explain for LogError {
    fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "audit-unreadable",
            Self::Broken { .. } => "audit-broken",
            Self::Short { .. } => "audit-short",
            Self::Rewritten { .. } => "audit-rewritten",
        }
    }
    fn status(&self) -> Status {
        Status::DataLoss
    }
    fn advice(&self) -> &'static str {
        "stop asking this key holder; compare its log with the two others' and with copies that were kept elsewhere"
    }
}

#[derive(Serialize)]
struct Shown {
    entries: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    sequence: u64,
    /// Seconds since the Unix epoch.
    time: u64,
    session: String,
    event: String,
    hash: String,
    #[serde(skip)]
    text: String,
}

impl From<AuditEntry> for Line {
    fn from(entry: AuditEntry) -> Self {
        Self {
            sequence: entry.sequence,
            time: entry.time.0,
            session: entry.session.to_string(),
            event: entry.event.to_string(),
            hash: hexadecimal(&entry.hash),
            text: entry.to_string(),
        }
    }
}

impl Answer for Shown {
    fn text(&self) -> String {
        self.entries.iter().map(|line| format!("{}\n", line.text)).collect()
    }
}

#[derive(Serialize)]
struct Checked {
    logs: Vec<Log>,
}

#[derive(Serialize)]
struct Log {
    log: String,
    entries: u64,
    /// `NUMBER:HASH` of the last entry.
    head: Option<String>,
}

impl Log {
    fn new(log: String, entries: u64, head: Option<(u64, Digest)>) -> Self {
        Self { log, entries, head: head.map(|(sequence, hash)| format!("{sequence}:{}", hexadecimal(&hash))) }
    }
}

impl Answer for Checked {
    fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .logs
            .iter()
            .map(|log| vec![log.log.clone(), count(log.entries), log.head.clone().unwrap_or_default()])
            .collect();
        table(&["log", "sound entries", "head: keep it elsewhere"], &[1], &rows) + "\n"
    }
}

pub(super) async fn run(session: &Session<'_>, what: &Audit) -> Result<Verdict, CliError> {
    match what {
        Audit::Show { log: OneLog { holder, folder }, from, limit, output } => {
            let mut entries = Vec::new();
            if let Some(folder) = folder {
                show_folder(folder, *from, *limit, &mut entries)?;
            } else if let Some(party) = *holder {
                let operator = session.profile()?.operator()?;
                let stored = operator.status(party).await?.audit_entries;
                let from = from.unwrap_or_else(|| stored.saturating_sub(*limit));
                let mut log = Reader::new(&operator, party);
                while (entries.len() as u64) < *limit {
                    let before = entries.len() as u64;
                    let ask = (limit - before).min(PAGE);
                    log.page(from.saturating_add(before), ask, |entry| {
                        entries.push(Line::from(entry));
                        Ok(())
                    })
                    .await?;
                    if entries.len() as u64 == before {
                        break;
                    }
                }
            }
            finish(&Shown { entries }, output.json)
        }
        Audit::Verify { holder: _, folder: Some(folder), expect, output } => {
            let summary = audit_file::verify(folder, *expect).map_err(CliError::protocol)?;
            let log = Log::new(folder.display().to_string(), summary.entries, summary.head);
            finish(&Checked { logs: vec![log] }, output.json)
        }
        Audit::Verify { holder, folder: None, expect, output } => {
            let operator = session.profile()?.operator()?;
            let parties = holder.map_or_else(|| Party::ALL.to_vec(), |party| vec![party]);
            let mut logs = Vec::new();
            for party in parties {
                logs.push(verify(session, &operator, party, *expect).await?);
            }
            finish(&Checked { logs }, output.json)
        }
    }
}

fn show_folder(folder: &Path, from: Option<u64>, limit: u64, lines: &mut Vec<Line>) -> Result<(), CliError> {
    let from = match from {
        Some(from) => from,
        None => {
            let summary = audit_file::verify(folder, None).map_err(CliError::protocol)?;
            summary.entries.saturating_sub(limit)
        }
    };
    let entries = audit_file::read_from(folder, from).map_err(CliError::protocol)?;
    for entry in entries.take(usize::try_from(limit).unwrap_or(usize::MAX)) {
        lines.push(entry.map_err(CliError::protocol)?.into());
    }
    Ok(())
}

/// Reads everything that the holder announces and checks it entry by entry.
async fn verify(
    session: &Session<'_>,
    operator: &Operator,
    party: Party,
    expect: Option<(u64, Digest)>,
) -> Result<Log, CliError> {
    let announced = operator.status(party).await?.audit_entries;
    let bar = session.progress.stage("checking the log", usize::try_from(announced).unwrap_or(usize::MAX));
    let mut chain = Chain { party, previous: None, expect, met: expect.is_none() };
    let mut log = Reader::new(operator, party);
    while chain.length() < announced {
        let before = chain.length();
        log.page(before, PAGE.min(announced - before), |entry| chain.push(entry)).await?;
        if chain.length() == before {
            return Err(CliError::protocol(LogError::Short { party, announced, sent: before }));
        }
        bar.reach(usize::try_from(chain.length()).unwrap_or(usize::MAX));
    }
    chain.end().map_err(CliError::protocol)
}

/// The sound beginning of a log.
struct Chain {
    party: Party,
    previous: Option<AuditEntry>,
    expect: Option<(u64, Digest)>,
    /// Whether the expected entry was there.
    met: bool,
}

impl Chain {
    fn length(&self) -> u64 {
        self.previous.as_ref().map_or(0, |entry| entry.sequence.saturating_add(1))
    }

    fn push(&mut self, entry: AuditEntry) -> Result<(), LogError> {
        let party = self.party;
        if !entry.follows(self.previous.as_ref()) {
            return Err(LogError::Broken { party, sequence: self.length() });
        }
        if let Some((sequence, hash)) = self.expect.filter(|(sequence, _)| *sequence == entry.sequence) {
            if hash != entry.hash {
                return Err(LogError::Rewritten { party, sequence });
            }
            self.met = true;
        }
        self.previous = Some(entry);
        Ok(())
    }

    fn end(self) -> Result<Log, LogError> {
        match self.expect {
            Some((sequence, _)) if !self.met => Err(LogError::Rewritten { party: self.party, sequence }),
            _ => {
                let entries = self.length();
                let head = self.previous.map(|entry| (entry.sequence, entry.hash));
                Ok(Log::new(format!("key holder {}", self.party), entries, head))
            }
        }
    }
}

/// Pages of a holder's log.
struct Reader<'a> {
    operator: &'a Operator,
    party: Party,
    read: u64,
}

impl<'a> Reader<'a> {
    fn new(operator: &'a Operator, party: Party) -> Self {
        Self { operator, party, read: 0 }
    }

    async fn page(
        &mut self,
        from_sequence: u64,
        limit: u64,
        mut each: impl FnMut(AuditEntry) -> Result<(), LogError>,
    ) -> Result<(), CliError> {
        let refused = |status: tonic::Status| ended(&Name::Holder(self.party), &status);
        let request = Request::new(AuditRequest { from_sequence, limit });
        let mut pages: Streaming<AuditEntries> =
            self.operator.holder(self.party).audit(request).await.map_err(refused)?.into_inner();
        let mut left = limit;
        while let Some(page) = pages.message().await.map_err(refused)? {
            for bytes in page.entry {
                let unreadable = LogError::Unreadable { party: self.party, after: self.read };
                // More than was asked for is not read.
                let Some(rest) = left.checked_sub(1) else { return Ok(()) };
                let entry = borsh::from_slice(&bytes).map_err(|_| CliError::protocol(unreadable))?;
                each(entry).map_err(CliError::protocol)?;
                left = rest;
                self.read += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use veilmatch_domain::{Epoch, SessionId, Timestamp};
    use veilmatch_holder::AuditEvent;

    fn log(length: u32) -> Vec<AuditEntry> {
        let mut entries: Vec<AuditEntry> = Vec::new();
        for i in 0..length {
            let event = AuditEvent::Ceremony { epoch: Epoch(i) };
            entries.push(AuditEntry::after(entries.last(), Timestamp(9), SessionId([0; 32]), event));
        }
        entries
    }

    fn check(entries: Vec<AuditEntry>, expect: Option<(u64, Digest)>) -> Result<Log, LogError> {
        let mut chain = Chain { party: Party::K1, previous: None, expect, met: expect.is_none() };
        entries.into_iter().try_for_each(|entry| chain.push(entry))?;
        chain.end()
    }

    #[test]
    fn a_chain_is_sound_up_to_its_head_and_no_entry_can_change_or_go() {
        let entries = log(4);
        let last = (3, entries[3].hash);
        let sound = check(entries.clone(), Some(last)).unwrap();
        assert_eq!((sound.entries, head(&sound.head.unwrap())), (4, Ok(last)));
        let mut changed = entries.clone();
        changed[2].time = Timestamp(10);
        assert_eq!(check(changed, None).err(), Some(LogError::Broken { party: Party::K1, sequence: 2 }));
        let mut gap = entries.clone();
        gap.remove(1);
        assert_eq!(check(gap, None).err(), Some(LogError::Broken { party: Party::K1, sequence: 1 }));
        let expect = Some((1, Digest([7; 32])));
        let rewritten = LogError::Rewritten { party: Party::K1, sequence: 1 };
        assert_eq!(check(entries.clone(), expect).err(), Some(rewritten));
        let shorter = LogError::Rewritten { party: Party::K1, sequence: 3 };
        assert_eq!(check(entries[..3].to_vec(), Some(last)).err(), Some(shorter));
    }

    #[test]
    fn heads_are_written_as_they_are_read() {
        for bad in ["", "7", "7:", "x:00", "7:00", &format!("7:{}", "g".repeat(64)), &format!("-1:{}", "0".repeat(64))]
        {
            assert!(head(bad).is_err(), "{bad}");
        }
        assert_eq!(head(&format!("7:{}", "ab".repeat(32))), Ok((7, Digest([0xab; 32]))));
    }
}
