//! Mover pods as the API server is given them.

use std::collections::BTreeMap;

use carrack_controller_api::{DataMoverTypeSpec, annotation, label};
use k8s_openapi::{
    api::core::v1::{
        Affinity, Capabilities, Container, EmptyDirVolumeSource, EnvVar, NodeSelector,
        NodeSelectorRequirement, NodeSelectorTerm, PersistentVolumeClaimVolumeSource, Pod,
        PodSecurityContext, PodSpec, SeccompProfile, Secret, SecretVolumeSource, SecurityContext, Toleration,
        TopologySpreadConstraint, Volume, VolumeDevice, VolumeMount,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use kube::Api;

use crate::{
    context::Context,
    error::Result,
    objects,
    pod::{
        Owner,
        files::{DATA_PATH, DEVICE_PATH, JOB_DIRECTORY, JobFiles},
    },
};

/// Seconds that a pod stays on a node that the cluster has lost before it counts as lost too.
const LOST_NODE_SECONDS: i64 = 60;

/// Whether a volume has a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VolumeMode {
    /// It is mounted.
    #[default]
    Filesystem,
    /// It is a device.
    Block,
}

impl VolumeMode {
    /// As a claim says it; a file system if it says nothing.
    pub fn of(text: Option<&str>) -> Self {
        if text == Some("Block") { Self::Block } else { Self::Filesystem }
    }

    /// As a claim says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Filesystem => "Filesystem",
            Self::Block => "Block",
        }
    }

    /// Where the volume is in the pod, as the job names it.
    pub fn place(self) -> carrack_proto::Place {
        match self {
            Self::Filesystem => carrack_proto::Place::Directory(DATA_PATH.into()),
            Self::Block => carrack_proto::Place::Device(DEVICE_PATH.into()),
        }
    }
}

/// The volume that a pod reads or writes.
#[derive(Clone, Debug)]
pub struct PodVolume {
    /// Its claim, in Carrack's namespace.
    pub claim: String,
    /// With a file system or without.
    pub mode: VolumeMode,
    /// Whether it is only read.
    pub read_only: bool,
    /// Name of the type of mover.
    pub mover_type: String,
    /// The nodes where the volume can be used; none if anywhere.
    pub only_on: Vec<String>,
    /// The nodes that have no room.
    pub avoided: Vec<String>,
}

/// What a pod is made from.
#[derive(Clone, Debug)]
pub struct MoverPod<'a> {
    /// Its name, and with a suffix that of its secret.
    pub name: String,
    /// For whom.
    pub owner: &'a Owner,
    /// What it does, as [`label::TASK`] has it.
    pub task: &'static str,
    /// How it looks.
    pub mover_type: &'a DataMoverTypeSpec,
    /// What it reads or writes.
    pub volume: Option<PodVolume>,
    /// Whether its users are the node's; as the cluster has it if nothing is said.
    pub host_users: Option<bool>,
    /// What it finds.
    pub files: JobFiles,
}

/// The secret of a pod.
pub fn secret_name(pod: &str) -> String {
    format!("{pod}-job")
}

/// Makes the secret and the pod. Both are what they were if they are there already.
pub async fn apply(context: &Context, pod: &MoverPod<'_>) -> Result<Pod> {
    let namespace = &context.settings.namespace;
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    objects::apply(&secrets, &pod.secret()).await?;
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    objects::apply(&pods, &pod.build(&context.settings.image, &context.settings.image_pull_policy)).await
}

/// Asks a pod to stop, if there is one; the mover comes to a safe point by itself. At once, if its node is lost.
pub async fn stop(context: &Context, name: &str, at_once: bool) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    match objects::find(&pods, name).await? {
        Some(pod) => objects::delete(&pods, &pod, at_once.then_some(0)).await,
        None => Ok(()),
    }
}

/// Deletes a pod and its secret; true once the pod is gone. A pod that still ends has read its secret already.
pub async fn clean_up(context: &Context, name: &str) -> Result<bool> {
    let namespace = &context.settings.namespace;
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let pod = objects::find(&pods, name).await?;
    if let Some(pod) = pod.as_ref().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        objects::delete(&pods, pod, None).await?;
    }
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    if let Some(secret) = objects::find(&secrets, &secret_name(name)).await? {
        objects::delete(&secrets, &secret, None).await?;
    }
    Ok(pod.is_none())
}

