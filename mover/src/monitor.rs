//! The only way up from the engine to whoever watches it: counters, and things that went wrong on the way.

use std::{
    fmt::Debug,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// A thing that went wrong without ending the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path or object; bytes that are not UTF-8 are escaped.
    pub what: String,
    /// What went wrong, in words.
    pub message: String,
}

/// Numbers that only grow while work goes on; what is begun anew is counted anew.
#[derive(Debug, Default)]
pub struct Progress {
    /// Entries done.
    pub entries: AtomicU64,
    /// Bytes of contents done, unchanged ones included.
    pub bytes: AtomicU64,
    /// Bytes of contents that there will be, as far as known.
    pub bytes_expected: AtomicU64,
    /// Entries that there will be, as far as known.
    pub entries_expected: AtomicU64,
    /// Bytes of contents that were read (backup) or written (restore).
    pub bytes_moved: AtomicU64,
    /// Bytes of new chunks before compression.
    pub bytes_new: AtomicU64,
    /// Bytes that went to the store or came from it.
    pub bytes_stored: AtomicU64,
    /// Problems so far.
    pub problems: AtomicU64,
}

impl Progress {
    /// Adds to one of the numbers.
    pub fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }

    /// Takes back what was counted since it was this amount: that work is done anew.
    pub fn take_back(counter: &AtomicU64, amount: u64) {
        counter.store(amount, Ordering::Relaxed);
    }

    /// Reads one of the numbers.
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

/// A path that cannot be restored whole.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Touched {
    /// The snapshot.
    pub snapshot: String,
    /// The path in it. Of entries whose names cannot be read, the first.
    pub path: String,
    /// The last of them, where names cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// Watches one piece of work.
pub trait Monitor: Send + Sync + Debug {
    /// The numbers to add to.
    fn progress(&self) -> &Progress;
    /// Which part of the work begins.
    fn phase(&self, name: &str);
    /// Something went wrong, and the work goes on.
    fn problem(&self, problem: Problem);
    /// A part of the source has not answered for so many seconds, and is still waited for.
    fn slow_source(&self, _path: &[u8], _seconds: u64) {}
    /// A dry run has found something that would be removed.
    fn would_remove(&self, _path: &[u8]) {}
    /// A check has found an object damaged, and this is wrong with it. Each object is told once, also beyond the number that
    /// a report lists.
    fn damaged(&self, _object: &str, _problem: &str) {}
    /// Because of this object, so many entries do not restore whole: one, or a stretch of which the first and the last name
    /// are known. All are told, also beyond the number that a report lists.
    fn touched(&self, _object: &str, _touched: &Touched, _entries: u64) {}
}

/// The other side has not answered for a while, and is asked again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Who is waited for.
    pub place: String,
    /// Why, in words.
    pub cause: String,
    /// How often the request is sent again before it counts as failed; none: whoever made it decides.
    pub tries_left: Option<u32>,
}

/// Hears of waits, also before there is any work to watch: a repository is opened first.
pub trait WaitMonitor: Send + Sync + Debug {
    /// Told once for each time that nothing is answered.
    fn waiting(&self, wait: &Wait);
}

/// Counts and keeps, and shows nothing.
#[derive(Debug, Default)]
pub struct CollectMonitor {
    progress: Progress,
    problems: Mutex<Vec<Problem>>,
    removals: Mutex<Vec<String>>,
}

/// Problems that are kept word for word; the rest is only counted.
pub const PROBLEMS_KEPT: usize = 1000;

impl CollectMonitor {
    /// The problems so far (the first `PROBLEMS_KEPT`).
    pub fn problems(&self) -> Vec<Problem> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a dry run would remove (the first `PROBLEMS_KEPT`).
    pub fn removals(&self) -> Vec<String> {
        self.removals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Monitor for CollectMonitor {
    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn phase(&self, _name: &str) {}

    fn problem(&self, problem: Problem) {
        Progress::add(&self.progress.problems, 1);
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.len() < PROBLEMS_KEPT {
            problems.push(problem);
        }
    }

    fn would_remove(&self, path: &[u8]) {
        let mut removals = self.removals.lock().unwrap_or_else(PoisonError::into_inner);
        if removals.len() < PROBLEMS_KEPT {
            removals.push(escape_path(path));
        }
    }
}

/// A path for people and records: UTF-8 as it is, other bytes as `\xNN`, a backslash as `\\`.
pub fn escape_path(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for piece in path.utf8_chunks() {
        for character in piece.valid().chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                control if control.is_control() => {
                    for byte in control.to_string().bytes() {
                        out.push_str(&format!("\\x{byte:02x}"));
                    }
                }
                plain => out.push(plain),
            }
        }
        for byte in piece.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// The bytes that [`escape_path`] wrote down; none if it did not write this.
pub fn unescape_path(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = match (byte, after) {
            (b'\\', [b'\\', after @ ..]) => {
                out.push(b'\\');
                after
            }
            (b'\\', [b'x', high, low, after @ ..]) => {
                let mut decoded = [0];
                hex::decode_to_slice([*high, *low], &mut decoded).ok()?;
                out.extend_from_slice(&decoded);
                after
            }
            (b'\\', _) => return None,
            (plain, after) => {
                out.push(*plain);
                after
            }
        };
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_escaped_comes_back() {
        for path in
            [&b"/home/a b"[..], b"", b"/\\x41\\", b"/\xff\xfe\n\x7f", "/ä/\u{85}/日".as_bytes(), b"/\xc3"]
        {
            assert_eq!(unescape_path(&escape_path(path)).as_deref(), Some(path), "{path:?}");
        }
        for other in ["\\", "/\\n", "/\\x4", "/\\xzz"] {
            assert_eq!(unescape_path(other), None, "{other}");
        }
    }
}
