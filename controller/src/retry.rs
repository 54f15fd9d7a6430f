//! When work is looked at again, tried again and given up.

use std::time::Duration;

use carrack_controller_api::{condition as conditions, reason};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::{access::Access, error::Obstacle};

/// How often a mover pod that was lost is started again.
pub const LIMIT: u32 = 5;
/// How long after the first loss; each further time twice as long, so a store may be away for two minutes and a half.
const DELAY: SignedDuration = SignedDuration::from_secs(5);
/// How often is looked at what no watch tells of.
pub const SOON: Duration = Duration::from_millis(400);
/// The same in the first moments, in which most storages are done.
const AT_FIRST: Duration = Duration::from_millis(100);
/// How long those are.
const FIRST_MOMENTS: SignedDuration = SignedDuration::from_secs(4);
/// How often a request that waits for a slot, or for pods to stop, looks again.
pub const QUEUE: Duration = Duration::from_secs(3);
/// What is said meanwhile of a request whose mover finds no room on a node.
pub const CROWDED: &str =
    "waits for a node: as many movers run on each as the DataMoverType allows (concurrency.perNode)";
/// How often progress is asked for.
pub const PROGRESS: Duration = Duration::from_secs(2);
/// How often is looked at what a person must put right.
pub const LATER: Duration = Duration::from_secs(15);
/// How much longer than its grace a pod may take to end before it counts as lost with its node.
const OVERDUE: SignedDuration = SignedDuration::from_secs(30);

/// When to look again at what no watch tells of.
pub fn soon(now: Timestamp, accepted: Option<&Time>) -> Duration {
    let fresh = accepted.is_some_and(|time| now.duration_since(time.0) < FIRST_MOMENTS);
    if fresh { AT_FIRST } else { SOON }
}

/// How long until the next try may begin.
pub fn waits(now: Timestamp, retries: Option<u32>, known: &[Condition]) -> Option<Duration> {
    let tried = retries.filter(|&tried| tried > 0)?;
    let lost =
        known.iter().find(|found| found.type_ == conditions::MOVER_STARTED && found.status == "False")?;
    let delay = DELAY * (1_i32 << (tried - 1).min(LIMIT));
    let left = (lost.last_transition_time.0 + delay).duration_since(now);
    left.is_positive().then(|| left.unsigned_abs())
}

/// Preparation has its limit.
pub fn too_late(
    now: Timestamp,
    accepted: Option<&Time>,
    known: Option<&str>,
    access: &Access,
) -> Option<Obstacle> {
    let limit = access.mover_type.spec.timeouts.prepare_seconds;
    let late = now.duration_since(accepted?.0) > SignedDuration::from_secs(limit.into());
    late.then(|| {
        let known = known.unwrap_or("nothing says why");
        let message = format!(
            "the mover did not start within {limit} s (timeouts.prepareSeconds of the DataMoverType): {known}"
        );
        Obstacle::lasting(reason::TIMED_OUT, message)
    })
}

/// The beginning of preparation, for who waits for a turn: that is no time-out. Not newer than it must be, for each change
/// of a status is a write.
pub fn renewed(now: Timestamp, accepted: Option<Time>, access: &Access) -> Option<Time> {
    let half = SignedDuration::from_secs(i64::from(access.mover_type.spec.timeouts.prepare_seconds) / 2);
    accepted.map(|time| if now.duration_since(time.0) > half { Time(now) } else { time })
}

/// Whether a pod that is being deleted should be gone by now.
pub fn overdue(now: Timestamp, deadline: Timestamp) -> bool {
    now > deadline + OVERDUE
}
