//! An open file: its contents, and the piece of its list of chunks that was used last.

use std::sync::{Mutex, PoisonError};

use tokio::runtime::Handle;

use crate::{
    error::{Error, Result},
    format::{
        entry::{Content, Run},
        frame::ChunkRef,
    },
    reader::{SnapshotReader, runs::RunWalk},
};

#[derive(Debug)]
pub(super) struct OpenFile {
    reader: SnapshotReader,
    content: Content,
    size: u64,
    cursor: Mutex<Option<Cursor>>,
}

/// A walk along the contents, and its last piece.
#[derive(Debug)]
struct Cursor {
    walk: RunWalk,
    start: u64,
    end: u64,
    runs: Vec<Run>,
}

/// What a part of the contents is made of.
#[derive(Debug)]
struct Slice {
    /// None for zero bytes.
    chunk: Option<ChunkRef>,
    from: usize,
    length: usize,
}

impl OpenFile {
    pub(super) fn new(reader: SnapshotReader, content: Content, size: u64) -> Self {
        Self { reader, content, size, cursor: Mutex::default() }
    }

    /// `length` bytes from `offset` on; fewer only at the end of the file.
    pub(super) fn read(&self, handle: &Handle, offset: u64, length: u32) -> Result<Vec<u8>> {
        let end = offset.saturating_add(length.into()).min(self.size);
        if offset >= end {
            return Ok(Vec::new());
        }
        // Chunks are fetched without the lock, so that several readers of one file do not wait for each other.
        let slices = {
            let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
            let found = handle.block_on(self.locate(&mut cursor, offset, end));
            if found.is_err() {
                // The walk may have lost pages that could not be read: positions behind them would be wrong.
                *cursor = None;
            }
            found?
        };
        handle.block_on(self.fetch(&slices, (end - offset) as usize))
    }

    async fn locate(&self, cursor: &mut Option<Cursor>, offset: u64, end: u64) -> Result<Vec<Slice>> {
        // Where the last piece ends, the walk goes on; anywhere else it begins anew and skips.
        let fits = cursor.as_ref().is_some_and(|at| (at.start..=at.end).contains(&offset));
        if !fits {
            let mut walk = self.reader.runs(&self.content);
            walk.skip_to(offset).await?;
            *cursor = Some(Cursor { walk, start: 0, end: 0, runs: Vec::new() });
        }
        let at = cursor.as_mut().ok_or_else(|| Error::internal("a file lost its place"))?;
        let mut slices = Vec::new();
        let mut position = offset;
        loop {
            at.slice(&mut position, end, &mut slices);
            if position >= end {
                return Ok(slices);
            }
            let Some((start, runs)) = at.walk.next_piece().await? else {
                return Err(Error::corrupt(format!("contents end at byte {position}, before {end}")));
            };
            at.start = start;
            at.end = start + runs.iter().map(Run::length).sum::<u64>();
            at.runs = runs;
        }
    }

    async fn fetch(&self, slices: &[Slice], length: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        for slice in slices {
            let Some(chunk) = &slice.chunk else {
                bytes.resize(bytes.len() + slice.length, 0);
                continue;
            };
            let plain = self.reader.chunk(chunk).await?;
            let part = plain.get(slice.from..slice.from + slice.length);
            bytes
                .extend_from_slice(part.ok_or_else(|| Error::corrupt("a chunk is shorter than its length"))?);
        }
        Ok(bytes)
    }
}

impl Cursor {
    /// Adds what the piece has from `position` up to `end`, and moves the position behind it.
    fn slice(&self, position: &mut u64, end: u64, slices: &mut Vec<Slice>) {
        let mut start = self.start;
        for run in &self.runs {
            let next = start + run.length();
            if next > *position && start < end {
                let (from, to) = ((*position).max(start), next.min(end));
                let chunk = match run {
                    Run::Chunk(chunk) => Some(chunk.clone()),
                    Run::Hole(_) => None,
                };
                let length = (to - from) as usize;
                match slices.last_mut() {
                    // Holes may be of a byte each, and then there are as many as bytes are asked for.
                    Some(before) if before.chunk.is_none() && chunk.is_none() => before.length += length,
                    // Within a chunk, which is short; of a hole it is not looked at.
                    _ => slices.push(Slice { from: (from - start) as usize, length, chunk }),
                }
                *position = to;
            }
            start = next;
        }
    }
}
