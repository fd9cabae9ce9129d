//! The commands that ask a deployment, one file each, over `veilmatch-sdk` and the operator's connections.

mod allow_restore;
mod audit;
mod ceremony;
mod clients;
mod collections;
mod enroll;
mod erase;
mod identify;
mod info;
mod policy;
mod templates;
mod unlock;
mod verify;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Subcommand};
use serde::Serialize;
use veilmatch_domain::{CollectionId, Embedding, Explain, ModelDigest, Party, Threshold};
use veilmatch_sdk::{Collection, Veilmatch};

use crate::exit::{CliError, Verdict};
use crate::input;
use crate::photos::{self, PhotoOptions};
use crate::profile::ProfileFile;
use crate::report::Progress;
use crate::services::stopped;
use crate::space::SpaceArguments;

/// The commands that ask a deployment.
#[derive(Debug, Subcommand)]
pub enum Network {
    /// Seal and enrol one person, or many
    #[command(after_help = enroll::EXAMPLES)]
    Enroll(enroll::EnrollArguments),
    /// Ask whether a probe is the claimed person: exit code 0 for yes, 1 for no
    #[command(after_help = verify::EXAMPLES)]
    Verify(verify::VerifyArguments),
    /// Search a collection for a probe: exit code 0 if there is a match, 1 if not
    #[command(after_help = identify::EXAMPLES)]
    Identify(identify::IdentifyArguments),
    /// Forget a person
    #[command(after_help = erase::EXAMPLES)]
    Erase(erase::EraseArguments),
    /// Version, key epoch and connections of the matcher
    #[command(after_help = info::EXAMPLES)]
    Info(info::InfoArguments),
    /// List, show and create collections
    #[command(subcommand)]
    Collections(collections::Collections),
    /// What is stored in a collection
    #[command(subcommand)]
    Templates(templates::Templates),
    /// Make signing keys; register and revoke clients
    #[command(subcommand)]
    Clients(clients::Clients),
    /// Let a person verify again who was locked after failures
    #[command(after_help = unlock::EXAMPLES)]
    Unlock(unlock::UnlockArguments),
    /// Let a lost key holder be made again from the two others
    #[command(after_help = allow_restore::EXAMPLES)]
    AllowRestore(allow_restore::AllowRestoreArguments),
    /// Hold a key ceremony: all three key holders begin a new key epoch
    #[command(after_help = ceremony::EXAMPLES)]
    Ceremony(ceremony::CeremonyArguments),
    /// Read and check the key holders' logs of openings
    #[command(subcommand)]
    Audit(audit::Audit),
}

/// Which collection.
#[derive(Clone, Debug, Args)]
pub struct InCollection {
    /// The collection; by default the profile's
    #[arg(long, value_name = "NAME")]
    pub collection: Option<CollectionId>,
}

/// How the answer is printed.
#[derive(Clone, Debug, Args)]
pub struct Output {
    /// Write one JSON object to standard output and nothing else
    #[arg(long)]
    pub json: bool,
}

/// One embedding, or photos of one person.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("probe").required(true).args(["photos", "embedding"]))]
pub struct OneEmbedding {
    /// A photo of the person, or several, whose templates are fused; a folder stands for the photos in it
    #[arg(value_name = "PHOTO")]
    pub photos: Vec<PathBuf>,
    /// A matrix of float16 or float32, one unit vector per row
    #[arg(long, value_name = "F.npy")]
    pub embedding: Option<PathBuf>,
    /// Which of its rows, counted from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub row: usize,
    /// Scale an embedding of any length to unit length instead of refusing it
    #[arg(long)]
    pub normalize: bool,
    /// How photos become templates.
    #[command(flatten)]
    pub options: PhotoOptions,
    /// What is done to embeddings.
    #[command(flatten)]
    pub space: SpaceArguments,
}

/// A probe, and what is known of its model.
struct Probe {
    embedding: Embedding,
    /// The threshold that the model suggests, if it is a photo's and nothing else was done to it.
    usual: Option<Threshold>,
    /// Its model with map and rotation, if it is known.
    model: Option<ModelDigest>,
}

impl OneEmbedding {
    fn read(&self, progress: &Progress) -> Result<Probe, CliError> {
        let space = self.space.read()?;
        if let Some(file) = &self.embedding {
            let embedding = input::embedding(file, self.row, self.normalize)?;
            let model = self.options.named_model()?.map(|model| space.model(model));
            return Ok(Probe { embedding: space.apply(embedding)?, usual: None, model });
        }
        let extractor = self.options.extractor(0)?;
        let probe = photos::probe(&extractor, &self.photos, progress)?;
        // A map changes scores; a rotation does not.
        let usual = photos::usual_threshold(&extractor).filter(|_| !space.is_mapped());
        let model = Some(space.model(extractor.embedder().model()));
        Ok(Probe { embedding: space.apply(probe)?, usual, model })
    }
}

