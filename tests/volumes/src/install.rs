//! Carrack in the clusters of a bed.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use carrack_cluster::{Bed, Cluster};
use serde_json::json;

use crate::{chart, cluster::Kubernetes};

/// Where the mover pods run.
pub const NAMESPACE: &str = "carrack";

/// The image of mover pods.
const IMAGE: &str = "docker.io/carrack/carrack:test";

/// The programs that were built with the tests, and the image that is made of one of them.
#[derive(Debug)]
pub struct Site {
    controller: PathBuf,
    archive: PathBuf,
}

impl Site {
    /// Finds the programs, and packs the image into the directory of the bed.
    ///
    /// # Errors
    ///
    /// They are not built, or the image cannot be packed.
    pub fn new(bed: &Bed) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mover = program("CARRACK", "carrack")?;
        let controller = program("CARRACK_CONTROLLER", "carrack-controller")?;
        // What is for debuggers is ten times as much as the rest, and a pod waits for it.
        let stripped = bed.directory().join("carrack");
        run(Command::new("strip").arg("-o").arg(&stripped).arg(&mover))?;
        let archive = bed.directory().join("carrack.tar");
        let mut build = Command::new("python3");
        build.arg(root.join("charts/image/build.py")).args(["--name", IMAGE, "--binary"]).arg(&stripped);
        run(build.arg("--out").arg(&archive))?;
        Ok(Self { controller, archive })
    }

    /// Makes Carrack known to a cluster, and starts its controller.
    ///
    /// # Errors
    ///
    /// The cluster refuses something, or the controller does not start.
    pub fn install<'a>(&self, cluster: &'a Cluster) -> Result<Carrack<'a>> {
        self.prepare(cluster)?;
        self.begin(cluster, &chart::kubeconfig(cluster)?)
    }

    /// The same with a controller that reaches the cluster as this kubeconfig says.
    ///
    /// # Errors
    ///
    /// As for [`Self::install`].
    pub fn install_through<'a>(&self, cluster: &'a Cluster, kubeconfig: &Path) -> Result<Carrack<'a>> {
        self.prepare(cluster)?;
        self.begin(cluster, kubeconfig)
    }

    fn prepare(&self, cluster: &Cluster) -> Result<()> {
        cluster.import_image(&self.archive)?;
        let kinds = run(Command::new(&self.controller).arg("crd"))?;
        cluster.apply(&kinds)?;
        for kind in
            ["repositories", "clusterrepositories", "datamovertypes", "datamoverbackups", "datamoverrestores"]
        {
            cluster.wait_for(&format!("crd/{kind}.carrack.dev"), "condition=Established", 90)?;
        }
        chart::install(cluster)
    }

    fn begin<'a>(&self, cluster: &'a Cluster, kubeconfig: &Path) -> Result<Carrack<'a>> {
        let carrack = Carrack {
            cluster,
            controller: self.controller.clone(),
            kubeconfig: kubeconfig.to_owned(),
            process: Mutex::default(),
        };
        carrack.start()?;
        Ok(carrack)
    }
}

/// A program that was built with this one and lies beside it or one directory above, or where a variable says.
fn program(variable: &str, name: &str) -> Result<PathBuf> {
    let built = || -> Result<PathBuf> {
        let own = std::env::current_exe()?;
        let mut beside = own.ancestors().skip(1).take(2).map(|directory| directory.join(name));
        beside.find(|path| path.is_file()).with_context(|| {
            format!("{name} is not there: build it with cargo build --workspace --bins, or set {variable}")
        })
    };
    let path = std::env::var_os(variable).map_or_else(built, |path| Ok(PathBuf::from(path)))?;
    ensure!(path.exists(), "{} is not there, which {variable} names", path.display());
    Ok(path)
}

/// Runs a program to its end, and gives what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| shown.clone())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown}: {}: {said}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Carrack in one cluster.
#[derive(Debug)]
pub struct Carrack<'a> {
    cluster: &'a Cluster,
    controller: PathBuf,
    kubeconfig: PathBuf,
    process: Mutex<Option<Child>>,
}

