//! `veilmatch verify`: is the probe the claimed person?

use clap::Args;
use serde::Serialize;
use veilmatch_domain::{SubjectId, Threshold};

use super::{Answer, InCollection, OneEmbedding, Output, Probe, Session, finish, of_model, threshold};
use crate::exit::{CliError, Verdict};
use crate::services::stopped;

pub(super) const EXAMPLES: &str = "\
Examples:
  veilmatch verify --id alice photo.jpg
  veilmatch verify --id alice --embedding probe.npy
  veilmatch verify --id alice --embedding probes.npy --row 3 --threshold 0.5
  veilmatch verify --id alice --embedding probe.npy --json | jq .verified

Every answer counts against the collection's budgets, and every \"no\" in a row
towards the lock-out of the claimed person.";

/// Arguments of `verify`.
#[derive(Clone, Debug, Args)]
pub struct VerifyArguments {
    /// Whom the probe claims to be
    #[arg(long, value_name = "ID")]
    pub id: SubjectId,
    /// The probe.
    #[command(flatten)]
    pub probe: OneEmbedding,
    /// Cosine from which two faces match, -0.9 to 0.9; by default the profile's, else the model's at one false match in
    /// 10,000, else 0.427
    #[arg(long, value_name = "T", value_parser = threshold, allow_negative_numbers = true)]
    pub threshold: Option<Threshold>,
    /// The collection.
    #[command(flatten)]
    pub collection: InCollection,
    /// The report.
    #[command(flatten)]
    pub output: Output,
}

#[derive(Serialize)]
struct Verified {
    collection: String,
    subject: String,
    threshold: f64,
    verified: bool,
}

impl Answer for Verified {
    fn text(&self) -> String {
        let answer = if self.verified { "yes" } else { "no" };
        format!("{answer}: {} in {} at {}\n", self.subject, self.collection, self.threshold)
    }

    fn verdict(&self) -> Verdict {
        if self.verified { Verdict::Agrees } else { Verdict::No }
    }
}

pub(super) async fn run(session: &Session<'_>, arguments: &VerifyArguments) -> Result<Verdict, CliError> {
    let Probe { embedding: probe, usual, model } = arguments.probe.read(session.progress)?;
    let profile = session.profile()?;
    let threshold = profile.threshold_or(arguments.threshold, usual)?;
    let collection = of_model(session.collection(&profile, &arguments.collection).await?, model);
    let verified = collection.verify(arguments.id.as_str(), &probe, threshold).await.map_err(stopped)?;
    let answer = Verified {
        collection: collection.name().to_string(),
        subject: arguments.id.to_string(),
        threshold: threshold.cosine(),
        verified,
    };
    finish(&answer, arguments.output.json)
}
