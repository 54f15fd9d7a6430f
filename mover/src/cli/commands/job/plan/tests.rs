use std::collections::BTreeMap;

use carrack_proto::{ChangeTracking, Target, Task, VERSION, VolumeState};

use super::*;
use crate::cli::args::{Command, PathStyle};

fn source(place: Place) -> Source {
    Source { host: "east/shop/data".into(), place }
}

fn directory() -> Place {
    Place::Directory("/data".into())
}

fn of(source: Source) -> BackupTask {
    BackupTask {
        source,
        tags: vec![],
        exclude: vec![],
        cloned: false,
        force: false,
        strict: false,
        changes: None,
    }
}

fn to(place: Place) -> RestoreTask {
    RestoreTask {
        snapshot: "latest".into(),
        host: None,
        as_of: None,
        previous: None,
        target: Target { place, delete: false },
        verify: false,
        include: vec![],
        exclude: vec![],
        strict: false,
    }
}

fn job(keys: Keys) -> Job {
    Job {
        version: VERSION,
        repository: RepositoryAccess { url: "s3://bucket/fleet".into(), ..RepositoryAccess::default() },
        keys,
        resources: Resources::default(),
        last_seen: vec![],
        task: Task::Connect { initialise: false },
    }
}

fn line(words: &[String]) -> String {
    words.join(" ")
}

#[test]
fn a_backup() {
    let mut task = of(source(directory()));
    assert_eq!(
        line(&backup(&task, None, None).unwrap()),
        "backup --host=east/shop/data --one-file-system -- /data"
    );
    task.tags = vec!["nightly".into(), "-x".into()];
    task.exclude = vec!["/tmp/*".into(), "*.iso".into(), "!/tmp/keep".into(), "data".into()];
    (task.cloned, task.force) = (true, true);
    assert_eq!(
        line(&backup(&task, Some(Path::new("/data/lost+found")), None).unwrap()),
        "backup --host=east/shop/data --tag=nightly --tag=-x --ignore-ctime --ignore-inode --force \
         --one-file-system --exclude=/data/tmp/* --exclude=/data/**/*.iso --exclude=!/data/tmp/keep \
         --exclude=/data/**/data --exclude=/data/lost+found -- /data"
    );
    task.tags = vec!["a,b".into()];
    assert!(backup(&task, None, None).unwrap_err().to_string().contains("comma"));
}

#[test]
fn a_backup_of_a_device() {
    let mut task = of(source(Place::Device("/dev/data".into())));
    assert_eq!(line(&backup(&task, None, None).unwrap()), "backup --host=east/shop/data --device=/dev/data");
    let state = VolumeState {
        driver: "csi".into(),
        volume: "v".into(),
        snapshot: "s".into(),
        object: "u".into(),
        taken: 7,
    };
    task.changes = Some(ChangeTracking { state, list: None });
    assert_eq!(
        line(&backup(&task, None, None).unwrap()),
        r#"backup --host=east/shop/data --device=/dev/data --change-id={"driver":"csi","volume":"v","snapshot":"s","object":"u","taken":7}"#
    );
    task.exclude = vec!["*.iso".into()];
    assert!(backup(&task, None, None).unwrap_err().to_string().contains("/dev/data"));
    (task.exclude, task.source.place) = (vec![], directory());
    assert!(backup(&task, None, None).unwrap_err().to_string().contains("changed blocks"));
}

#[test]
fn a_restore() {
    let mut task = to(Place::Directory("/target".into()));
    assert_eq!(
        line(&restore(&task, "b12-34", "/data")),
        "restore --target-attributes=always --target=/target -- b12-34:/data"
    );
    task.target.delete = true;
    task.verify = true;
    task.include = vec!["/etc".into()];
    task.exclude = vec!["-x".into()];
    assert_eq!(
        line(&restore(&task, "b12-34", "")),
        "restore --delete --target-attributes=always --target=/target --verify --include=/etc --exclude=-x -- b12-34"
    );
    task = to(Place::Device("/dev/data".into()));
    task.target.delete = true;
    assert_eq!(line(&restore(&task, "b12-34", "/data")), "restore --target=/dev/data -- b12-34");
}

