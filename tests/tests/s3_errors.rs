//! What goes wrong with S3 services, as real ones, liars and strangers do it: each has its kind, words and exit code.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::types::{
    DefaultRetention, ObjectLockConfiguration, ObjectLockEnabled, ObjectLockRetentionMode, ObjectLockRule,
};
use bytes::Bytes;
use carrack_mover::clock::World;
use carrack_mover::error::{Error, ErrorKind};
use carrack_mover::store::{
    ByteRange, ObjectStore, Put, ServerSideEncryption, StoreOptions, list_all, open_plain, open_url, probe,
};
use carrack_tests::images::{FileSystem, Mounted, in_private_mounts};
use carrack_tests::liar::{Liar, Lie, reply};
use carrack_tests::minio::sts::session;
use carrack_tests::minio::{ACCESS_KEY, BUCKET, MinioServer, SECRET_KEY, Setup};
use carrack_tests::place::program;
use carrack_tests::program::ended;
use carrack_tests::proxy::{Disturbance, Proxy};
use carrack_tests::server::NOWHERE;

async fn bare(url: &str, options: &StoreOptions) -> Arc<dyn ObjectStore> {
    open_plain(url, options, &World::system()).await.unwrap()
}

/// Options with keys that any server takes which does not look at them.
fn options(directory: &tempfile::TempDir, endpoint: String, token: &str) -> StoreOptions {
    let path = directory.path().join("credentials");
    let text = format!("[default]\naws_access_key_id = any\naws_secret_access_key = any\n{token}");
    std::fs::write(&path, text).unwrap();
    StoreOptions { endpoint: Some(endpoint), credentials_file: Some(path), ..StoreOptions::default() }
}

#[track_caller]
fn expect(err: &Error, kind: ErrorKind, words: &str) {
    let causes = std::error::Error::source(err);
    assert_eq!(err.kind(), kind, "{err}: {causes:?}");
    assert!(err.to_string().contains(words), "{words:?} is not in: {err}: {causes:?}");
    assert!(err.hint().is_some(), "{err} has no next step");
}

/// What a service may do otherwise than S3, what that is to the caller, and the words for it.
const LIES: [(Lie, ErrorKind, &str); 15] = [
    (Lie::ConditionsIgnored, ErrorKind::Invalid, "conditions are ignored"),
    (Lie::RangesIgnored, ErrorKind::Invalid, "a part with the whole object"),
    (Lie::OtherPart, ErrorKind::Invalid, "another part"),
    (Lie::LongTail, ErrorKind::Invalid, "another part"),
    (Lie::ShortBody, ErrorKind::Unavailable, "lost while reading"),
    (Lie::EmptyYes, ErrorKind::Invalid, "not as an S3 service does"),
    (Lie::WebPage, ErrorKind::Invalid, "does not answer as an S3 service"),
    (Lie::PutsForgotten, ErrorKind::Invalid, "does not refuse a second put"),
    (Lie::DeletesForgotten, ErrorKind::Invalid, "after its confirmed delete"),
    (Lie::ListingCut, ErrorKind::Unavailable, "0 of the 1 entries"),
    (Lie::ListingOld, ErrorKind::Invalid, "does not say how many"),
    (Lie::ListingEmpty, ErrorKind::Invalid, "does not answer as an S3 service"),
    (Lie::EndlessListing, ErrorKind::Unavailable, "larger than any of an S3 service"),
    (Lie::EndlessPut, ErrorKind::Unavailable, "larger than any of an S3 service"),
    (Lie::EndlessRefusal, ErrorKind::Invalid, "does not answer as an S3 service"),
];

/// Whatever a service does otherwise than S3, it is found.
#[tokio::test(flavor = "multi_thread")]
async fn lies_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let honest = Liar::start(Lie::None).await.unwrap();
    let store = bare("s3://bucket/x", &options(&directory, honest.url(), "")).await;
    probe(&*store, &World::system()).await.unwrap();
    for (lie, kind, words) in LIES {
        let liar = Liar::start(lie).await.unwrap();
        let store = bare("s3://bucket/x", &options(&directory, liar.url(), "")).await;
        let err = probe(&*store, &World::system()).await.expect_err(&format!("{lie:?} is not found"));
        expect(&err, kind, words);
    }
    // One object does not show this one.
    let liar = Liar::start(Lie::PrefixIgnored).await.unwrap();
    let store = bare("s3://bucket/x", &options(&directory, liar.url(), "")).await;
    store.put_if_absent("packs/aa/x", "x".into()).await.unwrap();
    expect(&list_all(&*store, "sessions/").await.unwrap_err(), ErrorKind::Invalid, "not asked for");
}

