//! A bed: one or two clusters and MinIO on one network.

use std::fs::{self, File, OpenOptions};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::cleanup::{down_held, end, sweep};
use crate::cluster::Cluster;
use crate::ledger::{Ledger, State};
use crate::machine::tell;
use crate::network::{Network, Place};
use crate::part::{Part, Probe};
use crate::process::Identity;
use crate::programs;
use crate::register::{Entry, alone};

/// Sockets lie as deep as 67 bytes below the directory, and their paths have at most 107.
const LONGEST_DIRECTORY: usize = 40;

/// A kubelet that is not ours has this folder.
const NODE: &str = "/var/lib/kubelet/pods";

/// What runs in each cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// etcd, kube-apiserver, kube-controller-manager and snapshot-controller: objects and no pods.
    ControlPlane,
    /// Also a node that runs pods, and volumes of real drivers.
    Full,
}

/// What a bed has.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many clusters, 1 or 2.
    pub clusters: u8,
    /// What runs in each.
    pub level: Level,
    /// Where everything is kept: an absolute path of at most 40 bytes. It is made if it is not there; what a bed
    /// that ran in it has left is removed.
    pub directory: PathBuf,
    /// Whether there is a MinIO that pods of all clusters reach.
    pub minio: bool,
}

impl Options {
    /// One cluster, and MinIO if pods are there to use it.
    pub fn new(level: Level, directory: impl Into<PathBuf>) -> Self {
        Self { clusters: 1, level, directory: directory.into(), minio: level == Level::Full }
    }

    fn check(&self) -> Result<()> {
        let directory = self.directory.display();
        if !rustix::process::geteuid().is_root() {
            bail!("a test cluster needs root: it makes namespaces, mounts and cgroups; run it with sudo");
        }
        if self.level == Level::Full && Path::new(NODE).exists() {
            bail!(
                "{NODE} is there: this machine is the node of a cluster, whose kubelet another one would disturb; \
                 take another machine, or level control-plane"
            );
        }
        if !(1..=2).contains(&self.clusters) {
            bail!("a bed has 1 or 2 clusters, not {}", self.clusters);
        }
        if !self.directory.is_absolute() {
            bail!("the directory of a bed must be an absolute path, not {directory}");
        }
        if self.directory.as_os_str().len() > LONGEST_DIRECTORY {
            bail!(
                "the directory {directory} is too long for the sockets in it; take one of at most \
                 {LONGEST_DIRECTORY} bytes, such as /tmp/carrack-bed"
            );
        }
        Ok(())
    }

    fn places(&self) -> Vec<Place> {
        (0..self.clusters).map(Place::Cluster).chain(self.minio.then_some(Place::Minio)).collect()
    }
}

/// The object store of a bed.
#[derive(Debug, Clone)]
pub struct Minio {
    /// The base URL, which this machine and all pods reach.
    pub url: String,
    /// The access key id.
    pub access_key: &'static str,
    /// The secret access key.
    pub secret_key: &'static str,
    /// A bucket that is there from the start.
    pub bucket: &'static str,
}

/// Running clusters; ended when dropped, if they were started here and not kept with [`Bed::keep`].
#[derive(Debug)]
pub struct Bed {
    ledger: Arc<Ledger>,
    clusters: Vec<Cluster>,
    minio: Option<Minio>,
    /// Held by whoever starts the bed or owns it.
    lock: Option<File>,
}

