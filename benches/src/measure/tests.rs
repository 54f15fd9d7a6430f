use super::*;

#[test]
fn peak_memory_and_failures_are_seen() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dir.path().join("log");
    let mut big = Command::new("/bin/sh");
    // dd holds its whole block in memory, and is a child of the child.
    big.args(["-c", "dd if=/dev/zero of=/dev/null bs=64M count=4; true"]);
    let usage = run(&big, &log).expect("dd runs");
    assert!((64.0..100.0).contains(&usage.peak_mib), "{} MiB", usage.peak_mib);
    let mut bad = Command::new("/bin/sh");
    bad.args(["-c", "echo the reason >&2; exit 3"]);
    let error = run(&bad, &log).expect_err("exit code 3").to_string();
    assert!(error.contains("the reason"), "{error}");
}
