//! The object store contract, and how a store is opened.
//!
//! The engine needs four operations: create if absent, get, list, delete. Everything else about safety is built
//! from them by the repository protocol, which relies on these rules:
//!
//! - A **primary** object (pack, session, condemned list, index segment) has a random name that is sent in at
//!   most one PUT, ever. An unclear reply surfaces as [`ErrorKind::Unavailable`](crate::error::ErrorKind), and
//!   the caller takes a new name. No layer below the caller repeats such a PUT.
//! - A **decision** object ([`is_decision`]) has a derived name and may be sent again; on [`Put::Exists`] the
//!   caller reads what is there and obeys it.
//! - An object never changes once it exists.
//!
//! Stores know nothing of retries, limits or logs: decorators, put together in one order by one function, add
//! them.

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod decorate;
#[cfg(any(test, feature = "testing"))]
pub mod faulty;
mod fs;
mod limit;
#[cfg(any(test, feature = "testing"))]
pub mod mem;
mod open;
mod probe;
#[cfg(any(test, feature = "testing"))]
pub mod record;
mod retry;
mod s3;
mod throttle;

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::limits;
use crate::monitor::WaitMonitor;

pub use decorate::{Decorator, decorate};
pub use fs::FsStore;
pub use open::{open_plain, open_url};
pub use probe::{PROBES, Probed, probe};
#[cfg(feature = "testing")]
pub(crate) use s3::fuzz_answer;

/// The longest object name, in bytes. S3 takes 1 024 including the repository's prefix; a path component on
/// Linux takes 255.
pub const MAX_NAME_LENGTH: usize = 200;

/// What became of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// This call created the object.
    Created,
    /// An object of that name exists already; it was not touched.
    Exists,
}

/// Which part of an object to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// The whole object.
    All,
    /// `length` bytes from `offset`. Past the end of the object: an error of kind
    /// [`Corrupt`](crate::error::ErrorKind::Corrupt).
    Slice {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
    /// The last bytes; all of the object if it is shorter.
    Last(u64),
}

/// One object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The full name, from the root of the repository.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// When the store took it, by the store's clock, if it says so. A hint: of a copied repository it is when it was copied.
    pub modified: Option<Timestamp>,
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Objects in lexicographic order of their names.
    pub objects: Vec<Listed>,
    /// Token for the next page; absent on the last one.
    pub next: Option<String>,
}

/// What a store is good at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Objects lie in a local file system: requests are cheap, reads need no coalescing.
    pub local: bool,
    /// How many puts at once use the store well.
    pub preferred_parallel_puts: usize,
    /// How many gets at once use the store well.
    pub preferred_parallel_gets: usize,
}

/// A place for immutable objects. Names are checked by [`valid_name`].
#[async_trait]
pub trait ObjectStore: Send + Sync + Debug {
    /// Creates the object if no object of that name exists.
    ///
    /// An error of kind `Unavailable` means **unclear**: it may have been created, now or later. Never repeated
    /// inside for primary objects.
    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put>;

    /// Reads an object or a part of it; an error of kind `NotFound` if it does not exist.
    async fn get(&self, name: &str, range: ByteRange) -> Result<Bytes>;

    /// One page of the objects whose names start with `prefix` (a plain string, not a folder), in lexicographic
    /// order; `token` is the `next` of the page before.
    async fn list(&self, prefix: &str, token: Option<String>) -> Result<Page>;

    /// Deletes an object. `Ok(true)`: confirmed deleted, or confirmed absent where the store cannot tell the
    /// two apart; `Ok(false)`: confirmed that there was none. Idempotent.
    async fn delete(&self, name: &str) -> Result<bool>;

    /// Until when the store keeps an object whatever anybody asks: object lock. None: nothing holds it.
    async fn locked_until(&self, _name: &str) -> Result<Option<Timestamp>> {
        Ok(None)
    }

    /// The place, for messages; without secrets.
    fn describe(&self) -> String;

    /// Makes everything put so far durable.
    async fn flush(&self) -> Result<()>;