impl MoverPod<'_> {
    fn metadata(&self, name: String) -> ObjectMeta {
        let mut labels = self.owner.labels();
        labels.insert(label::TASK.to_owned(), self.task.to_owned());
        ObjectMeta {
            name: Some(name),
            labels: Some(labels),
            annotations: Some(self.owner.annotations()),
            ..ObjectMeta::default()
        }
    }

    /// The secret with its files.
    pub fn secret(&self) -> Secret {
        Secret {
            metadata: self.metadata(secret_name(&self.name)),
            data: Some(self.files.contents()),
            ..Secret::default()
        }
    }

    /// The pod.
    pub fn build(&self, image: &str, image_pull_policy: &str) -> Pod {
        let template = &self.mover_type.pod_template;
        let mut metadata = self.metadata(self.name.clone());
        // What we decide by wins over what the template says.
        let mut labels = template.labels.clone();
        labels.extend(metadata.labels.take().unwrap_or_default());
        metadata.labels = Some(labels);
        let mut annotations = template.annotations.clone();
        annotations.extend(metadata.annotations.take().unwrap_or_default());
        if let Some(volume) = &self.volume {
            annotations.insert(annotation::MOVER_TYPE.to_owned(), volume.mover_type.clone());
            annotations.insert(annotation::AVOIDED_NODES.to_owned(), volume.avoided.join(","));
        }
        metadata.annotations = Some(annotations);
        let spec = PodSpec {
            restart_policy: Some("Never".into()),
            termination_grace_period_seconds: Some(self.mover_type.timeouts.stop_seconds.into()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            service_account_name: template.service_account_name.clone(),
            node_selector: Some(template.node_selector.clone()).filter(|selector| !selector.is_empty()),
            affinity: self.affinity(),
            tolerations: Some(tolerations(&template.tolerations)),
            priority_class_name: template.priority_class_name.clone(),
            image_pull_secrets: Some(template.image_pull_secrets.clone())
                .filter(|secrets| !secrets.is_empty()),
            host_users: self.host_users,
            topology_spread_constraints: Some(vec![spread()]),
            security_context: Some(PodSecurityContext {
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".into(),
                    ..SeccompProfile::default()
                }),
                // Kubelet must not walk through the whole volume to change its owners.
                fs_group_change_policy: None,
                ..PodSecurityContext::default()
            }),
            containers: vec![self.container(image, image_pull_policy)],
            volumes: Some(self.volumes()),
            ..PodSpec::default()
        };
        Pod { metadata, spec: Some(spec), status: None }
    }

    /// What the template says, on the nodes where the volume can be used and there is room.
    fn affinity(&self) -> Option<Affinity> {
        let template = self.mover_type.pod_template.affinity.clone();
        let Some(volume) =
            self.volume.as_ref().filter(|found| !found.only_on.is_empty() || !found.avoided.is_empty())
        else {
            return template;
        };
        let named = |operator: &str, node: &String| NodeSelectorRequirement {
            key: "metadata.name".into(),
            operator: operator.into(),
            values: Some(vec![node.clone()]),
        };
        let avoided: Vec<_> = volume.avoided.iter().map(|node| named("NotIn", node)).collect();
        // One of the terms must fit: each of the template, on each of the nodes.
        let mut places: Vec<_> = volume.only_on.iter().map(|node| vec![named("In", node)]).collect();
        if places.is_empty() {
            places.push(Vec::new());
        }
        let mut affinity = template.unwrap_or_default();
        let by_node = affinity.node_affinity.get_or_insert_default();
        let terms = by_node
            .required_during_scheduling_ignored_during_execution
            .take()
            .map_or_else(|| vec![NodeSelectorTerm::default()], |selector| selector.node_selector_terms);
        let mut all = Vec::new();
        for (term, place) in terms.iter().flat_map(|term| places.iter().map(move |place| (term, place))) {
            let mut term = term.clone();
            term.match_fields.get_or_insert_default().extend(place.iter().chain(&avoided).cloned());
            all.push(term);
        }
        by_node.required_during_scheduling_ignored_during_execution =
            Some(NodeSelector { node_selector_terms: all });
        Some(affinity)
    }

    fn container(&self, image: &str, image_pull_policy: &str) -> Container {
        let template = &self.mover_type.pod_template;
        let mut mounts = vec![
            VolumeMount {
                name: "job".into(),
                mount_path: JOB_DIRECTORY.into(),
                read_only: Some(true),
                ..VolumeMount::default()
            },
            VolumeMount { name: "scratch".into(), mount_path: "/tmp".into(), ..VolumeMount::default() },
        ];
        let mut devices = None;
        match &self.volume {
            Some(volume) if volume.mode == VolumeMode::Block => {
                devices = Some(vec![VolumeDevice { name: "data".into(), device_path: DEVICE_PATH.into() }]);
            }
            Some(volume) => mounts.push(VolumeMount {
                name: "data".into(),
                mount_path: DATA_PATH.into(),
                read_only: Some(volume.read_only),
                ..VolumeMount::default()
            }),
            None => {}
        }
        Container {
            name: "mover".into(),
            image: Some(image.to_owned()),
            image_pull_policy: Some(image_pull_policy.to_owned()),
            command: Some(vec![
                "/usr/local/bin/carrack".into(),
                "job".into(),
                format!("{JOB_DIRECTORY}/job.json"),
            ]),
            env: Some(self.environment()),
            resources: template.resources.clone(),
            security_context: Some(self.security()),
            termination_message_policy: Some("File".into()),
            volume_mounts: Some(mounts),
            volume_devices: devices,
            ..Container::default()
        }
    }

    fn environment(&self) -> Vec<EnvVar> {
        let set = |name: &str, value: &str| EnvVar {
            name: name.into(),
            value: Some(value.into()),
            value_from: None,
        };
        let mut variables =
            vec![set("TMPDIR", "/tmp"), set("XDG_CACHE_HOME", "/tmp"), set("XDG_STATE_HOME", "/tmp")];
        if !self.files.credentials.is_empty() {
            variables.push(set("AWS_SHARED_CREDENTIALS_FILE", &format!("{JOB_DIRECTORY}/credentials")));
            variables.push(set("AWS_EC2_METADATA_DISABLED", "true"));
        }
        variables
    }

    /// Root within the container, without what root may do: only what reading or giving away files of others needs, and
    /// nothing that the pod security level *baseline* refuses. `DAC_READ_SEARCH` would read as well, but opens files by
    /// handle, which is a way out of a container; and what is only read is mounted read-only.
    fn security(&self) -> SecurityContext {
        let added: &[&str] = match &self.volume {
            None => &[],
            Some(volume) if volume.mode == VolumeMode::Block => &[],
            Some(volume) if volume.read_only => &["DAC_OVERRIDE"],
            Some(_) => &["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"],
        };
        let user = if self.volume.is_some() { 0 } else { 65532 };
        SecurityContext {
            run_as_user: Some(user),
            run_as_group: Some(user),
            run_as_non_root: Some(user != 0),
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                add: Some(added.iter().map(|&name| name.to_owned()).collect())
                    .filter(|names: &Vec<_>| !names.is_empty()),
            }),
            ..SecurityContext::default()
        }
    }

    fn volumes(&self) -> Vec<Volume> {
        // Who is not root reads the files through their group's or everybody's bits: the secret is the pod's alone.
        let mode = if self.volume.is_some() { 0o400 } else { 0o444 };
        let job = SecretVolumeSource {
            secret_name: Some(secret_name(&self.name)),
            default_mode: Some(mode),
            ..SecretVolumeSource::default()
        };
        let mut volumes = vec![
            Volume { name: "job".into(), secret: Some(job), ..Volume::default() },
            Volume {
                name: "scratch".into(),
                empty_dir: Some(EmptyDirVolumeSource::default()),
                ..Volume::default()
            },
        ];
        if let Some(volume) = &self.volume {
            let claim = PersistentVolumeClaimVolumeSource {
                claim_name: volume.claim.clone(),
                // Where the volume is an image of a file system, its journal is replayed before it can be read: the
                // mount in the container is read-only, the volume is not.
                read_only: None,
            };
            volumes.push(Volume {
                name: "data".into(),
                persistent_volume_claim: Some(claim),
                ..Volume::default()
            });
        }
        volumes
    }
}

/// Those of the template, and that a lost node does not hold a pod for the five minutes that are usual.
fn tolerations(template: &[Toleration]) -> Vec<Toleration> {
    let lost = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"].map(|key| Toleration {
        key: Some(key.into()),
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        toleration_seconds: Some(LOST_NODE_SECONDS),
        value: None,
    });
    template.iter().cloned().chain(lost).collect()
}

/// Movers keep apart where they can.
fn spread() -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".into(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        label_selector: Some(LabelSelector {
            match_labels: Some(BTreeMap::from([(label::MANAGED_BY.to_owned(), label::MANAGER.to_owned())])),
            match_expressions: None,
        }),
        ..TopologySpreadConstraint::default()
    }
}
