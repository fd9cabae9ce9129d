//! What several tests of this crate share: a plaintext engine that can be told to lie, files, the LFW folder.

use std::collections::BTreeMap;
use std::path::PathBuf;
use tempfile::TempDir;
use veilmatch_domain::{Decision, Embedding, Explain, Outcome, Query, Status, SubjectId};

use crate::engine::{Bytes, Engine, Setup, Traffic};
use crate::exit::CliError;

/// A version 1.0 npy file.
pub(crate) fn npy_bytes(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// Row r is `scale` at coordinate r modulo the dimension and zero elsewhere, as float32.
pub(crate) fn unit_rows_npy(rows: usize, dimension: usize, scale: f32) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dimension}), }}");
    let value = |i: usize| if i % dimension == (i / dimension) % dimension { scale } else { 0.0 };
    let data: Vec<u8> = (0..rows * dimension).flat_map(|i| value(i).to_le_bytes()).collect();
    npy_bytes(&header, &data)
}

/// Files in a folder that lives as long as the first of the two.
pub(crate) fn files<const N: usize>(contents: [(&str, &[u8]); N]) -> (TempDir, [PathBuf; N]) {
    let folder = TempDir::new().unwrap();
    let paths = contents.map(|(name, bytes)| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    });
    (folder, paths)
}

/// The real data, or a loud note that the test was skipped.
pub(crate) fn real_data(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("VEILMATCH_DATA").map(PathBuf::from);
    if folder.is_none() {
        #[expect(clippy::print_stderr, reason = "a skipped test says so by name")]
        {
            eprintln!("SKIPPED {test}: VEILMATCH_DATA is not set");
        }
    }
    folder
}

/// A subject id.
pub(crate) fn subject(text: &str) -> SubjectId {
    SubjectId::new(text).unwrap()
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no such subject")]
    NotEnrolled,
    #[error("a holder deviated")]
    Deviated,
}

impl Explain for Refusal {
    fn code(&self) -> &'static str {
        "refused"
    }
    fn status(&self) -> Status {
        match self {
            Self::NotEnrolled => Status::NotFound,
            Self::Deviated => Status::Aborted,
        }
    }
    fn advice(&self) -> &'static str {
        "this is a test"
    }
}

/// How an engine lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    Verify,
    Exists,
    DropsMatches,
    AddsStranger,
    AlwaysTooMany,
    Best,
    KeepsErased,
    WrongKind,
    Deviates,
}

/// Plaintext arithmetic behind the engine's interface.
pub(crate) struct Plaintext {
    members: BTreeMap<SubjectId, Embedding>,
    noise_std: f64,
    lie: Option<Lie>,
    traffic: Traffic,
}

impl Plaintext {
    pub(crate) fn found(lie: Option<Lie>) -> impl Fn(&Setup) -> Result<Box<dyn Engine>, CliError> {
        move |_| {
            let traffic = Traffic::default();
            Ok(Box::new(Self { members: BTreeMap::new(), noise_std: 1e-6, lie, traffic }) as Box<dyn Engine>)
        }
    }

    fn scores(&self, probe: &Embedding) -> Vec<(SubjectId, f64)> {
        self.members.iter().map(|(s, e)| (s.clone(), probe.cosine(e).unwrap())).collect()
    }

    fn honest(&self, probe: &Embedding, query: &Query) -> Result<Outcome, CliError> {
        let threshold = query.threshold.cosine();
        let mut above: Vec<_> = self.scores(probe).into_iter().filter(|(_, s)| *s >= threshold).collect();
        Ok(match &query.decision {
            Decision::Verify { subject } => {
                let member = self.members.get(subject).ok_or_else(|| CliError::protocol(Refusal::NotEnrolled))?;
                Outcome::Verify(probe.cosine(member)? >= threshold)
            }
            Decision::Exists => Outcome::Exists(!above.is_empty()),
            Decision::Matches { max_matches } if above.len() > usize::from(*max_matches) => Outcome::TooMany,
            Decision::Matches { .. } => Outcome::Matches(above.into_iter().map(|(s, _)| s).collect()),
            Decision::Best => {
                above.sort_by(|a, b| b.1.total_cmp(&a.1));
                Outcome::Best(above.into_iter().next().map(|(s, _)| s))
            }
        })
    }
}

impl Engine for Plaintext {
    fn enroll(&mut self, people: &[(SubjectId, Embedding)], progress: &dyn Fn(usize)) -> Result<(), CliError> {
        self.members.extend(people.iter().cloned());
        self.traffic.client.sent += people.len() as u64;
        progress(people.len());
        Ok(())
    }

    fn ask(&mut self, probe: &Embedding, query: &Query) -> Result<Outcome, CliError> {
        self.traffic.matcher = Bytes { sent: self.traffic.matcher.sent + 1, received: 7 };
        let honest = self.honest(probe, query);
        match (self.lie, &query.decision, honest) {
            (Some(Lie::Deviates), ..) => Err(CliError::protocol(Refusal::Deviated)),
            (Some(Lie::WrongKind), Decision::Exists, _) => Ok(Outcome::Best(None)),
            (Some(Lie::Verify), _, Ok(Outcome::Verify(bit))) => Ok(Outcome::Verify(!bit)),
            (Some(Lie::KeepsErased), Decision::Verify { .. }, Err(_)) => Ok(Outcome::Verify(true)),
            (Some(Lie::Exists), _, Ok(Outcome::Exists(bit))) => Ok(Outcome::Exists(!bit)),
            (Some(Lie::DropsMatches), Decision::Matches { .. }, _) => Ok(Outcome::Matches(Vec::new())),
            (Some(Lie::AlwaysTooMany), Decision::Matches { .. }, _) => Ok(Outcome::TooMany),
            (Some(Lie::AddsStranger), _, Ok(Outcome::Matches(mut list))) => {
                list.push(subject("nobody"));
                Ok(Outcome::Matches(list))
            }
            (Some(Lie::Best), _, Ok(Outcome::Best(_))) => Ok(Outcome::Best(self.members.keys().next().cloned())),
            (_, _, honest) => honest,
        }
    }

    fn erase(&mut self, subject: &SubjectId) -> Result<(), CliError> {
        match self.members.remove(subject) {
            Some(_) => Ok(()),
            None => Err(CliError::protocol(Refusal::NotEnrolled)),
        }
    }

    fn noise_std(&self) -> f64 {
        self.noise_std
    }

    fn traffic(&self) -> Traffic {
        self.traffic
    }
}
