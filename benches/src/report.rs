//! Results: medians, ratios to the limit and to the fastest peer, as Markdown and as JSON.

mod budget;

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::measure::Usage;
pub use budget::{Budget, Verdict};

/// The limit's name where tools' names stand.
pub const LIMIT: &str = "limit";
/// The name of what an S3 server takes for the limit's bytes alone.
pub const SERVER: &str = "server alone";
/// The tool that the ratios are for.
pub const SUBJECT: &str = "carrack";

/// What became of one tool in one step.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "status", content = "reason")]
pub enum Outcome {
    /// It was measured.
    Measured,
    /// The program is not on this machine.
    Missing,
    /// The tool cannot do this at all.
    Unsupported(String),
    /// It ended with an error, or restored something else than it was given.
    Failed(String),
}

/// One cell of a table: a tool, a step, a dataset, a store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// Dataset.
    pub dataset: String,
    /// Store.
    pub store: String,
    /// Step.
    pub step: String,
    /// Tool, or [`LIMIT`].
    pub tool: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Every run's figures.
    pub runs: Vec<Usage>,
    /// Bytes in the repository after the step, of the last run; none where that cannot be told.
    pub stored_bytes: Option<u64>,
    /// Bytes that the step added to the repository.
    pub added_bytes: Option<i64>,
}

impl Cell {
    /// Median wall time; none when nothing was measured.
    pub fn seconds(&self) -> Option<f64> {
        self.middle(|usage| usage.seconds)
    }

    fn middle(&self, figure: impl Fn(&Usage) -> f64) -> Option<f64> {
        let mut values: Vec<f64> = self.runs.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        matches!(self.outcome, Outcome::Measured).then(|| values.get(values.len() / 2).copied())?
    }

    /// Seconds of the shortest run; none if it was not measured.
    pub fn shortest(&self) -> Option<f64> {
        let seconds = self.runs.iter().map(|usage| usage.seconds);
        matches!(self.outcome, Outcome::Measured).then(|| seconds.min_by(f64::total_cmp))?
    }

    /// The largest peak of memory, in MiB.
    pub fn peak(&self) -> f64 {
        self.runs.iter().map(|usage| usage.peak_mib).fold(0.0, f64::max)
    }
}

/// Everything a run found out.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Options, versions and machine, as name and value.
    pub facts: Vec<(String, String)>,
    /// What is asked for, beside what was measured.
    pub budgets: Vec<Budget>,
    /// All cells, in the order of the tables.
    pub cells: Vec<Cell>,
}

impl Report {
    /// Whether the scenario is there and nothing of it failed.
    pub fn is_complete(&self, dataset: &str, store: &str) -> bool {
        let mut cells =
            self.cells.iter().filter(|cell| cell.dataset == dataset && cell.store == store).peekable();
        cells.peek().is_some() && cells.all(|cell| !matches!(cell.outcome, Outcome::Failed(_)))
    }

    /// Puts what is asked for beside what was measured.
    pub fn judge(&mut self) {
        self.budgets = budget::judge(&self.cells);
    }

    /// The report as Markdown: per dataset and store one table of times and one of stored bytes.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.facts {
            push(&mut text, format_args!("- {name}: {value}\n"));
        }
        text.push_str(&budget::markdown(&self.budgets));
        for (dataset, store) in distinct(self.cells.iter().map(|cell| (&cell.dataset, &cell.store))) {
            let cells: Vec<&Cell> =
                self.cells.iter().filter(|cell| &cell.dataset == dataset && &cell.store == store).collect();
            let tools = distinct(cells.iter().map(|cell| &cell.tool));
            push(
                &mut text,
                format_args!("\n## {dataset}, {store}\n\nSeconds (× limit; processor seconds; peak MiB)\n\n"),
            );
            table(&mut text, &cells, &tools, &["× limit", "peer ÷ carrack"], time, ratios);
            push(&mut text, format_args!("\nMiB in the repository after the step (added by the step)\n\n"));
            table(&mut text, &cells, &tools, &["carrack ÷ smallest peer"], |cell, _| size(cell), size_ratio);
        }
        let notes = distinct(self.cells.iter().filter_map(note));
        if !notes.is_empty() {
            text.push_str("\n## Not measured\n\n");
            for note in notes {
                push(&mut text, format_args!("- {note}\n"));
            }
        }
        text
    }
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("writing to a String cannot fail");
}

fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    values.fold(Vec::new(), |mut seen, value| {
        if !seen.contains(&value) {
            seen.push(value);
        }
        seen
    })
}