impl Bed {
    /// Starts a bed and waits until all of it serves; each part is reported on standard error.
    ///
    /// # Errors
    ///
    /// The options are wrong, a program is not built, another process has a bed in this directory, or a part does
    /// not start: the error says which and has the end of its log. What was started is ended again; the logs stay.
    pub fn start(options: Options) -> Result<Self> {
        options.check()?;
        let start = Instant::now();
        fs::create_dir_all(&options.directory)
            .with_context(|| format!("make {}", options.directory.display()))?;
        let lock = lock(&options.directory)?;
        if let Err(error) = sweep() {
            // It is not in the way of this one.
            tell(&format!("{error:#}"));
        }
        down_held(&options.directory)?;
        let ledger = Arc::new(make_network(&options)?);
        let bed = Self::assemble(ledger, Some(lock));
        if let Err(error) = bed.start_everything(&options) {
            let ended = bed.end(false);
            return Err(ended.err().map_or(error, |ending| ending.context("end what was started")));
        }
        bed.ledger.change(|state| {
            state.ready = true;
            Ok(())
        })?;
        tell(&format!("everything is ready after {:.1} s", start.elapsed().as_secs_f32()));
        Ok(bed)
    }

    /// The bed that runs in this directory. It goes on when this is dropped.
    ///
    /// # Errors
    ///
    /// No bed runs there, or one that was not started to its end.
    pub fn attach(directory: &Path) -> Result<Self> {
        let state = State::read(directory)?.filter(|state| state.ready);
        let shown = directory.display();
        let state =
            state.with_context(|| format!("no bed runs in {shown}; start one: cluster up {shown}"))?;
        let ledger = Arc::new(Ledger::new(directory, state)?);
        Ok(Self::assemble(ledger, None))
    }

    fn assemble(ledger: Arc<Ledger>, lock: Option<File>) -> Self {
        let (count, minio) = ledger.shape();
        let clusters = (0..count).map(|index| Cluster::new(&ledger, index)).collect();
        let url = format!("http://{}:9000", ledger.network.address(Place::Minio));
        let minio = minio.then_some(Minio {
            url,
            access_key: "carrack-test",
            secret_key: "carrack-test-secret",
            bucket: "carrack",
        });
        Self { ledger, clusters, minio, lock }
    }

    fn start_everything(&self, options: &Options) -> Result<()> {
        std::thread::scope(|scope| {
            let minio = self.minio.as_ref().map(|minio| scope.spawn(|| self.start_minio(minio)));
            let clusters: Vec<_> = self
                .clusters
                .iter()
                .map(|cluster| scope.spawn(|| start_cluster(cluster, options.level)))
                .collect();
            let ended: Vec<_> =
                minio.into_iter().chain(clusters).map(|thread| joined(thread.join())).collect();
            ended.into_iter().collect::<Result<()>>()
        })?;
        self.ledger.all_run()
    }

    fn start_minio(&self, minio: &Minio) -> Result<()> {
        let folder = self.ledger.directory.join(Place::Minio.name());
        // A folder in the data directory is a bucket.
        fs::create_dir_all(folder.join("data").join(minio.bucket))?;
        let variables = [
            ("MINIO_ROOT_USER", minio.access_key),
            ("MINIO_ROOT_PASSWORD", minio.secret_key),
            ("MINIO_BROWSER", "off"),
            ("MINIO_UPDATE", "off"),
        ];
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let data = folder.join("data").display().to_string();
        self.ledger.launch(vec![Part {
            name: "minio/minio".to_owned(),
            namespace: self.ledger.network.namespace(Place::Minio),
            program: programs::minio()?,
            arguments: ["server", "--quiet", "--address=:9000", &data].map(str::to_owned).to_vec(),
            environment: variables.map(owned).into_iter().chain([home(&folder)]).collect(),
            log: folder.join("minio.log"),
            probe: Probe::Url("http://127.0.0.1:9000/minio/health/cluster".to_owned()),
            common_socket: None,
            process: None,
        }])
    }

    /// The directory of the bed.
    pub fn directory(&self) -> &Path {
        &self.ledger.directory
    }

    /// All clusters.
    pub fn clusters(&self) -> &[Cluster] {
        &self.clusters
    }

    /// One cluster; the first is 0.
    ///
    /// # Errors
    ///
    /// There are not so many.
    pub fn cluster(&self, index: usize) -> Result<&Cluster> {
        let count = self.clusters.len();
        self.clusters.get(index).with_context(|| format!("there is no cluster {index}; the bed has {count}"))
    }

