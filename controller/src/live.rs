//! A volume itself, in Carrack's namespace too for as long as a mover needs it.
//!
//! A pod mounts claims of its own namespace only, and keys do not leave Carrack's. So a second PersistentVolume, the
//! *alias*, names the same storage, with a claim of its own here. It says *Retain* and has no provisioner's mark, so to delete
//! it deletes nothing but the name.

use std::collections::BTreeMap;

use carrack_controller_api::{annotation, reason};
use k8s_openapi::{
    api::core::v1::{
        ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod,
        VolumeResourceRequirements,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, ResourceExt as _, api::ListParams};

use crate::{
    context::Context,
    error::{Error, Obstacle, Result},
    objects,
    pod::Owner,
};

/// A volume that is read or written itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// The volume.
    pub volume: PersistentVolume,
    /// Pods that use its claim now.
    pub users: Vec<User>,
}

/// A pod that uses a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub pod: String,
    /// Where it runs, once that is known.
    pub node: Option<String>,
}

impl Live {
    /// Looks at who uses the claim of a volume.
    pub async fn of(
        context: &Context,
        namespace: &str,
        claim: &str,
        volume: PersistentVolume,
    ) -> Result<Result<Self, Obstacle>> {
        if volume.spec.as_ref().is_some_and(|spec| spec.host_path.is_some()) {
            let message = format!(
                "PersistentVolume {} of claim {claim} is a directory of its node (hostPath): movers do not touch those",
                volume.name_any()
            );
            return Ok(Err(Obstacle::invalid(message)));
        }
        Ok(Ok(Self { volume, users: users(context, namespace, claim).await? }))
    }

    /// The nodes that a mover must run on: those of its users, unless the volume can be on many at once.
    pub fn nodes(&self) -> Vec<String> {
        if self.access_mode() == "ReadWriteMany" {
            return Vec::new();
        }
        let mut nodes: Vec<String> = self.users.iter().filter_map(|user| user.node.clone()).collect();
        nodes.sort();
        nodes.dedup();
        nodes
    }

    /// The pods that use it, for a person; none if there are none.
    pub fn used_by(&self) -> Option<String> {
        let pods: Vec<&str> = self.users.iter().map(|user| user.pod.as_str()).collect();
        (!pods.is_empty()).then(|| pods.join(", "))
    }

    /// Makes alias and claim of this name, if they are not there.
    pub async fn lend(&self, context: &Context, owner: &Owner, name: &str) -> Result<()> {
        let namespace = &context.settings.namespace;
        objects::ensure(&Api::all(context.client.clone()), &self.alias(owner, name, namespace)).await?;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
        objects::ensure(&claims, &self.claim(owner, name, namespace)).await
    }

    /// As many pods as possible; what is for one pod alone cannot be shared with its user otherwise.
    fn access_mode(&self) -> &'static str {
        let modes = self.volume.spec.as_ref().and_then(|spec| spec.access_modes.clone()).unwrap_or_default();
        let has = |wanted: &str| modes.iter().any(|mode| mode == wanted);
        if has("ReadWriteMany") {
            "ReadWriteMany"
        } else if has("ReadWriteOnce") || has("ReadWriteOncePod") {
            "ReadWriteOnce"
        } else {
            "ReadOnlyMany"
        }
    }

    fn alias(&self, owner: &Owner, name: &str, namespace: &str) -> PersistentVolume {
        let mut annotations = owner.annotations();
        annotations.insert(annotation::ALIAS_OF.to_owned(), self.volume.name_any());
        let mut spec = self.volume.spec.clone().unwrap_or_default();
        spec.claim_ref = Some(ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("PersistentVolumeClaim".into()),
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectReference::default()
        });
        spec.persistent_volume_reclaim_policy = Some("Retain".into());
        spec.access_modes = Some(vec![self.access_mode().into()]);
        spec.storage_class_name = None;
        spec.volume_attributes_class_name = None;
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(owner.labels()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        };
        PersistentVolume { metadata, spec: Some(spec), status: None }
    }

    fn claim(&self, owner: &Owner, name: &str, namespace: &str) -> PersistentVolumeClaim {
        let spec = self.volume.spec.clone().unwrap_or_default();
        let size = spec.capacity.and_then(|capacity| capacity.get("storage").cloned());
        let requests = size.map(|size| BTreeMap::from([("storage".to_owned(), size)]));
        PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                labels: Some(owner.labels()),
                annotations: Some(owner.annotations()),
                ..ObjectMeta::default()
            },
            spec: Some(PersistentVolumeClaimSpec {
                access_modes: Some(vec![self.access_mode().into()]),
                // Without a class, and not with the default one.
                storage_class_name: Some(String::new()),
                volume_mode: spec.volume_mode,
                volume_name: Some(name.to_owned()),
                resources: Some(VolumeResourceRequirements { requests, limits: None }),
                ..PersistentVolumeClaimSpec::default()
            }),
            status: None,
        }
    }
}

