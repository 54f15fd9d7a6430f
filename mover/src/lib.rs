//! Carrack's engine: a repository of deduplicated, compressed and encrypted data in an object store, and the
//! ways into it and out of it.

pub mod format;
