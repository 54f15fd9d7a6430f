//! The workers: open a frame once, check every chunk, write it everywhere it is wanted.

use std::sync::{PoisonError, atomic::Ordering};

use crossbeam_channel::Receiver;

use super::{
    batch::{Batch, FileTask, FramePart, Piece, Sink},
    execute::{Job, Shared},
};
use crate::{
    error::{Error, ErrorKind, Result},
    format::frame::FrameKind,
    monitor::Progress,
    reader::{
        frame::{FrameOpener, into_mutable, wrong_id},
        piece,
    },
};

#[cfg(test)]
mod tests;

/// Works until nobody sends any more.
pub(crate) fn run(shared: &Shared, queue: &Receiver<Job>) {
    let mut opener = FrameOpener::default();
    for job in queue {
        match job {
            Job::Complete(task) => complete(shared, &task),
            Job::Range { batch, range, bytes, back } => match bytes {
                Ok(bytes) => {
                    let (mut stored, mut spoiled) = (into_mutable(bytes), Vec::new());
                    for part in range.parts {
                        let from = (u64::from(part.place.offset) - range.start) as usize;
                        let slice = &mut stored[from..from + part.place.stored as usize];
                        let done = open_and_write(shared, &mut opener, &batch, &part, slice);
                        spoiled.extend(done.err().map(|error| (part, error)));
                    }
                    back.give(batch, spoiled);
                }
                Err(error) => range.parts.iter().for_each(|part| fail(shared, &batch, part, &error)),
            },
            Job::Frames { batch, range, frames, back } => {
                let mut spoiled = Vec::new();
                for (part, frame) in range.parts.into_iter().zip(frames) {
                    match frame.map(into_mutable) {
                        Ok(mut stored) => {
                            let done = open_and_write(shared, &mut opener, &batch, &part, &mut stored);
                            spoiled.extend(done.err().map(|error| (part, error)));
                        }
                        Err(error) => fail(shared, &batch, &part, &error),
                    }
                }
                back.give(batch, spoiled);
            }
            Job::Opened { batch, part, plain, _budget, _turn } => match plain {
                Ok(plain) if !shared.is_over() => write_pieces(shared, &batch, &part, &plain),
                Ok(_) => {}
                Err(error) => fail(shared, &batch, &part, &error),
            },
        }
    }
}

/// The error is that of stored bytes that are not what they must be: nothing was written, and nobody has failed yet.
fn open_and_write(
    shared: &Shared,
    opener: &mut FrameOpener,
    batch: &Batch,
    part: &FramePart,
    stored: &mut [u8],
) -> Result<()> {
    if shared.is_over() {
        return Ok(());
    }
    let cipher = match &part.cipher {
        Ok(cipher) => cipher,
        Err(error) => {
            fail(shared, batch, part, error);
            return Ok(());
        }
    };
    match opener.open(cipher, FrameKind::Data, &part.place, stored) {
        Ok(plain) => write_pieces(shared, batch, part, plain),
        Err(error) if error.kind() == ErrorKind::Corrupt => return Err(error),
        Err(error) => fail(shared, batch, part, &error),
    }
    Ok(())
}

/// Nothing of this frame can be had: the files that want it fail.
fn fail(shared: &Shared, batch: &Batch, part: &FramePart, error: &Error) {
    for piece in &batch.pieces[part.pieces.clone()] {
        let task = &batch.files[piece.file as usize];
        shared.fail(task, error);
        if task.done() {
            complete(shared, task);
        }
    }
}

fn write_pieces(shared: &Shared, batch: &Batch, part: &FramePart, plain: &[u8]) {
    let pieces = &batch.pieces[part.pieces.clone()];
    let mut checked = None;
    let mut start = 0;
    while start < pieces.len() {
        // Neighbours in the frame that are neighbours in one file are written together.
        let mut end = start;
        let mut problem = None;
        while end < pieces.len() && (end == start || follows(&pieces[end - 1], &pieces[end])) {
            let wanted = &pieces[end];
            let this = Some((wanted.offset, wanted.length, wanted.id));
            if checked != this {
                let right = piece(plain, wanted.offset, wanted.length)
                    .is_ok_and(|bytes| shared.reader.keys().chunk_id(bytes) == wanted.id);
                if !right {
                    problem = Some(wrong_id(&part.place, wanted.offset));
                    end += 1;
                    break;
                }
                checked = this;
            }
            end += 1;
        }
        let task = &batch.files[pieces[start].file as usize];
        let (first, last) = (&pieces[start], &pieces[end - 1]);
        let done = match problem {
            Some(error) => Err(error),
            None => write(shared, task, first.at, &plain[first.offset as usize..][..span(first, last)]),
        };
        if let Err(error) = done {
            shared.fail(task, &error);
        }
        let mut last_one = false;
        for _ in start..end {
            last_one |= task.done();
        }
        if last_one {
            complete(shared, task);
        }
        start = end;
    }
}

fn follows(before: &Piece, next: &Piece) -> bool {
    next.file == before.file
        && next.offset == before.offset + before.length
        && next.at == before.at + u64::from(before.length)
}

fn span(first: &Piece, last: &Piece) -> usize {
    (last.offset + last.length - first.offset) as usize
}

fn write(shared: &Shared, task: &FileTask, at: u64, bytes: &[u8]) -> Result<()> {
    if task.has_failed() {
        return Ok(());
    }
    match (&task.sink, &shared.tree) {
        (Sink::Small, Some(tree)) => {
            let made = tree.create_small_file(&task.path, &task.metadata, bytes)?;
            keep_made(shared, task, made);
        }
        (Sink::File { .. }, Some(tree)) => {
            if let Some(file) = task.made(tree)? {
                tree.write_at(file, at, bytes)?;
            }
        }
        (Sink::Block(target), _) => target.write_at(at, bytes)?,
        _ => return Err(Error::internal("a restore has nowhere to write to")),
    }
    shared.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    Progress::add(&shared.monitor.progress().bytes_moved, bytes.len() as u64);
    task.tell(shared.monitor.progress(), bytes.len() as u64);
    Ok(())
}

/// Every piece of a file is where it belongs: length, attributes, closing.
pub(crate) fn complete(shared: &Shared, task: &FileTask) {
    if task.has_failed() || shared.is_over() {
        return;
    }
    if let Err(error) = finish(shared, task) {
        return shared.fail(task, &error);
    }
    Progress::add(&shared.monitor.progress().entries, 1);
    task.tell_rest(shared.monitor.progress());
}

fn finish(shared: &Shared, task: &FileTask) -> Result<()> {
    let Some(tree) = &shared.tree else { return Ok(()) };
    if let Some(file) = task.made(tree)? {
        let made = tree.finish_file(file, &task.metadata)?;
        keep_made(shared, task, made);
    }
    Ok(())
}

fn keep_made(shared: &Shared, task: &FileTask, made: crate::target::tree::Made) {
    if task.metadata.links > 1 {
        let key = (task.metadata.device, task.metadata.inode);
        shared.made.lock().unwrap_or_else(PoisonError::into_inner).insert(key, made);
    }
}
