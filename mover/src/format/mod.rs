//! The repository format: bytes to types and back, with no input or output.
//!
//! `mover/docs/format.md` is the document; every number here stands there too.

pub(crate) mod bytes;
pub mod entry;
pub mod frame;
pub mod metadata;
pub mod order;
pub mod pack;
pub mod page;
pub mod records;
pub mod session;
pub(crate) mod table;

#[cfg(test)]
mod tests;
