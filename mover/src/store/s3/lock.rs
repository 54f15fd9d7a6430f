//! Object lock. Such a bucket keeps versions: a delete lays a marker over the object, which is gone for everybody, and
//! its bytes stay. Until its retention has ended nobody can free them; after that, whoever deletes frees them for good.
//! Where there was no retention, versions are what the owner relies on, and they stay.

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{ObjectLockEnabled, ObjectLockLegalHoldStatus};
use jiff::Timestamp;

use super::{S3Store, errors};
use crate::error::{ErrorKind, Result};

/// What holds an object, or has held it.
#[derive(Debug)]
pub(super) struct Retention {
    /// The version that it holds.
    version: Option<String>,
    /// When it ends; none if it has none.
    pub(super) until: Option<Timestamp>,
}

/// A time as an answer has it.
pub(super) fn timestamp(time: &DateTime) -> Option<Timestamp> {
    let nanoseconds = i32::try_from(time.subsec_nanos()).ok()?;
    Timestamp::new(time.secs(), nanoseconds).ok()
}

impl S3Store {
    /// The retention of a pack; none if the bucket locks nothing, or there is no such object. Small objects are not
    /// asked for: their deletes are the protocol's, and their bytes do not matter.
    pub(super) async fn retention(&self, name: &str) -> Result<Option<Retention>> {
        if !name.starts_with("packs/") || !self.locks().await? {
            return Ok(None);
        }
        let call = self.call("look at", name);
        let request = self.client.head_object().bucket(&self.bucket).key(self.key(name)).send();
        let send = async {
            match request.await {
                Ok(output) => {
                    let ends = output.object_lock_retain_until_date();
                    let ends = ends.and_then(timestamp);
                    let is_held =
                        output.object_lock_legal_hold_status() == Some(&ObjectLockLegalHoldStatus::On);
                    let until = if is_held { Some(Timestamp::MAX) } else { ends };
                    Ok(Some(Retention { version: output.version_id().map(str::to_owned), until }))
                }
                Err(err) if errors::status(&err) == Some(404) => Ok(None),
                Err(err) => Err(call.failed(err)),
            }
        };
        self.within(self.silence, &call, send).await
    }

    /// The version of an object whose retention has ended.
    pub(super) async fn once_held(&self, name: &str) -> Result<Option<String>> {
        let retention = self.retention(name).await?;
        let ended =
            retention.filter(|retention| retention.until.is_some_and(|until| until <= Timestamp::now()));
        Ok(ended.and_then(|retention| retention.version))
    }

    /// Frees the bytes of a version, if that is allowed: otherwise they stay until a rule of the bucket frees them.
    pub(super) async fn free(&self, name: &str, version: String) -> Result<bool> {
        let call = self.call("delete a version of", name);
        let request =
            self.client.delete_object().bucket(&self.bucket).key(self.key(name)).version_id(version).send();
        let send = async { request.await.map_err(|err| call.failed(err)) };
        match self.within(self.silence, &call, send).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Unavailable => Err(error),
            Err(error) => {
                tracing::info!(
                    name,
                    error = error.in_one_line(),
                    "a version that is deleted keeps its bytes"
                );
                Ok(false)
            }
        }
    }

    async fn locks(&self) -> Result<bool> {
        let ask = || async {
            let call = self.call("look at", "");
            let request = self.client.get_object_lock_configuration().bucket(&self.bucket).send();
            let send = async {
                match request.await {
                    Ok(output) => {
                        let enabled =
                            output.object_lock_configuration().and_then(|lock| lock.object_lock_enabled());
                        Ok(enabled == Some(&ObjectLockEnabled::Enabled))
                    }
                    Err(err) => {
                        let status = errors::status(&err);
                        let error = call.failed(err);
                        if says_no(status, error.kind()) { Ok(false) } else { Err(error) }
                    }
                }
            };
            self.within(self.silence, &call, send).await
        };
        self.lock.get_or_try_init(ask).await.copied()
    }
}

/// There is no lock, the service knows none, or nobody may ask: then a delete is a delete. Whoever is only too busy to
/// say has said nothing.
fn says_no(status: Option<u16>, kind: ErrorKind) -> bool {
    kind != ErrorKind::Unavailable
        && status.is_some_and(|status| (400..500).contains(&status) || status == 501)
}

#[cfg(test)]
mod tests;