#[test]
fn maintenance() {
    let task = |keep: &[(&str, &str)], prune, check_percent| {
        let keep = keep.iter().map(|(span, count)| ((*span).to_owned(), (*count).to_owned()));
        maintain(&MaintainTask { keep: keep.collect::<BTreeMap<_, _>>(), prune, check_percent })
    };
    let lines = |verbs: Vec<Vec<String>>| verbs.iter().map(|words| line(words)).collect::<Vec<_>>();
    assert_eq!(lines(task(&[], false, None).unwrap()), [""; 0]);
    assert_eq!(
        lines(task(&[("last", "3"), ("within", "30d"), ("daily", "7")], true, Some(5)).unwrap()),
        ["forget --keep-daily=7 --keep-last=3 --keep-within=30d", "prune", "check --read-data-subset=5%"]
    );
    assert_eq!(lines(task(&[], false, Some(0)).unwrap()), ["check --sizes"]);
    assert_eq!(lines(task(&[], true, Some(100)).unwrap()), ["prune", "check --read-data"]);
    let error = task(&[("fortnightly", "2")], false, None).unwrap_err();
    assert!(error.to_string().contains("fortnightly") && error.hint().unwrap().contains("weekly"));
    // Which number is none is said by the verb's own options.
    for (keep, percent) in [(&[("last", "many")][..], None), (&[], Some(101))] {
        let verb = task(keep, false, percent).unwrap().remove(0);
        let error = parse(&job(Keys::PasswordFile("/p".into())), &verb).unwrap_err();
        assert!(error.to_string().contains("101") || error.to_string().contains("many"), "{error}");
    }
}

#[test]
fn the_other_verbs() {
    assert_eq!(line(&bundle(&source(directory()))), "key bundle --host=east/shop/data --path=/data");
    assert_eq!(line(&forget("b12-34")), "forget -- b12-34");
    assert_eq!(line(&init()), "init");
    for words in [bundle(&source(directory())), forget("-b12"), init()] {
        parse(&job(Keys::KeyFile("/k".into())), &words).unwrap();
    }
}

#[test]
fn how_the_repository_is_reached() {
    assert_eq!(
        line(&access(&job(Keys::WriterBundle("/job/bundle.json".into())))),
        "--json --repo=s3://bucket/fleet --writer-bundle=/job/bundle.json"
    );
    let mut job = job(Keys::PasswordFile("/job/password".into()));
    job.repository = RepositoryAccess {
        url: "s3://bucket/fleet".into(),
        endpoint: Some("https://minio:9000".into()),
        region: Some("east".into()),
        path_style: Some(true),
        ca_file: Some("/job/ca.pem".into()),
        storage_class: Some("STANDARD_IA".into()),
        server_side_encryption: Some("aws:kms:k".into()),
        upload_checksum: true,
        limit_upload: Some(1000),
        limit_download: Some(2000),
        max_requests: Some(8),
    };
    job.resources = Resources {
        memory_bytes: Some(100_000_000),
        threads: Some(2),
        compression: Some("1..6".into()),
        cipher: Some("chacha20-poly1305".into()),
    };
    let cli = parse(&job, &init()).unwrap();
    assert!(matches!(cli.command, Command::Init(_)) && cli.global.output.json);
    let (repository, store, engine) = (cli.global.repository, cli.global.store, cli.global.engine);
    assert_eq!(repository.password_file.as_deref(), Some(Path::new("/job/password")));
    assert_eq!(store.endpoint.as_deref(), Some("https://minio:9000"));
    assert_eq!((store.path_style, store.upload_checksum), (PathStyle::Always, true));
    assert_eq!((store.limit_upload, store.limit_download), (Some(1000), Some(2000)));
    assert_eq!((engine.memory, engine.threads, store.max_requests), (Some(100_000_000), Some(2), Some(8)));
    job.resources.threads = Some(0);
    let error = parse(&job, &init()).unwrap_err();
    assert!(error.to_string().contains("--threads"), "{error}");
}

#[test]
fn a_path_is_no_pattern() {
    assert_eq!(literal("/a*b/[c]\\d"), "/a\\*b/\\[c\\]\\\\d");
    assert_eq!(rooted("/x", "/").unwrap(), "/x");
}

#[test]
fn a_pattern_is_not_the_whole_volume() {
    for pattern in ["", "/", ".", "./", "**", "/**", "/./**/", "!", "!/**"] {
        let task = BackupTask { exclude: vec![pattern.into()], ..of(source(directory())) };
        let error = backup(&task, None, None).unwrap_err();
        assert!(error.to_string().contains(&format!("{pattern:?}")) && error.hint().is_some(), "{error}");
    }
    assert_eq!(rooted("/*", "/data").unwrap(), "/data/*");
    assert_eq!(rooted("./a/**", "/data").unwrap(), "/data/**/./a/**");
}
