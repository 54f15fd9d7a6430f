//! Progress of long work: a bar on a terminal, a plain line every few seconds elsewhere, status messages for
//! programs.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use carrack_mover::{
    clock::World,
    monitor::{Monitor, Problem, Progress, Touched, Wait, escape_path},
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{
    json::{Found, OneTouched, Status, WouldDelete},
    output::Output,
    units,
};

#[cfg(test)]
mod tests;

/// How often a bar is drawn.
const DRAW: Duration = Duration::from_millis(150);
/// How often a status message is sent.
const STATUS: Duration = Duration::from_secs(1);
/// How often a plain line is printed: a log of a night's backup stays readable.
const LINE: Duration = Duration::from_secs(5);
/// Problems that are printed; the rest is only counted, so that a broken disk does not fill the log.
const PROBLEMS_PRINTED: u64 = 1000;
/// Paths to remove that are printed by a dry run; the rest is only counted.
const REMOVALS_PRINTED: u64 = 1000;

/// Watches one piece of work and shows how it goes. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    monitor: Arc<Watcher>,
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The monitor that the engine is given.
#[derive(Debug)]
pub(crate) struct Watcher {
    what: &'static str,
    progress: Progress,
    phase: Mutex<String>,
    output: Output,
    world: World,
    started: Duration,
    bar: Option<ProgressBar>,
    /// How much a dry run would have removed.
    removals: AtomicU64,
}

impl Watch {
    pub(crate) fn start(what: &'static str, output: &Output, world: &World) -> Self {
        let monitor = Arc::new(Watcher {
            what,
            progress: Progress::default(),
            phase: Mutex::default(),
            output: output.clone(),
            world: world.clone(),
            started: world.clock.monotonic(),
            bar: output.draws().then(new_bar),
            removals: AtomicU64::new(0),
        });
        output.share_bar(monitor.bar.clone());
        if output.is_quiet() {
            return Self { monitor, stop: None, thread: None };
        }
        let (stop, stopped) = sync_channel(1);
        let watcher = Arc::clone(&monitor);
        let interval = watcher.interval();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                watcher.show();
            }
        });
        Self { monitor, stop: Some(stop), thread: Some(thread) }
    }

    /// What the engine reports to.
    pub(crate) fn monitor(&self) -> Arc<dyn Monitor> {
        Arc::clone(&self.monitor) as Arc<dyn Monitor>
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.monitor.elapsed()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It ends with an error only if it panicked, and the panic was reported then.
            drop(thread.join());
        }
        self.monitor.output.share_bar(None);
        if let Some(bar) = &self.monitor.bar {
            bar.finish_and_clear();
        }
    }
}

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{spinner} {wide_msg}").expect("the template is a constant");
    bar.set_style(style);
    bar
}

impl Watcher {
    fn interval(&self) -> Duration {
        match (&self.bar, self.output.is_json()) {
            (Some(_), _) => DRAW,
            (None, true) => STATUS,
            (None, false) => LINE,
        }
    }

    fn elapsed(&self) -> Duration {
        self.world.clock.monotonic().saturating_sub(self.started)
    }

    /// What the engine says that it does; until it says something, what it was asked for.
    fn phase_name(&self) -> String {
        let phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if phase.is_empty() { self.what.to_owned() } else { phase.clone() }
    }

    fn status(&self) -> Status {
        let elapsed = self.elapsed().as_secs_f64();
        let get = Progress::get;
        let progress = &self.progress;
        let (bytes_done, total_bytes) = (get(&progress.bytes), get(&progress.bytes_expected));
        let (files_done, total_files) = (get(&progress.entries), get(&progress.entries_expected));
        let share = share_done(bytes_done, total_bytes).or_else(|| share_done(files_done, total_files));
        Status {
            phase: self.phase_name(),
            seconds_elapsed: elapsed,
            seconds_remaining: share.and_then(|share| remaining(elapsed, share)),
            percent_done: share,
            files_done,
            total_files,
            bytes_done,
            total_bytes,
            bytes_moved: get(&progress.bytes_moved),
            bytes_new: get(&progress.bytes_new),
            bytes_stored: get(&progress.bytes_stored),
            error_count: get(&progress.problems),
        }
    }

    fn show(&self) {
        let status = self.status();
        if let Some(bar) = &self.bar {
            bar.set_message(sentence(&status, true));
            bar.tick();
        } else if self.output.is_json() {
            // A reader that is gone is no reason to end a backup: the result is what counts.
            drop(self.output.message("status", &status));
        } else {
            self.output.note(sentence(&status, false));
        }
    }
}

