//! What times tell, and what they do not: attributes that changed alone, clocks that are set back.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::SignedDuration;
use rustix::fs::XattrFlags;

use super::*;

fn mark(path: &Path, value: &str) {
    rustix::fs::setxattr(path, "user.mark", value.as_bytes(), XattrFlags::empty()).unwrap();
}

/// The mark of each entry that has one.
async fn marks(place: &Place, report: &BackupReport) -> Vec<(String, String)> {
    let reader = SnapshotReader::new(place.repository().await, report.snapshot.clone().unwrap());
    let mut walk = reader.entries(Part::all()).unwrap();
    let mut found = Vec::new();
    while let Some(leaf) = walk.next_leaf().await.unwrap() {
        for entry in leaf {
            let name = String::from_utf8(entry.path.rsplit(|byte| *byte == b'/').next().unwrap().to_vec());
            let marks = entry.metadata.xattrs.into_iter().filter(|xattr| xattr.name == b"user.mark");
            found.extend(marks.map(|mark| (name.clone().unwrap(), String::from_utf8(mark.value).unwrap())));
        }
    }
    found
}

/// A file system that was copied has new times of this kind everywhere, and they are passed over; the attributes are not.
#[tokio::test(flavor = "multi_thread")]
async fn attributes_are_read_where_nothing_but_their_time_differs() {
    let place = Place::new().await;
    let source = place.tree();
    for name in ["a00", "below", "below/large"] {
        mark(&source.join(name), "old");
    }
    let options = || place.options(files(&source));
    let report = place.run(options()).await;
    let expected = |value: &str| ["a00", "below", "large"].map(|name| (name.to_owned(), value.to_owned()));
    assert_eq!(marks(&place, &report).await, expected("old"));
    for name in ["a00", "below", "below/large"] {
        mark(&source.join(name), "new");
    }
    let report = place.run(options()).await;
    assert_eq!(marks(&place, &report).await, expected("new"));
    let statistics = &report.snapshot.as_ref().unwrap().statistics;
    assert_eq!((statistics.files_unmodified, statistics.bytes_read), (61, 0));
    assert_eq!(place.compare(&report).await, 61);
}

/// Goes back an hour with each look; a run takes no time by it, so a checkpoint is always due.
#[derive(Debug)]
struct Backwards {
    looks: AtomicI64,
    world: World,
}

#[async_trait::async_trait]
impl Clock for Backwards {
    fn now(&self) -> Timestamp {
        let hours = self.looks.fetch_add(1, Ordering::Relaxed);
        self.world.clock.now() - SignedDuration::from_hours(hours)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_hinders_no_checkpoint() {
    let place = Place::new().await;
    let source = place.tree();
    let clock = Arc::new(Backwards { looks: AtomicI64::new(0), world: World::system() });
    place.killed_by(clock, place.options(files(&source)), 5).await;
}
