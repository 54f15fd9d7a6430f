//! What crosses a process boundary between Carrack's programs.
//!
//! The controller writes a [`Job`] into a file that is mounted into a mover pod. The pod runs `carrack job FILE`, prints
//! [`Progress`] as JSON lines on standard output, and leaves a [`JobResult`] as its termination message, which Kubernetes
//! keeps in the status of the pod: no server listens, and the pod holds no credentials of the cluster.
//!
//! Fields may be added, none changes its meaning; a mover refuses a job of a [`VERSION`] that it does not know.

mod job;
mod progress;
mod result;
mod sealed;

pub use job::{
    BackupTask, ChangeTracking, Job, Keys, ListSource, MaintainTask, MetadataService, Place,
    RepositoryAccess, Resources, RestoreTask, SeenSnapshot, Source, Target, Task, VolumeState,
};
pub use progress::Progress;
pub use result::{
    BackupOutput, Changes, ConnectOutput, JobResult, MaintainOutput, NAMED_GONE, Outcome, Output, Problem,
    RestoreOutput, TERMINATION_MESSAGE_LIMIT,
};
pub use sealed::{SealError, SealKey};

/// The version of jobs and results that this code speaks.
pub const VERSION: u32 = 1;

#[cfg(test)]
mod tests;
