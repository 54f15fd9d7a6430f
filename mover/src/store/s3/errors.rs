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

use super::answers::{Facts, Meaning, meaning_of, proxy_wants_login};
use super::bounds::TooMuch;
use super::plain::Plain;
use super::{ServiceReply, Slow};
use crate::error::Error;

/// The next step where nobody answers at all.
const UNREACHABLE: &str =
    "check that the service runs, the endpoint's address and port, firewalls and HTTPS_PROXY";
/// The next step where a proxy stands between, and does not do what proxies are for.
const PROXY: &str = "check HTTPS_PROXY and what the proxy lets through, or list the endpoint in NO_PROXY";
/// Words of a service of credentials that is in trouble itself, and may say yes another time.
const TROUBLE: [&str; 7] = [
    "idpcommunicationerror",
    "throttl",
    "unavailable",
    "internal",
    "limitexceeded",
    "slowdown",
    "notinitialized",
];
/// The next step after any loss of contact.
const LOST: &str = "run it again; if it stays so, check the network, what lies in it, and the service's log";

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

/// The status of the service's answer, if there is one.
pub(super) fn status<E>(err: &SdkError<E, HttpResponse>) -> Option<u16> {
    err.raw_response().map(|response| response.status().as_u16())
}

impl Call<'_> {
    pub(super) fn place(&self) -> String {
        format!("s3://{}/{}{} at {}", self.bucket, self.prefix, self.name, self.endpoint)
    }

    /// Contact was lost on the way: another try may do.
    pub(super) fn lost(&self, what: &str) -> Error {
        Error::unavailable(format!("{self}: {what}")).with_hint(LOST)
    }

    /// No sign of life for too long.
    pub(super) fn silent(&self, limit: Duration) -> Error {
        self.lost(&format!("no answer within {} s", limit.as_secs_f32()))
    }

    /// Signs of life, and too few of them.
    pub(super) fn slow(&self, promised: u64, limit: Duration) -> Error {
        let seconds = limit.as_secs_f32();
        self.lost(&format!("the answer of {promised} bytes was not there after {seconds} s"))
            .with_source(Slow)
    }

    /// The body broke off.
    pub(super) fn broken(&self, err: &(dyn StdError + 'static)) -> Error {
        self.lost("the connection was lost while reading the answer").with_source(Plain::of(err))
    }

    /// The answer was not read to its end: what was asked for may have been done.
    fn too_much(&self, reply: ServiceReply) -> Error {
        Error::unavailable(format!("{self}: the answer is larger than any of an S3 service"))
            .with_hint(
                "check that the endpoint is the S3 service itself, and what proxies or caches lie before it, then run it \
                 again",
            )
            .with_source(reply)
    }

    /// The service does something else than S3 does.
    pub(super) fn unfit(&self, what: &str) -> Error {
        Error::invalid(format!("{self}: {what}")).with_hint(
            "check that the endpoint is the S3 service itself, and no web page or cache before it; the repository needs \
             conditional puts, ranged reads, listings of version 2 and deletes",
        )
    }

    /// Any failed request.
    pub(super) fn failed<E>(&self, err: SdkError<E, HttpResponse>) -> Error
    where
        E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
    {
        if let Some(response) = err.raw_response() {
            if response.status().is_success() && broke_off(&err) {
                return self.broken(&err);
            }
            let too_much = TooMuch::of(&err).map(ToString::to_string);
            let header = |name: &str| response.headers().get(name).map(str::to_owned);
            let reply = ServiceReply {
                status: response.status().as_u16(),
                code: err.code().filter(|code| !code.is_empty()).map(str::to_owned),
                message: too_much
                    .clone()
                    .or_else(|| err.message().map(|message| message.chars().take(300).collect())),
                request_id: header("x-amz-request-id"),
                retry_after: header("retry-after")
                    .and_then(|s| s.trim().parse().ok())
                    .map(Duration::from_secs),
            };
            // A refusal says enough by its status; of a yes nobody knows what it means.
            if response.status().is_success() && too_much.is_some() {
                return self.too_much(reply);
            }
            let facts = Facts {
                region: header("x-amz-bucket-region"),
                date: header("date"),
                location: header("location"),
            };
            return self.refused(reply, &facts);
        }
        tracing::debug!(request = %self, error = %DisplayErrorContext(&err), "no answer of the service");
        match &err {
            SdkError::TimeoutError(_) => {
                Error::unavailable(format!("{self}: no connection in time")).with_hint(UNREACHABLE)
            }
            SdkError::ConstructionFailure(_) => Error::invalid(format!("{self}: the request cannot be made"))
                .with_hint("check the endpoint, the bucket's name and the region"),
            _ => self.undelivered(&err),
        }
        .with_source(Plain::of(&err))
    }

    /// The request did not get a readable answer.
    fn undelivered(&self, err: &(dyn StdError + 'static)) -> Error {
        let chain: Vec<&(dyn StdError + 'static)> =
            std::iter::successors(Some(err), |&err| err.source()).collect();
        if let Some(err) = chain.iter().find_map(|err| err.downcast_ref::<CredentialsError>()) {
            return self.no_credentials(err);
        }
        let text = chain.iter().map(ToString::to_string).collect::<Vec<_>>().join(": ").to_lowercase();
        if let Some((_, what)) = text.split_once("tunnel error: ") {
            return self.no_tunnel(what);
        }
        let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if has(&["corrupt message", "invalidcontenttype"]) {
            return Error::invalid(format!("{self}: the service does not speak TLS on that port"))
                .with_hint("use http:// in the endpoint, or the service's TLS port");
        }
        if has(&["causedasendentity"]) {
            return Error::invalid(format!("{self}: the service's certificate is that of an authority")).with_hint(
                "give the service a certificate that the authority has signed, or one with basicConstraints CA:FALSE",
            );
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
            return Error::unavailable(format!("{self}: the endpoint cannot be reached"))
                .with_hint(UNREACHABLE);
        }
        self.lost("the connection was lost before an answer came")
    }

    /// The proxy was asked for a way to the service, and gave none.
    fn no_tunnel(&self, what: &str) -> Error {
        if what.starts_with("proxy authorization required") {
            return self.meant(proxy_wants_login());
        }
        let what = match what.starts_with("failed to create underlying connection") {
            true => "the proxy cannot be reached",
            false => "the proxy makes no connection to the service",
        };
        Error::unavailable(format!("{self}: {what}")).with_hint(PROXY)
    }

    fn no_credentials(&self, err: &CredentialsError) -> Error {
        if err.source().is_some_and(|cause| cause.is::<std::io::Error>()) {
            return Error::denied(format!("{self}: the file of the web identity cannot be read")).with_hint(
                "check AWS_WEB_IDENTITY_TOKEN_FILE (or web_identity_token_file of the profile), and that this user may \
                 read that file",
            );
        }
        if is_refusal(err) {
            return Error::denied(format!("{self}: whoever gives out credentials refuses them")).with_hint(
                "the cause below says why; check the role (AWS_ROLE_ARN), whom it trusts, and whether the web identity \
                 token has expired",
            );
        }
        if err.source().is_some_and(|cause| cause.to_string().starts_with("ARN ")) {
            return Error::denied(format!("{self}: the source of the credentials gives what cannot be used")).with_hint(
                "a service other than AWS must answer as AWS does, with the ARN of the role that was assumed",
            );
        }
        match err {
            CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_) => {
                Error::unavailable(format!("{self}: the source of the credentials gives none")).with_hint(
                    "the cause below says why; check role, web identity token and their service, then run it again",
                )
            }
            _ => Error::denied(format!("{self}: no credentials")).with_hint(
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile or credentials file",
            ),
        }
    }

    /// The service answered, but not with a success.
    fn refused(&self, reply: ServiceReply, facts: &Facts) -> Error {
        let error = self.meant(meaning_of(&reply, facts));
        error.with_source(reply)
    }

    fn meant(&self, meaning: Meaning) -> Error {
        let error = Error::new(meaning.kind, format!("{self}: {}", meaning.what));
        match meaning.hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

/// Whether a service of credentials was reached and said no, for a reason that stays. Its types are those of another
/// client, so its words must do: what it answers stands behind the layer that is called a service error, and an answer
/// without a code is that of somebody else.
fn is_refusal(err: &CredentialsError) -> bool {
    let chain =
        std::iter::successors(err.source(), |&err| err.source()).map(|err| err.to_string().to_lowercase());
    let Some(answer) = chain.skip_while(|text| text != "service error").nth(1) else { return false };
    let code = answer.split(':').next().unwrap_or_default();
    code != "unhandled error" && !TROUBLE.iter().any(|word| code.contains(word))
}

/// Whether an answer that said yes ended before it was whole, as when the service is killed: not what a web page does.
fn broke_off(err: &(dyn StdError + 'static)) -> bool {
    const WORDS: [&str; 5] =
        ["error reading a body", "connection", "incomplete message", "end of file", "broken pipe"];
    std::iter::successors(Some(err), |&err| err.source()).any(|err| {
        let text = err.to_string().to_lowercase();
        WORDS.iter().any(|word| text.contains(word))
    })
}

#[cfg(test)]
mod tests;
