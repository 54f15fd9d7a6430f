//! Carrack's controllers.
//!
//! A request (`DataMoverBackup`, `DataMoverRestore`) is looked at whenever it, or anything that was made for it, changes.
//! Each time the same four steps follow: *observe* what there is in the cluster, *decide* what comes next (a pure function),
//! *apply* it, and *report* in the status. Nothing is remembered between two looks but what the cluster itself holds, so a
//! controller that is killed at any moment goes on where it was.
//!
//! Everything that was made for a request carries its uid as a label, and the request a finalizer, until all of it is gone.

pub mod access;
pub mod backup;
pub mod bundle;
pub mod changes;
pub mod condition;
pub mod context;
pub mod error;
#[cfg(test)]
mod fake;
pub mod figures;
pub mod lease;
pub mod live;
pub mod memory;
pub mod metrics;
pub mod movertype;
pub mod objects;
pub mod owners;
pub mod placement;
pub mod plugin;
pub mod pod;
pub mod populator;
pub mod repository;
pub mod restore;
pub mod retry;
pub mod run;
pub mod settings;
pub mod slots;
pub mod snapshot;
pub mod sweep;