/// The program makes no repository there, and says why.
#[tokio::test(flavor = "multi_thread")]
async fn init_finds_lies() {
    let run = |verb: &'static str, url: &str, code: i32| {
        let mut command = asking(verb, url);
        tokio::task::spawn_blocking(move || ended(&mut command, code))
    };
    let honest = Liar::start(Lie::None).await.unwrap();
    run("init", &honest.url(), 0).await.unwrap();
    run("snapshots", &honest.url(), 0).await.unwrap();
    let runs = LIES.map(|(lie, kind, words)| async move {
        let liar = Liar::start(lie).await.unwrap();
        let code = if kind == ErrorKind::Unavailable { 12 } else { 2 };
        let printed = run("init", &liar.url(), code).await.unwrap();
        assert!(printed.err.contains(words), "{lie:?}: {words:?} is not in:\n{}", printed.err);
        let mut command = asking("snapshots", &liar.url());
        let asked = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert_ne!(asked.status.code(), Some(0), "{lie:?}: there is a repository all the same");
    });
    for ending in runs.into_iter().map(tokio::spawn).collect::<Vec<_>>() {
        ending.await.unwrap();
    }
}

/// A page that says yes to everything stores nothing, deletes nothing and holds nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_portal_confirms_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let portal = Liar::start(Lie::WebPage).await.unwrap();
    let store = bare("s3://bucket/x", &options(&directory, portal.url(), "")).await;
    for err in [
        store.put_if_absent("packs/aa/x", "x".into()).await.unwrap_err(),
        store.get("format", ByteRange::All).await.unwrap_err(),
        store.list("", None).await.unwrap_err(),
        store.delete("packs/aa/x").await.unwrap_err(),
    ] {
        expect(&err, ErrorKind::Invalid, "does not answer as an S3 service");
    }
}

/// The program's exit code and words for what a service answers to its first request.
#[tokio::test(flavor = "multi_thread")]
async fn exit_codes() {
    let xml = |status: &str, headers: &str, code: &str| {
        let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>So.</Message></Error>");
        String::from_utf8(reply(status, headers, text.as_bytes())).unwrap()
    };
    let page =
        |status: &str, headers: &str| String::from_utf8(reply(status, headers, b"<html></html>")).unwrap();
    let date = "Date: Sat, 21 Nov 2026 12:00:00 GMT\r\n";
    let cases = [
        (page("200 OK", "Content-Type: text/html\r\n"), 2, "does not answer as an S3 service"),
        (page("404 Not Found", ""), 2, "does not answer as an S3 service"),
        (page("301 Moved", "Location: https://s3.example.org/\r\n"), 2, "it leads to https://s3.example.org"),
        (page("302 Found", "Location: http://portal/login\r\n"), 2, "it leads to http://portal"),
        (xml("301 Moved", "x-amz-bucket-region: eu-west-3\r\n", "PermanentRedirect"), 2, "region eu-west-3"),
        (xml("404 Not Found", "", "NoSuchBucket"), 2, "bucket does not exist"),
        (xml("501 Not Implemented", "", "NotImplemented"), 2, "does not support"),
        (page("413 Too Large", ""), 2, "larger than"),
        (xml("404 Not Found", "", "NoSuchKey"), 10, "there is no repository"),
        (xml("403 Forbidden", "", "AccessDenied"), 13, "s3:GetObject"),
        (xml("403 Forbidden", date, "RequestTimeTooSkewed"), 13, "12:00:00 GMT"),
        (xml("400 Bad Request", "", "ExpiredToken"), 13, "temporary credentials"),
        (page("403 Forbidden", ""), 13, "AWS_SECRET_ACCESS_KEY"),
        (page("407 Proxy Authentication Required", ""), 13, "HTTPS_PROXY"),
        (page("507 Insufficient Storage", ""), 15, "free space"),
        (xml("500 Internal Server Error", "", "InternalError"), 12, "again later"),
        (xml("503 Slow Down", "", "SlowDown"), 12, "again later"),
    ];
    let runs = cases.map(|(text, code, words)| async move {
        let proxy = Proxy::start(NOWHERE.into()).await.unwrap();
        proxy.disturb(Disturbance::Answer(text.clone()), usize::MAX);
        let url = proxy.url();
        let printed = tokio::task::spawn_blocking(move || ended(&mut snapshots(&url), code)).await.unwrap();
        assert!(printed.err.contains(words), "{words:?} is not in:\n{}\nto {text}", printed.err);
    });
    // At the same time: those that may be asked again are asked for some seconds.
    let runs: Vec<_> = runs.into_iter().map(tokio::spawn).collect();
    for ending in runs {
        ending.await.unwrap();
    }
}

