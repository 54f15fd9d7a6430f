//! Real Kubernetes clusters for tests, on one machine and without an image registry.
//!
//! etcd, kube-apiserver, kubelet, containerd and the others run as ordinary processes in network namespaces. What was
//! started is known by its names (one id for namespaces, cgroups and interfaces, one directory for files, mounts and
//! loop devices), so that all of it can be ended even if whoever started it was killed at any moment.
//!
//! ```no_run
//! use carrack_cluster::{Bed, Level, Options};
//!
//! let bed = Bed::start(Options::new(Level::ControlPlane, "/tmp/carrack-bed"))?;
//! let cluster = bed.cluster(0)?;
//! println!("{}", cluster.kubectl(&["get", "namespaces"])?);
//! cluster.kill("kube-apiserver")?;
//! cluster.start("kube-apiserver")?;
//! bed.stop()?;
//! # anyhow::Ok(())
//! ```

mod authority;
mod bed;
mod cgroup;
mod cleanup;
mod cluster;
mod control_plane;
pub mod image;
mod ledger;
mod machine;
mod network;
mod node;
mod part;
mod process;
mod programs;
mod register;
mod storage;

pub use bed::{Bed, Level, Minio, Options};
pub use cleanup::{down, sweep};
pub use cluster::Cluster;
pub use programs::program;
pub use storage::{DRIVER, NO_SNAPSHOTS_DRIVER};
