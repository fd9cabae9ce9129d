//! A deployment that runs: started, ready, with a ceremony held and its client registered.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use veilmatch_domain::{ClientId, CollectionDescription, CollectionId, Party, Policy, Roles, SchemeName};
use veilmatch_glwe::GLWE_2048_V1;
use veilmatch_sdk::{HolderCard, Options, SigningKeyFile, Veilmatch};
use veilmatch_sealed::Administration;
use veilmatch_transport::{Endpoint, Identity, Security, write_public};

use super::deployment::CLIENT;
use super::{Deployment, DeploymentError, Processes};
use crate::exit::CliError;
use crate::operator::Operator;
use crate::services::{scrape, sum};

/// How long the processes may take to find each other.
const START: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// The processes of a deployment and an operator's connections to them.
#[derive(Debug)]
pub struct Running {
    /// The processes.
    pub processes: Processes,
    /// The operator.
    pub operator: Operator,
    deployment: Deployment,
}

impl Running {
    /// Starts the processes, waits until they have found each other, and on the first start holds the key ceremony and
    /// registers the client of the profile.
    ///
    /// # Errors
    /// [`CliError`].
    pub async fn start(program: &Path, deployment: Deployment) -> Result<Self, CliError> {
        let operator = deployment.operator()?;
        let processes = Processes::start(program, &deployment).map_err(CliError::protocol)?;
        let mut running = Self { processes, operator, deployment };
        running.wait_for_holders().await?;
        if !running.deployment.is_founded() {
            if running.operator.epoch().await?.is_none() {
                running.operator.ceremony().await?;
            }
            running.register_client().await?;
            write_public(&running.deployment.founded(), b"The ceremony was held and the client registered.\n")
                .map_err(CliError::protocol)?;
        }
        running.wait_for_matcher().await?;
        running.wait_for_twin().await?;
        Ok(running)
    }