/// Nobody looks at a terminal for half a minute without a word; and who wants none gets none.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_a_service_is_told() {
    let nobody = format!("http://{NOWHERE}");
    let run = |option: Option<&'static str>| {
        let mut command = snapshots(&nobody);
        command.args(option);
        tokio::task::spawn_blocking(move || ended(&mut command, 12))
    };
    let (plain, json, quiet) = tokio::join!(run(None), run(Some("--json")), run(Some("--quiet")));
    let (plain, json, quiet) = (plain.unwrap(), json.unwrap(), quiet.unwrap());
    assert!(plain.err.contains("cannot be reached") && plain.err.contains("firewalls"), "{}", plain.err);
    let words =
        format!("carrack: waiting for s3://bucket/x at {nobody}: Connection refused; trying again, up to ");
    assert_eq!(plain.err.matches(&words).count(), 1, "{}", plain.err);
    assert_eq!(json.err.matches("\"message_type\":\"waiting\"").count(), 1, "{}", json.err);
    assert!(json.err.contains("\"cause\":\"Connection refused\",\"tries_left\":"), "{}", json.err);
    assert!(json.out.is_empty() && plain.out.is_empty(), "{} {}", json.out, plain.out);
    assert!(!quiet.err.contains("waiting"), "{}", quiet.err);
}

fn snapshots(endpoint: &str) -> Command {
    asking("snapshots", endpoint)
}

fn asking(verb: &str, endpoint: &str) -> Command {
    let mut command = Command::new(program());
    command.arg(verb).env_clear().env("CARRACK_PASSWORD", "correct").env("AWS_REGION", "us-east-1");
    command.env("CARRACK_REPOSITORY", "s3://bucket/x").env("CARRACK_S3_ENDPOINT", endpoint);
    command.env("AWS_ACCESS_KEY_ID", "any").env("AWS_SECRET_ACCESS_KEY", "any");
    command
}

/// A typing error in a key or region is answered with the name of the setting to look at.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_setting_is_named() {
    let server = MinioServer::start_with(Setup { region: Some("eu-west-3"), ..Setup::default() }).unwrap();
    for (name, value, code, words) in [
        ("AWS_SECRET_ACCESS_KEY", "another", 13, "check AWS_SECRET_ACCESS_KEY"),
        ("AWS_ACCESS_KEY_ID", "nobody", 13, "check AWS_ACCESS_KEY_ID"),
        ("AWS_REGION", "us-east-1", 2, "set --region eu-west-3 or AWS_REGION"),
    ] {
        let mut command = snapshots(&server.url());
        command.env("CARRACK_REPOSITORY", server.repository("x")).env("AWS_REGION", "eu-west-3");
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        let printed = ended(command.env(name, value), code);
        assert!(printed.err.contains(words), "{words:?} is not in:\n{}", printed.err);
    }
}

