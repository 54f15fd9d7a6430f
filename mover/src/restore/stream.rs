//! Writes one content in order, to standard output or any other writer: frames are fetched and opened ahead, in
//! parallel, and handed out in turn.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::worker_count;
use crate::{
    cancel::Cancel,
    error::{Error, Result},
    format::{
        entry::{Entry, Run},
        frame::ChunkRef,
    },
    limits,
    monitor::{Monitor, Progress},
    reader::{SnapshotReader, place_of},
    target::stdout::StreamTarget,
};

/// Frames that are opened ahead for each worker: enough to hide a remote store's latency.
const AHEAD_PER_WORKER: usize = 4;

/// Zeros that are written before somebody is asked whether to go on.
const ZEROS_AT_ONCE: u64 = 16 << 20;

/// What comes next in the stream.
enum Next {
    Zeros(u64),
    Frame(JoinHandle<Result<Vec<Bytes>>>),
}

/// Writes the contents of an entry; gives the number of bytes.
pub async fn dump(
    reader: &SnapshotReader,
    entry: &Entry,
    mut target: StreamTarget,
    memory_bytes: u64,
    monitor: Arc<dyn Monitor>,
    cancel: Cancel,
) -> Result<u64> {
    let by_memory = usize::try_from(memory_bytes / (8 << 20)).unwrap_or(usize::MAX);
    let ahead = (worker_count(0) * AHEAD_PER_WORKER).min(by_memory).max(1);
    Progress::add(&monitor.progress().bytes_expected, entry.metadata.size);
    let mut waiting: VecDeque<Next> = VecDeque::new();
    let mut group: Vec<ChunkRef> = Vec::new();
    let mut runs = reader.runs(&entry.content);
    while let Some((_, run_piece)) = runs.next_piece().await? {
        for run in run_piece {
            cancel.check()?;
            match run {
                Run::Hole(length) => {
                    start(reader, &mut group, &mut waiting);
                    waiting.push_back(Next::Zeros(length));
                }
                Run::Chunk(chunk) => {
                    // A content may name the chunks of one frame any number of times.
                    if group.len() >= limits::FRAME_CHUNKS
                        || group.last().is_some_and(|last| last.frame != chunk.frame)
                    {
                        start(reader, &mut group, &mut waiting);
                    }
                    group.push(chunk);
                }
            }
            while waiting.len() > ahead {
                target = write_next(&mut waiting, target, &*monitor, &cancel).await?;
            }
        }
    }
    start(reader, &mut group, &mut waiting);
    while !waiting.is_empty() {
        cancel.check()?;
        target = write_next(&mut waiting, target, &*monitor, &cancel).await?;
    }
    target.finish()
}

/// Begins to open the chunks collected so far, which lie in one frame.
fn start(reader: &SnapshotReader, group: &mut Vec<ChunkRef>, waiting: &mut VecDeque<Next>) {
    if group.is_empty() {
        return;
    }
    let (reader, chunks) = (reader.clone(), std::mem::take(group));
    waiting.push_back(Next::Frame(tokio::spawn(async move {
        let place = *place_of(&chunks[0])?;
        let opened = reader.open_data_frame(&place).await?;
        let cut = move || chunks.iter().map(|chunk| reader.cut_out(&opened, &place, chunk)).collect();
        tokio::task::spawn_blocking(cut)
            .await
            .map_err(|error| Error::internal("reading a frame did not finish").with_source(error))?
    })));
}

async fn write_next(
    waiting: &mut VecDeque<Next>,
    mut target: StreamTarget,
    monitor: &dyn Monitor,
    cancel: &Cancel,
) -> Result<StreamTarget> {
    let Some(next) = waiting.pop_front() else { return Ok(target) };
    let pieces = match next {
        Next::Zeros(length) => {
            // A hole may be longer than anybody waits for.
            let mut left = length;
            while left > 0 {
                cancel.check()?;
                let piece = left.min(ZEROS_AT_ONCE);
                target.write_zeros(piece)?;
                Progress::add(&monitor.progress().bytes, piece);
                left -= piece;
            }
            return Ok(target);
        }
        Next::Frame(task) => task
            .await
            .map_err(|error| Error::internal("reading ahead did not finish").with_source(error))??,
    };
    for bytes in pieces {
        target.write(&bytes)?;
        Progress::add(&monitor.progress().bytes, bytes.len() as u64);
    }
    Ok(target)
}
