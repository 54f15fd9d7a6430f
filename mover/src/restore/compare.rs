//! Comparing what is there with what is wanted, so that only differing ranges are fetched and written.

use std::{fs::File, io, ops::Range, os::fd::OwnedFd, sync::Arc};

use rayon::prelude::*;

use super::{
    batch::{Batch, FileTask, Piece, Sink},
    execute::Shared,
    verify::Zeros,
};
use crate::{
    error::{Error, Result},
    sys::{
        directory::{open_directory_beneath, to_c_string},
        file::{Extents, open_for_reading, read_full_at},
    },
    target::block::BlockTarget,
};

#[cfg(test)]
mod tests;

/// Pieces of one file that one thread compares in a row: some 16 MiB.
const GROUP_PIECES: usize = 256;
/// Bytes that one thread compares with zeros at once.
const ZEROS_AT_ONCE: u64 = 1 << 20;

/// Takes the pieces out that are right already. Pieces must still be in the order of planning.
pub(crate) fn drop_present(batch: &mut Batch, shared: &Shared) {
    let wanted: Vec<bool> = groups(&batch.pieces)
        .into_par_iter()
        .flat_map_iter(|range| {
            let mut buffer = Vec::new();
            let task = &batch.files[batch.pieces[range.start].file as usize];
            let pieces = &batch.pieces[range];
            pieces.iter().map(|piece| !is_present(task, piece, shared, &mut buffer)).collect::<Vec<_>>()
        })
        .collect();
    let mut wanted = wanted.into_iter();
    let files = &batch.files;
    let mut settled = Vec::new();
    batch.pieces.retain(|piece| {
        let keep = wanted.next().unwrap_or(true);
        if !keep {
            settled.push((piece.file, piece.length));
        }
        keep
    });
    for (file, length) in settled {
        files[file as usize].tell(shared.monitor.progress(), length.into());
        if files[file as usize].done() {
            batch.complete.push(std::sync::Arc::clone(&files[file as usize]));
        }
    }
}

fn is_present(task: &FileTask, piece: &Piece, shared: &Shared, buffer: &mut Vec<u8>) -> bool {
    // Whoever asked to stop does not wait until a full batch has been read; nothing of it is written any more.
    if shared.is_over() {
        return false;
    }
    buffer.resize(piece.length as usize, 0);
    let read = match &task.sink {
        Sink::File { open, .. } => match (open.get(), &shared.tree) {
            (Some(file), Some(tree)) if file.is_reused() => tree.read_at(file, piece.at, buffer),
            _ => return false,
        },
        Sink::Block(target) if shared.compare_block => target.read_at(piece.at, buffer),
        _ => return false,
    };
    // What cannot be read is written anew.
    matches!(read, Ok(count) if count == buffer.len()) && shared.reader.keys().chunk_id(buffer) == piece.id
}

/// Reads files back; reports each that differs.
pub(crate) fn verify(batch: &Batch, zeros: &[Zeros], shared: &Shared, root: &OwnedFd) {
    let check = |task: &FileTask, done: &dyn Fn() -> Result<()>| {
        if !task.has_failed()
            && let Err(error) = done()
        {
            shared.fail(task, &error);
        }
    };
    groups(&batch.pieces).into_par_iter().for_each(|range| {
        let task = &batch.files[batch.pieces[range.start].file as usize];
        check(task, &|| verify_group(task, &batch.pieces[range.clone()], shared, root));
    });
    zeros.par_iter().for_each(|range| check(&range.file, &|| verify_zeros(range, shared, root)));
}

/// Opens a restored file, which must have the right length.
fn open_restored(task: &FileTask, shared: &Shared, root: &OwnedFd) -> Result<File> {
    shared.cancel.check()?;
    let (directory, name) = crate::format::order::split_path(&task.path);
    let failed = |error| read_back_failed(error, task);
    let directory = open_directory_beneath(root, directory).map_err(failed)?;
    let name = to_c_string(name).map_err(failed)?;
    let file = open_for_reading(&directory, &name).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(Error::corrupt("it is not a file"));
    }
    if found.len() != task.metadata.size {
        return Err(Error::corrupt(format!(
            "it has {} bytes, the snapshot says {}",
            found.len(),
            task.metadata.size
        )));
    }
    Ok(file)
}

