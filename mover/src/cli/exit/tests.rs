use std::collections::BTreeSet;

use clap::CommandFactory as _;

use super::*;

const KINDS: [(ErrorKind, u8); 10] = [
    (ErrorKind::Invalid, 2),
    (ErrorKind::NotFound, 10),
    (ErrorKind::Conflict, 11),
    (ErrorKind::Unavailable, 12),
    (ErrorKind::Denied, 13),
    (ErrorKind::Corrupt, 14),
    (ErrorKind::Cancelled, 130),
    (ErrorKind::NoSpace, 15),
    (ErrorKind::Incomplete, 16),
    (ErrorKind::Internal, 70),
];

#[test]
fn every_kind_has_its_code() {
    for (kind, expected) in KINDS {
        assert_eq!(code(&Error::new(kind, "x")), expected, "{kind:?}");
    }
    // A further kind of the engine would be met here, and not end in "anything else".
    let engine = include_str!("../../error.rs");
    let (_, kinds) = engine.split_once("pub enum ErrorKind {").expect("the kinds");
    let (kinds, _) = kinds.split_once("\n}").expect("the last of them");
    let names: Vec<&str> = kinds.lines().filter_map(|line| line.trim().strip_suffix(',')).collect();
    assert_eq!(names, KINDS.map(|(kind, _)| format!("{kind:?}")));
}

/// Every code that the program can end with.
fn codes() -> BTreeSet<u8> {
    let outcomes = [Outcome::Done, Outcome::Partial, Outcome::Damaged].map(Outcome::code);
    KINDS.iter().map(|(_, code)| *code).chain(outcomes).chain([SYSTEM]).collect()
}

/// ARCHITECTURE.md is compared with both by the tests of the program.
#[test]
fn the_help_and_the_table_above_have_every_code_and_no_other() {
    let program = super::super::args::Cli::command();
    let help = program.get_after_help().expect("what follows the options").to_string();
    let (_, list) = help.split_once("Exit codes:\n").expect("a list of exit codes");
    let (list, _) = list.split_once("\n\n").expect("the end of the list");
    let listed: Vec<u8> = list.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let rows = include_str!("../exit.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
    let table: Vec<u8> = rows.filter_map(|row| row.split(' ').next()?.parse().ok()).collect();
    for found in [listed, table] {
        assert_eq!(found.iter().copied().collect::<BTreeSet<_>>(), codes());
        assert_eq!(found.len(), codes().len(), "one of them twice: {found:?}");
    }
}

#[test]
fn what_nobody_reads_is_no_kind_of_error() {
    let closed = Error::unavailable("standard output").with_source(OutputClosed);
    assert_eq!(code(&closed), 1);
}

/// On its way an error may get the advice that is right for what others say there.
#[test]
fn the_next_step_of_a_defect_is_its_own() {
    let hint = "look at the damage: carrack check";
    assert_eq!(next_step(&Error::corrupt("x").with_hint(hint)), Some(hint));
    assert_eq!(next_step(&Error::internal("x").with_hint(hint)), Some(DEFECT));
}

#[test]
fn outcomes_have_codes() {
    assert_eq!(Outcome::of_problems(0).code(), 0);
    assert_eq!(Outcome::of_problems(7).code(), 3);
    assert_eq!(Outcome::Damaged.code(), 14);
}
