//! A backup that is deleted with the policy *Delete* takes its snapshot out of the repository.

use carrack_proto::{Job, Outcome, Task, VERSION};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use super::observe::Observed;
use crate::{
    access::{Access, Resolution},
    context::Context,
    error::Result,
    objects,
    pod::{self, JobFiles, KeyFile, MoverPod, Owner, PodState},
};

/// Whether the snapshot is forgotten, or cannot be: a repository that is gone must not hold the backup for ever.
pub(super) async fn forget(context: &Context, owner: &Owner, seen: &Observed) -> Result<bool> {
    let status = seen.backup.status.clone().unwrap_or_default();
    let Some(snapshot) = status.snapshot_id.clone() else { return Ok(true) };
    let access = match &seen.resolution {
        Resolution::Ready(access) if status.repository_id.as_ref() == Some(&access.repository_id) => access,
        Resolution::Ready(_) | Resolution::Blocked(_) | Resolution::Foreign => {
            stays(context, seen, "its repository is not the one of the mover type any more, or not ready")
                .await;
            return Ok(true);
        }
    };
    let name = format!("forget-{}", owner.uid);
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    match PodState::of(objects::find(&pods, &name).await?.as_ref()) {
        PodState::Missing => {
            start(context, owner, access, name, snapshot).await?;
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

async fn stays(context: &Context, seen: &Observed, why: &str) {
    let note = format!("the snapshot stays until the rules of the repository forget it: {why}");
    context.tell(&seen.backup, true, carrack_controller_api::reason::MOVER_FAILED, &note).await;
}

async fn start(
    context: &Context,
    owner: &Owner,
    access: &Access,
    name: String,
    snapshot: String,
) -> Result<()> {
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
