use super::*;

fn cell(tool: &str, outcome: Outcome, seconds: &[f64], stored: u64) -> Cell {
    Cell {
        dataset: "db".into(),
        store: "local".into(),
        step: "first".into(),
        tool: tool.into(),
        outcome,
        runs: seconds.iter().map(|&seconds| Usage { seconds, ..Usage::default() }).collect(),
        stored_bytes: Some(stored << 20),
        added_bytes: None,
    }
}

#[test]
fn ratios_take_medians_and_the_fastest_peer_that_was_measured() {
    let report = Report {
        facts: Vec::new(),
        budgets: Vec::new(),
        cells: vec![
            cell(LIMIT, Outcome::Measured, &[1.0], 0),
            cell(SUBJECT, Outcome::Measured, &[9.0, 2.0, 1.0], 103),
            cell("restic", Outcome::Measured, &[6.0], 100),
            cell("borg", Outcome::Failed("wrong bytes".into()), &[0.5], 1),
            cell("kopia", Outcome::Missing, &[], 0),
        ],
    };
    let text = report.markdown();
    assert!(text.contains("| 2.00 | 3.00 (restic) |"), "{text}");
    assert!(text.contains("| 1.030 |"), "{text}");
    assert!(text.contains("FAILED") && text.contains("wrong bytes"), "{text}");
    assert!(text.contains("missing") && text.contains("kopia: the program is not on this machine"), "{text}");
}
