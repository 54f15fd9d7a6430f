//! What is asked of the subject, as ratios, beside what was measured.
//!
//! A time is compared with the limit of the same run (at most so many times it) and with the fastest peer that was
//! measured (at least so many times faster). What was not measured is neither met nor missed.

use serde::{Deserialize, Serialize};

use super::{Cell, LIMIT, SERVER, SUBJECT, is_peer, push};

/// The variant of the subject that is told to keep to 96 MiB.
const SMALL: &str = "carrack-96MiB";
/// The variant that takes a dataset for a device.
const DEVICE: &str = "carrack-device";
/// The same with a list of changed blocks.
const LIST: &str = "carrack-list";

/// An earlier build of the subject.
const BEFORE: &str = "carrack-before";

/// Whether a budget was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It was.
    Met,
    /// It was not.
    Missed,
    /// What it compares was not measured.
    Unknown,
    /// A figure without a bound.
    Figure,
}

/// One bound, and what was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Budget {
    /// Step, or what else is measured.
    pub what: String,
    /// Dataset.
    pub dataset: String,
    /// Store.
    pub store: String,
    /// What the measured number is.
    pub figure: String,
    /// The number.
    pub measured: Option<f64>,
    /// The bound in words: `<= 1.250`.
    pub bound: String,
    /// Whether it was kept.
    pub verdict: Verdict,
}

#[derive(Clone, Copy, Debug)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
    None,
}

/// Bounds of one step's time.
struct Times {
    step: &'static str,
    datasets: &'static [&'static str],
    limit: Option<f64>,
    peer: f64,
}

/// Steps that are compared with the earlier build, and how much longer than there they may take.
const STEPS: &[&str] = &["first", "restore", "check", "unchanged", "changed", "clone", "prune"];
const SLOWER: f64 = 1.05;

const ALL: &[&str] = &["random", "vm", "tree", "small", "db"];
const LARGE: &[&str] = &["random", "vm", "tree", "db"];

const TIMES: &[Times] = &[
    Times { step: "first", datasets: &["random"], limit: Some(1.25), peer: 3.0 },
    Times { step: "first", datasets: &["vm", "tree", "db"], limit: Some(1.25), peer: 2.0 },
    Times { step: "first", datasets: &["small"], limit: Some(1.4), peer: 2.0 },
    Times { step: "unchanged", datasets: &["tree", "small"], limit: Some(2.5), peer: 1.0 },
    Times { step: "changed", datasets: &["vm", "db"], limit: Some(1.3), peer: 2.0 },
    Times { step: "clone", datasets: ALL, limit: Some(1.3), peer: 2.0 },
    Times { step: "restore", datasets: LARGE, limit: Some(1.3), peer: 2.0 },
    Times { step: "restore", datasets: &["small"], limit: Some(1.5), peer: 1.5 },
    Times { step: "check", datasets: ALL, limit: Some(1.3), peer: 2.0 },
    Times { step: "prune", datasets: ALL, limit: None, peer: 1.0 },
];

/// S3: times the own time in a directory, times faster than the fastest peer.
const S3: &[(&str, f64, f64)] = &[("first", 1.2, 2.0), ("restore", 1.2, 2.0)];
/// Peak memory of every command, in MiB.
const MEMORY: f64 = 256.0;
/// Peak memory when told to keep to it, in MiB, and how much more time that may take.
const SMALL_MEMORY: f64 = 96.0;
const SMALL_TIME: f64 = 1.4;
/// Size of the first repository beside the smallest peer's.
const SIZE: f64 = 1.03;
/// Bytes that changed pages add, beside what they add to the best peer's.
const ADDED: f64 = 1.0 / 3.0;

struct Judge<'a> {
    cells: &'a [Cell],
    budgets: Vec<Budget>,
}

/// All budgets that the scenarios in `cells` have figures for.
pub(super) fn judge(cells: &[Cell]) -> Vec<Budget> {
    let mut judge = Judge { cells, budgets: Vec::new() };
    for dataset in ALL {
        judge.before(dataset);
        if judge.has(dataset, "local") {
            judge.times(dataset);
            judge.sizes(dataset);
            judge.small_memory(dataset);
            judge.list(dataset);
            judge.memory(dataset, "local");
        }
        if judge.has(dataset, "s3") {
            judge.s3(dataset);
            judge.memory(dataset, "s3");
        }
    }
    judge.budgets
}

impl<'a> Judge<'a> {
    fn has(&self, dataset: &str, store: &str) -> bool {
        self.cells.iter().any(|cell| cell.dataset == dataset && cell.store == store)
    }

