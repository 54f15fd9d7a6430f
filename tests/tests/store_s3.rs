//! The object store layer against a real S3 service, and a network that fails in between.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carrack_mover::clock::World;
use carrack_mover::error::ErrorKind;
use carrack_mover::store::{
    ByteRange, ObjectStore, Put, StoreOptions, conformance, list_all, open_plain, open_url, probe,
};
use carrack_tests::liar::reply;
use carrack_tests::minio::{BUCKET, MinioServer};
use carrack_tests::place::Place;
use carrack_tests::program::ended;
use carrack_tests::proxy::turning::{Turn, Turning};
use carrack_tests::proxy::{Disturbance, Proxy};
use carrack_tests::server::NOWHERE;
use carrack_tests::trees::noise;

const SLOW_DOWN: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\nRetry-After: 1\r\n\
    Content-Length: 86\r\nConnection: close\r\n\r\n\
    <?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Reduce rate</Message></Error>";

async fn bare(url: &str, options: &StoreOptions) -> Arc<dyn ObjectStore> {
    open_plain(url, options, &World::system()).await.unwrap()
}

fn through(proxy: &Proxy, server: &MinioServer) -> StoreOptions {
    StoreOptions { endpoint: Some(proxy.url()), ..server.options() }
}

#[tokio::test(flavor = "multi_thread")]
async fn minio_conforms() {
    let server = MinioServer::start().unwrap();
    let bare = bare(&server.repository("bare/deep"), &server.options()).await;
    conformance::run(&bare).await.unwrap();
    let dressed = open_url(&server.repository("dressed"), &server.options()).await.unwrap();
    conformance::run(&dressed).await.unwrap();
    let root = open_url(&format!("s3://{BUCKET}"), &server.options()).await.unwrap();
    probe(&*root, &World::system()).await.unwrap();
    assert!(list_all(&*root, "").await.unwrap().is_empty(), "the probe leaves something behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_bytes_are_refused() {
    let server = MinioServer::start().unwrap();
    let proxy = Proxy::start(server.address()).await.unwrap();
    let checked = StoreOptions { upload_checksum: true, ..through(&proxy, &server) };
    let body = Bytes::from(vec![7; 1 << 20]);
    for options in [through(&proxy, &server), checked] {
        let repository = format!("sums-{}", options.upload_checksum);
        let store = bare(&server.repository(&repository), &options).await;
        // What the first upload shows of the service decides about the second one's protection.
        for (name, word) in [("first", "SHA256"), ("second", "Checksum")] {
            proxy.disturb(Disturbance::ChangeRequest(500_000), 1);
            proxy.cut();
            let before = proxy.disturbed();
            let mut refused = store.put_if_absent("packs/aa/changed", body.clone()).await.unwrap_err();
            while proxy.disturbed() == before {
                // That was a connection which had been cut already.
                refused = store.put_if_absent("packs/aa/changed", body.clone()).await.unwrap_err();
            }
            assert!(refused.in_one_line().contains(word), "{name}: {refused:?}");
            assert_eq!(
                store.put_if_absent(&format!("packs/aa/{name}"), body.clone()).await.unwrap(),
                Put::Created
            );
        }
        let absent = store.get("packs/aa/changed", ByteRange::All).await.unwrap_err();
        assert_eq!(absent.kind(), ErrorKind::NotFound);
        assert_eq!(store.get("packs/aa/second", ByteRange::All).await.unwrap(), body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_are_told_apart() {
    let server = MinioServer::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let keys = |id: &str, secret: &str| {
        let path = directory.path().join(id);
        let text = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
        std::fs::write(&path, text).unwrap();
        StoreOptions { credentials_file: Some(path), ..server.options() }
    };
    let here = server.repository("x");
    let elsewhere = StoreOptions { endpoint: Some(format!("http://{NOWHERE}")), ..server.options() };
    let tls = StoreOptions { endpoint: Some(server.url().replace("http:", "https:")), ..server.options() };
    let absent = StoreOptions { credentials_file: Some(directory.path().join("absent")), ..server.options() };
    for (url, options, kind, words) in [
        (here.as_str(), keys("nobody", "whatever"), ErrorKind::Denied, "access key id"),
        (
            &here,
            keys(carrack_tests::minio::ACCESS_KEY, "wrong-secret"),
            ErrorKind::Denied,
            "secret access key",
        ),
        ("s3://no-such-bucket/x", server.options(), ErrorKind::Invalid, "bucket does not exist"),
        (&here, elsewhere, ErrorKind::Unavailable, "cannot be reached"),
        (&here, tls, ErrorKind::Invalid, "does not speak TLS"),
        (&here, absent, ErrorKind::Denied, "no credentials"),
    ] {
        let store = bare(url, &options).await;
        for err in [
            store.get("format", ByteRange::All).await.unwrap_err(),
            store.put_if_absent("sessions/x", "x".into()).await.unwrap_err(),
            store.list("", None).await.unwrap_err(),
        ] {
            assert_eq!(err.kind(), kind, "{err}: {:?}", std::error::Error::source(&err));
            assert!(err.to_string().contains(words), "{err}: {:?}", std::error::Error::source(&err));
            assert!(err.hint().is_some(), "{err} has no next step");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_server_is_not_a_store() {
    let server = MinioServer::start().unwrap();
    let proxy = Proxy::start(server.address()).await.unwrap();
    let store = bare(&server.repository("x"), &through(&proxy, &server)).await;
    for status in ["404 Not Found", "400 Bad Request"] {
        let page = "HTTP/1.1 STATUS\r\nContent-Type: text/html\r\nContent-Length: 13\r\nConnection: close\r\n\r\n<html></html>";
        proxy.disturb(Disturbance::Answer(page.replace("STATUS", status)), 3);
        let err = store.get("packs/aa/x", ByteRange::All).await.unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Invalid, "{err}");
        let err = store.list("", None).await.unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Invalid, "{err}");
        let err = store.delete("sessions/x").await.unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Invalid, "{err}");
    }
    assert_eq!(proxy.disturbed(), 6);
}

/// A put that breaks is unclear, and nobody sends that name again; a get that breaks is repeated.
#[tokio::test(flavor = "multi_thread")]
async fn broken_connections() {
    let server = MinioServer::start().unwrap();
    let proxy = Proxy::start(server.address()).await.unwrap();
    let options = through(&proxy, &server);
    let url = server.repository("cut");
    let direct = bare(&url, &server.options()).await;
    let body = Bytes::from(vec![7; 8 << 20]);

    let store = open_url(&url, &options).await.unwrap();
    proxy.disturb(Disturbance::CutRequest(1 << 20), 1);
    let err = store.put_if_absent("packs/aa/half", body.clone()).await.unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Unavailable, "{err}");
    assert_eq!(direct.get("packs/aa/half", ByteRange::All).await.unwrap_err().kind(), ErrorKind::NotFound);

    // The server has the object, its answer is lost: to the caller the same.
    let store = open_url(&url, &options).await.unwrap();
    proxy.disturb(Disturbance::CutAnswer(1), 1);
    let err = store.put_if_absent("packs/aa/lost", body.clone()).await.unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Unavailable, "{err}");
    assert_eq!(direct.get("packs/aa/lost", ByteRange::All).await.unwrap(), body);

    // A decision is sent again, and finds itself.
    let store = open_url(&url, &options).await.unwrap();
    proxy.disturb(Disturbance::CutAnswer(1), 1);
    assert_eq!(store.put_if_absent("snapshots/x", "end".into()).await.unwrap(), Put::Exists);
    assert_eq!(proxy.disturbed(), 3);

    let store = open_url(&url, &options).await.unwrap();
    proxy.disturb(Disturbance::CutAnswer(1 << 20), 2);
    assert_eq!(store.get("packs/aa/lost", ByteRange::All).await.unwrap(), body);
    assert_eq!(proxy.disturbed(), 5);

    let store = open_url(&url, &options).await.unwrap();
    proxy.disturb(Disturbance::CutAnswer(10), 2);
    assert_eq!(list_all(&*store, "").await.unwrap().len(), 2);
    assert_eq!(proxy.disturbed(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_by_the_limit() {
    let server = MinioServer::start().unwrap();
    let proxy = Proxy::start(server.address()).await.unwrap();
    let options = StoreOptions { read_timeout: Duration::from_millis(500), ..through(&proxy, &server) };
    let store = bare(&server.repository("silent"), &options).await;
    proxy.disturb(Disturbance::Silence, 2);
    let err = store.put_if_absent("packs/aa/x", "x".into()).await.unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Unavailable);
    assert!(err.to_string().contains("no answer"), "{err}");
    assert_eq!(store.list("", None).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_is_waited_out() {
    let server = MinioServer::start().unwrap();
    let proxy = Proxy::start(server.address()).await.unwrap();
    let store = open_url(&server.repository("slow"), &through(&proxy, &server)).await.unwrap();

    proxy.disturb(Disturbance::Answer(SLOW_DOWN.into()), 2);
    let start = std::time::Instant::now();
    assert_eq!(store.put_if_absent("snapshots/x", "end".into()).await.unwrap(), Put::Created);
    assert!(start.elapsed() >= Duration::from_secs(2), "Retry-After is not honoured: {:?}", start.elapsed());
    assert_eq!(proxy.disturbed(), 2);

    // A fresh connection for the next case.
    let store = open_url(&server.repository("slow"), &through(&proxy, &server)).await.unwrap();
    proxy.disturb(Disturbance::Answer(SLOW_DOWN.into()), 1);
    let err = store.put_if_absent("packs/aa/x", "pack".into()).await.unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Unavailable);
    assert!(std::error::Error::source(&err).unwrap().to_string().contains("SlowDown"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_restart_is_survived() {
    let mut server = MinioServer::start().unwrap();
    let store = open_url(&server.repository("restart"), &server.options()).await.unwrap();
    assert_eq!(store.put_if_absent("packs/aa/x", "pack".into()).await.unwrap(), Put::Created);
    server.kill().unwrap();
    let reader = store.clone();
    let reading = tokio::spawn(async move { reader.get("packs/aa/x", ByteRange::All).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        store.put_if_absent("packs/aa/y", "y".into()).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    server.start_again().unwrap();
    assert_eq!(reading.await.unwrap().unwrap(), "pack");
    assert_eq!(store.put_if_absent("packs/aa/z", "z".into()).await.unwrap(), Put::Created);
    assert_eq!(store.put_if_absent("packs/aa/x", "other".into()).await.unwrap(), Put::Exists);
}

/// The session and the first pack arrive; what comes then is up to the case.
const IN_THE_MIDDLE: usize = 2;

fn refusal(status: &str, code: &str) -> Vec<u8> {
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>So.</Message></Error>");
    reply(status, "Content-Type: application/xml\r\n", text.as_bytes())
}

/// Adds to the source what makes a backup of several packs.
fn grow(place: &Place, seed: u64) {
    for part in 0..3 {
        let path = place.source().join(format!("new {seed} {part}"));
        std::fs::write(path, noise(seed * 10 + part, 14_000_000)).unwrap();
    }
}

/// The backup ends with the code and words of what happened, nothing of the repository is lost, and the next one does it.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_turns_in_the_middle_of_a_backup_harms_nothing() {
    let server = MinioServer::start().unwrap();
    let turning = Turning::start(server.address()).await.unwrap();
    let place = Place::through(&server, "turning", &turning.url());
    let source = place.source().display().to_string();
    let page = reply("200 OK", "Content-Type: text/html\r\n", b"<html></html>");
    let mut taken = 0;
    for (answer, puts_only, code, words) in [
        (refusal("503 Slow Down", "SlowDown"), false, 12, "the service cannot do it now"),
        (refusal("403 Forbidden", "AccessDenied"), true, 13, "s3:PutObject"),
        (refusal("507 Insufficient Storage", "XMinioStorageFull"), true, 15, "the store is full"),
        (reply("200 OK", "", b""), true, 2, "not as an S3 service does"),
        (page, false, 2, "does not answer as an S3 service"),
    ] {
        grow(&place, taken + 1);
        turning.turn(Turn { after_puts: IN_THE_MIDDLE, requests: usize::MAX, puts_only, answer });
        let printed = ended(&mut place.command(&["backup", &source]), code);
        assert!(turning.calm() > 0, "it met nothing: {}", printed.err);
        assert!(printed.err.contains(words), "{words:?} is not in:\n{}", printed.err);
        assert_eq!(place.snapshots() as u64, taken, "{}", printed.err);
        place.run(&["check", "--read-data"], 0);
        place.backup();
        taken += 1;
        place.compare("latest", &place.source(), &format!("restored {taken}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_throttles_for_a_while_ends_no_backup() {
    let server = MinioServer::start().unwrap();
    let turning = Turning::start(server.address()).await.unwrap();
    let place = Place::through(&server, "slow", &turning.url());
    grow(&place, 1);
    let answer = refusal("503 Slow Down", "SlowDown");
    turning.turn(Turn { after_puts: IN_THE_MIDDLE, requests: 6, puts_only: false, answer });
    place.backup();
    assert_eq!(turning.calm(), 6);
    place.run(&["check", "--read-data"], 0);
    place.compare("latest", &place.source(), "restored");
}

/// A yes to a pack that was not kept is found by a check, and the next backup does not build on that pack, whichever it
/// was.
#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_the_service_forgets_is_found_and_sent_again() {
    let server = MinioServer::start().unwrap();
    let turning = Turning::start(server.address()).await.unwrap();
    for packs_before in 0..3 {
        let place = Place::through(&server, &format!("forgetful-{packs_before}"), &turning.url());
        grow(&place, 1);
        let answer = reply("200 OK", "ETag: \"0\"\r\n", b"");
        turning.turn(Turn { after_puts: 1 + packs_before, requests: 1, puts_only: true, answer });
        place.backup();
        assert_eq!(turning.calm(), 1);
        place.run(&["check"], 14);
        let source = place.source().display().to_string();
        let output = place.command(&["backup", &source]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        // That what it compares with is lost is told, and makes no difference to what is kept.
        let read_again = output.status.code() == Some(3) && told.contains("is read again");
        assert!(read_again || output.status.success(), "{:?} {told}", output.status);
        place.compare("latest", &place.source(), "restored");
        place.backup();
    }
}
