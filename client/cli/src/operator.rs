//! What administrators do over the network: sign a request, send it to every party that it concerns.
//!
//! Each holder checks the signature against its own list of administrators; where the three organisations have one
//! administrator each, each sends its own request with `--holder`.

use std::time::Duration;

use tonic::Request;
use veilmatch_domain::{Epoch, Explain, Party, Status, Timestamp};
use veilmatch_sealed::{Administration, Audience, ClientSigningKey, SignedAdministration};
use veilmatch_secret::os_entropy;
use veilmatch_service::now;
use veilmatch_transport::{Connection, Endpoint, Name, Security, TlsError, channel};
use veilmatch_wire::v1::key_holder_client::KeyHolderClient;
use veilmatch_wire::v1::matcher_client::MatcherClient;
use veilmatch_wire::{MAX_MESSAGE_BYTES, refusal, v1};

use crate::exit::CliError;

/// How long a signed request is accepted, in seconds.
const LIFETIME: u64 = 300;
/// How long each call may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a ceremony may take at all three holders.
const CEREMONY: Duration = Duration::from_secs(40);
/// Epochs that are tried: each ceremony that failed half-way has used one up at some holder.
const EPOCHS: u32 = 8;

/// A party that gave no answer.
#[derive(Debug, thiserror::Error)]
#[error("{party}: {message}")]
struct NoAnswer {
    party: String,
    message: String,
}

impl Explain for NoAnswer {
    fn code(&self) -> &'static str {
        "no-answer"
    }
    fn status(&self) -> Status {
        Status::Unavailable
    }
    fn advice(&self) -> &'static str {
        "check that the party runs, its address, and that the operator's certificate is valid"
    }
}

/// The holders did not come to the same epoch.
#[derive(Debug, thiserror::Error)]
#[error("the key ceremony did not complete at all three key holders")]
struct Incomplete;

impl Explain for Incomplete {
    fn code(&self) -> &'static str {
        "ceremony-incomplete"
    }
    fn status(&self) -> Status {
        Status::Unavailable
    }
    fn advice(&self) -> &'static str {
        "check that the holders reach each other (status of each names its peers), then hold it again"
    }
}

/// A party's refusal in its own words, or what the network says.
pub(crate) fn ended(party: &Name, status: &tonic::Status) -> CliError {
    match refusal(status) {
        Some(refusal) => {
            let message = format!("{party}: {}", refusal.message);
            CliError::Refused { status: refusal.status(), code: refusal.code, message }
        }
        None => CliError::protocol(NoAnswer { party: party.to_string(), message: veilmatch_transport::cause(status) }),
    }
}

/// An administrator's connections.
pub struct Operator {
    holders: [KeyHolderClient<Connection>; 3],
    matcher: MatcherClient<Connection>,
    signer: ClientSigningKey,
}

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Operator(keys redacted)")
    }
}

impl Operator {
    /// Prepares connections; nothing is dialled yet. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`CliError::Protocol`] with a [`TlsError`].
    pub fn new(
        holders: &[Endpoint; 3],
        matcher: &Endpoint,
        security: &Security,
        signer: ClientSigningKey,
    ) -> Result<Self, CliError> {
        let [k0, k1, k2] = holders;
        let holder = |party: Party, endpoint: &Endpoint| -> Result<_, TlsError> {
            let connection = channel(endpoint, security, &Name::Holder(party))?;
            Ok(KeyHolderClient::new(connection).max_decoding_message_size(MAX_MESSAGE_BYTES))
        };
        let connect = || -> Result<_, TlsError> {
            Ok((
                [holder(Party::K0, k0)?, holder(Party::K1, k1)?, holder(Party::K2, k2)?],
                MatcherClient::new(channel(matcher, security, &Name::Matcher)?),
            ))
        };
        let (holders, matcher) = connect().map_err(CliError::protocol)?;
        Ok(Self { holders, matcher, signer })
    }

    fn sign(&self, audience: Audience, action: Administration) -> Vec<u8> {
        let mut nonce = [0u8; 16];
        os_entropy().fill_bytes(&mut nonce);
        let issued = now();
        let expires = Timestamp(issued.0.saturating_add(LIFETIME));
        SignedAdministration::sign(audience, nonce, issued, expires, action, &self.signer).to_bytes()
    }

    /// A holder's connection.
    pub fn holder(&self, party: Party) -> KeyHolderClient<Connection> {
        let [k0, k1, k2] = &self.holders;
        match party {
            Party::K0 => k0.clone(),
            Party::K1 => k1.clone(),
            Party::K2 => k2.clone(),
        }
    }

