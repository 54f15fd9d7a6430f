//! Files that change between the walk and their turn.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use super::*;
use crate::monitor::{Monitor, Problem, Progress};

/// Does something when it hears of the first problem, so at a known place of the walk.
struct AtFirstProblem<F> {
    act: F,
    done: AtomicBool,
    progress: Progress,
}

impl<F> fmt::Debug for AtFirstProblem<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AtFirstProblem").field("done", &self.done).finish_non_exhaustive()
    }
}

impl<F: Fn() + Send + Sync> Monitor for AtFirstProblem<F> {
    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn phase(&self, _name: &str) {}

    fn problem(&self, _problem: Problem) {
        if self.done.load(Ordering::Acquire) {
            return;
        }
        // The walk looks far ahead meanwhile.
        std::thread::sleep(Duration::from_millis(500));
        (self.act)();
        self.done.store(true, Ordering::Release);
    }
}

/// Backs up a directory that is missing, which is the problem, and then `source`, to which `act` is done after the walk of it.
async fn run(place: &Place, source: &Path, act: impl Fn() + Send + Sync + 'static) -> BackupReport {
    let roots = vec![place.path("missing"), source.to_owned()];
    let options = place.options(BackupSource::Files(WalkOptions { roots, ..WalkOptions::default() }));
    let monitor =
        Arc::new(AtFirstProblem { act, done: AtomicBool::new(false), progress: Progress::default() });
    let repository = place.repository().await;
    let report = backup(&repository, options, monitor.clone(), Cancel::default()).await.unwrap();
    assert!(monitor.done.load(Ordering::Acquire));
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_of_a_file_is_not_joined_to_what_it_became_since_the_walk() {
    let place = Place::new().await;
    let (source, missing) = (place.path("source"), place.path("missing"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&missing).unwrap();
    let file = source.join("large");
    write_old(&file, &noise(1, 80 << 20));
    let roots = vec![missing.clone(), source.clone()];
    let of = BackupSource::Files(WalkOptions { roots, ..WalkOptions::default() });
    place.killed(place.options(of), 5).await;
    fs::remove_dir(&missing).unwrap();
    let report = run(&place, &source, move || fs::write(&file, noise(4, 80 << 20)).unwrap()).await;
    assert_eq!(report.continued.bytes, 0, "it goes on with what the file was");
    assert_eq!(place.compare(&report).await, 1);
}

/// What the walk saw of them fits into one piece many times over.
#[tokio::test(flavor = "multi_thread")]
async fn small_files_that_grew_since_the_walk_take_no_more_memory_than_others() {
    let place = Place::new().await;
    let source = place.path("source");
    fs::create_dir(&source).unwrap();
    let files: Vec<_> = (0..48).map(|number| source.join(format!("{number}"))).collect();
    for file in &files {
        write_old(file, b"small");
    }
    let grow = move || {
        for (number, file) in files.iter().enumerate() {
            fs::write(file, noise(number as u64, 1 << 20)).unwrap();
        }
    };
    let report = run(&place, &source, grow).await;
    assert_eq!(report.snapshot.as_ref().unwrap().statistics.bytes_read, 48 << 20);
    assert_eq!(place.compare(&report).await, 48);
}
