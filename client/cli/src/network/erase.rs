//! `veilmatch erase`: forget a person.

use clap::Args;
use serde::Serialize;
use veilmatch_domain::SubjectId;

use super::{Answer, InCollection, Output, Session, finish};
use crate::exit::{CliError, Verdict};
use crate::services::stopped;

pub(super) const EXAMPLES: &str = "\
Examples:
  veilmatch erase --id alice
  veilmatch erase --id alice --collection lfw --json

When it returns no decision counts the person any more. It says whether the
ciphertext is gone from the packed index too; if not, that follows by itself.";

/// Arguments of `erase`.
#[derive(Clone, Debug, Args)]
pub struct EraseArguments {
    /// Whom to forget
    #[arg(long, value_name = "ID")]
    pub id: SubjectId,
    /// The collection.
    #[command(flatten)]
    pub collection: InCollection,
    /// The report.
    #[command(flatten)]
    pub output: Output,
}

#[derive(Serialize)]
struct Erased {
    collection: String,
    subject: String,
    complete: bool,
}

impl Answer for Erased {
    fn text(&self) -> String {
        let rest = if self.complete { "the ciphertext is gone" } else { "the ciphertext goes in the background" };
        format!("{} is erased from {}; {rest}\n", self.subject, self.collection)
    }
}

pub(super) async fn run(session: &Session<'_>, arguments: &EraseArguments) -> Result<Verdict, CliError> {
    let profile = session.profile()?;
    let collection = session.collection(&profile, &arguments.collection).await?;
    let erased = collection.erase(arguments.id.as_str()).await.map_err(stopped)?;
    let answer = Erased {
        collection: collection.name().to_string(),
        subject: arguments.id.to_string(),
        complete: erased.complete,
    };
    finish(&answer, arguments.output.json)
}