    /// Has these holders carry an action out, one after the other.
    ///
    /// # Errors
    /// [`CliError`] of the first that does not; repeating the command is harmless.
    pub async fn at_holders(&self, parties: &[Party], action: &Administration) -> Result<(), CliError> {
        for &party in parties {
            let signed = self.sign(Audience::holder(party), action.clone());
            let request = timed(v1::SignedRequest { request: signed.into() });
            self.holder(party).administer(request).await.map_err(|s| ended(&Name::Holder(party), &s))?;
        }
        Ok(())
    }

    /// Has the matcher carry an action out: registering or revoking a client.
    ///
    /// # Errors
    /// [`CliError`].
    pub async fn at_matcher(&self, action: Administration) -> Result<(), CliError> {
        let request = timed(v1::SignedRequest { request: self.sign(Audience::MATCHER, action).into() });
        let mut matcher = self.matcher.clone();
        matcher.administer(request).await.map_err(|s| ended(&Name::Matcher, &s))?;
        Ok(())
    }

    /// Has the matcher create the collection of a policy.
    ///
    /// # Errors
    /// [`CliError`].
    pub async fn create_collection(&self, action: Administration) -> Result<v1::Collection, CliError> {
        let signed_administration = self.sign(Audience::MATCHER, action).into();
        let request = timed(v1::CreateCollectionRequest { signed_administration });
        let mut matcher = self.matcher.clone();
        let created = matcher.create_collection(request).await.map_err(|s| ended(&Name::Matcher, &s))?;
        Ok(created.into_inner())
    }

    /// What a holder says about itself.
    ///
    /// # Errors
    /// [`CliError`].
    pub async fn status(&self, party: Party) -> Result<v1::HolderStatus, CliError> {
        let answer = self.holder(party).status(timed(v1::StatusRequest {})).await;
        Ok(answer.map_err(|s| ended(&Name::Holder(party), &s))?.into_inner())
    }

    async fn epochs(&self) -> Result<[Option<u32>; 3], CliError> {
        let mut epochs = [None; 3];
        for (epoch, party) in epochs.iter_mut().zip(Party::ALL) {
            *epoch = self.status(party).await?.key_epoch;
        }
        Ok(epochs)
    }

    /// The epoch that all three holders are in, if they are in one.
    ///
    /// # Errors
    /// [`CliError`].
    pub async fn epoch(&self) -> Result<Option<Epoch>, CliError> {
        let [a, b, c] = self.epochs().await?;
        Ok(a.filter(|_| a == b && b == c).map(Epoch))
    }

    /// Holds a key ceremony: all three holders begin the same new epoch; waits until it is complete at all of them.
    ///
    /// # Errors
    /// [`CliError`]; then no holder uses the new epoch unless all have it, and the ceremony can be held again.
    pub async fn ceremony(&self) -> Result<Epoch, CliError> {
        let highest = self.epochs().await?.into_iter().flatten().max();
        let first = highest.map_or(0, |epoch| epoch.saturating_add(1));
        let mut last = CliError::protocol(Incomplete);
        for epoch in (first..first.saturating_add(EPOCHS)).map(Epoch) {
            match self.begin(epoch).await {
                Ok(()) => return self.wait_for(epoch).await,
                // Some holder has begun this one before, in a ceremony that did not complete.
                Err(error) if error.reason() == "wrong-epoch" => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Each holder answers once the epoch is complete there, so all three are asked at once.
    async fn begin(&self, epoch: Epoch) -> Result<(), CliError> {
        let ask = async |party: Party| -> Result<(), CliError> {
            let signed = self.sign(Audience::holder(party), Administration::BeginEpoch { epoch });
            let mut request = Request::new(v1::SignedRequest { request: signed.into() });
            request.set_timeout(CEREMONY);
            self.holder(party).ceremony(request).await.map_err(|s| ended(&Name::Holder(party), &s))?;
            Ok(())
        };
        let (a, b, c) = tokio::join!(ask(Party::K0), ask(Party::K1), ask(Party::K2));
        a.and(b).and(c)
    }

    async fn wait_for(&self, epoch: Epoch) -> Result<Epoch, CliError> {
        let deadline = tokio::time::Instant::now() + CEREMONY;
        while tokio::time::Instant::now() < deadline {
            if self.epoch().await? == Some(epoch) {
                return Ok(epoch);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(CliError::protocol(Incomplete))
    }
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}
