//! What a service's refusal means: one table, from code and status to kind, words and next step.

use super::ServiceReply;
use crate::error::ErrorKind::{self, Denied, Invalid, NoSpace, NotFound, Unavailable};

/// What stands in the head of an answer and helps whoever reads the message.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Region that the bucket is in.
    pub(super) region: Option<String>,
    /// The service's time.
    pub(super) date: Option<String>,
    /// Where a redirect leads.
    pub(super) location: Option<String>,
}

/// What an answer means for the caller and for people.
#[derive(Debug)]
pub(super) struct Meaning {
    pub(super) kind: ErrorKind,
    pub(super) what: &'static str,
    /// The next step. Absent only where the caller has to say it, because it knows what the object is.
    pub(super) hint: Option<String>,
}

fn meaning(kind: ErrorKind, what: &'static str, hint: impl Into<String>) -> Meaning {
    Meaning { kind, what, hint: Some(hint.into()) }
}

/// Codes say more than words, and words more than a status, which proxies give too.
pub(super) fn meaning_of(reply: &ServiceReply, facts: &Facts) -> Meaning {
    let code = reply.code.as_deref().unwrap_or("");
    let message = reply.message.as_deref().unwrap_or("");
    if (reply.status, code) == (404, "NoSuchKey") {
        return Meaning { kind: NotFound, what: "the object does not exist", hint: None };
    }
    by_code(code, message, facts)
        .or_else(|| by_words(&message.to_lowercase()))
        .or_else(|| by_status(reply.status, code, facts))
        .unwrap_or_else(|| {
            meaning(Invalid, "the service refuses the request", "see the service's own words, and its log")
        })
}

fn by_code(code: &str, message: &str, facts: &Facts) -> Option<Meaning> {
    Some(match code {
        "NoSuchBucket" => meaning(
            Invalid,
            "the bucket does not exist",
            "create the bucket, or check its name, the endpoint and the region",
        ),
        "InvalidBucketName" => {
            meaning(Invalid, "no bucket can have that name", "check the bucket in s3://bucket/prefix")
        }
        "InvalidAccessKeyId" | "InvalidClientTokenId" | "UnrecognizedClientException" => unknown_key(),
        "SignatureDoesNotMatch" => wrong_secret(),
        "ExpiredToken"
        | "ExpiredTokenException"
        | "InvalidToken"
        | "InvalidTokenId"
        | "TokenRefreshRequired" => meaning(
            Denied,
            "the session token has expired or is not valid",
            "get new temporary credentials; AWS_SESSION_TOKEN must belong to the key beside it",
        ),
        "RequestTimeTooSkewed" | "RequestExpired" => {
            let date = facts.date.as_deref().unwrap_or("unknown");
            let hint = format!("set this machine's clock; the service's time is {date}");
            meaning(Denied, "the clocks of this machine and of the service differ too much", hint)
        }
        // Nearly always the region, but a key id with odd characters breaks the header too.
        "AuthorizationHeaderMalformed" if is_about_key(message) => unknown_key(),
        "AuthorizationHeaderMalformed"
        | "InvalidRegion"
        | "InvalidRegionName"
        | "IllegalLocationConstraintException"
        | "PermanentRedirect"
        | "TemporaryRedirect" => elsewhere(message, facts),
        "XMinioStorageFull"
        | "QuotaExceeded"
        | "StorageQuotaExceeded"
        | "XMinioAdminBucketQuotaExceeded"
        | "InsufficientStorage" => full(),
        "ObjectLocked" | "RetentionPolicyNotMet" | "ObjectUnderActiveHold" => locked(),
        "BadDigest" | "IncompleteBody" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" => {
            meaning(
                Unavailable,
                "what arrived is not what was sent",
                "run it again; if it stays so, look for a proxy that changes requests, or for broken memory or network",
            )
        }
        "RequestTimeout" | "ConditionalRequestConflict" | "OperationAborted" | "SlowDown" => later(),
        "EntityTooLarge" => too_large(),
        "InvalidObjectState" => meaning(
            Invalid,
            "the object lies in an archive class",
            "restore it from the archive class first, and use a storage class with direct reads",
        ),
        code if code.starts_with("KMS") => meaning(
            Denied,
            "the encryption key cannot be used",
            "check that the key exists, is enabled, and that these credentials may use it to encrypt and decrypt",
        ),
        _ => return None,
    })
}

/// Some services have one code for many things, and tell them apart in words only.
fn by_words(message: &str) -> Option<Meaning> {
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if has(&["quota is reached", "quota exceeded", "quota has been reached", "no space left on device"]) {
        return Some(full());
    }
    if has(&["content-md5", "checksum"]) && has(&["object lock"]) {
        return Some(meaning(
            Invalid,
            "the bucket has object lock and demands a checksum",
            "set the option to send a checksum with each upload (upload-checksum)",
        ));
    }
    if has(&["invalid signature", "signature validation failed"]) {
        return Some(wrong_secret());
    }
    if has(&["forbidden: no such key", "access key has length"]) {
        return Some(unknown_key());
    }
    has(&["worm protected", "object lock", "retention", "legal hold"]).then(locked)
}

