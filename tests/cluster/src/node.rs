//! The node of a cluster: containerd, kubelet, kube-proxy and the network of pods.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use serde_json::json;

use crate::cluster::Cluster;
use crate::image;
use crate::machine::{tell, write};
use crate::part::{Part, Probe};
use crate::programs::program;

/// Where every kubelet waits for device plugins, whatever its settings.
const DEVICE_PLUGINS: &str = "/var/lib/kubelet/device-plugins/kubelet.sock";
/// Seconds that a node may take until it takes pods; seen: 9 s on two busy processors.
const NODE_LIMIT: u32 = 90;

impl Cluster {
    /// Starts containerd and gives it the images that every cluster has. It needs no control plane.
    pub(crate) fn start_containerd(&self) -> Result<()> {
        let root = self.kubelet_root();
        for folder in [root.join("plugins_registry"), self.folder.join("run"), self.folder.join("pod-logs")] {
            fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        }
        // Mounts that a pod makes for others, and those that it gets later, need a mount that passes them on.
        mount_bind(&root, &root).with_context(|| format!("mount {} on itself", root.display()))?;
        mount_change(&root, MountPropagationFlags::SHARED | MountPropagationFlags::REC)
            .with_context(|| format!("share the mounts below {}", root.display()))?;
        self.write_pod_network()?;
        self.ledger.launch(vec![self.containerd()?])?;
        let images = self.folder.join("images");
        image::own(&images)?.iter().try_for_each(|archive| self.import_image(archive))?;
        tell(&format!("{}/images are there", self.name()));
        fs::remove_dir_all(&images).with_context(|| format!("remove {}", images.display()))
    }

    /// Starts what runs pods, after control plane and containerd.
    pub(crate) fn start_node(&self) -> Result<()> {
        self.ledger.cgroups().make(self.name())?;
        self.add_storage_classes().context("add the storage classes")?;
        let mut parts = vec![self.kube_scheduler()?, self.kubelet()?, self.kube_proxy()?];
        parts.extend(self.storage_parts()?);
        self.ledger.launch(parts)?;
        let node = format!("node/{}", self.node());
        self.wait_for(&node, "create", NODE_LIMIT)?;
        let ready = self.wait_for(&node, "condition=Ready", NODE_LIMIT);
        ready.with_context(|| format!("wait for the node; {}", self.last_words("kubelet")))?;
        tell(&format!("{}/{} takes pods", self.name(), self.node()));
        self.wait_for_drivers()
    }

    pub(crate) fn last_words(&self, part: &str) -> String {
        format!("the end of {}:\n{}", self.log(part).display(), crate::machine::tail(&self.log(part)))
    }