    /// What this store is good at.
    fn capabilities(&self) -> Capabilities;
}

/// Whether `name` is a proper object name: components of `[a-z0-9._-]` joined by single slashes, none of them
/// `.` or `..`, at most [`MAX_NAME_LENGTH`] bytes.
pub fn valid_name(name: &str) -> bool {
    name.len() <= MAX_NAME_LENGTH && name.split('/').all(valid_component)
}

fn valid_component(component: &str) -> bool {
    let proper = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    !matches!(component, "" | "." | "..") && component.bytes().all(proper)
}

/// Fails with kind `Invalid` unless [`valid_name`].
pub(crate) fn check_name(name: &str) -> Result<()> {
    if valid_name(name) {
        Ok(())
    } else {
        Err(Error::invalid(format!("{name:?} is not a valid object name")))
    }
}

/// The error of a range that leaves its object.
pub(crate) fn past_end(place: &str, size: u64, range: ByteRange) -> Error {
    Error::corrupt(format!("{place} has {size} bytes and does not contain {range:?}"))
        .with_hint("the object is shorter than the repository says: it was cut or replaced; run check")
}

/// Fails for an object that is too long to be read whole: nobody but packs is, and they are read in parts. So what
/// somebody else has put there under one of our names takes no memory.
pub(crate) fn check_whole(place: &str, size: u64) -> Result<()> {
    if size <= limits::RECORD_LIMIT as u64 {
        return Ok(());
    }
    Err(Error::corrupt(format!("{place} has {size} bytes, more than any object of its kind"))
        .with_hint("somebody else wrote it: see who may write to the repository"))
}

/// Offset and length of `range` in an object of `size` bytes; none if it is past the end.
pub(crate) fn span(size: u64, range: ByteRange) -> Option<(u64, u64)> {
    match range {
        ByteRange::All => Some((0, size)),
        ByteRange::Slice { offset, length } => {
            (offset.checked_add(length)? <= size).then_some((offset, length))
        }
        ByteRange::Last(length) => {
            let length = length.min(size);
            Some((size - length, length))
        }
    }
}

/// Whether `name` is a decision object, whose put may be repeated: the end of a session (`snapshots/…`) or the
/// final of a condemned list (`gc/<list>.final`).
pub fn is_decision(name: &str) -> bool {
    name.starts_with("snapshots/")
        || name
            .strip_prefix("gc/")
            .and_then(|rest| rest.strip_suffix(".final"))
            .is_some_and(|list| !list.is_empty() && !list.contains('/'))
}

/// How the server encrypts what it stores.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ServerSideEncryption {
    /// As the bucket is configured.
    #[default]
    BucketDefault,
    /// `AES256`: keys of the store.
    Aes256,
    /// `aws:kms`: a key of the key management service; its default key if none is named.
    Kms {
        /// Key id or ARN.
        key_id: Option<String>,
    },
}

