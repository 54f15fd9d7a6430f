//! A backup that is deleted with the policy *Delete* takes its snapshot out of the repository.

use carrack_controller_api::DataMoverBackupStatus;
use carrack_proto::{Job, Outcome, Task, VERSION};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use super::observe::Observed;
use crate::{
    access::Resolution,
    context::Context,
    error::Result,
    objects,
    pod::{self, JobFiles, KeyFile, MoverPod, Owner, PodState},
};

/// Whether the snapshot is forgotten, or cannot be: a repository that is gone must not hold the backup for ever.
pub(super) async fn forget(context: &Context, owner: &Owner, seen: &Observed) -> Result<bool> {
    let status = seen.backup.status.clone().unwrap_or_default();
    let Some(snapshot) = status.snapshot_id.clone() else { return Ok(true) };
    let name = format!("forget-{}", owner.uid);
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    match PodState::of(objects::find(&pods, &name).await?.as_ref()) {
        PodState::Missing => {
            start(context, owner, seen, name, snapshot, &status).await?;
            Ok(false)
        }
        PodState::Finished { result, .. } => {
            if result.outcome != Outcome::Completed {
                let note = format!(
                    "the snapshot stays until the rules of the repository forget it: {}",
                    result.message
                );
                context.tell(&seen.backup, true, carrack_controller_api::reason::MOVER_FAILED, &note).await;
            }
            pod::clean_up(context, &name).await
        }
        PodState::Lost(_) => pod::clean_up(context, &name).await.map(|_| false),
        PodState::Waiting { .. } | PodState::Running { .. } | PodState::Ending { .. } => Ok(false),
    }
}

async fn start(
    context: &Context,
    owner: &Owner,
    seen: &Observed,
    name: String,
    snapshot: String,
    status: &DataMoverBackupStatus,
) -> Result<()> {
    let Resolution::Ready(access) = &seen.resolution else { return Ok(()) };
    if status.repository_id.as_ref() != Some(&access.repository_id) {
        return Ok(());
    }
    let key = KeyFile::Repository(access.key.clone());
    let files = JobFiles {
        job: Job {
            version: VERSION,
            repository: pod::access(&access.location),
            keys: pod::keys(&key),
            resources: pod::resources(&access.mover_type.spec),
            task: Task::Forget { snapshot },
        },
        key,
        credentials: access.credentials.clone(),
        certificate_authority: access.location.certificate_authority.clone(),
        seal: None,
    };
    let made =
        MoverPod { name, owner, task: "forget", mover_type: &access.mover_type.spec, volume: None, files };
    pod::apply(context, &made).await.map(drop)
}