    fn write_pod_network(&self) -> Result<()> {
        // The name is in files outside the bed's directory, by which they are found again.
        let config = json!({"cniVersion": "1.0.0", "name": self.namespace(), "plugins": [
            {"type": "bridge", "bridge": "pods", "isGateway": true, "hairpinMode": true, "ipam": {
                "type": "host-local", "dataDir": self.folder.join("addresses"),
                "ranges": [[{"subnet": self.ledger.network.pods(self.index)}]],
                "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ]});
        write(&self.folder.join("network/10-pods.conflist"), &config.to_string())
    }

    fn containerd(&self) -> Result<Part> {
        let socket = self.containerd_socket();
        let programs = folder_of(&program("containerd")?)?;
        let config = format!(
            include_str!("../manifests/containerd.toml"),
            root = self.folder.join("containerd").display(),
            state = self.folder.join("run/containerd").display(),
            socket = socket.display(),
            shims = self.ledger.network.run_folder().join(self.name()).display(),
            runc = program("runc")?.display(),
            plugins = folder_of(&program("bridge")?)?.display(),
            network = self.folder.join("network").display(),
            pause = image::PAUSE,
        );
        let file = self.folder.join("containerd.toml");
        write(&file, &config)?;
        let arguments = ["--config".to_owned(), file.display().to_string()];
        let mut part = self.part("containerd", program("containerd")?, &arguments, Probe::Socket(socket));
        // It looks there for its shim.
        let path = std::env::var("PATH").unwrap_or_default();
        part.environment.push(("PATH".to_owned(), format!("{}:{path}", programs.display())));
        // What it leaves in this folder goes with the others.
        part.environment.push(("TMPDIR".to_owned(), self.folder.join("run").display().to_string()));
        Ok(part)
    }

    fn kube_scheduler(&self) -> Result<Part> {
        let arguments = [self.kubeconfig_of("scheduler"), "--leader-elect=false".to_owned()];
        let probe = Probe::Url("https://127.0.0.1:10259/healthz".to_owned());
        Ok(self.part("kube-scheduler", program("kube-scheduler")?, &arguments, probe))
    }

    fn kubelet(&self) -> Result<Part> {
        let file = self.folder.join("kubelet.json");
        write(&file, &self.kubelet_config().to_string())?;
        // Empty: there are no names to look up.
        write(&self.resolver(), "")?;
        let arguments = [
            self.kubeconfig_of("kubelet"),
            format!("--config={}", file.display()),
            format!("--root-dir={}", self.kubelet_root().display()),
            format!("--node-ip={}", self.address()),
            format!("--hostname-override={}", self.node()),
        ];
        let probe = Probe::Url("http://127.0.0.1:10248/healthz".to_owned());
        let mut part = self.part("kubelet", program("kubelet")?, &arguments, probe);
        part.common_socket = Some(DEVICE_PLUGINS.into());
        Ok(part)
    }

    fn kubelet_config(&self) -> serde_json::Value {
        let socket = format!("unix://{}", self.containerd_socket().display());
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true},
                "x509": {"clientCAFile": self.authority.file("ca.crt")}},
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": self.authority.file("kubelet.crt"),
            "tlsPrivateKeyFile": self.authority.file("kubelet.key"),
            "containerRuntimeEndpoint": socket,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}/{}", self.ledger.network.name(), self.name()),
            "enforceNodeAllocatable": [],
            // Hosts without cgroup v2 and with swap run tests too.
            "failCgroupV1": false, "failSwapOn": false,
            "localStorageCapacityIsolation": false,
            // A full disk of the machine must not end pods.
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
                "imagefs.available": "0%", "imagefs.inodesFree": "0%"},
            "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
            "podLogsDir": self.folder.join("pod-logs"),
            "volumePluginDir": self.folder.join("volume-plugins"),
            "resolvConf": self.resolver(),
            "healthzBindAddress": "127.0.0.1", "healthzPort": 10248,
            // Tests wait for volumes and pods again and again.
            "syncFrequency": "10s", "maxPods": 200, "registryPullQPS": 0,
        })
    }

    fn resolver(&self) -> PathBuf {
        self.folder.join("resolv.conf")
    }

    fn kube_proxy(&self) -> Result<Part> {
        let arguments = [
            self.kubeconfig_of("proxy"),
            format!("--hostname-override={}", self.node()),
            format!("--cluster-cidr={}", self.ledger.network.pods(self.index)),
            "--proxy-mode=nftables".to_owned(),
            // Without it, answers between pods on the bridge take the short way and are not those of the service.
            "--masquerade-all".to_owned(),
            // The limits are those of the machine, which are not ours to change.
            "--conntrack-max-per-core=0".to_owned(),
            "--conntrack-tcp-timeout-established=0".to_owned(),
            "--conntrack-tcp-timeout-close-wait=0".to_owned(),
        ];
        let probe = Probe::Url("http://127.0.0.1:10256/livez".to_owned());
        Ok(self.part("kube-proxy", program("kube-proxy")?, &arguments, probe))
    }
}

fn folder_of(program: &Path) -> Result<PathBuf> {
    Ok(program.parent().context("a program lies in a folder")?.to_owned())
}
