//! One file for each verb: its options, and what it does.

pub(crate) mod backup;
pub(crate) mod cat;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod copy;
pub(crate) mod diff;
pub(crate) mod find;
pub(crate) mod forget;
pub(crate) mod init;
pub(crate) mod job;
pub(crate) mod key;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod mount;
pub(crate) mod prune;
pub(crate) mod repo;
pub(crate) mod restore;
mod revive;
pub(crate) mod snapshots;
pub(crate) mod stats;
