//! Thin, safe wrappers around the Linux calls that reading and writing file trees and devices needs.
//!
//! Nothing here decides anything: errors are plain `std::io::Error`, and the callers name the thing and the
//! place. Beside the calls there is what sorts the names that they give, in bounded memory. Every call takes a directory descriptor and one name (or a path that is resolved beneath it), so
//! nobody above builds path strings for the kernel. The only `unsafe` code outside foreign libraries is here.

pub mod attributes;
pub mod direct;
pub mod directory;
pub mod fds;
pub mod file;
pub mod ioctl;
pub mod memory;
pub(crate) mod names;
pub mod owners;
pub mod stat;

#[cfg(test)]
mod tests;
