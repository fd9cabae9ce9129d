//! The client against a matcher that the test scripts: real sockets, real sealing, no cryptography behind.

mod bulk;
mod calls;
mod matcher;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use veilmatch_domain::{ClientId, Embedding, SubjectId, Threshold, Timestamp};
use veilmatch_sealed::ClientSigningKey;
use veilmatch_transport::{Endpoint, Name, Security};

use crate::connection::Shared;
use crate::{Collection, Options};
use matcher::Matcher;

/// A client of a matcher: retries are quick, deadlines short, and the test has the clock.
struct Desk {
    staff: Collection,
    clock: Arc<AtomicU64>,
}

impl Desk {
    fn with(matcher: &Matcher, change: impl FnOnce(&mut Options)) -> Self {
        let client = ClientId::new("gate-7").unwrap();
        let endpoint = Endpoint::parse(&format!("http://{}", matcher.address), true).unwrap();
        let mut options = Options::new(
            endpoint,
            Security::Plaintext(Name::Client(client.clone())),
            matcher.holder_keys(),
            client,
            ClientSigningKey::from_bytes(&[7; 32]),
        );
        options.deadline = Duration::from_secs(5);
        options.enroll_deadline = Duration::from_secs(5);
        change(&mut options);
        let clock = Arc::new(AtomicU64::new(1_900_000_000));
        let mut shared = Shared::new(options).unwrap();
        let told = Arc::clone(&clock);
        shared.clock = Box::new(move || Timestamp(told.load(Ordering::Relaxed)));
        let veilmatch = crate::Veilmatch { shared: Arc::new(shared) };
        Self { staff: veilmatch.collection("staff").unwrap(), clock }
    }

    fn of(matcher: &Matcher) -> Self {
        Self::with(matcher, |_| {})
    }
}

fn face(turn: usize) -> Embedding {
    Embedding::normalised((0..16).map(|j| ((j * 7 + turn) % 11) as f32 - 4.5).collect()).unwrap()
}

fn people(count: usize) -> Vec<(SubjectId, Embedding)> {
    (0..count).map(|i| (SubjectId::new(format!("person-{i}")).unwrap(), face(i))).collect()
}

fn threshold() -> Threshold {
    Threshold::new(0.4).unwrap()
}
