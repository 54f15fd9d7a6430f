//! From the SDK's errors to ours: what happened, where, and the next step.
//!
//! `NotFound` means that the object is absent, on the service's clear word, and nothing else: a missing bucket
//! or a foreign 404 page must never pass for a missing object, because the protocol draws conclusions from it.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::ServiceReply;
use crate::error::{Error, ErrorKind};

/// What was asked of the service, for messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) action: &'static str,
    pub(super) name: &'a str,
    pub(super) bucket: &'a str,
    pub(super) prefix: &'a str,
    pub(super) endpoint: &'a str,
}

impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action, self.place())
    }
}

/// The conditional put found an object.
pub(super) fn is_exists<E>(err: &SdkError<E, HttpResponse>) -> bool {
    status(err) == Some(412)
}

/// The range lies past the end.
pub(super) fn is_past_end<E>(err: &SdkError<E, HttpResponse>) -> bool {
    status(err) == Some(416)
}

/// There is no such object.
pub(super) fn is_absent<E: ProvideErrorMetadata>(err: &SdkError<E, HttpResponse>) -> bool {
    status(err) == Some(404) && err.code() == Some("NoSuchKey")
}

fn status<E>(err: &SdkError<E, HttpResponse>) -> Option<u16> {
    err.raw_response().map(|response| response.status().as_u16())
}

