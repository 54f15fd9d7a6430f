use super::*;
use crate::{
    format::{entry::Content, metadata::Kind},
    reader::testing::{Writer, entry},
};

/// Paths that a pattern finds in a small tree of several leaves.
async fn found(pattern: &str, ignore_case: bool, part: Part) -> Vec<String> {
    found_by(&[pattern], ignore_case, part).await
}

/// The same of several patterns.
async fn found_by(texts: &[&str], ignore_case: bool, part: Part) -> Vec<String> {
    let file = |path: &str| entry(path, Kind::File, Content::default(), 0);
    let directory = |path: &str| entry(path, Kind::Directory, Content::default(), 0);
    let entries = vec![
        directory("etc"),
        directory("srv"),
        file("etc/passwd"),
        file("etc/passwd-"),
        directory("srv/db"),
        file("srv/db/dump.sql"),
        file("srv/db/Report.SQL"),
    ];
    let reader = Writer::new().finish(entries, 2);
    let mut patterns = Wanted::default();
    for text in texts {
        patterns.add(text, ignore_case, "pattern").unwrap();
    }
    let mut paths = Vec::new();
    let mut take = |entries: Vec<Entry>| {
        paths.extend(entries.into_iter().map(|entry| String::from_utf8(entry.path).unwrap()));
        Ok(())
    };
    let count = find(&reader, part, &patterns, &mut take).await.unwrap();
    assert_eq!(count, paths.len() as u64);
    paths
}

#[tokio::test]
async fn names_paths_and_case() {
    assert_eq!(found("passwd", false, Part::all()).await, ["etc/passwd"]);
    assert_eq!(found("passwd*", false, Part::all()).await, ["etc/passwd", "etc/passwd-"]);
    assert_eq!(found("*.sql", false, Part::all()).await, ["srv/db/dump.sql"]);
    assert_eq!(found("*.sql", true, Part::all()).await, ["srv/db/Report.SQL", "srv/db/dump.sql"]);
    assert_eq!(found("/srv/**/*", false, Part::all()).await.len(), 3);
    assert!(found("nothing", false, Part::all()).await.is_empty());
}

#[tokio::test]
async fn only_below_a_path() {
    assert!(found("passwd", false, Part::below(b"srv")).await.is_empty());
    assert_eq!(found("*", false, Part::directory(b"etc")).await, ["etc", "etc/passwd", "etc/passwd-"]);
}

#[tokio::test]
async fn all_below_a_directory() {
    let below = ["srv/db", "srv/db/Report.SQL", "srv/db/dump.sql"];
    assert_eq!(found("/srv/**", false, Part::all()).await, below);
    assert_eq!(found("srv/**", false, Part::all()).await, below);
    assert_eq!(found("db/**", false, Part::all()).await, below[1..]);
    assert!(found("/db/**", false, Part::all()).await.is_empty());
    assert_eq!(found("/**", false, Part::all()).await.len(), 7);
    assert_eq!(found("**", false, Part::all()).await.len(), 7);
    for nothing in ["", "/", ".", "!", "!/"] {
        Wanted::default().add(nothing, false, "pattern").unwrap_err();
    }
}

#[tokio::test]
async fn what_is_taken_back_says_nothing_of_what_is_below() {
    assert_eq!(found_by(&["srv", "!*.sql"], false, Part::all()).await, ["srv"]);
    let rest = ["srv/db", "srv/db/Report.SQL"];
    assert_eq!(found_by(&["/srv/**", "!*.sql"], false, Part::all()).await, rest);
    assert_eq!(
        found_by(&["/srv/**", "!db"], false, Part::all()).await,
        ["srv/db/Report.SQL", "srv/db/dump.sql"]
    );
    // The last one counts.
    assert_eq!(found_by(&["!*.sql", "dump*"], false, Part::all()).await, ["srv/db/dump.sql"]);
    assert!(found_by(&["!*.sql"], false, Part::all()).await.is_empty());
}
