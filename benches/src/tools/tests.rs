use super::*;

fn place(location: Location) -> Place {
    Place { program: "/bin/carrack".into(), location, home: "/home/bench".into() }
}

fn line(command: &Command) -> String {
    command.get_args().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[test]
fn carrack_is_asked_as_its_manual_says() {
    let tool = adapter(Name::Carrack, &["--memory=96MiB".into()]);
    let local = place(Location::Local("/repo".into()));
    assert_eq!(line(&tool.backup(&local, Path::new("/src"))), "-r /repo --memory=96MiB backup /src");
    let s3 = place(Location::S3(S3 {
        address: "127.0.0.1:9000".into(),
        bucket: "bench".into(),
        prefix: "a/b".into(),
        access_key: "access".into(),
        secret_key: "secret".into(),
        region: "us-east-1".into(),
    }));
    assert_eq!(
        line(&tool.check_all(&s3)),
        "-r s3://bench/a/b --endpoint http://127.0.0.1:9000 --s3-path-style --memory=96MiB check --read-data"
    );
}

#[test]
fn secrets_are_never_arguments_of_carrack() {
    let tool = adapter(Name::Carrack, &[]);
    let command = tool.backup(&place(Location::Local("/repo".into())), Path::new("/src"));
    assert!(!line(&command).contains(PASSWORD));
    assert!(command.get_envs().any(|(name, _)| name == "CARRACK_PASSWORD"));
}
