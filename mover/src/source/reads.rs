//! What threads read just now. A network file system, or one of a program, may never answer: then whoever watches a
//! backup must hear what it waits for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cancel::Cancel;

/// All readers of one source.
#[derive(Debug, Default)]
pub struct Reads {
    slots: Mutex<Vec<Arc<Slot>>>,
    given_up: Cancel,
}

/// What one thread reads.
#[derive(Debug, Default)]
struct Slot {
    path: Mutex<Vec<u8>>,
    /// Odd while it reads; another number for each read.
    serial: AtomicU64,
}

/// One thread's place among the readers.
#[derive(Debug)]
pub struct Reader(Arc<Slot>);

/// A read under way.
#[derive(Debug)]
pub struct UnderWay<'r> {
    slot: &'r Slot,
    /// Length of the path that it began with.
    begun: usize,
}

impl Reads {
    /// A place for one more thread.
    pub fn reader(&self) -> Reader {
        let slot = Arc::new(Slot::default());
        self.slots().push(Arc::clone(&slot));
        Reader(slot)
    }

    /// Whether all this is given up, because one of the readers may never come back: then nobody waits for any of them.
    pub fn given_up(&self) -> &Cancel {
        &self.given_up
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn path(&self) -> MutexGuard<'_, Vec<u8>> {
        self.path.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// Says that this path is read, until the answer is dropped.
    pub fn begin(&self, path: &[u8]) -> UnderWay<'_> {
        let mut kept = self.0.path();
        kept.clear();
        kept.extend_from_slice(path);
        drop(kept);
        self.0.serial.fetch_add(1, Ordering::Relaxed);
        UnderWay { slot: &self.0, begun: path.len() }
    }
}

impl UnderWay<'_> {
    /// Says that from now on this name in the directory is read with which it began.
    pub fn at(&self, name: &[u8]) {
        let mut kept = self.slot.path();
        kept.truncate(self.begun);
        if self.begun > 0 {
            kept.push(b'/');
        }
        kept.extend_from_slice(name);
        // Odd as before: another read, of the same thread. Before anybody sees the path.
        self.slot.serial.fetch_add(2, Ordering::Relaxed);
    }

    /// Says that some of it has come, so that this is as good as another read.
    pub fn still(&self) {
        self.slot.serial.fetch_add(2, Ordering::Relaxed);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.slot.serial.fetch_add(1, Ordering::Relaxed);
    }
}

/// Looks at the readers now and then.
#[derive(Debug, Default)]
pub struct Lookout {
    /// Of each reader: what it read at the last look, and for how many looks it has.
    seen: Vec<(u64, u64)>,
}

impl Lookout {
    /// What has been read for `looks` looks now, or for four times as many, and so on: so nobody hears of one wait all
    /// the time.
    pub fn look(&mut self, reads: &Reads, looks: u64) -> Vec<(Vec<u8>, u64)> {
        let slots = reads.slots();
        self.seen.resize(slots.len(), (0, 0));
        let mut late = Vec::new();
        for (slot, (serial, count)) in slots.iter().zip(&mut self.seen) {
            let now = slot.serial.load(Ordering::Relaxed);
            *count = if now % 2 == 1 && now == *serial { *count + 1 } else { 0 };
            *serial = now;
            let turns = *count / looks.max(1);
            let due = turns.is_power_of_two() && turns.ilog2().is_multiple_of(2);
            if due && count.is_multiple_of(looks.max(1)) {
                late.push((slot.path().clone(), *count));
            }
        }
        late
    }

    /// All that has been read for as many looks as this or more.
    pub fn silent(&self, reads: &Reads, looks: u64) -> Vec<(Vec<u8>, u64)> {
        let slots = reads.slots();
        let silent = slots.iter().zip(&self.seen).filter(|(_, (_, count))| *count >= looks);
        let still = silent.filter_map(|(slot, (serial, count))| {
            let path = slot.path().clone();
            // Otherwise it has come since, and the path may be what is read now.
            (slot.serial.load(Ordering::Relaxed) == *serial).then_some((path, *count))
        });
        still.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_takes_long_is_told_and_seldom() {
        let reads = Reads::default();
        let (one, other) = (reads.reader(), reads.reader());
        let mut lookout = Lookout::default();
        let _stuck = one.begin(b"stuck");
        let (mut told, mut given_up) = (Vec::new(), Vec::new());
        for look in 1..=100 {
            drop(other.begin(b"quick"));
            told.extend(lookout.look(&reads, 5));
            given_up.extend(lookout.silent(&reads, 98).into_iter().map(|silent| (look, silent)));
        }
        assert_eq!(told, [5, 20, 80].map(|looks| (b"stuck".to_vec(), looks)));
        // The first look sees that it reads, the second that it still does.
        assert_eq!(given_up, [99, 100].map(|look| (look, (b"stuck".to_vec(), look - 1))));
    }

    #[test]
    fn what_has_come_since_the_last_look_is_not_silent() {
        let reads = Reads::default();
        let readers: [Reader; 3] = std::array::from_fn(|_| reads.reader());
        let [ended, stuck, moved] = readers.each_ref().map(|reader| reader.begin(b"directory"));
        let mut lookout = Lookout::default();
        for _ in 0..2 {
            lookout.look(&reads, 9);
        }
        assert_eq!(lookout.silent(&reads, 1).len(), 3);
        drop(ended);
        let _another = readers[0].begin(b"another");
        moved.at(b"name");
        assert_eq!(lookout.silent(&reads, 1), [(b"directory".to_vec(), 1)]);
        drop(stuck);
        assert!(lookout.silent(&reads, 1).is_empty());
    }

    #[test]
    fn what_comes_slowly_is_not_silent() {
        let reads = Reads::default();
        let reader = reads.reader();
        let listing = reader.begin(b"directory");
        let mut lookout = Lookout::default();
        for _ in 0..9 {
            // The first look is another read's.
            for expected in [0, 1] {
                lookout.look(&reads, 9);
                assert_eq!(lookout.silent(&reads, 1).len(), expected);
            }
            listing.still();
        }
    }

    #[test]
    fn each_name_of_a_directory_is_a_read_of_its_own() {
        let reads = Reads::default();
        let (reader, top) = (reads.reader(), reads.reader());
        let (directory, above) = (reader.begin(b"a/directory"), top.begin(b""));
        let mut lookout = Lookout::default();
        for name in [&b"one"[..], b"other", b"third"] {
            directory.at(name);
            above.at(name);
            // The first look is another read's.
            for expected in [0, 2] {
                assert!(lookout.look(&reads, 9).is_empty());
                assert_eq!(lookout.silent(&reads, 1).len(), expected);
            }
            let silent = lookout.silent(&reads, 1);
            assert_eq!(silent[0], ([&b"a/directory/"[..], name].concat(), 1));
            assert_eq!(silent[1], (name.to_vec(), 1));
        }
        drop((directory, above));
        lookout.look(&reads, 9);
        assert!(lookout.silent(&reads, 1).is_empty());
    }
}
