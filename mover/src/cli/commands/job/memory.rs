//! What whoever wrote a job has seen of the repository: a pod is new and remembers nothing, a cluster does.

use carrack_proto::SeenSnapshot;

use crate::cli::last_seen::{LastSeen, Seen};

#[cfg(test)]
mod tests;

/// The memory that a job brings along. What is no name of a session was never there, and nobody misses it.
pub(super) fn of(seen: &[SeenSnapshot]) -> LastSeen {
    LastSeen::given(seen.iter().filter_map(read))
}

fn read(seen: &SeenSnapshot) -> Option<Seen> {
    Some(Seen { session: seen.snapshot.parse().ok()?, started: seen.started })
}