fn read_back_failed(error: io::Error, task: &FileTask) -> Error {
    Error::io(error, format!("read {} back", crate::monitor::escape_path(&task.path)))
}

fn verify_group(task: &FileTask, pieces: &[Piece], shared: &Shared, root: &OwnedFd) -> Result<()> {
    let file = open_restored(task, shared, root)?;
    let mut buffer = Vec::new();
    for piece in pieces {
        buffer.resize(piece.length as usize, 0);
        let count =
            read_full_at(&file, &mut buffer, piece.at).map_err(|error| read_back_failed(error, task))?;
        if count != buffer.len() || shared.reader.keys().chunk_id(&buffer) != piece.id {
            return Err(differs(piece.length.into(), piece.at));
        }
    }
    Ok(())
}

fn differs(length: u64, at: u64) -> Error {
    Error::corrupt(format!("the {length} bytes at {at} are not what the snapshot says"))
}

/// Only what the file system keeps data for is read.
fn verify_zeros(range: &Zeros, shared: &Shared, root: &OwnedFd) -> Result<()> {
    let task = &*range.file;
    let file = open_restored(task, shared, root)?;
    let mut buffer = Vec::new();
    for extent in Extents::within(&file, range.at, range.at + range.length) {
        let mut at = extent.offset;
        let end = extent.offset + extent.length;
        while at < end {
            shared.cancel.check()?;
            buffer.resize((end - at).min(ZEROS_AT_ONCE) as usize, 0);
            let count =
                read_full_at(&file, &mut buffer, at).map_err(|error| read_back_failed(error, task))?;
            if count != buffer.len() || buffer.iter().any(|byte| *byte != 0) {
                return Err(differs(range.length, range.at));
            }
            at += count as u64;
        }
    }
    Ok(())
}

/// What of a device or image is compared together.
#[derive(Debug, Default)]
pub(crate) struct BlockWork {
    pub batch: Batch,
    /// Ranges that must read as zeros: offset and length.
    pub zeros: Vec<(u64, u64)>,
}

impl BlockWork {
    pub(crate) fn size(&self) -> usize {
        self.batch.size() + self.zeros.len() * std::mem::size_of::<(u64, u64)>()
    }
}

/// Reads a device or image back; reports the first difference.
pub(crate) async fn verify_block(
    work: BlockWork,
    task: &Arc<FileTask>,
    target: &Arc<BlockTarget>,
    shared: &Arc<Shared>,
) -> Result<()> {
    let (task, target, shared) = (Arc::clone(task), Arc::clone(target), Arc::clone(shared));
    tokio::task::spawn_blocking(move || {
        let check = |done: &dyn Fn() -> Result<()>| {
            if !task.has_failed()
                && let Err(error) = shared.cancel.check().and_then(|()| done())
            {
                shared.fail(&task, &error);
            }
        };
        groups(&work.batch.pieces).into_par_iter().for_each(|range| {
            check(&|| verify_block_group(&work.batch.pieces[range.clone()], &target, &shared));
        });
        work.zeros.par_iter().for_each(|&(at, length)| {
            check(&|| target.check_zeros(at, length, || shared.cancel.check()));
        });
        shared.check()
    })
    .await
    .map_err(|error| Error::internal("comparing did not finish").with_source(error))?
}

fn verify_block_group(pieces: &[Piece], target: &BlockTarget, shared: &Shared) -> Result<()> {
    let mut buffer = Vec::new();
    for piece in pieces {
        buffer.resize(piece.length as usize, 0);
        let count = target.read_at(piece.at, &mut buffer)?;
        if count != buffer.len() || shared.reader.keys().chunk_id(&buffer) != piece.id {
            return Err(differs(piece.length.into(), piece.at));
        }
    }
    Ok(())
}

/// Stretches of pieces of one file.
fn groups(pieces: &[Piece]) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut start = 0;
    for index in 1..=pieces.len() {
        let ends = index == pieces.len()
            || pieces[index].file != pieces[start].file
            || index - start >= GROUP_PIECES;
        if ends {
            groups.push(start..index);
            start = index;
        }
    }
    groups
}
