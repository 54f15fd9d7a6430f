//! What the storage of a device says has changed since the snapshot before: a list for the backup to go by.
//!
//! The list only saves work. Whatever is wrong with it, or with who should give it, all of the device is read, and the
//! result says why.

use std::{io, path::Path};

use carrack_mover::{
    backup::{BackupSource, parent_of},
    error::Result,
    format::{records::Snapshot, session::SessionName},
    repo::Repository,
    source::block::BlockSource,
};
use carrack_proto::{BackupTask, ListSource, MetadataService, VolumeState};
use tempfile::TempPath;

use self::extents::Extents;

mod extents;
mod service;
#[cfg(test)]
mod tests;
mod wire;

/// What has changed since a snapshot.
#[derive(Debug)]
pub(super) struct ChangeList {
    parent: SessionName,
    file: TempPath,
    bytes: u64,
}

impl ChangeList {
    /// The snapshot.
    pub(super) fn parent(&self) -> SessionName {
        self.parent
    }

    /// The file with the list, as `--changed-blocks` reads it; it is deleted with this.
    pub(super) fn path(&self) -> &Path {
        &self.file
    }

    /// Bytes in what has changed.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Asks what has changed since the snapshot that the backup is going to be compared with; or why there is no list.
pub(super) async fn ask(
    repository: &Repository,
    task: &BackupTask,
    (now, list): (&VolumeState, &ListSource),
    device: &str,
) -> Result<Result<ChangeList, String>> {
    let service = match list {
        _ if task.force => return Ok(Err("all of it was to be read".to_owned())),
        ListSource::Unavailable { because } => return Ok(Err(because.clone())),
        ListSource::Service(service) => service,
    };
    let source = BackupSource::Block { path: device.into(), changed: None, change_id: None };
    let Some(parent) = parent_of(repository, &task.source.host, &source).await? else {
        return Ok(Err("it is the first snapshot".to_owned()));
    };
    let size = BlockSource::open(Path::new(device))?.size();
    Ok(listed(&parent, now, service, size).await)
}

async fn listed(
    parent: &Snapshot,
    now: &VolumeState,
    service: &MetadataService,
    size: u64,
) -> Result<ChangeList, String> {
    let then = state_of(parent, now)?;
    let unwritten = |error: io::Error| format!("the list of changed blocks cannot be written: {error}");
    let mut extents = Extents::create(size).map_err(unwritten)?;
    // A storage need not know how to compare a snapshot with itself.
    if then != *now {
        can_be_compared(parent, &then, now, service)?;
        service::delta(service, &then.snapshot, &mut extents).await?;
    }
    let (file, bytes) = extents.finish().map_err(unwritten)?;
    Ok(ChangeList { parent: parent.session, file, bytes })
}

/// What a driver makes of a base that is not older than what it is compared with, or of a handle that stands for another
/// snapshot by now, is its own affair; so it is not asked.
fn can_be_compared(
    parent: &Snapshot,
    then: &VolumeState,
    now: &VolumeState,
    service: &MetadataService,
) -> Result<(), String> {
    let session = parent.session;
    if then.taken >= now.taken {
        return Err(format!("snapshot {session} is of a later state of the volume"));
    }
    if !service.bases.contains(&then.object) {
        return Err(format!(
            "the snapshot at the storage that {session} was made from is not there any more"
        ));
    }
    Ok(())
}

/// The state of the volume that a snapshot is of, if what has changed since then is all that differs from it.
fn state_of(parent: &Snapshot, now: &VolumeState) -> Result<VolumeState, String> {
    let session = parent.session;
    if parent.statistics.problems > 0 {
        return Err(format!("not all could be read for snapshot {session}"));
    }
    let Some(then) = parent.change_id.as_deref().and_then(VolumeState::from_text) else {
        return Err(format!("snapshot {session} does not say which snapshot of the storage it is of"));
    };
    if !then.is_of_volume_of(now) {
        return Err(format!("snapshot {session} is of another volume of the storage"));
    }
    Ok(then)
}