impl Call<'_> {
    pub(super) fn place(&self) -> String {
        format!("s3://{}/{}{} at {}", self.bucket, self.prefix, self.name, self.endpoint)
    }

    /// No sign of life for too long.
    pub(super) fn silent(&self, limit: Duration) -> Error {
        Error::unavailable(format!("{self}: no answer within {} s", limit.as_secs()))
    }

    /// The body broke off.
    pub(super) fn broken(&self, err: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        Error::unavailable(format!("{self}: the connection was lost while reading the answer"))
            .with_source(err)
    }

    /// Any failed request.
    pub(super) fn failed<E>(&self, err: SdkError<E, HttpResponse>) -> Error
    where
        E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
    {
        if let Some(response) = err.raw_response() {
            let header = |name: &str| response.headers().get(name).map(str::to_owned);
            let reply = ServiceReply {
                status: response.status().as_u16(),
                code: err.code().filter(|code| !code.is_empty()).map(str::to_owned),
                message: err.message().map(|message| message.chars().take(300).collect()),
                request_id: header("x-amz-request-id"),
                retry_after: header("retry-after")
                    .and_then(|s| s.trim().parse().ok())
                    .map(Duration::from_secs),
            };
            let facts = Facts { region: header("x-amz-bucket-region"), date: header("date") };
            return self.refused(reply, &facts);
        }
        match &err {
            SdkError::TimeoutError(_) => Error::unavailable(format!("{self}: no connection in time")),
            SdkError::ConstructionFailure(_) => Error::invalid(format!("{self}: the request cannot be made")),
            _ => self.undelivered(&err),
        }
        .with_source(Text(DisplayErrorContext(&err).to_string()))
    }

    /// The request did not get a readable answer.
    fn undelivered(&self, err: &(dyn StdError + 'static)) -> Error {
        let chain: Vec<&(dyn StdError + 'static)> =
            std::iter::successors(Some(err), |&err| err.source()).collect();
        if let Some(err) = chain.iter().find_map(|err| err.downcast_ref::<CredentialsError>()) {
            return self.no_credentials(err);
        }
        let text = chain.iter().map(ToString::to_string).collect::<Vec<_>>().join(": ").to_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if has(&["corrupt message", "invalidcontenttype"]) {
            return Error::invalid(format!("{self}: the service does not speak TLS on that port"))
                .with_hint("use http:// in the endpoint, or the service's TLS port");
        }
        if has(&["certificate", "unknownissuer", "handshake", "tls alert", "fatal alert"]) {
            return Error::invalid(format!(
                "{self}: the service's certificate is not trusted, or TLS failed"
            ))
            .with_hint(
                "give the certificate authority's PEM file as the CA file option, and check the host name",
            );
        }
        if has(&["dns", "lookup", "name or service not known", "resolve"]) {
            return Error::unavailable(format!("{self}: the host name cannot be resolved")).with_hint(
                "check the endpoint's host name and this machine's DNS; for a bucket name in the host \
                            name, try path style",
            );
        }
        if has(&["connection refused", "unreachable", "tcp connect"]) {
            return Error::unavailable(format!("{self}: the endpoint cannot be reached")).with_hint(
                "check that the service runs, the endpoint's address and port, firewalls and HTTPS_PROXY",
            );
        }
        Error::unavailable(format!("{self}: the connection was lost before an answer came"))
    }

    fn no_credentials(&self, err: &CredentialsError) -> Error {
        match err {
            CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_) => {
                Error::unavailable(format!("{self}: the source of the credentials does not answer"))
            }
            _ => Error::denied(format!("{self}: no credentials")).with_hint(
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile or credentials file",
            ),
        }
    }

    /// The service answered, but not with a success.
    #[expect(
        clippy::too_many_lines,
        reason = "one table: what the service says, what it means, the next step"
    )]
    fn refused(&self, reply: ServiceReply, facts: &Facts) -> Error {
        let code = reply.code.as_deref().unwrap_or("");
        let region = |region: &Option<String>| match region {
            Some(region) => format!("the bucket is in region {region}: set the region option to it"),
            None => "set the region option to the bucket's region".to_owned(),
        };
        use ErrorKind as Kind;
        let (kind, what, hint): (_, &str, Option<String>) = match (reply.status, code) {
            (404, "NoSuchKey") => (Kind::NotFound, "the object does not exist", None),
            (_, "NoSuchBucket") => (
                Kind::Invalid,
                "the bucket does not exist",
                Some("create the bucket, or check its name, the endpoint and the region".into()),
            ),
            (_, "InvalidAccessKeyId") => (
                Kind::Denied,
                "the service does not know the access key id",
                Some("check AWS_ACCESS_KEY_ID or the profile, and that the endpoint is the right one".into()),
            ),
            (_, "SignatureDoesNotMatch") => (
                Kind::Denied,
                "the secret access key is wrong",
                Some("check AWS_SECRET_ACCESS_KEY or the profile; a proxy that changes requests has this effect too".into()),
            ),
            (_, "ExpiredToken" | "ExpiredTokenException" | "InvalidToken" | "TokenRefreshRequired") => (
                Kind::Denied,
                "the session token has expired or is not valid",
                Some("get new temporary credentials".into()),
            ),
            (_, "RequestTimeTooSkewed" | "RequestExpired") => {
                let date = facts.date.as_deref().unwrap_or("unknown");
                let hint = format!("set this machine's clock; the service's time is {date}");
                (Kind::Denied, "the clocks of this machine and of the service differ too much", Some(hint))
            }
            (301 | 307 | 308, _)
            | (_, "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" | "PermanentRedirect") => {
                (Kind::Invalid, "the bucket is in another region or at another endpoint", Some(region(&facts.region)))
            }
            (507, _) | (_, "XMinioStorageFull" | "QuotaExceeded" | "XMinioAdminBucketQuotaExceeded") => {
                (Kind::NoSpace, "the store is full", Some("free space or raise the quota".into()))
            }
            (_, "RequestTimeout" | "ConditionalRequestConflict" | "OperationAborted" | "SlowDown")
            | (408 | 409 | 425 | 429 | 500.., _)
                if reply.status != 501 =>
            {
                (Kind::Unavailable, "the service cannot do it now", None)
            }
            (405 | 501, _) => (
                Kind::Invalid,
                "the service does not support this request",
                Some("the repository needs conditional puts, ranged reads, listings and deletes".into()),
            ),
            (_, "InvalidObjectState") => (
                Kind::Invalid,
                "the object lies in an archive class",
                Some("restore it from the archive class first, and use a storage class with direct reads".into()),
            ),
            (401 | 403, _) => (
                Kind::Denied,
                "the service denies it",
                Some("the key needs s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket; without the last, \
                      absent objects look denied".into()),
            ),
            (_, code) if code.starts_with("KMS") => (Kind::Denied, "the encryption key cannot be used", None),
            (_, "") => (
                Kind::Invalid,
                "the endpoint does not answer as an S3 service",
                Some("check the endpoint's address and port; a web console often listens on another port".into()),
            ),
            _ => (Kind::Invalid, "the service refuses the request", None),
        };
        let error = Error::new(kind, format!("{self}: {what}"));
        let error = match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        };
        error.with_source(reply)
    }
}

struct Facts {
    region: Option<String>,
    date: Option<String>,
}

/// The SDK's chain of errors as text: its types are not ours to give away.
#[derive(Debug)]
struct Text(String);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Text {}
