use clap::Parser as _;

use super::*;
use crate::cli::args::{Cli, Command};

fn policy_of(arguments: &str) -> KeepPolicy {
    let line = format!("carrack forget {arguments}");
    let parsed = Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command);
    let Ok(Command::Forget(args)) = parsed else { unreachable!("{line}: {parsed:?}") };
    policy(&args.keep)
}

/// All rules of a policy side by side; what is not given is zero, or nothing.
fn rules(policy: &KeepPolicy) -> ([u32; 6], Option<[i64; 4]>, Vec<&str>) {
    let KeepPolicy { last, hourly, daily, weekly, monthly, yearly, within, tags } = policy;
    let within = within.map(|span| {
        [span.get_years().into(), span.get_months().into(), span.get_days().into(), span.get_hours().into()]
    });
    let counts = [*last, *hourly, *daily, *weekly, *monthly, *yearly];
    (counts, within, tags.iter().map(String::as_str).collect())
}

#[test]
fn each_option_is_the_rule_of_its_name_and_no_other() {
    for (arguments, counts) in [
        ("--keep-last 7", [7, 0, 0, 0, 0, 0]),
        ("-l 7", [7, 0, 0, 0, 0, 0]),
        ("--keep-hourly 7", [0, 7, 0, 0, 0, 0]),
        ("--keep-daily 7", [0, 0, 7, 0, 0, 0]),
        ("-d 7", [0, 0, 7, 0, 0, 0]),
        ("--keep-weekly 7", [0, 0, 0, 7, 0, 0]),
        ("-w 7", [0, 0, 0, 7, 0, 0]),
        ("--keep-monthly 7", [0, 0, 0, 0, 7, 0]),
        ("-m 7", [0, 0, 0, 0, 7, 0]),
        ("--keep-yearly 7", [0, 0, 0, 0, 0, 7]),
        ("-y 7", [0, 0, 0, 0, 0, 7]),
    ] {
        assert_eq!(rules(&policy_of(arguments)), (counts, None, vec![]), "{arguments}");
    }
    let within = policy_of("--keep-within 1y6m3d12h");
    assert_eq!(rules(&within), ([0; 6], Some([1, 6, 3, 12]), vec![]));
    let tags = policy_of("--keep-tag a,b --keep-tag c");
    assert_eq!(rules(&tags), ([0; 6], None, vec!["a,b", "c"]));
    assert!(policy_of("--host one --tag a --path /p --group-by tag").is_empty(), "filters are no rules");
}

#[test]
fn rules_stand_beside_each_other() {
    let all = policy_of(
        "--keep-last 1 --keep-hourly 2 --keep-daily 3 --keep-weekly 4 --keep-monthly 5 --keep-yearly 6 \
         --keep-within 2d --keep-tag a",
    );
    assert_eq!(rules(&all), ([1, 2, 3, 4, 5, 6], Some([0, 0, 2, 0]), vec!["a"]));
}
