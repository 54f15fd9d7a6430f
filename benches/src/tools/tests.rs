use super::*;

fn place(location: Location) -> Place {
    Place {
        program: "/bin/carrack".into(),
        location,
        home: "/home/bench".into(),
        device: Some("disk.img"),
        changed: Some("/changed".into()),
    }
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
        creates_if_absent: true,
    }));
    assert_eq!(
        line(&tool.check_all(&s3)),
        "-r s3://bench/a/b --endpoint http://127.0.0.1:9000 --memory=96MiB check --read-data"
    );
}

#[test]
fn secrets_are_never_arguments_of_carrack() {
    let tool = adapter(Name::Carrack, &[]);
    let command = tool.backup(&place(Location::Local("/repo".into())), Path::new("/src"));
    assert!(!line(&command).contains(PASSWORD));
    assert!(command.get_envs().any(|(name, _)| name == "CARRACK_PASSWORD"));
}

#[test]
fn a_device_is_one_file_and_its_changes_a_list() {
    let place = place(Location::Local("/repo".into()));
    let (source, target) = (Path::new("/src"), Path::new("/target"));
    let tool = adapter(Name::CarrackDevice, &[]);
    assert_eq!(line(&tool.backup(&place, source)), "-r /repo backup --device /src/disk.img");
    assert_eq!(
        line(&tool.restore(&place, source, target)),
        "-r /repo restore latest --target /target/disk.img"
    );
    let tool = adapter(Name::CarrackList, &[]);
    let wanted = "-r /repo backup --device /src/disk.img --changed-blocks /changed";
    assert_eq!(line(&tool.backup(&place, source)), wanted);
    let first = Place { changed: None, ..place };
    assert_eq!(line(&tool.backup(&first, source)), "-r /repo backup --device /src/disk.img");
}
