//! `veilmatch unlock`: a person who was locked after failed verifications may try again.

use clap::Args;
use serde::Serialize;
use veilmatch_domain::{CollectionId, SubjectId};
use veilmatch_sealed::Administration;

use super::{Answer, At, InCollection, Output, Session, bad_input, finish};
use crate::exit::{CliError, Verdict};

pub(super) const EXAMPLES: &str = "\
Examples:
  veilmatch unlock --id alice
  veilmatch unlock --id alice --collection staff --at k0

Needs the administrator's key and an operator's certificate in the profile. Ask
first why the verifications failed.";

/// Arguments of `unlock`.
#[derive(Clone, Debug, Args)]
pub struct UnlockArguments {
    /// Whom to unlock
    #[arg(long, value_name = "ID")]
    pub id: SubjectId,
    /// The collection.
    #[command(flatten)]
    pub collection: InCollection,
    /// The parties.
    #[command(flatten)]
    pub at: At,
    /// The report.
    #[command(flatten)]
    pub output: Output,
}

#[derive(Serialize)]
struct Unlocked {
    collection: String,
    subject: String,
    at: Vec<String>,
}

impl Answer for Unlocked {
    fn text(&self) -> String {
        format!("{} may verify in {} again at {}\n", self.subject, self.collection, self.at.join(", "))
    }
}

pub(super) async fn run(session: &Session<'_>, arguments: &UnlockArguments) -> Result<Verdict, CliError> {
    let profile = session.profile()?;
    let name = profile.collection(arguments.collection.collection.as_ref().map(CollectionId::as_str))?;
    let collection = CollectionId::new(name).map_err(bad_input)?;
    let action = Administration::Unlock { collection: collection.clone(), subject: arguments.id.clone() };
    // Lock-out is the key holders' alone.
    profile.operator()?.at_holders(&arguments.at.holders(), &action).await?;
    let unlocked = Unlocked {
        collection: collection.to_string(),
        subject: arguments.id.to_string(),
        at: arguments.at.names(false),
    };
    finish(&unlocked, arguments.output.json)
}
