//! `veilmatch ceremony`: all three key holders begin a new key epoch.

use clap::Args;
use serde::Serialize;
use veilmatch_domain::{Explain, Party, Status};
use veilmatch_holder::HolderCard;
use veilmatch_keyholder::card;

use super::{Answer, Output, Session, finish};
use crate::exit::{CliError, Verdict};
use crate::report::table;

pub(super) const EXAMPLES: &str = "\
Examples:
  veilmatch ceremony
  veilmatch ceremony --json

Needs the administrator's key and an operator's certificate in the profile, and
all three key holders connected to each other. Each key holder's fingerprint is
compared with its card in the profile. Groups that exist are rebuilt under the
new epoch by the matcher.";

/// Arguments of `ceremony`.
#[derive(Clone, Debug, Args)]
pub struct CeremonyArguments {
    /// The report.
    #[command(flatten)]
    pub output: Output,
}

/// A holder with other keys than its card.
#[derive(Debug, thiserror::Error)]
#[error("key holder {0} does not have the keys of its card in the profile")]
struct OtherKeys(Party);

impl Explain for OtherKeys {
    fn code(&self) -> &'static str {
        "card-differs"
    }
    fn status(&self) -> Status {
        Status::FailedPrecondition
    }
    fn advice(&self) -> &'static str {
        "hold no ceremony; compare fingerprints with the key holder's people by telephone or in person"
    }
}

#[derive(Serialize)]
struct Held {
    key_epoch: u32,
    holders: Vec<Fingerprint>,
}

#[derive(Serialize)]
struct Fingerprint {
    holder: String,
    fingerprint: String,
}

impl Answer for Held {
    fn text(&self) -> String {
        let rows: Vec<Vec<String>> =
            self.holders.iter().map(|h| vec![h.holder.clone(), h.fingerprint.clone()]).collect();
        let table = table(&["key holder", "fingerprint"], &[], &rows);
        format!("{table}\nKey epoch {} has begun at all three key holders.\n", self.key_epoch)
    }
}

pub(super) async fn run(session: &Session<'_>, arguments: &CeremonyArguments) -> Result<Verdict, CliError> {
    let profile = session.profile()?;
    let operator = profile.operator()?;
    let mut holders = Vec::new();
    for party in Party::ALL {
        let expected = profile.card(party)?.fingerprint;
        let status = operator.status(party).await?;
        let card: HolderCard = borsh::from_slice(&status.card).map_err(|_| CliError::protocol(OtherKeys(party)))?;
        if card.party != party || card::fingerprint(&card) != expected {
            return Err(CliError::protocol(OtherKeys(party)));
        }
        holders.push(Fingerprint { holder: party.to_string(), fingerprint: expected });
    }
    let bar = session.progress.stage("key ceremony", 1);
    let epoch = operator.ceremony().await?;
    drop(bar);
    finish(&Held { key_epoch: epoch.0, holders }, arguments.output.json)
}
