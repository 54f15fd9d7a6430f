//! What became of a mover pod.

use carrack_controller_api::reason;
use carrack_proto::{JobResult, Progress};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, Pod, PodStatus};

use kube::{Api, api::LogParams};

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
            return Self::Lost(Lost { message, node, will_recur: false });
        }
        if let Some(deadline) = &pod.metadata.deletion_timestamp {
            return Self::Ending { deadline: deadline.0 };
        }
        match state.and_then(|state| state.running.as_ref()) {
            Some(running) => {
                Self::Running { node, since: running.started_at.as_ref().map_or(created, |time| time.0) }
            }
            None => Self::Waiting { since: created, because: waiting_for(status, state) },
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
        Self::Lost(Lost { message, node, will_recur: reason == "OOMKilled" })
    }

    /// Whether a process may still be at work.
    pub fn is_alive(&self) -> bool {
        matches!(self, Self::Waiting { .. } | Self::Running { .. } | Self::Ending { .. })
    }
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
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|found| found.type_ == "PodScheduled" && found.status == "False")?;
    let message = unscheduled.message.as_deref()?;
    Some(format!("the pod finds no node: {message}"))
}

/// What a mover said last of how far it is. A log that cannot be read is no reason to stop.
pub async fn progress(pods: &Api<Pod>, name: &str) -> Option<Progress> {
    let parameters = LogParams { tail_lines: Some(5), limit_bytes: Some(16 << 10), ..LogParams::default() };
    let log = pods.logs(name, &parameters).await.ok()?;
    log.lines().rev().find_map(Progress::read)
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
        10 => (reason::SOURCE_NOT_FOUND, false),
        12 => (reason::STORE_UNAVAILABLE, true),
        13 => (reason::DENIED, false),
        14 => (reason::CORRUPT, false),
        _ => (reason::MOVER_FAILED, false),
    };
    Obstacle { reason, message, may_pass }
}
