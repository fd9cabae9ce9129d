//! The encrypted engine of evaluations: a cluster of all parties in this process behind [`Engine`].

use veilmatch_cluster::{Address, Cluster, ClusterError};
use veilmatch_domain::{
    ClientId, CollectionId, Embedding, Explain, IdentifierError, Outcome, Party, Policy, Query, Status, SubjectId,
};
use veilmatch_gallery::layout_for;
use veilmatch_glwe::{GLWE_2048_V1, Layout, Refusal, Verdict, decision_noise};
use veilmatch_sdk::ClientError;
use veilmatch_secret::os_entropy;
use veilmatch_threshold::Dealer;

use crate::engine::{Bytes, Engine, Scheme, Setup, Traffic};
use crate::exit::CliError;

/// All parties of one collection, with fresh randomness of the operating system.
struct Encrypted {
    cluster: Cluster,
    setup: Setup,
}

/// The ceremony: founds three key holders, a matcher and a client for this setup; under the scheme `paillier` a dealer looks for two
/// safe primes first (seconds at 2,048 bits), and there is a twin.
///
/// # Errors
/// [`CliError::Protocol`] if the ceremony does not complete.
pub fn found(setup: &Setup) -> Result<Box<dyn Engine>, CliError> {
    let policy = Policy {
        lowest_threshold: setup.lowest_threshold,
        highest_threshold: setup.highest_threshold,
        scheme: setup.scheme.name(),
        ..Policy::permissive(setup.dimension)
    };
    let named = |e: IdentifierError| CliError::protocol(e);
    let collection = CollectionId::new("demo").map_err(named)?;
    let client = ClientId::new("veilmatch-cli").map_err(named)?;
    let cluster = match setup.scheme {
        Scheme::Glwe => Cluster::new(GLWE_2048_V1, collection, policy, client, os_entropy),
        Scheme::Paillier(size) => {
            let dealt = Dealer::new(size).deal(&|_| {}, os_entropy().as_mut()).map_err(CliError::protocol)?;
            Cluster::with_key(GLWE_2048_V1, collection, policy, client, os_entropy, dealt, None)
        }
    };
    let cluster = cluster.map_err(stopped)?;
    Ok(Box::new(Encrypted { cluster, setup: setup.clone() }))
}

impl Encrypted {
    /// What has happened; the holders' own errors, which the answer repeats as far as they concern it, are let go.
    fn ended<T>(&mut self, result: Result<T, ClusterError>) -> Result<T, CliError> {
        drop(self.cluster.take_failures());
        result.map_err(stopped)
    }

    /// Layouts of the live groups, or what the planner will choose.
    fn layouts(&self) -> Vec<Layout> {
        let index = self.cluster.matcher().index(self.cluster.collection());
        let live: Vec<Layout> = index.into_iter().flat_map(|i| i.groups()).map(|g| g.packed.layout).collect();
        if live.is_empty() {
            vec![layout_for(&self.cluster.parameters(), self.setup.dimension, self.setup.members)]
        } else {
            live
        }
    }

    fn bytes(&self, address: Address) -> Bytes {
        let traffic = self.cluster.traffic(address);
        Bytes { sent: traffic.sent, received: traffic.received }
    }
}

impl Engine for Encrypted {
    fn enroll(&mut self, people: &[(SubjectId, Embedding)], progress: &dyn Fn(usize)) -> Result<(), CliError> {
        let result = self.cluster.enroll(people, &mut |count| progress(count));
        for verdict in self.ended(result)? {
            if let Verdict::Refused(refusal) = verdict {
                return Err(refused(&refusal));
            }
        }
        Ok(())
    }

    fn ask(&mut self, probe: &Embedding, query: &Query) -> Result<Outcome, CliError> {
        let result = self.cluster.ask(probe, query.clone());
        self.ended(result)
    }

    fn erase(&mut self, subject: &SubjectId) -> Result<(), CliError> {
        let result = self.cluster.erase(subject);
        self.ended(result)
    }

    /// The noise before the comparison includes the rounding of shares and threshold; the rounding of coordinates to
    /// 2⁻¹⁸ adds less than 2·10⁻⁶ and is left out.
    fn noise_std(&self) -> f64 {
        if let Scheme::Paillier(_) = self.setup.scheme {
            return veilmatch_paillier::decision_noise(self.cluster.parameters().decision_bits);
        }
        let noise = |layout| decision_noise(&self.cluster.parameters(), layout, self.setup.dimension).0;
        self.layouts().into_iter().map(noise).fold(0.0, f64::max)
    }

    fn traffic(&self) -> Traffic {
        Traffic {
            client: self.bytes(Address::Client),
            matcher: self.bytes(Address::Matcher),
            k0: self.bytes(Address::Holder(Party::K0)),
            k1: self.bytes(Address::Holder(Party::K1)),
            k2: self.bytes(Address::Holder(Party::K2)),
            twin: (self.setup.scheme != Scheme::Glwe).then(|| self.bytes(Address::Twin)),
        }
    }
}

fn refused(refusal: &Refusal) -> CliError {
    CliError::Refused { code: refusal.code.clone(), status: refusal.status(), message: refusal.message.clone() }
}

/// Keeps code, status and message of whoever stopped the operation.
pub(crate) fn stopped(error: ClusterError) -> CliError {
    match error {
        ClusterError::Client(ClientError::Refused(refusal)) => refused(&refusal),
        ClusterError::Client(error) => CliError::protocol(error),
        ClusterError::Holder(error) => CliError::protocol(error),
        other => CliError::protocol(Silence(other)),
    }
}

/// A cluster error that no party speaks for.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Silence(ClusterError);

impl Explain for Silence {
    fn code(&self) -> &'static str {
        match self.0 {
            ClusterError::NoAnswer => "no-answer",
            _ => "ceremony-incomplete",
        }
    }
    fn status(&self) -> Status {
        Status::Unavailable
    }
    fn advice(&self) -> &'static str {
        "run the command again; if it happens twice, report it with the arguments"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;
    use crate::testing::subject;
    use veilmatch_domain::{Decision, Dimension, Threshold};

    #[test]
    fn refusals_keep_code_and_status() {
        let dimension = Dimension::new(64).unwrap();
        let threshold = Threshold::new(0.3).unwrap();
        let setup = Setup {
            dimension,
            members: 1,
            lowest_threshold: threshold,
            highest_threshold: threshold,
            scheme: Scheme::Glwe,
        };
        let mut engine = found(&setup).unwrap();
        let template = synthetic::people(1, 1, dimension, 1).unwrap().remove(0).remove(0);
        assert!(engine.noise_std() > 0.0);
        engine.enroll(&[(subject("ann"), template.clone())], &|_| {}).unwrap();
        let mut ask = |decision, t| engine.ask(&template, &Query::new(decision, Threshold::new(t).unwrap()));
        assert_eq!(ask(Decision::Verify { subject: subject("ann") }, 0.3).unwrap(), Outcome::Verify(true));
        let error = ask(Decision::Verify { subject: subject("bo") }, 0.3).unwrap_err();
        assert_eq!((error.reason(), error.status(), error.exit_code()), ("unknown-subject", Status::NotFound, 3));
        let error = ask(Decision::Exists, 0.31).unwrap_err();
        assert_eq!((error.reason(), error.status()), ("policy", Status::PermissionDenied));
    }
}