/// A profile that is nowhere is not the same as no credentials.
#[test]
fn a_profile_that_does_not_exist_is_named() {
    let home = tempfile::tempdir().unwrap();
    let [config, credentials] = ["config", "credentials"].map(|name| home.path().join(".aws").join(name));
    let run = |arguments: &[&str], variables: &[(&str, &str)], code: i32| {
        let mut command = snapshots(&format!("http://{NOWHERE}"));
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        command.env("HOME", home.path()).args(arguments).envs(variables.iter().copied());
        let start = Instant::now();
        let printed = ended(&mut command, code);
        assert!(code != 2 || start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        printed.err
    };
    let printed = run(&["--profile", "typo"], &[], 2);
    assert!(printed.contains("there is no profile \"typo\" in"), "{printed}");
    assert!(printed.contains(&format!("{} (which does not exist)", config.display())), "{printed}");
    assert!(printed.contains("aws configure --profile typo"), "{printed}");

    std::fs::create_dir(home.path().join(".aws")).unwrap();
    std::fs::write(&config, "[default]\n[profile work]\nregion = eu-west-3\n").unwrap();
    std::fs::write(&credentials, "[default]\naws_access_key_id = a\naws_secret_access_key = b\n").unwrap();
    for (arguments, variables) in [(&["--profile", "typo"][..], &[][..]), (&[], &[("AWS_PROFILE", "typo")])] {
        let printed = run(arguments, variables, 2);
        assert!(printed.contains("there is no profile \"typo\" in"), "{printed}");
        assert!(printed.contains(&credentials.display().to_string()), "{printed}");
        assert!(printed.contains("that is there (--profile or AWS_PROFILE): default, work"), "{printed}");
    }
    // Keys in the environment go before AWS_PROFILE: then the request is made, and nobody answers it.
    let keys = [("AWS_PROFILE", "typo"), ("AWS_ACCESS_KEY_ID", "any"), ("AWS_SECRET_ACCESS_KEY", "any")];
    assert!(run(&[], &keys, 12).contains("cannot be reached"));
}

fn root() -> Credentials {
    Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "the test server")
}

