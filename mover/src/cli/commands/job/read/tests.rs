use std::fs;

use super::*;

const JOB: &str = r#"{"version":1,"repository":{"url":"/r"},"keys":{"keyFile":"/k"},
    "task":{"connect":{"initialise":true}}}"#;

#[test]
fn a_job_is_read_or_told_what_is_wrong_with_it() {
    assert_eq!(parse(JOB).unwrap().repository.url, "/r");
    for (text, said) in [
        (String::new(), "no JSON"),
        ("garbage".into(), "no JSON"),
        ("[]".into(), "no version"),
        (r#""text""#.into(), "no version"),
        (JOB.replace("\"version\":1", "\"version\":2,\"new\":3"), "version 2"),
        (JOB.replace("\"version\":1,", ""), "no version"),
        (JOB.replace("\"initialise\"", "\"surprise\":1,\"initialise\""), "surprise"),
        (JOB.replace("connect", "dance"), "dance"),
        (JOB.replace("keyFile", "key"), "key"),
        (JOB.replace("true", "7"), "boolean"),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(error.in_one_line().contains(said), "{text}: {}", error.in_one_line());
        assert!(error.hint().is_some(), "{text}");
    }
}

#[test]
fn what_is_too_long_or_missing_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("job.json");
    let missing = job(&file).unwrap_err();
    assert!(missing.to_string().contains("job.json"), "{missing}");
    fs::write(&file, " ".repeat((1 << 20) + 1)).unwrap();
    assert!(job(&file).unwrap_err().to_string().contains("longer"));
    fs::write(&file, "12\n").unwrap();
    let wrong = seal_key(file.to_str().unwrap()).unwrap_err();
    assert!(wrong.to_string().contains("64 hexadecimal digits"), "{wrong}");
    fs::write(&file, "0f".repeat(32) + "\n").unwrap();
    seal_key(file.to_str().unwrap()).unwrap();
}
