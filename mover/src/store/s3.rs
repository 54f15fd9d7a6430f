//! A repository in a bucket of S3 or of a service that speaks its protocol.
//!
//! Create-if-absent is `PutObject` with `If-None-Match: *`. The SDK's own retries are off: one layer of ours
//! retries, and never the put of a primary object. (The HTTP client may still re-send a request of which it has
//! not written a byte, when an idle connection turns out to be closed: such a request was never sent.)

mod answers;
mod bounds;
mod client;
mod cover;
mod errors;
#[cfg(feature = "testing")]
mod fuzz;
mod hedge;
mod lock;
mod plain;
mod profile;
mod reply;
#[cfg(test)]
mod testing;
#[cfg(any(test, feature = "testing"))]
mod unconnected;

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ServerSideEncryption as Sse, StorageClass};
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;

use self::cover::Cover;
use self::errors::Call;
#[cfg(feature = "testing")]
pub(crate) use self::fuzz::fuzz_answer;
use self::hedge::Hedge;
pub(super) use self::reply::{ServiceReply, Slow};
use super::throttle::Throttle;
use super::{
    ByteRange, Capabilities, Listed, ObjectStore, Page, Put, ServerSideEncryption, StoreOptions, check_name,
    past_end, valid_name,
};
use crate::error::{Error, Result};

/// Slowest upload that counts as progress, in bytes per second.
const MIN_UPLOAD_RATE: u64 = 64 * 1024;
/// Slowest download that counts as progress, in bytes per second: what each of 64 requests has of a link that gives 64 KiB
/// a second to all of them.
const MIN_DOWNLOAD_RATE: u64 = 1024;
/// What an answer may take beside that, in times that the other side may be silent: five minutes, if nothing else is said.
const DOWNLOAD_SILENCES: u32 = 5;
/// Largest object read at once: several times the largest the engine writes.
const MAX_OBJECT_BYTES: u64 = 1 << 30;
/// Most memory reserved on a server's word alone.
const MAX_RESERVED_BYTES: u64 = 64 << 20;

/// A bucket, or a part of it, as an object store.
#[derive(Debug)]
pub(super) struct S3Store {
    client: Client,
    bucket: String,
    /// What precedes each name in the bucket: empty, or a path that ends with a slash.
    prefix: String,
    endpoint: String,
    storage_class: Option<StorageClass>,
    encryption: ServerSideEncryption,
    cover: Cover,
    silence: Duration,
    hedge: Hedge,
    /// Whether the bucket has object lock, once it was asked.
    lock: tokio::sync::OnceCell<bool>,
}

