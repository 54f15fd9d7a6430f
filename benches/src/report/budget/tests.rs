use super::*;
use crate::measure::Usage;
use crate::report::Outcome;

fn cell(store: &str, step: &str, tool: &str, seconds: f64, peak_mib: f64, bytes: i64) -> Cell {
    Cell {
        dataset: "db".into(),
        store: store.into(),
        step: step.into(),
        tool: tool.into(),
        outcome: Outcome::Measured,
        runs: vec![Usage { seconds, peak_mib, ..Usage::default() }],
        stored_bytes: Some(bytes.unsigned_abs()),
        added_bytes: Some(bytes),
    }
}

#[test]
fn each_figure_is_held_against_its_own_bound() {
    let cells = [
        cell("local", "first", LIMIT, 1.0, 0.0, 90),
        cell("local", "first", SUBJECT, 1.2, 200.0, 102),
        cell("local", "first", SMALL, 1.9, 95.0, 102),
        cell("local", "first", "restic", 2.0, 900.0, 100),
        cell("local", "first", "borg", 4.0, 100.0, 120),
        cell("local", "changed", SUBJECT, 1.0, 150.0, 20),
        cell("local", "changed", "restic", 2.5, 200.0, 90),
        cell("s3", "first", SUBJECT, 1.3, 300.0, 0),
    ];
    let budgets = judge(&cells);
    let verdict = |store: &str, what: &str, figure: &str| {
        let found: Vec<_> = budgets
            .iter()
            .filter(|b| b.store == store && b.what == what && b.figure.starts_with(figure))
            .map(|b| b.verdict)
            .collect();
        assert_eq!(found.len(), 1, "{store} {what} {figure}");
        found[0]
    };
    assert_eq!(verdict("local", "first", "× limit"), Verdict::Met);
    assert_eq!(verdict("local", "first", "restic ÷ carrack"), Verdict::Missed);
    assert_eq!(verdict("local", "changed", "× limit"), Verdict::Unknown);
    assert_eq!(verdict("local", "changed", "restic ÷ carrack"), Verdict::Met);
    assert_eq!(verdict("local", "stored, first", "× smallest peer"), Verdict::Met);
    assert_eq!(verdict("local", "stored again, changed", "× best peer"), Verdict::Met);
    assert_eq!(verdict("local", "--memory 96MiB", "× usual time (first)"), Verdict::Missed);
    assert_eq!(verdict("local", "--memory 96MiB", "peak MiB"), Verdict::Met);
    assert_eq!(verdict("local", "memory", "peak MiB (first)"), Verdict::Met);
    assert_eq!(verdict("s3", "first", "× own local time"), Verdict::Met);
    assert_eq!(verdict("s3", "memory", "peak MiB"), Verdict::Missed);
    assert!(markdown(&budgets).contains("| db | local | first | × limit | 1.200 | <= 1.250 | met |"));
}

#[test]
fn what_the_server_takes_excuses_nothing() {
    let cells = [
        cell("local", "first", SUBJECT, 1.0, 100.0, 0),
        cell("s3", "first", SUBJECT, 4.0, 100.0, 0),
        cell("s3", "first", SERVER, 3.0, 0.0, 0),
        cell("s3", "first", "restic", 8.0, 100.0, 0),
    ];
    let budgets = judge(&cells);
    let rows = budgets.iter().filter(|budget| budget.store == "s3" && budget.what == "first");
    let rows: Vec<_> = rows.map(|budget| (budget.figure.as_str(), budget.measured, budget.verdict)).collect();
    assert_eq!(
        rows,
        [
            ("× own local time", Some(4.0), Verdict::Missed),
            ("× (own local time + server alone)", Some(1.0), Verdict::Met),
            ("restic ÷ carrack", Some(2.0), Verdict::Met),
        ]
    );
}

#[test]
fn an_earlier_build_is_no_peer_but_nothing_may_be_slower_than_it() {
    let shorter = |mut cell: Cell, seconds| {
        cell.runs.push(Usage { seconds, ..Usage::default() });
        cell
    };
    let cells = [
        shorter(cell("local", "first", SUBJECT, 3.0, 100.0, 100), 1.0),
        shorter(cell("local", "first", BEFORE, 1.0, 900.0, 50), 9.0),
        cell("local", "check", SUBJECT, 1.1, 100.0, 0),
        cell("local", "check", BEFORE, 1.0, 100.0, 0),
    ];
    let budgets = judge(&cells);
    let rows = budgets.iter().filter(|budget| budget.figure.contains("earlier"));
    let rows: Vec<_> = rows.map(|budget| (budget.what.as_str(), budget.measured, budget.verdict)).collect();
    assert_eq!(rows, [("first", Some(1.0), Verdict::Met), ("check", Some(1.1), Verdict::Missed)]);
    let others = budgets.iter().filter(|budget| !budget.figure.contains("earlier"));
    assert!(others.filter(|budget| budget.what != "memory").all(|budget| budget.verdict != Verdict::Met));
}
