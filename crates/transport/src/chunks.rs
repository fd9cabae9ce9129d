//! Messages of any size as chunks of at most [`MAX_CHUNK`] bytes, and back.

use bytes::Bytes;
use veilmatch_domain::{Explain, Status};
use veilmatch_wire::{MAX_CHUNK, v1::Chunk};

/// The chunks of one message in order. They share its memory.
#[derive(Debug)]
pub struct Chunks {
    rest: Option<Bytes>,
}

/// Cuts a message into chunks; an empty message is one empty chunk.
#[must_use]
pub fn chunks(message: impl Into<Bytes>) -> Chunks {
    Chunks { rest: Some(message.into()) }
}

impl Chunks {
    /// Whether the last chunk was taken.
    pub(crate) fn is_done(&self) -> bool {
        self.rest.is_none()
    }
}

impl Iterator for Chunks {
    type Item = Chunk;

    fn next(&mut self) -> Option<Chunk> {
        let mut rest = self.rest.take()?;
        if rest.len() <= MAX_CHUNK {
            return Some(Chunk { data: rest, last: true });
        }
        let data = rest.split_to(MAX_CHUNK);
        self.rest = Some(rest);
        Some(Chunk { data, last: false })
    }
}

/// Why chunks do not make a message. The stream that they came on cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// A chunk without data that is not a whole empty message.
    #[error("a chunk without data")]
    Empty,
    /// More than [`MAX_CHUNK`] bytes in a chunk.
    #[error("a chunk of {found} bytes; at most {MAX_CHUNK} are allowed")]
    ChunkSize {
        /// Its size in bytes.
        found: usize,
    },
    /// The message is longer than this side accepts.
    #[error("a message of more than {limit} bytes")]
    MessageSize {
        /// The limit in bytes.
        limit: usize,
    },
}

impl Explain for ChunkError {
    fn code(&self) -> &'static str {
        match self {
            Self::Empty | Self::ChunkSize { .. } => "malformed-chunk",
            Self::MessageSize { .. } => "message-too-long",
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::Empty | Self::ChunkSize { .. } => Status::InvalidArgument,
            Self::MessageSize { .. } => Status::ResourceExhausted,
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Empty | Self::ChunkSize { .. } => "use the same version on both sides, then open the stream again",
            Self::MessageSize { .. } => "send less in one message, or raise the receiver's limit",
        }
    }
}

/// Puts chunks together. Memory grows with what came, never with what was announced.
#[derive(Debug)]
pub struct Assembler {
    limit: usize,
    message: Vec<u8>,
    failed: Option<ChunkError>,
}

impl Assembler {
    /// Accepts messages of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, message: Vec::new(), failed: None }
    }

    /// Takes the next chunk; returns the message if it was the last one.
    ///
    /// # Errors
    /// [`ChunkError`], and from then on always the same: what follows on the stream has lost its beginning.
    pub fn push(&mut self, chunk: Chunk) -> Result<Option<Vec<u8>>, ChunkError> {
        match self.failed.map_or_else(|| self.check(&chunk), Err) {
            Ok(()) => {}
            Err(error) => {
                self.message = Vec::new();
                self.failed = Some(error);
                return Err(error);
            }
        }
        if self.message.is_empty() && chunk.last {
            return Ok(Some(chunk.data.into()));
        }
        self.message.extend_from_slice(&chunk.data);
        Ok(chunk.last.then(|| std::mem::take(&mut self.message)))
    }

    /// Whether no message has begun.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.message.is_empty()
    }

    fn check(&self, chunk: &Chunk) -> Result<(), ChunkError> {
        let found = chunk.data.len();
        if found > MAX_CHUNK {
            return Err(ChunkError::ChunkSize { found });
        }
        if found == 0 && !(chunk.last && self.message.is_empty()) {
            return Err(ChunkError::Empty);
        }
        if found > self.limit.saturating_sub(self.message.len()) {
            return Err(ChunkError::MessageSize { limit: self.limit });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk(bytes: usize, last: bool) -> Chunk {
        Chunk { data: vec![7; bytes].into(), last }
    }

    fn assemble(assembler: &mut Assembler, message: &[u8]) -> Vec<u8> {
        let mut whole = None;
        for chunk in chunks(message.to_vec()) {
            assert!(whole.is_none() && chunk.data.len() <= MAX_CHUNK);
            whole = assembler.push(chunk).unwrap();
        }
        whole.unwrap()
    }

    #[test]
    fn messages_around_the_chunk_size_survive() {
        let mut assembler = Assembler::new(3 * MAX_CHUNK);
        for bytes in [0, 1, MAX_CHUNK - 1, MAX_CHUNK, MAX_CHUNK + 1, 2 * MAX_CHUNK, 3 * MAX_CHUNK] {
            let message: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
            assert_eq!(chunks(message.clone()).count(), bytes.div_ceil(MAX_CHUNK).max(1));
            assert_eq!(assemble(&mut assembler, &message), message);
        }
    }

    #[test]
    fn a_message_over_the_limit_is_refused_before_it_is_kept() {
        let mut assembler = Assembler::new(10);
        assert_eq!(assembler.push(chunk(6, false)), Ok(None));
        let error = ChunkError::MessageSize { limit: 10 };
        assert_eq!(assembler.push(chunk(5, true)), Err(error));
        assert_eq!(assembler.message.capacity(), 0);
        // What follows is not taken for a message of its own.
        assert_eq!(assembler.push(chunk(1, true)), Err(error));
        assert_eq!(Assembler::new(10).push(chunk(10, true)), Ok(Some(vec![7; 10])));
    }

    #[test]
    fn empty_and_oversized_chunks_are_refused() {
        assert_eq!(Assembler::new(9).push(chunk(0, false)), Err(ChunkError::Empty));
        let mut begun = Assembler::new(9);
        begun.push(chunk(1, false)).unwrap();
        assert_eq!(begun.push(chunk(0, true)), Err(ChunkError::Empty));
        let found = MAX_CHUNK + 1;
        assert_eq!(Assembler::new(usize::MAX).push(chunk(found, true)), Err(ChunkError::ChunkSize { found }));
    }

    proptest! {
        /// Any chunks: what comes out is what a plain concatenation says, and nothing beyond the limit is kept.
        #[test]
        fn random_chunks_agree_with_concatenation(
            stream in proptest::collection::vec((0usize..6, any::<bool>()), 0..40), limit in 0usize..16,
        ) {
            let mut assembler = Assembler::new(limit);
            let (mut expected, mut failed) = (0usize, false);
            for (bytes, last) in stream {
                let answer = assembler.push(chunk(bytes, last));
                failed |= (bytes == 0 && !(last && expected == 0)) || expected + bytes > limit;
                expected += bytes;
                match (failed, last) {
                    (true, _) => prop_assert!(answer.is_err()),
                    (false, true) => prop_assert_eq!(answer, Ok(Some(vec![7; std::mem::take(&mut expected)]))),
                    (false, false) => prop_assert_eq!(answer, Ok(None)),
                }
                prop_assert!(assembler.message.len() <= limit);
            }
        }
    }
}