/// The volume that a claim is bound to.
pub async fn volume_of(
    context: &Context,
    claim: &str,
    volume: &str,
) -> Result<Result<PersistentVolume, Obstacle>> {
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    Ok(objects::find(&volumes, volume).await?.ok_or_else(|| {
        let message = format!("PersistentVolume {volume} of claim {claim} is gone");
        Obstacle::lasting(reason::CLAIM_NOT_FOUND, message)
    }))
}

/// Whether a volume is only a second name.
pub fn is_alias(volume: &PersistentVolume) -> bool {
    volume.annotations().contains_key(annotation::ALIAS_OF)
}

/// The pods that use a claim and have not ended.
async fn users(context: &Context, namespace: &str, claim: &str) -> Result<Vec<User>> {
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let what = format!("Pods of namespace {namespace} cannot be listed");
    let all = pods.list(&ListParams::default()).await.map_err(Error::api(what))?;
    let found = all.items.iter().filter(|pod| is_alive(pod) && uses(pod, claim));
    Ok(found
        .map(|pod| User {
            pod: pod.name_any(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        })
        .collect())
}

fn is_alive(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

/// By its name, or as the claim that is made for a volume of the pod.
fn uses(pod: &Pod, claim: &str) -> bool {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    volumes.into_iter().flatten().any(|volume| {
        let own = volume.ephemeral.is_some() && format!("{}-{}", pod.name_any(), volume.name) == claim;
        own || volume.persistent_volume_claim.as_ref().is_some_and(|used| used.claim_name == claim)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn volume(modes: &[&str]) -> PersistentVolume {
        serde_json::from_value(json!({
            "metadata": { "name": "pv-1", "annotations": { "pv.kubernetes.io/provisioned-by": "driver" } },
            "spec": { "accessModes": modes, "capacity": { "storage": "3Gi" }, "storageClassName": "fast",
                "persistentVolumeReclaimPolicy": "Delete", "csi": { "driver": "driver", "volumeHandle": "h" },
                "claimRef": { "name": "data", "namespace": "shop", "uid": "u" } }
        }))
        .unwrap()
    }

    fn user(pod: &str, node: Option<&str>) -> User {
        User { pod: pod.into(), node: node.map(Into::into) }
    }

    #[test]
    fn an_alias_names_the_same_storage_and_deletes_nothing() {
        let live = Live { volume: volume(&["ReadWriteOncePod"]), users: Vec::new() };
        let owner = Owner { uid: "u-9".into(), ..Owner::of(&PersistentVolume::default()) };
        let alias = live.alias(&owner, "backup-u-9", "carrack");
        assert!(is_alias(&alias) && !is_alias(&live.volume));
        assert!(
            !alias.annotations().contains_key("pv.kubernetes.io/provisioned-by"),
            "no provisioner knows it"
        );
        let spec = alias.spec.unwrap();
        assert_eq!(spec.persistent_volume_reclaim_policy.as_deref(), Some("Retain"));
        assert_eq!(spec.csi.unwrap().volume_handle, "h");
        assert_eq!((spec.storage_class_name, spec.access_modes), (None, Some(vec!["ReadWriteOnce".into()])));
        let claimed = spec.claim_ref.unwrap();
        assert_eq!(
            (claimed.name.as_deref(), claimed.uid),
            (Some("backup-u-9"), None),
            "not the user's claim"
        );
        let claim = live.claim(&owner, "backup-u-9", "carrack").spec.unwrap();
        assert_eq!(claim.volume_name.as_deref(), Some("backup-u-9"));
        assert_eq!(claim.storage_class_name.as_deref(), Some(""), "not the default class");
    }

    #[test]
    fn a_mover_goes_where_the_volume_is_unless_it_is_everywhere() {
        let users = vec![user("b", Some("n1")), user("c", None), user("a", Some("n1"))];
        let once = Live { volume: volume(&["ReadWriteOnce"]), users: users.clone() };
        assert_eq!((once.nodes(), once.used_by().as_deref()), (vec!["n1".to_owned()], Some("b, c, a")));
        let many = Live { volume: volume(&["ReadWriteOnce", "ReadWriteMany"]), users };
        assert!(many.nodes().is_empty());
    }

    #[test]
    fn claims_that_pods_make_for_themselves_count_as_used() {
        let pod = |volume: serde_json::Value| -> Pod {
            serde_json::from_value(json!({ "metadata": { "name": "web-0" },
                "spec": { "containers": [], "volumes": [volume] } }))
            .unwrap()
        };
        assert!(uses(&pod(json!({ "name": "v", "persistentVolumeClaim": { "claimName": "data" } })), "data"));
        assert!(!uses(
            &pod(json!({ "name": "v", "persistentVolumeClaim": { "claimName": "other" } })),
            "data"
        ));
        assert!(uses(&pod(json!({ "name": "v", "ephemeral": {} })), "web-0-v"));
        assert!(!uses(&pod(json!({ "name": "v", "emptyDir": {} })), "web-0-v"));
    }
}
