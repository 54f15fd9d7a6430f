//! Reading and cutting: the source is dealt out to threads in units of some MiB, in path order.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use anyhow::{Context, Result};
use carrack_mover::chunker::Chunker;
use carrack_mover::limits;
use rustix::fs::{SeekFrom, seek};

use super::frame::{Frame, Writer};
use super::{Id, KEY, Place, learn};
use crate::walk::Found;

/// Bytes of a unit: enough that a segment's forced cut at its end does not count, few enough to balance.
const UNIT: u64 = 16 << 20;
/// Bytes read at a time.
const READ: usize = 4 << 20;
/// Files up to this length are one read; larger ones are made at their length before a restore writes.
pub(super) const SMALL: u64 = 1 << 20;

/// A range of one file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    file: u32,
    offset: u64,
    length: u64,
}

/// Deals the files out: large ones in segments, small ones many to a unit.
pub(super) fn units(files: &[Found]) -> Vec<Vec<Piece>> {
    let mut units = vec![Vec::new()];
    let mut room = UNIT;
    for (number, file) in files.iter().enumerate() {
        let mut offset = 0;
        while offset < file.size {
            if room == 0 {
                units.push(Vec::new());
                room = UNIT;
            }
            let length = (file.size - offset).min(room);
            if let Some(unit) = units.last_mut() {
                unit.push(Piece { file: number as u32, offset, length });
            }
            offset += length;
            room -= length;
        }
    }
    units
}

/// What reading one unit gives: new frames, and the places of chunks that were there already.
pub(super) type UnitResult = (Vec<Frame>, Vec<(Id, Place)>);

/// Reads, cuts, hashes and stores one unit; its frames, and the chunks that were known already.
pub(super) fn unit(
    unit: &[Piece],
    files: &[Found],
    chunker: &Chunker,
    known: &[Mutex<HashSet<Id>>],
    writer: &mut Writer<'_>,
) -> Result<UnitResult> {
    let (mut frames, mut repeats) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; READ.min(unit.iter().map(|piece| piece.length as usize).max().unwrap_or(0))];
    for piece in unit {
        let path = &files[piece.file as usize].path;
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let sparse = files[piece.file as usize].allocated < files[piece.file as usize].size;
        let end = piece.offset + piece.length;
        let mut at = piece.offset;
        while at < end {
            let mut stop = end;
            if sparse {
                let Some((data, hole)) = data_range(&file, at)? else { break };
                if data >= end {
                    break;
                }
                (at, stop) = (data.max(at), hole.min(end));
            }
            at = range(
                &file,
                at,
                stop,
                piece.file,
                &mut buffer,
                |bytes, place| {
                    let id = *blake3::keyed_hash(&KEY, bytes).as_bytes();
                    if learn(known, &id) {
                        writer.add(id, bytes, place, &mut frames)
                    } else {
                        repeats.push((id, place));
                        Ok(())
                    }
                },
                chunker,
            )?;
        }
    }
    writer.flush(&mut frames)?;
    Ok((frames, repeats))
}

/// Cuts `start..stop` of `file`; each chunk goes to `each`. Returns `stop`.
fn range(
    file: &File,
    start: u64,
    stop: u64,
    number: u32,
    buffer: &mut [u8],
    mut each: impl FnMut(&[u8], Place) -> Result<()>,
    chunker: &Chunker,
) -> Result<u64> {
    let (mut offset, mut filled) = (start, 0);
    while offset < stop {
        let wanted = ((stop - offset) as usize).min(buffer.len());
        file.read_exact_at(&mut buffer[filled..wanted], offset + filled as u64)
            .context("read the dataset")?;
        let last = offset + wanted as u64 == stop;
        let mut at = 0;
        while at < wanted && (last || wanted - at >= limits::CHUNK_MAX as usize) {
            let length = chunker.cut(&buffer[at..wanted]);
            each(&buffer[at..at + length], Place { file: number, offset: offset + at as u64 })?;
            at += length;
        }
        buffer.copy_within(at..wanted, 0);
        filled = wanted - at;
        offset += at as u64;
    }
    Ok(stop)
}

/// The next run of data at or after `at`; none when only a hole is left.
fn data_range(file: &File, at: u64) -> Result<Option<(u64, u64)>> {
    let data = match seek(file, SeekFrom::Data(at)) {
        Ok(data) => data,
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(e) => return Err(e).context("look for the next data"),
    };
    Ok(Some((data, seek(file, SeekFrom::Hole(data)).context("look for the next hole")?)))
}
