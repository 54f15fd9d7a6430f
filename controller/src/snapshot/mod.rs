//! From a claim to a volume that a mover can read.
//!
//! A snapshot is made where the claim is, or exists there already. Its handle at the storage is then lent to a second
//! content and snapshot in Carrack's namespace, from which the temporary volume is made. The borrowed content has the
//! policy *Retain* for as long as it lives, so the handle has one owner at any moment, whatever dies in between: the
//! content that the driver made.

pub mod kinds;

use std::collections::BTreeMap;

use carrack_controller_api::{DataMoverTypeSpec, reason};
use k8s_openapi::{
    api::{
        core::v1::{
            PersistentVolumeClaim, PersistentVolumeClaimSpec, TypedLocalObjectReference,
            VolumeResourceRequirements,
        },
        storage::v1::StorageClass,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use kube::{Api, ResourceExt as _, api::ListParams};

use self::kinds::{
    SnapshotReference, VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent,
    VolumeSnapshotContentSource, VolumeSnapshotContentSpec, VolumeSnapshotSource, VolumeSnapshotSpec,
};
use crate::{
    context::Context,
    error::{Error, Obstacle, Result},
    pod::{Owner, VolumeMode, bytes},
};

/// On a snapshot class: that it is the one to take for its driver.
const DEFAULT_CLASS: &str = "snapshot.storage.kubernetes.io/is-default-class";
/// On a content: that it may become a volume of the other mode.
const ALLOW_MODE_CHANGE: &str = "snapshot.storage.kubernetes.io/allow-volume-mode-change";

/// How the names of snapshots begin that are made for backups.
pub const NAME_BEGINS: &str = "backup-";

/// Name of the snapshot that is made for a backup.
pub fn name_of(owner: &Owner) -> String {
    format!("{NAME_BEGINS}{}", owner.uid)
}

/// The snapshot of a claim, beside the claim.
pub fn of_claim(owner: &Owner, name: &str, claim: &str, class: &str) -> VolumeSnapshot {
    let spec = VolumeSnapshotSpec {
        source: VolumeSnapshotSource {
            persistent_volume_claim_name: Some(claim.into()),
            volume_snapshot_content_name: None,
        },
        volume_snapshot_class_name: Some(class.into()),
    };
    let mut made = VolumeSnapshot::new(name, spec);
    made.metadata = metadata(owner, name, Some(&owner.namespace));
    made
}

/// A second content for the handle of the first, which stays the owner.
pub fn borrowed_content(
    owner: &Owner,
    name: &str,
    namespace: &str,
    of: &VolumeSnapshotContent,
) -> Option<VolumeSnapshotContent> {
    let handle = of.status.as_ref().and_then(|status| status.snapshot_handle.clone())?;
    let spec = VolumeSnapshotContentSpec {
        volume_snapshot_ref: SnapshotReference { namespace: namespace.into(), name: name.into() },
        deletion_policy: "Retain".into(),
        driver: of.spec.driver.clone(),
        source: VolumeSnapshotContentSource { snapshot_handle: Some(handle), volume_handle: None },
        volume_snapshot_class_name: of.spec.volume_snapshot_class_name.clone(),
        source_volume_mode: of.spec.source_volume_mode.clone(),
    };
    let mut made = VolumeSnapshotContent::new(name, spec);
    made.metadata = metadata(owner, name, None);
    // Secrets for the driver are named in annotations of the first.
    let mut annotations = made.metadata.annotations.take().unwrap_or_default();
    let secrets = |key: &str| key.starts_with("snapshot.storage.kubernetes.io/") && key != ALLOW_MODE_CHANGE;
    annotations.extend(
        of.annotations()
            .iter()
            .filter(|(key, _)| secrets(key))
            .map(|(key, value)| (key.clone(), value.clone())),
    );
    made.metadata.annotations = Some(annotations);
    Some(made)
}

/// The snapshot in Carrack's namespace that stands for the borrowed content.
pub fn borrowed_snapshot(
    owner: &Owner,
    name: &str,
    namespace: &str,
    class: Option<String>,
) -> VolumeSnapshot {
    let spec = VolumeSnapshotSpec {
        source: VolumeSnapshotSource {
            persistent_volume_claim_name: None,
            volume_snapshot_content_name: Some(name.into()),
        },
        volume_snapshot_class_name: class,
    };
    let mut made = VolumeSnapshot::new(name, spec);
    made.metadata = metadata(owner, name, Some(namespace));
    made
}

/// What a temporary volume is made like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeShape {
    /// Its storage class.
    pub storage_class: Option<String>,
    /// With a file system or without.
    pub mode: VolumeMode,
    /// Its size in bytes.
    pub size: u64,
}

/// Names of a temporary volume's claim and of the snapshot that it is made from.
#[derive(Clone, Debug)]
pub struct Names {
    /// The claim.
    pub claim: String,
    /// The snapshot.
    pub snapshot: String,
}

/// The claim of the temporary volume that is made from the borrowed snapshot.
pub fn temporary_claim(
    owner: &Owner,
    names: &Names,
    namespace: &str,
    shape: &VolumeShape,
    mover_type: &DataMoverTypeSpec,
) -> PersistentVolumeClaim {
    let settings = shape.storage_class.as_ref().and_then(|class| mover_type.storage_classes.get(class));
    let class =
        settings.and_then(|found| found.backup_storage_class.clone()).or_else(|| shape.storage_class.clone());
    let access = if settings.is_some_and(|found| found.read_only) { "ReadOnlyMany" } else { "ReadWriteOnce" };
    let spec = PersistentVolumeClaimSpec {
        access_modes: Some(vec![access.into()]),
        storage_class_name: class,
        volume_mode: Some(shape.mode.name().into()),
        resources: Some(VolumeResourceRequirements {
            requests: Some(BTreeMap::from([("storage".into(), Quantity(shape.size.to_string()))])),
            limits: None,
        }),
        data_source: Some(TypedLocalObjectReference {
            api_group: Some("snapshot.storage.k8s.io".into()),
            kind: "VolumeSnapshot".into(),
            name: names.snapshot.clone(),
        }),
        ..PersistentVolumeClaimSpec::default()
    };
    PersistentVolumeClaim {
        metadata: metadata(owner, &names.claim, Some(namespace)),
        spec: Some(spec),
        status: None,
    }
}

fn metadata(owner: &Owner, name: &str, namespace: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: namespace.map(Into::into),
        labels: Some(owner.labels()),
        annotations: Some(owner.annotations()),
        ..ObjectMeta::default()
    }
}