fn with_keys(
    server: &MinioServer,
    directory: &tempfile::TempDir,
    [id, secret, token]: &[String; 3],
) -> StoreOptions {
    let path = directory.path().join("session");
    let text = format!(
        "[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\naws_session_token = {token}\n"
    );
    std::fs::write(&path, text).unwrap();
    StoreOptions { credentials_file: Some(path), ..server.options() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_the_right_is_told_so() {
    let server = MinioServer::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let url = server.repository("x");
    let all = bare(&url, &server.options()).await;
    all.put_if_absent("packs/aa/x", "x".into()).await.unwrap();

    let mut reader = session(&server, "\"s3:GetObject\",\"s3:ListBucket\"").unwrap();
    let store = bare(&url, &with_keys(&server, &directory, &reader)).await;
    assert_eq!(store.get("packs/aa/x", ByteRange::All).await.unwrap(), "x");
    assert_eq!(list_all(&*store, "").await.unwrap().len(), 1);
    let put = store.put_if_absent("packs/aa/y", "y".into()).await.unwrap_err();
    expect(&put, ErrorKind::Denied, "the service denies it");
    expect(&store.delete("packs/aa/x").await.unwrap_err(), ErrorKind::Denied, "the service denies it");

    // Another token beside the right key, as after a mix-up of variables.
    reader[2] = "made-up".to_owned();
    let store = bare(&url, &with_keys(&server, &directory, &reader)).await;
    expect(&store.get("packs/aa/x", ByteRange::All).await.unwrap_err(), ErrorKind::Denied, "token");

    // Nor is a listing that is refused an empty one.
    let writer = session(&server, "\"s3:GetObject\",\"s3:PutObject\"").unwrap();
    let store = bare(&url, &with_keys(&server, &directory, &writer)).await;
    assert_eq!(store.put_if_absent("packs/aa/z", "z".into()).await.unwrap(), Put::Created);
    expect(&list_all(&*store, "").await.unwrap_err(), ErrorKind::Denied, "the service denies it");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_region_is_named() {
    let server = MinioServer::start_with(Setup { region: Some("eu-west-3"), ..Setup::default() }).unwrap();
    let there = StoreOptions { region: Some("us-east-1".into()), ..server.options() };
    let err = bare(&server.repository("x"), &there).await.list("", None).await.unwrap_err();
    expect(&err, ErrorKind::Invalid, "another region");
    assert!(err.hint().unwrap().contains("eu-west-3"), "{err:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_vouches_for() {
    let server = MinioServer::start_with(Setup { tls: true, ..Setup::default() }).unwrap();
    let url = server.repository("x");
    let store = open_url(&url, &server.options()).await.unwrap();
    probe(&*store, &World::system()).await.unwrap();
    let system = StoreOptions { ca_file: None, ..server.options() };
    let other = server.url().replace("127.0.0.1", "localhost");
    let other_name = StoreOptions { endpoint: Some(other), ..server.options() };
    for options in [system, other_name] {
        let err = bare(&url, &options).await.list("", None).await.unwrap_err();
        expect(&err, ErrorKind::Invalid, "certificate");
        assert!(err.hint().unwrap().contains("CA file"), "{err:?}");
    }
}

/// What lies behind an error is for people too: no debug text of a library, and the cause itself.
#[tokio::test(flavor = "multi_thread")]
async fn causes_are_plain_words() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = format!("http://{NOWHERE}");
    let secure = MinioServer::start_with(Setup { tls: true, ..Setup::default() }).unwrap();
    for (endpoint, words) in [
        (nobody.clone(), "Connection refused"),
        ("http://no-such-host.invalid".to_owned(), "dns error: failed to lookup address information"),
        (secure.url(), "certificate"),
    ] {
        let store = bare("s3://bucket/x", &options(&directory, endpoint, "")).await;
        let cause = cause_of(&store.list("", None).await.unwrap_err());
        assert!(cause.contains(words), "{words:?} is not in: {cause}");
    }
    let path = directory.path().join("empty");
    std::fs::write(&path, "[default]\nregion = eu-west-3\n").unwrap();
    let without =
        StoreOptions { endpoint: Some(nobody), credentials_file: Some(path), ..StoreOptions::default() };
    let err = bare("s3://bucket/x", &without).await.list("", None).await.unwrap_err();
    expect(&err, ErrorKind::Denied, "no credentials");
    cause_of(&err);
}

/// The cause of an error, which has one, on one line.
#[track_caller]
fn cause_of(err: &Error) -> String {
    let cause = std::error::Error::source(err).expect("it has a cause").to_string();
    let debug = ["{", "}", "DispatchFailure", "ConnectorError", "os error", "\n"];
    assert!(!cause.is_empty() && !debug.iter().any(|word| cause.contains(word)), "{cause}");
    cause
}

/// A bucket that keeps every version for a day. To the protocol it is a bucket as any other: a delete hides the object,
/// and the next put of that name would create it.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_with_retention_holds_a_repository() {
    let server = MinioServer::start().unwrap();
    let client = aws_client(&server);
    client.create_bucket().bucket("locked").object_lock_enabled_for_bucket(true).send().await.unwrap();
    let retention = DefaultRetention::builder().mode(ObjectLockRetentionMode::Compliance).days(1).build();
    let lock = ObjectLockConfiguration::builder()
        .object_lock_enabled(ObjectLockEnabled::Enabled)
        .rule(ObjectLockRule::builder().default_retention(retention).build())
        .build();
    client
        .put_object_lock_configuration()
        .bucket("locked")
        .object_lock_configuration(lock)
        .send()
        .await
        .unwrap();
    let store = open_url("s3://locked/x", &server.options()).await.unwrap();
    probe(&*store, &World::system()).await.unwrap();
    assert_eq!(store.put_if_absent("packs/aa/x", "x".into()).await.unwrap(), Put::Created);
    assert_eq!(store.put_if_absent("packs/aa/x", "y".into()).await.unwrap(), Put::Exists);
    assert!(store.delete("packs/aa/x").await.unwrap());
    assert!(list_all(&*store, "").await.unwrap().is_empty());
    // The version itself stays, whoever asks.
    let versions = client.list_object_versions().bucket("locked").prefix("x/packs/").send().await.unwrap();
    let id = versions.versions()[0].version_id().unwrap();
    client.delete_object().bucket("locked").key("x/packs/aa/x").version_id(id).send().await.unwrap_err();
}

fn aws_client(server: &MinioServer) -> aws_sdk_s3::Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(server.url())
        .region(Region::new("us-east-1"))
        .force_path_style(true)
        .credentials_provider(root())
        .http_client(aws_http())
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

#[tokio::test(flavor = "multi_thread")]
async fn class_and_encryption_reach_the_service() {
    let server = MinioServer::start_with(Setup { encrypts: true, ..Setup::default() }).unwrap();
    let client = aws_client(&server);
    let key = Some("test-key".to_owned());
    for (encryption, expected) in [
        (ServerSideEncryption::BucketDefault, None),
        (ServerSideEncryption::Aes256, Some("AES256")),
        (ServerSideEncryption::Kms { key_id: key }, Some("aws:kms")),
    ] {
        let options = StoreOptions {
            storage_class: Some("REDUCED_REDUNDANCY".into()),
            server_side_encryption: encryption,
            ..server.options()
        };
        let prefix = expected.unwrap_or("none").replace(':', "-");
        let store = bare(&server.repository(&prefix), &options).await;
        for (name, class) in [("packs/aa/x", Some("REDUCED_REDUNDANCY")), ("keys/x", None)] {
            assert_eq!(store.put_if_absent(name, "body".into()).await.unwrap(), Put::Created);
            assert_eq!(store.get(name, ByteRange::All).await.unwrap(), "body");
            let object = format!("{prefix}/{name}");
            let head = client.head_object().bucket(BUCKET).key(object).send().await.unwrap();
            assert_eq!(head.storage_class().map(|class| class.as_str()), class, "{name}");
            assert_eq!(head.server_side_encryption().map(|kind| kind.as_str()), expected, "{name}");
        }
    }
}

fn aws_http() -> aws_sdk_s3::config::SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_http()
}

#[test]
fn a_full_store_says_so() {
    in_private_mounts(|| {
        let disk = Mounted::new(FileSystem::Ext4, 64).unwrap();
        let setup = Setup { data: Some(disk.path().join("data")), ..Setup::default() };
        let server = MinioServer::start_with(setup).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = bare(&format!("s3://{BUCKET}/x"), &server.options()).await;
            let body = Bytes::from(carrack_tests::trees::noise(1, 8 << 20));
            for number in 0..20 {
                if let Err(err) = store.put_if_absent(&format!("packs/aa/{number}"), body.clone()).await {
                    expect(&err, ErrorKind::NoSpace, "the store is full");
                    return;
                }
            }
            panic!("160 MiB are on a disk of 64 MiB");
        });
        drop(server);
    });
}