fn table(
    text: &mut String,
    cells: &[&Cell],
    tools: &[&String],
    extra: &[&str],
    show: impl Fn(&Cell, Option<f64>) -> String,
    ratios: impl Fn(&[&Cell]) -> Vec<String>,
) {
    text.push_str("| step |");
    for name in tools.iter().map(|tool| tool.as_str()).chain(extra.iter().copied()) {
        push(text, format_args!(" {name} |"));
    }
    push(text, format_args!("\n|---|{}\n", "---:|".repeat(tools.len() + extra.len())));
    for step in distinct(cells.iter().map(|cell| &cell.step)) {
        let row: Vec<&Cell> = cells.iter().copied().filter(|cell| &cell.step == step).collect();
        let limit = row.iter().find(|cell| cell.tool == LIMIT).and_then(|cell| cell.seconds());
        push(text, format_args!("| {step} |"));
        for tool in tools {
            let shown = row
                .iter()
                .find(|cell| &&cell.tool == tool)
                .map_or_else(|| "–".into(), |cell| show(cell, limit));
            push(text, format_args!(" {shown} |"));
        }
        for ratio in ratios(&row) {
            push(text, format_args!(" {ratio} |"));
        }
        text.push('\n');
    }
}

fn time(cell: &Cell, limit: Option<f64>) -> String {
    let Some(seconds) = cell.seconds() else { return word(&cell.outcome).into() };
    let cpu = cell.middle(|usage| usage.cpu_seconds).unwrap_or_default();
    if cell.tool == LIMIT {
        return format!("{seconds:.3} ({cpu:.2})");
    }
    let ratio = limit.map(|limit| format!("× {:.2}; ", seconds / limit)).unwrap_or_default();
    format!("{seconds:.2} ({ratio}{cpu:.2}; {:.0})", cell.peak())
}

fn size(cell: &Cell) -> String {
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    match (cell.seconds(), cell.stored_bytes, cell.added_bytes) {
        (None, ..) => word(&cell.outcome).into(),
        (_, Some(stored), Some(added)) => format!("{:.1} ({:+.1})", mib(stored as f64), mib(added as f64)),
        (_, Some(stored), None) => format!("{:.1}", mib(stored as f64)),
        _ => "–".into(),
    }
}

const fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Measured => "–",
        Outcome::Missing => "missing",
        Outcome::Unsupported(_) => "cannot",
        Outcome::Failed(_) => "FAILED",
    }
}

fn note(cell: &Cell) -> Option<String> {
    match &cell.outcome {
        Outcome::Measured => None,
        Outcome::Missing => Some(format!("{}: the program is not on this machine", cell.tool)),
        Outcome::Unsupported(why) => Some(format!("{}: {why}", cell.tool)),
        Outcome::Failed(why) => {
            Some(format!("{} failed at {} of {} ({}): {why}", cell.tool, cell.step, cell.dataset, cell.store))
        }
    }
}

fn is_peer(cell: &Cell) -> bool {
    // The subject's variants have its name before theirs.
    cell.tool != LIMIT && cell.tool != SERVER && !cell.tool.starts_with(SUBJECT)
}

/// The subject's time over the limit's, and the fastest peer's over the subject's.
fn ratios(row: &[&Cell]) -> Vec<String> {
    let subject = row.iter().find(|cell| cell.tool == SUBJECT).and_then(|cell| cell.seconds());
    let limit = row.iter().find(|cell| cell.tool == LIMIT).and_then(|cell| cell.seconds());
    let peer = row
        .iter()
        .filter(|cell| is_peer(cell))
        .filter_map(|cell| Some((cell.seconds()?, &cell.tool)))
        .min_by(|a, b| a.0.total_cmp(&b.0));
    let dash = || "–".to_owned();
    vec![
        subject.zip(limit).map_or_else(dash, |(own, limit)| format!("{:.2}", own / limit)),
        subject.zip(peer).map_or_else(dash, |(own, (peer, tool))| format!("{:.2} ({tool})", peer / own)),
    ]
}

fn size_ratio(row: &[&Cell]) -> Vec<String> {
    let measured = |cell: &&&Cell| cell.seconds().is_some();
    let subject =
        row.iter().filter(measured).find(|cell| cell.tool == SUBJECT).and_then(|cell| cell.stored_bytes);
    let peer =
        row.iter().filter(measured).filter(|cell| is_peer(cell)).filter_map(|cell| cell.stored_bytes).min();
    vec![
        subject
            .zip(peer)
            .map_or_else(|| "–".into(), |(own, peer)| format!("{:.3}", own as f64 / peer as f64)),
    ]
}

#[cfg(test)]
mod tests;
