//! What a mover says, in the form of a status.

use carrack_controller_api::BackupProgress;
use carrack_proto::{JobResult, Progress};

/// Bytes as a status has them: Kubernetes knows no numbers without a sign.
pub fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// How far a mover is; what it has done already is the least that there is in all.
pub fn progress(said: &Progress) -> BackupProgress {
    let total = said.total_bytes.unwrap_or(said.bytes_done).max(said.bytes_done);
    BackupProgress { bytes_done: signed(said.bytes_done), total_bytes: signed(total) }
}

/// All of it.
pub fn complete(bytes: u64) -> BackupProgress {
    BackupProgress { bytes_done: signed(bytes), total_bytes: signed(bytes) }
}

/// The first problems, a line each.
pub fn first_problems(result: &JobResult) -> Vec<String> {
    result.first_problems.iter().map(|problem| format!("{}: {}", problem.item, problem.message)).collect()
}
