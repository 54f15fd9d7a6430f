use std::{collections::HashMap, io::Write as _};

use carrack_mover::error::ErrorKind;
use clap::Parser as _;

use super::*;
use crate::cli::args::Cli;

fn resolve(args: &[&str], variables: &[(&str, &str)]) -> Result<Config> {
    let words = ["carrack"].iter().chain(args).chain(&["snapshots"]);
    let cli = Cli::try_parse_from(words).expect("the arguments are right");
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    Config::resolve(&cli.global, &|name| variables.get(name).map(OsString::from))
}

#[test]
fn options_win_over_the_environment() {
    let environment =
        [("CARRACK_REPOSITORY", "/env"), ("CARRACK_PASSWORD", "env"), ("CARRACK_PASSWORD_FILE", "/env/file")];
    let config =
        resolve(&["-r", "/typed", "--password-command", "pass show x"], &environment).expect("resolves");
    assert_eq!(config.place.url, "/typed");
    assert_eq!(config.place.secret, SecretSource::PasswordCommand("pass show x".into()));
    let config = resolve(&[], &environment).expect("resolves");
    assert_eq!(config.place.url, "/env");
    assert_eq!(config.place.secret, SecretSource::PasswordFile("/env/file".into()));
}

#[test]
fn secrets_come_from_many_places() {
    let place = ("CARRACK_REPOSITORY", "/r");
    for (args, variable, expected) in [
        (&[][..], ("CARRACK_PASSWORD", "x"), SecretSource::PasswordVariable("CARRACK_PASSWORD")),
        (&[], ("CARRACK_PASSWORD_COMMAND", "c"), SecretSource::PasswordCommand("c".into())),
        (&[], ("CARRACK_KEY_FILE", "/k"), SecretSource::KeyFile("/k".into())),
        (&[], ("CARRACK_WRITER_BUNDLE", "/b"), SecretSource::Bundle("/b".into())),
        (&[], ("UNRELATED", "/b"), SecretSource::Prompt),
        (&["-p", "/p"], ("CARRACK_KEY_FILE", "/k"), SecretSource::PasswordFile("/p".into())),
    ] {
        assert_eq!(resolve(args, &[place, variable]).expect("resolves").place.secret, expected);
    }
}

#[test]
fn a_repository_file_names_the_repository() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "s3://bucket/prefix\nanother line").expect("writes");
    let path = file.path().to_str().expect("UTF-8");
    let config = resolve(&["--repository-file", path], &[]).expect("resolves");
    assert_eq!(config.place.url, "s3://bucket/prefix");
    assert_eq!(
        resolve(&[], &[("CARRACK_REPOSITORY_FILE", path)]).expect("resolves").place.url,
        config.place.url
    );
}

#[test]
fn wrong_settings_say_the_next_step() {
    let with = |variable, value| resolve(&["-r", "/r"], &[(variable, value)]);
    for result in [
        resolve(&[], &[]),
        resolve(&["-r", " "], &[]),
        resolve(&["-r", "s3:host/bucket"], &[]),
        resolve(&["-r", "sftp:host:/x"], &[]),
        resolve(&["-r", "/r", "--memory", "1MiB"], &[]),
        resolve(&["-r", "/r", "--server-side-encryption", "rot13"], &[]),
        resolve(&["-r", "/r", "--endpoint", "minio:9000"], &[]),
        with("CARRACK_S3_ENDPOINT", "minio"),
        with("CARRACK_MEMORY", "64KiB"),
    ] {
        let error = result.expect_err("this is wrong");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.hint().is_some(), "{error}");
    }
}

#[test]
fn a_secret_in_an_endpoint_is_not_repeated() {
    let error = resolve(&["-r", "/r", "--endpoint", "key:secret@minio:9000"], &[]).expect_err("no scheme");
    let said = format!("{} {}", error.in_one_line(), error.hint().unwrap_or_default());
    assert!(!said.contains("secret") && !said.contains("key:"), "{said}");
}

