//! The map of rooms in ARCHITECTURE.md, as a failing build: reads every `crate::` path in the engine's sources and
//! refuses an edge that the table does not have.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What everything may use: values without knowledge of any other room.
const GROUND: &[&str] = &["error", "id", "limits", "clock", "monitor", "secret", "cancel"];

/// Room, and which others it may use besides the ground. A room is a file or folder right below `mover/src`.
const ROOMS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("id", &[]),
    ("limits", &[]),
    ("clock", &[]),
    ("monitor", &[]),
    ("secret", &[]),
    ("cancel", &[]),
    ("chunker", &[]),
    // Attributes of entries as system calls give and take them.
    ("sys", &["format"]),
    // Keys and session names know each other's lengths; records carry the cut sizes.
    ("format", &["keys", "chunker"]),
    ("keys", &["format"]),
    ("codec", &["format", "keys"]),
    ("store", &["sys"]),
    ("source", &["sys", "format"]),
    // A problem with a path is one type, whether the path was read or written.
    ("target", &["sys", "format", "source"]),
    ("repo", &["store", "format", "codec", "keys", "chunker", "sys"]),
    ("reader", &["repo", "store", "format", "codec", "keys"]),
    ("pipeline", &["repo", "reader", "store", "source", "format", "codec", "keys", "chunker", "sys"]),
    ("backup", &["pipeline", "repo", "reader", "source", "store", "format", "codec", "keys", "chunker"]),
    (
        "restore",
        &["pipeline", "repo", "source", "sys", "reader", "target", "store", "format", "codec", "keys"],
    ),
    ("repack", &["pipeline", "repo", "store", "format", "codec", "keys"]),
    ("check", &["pipeline", "repo", "reader", "store", "format", "codec", "keys", "chunker"]),
    ("diff", &["repo", "reader", "format"]),
    ("find", &["repo", "reader", "format", "source"]),
    ("copy", &["backup", "repo", "reader", "format"]),
    ("mount", &["repo", "reader", "format"]),
    // Every decoder as a function of bytes, for tests only.
    ("fuzz", &["repo", "reader", "source", "store", "format", "codec", "keys"]),
    (
        "cli",
        &[
            "backup", "restore", "repack", "check", "diff", "find", "copy", "mount", "repo", "reader",
            "store", "source", "target", "format", "keys", "codec", "chunker",
        ],
    ),
];

/// Rooms that turn bytes into values and back: no runtime, no files, no client, so that their tests are plain.
const PURE: &[&str] = &["format", "codec", "chunker", "keys", "id", "error", "limits", "secret"];
const NOT_IN_PURE: &[&str] = &["tokio::", "std::fs", "aws_sdk", "aws_config", "std::net", "std::process"];
/// What belongs to the terminal alone, and to the pod.
const ONLY_IN_CLI: &[&str] =
    &["clap::", "indicatif::", "anyhow::", "println!", "eprintln!", "carrack_proto::"];

/// Who reads the document sees what is enforced.
#[test]
fn the_document_has_the_same_table() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ARCHITECTURE.md");
    let document = fs::read_to_string(document).unwrap();
    let (_, behind) = document.split_once("### Who may import whom").unwrap();
    let table = behind.split("```").nth(1).unwrap();
    let names = |list: &str| -> BTreeSet<String> { list.split(',').map(|name| name.trim().into()).collect() };
    let mut shown = BTreeSet::new();
    for line in table.trim().lines() {
        let (rooms, used) = line.split_once('→').unwrap();
        shown.extend(names(rooms).into_iter().map(|room| (room, names(used))));
    }
    let own = |list: &[&str]| -> BTreeSet<String> { list.iter().map(|name| (*name).into()).collect() };
    let with_edges = ROOMS.iter().filter(|(_, used)| !used.is_empty());
    let mut enforced: BTreeSet<_> = with_edges.map(|(room, used)| ((*room).into(), own(used))).collect();
    enforced.insert(("everything".into(), own(GROUND)));
    assert_eq!(shown, enforced);
}

#[test]
fn rooms_use_only_what_the_table_allows() {
    let mut wrong = Vec::new();
    for (room, path, code) in sources() {
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!("{}: the room {room:?} has no row in the table", path.display()));
            continue;
        };
        for used in rooms_used(&code) {
            let known = ROOMS.iter().any(|(name, _)| *name == used);
            if known && used != room && !allowed.contains(&used.as_str()) && !GROUND.contains(&used.as_str())
            {
                wrong.push(format!("{}: {room} may not use {used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "edges that the map of rooms does not have:\n{}", wrong.join("\n"));
}

#[test]
fn pure_rooms_do_no_input_or_output() {
    refuse(NOT_IN_PURE, |room| PURE.contains(&room));
}

#[test]
fn only_the_command_line_talks_to_a_terminal() {
    refuse(ONLY_IN_CLI, |room| room != "cli");
}

#[test]
fn unsafe_code_stays_in_sys() {
    refuse(&["unsafe {", "unsafe fn", "unsafe impl"], |room| room != "sys");
}

#[test]
fn the_table_has_no_upward_edge_from_the_ground() {
    for (room, allowed) in ROOMS {
        assert!(!GROUND.contains(room) || allowed.is_empty(), "{room} is ground and may use nothing");
        for used in *allowed {
            assert!(ROOMS.iter().any(|(name, _)| name == used), "{room} uses {used}, which has no row");
        }
    }
}

#[test]
fn paths_are_found_in_every_form() {
    let code = "use crate::error::Error;\nuse crate::{\n    format::{frame::{A, B}, page::C},\n    store,\n};\n\
                fn f() { crate::limits::X; $crate::nothing::y(); } // crate::commented\n";
    let found: Vec<_> = rooms_used(&without_comments(code)).into_iter().collect();
    assert_eq!(found, ["error", "format", "limits", "store"]);
}

fn refuse(words: &[&str], applies: impl Fn(&str) -> bool) {
    let mut wrong = Vec::new();
    for (room, path, code) in sources() {
        if !applies(&room) {
            continue;
        }
        for word in words.iter().filter(|word| code.contains(**word)) {
            wrong.push(format!("{}: {word:?} does not belong into {room}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every source of the engine but its tests, `lib.rs` and `main.rs`: room, path, code without comments.
fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mover/src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 10, "the engine's sources were not found below {}", root.display());
    found.sort();
    found.into_iter().filter_map(|path| describe(&root, path)).collect()
}

fn describe(root: &Path, path: PathBuf) -> Option<(String, PathBuf, String)> {
    let inside = path.strip_prefix(root).unwrap().to_path_buf();
    let is_test = inside.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        matches!(&*part, "tests.rs" | "tests" | "testing.rs") || part.ends_with("_tests.rs")
    });
    let room = inside.components().next()?.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
    if is_test || room == "lib" || room == "main" {
        return None;
    }
    let code = fs::read_to_string(&path).unwrap();
    let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    Some((room, inside, without_comments(code)))
}

fn without_comments(code: &str) -> String {
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The rooms behind every `crate::`, also in braces.
fn rooms_used(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|before| before.is_alphanumeric() || before == '_' || before == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => rooms.extend(top_names(list)),
            None => rooms.extend(name(rest)),
        }
    }
    rooms
}

/// The first name of each item in a list in braces, up to the brace that closes it.
fn top_names(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut depth, mut start) = (0usize, 0usize);
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.extend(name(&list[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.extend(name(&list[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

fn name(text: &str) -> Option<String> {
    let text = text.trim_start();
    let end =
        text.find(|character: char| !character.is_alphanumeric() && character != '_').unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}
