use std::sync::Mutex;

use super::*;
use crate::monitor::{CollectMonitor, Progress};

/// Keeps all that it hears of damage.
#[derive(Debug, Default)]
struct Listener {
    counts: CollectMonitor,
    damaged: Mutex<Vec<String>>,
    touched: Mutex<Vec<String>>,
}

impl Monitor for Listener {
    fn progress(&self) -> &Progress {
        self.counts.progress()
    }

    fn phase(&self, _name: &str) {}

    fn problem(&self, problem: Problem) {
        self.counts.problem(problem);
    }

    fn damaged(&self, object: &str, problem: &str) {
        self.damaged.lock().unwrap().push(format!("{object}: {problem}"));
    }

    fn touched(&self, object: &str, Touched { snapshot, path, to }: &Touched, entries: u64) {
        self.touched.lock().unwrap().push(format!("{object} {snapshot} {path} {to:?} {entries}"));
    }
}

/// So many objects, each damaged twice and touching so many entries of two snapshots.
fn damage(report: &mut CheckReport, monitor: &dyn Monitor, objects: usize, entries: usize) {
    for round in 0..2 {
        for object in 0..objects {
            report.add_damage(monitor, format!("packs/{object}"), format!("problem {round}"));
        }
    }
    for object in 0..objects {
        for snapshot in ["one", "two"] {
            for entry in 0..entries {
                let path = format!("{entry}");
                report.touch(monitor, &format!("packs/{object}"), snapshot, (path.as_bytes(), None), 1);
            }
        }
    }
}

#[test]
fn what_is_not_listed_is_counted_once() {
    let (mut report, monitor) = (CheckReport::default(), CollectMonitor::default());
    damage(&mut report, &monitor, DAMAGE_LISTED + 7, TOUCHED_LISTED);
    assert_eq!((report.damage.len(), report.damages), (DAMAGE_LISTED, DAMAGE_LISTED as u64 + 7));
    assert_eq!(Progress::get(&monitor.progress().problems), DAMAGE_LISTED as u64 + 7);
    let first = &report.damage[0];
    assert_eq!((first.problems, first.snapshots_touched, first.files_touched), (2, 2, 40));
    assert_eq!((first.problem.as_str(), first.files.len()), ("problem 0", TOUCHED_LISTED));
}

#[test]
fn whoever_listens_hears_of_everything() {
    let (mut report, listener) = (CheckReport::default(), Listener::default());
    damage(&mut report, &listener, DAMAGE_LISTED + 7, TOUCHED_LISTED + 1);
    report.touch(&listener, "packs/1006", "three", (b"a", Some(b"z")), 26);
    let [damaged, touched] = [listener.damaged, listener.touched].map(|heard| heard.into_inner().unwrap());
    let wanted: Vec<String> =
        (0..DAMAGE_LISTED + 7).map(|object| format!("packs/{object}: problem 0")).collect();
    assert_eq!(damaged, wanted);
    assert_eq!(touched.len(), (DAMAGE_LISTED + 7) * 2 * (TOUCHED_LISTED + 1) + 1);
    assert_eq!(touched[0], "packs/0 one 0 None 1");
    assert_eq!(touched.last().unwrap(), "packs/1006 three a Some(\"z\") 26");
    assert_eq!(report.damages, DAMAGE_LISTED as u64 + 7);
}
