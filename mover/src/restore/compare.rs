//! Comparing what is there with what is wanted, so that only differing ranges are fetched and written.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    batch::{Batch, FileTask, Piece, Sink},
    execute::Shared,
};
use crate::{
    error::{Error, Result},
    sys::{
        directory::{open_directory_beneath, to_c_string},
        file::{open_for_reading, read_full_at},
    },
};

/// Pieces of one file that one thread compares in a row: some 16 MiB.
const GROUP_PIECES: usize = 256;

/// Takes the pieces out that are right already. Pieces must still be in the order of planning.
pub(crate) fn drop_present(batch: &mut Batch, shared: &Shared) {
    let wanted: Vec<bool> = groups(&batch.pieces)
        .into_par_iter()
        .flat_map_iter(|range| {
            let mut buffer = Vec::new();
            let task = &batch.files[batch.pieces[range.start].file as usize];
            let pieces = &batch.pieces[range];
            pieces
                .iter()
                .map(|piece| !is_present(task, piece, shared, &mut buffer))
                .collect::<Vec<_>>()
        })
        .collect();
    let mut wanted = wanted.into_iter();
    let files = &batch.files;
    let mut settled = Vec::new();
    batch.pieces.retain(|piece| {
        let keep = wanted.next().unwrap_or(true);
        if !keep {
            settled.push(piece.file);
        }
        keep
    });
    for file in settled {
        if files[file as usize].done() {
            batch.complete.push(std::sync::Arc::clone(&files[file as usize]));
        }
    }
}

fn is_present(task: &FileTask, piece: &Piece, shared: &Shared, buffer: &mut Vec<u8>) -> bool {
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

/// Reads files back; reports each that differs, and gives the number of files that are right.
pub(crate) fn verify(batch: &Batch, shared: &Shared, root: &std::os::fd::OwnedFd) {
    groups(&batch.pieces).into_par_iter().for_each(|range| {
        let task = &batch.files[batch.pieces[range.start].file as usize];
        if !task.has_failed()
            && let Err(error) = verify_group(task, &batch.pieces[range], shared, root)
        {
            shared.fail(task, &error);
        }
    });
}

fn verify_group(
    task: &FileTask,
    pieces: &[Piece],
    shared: &Shared,
    root: &std::os::fd::OwnedFd,
) -> Result<()> {
    shared.cancel.check()?;
    let (directory, name) = crate::format::order::split_path(&task.path);
    let shown = crate::monitor::escape_path(&task.path);
    let failed = |error| Error::io(error, format!("read {shown} back"));
    let directory = open_directory_beneath(root, directory).map_err(failed)?;
    let name = to_c_string(name).map_err(failed)?;
    let file = open_for_reading(&directory, &name).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length != task.metadata.size {
        return Err(Error::corrupt(format!(
            "it has {length} bytes, the snapshot says {}",
            task.metadata.size
        )));
    }
    let mut buffer = Vec::new();
    for piece in pieces {
        buffer.resize(piece.length as usize, 0);
        let count = read_full_at(&file, &mut buffer, piece.at).map_err(failed)?;
        if count != buffer.len() || shared.reader.keys().chunk_id(&buffer) != piece.id {
            return Err(Error::corrupt(format!(
                "the {} bytes at {} are not what the snapshot says",
                piece.length, piece.at
            )));
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
