use super::*;

fn failed(message: &str, problems: usize) -> JobResult {
    let problem = Problem { item: "/data/é".repeat(200), message: "cannot be read ".repeat(50) };
    JobResult {
        version: VERSION,
        outcome: Outcome::Failed,
        exit_code: 12,
        message: message.to_owned(),
        next: Some("look at the store".to_owned()),
        problems: problems as u64,
        first_problems: vec![problem; problems],
        output: None,
    }
}

#[test]
fn a_result_fits_into_a_termination_message_however_much_went_wrong() {
    let escaped = "\u{1b}\"\\".repeat(3000);
    for (message, problems) in [("", 0), ("short", 1), (&*"ü".repeat(5000), 300), (&*escaped, 2)] {
        let text = failed(message, problems).to_message();
        assert!(text.len() <= TERMINATION_MESSAGE_LIMIT, "{} bytes", text.len());
        let read = JobResult::read(&text).expect("a result");
        assert_eq!((read.problems, read.exit_code), (problems as u64, 12));
    }
    assert_eq!(JobResult::read("Killed"), None);
}

#[test]
fn a_sealed_bundle_stays_whole_or_is_no_result() {
    let of = |length: usize| {
        let output = Some(Output::Bundle { sealed: "f".repeat(length) });
        let done = JobResult { outcome: Outcome::Completed, exit_code: 0, output, ..failed("", 0) };
        JobResult::read(&done.to_message()).expect("a result")
    };
    assert_eq!(of(3800).output, Some(Output::Bundle { sealed: "f".repeat(3800) }));
    let too_long = of(5000);
    assert_eq!((too_long.outcome, too_long.output), (Outcome::Failed, None));
    assert!(too_long.message.contains("4096"), "{}", too_long.message);
}

#[test]
fn as_many_snapshots_that_are_gone_as_are_named_fit_with_all_else() {
    let gone = format!("b{}-{}", "1".repeat(16), "2".repeat(32));
    let output = MaintainOutput {
        forgotten: u64::MAX,
        freed_bytes: u64::MAX,
        repository_bytes: Some(u64::MAX),
        checked_snapshots: u64::MAX,
        damaged_objects: u64::MAX,
        gone: u64::MAX,
        missing: u64::MAX,
        first_gone: vec![gone; NAMED_GONE],
    };
    let output = Some(Output::Maintain(output));
    let told = JobResult { output: output.clone(), ..failed(&"\u{1b}".repeat(3000), 9) };
    assert_eq!(JobResult::read(&told.to_message()).expect("a result").output, output);
}

#[test]
fn a_seal_opens_with_its_key_only() {
    let key = SealKey::generate().expect("randomness");
    let sealed = key.seal(b"bundle").expect("sealed");
    let same = SealKey::from_text(&key.to_text()).expect("the same key");
    assert_eq!(same.open(&sealed).expect("opened"), b"bundle");
    let other = SealKey::generate().expect("randomness");
    assert_eq!(other.open(&sealed), Err(SealError::Broken));
    let mut changed = sealed.into_bytes();
    changed[30] ^= 1;
    assert_eq!(key.open(&String::from_utf8(changed).expect("hexadecimal")), Err(SealError::Broken));
    assert_eq!(key.open("00"), Err(SealError::Broken));
    assert!(matches!(SealKey::from_text("12"), Err(SealError::Key)));
    assert_eq!(format!("{key:?}"), "SealKey(…)");
}

#[test]
fn a_job_is_read_as_it_was_written_and_refuses_what_it_does_not_know() {
    let job = Job {
        version: VERSION,
        repository: RepositoryAccess { url: "s3://bucket/fleet".into(), ..RepositoryAccess::default() },
        keys: Keys::WriterBundle("/carrack/job/bundle.json".into()),
        resources: Resources::default(),
        last_seen: vec![SeenSnapshot { snapshot: "b01-02".into(), started: jiff::Timestamp::UNIX_EPOCH }],
        task: Task::Backup(BackupTask {
            source: Source { host: "east/shop/data".into(), place: Place::Directory("/data".into()) },
            tags: vec!["nightly".into()],
            exclude: vec![],
            cloned: true,
            force: false,
            strict: false,
            changes: None,
        }),
    };
    let text = serde_json::to_string(&job).expect("JSON");
    assert_eq!(serde_json::from_str::<Job>(&text).expect("a job"), job);
    let forgetful = Job { last_seen: vec![], ..job };
    let short = serde_json::to_string(&forgetful).expect("JSON");
    assert!(text.contains("lastSeen") && !short.contains("lastSeen"), "{short}");
    assert_eq!(serde_json::from_str::<Job>(&short).expect("a job"), forgetful);
    let odd = text.replace("\"cloned\":true", "\"cloned\":true,\"surprise\":1");
    assert!(serde_json::from_str::<Job>(&odd).expect_err("refused").to_string().contains("surprise"));
}

#[test]
fn progress_is_told_from_other_lines() {
    let line =
        r#"{"message_type":"status","phase":"backup","bytes_done":5,"total_bytes":10,"percent_done":0.5}"#;
    let progress = Progress::read(line).expect("progress");
    assert_eq!((progress.bytes_done, progress.total_bytes), (5, Some(10)));
    let unknown = Progress::read(&line.replace(":10", ":0")).expect("progress");
    assert_eq!(unknown.total_bytes, None);
    assert_eq!(Progress::read(r#"{"message_type":"summary"}"#), None);
    assert_eq!(Progress::read("a word"), None);
}
