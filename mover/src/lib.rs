//! Carrack's engine: a repository of deduplicated, compressed and encrypted data in an object store, and the
//! ways into it and out of it.

pub mod backup;
pub mod cancel;
pub mod check;
pub mod chunker;
pub mod clock;
pub mod codec;
pub mod copy;
pub mod diff;
pub mod error;
pub mod find;
pub mod format;
#[cfg(feature = "testing")]
pub mod fuzz;
pub mod id;
pub mod keys;
pub mod limits;
pub mod monitor;
#[cfg(feature = "mount")]
pub mod mount;
mod pipeline;
pub mod reader;
pub mod repack;
pub mod repo;
pub mod restore;
pub mod secret;
pub mod source;
pub mod store;
pub mod sys;
pub mod target;
