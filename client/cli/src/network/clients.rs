//! `veilmatch clients`: signing keys, registration, revocation.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde::Serialize;
use veilmatch_domain::{ClientId, CollectionId, MAX_CLIENT_COLLECTIONS, Roles};
use veilmatch_sdk::{SigningKeyFile, public_key_from_text};
use veilmatch_sealed::{Administration, ClientVerifyingKey};

use super::{Answer, At, Output, Session, bad_input, finish};
use crate::exit::{CliError, Verdict};

const NEW_KEY_EXAMPLES: &str = "\
Examples:
  veilmatch clients new-key --key gate-7.key
  veilmatch clients new-key --key admin.key --json

The public key is what `clients add --key` and the parties' `administrators`
take. A file that exists is never overwritten.";

const ADD_EXAMPLES: &str = "\
Examples:
  veilmatch clients add --id gate-7 --key MCowBQ...= --roles verify,identify
  veilmatch clients add --id desk-1 --key MCowBQ...= --roles enroll,erase --collections staff,guests
  veilmatch clients add --id gate-7 --key MCowBQ...= --roles verify --at k2

Needs the administrator's key and an operator's certificate in the profile.
Repeating it with other roles changes them; the key of an id cannot change.";

const REVOKE_EXAMPLES: &str = "\
Examples:
  veilmatch clients revoke --id gate-7

Nothing new is accepted from it any more. Whom it enrolled stays.";

/// What to do with clients.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "parsed once in the life of a process")]
pub enum Clients {
    /// Draw a signing key, write it to a new file and print its public key
    #[command(after_help = NEW_KEY_EXAMPLES)]
    NewKey {
        /// The file to write, readable by its owner alone
        #[arg(long, value_name = "FILE.key")]
        key: PathBuf,
        /// The report.
        #[command(flatten)]
        output: Output,
    },
    /// Register a client at the key holders and the matcher, or change its roles
    #[command(after_help = ADD_EXAMPLES)]
    Add {
        /// Its id
        #[arg(long, value_name = "ID")]
        id: ClientId,
        /// Its public key, in base64
        #[arg(long, value_name = "BASE64", value_parser = public_key)]
        key: ClientVerifyingKey,
        /// What it may do, separated by commas
        #[arg(long, value_name = "ROLES", value_enum, value_delimiter = ',', required = true)]
        roles: Vec<RoleName>,
        /// In which collections, separated by commas, at most 64; by default in all
        #[arg(long, value_name = "NAMES", value_delimiter = ',')]
        collections: Vec<CollectionId>,
        /// The parties.
        #[command(flatten)]
        at: At,
        /// The report.
        #[command(flatten)]
        output: Output,
    },
    /// Accept nothing new from a client any more
    #[command(after_help = REVOKE_EXAMPLES)]
    Revoke {
        /// Its id
        #[arg(long, value_name = "ID")]
        id: ClientId,
        /// The parties.
        #[command(flatten)]
        at: At,
        /// The report.
        #[command(flatten)]
        output: Output,
    },
}

/// A role, as an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// Enrol people.
    Enroll,
    /// Ask `verify`.
    Verify,
    /// Ask `exists`, `matches` and `best`.
    Identify,
    /// Erase people.
    Erase,
}

fn roles(names: &[RoleName]) -> Roles {
    Roles {
        enroll: names.contains(&RoleName::Enroll),
        verify: names.contains(&RoleName::Verify),
        identify: names.contains(&RoleName::Identify),
        erase: names.contains(&RoleName::Erase),
    }
}

fn public_key(text: &str) -> Result<ClientVerifyingKey, String> {
    public_key_from_text(text).map_err(|e| e.to_string())
}

/// More collections than a client can be limited to.
#[derive(Debug, thiserror::Error)]
#[error("{found} collections; a client can be limited to {MAX_CLIENT_COLLECTIONS}")]
struct TooManyCollections {
    found: usize,
}

impl veilmatch_domain::Explain for TooManyCollections {
    fn code(&self) -> &'static str {
        "too-many-collections"
    }
    fn status(&self) -> veilmatch_domain::Status {
        veilmatch_domain::Status::InvalidArgument
    }
    fn advice(&self) -> &'static str {
        "leave --collections out, or use several clients"
    }
}

#[derive(Serialize)]
struct NewKey {
    file: String,
    public_key: String,
}

impl Answer for NewKey {
    fn text(&self) -> String {
        format!("public key: {}\nsigning key: {} (keep it secret)\n", self.public_key, self.file)
    }
}

#[derive(Serialize)]
struct Registered {
    client: String,
    roles: Vec<String>,
    /// `null` for all.
    collections: Option<Vec<String>>,
    at: Vec<String>,
}

impl Answer for Registered {
    fn text(&self) -> String {
        let place = self.collections.as_ref().map_or_else(|| String::from("all collections"), |names| names.join(", "));
        format!("{} may {} in {place} at {}\n", self.client, self.roles.join(", "), self.at.join(", "))
    }
}

#[derive(Serialize)]
struct Revoked {
    client: String,
    at: Vec<String>,
}

impl Answer for Revoked {
    fn text(&self) -> String {
        format!("{} is revoked at {}\n", self.client, self.at.join(", "))
    }
}

pub(super) async fn run(session: &Session<'_>, what: &Clients) -> Result<Verdict, CliError> {
    match what {
        Clients::NewKey { key, output } => {
            let made = SigningKeyFile::create(key).map_err(bad_input)?;
            finish(&NewKey { file: key.display().to_string(), public_key: made.public_key() }, output.json)
        }
        Clients::Add { id, key, roles: names, collections, at, output } => {
            let limited: BTreeSet<CollectionId> = collections.iter().cloned().collect();
            if limited.len() > MAX_CLIENT_COLLECTIONS {
                return Err(bad_input(TooManyCollections { found: limited.len() }));
            }
            let report = Registered {
                client: id.to_string(),
                roles: names.iter().filter_map(|r| Some(r.to_possible_value()?.get_name().to_owned())).collect(),
                collections: (!limited.is_empty()).then(|| limited.iter().map(CollectionId::to_string).collect()),
                at: at.names(true),
            };
            let collections = (!limited.is_empty()).then_some(limited);
            let action =
                Administration::RegisterClient { client: id.clone(), key: *key, roles: roles(names), collections };
            send(session, at, action).await?;
            finish(&report, output.json)
        }
        Clients::Revoke { id, at, output } => {
            send(session, at, Administration::RevokeClient { client: id.clone() }).await?;
            finish(&Revoked { client: id.to_string(), at: at.names(true) }, output.json)
        }
    }
}

async fn send(session: &Session<'_>, at: &At, action: Administration) -> Result<(), CliError> {
    let operator = session.profile()?.operator()?;
    operator.at_holders(&at.holders(), &action).await?;
    if at.matcher() { operator.at_matcher(action).await } else { Ok(()) }
}