/// As many answers as say that another one is late. None of them is asked for twice, however slow this machine is, so what they
/// save up for further requests is there.
const ANSWERS: usize = 32;

/// A read whose answer does not come is asked for once more, long before the time limit; only reads of parts of packs.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_is_not_waited_for() {
    let server = MinioServer::start().unwrap();
    let proxy = Proxy::start(server.address()).await.unwrap();
    let options = StoreOptions { endpoint: Some(proxy.url()), ..server.options() };
    let store = open_url(&server.repository("late"), &options).await.unwrap();
    store.put_if_absent("packs/aa/x", "0123456789".into()).await.unwrap();
    let part = ByteRange::Slice { offset: 3, length: 4 };
    for _ in 0..ANSWERS {
        assert_eq!(store.get("packs/aa/x", part).await.unwrap(), "3456");
    }
    // The kept connection is used up, so that the next request needs a new one, and is met by silence.
    proxy.cut();
    tokio::time::sleep(Duration::from_secs(1)).await;
    proxy.disturb(Disturbance::Silence, 1);
    let start = Instant::now();
    assert_eq!(store.get("packs/aa/x", part).await.unwrap(), "3456");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!(proxy.disturbed(), 1);

    // With a bound of requests there is no second one.
    let bounded = StoreOptions {
        max_requests_in_flight: Some(4),
        read_timeout: Duration::from_secs(5),
        max_retries: 0,
        ..options
    };
    let store = open_url(&server.repository("late"), &bounded).await.unwrap();
    for _ in 0..ANSWERS {
        store.get("packs/aa/x", part).await.unwrap();
    }
    proxy.cut();
    tokio::time::sleep(Duration::from_secs(1)).await;
    proxy.disturb(Disturbance::Silence, 1);
    let before = proxy.disturbed();
    let mut err = store.get("packs/aa/x", part).await.unwrap_err();
    while proxy.disturbed() == before {
        // That was a connection which had been cut already.
        err = store.get("packs/aa/x", part).await.unwrap_err();
    }
    expect(&err, ErrorKind::Unavailable, "no answer within 5 s");
}
