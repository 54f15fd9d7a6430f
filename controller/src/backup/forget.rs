//! A backup that is deleted with the policy *Delete* takes its snapshot out of the repository.

use carrack_proto::Task;
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

fn pod_name(owner: &Owner) -> String {
    format!("forget-{}", owner.uid)
}

/// The pod that forgets the snapshot.
pub(super) async fn state(context: &Context, owner: &Owner) -> Result<PodState> {
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    Ok(PodState::of(objects::find(&pods, &pod_name(owner)).await?.as_ref()))
}

/// Makes that pod.
pub(super) async fn start(context: &Context, owner: &Owner, seen: &Observed) -> Result<()> {
    let snapshot = seen.backup.status.as_ref().and_then(|status| status.snapshot_id.clone());
    let (Resolution::Ready(access), Some(snapshot)) = (&seen.resolution, snapshot) else { return Ok(()) };
    let key = KeyFile::Repository(access.key.clone());
    let mover_type = &access.mover_type.spec;
    let task = Task::Forget { snapshot };
    let files = JobFiles::new(&access.location, &access.credentials, key, mover_type, task);
    let made = MoverPod {
        name: pod_name(owner),
        owner,
        task: "forget",
        mover_type,
        volume: None,
        host_users: None,
        files,
    };
    pod::apply(context, &made).await.map(drop)
}
