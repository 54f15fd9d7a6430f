//! The repository format: bytes to types and back, with no input or output.
//!
//! `mover/docs/format.md` is the document; every number here stands there too.

pub mod metadata;