impl Monitor for Watcher {
    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn phase(&self, name: &str) {
        name.clone_into(&mut self.phase.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn problem(&self, problem: Problem) {
        Progress::add(&self.progress.problems, 1);
        let number = Progress::get(&self.progress.problems);
        if number > PROBLEMS_PRINTED {
            self.output.unprinted_problem(&problem.what, &problem.message);
            return;
        }
        self.output.problem(&problem.what, &problem.message);
        if number == PROBLEMS_PRINTED {
            self.output.print_problem("more problems", "they are counted and no longer printed");
        }
    }

    fn slow_source(&self, path: &[u8], seconds: u64) {
        let place = format!("/{}", escape_path(path));
        self.output.slow_source(&Wait {
            place,
            cause: format!("it has not been read for {seconds} s"),
            tries_left: None,
        });
    }

    fn would_remove(&self, path: &[u8]) {
        let number = self.removals.fetch_add(1, Ordering::Relaxed) + 1;
        if number > REMOVALS_PRINTED {
            return;
        }
        let item = escape_path(path);
        // A reader that is gone is met again by the summary.
        if self.output.is_json() {
            drop(self.output.message("would_delete", &WouldDelete { item: &item }));
            return;
        }
        drop(self.output.remark(format_args!("delete     {item}")));
        if number == REMOVALS_PRINTED {
            drop(self.output.remark("delete     and more, which are counted and not printed"));
        }
    }

    fn damaged(&self, object: &str, problem: &str) {
        match (self.output.tells_all(), self.output.is_json()) {
            (false, _) => {}
            (true, true) => drop(self.output.message("found", &Found { object, problem })),
            (true, false) => drop(self.output.line(format_args!("found      {object}: {problem}"))),
        }
    }

    fn touched(&self, object: &str, touched: &Touched, entries: u64) {
        match (self.output.tells_all(), self.output.is_json()) {
            (false, _) => {}
            (true, true) => {
                drop(self.output.message("touched", &OneTouched { object, entries, touched }));
            }
            (true, false) => {
                let place = in_words(touched);
                drop(self.output.line(format_args!("touched    {place} because of {object}")));
            }
        }
    }
}

/// A path that does not restore, or the first and the last of a stretch of them.
pub(crate) fn in_words(touched: &Touched) -> String {
    let to = touched.to.as_ref().map(|to| format!(" to /{to}")).unwrap_or_default();
    format!("{}:/{}{to}", touched.snapshot, touched.path)
}

/// A total that was passed was an estimate, and says nothing any more.
fn share_done(done: u64, total: u64) -> Option<f64> {
    (total > 0 && done <= total).then(|| done as f64 / total as f64)
}

/// Seconds until the end at the speed so far; not guessed from the first instant.
fn remaining(elapsed: f64, share: f64) -> Option<f64> {
    (share > 0.01 && elapsed > 1.0).then(|| elapsed * (1.0 - share) / share)
}

/// Bar of so many cells.
const CELLS: usize = 20;

/// One line for people: share, bytes, rate, time left, how much of it was new.
fn sentence(status: &Status, bar: bool) -> String {
    let elapsed = Duration::from_secs_f64(status.seconds_elapsed);
    let mut parts = Vec::new();
    if let Some(share) = status.percent_done {
        if bar {
            let full = (share * CELLS as f64) as usize;
            parts.push(format!("[{}{}]", "=".repeat(full), " ".repeat(CELLS.saturating_sub(full))));
        }
        parts.push(format!("{:.0} %", share * 100.0));
    }
    if status.total_bytes > status.bytes_done {
        parts.push(format!("{} of {}", units::size(status.bytes_done), units::size(status.total_bytes)));
    } else {
        parts.push(units::size(status.bytes_done));
    }
    if status.files_done > 0 {
        parts.push(units::count(status.files_done, "entry", "entries"));
    }
    parts.push(units::rate(status.bytes_done, elapsed));
    if let Some(seconds) = status.seconds_remaining {
        parts.push(format!("{} left", units::duration(Duration::from_secs_f64(seconds))));
    }
    if let Some(share) = share_done(status.bytes_new, status.bytes_done).filter(|_| status.bytes_new > 0) {
        parts.push(format!("{:.0} % new", share * 100.0));
    }
    if status.error_count > 0 {
        parts.push(units::count(status.error_count, "problem", "problems"));
    }
    format!("{}: {}", status.phase, parts.join("  "))
}
