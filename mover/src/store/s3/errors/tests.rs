use std::io;

use super::*;
use crate::{error::ErrorKind, store::s3::testing::chain};

const CALL: Call<'_> = Call {
    action: "get",
    name: "format",
    bucket: "bucket",
    prefix: "x/",
    endpoint: "https://s3.example.org",
};

#[track_caller]
fn expect(err: &Error, kind: ErrorKind, words: &str, hint: &str) {
    assert_eq!(err.kind(), kind, "{err}");
    assert!(err.to_string().contains(words), "{err}");
    assert!(err.hint().is_some_and(|text| text.contains(hint)), "{:?}", err.hint());
}

#[test]
fn credentials_that_are_refused_are_told_from_a_service_in_trouble() {
    for answer in [
        "InvalidIdentityTokenException: the internal issuer is unknown",
        "ExpiredTokenException",
        "unhandled error (AccessDenied)",
    ] {
        let err = CredentialsError::provider_error(chain(&["service error", answer]));
        expect(&CALL.no_credentials(&err), ErrorKind::Denied, "refuses them", "AWS_ROLE_ARN");
    }
    for texts in [
        &["service error", "unhandled error (ServiceUnavailable)"][..],
        &["service error", "unhandled error (Throttling)"],
        &["service error", "unhandled error (InternalFailure)"],
        &["service error", "IdpCommunicationErrorException [IDPCommunicationErrorException]: away"],
        // Without a code it is the page of somebody else.
        &["service error", "unhandled error", "no root element"],
        &["dispatch failure", "io error", "Connection refused"],
        &["service error"],
    ] {
        let err = CredentialsError::provider_error(chain(texts));
        expect(&CALL.no_credentials(&err), ErrorKind::Unavailable, "gives none", "run it again");
    }
}

#[test]
fn a_token_that_cannot_be_read_is_named_and_so_are_no_credentials_at_all() {
    let err = CredentialsError::provider_error(io::Error::from(io::ErrorKind::NotFound));
    expect(
        &CALL.no_credentials(&err),
        ErrorKind::Denied,
        "web identity cannot be read",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
    );
    let odd = CredentialsError::unhandled(chain(&["ARN must have 6 components"]));
    expect(&CALL.no_credentials(&odd), ErrorKind::Denied, "what cannot be used", "ARN of the role");
    let again = CredentialsError::unhandled(chain(&["initialization error already taken"]));
    for none in [CredentialsError::not_loaded_no_source(), again] {
        expect(&CALL.no_credentials(&none), ErrorKind::Denied, "no credentials", "AWS_ACCESS_KEY_ID");
    }
}

#[test]
fn a_proxy_that_gives_no_way_is_not_the_service() {
    for (texts, kind, words, hint) in [
        (
            &["dispatch failure", "tunnel error: proxy authorization required"][..],
            ErrorKind::Denied,
            "the proxy wants a login",
            "HTTPS_PROXY",
        ),
        (
            &["dispatch failure", "tunnel error: failed to create underlying connection", "dns error"],
            ErrorKind::Unavailable,
            "the proxy cannot be reached",
            "NO_PROXY",
        ),
        (
            &["dispatch failure", "tunnel error: unsuccessful"],
            ErrorKind::Unavailable,
            "the proxy makes no connection",
            "lets through",
        ),
        (
            &["dispatch failure", "tcp connect error"],
            ErrorKind::Unavailable,
            "endpoint cannot be reached",
            "firewalls",
        ),
    ] {
        expect(&CALL.undelivered(&chain(texts)), kind, words, hint);
    }
}

#[test]
fn an_answer_that_broke_off_is_told_from_a_page_of_somebody_else() {
    for texts in [
        &["response error", "error reading a body from connection"][..],
        &["response error", "streaming error", "Connection reset by peer (os error 104)"],
        &["response error", "hyper error", "connection closed before message completed"],
    ] {
        assert!(broke_off(&chain(texts)), "{texts:?}");
    }
    for texts in [&["response error", "unhandled error", "no root element"][..], &["service error"]] {
        assert!(!broke_off(&chain(texts)), "{texts:?}");
    }
}
