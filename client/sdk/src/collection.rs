//! What a client asks of one collection.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use veilmatch_domain::{
    CollectionId, Decision, Embedding, ModelDigest, Outcome, Preselection, Query, SubjectId, Threshold,
};
use veilmatch_glwe::Verdict;
use veilmatch_wire::{CollectionInfo, TemplateInfo, WireError, v1};

use crate::attempts::Attempts;
use crate::connection::Shared;
use crate::sealed_item::{Item, Person};
use crate::{Client, Enrolment, Error, Interrupted, Progress, bulk};

/// One collection of a matcher. Cheap to clone.
#[derive(Clone)]
pub struct Collection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) name: Arc<CollectionId>,
    /// Whether enrolments take the place of templates that are there.
    pub(crate) supersedes: bool,
    /// The model of the embeddings, if it was named.
    pub(crate) model: Option<ModelDigest>,
}

impl fmt::Debug for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Collection({})", self.name)
    }
}

/// What to ask of all templates at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Who has the highest score at or above the threshold?
    Best,
    /// Is anybody at or above the threshold?
    Exists,
    /// Who is at or above the threshold?
    Matches {
        /// If more are, only that is opened: 1 to 64.
        max: u16,
    },
}

impl Ask {
    fn decision(self) -> Decision {
        match self {
            Self::Best => Decision::Best,
            Self::Exists => Decision::Exists,
            Self::Matches { max } => Decision::Matches { max_matches: max },
        }
    }
}

/// An erasure took effect: no decision counts the template any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erased {
    /// Whether the ciphertext is gone too. If not, that follows in the background; erasing again tells.
    pub complete: bool,
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// In order.
    pub items: Vec<T>,
    /// What asks for the next page; `None` after the last one.
    pub next: Option<String>,
}

impl<T> Page<T> {
    pub(crate) fn read<M>(items: Vec<M>, next: String) -> Result<Self, Error>
    where
        T: TryFrom<M, Error = WireError>,
    {
        let items = items.into_iter().map(T::try_from).collect::<Result<_, _>>().map_err(Error::Answer)?;
        Ok(Self { items, next: Some(next).filter(|next| !next.is_empty()) })
    }
}

impl Collection {
    /// The collection's name.
    #[must_use]
    pub fn name(&self) -> &CollectionId {
        &self.name
    }

    /// The same collection, whose enrolments take the place of the templates that their subjects have: a subject that has one keeps it
    /// until the new one is admitted, and then the old one is erased, all at once. Takes the roles for enrolment and for
    /// erasure.
    #[must_use]
    pub fn superseding(mut self) -> Self {
        self.supersedes = true;
        self
    }

    /// The same collection, whose templates and probes are embeddings of this model. A collection that is bound to a model takes those of that
    /// one alone. In place of [`Options::template_version`](crate::Options::template_version).
    #[must_use]
    pub fn of_model(mut self, model: ModelDigest) -> Self {
        self.model = Some(model);
        self
    }

    pub(crate) fn client(&self) -> Client {
        let mut client = self.shared.client();
        if let Some(model) = &self.model {
            client.set_model(model);
        }
        client
    }

