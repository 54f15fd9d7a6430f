use std::path::Path;

use crate::error::ErrorKind;
use crate::source::exclude::Exclude;

fn excludes(patterns: &[&str], path: &str) -> bool {
    let mut exclude = Exclude::default();
    for pattern in patterns {
        exclude.add_pattern(pattern, false, "test").unwrap();
    }
    exclude.matches(path.as_bytes())
}

#[test]
fn patterns_match_as_restic_users_expect() {
    let table: &[(&[&str], &str, bool)] = &[
        (&["*.o"], "home/x/a.o", true),
        (&["*.o"], "home/x/a.ob", false),
        (&["cache"], "var/cache", true),
        (&["var/cache"], "x/var/cache", true),
        (&["/var/cache"], "var/cache", true),
        (&["/var/cache"], "x/var/cache", false),
        (&["/var/*"], "var/cache", true),
        (&["/var/*/log"], "var/a/log", true),
        (&["/var/*/log"], "var/a/b/log", false),
        (&["/var/**/log"], "var/a/b/log", true),
        (&["/var/**/log"], "var/log", true),
        (&["foo/**"], "x/foo", true),
        (&["dir/"], "x/dir", true),
        (&["a{b,c}"], "ab", false),
        (&["a{b,c}"], "a{b,c}", true),
        (&["[a-c].txt"], "b.txt", true),
        (&["\\*"], "x/*", true),
        (&["\\*"], "x/y", false),
        (&["*.txt", "!keep.txt"], "x/keep.txt", false),
        (&["*.txt", "!keep.txt"], "x/other.txt", true),
        (&["!keep.txt", "*.txt"], "x/keep.txt", true),
        (&["*", "!keep"], "keep/below", false),
    ];
    for (patterns, path, expected) in table {
        assert_eq!(excludes(patterns, path), *expected, "{patterns:?} on {path}");
    }
}

#[test]
fn case_and_bytes() {
    let mut exclude = Exclude::default();
    exclude.add_pattern("*.JPG", true, "test").unwrap();
    assert!(exclude.matches(b"a/\xff\xfe.jpg"));
    assert!(!exclude.matches(b"a/\xff\xfe.png"));
}

#[test]
fn an_invalid_pattern_is_named_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("patterns");
    std::fs::write(&file, "# comment\n\n*.o\n[bad\n").unwrap();
    let error = Exclude::default().add_file(&file, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let message = error.to_string();
    assert!(message.contains("patterns:4") && message.contains("[bad"), "{message}");
    Exclude::default().add_file(Path::new("/nonexistent"), false).unwrap_err();
    Exclude::default().add_pattern("!", false, "test").unwrap_err();
    Exclude::default().add_if_present("a/b").unwrap_err();
}
