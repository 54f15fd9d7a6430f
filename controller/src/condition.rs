//! Conditions in a status.

use carrack_controller_api::{condition, reason};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};

/// Longest message of a condition that the API server takes, in characters.
const MESSAGE_LIMIT: usize = 32_768;

/// Sets a condition. The time of its last change moves only if its status does.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    status: Option<bool>,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let status = match status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let mut condition = Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.chars().take(MESSAGE_LIMIT).collect(),
        observed_generation: generation,
        last_transition_time: Time(now),
    };
    match conditions.iter_mut().find(|found| found.type_ == kind) {
        Some(found) => {
            if found.status == condition.status {
                condition.last_transition_time = found.last_transition_time.clone();
            }
            *found = condition;
        }
        None => conditions.push(condition),
    }
}

/// It has come to its end: whether to a good one, and that what was made for it is still there.
pub fn ended(
    conditions: &mut Vec<Condition>,
    good: bool,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    set(conditions, condition::SUCCEEDED, Some(good), reason, message, generation, now);
    let message = "what was made for it is deleted";
    set(conditions, condition::CLEANED_UP, Some(false), reason::IN_PROGRESS, message, generation, now);
}

/// Nothing that was made for it is left.
pub fn cleaned(conditions: &mut Vec<Condition>, generation: Option<i64>, now: Timestamp) {
    let message = "nothing that was made for it is left";
    set(conditions, condition::CLEANED_UP, Some(true), reason::SUCCEEDED, message, generation, now);
}

/// Whether a condition is true.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|found| found.type_ == kind && found.status == "True")
}

/// Whether an object that came to its end needs nothing more: all is cleaned up, and nobody has changed it since. A start with
/// thousands of them asks nothing of the API server for them.
pub fn rests(metadata: &ObjectMeta, known: &[Condition], observed_generation: Option<i64>) -> bool {
    is_true(known, condition::CLEANED_UP)
        && metadata.deletion_timestamp.is_none()
        && metadata.generation == observed_generation
}
