//! The backup pipeline: threads, bounded queues, one byte budget, and the bridge to the store.
//!
//! ```text
//! dispatcher (walk or device, joined with the parent snapshot, in tree order)
//!   ├─ tasks ──> workers: read → cut → id → known? → frame: compress → seal ──> open pack
//!   │                                                            full pack ══ bridge ══> store
//!   └─ items, in order ──> tree writer: waits for each task's answer, writes pages ──> open metadata pack
//! ```
//!
//! A worker carries a task from reading to the pack without handing it on, so the bytes stay in its cache and are
//! copied twice: once by compression, once into the pack. Nothing here knows files from devices.

pub(crate) mod bridge;
mod compression;
pub(crate) mod cut;
pub(crate) mod frames;
pub(crate) mod known;
pub(crate) mod packer;
pub(crate) mod promise;
pub(crate) mod runs;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod tree;
