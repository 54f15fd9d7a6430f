//! What became of a mover pod.

use carrack_controller_api::{annotation, reason};
use carrack_proto::{JobResult, Progress};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, Pod, PodStatus};

use kube::{Api, ResourceExt as _, api::LogParams};

use crate::error::Obstacle;

/// What became of a mover pod.
#[derive(Clone, Debug, PartialEq)]
pub enum PodState {
    /// There is none.
    Missing,
    /// It does not run yet.
    Waiting {
        /// Since when it exists.
        since: Timestamp,
        /// What keeps it, if anything can be seen.
        because: Option<String>,
        /// The nodes that it keeps away from, if it finds no other.
        avoided: Vec<String>,
    },
    /// It runs.
    Running {
        /// Where.
        node: Option<String>,
        /// Since when.
        since: Timestamp,
    },
    /// It is being deleted.
    Ending {
        /// Since when its time is up.
        deadline: Timestamp,
    },
    /// It came to its end and said how.
    Finished {
        /// How.
        result: Box<JobResult>,
        /// Where.
        node: Option<String>,
        /// When the mover began.
        started: Option<Timestamp>,
    },
    /// It ended without a word.
    Lost(Lost),
}

/// Why a pod ended without a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// In words, with the next step.
    pub message: String,
    /// Where.
    pub node: Option<String>,
    /// Whether another pod would end the same way.
    pub will_recur: bool,
    /// Whether the volume cannot be mounted for a pod with users of its own.
    pub needs_host_users: bool,
}

impl PodState {
    /// Looks at a pod.
    pub fn of(pod: Option<&Pod>) -> Self {
        let Some(pod) = pod else { return Self::Missing };
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let created = pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        let empty = PodStatus::default();
        let status = pod.status.as_ref().unwrap_or(&empty);
        let container = status.container_statuses.iter().flatten().find(|found| found.name == "mover");
        let state = container.and_then(|found| found.state.as_ref());
        if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
            return Self::ended(ended, node);
        }
        let phase = status.phase.as_deref().unwrap_or_default();
        if phase == "Failed" || phase == "Succeeded" {
            let why = [status.reason.as_deref(), status.message.as_deref()]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(": ");
            let why = if why.is_empty() { "it gave no reason".to_owned() } else { why };
            let message = format!("the mover pod ended before the mover did: {why}");
            return Self::Lost(Lost { message, node, will_recur: false, needs_host_users: false });
        }
        if let Some(deadline) = &pod.metadata.deletion_timestamp {
            return Self::Ending { deadline: deadline.0 };
        }
        match state.and_then(|state| state.running.as_ref()) {
            Some(running) => {
                Self::Running { node, since: running.started_at.as_ref().map_or(created, |time| time.0) }
            }
            None => match waiting_for(status, state) {
                Some(message) if is_about_owners(&message) => {
                    Self::Lost(Lost { message, node, will_recur: false, needs_host_users: true })
                }
                because => Self::Waiting { since: created, because, avoided: avoided(pod) },
            },
        }
    }

    fn ended(ended: &ContainerStateTerminated, node: Option<String>) -> Self {
        let started = ended.started_at.as_ref().map(|time| time.0);
        if let Some(result) = ended.message.as_deref().and_then(JobResult::read) {
            return Self::Finished { result: Box::new(result), node, started };
        }
        let reason = ended.reason.as_deref().unwrap_or("no reason");
        let message = if reason == "OOMKilled" {
            "the mover was killed for its memory: raise resources.limits.memory in the pod template of the DataMoverType".into()
        } else {
            format!("the mover ended without a result ({reason}, exit code {})", ended.exit_code)
        };
        let needs_host_users = ended.message.as_deref().is_some_and(is_about_owners);
        Self::Lost(Lost { message, node, will_recur: reason == "OOMKilled", needs_host_users })
    }

    /// Whether a process may still be at work.
    pub fn is_alive(&self) -> bool {
        matches!(self, Self::Waiting { .. } | Self::Running { .. } | Self::Ending { .. })
    }
}

/// Whether a container could not be made because its volume's file system cannot map owners: the runtime's own words.
fn is_about_owners(message: &str) -> bool {
    message.to_lowercase().contains("idmap")
}

/// The nodes that a pod keeps away from, if it finds no other.
fn avoided(pod: &Pod) -> Vec<String> {
    let status = pod.status.as_ref();
    let unscheduled = unscheduled(status.unwrap_or(&PodStatus::default())).is_some();
    avoided_nodes(pod).filter(|_| unscheduled).map(Into::into).collect()
}

