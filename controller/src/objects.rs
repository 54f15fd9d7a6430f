//! Objects in the cluster: found, applied, deleted; each in one line with an error that names it.

use std::fmt::Debug;

use kube::{
    Api, Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    context::MANAGER,
    error::{Error, Result},
};

/// What an object must be to be worked with here.
pub trait Object: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned {}
impl<K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned> Object for K {}

fn named<K: Object>(verb: &str, name: &str) -> String {
    format!("{} {name} cannot be {verb}", K::kind(&()))
}

/// Digits for a name or a label that stand for a text which may be too long for one.
pub fn digits(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    hex::encode(&digest.as_ref()[..10])
}

/// The object of this name, if there is one.
pub async fn find<K: Object>(api: &Api<K>, name: &str) -> Result<Option<K>> {
    api.get_opt(name).await.map_err(Error::api(named::<K>("read", name)))
}

/// Makes the object what it should be, by server-side apply.
pub async fn apply<K: Object>(api: &Api<K>, object: &K) -> Result<K> {
    let name = object.name_any();
    let parameters = PatchParams::apply(MANAGER).force();
    api.patch(&name, &parameters, &Patch::Apply(object))
        .await
        .map_err(Error::api(named::<K>("applied", &name)))
}

/// Makes the object if there is none of its name. What others have added to one that is there stays, above all what it is
/// bound to: in a field that is applied as a whole it would be lost.
pub async fn ensure<K: Object>(api: &Api<K>, object: &K) -> Result<()> {
    if find(api, &object.name_any()).await?.is_none() {
        apply(api, object).await?;
    }
    Ok(())
}

/// Sets the status of an object, by server-side apply; false if the object is gone. With the version that was seen, so it is
/// a conflict if anything was written since: a controller that slept, and does not know yet that another one leads, must not
/// put back a phase that has passed.
pub async fn report<K: Object>(api: &Api<K>, object: &K, status: &impl Serialize) -> Result<bool> {
    let name = object.name_any();
    let patch = serde_json::json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()), "status": status,
        "metadata": { "name": name, "resourceVersion": object.resource_version() },
    });
    let parameters = PatchParams::apply(MANAGER).force();
    let written = api.patch_status(&name, &parameters, &Patch::Apply(patch)).await;
    match written.map_err(Error::api(named::<K>("reported on", &name))) {
        Ok(_) => Ok(true),
        Err(error) if error.is_absence() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Changes some fields of an object, by a merge patch.
pub async fn change<K: Object>(api: &Api<K>, name: &str, patch: serde_json::Value) -> Result<K> {
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map_err(Error::api(named::<K>("changed", name)))
}

/// Deletes this very object, if it is still there. An object of the same name that came later stays.
pub async fn delete<K: Object>(api: &Api<K>, object: &K, grace_seconds: Option<u32>) -> Result<()> {
    let name = object.name_any();
    let preconditions = object.uid().map(|uid| Preconditions { uid: Some(uid), resource_version: None });
    let parameters =
        DeleteParams { grace_period_seconds: grace_seconds, preconditions, ..DeleteParams::background() };
    match api.delete(&name, &parameters).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(error) => Err(Error::api(named::<K>("deleted", &name))(error)),
    }
}

/// Adds or removes our finalizer, and gives the object as it is then.
pub async fn hold<K: Object>(api: &Api<K>, object: &K, finalizer: &str, held: bool) -> Result<K> {
    let mut finalizers = object.finalizers().to_vec();
    finalizers.retain(|found| found != finalizer);
    if held {
        finalizers.push(finalizer.to_owned());
    }
    // With the version that was seen: somebody else's finalizer must not get lost.
    let patch = serde_json::json!({
        "metadata": { "finalizers": finalizers, "resourceVersion": object.resource_version() }
    });
    change(api, &object.name_any(), patch).await
}

#[cfg(test)]
mod tests {
    use carrack_controller_api::{DataMoverRestore, DataMoverRestoreStatus, RestorePhase as Phase};
    use serde_json::json;

    use super::*;
    use crate::fake::Fake;

    #[tokio::test]
    async fn what_was_seen_before_somebody_wrote_puts_no_phase_back() {
        const PATH: &str = "/apis/carrack.dev/v1alpha1/namespaces/market/datamoverrestores/first";
        let fake = Fake::default();
        let api: Api<DataMoverRestore> = Api::namespaced(fake.context().await.client, "market");
        let restore = |phase: &str| {
            json!({ "metadata": { "name": "first", "namespace": "market" }, "status": { "phase": phase },
                "spec": { "destinationClaimRef": { "name": "goods" }, "source": { "backup": "b" } } })
        };
        let status = |phase| DataMoverRestoreStatus { phase, ..DataMoverRestoreStatus::default() };
        fake.put(PATH, restore("Preparing"));
        let seen = find(&api, "first").await.unwrap().unwrap();
        fake.put(PATH, restore("Completed"));
        let stale = report(&api, &seen, &status(Phase::Running)).await;
        assert!(stale.is_err_and(|error| error.is_conflict()), "it is looked at again");
        assert_eq!(fake.get(PATH)["status"]["phase"], "Completed");
        let seen = find(&api, "first").await.unwrap().unwrap();
        assert!(report(&api, &seen, &status(Phase::Failed)).await.unwrap());
        assert_eq!(fake.get(PATH)["status"]["phase"], "Failed", "what was seen last may be written");
    }
}
