//! Carrack in real clusters, for tests: its image, its kinds, its controller as an ordinary process that can be killed, and
//! what there is to look at.

mod bed;
mod chart;
mod cluster;
mod faulty;
mod install;
mod look;
mod velero;
mod volume;
mod wait;

pub use bed::start;
pub use cluster::{Ends, Kubernetes};
pub use faulty::{Fault, FaultyServer};
pub use install::{Carrack, NAMESPACE, Site};
pub use velero::{Took, Velero};
pub use volume::{Contents, fill};
pub use wait::until;