    /// The object store, if the bed has one.
    pub fn minio(&self) -> Option<&Minio> {
        self.minio.as_ref()
    }

    /// This machine's address, under which clusters and pods reach what listens on it.
    pub fn host(&self) -> Ipv4Addr {
        self.ledger.network.host()
    }

    /// Kills a part that belongs to no cluster, `minio`; the clusters' parts are theirs.
    ///
    /// # Errors
    ///
    /// The bed has none.
    pub fn kill_minio(&self) -> Result<()> {
        self.ledger.kill("minio/minio")
    }

    /// Starts it again, with the same data.
    ///
    /// # Errors
    ///
    /// The bed has none, or it is not ready within two minutes.
    pub fn start_minio_again(&self) -> Result<()> {
        self.ledger.start("minio/minio")
    }

    /// Lets the bed run on after this process has ended, until [`crate::down`].
    ///
    /// # Errors
    ///
    /// Its state cannot be written.
    pub fn keep(mut self) -> Result<()> {
        register(&self.ledger.directory, &self.ledger.network, None)?;
        self.lock = None;
        Ok(())
    }

    /// Ends the bed and removes all that it has made, also if it was only attached to.
    ///
    /// # Errors
    ///
    /// Something cannot be ended or removed; the error says what.
    pub fn stop(mut self) -> Result<()> {
        let ended = self.end(true);
        self.lock = None;
        ended
    }

    fn end(&self, with_logs: bool) -> Result<()> {
        let ended = end(&self.ledger.directory, &self.ledger.network, with_logs);
        self.ledger.reap_all();
        ended
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if self.lock.is_some()
            && State::file(&self.ledger.directory).exists()
            && let Err(error) = self.end(true)
        {
            tell(&format!("{error:#}"));
        }
    }
}

fn start_cluster(cluster: &Cluster, level: Level) -> Result<()> {
    if level == Level::ControlPlane {
        return cluster.start_control_plane();
    }
    std::thread::scope(|scope| {
        let containerd = scope.spawn(|| cluster.start_containerd());
        cluster.start_control_plane()?;
        joined(containerd.join())
    })?;
    cluster.start_node()
}

fn joined(ended: std::thread::Result<Result<()>>) -> Result<()> {
    ended.unwrap_or_else(|_| bail!("a thread that starts a part has panicked"))
}

fn home(folder: &Path) -> (String, String) {
    ("HOME".to_owned(), folder.display().to_string())
}

/// Chooses names, notes them, and makes what has them, so that whatever was made can be found.
fn make_network(options: &Options) -> Result<Ledger> {
    let _alone = alone()?;
    let state = State {
        network: Network::unused()?,
        clusters: options.clusters,
        level: options.level,
        minio: options.minio,
        ready: false,
        parts: Vec::new(),
    };
    state.write(&options.directory)?;
    register(&options.directory, &state.network, Some(Identity::own()?))?;
    let ledger = Ledger::new(&options.directory, state)?;
    let made = ledger.network.make(&options.places()).and_then(|()| ledger.cgroups().make("parts"));
    if let Err(error) = made {
        end(&options.directory, &ledger.network, true)?;
        return Err(error.context("make the network and the cgroups of the bed"));
    }
    tell(&format!("{} in {}", ledger.network.name(), options.directory.display()));
    Ok(ledger)
}

fn register(directory: &Path, network: &Network, owner: Option<Identity>) -> Result<()> {
    Entry { directory: directory.to_owned(), network: network.clone(), owner }.write()
}

/// Held while a bed is started or owned, so that nobody else clears its directory.
pub(crate) fn lock(directory: &Path) -> Result<File> {
    let path = directory.join("bed.lock");
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let shown = directory.display();
        bail!("another process has a bed in {shown}; let it end, or take another directory");
    }
    Ok(file)
}