fn by_status(status: u16, code: &str, facts: &Facts) -> Option<Meaning> {
    Some(match (status, code) {
        (301 | 302 | 303 | 307 | 308, _) => elsewhere("", facts),
        (407, _) => proxy_wants_login(),
        (413, _) => too_large(),
        (507, _) => full(),
        (405 | 501, _) => meaning(
            Invalid,
            "the service does not support this request",
            "the repository needs conditional puts, ranged reads, listings and deletes",
        ),
        (408 | 409 | 425 | 429 | 500.., _) => later(),
        (401 | 403, "") => meaning(
            Denied,
            "the service denies it, and does not say why",
            "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or --profile, the bucket's name, --endpoint and --region; \
             a proxy or firewall may have answered in the service's place",
        ),
        (401 | 403, _) => meaning(
            Denied,
            "the service denies it",
            "the key needs s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket; without the last, \
             absent objects look denied",
        ),
        // It said yes, or something that is no part of the protocol, and what came with it could not be read.
        (200..=299, _) | (_, "") => meaning(
            Invalid,
            "the endpoint does not answer as an S3 service",
            "check the endpoint's address and port; a web console often listens on another port",
        ),
        _ => return None,
    })
}

/// A proxy says so in place of the service, or before there is a way to it.
pub(super) fn proxy_wants_login() -> Meaning {
    meaning(
        Denied,
        "the proxy wants a login",
        "give user and password in HTTPS_PROXY (HTTP_PROXY for an endpoint without TLS), or list the endpoint in NO_PROXY",
    )
}

fn unknown_key() -> Meaning {
    meaning(
        Denied,
        "the service does not know the access key id",
        "check AWS_ACCESS_KEY_ID or --profile (or AWS_PROFILE), and that --endpoint is the service that made the key",
    )
}

fn wrong_secret() -> Meaning {
    meaning(
        Denied,
        "the secret access key is wrong",
        "check AWS_SECRET_ACCESS_KEY or --profile (or AWS_PROFILE): it must belong to the access key id beside it; \
         a proxy that changes requests has this effect too",
    )
}

/// Whether a complaint about the head of a request means the key id in it, and not the region.
fn is_about_key(message: &str) -> bool {
    let message = message.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    has(&["access key", "credential is mal-formed"]) && !has(&["region", "scope", "expecting '"])
}

fn later() -> Meaning {
    meaning(
        Unavailable,
        "the service cannot do it now",
        "run it again later; where it says so under load, set a lower bound of requests (max-requests)",
    )
}

fn full() -> Meaning {
    meaning(NoSpace, "the store is full", "free space or raise the quota, then run it again")
}

fn too_large() -> Meaning {
    meaning(
        Invalid,
        "the object is larger than the service or a proxy before it takes",
        "raise the largest request body that the proxy or gateway lets through: packs have up to 32 MiB and a little",
    )
}

fn locked() -> Meaning {
    meaning(
        Denied,
        "the object is locked: object lock, retention or a legal hold",
        "wait for its retention to end; keep deleted data at least as long as the bucket's retention says",
    )
}

/// The service sends the request somewhere else. It is not followed: the signature holds for one host and region.
fn elsewhere(message: &str, facts: &Facts) -> Meaning {
    let region = facts.region.as_deref().or_else(|| quoted_after(message, "expecting '"));
    let base = |url: &str| {
        let (scheme, rest) = url.split_once("://")?;
        Some(format!("{scheme}://{}", rest.split(['/', '?']).next()?.rsplit('@').next()?))
    };
    match (region, facts.location.as_deref().and_then(base)) {
        (Some(region), _) => meaning(
            Invalid,
            "the bucket is in another region or at another endpoint",
            format!("the bucket is in region {region}: set --region {region} or AWS_REGION"),
        ),
        (None, Some(to)) => meaning(
            Invalid,
            "the endpoint sends the request elsewhere",
            format!("it leads to {to}: if that is the service, give it as the endpoint"),
        ),
        (None, None) => meaning(
            Invalid,
            "the bucket is in another region or at another endpoint",
            "set --region or AWS_REGION to the bucket's region, and check --endpoint; some services have one name for \
             all, such as auto or garage",
        ),
    }
}

/// The word between `start` and the next quotation mark.
fn quoted_after<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    Some(text.split_once(start)?.1.split_once('\'')?.0)
}

#[cfg(test)]
mod tests;
