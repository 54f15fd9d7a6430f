use super::{Facts, meaning_of};
use crate::error::ErrorKind::{self, Denied, Invalid, NoSpace, NotFound, Unavailable};
use crate::store::s3::ServiceReply;

/// Status, code, message; kind, words of the meaning, words of the hint.
type Case = (u16, &'static str, &'static str, ErrorKind, &'static str, &'static str);

const CASES: &[Case] = &[
    (404, "NoSuchBucket", "", Invalid, "bucket does not exist", "create the bucket"),
    (400, "InvalidBucketName", "", Invalid, "no bucket can have that name", "s3://bucket"),
    (403, "InvalidAccessKeyId", "", Denied, "access key id", "AWS_ACCESS_KEY_ID"),
    (403, "SignatureDoesNotMatch", "", Denied, "secret access key", "AWS_SECRET_ACCESS_KEY"),
    (403, "AccessDenied", "Access Denied.", Denied, "denies it", "s3:GetObject"),
    (403, "AccessDenied", "Forbidden: No such key: GK12", Denied, "access key id", "--profile"),
    (403, "AccessDenied", "Forbidden: Invalid signature", Denied, "secret access key", "--profile"),
    (
        400,
        "InvalidArgument",
        "Credential access key has length 20, should be 32",
        Denied,
        "key id",
        "--endpoint",
    ),
    (403, "InvalidClientTokenId", "", Denied, "access key id", "AWS_ACCESS_KEY_ID"),
    (401, "Unauthorized", "", Denied, "denies it", "s3:GetObject"),
    (401, "", "", Denied, "does not say why", "AWS_SECRET_ACCESS_KEY"),
    (403, "", "", Denied, "does not say why", "--region"),
    (400, "ExpiredToken", "", Denied, "expired", "temporary credentials"),
    (403, "InvalidTokenId", "", Denied, "expired or is not valid", "AWS_SESSION_TOKEN"),
    (403, "RequestTimeTooSkewed", "", Denied, "clocks", "the service's time is noon"),
    (301, "PermanentRedirect", "", Invalid, "another region", "set --region or AWS_REGION"),
    (
        400,
        "AuthorizationHeaderMalformed",
        "the region is wrong; expecting 'eu-west-3'",
        Invalid,
        "another region",
        "set --region eu-west-3 or AWS_REGION",
    ),
    (
        400,
        "AuthorizationHeaderMalformed",
        "Authorization header malformed, unexpected scope: 20261121/us-east-1/s3/aws4_request",
        Invalid,
        "another region",
        "such as auto or garage",
    ),
    (
        400,
        "AuthorizationHeaderMalformed",
        "The authorization header is malformed; a non-empty Access Key (AKID) must be provided in the credential.",
        Denied,
        "access key id",
        "AWS_ACCESS_KEY_ID",
    ),
    (400, "InvalidRegionName", "The region name 'x' is not valid", Invalid, "another region", "AWS_REGION"),
    (507, "", "", NoSpace, "full", "free space"),
    (507, "XMinioStorageFull", "", NoSpace, "full", "free space"),
    (400, "XMinioAdminBucketQuotaExceeded", "", NoSpace, "full", "quota"),
    (403, "QuotaExceeded", "", NoSpace, "full", "quota"),
    (403, "AccessDenied", "Forbidden: Bucket size quota is reached, maximum", NoSpace, "full", "quota"),
    (
        400,
        "InvalidRequest",
        "Object is WORM protected and cannot be overwritten",
        Denied,
        "locked",
        "retention",
    ),
    (
        403,
        "AccessDenied",
        "Access Denied because object protected by object lock.",
        Denied,
        "locked",
        "wait for its retention",
    ),
    (
        400,
        "InvalidRequest",
        "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters",
        Invalid,
        "demands a checksum",
        "upload-checksum",
    ),
    (503, "SlowDown", "", Unavailable, "cannot do it now", "max-requests"),
    (503, "", "", Unavailable, "cannot do it now", "again later"),
    (429, "TooManyRequests", "", Unavailable, "cannot do it now", "again later"),
    (500, "InternalError", "", Unavailable, "cannot do it now", "again later"),
    (500, "InternalError", "try again.: cause(no space left on device)", NoSpace, "full", "free space"),
    (502, "", "", Unavailable, "cannot do it now", "again later"),
    (409, "ConditionalRequestConflict", "", Unavailable, "cannot do it now", "again later"),
    (400, "RequestTimeout", "", Unavailable, "cannot do it now", "again later"),
    (400, "BadDigest", "", Unavailable, "not what was sent", "proxy"),
    (501, "NotImplemented", "", Invalid, "does not support", "conditional puts"),
    (405, "MethodNotAllowed", "", Invalid, "does not support", "deletes"),
    (407, "", "", Denied, "proxy wants a login", "HTTPS_PROXY"),
    (413, "", "", Invalid, "larger than", "proxy"),
    (400, "EntityTooLarge", "", Invalid, "larger than", "32 MiB"),
    (403, "InvalidObjectState", "", Invalid, "archive class", "restore it"),
    (400, "KMS.DisabledException", "", Denied, "encryption key", "enabled"),
    (404, "", "", Invalid, "not answer as an S3 service", "web console"),
    (400, "", "", Invalid, "not answer as an S3 service", "web console"),
    (200, "", "", Invalid, "not answer as an S3 service", "web console"),
    (400, "SomethingNew", "", Invalid, "refuses the request", "own words"),
];

fn reply(status: u16, code: &str, message: &str) -> ServiceReply {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    ServiceReply { status, code: text(code), message: text(message), ..ServiceReply::default() }
}

#[test]
fn every_answer_has_a_kind_words_and_a_next_step() {
    let facts = Facts { date: Some("noon".into()), ..Facts::default() };
    for &(status, code, message, kind, what, hint) in CASES {
        let meaning = meaning_of(&reply(status, code, message), &facts);
        assert_eq!(meaning.kind, kind, "{status} {code}: {meaning:?}");
        assert!(meaning.what.contains(what), "{status} {code}: {meaning:?}");
        assert!(
            meaning.hint.as_deref().is_some_and(|text| text.contains(hint)),
            "{status} {code}: {meaning:?}"
        );
    }
}

#[test]
fn absent_is_only_what_the_service_calls_so() {
    assert_eq!(meaning_of(&reply(404, "NoSuchKey", ""), &Facts::default()).kind, NotFound);
    for (status, code) in [(404, ""), (404, "NoSuchBucket"), (404, "NotFound"), (410, ""), (200, "NoSuchKey")]
    {
        assert_ne!(meaning_of(&reply(status, code, ""), &Facts::default()).kind, NotFound, "{status} {code}");
    }
}

#[test]
fn a_redirect_says_where_to() {
    let hint = |facts: Facts| meaning_of(&reply(301, "", ""), &facts).hint.unwrap();
    let location = Some("https://user:secret@s3.example.org:9000/bucket/key?x=y".to_owned());
    let to = hint(Facts { location: location.clone(), ..Facts::default() });
    assert!(to.contains("https://s3.example.org:9000:"), "{to}");
    assert!(!to.contains("secret") && !to.contains("bucket/key"), "{to}");
    let region = hint(Facts { region: Some("eu-west-3".into()), location, ..Facts::default() });
    assert!(region.contains("in region eu-west-3"), "{region}");
}
