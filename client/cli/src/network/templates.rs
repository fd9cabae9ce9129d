//! `veilmatch templates`: what is stored in a collection.

use clap::Subcommand;
use serde::Serialize;
use veilmatch_domain::SubjectId;
use veilmatch_sdk::{TemplateInfo, TemplateState};

use super::{Answer, InCollection, Output, Session, finish};
use crate::exit::{CliError, Verdict};
use crate::report::{bytes, table};
use crate::services::stopped;

const EXAMPLES: &str = "\
Examples:
  veilmatch templates list
  veilmatch templates list --limit 50 --after person-0049
  veilmatch templates list --collection lfw --limit 1000000 --json";

/// Most templates that are asked for at once.
const PAGE: u32 = 1000;

/// What to do with templates.
#[derive(Debug, Subcommand)]
pub enum Templates {
    /// List who is stored, by id
    #[command(after_help = EXAMPLES)]
    List {
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Begin after this page: `next` of an earlier call
        #[arg(long, value_name = "TOKEN")]
        after: Option<String>,
        /// The collection.
        #[command(flatten)]
        collection: InCollection,
        /// The report.
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Serialize)]
struct Listed {
    collection: String,
    templates: Vec<Line>,
    /// What `--after` continues with.
    next: Option<String>,
}

#[derive(Serialize)]
struct Line {
    subject: String,
    digest: String,
    searchable: bool,
    sealed_bytes: u64,
}

impl From<TemplateInfo> for Line {
    fn from(info: TemplateInfo) -> Self {
        Self {
            subject: SubjectId::to_string(&info.subject),
            digest: info.digest.to_string(),
            searchable: info.state == TemplateState::Indexed,
            sealed_bytes: info.sealed_bytes,
        }
    }
}

impl Answer for Listed {
    fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .templates
            .iter()
            .map(|line| {
                let state = if line.searchable { "searchable" } else { "pending" };
                vec![line.subject.clone(), line.digest.clone(), state.into(), bytes(line.sealed_bytes)]
            })
            .collect();
        let more = self.next.as_ref().map(|next| format!("\nmore with --after {next}")).unwrap_or_default();
        format!("{}{more}\n", table(&["subject", "digest", "state", "sealed"], &[3], &rows))
    }
}

pub(super) async fn run(session: &Session<'_>, what: &Templates) -> Result<Verdict, CliError> {
    let Templates::List { limit, after, collection, output } = what;
    let profile = session.profile()?;
    let collection = session.collection(&profile, collection).await?;
    let mut listed = Listed { collection: collection.name().to_string(), templates: Vec::new(), next: after.clone() };
    loop {
        let left = limit.saturating_sub(listed.templates.len() as u32);
        let page = collection.templates(left.min(PAGE), listed.next.as_deref()).await.map_err(stopped)?;
        let (empty, next) = (page.items.is_empty(), page.next);
        listed.templates.extend(page.items.into_iter().map(Line::from));
        listed.next = next;
        if empty || listed.next.is_none() || listed.templates.len() as u32 >= *limit {
            return finish(&listed, output.json);
        }
    }
}
