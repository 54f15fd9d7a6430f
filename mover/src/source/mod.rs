//! Where data comes from: file trees, block devices and images, streams.
//!
//! Everything here is synchronous and made for ordinary threads. What cannot be read is a [`Problem`] beside
//! the data, never an end of the walk and never a silent gap.

pub mod attributes;
pub mod block;
pub mod changed;
pub mod directory;
pub mod exclude;
pub mod file;
pub mod reads;
pub mod roots;
pub mod silent;
pub mod stdin;
pub mod walk;

mod read_ahead;

#[cfg(test)]
mod tests;

use std::{borrow::Cow, os::unix::ffi::OsStrExt as _, path::Path};

use crate::error::Error;

/// Something that could not be read or put back; the work goes on without it and the result is partial.
#[derive(Debug)]
pub struct Problem {
    /// The path, slash-joined, as the snapshot has it.
    pub path: Vec<u8>,
    /// What about the path: `contents`, `owner`, the name of an extended attribute, …
    pub what: Cow<'static, str>,
    /// Why.
    pub error: Error,
}

impl Problem {
    /// A problem with `what` of `path`.
    pub fn new(path: impl Into<Vec<u8>>, what: impl Into<Cow<'static, str>>, error: Error) -> Self {
        Self { path: path.into(), what: what.into(), error }
    }
}

/// A path as snapshots have it: slash-joined, without a leading slash.
pub fn stored_path(path: &Path) -> &[u8] {
    let path = path.as_os_str().as_bytes();
    path.strip_prefix(b"/").unwrap_or(path)
}

/// A path for messages: bytes that are no UTF-8 and control characters are shown escaped.
pub fn show_path(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => path.escape_ascii().to_string(),
    }
}
