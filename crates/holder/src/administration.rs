//! What pinned administrators have this holder do.
//!
//! Each holder has its own list of administrators and decides for itself; a request works once, within an hour of its
//! signature, at whom it names. Administrators change who may ask and what; they open nothing.

use veilmatch_domain::{SessionId, Timestamp};
use veilmatch_sealed::{Administration, ClientVerifyingKey, SignedAdministration};

use crate::HolderError;
use crate::audit::{Administered, AuditEvent};
use crate::holder::{Holder, Reaction};
use crate::paillier::parameters_of;
use crate::record::Signer;
use crate::registry::ClientRecord;

/// Longest lifetime of an administrator's request, in seconds.
const REQUEST_SECONDS: u64 = 3600;

impl Holder {
    /// Pins whom this holder obeys: configuration, to be given again after a restart.
    pub fn set_administrators(&mut self, administrators: Vec<ClientVerifyingKey>) {
        self.administrators = administrators;
    }

    /// Carries out an administrator's signed request.
    ///
    /// # Errors
    /// [`HolderError::UnknownAdministrator`], [`HolderError::NotAddressed`], a wrong signature, an expired or repeated
    /// request, or the reason that the action is impossible; nothing has changed then.
    pub fn administer(&mut self, request: &[u8], now: Timestamp) -> Result<Reaction, HolderError> {
        self.state.now = now;
        let request = SignedAdministration::from_bytes(request)?;
        if !self.administrators.contains(&request.administrator) {
            return Err(HolderError::UnknownAdministrator);
        }
        request.verify()?;
        if !request.audience.includes(self.state.party) {
            return Err(HolderError::NotAddressed);
        }
        let administrator = request.administrator.to_bytes();
        let signer = Signer::Administrator(administrator);
        self.state.registry.check_fresh(&signer, &request.nonce, request.expires, REQUEST_SECONDS, now)?;
        let action = self.carry_out(request.action)?;
        self.state.registry.use_nonce(signer, request.nonce, request.expires, now);
        self.state.log(SessionId([0; 32]), AuditEvent::Administered { administrator, action });
        Ok(self.reaction(None))
    }

    fn carry_out(&mut self, action: Administration) -> Result<Administered, HolderError> {
        if let Administration::SetPolicy { collection, policy, .. } = &action {
            policy.validate()?;
            self.check_scheme(collection, policy)?;
        }
        let registry = &mut self.state.registry;
        Ok(match action {
            Administration::RegisterClient { client, key, roles, collections } => {
                if registry.client(&client).is_ok_and(|known| known.key != key) {
                    return Err(HolderError::OtherKey(client));
                }
                registry.register_client(client.clone(), ClientRecord { key, roles, collections, revoked: false });
                Administered::RegisterClient(client)
            }
            Administration::RevokeClient { client } => {
                let record = ClientRecord { revoked: true, ..registry.client(&client)?.clone() };
                registry.register_client(client.clone(), record);
                Administered::RevokeClient(client)
            }
            Administration::SetPolicy { collection, policy, description } => {
                let size = self.state.paillier.as_ref().map(|share| share.key().size());
                let expected = parameters_of(policy.scheme, self.state.parameters.name, size);
                let expected = expected.ok_or(HolderError::NoShare)?;
                if description.parameters.as_str() != expected {
                    return Err(HolderError::OtherParameters { expected });
                }
                if let Ok(expected) = registry.dimension(&collection)
                    && expected != policy.dimension
                {
                    let (found, expected) = (policy.dimension.get(), expected.get());
                    return Err(HolderError::WrongDimension { found, expected });
                }
                registry.set_policy(collection.clone(), policy);
                Administered::SetPolicy(collection)
            }
            Administration::Unlock { collection, subject } => {
                registry.collection(&collection)?;
                Administered::Unlock { collection, subject }
            }
            Administration::BeginEpoch { epoch } => {
                self.begin_or_repeat(epoch)?;
                Administered::BeginEpoch(epoch)
            }
            Administration::AllowRestore { party, key_fingerprint } => {
                self.allow_restore(party, key_fingerprint);
                Administered::AllowRestore(party)
            }
        })
    }
}