#[test]
fn store_options_reach_the_store() {
    let args = [
        "-r",
        "s3://b/p",
        "--endpoint",
        "https://h:1",
        "--region",
        "r",
        "--profile",
        "p",
        "--ca-file",
        "/ca",
        "--path-style=never",
        "--storage-class",
        "STANDARD_IA",
        "--server-side-encryption",
        "aws:kms:key",
        "--limit-upload",
        "100",
        "--limit-download",
        "1MiB",
        "--max-requests",
        "7",
    ];
    let store = resolve(&args, &[("AWS_CA_BUNDLE", "/other")]).expect("resolves").store;
    assert_eq!(store.endpoint.as_deref(), Some("https://h:1"));
    assert_eq!(store.region.as_deref(), Some("r"));
    assert_eq!(store.profile.as_deref(), Some("p"));
    assert_eq!(store.ca_file.as_deref(), Some(Path::new("/ca")));
    assert_eq!(store.path_style, Some(false));
    assert_eq!(store.storage_class.as_deref(), Some("STANDARD_IA"));
    assert_eq!(store.server_side_encryption, ServerSideEncryption::Kms { key_id: Some("key".into()) });
    assert_eq!(store.limit_upload_bytes_per_second, Some(100 << 10));
    assert_eq!(store.limit_download_bytes_per_second, Some(1 << 20));
    assert_eq!(store.max_requests_in_flight, Some(7));
    let plain = resolve(&["-r", "/r"], &[("AWS_CA_BUNDLE", "/other")]).expect("resolves").store;
    assert_eq!((plain.path_style, plain.ca_file.as_deref()), (None, Some(Path::new("/other"))));
}

#[test]
fn the_repository_that_is_copied_from_has_settings_of_its_own() {
    let from = |repo, password_file, variables: &[(&str, &str)]| {
        let variables: HashMap<&str, &str> = variables.iter().copied().collect();
        let args = FromArgs { repo, password_file, password_command: None, key_file: None };
        Place::resolve_from(args, &|name| variables.get(name).map(OsString::from))
    };
    let target = [("CARRACK_REPOSITORY", "/to"), ("CARRACK_PASSWORD", "x")];
    let error = from(None, None, &target).expect_err("the target's settings are not the source's");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(from(Some("/from"), None, &target).expect("resolves").secret, SecretSource::Prompt);
    let source = [("CARRACK_FROM_REPOSITORY", "/from"), ("CARRACK_FROM_PASSWORD", "x")];
    let place = from(None, None, &source).expect("resolves");
    assert_eq!(place.url, "/from");
    assert_eq!(place.secret, SecretSource::PasswordVariable("CARRACK_FROM_PASSWORD"));
    let place = from(Some("/typed"), Some(Path::new("/p")), &source).expect("resolves");
    assert_eq!((place.url, place.secret), ("/typed".into(), SecretSource::PasswordFile("/p".into())));
}

#[test]
fn the_store_that_is_copied_from_is_reached_in_its_own_way() {
    let to =
        ["-r", "s3://b/p", "--endpoint", "https://to", "--region", "r", "--profile", "p", "--ca-file", "/ca"];
    let config = resolve(&to, &[]).expect("resolves");
    let from = |args: &FromStoreArgs, variables: &[(&str, &str)]| {
        let variables: HashMap<&str, &str> = variables.iter().copied().collect();
        config.store_from(args, &|name| variables.get(name).map(OsString::from))
    };
    let seen = |store: &StoreOptions| {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let words = [store.endpoint.clone(), store.region.clone(), store.profile.clone()];
        let all = words.into_iter().chain([path(&store.credentials_file), path(&store.ca_file)]);
        all.map(Option::unwrap_or_default).collect::<Vec<_>>().join(" ")
    };
    let plain = FromStoreArgs::default();
    assert_eq!(seen(&from(&plain, &[]).expect("resolves")), "https://to r p  /ca");
    let variables = [("CARRACK_FROM_S3_ENDPOINT", "https://env"), ("CARRACK_FROM_CA_FILE", "/env")];
    assert_eq!(seen(&from(&plain, &variables).expect("resolves")), "https://env r p  /env");
    let file = FromStoreArgs { from_credentials_file: Some("/keys".into()), ..plain.clone() };
    assert_eq!(seen(&from(&file, &[]).expect("resolves")), "https://to r  /keys /ca");
    let all = FromStoreArgs {
        from_endpoint: Some("https://from".into()),
        from_region: Some("q".into()),
        from_profile: Some("o".into()),
        from_ca_file: Some("/own".into()),
        ..file
    };
    assert_eq!(seen(&from(&all, &variables).expect("resolves")), "https://from q o /keys /own");
    let wrong = FromStoreArgs { from_endpoint: Some("minio:9000".into()), ..plain };
    assert_eq!(from(&wrong, &[]).expect_err("no URL").kind(), ErrorKind::Invalid);
}