    fn row(&self, dataset: &str, store: &str, step: &str) -> impl Iterator<Item = &'a Cell> {
        let wanted = [dataset, store, step].map(str::to_owned);
        self.cells
            .iter()
            .filter(move |cell| [&cell.dataset, &cell.store, &cell.step].into_iter().eq(wanted.iter()))
    }

    fn cell(&self, dataset: &str, store: &str, step: &str, tool: &str) -> Option<&'a Cell> {
        self.row(dataset, store, step).find(|cell| cell.tool == tool)
    }

    fn seconds(&self, dataset: &str, store: &str, step: &str, tool: &str) -> Option<f64> {
        self.cell(dataset, store, step, tool)?.seconds()
    }

    fn fastest(&self, dataset: &str, store: &str, step: &str) -> Option<(f64, &'a str)> {
        let peers = self.row(dataset, store, step).filter(|cell| is_peer(cell));
        peers
            .filter_map(|cell| Some((cell.seconds()?, cell.tool.as_str())))
            .min_by(|a, b| a.0.total_cmp(&b.0))
    }

    fn add(&mut self, place: (&str, &str), what: &str, figure: String, measured: Option<f64>, bound: Bound) {
        let verdict = match (measured, bound) {
            (None, _) => Verdict::Unknown,
            (Some(_), Bound::None) => Verdict::Figure,
            (Some(value), Bound::AtMost(most)) if value <= most => Verdict::Met,
            (Some(value), Bound::AtLeast(least)) if value >= least => Verdict::Met,
            _ => Verdict::Missed,
        };
        let bound = match bound {
            Bound::AtMost(most) => format!("<= {most:.3}"),
            Bound::AtLeast(least) => format!(">= {least:.3}"),
            Bound::None => "–".into(),
        };
        let (dataset, store, what) = (place.0.into(), place.1.into(), what.into());
        self.budgets.push(Budget { what, dataset, store, figure, measured, bound, verdict });
    }

    fn peer(&mut self, place: (&str, &str), step: &str, least: f64) {
        let own = self.seconds(place.0, place.1, step, SUBJECT);
        let peer = self.fastest(place.0, place.1, step);
        let name = peer.map_or("fastest peer", |(_, name)| name);
        let measured = own.zip(peer).map(|(own, (peer, _))| peer / own);
        self.add(place, step, format!("{name} ÷ carrack"), measured, Bound::AtLeast(least));
    }

    fn times(&mut self, dataset: &str) {
        for times in TIMES.iter().filter(|times| times.datasets.contains(&dataset)) {
            let place = (dataset, "local");
            if let Some(most) = times.limit {
                let own = self.seconds(dataset, "local", times.step, SUBJECT);
                let limit = self.seconds(dataset, "local", times.step, LIMIT);
                let measured = own.zip(limit).map(|(own, limit)| own / limit);
                self.add(place, times.step, "× limit".into(), measured, Bound::AtMost(most));
            }
            self.peer(place, times.step, times.peer);
        }
    }

    fn s3(&mut self, dataset: &str) {
        for &(step, most, least) in S3 {
            let own = self.seconds(dataset, "s3", step, SUBJECT);
            let local = self.seconds(dataset, "local", step, SUBJECT);
            let measured = own.zip(local).map(|(own, local)| own / local);
            self.add((dataset, "s3"), step, "× own local time".into(), measured, Bound::AtMost(most));
            // Where the server has the same cores, its share of the work comes on top of ours: is that all?
            let server = self.seconds(dataset, "s3", step, SERVER);
            if let Some(((own, local), server)) = own.zip(local).zip(server) {
                let figure = "× (own local time + server alone)".into();
                let measured = Some(own / (local + server));
                self.add((dataset, "s3"), step, figure, measured, Bound::AtMost(most));
            }
            self.peer((dataset, "s3"), step, least);
        }
    }

    fn sizes(&mut self, dataset: &str) {
        let measured = |cell: &&Cell| cell.seconds().is_some();
        let own = |judge: &Self, step| judge.cell(dataset, "local", step, SUBJECT).filter(measured);
        let peers = |judge: &Self, step| {
            let row = judge.row(dataset, "local", step);
            row.filter(|cell| is_peer(cell)).filter(measured).collect::<Vec<_>>()
        };
        let stored = own(self, "first").and_then(|cell| cell.stored_bytes);
        let smallest = peers(self, "first").iter().filter_map(|cell| cell.stored_bytes).min();
        let ratio = stored.zip(smallest).map(|(own, peer)| own as f64 / peer as f64);
        let place = (dataset, "local");
        self.add(place, "stored, first", "× smallest peer".into(), ratio, Bound::AtMost(SIZE));
        if dataset == "db" {
            let added = own(self, "changed").and_then(|cell| cell.added_bytes);
            let best = peers(self, "changed").iter().filter_map(|cell| cell.added_bytes).min();
            let ratio = added.zip(best.filter(|best| *best > 0)).map(|(own, peer)| own as f64 / peer as f64);
            self.add(place, "stored again, changed", "× best peer".into(), ratio, Bound::AtMost(ADDED));
        }
        // Time for a prune says little without what it freed: nobody frees everything, and each draws the line elsewhere.
        let left = own(self, "prune").and_then(|cell| cell.stored_bytes);
        let smallest = peers(self, "prune").iter().filter_map(|cell| cell.stored_bytes).min();
        let ratio = left.zip(smallest).map(|(own, peer)| own as f64 / peer as f64);
        self.add(place, "stored, after prune", "× smallest peer".into(), ratio, Bound::None);
    }

    /// The step that suffers most from less memory.
    fn small_memory(&mut self, dataset: &str) {
        let small = self.cells.iter().filter(|cell| {
            cell.dataset == dataset && cell.store == "local" && cell.tool == SMALL && cell.seconds().is_some()
        });
        let ratio = |cell: &'a Cell| {
            let usual = self.seconds(dataset, "local", &cell.step, SUBJECT)?;
            Some((cell.seconds()? / usual, cell.step.as_str()))
        };
        let worst = small.clone().filter_map(ratio).max_by(|a, b| a.0.total_cmp(&b.0));
        let peak = small.map(Cell::peak).max_by(f64::total_cmp);
        let figure = worst.map_or("× usual time".into(), |(_, step)| format!("× usual time ({step})"));
        let place = (dataset, "local");
        let what = "--memory 96MiB";
        self.add(place, what, figure, worst.map(|(ratio, _)| ratio), Bound::AtMost(SMALL_TIME));
        self.add(place, what, "peak MiB".into(), peak, Bound::AtMost(SMALL_MEMORY));
    }

    /// What a list of changed blocks is worth: it has no bound as a ratio, but should shrink with what changed.
    fn list(&mut self, dataset: &str) {
        let time = |step, tool| self.seconds(dataset, "local", step, tool);
        let pairs = [
            ("changed, with a list", "× device without", time("changed", LIST).zip(time("changed", DEVICE))),
            (
                "unchanged, with a list",
                "× device without",
                time("unchanged", LIST).zip(time("unchanged", DEVICE)),
            ),
        ];
        for (what, figure, pair) in pairs {
            if let Some((list, device)) = pair {
                self.add((dataset, "local"), what, figure.into(), Some(list / device), Bound::None);
            }
        }
    }

    /// No step may have become slower; nothing is said without the earlier build. The shortest of several runs is what a
    /// disturbed machine changes least.
    fn before(&mut self, dataset: &str) {
        for (store, step) in
            ["local", "s3"].iter().flat_map(|store| STEPS.iter().map(move |step| (store, step)))
        {
            let shortest = |tool| self.cell(dataset, store, step, tool).and_then(Cell::shortest);
            if let Some((own, before)) = shortest(SUBJECT).zip(shortest(BEFORE)) {
                let figure = "× the earlier build (shortest run)".into();
                self.add((dataset, store), step, figure, Some(own / before), Bound::AtMost(SLOWER));
            }
        }
    }

    fn memory(&mut self, dataset: &str, store: &str) {
        let own = self.cells.iter().filter(|cell| {
            cell.dataset == dataset
                && cell.store == store
                && cell.tool.starts_with(SUBJECT)
                && cell.tool != BEFORE
                && cell.seconds().is_some()
        });
        let worst = own.map(|cell| (cell.peak(), &cell.step)).max_by(|a, b| a.0.total_cmp(&b.0));
        let figure = worst.map_or("peak MiB".into(), |(_, step)| format!("peak MiB ({step})"));
        self.add((dataset, store), "memory", figure, worst.map(|(peak, _)| peak), Bound::AtMost(MEMORY));
    }
}

/// The table of budgets, and how many were kept.
pub(super) fn markdown(budgets: &[Budget]) -> String {
    let mut text = String::new();
    if budgets.is_empty() {
        return text;
    }
    let count = |verdict| budgets.iter().filter(|budget| budget.verdict == verdict).count();
    push(
        &mut text,
        format_args!(
            "\n## Budgets\n\n{} met, {} missed, {} not measured.\n\n",
            count(Verdict::Met),
            count(Verdict::Missed),
            count(Verdict::Unknown)
        ),
    );
    text.push_str(
        "| dataset | store | what | figure | measured | budget | |\n|---|---|---|---|---:|---:|---|\n",
    );
    for budget in budgets {
        let measured = budget.measured.map_or_else(|| "–".into(), |value| format!("{value:.3}"));
        let verdict = match budget.verdict {
            Verdict::Met => "met",
            Verdict::Missed => "**missed**",
            Verdict::Unknown => "not measured",
            Verdict::Figure => "",
        };
        let Budget { what, dataset, store, figure, bound, .. } = budget;
        push(
            &mut text,
            format_args!("| {dataset} | {store} | {what} | {figure} | {measured} | {bound} | {verdict} |\n"),
        );
    }
    text
}

#[cfg(test)]
mod tests;