/// The nodes that had no room for a pod when it was made.
pub fn avoided_nodes(pod: &Pod) -> impl Iterator<Item = &str> {
    let names = pod.annotations().get(annotation::AVOIDED_NODES);
    names.into_iter().flat_map(|names| names.split(',')).filter(|name| !name.is_empty())
}

/// What the scheduler says of a pod for which it finds no node.
fn unscheduled(status: &PodStatus) -> Option<String> {
    let conditions = status.conditions.iter().flatten();
    let found =
        conditions.into_iter().find(|found| found.type_ == "PodScheduled" && found.status == "False")?;
    found.message.clone()
}

/// What keeps a pod from running, as far as it says.
fn waiting_for(status: &PodStatus, state: Option<&ContainerState>) -> Option<String> {
    if let Some(waiting) = state.and_then(|state| state.waiting.as_ref())
        && let Some(why) =
            waiting.reason.as_deref().filter(|&why| why != "ContainerCreating" && why != "PodInitializing")
    {
        let more = waiting.message.as_deref().unwrap_or_default();
        return Some(format!("{why}: {more}"));
    }
    unscheduled(status).map(|message| format!("the pod finds no node: {message}"))
}

/// What a mover said last of how far it is. A log that cannot be read is no reason to stop.
pub async fn progress(pods: &Api<Pod>, name: &str) -> Option<Progress> {
    let parameters = LogParams { tail_lines: Some(5), limit_bytes: Some(16 << 10), ..LogParams::default() };
    let log = pods.logs(name, &parameters).await.ok()?;
    log.lines().rev().find_map(Progress::read)
}

/// The state of a pod, or the end that its mover has told already: a node may take a second to notice. For a mover that has
/// nothing to let go of.
pub async fn or_said(pods: &Api<Pod>, name: &str, state: PodState) -> PodState {
    let PodState::Running { node, since } = &state else { return state };
    let parameters = LogParams { tail_lines: Some(1), limit_bytes: Some(16 << 10), ..LogParams::default() };
    let said = pods.logs(name, &parameters).await.ok().and_then(|log| JobResult::read(log.trim()));
    match said {
        Some(result) => {
            PodState::Finished { result: Box::new(result), node: node.clone(), started: Some(*since) }
        }
        None => state,
    }
}

/// Exit code of a mover that could not do all, and was to do all or nothing.
const INCOMPLETE: u8 = 16;

/// Whether a mover could not do all with users of its own: the node's may see more.
pub fn needs_host_users(state: &PodState) -> bool {
    match state {
        PodState::Finished { result, .. } => result.exit_code == INCOMPLETE,
        PodState::Lost(lost) => lost.needs_host_users,
        _ => false,
    }
}

/// What a mover that failed means for its request.
pub fn failure(result: &JobResult) -> Obstacle {
    let mut message =
        if result.message.is_empty() { "the mover failed".to_owned() } else { result.message.clone() };
    if let Some(next) = &result.next {
        message = format!("{message}: {next}");
    }
    // The exit codes are those of the command line.
    let (reason, may_pass) = match result.exit_code {
        INCOMPLETE => (reason::POD_FAILED, true),
        10 => (reason::SOURCE_NOT_FOUND, false),
        12 => (reason::STORE_UNAVAILABLE, true),
        13 => (reason::DENIED, false),
        14 => (reason::CORRUPT, false),
        _ => (reason::MOVER_FAILED, false),
    };
    Obstacle { reason, message, may_pass }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn state(container: Value) -> PodState {
        let pod: Pod = serde_json::from_value(json!({ "status": { "phase": "Pending", "containerStatuses": [
            { "name": "mover", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": container }] } }))
        .unwrap();
        PodState::of(Some(&pod))
    }

    #[test]
    fn a_volume_that_cannot_map_owners_is_told_from_other_troubles() {
        let words = "failed to set MOUNT_ATTR_IDMAP on /var/lib/kubelet/x: invalid argument";
        let died = json!({ "terminated": { "exitCode": 128, "reason": "StartError", "message": words } });
        assert!(needs_host_users(&state(died)));
        assert!(needs_host_users(&state(
            json!({ "waiting": { "reason": "CreateContainerError", "message": words } })
        )));
        let other = state(json!({ "waiting": { "reason": "ErrImagePull", "message": "no such image" } }));
        assert!(!needs_host_users(&other) && matches!(other, PodState::Waiting { .. }));
        let killed = state(json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } }));
        assert!(!needs_host_users(&killed));
    }
}
