//! The ways to an S3 service that operators have: web identities, profiles, temporary credentials, proxies, and buckets
//! in the name of the host. The program goes each of them to a real service, and says what is wrong with it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::time::{Duration, Instant};

use carrack_tests::liar::{Liar, Lie};
use carrack_tests::minio::sts::{Session, Sts, session};
use carrack_tests::minio::{ACCESS_KEY, MinioServer, SECRET_KEY, Setup};
use carrack_tests::place::{Place, program};
use carrack_tests::program::ended;
use carrack_tests::proxy::forward::{Asked, ForwardProxy, LOGIN};
use carrack_tests::server::NOWHERE;

const ROLE: &str = "arn:aws:iam::123456789012:role/backup";
const TOKEN: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJjYXJyYWNrIn0.";
/// A refusal is final, and nobody waits for it: to ask eight times more takes 12.75 s in pauses alone, however the dice fall.
const AT_ONCE: Duration = Duration::from_millis(12_700);

type Environment = Vec<(&'static str, String)>;

/// What leads to a repository at this endpoint, and no credentials.
fn at(server: &MinioServer, endpoint: String) -> Environment {
    vec![
        ("CARRACK_REPOSITORY", server.repository("x")),
        ("CARRACK_S3_ENDPOINT", endpoint),
        ("AWS_REGION", "us-east-1".to_owned()),
        // No test asks the machine that it happens to run on.
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ]
}

fn with_keys(server: &MinioServer, endpoint: String) -> Environment {
    let mut environment = at(server, endpoint);
    environment.push(("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()));
    environment.push(("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()));
    environment
}

/// A source and a repository, which `init` makes.
fn place(environment: Environment) -> Place {
    let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Place::with(tempfile::tempdir().unwrap(), environment)
}

/// Backs up and restores.
fn round_trip(place: &Place) {
    place.backup();
    place.compare("latest", &place.source(), "restored");
}

/// Runs a command that asks the service, and expects this code and these words. Neither login nor token is printed.
#[track_caller]
fn refused(command: &mut Command, code: i32, words: &[&str]) {
    let start = Instant::now();
    let printed = ended(command, code);
    assert!(code == 12 || start.elapsed() < AT_ONCE, "{:?}: {}", start.elapsed(), printed.err);
    for word in words {
        assert!(printed.err.contains(word), "{word:?} is not in:\n{}", printed.err);
    }
    for secret in [SECRET_KEY, TOKEN, "p@ss:word", "p%40ss%3Aword", "another"] {
        assert!(!printed.err.contains(secret) && !printed.out.contains(secret), "{}", printed.err);
    }
}

fn init(environment: &Environment) -> Command {
    let mut command = Command::new(program());
    command.arg("init").env_clear().env("CARRACK_PASSWORD", "correct");
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command
}

/// A session that may do everything.
fn everything(server: &MinioServer) -> Session {
    session(server, "\"s3:*\"").unwrap()
}

/// What a pod of a cluster gets whose service account has a role.
fn with_identity(server: &MinioServer, sts: &Sts, directory: &tempfile::TempDir, token: &str) -> Environment {
    let file = directory.path().join(format!("token-{}", token.len()));
    std::fs::write(&file, token).unwrap();
    let mut environment = at(server, server.url());
    environment.push(("AWS_WEB_IDENTITY_TOKEN_FILE", file.display().to_string()));
    environment.push(("AWS_ROLE_ARN", ROLE.to_owned()));
    environment.push(("AWS_ENDPOINT_URL_STS", sts.url()));
    environment
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_identity_opens_a_repository() {
    let server = MinioServer::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let sts = Sts::start(everything(&server), ROLE, TOKEN, Duration::from_secs(3600)).await.unwrap();
    let place = place(with_identity(&server, &sts, &directory, TOKEN));
    assert_eq!(sts.given(), 1, "once in a run is enough");
    round_trip(&place);
    assert_eq!(sts.given(), 3);
}

/// What a profile says of S3 alone is taken for the endpoint like any other: the bucket stands in the path, and messages
/// name the place.
#[test]
fn a_profile_names_the_endpoint() {
    let server = MinioServer::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config");
    // With an address for a host there would be nothing to put the bucket before.
    let endpoint = server.url().replace("127.0.0.1", "localhost");
    let text = format!("[default]\nservices = here\n[services here]\ns3 =\n  endpoint_url = {endpoint}\n");
    std::fs::write(&file, text).unwrap();
    let mut environment = with_keys(&server, server.url());
    environment.retain(|(name, _)| *name != "CARRACK_S3_ENDPOINT");
    environment.push(("AWS_CONFIG_FILE", file.display().to_string()));
    let place = place(environment);
    round_trip(&place);
    let told = place.run(&["repo", "info"], 0);
    assert!(told.contains(&endpoint), "{told}");
}

/// A backup takes longer than credentials live.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_end_are_asked_for_again() {
    let server = MinioServer::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let sts = Sts::start(everything(&server), ROLE, TOKEN, Duration::from_secs(1)).await.unwrap();
    let place = place(with_identity(&server, &sts, &directory, TOKEN));
    let before = sts.given();
    round_trip(&place);
    assert!(sts.given() > before + 4, "{} and {before} before", sts.given());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_identity_that_is_refused_is_told_from_a_service_that_is_away() {
    let server = MinioServer::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let session = everything(&server);
    let sts = Sts::start(session.clone(), ROLE, TOKEN, Duration::from_secs(3600)).await.unwrap();
    let right = with_identity(&server, &sts, &directory, TOKEN);
    let other = with_identity(&server, &sts, &directory, "another token");
    let absent = directory.path().join("absent").display().to_string();

    refused(
        init(&right).env("AWS_WEB_IDENTITY_TOKEN_FILE", absent),
        13,
        &["the file of the web identity cannot be read", "AWS_WEB_IDENTITY_TOKEN_FILE", "No such file"],
    );
    refused(
        &mut init(&other),
        13,
        &["refuses them", "InvalidIdentityToken", "could not be validated", "has expired"],
    );
    refused(
        init(&right).env("AWS_ROLE_ARN", ROLE.replace("backup", "admin")),
        13,
        &["refuses them", "AccessDenied", "AWS_ROLE_ARN"],
    );
    refused(init(&right).env_remove("AWS_ROLE_ARN"), 13, &["no credentials", "AWS_ROLE_ARN"]);
    assert_eq!(sts.given(), 0);

    let nameless = Sts::start(session.clone(), ROLE, TOKEN, Duration::from_secs(3600)).await.unwrap();
    nameless.name_nobody();
    refused(
        init(&right).env("AWS_ENDPOINT_URL_STS", nameless.url()),
        13,
        &["gives what cannot be used", "ARN", "other than AWS"],
    );

    // Each may do it another time.
    let troubled = Sts::start(session, ROLE, TOKEN, Duration::from_secs(3600)).await.unwrap();
    troubled.fail("503 Service Unavailable", "ServiceUnavailable");
    let nobody = format!("http://{NOWHERE}");
    let endless = Liar::start(Lie::EndlessPut).await.unwrap();
    let runs = [
        (troubled.url(), "ServiceUnavailable"),
        (nobody, "Connection refused"),
        (endless.url(), "the answer is longer than 65536 bytes"),
    ];
    let runs = runs.map(|(url, cause)| {
        let mut command = init(&right);
        command.env("AWS_ENDPOINT_URL_STS", url);
        tokio::task::spawn_blocking(move || {
            refused(&mut command, 12, &["gives none", "run it again", cause]);
        })
    });
    for run in runs {
        run.await.unwrap();
    }
}

/// A name that nobody knows but the proxy, so that no request goes another way.
const BEHIND: &str = "storage.invalid:9000";

#[track_caller]
fn only(asked: &[Asked], host: &str, passed: bool) {
    assert!(!asked.is_empty());
    let right = |asked: &Asked| asked.host == host && asked.passed == passed;
    assert!(asked.iter().all(right), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_through_a_proxy_that_wants_a_login() {
    let server = MinioServer::start().unwrap();
    let proxy = ForwardProxy::start(server.address()).await.unwrap();
    let mut environment = with_keys(&server, format!("http://{BEHIND}"));
    environment.push(("HTTP_PROXY", proxy.url(LOGIN)));
    let place = place(environment);
    only(&proxy.take(), BEHIND, true);
    round_trip(&place);
    let asked = proxy.take();
    only(&asked, BEHIND, true);
    for method in ["PUT", "GET"] {
        let count = asked.iter().filter(|asked| asked.method == method).count();
        assert!(count >= 5, "{count} {method} in {asked:?}");
    }

    refused(
        place.command(&["snapshots"]).env("HTTP_PROXY", proxy.url("carrack:another")),
        13,
        &["the proxy wants a login", "HTTP_PROXY", "NO_PROXY"],
    );
    let asked = proxy.take();
    only(&asked, BEHIND, false);
    assert_eq!(asked.len(), 1, "a login that is wrong is not tried again: {asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_over_tls_goes_through_a_tunnel_of_a_proxy() {
    let server = MinioServer::start_with(Setup { tls: true, ..Setup::default() }).unwrap();
    let proxy = ForwardProxy::start(server.address()).await.unwrap();
    // The certificate is for this address, whatever the port.
    let behind = NOWHERE;
    let mut environment = with_keys(&server, format!("https://{behind}"));
    environment.push(("CARRACK_CA_FILE", server.options().ca_file.unwrap().display().to_string()));
    environment.push(("HTTPS_PROXY", proxy.url(LOGIN)));
    let place = place(environment);
    round_trip(&place);
    let asked = proxy.take();
    only(&asked, behind, true);
    assert!(asked.iter().all(|asked| asked.method == "CONNECT"), "{asked:?}");

    refused(
        place.command(&["snapshots"]).env("HTTPS_PROXY", proxy.url("carrack:another")),
        13,
        &["the proxy wants a login", "HTTPS_PROXY", "NO_PROXY"],
    );
    only(&proxy.take(), behind, false);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_proxy_names_is_asked_directly() {
    let server = MinioServer::start().unwrap();
    let proxy = ForwardProxy::start(server.address()).await.unwrap();
    let mut environment = with_keys(&server, server.url());
    environment.push(("HTTP_PROXY", proxy.url(LOGIN)));
    environment.push(("NO_PROXY", "storage.invalid,127.0.0.0/8".to_owned()));
    let place = place(environment);
    round_trip(&place);
    assert_eq!(proxy.take(), []);
    // With another name in it, or a proxy for another scheme, the same run goes as they say.
    ended(place.command(&["snapshots"]).env("NO_PROXY", "storage.invalid"), 0);
    only(&proxy.take(), &server.address(), true);
    let mut command = place.command(&["snapshots"]);
    ended(command.env_remove("HTTP_PROXY").env_remove("NO_PROXY").env("HTTPS_PROXY", proxy.url(LOGIN)), 0);
    assert_eq!(proxy.take(), []);
}

/// The one that was named serves, whatever is in the default one and in the environment.
#[test]
fn a_profile_that_was_named_opens_a_repository() {
    let server = MinioServer::start().unwrap();
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    std::fs::write(home.path().join(".aws/config"), "[profile work]\nregion = us-east-1\n").unwrap();
    let keys = format!(
        "[default]\naws_access_key_id = stranger\naws_secret_access_key = unknown\n\
         [work]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    );
    std::fs::write(home.path().join(".aws/credentials"), keys).unwrap();
    let mut environment = at(&server, server.url());
    environment.push(("HOME", home.path().display().to_string()));
    environment.push(("AWS_PROFILE", "work".to_owned()));
    let place = place(environment);
    round_trip(&place);

    let source = place.source().display().to_string();
    let mut named = place.command(&["backup", "--profile", "work", &source]);
    named
        .env_remove("AWS_PROFILE")
        .env("AWS_ACCESS_KEY_ID", "stranger")
        .env("AWS_SECRET_ACCESS_KEY", "unknown");
    ended(&mut named, 0);
    assert_eq!(place.snapshots(), 2);
    let mut unnamed = place.command(&["snapshots"]);
    refused(unnamed.env_remove("AWS_PROFILE"), 13, &["does not know the access key id", "--profile"]);
    refused(
        &mut place.command(&["snapshots", "--profile", "default"]),
        13,
        &["does not know the access key id"],
    );
}

#[test]
fn temporary_credentials_in_the_environment_open_a_repository() {
    let server = MinioServer::start().unwrap();
    let [id, secret, token] = everything(&server);
    let mut environment = at(&server, server.url());
    environment.push(("AWS_ACCESS_KEY_ID", id));
    environment.push(("AWS_SECRET_ACCESS_KEY", secret));
    environment.push(("AWS_SESSION_TOKEN", token));
    let place = place(environment);
    round_trip(&place);
    refused(place.command(&["snapshots"]).env_remove("AWS_SESSION_TOKEN"), 13, &["token"]);
    refused(place.command(&["snapshots"]).env("AWS_SESSION_TOKEN", "made-up"), 13, &["token"]);
}

/// The bucket is in the name of the host, which no machine here resolves: a proxy does, and tells what it was asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_may_be_in_the_name_of_the_host() {
    let server = MinioServer::start_with(Setup { domain: Some("localhost"), ..Setup::default() }).unwrap();
    let proxy = ForwardProxy::start(server.address()).await.unwrap();
    let port = server.address().split_once(':').unwrap().1.to_owned();
    let mut environment = with_keys(&server, format!("http://localhost:{port}"));
    environment.push(("HTTP_PROXY", proxy.url(LOGIN)));
    let place = place(environment);
    only(&proxy.take(), &format!("localhost:{port}"), true);
    let source = place.source().display().to_string();
    place.run(&["backup", "--path-style=never", &source], 0);
    let target = place.path("restored").display().to_string();
    place.run(&["restore", "latest", "--target", &target, "--path-style=never"], 0);
    only(&proxy.take(), &format!("carrack.localhost:{port}"), true);
    let restored = place.path("restored").join(place.source().strip_prefix("/").unwrap());
    assert_eq!(carrack_tests::trees::rsync_differences(&place.source(), &restored, &[]).unwrap(), "");
    // It is the same repository as by the other way.
    assert_eq!(place.snapshots(), 1);
}
