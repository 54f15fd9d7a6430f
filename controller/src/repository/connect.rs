//! Opening a repository: a pod does it, with the repository's key.

use std::time::Duration;

use carrack_controller_api::{RepositoryStatus, condition as conditions, label, reason};
use carrack_proto::{JobResult, Output, Task};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use kube::{Api, ResourceExt as _};

use super::{HOLD_OFF, WORKING, not_ready, plain};
use crate::{
    access::{SecretData, Settled},
    condition,
    context::Context,
    error::{Obstacle, Result},
    memory, objects,
    pod::{self, JobFiles, KeyFile, MoverPod, Owner, PodState},
    sweep,
};

/// What a pod for a repository is made from.
#[derive(Debug)]
pub(super) struct Work<'a> {
    /// The cluster.
    pub context: &'a Context,
    /// The repository.
    pub owner: &'a Owner,
    /// Where it is.
    pub settled: &'a Settled,
    /// What reaches its store.
    pub credentials: SecretData,
    /// What opens it.
    pub key: SecretData,
}

/// How far a pod for a repository is.
#[derive(Debug)]
pub(super) enum Run {
    /// At work; since when it waits to begin, and for what.
    Working(Option<String>),
    /// Done.
    Ended(Box<JobResult>, Timestamp),
    /// Ended without a word.
    Lost(String, Timestamp),
}

impl Work<'_> {
    /// Changes with every setting and secret that matters.
    pub(super) fn settings_hash(&self) -> String {
        let mut all = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        all.update(&serde_json::to_vec(&self.settled.location).unwrap_or_default());
        for (name, value) in self.credentials.iter().chain(&self.key) {
            for part in [name.as_bytes(), value] {
                all.update(&(part.len() as u64).to_le_bytes());
                all.update(part);
            }
        }
        hex::encode(&all.finish().as_ref()[..10])
    }

    /// The repository's id, once it is known.
    pub(super) fn id(&self) -> Option<&str> {
        self.settled.status.as_ref()?.id.as_deref()
    }

    /// Starts a pod for a task, or looks at the one that runs.
    pub(super) async fn run(
        &self,
        name: &str,
        label: &'static str,
        task: impl FnOnce() -> Task,
    ) -> Result<Run> {
        let pods: Api<Pod> = Api::namespaced(self.context.client.clone(), &self.context.settings.namespace);
        let found = objects::find(&pods, name).await?;
        let ended = found.as_ref().and_then(ended_at).unwrap_or_else(|| self.context.now());
        Ok(match PodState::of(found.as_ref()) {
            PodState::Missing => {
                self.start(name, label, task()).await?;
                Run::Working(None)
            }
            PodState::Finished { result, .. } => Run::Ended(result, ended),
            PodState::Lost(lost) => Run::Lost(lost.message, ended),
            PodState::Waiting { because, .. } => Run::Working(because),
            PodState::Running { .. } | PodState::Ending { .. } => Run::Working(None),
        })
    }

    /// What came out of a pod that has ended, if it is still there.
    pub(super) async fn said(&self, name: &str) -> Result<Option<Output>> {
        let pods: Api<Pod> = Api::namespaced(self.context.client.clone(), &self.context.settings.namespace);
        Ok(match PodState::of(objects::find(&pods, name).await?.as_ref()) {
            PodState::Finished { result, .. } => result.output,
            _ => None,
        })
    }

    /// Deletes all pods of a task, those included that began with other settings.
    async fn clean_up_all(&self, task: &str) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.context.client.clone(), &self.context.settings.namespace);
        for found in sweep::chosen(&pods, self.owner).await? {
            if found.labels().get(label::TASK).is_some_and(|of| of == task) {
                pod::clean_up(self.context, &found.name_any()).await?;
            }
        }
        Ok(())
    }

    async fn start(&self, name: &str, label: &'static str, task: Task) -> Result<()> {
        let key = KeyFile::Repository(self.key.clone());
        let spec = plain();
        let deletes = matches!(task, Task::Maintain(_));
        let mut files = JobFiles::new(&self.settled.location, &self.credentials, key, &spec, task);
        if let Some(id) = self.id().filter(|_| deletes) {
            files.job.last_seen = memory::of_repository(self.context, id).await?;
        }
        let made = MoverPod {
            name: name.to_owned(),
            owner: self.owner,
            task: label,
            mover_type: &spec,
            volume: None,
            host_users: None,
            files,
        };
        pod::apply(self.context, &made).await.map(drop)
    }
}

fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|time| time.0)
}

/// Opens the repository with the settings of this hash; says when to look again.
pub(super) async fn step(
    work: &Work<'_>,
    initialise: bool,
    hash: String,
    status: &mut RepositoryStatus,
) -> Result<Duration> {
    let name = format!("connect-{}-{}", work.owner.uid, &hash[..8]);
    let obstacle = match work.run(&name, "connect", || Task::Connect { initialise }).await? {
        Run::Working(because) => {
            if status.conditions.iter().all(|found| found.type_ != conditions::READY) || because.is_some() {
                let words = because.unwrap_or_else(|| "the repository is opened".into());
                not_ready(work.context, status, &Obstacle::passing(reason::IN_PROGRESS, words));
            }
            return Ok(WORKING);
        }
        Run::Ended(result, ended) => match (&result.output, ended) {
            (Some(Output::Connect(output)), _) => match accept(work.context, status, &output.id, hash) {
                Ok(()) => {
                    work.clean_up_all("connect").await?;
                    return Ok(WORKING);
                }
                Err(obstacle) => (obstacle, ended),
            },
            _ => (pod::failure(&result), ended),
        },
        Run::Lost(message, ended) => (Obstacle::passing(reason::POD_FAILED, message), ended),
    };
    let (obstacle, ended) = obstacle;
    not_ready(work.context, status, &obstacle);
    // The pod that failed stays for a while: whoever looks finds its log, and the store is not asked all the time.
    let age = work.context.now().duration_since(ended).unsigned_abs();
    if age < HOLD_OFF {
        return Ok(HOLD_OFF - age);
    }
    pod::clean_up(work.context, &name).await?;
    Ok(WORKING)
}

/// It is open. Another repository than before behind the same address would make all backups unreadable: refused.
fn accept(context: &Context, status: &mut RepositoryStatus, id: &str, hash: String) -> Result<(), Obstacle> {
    if let Some(known) = status.id.as_ref().filter(|known| *known != id) {
        let message = format!(
            "there is another repository ({id}) than before ({known}) at this place: put the old one back, or make another \
             object for the new one"
        );
        return Err(Obstacle::passing(reason::REPOSITORY_NOT_READY, message));
    }
    status.id = Some(id.to_owned());
    status.settings_hash = Some(hash);
    status.last_connected = Some(Time(context.now()));
    let generation = status.observed_generation;
    let now = context.now();
    condition::set(
        &mut status.conditions,
        conditions::READY,
        Some(true),
        reason::SUCCEEDED,
        "the repository was opened",
        generation,
        now,
    );
    Ok(())
}
