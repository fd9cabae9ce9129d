//! `veilmatch collections`: list, show, create.

use clap::Subcommand;
use serde::Serialize;
use veilmatch_domain::{CollectionDescription, CollectionId, Dimension, SchemeName};
use veilmatch_glwe::GLWE_2048_V1;
use veilmatch_paillier::KeySize;
use veilmatch_sdk::CollectionInfo;
use veilmatch_sealed::Administration;

use super::policy::PolicyArguments;
use super::{Answer, At, Output, Session, bad_input, finish};
use crate::dealer;
use crate::exit::{CliError, Verdict};
use crate::report::{count, table};
use crate::services::stopped;
use crate::space::BoundTo;

const LIST_EXAMPLES: &str = "\
Examples:
  veilmatch collections list
  veilmatch collections list --json";

const SHOW_EXAMPLES: &str = "\
Examples:
  veilmatch collections show staff
  veilmatch collections show staff --json";

const CREATE_EXAMPLES: &str = "\
Examples:
  veilmatch collections create staff --dim 512
  veilmatch collections create doors --dim 256 --no-exists --no-best --max-matches 0
  veilmatch collections create staff --dim 512 --per-client 500 --at k1
  veilmatch collections create vault --dim 512 --scheme paillier
  veilmatch collections create staff --dim 256 --model retail0095

Needs the administrator's key and an operator's certificate in the profile.
For a collection that exists it changes the policy; dimension and scheme stay.";

/// What to do with collections.
#[derive(Debug, Subcommand)]
pub enum Collections {
    /// List all collections
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// The report.
        #[command(flatten)]
        output: Output,
    },
    /// Show one collection
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// Its name
        name: CollectionId,
        /// The report.
        #[command(flatten)]
        output: Output,
    },
    /// Create a collection at the key holders and the matcher, or change its policy
    #[command(after_help = CREATE_EXAMPLES)]
    Create {
        /// Its name
        name: CollectionId,
        /// Dimension of its embeddings, 16 to 1024
        #[arg(long, value_name = "D", value_parser = dimension)]
        dim: Dimension,
        /// Scheme: `glwe`, or `paillier`, for which the dealer's ceremony must have been held and the twin must run
        #[arg(long, value_name = "NAME", default_value_t = SchemeName::Glwe)]
        scheme: SchemeName,
        /// Bits of the dealer's key, for the scheme `paillier`: 2048 or 3072
        #[arg(long, value_name = "N", default_value = "2048", value_parser = dealer::key_size)]
        key_bits: KeySize,
        /// Most templates in one packed group; 0 leaves it to the matcher
        #[arg(long, value_name = "N", default_value_t = 0)]
        group_capacity: u32,
        /// The parties.
        #[command(flatten)]
        at: At,
        /// The report.
        #[command(flatten)]
        output: Output,
        /// The model.
        #[command(flatten)]
        bound: Box<BoundTo>,
        /// The policy.
        #[command(flatten)]
        policy: PolicyArguments,
    },
}

fn dimension(text: &str) -> Result<Dimension, String> {
    let number: usize = text.parse().map_err(|_| String::from("not a whole number"))?;
    Dimension::new(number).map_err(|e| e.to_string())
}

#[derive(Serialize)]
struct Line {
    name: String,
    dimension: usize,
    scheme: &'static str,
    parameters: String,
    group_capacity: u32,
    templates: u64,
    pending: u64,
    groups: u64,
    /// Seconds since the Unix epoch.
    created: u64,
}

impl From<CollectionInfo> for Line {
    fn from(info: CollectionInfo) -> Self {
        Self {
            name: info.name.to_string(),
            dimension: info.dimension.get(),
            scheme: info.scheme.as_str(),
            parameters: info.parameters,
            group_capacity: info.group_capacity,
            templates: info.templates,
            pending: info.pending,
            groups: info.groups,
            created: info.created.0,
        }
    }
}

#[derive(Serialize)]
struct Listed {
    collections: Vec<Line>,
}

impl Answer for Listed {
    fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .collections
            .iter()
            .map(|c| {
                let numbers = [c.dimension as u64, c.templates, c.pending, c.groups].map(count);
                [c.name.clone()].into_iter().chain(numbers).chain([c.parameters.clone()]).collect()
            })
            .collect();
        let header = ["collection", "dimension", "templates", "pending", "groups", "parameters"];
        table(&header, &[1, 2, 3, 4], &rows) + "\n"
    }
}

impl Answer for Line {
    fn text(&self) -> String {
        let Self { name, dimension, scheme, parameters, created, .. } = self;
        // What nobody limited, the matcher's planner does.
        let limit = match self.group_capacity {
            0 | u32::MAX => String::new(),
            most => format!(" of at most {most} templates"),
        };
        let [templates, pending, groups] = [self.templates, self.pending, self.groups].map(count);
        format!(
            "collection  {name}\ndimension   {dimension}\ntemplates   {templates}, {pending} of them not searchable yet\n\
             groups      {groups}{limit}\nscheme      {scheme}\nparameters  {parameters}\n\
             created     {created} (seconds since 1970)\n"
        )
    }
}

#[derive(Serialize)]
struct Created {
    name: String,
    dimension: usize,
    at: Vec<String>,
}

impl Answer for Created {
    fn text(&self) -> String {
        format!("{} ({} dimensions) is in force at {}\n", self.name, self.dimension, self.at.join(", "))
    }
}

pub(super) async fn run(session: &Session<'_>, what: &Collections) -> Result<Verdict, CliError> {
    match what {
        Collections::List { output } => {
            let veilmatch = session.connect(&session.profile()?).await?;
            let all = veilmatch.collections().await.map_err(stopped)?;
            finish(&Listed { collections: all.into_iter().map(Line::from).collect() }, output.json)
        }
        Collections::Show { name, output } => {
            let veilmatch = session.connect(&session.profile()?).await?;
            let collection = veilmatch.collection(name.as_str()).map_err(stopped)?;
            finish(&Line::from(collection.info().await.map_err(stopped)?), output.json)
        }
        Collections::Create { name, dim, scheme, key_bits, group_capacity, at, output, bound, policy } => {
            let policy = policy.policy(*dim, *scheme, bound.digest()?).map_err(bad_input)?;
            let parameters = match scheme {
                SchemeName::Glwe => GLWE_2048_V1.name,
                SchemeName::Paillier => key_bits.parameters(),
            };
            let parameters = parameters.parse().map_err(CliError::protocol)?;
            let description = CollectionDescription { parameters, group_capacity: *group_capacity };
            let action = Administration::SetPolicy { collection: name.clone(), policy, description };
            let operator = session.profile()?.operator()?;
            operator.at_holders(&at.holders(), &action).await?;
            if at.matcher() {
                operator.create_collection(action).await?;
            }
            let created = Created { name: name.to_string(), dimension: dim.get(), at: at.names(true) };
            finish(&created, output.json)
        }
    }
}
