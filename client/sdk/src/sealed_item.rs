//! A person on the way into a collection: sealed once, sent until there is an answer, never enrolled twice.

use bytes::Bytes;
use rayon::prelude::*;
use tokio::task::spawn_blocking;
use veilmatch_domain::{Embedding, Purpose, SubjectId, TemplateDigest, Timestamp};
use veilmatch_glwe::Verdict;

use crate::{Collection, Error, LIFETIME_SECONDS};

/// Seconds before the expiry from which a template is not sent any more.
const MARGIN: u64 = 30;

/// What a repetition is refused with if an earlier attempt, whose answer was lost, went through.
const DONE_BEFORE: [&str; 3] = ["already-enrolled", "replayed", "expired"];

#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) subject: SubjectId,
    pub(crate) embedding: Embedding,
}

pub(crate) struct Item {
    person: Person,
    sealed: Bytes,
    expires: Timestamp,
    /// Of every template that was sealed for this enrolment.
    digests: Vec<TemplateDigest>,
    /// How often a template of this enrolment was sent.
    sent: u32,
}

impl Item {
    /// Seals on the thread it is called on.
    fn seal(collection: &Collection, person: Person) -> Result<Self, Error> {
        let now = (collection.shared.clock)();
        let mut client = collection.client();
        let subject = person.subject.clone();
        let purpose = if collection.supersedes { Purpose::Supersede { subject } } else { Purpose::Enrol { subject } };
        let sealed = client.seal_for(&collection.name, purpose, &person.embedding, now)?;
        Ok(Self {
            digests: vec![sealed.digest()],
            expires: sealed.associated().expires,
            sealed: Bytes::from(sealed.to_bytes()),
            person,
            sent: 0,
        })
    }

    pub(crate) async fn seal_one(collection: &Collection, person: Person) -> Result<Self, Error> {
        let collection = collection.clone();
        spawn_blocking(move || Self::seal(&collection, person)).await.map_err(|_| Error::Sealing)?
    }

    /// Seals on all cores, beside the network.
    pub(crate) async fn seal_many(collection: Collection, people: Vec<Person>) -> Result<Vec<Self>, Error> {
        spawn_blocking(move || people.into_par_iter().map(|person| Self::seal(&collection, person)).collect())
            .await
            .map_err(|_| Error::Sealing)?
    }

    /// Seals again what got old. If it was sent, only after the matcher said that it does not have it; returns whether it
    /// does.
    pub(crate) async fn freshen(&mut self, collection: &Collection) -> Result<bool, Error> {
        const { assert!(MARGIN < LIFETIME_SECONDS) };
        if (collection.shared.clock)().0.saturating_add(MARGIN) < self.expires.0 {
            return Ok(false);
        }
        if self.sent > 0 && self.is_stored(collection).await? {
            return Ok(true);
        }
        let again = Self::seal_one(collection, self.person.clone()).await?;
        self.digests.extend(again.digests);
        self.sealed = again.sealed;
        self.expires = again.expires;
        Ok(false)
    }

    /// The bytes to send.
    pub(crate) fn send(&mut self) -> Bytes {
        self.sent = self.sent.saturating_add(1);
        self.sealed.clone()
    }

    /// The verdict as it is, after a refusal was compared with what earlier attempts may have done.
    pub(crate) async fn settle(&self, collection: &Collection, verdict: Verdict) -> Result<Verdict, Error> {
        match verdict {
            Verdict::Refused(refusal) if self.sent > 1 && DONE_BEFORE.contains(&refusal.code.as_str()) => {
                let stored = self.is_stored(collection).await?;
                Ok(if stored { Verdict::Accepted } else { Verdict::Refused(refusal) })
            }
            verdict => Ok(verdict),
        }
    }

    /// Whether the matcher has a template of this enrolment.
    async fn is_stored(&self, collection: &Collection) -> Result<bool, Error> {
        let stored = collection.get(self.person.subject.as_str()).await?;
        Ok(stored.is_some_and(|template| self.digests.contains(&template.digest)))
    }
}
