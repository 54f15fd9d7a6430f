//! One cluster of a bed, as tests use it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::authority::{ADMIN, Authority};
use crate::ledger::Ledger;
use crate::machine::{run, run_with};
use crate::network::Place;
use crate::part::{Part, Probe};
use crate::programs::program;

/// One cluster. Parts are named as their programs: `etcd`, `kube-apiserver`, `kubelet`, `containerd` and so on.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) index: u8,
    pub(crate) folder: PathBuf,
    pub(crate) authority: Authority,
    kubeconfig: PathBuf,
}

impl Cluster {
    pub(crate) fn new(ledger: &Arc<Ledger>, index: u8) -> Self {
        let place = Place::Cluster(index);
        let folder = ledger.directory.join(place.name());
        let server = format!("https://{}:6443", ledger.network.address(place));
        let authority = Authority::of(&folder, &server);
        let kubeconfig = authority.kubeconfig(ADMIN);
        Self { ledger: Arc::clone(ledger), index, folder, authority, kubeconfig }
    }

    pub(crate) fn place(&self) -> Place {
        Place::Cluster(self.index)
    }

    /// `one` or `two`.
    pub fn name(&self) -> &'static str {
        self.place().name()
    }

    /// The name of its only node.
    pub fn node(&self) -> String {
        format!("node-{}", self.name())
    }

    /// The address of its node, which this machine, its own pods and those of the other cluster reach.
    pub fn address(&self) -> Ipv4Addr {
        self.ledger.network.address(self.place())
    }

    /// The base URL of kube-apiserver.
    pub fn server(&self) -> String {
        format!("https://{}:6443", self.address())
    }

    /// The kubeconfig of a user who may do everything.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The folder in which kubelet keeps volumes; a driver's node part and a node agent need it.
    pub fn kubelet_root(&self) -> PathBuf {
        self.folder.join("kubelet")
    }

    /// The socket of containerd.
    pub fn containerd_socket(&self) -> PathBuf {
        self.folder.join("run/containerd.sock")
    }

    /// The file from which a CSI driver reads how it shall misbehave.
    pub fn faults(&self, driver: &str) -> PathBuf {
        self.folder.join("csi").join(driver).join("faults.json")
    }

    /// The network namespace of the node.
    pub fn namespace(&self) -> String {
        self.ledger.network.namespace(self.place())
    }

    /// The folder with the logs of all parts.
    pub fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    /// The log of one part.
    pub fn log(&self, part: &str) -> PathBuf {
        self.logs().join(format!("{part}.log"))
    }

    /// The names of its parts.
    pub fn parts(&self) -> Vec<String> {
        let prefix = format!("{}/", self.name());
        self.ledger.names().iter().filter_map(|name| name.strip_prefix(&prefix).map(str::to_owned)).collect()
    }

    /// Whether a part runs.
    ///
    /// # Errors
    ///
    /// There is no part of this name; so for all that take one.
    pub fn runs(&self, part: &str) -> Result<bool> {
        Ok(self.ledger.part(&self.full(part))?.runs())
    }

    /// Kills a part, as a crash does, and waits until it is gone.
    pub fn kill(&self, part: &str) -> Result<()> {
        self.ledger.kill(&self.full(part))
    }

    /// Asks a part to end, kills it after 10 s, and waits until it is gone.
    pub fn stop(&self, part: &str) -> Result<()> {
        self.ledger.stop(&self.full(part))
    }

    /// Starts a part that does not run, as it was started at first, and waits until it is ready. With a CSI driver, its
    /// companions are started again, some of which end when the driver does.
    ///
    /// # Errors
    ///
    /// It ends, or is not ready within two minutes; the error has the end of its log.
    pub fn start(&self, part: &str) -> Result<()> {
        self.ledger.start(&self.full(part))?;
        for companion in self.companions_of(part) {
            self.kill(&companion)?;
            self.ledger.start(&self.full(&companion))?;
        }
        Ok(())
    }

    /// [`Self::stop`], then [`Self::start`].
    pub fn restart(&self, part: &str) -> Result<()> {
        self.stop(part)?;
        self.start(part)
    }

    /// What `kubectl` prints for these arguments, as the user who may do everything.
    ///
    /// # Errors
    ///
    /// It does not end well; the error has what it said.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        run(self.kubectl_command()?.args(arguments))
    }

    /// `kubectl apply` of manifests in YAML or JSON.
    ///
    /// # Errors
    ///
    /// As for [`Self::kubectl`].
    pub fn apply(&self, manifests: &str) -> Result<String> {
        run_with(self.kubectl_command()?.args(["apply", "-f", "-"]), manifests)
    }

    /// Waits for a condition, `kubectl wait` without its failing because an object is not there yet.
    ///
    /// # Errors
    ///
    /// It is not true after `seconds`; the error says what was waited for.
    pub fn wait_for(&self, object: &str, condition: &str, seconds: u32) -> Result<()> {
        let (timeout, condition) = (format!("--timeout={seconds}s"), format!("--for={condition}"));
        self.kubectl(&["wait", object, &condition, &timeout]).map(drop)
    }

    fn kubectl_command(&self) -> Result<Command> {
        let mut command = Command::new(program("kubectl")?);
        // Discovery is cached in the home directory, by address, and addresses are used again by other beds.
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--cache-dir").arg(self.folder.join("kubectl"));
        Ok(command)
    }

    /// Makes the images of an archive known to containerd, under the names that the archive gives them. Pods need
    /// `imagePullPolicy: Never` or `IfNotPresent`.
    ///
    /// # Errors
    ///
    /// The cluster has no containerd, or the archive is no image.
    pub fn import_image(&self, archive: &Path) -> Result<()> {
        let mut command = Command::new(program("ctr")?);
        command.arg("-a").arg(self.containerd_socket()).args(["-n", "k8s.io", "images", "import"]);
        run(command.arg(archive)).with_context(|| format!("import {}", archive.display())).map(drop)
    }

    /// A command to which the program that runs in the node's network, and its arguments, are added.
    pub fn enter(&self) -> Command {
        self.ledger.network.enter(self.place())
    }

    fn full(&self, part: &str) -> String {
        format!("{}/{part}", self.name())
    }

    /// A part of this cluster that is not started yet.
    pub(crate) fn part(&self, name: &str, program: PathBuf, arguments: &[String], probe: Probe) -> Part {
        Part {
            name: self.full(name),
            namespace: self.namespace(),
            program,
            arguments: arguments.to_vec(),
            environment: Vec::new(),
            log: self.log(name),
            probe,
            common_socket: None,
            process: None,
        }
    }
}