/// How to reach and treat a store. Credentials are not among them: they come from the environment, the shared
/// profile files, a web identity token or the instance.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// S3: base URL of the service; absent for AWS itself.
    pub endpoint: Option<String>,
    /// S3: region; absent: from the environment or profile, else `us-east-1`.
    pub region: Option<String>,
    /// S3: put the bucket into the path, not into the host name. Absent: yes if an endpoint is given.
    pub path_style: Option<bool>,
    /// S3: profile in the shared configuration files.
    pub profile: Option<String>,
    /// S3: credentials file to take the profile from, instead of the environment and the usual files.
    pub credentials_file: Option<PathBuf>,
    /// S3: send a CRC-32C with each object; buckets with object lock demand one, some other services refuse it.
    pub upload_checksum: bool,
    /// S3: PEM file with the certificate authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// S3: storage class for packs; the rest is small and read often, and stays in the default class.
    pub storage_class: Option<String>,
    /// S3: server-side encryption.
    pub server_side_encryption: ServerSideEncryption,
    /// Bytes per second to the store, over all requests.
    pub limit_upload_bytes_per_second: Option<u64>,
    /// Bytes per second from the store, over all requests.
    pub limit_download_bytes_per_second: Option<u64>,
    /// Upper bound of requests for packs at the same time. Absent: 64 for S3, unlimited for a directory. Small
    /// requests have up to 16 slots of their own. Absent also lets a late read from S3 be sent a second time.
    pub max_requests_in_flight: Option<usize>,
    /// Requests per second, over all kinds.
    pub requests_per_second: Option<f64>,
    /// How often a repeatable request is sent again before its error is reported.
    pub max_retries: u32,
    /// Longest pause before a request is sent again.
    pub max_retry_delay: std::time::Duration,
    /// How long to wait for a connection.
    pub connect_timeout: std::time::Duration,
    /// How long the other side may be silent. Uploads have this time on top of what their size needs at
    /// 64 KiB/s, downloads five times as much on top of 1 KiB/s.
    pub read_timeout: std::time::Duration,
    /// Who hears that the store does not answer, and is asked again.
    pub waits: Option<Arc<dyn WaitMonitor>>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        use std::time::Duration;
        Self {
            endpoint: None,
            region: None,
            path_style: None,
            profile: None,
            credentials_file: None,
            upload_checksum: false,
            ca_file: None,
            storage_class: None,
            server_side_encryption: ServerSideEncryption::default(),
            limit_upload_bytes_per_second: None,
            limit_download_bytes_per_second: None,
            max_requests_in_flight: None,
            requests_per_second: None,
            max_retries: 8,
            max_retry_delay: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
            waits: None,
        }
    }
}

/// How many pages in a row may be empty before a listing counts as broken.
const MAX_EMPTY_PAGES: usize = 1000;

/// All objects whose names start with `prefix`. A page that fails ends it: half a listing is none (LISTING).
pub async fn list_all(store: &dyn ObjectStore, prefix: &str) -> Result<Vec<Listed>> {
    let mut objects = Vec::new();
    for_each_up_to(limits::LISTED_KEPT, store, prefix, |object| objects.push(object)).await?;
    Ok(objects)
}

/// Tells every object whose name starts with `prefix`, in the order of the names, without keeping them. A page that
/// fails, fails the whole listing, and so does a page out of order: names that jump back would hide objects from
/// those who read on from the last name.
pub async fn for_each(store: &dyn ObjectStore, prefix: &str, tell: impl FnMut(Listed)) -> Result<()> {
    for_each_up_to(limits::LISTED, store, prefix, tell).await
}

/// The same, of a listing that has no more than `most` objects. More of them are no damage of anything that is stored.
async fn for_each_up_to(
    most: u64,
    store: &dyn ObjectStore,
    prefix: &str,
    mut tell: impl FnMut(Listed),
) -> Result<()> {
    let mut last = String::new();
    let mut token = None;
    let (mut empty_pages, mut count) = (0, 0);
    loop {
        let page = store.list(prefix, token).await?;
        empty_pages = if page.objects.is_empty() { empty_pages + 1 } else { 0 };
        if empty_pages > MAX_EMPTY_PAGES {
            let place = store.describe();
            return Err(Error::invalid(format!("the listing of {prefix:?} in {place} does not end"))
                .with_hint("the repository needs a store whose listings come to an end"));
        }
        for object in page.objects {
            if !last.is_empty() && last >= object.name {
                let message = format!("listing of {prefix:?} in {} is out of order", store.describe());
                return Err(Error::corrupt(message)
                    .with_hint("the repository needs a store that lists names in lexicographic order"));
            }
            count += 1;
            if count > most {
                let place = store.describe();
                return Err(Error::invalid(format!(
                    "the listing of {prefix:?} in {place} has more than {most} objects, the most that are read"
                ))
                .with_hint("see that the place is right, and who may write to it"));
            }
            last.clone_from(&object.name);
            tell(object);
        }
        match page.next {
            Some(next) => token = Some(next),
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
