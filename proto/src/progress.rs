//! What a mover pod says while it works.

use serde::{Deserialize, Serialize};

/// A line of standard output whose `message_type` is `status`. Lines of other types are for people who read the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Always `status`.
    pub message_type: String,
    /// What part of the work goes on.
    #[serde(default)]
    pub phase: String,
    /// Bytes of the source or snapshot that are done.
    #[serde(default)]
    pub bytes_done: u64,
    /// Bytes of all of it; none while it is not known.
    #[serde(default)]
    pub total_bytes: Option<u64>,
    /// Files that are done.
    #[serde(default)]
    pub files_done: u64,
    /// Bytes that went to the store or came from it.
    #[serde(default)]
    pub bytes_stored: u64,
    /// Problems so far.
    #[serde(default)]
    pub error_count: u64,
}

impl Progress {
    /// Reads a line of output; none if it is something else.
    pub fn read(line: &str) -> Option<Self> {
        let mut progress = serde_json::from_str::<Self>(line).ok()?;
        // The program says 0 of what it does not know yet.
        progress.total_bytes = progress.total_bytes.filter(|&bytes| bytes > 0);
        (progress.message_type == "status").then_some(progress)
    }
}