    /// The deployment.
    #[must_use]
    pub fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// Waits until every holder answers and has both peers.
    ///
    /// # Errors
    /// [`CliError`] of the one that does not, or of a process that ended.
    pub async fn wait_for_holders(&mut self) -> Result<(), CliError> {
        let deadline = Instant::now() + START;
        for party in Party::ALL {
            loop {
                let last = match self.operator.status(party).await {
                    Ok(status) if status.peers_connected.len() == 2 => break,
                    Ok(_) => CliError::protocol(DeploymentError::Process {
                        role: super::Role::Holder(party).to_string(),
                        reason: String::from("it does not reach the other key holders"),
                    }),
                    Err(error) => error,
                };
                self.processes.check().map_err(CliError::protocol)?;
                if Instant::now() >= deadline {
                    return Err(last);
                }
                sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Waits until the matcher is connected to all holders and knows the key epoch.
    ///
    /// # Errors
    /// [`CliError`].
    pub async fn wait_for_matcher(&mut self) -> Result<(), CliError> {
        let veilmatch = self.deployment.client()?;
        let deadline = Instant::now() + START;
        loop {
            let last = match veilmatch.server_info().await {
                Ok(info) if info.connected.len() == 3 && info.key_epoch.is_some() => return Ok(()),
                Ok(_) => CliError::protocol(DeploymentError::Process {
                    role: super::Role::Matcher.to_string(),
                    reason: String::from("it is not connected to all key holders"),
                }),
                Err(error) => CliError::protocol(error),
            };
            self.processes.check().map_err(CliError::protocol)?;
            if Instant::now() >= deadline {
                return Err(last);
            }
            sleep(POLL).await;
        }
    }

    /// Waits until the twin, if there is one, is connected to the matcher and to all holders.
    ///
    /// # Errors
    /// [`CliError`].
    pub async fn wait_for_twin(&mut self) -> Result<(), CliError> {
        if !self.deployment.has_twin() {
            return Ok(());
        }
        let ports = self.deployment.ports()?;
        let deadline = Instant::now() + START;
        loop {
            let matcher = scrape(ports.matcher_metrics).await.unwrap_or_default();
            let twin = scrape(ports.twin_metrics).await.unwrap_or_default();
            if sum(&matcher, "veilmatch_twin_connected") == 1 && sum(&twin, "veilmatch_twin_holder_connected") == 3 {
                return Ok(());
            }
            self.processes.check().map_err(CliError::protocol)?;
            if Instant::now() >= deadline {
                return Err(CliError::protocol(DeploymentError::Process {
                    role: super::Role::Twin.to_string(),
                    reason: String::from("it is not connected to the matcher and all key holders"),
                }));
            }
            sleep(POLL).await;
        }
    }

    async fn register_client(&self) -> Result<(), CliError> {
        let key = self.deployment.signing_key()?.key().verifying_key();
        let client = ClientId::new(CLIENT).map_err(CliError::protocol)?;
        let action = Administration::RegisterClient { client, key, roles: Roles::ALL, collections: None };
        self.operator.at_holders(&Party::ALL, &action).await?;
        self.operator.at_matcher(action).await
    }

    /// Creates a collection at the holders and at the matcher, or changes its policy.
    ///
    /// # Errors
    /// [`CliError`].
    pub async fn create_collection(&self, collection: &CollectionId, policy: Policy) -> Result<(), CliError> {
        let parameters = match policy.scheme {
            SchemeName::Glwe => GLWE_2048_V1.name,
            SchemeName::Paillier => self.deployment.key_size().map_err(CliError::protocol)?.parameters(),
        };
        let parameters = parameters.parse().map_err(CliError::protocol)?;
        let description = CollectionDescription { parameters, group_capacity: 0 };
        let action = Administration::SetPolicy { collection: collection.clone(), policy, description };
        self.operator.at_holders(&Party::ALL, &action).await?;
        self.operator.create_collection(action).await?;
        Ok(())
    }
}

impl Deployment {
    fn founded(&self) -> std::path::PathBuf {
        self.folder().join("founded")
    }

    fn is_founded(&self) -> bool {
        self.founded().is_file()
    }

    fn endpoint(port: u16) -> Result<Endpoint, CliError> {
        Endpoint::parse(&format!("https://127.0.0.1:{port}"), false).map_err(CliError::protocol)
    }

    fn security(&self, folder: &str) -> Result<Security, CliError> {
        let at = |name: &str| self.folder().join(folder).join(name);
        let identity = Identity::load(&at("tls.crt"), &at("tls.key"), &self.folder().join("ca.crt"));
        Ok(Security::Tls(identity.map_err(CliError::protocol)?))
    }

    fn signing_key(&self) -> Result<SigningKeyFile, CliError> {
        SigningKeyFile::load(&self.folder().join("client/signing.key")).map_err(CliError::protocol)
    }

    /// The operator's connections.
    ///
    /// # Errors
    /// [`CliError`].
    pub fn operator(&self) -> Result<Operator, CliError> {
        let signer = SigningKeyFile::load(&self.folder().join("admin.key")).map_err(CliError::protocol)?;
        let ports = self.ports()?;
        let [k0, k1, k2] = ports.holders;
        let holders = [Self::endpoint(k0)?, Self::endpoint(k1)?, Self::endpoint(k2)?];
        let matcher = Self::endpoint(ports.matcher)?;
        Operator::new(&holders, &matcher, &self.security("operator")?, signer.into_key())
    }

    /// What the deployment's own client connects with.
    ///
    /// # Errors
    /// [`CliError`].
    pub fn client_options(&self) -> Result<Options, CliError> {
        let holders = HolderCard::load_three(Party::ALL.map(|party| self.card(party))).map_err(CliError::protocol)?;
        let client = ClientId::new(CLIENT).map_err(CliError::protocol)?;
        let matcher = Self::endpoint(self.ports()?.matcher)?;
        let options = Options::new(matcher, self.security("client")?, holders, client, self.signing_key()?.into_key());
        Ok(Options { window: 1024, ..options })
    }

    /// The deployment's own client.
    ///
    /// # Errors
    /// [`CliError`].
    pub fn client(&self) -> Result<Veilmatch, CliError> {
        Veilmatch::prepare(self.client_options()?).map_err(CliError::protocol)
    }
}