impl S3Store {
    /// Opens `bucket/prefix`.
    pub(super) async fn open(place: &str, options: &StoreOptions) -> Result<Self> {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let prefix = prefix.trim_matches('/');
        if bucket.is_empty() {
            return Err(Error::invalid(format!("s3://{place} names no bucket")).with_hint(
                "use s3://bucket/prefix, and the endpoint option for the address of the service",
            ));
        }
        let connection = client::connect(options).await?;
        let tls = connection.endpoint.as_deref().is_none_or(|endpoint| endpoint.starts_with("https:"));
        Ok(Self {
            client: connection.client,
            bucket: bucket.to_owned(),
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
            endpoint: connection.endpoint.unwrap_or_else(|| format!("AWS {}", connection.region)),
            storage_class: options.storage_class.as_deref().map(StorageClass::from),
            encryption: options.server_side_encryption.clone(),
            cover: Cover::new(tls, options.upload_checksum),
            silence: options.read_timeout,
            // Whoever sets bounds gets them, and a link that is kept slow is no reason to ask twice.
            hedge: Hedge::new(options.max_requests_in_flight.is_none() && !Throttle::is_wanted(options)),
            lock: tokio::sync::OnceCell::new(),
        })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn call<'a>(&'a self, action: &'static str, name: &'a str) -> Call<'a> {
        Call { action, name, bucket: &self.bucket, prefix: &self.prefix, endpoint: &self.endpoint }
    }

    async fn within<T>(
        &self,
        limit: Duration,
        call: &Call<'_>,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(call.silent(limit)))
    }

    /// Sends an object; none if the service takes no checksums, which it is not asked again.
    async fn put_once(&self, call: &Call<'_>, body: Bytes) -> Result<Option<Put>> {
        let (encryption, key_id) = match &self.encryption {
            ServerSideEncryption::BucketDefault => (None, None),
            ServerSideEncryption::Aes256 => (Some(Sse::Aes256), None),
            ServerSideEncryption::Kms { key_id } => (Some(Sse::AwsKms), key_id.clone()),
        };
        let class = self.storage_class.clone().filter(|_| call.name.starts_with("packs/"));
        let protection = self.cover.next();
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.key(call.name))
            .if_none_match("*")
            .set_storage_class(class)
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(key_id)
            .set_checksum_crc32_c(protection.checksum.then(|| cover::checksum(&body)))
            .body(ByteStream::from(body))
            .customize();
        let request = if protection.signed { request } else { request.disable_payload_signing() };
        match request.send().await {
            // Whatever else answers 200 to anything has not stored it.
            Ok(output) if output.e_tag().is_none() => {
                Err(call.unfit("the endpoint says yes, but not as an S3 service does"))
            }
            Ok(output) => {
                self.cover.taken(protection, output.checksum_crc32_c().is_some());
                Ok(Some(Put::Created))
            }
            Err(err) if errors::is_exists(&err) => Ok(Some(Put::Exists)),
            Err(err) if self.cover.refused(protection, errors::status(&err), err.code()) => Ok(None),
            Err(err) => Err(call.failed(err)),
        }
    }

    /// Reads the body of an answer that must have `promised` bytes. One that trickles, and is never silent for long, would
    /// take days.
    async fn body(&self, call: &Call<'_>, stream: ByteStream, promised: u64) -> Result<Bytes> {
        if promised > MAX_OBJECT_BYTES {
            return Err(Error::corrupt(format!(
                "{call}: the object has {promised} bytes, more than any of ours"
            ))
            .with_hint("somebody else wrote it: see who may write to the bucket"));
        }
        let least = Duration::from_secs(promised / MIN_DOWNLOAD_RATE);
        let limit = self.silence * DOWNLOAD_SILENCES + least;
        let read = self.read_body(call, stream, promised);
        tokio::time::timeout(limit, read).await.unwrap_or_else(|_| Err(call.slow(promised, limit)))
    }

    async fn read_body(&self, call: &Call<'_>, mut stream: ByteStream, promised: u64) -> Result<Bytes> {
        let reserved = usize::try_from(promised.min(MAX_RESERVED_BYTES)).expect("64 MiB fit into memory");
        let mut body = BytesMut::new();
        loop {
            let next = async { stream.try_next().await.map_err(|err| call.broken(&err)) };
            let Some(bytes) = self.within(self.silence, call, next).await? else { break };
            if body.is_empty() && bytes.len() as u64 == promised {
                return Ok(bytes);
            }
            if (body.len() + bytes.len()) as u64 > promised {
                return Err(
                    call.unfit(&format!("the answer is longer than the {promised} bytes it promised"))
                );
            }
            if body.is_empty() {
                body.reserve(reserved);
            }
            body.extend_from_slice(&bytes);
        }
        if (body.len() as u64) < promised {
            let got = body.len();
            return Err(call.lost(&format!("the answer ended after {got} of {promised} bytes")));
        }
        Ok(body.freeze())
    }

    /// Sends a get; no answer if the range lies past the end of the object.
    async fn request(&self, call: &Call<'_>, range: Option<String>) -> Result<Option<GetObjectOutput>> {
        let ranged = range.is_some();
        let output = if ranged && call.name.starts_with("packs/") {
            self.hedge.first_answer(|| self.head(call, range.clone())).await?
        } else {
            self.head(call, range).await?
        };
        if ranged && output.as_ref().is_some_and(|output| output.content_range().is_none()) {
            return Err(call.unfit("the service answers a part with the whole object"));
        }
        Ok(output)
    }

    /// One get, up to the head of its answer.
    async fn head(&self, call: &Call<'_>, range: Option<String>) -> Result<Option<GetObjectOutput>> {
        let ranged = range.is_some();
        let request =
            self.client.get_object().bucket(&self.bucket).key(self.key(call.name)).set_range(range).send();
        let send = async {
            match request.await {
                Ok(output) => Ok(Some(output)),
                Err(err) if ranged && errors::is_past_end(&err) => Ok(None),
                Err(err) => Err(call.failed(err)),
            }
        };
        self.within(self.silence, call, send).await
    }

    /// Size of an object by the smallest ranged read; `HEAD` has no body that could tell what is missing.
    async fn size(&self, call: &Call<'_>) -> Result<u64> {
        match self.request(call, Some("bytes=0-0".into())).await? {
            None => Ok(0),
            Some(output) => {
                total(&output).ok_or_else(|| call.unfit("the service does not tell the object's size"))
            }
        }
    }

    async fn slice(&self, call: &Call<'_>, offset: u64, length: u64) -> Result<Bytes> {
        let range = ByteRange::Slice { offset, length };
        let beyond = |size| past_end(&call.place(), size, range);
        let Some(last) = offset.checked_add(length).and_then(|end| end.checked_sub(1)).filter(|_| length > 0)
        else {
            let size = self.size(call).await?;
            return if length == 0 && offset <= size { Ok(Bytes::new()) } else { Err(beyond(size)) };
        };
        let Some(output) = self.request(call, Some(format!("bytes={offset}-{last}"))).await? else {
            return Err(beyond(self.size(call).await?));
        };
        if let Some(size) = total(&output).filter(|size| *size <= last) {
            return Err(beyond(size));
        }
        if part(&output).is_none_or(|part| (part.first, part.last) != (offset, last)) {
            return Err(call.unfit("the service sends another part than was asked for"));
        }
        self.body(call, output.body, length).await
    }

    async fn tail(&self, call: &Call<'_>, length: u64) -> Result<Bytes> {
        let output = self.request(call, Some(format!("bytes=-{length}"))).await?;
        // Of an empty object some services say that there is no such part, and some send nothing as a part.
        let Some(output) = output.filter(|output| total(output) != Some(0)) else { return Ok(Bytes::new()) };
        let wanted = |part: &Part| {
            part.first == part.size.saturating_sub(length) && part.last.checked_add(1) == Some(part.size)
        };
        let Some(part) = part(&output).filter(wanted) else {
            return Err(call.unfit("the service sends another part than was asked for"));
        };
        self.body(call, output.body, part.size - part.first).await
    }
}

