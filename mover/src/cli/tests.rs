//! The argument table: what is accepted and what is refused, and the text of every help.

use std::collections::BTreeSet;

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

use super::args::Cli;

#[test]
fn definitions_hold_together() {
    Cli::command().debug_assert();
}

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn accepted() {
    for line in [
        "carrack init",
        "carrack -r /r backup a b",
        "carrack backup -r /r a --exclude *.o -e x --iexclude Y --tag a,b --tag c -x -n",
        "carrack backup --stdin --stdin-filename dump.sql",
        "carrack backup --device /dev/sda --changed-blocks f --change-id 7",
        "carrack backup --files-from-verbatim list",
        "carrack backup --files-from - --exclude-larger-than 1GiB --exclude-if-present .nobackup",
        "carrack backup / --force --ignore-ctime --ignore-inode --skip-if-unchanged -H h",
        "carrack restore latest -t /t",
        "carrack restore latest:/a --target - --include x --exclude y --overwrite if-changed --verify --sparse",
        "carrack restore 12ab --target / --delete --dry-run --host h --tag t --path /p",
        "carrack snapshots --latest 3 --group-by host,path",
        "carrack ls latest -l -R",
        "carrack find x y -i --snapshot latest",
        "carrack diff a b --metadata",
        "carrack cat file latest:/a",
        "carrack cat snapshot latest",
        "carrack cat config",
        "carrack mount /m --allow-other",
        "carrack check --read-data-subset 5%",
        "carrack check --sizes",
        "carrack forget --keep-last 3 --keep-within 1y6m3d12h --keep-tag a,b --prune --fence-after 7d",
        "carrack forget 12ab --pin",
        "carrack forget --keep-tag a --allow-forget-all -n",
        "carrack prune --fence-after 1d12h --wait 0",
        "carrack prune --fence-after 14d --dry-run",
        "carrack key list",
        "carrack key add --label x --new-password-file f",
        "carrack key remove 12ab",
        "carrack key remove 12ab -n",
        "carrack key remove --unproven --dry-run",
        "carrack key rotate -n",
        "carrack key bundle --path /a",
        "carrack copy --from-repo /o --from-password-file p latest",
        "carrack copy --from-repo s3://b/p --from-endpoint https://h --from-ca-file c --from-credentials-file f",
        "carrack stats",
        "carrack repo info --json",
        "carrack repo merge-index",
        "carrack repo repair-index -n",
        "carrack completions bash",
        "carrack man --dir /tmp",
        "carrack -vv --memory 96MiB --threads 2 --cipher chacha20-poly1305 --compression 1..6 snapshots",
        "carrack --path-style snapshots",
        "carrack snapshots --quiet --json --no-color",
    ] {
        if let Err(error) = parse(line) {
            unreachable!("{line}: {error}");
        }
    }
}

#[test]
fn every_verb_can_be_named_as_it_is_typed() {
    let mut named = BTreeSet::new();
    for line in [
        "init",
        "backup a",
        "restore latest -t /t",
        "snapshots",
        "ls latest",
        "find x",
        "diff a b",
        "cat file latest:/a",
        "cat snapshot latest",
        "cat config",
        "mount /m",
        "check",
        "forget 12ab",
        "prune",
        "key list",
        "key add",
        "key remove 12ab",
        "key rotate",
        "key bundle --path /a",
        "copy",
        "stats",
        "repo info",
        "repo merge-index",
        "repo repair-index",
        "repo revive",
        "job f",
        "completions bash",
        "man",
    ] {
        let words = parse(&format!("carrack {line}")).unwrap().command.words();
        assert!(format!("{line} ").starts_with(&format!("{words} ")), "{line}: {words}");
        named.insert(words.to_owned());
    }
    let program = Cli::command();
    for verb in program.get_subcommands() {
        let below = verb.get_subcommands().map(|what| format!("{} {}", verb.get_name(), what.get_name()));
        let mut typed: Vec<String> = below.collect();
        if typed.is_empty() {
            typed.push(verb.get_name().to_owned());
        }
        assert!(typed.iter().all(|words| named.remove(words)), "{typed:?}");
    }
    assert_eq!(named, BTreeSet::new());
}

#[test]
fn refused() {
    use ErrorKind::{
        ArgumentConflict, InvalidSubcommand, InvalidValue, MissingRequiredArgument, ValueValidation,
    };
    for (line, kind) in [
        ("carrack bakcup", InvalidSubcommand),
        ("carrack backup", MissingRequiredArgument),
        ("carrack backup a --host=", ValueValidation),
        ("carrack backup a --tag=", ValueValidation),
        ("carrack backup a --tag a,,b", ValueValidation),
        ("carrack key bundle --path /a --host=", ValueValidation),
        ("carrack backup a --stdin", ArgumentConflict),
        ("carrack backup --stdin --device d", ArgumentConflict),
        ("carrack backup --changed-blocks f", MissingRequiredArgument),
        ("carrack backup a --parent p --force", ArgumentConflict),
        ("carrack backup a --exclude-larger-than big", ValueValidation),
        ("carrack restore latest", MissingRequiredArgument),
        ("carrack restore latest -t t --overwrite maybe", InvalidValue),
        ("carrack check --read-data --sizes", ArgumentConflict),
        ("carrack check --read-data-subset 0", ValueValidation),
        ("carrack forget --pin", MissingRequiredArgument),
        ("carrack forget a --pin --unpin", ArgumentConflict),
        ("carrack forget --keep-within soon", ValueValidation),
        ("carrack forget a --allow-forget-all", ArgumentConflict),
        ("carrack prune --fence-after 1y", ValueValidation),
        ("carrack prune --wait 90", ValueValidation),
        ("carrack snapshots -q -v", ArgumentConflict),
        ("carrack snapshots --compression 20", ValueValidation),
        ("carrack snapshots --threads 0", ValueValidation),
        ("carrack snapshots -p a --key-file b", ArgumentConflict),
        ("carrack snapshots --cipher rot13", InvalidValue),
        ("carrack completions tcl", InvalidValue),
    ] {
        let error = parse(line).map(|_| line).expect_err("this is wrong");
        assert_eq!(error.kind(), kind, "{line}: {error}");
    }
}

#[test]
fn no_option_takes_a_password() {
    let mut program = Cli::command();
    program.build();
    for argument in program.get_arguments() {
        assert!(!matches!(argument.get_long(), Some("password" | "passphrase" | "secret")), "{argument}");
    }
}

#[test]
fn helps() {
    let mut program = Cli::command().term_width(100);
    program.build();
    let mut text = program.render_help().to_string();
    for verb in program.get_subcommands_mut() {
        if verb.get_name() == "help" {
            continue;
        }
        assert!(verb.get_after_help().is_some(), "{} teaches without an example", verb.get_name());
        text.push_str(&format!("\n==== {} ====\n", verb.get_name()));
        text.push_str(&verb.render_help().to_string());
    }
    insta::assert_snapshot!(text);
}