    /// Dimension, sizes, age.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn info(&self) -> Result<CollectionInfo, Error> {
        let request = v1::GetCollectionRequest { name: self.name.to_string() };
        let collection = self
            .shared
            .read(request, |mut matcher, request| async move { matcher.get_collection(request).await })
            .await?;
        collection.try_into().map_err(Error::Answer)
    }

    /// Enrols one subject. `Ok` means stored and admitted by all three key holders; it is searchable soon after.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Refused`] with the code `already-enrolled` if the subject has a template (and this handle is not
    /// [`superseding`](Self::superseding)).
    pub async fn enroll(&self, subject: &str, embedding: &Embedding) -> Result<(), Error> {
        let mut attempts = self.shared.enroll_attempts();
        let person = Person { subject: SubjectId::new(subject)?, embedding: embedding.clone() };
        let mut item = Item::seal_one(self, person).await?;
        loop {
            let error = match self.try_enroll(&mut item, &attempts).await {
                Ok(Verdict::Accepted) => return Ok(()),
                Ok(Verdict::Refused(refusal)) => Error::Refused(refusal),
                Err(error) => error,
            };
            if !error.passes() {
                return Err(error);
            }
            attempts.again(error).await?;
        }
    }

    async fn try_enroll(&self, item: &mut Item, attempts: &Attempts) -> Result<Verdict, Error> {
        if attempts.within(item.freshen(self)).await?? {
            return Ok(Verdict::Accepted);
        }
        let request = attempts
            .request(v1::EnrollRequest { collection: self.name.to_string(), sealed_templates: vec![item.send()] });
        let answer = attempts.answer(self.shared.matcher().enroll(request)).await?;
        let Ok([result]) = <[v1::EnrollResult; 1]>::try_from(answer.results) else {
            return Err(Error::Mismatch { what: "the number of results" });
        };
        if result.sequence != 0 {
            return Err(Error::Mismatch { what: "the result's sequence" });
        }
        let verdict = result.verdict().map_err(Error::Answer)?;
        attempts.within(item.settle(self, verdict)).await?
    }

    /// Enrols any number of subjects over one stream. Sealing runs beside the network, and no more than
    /// [`Options::window`](crate::Options::window) templates are on their way. `progress` is called after every result. What the
    /// matcher or the holders refuse stands in the [`Enrolment`], one verdict per subject.
    ///
    /// # Errors
    /// [`Interrupted`] if the stream broke or the matcher refused it, and repeating did not help; it carries the results so
    /// far. Enrolling the rest again is safe: who is enrolled already is refused as such.
    pub async fn enroll_many<I>(
        &self,
        people: I,
        progress: impl FnMut(Progress) + Send,
    ) -> Result<Enrolment, Interrupted>
    where
        I: IntoIterator<Item = (SubjectId, Embedding)>,
        I::IntoIter: Send,
    {
        bulk::enroll(self, people.into_iter(), progress).await
    }

    /// Whether the probe is the claimed subject.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn verify(&self, subject: &str, probe: &Embedding, threshold: Threshold) -> Result<bool, Error> {
        let decision = Decision::Verify { subject: SubjectId::new(subject)? };
        match self.query(probe, Query::new(decision, threshold)).await? {
            Outcome::Verify(same) => Ok(same),
            _ => Err(Error::Mismatch { what: "the outcome's kind" }),
        }
    }

    /// Searches all templates.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn identify(&self, probe: &Embedding, ask: Ask, threshold: Threshold) -> Result<Outcome, Error> {
        self.query(probe, Query::new(ask.decision(), threshold)).await
    }

    /// Searches in two stages: the first dimensions of all templates, then the members of the packed groups that hold a
    /// candidate there (DESIGN 6). The answer is that of a full search on those groups: whom the coarse stage does not see
    /// is not found. It pays where the index is larger than the matcher's memory and embeddings are rotated so that their
    /// first dimensions tell people apart; the coarse threshold comes from a calibration.
    ///
    /// It tells more than [`identify`](Self::identify): the matcher and the key holders learn which packed groups hold a
    /// candidate for this probe, or that more do than `most_groups`, and from "none" that the answer is negative. Policies forbid it by default, and
    /// it counts as two decisions.
    ///
    /// # Errors
    /// [`Error`]; refused with `preselection-not-allowed` if the policy has no rules for it, with `too-many-candidates` if
    /// more groups hold candidates than `most_groups`.
    pub async fn identify_preselected(
        &self,
        probe: &Embedding,
        ask: Ask,
        threshold: Threshold,
        preselection: Preselection,
    ) -> Result<Outcome, Error> {
        let query = Query::new(ask.decision(), threshold);
        self.query(probe, Query { preselection: Some(preselection), ..query }).await
    }

    /// Every attempt has a probe of its own: one that arrived may have been counted.
    async fn query(&self, probe: &Embedding, query: Query) -> Result<Outcome, Error> {
        let mut attempts = self.shared.query_attempts();
        let free = |error: &Error| match query.preselection {
            Some(_) => error.nothing_was_preselected(),
            None => error.nothing_was_opened(),
        };
        loop {
            match self.try_query(probe, &query, &attempts).await {
                Err(error) if free(&error) => attempts.again(error).await?,
                other => return other,
            }
        }
    }

    async fn try_query(&self, probe: &Embedding, query: &Query, attempts: &Attempts) -> Result<Outcome, Error> {
        let (own, probe, asked) = (self.clone(), probe.clone(), query.clone());
        let sealing = spawn_blocking(move || own.client().seal_probe(&own.name, &probe, asked, (own.shared.clock)()));
        let (sealed, pending) = attempts.within(sealing).await?.map_err(|_| Error::Sealing)??;
        let request = attempts.request(v1::SealedQuery { sealed_probe: Bytes::from(sealed) });
        let mut matcher = self.shared.matcher();
        let answer = match query.decision {
            Decision::Verify { .. } => attempts.answer(matcher.verify(request)).await?,
            _ => attempts.answer(matcher.identify(request)).await?,
        };
        Ok(pending.read_replies([&answer.reply_k0, &answer.reply_k1, &answer.reply_k2])?)
    }

    /// Forgets a subject.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn erase(&self, subject: &str) -> Result<Erased, Error> {
        let subject = SubjectId::new(subject)?;
        let signed = self.shared.client().sign_erasure(&self.name, subject, (self.shared.clock)());
        let request = v1::EraseRequest { signed_erasure: Bytes::from(signed) };
        let answer = self
            .shared
            .repeat(self.shared.enroll_attempts(), request, |mut matcher, request| async move {
                matcher.erase(request).await
            })
            .await?;
        Ok(Erased { complete: answer.complete })
    }

    /// What is stored for a subject; `None` if nothing is.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get(&self, subject: &str) -> Result<Option<TemplateInfo>, Error> {
        let subject = SubjectId::new(subject)?;
        let request = v1::GetTemplateRequest { collection: self.name.to_string(), subject: subject.to_string() };
        let found =
            self.shared.read(request, |mut matcher, request| async move { matcher.get_template(request).await }).await;
        match found {
            Ok(template) => {
                let template = TemplateInfo::try_from(template).map_err(Error::Answer)?;
                match template.subject == subject {
                    true => Ok(Some(template)),
                    false => Err(Error::Mismatch { what: "another subject" }),
                }
            }
            Err(Error::Refused(refusal)) if refusal.code == "unknown-subject" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A page of what is stored, by subject: at most `size` (1 to 1,000), from where `after` (a page's
    /// [`next`](Page::next)) says, or from the beginning.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn templates(&self, size: u32, after: Option<&str>) -> Result<Page<TemplateInfo>, Error> {
        let request = v1::ListTemplatesRequest {
            collection: self.name.to_string(),
            page_size: size,
            page_token: after.unwrap_or_default().to_owned(),
        };
        let page = self
            .shared
            .read(request, |mut matcher, request| async move { matcher.list_templates(request).await })
            .await?;
        Page::read(page.templates, page.next_page_token)
    }
}