/// The least size of a volume that is made from a snapshot.
pub fn size(snapshot: &VolumeSnapshot, content: Option<&VolumeSnapshotContent>, claimed: Option<u64>) -> u64 {
    let of_snapshot =
        snapshot.status.as_ref().and_then(|status| status.restore_size.as_ref()).and_then(bytes);
    let of_content = content.and_then(|content| u64::try_from(content.status.as_ref()?.restore_size?).ok());
    [of_snapshot, of_content, claimed].into_iter().flatten().max().unwrap_or(0)
}

/// Whether snapshots of a volume can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Snapshots {
    /// By this class.
    By(String),
    /// The driver makes none, as far as the cluster says.
    None(Obstacle),
    /// The classes contradict each other, or what is asked of them.
    Unclear(Obstacle),
}

/// The class for snapshots of a driver's volumes.
pub async fn class(
    context: &Context,
    mover_type: &DataMoverTypeSpec,
    storage_class: Option<&str>,
    driver: &str,
) -> Result<Snapshots> {
    let settings = storage_class.and_then(|class| mover_type.storage_classes.get(class));
    let named =
        settings.and_then(|found| found.snapshot_class.clone()).or_else(|| mover_type.snapshot_class.clone());
    let classes: Api<VolumeSnapshotClass> = Api::all(context.client.clone());
    let all = match classes.list(&ListParams::default()).await {
        Ok(all) => all.items,
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let message =
                "this cluster has no VolumeSnapshotClass kind: install the snapshot controller and its CRDs";
            return Ok(Snapshots::None(Obstacle::lasting(reason::NO_SNAPSHOT_CLASS, message)));
        }
        Err(error) => return Err(Error::api("VolumeSnapshotClasses cannot be listed")(error)),
    };
    Ok(choose_class(all, named.as_deref(), driver))
}

/// A class that is named for all volumes says nothing of those whose driver has none at all.
fn choose_class(all: Vec<VolumeSnapshotClass>, named: Option<&str>, driver: &str) -> Snapshots {
    let lacking = |message: String| Obstacle::lasting(reason::NO_SNAPSHOT_CLASS, message);
    let of_another = |found: &VolumeSnapshotClass, name: &str| {
        lacking(format!(
            "VolumeSnapshotClass {name} is for driver {}, the volume's is {driver}: name another in the DataMoverType",
            found.spec.driver
        ))
    };
    let chosen = named.and_then(|name| all.iter().find(|class| class.name_any() == name)).cloned();
    let mut own: Vec<_> = all.into_iter().filter(|class| class.spec.driver == driver).collect();
    if own.is_empty() {
        return Snapshots::None(lacking(format!(
            "there is no VolumeSnapshotClass for driver {driver}: make one, if the driver can make snapshots; if it cannot, \
             withoutSnapshots: Live in the DataMoverType reads the volume itself"
        )));
    }
    match (named, chosen) {
        (Some(named), Some(class)) if class.spec.driver == driver => return Snapshots::By(named.to_owned()),
        (Some(named), Some(class)) => return Snapshots::Unclear(of_another(&class, named)),
        (Some(named), None) => {
            return Snapshots::Unclear(lacking(format!(
                "there is no VolumeSnapshotClass {named}: make it, or name another in the DataMoverType"
            )));
        }
        (None, _) => {}
    }
    let is_default = |class: &VolumeSnapshotClass| {
        class.annotations().get(DEFAULT_CLASS).is_some_and(|mark| mark == "true")
    };
    if own.len() > 1 {
        own.retain(is_default);
    }
    match own.as_slice() {
        [one] => Snapshots::By(one.name_any()),
        [] => Snapshots::Unclear(lacking(format!(
            "none of several VolumeSnapshotClasses for driver {driver} is the default: mark one, or name one in the DataMoverType"
        ))),
        _ => Snapshots::Unclear(lacking(format!(
            "several VolumeSnapshotClasses of driver {driver} are the default: name one in the DataMoverType"
        ))),
    }
}

/// The class that the cluster gives to claims that name none.
pub async fn default_storage_class(context: &Context) -> Result<Option<StorageClass>> {
    const MARK: &str = "storageclass.kubernetes.io/is-default-class";
    let classes: Api<StorageClass> = Api::all(context.client.clone());
    let all =
        classes.list(&ListParams::default()).await.map_err(Error::api("StorageClasses cannot be listed"))?;
    let marked = |class: &StorageClass| class.annotations().get(MARK).is_some_and(|mark| mark == "true");
    Ok(all.items.into_iter().filter(marked).max_by_key(|class| class.creation_timestamp().map(|time| time.0)))
}
