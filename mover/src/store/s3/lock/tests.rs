use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::error::Error;
use crate::store::{ObjectStore as _, StoreOptions};

const PACK: &str = "packs/aa/x";
/// Instead of an answer: the connection stays open, and nothing comes.
const SILENCE: &str = "";
const LOCKS: &str = "200 OK\r\nContent-Length: 97\r\n\r\n<ObjectLockConfiguration><ObjectLockEnabled>Enabled\
                     </ObjectLockEnabled></ObjectLockConfiguration>";
const WAS_HELD: &str = "200 OK\r\nContent-Length: 0\r\nx-amz-version-id: v1\r\nx-amz-object-lock-mode: \
                        COMPLIANCE\r\nx-amz-object-lock-retain-until-date: 2020-01-01T00:00:00Z\r\n\r\n";
const DONE: &str = "204 No Content\r\n\r\n";
const ABSENT: &str = "404 Not Found\r\nContent-Length: 37\r\n\r\n<Error><Code>NoSuchKey</Code></Error>";

/// A service with these answers, one after the other, and the first lines of what it was asked.
struct Service {
    store: S3Store,
    asked: Arc<Mutex<Vec<String>>>,
    /// Holds the credentials, which are read when they are first needed.
    _directory: TempDir,
}

impl Service {
    async fn with(answers: &[&str]) -> Self {
        Self::waited_for(answers, Duration::from_secs(20)).await
    }

    async fn waited_for(answers: &[&str], read_timeout: Duration) -> Self {
        let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut silent: Vec<TcpStream> = Vec::new();
            for answer in answers.iter().map(String::as_str).chain(std::iter::repeat(SILENCE)) {
                let Ok((mut client, _)) = listener.accept() else { return };
                let head = BufReader::new(&client).lines().map_while(Result::ok);
                let head: Vec<String> = head.take_while(|line| !line.is_empty()).collect();
                seen.lock().unwrap().push(head[0].clone());
                if answer == SILENCE {
                    silent.push(client);
                } else {
                    let (status, rest) = answer.split_once("\r\n").unwrap();
                    // One request a connection, so that each meets the next answer.
                    let text = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{rest}");
                    client.write_all(text.as_bytes()).unwrap();
                }
            }
        });
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials");
        std::fs::write(&path, "[default]\naws_access_key_id = any\naws_secret_access_key = any\n").unwrap();
        let options = StoreOptions {
            endpoint: Some(endpoint),
            region: Some("us-east-1".into()),
            credentials_file: Some(path),
            read_timeout,
            ..StoreOptions::default()
        };
        let store = S3Store::open("bucket/x", &options).await.unwrap();
        Self { store, asked, _directory: directory }
    }

    /// What was asked: the verb, and what stands behind the path.
    fn asked(&self) -> Vec<String> {
        let lines = self.asked.lock().unwrap();
        let short = |line: &String| {
            let mut words = line.split(' ');
            let (verb, place) = (words.next().unwrap(), words.next().unwrap());
            let parameters = place.split_once('?').map_or("", |(_, parameters)| parameters);
            let parameters = parameters.split('&').filter(|parameter| !parameter.starts_with("x-id="));
            format!("{verb} {}", parameters.collect::<Vec<_>>().join("&")).trim_end().to_owned()
        };
        lines.iter().map(short).collect()
    }
}

/// An end within the time that any request has.
async fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("it has an end")
}

#[track_caller]
fn expect_unavailable<T: std::fmt::Debug>(result: Result<T>) {
    assert_eq!(result.as_ref().map_err(Error::kind).unwrap_err(), ErrorKind::Unavailable, "{result:?}");
}

#[tokio::test]
async fn a_service_that_never_answers_keeps_nobody_waiting() {
    let patience = Duration::from_secs(3);
    let service = Service::waited_for(&[SILENCE, LOCKS, WAS_HELD, SILENCE], patience).await;
    expect_unavailable(in_time(service.store.locked_until(PACK)).await);
    expect_unavailable(in_time(service.store.delete(PACK)).await);
    assert_eq!(service.asked(), ["GET object-lock", "GET object-lock", "HEAD", "DELETE versionId=v1"]);
}

#[tokio::test]
async fn only_a_clear_no_means_that_nothing_is_locked() {
    for busy in ["408 Request Timeout", "425 Too Early", "429 Too Many Requests", "503 Slow Down"] {
        let busy = format!("{busy}\r\nContent-Length: 0\r\n\r\n");
        let service = Service::with(&[&busy, LOCKS, WAS_HELD]).await;
        expect_unavailable(in_time(service.store.locked_until(PACK)).await);
        assert!(in_time(service.store.locked_until(PACK)).await.unwrap().is_some(), "{busy}");
    }
    for no in ["400 Bad Request", "403 Forbidden", "404 Not Found", "405 No", "501 Not Implemented"] {
        let no = format!("{no}\r\nContent-Length: 0\r\n\r\n");
        let service = Service::with(&[&no]).await;
        for _ in 0..2 {
            assert_eq!(in_time(service.store.locked_until(PACK)).await.unwrap(), None, "{no}");
        }
        assert_eq!(service.asked(), ["GET object-lock"]);
    }
}

#[tokio::test]
async fn a_version_is_freed_by_another_try() {
    let busy = "503 Slow Down\r\nContent-Length: 0\r\n\r\n";
    let service = Service::with(&[LOCKS, WAS_HELD, busy, WAS_HELD, DONE, ABSENT]).await;
    expect_unavailable(in_time(service.store.delete(PACK)).await);
    // Some services say then that there is nothing to lay a marker over.
    assert!(in_time(service.store.delete(PACK)).await.unwrap());
    let tries = ["HEAD", "DELETE versionId=v1", "HEAD", "DELETE versionId=v1", "DELETE"];
    assert_eq!(service.asked()[1..], tries);
}

#[tokio::test]
async fn who_may_not_free_a_version_deletes_all_the_same() {
    let denied = "403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    let service = Service::with(&[LOCKS, WAS_HELD, denied, DONE]).await;
    assert!(in_time(service.store.delete(PACK)).await.unwrap());
    assert_eq!(service.asked()[1..], ["HEAD", "DELETE versionId=v1", "DELETE"]);
}
