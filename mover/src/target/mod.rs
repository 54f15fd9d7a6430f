//! Where a restore puts data: beneath a directory, on a device or image file, on standard output.
//!
//! A hostile snapshot, or somebody who changes the target meanwhile, must never make a restore write outside
//! of it: every step goes through directory descriptors beneath the root, and no link is ever followed.

pub mod block;
pub mod stdout;
pub mod tree;

mod attributes;
mod file;
mod remove;
mod root;

#[cfg(test)]
mod tests;

pub use crate::source::Problem;
pub use attributes::differing;
pub use file::TargetFile;
pub use remove::Protection;
pub(crate) use remove::{directory_in_the_way, protected_in_the_way};
pub(crate) use root::MADE_BY_THE_FILE_SYSTEM;
