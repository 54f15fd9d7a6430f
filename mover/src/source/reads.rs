//! What threads read just now. A network file system, or one of a program, may never answer: then whoever watches a
//! backup must hear what it waits for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// All readers of one source.
#[derive(Debug, Default)]
pub struct Reads(Mutex<Vec<Arc<Slot>>>);

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
pub struct UnderWay<'r>(&'r Slot);

impl Reads {
    /// A place for one more thread.
    pub fn reader(&self) -> Reader {
        let slot = Arc::new(Slot::default());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&slot));
        Reader(slot)
    }
}

impl Reader {
    /// Says that this path is read, until the answer is dropped.
    pub fn begin(&self, path: &[u8]) -> UnderWay<'_> {
        let mut kept = self.0.path.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clear();
        kept.extend_from_slice(path);
        drop(kept);
        self.0.serial.fetch_add(1, Ordering::Relaxed);
        UnderWay(&self.0)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.serial.fetch_add(1, Ordering::Relaxed);
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
        let slots = reads.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.seen.resize(slots.len(), (0, 0));
        let mut late = Vec::new();
        for (slot, (serial, count)) in slots.iter().zip(&mut self.seen) {
            let now = slot.serial.load(Ordering::Relaxed);
            *count = if now % 2 == 1 && now == *serial { *count + 1 } else { 0 };
            *serial = now;
            let turns = *count / looks.max(1);
            let due = turns.is_power_of_two() && turns.ilog2().is_multiple_of(2);
            if due && count.is_multiple_of(looks.max(1)) {
                late.push((slot.path.lock().unwrap_or_else(PoisonError::into_inner).clone(), *count));
            }
        }
        late
    }

    /// What has been read for as many looks as this or more.
    pub fn silent(&self, reads: &Reads, looks: u64) -> Option<(Vec<u8>, u64)> {
        let slots = reads.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (slot, (_, count)) = slots.iter().zip(&self.seen).find(|(_, (_, count))| *count >= looks)?;
        Some((slot.path.lock().unwrap_or_else(PoisonError::into_inner).clone(), *count))
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
            given_up.extend(lookout.silent(&reads, 98).map(|silent| (look, silent)));
        }
        assert_eq!(told, [5, 20, 80].map(|looks| (b"stuck".to_vec(), looks)));
        // The first look sees that it reads, the second that it still does.
        assert_eq!(given_up, [99, 100].map(|look| (look, (b"stuck".to_vec(), look - 1))));
    }
}