/// What `Content-Range` says: which bytes come, and of how many.
struct Part {
    first: u64,
    last: u64,
    size: u64,
}

/// The part in `bytes 5-9/123`.
fn part(output: &GetObjectOutput) -> Option<Part> {
    let (range, _) = output.content_range()?.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some(Part { first: first.parse().ok()?, last: last.parse().ok()?, size: total(output)? })
}

/// The size of the whole object, which stands behind the slash.
fn total(output: &GetObjectOutput) -> Option<u64> {
    output.content_range()?.rsplit_once('/')?.1.parse().ok()
}

/// A page that was cut, by whatever cut it, can be read as a shorter one; a collector would take what is missing for
/// absent. So its own count must agree.
fn check_whole(call: &Call<'_>, output: &ListObjectsV2Output) -> Result<()> {
    let listed = output.contents().len();
    match (output.is_truncated(), output.key_count().and_then(|count| usize::try_from(count).ok())) {
        (Some(_), Some(count)) if count == listed => Ok(()),
        (Some(_), Some(count)) => {
            Err(call.lost(&format!("the listing has {listed} of the {count} entries it says")))
        }
        _ => Err(call.unfit("the listing does not say how many entries it has, and whether there are more")),
    }
}

fn promised(output: &GetObjectOutput, call: &Call<'_>) -> Result<u64> {
    output
        .content_length()
        .and_then(|length| u64::try_from(length).ok())
        .ok_or_else(|| call.unfit("the answer does not tell its length"))
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        check_name(name)?;
        let call = self.call("put", name);
        let limit = self.silence + Duration::from_secs(body.len() as u64 / MIN_UPLOAD_RATE);
        let send = async {
            // A service that clearly refuses the checksum has stored nothing, and gets the same without, once.
            loop {
                if let Some(put) = self.put_once(&call, body.clone()).await? {
                    return Ok(put);
                }
            }
        };
        self.within(limit, &call, send).await
    }

    async fn get(&self, name: &str, range: ByteRange) -> Result<Bytes> {
        check_name(name)?;
        let call = self.call("get", name);
        match range {
            ByteRange::Slice { offset, length } => self.slice(&call, offset, length).await,
            ByteRange::Last(0) => self.size(&call).await.map(|_| Bytes::new()),
            ByteRange::Last(length) => self.tail(&call, length).await,
            ByteRange::All => {
                let output = self
                    .request(&call, None)
                    .await?
                    .ok_or_else(|| call.unfit("the service sends no object"))?;
                let promised = promised(&output, &call)?;
                super::check_whole(&call.to_string(), promised)?;
                self.body(&call, output.body, promised).await
            }
        }
    }

    async fn list(&self, prefix: &str, token: Option<String>) -> Result<Page> {
        let call = self.call("list", prefix);
        let request = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(self.key(prefix))
            .set_continuation_token(token)
            .send();
        let send = async { request.await.map_err(|err| call.failed(err)) };
        let output = self.within(self.silence, &call, send).await?;
        check_whole(&call, &output)?;
        let next = match (output.is_truncated(), output.next_continuation_token) {
            (Some(true), None) => {
                return Err(call.unfit("a page of the listing that is not the last has no next one"));
            }
            (Some(true), next) => next,
            _ => None,
        };
        let mut objects = Vec::with_capacity(output.contents.as_ref().map_or(0, Vec::len));
        for object in output.contents.unwrap_or_default() {
            let name = object.key.as_deref().and_then(|key| key.strip_prefix(&self.prefix));
            let size = object.size.and_then(|size| u64::try_from(size).ok());
            let (Some(name), Some(size)) = (name.filter(|name| name.starts_with(prefix)), size) else {
                return Err(call.unfit("the listing has an entry that was not asked for, or without a size"));
            };
            if valid_name(name) {
                let modified = object.last_modified.as_ref().and_then(lock::timestamp);
                objects.push(Listed { name: name.to_owned(), size, modified });
            } else {
                tracing::warn!(name, "a foreign object is left out of the listing");
            }
        }
        Ok(Page { objects, next })
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        check_name(name)?;
        let call = self.call("delete", name);
        // First of all: once a marker lies over the object, another try would find no version to free.
        let is_freed = match self.once_held(name).await? {
            Some(version) => self.free(name, version).await?,
            None => false,
        };
        let request = self.client.delete_object().bucket(&self.bucket).key(self.key(name)).send();
        let send = async {
            match request.await {
                Ok(_) => Ok(true),
                Err(err) if errors::is_absent(&err) => Ok(false),
                Err(err) => Err(call.failed(err)),
            }
        };
        let existed = self.within(self.silence, &call, send).await?;
        Ok(existed || is_freed)
    }

    async fn locked_until(&self, name: &str) -> Result<Option<Timestamp>> {
        check_name(name)?;
        Ok(self.retention(name).await?.and_then(|retention| retention.until))
    }

    fn describe(&self) -> String {
        format!("s3://{}/{} at {}", self.bucket, self.prefix.trim_end_matches('/'), self.endpoint)
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { local: false, preferred_parallel_puts: 8, preferred_parallel_gets: 16 }
    }
}
