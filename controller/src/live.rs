//! A volume itself, in Carrack's namespace too for as long as a mover needs it.
//!
//! A pod mounts claims of its own namespace only, and keys do not leave Carrack's. So a second PersistentVolume, the
//! *alias*, names the same storage, with a claim of its own here. It says *Retain* and has no provisioner's mark, so to delete
//! it deletes nothing but the name.

use std::collections::BTreeMap;

use carrack_controller_api::{DataMoverRestore, annotation, label, reason};
use k8s_openapi::{
    api::core::v1::{
        ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod,
        VolumeResourceRequirements,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Resource as _, ResourceExt as _, api::ListParams};

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

    /// Why a request must wait for another one's mover. Who has an alias already settles that where it was made.
    pub async fn taken(&self, context: &Context, owner: &Owner) -> Result<Option<Obstacle>> {
        let aliases = aliases(context).await?;
        let own = aliases.iter().any(|alias| owner_uid(alias) == Some(&owner.uid));
        Ok(self.rival(&aliases, owner).filter(|_| !own))
    }

    /// Makes alias and claim of this name, if they are not there, or says whose mover has the volume.
    ///
    /// An alias is made first and looked for others then, so that of two who do the same at least one sees the other. It gives
    /// its own back and waits. Within one program, one at a time does this: two that both gave way would do so again and again.
    pub async fn lend(&self, context: &Context, owner: &Owner, name: &str) -> Result<Result<(), Obstacle>> {
        let _one = context.lending.lock().await;
        let namespace = &context.settings.namespace;
        let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
        objects::ensure(&volumes, &self.alias(owner, name, namespace)).await?;
        let aliases = aliases(context).await?;
        if let Some(obstacle) = self.rival(&aliases, owner) {
            for alias in aliases.iter().filter(|alias| owner_uid(alias) == Some(&owner.uid)) {
                objects::delete(&volumes, alias, None).await?;
            }
            return Ok(Err(obstacle));
        }
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
        objects::ensure(&claims, &self.claim(owner, name, namespace)).await.map(Ok)
    }

    /// Another request whose mover has the volume. Those that read it share it; who writes to it shares it with nobody.
    fn rival(&self, aliases: &[PersistentVolume], owner: &Owner) -> Option<Obstacle> {
        let restores = DataMoverRestore::kind(&());
        let volume = self.volume.name_any();
        let writes = owner.kind == restores;
        let rival = aliases.iter().find(|alias| {
            let same = alias.annotations().get(annotation::ALIAS_OF) == Some(&volume);
            let theirs = owner_uid(alias) != Some(&owner.uid);
            same && theirs && is_in_use(alias) && (writes || is_for(alias, &restores))
        })?;
        let whose = rival.annotations().get(annotation::OWNER).map_or("somebody", String::as_str);
        let does = if is_for(rival, &restores) {
            format!("restored into by DataMoverRestore {whose}")
        } else {
            format!("read by DataMoverBackup {whose}")
        };
        let message = format!(
            "PersistentVolume {volume} is {does}, as PersistentVolume {}: this one begins once that has ended",
            rival.name_any()
        );
        let reason = if writes { reason::DESTINATION_IN_USE } else { reason::SOURCE_IN_USE };
        Some(Obstacle::passing(reason, message))
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

/// The volume that a claim is bound to. What a claim says of that its user wrote, who may name anybody's volume: it counts if
/// the volume names the claim, too.
pub async fn volume_of(
    context: &Context,
    claim: &PersistentVolumeClaim,
    name: &str,
) -> Result<Result<PersistentVolume, Obstacle>> {
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let own = claim.name_any();
    let Some(volume) = objects::find(&volumes, name).await? else {
        let message = format!("PersistentVolume {name} of claim {own} is gone");
        return Ok(Err(Obstacle::lasting(reason::CLAIM_NOT_FOUND, message)));
    };
    if !is_bound(&volume, claim) {
        let message = format!(
            "PersistentVolumeClaim {own} names PersistentVolume {name}, which is not bound to it: nothing of that volume is \
             read or written"
        );
        return Ok(Err(Obstacle::passing(reason::CLAIM_NOT_FOUND, message)));
    }
    Ok(Ok(volume))
}

/// Whether a volume names this claim, and not another one or an earlier one of its name.
fn is_bound(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let of = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    of.is_some_and(|of| {
        let named = (&of.namespace, &of.name, &of.uid);
        let own = (&claim.metadata.namespace, &claim.metadata.name, &claim.metadata.uid);
        named == own && of.uid.is_some()
    })
}

/// All second names of volumes.
async fn aliases(context: &Context) -> Result<Vec<PersistentVolume>> {
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let ours = ListParams::default().labels(&format!("{}={}", label::MANAGED_BY, label::MANAGER));
    let found = volumes.list(&ours).await.map_err(Error::api("second names of volumes cannot be listed"))?;
    Ok(found.items.into_iter().filter(is_alias).collect())
}

fn owner_uid(alias: &PersistentVolume) -> Option<&String> {
    alias.labels().get(label::OWNER_UID)
}

fn is_for(alias: &PersistentVolume, kind: &str) -> bool {
    alias.labels().get(label::OWNER_KIND).is_some_and(|found| *found == kind.to_lowercase())
}

/// Whether a pod may have a volume by this name. One that is being deleted may stay for as long as the volume is attached; its
/// claim, and before that its pod, went first.
fn is_in_use(alias: &PersistentVolume) -> bool {
    let phase = alias.status.as_ref().and_then(|status| status.phase.as_deref());
    alias.metadata.deletion_timestamp.is_none() || phase == Some("Bound")
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
    use k8s_openapi::{api::core::v1::PersistentVolumeStatus, apimachinery::pkg::apis::meta::v1::Time};
    use serde_json::json;

    use super::*;
    use crate::fake::Fake;

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
    fn a_claim_has_only_the_volume_that_names_it() {
        let claim = |namespace: &str, name: &str, uid: Option<&str>| -> PersistentVolumeClaim {
            let metadata = json!({ "namespace": namespace, "name": name, "uid": uid });
            serde_json::from_value(json!({ "metadata": metadata, "spec": { "volumeName": "pv-1" } })).unwrap()
        };
        let mut volume = volume(&["ReadWriteOnce"]);
        assert!(is_bound(&volume, &claim("shop", "data", Some("u"))));
        for other in [("evil", "data", Some("u")), ("shop", "more", Some("u")), ("shop", "data", Some("v"))] {
            assert!(!is_bound(&volume, &claim(other.0, other.1, other.2)), "{other:?}");
        }
        volume.spec.as_mut().unwrap().claim_ref.as_mut().unwrap().uid = None;
        assert!(!is_bound(&volume, &claim("shop", "data", None)), "kept for a claim, and not bound yet");
        volume.spec.as_mut().unwrap().claim_ref = None;
        assert!(!is_bound(&volume, &claim("shop", "data", Some("u"))));
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

    /// An alias of the volume that was made for a request.
    fn alias_for(live: &Live, kind: &str, uid: &str) -> PersistentVolume {
        live.alias(&owner(kind, uid), &format!("alias-{uid}"), "carrack")
    }

    fn owner(kind: &str, uid: &str) -> Owner {
        Owner { kind: kind.into(), namespace: "shop".into(), name: format!("the-{uid}"), uid: uid.into() }
    }

    #[test]
    fn who_writes_to_a_volume_shares_it_with_nobody() {
        let (backup, restore) = ("DataMoverBackup", "DataMoverRestore");
        let live = Live { volume: volume(&["ReadWriteOnce"]), users: Vec::new() };
        let waits = |kind: &str, alias: PersistentVolume| live.rival(&[alias], &owner(kind, "mine"));
        let found = waits(restore, alias_for(&live, restore, "other")).expect("it waits");
        assert_eq!((found.reason, found.may_pass), (reason::DESTINATION_IN_USE, true));
        assert!(found.message.contains("DataMoverRestore shop/the-other"), "{}", found.message);
        let found = waits(restore, alias_for(&live, backup, "other")).expect("it waits");
        assert!(found.message.contains("read by DataMoverBackup shop/the-other"), "{}", found.message);
        let found = waits(backup, alias_for(&live, restore, "other")).expect("it waits");
        assert_eq!(found.reason, reason::SOURCE_IN_USE);
        assert_eq!(waits(backup, alias_for(&live, backup, "other")), None, "two that read");
        assert_eq!(waits(restore, alias_for(&live, restore, "mine")), None, "its own");
        let mut elsewhere = live.clone();
        elsewhere.volume.metadata.name = Some("pv-2".into());
        assert_eq!(waits(restore, alias_for(&elsewhere, restore, "other")), None, "another volume");
    }

    #[test]
    fn an_alias_counts_until_nobody_can_use_it_any_more() {
        let live = Live { volume: volume(&["ReadWriteOnce"]), users: Vec::new() };
        let deleted = |phase: &str| {
            let mut alias = alias_for(&live, "DataMoverRestore", "other");
            alias.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
            alias.status = Some(PersistentVolumeStatus { phase: Some(phase.into()), ..Default::default() });
            live.rival(&[alias], &owner("DataMoverRestore", "mine"))
        };
        assert!(deleted("Bound").is_some(), "somebody else deletes it, and its pod is at work");
        assert_eq!(deleted("Released"), None, "it stays for as long as the volume is attached");
    }

    #[tokio::test]
    async fn of_two_that_write_at_the_same_moment_one_waits() {
        const VOLUMES: &str = "/api/v1/persistentvolumes/";
        let live = Live { volume: volume(&["ReadWriteOnce"]), users: Vec::new() };
        let (one, other) = (owner("DataMoverRestore", "1"), owner("DataMoverRestore", "2"));
        let fake = Fake::default();
        let context = fake.context().await;
        let lent = tokio::join!(live.lend(&context, &one, "alias-1"), live.lend(&context, &other, "alias-2"));
        assert!(lent.0.unwrap().is_ok(), "the first begins");
        assert!(lent.1.unwrap().is_err(), "the second waits");
        assert!(live.taken(&context, &other).await.unwrap().is_some(), "and is told so");
        assert!(live.lend(&context, &one, "alias-1").await.unwrap().is_ok(), "who has it keeps it");
        assert_eq!(fake.get(&format!("{VOLUMES}alias-2")), json!(null), "it gave its own back");

        // Two programs do not know of each other's locks.
        let fake = Fake::default();
        let (here, there) = (fake.context().await, fake.context().await);
        let lent = tokio::join!(live.lend(&here, &one, "alias-1"), live.lend(&there, &other, "alias-2"));
        let both = lent.0.unwrap().is_ok() && lent.1.unwrap().is_ok();
        assert!(!both, "they have the volume both");
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