impl Carrack<'_> {
    /// The cluster, with what tests ask of it.
    pub fn kubernetes(&self) -> Kubernetes<'_> {
        Kubernetes(self.cluster)
    }

    /// Starts the controller, if it does not run.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn start(&self) -> Result<()> {
        let log = self.log();
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| log.display().to_string())?;
        let mut command = Command::new(&self.controller);
        command
            .args([
                "run",
                "--namespace",
                NAMESPACE,
                "--image",
                IMAGE,
                "--image-pull-policy",
                "Never",
                "--cluster-name",
            ])
            .arg(self.cluster.name())
            // Whatever is free: two controllers run on this machine.
            .args(["--metrics-address", "127.0.0.1:0"])
            .env("KUBECONFIG", &self.kubeconfig)
            // Who starts again in the same pod leads at once, as in a cluster.
            .env("POD_NAME", "test")
            .env("CARRACK_LOG", "debug,hyper=info,tower=info,kube=info,rustls=info,h2=info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(process.is_none(), "the controller of cluster {} runs already", self.cluster.name());
        *process = Some(command.spawn().context("the controller")?);
        Ok(())
    }

    /// What `kubectl carrack` prints for these arguments.
    ///
    /// # Errors
    ///
    /// It does not end well.
    pub fn plugin(&self, arguments: &[&str]) -> Result<String> {
        let plugin = self.controller.with_file_name("kubectl-carrack");
        run(Command::new(plugin).args(arguments).arg("--kubeconfig").arg(self.cluster.kubeconfig()))
    }

    /// Kills the controller, as a crash does.
    ///
    /// # Errors
    ///
    /// It does not run, or ended by itself before.
    pub fn kill(&self) -> Result<()> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = process.take().context("the controller does not run")?;
        if let Some(ended) = child.try_wait()? {
            anyhow::bail!("the controller had ended by itself: {ended}; its log is {}", self.log().display());
        }
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// The id of the controller's process; none if it does not run.
    pub fn process_id(&self) -> Option<u32> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Child::id)
    }

    /// Where the controller writes its log.
    pub fn log(&self) -> PathBuf {
        self.cluster.log("carrack-controller")
    }

    /// What is known for whoever must find out why a test failed.
    pub fn describe(&self) -> String {
        let list = "pods,pvc,pv,volumesnapshots,volumesnapshotcontents,datamoverbackups,datamoverrestores,clusterrepositories,datamovertypes";
        let mut text =
            self.cluster.kubectl(&["get", list, "--all-namespaces", "-o", "wide"]).unwrap_or_default();
        let events = ["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"];
        text.push_str(&self.cluster.kubectl(&events).unwrap_or_default());
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        text.push_str(&lines.get(lines.len().saturating_sub(60)..).unwrap_or_default().join("\n"));
        text
    }

    /// A repository in the bed's object store, and a mover type that uses it and is the default.
    ///
    /// # Errors
    ///
    /// The cluster refuses them, or the repository is not ready within a minute.
    pub fn connect(&self, bed: &Bed, prefix: &str) -> Result<()> {
        let minio = bed.minio().context("the bed has an object store")?;
        let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
            { "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "store", "namespace": NAMESPACE },
              "stringData": { "AWS_ACCESS_KEY_ID": minio.access_key, "AWS_SECRET_ACCESS_KEY": minio.secret_key } },
            { "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "key", "namespace": NAMESPACE },
              "stringData": { "password": "the same in every cluster" } },
            { "apiVersion": "carrack.dev/v1alpha1", "kind": "ClusterRepository", "metadata": { "name": "main" },
              "spec": {
                "location": { "url": format!("s3://{}/{prefix}", minio.bucket), "endpoint": minio.url, "region": "us-east-1" },
                "credentialsSecret": { "name": "store", "namespace": NAMESPACE },
                "keySecret": { "name": "key", "namespace": NAMESPACE } } },
            { "apiVersion": "carrack.dev/v1alpha1", "kind": "DataMoverType",
              "metadata": { "name": "standard", "annotations": { "carrack.dev/is-default-type": "true" } },
              "spec": { "provisioner": "carrack.dev/mover", "repository": { "name": "main" },
                "timeouts": { "prepareSeconds": 120, "stopSeconds": 10 },
                "podTemplate": { "resources": { "limits": { "memory": "256Mi" } } } } },
        ] });
        self.cluster.apply(&objects.to_string())?;
        self.cluster.wait_for("clusterrepository/main", "condition=Ready", 180)?;
        self.cluster.wait_for("datamovertype/standard", "condition=Ready", 180)
    }
}

impl Drop for Carrack<'_> {
    fn drop(&mut self) {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut child) = process {
            // It is gone either way.
            drop(child.kill());
            drop(child.wait());
        }
    }
}