/// The same collection, for embeddings of this model if it is known.
fn of_model(collection: Collection, model: Option<ModelDigest>) -> Collection {
    match model {
        Some(model) => collection.of_model(model),
        None => collection,
    }
}

/// The parties that an administrator's request is sent to.
#[derive(Clone, Debug, Args)]
pub struct At {
    /// Send it to this party alone: where each key holder obeys an administrator of its own, each sends its own request.
    /// May be given several times; by default everybody whom it concerns
    #[arg(long = "at", value_name = "PARTY", value_enum)]
    pub at: Vec<AtParty>,
}

/// A party, as an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AtParty {
    /// Key holder 0.
    K0,
    /// Key holder 1.
    K1,
    /// Key holder 2.
    K2,
    /// The matcher.
    Matcher,
}

impl At {
    fn includes(&self, party: AtParty) -> bool {
        self.at.is_empty() || self.at.contains(&party)
    }

    fn holders(&self) -> Vec<Party> {
        [(AtParty::K0, Party::K0), (AtParty::K1, Party::K1), (AtParty::K2, Party::K2)]
            .into_iter()
            .filter(|(name, _)| self.includes(*name))
            .map(|(_, party)| party)
            .collect()
    }

    fn matcher(&self) -> bool {
        self.includes(AtParty::Matcher)
    }

    /// Who was asked, for reports.
    fn names(&self, with_matcher: bool) -> Vec<String> {
        let mut names: Vec<String> = self.holders().iter().map(Party::to_string).collect();
        if with_matcher && self.matcher() {
            names.push(String::from("matcher"));
        }
        names
    }
}

/// A key holder, as an option's value.
fn holder(text: &str) -> Result<Party, String> {
    match text {
        "k0" => Ok(Party::K0),
        "k1" => Ok(Party::K1),
        "k2" => Ok(Party::K2),
        _ => Err(String::from("none of k0, k1, k2")),
    }
}

fn threshold(text: &str) -> Result<Threshold, String> {
    let number: f64 = text.parse().map_err(|_| String::from("not a number"))?;
    Threshold::new(number).map_err(|e| e.to_string())
}

/// What a command has found out.
trait Answer: Serialize {
    /// What people read, with a final line break.
    fn text(&self) -> String;
    /// How it ends.
    fn verdict(&self) -> Verdict {
        Verdict::Agrees
    }
}

fn finish(answer: &impl Answer, json: bool) -> Result<Verdict, CliError> {
    let mut out = std::io::stdout().lock();
    let written = if json {
        serde_json::to_string(answer).map_err(Into::into).and_then(|text| writeln!(out, "{text}"))
    } else {
        out.write_all(answer.text().as_bytes())
    };
    written.and_then(|()| out.flush()).map_err(CliError::Output)?;
    Ok(answer.verdict())
}

/// Runs one of the commands.
///
/// # Errors
/// [`CliError`].
pub fn run(command: &Network, profile: Option<&Path>, progress: &Progress) -> Result<Verdict, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::Output)?;
    let session = Session { profile: profile.map(Path::to_owned), progress };
    runtime.block_on(async {
        match command {
            Network::Enroll(arguments) => enroll::run(&session, arguments).await,
            Network::Verify(arguments) => verify::run(&session, arguments).await,
            Network::Identify(arguments) => identify::run(&session, arguments).await,
            Network::Erase(arguments) => erase::run(&session, arguments).await,
            Network::Info(arguments) => info::run(&session, arguments).await,
            Network::Collections(what) => collections::run(&session, what).await,
            Network::Templates(what) => templates::run(&session, what).await,
            Network::Clients(what) => clients::run(&session, what).await,
            Network::Unlock(arguments) => unlock::run(&session, arguments).await,
            Network::AllowRestore(arguments) => allow_restore::run(&session, arguments).await,
            Network::Ceremony(arguments) => ceremony::run(&session, arguments).await,
            Network::Audit(what) => audit::run(&session, what).await,
        }
    })
}

/// What every command works with.
struct Session<'a> {
    profile: Option<PathBuf>,
    progress: &'a Progress,
}

impl Session<'_> {
    fn profile(&self) -> Result<ProfileFile, CliError> {
        Ok(ProfileFile::find(self.profile.as_deref())?)
    }

    async fn connect(&self, profile: &ProfileFile) -> Result<Veilmatch, CliError> {
        Veilmatch::connect(profile.options()?).await.map_err(stopped)
    }

    /// The collection that is asked for, or the profile's.
    async fn collection(&self, profile: &ProfileFile, asked: &InCollection) -> Result<Collection, CliError> {
        let name = profile.collection(asked.collection.as_ref().map(CollectionId::as_str))?;
        Veilmatch::prepare(profile.options()?).and_then(|veilmatch| veilmatch.collection(&name)).map_err(stopped)
    }
}

/// Input that is wrong in itself, as far as files and arguments can tell.
fn bad_input(error: impl Explain + Send + Sync + 'static) -> CliError {
    CliError::Arguments(Box::new(error))
}
